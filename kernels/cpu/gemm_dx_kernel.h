/* gemm_dx_kernel.h: dX [M, K] = dY [M, N] W, W [N, K] quantized; the backward of gemm.
 *
 *   bytes, FLOPs and bound: gemm's
 *
 * The sum runs over W's rows while codes are packed along its columns, so a vector holds
 * neighbouring columns and dY is broadcast:
 *   few    M <= 2, rows that start on a group: 32 columns x M accumulators in registers go
 *          down FEW_DEPTH rows of W; what dY[row] * absmax comes to is worked out before, once for
 *          each row and group.
 *   panel  any M: DEPTH rows x COLS columns of W decoded into a panel; dY, in fp32, is the
 *          broadcast operand of the microkernel as it lies.
 * A thread owns columns: every sum is one thread's, in the order of the rows. No copy of W
 * in any type: a panel is 130 KB.
 *
 * Versions (as in gemm_kernel.h; 8192 x 8192):
 *   1  columns in registers down 16 rows; panels of 64 x 256: M = 1, 4, 16 in 16, 50, 75 ms
 *   2  512 columns a visit, codes of 16 rows copied off the cache set they share: 15, 44, 67 ms
 *   3  1024 columns, the next rows' lines asked for between two decodes, not all at once before them (which
 *      gained nothing: the line in demand waits behind them): 9, 33, 52 ms. Was memory latency: a row is
 *      a page or more from the next
 *   4  M >= 96: panels of 256 x 128 in tiles, dY as it lies, sums to dX itself: against OpenBLAS sgemm's time in the same
 *      rounds (fp32, M = 256), N = K = 64, 256, 512: from 1.51, 1.22, 1.07 of it to 0.83, 0.93, 0.99
 *   Tiles of 16 columns instead of rows in the panel at small M: 10 % slower, dropped. M = 256: 57 to 63 GFLOP/s.
 *   AVX-512 (as in gemm_kernel.h): M = 1, 4, 16, 64, 256 in 0.91, 1.4, 3.1, 12 and 35 ms.
 *
 *     make bench FILTER=gemm_dx/cpu
 */
#include "decode.h"
#include "microkernel.h"

enum {
    FEW = 2,
    FEW_DEPTH = 16,
    COLS = 1024,     /* most columns a thread takes at a time: the next row is often another page */
    DEPTH = 32,      /* rows of W in a panel */
    TALL = 96,       /* rows of dY from which on arithmetic outweighs latency: panels are then */
    COLS_TALL = 128, /* narrow (a line of codes) */
    DEPTH_TALL = 256, /* and deep */
    PANEL_PAD = 16, /* rows of a panel fall into different cache sets */
    MC = 512
};

/* FB_BATCH_INVARIANT: one way at any M, as in gemm. */
static bool takes_few(const fb_context *ctx, const fb_matrix *w, int64_t m)
{
    return m <= FEW && w->cols % GROUP == 0 && !(ctx->flags & FB_BATCH_INVARIANT);
}
static bool takes_tall(const fb_context *ctx, int64_t m) { return m >= TALL || ctx->flags & FB_BATCH_INVARIANT; }

typedef struct dx_space {
    int64_t stride;          /* of dY in fp32; W's rows: as it lies */
    int64_t width;           /* columns a thread takes at a time */
    int64_t depth;           /* rows of W in a panel: not by the threads, as sums are begun anew in each */
    int64_t shared, private; /* floats */
    int threads;
} dx_space;

static dx_space dx_space_for(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const int64_t cols = w->cols ? w->cols : 1; /* a width of 0 would be divided by */
    const int64_t share = cpu_round_up(fb_ceil_div(cols, 2 * cpu_max_threads(ctx)), 64);
    const int64_t width = cpu_min(takes_tall(ctx, m) ? COLS_TALL : COLS, share);
    const int64_t count = cpu_min(m, MC), stride = cpu_round_up(w->rows, 16) + 16;
    dx_space s = {.stride = stride,
                  .width = width,
                  .depth = takes_tall(ctx, m) ? DEPTH_TALL : DEPTH,
                  .shared = count * stride,
                  .threads = cpu_threads(ctx, fb_ceil_div(cols, width))};
    if (takes_few(ctx, w, m)) return s;
    s.private = s.depth * (width + PANEL_PAD) + count * width;
    if (t == FB_F32 && spread(w->rows)) s.stride = w->rows, s.shared = 0;
    return s;
}

