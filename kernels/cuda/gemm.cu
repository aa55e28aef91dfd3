/* gemm.cu — Y = X W^T (+ U B^T) (+ bias), W in 4 bits: the choice of a path.  The kernels are in the paths' own files. */
#include "gemm.cuh"
#include "dispatch.h"

namespace {

fb_gemm_path path_of(const fb_device &device, const fb_matrix *w, int64_t m)
{
    for (const fb_gemm_rule &r : fb_gemm_rules) {
        if (device.arch < r.arch || m > r.m_most || (r.weights_most && w->rows * w->cols > r.weights_most)) continue;
        return r.path;
    }
    return FB_GEMM_ANY;
}

} // namespace

extern "C" fb_status FB_CUDA(gemm)(const fb_gemm_call *c)
{
    fb_status status;
    if (FB_CUDA(gemm_hopper)(c, false, &status)) return status;
    switch (path_of(c->device, c->w, c->m)) {
    case FB_GEMM_ANY: break;
    }
    return FB_CUDA(gemm_any)(c);
}

extern "C" size_t FB_CUDA(gemm_workspace)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype) { return 0; }

/* Every path multiplies weights as dequantize gives them. */
extern "C" fb_weights FB_CUDA(gemm_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype)
{
    return FB_WEIGHTS_ROUNDED;
}
