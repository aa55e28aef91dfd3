/* test_api.c: bad arguments. Each gives the right status and a message that names the
 * argument, and leaves every output as it was; sizes of zero do nothing; concurrent calls. */
#include "suite.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 6, COLS = 70, N = ROWS * COLS, BLOCKS = (N + 63) / 64, M = 3 };

/* Everything any call needs, valid; a test spoils one thing. */
typedef struct world {
    fb_context ctx;
    guarded_matrix w, nested, affine;
    guard src, dst, x, y, bias, codes8, absmax8, moments, workspace;
} world;

static void world_new(world *v)
{
    memset(v, 0, sizeof *v);
    v->ctx = suite_context();
    gm_new(&v->w, FB_NF4, ROWS, COLS, 64, false);
    gm_new(&v->nested, FB_NF4, ROWS, COLS, 64, true);
    gm_new(&v->affine, FB_INT4_AFFINE, ROWS, COLS, 64, false);
    v->src = suite_buffer("src", FB_F32, N);
    v->dst = suite_buffer("dst", FB_F32, N);
    v->x = suite_buffer("x", FB_F32, M * COLS);
    v->y = suite_buffer("y", FB_F32, M * COLS);
    v->bias = suite_buffer("bias", FB_F32, ROWS);
    v->codes8 = suite_buffer("codes8", FB_F32, N);
    v->absmax8 = suite_buffer("absmax8", FB_F32, N);
    v->moments = suite_buffer("moments", FB_F32, 2);
    v->workspace = guard_new("workspace", 1 << 20, GUARD_END, 64);
    input_fill(INPUT_GAUSSIAN, 81, 64, v->src.data, FB_F32, N);
    v->ctx.workspace = v->workspace.data;
    v->ctx.workspace_bytes = v->workspace.bytes;
}

static bool is_poison(const guard *g)
{
    for (size_t i = 0; i < g->bytes; i++)
        if (g->data[i] != 0xff) return false;
    return true;
}

static void world_free(world *v)
{
    guard *all[] = {&v->src, &v->dst, &v->x, &v->y, &v->bias, &v->codes8, &v->absmax8, &v->moments, &v->workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) guard_free(all[i]);
    gm_free(&v->w);
    gm_free(&v->nested);
    gm_free(&v->affine);
}

/* After a rejected call: the status, the word in the message, every output untouched. */
static void expect_rejected(world *v, fb_status got, fb_status want, const char *word, const char *call, int line)
{
    suite_require(got == want, __FILE__, line, "%s: %s, want %s", call, fb_status_name(got), fb_status_name(want));
    suite_require(strstr(v->ctx.message, word) != NULL, __FILE__, line, "%s: message \"%s\" does not name \"%s\"", call,
                  v->ctx.message, word);
    const guard *outputs[] = {&v->w.codes, &v->w.absmax, &v->nested.codes, &v->nested.absmax_codes, &v->nested.nested_absmax,
                              &v->nested.nested_offset, &v->affine.codes, &v->affine.absmax, &v->affine.zero_points, &v->dst,
                              &v->y, &v->codes8, &v->absmax8, &v->moments};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        suite_require(is_poison(outputs[i]), __FILE__, line, "%s: %s was written", call, outputs[i]->name);
}

