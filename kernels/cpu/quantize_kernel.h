/* quantize_kernel.h: fp32, bf16 or fp16 to 4-bit codes.
 *
 *   bytes   in 2 or 4 a weight, twice (the search for NaN and Inf comes before the first write;
 *           FB_ASSUME_FINITE saves it); out 0.5 + 4/B: block 64 from bf16 4.5625, or 2.5625
 *   bound   memory, as long as the search for a code stays below about 10 instructions a weight:
 *           a binary search over the thresholds (4 comparisons), where counting them takes 15; bf16 in
 *           AVX-512 needs less than one
 *
 * Versions (NF4 block 64 from bf16, one core of a Zen 3, AVX2):
 *   1  block to fp32 in cache, binary search with vpermilps and vpermps: 123 cycles for 64 weights in
 *      cache, 116 without the search for NaN; 85 at block 4096: the rest is the block's range and its
 *      one division. 8192 x 8192: 6.3 GB/s, 35 % of the core's read bandwidth: bound by instructions
 *   AVX-512 (two cores of a Zen 5, 8192 x 8192, both versions in turns, a machine that reads 57 to 105 GB/s as its neighbours
 *   let it): 14.9 ms; from fp32 16.9, from fp16 14.7. AVX2 17.1
 *   2  bf16 to NF4, FP4, INT4 by the bits of its words (quantize_words.h): AVX-512 4.8 ms, AVX2 7.3. In turns of 512 K weights,
 *      not 32 K (cpu_chunk): a tenth of it. Turns from the end on, which may find the last 16 MB read in a cache, are not settled: one
 *      thread beside other work was 6 to 10 % faster from the beginning on. Reading the same bytes twice and writing as many takes 4.1; 1.8 is
 *      the search for NaN. What is left: instructions and waiting for memory overlap only in part
 *      (in cache 0.16 cycles a weight of a core, which alone is 1.3 ms; the second reading alone 2.1; both 3.1)
 *   3  AVX-512 from fp32 and fp16: a look-up and one comparison for the binary search (vec_avx512.h), the largest magnitude
 *      in place of both ends: fp32 10.9 ms, fp16 8.6
 *
 *     make bench FILTER=quantize/cpu
 */
#include "stage.h"

/* Codes beyond the last-level caches are streamed past them (dequantize_kernel.h). */
enum { QUANTIZE_STREAM_BYTES = 16 << 20 };

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
    const float largest = r.hi; /* FB_INT4_AFFINE alone asks for both ends */
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

#ifndef FOURBIT_CPU_QUANTIZE_WORDS_H
enum { WORDS_PIECE = FB_BLOCK_MAX };
typedef int64_t words_function(const cpu_words *, const uint16_t *, int64_t, int64_t, int64_t, float *, uint8_t *, bool);
static words_function *words_choose(fb_format format, fb_dtype t)
{
    (void)format, (void)t;
    return NULL;
}
#endif

/* ---- the slot ------------------------------------------------------------------------- */

typedef struct job {
    const void *src;
    fb_dtype t;
    fb_matrix *dst;
    int64_t n;
    float *absmax;
    finder finder;
    words_function *words;
    const cpu_words *tables;
    bool stream;
} job;

/* Blocks that begin at elements begin ... end-1, through fp32. */
static void quantize_blocks(const job *j, int64_t begin, int64_t end)
{
    const fb_matrix *dst = j->dst;
    float x[FB_BLOCK_MAX];
    for (int64_t i = begin; i < end; i += dst->block_size) {
        const int64_t b = i / dst->block_size, count = cpu_min(dst->block_size, j->n - i);
        const range r = dst->format == FB_INT4_AFFINE ? stage(j->src, j->t, i, count, x, true)
                                                        : (range){0, stage_largest(j->src, j->t, i, count, x)};
        uint8_t unused = 0, *zero_point = dst->format == FB_INT4_AFFINE ? dst->zero_points + b : &unused;
        uint8_t *out = dst->codes + i / 2;
        if (count == dst->block_size) quantize_block(&j->finder, dst->format, x, count, r, j->absmax + b, zero_point, out);
        else quantize_last(&j->finder, dst->format, x, count, r, j->absmax + b, zero_point, out);
    }
}

static void quantize_chunk(const job *j, int64_t begin, int64_t end)
{
    const int64_t size = j->dst->block_size, piece = size > WORDS_PIECE ? size : WORDS_PIECE;
    while (j->words && end - begin >= piece) {
        const int64_t pieces = (end - begin) / piece;
        const int64_t done = j->words(j->tables, (const uint16_t *)j->src + begin, pieces, size, piece / size, j->absmax + begin / size,
                                      j->dst->codes + begin / 2, j->stream);
        begin += done * piece;
        if (done == pieces) break;
        quantize_blocks(j, begin, begin + piece);
        begin += piece;
    }
    quantize_blocks(j, begin, end);
}

fb_status ISA(cpu_quantize)(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    const int64_t n = dst->rows * dst->cols;
    const fb_status status = check_finite(ctx, "src", src, t, n);
    if (status != FB_OK) return status;

    job j = {.src = src, .t = t, .dst = dst, .n = n, .absmax = dst->double_quant ? ctx->workspace : dst->absmax};
    j.finder = finder_make(dst->format);
    j.words = words_choose(dst->format, t);
    if (j.words) j.tables = cpu_words_get(dst->format);
    j.stream = fb_code_bytes(n) >= QUANTIZE_STREAM_BYTES && (uintptr_t)dst->codes % 64 == 0;
    /* Backwards: what the search for NaN and Inf read last may still be in a cache. */
    const int64_t chunk = cpu_chunk(ctx, n), chunks = fb_ceil_div(n, chunk); /* every block size divides the chunk */
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = chunks - 1; c >= 0; c--) {
        quantize_chunk(&j, c * chunk, cpu_min((c + 1) * chunk, n));
        if (j.stream) vf_fence();
    }
    if (!dst->double_quant) return FB_OK;
    return ISA(cpu_double_quantize)(ctx, j.absmax, fb_block_count(n, dst->block_size), dst->absmax_codes, dst->nested_absmax,
                                    dst->nested_offset);
}
