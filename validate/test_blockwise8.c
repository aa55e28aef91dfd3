/* test_blockwise8.c: 8-bit blockwise quantization with the dynamic maps, to the bit. */
#include "model.h"
#include "suite.h"

#include <stdio.h>

static void check_one(fb_map8 map, input_kind kind, fb_dtype t, int64_t n, int32_t block, int threads)
{
    char what[128];
    snprintf(what, sizeof what, "map %d %s %s n %lld block %d", (int)map, input_name(kind), fb_dtype_name(t), (long long)n, block);
    int64_t blocks = fb_ceil_div(n, block);
    guard src = suite_buffer("src", t, n), absmax = suite_buffer("absmax", FB_F32, blocks);
    guard want_absmax = suite_buffer("want", FB_F32, blocks);
    guard codes = guard_new("codes", (size_t)n, GUARD_END, 1), want = guard_new("want", (size_t)n, GUARD_START, 1);
    guard_poison(&codes);
    input_fill(kind, 31, block, src.data, t, n);
    fb_context ctx = suite_context();
    ctx.threads = threads;
    fb_status status = fb_quantize8(&ctx, map, src.data, t, n, block, codes.data, (float *)absmax.data);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    model_quantize8(map, src.data, t, n, block, want.data, (float *)want_absmax.data);
    EXPECT(check_bytes((check_place){what, 0, 0}, codes.data, want.data, n));
    EXPECT(check_same((check_place){what, 0, 0}, absmax.data, want_absmax.data, FB_F32, blocks));
    EXPECT(guard_check(&codes));
    EXPECT(guard_check(&absmax));
    guard_free(&src);
    guard_free(&absmax);
    guard_free(&want_absmax);
    guard_free(&codes);
    guard_free(&want);
}

static void every_input(void)
{
    for (int map = 0; map < FB_MAP8_COUNT; map++)
        for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
            for (int t = 0; t < FB_DTYPE_COUNT; t++) check_one((fb_map8)map, (input_kind)kind, (fb_dtype)t, 1237, 256, 0);
}

static void every_block_size(void)
{
    static const int64_t counts[] = {1, 31, 32, 33, 4095, 4097, 10007};
    for (int map = 0; map < FB_MAP8_COUNT; map++)
        for (int32_t block = 32; block <= 4096; block *= 2)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                check_one((fb_map8)map, INPUT_GAUSSIAN, i % 2 ? FB_F32 : FB_BF16, counts[i], block, 0);
}

static void threads(void)
{
    for (int count = 1; count <= 3; count++) check_one(FB_MAP_SIGNED, INPUT_STUDENT_T, FB_F32, 300007, 256, count);
}

/* Each midpoint of each map and its neighbours, in a block whose magnitude is 1. */
static void each_midpoint(void)
{
    for (int map = 0; map < FB_MAP8_COUNT; map++) {
        enum { N = 1 + 3 * 255 };
        float x[N] = {1.0f}, absmax[1];
        uint8_t codes[N];
        for (int i = 0; i < 255; i++) {
            float a = fb_bits_to_float(fb_dynamic_bits[map][i]), b = fb_bits_to_float(fb_dynamic_bits[map][i + 1]);
            float middle = (a + b) * 0.5f;
            x[1 + 3 * i] = nextafterf(middle, -INFINITY);
            x[2 + 3 * i] = middle;
            x[3 + 3 * i] = nextafterf(middle, INFINITY);
        }
        fb_context ctx = suite_context();
        REQUIRE(fb_quantize8(&ctx, (fb_map8)map, x, FB_F32, N, 1024, codes, absmax) == FB_OK, "%s", ctx.message);
        for (int i = 0; i < 255; i++) {
            int tie = i % 2 == 0 ? i : i + 1;
            REQUIRE(codes[1 + 3 * i] == i && codes[2 + 3 * i] == tie && codes[3 + 3 * i] == i + 1,
                    "map %d, between %d and %d: %d %d %d", map, i, i + 1, codes[1 + 3 * i], codes[2 + 3 * i], codes[3 + 3 * i]);
        }
    }
}

