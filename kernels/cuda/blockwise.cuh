/* blockwise.cuh — the frame of blockwise quantization: a warp's tile of 1024 elements, the largest magnitude of each block
 * in it, and full-width stores of what came out.
 *
 *   tile of a warp, fp32 (V = 4 elements in 16 bytes, 8 loads) and bf16, fp16 (V = 8, 4 loads):
 *
 *      load 0   | lane 0: V elements | lane 1 | ... | lane 31 |      32 V elements, whole lines
 *      load 1   | lane 0             | ...
 *
 *   a block of B elements is    B/V lanes of one load        B <= 32 V
 *                               all lanes of B/(32 V) loads  B <= 1024
 *                               B/1024 warps                 B = 2048, 4096
 *
 * All its loads are in flight before the first is waited for. Block sizes are a run-time number: only the number of
 * shuffles depends on it.
 */
#ifndef FB_BLOCKWISE_CUH
#define FB_BLOCKWISE_CUH

#include "elements.cuh"

static constexpr int FB_TILE = 1024, FB_TILE_WARPS = 8, FB_TILE_THREADS = 256;

template <class T> struct fb_tile {
    static constexpr int V = fb_element<T>::per_16_bytes, L = FB_TILE / (FB_WARP * V), log2_v = V == 4 ? 2 : 3;
};

template <class T> static __device__ __forceinline__ int64_t fb_tile_index(int64_t begin, int j, int lane)
{
    return begin + (j * FB_WARP + lane) * fb_tile<T>::V;
}

template <class T, int L>
static __device__ __forceinline__ void fb_tile_load(const T *src, int64_t begin, int64_t n, bool wide, uint4 (&raw)[L])
{
    const int lane = (int)threadIdx.x % FB_WARP;
#pragma unroll
    for (int j = 0; j < L; j++) raw[j] = fb_load_16(src, fb_tile_index<T>(begin, j, lane), n, wide);
}

struct fb_larger {
    __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const { return a > b ? a : b; }
};
struct fb_less_float { /* of a range that holds 0: which zero comes out does not matter */
    __device__ __forceinline__ float operator()(float a, float b) const { return fminf(a, b); }
};
struct fb_larger_float {
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/* m[j], over the elements this lane has of load j, becomes that of the whole block. partial: 8 words of shared memory.
 * Every thread of the block comes here, or (B <= 1024) every lane of the warp. */
template <class T, class M, int L, class Op>
static __device__ __forceinline__ void fb_reduce_blocks(M (&m)[L], int log2_block, M *partial, Op op)
{
    const int log2_load = fb_tile<T>::log2_v + 5;
    const int lanes = 1 << (log2_block < log2_load ? log2_block - fb_tile<T>::log2_v : 5);
    for (int s = 1; s < lanes; s *= 2) {
#pragma unroll
        for (int j = 0; j < L; j++) m[j] = op(m[j], __shfl_xor_sync(FB_ALL_LANES, m[j], s));
    }
#pragma unroll
    for (int d = 1; d < L; d *= 2) {
        if (log2_block <= log2_load + (d > 1) + (d > 2)) break;
#pragma unroll
        for (int j = 0; j < L; j++)
            if (!(j & d)) m[j] = m[j | d] = op(m[j], m[j | d]);
    }
    if (1 << log2_block <= FB_TILE) return;
    const int warp = (int)threadIdx.x / FB_WARP, warps = (1 << log2_block) / FB_TILE;
    __syncthreads(); /* the tile before may still be read */
    if (threadIdx.x % FB_WARP == 0) partial[warp] = m[0];
    __syncthreads();
    M all = partial[warp & ~(warps - 1)];
    for (int w = 1; w < warps; w++) all = op(all, partial[(warp & ~(warps - 1)) + w]);
#pragma unroll
    for (int j = 0; j < L; j++) m[j] = all;
}

/* One value a block out of values[j], the same in all lanes of a block: lane b gets the tile's block b, so that they are
 * stored side by side. The lanes that have one, whose blocks begin before n, are those for which it returns true. */
template <class T, class M, int L>
static __device__ __forceinline__ bool fb_gather_blocks(const M (&values)[L], int64_t begin, int64_t n, int log2_block,
                                                        M &value, int64_t &block)
{
    const int lane = (int)threadIdx.x % FB_WARP, at = lane << log2_block;
    const int from = at >> fb_tile<T>::log2_v, load = from / FB_WARP;
    value = values[0];
#pragma unroll
    for (int j = 0; j < L; j++) {
        M v = __shfl_sync(FB_ALL_LANES, values[j], from % FB_WARP);
        if (load == j) value = v;
    }
    block = (begin + at) >> log2_block;
    return at < FB_TILE && begin + at < n && (begin & (((int64_t)1 << log2_block) - 1) & ~(int64_t)(FB_TILE - 1)) == 0;
}

/* Lane i of every four (lane bits low and 2 low) gets word i of all four, in lane order. */
static __device__ __forceinline__ void fb_transpose_4(uint32_t (&w)[4], unsigned low)
{
    const unsigned lane = threadIdx.x;
    const bool odd = lane & low, upper = lane & (2 * low);
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
        uint32_t got = __shfl_xor_sync(FB_ALL_LANES, odd ? w[k] : w[k + 1], (int)low);
        if (odd) w[k] = got;
        else w[k + 1] = got;
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        uint32_t got = __shfl_xor_sync(FB_ALL_LANES, upper ? w[k] : w[k + 2], (int)(2 * low));
        if (upper) w[k] = got;
        else w[k + 2] = got;
    }
}

#endif
