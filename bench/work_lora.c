/* work_lora.c: the adapter of a LoRA case and the check of all that its two passes write (work.h). */
#include "bench/work.h"

#include "validate/check_lora.h"
#include "validate/inputs.h"

#include <stdio.h>
#include <stdlib.h>

static bool fail(char *why, const char *text)
{
    snprintf(why, TIMING_WHY, "%s", text);
    return false;
}

void work_lora_free(work *w)
{
    free((void *)w->l.lora.a), free((void *)w->l.lora.b), free(w->l.x), free(w->l.u), free(w->l.da), free(w->l.db);
    w->l = (work_lora){.u = NULL};
}

bool work_lora_make(work *w, char why[TIMING_WHY])
{
    const fb_case *c = &w->c;
    const int64_t r = c->rank, na = r * c->cols, nb = c->rows * r, nu = c->m * r, nx = c->m * c->cols;
    const size_t t = fb_dtype_size(c->dtype);
    work_lora_free(w);
    if (!work_is_lora(c)) return true;
    const bool back = c->op == FB_OP_LORA_BACKWARD;
    void *a = work_block((size_t)na * t), *b = work_block((size_t)nb * t);
    w->l = (work_lora){.lora = {.rank = c->rank, .scale = 1, .a = a, .b = b}, .u = work_block((size_t)nu * t)};
    if (back) w->l.x = work_block((size_t)nx * t), w->l.da = work_block((size_t)na * sizeof(float)), w->l.db = work_block((size_t)nb * sizeof(float));
    if (!a || !b || !w->l.u || (back && (!w->l.x || !w->l.da || !w->l.db))) return fail(why, "no memory for the adapter");
    work_fill(a, c->dtype, na, 21), work_fill(b, c->dtype, nb, 22);
    if (back) work_fill(w->l.x, c->dtype, nx, 23), work_fill(w->l.u, c->dtype, nu, 24);
    return true;
}

/* ---- the check ----------------------------------------------------------------------------------------- */

/* A matrix, its transpose, or doubles of our own, by strides in elements. */
typedef struct grid {
    const void *p;
    fb_dtype t;
    const double *doubles; /* in place of p */
    int64_t row, col;
} grid;

static double at(const grid *g, int64_t i, int64_t j)
{
    int64_t e = i * g->row + j * g->col;
    return g->doubles ? g->doubles[e] : (double)fb_load(g->p, g->t, e);
}

/* out [m, p] = terms [m, l] * with [l, p], one of the adapter's small products; slack: how far a term may be off, as terms
 * lies, or NULL. */
typedef struct small_product {
    const char *what;
    int64_t m, p, l;
    grid terms, with;
    const double *slack;
    const void *out;
    fb_dtype t;
} small_product;

static check_result no_memory(void) { return (check_result){.ok = false, .worst = -1, .text = "no memory to check with"}; }

static check_result sampled(const small_product *s)
{
    int64_t ms[WORK_SAMPLED_COLS], ps[WORK_SAMPLED_COLS];
    const bool tall = s->m > s->p; /* more samples along the longer side */
    const int nm = work_pick(s->m, tall ? WORK_SAMPLED_COLS : WORK_SAMPLED_ROWS, 6, ms);
    const int np = work_pick(s->p, tall ? WORK_SAMPLED_ROWS : WORK_SAMPLED_COLS, 7, ps);
    const size_t size = fb_dtype_size(s->t), terms = (size_t)(nm * s->l), with = (size_t)(s->l * np);
    double *all = work_block((2 * terms + with) * sizeof *all);
    char *out = work_block((size_t)(nm * np) * size);
    check_result r = no_memory();
    if (all && out) {
        for (int i = 0; i < nm; i++)
            for (int64_t k = 0; k < s->l; k++) {
                all[i * s->l + k] = at(&s->terms, ms[i], k);
                all[terms + (size_t)(i * s->l + k)] = s->slack ? s->slack[ms[i] * s->terms.row + k * s->terms.col] : 0;
            }
        for (int64_t k = 0; k < s->l; k++)
            for (int j = 0; j < np; j++) all[2 * terms + (size_t)(k * np + j)] = at(&s->with, k, ps[j]);
        for (int i = 0; i < nm; i++)
            for (int j = 0; j < np; j++) memcpy(out + (size_t)(i * np + j) * size, (const char *)s->out + (size_t)(ms[i] * s->p + ps[j]) * size, size);
        r = check_level2(&(check_product){.what = s->what, .m = nm, .p = np, .rank = s->l, .terms = all, .slack = all + terms,
                                          .with = all + 2 * terms, .out = out, .out_dtype = s->t, .gaussian = true});
    }
    free(all), free(out);
    return r;
}

