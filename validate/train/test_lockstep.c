/* test_lockstep.c: bounds for the decoder's small operations (test_lockstep.h).
 *
 * u = 2^-24. Any order of adding n terms in fp32 errs by at most (n-1) u sum|terms|, each product in it by u more. E is the
 * CPU's exponential: within 2 ulp, 4u, of its rounded argument. What is written is the first-order bound with a few u to spare
 * for the final roundings; the reference adds one rounding of its own to each output.
 *
 *   product           |alpha| (k + 6) u sum |a||b|  + 2u |c|
 *   embed, drop       equal;   add, add_kept: 2u |y|   (one rounding on either side)
 *   embed_backward    (n + 2) u (|before| + sum |dout|)
 *   rmsnorm           y: (d/2 + 8) u |y|; scale the same: d squares of one sign, halved by the root
 *   its gradient      dx: (d + 12) u (s |dy w| + s^3 |x| sum |dy w x| / d) + 2u |dx|;  dw: (n + 6) u (|before| + sum |dy x s|)
 *   rope              6u (|a c| + |b s|)
 *   attention         a score errs by F = (head_dim + 6) u scale sum |q||k| + 4u |score|, so a probability by 2 F + 8u + (keys + 4) u
 *                     relative, F the row's largest; out: sum p|v| of (that + (keys + 4) u); log_sum: F + (keys + 8) u + 2u |log_sum|;
 *                     6u more for each 32 keys: CUDA scales its sums down where a tile brings a larger score
 *   its gradient      p as above (e = F + 2u |log_sum| + 8u), dS: scale p (e |dP - delta| + (head_dim + 6) u (sum |dout v| + sum |dout out|));
 *                     dq, dk: sum of those times |k|, |q| and (terms + 4) u sum |dS k|; dv: sum p |dout| (e + (terms + 4) u)
 *   swiglu            16u |out|;  gradient: 16u |d u| s (1 + |g|), as 1 - s errs by u;  16u |d g s|
 *   cross_entropy     loss: (vocab + 12) u + 4u (|largest| + |loss|); gradient: scale ((vocab + 16) u p + 4u)
 *   add_row_sums      (k + 4) u |mean| sum |x| + 4u |y|
 *   square_sums       2^-40 relative: sums in double
 *
 * TINY is added to each: the exponential is clamped at e^-87 = 1.6e-38, and what is below it need not be right. */
#include "test_lockstep.h"

#include <stdio.h>
#include <stdlib.h>

static const double u = 0x1p-24, TINY = 1e-30;
static const lm_ops *tested;
static const char *const names[LOCKSTEP_OPS] = {"product", "embed", "embed_backward", "rmsnorm", "rmsnorm_backward", "rope", "attention",
                                                "attention_backward", "swiglu", "swiglu_backward", "add", "add_row_sums", "drop", "add_kept",
                                                "cross_entropy", "square_sums"};
static lockstep_count counts[LOCKSTEP_OPS];

static lockstep_count *count_of(const char *name)
{
    for (int i = 0; i < LOCKSTEP_OPS; i++)
        if (strcmp(names[i], name) == 0) return &counts[i];
    abort();
}

static float *copy(const float *x, int64_t n)
{
    float *c = malloc((size_t)(n ? n : 1) * sizeof *c);
    if (!c) abort();
    memcpy(c, x, (size_t)n * sizeof *c);
    return c;
}

/* got[i] against want within bound[i] */
static void hold(lockstep_count *c, const float *got, const float *want, const double *bound, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double ratio = fabs((double)got[i] - (double)want[i]) / (bound[i] + TINY);
        if (!(ratio <= c->worst)) c->worst = ratio;
        c->bad += !(ratio <= 1);
    }
    c->elements += n;
}

static double *bounds(int64_t n)
{
    double *b = calloc((size_t)(n ? n : 1), sizeof *b);
    if (!b) abort();
    return b;
}

static const lm_ops *ref(void) { return lm_reference_ops(); }
static double size(float x) { return fabs((double)x); }

static fb_status product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b, float *c,
                         bool accumulate)
{
    float *want = copy(c, m * n);
    double *limit = bounds(m * n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++) sum += size(ta ? a[l * m + i] : a[i * k + l]) * size(tb ? b[j * k + l] : b[l * n + j]);
            limit[i * n + j] = fabs(alpha) * (double)(k + 6) * u * sum + 2 * u * (accumulate ? size(c[i * n + j]) : 0);
        }
    ref()->product(ctx, ta, tb, m, n, k, alpha, a, b, want, accumulate);
    fb_status status = tested->product(ctx, ta, tb, m, n, k, alpha, a, b, c, accumulate);
    hold(count_of("product"), c, want, limit, m * n);
    count_of("product")->calls++;
    return free(want), free(limit), status;
}

