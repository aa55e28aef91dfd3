/* statistics.h: the few tests that the experiment's verdicts rest on. */
#ifndef FOURBIT_TRAIN_STATISTICS_H
#define FOURBIT_TRAIN_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct stat_sample {
    int n;
    double mean, deviation; /* deviation: of the sample, n - 1 degrees of freedom; NaN for n < 2 */
} stat_sample;
stat_sample stat_of(const double *x, int n);

/* The value that Student's t with `freedom` degrees exceeds with probability 0.05. */
double stat_t95(int freedom);

/* Is the mean of paired differences above 0? One-sided, level 0.05: mean > t deviation / sqrt(n). */
bool stat_above_zero(const double *differences, int n);

/* Two one-sided tests (Schuirmann 1987), each at level 0.05: is the mean of paired differences within +-margin? It is when the
 * 90 % confidence interval lies inside. low and high: that interval. */
typedef struct stat_equivalence {
    double low, high;
    bool equivalent;
} stat_equivalence;
stat_equivalence stat_tost(const double *differences, int n, double margin);

/* Pooled deviation of `groups` groups of `each` values: what a seed alone changes. */
double stat_pooled(const double *x, int groups, int each);

#endif
