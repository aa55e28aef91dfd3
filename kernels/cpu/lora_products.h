/* lora_products.h: the four thin products of a LoRA layer, in fp32. Included by lora_kernel.h.
 *
 *   make_u    U  [M, r] = f Z A^T    both rows run along k: vectors along k, sums of 4 x 3 rows in registers
 *   make_du   dU [M, r] = f dY B     rows of B are vectors, dY is broadcast: the microkernel as gemm has it
 *   gradient  dA, dB                 sums over M: U or dU transposed is broadcast, rows of Z or dY are vectors
 *   expand    U B^T, dU A            depth r: a panel of B or A in fp32 for many rows of U or dU
 *
 * Every operand is brought to fp32 in pieces that stay in the cache and serve at least ROWS rows. An element's
 * order of summation does not depend on which thread or tile makes it. */
#ifndef FOURBIT_CPU_LORA_PRODUCTS_H
#define FOURBIT_CPU_LORA_PRODUCTS_H

#include "dropped.h"

enum {
    ROWS = 32,     /* rows of activations a task takes at a time */
    STRETCH = 512, /* columns of X and A at a time, make_u */
    DEPTH = 128,   /* rows of B at a time, make_du; of Z or dY, gradient */
    WIDTH = 128,   /* columns of a task: gradient, expand */
    PAD = 16,      /* a stride that is no power of two: rows fall into different cache sets */
    RANK = FB_LORA_RANK_MAX,
    FEW = 4,       /* as many rows of activations read A and B as they lie, without a copy in fp32 */
    SPREAD = 64    /* below as many rows of activations, tasks share out the rank, too */
};

/* Threads for products of `terms` terms in all: under some 20 us of work another thread is not worth waking. */
static int threads_for(const fb_context *ctx, int64_t tasks, double terms)
{
    return terms < 1 << 17 ? 1 : cpu_threads(ctx, tasks);
}

/* Part of the ranks that a task of make_u or make_du makes. */
static int64_t rank_part(int64_t m, int64_t rank) { return m < SPREAD ? cpu_min(rank, TILE_COLS) : rank; }

/* A matrix of activations; where threshold is not 0, with its dropped elements 0. */
typedef struct source {
    const void *p;
    fb_dtype t;
    int64_t cols;
    uint64_t seed;
    uint32_t threshold;
} source;

/* n elements of a row from column col on, zeros up to two whole vectors */
static void load_row(const source *s, int64_t row, int64_t col, int64_t n, float *out)
{
    const int64_t at = row * s->cols + col;
    to_float(s->p, s->t, at, n, out);
    drop(s->seed, s->threshold, at, n, out);
    for (int64_t i = n; i % (2 * VF); i++) out[i] = 0;
}

/* ---- U ---------------------------------------------------------------------------------- */

