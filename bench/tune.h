/* tune.h: which path of the CUDA product is fastest for which M and size of W, measured, as rows of dispatch_table.h.
 *
 * Times are taken for each class of sizes, on each of its shapes, at each M, of every candidate that serves there, in
 * rounds (tune.c). What follows from them is apart (tune_select.c): the same times make the same table, byte for byte.
 */
#ifndef FOURBIT_BENCH_TUNE_H
#define FOURBIT_BENCH_TUNE_H

#include "bench/gpu_run.h"
#include "kernels/cuda/dispatch_rule.h"

enum { TUNE_CLASSES = 3, TUNE_SHAPES = 2, TUNE_MS = 13, TUNE_CANDIDATES = 16, TUNE_ROWS = TUNE_CLASSES * TUNE_MS };

typedef struct tune_candidate {
    fb_gemm_path path;
    int blocks;              /* fb_gemm_rule.blocks */
    int64_t m_least, m_most; /* where it is tried at all */
} tune_candidate;
extern const tune_candidate tune_candidates[TUNE_CANDIDATES]; /* those not used have m_most 0 */
const char *tune_path_name(fb_gemm_path path);                /* "FB_GEMM_SMALL" */

typedef struct tune_plan {
    struct { int64_t weights_most, shapes[TUNE_SHAPES][2]; } classes[TUNE_CLASSES]; /* 0: any, and last; shapes [N, K] */
    int64_t m[TUNE_MS]; /* ascending; fewer end with 0 */
} tune_plan;
extern const tune_plan tune_usual;

typedef struct tune_times { /* microseconds; 0: does not serve there, or was not tried */
    double us[TUNE_CLASSES][TUNE_SHAPES][TUNE_MS][TUNE_CANDIDATES];
} tune_times;

/* ---- tune_select.c -------------------------------------------------------------------------------------------------- */

/* The candidate for a class and M: the least product over the shapes of time over the best there, of those that serve all of
 * them; the one before it (-1: none) where that is within TUNE_NOISE, since fewer rows are better rows. -1: none serves. */
#define TUNE_NOISE 0.02
int tune_best(const tune_times *t, int class, int m, int before);
/* Rows for dispatch_table.h; returns how many. */
int tune_select(const tune_times *t, const tune_plan *plan, int arch, fb_gemm_rule rows[TUNE_ROWS]);

/* The text of a table with `rows` as what was measured on `arch`, in place of what it had of that before; rows of other
 * generations stay, the later ones first, and so does what is predicted. To be freed; NULL: old is no table, why says why. */
char *tune_table(const char *old, int arch, const char *where, const fb_gemm_rule *rows, int count, char why[TIMING_WHY]);

/* ---- tune.c ---------------------------------------------------------------------------------------------------------- */

typedef struct tune_options {
    const char *device;                                       /* "cuda" */
    device *(*open)(const char *kind, char why[DEVICE_TEXT]); /* device_open */
    fb_gemm_by_rule *by_rule;                                 /* fb_cuda_gemm_by_rule; NULL: not in this build */
    fb_backend backend;                                       /* FB_BACKEND_CUDA; what "as it is now" is, and whose workspace */
    int arch;                                                 /* 0: the backend's, of this device */
    const tune_plan *plan;
    const stop_rule *rule;
    const char *table;                                        /* the file that is replaced */
    bool dry;                                                 /* it is not */
    FILE *out, *progress;
} tune_options;

/* RUN_OK; RUN_FAILED; RUN_INTERRUPTED; RUN_USAGE: the table cannot be read; GPU_RUN_NO_DEVICE. Only RUN_OK replaces the table. */
int tune_run(const tune_options *o, const volatile sig_atomic_t *stop);

#endif
