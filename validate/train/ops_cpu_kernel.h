/* ops_cpu_kernel.h: the decoder's small operations on CPU threads; ops_cpu_<instruction set>.c defines LM_ISA and
 * includes it. Plain loops that the compiler vectorises. Products and sums are never contracted to fma and every sum over
 * lanes has LANES of them whatever the vectors' width, so the bits are the same for each instruction set and for any
 * number of threads.
 *
 * Each loops over independent outputs: rows, columns (where rows are summed), or (sequence, key head) pairs. At a training
 * step's sizes all of them together take a tenth of the matrix products' time. */
#include "ops_cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define NAME(f) PASTE(f, LM_ISA)

enum { LANES = 16, TILE = 32, COLUMNS = 64, CHUNK = 8192 };

static int team(const fb_context *ctx) { return ctx->threads > 0 ? ctx->threads : omp_get_max_threads(); }

/* ---- scalars ------------------------------------------------------------------------------------------------------ */

/* e^x within 2 ulp for |x| <= 87, and x clamped to that: Cody and Waite's reduction, Cephes' polynomial. NaN stays NaN. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
    float turn = x * 1.44269504f + 12582912.0f, k = turn - 12582912.0f; /* nearest integer: 1.5 * 2^23 has no fraction bits */
    float r = x - k * 0.693359375f;
    r = r - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * fb_bits_to_float((fb_float_to_bits(turn) - 0x4b400000u + 127u) << 23);
}

static inline float dot(const float *a, const float *b, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) lane[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++) lane[l] += a[i] * b[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

static inline float total(const float *a, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) lane[l] += a[i + l];
    for (int l = 0; i < n; i++, l++) lane[l] += a[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

static inline float greatest(const float *a, int64_t n)
{
    float lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = -INFINITY;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) lane[l] = a[i + l] > lane[l] ? a[i + l] : lane[l];
    for (; i < n; i++) lane[0] = a[i] > lane[0] ? a[i] : lane[0];
    for (int l = 1; l < LANES; l++) lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
    return lane[0];
}

/* out [width] = sum over t of factor[t] * row t of m: both products of attention, a tile of columns in registers. */
static inline void weighted_rows(const float *factor, const float *m, int64_t stride, int64_t rows, int64_t width, float *out)
{
    int64_t c = 0;
    for (; c + TILE <= width; c += TILE) {
        float sum[TILE] = {0};
        for (int64_t t = 0; t < rows; t++)
#pragma omp simd
            for (int l = 0; l < TILE; l++) sum[l] += factor[t] * m[t * stride + c + l];
        memcpy(out + c, sum, sizeof sum);
    }
    for (; c < width; c++) {
        float sum = 0;
        for (int64_t t = 0; t < rows; t++) sum += factor[t] * m[t * stride + c];
        out[c] = sum;
    }
}

/* ---- embedding, norm, positions ------------------------------------------------------------------------------------- */

fb_status NAME(lm_cpu_embed)(fb_context *ctx, const float *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *out)
{
    (void)ctx, (void)vocab;
    for (int64_t i = 0; i < n; i++) memcpy(out + i * d, table + ids[i] * d, (size_t)d * sizeof *out);
    return FB_OK;
}

fb_status NAME(lm_cpu_embed_backward)(fb_context *ctx, const float *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, float *dtable)
{
    (void)vocab;
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t first = 0; first < d; first += COLUMNS)
        for (int64_t i = 0; i < n; i++) {
            int64_t end = first + COLUMNS < d ? first + COLUMNS : d;
            for (int64_t c = first; c < end; c++) dtable[ids[i] * d + c] += dout[i * d + c];
        }
    return FB_OK;
}

fb_status NAME(lm_cpu_rmsnorm)(fb_context *ctx, const float *x, const float *w, int64_t n, int64_t d, double eps, float *y, float *scale)
{
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + i * d;
        float s = (float)(1 / sqrt((double)dot(row, row, d) / (double)d + eps));
        scale[i] = s;
        for (int64_t c = 0; c < d; c++) y[i * d + c] = row[c] * s * w[c];
    }
    return FB_OK;
}

