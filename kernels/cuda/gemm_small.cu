/* gemm_small.cu — Y = X W^T (+ U B^T) (+ bias) for M from 1 to 16: bf16 and fp16, K a multiple of 32, codes and x on 16 bytes.
 *
 * Memory-bound: reads 0.5 byte of codes and 4/B of scale a weight once (1/B + 4/(256 B) doubly quantized), 2 M K bytes of X for every 256 rows
 * (from L2), writes y_size M N, or 4 M N splits bytes of sums that a second launch adds up.  28672 x 8192, block 64, at 4.3 TB/s: 31 us.
 *
 *   v1  codes straight from global memory into A fragments, past L1's and L2's lasting lines: nobody shares them.  Weights are operand A, tokens
 *       operand B: one mma.sync is 16 rows x 16 k of weights for all 8 tokens of an octet.  X once a block into shared memory
 *
 *   a block: 8 warps x 32 rows; a step is 128 of K          lane (g, t) of a warp:
 *
 *             K: 0       32      64      96    127               rows g, g + 8, g + 16, g + 24, columns 32 t ... + 31:
 *           +-------+-------+-------+-------+                       four loads of 16 bytes, a quad 64 bytes of a row
 *     row g | t = 0 |   1   |   2   |   3   |                    fragment j (of 8): columns 32 t + 4 j ... + 3 of 16 rows
 *           +-------+-------+-------+-------+                    B: X of token g, the same columns; 16 bytes are two fragments
 *
 *   shared memory: pair table 32 KiB, 8-bit map 1 KiB, X of up to 48 KiB (K in chunks where that is not all of it): 81 KiB, two blocks a
 *   multiprocessor with 164 KiB or more, one with 100.  X stands by step, token, then chunk 4 i + t (not 4 t + i), odd tokens' halves of 128
 *   bytes exchanged: what 8 lanes read together is in all banks.  Bank conflicts: none in the loop; the map's look-ups (doubly
 *   quantized) are at random addresses.
 *   Each scale is asked for by the lanes of its block and again in the next steps (4 sectors for every 1 with blocks of 64): from L1.
 *
 *   bytes in flight: a warp has the next step's 2 KiB of codes on the way while it multiplies this one's, 16 warps 32 KiB a multiprocessor.
 *   4.3 TB/s x 0.8 us / 132 is 26 KiB.  A third step would take 28 registers more than the 128 that two blocks leave.
 *
 *   issue slots a weight (predicted, unmeasured): decode 3 (decode_mma.cuh; 4 with zero points), product 1/64 an octet, X 1/128 an octet,
 *   loads 1/32, address and scale 8/32 = 3.3; doubly quantized 9/32 more (second load, map, product, sum) = 3.6.  So with blocks of 64, 8 % more
 *   slots against 8 % fewer bytes: no slower where memory is the bound.  An H200 has 4 slots for every weight that its memory brings at
 *   1.9 GHz (30 weights a clock and multiprocessor), and its shared memory one wavefront for 32 weights of 30: both limits are near.
 *
 *   measured (H200, of that launch and the sum's; cuBLAS bf16 beside it): 28672 x 8192, M = 1 82 us (107), 4 85, 8 92, 16 108 (108); 8192 x 8192
 *   26.7 (34.1), M = 16 35.2 (33.6); 4096 x 4096 12.1 (12.6). Half of what memory gives: the slots that are counted above are not
 *   all there are, and 16 warps do not fill each other's waits (../../bench/results/nvidia-h200/).
 *
 * Split-K takes two launches: a counter by which a last block would know itself must be zero before the first call, and the
 * workspace holds whatever the caller left there.  The order of the sum is fixed (gemm_split.cu).
 */
#include "decode_mma.cuh"
#include "dispatch.h"
#include "gemm_split.cuh"

