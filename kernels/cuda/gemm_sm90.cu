/* gemm_sm90.cu — Y = X W^T (+ U B^T) (+ bias) on Hopper, W in 4 bits as the checkpoint has it, 16-bit activations, M > 16.
 *
 * FLOPs: 2 M N K. Bytes: N K (1/2 + 4/B) of weights (doubly quantized: 1/2 + 1/B), 2 M K of X, 2 M N of Y. On an H200 (4.3 TB/s,
 * 790 TFLOP/s) memory is the bound below M = 52 (block 64), the tensor cores above.
 *
 *   a block's tile: 128 rows of W x T tokens; a step is 64 of K (128 where T <= 64)           roles and ring: gemm_sm90.cuh
 *
 *          tokens (n)                    lane of a consumer warp, 16 of K, row g (and g + 8):
 *        +-----------+                     codes     row's 8 bytes | . t . . | . t . . |   byte t of both words: 4 weights
 *        |     D     | 64 rows: group 1    table     16 values of the row's block, in two byte planes
 *        +-----------+                     A         k 2t, 2t + 1 | k 2t + 8, 2t + 9        straight into wgmma's registers
 *        |           | 64 rows: group 2
 *        +-----------+ (m)               the group's decode of step i runs while wgmma of step i - 1 does, and that of the
 *                                        other group; two sets of A registers
 *
 * Issue slots and clocks for a step of 64 at T = 256: wgmma 1024 clocks (two groups of 64 x 256 x 64); decode 32 weights a lane x 3
 * ALU operations x 2 warps a scheduler x 2 clocks = 384. At T = 128 the wgmma take 512: still more than the decode.
 * Shared memory: wgmma reads tokens at 64 bytes a clock, copies write 35, codes and tables take 8 + 8: 115 of 128.
 * L2: 36 KB + scales a step: 35 bytes a clock and SM; with two blocks that share their tokens (multicast) 21.
 *
 *   v1  as above. Predicted: M = 4096, 8192 x 8192: 85-92 % of the measured bf16 rate, bound by shared memory; M = 64, 28672 x
 *       8192: 48 us (the look-up's ALU operations: 21 weights a clock and SM), that is 2.2 x cuBLAS bf16; M = 32 the same time.
 *       Measured (H200, best plan, 8192 x 8192, us; cuBLAS bf16): M = 32: 41.2 (35.0); 64: 43.2 (37.0); 128: 60.8 (38.6); 256: 71.8
 *       (50.0); 512: 127 (89.5); 1024: 254 (174); 4096: 978-1079 (674-686), 562 TFLOP/s. The dispatch took other plans, up to 2.5 x slower.
 *       A step took 1100 clocks at T = 32 and 64, 1850 at 256: consumers waited for tables. Each scale was asked for one step ahead, a
 *       warp had some 400 instructions a step with nothing to fill their latencies, and doubly quantized scales made it worse (+20 %).
 *       Learnt: scaling weight by weight needs 32-bit look-ups and the multiplier for each; a table per block of 16 finished
 *       values moves that to warps that had nothing to do, and leaves the same work for every format and codebook.
 *       Considered for M up to 64: half of the weights by look-up in shared memory, as the first gemm_stream_sm90.cu did it. It would take the ALU from
 *       3.3 operations a weight, tables included, to 2.7, but shared memory, which also serves wgmma's tokens, codes and tables, from 1.1 to 1.6 clocks for 32
 *       weights at T = 32 and from 1.5 to 2.0 at T = 64: no gain.
 *
 *   v2  each table warp makes every third stage's tables alone and asks for the next scales before that: three stages' worth of
 *       latency is hidden, no lane idles (128 items on 96 lanes did), no zero point is subtracted where there is none. Plans by measured
 *       clocks, and by how many clusters fit. Predicted: 550-600 clocks a step at T <= 64 (the consumers' 160 instructions, two warps a
 *       scheduler), 1100-1250 at T = 256: M = 64 26 us, 128 35, 256 52, 512 95, 4096 800; double quantization free.
 *       Measured: not yet; proved in the executor. On the way to it, measured and given up (same call, same shapes, us):
 *         scales alone from warps 1-3, tables by the consumers (a lane a quarter, 8 shuffles a row): M = 64 40.3, 128 46.5, 256 61.4,
 *           512 110, 1024 223, 4096 985, doubly quantized 2048 466 (v1 579). Four steps of prefetch in registers hid nothing: ptxas counts
 *           all of a warp's loads of one kind on one scoreboard, so waiting for the oldest is waiting for the newest.
 *         scales fetched by the consumers, two blocks a multiprocessor at T <= 64: 47, 49.4, 61.7, 110, 217, 965. A consumer warp then has
 *           290 instructions a step at 4.8 clocks each, mostly waiting for its own last one (ncu: stall_wait 40 %, selected 19 %).
 *         four consumer warpgroups, tiles of 256 rows: 2100 clocks a step for 256 rows, no faster by the row.
 *         wgmma one by one (k = 16) between the decode of parts: 5-10 % slower than in pairs at T <= 128, equal at 256.
 *         pairs of blocks that share tokens: within 1 % at best, up to 13 % slower (before the remote arrival lost its MEMBAR.ALL.GPU: 25 %).
 *       Learnt: ptxas serializes wgmma silently but for C7512 and C7513 in -Xptxas -v (too few registers, or more than two groups of A in
 *       flight): look for both after every change.
 *
 * Settles it on a GPU: make gpu-report, or build/bin/fourbit-gpu --filter 'gemm/cuda' (M 32 ... 4096 beside cuBLAS).
 */
