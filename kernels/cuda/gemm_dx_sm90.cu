/* gemm_dx_sm90.cu — dX = dY W (+ U B where dropout keeps) (+= dX) on Hopper, W in 4 bits as the checkpoint has it, 16-bit gradients, M > 64.
 *
 * FLOPs: 2 M N K. Bytes: N K (1/2 + 4/B) of weights, 2 M N of dY, 2 M K of dX (twice that with accumulate); no bf16 copy of W is
 * ever made. Bound by the tensor cores from M = 52 up.
 *
 * The sum runs over the rows of W, but codes are packed along its columns and the scale changes from row to row, that is, along the
 * sum. So a step's 64 x 64 weights of a warpgroup are decoded, scale included, into shared memory, rows as they lie: to wgmma
 * that is an A operand whose m (columns of W) is adjacent, which its MN-major descriptor reads without a transposition.
 *
 *   a block's tile: 128 columns of W x T rows of dY; a step is 64 rows of W              roles and ring: gemm_sm90.cuh
 *
 *      stage   dY       T x 64, 128-byte swizzle                              B, K-major
 *              codes    group 1: 64 rows x 32 bytes | group 2: 64 x 32
 *      own     weights  64 rows (k) x 64 columns (m), 128-byte swizzle        A, MN-major: 8 atoms of 8 rows
 *
 *      thread of a group: row thread / 2, half thread % 2: 32 columns, 16 bytes of codes, one table, four stores of 16 bytes
 *      eight lanes store 4 rows x 2 halves: the swizzle sends them to 8 different groups of banks
 *
 *   step i:   decode into weights[i % 3] | fence, the group's barrier | wgmma of step i | wait for step i - 1, hand its stage back
 *             `------- runs while the wgmma of step i - 1 do -------'
 *   Three buffers: with two, the barrier of step i + 1 would not say that every warp has waited for step i - 1.
 *
 * Shared memory, clocks a step at T = 256 (1024 of wgmma): wgmma reads dY and weights 80 bytes a clock, copies write 35, decoded
 * weights are written at 16, codes and tables read at 8: 139 of 128. That is the bound.
 *
 *   v1  as above. Predicted: M = 4096, 8192 x 8192: 80-88 % of the measured bf16 rate, bound by shared memory. Measured
 *       (H200, best plan, us; cuBLAS bf16): M = 128: 69.8 (36.1), 256: 70.4 (49.7), 512: 125 (88.9), 1024: 250 (173), 4096: 984-1075 (676-684),
 *       560 TFLOP/s, 69 %; doubly quantized 512: 162, blocks of 32, 2048: 668. 1700 clocks a step at T = 128 and at 256.
 *       Learnt: with A from registers a lane would need pairs of two different rows of W, four tables for eight weights. Through
 *       shared memory a lane keeps one row, and its table serves 32 weights.
 *
 *   v2  dropout of the low-rank term on its accumulators, between it and the 4-bit loop: a Philox group for each 4 outputs, some 4500
 *       clocks a tile, 3.5 % of what N = 8192 takes (predicted). Before, LoRA with dropout went to mma.sync.
 *
 *   v3  tables as gemm_sm90.cu has them since its v2: before, a stage's scales were asked for when its tables were due. Predicted: 1000 clocks a
 *       step at T = 128, 1300 at 256: M = 512 100 us, 4096 800; double quantization free. Measured: not yet. Measured and given up: a table
 *       made by both threads of a row, scales from warps 1-3: M = 128 58.0, 256 71.8, 512 129, 1024 266 (slower from T = 256 on), doubly
 *       quantized 512 132; with scales fetched by the consumers 70.0, 75.4, 136, 283: what the consumers do in a step is what a step takes.
 *
 * Settles it on a GPU: make gpu-report, or build/bin/fourbit-gpu --filter 'gemm_dx/cuda' (M 128 ... 4096 beside cuBLAS).
 */
#include "gemm_dx.cuh"
#include "gemm_sm90.cuh"

