/* ops_cuda_attention.cu — causal grouped-query attention, forward and backward, without a matrix of scores.
 *
 *   forward   block: 8 queries of one head, a warp each; keys and values come 32 at a time through shared memory. Lane j has the
 *             score of key j; then lane c has columns c, c + 32 ... of the output, and adds the values' rows, key by key.
 *             A row's largest score so far is subtracted; where it grows, sums are scaled down (Milakov and Gimelshein,
 *             Online normalizer calculation for softmax, 2018).
 *   backward  three launches: delta = dout . out of each row, noted where dq's row begins; dk and dv by blocks of 8 keys, to
 *             which all queries of all heads of the group come, 32 at a time; dq like forward.
 *
 * 4 d operations a score forward and 14 d backward, for half of all scores: no tensor cores, so bound by fp32 arithmetic and
 * shared memory. Each sum is one thread's, in the order of heads and rows: no atomics, the same bits every time.
 */
#include "ops_cuda.cuh"

namespace {

/* Keys come in tiles of FB_WARP; rows in shared memory are one float longer, so that a lane a row reads 32 banks. */
struct Shape {
    int64_t batch, seq, query_stride, key_stride; /* from row to row of one head */
    int heads, group, width;                      /* group: query heads of a key head */
    float scale;
    __device__ __forceinline__ int pitch() const { return width + 1; }
    /* Offsets of a query's row; of row 0 of keys and values; of a row's sum. */
    __device__ __forceinline__ int64_t query(int64_t b, int h, int64_t i) const { return (b * seq + i) * query_stride + h * width; }
    __device__ __forceinline__ int64_t keys(int64_t b, int head) const { return b * seq * key_stride + head * width; }
    __device__ __forceinline__ int64_t row(int64_t b, int h, int64_t i) const { return (b * heads + h) * seq + i; }
    /* Behind the last key that a strip of queries sees. */
    __device__ __forceinline__ int64_t end_of(int64_t first) const { return first + kWarps < seq ? first + kWarps : seq; }
};

/* A block: a strip of kWarps rows (x), a head (y), a sequence (z), in turns beyond what a grid can have. */
#define LM_FOR_BATCH(b, s) for (int64_t b = blockIdx.z; b < s.batch; b += gridDim.z)

/* Rows 0 ... count - 1 of m to shared memory, by the whole block. */
__device__ __forceinline__ void load_tile(const Shape &s, const float *m, int64_t stride, int count, float *tile)
{
    for (int i = (int)threadIdx.x; i < count * s.width; i += kThreads) {
        const int row = i / s.width, c = i % s.width;
        tile[row * s.pitch() + c] = m[row * stride + c];
    }
}
/* A warp's own row. */
__device__ __forceinline__ void load_row(const Shape &s, const float *from, float *to)
{
    for (int c = lm_lane(); c < s.width; c += FB_WARP) to[c] = from[c];
}
__device__ __forceinline__ float dot(const float *a, const float *b, int n)
{
    float sum = 0;
    for (int c = 0; c < n; c++) sum = __fmaf_rn(a[c], b[c], sum);
    return sum;
}
/* sum[k] += factor of lane r * element of row r, for columns lane + 32 k and rows begin ... end - 1 in turn. */
template <int COLUMNS>
__device__ __forceinline__ void add_rows(const Shape &s, float factor, const float *tile, int begin, int end, float (&sum)[COLUMNS])
{
    for (int row = begin; row < end; row++) {
        const float f = __shfl_sync(FB_ALL_LANES, factor, row);
#pragma unroll
        for (int k = 0; k < COLUMNS; k++) {
            const int c = lm_lane() + FB_WARP * k;
            if (c < s.width) sum[k] = __fmaf_rn(f, tile[row * s.pitch() + c], sum[k]);
        }
    }
}
template <int COLUMNS> __device__ __forceinline__ void store_row(const Shape &s, const float (&sum)[COLUMNS], float divisor, float *to)
{
#pragma unroll
    for (int k = 0; k < COLUMNS; k++) {
        const int c = lm_lane() + FB_WARP * k;
        if (c < s.width) to[c] = sum[k] / divisor;
    }
}
__device__ __forceinline__ int tile_rows(int64_t left) { return left < FB_WARP ? (int)left : FB_WARP; }

/* Two blocks a multiprocessor: where none were asked for, ptxas held on to 48 registers and spilled. */
template <int COLUMNS>
__global__ void __launch_bounds__(kThreads, 2)
attend(Shape s, const float *q, const float *k, const float *v, float *out, float *log_sum)
{
    FB_DYNAMIC_SHARED(float, stage, 16);
    float *query = stage + lm_warp() * s.width, *keys = stage + kWarps * s.width, *values = keys + FB_WARP * s.pitch();
    const int64_t first = (int64_t)blockIdx.x * kWarps, i = first + lm_warp(), last = s.end_of(first);
    const int h = (int)blockIdx.y;
    const bool active = i < s.seq;
    LM_FOR_BATCH(b, s)
    {
        const int64_t kv = s.keys(b, h / s.group);
        if (active) load_row(s, q + s.query(b, h, i), query);
        float largest = -INFINITY, sum = 0, mixed[COLUMNS] = {};
        for (int64_t j = 0; j < last; j += FB_WARP) {
            __syncthreads(); /* the query is there, the tiles before have been read */
            load_tile(s, k + kv + j * s.key_stride, s.key_stride, tile_rows(last - j), keys);
            load_tile(s, v + kv + j * s.key_stride, s.key_stride, tile_rows(last - j), values);
            __syncthreads();
            if (!active || j > i) continue;
            const int seen = tile_rows(i + 1 - j);
            const float score = lm_lane() < seen ? s.scale * dot(query, keys + lm_lane() * s.pitch(), s.width) : -INFINITY;
            const float most = fmaxf(largest, lm_warp_max(score)), shrink = expf(largest - most), p = expf(score - most);
            sum = sum * shrink + lm_warp_sum(p);
            largest = most;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) mixed[c] *= shrink;
            add_rows(s, p, values, 0, seen, mixed);
        }
        if (active) store_row(s, mixed, sum, out + s.query(b, h, i));
        if (active && lm_lane() == 0) log_sum[s.row(b, h, i)] = largest + logf(sum);
        __syncthreads(); /* before another query comes */
    }
}

