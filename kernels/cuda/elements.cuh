/* elements.cuh — reading and writing elements of the three types: wide where the address allows it, one by one where not;
 * and what every memory-bound kernel shares: the report of a NaN, the shape of a grid.
 *
 *   wide     one access of 16 bytes (8 halves, 4 floats) or, where a kernel walks arrays of different element sizes side
 *            by side, of four elements: 16 bytes of fp32, 8 of bf16 and fp16. A warp's request is whole 128-byte lines
 *   guarded  element by element, nothing past the end; for tails and for pointers aligned only to their element
 */
#ifndef FB_ELEMENTS_CUH
#define FB_ELEMENTS_CUH

#include "launch.cuh"

static constexpr int FB_WARP = 32;
static constexpr unsigned FB_ALL_LANES = 0xffffffffu;

template <class T> struct fb_element;
template <> struct fb_element<float> {
    static constexpr fb_dtype dtype = FB_F32;
    static constexpr int per_16_bytes = 4;
};
template <> struct fb_element<__nv_bfloat16> {
    static constexpr fb_dtype dtype = FB_BF16;
    static constexpr int per_16_bytes = 8;
};
template <> struct fb_element<__half> {
    static constexpr fb_dtype dtype = FB_F16;
    static constexpr int per_16_bytes = 8;
};

static inline bool fb_wide(const void *p, size_t bytes) { return (uintptr_t)p % bytes == 0; }

/* ---- conversions: exact to fp32, one rounding to nearest even back ------------------------------- */

static __device__ __forceinline__ float fb_half_bits_to_float(uint32_t h, fb_dtype t)
{
    return t == FB_BF16 ? __uint_as_float(h << 16) : __half2float(__ushort_as_half((unsigned short)h));
}
static __device__ __forceinline__ uint32_t fb_float_to_half_bits(float v, fb_dtype t)
{
    return t == FB_BF16 ? (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(v))
                        : (uint32_t)__half_as_ushort(__float2half_rn(v));
}
/* Two halves in a word, the first one low. */
static __device__ __forceinline__ void fb_split_halves(uint32_t w, fb_dtype t, float &a, float &b)
{
    a = fb_half_bits_to_float(w & 0xffffu, t);
    b = t == FB_BF16 ? __uint_as_float(w & 0xffff0000u) : fb_half_bits_to_float(w >> 16, t);
}
static __device__ __forceinline__ uint32_t fb_join_halves(float a, float b, fb_dtype t)
{
    return fb_float_to_half_bits(a, t) | fb_float_to_half_bits(b, t) << 16;
}

/* ---- one element: what the guarded kernels read and what they round a weight to ------------------------ */

template <class T> static __device__ __forceinline__ float fb_element_at(const void *p, int64_t i)
{
    if (fb_element<T>::dtype == FB_F32) return ((const float *)p)[i];
    return fb_half_bits_to_float(((const uint16_t *)p)[i], fb_element<T>::dtype);
}
template <class T> static __device__ __forceinline__ float fb_rounded_to(float v)
{
    if (fb_element<T>::dtype == FB_F32) return v;
    return fb_half_bits_to_float(fb_float_to_half_bits(v, fb_element<T>::dtype), fb_element<T>::dtype);
}

/* ---- 16 bytes of one type, the type known to the compiler --------------------------------------------- */

static __device__ __forceinline__ void fb_unpack(uint4 raw, float (&x)[4], float *)
{
    x[0] = __uint_as_float(raw.x), x[1] = __uint_as_float(raw.y);
    x[2] = __uint_as_float(raw.z), x[3] = __uint_as_float(raw.w);
}
template <class T> static __device__ __forceinline__ void fb_unpack(uint4 raw, float (&x)[8], T *)
{
    constexpr fb_dtype t = fb_element<T>::dtype;
    fb_split_halves(raw.x, t, x[0], x[1]);
    fb_split_halves(raw.y, t, x[2], x[3]);
    fb_split_halves(raw.z, t, x[4], x[5]);
    fb_split_halves(raw.w, t, x[6], x[7]);
}

