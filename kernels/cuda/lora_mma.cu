/* lora_mma.cu — a thin product (lora.cuh) on tensor cores: bf16 and fp16, a rank that is a multiple of 8, rows of whole 16 bytes on
 * 16-byte boundaries.  lora_any.cu serves the rest.
 *
 * Reads the wide operand, 2 rows depth bytes, once for each 128 of rank (64 where the rank is at most 64), and the thin one, 2 depth
 * rank bytes, once for each 128 rows (from L2); writes 2 or 4 rows rank bytes, or 8 splits rows rank to and from the workspace where the
 * sum is cut.  2 rows depth rank flops: rank flops a byte, so memory-bound below a rank of 180 (H200, 4.3 TB/s, 790 TFLOP/s).  X of 4096 x 8192:
 * 16 us, 4 % of the 4-bit product's 700 us at M = 4096, N = K = 8192.  Measured on an H200, a layer less its
 * product: 8 to 10 us at M = 1, 19 to 23 at 512, 36 to 56 at 2048, 57 to 74 at 4096 (rank 8 to 64): 3.2 % of the product of that day at
 * M = 4096, some 9 % of what is predicted for today's.
 *
 *   v1  cp.async in 3 stages, 64 of the sum a step; fragments by ldmatrix, with .trans where a matrix lies across the sum, so that both
 *       ways of lying are one kernel; dropout applied in shared memory by the thread that copied the 16 bytes, its random words
 *       made while the copies fly
 *
 *   a block: 128 rows x 64 (128) ranks, 8 warps of 16 rows                       a step in shared memory, 16-byte unit u of row r at u ^ r % 8:
 *
 *                  l  64 a step              +-----------+                         lies along     across
 *            +----------+                    | thin      | 64 or 128 ranks   wide  [128][64]      [64][128]
 *     warp 0 | 16 rows  |                    +-----------+                   thin  [64][64]       [64][64]
 *          1 |          |  wide              | out       |
 *        ... |          |              the rows x ranks that exist in 16s (8s): warps, copies and mma beyond them are left out
 *            +----------+
 *
 *   shared memory: 3 stages of 24 KiB (32 with 128 ranks).  Two blocks a multiprocessor that has 164 KiB or more.  No bank conflicts from a
 *   rank of 64; below, copies of part of a thin row may take two wavefronts: 3 % of all at most.
 *   bytes in flight: two stages, 48 KiB a block; 4.3 TB/s x 0.8 us / 132 is 26 KiB.
 *   dropout: two Philox groups (some 140 issue slots) for each 16 bytes of X: 1120 clocks a step against the 900 in which an H200's
 *   memory brings its 16 KiB, so the product with dropout is bound by instructions, 1.25 x the time without.
 *
 * The sum is cut among blocks where tiles are fewer than multiprocessors: parts to the workspace, added up in ascending order by a
 * second launch.  No atomics: the same bits every time.
 */
#include "decode_mma.cuh"
#include "lora.cuh"