/* sums[i][j] += row i of x times row j of a; depth in whole vectors. rows and cols are constants at every call. */
ALWAYS_INLINE void dots(const int rows, const int cols, const float *x, const float *a, int64_t stride, int64_t depth,
                        float *sums, int64_t sums_stride)
{
    vf sum[4][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) sum[i][j] = vf_zero();
    for (int64_t k = 0; k < depth; k += VF) {
        vf ak[4];
        for (int j = 0; j < cols; j++) ak[j] = vf_load(a + j * stride + k);
        for (int i = 0; i < rows; i++) {
            const vf xk = vf_load(x + i * stride + k);
            for (int j = 0; j < cols; j++) sum[i][j] = vf_fma(xk, ak[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) sums[i * sums_stride + j] += vf_sum(sum[i][j]);
}

/* One stretch: `count` rows of x with `ranks` rows of A (from its row r on). */
static void add_dots(const float *x, int64_t count, const source *a, int64_t r, int64_t ranks, int64_t k, int64_t depth,
                     float *sums)
{
    enum { AT_ONCE = 4 };
    float rows[AT_ONCE][STRETCH + PAD];
    const int64_t padded = cpu_round_up(depth, VF);
    const int64_t step = count >= 4 ? 3 : AT_ONCE; /* 4 x 3 sums fill the registers; 1 x 4 hide the fma's latency */
    for (int64_t j = 0; j < ranks; j += step) {
        const int64_t n = cpu_min(step, ranks - j);
        for (int64_t l = 0; l < n; l++) load_row(a, r + j + l, k, depth, rows[l]);
        int64_t i = 0;
        for (; n == 3 && count - i >= 4; i += 4)
            dots(4, 3, x + i * (STRETCH + PAD), rows[0], STRETCH + PAD, padded, sums + i * RANK + j, RANK);
        for (; n < 3 && count - i >= 4; i += 4)
            for (int64_t l = 0; l < n; l++)
                dots(4, 1, x + i * (STRETCH + PAD), rows[l], STRETCH + PAD, padded, sums + i * RANK + j + l, RANK);
        for (; n == 4 && i < count; i++)
            dots(1, 4, x + i * (STRETCH + PAD), rows[0], STRETCH + PAD, padded, sums + i * RANK + j, RANK);
        for (; i < count; i++)
            for (int64_t l = 0; l < n; l++)
                dots(1, 1, x + i * (STRETCH + PAD), rows[l], STRETCH + PAD, padded, sums + i * RANK + j + l, RANK);
    }
}

/* sums[i] += row i of x (zeros up to two whole vectors) times n elements of a's row from column col on. A and B are read
 * once: nothing is gained by a copy. rows is a constant at every call. */
ALWAYS_INLINE void thin(const int rows, const float *x, int64_t stride, const source *a, int64_t row, int64_t col, int64_t n,
                        float *sums, int64_t sums_stride)
{
    const int64_t at = row * a->cols + col, whole = n / (2 * VF) * (2 * VF);
    vf sum[FEW][2];
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = vf_zero();
#define THIN(type)                                                                                   \
    for (int64_t k = 0; k < whole; k += 2 * VF)                                                      \
        for (int h = 0; h < 2; h++) {                                                                \
            const vf ak = vf_load_as(a->p, type, at + k + h * VF);                                   \
            for (int i = 0; i < rows; i++)                                                           \
                sum[i][h] = vf_fma(vf_load(x + i * stride + k + h * VF), ak, sum[i][h]);             \
        }
    if (a->t == FB_F32) THIN(FB_F32) else if (a->t == FB_BF16) THIN(FB_BF16) else THIN(FB_F16)
#undef THIN
    if (whole < n) {
        float rest[2 * VF];
        load_row(a, row, col + whole, n - whole, rest);
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < rows; i++)
                sum[i][h] = vf_fma(vf_load(x + i * stride + whole + h * VF), vf_load(rest + h * VF), sum[i][h]);
    }
    for (int i = 0; i < rows; i++) sums[i * sums_stride] += vf_sum(vf_add(sum[i][0], sum[i][1]));
}

/* m <= FEW rows of x times `count` rows of a. */
static void thin_rows(int64_t m, const float *x, int64_t stride, const source *a, int64_t row, int64_t count, int64_t col,
                      int64_t n, float *sums, int64_t sums_stride)
{
    for (int64_t j = 0; j < count; j++) {
        if (m == 1) thin(1, x, stride, a, row + j, col, n, sums + j, sums_stride);
        else if (m == 2) thin(2, x, stride, a, row + j, col, n, sums + j, sums_stride);
        else if (m == 3) thin(3, x, stride, a, row + j, col, n, sums + j, sums_stride);
        else thin(4, x, stride, a, row + j, col, n, sums + j, sums_stride);
    }
}

static void make_u(const fb_context *ctx, const source *z, int64_t m, const fb_lora *lora, void *u)
{
    const int64_t rank = lora->rank, part = rank_part(m, rank), parts = fb_ceil_div(rank, part);
    const int64_t tasks = fb_ceil_div(m, ROWS) * parts;
    const source a = {.p = lora->a, .t = z->t, .cols = z->cols};
    const float factor = fb_lora_factor(lora);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(ctx, tasks, (double)m * (double)rank * (double)z->cols))
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t row = task / parts * ROWS, count = cpu_min(ROWS, m - row);
        const int64_t r = task % parts * part, ranks = cpu_min(part, rank - r);
        float x[ROWS][STRETCH + PAD], sums[ROWS][RANK];
        for (int64_t i = 0; i < count; i++) memset(sums[i], 0, (size_t)ranks * sizeof sums[i][0]);
        for (int64_t k = 0; k < z->cols; k += STRETCH) {
            const int64_t depth = cpu_min(STRETCH, z->cols - k);
            for (int64_t i = 0; i < count; i++) load_row(z, row + i, k, depth, x[i]);
            if (m <= FEW) thin_rows(m, x[0], STRETCH + PAD, &a, r, ranks, k, depth, sums[0], RANK);
            else add_dots(x[0], count, &a, r, ranks, k, depth, sums[0]);
        }
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < ranks; j++) fb_store(u, z->t, (row + i) * rank + r + j, factor * sums[i][j]);
    }
}

