/* gemm_pairs_few.h: gemm on vdpbf16ps for few rows of x, W and x both read along k. Included by gemm_pairs.h.
 *
 * Nothing is transposed: a row of W and a row of x meet lane by lane, and a sum's 16 lanes are added up at the end.
 * 64 bytes of codes are 128 weights, a step: shifted by 0, 4, 8 and 12 bits, each of their 32 words has in its low bits
 * another of its 4 codes, which is looked up in a table of 16 values a block, scaled and rounded:
 *
 *     word i, bits 0-3: element 4 i + 1    4-7: 4 i    8-11: 4 i + 3    12-15: 4 i + 2
 *
 *     blocks of 128 and more   one in a step: its table twice in a register, vpermw ignores what is above a code
 *     64                       two: vpermw's fifth bit of index says which, by lane
 *     32                       four: vpermt2w, two registers, two bits
 *
 * x is laid out in that order once: for 128 of k, quarter after quarter, a vector for each row of a tile. (Row after row, four
 * vectors each, what is read together lies 256 bytes apart, in one bank of the first-level cache: four rows of W times six of
 * x from that cache took 70 cycles a step where they take 52, and vdpbf16ps alone 48.)
 *
 *   M = 1           a row of W at a time, which is one stream: memory counts
 *   to FEW_DIRECT   two or four rows of W, decoded in registers, share the loads of x
 *   above           four rows of W, FEW_DEPTH of k, are decoded once into 16 KB and serve every tile of x
 *
 * Decoding a step takes 15 instructions and 4 for the tables; multiplying it by a row of x 4. What vdpbf16ps leaves of a Zen 5
 * is enough to decode beside it: with the tables at hand four rows of W times four of x ran in its 32 cycles, but in 50
 * where each step made its tables, as what waits for a table fills the scheduler. So tables are made FEW_BATCH steps before.
 *
 * What is read next is asked for in the order of its addresses, in parts as it is worked on. (The same rows' next bytes, or
 * the next rows' same bytes, as many streams as rows, were 10 to 30 % slower; asked for while decoding, memory idles while
 * multiplying: M = 16 from 57 to 50 cycles a step.) */
#ifndef FOURBIT_CPU_GEMM_PAIRS_FEW_H
#define FOURBIT_CPU_GEMM_PAIRS_FEW_H

#include "pairs_tables.h"

enum {
    FEW_TILE = 6,               /* most rows of x at a time */
    FEW_ROWS = 4,               /* of W at a time */
    FEW_DIRECT = 10,            /* most rows of x whose weights are decoded in registers, for */
    FEW_DIRECT_TILE = 5,        /* so many at a time */
    FEW_STRETCH = 16384,        /* most of k between additions of lanes then */
    FEW_DEPTH = 2048,           /* of k decoded at a time, from FEW_DIRECT on */
    FEW_BATCH = 16,             /* steps whose tables are made at a time */
    FEW_CHUNK = 64,             /* most rows of W a thread takes at a time: what is asked for beyond them is read twice */
    FEW_CHUNK_DECODED = 32,     /* where sums of all of them are kept */
    FEW_FAR = 8192              /* bytes: M = 1 asks for codes so far ahead */
};

/* ---- x ---------------------------------------------------------------------------------- */

/* Quarters of x[0 ... 127], in the order of the codes, to out, `apart` from each other. */
static inline void reorder_step(const uint16_t *x, uint16_t *out, int64_t apart)
{
    static const uint16_t order[4] = {1, 0, 3, 2};
    __m512i v[4], fours = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
                                           60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0);
    for (int i = 0; i < 4; i++) v[i] = _mm512_loadu_si512(x + 32 * i);
    for (int i = 0; i < 4; i++) {
        const __m512i which = _mm512_add_epi16(fours, _mm512_set1_epi16((short)order[i]));
        const __m512i front = _mm512_permutex2var_epi16(v[0], which, v[1]), back = _mm512_permutex2var_epi16(v[2], which, v[3]);
        _mm512_storeu_si512(out + i * apart, _mm512_inserti64x4(front, _mm512_castsi512_si256(back), 1));
    }
}

/* Tile t of m rows: as many tiles as must be, as even as they can be. */
static inline int64_t tile_count(int64_t m) { return fb_ceil_div(m, m <= FEW_DIRECT ? FEW_DIRECT_TILE : FEW_TILE); }
static inline int64_t tile_begin(int64_t m, int64_t t) { return t * m / tile_count(m); }

/* ---- W ---------------------------------------------------------------------------------- */

