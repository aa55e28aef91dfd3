/* gpu_run.h: a whole benchmark run on a device; gpu_main.c is its command line, test_gpu.c runs it on fake devices. */
#ifndef FOURBIT_BENCH_GPU_RUN_H
#define FOURBIT_BENCH_GPU_RUN_H

#include "bench/cublas.h"
#include "bench/gpu_time.h"
#include "bench/results.h"
#include "bench/run.h"

enum { GPU_RUN_NO_DEVICE = 77 }; /* nothing was run: no device; the other results are RUN_… of run.h */

typedef struct gpu_options {
    bool full;
    const char *device;      /* "cuda"; "host" tries the harness out without a GPU */
    fb_backend backend;      /* whose calls; its pointers must be the device's */
    const char *filter;      /* extended regular expression on names; NULL: all */
    double largest;          /* cases of more weights are left out; 0: none is */
    const char *folder;
    const char *peers;       /* folder that scripts/peers.sh filled; NULL: no bitsandbytes */
    const char *peer_server; /* the program fourbit-gpu-peer */
    const char *nvml;        /* library; NULL: the driver's */
    bool list;
    const gpu_case *cases;   /* ends with rows = -1; gpu_cases */
    gpu_call_fn *call;       /* job_call */
    device *(*open)(const char *kind, char why[DEVICE_TEXT]); /* device_open */
    const stop_rule *rule;   /* NULL: the profile's */
    FILE *out, *progress;
} gpu_options;

/* RUN_OK: every row was checked and timed, or says why this backend has no kernel for it. */
int gpu_bench_run(const gpu_options *options, const volatile sig_atomic_t *stop);

/* Device facts, a line each; RUN_OK or GPU_RUN_NO_DEVICE. */
int gpu_facts(const gpu_options *options);
void gpu_provenance(json_t *context, device *d, const cublas *b, nvml *n, const char *nvml_missing);

/* Copy bandwidth (read + written) and the bf16 product of 8192^3 by cuBLAS (b NULL: none), on random data, the best of a few
 * samples; keeps the larger of what was known. False: no memory, or the device failed; why says. */
bool gpu_ceilings(ceilings *c, device *d, cublas *b, char why[TIMING_WHY]);
/* How far above the roof a point is: the faster of copying and reading alone (an H200's reads are up to 12 % faster). Timers and
 * ceilings have noise. cached: hot, and it all fits into the L2: no bandwidth is known for that. */
double gpu_excess(const ceilings *c, const work_cost *cost, double seconds, bool cached);
#define GPU_SLACK 1.1

#endif
