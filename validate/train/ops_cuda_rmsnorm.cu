/* ops_cuda_rmsnorm.cu — RMSNorm, forward and backward.
 *
 * Forward reads x twice (the second time from the L1 or L2) and writes y; backward reads dy and x twice and adds to dx; both
 * memory-bound: 4096 rows of 4096 take no less than 31 us forward at 4.3 TB/s. A block has a row. dw, wanted only where
 * everything is trained, is a second launch: 8 strips of rows for 32 columns a block, added in their order.
 */
#include "ops_cuda.cuh"

namespace {

__global__ void __launch_bounds__(kThreads)
normalize_rows(const float *x, const float *w, int64_t n, int64_t d, float eps, float *y, float *scale)
{
    FB_SHARED(float, partial, [kWarps]);
    LM_FOR_ROWS(row, n)
    {
        const float *in = x + row * d;
        float squares = 0;
        for (int64_t c = threadIdx.x; c < d; c += kThreads) squares = __fmaf_rn(in[c], in[c], squares);
        const float s = 1.0f / sqrtf(lm_block_sum(squares, partial) / (float)d + eps);
        for (int64_t c = threadIdx.x; c < d; c += kThreads) y[row * d + c] = in[c] * s * w[c];
        if (threadIdx.x == 0) scale[row] = s;
    }
}

__global__ void __launch_bounds__(kThreads)
add_input_gradients(const float *dy, const float *x, const float *w, const float *scale, int64_t n, int64_t d, float *dx)
{
    FB_SHARED(float, partial, [kWarps]);
    LM_FOR_ROWS(row, n)
    {
        const float *g = dy + row * d, *in = x + row * d, s = scale[row];
        float dot = 0;
        for (int64_t c = threadIdx.x; c < d; c += kThreads) dot = __fmaf_rn(g[c] * w[c], in[c], dot);
        const float pull = lm_block_sum(dot, partial) / (float)d * s * s;
        for (int64_t c = threadIdx.x; c < d; c += kThreads) dx[row * d + c] += s * (g[c] * w[c] - in[c] * pull);
    }
}

/* Lane: a column; warp w: rows w, w + 8 ... */
__global__ void __launch_bounds__(kThreads)
add_weight_gradients(const float *dy, const float *x, const float *scale, int64_t n, int64_t d, float *dw)
{
    FB_SHARED(float, strip, [kWarps][FB_WARP]);
    for (int64_t first = (int64_t)blockIdx.x * FB_WARP; first < d; first += (int64_t)gridDim.x * FB_WARP) {
        const int64_t c = first + lm_lane();
        float sum = 0;
        for (int64_t row = lm_warp(); row < n && c < d; row += kWarps) sum = __fmaf_rn(dy[row * d + c] * x[row * d + c], scale[row], sum);
        strip[lm_warp()][lm_lane()] = sum;
        __syncthreads();
        if (lm_warp() == 0 && c < d) {
            for (int w = 1; w < kWarps; w++) sum += strip[w][lm_lane()];
            dw[c] += sum;
        }
        __syncthreads();
    }
}

} // namespace

extern "C" fb_status LM_CUDA(rmsnorm)(fb_context *ctx, const float *x, const float *w, int64_t n, int64_t d, double eps, float *y, float *scale)
{
    const fb_operand operands[] = {lm_in(x, n * d, "x"), lm_in(w, d, "w"), lm_out(y, n * d, "y"), lm_out(scale, n, "scale")};
    return FB_LAUNCH(ctx, (normalize_rows), lm_rows(n), operands, x, w, n, d, (float)eps, y, scale);
}

extern "C" fb_status LM_CUDA(rmsnorm_backward)(fb_context *ctx, const float *dy, const float *x, const float *w, const float *scale, int64_t n,
                                               int64_t d, float *dx, float *dw)
{
    const fb_operand operands[] = {lm_in(dy, n * d, "dy"), lm_in(x, n * d, "x"), lm_in(w, d, "w"), lm_in(scale, n, "scale"),
                                   lm_out(dx, n * d, "dx"), lm_out(dw, d, "dw")};
    fb_status status = FB_LAUNCH(ctx, (add_input_gradients), lm_rows(n), operands, dy, x, w, scale, n, d, dx);
    if (status != FB_OK || !dw) return status;
    return FB_LAUNCH(ctx, (add_weight_gradients), lm_rows(fb_ceil_div(d, FB_WARP)), operands, dy, x, scale, n, d, dw);
}
