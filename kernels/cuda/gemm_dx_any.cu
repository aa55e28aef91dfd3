/* gemm_dx_any.cu — dX [M, K] = dY [M, N] W [N, K] (+ U B) (+ dX) for every shape, type and alignment: the path that is right
 * where the fast ones do not apply (fp32 activations; K that is no multiple of 32, N of 8; pointers aligned only to their
 * element).
 *
 *   v1  element by element into shared memory, products by fmaf in ascending n: one accumulator an element
 *
 *             K ->                         block: 256 threads, 32 x 64 outputs, 2 x 4 a thread; 32 rows of W a step
 *      N  +----+----+----+----+
 *      |  | W  | 32 x 64 a step      dY 32 x 32 and W 32 x 64 in shared memory as fp32, the weights rounded to the
 *      v  +----+----+----+----+      activations' type before: products of two halves are exact in fp32, so a sum errs
 *         | dX | 32 x 64             as any fp32 sum does
 *         +----+----+----+----+
 *
 * M N K multiply-adds, 8 for 3 reads of shared memory: bound by those, a tenth of the tensor cores' rate. Each weight is
 * decoded ceil(M / 32) times.
 */
#include "gemm_dx.cuh"

namespace {

constexpr int kThreads = 256, kTileM = 32, kTileK = 64, kStep = 32, kPitch = kTileM + 1; /* written along n, read along m */

struct Tile {
    float *left, *right; /* shared: dY or U as [kStep][kPitch], W or B as [kStep][kTileK] */
    const float *table;
    int64_t m0, k0;
};

/* left [m, terms] */
template <class T>
__device__ __forceinline__ void fill_left(const fb_product &p, const Tile &tile, const void *left, int64_t terms, int64_t n0)
{
    for (int i = (int)threadIdx.x; i < kTileM * kStep; i += kThreads) {
        const int64_t m = tile.m0 + i / kStep, n = n0 + i % kStep;
        tile.left[i % kStep * kPitch + i / kStep] = m < p.m && n < terms ? fb_element_at<T>(left, m * terms + n) : 0.0f;
    }
}

/* A thread: eight neighbours of a row. They lie in a block or two, so the scale is fetched when the block changes. */
template <class T> __device__ __forceinline__ void fill_weights(const fb_product &p, const Tile &tile, int64_t n0)
{
    const int row = (int)threadIdx.x / 8, col = (int)threadIdx.x % 8 * 8;
    const int64_t n = n0 + row;
    int64_t block = -1;
    float scale = 0, zero = 0;
    for (int j = 0; j < 8; j++) {
        const int64_t k = tile.k0 + col + j, i = n * p.k + k;
        float v = 0;
        if (n < p.n && k < p.k) {
            if (i >> p.log2_block != block) {
                block = i >> p.log2_block;
                scale = fb_block_scale(p.scales, block);
                zero = fb_block_zero(p.scales, block);
            }
            v = fb_rounded_to<T>(__fmul_rn(__fsub_rn(tile.table[fb_nibble(p.codes, i)], zero), scale));
        }
        tile.right[row * kTileK + col + j] = v;
    }
}
template <class T> __device__ __forceinline__ void fill_low_rank(const fb_product &p, const Tile &tile, int64_t r0)
{
    const int row = (int)threadIdx.x / 8, col = (int)threadIdx.x % 8 * 8;
    for (int j = 0; j < 8; j++) {
        const int64_t r = r0 + row, k = tile.k0 + col + j;
        tile.right[row * kTileK + col + j] = r < p.rank && k < p.k ? fb_element_at<T>(p.b, r * p.k + k) : 0.0f;
    }
}

__device__ __forceinline__ void multiply(const Tile &tile, int64_t terms, float (&sum)[2][4])
{
    const int row = (int)threadIdx.x / 16 * 2, col = (int)threadIdx.x % 16 * 4;
    const int n_most = terms < kStep ? (int)terms : kStep;
    for (int n = 0; n < n_most; n++) {
        const float4 b = *(const float4 *)&tile.right[n * kTileK + col];
        for (int i = 0; i < 2; i++) {
            const float a = tile.left[n * kPitch + row + i];
            sum[i][0] = __fmaf_rn(a, b.x, sum[i][0]);
            sum[i][1] = __fmaf_rn(a, b.y, sum[i][1]);
            sum[i][2] = __fmaf_rn(a, b.z, sum[i][2]);
            sum[i][3] = __fmaf_rn(a, b.w, sum[i][3]);
        }
    }
}

__device__ __forceinline__ void drop(const fb_product &p, const Tile &tile, float (&sum)[2][4])
{
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) {
            const int64_t m = tile.m0 + threadIdx.x / 16 * 2 + i, k = tile.k0 + threadIdx.x % 16 * 4 + j;
            if (!fb_dropout_keeps(p.seed, p.threshold, m * p.k + k)) sum[i][j] = 0;
        }
}

