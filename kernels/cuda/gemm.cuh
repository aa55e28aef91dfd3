/* gemm.cuh — what the products with a 4-bit matrix share: the call as the host sees it, the arguments as a kernel sees them,
 * and the machine that a path is chosen for.
 *
 *   cuda_ops.cu   slot -> fb_gemm_call -> gemm.cu (gemm_dx.cu): chooses a path from dispatch.h -> the path's own file
 *
 *   lora.cu         the same call with a low-rank term; its thin products are in lora_any.cu and lora_mma.cu
 *   gemm_any.cu     every shape, type and alignment; slow and right
 *   gemm_small.cu   M up to 16: weights once, as fast as memory gives them
 *   gemm_tile.cu    tensor cores by tiles
 *   gemm_split.cu   the sum of split-K's parts
 *   gemm_hopper.cu  asked before them on Hopper: gemm_stream_sm90.cu, gemm_sm90.cu, gemm_dx_sm90.cu
 */
#ifndef FB_GEMM_CUH
#define FB_GEMM_CUH

#include "decode.cuh"
#include "dispatch.h"
#include "elements.cuh"

/* ---- the machine ------------------------------------------------------------------------------------------------ */

struct fb_device {
    int arch;            /* 80, 90, 100: the generation that the operations table was made for */
    int multiprocessors;
    int shared_bytes;    /* most that one block may have */
};

/* In the executor the generation is what FOURBIT_CUDA_ARCH says (cuda_ops.cu), and two multiprocessors make every
 * persistent loop take more than one turn. */
