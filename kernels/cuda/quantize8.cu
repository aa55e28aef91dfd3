/* quantize8.cu — 8-bit blockwise codes with the dynamic maps, both ways (reference/quantize8.c); and with an offset taken off
 * first or added last, the second level of double quantization (reference/double_quantize.c).
 *
 * Moves, per element: quantize 2 or 4 bytes in, 1 out, 4/B of absmax; dequantize the reverse. About 22 operations an element
 * to quantize, 3 to dequantize. Memory-bound: 16 M bf16 elements take no less than 11.8 us at 4.3 TB/s either way.
 *
 *   v1  nearest code without a search and tables without bank conflicts (codes8.cuh); 32 KiB of table a block of threads, so
 *       the grid is what fits on the device and walks; 16-byte loads and stores; no GPU has confirmed this
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/validate/test_fourbit --backend cuda --filter blockwise8 on a GPU.
 */
#include "blockwise.cuh"
#include "codes8.cuh"
#include "cuda_ops.h"

namespace {

/* ---- quantize ------------------------------------------------------------------------------------------------ */

/* x - offset; NULL: x. (x - 0 is x to the bit, -0 included.) */
template <class T>
__device__ __forceinline__ void unpack_less(uint4 raw, float offset, float (&x)[fb_tile<T>::V])
{
    fb_unpack(raw, x, (T *)nullptr);
#pragma unroll
    for (int k = 0; k < fb_tile<T>::V; k++) x[k] = __fsub_rn(x[k], offset);
}

/* Of a tile that reaches past n only the elements before it count: zeros less an offset are not zeros. */
template <class T> __device__ __forceinline__ uint32_t largest(uint4 raw, float offset, int first, int valid)
{
    float x[fb_tile<T>::V];
    uint32_t most = 0;
    unpack_less<T>(raw, offset, x);
#pragma unroll
    for (int k = 0; k < fb_tile<T>::V; k++)
        if (first + k < valid) most = fb_larger()(most, __float_as_uint(x[k]) & 0x7fffffffu);
    return most;
}

template <class T, int L>
__device__ void report_first(const uint4 (&raw)[L], int64_t begin, int64_t n, unsigned long long *nonfinite)
{
    const int lane = (int)threadIdx.x % FB_WARP;
#pragma unroll
    for (int j = L - 1; j >= 0; j--) {
        float x[fb_tile<T>::V];
        fb_unpack(raw[j], x, (T *)nullptr);
        const int64_t first = fb_tile_index<T>(begin, j, lane);
#pragma unroll
        for (int k = fb_tile<T>::V - 1; k >= 0; k--)
            if (first + k < n && !fb_is_finite(x[k])) fb_report_nonfinite(nonfinite, first + k);
    }
}

/* Four codes, the first one low. */
template <int MAP>
__device__ __forceinline__ uint32_t four_codes(const float *y, float decade_scale, const float *thresholds)
{
    return fb_code8<MAP>(y[0], decade_scale, thresholds) | fb_code8<MAP>(y[1], decade_scale, thresholds) << 8 |
           fb_code8<MAP>(y[2], decade_scale, thresholds) << 16 | fb_code8<MAP>(y[3], decade_scale, thresholds) << 24;
}

/* Halves: 8 codes of each of 4 loads; pairs of lanes swap, so that the even lane has 16 codes of an even load. */
__device__ __forceinline__ void store_codes(uint8_t *codes, const uint32_t (&word)[4][2])
{
    const unsigned lane = threadIdx.x % FB_WARP;
    const bool odd = lane % 2;
#pragma unroll
    for (int q = 0; q < 4; q += 2) {
        uint32_t a = __shfl_xor_sync(FB_ALL_LANES, odd ? word[q][0] : word[q + 1][0], 1);
        uint32_t b = __shfl_xor_sync(FB_ALL_LANES, odd ? word[q][1] : word[q + 1][1], 1);
        uint4 out = odd ? make_uint4(a, b, word[q + 1][0], word[q + 1][1]) : make_uint4(word[q][0], word[q][1], a, b);
        *(uint4 *)(codes + (q + odd) * 256 + lane / 2 * 16) = out;
    }
}
/* Floats: 4 codes of each of 8 loads; four lanes swap. */
__device__ __forceinline__ void store_codes(uint8_t *codes, const uint32_t (&word)[8][1])
{
    const unsigned lane = threadIdx.x % FB_WARP;
#pragma unroll
    for (int q = 0; q < 8; q += 4) {
        uint32_t w[4] = {word[q][0], word[q + 1][0], word[q + 2][0], word[q + 3][0]};
        fb_transpose_4(w, 1);
        *(uint4 *)(codes + (q + lane % 4) * 128 + lane / 4 * 16) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

template <class T, int MAP>
__global__ void __launch_bounds__(FB_TILE_THREADS, sizeof(T) == 4 ? 1 : 2) /* fp32 spilled 60 bytes at 128 registers */
quantize8_tiles(const T *src, int64_t n, int log2_block, bool wide_src, bool wide_codes, const float *offset_word,
                uint8_t *codes, float *absmax, unsigned long long *nonfinite)
{
    constexpr int L = fb_tile<T>::L, V = fb_tile<T>::V;
    constexpr int entries = MAP == FB_MAP_SIGNED ? FB_SIGNED_THRESHOLDS : FB_UNSIGNED_THRESHOLDS;
    FB_SHARED(float, table, [entries * FB_WARP]);
    FB_SHARED(uint32_t, partial, [FB_TILE_WARPS]);
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    const float offset = offset_word ? *offset_word : 0.0f, decade_scale = fb_decade_scale<MAP>();
    fb_fill_table8(table, entries, [](int e) { return fb_threshold8<MAP>(e); });
    __syncthreads();

    const int64_t tiles = fb_ceil_div(n, FB_TILE), stride = (int64_t)gridDim.x * FB_TILE_WARPS;
    for (int64_t first = (int64_t)blockIdx.x * FB_TILE_WARPS; first < tiles; first += stride) {
        const int64_t begin = (first + warp) * FB_TILE;
        if (begin >= n && 1 << log2_block <= FB_TILE) return; /* larger blocks: other warps wait for this one */
        const int valid = n - begin >= FB_TILE ? FB_TILE : n > begin ? (int)(n - begin) : 0;
        uint4 raw[L];
        uint32_t most[L], word[L][V / 4], all = 0;
        fb_tile_load(src, begin, n, wide_src, raw);
#pragma unroll
        for (int j = 0; j < L; j++) {
            most[j] = largest<T>(raw[j], offset, (int)fb_tile_index<T>(0, j, lane), valid);
            all = fb_larger()(all, most[j]);
        }
        if (all >= 0x7f800000u) report_first<T, L>(raw, begin, n, nonfinite);
        fb_reduce_blocks<T>(most, log2_block, partial, fb_larger());
#pragma unroll
        for (int j = 0; j < L; j++) {
            float x[V], y[V];
            unpack_less<T>(raw[j], offset, x);
            fb_scaled<V>(x, fb_magnitude_of(__uint_as_float(most[j])), y);
#pragma unroll
            for (int k = 0; k < V; k += 4) {
                uint32_t four = four_codes<MAP>(y + k, decade_scale, table + lane);
                word[j][k / 4] = most[j] == 0 ? 0 : four; /* a NaN's code is 0 */
            }
        }
        if (wide_codes && valid == FB_TILE) {
            store_codes(codes + begin, word);
        } else {
#pragma unroll
            for (int j = 0; j < L; j++)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    int i = (int)fb_tile_index<T>(0, j, lane) + k;
                    if (i < valid) codes[begin + i] = (uint8_t)(word[j][k / 4] >> (8 * (k % 4)));
                }
        }
        float stored[L], value;
        int64_t block;
#pragma unroll
        for (int j = 0; j < L; j++) stored[j] = __uint_as_float(most[j]);
        if (fb_gather_blocks<T>(stored, begin, n, log2_block, value, block)) absmax[block] = value;
    }
}

template <class T, int MAP>
fb_status quantize8_as(fb_context *ctx, const T *src, int64_t n, int32_t block_size, const float *offset, uint8_t *codes,
                       float *absmax, unsigned long long *nonfinite)
{
    const fb_operand operands[] = {{src, (size_t)n * sizeof(T), "src", false},
                                   {offset, offset ? sizeof *offset : 0, "nested_offset", false},
                                   {codes, (size_t)n, "codes", true},
                                   {absmax, (size_t)fb_block_count(n, block_size) * sizeof(float), "absmax", true},
                                   fb_nonfinite_operand(nonfinite)};
    fb_grid grid = fb_resident_grid(fb_ceil_div(n, FB_TILE * FB_TILE_WARPS), 2, FB_TILE_THREADS, 0);
    return FB_LAUNCH(ctx, (quantize8_tiles<T, MAP>), grid, operands, src, n, fb_log2(block_size), fb_wide(src, 16),
                     fb_wide(codes, 16), offset, codes, absmax, nonfinite);
}

template <class T>
fb_status quantize8_from(fb_context *ctx, fb_map8 map, const T *src, int64_t n, int32_t block_size, uint8_t *codes,
                         float *absmax)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    return map == FB_MAP_SIGNED ? quantize8_as<T, FB_MAP_SIGNED>(ctx, src, n, block_size, nullptr, codes, absmax, nonfinite)
                                : quantize8_as<T, FB_MAP_UNSIGNED>(ctx, src, n, block_size, nullptr, codes, absmax, nonfinite);
}

/* ---- dequantize -------------------------------------------------------------------------------------------------- */

constexpr int kThreads = 256, kSteps = 4;

template <class Out> __device__ __forceinline__ void store_row(Out *dst, const float (&v)[4])
{
    *(uint4 *)dst = make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
template <class Out> __device__ __forceinline__ void store_row(Out *dst, const float (&v)[8])
{
    constexpr fb_dtype t = fb_element<Out>::dtype;
    *(uint4 *)dst = make_uint4(fb_join_halves(v[0], v[1], t), fb_join_halves(v[2], v[3], t), fb_join_halves(v[4], v[5], t),
                               fb_join_halves(v[6], v[7], t));
}
__device__ __forceinline__ void store_one(float *dst, float v) { *dst = v; }
template <class Half> __device__ __forceinline__ void store_one(Half *dst, float v)
{
    *(uint16_t *)dst = (uint16_t)fb_float_to_half_bits(v, fb_element<Half>::dtype);
}

/* A row is 16 bytes of output; its codes are loaded as one word or two. */
template <class Out>
__global__ void __launch_bounds__(kThreads)
dequantize8_rows(const uint8_t *codes, const float *absmax, const float *offset_word, int map, const float *own_map, int64_t n,
                 int log2_block, bool wide, Out *dst)
{
    constexpr int V = fb_element<Out>::per_16_bytes;
    FB_SHARED(float, table, [(int)FB_CODES8 * FB_WARP]);
    const float *bank = table + threadIdx.x % FB_WARP;
    fb_fill_table8(table, FB_CODES8, [=](int e) { return own_map ? own_map[e] : fb_map8_value(map, e); });
    __syncthreads();
    const float offset = offset_word ? *offset_word : 0.0f;

    const int64_t rows = wide ? n / V : 0, stride = (int64_t)gridDim.x * kThreads * kSteps;
    for (int64_t first = (int64_t)blockIdx.x * kThreads * kSteps + threadIdx.x; first < rows; first += stride) {
        uint32_t word[kSteps][V / 4];
        float scale[kSteps];
#pragma unroll
        for (int s = 0; s < kSteps; s++) { /* all loads first: latency is paid once */
            const int64_t row = first + s * kThreads;
            if (row >= rows) break;
            if (V == 8) {
                uint2 two = *(const uint2 *)(codes + row * V);
                word[s][0] = two.x, word[s][V / 4 - 1] = two.y;
            } else {
                word[s][0] = *(const uint32_t *)(codes + row * V);
            }
            scale[s] = absmax[row * V >> log2_block];
        }
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            const int64_t row = first + s * kThreads;
            if (row >= rows) break;
            float v[V];
#pragma unroll
            for (int k = 0; k < V; k++) {
                v[k] = __fmul_rn(bank[(word[s][k / 4] >> (8 * (k % 4)) & 255u) * FB_WARP], scale[s]);
                if (offset_word) v[k] = __fadd_rn(v[k], offset); /* adding 0 would turn -0 into +0 */
            }
            store_row(dst + row * V, v);
        }
    }
    for (int64_t i = rows * V + (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n; i += (int64_t)gridDim.x * kThreads) {
        float v = __fmul_rn(bank[codes[i] * FB_WARP], absmax[i >> log2_block]);
        store_one(dst + i, offset_word ? __fadd_rn(v, offset) : v);
    }
}

template <class Out>
fb_status dequantize8_to(fb_context *ctx, fb_map8 map, const float *own_map, const uint8_t *codes, const float *absmax,
                         const float *offset, int64_t n, int32_t block_size, Out *dst)
{
    constexpr int V = fb_element<Out>::per_16_bytes;
    const fb_operand operands[] = {{codes, (size_t)n, "codes", false},
                                   {absmax, (size_t)fb_block_count(n, block_size) * sizeof(float), "absmax", false},
                                   {offset, offset ? sizeof *offset : 0, "nested_offset", false},
                                   {own_map, own_map ? FB_CODES8 * sizeof(float) : 0, "nested_codebook", false},
                                   {dst, (size_t)n * sizeof(Out), "dst", true}};
    const bool wide = fb_wide(codes, V) && fb_wide(dst, 16);
    fb_grid grid = fb_resident_grid(fb_ceil_div(n, wide ? V * kThreads * kSteps : kThreads), 6, kThreads, 0);
    return FB_LAUNCH(ctx, (dequantize8_rows<Out>), grid, operands, codes, absmax, offset, (int)map, own_map, n,
                     fb_log2(block_size), wide, dst);
}

} // namespace

extern "C" fb_status FB_CUDA(quantize8)(fb_context *ctx, fb_map8 map, const void *src, fb_dtype t, int64_t n,
                                        int32_t block_size, uint8_t *codes, float *absmax)
{
    switch (t) {
    case FB_F32: return quantize8_from(ctx, map, (const float *)src, n, block_size, codes, absmax);
    case FB_BF16: return quantize8_from(ctx, map, (const __nv_bfloat16 *)src, n, block_size, codes, absmax);
    default: return quantize8_from(ctx, map, (const __half *)src, n, block_size, codes, absmax);
    }
}

extern "C" fb_status FB_CUDA(quantize8_less)(fb_context *ctx, const float *src, const float *offset, int64_t n, uint8_t *codes,
                                             float *absmax)
{
    return quantize8_as<float, FB_MAP_SIGNED>(ctx, src, n, FB_NESTED_BLOCK, offset, codes, absmax, nullptr);
}

extern "C" fb_status FB_CUDA(dequantize8)(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                                          int32_t block_size, void *dst, fb_dtype t)
{
    switch (t) {
    case FB_F32: return dequantize8_to(ctx, map, nullptr, codes, absmax, nullptr, n, block_size, (float *)dst);
    case FB_BF16: return dequantize8_to(ctx, map, nullptr, codes, absmax, nullptr, n, block_size, (__nv_bfloat16 *)dst);
    default: return dequantize8_to(ctx, map, nullptr, codes, absmax, nullptr, n, block_size, (__half *)dst);
    }
}

extern "C" fb_status FB_CUDA(decode_absmax)(fb_context *ctx, const uint8_t *absmax_codes, const float *nested_absmax,
                                            const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax)
{
    return dequantize8_to(ctx, FB_MAP_SIGNED, nested_codebook, absmax_codes, nested_absmax, nested_offset, n,
                          FB_NESTED_BLOCK, absmax);
}
