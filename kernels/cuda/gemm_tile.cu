/* gemm_tile.cu — Y = X W^T (+ U B^T) (+ bias) on tensor cores by tiles: M from 17 up, and every M where rows must give the same
 * bits at any M.  16-bit activations, K a multiple of 32, codes and x aligned to 16 bytes; what is left goes to gemm_any.cu.
 *
 * Moves, at the least: N K / 2 bytes of codes, 4/B (or 1/B + 4/(256 B)) of scales a weight, 2 M K of X, y_size M N of Y; 2 M N K FLOPs.  Bound, H200
 * figures of 4.3 TB/s and 790 TFLOP/s: memory up to M = 52, then tensor cores.  mma.sync reaches about 62 % of the wgmma rate
 * on Hopper, so the prediction there was 0.6 x cuBLAS at large M (an H200 measured 0.3: 242 of 815 TFLOP/s); on sm_80 and sm_120, where mma.sync is all there
 * is, 0.85 x.  Above 128 tokens a weight is decoded once for each tile of tokens.
 *
 *   v1  cp.async in 3 or 4 stages; decode into A fragments in registers, each weight once a block; B fragments by 16-byte loads, one a
 *       lane for 8 tokens x 32 k: as many instructions and wavefronts as ldmatrix.x4, and lane t of a quad gets 8 adjacent k, for which
 *       its weights are one word of a row (ldmatrix would want each byte from another word)
 *
 *   a block: 32 weight rows a warp, WN warps, 8 TT tokens; a step is 64 of K
 *
 *                      8 TT tokens                        stage: X     tokens x 128 bytes, 16-byte chunks swizzled
 *               +---------------------+                          codes 2 halves x rows x 16 bytes
 *      warp 0   | 2 x TT m16n8 tiles  |  32 rows                 scales rows x 2 x (scale, zero point): one for each 32 k
 *      warp 1   |                     |
 *       ...     |                     |                   k of lane t of a quad: 8 t ... 8 t + 7 of each half, four for each mma
 *               +---------------------+
 *
 *   shared memory: pair table 32 KiB, 8-bit map 1 KiB, stages.  Bank conflicts: none in the loop.
 */
#include "decode_mma.cuh"
#include "dispatch.h"
#include "gemm_split.cuh"

