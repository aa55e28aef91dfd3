/* fourbit.h: 4-bit blockwise-quantized matrices: quantize, dequantize, multiply.
 *
 * The one public header, for C11 and C++11. Formats and the layout of every
 * buffer are in formats.h, which this includes.
 *
 * The library is a guest in its caller's program: it allocates nothing, prints
 * nothing, never exits and keeps no state between calls. Buffers, workspace and
 * stream belong to the caller. Any number of threads may call it at once, each
 * with a context of its own; the child of a fork may go on (the thread that forked, on one
 * core). The same input gives the same bits, run to run and
 * whatever the number of threads.
 *
 *     fb_context ctx;
 *     fb_context_init(&ctx, FB_BACKEND_CPU);
 *     fb_matrix w;
 *     fb_matrix_init(&w, FB_NF4, rows, cols, 64, true);
 *     void *buffer = malloc(fb_matrix_bytes(&w));
 *     fb_matrix_bind(&w, buffer, fb_matrix_bytes(&w));
 *     ... workspace: fb_workspace_size(&ctx, FB_OP_QUANTIZE, &w, 0, FB_BF16, &bytes)
 *     if (fb_quantize(&ctx, weights, FB_BF16, &w) != FB_OK) puts(ctx.message);
 *     if (fb_gemm(&ctx, &w, m, x, FB_BF16, NULL, y, FB_BF16) != FB_OK) puts(ctx.message);
 *
 * Shapes: a weight matrix is W [rows, cols] = [out features N, in features K],
 * row-major. Activations X [M, K], Y [M, N], row-major and contiguous.
 * Sizes and indices are 64-bit. A dimension may be 0: nothing is read, and a product
 * over an empty dimension is 0 (+ bias).
 * Data pointers must be aligned to their element (4 bytes for fp32, 2 for bf16
 * and fp16): otherwise FB_INVALID_ARGUMENT. Buffers of one call must not overlap.
 * With the CUDA backend every data pointer is a device pointer, work goes to
 * ctx->stream, and a call returns when it is enqueued.
 */
#ifndef FOURBIT_H
#define FOURBIT_H

#include "formats.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FB_VERSION "0.1.0"

/* ---- status ------------------------------------------------------------------ */

typedef enum fb_status {
    FB_OK = 0,
    FB_INVALID_ARGUMENT,       /* message names the argument; nothing was written */
    FB_NONFINITE,              /* NaN or Inf where a finite number is needed; message has the index;
                                  nothing was written */
    FB_WORKSPACE_TOO_SMALL,    /* message has the bytes needed; nothing was written */
    FB_UNSUPPORTED,            /* this backend does not do this; nothing was written */
    FB_BACKEND_UNAVAILABLE,    /* not in this build, or no such hardware; message says which */
    FB_BACKEND_ERROR           /* the backend's runtime failed; message carries its words */
} fb_status;

const char *fb_status_name(fb_status status);

/* ---- context -------------------------------------------------------------------- */

typedef enum fb_backend {
    FB_BACKEND_REFERENCE = 0, /* plain single-threaded C, the specification */
    FB_BACKEND_CPU,           /* vector instructions and threads, chosen at run time */
    FB_BACKEND_CUDA,
    FB_BACKEND_PLUGIN,        /* yours: the shared object that FOURBIT_PLUGIN names (fourbit_plugin.h). Loaded once,
                                 at the first call that asks for it, and kept */
    FB_BACKEND_COUNT
} fb_backend;

enum {
    /* The caller vouches that inputs to quantize are finite: saves the pass over
     * the input that looks for NaN and Inf before anything is written. With this
     * flag a non-finite input gives unspecified codes (and no fault). */
    FB_ASSUME_FINITE = 1,
    /* gemm: a row of X gives the same bits whatever M is and whatever the other rows are. One order of
     * additions for every M, which costs where another would be faster. It holds among calls on one machine
     * whose pointers are aligned alike. */
    FB_BATCH_INVARIANT = 2
};

enum { FB_MESSAGE_SIZE = 256 };

