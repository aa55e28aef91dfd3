/* test_lora_planted.cpp — lora_mma.cu once more, with instructions that can be made to fail. */
#include "kernels/cuda/decode_mma.cuh"
#include "kernels/cuda/lora.cuh"
#include "planted_lora.h"

/* The executor must not see the look at a host variable. */
__attribute__((noinline, no_sanitize("thread"))) static bool planted(PlantedLora bug) { return planted_bug == bug; }

namespace ptx {

template <int N> static inline void planted_wait_group()
{
    if (planted(kWeakWait)) cp_async_wait_group<N + 1>();
    else cp_async_wait_group<N>();
}
static inline void planted_trans(uint32_t (&d)[4], uint32_t row)
{
    if (planted(kNotTransposed)) ldmatrix_x4(d, row);
    else ldmatrix_x4_trans(d, row);
}
static inline void planted_zfill(uint32_t to, const void *from, uint32_t bytes) { cp_async_16_zfill(to, from, planted(kNoZeros) ? 16 : bytes); }

} // namespace ptx

static inline void planted_barrier()
{
    if (!planted(kNoBarrier)) __syncthreads();
}
static inline uint32_t planted_keeps(uint64_t seed, uint32_t threshold, int64_t quad)
{
    return fb_dropout_keeps_4(seed, threshold, quad + (planted(kOtherMask) ? 1 : 0));
}

#define cp_async_wait_group planted_wait_group
#define ldmatrix_x4_trans planted_trans
#define cp_async_16_zfill planted_zfill
#define __syncthreads planted_barrier
#define fb_dropout_keeps_4 planted_keeps
#undef FB_CUDA
#define FB_CUDA(NAME) planted_##NAME
#include "kernels/cuda/lora_mma.cu"
