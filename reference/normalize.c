/* normalize.c: a tensor to zero mean and unit variance, and back.
 *
 * Mean and deviation are kept (moments[0], moments[1]) and undone after
 * dequantizing. Sums in double, in the tree order of backend.h, so that a parallel
 * backend can give the same bits; the variance from the squared differences to the
 * rounded mean (two passes: no cancellation). */
#include "reference.h"

typedef struct series {
    const void *x;
    fb_dtype t;
    float mean;
} series;

static double value(const void *user, int64_t i)
{
    const series *s = user;
    return fb_load(s->x, s->t, i);
}

static double squared_difference(const void *user, int64_t i)
{
    const series *s = user;
    double d = (double)fb_load(s->x, s->t, i) - (double)s->mean;
    return d * d;
}

fb_status ref_normalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                        fb_dtype dst_dtype, float *moments)
{
    int64_t bad = ctx->flags & FB_ASSUME_FINITE ? -1 : ref_first_nonfinite(src, src_dtype, n);
    if (bad >= 0) return fb_fail_nonfinite(ctx, "src", bad, fb_load(src, src_dtype, bad));

    series s = {.x = src, .t = src_dtype, .mean = 0};
    s.mean = (float)(ref_tree_sum(value, &s, n) / (double)n);
    float std = (float)sqrt(ref_tree_sum(squared_difference, &s, n) / (double)n);
    if (!(std > 0)) std = 1; /* all equal: nothing to scale */
    for (int64_t i = 0; i < n; i++) fb_store(dst, dst_dtype, i, (fb_load(src, src_dtype, i) - s.mean) / std);
    moments[0] = s.mean;
    moments[1] = std;
    return FB_OK;
}

fb_status ref_denormalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, const float *moments,
                          void *dst, fb_dtype dst_dtype)
{
    (void)ctx;
    for (int64_t i = 0; i < n; i++) {
        float scaled = fb_load(src, src_dtype, i) * moments[1];
        fb_store(dst, dst_dtype, i, scaled + moments[0]);
    }
    return FB_OK;
}
