/* planted.c: bugs for the gates to find (test_gates.sh). */
#include "gates.h"

#include <stdlib.h>
#include <string.h>

bool plant(const char *bug); /* main.c calls it with $GATES_PLANT */

/* One byte's two codes the wrong way round. */
static fb_status swapped_nibble(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    fb_status status = fb_quantize(ctx, src, t, dst);
    int64_t i = 100;
    while (status == FB_OK && dst->codes[i] >> 4 == (dst->codes[i] & 15)) i++;
    if (status == FB_OK) dst->codes[i] = (uint8_t)(dst->codes[i] << 4 | dst->codes[i] >> 4);
    return status;
}

/* bf16 by cutting off instead of rounding to nearest even. */
static fb_status changed_rounding(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    int64_t n = src->rows * src->cols;
    float *exact = t == FB_BF16 ? malloc((size_t)n * sizeof *exact) : NULL;
    if (!exact) return fb_dequantize(ctx, src, dst, t);
    fb_status status = fb_dequantize(ctx, src, exact, FB_F32);
    for (int64_t i = 0; i < n; i++) ((uint16_t *)dst)[i] = (uint16_t)(fb_float_to_bits(exact[i]) >> 16);
    free(exact);
    return status;
}

/* The codes once more, four loads of 8 bytes where one of 32 would do. */
static fb_status lost_vector_load(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    int64_t words = src->rows * src->cols / 16;
    for (int64_t i = 0; i < words; i++) (void)((const volatile uint64_t *)(const void *)src->codes)[i];
    return fb_dequantize(ctx, src, dst, t);
}

bool plant(const char *bug)
{
    if (strcmp(bug, "swapped-nibble") == 0) gate_library.quantize = swapped_nibble;
    else if (strcmp(bug, "changed-rounding") == 0) gate_library.dequantize = changed_rounding;
    else if (strcmp(bug, "lost-vector-load") == 0) gate_library.dequantize = lost_vector_load;
    else return strcmp(bug, "extra-barrier") == 0; /* compiled into this program's quantize8.cu */
    return true;
}
