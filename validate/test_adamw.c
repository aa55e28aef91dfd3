/* test_adamw.c: AdamW steps with 32-bit and 8-bit state, to the bit against the update written
 * out here, and over many steps against the textbook in double. */
#include "model.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = FB_ADAMW_BLOCK };

static const fb_adamw usual = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f,
                               .grad_scale = 1.0f, .step = 1};

/* fp32 operations by way of double: one rounding each (53 bits are enough for + - * / sqrt). */
static float times(float a, float b) { return (float)((double)a * (double)b); }
static float plus(float a, float b) { return (float)((double)a + (double)b); }

/* fourbit.h's lines, in order. */
static float model_step(const fb_adamw *h, float p, float grad, float *m, float *v)
{
    float step_size = (float)((double)h->lr / (1.0 - pow((double)h->beta1, (double)h->step)));
    float correction = (float)sqrt(1.0 - pow((double)h->beta2, (double)h->step));
    float g = times(grad, h->grad_scale);
    p = times(p, (float)(1.0 - (double)h->lr * (double)h->weight_decay));
    *m = plus(times(h->beta1, *m), times((float)(1.0 - (double)h->beta1), g));
    *v = plus(times(h->beta2, *v), times((float)(1.0 - (double)h->beta2), times(g, g)));
    float root = (float)((double)(float)sqrt((double)*v) / (double)correction);
    float ratio = (float)((double)*m / (double)plus(root, h->eps));
    return plus(p, -times(step_size, ratio));
}

typedef struct state {
    guard p, g, m, v, m_absmax, v_absmax; /* m, v: fp32, or codes */
} state;

static state state_new(int64_t n, fb_dtype pt, fb_dtype gt, bool eight)
{
    state s = {.p = suite_buffer("params", pt, n), .g = suite_buffer("grads", gt, n)};
    s.m = eight ? guard_new("m_codes", (size_t)n, GUARD_END, 1) : suite_buffer("m", FB_F32, n);
    s.v = eight ? guard_new("v_codes", (size_t)n, GUARD_END, 1) : suite_buffer("v", FB_F32, n);
    s.m_absmax = suite_buffer("m_absmax", FB_F32, fb_ceil_div(n, BLOCK));
    s.v_absmax = suite_buffer("v_absmax", FB_F32, fb_ceil_div(n, BLOCK));
    memset(s.m.data, 0, s.m.bytes);
    memset(s.v.data, 0, s.v.bytes);
    memset(s.m_absmax.data, 0, s.m_absmax.bytes);
    memset(s.v_absmax.data, 0, s.v_absmax.bytes);
    input_fill(INPUT_GAUSSIAN, 111, BLOCK, s.p.data, pt, n);
    return s;
}

static void state_free(state *s)
{
    guard *all[] = {&s->p, &s->g, &s->m, &s->v, &s->m_absmax, &s->v_absmax};
    for (int i = 0; i < 6; i++) {
        EXPECT(guard_check(all[i]));
        guard_free(all[i]);
    }
}

static void expect_bytes(const char *what, const guard *got, const guard *want)
{
    EXPECT(check_bytes((check_place){what, 0, 0}, got->data, want->data, (int64_t)got->bytes));
}

static void model_steps(const fb_adamw *h, int64_t n, state *s, fb_dtype pt, fb_dtype gt, bool eight)
{
    float *m = calloc((size_t)n, sizeof *m), *v = calloc((size_t)n, sizeof *v);
    if (!m || !v) exit(2);
    float *ma = (float *)s->m_absmax.data, *va = (float *)s->v_absmax.data;
    for (int64_t i = 0; i < n; i++) {
        m[i] = eight ? times(fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][s->m.data[i]]), ma[i / BLOCK]) : ((float *)s->m.data)[i];
        v[i] = eight ? times(fb_bits_to_float(fb_dynamic_bits[FB_MAP_UNSIGNED][s->v.data[i]]), va[i / BLOCK]) : ((float *)s->v.data)[i];
        fb_store(s->p.data, pt, i, model_step(h, fb_load(s->p.data, pt, i), fb_load(s->g.data, gt, i), m + i, v + i));
    }
    if (eight) {
        model_quantize8(FB_MAP_SIGNED, m, FB_F32, n, BLOCK, s->m.data, ma);
        model_quantize8(FB_MAP_UNSIGNED, v, FB_F32, n, BLOCK, s->v.data, va);
    } else {
        memcpy(s->m.data, m, s->m.bytes);
        memcpy(s->v.data, v, s->v.bytes);
    }
    free(m);
    free(v);
}