static fb_status embed(fb_context *ctx, const float *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *out)
{
    fb_status status = tested->embed(ctx, table, ids, n, vocab, d, out);
    float *want = copy(out, n * d);
    double *limit = bounds(n * d);
    ref()->embed(ctx, table, ids, n, vocab, d, want);
    hold(count_of("embed"), out, want, limit, n * d);
    count_of("embed")->calls++;
    return free(want), free(limit), status;
}

static fb_status embed_backward(fb_context *ctx, const float *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *dtable)
{
    float *want = copy(dtable, vocab * d);
    double *limit = bounds(vocab * d);
    for (int64_t i = 0; i < vocab * d; i++) limit[i] = size(dtable[i]);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++) limit[ids[i] * d + c] += size(dout[i * d + c]);
    for (int64_t i = 0; i < vocab * d; i++) limit[i] *= (double)(n + 2) * u;
    ref()->embed_backward(ctx, dout, ids, n, vocab, d, want);
    fb_status status = tested->embed_backward(ctx, dout, ids, n, vocab, d, dtable);
    hold(count_of("embed_backward"), dtable, want, limit, vocab * d);
    count_of("embed_backward")->calls++;
    return free(want), free(limit), status;
}

static fb_status rmsnorm(fb_context *ctx, const float *x, const float *w, int64_t n, int64_t d, double eps, float *y, float *scale)
{
    fb_status status = tested->rmsnorm(ctx, x, w, n, d, eps, y, scale);
    float *want = copy(y, n * d), *want_scale = copy(scale, n);
    double *limit = bounds(n * d), *scale_limit = bounds(n), relative = ((double)d / 2 + 8) * u;
    ref()->rmsnorm(ctx, x, w, n, d, eps, want, want_scale);
    for (int64_t i = 0; i < n * d; i++) limit[i] = relative * size(want[i]);
    for (int64_t i = 0; i < n; i++) scale_limit[i] = relative * size(want_scale[i]);
    hold(count_of("rmsnorm"), y, want, limit, n * d);
    hold(count_of("rmsnorm"), scale, want_scale, scale_limit, n);
    count_of("rmsnorm")->calls++;
    return free(want), free(want_scale), free(limit), free(scale_limit), status;
}

static fb_status rmsnorm_backward(fb_context *ctx, const float *dy, const float *x, const float *w, const float *scale, int64_t n, int64_t d, float *dx,
                                  float *dw)
{
    float *want = copy(dx, n * d), *want_w = dw ? copy(dw, d) : NULL;
    double *limit = bounds(n * d), *w_limit = bounds(d);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0, s = (double)scale[i];
        for (int64_t c = 0; c < d; c++) sum += size(dy[i * d + c]) * size(w[c]) * size(x[i * d + c]);
        for (int64_t c = 0; c < d; c++) {
            double terms = s * size(dy[i * d + c]) * size(w[c]) + s * s * s * size(x[i * d + c]) * sum / (double)d;
            limit[i * d + c] = (double)(d + 12) * u * terms + 2 * u * (size(dx[i * d + c]) + terms);
            w_limit[c] += (double)(n + 6) * u * (size(dy[i * d + c]) * size(x[i * d + c]) * s + (dw ? size(dw[c]) / (double)n : 0));
        }
    }
    ref()->rmsnorm_backward(ctx, dy, x, w, scale, n, d, want, want_w);
    fb_status status = tested->rmsnorm_backward(ctx, dy, x, w, scale, n, d, dx, dw);
    hold(count_of("rmsnorm_backward"), dx, want, limit, n * d);
    if (dw) hold(count_of("rmsnorm_backward"), dw, want_w, w_limit, d);
    count_of("rmsnorm_backward")->calls++;
    return free(want), free(want_w), free(limit), free(w_limit), status;
}

