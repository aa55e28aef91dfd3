/* test_gemm.c: Y = X W^T + bias within the bounds of check.h, for every case of the list. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct gemm_run {
    guarded_matrix w;
    guard x, y, bias, workspace;
    double *weights; /* as the backend declares them */
    fb_dtype t, y_dtype;
    int64_t m;
    bool has_bias;
    unsigned flags;
} gemm_run;

static void run_new(gemm_run *r, const fb_case *c, fb_dtype y_dtype, input_kind kind)
{
    int64_t n = c->rows, k = c->cols;
    memset(r, 0, sizeof *r);
    r->t = c->dtype;
    r->y_dtype = y_dtype;
    r->m = c->m;
    gm_new(&r->w, c->format, n, k, c->block_size, c->double_quant);
    guard dense = suite_buffer("dense", FB_F32, n * k);
    input_fill(kind, 51, c->block_size, dense.data, FB_F32, n * k);
    if (n * k > 0) suite_reference_quantize(dense.data, FB_F32, &r->w);
    guard_free(&dense);
    r->x = suite_buffer("x", c->dtype, c->m * k);
    r->y = suite_buffer("y", y_dtype, c->m * n);
    r->bias = suite_buffer("bias", c->dtype, n);
    input_fill(kind, 52, c->block_size, r->x.data, c->dtype, c->m * k);
    input_fill(INPUT_BELL, 53, c->block_size, r->bias.data, c->dtype, n);
    r->weights = calloc((size_t)(n * k > 0 ? n * k : 1), sizeof *r->weights);
    if (!r->weights) exit(2);
}

static void run_free(gemm_run *r)
{
    guard *all[] = {&r->x, &r->y, &r->bias, &r->workspace};
    for (int i = 0; i < 4; i++) guard_free(all[i]);
    gm_free(&r->w);
    free(r->weights);
}

static void run_call(gemm_run *r, int threads, const char *what)
{
    fb_context ctx = suite_context();
    ctx.threads = threads;
    ctx.flags |= r->flags;
    guard_free(&r->workspace);
    r->workspace = suite_workspace(&ctx, FB_OP_GEMM, &r->w.m, r->m, r->t);
    guard_poison(&r->y);
    fb_status status = fb_gemm(&ctx, &r->w.m, r->m, r->x.data, r->t, r->has_bias ? r->bias.data : NULL, r->y.data, r->y_dtype);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
}

static check_product run_product(gemm_run *r, fb_weights weights, const char *what, bool gaussian)
{
    check_weights(&r->w.m, weights, r->t, r->weights);
    return (check_product){.what = what, .m = r->m, .p = r->w.m.rows, .l = r->w.m.cols, .a = r->x.data, .a_dtype = r->t,
                           .weights = r->weights, .bias = r->has_bias ? r->bias.data : NULL, .out = r->y.data,
                           .out_dtype = r->y_dtype, .gaussian = gaussian, .flushed = weights == FB_WEIGHTS_FLUSHED};
}

static void check_level_two(gemm_run *r, const char *what, bool gaussian)
{
    fb_context ctx = suite_context();
    ctx.flags |= r->flags;
    check_product p = run_product(r, fb_gemm_weights(&ctx, &r->w.m, r->m, r->t), what, gaussian);
    EXPECT(check_level2(&p));
    guard *all[] = {&r->x, &r->y, &r->bias, &r->workspace};
    for (int i = 0; i < 4; i++) EXPECT(guard_check(all[i]));
    gm_expect_guards(&r->w, what);
}

/* Every case: alone and with a bias, into its own type and into fp32. */
static void every_case(void)
{
    int i = 0;
    for (const fb_case *c = fb_cases; c->rows >= 0; c++) {
        if (c->op != FB_OP_GEMM || !(c->sets & CASE_TEST)) continue;
        if (suite_scale() < 1 && i++ % 2) continue;
        char name[128], what[160];
        fb_case_name(c, name, sizeof name);
        for (int variant = 0; variant < 2; variant++) {
            gemm_run r;
            run_new(&r, c, variant ? FB_F32 : c->dtype, INPUT_GAUSSIAN);
            r.has_bias = variant;
            snprintf(what, sizeof what, "%s%s", name, variant ? " with bias, to fp32" : "");
            run_call(&r, 0, what);
            check_level_two(&r, what, true);
            run_free(&r);
        }
    }
}

