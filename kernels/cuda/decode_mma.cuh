/* decode_mma.cuh — from codes to tensor-core fragments in registers; what gemm and gemm_dx share.
 *
 * A weight enters a product as dequantize gives it: codebook value (minus zero point) times scale in fp32, rounded once to the
 * activations' type.  Two weights a look-up: a table of 256 pairs of fp32, indexed by the byte, stands 16 times in shared memory, once
 * in each pair of banks, so that lane l reads copy l % 16 and no look-up waits for another (32 KiB; a warp's 32 look-ups of
 * 8 bytes are the two wavefronts that 256 bytes take anyway).
 *
 *      byte b    copy 0      copy 1             copy 15
 *      128 b    | hi, lo  | hi, lo  |  ...  | hi, lo  |     hi: the codebook value of the upper nibble, the even column
 *
 * Cost of a weight: 1/2 shift, 1/2 lop3, 1/2 look-up (one wavefront), 1 multiplication (2 with zero points), 1/2 conversion:
 * 3 issue slots.  A table of 16-bit pairs halves the look-up, but 16-bit codebook times scale is not what dequantize gives: that
 * is gemm_stream_sm90.cu's way, which says so (FB_WEIGHTS_CODES) and is held to it.
 */
#ifndef FB_DECODE_MMA_CUH
#define FB_DECODE_MMA_CUH

#include "decode.cuh"
#include "elements.cuh"
#include "ptx.cuh"

static constexpr int FB_PAIR_BYTES = 256 * 16 * 8, FB_NESTED_MAP_BYTES = FB_CODES8 * 4;

static __device__ __forceinline__ float fb_code_value(const float *codebook, int format, unsigned code)
{
    return codebook ? codebook[code] : __uint_as_float(fb_codebooks[format * FB_CODES + (int)code]);
}

/* All threads of the block; a barrier must follow.  16 bytes a store: two copies. */
static __device__ __forceinline__ void fb_fill_pairs(unsigned char *table, const float *codebook, int format, int threads)
{
    for (int i = (int)threadIdx.x; i < FB_PAIR_BYTES / 16; i += threads) {
        const unsigned byte = (unsigned)i / 8;
        const uint32_t hi = __float_as_uint(fb_code_value(codebook, format, byte >> 4)),
                       lo = __float_as_uint(fb_code_value(codebook, format, byte & 15));
        ((uint4 *)table)[i] = make_uint4(hi, lo, hi, lo);
    }
}
/* The 8-bit map of doubly quantized scales, likewise. */
static __device__ __forceinline__ void fb_fill_nested_map(float *map, const fb_scales &s, int threads)
{
    if (!s.absmax_codes) return;
    for (int i = (int)threadIdx.x; i < FB_CODES8; i += threads)
        map[i] = s.nested_codebook ? s.nested_codebook[i] : __uint_as_float(fb_nested_map[i]);
}

/* ---- 16-bit pairs: the first element in the lower half ------------------------------------------------------------- */

template <class T> static __device__ __forceinline__ uint32_t fb_pair(float first, float second);
template <> __device__ __forceinline__ uint32_t fb_pair<__nv_bfloat16>(float first, float second)
{
    return ptx::cvt_rn_bf16x2(second, first);
}
template <> __device__ __forceinline__ uint32_t fb_pair<__half>(float first, float second)
{
    return ptx::cvt_rn_f16x2(second, first);
}

/* D += A B, m16n8k16. */
template <class T> static __device__ __forceinline__ void fb_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    if (fb_element<T>::dtype == FB_BF16) ptx::mma_m16n8k16_bf16(d, a, b);
    else ptx::mma_m16n8k16_f16(d, a, b);
}

/* Where piece i (16 bytes, 8 columns) of lane t stands in a token's 256 bytes, so that the eight lanes that read together, four of one
 * token and four of the next, are in all banks. */
static __device__ __forceinline__ int fb_x_piece(int token, int i, int t) { return ((4 * i + t) ^ (token % 2 * 4)) * 16; }

/* ---- decode ------------------------------------------------------------------------------------------------------------- */

/* Byte `byte` of word (known to the compiler once loops are unrolled): its two weights in fp32.  copy: 8 * (lane % 16). */
template <bool ZERO>
static __device__ __forceinline__ float2 fb_decode_values(const unsigned char *table, uint32_t copy, uint32_t word, int byte, float2 scale)
{
    const uint32_t at = (byte == 0 ? word << 7 : word >> (8 * byte - 7)) & 0x7f80;
    float2 v = *(const float2 *)(table + (at | copy));
    if (ZERO) v.x = __fsub_rn(v.x, scale.y), v.y = __fsub_rn(v.y, scale.y);
    return make_float2(__fmul_rn(v.x, scale.x), __fmul_rn(v.y, scale.x));
}
/* Rounded and side by side. */
template <class T, bool ZERO, int BYTE>
static __device__ __forceinline__ uint32_t fb_decode_pair(const unsigned char *table, uint32_t copy, uint32_t word, float2 scale)
{
    const float2 v = fb_decode_values<ZERO>(table, copy, word, BYTE, scale);
    return fb_pair<T>(v.x, v.y);
}

