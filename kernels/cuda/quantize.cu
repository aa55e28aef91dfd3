/* quantize.cu — fp32, bf16, fp16 to 4-bit codes and a scale a block (reference/quantize.c), doubly quantized on demand.
 *
 * Moves, per weight: 2 or 4 bytes of input, 0.5 of codes, 4/B of absmax (1/B of zero points). Memory-bound if it can be done in
 * some 14 instructions a weight: at 4.3 TB/s and bf16, block 64, 8192 x 8192 takes no less than 40.0 us, 20 issue slots of an
 * H200 a weight. So no search (15 comparisons) and no division (10 instructions) in the loop:
 *
 *   NF4, FP4     a cubic (parabola) of y gives a threshold next to y, lane k of the warp keeps threshold k and a shuffle fetches it;
 *                the sign of the difference is added to its number. 9 instructions a weight with y = x / absmax
 *   INT4, affine q = x/s is needed as round(q) only: x * RN(1/s) and one correction by the remainder, which decides every
 *                half as the division does: tried for every mantissa of s and nine x around every half (2^23 * 16 * 9 cases)
 *   magnitude    an integer maximum over |x|'s bits, of 16-bit types two at a time: NaN and Inf come out on top
 *   a block's    scale, reciprocal and zero point are computed by one lane of four and fetched (blockwise.cuh)
 *   codes        are added up as they come: rounding by a magic number leaves that in the word, to be taken off once
 *
 * Doubly quantized it is three launches: this one, with absmax into the workspace; the mean (normalize.cu's sum); the codes
 * (quantize8.cu). The mean needs every absmax and each code needs the mean. In one launch either the last block codes
 * all absmax alone (1 M of them at 64 M weights: about twice this kernel's time), or blocks wait for each other, which a grid that
 * does not fit on the device must not do.
 *
 * H200, bf16 to NF4, block 64, 8192 x 8192:
 *
 *   v1  a bucket of y, round(15 y), and two shuffles for its threshold and code; every lane all scales; codes exchanged between lanes
 *       for stores of 16 bytes. Predicted: the copy's bandwidth. Measured 69.3 us, 2.48 TB/s: 24 instructions a weight, bound by those
 *   v2  as above, 15.7 instructions a weight: 54.0 us; with 32 warps a multiprocessor instead of 24, 49.4
 *   v3  the next tile on its way during this one: 47.1 us, 3.65 TB/s. Two tiles ahead: 49.7 (and 28672 x 8192 232 -> 161, FP4 81 -> 52,
 *       affine 102 -> 50, fp32 118 -> 76). Instructions bind again: 2.9 a clock, of which a third is a tile's own, not a weight's
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/bin/test_fourbit_gpu --backend cuda --filter quantize. on a GPU.
 */
#include "blockwise.cuh"
#include "cuda_ops.h"