/* sum over rows of dy * x * scale, for one stretch of columns */
static void add_weight_gradient(const float *dy, const float *x, const float *scale, int64_t n, int64_t d, int64_t first, float *dw)
{
    float sum[COLUMNS] = {0};
    int64_t width = d - first < COLUMNS ? d - first : COLUMNS;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < width; c++) sum[c] += dy[i * d + first + c] * x[i * d + first + c] * scale[i];
    for (int64_t c = 0; c < width; c++) dw[first + c] += sum[c];
}

fb_status NAME(lm_cpu_rmsnorm_backward)(fb_context *ctx, const float *dy, const float *x, const float *w, const float *scale, int64_t n, int64_t d,
                                        float *dx, float *dw)
{
#pragma omp parallel num_threads(team(ctx))
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            float lane[LANES] = {0}, s = scale[i];
            for (int64_t c = 0; c < d; c += LANES)
                for (int64_t l = 0; l < LANES && c + l < d; l++) lane[l] += dy[i * d + c + l] * w[c + l] * x[i * d + c + l];
            float pull = total(lane, LANES) / (float)d * s * s;
            for (int64_t c = 0; c < d; c++) dx[i * d + c] += s * (dy[i * d + c] * w[c] - x[i * d + c] * pull);
        }
        if (dw) {
#pragma omp for schedule(static)
            for (int64_t first = 0; first < d; first += COLUMNS) add_weight_gradient(dy, x, scale, n, d, first, dw);
        }
    }
    return FB_OK;
}

fb_status NAME(lm_cpu_rope)(fb_context *ctx, const float *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t head_dim,
                            bool back, float *x)
{
    int64_t half = head_dim / 2;
    float sign = back ? -1.0f : 1.0f;
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t row = 0; row < batch * seq; row++) {
        const float *c = turns + row % seq * half, *s = c + max_seq * half;
        for (int64_t h = 0; h < heads; h++) {
            float *u = x + (row * heads + h) * head_dim, *v = u + half;
            for (int64_t i = 0; i < half; i++) {
                float turn = sign * s[i], a = u[i], b = v[i];
                u[i] = a * c[i] - b * turn;
                v[i] = b * c[i] + a * turn;
            }
        }
    }
    return FB_OK;
}

/* ---- attention ---------------------------------------------------------------------------------------------------------- */

/* What a thread works with: keys and values of one key head, transposed so that scores of many keys come at once. */
typedef struct bench {
    float *keys, *values, *score, *slope; /* [head_dim, padded], the same, [padded], [padded] */
} bench;

static int64_t padded(int64_t seq) { return fb_ceil_div(seq, TILE) * TILE; }
static size_t bench_floats(const lm_attention *a) { return (size_t)(padded(a->seq) * (2 * a->head_dim + 2)); }

static bench bench_at(const lm_attention *a, float *memory, int thread)
{
    float *mine = memory + (size_t)thread * bench_floats(a);
    int64_t part = padded(a->seq) * a->head_dim;
    return (bench){mine, mine + part, mine + 2 * part, mine + 2 * part + padded(a->seq)};
}

static void transpose(const lm_attention *a, const float *rows, float *out)
{
    int64_t stride = a->kv_heads * a->head_dim, width = padded(a->seq);
    for (int64_t c = 0; c < a->head_dim; c++) {
        for (int64_t j = 0; j < a->seq; j++) out[c * width + j] = rows[j * stride + c];
        for (int64_t j = a->seq; j < width; j++) out[c * width + j] = 0;
    }
}

static void attend(const lm_attention *a, const bench *b, const float *q, const float *v, int64_t i, float *out, float *log_sum)
{
    int64_t keys = i + 1, width = padded(a->seq);
    float scale = (float)(1 / sqrt((double)a->head_dim)), *s = b->score;
    weighted_rows(q, b->keys, width, a->head_dim, padded(keys), s);
    for (int64_t j = 0; j < keys; j++) s[j] *= scale;
    float largest = greatest(s, keys);
    for (int64_t j = 0; j < keys; j++) s[j] = exponential(s[j] - largest);
    float sum = total(s, keys);
    weighted_rows(s, v, a->kv_heads * a->head_dim, keys, a->head_dim, out);
    for (int64_t c = 0; c < a->head_dim; c++) out[c] /= sum;
    *log_sum = (float)((double)largest + log((double)sum));
}

static fb_status no_memory(fb_context *ctx)
{
    snprintf(ctx->message, sizeof ctx->message, "no memory for attention's transposed keys");
    return FB_BACKEND_ERROR;
}

