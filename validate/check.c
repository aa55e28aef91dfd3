/* check.c: comparisons; the bounds are derived in check.h. Guarded buffers: guard.c. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- one line of verdict --------------------------------------------------------- */

static void locate(check_place place, int64_t index, char *text, size_t size)
{
    if (place.cols > 0 && place.block_size > 0)
        snprintf(text, size, "element %" PRId64 " (row %" PRId64 ", block %" PRId64 ")", index, index / place.cols,
                 index / place.block_size);
    else
        snprintf(text, size, "element %" PRId64, index);
}

static check_result begin(int64_t n)
{
    check_result r = {.ok = true, .n = n, .worst = -1, .sqnr_db = INFINITY};
    return r;
}

static void finish_exact(check_result *r, check_place place, const char *detail)
{
    char where[96];
    if (r->bad == 0) {
        snprintf(r->text, sizeof r->text, "%s: %" PRId64 " elements bit for bit", place.what, r->n);
        return;
    }
    r->ok = false;
    locate(place, r->worst, where, sizeof where);
    snprintf(r->text, sizeof r->text, "%s: %" PRId64 " of %" PRId64 " differ, worst %s: %s", place.what, r->bad, r->n,
             where, detail);
}

/* ---- level 1 ------------------------------------------------------------------------ */

/* Bits as an integer that grows with the value, so that a difference counts ulps. */
static int64_t ordered(const void *p, fb_dtype t, int64_t i)
{
    if (t == FB_F32) {
        uint32_t u = ((const uint32_t *)p)[i];
        return u & 0x80000000u ? -(int64_t)(u & 0x7fffffffu) - 1 : (int64_t)u;
    }
    uint16_t h = ((const uint16_t *)p)[i];
    return h & 0x8000u ? -(int64_t)(h & 0x7fffu) - 1 : (int64_t)h;
}

static check_result same(check_place place, const void *got, const void *want, fb_dtype t, int64_t n,
                         bool zeros_are_equal)
{
    check_result r = begin(n);
    char detail[128] = "";
    bool nan_seen = false;
    for (int64_t i = 0; i < n; i++) {
        float g = fb_load(got, t, i), w = fb_load(want, t, i);
        bool nan = isnan(g) || isnan(w);
        int64_t d = ordered(got, t, i) - ordered(want, t, i);
        if (!nan && (d == 0 || (zeros_are_equal && g == 0.0f && w == 0.0f))) continue;
        uint64_t ulp = nan ? UINT64_MAX : (uint64_t)(d < 0 ? -d : d);
        r.bad++;
        if (r.worst >= 0 && (nan_seen || ulp <= r.max_ulp)) continue;
        nan_seen = nan;
        r.max_ulp = ulp;
        r.worst = i;
        if (nan) snprintf(detail, sizeof detail, "got %.9g, want %.9g", (double)g, (double)w);
        else snprintf(detail, sizeof detail, "got %.9g, want %.9g, %" PRIu64 " ulp", (double)g, (double)w, ulp);
    }
    finish_exact(&r, place, detail);
    return r;
}

check_result check_same(check_place place, const void *got, const void *want, fb_dtype dtype, int64_t n)
{
    return same(place, got, want, dtype, n, false);
}

check_result check_same_value(check_place place, const void *got, const void *want, fb_dtype dtype, int64_t n)
{
    return same(place, got, want, dtype, n, true);
}

check_result check_nibbles(check_place place, const uint8_t *got, const uint8_t *want, int64_t n)
{
    check_result r = begin(n);
    char detail[64] = "";
    int64_t padded = n + (n & 1); /* the spare nibble of an odd n has a meaning too */
    for (int64_t i = 0; i < padded; i++) {
        unsigned g = fb_nibble(got, i), w = fb_nibble(want, i);
        if (g == w) continue;
        if (r.bad++ > 0) continue;
        r.worst = i;
        r.max_ulp = g > w ? g - w : w - g;
        snprintf(detail, sizeof detail, "code %u, want %u (the first)", g, w);
    }
    finish_exact(&r, place, detail);
    return r;
}

