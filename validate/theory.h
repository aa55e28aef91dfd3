/* theory.h: the error that a format must have on N(0, 1), in closed form but for one
 * numeric integral over the block's extremes. No sampling, and nothing fitted.
 *
 * The B elements of a block are independent N(0, 1), so given the block's largest
 * magnitude m the other B - 1 are independent normals cut off at +-m. With phi and Phi
 * the normal density and distribution, and a bin [a, b] with reconstruction c:
 *
 *   E2 = integral of (x - c)^2 phi = (1 + c^2)(Phi(b) - Phi(a)) - (b phi(b) - a phi(a)) + 2c (phi(b) - phi(a))
 *   E1 = integral of |x - c| phi   = 2 phi(c) - phi(a) - phi(b) - c (Phi(a) + Phi(b) - 2 Phi(c))    for a <= c <= b
 *
 *   error(B) = (B - 1) * integral over m of 2 phi(m) (2 Phi(m) - 1)^(B - 2) * sum over bins of E dm
 *
 * (the largest element itself has no error: +-1, or +-7 of 7, is a code). INT4 affine
 * has two extremes, lo and hi, whose joint density is B(B-1) phi(lo) phi(hi)
 * (Phi(hi) - Phi(lo))^(B-2), and whose own errors count, because the zero point is rounded.
 * Left out: blocks without both signs (probability 2^(1-B)).
 *
 * Accuracy: about 1e-9 relative, for B = 32 ... 4096 (what fp32 arithmetic in the codecs
 * adds, some 1e-7, is not modelled).
 */
#ifndef FOURBIT_THEORY_H
#define FOURBIT_THEORY_H

#include "formats.h"

/* Expected squared and absolute error of an element, fp32 absmax. NaN if block_size < 2
 * or the format is unknown. For deviation sigma: times sigma^2, times sigma. */
double fb_expected_mse(fb_format format, int block_size);
double fb_expected_mae(fb_format format, int block_size);

/* Expected largest magnitude of a block. */
double fb_expected_absmax(int block_size);

/* The same errors for any codebook of n ascending values in [-1, 1] that has both ends,
 * with n - 1 thresholds between them. power: 1 or 2. */
double fb_expected_codebook_error(const double *values, const double *thresholds, int n, int block_size, int power);

/* Probability of each of NF4's codes, the block's largest element included. */
void fb_expected_nf4_probabilities(int block_size, double probability[FB_CODES]);

#endif
