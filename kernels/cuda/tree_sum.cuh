/* tree_sum.cuh — a sum of n doubles in the one order that backend.h prescribes, whatever the grid: mean and deviation.
 *
 * A group of 256 is a warp's: lane l holds elements l, l + 32 ... l + 224, so that the halvings by 128, 64, 32 are
 * additions within a lane and those by 16 ... 1 are shuffles. The next level's groups are the group sums, in order:
 *
 *   block of threads     8 warps * (1 or 32 groups)   -> 8 sums of the first level, or 1 of the second
 *   last block to end    all sums, level by level     -> the result
 *
 * Which block is the last is chance (a ticket says); what it computes is not.
 */
#ifndef FB_TREE_SUM_CUH
#define FB_TREE_SUM_CUH

#include "elements.cuh"

static constexpr int FB_GROUP = 256, FB_SUM_WARPS = 8, FB_SUM_THREADS = 256, FB_SUM_AHEAD = 4;

static __device__ __forceinline__ double fb_group_sum(double (&v)[8])
{
#pragma unroll
    for (int s = 4; s > 0; s /= 2)
#pragma unroll
        for (int k = 0; k < s; k++) v[k] = __dadd_rn(v[k], v[k + s]);
    double sum = v[0];
#pragma unroll
    for (int s = 16; s > 0; s /= 2) sum = __dadd_rn(sum, __shfl_xor_sync(FB_ALL_LANES, sum, s));
    return sum;
}

/* Elements from i on of a group that ends at n, as this lane's share. Wide loads go through shared memory, which changes the
 * order from 16 bytes a lane to stride 32. */
template <class T> struct fb_group {
    static constexpr int loads = FB_GROUP / (FB_WARP * fb_element<T>::per_16_bytes);
    uint4 raw[loads];
    __device__ __forceinline__ void load(const T *x, int64_t i)
    {
        const uint4 *p = (const uint4 *)(x + i);
#pragma unroll
        for (int j = 0; j < loads; j++) raw[j] = p[j * FB_WARP + (int)threadIdx.x % FB_WARP];
    }
    __device__ __forceinline__ void share(uint4 *stage, float (&v)[8])
    {
        const int lane = (int)threadIdx.x % FB_WARP;
        __syncwarp(); /* the group before has been read */
#pragma unroll
        for (int j = 0; j < loads; j++) stage[j * FB_WARP + lane] = raw[j];
        __syncwarp();
#pragma unroll
        for (int k = 0; k < 8; k++) {
            if (sizeof(T) == 4) v[k] = ((const float *)stage)[lane + FB_WARP * k];
            else v[k] = fb_half_bits_to_float(((const uint16_t *)stage)[lane + FB_WARP * k], fb_element<T>::dtype);
        }
    }
};
template <class T> static __device__ __forceinline__ float fb_load_one(const T *x, int64_t i)
{
    return fb_half_bits_to_float(((const uint16_t *)x)[i], fb_element<T>::dtype);
}
static __device__ __forceinline__ float fb_load_one(const float *x, int64_t i) { return x[i]; }

/* The term of each element: itself, or its squared distance from the mean. Past n: +0, as the rule pads. */
template <bool SQUARED>
static __device__ __forceinline__ double fb_group_terms(const float (&x)[8], double mean, int64_t begin, int64_t n,
                                                        unsigned long long *nonfinite)
{
    double v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const int64_t i = begin + FB_WARP * k + (int)threadIdx.x % FB_WARP;
        double d = SQUARED ? __dadd_rn((double)x[k], -mean) : (double)x[k];
        v[k] = i >= n ? 0.0 : SQUARED ? __dmul_rn(d, d) : d;
        if (!SQUARED && i < n && !fb_is_finite(x[k])) fb_report_nonfinite(nonfinite, i);
    }
    return fb_group_sum(v);
}

