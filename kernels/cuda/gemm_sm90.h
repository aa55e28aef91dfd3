/* gemm_sm90.h — the Hopper products' plan and arguments, as their host sides fill them and their kernels read them. */
#ifndef FB_GEMM_SM90_H
#define FB_GEMM_SM90_H

#include "gemm.cuh"
#include "tensor_map.cuh"

/* How a product is laid over the chip. Each file chooses one for a call; the tests try others. */
struct fb_sm90_plan {
    int tokens; /* of a tile: 32, 64, 128, 256 (gemm_dx: 128, 256; gemm_stream: all) */
    int split;  /* blocks of a cluster that each sum over a part: 1, 2, 4, 8 */
    int share;  /* blocks of a cluster that copy each token once: 1 or 2; only without split */
    int blocks; /* of the grid, a multiple of split * share; 0: as many as there are multiprocessors, or fewer */
};

/* What a kernel takes. The output is y [tokens, rows]; rows, tokens: gemm_sm90.cuh. */
struct fb_sm90_args {
    CUtensorMap x, codes, u;
    fb_scales scales;
    const float *codebook;
    float zero; /* where there are no zero points: 8 for INT4's codes as they are */
    int format, log2_block;
    int w_rows, w_columns;
    int rows, tokens, steps; /* steps: of the whole sum, without the low-rank product */
    int tiles_rows, tiles_tokens, split, share;
    fb_dtype x_dtype, y_dtype;
    void *y;
    const void *bias;         /* [rows] or NULL */
    const uint16_t *low_rank; /* gemm: [rows, rank], gemm_dx: [rank, rows]; NULL: none */
    int rank, rank_steps;
    bool staged, accumulate;
    uint32_t choice, places; /* 0x4444, 0x3210 (gemm_sm90.cuh: decode_four): as constants of the code they would cost an instruction more */
    uint32_t threshold; /* gemm_dx: of the low-rank product's dropout; 0: none */
    uint64_t seed;
};

extern "C" {
/* Each path: serves says whether it takes the call; planned lays it out as told, for the tests. */
bool FB_CUDA(gemm_sm90_serves)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_sm90)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_sm90_planned)(const fb_gemm_call *, const fb_sm90_plan *);
bool FB_CUDA(gemm_stream_sm90_shape)(fb_device, const fb_matrix *, int64_t m, fb_dtype x_dtype); /* served, but for where pointers point */
bool FB_CUDA(gemm_stream_sm90_serves)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_stream_sm90)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_stream_sm90_planned)(const fb_gemm_call *, const fb_sm90_plan *); /* split, blocks */
bool FB_CUDA(gemm_dx_sm90_serves)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_dx_sm90)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_dx_sm90_planned)(const fb_gemm_call *, const fb_sm90_plan *);
}

/* ---- what both host sides do ------------------------------------------------------------------------------------------- */

static inline bool fb_sm90_fits_int(int64_t v) { return v > 0 && v < ((int64_t)1 << 30); }

/* Codes are integers, decoded by arithmetic; else by tables. */
static inline bool fb_sm90_integer(const fb_gemm_call &c)
{
    return (c.w->format == FB_INT4 || c.w->format == FB_INT4_AFFINE) && !c.w->codebook;
}

/* Tensor copies want rows of whole 16 bytes from 16-byte boundaries; a stage's 64 columns (gemm: of the sum; gemm_dx: of the
 * output) must begin at a multiple of 64 elements, so that no block of weights ends inside them. */
static inline bool fb_sm90_serves(const fb_gemm_call &c, bool dx)
{
    const int64_t n = c.w->rows, k = c.w->cols, sum = dx ? n : k;
    if (c.x_dtype == FB_F32 || !fb_sm90_fits_int(n) || !fb_sm90_fits_int(k) || !fb_sm90_fits_int(c.m)) return false;
    if (k % 64 || sum % 8 || !fb_wide(c.x, 16) || !fb_wide(c.w->codes, 16)) return false;
    return !c.low_rank.rank || (c.low_rank.rank % 8 == 0 && fb_wide(c.low_rank.u, 16));
}

/* Clocks on an H200, from the plans measured there: a step of 64 of the sum takes as long as the decode of its weights, and more where
 * wgmma takes longer; a tile its way in and out; a split the sums that the blocks of its cluster read from each other. */
static inline double fb_sm90_tile_clocks(int tokens, int64_t steps, int split, bool dx)
{
    const double step = dx ? (tokens > 128 ? 1400 : 1150) : tokens > 128 ? 1250 : tokens > 64 ? 750 : 600;
    return (double)fb_ceil_div(steps, split) * step + 4000 + 20 * tokens + (split > 1 ? 40 * tokens : 0);
}

/* Clusters that run at one time: those of two fill the chip; of 4 an H200 with 132 multiprocessors holds 30, of 8 15, because a cluster
 * stays inside a GPC and not every GPC has 16 or 18. A 31st would take as long as all others together. */
static inline int64_t fb_sm90_resident(int multiprocessors, int split)
{
    return split <= 2 ? multiprocessors / split : (int64_t)multiprocessors * 10 / 11 / split;
}

