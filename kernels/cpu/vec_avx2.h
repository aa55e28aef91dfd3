/* vec_avx2.h: the vector vocabulary in AVX2 + FMA + F16C: 8 floats. See vec_avx512.h.
 *
 * Decoding 16 fp32 codes: no AVX2 instruction looks up 16 entries of 32 bits.
 * Measured on Zen 3 (two shuffle ports): vpermps takes both ports for a cycle, and 8
 * weights need two of them and a blend: 2.5 cycles. vpshufb looks 16 entries of
 * one byte up 32 times in half a cycle, so the four bytes of the codes are looked up
 * in four tables ("planes") and interleaved by 8 unpacks: 12 shuffles for 32 weights,
 * 1.5 cycles for 8.
 */
#ifndef FOURBIT_VEC_H
#define FOURBIT_VEC_H

#include "formats.h"

#include <immintrin.h>
#include <stdbool.h>

#define ISA(name) name##_avx2
enum {
    VF = 8,          /* floats in a vector */
    GROUP = 32,      /* weights decoded at once: the smallest block, 16 bytes */
    GV = GROUP / VF, /* vectors in a group */
    WIDE = 64,       /* weights decoded at once where their order does not matter */
    WH = WIDE / 2 / VF /* vectors in half of it */
};

/* ---- fp32 vectors --------------------------------------------------------------- */

typedef __m256 vf;
typedef __m256i vi;

static inline vf vf_zero(void) { return _mm256_setzero_ps(); }
static inline vf vf_set1(float a) { return _mm256_set1_ps(a); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(vf_set1(-0.0f), a); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_gather(const float *t, const uint8_t *i)
{
    return _mm256_setr_ps(t[i[0]], t[i[1]], t[i[2]], t[i[3]], t[i[4]], t[i[5]], t[i[6]], t[i[7]]);
}
static inline void vf_fence(void) { _mm_sfence(); }

/* Halving: a fixed order. */
static inline float vf_sum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_largest(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_smallest(vf a)
{
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}

/* Row i of 8 x 8 becomes column i. */
static inline void vf_transpose(vf v[VF])
{
    vf t[VF];
    for (int i = 0; i < VF; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < VF; i += 4) {
        v[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        v[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        v[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        v[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
    }
    memcpy(v, t, sizeof t);
}

/* ---- element types ---------------------------------------------------------------- */

static inline vf vf_load_as(const void *p, fb_dtype t, int64_t i)
{
    if (t == FB_F32) return vf_load((const float *)p + i);
    __m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)p + i));
    if (t == FB_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* fb_float_to_bf16 of 8, in 8 dwords */
static inline __m256i bf16_dwords(vf a)
{
    __m256i u = _mm256_castps_si256(a), high = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(r, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
}

static inline __m128i half_words(vf a, fb_dtype t)
{
    if (t == FB_F16) return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT);
    __m256i d = bf16_dwords(a);
    return _mm_packus_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

static inline void vf_store_as(void *p, fb_dtype t, int64_t i, vf a)
{
    if (t == FB_F32) vf_store((float *)p + i, a);
    else _mm_storeu_si128((__m128i *)((uint16_t *)p + i), half_words(a, t));
}

/* No NaN or Inf among `count` elements; count a multiple of 4 * GROUP. */
static inline bool vec_all_finite(const void *p, fb_dtype t, int64_t count)
{
    const char *at = p;
    int64_t bytes = count * (int64_t)fb_dtype_size(t);
    __m256i seen = _mm256_setzero_si256(), bad;
    if (t == FB_F32) {
        const __m256i mask = _mm256_set1_epi32(0x7fffffff);
        for (int64_t i = 0; i < bytes; i += 32)
            seen = _mm256_max_epi32(seen, _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(at + i))));
        bad = _mm256_cmpgt_epi32(seen, _mm256_set1_epi32(0x7f7fffff));
    } else {
        const __m256i mask = _mm256_set1_epi16(0x7fff);
        for (int64_t i = 0; i < bytes; i += 32)
            seen = _mm256_max_epi16(seen, _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(at + i))));
        bad = _mm256_cmpgt_epi16(seen, _mm256_set1_epi16(t == FB_BF16 ? 0x7f7f : 0x7bff));
    }
    return _mm256_testz_si256(bad, bad);
}

/* ---- 4-bit codes to values ------------------------------------------------------------ */

/* 16 fp32 values as four tables of one byte each. */
typedef struct lut {
    uint8_t plane[4][FB_CODES];
} lut;
typedef struct lutv {
    __m256i plane[4];
} lutv;

static inline void lut_make(lut *l, const float values[FB_CODES])
{
    const __m256i a = _mm256_castps_si256(vf_load(values)), b = _mm256_castps_si256(vf_load(values + 8));
    const __m256i byte = _mm256_set1_epi32(0xff);
    for (int p = 0; p < 4; p++) {
        __m256i x = _mm256_and_si256(_mm256_srli_epi32(a, 8 * p), byte);
        __m256i y = _mm256_and_si256(_mm256_srli_epi32(b, 8 * p), byte);
        __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, y), 0xd8);
        __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)l->plane[p], bytes);
    }
}
static inline lutv lut_load(const lut *l)
{
    lutv v;
    for (int b = 0; b < 4; b++)
        v.plane[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)l->plane[b]));
    return v;
}