/* delta of each row into the first element of dq's. */
__global__ void __launch_bounds__(kThreads) note_deltas(Shape s, int64_t rows, const float *out, const float *dout, float *dq)
{
    LM_FOR_ROWS(block, fb_ceil_div(rows, kWarps))
    {
        const int64_t row = block * kWarps + lm_warp(), at = row * s.width;
        float delta = 0;
        for (int c = lm_lane(); row < rows && c < s.width; c += FB_WARP) delta = __fmaf_rn(out[at + c], dout[at + c], delta);
        delta = lm_warp_sum(delta);
        if (row < rows && lm_lane() == 0) dq[at] = delta;
    }
}

/* p and dS of one score. own: rows of the thing a warp has; other: of what its lane has. */
__device__ __forceinline__ void slope(const Shape &s, const float *query, const float *key, const float *dout, const float *value, float log_sum,
                                      float delta, float &p, float &ds)
{
    p = expf(s.scale * dot(query, key, s.width) - log_sum);
    ds = s.scale * p * (dot(dout, value, s.width) - delta);
}

template <int COLUMNS>
__global__ void __launch_bounds__(kThreads, 2)
key_gradients(Shape s, const float *q, const float *k, const float *v, const float *log_sum, const float *dout, const float *deltas, float *dk,
              float *dv)
{
    FB_DYNAMIC_SHARED(float, stage, 16);
    float *key = stage + lm_warp() * s.width, *value = key + kWarps * s.width, *queries = stage + 2 * kWarps * s.width,
          *douts = queries + FB_WARP * s.pitch();
    const int64_t first = (int64_t)blockIdx.x * kWarps, j = first + lm_warp();
    const int head = (int)blockIdx.y;
    const bool active = j < s.seq;
    LM_FOR_BATCH(b, s)
    {
        const int64_t at = s.keys(b, head) + j * s.key_stride;
        if (active) load_row(s, k + at, key), load_row(s, v + at, value);
        float sum_k[COLUMNS] = {}, sum_v[COLUMNS] = {};
        for (int h = head * s.group; h < (head + 1) * s.group; h++)
            for (int64_t i = first; i < s.seq; i += FB_WARP) {
                const int count = tile_rows(s.seq - i);
                __syncthreads(); /* key and value are there, the tiles before have been read */
                load_tile(s, q + s.query(b, h, i), s.query_stride, count, queries);
                load_tile(s, dout + s.query(b, h, i), s.query_stride, count, douts);
                __syncthreads();
                if (!active) continue;
                const int64_t own = i + lm_lane();
                float p = 0, ds = 0;
                if (own >= j && lm_lane() < count)
                    slope(s, queries + lm_lane() * s.pitch(), key, douts + lm_lane() * s.pitch(), value,
                          log_sum[s.row(b, h, own)], deltas[s.query(b, h, own)], p, ds);
                const int begin = j > i ? (int)(j - i) : 0; /* less than FB_WARP: i begins at the strip's first */
                add_rows(s, ds, queries, begin, count, sum_k);
                add_rows(s, p, douts, begin, count, sum_v);
            }
        if (active) store_row(s, sum_k, 1, dk + at), store_row(s, sum_v, 1, dv + at);
        __syncthreads(); /* before another key comes */
    }
}