typedef struct fb_context {
    fb_backend backend;
    int threads;              /* CPU backend: at most this many; 0: one for each core it may use */
    unsigned flags;           /* FB_ASSUME_FINITE | FB_BATCH_INVARIANT */
    void *stream;             /* CUDA backend: a cudaStream_t; NULL is the default stream */
    void *workspace;          /* at least fb_workspace_size bytes, 64-byte aligned; NULL if 0 */
    size_t workspace_bytes;
    uint64_t *first_nonfinite; /* CUDA backend: one device word, set to UINT64_MAX by the caller, or NULL under
                                  FB_ASSUME_FINITE. A call that finds a NaN or Inf where FB_NONFINITE is
                                  documented has no way to return it: it lowers this word to the index,
                                  and what the call wrote is unspecified. Other backends ignore it */
    char message[FB_MESSAGE_SIZE]; /* set by every call that does not return FB_OK */
} fb_context;

void fb_context_init(fb_context *ctx, fb_backend backend);

/* FB_OK if the backend can run here; else FB_BACKEND_UNAVAILABLE and why in
 * ctx->message. */
fb_status fb_backend_available(fb_context *ctx);

/* "reference", "cpu", "cuda", "plugin"; and what runs behind it here ("avx2", "avx512" ...;
 * "" if unavailable). */
const char *fb_backend_name(fb_backend backend);
const char *fb_backend_variant(fb_backend backend);

/* ---- quantized matrices -------------------------------------------------------- */

typedef struct fb_matrix {
    fb_format format;
    int32_t block_size;    /* 32, 64 ... 4096 elements */
    int64_t rows, cols;
    bool double_quant;     /* absmax stored in 8 bits */

    uint8_t *codes;        /* [ceil(rows*cols / 2)] */
    float *absmax;         /* [blocks]            unless double_quant */
    uint8_t *absmax_codes; /* [blocks]            double_quant */
    float *nested_absmax;  /* [ceil(blocks/256)]  double_quant */
    float *nested_offset;  /* [1]                 double_quant */
    uint8_t *zero_points;  /* [blocks]            FB_INT4_AFFINE */

    /* NULL: the tables of formats.h. Else the 16 and 256 values that came with a
     * checkpoint; used to decode, and never to quantize (FB_INVALID_ARGUMENT). */
    const float *codebook;
    const float *nested_codebook;
} fb_matrix;

/* Bytes of each buffer, and what they add up to per weight. */
typedef struct fb_matrix_sizes {
    int64_t elements, blocks, nested_blocks;
    size_t codes, absmax, absmax_codes, nested_absmax, nested_offset, zero_points; /* 0: not used */
    size_t total;            /* sum of the above */
    double bits_per_weight;  /* 8 * total / elements; 0 for an empty matrix */
} fb_matrix_sizes;

/* Sets shape and format and clears the pointers. FB_INVALID_ARGUMENT (and an
 * all-zero matrix) if a value is out of range or rows*cols >= 2^60. */
fb_status fb_matrix_init(fb_matrix *w, fb_format format, int64_t rows, int64_t cols, int32_t block_size,
                         bool double_quant);
fb_status fb_matrix_get_sizes(const fb_matrix *w, fb_matrix_sizes *sizes);

/* One buffer for all of a matrix: its size (each part starts on 256 bytes), and
 * the pointers into it. The buffer must be aligned to 256 bytes for the parts to
 * be; any alignment of 4 is accepted. */
size_t fb_matrix_bytes(const fb_matrix *w);
fb_status fb_matrix_bind(fb_matrix *w, void *buffer, size_t bytes);

/* ---- workspace ----------------------------------------------------------------- */

typedef enum fb_op {
    FB_OP_QUANTIZE = 0,
    FB_OP_DEQUANTIZE,
    FB_OP_GEMM,
    FB_OP_GEMM_DX,
    FB_OP_LORA_FORWARD,
    FB_OP_LORA_BACKWARD,
    FB_OP_COUNT
} fb_op;

/* Bytes of ctx->workspace that an operation on w needs: m rows of activations
 * (gemm, gemm_dx), dtype of the dense input. LoRA's two also need to know the rank:
 * fb_lora_workspace_size. Operations not listed need none. */
