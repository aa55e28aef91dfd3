/* adamw_kernel.h: AdamW with fp32 and with 8-bit blockwise state.
 *
 *   bytes   adamw32: p, m, v read and written, g read twice (NaN and Inf first): 28 + 4 a parameter in fp32
 *           adamw8: the states are 1 byte each and 8 in absmax for 256: 16 + 4
 *   FLOPs   14, one square root and two divisions a parameter
 *   bound   memory for adamw32; adamw8 by instructions: two look-ups to decode, four to encode
 *
 * Each operation is one rounding, in the order of fourbit.h, so the bits are the reference's. A
 * thread owns whole blocks.
 *
 * Versions (fp32 parameters and gradients, 4 M of them, one core of an AMD EPYC with AVX2, processor time
 * on a machine shared with others; medians of interleaved runs, ns a parameter, adamw32 and adamw8):
 *   0  the reference: 5.9 to 7.2 and 350 to 430
 *   1  vectors, cpu_search8 for the codes: 1.2 and 7.1, 5.8 and 60 times faster
 *   On one core of a Zen 5, 128 K parameters in cache, adamw8 (adamw32 beside it: AVX2 0.39, AVX-512 0.23):
 *   2  buckets of a block before its look-ups, loads in place of gathers: AVX2 from 4.1 to 2.3 ns, AVX-512 from 4.1 to 2.0,
 *      plain C from 4.8 to 3.9. A tree of limits in 16 registers (eight vpermps and vpermt2ps) and gathers of both tables
 *      were no faster. What is left: four look-ups a state, at two loads a cycle.
 */
#include "search8.h"

enum { ADAMW_CHUNK = 1 << 14 }; /* parameters a thread takes at a time: whole blocks */

typedef struct factors {
    vf grad_scale, decay, beta1, rest1, beta2, rest2, step_size, sqrt_correction2, eps;
} factors;

static factors factors_make(const fb_adamw_factors *f)
{
    return (factors){vf_set1(f->grad_scale), vf_set1(f->decay), vf_set1(f->beta1), vf_set1(f->rest1), vf_set1(f->beta2),
                     vf_set1(f->rest2), vf_set1(f->step_size), vf_set1(f->sqrt_correction2), vf_set1(f->eps)};
}

/* p, m and v in place. */
static inline void step(const factors *f, vf grad, vf *p, vf *m, vf *v)
{
    const vf g = vf_mul(grad, f->grad_scale);
    *m = vf_add(vf_mul(f->beta1, *m), vf_mul(f->rest1, g));
    *v = vf_add(vf_mul(f->beta2, *v), vf_mul(f->rest2, vf_mul(g, g)));
    const vf root = vf_div(vf_sqrt(*v), f->sqrt_correction2);
    const vf ratio = vf_div(*m, vf_add(root, f->eps));
    *p = vf_sub(vf_mul(*p, f->decay), vf_mul(f->step_size, ratio));
}

/* ---- gradients that cannot be used ------------------------------------------------------ */

static int64_t first_unusable(float grad_scale, const void *grads, fb_dtype t, int64_t begin, int64_t end, int64_t none)
{
    const vf scale = vf_set1(grad_scale);
    vf zero = vf_zero(); /* x * 0 is 0, or NaN for what is not finite */
    int64_t i = begin;
    for (; end - i >= VF; i += VF) {
        const vf g = vf_mul(vf_load_as(grads, t, i), scale);
        zero = vf_add(zero, vf_mul(vf_mul(g, g), vf_zero()));
    }
    if (vf_sum(zero) == 0) begin = i;
    for (i = begin; i < end; i++) {
        const float g = fb_load(grads, t, i) * grad_scale;
        if (!isfinite(g * g)) return i;
    }
    return none;
}

static fb_status check_grads(fb_context *ctx, float grad_scale, const void *grads, fb_dtype t, int64_t n)
{
    if (ctx->flags & FB_ASSUME_FINITE) return FB_OK;
    const int64_t chunks = fb_ceil_div(n, CHECK_CHUNK);
    int64_t first = n;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, chunks)) reduction(min : first)
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t begin = c * CHECK_CHUNK, end = cpu_min(begin + CHECK_CHUNK, n);
        if (begin < first) first = cpu_min(first, first_unusable(grad_scale, grads, t, begin, end, n));
    }
    if (first == n) return FB_OK;
    return fb_fail(ctx, FB_NONFINITE, "grads[%lld] is %g, scaled by %g: not finite, or its square is not", (long long)first,
                   (double)fb_load(grads, t, first), (double)grad_scale);
}

/* ---- the steps ---------------------------------------------------------------------------- */