/* dq holds the deltas when this begins. */
template <int COLUMNS>
__global__ void __launch_bounds__(kThreads, 2)
query_gradients(Shape s, const float *q, const float *k, const float *v, const float *log_sum, const float *dout, float *dq)
{
    FB_DYNAMIC_SHARED(float, stage, 16);
    float *query = stage + lm_warp() * s.width, *row_dout = query + kWarps * s.width, *keys = stage + 2 * kWarps * s.width,
          *values = keys + FB_WARP * s.pitch();
    const int64_t first = (int64_t)blockIdx.x * kWarps, i = first + lm_warp(), last = s.end_of(first);
    const int h = (int)blockIdx.y;
    const bool active = i < s.seq;
    LM_FOR_BATCH(b, s)
    {
        const int64_t kv = s.keys(b, h / s.group), at = s.query(b, h, i);
        if (active) load_row(s, q + at, query), load_row(s, dout + at, row_dout);
        const float delta = active ? dq[at] : 0, sum_of_row = active ? log_sum[s.row(b, h, i)] : 0;
        float sum[COLUMNS] = {};
        for (int64_t j = 0; j < last; j += FB_WARP) {
            __syncthreads(); /* the query is there, the tiles before have been read */
            load_tile(s, k + kv + j * s.key_stride, s.key_stride, tile_rows(last - j), keys);
            load_tile(s, v + kv + j * s.key_stride, s.key_stride, tile_rows(last - j), values);
            __syncthreads();
            if (!active || j > i) continue;
            const int seen = tile_rows(i + 1 - j);
            float p = 0, ds = 0;
            if (lm_lane() < seen) slope(s, query, keys + lm_lane() * s.pitch(), row_dout, values + lm_lane() * s.pitch(), sum_of_row, delta, p, ds);
            add_rows(s, ds, keys, 0, seen, sum);
        }
        if (active) store_row(s, sum, 1, dq + at);
        __syncthreads(); /* before another query comes */
    }
}

/* rows: how many a warp keeps of its own. */
fb_grid grid_of(const lm_attention *a, int64_t heads, int rows)
{
    const int64_t batch = a->batch < kMostBatch ? a->batch : kMostBatch;
    return fb_grid{dim3((unsigned)fb_ceil_div(a->seq, kWarps), (unsigned)heads, (unsigned)batch), dim3(kThreads),
                   (size_t)(rows * kWarps * a->head_dim + 2 * FB_WARP * (a->head_dim + 1)) * sizeof(float), dim3(1)};
}

/* The kernel for this many columns a lane. */
#define LM_BY_WIDTH(CTX, KERNEL, ...)                                                                                                    \
    (s.width <= 2 * FB_WARP   ? FB_LAUNCH(CTX, (KERNEL<2>), __VA_ARGS__)                                                            \
     : s.width <= 4 * FB_WARP ? FB_LAUNCH(CTX, (KERNEL<4>), __VA_ARGS__)                                                            \
                                   : FB_LAUNCH(CTX, (KERNEL<LM_HEAD_DIM_MAX / FB_WARP>), __VA_ARGS__))

Shape shape_of(const lm_attention *a)
{
    return Shape{a->batch, a->seq, a->heads * a->head_dim, a->kv_heads * a->head_dim, (int)a->heads, (int)(a->heads / a->kv_heads),
                 (int)a->head_dim, (float)(1 / sqrt((double)a->head_dim))};
}

} // namespace

extern "C" fb_status LM_CUDA(attention)(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, float *out,
                                        float *log_sum)
{
    const int64_t rows = a->batch * a->seq, n = rows * a->heads * a->head_dim, keys = rows * a->kv_heads * a->head_dim;
    const Shape s = shape_of(a);
    const fb_operand operands[] = {lm_in(q, n, "q"), lm_in(k, keys, "k"), lm_in(v, keys, "v"), lm_out(out, n, "out"),
                                   lm_out(log_sum, rows * a->heads, "log_sum")};
    return LM_BY_WIDTH(ctx, attend, grid_of(a, a->heads, 1), operands, s, q, k, v, out, log_sum);
}

extern "C" fb_status LM_CUDA(attention_backward)(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v,
                                                 const float *out, const float *log_sum, const float *dout, float *dq, float *dk, float *dv)
{
    const int64_t rows = a->batch * a->seq * a->heads, n = rows * a->head_dim, keys = a->batch * a->seq * a->kv_heads * a->head_dim;
    const Shape s = shape_of(a);
    const fb_operand operands[] = {lm_in(q, n, "q"),         lm_in(k, keys, "k"),   lm_in(v, keys, "v"),   lm_in(out, n, "out"),
                                   lm_in(log_sum, rows, "log_sum"), lm_in(dout, n, "dout"), lm_out(dq, n, "dq"), lm_out(dk, keys, "dk"),
                                   lm_out(dv, keys, "dv")};
    fb_status status = FB_LAUNCH(ctx, (note_deltas), lm_rows(fb_ceil_div(rows, kWarps)), operands, s, rows, out, dout, dq);
    if (status == FB_OK) status = LM_BY_WIDTH(ctx, key_gradients, grid_of(a, a->kv_heads, 2), operands, s, q, k, v, log_sum, dout, dq, dk, dv);
    if (status == FB_OK) status = LM_BY_WIDTH(ctx, query_gradients, grid_of(a, a->heads, 2), operands, s, q, k, v, log_sum, dout, dq);
    return status;
}
