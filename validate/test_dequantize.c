/* test_dequantize.c: fb_dequantize to the bit, against the model (model.c). */
#include "model.h"
#include "suite.h"

#include <stdio.h>

static void check_matrix(const guarded_matrix *w, fb_dtype t, int threads, const char *what)
{
    int64_t n = w->sizes.elements;
    guard got = suite_buffer("dst", t, n), want = suite_buffer("want", t, n);
    fb_context ctx = suite_context();
    ctx.threads = threads;
    guard workspace = suite_workspace(&ctx, FB_OP_DEQUANTIZE, &w->m, 0, t);
    fb_status status = fb_dequantize(&ctx, &w->m, got.data, t);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    if (n) model_dequantize(&w->m, want.data, t);
    EXPECT(check_same((check_place){what, w->m.cols, w->m.block_size}, got.data, want.data, t, n));
    EXPECT(guard_check(&got));
    EXPECT(guard_check(&workspace));
    gm_expect_guards(w, what);
    guard_free(&workspace);
    guard_free(&got);
    guard_free(&want);
}

/* Every byte value as codes, for every case and output type. */
static void every_case(void)
{
    for (const fb_case *c = fb_cases; c->rows >= 0; c++) {
        if (c->op != FB_OP_DEQUANTIZE || !(c->sets & CASE_TEST)) continue;
        char name[128];
        fb_case_name(c, name, sizeof name);
        guarded_matrix w;
        gm_new(&w, c->format, c->rows, c->cols, c->block_size, c->double_quant);
        suite_random_matrix(&w, 11);
        for (int t = 0; t < FB_DTYPE_COUNT; t++) check_matrix(&w, (fb_dtype)t, 0, name);
        gm_free(&w);
    }
}

/* absmax from zero and the subnormals to where the product overflows fp16 and fp32. */
static void every_magnitude(void)
{
    static const float magnitudes[] = {0.0f,    0x1p-149f, 0x1.8p-140f, 0x1p-126f, 0x1.2p-25f, 0x1p-14f, 1.0f,
                                       65504.f, 1e5f,      0x1.2p120f,  0x1.fffffep127f};
    enum { COUNT = sizeof magnitudes / sizeof *magnitudes };
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            guarded_matrix w;
            gm_new(&w, (fb_format)format, COUNT, 32, 32, false);
            suite_random_matrix(&w, 12);
            for (int b = 0; b < COUNT; b++) w.m.absmax[b] = magnitudes[b];
            for (int i = 0; i < COUNT * 16; i++) w.m.codes[i] = fb_pack((unsigned)(2 * i) % 16, (unsigned)(2 * i + 1) % 16);
            check_matrix(&w, (fb_dtype)t, 1, "magnitudes");
            gm_free(&w);
        }
}

/* Tables that came with a checkpoint replace the built-in ones. */
static void custom_codebooks(void)
{
    float book[FB_CODES], nested[FB_CODES8];
    for (int i = 0; i < FB_CODES; i++) book[i] = 0.37f * (float)(i - 5);
    for (int i = 0; i < FB_CODES8; i++) nested[i] = (float)(i - 100) / 177.0f;
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            guarded_matrix w;
            gm_new(&w, (fb_format)format, 37, 150, 64, true);
            suite_random_matrix(&w, 13);
            w.m.codebook = book;
            check_matrix(&w, (fb_dtype)t, 0, "custom codebook");
            w.m.nested_codebook = nested;
            check_matrix(&w, (fb_dtype)t, 0, "both custom codebooks");
            w.m.codebook = NULL;
            check_matrix(&w, (fb_dtype)t, 0, "custom nested codebook");
            gm_free(&w);
        }
}

