/* quantize8.c: 8-bit blockwise quantization with the dynamic maps.
 *
 * Dettmers et al., 8-bit Optimizers via Block-wise Quantization (2021), section 2.
 * Used for nested absmax (signed map, block 256) and for Adam's states (signed m,
 * unsigned v).
 *
 * The nearest of 256 values; halfway between two neighbours (their fp32 midpoint,
 * (a + b) * 0.5f) the even code wins, because the peers' binary search always ends
 * on an even pivot and keeps it in a tie. A NaN (all-zero block) takes code 0. */
#include "reference.h"

static unsigned nearest_code(const uint32_t *map_bits, float y)
{
    unsigned code = 0;
    for (unsigned c = 0; c + 1 < FB_CODES8; c++) {
        float middle = (fb_bits_to_float(map_bits[c]) + fb_bits_to_float(map_bits[c + 1])) * 0.5f;
        if (c % 2 == 0 ? y > middle : y >= middle) code = c + 1;
        else break;
    }
    return code;
}

fb_status ref_quantize8(fb_context *ctx, fb_map8 map, const void *src, fb_dtype t, int64_t n, int32_t block_size,
                        uint8_t *codes, float *absmax)
{
    int64_t bad = ctx->flags & FB_ASSUME_FINITE ? -1 : ref_first_nonfinite(src, t, n);
    if (bad >= 0) return fb_fail_nonfinite(ctx, "src", bad, fb_load(src, t, bad));

    for (int64_t begin = 0; begin < n; begin += block_size) {
        int64_t end = begin + block_size < n ? begin + block_size : n;
        float largest = 0;
        for (int64_t i = begin; i < end; i++) largest = fmaxf(largest, fabsf(fb_load(src, t, i)));
        for (int64_t i = begin; i < end; i++)
            codes[i] = (uint8_t)nearest_code(fb_dynamic_bits[map], ref_scaled(fb_load(src, t, i), largest));
        absmax[begin / block_size] = largest;
    }
    return FB_OK;
}

fb_status ref_dequantize8(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                          int32_t block_size, void *dst, fb_dtype t)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++)
        fb_store(dst, t, i, fb_bits_to_float(fb_dynamic_bits[map][codes[i]]) * absmax[i / block_size]);
    return FB_OK;
}