namespace {

constexpr int kThreads = 256, kRows = FB_THIN_ROWS, kStep = FB_THIN_STEP, kStages = 3;

/* One operand of a step in shared memory: SIDE of i, 64 of l. */
template <bool ACROSS, int SIDE> struct Square {
    static constexpr int kUnits = ACROSS ? SIDE / 8 : kStep / 8; /* of 16 bytes, a row */
    static constexpr int kBytes = SIDE * kStep * 2;
    /* Where the unit that (i, l) begins stands. */
    static __device__ __forceinline__ uint32_t at(int i, int l)
    {
        const int row = ACROSS ? l : i, unit = (ACROSS ? i : l) / 8;
        return (uint32_t)((row * kUnits + (unit ^ row % 8)) * 16);
    }
};

/* An operand in global memory, from this block's first i on. */
struct Matrix {
    const uint16_t *from;
    int64_t count, depth, i0; /* of i, of l */
    int side;                 /* of i that the warps will read: the rest is not copied */
};

/* This thread's turn `n` of a step: which i and l of the block's square, the element's place in memory, whether it is there. */
struct Unit {
    int i, l;
    int64_t element;
    bool wanted, there;
};
template <bool ACROSS, int SIDE> __device__ __forceinline__ Unit unit_of(const Matrix &m, int turn, int64_t l0)
{
    constexpr int kUnits = Square<ACROSS, SIDE>::kUnits;
    const int n = (int)threadIdx.x + turn * kThreads, row = n / kUnits, along = n % kUnits * 8;
    Unit u;
    u.i = ACROSS ? along : row;
    u.l = ACROSS ? row : along;
    u.element = ACROSS ? (l0 + u.l) * m.count + m.i0 + u.i : (m.i0 + u.i) * m.depth + l0 + u.l;
    u.wanted = u.i < m.side;
    u.there = m.i0 + u.i < m.count && l0 + u.l < m.depth;
    return u;
}
template <bool ACROSS, int SIDE> __device__ __forceinline__ void fetch(const Matrix &m, uint32_t to, int64_t l0)
{
#pragma unroll
    for (int turn = 0; turn < SIDE * kStep / 8 / kThreads; turn++) {
        const Unit u = unit_of<ACROSS, SIDE>(m, turn, l0);
        if (u.wanted) ptx::cp_async_16_zfill(to + Square<ACROSS, SIDE>::at(u.i, u.l), m.from + (u.there ? u.element : 0), u.there ? 16 : 0);
    }
}

/* ---- dropout of the wide operand: eight bits for each 16 bytes that this thread copies ------------------------------------------ */

template <bool ACROSS> __device__ __forceinline__ uint32_t kept_of(const fb_thin_product &p, const Matrix &m, int64_t l0)
{
    uint32_t kept = 0;
#pragma unroll 1
    for (int turn = 0; turn < kRows * kStep / 8 / kThreads; turn++) {
        const Unit u = unit_of<ACROSS, kRows>(m, turn, l0);
        if (!u.there) continue;
        kept |= (fb_dropout_keeps_4(p.seed, p.threshold, u.element / 4) | fb_dropout_keeps_4(p.seed, p.threshold, u.element / 4 + 1) << 4) << 8 * turn;
    }
    return kept;
}
__device__ __forceinline__ uint32_t halves(uint32_t kept) { return (kept & 1 ? 0xffffu : 0) | (kept & 2 ? 0xffff0000u : 0); }

template <bool ACROSS> __device__ __forceinline__ void drop(const Matrix &m, unsigned char *wide, uint32_t kept, int64_t l0)
{
#pragma unroll
    for (int turn = 0; turn < kRows * kStep / 8 / kThreads; turn++, kept >>= 8) {
        const Unit u = unit_of<ACROSS, kRows>(m, turn, l0);
        if (!u.there) continue;
        uint4 *unit = (uint4 *)(wide + Square<ACROSS, kRows>::at(u.i, u.l));
        const uint4 v = *unit;
        *unit = make_uint4(v.x & halves(kept), v.y & halves(kept >> 2), v.z & halves(kept >> 4), v.w & halves(kept >> 6));
    }
}

/* ---- multiply --------------------------------------------------------------------------------------------------------------------- */

/* depth, ranks: how many there are of the step's 64 and the tile's 8 TILES. */
template <class T, bool WIDE_ACROSS, bool THIN_ACROSS, int TILES>
__device__ __forceinline__ void multiply(uint32_t wide, uint32_t thin, int depth, int ranks, float (&acc)[TILES][4])
{
    using Wide = Square<WIDE_ACROSS, kRows>;
    using Thin = Square<THIN_ACROSS, 8 * TILES>;
    const int lane = (int)threadIdx.x % FB_WARP, row0 = (int)threadIdx.x / FB_WARP * 16;
    /* the lane's address in a square of 16 x 16: matrices in the order of A's registers, or of two B's */
    const int first = lane % 16, second = lane / 16 * 8, eights = lane % 8 + second, third = lane / 8 % 2 * 8;
#pragma unroll
    for (int l = 0; l < kStep; l += 16) {
        if (l >= depth) break;
        uint32_t a[4];
        if (WIDE_ACROSS) ptx::ldmatrix_x4_trans(a, wide + Wide::at(row0 + third, l + eights));
        else ptx::ldmatrix_x4(a, wide + Wide::at(row0 + first, l + second));
#pragma unroll
        for (int j = 0; j < TILES; j += 2) {
            if (8 * j >= ranks) break;
            uint32_t b[4];
            if (THIN_ACROSS) ptx::ldmatrix_x4_trans(b, thin + Thin::at(8 * j + second, l + first));
            else ptx::ldmatrix_x4(b, thin + Thin::at(8 * j + eights, l + third));
            const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            fb_mma<T>(acc[j], a, left);
            fb_mma<T>(acc[j + 1], a, right);
        }
    }
}

/* ---- the way out -------------------------------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float finished(const fb_thin_product &p, float sum, const float *old)
{
    const float v = __fmul_rn(p.factor, sum);
    return p.accumulate ? __fadd_rn(v, *old) : v;
}

/* Ranks r and r + 1 of row i. A warp's stores are whole sectors of fp32, half ones of 16-bit types. */
__device__ __forceinline__ void store_pair(const fb_thin_product &p, int64_t i, int r, float v, float w)
{
    if (p.out_dtype != FB_F32 && p.splits == 1) {
        *(uint32_t *)((uint16_t *)p.out + i * p.rank + r) = fb_join_halves(__fmul_rn(p.factor, v), __fmul_rn(p.factor, w), p.out_dtype);
        return;
    }
    float *out = p.splits > 1 ? p.parts + blockIdx.y * p.rows * p.rank : (float *)p.out;
    float *to = out + (p.out_across ? r * p.rows + i : i * p.rank + r), *next = to + (p.out_across ? p.rows : 1);
    if (p.splits == 1) v = finished(p, v, to), w = finished(p, w, next);
    if (p.out_across) *to = v, *next = w;
    else *(float2 *)to = make_float2(v, w);
}
template <int TILES> __device__ __forceinline__ void store(const fb_thin_product &p, int64_t i0, int r0, const float (&acc)[TILES][4])
{
    const int lane = (int)threadIdx.x % FB_WARP;
    const int64_t i = i0 + (int)threadIdx.x / FB_WARP * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        if (r0 + 8 * j >= p.rank) break;
        const int r = r0 + 8 * j + lane % 4 * 2;
        if (i < p.rows) store_pair(p, i, r, acc[j][0], acc[j][1]);
        if (i + 8 < p.rows) store_pair(p, i + 8, r, acc[j][2], acc[j][3]);
    }
}

