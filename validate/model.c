/* model.c: the rules once more, by brute force (model.h). */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

static void *allocate(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (p) return p;
    fprintf(stderr, "model: out of memory\n");
    exit(2);
}

double model_tree_sum(const double *v, int64_t n)
{
    if (n == 0) return 0;
    if (n == 1) return v[0];
    int64_t groups = fb_ceil_div(n, 256);
    double *sums = allocate((size_t)groups * sizeof *sums);
    for (int64_t g = 0; g < groups; g++) {
        double group[256] = {0};
        int64_t count = n - g * 256 < 256 ? n - g * 256 : 256;
        memcpy(group, v + g * 256, (size_t)count * sizeof *v);
        for (int half = 128; half >= 1; half /= 2)
            for (int i = 0; i < half; i++) group[i] = group[i] + group[i + half];
        sums[g] = group[0];
    }
    double total = model_tree_sum(sums, groups);
    free(sums);
    return total;
}

/* A product of two floats is exact in double and a quotient has enough spare bits there
 * (53 >= 2 * 24 + 2), so one conversion gives the fp32 result. */
float model_scaled(float x, float absmax)
{
    float inverse = (float)(1.0 / (double)absmax);
    if (isinf(inverse)) return (float)((double)x / (double)absmax);
    return (float)((double)x * (double)inverse);
}

static unsigned nf4(float y)
{
    unsigned below = 0;
    for (int i = 0; i < 15; i++) below += (double)fb_bits_to_float(fb_nf4_threshold_bits[i]) < (double)y;
    return below;
}

/* Codes in order of magnitude: 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1. */
static unsigned fp4(float x, float y)
{
    static const unsigned by_rank[8] = {0, 1, 6, 7, 4, 5, 2, 3};
    unsigned below = 0;
    for (int i = 0; i < 7; i++) below += (double)fb_bits_to_float(fb_fp4_threshold_bits[i]) < fabs((double)y);
    return by_rank[below] + (x < 0 ? 8 : 0);
}

static double nearest_integer(float x, float scale)
{
    float q = (float)((double)x / (double)scale);
    if (isnan(q)) return 0;
    double down = floor((double)q), rest = (double)q - down;
    if (rest != 0.5) return rest > 0.5 ? down + 1 : down;
    return fmod(down, 2) == 0 ? down : down + 1;
}

static double clamp(double v, double lo, double hi) { return v < lo ? lo : v > hi ? hi : v; }

unsigned model_code(fb_format format, float x, float absmax, int zero_point)
{
    if (format == FB_NF4) return nf4(model_scaled(x, absmax));
    if (format == FB_FP4) return fp4(x, model_scaled(x, absmax));
    if (format == FB_INT4) return (unsigned)(clamp(nearest_integer(x, absmax), -8, 7) + 8);
    return (unsigned)clamp(nearest_integer(x, absmax) + zero_point, 0, 15);
}

/* The peers' search: a pivot walks the sorted map in steps 64 ... 1, then the midpoint
 * with the neighbour on x's side decides; a tie stays on the pivot. */
unsigned model_code8(fb_map8 map, float y)
{
    int pivot = 127, lower = 0, upper = 255;
    for (int step = 64; step >= 1; step /= 2) {
        if (y > fb_bits_to_float(fb_dynamic_bits[map][pivot])) {
            lower = pivot;
            pivot += step;
        } else {
            upper = pivot;
            pivot -= step;
        }
    }
    float at = fb_bits_to_float(fb_dynamic_bits[map][pivot]);
    if (y > at) {
        float middle = (at + fb_bits_to_float(fb_dynamic_bits[map][upper])) * 0.5f;
        return (unsigned)(y > middle ? upper : pivot);
    }
    float middle = (at + fb_bits_to_float(fb_dynamic_bits[map][lower])) * 0.5f;
    return (unsigned)(y < middle ? lower : pivot);
}

static float block_scale(fb_format format, const void *x, fb_dtype t, int64_t begin, int64_t end, int *zero_point)
{
    double low = 0, high = 0;
    for (int64_t i = begin; i < end; i++) {
        double v = (double)fb_load(x, t, i);
        if (v < low) low = v;
        if (v > high) high = v;
    }
    double absmax = high > 0 - low ? high : 0 - low; /* +0 for zeros */
    *zero_point = 0;
    if (format == FB_INT4) return (float)(absmax / 7.0);
    if (format != FB_INT4_AFFINE) return (float)absmax;
    float halves = (float)((double)(float)(0.5 * high) - (double)(float)(0.5 * low));
    float scale = (float)((double)halves / 7.5);
    *zero_point = (int)clamp(nearest_integer((float)-low, scale), 0, 15);
    return scale;
}

