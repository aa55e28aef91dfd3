/* cuda_ops.cu — the CUDA backend's operations table.  Its pointers are device pointers, so an operation that has no kernel
 * yet cannot fall back to the reference: it says FB_UNSUPPORTED. */
#include "cuda_ops.h"
#include <cstdio>

namespace {

#define UNSUPPORTED(NAME) fb_fail(ctx, FB_UNSUPPORTED, NAME ": the CUDA backend has no kernel for it yet")

size_t workspace(const fb_context *, fb_op op, const fb_matrix *w, int64_t, fb_dtype)
{
    return op == FB_OP_QUANTIZE ? FB_CUDA(quantize_workspace)(w) : 0;
}
fb_weights weights(const fb_context *, const fb_matrix *, int64_t, fb_dtype) { return FB_WEIGHTS_ROUNDED; }
fb_status gemm(fb_context *ctx, const fb_matrix *, int64_t, const void *, fb_dtype, const void *, void *, fb_dtype)
{
    return UNSUPPORTED("gemm");
}
fb_status gemm_dx(fb_context *ctx, const fb_matrix *, int64_t, const void *, fb_dtype, void *, fb_dtype, bool)
{
    return UNSUPPORTED("gemm_dx");
}

fb_ops make_table(const char *variant)
{
    fb_ops ops = {};
    ops.variant = variant;
    ops.workspace = workspace;
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
    ops.gemm_weights = ops.gemm_dx_weights = weights;
    ops.gemm = gemm;
    ops.gemm_dx = gemm_dx;
    return ops;
}

} // namespace

#ifdef FB_SIMT

extern "C" const fb_ops *fb_simt_ops(char *)
{
    static const fb_ops table = make_table("simt");
    return &table;
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
    static const fb_ops sm80 = make_table("sm80"), sm90 = make_table("sm90"), sm100 = make_table("sm100");
    return major == 8 ? &sm80 : major == 9 ? &sm90 : &sm100;
}

#endif