#define REJECTED_AS(status, word, call)                                   \
    do {                                                                  \
        memset(v.ctx.message, 0, sizeof v.ctx.message);                   \
        expect_rejected(&v, (call), (status), (word), #call, __LINE__);   \
    } while (0)
#define REJECTED(word, call) REJECTED_AS(FB_INVALID_ARGUMENT, word, call)

/* The call with one field changed, and the field restored. */
#define WITH(lvalue, value, statement)              \
    do {                                            \
        __typeof__(lvalue) with_saved = (lvalue);   \
        (lvalue) = (value);                         \
        statement;                                  \
        (lvalue) = with_saved;                      \
    } while (0)

static void *odd(void *p) { return (uint8_t *)p + 1; }

static void quantize_dequantize(void)
{
    world v;
    world_new(&v);
    fb_matrix *w = &v.w.m, *nested = &v.nested.m, *affine = &v.affine.m;
    void *src = v.src.data, *dst = v.dst.data;
    REJECTED("is NULL", fb_quantize(&v.ctx, src, FB_F32, NULL));
    REJECTED("src", fb_quantize(&v.ctx, NULL, FB_F32, w));
    REJECTED("src", fb_quantize(&v.ctx, odd(src), FB_F32, w));
    REJECTED("src", fb_quantize(&v.ctx, odd(src), FB_BF16, w));
    REJECTED("src_dtype", fb_quantize(&v.ctx, src, (fb_dtype)3, w));
    REJECTED("src_dtype", fb_quantize(&v.ctx, src, (fb_dtype)-1, w));
    REJECTED("is NULL", fb_dequantize(&v.ctx, NULL, dst, FB_F32));
    REJECTED("dst", fb_dequantize(&v.ctx, w, NULL, FB_F32));
    REJECTED("dst", fb_dequantize(&v.ctx, w, odd(dst), FB_F16));
    REJECTED("dst_dtype", fb_dequantize(&v.ctx, w, dst, (fb_dtype)77));
    for (int i = 0; i < 2; i++) {
#define BOTH(word) \
    if (i) REJECTED(word, fb_quantize(&v.ctx, src, FB_F32, m)); \
    else REJECTED(word, fb_dequantize(&v.ctx, m, dst, FB_F32))
        fb_matrix *m = w;
        WITH(m->format, (fb_format)4, BOTH("format"));
        WITH(m->format, (fb_format)-1, BOTH("format"));
        static const int32_t bad_blocks[] = {0, -64, 1, 16, 48, 63, 8192, INT32_MIN, INT32_MAX};
        for (size_t b = 0; b < sizeof bad_blocks / sizeof *bad_blocks; b++) WITH(m->block_size, bad_blocks[b], BOTH("block_size"));
        WITH(m->rows, -1, BOTH("rows"));
        WITH(m->cols, INT64_MIN, BOTH("cols"));
        WITH(m->cols, INT64_MAX, BOTH("cols"));
        WITH(m->rows, (int64_t)1 << 59, BOTH("rows * cols"));
        WITH(m->codes, NULL, BOTH("codes"));
        WITH(m->absmax, NULL, BOTH("absmax"));
        WITH(m->absmax, odd(m->absmax), BOTH("absmax"));
        m = affine;
        WITH(m->zero_points, NULL, BOTH("zero_points"));
        m = nested;
        WITH(m->absmax_codes, NULL, BOTH("absmax_codes"));
        WITH(m->nested_absmax, NULL, BOTH("nested_absmax"));
        WITH(m->nested_absmax, odd(m->nested_absmax), BOTH("nested_absmax"));
        WITH(m->nested_offset, NULL, BOTH("nested_offset"));
        WITH(m->nested_offset, odd(m->nested_offset), BOTH("nested_offset"));
        WITH(m->codebook, odd(src), BOTH("codebook"));
        WITH(m->nested_codebook, odd(src), BOTH("nested_codebook"));
#undef BOTH
    }
    WITH(nested->codebook, (float *)src, REJECTED("codebook", fb_quantize(&v.ctx, src, FB_F32, nested)));
    WITH(nested->nested_codebook, (float *)src, REJECTED("nested_codebook", fb_quantize(&v.ctx, src, FB_F32, nested)));
    world_free(&v);
}

static void contexts_and_workspace(void)
{
    world v;
    world_new(&v);
    fb_matrix *w = &v.w.m, *nested = &v.nested.m;
    void *src = v.src.data;
    size_t bytes = 12345, needed = 0;
    REQUIRE(fb_quantize(NULL, src, FB_F32, w) == FB_INVALID_ARGUMENT, "NULL context");
    REQUIRE(fb_backend_available(NULL) == FB_INVALID_ARGUMENT, "NULL context");
    REJECTED("m is", fb_workspace_size(&v.ctx, FB_OP_GEMM, w, -1, FB_F32, &bytes));
    REJECTED("op", fb_workspace_size(&v.ctx, (fb_op)9, w, 1, FB_F32, &bytes));
    REJECTED("dtype", fb_workspace_size(&v.ctx, FB_OP_GEMM, w, 1, (fb_dtype)9, &bytes));
    REJECTED("bytes", fb_workspace_size(&v.ctx, FB_OP_GEMM, w, 1, FB_F32, NULL));
    REJECTED("NULL", fb_workspace_size(&v.ctx, FB_OP_GEMM, NULL, 1, FB_F32, &bytes));
    REQUIRE(bytes == 12345, "a rejected size query wrote %zu", bytes);
    WITH(v.ctx.backend, FB_BACKEND_COUNT, REJECTED("backend", fb_quantize(&v.ctx, src, FB_F32, w)));
    WITH(v.ctx.backend, (fb_backend)-1, REJECTED("backend", fb_backend_available(&v.ctx)));
    WITH(v.ctx.threads, -1, REJECTED("threads", fb_quantize(&v.ctx, src, FB_F32, w)));

    REQUIRE(fb_workspace_size(&v.ctx, FB_OP_QUANTIZE, nested, 0, FB_F32, &needed) == FB_OK && needed >= BLOCKS * sizeof(float),
            "%zu bytes", needed);
    char number[32];
    snprintf(number, sizeof number, "%zu", needed);
    WITH(v.ctx.workspace, NULL, REJECTED_AS(FB_WORKSPACE_TOO_SMALL, number, fb_quantize(&v.ctx, src, FB_F32, nested)));
    WITH(v.ctx.workspace_bytes, needed - 1, REJECTED_AS(FB_WORKSPACE_TOO_SMALL, number, fb_quantize(&v.ctx, src, FB_F32, nested)));
    WITH(v.ctx.workspace, odd(v.ctx.workspace), REJECTED("workspace", fb_quantize(&v.ctx, src, FB_F32, nested)));
    fb_op products[] = {FB_OP_GEMM, FB_OP_GEMM_DX};
    for (int i = 0; i < 2; i++) {
        REQUIRE(fb_workspace_size(&v.ctx, products[i], w, M, FB_F32, &needed) == FB_OK, "%s", v.ctx.message);
        if (needed == 0) continue; /* this backend's product needs none */
        WITH(v.ctx.workspace_bytes, needed - 1,
             REJECTED_AS(FB_WORKSPACE_TOO_SMALL, "workspace",
                         i ? fb_gemm_dx(&v.ctx, w, M, v.x.data, FB_F32, v.y.data, FB_F32, false)
                           : fb_gemm(&v.ctx, w, M, v.x.data, FB_F32, NULL, v.y.data, FB_F32)));
    }
    world_free(&v);
}

static void products(void)
{
    world v;
    world_new(&v);
    fb_matrix *w = &v.w.m;
    void *x = v.x.data, *y = v.y.data, *bias = v.bias.data;
#define GEMM(w, m, x, xt, bias, y, yt) fb_gemm(&v.ctx, w, m, x, xt, bias, y, yt)
#define DX(w, m, dy, dyt, dx, dxt) fb_gemm_dx(&v.ctx, w, m, dy, dyt, dx, dxt, false)
    REJECTED("NULL", GEMM(NULL, M, x, FB_F32, bias, y, FB_F32));
    REJECTED("m is", GEMM(w, -1, x, FB_F32, bias, y, FB_F32));
    REJECTED("m ", GEMM(w, INT64_MAX, x, FB_F32, bias, y, FB_F32));
    REJECTED("m *", GEMM(w, (int64_t)1 << 58, x, FB_F32, bias, y, FB_F32));
    REJECTED("x is", GEMM(w, M, NULL, FB_F32, bias, y, FB_F32));
    REJECTED("x is", GEMM(w, M, odd(x), FB_BF16, bias, y, FB_F32));
    REJECTED("x_dtype", GEMM(w, M, x, (fb_dtype)3, bias, y, FB_F32));
    REJECTED("bias", GEMM(w, M, x, FB_F32, odd(bias), y, FB_F32));
    REJECTED("y is", GEMM(w, M, x, FB_F32, bias, NULL, FB_F32));
    REJECTED("y is", GEMM(w, M, x, FB_F32, bias, odd(y), FB_F16));
    REJECTED("y_dtype", GEMM(w, M, x, FB_F32, bias, y, (fb_dtype)3));
    WITH(w->codes, NULL, REJECTED("codes", GEMM(w, M, x, FB_F32, bias, y, FB_F32)));
    WITH(w->block_size, 65, REJECTED("block_size", GEMM(w, M, x, FB_F32, bias, y, FB_F32)));
    REJECTED("NULL", DX(NULL, M, x, FB_F32, y, FB_F32));
    REJECTED("m is", DX(w, -5, x, FB_F32, y, FB_F32));
    REJECTED("m *", DX(w, (int64_t)1 << 58, x, FB_F32, y, FB_F32));
    REJECTED("dy is", DX(w, M, NULL, FB_F32, y, FB_F32));
    REJECTED("dy is", DX(w, M, odd(x), FB_F32, y, FB_F32));
    REJECTED("dy_dtype", DX(w, M, x, (fb_dtype)3, y, FB_F32));
    REJECTED("dx is", DX(w, M, x, FB_F32, NULL, FB_F32));
    REJECTED("dx is", DX(w, M, x, FB_F32, odd(y), FB_BF16));
    REJECTED("dx_dtype", DX(w, M, x, FB_F32, y, (fb_dtype)-2));
    WITH(w->format, (fb_format)12, REJECTED("format", DX(w, M, x, FB_F32, y, FB_F32)));
    REQUIRE(fb_gemm_weights(NULL, w, 1, FB_F32) == FB_WEIGHTS_ROUNDED, "a NULL context gives some answer");
    world_free(&v);
}

/* LoRA: an adapter of rank 2 in src, U in codes8, gradients in dst and absmax8. */
static void lora(void)
{
    world v;
    world_new(&v);
    fb_matrix *w = &v.w.m;
    void *x = v.x.data, *y = v.y.data, *bias = v.bias.data, *u = v.codes8.data;
    float *da = (float *)v.dst.data, *db = (float *)v.absmax8.data;
    fb_lora adapter = {.rank = 2, .scale = 1, .dropout = 0.1f, .seed = 1, .a = v.src.data, .b = v.src.data};
    const fb_lora *good = &adapter;
#define FORWARD(w, lora, m, x, xt, bias, y, yt, u) fb_lora_forward(&v.ctx, w, lora, m, x, xt, bias, y, yt, u)
#define BACKWARD(w, lora, m, x, u, dy, t, dx, dxt, da, db) \
    fb_lora_backward(&v.ctx, w, lora, m, x, u, dy, t, dx, dxt, false, da, db, false)
#define EITHER(word) \
    REJECTED(word, FORWARD(w, good, M, x, FB_F32, bias, y, FB_F32, u)); \
    REJECTED(word, BACKWARD(w, good, M, x, x, x, FB_F32, y, FB_F32, da, db))
    WITH(good, NULL, EITHER("lora is NULL"));
    static const int32_t ranks[] = {0, -1, 257, INT32_MIN, INT32_MAX};
    for (int i = 0; i < 5; i++) WITH(adapter.rank, ranks[i], EITHER("lora->rank"));
    static const float dropouts[] = {-0.1f, 1, 1.5f, NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) WITH(adapter.dropout, dropouts[i], EITHER("lora->dropout"));
    static const float scales[] = {NAN, INFINITY, -INFINITY, 3.4e38f};
    for (int i = 0; i < 4; i++) WITH(adapter.scale, scales[i], EITHER("lora->scale"));
    WITH(adapter.a, NULL, EITHER("lora->a"));
    WITH(adapter.a, odd(v.src.data), EITHER("lora->a"));
    WITH(adapter.b, NULL, EITHER("lora->b"));
    WITH(adapter.b, odd(v.src.data), EITHER("lora->b"));
    WITH(w->codes, NULL, EITHER("codes"));
    WITH(w->format, (fb_format)4, EITHER("format"));
    WITH(w->cols, (int64_t)1 << 59, EITHER("rows * cols"));
    WITH(w, NULL, EITHER("w is NULL"));
#undef EITHER
    REJECTED("m is", FORWARD(w, good, -1, x, FB_F32, bias, y, FB_F32, u));
    REJECTED("m *", FORWARD(w, good, (int64_t)1 << 58, x, FB_F32, bias, y, FB_F32, u));
    REJECTED("x is", FORWARD(w, good, M, NULL, FB_F32, bias, y, FB_F32, u));
    REJECTED("x is", FORWARD(w, good, M, odd(x), FB_BF16, bias, y, FB_F32, u));
    REJECTED("x_dtype", FORWARD(w, good, M, x, (fb_dtype)3, bias, y, FB_F32, u));
    REJECTED("bias", FORWARD(w, good, M, x, FB_F32, odd(bias), y, FB_F32, u));
    REJECTED("y is", FORWARD(w, good, M, x, FB_F32, bias, NULL, FB_F32, u));
    REJECTED("y_dtype", FORWARD(w, good, M, x, FB_F32, bias, y, (fb_dtype)3, u));
    REJECTED("u is", FORWARD(w, good, M, x, FB_F32, bias, y, FB_F32, NULL));
    REJECTED("u is", FORWARD(w, good, M, x, FB_F32, bias, y, FB_F32, odd(u)));
    REJECTED("m is", BACKWARD(w, good, -1, x, x, x, FB_F32, y, FB_F32, da, db));
    REJECTED("x is", BACKWARD(w, good, M, NULL, x, x, FB_F32, y, FB_F32, da, db));
    REJECTED("u is", BACKWARD(w, good, M, x, NULL, x, FB_F32, y, FB_F32, da, db));
    REJECTED("u is", BACKWARD(w, good, M, x, odd(x), x, FB_F16, y, FB_F32, da, db));
    REJECTED("dy is", BACKWARD(w, good, M, x, x, NULL, FB_F32, y, FB_F32, da, db));
    REJECTED("dtype", BACKWARD(w, good, M, x, x, x, (fb_dtype)-1, y, FB_F32, da, db));
    REJECTED("dx is", BACKWARD(w, good, M, x, x, x, FB_F32, odd(y), FB_F32, da, db));
    REJECTED("dx_dtype", BACKWARD(w, good, M, x, x, x, FB_F32, y, (fb_dtype)9, da, db));
    REJECTED("da is", BACKWARD(w, good, M, x, x, x, FB_F32, y, FB_F32, NULL, db));
    REJECTED("da is", BACKWARD(w, good, M, x, x, x, FB_F32, y, FB_F32, (float *)odd(da), db));
    REJECTED("db is", BACKWARD(w, good, M, x, x, x, FB_F32, y, FB_F32, da, NULL));
    size_t bytes = 12345, needed = 0;
#define SIZE(op, w, rank, m, t, bytes) fb_lora_workspace_size(&v.ctx, op, w, rank, m, t, bytes)
    REJECTED("op is", SIZE(FB_OP_GEMM, w, 2, M, FB_F32, &bytes));
    REJECTED("op is", SIZE((fb_op)99, w, 2, M, FB_F32, &bytes));
    REJECTED("w is NULL", SIZE(FB_OP_LORA_FORWARD, NULL, 2, M, FB_F32, &bytes));
    REJECTED("rank is", SIZE(FB_OP_LORA_FORWARD, w, 0, M, FB_F32, &bytes));
    REJECTED("m is", SIZE(FB_OP_LORA_FORWARD, w, 2, -M, FB_F32, &bytes));
    REJECTED("dtype", SIZE(FB_OP_LORA_FORWARD, w, 2, M, (fb_dtype)3, &bytes));
    REJECTED("bytes", SIZE(FB_OP_LORA_FORWARD, w, 2, M, FB_F32, NULL));
    REJECTED("fb_lora_workspace_size", fb_workspace_size(&v.ctx, FB_OP_LORA_FORWARD, w, M, FB_F32, &bytes));
    REJECTED("fb_lora_workspace_size", fb_workspace_size(&v.ctx, FB_OP_LORA_BACKWARD, w, M, FB_F32, &bytes));
    fb_matrix wide = *w; /* rank * cols beyond 2^60 where rows * cols is not */
    wide.rows = 1, wide.cols = (int64_t)1 << 54;
    REJECTED("cols * rank", SIZE(FB_OP_LORA_FORWARD, &wide, 64, 1, FB_F32, &bytes));
    REQUIRE(bytes == 12345, "a rejected size query wrote %zu", bytes);
    REQUIRE(SIZE(FB_OP_LORA_BACKWARD, w, 2, M, FB_F32, &needed) == FB_OK, "%s", v.ctx.message);
    if (needed)
        WITH(v.ctx.workspace_bytes, needed - 1,
             REJECTED_AS(FB_WORKSPACE_TOO_SMALL, "workspace", BACKWARD(w, good, M, x, x, x, FB_F32, y, FB_F32, da, db)));
    REQUIRE(fb_lora_weights(NULL, FB_OP_LORA_FORWARD, w, 2, 1, FB_F32) == FB_WEIGHTS_ROUNDED, "a NULL context gives some answer");
    REQUIRE(FORWARD(w, good, 0, NULL, FB_F32, NULL, NULL, FB_F32, NULL) == FB_OK, "m = 0: %s", v.ctx.message);
    REQUIRE(fb_lora_backward(&v.ctx, w, good, 0, NULL, NULL, NULL, FB_F32, NULL, FB_F32, false, da, db, true) == FB_OK, "m = 0: %s", v.ctx.message);
    world_free(&v);
}

static void eight_bits_and_moments(void)
{
    world v;
    world_new(&v);
    float *src = (float *)v.src.data, *absmax = (float *)v.absmax8.data, *moments = (float *)v.moments.data;
    uint8_t *codes = v.codes8.data;
    void *dst = v.dst.data;
#define Q8(map, x, t, n, block, codes, absmax) fb_quantize8(&v.ctx, map, x, t, n, block, codes, absmax)
#define D8(map, codes, absmax, n, block, y, t) fb_dequantize8(&v.ctx, map, codes, absmax, n, block, y, t)
    REJECTED("map", Q8((fb_map8)2, src, FB_F32, N, 64, codes, absmax));
    REJECTED("src is", Q8(FB_MAP_SIGNED, NULL, FB_F32, N, 64, codes, absmax));
    REJECTED("src is", Q8(FB_MAP_SIGNED, odd(src), FB_F32, N, 64, codes, absmax));
    REJECTED("src_dtype", Q8(FB_MAP_SIGNED, src, (fb_dtype)5, N, 64, codes, absmax));
    REJECTED("n is", Q8(FB_MAP_SIGNED, src, FB_F32, -1, 64, codes, absmax));
    REJECTED("n is", Q8(FB_MAP_SIGNED, src, FB_F32, INT64_MAX, 64, codes, absmax));
    REJECTED("block_size", Q8(FB_MAP_SIGNED, src, FB_F32, N, 100, codes, absmax));
    REJECTED("codes", Q8(FB_MAP_SIGNED, src, FB_F32, N, 64, NULL, absmax));
    REJECTED("absmax", Q8(FB_MAP_SIGNED, src, FB_F32, N, 64, codes, NULL));
    REJECTED("absmax", Q8(FB_MAP_SIGNED, src, FB_F32, N, 64, codes, odd(absmax)));
    REJECTED("map", D8((fb_map8)-1, codes, src, N, 64, dst, FB_F32));
    REJECTED("n is", D8(FB_MAP_SIGNED, codes, src, -1, 64, dst, FB_F32));
    REJECTED("block_size", D8(FB_MAP_SIGNED, codes, src, N, 0, dst, FB_F32));
    REJECTED("codes", D8(FB_MAP_SIGNED, NULL, src, N, 64, dst, FB_F32));
    REJECTED("absmax", D8(FB_MAP_SIGNED, codes, NULL, N, 64, dst, FB_F32));
    REJECTED("dst is", D8(FB_MAP_SIGNED, codes, src, N, 64, NULL, FB_F32));
    REJECTED("dst_dtype", D8(FB_MAP_SIGNED, codes, src, N, 64, dst, (fb_dtype)3));
    REJECTED("src is", fb_normalize(&v.ctx, NULL, FB_F32, N, dst, FB_F32, moments));
    REJECTED("src_dtype", fb_normalize(&v.ctx, src, (fb_dtype)3, N, dst, FB_F32, moments));
    REJECTED("dst is", fb_normalize(&v.ctx, src, FB_F32, N, NULL, FB_F32, moments));
    REJECTED("dst_dtype", fb_normalize(&v.ctx, src, FB_F32, N, dst, (fb_dtype)3, moments));
    REJECTED("n is", fb_normalize(&v.ctx, src, FB_F32, -7, dst, FB_F32, moments));
    REJECTED("moments", fb_normalize(&v.ctx, src, FB_F32, N, dst, FB_F32, NULL));
    REJECTED("src is", fb_denormalize(&v.ctx, odd(src), FB_F16, N, moments, dst, FB_F32));
    REJECTED("dst is", fb_denormalize(&v.ctx, src, FB_F32, N, moments, odd(dst), FB_F32));
    REJECTED("moments", fb_denormalize(&v.ctx, src, FB_F32, N, NULL, dst, FB_F32));
    world_free(&v);
}

static void nested_absmax(void)
{
    world v;
    world_new(&v);
    float *absmax = (float *)v.src.data, *nested = (float *)v.absmax8.data, *offset = (float *)v.moments.data;
    uint8_t *codes = v.codes8.data;
#define DQ(a, n, c, na, o) fb_double_quantize(&v.ctx, a, n, c, na, o)
#define DECODE(c, na, o, map, n, a) fb_decode_absmax(&v.ctx, c, na, o, map, n, a)
    REJECTED("absmax is", DQ(NULL, N, codes, nested, offset));
    REJECTED("absmax is", DQ(odd(absmax), N, codes, nested, offset));
    REJECTED("n is", DQ(absmax, -1, codes, nested, offset));
    REJECTED("absmax_codes", DQ(absmax, N, NULL, nested, offset));
    REJECTED("nested_absmax", DQ(absmax, N, codes, NULL, offset));
    REJECTED("nested_offset", DQ(absmax, N, codes, nested, NULL));
    REJECTED("absmax_codes", DECODE(NULL, absmax, absmax, NULL, N, nested));
    REJECTED("nested_absmax", DECODE(codes, NULL, absmax, NULL, N, nested));
    REJECTED("nested_offset", DECODE(codes, absmax, NULL, NULL, N, nested));
    REJECTED("nested_codebook", DECODE(codes, absmax, absmax, odd(absmax), N, nested));
    REJECTED("n is", DECODE(codes, absmax, absmax, NULL, INT64_MIN, nested));
    REJECTED("absmax is", DECODE(codes, absmax, absmax, NULL, N, NULL));
    world_free(&v);
}

static void matrix_arithmetic(void)
{
    fb_matrix w, zero = {0};
    fb_matrix_sizes s;
    REQUIRE(fb_matrix_init(NULL, FB_NF4, 1, 1, 64, false) == FB_INVALID_ARGUMENT, "NULL matrix");
    struct { fb_format f; int64_t rows, cols; int32_t block; } bad[] = {
        {(fb_format)4, 1, 1, 64}, {FB_NF4, -1, 1, 64}, {FB_NF4, 1, -1, 64}, {FB_NF4, 1, 1, 0}, {FB_NF4, 1, 1, 96},
        {FB_NF4, INT64_MAX, INT64_MAX, 64}, {FB_NF4, (int64_t)1 << 32, (int64_t)1 << 32, 64}, {FB_NF4, 3, INT64_MAX / 2, 64}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&w, 0xff, sizeof w);
        REQUIRE(fb_matrix_init(&w, bad[i].f, bad[i].rows, bad[i].cols, bad[i].block, false) == FB_INVALID_ARGUMENT,
                "init accepts bad matrix %zu", i);
        REQUIRE(memcmp(&w, &zero, sizeof w) == 0, "a rejected matrix %zu is not all zero", i);
        REQUIRE(fb_matrix_get_sizes(&w, &s) == FB_INVALID_ARGUMENT && fb_matrix_bytes(&w) == 0, "an all-zero matrix has no sizes");
    }
    REQUIRE(fb_matrix_get_sizes(&w, NULL) == FB_INVALID_ARGUMENT, "NULL sizes");
    REQUIRE(fb_matrix_get_sizes(NULL, &s) == FB_INVALID_ARGUMENT && fb_matrix_bytes(NULL) == 0, "NULL matrix");

    REQUIRE(fb_matrix_init(&w, FB_INT4_AFFINE, 77, 333, 32, true) == FB_OK && fb_matrix_get_sizes(&w, &s) == FB_OK, "init");
    REQUIRE(s.elements == 25641 && s.blocks == 802 && s.nested_blocks == 4 && s.codes == 12821 && s.absmax == 0 &&
                s.absmax_codes == 802 && s.nested_absmax == 16 && s.nested_offset == 4 && s.zero_points == 802, "sizes of 77 x 333");
    REQUIRE(s.total == 12821 + 802 + 16 + 4 + 802, "total %zu", s.total);
    size_t bytes = fb_matrix_bytes(&w);
    REQUIRE(bytes >= s.total && bytes % 256 == 0, "%zu bytes for all", bytes);
    guard g = guard_new("matrix", bytes, GUARD_END, 256);
    REQUIRE(fb_matrix_bind(&w, g.data, bytes - 1) == FB_INVALID_ARGUMENT && !w.codes, "a short buffer is bound");
    REQUIRE(fb_matrix_bind(&w, NULL, bytes) == FB_INVALID_ARGUMENT, "NULL is bound");
    REQUIRE(fb_matrix_bind(&w, g.data + 1, bytes) == FB_INVALID_ARGUMENT, "an unaligned buffer is bound");
    REQUIRE(fb_matrix_bind(&w, g.data, bytes) == FB_OK, "bind");
    struct { const void *p; size_t n; } parts[] = {{w.codes, s.codes}, {w.absmax_codes, s.absmax_codes}, {w.nested_absmax, 16},
                                                   {w.nested_offset, 4}, {w.zero_points, s.zero_points}};
    for (int i = 0; i < 5; i++) {
        const uint8_t *p = parts[i].p;
        REQUIRE(p >= g.data && p + parts[i].n <= g.data + bytes && (uintptr_t)p % 256 == 0, "part %d lies outside or askew", i);
        for (int j = 0; j < i; j++) {
            const uint8_t *q = parts[j].p;
            REQUIRE(q + parts[j].n <= p || p + parts[i].n <= q, "parts %d and %d overlap", i, j);
        }
    }
    REQUIRE(!w.absmax, "a nested matrix has no fp32 absmax");
    guard_free(&g);
}

