/* reference.h: the slots of the reference backend, one file an operation.
 *
 * The reference is the specification: slow, obvious, single-threaded C. Another
 * backend is right when it gives these bits (products: when it is within the
 * bound of validate/check.c). */
#ifndef FOURBIT_REFERENCE_H
#define FOURBIT_REFERENCE_H

#include "backend.h"

fb_status ref_quantize(fb_context *, const void *src, fb_dtype, fb_matrix *dst);
fb_status ref_dequantize(fb_context *, const fb_matrix *src, void *dst, fb_dtype);
fb_status ref_double_quantize(fb_context *, const float *absmax, int64_t n, uint8_t *codes, float *nested_absmax,
                              float *nested_offset);
fb_status ref_decode_absmax(fb_context *, const uint8_t *codes, const float *nested_absmax,
                            const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax);
fb_status ref_quantize8(fb_context *, fb_map8, const void *src, fb_dtype, int64_t n, int32_t block_size,
                        uint8_t *codes, float *absmax);
fb_status ref_dequantize8(fb_context *, fb_map8, const uint8_t *codes, const float *absmax, int64_t n,
                          int32_t block_size, void *dst, fb_dtype);
fb_status ref_normalize(fb_context *, const void *src, fb_dtype, int64_t n, void *dst, fb_dtype, float *moments);
fb_status ref_denormalize(fb_context *, const void *src, fb_dtype, int64_t n, const float *moments, void *dst,
                          fb_dtype);
fb_status ref_adamw32(fb_context *, const fb_adamw *, int64_t n, void *params, fb_dtype, const void *grads, fb_dtype,
                      float *m, float *v);
fb_status ref_adamw8(fb_context *, const fb_adamw *, int64_t n, void *params, fb_dtype, const void *grads, fb_dtype,
                     uint8_t *m_codes, float *m_absmax, uint8_t *v_codes, float *v_absmax);
fb_status ref_gemm(fb_context *, const fb_matrix *w, int64_t m, const void *x, fb_dtype, const void *bias, void *y,
                   fb_dtype);
fb_status ref_gemm_dx(fb_context *, const fb_matrix *w, int64_t m, const void *dy, fb_dtype, void *dx, fb_dtype,
                      bool accumulate);
size_t ref_lora_workspace(const fb_context *, fb_op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype);
fb_status ref_lora_forward(fb_context *, const fb_matrix *w, const fb_lora *, int64_t m, const void *x, fb_dtype,
                           const void *bias, void *y, fb_dtype, void *u);
fb_status ref_lora_backward(fb_context *, const fb_matrix *w, const fb_lora *, int64_t m, const void *x, const void *u,
                            const void *dy, fb_dtype, void *dx, fb_dtype, bool accumulate_dx, float *da, float *db,
                            bool accumulate_grads);

/* ---- shared by the files, and by tests ------------------------------------------------- */

/* Index of the first NaN or Inf among n elements, or -1. */
int64_t ref_first_nonfinite(const void *x, fb_dtype t, int64_t n);

/* A block's magnitude over which its elements are divided: y = x / absmax by the
 * rule of backend.h. */
float ref_scaled(float x, float absmax);

/* The value of element i of w, before rounding to an output type; and the fp32
 * absmax of a block, decoded if it is double-quantized. */
float ref_block_absmax(const fb_matrix *w, int64_t block);
float ref_weight(const fb_matrix *w, int64_t i);

/* y[i][n] and dx[i][k] before they are rounded; and one rounding from double to t. */
double ref_gemm_sum(const fb_matrix *w, int64_t i, int64_t n, const void *x, fb_dtype, const void *bias);
double ref_gemm_dx_sum(const fb_matrix *w, int64_t i, int64_t k, const void *dy, fb_dtype, double before);
void ref_store_double(void *p, fb_dtype t, int64_t i, double v);

/* Tree sum of backend.h: value(user, i) for i = 0 ... n-1. */
double ref_tree_sum(double (*value)(const void *user, int64_t i), const void *user, int64_t n);

#endif
