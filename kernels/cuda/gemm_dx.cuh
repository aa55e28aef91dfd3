/* gemm_dx.cuh — dX = dY W: what its paths tell each other.  The contraction runs over N, down W's columns, while nibbles and
 * blocks run along its rows: the scale changes with every term and cannot be taken out of the sum.  So in all of them a weight is
 * codebook value * absmax in fp32, rounded once to the activations' type, as dequantize would store it, before it meets dY. */
#ifndef FB_GEMM_DX_CUH
#define FB_GEMM_DX_CUH

#include "blockwise.cuh"
#include "dispatch.h"
#include "dropout.h"
#include "gemm.cuh"

/* N is split over blocks that leave fp32 sums [splits][M][K] in the workspace; gemm_dx_sum.cu adds them up in that order. */
static inline size_t fb_dx_partial_bytes(const fb_matrix *w, int64_t m, int splits)
{
    return (size_t)splits * (size_t)m * (size_t)w->cols * sizeof(float);
}

/* Rows of dY a block of gemm_dx_tile takes: padding to 128 would double the work of M = 64. */
static inline int fb_dx_tile_rows(int64_t m) { return m <= 64 ? 64 : 128; }

/* Bit j: element 4 quad + j of dX is kept. */
static __device__ __forceinline__ uint32_t fb_dropout_keeps_4(uint64_t seed, uint32_t threshold, int64_t quad)
{
    const fb_philox words = fb_dropout_words(seed, (uint64_t)quad);
    uint32_t kept = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) kept |= (uint32_t)(words.v[j] >= threshold) << j;
    return kept;
}

extern "C" {
fb_status FB_CUDA(gemm_dx_any)(const fb_gemm_call *);                /* any call */
fb_status FB_CUDA(gemm_dx_small)(const fb_gemm_call *, int splits);  /* M <= 16; always through the workspace */
fb_status FB_CUDA(gemm_dx_tile)(const fb_gemm_call *, int splits);   /* through the workspace if splits > 1 */
fb_status FB_CUDA(gemm_dx_sum)(const fb_gemm_call *, int splits, bool low_rank);
}

#endif
