/* gemm_hopper.cu — which of the sm_90a paths a product takes, if any: fb_sm90_rules of dispatch.h. */
#include "dispatch.h"
#include "gemm_sm90.h"

extern "C" bool FB_CUDA(gemm_hopper)(const fb_gemm_call *c, bool dx, fb_status *status)
{
    if (c->device.arch != 90) return false;
    for (const fb_sm90_rule &r : fb_sm90_rules) {
        if (c->m < r.m_least || c->m > r.m_most) continue;
        switch (r.path) {
        case FB_SM90_STREAM:
            if (dx || !FB_CUDA(gemm_stream_sm90_serves)(c)) break;
            *status = FB_CUDA(gemm_stream_sm90)(c);
            return true;
        case FB_SM90_GEMM:
            if (dx || !FB_CUDA(gemm_sm90_serves)(c)) break;
            *status = FB_CUDA(gemm_sm90)(c);
            return true;
        case FB_SM90_GEMM_DX:
            if (!dx || !FB_CUDA(gemm_dx_sm90_serves)(c)) break;
            *status = FB_CUDA(gemm_dx_sm90)(c);
            return true;
        }
    }
    return false;
}
