/* gemm_dx.cu — dX = dY W, W in 4 bits. */
#include "gemm.cuh"

extern "C" fb_status FB_CUDA(gemm_dx)(const fb_gemm_call *c)
{
    return fb_fail(c->ctx, FB_UNSUPPORTED, "gemm_dx: the CUDA backend has no kernel for it yet");
}
extern "C" size_t FB_CUDA(gemm_dx_workspace)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype) { return 0; }
extern "C" fb_weights FB_CUDA(gemm_dx_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype)
{
    return FB_WEIGHTS_ROUNDED;
}