namespace {

/* ---- thresholds ------------------------------------------------------------------------------------------- */

/* Candidate: round(A + y (B + y (C + y D))) is within 0.5 of i at threshold i (static_assert), so that every y of code c has
 * threshold c or c - 1 for candidate, and the comparison with that one decides: the code is the candidate, one more above it.
 * A is whole, as the magic number that rounds leaves no room for a fraction. */
struct Curve {
    int a;
    float b, c, d;
};
constexpr Curve kNf4Curve = {7, 11.7265625f, -0.515625f, -4.671875f}, kFp4Curve = {0, 11.203125f, -4.609375f, 0.0f};

/* Lane k keeps threshold k; nothing is above lane 15's and everything is above lane 31's, which is candidate -1. */
struct Thresholds {
    uint32_t bits[FB_WARP];
};
template <int N> constexpr Thresholds make_thresholds(const uint32_t (&bits)[N])
{
    Thresholds t = {};
    for (int i = 0; i < FB_WARP; i++) t.bits[i] = i < N ? bits[i] : i < FB_WARP / 2 ? 0x7f800000u : 0xff800000u;
    return t;
}

constexpr double value_of(uint32_t bits)
{
    double v = (double)((bits & 0x7fffffu) | 0x800000u);
    for (int e = (int)(bits >> 23 & 255u) - 150; e < 0; e++) v /= 2; /* all are below 2 */
    return bits >> 31 ? -v : v;
}
constexpr double at(const Curve &f, double y) { return f.a + y * (f.b + y * (f.c + y * f.d)); }
/* At the thresholds, and between them and beyond in steps of 2^-10; fp32's error is 2^-20. */
template <int N> constexpr bool leads(const Curve &f, const uint32_t (&bits)[N], double from)
{
    const double margin = 0.5 - 0x1p-6;
    for (int i = 0; i < N; i++)
        if (at(f, value_of(bits[i])) < i - margin || at(f, value_of(bits[i])) > i + margin) return false;
    int code = 0;
    for (double y = from; y <= 1; y += 0x1p-10) {
        while (code < N && y > value_of(bits[code])) code++;
        if (at(f, y) < code - 1 - margin || at(f, y) > code + margin) return false;
    }
    return true;
}

constexpr uint32_t nf4_bits[] = {FB_NF4_THRESHOLD_BITS}, fp4_bits[] = {FB_FP4_THRESHOLD_BITS};
static_assert(leads(kNf4Curve, nf4_bits, -1) && leads(kFp4Curve, fp4_bits, 0), "a candidate decides");
__device__ const Thresholds nf4_thresholds = make_thresholds(nf4_bits), fp4_thresholds = make_thresholds(fp4_bits);

/* FP4's magnitude of rank r has code r ^ (r & 2) << 1: of eight nibbles at a time. */
constexpr bool fp4_codes_are_ranks()
{
    const uint32_t code[] = {FB_FP4_RANK_TO_CODE};
    for (uint32_t r = 0; r < 8; r++)
        if (code[r] != (r ^ (r & 2u) << 1)) return false;
    return true;
}
static_assert(fp4_codes_are_ranks(), "formats.h");

/* ---- one block's scale --------------------------------------------------------------------------------------- */

constexpr float kMagic = 12582912.0f; /* 1.5 * 2^23: adding it leaves round-half-even(x) in the low bits */
constexpr uint32_t kMagicBits = 0x4b400000u;

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
__device__ __forceinline__ Scale scale_of(int format, float s, int zero)
{
    if (format == FB_NF4 || format == FB_FP4) {
        const fb_magnitude m = fb_magnitude_of(s);
        return Scale{s, m.inverse, 0, m.tiny || s == 0};
    }
    const bool tiny = !(s >= 0x1p-100f);
    return Scale{s, __frcp_rn(tiny ? __fmul_rn(s, FB_BOOST) : s), zero, tiny};
}

/* ---- codes of V elements, in the order of the code bytes: the even element is the high nibble ------------------ */

/* word * 16 + code, from the last nibble to the first: element k is nibble k ^ 1. A code may carry a constant, which every
 * nibble's place multiplies and less() takes off the sum. */
template <int V> __device__ __forceinline__ constexpr int in_order(int i) { return (V - 1 - i) ^ 1; }
template <int V> __device__ __forceinline__ uint32_t less(uint32_t word, uint32_t constant)
{
    return word - constant * (V == 8 ? 0x11111111u : 0x1111u);
}

/* y of NF4 and FP4. x = -0 becomes +0 (which has the same code), so that y's sign bit is x < 0 even where y is too small for
 * fp32. TINY: a block of the tile is tiny or zero. */
template <int V, bool TINY> __device__ __forceinline__ void scaled(const float (&x)[V], const Scale &s, float (&y)[V])
{
#pragma unroll
    for (int k = 0; k < V; k++) y[k] = __fmaf_rn(x[k], s.inverse, 0.0f);
    if (!TINY || !s.tiny) return;
    fb_scaled<V>(x, fb_magnitude{s.stored, s.inverse, true}, y);
#pragma unroll
    for (int k = 0; k < V; k++) y[k] = __fadd_rn(y[k], 0.0f);
}

/* All lanes of the warp come here. */
template <int V, bool TINY> __device__ __forceinline__ uint32_t nf4_codes(const float (&x)[V], const Scale &s, float thresholds)
{
    constexpr Curve f = kNf4Curve;
    float y[V];
    uint32_t word = 0;
    scaled<V, TINY>(x, s, y);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float v = y[in_order<V>(i)];
        const float candidate = __fmaf_rn(__fmaf_rn(__fmaf_rn(v, f.d, f.c), v, f.b), v, kMagic + f.a);
        const float threshold = __shfl_sync(FB_ALL_LANES, thresholds, __float_as_int(candidate)); /* of its low five bits */
        word = word * 16 + __float_as_uint(candidate) + (__float_as_uint(__fsub_rn(threshold, v)) >> 31);
    }
    word = less<V>(word, kMagicBits);
    return TINY && s.stored == 0 ? 0 : word; /* 0/0 has no candidate; a NaN's code is 0 */
}

