/* test_quantize.c: fb_quantize to the bit. The reference is held against the model (the
 * rules stated a second time, model.c), every other backend against the reference. */
#include "model.h"
#include "suite.h"

#include <stdio.h>

static void expected(const void *src, fb_dtype t, guarded_matrix *want)
{
    if (suite_backend == FB_BACKEND_REFERENCE) model_quantize(src, t, &want->m);
    else suite_reference_quantize(src, t, want);
}

static void check_case(const fb_case *c, input_kind kind, uint64_t seed)
{
    char name[128], what[192];
    fb_case_name(c, name, sizeof name);
    snprintf(what, sizeof what, "%s %s %s", name, fb_dtype_name(c->dtype), input_name(kind));
    int64_t n = c->rows * c->cols;
    guarded_matrix got, want;
    gm_new(&got, c->format, c->rows, c->cols, c->block_size, c->double_quant);
    gm_new(&want, c->format, c->rows, c->cols, c->block_size, c->double_quant);
    guard src = suite_buffer("src", c->dtype, n);
    input_fill(kind, seed, c->block_size, src.data, c->dtype, n);

    fb_context ctx = suite_context();
    guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &got.m, 0, c->dtype);
    fb_status status = fb_quantize(&ctx, src.data, c->dtype, &got.m);
    REQUIRE(status == FB_OK, "%s: %s: %s", what, fb_status_name(status), ctx.message);
    if (n) {
        expected(src.data, c->dtype, &want);
        gm_expect_same(&got, &want, what);
    }
    gm_expect_guards(&got, what);
    EXPECT(guard_check(&workspace));
    guard_free(&src);
    guard_free(&workspace);
    gm_free(&got);
    gm_free(&want);
}

/* Every case of the list with well-behaved data, and the awkward kinds in turns. */
static void every_case(void)
{
    int i = 0;
    for (const fb_case *c = fb_cases; c->rows >= 0; c++) {
        if (c->op != FB_OP_QUANTIZE || !(c->sets & CASE_TEST)) continue;
        check_case(c, INPUT_GAUSSIAN, 1);
        check_case(c, (input_kind)(1 + i++ % (INPUT_KIND_COUNT - 1)), 2);
    }
}

/* Every kind of data for every format and element type, blocks that straddle rows. */
static void every_input(void)
{
    for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
        for (int format = 0; format < FB_FORMAT_COUNT; format++)
            for (int t = 0; t < FB_DTYPE_COUNT; t++)
                for (int32_t block = 32; block <= 4096; block *= 8) {
                    fb_case c = {FB_OP_QUANTIZE, (fb_format)format, block, kind % 2, 67, 139, 0, (fb_dtype)t, CASE_TEST, 0};
                    check_case(&c, (input_kind)kind, 3);
                }
}

/* The threshold takes the lower code, one ulp more takes the upper one. A block of 64 whose
 * magnitude is exactly 1. */
static void each_threshold_and_its_neighbours(void)
{
    float x[64] = {1.0f};
    uint8_t codes[32];
    float absmax[1];
    fb_matrix w;
    fb_context ctx = suite_context();
    fb_matrix_init(&w, FB_NF4, 1, 64, 64, false);
    w.codes = codes;
    w.absmax = absmax;
    for (int i = 0; i < 15; i++)
        for (int d = -1; d <= 1; d++) {
            float t = fb_bits_to_float(fb_nf4_threshold_bits[i]);
            x[1 + 3 * i + d + 1] = d == 0 ? t : nextafterf(t, d < 0 ? -INFINITY : INFINITY);
        }
    REQUIRE(fb_quantize(&ctx, x, FB_F32, &w) == FB_OK, "%s", ctx.message);
    for (int i = 0; i < 15; i++)
        for (int d = 0; d < 3; d++) {
            unsigned code = fb_nibble(codes, 1 + 3 * i + d), want = (unsigned)(d == 2 ? i + 1 : i);
            REQUIRE(code == want, "NF4 threshold %d %+d ulp: code %u, want %u", i, d - 1, code, want);
        }

    w.format = FB_FP4;
    for (int i = 0; i < 42; i++) {
        float t = fb_bits_to_float(fb_fp4_threshold_bits[i / 6]);
        float y = i % 3 == 1 ? t : nextafterf(t, i % 3 == 0 ? 0.0f : 2.0f);
        x[1 + i] = i % 6 < 3 ? y : -y;
    }
    REQUIRE(fb_quantize(&ctx, x, FB_F32, &w) == FB_OK, "%s", ctx.message);
    for (int i = 0; i < 42; i++) {
        unsigned want = fb_fp4_rank_to_code[i / 6 + (i % 3 == 2)] | (i % 6 < 3 ? 0 : 8);
        REQUIRE(fb_nibble(codes, 1 + i) == want, "FP4 threshold %d, item %d: code %u, want %u", i / 6, i % 6,
                fb_nibble(codes, 1 + i), want);
    }
}

