/* ops_reference.c: the decoder's small operations as their formulas say, in double, one rounding for each output. */
#include "ops.h"

#include "dropout.h"

#include <stdio.h>
#include <stdlib.h>

static fb_status product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const lm_real *a, const lm_real *b,
                         lm_real *c, bool accumulate)
{
    (void)ctx;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)(ta ? a[l * m + i] : a[i * k + l]) * (double)(tb ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = (lm_real)((accumulate ? (double)c[i * n + j] : 0.0) + alpha * sum);
        }
    return FB_OK;
}

static fb_status embed(fb_context *ctx, const lm_real *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, lm_real *out)
{
    (void)ctx, (void)vocab;
    for (int64_t i = 0; i < n; i++) memcpy(out + i * d, table + ids[i] * d, (size_t)d * sizeof *out);
    return FB_OK;
}

static fb_status embed_backward(fb_context *ctx, const lm_real *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, lm_real *dtable)
{
    (void)ctx;
    for (int64_t t = 0; t < vocab; t++)
        for (int64_t c = 0; c < d; c++) {
            double sum = 0;
            bool any = false;
            for (int64_t i = 0; i < n; i++)
                if (ids[i] == t) sum += (double)dout[i * d + c], any = true;
            if (any) dtable[t * d + c] = (lm_real)((double)dtable[t * d + c] + sum);
        }
    return FB_OK;
}

static fb_status rmsnorm(fb_context *ctx, const lm_real *x, const lm_real *w, int64_t n, int64_t d, double eps, lm_real *y, lm_real *scale)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t c = 0; c < d; c++) sum += (double)x[i * d + c] * (double)x[i * d + c];
        double s = 1 / sqrt(sum / (double)d + eps);
        scale[i] = (lm_real)s;
        for (int64_t c = 0; c < d; c++) y[i * d + c] = (lm_real)((double)x[i * d + c] * s * (double)w[c]);
    }
    return FB_OK;
}

static fb_status rmsnorm_backward(fb_context *ctx, const lm_real *dy, const lm_real *x, const lm_real *w, const lm_real *scale, int64_t n, int64_t d,
                                  lm_real *dx, lm_real *dw)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        double dot = 0, s = (double)scale[i];
        for (int64_t c = 0; c < d; c++) dot += (double)dy[i * d + c] * (double)w[c] * (double)x[i * d + c];
        for (int64_t c = 0; c < d; c++) {
            double g = s * ((double)dy[i * d + c] * (double)w[c] - (double)x[i * d + c] * s * s * dot / (double)d);
            dx[i * d + c] = (lm_real)((double)dx[i * d + c] + g);
        }
    }
    for (int64_t c = 0; dw && c < d; c++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)dy[i * d + c] * (double)x[i * d + c] * (double)scale[i];
        dw[c] = (lm_real)((double)dw[c] + sum);
    }
    return FB_OK;
}

static fb_status rope(fb_context *ctx, const lm_real *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t head_dim, bool back,
                      lm_real *x)
{
    (void)ctx;
    int64_t half = head_dim / 2;
    for (int64_t row = 0; row < batch * seq; row++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < half; i++) {
                lm_real *pair = x + (row * heads + h) * head_dim + i;
                double c = (double)turns[row % seq * half + i], s = (double)turns[(max_seq + row % seq) * half + i];
                double u = (double)pair[0], v = (double)pair[half];
                if (back) s = -s;
                pair[0] = (lm_real)(u * c - v * s);
                pair[half] = (lm_real)(v * c + u * s);
            }
    return FB_OK;
}

/* One query's view of an attention: its row, its key head's rows at stride. */
typedef struct query {
    int64_t row, stride, keys; /* keys: how many it sees, itself included */
    int64_t q, kv;             /* offsets of its own row and of key 0 */
    double scale;
} query;

