/* adamw.cu — AdamW with fp32 and with 8-bit blockwise state (reference/adamw.c, to the bit).
 *
 * Moves, per parameter (bf16 parameters and gradients): fp32 state 2+2 of parameters, 2 of gradients, 8+8 of state = 22
 * bytes; 8-bit state 4 + 2 + 2+2 = 10, and 16 bytes every 256. 30 operations, with a square root and two divisions rounded correctly;
 * 8-bit: four look-ups on top. Memory-bound with fp32 state: 64 M parameters take no less than 343 us at 4.3 TB/s. With
 * 8-bit state (157 us) an H200 has 69 issue slots a parameter at that rate: instructions are the bound.
 *
 * H200, 64 M parameters:
 *
 *   v1  fp32: four parameters a thread and step, all loads of two steps in flight: 363 us, 4.06 TB/s
 *       8-bit: a warp is a state's block; codes decoded from, and coded with, tables without bank conflicts (96 KiB): 507 us
 *   v2  8-bit: codes by one look-up and one addition (codes8.cuh), 82 KiB of tables, 512 threads: 368 us
 *   v3  square root and divisions without the cases that do not occur (a test of four parameters at a time, and the functions where
 *       it fails); a block of whole, aligned accesses by itself: 301 us, 2.2 TB/s, 109 instructions a parameter, 3.0 a clock.
 *       fp32 state: 357
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/bin/test_fourbit_gpu --backend cuda --filter adamw. on a GPU.
 */
#include "codes8.cuh"
#include "cuda_ops.h"
#include "ptx.cuh"

namespace {

/* m / (sqrt(v) / c + eps) of four, every operation rounded; c = sqrt_correction2, inverse = 1/c rounded. */
__device__ __forceinline__ void ratios(const fb_adamw_factors &f, float inverse, const float (&m)[4], const float (&v)[4],
                                       float (&ratio)[4])
{
    const float c = f.sqrt_correction2;
    bool usual = c >= 0x1p-20f && c <= 1 && f.eps >= 0 && f.eps <= 0x1p20f;
#pragma unroll
    for (int k = 0; k < 4; k++)
        usual = usual && v[k] >= 0x1p-100f && v[k] <= 0x1p60f &&
                ((fabsf(m[k]) >= 0x1p-70f && fabsf(m[k]) <= 0x1p60f) || __float_as_uint(m[k]) == 0);
    if (!usual) {
#pragma unroll
        for (int k = 0; k < 4; k++) ratio[k] = __fdiv_rn(m[k], __fadd_rn(__fdiv_rn(__fsqrt_rn(v[k]), c), f.eps));
        return;
    }
    /* In this range nothing under- or overflows on the way, and what the compiler makes of the functions above is this, with a
     * test and a call around each. */
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float guess = ptx::rsqrt_approx(v[k]), half = __fmul_rn(0.5f, guess), near = __fmul_rn(v[k], guess);
        const float root = __fmaf_rn(__fmaf_rn(-near, near, v[k]), half, near);
        float q = fb_quotient(root, c, inverse);
        const float divisor = __fadd_rn(__fmaf_rn(__fmaf_rn(-q, c, root), inverse, q), f.eps);
        float reciprocal = ptx::rcp_approx(divisor);
        reciprocal = __fmaf_rn(reciprocal, __fmaf_rn(-divisor, reciprocal, 1.0f), reciprocal);
        q = fb_quotient(m[k], divisor, reciprocal);
        ratio[k] = __fmaf_rn(__fmaf_rn(-q, divisor, m[k]), reciprocal, q);
    }
}

/* Four parameters; m and v are the fp32 states before and after. The order and roundings of reference/adamw.c. False: the square
 * of a gradient, which enters v, is not finite. */