typedef struct few_tables {
    __m512i of[2]; /* the second: four blocks in a step */
} few_tables;

/* blocks: in a step, as in all that follows; a constant. */
ALWAYS_INLINE few_tables few_tables_at(const int blocks, int shift, const few_source *s, vf values, int64_t k)
{
    if (blocks == 1) {
        const vf v = few_values(s, values, (s->inside + k) >> shift);
        return (few_tables){{few_table(v, v)}};
    }
    few_tables t = {0}; /* what is not filled is not read, and costs nothing: blocks is a constant */
    const int64_t b = k / FEW_STEP * blocks;
    for (int i = 0; i < blocks / 2; i++) t.of[i] = few_table(few_values(s, values, b + 2 * i), few_values(s, values, b + 2 * i + 1));
    return t;
}

/* What an index has above the code: which of the step's blocks a lane belongs to. */
ALWAYS_INLINE __m512i few_upper(const int blocks)
{
    const long long unit = 0x0010001000100010;
    return blocks == 4 ? _mm512_setr_epi64(0, 0, unit, unit, 2 * unit, 2 * unit, 3 * unit, 3 * unit)
                       : _mm512_setr_epi64(0, 0, 0, 0, unit, unit, unit, unit);
}

/* A quarter of a step, 0 ... 3. */
ALWAYS_INLINE vf few_decode(const int blocks, const few_tables *t, const uint8_t *codes, const int quarter)
{
    __m512i index = _mm512_loadu_si512(codes);
    if (quarter) index = _mm512_srli_epi16(index, 4 * (unsigned)quarter);
    if (blocks > 1) index = _mm512_ternarylogic_epi32(index, _mm512_set1_epi16(15), few_upper(blocks), 0xea); /* index & 15 | upper */
    return _mm512_castsi512_ps(blocks == 4 ? _mm512_permutex2var_epi16(t->of[0], index, t->of[1])
                                           : _mm512_permutexvar_epi16(index, t->of[0]));
}

ALWAYS_INLINE void few_ask_scales(const decoder *d, int64_t at, int64_t depth)
{
    const uint8_t *scales = d->scales.absmax ? (const uint8_t *)d->scales.absmax : d->scales.codes;
    const int64_t size = d->scales.absmax ? (int64_t)sizeof(float) : 1, first = (at >> d->shift) * size, last = ((at + depth - 1) >> d->shift) * size;
    for (int64_t i = first / 64 * 64; i <= last; i += 64) few_ask(scales, i);
}

/* Lanes of four vectors added up. */
static inline __m128 few_sum4(vf a, vf b, vf c, vf d)
{
    const vf ab = vf_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)), cd = vf_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vf all = vf_add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), upper_half(all));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* ---- decoded in registers --------------------------------------------------------------- */

/* One row of W times one of x. Eight sums, or a vdpbf16ps waits for the one before it. */
ALWAYS_INLINE float few_dot(const int blocks, const decoder *d, int64_t at, int64_t depth, const uint16_t *x)
{
    float decoded[FEW_STRETCH / 32 + 1];
    const few_source s = few_open(d, at, depth, decoded);
    const vf values = vf_load(d->values);
    vf sum[2][4];
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < 4; v++) sum[i][v] = vf_zero();
#define FEW_DOT(i, k)                                                                                                          \
    do {                                                                                                                       \
        const few_tables t = few_tables_at(blocks, d->shift, &s, values, k);                                                   \
        few_ask(s.codes, (k) / 2 + FEW_FAR);                                                                                   \
        for (int v = 0; v < 4; v++)                                                                                            \
            sum[i][v] = few_add(sum[i][v], few_decode(blocks, &t, s.codes + (k) / 2, v), few_load(x + (k) + v * FEW_QUARTER));          \
    } while (0)
    int64_t k = 0;
    for (; k + 2 * FEW_STEP <= depth; k += 2 * FEW_STEP) {
        FEW_DOT(0, k);
        FEW_DOT(1, k + FEW_STEP);
    }
    if (k < depth) FEW_DOT(0, k);
#undef FEW_DOT
    for (int v = 0; v < 4; v++) sum[0][v] = vf_add(sum[0][v], sum[1][v]);
    return vf_sum(vf_add(vf_add(sum[0][0], sum[0][1]), vf_add(sum[0][2], sum[0][3])));
}

/* sums[r][j] = `depth` of k of `count` rows of W, `cols` elements apart, times m rows of x. rows, the most there are, and m
 * are constants; missing rows are the last again. */