__device__ __forceinline__ void store(const fb_product &p, const Tile &tile, const float (&sum)[2][4])
{
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) {
            const int64_t m = tile.m0 + threadIdx.x / 16 * 2 + i, k = tile.k0 + threadIdx.x % 16 * 4 + j, at = m * p.k + k;
            if (m >= p.m || k >= p.k) continue;
            if (p.y_dtype == FB_F32) {
                float *y = (float *)p.y + at;
                *y = p.accumulate ? __fadd_rn(sum[i][j], *y) : sum[i][j];
            } else {
                uint16_t *y = (uint16_t *)p.y + at;
                const float v = p.accumulate ? __fadd_rn(sum[i][j], fb_half_bits_to_float(*y, p.y_dtype)) : sum[i][j];
                *y = (uint16_t)fb_float_to_half_bits(v, p.y_dtype);
            }
        }
}

template <class T> __global__ void __launch_bounds__(kThreads) gemm_dx_any(const fb_product p)
{
    FB_SHARED(float, left, [kStep * kPitch]);
    FB_SHARED(float, right, [kStep * kTileK]);
    FB_SHARED(float, table, [FB_CODES]);
    fb_load_codebook(table, p.codebook, p.format);

    const int64_t tiles_m = (p.m + kTileM - 1) / kTileM, tiles = tiles_m * ((p.k + kTileK - 1) / kTileK);
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) { /* neighbours share their weights in L2 */
        const Tile tile = {left, right, table, t % tiles_m * kTileM, t / tiles_m * kTileK};
        float sum[2][4] = {};
        for (int64_t r0 = 0; r0 < p.rank; r0 += kStep) {
            __syncthreads();
            fill_left<T>(p, tile, p.u, p.rank, r0);
            fill_low_rank<T>(p, tile, r0);
            __syncthreads();
            multiply(tile, p.rank - r0, sum);
        }
        if (p.rank && p.threshold) drop(p, tile, sum);
        for (int64_t n0 = 0; n0 < p.n; n0 += kStep) {
            __syncthreads();
            fill_left<T>(p, tile, p.x, p.n, n0);
            fill_weights<T>(p, tile, n0);
            __syncthreads();
            multiply(tile, p.n - n0, sum);
        }
        store(p, tile, sum);
    }
}

template <class T> fb_status launch(const fb_gemm_call &c)
{
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, true, 0, all);
    const int64_t tiles = fb_ceil_div(c.m, kTileM) * fb_ceil_div(c.w->cols, kTileK);
    return FB_LAUNCH(c.ctx, (gemm_dx_any<T>), fb_plain_grid(tiles, kThreads), all, fb_product_of(c));
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_dx_any)(const fb_gemm_call *c)
{
    switch (c->x_dtype) {
    case FB_F32: return launch<float>(*c);
    case FB_BF16: return launch<__nv_bfloat16>(*c);
    default: return launch<__half>(*c);
    }
}
