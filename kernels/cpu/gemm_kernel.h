/* gemm_kernel.h: Y [M, N] = X [M, K] W^T + bias, W [N, K] quantized.
 *
 *   bytes   M small: W once, 0.5 + 4/B a weight (block 64: 0.5625, double-quantized 0.516)
 *   FLOPs   2 M N K, fp32 fma
 *   bound   M = 1: memory, if 8 weights are decoded and multiplied in about 1.5 cycles a core;
 *           from M = 4 or so the fma units: 16 (AVX2) or 32 (AVX-512) products a cycle a core
 *
 * Three ways:
 *   few    M <= 4, rows that start on a group: a row of W is decoded in registers and multiplied
 *          with M rows of x. At M = 1 codes are summed against x per block and scaled once.
 *   panel  any M: NC rows x KC columns of W are decoded into a panel that stays in the second-
 *          level cache and serves up to MC rows of x, which were transposed once:
 *
 *            W panel [NC][KC] --> each row's weights broadcast   \
 *            x tiles [K][TILE_COLS], one column a row of x       /  microkernel --> c [NC][MC], fp32
 *
 *          so the decoded panel needs no transposition, and c is written out as rows of Y.
 *   tall   M >= 96: TILE_COLS rows x KC columns of W are decoded and transposed; x, in fp32, is the broadcast
 *          operand as it lies, and sums go to Y itself where it is fp32 without a bias. Transposing W costs
 *          M/16 of a product less than transposing x.
 *
 * Sums run over k in an order that the shape alone fixes. Weights enter exactly (not rounded to
 * x's type): FB_WEIGHTS_EXACT.
 *
 * Versions (NF4 block 64, bf16, one core of a Zen 3, AVX2: cycles for 64 weights in cache, then ms at
 * 8192 x 8192 in processor time on a machine shared with others; medians of interleaved runs):
 *   1  M = 1: 32 weights in order, 25 cycles; M = 8, 16: panels of 96 x 256, 11 and 12 ms at 4096 x 4096
 *   2  prefetch of the next panel's codes: 6.5 and 8.3 ms at 4096 x 4096
 *   3  halves of 64 weights out of order, x reordered to match; a function for each M, because sums
 *      spilled to memory once a block cost more than the block: 19 cycles
 *   4  two chains a row of x: M = 2 from 35 to 27 cycles, M = 4 from 44 to 38
 *   5  panels of 48 x 512, absmax prefetched too: M = 8, 16 at 8192 x 8192 from 33 and 46 to 24 and 35 ms
 *   6  tall, after panels: against OpenBLAS sgemm's time in the same rounds (fp32, M = 256), N = K = 64, 256, 512, 768:
 *      from 1.64, 1.22, 1.21, 1.15 of it to 0.82, 0.92, 0.97, 0.98; x and c transposed in registers
 *   M = 1 runs at 6.4 GB/s a core at best: 25 shuffles for 64 weights over two ports are 12.5 cycles,
 *   and fmas share one of the ports. M = 256: 65 to 71 GFLOP/s beside OpenBLAS sgemm's 75, 87 to 94 %.
 *   AVX-512 (one core of a Zen 5, shared, 4096 x 4096): M = 1, 4, 16, 64, 256 in 0.74, 1.1, 4.4, 11 and 37 ms; the last is
 *   230 GFLOP/s, 85 % of fma in registers, 2.0 times dequantize + OpenBLAS. bf16 activations go to gemm_pairs.h there.
 *
 *     make bench FILTER=gemm/cpu
 */
#include "decode.h"
#include "microkernel.h"

enum {
    FEW = 4,
    FEW_CHUNK = 1 << 17, /* weights a thread takes at a time */
    NC = 48,
    KC = 512,
    PANEL_STRIDE = KC + 16, /* not a power of two: rows fall into different cache sets */
    MC = 512,
    TALL = 96,   /* rows of x from which on W is transposed instead */
    NC_TALL = 64 /* most rows of W a thread takes at a time then */
};

/* FB_BATCH_INVARIANT: tall at any M. Its sum over k is the same whatever the other rows are. */
static bool takes_few(const fb_context *ctx, const fb_matrix *w, int64_t m)
{
    return m <= FEW && w->cols % GROUP == 0 && !(ctx->flags & FB_BATCH_INVARIANT);
}
static bool takes_tall(const fb_context *ctx, const fb_matrix *w, int64_t m)
{
    return (m >= TALL || ctx->flags & FB_BATCH_INVARIANT) && w->cols > 0;
}