/* bf16 has few enough numbers to try all ratios: each mantissa of a block's largest magnitude, under it every magnitude down to
 * 11 octaves below, where all codes are those of 0, both signs; at exponents from subnormal to the last, and blocks of zeros. */
static void every_ratio_of_bf16(void)
{
    enum { BELOW = 11 * 128, MOST = 128 * (2 * BELOW + 2 * 4096) };
    static const unsigned exponents[] = {0x0080, 0x0f80, 0x1000, 0x3f80, 0x7d80, 0x7e00, 0x7f00};
    static uint16_t x[MOST];
    const int32_t sizes[] = {32, 64, 128, 4096};
    for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++)
        for (int s = 0; s < 4; s++) {
            const int32_t size = sizes[s];
            int64_t n = 0;
            for (unsigned m = 0; m < 128; m++) {
                const unsigned largest = exponents[e] + m;
                for (unsigned d = 0; d < 2 * BELOW; d++) {
                    if (n % size == 0) x[n++] = (uint16_t)(largest | (d & 2) << 14);
                    const unsigned magnitude = d / 2 < largest ? largest - d / 2 : 0;
                    x[n++] = (uint16_t)(magnitude | (d & 1) << 15);
                }
                while (n % size) x[n++] = 0x8000; /* -0 */
                for (int i = 0; i < size && m % 32 == 0; i++) x[n++] = (uint16_t)(i << 15); /* zeros of both signs */
            }
            for (int format = 0; format < FB_FORMAT_COUNT; format++) {
                guarded_matrix got, want;
                char what[96];
                snprintf(what, sizeof what, "%s b%d, exponent %#x", fb_format_name((fb_format)format), size, exponents[e]);
                gm_new(&got, (fb_format)format, 1, n, size, false);
                gm_new(&want, (fb_format)format, 1, n, size, false);
                fb_context ctx = suite_context();
                REQUIRE(fb_quantize(&ctx, x, FB_BF16, &got.m) == FB_OK, "%s: %s", what, ctx.message);
                expected(x, FB_BF16, &want);
                gm_expect_same(&got, &want, what);
                gm_expect_guards(&got, what);
                gm_free(&got);
                gm_free(&want);
            }
        }
}

/* fp32 across -1 ... 1 in steps of 2^-18, and where round(15 x) changes, by which a look-up finds its threshold, ulp by ulp. */
static void a_grid_of_fp32(void)
{
    enum { STEPS = 1 << 18, NEAR = 9, N = 2 * STEPS + 31 * NEAR, ROOM = N + N / 31 + 64 };
    static float y[N], x[ROOM];
    int64_t count = 0, n = 0;
    for (int i = -STEPS; i < STEPS; i++) y[count++] = (float)i / STEPS;
    for (int k = -15; k <= 15; k++) {
        float edge = ((float)k + 0.5f) / 15;
        for (int i = 0; i < NEAR / 2; i++) edge = nextafterf(edge, -2);
        for (int i = 0; i < NEAR; i++, edge = nextafterf(edge, 2)) y[count++] = fabsf(edge) <= 1 ? edge : 1;
    }
    for (int64_t i = 0; i < count; i++) {
        if (n % 32 == 0) x[n++] = 1;
        x[n++] = y[i];
    }
    for (int format = 0; format < FB_FORMAT_COUNT; format++) {
        guarded_matrix got, want;
        gm_new(&got, (fb_format)format, 1, n, 32, false);
        gm_new(&want, (fb_format)format, 1, n, 32, false);
        fb_context ctx = suite_context();
        REQUIRE(fb_quantize(&ctx, x, FB_F32, &got.m) == FB_OK, "%s", ctx.message);
        expected(x, FB_F32, &want);
        gm_expect_same(&got, &want, fb_format_name((fb_format)format));
        gm_expect_guards(&got, "a grid of fp32");
        gm_free(&got);
        gm_free(&want);
    }
}

