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
 * Block sizes are a run-time number: only the number of
 * shuffles depends on it. What is computed once a block (a scale, its reciprocal) is computed by one lane of each four or
 * eight, which takes one load each, and fetched from there.
 */
#ifndef FB_BLOCKWISE_CUH
#define FB_BLOCKWISE_CUH

#include "elements.cuh"
#include "ptx.cuh"

static constexpr int FB_TILE = 1024, FB_TILE_WARPS = 8, FB_TILE_THREADS = 256;

template <class T> struct fb_tile {
    static constexpr int V = fb_element<T>::per_16_bytes, L = FB_TILE / (FB_WARP * V), log2_v = V == 4 ? 2 : 3;
};

template <class T> static __device__ __forceinline__ int64_t fb_tile_index(int64_t begin, int j, int lane)
{
    return begin + (j * FB_WARP + lane) * fb_tile<T>::V;
}

/* How many elements the tile has: asked once, so that what follows counts in 32 bits. */
static __device__ __forceinline__ int fb_tile_valid(int64_t begin, int64_t n)
{
    return n - begin >= FB_TILE ? FB_TILE : n > begin ? (int)(n - begin) : 0;
}

/* A warp's next tile, on its way to shared memory while the warp works at one: without, 24 warps a multiprocessor that wait for
 * their own loads left an H200's memory idle for a quarter of the time. A lane copies and takes what is its own, so there is no
 * barrier; what is not whole, or not aligned, is loaded when it is taken. (Two tiles ahead were slower.) */
template <class T> struct fb_next_tile {
    static constexpr int L = fb_tile<T>::L;
    uint4 *pieces; /* this lane's, a warp's width apart */
    const T *src;
    int64_t n;
    bool wide;
    __device__ __forceinline__ bool whole(int64_t begin) const { return wide && n - begin >= FB_TILE; }
    __device__ __forceinline__ void fetch(int64_t begin) const
    {
        if (!whole(begin)) return;
        const uint4 *from = (const uint4 *)(src + begin) + (int)threadIdx.x % FB_WARP;
#pragma unroll
        for (int j = 0; j < L; j++) ptx::cp_async_16(ptx::shared_address(pieces + j * FB_WARP), from + j * FB_WARP);
    }
    __device__ __forceinline__ void take(int64_t begin, int valid, uint4 (&raw)[L]) const
    {
        ptx::cp_async_wait_all();
        if (whole(begin)) {
#pragma unroll
            for (int j = 0; j < L; j++) raw[j] = pieces[j * FB_WARP];
            return;
        }
#pragma unroll
        for (int j = 0; j < L; j++) raw[j] = fb_load_16(src + begin, fb_tile_index<T>(0, j, (int)threadIdx.x % FB_WARP), valid, wide);
    }
};
/* Shared memory for FB_TILE_WARPS of them, and the kernel's grid: what fits on the device, and walks. */
template <class T> static constexpr int fb_tile_pieces = FB_TILE_WARPS * fb_tile<T>::L * FB_WARP;
template <class T> static constexpr int fb_tile_blocks = sizeof(T) == 4 ? 2 : 4; /* a multiprocessor */
template <class T> static __device__ __forceinline__ fb_next_tile<T> fb_make_next_tile(uint4 *shared, const T *src, int64_t n, bool wide)
{
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    return fb_next_tile<T>{shared + warp * fb_tile<T>::L * FB_WARP + lane, src, n, wide};
}
template <class T> static inline fb_grid fb_tile_grid(int64_t n)
{
    return fb_resident_grid(fb_ceil_div(n, FB_TILE * FB_TILE_WARPS), fb_tile_blocks<T>, FB_TILE_THREADS, 0);
}

/* ---- magnitudes: integers, in which NaN and Inf come out on top; of 16-bit types two in a word ----------------- */