/* A dimension of 0: nothing is needed, nothing is done. */
static void sizes_of_zero(void)
{
    fb_context ctx = suite_context();
    for (int i = 0; i < 2; i++) {
        fb_matrix w;
        fb_matrix_sizes s;
        fb_matrix_init(&w, FB_INT4_AFFINE, i == 0 ? 0 : 5, i == 0 ? 7 : 0, 64, true);
        REQUIRE(fb_matrix_get_sizes(&w, &s) == FB_OK && s.total == 0 && s.bits_per_weight == 0 && fb_matrix_bytes(&w) == 0, "sizes");
        REQUIRE(fb_matrix_bind(&w, NULL, 0) == FB_OK, "bind nothing");
        REQUIRE(fb_quantize(&ctx, NULL, FB_BF16, &w) == FB_OK, "%s", ctx.message);
        REQUIRE(fb_dequantize(&ctx, &w, NULL, FB_BF16) == FB_OK, "%s", ctx.message);
        size_t bytes;
        for (int op = 0; op < FB_OP_LORA_FORWARD; op++)
            for (int64_t m = 0; m <= 33; m += 11)
                REQUIRE(fb_workspace_size(&ctx, (fb_op)op, &w, m, FB_BF16, &bytes) == FB_OK, "%s", ctx.message);
    }
    REQUIRE(fb_double_quantize(&ctx, NULL, 0, NULL, NULL, NULL) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_decode_absmax(&ctx, NULL, NULL, NULL, NULL, 0, NULL) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_quantize8(&ctx, FB_MAP_SIGNED, NULL, FB_F32, 0, 256, NULL, NULL) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_dequantize8(&ctx, FB_MAP_UNSIGNED, NULL, NULL, 0, 256, NULL, FB_F16) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_normalize(&ctx, NULL, FB_F32, 0, NULL, FB_F32, NULL) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_denormalize(&ctx, NULL, FB_F32, 0, NULL, NULL, FB_F32) == FB_OK, "%s", ctx.message);
    world v;
    world_new(&v);
    suite_random_matrix(&v.w, 82);
    REQUIRE(fb_gemm(&v.ctx, &v.w.m, 0, NULL, FB_F32, NULL, NULL, FB_F32) == FB_OK, "%s", v.ctx.message);
    REQUIRE(fb_gemm_dx(&v.ctx, &v.w.m, 0, NULL, FB_F32, NULL, FB_F32, true) == FB_OK, "%s", v.ctx.message);
    world_free(&v);
}