namespace {
using namespace sm90;

constexpr int kBuffers = 3, kWeightBytes = kStep * 128; /* of a warpgroup */

template <int T> struct Shape {
    using L = Layout<T, 1, T == 256 ? 3 : 5, 2 * kBuffers * kWeightBytes>;
};

template <int T> __device__ void copy_tiles(const fb_sm90_args &p, const Ring<typename Shape<T>::L> &ring)
{
    using L = typename Shape<T>::L;
    const uint64_t once = ptx::createpolicy_evict_first();
    const int box = T / p.share, rank = p.share > 1 ? (int)ptx::cluster_rank() : 0;
    Turn<L::kStages> walk;
    for (int index = first_tile(p); index < tiles_of(p); index += tile_stride(p)) {
        const Tile tile = tile_of(p, index, T);
        const int extra = tile.first == 0 ? p.rank_steps : 0;
        for (int i = -extra; i < tile.steps; i++, walk.next()) {
            const int s = walk.stage, row = (i < 0 ? i + extra : tile.first + i) * kStep;
            const uint32_t full = ring.full(s);
            ptx::mbarrier_wait_parity(ring.empty(s), walk.phase ^ 1);
            ptx::mbarrier_arrive_expect_tx(full, (uint32_t)(L::kTokens + (i < 0 ? 0 : L::kCodes)));
            const uint32_t to = ring.base + (uint32_t)(ring.tokens(s) + rank * box * 128);
            const CUtensorMap *map = i < 0 ? &p.u : &p.x;
            if (p.share > 1) ptx::cp_async_bulk_tensor_2d_load_multicast(to, map, row, tile.token0 + rank * box, full, 3);
            else ptx::cp_async_bulk_tensor_2d_load(to, map, row, tile.token0, full);
            if (i < 0) continue;
            for (int group = 0; group < 2; group++)
                ptx::cp_async_bulk_tensor_2d_load_hint(ring.base + (uint32_t)(ring.codes(s) + group * kStep * 32), &p.codes,
                                                       (tile.row0 + group * 64) / 2, row, full, once);
        }
    }
}

template <class X, Decode D, int T> struct Consumer {
    using L = typename Shape<T>::L;
    const fb_sm90_args &p;
    const Ring<L> ring;
    Turn<L::kStages> walk;
    int group, thread, before, buffer;

    __device__ __forceinline__ int weights() const { return L::kExtraAt + (group * kBuffers + buffer) * kWeightBytes; }

    /* 32 columns of a row: 16 bytes of codes become four pieces of 16 bytes. */
    __device__ __forceinline__ void decode(int stage)
    {
        const int row = thread / 2, half = thread % 2;
        const int codes = ring.codes(stage) + (group * kStep + row) * 32 + half * 16;
        const int table = ring.tables(stage) + (p.log2_block == 5 ? half * 2 * kPlane : 0) + (group * kStep + row) * 16;
        const uint4 c = ring.at16(codes);
        const Table t = read_table<D>(ring, table);
        const uint32_t words[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint2 a = decode_four<X, D>(p, words[j], t), b = decode_four<X, D>(p, words[j] >> 16, t);
            ring.at16(weights() + row * 128 + ((half * 4 + j) ^ row % 8) * 16) = make_uint4(a.x, a.y, b.x, b.y);
        }
    }
    /* The same of the low-rank factor: rows i0 ... i0 + 63 of B [rank, K], whose rows are whole 16 bytes. */
    __device__ __forceinline__ void load_low_rank(const Tile &tile, int i0)
    {
        const int row = thread / 2, half = thread % 2, i = i0 + row, column = tile.row0 + group * 64 + half * 32;
        const X *from = (const X *)p.low_rank + (int64_t)i * p.rows;
        const bool wide = (uintptr_t)p.low_rank % 16 == 0;
#pragma unroll
        for (int j = 0; j < 4; j++)
            ring.at16(weights() + row * 128 + ((half * 4 + j) ^ row % 8) * 16) = fb_load_16(from, column + 8 * j, i < p.rank ? p.rows : 0, wide);
    }
    /* Of the low-rank term stays what dropout kept of X. A lane holds columns g and g + 8 of its warp's 16, tokens 2 t and 2 t + 1 of
     * each 8; a Philox group is 4 columns of a token. Four lanes share one (g from 4 s on, one t): each draws for one of the four
     * (token, column) pairs that a lane has in 8 tokens, and they tell each other. */
    __device__ __forceinline__ void drop(const Tile &tile, float (&d)[T / 2])
    {
        const int lane = thread % FB_WARP, me = lane / 4 % 4, column = tile.row0 + group * 64 + thread / FB_WARP * 16 + lane / 16 * 4 + me / 2 * 8;
        ptx::wgmma_wait_group<0>();
#pragma unroll
        for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
#pragma unroll
        for (int c = 0; c < T / 64; c++) {
            uint32_t own = 0; /* four bits for each 8 tokens */
#pragma unroll 1
            for (int j = 0; j < 8; j++) {
                const int64_t token = tile.token0 + 64 * c + 8 * j + lane % 4 * 2 + me % 2;
                own |= fb_dropout_keeps_4(p.seed, p.threshold, (token * p.rows + column) / 4) << 4 * j;
            }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const uint32_t kept = __shfl_sync(FB_ALL_LANES, own, lane / 16 * 16 + 4 * e + lane % 4) >> me;
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (!(kept >> 4 * j & 1)) d[32 * c + 4 * j + e] = 0;
            }
        }
    }

