/* gemm_stream_sm90.cu — Y = X W^T (+ U B^T) (+ bias) on Hopper for M from 1 to 16: weights as one stream, K a multiple of 32.
 *
 * FLOPs: 2 M N K. Bytes: N K (1/2 + 4/B) of weights once (doubly quantized: 1/2 + 1/B + 4/(256 B)); 2 M K of X for every cluster, from
 * L2; y_size M N. 28672 x 8192, block 64, at 4.3 TB/s: 30.7 us, memory the bound; the tensor cores would need 0.3 M us.
 *
 *   a unit: 32 rows of W, all of the block's K; block i takes units i, i + blocks ...      a stage: 1024 columns of the 32 rows
 *
 *           K: 0      256     512     768     1023
 *            +-------+-------+-------+-------+     warp 8: lane r copies row r, 512 bytes of codes and their scales in a bulk copy
 *    32 rows | warp  |   1   |   2   |   3   |     each, first to leave L2; it runs four stages ahead, across units
 *            | 0 (4) |  (5)  |  (6)  |  (7)  |     warps 0-3 take the even stages, 4-7 the odd ones; lane (g, t): rows g, g + 8,
 *            +-------+-------+-------+-------+     g + 16, g + 24, columns 64 t ... of its warp's 256
 *
 *      full[s]: the copies' bytes          empty[s]: 4 warps, once codes and scales are in registers         summed: 8 warps x blocks
 *   warp 8 -----------------------> warps 0-7 -----------------------> warp 8            warps 0-7 ------------------> warps 0-7
 *
 * The sum over K: every warp has a part of each unit's sum, and with a cluster of S blocks, each of which takes a part of K, there
 * are 8 S parts. They go to the block of the cluster that owns the rows (32 / S each), by plain stores into its shared memory, and
 * are added there in the order of blocks and warps, whoever came first: the same bits every time, no workspace, no second launch,
 * no counter that somebody must reset. This happens one unit late, while the next one's weights are multiplied.
 *
 * Decode. A weight must be rounded as dequantize does it: fp32 product, one rounding. Two ways lead there, and they wear out different units:
 *
 *      5 words of 8    pairs of fp32 from a table 16 times in shared memory (decode_mma.cuh): a wavefront for 32 weights,
 *                      1.5 ALU operations each
 *      3 words of 8    byte permutes in a table of the block's 16 finished values in registers (gemm_sm90.cuh): no shared memory,
 *                      2.6 ALU operations each, and 16 for the table, which serves the 64 weights of a lane's row
 *
 *   clocks for 32 weights of a multiprocessor       shared memory (1 wavefront a clock)                  ALU (2 warps a clock)
 *      look-up alone                                1 + codes in and out .25 + X .13 + scales .03 = 1.41      .8
 *      permutes alone                               .41                                                      1.45
 *      5 : 3                                        1.04                                                     1.13
 *
 *   v1  as above. Predicted on an H200 at 1.9 GHz: 32 / 1.13 = 28 weights a clock of the 30.5 that memory brings: at best 93 % of the
 *       roof; with 97 % from units that do not divide (896 on 132 blocks) 34 us for 28672 x 8192, M <= 8, 3.2 x bf16's floor, and 38 us
 *       if the two units overlap to 90 %; M = 16: shared memory 1.17, 1 us more. 4096 x 4096: 2.2 us of memory and 1.5 of start and table: 4 us. Doubly quantized: 8 % fewer bytes,
 *       0.15 issue slots of 3.7 more. In flight: 64 KiB of codes a multiprocessor, where 4.3 TB/s x 0.8 us / 132 asks for 26. 64
 *       bulk copies of 16 to 512 bytes a stage, one in 17 clocks. 168 registers, the most that nine warps can have, no spills.
 *       Measured: unconfirmed, no Hopper GPU was at hand; proved in the executor (validate/simt/test_gemm_stream.cpp).
 *
 * Why not above M = 16: for 32 tokens X takes half a wavefront for 32 weights, and parts of 64 KiB for each unit of 16 KiB as much
 * again; gemm_sm90.cu, which keeps sums in wgmma's registers, is predicted faster there.
 *
 * Settles it on a GPU: make gpu-report, or build/bin/fourbit-gpu --filter 'gemm/cuda' (M 1 ... 16 beside cuBLAS).
 */
#include "decode_mma.cuh"
#include "gemm_sm90.cuh"

