/* gemm_dx_tile.cu — dX [M, K] = dY [M, N] W [N, K] (+ U B) (+ dX) on tensor cores, M from 17: bf16 and fp16, K a multiple of 32, N
 * of 8.  No dense W anywhere: a step's 32 x 256 weights live in shared memory for as long as they are multiplied.
 *
 * Reads 0.5 byte of codes and 4/B (1/B + 4/(256 B) doubly quantized) of scale a weight, ceil(M / tile) times out of L2, once out
 * of DRAM; 2 M N K flops.  Bound by the tensor cores from M = 200 or so, below by decoding, see the budget.
 *
 *   v1  codes and dY by cp.async, 4 stages; a thread decodes 16 bytes of one row (32 weights: one scale) while the step before
 *       is multiplied; one barrier a step; split over N where there are fewer tiles than multiprocessors
 *
 *                   K  256 columns a block
 *            +--------------------------------+
 *        N   | codes: 32 rows a step          |  thread t: row t / 8, 32 columns from 32 (t % 8)
 *            +--------------------------------+
 *    N       |                                |
 *   +-----+  |  w0 | w1 | w2 | w3   (128 rows: 2 x 4 warps of 64 x 64; 64 rows: 1 x 8 warps of 64 x 32)
 *   | dY  |M |  w4 | w5 | w6 | w7
 *   +-----+  +--------------------------------+
 *
 * Decoded into shared memory, not straight into B fragments, although that would save a round trip of 2 bytes a weight: a
 * register of B holds two rows of one column, so two rows with two scales would meet in each conversion, and every warp that
 * shares a column would decode it again (twice here).  Along a row, 32 weights have one scale, and then the cheapest decode is a
 * table of the block's 16 possible values, already rounded to 16 bits, in 8 registers (bytes apart): 16 multiplications and 8
 * conversions for 32 weights, and 6 byte permutes for four look-ups.  ldmatrix.trans turns rows into fragments for nothing.  Small M
 * (gemm_dx_small.cu) decides the other way: nobody shares its weights.
 *
 *   decode, for 32 weights: 16 sub, 16 mul, 8 cvt, 8 + 64 prmt, 12 logic, 4 + 1 loads and 4 stores of 16 bytes: 4.2 issue slots a
 *   weight, 270 clocks of a step's 1024 of mma.sync (128 rows).  Shared memory: 16 KiB of W written, 32 + 32 KiB read by
 *   ldmatrix, 8 KiB of dY in: 88 of the 128 KiB that the step's clocks could move
 *
 *   W     [32][512 bytes]: the 16 bytes of chunk c (of 32 columns) and word j at 16 (8 j + (c ^ row % 8)): eight threads of a row
 *         store to all banks, eight rows of a column are read from all banks
 *   dY    [rows][64 bytes]: the 16 bytes u at 16 (u ^ row / 2 % 4).  No bank conflicts anywhere
 *
 * Registers and shared memory: kernels/cuda/resources.txt; 128 rows: 82 KB, one block a multiprocessor; 64 rows: 66 KB.
 */
#include "decode_mma.cuh"
#include "gemm_dx.cuh"

namespace {

constexpr int kThreads = 256, kTileK = 256, kStep = 32, kStages = 4, kWBytes = kStep * kTileK * 2;

/* Shared memory of a block, in bytes. */
template <int WARPS_M> struct Layout {
    static constexpr int kTileM = 64 * WARPS_M, kWarpsK = 8 / WARPS_M, kTiles = kTileK / kWarpsK / 8; /* 8 columns each, a warp */
    static constexpr int kDy = kTileM * kStep * 2, kCodes = kStep * kTileK / 2, kStage = kDy + kCodes;
    static constexpr int kWAt = kStages * kStage, kBookAt = kWAt + 2 * kWBytes, kMapAt = kBookAt + 4 * FB_CODES;
    static constexpr int kBytes = kMapAt + FB_NESTED_MAP_BYTES;
};

/* This block's tile and part of N, and what this thread decodes of a step. */
struct Place {
    unsigned char *memory;
    int64_t m0, k0, n0, n_end;
    int row, chunk, steps;
};

/* ---- decode: a block's 16 values, rounded, as their low and their high bytes --------------------------------------------- */

struct Planes {
    uint32_t low[4], high[4];
};

template <class T> __device__ __forceinline__ Planes planes_of(const float *book, float2 scale, bool inside)
{
    Planes planes;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 v = ((const float4 *)book)[i];
        const uint32_t a = fb_pair<T>(__fmul_rn(__fsub_rn(v.x, scale.y), scale.x), __fmul_rn(__fsub_rn(v.y, scale.y), scale.x)),
                       b = fb_pair<T>(__fmul_rn(__fsub_rn(v.z, scale.y), scale.x), __fmul_rn(__fsub_rn(v.w, scale.y), scale.x));
        planes.low[i] = inside ? ptx::prmt(a, b, 0x6420) : 0; /* rows past the end are zeros, whatever the codebook says */
        planes.high[i] = inside ? ptx::prmt(a, b, 0x7531) : 0;
    }
    return planes;
}

