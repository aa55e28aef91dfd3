/* fourbit_plugin.h: a kernel of your own, validated and timed beside ours, without a change to this library.
 *
 * A plugin is a shared object with one function, fourbit_plugin, that returns a table of the operations it
 * implements. FOURBIT_PLUGIN=path/to/my.so makes it the backend FB_BACKEND_PLUGIN ("plugin"):
 *
 *     FOURBIT_PLUGIN=my.so build/validate/test_fourbit --backend plugin
 *     FOURBIT_PLUGIN=my.so build/bin/fourbit-bench --backends cpu,plugin
 *
 * What the table leaves NULL, and what its `supports` declines, the reference does: slow, and right. So a plugin
 * begins with one operation and one format. A whole example of 42 lines: validate/plugin_example/dequantize.c
 *
 *     static const fb_plugin plugin = {FB_PLUGIN_HEADER, .name = "mine", .dequantize = my_dequantize};
 *     FB_PLUGIN_EXPORT const fb_plugin *fourbit_plugin(void) { return &plugin; }
 *
 * The slots have the signatures and meaning of the public functions in fourbit.h. Arguments were checked before a
 * slot is called: enums and block sizes are valid; data pointers are not NULL, aligned to their element, in host
 * memory; n > 0, m > 0 and outputs are not empty (cols of a gemm, rows of a gemm_dx may be 0); the workspace is as
 * large as `workspace` asked for and aligned to 64 bytes; quantize gets no custom codebook. A slot may be called by
 * several threads at once. It returns FB_OK, or another status with a text in ctx->message.
 *
 * What no one can check for a slot: it must give the same bits whatever ctx->threads is, and quantize, quantize8,
 * double_quantize and adamw must refuse NaN and Inf as fourbit.h says, before they write (message:
 * "src[17] is NaN; ..."). The suites demand both.
 *
 * A plugin needs the headers fourbit_plugin.h, fourbit.h and formats.h, and links nothing: every rule of the formats
 * is a table or a static function in formats.h.
 */
#ifndef FOURBIT_PLUGIN_H
#define FOURBIT_PLUGIN_H

#include "fourbit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when the meaning or place of a field does. New slots are appended and change only the size, so that a
 * plugin built against an older header goes on working. */
#define FB_PLUGIN_VERSION 1

typedef struct fb_plugin {
    /* FB_PLUGIN_HEADER fills these. A plugin that sees other structs than the library is refused, not run. */
    uint32_t version, size, context_size, matrix_size;

    const char *name; /* shown as the backend's variant; not empty */

    /* Whether quantize, dequantize, gemm or gemm_dx has a kernel for this case; NULL: every case. Shape, format,
     * block size, double_quant and codebooks of w are set, its data pointers may be NULL. m and dtype as in
     * fb_workspace_size; the type of the other side may be any. Must depend on nothing else. */
    bool (*supports)(fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype);
    /* Bytes of ctx->workspace for a supported case; NULL: none. */
    size_t (*workspace)(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype);

    fb_status (*quantize)(fb_context *ctx, const void *src, fb_dtype src_dtype, fb_matrix *dst);
    fb_status (*dequantize)(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype dst_dtype);
    fb_status (*gemm)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype,
                      const void *bias, void *y, fb_dtype y_dtype);
    fb_status (*gemm_dx)(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                         fb_dtype dx_dtype, bool accumulate);
    /* How the products take a weight; NULL: FB_WEIGHTS_ROUNDED. They are held to what is declared here. */
    fb_weights (*gemm_weights)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype x_dtype);
    fb_weights (*gemm_dx_weights)(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype dy_dtype);

    fb_status (*double_quantize)(fb_context *ctx, const float *absmax, int64_t n, uint8_t *absmax_codes,
                                 float *nested_absmax, float *nested_offset);
    fb_status (*decode_absmax)(fb_context *ctx, const uint8_t *absmax_codes, const float *nested_absmax,
                               const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax);
    fb_status (*quantize8)(fb_context *ctx, fb_map8 map, const void *src, fb_dtype src_dtype, int64_t n,
                           int32_t block_size, uint8_t *codes, float *absmax);
    fb_status (*dequantize8)(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                             int32_t block_size, void *dst, fb_dtype dst_dtype);
    fb_status (*normalize)(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                           fb_dtype dst_dtype, float *moments);
    fb_status (*denormalize)(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, const float *moments,
                             void *dst, fb_dtype dst_dtype);
    fb_status (*adamw32)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                         const void *grads, fb_dtype grads_dtype, float *m, float *v);
    fb_status (*adamw8)(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                        const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax,
                        uint8_t *v_codes, float *v_absmax);

    /* LoRA: lora_forward and lora_backward together or neither (then the reference's), for every case: `supports` is not
     * asked. rows or cols may be 0, and m in a backward that sets gradients: what is left are sums of nothing. */
    size_t (*lora_workspace)(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m,
                             fb_dtype dtype); /* NULL: none */
    fb_weights (*lora_weights)(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m,
                               fb_dtype dtype); /* NULL: FB_WEIGHTS_ROUNDED */
    fb_status (*lora_forward)(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                              fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype, void *u);
    fb_status (*lora_backward)(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                               const void *u, const void *dy, fb_dtype dtype, void *dx, fb_dtype dx_dtype,
                               bool accumulate_dx, float *da, float *db, bool accumulate_grads);
} fb_plugin;

#define FB_PLUGIN_HEADER \
    FB_PLUGIN_VERSION, (uint32_t)sizeof(fb_plugin), (uint32_t)sizeof(fb_context), (uint32_t)sizeof(fb_matrix)

#define FB_PLUGIN_EXPORT __attribute__((visibility("default")))

/* The plugin's one function. Called once; the table must outlive the process' use of it. */
FB_PLUGIN_EXPORT const fb_plugin *fourbit_plugin(void);

/* In libfourbit: whether FB_BACKEND_PLUGIN runs the plugin's own code for this case; false where the reference
 * stands in, and when there is no plugin. A benchmark asks, so as not to time the reference under another name. */
bool fb_plugin_supports(fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
