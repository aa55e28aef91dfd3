/* test_formats.c: every constant of formats.h from its published construction, and the
 * conversions between element types against arithmetic in double. */
#include "model.h"
#include "suite.h"

#include <stdio.h>

static float nf4_value(int i) { return fb_bits_to_float(fb_codebook_bits[FB_NF4][i]); }

/* Inverse of the normal distribution function, by Newton's method on erfc. */
static double normal_quantile(double p)
{
    double x = 0;
    for (int i = 0; i < 60; i++) {
        double density = exp(-0.5 * x * x) * 0.3989422804014327;
        double step = (0.5 * erfc(-x * 0.7071067811865476) - p) / density;
        x -= fmax(-0.5, fmin(0.5, step));
    }
    return x;
}

/* fp32 linspace as numerical libraries do it: from the nearer end. */
static float linspace(float first, float last, int n, int i)
{
    float step = (last - first) / (float)(n - 1);
    return i < n / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(n - 1 - i), last);
}

/* QLoRA, section 3 and appendix E: quantiles of N(0,1), 8 on one side and 7 on the other,
 * with an exact zero, divided by the largest. */
static void nf4_construction(void)
{
    const float offset = 0.9677083f;
    float value[16];
    int n = 0;
    for (int i = 0; i < 7; i++) value[n++] = -(float)normal_quantile((double)linspace(offset, 0.5f, 8, i));
    value[n++] = 0;
    for (int i = 7; i >= 0; i--) value[n++] = (float)normal_quantile((double)linspace(offset, 0.5f, 9, i));
    float largest = value[15];
    for (int i = 0; i < 16; i++) value[i] = value[i] / largest;
    EXPECT(check_same((check_place){"NF4 from its construction", 0, 0}, fb_codebook_bits[FB_NF4], value, FB_F32, 16));
}

/* 8-bit Optimizers, section 2: decades 10^-6 ... 10^0, each cut evenly, one more bit of
 * fraction each decade. */
static void check_dynamic(fb_map8 map)
{
    float value[FB_CODES8] = {0};
    int n = 1; /* the zero */
    for (int decade = 0; decade < 7; decade++) {
        int intervals = map == FB_MAP_SIGNED ? 1 << decade : 2 << decade;
        float power = (float)pow(10.0, decade - 6);
        for (int i = 0; i < intervals; i++) {
            float a = linspace(0.1f, 1.0f, intervals + 1, i), b = linspace(0.1f, 1.0f, intervals + 1, i + 1);
            float mean = (a + b) / 2.0f * power;
            value[n++] = mean;
            if (map == FB_MAP_SIGNED) value[n++] = -mean;
        }
    }
    value[n++] = 1.0f;
    REQUIRE(n == FB_CODES8, "the construction gives %d values, not 256", n);
    for (int i = 1; i < FB_CODES8; i++)
        for (int j = i; j > 0 && value[j] < value[j - 1]; j--) {
            float swap = value[j];
            value[j] = value[j - 1];
            value[j - 1] = swap;
        }
    EXPECT(check_same((check_place){map == FB_MAP_SIGNED ? "signed dynamic map" : "unsigned dynamic map", 0, 0},
                      fb_dynamic_bits[map], value, FB_F32, FB_CODES8));
}
static void dynamic_signed(void)
{
    check_dynamic(FB_MAP_SIGNED);
    REQUIRE(fb_dynamic_bits[FB_MAP_SIGNED][127] == 0, "zero is code 127");
    REQUIRE(fb_dynamic_bits[FB_MAP_SIGNED][0] == 0xbf7e3333u, "the smallest is -0.99296874");
}
static void dynamic_unsigned(void) { check_dynamic(FB_MAP_UNSIGNED); }

/* Sixths and their halves; 1/192 stands for bitsandbytes' smallest magnitude. */
static void fp4_int4_construction(void)
{
    const double magnitude[8] = {0, 1.0 / 192, 2.0 / 3, 1, 1.0 / 3, 0.5, 1.0 / 6, 0.25};
    float fp4[16], int4[16], affine[16];
    for (int i = 0; i < 16; i++) {
        fp4[i] = (float)(i < 8 ? magnitude[i] : -magnitude[i - 8]);
        int4[i] = (float)(i - 8);
        affine[i] = (float)i;
    }
    EXPECT(check_same((check_place){"FP4", 0, 0}, fb_codebook_bits[FB_FP4], fp4, FB_F32, 16));
    EXPECT(check_same((check_place){"INT4", 0, 0}, fb_codebook_bits[FB_INT4], int4, FB_F32, 16));
    EXPECT(check_same((check_place){"INT4 affine", 0, 0}, fb_codebook_bits[FB_INT4_AFFINE], affine, FB_F32, 16));
}