/* As check_projected of work.c, on signs of its own. */
static check_result projected(const small_product *s)
{
    double *wt = calloc((size_t)s->l, sizeof *wt), *wabs = calloc((size_t)s->l, sizeof *wabs);
    const double unit = ldexp(1.0, s->t == FB_F32 ? -24 : s->t == FB_F16 ? -11 : -8);
    check_result r = no_memory();
    r.ok = wt && wabs;
    for (int64_t k = 0; r.ok && k < s->l; k++)
        for (int64_t j = 0; j < s->p; j++) {
            const double v = at(&s->with, k, j);
            wt[k] += input_random(8, (uint64_t)j) & 1 ? v : -v;
            wabs[k] += fabs(v);
        }
    for (int64_t i = 0; r.ok && i < s->m; i++) {
        double got = 0, squares = 0, want = 0, total = 0, slack = 0;
        for (int64_t j = 0; j < s->p; j++) {
            const double y = (double)fb_load(s->out, s->t, i * s->p + j);
            got += input_random(8, (uint64_t)j) & 1 ? y : -y;
            squares += y * y;
        }
        for (int64_t k = 0; k < s->l; k++) {
            const double a = at(&s->terms, i, k), off = s->slack ? s->slack[i * s->terms.row + k * s->terms.col] * wt[k] : 0;
            want += a * wt[k];
            total += fabs(a) * wabs[k];
            slack += off * off;
        }
        const double sums = (double)(s->l + CHECK_EXTRA_ROUNDINGS) * ldexp(total, -24) / sqrt((double)s->p);
        const double bound = 8 * (unit * sqrt(squares) + sums + sqrt(slack));
        if (fabs(got - want) <= bound) continue;
        r.ok = false;
        snprintf(r.text, sizeof r.text, "%s, row %lld of %lld projected on random signs: %g, expected %g +- %g", s->what, (long long)i,
                 (long long)s->m, got, want, bound);
    }
    free(wt), free(wabs);
    return r;
}

static check_result check_small(const small_product *s)
{
    check_result r = sampled(s);
    return r.ok ? projected(s) : r;
}

/* B^T [rank, rows] (forward) or A [rank, cols] (backward) in double: what the rank-r terms meet. */
static double *second_factor(const work *w)
{
    const fb_case *c = &w->c;
    const bool back = c->op == FB_OP_LORA_BACKWARD;
    const int64_t p = back ? c->cols : c->rows, n = c->rank * p;
    double *with = work_block((size_t)n * sizeof *with);
    for (int64_t i = 0; with && i < n; i++)
        with[i] = back ? (double)fb_load(w->l.lora.a, c->dtype, i) : (double)fb_load(w->l.lora.b, c->dtype, i % p * c->rank + i / p);
    return with;
}

static check_result check_forward(const work *w, fb_weights declared, const double *with, double *terms)
{
    const fb_case *c = &w->c;
    for (int64_t i = 0; i < c->m * c->rank; i++) terms[i] = (double)fb_load(w->l.u, c->dtype, i);
    small_product u = {"U", c->m, c->rank, c->cols, {w->a, c->dtype, NULL, c->cols, 1}, {w->l.lora.a, c->dtype, NULL, 1, c->cols}, NULL, w->l.u, c->dtype};
    check_result r = check_small(&u);
    return r.ok ? work_check_sum(w, declared, &(work_second){c->rank, terms, NULL, with}) : r;
}

