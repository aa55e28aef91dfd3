/* decode.h: fp32 weights of any span of a quantized matrix. Included after a vec_*.h.
 *
 * The matrix is a flat sequence of groups of 32 weights (16 bytes), each within one block.
 * Whole groups are decoded from memory; the parts of a group that begin and end a span,
 * and the matrix's last short group, by way of a buffer: nothing past the last byte is read. */
#ifndef FOURBIT_CPU_DECODE_H
#define FOURBIT_CPU_DECODE_H

#include "cpu.h"

#ifndef LUTS_OF_PAIRS
/* INT4 affine: a table a zero point (quantizers stop at 15, a file's bytes may not; looking would
 * put a call into every loop); else the first. */
typedef struct luts {
    lut of_zero[256];
} luts;

static inline void luts_make(luts *l, const float values[FB_CODES], bool affine)
{
    lut_make(&l->of_zero[0], values);
    for (int z = 1; affine && z < 256; z++) {
        float shifted[FB_CODES];
        for (int c = 0; c < FB_CODES; c++) shifted[c] = values[c] - (float)z;
        lut_make(&l->of_zero[z], shifted);
    }
}
static inline lutv luts_get(const luts *l, unsigned zero_point) { return lut_load(&l->of_zero[zero_point]); }
#endif

typedef struct decoder {
    const uint8_t *codes, *zero_points;
    int64_t n;                 /* elements */
    int shift;                 /* log2 of the block size */
    cpu_scales scales;
    float values[FB_CODES];
    luts luts;
} decoder;

static inline void decoder_init(decoder *d, const fb_matrix *w)
{
    float storage[FB_CODES];
    memcpy(d->values, fb_matrix_codebook(w, storage), sizeof d->values);
    d->codes = w->codes;
    d->zero_points = w->format == FB_INT4_AFFINE ? w->zero_points : NULL;
    d->n = w->rows * w->cols;
    d->shift = 0;
    while (1 << d->shift < w->block_size) d->shift++;
    cpu_scales_init(&d->scales, w);
    luts_make(&d->luts, d->values, d->zero_points != NULL);
}

static inline lutv block_lut(const decoder *d, int64_t block)
{
    return luts_get(&d->luts, d->zero_points ? d->zero_points[block] : 0);
}

/* Ask for what the 128 weights from element i on are decoded from, if there are any: for rows too far
 * apart for the hardware to guess. Into the second-level cache: rows a power of two apart share
 * one set of the first. (Inlined by force: gcc 12 takes a function that only prefetches for one without effect, and
 * where it did not happen to inline it first left the calls out.) */
static inline __attribute__((always_inline)) void prefetch_line(const decoder *d, int64_t i)
{
    if (i >= d->n) return;
    __builtin_prefetch(d->codes + i / 2, 0, 2);
    if (d->scales.absmax) __builtin_prefetch(d->scales.absmax + (i >> d->shift), 0, 2);
}

/* The group that starts at element `group`, zero bytes after the matrix's last. */
static inline void copy_group(const decoder *d, int64_t group, uint8_t bytes[GROUP / 2])
{
    memset(bytes, 0, GROUP / 2);
    memcpy(bytes, d->codes + group / 2, (size_t)cpu_min(GROUP / 2, fb_code_bytes(d->n) - group / 2));
}

/* Elements begin ... end-1 of one group. */
static inline void decode_part(const decoder *d, const lutv *table, vf scale, int64_t begin, int64_t end, float *out)
{
    int64_t group = begin / GROUP * GROUP;
    uint8_t bytes[GROUP / 2];
    float values[GROUP];
    vf v[GV];
    copy_group(d, group, bytes);
    decode32(table, bytes, v);
    for (int i = 0; i < GV; i++) vf_store(values + i * VF, vf_mul(v[i], scale));
    memcpy(out, values + (begin - group), (size_t)(end - begin) * sizeof(float));
}

/* out[0 ... count-1] = fp32 weights from element begin on, as dequantize to fp32 has them. */
static inline void decode_span(const decoder *d, int64_t begin, int64_t count, float *out)
{
    const int64_t end = begin + count;
    for (int64_t i = begin; i < end;) {
        const int64_t block = i >> d->shift, stop = cpu_min((block + 1) << d->shift, end);
        const lutv table = block_lut(d, block);
        const vf scale = vf_set1(cpu_absmax(&d->scales, block));
        if (i % GROUP) {
            int64_t part = cpu_min(cpu_round_up(i, GROUP), stop);
            decode_part(d, &table, scale, i, part, out);
            out += part - i;
            i = part;
        }
        for (; stop - i >= GROUP; i += GROUP, out += GROUP) {
            vf v[GV];
            decode32(&table, d->codes + i / 2, v);
            for (int j = 0; j < GV; j++) vf_store(out + j * VF, vf_mul(v[j], scale));
        }
        if (i < stop) {
            decode_part(d, &table, scale, i, stop, out);
            out += stop - i;
            i = stop;
        }
    }
}

#endif
