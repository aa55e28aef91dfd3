/* test_lora.c: LoRA forward and backward within the bounds of check_lora.h; dropout to the bit; B = 0; gradients
 * against finite differences. */
#include "check_lora.h"
#include "dropout.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

enum { BUFFERS = 13 };

/* A layer, its adapter and everything both passes read and write, each in a guard of its own. */
typedef struct layer {
    guarded_matrix w;
    fb_lora lora;
    int64_t m;
    fb_dtype t, out; /* of the activations; of Y and dX */
    guard x, a, b, bias, y, u, dy, dx, da, db, dx_before, da_before, db_before;
} layer;

static void all_buffers(layer *l, guard *list[BUFFERS])
{
    guard *all[BUFFERS] = {&l->x, &l->a, &l->b, &l->bias, &l->y, &l->u, &l->dy, &l->dx, &l->da, &l->db, &l->dx_before,
                           &l->da_before, &l->db_before};
    memcpy(list, all, sizeof all);
}

static void layer_new(layer *l, const fb_case *c, int32_t rank, float dropout, fb_dtype out, input_kind kind)
{
    const int64_t n = c->rows, k = c->cols;
    memset(l, 0, sizeof *l);
    l->m = c->m, l->t = c->dtype, l->out = out;
    gm_new(&l->w, c->format, n, k, c->block_size, c->double_quant);
    struct { guard *g; const char *name; fb_dtype t; int64_t n; input_kind kind; } parts[] = {
        {&l->x, "x", l->t, l->m * k, kind},
        {&l->a, "a", l->t, rank * k, kind == INPUT_GAUSSIAN ? INPUT_UNIFORM : kind},
        {&l->b, "b", l->t, n * rank, kind},
        {&l->bias, "bias", l->t, n, INPUT_BELL},
        {&l->y, "y", out, l->m * n, INPUT_KIND_COUNT},
        {&l->u, "u", l->t, l->m * rank, INPUT_KIND_COUNT},
        {&l->dy, "dy", l->t, l->m * n, kind},
        {&l->dx, "dx", out, l->m * k, INPUT_KIND_COUNT},
        {&l->da, "da", FB_F32, rank * k, INPUT_KIND_COUNT},
        {&l->db, "db", FB_F32, n * rank, INPUT_KIND_COUNT},
        {&l->dx_before, "dx_before", out, l->m * k, INPUT_GAUSSIAN},
        {&l->da_before, "da_before", FB_F32, rank * k, INPUT_GAUSSIAN},
        {&l->db_before, "db_before", FB_F32, n * rank, INPUT_GAUSSIAN}};
    for (int i = 0; i < BUFFERS; i++) {
        *parts[i].g = suite_buffer(parts[i].name, parts[i].t, parts[i].n);
        if (parts[i].kind == INPUT_KIND_COUNT) continue; /* an output: poison */
        input_fill(parts[i].kind, 150 + (uint64_t)i, c->block_size, parts[i].g->data, parts[i].t, parts[i].n);
    }
    guard dense = suite_buffer("dense", FB_F32, n * k);
    input_fill(kind, 149, c->block_size, dense.data, FB_F32, n * k);
    if (n * k > 0) suite_reference_quantize(dense.data, FB_F32, &l->w);
    guard_free(&dense);
    l->lora = (fb_lora){.rank = rank, .scale = 16.0f / (float)rank, .dropout = dropout, .seed = 0x9e3779b97f4a7c15u,
                        .a = l->a.data, .b = l->b.data};
}

static void layer_free(layer *l)
{
    guard *all[BUFFERS];
    all_buffers(l, all);
    for (int i = 0; i < BUFFERS; i++) {
        EXPECT(guard_check(all[i]));
        guard_free(all[i]);
    }
    gm_expect_guards(&l->w, "lora");
    gm_free(&l->w);
}

static guard lora_workspace(fb_context *ctx, fb_op op, const layer *l)
{
    size_t bytes = 0;
    REQUIRE(fb_lora_workspace_size(ctx, op, &l->w.m, l->lora.rank, l->m, l->t, &bytes) == FB_OK, "%s", ctx->message);
    guard g = guard_new("workspace", bytes, GUARD_END, 64);
    guard_poison(&g);
    ctx->workspace = bytes ? g.data : NULL;
    ctx->workspace_bytes = bytes;
    return g;
}