static check_result check_backward(const work *w, fb_weights declared, const double *with, double *du, double *slack)
{
    const fb_case *c = &w->c;
    const int64_t size = (int64_t)fb_dtype_size(c->dtype);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < c->m; i += 64) /* a few rows at a time: it turns B over at every call */
        check_lora_du(&w->l.lora, c->rows, c->m - i < 64 ? c->m - i : 64, (const char *)w->a + i * c->rows * size, c->dtype, du + i * c->rank,
                      slack + i * c->rank);
    const small_product da = {"dA", c->rank, c->cols, c->m, {NULL, FB_F32, du, 1, c->rank}, {w->l.x, c->dtype, NULL, c->cols, 1}, slack, w->l.da, FB_F32};
    const small_product db = {"dB", c->rows, c->rank, c->m, {w->a, c->dtype, NULL, 1, c->rows}, {w->l.u, c->dtype, NULL, c->rank, 1}, NULL, w->l.db, FB_F32};
    check_result r = check_small(&da);
    if (r.ok) r = check_small(&db);
    return r.ok ? work_check_sum(w, declared, &(work_second){c->rank, du, slack, with}) : r;
}

check_result work_check_lora(const work *w, fb_weights declared)
{
    const size_t n = (size_t)(w->c.m * w->c.rank) * sizeof(double);
    double *with = second_factor(w), *terms = work_block(n), *slack = work_block(n);
    check_result r = !with || !terms || !slack                ? no_memory()
                     : w->c.op == FB_OP_LORA_FORWARD          ? check_forward(w, declared, with, terms)
                                                              : check_backward(w, declared, with, terms, slack);
    free(with), free(terms), free(slack);
    return r;
}

/* ---- a peer's ------------------------------------------------------------------------------------------ */

/* U[i][r] or dU[i][r], never rounded. */
static double term(const work *w, int64_t i, int64_t r)
{
    const fb_case *c = &w->c;
    const bool back = c->op == FB_OP_LORA_BACKWARD;
    const int64_t l = back ? c->rows : c->cols;
    double sum = 0;
    for (int64_t k = 0; k < l; k++)
        sum += (double)w->a_f32[i * l + k] *
               (double)(back ? fb_load(w->l.lora.b, c->dtype, k * c->rank + r) : fb_load(w->l.lora.a, c->dtype, r * l + k));
    return sum;
}

/* dA (from_du) or dB on a few of the ranks. */
static bool near_gradient(const work *w, const float *got, bool from_du, char *why)
{
    const fb_case *c = &w->c;
    int64_t rs[2], ps[WORK_SAMPLED_COLS];
    const int64_t p = from_du ? c->cols : c->rows;
    const int nr = work_pick(c->rank, 2, 9, rs), np = work_pick(p, WORK_SAMPLED_COLS, 10, ps);
    double error = 0, norm = 0, *column = work_block((size_t)c->m * sizeof *column);
    for (int i = 0; i < nr && column; i++) {
        for (int64_t m = 0; m < c->m; m++) column[m] = from_du ? term(w, m, rs[i]) : (double)fb_load(w->l.u, c->dtype, m * c->rank + rs[i]);
        for (int j = 0; j < np; j++) {
            double want = 0, value = (double)got[from_du ? rs[i] * p + ps[j] : ps[j] * c->rank + rs[i]];
            for (int64_t m = 0; m < c->m; m++) want += column[m] * (double)(from_du ? fb_load(w->l.x, c->dtype, m * p + ps[j]) : w->a_f32[m * p + ps[j]]);
            error += (value - want) * (value - want), norm += want * want;
        }
    }
    const bool near = column && sqrt(error) <= WORK_PRODUCT_PERCENT / 100.0 * sqrt(norm);
    if (!near) snprintf(why, TIMING_WHY, "wrong result: %s at relative distance %.3g, sampled", from_du ? "dA" : "dB", sqrt(error / norm));
    free(column);
    return near;
}

bool work_near_lora(const work *w, const void *out, const float *da, const float *db, char why[TIMING_WHY])
{
    const fb_case *c = &w->c;
    int64_t ms[WORK_SAMPLED_ROWS];
    const int nm = work_pick(c->m, WORK_SAMPLED_ROWS, WORK_ROWS_SEED, ms);
    double *with = second_factor(w), *terms = work_block((size_t)(c->m * c->rank) * sizeof *terms); /* the sampled rows alone are made */
    bool ok = (with && terms) || fail(why, "no memory to check it with");
    for (int i = 0; i < nm && ok; i++)
        for (int64_t r = 0; r < c->rank; r++) terms[ms[i] * c->rank + r] = term(w, ms[i], r);
    ok = ok && work_near_sum(w, out, &(work_second){c->rank, terms, NULL, with}, why) && (!da || near_gradient(w, da, true, why)) &&
         (!db || near_gradient(w, db, false, why));
    free(with), free(terms);
    return ok;
}
