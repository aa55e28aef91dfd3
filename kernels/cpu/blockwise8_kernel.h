/* blockwise8_kernel.h: 8-bit blockwise quantization with the dynamic maps, and double
 * quantization of absmax, which is the same after its mean is taken off.
 *
 *   quantize8     bytes in 2 or 4 an element, twice (NaN and Inf first), out 1 + 4/B
 *   dequantize8   bytes in 1 + 4/B, out 2 or 4
 *   bound         memory for both with several cores; a core alone is bound by its look-ups:
 *                 two an element to quantize (cpu_search8), one to dequantize
 *
 * Versions (bf16, block 256, one core of a Zen 3, AVX2, beside bitsandbytes' CPU library):
 *   1  quantize8: bucket and one comparison, scalar: 4.5 times bitsandbytes
 *      dequantize8: vgatherdps: 1.2 to 1.8 times
 *   One core of a Zen 5, fp32, 128 K elements in cache, ns an element, AVX2 and AVX-512:
 *   2  buckets of a block first, then their look-ups: quantize8 from 1.35 and 1.43 to 0.85 and 0.78
 *      16 loads in place of vgatherdps: dequantize8 from 0.45 and 0.34 to 0.20 and 0.22
 *
 *     make bench FILTER=quantize8/cpu
 */
#include "search8.h"
#include "tree.h"

fb_status ISA(cpu_quantize8)(fb_context *ctx, fb_map8 map, const void *src, fb_dtype t, int64_t n,
                             int32_t block_size, uint8_t *codes, float *absmax)
{
    const fb_status status = check_finite(ctx, "src", src, t, n);
    if (status != FB_OK) return status;
    const int64_t chunks = fb_ceil_div(n, QUANTIZE_CHUNK);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++) {
        float x[FB_BLOCK_MAX];
        const int64_t end = cpu_min((c + 1) * QUANTIZE_CHUNK, n);
        for (int64_t begin = c * QUANTIZE_CHUNK; begin < end; begin += block_size) {
            const int64_t count = cpu_min(block_size, n - begin);
            const float largest = stage_largest(src, t, begin, count, x);
            absmax[begin / block_size] = largest;
            quantize8_block(&cpu_search8_tables[map], x, count, largest, codes + begin);
        }
    }
    return FB_OK;
}

/* QLoRA (2023), section 3, "Double Quantization". */
fb_status ISA(cpu_double_quantize)(fb_context *ctx, const float *absmax, int64_t n, uint8_t *codes,
                                   float *nested_absmax, float *nested_offset)
{
    const fb_status status = check_finite(ctx, "absmax", absmax, FB_F32, n);
    if (status != FB_OK) return status;
    const series s = {.x = absmax, .t = FB_F32, .n = n};
    const float offset = (float)(tree_sum(ctx, &s) / (double)n);
    const int64_t groups = fb_ceil_div(n, FB_NESTED_BLOCK);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, fb_ceil_div(groups, 64)))
    for (int64_t g = 0; g < groups; g++) {
        float rest[FB_NESTED_BLOCK], x[FB_NESTED_BLOCK];
        const int64_t begin = g * FB_NESTED_BLOCK, count = cpu_min(FB_NESTED_BLOCK, n - begin);
        for (int64_t i = 0; i < count; i++) rest[i] = absmax[begin + i] - offset;
        nested_absmax[g] = stage_largest(rest, FB_F32, 0, count, x);
        quantize8_block(&cpu_search8_tables[FB_MAP_SIGNED], x, count, nested_absmax[g], codes + begin);
    }
    nested_offset[0] = offset;
    return FB_OK;
}

fb_status ISA(cpu_dequantize8)(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                               int32_t block_size, void *dst, fb_dtype t)
{
    float values[FB_CODES8];
    memcpy(values, fb_dynamic_bits[map], sizeof values);
    const int64_t chunks = fb_ceil_div(n, QUANTIZE_CHUNK);
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t last = cpu_min((c + 1) * QUANTIZE_CHUNK, n);
        for (int64_t begin = c * QUANTIZE_CHUNK; begin < last; begin += block_size) {
            const int64_t end = cpu_min(begin + block_size, last);
            const float scale = absmax[begin / block_size];
            int64_t i = begin;
#define DEQUANTIZE8(type) \
    for (; end - i >= VF; i += VF) vf_store_as(dst, type, i, vf_mul(vf_gather(values, codes + i), vf_set1(scale)));
            if (t == FB_F32) DEQUANTIZE8(FB_F32) else if (t == FB_BF16) DEQUANTIZE8(FB_BF16) else DEQUANTIZE8(FB_F16)
#undef DEQUANTIZE8
            for (; i < end; i++) fb_store(dst, t, i, values[codes[i]] * scale);
        }
    }
    return FB_OK;
}

/* A multiply and an add, each rounded: the order of formats.h. */
fb_status ISA(cpu_decode_absmax)(fb_context *ctx, const uint8_t *codes, const float *nested_absmax,
                                 const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax)
{
    float storage[FB_CODES8];
    const float *map = fb_nested_codebook(nested_codebook, storage);
    const int64_t groups = fb_ceil_div(n, FB_NESTED_BLOCK);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(ctx, fb_ceil_div(groups, 64)))
    for (int64_t g = 0; g < groups; g++) {
        const int64_t end = cpu_min((g + 1) * FB_NESTED_BLOCK, n);
        const vf scale = vf_set1(nested_absmax[g]), offset = vf_set1(nested_offset[0]);
        int64_t i = g * FB_NESTED_BLOCK;
        for (; end - i >= VF; i += VF) vf_store(absmax + i, vf_add(vf_mul(vf_gather(map, codes + i), scale), offset));
        for (; i < end; i++) {
            const float scaled = map[codes[i]] * nested_absmax[g];
            absmax[i] = scaled + nested_offset[0];
        }
    }
    return FB_OK;
}