static void forward(layer *l, const char *what, bool bias, int threads)
{
    fb_context ctx = suite_context();
    ctx.threads = threads;
    guard workspace = lora_workspace(&ctx, FB_OP_LORA_FORWARD, l);
    guard_poison(&l->y);
    guard_poison(&l->u);
    fb_status status = fb_lora_forward(&ctx, &l->w.m, &l->lora, l->m, l->x.data, l->t, bias ? l->bias.data : NULL, l->y.data,
                                       l->out, l->u.data);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    EXPECT(guard_check(&workspace));
    guard_free(&workspace);
}

static void backward(layer *l, const char *what, bool accumulate, bool dx, int threads)
{
    fb_context ctx = suite_context();
    ctx.threads = threads;
    guard workspace = lora_workspace(&ctx, FB_OP_LORA_BACKWARD, l);
    struct { guard *out, *before; } pairs[] = {{&l->dx, &l->dx_before}, {&l->da, &l->da_before}, {&l->db, &l->db_before}};
    for (int i = 0; i < 3; i++) {
        guard_poison(pairs[i].out);
        if (accumulate) memcpy(pairs[i].out->data, pairs[i].before->data, pairs[i].out->bytes);
    }
    fb_status status = fb_lora_backward(&ctx, &l->w.m, &l->lora, l->m, l->x.data, l->u.data, l->dy.data, l->t,
                                        dx ? l->dx.data : NULL, l->out, accumulate, (float *)l->da.data, (float *)l->db.data,
                                        accumulate);
    REQUIRE(status == FB_OK, "%s: %s", what, ctx.message);
    EXPECT(guard_check(&workspace));
    guard_free(&workspace);
}

static check_lora what_to_check(const layer *l, fb_op op, const char *what, bool gaussian)
{
    fb_context ctx = suite_context();
    return (check_lora){.what = what, .w = &l->w.m, .lora = &l->lora, .m = l->m, .dtype = l->t, .x = l->x.data, .u = l->u.data,
                        .weights = fb_lora_weights(&ctx, op, &l->w.m, l->lora.rank, l->m, l->t), .gaussian = gaussian};
}

static void check_forward(const layer *l, const char *what, bool bias, bool gaussian)
{
    check_lora c = what_to_check(l, FB_OP_LORA_FORWARD, what, gaussian);
    c.bias = bias ? l->bias.data : NULL;
    c.y = l->y.data, c.y_dtype = l->out;
    check_result results[CHECK_LORA_FORWARD];
    check_lora_forward(&c, results);
    for (int i = 0; i < CHECK_LORA_FORWARD; i++) EXPECT(results[i]);
}

static void check_backward(const layer *l, const char *what, bool accumulate, bool dx, bool gaussian)
{
    check_lora c = what_to_check(l, FB_OP_LORA_BACKWARD, what, gaussian);
    c.dy = l->dy.data, c.dx_dtype = l->out;
    c.dx = dx ? l->dx.data : NULL, c.da = (const float *)l->da.data, c.db = (const float *)l->db.data;
    if (accumulate) {
        c.dx_before = l->dx_before.data;
        c.da_before = (const float *)l->da_before.data, c.db_before = (const float *)l->db_before.data;
    }
    check_result results[CHECK_LORA_BACKWARD];
    check_lora_backward(&c, results);
    for (int i = 0; i < CHECK_LORA_BACKWARD; i++) EXPECT(results[i]);
}

static void both_passes(layer *l, const char *what, bool variant, bool gaussian)
{
    forward(l, what, variant, 0);
    check_forward(l, what, variant, gaussian);
    backward(l, what, variant, true, 0);
    check_backward(l, what, variant, true, gaussian);
}

/* Every shape and format of gemm's list; ranks, dropout, bias, output type and accumulation go round. */
static void every_case(void)
{
    static const int32_t ranks[] = {1, 8, 16, 3, 64, 17, 33, 200};
    static const float dropouts[] = {0, 0.1f, 0, 0.5f, 0.05f};
    int i = 0, stride = suite_scale() < 1 ? 4 : 1;
    for (const fb_case *c = fb_cases; c->rows >= 0; c++) {
        if (c->op != FB_OP_GEMM || !(c->sets & CASE_TEST) || i++ % stride) continue;
        const int32_t rank = ranks[i % 8];
        const bool variant = i / 2 % 2;
        char name[128], what[192];
        fb_case_name(c, name, sizeof name);
        snprintf(what, sizeof what, "%s with rank %d, dropout %g%s", name, rank, (double)dropouts[i % 5],
                 variant ? ", bias, accumulated, to fp32" : "");
        layer l;
        layer_new(&l, c, rank, dropouts[i % 5], variant ? FB_F32 : c->dtype, INPUT_GAUSSIAN);
        both_passes(&l, what, variant, true);
        layer_free(&l);
    }
}

