/* vec_avx512.h: the vector vocabulary in AVX-512 (F, BW, VL, DQ): 16 floats.
 *
 * The names and meanings of vec_avx2.h. Here 16 fp32 codes are one register, looked up
 * by vpermps; 16-bit tables are one register twice, looked up by vpermw. Both ignore
 * the index bits above those they need, which saves masking the nibbles.
 */
#ifndef FOURBIT_VEC_H
#define FOURBIT_VEC_H

#include "formats.h"

#include <immintrin.h>
#include <stdbool.h>

#define ISA(name) name##_avx512
enum {
    VF = 16,         /* floats in a vector */
    GROUP = 32,      /* weights decoded at once: the smallest block, 16 bytes */
    GV = GROUP / VF, /* vectors in a group */
    WIDE = 32,       /* weights decoded at once where their order does not matter */
    WH = WIDE / 2 / VF /* vectors in half of it */
};

/* ---- fp32 vectors --------------------------------------------------------------- */

typedef __m512 vf;
typedef __m512i vi;

static inline vf vf_zero(void) { return _mm512_setzero_ps(); }
static inline vf vf_set1(float a) { return _mm512_set1_ps(a); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* Sixteen loads, 0.22 ns an element of dequantize8 on a Zen 5: vgatherdps took 0.34, the whole table in eight vpermt2ps 0.27. */
static inline vf vf_gather(const float *t, const uint8_t *i)
{
    return _mm512_setr_ps(t[i[0]], t[i[1]], t[i[2]], t[i[3]], t[i[4]], t[i[5]], t[i[6]], t[i[7]], //
                          t[i[8]], t[i[9]], t[i[10]], t[i[11]], t[i[12]], t[i[13]], t[i[14]], t[i[15]]);
}
static inline void vf_fence(void) { _mm_sfence(); }

static inline __m256 upper_half(vf a) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)); }

/* Halving: a fixed order. */
static inline float vf_sum(vf a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), upper_half(a));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_largest(vf a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), upper_half(a));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline float vf_smallest(vf a)
{
    __m256 h = _mm256_min_ps(_mm512_castps512_ps256(a), upper_half(a));
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}