check_result check_bytes(check_place place, const uint8_t *got, const uint8_t *want, int64_t n)
{
    check_result r = begin(n);
    char detail[64] = "";
    for (int64_t i = 0; i < n; i++) {
        if (got[i] == want[i]) continue;
        if (r.bad++ > 0) continue;
        r.worst = i;
        snprintf(detail, sizeof detail, "byte %u, want %u (the first)", got[i], want[i]);
    }
    finish_exact(&r, place, detail);
    return r;
}

/* ---- levels 2 and 3 -------------------------------------------------------------------- */

void check_weights(const fb_matrix *w, fb_weights weights, fb_dtype dtype, double *out)
{
    float book[FB_CODES], nested[FB_CODES8];
    memcpy(book, w->codebook ? (const void *)w->codebook : fb_codebook_bits[w->format], sizeof book);
    memcpy(nested, w->nested_codebook ? (const void *)w->nested_codebook : fb_dynamic_bits[FB_MAP_SIGNED],
           sizeof nested);
    for (int64_t i = 0; i < w->rows * w->cols; i++) {
        int64_t block = i / w->block_size;
        float scale;
        if (w->double_quant) {
            float product = nested[w->absmax_codes[block]] * w->nested_absmax[block / FB_NESTED_BLOCK];
            scale = product + *w->nested_offset;
        } else {
            scale = w->absmax[block];
        }
        float value = book[fb_nibble(w->codes, i)];
        if (w->format == FB_INT4_AFFINE) value -= (float)w->zero_points[block];
        if (weights == FB_WEIGHTS_CODES) {
            const float factor = fb_codes16_factor(w->format, dtype);
            const double zero = w->format == FB_INT4_AFFINE ? (double)w->zero_points[block] : 0;
            uint32_t cell;
            fb_store(&cell, dtype, 0, book[fb_nibble(w->codes, i)] * factor);
            out[i] = ((double)fb_load(&cell, dtype, 0) - zero) / (double)factor * (double)scale;
            continue;
        }
        if (weights == FB_WEIGHTS_EXACT) {
            out[i] = (double)value * (double)scale; /* 48 bits: exact */
            continue;
        }
        uint32_t cell;
        fb_store(&cell, dtype, 0, value * scale);
        out[i] = (double)fb_load(&cell, dtype, 0);
    }
}

check_sum check_element(const check_product *c, int64_t index)
{
    const int64_t i = index / c->p, j = index % c->p, step = c->dx ? c->p : 1;
    const double *w = c->dx ? c->weights + j : c->weights + j * c->l, factor = c->factor ? (double)*c->factor : 1;
    check_sum s = {0};
    double lost = 0; /* where subnormals count as zero */
    for (int64_t k = 0; k < c->l; k++) {
        double t = (double)fb_load(c->a, c->a_dtype, i * c->l + k) * w[k * step];
        s.value += t;
        s.magnitude += fabs(t);
        if (fabs(w[k * step]) <= 0x1p-126 || fabs((double)fb_load(c->a, c->a_dtype, i * c->l + k)) < 0x1p-126) lost += fabs(t);
    }
    s.value *= factor;
    s.magnitude *= fabs(factor);
    if (c->bias) {
        double b = (double)fb_load(c->bias, c->a_dtype, j);
        s.value += b;
        s.magnitude += fabs(b);
    }
    const bool kept = !c->kept || c->kept[index];
    for (int64_t r = 0; kept && r < c->rank; r++) {
        double term = c->terms[i * c->rank + r], with = c->with[r * c->p + j];
        double off = c->slack ? c->slack[i * c->rank + r] * fabs(with) : 0;
        s.value += term * with;
        s.magnitude += fabs(term * with) + off;
        s.slack += off;
    }
    const double underflow = (c->flushed ? 0x1p-126 : 0x1p-149) * fmax(1, fabs(factor)); /* it is scaled, too */
    s.error = (double)(c->l + c->rank + CHECK_EXTRA_ROUNDINGS) * (0x1p-24 * s.magnitude + underflow);
    if (c->flushed) s.error += lost * fabs(factor);
    return s;
}

static float rounded(double v, fb_dtype t)
{
    uint32_t cell;
    fb_store(&cell, t, 0, (float)v);
    return fb_load(&cell, t, 0);
}

typedef struct norms {
    double reference, error, rounding, slack; /* sums of squares */
    double worst_r, worst_y;
} norms;

