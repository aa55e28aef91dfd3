/* demo_gemm_sm90.cu — how the pieces of the PTX layer fit together, on one page: Y = X W^T with NF4 weights, decoded straight
 * into wgmma's A registers.  Small on purpose; nvcc compiles it (make check-ptx), test_simt_ptx_gemm runs it.
 *
 *   block: 128 weight rows x 64 tokens; a step is 64 of K
 *   warpgroup 0      producer: one thread issues tensor copies into 4 stages
 *                      X      64 tokens x 64, bf16, 128-byte swizzle   8 KiB
 *                      codes  128 rows x 32 bytes                      4 KiB
 *   warpgroups 1, 2  consumers, 64 rows each: decode 16 of K into registers, wgmma m64n64k16 with X from shared memory
 *
 *           full[s]: the copies' bytes            empty[s]: 8 consumer warps
 *   producer --------------------------> consumers -------------------------> producer
 */
#ifdef __CUDACC__
#include "kernels/cuda/launch.cuh"
#endif
#include "kernels/cuda/tensor_map.cuh"

#include "formats.h"

#if defined(FB_SIMT) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kDemoRows = 128, kDemoTokens = 64, kDemoStep = 64, kDemoStages = 4;

FB_CONSTANT(uint32_t, demo_nf4, [16]) = {FB_NF4_BITS};

/* One byte holds columns 2i (high nibble) and 2i + 1 of a row. */
static __device__ __forceinline__ uint32_t demo_decode(uint32_t byte, float scale) {
    float even = __fmul_rn(__uint_as_float(demo_nf4[byte >> 4]), scale), odd = __fmul_rn(__uint_as_float(demo_nf4[byte & 15]), scale);
    return ptx::cvt_rn_bf16x2(odd, even);
}

/* BUG: 0 none; 1 consumers do not wait for the first stage's copies; 2 a stage is handed back before wgmma has read it;
 * 3 no wgmma.fence; 4 the accumulators are stored before the wait; 5 the producer forgets the codes' bytes */
template <int BUG>
__global__ void __launch_bounds__(384) demo_gemm_sm90(const __grid_constant__ CUtensorMap map_x, const __grid_constant__ CUtensorMap map_codes,
                                                      const float *absmax, float *y, int n, int k) {
    FB_SHARED_ALIGNED(unsigned char, xs, [kDemoStages][kDemoTokens * 128], 1024);
    FB_SHARED_ALIGNED(unsigned char, codes, [kDemoStages][kDemoRows * 32], 128);
    FB_SHARED_ALIGNED(uint64_t, full, [kDemoStages], 8);
    FB_SHARED_ALIGNED(uint64_t, empty, [kDemoStages], 8);
    const unsigned t = threadIdx.x, lane = t % 32;
    const int steps = k / kDemoStep, row0 = (int)blockIdx.x * kDemoRows, token0 = (int)blockIdx.y * kDemoTokens;

    if (t == 0) {
        for (int s = 0; s < kDemoStages; s++) {
            ptx::mbarrier_init(ptx::shared_address(&full[s]), 1);
            ptx::mbarrier_init(ptx::shared_address(&empty[s]), 8);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();

    if (t < 128) {
        ptx::setmaxnreg_dec<40>();
        if (t >= 32 || !ptx::elect_sync(~0u)) return;
        ptx::prefetch_tensormap(&map_x);
        ptx::prefetch_tensormap(&map_codes);
        const uint64_t once = ptx::createpolicy_evict_first();
        for (int i = 0; i < steps; i++) {
            int s = i % kDemoStages;
            uint32_t f = ptx::shared_address(&full[s]);
            ptx::mbarrier_wait_parity(ptx::shared_address(&empty[s]), (uint32_t)(i / kDemoStages & 1) ^ 1);
            ptx::mbarrier_arrive_expect_tx(f, kDemoTokens * 128 + (BUG == 5 ? 0 : kDemoRows * 32));
            ptx::cp_async_bulk_tensor_2d_load(ptx::shared_address(xs[s]), &map_x, i * kDemoStep, token0, f);
            ptx::cp_async_bulk_tensor_2d_load_hint(ptx::shared_address(codes[s]), &map_codes, i * kDemoStep / 2, row0, f, once);
        }
        return;
    }
    ptx::setmaxnreg_inc<232>();

    const int row = (int)(t / 128 - 1) * 64 + (int)(t % 128 / 32) * 16 + (int)(lane / 4), pair = (int)(lane % 4);
    const float *scales = absmax + (size_t)(row0 + row) * (size_t)steps; /* block 64: one a row and step */
    float d[kDemoTokens / 2];
    for (int i = 0; i < kDemoTokens / 2; i++) d[i] = 0;
    for (int i = 0; i < steps; i++) {
        int s = i % kDemoStages;
        if (BUG != 1 || i) ptx::mbarrier_wait_parity(ptx::shared_address(&full[s]), (uint32_t)(i / kDemoStages & 1));
        float upper = scales[i], lower = scales[8 * steps + i];
        uint32_t a[kDemoStep / 16][4];
        for (int kk = 0; kk < kDemoStep / 16; kk++) {
            const unsigned char *c = &codes[s][row * 32 + kk * 8 + pair];
            a[kk][0] = demo_decode(c[0], upper);
            a[kk][1] = demo_decode(c[8 * 32], lower);
            a[kk][2] = demo_decode(c[4], upper);
            a[kk][3] = demo_decode(c[8 * 32 + 4], lower);
        }
        uint64_t x = ptx::matrix_descriptor(ptx::shared_address(xs[s]), 16, 1024, ptx::Swizzle::B128);
        for (int r = 0; r < kDemoTokens / 2; r++) ptx::wgmma_fence_operand(d[r]);
        if (BUG != 3) ptx::wgmma_fence();
        for (int kk = 0; kk < kDemoStep / 16; kk++) /* 16 of K are 32 bytes on, inside the swizzle */
            ptx::wgmma_bf16_rs<kDemoTokens>(d, a[kk], x + (uint64_t)(2 * kk), 1);
        ptx::wgmma_commit_group();
        if (BUG == 2 && lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&empty[s]));
        if (BUG != 4 || i + 1 < steps) ptx::wgmma_wait_group<0>();
        for (int r = 0; r < kDemoTokens / 2; r++) ptx::wgmma_fence_operand(d[r]);
        __syncwarp();
        if (BUG != 2 && lane == 0) ptx::mbarrier_arrive(ptx::shared_address(&empty[s]));
    }
    for (int i = 0; i < kDemoTokens / 2; i++)
        y[(size_t)(token0 + i / 4 * 8 + pair * 2 + i % 2) * (size_t)n + (size_t)(row0 + row + i / 2 % 2 * 8)] = d[i];
    if (BUG == 4) ptx::wgmma_wait_group<0>();
}

#ifdef __CUDACC__
template __global__ void demo_gemm_sm90<0>(const __grid_constant__ CUtensorMap, const __grid_constant__ CUtensorMap, const float *, float *, int, int);
#endif
#endif