static inline fb_device fb_device_of(int arch)
{
    fb_device d = {arch, 2, (arch == 80 ? 163 : 227) * 1024};
#ifndef FB_SIMT
    int device = 0;
    d.multiprocessors = 1;
    d.shared_bytes = 48 * 1024;
    if (cudaGetDevice(&device) == cudaSuccess) {
        (void)cudaDeviceGetAttribute(&d.multiprocessors, cudaDevAttrMultiProcessorCount, device);
        (void)cudaDeviceGetAttribute(&d.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
#endif
    return d;
}

/* ---- the call, on the host ------------------------------------------------------------------------------------------ */

/* A product of rank r that is added to the 4-bit one in the same accumulators, before its loop: LoRA.
 * gemm: + U B^T, u [M, rank], b [N, rank].  gemm_dx: + U B where dropout keeps the element of dX, u [M, rank], b [rank, K].
 * Both in the activations' type, row-major.  rank 0: none. */
struct fb_low_rank {
    const void *u, *b;
    int rank; /* 0 ... 256 */
    uint32_t threshold; /* gemm_dx: dropout.h; 0: everything is kept */
    uint64_t seed;
};
static constexpr int FB_LOW_RANK_MAX = 256;

/* Y [M, N] = X [M, K] W^T (+ U B^T) (+ bias); for gemm_dx x is dY [M, N], y is dX [M, K]. */
struct fb_gemm_call {
    fb_context *ctx;
    fb_device device;
    const fb_matrix *w;
    int64_t m;
    const void *x;
    fb_dtype x_dtype;
    const void *bias; /* gemm; x_dtype; NULL: none */
    void *y;
    fb_dtype y_dtype;
    bool accumulate;  /* gemm_dx: dX += */
    fb_low_rank low_rank;
};

/* ---- the arguments, in a kernel ---------------------------------------------------------------------------------------- */

struct fb_product {
    const uint8_t *codes;
    fb_scales scales;
    const float *codebook; /* NULL: the format's own */
    int format, log2_block;
    int64_t m, n, k;       /* W is [n, k] */
    const void *x, *bias, *u, *b;
    void *y;
    float *partial;        /* workspace: [splits][m][n] (dx: [splits][m][k]) when splits > 1 */
    int rank, splits;
    fb_dtype y_dtype;
    bool accumulate;
    uint32_t threshold;    /* dx: of the low-rank product's dropout */
    uint64_t seed;
};

static inline fb_product fb_product_of(const fb_gemm_call &c)
{
    fb_product p = {};
    p.codes = c.w->codes;
    p.scales = fb_scales_of(c.w);
    p.codebook = c.w->codebook;
    p.format = (int)c.w->format;
    p.log2_block = fb_log2(c.w->block_size);
    p.m = c.m;
    p.n = c.w->rows;
    p.k = c.w->cols;
    p.x = c.x;
    p.bias = c.bias;
    p.u = c.low_rank.rank ? c.low_rank.u : nullptr;
    p.b = c.low_rank.rank ? c.low_rank.b : nullptr;
    p.y = c.y;
    p.rank = c.low_rank.rank;
    p.threshold = c.low_rank.threshold;
    p.seed = c.low_rank.seed;
    p.splits = 1;
    p.y_dtype = c.y_dtype;
    p.accumulate = c.accumulate;
    return p;
}

/* The buffers of a call, for fb_launch; partial_bytes of the workspace are in use. */
enum { FB_GEMM_OPERANDS = FB_WEIGHT_OPERANDS + 6 };
static inline void fb_gemm_operands(const fb_gemm_call &c, bool dx, size_t partial_bytes, fb_operand (&out)[FB_GEMM_OPERANDS])
{
    fb_operand weight[FB_WEIGHT_OPERANDS];
    fb_weight_operands(c.w, weight);
    for (int i = 0; i < FB_WEIGHT_OPERANDS; i++) out[i] = weight[i];
    const size_t m = (size_t)c.m, n = (size_t)c.w->rows, k = (size_t)c.w->cols, rank = (size_t)c.low_rank.rank;
    const size_t in = fb_dtype_size(c.x_dtype), from = dx ? n : k, to = dx ? k : n;
    fb_operand *o = out + FB_WEIGHT_OPERANDS;
    o[0] = {c.x, m * from * in, dx ? "dy" : "x", false};
    o[1] = {c.bias, c.bias ? to * in : 0, "bias", false};
    o[2] = {c.y, m * to * fb_dtype_size(c.y_dtype), dx ? "dx" : "y", true};
    o[3] = {c.low_rank.u, m * rank * in, "u", false};
    o[4] = {c.low_rank.b, to * rank * in, "b", false};
    o[5] = {c.ctx->workspace, partial_bytes, "workspace", true};
}

/* ---- entries ------------------------------------------------------------------------------------------------------------ */

extern "C" {
/* gemm.cu: chooses among the paths below. */
fb_status FB_CUDA(gemm)(const fb_gemm_call *);
size_t FB_CUDA(gemm_workspace)(const fb_context *, fb_device, const fb_matrix *, int64_t m, fb_dtype x_dtype);
fb_weights FB_CUDA(gemm_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t m, fb_dtype x_dtype);

/* gemm_dx.cu */
fb_status FB_CUDA(gemm_dx)(const fb_gemm_call *);
size_t FB_CUDA(gemm_dx_workspace)(const fb_context *, fb_device, const fb_matrix *, int64_t m, fb_dtype dy_dtype);
fb_weights FB_CUDA(gemm_dx_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t m, fb_dtype dy_dtype);

/* gemm_hopper.cu: true if a path of sm_90a took the call, with its status. */
bool FB_CUDA(gemm_hopper)(const fb_gemm_call *, bool dx, fb_status *);

/* The paths of gemm. */
fb_status FB_CUDA(gemm_any)(const fb_gemm_call *);
fb_status FB_CUDA(gemm_tile)(const fb_gemm_call *, fb_gemm_path, int splits);
fb_status FB_CUDA(gemm_small)(const fb_gemm_call *, int splits); /* M 1 ... 16 */
int FB_CUDA(gemm_tile_shape)(fb_gemm_path, int *rows, int *tokens, int *shared_bytes); /* 0: not one of gemm_tile.cu */
}

#endif
