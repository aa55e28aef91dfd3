/* test_double_quant.c: absmax in 8 bits: the order of summation, the search and its ties,
 * the two roundings of the decode. */
#include "model.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct nested {
    guard absmax, codes, nested_absmax, offset;
} nested;

static nested nested_new(int64_t n)
{
    return (nested){suite_buffer("absmax", FB_F32, n), guard_new("absmax_codes", (size_t)n, GUARD_END, 1),
                    suite_buffer("nested_absmax", FB_F32, fb_ceil_div(n, 256)), suite_buffer("nested_offset", FB_F32, 1)};
}
static void nested_free(nested *d)
{
    guard_free(&d->absmax);
    guard_free(&d->codes);
    guard_free(&d->nested_absmax);
    guard_free(&d->offset);
}

/* d->absmax through the backend and the model. */
static void check_both(nested *d, int64_t n, const char *what)
{
    nested want = nested_new(n);
    fb_context ctx = suite_context();
    fb_status status = fb_double_quantize(&ctx, (const float *)d->absmax.data, n, d->codes.data,
                                          (float *)d->nested_absmax.data, (float *)d->offset.data);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    model_double_quantize((const float *)d->absmax.data, n, want.codes.data, (float *)want.nested_absmax.data,
                          (float *)want.offset.data);
    char name[128];
    snprintf(name, sizeof name, "%s, n = %lld, offset", what, (long long)n);
    EXPECT(check_same((check_place){name, 0, 0}, d->offset.data, want.offset.data, FB_F32, 1));
    EXPECT(check_same((check_place){what, 0, 0}, d->nested_absmax.data, want.nested_absmax.data, FB_F32, fb_ceil_div(n, 256)));
    EXPECT(check_bytes((check_place){what, 0, 0}, d->codes.data, want.codes.data, n));

    guard got = suite_buffer("decoded", FB_F32, n), decoded = suite_buffer("want", FB_F32, n);
    status = fb_decode_absmax(&ctx, d->codes.data, (const float *)d->nested_absmax.data, (const float *)d->offset.data, NULL,
                              n, (float *)got.data);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    model_decode_absmax(want.codes.data, (const float *)want.nested_absmax.data, *(const float *)want.offset.data, NULL, n,
                        (float *)decoded.data);
    EXPECT(check_same((check_place){what, 0, 0}, got.data, decoded.data, FB_F32, n));
    EXPECT(guard_check(&d->codes));
    EXPECT(guard_check(&d->nested_absmax));
    EXPECT(guard_check(&d->offset));
    EXPECT(guard_check(&got));
    guard_free(&got);
    guard_free(&decoded);
    nested_free(&want);
}

static const int64_t counts[] = {1, 2, 31, 255, 256, 257, 511, 513, 1000, 4097, 65535, 65536, 65537, 70001};

static void every_count(void)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        nested d = nested_new(counts[i]);
        float *absmax = (float *)d.absmax.data;
        for (int64_t k = 0; k < counts[i]; k++) absmax[k] = (float)fabs(2.5 + 0.4 * input_gaussian(21, (uint64_t)k));
        check_both(&d, counts[i], "absmax of Gaussian blocks");
        nested_free(&d);
    }
}

/* Magnitudes over 80 binades: then the order of addition shows in the sum, or this test
 * would not notice a backend that adds in another one. */
static void order_of_summation(void)
{
    const int64_t n = 70001;
    nested d = nested_new(n);
    float *absmax = (float *)d.absmax.data;
    double *wide = malloc((size_t)n * sizeof *wide), straight = 0;
    REQUIRE(wide != NULL, "out of memory");
    if (!wide) return;
    for (int64_t k = 0; k < n; k++) {
        double sign = k % 2 ? -1 : 1;
        absmax[k] = (float)(sign * ldexp(input_uniform(22, (uint64_t)(k / 2 * 2)), (int)(input_random(23, (uint64_t)(k / 2)) % 80)));
        if (k == n - 1) absmax[k] = 1;
        wide[k] = (double)absmax[k];
        straight += wide[k];
    }
    REQUIRE((float)(model_tree_sum(wide, n) / (double)n) != (float)(straight / (double)n),
            "the data does not tell one order from another");
    free(wide);
    check_both(&d, n, "order of summation");
    nested_free(&d);
}

/* Offset 0 (each value stands opposite its negative in the tree's first halving) and
 * nested absmax 1: then a code's input is the value itself. */
