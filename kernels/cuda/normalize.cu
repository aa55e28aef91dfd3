/* normalize.cu — a tensor to zero mean and unit variance, and back (reference/normalize.c).
 *
 * Moves, per element: three reads (mean; squared distance from the mean; the result) and a write; denormalize one and one.
 * 4 operations, two of them in double. Memory-bound: 16 M bf16 elements take no less than 31.2 us at 4.3 TB/s, and
 * 15.6 us back. On GPUs with few double units (sm_86, 89, 120: 2 a clock and multiprocessor) the sums are bound by those.
 *
 *   v1  three launches, each pass over the tensor one; sums in backend.h's order (tree_sum.cuh), partial sums where the
 *       output will be, tickets where the moments will be; no GPU has confirmed this
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/validate/test_fourbit --backend cuda --filter normalize on a GPU.
 */
#include "cuda_ops.h"
#include "tree_sum.cuh"

namespace {

constexpr int kThreads = 256, kSteps = 4;

/* dst = (src - mean) / std or, UNDO, src * std + mean; four elements a thread and step. */
template <bool UNDO>
__global__ void __launch_bounds__(kThreads)
rescale(const void *src, fb_dtype src_dtype, bool wide_src, int64_t n, const float *moments, void *dst, fb_dtype dst_dtype,
        bool wide_dst)
{
    const float mean = moments[0], std = moments[1];
    const int64_t stride = (int64_t)gridDim.x * kThreads * kSteps * 4;
    for (int64_t first = ((int64_t)blockIdx.x * kThreads * kSteps + threadIdx.x) * 4; first < n; first += stride) {
        uint4 raw[kSteps];
#pragma unroll
        for (int s = 0; s < kSteps; s++)
            if (first + s * kThreads * 4 < n) raw[s] = fb_load_4(src, src_dtype, first + s * kThreads * 4, n, wide_src);
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            const int64_t i = first + s * kThreads * 4;
            if (i >= n) break;
            float x[4];
            fb_unpack_4(raw[s], src_dtype, x);
#pragma unroll
            for (int k = 0; k < 4; k++)
                x[k] = UNDO ? __fadd_rn(__fmul_rn(x[k], std), mean) : __fdiv_rn(__fsub_rn(x[k], mean), std);
            fb_store_4(dst, dst_dtype, i, n, wide_dst, x);
        }
    }
}

template <bool UNDO>
fb_status launch_rescale(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, const float *moments, void *dst,
                         fb_dtype dst_dtype)
{
    const fb_operand operands[] = {{src, (size_t)n * fb_dtype_size(src_dtype), "src", false},
                                   {moments, 2 * sizeof *moments, "moments", false},
                                   {dst, (size_t)n * fb_dtype_size(dst_dtype), "dst", true}};
    return FB_LAUNCH(ctx, (rescale<UNDO>), fb_plain_grid(fb_ceil_div(n, 4 * kThreads * kSteps), kThreads), operands, src,
                     src_dtype, fb_wide_4(src, src_dtype), n, moments, dst, dst_dtype, fb_wide_4(dst, dst_dtype));
}

template <class T>
fb_status moments_of(fb_context *ctx, const T *src, int64_t n, double *sums, float *moments, unsigned long long *nonfinite)
{
    fb_status status = fb_zero_word(ctx, "normalize", (unsigned *)moments + 1);
    if (status == FB_OK)
        status = fb_tree_sum<T, false>(ctx, src, n, nullptr, sums, (unsigned *)moments + 1, moments, nonfinite);
    if (status == FB_OK) status = fb_zero_word(ctx, "normalize", (unsigned *)moments + 1);
    if (status == FB_OK)
        status = fb_tree_sum<T, true>(ctx, src, n, moments, sums, (unsigned *)moments + 1, moments + 1, nonfinite);
    return status;
}

} // namespace

extern "C" fb_status FB_CUDA(normalize)(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                                        fb_dtype dst_dtype, float *moments)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    double *sums = n <= FB_GROUP ? nullptr : fb_scratch_in(dst);
    if (src_dtype == FB_F32) status = moments_of(ctx, (const float *)src, n, sums, moments, nonfinite);
    else if (src_dtype == FB_BF16) status = moments_of(ctx, (const __nv_bfloat16 *)src, n, sums, moments, nonfinite);
    else status = moments_of(ctx, (const __half *)src, n, sums, moments, nonfinite);
    return status == FB_OK ? launch_rescale<false>(ctx, src, src_dtype, n, moments, dst, dst_dtype) : status;
}

extern "C" fb_status FB_CUDA(denormalize)(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n,
                                          const float *moments, void *dst, fb_dtype dst_dtype)
{
    return launch_rescale<true>(ctx, src, src_dtype, n, moments, dst, dst_dtype);
}
