/* gemm_sm90.cuh — the skeleton of the Hopper products (gemm_sm90.cu, gemm_dx_sm90.cu): a block's roles, its ring of stages,
 * the warps that scale codebooks, the way out.
 *
 *   D [rows, tokens] += A [rows, 64 of the sum] * B [tokens, 64 of the sum]^T       a step
 *
 *            rows (A, decoded)                tokens (B, as they lie)         sum over
 *   gemm     rows of W          128 a tile    rows of X       32 ... 256      columns of W
 *   gemm_dx  columns of W       128           rows of dY      128, 256        rows of W
 *
 *   warpgroup 0    warp 0      one lane copies: tokens by tensor copies (128-byte swizzle), packed codes likewise
 *                  warps 1-3   scale codebooks: one table of 16 values an item, a (row of W, block) pair of the stage; each warp
 *                              makes those of every third stage
 *   warpgroups 1, 2            decode by table look-up and multiply: 64 rows each, all tokens, D in registers
 *
 *      full[s]: the copies' bytes, 1 table warp               empty[s]: 8 consumer warps (of each block that shares)
 *   warpgroup 0 ---------------------------------> consumers ---------------------------------> warpgroup 0
 *
 *   stage s   | tokens: T x 128 bytes (a sub-step) | codes: 128 x 32 bytes (a sub-step) | tables: items x 32 bytes, twice |
 *
 * Why tables. A weight must be rounded to the activations' type exactly as dequantize does it: fp32 product, one rounding.
 * Done weight by weight that is a look-up of 32 bits, a multiplication and half a conversion each. But a block has only 16 different
 * weights, and a warp that has nothing else to do can make them: 16 products and 8 conversions for 64 weights. What is left for
 * the consumers is a look-up of 16 bits in registers: six byte permutes for four weights, no shared memory, no arithmetic. INT4
 * needs no look-up at all; its "table" is the scale and the zero point.
 *
 *   table of an item   plane 0, 16 bytes: the low bytes of the values of codes 0 ... 15;   plane 1: the high bytes
 *   items              two for each row and sub-step, for blocks of 32; larger blocks use the first half alone
 */
#ifndef FB_GEMM_SM90_CUH
#define FB_GEMM_SM90_CUH

#include "gemm_sm90.h"
#include "tensor_map.cuh"

