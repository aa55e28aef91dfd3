/* suite.h: what the CUnit suites share: their list, the backend under test, and
 * matrices whose every buffer is guarded. */
#ifndef FOURBIT_SUITE_H
#define FOURBIT_SUITE_H

#include "cases.h"
#include "check.h"
#include "inputs.h"

#include <CUnit/Basic.h>

typedef struct suite_test {
    const char *name;
    void (*run)(void);
} suite_test;

typedef struct suite {
    const char *name, *about;
    bool per_backend; /* runs once for each backend; else once */
    const suite_test *tests; /* ends with {NULL, NULL} */
} suite;

extern const suite suite_formats, suite_quantize, suite_dequantize, suite_double_quant, suite_blockwise8,
    suite_normalize, suite_gemm, suite_gemm_dx, suite_lora, suite_adamw, suite_api, suite_theory, suite_check, suite_golden, suite_large;

/* The backend that this process tests; a context for it. */
extern fb_backend suite_backend;
extern bool suite_update_golden;
fb_context suite_context(void);
/* A call met a NaN or Inf at what[index]. A host backend says so and has written nothing: true. The CUDA backend, which
 * returns before its kernels run, lowers ctx->first_nonfinite (suite_context sets it); what it wrote is unspecified: false. */
bool suite_expect_nonfinite(const fb_context *ctx, fb_status status, const char *what, int64_t index);
/* FOURBIT_TEST_SCALE: work of the long tests relative to the full run, (0, 1]. */
double suite_scale(void);

/* One assertion, whose text is the diagnosis. */
#define EXPECT(result) suite_expect((result), __FILE__, __LINE__)
/* One assertion on a condition, with a printf-style diagnosis. */
#define REQUIRE(condition, ...) suite_require((condition), __FILE__, __LINE__, __VA_ARGS__)
void suite_expect(check_result result, const char *file, int line);
void suite_require(bool condition, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A matrix with each buffer in a guard of its own, poisoned. */
typedef struct guarded_matrix {
    fb_matrix m;
    fb_matrix_sizes sizes;
    guard codes, absmax, absmax_codes, nested_absmax, nested_offset, zero_points;
} guarded_matrix;

void gm_new(guarded_matrix *g, fb_format format, int64_t rows, int64_t cols, int32_t block_size, bool double_quant);
void gm_expect_guards(const guarded_matrix *g, const char *what);
/* All buffers bit-identical. */
void gm_expect_same(const guarded_matrix *got, const guarded_matrix *want, const char *what);
void gm_free(guarded_matrix *g);

/* Guarded workspace of exactly what the operation asks for, put into ctx. */
guard suite_workspace(fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype);
guard suite_buffer(const char *name, fb_dtype dtype, int64_t n); /* poisoned, flush with its end */

/* Quantize with the reference; ends the test program if that fails. */
void suite_reference_quantize(const void *src, fb_dtype dtype, guarded_matrix *dst);
/* Fill every buffer of w with arbitrary legal contents (every byte value as codes). */
void suite_random_matrix(guarded_matrix *w, uint64_t seed);

#endif
