/* gpu_cases.c: what is timed on a GPU, and its names (gpu_job.h). 16 M and 64 M weights are what the goals are stated
 * for; 1 M shows short kernels; 28672 x 8192 is a layer of a 70B model. */
#include "bench/gpu_job.h"
#include "bench/layers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* clang-format off */
#define QF (CASE_QUICK | CASE_FULL)
#define ONE(op, format, block, dq, rows, cols, m, dtype, sets) {op, format, block, dq, rows, cols, m, dtype, sets, 0},
#define DENSE_SIDE(op) \
    ONE(op, FB_NF4, 64, false, 1024, 1024, 0, FB_BF16, QF)  ONE(op, FB_NF4, 64, false, 4096, 4096, 0, FB_BF16, QF) \
    ONE(op, FB_NF4, 64, true, 4096, 4096, 0, FB_BF16, QF)   ONE(op, FB_NF4, 64, false, 8192, 8192, 0, FB_BF16, QF) \
    ONE(op, FB_NF4, 64, true, 8192, 8192, 0, FB_BF16, QF)   ONE(op, FB_FP4, 64, false, 8192, 8192, 0, FB_BF16, QF) \
    ONE(op, FB_INT4, 64, false, 8192, 8192, 0, FB_BF16, QF) ONE(op, FB_INT4_AFFINE, 64, false, 8192, 8192, 0, FB_BF16, QF) \
    ONE(op, FB_NF4, 64, true, 1024, 1024, 0, FB_BF16, CASE_FULL)  ONE(op, FB_NF4, 64, false, 28672, 8192, 0, FB_BF16, CASE_FULL) \
    ONE(op, FB_NF4, 64, true, 28672, 8192, 0, FB_BF16, CASE_FULL) \
    ONE(op, FB_NF4, 64, false, 8192, 8192, 0, FB_F32, CASE_FULL)  ONE(op, FB_NF4, 64, false, 8192, 8192, 0, FB_F16, CASE_FULL) \
    ONE(op, FB_NF4, 32, false, 8192, 8192, 0, FB_BF16, CASE_FULL) ONE(op, FB_NF4, 128, false, 8192, 8192, 0, FB_BF16, CASE_FULL) \
    ONE(op, FB_NF4, 256, false, 8192, 8192, 0, FB_BF16, CASE_FULL) ONE(op, FB_NF4, 1024, false, 8192, 8192, 0, FB_BF16, CASE_FULL) \
    ONE(op, FB_NF4, 4096, false, 8192, 8192, 0, FB_BF16, CASE_FULL)
#define BYTES_SIDE(op) \
    ONE(op, FB_NF4, 256, false, 4096, 4096, 0, FB_BF16, QF) ONE(op, FB_NF4, 256, false, 8192, 8192, 0, FB_BF16, QF) \
    ONE(op, FB_NF4, 256, false, 8192, 8192, 0, FB_F32, CASE_FULL) ONE(op, FB_NF4, 64, false, 8192, 8192, 0, FB_BF16, CASE_FULL)
#define STEPS(op, block) \
    ONE(op, FB_NF4, block, false, 4096, 4096, 0, FB_BF16, QF) ONE(op, FB_NF4, block, false, 8192, 8192, 0, FB_BF16, QF) \
    ONE(op, FB_NF4, block, false, 4096, 4096, 0, FB_F32, CASE_FULL) ONE(op, FB_NF4, block, false, 8192, 8192, 0, FB_F32, CASE_FULL)
#define MS(op, dq, rows, cols, sets) \
    ONE(op, FB_NF4, 64, dq, rows, cols, 1, FB_BF16, sets)   ONE(op, FB_NF4, 64, dq, rows, cols, 16, FB_BF16, sets) \
    ONE(op, FB_NF4, 64, dq, rows, cols, 64, FB_BF16, sets)  ONE(op, FB_NF4, 64, dq, rows, cols, 256, FB_BF16, sets) \
    ONE(op, FB_NF4, 64, dq, rows, cols, 1024, FB_BF16, sets) ONE(op, FB_NF4, 64, dq, rows, cols, 4096, FB_BF16, sets)

#define LORA(op, dq, rows, cols, m, rank, sets) {op, FB_NF4, 64, dq, rows, cols, m, FB_BF16, sets, rank},
/* One token, a chunk of a prompt, a batch of training; ranks around the usual 16 and 64. */
#define ADAPTER(op, dq, rows, cols, sets) \
    LORA(op, dq, rows, cols, 1, 16, sets)    LORA(op, dq, rows, cols, 16, 16, CASE_FULL) LORA(op, dq, rows, cols, 512, 16, sets) \
    LORA(op, dq, rows, cols, 2048, 8, CASE_FULL) LORA(op, dq, rows, cols, 2048, 16, sets) LORA(op, dq, rows, cols, 2048, 64, sets) \
    LORA(op, dq, rows, cols, 2048, 256, CASE_FULL) LORA(op, dq, rows, cols, 4096, 64, CASE_FULL)

