/* half.h — bf16 and fp16 for the executor: CUDA's names, exactly rounded conversions, no hardware support needed.
 *
 * Rounding is to nearest, ties to even, subnormals kept.  A NaN becomes the canonical 0x7fff of CUDA's conversions.
 * Arithmetic is one fp32 operation and one rounding, which equals the correctly rounded result for + - * (24 >= 2*11+2).
 * __hfma rounds once: the product and the sum are exact in double for these types' ranges up to a final double rounding,
 * which is detected and corrected in round_odd().
 */
#ifndef SIMT_HALF_H
#define SIMT_HALF_H

#include "types.h"

namespace simt {

typedef uint32_t __attribute__((may_alias)) Pair; /* two halves copied as one access, as in types.h */

static inline uint32_t bits_of(float f) { return __builtin_bit_cast(uint32_t, f); }
static inline float float_of(uint32_t u) { return __builtin_bit_cast(float, u); }

static inline float bf16_to_float(uint16_t b) { return float_of((uint32_t)b << 16); }

static inline uint16_t float_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static inline uint16_t float_to_bf16_rz(float f) {
    uint32_t u = bits_of(f);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (uint16_t)(u >> 16);
}

static inline float fp16_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 0x3ff;
    if (exp == 31) return float_of(sign | 0x7f800000u | man << 13);
    if (exp) return float_of(sign | (exp + 112) << 23 | man << 13);
    float tiny = (float)man * 0x1p-24f; /* subnormal: exact in fp32 */
    return sign ? -tiny : tiny;
}

static inline uint16_t float_to_fp16(float f) {
    uint32_t u = bits_of(f), mag = u & 0x7fffffffu;
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000);
    if (mag > 0x7f800000u) return 0x7fff;
    if (mag >= 0x477ff000u) return sign | 0x7c00; /* 65520 and above round to infinity */
    if (mag >= 0x38800000u) {                     /* normal: drop 13 bits */
        uint32_t r = mag - 0x38000000u;
        return sign | (uint16_t)((r + 0xfffu + ((r >> 13) & 1)) >> 13);
    }
    if (mag < 0x33000000u) return sign; /* below half of the smallest subnormal */
    unsigned shift = 126 - (mag >> 23); /* 14 ... 24 */
    uint32_t man = (mag & 0x7fffffu) | 0x800000u, kept = man >> shift, rest = man & ((1u << shift) - 1),
             half = 1u << (shift - 1);
    return sign | (uint16_t)(kept + (rest > half || (rest == half && (kept & 1))));
}

/* a*b+c rounded to odd in fp32, so that one more rounding to 8 or 11 bits is as if there had been only one. */
static inline float round_odd_fma(float a, float b, float c) {
    double p = (double)a * b, s = p + c;                        /* p is exact: 11+11 bits */
    double t = s - p, err = (p - (s - t)) + ((double)c - t);    /* two-sum: s + err is the exact value */
    float f = (float)s;
    if (!(s - s == 0)) return f;
    double back = (double)f;
    if (back == s && err == 0) return f;
    uint32_t u = bits_of(f);
    if (u & 1) return f;
    double diff = s - back; /* exact; the sign of diff + err says on which side of f the value lies */
    bool above = diff > 0 || (diff == 0 && err > 0);
    bool away = above == (f > 0 || (f == 0 && above));
    if (f == 0) return float_of(above ? 1u : 0x80000001u);
    return float_of(away ? u + 1 : u - 1);
}

} // namespace simt

inline namespace simt_types {

struct __nv_bfloat16_raw {
    unsigned short x;
};
struct __half_raw {
    unsigned short x;
};

#define SIMT_HALF_TYPE(NAME, RAW, TO, FROM)                                                        \
    struct NAME {                                                                                  \
        unsigned short bits_;                                                                      \
        NAME() = default;                                                                          \
        NAME(float f) : bits_(simt::FROM(f)) {}                                                    \
        NAME(RAW r) : bits_(r.x) {}                                                                \
        operator float() const { return simt::TO(bits_); }                                         \
        operator RAW() const { return RAW{bits_}; }                                                \
    };                                                                                             \
    static_assert(sizeof(NAME) == 2, "CUDA layout");                                               \
    static inline NAME operator+(NAME a, NAME b) { return NAME((float)a + (float)b); }             \
    static inline NAME operator-(NAME a, NAME b) { return NAME((float)a - (float)b); }             \
    static inline NAME operator*(NAME a, NAME b) { return NAME((float)a * (float)b); }             \
    static inline NAME __hadd(NAME a, NAME b) { return a + b; }                                    \
    static inline NAME __hsub(NAME a, NAME b) { return a - b; }                                    \
    static inline NAME __hmul(NAME a, NAME b) { return a * b; }                                    \
    static inline NAME __hneg(NAME a) { a.bits_ ^= 0x8000; return a; }                             \
    static inline NAME __hfma(NAME a, NAME b, NAME c) {                                            \
        return NAME(simt::round_odd_fma((float)a, (float)b, (float)c));                            \
    }                                                                                              \
    struct alignas(4) NAME##2 {                                                                    \
        NAME x, y;                                                                                 \
        NAME##2() = default;                                                                       \
        NAME##2(NAME a, NAME b) : x(a), y(b) {}                                                    \
        NAME##2(const NAME##2 &o) { *(simt::Pair *)this = *(const simt::Pair *)&o; }               \
        NAME##2 &operator=(const NAME##2 &o) { *(simt::Pair *)this = *(const simt::Pair *)&o; return *this; } \
    };                                                                                             \
    static inline NAME##2 __hadd2(NAME##2 a, NAME##2 b) { return NAME##2(a.x + b.x, a.y + b.y); }  \
    static inline NAME##2 __hsub2(NAME##2 a, NAME##2 b) { return NAME##2(a.x - b.x, a.y - b.y); }  \
    static inline NAME##2 __hmul2(NAME##2 a, NAME##2 b) { return NAME##2(a.x * b.x, a.y * b.y); }  \
    static inline NAME##2 __hfma2(NAME##2 a, NAME##2 b, NAME##2 c) {                               \
        return NAME##2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));                              \
    }

SIMT_HALF_TYPE(__nv_bfloat16, __nv_bfloat16_raw, bf16_to_float, float_to_bf16)
SIMT_HALF_TYPE(__half, __half_raw, fp16_to_float, float_to_fp16)
typedef __half half;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline float __bfloat162float(__nv_bfloat16 b) { return b; }
static inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
static inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }
static inline __nv_bfloat16 __float2bfloat16_rz(float f) { return __nv_bfloat16_raw{simt::float_to_bf16_rz(f)}; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits_; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u) { return __nv_bfloat16_raw{u}; }
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return __nv_bfloat162(a, b); }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __nv_bfloat162(v.x, v.y); }
static inline float2 __bfloat1622float2(__nv_bfloat162 v) { return float2(v.x, v.y); }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return __nv_bfloat162(a, b); }
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }

static inline float __half2float(__half h) { return h; }
static inline __half __float2half(float f) { return f; }
static inline __half __float2half_rn(float f) { return f; }
static inline unsigned short __half_as_ushort(__half h) { return h.bits_; }
static inline __half __ushort_as_half(unsigned short u) { return __half_raw{u}; }
static inline __half2 __floats2half2_rn(float a, float b) { return __half2(a, b); }
static inline __half2 __float22half2_rn(float2 v) { return __half2(v.x, v.y); }
static inline float2 __half22float2(__half2 v) { return float2(v.x, v.y); }
static inline __half2 __halves2half2(__half a, __half b) { return __half2(a, b); }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }

} // namespace simt_types

#endif
