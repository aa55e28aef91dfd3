/* gemm_split.cuh — how the work of a product is cut: tiles in an order that suits L2, K among blocks, the sum of the parts.
 *
 * Split-K in a fixed order: each block writes its fp32 part to the workspace, [split][m][n], and a second launch adds the parts
 * in ascending order, then the bias.  No float atomics, so the same bits every time.
 */
#ifndef FB_GEMM_SPLIT_CUH
#define FB_GEMM_SPLIT_CUH

#include "gemm.cuh"

/* Tiles of rows x tokens, and the part of K each is for.  Eight token tiles go side by side before the next row tile, so that the
 * blocks that run at one time read few different rows of W and few of X: both come from L2.
 *
 *      token tile   0 1 ... 7 | 8 ...
 *      row tile 0   0 1     7 |
 *               1   8 9    15 |                 */
struct fb_tiles {
    int64_t row_tiles, token_tiles;
    int splits, steps; /* of K */
};
struct fb_piece {
    int64_t row_tile, token_tile;
    int first_step, last_step, split; /* last: one past */
};
static __device__ __forceinline__ int64_t fb_pieces(const fb_tiles &t) { return t.row_tiles * t.token_tiles * t.splits; }
static __device__ __forceinline__ fb_piece fb_piece_of(const fb_tiles &t, int64_t work)
{
    constexpr int64_t kGroup = 8;
    const int64_t tiles = t.row_tiles * t.token_tiles;
    fb_piece p;
    p.split = (int)(work / tiles);
    work -= p.split * tiles;
    const int64_t group = work / (kGroup * t.row_tiles), in_group = work - group * kGroup * t.row_tiles;
    const int64_t left = t.token_tiles - group * kGroup, wide = left < kGroup ? left : kGroup;
    p.row_tile = in_group / wide;
    p.token_tile = group * kGroup + in_group % wide;
    p.first_step = (int)((int64_t)t.steps * p.split / t.splits);
    p.last_step = (int)((int64_t)t.steps * (p.split + 1) / t.splits);
    return p;
}

/* Splits so that pieces come near `fill` blocks a multiprocessor, of four steps at least. */
static inline int fb_splits(int64_t tiles, int64_t steps, int64_t blocks)
{
    int64_t s = tiles ? blocks / tiles : 1, most = steps / 4;
    if (s > most) s = most;
    if (s > 64) s = 64;
    return s < 1 ? 1 : (int)s;
}

/* 8 values of one token, rows n ... n + 7, to y, or to the workspace. */
static __device__ __forceinline__ void fb_store_eight(const fb_product &p, int split, int64_t m, int64_t n, const float (&v)[8],
                                                      const float (&bias)[8], bool wide)
{
    if (m >= p.m || n >= p.n) return;
    if (p.splits > 1) {
        fb_store_4(p.partial, FB_F32, (split * p.m + m) * p.n + n, (split * p.m + m + 1) * p.n, wide, {v[0], v[1], v[2], v[3]});
        fb_store_4(p.partial, FB_F32, (split * p.m + m) * p.n + n + 4, (split * p.m + m + 1) * p.n, wide, {v[4], v[5], v[6], v[7]});
        return;
    }
    float w[8];
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = p.bias ? __fadd_rn(v[i], bias[i]) : v[i];
    const int64_t i = m * p.n + n;
    if (wide && p.y_dtype != FB_F32) {
        *(uint4 *)((uint16_t *)p.y + i) = make_uint4(fb_join_halves(w[0], w[1], p.y_dtype), fb_join_halves(w[2], w[3], p.y_dtype),
                                                      fb_join_halves(w[4], w[5], p.y_dtype), fb_join_halves(w[6], w[7], p.y_dtype));
        return;
    }
    fb_store_4(p.y, p.y_dtype, i, (m + 1) * p.n, wide, {w[0], w[1], w[2], w[3]});
    fb_store_4(p.y, p.y_dtype, i + 4, (m + 1) * p.n, wide, {w[4], w[5], w[6], w[7]});
}

/* y [m, n] = the sum of the parts in the workspace (+ bias). */
extern "C" fb_status FB_CUDA(gemm_sum_parts)(const fb_gemm_call *, int splits);

#endif
