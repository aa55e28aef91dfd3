/* cases.c: the case list (cases.h). A list, not a product: each sweep varies one thing
 * around NF4, block 64, bf16, where most people are. */
#include "cases.h"

#include <inttypes.h>
#include <stdio.h>

#define Q FB_OP_QUANTIZE
#define D FB_OP_DEQUANTIZE
#define G FB_OP_GEMM
#define X FB_OP_GEMM_DX
#define L FB_OP_LORA_FORWARD
#define B FB_OP_LORA_BACKWARD

/* clang-format off */
#define CASE(op, format, block, dq, rows, cols, m, dtype, sets) {op, format, block, dq, rows, cols, m, dtype, sets, 0},
#define LORA(op, format, dq, rows, cols, m, rank, sets) {op, format, 64, dq, rows, cols, m, FB_BF16, sets, rank},

#define FORMATS(op, block, dq, rows, cols, m, dtype, sets) \
    CASE(op, FB_NF4, block, dq, rows, cols, m, dtype, sets) CASE(op, FB_FP4, block, dq, rows, cols, m, dtype, sets) \
    CASE(op, FB_INT4, block, dq, rows, cols, m, dtype, sets) CASE(op, FB_INT4_AFFINE, block, dq, rows, cols, m, dtype, sets)

#define BLOCKS(op, format, dq, rows, cols, m, dtype, sets) \
    CASE(op, format, 32, dq, rows, cols, m, dtype, sets) CASE(op, format, 64, dq, rows, cols, m, dtype, sets) \
    CASE(op, format, 128, dq, rows, cols, m, dtype, sets) CASE(op, format, 256, dq, rows, cols, m, dtype, sets) \
    CASE(op, format, 512, dq, rows, cols, m, dtype, sets) CASE(op, format, 1024, dq, rows, cols, m, dtype, sets) \
    CASE(op, format, 2048, dq, rows, cols, m, dtype, sets) CASE(op, format, 4096, dq, rows, cols, m, dtype, sets)

#define FORMATS_BLOCKS(op, dq, rows, cols, m, dtype, sets) \
    BLOCKS(op, FB_NF4, dq, rows, cols, m, dtype, sets) BLOCKS(op, FB_FP4, dq, rows, cols, m, dtype, sets) \
    BLOCKS(op, FB_INT4, dq, rows, cols, m, dtype, sets) BLOCKS(op, FB_INT4_AFFINE, dq, rows, cols, m, dtype, sets)

#define DTYPES(op, block, dq, rows, cols, m, sets) \
    FORMATS(op, block, dq, rows, cols, m, FB_F32, sets) FORMATS(op, block, dq, rows, cols, m, FB_BF16, sets) \
    FORMATS(op, block, dq, rows, cols, m, FB_F16, sets)

/* Empty, one element, odd counts, rows that are no multiple of a block or of a vector,
 * 64x80 (a peer's AVX-512 path is wrong there), more than one nested block of absmax. */
#define SHAPES(op) \
    FORMATS(op, 64, false, 0, 0, 0, FB_BF16, CASE_TEST) FORMATS(op, 64, true, 5, 0, 0, FB_F32, CASE_TEST) \
    DTYPES(op, 64, false, 1, 1, 0, CASE_TEST)           DTYPES(op, 32, true, 1, 31, 0, CASE_TEST) \
    DTYPES(op, 32, false, 1, 32, 0, CASE_TEST)          DTYPES(op, 64, false, 7, 33, 0, CASE_TEST) \
    DTYPES(op, 64, true, 64, 80, 0, CASE_TEST)          DTYPES(op, 128, false, 5, 1003, 0, CASE_TEST) \
    DTYPES(op, 64, true, 129, 257, 0, CASE_TEST)        DTYPES(op, 4096, false, 3, 4097, 0, CASE_TEST) \
    FORMATS_BLOCKS(op, false, 71, 131, 0, FB_BF16, CASE_TEST) \
    FORMATS_BLOCKS(op, true, 71, 131, 0, FB_F32, CASE_TEST) \
    FORMATS(op, 32, true, 131, 512, 0, FB_BF16, CASE_TEST)

