/* dropout.h: which elements dropout keeps: the same bits on every backend, in any order, without a mask.
 *
 * Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3,
 * SC 2011, section 3.3): 128 random bits are a function of a 128-bit counter and a 64-bit key. Elements 4i ... 4i+3 of a
 * tensor are words 0 ... 3 of counter (i, 0) under the tensor's seed:
 *
 *     word     3         2        1            0
 *            +---------+--------+------------+-----------+
 *   counter  |    0    |   0    |  i >> 32   | i, low 32 |         key = seed (high 32, low 32)
 *            +---------+--------+------------+-----------+
 *
 * Element 4i+j is dropped where word j < threshold = floor(p * 2^32), so with probability p to 2^-32.
 * Plain functions in the common subset of C11, C++11 and CUDA C++ (formats.h). */
#ifndef FOURBIT_DROPOUT_H
#define FOURBIT_DROPOUT_H

#include "formats.h"

enum { FB_PHILOX_ROUNDS = 10 };
#define FB_PHILOX_M0 0xd2511f53u
#define FB_PHILOX_M1 0xcd9e8d57u
#define FB_PHILOX_W0 0x9e3779b9u /* golden ratio */
#define FB_PHILOX_W1 0xbb67ae85u /* sqrt(3) - 1 */

typedef struct fb_philox {
    uint32_t v[4];
} fb_philox;

FB_INLINE fb_philox fb_philox4x32(fb_philox counter, uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < FB_PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)FB_PHILOX_M0 * counter.v[0], p1 = (uint64_t)FB_PHILOX_M1 * counter.v[2];
        fb_philox next;
        next.v[0] = (uint32_t)(p1 >> 32) ^ counter.v[1] ^ key0;
        next.v[1] = (uint32_t)p1;
        next.v[2] = (uint32_t)(p0 >> 32) ^ counter.v[3] ^ key1;
        next.v[3] = (uint32_t)p0;
        counter = next;
        key0 += FB_PHILOX_W0;
        key1 += FB_PHILOX_W1;
    }
    return counter;
}

/* The four words of elements 4*quad ... 4*quad + 3. */
FB_INLINE fb_philox fb_dropout_words(uint64_t seed, uint64_t quad)
{
    fb_philox counter;
    counter.v[0] = (uint32_t)quad;
    counter.v[1] = (uint32_t)(quad >> 32);
    counter.v[2] = counter.v[3] = 0;
    return fb_philox4x32(counter, (uint32_t)seed, (uint32_t)(seed >> 32));
}

/* Words below it are dropped; 0: none is. p in [0, 1): the largest fp32 below 1 gives 2^32 - 256. */
FB_INLINE uint32_t fb_dropout_threshold(float p) { return (uint32_t)((double)p * 4294967296.0); }

/* Element i alone: its quad's other three words are thrown away. */
FB_INLINE int fb_dropout_keeps(uint64_t seed, uint32_t threshold, int64_t i)
{
    return threshold == 0 || fb_dropout_words(seed, (uint64_t)i / 4).v[i % 4] >= threshold;
}

#endif
