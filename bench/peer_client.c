/* peer_client.c: this side of a peer library in a process of its own. The library
 * may abort, hang or write where it should not: then this side has a reason to
 * put in the row, and the next case gets a new process. */
#include "bench/peer_protocol.h"
#include "bench/peers.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
    PATIENCE_SECONDS = 120, /* for one reply */
    /* libgomp's idle threads spin 300,000 pauses (5 ms at 2.4 GHz) before they sleep, on the cores that the
     * other process is about to be timed on: both sides are given the time to settle. */
    SETTLE_US = 8000
};

struct peer_process {
    pid_t pid; /* 0: not running */
    int fd, threads;
    char server[4096], library[4096];
};

static void end(peer_process *p)
{
    if (p->pid <= 0) return;
    close(p->fd);
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    p->pid = 0;
}

/* Why there was no reply; the process is ended. */
static bool lost(peer_process *p, bool hung, char *why)
{
    int status = 0;
    if (hung) {
        snprintf(why, TIMING_WHY, "its process did not answer within %d s", PATIENCE_SECONDS);
    } else {
        /* The socket closes a moment before the process can be waited for. */
        pid_t ended = 0;
        for (int i = 0; i < 100 && (ended = waitpid(p->pid, &status, WNOHANG)) == 0; i++) usleep(10000);
        if (ended == p->pid && WIFSIGNALED(status))
            snprintf(why, TIMING_WHY, "its process died of %s", strsignal(WTERMSIG(status)));
        else if (ended == p->pid)
            snprintf(why, TIMING_WHY, "its process exited with %d", WEXITSTATUS(status));
        else
            snprintf(why, TIMING_WHY, "its process closed the connection");
        if (ended == p->pid) {
            close(p->fd);
            p->pid = 0;
        }
    }
    end(p);
    return false;
}

