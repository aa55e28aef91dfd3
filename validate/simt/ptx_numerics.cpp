/* ptx_numerics.cpp — two ways to add up one instruction's products.
 *
 * Exact order: c += a*b in fp32 for k = 0, 1, ..., each sum rounded to nearest; a product of two 8- or 11-bit significands
 * is exact in fp32.  What a careful scalar program computes, and reproducible by hand.
 *
 * Hopper: what published measurements of the H100 found (INSTRUCTIONS.md): all products of the instruction and c are
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
    int32_t significand;
    int32_t exponent; /* of a zero: so low that it never is the largest */
};
constexpr int kNone = -100000;

static Parts parts_of(float f, int least) {
    uint32_t u = bits_of(f), e = u >> 23 & 255;
    int32_t s = (int32_t)(e ? (u & 0x7fffff) | 0x800000 : u & 0x7fffff);
    int exponent = e ? (int)e - 127 : -126;
    if (!s) return Parts{0, kNone};
    if (exponent < least) { /* subnormal in the operand's own type: the hardware does not normalise it */
        s >>= least - exponent;
        exponent = least;
    }
    return Parts{u >> 31 ? -s : s, exponent};
}

static bool finite(float f) { return (bits_of(f) & 0x7f800000u) != 0x7f800000u; }

/* sum * 2^scale cut to fp32. */
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

/* Cut to 25 bits below the largest exponent; `bits`: fraction bits that the significand has. */
static int64_t aligned(int64_t significand, int bits, int below) {
    int shift = bits - 25 + below;
    int64_t magnitude = significand < 0 ? -significand : significand;
    magnitude = shift > 62 ? 0 : shift >= 0 ? magnitude >> shift : magnitude << -shift;
    return significand < 0 ? -magnitude : magnitude;
}

/* False: nothing but zeros. */
static bool hopper_sum(const Parts *a, const Parts *b, float &c, unsigned k) {
    Parts z = parts_of(c, -126);
    int largest = z.exponent;
    for (unsigned l = 0; l < k; l++) {
        int e = a[l].exponent + b[l].exponent; /* of the factors' exponents: 1.9 * 1.9 is not normalised first */
        largest = e > largest ? e : largest;
    }
    if (largest < kNone / 2) return false;
    int64_t sum = aligned(z.significand, 23, largest - z.exponent);
    for (unsigned l = 0; l < k; l++)
        sum += aligned((int64_t)a[l].significand * b[l].significand, 46, largest - a[l].exponent - b[l].exponent);
    c = cut(sum, largest - 25);
    return true;
}

/* Infinities, NaNs and sums of nothing but zeros are as in plain arithmetic, with NVIDIA's one NaN. */
static float plain_sum(const float *a, const float *b, size_t bs, float c, unsigned k) {
    for (unsigned l = 0; l < k; l++) c += a[l] * b[l * bs];
    return c != c ? float_of(0x7fffffffu) : c;
}

static void multiply_hopper(const float *a, size_t as, const float *b, size_t bs, float *c, size_t cs, unsigned m, unsigned n,
                            unsigned k, int least) {
    Parts rows[64][16], column[16];
    bool plain_row[64];
    for (unsigned i = 0; i < m; i++) {
        plain_row[i] = false;
        for (unsigned l = 0; l < k; l++) {
            rows[i][l] = parts_of(a[i * as + l], least);
            plain_row[i] |= !finite(a[i * as + l]);
        }
    }
    for (unsigned j = 0; j < n; j++) {
        bool plain = false;
        for (unsigned l = 0; l < k; l++) {
            column[l] = parts_of(b[l * bs + j], least);
            plain |= !finite(b[l * bs + j]);
        }
        for (unsigned i = 0; i < m; i++) {
            float &x = c[i * cs + j];
            if (plain || plain_row[i] || !finite(x) || !hopper_sum(rows[i], column, x, k))
                x = plain_sum(a + i * as, b + j, bs, x, k);
        }
    }
}

void multiply(const float *a, size_t as, const float *b, size_t bs, float *c, size_t cs, unsigned m, unsigned n, unsigned k,
              int least) {
    if (tl_worker->launch->options.accumulate == Accumulate::ExactOrder)
        return multiply_exact(a, as, b, bs, c, cs, m, n, k);
    multiply_hopper(a, as, b, bs, c, cs, m, n, k, least);
}

} // namespace simt