const gpu_case gpu_cases[] = {
    DENSE_SIDE(GPU_DEQUANTIZE)
    DENSE_SIDE(GPU_QUANTIZE)
    BYTES_SIDE(GPU_DEQUANTIZE8)
    BYTES_SIDE(GPU_QUANTIZE8)
    STEPS(GPU_ADAMW32, 0)
    STEPS(GPU_ADAMW8, FB_ADAMW_BLOCK)
    MS(GPU_GEMM, false, 8192, 8192, QF)
    MS(GPU_GEMM, true, 8192, 8192, CASE_FULL)
    MS(GPU_GEMM, false, 4096, 4096, CASE_FULL)
    MS(GPU_GEMM, false, 28672, 8192, CASE_FULL)
    MS(GPU_GEMM_DX, false, 8192, 8192, QF)
    MS(GPU_GEMM_DX, true, 8192, 8192, CASE_FULL)
    ADAPTER(GPU_LORA, false, 8192, 8192, QF)
    ADAPTER(GPU_LORA, true, 8192, 8192, CASE_FULL)
    ADAPTER(GPU_LORA_BACKWARD, false, 8192, 8192, QF)
    {GPU_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0},
};
/* clang-format on */

const char *gpu_op_name(gpu_op op)
{
    static const char *const names[] = {"quantize", "dequantize", "quantize8", "dequantize8", "adamw32", "adamw8", "gemm", "gemm_dx", "lora", "lora_backward"};
    FB_STATIC_ASSERT(sizeof names / sizeof *names == GPU_OP_COUNT, "a name for each operation");
    return (unsigned)op < GPU_OP_COUNT ? names[op] : "?";
}

bool gpu_is_lora(gpu_op op) { return op == GPU_LORA || op == GPU_LORA_BACKWARD; }
bool gpu_is_product(gpu_op op) { return op == GPU_GEMM || op == GPU_GEMM_DX || gpu_is_lora(op); }
bool gpu_is_4bit(gpu_op op) { return op == GPU_QUANTIZE || op == GPU_DEQUANTIZE || gpu_is_product(op); }

fb_case gpu_fb_case(const gpu_case *c)
{
    static const fb_op ops[GPU_OP_COUNT] = {[GPU_QUANTIZE] = FB_OP_QUANTIZE, [GPU_DEQUANTIZE] = FB_OP_DEQUANTIZE, [GPU_GEMM] = FB_OP_GEMM,
        [GPU_GEMM_DX] = FB_OP_GEMM_DX, [GPU_LORA] = FB_OP_LORA_FORWARD, [GPU_LORA_BACKWARD] = FB_OP_LORA_BACKWARD};
    return (fb_case){ops[c->op], c->format, c->block_size, c->double_quant, c->rows, c->cols, c->m, c->dtype, c->sets, c->rank};
}

static const gpu_op of_layers[FB_OP_COUNT] = {[FB_OP_GEMM] = GPU_GEMM, [FB_OP_GEMM_DX] = GPU_GEMM_DX, [FB_OP_LORA_FORWARD] = GPU_LORA,
                                              [FB_OP_LORA_BACKWARD] = GPU_LORA_BACKWARD};

gpu_case *gpu_layer_cases(const char *models, const gpu_case *base, char why[TIMING_WHY])
{
    static const fb_case none = {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0};
    fb_case *layers = bench_layer_cases(models, CASE_QUICK | CASE_FULL, &none, why);
    size_t count = 0, more = 0;
    while (base[count].rows >= 0) count++;
    while (layers && layers[more].rows >= 0) more++;
    gpu_case *all = layers ? calloc(count + more + 1, sizeof *all) : NULL;
    if (layers && !all) snprintf(why, TIMING_WHY, "no memory for the list of cases");
    if (all) memcpy(all, base, count * sizeof *all);
    for (size_t i = 0; all && i < more; i++) {
        const fb_case *l = &layers[i];
        gpu_case c = {of_layers[l->op], l->format, l->block_size, l->double_quant, l->rows, l->cols, l->m, l->dtype, l->sets, l->rank};
        char name[160], other[160];
        size_t at = 0;
        gpu_row_name(&c, "", false, name, sizeof name);
        while (at < count && (gpu_row_name(&all[at], "", false, other, sizeof other), strcmp(name, other) != 0)) at++;
        if (at < count) all[at].sets |= c.sets; /* there already: it is in the lists of both */
        else all[count++] = c;
    }
    if (all) all[count] = (gpu_case){.op = GPU_OP_COUNT, .rows = -1};
    free(layers);
    return all;
}

gpu_case gpu_base_case(const gpu_case *c)
{
    gpu_case base = *c;
    base.rank = 0;
    if (c->op == GPU_LORA) base.op = GPU_GEMM;
    if (c->op == GPU_LORA_BACKWARD) base.op = GPU_GEMM_DX;
    return base;
}

void gpu_row_name(const gpu_case *c, const char *backend, bool hot, char *name, size_t size)
{
    char rest[128], block[16] = "-";
    if (gpu_is_4bit(c->op)) {
        fb_case f = gpu_fb_case(c);
        char plain[128];
        fb_case_name(&f, plain, sizeof plain);
        snprintf(rest, sizeof rest, "%s", plain + strcspn(plain, "/"));
    } else {
        const char *what = c->op == GPU_ADAMW32 ? "fp32" : c->op == GPU_ADAMW8 ? "8bit" : "signed";
        if (c->block_size) snprintf(block, sizeof block, "b%d", (int)c->block_size);
        snprintf(rest, sizeof rest, "/%s/%s/%" PRId64 "%s%s", what, block, c->rows * c->cols, c->dtype == FB_BF16 ? "" : "/",
                 c->dtype == FB_BF16 ? "" : fb_dtype_name(c->dtype));
    }
    snprintf(name, size, "%s/%s%s%s", gpu_op_name(c->op), backend, rest, hot ? "/hot" : "");
}
