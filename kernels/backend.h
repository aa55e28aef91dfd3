/* backend.h: the operations table that a backend fills. Internal.
 *
 * fourbit.c checks every argument, then calls the slot. A slot may rely on: valid
 * enums and block sizes, non-NULL aligned pointers where data is read or written,
 * n > 0, m > 0 and a
 * non-empty output (the contracted dimension of a product may be 0), no custom codebook when quantizing, and a workspace of at
 * least what its workspace slot asked for. lora_forward: rows or cols may be 0, U is an output too. lora_backward: one of
 * rows and cols may be 0, and m where gradients are set, not accumulated: what is empty is skipped, the rest are sums of nothing. Only a backend can see the values, so
 * the search for NaN and Inf is its own (fb_fail_nonfinite).
 *
 * Two rules that every backend follows to the bit, stated here because they say
 * in which order to add:
 *
 * Tree sum of n doubles (mean of absmax, moments): cut into groups of 256, the
 * last padded with +0.0; a group is added up by halving (v[i] += v[i + s] for
 * s = 128, 64 ... 1); the group sums are the next level's input, until one is left.
 *
 * Scaling by a block's largest magnitude: inv = 1.0f / absmax; y = x * inv, or
 * y = x / absmax where inv is infinite (absmax 0 or below about 2^-128).
 */
#ifndef FOURBIT_BACKEND_H
#define FOURBIT_BACKEND_H

#include "fourbit.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fb_ops {
    const char *variant; /* "avx2" ... */
    size_t (*workspace)(const fb_context *, fb_op, const fb_matrix *, int64_t m, fb_dtype);
    fb_status (*quantize)(fb_context *, const void *, fb_dtype, fb_matrix *);
    fb_status (*dequantize)(fb_context *, const fb_matrix *, void *, fb_dtype);
    fb_status (*double_quantize)(fb_context *, const float *, int64_t, uint8_t *, float *, float *);
    fb_status (*decode_absmax)(fb_context *, const uint8_t *, const float *, const float *, const float *, int64_t,
                               float *);
    fb_status (*quantize8)(fb_context *, fb_map8, const void *, fb_dtype, int64_t, int32_t, uint8_t *, float *);
    fb_status (*dequantize8)(fb_context *, fb_map8, const uint8_t *, const float *, int64_t, int32_t, void *,
                             fb_dtype);
    fb_status (*normalize)(fb_context *, const void *, fb_dtype, int64_t, void *, fb_dtype, float *);
    fb_status (*denormalize)(fb_context *, const void *, fb_dtype, int64_t, const float *, void *, fb_dtype);
    fb_status (*adamw32)(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, float *,
                         float *);
    fb_status (*adamw8)(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, uint8_t *,
                        float *, uint8_t *, float *);
    fb_weights (*gemm_weights)(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);
    fb_weights (*gemm_dx_weights)(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);
    fb_status (*gemm)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, const void *, void *,
                      fb_dtype);
    fb_status (*gemm_dx)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, void *, fb_dtype, bool);
    size_t (*lora_workspace)(const fb_context *, fb_op, const fb_matrix *, int32_t rank, int64_t m, fb_dtype);
    fb_weights (*lora_weights)(const fb_context *, fb_op, const fb_matrix *, int32_t rank, int64_t m, fb_dtype);
    fb_status (*lora_forward)(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *, fb_dtype,
                              const void *, void *, fb_dtype, void *);
    fb_status (*lora_backward)(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *, const void *,
                               const void *, fb_dtype, void *, fb_dtype, bool, float *, float *, bool);
} fb_ops;

/* Each returns its table, or NULL with the reason in why[FB_MESSAGE_SIZE].
 * fb_cpu_ops starts from the reference's table and overrides slots. */
const fb_ops *fb_reference_ops(void);
const fb_ops *fb_cpu_ops(char *why);
const fb_ops *fb_cuda_ops(char *why); /* kernels/cuda, compiled by nvcc */
const fb_ops *fb_simt_ops(char *why); /* the same sources in the SIMT executor */
const fb_ops *fb_plugin_ops(char *why); /* FOURBIT_PLUGIN's slots over the reference's (fourbit_plugin.h) */

/* An AdamW step's constants, rounded to fp32 once, on the host, for every backend. */
typedef struct fb_adamw_factors {
    float grad_scale, decay;               /* decay = 1 - lr*weight_decay */
    float beta1, rest1, beta2, rest2;      /* rest = 1 - beta */
    float step_size, sqrt_correction2, eps; /* lr / (1-beta1^t), sqrt(1-beta2^t) */
} fb_adamw_factors;
fb_adamw_factors fb_adamw_get_factors(const fb_adamw *hyper);

/* The f of fourbit.h: U = f * Z A^T, dU = f * dY B. */
static inline float fb_lora_factor(const fb_lora *lora)
{
    return (float)((double)lora->scale / (1.0 - (double)lora->dropout));
}

/* Write ctx->message and return the status. */
fb_status fb_fail(fb_context *ctx, fb_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* FB_NONFINITE: element `index` of `what` has this value. */
fb_status fb_fail_nonfinite(fb_context *ctx, const char *what, int64_t index, float value);

/* The codebook to decode with. */
static inline const float *fb_matrix_codebook(const fb_matrix *w, float storage[FB_CODES])
{
    if (w->codebook) return w->codebook;
    memcpy(storage, fb_codebook_bits[w->format], sizeof fb_codebook_bits[0]);
    return storage;
}
static inline const float *fb_nested_codebook(const float *given, float storage[FB_CODES8])
{
    if (given) return given;
    memcpy(storage, fb_dynamic_bits[FB_MAP_SIGNED], sizeof fb_dynamic_bits[0]);
    return storage;
}

#ifdef __cplusplus
}
#endif
#endif