static query query_at(const lm_attention *a, int64_t b, int64_t h, int64_t i)
{
    int64_t kv_head = h / (a->heads / a->kv_heads);
    return (query){.row = (b * a->heads + h) * a->seq + i, .stride = a->kv_heads * a->head_dim, .keys = i + 1,
                   .q = ((b * a->seq + i) * a->heads + h) * a->head_dim, .kv = (b * a->seq * a->kv_heads + kv_head) * a->head_dim,
                   .scale = 1 / sqrt((double)a->head_dim)};
}

static double dot(const lm_real *a, const lm_real *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void attend_row(const lm_attention *a, query at, const lm_real *q, const lm_real *k, const lm_real *v, double *score, lm_real *out,
                       lm_real *log_sum)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < at.keys; j++) {
        score[j] = at.scale * dot(q + at.q, k + at.kv + j * at.stride, a->head_dim);
        if (score[j] > largest) largest = score[j];
    }
    for (int64_t j = 0; j < at.keys; j++) sum += exp(score[j] - largest);
    for (int64_t c = 0; c < a->head_dim; c++) {
        double o = 0;
        for (int64_t j = 0; j < at.keys; j++) o += exp(score[j] - largest) / sum * (double)v[at.kv + j * at.stride + c];
        out[at.q + c] = (lm_real)o;
    }
    log_sum[at.row] = (lm_real)(largest + log(sum));
}

static fb_status attention(fb_context *ctx, const lm_attention *a, const lm_real *q, const lm_real *k, const lm_real *v, lm_real *out,
                           lm_real *log_sum)
{
    double *score = malloc((size_t)a->seq * sizeof *score);
    if (!score) return snprintf(ctx->message, sizeof ctx->message, "no memory for a row of attention"), FB_BACKEND_ERROR;
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t i = 0; i < a->seq; i++) attend_row(a, query_at(a, b, h, i), q, k, v, score, out, log_sum);
    free(score);
    return FB_OK;
}

/* dS of a row: p (dP - sum of dout * out), and p itself, from what was kept. */
static void row_gradient(const lm_attention *a, query at, const lm_real *q, const lm_real *k, const lm_real *v, const lm_real *out,
                         const lm_real *log_sum, const lm_real *dout, double *p, double *ds)
{
    double delta = dot(dout + at.q, out + at.q, a->head_dim);
    for (int64_t j = 0; j < at.keys; j++) {
        p[j] = exp(at.scale * dot(q + at.q, k + at.kv + j * at.stride, a->head_dim) - (double)log_sum[at.row]);
        ds[j] = at.scale * p[j] * (dot(dout + at.q, v + at.kv + j * at.stride, a->head_dim) - delta);
    }
}

static fb_status attention_backward(fb_context *ctx, const lm_attention *a, const lm_real *q, const lm_real *k, const lm_real *v, const lm_real *out,
                                    const lm_real *log_sum, const lm_real *dout, lm_real *dq, lm_real *dk, lm_real *dv)
{
    int64_t d = a->head_dim, n = a->batch * a->seq * a->kv_heads * d;
    double *p = calloc((size_t)(2 * a->seq + 2 * n), sizeof *p);
    if (!p) return snprintf(ctx->message, sizeof ctx->message, "no memory for the sums of attention's gradient"), FB_BACKEND_ERROR;
    double *ds = p + a->seq, *sum_k = ds + a->seq, *sum_v = sum_k + n;
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t i = 0; i < a->seq; i++) {
                query at = query_at(a, b, h, i);
                row_gradient(a, at, q, k, v, out, log_sum, dout, p, ds);
                for (int64_t c = 0; c < d; c++) {
                    double sum = 0;
                    for (int64_t j = 0; j < at.keys; j++) {
                        sum += ds[j] * (double)k[at.kv + j * at.stride + c];
                        sum_k[at.kv + j * at.stride + c] += ds[j] * (double)q[at.q + c];
                        sum_v[at.kv + j * at.stride + c] += p[j] * (double)dout[at.q + c];
                    }
                    dq[at.q + c] = (lm_real)sum;
                }
            }
    for (int64_t i = 0; i < n; i++) dk[i] = (lm_real)sum_k[i], dv[i] = (lm_real)sum_v[i];
    free(p);
    return FB_OK;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static fb_status swiglu(fb_context *ctx, const lm_real *gate, const lm_real *up, int64_t n, lm_real *out)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) out[i] = (lm_real)((double)gate[i] * sigmoid((double)gate[i]) * (double)up[i]);
    return FB_OK;
}

