/* gemm_split.cu — y = the sum of split-K's parts, in ascending order (+ bias).
 *
 * Moves 4 splits + y_size bytes an element; splits - 1 additions.  The parts were just written: they come from L2.
 *
 *   v1  four elements a thread, all parts' loads before the first addition
 *
 *      part 0   | t0 t0 t0 t0 | t1 t1 t1 t1 | ...        m n elements
 *      part 1   | t0 t0 t0 t0 | ...                      y = ((part 0 + part 1) + part 2) ... + bias
 */
#include "gemm_split.cuh"

namespace {

constexpr int kThreads = 256;

struct Sum {
    const float *partial;
    int64_t count, columns; /* of y */
    const void *bias;
    void *y;
    int splits;
    fb_dtype bias_dtype, y_dtype;
    bool wide;
};

__global__ void __launch_bounds__(kThreads) sum_parts(const Sum s)
{
    const int64_t stride = (int64_t)gridDim.x * kThreads * 4;
    for (int64_t i = ((int64_t)blockIdx.x * kThreads + threadIdx.x) * 4; i < s.count; i += stride) {
        float v[4], more[4];
        fb_unpack_4(fb_load_4(s.partial, FB_F32, i, s.count, s.wide), FB_F32, v);
#pragma unroll 4
        for (int part = 1; part < s.splits; part++) {
            fb_unpack_4(fb_load_4(s.partial + part * s.count, FB_F32, i, s.count, s.wide), FB_F32, more);
#pragma unroll
            for (int e = 0; e < 4; e++) v[e] = __fadd_rn(v[e], more[e]);
        }
        if (s.bias) {
            int64_t column = i % s.columns;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float b = s.bias_dtype == FB_F32 ? ((const float *)s.bias)[column]
                                                       : fb_half_bits_to_float(((const uint16_t *)s.bias)[column], s.bias_dtype);
                v[e] = __fadd_rn(v[e], b);
                column = column + 1 == s.columns ? 0 : column + 1;
            }
        }
        fb_store_4(s.y, s.y_dtype, i, s.count, s.wide, v);
    }
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_sum_parts)(const fb_gemm_call *c, int splits)
{
    const int64_t columns = c->w->rows, count = c->m * columns;
    const Sum s = {(const float *)c->ctx->workspace, count, columns, c->bias, c->y, splits, c->x_dtype, c->y_dtype,
                   count % 4 == 0 && fb_wide(c->ctx->workspace, 16) && fb_wide_4(c->y, c->y_dtype)};
    const fb_operand all[] = {{c->ctx->workspace, (size_t)splits * (size_t)count * sizeof(float), "workspace", false},
                              {c->bias, s.bias ? (size_t)columns * fb_dtype_size(c->x_dtype) : 0, "bias", false},
                              {c->y, (size_t)count * fb_dtype_size(c->y_dtype), "y", true}};
    return FB_LAUNCH(c->ctx, (sum_parts), fb_plain_grid(fb_ceil_div(count, 4 * kThreads), kThreads), all, s);
}
