/* words_avx2.h: the vocabulary of quantize_words.h in AVX2: 16 words, codes by halving.
 *
 * A comparison leaves 0 or -1 in a word: by two of its bits it becomes two bytes' indices, with which vpshufb looks a limit up.
 */
#ifndef FOURBIT_CPU_WORDS_H
#define FOURBIT_CPU_WORDS_H

#include "cpu.h"

enum { WORDS_VECTOR = 16, WORDS_STEP = 4 * WORDS_VECTOR };
typedef __m256i words_vector;

typedef struct words_tables {
    __m256i even, odd, top, second[2]; /* limits */
    __m256i least, negative;           /* what max bounds x by */
} words_tables;

/* Of the blocks of a piece. */
typedef struct words_blocks {
    _Alignas(32) uint16_t absmax[32], base[32];
} words_blocks;

ALWAYS_INLINE words_tables words_of_block(const cpu_words *w, const words_blocks *blocks, int64_t b)
{
    const unsigned absmax = blocks->absmax[b];
    const int16_t *limit = w->limit[absmax ? absmax & 127 : CPU_WORD_ZERO];
    const __m256i base = _mm256_set1_epi16((short)blocks->base[b]);
    return (words_tables){.even = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)limit)),
                          .odd = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)limit + 1)),
                          .top = _mm256_set1_epi16(limit[8 + 3]),
                          .second = {_mm256_set1_epi16(limit[8 + 1]), _mm256_set1_epi16(limit[8 + 5])},
                          .least = base,
                          .negative = _mm256_or_si256(base, _mm256_set1_epi16((short)0x8000))};
}

/* 16 codes, in words. */
ALWAYS_INLINE __m256i words_codes(const fb_format format, const words_tables *t, const uint16_t *src)
{
    const __m256i x = _mm256_loadu_si256((const __m256i *)src), sign = _mm256_set1_epi16((short)0x8000);
    /* signed and unsigned: one of the two is a bound, the other max(|x|, base) with x's sign bit */
    const __m256i e = format == FB_FP4 ? _mm256_sub_epi16(_mm256_max_epu16(_mm256_andnot_si256(sign, x), t->least), t->least)
                                       : _mm256_xor_si256(sign, _mm256_sub_epi16(_mm256_max_epi16(x, t->least), _mm256_max_epu16(x, t->negative)));
    __m256i above, index;
    if (format == FB_FP4) { /* 7 limits: the lower half of 15 */
        above = _mm256_cmpgt_epi16(e, t->second[0]);
        index = _mm256_add_epi16(_mm256_and_si256(above, _mm256_set1_epi16(0x0404)), _mm256_set1_epi16(0x0100));
    } else {
        const __m256i top = _mm256_cmpgt_epi16(e, t->top);
        above = _mm256_cmpgt_epi16(e, _mm256_blendv_epi8(t->second[0], t->second[1], top));
        index = _mm256_or_si256(_mm256_and_si256(above, _mm256_set1_epi16(0x0404)),
                                _mm256_sub_epi16(_mm256_set1_epi16(0x0100), _mm256_and_si256(top, _mm256_set1_epi16(-0x0808))));
    }
    above = _mm256_cmpgt_epi16(e, _mm256_shuffle_epi8(t->odd, index));
    index = _mm256_or_si256(index, _mm256_and_si256(above, _mm256_set1_epi16(0x0202)));
    above = _mm256_cmpgt_epi16(e, _mm256_shuffle_epi8(t->even, index));
    const __m256i code = _mm256_sub_epi16(_mm256_and_si256(index, _mm256_set1_epi16(0x000e)), above);
    if (format != FB_FP4) return code;
    const __m256i negative = _mm256_cmpgt_epi16(_mm256_xor_si256(x, sign), _mm256_setzero_si256()); /* not -0 */
    return _mm256_or_si256(code, _mm256_and_si256(negative, _mm256_set1_epi16(8)));
}

/* 64 codes to 32 bytes. The packs work within lanes: dword j of lane i is of vector j, and goes to dword i of pair j. */
ALWAYS_INLINE __m256i words_pack(const fb_format format, const __m256i c[4])
{
    const __m256i pair = _mm256_set1_epi16(0x0110); /* even * 16 + odd */
    const __m256i a = _mm256_maddubs_epi16(_mm256_packus_epi16(c[0], c[1]), pair);
    const __m256i b = _mm256_maddubs_epi16(_mm256_packus_epi16(c[2], c[3]), pair);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if (format == FB_FP4) { /* ranks 0 ... 7 to codes 0, 1, 6, 7, 4, 5, 2, 3 */
        const __m256i two = _mm256_and_si256(bytes, _mm256_set1_epi8(0x22));
        bytes = _mm256_xor_si256(bytes, _mm256_add_epi8(two, two));
    }
    return bytes;
}

/* absmax[b] of count blocks of size words. */
ALWAYS_INLINE void words_absmax(const uint16_t *src, int64_t count, const int64_t size, uint16_t *absmax)
{
    const __m256i mask = _mm256_set1_epi16(0x7fff);
    for (int64_t b = 0; b < count; b++, src += size) {
        __m256i least = mask; /* 0x7fff - |x|: vphminposuw finds the smallest */
        for (int64_t i = 0; i < size; i += 16)
            least = _mm256_min_epu16(least, _mm256_andnot_si256(_mm256_loadu_si256((const __m256i *)(src + i)), mask));
        const __m128i half = _mm_min_epu16(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
        absmax[b] = (uint16_t)(0x7fff - _mm_cvtsi128_si32(_mm_minpos_epu16(half))); /* the place is in the upper word */
    }
}

ALWAYS_INLINE void words_store(uint8_t *out, __m256i bytes, bool stream)
{
    if (stream) _mm256_stream_si256((__m256i *)out, bytes);
    else _mm256_storeu_si256((__m256i *)out, bytes);
}

/* What is done once a block, for count <= 32 of them; false where one is out of the tables' range. */
ALWAYS_INLINE bool words_scales(const fb_format format, words_blocks *blocks, int64_t count, float *scales)
{
    const int range = cpu_word_range(format);
    unsigned unusual = 0;
    for (int64_t b = 0; b < count; b++) {
        const unsigned a = blocks->absmax[b];
        unusual |= (a != 0) & (a - CPU_WORD_LEAST > CPU_WORD_MOST - CPU_WORD_LEAST);
        blocks->base[b] = (uint16_t)(a ? a - (unsigned)range : 0);
        const float absmax = fb_bf16_to_float((uint16_t)a);
        scales[b] = format == FB_INT4 ? absmax / 7.0f : absmax;
    }
    return !unusual;
}

#endif