#define MS(op, format, block, dq, rows, cols, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 1, dtype, sets)  CASE(op, format, block, dq, rows, cols, 2, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 3, dtype, sets)  CASE(op, format, block, dq, rows, cols, 4, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 5, dtype, sets)  CASE(op, format, block, dq, rows, cols, 7, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 8, dtype, sets)  CASE(op, format, block, dq, rows, cols, 9, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 16, dtype, sets) CASE(op, format, block, dq, rows, cols, 17, dtype, sets) \
    CASE(op, format, block, dq, rows, cols, 33, dtype, sets) CASE(op, format, block, dq, rows, cols, 64, dtype, sets)

#define PRODUCTS(op) \
    FORMATS(op, 64, false, 8, 64, 0, FB_BF16, CASE_TEST)  FORMATS(op, 64, false, 0, 64, 3, FB_BF16, CASE_TEST) \
    DTYPES(op, 64, false, 1, 1, 1, CASE_TEST)             DTYPES(op, 32, false, 5, 33, 3, CASE_TEST) \
    DTYPES(op, 64, true, 64, 80, 1, CASE_TEST)            DTYPES(op, 64, false, 33, 100, 4, CASE_TEST) \
    DTYPES(op, 128, true, 48, 1024, 1, CASE_TEST)         DTYPES(op, 64, false, 17, 2051, 2, CASE_TEST) \
    DTYPES(op, 64, true, 67, 256, 17, CASE_TEST) \
    CASE(op, FB_NF4, 64, true, 203, 300, 9, FB_BF16, CASE_TEST) CASE(op, FB_NF4, 128, false, 100, 70, 600, FB_BF16, CASE_TEST) \
    CASE(op, FB_NF4, 64, true, 45, 1131, 37, FB_BF16, CASE_TEST) CASE(op, FB_INT4_AFFINE, 32, false, 1100, 75, 33, FB_BF16, CASE_TEST) \
    CASE(op, FB_NF4, 64, false, 67, 4160, 2, FB_BF16, CASE_TEST) CASE(op, FB_INT4_AFFINE, 32, true, 139, 1056, 1, FB_F32, CASE_TEST) \
    MS(op, FB_NF4, 64, true, 35, 384, FB_BF16, CASE_TEST) MS(op, FB_INT4_AFFINE, 128, false, 11, 256, FB_BF16, CASE_TEST) \
    CASE(op, FB_NF4, 64, true, 7, 16896, 5, FB_BF16, CASE_TEST) CASE(op, FB_FP4, 4096, false, 70, 4224, 48, FB_BF16, CASE_TEST) \
    MS(op, FB_NF4, 64, false, 40, 320, FB_BF16, CASE_TEST) MS(op, FB_NF4, 64, true, 37, 131, FB_BF16, CASE_TEST) \
    MS(op, FB_FP4, 32, false, 35, 192, FB_F16, CASE_TEST) MS(op, FB_INT4, 128, false, 33, 384, FB_F32, CASE_TEST) \
    MS(op, FB_INT4_AFFINE, 64, true, 34, 208, FB_BF16, CASE_TEST) \
    MS(op, FB_INT4_AFFINE, 32, true, 39, 384, FB_BF16, CASE_TEST) MS(op, FB_NF4, 32, false, 21, 1152, FB_BF16, CASE_TEST) \
    MS(op, FB_INT4, 2048, true, 18, 1408, FB_BF16, CASE_TEST) CASE(op, FB_FP4, 32, true, 5, 17024, 2, FB_BF16, CASE_TEST) \
    CASE(op, FB_NF4, 64, false, 25, 2176, 6, FB_BF16, CASE_TEST) FORMATS_BLOCKS(op, true, 13, 1280, 7, FB_BF16, CASE_TEST) \
    FORMATS_BLOCKS(op, false, 9, 4096, 3, FB_BF16, CASE_TEST) \
    FORMATS_BLOCKS(op, true, 33, 515, 1, FB_BF16, CASE_TEST)

