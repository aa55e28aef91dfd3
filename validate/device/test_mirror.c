/* test_mirror.c: does the mirror notice what a kernel does wrong? The backend that it mirrors here is the reference's
 * table with planted faults, under the executor's name (the program is linked with --wrap=fb_simt_ops). */
#include "backend.h"

#include <CUnit/Basic.h>
#include <stdlib.h>

enum { N = 300, BLOCK = 64 };

static enum { RIGHT, PAST_END, BEFORE_START, REFUSES } fault;
static uintptr_t seen_src;

static fb_status faulty_dequantize(fb_context *ctx, const fb_matrix *w, void *dst, fb_dtype t)
{
    fb_context reference;
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    if (fault == REFUSES) return fb_fail(ctx, FB_UNSUPPORTED, "planted");
    fb_status status = fb_reference_ops()->dequantize(&reference, w, dst, t);
    if (fault == PAST_END) ((uint8_t *)dst)[N * fb_dtype_size(t)] = 1;
    if (fault == BEFORE_START) ((uint8_t *)w->codes)[-1] = 1;
    seen_src = (uintptr_t)w->codes;
    return status;
}

static fb_status reports_nan(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *w)
{
    (void)src, (void)t, (void)w;
    *ctx->first_nonfinite = 17;
    return FB_OK;
}

const fb_ops *fb_simt_ops(char *why);
const fb_ops *fb_simt_ops(char *why)
{
    static fb_ops table;
    (void)why;
    table = *fb_reference_ops();
    table.variant = "planted";
    table.dequantize = faulty_dequantize;
    table.quantize = reports_nan;
    return &table;
}

static float x[N], y[N], want[N];
static uint8_t code_buffer[N / 2 + 8];
static float absmax[(N + BLOCK - 1) / BLOCK];

static fb_matrix matrix_at(uint8_t *codes)
{
    fb_matrix w;
    fb_context reference;
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    for (int i = 0; i < N; i++) x[i] = (float)(i % 17 - 8);
    CU_ASSERT_EQUAL_FATAL(fb_matrix_init(&w, FB_NF4, 1, N, BLOCK, false), FB_OK);
    w.codes = codes, w.absmax = absmax;
    CU_ASSERT_EQUAL_FATAL(fb_quantize(&reference, x, FB_F32, &w), FB_OK);
    CU_ASSERT_EQUAL_FATAL(fb_dequantize(&reference, &w, want, FB_F32), FB_OK);
    return w;
}

static fb_status mirrored(fb_context *ctx, const fb_matrix *w)
{
    fb_context_init(ctx, FB_BACKEND_CUDA);
    memset(y, 0xff, sizeof y);
    return fb_dequantize(ctx, w, y, FB_F32);
}

static void test_right(void)
{
    fb_context ctx;
    for (int shift = 0; shift < 8; shift++) { /* the device sees the alignment that the caller has */
        fb_matrix w = matrix_at(code_buffer + shift);
        fault = RIGHT;
        CU_ASSERT_EQUAL(mirrored(&ctx, &w), FB_OK);
        CU_ASSERT_EQUAL(memcmp(y, want, sizeof y), 0);
        CU_ASSERT_EQUAL(seen_src % 256, (uintptr_t)w.codes % 256);
        CU_ASSERT_NOT_EQUAL(seen_src, (uintptr_t)w.codes); /* a copy */
    }
}

static void test_bands(void)
{
    fb_context ctx;
    fb_matrix w = matrix_at(code_buffer);
    fault = PAST_END;
    CU_ASSERT_EQUAL(mirrored(&ctx, &w), FB_BACKEND_ERROR);
    CU_ASSERT(strstr(ctx.message, "outside dst") != NULL);
    fault = BEFORE_START;
    CU_ASSERT_EQUAL(mirrored(&ctx, &w), FB_BACKEND_ERROR);
    CU_ASSERT(strstr(ctx.message, "outside codes") != NULL);
}

static void test_refusal(void)
{
    fb_context ctx;
    fb_matrix w = matrix_at(code_buffer);
    fault = REFUSES;
    CU_ASSERT_EQUAL(mirrored(&ctx, &w), FB_UNSUPPORTED);
    CU_ASSERT_STRING_EQUAL(ctx.message, "planted");
    const uint8_t *bytes = (const uint8_t *)y;
    int touched = 0;
    for (size_t i = 0; i < sizeof y; i++) touched += bytes[i] != 0xff;
    CU_ASSERT_EQUAL(touched, 0);
}

static void test_nonfinite(void)
{
    fb_context ctx;
    uint64_t word = UINT64_MAX;
    fb_matrix w = matrix_at(code_buffer);
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    ctx.first_nonfinite = &word;
    CU_ASSERT_EQUAL(fb_quantize(&ctx, x, FB_F32, &w), FB_OK);
    CU_ASSERT_EQUAL(word, 17);
}

int main(void)
{
    setenv("FOURBIT_CUDA", "simt", 1);
    if (CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite s = CU_add_suite("mirror", NULL, NULL);
    if (!s || !CU_add_test(s, "right", test_right) || !CU_add_test(s, "bands", test_bands) || !CU_add_test(s, "refusal", test_refusal) ||
        !CU_add_test(s, "nonfinite", test_nonfinite))
        return 1;
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    return failures > 0;
}