namespace {
namespace sm90 {

constexpr int kWarpgroup = 128, kThreads = 3 * kWarpgroup, kConsumers = 2 * kWarpgroup;
constexpr int kRows = 128;       /* of D a block makes */
constexpr int kStep = 64;        /* 128 bytes of 16-bit elements, one row of the swizzle */
constexpr int kTableWarps = 3;
constexpr int kItems = 128;      /* of a sub-step, and twice as many for blocks of 32 */
constexpr int kCodeBytes = kRows * kStep / 2, kPlane = kItems * 16, kTableBytes = 4 * kPlane;
/* What the copying and scaling warps leave to the others. */
template <int T> struct Registers {
    static constexpr int kProducer = T == 256 ? 72 : T == 128 ? 88 : 120, kConsumer = T == 256 ? 216 : T == 128 ? 208 : 192;
    static_assert((kProducer + 2 * kConsumer) * kWarpgroup <= 65536, "a multiprocessor's registers");
};

enum class Decode { Table, Integer };
constexpr uint32_t kMagic = 0x4b000000u; /* 2^23: its last bits are an integer */

template <class X> struct Half;
template <> struct Half<__nv_bfloat16> {
    static __device__ __forceinline__ uint32_t pair(float hi, float lo) { return ptx::cvt_rn_bf16x2(hi, lo); }
    template <int T> static __device__ __forceinline__ void multiply(float (&d)[T / 2], const uint32_t (&a)[4], uint64_t b)
    {
        ptx::wgmma_bf16_rs<T>(d, a, b, 1);
    }
    template <int T> static __device__ __forceinline__ void multiply_mn(float (&d)[T / 2], uint64_t a, uint64_t b)
    {
        ptx::wgmma_bf16<T, ptx::Major::MN, ptx::Major::K>(d, a, b, 1);
    }
};
template <> struct Half<__half> {
    static __device__ __forceinline__ uint32_t pair(float hi, float lo) { return ptx::cvt_rn_f16x2(hi, lo); }
    template <int T> static __device__ __forceinline__ void multiply(float (&d)[T / 2], const uint32_t (&a)[4], uint64_t b)
    {
        ptx::wgmma_f16_rs<T>(d, a, b, 1);
    }
    template <int T> static __device__ __forceinline__ void multiply_mn(float (&d)[T / 2], uint64_t a, uint64_t b)
    {
        ptx::wgmma_f16<T, ptx::Major::MN, ptx::Major::K>(d, a, b, 1);
    }
};

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

/* Shared memory of a block, from a 1024-byte boundary: STAGES stages, EXTRA bytes of the kernel's own, the way out's rows,
 * the constants, the barriers. */
template <int T, int SUB, int STAGES, int EXTRA> struct Layout {
    static constexpr int kTokens = SUB * T * 128, kCodes = SUB * kCodeBytes, kTables = SUB * kTableBytes;
    static constexpr int kStage = kTokens + kCodes + kTables, kStages = STAGES;
    static constexpr int kOutTokens = T < 64 ? T : 64, kOut = 2 * kOutTokens * 128; /* 64 rows of 16 bits for each warpgroup */
    static constexpr int kExtraAt = STAGES * kStage, kOutAt = kExtraAt + EXTRA, kBookAt = kOutAt + kOut;
    static constexpr int kMapAt = kBookAt + 64, kFullAt = kMapAt + 1024, kEmptyAt = kFullAt + 8 * STAGES;
    static constexpr int kBytes = kEmptyAt + 8 * STAGES;
    static_assert(kStage % 1024 == 0 && kExtraAt % 1024 == 0 && kOutAt % 1024 == 0, "the swizzle's pattern begins anew");
    static_assert(kBytes <= 227 * 1024, "a block's shared memory");
    static_assert(STAGES * kStage >= T * 512, "partial sums of a split tile fit in the ring");
};

/* Where a walk through the ring stands. */
template <int STAGES> struct Turn {
    int stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

template <class L> struct Ring {
    uint32_t base; /* shared address */
    unsigned char *memory;
    __device__ __forceinline__ uint32_t full(int s) const { return base + (uint32_t)(L::kFullAt + 8 * s); }
    __device__ __forceinline__ uint32_t empty(int s) const { return base + (uint32_t)(L::kEmptyAt + 8 * s); }
    __device__ __forceinline__ int tokens(int s) const { return s * L::kStage; }
    __device__ __forceinline__ int codes(int s) const { return s * L::kStage + L::kTokens; }
    __device__ __forceinline__ int tables(int s) const { return s * L::kStage + L::kTokens + L::kCodes; }
    __device__ __forceinline__ uint4 &at16(int offset) const { return *(uint4 *)(memory + offset); }
};

/* Barriers, codebook, nested map; every thread of the block (and of the cluster, if there is one) comes here. */
template <class L> static __device__ __forceinline__ void set_up(const Ring<L> &ring, const fb_sm90_args &p)
{
    if (threadIdx.x == 0) {
        for (int s = 0; s < L::kStages; s++) {
            ptx::mbarrier_init(ring.full(s), 1 + 1);
            ptx::mbarrier_init(ring.empty(s), (unsigned)(kConsumers / FB_WARP * p.share));
        }
        ptx::fence_mbarrier_init();
    }
    fb_load_codebook((float *)(ring.memory + L::kBookAt), p.codebook, p.format);
    float *map = (float *)(ring.memory + L::kMapAt);
    if (p.scales.absmax_codes && threadIdx.x < FB_CODES8)
        map[threadIdx.x] = p.scales.nested_codebook ? p.scales.nested_codebook[threadIdx.x] : __uint_as_float(fb_nested_map[threadIdx.x]);
    __syncthreads();
    if (p.split * p.share > 1) ptx::cluster_arrive(), ptx::cluster_wait();
}

/* ---- work: tiles of the output ------------------------------------------------------------------------------------ */

struct Tile {
    int row0, token0;
    int first, steps; /* this block's part of the sum */
};

/* Tiles in groups of 8 (or 16, where two blocks share) tile rows, inside a group row by row: the blocks that run at one time use
 * the same tokens and few codes, and both stay in L2. */
static __device__ __forceinline__ Tile tile_of(const fb_sm90_args &p, int index, int tile_tokens)
{
    const int rank = p.split * p.share > 1 ? (int)ptx::cluster_rank() : 0;
    const int rows = p.share > 1 ? (p.tiles_rows + 1) / 2 : p.tiles_rows, group = 8;
    const int whole = group * p.tiles_tokens, g = index / whole, in = index % whole;
    const int height = rows - g * group < group ? rows - g * group : group;
    int row = g * group + in % height;
    if (p.share > 1) row = row * 2 + rank;
    Tile t;
    t.row0 = row * kRows;
    t.token0 = in / height * tile_tokens;
    t.first = p.split > 1 ? (int)((int64_t)p.steps * rank / p.split) : 0;
    t.steps = p.split > 1 ? (int)((int64_t)p.steps * (rank + 1) / p.split) - t.first : p.steps;
    return t;
}
static __device__ __forceinline__ int tiles_of(const fb_sm90_args &p)
{
    return (p.share > 1 ? (p.tiles_rows + 1) / 2 : p.tiles_rows) * p.tiles_tokens;
}
/* for (int i = first_tile(p); i < tiles_of(p); i += tile_stride(p)) */
static __device__ __forceinline__ int first_tile(const fb_sm90_args &p) { return (int)blockIdx.x / (p.split * p.share); }
static __device__ __forceinline__ int tile_stride(const fb_sm90_args &p) { return (int)gridDim.x / (p.split * p.share); }

/* ---- warps 1 to 3: scaled codebooks ---------------------------------------------------------------------------------- */

struct ItemScale {
    float scale, zero;
};

/* As it comes from memory; what has to be looked up is, when all of it has come. */
struct RawScale {
    uint32_t scale, nested, zero;
};

/* row, column: of W. Beyond the matrix codes are 0 and the tokens too, or nobody takes the output: any finite scale will do. */
template <bool NESTED> static __device__ __forceinline__ RawScale load_scale(const fb_sm90_args &p, int row, int column)
{
    RawScale r = {0, 0, 0};
    if (row >= p.w_rows || column >= p.w_columns) return r;
    const int64_t block = ((int64_t)row * p.w_columns + column) >> p.log2_block;
    if (NESTED) r.scale = p.scales.absmax_codes[block], r.nested = __float_as_uint(p.scales.nested_absmax[block / FB_NESTED_BLOCK]);
    else r.scale = __float_as_uint(p.scales.absmax[block]);
    if (p.scales.zero_points) r.zero = p.scales.zero_points[block];
    return r;
}
template <bool NESTED, class L>
static __device__ __forceinline__ ItemScale finish_scale(const Ring<L> &ring, const fb_sm90_args &p, const RawScale &r, float offset)
{
    ItemScale s = {__uint_as_float(r.scale), p.scales.zero_points ? (float)r.zero : p.zero};
    if (NESTED) s.scale = __fadd_rn(__fmul_rn(((const float *)(ring.memory + L::kMapAt))[r.scale], __uint_as_float(r.nested)), offset);
    return s;
}

/* Four values into one word of each plane. Without a zero point nothing is subtracted: a value minus 0 is the value. */
template <class X, bool ZERO> static __device__ __forceinline__ uint2 table_words(float4 book, ItemScale s)
{
    if (ZERO) book.x = __fsub_rn(book.x, s.zero), book.y = __fsub_rn(book.y, s.zero), book.z = __fsub_rn(book.z, s.zero), book.w = __fsub_rn(book.w, s.zero);
    const uint32_t a = Half<X>::pair(__fmul_rn(book.y, s.scale), __fmul_rn(book.x, s.scale));
    const uint32_t b = Half<X>::pair(__fmul_rn(book.w, s.scale), __fmul_rn(book.z, s.scale));
    return make_uint2(ptx::prmt(a, b, 0x6420), ptx::prmt(a, b, 0x7531));
}

template <class X, Decode D, class L>
static __device__ __forceinline__ void make_table(const Ring<L> &ring, int at, ItemScale s, bool zero)
{
    if (D == Decode::Integer) {
        *(uint2 *)(ring.memory + at) = make_uint2(__float_as_uint(s.scale), __float_as_uint(__fadd_rn(s.zero, 8388608.0f)));
        return;
    }
    const float4 *book = (const float4 *)(ring.memory + L::kBookAt);
    uint2 w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = zero ? table_words<X, true>(book[i], s) : table_words<X, false>(book[i], s);
    ring.at16(at) = make_uint4(w[0].x, w[1].x, w[2].x, w[3].x);
    ring.at16(at + kPlane) = make_uint4(w[0].y, w[1].y, w[2].y, w[3].y);
}

/* Each warp makes all tables of every third stage, 128 in a pass: one for each sub-step, and, where blocks have 32, half of it. Item i
 * of a pass, forward: row i of the tile; backward: row i % 64 of the step, columns of group i / 64.
 *
 * The next pass's scales are asked for when this one's have come, before its tables are made; three warps wait at a time. Asking
 * earlier, into more registers, hides nothing: ptxas counts all these loads on one scoreboard, and waiting for one is waiting for the last. */
template <class X, Decode D, bool DX, bool NESTED, int HALVES, int SUB, int T, class L>
static __device__ __forceinline__ void table_steps(const fb_sm90_args &p, const Ring<L> &ring)
{
    constexpr int kTurns = kItems / FB_WARP, kPasses = SUB * HALVES;
    const int lane = (int)threadIdx.x % FB_WARP;
    const float offset = NESTED ? p.scales.nested_offset[0] : 0.0f;
    RawScale raw[kTurns];
    Turn<L::kStages> walk;
    int n = (int)threadIdx.x / FB_WARP - 1; /* this warp's next stage, counted from the tile's first */
    for (int skip = 0; skip < n; skip++) walk.next();
    for (int index = first_tile(p); index < tiles_of(p); index += tile_stride(p)) {
        const Tile tile = tile_of(p, index, T);
        const int extra = tile.first == 0 ? p.rank_steps : 0;
        const auto load = [&](int i, int pass) {
            if (i < 0 || i >= tile.steps) return;
            const int along = ((tile.first + i) * SUB + pass / HALVES) * kStep, half = pass % HALVES * 32;
#pragma unroll
            for (int j = 0; j < kTurns; j++) {
                const int item = lane + j * FB_WARP;
                raw[j] = DX ? load_scale<NESTED>(p, along + item % kStep, tile.row0 + item / kStep * 64 + half)
                            : load_scale<NESTED>(p, tile.row0 + item, along + half);
            }
        };
        load(n - extra, 0);
#pragma unroll 1
        for (; n < extra + tile.steps; n += kTableWarps) {
            const int i = n - extra, s = walk.stage;
            if (i < 0) load(i + kTableWarps, 0);
            ptx::mbarrier_wait_parity(ring.empty(s), walk.phase ^ 1);
#pragma unroll 1
            for (int pass = 0; pass < kPasses && i >= 0; pass++) {
                ItemScale scales[kTurns];
#pragma unroll
                for (int j = 0; j < kTurns; j++) scales[j] = finish_scale<NESTED>(ring, p, raw[j], offset);
                if (pass < kPasses - 1) load(i, pass + 1);
                else load(i + kTableWarps, 0);
#pragma unroll
                for (int j = 0; j < kTurns; j++)
                    make_table<X, D>(ring, ring.tables(s) + pass / HALVES * kTableBytes + pass % HALVES * 2 * kPlane + (lane + j * FB_WARP) * 16,
                                     scales[j], p.scales.zero_points != nullptr);
            }
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(ring.full(s));
            for (int skip = 0; skip < kTableWarps; skip++) walk.next();
        }
        n -= extra + tile.steps;
    }
}

template <class X, Decode D, bool DX, int SUB, int T, class L>
static __device__ __forceinline__ void table_tiles(const fb_sm90_args &p, const Ring<L> &ring)
{
    const bool nested = p.scales.absmax == nullptr;
    if (p.log2_block == 5) {
        if (nested) table_steps<X, D, DX, true, 2, SUB, T>(p, ring);
        else table_steps<X, D, DX, false, 2, SUB, T>(p, ring);
    } else {
        if (nested) table_steps<X, D, DX, true, 1, SUB, T>(p, ring);
        else table_steps<X, D, DX, false, 1, SUB, T>(p, ring);
    }
}

/* ---- consumers: look-up ---------------------------------------------------------------------------------------------- */

struct Table {
    uint4 low, high; /* the planes; Integer: low.x is the scale, low.y the zero point + 2^23 */
};

template <Decode D, class L> static __device__ __forceinline__ Table read_table(const Ring<L> &ring, int at)
{
    Table t;
    if (D == Decode::Integer) {
        const uint2 two = *(const uint2 *)(ring.memory + at);
        t.low = make_uint4(two.x, two.y, 0, 0);
        t.high = make_uint4(0, 0, 0, 0);
    } else {
        t.low = ring.at16(at);
        t.high = ring.at16(at + kPlane);
    }
    return t;
}

/* Weights 0 to 3 of two bytes of codes (byte 0: weight 0 in the high nibble) as two pairs of 16 bits. A permute takes its low 16 bits as
 * four selectors of 8 bytes each: three bits of the code choose in either half of the table, the fourth between the halves. */
template <class X, Decode D> static __device__ __forceinline__ uint2 decode_four(const fb_sm90_args &p, uint32_t bytes, const Table &t)
{
    if (D == Decode::Integer) {
        const uint32_t odd = bytes & 0x0f0fu, even = bytes >> 4 & 0x0f0fu;
        const float scale = __uint_as_float(t.low.x), zero = __uint_as_float(t.low.y);
        float w[4];
        w[0] = __uint_as_float(ptx::prmt(even, kMagic, 0x7440)), w[1] = __uint_as_float(ptx::prmt(odd, kMagic, 0x7440));
        w[2] = __uint_as_float(ptx::prmt(even, kMagic, 0x7441)), w[3] = __uint_as_float(ptx::prmt(odd, kMagic, 0x7441));
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = __fmul_rn(__fsub_rn(w[i], zero), scale); /* the difference is exact */
        return make_uint2(Half<X>::pair(w[1], w[0]), Half<X>::pair(w[3], w[2]));
    }
    const uint32_t index = bytes & 0x7777u, half = ptx::lop3<0xea>(bytes >> 1, p.choice, p.places); /* (a & b) | c */
    const uint32_t low = ptx::prmt(ptx::prmt(t.low.x, t.low.y, index), ptx::prmt(t.low.z, t.low.w, index), half);
    const uint32_t high = ptx::prmt(ptx::prmt(t.high.x, t.high.y, index), ptx::prmt(t.high.z, t.high.w, index), half);
    return make_uint2(ptx::prmt(low, high, 0x4051), ptx::prmt(low, high, 0x6273));
}

/* A stage was read: by both blocks' producers, where two share its tokens. */
template <class L> static __device__ __forceinline__ void hand_back(const Ring<L> &ring, const fb_sm90_args &p, int stage)
{
    __syncwarp();
    if (threadIdx.x % FB_WARP) return;
    ptx::mbarrier_arrive(ring.empty(stage));
    if (p.share > 1) ptx::mbarrier_arrive_remote(ptx::mapa(ring.empty(stage), ptx::cluster_rank() ^ 1));
}

/* ---- the way out --------------------------------------------------------------------------------------------------------
 *
 * A lane holds rows g and g + 8 of its warp's 16, tokens 2t and 2t + 1 of every 8 (g = lane / 4, t = lane % 4), and Y is
 * [tokens, rows]: stmatrix turns 8 x 8 squares over on their way to shared memory, from where a token's 64 rows leave as one line of 128
 * bytes. fp32 needs no turning: the 8 lanes of one t write a whole sector. */

static __device__ __forceinline__ float load_out(const fb_sm90_args &p, int64_t i)
{
    if (p.y_dtype == FB_F32) return ((const float *)p.y)[i];
    return fb_half_bits_to_float(((const uint16_t *)p.y)[i], p.y_dtype);
}
static __device__ __forceinline__ void store_out(const fb_sm90_args &p, int64_t i, float v)
{
    if (p.y_dtype == FB_F32) ((float *)p.y)[i] = v;
    else ((uint16_t *)p.y)[i] = (uint16_t)fb_float_to_half_bits(v, p.y_dtype);
}

struct Out {
    int group, warp, lane;    /* consumer warpgroup 0 or 1, warp in it */
    int row0, token0;         /* of the tile */
    float bias[2];            /* of rows g and g + 8 */
};

static __device__ __forceinline__ Out out_of(const fb_sm90_args &p, const Tile &tile)
{
    Out o;
    o.group = (int)threadIdx.x / kWarpgroup - 1;
    o.warp = (int)threadIdx.x % kWarpgroup / FB_WARP;
    o.lane = (int)threadIdx.x % FB_WARP;
    o.row0 = tile.row0 + o.group * 64;
    o.token0 = tile.token0;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int row = o.row0 + o.warp * 16 + o.lane / 4 + 8 * h;
        o.bias[h] = p.bias && row < p.rows ? fb_half_bits_to_float(((const uint16_t *)p.bias)[row], p.x_dtype) : 0.0f;
    }
    return o;
}

template <int C> static __device__ __forceinline__ void write_direct(const fb_sm90_args &p, const Out &o, const float *v, int token)
{
#pragma unroll
    for (int i = 0; i < C / 2; i++) {
        const int64_t at_token = o.token0 + token + i / 4 * 8 + o.lane % 4 * 2 + i % 2;
        const int row = o.row0 + o.warp * 16 + o.lane / 4 + i / 2 % 2 * 8;
        if (at_token >= p.tokens || row >= p.rows) continue;
        const int64_t at = at_token * p.rows + row;
        float sum = __fadd_rn(v[i], o.bias[i / 2 % 2]);
        if (p.accumulate) sum = __fadd_rn(sum, load_out(p, at));
        store_out(p, at, sum);
    }
}

/* Shared-memory offset of eight rows of a token in a warpgroup's rows. */
static __device__ __forceinline__ uint32_t out_offset(int token, int chunk) { return (uint32_t)(token * 128 + (chunk ^ token % 8) * 16); }

template <int C, class L>
static __device__ __forceinline__ void write_staged(const Ring<L> &ring, const fb_sm90_args &p, const Out &o, const float *v, int token)
{
    const int thread = o.warp * FB_WARP + o.lane, at = L::kOutAt + o.group * L::kOutTokens * 128;
    const int row = o.row0 + thread % 8 * 8;
    uint16_t *y = (uint16_t *)p.y;
    ptx::bar_sync((unsigned)(1 + o.group), kWarpgroup); /* those before have left */
    if (p.accumulate) {
#pragma unroll
        for (int k = 0; k < C / 16; k++) {
            const int mine = k * 16 + thread / 8;
            const int64_t at_token = o.token0 + token + mine;
            uint4 old = make_uint4(0, 0, 0, 0);
            if (at_token < p.tokens && row < p.rows) old = *(const uint4 *)(y + at_token * p.rows + row);
            ring.at16(at + (int)out_offset(mine, thread % 8)) = old;
        }
        ptx::bar_sync((unsigned)(1 + o.group), kWarpgroup);
    }
#pragma unroll
    for (int k = 0; k < C / 16; k++) {
        const uint32_t square = ring.base + (uint32_t)at + out_offset(k * 16 + o.lane / 16 * 8 + o.lane % 8, o.warp * 2 + o.lane / 8 % 2);
        float sum[8];
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] = __fadd_rn(v[8 * k + i], o.bias[i / 2 % 2]);
        if (p.accumulate) {
            uint32_t old[4];
            ptx::ldmatrix_x4_trans(old, square);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float a, b;
                fb_split_halves(old[i], p.y_dtype, a, b);
                sum[2 * i] = __fadd_rn(sum[2 * i], a), sum[2 * i + 1] = __fadd_rn(sum[2 * i + 1], b);
            }
            __syncwarp();
        }
        uint32_t pair[4];
#pragma unroll
        for (int i = 0; i < 4; i++) pair[i] = fb_join_halves(sum[2 * i], sum[2 * i + 1], p.y_dtype);
        ptx::stmatrix_x4_trans(square, pair);
    }
    ptx::bar_sync((unsigned)(1 + o.group), kWarpgroup);
#pragma unroll
    for (int k = 0; k < C / 16; k++) {
        const int mine = k * 16 + thread / 8;
        const int64_t at_token = o.token0 + token + mine;
        if (at_token < p.tokens && row < p.rows)
            *(uint4 *)(y + at_token * p.rows + row) = ring.at16(at + (int)out_offset(mine, thread % 8));
    }
}

