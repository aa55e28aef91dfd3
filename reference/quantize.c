/* quantize.c: 4-bit blockwise quantization.
 *
 * Dettmers et al., QLoRA (2023), section 3: cut the tensor into blocks, divide
 * each by its largest magnitude, and replace every element by the index of the
 * nearest codebook value. "Nearest" is decided by the thresholds of formats.h.
 *
 * Where the rules' edges lie:
 *   all-zero block   absmax 0; NF4 code 0 (decodes to -0.0), FP4 code 0, INT4 code 8
 *                    (the integer 0). NF4 and FP4 as bitsandbytes' CUDA kernel has it.
 *   NaN, Inf         an error with the index; nothing is written. bitsandbytes codes a
 *                    NaN as 0, which decodes to -absmax.
 *   tiny absmax      1/absmax overflows below about 2^-128: divide instead. bitsandbytes
 *                    multiplies by infinity there.
 *   -0.0             counts as 0: FP4's sign bit is set for x < 0 only.
 *   odd n            the last low nibble holds the code of 0.0.
 */
#include "reference.h"

int64_t ref_first_nonfinite(const void *x, fb_dtype t, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(fb_load(x, t, i))) return i;
    return -1;
}

float ref_scaled(float x, float absmax)
{
    float inv = 1.0f / absmax;
    return isinf(inv) ? x / absmax : x * inv;
}

/* A tie takes the lower code; a NaN (0/0 in an all-zero block) takes code 0. */
static unsigned nf4_code(float y)
{
    unsigned code = 0;
    for (int i = 0; i < FB_CODES - 1; i++) code += y > fb_bits_to_float(fb_nf4_threshold_bits[i]);
    return code;
}

static unsigned fp4_code(float x, float y)
{
    unsigned rank = 0;
    for (int i = 0; i < FB_CODES / 2 - 1; i++) rank += fabsf(y) > fb_bits_to_float(fb_fp4_threshold_bits[i]);
    return fb_fp4_rank_to_code[rank] | (x < 0 ? 8u : 0u);
}

/* q = clamp(round-half-even(x / scale), lo, hi); 0/0 counts as 0. */
static int rounded_ratio(float x, float scale, int lo, int hi)
{
    float q = rintf(x / scale);
    if (isnan(q)) q = 0;
    return q < lo ? lo : q > hi ? hi : (int)q;
}

static float block_absmax(const void *src, fb_dtype t, int64_t begin, int64_t end)
{
    float absmax = 0;
    for (int64_t i = begin; i < end; i++) absmax = fmaxf(absmax, fabsf(fb_load(src, t, i)));
    return absmax;
}

/* GPTQ's convention (Frantar et al., 2022): the range always includes 0, so that 0
 * has a code of its own. Halves are taken before the difference, which could
 * overflow. */
static float affine_scale(const void *src, fb_dtype t, int64_t begin, int64_t end, int *zero_point)
{
    float lo = 0, hi = 0;
    for (int64_t i = begin; i < end; i++) {
        float x = fb_load(src, t, i);
        if (x < lo) lo = x; /* comparisons, not fminf: which zero fminf(+0, -0) gives is unspecified, */
        if (x > hi) hi = x; /* and the scale of a block of zeros is +0 */
    }
    float scale = (0.5f * hi - 0.5f * lo) / 7.5f;
    *zero_point = rounded_ratio(-lo, scale, 0, 15);
    return scale;
}

/* What is stored in absmax[block] for the elements begin ... end-1. */
static float block_scale(fb_format format, const void *src, fb_dtype t, int64_t begin, int64_t end, int *zero_point)
{
    *zero_point = 0;
    switch (format) {
    case FB_INT4: return block_absmax(src, t, begin, end) / 7.0f;
    case FB_INT4_AFFINE: return affine_scale(src, t, begin, end, zero_point);
    default: return block_absmax(src, t, begin, end);
    }
}

static unsigned element_code(fb_format format, float x, float absmax, int zero_point)
{
    switch (format) {
    case FB_NF4: return nf4_code(ref_scaled(x, absmax));
    case FB_FP4: return fp4_code(x, ref_scaled(x, absmax));
    case FB_INT4: return (unsigned)(rounded_ratio(x, absmax, -8, 7) + FB_INT4_ZERO);
    default: {
        /* the sum is clamped, not the ratio: x / scale alone may leave 0 ... 15 */
        int q = rounded_ratio(x, absmax, -15, 15) + zero_point;
        return (unsigned)(q < 0 ? 0 : q > 15 ? 15 : q);
    }
    }
}

/* The code of 0.0 that fills the last nibble of an odd tensor. */
static unsigned padding_code(fb_format format, int zero_point)
{
    return format == FB_NF4 ? 7u : format == FB_FP4 ? 0u : format == FB_INT4 ? FB_INT4_ZERO : (unsigned)zero_point;
}

fb_status ref_quantize(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    int64_t n = dst->rows * dst->cols, blocks = fb_block_count(n, dst->block_size);
    int64_t bad = ctx->flags & FB_ASSUME_FINITE ? -1 : ref_first_nonfinite(src, t, n);
    if (bad >= 0) return fb_fail_nonfinite(ctx, "src", bad, fb_load(src, t, bad));

    float *absmax = dst->double_quant ? ctx->workspace : dst->absmax;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t begin = b * dst->block_size, end = begin + dst->block_size < n ? begin + dst->block_size : n;
        int zero_point;
        absmax[b] = block_scale(dst->format, src, t, begin, end, &zero_point);
        if (dst->format == FB_INT4_AFFINE) dst->zero_points[b] = (uint8_t)zero_point;
        for (int64_t i = begin; i < end; i += 2) { /* begin is even: block sizes are */
            unsigned even = element_code(dst->format, fb_load(src, t, i), absmax[b], zero_point);
            unsigned odd = i + 1 < end ? element_code(dst->format, fb_load(src, t, i + 1), absmax[b], zero_point)
                                       : padding_code(dst->format, zero_point);
            dst->codes[i / 2] = fb_pack(even, odd);
        }
    }
    if (!dst->double_quant) return FB_OK;
    return ref_double_quantize(ctx, absmax, blocks, dst->absmax_codes, dst->nested_absmax, dst->nested_offset);
}
