/* cublas.h: the dense products of a GPU, from the cuBLAS that is on the machine, by dlopen: no build needs it. */
#ifndef FOURBIT_BENCH_CUBLAS_H
#define FOURBIT_BENCH_CUBLAS_H

#include "bench/device.h"
#include "bench/gpu_job.h"

typedef struct cublas cublas;

/* NULL: why says why not. Its work goes to d->stream. */
cublas *cublas_open(device *d, char why[TIMING_WHY]);
void cublas_close(cublas *b);
int cublas_version(const cublas *b); /* 130000 for 13.0 */

/* c's product, gemm or gemm_dx: out = a by dense weights [rows, cols], all in c.dtype, sums in fp32. Enqueued. */
bool cublas_product(cublas *b, const gpu_case *c, const void *a, const void *weights, void *out, char why[TIMING_WHY]);

/* What a LoRA layer adds to that, as launches of their own: two products forward, four backward; scale 1. */
bool cublas_adapter(cublas *b, const gpu_case *c, void *const p[JOB_ROLES], char why[TIMING_WHY]);

/* A CUDA library by its soname, loaded so that others find it: from CUDA_HOME, the loader's own path, /usr/local/cuda*,
 * or the wheels of a Python (nvidia/…/lib). NULL: on none of them. */
void *cuda_library(const char *soname);

#endif
