/* gates.h: figures that are the same in every run of one build, so that a change of any is a change of a kernel.
 *
 *   work.c          the fixed inputs, and one call of each operation
 *   hashes.c        hashes of outputs, part by part
 *   instructions.c  one call at a time, for callgrind to count
 *   counters.cpp    what the SIMT executor counts of each kernel launch
 *   main.c          fourbit-gates: prints one of them; scripts/gates.sh compares with baselines/
 *
 * A line is "name key=value key=value ..."; no blanks in names. Names are operation/format/block/dtype[/M].
 */
#ifndef FOURBIT_GATES_H
#define FOURBIT_GATES_H

#include "fourbit.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The calls that are gated. gate_library is libfourbit; tests plant bugs in a copy. */
typedef struct gate_ops {
    fb_status (*quantize)(fb_context *, const void *, fb_dtype, fb_matrix *);
    fb_status (*dequantize)(fb_context *, const fb_matrix *, void *, fb_dtype);
    fb_status (*gemm)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, const void *, void *, fb_dtype);
    fb_status (*gemm_dx)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, void *, fb_dtype, bool);
} gate_ops;
extern gate_ops gate_library;

typedef enum gate_op {
    GATE_QUANTIZE = 0, GATE_DEQUANTIZE, GATE_QUANTIZE8, GATE_DEQUANTIZE8, GATE_NORMALIZE, GATE_DENORMALIZE, GATE_ADAMW32, GATE_ADAMW8,
    GATE_GEMM, GATE_GEMM_DX, GATE_OP_COUNT
} gate_op;

typedef struct gate_case {
    gate_op op;
    int format;        /* fb_format, or fb_map8 of quantize8 and dequantize8 */
    int32_t block;
    bool dq;
    fb_dtype dtype;
    int64_t rows, cols, m; /* m = 0 but for products */
} gate_case;

void gate_name(const gate_case *c, char *text, size_t size);

/* Outputs of a call, by name. */
enum { GATE_PARTS = 8 };
typedef struct gate_part {
    const char *name;
    void *data;
    size_t bytes;
    int width; /* bytes of an element */
} gate_part;

typedef struct gate_work {
    gate_case c;
    fb_context ctx;
    void *src, *dst, *bias;    /* dense sides */
    void *buffer;              /* of w */
    fb_matrix w;
    uint8_t *codes[2];         /* 8-bit codes; AdamW's m and v */
    float *states[2], *scales[2]; /* AdamW's fp32 m and v; absmax of 8-bit codes */
    float moments[2];
    void *workspace;
    uint64_t first_nonfinite;  /* the CUDA backend's word */
    gate_part parts[GATE_PARTS];
    int count;
} gate_work;

/* Inputs of c for a backend; every output filled with 0xa5. False with why. */
bool gate_open(gate_work *w, const gate_case *c, fb_backend backend, char why[FB_MESSAGE_SIZE]);
fb_status gate_call(gate_work *w); /* message in w->ctx */
void gate_close(gate_work *w);

/* Each prints its lines to `to` and returns the number of failures; what failed is on stderr. */
int gate_hashes(fb_backend backend, FILE *to);       /* the operations whose bits are a contract */
int gate_products(fb_backend backend, FILE *to);     /* bits of a product: this backend's own; -1: it has none */
int gate_instructions(FILE *to);                     /* CPU backend; gate_counted() is what callgrind is to count */
int gate_counters(FILE *to);                         /* CUDA backend in the SIMT executor */

#ifdef __cplusplus
}
#endif
#endif