namespace {

constexpr int kWarps = 8, kConsumers = kWarps * FB_WARP, kThreads = kConsumers + FB_WARP;
constexpr int kRows = 32, kSlice = 256, kTeam = 4, kStep = kTeam * kSlice; /* kTeam: warps that share a stage */
constexpr int kPermuted = 3;                                              /* of a lane's 8 words in a row */

/* A stage. Pitches: 8 lanes' 16 bytes of two rows are in all banks, the scales of 8 rows in different ones; room for a piece that is
 * widened to whole 16 bytes. Scales: fp32, or 8-bit codes of them. */
constexpr int kCodePitch = kStep / 2 + 16, kScalePitch = kStep / 32 * 4 + 16, kBytePitch = kStep / 32 + 16;
constexpr int kScalesAt = kRows * kCodePitch, kZerosAt = kScalesAt + kRows * kScalePitch, kStage = kZerosAt + kRows * kBytePitch;
constexpr int kStages = 4;

/* Shared memory: the pair table, the map of 8-bit scales, the ring, barriers, parts of sums, X. */
constexpr int kMapAt = FB_PAIR_BYTES, kRingAt = kMapAt + FB_NESTED_MAP_BYTES, kFullAt = kRingAt + kStages * kStage;
constexpr int kEmptyAt = kFullAt + 8 * kStages, kSummedAt = kEmptyAt + 8 * kStages, kPartsAt = kFullAt + 128;
static_assert(kStage % 128 == 0 && kSummedAt + 8 <= kPartsAt, "alignment, room for the barriers");

struct Args {
    fb_product p;
    int split, units, slices; /* blocks of a cluster; of 32 rows; of 256 columns */
    int x_at;
};

/* Parts of a unit's sums at their owner: [2 units][8 split parts][M][rows each], rows of one block apart by 4 more: no conflicts. */
__host__ __device__ constexpr int rows_each(int split) { return kRows / split; }
__host__ __device__ constexpr int part_pitch(int split) { return split == 1 ? kRows + 4 : kRows / split; }
__host__ __device__ constexpr int parts_bytes(int split, int m) { return 2 * kWarps * split * m * part_pitch(split) * 4; }

/* What a block does: columns first ... last - 1 of units unit, unit + stride ... */
struct Work {
    int first, last, unit, stride, rank;
};
__device__ __forceinline__ Work work_of(const Args &a)
{
    Work w;
    w.rank = a.split > 1 ? (int)ptx::cluster_rank() : 0;
    w.first = (int)((int64_t)a.slices * w.rank / a.split) * kSlice;
    w.last = (int)((int64_t)a.slices * (w.rank + 1) / a.split) * kSlice;
    if (w.last > a.p.k) w.last = (int)a.p.k;
    w.unit = (int)blockIdx.x / a.split;
    w.stride = (int)gridDim.x / a.split;
    return w;
}

/* ---- warp 8: the stream -------------------------------------------------------------------------------------------------- */

/* The blocks of `columns` elements from e on, widened to a multiple of `group` at both ends: 16 bytes. */
struct Piece {
    int64_t first;
    int count;
};
__device__ __forceinline__ Piece piece_of(int64_t e, int columns, int log2_block, int group)
{
    Piece q;
    q.first = e >> log2_block & ~(int64_t)(group - 1);
    q.count = (int)(((e + columns - 1) >> log2_block | (group - 1)) + 1 - q.first);
    return q;
}

__device__ void stream(const Args &a, const Work &w, uint32_t shared)
{
    const fb_product &p = a.p;
    const int lane = (int)threadIdx.x % FB_WARP;
    const uint64_t once = ptx::createpolicy_evict_first();
    sm90::Turn<kStages> walk;
    for (int unit = w.unit; unit < a.units; unit += w.stride) {
        const int64_t row = unit * (int64_t)kRows + lane < p.n ? unit * (int64_t)kRows + lane : p.n - 1; /* beyond N: the last one again */
        for (int k = w.first; k < w.last; k += kStep, walk.next()) {
            const int columns = w.last - k < kStep ? w.last - k : kStep;
            const int64_t e = row * p.k + k;
            const Piece bytes = piece_of(e, columns, p.log2_block, 16);
            const Piece scales = p.scales.absmax ? piece_of(e, columns, p.log2_block, 4) : bytes;
            const uint32_t codes_bytes = (uint32_t)columns / 2, scale_bytes = (uint32_t)scales.count * (p.scales.absmax ? 4 : 1);
            const uint32_t zero_bytes = p.scales.zero_points ? (uint32_t)bytes.count : 0;
            const uint32_t all = __reduce_add_sync(FB_ALL_LANES, codes_bytes + scale_bytes + zero_bytes);
            const uint32_t full = shared + (uint32_t)(kFullAt + 8 * walk.stage), to = shared + (uint32_t)(kRingAt + walk.stage * kStage);
            const auto copy = [=](int at, const void *from, uint32_t size) { ptx::cp_async_bulk_load_hint(to + (uint32_t)at, from, size, full, once); };
            ptx::mbarrier_wait_parity(shared + (uint32_t)(kEmptyAt + 8 * walk.stage), walk.phase ^ 1);
            if (lane == 0) ptx::mbarrier_arrive_expect_tx(full, all);
            __syncwarp();
            copy(lane * kCodePitch, p.codes + e / 2, codes_bytes);
            if (p.scales.absmax) copy(kScalesAt + lane * kScalePitch, p.scales.absmax + scales.first, scale_bytes);
            else copy(kScalesAt + lane * kBytePitch, p.scales.absmax_codes + scales.first, scale_bytes);
            if (zero_bytes) copy(kZerosAt + lane * kBytePitch, p.scales.zero_points + bytes.first, zero_bytes);
        }
    }
}

/* ---- warps 0 to 7: before the stream ----------------------------------------------------------------------------------------- */

/* X of the block's columns, zeros beyond K: [slice][token][64 columns of lane t: 8 pieces, i < 4 in the first 256 bytes]. */
__device__ __forceinline__ int x_offset(int slice, int tokens, int token, int i, int t)
{
    return (slice * tokens + token) * kSlice * 2 + i / 4 * 256 + fb_x_piece(token, i % 4, t);
}
__device__ __forceinline__ void stage_x(const Args &a, const Work &w, uint32_t x)
{
    const int tokens = (int)a.p.m, all = (w.last - w.first + kSlice - 1) / kSlice * tokens * 32;
    for (int q = (int)threadIdx.x; q < all; q += kConsumers) {
        const int slice = q / 32 / tokens, token = q / 32 % tokens, i = q % 32 / 4, t = q % 4, k = w.first + slice * kSlice + 64 * t + 8 * i;
        const bool inside = k < w.last;
        const uint16_t *from = (const uint16_t *)a.p.x + (inside ? token * a.p.k + k : 0);
        ptx::cp_async_16_zfill(x + (uint32_t)x_offset(slice, tokens, token, i, t), from, inside ? 16 : 0);
    }
    ptx::cp_async_commit_group();
}

/* ---- a slice of a stage: from shared memory to registers, from there into the sums ------------------------------------------- */

/* Of rows g + 8 i: the lane's 64 columns in two halves, each within one block. */
struct Slice {
    uint4 codes[4][2];
    float2 scale[4][2]; /* (scale, zero point); 0 beyond K */
};

struct Lane {
    int g, t, warp, team;
    int64_t start[4]; /* first element of its rows */
    float offset;     /* *nested_offset */
    bool halves;      /* the second half may be in another block */
};

/* columns: of the row, before the half's first one; d: of the step, likewise. */
template <bool ZERO>
__device__ __forceinline__ float2 scale_of(const fb_product &p, const unsigned char *stage, const float *map, const Lane &lane, int i, int k, int d,
                                           float nested)
{
    const int row = lane.g + 8 * i;
    const uint32_t e = (uint32_t)lane.start[i] + (uint32_t)k; /* its low bits say where in the widened piece */
    const uint32_t byte = ((e & ((16u << p.log2_block) - 1)) + (uint32_t)d) >> p.log2_block;
    fb_raw_scale r = {nested, 0, 0};
    if (p.scales.absmax)
        r.absmax = ((const float *)(stage + kScalesAt + row * kScalePitch))[((e & ((4u << p.log2_block) - 1)) + (uint32_t)d) >> p.log2_block];
    else
        r.code = stage[kScalesAt + row * kBytePitch + (int)byte];
    if (ZERO) r.zero = stage[kZerosAt + row * kBytePitch + (int)byte];
    return fb_finish_scale(p.scales, r, map, lane.offset);
}

/* The scales' scales come straight from global memory, before the wait: one for 256 blocks stays in L1 for many steps. */
__device__ __forceinline__ void load_nested(const fb_product &p, const Lane &lane, int column, float (&nested)[4][2])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            nested[i][h] = h ? nested[i][0] : 0;
            if (p.scales.absmax_codes && column + 32 * h < p.k && (h == 0 || lane.halves))
                nested[i][h] = p.scales.nested_absmax[(lane.start[i] + column + 32 * h) >> (p.log2_block + 8)];
        }
}