static fb_status call(fb_context *ctx, const fb_adamw *h, int64_t n, state *s, fb_dtype pt, fb_dtype gt, bool eight)
{
    if (eight)
        return fb_adamw8(ctx, h, n, s->p.data, pt, s->g.data, gt, s->m.data, (float *)s->m_absmax.data, s->v.data,
                         (float *)s->v_absmax.data);
    return fb_adamw32(ctx, h, n, s->p.data, pt, s->g.data, gt, (float *)s->m.data, (float *)s->v.data);
}

/* Five updates from a state of zeros, the last two as of a long training; state and parameters after each. */
static void check_steps(int64_t n, fb_dtype pt, fb_dtype gt, bool eight, input_kind kind, int threads)
{
    state got = state_new(n, pt, gt, eight), want = state_new(n, pt, gt, eight);
    fb_context ctx = suite_context();
    ctx.threads = threads;
    char what[128];
    snprintf(what, sizeof what, "adamw%d %s, gradients %s %s, n %lld", eight ? 8 : 32, fb_dtype_name(pt), fb_dtype_name(gt),
             input_name(kind), (long long)n);
    static const int64_t steps[] = {1, 2, 3, 3000, (int64_t)1 << 40};
    for (int step = 1; step <= 5; step++) {
        fb_adamw h = usual;
        h.step = steps[step - 1];
        h.grad_scale = step == 3 ? 0.25f : 1.0f;
        input_fill(kind, 120 + (uint64_t)step, BLOCK, got.g.data, gt, n);
        memcpy(want.g.data, got.g.data, got.g.bytes);
        fb_status status = call(&ctx, &h, n, &got, pt, gt, eight);
        REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
        model_steps(&h, n, &want, pt, gt, eight);
        EXPECT(check_same((check_place){what, 0, 0}, got.p.data, want.p.data, pt, n));
        expect_bytes("first moment", &got.m, &want.m);
        expect_bytes("second moment", &got.v, &want.v);
        expect_bytes("m_absmax", &got.m_absmax, &want.m_absmax);
        expect_bytes("v_absmax", &got.v_absmax, &want.v_absmax);
    }
    state_free(&got);
    state_free(&want);
}

static void every_type_and_count(void)
{
    static const int64_t counts[] = {1, 31, 255, 256, 257, 1003};
    for (int eight = 0; eight < 2; eight++)
        for (int t = 0; t < 9; t++) check_steps(counts[t % 6], (fb_dtype)(t / 3), (fb_dtype)(t % 3), eight, INPUT_GAUSSIAN, 0);
}

static void every_input(void)
{
    for (int eight = 0; eight < 2; eight++)
        for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
            if (kind != INPUT_LARGEST) check_steps(700, FB_F32, FB_F32, eight, (input_kind)kind, 0); /* squares overflow: below */
}

static void threads(void)
{
    for (int eight = 0; eight < 2; eight++)
        for (int count = 1; count <= 3; count++) check_steps(150001, FB_BF16, FB_BF16, eight, INPUT_STUDENT_T, count);
}

/* 200 steps against the algorithm in double: fp32 state drifts by some 1e-7 a step. */
static void textbook(void)
{
    enum { N = 100, STEPS = 200 };
    float p[N], g[N], m[N] = {0}, v[N] = {0};
    double P[N], M[N] = {0}, V[N] = {0}, worst = 0;
    input_fill(INPUT_GAUSSIAN, 131, BLOCK, p, FB_F32, N);
    for (int i = 0; i < N; i++) P[i] = (double)p[i];
    for (int step = 1; step <= STEPS; step++) {
        fb_adamw h = usual;
        h.step = step;
        input_fill(INPUT_GAUSSIAN, 200 + (uint64_t)step, BLOCK, g, FB_F32, N);
        fb_context ctx = suite_context();
        REQUIRE(fb_adamw32(&ctx, &h, N, p, FB_F32, g, FB_F32, m, v) == FB_OK, "%s", ctx.message);
        for (int i = 0; i < N; i++) {
            double gi = (double)g[i], b1 = (double)h.beta1, b2 = (double)h.beta2;
            M[i] = b1 * M[i] + (1 - b1) * gi;
            V[i] = b2 * V[i] + (1 - b2) * gi * gi;
            double m_hat = M[i] / (1 - pow(b1, step)), v_hat = V[i] / (1 - pow(b2, step));
            P[i] -= (double)h.lr * (double)h.weight_decay * P[i];
            P[i] -= (double)h.lr * m_hat / (sqrt(v_hat) + (double)h.eps);
        }
    }
    for (int i = 0; i < N; i++) worst = fmax(worst, fabs(P[i] - (double)p[i]));
    /* each step rounds p (|p| < 4) twice: 200 * 2 * 2^-23 at worst */
    REQUIRE(!(worst > STEPS * 2 * 0x1p-23), "after %d steps %g away from the textbook", STEPS, worst);
}