fb_status NAME(lm_cpu_attention)(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, float *out, float *log_sum)
{
    int threads = team(ctx);
    int64_t d = a->head_dim, group = a->heads / a->kv_heads;
    float *memory = malloc((size_t)threads * bench_floats(a) * sizeof *memory);
    if (!memory) return no_memory(ctx);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * a->kv_heads; task++) {
        int64_t b = task / a->kv_heads, kv = task % a->kv_heads, first = (b * a->seq * a->kv_heads + kv) * d;
        bench mine = bench_at(a, memory, omp_get_thread_num());
        transpose(a, k + first, mine.keys);
        for (int64_t h = kv * group; h < (kv + 1) * group; h++)
            for (int64_t i = 0; i < a->seq; i++) {
                int64_t at = ((b * a->seq + i) * a->heads + h) * d;
                attend(a, &mine, q + at, v + first, i, out + at, log_sum + (b * a->heads + h) * a->seq + i);
            }
    }
    free(memory);
    return FB_OK;
}

static void attend_backward(const lm_attention *a, const bench *b, const float *q, const float *k, const float *out, float log_sum,
                            const float *dout, int64_t i, float *dq, float *dk, float *dv)
{
    int64_t keys = i + 1, width = padded(a->seq), stride = a->kv_heads * a->head_dim, d = a->head_dim;
    float scale = (float)(1 / sqrt((double)d)), delta = dot(dout, out, d), *p = b->score, *ds = b->slope;
    weighted_rows(q, b->keys, width, d, padded(keys), p);
    weighted_rows(dout, b->values, width, d, padded(keys), ds);
    for (int64_t j = 0; j < keys; j++) p[j] = exponential(p[j] * scale - log_sum);
    for (int64_t j = 0; j < keys; j++) ds[j] = scale * p[j] * (ds[j] - delta);
    weighted_rows(ds, k, stride, keys, d, dq);
    for (int64_t j = 0; j < keys; j++)
        for (int64_t c = 0; c < d; c++) {
            dk[j * stride + c] += ds[j] * q[c];
            dv[j * stride + c] += p[j] * dout[c];
        }
}

fb_status NAME(lm_cpu_attention_backward)(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, const float *out,
                                          const float *log_sum, const float *dout, float *dq, float *dk, float *dv)
{
    int threads = team(ctx);
    int64_t d = a->head_dim, group = a->heads / a->kv_heads;
    float *memory = malloc((size_t)threads * bench_floats(a) * sizeof *memory);
    if (!memory) return no_memory(ctx);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < a->batch * a->kv_heads; task++) {
        int64_t b = task / a->kv_heads, kv = task % a->kv_heads, first = (b * a->seq * a->kv_heads + kv) * d;
        bench mine = bench_at(a, memory, omp_get_thread_num());
        transpose(a, k + first, mine.keys);
        transpose(a, v + first, mine.values);
        for (int64_t j = 0; j < a->seq; j++) {
            memset(dk + first + j * a->kv_heads * d, 0, (size_t)d * sizeof *dk);
            memset(dv + first + j * a->kv_heads * d, 0, (size_t)d * sizeof *dv);
        }
        for (int64_t h = kv * group; h < (kv + 1) * group; h++)
            for (int64_t i = 0; i < a->seq; i++) {
                int64_t at = ((b * a->seq + i) * a->heads + h) * d;
                attend_backward(a, &mine, q + at, k + first, out + at, log_sum[(b * a->heads + h) * a->seq + i], dout + at, i, dq + at, dk + first,
                                dv + first);
            }
    }
    free(memory);
    return FB_OK;
}

/* ---- one element at a time -------------------------------------------------------------------------------------------- */

#define FOR_CHUNKS(n)                                                                       \
    _Pragma("omp parallel for num_threads(team(ctx)) schedule(static)") for (int64_t begin = 0; begin < (n); begin += CHUNK) \
        for (int64_t i = begin, end = begin + CHUNK < (n) ? begin + CHUNK : (n); i < end; i++)