/* k: the step's first column; d: the lane's, in the step. */
template <bool ZERO>
__device__ __forceinline__ void read_slice(const fb_product &p, const unsigned char *stage, const float *map, const Lane &lane, int k, int d,
                                           const float (&nested)[4][2], Slice &s)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            s.codes[i][h] = make_uint4(0, 0, 0, 0);
            s.scale[i][h] = make_float2(0, 0);
            if (k + d + 32 * h >= p.k) continue;
            s.codes[i][h] = *(const uint4 *)(stage + (lane.g + 8 * i) * kCodePitch + d / 2 + 16 * h);
            s.scale[i][h] = h == 0 || lane.halves ? scale_of<ZERO>(p, stage, map, lane, i, k, d + 32 * h, nested[i][h]) : s.scale[i][0];
        }
}

/* 16 finished values of each row's second half. */
template <class T, bool ZERO> __device__ __forceinline__ void make_tables(const float4 (&book)[4], const Slice &s, sm90::Table (&table)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const sm90::ItemScale scale = {s.scale[i][1].x, ZERO ? s.scale[i][1].y : 0.0f};
        const uint2 w0 = sm90::table_words<T>(book[0], scale), w1 = sm90::table_words<T>(book[1], scale);
        const uint2 w2 = sm90::table_words<T>(book[2], scale), w3 = sm90::table_words<T>(book[3], scale);
        table[i].low = make_uint4(w0.x, w1.x, w2.x, w3.x);
        table[i].high = make_uint4(w0.y, w1.y, w2.y, w3.y);
    }
}
/* A word of codes, 8 weights of a row, as two fragments' halves. A permute takes 16 bits of selectors, so the second one needs a shift
 * alone; what decode_four of gemm_sm90.cuh does for each four is done once. */