static void names(void)
{
    static const char *const statuses[] = {"FB_OK", "FB_INVALID_ARGUMENT", "FB_NONFINITE", "FB_WORKSPACE_TOO_SMALL",
                                           "FB_UNSUPPORTED", "FB_BACKEND_UNAVAILABLE", "FB_BACKEND_ERROR"};
    for (int i = 0; i < 7; i++)
        REQUIRE(strcmp(fb_status_name((fb_status)i), statuses[i]) == 0, "status %d is %s", i, fb_status_name((fb_status)i));
    REQUIRE(fb_status_name((fb_status)99) != NULL && fb_backend_name((fb_backend)99) != NULL, "names of nothing");
    REQUIRE(strcmp(fb_backend_name(FB_BACKEND_REFERENCE), "reference") == 0 && strcmp(fb_backend_name(FB_BACKEND_CPU), "cpu") == 0 &&
                strcmp(fb_backend_name(FB_BACKEND_CUDA), "cuda") == 0 && strcmp(fb_backend_name(FB_BACKEND_PLUGIN), "plugin") == 0,
            "names of backends");
    for (int b = 0; b < FB_BACKEND_COUNT; b++) {
        fb_context ctx;
        fb_context_init(&ctx, (fb_backend)b);
        bool available = fb_backend_available(&ctx) == FB_OK;
        REQUIRE(available == (fb_backend_variant((fb_backend)b)[0] != 0), "backend %d: available and its variant disagree", b);
        REQUIRE(available || ctx.message[0], "backend %d is unavailable and does not say why", b);
    }
}

