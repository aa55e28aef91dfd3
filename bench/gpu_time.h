/* gpu_time.h: a job's buffers on a device, many sets of them, and a call on them as a contender that is timed.
 *
 * Cold: one call on each set, set after set, over and over. The sets are worth at least 3 L2s, so that what a call reads
 * left the cache long ago, and what it wrote is written back while others run: at a sample's end at most one L2 of it is
 * still owed, so a sample moves at least 16 L2s. Before each sample the L2 is flushed, so that nobody begins with
 * what the contender before left there.
 * Hot: one set, again and again.
 *
 * Short calls are recorded once (a CUDA graph) and replayed: launched one by one, the time between launches (about 2 us)
 * would be what is measured.
 */
#ifndef FOURBIT_BENCH_GPU_TIME_H
#define FOURBIT_BENCH_GPU_TIME_H

#include "bench/device.h"
#include "bench/gpu_job.h"
#include "bench/nvml.h"

typedef struct gpu_sets {
    device *d;
    const gpu_job *job;
    unsigned roles; /* those that the contender reads or writes */
    char *arena;
    size_t offset[JOB_ROLES], stride, bytes; /* bytes: of one set, padding aside */
    int count;
} gpu_sets;

/* Enough sets, as far as a quarter of the device's free memory goes; at least one. False: not even that; why says. */
bool gpu_sets_make(gpu_sets *s, device *d, const gpu_job *j, unsigned roles, char why[TIMING_WHY]);
void gpu_sets_free(gpu_sets *s);
/* Initial contents again, into set 0; what is only written is poisoned. */
bool gpu_sets_reset(gpu_sets *s, char why[TIMING_WHY]);
void gpu_sets_pointers(const gpu_sets *s, int set, void *p[JOB_ROLES]);
/* Host copies (malloc) of what is written, from set 0; roles that are not NULL. gpu_release frees them. */
bool gpu_fetch(gpu_sets *s, void *got[JOB_ROLES], char why[TIMING_WHY]);
void gpu_release(void *got[JOB_ROLES]);

typedef struct gpu_runner {
    gpu_sets sets;
    bool (*call)(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY]); /* enqueues one call */
    void *self;
    bool recorded;            /* replay recordings; the device must be able to */
    void *cold, *hot;         /* recordings, made when first needed */
    nvml *clocks;             /* NULL: not read */
    unsigned sm_min, sm_max;  /* MHz while samples ran; 0: not read */
} gpu_runner;

enum { GPU_SETS_MAX = 256, GPU_HOT_CALLS = 16, GPU_SAMPLE_L2S = 16 };

bool gpu_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]); /* contender.run */
/* One call on set 0 from its initial contents; got as of gpu_fetch. */
bool gpu_run_once(gpu_runner *r, void *got[JOB_ROLES], char why[TIMING_WHY]);
void gpu_runner_free(gpu_runner *r);

/* ---- fourbit's own call ---------------------------------------------------------------------------------------------- */

typedef fb_status gpu_call_fn(fb_context *, const gpu_case *, void *const[JOB_ROLES]);

typedef struct gpu_ours {
    gpu_runner r;
    fb_context ctx;
    void *workspace, *word; /* on the device; word: ctx.first_nonfinite */
    gpu_call_fn *call;      /* job_call; tests put wrong ones in its place */
    fb_status refused;      /* what the last call said */
} gpu_ours;

bool gpu_ours_make(gpu_ours *o, device *d, const gpu_job *j, fb_backend backend, gpu_call_fn *call, char why[TIMING_WHY]);
void gpu_ours_free(gpu_ours *o);
check_result gpu_ours_check(gpu_ours *o, gpu_job *j);

#endif