template <int C, class L>
static __device__ __forceinline__ void write_tokens(const Ring<L> &ring, const fb_sm90_args &p, const Out &o, const float *v, int token)
{
    if (o.token0 + token >= p.tokens) return; /* the same for all of the warpgroup */
    if (p.staged) write_staged<C>(ring, p, o, v, token);
    else write_direct<C>(p, o, v, token);
}

/* The blocks of a cluster each hold the sum over a part of K: they lay it into their rings, and each adds up every split-th 16
 * tokens, the parts in the order of K, whoever came first. No workspace, no second launch, no counter to reset. */
template <int T, class L>
static __device__ __forceinline__ void write_split(const Ring<L> &ring, const fb_sm90_args &p, const Out &o, const float (&d)[T / 2])
{
    const int me = (int)threadIdx.x - kWarpgroup, rank = (int)ptx::cluster_rank();
    float *mine = (float *)ring.memory + me;
    ptx::bar_sync(3, kConsumers); /* nobody reads the ring any more */
#pragma unroll
    for (int i = 0; i < T / 2; i++) mine[i * kConsumers] = d[i];
    ptx::cluster_arrive();
    ptx::cluster_wait();
    for (int u = rank; u < T / 16; u += p.split) {
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = 0;
        for (int r = 0; r < p.split; r++) {
            const float *part = ptx::map_shared_rank(mine, (uint32_t)r) + u * 8 * kConsumers;
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] = r ? __fadd_rn(v[i], part[i * kConsumers]) : part[i * kConsumers];
        }
        write_tokens<16>(ring, p, o, v, u * 16);
    }
}

