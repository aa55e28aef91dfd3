/* test_simt_types.cpp — number formats and intrinsics, each against a second statement of what it should do. */
#include "test_simt.h"
#include "test_simt_ptx.h"
#include <cmath>
#include <random>

/* The value of a 16-bit float, from its definition. */
static double value_of(unsigned bits, int exponent_bits, int fraction_bits) {
    unsigned e = bits >> fraction_bits & ((1u << exponent_bits) - 1), f = bits & ((1u << fraction_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1;
    double m = e ? 1 + std::ldexp((double)f, -fraction_bits) : std::ldexp((double)f, -fraction_bits);
    if (e == (1u << exponent_bits) - 1) m = f ? NAN : INFINITY;
    else m = std::ldexp(m, (int)(e ? e : 1) - bias);
    return bits >> (exponent_bits + fraction_bits) ? -m : m;
}

/* Nearest, ties to even, by comparing with both neighbours: slow and obvious. `near` is a code within one step. */
static bool is_nearest(unsigned code, double x, int eb, int fb) {
    double v = value_of(code, eb, fb);
    unsigned sign = code & 0x8000, mag = code & 0x7fff;
    unsigned top = ((1u << eb) - 1) << fb;
    auto at = [&](unsigned m) { /* beyond the largest finite value, the next step counts as a number when rounding */
        return m == top ? std::ldexp(2.0, (1 << (eb - 1)) - 1) * (sign ? -1 : 1) : value_of(m | sign, eb, fb);
    };
    if (mag > top) return false;
    if (mag == top) v = at(top);
    double d = std::fabs(v - x), up = mag < top ? std::fabs(at(mag + 1) - x) : INFINITY,
           down = mag ? std::fabs(at(mag - 1) - x) : INFINITY;
    if (mag == top && std::fabs(x) > std::fabs(v)) return true;
    return d <= up && d <= down && ((d != up && d != down) || mag % 2 == 0) && std::signbit(x) == (sign != 0);
}

static void conversions_round_to_nearest_even() {
    std::mt19937 random(7);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 65536; i++) {
        if ((i & 0x7fff) < 0x7f80) wrong += simt::bf16_to_float((uint16_t)i) != value_of(i, 8, 7);
        if ((i & 0x7fff) < 0x7c00) wrong += simt::fp16_to_float((uint16_t)i) != value_of(i, 5, 10);
        if ((i & 0x7fff) <= 0x7f80) wrong += simt::float_to_bf16(simt::bf16_to_float((uint16_t)i)) != i;
        if ((i & 0x7fff) <= 0x7c00) wrong += simt::float_to_fp16(simt::fp16_to_float((uint16_t)i)) != i;
    }
    CU_ASSERT_EQUAL(wrong, 0);
    for (int i = 0; i < 2000000; i++) {
        float f = simt::float_of((uint32_t)random());
        if (i & 1) f = simt::fp16_to_float((uint16_t)random()) * (1 + (float)((int)(random() % 5) - 2) * 0x1p-12f); /* near ties */
        if (f != f || std::isinf(f)) continue;
        wrong += !is_nearest(simt::float_to_bf16(f), f, 8, 7);
        wrong += !is_nearest(simt::float_to_fp16(f), f, 5, 10);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(simt::float_to_bf16(NAN), 0x7fff);
    CU_ASSERT_EQUAL(simt::float_to_fp16(65519.996f), 0x7bff);
    CU_ASSERT_EQUAL(simt::float_to_fp16(65520.0f), 0x7c00);
    CU_ASSERT_EQUAL(simt::float_to_fp16(-0x1p-25f), 0x8000);
    CU_ASSERT(!is_nearest(simt::float_to_bf16(1.0f) + 1, 1.0, 8, 7)); /* the checker can say no */
}

static void fma_rounds_once() {
    std::mt19937 random(9);
    unsigned wrong = 0, double_rounding = 0;
    for (int i = 0; i < 300000; i++) {
        unsigned r[3];
        for (unsigned &x : r) x = random() & 0xffff;
        if (i & 1) r[2] = (r[0] & 0x8000) | ((r[0] & 0x7c00) + (r[1] & 0x7c00) - 0x3c00 - (random() % 12 << 10)) % 0x7c00;
        __half a = __ushort_as_half((unsigned short)r[0]), b = __ushort_as_half((unsigned short)r[1]),
               c = __ushort_as_half((unsigned short)r[2]);
        float fa = a, fb = b, fc = c;
        double exact = (double)fa * fb + fc; /* 22-bit product, sum within 53 bits for these exponents */
        if (!std::isfinite(exact)) continue;
        unsigned short got = __half_as_ushort(__hfma(a, b, c));
        if (exact != 0) wrong += !is_nearest(got, exact, 5, 10);
        double_rounding += got != simt::float_to_fp16((float)exact);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(double_rounding > 0); /* the test meets the cases that rounding twice gets wrong */
}

static void byte_perm_and_bits() {
    CU_ASSERT_EQUAL(__byte_perm(0x33221100u, 0x77665544u, 0x7531), 0x77553311u);
    CU_ASSERT_EQUAL(__byte_perm(0x80u, 0, 0x8888), 0x80808080u); /* three bits of a nibble count, here ... */
    CU_ASSERT_EQUAL(__byte_perm(0x7fu, 0, 0x9880), 0x007f7f7fu);
    CU_ASSERT_EQUAL(ptx::prmt(0x80u, 0, 0x8888), 0xffffffffu); /* ... and four there */
    CU_ASSERT_EQUAL(ptx::prmt(0x7fu, 0, 0x9880), 0x0000007fu);
    CU_ASSERT_EQUAL(ptx::prmt(0x80112233u, 0x447f6655u, 0x00fb), 0x333300ffu);
    CU_ASSERT_EQUAL(__vmaxu2(0x80010002u, 0x7fff0003u), 0x80010003u);
    CU_ASSERT_EQUAL(__vmaxs2(0x80010002u, 0x7fff8003u), 0x7fff0002u);
    CU_ASSERT_EQUAL(__funnelshift_l(0x80000000u, 1u, 1), 3u);
    CU_ASSERT_EQUAL(__funnelshift_r(0x80000000u, 1u, 4), 0x18000000u);
    CU_ASSERT_EQUAL(__brev(1u), 0x80000000u);
    CU_ASSERT_EQUAL(__clz(0), 32);
    CU_ASSERT_EQUAL(__ffs(8), 4);
    CU_ASSERT_EQUAL(__umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
    CU_ASSERT_EQUAL(__dp4a(0x01ff02fe, 0x03040506, 7), 7 + 3 - 4 + 10 - 12);
    CU_ASSERT_EQUAL(__float2int_rn(2.5f), 2);
    CU_ASSERT_EQUAL(__float2int_rn(-3.5f), -4);
    CU_ASSERT_EQUAL(__float2int_rn(3e9f), 0x7fffffff);
}

static void arithmetic_does_not_contract() {
    float a = 1 + 0x1p-12f, p = a * a;
    volatile float va = a;
    CU_ASSERT_EQUAL(__fadd_rn(__fmul_rn(va, va), -p), 0.0f);
    CU_ASSERT_EQUAL(__fmaf_rn(va, va, -p), 0x1p-24f);
    CU_ASSERT_EQUAL(va * va - p, 0.0f);
}

static const SimtCase cases[] = {
    {"bf16 and fp16 conversions", conversions_round_to_nearest_even},
    {"__hfma rounds once", fma_rounds_once},
    {"__byte_perm and bits", byte_perm_and_bits},
    {"no contraction", arithmetic_does_not_contract},
};
static const SimtSuite suite("simt types", cases);
