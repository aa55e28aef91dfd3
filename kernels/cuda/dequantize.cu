/* dequantize.cu — dst[i] = codebook[code i] * absmax[block of i], rounded once to the output type.
 *
 * Moves, per weight: 0.5 byte of codes, 4/B of absmax (or 1/B + 4/(256 B) doubly quantized) and 2 or 4 bytes of output; one
 * multiplication.  Memory-bound: at 4.3 TB/s and bf16, block 64, 8192 x 8192 takes no less than 40.0 us.
 *
 *   a warp's tile of 1024 weights (blockwise.cuh), loads 0 ... 3 (bf16: 8 weights, 4 bytes of codes a lane; fp32: 4 weights, 2 bytes)
 *
 *      load 0   | t0 | t1 | t2 | ... | t31 |          32 * 8 weights, 16 bytes of output a lane: whole lines
 *      load 1                               | t0 | t1 | ...
 *
 *   value of a code     a shuffle: lanes k and k + 16 keep value k, so that a code needs no mask
 *   scale of a block    lane b decodes that of the tile's block b, once; shuffles hand it out
 *
 * H200, bf16, block 64, 8192 x 8192:
 *
 *   v1  a lane decodes the scale of each of its rows; look-up in a shared table. Predicted: the copy's bandwidth. 46.1 us, 3.73
 *       TB/s; doubly quantized 53.1, INT4 with zero points 54.3: 14.5 instructions a weight and more
 *   v2  as above, 6 instructions a weight: 45.3 us, 3.80 TB/s; doubly quantized 45.9. Waiting for memory now: 78 % of it is stores,
 *       writing alone reaches 4.3 TB/s, a copy of 512 MiB 4.0 to 4.2, and a launch costs a microsecond. Slower: four tiles a
 *       warp (47.8; with zero points 47.9), a grid that walks with the next tile's codes loaded ahead (48.6); stores past L1, or
 *       first to leave L2, change nothing
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/bin/test_fourbit_gpu --backend cuda --filter dequantize. on a GPU.
 */
#include "blockwise.cuh"
#include "decode.cuh"
#include "ptx.cuh"