/* How many of the elements from i on there are, 8 at most: what follows compares in 32 bits (with 64 it took 30 registers). */
static __device__ __forceinline__ int fb_left(int64_t i, int64_t n) { return n - i >= 8 ? 8 : n > i ? (int)(n - i) : 0; }

static __device__ __forceinline__ uint32_t fb_raw_word(const float *p, int k, int left)
{
    return k < left ? __float_as_uint(p[k]) : 0;
}
template <class T> static __device__ __forceinline__ uint32_t fb_raw_word(const T *p, int k, int left)
{
    const volatile uint16_t *h = (const volatile uint16_t *)p; /* or g++ makes one misaligned load of the two */
    return (k < left ? h[k] : 0u) | (k + 1 < left ? (uint32_t)h[k + 1] << 16 : 0u);
}
/* The elements from i on, zeros (harmless to every magnitude) past n. */
template <class T> static __device__ __forceinline__ uint4 fb_load_16(const T *p, int64_t i, int64_t n, bool wide)
{
    constexpr int step = fb_element<T>::per_16_bytes / 4;
    if (wide && i + fb_element<T>::per_16_bytes <= n) return *(const uint4 *)(p + i);
    const int left = fb_left(i, n);
    return make_uint4(fb_raw_word(p + i, 0, left), fb_raw_word(p + i, step, left), fb_raw_word(p + i, 2 * step, left),
                      fb_raw_word(p + i, 3 * step, left));
}

/* ---- four elements, the type known at run time: one kernel instead of nine ------------------------------ */

/* Raw first, converted later, so that a kernel can have all its loads in flight before it waits for one. */
static __device__ __forceinline__ uint4 fb_load_4(const void *p, fb_dtype t, int64_t i, int64_t n, bool wide)
{
    if (t == FB_F32) return fb_load_16((const float *)p, i, n, wide);
    const __half *h = (const __half *)p + i;
    const int left = fb_left(i, n);
    uint2 two = wide && left >= 4 ? *(const uint2 *)h
                                  : make_uint2(fb_raw_word(h, 0, left < 4 ? left : 4), fb_raw_word(h, 2, left < 4 ? left : 4));
    return make_uint4(two.x, two.y, 0, 0);
}
static __device__ __forceinline__ void fb_unpack_4(uint4 raw, fb_dtype t, float (&x)[4])
{
    if (t == FB_F32) {
        fb_unpack(raw, x, (float *)nullptr);
    } else {
        fb_split_halves(raw.x, t, x[0], x[1]);
        fb_split_halves(raw.y, t, x[2], x[3]);
    }
}
static __device__ __forceinline__ void fb_store_4(void *p, fb_dtype t, int64_t i, int64_t n, bool wide, const float (&x)[4])
{
    if (t == FB_F32) {
        float *f = (float *)p + i;
        if (wide && i + 4 <= n) {
            *(uint4 *)f = make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
            return;
        }
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k < n) f[k] = x[k];
        return;
    }
    uint16_t *h = (uint16_t *)p + i;
    uint2 two = make_uint2(fb_join_halves(x[0], x[1], t), fb_join_halves(x[2], x[3], t));
    if (wide && i + 4 <= n) {
        *(uint2 *)h = two;
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (i + k < n) h[k] = (uint16_t)((k < 2 ? two.x : two.y) >> (16 * (k % 2)));
}
static inline bool fb_wide_4(const void *p, fb_dtype t) { return fb_wide(p, 4 * fb_dtype_size(t)); }

/* ---- a block's magnitude, and its elements over it: the rule of backend.h ---------------------------------- */

/* Where 1 / absmax is infinite the rule is to divide. A division costs 10 instructions and a call that takes registers from
 * everything around it, so: multiply both by 2^64, which changes no quotient, and correct a product twice. */
