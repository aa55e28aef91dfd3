/* ptx_numerics.cpp — two ways to add up one instruction's products.
 *
 * Exact order: c += a*b in fp32 for k = 0, 1, ..., each sum rounded to nearest; a product of two 8- or 11-bit significands
 * is exact in fp32.  What a careful scalar program computes, and reproducible by hand.
 *
 * Hopper: what measurements of the H100 found (validate/README, "tensor cores"): all products of the instruction and c are
 * aligned to the largest exponent among them, cut off (not rounded) 25 bits below its leading one, added exactly, and the
 * sum is cut to fp32.  The error is one-sided and grows like K, which is what a tolerance has to survive.
 */
#include "ptx_impl.h"

namespace simt {

static void multiply_exact(const float *a, size_t as, const float *b, size_t bs, float *c, size_t cs, unsigned m, unsigned n,
                           unsigned k) {
    typedef float V __attribute__((vector_size(16), aligned(4), may_alias));
    for (unsigned i = 0; i < m; i++)
        for (unsigned j = 0; j < n; j += 8) {
            V s0 = *(const V *)(c + i * cs + j), s1 = *(const V *)(c + i * cs + j + 4);
            for (unsigned l = 0; l < k; l++) {
                float x = a[i * as + l];
                s0 += x * *(const V *)(b + l * bs + j);
                s1 += x * *(const V *)(b + l * bs + j + 4);
            }
            *(V *)(c + i * cs + j) = s0;
            *(V *)(c + i * cs + j + 4) = s1;
        }
}

struct Parts { /* value = significand * 2^(exponent - 23), significand signed, below 2^24 */
    int64_t significand;
    int exponent;
};

static Parts parts_of(float f, int least) {
    uint32_t u = bits_of(f), e = u >> 23 & 255;
    int64_t s = e ? (u & 0x7fffff) | 0x800000 : u & 0x7fffff;
    int exponent = e ? (int)e - 127 : -126;
    if (exponent < least) { /* subnormal in the operand's own type: the hardware does not normalise it */
        s >>= least - exponent;
        exponent = least;
    }
    return Parts{u >> 31 ? -s : s, exponent};
}

/* |sum| * 2^scale cut to fp32. */
static float cut(int64_t sum, int scale) {
    bool negative = sum < 0;
    uint64_t v = negative ? (uint64_t)-sum : (uint64_t)sum;
    if (!v) return 0.0f;
    int top = 63 - __builtin_clzll(v), exponent = top + scale;
    if (exponent > 127) return negative ? -__builtin_inff() : __builtin_inff();
    int lowest = (exponent < -126 ? -126 : exponent) - 23; /* weight of the last bit that stays */
    int drop = lowest - scale;
    if (drop > 63) return negative ? -0.0f : 0.0f;
    double kept = drop > 0 ? (double)(v >> drop) : (double)v;
    double value = __builtin_ldexp(kept, drop > 0 ? lowest : scale);
    return (float)(negative ? -value : value);
}

static float hopper_sum(const float *a, const float *b, size_t bs, float c, unsigned k, int least) {
    float plain = c;
    for (unsigned l = 0; l < k; l++) plain += a[l] * b[l * bs];
    if (!(plain - plain == 0)) { /* infinities and NaNs need no alignment; an fp32 overflow on the way does */
        bool finite = c - c == 0;
        for (unsigned l = 0; l < k; l++) finite = finite && a[l] - a[l] == 0 && b[l * bs] - b[l * bs] == 0;
        if (!finite) return plain != plain ? float_of(0x7fffffffu) : plain;
    }
    struct Term {
        int64_t significand; /* value = significand * 2^(exponent - 46) */
        int exponent;
    } terms[17];
    int largest = -100000;
    for (unsigned l = 0; l <= k; l++) {
        Parts x = l < k ? parts_of(a[l], least) : parts_of(c, -126);
        Parts y = l < k ? parts_of(b[l * bs], least) : Parts{1 << 23, 0};
        terms[l] = Term{x.significand * y.significand, x.exponent + y.exponent};
        if (terms[l].significand && terms[l].exponent > largest) largest = terms[l].exponent;
    }
    if (largest == -100000) return plain; /* all zero: the sign of the sum is that of plain arithmetic */
    int64_t sum = 0;
    for (unsigned l = 0; l <= k; l++) {
        int shift = 46 - 25 + (largest - terms[l].exponent);
        int64_t magnitude = terms[l].significand < 0 ? -terms[l].significand : terms[l].significand;
        magnitude = shift > 62 ? 0 : magnitude >> shift;
        sum += terms[l].significand < 0 ? -magnitude : magnitude;
    }
    return cut(sum, largest - 25);
}

void multiply(const float *a, size_t as, const float *b, size_t bs, float *c, size_t cs, unsigned m, unsigned n, unsigned k,
              int least) {
    if (tl_worker->launch->options.accumulate == Accumulate::ExactOrder)
        return multiply_exact(a, as, b, bs, c, cs, m, n, k);
    for (unsigned i = 0; i < m; i++)
        for (unsigned j = 0; j < n; j++) c[i * cs + j] = hopper_sum(a + i * as, b + j, bs, c[i * cs + j], k, least);
}

} // namespace simt
