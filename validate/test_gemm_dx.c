/* test_gemm_dx.c: dX = dY W and dX += dY W within the bounds of check.h. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

/* One product, checked; accumulate: onto Gaussian contents. */
static void check_one(const fb_case *c, fb_dtype out, bool accumulate, input_kind kind, int threads)
{
    char name[128], what[192];
    fb_case_name(c, name, sizeof name);
    snprintf(what, sizeof what, "%s %s%s to %s", name, input_name(kind), accumulate ? " accumulated" : "", fb_dtype_name(out));
    int64_t n = c->rows, k = c->cols;
    guarded_matrix w;
    gm_new(&w, c->format, n, k, c->block_size, c->double_quant);
    guard dense = suite_buffer("dense", FB_F32, n * k), dy = suite_buffer("dy", c->dtype, c->m * n);
    guard dx = suite_buffer("dx", out, c->m * k), before = suite_buffer("before", out, c->m * k);
    input_fill(kind, 61, c->block_size, dense.data, FB_F32, n * k);
    input_fill(kind, 62, c->block_size, dy.data, c->dtype, c->m * n);
    if (n * k > 0) suite_reference_quantize(dense.data, FB_F32, &w);
    if (accumulate) {
        input_fill(INPUT_GAUSSIAN, 63, c->block_size, before.data, out, c->m * k);
        memcpy(dx.data, before.data, dx.bytes);
    }

    fb_context ctx = suite_context();
    ctx.threads = threads;
    guard workspace = suite_workspace(&ctx, FB_OP_GEMM_DX, &w.m, c->m, c->dtype);
    fb_status status = fb_gemm_dx(&ctx, &w.m, c->m, dy.data, c->dtype, dx.data, out, accumulate);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);

    double *weights = calloc((size_t)(n * k > 0 ? n * k : 1), sizeof *weights);
    if (!weights) exit(2);
    const fb_weights declared = fb_gemm_dx_weights(&ctx, &w.m, c->m, c->dtype);
    check_weights(&w.m, declared, c->dtype, weights);
    check_product p = {.what = what, .m = c->m, .p = k, .l = n, .a = dy.data, .a_dtype = c->dtype, .weights = weights,
                       .dx = true, .before = accumulate ? before.data : NULL, .out = dx.data, .out_dtype = out,
                       .gaussian = kind == INPUT_GAUSSIAN, .flushed = declared == FB_WEIGHTS_FLUSHED};
    EXPECT(check_level2(&p));
    if (!accumulate && kind == INPUT_GAUSSIAN && n >= 32) {
        check_weights(&w.m, FB_WEIGHTS_EXACT, c->dtype, weights);
        EXPECT(check_level3(&p));
    }
    guard *all[] = {&dense, &dy, &dx, &before, &workspace};
    for (int i = 0; i < 5; i++) {
        EXPECT(guard_check(all[i]));
        guard_free(all[i]);
    }
    gm_expect_guards(&w, what);
    gm_free(&w);
    free(weights);
}

static void every_case(void)
{
    int i = 0;
    for (const fb_case *c = fb_cases; c->rows >= 0; c++) {
        if (c->op != FB_OP_GEMM_DX || !(c->sets & CASE_TEST)) continue;
        if (suite_scale() < 1 && i++ % 2) continue;
        check_one(c, c->dtype, false, INPUT_GAUSSIAN, 0);
        check_one(c, FB_F32, true, INPUT_GAUSSIAN, 0);
    }
}

static void every_input(void)
{
    for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            if (kind == INPUT_LARGEST) continue; /* sums overflow or not by their order */
            fb_case c = {FB_OP_GEMM_DX, (fb_format)(kind % FB_FORMAT_COUNT), 64, t == 1, 71, 133, 5, (fb_dtype)t, CASE_TEST, 0};
            check_one(&c, (fb_dtype)t, t == 2, (input_kind)kind, 0);
        }
}

/* Shapes that tensor-core paths take, where backends have tails of their own: columns that end inside a tile, rows inside a
 * step, blocks that straddle rows, sums that are split; each with what changes the way out. */
static void whole_tiles(void)
{
    static const struct { int64_t n, k, m; int32_t block; bool double_quant; } shapes[] = {
        {256, 288, 1, 64, true}, {528, 96, 3, 32, false}, {272, 544, 8, 4096, true}, {512, 224, 11, 64, false}, {16, 32, 16, 128, true},
        {40, 288, 17, 64, true}, {776, 64, 33, 32, false}, {264, 320, 64, 128, false}, {8, 96, 70, 64, true}, {72, 544, 130, 1024, true},
        {1, 96, 33, 32, false}};
    int i = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int format = 0; format < FB_FORMAT_COUNT; format++, i++) {
            if (suite_scale() < 1 && i % 2) continue;
            fb_case c = {FB_OP_GEMM_DX, (fb_format)format, shapes[s].block, shapes[s].double_quant, shapes[s].n, shapes[s].k, shapes[s].m,
                         i / 2 % 2 ? FB_F16 : FB_BF16, CASE_TEST, 0};
            check_one(&c, i % 3 ? c.dtype : FB_F32, i / 3 % 2, INPUT_GAUSSIAN, 0);
        }
}

/* More rows than a backend may take at a time; dY in fp32 as it lies, or converted. */
static void many_rows(void)
{
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        fb_case c = {FB_OP_GEMM_DX, FB_NF4, 64, t == 1, 40, 72, 533, (fb_dtype)t, CASE_TEST, 0};
        check_one(&c, (fb_dtype)t, false, INPUT_GAUSSIAN, 0);
        check_one(&c, FB_F32, true, INPUT_GAUSSIAN, 0);
    }
}

