/* gemm_dx_pairs.h: dX [M, K] = dY [M, N] W on bf16 units, from bf16 gradients; the backward of gemm.
 *
 *   bytes, FLOPs, bound and numerics: gemm_pairs.h's
 *
 * Versions (as there):
 *   1  rows of W decoded, 128 columns at a time, and interleaved two by two: M = 256 1.6 times AVX-512 (387 GFLOP/s)
 *   2  rows asked for AHEAD, not a whole panel: 512 lines a page apart do not fit the second-level cache's sets
 *   At 8192 x 8192 M = 16 takes 1.2 times AVX-512's time, 32 as much, 64 0.8: CPU_PAIRS_DX_FROM. There decoding waits
 *   for memory; gemm's ratio at M = 256 is 1.15 (gemm_dx over gemm), at M = 1, which is AVX-512's, 1.7.
 *
 *     make bench PROFILE=full FILTER='^gemm_dx/cpu/nf4/b64/M[0-9]+_N8192'
 */
#include "pairs.h"

size_t ISA(cpu_gemm_dx_workspace)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (!cpu_dx_takes_pairs(ctx, m, t)) return cpu_gemm_dx_workspace_avx512(ctx, w, m, t);
    const pairs_space s = pairs_space_for(ctx, m, w->rows, w->cols);
    return pairs_workspace(&s);
}

fb_status ISA(cpu_gemm_dx)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                           fb_dtype dx_dtype, bool accumulate)
{
    if (!cpu_dx_takes_pairs(ctx, m, dy_dtype)) return cpu_gemm_dx_avx512(ctx, w, m, dy, dy_dtype, dx, dx_dtype, accumulate);
    decoder d;
    decoder_init(&d, w);
    const pairs_space s = pairs_space_for(ctx, m, w->rows, w->cols);
    const pairs q = {.d = &d, .cols = w->cols, .l = w->rows, .p = w->cols, .dx = true, .a = dy, .out = dx, .t = dx_dtype,
                     .accumulate = accumulate};
    pairs_run(&q, &s, ctx->workspace, m);
    return FB_OK;
}