    __device__ __forceinline__ void step(const Tile &tile, int i, float (&d)[T / 2])
    {
        const int s = walk.stage;
        ptx::mbarrier_wait_parity(ring.full(s), walk.phase);
        if (i < 0) load_low_rank(tile, (i + p.rank_steps) * kStep);
        else decode(s);
        ptx::fence_proxy_async();
        ptx::bar_sync((unsigned)(1 + group), kWarpgroup);
#pragma unroll
        for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
        ptx::wgmma_fence();
        const uint64_t a = ptx::matrix_descriptor(ring.base + (uint32_t)weights(), kWeightBytes, 1024, ptx::Swizzle::B128);
        const uint64_t b = tokens_descriptor(ring.base + (uint32_t)ring.tokens(s));
#pragma unroll
        for (int kk = 0; kk < kStep / 16; kk++) /* 16 rows of W are 2048 bytes; 16 of dY's row are 32 */
            Half<X>::template multiply_mn<T>(d, a + (uint64_t)(kk * 128), b + (uint64_t)(kk * 2));
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>();
#pragma unroll
        for (int r = 0; r < T / 2; r++) ptx::wgmma_fence_operand(d[r]);
        if (before >= 0) hand_back(ring, p, before);
        before = s;
        buffer = buffer == kBuffers - 1 ? 0 : buffer + 1;
        walk.next();
    }

    __device__ __forceinline__ void run()
    {
        for (int index = first_tile(p); index < tiles_of(p); index += tile_stride(p)) {
            const Tile tile = tile_of(p, index, T);
            float d[T / 2];
#pragma unroll
            for (int r = 0; r < T / 2; r++) d[r] = 0;
            before = -1;
#pragma unroll 1
            for (int i = tile.first == 0 ? -p.rank_steps : 0; i < tile.steps; i++) {
                if (i == 0 && p.threshold && tile.first == 0) drop(tile, d);
                step(tile, i, d);
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
__global__ void __launch_bounds__(kThreads, 1) gemm_dx_sm90(const __grid_constant__ fb_sm90_args p)
{
    using L = typename Shape<T>::L;
    FB_DYNAMIC_SHARED(unsigned char, memory, 1024);
    const Ring<L> ring = {ptx::shared_address(memory), memory};
    set_up(ring, p);
    if (threadIdx.x < kWarpgroup) {
        ptx::setmaxnreg_dec<Registers<T>::kProducer>();
        if (threadIdx.x >= FB_WARP) table_tiles<X, D, true, 1, T>(p, ring);
        else if (ptx::elect_sync(FB_ALL_LANES)) copy_tiles<T>(p, ring);
        __syncwarp();
        leave_cluster(p, false);
    } else {
        ptx::setmaxnreg_inc<Registers<T>::kConsumer>();
        const int thread = (int)threadIdx.x % kWarpgroup;
        Consumer<X, D, T> consumer = {p, ring, {}, (int)threadIdx.x / kWarpgroup - 1, thread, -1, 0};
        consumer.run();
        leave_cluster(p, true);
    }
}

template <class X, Decode D, int T> fb_status launch(const fb_gemm_call &c, const fb_sm90_plan &plan)
{
    fb_sm90_args p = fb_sm90_args_of(c, plan, true, kStep);
    if (fb_status bad = fb_sm90_encode(c, p, true, T / plan.share, kStep)) return bad;
    fb_operand all[FB_GEMM_OPERANDS];
    fb_gemm_operands(c, true, 0, all);
    return FB_LAUNCH(c.ctx, (gemm_dx_sm90<X, D, T>), fb_sm90_grid(c, p, plan, Shape<T>::L::kBytes), all, p);
}

template <class X, Decode D> fb_status launch_tokens(const fb_gemm_call &c, const fb_sm90_plan &plan)
{
    return plan.tokens == 128 ? launch<X, D, 128>(c, plan) : launch<X, D, 256>(c, plan);
}

} // namespace

extern "C" bool FB_CUDA(gemm_dx_sm90_serves)(const fb_gemm_call *c) { return fb_sm90_serves(*c, true); }

extern "C" fb_status FB_CUDA(gemm_dx_sm90_planned)(const fb_gemm_call *c, const fb_sm90_plan *plan)
{
    const bool integer = fb_sm90_integer(*c);
    if (c->x_dtype == FB_BF16)
        return integer ? launch_tokens<__nv_bfloat16, Decode::Integer>(*c, *plan) : launch_tokens<__nv_bfloat16, Decode::Table>(*c, *plan);
    return integer ? launch_tokens<__half, Decode::Integer>(*c, *plan) : launch_tokens<__half, Decode::Table>(*c, *plan);
}

extern "C" fb_status FB_CUDA(gemm_dx_sm90)(const fb_gemm_call *c)
{
    const fb_sm90_plan plan = fb_sm90_plan_for(c->w->cols, c->m, fb_ceil_div(c->w->rows, kStep), true, c->device.multiprocessors);
    return FB_CUDA(gemm_dx_sm90_planned)(c, &plan);
}
