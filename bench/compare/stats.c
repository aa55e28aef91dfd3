/* stats.c: medians, rank tests, bootstrap intervals, Holm's correction (stats.h). */
#include "stats.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { EXACT_MAX = 60, REPLICATES = 999, RANKS_MAX = 512, TABLES = 128 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static double two_sided(double z) { return erfc(fabs(z) / sqrt(2)); }

/* ---- ranks ---------------------------------------------------------------------------------- */

typedef struct ranked {
    double key;  /* what is ranked */
    int group;   /* signed rank: the difference is positive; rank sum: it is of the first set */
    int rank2;   /* twice the rank, ties averaged: an integer */
} ranked;

static int by_key(const void *a, const void *b) { return by_value(&((const ranked *)a)->key, &((const ranked *)b)->key); }

/* Sorts and ranks; returns the sum over groups of ties of t^3 - t. */
static double rank_all(ranked *r, int n)
{
    double ties = 0;
    qsort(r, (size_t)n, sizeof *r, by_key);
    for (int i = 0, j; i < n; i = j) {
        for (j = i; j < n && r[j].key == r[i].key; j++) {}
        for (int k = i; k < j; k++) r[k].rank2 = i + 1 + j;
        double t = j - i;
        ties += t * t * t - t;
    }
    return ties;
}

/* P(sum of doubled ranks <= s) when each rank is in the sum with probability 1/2: one rank after another. */
static double sum_at_most(const ranked *r, int n, int s)
{
    static _Thread_local double ways[EXACT_MAX * (EXACT_MAX + 1) + 1];
    int reach = 0;
    double total = 0;
    ways[0] = 1;
    for (int i = 0; i < n; i++) {
        memset(ways + reach + 1, 0, (size_t)r[i].rank2 * sizeof *ways);
        reach += r[i].rank2;
        for (int k = reach; k >= r[i].rank2; k--) ways[k] += ways[k - r[i].rank2];
    }
    for (int k = 0; k <= s; k++) total += ways[k];
    return ldexp(total, -n);
}

double stats_signed_rank(const double *d, int n)
{
    ranked *r = malloc(((size_t)n + 1) * sizeof *r);
    int count = 0, sum2 = 0;
    if (!r) return 1; /* cannot tell: never a verdict */
    for (int i = 0; i < n; i++)
        if (d[i] != 0) r[count++] = (ranked){.key = fabs(d[i]), .group = d[i] > 0};
    double ties = rank_all(r, count), p = 1, all = (double)count * (count + 1);
    for (int i = 0; i < count; i++) sum2 += r[i].group ? r[i].rank2 : 0;
    if (count > 0 && count <= EXACT_MAX) {
        int smaller = sum2 < (int)all - sum2 ? sum2 : (int)all - sum2;
        p = 2 * sum_at_most(r, count, smaller);
    } else if (count > 0) {
        double deviation = sqrt(all * (2 * count + 1) / 24 - ties / 48);
        p = two_sided(fmax(fabs(sum2 / 2.0 - all / 4) - 0.5, 0) / deviation);
    }
    free(r);
    return p < 1 ? p : 1;
}

double stats_rank_sum(const double *a, int n, const double *b, int m)
{
    int all = n + m;
    ranked *r = n > 0 && m > 0 ? malloc((size_t)all * sizeof *r) : NULL;
    if (!r) return 1;
    for (int i = 0; i < all; i++) r[i] = (ranked){.key = i < n ? a[i] : b[i - n], .group = i < n};
    double ties = rank_all(r, all), sum = 0;
    for (int i = 0; i < all; i++) sum += r[i].group ? r[i].rank2 / 2.0 : 0;
    free(r);
    double u = sum - n * (n + 1) / 2.0, mean = n * (double)m / 2;
    double variance = n * (double)m / 12 * (all + 1 - ties / ((double)all * (all - 1)));
    if (!(variance > 0)) return 1; /* all equal */
    return two_sided(fmax(fabs(u - mean) - 0.5, 0) / sqrt(variance));
}