static fb_status rope(fb_context *ctx, const float *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t head_dim, bool back,
                      float *x)
{
    int64_t n = batch * seq * heads * head_dim, half = head_dim / 2;
    float *want = copy(x, n);
    double *limit = bounds(n);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % head_dim, other = at < half ? i + half : i - half;
        limit[i] = 6 * u * (size(x[i]) + size(x[other])); /* |cos|, |sin| <= 1 */
    }
    ref()->rope(ctx, turns, max_seq, batch, seq, heads, head_dim, back, want);
    fb_status status = tested->rope(ctx, turns, max_seq, batch, seq, heads, head_dim, back, x);
    hold(count_of("rope"), x, want, limit, n);
    count_of("rope")->calls++;
    return free(want), free(limit), status;
}

/* ---- attention ---------------------------------------------------------------------------------------------------------- */

typedef struct row {
    int64_t q, kv, stride, at; /* offsets of the query, of key 0; of log_sum */
    double *p, *score, worst;  /* probabilities, scores; F of the row */
} row;

static row row_of(const lm_attention *a, const float *q, const float *k, int64_t b, int64_t h, int64_t i, double *p, double *score)
{
    int64_t d = a->head_dim, head = h / (a->heads / a->kv_heads);
    row r = {((b * a->seq + i) * a->heads + h) * d, (b * a->seq * a->kv_heads + head) * d, a->kv_heads * d, (b * a->heads + h) * a->seq + i, p, score, 0};
    double scale = 1 / sqrt((double)d), largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= i; j++) {
        double dot = 0, terms = 0;
        for (int64_t c = 0; c < d; c++) {
            double t = (double)q[r.q + c] * (double)k[r.kv + j * r.stride + c];
            dot += t, terms += fabs(t);
        }
        score[j] = scale * dot;
        r.worst = fmax(r.worst, (double)(d + 6) * u * scale * terms + 4 * u * fabs(score[j]));
        largest = fmax(largest, score[j]);
    }
    for (int64_t j = 0; j <= i; j++) sum += exp(score[j] - largest);
    for (int64_t j = 0; j <= i; j++) p[j] = exp(score[j] - largest) / sum;
    return r;
}

#define FOR_ROWS(a, b, h, i)                              \
    for (int64_t b = 0; b < (a)->batch; b++)              \
        for (int64_t h = 0; h < (a)->heads; h++)          \
            for (int64_t i = 0; i < (a)->seq; i++)

static fb_status attention(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, float *out, float *log_sum)
{
    int64_t d = a->head_dim, n = a->batch * a->seq * a->heads * d, rows = a->batch * a->heads * a->seq;
    fb_status status = tested->attention(ctx, a, q, k, v, out, log_sum);
    float *want = copy(out, n), *want_log = copy(log_sum, rows);
    double *limit = bounds(n), *log_limit = bounds(rows), *p = bounds(2 * a->seq);
    ref()->attention(ctx, a, q, k, v, want, want_log);
    FOR_ROWS(a, b, h, i)
    {
        row r = row_of(a, q, k, b, h, i, p, p + a->seq);
        double keys = (double)(i + 1), shrinks = 6 * u * (keys / 32 + 1), relative = 2 * r.worst + 8 * u + 2 * (keys + 4) * u + shrinks;
        for (int64_t c = 0; c < d; c++)
            for (int64_t j = 0; j <= i; j++) limit[r.q + c] += relative * p[j] * size(v[r.kv + j * r.stride + c]);
        log_limit[r.at] = r.worst + (keys + 8) * u + 2 * u * size(want_log[r.at]) + shrinks;
    }
    hold(count_of("attention"), out, want, limit, n);
    hold(count_of("attention"), log_sum, want_log, log_limit, rows);
    count_of("attention")->calls++;
    return free(want), free(want_log), free(limit), free(log_limit), free(p), status;
}

