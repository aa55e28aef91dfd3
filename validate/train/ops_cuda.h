/* ops_cuda.h — the slots of ops.h that the CUDA sources fill, a declaration each. */
#ifndef FOURBIT_TRAIN_OPS_CUDA_H
#define FOURBIT_TRAIN_OPS_CUDA_H

#include "ops.h"

#ifdef FB_SIMT
#define LM_CUDA(NAME) lm_simt_##NAME
#else
#define LM_CUDA(NAME) lm_cuda_##NAME
#endif

extern "C" {
fb_status LM_CUDA(product)(fb_context *, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b,
                           float *c, bool accumulate);
fb_status LM_CUDA(embed)(fb_context *, const float *, const int32_t *, int64_t, int64_t, int64_t, float *);
fb_status LM_CUDA(embed_backward)(fb_context *, const float *, const int32_t *, int64_t, int64_t, int64_t, float *);
fb_status LM_CUDA(rmsnorm)(fb_context *, const float *, const float *, int64_t, int64_t, double, float *, float *);
fb_status LM_CUDA(rmsnorm_backward)(fb_context *, const float *, const float *, const float *, const float *, int64_t, int64_t, float *,
                                    float *);
fb_status LM_CUDA(rope)(fb_context *, const float *, int64_t, int64_t, int64_t, int64_t, int64_t, bool, float *);
fb_status LM_CUDA(attention)(fb_context *, const lm_attention *, const float *, const float *, const float *, float *, float *);
fb_status LM_CUDA(attention_backward)(fb_context *, const lm_attention *, const float *, const float *, const float *, const float *,
                                      const float *, const float *, float *, float *, float *);
fb_status LM_CUDA(swiglu)(fb_context *, const float *, const float *, int64_t, float *);
fb_status LM_CUDA(swiglu_backward)(fb_context *, const float *, const float *, const float *, int64_t, float *, float *);
fb_status LM_CUDA(add)(fb_context *, const float *, int64_t, float *);
fb_status LM_CUDA(add_row_sums)(fb_context *, const float *, double, int64_t, int64_t, int64_t, float *);
fb_status LM_CUDA(drop)(fb_context *, const float *, int64_t, uint32_t, uint64_t, float *);
fb_status LM_CUDA(add_kept)(fb_context *, const float *, int64_t, uint32_t, uint64_t, float *);
fb_status LM_CUDA(cross_entropy)(fb_context *, float *, const int32_t *, int64_t, int64_t, double, float *);
fb_status LM_CUDA(square_sums)(fb_context *, const float *, int64_t, double *);

const lm_ops *LM_CUDA(ops)(void);
}

#endif
