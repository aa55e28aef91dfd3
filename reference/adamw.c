/* adamw.c: AdamW with fp32 and with 8-bit blockwise state.
 *
 * Loshchilov & Hutter (2019), algorithm 2: the decay is not part of the gradient and
 * is applied before the step. bitsandbytes applies it after, rounding twice; PyTorch
 * and the paper are followed here. Every operation is rounded to fp32 on its own, in
 * the order written. */
#include "reference.h"

/* g, whose square must be finite too: it enters v. */
static bool usable(const fb_adamw_factors *f, const void *grads, fb_dtype t, int64_t i)
{
    float g = fb_load(grads, t, i) * f->grad_scale;
    return isfinite(g * g);
}

static fb_status check_grads(fb_context *ctx, const fb_adamw_factors *f, const void *grads, fb_dtype t, int64_t n)
{
    if (ctx->flags & FB_ASSUME_FINITE) return FB_OK;
    for (int64_t i = 0; i < n; i++)
        if (!usable(f, grads, t, i))
            return fb_fail(ctx, FB_NONFINITE, "grads[%lld] is %g, scaled by %g: not finite, or its square is not",
                           (long long)i, (double)fb_load(grads, t, i), (double)f->grad_scale);
    return FB_OK;
}

/* One parameter; m and v are the fp32 states before and after. */
static float step(const fb_adamw_factors *f, float p, float grad, float *m, float *v)
{
    float g = grad * f->grad_scale;
    float decayed = p * f->decay;
    float m_old = f->beta1 * *m, m_new = f->rest1 * g;
    float squared = g * g;
    float v_old = f->beta2 * *v, v_new = f->rest2 * squared;
    *m = m_old + m_new;
    *v = v_old + v_new;
    float root = sqrtf(*v) / f->sqrt_correction2;
    float ratio = *m / (root + f->eps);
    float change = f->step_size * ratio;
    return decayed - change;
}

fb_status ref_adamw32(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                      const void *grads, fb_dtype grads_dtype, float *m, float *v)
{
    fb_adamw_factors f = fb_adamw_get_factors(hyper);
    fb_status status = check_grads(ctx, &f, grads, grads_dtype, n);
    if (status != FB_OK) return status;
    for (int64_t i = 0; i < n; i++)
        fb_store(params, params_dtype, i,
                 step(&f, fb_load(params, params_dtype, i), fb_load(grads, grads_dtype, i), m + i, v + i));
    return FB_OK;
}

fb_status ref_adamw8(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                     const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes,
                     float *v_absmax)
{
    fb_adamw_factors f = fb_adamw_get_factors(hyper);
    fb_status status = check_grads(ctx, &f, grads, grads_dtype, n);
    if (status != FB_OK) return status;
    fb_context unchecked = *ctx;
    unchecked.flags |= FB_ASSUME_FINITE;
    for (int64_t begin = 0, block = 0; begin < n; begin += FB_ADAMW_BLOCK, block++) {
        float m[FB_ADAMW_BLOCK], v[FB_ADAMW_BLOCK];
        int64_t count = n - begin < FB_ADAMW_BLOCK ? n - begin : FB_ADAMW_BLOCK;
        ref_dequantize8(ctx, FB_MAP_SIGNED, m_codes + begin, m_absmax + block, count, FB_ADAMW_BLOCK, m, FB_F32);
        ref_dequantize8(ctx, FB_MAP_UNSIGNED, v_codes + begin, v_absmax + block, count, FB_ADAMW_BLOCK, v, FB_F32);
        for (int64_t i = 0; i < count; i++)
            fb_store(params, params_dtype, begin + i,
                     step(&f, fb_load(params, params_dtype, begin + i), fb_load(grads, grads_dtype, begin + i), m + i,
                          v + i));
        ref_quantize8(&unchecked, FB_MAP_SIGNED, m, FB_F32, count, FB_ADAMW_BLOCK, m_codes + begin, m_absmax + block);
        ref_quantize8(&unchecked, FB_MAP_UNSIGNED, v, FB_F32, count, FB_ADAMW_BLOCK, v_codes + begin,
                      v_absmax + block);
    }
    return FB_OK;
}
