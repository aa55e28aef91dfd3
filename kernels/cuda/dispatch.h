/* dispatch.h — which path a product takes: the first row that fits.
 *
 * A row fits when the device is of its generation or later, M is at most m_most, N * K at most weights_most (0: any), and
 * the path serves the call (types, alignment, shared memory: each path's own _serves).
 */
#ifndef FB_DISPATCH_H
#define FB_DISPATCH_H

#include <cstdint>

typedef enum fb_gemm_path {
    FB_GEMM_ANY = 0 /* gemm_any.cu: serves everything; ends every table */
} fb_gemm_path;

typedef struct fb_gemm_rule {
    int arch;
    int64_t m_most;
    int64_t weights_most;
    fb_gemm_path path;
} fb_gemm_rule;

static const fb_gemm_rule fb_gemm_rules[] = {
    /* arch  M at most    N K at most  path */
    {    80, INT64_MAX,             0, FB_GEMM_ANY },
};

#endif