/* 8 weights of row g (word `upper`) and of row g + 8 (`lower`) are two A fragments.  Lane t of a quad holds 4 adjacent k of each
 * fragment: any order of k will do if the other operand has the same one.
 *
 *      fragment 0: bytes 0, 1 (k 0 ... 3)     fragment 1: bytes 2, 3 (k 4 ... 7)        scale: (scale, zero point) of each row */
template <class T, bool ZERO>
static __device__ __forceinline__ void fb_decode_fragments(const unsigned char *table, uint32_t copy, uint32_t upper, uint32_t lower,
                                                           float2 upper_scale, float2 lower_scale, uint32_t (&first)[4],
                                                           uint32_t (&second)[4])
{
    first[0] = fb_decode_pair<T, ZERO, 0>(table, copy, upper, upper_scale);
    first[1] = fb_decode_pair<T, ZERO, 0>(table, copy, lower, lower_scale);
    first[2] = fb_decode_pair<T, ZERO, 1>(table, copy, upper, upper_scale);
    first[3] = fb_decode_pair<T, ZERO, 1>(table, copy, lower, lower_scale);
    second[0] = fb_decode_pair<T, ZERO, 2>(table, copy, upper, upper_scale);
    second[1] = fb_decode_pair<T, ZERO, 2>(table, copy, lower, lower_scale);
    second[2] = fb_decode_pair<T, ZERO, 3>(table, copy, upper, upper_scale);
    second[3] = fb_decode_pair<T, ZERO, 3>(table, copy, lower, lower_scale);
}

/* ---- scales: loaded early, decoded late ------------------------------------------------------------------------------------ */

/* What a block's scale is made of, as it comes from memory. */
struct fb_raw_scale {
    float absmax; /* or nested_absmax */
    uint32_t code, zero;
};
static __device__ __forceinline__ fb_raw_scale fb_load_scale(const fb_scales &s, int64_t block)
{
    fb_raw_scale r = {0, 0, 0};
    if (s.absmax) {
        r.absmax = s.absmax[block];
    } else {
        r.code = s.absmax_codes[block];
        r.absmax = s.nested_absmax[block / FB_NESTED_BLOCK];
    }
    if (s.zero_points) r.zero = s.zero_points[block];
    return r;
}
/* (scale, zero point); offset: *nested_offset, or anything without double quantization. */
static __device__ __forceinline__ float2 fb_finish_scale(const fb_scales &s, const fb_raw_scale &r, const float *map, float offset)
{
    const float scale = s.absmax ? r.absmax : __fadd_rn(__fmul_rn(map[r.code], r.absmax), offset);
    return make_float2(scale, (float)r.zero);
}

/* ---- the product of low rank, straight from global memory --------------------------------------------------------------------- */

/* Elements k ... k + 3 of a row of p [rows, rank], zeros beyond its ends. */
template <class T>
static __device__ __forceinline__ uint2 fb_low_rank_four(const void *p, int64_t row, int64_t rows, int rank, int k, bool wide)
{
    if (row >= rows || k >= rank) return make_uint2(0, 0);
    const T *at = (const T *)p + row * rank + k;
    if (wide) return *(const uint2 *)at;
    return make_uint2(fb_raw_word(at, 0, rank - k), fb_raw_word(at, 2, rank - k));
}
static __device__ __forceinline__ bool fb_low_rank_wide(const void *p, int rank) { return rank % 4 == 0 && (size_t)p % 8 == 0; }

/* acc[r][j] += B [16 rows of tile r] * U^T [8 tokens of octet j], before the 4-bit loop.  row, token: of this lane's quad
 * (g = lane / 4) in tile 0 and octet 0.  part of parts: every parts-th 16 of the rank, where warps share the sum. */
template <class T, int RT, int TT>
static __device__ __forceinline__ void fb_low_rank_prologue(const void *u, const void *b, int rank, int64_t m, int64_t n, int64_t row,
                                                            int64_t token, float (&acc)[RT][TT][4], int part = 0, int parts = 1)
{
    const bool wide_b = fb_low_rank_wide(b, rank), wide_u = fb_low_rank_wide(u, rank);
    for (int k = 16 * part + (int)threadIdx.x % 4 * 4; k < ((rank + 15) & ~15); k += 16 * parts) {
        uint32_t a[RT][4];
#pragma unroll
        for (int r = 0; r < RT; r++) {
            const uint2 upper = fb_low_rank_four<T>(b, row + 16 * r, n, rank, k, wide_b),
                        lower = fb_low_rank_four<T>(b, row + 16 * r + 8, n, rank, k, wide_b);
            a[r][0] = upper.x, a[r][1] = lower.x, a[r][2] = upper.y, a[r][3] = lower.y;
        }
#pragma unroll
        for (int j = 0; j < TT; j++) {
            const uint2 v = fb_low_rank_four<T>(u, token + 8 * j, m, rank, k, wide_u);
            const uint32_t x[2] = {v.x, v.y};
#pragma unroll
            for (int r = 0; r < RT; r++) fb_mma<T>(acc[r][j], a[r], x);
        }
    }
}

#endif