/* ---- dU --------------------------------------------------------------------------------- */

static void make_du(const fb_context *ctx, const source *dy, int64_t m, const fb_lora *lora, float *du)
{
    const int64_t rank = lora->rank, part = rank_part(m, rank), parts = fb_ceil_div(rank, part);
    const int64_t tasks = fb_ceil_div(m, ROWS) * parts;
    const source b = {.p = lora->b, .t = dy->t, .cols = rank};
    const float factor = fb_lora_factor(lora);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(ctx, tasks, (double)m * (double)rank * (double)dy->cols))
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t row = task / parts * ROWS, count = cpu_min(ROWS, m - row);
        const int64_t r = task % parts * part, ranks = cpu_min(part, rank - r), padded = cpu_round_up(ranks, VF);
        float panel[DEPTH][RANK + PAD], y[ROWS][DEPTH + PAD], sums[ROWS][RANK];
        for (int64_t i = 0; i < count; i++) memset(sums[i], 0, (size_t)padded * sizeof sums[i][0]);
        for (int64_t n = 0; n < dy->cols; n += DEPTH) {
            const int64_t depth = cpu_min(DEPTH, dy->cols - n);
            for (int64_t l = 0; l < depth; l++) load_row(&b, n + l, r, ranks, panel[l]);
            for (int64_t i = 0; i < count; i++) load_row(dy, row + i, n, depth, y[i]);
            for (int64_t j = 0; j < padded; j += TILE_COLS)
                product(count, padded - j >= TILE_COLS ? 2 : 1, y[0], DEPTH + PAD, panel[0] + j, RANK + PAD, depth, false,
                        sums[0] + j, RANK);
        }
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < ranks; j++) du[(row + i) * rank + r + j] = factor * sums[i][j];
    }
}

/* ---- dA, dB ----------------------------------------------------------------------------- */

/* out [rank][cols], or [cols][rank] where by_column, (+)= (terms [m][rank])^T s [m][cols]; across: terms transposed,
 * [rank][stride]. */
static void gradient(const fb_context *ctx, const float *across, int64_t stride, int64_t m, int64_t rank, const source *s,
                     float *out, bool by_column, bool accumulate)
{
    const int64_t tasks = fb_ceil_div(s->cols, WIDTH);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(ctx, tasks, (double)m * (double)rank * (double)s->cols))
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t col = task * WIDTH, count = cpu_min(WIDTH, s->cols - col), padded = cpu_round_up(count, VF);
        float panel[DEPTH][WIDTH + PAD], sums[RANK][WIDTH];
        for (int64_t r = 0; r < rank; r++) memset(sums[r], 0, (size_t)padded * sizeof sums[r][0]);
        for (int64_t row = 0; row < m; row += DEPTH) {
            const int64_t depth = cpu_min(DEPTH, m - row);
            for (int64_t i = 0; i < depth; i++) load_row(s, row + i, col, count, panel[i]);
            for (int64_t j = 0; j < padded; j += TILE_COLS)
                product(rank, padded - j >= TILE_COLS ? 2 : 1, across + row, stride, panel[0] + j, WIDTH + PAD, depth,
                        false, sums[0] + j, WIDTH);
        }
        for (int64_t i = 0; i < (by_column ? count : rank); i++) {
            const int64_t n = by_column ? rank : count;
            float *at = by_column ? out + (col + i) * rank : out + i * s->cols + col, line[RANK > WIDTH ? RANK : WIDTH];
            for (int64_t j = 0; by_column && j < n; j++) line[j] = sums[j][i];
            const float *made = by_column ? line : sums[i];
            if (accumulate) for (int64_t j = 0; j < n; j++) at[j] += made[j];
            else memcpy(at, made, (size_t)n * sizeof *at);
        }
    }
}

