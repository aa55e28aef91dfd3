/* adamw.cu — AdamW with fp32 and with 8-bit blockwise state (reference/adamw.c, to the bit).
 *
 * Moves, per parameter (bf16 parameters and gradients): fp32 state 2+2 of parameters, 2 of gradients, 8+8 of state = 22
 * bytes; 8-bit state 4 + 2 + 2+2 = 10, and 16 bytes every 256. 20 operations, among them a square root and two divisions (about 10 instructions
 * each when rounded correctly); 8-bit: two look-ups and two searches on top, about 90 in all. Memory-bound with fp32 state: 16 M
 * parameters take no less than 85.8 us at 4.3 TB/s. With 8-bit state (39.0 us) an H200 has about 69 thread instructions a
 * parameter at that rate: instructions may be the bound there.
 *
 *   v1  fp32: four parameters a thread and step, all loads of two steps in flight
 *       8-bit: a warp is a state's block; codes decoded from, and coded with, tables without bank conflicts (codes8.cuh: 96 KiB, so
 *       one or two blocks of 384 threads (512 spilled) stay on a multiprocessor and walk); no GPU has confirmed either
 *
 * make test runs it in the executor; FOURBIT_CUDA=gpu build/validate/test_fourbit --backend cuda --filter adamw on a GPU.
 */
#include "codes8.cuh"
#include "cuda_ops.h"

namespace {

/* One parameter; m and v are the fp32 states before and after. The order and roundings of reference/adamw.c. */
__device__ __forceinline__ float step(const fb_adamw_factors &f, float p, float g, float &m, float &v)
{
    float decayed = __fmul_rn(p, f.decay);
    m = __fadd_rn(__fmul_rn(f.beta1, m), __fmul_rn(f.rest1, g));
    v = __fadd_rn(__fmul_rn(f.beta2, v), __fmul_rn(f.rest2, __fmul_rn(g, g)));
    float root = __fdiv_rn(__fsqrt_rn(v), f.sqrt_correction2);
    float ratio = __fdiv_rn(m, __fadd_rn(root, f.eps));
    return __fsub_rn(decayed, __fmul_rn(f.step_size, ratio));
}

/* The gradient scaled, and reported if its square, which enters v, is not finite. */
__device__ __forceinline__ float scaled_gradient(const fb_adamw_factors &f, float grad, int64_t i, int64_t n,
                                                 unsigned long long *nonfinite)
{
    float g = __fmul_rn(grad, f.grad_scale);
    if (!fb_is_finite(__fmul_rn(g, g)) && i < n) fb_report_nonfinite(nonfinite, i);
    return g;
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
#pragma unroll
            for (int k = 0; k < 4; k++) p[k] = step(f, p[k], scaled_gradient(f, g[k], i + k, n, nonfinite), m[k], v[k]);
            fb_store_4(t.params, t.params_dtype, i, n, t.wide_params, p);
            fb_store_4(m_state, FB_F32, i, n, wide_state, m);
            fb_store_4(v_state, FB_F32, i, n, wide_state, v);
        }
    }
}

/* ---- 8-bit state ---------------------------------------------------------------------------------------------- */

/* A warp has one block of 256: lane l the elements 4 l ... and 128 + 4 l ..., so that every stream is whole lines. */
constexpr int kBlockThreads = 384, kHalves = FB_ADAMW_BLOCK / (4 * FB_WARP);

/* Tables, in entries of 128 bytes: the values of m's magnitudes (a code's sign is a sign) and of v's codes, the thresholds
 * of both. All values of m would not fit beside the rest into the 99 KiB that a block gets on sm_86, 89 and 120. */
constexpr int kMValues = 0, kVValues = kMValues + FB_SIGNED_THRESHOLDS + 1, kMThresholds = kVValues + FB_CODES8,
              kVThresholds = kMThresholds + FB_SIGNED_THRESHOLDS, kEntries = kVThresholds + FB_UNSIGNED_THRESHOLDS;
constexpr size_t kTableBytes = (size_t)kEntries * FB_WARP * sizeof(float);
static_assert(kTableBytes <= 99 * 1024, "what a block may have on sm_86, sm_89 and sm_120");

__device__ __forceinline__ float m_value(const float *bank, unsigned code)
{
    int j = (int)code - FB_SIGNED_ZERO;
    float magnitude = bank[(kMValues + (j < 0 ? -j : j)) * FB_WARP];
    return j < 0 ? -magnitude : magnitude;
}
__device__ __forceinline__ float v_value(const float *bank, unsigned code) { return bank[(kVValues + (int)code) * FB_WARP]; }

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

