/* gemm_dx_small.cu — dX [M, K] = dY [M, N] W [N, K] for M from 1 to 16: bf16 and fp16, K a multiple of 32, N of 16.
 *
 * Memory-bound: reads 0.5 byte of codes and 4/B of scale a weight once (1/B + 4/(256 B) doubly quantized), 256 rows of dY's 2 M
 * bytes for each 32 KiB of codes; writes 4 M K splits bytes of sums.  8192 x 8192, block 64, at 4.3 TB/s: 8.8 us.
 *
 *   Measured (H200, 8192 x 8192, the sum's launch included; cuBLAS bf16 33-34 us): M = 1 26.1 us, 8 27.6, 16 32.1: a third of what memory gives.
 *
 *   v1  codes straight from global memory into A fragments, nobody shares them, so nothing passes through shared memory but
 *       the table; look-up of two fp32 values a byte (decode_mma.cuh); weights are operand A, so that a multiply-accumulate of 8
 *       tokens costs 1/8 instruction a weight; split over N, warps and blocks added up in a fixed order
 *
 *                  K: 256 columns a block                       lane (g, t) of a warp, a step of 16 rows:
 *           g = 0        1               7                         rows 4 t ... 4 t + 3, 32 columns from 32 g:
 *         +---------+---------+-- ... --+---------+                four loads of 16 bytes, eight lanes a line
 *     t=0 | 4 rows  |         |         |         |   warp 0
 *       1 |         |         |         |         |             fragment c (of 16): byte c of each, columns 2c and 2c + 1
 *       2 |         |         |         |         |                A row g:     column 32 g + 2 c       k: the 4 rows of t
 *       3 |         |         |         |         |                A row g + 8: column 32 g + 2 c + 1
 *         +---------+---------+-- ... --+---------+                B: dY of token g, rows 4 t ... (one load of 8 bytes)
 *         |  16 rows more                         |   warp 1 ... 7, then warp 0 again
 *         +---------------------------------------+             any order of the contraction will do, if A and B share it
 *
 * A register of A holds two rows of one column, each with its own scale: 2 look-ups of 8 bytes, 4 multiplications and 2
 * conversions for 4 weights, 3 issue slots a weight in all (3.5 with zero points): of the 4 that an H200 has at its memory roof.
 * Look-ups take one wavefront for 32 weights, and no bank conflicts.
 *
 *   the way out   a warp's sums are laid down by token, pairs of columns swizzled (pair c of group g at c ^ (4 (g % 4) + t)),
 *                 four tokens a round in the table's 32 KiB, and added up over the eight warps in their order
 */
#include "decode_mma.cuh"
#include "gemm_dx.cuh"

