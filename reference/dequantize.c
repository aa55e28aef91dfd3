/* dequantize.c: 4-bit codes back to numbers.
 *
 * value = codebook[code] * absmax, one fp32 rounding, then one rounding to the
 * output type. QLoRA (2023), equations 2 and 6 (the doubly quantized case). */
#include "reference.h"

static float nested_value(const fb_matrix *w, unsigned code)
{
    return w->nested_codebook ? w->nested_codebook[code] : fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][code]);
}

static float code_value(const fb_matrix *w, unsigned code)
{
    return w->codebook ? w->codebook[code] : fb_bits_to_float(fb_codebook_bits[w->format][code]);
}

float ref_block_absmax(const fb_matrix *w, int64_t block)
{
    if (!w->double_quant) return w->absmax[block];
    float scaled = nested_value(w, w->absmax_codes[block]) * w->nested_absmax[block / FB_NESTED_BLOCK];
    return scaled + w->nested_offset[0];
}

float ref_weight(const fb_matrix *w, int64_t i)
{
    int64_t block = i / w->block_size;
    float value = code_value(w, fb_nibble(w->codes, i));
    if (w->format == FB_INT4_AFFINE) value -= (float)w->zero_points[block];
    return value * ref_block_absmax(w, block);
}

fb_status ref_dequantize(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    (void)ctx;
    int64_t n = src->rows * src->cols;
    for (int64_t i = 0; i < n; i++) fb_store(dst, t, i, ref_weight(src, i));
    return FB_OK;
}
