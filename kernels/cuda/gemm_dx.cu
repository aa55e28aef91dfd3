/* gemm_dx.cu — dX = dY W (+ U B) (+ dX), W in 4 bits: the choice of a path.  The kernels are in the paths' own files. */
#include "gemm.cuh"

extern "C" fb_status FB_CUDA(gemm_dx)(const fb_gemm_call *c)
{
    fb_status status;
    if (FB_CUDA(gemm_hopper)(c, true, &status)) return status;
    return FB_CUDA(gemm_dx_any)(c);
}
extern "C" size_t FB_CUDA(gemm_dx_workspace)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype) { return 0; }
/* The scale changes along the contraction, so it is applied to the weight: every path multiplies what dequantize gives. */
extern "C" fb_weights FB_CUDA(gemm_dx_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype)
{
    return FB_WEIGHTS_ROUNDED;
}