/* A threshold is the fp32 midpoint of its neighbours, but for the published ones that are not. */
static void thresholds_between_codes(void)
{
    static const int off_by_an_ulp[] = {0, 8, 12, 14};
    int nf4_off = 0, fp4_off = 0;
    for (int i = 0; i < 15; i++) {
        float t = fb_bits_to_float(fb_nf4_threshold_bits[i]), middle = (nf4_value(i) + nf4_value(i + 1)) * 0.5f;
        REQUIRE(nf4_value(i) < t && t < nf4_value(i + 1), "NF4 threshold %d lies between its codes", i);
        int64_t ulps = (int64_t)fb_nf4_threshold_bits[i] - (int64_t)fb_float_to_bits(middle);
        if (ulps == 0) continue;
        REQUIRE(ulps == 1 || ulps == -1, "NF4 threshold %d is %lld ulp off the midpoint", i, (long long)ulps);
        REQUIRE(nf4_off < 4 && off_by_an_ulp[nf4_off] == i, "NF4 threshold %d is off the midpoint", i);
        nf4_off++;
    }
    REQUIRE(nf4_off == 4, "%d NF4 thresholds are off the midpoint, 4 are published so", nf4_off);
    for (int i = 0; i < 7; i++) {
        float a = fb_bits_to_float(fb_codebook_bits[FB_FP4][fb_fp4_rank_to_code[i]]);
        float b = fb_bits_to_float(fb_codebook_bits[FB_FP4][fb_fp4_rank_to_code[i + 1]]);
        float t = fb_bits_to_float(fb_fp4_threshold_bits[i]);
        REQUIRE(a < t && t < b, "FP4 threshold %d lies between its magnitudes", i);
        fp4_off += t != (a + b) * 0.5f;
    }
    REQUIRE(fp4_off == 5, "%d FP4 thresholds are off the midpoint, 5 are published so", fp4_off);
}

/* ---- element types ------------------------------------------------------------------------ */

