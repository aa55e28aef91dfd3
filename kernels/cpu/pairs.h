/* pairs.h: out [M, P] = A [M, L] * B [L, P] on bf16 units, B a quantized matrix read along its rows (gemm: its
 * transpose) or its columns (gemm_dx). Included after a header that defines pairs_product, tiles_begin and tiles_end.
 *
 *   A      is copied once, rows padded with zeros (whole steps of 32; apart in the cache's sets)
 *   panel  DEPTH of L x some columns of P, decoded to bf16 and laid out two by two, as the units want it:
 *
 *            tiles of 32 columns, each [DEPTH/2][32] pairs (B[l][p], B[l+1][p])
 *
 *          32 columns for gemm (32 KB, first-level cache), 128 for gemm_dx (a line of codes of each row)
 *   sums   fp32, in the output itself where that is fp32 and nothing is added, else in c [rows of A][WIDTH]
 *
 * A thread owns columns of P. W is never in memory as bf16 beyond the panel. */
#ifndef FOURBIT_CPU_PAIRS_H
#define FOURBIT_CPU_PAIRS_H

#include "decode.h"
#include "microkernel.h"

enum {
    STEP = 32,      /* of L: what a vector of pairs or a row of a tile holds */
    DEPTH = 512,    /* of L in a panel */
    WIDTH = 256,    /* most columns a thread takes at a time */
    ROWS = 256,     /* of A at a time */
    STRETCH = 128,  /* most columns in a panel */
    AHEAD = 32,      /* rows: what is read down columns, a page or more apart, is asked for so much earlier */
    LINE = DEPTH + STEP /* words of a decoded row */
};

/* ---- weights as bf16 ------------------------------------------------------------------ */

/* A block's 16 values. One that is subnormal becomes zero, as the product would have it. */
static inline lut16 block_words(const decoder *d, int64_t block)
{
    vf values = vf_load(d->values);
    if (d->zero_points) values = vf_sub(values, vf_set1((float)d->zero_points[block]));
    const __m256i words = (__m256i)_mm512_cvtneps_pbh(vf_mul(values, vf_set1(cpu_absmax(&d->scales, block))));
    return (lut16){_mm512_broadcast_i64x4(words)};
}

/* out[0 ... count-1] = weights from element begin on, zeros up to a whole step. */
static inline void decode_words(const decoder *d, int64_t begin, int64_t count, uint16_t *out)
{
    const int64_t end = begin + count;
    memset(out + count / STEP * STEP, 0, count % STEP ? STEP * sizeof *out : 0);
    for (int64_t i = begin; i < end;) {
        const int64_t block = i >> d->shift, stop = cpu_min((block + 1) << d->shift, end);
        const lut16 table = block_words(d, block);
        while (i < stop) {
            const int64_t group = i / GROUP * GROUP, next = cpu_min(group + GROUP, stop);
            if (next - i == GROUP) {
                decode32_16(&table, d->codes + i / 2, out, false);
            } else {
                uint8_t bytes[GROUP / 2];
                uint16_t words[GROUP];
                copy_group(d, group, bytes);
                decode32_16(&table, bytes, words, false);
                memcpy(out, words + (i - group), (size_t)(next - i) * sizeof *out);
            }
            out += next - i;
            i = next;
        }
    }
}

/* gemm: columns l ... l+depth-1 of W's rows p ... p+count-1. Rows that are not there are zeros. */
static void pack_rows(const decoder *d, int64_t cols, int64_t l, int64_t depth, int64_t p, int64_t count, uint16_t *lines, float *out)
{
    for (int64_t half = 0; half < TILE_COLS; half += VF) {
        for (int64_t r = 0; r < VF; r++) {
            const int64_t at = (p + half + r) * cols + l;
            if (half + r >= count) {
                memset(lines + r * LINE, 0, (size_t)cpu_round_up(depth, STEP) * sizeof *lines);
                continue;
            }
            for (int64_t i = 0; i < depth; i += 128) prefetch_line(d, at + DEPTH + i);
            decode_words(d, at, depth, lines + r * LINE);
        }
        for (int64_t k = 0; k < depth; k += STEP) {
            vf v[VF];
            for (int r = 0; r < VF; r++) v[r] = _mm512_castsi512_ps(_mm512_loadu_si512(lines + r * LINE + k));
            vf_transpose(v);
            for (int i = 0; i < VF; i++) vf_store(out + (k / 2 + i) * TILE_COLS + half, v[i]);
        }
    }
}

/* gemm_dx: rows l ... l+depth-1 of W, columns p ... p+count-1, a tile after another. */
static void pack_columns(const decoder *d, int64_t cols, int64_t l, int64_t depth, int64_t p, int64_t count, uint16_t *lines, float *out)
{
    const int64_t pairs = cpu_round_up(depth, STEP) / 2;
    __m512i order[2]; /* 16 columns of two rows: words 0 and 32, 1 and 33 ... */
    for (int half = 0; half < 2; half++) {
        uint16_t words[32];
        for (int i = 0; i < 32; i++) words[i] = (uint16_t)(half * 16 + i / 2 + i % 2 * 32);
        order[half] = _mm512_loadu_si512(words);
    }
    for (int64_t k = 0; k < 2 * pairs; k += 2) {
        for (int r = 0; r < 2; r++) {
            const int64_t at = (l + k + r) * cols + p;
            prefetch_line(d, at + AHEAD * cols);
            if (k + r < depth) decode_words(d, at, count, lines + r * STRETCH);
            else memset(lines + r * STRETCH, 0, STRETCH * sizeof *lines);
        }
        for (int64_t j = 0; j < count; j += TILE_COLS) {
            const __m512i a = _mm512_loadu_si512(lines + j), b = _mm512_loadu_si512(lines + STRETCH + j);
            float *at = out + j * pairs + k / 2 * TILE_COLS;
            for (int half = 0; half < 2; half++)
                vf_store(at + half * VF, _mm512_castsi512_ps(_mm512_permutex2var_epi16(a, order[half], b)));
        }
    }
}