static constexpr float FB_BOOST = 0x1p64f;
struct fb_magnitude {
    float absmax, inverse;
    bool tiny; /* inverse is that of absmax * 2^64 */
};
static __device__ __forceinline__ fb_magnitude fb_magnitude_of(float absmax)
{
    const bool tiny = !(__frcp_rn(absmax) <= 3.402823466e38f);
    return fb_magnitude{absmax, __frcp_rn(tiny ? __fmul_rn(absmax, FB_BOOST) : absmax), tiny};
}

/* x / s but for the last bit, at worst; inverse: 1 / s, rounded. */
static __device__ __forceinline__ float fb_quotient(float x, float s, float inverse)
{
    float q = __fmul_rn(x, inverse);
    return __fmaf_rn(__fmaf_rn(-q, s, x), inverse, q);
}

/* Of an all-zero block: NaN. */
template <int N> static __device__ __forceinline__ void fb_scaled(const float (&x)[N], const fb_magnitude &m, float (&y)[N])
{
#pragma unroll
    for (int k = 0; k < N; k++) y[k] = __fmul_rn(x[k], m.inverse);
    if (!m.tiny) return;
    const float divisor = __fmul_rn(m.absmax, FB_BOOST);
#pragma unroll
    for (int k = 0; k < N; k++) { /* from a quotient within an ulp, a correction gives the rounded one (Markstein 1990) */
        float dividend = __fmul_rn(x[k], FB_BOOST), q = fb_quotient(dividend, divisor, m.inverse);
        y[k] = __fmaf_rn(__fmaf_rn(-q, divisor, dividend), m.inverse, q);
    }
}

/* ---- NaN and Inf ----------------------------------------------------------------------------------------- */

/* The word is NULL when the caller vouches for its data. */
static __device__ __forceinline__ void fb_report_nonfinite(unsigned long long *word, int64_t index)
{
    if (word) atomicMin(word, (unsigned long long)index);
}
static __device__ __forceinline__ bool fb_is_finite(float x)
{
    return (__float_as_uint(x) & 0x7fffffffu) < 0x7f800000u;
}
/* What a call passes to its kernel; FB_INVALID_ARGUMENT where there is no way to report. */
static inline fb_status fb_nonfinite_word(fb_context *ctx, unsigned long long **word)
{
    *word = ctx->flags & FB_ASSUME_FINITE ? nullptr : (unsigned long long *)ctx->first_nonfinite;
    if (*word || ctx->flags & FB_ASSUME_FINITE) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT,
                   "ctx->first_nonfinite is NULL; the CUDA backend reports a NaN or Inf there (or set FB_ASSUME_FINITE)");
}
static inline fb_operand fb_nonfinite_operand(unsigned long long *word)
{
    return fb_operand{word, word ? sizeof *word : 0, "first_nonfinite", true};
}

/* ---- grids -------------------------------------------------------------------------------------------------- */

static inline int fb_log2(int64_t power_of_two)
{
    int k = 0;
    while ((int64_t)1 << k < power_of_two) k++;
    return k;
}

/* As many blocks as there is work for, and no more than fit on the device at once: kernels that first fill a table in
 * shared memory then walk over the work with a stride. */
static inline fb_grid fb_resident_grid(int64_t work, int per_multiprocessor, int threads, size_t shared_bytes)
{
    int multiprocessors = 2; /* the executor: enough for the stride to be taken */
#ifndef FB_SIMT
    int device = 0;
    multiprocessors = 1;
    if (cudaGetDevice(&device) == cudaSuccess)
        (void)cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
#endif
    int64_t blocks = (int64_t)multiprocessors * per_multiprocessor;
    if (blocks > work) blocks = work;
    return fb_grid{dim3((unsigned)blocks), dim3((unsigned)threads), shared_bytes, dim3(1)};
}
/* One block for each piece of work, in turns beyond what a grid can have. */
static inline fb_grid fb_plain_grid(int64_t work, int threads)
{
    const int64_t most = (int64_t)1 << 30;
    return fb_grid{dim3((unsigned)(work < most ? work : most)), dim3((unsigned)threads), 0, dim3(1)};
}

#endif