__device__ __forceinline__ bool step(const fb_adamw_factors &f, float inverse, float (&p)[4], const float (&grad)[4], float (&m)[4],
                                     float (&v)[4])
{
    bool finite = true;
    float ratio[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float g = __fmul_rn(grad[k], f.grad_scale), square = __fmul_rn(g, g);
        finite = finite && fb_is_finite(square);
        m[k] = __fadd_rn(__fmul_rn(f.beta1, m[k]), __fmul_rn(f.rest1, g));
        v[k] = __fadd_rn(__fmul_rn(f.beta2, v[k]), __fmul_rn(f.rest2, square));
    }
    ratios(f, inverse, m, v, ratio);
#pragma unroll
    for (int k = 0; k < 4; k++) p[k] = __fsub_rn(__fmul_rn(p[k], f.decay), __fmul_rn(f.step_size, ratio[k]));
    return finite;
}
__device__ void report_first(const fb_adamw_factors &f, const float (&grad)[4], int64_t i, int64_t n, unsigned long long *nonfinite)
{
#pragma unroll
    for (int k = 3; k >= 0; k--) {
        const float g = __fmul_rn(grad[k], f.grad_scale);
        if (i + k < n && !fb_is_finite(__fmul_rn(g, g))) fb_report_nonfinite(nonfinite, i + k);
    }
}

/* Parameters and gradients: types are run-time numbers, one branch for four elements. */
struct Tensors {
    void *params;
    const void *grads;
    fb_dtype params_dtype, grads_dtype;
    bool wide_params, wide_grads;
};

/* ---- fp32 state -------------------------------------------------------------------------------------------- */

constexpr int kThreads = 256, kSteps = 2;

__global__ void __launch_bounds__(kThreads)
adamw32_fours(fb_adamw_factors f, int64_t n, Tensors t, float *m_state, float *v_state, bool wide_state,
              unsigned long long *nonfinite)
{
    const int64_t stride = (int64_t)gridDim.x * kThreads * kSteps * 4;
    const float inverse = __frcp_rn(f.sqrt_correction2);
    for (int64_t first = ((int64_t)blockIdx.x * kThreads * kSteps + threadIdx.x) * 4; first < n; first += stride) {
        uint4 raw_p[kSteps], raw_g[kSteps], raw_m[kSteps], raw_v[kSteps];
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            const int64_t i = first + s * kThreads * 4;
            if (i >= n) break;
            raw_g[s] = fb_load_4(t.grads, t.grads_dtype, i, n, t.wide_grads);
            raw_p[s] = fb_load_4(t.params, t.params_dtype, i, n, t.wide_params);
            raw_m[s] = fb_load_16(m_state, i, n, wide_state);
            raw_v[s] = fb_load_16(v_state, i, n, wide_state);
        }
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            const int64_t i = first + s * kThreads * 4;
            if (i >= n) break;
            float p[4], g[4], m[4], v[4];
            fb_unpack_4(raw_p[s], t.params_dtype, p);
            fb_unpack_4(raw_g[s], t.grads_dtype, g);
            fb_unpack(raw_m[s], m, (float *)nullptr);
            fb_unpack(raw_v[s], v, (float *)nullptr);
            if (!step(f, inverse, p, g, m, v)) report_first(f, g, i, n, nonfinite);
            fb_store_4(t.params, t.params_dtype, i, n, t.wide_params, p);
            fb_store_4(m_state, FB_F32, i, n, wide_state, m);
            fb_store_4(v_state, FB_F32, i, n, wide_state, v);
        }
    }
}

/* ---- 8-bit state ---------------------------------------------------------------------------------------------- */

/* A warp has one block of 256: lane l the elements 4 l ... and 128 + 4 l ..., so that every stream is whole lines. */
constexpr int kBlockThreads = 512, kHalves = FB_ADAMW_BLOCK / (4 * FB_WARP);

/* Tables: values of m's and v's codes, each once in every bank; buckets of both maps. */
constexpr int kVValues = FB_CODES8 * FB_WARP, kMBuckets = 2 * kVValues, kVBuckets = kMBuckets + fb_buckets8<FB_MAP_SIGNED>::words,
              kWords = kVBuckets + fb_buckets8<FB_MAP_UNSIGNED>::words;
constexpr size_t kTableBytes = (size_t)kWords * sizeof(float);
static_assert(kTableBytes <= 99 * 1024, "what a block may have on sm_86, sm_89 and sm_120");

/* Of code k of the four in a word; bank: the table from this lane's bank on. */
__device__ __forceinline__ float value(const float *bank, uint32_t word, int k) { return bank[(word >> (8 * k) & 255u) * FB_WARP]; }

