/* gemm_dx_pairs.h: dX [M, K] = dY [M, N] W on bf16 units, from bf16 gradients; the backward of gemm.
 *
 *   few     M <= CPU_PAIRS_DX_FEW and K a multiple of 128: gemm_dx_pairs_few.h
 *   panels  from CPU_PAIRS_DX_FROM_STEPS rows on where K is such a multiple, else from CPU_PAIRS_DX_FROM: pairs.h
 *
 *   bytes, FLOPs, bound and numerics: gemm_pairs.h's
 *
 * Versions (as there):
 *   1  rows of W decoded, 128 columns at a time, and interleaved two by two: M = 256 1.6 times AVX-512 (387 GFLOP/s)
 *   2  rows asked for AHEAD, not a whole panel: 512 lines a page apart do not fit the second-level cache's sets
 *   3  the requests of version 2 were not in the program (decode.h): M = 32 from 13.1 to 8.2 ms, 256 from 43 to 37 (two threads)
 *   4  rows of whole steps of 128: codes interleaved, not values (pairs_columns.h), panels from M = 5 on, below them
 *      gemm_dx_pairs_few.h. 8192 x 8192 from memory, one thread, ms, before (AVX-512's to M = 31) and after: M = 1 3.8 1.8,
 *      2 4.4 2.2, 4 6.5 3.7, 8 8.6 5.9, 16 12.8 7.6, 32 25.4 12.3, 64 33 20. M = 1 is 1.8 times gemm's time, two threads 1.6: its
 *      rows are read in pieces, and each sum is loaded and stored for every four rows.
 *   Tried: 16 KB of sums in place of 64, 10 to 30 % slower from M = 2 on (a piece of a row is then a quarter of a page).
 *
 *     make bench PROFILE=full FILTER='^gemm_dx/cpu/nf4/b64/M[0-9]+_N8192'
 */
#include "pairs.h"

#include "gemm_dx_pairs_few.h"

size_t ISA(cpu_gemm_dx_workspace)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (cpu_dx_takes_few_pairs(ctx, w, m, t)) return 0;
    if (!cpu_dx_takes_pairs(ctx, w, m, t)) return cpu_gemm_dx_workspace_avx512(ctx, w, m, t);
    const pairs_space s = pairs_space_for(ctx, m, w->rows, w->cols, w->cols % FEW_STEP ? TILE_COLS : FEW_STEP);
    return pairs_workspace(&s);
}

fb_status ISA(cpu_gemm_dx)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                           fb_dtype dx_dtype, bool accumulate)
{
    const bool few = cpu_dx_takes_few_pairs(ctx, w, m, dy_dtype), steps = w->cols % FEW_STEP == 0;
    if (!few && !cpu_dx_takes_pairs(ctx, w, m, dy_dtype)) return cpu_gemm_dx_avx512(ctx, w, m, dy, dy_dtype, dx, dx_dtype, accumulate);
    decoder d;
    decoder_init(&d, w);
    if (few) {
        gemm_dx_few(ctx, w, &d, m, dy, dx, dx_dtype, accumulate);
        return FB_OK;
    }
    const pairs_space s = pairs_space_for(ctx, m, w->rows, w->cols, steps ? FEW_STEP : TILE_COLS);
    const pairs q = {.d = &d, .cols = w->cols, .l = w->rows, .p = w->cols, .dx = true, .steps = steps, .a = dy, .out = dx, .t = dx_dtype,
                     .accumulate = accumulate};
    pairs_run(&q, &s, ctx->workspace, m);
    return FB_OK;
}
