/* lora.cu — fb_lora_forward and fb_lora_backward on CUDA: in which order, with which path, and what stands where in the workspace.
 *
 *   forward    U  = f Z A^T                thin product                       Z: X, its dropped elements 0
 *              Y  = X W^T + bias + U B^T   gemm, the last term in its accumulators before the 4-bit loop
 *   backward   dU = f dY B                 thin product, into the workspace
 *              dA = dU^T Z, dB = dY^T U    thin products
 *              dX = dY W + (kept) dU A     gemm_dx, likewise
 *
 * Beside the base product's: 2 M r (N + K) flops forward, 4 M r (N + K) backward; X once more forward, X and dY once, dY once again
 * backward; A and B once or twice.  Bound by those bytes where r < 180 (an H200).  Intermediates are of rank r, but for the parts of sums
 * that are cut (lora_mma.cu).  Dropout costs a Philox group for each four elements of X a pass: recomputed, never stored.
 *
 *   workspace   | parts of whichever product runs, gemm's and gemm_dx's among them | dU [M, r], backward |
 *               one after the other in stream order, so they share the first part
 */
#include "lora.cuh"

namespace {

/* Pieces of a sum: about a block for each multiprocessor. */
int splits_of(const fb_device &device, int64_t rows, int64_t depth, int rank)
{
    return fb_splits(fb_ceil_div(rows, FB_THIN_ROWS) * fb_ceil_div(rank, fb_thin_ranks(rank)), fb_ceil_div(depth, FB_THIN_STEP), device.multiprocessors);
}

fb_status run(const fb_device &device, fb_thin_call c)
{
    c.p.splits = 1;
    if (c.p.rows == 0) return FB_OK;
    if (!FB_CUDA(lora_mma_serves)(&c)) return FB_CUDA(lora_any)(&c);
    c.p.splits = splits_of(device, c.p.rows, c.p.depth, c.p.rank);
    c.p.parts = (float *)c.ctx->workspace;
    return FB_CUDA(lora_mma)(&c);
}

size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The most that a product needs of the workspace's first part, as if tensor cores served all; dU begins there. */
size_t shared_bytes(const fb_context *ctx, const fb_device &device, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    const auto parts = [&](int64_t rows, int64_t depth) {
        return t == FB_F32 || rank % 8 ? 0 : fb_thin_parts_bytes(rows, rank, splits_of(device, rows, depth, rank));
    };
    size_t bytes;
    if (op == FB_OP_LORA_BACKWARD) {
        bytes = larger(FB_CUDA(gemm_dx_workspace)(ctx, device, w, m, t), parts(m, w->rows));
        bytes = larger(bytes, larger(parts(w->rows, m), parts(w->cols, m)));
    } else {
        bytes = larger(FB_CUDA(gemm_workspace)(ctx, device, w, m, t), parts(m, w->cols));
    }
    return (bytes + 63) / 64 * 64;
}

} // namespace

extern "C" size_t FB_CUDA(lora_workspace)(const fb_context *ctx, fb_device device, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    const size_t shared = shared_bytes(ctx, device, op, w, rank, m, t);
    return op == FB_OP_LORA_BACKWARD ? shared + (size_t)m * (size_t)rank * fb_dtype_size(t) : shared;
}

extern "C" fb_status FB_CUDA(lora_forward)(fb_context *ctx, fb_device device, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                                           fb_dtype t, const void *bias, void *y, fb_dtype y_dtype, void *u)
{
    fb_thin_call c = {ctx, t, {}, "x", "a", "u"};
    c.p.wide = x, c.p.thin = lora->a, c.p.out = u;
    c.p.rows = m, c.p.depth = w->cols, c.p.rank = lora->rank;
    c.p.factor = fb_lora_factor(lora);
    c.p.threshold = fb_dropout_threshold(lora->dropout), c.p.seed = lora->seed;
    c.p.out_dtype = t;
    const fb_status status = run(device, c);
    if (status != FB_OK || w->rows == 0) return status;
    const fb_gemm_call base = {ctx, device, w, m, x, t, bias, y, y_dtype, false, {u, lora->b, lora->rank, 0, 0}};
    return FB_CUDA(gemm)(&base);
}

extern "C" fb_status FB_CUDA(lora_backward)(fb_context *ctx, fb_device device, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                                            const void *u, const void *dy, fb_dtype t, void *dx, fb_dtype dx_dtype, bool accumulate_dx,
                                            float *da, float *db, bool accumulate_grads)
{
    const uint32_t threshold = fb_dropout_threshold(lora->dropout);
    void *du = (char *)ctx->workspace + shared_bytes(ctx, device, FB_OP_LORA_BACKWARD, w, lora->rank, m, t);

    fb_thin_call c = {ctx, t, {}, "dy", "b", "du"}; /* dU */
    c.p.wide = dy, c.p.thin = lora->b, c.p.out = du;
    c.p.rows = m, c.p.depth = w->rows, c.p.rank = lora->rank;
    c.p.thin_across = true;
    c.p.factor = fb_lora_factor(lora);
    c.p.out_dtype = t;
    fb_status status = run(device, c);

    fb_thin_call g = {ctx, t, {}, "dy", "u", "db"}; /* dB */
    g.p.wide = dy, g.p.thin = u, g.p.out = db;
    g.p.rows = w->rows, g.p.depth = m, g.p.rank = lora->rank;
    g.p.wide_across = g.p.thin_across = true;
    g.p.factor = 1;
    g.p.out_dtype = FB_F32, g.p.accumulate = accumulate_grads;
    if (status == FB_OK) status = run(device, g);

    g.wide_name = "x", g.thin_name = "du", g.out_name = "da"; /* dA */
    g.p.wide = x, g.p.thin = du, g.p.out = da;
    g.p.rows = w->cols, g.p.out_across = true;
    g.p.threshold = threshold, g.p.seed = lora->seed;
    if (status == FB_OK) status = run(device, g);

    if (status != FB_OK || !dx || m == 0 || w->cols == 0) return status;
    const fb_gemm_call base = {ctx, device, w, m, dy, t, nullptr, dx, dx_dtype, accumulate_dx, {du, lora->a, lora->rank, threshold, lora->seed}};
    return FB_CUDA(gemm_dx)(&base);
}
