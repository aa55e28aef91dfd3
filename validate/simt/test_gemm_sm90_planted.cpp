/* test_gemm_sm90_planted.cpp — gemm_sm90.cu (PLANTED_DX: gemm_dx_sm90.cu; PLANTED_STREAM: gemm_stream_sm90.cu) once more, with
 * instructions that can be made to fail. */
#include "kernels/cuda/gemm_sm90.h"
#include "planted_sm90.h"

namespace ptx {

/* The executor must not see the look at a host variable. */
__attribute__((noinline, no_sanitize("thread"))) static bool planted(Planted bug) { return planted_bug == bug; }
#ifdef PLANTED_STREAM
static bool consumer() { return true; }
#else
static bool consumer() { return threadIdx.x >= 128; }
#endif

[[maybe_unused]] static inline void planted_wait(uint32_t bar, uint32_t parity)
{
    if (consumer() && planted(kNoWait)) return;
    mbarrier_wait_parity(bar, consumer() && planted(kWrongPhase) ? parity ^ 1 : parity);
}
[[maybe_unused]] static inline void planted_copy_wait()
{
    if (!planted(kNoCopyWait)) cp_async_wait_all();
}
[[maybe_unused]] static inline void planted_fence()
{
    if (!planted(kNoFence)) wgmma_fence();
}
template <int N> [[maybe_unused]] static inline void planted_wait_group()
{
    if (N == 1 && planted(kEarlyStage)) wgmma_wait_group<2>();
    else wgmma_wait_group<N>();
}
[[maybe_unused]] static inline void planted_expect(uint32_t bar, uint32_t bytes) { mbarrier_arrive_expect_tx(bar, bytes - (planted(kFewBytes) ? 64 : 0)); }
[[maybe_unused]] static inline uint64_t planted_descriptor(uint32_t at, uint32_t leading, uint32_t stride, Swizzle swizzle)
{
    return matrix_descriptor(at, leading, planted(kWrongStride) ? stride / 2 : stride, swizzle);
}
[[maybe_unused]] static inline void planted_visible()
{
    if (!planted(kInvisibleBarriers)) fence_mbarrier_init();
}
[[maybe_unused]] static inline void planted_proxy()
{
    if (!planted(kNoProxyFence)) fence_proxy_async();
}
[[maybe_unused]] static inline void planted_bar(unsigned id, unsigned threads)
{
    if (!planted(kNoGroupBarrier) && !planted(kNoOutBarrier)) bar_sync(id, threads);
}
[[maybe_unused]] static inline void planted_cluster_arrive()
{
    if (!planted(kNoClusterWait)) cluster_arrive();
}
[[maybe_unused]] static inline void planted_cluster_wait()
{
    if (!planted(kNoClusterWait)) cluster_wait();
}

} // namespace ptx

#ifdef PLANTED_STREAM
[[maybe_unused]] static inline void planted_warp_barrier()
{
    if (!ptx::planted(kNoWarpBarrier)) __syncwarp();
}
#define __syncwarp planted_warp_barrier
[[maybe_unused]] static inline void planted_block_barrier()
{
    if (!ptx::planted(kNoTableBarrier)) __syncthreads();
}
#define __syncthreads planted_block_barrier
#endif
#define cp_async_wait_all planted_copy_wait
#define mbarrier_wait_parity planted_wait
#define wgmma_fence planted_fence
#define wgmma_wait_group planted_wait_group
#define mbarrier_arrive_expect_tx planted_expect
#define matrix_descriptor planted_descriptor
#define fence_mbarrier_init planted_visible
#define fence_proxy_async planted_proxy
#define bar_sync planted_bar
#define cluster_arrive planted_cluster_arrive
#define cluster_wait planted_cluster_wait
#undef FB_CUDA
#define FB_CUDA(NAME) planted_##NAME
#if defined(PLANTED_STREAM)
#include "kernels/cuda/gemm_stream_sm90.cu"
#elif defined(PLANTED_DX)
#include "kernels/cuda/gemm_dx_sm90.cu"
#else
#include "kernels/cuda/gemm_sm90.cu"
#endif
