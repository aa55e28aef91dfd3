/* gemm_stream_sm90.cu — Y = X W^T (+ U B^T) (+ bias) on Hopper for M from 1 to 8: weights as one stream, K a multiple of 32.
 *
 * FLOPs: 2 M N K. Bytes: N K (1/2 + 4/B) of weights once (doubly quantized: 1/2 + 1/B + 4/(256 B)); 2 M K of X for every block, from L2;
 * y_size M N. 28672 x 8192, block 64, at 4.2 TB/s: 31.5 us, memory the bound.
 *
 * A weight is a code of 16 bits times absmax, which is taken out of the sum of its block (FB_WEIGHTS_CODES, formats.h): what is left to do
 * for two weights is one look-up of a byte, straight into an operand of the tensor cores.
 *
 *      byte b    lane 0    lane 1            lane 31         hi, lo: 16 bits each; hi is the upper nibble, the even column
 *      128 b    | hi, lo | hi, lo |  ...  | hi, lo |         256 pairs, once in each bank: no look-up waits for another (32 KiB)
 *
 *   a block: 8 warps, each with a part of K; 32 rows of W at a time (a unit), blocks taking units in turn
 *   a step of a warp: 256 columns of the unit's rows, 4 KiB, by one tensor copy into a ring of its own, some steps ahead and across units; the
 *   scales likewise where a row's four are whole 16 bytes (blocks of 64, fp32, K % 256 = 0), else by plain loads a step ahead, a row a lane
 *
 *             group 0     group 1     group 2     group 3           lane (g, t): rows g, g + 8 ... (turned: quad_row), a quarter of the
 *           +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+             columns of each group: 8 bytes
 *     row   |t0|t1|t2|t3|t0|t1|t2|t3|t0|t1|t2|t3|t0|t1|t2|t3|       fragment j: 4 columns of each lane, 16 rows, all of one block
 *           +--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+--+       eight groups of 32 for blocks of 32, or where K % 64 is 32
 *
 *   sums: d of a group by mma, acc += scale * d. The warps' parts of a unit go through shared memory and are added there in their order, one unit
 *   late, so that nobody waits at the barrier between the two. Where X does not fit in shared memory (M = 8: K > 5000) or units are few,
 *   K is cut among the blocks of a cluster, and each adds up its share of the rows. The same bits every time; no workspace, no second launch.
 *
 *   v1  weights rounded one by one as dequantize gives them, by look-up in fp32 and byte permutes side by side; 64 bulk copies a stage from one
 *       warp; M to 16. Predicted 34-38 us for 28672 x 8192, M = 1. Measured on an H200: 170 us. Learnt: 6.3 issue slots a weight where 4 are
 *       all there are; a lane's bulk copy takes some 40 clocks to issue, and consumers waited for the copying warp half of the time
 *   v2  FB_WEIGHTS_CODES; loads straight into registers: 65.9 us. Learnt: 8 rows x 32 bytes a load, and 8 bytes of scales a lane, wear out L1's
 *       tags and fetch each sector of scales four times
 *   v3  codes by cp.async: 66.0 us: it writes shared memory a sector (32 bytes) a wavefront, as much traffic as the look-ups
 *   v4  tensor copies, 16 warps, steps of 128: 53.3 us. Without its scales' loads 44.5, without the sums 48.5, without look-ups 48.0; M = 8,
 *       two blocks a cluster, 66.3 (47.8 without the sums); 8192 x 8192 20.9 us, 4096 x 4096 8.9 us, of which some 6 are launch, table and X
 *   v5  8 warps and steps of 256: half the barriers and parts; scales by tensor copies, nobody waits for the unit's barrier, the 16-bit
 *       codebook comes with the arguments. Predicted 38-42 us for 28672 x 8192, M = 1. Measured: not yet; proved in the executor
 *       (validate/simt/test_gemm_stream.cpp)
 *
 *   (28672 x 8192, NF4 block 64, M = 1 unless said; an H200, CUDA graphs over copies of the weights larger than L2; bf16 cuBLAS took 107-120 us)
 *
 * Reproduce: make gpu-report, or build/bin/fourbit-gpu --profile full --filter 'gemm/cuda/nf4/b64/M1_'
 */
