/* check.h: is this output right, and if not, where.
 *
 * Every comparison is written !(error <= bound), so a NaN fails. Every check
 * returns a check_result whose text is one line that names what was compared,
 * the verdict and the worst element with its row and its block.
 *
 *   level                         bound                                   why
 *   1  codes, absmax, zero point, 0 ulp                                   the layout is a contract
 *      8-bit codes, dequantized
 *   2  product, per element       [out(r - e), out(r + e)],               r: the product in double of the weights
 *                                 e = (L + CHECK_EXTRA_ROUNDINGS)         that the backend declares. L terms added in
 *                                     * (2^-24 S + 2^-149)               fp32 in any order err by at most (L-1) 2^-24 S,
 *                                                                         S = sum |a||w|. Extra: one for each product, one
 *                                                                         for the fp32 weight or a block's scaling, one for
 *                                                                         the bias, one for truncating tensor cores.
 *                                                                         2^-149: what underflow costs each of them.
 *                                                                         out(): rounding to the output type. It is
 *                                                                         monotone, so the interval is exact and needs
 *                                                                         no constant for the output's own rounding
 *      flushed                  e + sum |a w| where a or w              units that take subnormals for zero lose such a
 *                                 is at most 2^-126                       product, and up to 2^-126 each time a sum falls
 *                                 + (L + CHECK_EXTRA_ROUNDINGS) 2^-126  below it
 *   2  product, as a whole        ||y - r|| <= (CHECK_FROBENIUS + q)||r|| fp32 sums err like a random walk: 1e-6 at
 *      (Gaussian data)            q: what rounding r itself costs         L = 4096 and 1.1e-5 for a truncating tensor core
 *                                                                         at L = 11008; a lost element costs 1/sqrt(L M N)
 *   2  LoRA (check_lora.h)        as a product's, over L + rank terms;   each stage is checked against the outputs of the
 *                                 + sum slack |with|                      one before it. dU is not an output: where it enters,
 *                                                                         slack is the most it can be off: its own bound e,
 *                                                                         then rounded to its type or not
 *   3  product against weights    ||y - r|| <= CHECK_END_TO_END ||r||     bf16 weights and outputs: two roundings of rms
 *      that were never rounded    and CHECK_SQNR_DB                       2^-9 * 0.83 (uniform mantissa) = 2.3e-3 in all
 *
 * With slack the bound on the whole grows by the norm of sum slack |with|: elements that share a dU err together.
 *
 * An element whose r - e rounds to a smaller output than y is right at the edge
 * of the interval, not outside it.
 */
#ifndef FOURBIT_CHECK_H
#define FOURBIT_CHECK_H

#include "fourbit.h"

#define CHECK_EXTRA_ROUNDINGS 4
#define CHECK_FROBENIUS 3e-5
#define CHECK_END_TO_END 4e-3
#define CHECK_SQNR_DB 48.0

typedef struct check_result {
    bool ok;
    int64_t n, bad;           /* elements compared; how many were outside the bound */
    int64_t worst;            /* index of the worst element; -1: none differs */
    uint64_t max_ulp;         /* in the type compared */
    double max_ratio;         /* largest error / bound of a product */
    double frobenius, sqnr_db;
    char text[320];
} check_result;

/* Where an element lies: index -> (row, block). cols or block_size 0: not a matrix. */
typedef struct check_place {
    const char *what;
    int64_t cols;
    int32_t block_size;
} check_place;

/* Level 1. A NaN on either side fails, equal bits or not. */
check_result check_same(check_place place, const void *got, const void *want, fb_dtype dtype, int64_t n);
check_result check_nibbles(check_place place, const uint8_t *got, const uint8_t *want, int64_t n);
check_result check_bytes(check_place place, const uint8_t *got, const uint8_t *want, int64_t n);
/* As check_same, but -0.0 equals +0.0: for sums, where 0 + -0 is 0. */
check_result check_same_value(check_place place, const void *got, const void *want, fb_dtype dtype, int64_t n);

/* The weights of w as doubles [rows, cols], decoded here from codes and scales,
 * not by the library: rounded to dtype, or never rounded. */
void check_weights(const fb_matrix *w, fb_weights weights, fb_dtype dtype, double *out);

/* out [m, p] = factor * a [m, l] * B (+ bias [p]) (+ terms [m, rank] * with [rank, p] where kept) (+ before [m, p]);
 * B[l][p] = weights[p][l] (gemm: weights [p, l]) or weights[l][p] (dx: weights [l, p]). */
typedef struct check_product {
    const char *what;
    int64_t m, p, l;
    const void *a;
    fb_dtype a_dtype;
    const double *weights;
    bool dx;
    const void *bias;   /* a_dtype, or NULL */
    const void *before; /* out_dtype, or NULL: what dX held before it was added to */
    const void *out;
    fb_dtype out_dtype;
    bool gaussian;      /* also the bound on the whole */
    bool flushed;       /* FB_WEIGHTS_FLUSHED */
    const float *factor; /* of the first contraction; NULL: 1 */
    /* A second contraction; rank 0: none. The kernel's terms are these to within slack (NULL: exactly these). */
    int64_t rank;
    const double *terms, *slack, *with;
    const uint8_t *kept; /* [m, p]: 0 where terms do not enter; NULL: they enter everywhere */
} check_product;
typedef struct check_sum {
    double value, magnitude;     /* in double, before `before` is added; sum of the terms' magnitudes */
    double error;                /* the most that fp32 sums of these terms are off */
    double slack;                /* how far the terms' slack moves it at most */
} check_sum;
check_sum check_element(const check_product *c, int64_t index);
check_result check_level2(const check_product *product);
check_result check_level3(const check_product *product); /* weights: FB_WEIGHTS_EXACT */

/* ---- guarded buffers ------------------------------------------------------------
 * A buffer between two pages that cannot be touched, flush with one of them, so
 * that the first byte read or written too far is a fault; what is left of its
 * own pages is filled with a pattern that guard_check looks at. */
typedef enum guard_side { GUARD_END = 0, GUARD_START } guard_side;

typedef struct guard {
    const char *name;
    uint8_t *data;
    size_t bytes;
    uint8_t *inner; /* the pages that can be touched */
    size_t inner_bytes;
} guard;

/* GUARD_END: data ends (rounded up to align) where the forbidden page begins.
 * name must outlive the guard. Ends the program when memory is exhausted. */
guard guard_new(const char *name, size_t bytes, guard_side side, size_t align);
void guard_poison(const guard *g); /* all bits set: NaN in every type */
check_result guard_check(const guard *g);
void guard_free(guard *g);
/* Report a fault next to a guarded buffer by the buffer's name before dying. */
void guard_report_faults(void);

#endif
