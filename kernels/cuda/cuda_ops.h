/* cuda_ops.h — the operations that kernels/cuda implements, a declaration for each slot and, with an argument named, what one .cu file lends another.  cuda_ops.cu puts them into the table.
 * The names are fb_cuda_… under nvcc and fb_simt_… in the executor (launch.cuh). */
#ifndef FB_CUDA_OPS_H
#define FB_CUDA_OPS_H

#include "launch.cuh"

extern "C" {
fb_status FB_CUDA(dequantize)(fb_context *, const fb_matrix *, void *, fb_dtype);
size_t FB_CUDA(quantize_workspace)(const fb_matrix *);
fb_status FB_CUDA(quantize)(fb_context *, const void *, fb_dtype, fb_matrix *);
fb_status FB_CUDA(double_quantize)(fb_context *, const float *, int64_t, uint8_t *, float *, float *);
fb_status FB_CUDA(code_absmax)(fb_context *, const float *, int64_t, uint8_t *, float *, float *, double *sums,
                               unsigned long long *nonfinite);
fb_status FB_CUDA(decode_absmax)(fb_context *, const uint8_t *, const float *, const float *, const float *, int64_t, float *);
fb_status FB_CUDA(quantize8)(fb_context *, fb_map8, const void *, fb_dtype, int64_t, int32_t, uint8_t *, float *);
fb_status FB_CUDA(quantize8_less)(fb_context *, const float *, const float *offset, int64_t, uint8_t *, float *);
fb_status FB_CUDA(dequantize8)(fb_context *, fb_map8, const uint8_t *, const float *, int64_t, int32_t, void *, fb_dtype);
fb_status FB_CUDA(normalize)(fb_context *, const void *, fb_dtype, int64_t, void *, fb_dtype, float *);
fb_status FB_CUDA(denormalize)(fb_context *, const void *, fb_dtype, int64_t, const float *, void *, fb_dtype);
fb_status FB_CUDA(adamw32)(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, float *, float *);
fb_status FB_CUDA(adamw8)(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, uint8_t *, float *,
                          uint8_t *, float *);
}

#endif