/* Row i of 16 x 16 becomes column i: 4 x 4 within lanes, then lanes. */
static inline void vf_transpose(vf v[VF])
{
    vf t[VF];
    for (int i = 0; i < VF; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < VF; i += 4) { /* v[i + j], lane l: column 4 l + j of rows i ... i+3 */
        v[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        v[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        v[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        v[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int j = 0; j < 4; j++) {
        vf a = _mm512_shuffle_f32x4(v[j], v[4 + j], 0x88), b = _mm512_shuffle_f32x4(v[j], v[4 + j], 0xdd);
        vf c = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0x88), d = _mm512_shuffle_f32x4(v[8 + j], v[12 + j], 0xdd);
        t[j] = _mm512_shuffle_f32x4(a, c, 0x88);
        t[4 + j] = _mm512_shuffle_f32x4(b, d, 0x88);
        t[8 + j] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[12 + j] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
    memcpy(v, t, sizeof t);
}

/* ---- element types ---------------------------------------------------------------- */

static inline vf vf_load_as(const void *p, fb_dtype t, int64_t i)
{
    if (t == FB_F32) return vf_load((const float *)p + i);
    __m256i h = _mm256_loadu_si256((const __m256i *)((const uint16_t *)p + i));
    if (t == FB_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

#ifdef FOURBIT_BOCHS
/* Only in the build that validate/emulate runs: Bochs 2.7 rounds a tie of vcvtps2ph up, where processors go to even. */
static inline __m256i f16_words(vf a)
{
    float in[16];
    uint16_t out[16];
    _mm512_storeu_ps(in, a);
    for (int i = 0; i < 16; i++) out[i] = fb_float_to_f16(in[i]);
    return _mm256_loadu_si256((const __m256i *)out);
}
#else
static inline __m256i f16_words(vf a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
#endif

/* bf16 in the upper words, below it anything. Not by vcvtneps2bf16, which flushes subnormals. */
static inline __m512i bf16_uppers(vf a)
{
    const __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
}

static inline __m256i half_words(vf a, fb_dtype t)
{
    if (t == FB_F16) return f16_words(a);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bf16_uppers(a), 16));
}

static inline void vf_store_as(void *p, fb_dtype t, int64_t i, vf a)
{
    if (t == FB_F32) vf_store((float *)p + i, a);
    else _mm256_storeu_si256((__m256i *)((uint16_t *)p + i), half_words(a, t));
}

/* No NaN or Inf among `count` elements; count a multiple of 4 * GROUP. */
static inline bool vec_all_finite(const void *p, fb_dtype t, int64_t count)
{
    const char *at = p;
    int64_t bytes = count * (int64_t)fb_dtype_size(t);
    __m512i seen = _mm512_setzero_si512();
    if (t == FB_F32) {
        const __m512i mask = _mm512_set1_epi32(0x7fffffff);
        for (int64_t i = 0; i < bytes; i += 64)
            seen = _mm512_max_epi32(seen, _mm512_and_si512(mask, _mm512_loadu_si512(at + i)));
        return _mm512_cmpgt_epi32_mask(seen, _mm512_set1_epi32(0x7f7fffff)) == 0;
    }
    const __m512i mask = _mm512_set1_epi16(0x7fff);
    for (int64_t i = 0; i < bytes; i += 64)
        seen = _mm512_max_epi16(seen, _mm512_and_si512(mask, _mm512_loadu_si512(at + i)));
    return _mm512_cmpgt_epi16_mask(seen, _mm512_set1_epi16(t == FB_BF16 ? 0x7f7f : 0x7bff)) == 0;
}

/* ---- 4-bit codes to values ------------------------------------------------------------ */

typedef struct lut {
    float value[FB_CODES];
} lut;
typedef struct lutv {
    vf value;
} lutv;

static inline void lut_make(lut *l, const float values[FB_CODES]) { memcpy(l->value, values, sizeof l->value); }
static inline lutv lut_load(const lut *l) { return (lutv){vf_load(l->value)}; }

/* 32 weights, unscaled, in order: a byte becomes two dwords, (byte >> 4, byte), of which
 * vpermps reads the low 4 bits. */
static inline void decode32(const lutv *l, const uint8_t *codes, vf out[GV])
{
    for (int v = 0; v < GV; v++) {
        __m512i b = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(codes + 8 * v)));
        __m512i index = _mm512_or_si512(_mm512_srli_epi64(b, 4), _mm512_slli_epi64(b, 32));
        out[v] = _mm512_permutexvar_ps(index, l->value);
    }
}

/* Half of 32 weights, unscaled: the even elements, or the odd ones. */
static inline void decode_half(const lutv *l, const uint8_t *codes, int odd, vf out[WH])
{
    __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    out[0] = _mm512_permutexvar_ps(odd ? b : _mm512_srli_epi32(b, 4), l->value);
}
/* Which element of 32 is float i of both halves. */
static inline int wide_element(int i) { return 2 * (i % VF) + i / VF; }

/* 16 values of two bytes, already scaled and rounded: a block's table, twice, because
 * vpermw reads 5 bits of index and the fifth is a neighbour's. */
typedef struct lut16 {
    __m512i words;
} lut16;

static inline lut16 lut16_make(const float values[FB_CODES], float absmax, fb_dtype t)
{
    const vf v = vf_mul(vf_load(values), vf_set1(absmax));
    if (t == FB_F16) return (lut16){_mm512_broadcast_i64x4(f16_words(v))};
    const __m512i uppers = _mm512_broadcast_i64x4(_mm256_setr_epi32(0x00030001, 0x00070005, 0x000b0009, 0x000f000d, //
                                                                    0x00130011, 0x00170015, 0x001b0019, 0x001f001d));
    return (lut16){_mm512_permutexvar_epi16(uppers, bf16_uppers(v))};
}

/* 32 values to memory; `stream` past the caches (out is then aligned to a vector). Each byte becomes two words, the first shifted. */
static inline void decode32_16(const lut16 *l, const uint8_t *codes, uint16_t *out, bool stream)
{
    const __m512i order = _mm512_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606, 0x07070707, //
                                            0x08080808, 0x09090909, 0x0a0a0a0a, 0x0b0b0b0b, 0x0c0c0c0c, 0x0d0d0d0d, 0x0e0e0e0e, 0x0f0f0f0f);
    const __m512i b = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)codes)), order);
    const __m512i values = _mm512_permutexvar_epi16(_mm512_srlv_epi16(b, _mm512_set1_epi32(4)), l->words);
    if (stream) _mm512_stream_si512((__m512i *)out, values);
    else _mm512_storeu_si512(out, values);
}

/* ---- values to 4-bit codes --------------------------------------------------------------- */

/* How many of 15 (NF4) or 7 (FP4) ascending thresholds lie strictly below y. Neighbours are more than 1/15 apart, so among
 * the y that round(15 y) sends to one place there is one at most: a look-up says which, another how many lie below it. A NaN
 * is above nothing, and its low bits are 0: count 0. */
typedef struct finder {
    vf limit[2];  /* places 0 ... 31: round(15 y) + 15; FP4: 0 ... 15, round(15 |y|) */
    vi below[2];  /* its rank; FP4: the codes below and above it */
} finder;