namespace {

constexpr int kThreads = 256;

/* Read by lane or by code: from global memory, as constant memory serves one address at a time. */
__device__ const uint32_t codebooks[(int)FB_FORMAT_COUNT * FB_CODES] = {FB_NF4_BITS, FB_FP4_BITS, FB_INT4_BITS, FB_INT4_AFFINE_BITS};
__device__ const uint32_t nested_map[FB_CODES8] = {FB_DYNAMIC_SIGNED_BITS};

template <class Out> struct Codes { /* of 16 bytes of output */
    using Word = uint32_t;
};
template <> struct Codes<float> {
    using Word = uint16_t;
};

/* fb_block_scale's and fb_block_zero's, of the tile's block `lane`. */
struct Block {
    float scale, zero;
};
__device__ __forceinline__ Block block_of(const fb_scales &s, int64_t begin, int valid, int log2_block)
{
    const int lane = (int)threadIdx.x % FB_WARP;
    const int64_t block = (begin >> log2_block) + lane;
    Block b = {0, 0};
    if (lane << log2_block >= valid) return b;
    if (s.zero_points) b.zero = (float)s.zero_points[block];
    if (s.absmax) {
        b.scale = s.absmax[block];
        return b;
    }
    const unsigned code = s.absmax_codes[block];
    const float value = s.nested_codebook ? s.nested_codebook[code] : __uint_as_float(nested_map[code]);
    b.scale = __fadd_rn(__fmul_rn(value, s.nested_absmax[(uint64_t)block / FB_NESTED_BLOCK]), s.nested_offset[0]);
    return b;
}

/* ---- output: 16 bytes, or one element ----------------------------------------------------------------------- */

/* The conversions of formats.h keep a NaN's sign; the hardware's give 0x7fff. So that a non-finite scale gives the same
 * bits everywhere, such values take the long way. */
template <bool FINITE> __device__ __forceinline__ uint32_t two(float a, float b, __nv_bfloat16 *)
{
    return FINITE ? ptx::cvt_rn_bf16x2(b, a) : fb_float_to_bf16(a) | (uint32_t)fb_float_to_bf16(b) << 16;
}
template <bool FINITE> __device__ __forceinline__ uint32_t two(float a, float b, __half *)
{
    return FINITE ? ptx::cvt_rn_f16x2(b, a) : fb_float_to_f16(a) | (uint32_t)fb_float_to_f16(b) << 16;
}
template <bool FINITE> __device__ __forceinline__ uint4 pack(const float (&v)[4], float *)
{
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
template <bool FINITE, class Half> __device__ __forceinline__ uint4 pack(const float (&v)[8], Half *type)
{
    return make_uint4(two<FINITE>(v[0], v[1], type), two<FINITE>(v[2], v[3], type), two<FINITE>(v[4], v[5], type),
                      two<FINITE>(v[6], v[7], type));
}
__device__ __forceinline__ void store_one(float *dst, float v) { *dst = v; }
__device__ __forceinline__ void store_one(__nv_bfloat16 *dst, float v) { *(uint16_t *)dst = fb_float_to_bf16(v); }
__device__ __forceinline__ void store_one(__half *dst, float v) { *(uint16_t *)dst = fb_float_to_f16(v); }

/* Weights of one load. table: lanes k and k + 16 have codebook value k, so that a shuffle takes a code with any bit above it.
 * All lanes of the warp come here. */
template <bool ZERO, int V>
__device__ __forceinline__ void decode(uint32_t codes, float table, const Block &mine, int block, float (&v)[V])
{
    const float scale = __shfl_sync(FB_ALL_LANES, mine.scale, block), zero = ZERO ? __shfl_sync(FB_ALL_LANES, mine.zero, block) : 0;
#pragma unroll
    for (int k = 0; k < V; k++) { /* byte k/2, high nibble first */
        v[k] = __shfl_sync(FB_ALL_LANES, table, (int)(codes >> (8 * (k / 2) + (k % 2 ? 0 : 4))));
        if (ZERO) v[k] = __fsub_rn(v[k], zero);
        v[k] = __fmul_rn(v[k], scale);
    }
}

template <class Out, bool ZERO, bool FINITE>
__device__ __forceinline__ void whole_tile(const typename Codes<Out>::Word (&word)[fb_tile<Out>::L], float table, const Block &mine,
                                           int log2_block, Out *dst)
{
    constexpr int V = fb_tile<Out>::V, L = fb_tile<Out>::L;
    const int lane = (int)threadIdx.x % FB_WARP;
#pragma unroll
    for (int j = 0; j < L; j++) {
        float v[V];
        decode<ZERO, V>(word[j], table, mine, (int)fb_tile_index<Out>(0, j, lane) >> log2_block, v);
        ((uint4 *)dst)[j * FB_WARP + lane] = pack<FINITE>(v, (Out *)nullptr);
    }
}

/* The last tile: element by element. */
template <class Out, bool ZERO>
__device__ void part_of_tile(const uint8_t *codes, float table, const Block &mine, int log2_block, int valid, Out *dst)
{
    constexpr int V = fb_tile<Out>::V, L = fb_tile<Out>::L;
    for (int j = 0; j < L; j++) {
        const int i = (int)fb_tile_index<Out>(0, j, (int)threadIdx.x % FB_WARP);
        uint32_t word = 0;
        float v[V];
#pragma unroll
        for (int k = 0; k < V; k += 2)
            if (i + k < valid) word |= (uint32_t)codes[(i + k) / 2] << (4 * k);
        decode<ZERO, V>(word, table, mine, i >> log2_block, v);
#pragma unroll
        for (int k = 0; k < V; k++)
            if (i + k < valid) store_one(dst + i + k, v[k]);
    }
}

/* codes aligned to a load's codes, dst to 16 bytes. ZERO: there are zero points. */
template <class Out, bool ZERO>
__global__ void __launch_bounds__(FB_TILE_THREADS, ZERO ? 4 : 5)
dequantize_tiles(const uint8_t *codes, fb_scales scales, const float *codebook, int format, int log2_block, Out *dst, int64_t n)
{
    using Word = typename Codes<Out>::Word;
    constexpr int L = fb_tile<Out>::L;
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP, code = lane % FB_CODES;
    const float table = codebook ? codebook[code] : __uint_as_float(codebooks[format * FB_CODES + code]);

    const int64_t tiles = fb_ceil_div(n, FB_TILE), stride = (int64_t)gridDim.x * FB_TILE_WARPS;
    for (int64_t tile = (int64_t)blockIdx.x * FB_TILE_WARPS + warp; tile < tiles; tile += stride) {
        const int64_t begin = tile * FB_TILE;
        const int valid = fb_tile_valid(begin, n);
        Word word[L] = {};
        if (valid == FB_TILE) {
#pragma unroll
            for (int j = 0; j < L; j++) word[j] = ((const Word *)(codes + begin / 2))[j * FB_WARP + lane];
        }
        const Block mine = block_of(scales, begin, valid, log2_block);
        const bool finite = __all_sync(FB_ALL_LANES, fabsf(mine.scale) <= 3.402823466e38f && fabsf(table) <= 3.402823466e38f);
        if (valid != FB_TILE) part_of_tile<Out, ZERO>(codes + begin / 2, table, mine, log2_block, valid, dst + begin);
        else if (finite) whole_tile<Out, ZERO, true>(word, table, mine, log2_block, dst + begin);
        else whole_tile<Out, ZERO, false>(word, table, mine, log2_block, dst + begin);
    }
}

/* Any alignment: a weight a thread and step. */
template <class Out>
__global__ void __launch_bounds__(kThreads)
dequantize_any(const uint8_t *codes, fb_scales scales, const float *codebook, int format, int log2_block, Out *dst, int64_t n)
{
    FB_SHARED(float, table, [FB_CODES]);
    fb_load_codebook(table, codebook, format);
    __syncthreads();
    const int64_t stride = (int64_t)gridDim.x * kThreads;
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n; i += stride) {
        int64_t block = i >> log2_block;
        float value = __fsub_rn(table[fb_nibble(codes, i)], fb_block_zero(scales, block));
        store_one(dst + i, __fmul_rn(value, fb_block_scale(scales, block)));
    }
}

template <class Out> fb_status dequantize_to(fb_context *ctx, const fb_matrix *w, Out *dst)
{
    const int64_t n = w->rows * w->cols;
    const int log2_block = fb_log2(w->block_size);
    fb_operand weight[FB_WEIGHT_OPERANDS], all[FB_WEIGHT_OPERANDS + 1];
    fb_weight_operands(w, weight);
    for (int i = 0; i < FB_WEIGHT_OPERANDS; i++) all[i] = weight[i];
    all[FB_WEIGHT_OPERANDS] = {dst, (size_t)n * sizeof(Out), "dst", true};

    const fb_scales scales = fb_scales_of(w);
    const uint8_t *codes = w->codes;
    const int format = (int)w->format;
    const fb_grid tiles = fb_plain_grid(fb_ceil_div(n, FB_TILE * FB_TILE_WARPS), FB_TILE_THREADS);
    if (!fb_wide(codes, sizeof(typename Codes<Out>::Word)) || !fb_wide(dst, 16))
        return FB_LAUNCH(ctx, (dequantize_any<Out>), fb_plain_grid(fb_ceil_div(n, kThreads), kThreads), all, codes, scales, w->codebook,
                         format, log2_block, dst, n);
    if (scales.zero_points)
        return FB_LAUNCH(ctx, (dequantize_tiles<Out, true>), tiles, all, codes, scales, w->codebook, format, log2_block, dst, n);
    return FB_LAUNCH(ctx, (dequantize_tiles<Out, false>), tiles, all, codes, scales, w->codebook, format, log2_block, dst, n);
}

} // namespace

extern "C" fb_status FB_CUDA(dequantize)(fb_context *ctx, const fb_matrix *w, void *dst, fb_dtype t)
{
    switch (t) {
    case FB_F32: return dequantize_to(ctx, w, (float *)dst);
    case FB_BF16: return dequantize_to(ctx, w, (__nv_bfloat16 *)dst);
    default: return dequantize_to(ctx, w, (__half *)dst);
    }
}