/* The block's new absmax, and its codes. Elements past n are 0 and change neither. */
template <int MAP>
__device__ __forceinline__ void requantize(const float (&x)[kHalves][4], float decade_scale, const float *thresholds,
                                           uint8_t *codes, bool wide, float *absmax, int64_t begin, int64_t n)
{
    const int lane = (int)threadIdx.x % FB_WARP;
    uint32_t most = 0;
#pragma unroll
    for (int h = 0; h < kHalves; h++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t magnitude = __float_as_uint(x[h][k]) & 0x7fffffffu;
            most = magnitude > most ? magnitude : most;
        }
    most = __reduce_max_sync(FB_ALL_LANES, most);
#pragma unroll
    for (int h = 0; h < kHalves; h++) {
        float y[4];
        uint32_t word = 0;
        fb_scaled<4>(x[h], fb_magnitude_of(__uint_as_float(most)), y);
#pragma unroll
        for (int k = 0; k < 4; k++) word |= fb_code8<MAP>(y[k], decade_scale, thresholds) << (8 * k);
        store_codes(codes, begin + h * 4 * FB_WARP + lane * 4, n, wide, most == 0 ? 0 : word); /* a NaN's code is 0 */
    }
    __syncwarp(); /* every lane has read the old one; a shuffle is no barrier */
    if (lane == 0) absmax[begin / FB_ADAMW_BLOCK] = __uint_as_float(most);
}

__device__ __forceinline__ void fill_tables(float *tables)
{
    fb_fill_table8(tables, kEntries, [](int e) {
        if (e < kVValues) return fb_map8_value(FB_MAP_SIGNED, FB_SIGNED_ZERO + e - kMValues);
        if (e < kMThresholds) return fb_map8_value(FB_MAP_UNSIGNED, e - kVValues);
        if (e < kVThresholds) return fb_threshold8<FB_MAP_SIGNED>(e - kMThresholds);
        return fb_threshold8<FB_MAP_UNSIGNED>(e - kVThresholds);
    });
}

__global__ void __launch_bounds__(kBlockThreads)
adamw8_blocks(fb_adamw_factors f, int64_t n, Tensors t, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes, float *v_absmax,
              bool wide_m, bool wide_v, unsigned long long *nonfinite)
{
    FB_DYNAMIC_SHARED(float, tables, 16);
    const int lane = (int)threadIdx.x % FB_WARP, warps = kBlockThreads / FB_WARP;
    const float *bank = tables + lane;
    const float m_scale = fb_decade_scale<FB_MAP_SIGNED>(), v_scale = fb_decade_scale<FB_MAP_UNSIGNED>();
    fill_tables(tables);
    __syncthreads();

    const int64_t blocks = fb_ceil_div(n, FB_ADAMW_BLOCK), stride = (int64_t)gridDim.x * warps;
    for (int64_t b = (int64_t)blockIdx.x * warps + (int)threadIdx.x / FB_WARP; b < blocks; b += stride) {
        const int64_t begin = b * FB_ADAMW_BLOCK;
        uint4 raw_p[kHalves], raw_g[kHalves];
        uint32_t m_word[kHalves], v_word[kHalves];
#pragma unroll
        for (int h = 0; h < kHalves; h++) {
            const int64_t i = begin + h * 4 * FB_WARP + lane * 4;
            raw_g[h] = fb_load_4(t.grads, t.grads_dtype, i, n, t.wide_grads);
            raw_p[h] = fb_load_4(t.params, t.params_dtype, i, n, t.wide_params);
            m_word[h] = load_codes(m_codes, i, n, wide_m);
            v_word[h] = load_codes(v_codes, i, n, wide_v);
        }
        const float m_old = m_absmax[b], v_old = v_absmax[b];
        float m[kHalves][4], v[kHalves][4];
#pragma unroll
        for (int h = 0; h < kHalves; h++) {
            const int64_t i = begin + h * 4 * FB_WARP + lane * 4;
            float p[4], g[4];
            fb_unpack_4(raw_p[h], t.params_dtype, p);
            fb_unpack_4(raw_g[h], t.grads_dtype, g);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                m[h][k] = __fmul_rn(m_value(bank, m_word[h] >> (8 * k) & 255u), m_old);
                v[h][k] = __fmul_rn(v_value(bank, v_word[h] >> (8 * k) & 255u), v_old);
                p[k] = step(f, p[k], scaled_gradient(f, g[k], i + k, n, nonfinite), m[h][k], v[h][k]);
                if (i + k >= n) m[h][k] = v[h][k] = 0;
            }
            fb_store_4(t.params, t.params_dtype, i, n, t.wide_params, p);
        }
        requantize<FB_MAP_SIGNED>(m, m_scale, bank + kMThresholds * FB_WARP, m_codes, wide_m, m_absmax, begin, n);
        requantize<FB_MAP_UNSIGNED>(v, v_scale, bank + kVThresholds * FB_WARP, v_codes, wide_v, v_absmax, begin, n);
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