template <class T> struct fb_larger { /* of magnitudes, and of anything else as unsigned numbers */
    __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const
    {
        return sizeof(T) == 2 ? __vmaxu2(a, b) : a > b ? a : b;
    }
};
template <class T> struct fb_larger_signed {
    __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const
    {
        return sizeof(T) == 2 ? __vmaxs2(a, b) : (uint32_t)((int)a > (int)b ? (int)a : (int)b);
    }
};
template <class T, class Op> static __device__ __forceinline__ uint32_t fb_of_16_bytes(uint4 raw, Op op)
{
    return op(op(raw.x, raw.y), op(raw.z, raw.w));
}
template <class T> static __device__ __forceinline__ uint32_t fb_largest_magnitude(uint4 raw)
{
    const uint32_t magnitude = sizeof(T) == 2 ? 0x7fff7fffu : 0x7fffffffu;
    return fb_of_16_bytes<T>(make_uint4(raw.x & magnitude, raw.y & magnitude, raw.z & magnitude, raw.w & magnitude), fb_larger<T>());
}
/* The larger half of a word as fp32 bits; SIGNED: the halves are signed. */
template <class T, bool SIGNED = false> static __device__ __forceinline__ uint32_t fb_of_halves(uint32_t most)
{
    if (sizeof(T) == 4) return most;
    int high = SIGNED ? (int)most >> 16 : (int)(most >> 16), low = SIGNED ? (int)(most << 16) >> 16 : (int)(most & 0xffffu);
    return __float_as_uint(fb_half_bits_to_float((uint32_t)(high > low ? high : low) & 0xffffu, fb_element<T>::dtype));
}

/* ---- what belongs to a block: each lane has one block's, that of load fb_load_of(lane) ------------------------- */

/* The lowest bits of a lane's number, reversed, or of a load's. */
template <class T> static __device__ __forceinline__ constexpr int fb_load_of(int lane)
{
    return fb_tile<T>::L == 4 ? (lane & 1) << 1 | (lane >> 1 & 1) : (lane & 1) << 2 | (lane & 2) | (lane >> 2 & 1);
}

/* m[j], over the elements this lane has of load j, becomes that of the whole block that this lane's load is in. A halving
 * at a time, lanes hand over the loads that the other half of them keeps: 2 + 1 shuffles for 4 loads and two steps, where
 * four blocks side by side took 4 + 4. partial: 8 words of shared memory. Every thread of the block comes here, or (B <= 1024)
 * every lane of the warp. */
template <class T, int L, class Op>
static __device__ __forceinline__ uint32_t fb_reduce_blocks(uint32_t (&m)[L], int log2_block, uint32_t *partial, Op op)
{
    const int log2_load = fb_tile<T>::log2_v + 5, lane = (int)threadIdx.x % FB_WARP;
#pragma unroll
    for (int half = L / 2, s = 1; half >= 1; half /= 2, s *= 2) {
        const bool upper = lane & s;
#pragma unroll
        for (int j = 0; j < half; j++) {
            uint32_t got = __shfl_xor_sync(FB_ALL_LANES, upper ? m[j] : m[j + half], s);
            m[j] = op(upper ? m[j + half] : m[j], got);
        }
    }
    uint32_t most = m[0];
    const int lanes = 1 << (log2_block < log2_load ? log2_block - fb_tile<T>::log2_v : 5);
    for (int s = L; s < lanes; s *= 2) most = op(most, __shfl_xor_sync(FB_ALL_LANES, most, s));
    for (int s = L / 2, b = log2_load; s >= 1 && b < log2_block; s /= 2, b++) most = op(most, __shfl_xor_sync(FB_ALL_LANES, most, s));
    if (1 << log2_block <= FB_TILE) return most;
    const int warp = (int)threadIdx.x / FB_WARP, warps = (1 << log2_block) / FB_TILE;
    __syncthreads(); /* the tile before may still be read */
    if (lane == 0) partial[warp] = most;
    __syncthreads();
    for (int w = 0; w < warps; w++) most = op(most, partial[(warp & ~(warps - 1)) + w]);
    return most;
}

/* Of the block that load j of this lane is in. */
template <class T, class M> static __device__ __forceinline__ M fb_of_load(M mine, int j)
{
    return __shfl_sync(FB_ALL_LANES, mine, fb_load_of<T>(j), fb_tile<T>::L);
}

/* Lane b gets what belongs to the tile's block b, so that they are stored side by side: at absmax + begin / B + lane. The lanes
 * that have one are those for which fb_has_block is true. */
template <class T, class M> static __device__ __forceinline__ M fb_gather_blocks(M mine, int log2_block)
{
    const int lane = (int)threadIdx.x % FB_WARP, from = lane << log2_block >> fb_tile<T>::log2_v;
    return __shfl_sync(FB_ALL_LANES, mine, (from % FB_WARP & ~(fb_tile<T>::L - 1)) | fb_load_of<T>(from / FB_WARP));
}
static __device__ __forceinline__ bool fb_has_block(int64_t begin, int valid, int log2_block)
{
    const int lane = (int)threadIdx.x % FB_WARP;
    return lane << log2_block < valid && ((unsigned)begin & ((1u << log2_block) - 1) & ~(FB_TILE - 1u)) == 0;
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