/* A gradient that is not finite, or whose square is not: its index, and nothing written. */
static void nonfinite(void)
{
    const int64_t n = 599, places[] = {411, 0, n - 1};
    const float bad[] = {NAN, INFINITY, -INFINITY, 1e20f};
    for (int eight = 0; eight < 2; eight++)
        for (int b = 0; b < 12; b++) {
            const int64_t at = places[b / 4];
            state s = state_new(n, FB_F32, FB_F32, eight), before = state_new(n, FB_F32, FB_F32, eight);
            input_fill(INPUT_GAUSSIAN, 141, BLOCK, s.g.data, FB_F32, n);
            ((float *)s.g.data)[at] = bad[b % 4];
            fb_context ctx = suite_context();
            fb_status status = call(&ctx, &usual, n, &s, FB_F32, FB_F32, eight);
            if (suite_expect_nonfinite(&ctx, status, "grads", at)) {
                expect_bytes("params after an error", &s.p, &before.p);
                expect_bytes("m after an error", &s.m, &before.m);
                expect_bytes("v after an error", &s.v, &before.v);
            }
            state_free(&s);
            state_free(&before);
        }
}

static void bad_arguments(void)
{
    const int64_t n = 64;
    for (int eight = 0; eight < 2; eight++) {
        struct { const char *word; fb_adamw h; } wrong[] = {
            {"lr", usual}, {"beta1", usual}, {"beta2", usual}, {"eps", usual}, {"weight_decay", usual}, {"grad_scale", usual}, {"step", usual}};
        wrong[0].h.lr = -1;
        wrong[1].h.beta1 = 1;
        wrong[2].h.beta2 = NAN;
        wrong[3].h.eps = 0;
        wrong[4].h.weight_decay = INFINITY;
        wrong[5].h.grad_scale = NAN;
        wrong[6].h.step = 0;
        state s = state_new(n, FB_F32, FB_F32, eight), before = state_new(n, FB_F32, FB_F32, eight);
        memset(s.g.data, 0, s.g.bytes);
        fb_context ctx = suite_context();
        for (int i = 0; i < 7; i++) {
            fb_status status = call(&ctx, &wrong[i].h, n, &s, FB_F32, FB_F32, eight);
            REQUIRE(status == FB_INVALID_ARGUMENT && strstr(ctx.message, wrong[i].word), "%s: %s \"%s\"", wrong[i].word,
                    fb_status_name(status), ctx.message);
        }
        REQUIRE(call(&ctx, NULL, n, &s, FB_F32, FB_F32, eight) == FB_INVALID_ARGUMENT && strstr(ctx.message, "hyper"), "%s", ctx.message);
        REQUIRE(call(&ctx, &usual, -1, &s, FB_F32, FB_F32, eight) == FB_INVALID_ARGUMENT && strstr(ctx.message, "n is"), "%s", ctx.message);
        REQUIRE(call(&ctx, &usual, n, &s, (fb_dtype)3, FB_F32, eight) == FB_INVALID_ARGUMENT && strstr(ctx.message, "params_dtype"),
                "%s", ctx.message);
        REQUIRE(call(&ctx, &usual, n, &s, FB_F32, (fb_dtype)3, eight) == FB_INVALID_ARGUMENT && strstr(ctx.message, "grads_dtype"),
                "%s", ctx.message);
        guard *pointers[] = {&s.p, &s.g, &s.m, &s.v, &s.m_absmax, &s.v_absmax};
        static const char *const words[] = {"params", "grads", "m", "v", "m_absmax", "v_absmax"};
        for (int i = 0; i < (eight ? 6 : 4); i++) {
            uint8_t *saved = pointers[i]->data;
            pointers[i]->data = NULL;
            REQUIRE(call(&ctx, &usual, n, &s, FB_F32, FB_F32, eight) == FB_INVALID_ARGUMENT && strstr(ctx.message, words[i]),
                    "NULL %s: \"%s\"", words[i], ctx.message);
            pointers[i]->data = saved;
        }
        REQUIRE(call(&ctx, &usual, 0, &s, FB_F32, FB_F32, eight) == FB_OK, "n = 0: %s", ctx.message);
        expect_bytes("params after errors", &s.p, &before.p);
        expect_bytes("m after errors", &s.m, &before.m);
        state_free(&s);
        state_free(&before);
    }
}

static const suite_test tests[] = {{"every_type_and_count", every_type_and_count}, {"every_input", every_input},
                                   {"threads", threads},     {"textbook", textbook}, {"nonfinite", nonfinite},
                                   {"bad_arguments", bad_arguments}, {NULL, NULL}};
const suite suite_adamw = {"adamw", "AdamW with 32-bit and 8-bit state, bit for bit", true, tests};
