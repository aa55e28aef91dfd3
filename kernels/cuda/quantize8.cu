/* quantize8.cu — 8-bit blockwise codes with the dynamic maps, both ways (reference/quantize8.c); and with an offset taken off
 * first or added last, the second level of double quantization (reference/double_quantize.c).
 *
 * Moves, per element: quantize 2 or 4 bytes in, 1 out, 4/B of absmax; dequantize the reverse. About 11 operations an element
 * to quantize, 3 to dequantize. Memory-bound: 64 M bf16 elements take no less than 47.0 us at 4.3 TB/s either way.
 *
 * H200, 64 M bf16 elements, block 256:
 *
 *   v1  nearest code from the logarithm, tables of 128 bytes an entry without bank conflicts (32 KiB). 146 us, 1.39 TB/s: 46
 *       instructions an element. dequantize8 58 us, 3.5 TB/s
 *   v2  nearest code from one look-up and one addition (codes8.cuh), 6 or 12 KiB of table; scales by one lane of four, the next
 *       tile on its way (blockwise.cuh): 58.8 us, 3.44 TB/s (before a correction of signs); the unsigned map 57.2. 3.4 wavefronts
 *       a look-up and 2.7 instructions a clock together bind
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/bin/test_fourbit_gpu --backend cuda --filter blockwise8. on a GPU.
 */
#include "blockwise.cuh"
#include "codes8.cuh"
#include "cuda_ops.h"

