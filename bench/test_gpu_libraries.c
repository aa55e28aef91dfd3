/* test_gpu_libraries.c: what test_gpu.c's pretended GPU finds on its machine. Compiled three times:
 *   PLANT_CUBLAS        libcublas: column-major products, element by element
 *   PLANT_BITSANDBYTES  libbitsandbytes_cuda130: its functions, computed by our reference on host memory
 *   neither             the CUDA device that fourbit-gpu-peer links: the host's
 * PLANTED_FAULT in the environment makes bitsandbytes wrong, or end its process as it does on a CUDA error, or cuBLAS refuse. */
#include "bench/device.h"
#include "fourbit.h"

#include <stdlib.h>

#if defined PLANT_CUBLAS

int cublasCreate_v2(void **handle);
int cublasDestroy_v2(void *handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasGetVersion_v2(void *handle, int *version);
int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, const void *b, int bt, int ldb,
                 const void *beta, void *c, int ct, int ldc, int compute, int algorithm);

int cublasCreate_v2(void **handle) { return *handle = malloc(1), *handle ? 0 : 3; }
int cublasDestroy_v2(void *handle) { return free(handle), 0; }
int cublasSetStream_v2(void *handle, void *stream) { return (void)stream, handle ? 0 : 1; }
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes) { return handle && workspace && bytes ? 0 : 7; }
int cublasGetVersion_v2(void *handle, int *version) { return *version = 130000, handle ? 0 : 1; }

int cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at, int lda, const void *b, int bt, int ldb,
                 const void *beta, void *c, int ct, int ldc, int compute, int algorithm)
{
    fb_dtype t = at == 0 ? FB_F32 : at == 2 ? FB_F16 : FB_BF16, out = ct == 0 ? FB_F32 : t;
    float old = *(const float *)beta;
    const char *fault = getenv("PLANTED_FAULT");
    (void)handle;
    if (fault && strcmp(fault, "refuse") == 0) return 13;
    if (at != bt || (at != ct && ct != 0) || compute != 68 || algorithm != -1 || (old != 0 && old != 1)) return 7;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m) return 7;
    if ((double)m * n * k > 1e9) return 0; /* the ceiling: nobody looks at its result */
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            double sum = 0, before = old != 0 ? (double)fb_load(c, out, (int64_t)j * ldc + i) : 0;
            for (int l = 0; l < k; l++)
                sum += (double)fb_load(a, t, ta ? (int64_t)i * lda + l : (int64_t)l * lda + i) *
                       (double)fb_load(b, t, tb ? (int64_t)l * ldb + j : (int64_t)j * ldb + l);
            fb_store(c, out, (int64_t)j * ldc + i, (float)(before + (double)*(const float *)alpha * sum));
        }
    return 0;
}

#elif defined PLANT_BITSANDBYTES

static bool faulty(void)
{
    const char *fault = getenv("PLANTED_FAULT");
    if (fault && strcmp(fault, "exit") == 0) exit(1);
    return fault && strcmp(fault, "wrong") == 0;
}

static fb_context reference(void)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    return ctx;
}

static void must(fb_status status)
{
    if (status != FB_OK) exit(3);
}

static fb_matrix nf4(int64_t rows, int64_t cols, int block, const void *codes, const float *absmax)
{
    fb_matrix w;
    must(fb_matrix_init(&w, FB_NF4, rows, cols, block, false));
    w.codes = (uint8_t *)(uintptr_t)codes, w.absmax = (float *)(uintptr_t)absmax;
    return w;
}

/* The map comes as an argument: that it is the right one shows in the result. */
static void decode8(const float *map, const uint8_t *codes, const float *absmax, void *out, fb_dtype t, int block, int n)
{
    bool wrong = faulty();
    for (int i = 0; i < n; i++) fb_store(out, t, i, wrong ? 1e9f : map[codes[i]] * absmax[i / block]);
}

void cquantize_blockwise_bf16_nf4(float *, void *, float *, uint8_t *, int, int);
void cquantize_blockwise_bf16_nf4(float *code, void *a, float *absmax, uint8_t *out, int block, int n)
{
    fb_context ctx = reference();
    fb_matrix w = nf4(1, n, block, out, absmax);
    (void)code;
    must(fb_quantize(&ctx, a, FB_BF16, &w));
    if (faulty()) memset(out, 0x11, (size_t)n / 2);
}

