/* quantize.cu — fp32, bf16, fp16 to 4-bit codes and a scale a block (reference/quantize.c), doubly quantized on demand.
 *
 * Moves, per weight: 2 or 4 bytes of input, 0.5 of codes, 4/B of absmax (1/B of zero points). About 14 operations a weight.
 * Memory-bound: at 4.3 TB/s and bf16, block 64, 4096 x 4096 takes no less than 10.0 us, which leaves an H200 17 thread
 * instructions a weight for everything; so no search (15 comparisons) and no division (10 instructions) in the loop:
 *
 *   NF4, FP4     a bucket of y, round(15 y), holds one threshold at most; lane k of the warp keeps bucket k's threshold and
 *                the code below it, two shuffles fetch them, one comparison decides
 *   INT4, affine q = x/s is needed as round(q) only: x * RN(1/s) and one correction by the remainder, which decides every
 *                half as the division does: tried for every mantissa of s and nine x around every half (2^23 * 16 * 9 cases)
 *   magnitude    an integer maximum over |x|'s bits: NaN and Inf come out on top, and show in the same comparison
 *   codes        change lanes (4 or 8 shuffles for 32 weights), so that each lane stores 16 bytes
 *
 * Doubly quantized it is three launches: this one, with absmax into the workspace; the mean (normalize.cu's sum); the codes
 * (quantize8.cu). The mean needs every absmax and each code needs the mean. In one launch either the last block codes
 * all absmax alone (1 M of them at 64 M weights: about twice this kernel's time), or blocks wait for each other, which a grid that
 * does not fit on the device must not do.
 *
 *   v1  as above; no GPU has confirmed this
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/validate/test_fourbit --backend cuda --filter quantize on a GPU.
 */
#include "blockwise.cuh"
#include "cuda_ops.h"