namespace {

constexpr int kStrip = 256, kRows = 16, kMapAt = FB_PAIR_BYTES;

/* One block a multiprocessor, of as many warps as its accumulators leave registers for: 168 with one octet of tokens, 255 with two. */
template <int OCTETS> struct Block {
    static constexpr int kWarps = OCTETS == 1 ? 12 : 8, kThreads = FB_WARP * kWarps;
    static constexpr int kSums = kWarps * 4 * kStrip * 4; /* bytes of a round on the way out */
    static constexpr int kBytes = kSums > kMapAt + FB_NESTED_MAP_BYTES ? kSums : kMapAt + FB_NESTED_MAP_BYTES;
};

/* A lane's part of a step: four rows of 32 columns, and dY of those rows for its token of each octet. */
template <int OCTETS> struct Step {
    uint4 codes[4];
    fb_raw_scale scale[4];
    uint2 dy[OCTETS];
};

template <int OCTETS>
__device__ __forceinline__ void load(const fb_product &p, int row, int k, Step<OCTETS> &s)
{
    const bool inside = k < (int)p.k;
    const int token = (int)threadIdx.x % FB_WARP / 4;
    const uint64_t policy = ptx::createpolicy_evict_first(); /* made anew: two registers that need not live across the step */
    int64_t first = row * p.k + k;
#pragma unroll
    for (int i = 0; i < 4; i++, first += p.k) {
        s.codes[i] = inside ? ptx::load_16_hint(p.codes + first / 2, policy) : make_uint4(0, 0, 0, 0);
        s.scale[i] = inside ? fb_load_scale(p.scales, first >> p.log2_block) : fb_raw_scale{0, 0, 0};
    }
#pragma unroll
    for (int o = 0; o < OCTETS; o++) {
        const int m = 8 * o + token;
        s.dy[o] = m < (int)p.m ? *(const uint2 *)((const uint16_t *)p.x + m * p.n + row) : make_uint2(0, 0);
    }
}

/* Four bytes of each of four rows: four fragments. */
template <class T, bool ZERO, int OCTETS>
__device__ __forceinline__ void multiply_word(const unsigned char *table, uint32_t copy, const uint32_t (&word)[4],
                                              const float2 (&scale)[4], const uint2 (&dy)[OCTETS], float (&acc)[OCTETS][16][4], int first)
{
#pragma unroll
    for (int c = 0; c < 4; c++) {
        float2 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = fb_decode_values<ZERO>(table, copy, word[i], c, scale[i]);
        const uint32_t a[4] = {fb_pair<T>(v[0].x, v[1].x), fb_pair<T>(v[0].y, v[1].y), fb_pair<T>(v[2].x, v[3].x),
                               fb_pair<T>(v[2].y, v[3].y)};
#pragma unroll
        for (int o = 0; o < OCTETS; o++) {
            const uint32_t b[2] = {dy[o].x, dy[o].y};
            fb_mma<T>(acc[o][first + c], a, b);
        }
    }
}

template <class T, bool ZERO, int OCTETS>
__device__ __forceinline__ void multiply(const unsigned char *table, const Step<OCTETS> &s, const float2 (&scale)[4],
                                         float (&acc)[OCTETS][16][4])
{
    const uint32_t copy = (threadIdx.x % 16) * 8;
#pragma unroll
    for (int i = 0; i < 4; i++) { /* 4 bytes of each row */
        uint32_t word[4];
#pragma unroll
        for (int r = 0; r < 4; r++)
            word[r] = i == 0 ? s.codes[r].x : i == 1 ? s.codes[r].y : i == 2 ? s.codes[r].z : s.codes[r].w;
        multiply_word<T, ZERO, OCTETS>(table, copy, word, scale, s.dy, acc, 4 * i);
    }
}

/* Tokens 8 o + 2 t + odd, t = 0 ... 3, of all warps; float2 q of a warp: column pair q % 128 of token q / 128. */
template <int OCTETS>
__device__ __forceinline__ void lay_down(const fb_product &p, unsigned char *memory, int o, int odd, const float (&acc)[OCTETS][16][4])
{
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP, g = lane / 4, t = lane % 4;
    float2 *to = (float2 *)memory + warp * 512 + t * 128 + g * 16;
    if (8 * o + 2 * t + odd >= p.m) return;
#pragma unroll
    for (int c = 0; c < 16; c++) to[c ^ (g % 4 * 4 + t)] = make_float2(acc[o][c][odd], acc[o][c][2 + odd]);
}
template <int OCTETS>
__device__ __forceinline__ void add_up(const fb_product &p, const unsigned char *memory, int o, int odd, int64_t k0)
{
    for (int q = (int)threadIdx.x; q < 512; q += Block<OCTETS>::kThreads) {
        const int t = q / 128, g = q % 128 / 16, c = q % 16;
        const int64_t m = 8 * o + 2 * t + odd, k = k0 + 2 * (q % 128);
        if (m >= p.m || k >= p.k) continue;
        const float2 *from = (const float2 *)memory + t * 128 + g * 16 + (c ^ (g % 4 * 4 + t));
        float2 sum = from[0];
#pragma unroll
        for (int warp = 1; warp < Block<OCTETS>::kWarps; warp++) {
            const float2 v = from[512 * warp];
            sum = make_float2(__fadd_rn(sum.x, v.x), __fadd_rn(sum.y, v.y));
        }
        *(float2 *)(p.partial + ((int64_t)blockIdx.y * p.m + m) * p.k + k) = sum;
    }
}

/* ZERO: INT4 affine's zero points. */
template <class T, bool ZERO, int OCTETS> __global__ void __launch_bounds__(Block<OCTETS>::kThreads, 1) gemm_dx_small(const fb_product p)
{
    constexpr int kWarps = Block<OCTETS>::kWarps, kThreads = Block<OCTETS>::kThreads;
    FB_DYNAMIC_SHARED(unsigned char, memory, 128);
    const float *map = (const float *)(memory + kMapAt);
    fb_fill_pairs(memory, p.codebook, p.format, kThreads);
    fb_fill_nested_map((float *)(memory + kMapAt), p.scales, kThreads);
    const float offset = p.scales.absmax ? 0 : p.scales.nested_offset[0];
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;

    const int all = (int)(p.n / kRows), each = (all + p.splits - 1) / p.splits, from = each * (int)blockIdx.y;
    const int to = all - from < each ? all : from + each;
    const int k0 = (int)blockIdx.x * kStrip, k = k0 + 32 * (lane / 4);
    const auto row = [lane](int step) { return step * kRows + 4 * (lane % 4); };
    float acc[OCTETS][16][4] = {};
    Step<OCTETS> next;
    if (from + warp < to) load(p, row(from + warp), k, next);
    __syncthreads();
    for (int step = from + warp; step < to; step += kWarps) {
        const Step<OCTETS> s = next;
        float2 scale[4];
#pragma unroll
        for (int i = 0; i < 4; i++) scale[i] = fb_finish_scale(p.scales, s.scale[i], map, offset);
        if (step + kWarps < to) load(p, row(step + kWarps), k, next);
        multiply<T, ZERO, OCTETS>(memory, s, scale, acc);
    }
#pragma unroll
    for (int o = 0; o < OCTETS; o++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            if (8 * o + odd >= p.m) break;
            __syncthreads(); /* the table, or the round before, has been read */
            lay_down<OCTETS>(p, memory, o, odd, acc);
            __syncthreads();
            add_up<OCTETS>(p, memory, o, odd, k0);
        }
}

template <class T, bool ZERO, int OCTETS> fb_status launch(const fb_gemm_call &c, int splits)
{
    fb_product p = fb_product_of(c);
    p.splits = splits;
    p.partial = (float *)c.ctx->workspace;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, true, fb_dx_partial_bytes(c.w, c.m, splits), all);
    const fb_grid grid = {dim3((unsigned)fb_ceil_div(p.k, kStrip), (unsigned)splits), dim3(Block<OCTETS>::kThreads), Block<OCTETS>::kBytes, dim3(1)};
    return FB_LAUNCH(c.ctx, (gemm_dx_small<T, ZERO, OCTETS>), grid, all, p);
}
template <class T, bool ZERO> fb_status launch_octets(const fb_gemm_call &c, int splits)
{
    return c.m <= 8 ? launch<T, ZERO, 1>(c, splits) : launch<T, ZERO, 2>(c, splits);
}
template <class T> fb_status launch_for(const fb_gemm_call &c, int splits)
{
    return c.w->format == FB_INT4_AFFINE ? launch_octets<T, true>(c, splits) : launch_octets<T, false>(c, splits);
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_dx_small)(const fb_gemm_call *c, int splits)
{
    return c->x_dtype == FB_BF16 ? launch_for<__nv_bfloat16>(*c, splits) : launch_for<__half>(*c, splits);
}