namespace {

constexpr int kWarps = 8, kThreads = FB_WARP * kWarps, kRows = 32 * kWarps, kStep = 128, kXBytes = 48 * 1024;
constexpr int kMapAt = FB_PAIR_BYTES, kXAt = kMapAt + FB_NESTED_MAP_BYTES, kTokenBytes = kStep * 2;

/* What a lane knows about its four rows: row, row + 8, + 16, + 24. */
struct Lane {
    const uint8_t *codes; /* of the first row, at column 32 t */
    int64_t first;        /* that element */
    int rows_left, k;     /* rows from the first to N's end; 32 t */
    float offset;         /* *nested_offset */
};
/* A lane's part of a step. */
struct Step {
    uint4 codes[4];
    fb_raw_scale scale[4];
};

/* Beyond N and K: scale 0. */
__device__ __forceinline__ void load(const fb_product &p, const Lane &lane, int step, Step &s)
{
    const int64_t k0 = (int64_t)step * kStep;
    const bool inside = k0 + lane.k < p.k;
    const uint64_t policy = ptx::createpolicy_evict_first();
    const uint8_t *codes = lane.codes + k0 / 2;
    int64_t first = lane.first + k0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const bool mine = inside && 8 * i < lane.rows_left;
        s.codes[i] = mine ? ptx::load_16_hint(codes, policy) : make_uint4(0, 0, 0, 0);
        s.scale[i] = mine ? fb_load_scale(p.scales, first >> p.log2_block) : fb_raw_scale{0, 0, 0};
        codes += 4 * p.k;
        first += 8 * p.k;
    }
}
__device__ __forceinline__ void finish_scales(const fb_product &p, const Lane &lane, const float *map, int step, const Step &s, float2 (&scale)[4])
{
    const bool inside = (int64_t)step * kStep + lane.k < p.k;
#pragma unroll
    for (int i = 0; i < 4; i++)
        scale[i] = inside && 8 * i < lane.rows_left ? fb_finish_scale(p.scales, s.scale[i], map, lane.offset) : make_float2(0, 0);
}

/* X of steps first ... last - 1, zeros beyond K.  Neighbouring threads write neighbouring pieces, and read whole 256 bytes by sixteen. */
__device__ __forceinline__ void stage_x(const fb_product &p, unsigned char *x, int first, int last)
{
    const int tokens = (int)p.m, all = (last - first) * tokens * 16;
    for (int q = (int)threadIdx.x; q < all; q += kThreads) {
        const int token = q / 16 % tokens, i = q % 16 / 4, t = q % 4;
        const int64_t k = (int64_t)(first + q / 16 / tokens) * kStep + 32 * t + 8 * i;
        const bool inside = k < p.k;
        const uint16_t *from = (const uint16_t *)p.x + (inside ? token * p.k + k : 0);
        ptx::cp_async_16_zfill(ptx::shared_address(x) + (uint32_t)(q / 16 * kTokenBytes + fb_x_piece(token, i, t)), from, inside ? 16 : 0);
    }
    ptx::cp_async_commit_group();
}

/* Eight columns of four rows: two fragments of each of two row tiles, for all tokens. */
template <class T, bool ZERO, int OCTETS>
__device__ __forceinline__ void multiply_word(const unsigned char *table, const uint32_t (&word)[4], const float2 (&scale)[4],
                                              const uint4 (&x)[OCTETS], float (&acc)[2][OCTETS][4])
{
    const uint32_t copy = threadIdx.x % 16 * 8;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        uint32_t a[2][4];
        fb_decode_fragments<T, ZERO>(table, copy, word[2 * r], word[2 * r + 1], scale[2 * r], scale[2 * r + 1], a[0], a[1]);
#pragma unroll
        for (int o = 0; o < OCTETS; o++) {
            const uint32_t b[2][2] = {{x[o].x, x[o].y}, {x[o].z, x[o].w}};
            fb_mma<T>(acc[r][o], a[0], b[0]);
            fb_mma<T>(acc[r][o], a[1], b[1]);
        }
    }
}
template <class T, bool ZERO, int OCTETS>
__device__ __forceinline__ void multiply(const fb_product &p, const unsigned char *table, const unsigned char *x, const Step &s,
                                         const float2 (&scale)[4], float (&acc)[2][OCTETS][4])
{
    const int g = (int)threadIdx.x % FB_WARP / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t word[4];
        uint4 b[OCTETS];
#pragma unroll
        for (int r = 0; r < 4; r++) word[r] = i == 0 ? s.codes[r].x : i == 1 ? s.codes[r].y : i == 2 ? s.codes[r].z : s.codes[r].w;
#pragma unroll
        for (int o = 0; o < OCTETS; o++)
            b[o] = g + 8 * o < (int)p.m ? *(const uint4 *)(x + (g + 8 * o) * kTokenBytes + fb_x_piece(g, i, t)) : make_uint4(0, 0, 0, 0);
        multiply_word<T, ZERO, OCTETS>(table, word, scale, b, acc);
    }
}