struct Halves {
    uint2 first, second;
};
__device__ __forceinline__ uint2 permute_four(uint32_t index, uint32_t half, const sm90::Table &t)
{
    const uint32_t low = ptx::prmt(ptx::prmt(t.low.x, t.low.y, index), ptx::prmt(t.low.z, t.low.w, index), half);
    const uint32_t high = ptx::prmt(ptx::prmt(t.high.x, t.high.y, index), ptx::prmt(t.high.z, t.high.w, index), half);
    return make_uint2(ptx::prmt(low, high, 0x4051), ptx::prmt(low, high, 0x6273));
}
__device__ __forceinline__ Halves permute_word(uint32_t word, const sm90::Table &t)
{
    const uint32_t index = word & 0x77777777u, half = (word >> 1 & 0x44444444u) | 0x32103210u;
    return {permute_four(index, half, t), permute_four(index >> 16, half >> 16, t)};
}

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

/* x: of the slice. Word j of a lane's row is 8 columns: two fragments of each of two row tiles, for all tokens. */
template <class T, bool ZERO, int OCTETS>
__device__ __forceinline__ void multiply(const unsigned char *pairs, const float4 (&book)[4], const unsigned char *x, int tokens, const Lane &lane,
                                         const Slice &s, float (&acc)[2][OCTETS][4])
{
    const uint32_t copy = threadIdx.x % 16 * 8;
    sm90::Table table[4];
    make_tables<T, ZERO>(book, s, table);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        uint4 b[OCTETS];
#pragma unroll
        for (int o = 0; o < OCTETS; o++)
            b[o] = lane.g + 8 * o < tokens ? *(const uint4 *)(x + x_offset(0, tokens, lane.g + 8 * o, j, lane.t)) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t upper = word_of(s.codes[2 * r][j / 4], j % 4), lower = word_of(s.codes[2 * r + 1][j / 4], j % 4);
            uint32_t w[2][4];
            if (j < 8 - kPermuted) {
                fb_decode_fragments<T, ZERO>(pairs, copy, upper, lower, s.scale[2 * r][j / 4], s.scale[2 * r + 1][j / 4], w[0], w[1]);
            } else {
                const Halves u8 = permute_word(upper, table[2 * r]), l8 = permute_word(lower, table[2 * r + 1]);
                w[0][0] = u8.first.x, w[0][1] = l8.first.x, w[0][2] = u8.first.y, w[0][3] = l8.first.y;
                w[1][0] = u8.second.x, w[1][1] = l8.second.x, w[1][2] = u8.second.y, w[1][3] = l8.second.y;
            }
#pragma unroll
            for (int o = 0; o < OCTETS; o++) {
                const uint32_t x0[2] = {b[o].x, b[o].y}, x1[2] = {b[o].z, b[o].w};
                fb_mma<T>(acc[r][o], w[0], x0);
                fb_mma<T>(acc[r][o], w[1], x1);
            }
        }
    }
}