/* ---- concurrent calls --------------------------------------------------------------------- */

typedef struct worker {
    guarded_matrix w;
    guard x, y, workspace;
    fb_context ctx;
    int failures;
} worker;

static void *work(void *user)
{
    worker *k = user;
    for (int i = 0; i < 20; i++) {
        guard_poison(&k->y);
        k->failures += fb_gemm(&k->ctx, &k->w.m, 2, k->x.data, FB_F32, NULL, k->y.data, FB_F32) != FB_OK;
        k->failures += fb_gemm(&k->ctx, &k->w.m, -1, k->x.data, FB_F32, NULL, k->y.data, FB_F32) != FB_INVALID_ARGUMENT;
        k->failures += strstr(k->ctx.message, "m is") == NULL;
    }
    return NULL;
}

static void concurrent_calls(void)
{
    enum { THREADS = 4 };
    worker workers[THREADS];
    pthread_t ids[THREADS];
    const int64_t rows = 130, cols = 520;
    for (int i = 0; i < THREADS; i++) {
        worker *k = &workers[i];
        memset(k, 0, sizeof *k);
        k->ctx = suite_context();
        k->ctx.threads = 1 + i % 2;
        gm_new(&k->w, FB_NF4, rows, cols, 64, false);
        suite_random_matrix(&k->w, 83);
        k->x = suite_buffer("x", FB_F32, 2 * cols);
        k->y = suite_buffer("y", FB_F32, 2 * rows);
        input_fill(INPUT_GAUSSIAN, 84, 64, k->x.data, FB_F32, 2 * cols);
        k->workspace = suite_workspace(&k->ctx, FB_OP_GEMM, &k->w.m, 2, FB_F32);
    }
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&ids[i], NULL, work, &workers[i]) == 0, "thread %d", i);
    for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        worker *k = &workers[i];
        REQUIRE(k->failures == 0, "thread %d: %d calls went wrong", i, k->failures);
        EXPECT(check_same((check_place){"concurrent", rows, 0}, k->y.data, workers[0].y.data, FB_F32, 2 * rows));
    }
    for (int i = 0; i < THREADS; i++) {
        guard_free(&workers[i].x);
        guard_free(&workers[i].y);
        guard_free(&workers[i].workspace);
        gm_free(&workers[i].w);
    }
}