/* ---- benchmarks: a layer of a 7B model, a square, one that stays in cache ---------------------- */
#define QF (CASE_QUICK | CASE_FULL)
#define DENSE_SIDE(op) \
    CASE(op, FB_NF4, 64, false, 4096, 4096, 0, FB_BF16, QF)   CASE(op, FB_NF4, 64, true, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_FP4, 64, false, 4096, 4096, 0, FB_BF16, QF)   CASE(op, FB_INT4, 64, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_INT4_AFFINE, 64, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 64, false, 512, 512, 0, FB_BF16, QF)     CASE(op, FB_NF4, 64, false, 8192, 8192, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 32, false, 4096, 4096, 0, FB_BF16, QF)   CASE(op, FB_NF4, 128, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 256, false, 4096, 4096, 0, FB_BF16, QF)  CASE(op, FB_NF4, 512, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 1024, false, 4096, 4096, 0, FB_BF16, QF) CASE(op, FB_NF4, 2048, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 4096, false, 4096, 4096, 0, FB_BF16, QF) \
    CASE(op, FB_NF4, 64, false, 4096, 4096, 0, FB_F32, CASE_FULL)  CASE(op, FB_NF4, 64, false, 4096, 4096, 0, FB_F16, CASE_FULL) \
    CASE(op, FB_NF4, 64, false, 11008, 4096, 0, FB_BF16, CASE_FULL) CASE(op, FB_NF4, 64, true, 8192, 8192, 0, FB_BF16, CASE_FULL) \
    BLOCKS(op, FB_FP4, false, 4096, 4096, 0, FB_BF16, CASE_FULL)   BLOCKS(op, FB_INT4, false, 4096, 4096, 0, FB_BF16, CASE_FULL) \
    BLOCKS(op, FB_INT4_AFFINE, false, 4096, 4096, 0, FB_BF16, CASE_FULL) \
    BLOCKS(op, FB_NF4, true, 4096, 4096, 0, FB_BF16, CASE_FULL)

#define BENCH_MS(op, format, dq, rows, cols, sets) \
    CASE(op, format, 64, dq, rows, cols, 1, FB_BF16, sets)  CASE(op, format, 64, dq, rows, cols, 4, FB_BF16, sets) \
    CASE(op, format, 64, dq, rows, cols, 16, FB_BF16, sets) CASE(op, format, 64, dq, rows, cols, 64, FB_BF16, sets) \
    CASE(op, format, 64, dq, rows, cols, 256, FB_BF16, sets)