static fb_status swiglu_backward(fb_context *ctx, const lm_real *dout, const lm_real *gate, const lm_real *up, int64_t n, lm_real *dgate,
                                 lm_real *dup)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)gate[i], u = (double)up[i], s = sigmoid(g), d = (double)dout[i];
        dgate[i] = (lm_real)(d * u * (s + g * s * (1 - s)));
        dup[i] = (lm_real)(d * g * s);
    }
    return FB_OK;
}

static fb_status add(fb_context *ctx, const lm_real *x, int64_t n, lm_real *y)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) y[i] = (lm_real)((double)y[i] + (double)x[i]);
    return FB_OK;
}

static fb_status add_row_sums(fb_context *ctx, const lm_real *x, double mean, int64_t m, int64_t n, int64_t k, lm_real *y)
{
    (void)ctx;
    for (int64_t i = 0; i < m; i++) {
        double sum = 0;
        for (int64_t l = 0; l < k; l++) sum += (double)x[i * k + l];
        for (int64_t j = 0; j < n; j++) y[i * n + j] = (lm_real)((double)y[i * n + j] + mean * sum);
    }
    return FB_OK;
}

static fb_status drop(fb_context *ctx, const lm_real *x, int64_t n, uint32_t threshold, uint64_t seed, lm_real *z)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) z[i] = fb_dropout_keeps(seed, threshold, i) ? x[i] : 0;
    return FB_OK;
}

static fb_status add_kept(fb_context *ctx, const lm_real *x, int64_t n, uint32_t threshold, uint64_t seed, lm_real *y)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++)
        if (fb_dropout_keeps(seed, threshold, i)) y[i] = (lm_real)((double)y[i] + (double)x[i]);
    return FB_OK;
}

static fb_status cross_entropy(fb_context *ctx, lm_real *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale, lm_real *losses)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        lm_real *row = logits + i * vocab;
        double largest = -INFINITY, sum = 0;
        for (int64_t t = 0; t < vocab; t++)
            if ((double)row[t] > largest) largest = (double)row[t];
        for (int64_t t = 0; t < vocab; t++) sum += exp((double)row[t] - largest);
        losses[i] = targets[i] < 0 ? 0 : (lm_real)(largest + log(sum) - (double)row[targets[i]]);
        for (int64_t t = 0; scale != 0 && t < vocab; t++)
            row[t] = targets[i] < 0 ? 0 : (lm_real)(scale * (exp((double)row[t] - largest) / sum - (t == targets[i])));
    }
    return FB_OK;
}

static fb_status square_sums(fb_context *ctx, const lm_real *x, int64_t n, double *sums)
{
    (void)ctx;
    for (int64_t begin = 0; begin < n; begin += LM_SQUARE_CHUNK) {
        double sum = 0;
        for (int64_t i = begin; i < n && i < begin + LM_SQUARE_CHUNK; i++) sum += (double)x[i] * (double)x[i];
        sums[begin / LM_SQUARE_CHUNK] = sum;
    }
    return FB_OK;
}

const lm_ops *lm_reference_ops(void)
{
    static const lm_ops ops = {"reference", product, embed, embed_backward, rmsnorm, rmsnorm_backward, rope, attention, attention_backward,
                               swiglu, swiglu_backward, add, add_row_sums, drop, add_kept, cross_entropy, square_sums};
    return &ops;
}
