/* test_gpu_runtime.h: a GPU runtime on the host (gpu_runtime.h), for tests of what is ordered by streams and events.
 *
 * Nothing that is enqueued is done before someone waits for it, and then streams take turns by chance: any order that the
 * events allow can come. Memory is the host's; the card has as many bytes as it is told, of which managed memory takes what
 * was prefetched to it, and gives way to plain allocations, as a driver lets it. */
#ifndef FOURBIT_TRAIN_TEST_GPU_RUNTIME_H
#define FOURBIT_TRAIN_TEST_GPU_RUNTIME_H

#include "gpu_runtime.h"

#include <stdint.h>

typedef struct stand_in {
    gpu_runtime runtime; /* .self is the stand-in */
    size_t card_bytes;
    bool concurrent;
    uint64_t seed;       /* of the order */
    long fail_at;        /* that call of the table fails; counts down, 0: none does */
    long calls;
    /* what happened */
    long to_device, to_host; /* copies and prefetches done */
    size_t device_bytes, managed_bytes, managed_on_card; /* now */
    int allocations, handles; /* not given back */
    bool stuck;          /* someone waited for what can never happen */
    struct stand_in_stream *streams;
    struct stand_in_block *blocks;
} stand_in;

void stand_in_init(stand_in *s, size_t card_bytes, uint64_t seed);
/* f(user) on the stream. */
void stand_in_call(stand_in *s, void *stream, void (*f)(void *user), void *user);
/* Does all that can be done while `stream` stands still. */
void stand_in_run_others(stand_in *s, const void *stream);
void stand_in_run_all(stand_in *s);
/* Is all of it in device memory, or in managed memory that was prefetched there? */
bool stand_in_on_card(const stand_in *s, const void *p, size_t bytes);

#endif