static void ties_go_to_the_even_code(void)
{
    for (int first = 0; first < 255; first += 40) {
        nested d = nested_new(256);
        float *v = (float *)d.absmax.data;
        memset(v, 0, 1024);
        v[0] = 1;
        for (int i = 0; i < 40 && first + i < 255; i++) {
            float a = fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][first + i]);
            float b = fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][first + i + 1]), middle = (a + b) * 0.5f;
            v[1 + 3 * i] = nextafterf(middle, -INFINITY);
            v[2 + 3 * i] = middle;
            v[3 + 3 * i] = nextafterf(middle, INFINITY);
        }
        for (int i = 0; i < 128; i++) v[i + 128] = -v[i];
        check_both(&d, 256, "ties");
        REQUIRE(*(float *)d.offset.data == 0 && *(float *)d.nested_absmax.data == 1, "offset %g, nested absmax %g",
                (double)*(float *)d.offset.data, (double)*(float *)d.nested_absmax.data);
        for (int i = 0; i < 40 && first + i < 255; i++) {
            int low = first + i, tie = low % 2 == 0 ? low : low + 1;
            REQUIRE(d.codes.data[1 + 3 * i] == low && d.codes.data[2 + 3 * i] == tie && d.codes.data[3 + 3 * i] == low + 1,
                    "between codes %d and %d: %d %d %d", low, low + 1, d.codes.data[1 + 3 * i], d.codes.data[2 + 3 * i],
                    d.codes.data[3 + 3 * i]);
        }
        nested_free(&d);
    }
}

/* A stored offset and nested absmax where one fma and two roundings part. */
static void decode_rounds_twice(void)
{
    const int64_t n = 2 * 256 + 17;
    nested d = nested_new(n);
    guard got = suite_buffer("absmax", FB_F32, n), want = suite_buffer("want", FB_F32, n);
    float map[FB_CODES8], *na = (float *)d.nested_absmax.data;
    input_bytes(24, d.codes.data, n);
    na[0] = 0.7654321f;
    na[1] = 1.2345678f;
    na[2] = 0.1111111f;
    *(float *)d.offset.data = 2.3456789f;
    for (int i = 0; i < FB_CODES8; i++) map[i] = (float)input_gaussian(25, (uint64_t)i);
    int fused_differs = 0;
    for (int given = 0; given < 2; given++) {
        fb_context ctx = suite_context();
        fb_status status = fb_decode_absmax(&ctx, d.codes.data, na, (float *)d.offset.data, given ? map : NULL, n,
                                            (float *)got.data);
        REQUIRE(status == FB_OK, "%s", ctx.message);
        model_decode_absmax(d.codes.data, na, *(float *)d.offset.data, given ? map : NULL, n, (float *)want.data);
        EXPECT(check_same((check_place){"decode", 0, 0}, got.data, want.data, FB_F32, n));
        EXPECT(guard_check(&got));
        for (int64_t i = 0; given && i < n; i++)
            fused_differs += fmaf(map[d.codes.data[i]], na[i / 256], *(float *)d.offset.data) != ((float *)want.data)[i];
    }
    REQUIRE(fused_differs > 0, "the data does not tell an fma from two roundings");
    guard_free(&got);
    guard_free(&want);
    nested_free(&d);
}

static void edges(void)
{
    nested d = nested_new(300);
    float *absmax = (float *)d.absmax.data;
    for (int64_t i = 0; i < 300; i++) absmax[i] = 0;
    check_both(&d, 300, "all zero");
    for (int64_t i = 0; i < 300; i++) absmax[i] = 0.1f;
    check_both(&d, 300, "all equal");
    for (int64_t i = 0; i < 300; i++) absmax[i] = 0x1p-149f * (float)(i % 5);
    check_both(&d, 300, "subnormal");
    for (int64_t i = 0; i < 300; i++) absmax[i] = i % 2 ? 0x1.fffffep127f : 1.0f;
    check_both(&d, 300, "largest finite");

    guard_poison(&d.codes);
    guard_poison(&d.offset);
    absmax[263] = INFINITY;
    fb_context ctx = suite_context();
    fb_status status = fb_double_quantize(&ctx, absmax, 300, d.codes.data, (float *)d.nested_absmax.data,
                                          (float *)d.offset.data);
    if (suite_expect_nonfinite(&ctx, status, "absmax", 263))
        REQUIRE(d.codes.data[0] == 0xff && isnan(*(float *)d.offset.data), "something was written before the error");
    nested_free(&d);
}

static const suite_test tests[] = {{"every_count", every_count},
                                   {"order_of_summation", order_of_summation},
                                   {"ties_go_to_the_even_code", ties_go_to_the_even_code},
                                   {"decode_rounds_twice", decode_rounds_twice},
                                   {"edges", edges},
                                   {NULL, NULL}};
const suite suite_double_quant = {"double_quant", "absmax in 8 bits and back, bit for bit", true, tests};
