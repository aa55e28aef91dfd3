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

/* y [m, n] = the sum of the parts in the workspace (+ bias). */
extern "C" fb_status FB_CUDA(gemm_sum_parts)(const fb_gemm_call *, int splits);

#endif
