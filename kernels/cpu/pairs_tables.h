/* pairs_tables.h: stretches of rows of W and tables of their blocks, for vdpbf16ps. Included by gemm_pairs_few.h and
 * pairs_columns.h, where it says what they are for. */
#ifndef FOURBIT_CPU_PAIRS_TABLES_H
#define FOURBIT_CPU_PAIRS_TABLES_H

enum {
    FEW_STEP = CPU_PAIRS_STEP, /* weights in 64 bytes of codes */
    FEW_QUARTER = FEW_STEP / 4
};

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

/* A stretch of a row, from element `at` on. */
typedef struct few_source {
    const uint8_t *codes, *zero_points; /* of the stretch; of its blocks, or NULL */
    const float *scales;
    int64_t inside; /* elements of its first block before it: blocks of 128 and more */
} few_source;

static inline few_source few_open(const decoder *d, int64_t at, int64_t depth, float *decoded)
{
    const int64_t first = at >> d->shift, last = (at + depth - 1) >> d->shift;
    return (few_source){.codes = d->codes + at / 2,
                        .zero_points = d->zero_points ? d->zero_points + first : NULL,
                        .scales = few_scales(d, first, last - first + 1, decoded),
                        .inside = at - (first << d->shift)};
}

static inline vf few_values(const few_source *s, vf values, int64_t block)
{
    if (s->zero_points) values = vf_sub(values, vf_set1((float)s->zero_points[block]));
    return vf_mul(values, vf_set1(s->scales[block]));
}
static inline __m512i few_table(vf low, vf high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Blocks in a step of 128 weights are 1 << it. */
static inline int few_kind(const decoder *d) { return d->shift >= 7 ? 0 : 7 - d->shift; }

/* sum + both products of each pair */
static inline vf few_add(vf sum, vf w, vf x) { return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x); }
static inline vf few_load(const uint16_t *x) { return _mm512_castsi512_ps(_mm512_loadu_si512(x)); }

/* Ask for what lies so far on; it need not be there. */
ALWAYS_INLINE void few_ask(const uint8_t *codes, int64_t far) { _mm_prefetch((const char *)((uintptr_t)codes + (uintptr_t)far), _MM_HINT_T0); }

#endif