#include "decode_mma.cuh"
#include "gemm_sm90.h"

namespace {

constexpr int kWarps = 8, kThreads = FB_WARP * kWarps, kRows = 32, kStep = 256, kMostTokens = 8, kMostStages = 6;

/* Shared memory, by shared addresses. The pair table begins at a multiple of its size, so that a look-up's address is a byte of codes in place, or'ed
 * with the lane's: an addition less for every two weights. The system keeps 1 KiB before the first dynamic byte (the executor 3), and what
 * is small fills the gap between that and the table.
 *
 *      3 KiB: barriers, map of 8-bit scales, scales that come by plain loads, parts of sums of two units | 32 KiB: pair table |
 *      64 KiB: rings of codes, rings of scales, X   */
constexpr int kTableBytes = 256 * FB_WARP * 4, kLeastWindow = 1024, kMostWindow = 3072;
constexpr int kBarriersAt = kMostWindow, kMapAt = kBarriersAt + 512, kScalesAt = kMapAt + FB_NESTED_MAP_BYTES, kScaleBytes = kRows * 8 * 5;
constexpr int kPartsAt = kScalesAt + kWarps * kScaleBytes, kPartsBytes = 2 * kWarps * kMostTokens * kRows * 4, kRingAt = 2 * kTableBytes;
constexpr int kStage = kRows * kStep / 2, kScaleStage = kRows * 4 * 4; /* of a warp */
static_assert(kWarps * kMostStages * 8 <= 512 && kPartsAt % 128 == 0 && kPartsAt + kPartsBytes <= kTableBytes, "room in the gap; alignment");

struct Args {
    CUtensorMap codes, scales; /* boxes of 32 rows: of 128 bytes, 128-byte swizzle; of 4 scales */
    fb_product p;
    int log2_split, units, steps; /* blocks of a cluster; of 32 rows; of 256 columns */
    float factor, inverse;        /* of the codes, which the sums must lose again */
    bool tensor_scales;
    int per_step;                 /* of a row: 4: scales of a step begin at a multiple of four blocks; 1: they are one; 0: neither */
    int stages, scale_ring_at, x_at, x_pitch; /* of a warp's rings; bytes */
    uint16_t book[FB_CODES];                  /* the codebook in 16 bits */
};

struct Lane {
    int self, g, t, warp;
    int row;         /* of a unit: its first of four, 8 apart */
    int first, last; /* the warp's steps */
    int unit, stride;
    float offset;    /* *nested_offset */
};

/* ---- loads --------------------------------------------------------------------------------------------------------------------- */

/* A stage is 32 rows of eight pieces of 16 bytes, in the order of the 128-byte swizzle. A quad reads 32 bytes of a row at a time, and the four
 * quads that read together are in all banks if their rows differ in bits 1 and 2: quads have rows 0 2 4 6 1 3 5 7 (+ 8 i). */
__device__ __forceinline__ int piece_at(int row, int piece) { return row * (kStep / 2) + (piece ^ (row & 7)) * 16; }
__device__ __forceinline__ int quad_row(int g) { return (g & 3) << 1 | g >> 2; }

/* Asks for one step after the other, across units; all lanes come here. Beyond K and N copies read zeros. */
struct Copies {
    int unit, step, stage;
    uint32_t ring, scales, full; /* shared addresses of stage 0 and its barrier */

