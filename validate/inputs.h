/* inputs.h: the data every kernel is tried with. Element i depends on (seed, i)
 * alone, so that any part of any tensor can be made on its own, in any order. */
#ifndef FOURBIT_INPUTS_H
#define FOURBIT_INPUTS_H

#include "fourbit.h"

typedef enum input_kind {
    INPUT_GAUSSIAN = 0, /* N(0, 1) */
    INPUT_STUDENT_T,    /* 3 degrees of freedom: a trained tensor's outliers */
    INPUT_UNIFORM,      /* (-1, 1) */
    INPUT_BELL,         /* sum of 12 uniforms, in integers: the same bits on every machine and libm */
    INPUT_ZERO,
    INPUT_EQUAL,        /* one value, another one each block */
    INPUT_OUTLIER,      /* small, and one element of each block 1000 times as large */
    INPUT_THRESHOLD,    /* a block's magnitude first, then each threshold of each format times it,
                           and its neighbours in the element type; magnitude 1 in every fifth block */
    INPUT_SIGNED_ZERO,  /* +0, -0 and a few others */
    INPUT_SUBNORMAL,    /* of the element type */
    INPUT_LARGEST,      /* +- largest finite of the element type, and small ones */
    INPUT_CANCEL,       /* pairs that add up to zero */
    INPUT_KIND_COUNT
} input_kind;

const char *input_name(input_kind kind);

/* Counter-based random numbers: 64 bits, uniform in (0, 1), N(0, 1). */
uint64_t input_random(uint64_t seed, uint64_t index);
double input_uniform(uint64_t seed, uint64_t index);
double input_gaussian(uint64_t seed, uint64_t index);

void input_fill(input_kind kind, uint64_t seed, int32_t block_size, void *dst, fb_dtype dtype, int64_t n);

/* 0, 1 ... 255, then random bytes: every byte value as codes. */
void input_bytes(uint64_t seed, uint8_t *dst, int64_t n);

/* x [m, k], row i all zero but for a 1 in column (first + i) % k. */
void input_one_hot(void *x, fb_dtype dtype, int64_t m, int64_t k, int64_t first);

#endif
