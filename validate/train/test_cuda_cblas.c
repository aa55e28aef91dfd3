/* test_cuda_cblas.c: the one function of OpenBLAS that the CPU's side of test_train_gpu calls, on matrices of a few dozen rows: the
 * bundle for a GPU's machine does without 35 MB of library for it. Row-major, sums in double. */
#include <cblas.h>

void cblas_sgemm(const enum CBLAS_ORDER order, const enum CBLAS_TRANSPOSE ta, const enum CBLAS_TRANSPOSE tb, const blasint m, const blasint n,
                 const blasint k, const float alpha, const float *a, const blasint lda, const float *b, const blasint ldb, const float beta, float *c,
                 const blasint ldc)
{
    (void)order;
    for (blasint i = 0; i < m; i++)
        for (blasint j = 0; j < n; j++) {
            double sum = 0;
            for (blasint l = 0; l < k; l++)
                sum += (double)(ta == CblasTrans ? a[l * lda + i] : a[i * lda + l]) * (double)(tb == CblasTrans ? b[j * ldb + l] : b[l * ldb + j]);
            float before = beta != 0 ? beta * c[i * ldc + j] : 0;
            c[i * ldc + j] = (float)((double)alpha * sum + (double)before);
        }
}