namespace {

/* ---- quantize ------------------------------------------------------------------------------------------------ */

/* Elements first ... of a tile that has `valid`; OFFSET: less the offset, and zeros past the end less nothing. */
template <class T, bool OFFSET>
__device__ __forceinline__ void unpack_less(uint4 raw, float offset, int first, int valid, float (&x)[fb_tile<T>::V])
{
    fb_unpack(raw, x, (T *)nullptr);
#pragma unroll
    for (int k = 0; k < fb_tile<T>::V && OFFSET; k++) x[k] = first + k < valid ? __fsub_rn(x[k], offset) : 0.0f;
}
template <class T, bool OFFSET> __device__ __forceinline__ uint32_t largest(uint4 raw, float offset, int first, int valid)
{
    if (!OFFSET) return fb_largest_magnitude<T>(raw);
    float x[fb_tile<T>::V];
    uint32_t most = 0;
    unpack_less<T, OFFSET>(raw, offset, first, valid, x);
#pragma unroll
    for (int k = 0; k < fb_tile<T>::V; k++) most = fb_larger<float>()(most, __float_as_uint(x[k]) & 0x7fffffffu);
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

/* Of load j. TINY: a block of the tile is tiny or zero. */
template <class T, int MAP, bool OFFSET, bool TINY>
__device__ __forceinline__ void codes_of(uint4 raw, float offset, int valid, const fb_magnitude &mine, int j,
                                         const uint32_t *buckets, uint32_t (&word)[fb_tile<T>::V / 4])
{
    constexpr int V = fb_tile<T>::V;
    float x[V], y[V];
    const fb_magnitude m = {TINY ? fb_of_load<T>(mine.absmax, j) : 1.0f, fb_of_load<T>(mine.inverse, j),
                            TINY && fb_of_load<T>((int)mine.tiny, j)};
    unpack_less<T, OFFSET>(raw, offset, (int)fb_tile_index<T>(0, j, (int)threadIdx.x % FB_WARP), valid, x);
    fb_scaled<V>(x, m, y);
#pragma unroll
    for (int k = 0; k < V; k += 4) word[k / 4] = fb_codes8<MAP>(y + k, buckets);
#pragma unroll
    for (int k = 0; k < V / 4 && TINY; k++)
        if (m.absmax == 0) word[k] = 0; /* a NaN's code is 0 */
}

/* A warp stores 256 or 128 bytes of a load's codes. */
__device__ __forceinline__ void store_codes(uint8_t *codes, int j, const uint32_t (&word)[2])
{
    ((uint2 *)codes)[j * FB_WARP + (int)threadIdx.x % FB_WARP] = make_uint2(word[0], word[1]);
}
__device__ __forceinline__ void store_codes(uint8_t *codes, int j, const uint32_t (&word)[1])
{
    ((uint32_t *)codes)[j * FB_WARP + (int)threadIdx.x % FB_WARP] = word[0];
}

/* OFFSET: the offset is *offset_word. */
template <class T, int MAP, bool OFFSET>
__global__ void __launch_bounds__(FB_TILE_THREADS, fb_tile_blocks<T>)
quantize8_tiles(const T *src, int64_t n, int log2_block, bool wide_src, bool wide_codes, const float *offset_word,
                uint8_t *codes, float *absmax, unsigned long long *nonfinite)
{
    constexpr int L = fb_tile<T>::L, V = fb_tile<T>::V;
    FB_SHARED(uint4, pieces, [fb_tile_pieces<T>]);
    FB_SHARED(uint32_t, buckets, [fb_buckets8<MAP>::words]);
    FB_SHARED(uint32_t, partial, [FB_TILE_WARPS]);
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    const fb_next_tile<T> next = fb_make_next_tile(pieces, src, n, wide_src);
    const int64_t step = (int64_t)gridDim.x * (FB_TILE_WARPS * FB_TILE);
    int64_t begin = ((int64_t)blockIdx.x * FB_TILE_WARPS + warp) * FB_TILE;
    next.fetch(begin);
    const float offset = OFFSET ? *offset_word : 0.0f;
    fb_load_buckets8<MAP>(buckets);
    __syncthreads();

    for (; begin - warp * FB_TILE < n; begin += step) {
        if (begin >= n && 1 << log2_block <= FB_TILE) return; /* larger blocks: other warps wait for this one */
        const int valid = fb_tile_valid(begin, n);
        uint4 raw[L];
        uint32_t most[L];
        next.take(begin, valid, raw);
#pragma unroll
        for (int j = 0; j < L; j++) most[j] = largest<T, OFFSET>(raw[j], offset, (int)fb_tile_index<T>(0, j, lane), valid);
        const uint32_t magnitude = fb_of_halves<T>(fb_reduce_blocks<T>(most, log2_block, partial, fb_larger<T>()));
        const fb_magnitude mine = fb_magnitude_of(__uint_as_float(magnitude));
        next.fetch(begin + step); /* the magnitudes are known: the pieces have been read */
        const bool bad = magnitude >= 0x7f800000u, special = __any_sync(FB_ALL_LANES, bad || mine.tiny);
        if (special && __any_sync(FB_ALL_LANES, bad)) report_first<T, L>(raw, begin, n, nonfinite);
#pragma unroll
        for (int j = 0; j < L; j++) {
            uint32_t word[V / 4];
            if (special) codes_of<T, MAP, OFFSET, true>(raw[j], offset, valid, mine, j, buckets, word);
            else codes_of<T, MAP, OFFSET, false>(raw[j], offset, valid, mine, j, buckets, word);
            if (wide_codes && valid == FB_TILE) {
                store_codes(codes + begin, j, word);
                continue;
            }
            const int i = (int)fb_tile_index<T>(0, j, lane);
#pragma unroll
            for (int k = 0; k < V; k++)
                if (i + k < valid) codes[begin + i + k] = (uint8_t)(word[k / 4] >> (8 * (k % 4)));
        }
        const float value = fb_gather_blocks<T>(mine.absmax, log2_block);
        if (fb_has_block(begin, valid, log2_block)) absmax[(begin >> log2_block) + lane] = value;
    }
}

template <class T, int MAP, bool OFFSET>
fb_status quantize8_as(fb_context *ctx, const T *src, int64_t n, int32_t block_size, const float *offset, uint8_t *codes,
                       float *absmax, unsigned long long *nonfinite)
{
    const fb_operand operands[] = {{src, (size_t)n * sizeof(T), "src", false},
                                   {offset, offset ? sizeof *offset : 0, "nested_offset", false},
                                   {codes, (size_t)n, "codes", true},
                                   {absmax, (size_t)fb_block_count(n, block_size) * sizeof(float), "absmax", true},
                                   fb_nonfinite_operand(nonfinite)};
    return FB_LAUNCH(ctx, (quantize8_tiles<T, MAP, OFFSET>), fb_tile_grid<T>(n), operands, src, n, fb_log2(block_size),
                     fb_wide(src, 16), fb_wide(codes, fb_tile<T>::V), offset, codes, absmax, nonfinite);
}

template <class T>
fb_status quantize8_from(fb_context *ctx, fb_map8 map, const T *src, int64_t n, int32_t block_size, uint8_t *codes,
                         float *absmax)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    return map == FB_MAP_SIGNED ? quantize8_as<T, FB_MAP_SIGNED, false>(ctx, src, n, block_size, nullptr, codes, absmax, nonfinite)
                                : quantize8_as<T, FB_MAP_UNSIGNED, false>(ctx, src, n, block_size, nullptr, codes, absmax, nonfinite);
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
    return quantize8_as<float, FB_MAP_SIGNED, true>(ctx, src, n, FB_NESTED_BLOCK, offset, codes, absmax, nullptr);
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
