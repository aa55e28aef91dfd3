/* words_avx512.h: the vocabulary of quantize_words.h in AVX-512 (F, BW).
 *
 * A step is 128 weights, four vectors. A vector: load, vpmaxsw, vpmaxuw, vpsubw, vpsrlw, vpermi2w, vpaddw, vpsrlw; six
 * instructions pack the four vectors' codes. Before, for the blocks' largest magnitudes: load, vpandn, vpminuw, and for each block
 * of 64 two shuffles and a minimum. In cycles of a Zen 5 in its first-level cache, which does two shifts, shuffles and the like a
 * cycle and four of the others: 9.7 a step for codes, 3.6 for magnitudes, 20 both with the tables (block 32: 26; 128 and more: 17).
 */
#ifndef FOURBIT_CPU_WORDS_H
#define FOURBIT_CPU_WORDS_H

#include "cpu.h"

enum { WORDS_VECTOR = 32, WORDS_STEP = 4 * WORDS_VECTOR };
typedef __m512i words_vector;

typedef struct words_tables {
    __m512i low, high, least, negative; /* the last two: what max bounds x by */
} words_tables;

/* Of the blocks of a piece. */
typedef struct words_blocks {
    _Alignas(64) uint16_t absmax[32], base[32];
} words_blocks;

ALWAYS_INLINE words_tables words_of_block(const cpu_words *w, const words_blocks *blocks, int64_t b)
{
    const unsigned absmax = blocks->absmax[b];
    const uint16_t *step = w->step[absmax ? absmax & 127 : CPU_WORD_ZERO];
    const __m512i base = _mm512_set1_epi16((short)blocks->base[b]);
    return (words_tables){_mm512_load_si512(step), _mm512_load_si512(step + 32), base,
                          _mm512_or_si512(base, _mm512_set1_epi16((short)0x8000))};
}

/* 32 codes, in words. */
ALWAYS_INLINE __m512i words_codes(const fb_format format, const words_tables *t, const uint16_t *src)
{
    const unsigned shift = (unsigned)cpu_word_shift(format);
    const __m512i x = _mm512_loadu_si512(src);
    /* signed and unsigned: one of the two is a bound, the other max(|x|, base) with x's sign bit */
    const __m512i e = format == FB_FP4 ? _mm512_sub_epi16(_mm512_max_epu16(_mm512_and_si512(x, _mm512_set1_epi16(0x7fff)), t->least), t->least)
                                       : _mm512_sub_epi16(_mm512_max_epi16(x, t->least), _mm512_max_epu16(x, t->negative));
    __m512i code = _mm512_add_epi16(e, _mm512_permutex2var_epi16(t->low, _mm512_srli_epi16(e, shift), t->high));
    if (format == FB_FP4) { /* not -0 */
        const __mmask32 negative = _mm512_cmpgt_epu16_mask(x, _mm512_set1_epi16((short)0x8000));
        code = _mm512_mask_add_epi16(code, negative, code, _mm512_set1_epi16(8 << 5));
    }
    return _mm512_srli_epi16(code, shift);
}

/* 128 codes to 64 bytes. The packs work within lanes: dword j of lane i is of vector j, and goes to dword i of lane j. */
ALWAYS_INLINE __m512i words_pack(const fb_format format, const __m512i c[4])
{
    const __m512i pair = _mm512_set1_epi16(0x0110); /* even * 16 + odd */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i a = _mm512_maddubs_epi16(_mm512_packus_epi16(c[0], c[1]), pair);
    const __m512i b = _mm512_maddubs_epi16(_mm512_packus_epi16(c[2], c[3]), pair);
    __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(a, b));
    if (format == FB_FP4) { /* ranks 0 ... 7 to codes 0, 1, 6, 7, 4, 5, 2, 3 */
        const __m512i two = _mm512_and_si512(bytes, _mm512_set1_epi8(0x22));
        bytes = _mm512_xor_si512(bytes, _mm512_add_epi8(two, two));
    }
    return bytes;
}

/* 0x7fff - |x|, the smallest of each of 32 places: x from src on. */
ALWAYS_INLINE __m512i words_least(const uint16_t *src, const int64_t size)
{
    const __m512i mask = _mm512_set1_epi16(0x7fff);
    __m512i least = _mm512_andnot_si512(_mm512_loadu_si512(src), mask);
    for (int64_t i = 32; i < size; i += 32) least = _mm512_min_epu16(least, _mm512_andnot_si512(_mm512_loadu_si512(src + i), mask));
    return least;
}