    __device__ __forceinline__ void next(const Args &a, const Lane &lane, uint64_t policy)
    {
        if (unit >= a.units) return;
        if (ptx::elect_sync(FB_ALL_LANES)) {
            const uint32_t bar = full + (uint32_t)stage * 8;
            ptx::mbarrier_arrive_expect_tx(bar, a.tensor_scales ? kStage + kScaleStage : kStage);
            ptx::cp_async_bulk_tensor_2d_load_hint(ring + (uint32_t)(stage * kStage), &a.codes, step * (kStep / 2), unit * kRows, bar, policy);
            if (a.tensor_scales) ptx::cp_async_bulk_tensor_2d_load(scales + (uint32_t)(stage * kScaleStage), &a.scales, step * 4, unit * kRows, bar);
        }
        __syncwarp();
        if (++stage == a.stages) stage = 0;
        if (++step == lane.last) unit += lane.stride, step = lane.first;
    }
};

/* The scales of row `lane` of a unit by plain loads, one step ahead of their use: of GROUPS groups of columns. */
template <int GROUPS, bool ZERO> struct Scales {
    static constexpr int kColumns = kStep / GROUPS;
    int unit, step;
    int64_t element;
    uint32_t raw[GROUPS], zero[GROUPS];
    float nested[GROUPS];

    __device__ __forceinline__ void enter(const Args &a, const Lane &lane)
    {
        const int64_t row = (int64_t)unit * kRows + lane.self, last = a.p.n - 1;
        step = lane.first;
        if (unit < a.units) element = (row < last ? row : last) * a.p.k + (int64_t)step * kStep;
    }
    __device__ __forceinline__ void load(const Args &a, const Lane &lane)
    {
        if (unit >= a.units || (a.tensor_scales && !ZERO)) return;
        const fb_scales &s = a.p.scales;
        const int64_t b0 = element >> a.p.log2_block;
        if (GROUPS == 4 && a.per_step == 4) {
            if (s.absmax_codes) raw[0] = *(const uint32_t *)(s.absmax_codes + b0), nested[0] = s.nested_absmax[b0 / FB_NESTED_BLOCK];
            if (ZERO) zero[0] = *(const uint32_t *)(s.zero_points + b0);
        } else if (GROUPS == 4 && a.per_step == 1) {
            if (s.absmax_codes) raw[0] = s.absmax_codes[b0], nested[0] = s.nested_absmax[b0 / FB_NESTED_BLOCK];
            else raw[0] = __float_as_uint(s.absmax[b0]);
            if (ZERO) zero[0] = s.zero_points[b0];
        } else {
#pragma unroll
            for (int h = 0; h < GROUPS; h++) { /* a group beyond K, where X is zero: the first one's block again */
                const int64_t b = (int64_t)step * kStep + h * kColumns < a.p.k ? (element + h * kColumns) >> a.p.log2_block : b0;
                if (s.absmax_codes) raw[h] = s.absmax_codes[b], nested[h] = s.nested_absmax[b / FB_NESTED_BLOCK];
                else raw[h] = __float_as_uint(s.absmax[b]);
                if (ZERO) zero[h] = s.zero_points[b];
            }
        }
        element += kStep;
        if (++step == lane.last) unit += lane.stride, enter(a, lane);
    }
    /* Finished, to where all lanes find them: [32 rows][GROUPS] fp32, then as many zero points, a byte each. */
    __device__ __forceinline__ void hand_out(const Args &a, const Lane &lane, const float *map, unsigned char *to) const
    {
        if (a.tensor_scales && !ZERO) return;
        const bool packed = GROUPS == 4 && a.per_step == 4, one = GROUPS == 4 && a.per_step == 1;
        float v[GROUPS];
#pragma unroll
        for (int h = 0; h < GROUPS; h++) {
            const uint32_t code = packed ? raw[0] >> 8 * (h & 3) & 255 : one ? raw[0] : raw[h];
            const float outer = packed || one ? nested[0] : nested[h];
            v[h] = a.p.scales.absmax_codes ? __fadd_rn(__fmul_rn(map[code & 255], outer), lane.offset) : __uint_as_float(code);
        }
#pragma unroll
        for (int h = 0; h < GROUPS; h += 4) {
            const int at = lane.self * (GROUPS / 4) + h / 4;
            if (!a.tensor_scales) ((float4 *)to)[at] = make_float4(v[h], v[h + 1], v[h + 2], v[h + 3]);
            if (ZERO)
                ((uint32_t *)(to + kRows * GROUPS * 4))[at] = packed ? zero[0]
                                                              : one  ? zero[0] * 0x01010101u
                                                                     : zero[h] | zero[h + 1] << 8 | zero[h + 2] << 16 | zero[h + 3] << 24;
        }
    }
};

/* X of this block's steps, zeros beyond K. Neighbouring threads copy neighbouring pieces. */
__device__ __forceinline__ void stage_x(const Args &a, uint32_t x, int first, int last)
{
    const int pieces = (last - first) * (kStep / 8);
    for (int token = 0; token < (int)a.p.m; token++)
        for (int piece = (int)threadIdx.x; piece < pieces; piece += kThreads) {
            const int64_t k = (int64_t)first * kStep + 8 * piece;
            const bool inside = k < a.p.k;
            const uint16_t *from = (const uint16_t *)a.p.x + (inside ? token * a.p.k + k : 0);
            ptx::cp_async_16_zfill(x + (uint32_t)(token * a.x_pitch + piece * 16), from, inside ? 16 : 0);
        }
    ptx::cp_async_commit_group();
}

/* The codebook's pairs; eight lanes fill a byte's 32 copies. */
__device__ __forceinline__ void fill_table(const Args &a, unsigned char *table)
{
    for (int i = (int)threadIdx.x; i < kTableBytes / 16; i += kThreads) {
        const uint32_t pair = a.book[i / 8 / 16] | (uint32_t)a.book[i / 8 % 16] << 16;
        ((uint4 *)table)[i] = make_uint4(pair, pair, pair, pair);
    }
}

/* ---- a step -------------------------------------------------------------------------------------------------------------------- */

/* Small integers: exact. */
__device__ __forceinline__ uint32_t minus_pair(uint32_t pair, uint32_t zero, __nv_bfloat16)
{
    const auto d = __hsub2(__halves2bfloat162(__ushort_as_bfloat16((unsigned short)pair), __ushort_as_bfloat16((unsigned short)(pair >> 16))),
                           __halves2bfloat162(__ushort_as_bfloat16((unsigned short)zero), __ushort_as_bfloat16((unsigned short)zero)));
    return __bfloat16_as_ushort(d.x) | (uint32_t)__bfloat16_as_ushort(d.y) << 16;
}
__device__ __forceinline__ uint32_t minus_pair(uint32_t pair, uint32_t zero, __half)
{
    const auto d = __hsub2(__halves2half2(__ushort_as_half((unsigned short)pair), __ushort_as_half((unsigned short)(pair >> 16))),
                           __halves2half2(__ushort_as_half((unsigned short)zero), __ushort_as_half((unsigned short)zero)));
    return __half_as_ushort(d.x) | (uint32_t)__half_as_ushort(d.y) << 16;
}

/* The two weights of a byte of the word. mine: shared address of the table's copy in this lane's bank. */
template <class T, bool ZERO> __device__ __forceinline__ uint32_t look_up(uint32_t mine, uint32_t word, int byte, uint32_t zero)
{
    const uint32_t at = (byte == 0 ? word << 7 : word >> (8 * byte - 7)) & 0x7f80;
    const uint32_t pair = ptx::load_shared_4(at | mine);
    return ZERO ? minus_pair(pair, zero, T()) : pair;
}

/* x: token g, the lane's first column of the step's first group. Lane t of a quad has a quarter of each group: two words of codes, or one. */
template <class T, bool ZERO, int GROUPS>
__device__ __forceinline__ void multiply(const Lane &lane, bool token, uint32_t mine, const unsigned char *codes, const unsigned char *scales,
                                         const unsigned char *zeros, const unsigned char *x, float (&acc)[2][4])
{
    constexpr int kWords = 8 / GROUPS;
#pragma unroll
    for (int h = 0; h < GROUPS; h++) {
        float d[2][4] = {}, scale[4];
        uint32_t zero[4], word[4][kWords];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = lane.row + 8 * i;
            scale[i] = ((const float *)scales)[row * GROUPS + h];
            if (GROUPS == 4) {
                const uint2 two = *(const uint2 *)(codes + piece_at(lane.row, 2 * h + lane.t / 2) + 8 * i * (kStep / 2) + lane.t % 2 * 8);
                word[i][0] = two.x, word[i][kWords - 1] = two.y;
            } else {
                word[i][0] = *(const uint32_t *)(codes + piece_at(lane.row, h) + 8 * i * (kStep / 2) + lane.t * 4);
            }
            zero[i] = 0;
            if (ZERO) {
                const float z = (float)zeros[row * GROUPS + h];
                zero[i] = fb_pair<T>(z, z);
            }
        }
#pragma unroll
        for (int jj = 0; jj < kWords; jj++) {
            const uint4 b = token ? *(const uint4 *)(x + h * (2 * kStep / GROUPS) + 16 * jj) : make_uint4(0, 0, 0, 0);
#pragma unroll
            for (int f = 0; f < 2; f++) {
                const uint32_t xs[2] = {f ? b.z : b.x, f ? b.w : b.y};
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const uint32_t upper = word[2 * r][jj], lower = word[2 * r + 1][jj];
                    uint32_t w[4];
                    w[0] = look_up<T, ZERO>(mine, upper, 2 * f, zero[2 * r]), w[1] = look_up<T, ZERO>(mine, lower, 2 * f, zero[2 * r + 1]);
                    w[2] = look_up<T, ZERO>(mine, upper, 2 * f + 1, zero[2 * r]), w[3] = look_up<T, ZERO>(mine, lower, 2 * f + 1, zero[2 * r + 1]);
                    fb_mma<T>(d[r], w, xs);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) acc[i / 2][i % 2 * 2 + e] = __fmaf_rn(scale[i], d[i / 2][i % 2 * 2 + e], acc[i / 2][i % 2 * 2 + e]);
    }
}

/* ---- sums ---------------------------------------------------------------------------------------------------------------------- */

/* Parts at the block that owns the rows: [2 units][warps of the cluster][tokens][its rows]; the rows of a quad's four pairs of tokens, which
 * would be in the same banks, are turned against each other. */
__device__ __forceinline__ int part_at(int token, int row, int each) { return token * each + ((row + token / 2 * 8) & (each - 1)); }

/* Between this and cluster_wait everybody's parts come; the barrier is that of a cluster of one block, too. */
__device__ __forceinline__ void hand_out(const Args &a, const Lane &lane, float *all, int turn, uint32_t rank, const float (&acc)[2][4])
{
    const int each = kRows >> a.log2_split, tokens = (int)a.p.m;
    float *parts = all + ((turn % 2 << a.log2_split) * kWarps + (int)rank * kWarps + lane.warp) * tokens * each;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane.row + 8 * i;
        float *to = a.log2_split ? ptx::map_shared_rank(parts, (uint32_t)(row >> (5 - a.log2_split))) : parts;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int token = 2 * lane.t + e;
            if (token < tokens) to[part_at(token, row & (each - 1), each)] = acc[i / 2][i % 2 * 2 + e];
        }
    }
    ptx::cluster_arrive();
}