#include "pairs_columns.h"

/* ---- workspace ------------------------------------------------------------------------- */

typedef struct pairs_space {
    int64_t stride;          /* words of a row of A */
    int64_t width;           /* columns a thread takes at a time */
    int64_t shared, private; /* floats */
    int threads;
} pairs_space;

/* unit: columns that a thread's are whole multiples of */
static pairs_space pairs_space_for(const fb_context *ctx, int64_t m, int64_t l, int64_t p, int64_t unit)
{
    const int64_t share = cpu_round_up(fb_ceil_div(p, 2 * cpu_max_threads(ctx)), unit);
    const int64_t width = cpu_min(WIDTH, share < unit ? unit : share);
    const int64_t stride = cpu_round_up(l, STEP) + STEP, rows = cpu_round_up(cpu_min(m, ROWS), 16);
    return (pairs_space){.stride = stride,
                         .width = width,
                         .shared = rows * stride / 2,
                         .private = VF * LINE / 2 + DEPTH / 2 * STRETCH + rows * WIDTH,
                         .threads = cpu_threads(ctx, fb_ceil_div(p, width))};
}

static size_t pairs_workspace(const pairs_space *s) { return (size_t)(s->shared + s->threads * s->private) * sizeof(float); }

/* ---- the product -------------------------------------------------------------------------- */

typedef struct pairs {
    const decoder *d;
    int64_t cols, l, p; /* of W; contracted; columns of the output */
    bool dx;
    bool steps; /* dx, rows of W whole steps: columns in the order of pairs_columns.h until they are written */
    const void *a, *bias; /* bf16 */
    void *out;
    fb_dtype t;
    bool accumulate;
} pairs;

/* Columns p ... p+count-1 of m rows, to c. */
static void pairs_columns(const pairs *q, const pairs_space *s, int64_t m, const uint16_t *a, int64_t p, int64_t count,
                          float *private, float *c, int64_t stride)
{
    const int64_t unit = q->dx ? STRETCH : TILE_COLS;
    float *panel = private + VF * LINE / 2;
    for (int64_t l = 0; l < q->l; l += DEPTH) {
        const int64_t depth = cpu_min(DEPTH, q->l - l), pairs = cpu_round_up(depth, STEP) / 2;
        for (int64_t j = 0; j < count; j += unit) {
            const int64_t n = cpu_min(unit, count - j);
            if (q->steps) pack_steps(q->d, q->cols, l, depth, pairs, p + j, AHEAD, panel);
            else (q->dx ? pack_columns : pack_rows)(q->d, q->cols, l, depth, p + j, n, (uint16_t *)private, panel);
            for (int64_t i = 0; i < n; i += TILE_COLS)
                pairs_product(m, n - i > VF ? 2 : 1, (const float *)(a + l), s->stride / 2, panel + i * pairs, TILE_COLS, pairs,
                              l == 0, c + j + i, stride);
        }
    }
    for (int64_t i = 0; !q->l && i < m; i++) memset(c + i * stride, 0, (size_t)count * sizeof *c);
}

/* c to columns p ... p+count-1 of `rows` rows of the output from `first` on. */
static void pairs_write(const pairs *q, const float *c, int64_t first, int64_t rows, int64_t p, int64_t count)
{
    float bias[WIDTH] = {0}, line[WIDTH], before[WIDTH];
    if (q->bias) to_float(q->bias, FB_BF16, p, count, bias);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = (first + i) * q->p + p;
        memcpy(line, c + i * WIDTH, (size_t)count * sizeof *line);
        if (q->steps) dx_restore(line, count);
        if (q->accumulate) to_float(q->out, q->t, at, count, before);
        for (int64_t j = 0; j < count; j++) line[j] += q->accumulate ? before[j] : bias[j];
        from_float(line, count, q->out, q->t, at);
    }
}

static void pairs_run(const pairs *q, const pairs_space *s, float *space, int64_t m)
{
    const bool direct = q->t == FB_F32 && !q->bias && !q->accumulate && !q->steps && q->p % VF == 0;
    uint16_t *a = (uint16_t *)space;
    for (int64_t first = 0; first < m; first += ROWS) {
        const int64_t rows = cpu_min(ROWS, m - first);
#pragma omp parallel num_threads(s->threads)
        {
            tiles_begin();
#pragma omp for schedule(static)
            for (int64_t i = 0; i < cpu_round_up(rows, 16); i++) {
                const int64_t n = i < rows ? q->l : 0;
                if (n) memcpy(a + i * s->stride, (const uint16_t *)q->a + (first + i) * q->l, (size_t)n * sizeof *a);
                memset(a + i * s->stride + n, 0, (size_t)(s->stride - n) * sizeof *a);
            }
            float *private = space + s->shared + omp_get_thread_num() * s->private;
            float *c = private + s->private - cpu_round_up(cpu_min(m, ROWS), 16) * WIDTH;
#pragma omp for schedule(dynamic)
            for (int64_t p = 0; p < q->p; p += s->width) {
                const int64_t count = cpu_min(s->width, q->p - p);
                if (direct) pairs_columns(q, s, rows, a, p, count, private, (float *)q->out + first * q->p + p, q->p);
                else pairs_columns(q, s, rows, a, p, count, private, c, WIDTH);
                if (!direct) pairs_write(q, c, first, rows, p, count);
            }
            tiles_end();
        }
    }
}

#endif