template <int T, class L>
static __device__ __forceinline__ void write_tile(const Ring<L> &ring, const fb_sm90_args &p, const Tile &tile, const float (&d)[T / 2])
{
    const Out o = out_of(p, tile);
    if (p.split > 1) return write_split<T>(ring, p, o, d);
    constexpr int C = L::kOutTokens;
#pragma unroll
    for (int c = 0; c < T / C; c++) write_tokens<C>(ring, p, o, d + c * (C / 2), c * C);
}

/* A block whose memory others may still reach into, or whose barriers, stays. Split: the consumers come here twice, the others must too. */
static __device__ __forceinline__ void leave_cluster(const fb_sm90_args &p, bool consumer)
{
    if (p.split > 1 && !consumer) ptx::cluster_arrive(), ptx::cluster_wait();
    if (p.split * p.share > 1) ptx::cluster_arrive(), ptx::cluster_wait();
}

/* wgmma reads the tokens' tile: rows of 128 bytes, 8 of them 1024 bytes; 16 of the sum are 32 bytes on. */
static __device__ __forceinline__ uint64_t tokens_descriptor(uint32_t address)
{
    return ptx::matrix_descriptor(address, 16, 1024, ptx::Swizzle::B128);
}

} // namespace sm90
} // namespace
#endif
