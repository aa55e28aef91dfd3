/* ops_cuda_elements.cu — what treats each element, pair or row alone: RoPE, SwiGLU, additions, dropout.
 *
 * All memory-bound: rope reads and writes its tensor once, swiglu 12 bytes an element, its gradient 20, add 12, dropout 8 and
 * 12. A thread has an element, a pair that turns, or the four elements that share their random words.
 */
#include "dropout.h"
#include "ops_cuda.cuh"

namespace {

__global__ void __launch_bounds__(kThreads)
turn_pairs(const float *turns, int64_t max_seq, int64_t pairs, int64_t seq, int64_t heads, int64_t half, float sign, float *x)
{
    LM_FOR_EACH(pair, pairs)
    {
        const int64_t i = pair % half, head = pair / half, t = head / heads % seq;
        const float c = turns[t * half + i], s = sign * turns[(max_seq + t) * half + i];
        float *u = x + head * 2 * half + i, *v = u + half;
        const float a = *u, b = *v;
        *u = a * c - b * s;
        *v = b * c + a * s;
    }
}

__global__ void __launch_bounds__(kThreads) gate_forward(const float *gate, const float *up, int64_t n, float *out)
{
    LM_FOR_EACH(i, n) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

__global__ void __launch_bounds__(kThreads)
gate_backward(const float *dout, const float *gate, const float *up, int64_t n, float *dgate, float *dup)
{
    LM_FOR_EACH(i, n)
    {
        const float g = gate[i], u = up[i], d = dout[i], s = 1.0f / (1.0f + expf(-g));
        dgate[i] = d * u * (s + g * s * (1.0f - s));
        dup[i] = d * (g * s);
    }
}

__global__ void __launch_bounds__(kThreads) add_elements(const float *x, int64_t n, float *y) { LM_FOR_EACH(i, n) y[i] += x[i]; }

__global__ void __launch_bounds__(kThreads) add_sums(const float *x, float mean, int64_t m, int64_t n, int64_t k, float *y)
{
    FB_SHARED(float, partial, [kWarps]);
    LM_FOR_ROWS(row, m)
    {
        float sum = 0;
        for (int64_t l = threadIdx.x; l < k; l += kThreads) sum += x[row * k + l];
        sum = mean * lm_block_sum(sum, partial);
        for (int64_t j = threadIdx.x; j < n; j += kThreads) y[row * n + j] += sum;
    }
}

/* ADD: y += x where x is kept; else y = x, or 0 where it is not. */
template <bool ADD> __global__ void __launch_bounds__(kThreads) keep_elements(const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    LM_FOR_EACH(quad, (n + 3) / 4)
    {
        const fb_philox words = fb_dropout_words(seed, (uint64_t)quad);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int64_t i = 4 * quad + j;
            if (i >= n) break;
            const bool kept = words.v[j] >= threshold;
            if (!ADD) y[i] = kept ? x[i] : 0.0f;
            else if (kept) y[i] += x[i];
        }
    }
}

template <bool ADD> fb_status keep(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    const fb_operand operands[] = {lm_in(x, n, "x"), lm_out(y, n, "y")};
    return FB_LAUNCH(ctx, (keep_elements<ADD>), lm_each(fb_ceil_div(n, 4)), operands, x, n, threshold, seed, y);
}

} // namespace

extern "C" fb_status LM_CUDA(rope)(fb_context *ctx, const float *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads,
                                   int64_t head_dim, bool back, float *x)
{
    const int64_t half = head_dim / 2, pairs = batch * seq * heads * half;
    const fb_operand operands[] = {lm_in(turns, 2 * max_seq * half, "turns"), lm_out(x, 2 * pairs, "x")};
    return FB_LAUNCH(ctx, (turn_pairs), lm_each(pairs), operands, turns, max_seq, pairs, seq, heads, half, back ? -1.0f : 1.0f, x);
}

extern "C" fb_status LM_CUDA(swiglu)(fb_context *ctx, const float *gate, const float *up, int64_t n, float *out)
{
    const fb_operand operands[] = {lm_in(gate, n, "gate"), lm_in(up, n, "up"), lm_out(out, n, "out")};
    return FB_LAUNCH(ctx, (gate_forward), lm_each(n), operands, gate, up, n, out);
}

extern "C" fb_status LM_CUDA(swiglu_backward)(fb_context *ctx, const float *dout, const float *gate, const float *up, int64_t n, float *dgate,
                                              float *dup)
{
    const fb_operand operands[] = {lm_in(dout, n, "dout"), lm_in(gate, gate == dgate ? 0 : n, "gate"), lm_in(up, up == dup ? 0 : n, "up"),
                                   lm_out(dgate, n, "dgate"), lm_out(dup, n, "dup")};
    return FB_LAUNCH(ctx, (gate_backward), lm_each(n), operands, dout, gate, up, n, dgate, dup);
}

extern "C" fb_status LM_CUDA(add)(fb_context *ctx, const float *x, int64_t n, float *y)
{
    const fb_operand operands[] = {lm_in(x, n, "x"), lm_out(y, n, "y")};
    return FB_LAUNCH(ctx, (add_elements), lm_each(n), operands, x, n, y);
}

extern "C" fb_status LM_CUDA(add_row_sums)(fb_context *ctx, const float *x, double mean, int64_t m, int64_t n, int64_t k, float *y)
{
    const fb_operand operands[] = {lm_in(x, m * k, "x"), lm_out(y, m * n, "y")};
    return FB_LAUNCH(ctx, (add_sums), lm_rows(m), operands, x, (float)mean, m, n, k, y);
}

extern "C" fb_status LM_CUDA(drop)(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *z)
{
    return keep<false>(ctx, x, n, threshold, seed, z);
}

extern "C" fb_status LM_CUDA(add_kept)(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    return keep<true>(ctx, x, n, threshold, seed, y);
}