/* 16 bytes of codes to 32 indices of a byte, in the order given by `order`. */
static inline __m256i nibbles(const uint8_t *codes, __m256i order)
{
    __m256i b = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    b = _mm256_shuffle_epi8(b, order); /* every byte twice: a word is (high nibble, low nibble) */
    __m256i even = _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi16(0x000f));
    return _mm256_or_si256(even, _mm256_and_si256(b, _mm256_set1_epi16(0x0f00)));
}

/* The four planes' bytes of 32 codes, to 32 floats. */
static inline void look_up(const lutv *l, __m256i index, vf out[GV])
{
    __m256i p0 = _mm256_shuffle_epi8(l->plane[0], index), p1 = _mm256_shuffle_epi8(l->plane[1], index);
    __m256i p2 = _mm256_shuffle_epi8(l->plane[2], index), p3 = _mm256_shuffle_epi8(l->plane[3], index);
    __m256i low0 = _mm256_unpacklo_epi8(p0, p1), low1 = _mm256_unpackhi_epi8(p0, p1);
    __m256i high0 = _mm256_unpacklo_epi8(p2, p3), high1 = _mm256_unpackhi_epi8(p2, p3);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low0, high0));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low0, high0));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low1, high1));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low1, high1));
}

/* 32 weights, unscaled, in order. The unpacks work within 128-bit lanes; `order` hands
 * each lane the codes that make their results come out in sequence. */
static inline void decode32(const lutv *l, const uint8_t *codes, vf out[GV])
{
    const __m256i order = _mm256_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13, //
                                           2, 2, 3, 3, 6, 6, 7, 7, 10, 10, 11, 11, 14, 14, 15, 15);
    look_up(l, nibbles(codes, order), out);
}

/* Half of 64 weights, unscaled: the even elements, or the odd ones, each in the order that
 * the unpacks leave (wide_element). Two shuffles and 5 other instructions fewer for 64 than in
 * order; a half at a time because 64 floats, tables and sums do not fit 16 registers. */
static inline void decode_half(const lutv *l, const uint8_t *codes, int odd, vf out[WH])
{
    __m256i b = _mm256_loadu_si256((const __m256i *)codes);
    if (!odd) b = _mm256_srli_epi16(b, 4);
    look_up(l, _mm256_and_si256(b, _mm256_set1_epi8(15)), out);
}
/* Which element of 64 is float i of both halves. */
static inline int wide_element(int i)
{
    int odd = i / (WIDE / 2), vector = i % (WIDE / 2) / VF, lane = i % VF / 4;
    return 2 * (16 * lane + 4 * vector + i % 4) + odd;
}