/* sums[0 ... count-1], written by other blocks (past L1: __ldcg), to one; the array is overwritten. All threads come here. */
static __device__ double fb_finish_tree(double *sums, int64_t count, double *partial)
{
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP;
    while (count > 1) {
        const int64_t groups = fb_ceil_div(count, FB_GROUP);
        for (int64_t chunk = 0; chunk < groups; chunk += FB_GROUP) {
            for (int g = warp; g < FB_GROUP && chunk + g < groups; g += FB_SUM_WARPS) {
                double v[8];
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    const int64_t i = (chunk + g) * FB_GROUP + FB_WARP * k + lane;
                    v[k] = i < count ? __ldcg(sums + i) : 0.0;
                }
                double sum = fb_group_sum(v);
                if (lane == 0) partial[g] = sum;
            }
            __syncthreads(); /* what is overwritten now has been read: sums[chunk + 255] is no later than this chunk */
            if (chunk + (int)threadIdx.x < groups) sums[chunk + (int)threadIdx.x] = partial[threadIdx.x];
            __syncthreads();
        }
        count = groups;
    }
    return __ldcg(sums);
}

/* SQUARED false: *out = the mean of x; true: the deviation from *mean, 1 where it is 0. ticket: zero before the launch if
 * there is more than one block; *out may be the same word. sums: one double a block (deep) or a group. deep: 32 groups a warp. */
template <class T, bool SQUARED>
__global__ void __launch_bounds__(FB_SUM_THREADS, 2)
tree_sum(const T *x, int64_t n, bool wide, bool deep, const float *mean_word, double *sums, unsigned *ticket, float *out,
         unsigned long long *nonfinite)
{
    FB_SHARED(uint4, stage, [FB_SUM_WARPS][FB_GROUP / 4]);
    FB_SHARED(double, partial, [FB_GROUP]);
    FB_SHARED(unsigned, arrived, [1]);
    const int lane = (int)threadIdx.x % FB_WARP, warp = (int)threadIdx.x / FB_WARP, groups_a_warp = deep ? 32 : 1;
    const int64_t groups = fb_ceil_div(n, FB_GROUP), first = ((int64_t)blockIdx.x * FB_SUM_WARPS + warp) * groups_a_warp;
    const double mean = SQUARED ? (double)*mean_word : 0.0;

    for (int g = 0; g < groups_a_warp; g += FB_SUM_AHEAD) {
        fb_group<T> loaded[FB_SUM_AHEAD];
#pragma unroll
        for (int a = 0; a < FB_SUM_AHEAD; a++)
            if (wide && g + a < groups_a_warp && (first + g + a + 1) * FB_GROUP <= n) loaded[a].load(x, (first + g + a) * FB_GROUP);
#pragma unroll
        for (int a = 0; a < FB_SUM_AHEAD; a++) {
            if (g + a >= groups_a_warp) break;
            const int64_t begin = (first + g + a) * FB_GROUP;
            double sum = 0.0;
            float v[8];
            if (wide && begin + FB_GROUP <= n) {
                loaded[a].share(stage[warp], v);
                sum = fb_group_terms<SQUARED>(v, mean, begin, n, nonfinite);
            } else if (begin < n) {
#pragma unroll
                for (int k = 0; k < 8; k++) v[k] = begin + FB_WARP * k + lane < n ? fb_load_one(x, begin + FB_WARP * k + lane) : 0.0f;
                sum = fb_group_terms<SQUARED>(v, mean, begin, n, nonfinite);
                if (n == 1 && !SQUARED) sum = (double)__shfl_sync(FB_ALL_LANES, v[0], 0); /* nothing is added: -0 stays */
            }
            if (lane == 0) partial[warp * groups_a_warp + g + a] = sum;
        }
    }
    __syncthreads();

    const int64_t count = deep ? (int64_t)gridDim.x : groups; /* deep: many blocks */
    if (count == 1) {
        /* partial[0] is all */
    } else if (deep) {
        if (warp == 0) {
            double v[8];
#pragma unroll
            for (int k = 0; k < 8; k++) v[k] = partial[FB_WARP * k + lane];
            double sum = fb_group_sum(v);
            if (lane == 0) sums[blockIdx.x] = sum;
        }
    } else if (threadIdx.x < FB_SUM_WARPS && (int64_t)blockIdx.x * FB_SUM_WARPS + threadIdx.x < groups) {
        sums[(int64_t)blockIdx.x * FB_SUM_WARPS + threadIdx.x] = partial[threadIdx.x];
    }
    if (gridDim.x > 1) {
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) arrived[0] = atomicAdd(ticket, 1u);
        __syncthreads();
        if (arrived[0] != gridDim.x - 1) return;
        __threadfence();
    } else {
        __syncthreads();
    }
    double mean_of = (count == 1 ? partial[0] : fb_finish_tree(sums, count, partial)) / (double)n;
    if (threadIdx.x != 0) return;
    float result = (float)(SQUARED ? sqrt(mean_of) : mean_of);
    *out = SQUARED && !(result > 0) ? 1.0f : result;
}

