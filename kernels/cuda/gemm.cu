/* gemm.cu — Y = X W^T (+ U B^T) (+ bias), W in 4 bits: the choice of a path.  The kernels are in the paths' own files. */
#include "gemm.cuh"
#include "dispatch.h"
#include "gemm_sm90.h"
#include "gemm_split.cuh"

namespace {

struct Plan {
    fb_gemm_path path;
    int splits;
};

/* c: the call's pointers, or NULL where they are not known yet (workspace): then as if all were aligned. */
bool tensor_cores_serve(const fb_matrix *w, fb_dtype t, const fb_gemm_call *c)
{
    if (t == FB_F32 || w->cols == 0 || w->cols % 32) return false;
    return !c || (fb_wide(w->codes, 16) && fb_wide(c->x, 16));
}

/* Blocks of 256 rows, K in steps of 128. */
Plan small_plan(const fb_device &device, const fb_matrix *w, int64_t m, int blocks)
{
    if (m > 16 || w->cols > INT32_MAX || w->rows > INT32_MAX) return {FB_GEMM_ANY, 1};
    return {FB_GEMM_SMALL, fb_splits(fb_ceil_div(w->rows, 256), fb_ceil_div(w->cols, 128), (int64_t)blocks * device.multiprocessors)};
}

Plan tile_plan(const fb_device &device, const fb_matrix *w, int64_t m, fb_gemm_path path, int blocks)
{
    int rows, tokens, shared;
    if (!FB_CUDA(gemm_tile_shape)(path, &rows, &tokens, &shared) || shared > device.shared_bytes) return {FB_GEMM_ANY, 1};
    const int64_t tiles = fb_ceil_div(w->rows, rows) * fb_ceil_div(m, tokens);
    return {path, fb_splits(tiles, fb_ceil_div(w->cols, 64), (int64_t)blocks * device.multiprocessors)};
}

/* One order of additions for all M: any tile, as each adds up K in the same order, and K in one piece. */
Plan invariant_plan(const fb_device &device, const fb_matrix *w, int64_t m)
{
    const fb_gemm_path path = m <= 16 ? FB_GEMM_TILE_16 : m <= 32 ? FB_GEMM_TILE_32 : m <= 64 ? FB_GEMM_TILE_64 : FB_GEMM_TILE_128;
    return tile_plan(device, w, m, path, 0);
}

Plan plan_by(const fb_gemm_rule &r, const fb_device &device, const fb_matrix *w, int64_t m)
{
    return r.path == FB_GEMM_SMALL ? small_plan(device, w, m, r.blocks) : tile_plan(device, w, m, r.path, r.blocks);
}

bool fits(const fb_gemm_rule &r, const fb_device &device, const fb_matrix *w, int64_t m)
{
    return device.arch >= r.arch && m <= r.m_most && (!r.weights_most || w->rows * w->cols <= r.weights_most);
}

/* hopper: where a path of sm_90a took the call, its status; NULL: none is asked. */
Plan plan_of(const fb_context *ctx, const fb_device &device, const fb_matrix *w, int64_t m, fb_dtype t, const fb_gemm_call *c, fb_status *hopper)
{
    if (!tensor_cores_serve(w, t, c)) return {FB_GEMM_ANY, 1};
    if (ctx->flags & FB_BATCH_INVARIANT) return invariant_plan(device, w, m);
    for (const fb_gemm_rule &r : fb_gemm_rules) {
        if (!fits(r, device, w, m)) continue;
        if (r.path == FB_GEMM_HOPPER && hopper && FB_CUDA(gemm_hopper)(c, false, hopper)) return {FB_GEMM_HOPPER, 1};
        const Plan plan = plan_by(r, device, w, m); /* of FB_GEMM_HOPPER: none */
        if (plan.path != FB_GEMM_ANY) return plan;
    }
    return {FB_GEMM_ANY, 1};
}

fb_status run(const fb_gemm_call *c, const Plan &plan)
{
    if (plan.path == FB_GEMM_ANY) return FB_CUDA(gemm_any)(c);
    if (plan.path == FB_GEMM_SMALL) return FB_CUDA(gemm_small)(c, plan.splits);
    return FB_CUDA(gemm_tile)(c, plan.path, plan.splits);
}

size_t workspace_of(const Plan &plan, const fb_matrix *w, int64_t m)
{
    return plan.splits > 1 ? (size_t)plan.splits * (size_t)m * (size_t)w->rows * sizeof(float) : 0;
}

} // namespace

extern "C" fb_status FB_CUDA(gemm)(const fb_gemm_call *c)
{
    fb_status hopper;
    const Plan plan = plan_of(c->ctx, c->device, c->w, c->m, c->x_dtype, c, &hopper);
    return plan.path == FB_GEMM_HOPPER ? hopper : run(c, plan);
}

extern "C" fb_status FB_CUDA(gemm_by_rule)(fb_context *ctx, int arch, const fb_gemm_rule *rule, const fb_matrix *w, int64_t m, const void *x,
                                           fb_dtype t, void *y, size_t *workspace)
{
    const fb_gemm_call c = {ctx, fb_device_of(arch), w, m, x, t, nullptr, y, t, false, {}};
    fb_status status;
    *workspace = 0;
    if (rule->path == FB_GEMM_HOPPER) { /* whether it serves is known when it is called */
        if (!y) return arch == 90 ? FB_OK : FB_UNSUPPORTED;
        return FB_CUDA(gemm_hopper)(&c, false, &status) ? status : fb_fail(ctx, FB_UNSUPPORTED, "no path of sm_90a serves this product");
    }
    const Plan plan = tensor_cores_serve(w, t, y ? &c : nullptr) ? plan_by(*rule, c.device, w, m) : Plan{FB_GEMM_ANY, 1};
    if (plan.path != rule->path) return fb_fail(ctx, FB_UNSUPPORTED, "path %d does not serve this product", (int)rule->path);
    *workspace = workspace_of(plan, w, m);
    return y ? run(&c, plan) : FB_OK;
}

extern "C" size_t FB_CUDA(gemm_workspace)(const fb_context *ctx, fb_device device, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (m == 0 || w->rows == 0) return 0;
    return workspace_of(plan_of(ctx, device, w, m, t, nullptr, nullptr), w, m); /* where a path of sm_90a takes the call, it needs none */
}

/* By the table's rows and the shape: where pointers keep a call from gemm_stream_sm90, gemm_any does the same with its weights. */
extern "C" fb_weights FB_CUDA(gemm_weights)(const fb_context *ctx, fb_device device, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if ((ctx && ctx->flags & FB_BATCH_INVARIANT) || !tensor_cores_serve(w, t, nullptr)) return FB_WEIGHTS_ROUNDED;
    for (const fb_gemm_rule &r : fb_gemm_rules) {
        if (!fits(r, device, w, m)) continue;
        if (r.path == FB_GEMM_HOPPER && FB_CUDA(gemm_stream_sm90_shape)(device, w, m, t)) return FB_WEIGHTS_CODES;
        if (plan_by(r, device, w, m).path != FB_GEMM_ANY) break;
    }
    return FB_WEIGHTS_ROUNDED;
}
