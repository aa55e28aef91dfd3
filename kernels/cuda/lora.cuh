/* lora.cuh — a quantized layer with a low-rank adapter: what its thin products are to the kernels that make them.
 *
 *   cuda_ops.cu    slot -> lora.cu: thin products, then gemm or gemm_dx with U or dU in its accumulators
 *   lora_any.cu    thin products of every shape, type and alignment; slow and right
 *   lora_mma.cu    on tensor cores: 16-bit types, rows of whole 16 bytes
 *
 * The four are one: out(i, r) = factor * sum over l of wide(i, l) thin(r, l).  wide is what the layer reads anyway, X with its dropped
 * elements 0 or dY; thin has `rank` rows or columns.  A matrix lies along the sum ([i][l]) or across it ([l][i]).
 *
 *          i   l    wide         thin         out
 *     U    M   K    X  [i][l]    A  [r][l]    [i][r], X's type; factor f
 *     dU   M   N    dY [i][l]    B  [l][r]    [i][r], dY's type; factor f
 *     dA   K   M    X  [l][i]    dU [l][r]    [r][i], fp32 (+=)
 *     dB   N   M    dY [l][i]    U  [l][r]    [i][r], fp32 (+=)
 */
#ifndef FB_LORA_CUH
#define FB_LORA_CUH

#include "gemm_dx.cuh"
#include "gemm_split.cuh"

struct fb_thin_product {
    const void *wide, *thin;
    int64_t rows, depth; /* of i, of l */
    int rank;
    bool wide_across, thin_across, out_across; /* out_across: [r][i] */
    float factor;
    uint32_t threshold; /* of wide's dropout; 0: none */
    uint64_t seed;
    void *out;
    fb_dtype out_dtype;
    bool accumulate;
    float *parts; /* workspace, [splits] times out in fp32, when splits > 1 */
    int splits;   /* of the sum; lora_any has no use for more than one */
};

/* The product on the host: its operands' type and what the executor shall call them. */
struct fb_thin_call {
    fb_context *ctx;
    fb_dtype t;
    fb_thin_product p;
    const char *wide_name, *thin_name, *out_name;
};

/* What a block of lora_mma takes at a time: the plan and the kernel agree on it. */
enum { FB_THIN_ROWS = 128, FB_THIN_STEP = 64 };
static inline int fb_thin_ranks(int rank) { return rank <= 64 ? 64 : 128; }

enum { FB_THIN_OPERANDS = 4 };
static inline size_t fb_thin_parts_bytes(int64_t rows, int rank, int splits)
{
    return splits > 1 ? (size_t)splits * (size_t)rows * (size_t)rank * sizeof(float) : 0;
}
static inline void fb_thin_operands(const fb_thin_call &c, bool parts_written, fb_operand (&out)[FB_THIN_OPERANDS])
{
    const fb_thin_product &p = c.p;
    const size_t rows = (size_t)p.rows, depth = (size_t)p.depth, rank = (size_t)p.rank, in = fb_dtype_size(c.t);
    out[0] = {p.wide, rows * depth * in, c.wide_name, false};
    out[1] = {p.thin, rank * depth * in, c.thin_name, false};
    out[2] = {p.out, rows * rank * fb_dtype_size(p.out_dtype), c.out_name, true};
    out[3] = {p.parts, fb_thin_parts_bytes(p.rows, p.rank, p.splits), "workspace", parts_written};
}

/* ---- entries ------------------------------------------------------------------------------------------------------------ */

extern "C" {
/* lora.cu */
size_t FB_CUDA(lora_workspace)(const fb_context *, fb_device, fb_op, const fb_matrix *, int32_t rank, int64_t m, fb_dtype);
fb_status FB_CUDA(lora_forward)(fb_context *, fb_device, const fb_matrix *, const fb_lora *, int64_t m, const void *x, fb_dtype,
                                const void *bias, void *y, fb_dtype y_dtype, void *u);
fb_status FB_CUDA(lora_backward)(fb_context *, fb_device, const fb_matrix *, const fb_lora *, int64_t m, const void *x, const void *u,
                                 const void *dy, fb_dtype, void *dx, fb_dtype dx_dtype, bool accumulate_dx, float *da, float *db,
                                 bool accumulate_grads);

/* The paths of a thin product of at least one row. */
fb_status FB_CUDA(lora_any)(const fb_thin_call *);
bool FB_CUDA(lora_mma_serves)(const fb_thin_call *);
fb_status FB_CUDA(lora_mma)(const fb_thin_call *); /* what it serves; wide across only with thin across */
}

#endif
