/* gemm_any.cu — Y = X W^T (+ U B^T) (+ bias) for every shape, type and alignment: the path that is right where the fast ones
 * do not apply (fp32 activations; K that is no multiple of 32; pointers aligned only to their element).
 *
 * Reads the codes once for each 16 tokens, with a byte a lane and a scale a weight: bound by instructions, not by memory.
 *
 *   v1  one tile of 64 weight rows x 16 tokens a block, 32 of K a step, weights decoded into shared memory as fp32 (rounded to
 *       the activations' type), products by fmaf in ascending k: one accumulator an element, the same bits at any M
 *
 *        k   0 ... 31                      thread t: token t / 16, rows 4 (t % 16) ... + 3
 *      +-------------------+
 *      | weights  [32][72] |  64 rows      acc[4] += weights[k][4 rows] * tokens[token][k]
 *      +-------------------+
 *      | tokens   [16][33] |
 *      +-------------------+
 */
#include "gemm.cuh"

namespace {

constexpr int kThreads = 256, kRows = 64, kTokens = 16, kStep = 32, kPitch = 72; /* 72: a warp's stores hit 32 banks */

struct Tile {
    float *weights, *tokens; /* shared */
    const float *table;
    int64_t row0, token0;
};

/* 8 of a row's 32: k = quarter, quarter + 4 ... so that the four threads of a row and eight rows store to 32 banks. CODES: weights as
 * gemm_stream_sm90 has them (FB_WEIGHTS_CODES), where a pointer keeps the call from there. */
template <class T, bool CODES> __device__ __forceinline__ void fill_weights(const fb_product &p, const Tile &tile, int64_t k0)
{
    const int row = (int)threadIdx.x / 4, quarter = (int)threadIdx.x % 4;
    const int64_t n = tile.row0 + row;
    for (int j = 0; j < kStep / 4; j++) {
        const int64_t k = k0 + quarter + 4 * j;
        float v = 0;
        if (n < p.n && k < p.k) {
            const int64_t i = n * p.k + k, block = i >> p.log2_block;
            v = __fsub_rn(tile.table[fb_nibble(p.codes, i)], fb_block_zero(p.scales, block));
            v = __fmul_rn(v, fb_block_scale(p.scales, block));
            if (!CODES) v = fb_rounded_to<T>(v);
        }
        tile.weights[(quarter + 4 * j) * kPitch + row] = v;
    }
}
template <class T> __device__ __forceinline__ void fill_low_rank(const fb_product &p, const Tile &tile, int64_t k0)
{
    const int row = (int)threadIdx.x / 4, quarter = (int)threadIdx.x % 4;
    const int64_t n = tile.row0 + row;
    for (int j = 0; j < kStep / 4; j++) {
        const int64_t k = k0 + quarter + 4 * j;
        tile.weights[(quarter + 4 * j) * kPitch + row] = n < p.n && k < p.rank ? fb_element_at<T>(p.b, n * p.rank + k) : 0;
    }
}
/* x [m, k] */
template <class T>
__device__ __forceinline__ void fill_tokens(const fb_product &p, const Tile &tile, const void *x, int64_t k, int64_t k0)
{
    for (int i = (int)threadIdx.x; i < kTokens * kStep; i += kThreads) {
        const int64_t m = tile.token0 + i / kStep, at = k0 + i % kStep;
        tile.tokens[i / kStep * (kStep + 1) + i % kStep] = m < p.m && at < k ? fb_element_at<T>(x, m * k + at) : 0;
    }
}

__device__ __forceinline__ void multiply(const Tile &tile, bool mine, float (&acc)[4])
{
    const int token = (int)threadIdx.x / 16, rows = (int)threadIdx.x % 16 * 4;
    if (!mine) return;
    for (int k = 0; k < kStep; k++) {
        const float x = tile.tokens[token * (kStep + 1) + k];
        const float4 w = *(const float4 *)&tile.weights[k * kPitch + rows];
        acc[0] = __fmaf_rn(w.x, x, acc[0]);
        acc[1] = __fmaf_rn(w.y, x, acc[1]);
        acc[2] = __fmaf_rn(w.z, x, acc[2]);
        acc[3] = __fmaf_rn(w.w, x, acc[3]);
    }
}

template <class T> __device__ __forceinline__ void store(const fb_product &p, int64_t m, int64_t n0, const float (&acc)[4])
{
    for (int i = 0; i < 4; i++) {
        if (n0 + i >= p.n) return;
        const float v = p.bias ? __fadd_rn(acc[i], fb_element_at<T>(p.bias, n0 + i)) : acc[i];
        if (p.y_dtype == FB_F32) ((float *)p.y)[m * p.n + n0 + i] = v;
        else ((uint16_t *)p.y)[m * p.n + n0 + i] = (uint16_t)fb_float_to_half_bits(v, p.y_dtype);
    }
}

template <class T, bool CODES> __global__ void __launch_bounds__(kThreads) gemm_any(const fb_product p)
{
    FB_SHARED(float, weights, [kStep * kPitch]);
    FB_SHARED(float, tokens, [kTokens * (kStep + 1)]);
    FB_SHARED(float, table, [FB_CODES]);
    fb_load_codebook(table, p.codebook, p.format);
    if (CODES && threadIdx.x < FB_CODES) {
        const float factor = fb_codes16_factor((fb_format)p.format, fb_element<T>::dtype);
        table[threadIdx.x] = __fdiv_rn(fb_rounded_to<T>(__fmul_rn(table[threadIdx.x], factor)), factor);
    }

    const int64_t row_tiles = (p.n + kRows - 1) / kRows, tiles = row_tiles * ((p.m + kTokens - 1) / kTokens);
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        const Tile tile = {weights, tokens, table, t % row_tiles * kRows, t / row_tiles * kTokens};
        const int64_t m = tile.token0 + threadIdx.x / 16;
        float acc[4] = {0, 0, 0, 0};
        for (int64_t k0 = 0; k0 < p.rank; k0 += kStep) {
            __syncthreads();
            fill_low_rank<T>(p, tile, k0);
            fill_tokens<T>(p, tile, p.u, p.rank, k0);
            __syncthreads();
            multiply(tile, m < p.m, acc);
        }
        for (int64_t k0 = 0; k0 < p.k; k0 += kStep) {
            __syncthreads();
            fill_weights<T, CODES>(p, tile, k0);
            fill_tokens<T>(p, tile, p.x, p.k, k0);
            __syncthreads();
            multiply(tile, m < p.m, acc);
        }
        if (m < p.m) store<T>(p, m, tile.row0 + threadIdx.x % 16 * 4, acc);
    }
}

template <class T> fb_status launch(const fb_gemm_call &c)
{
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, 0, all);
    const int64_t tiles = fb_ceil_div(c.w->rows, kRows) * fb_ceil_div(c.m, kTokens);
    const fb_grid grid = fb_plain_grid(tiles, kThreads);
    if (FB_CUDA(gemm_weights)(c.ctx, c.device, c.w, c.m, c.x_dtype) == FB_WEIGHTS_CODES)
        return FB_LAUNCH(c.ctx, (gemm_any<T, true>), grid, all, fb_product_of(c));
    return FB_LAUNCH(c.ctx, (gemm_any<T, false>), grid, all, fb_product_of(c));
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_any)(const fb_gemm_call *c)
{
    switch (c->x_dtype) {
    case FB_F32: return launch<float>(*c);
    case FB_BF16: return launch<__nv_bfloat16>(*c);
    default: return launch<__half>(*c);
    }
}