/* ---- bootstrap --------------------------------------------------------------------------------
 * The median of a resample of n sorted values is the value whose rank is the median of n uniform ranks, and
 * P(that rank <= k) = P(at least half of n uniforms fall at or below k) is a binomial tail. So one random number
 * replaces a resample; 5,000 rows of 999 replicates are a fraction of a second. For even n the lower or the upper
 * middle is drawn, each half of the time. */

typedef struct rank_table {
    int n;
    double cumulative[2][RANKS_MAX]; /* of the lower and the upper middle rank */
} rank_table;

static double binomial_tail(int n, double p, int least)
{
    double sum = 0;
    for (int i = least; i <= n; i++)
        sum += exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log1p(-p));
    return sum;
}

static const rank_table *table_for(int n, rank_table tables[TABLES])
{
    rank_table *t = &tables[n % TABLES];
    if (t->n == n) return t;
    t->n = n;
    for (int k = 0; k < n; k++)
        for (int upper = 0; upper < 2; upper++)
            t->cumulative[upper][k] = k == n - 1 ? 1 : binomial_tail(n, (k + 1) / (double)n, (n - 1) / 2 + 1 + (upper && n % 2 == 0));
    return t;
}

static uint64_t next(uint64_t *state) /* Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, 2014 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double draw_median(const rank_table *t, const double *sorted, uint64_t *state)
{
    uint64_t bits = next(state);
    double u = (double)(bits >> 11) * 0x1p-53;
    const double *cumulative = t->cumulative[bits & 1];
    int low = 0, high = t->n - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (cumulative[middle] > u) high = middle;
        else low = middle + 1;
    }
    return sorted[low];
}

/* The k-th smallest of v [n], which it reorders (Hoare, Algorithm 65: Find, 1961): sorting them all took half the time
 * of a whole comparison. */
static double nth(double *v, int n, int k)
{
    for (int low = 0, high = n - 1; low < high;) {
        double pivot = v[(low + high) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i > j) break;
            double t = v[i];
            v[i++] = v[j], v[j--] = t;
        }
        if (k <= j) high = j;
        else if (k >= i) low = i;
        else break;
    }
    return v[k];
}

static stats_interval bootstrap(const double *a, int n, const double *b, int m)
{
    static _Thread_local rank_table tables[TABLES]; /* rows have many different n */
    double drawn[REPLICATES];
    uint64_t state = 20230424; /* fixed: the same files give the same verdict */
    if (n > RANKS_MAX || m > RANKS_MAX) return (stats_interval){0, INFINITY}; /* more than any run of ours takes: not known */
    const rank_table *of_a = table_for(n, tables);
    for (int i = 0; i < REPLICATES; i++) drawn[i] = draw_median(of_a, a, &state);
    const rank_table *of_b = b ? table_for(m, tables) : NULL; /* may take a third n's place, so a is done with */
    for (int i = 0; b && i < REPLICATES; i++) drawn[i] /= draw_median(of_b, b, &state);
    double low = nth(drawn, REPLICATES, (REPLICATES + 1) / 40 - 1);
    return (stats_interval){low, nth(drawn, REPLICATES, REPLICATES - (REPLICATES + 1) / 40)};
}

stats_interval stats_bootstrap_median(const double *v, int n) { return bootstrap(v, n, NULL, 1); }
stats_interval stats_bootstrap_ratio(const double *a, int n, const double *b, int m) { return bootstrap(a, n, b, m); }

/* ---- many rows at once --------------------------------------------------------------------------- */

bool stats_holm(double *p, int n)
{
    ranked *r = malloc(((size_t)n + 1) * sizeof *r);
    if (!r) return false;
    for (int i = 0; i < n; i++) r[i] = (ranked){.key = p[i], .group = i};
    qsort(r, (size_t)n, sizeof *r, by_key);
    double worst = 0;
    for (int i = 0; i < n; i++) {
        worst = fmax(worst, fmin(1, (n - i) * r[i].key));
        p[r[i].group] = worst;
    }
    free(r);
    return true;
}