/* ---- workspace: what all threads share, then a piece a thread ------------------------- */

typedef struct gemm_space {
    int64_t x_stride, width; /* tall: of x in fp32 (columns of W: as it lies); rows of W a thread takes at a time */
    int64_t shared, private; /* floats */
    int threads;
} gemm_space;

static gemm_space gemm_space_for(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (takes_few(ctx, w, m)) return (gemm_space){.shared = m * w->cols + 16};
    const int64_t count = cpu_min(m, MC);
    if (takes_tall(ctx, w, m)) {
        const bool as_it_lies = t == FB_F32 && spread(w->cols);
        const int64_t stride = as_it_lies ? w->cols : cpu_round_up(w->cols, 16) + 16;
        const int64_t share = cpu_round_up(fb_ceil_div(w->rows, 2 * cpu_max_threads(ctx)), TILE_COLS);
        const int64_t width = share < TILE_COLS ? TILE_COLS : cpu_min(NC_TALL, share);
        return (gemm_space){.x_stride = stride,
                            .width = width,
                            .shared = as_it_lies ? 0 : count * stride,
                            .private = TILE_COLS * (PANEL_STRIDE + KC) + count * NC_TALL,
                            .threads = cpu_threads(ctx, fb_ceil_div(w->rows, width))};
    }
    const int64_t rows = cpu_round_up(count, VF);
    return (gemm_space){.shared = cpu_round_up(rows * w->cols, 16),
                        .private = NC * PANEL_STRIDE + NC * rows,
                        .threads = cpu_threads(ctx, fb_ceil_div(w->rows, NC))};
}

size_t ISA(cpu_gemm_workspace)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const gemm_space s = gemm_space_for(ctx, w, m, t);
    return (size_t)(s.shared + s.threads * s.private) * sizeof(float);
}

/* ---- few ------------------------------------------------------------------------------ */

/* Whole wide groups in every block and row: then x is laid out in the order their halves decode to. */
static bool is_wide(const fb_matrix *w) { return w->block_size % WIDE == 0 && w->cols % WIDE == 0; }

static void reorder_wide(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += WIDE) {
        float group[WIDE];
        memcpy(group, x + i, sizeof group);
        for (int j = 0; j < WIDE; j++) x[i + j] = group[wide_element(j)];
    }
}

/* One row of W times one row of x. (wide, and m below, are constants at every call.) */
ALWAYS_INLINE float dot1(const bool wide, const decoder *d, int64_t row, int64_t cols, const float *x)
{
    const int step = wide ? WIDE : GROUP, halves = wide ? 2 : 1, vectors = step / VF / halves;
    const uint8_t *codes = d->codes + row * cols / 2;
    const int64_t end = (row + 1) * cols;
    vf sum = vf_zero();
    for (int64_t i = row * cols; i < end;) {
        const int64_t block = i >> d->shift, stop = cpu_min((block + 1) << d->shift, end);
        const lutv table = block_lut(d, block);
        vf part[2] = {vf_zero(), vf_zero()};
        for (; i < stop; i += step, x += step, codes += step / 2) {
            for (int h = 0; h < halves; h++) {
                vf c[WH > GV ? WH : GV];
                if (wide) decode_half(&table, codes, h, c);
                else decode32(&table, codes, c);
                for (int v = 0; v < vectors; v++)
                    part[(h + v) % 2] = vf_fma(c[v], vf_load(x + (h * vectors + v) * VF), part[(h + v) % 2]);
            }
        }
        sum = vf_fma(vf_add(part[0], part[1]), vf_set1(cpu_absmax(&d->scales, block)), sum);
    }
    return vf_sum(sum);
}