/* Adds a row's part to the bounds. */
static void gradient_limits(const lm_attention *a, row r, int64_t i, const float *q, const float *k, const float *v, const float *out, float log_sum,
                            const float *dout, double *q_limit, double *k_limit, double *v_limit)
{
    int64_t d = a->head_dim;
    double scale = 1 / sqrt((double)d), delta = 0, delta_terms = 0, e = r.worst + 2 * u * size(log_sum) + 8 * u;
    double terms = (double)(a->seq * (a->heads / a->kv_heads) + 4) * u;
    for (int64_t c = 0; c < d; c++) {
        double t = (double)dout[r.q + c] * (double)out[r.q + c];
        delta += t, delta_terms += fabs(t);
    }
    for (int64_t j = 0; j <= i; j++) {
        double dp = 0, dp_terms = 0;
        int64_t key = r.kv + j * r.stride;
        for (int64_t c = 0; c < d; c++) {
            double t = (double)dout[r.q + c] * (double)v[key + c];
            dp += t, dp_terms += fabs(t);
        }
        double ds = fabs(scale * r.p[j] * (dp - delta)), miss = scale * r.p[j] * (e * fabs(dp - delta) + (double)(d + 6) * u * (dp_terms + delta_terms));
        for (int64_t c = 0; c < d; c++) {
            q_limit[r.q + c] += (miss + terms * ds) * size(k[key + c]);
            k_limit[key + c] += (miss + terms * ds) * size(q[r.q + c]);
            v_limit[key + c] += (e + terms) * r.p[j] * size(dout[r.q + c]);
        }
    }
}

static fb_status attention_backward(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, const float *out,
                                    const float *log_sum, const float *dout, float *dq, float *dk, float *dv)
{
    int64_t n = a->batch * a->seq * a->heads * a->head_dim, kv = a->batch * a->seq * a->kv_heads * a->head_dim;
    fb_status status = tested->attention_backward(ctx, a, q, k, v, out, log_sum, dout, dq, dk, dv);
    float *wq = copy(dq, n), *wk = copy(dk, kv), *wv = copy(dv, kv);
    double *lq = bounds(n), *lk = bounds(kv), *lv = bounds(kv), *p = bounds(2 * a->seq);
    ref()->attention_backward(ctx, a, q, k, v, out, log_sum, dout, wq, wk, wv);
    FOR_ROWS(a, b, h, i)
    {
        row r = row_of(a, q, k, b, h, i, p, p + a->seq);
        gradient_limits(a, r, i, q, k, v, out, log_sum[r.at], dout, lq, lk, lv);
    }
    hold(count_of("attention_backward"), dq, wq, lq, n);
    hold(count_of("attention_backward"), dk, wk, lk, kv);
    hold(count_of("attention_backward"), dv, wv, lv, kv);
    count_of("attention_backward")->calls++;
    return free(wq), free(wk), free(wv), free(lq), free(lk), free(lv), free(p), status;
}

/* ---- one element at a time ------------------------------------------------------------------------------------------------ */

static fb_status swiglu(fb_context *ctx, const float *gate, const float *up, int64_t n, float *out)
{
    float *want = copy(gate, n);
    double *limit = bounds(n);
    ref()->swiglu(ctx, gate, up, n, want);
    for (int64_t i = 0; i < n; i++) limit[i] = 16 * u * size(want[i]);
    fb_status status = tested->swiglu(ctx, gate, up, n, out);
    hold(count_of("swiglu"), out, want, limit, n);
    count_of("swiglu")->calls++;
    return free(want), free(limit), status;
}

static fb_status swiglu_backward(fb_context *ctx, const float *dout, const float *gate, const float *up, int64_t n, float *dgate, float *dup)
{
    float *wg = copy(gate, n), *wu = copy(up, n);
    double *lg = bounds(n), *lu = bounds(n);
    for (int64_t i = 0; i < n; i++) {
        double s = 1 / (1 + exp(-(double)gate[i]));
        lg[i] = 16 * u * size(dout[i]) * size(up[i]) * s * (1 + size(gate[i]));
        lu[i] = 16 * u * size(dout[i]) * size(gate[i]) * s;
    }
    ref()->swiglu_backward(ctx, dout, gate, up, n, wg, wu);
    fb_status status = tested->swiglu_backward(ctx, dout, gate, up, n, dgate, dup);
    hold(count_of("swiglu_backward"), dgate, wg, lg, n);
    hold(count_of("swiglu_backward"), dup, wu, lu, n);
    count_of("swiglu_backward")->calls++;
    return free(wg), free(wu), free(lg), free(lu), status;
}

static void hold_sum(const char *name, const float *got, float *want, int64_t n)
{
    double *limit = bounds(n);
    for (int64_t i = 0; i < n; i++) limit[i] = 2 * u * size(want[i]);
    hold(count_of(name), got, want, limit, n);
    count_of(name)->calls++;
    free(want), free(limit);
}

static fb_status add(fb_context *ctx, const float *x, int64_t n, float *y)
{
    float *want = copy(y, n);
    ref()->add(ctx, x, n, want);
    fb_status status = tested->add(ctx, x, n, y);
    return hold_sum("add", y, want, n), status;
}

