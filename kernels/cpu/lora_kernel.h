/* lora_kernel.h: a quantized layer with a low-rank adapter, forward and backward (fb_lora_forward, fb_lora_backward).
 *
 *   FLOPs   forward   2 M N K + 2 M r (N + K)      backward   2 M N K + 4 M r (N + K)
 *   bytes   those of gemm or gemm_dx, A and B once each (twice in the backward pass), X once more, U
 *   bound   the base product's; beside it r (1/N + 1/K) of its arithmetic (3 % at r = 64, 4096 x 4096), twice that
 *           in the backward pass, and the same share of memory traffic at M = 1
 *
 * The base product is the table's own gemm or gemm_dx, whichever kernel that is, in fp32: into Y or dX themselves
 * where they are fp32, else by way of a buffer of at most CHUNK rows, so that sums are rounded once. Products of rank r
 * are lora_products.h's; none has an intermediate of another size.
 *
 * Versions (NF4 block 64, bf16, 4096 x 4096, one thread of a Zen 3 shared with others, processor time: what a pass costs
 * over gemm or gemm_dx alone, medians of interleaved pairs; forward, backward):
 *   1  every product on staged fp32 panels       r = 64: M = 1 21 and 90 %, M = 16 7 and 24 %, M = 256 8 and 9 %
 *   2  M <= 4 reads A and B as they lie; dB      r = 64: M = 1 5 and 35 %, M = 16 9 and 14 %, M = 256 5 and 10 %
 *      written by rows; Philox in vectors        r = 16: M = 1 2 and 7 %, M = 16 5 and 4 %, M = 256 3 and 4 %
 *   Dropout of 0.1 adds 1 to 3 points. At M = 1 the backward pass moves A, B, dA and dB: 5 MB at r = 64 beside W's 9.4.
 *
 *     make bench FILTER=lora/cpu
 */
#include "lora_products.h"

enum { CHUNK = 512 }; /* rows of a base product at a time: as many as gemm takes, so W is decoded no more often */

typedef struct lora_space {
    int64_t chunk;              /* rows of a base product */
    size_t base, u, across, du; /* bytes from the workspace's start: base product [chunk][], U or dU in fp32, transposed */
    size_t total;
} lora_space;

static size_t room(int64_t floats) { return (size_t)cpu_round_up(floats, 16) * sizeof(float); }

static lora_space lora_space_for(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    char why[FB_MESSAGE_SIZE];
    const bool backward = op == FB_OP_LORA_BACKWARD;
    lora_space s = {.chunk = fb_ceil_div(m, fb_ceil_div(m > 0 ? m : 1, CHUNK))};
    const size_t product = fb_cpu_ops(why)->workspace(ctx, backward ? FB_OP_GEMM_DX : FB_OP_GEMM, w, s.chunk, t);
    s.base = (product + 63) / 64 * 64;
    s.u = s.base + room(s.chunk * (backward ? w->cols : w->rows));
    s.across = s.u + room(backward ? 0 : m * rank);
    s.du = s.across + room(backward ? rank * (m + PAD) : 0);
    s.total = s.du + room(backward ? m * rank : 0);
    return s;
}

size_t ISA(cpu_lora_workspace)(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    return lora_space_for(ctx, op, w, rank, m, t).total;
}

fb_weights ISA(cpu_lora_weights)(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = fb_cpu_ops(why);
    return (op == FB_OP_LORA_BACKWARD ? ops->gemm_dx_weights : ops->gemm_weights)(
        ctx, w, lora_space_for(ctx, op, w, rank, m, t).chunk, t);
}

static const void *row_of(const void *p, fb_dtype t, int64_t i) { return (const char *)p + i * (int64_t)fb_dtype_size(t); }

fb_status ISA(cpu_lora_forward)(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                                fb_dtype t, const void *bias, void *y, fb_dtype y_dtype, void *u)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = fb_cpu_ops(why);
    const int64_t rows = w->rows, cols = w->cols, rank = lora->rank;
    const lora_space s = lora_space_for(ctx, FB_OP_LORA_FORWARD, w, lora->rank, m, t);
    float *buffer = (float *)((char *)ctx->workspace + s.base), *uf = (float *)((char *)ctx->workspace + s.u);
    const source z = {.p = x, .t = t, .cols = cols, .seed = lora->seed, .threshold = fb_dropout_threshold(lora->dropout)};
    const source b = {.p = lora->b, .t = t, .cols = rank};
    make_u(ctx, &z, m, lora, u);
    to_float(u, t, 0, m * rank, uf);
    for (int64_t first = 0; rows && first < m; first += s.chunk) {
        const int64_t count = cpu_min(s.chunk, m - first);
        float *base = y_dtype == FB_F32 ? (float *)y + first * rows : buffer;
        fb_status status = ops->gemm(ctx, w, count, row_of(x, t, first * cols), t, bias, base, FB_F32);
        if (status != FB_OK) return status;
        const target to = {.base = base, .out = y, .t = y_dtype, .first = first, .cols = rows};
        expand(ctx, uf + first * rank, count, rank, &b, true, &to);
    }
    return FB_OK;
}

/* [m][rank] to [rank][stride] */
static void transpose(const void *p, fb_dtype t, int64_t m, int64_t rank, float *out, int64_t stride)
{
    for (int64_t i = 0; i < m; i++) {
        float line[RANK];
        to_float(p, t, i * rank, rank, line);
        for (int64_t r = 0; r < rank; r++) out[r * stride + i] = line[r];
    }
}

fb_status ISA(cpu_lora_backward)(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                                 const void *u, const void *dy, fb_dtype t, void *dx, fb_dtype dx_dtype,
                                 bool accumulate_dx, float *da, float *db, bool accumulate_grads)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = fb_cpu_ops(why);
    const int64_t rows = w->rows, cols = w->cols, rank = lora->rank, stride = m + PAD;
    const lora_space s = lora_space_for(ctx, FB_OP_LORA_BACKWARD, w, lora->rank, m, t);
    char *space = ctx->workspace;
    float *buffer = (float *)(space + s.base), *across = (float *)(space + s.across), *du = (float *)(space + s.du);
    const source z = {.p = x, .t = t, .cols = cols, .seed = lora->seed, .threshold = fb_dropout_threshold(lora->dropout)};
    const source out = {.p = dy, .t = t, .cols = rows}, a = {.p = lora->a, .t = t, .cols = cols};
    transpose(u, t, m, rank, across, stride);
    gradient(ctx, across, stride, m, rank, &out, db, true, accumulate_grads);
    make_du(ctx, &out, m, lora, du);
    transpose(du, FB_F32, m, rank, across, stride);
    gradient(ctx, across, stride, m, rank, &z, da, false, accumulate_grads);
    for (int64_t first = 0; dx && cols && first < m; first += s.chunk) {
        const int64_t count = cpu_min(s.chunk, m - first);
        float *base = dx_dtype == FB_F32 && !accumulate_dx ? (float *)dx + first * cols : buffer;
        fb_status status = ops->gemm_dx(ctx, w, count, row_of(dy, t, first * rows), t, base, FB_F32, false);
        if (status != FB_OK) return status;
        const target to = {.base = base, .out = dx, .t = dx_dtype, .first = first, .cols = cols, .accumulate = accumulate_dx,
                           .seed = lora->seed, .threshold = z.threshold};
        expand(ctx, du + first * rank, count, rank, &a, false, &to);
    }
    return FB_OK;
}
