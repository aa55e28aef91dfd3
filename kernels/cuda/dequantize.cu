/* dequantize.cu — dst[i] = codebook[code i] * absmax[block of i], rounded once to the output type.
 *
 * Moves, per weight: 0.5 byte of codes, 4/B of absmax (or 1/B + 4/(256 B) doubly quantized) and 2 or 4 bytes of output; one
 * multiplication.  Memory-bound: at 4.3 TB/s and bf16, block 64, 4096 x 4096 takes no less than 10.0 us.
 *
 *   v1  one launch; 16 bytes of output a lane and step, so that a warp stores whole 128-byte lines; four steps in flight;
 *       double quantization decoded on the way; look-up in a 16-entry shared table (conflict-free)
 *
 *   thread t of a block of 256, steps 0 ... 3 (bf16: 8 weights, 4 bytes of codes; fp32: 4 weights, 2 bytes)
 *
 *      step 0   | t0 | t1 | t2 | ... | t255 |          256 * 8 weights
 *      step 1                                | t0 | t1 | ...
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/validate/test_fourbit --backend cuda --filter dequantize on a GPU.
 */
#include "decode.cuh"

namespace {

constexpr int kThreads = 256, kSteps = 4;

template <class Out> struct Row; /* 16 bytes of output */
template <> struct Row<float> {
    static constexpr int kWeights = 4;
    using Codes = uint16_t;
};
template <> struct Row<__nv_bfloat16> {
    static constexpr int kWeights = 8;
    using Codes = uint32_t;
};
template <> struct Row<__half> {
    static constexpr int kWeights = 8;
    using Codes = uint32_t;
};

/* The conversions of formats.h keep a NaN's sign; the hardware's give 0x7fff.  So that a non-finite scale gives the same
 * bits everywhere, such values take the long way. */
__device__ __forceinline__ uint32_t two(float a, float b, bool finite, __nv_bfloat16 *)
{
    if (!finite) return fb_float_to_bf16(a) | (uint32_t)fb_float_to_bf16(b) << 16;
    return __bfloat16_as_ushort(__float2bfloat16_rn(a)) | (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(b)) << 16;
}
__device__ __forceinline__ uint32_t two(float a, float b, bool finite, __half *)
{
    if (!finite) return fb_float_to_f16(a) | (uint32_t)fb_float_to_f16(b) << 16;
    return __half_as_ushort(__float2half_rn(a)) | (uint32_t)__half_as_ushort(__float2half_rn(b)) << 16;
}
__device__ __forceinline__ void store_one(float *dst, float v) { *dst = v; }
__device__ __forceinline__ void store_one(__nv_bfloat16 *dst, float v) { *(uint16_t *)dst = fb_float_to_bf16(v); }
__device__ __forceinline__ void store_one(__half *dst, float v) { *(uint16_t *)dst = fb_float_to_f16(v); }

__device__ __forceinline__ uint4 pack(const float (&v)[4], bool, float *)
{
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
template <class Half> __device__ __forceinline__ uint4 pack(const float (&v)[8], bool finite, Half *type)
{
    return make_uint4(two(v[0], v[1], finite, type), two(v[2], v[3], finite, type), two(v[4], v[5], finite, type),
                      two(v[6], v[7], finite, type));
}

/* A row is inside one block: rows are 4 or 8 weights, blocks are 32 or more. */
template <class Out>
__device__ __forceinline__ void write_row(typename Row<Out>::Codes codes, float scale, float zero, const float *table,
                                          bool finite_table, Out *dst)
{
    constexpr int kWeights = Row<Out>::kWeights;
    float v[kWeights];
#pragma unroll
    for (int j = 0; j < kWeights; j++) { /* byte j/2, high nibble first */
        unsigned code = codes >> (8 * (j / 2) + (j % 2 ? 0 : 4)) & 15;
        v[j] = __fmul_rn(__fsub_rn(table[code], zero), scale);
    }
    bool finite = finite_table && fabsf(scale) <= 3.402823466e38f;
    *(uint4 *)dst = pack(v, finite, (Out *)nullptr);
}

/* codes aligned to a row's codes, dst to 16 bytes.  The last, short row is written weight by weight. */
template <class Out>
__global__ void __launch_bounds__(kThreads)
dequantize_rows(const uint8_t *codes, fb_scales scales, const float *codebook, int format, int log2_block, Out *dst, int64_t n)
{
    using Codes = typename Row<Out>::Codes;
    constexpr int kWeights = Row<Out>::kWeights;
    FB_SHARED(float, table, [FB_CODES]);
    fb_load_codebook(table, codebook, format);
    __syncthreads();

    const int64_t rows = n / kWeights, stride = (int64_t)gridDim.x * kThreads * kSteps;
    for (int64_t first = (int64_t)blockIdx.x * kThreads * kSteps + threadIdx.x; first < rows; first += stride) {
        Codes loaded[kSteps];
        float scale[kSteps], zero[kSteps];
#pragma unroll
        for (int s = 0; s < kSteps; s++) { /* all loads first: latency is paid once */
            int64_t row = first + s * kThreads;
            if (row >= rows) break;
            loaded[s] = ((const Codes *)codes)[row];
            int64_t block = row * kWeights >> log2_block;
            scale[s] = fb_block_scale(scales, block);
            zero[s] = fb_block_zero(scales, block);
        }
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            int64_t row = first + s * kThreads;
            if (row >= rows) break;
            write_row<Out>(loaded[s], scale[s], zero[s], table, codebook == nullptr, dst + row * kWeights);
        }
    }
    if (blockIdx.x == 0 && threadIdx.x < n % kWeights) {
        int64_t i = rows * kWeights + threadIdx.x, block = i >> log2_block;
        float value = __fsub_rn(table[fb_nibble(codes, i)], fb_block_zero(scales, block));
        store_one(dst + i, __fmul_rn(value, fb_block_scale(scales, block)));
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
    const int64_t n = w->rows * w->cols, weights = Row<Out>::kWeights;
    const bool rows = (uintptr_t)w->codes % sizeof(typename Row<Out>::Codes) == 0 && (uintptr_t)dst % 16 == 0;
    const int64_t per_block = rows ? weights * kThreads * kSteps : kThreads;
    int64_t blocks = fb_ceil_div(n, per_block);
    if (blocks > 1 << 30) blocks = 1 << 30; /* then a block takes several turns */
    int log2_block = 0;
    while (1 << log2_block < w->block_size) log2_block++;

    fb_operand weight[FB_WEIGHT_OPERANDS], all[FB_WEIGHT_OPERANDS + 1];
    fb_weight_operands(w, weight);
    for (int i = 0; i < FB_WEIGHT_OPERANDS; i++) all[i] = weight[i];
    all[FB_WEIGHT_OPERANDS] = {dst, (size_t)n * sizeof(Out), "dst", true};

    fb_grid grid = {dim3((unsigned)blocks), dim3(kThreads), 0, dim3(1)};
    fb_scales scales = fb_scales_of(w);
    const uint8_t *codes = w->codes;
    if (rows)
        return FB_LAUNCH(ctx, (dequantize_rows<Out>), grid, all, codes, scales, w->codebook, (int)w->format, log2_block, dst, n);
    return FB_LAUNCH(ctx, (dequantize_any<Out>), grid, all, codes, scales, w->codebook, (int)w->format, log2_block, dst, n);
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
