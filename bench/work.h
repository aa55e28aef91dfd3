/* work.h: one case made real: its data, the call that is timed, and the check that must pass first. */
#ifndef FOURBIT_BENCH_WORK_H
#define FOURBIT_BENCH_WORK_H

#include "bench/timing.h"
#include "validate/cases.h"
#include "validate/check.h"

/* What is timed. bench_library is libfourbit; tests put wrong kernels in its place. */
typedef struct bench_ops {
    fb_status (*quantize)(fb_context *, const void *, fb_dtype, fb_matrix *);
    fb_status (*dequantize)(fb_context *, const fb_matrix *, void *, fb_dtype);
    fb_status (*gemm)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, const void *, void *, fb_dtype);
    fb_status (*gemm_dx)(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, void *, fb_dtype, bool);
} bench_ops;
extern const bench_ops bench_library;

/* Data of a case, as every contender gets it. Weights and activations are
 * Gaussian; w is quantized by the reference, whatever is timed. */
typedef struct work {
    fb_case c;
    fb_matrix_sizes sizes;
    void *dense;     /* [rows, cols] c.dtype: what is quantized */
    void *w_buffer;
    fb_matrix w;     /* dense, quantized by the reference */
    float *decoded;  /* [rows, cols] w as the reference dequantizes it to fp32: what dense peers multiply by */
    void *a;         /* activations: gemm x [m, cols], gemm_dx dY [m, rows]; c.dtype */
    float *a_f32;    /* the same values */
    void *out;       /* dequantize [rows, cols]; gemm [m, rows]; gemm_dx [m, cols]; c.dtype */
    size_t out_bytes;
    void *q_buffer;  /* quantize: its output */
    fb_matrix q;
} work;

/* Makes the data of c, keeping what it can of the case before. An all-zero work
 * is a valid beginning. False: no memory, or the reference refused; why says. */
bool work_make(work *w, const fb_case *c, char why[TIMING_WHY]);
void work_free(work *w);

/* The same data for a second implementation in the same rounds: outputs of its own, all else borrowed from w, which
 * must outlive it. False: no memory. work_unshare is right in either case, and on an all-zero work. */
bool work_share(const work *w, work *view, char why[TIMING_WHY]);
void work_unshare(work *view);

/* Bytes that the operation must move and floating-point operations it must do,
 * each operand counted once. */
typedef struct work_cost {
    double read, written, flops;
} work_cost;
work_cost work_cost_of(const work *w);

/* w->out as the product of w and w->a: level 2 (check.h) on sampled rows and columns, and whole by its projection on a
 * random vector. */
check_result work_check_product(const work *w, fb_weights declared);
/* A peer's product (c.dtype), on the same samples: relative Frobenius distance from the product of the decoded weights. */
bool work_near_product(const work *w, const void *out, char why[TIMING_WHY]);
enum { WORK_PRODUCT_PERCENT = 2 };

/* ---- ours ------------------------------------------------------------------------------------- */

typedef struct ours {
    work *w;
    const bench_ops *ops;
    fb_context ctx;
    void *workspace;
    int threads;
} ours;

/* threads: as in fb_context, but not 0. */
bool ours_init(ours *o, work *w, fb_backend backend, const bench_ops *ops, int threads, char why[TIMING_WHY]);
void ours_free(ours *o);
bool ours_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]); /* contender.run */

/* Runs the operation once into poisoned buffers and compares with the reference:
 * quantize and dequantize bit for bit, whole; a product by level 2 (check.h) on
 * sampled rows and columns, and whole by its projection on a random vector. */
check_result ours_check(ours *o);

#endif
