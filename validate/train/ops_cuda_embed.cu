/* ops_cuda_embed.cu — rows of a table by token, and their gradients back into it.
 *
 * Forward: reads and writes n d floats. Backward: one block a token of the vocabulary looks through all ids, 256 at a time, and
 * adds the rows it finds in their order: no atomics, the same bits every time. It reads vocab * n ids (from the L2), which at
 * 32000 tokens and 4096 rows is half a gigabyte; it runs only where everything is trained, on small models.
 */
#include "ops_cuda.cuh"

namespace {

__global__ void __launch_bounds__(kThreads) embed_rows(const float *table, const int32_t *ids, int64_t n, int64_t d, float *out)
{
    LM_FOR_ROWS(row, n)
    {
        const float *from = table + (int64_t)ids[row] * d;
        for (int64_t c = threadIdx.x; c < d; c += kThreads) out[row * d + c] = from[c];
    }
}

__global__ void __launch_bounds__(kThreads)
gather_gradients(const float *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *dtable)
{
    FB_SHARED(unsigned, found, [kWarps]); /* a bit for each of 256 ids */
    LM_FOR_ROWS(token, vocab)
    {
        float *row = dtable + token * d;
        for (int64_t first = 0; first < n; first += kThreads) {
            const int64_t i = first + threadIdx.x;
            const bool mine = i < n && ids[i] == token;
            const unsigned votes = __ballot_sync(FB_ALL_LANES, mine);
            if (lm_lane() == 0) found[lm_warp()] = votes;
            if (!__syncthreads_or(mine)) continue;
            for (int64_t c = threadIdx.x; c < d; c += kThreads) {
                float sum = row[c];
                for (int w = 0; w < kWarps; w++)
                    for (unsigned bits = found[w]; bits; bits &= bits - 1) sum += dout[(first + w * FB_WARP + __ffs((int)bits) - 1) * d + c];
                row[c] = sum;
            }
            __syncthreads(); /* before the next 256 are noted */
        }
    }
}

} // namespace

extern "C" fb_status LM_CUDA(embed)(fb_context *ctx, const float *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *out)
{
    const fb_operand operands[] = {lm_in(table, vocab * d, "table"), lm_in(ids, n, "ids"), lm_out(out, n * d, "out")};
    return FB_LAUNCH(ctx, (embed_rows), lm_rows(n), operands, table, ids, n, d, out);
}

extern "C" fb_status LM_CUDA(embed_backward)(fb_context *ctx, const float *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d,
                                             float *dtable)
{
    const fb_operand operands[] = {lm_in(dout, n * d, "dout"), lm_in(ids, n, "ids"), lm_out(dtable, vocab * d, "dtable")};
    return FB_LAUNCH(ctx, (gather_gradients), lm_rows(vocab), operands, dout, ids, n, vocab, d, dtable);
}
