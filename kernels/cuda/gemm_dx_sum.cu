/* gemm_dx_sum.cu — dX [M, K] = the splits' sums in their order (+ U B where dropout keeps) (+ dX), rounded once.
 *
 * Reads 4 splits bytes an output, mostly out of L2, where gemm_dx_small and gemm_dx_tile have just left them.  A launch of its own,
 * because the last block to finish could add up only after an atomic on a counter that someone has set to zero before.
 * Four neighbours a thread: 16 bytes of sums a load.  The low-rank term (small M alone: the tiles have it in their accumulators) is
 * rank multiply-adds an output.
 */
#include "gemm_dx.cuh"

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ void add_low_rank(const fb_product &p, fb_dtype t, bool wide, int64_t i, float (&sum)[4])
{
    const int64_t m = i / p.k, k = i % p.k;
    float term[4] = {0, 0, 0, 0};
    for (int r = 0; r < p.rank; r++) {
        float u = fb_half_bits_to_float(((const uint16_t *)p.u)[m * p.rank + r], t), b[4];
        fb_unpack_4(fb_load_4(p.b, t, r * p.k + k, p.rank * p.k, wide), t, b);
#pragma unroll
        for (int j = 0; j < 4; j++) term[j] = __fmaf_rn(u, b[j], term[j]);
    }
    const uint32_t kept = p.threshold ? fb_dropout_keeps_4(p.seed, p.threshold, i / 4) : 15;
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (kept >> j & 1) sum[j] = term[j];
}

__global__ void __launch_bounds__(kThreads) gemm_dx_sum(const fb_product p, fb_dtype t, bool low_rank, bool wide_b)
{
    const int64_t n = p.m * p.k, stride = (int64_t)gridDim.x * kThreads * 4;
    for (int64_t i = ((int64_t)blockIdx.x * kThreads + threadIdx.x) * 4; i < n; i += stride) {
        float sum[4] = {0, 0, 0, 0};
        if (low_rank) add_low_rank(p, t, wide_b, i, sum);
#pragma unroll 4
        for (int s = 0; s < p.splits; s++) {
            const float4 v = *(const float4 *)(p.partial + s * n + i);
            sum[0] = __fadd_rn(sum[0], v.x), sum[1] = __fadd_rn(sum[1], v.y);
            sum[2] = __fadd_rn(sum[2], v.z), sum[3] = __fadd_rn(sum[3], v.w);
        }
        if (p.accumulate) {
            float old[4];
            fb_unpack_4(fb_load_4(p.y, p.y_dtype, i, n, true), p.y_dtype, old);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] = __fadd_rn(sum[j], old[j]);
        }
        fb_store_4(p.y, p.y_dtype, i, n, true, sum);
    }
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_dx_sum)(const fb_gemm_call *c, int splits, bool low_rank)
{
    fb_product p = fb_product_of(*c);
    p.splits = splits;
    p.partial = (float *)c->ctx->workspace;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(*c, true, fb_dx_partial_bytes(c->w, c->m, splits), all);
    const fb_grid grid = fb_plain_grid(fb_ceil_div(p.m * p.k, 4 * kThreads), kThreads);
    return FB_LAUNCH(c->ctx, (gemm_dx_sum), grid, all, p, c->x_dtype, low_rank && p.rank, fb_wide_4(p.b, c->x_dtype));
}