/* ---- the kernel ----------------------------------------------------------------------------------------------------------------------- */

template <class T, bool WIDE_ACROSS, bool THIN_ACROSS, int TILES>
__global__ void __launch_bounds__(kThreads, TILES == 8 ? 2 : 1) lora_mma(const fb_thin_product p)
{
    constexpr int kWide = Square<WIDE_ACROSS, kRows>::kBytes, kStage = kWide + Square<THIN_ACROSS, 8 * TILES>::kBytes;
    FB_DYNAMIC_SHARED(unsigned char, memory, 128);
    const uint32_t base = ptx::shared_address(memory);
    const int rank_tiles = (p.rank + 8 * TILES - 1) / (8 * TILES), r0 = (int)(blockIdx.x % rank_tiles) * 8 * TILES;
    const int64_t i0 = (int64_t)(blockIdx.x / rank_tiles) * kRows, steps = (p.depth + kStep - 1) / kStep;
    const int64_t first = steps * blockIdx.y / p.splits, last = steps * (blockIdx.y + 1) / p.splits;
    const int rows = p.rows - i0 < kRows ? (int)(p.rows - i0) : kRows, ranks = p.rank - r0 < 8 * TILES ? p.rank - r0 : 8 * TILES;
    const Matrix wide = {(const uint16_t *)p.wide, p.rows, p.depth, i0, (rows + 15) & ~15},
                 thin = {(const uint16_t *)p.thin, p.rank, p.depth, r0, (ranks + 15) & ~15};
    const auto fetch_step = [&](int64_t step) {
        const uint32_t to = base + (uint32_t)(step % kStages) * kStage;
        if (step < last) {
            fetch<WIDE_ACROSS, kRows>(wide, to, step * kStep);
            fetch<THIN_ACROSS, 8 * TILES>(thin, to + kWide, step * kStep);
        }
        ptx::cp_async_commit_group();
    };

    float acc[TILES][4] = {};
    for (int64_t step = first; step < first + kStages - 1; step++) fetch_step(step);
    for (int64_t step = first; step < last; step++) {
        const uint32_t stage = (uint32_t)(step % kStages) * kStage, kept = p.threshold ? kept_of<WIDE_ACROSS>(p, wide, step * kStep) : 0;
        ptx::cp_async_wait_group<kStages - 2>();
        if (p.threshold) drop<WIDE_ACROSS>(wide, memory + stage, kept, step * kStep); /* its own 16 bytes: no barrier yet */
        __syncthreads(); /* this stage is everybody's, and the one before it is free */
        fetch_step(step + kStages - 1);
        const int64_t left = p.depth - step * kStep;
        if ((int)threadIdx.x / FB_WARP * 16 < rows)
            multiply<T, WIDE_ACROSS, THIN_ACROSS, TILES>(base + stage, base + stage + kWide, left < kStep ? (int)left : kStep, ranks, acc);
    }
    store<TILES>(p, i0, r0, acc);
}

