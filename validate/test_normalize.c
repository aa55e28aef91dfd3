/* test_normalize.c: zero mean and unit variance, and back, to the bit. */
#include "model.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

/* moments[0] = mean, moments[1] = deviation; 1 where that is 0. */
static void model_moments(const void *x, fb_dtype t, int64_t n, float moments[2])
{
    double *v = calloc((size_t)n, sizeof *v);
    if (!v) exit(2);
    for (int64_t i = 0; i < n; i++) v[i] = (double)fb_load(x, t, i);
    moments[0] = (float)(model_tree_sum(v, n) / (double)n);
    for (int64_t i = 0; i < n; i++) {
        double d = (double)fb_load(x, t, i) - (double)moments[0];
        v[i] = d * d;
    }
    moments[1] = (float)sqrt(model_tree_sum(v, n) / (double)n);
    if (!(moments[1] > 0)) moments[1] = 1;
    free(v);
}

static void check_one(input_kind kind, fb_dtype from, fb_dtype to, int64_t n, int threads)
{
    char what[128];
    snprintf(what, sizeof what, "%s %s to %s n %lld", input_name(kind), fb_dtype_name(from), fb_dtype_name(to), (long long)n);
    guard src = suite_buffer("src", from, n), got = suite_buffer("dst", to, n), want = suite_buffer("want", to, n);
    guard moments = suite_buffer("moments", FB_F32, 2), back = suite_buffer("back", from, n), undone = suite_buffer("undone", from, n);
    float expected[2], *m = (float *)moments.data;
    input_fill(kind, 41, 64, src.data, from, n);
    fb_context ctx = suite_context();
    ctx.threads = threads;
    fb_status status = fb_normalize(&ctx, src.data, from, n, got.data, to, m);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    model_moments(src.data, from, n, expected);
    for (int64_t i = 0; i < n; i++) {
        float centred = (float)((double)fb_load(src.data, from, i) - (double)expected[0]);
        fb_store(want.data, to, i, (float)((double)centred / (double)expected[1]));
    }
    EXPECT(check_same((check_place){what, 0, 0}, m, expected, FB_F32, 2));
    EXPECT(check_same((check_place){what, 0, 0}, got.data, want.data, to, n));

    status = fb_denormalize(&ctx, got.data, to, n, m, back.data, from);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    for (int64_t i = 0; i < n; i++) {
        float scaled = (float)((double)fb_load(want.data, to, i) * (double)expected[1]);
        fb_store(undone.data, from, i, (float)((double)scaled + (double)expected[0]));
    }
    EXPECT(check_same((check_place){what, 0, 0}, back.data, undone.data, from, n));
    guard *all[] = {&src, &got, &want, &moments, &back, &undone};
    for (int i = 0; i < 6; i++) {
        EXPECT(guard_check(all[i]));
        guard_free(all[i]);
    }
}

static void every_input(void)
{
    /* Not the largest finite values: the deviation of those does not fit into fp32. */
    for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
        for (int t = 0; kind != INPUT_LARGEST && t < FB_DTYPE_COUNT * FB_DTYPE_COUNT; t++)
            check_one((input_kind)kind, (fb_dtype)(t / 3), (fb_dtype)(t % 3), 777, 0);
}

static void every_count(void)
{
    static const int64_t counts[] = {1, 2, 255, 256, 257, 65536, 65537, 70003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check_one(INPUT_STUDENT_T, FB_F32, FB_F32, counts[i], 0);
}

static void threads(void)
{
    for (int count = 1; count <= 3; count++) check_one(INPUT_STUDENT_T, FB_BF16, FB_F32, 300007, count);
}

/* The result has the moments it should have. */
static void zero_mean_unit_variance(void)
{
    enum { N = 50000 };
    static float x[N], y[N];
    float moments[2], again[2];
    for (int i = 0; i < N; i++) x[i] = (float)(3.0 + 0.02 * input_gaussian(42, (uint64_t)i));
    fb_context ctx = suite_context();
    REQUIRE(fb_normalize(&ctx, x, FB_F32, N, y, FB_F32, moments) == FB_OK, "%s", ctx.message);
    model_moments(y, FB_F32, N, again);
    /* fp32's ulp at 3 is 2^-22: up to 2^-23 / 0.02 = 6e-6 of a deviation on the mean */
    REQUIRE(!(fabsf(again[0]) > 1.2e-5f) && !(fabsf(again[1] - 1) > 1e-5f), "mean %g, deviation %g", (double)again[0],
            (double)again[1]);
}

static void nonfinite(void)
{
    static const int64_t places[] = {17, 0, 39};
    for (int p = 0; p < 3; p++) {
        float x[40] = {1, 2, 3}, y[40], moments[2] = {5, 5};
        memset(y, 0xff, sizeof y);
        x[places[p]] = p ? NAN : -INFINITY;
        fb_context ctx = suite_context();
        fb_status status = fb_normalize(&ctx, x, FB_F32, 40, y, FB_F32, moments);
        if (suite_expect_nonfinite(&ctx, status, "src", places[p]))
            REQUIRE(isnan(y[0]) && moments[0] == 5, "something was written before the error");
    }
}

static const suite_test tests[] = {{"every_input", every_input},
                                   {"every_count", every_count},
                                   {"threads", threads},
                                   {"zero_mean_unit_variance", zero_mean_unit_variance},
                                   {"nonfinite", nonfinite},
                                   {NULL, NULL}};
const suite suite_normalize = {"normalize", "normalise and undo it, bit for bit", true, tests};
