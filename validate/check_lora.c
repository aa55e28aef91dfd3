/* check_lora.c: a LoRA layer held against products in double (check_lora.h). */
#include "check_lora.h"

#include <stdio.h>
#include <stdlib.h>

static void *allocate(int64_t n, size_t size)
{
    void *p = calloc(n > 0 ? (size_t)n : 1, size);
    if (p) return p;
    fprintf(stderr, "check_lora: out of memory\n");
    exit(2);
}

/* Salmon et al. (2011), figure 2 and table 2: the words as two Feistel pairs (L, R), multiplied and crossed. */
void check_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    const uint64_t multiplier[2] = {0xd2511f53u, 0xcd9e8d57u}, weyl[2] = {0x9e3779b9u, 0xbb67ae85u};
    memcpy(out, counter, 4 * sizeof *out);
    for (uint64_t round = 0; round < 10; round++) {
        const uint64_t even = multiplier[0] * out[0], odd = multiplier[1] * out[2];
        const uint64_t k[2] = {(key[0] + round * weyl[0]) % 0x100000000u, (key[1] + round * weyl[1]) % 0x100000000u};
        const uint64_t crossed[4] = {odd / 0x100000000u ^ out[1] ^ k[0], odd % 0x100000000u,
                                     even / 0x100000000u ^ out[3] ^ k[1], even % 0x100000000u};
        for (int i = 0; i < 4; i++) out[i] = (uint32_t)crossed[i];
    }
}

bool check_keeps(uint64_t seed, float dropout, int64_t i)
{
    const uint64_t quad = (uint64_t)i / 4;
    const uint32_t counter[4] = {(uint32_t)(quad % 0x100000000u), (uint32_t)(quad / 0x100000000u), 0, 0};
    const uint32_t key[2] = {(uint32_t)(seed % 0x100000000u), (uint32_t)(seed / 0x100000000u)};
    uint32_t words[4];
    check_philox(counter, key, words);
    return (double)words[i % 4] >= floor((double)dropout * 0x1p32);
}

/* ---- operands in double ------------------------------------------------------------------ */

