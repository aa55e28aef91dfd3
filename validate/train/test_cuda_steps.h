/* test_cuda_steps.h: the tests of test_cuda_steps.c, which test_cuda.c's main runs. */
#ifndef FOURBIT_TRAIN_TEST_CUDA_STEPS_H
#define FOURBIT_TRAIN_TEST_CUDA_STEPS_H

#include <stdbool.h>

/* A folder with a text, and afterwards neither. */
bool test_steps_begin(void);
bool test_steps_end(void);

void test_steps_losses(void);
void test_steps_orders(void);
void test_steps_resume(void);
void test_steps_paged(void);
void test_steps_results(void);
void test_steps_guard(void);

#endif