/* Shapes of gemm_dx's tensor-core paths, whose masks lie in rows of dX: a mask that is the first row's, or shifted, is wrong
 * from the second row on. The last: sums over so many rows that they are cut, and added to what is there. */
static void dropped_tiles(void)
{
    static const struct { int64_t n, k, m; int32_t rank; } shapes[] = {{48, 288, 5, 8}, {272, 96, 16, 17}, {40, 288, 33, 16}, {8, 96, 70, 3}, {32, 64, 700, 8}};
    for (int i = 0; i < 10; i++) {
        fb_case c = {FB_OP_LORA_FORWARD, (fb_format)(i % FB_FORMAT_COUNT), 64, i % 3 == 0, shapes[i % 5].n, shapes[i % 5].k, shapes[i % 5].m,
                     i < 5 ? FB_BF16 : FB_F16, CASE_TEST, 0};
        layer l;
        layer_new(&l, &c, shapes[i % 5].rank, 0.3f, i % 2 ? FB_F32 : c.dtype, INPUT_GAUSSIAN);
        both_passes(&l, "dropped tiles", i % 2, true);
        layer_free(&l);
    }
}

static const fb_case usual = {FB_OP_LORA_FORWARD, FB_NF4, 64, false, 72, 160, 6, FB_F32, CASE_TEST, 0};

static void every_input(void)
{
    for (int kind = 0; kind < INPUT_KIND_COUNT; kind++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            if (kind == INPUT_LARGEST) continue; /* sums overflow or not by their order */
            fb_case c = {FB_OP_LORA_FORWARD, (fb_format)((kind + t) % FB_FORMAT_COUNT), 64, t == 1, 37, 203, 5, (fb_dtype)t, CASE_TEST, 0};
            layer l;
            layer_new(&l, &c, 8, t == 0 ? 0.0f : 0.25f, FB_F32, (input_kind)kind);
            l.lora.scale = t == FB_F16 ? 0x1p-14f : 0.5f; /* U and dU within fp16 */
            both_passes(&l, input_name((input_kind)kind), t == 1, false);
            layer_free(&l);
        }
}

/* Against weights and intermediates that were never rounded. */
static void end_to_end(void)
{
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            fb_case c = {FB_OP_LORA_FORWARD, (fb_format)format, 64, false, 128, 512, 16, (fb_dtype)t, CASE_TEST, 0};
            layer l;
            layer_new(&l, &c, 16, 0.1f, (fb_dtype)t, INPUT_GAUSSIAN);
            forward(&l, "end to end", false, 0);
            check_lora k = what_to_check(&l, FB_OP_LORA_FORWARD, "end to end", false);
            k.y = l.y.data, k.y_dtype = l.out;
            EXPECT(check_lora_level3(&k));
            layer_free(&l);
        }
}

/* The first step of training: the layer is its base, dA is zeros, dB is not. */
static void b_is_zero(void)
{
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        for (int64_t m = 1; m <= 21; m += 20) {
            fb_case c = usual;
            c.dtype = (fb_dtype)t, c.m = m;
            layer l;
            layer_new(&l, &c, 16, 0.1f, (fb_dtype)t, INPUT_GAUSSIAN);
            memset(l.b.data, 0, l.b.bytes);
            both_passes(&l, "B = 0", false, false);
            check_lora k = what_to_check(&l, FB_OP_LORA_FORWARD, "B = 0", false);
            double *weights = calloc((size_t)(c.rows * c.cols), sizeof *weights);
            if (!weights) exit(2);
            check_weights(&l.w.m, k.weights, l.t, weights);
            check_product base = {.what = "B = 0: the base product", .m = m, .p = c.rows, .l = c.cols, .a = l.x.data, .a_dtype = l.t,
                                  .weights = weights, .out = l.y.data, .out_dtype = l.out, .gaussian = true};
            EXPECT(check_level2(&base));
            free(weights);
            int64_t zeros = 0, others = 0;
            for (int64_t i = 0; i < 16 * c.cols; i++) zeros += ((const float *)l.da.data)[i] == 0.0f;
            for (int64_t i = 0; i < 16 * c.rows; i++) others += ((const float *)l.db.data)[i] != 0.0f;
            REQUIRE(zeros == 16 * c.cols, "B = 0: %lld of dA's elements are not 0", (long long)(16 * c.cols - zeros));
            REQUIRE(others > 15 * c.rows, "B = 0: only %lld of dB's elements are not 0", (long long)others);
            layer_free(&l);
        }
}

