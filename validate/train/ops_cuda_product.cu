/* ops_cuda_product.cu — a dense product of fp32 matrices: C (+)= alpha op(A) op(B).
 *
 * A block has 64 x 64 of C, a thread 4 x 4; both operands come 16 deep through shared memory, laid out so that a thread's four are
 * one load. fp32 arithmetic, no tensor cores (their TF32 would round the inputs to 11 bits). A thread adds along k in its
 * order: the bits depend on nothing but the values.
 */
#include "ops_cuda.cuh"

namespace {

constexpr int kTile = 64, kDeep = 16, kOwn = 4, kPitch = kTile + 4; /* rows stay on 16 bytes */
static_assert(kTile / kOwn * (kTile / kOwn) == kThreads, "a thread has 4 x 4");

/* tile[l][r] = element (first + r, deep + l) of op(m) [rows, k]. ALONG_K: k is what is contiguous; neighbouring threads read neighbours. */
template <bool ALONG_K>
__device__ __forceinline__ void load_tile(const float *m, int64_t rows, int64_t k, int64_t first, int64_t deep, float (&tile)[kDeep][kPitch])
{
#pragma unroll
    for (int step = 0; step < kTile * kDeep / kThreads; step++) {
        const int at = step * kThreads + (int)threadIdx.x, l = ALONG_K ? at % kDeep : at / kTile, r = ALONG_K ? at / kDeep : at % kTile;
        const int64_t row = first + r, column = deep + l;
        tile[l][r] = row < rows && column < k ? m[ALONG_K ? row * k + column : column * rows + row] : 0.0f;
    }
}

template <bool TA, bool TB>
__global__ void __launch_bounds__(kThreads)
multiply(int64_t m, int64_t n, int64_t k, float alpha, const float *a, const float *b, float *c, bool accumulate)
{
    FB_SHARED(float, left, [kDeep][kPitch]);
    FB_SHARED(float, right, [kDeep][kPitch]);
    const int64_t across = fb_ceil_div(n, kTile);
    const int own_row = (int)threadIdx.x / (kTile / kOwn) * kOwn, own_column = (int)threadIdx.x % (kTile / kOwn) * kOwn;
    LM_FOR_ROWS(block, fb_ceil_div(m, kTile) * across)
    {
        const int64_t top = block / across * kTile, begin = block % across * kTile;
        float sum[kOwn][kOwn] = {};
        for (int64_t deep = 0; deep < k; deep += kDeep) {
            load_tile<!TA>(a, m, k, top, deep, left);
            load_tile<TB>(b, n, k, begin, deep, right);
            __syncthreads();
#pragma unroll
            for (int l = 0; l < kDeep; l++) {
                const float4 x = *(const float4 *)&left[l][own_row], y = *(const float4 *)&right[l][own_column];
                const float xs[kOwn] = {x.x, x.y, x.z, x.w}, ys[kOwn] = {y.x, y.y, y.z, y.w};
#pragma unroll
                for (int i = 0; i < kOwn; i++)
#pragma unroll
                    for (int j = 0; j < kOwn; j++) sum[i][j] = __fmaf_rn(xs[i], ys[j], sum[i][j]);
            }
            __syncthreads(); /* before the next come */
        }
#pragma unroll
        for (int i = 0; i < kOwn; i++)
#pragma unroll
            for (int j = 0; j < kOwn; j++) {
                const int64_t row = top + own_row + i, column = begin + own_column + j;
                if (row >= m || column >= n) continue;
                float *to = c + row * n + column;
                *to = accumulate ? __fmaf_rn(alpha, sum[i][j], *to) : alpha * sum[i][j];
            }
    }
}

} // namespace

extern "C" fb_status LM_CUDA(product)(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a,
                                      const float *b, float *c, bool accumulate)
{
    const fb_operand operands[] = {lm_in(a, m * k, "a"), lm_in(b, k * n, "b"), lm_out(c, m * n, "c")};
    const fb_grid grid = lm_rows(fb_ceil_div(m, kTile) * fb_ceil_div(n, kTile));
    const float factor = (float)alpha;
    if (ta && tb) return FB_LAUNCH(ctx, (multiply<true, true>), grid, operands, m, n, k, factor, a, b, c, accumulate);
    if (ta) return FB_LAUNCH(ctx, (multiply<true, false>), grid, operands, m, n, k, factor, a, b, c, accumulate);
    if (tb) return FB_LAUNCH(ctx, (multiply<false, true>), grid, operands, m, n, k, factor, a, b, c, accumulate);
    return FB_LAUNCH(ctx, (multiply<false, false>), grid, operands, m, n, k, factor, a, b, c, accumulate);
}