static fb_status add_kept(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    float *want = copy(y, n);
    ref()->add_kept(ctx, x, n, threshold, seed, want);
    fb_status status = tested->add_kept(ctx, x, n, threshold, seed, y);
    return hold_sum("add_kept", y, want, n), status;
}

static fb_status drop(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *z)
{
    float *want = copy(x, n);
    double *limit = bounds(n);
    ref()->drop(ctx, x, n, threshold, seed, want);
    fb_status status = tested->drop(ctx, x, n, threshold, seed, z);
    hold(count_of("drop"), z, want, limit, n);
    count_of("drop")->calls++;
    return free(want), free(limit), status;
}

static fb_status add_row_sums(fb_context *ctx, const float *x, double mean, int64_t m, int64_t n, int64_t k, float *y)
{
    float *want = copy(y, m * n);
    double *limit = bounds(m * n);
    for (int64_t i = 0; i < m; i++) {
        double sum = 0;
        for (int64_t l = 0; l < k; l++) sum += size(x[i * k + l]);
        for (int64_t j = 0; j < n; j++) limit[i * n + j] = (double)(k + 8) * u * fabs(mean) * sum + 4 * u * size(y[i * n + j]);
    }
    ref()->add_row_sums(ctx, x, mean, m, n, k, want);
    fb_status status = tested->add_row_sums(ctx, x, mean, m, n, k, y);
    hold(count_of("add_row_sums"), y, want, limit, m * n);
    count_of("add_row_sums")->calls++;
    return free(want), free(limit), status;
}

static fb_status cross_entropy(fb_context *ctx, float *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale, float *losses)
{
    float *want = copy(logits, n * vocab), *want_losses = copy(logits, n);
    double *limit = bounds(n * vocab), *loss_limit = bounds(n);
    double more = (double)(vocab + 16) * u;
    for (int64_t i = 0; i < n; i++) {
        double largest = -INFINITY, sum = 0;
        for (int64_t t = 0; t < vocab; t++) largest = fmax(largest, (double)logits[i * vocab + t]);
        for (int64_t t = 0; t < vocab; t++) sum += exp((double)logits[i * vocab + t] - largest);
        for (int64_t t = 0; scale != 0 && t < vocab; t++)
            limit[i * vocab + t] = fabs(scale) * ((more + 2 * u * fabs(largest)) * exp((double)logits[i * vocab + t] - largest) / sum + 4 * u);
        loss_limit[i] = more + 4 * u * fabs(largest);
    }
    ref()->cross_entropy(ctx, want, targets, n, vocab, scale, want_losses);
    for (int64_t i = 0; i < n; i++) loss_limit[i] += 4 * u * size(want_losses[i]);
    fb_status status = tested->cross_entropy(ctx, logits, targets, n, vocab, scale, losses);
    hold(count_of("cross_entropy"), logits, want, limit, n * vocab);
    hold(count_of("cross_entropy"), losses, want_losses, loss_limit, n);
    count_of("cross_entropy")->calls++;
    return free(want), free(want_losses), free(limit), free(loss_limit), status;
}

static fb_status square_sums(fb_context *ctx, const float *x, int64_t n, double *sums)
{
    int64_t chunks = fb_ceil_div(n, LM_SQUARE_CHUNK);
    double *want = bounds(chunks);
    lockstep_count *c = count_of("square_sums");
    ref()->square_sums(ctx, x, n, want);
    fb_status status = tested->square_sums(ctx, x, n, sums);
    for (int64_t i = 0; i < chunks; i++) {
        double ratio = fabs(sums[i] - want[i]) / (0x1p-40 * want[i] + TINY);
        if (!(ratio <= c->worst)) c->worst = ratio;
        c->bad += !(ratio <= 1);
    }
    c->elements += chunks, c->calls++;
    return free(want), status;
}

const lm_ops *lockstep_begin(const lm_ops *ops)
{
    static const lm_ops table = {"lockstep", product, embed, embed_backward, rmsnorm, rmsnorm_backward, rope, attention, attention_backward, swiglu,
                                 swiglu_backward, add, add_row_sums, drop, add_kept, cross_entropy, square_sums};
    tested = ops;
    for (int i = 0; i < LOCKSTEP_OPS; i++) counts[i] = (lockstep_count){.name = names[i]};
    return &table;
}

const lockstep_count *lockstep_counts(void) { return counts; }