/* Level 3: against weights that were never rounded. Half inputs only: what this level
 * bounds is what rounding to them may cost. */
static void end_to_end(void)
{
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++)
            for (int64_t m = 1; m <= 16; m *= 16) {
                fb_case c = {FB_OP_GEMM, (fb_format)format, 64, false, 128, 512, m, (fb_dtype)t, CASE_TEST, 0};
                gemm_run r;
                run_new(&r, &c, (fb_dtype)t, INPUT_GAUSSIAN);
                run_call(&r, 0, "end to end");
                check_product p = run_product(&r, FB_WEIGHTS_EXACT, "end to end", false);
                EXPECT(check_level3(&p));
                run_free(&r);
            }
}

/* Few outputs and a long sum, which a backend may cut among many: each part whole. */
static void long_sums(void)
{
    static const int64_t ms[] = {1, 20, 70};
    for (int i = 0; i < 6; i++) {
        fb_case c = {FB_OP_GEMM, FB_NF4, 64, i % 2, 72, 2080, ms[i % 3], i < 3 ? FB_BF16 : FB_F16, CASE_TEST, 0};
        gemm_run r;
        run_new(&r, &c, FB_F32, INPUT_GAUSSIAN);
        run_call(&r, 0, "long sums");
        check_level_two(&r, "long sums", true);
        run_free(&r);
    }
}

/* Awkward data: outliers, cancelling pairs, zeros, subnormals, largest values. */
static void every_input(void)
{
    static const int64_t ms[] = {1, 5, 16};
    for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
        for (int i = 0; i < 3; i++)
            for (int t = 0; t < FB_DTYPE_COUNT; t++) {
                if (kind == INPUT_LARGEST) continue; /* sums overflow or not by their order */
                fb_case c = {FB_OP_GEMM, (fb_format)((i + t) % FB_FORMAT_COUNT), 64, i == 1, 21, (kind + t) % 2 ? 224 : 203, ms[i], (fb_dtype)t, CASE_TEST, 0};
                gemm_run r;
                run_new(&r, &c, FB_F32, (input_kind)kind);
                run_call(&r, 0, input_name((input_kind)kind));
                check_level_two(&r, input_name((input_kind)kind), false);
                run_free(&r);
            }
}

/* X = rows of the identity: Y is the dequantized weights, bit for bit (-0 counts as 0:
 * a sum that starts at 0 never gives it). */
static void one_hot(void)
{
    static const int64_t ms[] = {1, 3, 16, 65};
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++)
            for (int i = 0; i < 4; i++) {
                fb_case c = {FB_OP_GEMM, (fb_format)format, i % 2 ? 32 : 128, i > 1, 19, (i + format) % 2 ? 131 : 160, ms[i], (fb_dtype)t, CASE_TEST, 0};
                gemm_run r;
                run_new(&r, &c, (fb_dtype)t, INPUT_GAUSSIAN);
                input_one_hot(r.x.data, r.t, r.m, c.cols, 60);
                run_call(&r, 0, "one-hot");
                fb_context here = suite_context();
                if (fb_gemm_weights(&here, &r.w.m, r.m, r.t) == FB_WEIGHTS_CODES) { /* other weights, which are scaled in two steps */
                    check_level_two(&r, "one-hot", false);
                    run_free(&r);
                    continue;
                }
                guard want = suite_buffer("want", r.t, r.m * c.rows), dense = suite_buffer("dense", r.t, c.rows * c.cols);
                fb_context ctx;
                fb_context_init(&ctx, FB_BACKEND_REFERENCE);
                REQUIRE(fb_dequantize(&ctx, &r.w.m, dense.data, r.t) == FB_OK, "%s", ctx.message);
                for (int64_t j = 0; j < r.m * c.rows; j++)
                    fb_store(want.data, r.t, j, fb_load(dense.data, r.t, j % c.rows * c.cols + (60 + j / c.rows) % c.cols));
                EXPECT(check_same_value((check_place){"one-hot", c.rows, 0}, r.y.data, want.data, r.t, r.m * c.rows));
                guard_free(&want);
                guard_free(&dense);
                run_free(&r);
            }
}