ALWAYS_INLINE void few_dots(const int blocks, const int rows, const int m, const decoder *d, int64_t at, int64_t count, int64_t cols,
                            int64_t depth, const uint16_t *x, float sums[][FEW_TILE])
{
    const int chains = rows * m < 12 ? 2 : 1, tables = blocks == 4 ? 2 : 1;
    float decoded[FEW_ROWS][FEW_STRETCH / 32 + 1];
    __m512i table[FEW_BATCH][FEW_ROWS * 2];
    few_source s[FEW_ROWS];
    for (int r = 0; r < rows; r++) s[r] = few_open(d, at + cpu_min(r, count - 1) * cols, depth, decoded[r]);
    const vf values = vf_load(d->values);
    vf sum[FEW_ROWS][FEW_DIRECT_TILE][2];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++)
            for (int c = 0; c < chains; c++) sum[r][j][c] = vf_zero();
    for (int64_t begin = 0; begin < depth; begin += FEW_BATCH * FEW_STEP) {
        const int64_t steps = cpu_min(FEW_BATCH, (depth - begin) / FEW_STEP);
        for (int64_t i = 0; i < steps; i++)
            for (int r = 0; r < rows; r++) {
                const few_tables t = few_tables_at(blocks, d->shift, &s[r], values, begin + i * FEW_STEP);
                for (int h = 0; h < tables; h++) table[i][r * tables + h] = t.of[h];
            }
        for (int64_t i = 0; i < steps; i++, x += m * FEW_STEP) {
            const int64_t byte = (begin + i * FEW_STEP) / 2;
            /* the next rows, in the order of their addresses */
            for (int r = 0; r < rows; r++) few_ask(s[0].codes, rows * cols / 2 + rows * byte + r * (FEW_STEP / 2));
            for (int v = 0; v < 4; v++) {
                vf w[FEW_ROWS];
                for (int r = 0; r < rows; r++) {
                    const few_tables t = {{table[i][r * tables], table[i][r * tables + tables - 1]}};
                    w[r] = few_decode(blocks, &t, s[r].codes + byte, v);
                }
                for (int j = 0; j < m; j++) {
                    const vf xv = few_load(x + (v * m + j) * FEW_QUARTER);
                    for (int r = 0; r < rows; r++) sum[r][j][v % chains] = few_add(sum[r][j][v % chains], w[r], xv);
                }
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < m; j++) sums[r][j] = vf_sum(chains == 2 ? vf_add(sum[r][j][0], sum[r][j][1]) : sum[r][j][0]);
}

/* A function for each M and number of blocks: inlined side by side they would spill each other's sums. */
typedef void few_function(const decoder *, int64_t at, int64_t count, int64_t cols, int64_t depth, const uint16_t *x, float sums[][FEW_TILE]);
#define FEW_FUNCTION(blocks, rows, m)                                                                                        \
    static __attribute__((noinline)) void few_##blocks##_##m(const decoder *d, int64_t at, int64_t count, int64_t cols,      \
                                                             int64_t depth, const uint16_t *x, float sums[][FEW_TILE])       \
    {                                                                                                                        \
        if (m == 1) sums[0][0] = few_dot(blocks, d, at, depth, x);                                                           \
        else few_dots(blocks, rows, m, d, at, count, cols, depth, x, sums);                                                  \
    }
#define FEW_FUNCTIONS(blocks) \
    FEW_FUNCTION(blocks, 1, 1) FEW_FUNCTION(blocks, 2, 2) FEW_FUNCTION(blocks, 4, 3) FEW_FUNCTION(blocks, 4, 4) FEW_FUNCTION(blocks, 4, 5)
FEW_FUNCTIONS(1)
FEW_FUNCTIONS(2)
FEW_FUNCTIONS(4)
static const int few_together[FEW_DIRECT_TILE] = {1, 2, 4, 4, 4}; /* rows of W at a time */
static few_function *const few_functions[3][FEW_DIRECT_TILE] = {{few_1_1, few_1_2, few_1_3, few_1_4, few_1_5},
                                                           {few_2_1, few_2_2, few_2_3, few_2_4, few_2_5},
                                                           {few_4_1, few_4_2, few_4_3, few_4_4, few_4_5}};