static double *doubles(const void *p, fb_dtype t, int64_t n)
{
    double *out = allocate(n, sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = (double)fb_load(p, t, i);
    return out;
}

static double *transposed(const double *p, int64_t rows, int64_t cols)
{
    double *out = allocate(rows * cols, sizeof *out);
    for (int64_t i = 0; i < rows * cols; i++) out[i % cols * rows + i / cols] = p[i];
    return out;
}

static uint8_t *mask(const check_lora *c)
{
    const int64_t n = c->m * c->w->cols;
    uint8_t *kept = allocate(n, 1);
    for (int64_t i = 0; i < n; i++) kept[i] = check_keeps(c->lora->seed, c->lora->dropout, i);
    return kept;
}

/* X with its dropped elements 0, in its own type: nothing is rounded. */
static void *dropped(const check_lora *c, const uint8_t *kept)
{
    const int64_t n = c->m * c->w->cols;
    void *z = allocate(n, fb_dtype_size(c->dtype));
    for (int64_t i = 0; i < n; i++) fb_store(z, c->dtype, i, kept[i] ? fb_load(c->x, c->dtype, i) : 0.0f);
    return z;
}

static float factor_of(const fb_lora *lora) { return (float)((double)lora->scale / (1 - (double)lora->dropout)); }

/* ---- forward ------------------------------------------------------------------------------ */

static check_product product_u(const check_lora *c, const void *z, const double *a, const float *factor, const char *what)
{
    return (check_product){.what = what, .m = c->m, .p = c->lora->rank, .l = c->w->cols, .a = z, .a_dtype = c->dtype, .weights = a,
                           .factor = factor, .out = c->u, .out_dtype = c->dtype, .gaussian = c->gaussian};
}

static check_product product_y(const check_lora *c, const double *weights, const double *u, const double *b, const char *what)
{
    return (check_product){.what = what, .m = c->m, .p = c->w->rows, .l = c->w->cols, .a = c->x, .a_dtype = c->dtype,
                           .weights = weights, .bias = c->bias, .rank = c->lora->rank, .terms = u, .with = b, .out = c->y,
                           .out_dtype = c->y_dtype, .gaussian = c->gaussian, .flushed = c->weights == FB_WEIGHTS_FLUSHED};
}

typedef struct forward_operands {
    uint8_t *kept;
    void *z;
    double *a, *b, *bt, *weights;
    float factor;
} forward_operands;

static forward_operands operands_new(const check_lora *c, fb_weights weights)
{
    const int64_t rows = c->w->rows, cols = c->w->cols, rank = c->lora->rank;
    forward_operands o = {.kept = mask(c), .a = doubles(c->lora->a, c->dtype, rank * cols),
                          .b = doubles(c->lora->b, c->dtype, rows * rank), .factor = factor_of(c->lora),
                          .weights = allocate(rows * cols, sizeof(double))};
    o.z = dropped(c, o.kept);
    o.bt = transposed(o.b, rows, rank);
    check_weights(c->w, weights, c->dtype, o.weights);
    return o;
}

static void operands_free(forward_operands *o)
{
    void *all[] = {o->kept, o->z, o->a, o->b, o->bt, o->weights};
    for (int i = 0; i < 6; i++) free(all[i]);
}

void check_lora_forward(const check_lora *c, check_result results[CHECK_LORA_FORWARD])
{
    char what[2][160];
    snprintf(what[0], sizeof what[0], "%.140s: U", c->what);
    snprintf(what[1], sizeof what[1], "%.140s: Y", c->what);
    forward_operands o = operands_new(c, c->weights);
    double *u = doubles(c->u, c->dtype, c->m * c->lora->rank);
    check_product pu = product_u(c, o.z, o.a, &o.factor, what[0]), py = product_y(c, o.weights, u, o.bt, what[1]);
    results[0] = check_level2(&pu);
    results[1] = check_level2(&py);
    operands_free(&o);
    free(u);
}

check_result check_lora_level3(const check_lora *c)
{
    forward_operands o = operands_new(c, FB_WEIGHTS_EXACT);
    double *u = allocate(c->m * c->lora->rank, sizeof *u);
    check_product pu = product_u(c, o.z, o.a, &o.factor, c->what), py = product_y(c, o.weights, u, o.bt, c->what);
    for (int64_t i = 0; i < c->m * c->lora->rank; i++) u[i] = check_element(&pu, i).value;
    check_result r = check_level3(&py);
    operands_free(&o);
    free(u);
    return r;
}

/* ---- backward ----------------------------------------------------------------------------- */

static double through(double v, fb_dtype t)
{
    uint32_t cell;
    fb_store(&cell, t, 0, (float)v);
    return (double)fb_load(&cell, t, 0);
}

void check_lora_du(const fb_lora *lora, int64_t rows, int64_t m, const void *dy, fb_dtype t, double *du, double *slack)
{
    const float factor = factor_of(lora);
    double *b = doubles(lora->b, t, rows * lora->rank), *bt = transposed(b, rows, lora->rank);
    check_product p = {.m = m, .p = lora->rank, .l = rows, .a = dy, .a_dtype = t, .weights = bt, .factor = &factor};
    for (int64_t i = 0; i < p.m * p.p; i++) {
        const check_sum s = check_element(&p, i);
        const double low = through(s.value - s.error, t), high = through(s.value + s.error, t);
        du[i] = s.value;
        slack[i] = fmax(s.error, fmax(s.value - low, high - s.value));
    }
    free(b), free(bt);
}

void check_lora_backward(const check_lora *c, check_result results[CHECK_LORA_BACKWARD])
{
    const int64_t rows = c->w->rows, cols = c->w->cols, rank = c->lora->rank, m = c->m;
    char what[3][160];
    const char *const names[] = {"dA", "dB", "dX"};
    for (int i = 0; i < 3; i++) snprintf(what[i], sizeof what[i], "%.140s: %s", c->what, names[i]);
    forward_operands o = operands_new(c, c->weights);
    double *u = doubles(c->u, c->dtype, m * rank), *z = doubles(o.z, c->dtype, m * cols), *dy = doubles(c->dy, c->dtype, m * rows);
    double *du = allocate(m * rank, sizeof *du), *slack = allocate(m * rank, sizeof *slack);
    check_lora_du(c->lora, rows, m, c->dy, c->dtype, du, slack);
    double *dut = transposed(du, m, rank), *slack_t = transposed(slack, m, rank), *dyt = transposed(dy, m, rows);

    const check_product products[] = {
        {.what = what[0], .m = rank, .p = cols, .rank = m, .terms = dut, .slack = slack_t, .with = z, .before = c->da_before,
         .out = c->da, .out_dtype = FB_F32, .gaussian = c->gaussian},
        {.what = what[1], .m = rows, .p = rank, .rank = m, .terms = dyt, .with = u, .before = c->db_before, .out = c->db,
         .out_dtype = FB_F32, .gaussian = c->gaussian},
        {.what = what[2], .m = c->dx ? m : 0, .p = cols, .l = rows, .a = c->dy, .a_dtype = c->dtype, .weights = o.weights, .dx = true,
         .rank = rank, .terms = du, .slack = slack, .with = o.a, .kept = o.kept, .before = c->dx_before, .out = c->dx,
         .out_dtype = c->dx_dtype, .gaussian = c->gaussian, .flushed = c->weights == FB_WEIGHTS_FLUSHED}};
    for (int i = 0; i < CHECK_LORA_BACKWARD; i++) results[i] = check_level2(&products[i]);
    for (int64_t i = 0; i < m * rank; i++) { /* an infinite bound bounds nothing */
        if (isfinite(slack[i])) continue;
        results[0].ok = false;
        snprintf(results[0].text, sizeof results[0].text, "%s: dU[%lld] is beyond %s", c->what, (long long)i, fb_dtype_name(c->dtype));
    }
    void *all[] = {u, z, dy, du, slack, dut, slack_t, dyt};
    for (int i = 0; i < 8; i++) free(all[i]);
    operands_free(&o);
}