/* Eight weights.  A byte permute looks up four nibbles in 8 bytes; which of the two halves of 16 it was is the nibble's top bit. */
__device__ __forceinline__ uint4 look_up(const Planes &p, uint32_t codes)
{
    const uint32_t low3 = codes & 0x77777777u, half = (codes >> 1 & 0x44444444u) | 0x32103210u;
    uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t at = low3 >> 16 * i, pick = half >> 16 * i;
        const uint32_t low = ptx::prmt(ptx::prmt(p.low[0], p.low[1], at), ptx::prmt(p.low[2], p.low[3], at), pick),
                       high = ptx::prmt(ptx::prmt(p.high[0], p.high[1], at), ptx::prmt(p.high[2], p.high[3], at), pick);
        out[2 * i] = ptx::prmt(low, high, 0x4051); /* the upper nibble of a byte is the first weight */
        out[2 * i + 1] = ptx::prmt(low, high, 0x6273);
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

__device__ __forceinline__ uint4 *w_unit(unsigned char *w, int row, int chunk, int word)
{
    return (uint4 *)(w + row * kTileK * 2 + (8 * word + (chunk ^ row % 8)) * 16);
}

/* ---- the phases of a step --------------------------------------------------------------------------------------------------- */

template <int WARPS_M> __device__ __forceinline__ void fetch(const fb_product &p, const Place &at, int step)
{
    using L = Layout<WARPS_M>;
    const uint32_t stage = ptx::shared_address(at.memory) + (uint32_t)(step % kStages * L::kStage);
    if (step < at.steps) {
        const int64_t n = at.n0 + step * kStep, row = n + at.row, k = at.k0 + 32 * at.chunk;
        const bool inside = row < at.n_end && k < p.k;
        ptx::cp_async_16_zfill(stage + (uint32_t)(L::kDy + 16 * (int)threadIdx.x), p.codes + (inside ? (row * p.k + k) / 2 : 0),
                               inside ? 16 : 0);
#pragma unroll
        for (int i = 0; i < L::kDy / 16 / kThreads; i++) {
            const int r = ((int)threadIdx.x + i * kThreads) / 4, unit = (int)threadIdx.x % 4;
            const int64_t m = at.m0 + r, from = n + 8 * unit;
            const bool there = m < p.m && from < at.n_end;
            ptx::cp_async_16_zfill(stage + (uint32_t)(r * 64 + (unit ^ r / 2 % 4) * 16),
                                   (const unsigned char *)p.x + (there ? (m * p.n + from) * 2 : 0), there ? 16 : 0);
        }
    }
    ptx::cp_async_commit_group();
}

__device__ __forceinline__ bool decodes(const fb_product &p, const Place &at, int step)
{
    return at.n0 + step * kStep + at.row < at.n_end && at.k0 + 32 * at.chunk < p.k;
}

__device__ __forceinline__ fb_raw_scale load_scale(const fb_product &p, const Place &at, int step)
{
    if (!decodes(p, at, step)) return fb_raw_scale{0, 0, 0};
    return fb_load_scale(p.scales, ((at.n0 + step * kStep + at.row) * p.k + at.k0 + 32 * at.chunk) >> p.log2_block);
}

/* Only this thread's own codes: its wait is enough, no barrier is needed. */
template <class T, int WARPS_M>
__device__ __forceinline__ void decode(const fb_product &p, const Place &at, int step, const fb_raw_scale &raw, float offset)
{
    using L = Layout<WARPS_M>;
    const uint4 codes = *(const uint4 *)(at.memory + step % kStages * L::kStage + L::kDy + 16 * (int)threadIdx.x);
    const float2 scale = fb_finish_scale(p.scales, raw, (const float *)(at.memory + L::kMapAt), offset);
    const Planes planes = planes_of<T>((const float *)(at.memory + L::kBookAt), scale, decodes(p, at, step));
    unsigned char *w = at.memory + L::kWAt + step % 2 * kWBytes;
    *w_unit(w, at.row, at.chunk, 0) = look_up(planes, codes.x);
    *w_unit(w, at.row, at.chunk, 1) = look_up(planes, codes.y);
    *w_unit(w, at.row, at.chunk, 2) = look_up(planes, codes.z);
    *w_unit(w, at.row, at.chunk, 3) = look_up(planes, codes.w);
}

template <class T, int WARPS_M>
__device__ __forceinline__ void multiply(const unsigned char *memory, int stage, int buffer, float (&acc)[4][Layout<WARPS_M>::kTiles][4])
{
    using L = Layout<WARPS_M>;
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP, half = lane / 16;
    const int m = warp / L::kWarpsK * 64 + lane % 16, unit0 = warp % L::kWarpsK * L::kTiles;
    const uint32_t dy = ptx::shared_address(memory) + (uint32_t)(stage * L::kStage),
                   w = ptx::shared_address(memory) + (uint32_t)(L::kWAt + buffer * kWBytes);
#pragma unroll
    for (int kk = 0; kk < 2; kk++) {
        uint32_t a[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            ptx::ldmatrix_x4(a[i], dy + (uint32_t)((m + 16 * i) * 64 + ((2 * kk + half) ^ m / 2 % 4) * 16));
#pragma unroll
        for (int j = 0; j < L::kTiles; j += 2) {
            const int row = 16 * kk + lane % 16, unit = unit0 + j + half;
            uint32_t b[4];
            ptx::ldmatrix_x4_trans(b, w + (uint32_t)(row * kTileK * 2 + (8 * (unit % 4) + (unit / 4 ^ row % 8)) * 16));
            const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                fb_mma<T>(acc[i][j], a[i], left);
                fb_mma<T>(acc[i][j + 1], a[i], right);
            }
        }
    }
}

/* ---- before the loop: U B, and what dropout leaves of it ---------------------------------------------------------------- */

template <class T, int WARPS_M>
__device__ __forceinline__ void low_rank(const fb_product &p, const Place &at, float (&acc)[4][Layout<WARPS_M>::kTiles][4])
{
    using L = Layout<WARPS_M>;
    const bool wide_u = p.rank % 8 == 0 && (uintptr_t)p.u % 16 == 0, wide_b = (uintptr_t)p.b % 16 == 0;
    for (int r0 = 0; r0 < p.rank; r0 += kStep) {
        for (int i = (int)threadIdx.x; i < L::kDy / 16; i += kThreads) {
            const int r = i / 4, unit = i % 4;
            const int64_t m = at.m0 + r, n = m < p.m ? p.rank : 0;
            *(uint4 *)(at.memory + r * 64 + (unit ^ r / 2 % 4) * 16) = fb_load_16((const T *)p.u + m * p.rank, r0 + 8 * unit, n, wide_u);
        }
        const int64_t k = at.k0 + 32 * at.chunk, n = r0 + at.row < p.rank ? p.k : 0;
        for (int word = 0; word < 4; word++)
            *w_unit(at.memory + L::kWAt, at.row, at.chunk, word) =
                fb_load_16((const T *)p.b + (r0 + at.row) * p.k, k + 8 * word, n, wide_b);
        __syncthreads();
        multiply<T, WARPS_M>(at.memory, 0, 0, acc);
        __syncthreads();
    }
}

/* A lane has two neighbours in each of two rows; a generator's word group is four.  Even lanes draw for the upper row, odd ones
 * for the lower, and they tell each other. */
template <int TILES>
__device__ __forceinline__ void drop(const fb_product &p, int64_t m0, int64_t k0, float (&acc)[4][TILES][4])
{
    const int lane = (int)threadIdx.x % FB_WARP, odd = lane & 1;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t m = m0 + 16 * i + lane / 4 + 8 * odd;
        uint32_t kept = 0; /* four bits a tile */
#pragma unroll 1
        for (int j = 0; j < TILES; j++) {
            const uint32_t own = fb_dropout_keeps_4(p.seed, p.threshold, (m * p.k + k0 + 8 * j + (lane & 2) * 2) / 4);
            const uint32_t other = __shfl_xor_sync(FB_ALL_LANES, own, 1), upper = odd ? other : own, lower = odd ? own : other;
            kept |= ((upper >> 2 * odd & 3) | (lower >> 2 * odd & 3) << 2) << 4 * j;
        }
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (!(kept >> (4 * j + e) & 1)) acc[i][j][e] = 0;
    }
}