/* The reference's base product in a LoRA layer is its gemm's. */
static void reference_bits(void)
{
    layer l;
    layer_new(&l, &usual, 8, 0, FB_F32, INPUT_GAUSSIAN);
    memset(l.b.data, 0, l.b.bytes);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    guard want = suite_buffer("want", FB_F32, l.m * usual.rows);
    REQUIRE(fb_lora_forward(&ctx, &l.w.m, &l.lora, l.m, l.x.data, l.t, l.bias.data, l.y.data, FB_F32, l.u.data) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_gemm(&ctx, &l.w.m, l.m, l.x.data, l.t, l.bias.data, want.data, FB_F32) == FB_OK, "%s", ctx.message);
    EXPECT(check_same_value((check_place){"B = 0 against gemm", usual.rows, 0}, l.y.data, want.data, FB_F32, l.m * usual.rows));
    guard_free(&want);
    layer_free(&l);
}

/* ---- dropout ------------------------------------------------------------------------------ */

/* The vectors that Random123 publishes with the generator (kat_vectors, philox4x32 10), and the second writing. */
static void philox_vectors(void)
{
    static const struct { uint32_t counter[4], key[2], want[4]; } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (int i = 0; i < 3; i++) {
        fb_philox counter;
        uint32_t again[4];
        memcpy(counter.v, known[i].counter, sizeof counter.v);
        fb_philox got = fb_philox4x32(counter, known[i].key[0], known[i].key[1]);
        check_philox(known[i].counter, known[i].key, again);
        for (int j = 0; j < 4; j++)
            REQUIRE(got.v[j] == known[i].want[j] && again[j] == known[i].want[j], "vector %d word %d: %08x and %08x, want %08x", i, j,
                    got.v[j], again[j], known[i].want[j]);
    }
    static const uint64_t seeds[] = {0, 1, 0x123456789abcdef0u, UINT64_MAX};
    static const int64_t places[] = {0, 1, 2, 3, 4, 5, 1023, ((int64_t)1 << 34) - 1, (int64_t)1 << 34, ((int64_t)1 << 34) + 6, ((int64_t)1 << 60) - 1};
    static const float ps[] = {0, 0.1f, 0.5f, 0.99f, 0x1.fffffep-1f};
    for (int s = 0; s < 4; s++)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++)
            for (int p = 0; p < 5; p++)
                REQUIRE((fb_dropout_keeps(seeds[s], fb_dropout_threshold(ps[p]), places[i]) != 0) == check_keeps(seeds[s], ps[p], places[i]),
                        "seed %llx, element %lld, p %g", (unsigned long long)seeds[s], (long long)places[i], (double)ps[p]);
}

/* How many are dropped, and how many pairs a given distance apart are both: binomial, within 5 standard deviations. */
static void dropout_statistics(void)
{
    static const float ps[] = {0.05f, 0.1f, 0.5f, 0.9f};
    static const int64_t distances[] = {1, 2, 3, 4, 64, 4096};
    const int64_t n = 200000;
    uint8_t *drop = malloc((size_t)n);
    if (!drop) exit(2);
    for (int i = 0; i < 4; i++) {
        const double p = (double)ps[i];
        int64_t dropped = 0, other_seed = 0;
        for (int64_t j = 0; j < n; j++) {
            drop[j] = !fb_dropout_keeps(77, fb_dropout_threshold(ps[i]), j);
            dropped += drop[j];
            other_seed += drop[j] && !fb_dropout_keeps(78, fb_dropout_threshold(ps[i]), j);
        }
        REQUIRE(fabs((double)dropped - p * (double)n) < 5 * sqrt((double)n * p * (1 - p)), "p %g: %lld of %lld dropped", p, (long long)dropped, (long long)n);
        REQUIRE(fabs((double)other_seed - p * p * (double)n) < 5 * sqrt((double)n * p * p * (1 - p * p)), "seeds 77 and 78 drop %lld of the same", (long long)other_seed);
        for (int d = 0; d < 6; d++) {
            int64_t both = 0, pairs = n - distances[d];
            for (int64_t j = 0; j < pairs; j++) both += drop[j] && drop[j + distances[d]];
            REQUIRE(fabs((double)both - p * p * (double)pairs) < 6 * sqrt((double)pairs * p * p), "p %g: %lld pairs %lld apart", p, (long long)both, (long long)distances[d]);
        }
    }
    free(drop);
}

