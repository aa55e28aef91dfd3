/* reference_ops.c: the reference as a backend. */
#include "reference.h"

/* Double quantization needs the fp32 absmax of every block before it can take
 * their mean: one fp32 a block. Nothing else needs workspace. */
static size_t ref_workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)ctx, (void)m, (void)t;
    if (op != FB_OP_QUANTIZE || !w->double_quant) return 0;
    return (size_t)fb_block_count(w->rows * w->cols, w->block_size) * sizeof(float);
}

static fb_weights ref_declares(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)ctx, (void)w, (void)m, (void)t;
    return FB_WEIGHTS_ROUNDED;
}

static fb_weights ref_lora_declares(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    (void)op, (void)rank;
    return ref_declares(ctx, w, m, t);
}

const fb_ops *fb_reference_ops(void)
{
    static const fb_ops ops = {
        .variant = "plain C",
        .workspace = ref_workspace,
        .quantize = ref_quantize,
        .dequantize = ref_dequantize,
        .double_quantize = ref_double_quantize,
        .decode_absmax = ref_decode_absmax,
        .quantize8 = ref_quantize8,
        .dequantize8 = ref_dequantize8,
        .normalize = ref_normalize,
        .denormalize = ref_denormalize,
        .adamw32 = ref_adamw32,
        .adamw8 = ref_adamw8,
        .gemm_weights = ref_declares,
        .gemm_dx_weights = ref_declares,
        .gemm = ref_gemm,
        .gemm_dx = ref_gemm_dx,
        .lora_workspace = ref_lora_workspace,
        .lora_weights = ref_lora_declares,
        .lora_forward = ref_lora_forward,
        .lora_backward = ref_lora_backward,
    };
    return &ops;
}