/* Rows 30, 31 ... of w, around its end. */
static void rows_of(const fb_matrix *w, fb_dtype t, int64_t m, guard *dense, guard *want)
{
    fb_context reference;
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    REQUIRE(fb_dequantize(&reference, w, dense->data, t) == FB_OK, "%s", reference.message);
    for (int64_t j = 0; j < m * w->cols; j++)
        fb_store(want->data, t, j, fb_load(dense->data, t, (30 + j / w->cols) % w->rows * w->cols + j % w->cols));
}

/* dY = rows of the identity: dX is rows of the dequantized weights, bit for bit, and with a checkpoint's own tables too. */
static void one_hot_of(int64_t n, int64_t k, const int64_t ms[3], bool custom)
{
    float book[FB_CODES], nested[FB_CODES8];
    for (int i = 0; i < FB_CODES; i++) book[i] = (float)(i - 7) / 9.0f;
    for (int i = 0; i < FB_CODES8; i++) nested[i] = (float)(i - 127) / 128.0f;
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++)
            for (int i = 0; i < 3; i++) {
                guarded_matrix w;
                gm_new(&w, (fb_format)format, n, k, 64, i == 1);
                suite_random_matrix(&w, 64);
                if (custom) w.m.codebook = book, w.m.nested_codebook = nested;
                guard dy = suite_buffer("dy", (fb_dtype)t, ms[i] * n), dx = suite_buffer("dx", (fb_dtype)t, ms[i] * k);
                guard dense = suite_buffer("dense", (fb_dtype)t, n * k), want = suite_buffer("want", (fb_dtype)t, ms[i] * k);
                input_one_hot(dy.data, (fb_dtype)t, ms[i], n, 30);
                fb_context ctx = suite_context();
                guard workspace = suite_workspace(&ctx, FB_OP_GEMM_DX, &w.m, ms[i], (fb_dtype)t);
                fb_status status = fb_gemm_dx(&ctx, &w.m, ms[i], dy.data, (fb_dtype)t, dx.data, (fb_dtype)t, false);
                REQUIRE(status == FB_OK, "%s", ctx.message);
                rows_of(&w.m, (fb_dtype)t, ms[i], &dense, &want);
                EXPECT(check_same_value((check_place){"one-hot", k, 0}, dx.data, want.data, (fb_dtype)t, ms[i] * k));
                if (custom) {
                    w.m.codebook = NULL;
                    rows_of(&w.m, (fb_dtype)t, ms[i], &dense, &want);
                    REQUIRE(!check_same_value((check_place){"", k, 0}, dx.data, want.data, (fb_dtype)t, ms[i] * k).ok, "the codebook makes no difference");
                }
                EXPECT(guard_check(&dx));
                guard *all[] = {&dy, &dx, &dense, &want, &workspace};
                for (int a = 0; a < 5; a++) guard_free(all[a]);
                gm_free(&w);
            }
}

static void one_hot(void)
{
    one_hot_of(37, 99, (const int64_t[]){1, 3, 17}, false);
    one_hot_of(48, 160, (const int64_t[]){1, 9, 65}, false);
}
static void codebooks(void)
{
    one_hot_of(37, 99, (const int64_t[]){1, 3, 17}, true);
    one_hot_of(48, 160, (const int64_t[]){1, 9, 65}, true);
    one_hot_of(16, 64, (const int64_t[]){16, 33, 130}, true);
}

static void threads(void)
{
    static const int64_t ms[] = {1, 33};
    const int64_t n = 517, k = 640;
    for (int i = 0; i < 2; i++) {
        guarded_matrix w;
        gm_new(&w, FB_NF4, n, k, 64, true);
        suite_random_matrix(&w, 65);
        guard dy = suite_buffer("dy", FB_BF16, ms[i] * n);
        guard dx = suite_buffer("dx", FB_F32, ms[i] * k), first = suite_buffer("first", FB_F32, ms[i] * k);
        input_fill(INPUT_GAUSSIAN, 66, 64, dy.data, FB_BF16, ms[i] * n);
        for (int count = 1; count <= 3; count++) {
            fb_context ctx = suite_context();
            ctx.threads = count;
            guard workspace = suite_workspace(&ctx, FB_OP_GEMM_DX, &w.m, ms[i], FB_BF16);
            guard_poison(&dx);
            fb_status status = fb_gemm_dx(&ctx, &w.m, ms[i], dy.data, FB_BF16, dx.data, FB_F32, false);
            REQUIRE(status == FB_OK, "%s", ctx.message);
            if (count == 1) memcpy(first.data, dx.data, dx.bytes);
            EXPECT(check_same((check_place){"threads against 1 thread", k, 0}, dx.data, first.data, FB_F32, ms[i] * k));
            guard_free(&workspace);
        }
        guard_free(&dy);
        guard_free(&dx);
        guard_free(&first);
        gm_free(&w);
    }
}

static const suite_test tests[] = {{"every_case", every_case}, {"every_input", every_input}, {"whole_tiles", whole_tiles},
                                   {"many_rows", many_rows},   {"one_hot", one_hot},         {"codebooks", codebooks},
                                   {"threads", threads},       {NULL, NULL}};
const suite suite_gemm_dx = {"gemm_dx", "dX = dY W within the derived bounds", true, tests};
