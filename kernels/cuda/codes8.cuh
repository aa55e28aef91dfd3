/* codes8.cuh — the 8-bit dynamic maps on a GPU: values without bank conflicts, and the nearest code without a search.
 *
 * A table of values is looked up by code: 32 lanes at 32 unrelated addresses, 3.4 wavefronts on average. Where two maps are
 * looked up in one kernel every entry stands once in each bank (128 bytes an entry) and lane k reads bank k.
 *
 * Nearest code of a magnitude a: floats that agree in exponent and first 6 bits (unsigned map: 7) have one threshold between
 * two codes among them at most. One word for each such bucket holds code and threshold: added to a's bits, it leaves the code
 * in the top byte, because bits of positive floats are in order:
 *
 *      word  = (j + 1) << 24  -  (bits of the threshold above j, + 1)         or, where there is none, j << 24 - first bits
 *      a above the threshold:       (j + 1) << 24 + 0 or a few
 *      a at the threshold or below: (j + 1) << 24 - 1 or a few                  j in the top byte
 *
 * A look-up (3.4 wavefronts: 12 KiB a bank would not fit) and one addition. The version before took the logarithm, found the
 * decade, the position in it and its threshold: 22 operations.
 */
#ifndef FB_CODES8_CUH
#define FB_CODES8_CUH

#include "elements.cuh"
#include "ptx.cuh"

FB_CONSTANT(uint32_t, fb_maps8, [2 * FB_CODES8]) = {FB_DYNAMIC_SIGNED_BITS, FB_DYNAMIC_UNSIGNED_BITS};
/* The signed map's code of 0: codes 127 + j and 127 - j are opposites. */
static constexpr int FB_SIGNED_ZERO = 127, FB_SIGNED_THRESHOLDS = 128, FB_UNSIGNED_THRESHOLDS = 255;

static __device__ __forceinline__ float fb_map8_value(int map, int code) { return __uint_as_float(fb_maps8[map * FB_CODES8 + code]); }

/* Entry e of a table is the 32 words from 32 e. Each warp writes whole entries: no conflicts, and one address at a time
 * for the constant cache. */
template <class Value> static __device__ __forceinline__ void fb_fill_table8(float *table, int entries, Value value)
{
    const int warps = (int)blockDim.x / FB_WARP;
    for (int e = (int)threadIdx.x / FB_WARP; e < entries; e += warps) table[e * FB_WARP + (int)threadIdx.x % FB_WARP] = value(e);
}

/* ---- the nearest code ------------------------------------------------------------------------------------------ */

/* Smaller magnitudes than `least` have code 0 as it has, and count as it; the last bucket is that of 1. */
template <int MAP> struct fb_buckets8 {
    static constexpr int thresholds = MAP == FB_MAP_SIGNED ? FB_SIGNED_THRESHOLDS : FB_UNSIGNED_THRESHOLDS;
    static constexpr int shift = MAP == FB_MAP_SIGNED ? 17 : 16;
    static constexpr uint32_t least = MAP == FB_MAP_SIGNED ? 0x34800000u : 0x34000000u; /* 2^-22, 2^-23 */
    static constexpr int entries = (int)((0x3f800000u >> shift) - (least >> shift)) + 1, words = (entries + 3) / 4 * 4;
    uint32_t word[words];
    bool right;
};

constexpr uint32_t fb_map8_bits[2][FB_CODES8] = {{FB_DYNAMIC_SIGNED_BITS}, {FB_DYNAMIC_UNSIGNED_BITS}};

constexpr double fb_value_of_bits(uint32_t bits)
{
    double v = bits ? (double)((bits & 0x7fffffu) | 0x800000u) : 0.0;
    for (int e = (int)(bits >> 23 & 255u) - 150; bits && e < 0; e++) v /= 2; /* all are below 2 */
    return v;
}
constexpr uint32_t fb_bits_of_value(double v)
{
    uint32_t exponent = 127;
    for (; v < 1; v *= 2) exponent--;
    return exponent << 23 | (uint32_t)((v - 1) * 0x1p23);
}
/* Above this, magnitude j becomes j + 1: half of the rounded sum. A tie goes to the even code: where that is the upper one, the
 * bound is the float below. */