size_t ISA(cpu_gemm_dx_workspace)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const dx_space s = dx_space_for(ctx, w, m, t);
    return (size_t)(s.shared + s.threads * s.private) * sizeof(float);
}

/* c [count][stride] to columns at ... of dX */
static void write_dx(const float *c, int64_t stride, int64_t rows, int64_t count, void *dx, fb_dtype t, int64_t at,
                     int64_t dx_stride, bool accumulate)
{
    for (int64_t j = 0; j < rows; j++) {
        float line[COLS], before[COLS];
        memcpy(line, c + j * stride, (size_t)count * sizeof *line);
        if (accumulate) {
            to_float(dx, t, at + j * dx_stride, count, before);
            for (int64_t i = 0; i < count; i++) line[i] += before[i];
        }
        from_float(line, count, dx, t, at + j * dx_stride);
    }
}

/* ---- few ------------------------------------------------------------------------------ */

/* c [m][COLS] += dY rows' elements row ... row+depth-1 times `count` columns from col on
 * (whole groups). wide and m are constants at every call. */
ALWAYS_INLINE void few_columns(const bool wide, const int m, const decoder *d, int64_t row, int64_t depth, int64_t col,
                               int64_t count, int64_t cols, const float *dy, int64_t dy_stride, float *c)
{
    const int step = wide ? WIDE : GROUP, halves = wide ? 2 : 1, vectors = step / VF / halves;
    float factor[COLS / GROUP][FEW_DEPTH][FEW];
    uint8_t codes[FEW_DEPTH][COLS / 2]; /* rows a power of two apart evict each other from the first-level cache */
    for (int64_t r = 0; r < depth; r++) {
        for (int64_t g = 0; g < count / step; g++) {
            const float absmax = cpu_absmax(&d->scales, ((row + r) * cols + col + g * step) >> d->shift);
            for (int j = 0; j < m; j++) factor[g][r][j] = dy[j * dy_stride + row + r] * absmax;
        }
        memcpy(codes[r], d->codes + ((row + r) * cols + col) / 2, (size_t)count / 2);
    }
    for (int64_t part = 0; part < count / step * halves; part++) {
        const int64_t g = part / halves;
        float *out = c + part * vectors * VF;
        vf sum[FEW][GV], code[GV];
        for (int j = 0; j < m; j++)
            for (int v = 0; v < vectors; v++) sum[j][v] = vf_load(out + j * COLS + v * VF);
        for (int64_t r = 0; r < depth; r++) {
            const int64_t i = (row + r) * cols + col + g * step;
            if (part % 4 == 0) prefetch_line(d, i + FEW_DEPTH * cols);
            const lutv table = block_lut(d, i >> d->shift);
            if (wide) decode_half(&table, codes[r] + g * step / 2, part % 2, code);
            else decode32(&table, codes[r] + g * step / 2, code);
            for (int j = 0; j < m; j++)
                for (int v = 0; v < vectors; v++)
                    sum[j][v] = vf_fma(code[v], vf_set1(factor[g][r][j]), sum[j][v]);
        }
        for (int j = 0; j < m; j++)
            for (int v = 0; v < vectors; v++) vf_store(out + j * COLS + v * VF, sum[j][v]);
    }
}

/* From the order of the halves to the columns'. */
static void restore_wide(float *c, int64_t n)
{
    for (int64_t i = 0; i < n; i += WIDE) {
        float group[WIDE];
        memcpy(group, c + i, sizeof group);
        for (int j = 0; j < WIDE; j++) c[i + wide_element(j)] = group[j];
    }
}

static void dx_few(const fb_matrix *w, const decoder *d, int64_t m, const float *dy, dx_space s, void *dx, fb_dtype t,
                   bool accumulate)
{
    const int64_t rows = w->rows, cols = w->cols;
    const bool wide = w->block_size % WIDE == 0 && cols % WIDE == 0;
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (int64_t col = 0; col < cols; col += s.width) {
        const int64_t count = cpu_min(s.width, cols - col);
        float c[FEW * COLS];
        memset(c, 0, sizeof c);
        for (int64_t row = 0; row < rows; row += FEW_DEPTH) {
            const int64_t depth = cpu_min(FEW_DEPTH, rows - row);
            if (wide && m == 1) few_columns(true, 1, d, row, depth, col, count, cols, dy, s.stride, c);
            else if (wide) few_columns(true, 2, d, row, depth, col, count, cols, dy, s.stride, c);
            else if (m == 1) few_columns(false, 1, d, row, depth, col, count, cols, dy, s.stride, c);
            else few_columns(false, 2, d, row, depth, col, count, cols, dy, s.stride, c);
        }
        if (wide) restore_wide(c, FEW * COLS);
        write_dx(c, COLS, m, count, dx, t, col, cols, accumulate);
    }
}