/* absmax[0 ... 15] of 16 blocks: each step halves the places and puts two vectors into one. Neighbours first: memory is then read
 * in order. */
ALWAYS_INLINE void words_absmax16(const uint16_t *src, const int64_t size, uint16_t absmax[16])
{
    __m512i two[8], four[4], eight[2];
#pragma GCC unroll 1 /* sixteen loads, each 2 KB from its last, are no stream to the prefetchers: half the speed */
    for (int b = 0; b < 8; b++) {
        const __m512i v = words_least(src + 2 * b * size, size), u = words_least(src + (2 * b + 1) * size, size);
        two[b] = _mm512_min_epu16(_mm512_shuffle_i64x2(v, u, 0x44), _mm512_shuffle_i64x2(v, u, 0xee));
    }
    for (int b = 0; b < 4; b++) {
        const __m512i v = two[2 * b], u = two[2 * b + 1];
        four[b] = _mm512_min_epu16(_mm512_shuffle_i64x2(v, u, 0x88), _mm512_shuffle_i64x2(v, u, 0xdd));
    }
    for (int b = 0; b < 2; b++) {
        const __m512i v = four[2 * b], u = four[2 * b + 1];
        eight[b] = _mm512_min_epu16(_mm512_unpacklo_epi64(v, u), _mm512_unpackhi_epi64(v, u));
    }
    const __m512 v = _mm512_castsi512_ps(eight[0]), u = _mm512_castsi512_ps(eight[1]);
    __m512i all = _mm512_min_epu16(_mm512_castps_si512(_mm512_shuffle_ps(v, u, 0x88)), _mm512_castps_si512(_mm512_shuffle_ps(v, u, 0xdd)));
    all = _mm512_min_epu16(all, _mm512_srli_epi32(all, 16));
    all = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), all);
    _mm256_storeu_si256((__m256i *)absmax, _mm512_cvtepi32_epi16(_mm512_sub_epi16(_mm512_set1_epi16(0x7fff), all)));
}

/* absmax[b] of count blocks. */
ALWAYS_INLINE void words_absmax(const uint16_t *src, int64_t count, const int64_t size, uint16_t *absmax)
{
    for (; size < WORDS_STEP && count >= 16; count -= 16, src += 16 * size, absmax += 16) words_absmax16(src, size, absmax);
    for (int64_t b = 0; b < count; b++) {
        const __m512i least = words_least(src + b * size, size);
        const __m256i half = _mm256_min_epu16(_mm512_castsi512_si256(least), _mm512_extracti64x4_epi64(least, 1));
        const __m128i quarter = _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        absmax[b] = (uint16_t)(0x7fff - _mm_cvtsi128_si32(_mm_minpos_epu16(quarter))); /* the place is in the upper word */
    }
}

ALWAYS_INLINE void words_store(uint8_t *out, __m512i bytes, bool stream)
{
    if (stream) _mm512_stream_si512((__m512i *)out, bytes);
    else _mm512_storeu_si512(out, bytes);
}

/* What is done once a block, for count <= 32 of them; false where one is out of the tables' range. */
ALWAYS_INLINE bool words_scales(const fb_format format, words_blocks *blocks, int64_t count, float *scales)
{
    const __m512i a = _mm512_load_si512(blocks->absmax);
    const __mmask32 there = (__mmask32)((1ull << count) - 1);
    const __mmask32 nonzero = _mm512_mask_test_epi16_mask(there, a, a);
    if (_mm512_mask_cmpgt_epu16_mask(nonzero, _mm512_sub_epi16(a, _mm512_set1_epi16(CPU_WORD_LEAST)),
                                     _mm512_set1_epi16(CPU_WORD_MOST - CPU_WORD_LEAST)))
        return false;
    _mm512_store_si512(blocks->base, _mm512_subs_epu16(a, _mm512_set1_epi16((short)cpu_word_range(format))));
    for (int h = 0; h < 2; h++) {
        vf scale = vf_load_as(blocks->absmax, FB_BF16, 16 * h);
        if (format == FB_INT4) scale = vf_div(scale, vf_set1(7.0f));
        _mm512_mask_storeu_ps(scales + 16 * h, (__mmask16)(there >> 16 * h), scale);
    }
    return true;
}

#endif