static double half_value(uint16_t h, fb_dtype t)
{
    int fraction_bits = t == FB_BF16 ? 7 : 10, bias = t == FB_BF16 ? 127 : 15;
    int top = t == FB_BF16 ? 255 : 31;
    int exponent = (h & 0x7fff) >> fraction_bits, fraction = h & ((1 << fraction_bits) - 1);
    double sign = h & 0x8000 ? -1 : 1;
    if (exponent == top) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

static bool same_number(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static void every_half(void)
{
    int64_t wrong = 0;
    for (int t = FB_BF16; t <= FB_F16; t++)
        for (uint32_t h = 0; h < 65536; h++) {
            uint16_t stored = (uint16_t)h, back;
            float f = fb_load(&stored, (fb_dtype)t, 0);
            fb_store(&back, (fb_dtype)t, 0, f);
            bool nan = isnan(half_value(stored, (fb_dtype)t));
            uint16_t quiet = (uint16_t)(stored | (t == FB_BF16 ? 0x40 : 0x200));
            wrong += !same_number(f, half_value(stored, (fb_dtype)t));
            wrong += nan ? back != quiet : back != stored;
        }
    REQUIRE(wrong == 0, "%lld of 2 x 65536 halves do not convert to fp32 and back", (long long)wrong);
}

static int64_t wrong_roundings(float f, char *text, size_t size)
{
    int64_t wrong = 0;
    for (int t = FB_BF16; t <= FB_F16; t++) {
        uint16_t h;
        fb_store(&h, (fb_dtype)t, 0, f);
        double got = half_value(h, (fb_dtype)t), want = model_round((double)f, (fb_dtype)t);
        if (same_number(got, want) && (!isnan(got) || !!(h & 0x8000) == !!signbit(f))) continue;
        snprintf(text, size, "%a to %s gives %a, not %a", (double)f, fb_dtype_name((fb_dtype)t), got, want);
        wrong++;
    }
    return wrong;
}

/* fp32 -> half: halfway between any two neighbours and an ulp to either side; the ends
 * of the range; NaN payloads; random bits. */
static void every_rounding(void)
{
    char text[160] = "";
    int64_t wrong = 0;
    for (int t = FB_BF16; t <= FB_F16; t++)
        for (uint32_t h = 0; h < 65535; h++) {
            double a = half_value((uint16_t)h, (fb_dtype)t), b = half_value((uint16_t)(h + 1), (fb_dtype)t);
            if (!isfinite(a) || !isfinite(b) || signbit(a) != signbit(b)) continue;
            uint32_t middle = fb_float_to_bits((float)((a + b) / 2));
            for (uint32_t d = 0; d < 3; d++)
                wrong += wrong_roundings(fb_bits_to_float(middle + d - 1), text, sizeof text);
        }
    static const uint32_t edges[] = {0,          1,          0x7fffff,   0x800000,   0x477fe000, 0x477fefff, 0x477ff000,
                                     0x477ff001, 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000,
                                     0x7fffffff, 0x33000000, 0x33000001, 0x32ffffff, 0x387fffff, 0x38800000, 0x387fe000};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        for (uint32_t sign = 0; sign < 2; sign++)
            wrong += wrong_roundings(fb_bits_to_float(edges[i] | sign << 31), text, sizeof text);
    int64_t random = (int64_t)(1000000 * suite_scale());
    for (int64_t i = 0; i < random; i++)
        wrong += wrong_roundings(fb_bits_to_float((uint32_t)input_random(5, (uint64_t)i)), text, sizeof text);
    REQUIRE(wrong == 0, "%lld wrong roundings: %s", (long long)wrong, text);
}

/* ---- layout ----------------------------------------------------------------------------------- */

static void nibble_order(void)
{
    const uint8_t codes[] = {0x12, 0x3f};
    REQUIRE(fb_nibble(codes, 0) == 1 && fb_nibble(codes, 1) == 2 && fb_nibble(codes, 2) == 3 && fb_nibble(codes, 3) == 15,
            "the even element is the high nibble");
    REQUIRE(fb_pack(1, 2) == 0x12, "pack is its inverse");
    REQUIRE(fb_code_bytes(0) == 0 && fb_code_bytes(1) == 1 && fb_code_bytes(2) == 1 && fb_code_bytes(3) == 2, "bytes of codes");
    REQUIRE(fb_block_count(0, 64) == 0 && fb_block_count(1, 64) == 1 && fb_block_count(64, 64) == 1 &&
                fb_block_count(65, 64) == 2, "blocks");
    for (int64_t b = 0; b <= 8192; b++) {
        bool valid = b == 32 || b == 64 || b == 128 || b == 256 || b == 512 || b == 1024 || b == 2048 || b == 4096;
        if (!!fb_block_size_valid(b) != valid) REQUIRE(false, "block size %lld", (long long)b);
    }
}

/* QLoRA, section 3: 0.5 bits a weight for absmax become 0.127 at block 64. */
static void bits_per_weight(void)
{
    const int64_t rows = 8192, cols = 8192; /* all blocks and nested blocks full */
    for (int format = 0; format < FB_FORMAT_COUNT; format++)
        for (int32_t block = 32; block <= 4096; block *= 2)
            for (int dq = 0; dq < 2; dq++) {
                fb_matrix w;
                fb_matrix_sizes s;
                REQUIRE(fb_matrix_init(&w, (fb_format)format, rows, cols, block, dq) == FB_OK, "init");
                REQUIRE(fb_matrix_get_sizes(&w, &s) == FB_OK, "sizes");
                double want = 4 + (dq ? 8.0 / block + 32.0 / (256.0 * block) : 32.0 / block);
                if (dq) want += 32.0 / ((double)rows * (double)cols); /* the one offset */
                if (format == FB_INT4_AFFINE) want += 8.0 / block;
                REQUIRE(!(fabs(s.bits_per_weight - want) > 1e-12), "%s block %d dq %d: %.9f bits a weight, want %.9f",
                        fb_format_name((fb_format)format), block, dq, s.bits_per_weight, want);
                if (format == FB_NF4 && block == 64)
                    REQUIRE(!(fabs(s.bits_per_weight - (dq ? 4.127 : 4.5)) > 5e-4), "the paper's figure: %.4f",
                            s.bits_per_weight);
            }
}

static const suite_test tests[] = {{"nf4_construction", nf4_construction},
                                   {"fp4_int4_construction", fp4_int4_construction},
                                   {"dynamic_signed", dynamic_signed},
                                   {"dynamic_unsigned", dynamic_unsigned},
                                   {"thresholds_between_codes", thresholds_between_codes},
                                   {"every_half", every_half},
                                   {"every_rounding", every_rounding},
                                   {"nibble_order", nibble_order},
                                   {"bits_per_weight", bits_per_weight},
                                   {NULL, NULL}};
const suite suite_formats = {"formats", "constants from their published construction, conversions, layout", false, tests};