/* Every byte value as codes and the tables of a checkpoint, for M of every path. With the built-in tables the same products are wrong. */
static void codes_and_codebooks(void)
{
    static const int64_t ms[] = {1, 5, 9, 30, 60, 100, 130};
    float book[FB_CODES], nested[FB_CODES8];
    for (int i = 0; i < FB_CODES; i++) book[i] = (float)(i - 7) / 9.0f;
    for (int i = 0; i < FB_CODES8; i++) nested[i] = (float)(i - 127) / 128.0f;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (int custom = 0; custom < 2; custom++)
            for (int format = 0; format < FB_FORMAT_COUNT; format++) {
                const int64_t m = ms[i];
                fb_case c = {FB_OP_GEMM, (fb_format)format, 64, true, 31, m == 5 ? 260 : 288, m, m == 30 ? FB_F16 : FB_BF16, CASE_TEST, 0};
                gemm_run r;
                run_new(&r, &c, FB_F32, INPUT_GAUSSIAN);
                suite_random_matrix(&r.w, 55);
                if (custom) {
                    r.w.m.codebook = book;
                    r.w.m.nested_codebook = nested;
                }
                run_call(&r, 0, "codes");
                check_level_two(&r, custom ? "custom codebooks" : "every byte as codes", false);
                if (custom) {
                    r.w.m.codebook = NULL;
                    check_product p = run_product(&r, FB_WEIGHTS_ROUNDED, "another codebook", false);
                    REQUIRE(!check_level2(&p).ok, "M %d: the codebook makes no difference", (int)m);
                    r.w.m.codebook = book, r.w.m.nested_codebook = NULL;
                    p = run_product(&r, FB_WEIGHTS_ROUNDED, "another map of scales", false);
                    REQUIRE(!check_level2(&p).ok, "M %d: the map of scales makes no difference", (int)m);
                }
                run_free(&r);
            }
}

/* The same bits on 1, 2 and 3 threads, and again. */
static void threads(void)
{
    static const int64_t ms[] = {1, 4, 33};
    for (int i = 0; i < 3; i++) {
        fb_case c = {FB_OP_GEMM, FB_NF4, 64, i == 1, 259, i == 1 ? 1030 : 1056, ms[i], FB_BF16, CASE_TEST, 0};
        gemm_run r;
        run_new(&r, &c, FB_F32, INPUT_GAUSSIAN);
        run_call(&r, 1, "1 thread");
        guard first = suite_buffer("first", FB_F32, r.m * c.rows);
        memcpy(first.data, r.y.data, r.y.bytes);
        for (int count = 1; count <= 3; count++) {
            run_call(&r, count, "threads");
            EXPECT(check_same((check_place){"threads against 1 thread", c.rows, 0}, r.y.data, first.data, FB_F32, r.m * c.rows));
        }
        guard_free(&first);
        run_free(&r);
    }
}

/* FB_BATCH_INVARIANT: a row of X gives the same bits among 1, 3, 17, 64 and 130 rows. */
static void batch_invariant(void)
{
    static const int64_t ms[] = {1, 3, 17, 64}, most = 130;
    for (int i = 0; i < 6; i++) {
        const int64_t cols[] = {1056, 544, 331}; /* several steps; half a step over; no fast path */
        fb_case c = {FB_OP_GEMM, (fb_format)(i % FB_FORMAT_COUNT), 64, i % 2 == 0, 70, cols[i % 3], most, (fb_dtype)(i % FB_DTYPE_COUNT), CASE_TEST, 0};
        gemm_run r;
        run_new(&r, &c, FB_F32, INPUT_GAUSSIAN);
        r.flags = FB_BATCH_INVARIANT;
        r.has_bias = i % 2;
        run_call(&r, 0, "130 rows");
        check_level_two(&r, "130 rows, batch-invariant", true);
        guard all = suite_buffer("all", FB_F32, most * c.rows);
        memcpy(all.data, r.y.data, r.y.bytes);
        for (int j = 0; j < 4; j++) {
            r.m = ms[j];
            run_call(&r, 0, "fewer rows");
            EXPECT(check_same((check_place){"fewer rows against 130", c.rows, 0}, r.y.data, all.data, FB_F32, r.m * c.rows));
        }
        guard_free(&all);
        run_free(&r);
    }
}

