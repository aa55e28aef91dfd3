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
    fb_status (*lora)(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *, fb_dtype, const void *, void *, fb_dtype, void *);
    fb_status (*lora_backward)(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *, const void *, const void *, fb_dtype,
                               void *, fb_dtype, bool, float *, float *, bool);
} bench_ops;
extern const bench_ops bench_library;

/* The adapter of a LoRA case: A and B Gaussian, scale 1, no dropout. */
typedef struct work_lora {
    fb_lora lora;
    void *x;         /* backward: [m, cols], in place of work.a, which is dY */
    void *u;         /* [m, rank]: forward's output, backward's input */
    float *da, *db;  /* backward: outputs [rank, cols], [rows, rank] */
} work_lora;

/* Data of a case, as every contender gets it. Weights and activations are
 * Gaussian; w is quantized by the reference, whatever is timed. */
typedef struct work {
    fb_case c;
    fb_matrix_sizes sizes;
    void *dense;     /* [rows, cols] c.dtype: what is quantized */
    void *w_buffer;
    fb_matrix w;     /* dense, quantized by the reference */
    float *decoded;  /* [rows, cols] w as the reference dequantizes it to fp32: what dense peers multiply by */
    void *a;         /* activations: gemm, lora x [m, cols]; gemm_dx, lora_backward dY [m, rows]; c.dtype */
    float *a_f32;    /* the same values */
    void *out;       /* dequantize [rows, cols]; gemm, lora [m, rows]; gemm_dx, lora_backward [m, cols]; c.dtype */
    size_t out_bytes;
    work_lora l;     /* LoRA's two */
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

bool work_is_lora(const fb_case *c);
bool work_is_dx(const fb_case *c); /* the product with W has dY on its left: gemm_dx, lora_backward */

/* What one call writes besides work.q: every output that work.c knows. */
enum { WORK_OUTPUTS = 3 };
typedef struct work_output {
    void *data;
    size_t bytes;
} work_output;
void work_outputs(const work *w, work_output outputs[WORK_OUTPUTS]); /* what is not there has 0 bytes */

/* w->out as the product of w and w->a: level 2 (check.h) on sampled rows and columns, and whole by its projection on a
 * random vector. */
check_result work_check_product(const work *w, fb_weights declared);
/* What a product adds to the one with W: terms [m, rank], which the kernel's may be off by slack (NULL: 0), times
 * with [rank, outputs of a row]. rank 0: nothing. */
typedef struct work_second {
    int64_t rank;
    const double *terms, *slack, *with;
} work_second;
check_result work_check_sum(const work *w, fb_weights declared, const work_second *second);
/* work_lora.c: every output of LoRA's two: Y and U; dX, dA and dB. */
bool work_lora_make(work *w, char why[TIMING_WHY]);
void work_lora_free(work *w);
check_result work_check_lora(const work *w, fb_weights declared);
/* n numbers with a long period, and memory as a program would get it. */
void work_fill(void *dst, fb_dtype t, int64_t n, uint64_t seed);
void *work_block(size_t bytes);
/* Picks `want` of n, the first and the last among them; returns how many. */
enum { WORK_SAMPLED_ROWS = 8, WORK_SAMPLED_COLS = 48, WORK_ROWS_SEED = 3 };
int work_pick(int64_t n, int want, uint64_t seed, int64_t *picked);

/* A peer's product (c.dtype), on the same samples: relative Frobenius distance from the product of the decoded weights. */
bool work_near_product(const work *w, const void *out, char why[TIMING_WHY]);
bool work_near_sum(const work *w, const void *out, const work_second *second, char why[TIMING_WHY]);
/* A peer's layer: out, and backward its dA and dB, sampled; from U, not as the peer rounded it. */
bool work_near_lora(const work *w, const void *out, const float *da, const float *db, char why[TIMING_WHY]);
enum { WORK_PRODUCT_PERCENT = 2 };

/* ---- ours ------------------------------------------------------------------------------------- */

typedef struct ours {
    work *w;
    const bench_ops *ops;
    fb_context ctx;
    void *workspace;
    int threads;
} ours;

/* The case without its adapter, on the same data with an output of its own: gemm for lora, gemm_dx for lora_backward.
 * view borrows from w as after work_share. */
bool work_share_base(const work *w, work *view, char why[TIMING_WHY]);

/* threads: as in fb_context, but not 0. */
bool ours_init(ours *o, work *w, fb_backend backend, const bench_ops *ops, int threads, char why[TIMING_WHY]);
void ours_free(ours *o);
bool ours_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]); /* contender.run */

/* Runs the operation once into poisoned buffers and compares with the reference:
 * quantize and dequantize bit for bit, whole; a product, and each of a LoRA layer's, by level 2 (check.h) on
 * sampled rows and columns, and whole by its projection on a random vector. */
check_result ours_check(ours *o);

#endif
