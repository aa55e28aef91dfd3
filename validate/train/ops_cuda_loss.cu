/* ops_cuda_loss.cu — cross-entropy and its gradient, in place; sums of squares for the gradient's norm.
 *
 * Cross-entropy reads a row of logits two times, three with the gradient (all but the first from the L2), and writes it once: a
 * block has a row. Sums of squares: a block has a chunk, added up in double; on GPUs with few double units (sm_86, 89, 120)
 * those bound it. The chunks' sums are added by the caller, in order.
 */
#include "ops_cuda.cuh"

namespace {

__global__ void __launch_bounds__(kThreads)
entropy_rows(float *logits, const int32_t *targets, int64_t n, int64_t vocab, float scale, float *losses)
{
    FB_SHARED(float, partial, [kWarps]);
    LM_FOR_ROWS(i, n)
    {
        float *row = logits + i * vocab;
        const int32_t target = targets[i];
        float largest = -INFINITY, sum = 0;
        for (int64_t t = threadIdx.x; t < vocab; t += kThreads) largest = fmaxf(largest, row[t]);
        largest = lm_block_max(largest, partial);
        for (int64_t t = threadIdx.x; t < vocab; t += kThreads) sum += expf(row[t] - largest);
        if (threadIdx.x == 0) losses[i] = target < 0 ? 0.0f : largest - row[target];
        sum = lm_block_sum(sum, partial); /* nobody writes a logit before all have read theirs */
        if (threadIdx.x == 0 && target >= 0) losses[i] += logf(sum);
        if (scale == 0) continue;
        const float factor = scale / sum;
        for (int64_t t = threadIdx.x; t < vocab; t += kThreads)
            row[t] = target < 0 ? 0.0f : factor * expf(row[t] - largest) - (t == target ? scale : 0.0f);
    }
}

__global__ void __launch_bounds__(kThreads) sum_squares(const float *x, int64_t n, double *sums)
{
    FB_SHARED(double, partial, [kWarps]);
    LM_FOR_ROWS(chunk, fb_ceil_div(n, LM_SQUARE_CHUNK))
    {
        const int64_t begin = chunk * LM_SQUARE_CHUNK, end = begin + LM_SQUARE_CHUNK < n ? begin + LM_SQUARE_CHUNK : n;
        double sum = 0;
        for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum = __fma_rn((double)x[i], (double)x[i], sum);
        sum = lm_block_sum(sum, partial);
        if (threadIdx.x == 0) sums[chunk] = sum;
    }
}

} // namespace

extern "C" fb_status LM_CUDA(cross_entropy)(fb_context *ctx, float *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale,
                                            float *losses)
{
    const fb_operand operands[] = {lm_out(logits, n * vocab, "logits"), lm_in(targets, n, "targets"), lm_out(losses, n, "losses")};
    return FB_LAUNCH(ctx, (entropy_rows), lm_rows(n), operands, logits, targets, n, vocab, (float)scale, losses);
}

extern "C" fb_status LM_CUDA(square_sums)(fb_context *ctx, const float *x, int64_t n, double *sums)
{
    const int64_t chunks = fb_ceil_div(n, LM_SQUARE_CHUNK);
    const fb_operand operands[] = {lm_in(x, n, "x"), lm_out(sums, chunks, "sums")};
    return FB_LAUNCH(ctx, (sum_squares), lm_rows(chunks), operands, x, n, sums);
}
