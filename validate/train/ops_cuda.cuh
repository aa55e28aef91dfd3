/* ops_cuda.cuh — what the training loop's CUDA sources share: their names, and sums in an order that nothing changes.
 *
 * Each ops_cuda*.cu is compiled twice, as kernels/cuda is (launch.cuh): by nvcc, where a slot of ops.h is called lm_cuda_…,
 * and for the SIMT executor, where it is lm_simt_…. They are small kernels on fp32 around the library's products: right
 * first, coalesced, no atomics, every sum in one fixed order. No GPU has run them yet.
 */
#ifndef FOURBIT_TRAIN_OPS_CUDA_CUH
#define FOURBIT_TRAIN_OPS_CUDA_CUH

#include "kernels/cuda/elements.cuh"
#include "ops_cuda.h"

static constexpr int kThreads = 256, kWarps = kThreads / FB_WARP;

/* One element a thread, in turns beyond what a grid can have. */
#define LM_FOR_EACH(i, n) \
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < (n); i += (int64_t)gridDim.x * kThreads)
/* One row a block. */
#define LM_FOR_ROWS(row, n) for (int64_t row = blockIdx.x; row < (n); row += gridDim.x)

/* In the executor few, so that the tests see the turns. */
#ifdef FB_SIMT
static constexpr int64_t kMostBlocks = 24, kMostBatch = 2;
#else
static constexpr int64_t kMostBlocks = (int64_t)1 << 30, kMostBatch = 65535;
#endif

static inline fb_grid lm_rows(int64_t n)
{
    return fb_grid{dim3((unsigned)(n < kMostBlocks ? n : kMostBlocks)), dim3((unsigned)kThreads), 0, dim3(1)};
}
static inline fb_grid lm_each(int64_t n) { return lm_rows(fb_ceil_div(n, kThreads)); }

template <class T> static inline fb_operand lm_in(const T *p, int64_t n, const char *name)
{
    return fb_operand{p, (size_t)n * sizeof *p, name, false};
}
template <class T> static inline fb_operand lm_out(T *p, int64_t n, const char *name)
{
    return fb_operand{p, p ? (size_t)n * sizeof *p : 0, name, true};
}

static __device__ __forceinline__ int lm_lane() { return (int)threadIdx.x % FB_WARP; }
static __device__ __forceinline__ int lm_warp() { return (int)threadIdx.x / FB_WARP; }

/* All lanes get it. */
template <class T> static __device__ __forceinline__ T lm_warp_sum(T v)
{
#pragma unroll
    for (int s = FB_WARP / 2; s > 0; s /= 2) v += __shfl_xor_sync(FB_ALL_LANES, v, s);
    return v;
}
static __device__ __forceinline__ float lm_warp_max(float v)
{
#pragma unroll
    for (int s = FB_WARP / 2; s > 0; s /= 2) v = fmaxf(v, __shfl_xor_sync(FB_ALL_LANES, v, s));
    return v;
}

/* All threads of the block come here, and get it; partial may be used again at once. */
template <class T> static __device__ __forceinline__ T lm_block_sum(T v, T (&partial)[kWarps])
{
    v = lm_warp_sum(v);
    if (lm_lane() == 0) partial[lm_warp()] = v;
    __syncthreads();
    T sum = partial[0];
#pragma unroll
    for (int w = 1; w < kWarps; w++) sum += partial[w];
    __syncthreads();
    return sum;
}
static __device__ __forceinline__ float lm_block_max(float v, float (&partial)[kWarps])
{
    v = lm_warp_max(v);
    if (lm_lane() == 0) partial[lm_warp()] = v;
    __syncthreads();
    float most = partial[0];
#pragma unroll
    for (int w = 1; w < kWarps; w++) most = fmaxf(most, partial[w]);
    __syncthreads();
    return most;
}

#endif
