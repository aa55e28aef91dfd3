/* ops.h: what a decoder computes besides its 4-bit linear layers: a table of small kernels for each backend.
 *
 *   ops_reference.c   double inside, one rounding at the end of each output: what the others are held against. Compiled a
 *                     second time with LM_DOUBLE for the gradient check
 *   ops_cpu.c         threads over independent outputs, loops that the compiler vectorises; dense products by OpenBLAS
 *   ops_cuda*.cu      the same on a GPU, dense products by cuBLAS where there is one (product_cublas.c); the SIMT executor runs
 *                     them in the tests
 *
 * The same input gives the same bits, whatever the number of threads: what is summed over rows is summed by one thread, or
 * in chunks whose size does not depend on the threads.
 *
 * Pointers are the device's. ids and targets are int32 of the device too. All matrices are row-major and contiguous.
 * Slots may rely on sizes > 0 and non-NULL pointers; nothing is checked here, the model knows its shapes.
 */
#ifndef FOURBIT_TRAIN_OPS_H
#define FOURBIT_TRAIN_OPS_H

#ifdef __cplusplus /* the CUDA sources: they know no model */
#include "fourbit.h"
typedef float lm_real;
extern "C" {
#else
#include "model.h"
#endif

/* Causal attention over [batch, seq, heads, head_dim] queries and [batch, seq, kv_heads, head_dim] keys and values. */
typedef struct lm_attention {
    int64_t batch, seq, heads, kv_heads, head_dim; /* head_dim <= LM_HEAD_DIM_MAX */
} lm_attention;
enum { LM_HEAD_DIM_MAX = 256 };

/* Sums of squares come in chunks of this many elements. */
enum { LM_SQUARE_CHUNK = 4096 };

typedef struct lm_ops {
    const char *name;

    /* c [m, n] (+)= alpha * op(a) op(b): op(a) is [m, k], stored [k, m] with ta; op(b) is [k, n], stored [n, k] with tb. */
    fb_status (*product)(fb_context *, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const lm_real *a, const lm_real *b, lm_real *c,
                         bool accumulate);

    /* out [n, d] = table[ids[i]]; and back: dtable[ids[i]] += dout[i], i ascending. */
    fb_status (*embed)(fb_context *, const lm_real *table, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, lm_real *out);
    fb_status (*embed_backward)(fb_context *, const lm_real *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, lm_real *dtable);

    /* y [n, d] = x * scale * w, scale [n] = 1 / sqrt(mean(x^2) + eps). */
    fb_status (*rmsnorm)(fb_context *, const lm_real *x, const lm_real *w, int64_t n, int64_t d, double eps, lm_real *y, lm_real *scale);
    /* dx += scale * (dy * w - x * scale^2 * mean(dy * w * x)); dw [d] += sum over rows of dy * x * scale, unless dw is NULL. */
    fb_status (*rmsnorm_backward)(fb_context *, const lm_real *dy, const lm_real *x, const lm_real *w, const lm_real *scale, int64_t n, int64_t d,
                                  lm_real *dx, lm_real *dw);

    /* Turns each pair (i, i + head_dim/2) of each head in x [batch, seq, heads, head_dim] by position's angle; turns holds
     * [seq, head_dim/2] cosines, then as many sines. back: by minus the angle, which is the gradient. */
    fb_status (*rope)(fb_context *, const lm_real *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t head_dim, bool back,
                      lm_real *x);

    /* out = softmax(q k^T / sqrt(head_dim)) v, log_sum [batch, heads, seq] = log of the sum of exponentials of a row. */
    fb_status (*attention)(fb_context *, const lm_attention *, const lm_real *q, const lm_real *k, const lm_real *v, lm_real *out, lm_real *log_sum);
    /* dq, dk, dv are set, from dout and what attention read and wrote. */
    fb_status (*attention_backward)(fb_context *, const lm_attention *, const lm_real *q, const lm_real *k, const lm_real *v, const lm_real *out,
                                    const lm_real *log_sum, const lm_real *dout, lm_real *dq, lm_real *dk, lm_real *dv);

    /* out [n] = gate * sigmoid(gate) * up; dgate and dup may be where gate and up are. */
    fb_status (*swiglu)(fb_context *, const lm_real *gate, const lm_real *up, int64_t n, lm_real *out);
    fb_status (*swiglu_backward)(fb_context *, const lm_real *dout, const lm_real *gate, const lm_real *up, int64_t n, lm_real *dgate, lm_real *dup);

    fb_status (*add)(fb_context *, const lm_real *x, int64_t n, lm_real *y); /* y += x */
    /* y [m, n] += mean * sum of x's row [m, k]: what the mean of a normalised weight adds to a product. */
    fb_status (*add_row_sums)(fb_context *, const lm_real *x, double mean, int64_t m, int64_t n, int64_t k, lm_real *y);

    /* Dropout (dropout.h): z = x, dropped elements 0; and back: y += x where x is kept. No scaling. */
    fb_status (*drop)(fb_context *, const lm_real *x, int64_t n, uint32_t threshold, uint64_t seed, lm_real *z);
    fb_status (*add_kept)(fb_context *, const lm_real *x, int64_t n, uint32_t threshold, uint64_t seed, lm_real *y);

    /* losses [n] = log sum exp(logits) - logits[target], 0 where target < 0. With scale != 0, logits become the gradient of
     * scale * their sum. */
    fb_status (*cross_entropy)(fb_context *, lm_real *logits, const int32_t *targets, int64_t n, int64_t vocab, double scale, lm_real *losses);

    /* sums [ceil(n / LM_SQUARE_CHUNK)] of squares. */
    fb_status (*square_sums)(fb_context *, const lm_real *x, int64_t n, double *sums);
} lm_ops;

const lm_ops *lm_reference_ops(void);
#ifndef LM_DOUBLE
const lm_ops *lm_cpu_ops(void);
/* By backend. NULL with why: not in this program, or no such hardware. */
const lm_ops *lm_backend_ops(fb_backend backend, char why[FB_MESSAGE_SIZE]);
#endif

#ifdef __cplusplus
}
#endif
#endif
