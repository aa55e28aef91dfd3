/* dispatch_rule.h — a row of the dispatch table, in plain C: for dispatch.h, and for the program that measures what the rows
 * should be (bench/tune.h). */
#ifndef FB_DISPATCH_RULE_H
#define FB_DISPATCH_RULE_H

#include "fourbit.h"

typedef enum fb_gemm_path {
    FB_GEMM_ANY = 0,  /* gemm_any.cu: serves everything; what is taken when no row fits */
    FB_GEMM_TILE_16,  /* gemm_tile.cu: 128 rows x 16 tokens a block */
    FB_GEMM_TILE_32,  /* 128 x 32 */
    FB_GEMM_TILE_64,  /* 128 x 64 */
    FB_GEMM_TILE_128, /* 128 x 128; 99 KiB of shared memory */
    FB_GEMM_TILE_256, /* 256 x 128; 145 KiB */
    FB_GEMM_SMALL,    /* gemm_small.cu: 256 rows a block, M up to 16 */
    FB_GEMM_HOPPER,   /* what fb_sm90_rules say; a device of another generation goes on to the next row */
    FB_GEMM_PATHS
} fb_gemm_path;

typedef struct fb_gemm_rule {
    int arch;
    int64_t m_most;
    int64_t weights_most; /* N * K; 0: any */
    fb_gemm_path path;
    int blocks; /* as many blocks a multiprocessor as split-K aims for where the tiles alone are fewer; 0: K is never cut */
} fb_gemm_rule;

#define FB_ANY_M INT64_MAX

#ifdef __cplusplus
extern "C" {
#endif
/* gemm.cu: Y [m, N] = X W^T by the path of one row, whatever the table says; types of X and Y are t. *workspace: bytes of
 * ctx->workspace it needs; y NULL asks for that alone. FB_UNSUPPORTED: the path does not serve this call on this device.
 * fb_cuda_ as nvcc compiled it, fb_simt_ in the executor. */
typedef fb_status fb_gemm_by_rule(fb_context *ctx, int arch, const fb_gemm_rule *rule, const fb_matrix *w, int64_t m, const void *x, fb_dtype t,
                                  void *y, size_t *workspace);
fb_gemm_by_rule fb_cuda_gemm_by_rule, fb_simt_gemm_by_rule;
#ifdef __cplusplus
}
#endif

#endif
