/* run.h: a whole benchmark run; main.c is its command line, test_bench.c runs it with wrong kernels. */
#ifndef FOURBIT_BENCH_RUN_H
#define FOURBIT_BENCH_RUN_H

#include "bench/work.h"

#include <stdio.h>

enum { RUN_OK = 0, RUN_FAILED = 1, RUN_USAGE = 2, RUN_INTERRUPTED = 130 };

typedef struct run_options {
    bool full;               /* PROFILE: the long list and tighter medians */
    unsigned backends;       /* bit i: fb_backend i; 0: every one that can run here */
    const char *filter;      /* extended regular expression on names; NULL: all */
    const char *folder;      /* for bench.json; made when missing */
    int threads;             /* 0: every core this process may use */
    const char *peers;       /* folder that scripts/peers.sh filled; NULL: only what is linked in */
    const char *peer_server; /* the program fourbit-peer */
    bool alone;              /* no peers and no ceilings: rounds of an A/B run are short */
    bool list;               /* print the names that would run, and run nothing */
    const bench_ops *ops;    /* &bench_library */
    const fb_case *cases;    /* ends with rows = -1; fb_cases */
    const struct ceilings *ceilings; /* NULL: measure them, in a case's rounds too; tests bring their own */
    /* A pass over the memory in a case's rounds, self a ceilings_sweep. NULL: ceilings_sweep_run, where ceilings are measured */
    bool (*sweep)(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]);
    FILE *out, *progress;    /* table and list; one line a case */
} run_options;

/* RUN_OK: every row was checked and timed. The caller may set *stop at any time
 * (a signal handler does): what is done by then is written and RUN_INTERRUPTED returned. */
int bench_run(const run_options *options, const volatile sig_atomic_t *stop);

#endif