/* A child of fork goes on where its parent was, though the threads that had helped are not there: the same bits, and no
 * waiting for them. Its own threads have helpers again. */
static void after_fork(void)
{
    worker k = {.ctx = suite_context()};
    const int64_t rows = 130, cols = 520;
    if (suite_backend == FB_BACKEND_CUDA) return; /* CUDA does not survive a fork */
    k.ctx.threads = 2;
    gm_new(&k.w, FB_NF4, rows, cols, 64, false);
    suite_random_matrix(&k.w, 85);
    k.x = suite_buffer("x", FB_F32, 2 * cols);
    k.y = suite_buffer("y", FB_F32, 2 * rows);
    guard before = suite_buffer("before", FB_F32, 2 * rows);
    input_fill(INPUT_GAUSSIAN, 86, 64, k.x.data, FB_F32, 2 * cols);
    k.workspace = suite_workspace(&k.ctx, FB_OP_GEMM, &k.w.m, 2, FB_F32);
    work(&k);
    memcpy(before.data, k.y.data, before.bytes);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        pthread_t id;
        alarm(60); /* the end of a wait */
        guard_poison(&k.y);
        work(&k);
        bool good = k.failures == 0 && memcmp(before.data, k.y.data, before.bytes) == 0;
        guard_poison(&k.y);
        good = good && pthread_create(&id, NULL, work, &k) == 0 && pthread_join(id, NULL) == 0;
        _exit(good && k.failures == 0 && memcmp(before.data, k.y.data, before.bytes) == 0 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "after a fork: status %d%s", status, WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ", it waited for threads" : "");
    guard *all[] = {&k.x, &k.y, &k.workspace, &before};
    for (int i = 0; i < 4; i++) guard_free(all[i]);
    gm_free(&k.w);
}

static const suite_test tests[] = {{"quantize_dequantize", quantize_dequantize},
                                   {"contexts_and_workspace", contexts_and_workspace},
                                   {"products", products},
                                   {"lora", lora},
                                   {"eight_bits_and_moments", eight_bits_and_moments},
                                   {"nested_absmax", nested_absmax},
                                   {"matrix_arithmetic", matrix_arithmetic},
                                   {"sizes_of_zero", sizes_of_zero},
                                   {"names", names},
                                   {"concurrent_calls", concurrent_calls},
                                   {"after_fork", after_fork},
                                   {NULL, NULL}};
const suite suite_api = {"api", "bad arguments are refused by name and nothing is written", true, tests};