fb_status NAME(lm_cpu_swiglu)(fb_context *ctx, const float *gate, const float *up, int64_t n, float *out)
{
    FOR_CHUNKS(n) out[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
    return FB_OK;
}

fb_status NAME(lm_cpu_swiglu_backward)(fb_context *ctx, const float *dout, const float *gate, const float *up, int64_t n, float *dgate, float *dup)
{
    FOR_CHUNKS(n)
    {
        float g = gate[i], u = up[i], d = dout[i], s = 1.0f / (1.0f + exponential(-g));
        dgate[i] = d * u * (s + g * s * (1.0f - s));
        dup[i] = d * (g * s);
    }
    return FB_OK;
}

fb_status NAME(lm_cpu_add)(fb_context *ctx, const float *x, int64_t n, float *y)
{
    FOR_CHUNKS(n) y[i] += x[i];
    return FB_OK;
}

fb_status NAME(lm_cpu_add_row_sums)(fb_context *ctx, const float *x, double mean, int64_t m, int64_t n, int64_t k, float *y)
{
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t i = 0; i < m; i++) {
        float add = (float)(mean * (double)total(x + i * k, k));
        for (int64_t j = 0; j < n; j++) y[i * n + j] += add;
    }
    return FB_OK;
}

/* Four elements share their random words: whole quads at a time. */
#define FOR_QUADS(n, what)                                                                                 \
    _Pragma("omp parallel for num_threads(team(ctx)) schedule(static)") for (int64_t quad = 0; quad < fb_ceil_div(n, 4); quad++) { \
        fb_philox words = fb_dropout_words(seed, (uint64_t)quad);                                          \
        for (int64_t j = 0, i = 4 * quad; j < 4 && i < (n); j++, i++) {                                    \
            bool kept = words.v[j] >= threshold;                                                           \
            what;                                                                                          \
        }                                                                                                  \
    }

fb_status NAME(lm_cpu_drop)(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *z)
{
    FOR_QUADS(n, z[i] = kept ? x[i] : 0)
    return FB_OK;
}

fb_status NAME(lm_cpu_add_kept)(fb_context *ctx, const float *x, int64_t n, uint32_t threshold, uint64_t seed, float *y)
{
    FOR_QUADS(n, if (kept) y[i] += x[i])
    return FB_OK;
}

/* ---- loss ------------------------------------------------------------------------------------------------------------------ */

static void entropy_row(float *row, int64_t vocab, int32_t target, float scale, float *loss)
{
    float largest = greatest(row, vocab), sum = 0, at = target < 0 ? 0 : row[target];
    for (int64_t t = 0; t < vocab; t += CHUNK) {
        float e[LANES] = {0}, part[LANES];
        int64_t end = t + CHUNK < vocab ? t + CHUNK : vocab;
        for (int64_t c = t; c < end; c += LANES) {
            int64_t width = end - c < LANES ? end - c : LANES;
            for (int64_t l = 0; l < width; l++) part[l] = exponential(row[c + l] - largest);
            for (int64_t l = 0; l < width; l++) e[l] += part[l];
        }
        sum += total(e, LANES);
    }
    *loss = target < 0 ? 0 : (float)((double)largest + log((double)sum) - (double)at);
    if (scale == 0) return;
    float factor = target < 0 ? 0 : scale / sum;
    for (int64_t t = 0; t < vocab; t++) row[t] = factor * exponential(row[t] - largest);
    if (target >= 0) row[target] = (float)((double)row[target] - (double)scale);
}

fb_status NAME(lm_cpu_cross_entropy)(fb_context *ctx, float *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale, float *losses)
{
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t i = 0; i < n; i++) entropy_row(logits + i * vocab, vocab, targets[i], (float)scale, losses + i);
    return FB_OK;
}

fb_status NAME(lm_cpu_square_sums)(fb_context *ctx, const float *x, int64_t n, double *sums)
{
#pragma omp parallel for num_threads(team(ctx)) schedule(static)
    for (int64_t begin = 0; begin < n; begin += LM_SQUARE_CHUNK) {
        double lane[LANES] = {0};
        int64_t end = begin + LM_SQUARE_CHUNK < n ? begin + LM_SQUARE_CHUNK : n;
        for (int64_t i = begin; i < end; i += LANES)
            for (int64_t l = 0; l < LANES && i + l < end; l++) lane[l] += (double)x[i + l] * (double)x[i + l];
        for (int half = LANES / 2; half; half /= 2)
            for (int l = 0; l < half; l++) lane[l] += lane[l + half];
        sums[begin / LM_SQUARE_CHUNK] = lane[0];
    }
    return FB_OK;
}
