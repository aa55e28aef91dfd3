/* ops_cuda.cu — the CUDA backend's table of the decoder's small operations. */
#include "ops_cuda.cuh"

extern "C" const lm_ops *LM_CUDA(ops)(void)
{
    static const lm_ops ops = {"cuda", LM_CUDA(product), LM_CUDA(embed), LM_CUDA(embed_backward), LM_CUDA(rmsnorm), LM_CUDA(rmsnorm_backward),
                               LM_CUDA(rope), LM_CUDA(attention), LM_CUDA(attention_backward), LM_CUDA(swiglu), LM_CUDA(swiglu_backward),
                               LM_CUDA(add), LM_CUDA(add_row_sums), LM_CUDA(drop), LM_CUDA(add_kept), LM_CUDA(cross_entropy),
                               LM_CUDA(square_sums)};
    return &ops;
}