#include "gemm_sm90.cuh"

namespace {
using namespace sm90;

template <int T> struct Shape {
    static constexpr int kSub = T <= 64 ? 2 : 1, kStages = T == 256 ? 4 : T == 128 ? 6 : 5;
    using L = Layout<T, kSub, kStages, 0>;
};

/* One lane: tokens and codes of every step. `walk` goes on from tile to tile. */
template <int T> __device__ void copy_tiles(const fb_sm90_args &p, const Ring<typename Shape<T>::L> &ring)
{
    using L = typename Shape<T>::L;
    constexpr int kSub = Shape<T>::kSub;
    const uint64_t once = ptx::createpolicy_evict_first(), keep = ptx::createpolicy_evict_last();
    const int box = T / p.share, rank = p.share > 1 ? (int)ptx::cluster_rank() : 0;
    Turn<L::kStages> walk;
    for (int index = first_tile(p); index < tiles_of(p); index += tile_stride(p)) {
        const Tile tile = tile_of(p, index, T);
        const int extra = tile.first == 0 ? p.rank_steps : 0;
        for (int i = -extra; i < tile.steps; i++, walk.next()) {
            const int s = walk.stage, column = (i < 0 ? i + extra : tile.first + i) * kSub * kStep;
            const uint32_t full = ring.full(s);
            ptx::mbarrier_wait_parity(ring.empty(s), walk.phase ^ 1);
            ptx::mbarrier_arrive_expect_tx(full, (uint32_t)(L::kTokens + (i < 0 ? 0 : L::kCodes)));
            for (int sub = 0; sub < kSub; sub++) {
                const uint32_t to = ring.base + (uint32_t)(ring.tokens(s) + (sub * T + rank * box) * 128);
                const CUtensorMap *map = i < 0 ? &p.u : &p.x;
                const int x = column + sub * kStep, y = tile.token0 + rank * box;
                if (p.share > 1) ptx::cp_async_bulk_tensor_2d_load_multicast(to, map, x, y, full, 3);
                else ptx::cp_async_bulk_tensor_2d_load_hint(to, map, x, y, full, keep);
                if (i >= 0)
                    ptx::cp_async_bulk_tensor_2d_load_hint(ring.base + (uint32_t)(ring.codes(s) + sub * kCodeBytes), &p.codes, x / 2, tile.row0,
                                                           full, once);
            }
        }
    }
}

/* A of a sub-step: rows g and g + 8 of the warp's 16, 64 of K. */
template <class X, Decode D, class L>
__device__ __forceinline__ void decode_rows(const Ring<L> &ring, const fb_sm90_args &p, int stage, int sub, uint32_t (&a)[4][4])
{
    const int lane = (int)threadIdx.x % FB_WARP, row = ((int)threadIdx.x - kWarpgroup) / FB_WARP * 16 + lane / 4;
    const uint32_t mine = (uint32_t)(lane % 4) * 0x11u + 0x40u; /* byte t of either word */
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = row + 8 * h, codes = ring.codes(stage) + sub * kCodeBytes + r * 32;
        const int table = ring.tables(stage) + sub * kTableBytes + r * 16;
        const uint4 c0 = ring.at16(codes), c1 = ring.at16(codes + 16);
        const uint32_t words[8] = {c0.x, c0.y, c0.z, c0.w, c1.x, c1.y, c1.z, c1.w};
        Table t = read_table<D>(ring, table);
#pragma unroll
        for (int kk = 0; kk < 4; kk++) {
            if (kk == 2 && p.log2_block == 5) t = read_table<D>(ring, table + 2 * kPlane);
            const uint2 two = decode_four<X, D>(p, ptx::prmt(words[2 * kk], words[2 * kk + 1], mine), t);
            a[kk][h] = two.x;
            a[kk][2 + h] = two.y;
        }
    }
}

