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
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = fb_float_to_bits(x[i]);
        int32_t bucket = (int32_t)((bits & 0x7fffffffu) >> CPU_BUCKET_SHIFT) - CPU_BUCKET_FIRST;
        bucket = bucket < 0 ? 0 : bucket >= CPU_BUCKETS ? CPU_BUCKETS - 1 : bucket;
        const unsigned code = s->below[bits >> 31][bucket];
        codes[i] = (uint8_t)(code + (x[i] > s->limit[code]));
    }
}

#endif
