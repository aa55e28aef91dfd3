/* test_cuda_device.h: where the tests of the training loop on CUDA run.
 *
 *   test_cuda_device.cpp, test_cuda_planted.cpp   in the executor: memory with exact ends and unwritten bytes known, which only
 *                                                 kernels and the device's own copies may touch: others are stopped by SIGSEGV
 *   test_cuda_gpu.c                               on a GPU
 */
#ifndef FOURBIT_TRAIN_TEST_CUDA_DEVICE_H
#define FOURBIT_TRAIN_TEST_CUDA_DEVICE_H

#include "bench/device.h"
#include "ops.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

bool test_cuda_executes(void); /* in the executor: orders, planted bugs and launches mean something */
/* kind "cuda". In the executor the program is linked with -Wl,--wrap of its launch (build.mk). NULL: there is no GPU. */
device *test_cuda_device(void);
long test_cuda_launches(void); /* so far, of the whole program */
/* test_cuda_mirror.c: ops, which work on d's memory, as operations on host memory. One at a time. */
const lm_ops *test_cuda_mirror(device *d, const lm_ops *ops);

/* The executor's order of threads, 0 forward, 1 reverse, 2 round robin, others: the seed of a shuffle. */
void test_cuda_order(unsigned order);
/* Nothing on stderr: for launches that are to fail. */
void test_cuda_quiet(bool quiet);

/* test_cuda_planted.cpp: the operations once more, with barriers that can be left out: number 0 ... PLANTED_MOST - 1, -1: none. */
enum { PLANTED_MOST = 64 };
typedef struct planted_barrier {
    const char *file;
    int line; /* 0: never met */
} planted_barrier;
const lm_ops *planted_ops(void);
const planted_barrier *planted_barriers(void); /* [PLANTED_MOST] */
void planted_leave_out(int number);

#ifdef __cplusplus
}
#endif
#endif