/* ---- after it: 16 bytes a lane and store, lanes of a quad exchanging what they have of neighbouring tiles ------------------ */

__device__ __forceinline__ void store_floats(float *row, bool inside, bool add, int tile, const float (&left)[4], const float (&right)[4],
                                             int upper)
{
    const int lane = (int)threadIdx.x % FB_WARP;
    const bool odd = lane & 1;
    const float x = odd ? right[upper] : left[upper], y = odd ? right[upper + 1] : left[upper + 1];
    const float u = __shfl_xor_sync(FB_ALL_LANES, odd ? left[upper] : right[upper], 1),
                v = __shfl_xor_sync(FB_ALL_LANES, odd ? left[upper + 1] : right[upper + 1], 1);
    if (!inside) return;
    float4 out = odd ? make_float4(u, v, x, y) : make_float4(x, y, u, v);
    float4 *to = (float4 *)(row + 8 * (tile + odd) + (lane & 2) * 2);
    if (add) {
        const float4 old = *to;
        out = make_float4(__fadd_rn(out.x, old.x), __fadd_rn(out.y, old.y), __fadd_rn(out.z, old.z), __fadd_rn(out.w, old.w));
    }
    *to = out;
}

/* Four tiles, 32 columns: lane t of a quad gets those of tile t. */
__device__ __forceinline__ void store_halves(uint16_t *row, fb_dtype t, bool inside, bool add, const float (&first)[4],
                                             const float (&second)[4], const float (&third)[4], const float (&fourth)[4], int upper)
{
    uint4 *to = (uint4 *)(row + 8 * ((int)threadIdx.x % 4));
    float v[8] = {first[upper], first[upper + 1], second[upper], second[upper + 1],
                  third[upper], third[upper + 1], fourth[upper], fourth[upper + 1]};
    uint32_t w[4] = {0, 0, 0, 0};
    if (add) {
        if (inside) {
            const uint4 old = *to;
            w[0] = old.x, w[1] = old.y, w[2] = old.z, w[3] = old.w;
        }
        fb_transpose_4(w, 1);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float a, b;
            fb_split_halves(w[i], t, a, b);
            v[2 * i] = __fadd_rn(v[2 * i], a), v[2 * i + 1] = __fadd_rn(v[2 * i + 1], b);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = fb_join_halves(v[2 * i], v[2 * i + 1], t);
    fb_transpose_4(w, 1);
    if (inside) *to = make_uint4(w[0], w[1], w[2], w[3]);
}

template <int TILES>
__device__ __forceinline__ void store(const fb_product &p, int64_t m0, int64_t k0, int split, const float (&acc)[4][TILES][4])
{
    const bool floats = p.splits > 1 || p.y_dtype == FB_F32, add = p.accumulate && p.splits == 1;
    float *out = p.splits > 1 ? p.partial + split * p.m * p.k : (float *)p.y;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int upper = 0; upper < 4; upper += 2) {
            const int64_t m = m0 + 16 * i + (int)threadIdx.x % FB_WARP / 4 + 4 * upper, at = m * p.k + k0;
#pragma unroll
            for (int j = 0; j < TILES; j += 4) {
                const bool inside = m < p.m && k0 + 8 * j < p.k;
                if (floats) {
                    store_floats(out + at, inside, add, j, acc[i][j], acc[i][j + 1], upper);
                    store_floats(out + at, inside, add, j + 2, acc[i][j + 2], acc[i][j + 3], upper);
                } else {
                    store_halves((uint16_t *)p.y + at + 8 * j, p.y_dtype, inside, add, acc[i][j], acc[i][j + 1], acc[i][j + 2],
                                 acc[i][j + 3], upper);
                }
            }
        }
}