/* The same of the low-rank factor, which is small and stays in L1 and L2: no copies. */
template <int SUB> __device__ __forceinline__ void load_low_rank(const fb_sm90_args &p, const Tile &tile, int i0, uint32_t (&a)[4 * SUB][4])
{
    const int lane = (int)threadIdx.x % FB_WARP, row0 = tile.row0 + ((int)threadIdx.x - kWarpgroup) / FB_WARP * 16 + lane / 4;
    const bool wide = (uintptr_t)p.low_rank % 4 == 0;
#pragma unroll
    for (int kk = 0; kk < 4 * SUB; kk++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int row = row0 + r % 2 * 8, i = i0 + kk * 16 + lane % 4 * 2 + r / 2 * 8;
            const uint16_t *from = p.low_rank + (int64_t)row * p.rank + i;
            uint32_t two = 0;
            if (row < p.rows && i < p.rank) two = wide ? *(const uint32_t *)from : fb_raw_word((const __half *)from, 0, 2); /* rank is even */
            a[kk][r] = two;
        }
}

template <class X, Decode D, int T> struct Consumer {
    using L = typename Shape<T>::L;
    static constexpr int kSub = Shape<T>::kSub;
    const fb_sm90_args &p;
    const Ring<L> ring;
    Turn<L::kStages> walk;
    int before; /* the stage that wgmma may still read; -1: none */

    __device__ __forceinline__ void step(const Tile &tile, int i, uint32_t (&a)[4 * kSub][4], float (&d)[T / 2])
    {
        const int s = walk.stage;
        ptx::mbarrier_wait_parity(ring.full(s), walk.phase);
        if (i < 0) {
            load_low_rank<kSub>(p, tile, (i + p.rank_steps) * kSub * kStep, a);
        } else {
#pragma unroll
            for (int sub = 0; sub < kSub; sub++) decode_rows<X, D>(ring, p, s, sub, *(uint32_t(*)[4][4]) & a[4 * sub]);
        }
#pragma unroll
        for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
#pragma unroll
        for (int r = 0; r < 16 * kSub; r++) ptx::wgmma_fence_operand(a[r / 4][r % 4]);
        ptx::wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < 4 * kSub; kk++)
            Half<X>::template multiply<T>(
                d, a[kk], tokens_descriptor(ring.base + (uint32_t)(ring.tokens(s) + kk / 4 * T * 128)) + (uint64_t)(kk % 4 * 2));
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>(); /* the step before: its registers and its stage are free */
#pragma unroll
        for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
        if (before >= 0) hand_back(ring, p, before);
        before = s;
        walk.next();
    }

    __device__ __forceinline__ void run()
    {
        for (int index = first_tile(p); index < tiles_of(p); index += tile_stride(p)) {
            const Tile tile = tile_of(p, index, T);
            float d[T / 2];
#pragma unroll
            for (int r = 0; r < T / 2; r++) d[r] = 0;
            uint32_t even[4 * kSub][4], odd[4 * kSub][4];
            before = -1;
#pragma unroll 1
            for (int i = tile.first == 0 ? -p.rank_steps : 0; i < tile.steps; i += 2) {
                step(tile, i, even, d);
                if (i + 1 < tile.steps) step(tile, i + 1, odd, d);
            }
            ptx::wgmma_wait_group<0>();
#pragma unroll
            for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
            hand_back(ring, p, before);
            write_tile<T>(ring, p, tile, d);
        }
    }
};