/* Enough groups a warp that the sums are few, or few enough that small arrays are shared out. */
#ifdef FB_SIMT /* the executor takes the other path early, or no test would */
static inline bool fb_sum_is_deep(int64_t n) { return n >= (int64_t)1 << 17; }
#else
static inline bool fb_sum_is_deep(int64_t n) { return n >= (int64_t)1 << 24; }
#endif
static inline int64_t fb_sum_blocks(int64_t n)
{
    return fb_ceil_div(n, (int64_t)FB_GROUP * FB_SUM_WARPS * (fb_sum_is_deep(n) ? 32 : 1));
}
/* Doubles that a sum of n elements needs. */
static inline int64_t fb_sum_scratch(int64_t n) { return fb_sum_is_deep(n) ? fb_sum_blocks(n) : fb_ceil_div(n, FB_GROUP); }

template <class T, bool SQUARED>
static fb_status fb_tree_sum(fb_context *ctx, const T *x, int64_t n, const float *mean, double *sums, unsigned *ticket,
                             float *out, unsigned long long *nonfinite)
{
    const fb_operand operands[] = {{x, (size_t)n * sizeof(T), "src", false},
                                   {mean, mean ? sizeof *mean : 0, "mean", false},
                                   {sums, sums ? (size_t)fb_sum_scratch(n) * sizeof *sums : 0, "sums", true},
                                   {ticket, sizeof *ticket, "ticket", true},
                                   {out, sizeof *out, "moment", true},
                                   fb_nonfinite_operand(nonfinite)};
    fb_grid grid = {dim3((unsigned)fb_sum_blocks(n)), dim3(FB_SUM_THREADS), 0, dim3(1)};
    return FB_LAUNCH(ctx, (tree_sum<T, SQUARED>), grid, operands, x, n, fb_wide(x, 16), fb_sum_is_deep(n), mean, sums, ticket,
                     out, nonfinite);
}

/* A word of device memory becomes 0, in stream order. */
static inline fb_status fb_zero_word(fb_context *ctx, const char *name, unsigned *word)
{
#ifdef FB_SIMT
    (void)ctx, (void)name;
    simt::fill(word, 0, sizeof *word);
    return FB_OK;
#else
    cudaError_t error = cudaMemsetAsync(word, 0, sizeof *word, (cudaStream_t)ctx->stream);
    return error == cudaSuccess ? FB_OK : fb_fail(ctx, FB_BACKEND_ERROR, "%s: %s", name, cudaGetErrorString(error));
#endif
}

/* Scratch inside an output that is written later: the doubles that fit in it, from its first aligned byte. Any array of
 * more than 256 elements has room: a sum is 8 bytes, its elements are 256 or more. */
static inline double *fb_scratch_in(void *p) { return (double *)(((uintptr_t)p + 7) & ~(uintptr_t)7); }

#endif