/* c[j][i] = row row+i of W, count of them, times row j of x, m of them. */
static void few_direct(const decoder *d, int64_t row, int64_t count, int64_t cols, const uint16_t *x, int64_t m, float c[][FEW_CHUNK])
{
    const int rows = few_together[cpu_min(m, FEW_DIRECT_TILE) - 1];
    for (int64_t k = 0; k < cols; k += FEW_STRETCH)
        for (int64_t i = 0; i < count; i += rows)
            for (int64_t t = 0; t < tile_count(m); t++) {
                const int64_t first = tile_begin(m, t), n = tile_begin(m, t + 1) - first;
                float sums[FEW_ROWS][FEW_TILE];
                few_functions[few_kind(d)][n - 1](d, (row + i) * cols + k, count - i, cols, cpu_min(FEW_STRETCH, cols - k),
                                                  x + first * cols + k * n, sums);
                for (int64_t r = 0; r < cpu_min(rows, count - i); r++)
                    for (int64_t j = 0; j < n; j++) c[first + j][i + r] = k ? c[first + j][i + r] + sums[r][j] : sums[r][j];
            }
}

/* ---- decoded first ---------------------------------------------------------------------- */

/* out [depth / 128][4][FEW_ROWS][32] = `depth` of k of `count` rows of W; missing rows are the last again.
 * `ahead`: elements from here to what is decoded next. */
ALWAYS_INLINE void few_unpack(const int blocks, const decoder *d, int64_t at, int64_t count, int64_t cols, int64_t depth, int64_t ahead,
                              uint16_t *out)
{
    const vf values = vf_load(d->values);
    for (int64_t r = 0; r < FEW_ROWS; r++) {
        float decoded[FEW_DEPTH / 32 + 1];
        const int64_t begin = at + cpu_min(r, count - 1) * cols;
        uint16_t *to = out + r * FEW_QUARTER;
        few_ask_scales(d, begin + ahead, depth);
        const few_source s = few_open(d, begin, depth, decoded);
        for (int64_t k = 0; k < depth; k += FEW_STEP) {
            const few_tables t = few_tables_at(blocks, d->shift, &s, values, k);
            for (int v = 0; v < 4; v++) vf_store((float *)(to + k * FEW_ROWS + v * FEW_ROWS * FEW_QUARTER), few_decode(blocks, &t, s.codes + k / 2, v));
        }
    }
}

/* sums [m][FEW_ROWS] (+)= W, decoded, times a tile of x. m is a constant. Meanwhile as many rows of codes, `apart` bytes from each
 * other, are asked for: while they are decoded memory would be waited for, and here left idle. */
ALWAYS_INLINE void few_multiply(const int m, const uint16_t *w, const uint16_t *x, int64_t depth, bool first, vf *sums, const uint8_t *next,
                                int64_t apart)
{
    vf sum[FEW_TILE][FEW_ROWS];
    for (int j = 0; j < m; j++)
        for (int r = 0; r < FEW_ROWS; r++) sum[j][r] = first ? vf_zero() : sums[j * FEW_ROWS + r];
    for (int64_t k = 0; k < depth; k += FEW_STEP, w += FEW_ROWS * FEW_STEP, x += m * FEW_STEP)
        for (int v = 0; v < 4; v++) {
            few_ask(next, v * apart + k / 2);
            vf wv[FEW_ROWS];
            for (int r = 0; r < FEW_ROWS; r++) wv[r] = few_load(w + (v * FEW_ROWS + r) * FEW_QUARTER);
            for (int j = 0; j < m; j++) {
                const vf xv = few_load(x + (v * m + j) * FEW_QUARTER);
                for (int r = 0; r < FEW_ROWS; r++) sum[j][r] = few_add(sum[j][r], wv[r], xv);
            }
        }
    for (int j = 0; j < m; j++)
        for (int r = 0; r < FEW_ROWS; r++) sums[j * FEW_ROWS + r] = sum[j][r];
}
typedef void few_multiplier(const uint16_t *w, const uint16_t *x, int64_t depth, bool first, vf *sums, const uint8_t *next, int64_t apart);
#define FEW_MULTIPLIER(m)                                                                                                           \
    static __attribute__((noinline)) void few_multiply_##m(const uint16_t *w, const uint16_t *x, int64_t depth, bool first, vf *sums, \
                                                           const uint8_t *next, int64_t apart) \
    {                                                                                                                               \
        few_multiply(m, w, x, depth, first, sums, next, apart);                                                                                \
    }
FEW_MULTIPLIER(3) FEW_MULTIPLIER(4) FEW_MULTIPLIER(5) FEW_MULTIPLIER(6)
static few_multiplier *const few_multipliers[FEW_TILE + 1] = {[3] = few_multiply_3, few_multiply_4, few_multiply_5, few_multiply_6};

