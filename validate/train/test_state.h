/* test_state.h: the suites of what a training run keeps, and what they share. */
#ifndef FOURBIT_TRAIN_TEST_STATE_H
#define FOURBIT_TRAIN_TEST_STATE_H

#include "validate/checkpoint/test_files.h"
#include "validate/train/optimizer.h"

void test_text(CU_pSuite suite);
void test_tokenizer(CU_pSuite suite);
void test_pager(CU_pSuite suite);
void test_pager_gpu(CU_pSuite suite);
void test_optimizer(CU_pSuite suite);
void test_train_checkpoint(CU_pSuite suite);
void test_spike(CU_pSuite suite);
void test_hf(CU_pSuite suite);
void test_peft(CU_pSuite suite);

/* x = a number in (-1, 1) that depends on (seed, i) alone. */
float test_value(uint64_t seed, int64_t i);
/* A tensor of its own memory, filled with test_value(seed, ...); grad where asked for. */
lm_tensor test_tensor(const char *name, int64_t rows, int64_t cols, uint64_t seed, bool trained);
void test_tensor_free(lm_tensor *t);

#endif