__device__ __forceinline__ uint32_t load_codes(const uint8_t *codes, int64_t i, int64_t n, bool wide)
{
    if (wide && i + 4 <= n) return *(const uint32_t *)(codes + i);
    uint32_t word = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) word |= (i + k < n ? (uint32_t)codes[i + k] : 0u) << (8 * k);
    return word;
}
__device__ __forceinline__ void store_codes(uint8_t *codes, int64_t i, int64_t n, bool wide, uint32_t word)
{
    if (wide && i + 4 <= n) {
        *(uint32_t *)(codes + i) = word;
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (i + k < n) codes[i + k] = (uint8_t)(word >> (8 * k));
}

/* The block's new absmax, and its codes. Elements past n are 0 and change neither. begin: this lane's first element. */
template <int MAP, bool WHOLE>
__device__ __forceinline__ void requantize(const float (&x)[kHalves][4], const uint32_t *buckets, uint8_t *codes, bool wide,
                                           float *absmax, int64_t begin, int64_t n)
{
    uint32_t most = 0;
#pragma unroll
    for (int h = 0; h < kHalves; h++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t magnitude = __float_as_uint(x[h][k]) & 0x7fffffffu;
            most = magnitude > most ? magnitude : most;
        }
    most = __reduce_max_sync(FB_ALL_LANES, most);
    const fb_magnitude magnitude = fb_magnitude_of(__uint_as_float(most));
#pragma unroll
    for (int h = 0; h < kHalves; h++) {
        const int64_t i = begin + h * 4 * FB_WARP;
        float y[4];
        fb_scaled<4>(x[h], magnitude, y);
        const uint32_t word = fb_codes8<MAP>(y, buckets);
        store_codes(codes, i, WHOLE ? i + 4 : n, WHOLE || wide, most == 0 ? 0 : word); /* a NaN's code is 0 */
    }
    __syncwarp(); /* every lane has read the old one; a shuffle is no barrier */
    if (threadIdx.x % FB_WARP == 0) *absmax = magnitude.absmax;
}

/* Block b. WHOLE: it has all of its elements, and every access is wide. */
template <bool WHOLE>
__device__ __forceinline__ void step_block(const fb_adamw_factors &f, float inverse, int64_t b, int64_t n, const Tensors &t,
                                           uint8_t *m_codes, float *m_absmax, uint8_t *v_codes, float *v_absmax, bool wide_m, bool wide_v,
                                           unsigned long long *nonfinite, const float *tables)
{
    const int lane = (int)threadIdx.x % FB_WARP;
    const int64_t begin = b * FB_ADAMW_BLOCK + lane * 4;
    const uint32_t *m_buckets = (const uint32_t *)tables + kMBuckets, *v_buckets = (const uint32_t *)tables + kVBuckets;
    uint4 raw_p[kHalves], raw_g[kHalves];
    uint32_t m_word[kHalves], v_word[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; h++) {
        const int64_t i = begin + h * 4 * FB_WARP, end = WHOLE ? i + 4 : n;
        raw_g[h] = fb_load_4(t.grads, t.grads_dtype, i, end, WHOLE || t.wide_grads);
        raw_p[h] = fb_load_4(t.params, t.params_dtype, i, end, WHOLE || t.wide_params);
        m_word[h] = load_codes(m_codes, i, end, WHOLE || wide_m);
        v_word[h] = load_codes(v_codes, i, end, WHOLE || wide_v);
    }
    const float m_old = m_absmax[b], v_old = v_absmax[b];
    float m[kHalves][4], v[kHalves][4];
#pragma unroll
    for (int h = 0; h < kHalves; h++) {
        const int64_t i = begin + h * 4 * FB_WARP, end = WHOLE ? i + 4 : n;
        float p[4], g[4];
        fb_unpack_4(raw_p[h], t.params_dtype, p);
        fb_unpack_4(raw_g[h], t.grads_dtype, g);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            m[h][k] = __fmul_rn(value(tables + lane, m_word[h], k), m_old);
            v[h][k] = __fmul_rn(value(tables + kVValues + lane, v_word[h], k), v_old);
        }
        if (!step(f, inverse, p, g, m[h], v[h])) report_first(f, g, i, end, nonfinite);
        fb_store_4(t.params, t.params_dtype, i, end, WHOLE || t.wide_params, p);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k >= end) m[h][k] = v[h][k] = 0;
    }
    requantize<FB_MAP_SIGNED, WHOLE>(m, m_buckets, m_codes, wide_m, m_absmax + b, begin, n);
    requantize<FB_MAP_UNSIGNED, WHOLE>(v, v_buckets, v_codes, wide_v, v_absmax + b, begin, n);
}

