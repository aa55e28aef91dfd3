/* ops_cpu.c: dense products by OpenBLAS, and which instruction set the other operations run on.
 *
 * OpenBLAS splits a product over its threads by their number, and a tile's bits may depend on the split. So each product is
 * cut here, by its shape alone, into parts that OpenBLAS computes single-threaded, and threads take parts. (An OpenBLAS built
 * with OpenMP takes omp_get_max_threads() threads outside of a team of two or more. Its own openblas_set_num_threads(1) would
 * lower that for the whole program; said inside the region, it is the asking thread's alone.) */
#include "ops_cpu.h"

#include <cblas.h>
#include <omp.h>

enum { PARTS = 16, PART_LEAST = 64 };

static void part_product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                         float *c, int64_t ldc, bool accumulate)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)lda, b,
                (int)ldb, accumulate ? 1 : 0, c, (int)ldc);
}

static fb_status product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b, float *c,
                         bool accumulate)
{
    bool rows = m >= n;
    int64_t length = rows ? m : n, part = fb_ceil_div(fb_ceil_div(length, PARTS), PART_LEAST) * PART_LEAST;
    int64_t lda = ta ? m : k, ldb = tb ? k : n;
    int threads = ctx->threads > 0 ? ctx->threads : omp_get_max_threads();
#pragma omp parallel num_threads(threads)
    {
        omp_set_num_threads(1);
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < length; first += part) {
        int64_t size = length - first < part ? length - first : part;
        if (rows) part_product(ta, tb, size, n, k, (float)alpha, a + (ta ? first : first * lda), lda, b, ldb, c + first * n, n, accumulate);
        else part_product(ta, tb, m, size, k, (float)alpha, a, lda, b + (tb ? first * ldb : first), ldb, c + first, n, accumulate);
    }
    }
    return FB_OK;
}

#define TABLE(isa)                                                                                                                           \
    {"cpu", product, lm_cpu_embed_##isa, lm_cpu_embed_backward_##isa, lm_cpu_rmsnorm_##isa, lm_cpu_rmsnorm_backward_##isa, lm_cpu_rope_##isa, \
     lm_cpu_attention_##isa, lm_cpu_attention_backward_##isa, lm_cpu_swiglu_##isa, lm_cpu_swiglu_backward_##isa, lm_cpu_add_##isa,            \
     lm_cpu_add_row_sums_##isa, lm_cpu_drop_##isa, lm_cpu_add_kept_##isa, lm_cpu_cross_entropy_##isa, lm_cpu_square_sums_##isa}

/* The library's choice (FOURBIT_CPU included) decides. */
const lm_ops *lm_cpu_ops(void)
{
    static const lm_ops portable = TABLE(portable), avx2 = TABLE(avx2);
    return strncmp(fb_backend_variant(FB_BACKEND_CPU), "avx", 3) == 0 ? &avx2 : &portable;
}
