/* peer_protocol.h: what peer_client.c and peer_server.c say to each other over a
 * socket: a request, its payload; a reply, its payload. Both ends are one build. */
#ifndef FOURBIT_BENCH_PEER_PROTOCOL_H
#define FOURBIT_BENCH_PEER_PROTOCOL_H

#include "bench/gpu_job.h"

#include <errno.h>
#include <unistd.h>

enum { PEER_FD = 3 };

typedef enum peer_verb {
    PEER_SETUP = 1, /* payload: codes; absmax, or absmax_codes, nested_absmax, nested_offset; activations fp32.
                       A GPU's: the initial contents of every role that has any, in their order */
    PEER_RUN,
    PEER_RESULT     /* replies with the output (a GPU's: every role that is written and that the peer has, in their order) */
} peer_verb;

typedef struct peer_request {
    peer_verb verb;
    fb_case c;  /* fourbit-peer */
    gpu_case g; /* fourbit-gpu-peer */
    int threads, calls;
    bool cold;
    uint64_t payload;
} peer_request;

typedef struct peer_reply {
    bool ok, fused;
    timing_span span;
    char text[TIMING_WHY]; /* what it does, or why not */
    uint64_t payload;
} peer_reply;

/* All of it, or false: the other end is gone. */
static inline bool peer_write(int fd, const void *data, size_t bytes)
{
    for (const char *p = data; bytes > 0;) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n, bytes -= (size_t)n;
    }
    return true;
}

/* Part of a PEER_SETUP's payload. */
typedef struct peer_part {
    const void *data;
    size_t bytes;
} peer_part;

/* peer_client.c: sends request and payload (request->payload is set here) to a process that is started anew if it has
 * ended; how and fused are its answer. */
struct peer_process;
bool peer_setup_parts(struct peer_process *p, peer_request *request, const peer_part *parts, int count, char how[TIMING_WHY], bool *fused,
                      char why[TIMING_WHY]);

#endif