/* The cheapest of the tile widths and splits: rounds of tiles times what a tile takes. Two blocks that copy each token once (share)
 * were never faster by more than 1 % (M = 512 ... 4096), and up to 13 % slower: L2 is not the bound yet. */
static inline fb_sm90_plan fb_sm90_plan_for(int64_t rows, int64_t tokens, int64_t steps, bool dx, int multiprocessors)
{
    const int least_tokens = dx ? 128 : tokens <= 32 ? 32 : 64;
    fb_sm90_plan best = {least_tokens, 1, 1, 0};
    double least = 0;
    for (int t = least_tokens; t <= 256; t *= 2) {
        const int64_t tiles = fb_ceil_div(rows, 128) * fb_ceil_div(tokens, t);
        for (int split = 1; split <= 8; split *= 2) {
            const int64_t at_a_time = fb_sm90_resident(multiprocessors, split);
            if (split > 1 && (tiles > at_a_time || steps / split < 4)) break;
            const double cost = (double)fb_ceil_div(tiles, at_a_time) * fb_sm90_tile_clocks(t, steps, split, dx);
            if (least == 0 || cost < 0.98 * least) least = cost, best.tokens = t, best.split = split;
        }
        if (t >= tokens) break;
    }
    return best;
}

static inline fb_sm90_args fb_sm90_args_of(const fb_gemm_call &c, const fb_sm90_plan &plan, bool dx, int step)
{
    fb_sm90_args p = {};
    p.choice = 0x4444u, p.places = 0x3210u;
    p.scales = fb_scales_of(c.w);
    p.codebook = c.w->codebook;
    p.zero = fb_sm90_integer(c) && c.w->format == FB_INT4 ? FB_INT4_ZERO : 0;
    p.format = (int)c.w->format;
    p.log2_block = fb_log2(c.w->block_size);
    p.w_rows = (int)c.w->rows;
    p.w_columns = (int)c.w->cols;
    p.rows = (int)(dx ? c.w->cols : c.w->rows);
    p.tokens = (int)c.m;
    p.steps = (int)fb_ceil_div(dx ? c.w->rows : c.w->cols, step);
    p.tiles_rows = (int)fb_ceil_div(p.rows, 128);
    p.tiles_tokens = (int)fb_ceil_div(c.m, plan.tokens);
    p.split = plan.split;
    while (p.split > p.steps) p.split /= 2; /* each has a part */
    p.share = plan.share;
    p.x_dtype = c.x_dtype;
    p.y_dtype = c.y_dtype;
    p.y = c.y;
    p.bias = c.bias;
    p.rank = c.low_rank.rank;
    p.rank_steps = (int)fb_ceil_div(p.rank, step);
    p.low_rank = p.rank ? (const uint16_t *)c.low_rank.b : nullptr;
    p.staged = c.y_dtype != FB_F32 && p.rows % 8 == 0 && fb_wide(c.y, 16);
    p.accumulate = c.accumulate;
    p.threshold = p.rank ? c.low_rank.threshold : 0;
    p.seed = c.low_rank.seed;
    return p;
}

/* The three matrices that tensor copies read: tokens in boxes of box_tokens x 64, codes of code_rows x 32 bytes. */
static inline fb_status fb_sm90_encode(const fb_gemm_call &c, fb_sm90_args &p, bool dx, int box_tokens, int code_rows)
{
    const uint64_t m = (uint64_t)c.m, n = (uint64_t)c.w->rows, k = (uint64_t)c.w->cols, sum = dx ? n : k, rank = (uint64_t)p.rank;
    const char *bad = ptx::encode_tensor_map(&p.x, c.x, 2, sum, m, sum * 2, 64, (uint32_t)box_tokens, 128);
    if (!bad) bad = ptx::encode_tensor_map(&p.codes, c.w->codes, 1, k / 2, n, k / 2, 32, (uint32_t)code_rows, 0);
    if (!bad && rank) bad = ptx::encode_tensor_map(&p.u, c.low_rank.u, 2, rank, m, rank * 2, 64, (uint32_t)box_tokens, 128);
    return bad ? fb_fail(c.ctx, FB_BACKEND_ERROR, "%s: %s", dx ? "gemm_dx" : "gemm", bad) : FB_OK;
}

static inline fb_grid fb_sm90_grid(const fb_gemm_call &c, const fb_sm90_args &p, const fb_sm90_plan &plan, size_t shared_bytes)
{
    const int cluster = p.split * p.share;
    const int64_t tiles = (int64_t)(p.share > 1 ? fb_ceil_div(p.tiles_rows, 2) : p.tiles_rows) * p.tiles_tokens;
    int64_t clusters = plan.blocks ? plan.blocks / cluster : c.device.multiprocessors / cluster;
    if (p.split > 1 || clusters > tiles) clusters = tiles;
    if (clusters < 1) clusters = 1;
    return fb_grid{dim3((unsigned)(clusters * cluster)), dim3(384), shared_bytes, dim3((unsigned)cluster)};
}

#endif