/* ---- sums ------------------------------------------------------------------------------------------------------------------ */

/* The warp's part of the block's turn-th unit to the owners of its rows. */
template <int OCTETS>
__device__ __forceinline__ void hand_out(const Args &a, const Work &w, unsigned char *memory, const Lane &lane, int turn,
                                         const float (&acc)[2][OCTETS][4])
{
    const int each = rows_each(a.split), pitch = part_pitch(a.split), tokens = (int)a.p.m;
    float *parts = (float *)(memory + kPartsAt) + (turn % 2 * kWarps * a.split + w.rank * kWarps + lane.warp) * tokens * pitch;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane.g + 8 * i;
        float *to = a.split > 1 ? ptx::map_shared_rank(parts, (uint32_t)(row / each)) : parts;
#pragma unroll
        for (int o = 0; o < OCTETS; o++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int token = 8 * o + 2 * lane.t + e;
                if (token < tokens) to[token * pitch + row % each] = acc[i / 2][o][i % 2 * 2 + e];
            }
    }
    __syncwarp();
    const int self = (int)threadIdx.x % FB_WARP;
    const uint32_t summed = ptx::shared_address(memory) + (uint32_t)kSummedAt;
    if (a.split == 1 && self == 0) ptx::mbarrier_arrive(summed);
    if (a.split > 1 && self < a.split) ptx::mbarrier_arrive_cluster(ptx::mapa(summed, (uint32_t)self));
}

/* The block's rows of its turn-th unit: a thread for each element, the warps in turns. When everybody's parts of it are there, nobody
 * reads the unit before it any more, so two places are enough. */
template <class T> __device__ __forceinline__ void add_up(const Args &a, const Work &w, unsigned char *memory, int turn)
{
    const fb_product &p = a.p;
    const int each = rows_each(a.split), pitch = part_pitch(a.split), tokens = (int)p.m, parts = kWarps * a.split;
    const uint32_t summed = ptx::shared_address(memory) + (uint32_t)kSummedAt;
    if (a.split > 1) ptx::mbarrier_wait_parity_cluster(summed, (uint32_t)turn % 2);
    else ptx::mbarrier_wait_parity(summed, (uint32_t)turn % 2);
    for (int q = ((int)threadIdx.x + FB_WARP * turn) % kConsumers; q < tokens * each; q += kConsumers) {
        const int token = q / each, local = q % each;
        const int64_t n = (int64_t)(w.unit + turn * w.stride) * kRows + w.rank * each + local;
        if (n >= p.n) continue;
        const float *from = (const float *)(memory + kPartsAt) + (turn % 2 * parts * tokens + token) * pitch + local;
        float v = from[0];
#pragma unroll 8
        for (int part = 1; part < parts; part++) v = __fadd_rn(v, from[part * tokens * pitch]);
        if (p.bias) v = __fadd_rn(v, fb_half_bits_to_float(((const uint16_t *)p.bias)[n], fb_element<T>::dtype));
        if (p.y_dtype == FB_F32) ((float *)p.y)[token * p.n + n] = v;
        else ((uint16_t *)p.y)[token * p.n + n] = (uint16_t)fb_float_to_half_bits(v, p.y_dtype);
    }
}

