/* codes8.cuh — the 8-bit dynamic maps on a GPU: tables without bank conflicts, and the nearest code without a search.
 *
 * A table look-up by code is 32 lanes at 32 unrelated addresses, 3.4 wavefronts on average; so every entry stands once in
 * each bank (128 bytes an entry) and lane k reads bank k.
 *
 * Nearest code of a magnitude a: a map is seven decades of 10^(i-7) ... 10^(i-6), each with N = 2^i (unsigned 2^(i+1)) values
 * evenly spaced, then 1. So log10 gives the decade, one fma the position in it, and a single comparison with the exact
 * midpoint decides between the two neighbours. The first two steps need not be exact: where they are one off, near a value
 * or between decades, the same midpoint is the one that decides.
 *
 *      decade i-1      |  decade i: 0.1 + 0.9 (k + 1/2) / N, k = 0 ... N-1, times 10^(i-6)
 *      ..  o     o     |  o  o  o  o  o  o  o  o        o  value     |  midpoint
 *                 ^ a: position -0.3, candidate midpoint: the one between the decades
 */
#ifndef FB_CODES8_CUH
#define FB_CODES8_CUH

#include "elements.cuh"

FB_CONSTANT(uint32_t, fb_maps8, [2 * FB_CODES8]) = {FB_DYNAMIC_SIGNED_BITS, FB_DYNAMIC_UNSIGNED_BITS};
/* N / 0.9 * 10^(6-i) for the signed map (unsigned: twice that), the last one repeated for lanes that have no decade. */
FB_CONSTANT(float, fb_decade_scales, [8]) = {1e6f / 0.9f, 2e5f / 0.9f, 4e4f / 0.9f, 8e3f / 0.9f,
                                            16e2f / 0.9f, 32e1f / 0.9f, 64.0f / 0.9f, 64.0f / 0.9f};

/* The signed map's code of 0: codes 127 + j and 127 - j are opposites. */
static constexpr int FB_SIGNED_ZERO = 127, FB_SIGNED_THRESHOLDS = 128, FB_UNSIGNED_THRESHOLDS = 255;

static __device__ __forceinline__ float fb_map8_value(int map, int code) { return __uint_as_float(fb_maps8[map * FB_CODES8 + code]); }

/* Above this, magnitude j becomes j + 1. A tie goes to the even code: where that is the upper one, the bound is the
 * float below the midpoint. */
template <int MAP> static __device__ __forceinline__ float fb_threshold8(int j)
{
    int code = MAP == FB_MAP_SIGNED ? FB_SIGNED_ZERO + j : j;
    float middle = __fmul_rn(__fadd_rn(fb_map8_value(MAP, code), fb_map8_value(MAP, code + 1)), 0.5f);
    return code % 2 == 0 ? middle : __uint_as_float(__float_as_uint(middle) - 1);
}

/* Entry e of a table is the 32 words from 32 e. Each warp writes whole entries: no conflicts, and one address at a time
 * for the constant cache. */
template <class Value> static __device__ __forceinline__ void fb_fill_table8(float *table, int entries, Value value)
{
    const int warps = (int)blockDim.x / FB_WARP;
    for (int e = (int)threadIdx.x / FB_WARP; e < entries; e += warps) table[e * FB_WARP + (int)threadIdx.x % FB_WARP] = value(e);
}

/* log2, approximately: an error of 2^-10 changes no code (tried over 30 M values of each map). */
static __device__ __forceinline__ float fb_log2_approximately(float a)
{
#ifdef FB_SIMT
    return log2f(a);
#else
    return __log2f(a);
#endif
}

/* This lane's share of what fb_magnitude8 needs. */
template <int MAP> static __device__ __forceinline__ float fb_decade_scale()
{
    const int lane = (int)threadIdx.x % FB_WARP;
    return fb_decade_scales[lane < 7 ? lane : 7] * (MAP == FB_MAP_SIGNED ? 1.0f : 2.0f);
}

/* The magnitude j (0 ... 128, unsigned 0 ... 255) nearest to a >= 0; thresholds: the table, from this lane's bank on. All
 * lanes of the warp come here. An a that is not a number gives some code. */
template <int MAP>
static __device__ __forceinline__ unsigned fb_magnitude8(float a, float decade_scale, const float *thresholds)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds, and the integer is in the low bits */
    const int one = MAP == FB_MAP_SIGNED ? 1 : 2;
    float decade = fminf(fmaxf(__fmaf_rn(fb_log2_approximately(a), 0.30103f, 6.5f), 0.0f), 6.0f);
    uint32_t rounded = __float_as_uint(__fadd_rn(decade, magic));
    float scale = __shfl_sync(FB_ALL_LANES, decade_scale, (int)(rounded & 7u));
    float values = __uint_as_float((rounded << 23) + 0x3f800000u + (one == 2 ? 1u << 23 : 0u)); /* N: bits above 8 drop out */
    float position = __fmaf_rn(a, scale, __fmul_rn(values, 8.0f / 9.0f));
    unsigned j = (__float_as_uint(__fadd_rn(position, magic)) - (unsigned)one) & (MAP == FB_MAP_SIGNED ? 127u : 255u);
    if (MAP == FB_MAP_UNSIGNED) j = j < 255u ? j : 254u;
    return j + (a > thresholds[j * FB_WARP]);
}

/* The code of y = x / absmax. */
template <int MAP> static __device__ __forceinline__ unsigned fb_code8(float y, float decade_scale, const float *thresholds)
{
    if (MAP == FB_MAP_UNSIGNED) return fb_magnitude8<MAP>(fmaxf(y, 0.0f), decade_scale, thresholds);
    unsigned j = fb_magnitude8<MAP>(fabsf(y), decade_scale, thresholds);
    const unsigned zero = FB_SIGNED_ZERO;
    return y < 0 ? zero - (j < zero ? j : zero) : zero + j; /* -1 has no code: the last negative is -0.99 */
}

#endif
