/* cublas.c: cuBLAS by dlopen (cublas.h). Its numbers for types and operations are part of its ABI. */
#include "bench/cublas.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

enum { OP_N = 0, OP_T = 1, TYPE_F32 = 0, TYPE_F16 = 2, TYPE_BF16 = 14, COMPUTE_F32 = 68, ALGORITHM_DEFAULT = -1 };
static const size_t workspace_bytes = (size_t)64 << 20; /* what its manual recommends for Hopper is 32 MiB */

struct cublas {
    void *library, *handle, *workspace;
    device *d;
    int (*destroy)(void *), (*get_version)(void *, int *);
    int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int,
                int, int);
};

static void *load(const char *folder, const char *soname)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, soname);
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

void *cuda_library(const char *soname)
{
    static const char *const patterns[] = {"/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/usr/local/lib/python3*/*-packages/nvidia/*/lib",
                                           "/usr/lib/python3*/*-packages/nvidia/*/lib", "/opt/*/lib/python3*/site-packages/nvidia/*/lib"};
    char folder[4096];
    const char *home = getenv("CUDA_HOME");
    void *found = NULL;
    if (home) {
        snprintf(folder, sizeof folder, "%s/lib64", home);
        found = load(folder, soname);
    }
    if (!found) found = dlopen(soname, RTLD_NOW | RTLD_GLOBAL);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns && !found; i++) {
        glob_t places = {0};
        if (glob(patterns[i], 0, NULL, &places) == 0)
            for (size_t k = 0; k < places.gl_pathc && !found; k++) found = load(places.gl_pathv[k], soname);
        globfree(&places);
    }
    return found;
}

static void take(cublas *b, const char *name, void *function)
{
    void *found = dlsym(b->library, name);
    memcpy(function, &found, sizeof found);
}

cublas *cublas_open(device *d, char why[TIMING_WHY])
{
    static const char *const names[] = {"13", "12", "11"};
    cublas *b = calloc(1, sizeof *b);
    int (*create)(void **) = NULL, (*set_stream)(void *, void *) = NULL, (*set_workspace)(void *, void *, size_t) = NULL, error = 0;
    if (!b) return snprintf(why, TIMING_WHY, "no memory"), NULL;
    b->d = d;
    for (int i = 0; i < 3 && !b->library; i++) {
        char lt[32], main_part[32];
        snprintf(lt, sizeof lt, "libcublasLt.so.%s", names[i]), snprintf(main_part, sizeof main_part, "libcublas.so.%s", names[i]);
        if (cuda_library(lt)) b->library = cuda_library(main_part);
    }
    if (!b->library) {
        free(b);
        return snprintf(why, TIMING_WHY, "no libcublas.so.13, .12 or .11 on this machine (CUDA_HOME says where to look)"), NULL;
    }
    take(b, "cublasCreate_v2", &create), take(b, "cublasSetStream_v2", &set_stream), take(b, "cublasSetWorkspace_v2", &set_workspace);
    take(b, "cublasDestroy_v2", &b->destroy), take(b, "cublasGetVersion_v2", &b->get_version), take(b, "cublasGemmEx", &b->gemm);
    b->workspace = d->alloc(d, workspace_bytes);
    const char *step = "a symbol is missing";
    bool ok = create && set_stream && set_workspace && b->destroy && b->gemm && b->workspace;
    if (ok) step = "cublasCreate", ok = (error = create(&b->handle)) == 0;
    if (ok) step = "cublasSetStream", ok = (error = set_stream(b->handle, d->stream)) == 0;
    /* its own workspace would be allocated inside a recording */
    if (ok) step = "cublasSetWorkspace", ok = (error = set_workspace(b->handle, b->workspace, workspace_bytes)) == 0;
    if (ok) return b;
    snprintf(why, TIMING_WHY, "cuBLAS: %s (status %d)", step, error);
    cublas_close(b);
    return NULL;
}

void cublas_close(cublas *b)
{
    if (!b) return;
    if (b->handle) b->destroy(b->handle);
    if (b->workspace) b->d->release(b->d, b->workspace);
    free(b); /* the library stays: it has threads of its own */
}

int cublas_version(const cublas *b)
{
    int version = 0;
    if (b->get_version) (void)b->get_version(b->handle, &version);
    return version;
}

/* Row-major out [m, p] (+)= left [m, l] * right [l, p], either of them transposed as it lies in memory. cuBLAS is column-major: to
 * it that is out^T = right^T * left^T, and a row-major matrix as it lies is its transpose. */
static bool multiply(cublas *b, int64_t m, int64_t p, int64_t l, const void *left, bool left_t, const void *right, bool right_t, fb_dtype in, void *out,
                     fb_dtype t, bool add, char *why)
{
    static const int types[] = {[FB_F32] = TYPE_F32, [FB_BF16] = TYPE_BF16, [FB_F16] = TYPE_F16};
    const float one = 1, beta = add ? 1 : 0;
    int error = b->gemm(b->handle, right_t ? OP_T : OP_N, left_t ? OP_T : OP_N, (int)p, (int)m, (int)l, &one, right, types[in], (int)(right_t ? l : p), left,
                        types[in], (int)(left_t ? m : l), &beta, out, types[t], (int)p, COMPUTE_F32, ALGORITHM_DEFAULT);
    if (error == 0) return true;
    snprintf(why, TIMING_WHY, "cublasGemmEx failed with status %d", error);
    return false;
}

bool cublas_product(cublas *b, const gpu_case *c, const void *a, const void *weights, void *out, char why[TIMING_WHY])
{
    if (c->op == GPU_GEMM) return multiply(b, c->m, c->rows, c->cols, a, false, weights, true, c->dtype, out, c->dtype, false, why);
    return multiply(b, c->m, c->cols, c->rows, a, false, weights, false, c->dtype, out, c->dtype, false, why);
}

bool cublas_adapter(cublas *b, const gpu_case *c, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    const int64_t m = c->m, n = c->rows, k = c->cols, r = c->rank;
    const fb_dtype t = c->dtype;
    if (c->op == GPU_LORA) /* U = X A^T;  Y += U B^T */
        return multiply(b, m, r, k, p[JOB_A], false, p[JOB_LORA_A], true, t, p[JOB_U], t, false, why) &&
               multiply(b, m, n, r, p[JOB_U], false, p[JOB_LORA_B], true, t, p[JOB_OUT], t, true, why);
    /* dU = dY B;  dX += dU A;  dA = dU^T X;  dB = dY^T U */
    return multiply(b, m, r, n, p[JOB_A], false, p[JOB_LORA_B], false, t, p[JOB_DU], t, false, why) &&
           multiply(b, m, k, r, p[JOB_DU], false, p[JOB_LORA_A], false, t, p[JOB_OUT], t, true, why) &&
           multiply(b, r, k, m, p[JOB_DU], true, p[JOB_X], false, t, p[JOB_DA], FB_F32, false, why) &&
           multiply(b, n, r, m, p[JOB_A], true, p[JOB_U], false, t, p[JOB_DB], FB_F32, false, why);
}