template <int V, bool TINY> __device__ __forceinline__ uint32_t fp4_codes(const float (&x)[V], const Scale &s, float thresholds)
{
    constexpr Curve f = kFp4Curve;
    float y[V];
    uint32_t word = 0, signs = 0;
    scaled<V, TINY>(x, s, y);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float v = y[in_order<V>(i)], a = fabsf(v);
        const float candidate = __fmaf_rn(__fmaf_rn(a, f.c, f.b), a, kMagic + f.a);
        const float threshold = __shfl_sync(FB_ALL_LANES, thresholds, __float_as_int(candidate));
        word = word * 16 + __float_as_uint(candidate) + (__float_as_uint(__fsub_rn(threshold, a)) >> 31);
        signs = __funnelshift_l(__float_as_uint(v), signs, 4);
    }
    word = less<V>(word, kMagicBits); /* ranks, 7 at most */
    word ^= (word & 0x22222222u) << 1 ^ (signs & 0x88888888u);
    return TINY && s.stored == 0 ? 0 : V == 8 ? word : word & 0xffffu;
}

template <int FORMAT, int V, bool TINY> __device__ __forceinline__ uint32_t integer_codes(const float (&x)[V], const Scale &s)
{
    const int zero = FORMAT == FB_INT4 ? (int)FB_INT4_ZERO : s.zero, magic = (int)kMagicBits;
    uint32_t word = 0;
    if (TINY && s.tiny) { /* 10 / 1.4 smallest numbers is 10 / 1: then x/s leaves the range; x/0 is infinite, 0/0 counts as 0 */
        const float divisor = __fmul_rn(s.stored, FB_BOOST);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float v = x[in_order<V>(i)];
            int q = __float_as_int(__fadd_rn(fb_quotient(__fmul_rn(v, FB_BOOST), divisor, s.inverse), kMagic)) - magic;
            if (s.stored == 0) q = v > 0 ? 15 : v < 0 ? -15 : 0;
            q += zero;
            word = word * 16 + (uint32_t)(q < 0 ? 0 : q > 15 ? 15 : q);
        }
        return word;
    }
#pragma unroll
    for (int i = 0; i < V; i++) { /* |x/s| is 7 at most (INT4); round(x/s) + zero is 0 ... 16 (affine: zero is -round(least/s)) */
        int q = __float_as_int(__fadd_rn(fb_quotient(x[in_order<V>(i)], s.stored, s.inverse), kMagic));
        if (FORMAT == FB_INT4_AFFINE) q = min(q, magic + 15 - zero);
        word = word * 16 + (uint32_t)q;
    }
    return less<V>(word, kMagicBits - (uint32_t)zero);
}

template <int FORMAT, int V, bool TINY>
__device__ __forceinline__ uint32_t codes_of(const float (&x)[V], const Scale &s, float thresholds)
{
    if constexpr (FORMAT == FB_NF4) return nf4_codes<V, TINY>(x, s, thresholds);
    else if constexpr (FORMAT == FB_FP4) return fp4_codes<V, TINY>(x, s, thresholds);
    else return integer_codes<FORMAT, V, TINY>(x, s);
}

/* ---- stores ------------------------------------------------------------------------------------------------------- */

