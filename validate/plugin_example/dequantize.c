/* dequantize.c: a kernel from outside the project, as a plugin (kernels/fourbit_plugin.h). Start yours from this file.
 *
 *     gcc -O3 -march=native -ffp-contract=off -fPIC -shared -I kernels validate/plugin_example/dequantize.c -o my.so
 *     FOURBIT_PLUGIN=my.so build/validate/test_fourbit --backend plugin
 *     FOURBIT_PLUGIN=my.so build/bin/fourbit-bench --backends cpu,plugin --filter '^dequantize/'
 *
 * The idea that is tried: a block's 16 possible values are multiplied out first, so that an element costs a load
 * from a table of 64 bytes and no multiplication. One thread; no double quantization, no zero points.
 */
#include "fourbit_plugin.h"

static bool supports(fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype)
{
    (void)op, (void)m, (void)dtype; /* dequantize is the only slot; every output type */
    return !w->double_quant && w->format != FB_INT4_AFFINE;
}

/* The contract (formats.h): codebook[code] * absmax in fp32, one rounding, then one to the output's type. */
static void values_of_block(const fb_matrix *w, int64_t block, float values[FB_CODES])
{
    for (int code = 0; code < FB_CODES; code++) {
        float value = w->codebook ? w->codebook[code] : fb_bits_to_float(fb_codebook_bits[w->format][code]);
        values[code] = value * w->absmax[block];
    }
}

static fb_status dequantize(fb_context *ctx, const fb_matrix *w, void *dst, fb_dtype dtype)
{
    (void)ctx;
    int64_t n = w->rows * w->cols;
    for (int64_t block = 0; block * w->block_size < n; block++) {
        float values[FB_CODES];
        values_of_block(w, block, values);
        int64_t begin = block * w->block_size, end = begin + w->block_size < n ? begin + w->block_size : n;
        for (int64_t i = begin; i < end; i++) fb_store(dst, dtype, i, values[fb_nibble(w->codes, i)]);
    }
    return FB_OK;
}

static const fb_plugin plugin = {FB_PLUGIN_HEADER, .name = "example", .supports = supports, .dequantize = dequantize};

FB_PLUGIN_EXPORT const fb_plugin *fourbit_plugin(void) { return &plugin; }