namespace {

constexpr int kStep = 64; /* of K */

template <int TT, int WN> struct Tile {
    static constexpr int rows = 32 * WN, tokens = 8 * TT, threads = 32 * WN;
    static constexpr int x_bytes = tokens * kStep * 2, code_bytes = rows * kStep / 2, scale_bytes = rows * 16;
    static constexpr int stage_bytes = x_bytes + code_bytes + scale_bytes;
    static constexpr int shared_bytes(int stages) { return FB_PAIR_BYTES + FB_NESTED_MAP_BYTES + stages * stage_bytes; }
};

/* What a thread knows about its tile. Addresses are of step 0; what is left of each dimension is in 32 bits: everything here lives
 * through the loop beside 128 accumulators. */
struct Place {
    int row_tile, token_tile;       /* of 128 weights and more each: 32 bits are 4 TB of codes */
    const unsigned char *x, *codes; /* this thread's first chunk: token thread / 8, row thread / 2 */
    int64_t scale_at;               /* first element of row `thread` */
    int tokens_left, rows_left;     /* tokens from that token, rows from row0 */
    unsigned char *stages;
    float offset;                   /* *nested_offset */
    bool stream;                    /* nobody else will read these weights */
};

/* Where 16-byte chunk c of a token's 128 bytes stands, so that two tokens' four adjacent chunks are in all banks. */
__device__ __forceinline__ int swizzled(int token, int c) { return c ^ (token % 2 * 4 + token / 2 % 4); }

/* Where a row's half stands among that half's rows: the two halves that one copy instruction stores side by side meet other banks. */
__device__ __forceinline__ int code_row(int row, int half) { return row ^ half * 4; }

template <class T, int TT, int WN> __device__ __forceinline__ void enter_tile(const fb_product &p, Place &at, const fb_piece &piece)
{
    using S = Tile<TT, WN>;
    const int64_t tid = threadIdx.x;
    at.row_tile = (int)piece.row_tile;
    at.token_tile = (int)piece.token_tile;
    const int64_t row0 = piece.row_tile * S::rows, token0 = piece.token_tile * S::tokens;
    at.x = (const unsigned char *)p.x + ((token0 + tid / 8) * p.k + tid % 8 * 8) * 2;
    at.codes = p.codes + ((row0 + tid / 2) * p.k + tid % 2 * 32) / 2;
    at.scale_at = (row0 + tid) * p.k;
    at.tokens_left = (int)(p.m - token0 < S::tokens ? p.m - token0 : S::tokens) - (int)tid / 8;
    at.rows_left = (int)(p.n - row0 < S::rows ? p.n - row0 : S::rows);
}

/* ---- fetch ---------------------------------------------------------------------------------------------------------- */

/* Beyond M, N and K: zeros. */
template <int TT, int WN>
__device__ __forceinline__ void fetch(const fb_product &p, const Place &at, unsigned char *stage, int step)
{
    using S = Tile<TT, WN>;
    const int64_t k0 = (int64_t)step * kStep;
    const int tid = (int)threadIdx.x, k_left = (int)(p.k - k0 < kStep ? p.k - k0 : kStep);
    const uint32_t x_to = ptx::shared_address(stage) + (uint32_t)(tid / 8 * 128 + swizzled(tid / 8, tid % 8) * 16);
    const uint32_t codes_to = ptx::shared_address(stage) + S::x_bytes + (uint32_t)(tid % 2 * S::rows + code_row(tid / 2, tid % 2)) * 16;
    const unsigned char *from = at.x + k0 * 2;
    constexpr int kTokens = S::threads / 8; /* at a time */
#pragma unroll
    for (int i = 0; i < (S::tokens + kTokens - 1) / kTokens; i++) {
        const bool inside = i * kTokens < at.tokens_left && tid % 8 * 8 < k_left;
        ptx::cp_async_16_zfill(x_to + (uint32_t)(i * kTokens * 128), inside ? from : (const unsigned char *)p.x, inside ? 16 : 0);
        from += p.k * (2 * kTokens);
    }
    from = at.codes + k0 / 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool inside = tid / 2 + i * (S::threads / 2) < at.rows_left && tid % 2 * 32 < k_left;
        const uint32_t to = codes_to + (uint32_t)(i * S::threads * 8);
        if (at.stream) ptx::cp_async_16_zfill_hint(to, inside ? from : p.codes, inside ? 16 : 0, ptx::createpolicy_evict_first());
        else ptx::cp_async_16_zfill(to, inside ? from : p.codes, inside ? 16 : 0);
        from += p.k * (S::threads / 4);
    }
}