void model_quantize(const void *x, fb_dtype t, fb_matrix *dst)
{
    int64_t n = dst->rows * dst->cols, blocks = fb_ceil_div(n, dst->block_size);
    float *scales = allocate((size_t)blocks * sizeof *scales);
    memset(dst->codes, 0, (size_t)fb_code_bytes(n));
    for (int64_t b = 0; b < blocks; b++) {
        int64_t begin = b * dst->block_size, end = begin + dst->block_size < n ? begin + dst->block_size : n;
        int zero_point;
        scales[b] = block_scale(dst->format, x, t, begin, end, &zero_point);
        if (dst->zero_points) dst->zero_points[b] = (uint8_t)zero_point;
        for (int64_t i = begin; i < end; i++) {
            unsigned code = model_code(dst->format, fb_load(x, t, i), scales[b], zero_point);
            dst->codes[i / 2] |= (uint8_t)(i % 2 == 0 ? code << 4 : code);
        }
        if (end % 2 == 1) {
            const unsigned zero_code[] = {7, 0, 8, (unsigned)zero_point};
            dst->codes[end / 2] |= (uint8_t)zero_code[dst->format];
        }
    }
    if (dst->double_quant)
        model_double_quantize(scales, blocks, dst->absmax_codes, dst->nested_absmax, dst->nested_offset);
    else
        memcpy(dst->absmax, scales, (size_t)blocks * sizeof *scales);
    free(scales);
}

void model_dequantize(const fb_matrix *w, void *dst, fb_dtype t)
{
    int64_t n = w->rows * w->cols, blocks = fb_ceil_div(n, w->block_size);
    float *scales = allocate((size_t)blocks * sizeof *scales), book[FB_CODES];
    memcpy(book, w->codebook ? (const void *)w->codebook : fb_codebook_bits[w->format], sizeof book);
    if (w->double_quant)
        model_decode_absmax(w->absmax_codes, w->nested_absmax, *w->nested_offset, w->nested_codebook, blocks, scales);
    else
        memcpy(scales, w->absmax, (size_t)blocks * sizeof *scales);
    for (int64_t i = 0; i < n; i++) {
        int64_t b = i / w->block_size;
        unsigned code = i % 2 == 0 ? w->codes[i / 2] / 16u : w->codes[i / 2] % 16u;
        double value = (double)book[code] - (w->zero_points ? (double)w->zero_points[b] : 0.0); /* -0 - 0 is -0 */
        fb_store(dst, t, i, (float)((double)(float)value * (double)scales[b]));
    }
    free(scales);
}

void model_double_quantize(const float *absmax, int64_t n, uint8_t *codes, float *nested_absmax, float *nested_offset)
{
    double *wide = allocate((size_t)n * sizeof *wide);
    float *rest = allocate((size_t)n * sizeof *rest);
    for (int64_t i = 0; i < n; i++) wide[i] = (double)absmax[i];
    float offset = (float)(model_tree_sum(wide, n) / (double)n);
    for (int64_t i = 0; i < n; i++) rest[i] = (float)((double)absmax[i] - (double)offset);
    model_quantize8(FB_MAP_SIGNED, rest, FB_F32, n, 256, codes, nested_absmax);
    *nested_offset = offset;
    free(wide);
    free(rest);
}

void model_decode_absmax(const uint8_t *codes, const float *nested_absmax, float offset, const float *map, int64_t n,
                         float *absmax)
{
    for (int64_t i = 0; i < n; i++) {
        float value = map ? map[codes[i]] : fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][codes[i]]);
        float product = (float)((double)value * (double)nested_absmax[i / 256]);
        absmax[i] = (float)((double)product + (double)offset);
    }
}

void model_quantize8(fb_map8 map, const void *x, fb_dtype t, int64_t n, int32_t block_size, uint8_t *codes,
                     float *absmax)
{
    for (int64_t i = 0; i < n; i++) {
        float *largest = &absmax[i / block_size];
        if (i % block_size == 0) *largest = 0;
        if (fabsf(fb_load(x, t, i)) > *largest) *largest = fabsf(fb_load(x, t, i));
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = (uint8_t)model_code8(map, model_scaled(fb_load(x, t, i), absmax[i / block_size]));
}

double model_round(double v, fb_dtype t)
{
    const int digits = t == FB_BF16 ? 8 : t == FB_F16 ? 11 : 24;
    const int lowest = t == FB_F16 ? -14 : -126, highest = t == FB_F16 ? 15 : 127;
    if (v == 0 || isnan(v) || isinf(v)) return v;
    int exponent;
    frexp(v, &exponent); /* |v| in [2^(exponent-1), 2^exponent) */
    exponent = exponent - 1 < lowest ? lowest : exponent - 1;
    double quantum = ldexp(1.0, exponent - digits + 1), q = v / quantum, down = floor(q), rest = q - down;
    if (rest > 0.5 || (rest == 0.5 && fmod(down, 2) != 0)) down += 1;
    double result = down * quantum, limit = ldexp(2.0 - ldexp(1.0, 1 - digits), highest);
    return fabs(result) > limit ? copysign(INFINITY, v) : copysign(result, v);
}
