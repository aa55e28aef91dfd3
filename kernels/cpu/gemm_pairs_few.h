/* gemm_pairs_few.h: gemm on vdpbf16ps for few rows of x, W and x both read along k. Included by gemm_pairs.h.
 *
 * Nothing is transposed: a row of W and a row of x meet lane by lane, and a sum's 16 lanes are added up at the end.
 * 64 bytes of codes are 128 weights: shifted by 0, 4, 8 and 12 bits, each of their 32 words has in its low bits
 * another of its 4 codes, which vpermw looks up in a table of two blocks' 16 values, scaled and rounded:
 *
 *     word i, bits 0-3: element 4 i + 1    4-7: 4 i    8-11: 4 i + 3    12-15: 4 i + 2
 *
 * x is laid out in that order once: for 128 of k, row after row of a tile, four vectors each.
 *
 * A step: 1 load, 3 shifts, 4 vpternlog, 4 vpermw and 3 for the table, 15 instructions for 128 weights, and 4 vdpbf16ps a
 * row of x, beside which they run, but on the same ports. From M = 3 on two rows of W at a time
 * share the loads of x; at M = 1 and 2 memory counts, which is fastest read in one stream. (More rows at a time from M = 5 on,
 * and tiles of 12 or 16 rows of x, were 0 to 30 % slower: registers, or x beyond the first-level cache.) */
#ifndef FOURBIT_CPU_GEMM_PAIRS_FEW_H
#define FOURBIT_CPU_GEMM_PAIRS_FEW_H

enum {
    FEW_STEP = CPU_PAIRS_STEP, /* of k */
    FEW_TILE = 8,        /* rows of x at a time */
    FEW_DEPTH = 16384,   /* of k times rows of x: 32 KB, the first-level cache */
    FEW_WEIGHTS = 1 << 17 /* a thread takes at a time */
};

/* ---- x ---------------------------------------------------------------------------------- */

/* out[0 ... 127] = x[0 ... 127] in the order of the codes. */
static inline void reorder_step(const uint16_t *x, uint16_t *out)
{
    static const uint8_t order[4] = {1, 0, 3, 2};
    for (int v = 0; v < 4; v++)
        for (int i = 0; i < 32; i++) out[32 * v + i] = x[4 * i + order[v]];
}

/* ---- W ---------------------------------------------------------------------------------- */

typedef struct few_step {
    __m512i codes, table;
} few_step;

/* absmax of blocks first ... first+count-1: where it lies, or decoded, sixteen at a time. One by one as weights ask for
 * them a fifth of the time at M = 1 was this. */
static inline const float *few_scales(const decoder *d, int64_t first, int64_t count, float *decoded)
{
    const cpu_scales *s = &d->scales;
    if (s->absmax) return s->absmax + first;
    for (int64_t i = 0; i < count;) {
        const int64_t block = first + i, stop = cpu_min(count, (block / FB_NESTED_BLOCK + 1) * FB_NESTED_BLOCK - first);
        const vf nested = vf_set1(s->nested[block / FB_NESTED_BLOCK]), offset = vf_set1(s->offset);
        for (; stop - i >= VF; i += VF) vf_store(decoded + i, vf_add(vf_mul(vf_gather(s->map, s->codes + first + i), nested), offset));
        for (; i < stop; i++) decoded[i] = cpu_absmax(s, first + i);
    }
    return decoded;
}

static inline vf block_values(const decoder *d, int64_t block, float absmax)
{
    vf values = vf_load(d->values);
    if (d->zero_points) values = vf_sub(values, vf_set1((float)d->zero_points[block]));
    return vf_mul(values, vf_set1(absmax));
}

/* 128 weights from element i on; scales are those of blocks from `first` on. */
static inline few_step few_load(const decoder *d, int64_t i, const float *scales, int64_t first)
{
    const int64_t a = i >> d->shift, b = (i + 64) >> d->shift;
    const vf low = block_values(d, a, scales[a - first]), high = block_values(d, b, scales[b - first]);
    return (few_step){_mm512_loadu_si512(d->codes + i / 2), (__m512i)_mm512_cvtne2ps_pbh(high, low)};
}

/* A quarter of them: shift is 4 times which. */
static inline vf few_decode(const few_step *s, int shift)
{
    const __m512i nibble = _mm512_set1_epi16(15);
    const __m512i upper = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1); /* the second block's lanes */
    const __m512i moved = shift ? _mm512_srli_epi16(s->codes, (unsigned)shift) : s->codes;
    const __m512i index = _mm512_ternarylogic_epi32(moved, nibble, upper, 0xea); /* moved & nibble | upper */
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(index, s->table));
}