/* Error / half-width of the interval, where "inside" is decided on the rounded ends. */
static void level2_element(const check_product *c, int64_t index, check_result *r, norms *s)
{
    const check_sum sum = check_element(c, index);
    double want = sum.value, e = sum.error + sum.slack;
    if (c->before) {
        /* dX += product: the product, the old value and their sum; one more fp32 rounding */
        double old = (double)fb_load(c->before, c->out_dtype, index);
        want += old;
        e += 0x1p-24 * (fabs(old) + sum.magnitude);
    }
    double y = (double)fb_load(c->out, c->out_dtype, index), near = (double)rounded(want, c->out_dtype);
    double low = (double)rounded(want - e, c->out_dtype), high = (double)rounded(want + e, c->out_dtype);
    double width = e + fabs(near - want), error = fabs(y - want);
    bool inside = y >= low && y <= high; /* false for NaN */
    double ratio = width > 0 ? error / width : (inside ? 0 : INFINITY);
    if (inside) ratio = fmin(ratio, 1);
    else ratio = isnan(y) ? INFINITY : fmax(ratio, 1);
    if (r->worst < 0 || ratio > r->max_ratio || (!inside && r->ok)) {
        r->max_ratio = ratio;
        r->worst = index;
        s->worst_r = want;
        s->worst_y = y;
    }
    r->bad += !inside;
    r->ok = r->ok && inside;
    s->reference += want * want;
    s->error += (y - want) * (y - want);
    s->rounding += (near - want) * (near - want);
    s->slack += sum.slack * sum.slack;
}

static void describe(const check_product *c, check_result *r, const norms *s, double allowed)
{
    char where[96] = "";
    check_place rows = {c->what, c->p, (int32_t)c->p};
    r->frobenius = s->reference > 0 ? sqrt(s->error / s->reference) : (s->error > 0 ? INFINITY : 0);
    r->sqnr_db = s->error > 0 ? 10 * log10(s->reference / s->error) : (s->error == 0 ? INFINITY : NAN);
    if (r->worst >= 0) locate(rows, r->worst, where, sizeof where);
    char *comma = strstr(where, ", block"); /* an output element has a row and a column */
    if (comma) snprintf(comma, sizeof where - (size_t)(comma - where), ", column %" PRId64 ")", r->worst % c->p);
    snprintf(r->text, sizeof r->text,
             "%s: %s, %" PRId64 " of %" PRId64 " outside, worst %s got %.9g want %.9g (%.2f of the bound), Frobenius %.2e"
             " (allowed %.2e), SQNR %.1f dB",
             c->what, r->ok ? "ok" : "WRONG", r->bad, r->n, where, s->worst_y, s->worst_r, r->max_ratio, r->frobenius,
             allowed, r->sqnr_db);
}

check_result check_level2(const check_product *c)
{
    check_result r = begin(c->m * c->p);
    norms s = {0};
    double allowed = INFINITY;
    for (int64_t i = 0; i < r.n; i++) level2_element(c, i, &r, &s);
    if (c->gaussian) {
        double q = s.reference > 0 ? sqrt(s.rounding / s.reference) + sqrt(s.slack / s.reference) : 0;
        allowed = CHECK_FROBENIUS + q;
        if (!(sqrt(s.error) <= allowed * sqrt(s.reference))) r.ok = false;
    }
    describe(c, &r, &s, allowed);
    return r;
}

check_result check_level3(const check_product *c)
{
    check_result r = begin(c->m * c->p);
    norms s = {0};
    double worst = -1;
    for (int64_t i = 0; i < r.n; i++) {
        double want = check_element(c, i).value, y = (double)fb_load(c->out, c->out_dtype, i);
        double error = fabs(y - want);
        s.reference += want * want;
        s.error += error * error;
        r.bad += !isfinite(y);
        if (r.worst >= 0 && error <= worst) continue; /* a NaN is always the worst yet */
        worst = isnan(error) ? INFINITY : error;
        r.worst = i;
        s.worst_r = want;
        s.worst_y = y;
    }
    if (!(sqrt(s.error) <= CHECK_END_TO_END * sqrt(s.reference))) r.ok = false;
    if (s.error > 0 && !(10 * log10(s.reference / s.error) >= CHECK_SQNR_DB)) r.ok = false;
    describe(c, &r, &s, CHECK_END_TO_END);
    return r;
}
