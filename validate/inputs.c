/* inputs.c: deterministic test data (inputs.h). */
#include "inputs.h"

#include <float.h>

const char *input_name(input_kind kind)
{
    static const char *const names[] = {"gaussian", "student-t", "uniform",   "bell",    "zero",   "equal", "outlier",
                                        "threshold", "signed-zero", "subnormal", "largest", "cancel"};
    FB_STATIC_ASSERT(sizeof names / sizeof *names == INPUT_KIND_COUNT, "a name for each kind");
    return (unsigned)kind < INPUT_KIND_COUNT ? names[kind] : "?";
}

/* The finalizer of splitmix64 over an odd multiple of the counter. */
uint64_t input_random(uint64_t seed, uint64_t index)
{
    uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u + seed * 0xd1342543de82ef95u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double input_uniform(uint64_t seed, uint64_t index)
{
    return ((double)(input_random(seed, index) >> 11) + 0.5) * 0x1p-53;
}

double input_gaussian(uint64_t seed, uint64_t index)
{
    /* Box-Muller; its second value goes to the odd neighbour */
    double radius = sqrt(-2 * log(input_uniform(seed, index | 1)));
    double angle = 6.283185307179586 * input_uniform(~seed, index | 1);
    return radius * (index & 1 ? sin(angle) : cos(angle));
}

static double student_t3(uint64_t seed, uint64_t i)
{
    double chi = 0;
    for (uint64_t k = 0; k < 3; k++) {
        double g = input_gaussian(seed + 77 + k, i);
        chi += g * g;
    }
    return input_gaussian(seed, i) / sqrt(chi / 3);
}

/* 12 uniforms of 20 bits each, centred; a multiple of 2^-20 */
static double bell(uint64_t seed, uint64_t i)
{
    int64_t sum = 0;
    for (uint64_t k = 0; k < 4; k++) {
        uint64_t z = input_random(seed, 4 * i + k);
        sum += (int64_t)(z & 0xfffff) + (int64_t)(z >> 20 & 0xfffff) + (int64_t)(z >> 40 & 0xfffff);
    }
    return (double)(sum - 6 * 0xfffff) * 0x1p-20;
}

static float smallest_normal(fb_dtype t) { return t == FB_F16 ? 0x1p-14f : FLT_MIN; }
static float largest(fb_dtype t) { return t == FB_F16 ? 65504.0f : t == FB_BF16 ? 0x1.fep127f : FLT_MAX; }

/* All thresholds: NF4's 15, FP4's 7 and their negatives, the halves of INT4 (in units
 * of absmax / 7), 45 in all. */
enum { THRESHOLDS = 15 + 14 + 16 };
static float threshold(int i)
{
    if (i < 15) return fb_bits_to_float(fb_nf4_threshold_bits[i]);
    if (i < 29) return fb_bits_to_float(fb_fp4_threshold_bits[(i - 15) / 2]) * (i % 2 ? 1.0f : -1.0f);
    return ((float)(i - 29) - 7.5f) / 7.0f;
}

static void store_threshold(void *dst, fb_dtype t, int64_t i, int32_t block_size)
{
    static const float magnitudes[] = {1.0f, 7.0f, 3.7f, 0x1.8p-9f, 1000.0f};
    int64_t block = i / block_size, in_block = i % block_size;
    float magnitude = magnitudes[block % 5];
    if (in_block == 0) {
        fb_store(dst, t, i, block & 1 ? -magnitude : magnitude);
        return;
    }
    /* short blocks take the list in turns */
    int64_t item = (in_block - 1 + block / 5 * (block_size - 1)) % (3 * THRESHOLDS);
    float target = threshold((int)(item / 3)) * magnitude;
    if (fabsf(target) > magnitude) target = magnitude; /* INT4's -7.5: would be the block's largest */
    fb_store(dst, t, i, target);
    int step = (int)(item % 3) - 1;
    if (target == magnitude || target == 0 || step == 0) return;
    if (t == FB_F32) {
        uint32_t bits = fb_float_to_bits(target);
        fb_store(dst, t, i, fb_bits_to_float((uint32_t)((int64_t)bits + step)));
    } else {
        ((uint16_t *)dst)[i] = (uint16_t)(((uint16_t *)dst)[i] + step);
    }
}

static double plain_value(input_kind kind, uint64_t seed, uint64_t i, int32_t block_size, fb_dtype t)
{
    uint64_t block = i / (uint64_t)block_size, in_block = i % (uint64_t)block_size;
    uint64_t r = input_random(seed, i);
    double sign = r & 1 ? -1 : 1;
    switch (kind) {
    case INPUT_GAUSSIAN: return input_gaussian(seed, i);
    case INPUT_STUDENT_T: return student_t3(seed, i);
    case INPUT_UNIFORM: return 2 * input_uniform(seed, i) - 1;
    case INPUT_BELL: return bell(seed, i);
    case INPUT_EQUAL: return (block & 1 ? -1 : 1) * (0.25 + (double)(block % 7));
    case INPUT_OUTLIER:
        return in_block == input_random(seed + 1, block) % (uint64_t)block_size ? sign * 10 : 0.01 * bell(seed, i);
    case INPUT_SIGNED_ZERO: return i % 5 == 4 ? 0.125 * bell(seed, i) : sign * 0.0;
    case INPUT_SUBNORMAL: {
        /* blocks down to the smallest of them, where 1/absmax overflows (below 2^-128), and blocks
         * that are normal but for some elements */
        double x = sign * (double)smallest_normal(t) * input_uniform(seed + 2, i);
        return block % 4 == 3 ? (in_block % 9 == 8 ? 4 * x : x) : ldexp(x, -(int)(block * 5 % 16));
    }
    case INPUT_LARGEST: return i % 3 ? sign * (double)largest(t) * (i % 3 == 1 ? 1 : 0.5) : bell(seed, i);
    case INPUT_CANCEL: return (i & 1 ? -1 : 1) * (double)(float)bell(seed, i / 2) * 100;
    default: return 0;
    }
}

void input_fill(input_kind kind, uint64_t seed, int32_t block_size, void *dst, fb_dtype t, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (kind == INPUT_THRESHOLD) store_threshold(dst, t, i, block_size);
        else fb_store(dst, t, i, (float)plain_value(kind, seed, (uint64_t)i, block_size, t));
    }
}

void input_bytes(uint64_t seed, uint8_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = (uint8_t)(i < 256 ? (uint64_t)i : input_random(seed, (uint64_t)i));
}

void input_one_hot(void *x, fb_dtype dtype, int64_t m, int64_t k, int64_t first)
{
    for (int64_t i = 0; i < m * k; i++) fb_store(x, dtype, i, i % k == (first + i / k) % k ? 1.0f : 0.0f);
}
