/* gemm_dx_pairs_few.h: gemm_dx on vdpbf16ps for few rows of dY. Included by gemm_dx_pairs.h.
 *
 * A thread owns columns, as many as whose sums, fp32, stay in the nearest caches, and goes along them with four rows of W at
 * a time, decoded in registers (pairs_columns.h): a load and a store of 16 sums for 64 weights, each of which it multiplies
 * with every row of dY. */
#ifndef FOURBIT_CPU_GEMM_DX_PAIRS_FEW_H
#define FOURBIT_CPU_GEMM_DX_PAIRS_FEW_H

#include "pairs_columns.h"

enum {
    DX_ROWS = 4,         /* of W at a time */
    DX_FAR = 8192,       /* bytes: codes are asked for at least so much earlier */
    DX_BATCH = 8,        /* steps whose tables are made at a time, before what waits for them (gemm_pairs_few.h) */
    DX_SUMS = 16384,     /* most sums, 64 KB; one row's: 32 (DX_WIDTH) */
    DX_APART = 256       /* sums of two rows of dY not at the same place in a page, or loads wait for stores that they do not depend on */
};

/* c [m][width + DX_APART] += dy [m][rows], `count` of them from `row` on, times DX_ROWS rows of W, columns col ... col+width-1. m is a constant. */
ALWAYS_INLINE void dx_along(const int blocks, const int m, const decoder *d, int64_t row, int64_t count, int64_t rows, int64_t col, int64_t width,
                            int64_t cols, const uint16_t *dy, float *c)
{
    float decoded[DX_ROWS][DX_WIDTH / 32 + 1];
    few_source s[DX_ROWS];
    const vf values = vf_load(d->values);
    dx_open(d, row * cols + col, DX_ROWS, count, cols, width, decoded, s);
    vf y[CPU_PAIRS_DX_FEW][DX_ROWS / 2];
    for (int j = 0; j < m; j++) {
        uint16_t four[DX_ROWS] = {0};
        memcpy(four, dy + j * rows + row, (size_t)cpu_min(DX_ROWS, count) * sizeof *four);
        for (int p = 0; p < DX_ROWS / 2; p++) y[j][p] = _mm512_castsi512_ps(_mm512_set1_epi32((int)(four[2 * p] | (uint32_t)four[2 * p + 1] << 16)));
    }
    const uint8_t *codes[DX_ROWS];
    for (int r = 0; r < DX_ROWS; r++) codes[r] = s[r].codes;
    int64_t next = cpu_round_up(2 * DX_FAR / width, DX_ROWS) * cols / 2, asked = 0; /* rows, one after another: where, and bytes of its columns */
    const int halves = blocks == 1 ? 1 : 2; /* that have tables of their own, */
    const int tables = blocks == 4 ? 2 : 1; /* so many */
    for (int64_t begin = 0; begin < width; begin += DX_BATCH * FEW_STEP) {
        const int64_t end = cpu_min(begin + DX_BATCH * FEW_STEP, width);
        __m512i table[DX_BATCH][2][DX_ROWS]; /* by step, half, pair of rows */
        for (int64_t k = begin; k < end; k += FEW_STEP)
            for (int h = 0; h < halves; h++)
                for (int p = 0; p < DX_ROWS / 2; p++) {
                    const dx_tables t = dx_tables_at(blocks, h, d->shift, s + 2 * p, values, k);
                    for (int i = 0; i < tables; i++) table[(k - begin) / FEW_STEP][h][p * tables + i] = t.of[i];
                }
        for (int64_t k = begin; k < end; k += FEW_STEP) {
            for (int r = 0; r < DX_ROWS; r++) {
                few_ask(codes[0], next + asked);
                asked += FEW_STEP / 2;
                if (asked == width / 2) next += cols / 2, asked = 0;
            }
            for (int h = 0; h < 2; h++) {
                vf w[DX_ROWS / 2][DX_HALF];
                for (int p = 0; p < DX_ROWS / 2; p++) {
                    const __m512i *at = table[(k - begin) / FEW_STEP][h % halves] + p * tables;
                    const dx_tables t = {{at[0], at[tables - 1]}};
                    dx_decode(blocks, h, &t, codes[2 * p] + k / 2, codes[2 * p + 1] + k / 2, w[p]);
                }
                for (int j = 0; j < m; j++)
                    for (int o = 0; o < DX_HALF; o++) {
                        float *at = c + j * (width + DX_APART) + k + h * (FEW_STEP / 2) + o * VF;
                        vf sum = vf_load(at);
                        for (int p = 0; p < DX_ROWS / 2; p++) sum = few_add(sum, w[p][o], y[j][p]);
                        vf_store(at, sum);
                    }
            }
        }
    }
}
typedef void dx_function(const decoder *, int64_t row, int64_t count, int64_t rows, int64_t col, int64_t width, int64_t cols,
                         const uint16_t *dy, float *c);
#define DX_FUNCTION(blocks, m)                                                                                                    \
    static __attribute__((noinline)) void dx_##blocks##_##m(const decoder *d, int64_t row, int64_t count, int64_t rows, int64_t col, \
                                                            int64_t width, int64_t cols, const uint16_t *dy, float *c)             \
    {                                                                                                                             \
        dx_along(blocks, m, d, row, count, rows, col, width, cols, dy, c);                                                        \
    }
#define DX_FUNCTIONS(blocks) DX_FUNCTION(blocks, 1) DX_FUNCTION(blocks, 2) DX_FUNCTION(blocks, 3) DX_FUNCTION(blocks, 4)
DX_FUNCTIONS(1)
DX_FUNCTIONS(2)
DX_FUNCTIONS(4)
static dx_function *const dx_functions[3][CPU_PAIRS_DX_FEW] = {
    {dx_1_1, dx_1_2, dx_1_3, dx_1_4}, {dx_2_1, dx_2_2, dx_2_3, dx_2_4}, {dx_4_1, dx_4_2, dx_4_3, dx_4_4}};

static void gemm_dx_few(fb_context *ctx, const fb_matrix *w, const decoder *d, int64_t m, const uint16_t *dy, void *dx, fb_dtype t,
                        bool accumulate)
{
    const int64_t rows = w->rows, cols = w->cols, most = cpu_min(DX_WIDTH, DX_SUMS / m / FEW_STEP * FEW_STEP);
    const int64_t width = cpu_min(most, cpu_round_up(fb_ceil_div(cols, cpu_max_threads(ctx)), FEW_STEP)), parts = fb_ceil_div(cols, width);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, parts))
    for (int64_t i = 0; i < parts; i++) {
        _Alignas(64) float c[DX_SUMS + CPU_PAIRS_DX_FEW * DX_APART];
        float before[DX_WIDTH];
        const int64_t col = i * width, count = cpu_min(width, cols - col);
        memset(c, 0, (size_t)(m * (count + DX_APART)) * sizeof *c);
        for (int64_t row = 0; row < rows; row += DX_ROWS)
            dx_functions[few_kind(d)][m - 1](d, row, rows - row, rows, col, count, cols, dy, c);
        for (int64_t j = 0; j < m; j++) {
            float *line = c + j * (count + DX_APART);
            dx_restore(line, count);
            if (accumulate) to_float(dx, t, j * cols + col, count, before);
            for (int64_t k = 0; accumulate && k < count; k++) line[k] += before[k];
            from_float(line, count, dx, t, j * cols + col);
        }
    }
}

#endif