/* sums[r][j] = `depth` of k of rows rows of W, `cols` elements apart, times m rows of x. rows and m are constants. */
ALWAYS_INLINE void few_tile(const int rows, const int m, const decoder *d, int64_t at, int64_t cols, int64_t depth,
                            const uint16_t *x, float sums[][FEW_TILE])
{
    const int chains = rows * m <= 2 ? 4 : rows * m <= 8 ? 2 : 1; /* or a vdpbf16ps waits for the one before it */
    float decoded[2][FEW_DEPTH / 64 + 1]; /* a stretch may begin and end inside a block */
    const float *scales[2];
    int64_t blocks[2];
    for (int r = 0; r < rows; r++) {
        const int64_t i = at + r * cols, last = (i + depth - 1) >> d->shift;
        blocks[r] = i >> d->shift;
        scales[r] = few_scales(d, blocks[r], last - blocks[r] + 1, decoded[r]);
    }
    vf sum[2][FEW_TILE][4];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++)
            for (int c = 0; c < chains; c++) sum[r][j][c] = vf_zero();
    for (int64_t k = 0; k < depth; k += FEW_STEP, x += m * FEW_STEP) {
        few_step step[2];
        for (int r = 0; r < rows; r++) {
            step[r] = few_load(d, at + r * cols + k, scales[r], blocks[r]);
            prefetch_line(d, at + (rows + r) * cols + k);
        }
        for (int v = 0; v < 4; v++) {
            vf w[2];
            for (int r = 0; r < rows; r++) w[r] = few_decode(&step[r], 4 * v);
            for (int j = 0; j < m; j++) {
                const vf xv = _mm512_castsi512_ps(_mm512_loadu_si512(x + j * FEW_STEP + 32 * v));
                for (int r = 0; r < rows; r++) {
                    vf *to = &sum[r][j][v % chains];
                    *to = _mm512_dpbf16_ps(*to, (__m512bh)w[r], (__m512bh)xv);
                }
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) {
            vf all = sum[r][j][0];
            for (int c = 1; c < chains; c++) all = vf_add(all, sum[r][j][c]);
            sums[r][j] = vf_sum(all);
        }
}

/* A function for each M: inlined side by side they would spill each other's sums. */
typedef void few_function(const decoder *, int64_t at, int64_t cols, int64_t depth, const uint16_t *x, float sums[][FEW_TILE]);
#define FEW_FUNCTION(rows, m)                                                                                        \
    static __attribute__((noinline)) void few_##rows##_##m(const decoder *d, int64_t at, int64_t cols, int64_t depth, \
                                                           const uint16_t *x, float sums[][FEW_TILE])                \
    {                                                                                                                \
        few_tile(rows, m, d, at, cols, depth, x, sums);                                                              \
    }
FEW_FUNCTION(1, 1) FEW_FUNCTION(1, 2) FEW_FUNCTION(1, 3) FEW_FUNCTION(1, 4)
FEW_FUNCTION(1, 5) FEW_FUNCTION(1, 6) FEW_FUNCTION(1, 7) FEW_FUNCTION(1, 8)
FEW_FUNCTION(2, 3) FEW_FUNCTION(2, 4)
FEW_FUNCTION(2, 5) FEW_FUNCTION(2, 6) FEW_FUNCTION(2, 7) FEW_FUNCTION(2, 8)
static few_function *const few_alone[FEW_TILE] = {few_1_1, few_1_2, few_1_3, few_1_4, few_1_5, few_1_6, few_1_7, few_1_8};
static const struct {
    int rows;
    few_function *run;
} few_together[FEW_TILE] = {{1, few_1_1}, {1, few_1_2}, {2, few_2_3}, {2, few_2_4}, {2, few_2_5}, {2, few_2_6}, {2, few_2_7}, {2, few_2_8}};

/* c[i][j] = rows row ... row+count-1 of W times rows first ... first+m-1 of x. */
static void few_rows(const decoder *d, int64_t row, int64_t count, int64_t cols, const uint16_t *x, int m, float c[][FEW_TILE])
{
    const int64_t stretch = FEW_DEPTH / m / FEW_STEP * FEW_STEP;
    for (int64_t k = 0; k < cols; k += stretch) {
        const int64_t depth = cpu_min(stretch, cols - k);
        for (int64_t i = 0; i < count;) {
            const int rows = count - i >= few_together[m - 1].rows ? few_together[m - 1].rows : 1;
            float sums[2][FEW_TILE];
            (rows == 1 ? few_alone[m - 1] : few_together[m - 1].run)(d, (row + i) * cols + k, cols, depth, x + k * m, sums);
            for (int r = 0; r < rows; r++, i++)
                for (int j = 0; j < m; j++) c[i][j] = k ? c[i][j] + sums[r][j] : sums[r][j];
        }
    }
}

static void gemm_few(fb_context *ctx, const fb_matrix *w, const decoder *d, int64_t m, const uint16_t *x, const void *bias, void *y,
                     fb_dtype y_dtype)
{
    enum { MOST = 32 };
    const int64_t rows = w->rows, cols = w->cols, steps = cols / FEW_STEP;
    const int64_t chunk = cols < FEW_WEIGHTS / MOST ? MOST : cols < FEW_WEIGHTS / 4 ? FEW_WEIGHTS / cols : 4, chunks = fb_ceil_div(rows, chunk);
    uint16_t *tiles = ctx->workspace; /* a tile of FEW_TILE rows after another: [steps][rows of the tile][FEW_STEP] */
#pragma omp parallel num_threads(cpu_threads(ctx, chunks))
    {
#pragma omp for schedule(static)
        for (int64_t s = 0; s < steps; s++)
            for (int64_t j = 0; j < m; j++) {
                const int64_t first = j / FEW_TILE * FEW_TILE, n = cpu_min(FEW_TILE, m - first);
                reorder_step(x + j * cols + s * FEW_STEP, tiles + first * cols + (s * n + j - first) * FEW_STEP);
            }
#pragma omp for schedule(dynamic)
        for (int64_t c = 0; c < chunks; c++)
            for (int64_t first = 0; first < m; first += FEW_TILE) {
                float sums[MOST][FEW_TILE];
                const int64_t row = c * chunk, count = cpu_min(chunk, rows - row), n = cpu_min(FEW_TILE, m - first);
                few_rows(d, row, count, cols, tiles + first * cols, (int)n, sums);
                for (int64_t i = 0; i < count; i++) {
                    const float b = bias ? fb_load(bias, FB_BF16, row + i) : 0.0f;
                    for (int64_t j = 0; j < n; j++)
                        fb_store(y, y_dtype, (first + j) * rows + row + i, bias ? sums[i][j] + b : sums[i][j]);
                }
            }
    }
}

#endif