/* 16 values of two bytes, already scaled and rounded: a block's table. */
typedef struct lut16 {
    __m256i low, high;
} lut16;

static inline lut16 lut16_make(const float values[FB_CODES], float absmax, fb_dtype t)
{
    vf scale = vf_set1(absmax);
    __m128i a = half_words(vf_mul(vf_load(values), scale), t);
    __m128i b = half_words(vf_mul(vf_load(values + 8), scale), t);
    const __m128i byte = _mm_set1_epi16(0x00ff);
    __m128i low = _mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte));
    __m128i high = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
    return (lut16){_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high)};
}

/* 32 values to memory; `stream` past the caches (out is then aligned to a vector). */
static inline void decode32_16(const lut16 *l, const uint8_t *codes, uint16_t *out, bool stream)
{
    const __m256i order = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 8, 8, 9, 9, 10, 10, 11, 11, //
                                           4, 4, 5, 5, 6, 6, 7, 7, 12, 12, 13, 13, 14, 14, 15, 15);
    __m256i index = nibbles(codes, order);
    __m256i low = _mm256_shuffle_epi8(l->low, index), high = _mm256_shuffle_epi8(l->high, index);
    __m256i a = _mm256_unpacklo_epi8(low, high), b = _mm256_unpackhi_epi8(low, high);
    if (stream) {
        _mm256_stream_si256((__m256i *)out, a);
        _mm256_stream_si256((__m256i *)out + 1, b);
    } else {
        _mm256_storeu_si256((__m256i *)out, a);
        _mm256_storeu_si256((__m256i *)out + 1, b);
    }
}

/* ---- values to 4-bit codes --------------------------------------------------------------- */

/* How many of 15 (NF4) or 7 (FP4) ascending thresholds lie strictly below y, by halving:
 * a comparison gives 0 or -1, so the running count is negative, and the tables are laid
 * out by its low bits. A NaN is above nothing: count 0. */
typedef struct finder {
    vf top, second[2], third, fourth;
    vi fp4_code;
} finder;

static inline vf vf_bits(const uint32_t *bits, int a, int b, int c, int d, int e, int f, int g, int h)
{
    return _mm256_castsi256_ps(_mm256_setr_epi32((int)bits[a], (int)bits[b], (int)bits[c], (int)bits[d], (int)bits[e],
                                                 (int)bits[f], (int)bits[g], (int)bits[h]));
}

static inline finder finder_make(fb_format format)
{
    finder f;
    memset(&f, 0, sizeof f);
    if (format == FB_NF4) {
        const uint32_t *t = fb_nf4_threshold_bits;
        f.top = vf_bits(t, 7, 7, 7, 7, 7, 7, 7, 7);
        f.second[0] = vf_bits(t, 3, 3, 3, 3, 3, 3, 3, 3);
        f.second[1] = vf_bits(t, 11, 11, 11, 11, 11, 11, 11, 11);
        f.third = vf_bits(t, 1, 13, 9, 5, 1, 13, 9, 5);         /* counts 0, -3, -2, -1 */
        f.fourth = vf_bits(t, 0, 14, 12, 10, 8, 6, 4, 2);       /* counts 0, -7 ... -1 */
    } else if (format == FB_FP4) {
        const uint32_t *t = fb_fp4_threshold_bits;
        const uint8_t *c = fb_fp4_rank_to_code;
        f.top = vf_bits(t, 3, 3, 3, 3, 3, 3, 3, 3);
        f.second[0] = vf_bits(t, 1, 1, 1, 1, 1, 1, 1, 1);
        f.second[1] = vf_bits(t, 5, 5, 5, 5, 5, 5, 5, 5);
        f.third = vf_bits(t, 0, 6, 4, 2, 0, 6, 4, 2);
        f.fp4_code = _mm256_setr_epi32(c[0], c[7], c[6], c[5], c[4], c[3], c[2], c[1]);
    }
    return f;
}