fb_status fb_workspace_size(fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype, size_t *bytes);

/* ---- 4-bit ----------------------------------------------------------------------- */

/* src [rows, cols] -> dst's buffers. A NaN or Inf in src: FB_NONFINITE with its
 * index. Rules and their edges: reference/quantize.c. Workspace: blocks fp32 when
 * dst->double_quant. */
fb_status fb_quantize(fb_context *ctx, const void *src, fb_dtype src_dtype, fb_matrix *dst);

/* dst [rows, cols] = codebook value * absmax, rounded once to dst_dtype. The product may overflow
 * to Inf where absmax is near the type's largest value (INT4 affine: up to 15/7.5 of it; fp16: 65504). */
fb_status fb_dequantize(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype dst_dtype);

/* absmax [n] -> absmax_codes [n], nested_absmax [ceil(n/256)], nested_offset [1]. */
fb_status fb_double_quantize(fb_context *ctx, const float *absmax, int64_t n, uint8_t *absmax_codes,
                             float *nested_absmax, float *nested_offset);
/* and back. nested_codebook [256] or NULL. */
fb_status fb_decode_absmax(fb_context *ctx, const uint8_t *absmax_codes, const float *nested_absmax,
                           const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax);

/* ---- 8-bit blockwise ------------------------------------------------------------------ */

/* src [n] -> codes [n], absmax [ceil(n/block_size)]; block_size 32 ... 4096. */
fb_status fb_quantize8(fb_context *ctx, fb_map8 map, const void *src, fb_dtype src_dtype, int64_t n,
                       int32_t block_size, uint8_t *codes, float *absmax);
fb_status fb_dequantize8(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                         int32_t block_size, void *dst, fb_dtype dst_dtype);

/* ---- normalise -------------------------------------------------------------------------- */

/* dst = (src - mean) / std over all n elements; moments[0] = mean, moments[1] =
 * std (population; 1 where the elements are all equal). A pre-step of quantize. */
fb_status fb_normalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                       fb_dtype dst_dtype, float *moments);
/* dst = src * std + mean, two roundings in fp32, then one to dst_dtype. */
fb_status fb_denormalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, const float *moments,
                         void *dst, fb_dtype dst_dtype);

/* ---- AdamW ------------------------------------------------------------------------------- */

/* Loshchilov & Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2; the decay comes before the
 * step, as published. Each line is rounded to fp32 operation by operation, no fma (reference/adamw.c):
 *     g = grad * grad_scale;  p = p * (1 - lr*weight_decay)
 *     m = beta1*m + (1-beta1)*g;  v = beta2*v + (1-beta2)*(g*g)
 *     p = p - lr/(1-beta1^step) * (m / (sqrt(v) / sqrt(1-beta2^step) + eps)) */
typedef struct fb_adamw {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale; /* 1 / loss scale, times a clipping factor */
    int64_t step;     /* 1, 2 ... */
} fb_adamw;

enum { FB_ADAMW_BLOCK = 256 }; /* 8-bit states: parameters that share one m_absmax and one v_absmax */

/* params [n] and grads [n], state m [n], v [n] in fp32. A gradient that is NaN or Inf after scaling, or whose
 * square is Inf: FB_NONFINITE with its index, nothing written. params, m and v are read and written. */
fb_status fb_adamw32(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                     const void *grads, fb_dtype grads_dtype, float *m, float *v);

/* The same with 8-bit blockwise states (Dettmers et al., 8-bit Optimizers, 2021): m in the signed, v in the
 * unsigned map; decoded, updated in fp32, and quantized again with each block's new absmax. p is updated from
 * the fp32 m and v, before they are quantized. m_absmax, v_absmax [ceil(n/256)]; all
 * bytes zero is a state of zeros. */
fb_status fb_adamw8(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                    const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes,
                    float *v_absmax);

/* ---- products --------------------------------------------------------------------------- */

/* How a weight enters a product: as dequantize would give it in the activations'
 * type, or as codebook value * absmax without that rounding. A backend may choose
 * by shape; the validation asks, and checks against the product it declares. */
