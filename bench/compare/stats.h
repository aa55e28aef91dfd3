/* stats.h: what decides whether two sets of times differ. Deterministic: the same numbers give the same answer. */
#ifndef FOURBIT_COMPARE_STATS_H
#define FOURBIT_COMPARE_STATS_H

#include <stdbool.h>

typedef struct stats_interval {
    double low, high;
} stats_interval;

/* Of v [n], which it sorts. n > 0. */
double stats_median(double *v, int n);

/* Two-sided p-value of the signed-rank test (Wilcoxon, Individual Comparisons by Ranking Methods, 1945) that the
 * differences d [n] are symmetric about 0. Exact up to 60 differences, ties included (the distribution of the sum of
 * the ranks that are there, not of 1 ... n); beyond, normal. Zeros are dropped. n = 0 or all zero: 1. */
double stats_signed_rank(const double *d, int n);

/* Two-sided p-value of the rank-sum test (Mann & Whitney, On a Test of Whether one of Two Random Variables is
 * Stochastically Larger, 1947): normal, with corrections for ties and continuity. */
double stats_rank_sum(const double *a, int n, const double *b, int m);

/* 95 % percentile bootstrap (Efron, Bootstrap Methods, 1979) of the median of v [n], and of median(a [n]) / median(b [m]).
 * v, a and b must be sorted. */
stats_interval stats_bootstrap_median(const double *v, int n);
stats_interval stats_bootstrap_ratio(const double *a, int n, const double *b, int m);

/* p [n] becomes the p-value that holds for all n together (Holm, A Simple Sequentially Rejective Multiple Test
 * Procedure, 1979): refusing those <= 0.05 is wrong about any of them in at most 5 % of runs. False: no memory. */
bool stats_holm(double *p, int n);

#endif