/* An octet of tokens at a time through 36-float rows of shared memory, so that a lane has 8 adjacent rows of W. */
template <class T, int OCTETS>
__device__ __forceinline__ void write_results(const fb_product &p, unsigned char *room, int64_t warp_row, int split, const float (&acc)[2][OCTETS][4])
{
    constexpr int kPitch = 36;
    const int warp = (int)threadIdx.x / FB_WARP, g = (int)threadIdx.x % FB_WARP / 4, t = (int)threadIdx.x % 4;
    float *square = (float *)room + warp * 8 * kPitch;
    const int64_t n = warp_row + t * 8;
    const bool wide = p.n % 8 == 0 && (size_t)(p.splits > 1 ? (const void *)p.partial : p.y) % 16 == 0;
    float bias[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        bias[i] = p.bias && n + i < p.n ? fb_half_bits_to_float(((const uint16_t *)p.bias)[n + i], fb_element<T>::dtype) : 0;
#pragma unroll
    for (int o = 0; o < OCTETS; o++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int e = 0; e < 4; e++) square[(2 * t + e % 2) * kPitch + 16 * r + g + e / 2 * 8] = acc[r][o][e];
        __syncwarp();
        const float4 lo = *(const float4 *)(square + g * kPitch + t * 8), hi = *(const float4 *)(square + g * kPitch + t * 8 + 4);
        const float v[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
        fb_store_eight(p, split, 8 * o + g, n, v, bias, wide);
        __syncwarp();
    }
}

/* ZERO: INT4 affine's zero points.  chunk: steps whose X fits. */
template <class T, bool ZERO, int OCTETS> __global__ void __launch_bounds__(kThreads, 2) gemm_small(const fb_product p, const int chunk)
{
    FB_DYNAMIC_SHARED(unsigned char, shared, 128);
    const float *map = (const float *)(shared + kMapAt);
    unsigned char *x = shared + kXAt;
    const int g = (int)threadIdx.x % FB_WARP / 4, t = (int)threadIdx.x % 4, split = (int)blockIdx.y;
    const int64_t warp_row = (int64_t)blockIdx.x * kRows + threadIdx.x / FB_WARP * 32, row = warp_row + g, left = p.n - row;
    const int64_t steps = (p.k + kStep - 1) / kStep;
    const int from = (int)(steps * split / p.splits), to = (int)(steps * (split + 1) / p.splits);
    const Lane lane = {p.codes + (row * p.k + 32 * t) / 2, row * p.k + 32 * t, left > 32 ? 32 : (int)left, 32 * t,
                       p.scales.absmax_codes ? p.scales.nested_offset[0] : 0};

    Step next;
    load(p, lane, from, next);
    fb_fill_pairs(shared, p.codebook, p.format, kThreads);
    fb_fill_nested_map((float *)(shared + kMapAt), p.scales, kThreads);
    float acc[2][OCTETS][4] = {};
    if (p.rank && split == 0) fb_low_rank_prologue<T, 2, OCTETS>(p.u, p.b, p.rank, p.m, p.n, row, g, acc);
    for (int first = from; first < to; first += chunk) {
        const int last = to - first < chunk ? to : first + chunk;
        if (first > from) __syncthreads(); /* everybody is done with the chunk before */
        stage_x(p, x, first, last);
        ptx::cp_async_wait_all();
        __syncthreads();
#pragma unroll 1
        for (int step = first; step < last && warp_row < p.n; step++) { /* nothing to do for warps beyond N */
            const Step s = next;
            float2 scale[4];
            finish_scales(p, lane, map, step, s, scale);
            if (step + 1 < to) load(p, lane, step + 1, next);
            multiply<T, ZERO, OCTETS>(p, shared, x + (step - first) * (int)p.m * kTokenBytes, s, scale, acc);
        }
    }
    __syncthreads(); /* the table becomes the results' room */
    write_results<T, OCTETS>(p, shared, warp_row, split, acc);
}

template <class T, bool ZERO, int OCTETS> fb_status launch(const fb_gemm_call &c, int splits)
{
    fb_product p = fb_product_of(c);
    p.splits = splits;
    p.partial = splits > 1 ? (float *)c.ctx->workspace : nullptr;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, splits > 1 ? (size_t)splits * (size_t)p.m * (size_t)p.n * sizeof(float) : 0, all);
    const int64_t token_bytes = p.m * kTokenBytes, each = fb_ceil_div(fb_ceil_div(p.k, kStep), splits);
    const int chunk = (int)(each * token_bytes <= kXBytes ? each : kXBytes / token_bytes);
    const fb_grid grid = {dim3((unsigned)fb_ceil_div(p.n, kRows), (unsigned)splits), dim3(kThreads), (size_t)(kXAt + chunk * token_bytes), dim3(1)};
    const fb_status s = FB_LAUNCH(c.ctx, (gemm_small<T, ZERO, OCTETS>), grid, all, p, chunk);
    return s == FB_OK && splits > 1 ? FB_CUDA(gemm_sum_parts)(&c, splits) : s;
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

extern "C" fb_status FB_CUDA(gemm_small)(const fb_gemm_call *c, int splits)
{
    return c->x_dtype == FB_BF16 ? launch_for<__nv_bfloat16>(*c, splits) : launch_for<__half>(*c, splits);
}
