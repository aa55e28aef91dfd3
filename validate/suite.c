/* suite.c: helpers shared by the suites (suite.h). */
#include "suite.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

fb_backend suite_backend = FB_BACKEND_REFERENCE;
bool suite_update_golden = false;

/* The CUDA backend's report of a NaN. A report that no test expected is found by the next test that asks for a context. */
static uint64_t first_nonfinite = UINT64_MAX;

/* What the next call finds on its stack is NaN, not the zeros of a fresh page that would hide a read of what was not written. */
static __attribute__((noinline)) void dirty_stack(void)
{
    char garbage[1 << 16];
    memset(garbage, 0xff, sizeof garbage);
    __asm__ volatile("" : : "r"(garbage) : "memory"); /* somebody might look */
}

fb_context suite_context(void)
{
    fb_context ctx;
    dirty_stack();
    fb_context_init(&ctx, suite_backend);
    if (suite_backend == FB_BACKEND_CUDA) {
        if (CU_get_current_test()) REQUIRE(first_nonfinite == UINT64_MAX, "a call before this one reported a NaN or Inf at %llu",
                (unsigned long long)first_nonfinite);
        first_nonfinite = UINT64_MAX;
        ctx.first_nonfinite = &first_nonfinite;
    }
    return ctx;
}

bool suite_expect_nonfinite(const fb_context *ctx, fb_status status, const char *what, int64_t index)
{
    char place[64];
    snprintf(place, sizeof place, "%s[%lld]", what, (long long)index);
    if (suite_backend == FB_BACKEND_CUDA) {
        REQUIRE(status == FB_OK && first_nonfinite == (uint64_t)index, "want %s: %s \"%s\", reported %llu", place,
                fb_status_name(status), ctx->message, (unsigned long long)first_nonfinite);
        first_nonfinite = UINT64_MAX;
        return false;
    }
    REQUIRE(status == FB_NONFINITE && strstr(ctx->message, place), "want %s: %s \"%s\"", place, fb_status_name(status),
            ctx->message);
    return true;
}

double suite_scale(void)
{
#if defined(__SANITIZE_ADDRESS__)
    const double fallback = 0.25; /* instrumented code is 3 to 6 times slower */
#else
    const double fallback = 1.0;
#endif
    const char *text = getenv("FOURBIT_TEST_SCALE");
    double scale = text ? atof(text) : fallback;
    return scale > 0 && scale <= 1 ? scale : fallback;
}

/* CUnit keeps the text and prints it in its list of failures. A broken kernel fails
 * everywhere; the list stays readable if it is cut. */
enum { FAILURES_SHOWN = 10 };

void suite_expect(check_result result, const char *file, int line)
{
    static CU_pTest test;
    static int failures;
    if (CU_get_current_test() != test) {
        test = CU_get_current_test();
        failures = 0;
    }
    if (!result.ok && ++failures > FAILURES_SHOWN) {
        if (failures > FAILURES_SHOWN + 1) return;
        snprintf(result.text, sizeof result.text, "and more failures of this test, listed no further");
    }
    CU_assertImplementation(result.ok, (unsigned)line, result.text, file, "", CU_FALSE);
}

void suite_require(bool condition, const char *file, int line, const char *format, ...)
{
    check_result r = {.ok = condition};
    va_list args;
    va_start(args, format);
    vsnprintf(r.text, sizeof r.text, format, args);
    va_end(args);
    suite_expect(r, file, line);
}

/* ---- guarded matrices ------------------------------------------------------------------ */

void gm_new(guarded_matrix *g, fb_format format, int64_t rows, int64_t cols, int32_t block_size, bool double_quant)
{
    memset(g, 0, sizeof *g);
    if (fb_matrix_init(&g->m, format, rows, cols, block_size, double_quant) != FB_OK ||
        fb_matrix_get_sizes(&g->m, &g->sizes) != FB_OK) {
        fprintf(stderr, "gm_new: fb_matrix_init rejects a legal matrix\n");
        exit(2);
    }
    struct { guard *g; const char *name; size_t bytes, align; void **pointer; } parts[] = {
        {&g->codes, "codes", g->sizes.codes, 1, (void **)&g->m.codes},
        {&g->absmax, "absmax", g->sizes.absmax, 4, (void **)&g->m.absmax},
        {&g->absmax_codes, "absmax_codes", g->sizes.absmax_codes, 1, (void **)&g->m.absmax_codes},
        {&g->nested_absmax, "nested_absmax", g->sizes.nested_absmax, 4, (void **)&g->m.nested_absmax},
        {&g->nested_offset, "nested_offset", g->sizes.nested_offset, 4, (void **)&g->m.nested_offset},
        {&g->zero_points, "zero_points", g->sizes.zero_points, 1, (void **)&g->m.zero_points}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].bytes) continue;
        *parts[i].g = guard_new(parts[i].name, parts[i].bytes, GUARD_END, parts[i].align);
        guard_poison(parts[i].g);
        *parts[i].pointer = parts[i].g->data;
    }
}