/* As few_direct, from FEW_DIRECT rows of x on and at most FEW_CHUNK_DECODED of W. sums [those / FEW_ROWS][m][FEW_ROWS] */
static void few_decoded(const decoder *d, int64_t row, int64_t count, int64_t cols, const uint16_t *x, int64_t m, vf *sums,
                        float c[][FEW_CHUNK])
{
    _Alignas(64) uint16_t w[FEW_ROWS * FEW_DEPTH];
    for (int64_t k = 0; k < cols; k += FEW_DEPTH) {
        const int64_t depth = cpu_min(FEW_DEPTH, cols - k);
        for (int64_t i = 0; i < count; i += FEW_ROWS) {
            const int64_t at = (row + i) * cols + k, n = count - i, after = k + depth < cols ? FEW_DEPTH - i * cols : 0;
            const int64_t ahead = n > FEW_ROWS ? FEW_ROWS * cols : after;
            if (few_kind(d) == 0) few_unpack(1, d, at, n, cols, depth, ahead, w);
            else if (few_kind(d) == 1) few_unpack(2, d, at, n, cols, depth, ahead, w);
            else few_unpack(4, d, at, n, cols, depth, ahead, w);
            for (int64_t t = 0; t < tile_count(m); t++) {
                const int64_t first = tile_begin(m, t), tile = tile_begin(m, t + 1) - first;
                few_multipliers[tile](w, x + first * cols + k * tile, depth, k == 0, sums + i * m + first * FEW_ROWS,
                                      d->codes + (t ? at : at + ahead) / 2, t ? 0 : cols / 2);
            }
        }
    }
    for (int64_t i = 0; i < count; i += FEW_ROWS)
        for (int64_t j = 0; j < m; j++) {
            const vf *s = sums + i * m + j * FEW_ROWS;
            _mm_storeu_ps(c[j] + i, few_sum4(s[0], s[1], s[2], s[3]));
        }
}

typedef struct few_space {
    int64_t chunk, chunks;   /* rows of W a thread takes at a time */
    int64_t shared, private; /* bytes: x; a thread's sums */
    int threads;
} few_space;

static few_space few_space_for(const fb_context *ctx, const fb_matrix *w, int64_t m)
{
    const int64_t most = m <= FEW_DIRECT ? FEW_CHUNK : FEW_CHUNK_DECODED;
    const int64_t share = cpu_round_up(fb_ceil_div(w->rows, 8 * cpu_max_threads(ctx)), FEW_ROWS);
    const int64_t chunk = cpu_min(most, share ? share : FEW_ROWS), chunks = fb_ceil_div(w->rows, chunk);
    return (few_space){.chunk = chunk,
                       .chunks = chunks,
                       .shared = m * w->cols * (int64_t)sizeof(uint16_t),
                       .private = m <= FEW_DIRECT ? 0 : FEW_CHUNK_DECODED * m * (int64_t)sizeof(vf),
                       .threads = cpu_threads(ctx, chunks)};
}
static size_t few_workspace(const few_space *s) { return (size_t)(s->shared + s->threads * s->private); }

static void gemm_few(fb_context *ctx, const fb_matrix *w, const decoder *d, int64_t m, const uint16_t *x, const void *bias, void *y,
                     fb_dtype y_dtype)
{
    const few_space s = few_space_for(ctx, w, m);
    const int64_t rows = w->rows, cols = w->cols, steps = cols / FEW_STEP;
    uint16_t *tiles = ctx->workspace; /* a tile of x after another: [steps][4][rows of the tile][32] */
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < steps; i++)
            for (int64_t t = 0; t < tile_count(m); t++) {
                const int64_t first = tile_begin(m, t), n = tile_begin(m, t + 1) - first;
                for (int64_t j = 0; j < n; j++)
                    reorder_step(x + (first + j) * cols + i * FEW_STEP, tiles + first * cols + i * n * FEW_STEP + j * FEW_QUARTER,
                                 n * FEW_QUARTER);
            }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < s.chunks; i++) {
            float c[CPU_PAIRS_FEW][FEW_CHUNK], b[FEW_CHUNK];
            const int64_t row = i * s.chunk, count = cpu_min(s.chunk, rows - row);
            vf *sums = (vf *)((char *)ctx->workspace + s.shared + omp_get_thread_num() * s.private);
            if (m <= FEW_DIRECT) few_direct(d, row, count, cols, tiles, m, c);
            else few_decoded(d, row, count, cols, tiles, m, sums, c);
            if (bias) to_float(bias, FB_BF16, row, count, b);
            for (int64_t j = 0; j < m; j++) {
                for (int64_t r = 0; bias && r < count; r++) c[j][r] += b[r];
                from_float(c[j], count, y, y_dtype, j * rows + row);
            }
        }
    }
}

#endif