template <class T, bool ZERO, int OCTETS> __device__ void consume(const Args &a, const Work &w, unsigned char *memory)
{
    const fb_product &p = a.p;
    const uint32_t shared = ptx::shared_address(memory);
    const float *map = (const float *)(memory + kMapAt);
    Lane lane = {(int)threadIdx.x % FB_WARP / 4, (int)threadIdx.x % 4, (int)threadIdx.x / FB_WARP, (int)threadIdx.x / FB_WARP / kTeam, {}, 0, false};
    lane.offset = p.scales.absmax ? 0 : p.scales.nested_offset[0];
    lane.halves = p.log2_block == 5 || p.k % 64;
    float4 book[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        book[i] = make_float4(fb_code_value(p.codebook, p.format, 4 * i), fb_code_value(p.codebook, p.format, 4 * i + 1),
                              fb_code_value(p.codebook, p.format, 4 * i + 2), fb_code_value(p.codebook, p.format, 4 * i + 3));
    const int slice = lane.warp % kTeam, d = slice * kSlice + 64 * lane.t;
    sm90::Turn<kStages> walk;
    int turn = 0;
    for (int unit = w.unit; unit < a.units; unit += w.stride, turn++) {
        float acc[2][OCTETS][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t row = unit * (int64_t)kRows + lane.g + 8 * i;
            lane.start[i] = (row < p.n ? row : p.n - 1) * p.k;
        }
        if (p.rank)
            fb_low_rank_prologue<T, 2, OCTETS>(p.u, p.b, p.rank, p.m, p.n, unit * (int64_t)kRows + lane.g, lane.g, acc, w.rank * kWarps + lane.warp,
                                               kWarps * a.split);
#pragma unroll 1
        for (int k = w.first; k < w.last; k += kStep, walk.next()) {
            if (walk.stage % 2 != lane.team) continue; /* the other four warps' */
            const bool mine = k + slice * kSlice < w.last;
            float nested[4][2];
            load_nested(p, lane, mine ? k + d : (int)p.k, nested);
            ptx::mbarrier_wait_parity(shared + (uint32_t)(kFullAt + 8 * walk.stage), walk.phase);
            Slice s;
            if (mine) read_slice<ZERO>(p, memory + kRingAt + walk.stage * kStage, map, lane, k, d, nested, s);
            __syncwarp();
            if (threadIdx.x % FB_WARP == 0) ptx::mbarrier_arrive(shared + (uint32_t)(kEmptyAt + 8 * walk.stage));
            const unsigned char *x = memory + a.x_at + x_offset((k - w.first) / kSlice + slice, (int)p.m, 0, 0, 0);
            if (mine) multiply<T, ZERO, OCTETS>(memory, book, x, (int)p.m, lane, s, acc);
        }
        if (turn) add_up<T>(a, w, memory, turn - 1);
        hand_out(a, w, memory, lane, turn, acc);
    }
    add_up<T>(a, w, memory, turn - 1);
}

template <class T, bool ZERO, int OCTETS> __global__ void __launch_bounds__(kThreads, 1) gemm_stream(const __grid_constant__ Args a)
{
    FB_DYNAMIC_SHARED(unsigned char, memory, 128);
    const uint32_t shared = ptx::shared_address(memory);
    const Work w = work_of(a);
    if (threadIdx.x == kConsumers) {
        for (int s = 0; s < kStages; s++) {
            ptx::mbarrier_init(shared + (uint32_t)(kFullAt + 8 * s), 1);
            ptx::mbarrier_init(shared + (uint32_t)(kEmptyAt + 8 * s), kTeam);
        }
        ptx::mbarrier_init(shared + (uint32_t)kSummedAt, (unsigned)(kWarps * a.split));
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (a.split > 1) ptx::cluster_arrive();
    if (threadIdx.x >= kConsumers) {
        stream(a, w, shared);
        if (a.split > 1) ptx::cluster_wait();
        return;
    }
    stage_x(a, w, shared + (uint32_t)a.x_at);
    fb_fill_pairs(memory, a.p.codebook, a.p.format, kConsumers);
    fb_fill_nested_map((float *)(memory + kMapAt), a.p.scales, kConsumers);
    ptx::cp_async_wait_all();
    ptx::bar_sync(1, kConsumers);
    if (a.split > 1) ptx::cluster_wait(); /* everybody's barriers are there to be arrived at */
    consume<T, ZERO, OCTETS>(a, w, memory);
}

/* ---- host ------------------------------------------------------------------------------------------------------------------- */

int shared_bytes(const fb_gemm_call &c, int split)
{
    const int64_t slices = fb_ceil_div(fb_ceil_div(c.w->cols, kSlice), split), x = slices * c.m * kSlice * 2;
    const int64_t all = kPartsAt + parts_bytes(split, (int)c.m) + x;
    return all > INT32_MAX ? INT32_MAX : (int)all;
}

/* As many clusters as should run at one time: a cluster lies in a GPC, and an H200's have 16 or 18 multiprocessors. One too many would run
 * after all the others, as the units are dealt out beforehand. */
int clusters_of(const fb_device &d, int split)
{
    const int n = split <= 2 ? d.multiprocessors / split : d.multiprocessors / 16 * 16 / split;
    return n < 1 ? 1 : n;
}

/* The split that ends first: units in turn, times the slices of each and as much as handing out the sums costs. 0: X does not fit. */
int split_of(const fb_gemm_call &c)
{
    const int64_t units = fb_ceil_div(c.w->rows, kRows), slices = fb_ceil_div(c.w->cols, kSlice);
    int best = 0;
    double least = 0;
    for (int split = 1; split <= 8 && split <= slices; split *= 2) {
        if (shared_bytes(c, split) > c.device.shared_bytes) continue;
        const double cost = (double)fb_ceil_div(units, clusters_of(c.device, split)) * ((double)slices / split + 1);
        if (!best || cost < 0.97 * least) best = split, least = cost;
    }
    return best;
}

/* Bulk copies move whole 16 bytes from 16-byte boundaries; a piece of scales is widened to them, so they must end with one. */
bool copies_serve(const fb_matrix &w)
{
    const int64_t blocks = fb_ceil_div(w.rows * w.cols, w.block_size);
    if (w.cols % 32 || !fb_wide(w.codes, 16)) return false;
    if (w.format == FB_INT4_AFFINE && (blocks % 16 || !fb_wide(w.zero_points, 16))) return false;
    return w.double_quant ? blocks % 16 == 0 && fb_wide(w.absmax_codes, 16) : blocks % 4 == 0 && fb_wide(w.absmax, 16);
}

template <class T, bool ZERO, int OCTETS> fb_status launch(const fb_gemm_call &c, int split, int blocks)
{
    Args a = {fb_product_of(c), split, (int)fb_ceil_div(c.w->rows, kRows), (int)fb_ceil_div(c.w->cols, kSlice), 0};
    a.x_at = kPartsAt + parts_bytes(split, (int)c.m);
    int clusters = blocks ? blocks / split : clusters_of(c.device, split);
    if (clusters > a.units) clusters = a.units;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, 0, all);
    const fb_grid grid = {dim3((unsigned)(clusters * split)), dim3(kThreads), (size_t)shared_bytes(c, split), dim3((unsigned)split)};
    return FB_LAUNCH(c.ctx, (gemm_stream<T, ZERO, OCTETS>), grid, all, a);
}
template <class T, bool ZERO> fb_status launch_octets(const fb_gemm_call &c, int split, int blocks)
{
    return c.m <= 8 ? launch<T, ZERO, 1>(c, split, blocks) : launch<T, ZERO, 2>(c, split, blocks);
}
template <class T> fb_status launch_for(const fb_gemm_call &c, int split, int blocks)
{
    return c.w->format == FB_INT4_AFFINE ? launch_octets<T, true>(c, split, blocks) : launch_octets<T, false>(c, split, blocks);
}

} // namespace

extern "C" bool FB_CUDA(gemm_stream_sm90_serves)(const fb_gemm_call *c)
{
    if (c->x_dtype == FB_F32 || c->m < 1 || c->m > 16 || !fb_wide(c->x, 16)) return false;
    return fb_sm90_fits_int(c->w->rows) && fb_sm90_fits_int(c->w->cols) && copies_serve(*c->w) && split_of(*c) > 0;
}

extern "C" fb_status FB_CUDA(gemm_stream_sm90_planned)(const fb_gemm_call *c, const fb_sm90_plan *plan)
{
    return c->x_dtype == FB_BF16 ? launch_for<__nv_bfloat16>(*c, plan->split, plan->blocks) : launch_for<__half>(*c, plan->split, plan->blocks);
}

extern "C" fb_status FB_CUDA(gemm_stream_sm90)(const fb_gemm_call *c)
{
    const fb_sm90_plan plan = {0, split_of(*c), 1, 0};
    return FB_CUDA(gemm_stream_sm90_planned)(c, &plan);
}