/* Of a whole tile's load j: a warp stores 128 bytes, or 64 (exchanging words, for 16 bytes a lane, took more). */
template <int V> __device__ __forceinline__ void store_word(uint8_t *codes, int j, uint32_t word)
{
    const int i = j * FB_WARP + (int)threadIdx.x % FB_WARP;
    if (V == 8) ((uint32_t *)codes)[i] = word;
    else ((uint16_t *)codes)[i] = (uint16_t)word;
}

/* The last tile, or codes that start anywhere. The nibble after an odd end is the code of 0. */
template <class T, int FORMAT>
__device__ __forceinline__ void store_bytes(uint8_t *codes, uint32_t word, int first, int n, int zero)
{
    const unsigned padding = FORMAT == FB_NF4 ? 7u : FORMAT == FB_FP4 ? 0u : FORMAT == FB_INT4 ? (unsigned)FB_INT4_ZERO : (unsigned)zero;
#pragma unroll
    for (int b = 0; b < fb_tile<T>::V / 2; b++) {
        const int i = first + 2 * b;
        unsigned byte = word >> (8 * b) & 255u;
        if (i + 1 == n) byte = (byte & 0xf0u) | padding;
        if (i < n) codes[i / 2] = (uint8_t)byte;
    }
}

/* Scales are fetched from the lanes that have them; stored and tiny only where they are used. codes: the tile's. */
template <class T, int FORMAT, bool TINY, int L>
__device__ __forceinline__ void write_codes(const uint4 (&raw)[L], const Scale &mine, float thresholds, bool whole, int valid,
                                            uint8_t *codes)
{
    constexpr int V = fb_tile<T>::V;
    constexpr bool integers = FORMAT == FB_INT4 || FORMAT == FB_INT4_AFFINE;
#pragma unroll
    for (int j = 0; j < L; j++) {
        float x[V];
        Scale s = {};
        s.inverse = fb_of_load<T>(mine.inverse, j);
        if (integers || TINY) s.stored = fb_of_load<T>(mine.stored, j);
        if (FORMAT == FB_INT4_AFFINE) s.zero = fb_of_load<T>(mine.zero, j);
        if (TINY) s.tiny = fb_of_load<T>((int)mine.tiny, j);
        fb_unpack(raw[j], x, (T *)nullptr);
        const uint32_t word = codes_of<FORMAT, V, TINY>(x, s, thresholds);
        if (whole) store_word<V>(codes, j, word);
        else store_bytes<T, FORMAT>(codes, word, (int)fb_tile_index<T>(0, j, (int)threadIdx.x % FB_WARP), valid, s.zero);
    }
}

/* ---- scale of this lane's block ------------------------------------------------------------------------------------ */

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

