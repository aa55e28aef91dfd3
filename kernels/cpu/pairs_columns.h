/* pairs_columns.h: two rows of W decoded at once into pairs for vdpbf16ps. Included by pairs.h.
 *
 * gemm_dx's sum runs over W's rows, so a pair is a column of two of them. Their codes are interleaved, not their values: 64 bytes
 * of two rows, two vpunpck and two vshufi64x2, are two vectors, a half each, of which every shift by 0, 4, 8 and 12 bits has in
 * its even words codes of the first row and in its odd words the same columns' of the second. One table of two blocks, the
 * index's fifth bit the row, gives both; blocks of 32 want two tables and a sixth bit.
 *
 *     half h, shift 4 o, dword 4 p + j:   column 64 h + 32 (p % 2) + 16 (p / 2) + 4 j + (1, 0, 3, 2)[o]
 *
 * Columns stay in that order, in vector 4 h + o of a step, until dX is written: 48 instructions for 256 weights, 6 or 12 of them for
 * tables. */
#ifndef FOURBIT_CPU_PAIRS_COLUMNS_H
#define FOURBIT_CPU_PAIRS_COLUMNS_H

#include "pairs_tables.h"

enum {
    DX_WIDTH = 8192, /* most columns of a stretch */
    DX_HALF = 4      /* vectors in half a step */
};

/* Column of float i of 128. */
static inline int64_t dx_column(int64_t i)
{
    static const uint8_t order[4] = {1, 0, 3, 2};
    const int64_t h = i / 64, o = i / 16 % 4, p = i / 4 % 4, j = i % 4;
    return 64 * h + 32 * (p % 2) + 16 * (p / 2) + 4 * j + order[o];
}
/* line [count] to the columns' order; count a multiple of 128. */
static inline void dx_restore(float *line, int64_t count)
{
    for (int64_t i = 0; i < count; i += FEW_STEP) {
        float mixed[FEW_STEP];
        memcpy(mixed, line + i, sizeof mixed);
        for (int64_t j = 0; j < FEW_STEP; j++) line[i + dx_column(j)] = mixed[j];
    }
}

typedef struct dx_tables {
    __m512i of[2]; /* the second: four blocks in a step */
} dx_tables;

/* Of half a step of two rows at k. blocks, in a step, and half are constants here and below. */
ALWAYS_INLINE dx_tables dx_tables_at(const int blocks, const int half, int shift, const few_source row[2], vf values, int64_t k)
{
    dx_tables t = {0};
    for (int i = 0; i < (blocks == 4 ? 2 : 1); i++) {
        int64_t at[2];
        for (int r = 0; r < 2; r++) at[r] = blocks == 1 ? (row[r].inside + k) >> shift : k / FEW_STEP * blocks + half * (blocks / 2) + i;
        t.of[i] = few_table(few_values(&row[0], values, at[0]), few_values(&row[1], values, at[1]));
    }
    return t;
}

/* out [DX_HALF] = half of the 64 bytes at a and b, of two rows. */
ALWAYS_INLINE void dx_decode(const int blocks, const int half, const dx_tables *t, const uint8_t *a, const uint8_t *b, vf out[DX_HALF])
{
    const __m512i va = _mm512_loadu_si512(a), vb = _mm512_loadu_si512(b);
    const __m512i low = _mm512_unpacklo_epi16(va, vb), high = _mm512_unpackhi_epi16(va, vb);
    const __m512i codes = half ? _mm512_shuffle_i64x2(low, high, 0xee) : _mm512_shuffle_i64x2(low, high, 0x44);
    const __m512i second = _mm512_set1_epi32(0x100000), sixth = _mm512_maskz_set1_epi32(0xf0f0, 0x200020);
    const __m512i upper = blocks == 4 ? _mm512_or_si512(second, sixth) : second;
    for (int o = 0; o < DX_HALF; o++) {
        __m512i index = o ? _mm512_srli_epi16(codes, 4 * (unsigned)o) : codes;
        index = _mm512_ternarylogic_epi32(index, _mm512_set1_epi16(15), upper, 0xea); /* index & 15 | upper */
        out[o] = _mm512_castsi512_ps(blocks == 4 ? _mm512_permutex2var_epi16(t->of[0], index, t->of[1])
                                                 : _mm512_permutexvar_epi16(index, t->of[0]));
    }
}

/* `count` rows of W from element `at` on, `cols` apart, as sources. Of what is missing of `rows` dY is zero: any row will do. */
static inline void dx_open(const decoder *d, int64_t at, int64_t rows, int64_t count, int64_t cols, int64_t width,
                           float decoded[][DX_WIDTH / 32 + 1], few_source *s)
{
    for (int64_t r = 0; r < rows; r++) s[r] = r < count ? few_open(d, at + r * cols, width, decoded[r]) : s[0];
}

/* ---- a panel ---------------------------------------------------------------------------- */

/* As pack_columns (pairs.h), a step of 128 columns in their order here. */
ALWAYS_INLINE void dx_pack(const int blocks, const decoder *d, int64_t cols, int64_t l, int64_t depth, int64_t pairs, int64_t p, int64_t ahead,
                           float *out)
{
    const vf values = vf_load(d->values);
    for (int64_t k = 0; k < pairs; k++) {
        float decoded[2][DX_WIDTH / 32 + 1];
        few_source s[2];
        float *to = out + k * 2 * VF;
        const int64_t at = (l + 2 * k) * cols + p;
        if (2 * k >= depth) {
            for (int i = 0; i < 2 * DX_HALF; i++) vf_store(to + i / 2 * pairs * 2 * VF + i % 2 * VF, vf_zero());
            continue;
        }
        prefetch_line(d, at + ahead * cols);
        prefetch_line(d, at + (ahead + 1) * cols);
        dx_open(d, at, 2, depth - 2 * k, cols, FEW_STEP, decoded, s);
        vf v[2 * DX_HALF];
        const dx_tables t0 = dx_tables_at(blocks, 0, d->shift, s, values, 0), t1 = blocks == 1 ? t0 : dx_tables_at(blocks, 1, d->shift, s, values, 0);
        dx_decode(blocks, 0, &t0, s[0].codes, s[1].codes, v);
        dx_decode(blocks, 1, &t1, s[0].codes, s[1].codes, v + DX_HALF);
        for (int i = 0; i < 2 * DX_HALF; i++) vf_store(to + i / 2 * pairs * 2 * VF + i % 2 * VF, v[i]);
    }
}
static void pack_steps(const decoder *d, int64_t cols, int64_t l, int64_t depth, int64_t pairs, int64_t p, int64_t ahead, float *out)
{
    if (few_kind(d) == 0) dx_pack(1, d, cols, l, depth, pairs, p, ahead, out);
    else if (few_kind(d) == 1) dx_pack(2, d, cols, l, depth, pairs, p, ahead, out);
    else dx_pack(4, d, cols, l, depth, pairs, p, ahead, out);
}

#endif