const fb_case fb_cases[] = {
    SHAPES(Q)
    SHAPES(D)
    PRODUCTS(G)
    PRODUCTS(X)

    DENSE_SIDE(Q)
    DENSE_SIDE(D)

    BENCH_MS(G, FB_NF4, false, 4096, 4096, QF)
    CASE(G, FB_NF4, 64, true, 4096, 4096, 1, FB_BF16, QF)
    CASE(G, FB_FP4, 64, false, 4096, 4096, 1, FB_BF16, QF)
    CASE(G, FB_INT4, 64, false, 4096, 4096, 1, FB_BF16, QF)
    CASE(G, FB_INT4_AFFINE, 64, false, 4096, 4096, 1, FB_BF16, QF)
    CASE(G, FB_NF4, 64, false, 512, 512, 1, FB_BF16, QF)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 1, FB_BF16, QF)
    CASE(G, FB_NF4, 64, true, 8192, 8192, 1, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 4, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 16, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 256, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 1024, FB_BF16, CASE_FULL)
    BENCH_MS(G, FB_NF4, false, 11008, 4096, CASE_FULL)
    BENCH_MS(G, FB_NF4, false, 4096, 11008, CASE_FULL)
    BENCH_MS(G, FB_NF4, true, 4096, 4096, CASE_FULL)
    BENCH_MS(G, FB_FP4, false, 4096, 4096, CASE_FULL)
    BENCH_MS(G, FB_INT4, false, 4096, 4096, CASE_FULL)
    BENCH_MS(G, FB_INT4_AFFINE, false, 4096, 4096, CASE_FULL)
    BLOCKS(G, FB_NF4, false, 4096, 4096, 1, FB_BF16, CASE_FULL)

    /* what the CPU's goals are stated for (bench/goals/table.c) */
    CASE(G, FB_NF4, 64, false, 8192, 8192, 4, FB_BF16, CASE_FULL)   CASE(G, FB_NF4, 64, false, 8192, 8192, 16, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, false, 8192, 8192, 256, FB_BF16, CASE_FULL) CASE(G, FB_NF4, 64, false, 8192, 8192, 1024, FB_BF16, CASE_FULL)
    CASE(G, FB_NF4, 64, true, 8192, 8192, 1, FB_BF16, CASE_FULL)
    CASE(X, FB_NF4, 64, false, 8192, 8192, 1, FB_BF16, CASE_FULL)   CASE(X, FB_NF4, 64, false, 8192, 8192, 256, FB_BF16, CASE_FULL)

    CASE(X, FB_NF4, 64, false, 4096, 4096, 16, FB_BF16, QF)
    CASE(X, FB_NF4, 64, true, 4096, 4096, 64, FB_BF16, QF)
    CASE(X, FB_NF4, 64, false, 8192, 8192, 1, FB_BF16, CASE_FULL)
    CASE(X, FB_NF4, 64, false, 8192, 8192, 256, FB_BF16, CASE_FULL)
    BENCH_MS(X, FB_NF4, true, 4096, 4096, CASE_FULL)
    BENCH_MS(X, FB_NF4, false, 4096, 11008, CASE_FULL)

    LORA(L, FB_NF4, false, 4096, 4096, 1, 16, QF)          LORA(L, FB_NF4, false, 4096, 4096, 256, 16, QF)
    LORA(L, FB_NF4, true, 4096, 4096, 16, 16, CASE_FULL)   LORA(L, FB_NF4, true, 4096, 4096, 256, 8, CASE_FULL)
    LORA(L, FB_NF4, true, 4096, 4096, 256, 64, CASE_FULL)  LORA(L, FB_NF4, true, 4096, 4096, 256, 256, CASE_FULL)
    LORA(B, FB_NF4, false, 4096, 4096, 64, 16, QF)         LORA(B, FB_NF4, false, 4096, 4096, 1, 16, CASE_FULL)
    LORA(B, FB_NF4, false, 4096, 4096, 256, 16, CASE_FULL) LORA(B, FB_NF4, true, 4096, 4096, 256, 64, CASE_FULL)

    {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0},
};
/* clang-format on */

const char *fb_op_name(fb_op op)
{
    static const char *const names[] = {"quantize", "dequantize", "gemm", "gemm_dx", "lora", "lora_backward"};
    FB_STATIC_ASSERT(sizeof names / sizeof *names == FB_OP_COUNT, "a name for each operation");
    return (unsigned)op < FB_OP_COUNT ? names[op] : "?";
}

void fb_case_name(const fb_case *c, char *text, size_t size)
{
    char shape[96];
    int n = 0;
    if (c->op == FB_OP_QUANTIZE || c->op == FB_OP_DEQUANTIZE)
        snprintf(shape, sizeof shape, "%" PRId64 "x%" PRId64, c->rows, c->cols);
    else
        n = snprintf(shape, sizeof shape, "M%" PRId64 "_N%" PRId64 "_K%" PRId64, c->m, c->rows, c->cols);
    if (c->rank) snprintf(shape + n, sizeof shape - (size_t)n, "_R%d", c->rank);
    snprintf(text, size, "%s/%s/b%d%s/%s%s%s", fb_op_name(c->op), fb_format_name(c->format), c->block_size,
             c->double_quant ? "+dq" : "", shape, c->dtype == FB_BF16 ? "" : "/",
             c->dtype == FB_BF16 ? "" : fb_dtype_name(c->dtype));
}
