/* product_cublas.c: C (+)= alpha op(A) op(B) by cublasGemmEx in fp32, not TF32, which would round the inputs to 11 bits.
 *
 * cuBLAS is column-major: a row-major matrix is its transpose to it, and C^T = op(B)^T op(A)^T is what is asked for. One handle
 * for the program, behind a lock; on one stream its results are the same bits every time. */
#include "product_cublas.h"

#include "bench/cublas.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>

enum { OP_N = 0, OP_T = 1, TYPE_F32 = 0, COMPUTE_F32 = 68, ALGORITHM_DEFAULT = -1 }; /* of its ABI */

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    void *handle;
    int (*set_stream)(void *, void *);
    int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int, int, int);
    const lm_ops *own;
    lm_ops ops;
} cublas_ops = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static fb_status product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b, float *c,
                         bool accumulate)
{
    if (m > INT_MAX || n > INT_MAX || k > INT_MAX) return cublas_ops.own->product(ctx, ta, tb, m, n, k, alpha, a, b, c, accumulate);
    const float factor = (float)alpha, before = accumulate ? 1 : 0;
    pthread_mutex_lock(&cublas_ops.lock);
    int error = cublas_ops.set_stream(cublas_ops.handle, ctx->stream);
    if (!error)
        error = cublas_ops.gemm(cublas_ops.handle, tb ? OP_T : OP_N, ta ? OP_T : OP_N, (int)n, (int)m, (int)k, &factor, b, TYPE_F32, (int)(tb ? k : n), a,
                                TYPE_F32, (int)(ta ? m : k), &before, c, TYPE_F32, (int)n, COMPUTE_F32, ALGORITHM_DEFAULT);
    pthread_mutex_unlock(&cublas_ops.lock);
    if (!error) return FB_OK;
    return snprintf(ctx->message, sizeof ctx->message, "cuBLAS refused a product of [%lld, %lld] by [%lld, %lld] with status %d", (long long)m, (long long)k,
                    (long long)k, (long long)n, error), FB_BACKEND_ERROR;
}

static void take(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
}

static void look_for_it(void)
{
    static const char *const versions[] = {"13", "12", "11"};
    int (*create)(void **) = NULL;
    void *library = NULL;
    for (int i = 0; i < 3 && !library; i++) {
        char lt[32], main_part[32];
        snprintf(lt, sizeof lt, "libcublasLt.so.%s", versions[i]), snprintf(main_part, sizeof main_part, "libcublas.so.%s", versions[i]);
        if (cuda_library(lt)) library = cuda_library(main_part); /* which does not always find the other by itself */
    }
    cublas_ops.ops = *cublas_ops.own;
    if (!library) return;
    take(library, "cublasCreate_v2", &create), take(library, "cublasSetStream_v2", &cublas_ops.set_stream), take(library, "cublasGemmEx", &cublas_ops.gemm);
    if (!create || !cublas_ops.set_stream || !cublas_ops.gemm || create(&cublas_ops.handle)) return;
    cublas_ops.ops.name = "cuda+cublas";
    cublas_ops.ops.product = product;
}

const lm_ops *lm_with_cublas(const lm_ops *own)
{
    pthread_mutex_lock(&cublas_ops.lock);
    if (!cublas_ops.own) cublas_ops.own = own;
    pthread_mutex_unlock(&cublas_ops.lock);
    pthread_once(&cublas_ops.once, look_for_it);
    return &cublas_ops.ops;
}
