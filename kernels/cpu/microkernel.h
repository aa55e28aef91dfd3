/* microkernel.h: c[r][j] (+)= sum over k of a[r][k] * b[k][j], on a tile of registers.
 *
 * a is read one float at a time (broadcast), b a vector at a time; sums of one call are
 * begun at zero and added to c once (or are c, for the first stretch of k), which also keeps
 * rounding errors from growing with the whole depth. A full tile is TILE_ROWS x 2 vectors: AVX2 6 x 16 = 12 of 16 registers,
 * AVX-512 12 x 32 = 24 of 32. Each step of k: 2 + TILE_ROWS loads for 2 TILE_ROWS fmas; two
 * fmas and two loads a cycle make it bound by the fmas. */
#ifndef FOURBIT_CPU_MICROKERNEL_H
#define FOURBIT_CPU_MICROKERNEL_H

#include "cpu.h"

#ifndef MULTIPLY_ADD
#define MULTIPLY_ADD vf_fma /* (a, b, sum); vec_avx512bf16.h: of pairs of bf16 */
#endif

enum { TILE_ROWS = VF == 16 ? 12 : 6, TILE_COLS = 2 * VF };

/* rows and vectors are constants at every call: the accumulators stay in registers. */
ALWAYS_INLINE void tile(const int rows, const int vectors, const float *a, int64_t lda, const float *b, int64_t ldb,
                        int64_t depth, bool first, float *c, int64_t ldc)
{
    vf sum[2 * TILE_ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = vf_zero();
    for (int64_t k = 0; k < depth; k++) {
        vf bk[2];
        for (int v = 0; v < vectors; v++) bk[v] = vf_load(b + k * ldb + v * VF);
        for (int r = 0; r < rows; r++) {
            const vf ak = vf_set1(a[r * lda + k]);
            for (int v = 0; v < vectors; v++) sum[r][v] = MULTIPLY_ADD(ak, bk[v], sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            float *at = c + r * ldc + v * VF;
            vf_store(at, first ? sum[r][v] : vf_add(vf_load(at), sum[r][v]));
        }
}

/* Any number of rows, one or two vectors of columns. */
static inline void product(int64_t rows, int vectors, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t depth,
                    bool first, float *c, int64_t ldc)
{
    int64_t r = 0;
    if (vectors == 1) /* as many accumulators, or the fmas wait for each other */
        for (; rows - r >= 2 * TILE_ROWS; r += 2 * TILE_ROWS)
            tile(2 * TILE_ROWS, 1, a + r * lda, lda, b, ldb, depth, first, c + r * ldc, ldc);
#define STEP(count)                                                                                             \
    for (; rows - r >= count; r += count) {                                                                     \
        if (vectors == 2) tile(count, 2, a + r * lda, lda, b, ldb, depth, first, c + r * ldc, ldc);                    \
        else tile(count, 1, a + r * lda, lda, b, ldb, depth, first, c + r * ldc, ldc);                                 \
    }
    STEP(TILE_ROWS)
    STEP(4)
    STEP(2)
    STEP(1)
#undef STEP
}

/* Whether rows of `stride` floats fall into different sets of the first-level cache. */
static inline bool spread(int64_t stride) { return stride % 512 != 0; }

/* n elements of type t from index i on, as fp32. */
static inline void to_float(const void *src, fb_dtype t, int64_t i, int64_t n, float *out)
{
    int64_t j = 0;
    for (; n - j >= VF; j += VF) vf_store(out + j, vf_load_as(src, t, i + j));
    for (; j < n; j++) out[j] = fb_load(src, t, i + j);
}
/* and back */
static inline void from_float(const float *x, int64_t n, void *dst, fb_dtype t, int64_t i)
{
    int64_t j = 0;
    for (; n - j >= VF; j += VF) vf_store_as(dst, t, i + j, vf_load(x + j));
    for (; j < n; j++) fb_store(dst, t, i + j, x[j]);
}

#endif