/* The block's rows of a unit: a thread for each element. Two places are enough: who hands out the unit after the next has waited for everybody's
 * arrival at the next, which comes after this. */
template <class T> __device__ __forceinline__ void add_up(const Args &a, const float *all, int unit, int turn, uint32_t rank)
{
    const fb_product &p = a.p;
    const int each = kRows >> a.log2_split, tokens = (int)p.m, parts = kWarps << a.log2_split;
    ptx::cluster_wait();
    const int q = ((int)threadIdx.x + FB_WARP * turn) % kThreads; /* 8 tokens of 32 rows: one each at most */
    const int token = q >> (5 - a.log2_split), local = q & (each - 1);
    const int64_t n = (int64_t)unit * kRows + rank * each + local;
    if (token >= tokens || n >= p.n) return;
    const float *from = all + turn % 2 * parts * tokens * each + part_at(token, local, each);
    float v = from[0];
#pragma unroll 8
    for (int part = 1; part < parts; part++) v = __fadd_rn(v, from[part * tokens * each]);
    v = __fmul_rn(v, a.inverse);
    if (p.bias) v = __fadd_rn(v, fb_half_bits_to_float(((const uint16_t *)p.bias)[n], fb_element<T>::dtype));
    if (p.y_dtype == FB_F32) ((float *)p.y)[token * p.n + n] = v;
    else ((uint16_t *)p.y)[token * p.n + n] = (uint16_t)fb_float_to_half_bits(v, p.y_dtype);
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------------------ */

template <class T, bool ZERO, int GROUPS> __global__ void __launch_bounds__(kThreads, 1) gemm_stream(const __grid_constant__ Args a)
{
    FB_DYNAMIC_SHARED(unsigned char, dynamic, 1024);
    const fb_product &p = a.p;
    const uint32_t rank = a.log2_split ? ptx::cluster_rank() : 0, shared = ptx::shared_address(dynamic), window = shared & 0xffffffu;
    const uint32_t base = shared - window; /* the block of a cluster */
    if (window < kLeastWindow || window > kMostWindow) __trap();
    unsigned char *memory = dynamic - window; /* plus an address as above */
    const float *map = (const float *)(memory + kMapAt);
    float *parts = (float *)(memory + kPartsAt);
    Lane lane;
    lane.self = (int)threadIdx.x % FB_WARP, lane.g = lane.self / 4, lane.t = lane.self % 4, lane.warp = (int)threadIdx.x / FB_WARP;
    lane.row = quad_row(lane.g);
    const int worker = (int)rank * kWarps + lane.warp, workers = kWarps << a.log2_split;
    const int first = (int)((int64_t)a.steps * rank >> a.log2_split), last = (int)((int64_t)a.steps * (rank + 1) >> a.log2_split);
    lane.first = (int)((int64_t)a.steps * worker / workers), lane.last = (int)((int64_t)a.steps * (worker + 1) / workers);
    lane.unit = (int)blockIdx.x >> a.log2_split, lane.stride = (int)gridDim.x >> a.log2_split;
    lane.offset = p.scales.absmax_codes ? p.scales.nested_offset[0] : 0;

    const int ring_at = kRingAt + lane.warp * a.stages * kStage, scale_ring_at = a.scale_ring_at + lane.warp * a.stages * kScaleStage;
    const uint32_t full = base + (uint32_t)(kBarriersAt + lane.warp * kMostStages * 8);
    const int begin = lane.first < lane.last ? lane.unit : a.units; /* a warp without steps asks for nothing */
    Copies copies = {begin, lane.first, 0, base + (uint32_t)ring_at, base + (uint32_t)scale_ring_at, full};
    if (lane.self == 0) {
        for (int s = 0; s < a.stages; s++) ptx::mbarrier_init(full + (uint32_t)s * 8, 1);
        ptx::fence_mbarrier_init();
    }
    __syncwarp();
    const uint64_t policy = ptx::createpolicy_evict_first();
    for (int s = 1; s < a.stages; s++) copies.next(a, lane, policy);
    Scales<GROUPS, ZERO> ahead = {};
    ahead.unit = begin;
    ahead.enter(a, lane);
    ahead.load(a, lane);
    stage_x(a, base + (uint32_t)a.x_at, first, last);
    fill_table(a, memory + kTableBytes);
    fb_fill_nested_map((float *)(memory + kMapAt), p.scales, kThreads);
    ptx::cp_async_wait_all();
    __syncthreads();
    if (a.log2_split) ptx::cluster_arrive(), ptx::cluster_wait(); /* nobody stores into a block that has not begun */

    const uint32_t mine = base + (uint32_t)(kTableBytes + lane.self * 4);
    const unsigned char *x = memory + a.x_at + lane.g * a.x_pitch + (lane.first - first) * (2 * kStep) + lane.t * (kStep / GROUPS / 2);
    unsigned char *own = memory + kScalesAt + lane.warp * kScaleBytes;
    int stage = 0, turn = 0, unit = lane.unit;
    uint32_t phase = 0;
    for (; unit < a.units; unit += lane.stride, turn++) {
        float acc[2][1][4] = {};
        if (p.rank) {
            fb_low_rank_prologue<T, 2, 1>(p.u, p.b, p.rank, p.m, p.n, unit * (int64_t)kRows + lane.row, lane.g, acc, worker, workers);
#pragma unroll
            for (int i = 0; i < 8; i++) acc[i / 4][0][i % 4] *= a.factor;
        }
        float sums[2][4] = {{acc[0][0][0], acc[0][0][1], acc[0][0][2], acc[0][0][3]}, {acc[1][0][0], acc[1][0][1], acc[1][0][2], acc[1][0][3]}};
#pragma unroll 1
        for (int step = lane.first; step < lane.last; step++) {
            ahead.hand_out(a, lane, map, own);
            ahead.load(a, lane);
            copies.next(a, lane, policy); /* into the stage before this one, which all lanes have left */
            ptx::mbarrier_wait_parity(full + (uint32_t)stage * 8, phase);
            __syncwarp();
            const unsigned char *scales = a.tensor_scales ? memory + scale_ring_at + stage * kScaleStage : own;
            multiply<T, ZERO, GROUPS>(lane, lane.g < (int)p.m, mine, memory + ring_at + stage * kStage, scales, own + kRows * GROUPS * 4,
                                      x + (step - lane.first) * (2 * kStep), sums);
            __syncwarp();
            if (++stage == a.stages) stage = 0, phase ^= 1;
        }
        if (turn) add_up<T>(a, parts, unit - lane.stride, turn - 1, rank);
        hand_out(a, lane, parts, turn, rank, sums);
    }
    if (turn) add_up<T>(a, parts, unit - lane.stride, turn - 1, rank);
    if (a.log2_split) ptx::cluster_arrive(), ptx::cluster_wait(); /* nor into one that has ended */
}

/* ---- host ------------------------------------------------------------------------------------------------------------------------ */

/* Groups of 64 columns where a block is no smaller and none straddles the end of a row. */
int groups_of(const fb_matrix &w) { return w.block_size >= 64 && w.cols % 64 == 0 ? 4 : 8; }

struct Layout {
    int stages, scale_ring_at, x_at, x_pitch, bytes;
};
/* As many stages as there is room for; 0: not even two. */
Layout layout_of(const fb_device &device, int64_t m, const fb_matrix &w, int split)
{
    Layout l = {};
    const int64_t steps = fb_ceil_div(w.cols, kStep), pitch = fb_ceil_div(steps, split) * 2 * kStep + (groups_of(w) == 4 ? 16 : 64);
    const int64_t left = device.shared_bytes + kLeastWindow - kRingAt - m * pitch, stage = kWarps * (kStage + kScaleStage);
    l.stages = left < 2 * stage ? 0 : left / stage < kMostStages ? (int)(left / stage) : kMostStages;
    l.scale_ring_at = kRingAt + l.stages * kWarps * kStage;
    l.x_at = l.scale_ring_at + l.stages * kWarps * kScaleStage;
    l.x_pitch = (int)pitch;
    l.bytes = (int)(l.stages ? l.x_at + m * pitch - kLeastWindow : 0);
    return l;
}

/* As many clusters as run at one time: one too many would run after all the others, as the units are dealt out beforehand. */
int clusters_of(const fb_device &d, int split)
{
    const int64_t n = fb_sm90_resident(d.multiprocessors, split);
    return n < 1 ? 1 : (int)n;
}

/* The split that ends first: units in turn, times the steps of a warp and what a unit costs beside them. 0: X does not fit. */
int split_of(const fb_device &device, const fb_matrix &w, int64_t m)
{
    const int64_t units = fb_ceil_div(w.rows, kRows), steps = fb_ceil_div(w.cols, kStep);
    int best = 0;
    double least = 0;
    for (int split = 1; split <= 8; split *= 2) {
        if (!layout_of(device, m, w, split).stages) continue;
        const double each = (double)fb_ceil_div(steps, kWarps * split), cost = (double)fb_ceil_div(units, clusters_of(device, split)) * (each + (split > 1 ? 1.5 : 0.5));
        if (!best || cost < 0.95 * least) best = split, least = cost;
    }
    return best;
}

template <class T, bool ZERO, int GROUPS> fb_status launch(const fb_gemm_call &c, int split, int blocks)
{
    const fb_matrix &w = *c.w;
    const Layout l = layout_of(c.device, c.m, w, split);
    if (!l.stages) return fb_fail(c.ctx, FB_UNSUPPORTED, "gemm: X does not fit in the shared memory of %d blocks", split);
    Args a = {};
    a.p = fb_product_of(c);
    a.log2_split = fb_log2(split), a.units = (int)fb_ceil_div(w.rows, kRows), a.steps = (int)fb_ceil_div(w.cols, kStep);
    a.factor = fb_codes16_factor(w.format, fb_element<T>::dtype), a.inverse = 1 / a.factor;
    const bool whole = w.cols % kStep == 0, pieces = whole && w.block_size == 64;
    a.tensor_scales = GROUPS == 4 && pieces && !w.double_quant && fb_wide(w.absmax, 16);
    a.per_step = whole && w.block_size >= kStep ? 1 : pieces && (!w.double_quant || fb_wide(w.absmax_codes, 4)) && (!ZERO || fb_wide(w.zero_points, 4)) &&
                                                               (w.double_quant || a.tensor_scales) ? 4 : 0;
    a.stages = l.stages, a.scale_ring_at = l.scale_ring_at, a.x_at = l.x_at, a.x_pitch = l.x_pitch;
    for (int i = 0; i < FB_CODES; i++)
        fb_store(&a.book, fb_element<T>::dtype, i, fb_bits_to_float(fb_codebook_bits[w.format][i]) * a.factor);
    const uint64_t n = (uint64_t)w.rows, k = (uint64_t)w.cols;
    const char *bad = ptx::encode_tensor_map(&a.codes, w.codes, 1, k / 2, n, k / 2, kStep / 2, kRows, 128);
    if (!bad && a.tensor_scales) bad = ptx::encode_tensor_map(&a.scales, w.absmax, 4, k / 64, n, k / 16, 4, kRows, 0);
    if (bad) return fb_fail(c.ctx, FB_BACKEND_ERROR, "gemm: %s", bad);
    int clusters = blocks ? blocks / split : clusters_of(c.device, split);
    if (clusters > a.units) clusters = a.units;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, 0, all);
    const fb_grid grid = {dim3((unsigned)(clusters * split)), dim3(kThreads), (size_t)l.bytes, dim3((unsigned)split)};
    return FB_LAUNCH(c.ctx, (gemm_stream<T, ZERO, GROUPS>), grid, all, a);
}
template <class T, bool ZERO> fb_status launch_groups(const fb_gemm_call &c, int split, int blocks)
{
    return groups_of(*c.w) == 4 ? launch<T, ZERO, 4>(c, split, blocks) : launch<T, ZERO, 8>(c, split, blocks);
}
template <class T> fb_status launch_for(const fb_gemm_call &c, int split, int blocks)
{
    return c.w->format == FB_INT4_AFFINE ? launch_groups<T, true>(c, split, blocks) : launch_groups<T, false>(c, split, blocks);
}

} // namespace

