/* test_cuda_device.h: a GPU's memory for the training loop's tests: the executor's, with exact ends and unwritten bytes known,
 * which only kernels and this device's own copies may touch: anyone else is stopped by SIGSEGV. */
#ifndef FOURBIT_TRAIN_TEST_CUDA_DEVICE_H
#define FOURBIT_TRAIN_TEST_CUDA_DEVICE_H

#include "bench/device.h"
#include "ops.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* kind "cuda". The program is linked with -Wl,--wrap of the executor's launch (build.mk). */
device *test_cuda_device(void);
long test_cuda_launches(void); /* so far, of the whole program */

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
