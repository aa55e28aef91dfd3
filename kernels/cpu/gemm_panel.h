/* gemm_panel.h: gemm's two ways for more than a few rows of x. Included by gemm_kernel.h. */
#ifndef FOURBIT_CPU_GEMM_PANEL_H
#define FOURBIT_CPU_GEMM_PANEL_H

/* Vectors of one column of VF rows at a time: in [VF][stride] to out [n][width], both in floats. */
static void transpose_rows(const float *in, int64_t stride, int64_t n, float *out, int64_t width)
{
    for (int64_t k = 0; k < n; k += VF) {
        vf v[VF];
        for (int r = 0; r < VF; r++) v[r] = vf_load(in + r * stride + k);
        vf_transpose(v);
        for (int64_t i = 0; i < cpu_min(VF, n - k); i++) vf_store(out + (k + i) * width, v[i]);
    }
}

/* ---- panel: x transposed -------------------------------------------------------------- */

/* Rows first ... first+count-1 of x, transposed: tile after tile of [cols][width], width
 * TILE_COLS, or VF for a last tile that needs no more; missing rows are zeros. One call
 * does one tile. */
static void pack_tile(const void *x, fb_dtype t, int64_t first, int64_t count, int64_t cols, int64_t width, float *out)
{
    enum { STRETCH = 64 };
    float rows[TILE_COLS][STRETCH];
    memset(rows, 0, sizeof rows);
    for (int64_t k = 0; k < cols; k += STRETCH) {
        const int64_t n = cpu_min(STRETCH, cols - k);
        for (int64_t r = 0; r < count; r++) to_float(x, t, (first + r) * cols + k, n, rows[r]);
        for (int64_t r = 0; r < width; r += VF) transpose_rows(rows[r], STRETCH, n, out + k * width + r, width);
    }
}

/* One panel of W rows against all tiles: c [count][rows of x]. */
static void panel_product(const decoder *d, int64_t row, int64_t count, int64_t cols, const float *tiles,
                          int64_t x_rows, float *panel, float *c)
{
    if (!cols) memset(c, 0, (size_t)(count * x_rows) * sizeof *c);
    for (int64_t k = 0; k < cols; k += KC) {
        const int64_t depth = cpu_min(KC, cols - k);
        for (int64_t r = 0; r < count; r++) {
            const int64_t at = (row + r) * cols + k;
            for (int64_t i = 0; i < KC; i += 128) prefetch_line(d, at + KC + i);
            decode_span(d, at, depth, panel + r * PANEL_STRIDE);
        }
        for (int64_t j = 0; j < x_rows; j += TILE_COLS) {
            const int64_t width = cpu_min(TILE_COLS, x_rows - j);
            product(count, (int)(width / VF), panel, PANEL_STRIDE, tiles + j * cols + k * width, width, depth, k == 0,
                    c + j, x_rows);
        }
    }
}

/* c [NC][x_rows], `count` rows of it used, to rows of Y, columns row ... row+count-1, m of them. */
static void write_columns(const float *c, int64_t count, int64_t x_rows, int64_t m, const float *bias, void *y,
                          fb_dtype t, int64_t at, int64_t y_stride)
{
    for (int64_t j = 0; j < m; j += VF) {
        float lines[VF][NC];
        for (int64_t r = 0; r < count; r += VF) {
            vf v[VF];
            for (int i = 0; i < VF; i++) v[i] = vf_load(c + (r + i) * x_rows + j);
            vf_transpose(v);
            for (int i = 0; i < VF; i++) vf_store(lines[i] + r, bias ? vf_add(v[i], vf_load(bias + r)) : v[i]);
        }
        for (int64_t i = 0; i < cpu_min(VF, m - j); i++) from_float(lines[i], count, y, t, at + (j + i) * y_stride);
    }
}

