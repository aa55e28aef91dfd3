/* cuda_ops.cu — the CUDA backend's operations table.  Its pointers are device pointers, so nothing falls back to the reference: there is a
 * kernel for every operation, shape and type. */
#include "cuda_ops.h"
#include "lora.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

/* The products choose by the generation that their table was made for. */
template <int ARCH> size_t workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    switch (op) {
    case FB_OP_QUANTIZE: return FB_CUDA(quantize_workspace)(w);
    case FB_OP_GEMM: return FB_CUDA(gemm_workspace)(ctx, fb_device_of(ARCH), w, m, t);
    case FB_OP_GEMM_DX: return FB_CUDA(gemm_dx_workspace)(ctx, fb_device_of(ARCH), w, m, t);
    default: return 0;
    }
}
template <int ARCH> fb_weights gemm_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return FB_CUDA(gemm_weights)(ctx, fb_device_of(ARCH), w, m, t);
}
template <int ARCH> fb_weights gemm_dx_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return FB_CUDA(gemm_dx_weights)(ctx, fb_device_of(ARCH), w, m, t);
}
template <int ARCH>
fb_status gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias, void *y,
               fb_dtype y_dtype)
{
    const fb_gemm_call call = {ctx, fb_device_of(ARCH), w, m, x, x_dtype, bias, y, y_dtype, false, {}};
    return FB_CUDA(gemm)(&call);
}
template <int ARCH>
fb_status gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx, fb_dtype dx_dtype,
                  bool accumulate)
{
    const fb_gemm_call call = {ctx, fb_device_of(ARCH), w, m, dy, dy_dtype, nullptr, dx, dx_dtype, accumulate, {}};
    return FB_CUDA(gemm_dx)(&call);
}
template <int ARCH> size_t lora_workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    return FB_CUDA(lora_workspace)(ctx, fb_device_of(ARCH), op, w, rank, m, t);
}
template <int ARCH> fb_weights lora_weights(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t, int64_t m, fb_dtype t)
{
    return op == FB_OP_LORA_BACKWARD ? gemm_dx_weights<ARCH>(ctx, w, m, t) : gemm_weights<ARCH>(ctx, w, m, t);
}
template <int ARCH>
fb_status lora_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                       void *y, fb_dtype y_dtype, void *u)
{
    return FB_CUDA(lora_forward)(ctx, fb_device_of(ARCH), w, lora, m, x, x_dtype, bias, y, y_dtype, u);
}
template <int ARCH>
fb_status lora_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, const void *u, const void *dy,
                        fb_dtype t, void *dx, fb_dtype dx_dtype, bool accumulate_dx, float *da, float *db, bool accumulate_grads)
{
    return FB_CUDA(lora_backward)(ctx, fb_device_of(ARCH), w, lora, m, x, u, dy, t, dx, dx_dtype, accumulate_dx, da, db, accumulate_grads);
}

template <int ARCH> fb_ops make_table(const char *variant)
{
    fb_ops ops = {};
    ops.variant = variant;
    ops.workspace = workspace<ARCH>;
    ops.quantize = FB_CUDA(quantize);
    ops.dequantize = FB_CUDA(dequantize);
    ops.double_quantize = FB_CUDA(double_quantize);
    ops.decode_absmax = FB_CUDA(decode_absmax);
    ops.quantize8 = FB_CUDA(quantize8);
    ops.dequantize8 = FB_CUDA(dequantize8);
    ops.normalize = FB_CUDA(normalize);
    ops.denormalize = FB_CUDA(denormalize);
    ops.adamw32 = FB_CUDA(adamw32);
    ops.adamw8 = FB_CUDA(adamw8);
    ops.gemm_weights = gemm_weights<ARCH>;
    ops.gemm_dx_weights = gemm_dx_weights<ARCH>;
    ops.gemm = gemm<ARCH>;
    ops.gemm_dx = gemm_dx<ARCH>;
    ops.lora_workspace = lora_workspace<ARCH>;
    ops.lora_weights = lora_weights<ARCH>;
    ops.lora_forward = lora_forward<ARCH>;
    ops.lora_backward = lora_backward<ARCH>;
    return ops;
}

/* FOURBIT_CUDA_ARCH=sm80|sm90|sm100 takes the kernels of an earlier generation (on a GPU: to compare them; in the executor,
 * which is every generation and sm80 unless told: to test each). 0: not set, or not a generation. */
int forced_arch()
{
    const char *s = getenv("FOURBIT_CUDA_ARCH");
    return !s ? 0 : strcmp(s, "sm80") == 0 ? 80 : strcmp(s, "sm90") == 0 ? 90 : strcmp(s, "sm100") == 0 ? 100 : 0;
}

} // namespace

#ifdef FB_SIMT

extern "C" const fb_ops *fb_simt_ops(char *)
{
    static const fb_ops sm80 = make_table<80>("simt"), sm90 = make_table<90>("simt"), sm100 = make_table<100>("simt");
    const int arch = forced_arch();
    return arch == 100 ? &sm100 : arch == 90 ? &sm90 : &sm80;
}

#else

extern "C" const fb_ops *fb_cuda_ops(char *why)
{
    int device = 0, major = 0, minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error != cudaSuccess) {
        (void)cudaGetLastError(); /* the caller's next call must not find our error */
        snprintf(why, FB_MESSAGE_SIZE, "no usable CUDA device: %s", cudaGetErrorString(error));
        return nullptr;
    }
    if (major < 8) {
        snprintf(why, FB_MESSAGE_SIZE, "the CUDA device has compute capability %d.%d; 8.0 is the least", major, minor);
        return nullptr;
    }
    static const fb_ops sm80 = make_table<80>("sm80"), sm90 = make_table<90>("sm90"), sm100 = make_table<100>("sm100");
    const int own = major == 8 ? 80 : major == 9 ? 90 : 100, forced = forced_arch(), arch = forced && forced < own ? forced : own;
    return arch == 80 ? &sm80 : arch == 90 ? &sm90 : &sm100;
}

#endif