static inline vi above(vf y, vf t) { return _mm256_castps_si256(_mm256_cmp_ps(y, t, _CMP_GT_OQ)); }

/* -count of the first three levels */
static inline vi find3(const finder *f, vf y)
{
    vi top = above(y, f->top);
    vi n = above(y, _mm256_blendv_ps(f->second[0], f->second[1], _mm256_castsi256_ps(top)));
    n = _mm256_add_epi32(n, _mm256_add_epi32(top, top));
    return _mm256_add_epi32(_mm256_add_epi32(n, n), above(y, _mm256_permutevar_ps(f->third, n)));
}

static inline vi find_nf4(const finder *f, vf y)
{
    vi n = find3(f, y);
    n = _mm256_add_epi32(_mm256_add_epi32(n, n), above(y, _mm256_permutevar8x32_ps(f->fourth, n)));
    return _mm256_sub_epi32(_mm256_setzero_si256(), n);
}

static inline vi find_fp4(const finder *f, vf x, vf y)
{
    vi code = _mm256_permutevar8x32_epi32(f->fp4_code, find3(f, _mm256_andnot_ps(vf_set1(-0.0f), y)));
    vi negative = _mm256_castps_si256(_mm256_cmp_ps(x, vf_zero(), _CMP_LT_OQ));
    return _mm256_or_si256(code, _mm256_and_si256(negative, _mm256_set1_epi32(8)));
}

/* clamp(round-half-even(q), lo, hi), NaN as 0 */
static inline vi round_clamped(vf q, float lo, float hi)
{
    q = _mm256_and_ps(q, _mm256_cmp_ps(q, q, _CMP_ORD_Q));
    return _mm256_cvtps_epi32(vf_min(vf_max(q, vf_set1(lo)), vf_set1(hi)));
}
static inline vi vi_add1(vi a, int b) { return _mm256_add_epi32(a, _mm256_set1_epi32(b)); }
static inline vi vi_clamp(vi a, int lo, int hi)
{
    return _mm256_min_epi32(_mm256_max_epi32(a, _mm256_set1_epi32(lo)), _mm256_set1_epi32(hi));
}

/* 32 codes in dwords to 16 bytes of nibbles */
static inline void pack32(const vi c[GV], uint8_t *out)
{
    __m256i ab = _mm256_packus_epi32(c[0], c[1]), cd = _mm256_packus_epi32(c[2], c[3]);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0110)); /* even * 16 + odd */
    __m128i packed = _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128((__m128i *)out, packed);
}

/* ---- counters: a 32-bit word in each 64-bit lane, what is above it counts for nothing ---------- */

enum { QUADS = VF / 2 }; /* 64-bit lanes */
static inline vi vi_set64(uint64_t a) { return _mm256_set1_epi64x((long long)a); }
static inline vi vi_count64(uint64_t a) { return _mm256_add_epi64(vi_set64(a), _mm256_setr_epi64x(0, 1, 2, 3)); }
static inline vi vi_mul_low(vi a, vi b) { return _mm256_mul_epu32(a, b); }
static inline vi vi_high(vi a) { return _mm256_srli_epi64(a, 32); }
static inline vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
/* words of c[0 ... 3], lane after lane: c[0], c[1], c[2], c[3] of lane 0, of lane 1 ... */
static inline void vi_store_quads(const vi c[4], uint32_t *out)
{
    const vi front = _mm256_blend_epi32(c[0], _mm256_slli_epi64(c[1], 32), 0xaa);
    const vi back = _mm256_blend_epi32(c[2], _mm256_slli_epi64(c[3], 32), 0xaa);
    const vi even = _mm256_unpacklo_epi64(front, back), odd = _mm256_unpackhi_epi64(front, back); /* lanes 0 and 2, 1 and 3 */
    _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256((__m256i *)out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}

#endif