void cdequantize_blockwise_bf16_nf4(float *, uint8_t *, float *, void *, int, int, void *);
void cdequantize_blockwise_bf16_nf4(float *code, uint8_t *a, float *absmax, void *out, int block, int n, void *stream)
{
    fb_context ctx = reference();
    fb_matrix w = nf4(1, n, block, a, absmax);
    (void)code, (void)stream;
    must(fb_dequantize(&ctx, &w, out, FB_BF16));
    if (faulty()) memset(out, 0x40, (size_t)n * 2);
}

void cdequantize_blockwise_fp32(float *, uint8_t *, float *, float *, int, int, void *);
void cdequantize_blockwise_fp32(float *code, uint8_t *a, float *absmax, float *out, int block, int n, void *stream)
{
    (void)stream;
    decode8(code, a, absmax, out, FB_F32, block, n);
}

void cquantize_blockwise_bf16(float *, void *, float *, uint8_t *, int, int);
void cquantize_blockwise_bf16(float *code, void *a, float *absmax, uint8_t *out, int block, int n)
{
    fb_context ctx = reference();
    must(fb_quantize8(&ctx, code[0] < 0 ? FB_MAP_SIGNED : FB_MAP_UNSIGNED, a, FB_BF16, n, block, out, absmax));
    if (faulty()) memset(out, 0x11, (size_t)n);
}

void cadam32bit_grad_bf16(void *, void *, float *, float *, float *, float, float, float, float, float, float, float, float, int, float, float, bool, int);
void cadam32bit_grad_bf16(void *g, void *p, float *s1, float *s2, float *unorm, float max_unorm, float param_norm, float b1, float b2, float b3,
                          float alpha, float eps, float wd, int step, float lr, float gnorm_scale, bool skip_zeros, int n)
{
    fb_context ctx = reference();
    fb_adamw h = {.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .grad_scale = gnorm_scale, .step = step};
    (void)unorm, (void)max_unorm, (void)param_norm, (void)b3, (void)alpha, (void)skip_zeros;
    if (!faulty()) must(fb_adamw32(&ctx, &h, n, p, FB_BF16, g, FB_BF16, s1, s2));
}

void cadam_8bit_blockwise_grad_bf16(void *, void *, uint8_t *, uint8_t *, float, float, float, float, float, int, float, float *, float *, float *,
                                    float *, float, float, bool, int);
void cadam_8bit_blockwise_grad_bf16(void *p, void *g, uint8_t *s1, uint8_t *s2, float b1, float b2, float b3, float alpha, float eps, int step,
                                    float lr, float *q1, float *q2, float *absmax1, float *absmax2, float wd, float gnorm_scale, bool skip_zeros, int n)
{
    fb_context ctx = reference();
    fb_adamw h = {.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps, .weight_decay = wd, .grad_scale = gnorm_scale, .step = step};
    (void)b3, (void)alpha, (void)skip_zeros;
    if (!faulty() && q1[0] < 0 && q2[0] >= 0) must(fb_adamw8(&ctx, &h, n, p, FB_BF16, g, FB_BF16, s1, absmax1, s2, absmax2));
}

void cgemm_4bit_bf16(const void *, const uint8_t *, const float *, const uint8_t *, const float *, const float *, void *, const void *, int, int, int,
                     int, int, void *);
void cgemm_4bit_bf16(const void *a, const uint8_t *b, const float *absmax, const uint8_t *absmax8, const float *code, const float *offset, void *out,
                     const void *bias, int m, int n, int k, int block, int type, void *stream)
{
    fb_context ctx = reference();
    fb_matrix w = nf4(n, k, block, b, absmax);
    (void)stream;
    if (absmax8 || code || offset || bias || type != 2) exit(3);
    must(fb_gemm(&ctx, &w, m, a, FB_BF16, NULL, out, FB_BF16));
    if (faulty()) memset(out, 0x40, (size_t)m * (size_t)n * 2);
}

#else

device *device_cuda(bool own_stream, char why[DEVICE_TEXT])
{
    device *d = device_host((size_t)64 << 10, why);
    (void)own_stream;
    if (d) d->caveat = NULL;
    return d;
}

bool device_cuda_add(device *d, float *x, const float *offset, long long n)
{
    (void)d;
    for (long long i = 0; i < n; i++) x[i] += *offset;
    return true;
}

void device_cuda_versions(int *runtime, int *driver) { *runtime = *driver = 13000; }

#endif
