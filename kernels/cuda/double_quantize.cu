/* double_quantize.cu — absmax [n] to 8-bit codes, a second-level absmax every 256 and their mean (reference/double_quantize.c).
 *
 * Moves 8 bytes an absmax in (twice 4: the mean first), 1 out. At block 64 that is 9/64 byte a weight beside the 2.5 of
 * quantizing it, so two launches do: the mean (tree_sum.cuh), then the codes (quantize8.cu, less the mean).
 * There is no workspace in the call: the mean's partial sums lie where the codes will be, the ticket where the mean will be.
 *
 *   v1  as above. H200, 1 M absmax: mean 8.6 us, codes 6.6 us (of 64 M weights, beside the 47 us of quantizing them)
 *
 * decode_absmax is in quantize8.cu: it is dequantize8 and one addition.
 */
#include "cuda_ops.h"
#include "tree_sum.cuh"

/* nested_offset holds 0 (as bits): the ticket. sums: fb_ceil_div(n, 256) doubles. nonfinite: NULL where absmax was made from
 * data that has been looked at (an index into absmax is not one into the data). */
extern "C" fb_status FB_CUDA(code_absmax)(fb_context *ctx, const float *absmax, int64_t n, uint8_t *absmax_codes,
                                          float *nested_absmax, float *nested_offset, double *sums,
                                          unsigned long long *nonfinite)
{
    fb_status status = fb_tree_sum<float, false>(ctx, absmax, n, nullptr, sums, (unsigned *)nested_offset, nested_offset,
                                                 nonfinite);
    if (status != FB_OK) return status;
    return FB_CUDA(quantize8_less)(ctx, absmax, nested_offset, n, absmax_codes, nested_absmax);
}

extern "C" fb_status FB_CUDA(double_quantize)(fb_context *ctx, const float *absmax, int64_t n, uint8_t *absmax_codes,
                                              float *nested_absmax, float *nested_offset)
{
    unsigned long long *nonfinite;
    fb_status status = fb_nonfinite_word(ctx, &nonfinite);
    if (status == FB_OK) status = fb_zero_word(ctx, "double_quantize", (unsigned *)nested_offset);
    if (status != FB_OK) return status;
    /* one group: the sum needs no company, and 8 aligned bytes may not fit into so few codes */
    double *sums = n <= FB_GROUP ? (double *)nullptr : fb_scratch_in(absmax_codes);
    return FB_CUDA(code_absmax)(ctx, absmax, n, absmax_codes, nested_absmax, nested_offset, sums, nonfinite);
}
