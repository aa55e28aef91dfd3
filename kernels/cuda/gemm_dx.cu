/* gemm_dx.cu — dX = dY W (+ U B where dropout keeps) (+ dX), W in 4 bits: the choice of a path and of how N is split.  The
 * kernels are in the paths' own files. */
#include "gemm_dx.cuh"

namespace {

struct Plan {
    fb_gemm_dx_path path;
    int splits;
};

/* What a block costs beside its steps, in steps: tables, the first loads, the way out; more when sums go through the workspace. */
struct Overhead {
    int whole, split;
};

/* The number of splits that ends first: turns of the whole device, times what a block then does. None of them is empty. */
int splits_of(const fb_device &device, int64_t tiles, int resident, int64_t steps, Overhead o)
{
    const int64_t slots = (int64_t)device.multiprocessors * resident;
    int64_t best = 1, least = fb_ceil_div(tiles, slots) * (steps + o.whole);
    for (int64_t s = 2; s <= 64 && s <= steps; s++) {
        const int64_t each = fb_ceil_div(steps, s), cost = fb_ceil_div(tiles * s, slots) * (each + o.split);
        if (cost < least && fb_ceil_div(steps, each) == s) best = s, least = cost;
    }
    return (int)best;
}

Plan plan_of(const fb_device &device, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const int64_t n = w->rows, k = w->cols, strips = fb_ceil_div(k, 256), tile_rows = fb_dx_tile_rows(m);
    if (t == FB_F32 || k % 32 || k == 0 || n == 0 || m == 0 || k > INT32_MAX - 256 || n > INT32_MAX) return {FB_GEMM_DX_ANY, 1};
    for (const fb_gemm_dx_rule &r : fb_gemm_dx_rules) {
        if (device.arch < r.arch || m > r.m_most) continue;
        if (r.path == FB_GEMM_DX_SMALL && n % 16 == 0 && m <= 16) return {r.path, splits_of(device, strips, 1, n / 16, {24, 24})};
        if (r.path == FB_GEMM_DX_TILE && n % 8 == 0 && m <= INT32_MAX / strips)
            return {r.path, splits_of(device, strips * fb_ceil_div(m, tile_rows), tile_rows == 64 ? 2 : 1, fb_ceil_div(n, 32), {6, 14})};
    }
    return {FB_GEMM_DX_ANY, 1};
}

/* The fast paths read and write 16 bytes at a time. */
bool aligned(const fb_gemm_call &c)
{
    return (uintptr_t)c.w->codes % 16 == 0 && (uintptr_t)c.x % 16 == 0 && (uintptr_t)c.y % 16 == 0;
}

} // namespace

extern "C" fb_status FB_CUDA(gemm_dx)(const fb_gemm_call *c)
{
    fb_status hopper;
    if (FB_CUDA(gemm_hopper)(c, true, &hopper)) return hopper;
    const Plan plan = plan_of(c->device, c->w, c->m, c->x_dtype);
    if (plan.path == FB_GEMM_DX_ANY || !aligned(*c)) return FB_CUDA(gemm_dx_any)(c);
    const bool small = plan.path == FB_GEMM_DX_SMALL;
    fb_status status = small ? FB_CUDA(gemm_dx_small)(c, plan.splits) : FB_CUDA(gemm_dx_tile)(c, plan.splits);
    if (status != FB_OK || (!small && plan.splits == 1)) return status;
    return FB_CUDA(gemm_dx_sum)(c, plan.splits, small);
}

extern "C" size_t FB_CUDA(gemm_dx_workspace)(const fb_context *, fb_device device, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const Plan plan = plan_of(device, w, m, t);
    if (plan.path == FB_GEMM_DX_ANY || (plan.path == FB_GEMM_DX_TILE && plan.splits == 1)) return 0;
    return fb_dx_partial_bytes(w, m, plan.splits);
}

/* Every path multiplies what dequantize gives. */
extern "C" fb_weights FB_CUDA(gemm_dx_weights)(const fb_context *, fb_device, const fb_matrix *, int64_t, fb_dtype)
{
    return FB_WEIGHTS_ROUNDED;
}
