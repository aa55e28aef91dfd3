/* stage.h: what every quantizer does before it looks for codes: refuse NaN and Inf, bring
 * a block to fp32, find its range. Included after a vec_*.h. */
#ifndef FOURBIT_CPU_STAGE_H
#define FOURBIT_CPU_STAGE_H

#include "cpu.h"

enum { QUANTIZE_CHUNK = 1 << 15, CHECK_CHUNK = 1 << 15 }; /* elements a thread takes at a time */

/* ---- NaN and Inf ------------------------------------------------------------------ */

/* Index of the first among elements begin ... end-1, or `none`. */
static inline int64_t first_nonfinite(const void *src, fb_dtype t, int64_t begin, int64_t end, int64_t none)
{
    const int64_t whole = begin + (end - begin) / (4 * GROUP) * (4 * GROUP);
    const char *at = (const char *)src + begin * (int64_t)fb_dtype_size(t);
    int64_t i = vec_all_finite(at, t, whole - begin) ? whole : begin;
    for (; i < end; i++)
        if (!isfinite(fb_load(src, t, i))) return i;
    return none;
}

static inline fb_status check_finite(fb_context *ctx, const char *what, const void *src, fb_dtype t, int64_t n)
{
    if (ctx->flags & FB_ASSUME_FINITE) return FB_OK;
    const int64_t chunk = cpu_chunk(ctx, n), chunks = fb_ceil_div(n, chunk);
    int64_t first = n;
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks)) reduction(min : first)
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t begin = c * chunk, end = cpu_min(begin + chunk, n);
        if (begin < first) first = cpu_min(first, first_nonfinite(src, t, begin, end, n));
    }
    return first == n ? FB_OK : fb_fail_nonfinite(ctx, what, first, fb_load(src, t, first));
}

/* ---- a block ----------------------------------------------------------------------- */

typedef struct range {
    float lo, hi; /* of the elements and 0 */
} range;

/* count elements as fp32, zeros up to a whole group; their range, or if not `both`, lo = 0 and hi the largest magnitude. */
ALWAYS_INLINE range stage(const void *src, fb_dtype t, int64_t begin, int64_t count, float *x, const bool both)
{
    vf lo = vf_zero(), hi = vf_zero();
    const int64_t whole = count / VF * VF, padded = cpu_round_up(count, GROUP);
    /* the type is asked once, not once a vector */
#define STAGE(type)                                       \
    for (int64_t i = 0; i < whole; i += VF) {             \
        const vf v = vf_load_as(src, type, begin + i);    \
        vf_store(x + i, v);                               \
        if (both) lo = vf_min(v, lo);                     \
        hi = vf_max(both ? v : vf_abs(v), hi);            \
    }
    if (t == FB_F32) STAGE(FB_F32) else if (t == FB_BF16) STAGE(FB_BF16) else STAGE(FB_F16)
#undef STAGE
    for (int64_t i = whole; i < padded; i++) x[i] = i < count ? fb_load(src, t, begin + i) : 0.0f;
    for (int64_t i = whole; i < padded; i += VF) {
        const vf v = vf_load(x + i);
        if (both) lo = vf_min(v, lo);
        hi = vf_max(both ? v : vf_abs(v), hi);
    }
    return (range){both ? vf_smallest(lo) : 0.0f, vf_largest(hi)};
}

/* The same, the largest magnitude alone; +0.0 where all are zero. */
static inline float stage_largest(const void *src, fb_dtype t, int64_t begin, int64_t count, float *x)
{
    return stage(src, t, begin, count, x, false).hi;
}

/* y = x / absmax by the rule of backend.h */
static inline vf scaled(vf x, vf absmax, vf inverse, bool divide)
{
    return divide ? vf_div(x, absmax) : vf_mul(x, inverse);
}

#endif
