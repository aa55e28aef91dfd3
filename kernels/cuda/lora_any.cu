/* lora_any.cu — a thin product (lora.cuh) of every shape, type and alignment: the path that is right where lora_mma.cu does not apply
 * (fp32; a rank, K or N that is no multiple of 8; pointers aligned only to their element).
 *
 * Reads the wide operand once for each 64 of rank, the thin one once for each 64 rows; 2 rows depth rank flops, as fp32 fmas: 16 for
 * 2 loads of shared memory, bound by those and by one lane's element at a time on the way in.  Unconfirmed on a GPU.
 *
 *   v1  one tile of 64 x 64 a block, 32 of the sum a step; fmaf in ascending l, one accumulator an element: the same bits always
 *
 *        l   0 ... 31                      thread t: rows 4 (t % 16) ... + 3, ranks 4 (t / 16) ... + 3
 *      +-------------------+
 *      | wide     [32][72] |  64 rows      acc[4][4] += thin[l][4 ranks] * wide[l][4 rows]
 *      +-------------------+
 *      | thin     [32][72] |  64 ranks     72: either way of lying, a warp's stores hit 32 banks
 *      +-------------------+
 */
#include "lora.cuh"

namespace {

constexpr int kThreads = 256, kSide = 64, kStep = 32, kPitch = 72;

/* i0 ... i0 + 63, l0 ... l0 + 31 of a matrix [count][depth], or, across, [depth][count], as far as count goes in fours: what a thread
 * multiplies. A warp: 8 i and 4 l, or 32 i. */
template <class T>
__device__ __forceinline__ void fill(float *to, const void *from, bool across, int64_t count, int64_t depth, int64_t i0, int64_t l0,
                                     uint64_t seed, uint32_t threshold)
{
    const int i = across ? (int)threadIdx.x % kSide : (int)threadIdx.x / 4;
    if (i0 + i >= ((count + 3) & ~(int64_t)3)) return;
    for (int j = 0; j < kStep / 4; j++) {
        const int l = (across ? (int)threadIdx.x / kSide : (int)threadIdx.x % 4) + 4 * j;
        const int64_t at = across ? (l0 + l) * count + i0 + i : (i0 + i) * depth + l0 + l;
        const bool there = i0 + i < count && l0 + l < depth, kept = !threshold || fb_dropout_keeps_4(seed, threshold, at / 4) >> at % 4 & 1;
        to[l * kPitch + i] = there && kept ? fb_element_at<T>(from, at) : 0.0f;
    }
}

__device__ __forceinline__ void multiply(const float *wide, const float *thin, float (&acc)[4][4])
{
    const int row = (int)threadIdx.x % 16 * 4, rank = (int)threadIdx.x / 16 * 4;
    for (int l = 0; l < kStep; l++) {
        const float4 w = *(const float4 *)&wide[l * kPitch + row], t = *(const float4 *)&thin[l * kPitch + rank];
        const float a[4] = {w.x, w.y, w.z, w.w}, b[4] = {t.x, t.y, t.z, t.w};
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[r][i] = __fmaf_rn(a[i], b[r], acc[r][i]);
    }
}

__device__ __forceinline__ void store(const fb_thin_product &p, int64_t i0, int r0, const float (&acc)[4][4])
{
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i0 + i >= p.rows || r0 + r >= p.rank) continue;
            const int64_t at = p.out_across ? (r0 + r) * p.rows + i0 + i : (i0 + i) * p.rank + r0 + r;
            const float v = __fmul_rn(p.factor, acc[r][i]);
            if (p.out_dtype == FB_F32) ((float *)p.out)[at] = p.accumulate ? __fadd_rn(v, ((float *)p.out)[at]) : v;
            else ((uint16_t *)p.out)[at] = (uint16_t)fb_float_to_half_bits(v, p.out_dtype);
        }
}

template <class T> __global__ void __launch_bounds__(kThreads) lora_any(const fb_thin_product p)
{
    FB_SHARED(float, wide, [kStep * kPitch]);
    FB_SHARED(float, thin, [kStep * kPitch]);
    const int rank_tiles = (p.rank + kSide - 1) / kSide;
    const int64_t tiles = rank_tiles * ((p.rows + kSide - 1) / kSide);
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t i0 = tile / rank_tiles * kSide;
        const int r0 = (int)(tile % rank_tiles) * kSide, mine = r0 + (int)threadIdx.x / 16 * 4;
        float acc[4][4] = {};
        for (int64_t l0 = 0; l0 < p.depth; l0 += kStep) {
            __syncthreads();
            fill<T>(wide, p.wide, p.wide_across, p.rows, p.depth, i0, l0, p.seed, p.threshold);
            fill<T>(thin, p.thin, p.thin_across, p.rank, p.depth, r0, l0, 0, 0);
            __syncthreads();
            if (mine < p.rank && i0 + threadIdx.x % 16 * 4 < p.rows) multiply(wide, thin, acc);
        }
        store(p, i0 + threadIdx.x % 16 * 4, mine, acc);
    }
}

template <class T> fb_status launch(const fb_thin_call &c)
{
    fb_operand all[FB_THIN_OPERANDS];
    fb_thin_operands(c, false, all);
    const int64_t tiles = fb_ceil_div(c.p.rows, kSide) * fb_ceil_div(c.p.rank, kSide);
    return FB_LAUNCH(c.ctx, (lora_any<T>), fb_plain_grid(tiles, kThreads), all, c.p);
}

} // namespace

extern "C" fb_status FB_CUDA(lora_any)(const fb_thin_call *c)
{
    switch (c->t) {
    case FB_F32: return launch<float>(*c);
    case FB_BF16: return launch<__nv_bfloat16>(*c);
    default: return launch<__half>(*c);
    }
}