/* The scales of row `thread`, for the two halves of a step; 0 beyond N and K, where code 0 stands. */
struct TwoScales {
    fb_raw_scale half[2];
    int valid; /* halves */
};
__device__ __forceinline__ TwoScales load_scales(const fb_product &p, const Place &at, int step)
{
    TwoScales s = {};
    const int64_t k0 = (int64_t)step * kStep;
    if ((int)threadIdx.x >= at.rows_left) return s;
    s.valid = k0 + 32 < p.k ? 2 : 1;
    const int64_t first = (at.scale_at + k0) >> p.log2_block, second = (at.scale_at + k0 + 32) >> p.log2_block;
    s.half[0] = fb_load_scale(p.scales, first);
    if (s.valid == 2) s.half[1] = second == first ? s.half[0] : fb_load_scale(p.scales, second);
    return s;
}
template <int TT, int WN>
__device__ __forceinline__ void store_scales(const fb_product &p, const Place &at, const float *map, unsigned char *stage, const TwoScales &s)
{
    using S = Tile<TT, WN>;
    float2 v[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        v[h] = h < s.valid ? fb_finish_scale(p.scales, s.half[h], map, at.offset) : make_float2(0, 0);
    *(float4 *)(stage + S::x_bytes + S::code_bytes + threadIdx.x * 16) = make_float4(v[0].x, v[0].y, v[1].x, v[1].y);
}

/* ---- decode and multiply ---------------------------------------------------------------------------------------------- */

/* Half a step, 32 k, 8 of each lane: decode into the A fragments of two mma, then the products with all tokens, two octets at a time
 * (four independent accumulators between two uses of one).  A whole step at a time, or both halves unrolled, would hold so much more in flight that 255 registers
 * do not do (sm_90 spilled). */
template <class T, bool ZERO, int TT, int WN>
__device__ __forceinline__ void decode_half(const unsigned char *table, const unsigned char *stage, int half, uint32_t (&a)[2][2][4])
{
    using S = Tile<TT, WN>;
    const int lane = (int)threadIdx.x % FB_WARP, row = (int)threadIdx.x / FB_WARP * 32 + lane / 4;
    const unsigned char *codes = stage + S::x_bytes + (half * S::rows + code_row(row, half)) * 16 + lane % 4 * 4;
    const unsigned char *scales = stage + S::x_bytes + S::code_bytes + row * 16 + half * 8;
    const uint32_t copy = (uint32_t)lane % 16 * 8;
#pragma unroll
    for (int r = 0; r < 2; r++)
        fb_decode_fragments<T, ZERO>(table, copy, *(const uint32_t *)(codes + r * 256), *(const uint32_t *)(codes + r * 256 + 128),
                                     *(const float2 *)(scales + r * 256), *(const float2 *)(scales + r * 256 + 128), a[0][r], a[1][r]);
}
template <class T, int TT>
__device__ __forceinline__ void multiply_half(const unsigned char *stage, int half, const uint32_t (&a)[2][2][4], float (&acc)[2][TT][4])
{
    const int lane = (int)threadIdx.x % FB_WARP, g = lane / 4, t = lane % 4;
    const unsigned char *x = stage + g * 128 + swizzled(g, 4 * half + t) * 16;
#pragma unroll
    for (int j = 0; j < TT; j += 2) {
        const uint4 x0 = *(const uint4 *)(x + j * 1024), x1 = *(const uint4 *)(x + (j + 1) * 1024);
        const uint32_t b[2][2][2] = {{{x0.x, x0.y}, {x1.x, x1.y}}, {{x0.z, x0.w}, {x1.z, x1.w}}};
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int o = 0; o < 2; o++)
#pragma unroll
                for (int r = 0; r < 2; r++) fb_mma<T>(acc[r][j + o], a[s][r], b[s][o]);
    }
}
template <class T, int TT, int WN>
__device__ __forceinline__ void half_step(const unsigned char *table, bool zeros, const unsigned char *stage, int half, float (&acc)[2][TT][4])
{
    uint32_t a[2][2][4];
    if (zeros) decode_half<T, true, TT, WN>(table, stage, half, a);
    else decode_half<T, false, TT, WN>(table, stage, half, a);
    multiply_half<T, TT>(stage, half, a, acc);
}

/* ---- results ------------------------------------------------------------------------------------------------------------- */

