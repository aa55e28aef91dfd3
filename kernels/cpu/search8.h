/* search8.h: a block's 8-bit codes (cpu.h says how they are found). Included after a vec_*.h. */
#ifndef FOURBIT_CPU_SEARCH8_H
#define FOURBIT_CPU_SEARCH8_H

#include "stage.h"

/* x is scaled in place. */
static void quantize8_block(const cpu_search8 *s, float *x, int64_t count, float absmax, uint8_t *codes)
{
    const float inverse = 1.0f / absmax;
    const bool divide = isinf(inverse);
    if (absmax == 0) { /* 0/0 everywhere: a NaN is above no limit */
        memset(codes, 0, (size_t)count);
        return;
    }
    const vf a = vf_set1(absmax), inv = vf_set1(inverse);
    for (int64_t i = 0; i < count; i += VF) vf_store(x + i, scaled(vf_load(x + i), a, inv, divide));
    /* First every bucket, in vectors of the compiler's, then the look-ups: half the time of one loop for both. */
    int32_t bucket[FB_BLOCK_MAX];
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = fb_float_to_bits(x[i]);
        const int32_t at = (int32_t)((bits & 0x7fffffffu) >> CPU_BUCKET_SHIFT) - CPU_BUCKET_FIRST;
        const int32_t least = at < 0 ? 0 : at;
        bucket[i] = (least >= CPU_BUCKETS ? CPU_BUCKETS - 1 : least) + (int32_t)(bits >> 31) * CPU_BUCKETS;
    }
    const uint8_t *below = s->below[0];
    for (int64_t i = 0; i < count; i++) {
        const unsigned code = below[bucket[i]];
        codes[i] = (uint8_t)(code + (x[i] > s->limit[code]));
    }
}

#endif