extern "C" bool FB_CUDA(gemm_stream_sm90_shape)(fb_device device, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (device.arch != 90 || t == FB_F32 || m < 1 || m > kMostTokens || w->codebook || w->cols % 32) return false;
    return fb_sm90_fits_int(w->rows) && fb_sm90_fits_int(w->cols) && split_of(device, *w, m) > 0;
}

extern "C" bool FB_CUDA(gemm_stream_sm90_serves)(const fb_gemm_call *c)
{
    return fb_wide(c->x, 16) && fb_wide(c->w->codes, 16) && FB_CUDA(gemm_stream_sm90_shape)(c->device, c->w, c->m, c->x_dtype);
}

extern "C" fb_status FB_CUDA(gemm_stream_sm90_planned)(const fb_gemm_call *c, const fb_sm90_plan *plan)
{
    return c->x_dtype == FB_BF16 ? launch_for<__nv_bfloat16>(*c, plan->split, plan->blocks) : launch_for<__half>(*c, plan->split, plan->blocks);
}

extern "C" fb_status FB_CUDA(gemm_stream_sm90)(const fb_gemm_call *c)
{
    const fb_sm90_plan plan = {0, split_of(c->device, *c->w, c->m), 1, 0};
    return FB_CUDA(gemm_stream_sm90_planned)(c, &plan);
}
