/* quantize_kernel.h: fp32, bf16 or fp16 to 4-bit codes.
 *
 *   bytes   in 2 or 4 a weight, twice (the search for NaN and Inf comes before the first write;
 *           FB_ASSUME_FINITE saves it); out 0.5 + 4/B: block 64 from bf16 4.5625, or 2.5625
 *   bound   memory, as long as the search for a code stays below about 10 instructions a weight:
 *           a binary search over the thresholds (4 comparisons), where counting them takes 15
 *
 * Versions (NF4 block 64 from bf16, one core of a Zen 3, AVX2):
 *   1  block to fp32 in cache, binary search with vpermilps and vpermps: 123 cycles for 64 weights in
 *      cache, 116 without the search for NaN; 85 at block 4096: the rest is the block's range and its
 *      one division. 8192 x 8192: 6.3 GB/s, 35 % of the core's read bandwidth: bound by instructions
 *   AVX-512 (one core of a Zen 5, shared, 4096 x 4096): 6.5 GB/s, 18 % of the core's read bandwidth: by instructions still.
 *
 *     make bench FILTER=quantize/cpu
 */
#include "stage.h"

/* ---- a block ----------------------------------------------------------------------- */

static void codes_nf4(const finder *f, const float *x, int64_t padded, float absmax, uint8_t *out)
{
    const float inverse = 1.0f / absmax;
    const bool divide = isinf(inverse);
    const vf a = vf_set1(absmax), inv = vf_set1(inverse);
    for (int64_t i = 0; i < padded; i += GROUP) {
        vi c[GV];
        for (int v = 0; v < GV; v++) c[v] = find_nf4(f, scaled(vf_load(x + i + v * VF), a, inv, divide));
        pack32(c, out + i / 2);
    }
}

static void codes_fp4(const finder *f, const float *x, int64_t padded, float absmax, uint8_t *out)
{
    const float inverse = 1.0f / absmax;
    const bool divide = isinf(inverse);
    const vf a = vf_set1(absmax), inv = vf_set1(inverse);
    for (int64_t i = 0; i < padded; i += GROUP) {
        vi c[GV];
        for (int v = 0; v < GV; v++) {
            const vf e = vf_load(x + i + v * VF);
            c[v] = find_fp4(f, e, scaled(e, a, inv, divide));
        }
        pack32(c, out + i / 2);
    }
}

/* q = clamp(clamp(round(x / scale), lo, hi) + zero, 0, 15) */
static void codes_int4(const float *x, int64_t padded, float scale, float lo, float hi, int zero, uint8_t *out)
{
    const vf s = vf_set1(scale);
    for (int64_t i = 0; i < padded; i += GROUP) {
        vi c[GV];
        for (int v = 0; v < GV; v++)
            c[v] = vi_clamp(vi_add1(round_clamped(vf_div(vf_load(x + i + v * VF), s), lo, hi), zero), 0, 15);
        pack32(c, out + i / 2);
    }
}

/* The zero point of an affine block: where 0 lies, round(-lo / scale) in 0 ... 15. */
static int affine_zero(float lo, float scale)
{
    float q = rintf(-lo / scale);
    return !(q > 0) ? 0 : q > 15 ? 15 : (int)q;
}

/* One block: its scale to *absmax (and *zero_point), its codes to out (whole groups). */
static void quantize_block(const finder *f, fb_format format, const float *x, int64_t padded, range r, float *absmax,
                           uint8_t *zero_point, uint8_t *out)
{
    const float largest = largest_of(r);
    switch (format) {
    case FB_NF4:
        *absmax = largest;
        codes_nf4(f, x, padded, largest, out);
        return;
    case FB_FP4:
        *absmax = largest;
        codes_fp4(f, x, padded, largest, out);
        return;
    case FB_INT4:
        *absmax = largest / 7.0f;
        codes_int4(x, padded, *absmax, -8, 7, FB_INT4_ZERO, out);
        return;
    default:
        *absmax = (0.5f * r.hi - 0.5f * r.lo) / 7.5f;
        *zero_point = (uint8_t)affine_zero(r.lo, *absmax);
        codes_int4(x, padded, *absmax, -15, 15, *zero_point, out);
    }
}

static unsigned padding_code(fb_format format, unsigned zero_point)
{
    return format == FB_NF4 ? 7u : format == FB_FP4 ? 0u : format == FB_INT4 ? FB_INT4_ZERO : zero_point;
}

/* The matrix's last, short block: codes by way of a buffer, the padding nibble set. */
static void quantize_last(const finder *f, fb_format format, const float *x, int64_t count, range r, float *absmax,
                          uint8_t *zero_point, uint8_t *out)
{
    uint8_t codes[FB_BLOCK_MAX / 2];
    quantize_block(f, format, x, cpu_round_up(count, GROUP), r, absmax, zero_point, codes);
    if (count % 2) codes[count / 2] = (uint8_t)((codes[count / 2] & 0xf0) | padding_code(format, *zero_point));
    memcpy(out, codes, (size_t)fb_code_bytes(count));
}

/* ---- the slot ------------------------------------------------------------------------- */

fb_status ISA(cpu_quantize)(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    const int64_t n = dst->rows * dst->cols, size = dst->block_size, blocks = fb_block_count(n, size);
    const fb_status status = check_finite(ctx, "src", src, t, n);
    if (status != FB_OK) return status;

    float *absmax = dst->double_quant ? ctx->workspace : dst->absmax;
    const finder f = finder_make(dst->format);
    const int64_t chunk = QUANTIZE_CHUNK / size, chunks = fb_ceil_div(blocks, chunk);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++) {
        float x[FB_BLOCK_MAX];
        for (int64_t b = c * chunk; b < cpu_min((c + 1) * chunk, blocks); b++) {
            const int64_t begin = b * size, count = cpu_min(size, n - begin);
            const range r = stage(src, t, begin, count, x);
            uint8_t unused = 0, *zero_point = dst->format == FB_INT4_AFFINE ? dst->zero_points + b : &unused;
            uint8_t *out = dst->codes + begin / 2;
            if (count == size) quantize_block(&f, dst->format, x, size, r, absmax + b, zero_point, out);
            else quantize_last(&f, dst->format, x, count, r, absmax + b, zero_point, out);
        }
    }
    if (!dst->double_quant) return FB_OK;
    return ISA(cpu_double_quantize)(ctx, absmax, blocks, dst->absmax_codes, dst->nested_absmax, dst->nested_offset);
}