/* count parameters from i on, their states m and v [count, and whole vectors of zeros after it]. */
static void step_range(const factors *f, int64_t i, int64_t count, void *params, fb_dtype params_dtype, const void *grads,
                       fb_dtype grads_dtype, float *m, float *v)
{
    int64_t j = 0;
#define STEPS(pt, gt)                                                                   \
    for (; count - j >= VF; j += VF) {                                                  \
        vf p = vf_load_as(params, pt, i + j), mj = vf_load(m + j), vj = vf_load(v + j); \
        step(f, vf_load_as(grads, gt, i + j), &p, &mj, &vj);                            \
        vf_store_as(params, pt, i + j, p);                                              \
        vf_store(m + j, mj);                                                            \
        vf_store(v + j, vj);                                                            \
    }
    if (params_dtype == FB_F32 && grads_dtype == FB_F32) STEPS(FB_F32, FB_F32)
    else STEPS(params_dtype, grads_dtype)
#undef STEPS
    if (j == count) return;
    float tail[4][VF] = {{0}}; /* p, g, m, v */
    const int64_t rest = count - j;
    for (int64_t k = 0; k < rest; k++) {
        tail[0][k] = fb_load(params, params_dtype, i + j + k);
        tail[1][k] = fb_load(grads, grads_dtype, i + j + k);
    }
    memcpy(tail[2], m + j, (size_t)rest * sizeof *m);
    memcpy(tail[3], v + j, (size_t)rest * sizeof *v);
    vf p = vf_load(tail[0]), mj = vf_load(tail[2]), vj = vf_load(tail[3]);
    step(f, vf_load(tail[1]), &p, &mj, &vj);
    vf_store(tail[0], p);
    vf_store(tail[2], mj);
    vf_store(tail[3], vj);
    for (int64_t k = 0; k < rest; k++) fb_store(params, params_dtype, i + j + k, tail[0][k]);
    memcpy(m + j, tail[2], (size_t)rest * sizeof *m);
    memcpy(v + j, tail[3], (size_t)rest * sizeof *v);
}

fb_status ISA(cpu_adamw32)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                           const void *grads, fb_dtype grads_dtype, float *m, float *v)
{
    const fb_adamw_factors given = fb_adamw_get_factors(hyper);
    const fb_status status = check_grads(ctx, given.grad_scale, grads, grads_dtype, n);
    if (status != FB_OK) return status;
    const factors f = factors_make(&given);
    const int64_t chunks = fb_ceil_div(n, ADAMW_CHUNK);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t i = c * ADAMW_CHUNK;
        step_range(&f, i, cpu_min(ADAMW_CHUNK, n - i), params, params_dtype, grads, grads_dtype, m + i, v + i);
    }
    return FB_OK;
}

static void decode_state(fb_map8 map, const uint8_t *codes, float absmax, int64_t count, float *out)
{
    float values[FB_CODES8];
    memcpy(values, fb_dynamic_bits[map], sizeof values);
    int64_t i = 0;
    for (; count - i >= VF; i += VF) vf_store(out + i, vf_mul(vf_gather(values, codes + i), vf_set1(absmax)));
    for (; i < count; i++) out[i] = values[codes[i]] * absmax;
}

/* A state that a caller's absmax made infinite or NaN: as ref_quantize8 has it, a NaN takes code 0. */
static void encode_nonfinite(fb_map8 map, float *x, int64_t count, uint8_t *codes, float absmax)
{
    for (int64_t i = 0; i < count; i++) {
        const float y = isinf(1.0f / absmax) ? x[i] / absmax : x[i] * (1.0f / absmax);
        const float *limit = cpu_search8_tables[map].limit;
        unsigned code = 0;
        while (!isnan(y) && code < FB_CODES8 - 1 && y > limit[code]) code++;
        codes[i] = (uint8_t)code;
    }
}

static void encode_state(fb_map8 map, float *x, int64_t count, uint8_t *codes, float *absmax)
{
    float staged[FB_ADAMW_BLOCK];
    *absmax = stage_largest(x, FB_F32, 0, count, staged);
    vf zero = vf_zero();
    for (int64_t i = 0; i < count; i += VF) zero = vf_add(zero, vf_mul(vf_load(staged + i), vf_zero()));
    if (vf_sum(zero) == 0) quantize8_block(&cpu_search8_tables[map], staged, count, *absmax, codes);
    else encode_nonfinite(map, staged, count, codes, *absmax);
}

fb_status ISA(cpu_adamw8)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                          const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes,
                          float *v_absmax)
{
    const fb_adamw_factors given = fb_adamw_get_factors(hyper);
    const fb_status status = check_grads(ctx, given.grad_scale, grads, grads_dtype, n);
    if (status != FB_OK) return status;
    const factors f = factors_make(&given);
    const int64_t blocks = fb_ceil_div(n, FB_ADAMW_BLOCK);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, fb_ceil_div(n, ADAMW_CHUNK)))
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t i = b * FB_ADAMW_BLOCK, count = cpu_min(FB_ADAMW_BLOCK, n - i);
        float m[FB_ADAMW_BLOCK], v[FB_ADAMW_BLOCK];
        decode_state(FB_MAP_SIGNED, m_codes + i, m_absmax[b], count, m);
        decode_state(FB_MAP_UNSIGNED, v_codes + i, v_absmax[b], count, v);
        step_range(&f, i, count, params, params_dtype, grads, grads_dtype, m, v);
        encode_state(FB_MAP_SIGNED, m, count, m_codes + i, m_absmax + b);
        encode_state(FB_MAP_UNSIGNED, v, count, v_codes + i, v_absmax + b);
    }
    return FB_OK;
}