__global__ void __launch_bounds__(kBlockThreads, 2)
adamw8_blocks(fb_adamw_factors f, int64_t n, Tensors t, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes, float *v_absmax,
              bool wide_m, bool wide_v, unsigned long long *nonfinite)
{
    FB_DYNAMIC_SHARED(float, tables, 16);
    const int warps = kBlockThreads / FB_WARP;
    uint32_t *m_buckets = (uint32_t *)tables + kMBuckets, *v_buckets = (uint32_t *)tables + kVBuckets;
    fb_fill_table8(tables, 2 * FB_CODES8,
                   [](int e) { return fb_map8_value(e / FB_CODES8 ? FB_MAP_UNSIGNED : FB_MAP_SIGNED, e % FB_CODES8); });
    fb_load_buckets8<FB_MAP_SIGNED>(m_buckets);
    fb_load_buckets8<FB_MAP_UNSIGNED>(v_buckets);
    __syncthreads();

    const float inverse = __frcp_rn(f.sqrt_correction2);
    const bool wide = t.wide_params && t.wide_grads && wide_m && wide_v;
    const int64_t blocks = fb_ceil_div(n, FB_ADAMW_BLOCK), stride = (int64_t)gridDim.x * warps;
    for (int64_t b = (int64_t)blockIdx.x * warps + (int)threadIdx.x / FB_WARP; b < blocks; b += stride) {
        if (wide && (b + 1) * FB_ADAMW_BLOCK <= n)
            step_block<true>(f, inverse, b, n, t, m_codes, m_absmax, v_codes, v_absmax, wide_m, wide_v, nonfinite, tables);
        else
            step_block<false>(f, inverse, b, n, t, m_codes, m_absmax, v_codes, v_absmax, wide_m, wide_v, nonfinite, tables);
    }
}

Tensors tensors_of(void *params, fb_dtype params_dtype, const void *grads, fb_dtype grads_dtype)
{
    return Tensors{params, grads, params_dtype, grads_dtype, fb_wide_4(params, params_dtype), fb_wide_4(grads, grads_dtype)};
}

} // namespace

extern "C" fb_status FB_CUDA(adamw32)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                                      const void *grads, fb_dtype grads_dtype, float *m, float *v)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    const size_t state = (size_t)n * sizeof(float);
    const fb_operand operands[] = {{params, (size_t)n * fb_dtype_size(params_dtype), "params", true},
                                   {grads, (size_t)n * fb_dtype_size(grads_dtype), "grads", false},
                                   {m, state, "m", true}, {v, state, "v", true}, fb_nonfinite_operand(nonfinite)};
    return FB_LAUNCH(ctx, (adamw32_fours), fb_plain_grid(fb_ceil_div(n, 4 * kThreads * kSteps), kThreads), operands,
                     fb_adamw_get_factors(hyper), n, tensors_of(params, params_dtype, grads, grads_dtype), m, v,
                     fb_wide(m, 16) && fb_wide(v, 16), nonfinite);
}

extern "C" fb_status FB_CUDA(adamw8)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                                     const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax,
                                     uint8_t *v_codes, float *v_absmax)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status != FB_OK) return status;
    const int64_t blocks = fb_ceil_div(n, FB_ADAMW_BLOCK);
    const size_t scales = (size_t)blocks * sizeof(float);
    const fb_operand operands[] = {{params, (size_t)n * fb_dtype_size(params_dtype), "params", true},
                                   {grads, (size_t)n * fb_dtype_size(grads_dtype), "grads", false},
                                   {m_codes, (size_t)n, "m_codes", true}, {m_absmax, scales, "m_absmax", true},
                                   {v_codes, (size_t)n, "v_codes", true}, {v_absmax, scales, "v_absmax", true},
                                   fb_nonfinite_operand(nonfinite)};
    fb_grid grid = fb_resident_grid(fb_ceil_div(blocks, kBlockThreads / FB_WARP), 2, kBlockThreads, kTableBytes);
    return FB_LAUNCH(ctx, (adamw8_blocks), grid, operands, fb_adamw_get_factors(hyper), n,
                     tensors_of(params, params_dtype, grads, grads_dtype), m_codes, m_absmax, v_codes, v_absmax,
                     fb_wide(m_codes, 4), fb_wide(v_codes, 4), nonfinite);
}
