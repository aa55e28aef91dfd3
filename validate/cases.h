/* cases.h: the one list of shapes, formats and block sizes that tests and benchmarks share.
 *
 *     for (const fb_case *c = fb_cases; c->rows >= 0; c++)
 *         if (c->sets & CASE_QUICK) ...
 */
#ifndef FOURBIT_CASES_H
#define FOURBIT_CASES_H

#include "fourbit.h"

enum {
    CASE_TEST = 1,  /* small and awkward: tails, odd counts, blocks that straddle rows, sizes 0 and 1 */
    CASE_QUICK = 2, /* benchmark, PROFILE=quick */
    CASE_FULL = 4   /* benchmark, PROFILE=full (quick ones are in it too) */
};

typedef struct fb_case {
    fb_op op;
    fb_format format;
    int32_t block_size;
    bool double_quant;
    int64_t rows, cols; /* W [rows, cols] = [N, K] */
    int64_t m;          /* products and LoRA's two; else 0 */
    fb_dtype dtype;     /* of the dense side */
    unsigned sets;
    int32_t rank;       /* benchmarks of LoRA's two; else 0 (the suite goes through ranks of its own) */
} fb_case;

extern const fb_case fb_cases[]; /* ends with rows = -1 */

const char *fb_op_name(fb_op op); /* "quantize", "dequantize", "gemm", "gemm_dx", "lora", "lora_backward" */
/* "gemm/nf4/b64+dq/M1_N4096_K4096", "lora/nf4/b64/M512_N4096_K4096_R16", as the results name it without the
 * backend; a dtype other than bf16 is appended: ".../fp32". */
void fb_case_name(const fb_case *c, char *text, size_t size);

#endif
