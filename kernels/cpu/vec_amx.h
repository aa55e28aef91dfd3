/* vec_amx.h: vec_avx512.h's vocabulary, and pairs_product on tiles (AMX-BF16).
 *
 * Two by two tiles of sums, 32 rows x 32 columns; each step of 16 pairs: four loads for four tile_dot. Rows of a are
 * there in sixteens (pairs.h pads), sums leave by way of a buffer, so that no tail needs another shape of tile.
 *
 * NEVER RUN ON AMX HARDWARE: written without it. Every line runs in validate/tiles, on a plain C model of the tiles. */
#ifndef FOURBIT_VEC_AMX_H
#define FOURBIT_VEC_AMX_H

#include "vec_avx512.h"

#undef ISA
#define ISA(name) name##_amx

#include "microkernel.h"

#ifdef FOURBIT_TILES_MODEL
#include "validate/tiles/model.h"
#else
#include "tiles_amx.h"
#endif

enum { TILE = 16 }; /* rows, pairs or columns of a tile */

/* Tiles of operands; 0 ... 3 are sums. No enum: gcc's intrinsics spell the number into the instruction. */
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* 32 x 32 sums. tall and wide: both rows, both columns of tiles; else the first. */
ALWAYS_INLINE void tile_block(const bool tall, const bool wide, const float *a, int64_t lda, const float *b, int64_t ldb,
                              int64_t depth, float sums[2 * TILE][2 * TILE])
{
    const int64_t row = (int64_t)sizeof(float), line = sizeof sums[0];
    tiles_see_memory();
    tile_zero(0);
    if (wide) tile_zero(1);
    if (tall) tile_zero(2);
    if (tall && wide) tile_zero(3);
    for (int64_t k = 0; k < depth; k += TILE) {
        tile_load(A0, a + k, lda * row);
        tile_load(B0, b + k * ldb, ldb * row);
        if (tall) tile_load(A1, a + TILE * lda + k, lda * row);
        if (wide) tile_load(B1, b + k * ldb + TILE, ldb * row);
        tile_dot(0, A0, B0);
        if (wide) tile_dot(1, A0, B1);
        if (tall) tile_dot(2, A1, B0);
        if (tall && wide) tile_dot(3, A1, B1);
    }
    tile_store(0, sums[0], line);
    if (wide) tile_store(1, sums[0] + TILE, line);
    if (tall) tile_store(2, sums[TILE], line);
    if (tall && wide) tile_store(3, sums[TILE] + TILE, line);
    tiles_see_memory();
}

/* c[r][j] (+)= sum over pairs k of a[r][k] . b[k][j]; depth a multiple of 16, vectors 1 or 2. */
static inline void pairs_product(int64_t rows, int vectors, const float *a, int64_t lda, const float *b, int64_t ldb,
                                 int64_t depth, bool first, float *c, int64_t ldc)
{
    float sums[2 * TILE][2 * TILE];
    for (int64_t r = 0; r < rows; r += 2 * TILE) {
        const bool tall = rows - r > TILE;
        const float *at = a + r * lda;
        if (tall && vectors == 2) tile_block(true, true, at, lda, b, ldb, depth, sums);
        else if (tall) tile_block(true, false, at, lda, b, ldb, depth, sums);
        else if (vectors == 2) tile_block(false, true, at, lda, b, ldb, depth, sums);
        else tile_block(false, false, at, lda, b, ldb, depth, sums);
        for (int64_t i = 0; i < cpu_min(2 * TILE, rows - r); i++)
            for (int v = 0; v < vectors; v++) {
                float *to = c + (r + i) * ldc + v * VF;
                const vf sum = vf_load(sums[i] + v * VF);
                vf_store(to, first ? sum : vf_add(vf_load(to), sum));
            }
    }
}

#endif