constexpr uint32_t fb_threshold8(int map, int j)
{
    const int code = map == FB_MAP_SIGNED ? FB_SIGNED_ZERO + j : j;
    const float sum = (float)(fb_value_of_bits(fb_map8_bits[map][code]) + fb_value_of_bits(fb_map8_bits[map][code + 1]));
    return fb_bits_of_value((double)sum / 2) - (code % 2 != 0);
}

template <int MAP> constexpr fb_buckets8<MAP> fb_make_buckets8()
{
    using Buckets = fb_buckets8<MAP>;
    Buckets t = {};
    t.right = fb_threshold8(MAP, 0) >= Buckets::least;
    int j = 0; /* thresholds below the bucket */
    uint32_t next = fb_threshold8(MAP, 0);
    for (int e = 0; e < Buckets::entries; e++) {
        const uint32_t first = ((Buckets::least >> Buckets::shift) + (uint32_t)e) << Buckets::shift;
        if (next >> Buckets::shift != first >> Buckets::shift) {
            t.word[e] = ((uint32_t)j << 24) - first;
            continue;
        }
        t.word[e] = ((uint32_t)(j + 1) << 24) - (next + 1);
        j++;
        const uint32_t last = next;
        next = j < Buckets::thresholds ? fb_threshold8(MAP, j) : 0xffffffffu;
        if (next >> Buckets::shift == last >> Buckets::shift) t.right = false;
    }
    t.right = t.right && j == Buckets::thresholds;
    return t;
}
constexpr fb_buckets8<FB_MAP_SIGNED> fb_made_signed8 = fb_make_buckets8<FB_MAP_SIGNED>();
constexpr fb_buckets8<FB_MAP_UNSIGNED> fb_made_unsigned8 = fb_make_buckets8<FB_MAP_UNSIGNED>();
static_assert(fb_made_signed8.right && fb_made_unsigned8.right, "a bucket has one threshold at most, and all have one");
static __device__ const fb_buckets8<FB_MAP_SIGNED> fb_signed_buckets8 = fb_made_signed8;
static __device__ const fb_buckets8<FB_MAP_UNSIGNED> fb_unsigned_buckets8 = fb_made_unsigned8;

/* Into shared memory: fb_buckets8<MAP>::words, on 16 bytes. */
template <int MAP> static __device__ __forceinline__ void fb_load_buckets8(uint32_t *buckets)
{
    const uint32_t *from = MAP == FB_MAP_SIGNED ? fb_signed_buckets8.word : fb_unsigned_buckets8.word;
    for (int e = (int)threadIdx.x; e < fb_buckets8<MAP>::words / 4; e += (int)blockDim.x)
        ((uint4 *)buckets)[e] = ((const uint4 *)from)[e];
}

/* The magnitude nearest to |y| (unsigned map: to y, or 0) in the top byte. What is not a number has some code. */
template <int MAP> static __device__ __forceinline__ uint32_t fb_magnitude8(float y, const uint32_t *buckets)
{
    using Buckets = fb_buckets8<MAP>;
    const uint32_t bits = __float_as_uint(fmaxf(MAP == FB_MAP_SIGNED ? fabsf(y) : y, __uint_as_float(Buckets::least)));
    return bits + buckets[(bits >> Buckets::shift) - (Buckets::least >> Buckets::shift)];
}

/* The codes of four y = x / absmax, the first one low. Signed: 127 + j, and 127 - j of a negative, whose last magnitude is 127
 * (-1 has no code: the last negative is -0.99). */
template <int MAP> static __device__ __forceinline__ uint32_t fb_codes8(const float *y, const uint32_t *buckets)
{
    uint32_t m[4];
#pragma unroll
    for (int k = 0; k < 4; k++) m[k] = fb_magnitude8<MAP>(y[k], buckets);
    uint32_t j = __byte_perm(__byte_perm(m[0], m[1], 0x0073), __byte_perm(m[2], m[3], 0x0073), 0x5410);
    if (MAP == FB_MAP_UNSIGNED) return j;
    const uint32_t first = ptx::prmt(__float_as_uint(y[0]), __float_as_uint(y[1]), 0x00fb);
    const uint32_t second = ptx::prmt(__float_as_uint(y[2]), __float_as_uint(y[3]), 0x00fb);
    const uint32_t negative = __byte_perm(first, second, 0x5410), zero = 0x01010101u * FB_SIGNED_ZERO; /* bytes of ones, or 0 */
    j -= j >> 7 & negative & 0x01010101u;
    return (j ^ (negative & zero)) + (~negative & zero);
}

#endif
