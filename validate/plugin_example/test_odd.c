/* test_odd.c: plugins that must be refused, chosen by TEST_ODD, and one that takes gemm with a workspace. */
#include "fourbit_plugin.h"

#include <stdlib.h>

enum { WORKSPACE = 4096 };

static size_t workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)ctx, (void)w, (void)m, (void)t;
    return op == FB_OP_GEMM ? WORKSPACE : 0;
}

static bool only_small(fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)op, (void)t;
    return w->rows * m <= 64;
}

/* Says where it was: the test sees whether the plugin or the reference was called. */
static fb_status gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype xt, const void *bias, void *y, fb_dtype yt)
{
    (void)x, (void)xt, (void)bias;
    for (int64_t i = 0; i < m * w->rows; i++) fb_store(y, yt, i, ctx->workspace_bytes >= WORKSPACE ? 1234.0f : 0.0f);
    return FB_OK;
}

static fb_weights exact(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)ctx, (void)w, (void)m, (void)t;
    return FB_WEIGHTS_EXACT;
}

FB_PLUGIN_EXPORT const fb_plugin *fourbit_plugin(void)
{
    static fb_plugin p = {FB_PLUGIN_HEADER, .name = "odd", .supports = only_small, .workspace = workspace, .gemm = gemm,
                          .gemm_weights = exact};
    const char *odd = getenv("TEST_ODD");
    switch (odd ? *odd : ' ') {
    case 'v': p.version = 99; break;
    case 'l': p.size += 8; break;
    case 's': p.size = 8; break;
    case 'u': p.size -= 3; break;
    case 'c': p.context_size += 8; break;
    case 'm': p.matrix_size -= 8; break;
    case 'n': p.name = ""; break;
    case 'e': p.gemm = NULL; break;
    case 'o': p.size = (uint32_t)offsetof(fb_plugin, double_quantize); p.double_quantize = (void *)1; break; /* an older header's */
    case 'N': return NULL;
    default: break;
    }
    return &p;
}
