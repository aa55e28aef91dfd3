/* tree.h: the tree sum of backend.h over threads. Included after a vec_*.h.
 *
 * 256 groups of 256 are one thread's (a subtree); 256 subtrees are summed at a time and
 * folded in order, so that any count needs the same few KB. */
#ifndef FOURBIT_CPU_TREE_H
#define FOURBIT_CPU_TREE_H

#include "microkernel.h"

enum {
    TREE_GROUP = 256,
    TREE_CHUNK = TREE_GROUP * TREE_GROUP, /* elements of a subtree */
    TREE_LEVELS = 7                       /* above the subtrees: 256^9 > 2^60 */
};

/* Sums x, or (x - mean)^2. */
typedef struct series {
    const void *x;
    fb_dtype t;
    int64_t n;
    bool squares;
    float mean;
} series;

static double halve(double *v)
{
    for (int s = TREE_GROUP / 2; s > 0; s /= 2)
        for (int i = 0; i < s; i++) v[i] += v[i + s];
    return v[0];
}

static double group_sum(const series *s, int64_t begin)
{
    float x[TREE_GROUP];
    double v[TREE_GROUP];
    const int64_t count = cpu_min(TREE_GROUP, s->n - begin);
    to_float(s->x, s->t, begin, count, x);
    if (s->squares) {
        const double mean = (double)s->mean;
        for (int64_t i = 0; i < count; i++) {
            const double d = (double)x[i] - mean;
            v[i] = d * d;
        }
    } else {
        for (int64_t i = 0; i < count; i++) v[i] = (double)x[i];
    }
    for (int64_t i = count; i < TREE_GROUP; i++) v[i] = 0.0;
    return s->n == 1 ? v[0] : halve(v);
}

static double chunk_sum(const series *s, int64_t begin)
{
    double sums[TREE_GROUP] = {0.0};
    const int64_t groups = fb_ceil_div(cpu_min(TREE_CHUNK, s->n - begin), TREE_GROUP);
    for (int64_t g = 0; g < groups; g++) sums[g] = group_sum(s, begin + g * TREE_GROUP);
    return s->n <= TREE_GROUP ? sums[0] : halve(sums);
}

static double tree_sum(const fb_context *ctx, const series *s)
{
    double upper[TREE_LEVELS][TREE_GROUP]; /* upper[0]: sums of chunks; upper[l + 1]: of upper[l] */
    int filled[TREE_LEVELS] = {0}, top = 0;
    const int64_t chunks = fb_ceil_div(s->n, TREE_CHUNK);
    for (int64_t base = 0; base < chunks; base += TREE_GROUP) {
        const int64_t count = cpu_min(TREE_GROUP, chunks - base);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, count))
        for (int64_t c = 0; c < count; c++) upper[0][c] = chunk_sum(s, (base + c) * TREE_CHUNK);
        filled[0] = (int)count;
        for (int level = 0; filled[level] == TREE_GROUP; level++) {
            filled[level] = 0;
            upper[level + 1][filled[level + 1]++] = halve(upper[level]);
        }
    }
    /* close the short groups from below until one sum is left */
    for (int64_t left = chunks; left > 1; left = fb_ceil_div(left, TREE_GROUP), top++) {
        if (!filled[top]) continue;
        for (int i = filled[top]; i < TREE_GROUP; i++) upper[top][i] = 0.0;
        upper[top + 1][filled[top + 1]++] = halve(upper[top]);
    }
    return upper[top][0];
}

#endif
