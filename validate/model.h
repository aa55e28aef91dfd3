/* model.h: the rules of formats.h, stated a second time for the tests: brute force, in
 * double where the contract rounds once, and sharing no code with reference/. */
#ifndef FOURBIT_MODEL_H
#define FOURBIT_MODEL_H

#include "fourbit.h"

/* Sum of n doubles in the tree order of backend.h, by recursion on levels. */
double model_tree_sum(const double *v, int64_t n);

/* x scaled by a block's magnitude, and the codes that follow. */
float model_scaled(float x, float absmax);
unsigned model_code(fb_format format, float x, float absmax, int zero_point);
unsigned model_code8(fb_map8 map, float y);

/* x [rows*cols] -> the buffers of dst. */
void model_quantize(const void *x, fb_dtype t, fb_matrix *dst);
void model_dequantize(const fb_matrix *w, void *dst, fb_dtype t);
void model_double_quantize(const float *absmax, int64_t n, uint8_t *codes, float *nested_absmax, float *nested_offset);
void model_decode_absmax(const uint8_t *codes, const float *nested_absmax, float offset, const float *map, int64_t n,
                         float *absmax);
void model_quantize8(fb_map8 map, const void *x, fb_dtype t, int64_t n, int32_t block_size, uint8_t *codes,
                     float *absmax);

/* The value of type t nearest to v, ties to even, as fp32: by arithmetic on v, not on bits. */
double model_round(double v, fb_dtype t);

#endif