/* Subnormal activations on large weights: nobody but who declares it may lose their products. */
static void subnormal_activations(void)
{
    for (int64_t m = 1; m <= 16; m *= 4) {
        fb_case c = {FB_OP_GEMM, FB_NF4, 64, false, 21, 224, m, FB_BF16, CASE_TEST, 0};
        gemm_run r;
        run_new(&r, &c, FB_F32, INPUT_GAUSSIAN);
        for (int64_t b = 0; b < fb_block_count(c.rows * c.cols, 64); b++) r.w.m.absmax[b] *= 0x1p60f;
        for (int64_t i = 0; i < m * c.cols; i += 3) fb_store(r.x.data, FB_BF16, i, i % 2 ? 0x1p-130f : -0x1p-128f);
        for (int64_t i = 1; i < m * c.cols; i += 3) fb_store(r.x.data, FB_BF16, i, 0x1p-110f);
        for (int64_t i = 2; i < m * c.cols; i += 3) fb_store(r.x.data, FB_BF16, i, 0.0f);
        run_call(&r, 0, "subnormal activations");
        check_level_two(&r, "subnormal activations", false);
        run_free(&r);
    }
}

/* K = 0: a sum of nothing and the bias. */
static void empty_sum(void)
{
    float bias[3] = {1, -2, 3}, y[6];
    fb_matrix w;
    fb_context ctx = suite_context();
    fb_matrix_init(&w, FB_NF4, 3, 0, 64, false);
    for (int with = 0; with < 2; with++) {
        memset(y, 0xff, sizeof y);
        guard workspace = suite_workspace(&ctx, FB_OP_GEMM, &w, 2, FB_F32);
        fb_status status = fb_gemm(&ctx, &w, 2, NULL, FB_F32, with ? bias : NULL, y, FB_F32);
        REQUIRE(status == FB_OK, "%s", ctx.message);
        for (int i = 0; i < 6; i++)
            REQUIRE(y[i] == (with ? bias[i % 3] : 0.0f), "y[%d] is %g, want %g", i, (double)y[i], with ? (double)bias[i % 3] : 0.0);
        guard_free(&workspace);
    }
}

/* The reference rounds its double sums once. Just beside a bf16 tie, a detour by way of fp32
 * would land on the tie and go to the wrong side. (Other backends add in fp32 and may.) */
static void reference_rounds_once(void)
{
    const float x[2][2] = {{1 + 0x1p-8f, 0x1p-40f}, {1 + 3 * 0x1p-8f, -0x1p-40f}};
    float absmax[1] = {1};
    uint8_t codes[1] = {0xff}; /* both weights are 1 */
    uint16_t y[2];
    fb_matrix w;
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    fb_matrix_init(&w, FB_NF4, 1, 2, 64, false);
    w.codes = codes;
    w.absmax = absmax;
    REQUIRE(fb_gemm(&ctx, &w, 2, x, FB_F32, NULL, y, FB_BF16) == FB_OK, "%s", ctx.message);
    for (int i = 0; i < 2; i++) /* above the tie goes up, below it goes down: 1 + 2^-7 both times */
        REQUIRE(fb_bf16_to_float(y[i]) == 1 + 0x1p-7f, "sum %d rounds to %a", i, (double)fb_bf16_to_float(y[i]));
}

static const suite_test tests[] = {{"every_case", every_case}, {"end_to_end", end_to_end}, {"long_sums", long_sums}, {"every_input", every_input},
                                   {"one_hot", one_hot},       {"codes_and_codebooks", codes_and_codebooks},
                                   {"threads", threads},       {"batch_invariant", batch_invariant}, {"subnormal_activations", subnormal_activations}, {"empty_sum", empty_sum},
                                   {"reference_rounds_once", reference_rounds_once}, {NULL, NULL}};
const suite suite_gemm = {"gemm", "Y = X W^T + bias within the derived bounds", true, tests};
