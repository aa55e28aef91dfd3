/* random.h: numbers that depend on (seed, stream, index) alone, so that nothing needs a generator's state to be saved. */
#ifndef FOURBIT_TRAIN_RANDOM_H
#define FOURBIT_TRAIN_RANDOM_H

#include <math.h>
#include <stdint.h>

/* SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
static inline uint64_t lm_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static inline uint64_t lm_random(uint64_t seed, uint64_t stream, uint64_t index) { return lm_mix(lm_mix(lm_mix(seed) ^ stream) ^ index); }

/* (0, 1) */
static inline double lm_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return ((double)(lm_random(seed, stream, index) >> 11) + 0.5) * 0x1p-53;
}
/* N(0, 1): Box and Muller's cosine */
static inline double lm_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    double r = sqrt(-2 * log(lm_uniform(seed, stream, 2 * index)));
    return r * cos(6.283185307179586 * lm_uniform(seed, stream, 2 * index + 1));
}
/* 0 ... n-1, n < 2^32 */
static inline uint64_t lm_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n)
{
    return (lm_random(seed, stream, index) >> 32) * n >> 32;
}

#endif
