/* gemm_pairs.h: Y [M, N] = X [M, K] W^T + bias on bf16 units, from bf16 activations.
 *
 *   few     M <= CPU_PAIRS_FEW and K a multiple of 128: gemm_pairs_few.h, nothing transposed
 *   panels  any shape from CPU_PAIRS_FROM rows on: pairs.h
 *
 *   bytes   W once (panels: for each ROWS rows of X), 0.5 + 4/B a weight; X and Y
 *   FLOPs   2 M N K
 *   bound   M = 1: memory, with decoding close behind; then the units
 *
 * X and the weights enter as bf16, products are exact, sums fp32, rounded once for each product at most; subnormal
 * operands and sums count as zero (FB_WEIGHTS_FLUSHED; validate/check.h bounds what that costs).
 *
 * Versions (NF4 block 64, 4096 x 4096, one core of a Zen 5 shared with others, processor time, against AVX-512's
 * fp32 and against dequantize + OpenBLAS sgemm in the same rounds):
 *   1  AVX512-BF16 in tiles of 12 x 32, W decoded into 32 KB and transposed as pairs:
 *      M = 16 2.0 times AVX-512, M = 64 1.5 times and 3.2 times OpenBLAS, M = 256 1.8 and 3.7 times: 423 GFLOP/s,
 *      97 % of what vdpbf16ps does in registers
 *   2  few: M = 1 from 0.74 ms (AVX-512) to 0.23, M = 4 from 1.12 to 0.46, M = 8 from 2.4 to 0.90, M = 16 from 2.9 to
 *      1.8: about 0.15 ms to decode and 0.08 a row, of which vdpbf16ps at its full rate takes 0.077
 *   3  the next rows asked for, as a row of 8192 codes is a page and hardware prefetch starts anew in each: at
 *      8192 x 8192 M = 16 from 9.1 to 8.0 ms, M = 1 within the noise (2.3)
 *   4  M = 1 and 2 a row of W at a time, one stream: four streams within two pages defeated the hardware's prefetch.
 *      4096 x 4096 from memory: M = 1 from 0.77 to 0.38 ms, M = 4 (two rows) from 0.88 to 0.58; M = 16 as before, 1.9
 *   5  absmax of a row decoded before its weights, 16 at a time: M = 1 double-quantized from 0.51 to 0.42 (plain 0.38)
 *   6  blocks of 32; M = 1 with eight sums (8.8 to 6.3 cycles for 128 weights in cache) and asking 8 KB ahead, 64 rows at a
 *      time; M = 3 ... 5 four rows of W at a time with the tables made before; above, W decoded once for all rows of x; x a
 *      quarter of a step after another. 8192 x 8192 from memory, one thread, ms before and after: M = 1 1.20 0.96, 3 2.0 1.55,
 *      5 2.8 2.2, 8 3.9 3.6, 16 7.6 6.0, 32 15.0 10.7, 64 24.5 21.5; block 32, M = 1 6.5 1.1, M = 4 7.5 2.1. Two threads: M = 1 0.93
 *      0.75 (50 GB/s, of 55 that plain loads read at the time), M = 16 3.8 3.0
 *   M = 4 takes 10.9 cycles for 128 weights in cache and 16.8 from memory, where 7.5 are what memory takes: they overlap in part.
 *
 *     make bench PROFILE=full FILTER='^gemm/cpu/nf4/b64/M[0-9]+_N8192'
 *
 * What is neither, and fp32 or fp16 activations, is AVX-512's.
 */
#include "pairs.h"

#include "gemm_pairs_few.h"

size_t ISA(cpu_gemm_workspace)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (cpu_takes_few_pairs(ctx, w, m, t)) {
        const few_space few = few_space_for(ctx, w, m);
        return few_workspace(&few);
    }
    if (!cpu_takes_pairs(ctx, m, t)) return cpu_gemm_workspace_avx512(ctx, w, m, t);
    const pairs_space s = pairs_space_for(ctx, m, w->cols, w->rows, TILE_COLS);
    return pairs_workspace(&s);
}

fb_status ISA(cpu_gemm)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                        void *y, fb_dtype y_dtype)
{
    const bool few = cpu_takes_few_pairs(ctx, w, m, x_dtype);
    if (!few && !cpu_takes_pairs(ctx, m, x_dtype)) return cpu_gemm_avx512(ctx, w, m, x, x_dtype, bias, y, y_dtype);
    decoder d;
    decoder_init(&d, w);
    if (few) {
        gemm_few(ctx, w, &d, m, x, bias, y, y_dtype);
        return FB_OK;
    }
    const pairs_space s = pairs_space_for(ctx, m, w->cols, w->rows, TILE_COLS);
    const pairs q = {.d = &d, .cols = w->cols, .l = w->cols, .p = w->rows, .a = x, .bias = bias, .out = y, .t = y_dtype};
    pairs_run(&q, &s, ctx->workspace, m);
    return FB_OK;
}