/* ---- U B^T, dU A ------------------------------------------------------------------------ */

/* Where to the product of rank-r operands goes. */
typedef struct target {
    const float *base; /* [m][cols]: what it is added to; may be out itself */
    void *out;         /* rows first ... first+m-1 of [][cols] */
    fb_dtype t;
    int64_t first, cols;
    bool accumulate;   /* out's old contents, too */
    uint64_t seed;     /* threshold not 0: where the element of out is dropped, nothing is added to base */
    uint32_t threshold;
} target;

static void finish_row(const target *to, int64_t row, int64_t col, int64_t n, float *sums)
{
    const int64_t at = (to->first + row) * to->cols + col;
    const float *base = to->base + row * to->cols + col;
    drop(to->seed, to->threshold, at, n, sums);
    for (int64_t i = 0; i < n; i++) sums[i] += base[i];
    if (to->accumulate) {
        float before[WIDTH];
        to_float(to->out, to->t, at, n, before);
        for (int64_t i = 0; i < n; i++) sums[i] += before[i];
    }
    from_float(sums, n, to->out, to->t, at);
}

/* factors: A [rank][cols], or B [cols][rank] where by_column. */
static void expand(const fb_context *ctx, const float *u, int64_t m, int64_t rank, const source *factors, bool by_column,
                   const target *to)
{
    const int64_t tasks = fb_ceil_div(to->cols, WIDTH);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(ctx, tasks, (double)m * (double)rank * (double)to->cols))
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t col = task * WIDTH, count = cpu_min(WIDTH, to->cols - col), padded = cpu_round_up(count, VF);
        float panel[RANK][WIDTH + PAD], sums[ROWS][WIDTH];
        if (by_column && m <= FEW) {
            const source rows = {.p = u, .t = FB_F32, .cols = rank};
            float line[FEW][RANK + PAD];
            for (int64_t i = 0; i < m; i++) load_row(&rows, i, 0, rank, line[i]);
            memset(sums[0], 0, (size_t)m * sizeof sums[0]);
            thin_rows(m, line[0], RANK + PAD, factors, col, count, 0, rank, sums[0], WIDTH);
            for (int64_t i = 0; i < m; i++) finish_row(to, i, col, count, sums[i]);
            continue;
        }
        for (int64_t r = 0; !by_column && r < rank; r++) load_row(factors, r, col, count, panel[r]);
        for (int64_t c = 0; by_column && c < padded; c++) {
            float line[RANK] = {0};
            if (c < count) load_row(factors, col + c, 0, rank, line);
            for (int64_t r = 0; r < rank; r++) panel[r][c] = line[r];
        }
        for (int64_t row = 0; row < m; row += ROWS) {
            const int64_t rows = cpu_min(ROWS, m - row);
            for (int64_t j = 0; j < padded; j += TILE_COLS)
                product(rows, padded - j >= TILE_COLS ? 2 : 1, u + row * rank, rank, panel[0] + j, WIDTH + PAD, rank, true,
                        sums[0] + j, WIDTH);
            for (int64_t i = 0; i < rows; i++) finish_row(to, row + i, col, count, sums[i]);
        }
    }
}

#endif