typedef enum fb_weights {
    FB_WEIGHTS_ROUNDED = 0,
    FB_WEIGHTS_EXACT,
    FB_WEIGHTS_CODES, /* a codebook rounded to x's type times absmax, unrounded: fb_codes16_factor of formats.h */
    FB_WEIGHTS_FLUSHED /* rounded to bf16, and any operand or sum below 2^-126 counts as zero (AVX512-BF16, AMX) */
} fb_weights;
fb_weights fb_gemm_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype x_dtype);
fb_weights fb_gemm_dx_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype dy_dtype);

/* A backend may sum codes * x over a block before it scales, or scale dY by absmax before it meets the codes: where
 * such a product in fp32 is beyond 3.4e38, an output is Inf or NaN though its exact value may be small. */

/* Y [M, N] = X [M, K] * W^T (+ bias [N], in x_dtype; NULL for none). */
fb_status fb_gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                  void *y, fb_dtype y_dtype);

/* dX [M, K] = dY [M, N] * W; with accumulate, dX += it. */
fb_status fb_gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                     fb_dtype dx_dtype, bool accumulate);

/* ---- LoRA --------------------------------------------------------------------------------- */

/* Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), section 4.1, around a quantized W as in
 * Dettmers et al., QLoRA (2023), equation 5:
 *     Y = X W^T + bias + scale * D(X) A^T B^T
 * D drops elements of X with probability `dropout` and multiplies the others by 1 / (1 - dropout). Which ones
 * depends on (seed, index of the element in X) alone and is the same on every backend (dropout.h), so the backward
 * pass drops the same without a mask being kept. With f = scale / (1 - dropout), rounded to fp32, and Z = X with the
 * dropped elements 0 (exact in X's type), what is computed is
 *     U  = f * Z A^T                 [M, rank], rounded once to X's type; the caller keeps it for the backward pass
 *     Y  = X W^T + bias + U B^T      [M, N], rounded once
 *     dU = f * dY B                  [M, rank], rounded at most once to dY's type; in the workspace
 *     dA = dU^T Z                    [rank, K], fp32
 *     dB = dY^T U                    [N, rank], fp32
 *     dX = dY W + (dU A where X was kept)    [M, K]
 * Sums are in fp32; W enters as fb_lora_weights says. In fp16, U and dU overflow beyond 65504: a large alpha wants
 * bf16. With B = 0, as training begins, dA is exactly 0 (where all is finite). */
enum { FB_LORA_RANK_MAX = 256 };

typedef struct fb_lora {
    int32_t rank;  /* 1 ... FB_LORA_RANK_MAX */
    float scale;   /* alpha / rank; rsLoRA: alpha / sqrt(rank) */
    float dropout; /* [0, 1); 0: D(X) = X, and seed is not used */
    uint64_t seed; /* a new one for each layer and step */
    const void *a; /* A [rank, K] */
    const void *b; /* B [N, rank], both in the activations' type */
} fb_lora;

/* Bytes of ctx->workspace for FB_OP_LORA_FORWARD or FB_OP_LORA_BACKWARD with m rows of activations of type dtype. */
fb_status fb_lora_workspace_size(fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m,
                                 fb_dtype dtype, size_t *bytes);

fb_weights fb_lora_weights(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m,
                           fb_dtype dtype);

/* Y [M, N] and U [M, rank] (in x_dtype) from X [M, K]; bias [N] in x_dtype, or NULL. */
fb_status fb_lora_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                          fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype, void *u);

/* X, dY and U as they were or would be in the forward call, all of one dtype -> dA, dB, and dX unless it is NULL
 * (a first layer needs none). accumulate_dx: dX += it; accumulate_grads: dA and dB += theirs, as gradient
 * accumulation over micro-batches wants. */
fb_status fb_lora_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                           const void *u, const void *dy, fb_dtype dtype, void *dx, fb_dtype dx_dtype,
                           bool accumulate_dx, float *da, float *db, bool accumulate_grads);

#ifdef __cplusplus
}
#endif
#endif