/* An octet of tokens at a time through 36-float rows of shared memory (each warp its own 8), so that a lane has 8 adjacent rows of W. */
template <class T, int TT, int WN>
__device__ __forceinline__ void write_results(const fb_product &p, const Place &at, int split, const float (&acc)[2][TT][4])
{
    constexpr int kPitch = 36;
    const int warp = (int)threadIdx.x / FB_WARP, lane = (int)threadIdx.x % FB_WARP, g = lane / 4, t = lane % 4;
    float *square = (float *)at.stages + warp * 8 * kPitch;
    const int64_t n = (int64_t)at.row_tile * (32 * WN) + warp * 32 + t * 8, token0 = (int64_t)at.token_tile * (8 * TT);
    const void *to = p.splits > 1 ? (const void *)p.partial : p.y;
    const bool wide = p.n % 8 == 0 && (size_t)to % 16 == 0;
    float bias[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        bias[i] = p.bias && n + i < p.n ? fb_half_bits_to_float(((const uint16_t *)p.bias)[n + i], fb_element<T>::dtype) : 0;
#pragma unroll
    for (int j = 0; j < TT; j++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int e = 0; e < 4; e++) square[(2 * t + e % 2) * kPitch + 16 * r + g + e / 2 * 8] = acc[r][j][e];
        __syncwarp();
        const float4 lo = *(const float4 *)(square + g * kPitch + t * 8), hi = *(const float4 *)(square + g * kPitch + t * 8 + 4);
        const float v[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
        fb_store_eight(p, split, token0 + j * 8 + g, n, v, bias, wide);
        __syncwarp();
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------------------------------- */

template <class T, int TT, int WN, int STAGES> __global__ void __launch_bounds__(32 * WN, TT <= 4 ? 3 : WN == 4 ? 2 : 1) gemm_tile(const fb_product p)
{
    using S = Tile<TT, WN>;
    FB_DYNAMIC_SHARED(unsigned char, shared, 128);
    const float *map = (const float *)(shared + FB_PAIR_BYTES);
    Place at;
    at.stages = shared + FB_PAIR_BYTES + FB_NESTED_MAP_BYTES;
    at.offset = p.scales.absmax_codes ? p.scales.nested_offset[0] : 0;
    const fb_tiles tiles = {(p.n + S::rows - 1) / S::rows, (p.m + S::tokens - 1) / S::tokens, p.splits, (int)((p.k + kStep - 1) / kStep)};
    at.stream = tiles.token_tiles == 1;
    fb_fill_nested_map((float *)map, p.scales, S::threads);
    fb_fill_pairs(shared, p.codebook, p.format, S::threads);
    __syncthreads();

    for (int64_t work = blockIdx.x; work < fb_pieces(tiles); work += gridDim.x) {
        const fb_piece piece = fb_piece_of(tiles, work);
        enter_tile<T, TT, WN>(p, at, piece);
        float acc[2][TT][4] = {};

        /* fill the pipeline; scales are stored two steps after they are loaded */
        TwoScales coming = {};
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            const int step = piece.first_step + s;
            if (step < piece.last_step) {
                fetch<TT, WN>(p, at, at.stages + s * S::stage_bytes, step);
                coming = load_scales(p, at, step);
                if (s < STAGES - 2) store_scales<TT, WN>(p, at, map, at.stages + s * S::stage_bytes, coming);
            }
            ptx::cp_async_commit_group();
        }
        if (p.rank && piece.split == 0) {
            const int warp = (int)threadIdx.x / FB_WARP, g = (int)threadIdx.x % FB_WARP / 4;
            fb_low_rank_prologue<T, 2, TT>(p.u, p.b, p.rank, p.m, p.n, (int64_t)at.row_tile * S::rows + warp * 32 + g, (int64_t)at.token_tile * S::tokens + g, acc);
        }

        int here = 0; /* this step's stage */
        for (int step = piece.first_step; step < piece.last_step; step++) {
            ptx::cp_async_wait_group<STAGES - 2>();
            __syncthreads(); /* this stage is everybody's, and the one before it is free */
            const int before = here == 0 ? STAGES - 1 : here - 1, ahead = before == 0 ? STAGES - 1 : before - 1;
            if (step + STAGES - 2 < piece.last_step) store_scales<TT, WN>(p, at, map, at.stages + ahead * S::stage_bytes, coming);
            if (step + STAGES - 1 < piece.last_step) {
                fetch<TT, WN>(p, at, at.stages + before * S::stage_bytes, step + STAGES - 1);
                coming = load_scales(p, at, step + STAGES - 1);
            }
            ptx::cp_async_commit_group();

            const unsigned char *stage = at.stages + here * S::stage_bytes;
#pragma unroll 1
            for (int half = 0; half < 2; half++) half_step<T, TT, WN>(shared, p.scales.zero_points != nullptr, stage, half, acc);
            here = here + 1 == STAGES ? 0 : here + 1;
        }
        ptx::cp_async_wait_all();
        __syncthreads(); /* the stages become the results' room */
        write_results<T, TT, WN>(p, at, piece.split, acc);
        __syncthreads();
    }
}

/* ---- host ---------------------------------------------------------------------------------------------------------------------- */

template <class T, int TT, int WN, int STAGES> fb_status launch(const fb_gemm_call &c, int splits)
{
    using S = Tile<TT, WN>;
    fb_product p = fb_product_of(c);
    p.splits = splits;
    p.partial = splits > 1 ? (float *)c.ctx->workspace : nullptr;
    const size_t partial_bytes = splits > 1 ? (size_t)splits * (size_t)c.m * (size_t)c.w->rows * sizeof(float) : 0;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, partial_bytes, all);
    const int shared = S::shared_bytes(STAGES);
    const int64_t work = fb_ceil_div(c.w->rows, S::rows) * fb_ceil_div(c.m, S::tokens) * splits;
    int resident = (c.device.shared_bytes + 1024) / (shared + 1024); /* what the hardware keeps for each block */
    if (resident < 1) resident = 1;
    fb_status s = FB_LAUNCH(c.ctx, (gemm_tile<T, TT, WN, STAGES>), fb_resident_grid(work, resident, S::threads, (size_t)shared), all, p);
    return s == FB_OK && splits > 1 ? FB_CUDA(gemm_sum_parts)(&c, splits) : s;
}
template <class T> fb_status launch_config(const fb_gemm_call &c, fb_gemm_path path, int splits)
{
    switch (path) {
    case FB_GEMM_TILE_16: return launch<T, 2, 4, 4>(c, splits);
    case FB_GEMM_TILE_32: return launch<T, 4, 4, 4>(c, splits);
    case FB_GEMM_TILE_64: return launch<T, 8, 4, 4>(c, splits);
    case FB_GEMM_TILE_128: return launch<T, 16, 4, 3>(c, splits);
    default: return launch<T, 16, 8, 4>(c, splits);
    }
}

} // namespace