template <class X, Decode D, int T>
__global__ void __launch_bounds__(kThreads, 1) gemm_sm90(const __grid_constant__ fb_sm90_args p)
{
    using L = typename Shape<T>::L;
    FB_DYNAMIC_SHARED(unsigned char, memory, 1024);
    const Ring<L> ring = {ptx::shared_address(memory), memory};
    set_up(ring, p);
    if (threadIdx.x < kWarpgroup) {
        ptx::setmaxnreg_dec<Registers<T>::kProducer>();
        if (threadIdx.x >= FB_WARP) table_tiles<X, D, false, Shape<T>::kSub, T>(p, ring);
        else if (ptx::elect_sync(FB_ALL_LANES)) copy_tiles<T>(p, ring);
        __syncwarp();
        leave_cluster(p, false);
    } else {
        ptx::setmaxnreg_inc<Registers<T>::kConsumer>();
        Consumer<X, D, T> consumer = {p, ring, {}, -1};
        consumer.run();
        leave_cluster(p, true);
    }
}

template <class X, Decode D, int T> fb_status launch(const fb_gemm_call &c, const fb_sm90_plan &plan)
{
    fb_sm90_args p = fb_sm90_args_of(c, plan, false, kStep * Shape<T>::kSub);
    if (fb_status bad = fb_sm90_encode(c, p, false, T / plan.share, kRows)) return bad;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, false, 0, all);
    return FB_LAUNCH(c.ctx, (gemm_sm90<X, D, T>), fb_sm90_grid(c, p, plan, Shape<T>::L::kBytes), all, p);
}

template <class X, Decode D> fb_status launch_tokens(const fb_gemm_call &c, const fb_sm90_plan &plan)
{
    switch (plan.tokens) {
    case 32: return launch<X, D, 32>(c, plan);
    case 64: return launch<X, D, 64>(c, plan);
    case 128: return launch<X, D, 128>(c, plan);
    default: return launch<X, D, 256>(c, plan);
    }
}

} // namespace

extern "C" bool FB_CUDA(gemm_sm90_serves)(const fb_gemm_call *c) { return fb_sm90_serves(*c, false); }

extern "C" fb_status FB_CUDA(gemm_sm90_planned)(const fb_gemm_call *c, const fb_sm90_plan *plan)
{
    const bool integer = fb_sm90_integer(*c);
    if (c->x_dtype == FB_BF16)
        return integer ? launch_tokens<__nv_bfloat16, Decode::Integer>(*c, *plan) : launch_tokens<__nv_bfloat16, Decode::Table>(*c, *plan);
    return integer ? launch_tokens<__half, Decode::Integer>(*c, *plan) : launch_tokens<__half, Decode::Table>(*c, *plan);
}

extern "C" fb_status FB_CUDA(gemm_sm90)(const fb_gemm_call *c)
{
    const fb_sm90_plan plan = fb_sm90_plan_for(c->w->rows, c->m, fb_ceil_div(c->w->cols, kStep), false, c->device.multiprocessors);
    return FB_CUDA(gemm_sm90_planned)(c, &plan);
}