/* ---- the kernel --------------------------------------------------------------------------------------------------------- */

/* Groups of 8 tiles of M, through all of K: what runs at one time shares 8 tiles of dY and few of W. */
template <int WARPS_M> __device__ __forceinline__ Place place_of(const fb_product &p, unsigned char *memory)
{
    const int64_t tiles_m = (p.m + Layout<WARPS_M>::kTileM - 1) / Layout<WARPS_M>::kTileM, tiles_k = (p.k + kTileK - 1) / kTileK;
    const int64_t group = blockIdx.x / (8 * tiles_k), in = blockIdx.x % (8 * tiles_k);
    const int64_t height = tiles_m - 8 * group < 8 ? tiles_m - 8 * group : 8;
    const int64_t all = (p.n + kStep - 1) / kStep, each = (all + p.splits - 1) / p.splits, first = each * blockIdx.y;
    Place at;
    at.memory = memory;
    at.m0 = (8 * group + in % height) * Layout<WARPS_M>::kTileM;
    at.k0 = in / height * kTileK;
    at.n0 = first * kStep;
    at.steps = (int)(all - first < each ? all - first : each);
    at.n_end = at.n0 + (int64_t)at.steps * kStep < p.n ? at.n0 + (int64_t)at.steps * kStep : p.n;
    at.row = (int)threadIdx.x / 8;
    at.chunk = (int)threadIdx.x % 8;
    return at;
}

