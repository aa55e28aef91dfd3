/* test_cuda_mirror.c: a device's operations on host memory: each operand is copied to device memory of exactly its size, the
 * operation is made there, and what it writes comes back. So that what holds host pointers (test_lockstep.c) can hold a GPU's. */
#include "test_cuda_device.h"

#include <stdio.h>

enum { OPERANDS = 10 };

static device *d;
static const lm_ops *inner;
static struct operand {
    const void *host;
    void *there;
    size_t bytes;
    bool written;
} list[OPERANDS];
static int count;
static bool failed;

static void *up(const void *host, int64_t n, size_t width, bool written)
{
    for (int i = 0; i < count; i++) /* in place */
        if (list[i].host == host) return list[i].written |= written, list[i].there;
    struct operand *o = &list[count++];
    *o = (struct operand){host, d->alloc(d, (size_t)n * width), (size_t)n * width, written};
    failed = failed || !o->there || !d->upload(d, o->there, host, o->bytes);
    return o->there;
}

static fb_status down(fb_context *ctx, fb_status status)
{
    bool ok = d->wait(d) && !failed;
    for (int i = 0; i < count; i++) {
        if (ok && status == FB_OK && list[i].written) ok = d->download(d, (void *)(uintptr_t)list[i].host, list[i].there, list[i].bytes);
        if (list[i].there) d->release(d, list[i].there);
    }
    count = 0, failed = false;
    if (ok || status != FB_OK) return status;
    return snprintf(ctx->message, sizeof ctx->message, "%.*s", FB_MESSAGE_SIZE - 1, d->why), FB_BACKEND_ERROR;
}

#define IN(p, n) up(p, n, sizeof *(p), false)
#define OUT(p, n) up(p, n, sizeof *(p), true)
/* The operation `call` on the device's stream. */
#define THERE(call) (ctx->stream = d->stream, down(ctx, failed ? FB_OK : inner->call))

static fb_status product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b, float *c,
                         bool accumulate)
{
    a = IN(a, m * k), b = IN(b, k * n), c = OUT(c, m * n);
    return THERE(product(ctx, ta, tb, m, n, k, alpha, a, b, c, accumulate));
}
static fb_status embed(fb_context *ctx, const float *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t width, float *out)
{
    table = IN(table, vocab * width), ids = IN(ids, n), out = OUT(out, n * width);
    return THERE(embed(ctx, table, ids, n, vocab, width, out));
}
static fb_status embed_backward(fb_context *ctx, const float *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t width, float *dtable)
{
    dout = IN(dout, n * width), ids = IN(ids, n), dtable = OUT(dtable, vocab * width);
    return THERE(embed_backward(ctx, dout, ids, n, vocab, width, dtable));
}
static fb_status rmsnorm(fb_context *ctx, const float *x, const float *w, int64_t n, int64_t width, double eps, float *y, float *scale)
{
    x = IN(x, n * width), w = IN(w, width), y = OUT(y, n * width), scale = OUT(scale, n);
    return THERE(rmsnorm(ctx, x, w, n, width, eps, y, scale));
}
static fb_status rmsnorm_backward(fb_context *ctx, const float *dy, const float *x, const float *w, const float *scale, int64_t n, int64_t width,
                                  float *dx, float *dw)
{
    dy = IN(dy, n * width), x = IN(x, n * width), w = IN(w, width), scale = IN(scale, n), dx = OUT(dx, n * width), dw = dw ? OUT(dw, width) : NULL;
    return THERE(rmsnorm_backward(ctx, dy, x, w, scale, n, width, dx, dw));
}
static fb_status rope(fb_context *ctx, const float *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t width, bool back, float *x)
{
    turns = IN(turns, max_seq * width), x = OUT(x, batch * seq * heads * width);
    return THERE(rope(ctx, turns, max_seq, batch, seq, heads, width, back, x));
}
static fb_status attention(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, float *out, float *log_sum)
{
    int64_t rows = a->batch * a->seq, n = rows * a->heads * a->head_dim, kv = rows * a->kv_heads * a->head_dim;
    q = IN(q, n), k = IN(k, kv), v = IN(v, kv), out = OUT(out, n), log_sum = OUT(log_sum, rows * a->heads);
    return THERE(attention(ctx, a, q, k, v, out, log_sum));
}
static fb_status attention_backward(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, const float *out,
                                    const float *log_sum, const float *dout, float *dq, float *dk, float *dv)
{
    int64_t rows = a->batch * a->seq, n = rows * a->heads * a->head_dim, kv = rows * a->kv_heads * a->head_dim;
    q = IN(q, n), k = IN(k, kv), v = IN(v, kv), out = IN(out, n), log_sum = IN(log_sum, rows * a->heads), dout = IN(dout, n);
    dq = OUT(dq, n), dk = OUT(dk, kv), dv = OUT(dv, kv);
    return THERE(attention_backward(ctx, a, q, k, v, out, log_sum, dout, dq, dk, dv));
}
static fb_status swiglu(fb_context *ctx, const float *gate, const float *by, int64_t n, float *out)
{
    gate = IN(gate, n), by = IN(by, n), out = OUT(out, n);
    return THERE(swiglu(ctx, gate, by, n, out));
}
static fb_status swiglu_backward(fb_context *ctx, const float *dout, const float *gate, const float *by, int64_t n, float *dgate, float *dby)
{
    dout = IN(dout, n), gate = IN(gate, n), by = IN(by, n), dgate = OUT(dgate, n), dby = OUT(dby, n);
    return THERE(swiglu_backward(ctx, dout, gate, by, n, dgate, dby));
}
static fb_status add(fb_context *ctx, const float *x, int64_t n, float *y)
{
    x = IN(x, n), y = OUT(y, n);
    return THERE(add(ctx, x, n, y));
}
static fb_status add_row_sums(fb_context *ctx, const float *x, double mean, int64_t m, int64_t n, int64_t k, float *y)
{
    x = IN(x, m * k), y = OUT(y, m * n);
    return THERE(add_row_sums(ctx, x, mean, m, n, k, y));
}
static fb_status drop(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *z)
{
    x = IN(x, n), z = OUT(z, n);
    return THERE(drop(ctx, x, n, threshold, seed, z));
}
static fb_status add_kept(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    x = IN(x, n), y = OUT(y, n);
    return THERE(add_kept(ctx, x, n, threshold, seed, y));
}
static fb_status cross_entropy(fb_context *ctx, float *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale, float *losses)
{
    logits = OUT(logits, n * vocab), targets = IN(targets, n), losses = OUT(losses, n);
    return THERE(cross_entropy(ctx, logits, targets, n, vocab, scale, losses));
}
static fb_status square_sums(fb_context *ctx, const float *x, int64_t n, double *sums)
{
    x = IN(x, n), sums = OUT(sums, fb_ceil_div(n, LM_SQUARE_CHUNK));
    return THERE(square_sums(ctx, x, n, sums));
}

const lm_ops *test_cuda_mirror(device *on, const lm_ops *ops)
{
    static const lm_ops table = {"mirror", product, embed, embed_backward, rmsnorm, rmsnorm_backward, rope, attention, attention_backward, swiglu,
                                 swiglu_backward, add, add_row_sums, drop, add_kept, cross_entropy, square_sums};
    d = on, inner = ops;
    return &table;
}