/* One row of W times m rows of x. */
ALWAYS_INLINE void dots(const bool wide, const int m, const decoder *d, int64_t row, int64_t cols, const float *x,
                        float *sums)
{
    const int step = wide ? WIDE : GROUP, halves = wide ? 2 : 1, vectors = step / VF / halves;
    const uint8_t *codes = d->codes + row * cols / 2;
    const int64_t end = (row + 1) * cols;
    vf sum[FEW][2]; /* two chains a row of x: one would wait for its own last fma */
    for (int j = 0; j < m; j++) sum[j][0] = sum[j][1] = vf_zero();
    for (int64_t i = row * cols; i < end;) {
        const int64_t block = i >> d->shift, stop = cpu_min((block + 1) << d->shift, end);
        const lutv table = block_lut(d, block);
        const vf scale = vf_set1(cpu_absmax(&d->scales, block));
        for (; i < stop; i += step, x += step, codes += step / 2) {
            for (int h = 0; h < halves; h++) {
                vf c[WH > GV ? WH : GV];
                if (wide) decode_half(&table, codes, h, c);
                else decode32(&table, codes, c);
                for (int v = 0; v < vectors; v++) {
                    const vf weight = vf_mul(c[v], scale);
                    for (int j = 0; j < m; j++)
                        sum[j][(h + v) % 2] =
                            vf_fma(weight, vf_load(x + j * cols + (h * vectors + v) * VF), sum[j][(h + v) % 2]);
                }
            }
        }
    }
    for (int j = 0; j < m; j++) sums[j] = vf_sum(vf_add(sum[j][0], sum[j][1]));
}

/* A function each: inlined side by side they spill each other's registers, and a sum that goes
 * through memory once a block costs more than the block's arithmetic. */
typedef void few_rows(const decoder *, int64_t row, int64_t cols, const float *x, float *sums);
#define FEW_ROWS(name, wide, m)                                                                            \
    static __attribute__((noinline)) void name(const decoder *d, int64_t row, int64_t cols, const float *x, \
                                               float *sums)                                                \
    {                                                                                                      \
        if (m == 1) sums[0] = dot1(wide, d, row, cols, x);                                                 \
        else dots(wide, m, d, row, cols, x, sums);                                                         \
    }
FEW_ROWS(rows1, false, 1)
FEW_ROWS(rows2, false, 2)
FEW_ROWS(rows3, false, 3)
FEW_ROWS(rows4, false, 4)
FEW_ROWS(wide1, true, 1)
FEW_ROWS(wide2, true, 2)
FEW_ROWS(wide3, true, 3)
FEW_ROWS(wide4, true, 4)
static few_rows *const few_kernels[2][FEW] = {{rows1, rows2, rows3, rows4}, {wide1, wide2, wide3, wide4}};

static void gemm_few(fb_context *ctx, const fb_matrix *w, const decoder *d, int64_t m, const void *x, fb_dtype x_dtype,
                     const void *bias, void *y, fb_dtype y_dtype)
{
    const int64_t rows = w->rows, cols = w->cols;
    const bool wide = is_wide(w);
    few_rows *const kernel = few_kernels[wide][m - 1];
    float *xf = ctx->workspace;
    to_float(x, x_dtype, 0, m * cols, xf);
    if (wide) reorder_wide(xf, m * cols);
    const int64_t chunk = cols && cols < FEW_CHUNK ? FEW_CHUNK / cols : 1, chunks = fb_ceil_div(rows, chunk);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++)
        for (int64_t row = c * chunk; row < cpu_min((c + 1) * chunk, rows); row++) {
            float sums[FEW];
            kernel(d, row, cols, xf, sums);
            const float b = bias ? fb_load(bias, x_dtype, row) : 0.0f;
            for (int64_t j = 0; j < m; j++) fb_store(y, y_dtype, j * rows + row, bias ? sums[j] + b : sums[j]);
        }
}

#include "gemm_panel.h"

/* ---- the slot ------------------------------------------------------------------------- */

fb_status ISA(cpu_gemm)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype,
                        const void *bias, void *y, fb_dtype y_dtype)
{
    decoder d;
    decoder_init(&d, w);
    if (takes_few(ctx, w, m)) {
        gemm_few(ctx, w, &d, m, x, x_dtype, bias, y, y_dtype);
        return FB_OK;
    }
    const gemm_space s = gemm_space_for(ctx, w, m, x_dtype);
    for (int64_t first = 0; first < m; first += MC) {
        const void *xs = (const char *)x + first * w->cols * (int64_t)fb_dtype_size(x_dtype);
        void *ys = (char *)y + first * w->rows * (int64_t)fb_dtype_size(y_dtype);
        (takes_tall(ctx, w, m) ? gemm_tall : gemm_panels)(w, &d, s, ctx->workspace, cpu_min(MC, m - first), xs, x_dtype, bias,
                                                     ys, y_dtype);
    }
    return FB_OK;
}