template <class T, int WARPS_M> __global__ void __launch_bounds__(kThreads, WARPS_M == 1 ? 2 : 1) gemm_dx_tile(const fb_product p)
{
    using L = Layout<WARPS_M>;
    FB_DYNAMIC_SHARED(unsigned char, memory, 128);
    fb_load_codebook((float *)(memory + L::kBookAt), p.codebook, p.format);
    fb_fill_nested_map((float *)(memory + L::kMapAt), p.scales, kThreads);
    const float offset = p.scales.absmax ? 0 : p.scales.nested_offset[0];
    const Place at = place_of<WARPS_M>(p, memory);
    const int warp = (int)threadIdx.x / FB_WARP;
    const int64_t m0 = at.m0 + warp / L::kWarpsK * 64, k0 = at.k0 + warp % L::kWarpsK * (8 * L::kTiles);
    float acc[4][L::kTiles][4] = {};
    if (p.rank && blockIdx.y == 0) {
        low_rank<T, WARPS_M>(p, at, acc);
        if (p.threshold) drop(p, m0, k0, acc);
    }

    for (int s = 0; s < kStages - 1; s++) fetch<WARPS_M>(p, at, s);
    fb_raw_scale scale = load_scale(p, at, 0), next = load_scale(p, at, 1);
    ptx::cp_async_wait_group<kStages - 2>();
    __syncthreads(); /* the codebook is there */
    decode<T, WARPS_M>(p, at, 0, scale, offset);
    for (int step = 0; step < at.steps; step++) {
        ptx::cp_async_wait_group<kStages - 3>(); /* dY of this step, codes of the next */
        __syncthreads();                         /* everyone's; W of this step; the step before has been read */
        fetch<WARPS_M>(p, at, step + kStages - 1);
        scale = next;
        next = load_scale(p, at, step + 2);
        if (step + 1 < at.steps) decode<T, WARPS_M>(p, at, step + 1, scale, offset);
        multiply<T, WARPS_M>(memory, step % kStages, step % 2, acc);
    }
    ptx::cp_async_wait_all();
    store(p, m0, k0, (int)blockIdx.y, acc);
}

template <class T, int WARPS_M> fb_status launch(const fb_gemm_call &c, int splits)
{
    using L = Layout<WARPS_M>;
    fb_product p = fb_product_of(c);
    p.splits = splits;
    p.partial = (float *)c.ctx->workspace;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, true, splits > 1 ? fb_dx_partial_bytes(c.w, c.m, splits) : 0, all);
    const int64_t tiles = fb_ceil_div(p.m, L::kTileM) * fb_ceil_div(p.k, kTileK);
    const fb_grid grid = {dim3((unsigned)tiles, (unsigned)splits), dim3(kThreads), L::kBytes, dim3(1)};
    return FB_LAUNCH(c.ctx, (gemm_dx_tile<T, WARPS_M>), grid, all, p);
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_dx_tile)(const fb_gemm_call *c, int splits)
{
    const bool bf16 = c->x_dtype == FB_BF16;
    if (fb_dx_tile_rows(c->m) == 64) return bf16 ? launch<__nv_bfloat16, 1>(*c, splits) : launch<__half, 1>(*c, splits);
    return bf16 ? launch<__nv_bfloat16, 2>(*c, splits) : launch<__half, 2>(*c, splits);
}
