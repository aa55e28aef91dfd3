/* double_quantize.c: quantization of the quantization constants.
 *
 * QLoRA (2023), section 3, "Double Quantization": absmax values are positive, so
 * their mean is subtracted first to centre them; what is left is quantized
 * blockwise to 8 bits, 256 values sharing one second-level absmax. */
#include "reference.h"

/* One level: groups of 256, each added up by halving. Only n / 256 partial sums of
 * the next level are needed at a time, one group a level: 9 levels reach beyond 2^60. */
typedef struct tree {
    double group[9][256];
    int filled[9];
} tree;

static double halve(double *v)
{
    for (int s = 128; s > 0; s /= 2)
        for (int i = 0; i < s; i++) v[i] += v[i + s];
    return v[0];
}

static double close_group(tree *t, int level)
{
    for (int i = t->filled[level]; i < 256; i++) t->group[level][i] = 0.0;
    t->filled[level] = 0;
    return halve(t->group[level]);
}

static void push(tree *t, int level, double x)
{
    t->group[level][t->filled[level]++] = x;
    if (t->filled[level] == 256) push(t, level + 1, close_group(t, level));
}

double ref_tree_sum(double (*value)(const void *user, int64_t i), const void *user, int64_t n)
{
    tree t;
    memset(t.filled, 0, sizeof t.filled);
    for (int64_t i = 0; i < n; i++) push(&t, 0, value(user, i));
    /* Close the short groups from below, until one sum is left at the top. */
    int top = 0;
    for (int64_t m = n; m > 1; m = fb_ceil_div(m, 256)) top++;
    for (int level = 0; level < top; level++)
        if (t.filled[level]) push(&t, level + 1, close_group(&t, level));
    return n ? t.group[top][0] : 0.0;
}

static double absmax_value(const void *user, int64_t i) { return ((const float *)user)[i]; }


fb_status ref_double_quantize(fb_context *ctx, const float *absmax, int64_t n, uint8_t *codes, float *nested_absmax,
                              float *nested_offset)
{
    int64_t bad = ctx->flags & FB_ASSUME_FINITE ? -1 : ref_first_nonfinite(absmax, FB_F32, n);
    if (bad >= 0) return fb_fail_nonfinite(ctx, "absmax", bad, absmax[bad]);

    float offset = (float)(ref_tree_sum(absmax_value, absmax, n) / (double)n);
    for (int64_t begin = 0; begin < n; begin += FB_NESTED_BLOCK) {
        float rest[FB_NESTED_BLOCK];
        int64_t count = n - begin < FB_NESTED_BLOCK ? n - begin : FB_NESTED_BLOCK;
        for (int64_t i = 0; i < count; i++) rest[i] = absmax[begin + i] - offset;
        fb_context unchecked = *ctx;
        unchecked.flags |= FB_ASSUME_FINITE;
        ref_quantize8(&unchecked, FB_MAP_SIGNED, rest, FB_F32, count, FB_NESTED_BLOCK, codes + begin,
                      nested_absmax + begin / FB_NESTED_BLOCK);
    }
    nested_offset[0] = offset;
    return FB_OK;
}

fb_status ref_decode_absmax(fb_context *ctx, const uint8_t *codes, const float *nested_absmax,
                            const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax)
{
    (void)ctx;
    float storage[FB_CODES8];
    const float *map = fb_nested_codebook(nested_codebook, storage);
    for (int64_t i = 0; i < n; i++) {
        float scaled = map[codes[i]] * nested_absmax[i / FB_NESTED_BLOCK];
        absmax[i] = scaled + nested_offset[0];
    }
    return FB_OK;
}