/* The mask itself, read off U (x = powers of two, A = 1), dA and dX (W = 0, one row at a time), bit for bit. */
static void same_mask_in_both_passes(void)
{
    enum { K = 21, M = 9 };
    fb_case c = usual;
    c.rows = 5, c.cols = K, c.m = M;
    layer l;
    layer_new(&l, &c, 1, 0.5f, FB_F32, INPUT_GAUSSIAN);
    l.lora.scale = 0.5f; /* f = 1 */
    memset(l.w.m.absmax, 0, l.w.absmax.bytes);
    float *x = (float *)l.x.data, *a = (float *)l.a.data, *b = (float *)l.b.data, *dy = (float *)l.dy.data;
    for (int i = 0; i < M * K; i++) x[i] = (float)(1 << i % K);
    for (int i = 0; i < K; i++) a[i] = 1;
    for (int i = 0; i < 5; i++) b[i] = 1;
    forward(&l, "mask", false, 0);
    for (int row = 0; row < M; row++) {
        uint32_t want = 0, from_da = 0, from_dx = 0;
        for (int k = 0; k < K; k++) want |= (uint32_t)check_keeps(l.lora.seed, 0.5f, row * K + k) << k;
        for (int i = 0; i < M * 5; i++) dy[i] = i / 5 == row;
        backward(&l, "mask", false, true, 0);
        for (int k = 0; k < K; k++) {
            from_da |= (uint32_t)(((const float *)l.da.data)[k] != 0) << k;
            from_dx |= (uint32_t)(((const float *)l.dx.data)[row * K + k] != 0) << k;
        }
        const float u = ((const float *)l.u.data)[row];
        REQUIRE(u == (float)want && from_da == want && from_dx == want, "row %d kept %06x; U says %06x, dA %06x, dX %06x", row, want,
                (uint32_t)u, from_da, from_dx);
    }
    layer_free(&l);
}

/* ---- gradients ---------------------------------------------------------------------------- */

static double loss(layer *l)
{
    double sum = 0;
    forward(l, "loss", false, 0);
    for (int64_t i = 0; i < l->m * l->w.m.rows; i++) sum += (double)((const float *)l->y.data)[i] * (double)((const float *)l->dy.data)[i];
    return sum;
}

/* d(sum of Y * dY) / dz by central difference: Y is linear in each of A, B and X, so it is exact but for rounding. With
 * magnitudes near 1 and 160 terms Y errs by some 1e-5, the sum over 432 elements by 1e-3 at most; the step is 8. */
static void expect_gradient(layer *l, float *z, double got, const char *what, int64_t i)
{
    const float before = *z, step = 8;
    *z = before + step;
    double high = loss(l);
    *z = before - step;
    double low = loss(l);
    *z = before;
    double want = (high - low) / (2 * (double)step), bound = 1e-3 + 1e-5 * fabs(want);
    REQUIRE(!(fabs(got - want) > bound), "%s[%lld] is %g; finite differences give %g", what, (long long)i, got, want);
}

static void finite_differences(void)
{
    layer l;
    layer_new(&l, &usual, 4, 0.25f, FB_F32, INPUT_GAUSSIAN);
    l.lora.scale = 1;
    (void)loss(&l);
    backward(&l, "gradients", false, true, 0);
    for (int64_t i = 0; i < 24; i++) {
        const int64_t k = i * 37 % (4 * usual.cols), n = i * 29 % (4 * usual.rows), j = i * 53 % (l.m * usual.cols);
        expect_gradient(&l, (float *)l.a.data + k, (double)((const float *)l.da.data)[k], "dA", k);
        expect_gradient(&l, (float *)l.b.data + n, (double)((const float *)l.db.data)[n], "dB", n);
        expect_gradient(&l, (float *)l.x.data + j, (double)((const float *)l.dx.data)[j], "dX", j);
    }
    layer_free(&l);
}

