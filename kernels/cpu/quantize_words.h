/* quantize_words.h: bf16 to NF4, FP4 and INT4 in 16-bit words (cpu.h: how). Included after a words_*.h, which says what a step is:
 * four vectors, whose blocks may be one, two or four. */
#ifndef FOURBIT_CPU_QUANTIZE_WORDS_H
#define FOURBIT_CPU_QUANTIZE_WORDS_H

enum {
    WORDS_PIECE = 1024, /* at least: whole blocks whose magnitudes are found, then their codes */
    WORDS_AHEAD = 4096  /* beyond the next piece, which has been read, and one more: asked for while codes are found, or memory waits */
};

/* Codes of a step to out; the vectors' tables are t[0 ... 3]. `ahead` may lie beyond all memory. */
ALWAYS_INLINE void words_step(const fb_format format, const words_tables *const t[4], const uint16_t *src, const uint16_t *ahead, uint8_t *out,
                              bool stream)
{
    words_vector c[4];
    for (int v = 0; v < 4; v++) {
        if (v * WORDS_VECTOR % 32 == 0) __builtin_prefetch(ahead + v * WORDS_VECTOR);
        c[v] = words_codes(format, t[v], src + v * WORDS_VECTOR);
    }
    words_store(out, words_pack(format, c), stream);
}

/* `count` blocks of `size`, whole steps: their codes to out. */
ALWAYS_INLINE void words_encode(const fb_format format, const cpu_words *w, const uint16_t *src, const int64_t size, int64_t count,
                                const words_blocks *blocks, uint8_t *out, bool stream)
{
    const uint16_t *ahead = src + 2 * count * size + WORDS_AHEAD;
    if (size >= WORDS_STEP) {
        for (int64_t b = 0; b < count; b++) {
            const words_tables t = words_of_block(w, blocks, b);
            const words_tables *const same[4] = {&t, &t, &t, &t};
            for (int64_t i = b * size; i < (b + 1) * size; i += WORDS_STEP) words_step(format, same, src + i, ahead + i, out + i / 2, stream);
        }
        return;
    }
    const int64_t blocks_a_step = WORDS_STEP / size;
    for (int64_t b = 0; b < count; b += blocks_a_step) {
        words_tables t[4];
        const words_tables *of[4];
        for (int64_t k = 0; k < blocks_a_step; k++) t[k] = words_of_block(w, blocks, b + k);
        for (int v = 0; v < 4; v++) of[v] = &t[v * blocks_a_step / 4];
        words_step(format, of, src + b * size, ahead + b * size, out + b * size / 2, stream);
    }
}

/* `pieces` pieces of `count` blocks each; returns how many were done before one with a block out of the tables' range. The next
 * piece's magnitudes are found before this one's codes, which need not wait for its own then. */
ALWAYS_INLINE int64_t words_pieces(const fb_format format, const cpu_words *w, const uint16_t *src, int64_t pieces, const int64_t size,
                                   int64_t count, float *scales, uint8_t *out, bool stream)
{
    words_blocks blocks[2] = {{{0}, {0}}, {{0}, {0}}};
    words_absmax(src, count, size, blocks[0].absmax);
    if (!words_scales(format, &blocks[0], count, scales)) return 0;
    for (int64_t p = 0; p < pieces; p++, src += count * size, out += count * size / 2) {
        bool usual = true;
        scales += count;
        if (p + 1 < pieces) {
            words_absmax(src + count * size, count, size, blocks[(p + 1) % 2].absmax);
            usual = words_scales(format, &blocks[(p + 1) % 2], count, scales);
        }
        words_encode(format, w, src, size, count, &blocks[p % 2], out, stream);
        if (!usual) return p + 1;
    }
    return pieces;
}

typedef int64_t words_function(const cpu_words *, const uint16_t *src, int64_t pieces, int64_t size, int64_t count, float *scales,
                               uint8_t *out, bool stream);
#define WORDS_FUNCTION(name, format)                                                                                           \
    static __attribute__((noinline)) int64_t name(const cpu_words *w, const uint16_t *src, int64_t pieces, int64_t size,       \
                                                  int64_t count, float *scales, uint8_t *out, bool stream)                     \
    {                                                                                                                          \
        return size == 32   ? words_pieces(format, w, src, pieces, 32, WORDS_PIECE / 32, scales, out, stream)                             \
               : size == 64 ? words_pieces(format, w, src, pieces, 64, WORDS_PIECE / 64, scales, out, stream)                             \
                            : words_pieces(format, w, src, pieces, size, count, scales, out, stream);                          \
    }
WORDS_FUNCTION(words_nf4, FB_NF4)
WORDS_FUNCTION(words_fp4, FB_FP4)
WORDS_FUNCTION(words_int4, FB_INT4)

static words_function *words_choose(fb_format format, fb_dtype t)
{
    if (t != FB_BF16) return NULL;
    return format == FB_NF4 ? words_nf4 : format == FB_FP4 ? words_fp4 : format == FB_INT4 ? words_int4 : NULL;
}

#endif
