/* test_cuda_planted.cpp: the CUDA operations once more, with barriers that can be left out one at a time. */
#include "dropout.h"
#include "kernels/cuda/elements.cuh"
#include "ops_cuda.h"
#include "test_cuda_device.h"

static int left_out = -1;
static planted_barrier barriers[PLANTED_MOST];

/* The executor must not see these looks at host variables. */
__attribute__((noinline, no_sanitize("thread"))) static bool is_left_out(int number, const char *file, int line)
{
    barriers[number].file = file;
    __atomic_store_n(&barriers[number].line, line, __ATOMIC_RELAXED);
    return number == left_out;
}

/* A barrier's number is its place in this unit; templates share theirs. */
#define IS_LEFT_OUT is_left_out(__COUNTER__, __FILE__, __LINE__)
#define __syncthreads() (IS_LEFT_OUT ? (void)0 : __syncthreads())
#define __syncthreads_or(any) (IS_LEFT_OUT ? 1 : __syncthreads_or(any))
#undef LM_CUDA
#define LM_CUDA(NAME) lm_planted_##NAME

namespace planted {
#include "ops_cuda_attention.cu"
#include "ops_cuda_elements.cu"
#include "ops_cuda_embed.cu"
#include "ops_cuda_loss.cu"
#include "ops_cuda_product.cu"
#include "ops_cuda_rmsnorm.cu"
#include "ops_cuda.cu"
} // namespace planted

extern "C" const lm_ops *planted_ops(void) { return planted::lm_planted_ops(); }
extern "C" const planted_barrier *planted_barriers(void) { return barriers; }
extern "C" void planted_leave_out(int number) { left_out = number; }