static void gemm_panels(const fb_matrix *w, const decoder *d, const gemm_space s, float *tiles, int64_t m,
                        const void *x, fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype)
{
    const int64_t rows = w->rows, cols = w->cols, x_rows = cpu_round_up(m, VF);
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for schedule(static)
        for (int64_t j = 0; j < x_rows; j += TILE_COLS)
            pack_tile(x, x_dtype, j, cpu_min(TILE_COLS, m - j), cols, cpu_min(TILE_COLS, x_rows - j), tiles + j * cols);
        float *panel = tiles + s.shared + omp_get_thread_num() * s.private, *c = panel + NC * PANEL_STRIDE;
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < rows; row += NC) {
            const int64_t n = cpu_min(NC, rows - row);
            float b[NC] = {0};
            if (bias) to_float(bias, x_dtype, row, n, b);
            panel_product(d, row, n, cols, tiles, x_rows, panel, c);
            write_columns(c, n, x_rows, m, bias ? b : NULL, y, y_dtype, row, rows);
        }
    }
}

/* ---- tall: W transposed --------------------------------------------------------------- */

/* KC x TILE_COLS of the panel: rows row ... row+count-1 of W from column k on, missing ones zero. */
static void decode_tile(const decoder *d, int64_t row, int64_t count, int64_t cols, int64_t k, int64_t depth,
                        float *lines, float *out)
{
    for (int64_t r = 0; r < TILE_COLS; r++) {
        float *line = lines + r * PANEL_STRIDE;
        const int64_t at = (row + r) * cols + k;
        if (r >= count) {
            memset(line, 0, (size_t)depth * sizeof *line);
            continue;
        }
        for (int64_t i = 0; i < KC; i += 128) prefetch_line(d, at + KC + i);
        decode_span(d, at, depth, line);
    }
    for (int64_t r = 0; r < TILE_COLS; r += VF) transpose_rows(lines + r * PANEL_STRIDE, PANEL_STRIDE, depth, out + r, TILE_COLS);
}

/* Columns row ... row+count-1 of all m rows of Y, from x in fp32. direct: into y itself. */
static void tall_columns(const fb_matrix *w, const decoder *d, int64_t row, int64_t count, int64_t m, const float *x,
                         int64_t x_stride, float *private, float *direct, float *c)
{
    const int64_t cols = w->cols;
    float *lines = private, *tile = lines + TILE_COLS * PANEL_STRIDE;
    for (int64_t k = 0; k < cols; k += KC)
        for (int64_t j = 0; j < count; j += TILE_COLS) {
            const int64_t depth = cpu_min(KC, cols - k), n = cpu_min(TILE_COLS, count - j);
            decode_tile(d, row + j, n, cols, k, depth, lines, tile);
            product(m, n > VF ? 2 : 1, x + k, x_stride, tile, TILE_COLS, depth, k == 0,
                    direct ? direct + row + j : c + j, direct ? w->rows : NC_TALL);
        }
}

static void gemm_tall(const fb_matrix *w, const decoder *d, const gemm_space s, float *space, int64_t m, const void *x,
                      fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype)
{
    const int64_t rows = w->rows, cols = w->cols;
    const bool as_it_lies = s.x_stride == cols;
    const bool direct = y_dtype == FB_F32 && !bias && rows % VF == 0;
    const float *xf = as_it_lies ? x : space;
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for schedule(static)
        for (int64_t j = 0; j < (as_it_lies ? 0 : m); j++)
            to_float(x, x_dtype, j * cols, cols, space + j * s.x_stride);
        float *private = space + s.shared + omp_get_thread_num() * s.private;
        float *c = private + TILE_COLS * (PANEL_STRIDE + KC);
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < rows; row += s.width) {
            const int64_t n = cpu_min(s.width, rows - row);
            tall_columns(w, d, row, n, m, xf, s.x_stride, private, direct ? y : NULL, c);
            if (direct) continue;
            float b[NC_TALL];
            if (bias) to_float(bias, x_dtype, row, n, b);
            for (int64_t j = 0; j < m; j++) {
                float *line = c + j * NC_TALL;
                for (int64_t i = 0; bias && i < n; i++) line[i] += b[i];
                from_float(line, n, y, y_dtype, j * rows + row);
            }
        }
    }
}

#endif