static bool receive(peer_process *p, void *data, size_t bytes, char *why)
{
    double until = timing_now() + PATIENCE_SECONDS;
    for (char *at = data; bytes > 0;) {
        struct pollfd ready = {.fd = p->fd, .events = POLLIN};
        int left = (int)((until - timing_now()) * 1000), n = left > 0 ? poll(&ready, 1, left) : 0;
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return lost(p, true, why);
        ssize_t got = read(p->fd, at, bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return lost(p, false, why);
        at += got, bytes -= (size_t)got;
    }
    return true;
}

static bool answer(peer_process *p, peer_reply *reply, char *why)
{
    if (!receive(p, reply, sizeof *reply, why)) return false;
    if (reply->ok) return true;
    snprintf(why, TIMING_WHY, "%s", reply->text);
    return false;
}

/* exec and not only fork: a forked copy of a program that has used OpenMP cannot use it. */
static bool start(peer_process *p, char *why)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return snprintf(why, TIMING_WHY, "socketpair: %s", strerror(errno)), false;
    pid_t parent = getpid();
    p->pid = fork();
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        signal(SIGINT, SIG_IGN); /* Ctrl-C is the benchmark's to answer */
        if (ends[1] == PEER_FD) fcntl(PEER_FD, F_SETFD, 0);
        else dup2(ends[1], PEER_FD);
        char threads[16];
        snprintf(threads, sizeof threads, "%d", p->threads);
        setenv("OMP_NUM_THREADS", threads, 1);
        execl(p->server, p->server, p->library, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    p->fd = ends[0];
    if (p->pid > 0) return true;
    close(p->fd);
    p->pid = 0;
    return snprintf(why, TIMING_WHY, "fork: %s", strerror(errno)), false;
}

peer_process *peer_start(const char *server, const char *library, int threads, char why[TIMING_WHY])
{
    peer_process *p = calloc(1, sizeof *p);
    if (!p) return snprintf(why, TIMING_WHY, "no memory"), NULL;
    p->threads = threads;
    snprintf(p->server, sizeof p->server, "%s", server);
    snprintf(p->library, sizeof p->library, "%s", library);
    peer_reply hello;
    signal(SIGPIPE, SIG_IGN);
    if (start(p, why) && answer(p, &hello, why)) {
        snprintf(why, TIMING_WHY, "%s", hello.text);
        return p;
    }
    peer_stop(p);
    return NULL;
}

void peer_stop(peer_process *p)
{
    if (!p) return;
    end(p);
    free(p);
}

bool peer_does(const fb_case *c, char why[TIMING_WHY])
{
    const char *no = NULL;
    if (work_is_lora(c)) no = "its layer with an adapter is a chain of PyTorch operations";
    else if (c->op == FB_OP_QUANTIZE) no = "its CPU library has no 4-bit quantizer (it quantizes with PyTorch operations)";
    else if (c->format != FB_NF4 && c->format != FB_FP4) no = "it has only NF4 and FP4";
    else if (c->cols % 2) no = "it needs an even number of columns";
    if (no) snprintf(why, TIMING_WHY, "%s", no);
    return !no;
}

bool peer_setup_parts(peer_process *p, peer_request *request, const peer_part *parts, int count, char how[TIMING_WHY], bool *fused,
                      char why[TIMING_WHY])
{
    peer_reply reply;
    if (p->pid <= 0 && (!start(p, why) || !answer(p, &reply, why))) return false;
    request->verb = PEER_SETUP, request->threads = p->threads, request->payload = 0;
    for (int i = 0; i < count; i++) request->payload += parts[i].bytes;
    bool sent = peer_write(p->fd, request, sizeof *request);
    for (int i = 0; sent && i < count; i++) sent = peer_write(p->fd, parts[i].data, parts[i].bytes);
    if (!sent) return lost(p, false, why);
    if (!answer(p, &reply, why)) return false;
    snprintf(how, TIMING_WHY, "%s", reply.text);
    *fused = reply.fused;
    return true;
}

bool peer_setup(peer_process *p, const work *w, char how[TIMING_WHY], bool *fused, char why[TIMING_WHY])
{
    const fb_matrix_sizes *s = &w->sizes;
    const fb_case *c = &w->c;
    size_t na = c->op == FB_OP_DEQUANTIZE ? 0 : (size_t)(c->m * (c->op == FB_OP_GEMM ? c->cols : c->rows)) * sizeof(float);
    const peer_part parts[] = {
        {w->w.codes, s->codes},                 {w->w.absmax, s->absmax},               {w->w.absmax_codes, s->absmax_codes},
        {w->w.nested_absmax, s->nested_absmax}, {w->w.nested_offset, s->nested_offset}, {w->a_f32, na}};
    peer_request request = {.c = *c};
    return peer_setup_parts(p, &request, parts, (int)(sizeof parts / sizeof *parts), how, fused, why);
}

static bool ask(peer_process *p, const peer_request *request, peer_reply *reply, char *why)
{
    if (p->pid <= 0) return snprintf(why, TIMING_WHY, "its process has ended"), false;
    if (!peer_write(p->fd, request, sizeof *request)) return lost(p, false, why);
    return answer(p, reply, why);
}

bool peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    peer_process *p = self;
    peer_reply reply;
    usleep(SETTLE_US);
    if (!ask(p, &(peer_request){.verb = PEER_RUN, .calls = calls, .cold = cold}, &reply, why)) return false;
    usleep(SETTLE_US);
    *span = reply.span;
    return true;
}

bool peer_result(peer_process *p, void *out, size_t bytes, char why[TIMING_WHY])
{
    peer_reply reply;
    if (!ask(p, &(peer_request){.verb = PEER_RESULT}, &reply, why)) return false;
    if (reply.payload == bytes) return receive(p, out, bytes, why);
    snprintf(why, TIMING_WHY, "its output has %llu bytes, expected %zu", (unsigned long long)reply.payload, bytes);
    end(p); /* what it is still sending belongs to no one */
    return false;
}

bool peer_output_right(const work *w, const void *out, char why[TIMING_WHY])
{
    const fb_case *c = &w->c;
    bool product = c->op != FB_OP_DEQUANTIZE;
    int64_t n = product ? c->m * (c->op == FB_OP_GEMM ? c->rows : c->cols) : c->rows * c->cols, bad = 0, first = -1;
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double got = fb_load(out, product ? FB_F32 : c->dtype, i), want = fb_load(w->out, c->dtype, i);
        error += (got - want) * (got - want), norm += want * want;
        /* one unit in the last place of bf16: its fast-math may round the other way */
        if (!product && !(fabs(got - want) <= ldexp(fabs(want), -7) + 1e-37) && bad++ == 0) first = i;
    }
    if (product && !(sqrt(error) <= PEER_PRODUCT_PERCENT / 100.0 * sqrt(norm)))
        return snprintf(why, TIMING_WHY, "wrong result: relative distance %.3g from the checked product", sqrt(error / norm)), false;
    if (bad)
        return snprintf(why, TIMING_WHY, "wrong result: %lld of %lld values, first at row %lld column %lld", (long long)bad,
                        (long long)n, (long long)(first / c->cols), (long long)(first % c->cols)), false;
    return true;
}
