/* dispatch.h — which path a product takes: the first row that fits.
 *
 * A row fits when the device is of its generation or later, M is at most m_most, N * K at most weights_most (0: any), and
 * the path serves the call (types, alignment, shared memory; gemm.cu).  What a row is: dispatch_rule.h.
 *
 * The rows stand in dispatch_table.h. Those that it calls predicted follow from the paths' headers; `make tune` puts rows
 * that a GPU has measured before them.
 */
#ifndef FB_DISPATCH_H
#define FB_DISPATCH_H

#include "dispatch_rule.h"

static const fb_gemm_rule fb_gemm_rules[] = {
#include "dispatch_table.h"
};

/* Hopper: generation 90, wgmma is in no other. Asked where a row says FB_GEMM_HOPPER and before gemm_dx.cu's table, which keep what no row
 * here takes or what its path does not serve: fp32 activations; pointers or rows not on 16 bytes; K no multiple of 64 (stream: of 32);
 * for the stream also a custom codebook, and an eighth of X that does not fit in shared memory (M = 8: K > 45056). M from 9 to 16 is
 * gemm_small's: on an H200 it took 35 us at 8192 x 8192, M = 16, where wgmma took 41. */
typedef enum fb_sm90_path {
    FB_SM90_STREAM = 0, /* gemm_stream_sm90.cu; serves M up to 8: X of more does not fit in shared memory beside its rings */
    FB_SM90_GEMM,       /* gemm_sm90.cu */
    FB_SM90_GEMM_DX     /* gemm_dx_sm90.cu */
} fb_sm90_path;

typedef struct fb_sm90_rule {
    int64_t m_least, m_most;
    fb_sm90_path path;
} fb_sm90_rule;

static const fb_sm90_rule fb_sm90_rules[] = {
    /* M from    to  path */
    {      1,         8, FB_SM90_STREAM },
    {     17, INT64_MAX, FB_SM90_GEMM },
    {     65, INT64_MAX, FB_SM90_GEMM_DX },
};

typedef enum fb_gemm_dx_path {
    FB_GEMM_DX_ANY = 0, /* gemm_dx_any.cu: serves everything; what no row takes */
    FB_GEMM_DX_SMALL,   /* gemm_dx_small.cu */
    FB_GEMM_DX_TILE     /* gemm_dx_tile.cu */
} fb_gemm_dx_path;

typedef struct fb_gemm_dx_rule {
    int arch;
    int64_t m_most;
    fb_gemm_dx_path path;
} fb_gemm_dx_rule;

static const fb_gemm_dx_rule fb_gemm_dx_rules[] = {
    /* arch  M at most  path */
    {    80,        16, FB_GEMM_DX_SMALL },
    {    80, INT64_MAX, FB_GEMM_DX_TILE },
};

#endif
