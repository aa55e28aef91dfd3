/* vec_portable.h: the vector vocabulary in plain C, for any processor: 4 floats.
 *
 * GCC's and clang's vector types: four lanes are one register in SSE2, NEON and their like, and the
 * compiler splits them where there is none. No fused multiply-add: products and sums round apart.
 *
 * Decoding: without a shuffle to look 16 values up in, a table of 256 pairs, one load a byte of codes.
 * It is made once a call (2 KB), of unscaled values; a zero point is subtracted after it.
 */
#ifndef FOURBIT_VEC_H
#define FOURBIT_VEC_H

#include "formats.h"

#include <stdbool.h>

#define ISA(name) name##_portable
enum {
    VF = 4,          /* floats in a vector */
    GROUP = 32,      /* weights decoded at once: the smallest block, 16 bytes */
    GV = GROUP / VF, /* vectors in a group */
    WIDE = 32,       /* nothing is gained by another order: "halves" are halves, in order */
    WH = WIDE / 2 / VF
};

/* ---- fp32 vectors --------------------------------------------------------------- */

typedef float vf __attribute__((vector_size(4 * VF)));
typedef int32_t vi __attribute__((vector_size(4 * VF)));

static inline vf vf_set1(float a) { return (vf){a, a, a, a}; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vi vi_set1(int32_t a) { return (vi){a, a, a, a}; }
static inline vf vf_load(const float *p)
{
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline void vf_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
static inline void vf_stream(float *p, vf a) { vf_store(p, a); }
static inline void vf_fence(void) {}
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_sqrt(vf a)
{
    for (int i = 0; i < VF; i++) a[i] = sqrtf(a[i]);
    return a;
}

static inline vi vi_select(vi mask, vi a, vi b) { return (mask & a) | (~mask & b); }
static inline vf vf_select(vi mask, vf a, vf b) { return (vf)vi_select(mask, (vi)a, (vi)b); }
static inline vf vf_abs(vf a) { return (vf)((vi)a & vi_set1(0x7fffffff)); }
/* b where either is NaN */
static inline vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }

static inline vf vf_gather(const float *table, const uint8_t *index)
{
    return (vf){table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
}

/* Halving: a fixed order. */
static inline float vf_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float vf_largest(vf a)
{
    const float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
    return x > y ? x : y;
}
static inline float vf_smallest(vf a)
{
    const float x = a[0] < a[2] ? a[0] : a[2], y = a[1] < a[3] ? a[1] : a[3];
    return x < y ? x : y;
}

/* Row i of 4 x 4 becomes column i. */
static inline void vf_transpose(vf v[VF])
{
    const vf a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = (vf){a[0], b[0], c[0], d[0]};
    v[1] = (vf){a[1], b[1], c[1], d[1]};
    v[2] = (vf){a[2], b[2], c[2], d[2]};
    v[3] = (vf){a[3], b[3], c[3], d[3]};
}

/* ---- element types ---------------------------------------------------------------- */

static inline vf vf_load_as(const void *p, fb_dtype t, int64_t i)
{
    if (t == FB_F32) return vf_load((const float *)p + i);
    if (t == FB_F16) return (vf){fb_load(p, t, i), fb_load(p, t, i + 1), fb_load(p, t, i + 2), fb_load(p, t, i + 3)};
    uint16_t h[VF];
    memcpy(h, (const uint16_t *)p + i, sizeof h);
    const vi wide = {h[0], h[1], h[2], h[3]};
    return (vf)(wide << 16);
}

static inline void vf_store_as(void *p, fb_dtype t, int64_t i, vf a)
{
    if (t == FB_F32) {
        vf_store((float *)p + i, a);
        return;
    }
    uint16_t h[VF];
    for (int j = 0; j < VF; j++) h[j] = t == FB_BF16 ? fb_float_to_bf16(a[j]) : fb_float_to_f16(a[j]);
    memcpy((uint16_t *)p + i, h, sizeof h);
}

/* No NaN or Inf among `count` elements. */
static inline bool vec_all_finite(const void *p, fb_dtype t, int64_t count)
{
    unsigned bad = 0;
    if (t == FB_F32) {
        const uint32_t *bits = p;
        for (int64_t i = 0; i < count; i++) bad |= (bits[i] & 0x7fffffffu) >= 0x7f800000u;
        return !bad;
    }
    const uint16_t *bits = p, limit = t == FB_BF16 ? 0x7f80 : 0x7c00;
    for (int64_t i = 0; i < count; i++) bad |= (bits[i] & 0x7fff) >= limit;
    return !bad;
}

/* ---- 4-bit codes to values ------------------------------------------------------------ */

#define LUTS_OF_PAIRS /* decode.h leaves the tables to us */
typedef struct luts {
    float pair[256][2]; /* of the high nibble, of the low */
} luts;
typedef struct lutv {
    const float (*pair)[2];
    vf zero; /* point */
} lutv;

static inline void luts_make(luts *l, const float values[FB_CODES], bool affine)
{
    (void)affine;
    for (int b = 0; b < 256; b++) {
        l->pair[b][0] = values[b >> 4];
        l->pair[b][1] = values[b & 15];
    }
}
static inline lutv luts_get(const luts *l, unsigned zero_point)
{
    return (lutv){(const float (*)[2])l->pair, vf_set1((float)zero_point)};
}

static inline vf decode4(const lutv *l, const uint8_t *codes)
{
    double pairs[2]; /* moved, never computed with */
    memcpy(&pairs[0], l->pair[codes[0]], sizeof pairs[0]);
    memcpy(&pairs[1], l->pair[codes[1]], sizeof pairs[1]);
    vf values;
    memcpy(&values, pairs, sizeof values);
    return values - l->zero; /* - 0 keeps every value's bits, -0 too */
}

static inline void decode32(const lutv *l, const uint8_t *codes, vf out[GV])
{
    for (int v = 0; v < GV; v++) out[v] = decode4(l, codes + 2 * v);
}

static inline void decode_half(const lutv *l, const uint8_t *codes, int second, vf out[WH])
{
    for (int v = 0; v < WH; v++) out[v] = decode4(l, codes + 8 * second + 2 * v);
}
static inline int wide_element(int i) { return i; }

/* 16 values of two bytes, already scaled and rounded: a block's table. */
typedef struct lut16 {
    uint16_t value[FB_CODES];
} lut16;

static inline lut16 lut16_make(const float values[FB_CODES], float absmax, fb_dtype t)
{
    lut16 l = {{0}};
    for (int c = 0; c < FB_CODES; c += VF) vf_store_as(l.value, t, c, vf_load(values + c) * vf_set1(absmax));
    return l;
}

static inline void decode32_16(const lut16 *l, const uint8_t *codes, uint16_t *out, bool stream)
{
    (void)stream;
    for (int i = 0; i < GROUP / 2; i++) {
        out[2 * i] = l->value[codes[i] >> 4];
        out[2 * i + 1] = l->value[codes[i] & 15];
    }
}

/* ---- values to 4-bit codes --------------------------------------------------------------- */

/* How many thresholds lie strictly below y, by counting: a NaN is above nothing. */
typedef struct finder {
    vf threshold[FB_CODES - 1];
} finder;

static inline finder finder_make(fb_format format)
{
    finder f;
    memset(&f, 0, sizeof f);
    for (int i = 0; i < 15 && format == FB_NF4; i++) f.threshold[i] = vf_set1(fb_bits_to_float(fb_nf4_threshold_bits[i]));
    for (int i = 0; i < 7 && format == FB_FP4; i++) f.threshold[i] = vf_set1(fb_bits_to_float(fb_fp4_threshold_bits[i]));
    return f;
}

static inline vi find_nf4(const finder *f, vf y)
{
    vi n = vi_set1(0);
    for (int i = 0; i < 15; i++) n -= (vi)(y > f->threshold[i]);
    return n;
}

static inline vi find_fp4(const finder *f, vf x, vf y)
{
    const vf magnitude = (vf)((vi)y & vi_set1(0x7fffffff));
    vi n = vi_set1(0);
    for (int i = 0; i < 7; i++) n -= (vi)(magnitude > f->threshold[i]);
    for (int i = 0; i < VF; i++) n[i] = fb_fp4_rank_to_code[n[i]];
    return n | ((vi)(x < vf_zero()) & vi_set1(8));
}

/* clamp(round-half-even(q), lo, hi), NaN as 0. |q| is small then: adding 1.5 * 2^23 rounds it to an integer. */
static inline vi round_clamped(vf q, float lo, float hi)
{
    const vf shift = vf_set1(0x1.8p23f);
    q = (vf)((vi)q & (vi)(q == q));
    q = (vf_min(vf_max(q, vf_set1(lo)), vf_set1(hi)) + shift) - shift;
    return __builtin_convertvector(q, vi);
}
static inline vi vi_add1(vi a, int b) { return a + vi_set1(b); }
static inline vi vi_clamp(vi a, int lo, int hi)
{
    a = vi_select(a > vi_set1(lo), a, vi_set1(lo));
    return vi_select(a < vi_set1(hi), a, vi_set1(hi));
}

/* 32 codes in dwords to 16 bytes of nibbles */
static inline void pack32(const vi c[GV], uint8_t *out)
{
    int32_t code[GROUP];
    memcpy(code, c, sizeof code);
    for (int i = 0; i < GROUP / 2; i++) out[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* ---- counters: a 32-bit word in each 64-bit lane, what is above it counts for nothing ---------- */

enum { QUADS = VF / 2 }; /* 64-bit lanes */
typedef uint64_t vq __attribute__((vector_size(16)));
static inline vi vi_set64(uint64_t a) { return (vi)(vq){a, a}; }
static inline vi vi_count64(uint64_t a) { return (vi)(vq){a, a + 1}; }
static inline vi vi_mul_low(vi a, vi b) { return (vi)(((vq)a & 0xffffffffu) * ((vq)b & 0xffffffffu)); }
static inline vi vi_high(vi a) { return (vi)((vq)a >> 32); }
static inline vi vi_xor(vi a, vi b) { return a ^ b; }
/* words of c[0 ... 3], lane after lane: c[0], c[1], c[2], c[3] of lane 0, of lane 1 ... */
static inline void vi_store_quads(const vi c[4], uint32_t *out)
{
    for (int q = 0; q < QUADS; q++)
        for (int j = 0; j < 4; j++) out[4 * q + j] = (uint32_t)((vq)c[j])[q];
}

#endif