/* Rows and tokens of a tile; 0 where the path is not one of this file's. */
extern "C" int FB_CUDA(gemm_tile_shape)(fb_gemm_path path, int *rows, int *tokens, int *shared_bytes)
{
    switch (path) {
    case FB_GEMM_TILE_16: *rows = 128, *tokens = 16, *shared_bytes = Tile<2, 4>::shared_bytes(4); return 1;
    case FB_GEMM_TILE_32: *rows = 128, *tokens = 32, *shared_bytes = Tile<4, 4>::shared_bytes(4); return 1;
    case FB_GEMM_TILE_64: *rows = 128, *tokens = 64, *shared_bytes = Tile<8, 4>::shared_bytes(4); return 1;
    case FB_GEMM_TILE_128: *rows = 128, *tokens = 128, *shared_bytes = Tile<16, 4>::shared_bytes(3); return 1;
    case FB_GEMM_TILE_256: *rows = 256, *tokens = 128, *shared_bytes = Tile<16, 8>::shared_bytes(4); return 1;
    default: return 0;
    }
}
extern "C" fb_status FB_CUDA(gemm_tile)(const fb_gemm_call *c, fb_gemm_path path, int splits)
{
    return c->x_dtype == FB_BF16 ? launch_config<__nv_bfloat16>(*c, path, splits) : launch_config<__half>(*c, path, splits);
}