static const guard *const *all_guards(const guarded_matrix *g, const guard *list[7])
{
    int n = 0;
    const guard *parts[] = {&g->codes, &g->absmax, &g->absmax_codes, &g->nested_absmax, &g->nested_offset,
                            &g->zero_points};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i]->inner) list[n++] = parts[i];
    list[n] = NULL;
    return list;
}

void gm_expect_guards(const guarded_matrix *g, const char *what)
{
    const guard *list[7];
    for (const guard *const *p = all_guards(g, list); *p; p++) {
        check_result r = guard_check(*p);
        if (!r.ok) REQUIRE(false, "%s: %s", what, r.text);
        else EXPECT(r);
    }
}

void gm_expect_same(const guarded_matrix *got, const guarded_matrix *want, const char *what)
{
    char name[160];
    const fb_matrix *g = &got->m, *w = &want->m;
    const fb_matrix_sizes *s = &want->sizes;
#define PART(part) (snprintf(name, sizeof name, "%s " part, what), (check_place){name, 0, 0})
    if (s->elements) {
        snprintf(name, sizeof name, "%s codes", what);
        EXPECT(check_nibbles((check_place){name, w->cols, w->block_size}, g->codes, w->codes, s->elements));
    }
    if (s->absmax) EXPECT(check_same(PART("absmax"), g->absmax, w->absmax, FB_F32, s->blocks));
    if (s->absmax_codes)
        EXPECT(check_bytes(PART("absmax_codes"), g->absmax_codes, w->absmax_codes, s->blocks));
    if (s->nested_absmax)
        EXPECT(check_same(PART("nested_absmax"), g->nested_absmax, w->nested_absmax, FB_F32, s->nested_blocks));
    if (s->nested_offset)
        EXPECT(check_same(PART("nested_offset"), g->nested_offset, w->nested_offset, FB_F32, 1));
    if (s->zero_points) EXPECT(check_bytes(PART("zero_points"), g->zero_points, w->zero_points, s->blocks));
#undef PART
}

void gm_free(guarded_matrix *g)
{
    guard *parts[] = {&g->codes, &g->absmax, &g->absmax_codes, &g->nested_absmax, &g->nested_offset,
                      &g->zero_points};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) guard_free(parts[i]);
}

guard suite_buffer(const char *name, fb_dtype dtype, int64_t n)
{
    guard g = guard_new(name, (size_t)n * fb_dtype_size(dtype), GUARD_END, fb_dtype_size(dtype));
    guard_poison(&g);
    return g;
}

guard suite_workspace(fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype)
{
    size_t bytes = 0;
    fb_status status = fb_workspace_size(ctx, op, w, m, dtype, &bytes);
    REQUIRE(status == FB_OK, "fb_workspace_size: %s", ctx->message);
    guard g = guard_new("workspace", bytes, GUARD_END, 64);
    guard_poison(&g);
    ctx->workspace = bytes ? g.data : NULL;
    ctx->workspace_bytes = bytes;
    return g;
}

void suite_reference_quantize(const void *src, fb_dtype dtype, guarded_matrix *dst)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &dst->m, 0, dtype);
    if (fb_quantize(&ctx, src, dtype, &dst->m) != FB_OK) {
        fprintf(stderr, "the reference cannot quantize a test's input: %s\n", ctx.message);
        exit(2);
    }
    guard_free(&workspace);
}

void suite_random_matrix(guarded_matrix *w, uint64_t seed)
{
    if (w->sizes.elements == 0) return;
    input_bytes(seed, w->m.codes, (int64_t)w->sizes.codes);
    for (int64_t b = 0; b < w->sizes.blocks; b++) {
        if (w->m.absmax) w->m.absmax[b] = (float)(0.01 + input_uniform(seed + 1, (uint64_t)b));
        if (w->m.zero_points) w->m.zero_points[b] = (uint8_t)(input_random(seed + 2, (uint64_t)b) % 16);
    }
    if (!w->m.double_quant) return;
    input_bytes(seed + 3, w->m.absmax_codes, w->sizes.blocks);
    for (int64_t b = 0; b < w->sizes.nested_blocks; b++)
        w->m.nested_absmax[b] = (float)(0.2 + input_uniform(seed + 4, (uint64_t)b));
    *w->m.nested_offset = 1.37f;
}