static void negative_zero(void)
{
    guarded_matrix w;
    gm_new(&w, FB_FP4, 1, 32, 32, false);
    memset(w.m.codes, 0x08, 16); /* codes 0, 8, 0, 8 ... */
    w.m.absmax[0] = 3.0f;
    uint32_t out[32];
    fb_context ctx = suite_context();
    REQUIRE(fb_dequantize(&ctx, &w.m, out, FB_F32) == FB_OK, "%s", ctx.message);
    for (int i = 0; i < 32; i++)
        REQUIRE(out[i] == (i % 2 ? 0x80000000u : 0u), "FP4 code %d gives bits %08x", i % 2 ? 8 : 0, out[i]);
    gm_free(&w);
}

/* A quantized tensor survives: what was dequantized has the same codes when it is
 * quantized again, where the block's magnitude itself has a code. */
static void round_trip(void)
{
    const int64_t rows = 24, cols = 130, n = rows * cols;
    for (int format = 0; format <= FB_INT4; format++)
        for (int32_t block = 32; block <= 4096; block *= 2) {
            guarded_matrix first, second;
            gm_new(&first, (fb_format)format, rows, cols, block, false);
            gm_new(&second, (fb_format)format, rows, cols, block, false);
            guard x = suite_buffer("x", FB_F32, n);
            input_fill(INPUT_GAUSSIAN, 14, block, x.data, FB_F32, n);
            fb_context ctx = suite_context();
            REQUIRE(fb_quantize(&ctx, x.data, FB_F32, &first.m) == FB_OK, "%s", ctx.message);
            REQUIRE(fb_dequantize(&ctx, &first.m, x.data, FB_F32) == FB_OK, "%s", ctx.message);
            REQUIRE(fb_quantize(&ctx, x.data, FB_F32, &second.m) == FB_OK, "%s", ctx.message);
            for (int64_t i = 0; format == FB_FP4 && i < n; i++) /* code 8 is -0.0, which comes back as code 0 */
                if (fb_nibble(first.m.codes, i) == 8) first.m.codes[i / 2] &= i % 2 == 0 ? 0x0f : 0xf0;
            EXPECT(check_nibbles((check_place){"codes after a round trip", cols, block}, second.m.codes, first.m.codes, n));
            guard_free(&x);
            gm_free(&first);
            gm_free(&second);
        }
}

static void threads(void)
{
    for (int dq = 0; dq < 2; dq++) {
        guarded_matrix w;
        gm_new(&w, FB_NF4, 301, 1003, 64, dq);
        suite_random_matrix(&w, 15);
        for (int count = 1; count <= 3; count++) check_matrix(&w, FB_BF16, count, "threads");
        gm_free(&w);
    }
}

/* Output larger than the caches, which a backend may write past them, from an aligned
 * address; the count is odd and no multiple of anything. */
static void large_output(void)
{
    const int64_t rows = 2897, cols = 2903, n = rows * cols;
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        guarded_matrix w;
        gm_new(&w, t == FB_BF16 ? FB_NF4 : FB_INT4_AFFINE, rows, cols, 64, t == FB_BF16);
        suite_random_matrix(&w, 16);
        size_t bytes = (size_t)n * fb_dtype_size((fb_dtype)t);
        guard got = guard_new("dst", bytes, GUARD_START, 1), want = guard_new("want", bytes, GUARD_START, 1);
        guard_poison(&got);
        fb_context ctx = suite_context();
        REQUIRE(fb_dequantize(&ctx, &w.m, got.data, (fb_dtype)t) == FB_OK, "%s", ctx.message);
        model_dequantize(&w.m, want.data, (fb_dtype)t);
        EXPECT(check_same((check_place){"large output", cols, 64}, got.data, want.data, (fb_dtype)t, n));
        EXPECT(guard_check(&got));
        guard_free(&got);
        guard_free(&want);
        gm_free(&w);
    }
}

static const suite_test tests[] = {{"every_case", every_case},           {"every_magnitude", every_magnitude},
                                   {"custom_codebooks", custom_codebooks}, {"negative_zero", negative_zero},
                                   {"round_trip", round_trip},           {"threads", threads},
                                   {"large_output", large_output},       {NULL, NULL}};
const suite suite_dequantize = {"dequantize", "dequantized values, bit for bit in every output type", true, tests};