static inline finder finder_make(fb_format format)
{
    finder f;
    memset(&f, 0, sizeof f);
    if (format != FB_NF4 && format != FB_FP4) return f;
    const uint32_t *t = format == FB_NF4 ? fb_nf4_threshold_bits : fb_fp4_threshold_bits;
    const int count = format == FB_NF4 ? 15 : 7, origin = format == FB_NF4 ? 15 : 0;
    float limit[32];
    int32_t below[32];
    for (int i = 0, n = 0; i < 32; i++) {
        const float edge = ((float)(i - origin) - 0.5f) / 15 - 1e-6f; /* the least y sent there, and a little less */
        while (n < count && fb_bits_to_float(t[n]) < edge) n++;
        limit[i] = n < count ? fb_bits_to_float(t[n]) : INFINITY;
        below[i] = n;
    }
    for (int i = 0; i < 16 && format == FB_FP4; i++) {
        const int n = below[i];
        below[i] = fb_fp4_rank_to_code[n];
        below[16 + i] = fb_fp4_rank_to_code[n < count ? n + 1 : n];
    }
    for (int h = 0; h < 2; h++) {
        f.limit[h] = vf_load(limit + 16 * h);
        f.below[h] = _mm512_loadu_si512(below + 16 * h);
    }
    return f;
}

static inline __mmask16 above(vf y, vf t) { return _mm512_cmp_ps_mask(y, t, _CMP_GT_OQ); }

static inline vi find_nf4(const finder *f, vf y)
{
    const vi place = _mm512_castps_si512(vf_fma(y, vf_set1(15), vf_set1(0x1.8p23f + 15))); /* in the low bits */
    const vi n = _mm512_permutex2var_epi32(f->below[0], place, f->below[1]);
    return _mm512_mask_add_epi32(n, above(y, _mm512_permutex2var_ps(f->limit[0], place, f->limit[1])), n, _mm512_set1_epi32(1));
}

static inline vi find_fp4(const finder *f, vf x, vf y)
{
    y = _mm512_abs_ps(y);
    const vi place = _mm512_castps_si512(vf_fma(y, vf_set1(15), vf_set1(0x1.8p23f)));
    vi code = _mm512_permutexvar_epi32(place, f->below[0]);
    code = _mm512_mask_permutexvar_epi32(code, above(y, _mm512_permutexvar_ps(place, f->limit[0])), place, f->below[1]);
    return _mm512_mask_or_epi32(code, _mm512_cmp_ps_mask(x, vf_zero(), _CMP_LT_OQ), code, _mm512_set1_epi32(8));
}

/* clamp(round-half-even(q), lo, hi), NaN as 0 */
static inline vi round_clamped(vf q, float lo, float hi)
{
    q = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(q, q, _CMP_ORD_Q), q);
    return _mm512_cvtps_epi32(vf_min(vf_max(q, vf_set1(lo)), vf_set1(hi)));
}
static inline vi vi_add1(vi a, int b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }
static inline vi vi_clamp(vi a, int lo, int hi)
{
    return _mm512_min_epi32(_mm512_max_epi32(a, _mm512_set1_epi32(lo)), _mm512_set1_epi32(hi));
}

/* 32 codes in dwords to 16 bytes of nibbles. A lane of the packed words has four of c[0], then four of c[1]. */
static inline void pack32(const vi c[GV], uint8_t *out)
{
    const __m512i pairs = _mm512_madd_epi16(_mm512_packus_epi32(c[0], c[1]), _mm512_set1_epi32(0x00010010)); /* even * 16 + odd */
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    _mm_storeu_si128((__m128i *)out, _mm_shuffle_epi8(_mm512_cvtepi32_epi8(pairs), order));
}

/* ---- counters: a 32-bit word in each 64-bit lane, what is above it counts for nothing ---------- */

enum { QUADS = VF / 2 }; /* 64-bit lanes */
static inline vi vi_set64(uint64_t a) { return _mm512_set1_epi64((long long)a); }
static inline vi vi_count64(uint64_t a) { return _mm512_add_epi64(vi_set64(a), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vi vi_mul_low(vi a, vi b) { return _mm512_mul_epu32(a, b); }
static inline vi vi_high(vi a) { return _mm512_srli_epi64(a, 32); }
static inline vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
/* words of c[0 ... 3], lane after lane: c[0], c[1], c[2], c[3] of lane 0, of lane 1 ... */
static inline void vi_store_quads(const vi c[4], uint32_t *out)
{
    const vi front = _mm512_mask_blend_epi32(0xaaaa, c[0], _mm512_slli_epi64(c[1], 32));
    const vi back = _mm512_mask_blend_epi32(0xaaaa, c[2], _mm512_slli_epi64(c[3], 32));
    const vi first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), last = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64(front, first, back));
    _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(front, last, back));
}

#endif