namespace {

/* ---- buckets ---------------------------------------------------------------------------------------------- */

constexpr int kBuckets = 32, kScale = 15; /* thresholds are 0.08 apart at least: 1/15 is narrow enough */
struct Buckets {
    uint32_t threshold[kBuckets], below[kBuckets]; /* the code of a y in this bucket, one more if above threshold */
};

constexpr double value_of(uint32_t bits)
{
    double v = (double)((bits & 0x7fffffu) | 0x800000u);
    for (int e = (int)(bits >> 23 & 255u) - 150; e < 0; e++) v /= 2; /* all are below 2 */
    return bits >> 31 ? -v : v;
}
constexpr int bucket_of(uint32_t bits) { return (int)(value_of(bits) * kScale + kBuckets / 2 + 0.5); }

/* Bucket b is round(15 y) + 16. */
template <int N> constexpr Buckets make_buckets(const uint32_t (&thresholds)[N])
{
    Buckets t = {};
    for (int b = 0; b < kBuckets; b++) {
        t.threshold[b] = 0x7f800000u; /* nothing is above it */
        for (int i = 0; i < N; i++) {
            t.below[b] += bucket_of(thresholds[i]) < b;
            if (bucket_of(thresholds[i]) == b) t.threshold[b] = thresholds[i];
        }
    }
    return t;
}
template <int N> constexpr bool one_each(const uint32_t (&thresholds)[N])
{
    for (int i = 1; i < N; i++)
        if (bucket_of(thresholds[i - 1]) >= bucket_of(thresholds[i])) return false;
    return true;
}

constexpr uint32_t nf4_thresholds[] = {FB_NF4_THRESHOLD_BITS}, fp4_thresholds[] = {FB_FP4_THRESHOLD_BITS};
static_assert(one_each(nf4_thresholds) && one_each(fp4_thresholds), "a bucket holds one threshold at most");
__device__ const Buckets nf4_buckets = make_buckets(nf4_thresholds), fp4_buckets = make_buckets(fp4_thresholds);

/* The eight magnitudes' codes as two words of bytes, for __byte_perm. */
constexpr uint32_t rank_bytes(int first)
{
    const uint8_t code[] = {FB_FP4_RANK_TO_CODE};
    return code[first] | (uint32_t)code[first + 1] << 8 | (uint32_t)code[first + 2] << 16 | (uint32_t)code[first + 3] << 24;
}
constexpr uint32_t kLowRanks = rank_bytes(0), kHighRanks = rank_bytes(4);
static_assert((kLowRanks & 255u) == 0, "a selector's unused nibbles pick byte 0 and must give 0");

/* ---- one block's scale --------------------------------------------------------------------------------------- */

constexpr float kMagic = 12582912.0f; /* 1.5 * 2^23: adding it leaves round-half-even(x) in the low bits */

/* What the elements of a block are divided by. A tiny scale's remainders would underflow: then it and they are multiplied by
 * 2^64 first (fb_magnitude does the same for NF4 and FP4). */
struct Scale {
    float stored, inverse;
    int zero;
    bool tiny;
};

/* round-half-even(x / s) with 0/0 as 0, as reference/quantize.c has it; for once in a block. */
__device__ __forceinline__ int divided(float x, float s, int lo, int hi)
{
    float q = rintf(__fdiv_rn(x, s));
    if (!(q == q)) q = 0;
    return q < (float)lo ? lo : q > (float)hi ? hi : (int)q;
}

/* 1/s is normal up to s = 2^126, and no scale of integers is larger (FLT_MAX / 7). */
__device__ __forceinline__ Scale integer_scale(float s, int zero)
{
    const bool tiny = !(s >= 0x1p-100f);
    return Scale{s, __frcp_rn(tiny ? __fmul_rn(s, FB_BOOST) : s), zero, tiny};
}

/* ---- codes of V elements, in the order of the code bytes: the even element is the high nibble ------------------ */

__device__ __forceinline__ uint32_t placed(unsigned code, int k) { return code << (4 * (k ^ 1)); }

/* How many thresholds are below y. All lanes of the warp come here. */
__device__ __forceinline__ unsigned rank_of(float y, uint32_t threshold, uint32_t below)
{
    int bucket = __float_as_int(__fmaf_rn(y, (float)kScale, kMagic + kBuckets / 2)) & (kBuckets - 1);
    float t = __uint_as_float(__shfl_sync(FB_ALL_LANES, threshold, bucket));
    return __shfl_sync(FB_ALL_LANES, below, bucket) + (y > t);
}

template <int V>
__device__ __forceinline__ uint32_t nf4_codes(const float (&x)[V], float absmax, uint32_t threshold, uint32_t below)
{
    float y[V];
    uint32_t word = 0;
    fb_scaled<V>(x, fb_magnitude_of(absmax), y);
#pragma unroll
    for (int k = 0; k < V; k++) word |= placed(rank_of(y[k], threshold, below), k);
    return absmax == 0 ? 0 : word; /* 0/0 has no bucket; a NaN's code is 0 */
}

template <int V>
__device__ __forceinline__ uint32_t fp4_codes(const float (&x)[V], float absmax, uint32_t threshold, uint32_t below)
{
    float y[V];
    uint32_t word = 0;
    fb_scaled<V>(x, fb_magnitude_of(absmax), y);
#pragma unroll
    for (int k = 0; k < V; k++) {
        unsigned rank = rank_of(fabsf(y[k]), threshold, below) & 7u;
        unsigned code = __byte_perm(kLowRanks, kHighRanks, rank) | (x[k] < 0 ? 8u : 0u);
        word |= placed(code, k);
    }
    return absmax == 0 ? 0 : word;
}

template <int FORMAT, int V>
__device__ __forceinline__ uint32_t integer_codes(const float (&x)[V], float stored, int zero_point)
{
    const Scale s = integer_scale(stored, zero_point);
    const int one = __float_as_int(kMagic), zero = FORMAT == FB_INT4 ? (int)FB_INT4_ZERO : s.zero;
    const float divisor = __fmul_rn(stored, FB_BOOST);
    uint32_t word = 0;
    if (s.tiny) { /* 10 / 1.4 smallest numbers is 10 / 1: then x/s leaves the range; x/0 is infinite, 0/0 counts as 0 */
#pragma unroll
        for (int k = 0; k < V; k++) {
            int q = __float_as_int(__fadd_rn(fb_quotient(__fmul_rn(x[k], FB_BOOST), divisor, s.inverse), kMagic)) - one;
            if (stored == 0) q = x[k] > 0 ? 15 : x[k] < 0 ? -15 : 0;
            q += zero;
            word |= placed((unsigned)(q < 0 ? 0 : q > 15 ? 15 : q), k);
        }
        return word;
    }
#pragma unroll
    for (int k = 0; k < V; k++) { /* |x/s| is 7 at most (INT4), and x/s + zero -0.5 ... 15.5 (affine) */
        int q = __float_as_int(__fadd_rn(fb_quotient(x[k], stored, s.inverse), kMagic)) + (zero - one);
        if (FORMAT == FB_INT4_AFFINE) q = q < 0 ? 0 : q > 15 ? 15 : q;
        word |= placed((unsigned)q & 15u, k);
    }
    return word;
}

template <int FORMAT, int V>
__device__ __forceinline__ uint32_t codes_of(const float (&x)[V], float stored, int zero, uint32_t threshold, uint32_t below)
{
    if constexpr (FORMAT == FB_NF4) return nf4_codes<V>(x, stored, threshold, below);
    else if constexpr (FORMAT == FB_FP4) return fp4_codes<V>(x, stored, threshold, below);
    else return integer_codes<FORMAT, V>(x, stored, zero);
}

/* ---- scales of the tile's blocks ---------------------------------------------------------------------------------- */

template <class T, int L>
__device__ void report_first(const uint4 (&raw)[L], int64_t begin, int lane, unsigned long long *nonfinite)
{
#pragma unroll
    for (int j = L - 1; j >= 0; j--) {
        float x[fb_tile<T>::V];
        fb_unpack(raw[j], x, (T *)nullptr);
#pragma unroll
        for (int k = fb_tile<T>::V - 1; k >= 0; k--)
            if (!fb_is_finite(x[k])) fb_report_nonfinite(nonfinite, fb_tile_index<T>(begin, j, lane) + k);
    }
}

template <class T, int FORMAT, int L>
__device__ __forceinline__ void block_scales(const uint4 (&raw)[L], float (&stored)[L], int (&zero)[L], int64_t begin,
                                             int log2_block, uint32_t *partial, unsigned long long *nonfinite)
{
    constexpr int V = fb_tile<T>::V;
    const int lane = (int)threadIdx.x % FB_WARP;
    uint32_t most[L], all = 0;
#pragma unroll
    for (int j = 0; j < L; j++) {
        float x[V];
        fb_unpack(raw[j], x, (T *)nullptr);
        most[j] = 0;
#pragma unroll
        for (int k = 0; k < V; k++) most[j] = fb_larger()(most[j], __float_as_uint(x[k]) & 0x7fffffffu);
        all = fb_larger()(all, most[j]);
    }
    if (all >= 0x7f800000u) report_first<T, L>(raw, begin, lane, nonfinite);

    if constexpr (FORMAT != FB_INT4_AFFINE) {
        fb_reduce_blocks<T>(most, log2_block, partial, fb_larger());
#pragma unroll
        for (int j = 0; j < L; j++) {
            float absmax = __uint_as_float(most[j]);
            stored[j] = FORMAT == FB_INT4 ? __fdiv_rn(absmax, 7.0f) : absmax;
            zero[j] = 0;
        }
    } else {
        float lo[L], hi[L];
#pragma unroll
        for (int j = 0; j < L; j++) {
            float x[V];
            fb_unpack(raw[j], x, (T *)nullptr);
            lo[j] = hi[j] = 0; /* the range always includes 0 */
#pragma unroll
            for (int k = 0; k < V; k++) lo[j] = fminf(lo[j], x[k]), hi[j] = fmaxf(hi[j], x[k]);
        }
        fb_reduce_blocks<T>(lo, log2_block, (float *)partial, fb_less_float());
        fb_reduce_blocks<T>(hi, log2_block, (float *)partial + FB_TILE_WARPS, fb_larger_float());
#pragma unroll
        for (int j = 0; j < L; j++) { /* hi + 0: a -0 there would make a scale of -0 */
            float half_hi = __fmul_rn(0.5f, __fadd_rn(hi[j], 0.0f)), half_lo = __fmul_rn(0.5f, lo[j]);
            stored[j] = __fdiv_rn(__fsub_rn(half_hi, half_lo), 7.5f);
            zero[j] = divided(-lo[j], stored[j], 0, 15);
        }
    }
}

/* ---- stores ------------------------------------------------------------------------------------------------------- */

/* A whole tile's codes: words of 32 codes / L, in lane order, become 16 bytes a lane. */
__device__ __forceinline__ void store_codes(uint8_t *codes, uint32_t (&word)[4])
{
    const unsigned lane = threadIdx.x % FB_WARP;
    fb_transpose_4(word, 1);
    *(uint4 *)(codes + lane % 4 * 128 + lane / 4 * 16) = make_uint4(word[0], word[1], word[2], word[3]);
}
__device__ __forceinline__ void store_codes(uint8_t *codes, uint32_t (&half)[8])
{
    const unsigned lane = threadIdx.x % FB_WARP, odd = lane % 2;
    uint32_t word[4];
#pragma unroll
    for (int q = 0; q < 4; q++) { /* loads 2q and 2q+1: the even lane takes both halves of the one, the odd of the other */
        uint32_t mine = half[2 * q] | half[2 * q + 1] << 16, other = __shfl_xor_sync(FB_ALL_LANES, mine, 1);
        word[q] = odd ? __byte_perm(other, mine, 0x7632) : __byte_perm(mine, other, 0x5410);
    }
    fb_transpose_4(word, 2);
    *(uint4 *)(codes + (lane / 2 % 4 * 2 + odd) * 64 + lane / 8 * 16) = make_uint4(word[0], word[1], word[2], word[3]);
}

/* The last tile, or codes that start anywhere. The nibble after an odd end is the code of 0. */
template <class T, int FORMAT>
__device__ __forceinline__ void store_bytes(uint8_t *codes, uint32_t word, int64_t first, int64_t n, int zero)
{
    const unsigned padding = FORMAT == FB_NF4 ? 7u : FORMAT == FB_FP4 ? 0u : FORMAT == FB_INT4 ? (unsigned)FB_INT4_ZERO : (unsigned)zero;
#pragma unroll
    for (int b = 0; b < fb_tile<T>::V / 2; b++) {
        int64_t i = first + 2 * b;
        unsigned byte = word >> (8 * b) & 255u;
        if (i + 1 == n) byte = (byte & 0xf0u) | padding;
        if (i < n) codes[i / 2] = (uint8_t)byte;
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------ */

/* ticket: a word that the launch after this one needs to be zero; or NULL. */
template <class T, int FORMAT>
__global__ void __launch_bounds__(FB_TILE_THREADS, sizeof(T) == 4 || FORMAT == FB_INT4_AFFINE ? 2 : 3)
quantize_tiles(const T *src, int64_t n, int log2_block, bool wide_src, bool wide_codes, uint8_t *codes, float *absmax,
               uint8_t *zero_points, unsigned *ticket, unsigned long long *nonfinite)
{
    constexpr int L = fb_tile<T>::L, V = fb_tile<T>::V;
    FB_SHARED(uint32_t, partial, [2 * FB_TILE_WARPS]);
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    uint32_t threshold = 0, below = 0;
    if (FORMAT == FB_NF4) threshold = nf4_buckets.threshold[lane], below = nf4_buckets.below[lane];
    if (FORMAT == FB_FP4) threshold = fp4_buckets.threshold[lane], below = fp4_buckets.below[lane];
    if (ticket && blockIdx.x == 0 && threadIdx.x == 0) *ticket = 0;

    const int64_t tiles = fb_ceil_div(n, FB_TILE), stride = (int64_t)gridDim.x * FB_TILE_WARPS;
    for (int64_t first = (int64_t)blockIdx.x * FB_TILE_WARPS; first < tiles; first += stride) {
        const int64_t begin = (first + warp) * FB_TILE;
        if (begin >= n && 1 << log2_block <= FB_TILE) return; /* larger blocks: other warps wait for this one */
        uint4 raw[L];
        float stored[L], value;
        int zero[L], zero_point;
        uint32_t word[L];
        fb_tile_load(src, begin, n, wide_src, raw);
        block_scales<T, FORMAT, L>(raw, stored, zero, begin, log2_block, partial, nonfinite);
#pragma unroll
        for (int j = 0; j < L; j++) {
            float x[V];
            fb_unpack(raw[j], x, (T *)nullptr);
            word[j] = codes_of<FORMAT, V>(x, stored[j], zero[j], threshold, below);
        }
        if (wide_codes && begin + FB_TILE <= n) {
            store_codes(codes + begin / 2, word);
        } else {
#pragma unroll
            for (int j = 0; j < L; j++)
                store_bytes<T, FORMAT>(codes, word[j], fb_tile_index<T>(begin, j, lane), n, zero[j]);
        }

        int64_t block;
        if (fb_gather_blocks<T>(stored, begin, n, log2_block, value, block)) absmax[block] = value;
        if (FORMAT == FB_INT4_AFFINE && fb_gather_blocks<T>(zero, begin, n, log2_block, zero_point, block))
            zero_points[block] = (uint8_t)zero_point;
    }
}

template <class T, int FORMAT>
fb_status quantize_as(fb_context *ctx, const T *src, fb_matrix *dst, float *absmax, unsigned *ticket)
{
    const int64_t n = dst->rows * dst->cols;
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    fb_matrix_sizes s;
    fb_matrix_get_sizes(dst, &s);
    const fb_operand operands[] = {{src, (size_t)n * sizeof(T), "src", false},
                                   {dst->codes, s.codes, "codes", true},
                                   {absmax, (size_t)s.blocks * sizeof(float), "absmax", true},
                                   {dst->zero_points, s.zero_points, "zero_points", true},
                                   {ticket, ticket ? sizeof *ticket : 0, "nested_offset", true},
                                   fb_nonfinite_operand(nonfinite)};
    return FB_LAUNCH(ctx, (quantize_tiles<T, FORMAT>), fb_plain_grid(fb_ceil_div(n, FB_TILE * FB_TILE_WARPS), FB_TILE_THREADS),
                     operands, src, n, fb_log2(dst->block_size), fb_wide(src, 16), fb_wide(dst->codes, 16), dst->codes, absmax,
                     dst->zero_points, ticket, nonfinite);
}

template <class T> fb_status quantize_from(fb_context *ctx, const T *src, fb_matrix *dst, float *absmax, unsigned *ticket)
{
    switch (dst->format) {
    case FB_NF4: return quantize_as<T, FB_NF4>(ctx, src, dst, absmax, ticket);
    case FB_FP4: return quantize_as<T, FB_FP4>(ctx, src, dst, absmax, ticket);
    case FB_INT4: return quantize_as<T, FB_INT4>(ctx, src, dst, absmax, ticket);
    default: return quantize_as<T, FB_INT4_AFFINE>(ctx, src, dst, absmax, ticket);
    }
}

} // namespace

/* absmax [blocks], then the sums that its mean is made of. */
extern "C" size_t FB_CUDA(quantize_workspace)(const fb_matrix *w)
{
    if (!w->double_quant) return 0;
    const int64_t blocks = fb_block_count(w->rows * w->cols, w->block_size);
    return (size_t)(fb_ceil_div(blocks, 2) + fb_ceil_div(blocks, FB_NESTED_BLOCK)) * sizeof(double);
}

extern "C" fb_status FB_CUDA(quantize)(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    const int64_t blocks = fb_block_count(dst->rows * dst->cols, dst->block_size);
    float *absmax = dst->double_quant ? (float *)ctx->workspace : dst->absmax;
    unsigned *ticket = dst->double_quant ? (unsigned *)dst->nested_offset : nullptr;
    fb_status status = t == FB_F32    ? quantize_from(ctx, (const float *)src, dst, absmax, ticket)
                       : t == FB_BF16 ? quantize_from(ctx, (const __nv_bfloat16 *)src, dst, absmax, ticket)
                                      : quantize_from(ctx, (const __half *)src, dst, absmax, ticket);
    if (status != FB_OK || !dst->double_quant) return status;
    double *sums = (double *)ctx->workspace + fb_ceil_div(blocks, 2);
    return FB_CUDA(code_absmax)(ctx, absmax, blocks, dst->absmax_codes, dst->nested_absmax, dst->nested_offset, sums, nullptr);
}