/* Codes that the rules' edges name outright. */
static void zeros_and_padding(void)
{
    const unsigned zero_block_code[] = {0, 0, 8, 0}, padding[] = {7, 0, 8, 0};
    for (int format = 0; format < FB_FORMAT_COUNT; format++) {
        guarded_matrix w;
        gm_new(&w, (fb_format)format, 1, 33, 32, false);
        float x[33] = {0};
        x[32] = 2.0f; /* the second block is one element and the padding */
        fb_context ctx = suite_context();
        REQUIRE(fb_quantize(&ctx, x, FB_F32, &w.m) == FB_OK, "%s", ctx.message);
        for (int i = 0; i < 32; i++)
            REQUIRE(fb_nibble(w.m.codes, i) == zero_block_code[format], "%s: code %u in an all-zero block",
                    fb_format_name((fb_format)format), fb_nibble(w.m.codes, i));
        REQUIRE(w.m.absmax[0] == 0, "absmax of an all-zero block is %g", (double)w.m.absmax[0]);
        REQUIRE(fb_nibble(w.m.codes, 33) == padding[format], "%s: padding code %u", fb_format_name((fb_format)format),
                fb_nibble(w.m.codes, 33));
        gm_free(&w);
    }
    /* -0.0 is no negative: FP4's sign bit stays clear */
    float x[32] = {1.0f, -0.0f, 0.0f, -1e-30f};
    uint8_t codes[16];
    float absmax[1];
    fb_matrix w;
    fb_context ctx = suite_context();
    fb_matrix_init(&w, FB_FP4, 1, 32, 32, false);
    w.codes = codes;
    w.absmax = absmax;
    REQUIRE(fb_quantize(&ctx, x, FB_F32, &w) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_nibble(codes, 1) == 0 && fb_nibble(codes, 2) == 0 && fb_nibble(codes, 3) == 8,
            "FP4 codes of -0, 0, -1e-30: %u %u %u", fb_nibble(codes, 1), fb_nibble(codes, 2), fb_nibble(codes, 3));
}

/* What the codes mean, apart from how they are found: no other code is closer, but for
 * the ulps by which published thresholds miss the midpoint. */
static void nearest_value(void)
{
    enum { N = 64 * 40 };
    static float x[N];
    for (int format = 0; format < FB_FORMAT_COUNT; format++) {
        guarded_matrix w;
        gm_new(&w, (fb_format)format, 40, 64, 64, false);
        input_fill(INPUT_STUDENT_T, 9, 64, x, FB_F32, N);
        fb_context ctx = suite_context();
        REQUIRE(fb_quantize(&ctx, x, FB_F32, &w.m) == FB_OK, "%s", ctx.message);
        for (int i = 0; i < N; i++) {
            double scale = (double)w.m.absmax[i / 64], zero = w.m.zero_points ? w.m.zero_points[i / 64] : 0;
            double best = INFINITY, mine = NAN;
            for (unsigned c = 0; c < FB_CODES; c++) {
                double value = ((double)fb_bits_to_float(fb_codebook_bits[format][c]) - zero) * scale;
                double error = fabs((double)x[i] - value);
                best = fmin(best, error);
                if (c == fb_nibble(w.m.codes, i)) mine = error;
            }
            if (!(mine <= best + 0x1p-17 * fabs(scale))) /* FP4's 0x3f155550 is 2^-18 off the midpoint */
                REQUIRE(false, "%s element %d: %g away, the nearest code is %g away", fb_format_name((fb_format)format), i,
                        mine, best);
        }
        gm_expect_guards(&w, "nearest_value");
        gm_free(&w);
    }
}

static bool untouched(const guard *g)
{
    for (size_t i = 0; i < g->bytes; i++)
        if (g->data[i] != 0xff) return false;
    return true;
}