/* out = factor * the sum of the parts, in ascending order (+ out). Four elements a thread; the parts come from L2. */
__global__ void __launch_bounds__(kThreads) lora_sum(const fb_thin_product p)
{
    const int64_t count = p.rows * p.rank, stride = (int64_t)gridDim.x * kThreads * 4;
    for (int64_t i = ((int64_t)blockIdx.x * kThreads + threadIdx.x) * 4; i < count; i += stride) {
        float4 sum = *(const float4 *)(p.parts + i);
#pragma unroll 4
        for (int s = 1; s < p.splits; s++) {
            const float4 v = *(const float4 *)(p.parts + s * count + i);
            sum = make_float4(__fadd_rn(sum.x, v.x), __fadd_rn(sum.y, v.y), __fadd_rn(sum.z, v.z), __fadd_rn(sum.w, v.w));
        }
        float out[4] = {0, 0, 0, 0};
        if (p.accumulate) fb_unpack_4(fb_load_4(p.out, FB_F32, i, count, true), FB_F32, out);
        out[0] = finished(p, sum.x, out), out[1] = finished(p, sum.y, out + 1);
        out[2] = finished(p, sum.z, out + 2), out[3] = finished(p, sum.w, out + 3);
        fb_store_4(p.out, p.out_dtype, i, count, true, out);
    }
}

/* ---- host ------------------------------------------------------------------------------------------------------------------------------- */

template <class T, bool WIDE_ACROSS, bool THIN_ACROSS, int TILES> fb_status launch(const fb_thin_call &c)
{
    fb_operand all[FB_THIN_OPERANDS];
    fb_thin_operands(c, true, all);
    const int64_t tiles = fb_ceil_div(c.p.rows, kRows) * fb_ceil_div(c.p.rank, 8 * TILES);
    const size_t shared = kStages * (Square<WIDE_ACROSS, kRows>::kBytes + Square<THIN_ACROSS, 8 * TILES>::kBytes);
    const fb_grid grid = {dim3((unsigned)tiles, (unsigned)c.p.splits), dim3(kThreads), shared, dim3(1)};
    const fb_status status = FB_LAUNCH(c.ctx, (lora_mma<T, WIDE_ACROSS, THIN_ACROSS, TILES>), grid, all, c.p);
    if (status != FB_OK || c.p.splits == 1) return status;
    const fb_operand two[] = {{c.p.parts, fb_thin_parts_bytes(c.p.rows, c.p.rank, c.p.splits), "workspace", false}, all[2]};
    return FB_LAUNCH(c.ctx, (lora_sum), fb_plain_grid(fb_ceil_div(c.p.rows * c.p.rank, 4 * kThreads), kThreads), two, c.p);
}
template <class T, int TILES> fb_status launch_lying(const fb_thin_call &c)
{
    if (c.p.wide_across) return launch<T, true, true, TILES>(c);
    return c.p.thin_across ? launch<T, false, true, TILES>(c) : launch<T, false, false, TILES>(c);
}
template <class T> fb_status launch_for(const fb_thin_call &c)
{
    return c.p.rank <= 64 ? launch_lying<T, 8>(c) : launch_lying<T, 16>(c);
}

} // namespace

/* Contiguous dimensions come in whole 16 bytes; tiles are counted in 32 bits. */
extern "C" bool FB_CUDA(lora_mma_serves)(const fb_thin_call *c)
{
    const fb_thin_product &p = c->p;
    if (c->t == FB_F32 || p.rank % 8 || p.depth == 0 || p.rows / kRows > INT32_MAX / 4) return false;
    if ((p.wide_across ? p.rows : p.depth) % 8 || (!p.thin_across && p.depth % 8)) return false;
    return fb_wide(p.wide, 16) && fb_wide(p.thin, 16) && fb_wide(p.out, 16);
}
extern "C" fb_status FB_CUDA(lora_mma)(const fb_thin_call *c)
{
    return c->t == FB_BF16 ? launch_for<__nv_bfloat16>(*c) : launch_for<__half>(*c);
}
