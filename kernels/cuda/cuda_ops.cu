/* cuda_ops.cu — the CUDA backend's operations table.  Its pointers are device pointers, so an operation that has no kernel
 * yet cannot fall back to the reference: it says FB_UNSUPPORTED. */
#include "cuda_ops.h"
#include <cstdio>

namespace {

#define UNSUPPORTED(NAME) fb_fail(ctx, FB_UNSUPPORTED, NAME ": the CUDA backend has no kernel for it yet")

size_t workspace(const fb_context *, fb_op, const fb_matrix *, int64_t, fb_dtype) { return 0; }
fb_status quantize(fb_context *ctx, const void *, fb_dtype, fb_matrix *) { return UNSUPPORTED("quantize"); }
fb_status double_quantize(fb_context *ctx, const float *, int64_t, uint8_t *, float *, float *)
{
    return UNSUPPORTED("double_quantize");
}
fb_status decode_absmax(fb_context *ctx, const uint8_t *, const float *, const float *, const float *, int64_t, float *)
{
    return UNSUPPORTED("decode_absmax");
}
fb_status quantize8(fb_context *ctx, fb_map8, const void *, fb_dtype, int64_t, int32_t, uint8_t *, float *)
{
    return UNSUPPORTED("quantize8");
}
fb_status dequantize8(fb_context *ctx, fb_map8, const uint8_t *, const float *, int64_t, int32_t, void *, fb_dtype)
{
    return UNSUPPORTED("dequantize8");
}
fb_status normalize(fb_context *ctx, const void *, fb_dtype, int64_t, void *, fb_dtype, float *)
{
    return UNSUPPORTED("normalize");
}
fb_status denormalize(fb_context *ctx, const void *, fb_dtype, int64_t, const float *, void *, fb_dtype)
{
    return UNSUPPORTED("denormalize");
}
fb_status adamw32(fb_context *ctx, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, float *, float *)
{
    return UNSUPPORTED("adamw32");
}
fb_status adamw8(fb_context *ctx, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, uint8_t *, float *,
                 uint8_t *, float *)
{
    return UNSUPPORTED("adamw8");
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
    ops.quantize = quantize;
    ops.dequantize = FB_CUDA(dequantize);
    ops.double_quantize = double_quantize;
    ops.decode_absmax = decode_absmax;
    ops.quantize8 = quantize8;
    ops.dequantize8 = dequantize8;
    ops.normalize = normalize;
    ops.denormalize = denormalize;
    ops.adamw32 = adamw32;
    ops.adamw8 = adamw8;
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