/* ---- panel ---------------------------------------------------------------------------- */

/* Where a panel has row r, column i: r * row + i / TILE_COLS * tile + i % TILE_COLS. In rows, as they are decoded, while
 * decoding is what counts; in tiles, which the microkernel reads in sequence, once a panel serves many rows of dY. */
typedef struct layout {
    int64_t row, tile;
} layout;

static layout panel_layout(const fb_context *ctx, const dx_space *s, int64_t m)
{
    return takes_tall(ctx, m) ? (layout){TILE_COLS, s->depth * TILE_COLS} : (layout){s->width + PANEL_PAD, TILE_COLS};
}

/* `depth` rows of W from `row` on, `count` columns from `col` on, zeros up to `padded`. */
static void decode_panel(const decoder *d, int64_t row, int64_t depth, int64_t ahead, int64_t col, int64_t count,
                         int64_t padded, int64_t cols, layout l, float *panel)
{
    for (int64_t r = 0; r < depth; r++) {
        float buffer[COLS_TALL], *line = l.row == TILE_COLS ? buffer : panel + r * l.row;
        const int64_t at = (row + r) * cols + col;
        for (int64_t i = 0; i < count; i += 128) prefetch_line(d, at + ahead * cols + i);
        decode_span(d, at, count, line);
        for (int64_t i = count; i < padded; i++) line[i] = 0;
        for (int64_t i = 0; line == buffer && i < padded; i += VF)
            vf_store(panel + r * l.row + i / TILE_COLS * l.tile + i % TILE_COLS, vf_load(line + i));
    }
}

/* dX's rows first ... first+m-1 from as many of dY. Into dX itself where it is fp32 and what is there counts for nothing. */
static void dx_panels(const fb_matrix *w, const decoder *d, int64_t m, const float *dy, dx_space s, layout l,
                      float *private, void *dx, fb_dtype t, int64_t first, bool accumulate)
{
    const int64_t rows = w->rows, cols = w->cols;
    const bool direct = t == FB_F32 && !accumulate && cols % VF == 0 && rows;
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (int64_t col = 0; col < cols; col += s.width) {
        const int64_t count = cpu_min(s.width, cols - col), padded = cpu_round_up(count, VF);
        float *panel = private + omp_get_thread_num() * s.private, *c = panel + s.depth * (s.width + PANEL_PAD);
        float *out = direct ? (float *)dx + first * cols + col : c;
        const int64_t stride = direct ? cols : s.width;
        if (!rows) memset(c, 0, (size_t)(m * s.width) * sizeof *c);
        for (int64_t row = 0; row < rows; row += s.depth) {
            const int64_t depth = cpu_min(s.depth, rows - row);
            decode_panel(d, row, depth, s.depth, col, count, padded, cols, l, panel);
            for (int64_t i = 0; i < padded; i += TILE_COLS)
                product(m, padded - i >= TILE_COLS ? 2 : 1, dy + row, s.stride, panel + i / TILE_COLS * l.tile, l.row,
                        depth, row == 0, out + i, stride);
        }
        if (!direct) write_dx(c, s.width, m, count, dx, t, first * cols + col, cols, accumulate);
    }
}

fb_status ISA(cpu_gemm_dx)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                           fb_dtype dx_dtype, bool accumulate)
{
    const dx_space s = dx_space_for(ctx, w, m, dy_dtype);
    float *space = ctx->workspace;
    decoder d;
    decoder_init(&d, w);
    for (int64_t first = 0; first < m; first += MC) {
        const int64_t count = cpu_min(MC, m - first);
        const float *dyf = s.shared ? space : (const float *)dy + first * w->rows;
#pragma omp parallel for schedule(static) num_threads(s.threads) if (count * w->rows > 1 << 14)
        for (int64_t j = 0; j < (s.shared ? count : 0); j++)
            to_float(dy, dy_dtype, (first + j) * w->rows, w->rows, space + j * s.stride);
        if (takes_few(ctx, w, m)) dx_few(w, &d, m, dyf, s, dx, dx_dtype, accumulate);
        else dx_panels(w, &d, count, dyf, s, panel_layout(ctx, &s, m), space + s.shared, dx, dx_dtype, first, accumulate);
    }
    return FB_OK;
}