/* nonfinite: whether the block has a NaN or Inf. */
template <class T, int FORMAT, int L>
__device__ __forceinline__ Scale block_scale(const uint4 (&raw)[L], int log2_block, uint32_t *partial, bool &nonfinite)
{
    uint32_t most[L];
    if constexpr (FORMAT != FB_INT4_AFFINE) {
#pragma unroll
        for (int j = 0; j < L; j++) most[j] = fb_largest_magnitude<T>(raw[j]);
        const uint32_t magnitude = fb_of_halves<T>(fb_reduce_blocks<T>(most, log2_block, partial, fb_larger<T>()));
        const float absmax = __uint_as_float(magnitude);
        nonfinite = magnitude >= 0x7f800000u;
        return scale_of(FORMAT, FORMAT == FB_INT4 ? __fdiv_rn(absmax, 7.0f) : absmax, 0);
    } else { /* bits as signed numbers: the largest positive float, or nothing above 0; as unsigned ones: the least negative */
        uint32_t least[L];
#pragma unroll
        for (int j = 0; j < L; j++) {
            most[j] = fb_larger_signed<T>()(0, fb_of_16_bytes<T>(raw[j], fb_larger_signed<T>()));
            least[j] = fb_of_16_bytes<T>(raw[j], fb_larger<T>());
        }
        const uint32_t hi_bits = fb_of_halves<T, true>(fb_reduce_blocks<T>(most, log2_block, partial, fb_larger_signed<T>()));
        const uint32_t lo_bits = fb_of_halves<T>(fb_reduce_blocks<T>(least, log2_block, partial + FB_TILE_WARPS, fb_larger<T>()));
        nonfinite = hi_bits >= 0x7f800000u || lo_bits >= 0xff800000u;
        const float hi = __uint_as_float(hi_bits), lo = lo_bits >> 31 ? __uint_as_float(lo_bits) : 0.0f; /* the range has 0 in it */
        const float stored = __fdiv_rn(__fsub_rn(__fmul_rn(0.5f, hi), __fmul_rn(0.5f, lo)), 7.5f);
        return scale_of(FORMAT, stored, divided(-lo, stored, 0, 15));
    }
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------ */

/* ticket: a word that the launch after this one needs to be zero; or NULL. */
template <class T, int FORMAT>
__global__ void __launch_bounds__(FB_TILE_THREADS, fb_tile_blocks<T>)
quantize_tiles(const T *src, int64_t n, int log2_block, bool wide_src, bool wide_codes, uint8_t *codes, float *absmax,
               uint8_t *zero_points, unsigned *ticket, unsigned long long *nonfinite)
{
    constexpr int L = fb_tile<T>::L;
    FB_SHARED(uint4, pieces, [fb_tile_pieces<T>]);
    FB_SHARED(uint32_t, partial, [2 * FB_TILE_WARPS]);
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    float thresholds = 0;
    if (FORMAT == FB_NF4) thresholds = __uint_as_float(nf4_thresholds.bits[lane]);
    if (FORMAT == FB_FP4) thresholds = __uint_as_float(fp4_thresholds.bits[lane]);
    if (ticket && blockIdx.x == 0 && threadIdx.x == 0) *ticket = 0;

    const fb_next_tile<T> next = fb_make_next_tile(pieces, src, n, wide_src);
    const int64_t step = (int64_t)gridDim.x * (FB_TILE_WARPS * FB_TILE);
    int64_t begin = ((int64_t)blockIdx.x * FB_TILE_WARPS + warp) * FB_TILE;
    next.fetch(begin);
    for (; begin - warp * FB_TILE < n; begin += step) {
        if (begin >= n && 1 << log2_block <= FB_TILE) return; /* larger blocks: other warps wait for this one */
        const int valid = fb_tile_valid(begin, n);
        uint4 raw[L];
        bool bad;
        next.take(begin, valid, raw);
        const Scale mine = block_scale<T, FORMAT, L>(raw, log2_block, partial, bad);
        next.fetch(begin + step); /* the magnitudes are known: the pieces have been read */
        const bool whole = wide_codes && valid == FB_TILE;
        if (__any_sync(FB_ALL_LANES, bad || mine.tiny)) {
            if (__any_sync(FB_ALL_LANES, bad)) report_first<T, L>(raw, begin, lane, nonfinite);
            write_codes<T, FORMAT, true, L>(raw, mine, thresholds, whole, valid, codes + begin / 2);
        } else {
            write_codes<T, FORMAT, false, L>(raw, mine, thresholds, whole, valid, codes + begin / 2);
        }

        const bool has_block = fb_has_block(begin, valid, log2_block);
        const int64_t block = (begin >> log2_block) + lane;
        const float value = fb_gather_blocks<T>(mine.stored, log2_block);
        if (has_block) absmax[block] = value;
        if (FORMAT == FB_INT4_AFFINE) {
            const int zero_point = fb_gather_blocks<T>(mine.zero, log2_block);
            if (has_block) zero_points[block] = (uint8_t)zero_point;
        }
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
    return FB_LAUNCH(ctx, (quantize_tiles<T, FORMAT>), fb_tile_grid<T>(n), operands, src, n, fb_log2(dst->block_size), fb_wide(src, 16),
                     fb_wide(dst->codes, fb_tile<T>::V / 2), dst->codes, absmax, dst->zero_points, ticket, nonfinite);
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
