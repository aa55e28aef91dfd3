/* test_peer.c: a library with a symbol of bitsandbytes', which behaves as FOURBIT_TEST_PEER says: "right", "wrong"
 * (one element), "abort". test_bench.c loads it as a peer. */
#include "formats.h"

#include <stdlib.h>

void cdequantize_blockwise_cpu_nf4_bf16(const uint8_t *codes, const float *absmax, uint16_t *out, long long block_size,
                                        long long rows, long long cols);
void cdequantize_blockwise_cpu_nf4_bf16(const uint8_t *codes, const float *absmax, uint16_t *out, long long block_size,
                                        long long rows, long long cols)
{
    const char *mood = getenv("FOURBIT_TEST_PEER");
    if (!mood || strcmp(mood, "abort") == 0) abort();
    for (int64_t i = 0; i < rows * cols; i++)
        out[i] = fb_float_to_bf16(fb_bits_to_float(fb_codebook_bits[FB_NF4][fb_nibble(codes, i)]) * absmax[i / block_size]);
    if (strcmp(mood, "wrong") == 0) out[rows * cols - 1] = fb_float_to_bf16(3 * fb_bf16_to_float(out[rows * cols - 1]) + 1);
}
