/* ops_cpu.h: the CPU's operations (ops.h), a declaration for each instruction set. */
#ifndef FOURBIT_TRAIN_OPS_CPU_H
#define FOURBIT_TRAIN_OPS_CPU_H

#include "dropout.h"
#include "ops.h"

#define LM_CPU_DECLARE(isa)                                                                                                                  \
    fb_status lm_cpu_embed_##isa(fb_context *, const float *, const int32_t *, int64_t, int64_t, int64_t, float *);                           \
    fb_status lm_cpu_embed_backward_##isa(fb_context *, const float *, const int32_t *, int64_t, int64_t, int64_t, float *);                  \
    fb_status lm_cpu_rmsnorm_##isa(fb_context *, const float *, const float *, int64_t, int64_t, double, float *, float *);                   \
    fb_status lm_cpu_rmsnorm_backward_##isa(fb_context *, const float *, const float *, const float *, const float *, int64_t, int64_t,       \
                                            float *, float *);                                                                                \
    fb_status lm_cpu_rope_##isa(fb_context *, const float *, int64_t, int64_t, int64_t, int64_t, int64_t, bool, float *);                     \
    fb_status lm_cpu_attention_##isa(fb_context *, const lm_attention *, const float *, const float *, const float *, float *, float *);      \
    fb_status lm_cpu_attention_backward_##isa(fb_context *, const lm_attention *, const float *, const float *, const float *, const float *, \
                                              const float *, const float *, float *, float *, float *);                                       \
    fb_status lm_cpu_swiglu_##isa(fb_context *, const float *, const float *, int64_t, float *);                                              \
    fb_status lm_cpu_swiglu_backward_##isa(fb_context *, const float *, const float *, const float *, int64_t, float *, float *);             \
    fb_status lm_cpu_add_##isa(fb_context *, const float *, int64_t, float *);                                                                \
    fb_status lm_cpu_add_row_sums_##isa(fb_context *, const float *, double, int64_t, int64_t, int64_t, float *);                             \
    fb_status lm_cpu_drop_##isa(fb_context *, const float *, int64_t, uint32_t, uint64_t, float *);                                           \
    fb_status lm_cpu_add_kept_##isa(fb_context *, const float *, int64_t, uint32_t, uint64_t, float *);                                       \
    fb_status lm_cpu_cross_entropy_##isa(fb_context *, float *, const int32_t *, int64_t, int64_t, double, float *);                          \
    fb_status lm_cpu_square_sums_##isa(fb_context *, const float *, int64_t, double *);

LM_CPU_DECLARE(portable)
LM_CPU_DECLARE(avx2)

#endif