/* NaN and Inf: an error with the index of the first, and nothing written. */
static void nonfinite(void)
{
    const int64_t rows = 5, cols = 77, n = rows * cols;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const int64_t places[] = {0, 1, 31, 32, 200, n - 1};
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        for (size_t p = 0; p < sizeof places / sizeof *places; p++)
            for (int b = 0; b < 3; b++) {
                guarded_matrix w;
                gm_new(&w, (fb_format)((p + (size_t)b) % FB_FORMAT_COUNT), rows, cols, 32, b == 2);
                guard src = suite_buffer("src", (fb_dtype)t, n);
                input_fill(INPUT_BELL, 4, 32, src.data, (fb_dtype)t, n);
                fb_store(src.data, (fb_dtype)t, places[p], bad[b]);
                if (places[p] < n - 1) fb_store(src.data, (fb_dtype)t, n - 1, NAN); /* the first one is named */
                fb_context ctx = suite_context();
                guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &w.m, 0, (fb_dtype)t);
                fb_status status = fb_quantize(&ctx, src.data, (fb_dtype)t, &w.m);
                bool nothing_written = suite_expect_nonfinite(&ctx, status, "src", places[p]);
                const guard *parts[] = {&w.codes, &w.absmax, &w.absmax_codes, &w.nested_absmax, &w.nested_offset, &w.zero_points};
                for (int i = 0; i < 6; i++)
                    if (parts[i]->inner && nothing_written) REQUIRE(untouched(parts[i]), "%s was written", parts[i]->name);
                guard_free(&workspace);
                guard_free(&src);
                gm_free(&w);
            }
}

/* FB_ASSUME_FINITE: the same bits for finite data, and no fault for other data. */
static void assume_finite(void)
{
    const int64_t rows = 3, cols = 333, n = rows * cols;
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            guarded_matrix got, want;
            gm_new(&got, (fb_format)format, rows, cols, 64, true);
            gm_new(&want, (fb_format)format, rows, cols, 64, true);
            guard src = suite_buffer("src", (fb_dtype)t, n);
            input_fill(INPUT_STUDENT_T, 6, 64, src.data, (fb_dtype)t, n);
            fb_context ctx = suite_context();
            ctx.flags = FB_ASSUME_FINITE;
            guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &got.m, 0, (fb_dtype)t);
            REQUIRE(fb_quantize(&ctx, src.data, (fb_dtype)t, &got.m) == FB_OK, "%s", ctx.message);
            expected(src.data, (fb_dtype)t, &want);
            gm_expect_same(&got, &want, "assume finite");
            for (int64_t i = 0; i < n; i += 7) fb_store(src.data, (fb_dtype)t, i, i % 2 ? NAN : -INFINITY);
            REQUIRE(fb_quantize(&ctx, src.data, (fb_dtype)t, &got.m) == FB_OK, "%s", ctx.message);
            gm_expect_guards(&got, "assume finite, with NaN");
            guard_free(&workspace);
            guard_free(&src);
            gm_free(&got);
            gm_free(&want);
        }
}

/* The same bits on 1, 2 and 3 threads, on a tensor that is worth sharing out. */
static void threads(void)
{
    const int64_t rows = 301, cols = 1003, n = rows * cols;
    guard src = suite_buffer("src", FB_BF16, n);
    input_fill(INPUT_GAUSSIAN, 8, 64, src.data, FB_BF16, n);
    for (int dq = 0; dq < 2; dq++) {
        guarded_matrix got, want;
        gm_new(&want, FB_NF4, rows, cols, 64, dq);
        expected(src.data, FB_BF16, &want);
        for (int count = 1; count <= 3; count++) {
            gm_new(&got, FB_NF4, rows, cols, 64, dq);
            fb_context ctx = suite_context();
            ctx.threads = count;
            guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &got.m, 0, FB_BF16);
            REQUIRE(fb_quantize(&ctx, src.data, FB_BF16, &got.m) == FB_OK, "%s", ctx.message);
            gm_expect_same(&got, &want, count == 1 ? "1 thread" : count == 2 ? "2 threads" : "3 threads");
            gm_expect_guards(&got, "threads");
            guard_free(&workspace);
            gm_free(&got);
        }
        gm_free(&want);
    }
    guard_free(&src);
}

static const suite_test tests[] = {{"every_case", every_case},
                                   {"every_input", every_input},
                                   {"each_threshold_and_its_neighbours", each_threshold_and_its_neighbours},
                                   {"every_ratio_of_bf16", every_ratio_of_bf16},
                                   {"a_grid_of_fp32", a_grid_of_fp32},
                                   {"zeros_and_padding", zeros_and_padding},
                                   {"nearest_value", nearest_value},
                                   {"nonfinite", nonfinite},
                                   {"assume_finite", assume_finite},
                                   {"threads", threads},
                                   {NULL, NULL}};
const suite suite_quantize = {"quantize", "codes, absmax and zero points, bit for bit", true, tests};