/* Without dX: the same dA and dB, and dx is not touched. */
static void no_dx(void)
{
    layer l;
    layer_new(&l, &usual, 8, 0.1f, FB_F32, INPUT_GAUSSIAN);
    forward(&l, "no dX", false, 0);
    backward(&l, "no dX", false, true, 0);
    guard da = suite_buffer("da", FB_F32, 8 * usual.cols), db = suite_buffer("db", FB_F32, 8 * usual.rows);
    memcpy(da.data, l.da.data, da.bytes);
    memcpy(db.data, l.db.data, db.bytes);
    backward(&l, "no dX", false, false, 0);
    check_backward(&l, "no dX", false, false, true);
    EXPECT(check_same((check_place){"dA without dX", usual.cols, 0}, l.da.data, da.data, FB_F32, 8 * usual.cols));
    EXPECT(check_same((check_place){"dB without dX", 8, 0}, l.db.data, db.data, FB_F32, 8 * usual.rows));
    for (size_t i = 0; i < l.dx.bytes; i++)
        if (l.dx.data[i] != 0xff) {
            REQUIRE(false, "dX was not asked for and byte %zu was written", i);
            break;
        }
    guard_free(&da);
    guard_free(&db);
    layer_free(&l);
}

/* ---- threads, empty dimensions ---------------------------------------------------------------- */

static void threads(void)
{
    static const int64_t ms[] = {1, 4, 70};
    for (int i = 0; i < 3; i++) {
        fb_case c = {FB_OP_LORA_FORWARD, FB_NF4, 64, i == 1, 259, 1030, ms[i], FB_BF16, CASE_TEST, 0};
        layer l;
        layer_new(&l, &c, 16, 0.1f, FB_F32, INPUT_GAUSSIAN);
        guard *outs[] = {&l.u, &l.y, &l.da, &l.db, &l.dx}, first[5];
        for (int count = 0; count <= 3; count++) {
            forward(&l, "threads", true, count ? count : 1);
            backward(&l, "threads", true, true, count ? count : 1);
            for (int j = 0; j < 5; j++) {
                if (count) EXPECT(check_bytes((check_place){outs[j]->name, 0, 0}, outs[j]->data, first[j].data, (int64_t)outs[j]->bytes));
                else first[j] = guard_new(outs[j]->name, outs[j]->bytes, GUARD_END, 1), memcpy(first[j].data, outs[j]->data, outs[j]->bytes);
            }
        }
        for (int j = 0; j < 5; j++) guard_free(&first[j]);
        layer_free(&l);
    }
}

/* No rows, no columns, no activations: what is left are sums of nothing. */
static void empty_dimensions(void)
{
    static const struct { int64_t rows, cols, m; } shapes[] = {{0, 70, 3}, {5, 0, 3}, {5, 70, 0}, {0, 0, 3}};
    for (int i = 0; i < 4; i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            fb_case c = usual;
            c.rows = shapes[i].rows, c.cols = shapes[i].cols, c.m = shapes[i].m;
            layer l;
            layer_new(&l, &c, 4, 0.1f, FB_F32, INPUT_GAUSSIAN);
            both_passes(&l, "empty", accumulate, false);
            layer_free(&l);
        }
}

static const suite_test tests[] = {{"every_case", every_case}, {"dropped_tiles", dropped_tiles}, {"every_input", every_input}, {"end_to_end", end_to_end},
                                   {"b_is_zero", b_is_zero}, {"reference_bits", reference_bits}, {"philox_vectors", philox_vectors},
                                   {"dropout_statistics", dropout_statistics}, {"same_mask_in_both_passes", same_mask_in_both_passes},
                                   {"finite_differences", finite_differences}, {"no_dx", no_dx}, {"threads", threads},
                                   {"empty_dimensions", empty_dimensions}, {NULL, NULL}};
const suite suite_lora = {"lora", "a layer with an adapter, forward and backward, within the derived bounds", true, tests};