static void dequantize_every_code(void)
{
    const int64_t n = 256 * 5 + 77;
    static const float magnitudes[] = {0.0f, 1.0f, 0.037f, 1e30f, 0x1p-130f, 65504.0f};
    for (int map = 0; map < FB_MAP8_COUNT; map++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            guard codes = guard_new("codes", (size_t)n, GUARD_END, 1), absmax = suite_buffer("absmax", FB_F32, 6);
            guard got = suite_buffer("dst", (fb_dtype)t, n), want = suite_buffer("want", (fb_dtype)t, n);
            input_bytes(32, codes.data, n);
            for (int64_t i = 0; i < n; i++) codes.data[i] = (uint8_t)(i * 3 + i / 256);
            memcpy(absmax.data, magnitudes, sizeof magnitudes);
            for (int64_t i = 0; i < n; i++)
                fb_store(want.data, (fb_dtype)t, i,
                         (float)((double)fb_bits_to_float(fb_dynamic_bits[map][codes.data[i]]) * (double)magnitudes[i / 256]));
            fb_context ctx = suite_context();
            fb_status status = fb_dequantize8(&ctx, (fb_map8)map, codes.data, (float *)absmax.data, n, 256, got.data, (fb_dtype)t);
            REQUIRE(status == FB_OK, "%s", ctx.message);
            EXPECT(check_same((check_place){"dequantize8", 0, 0}, got.data, want.data, (fb_dtype)t, n));
            EXPECT(guard_check(&got));
            guard_free(&codes);
            guard_free(&absmax);
            guard_free(&got);
            guard_free(&want);
        }
}

static void nonfinite(void)
{
    float x[300] = {0}, absmax[2] = {7, 7};
    uint8_t codes[300];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const int64_t places[] = {270, 0, 299};
    for (int b = 0; b < 9; b++) {
        const int64_t at = places[b / 3];
        memset(x, 0, sizeof x);
        memset(codes, 0x5a, sizeof codes);
        x[at] = bad[b % 3];
        fb_context ctx = suite_context();
        fb_status status = fb_quantize8(&ctx, FB_MAP_SIGNED, x, FB_F32, 300, 256, codes, absmax);
        if (suite_expect_nonfinite(&ctx, status, "src", at))
            REQUIRE(codes[0] == 0x5a && codes[299] == 0x5a && absmax[0] == 7, "something was written before the error");
    }
}

/* The published bounds on randn at block 256: mean |error| < .011, relative < .018. */
static void published_error(void)
{
    enum { N = 1 << 18 };
    static float x[N], back[N], absmax[N / 256];
    static uint8_t codes[N];
    double error = 0, relative = 0;
    input_fill(INPUT_GAUSSIAN, 33, 256, x, FB_F32, N);
    fb_context ctx = suite_context();
    REQUIRE(fb_quantize8(&ctx, FB_MAP_SIGNED, x, FB_F32, N, 256, codes, absmax) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_dequantize8(&ctx, FB_MAP_SIGNED, codes, absmax, N, 256, back, FB_F32) == FB_OK, "%s", ctx.message);
    for (int i = 0; i < N; i++) {
        error += fabs((double)x[i] - (double)back[i]);
        relative += fabs((double)x[i] - (double)back[i]) / (fabs((double)x[i]) + 1e-8);
    }
    REQUIRE(!(error / N >= 0.011) && !(relative / N >= 0.018), "mean |error| %g, relative %g", error / N, relative / N);
}

static const suite_test tests[] = {{"every_input", every_input},
                                   {"every_block_size", every_block_size},
                                   {"threads", threads},
                                   {"each_midpoint", each_midpoint},
                                   {"dequantize_every_code", dequantize_every_code},
                                   {"nonfinite", nonfinite},
                                   {"published_error", published_error},
                                   {NULL, NULL}};
const suite suite_blockwise8 = {"blockwise8", "8-bit codes with the dynamic maps, bit for bit", true, tests};
