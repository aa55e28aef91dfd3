/* quantize_base.c: a linear layer's weight in 4 bits, on the model's device: quantized here or as a checkpoint holds it.
 *
 * A normalised weight is w = z * deviation + mean with z quantized. The deviation goes into absmax (one rounding a block,
 * relative 2^-24, where dequantize and denormalize would have rounded each weight), and the mean adds mean * sum(x) to
 * every output: products stay fused.
 *
 * INT3, the experiment's control, is no format of the library: blocks of block_size, scale = largest |w| / 3, codes
 * rint(w / scale) in -3 ... 3, held as FB_INT4 with that scale as absmax. So products and memory are INT4's, and the
 * error is that of 7 levels. */
#include "run.h"

#include <stdlib.h>

#ifdef LM_DOUBLE
/* The gradient check's model is dense. */
bool lm_quantize(lm_model *m, lm_linear *l, float *w, ck_error *e) { return (void)m, (void)w, ck_fail(e, "model", l->module, "4 bits need fp32"); }
bool lm_adopt(lm_model *m, lm_linear *l, const fb_matrix *given, bool normalized, const float moments[2], ck_error *e)
{
    return (void)given, (void)normalized, (void)moments, lm_quantize(m, l, NULL, e);
}
#else

static void quantize_int3(const float *w, fb_matrix *q)
{
    int64_t n = q->rows * q->cols;
    memset(q->codes, FB_INT4_ZERO << 4 | FB_INT4_ZERO, (size_t)fb_code_bytes(n));
    for (int64_t begin = 0; begin < n; begin += q->block_size) {
        int64_t end = begin + q->block_size < n ? begin + q->block_size : n;
        float largest = 0;
        for (int64_t i = begin; i < end; i++) largest = fmaxf(largest, fabsf(w[i]));
        float scale = largest / 3;
        q->absmax[begin / q->block_size] = scale;
        for (int64_t i = begin; i < end; i++) {
            unsigned code = (unsigned)(FB_INT4_ZERO + (scale > 0 ? (int)rintf(w[i] / scale) : 0));
            int shift = i % 2 ? 0 : 4;
            q->codes[i / 2] = (uint8_t)((q->codes[i / 2] & ~(15u << shift)) | code << shift);
        }
    }
}

/* The deviation of a normalised weight, into its scales. */
static void scale_absmax(fb_matrix *q, float deviation)
{
    int64_t blocks = fb_block_count(q->rows * q->cols, q->block_size);
    if (q->double_quant) {
        for (int64_t i = 0; i < fb_ceil_div(blocks, FB_NESTED_BLOCK); i++) q->nested_absmax[i] *= deviation;
        *q->nested_offset *= deviation;
    } else
        for (int64_t i = 0; i < blocks; i++) q->absmax[i] *= deviation;
}

/* l->quant = host's, with buffers of the device. */
static bool place(lm_model *m, lm_linear *l, const fb_matrix *host, const void *buffer, size_t bytes, ck_error *e)
{
    void *p = lm_take(m, bytes, &m->memory.base_linear, e);
    if (!p) return false;
    if (!m->device->upload(m->device, p, buffer, bytes)) return lm_device_failed(m, "weights", e);
    l->quant = *host;
    if (fb_matrix_bind(&l->quant, p, bytes) != FB_OK) return ck_fail(e, "model", l->module, "its buffer cannot be bound");
    return true;
}

static bool own_codebook(lm_model *m, const float **codebook, int values, ck_error *e)
{
    if (!*codebook) return true;
    float *p = lm_take(m, (size_t)values * sizeof *p, &m->memory.base_linear, e);
    if (!p) return false;
    if (!m->device->upload(m->device, p, *codebook, (size_t)values * sizeof *p)) return lm_device_failed(m, "a codebook", e);
    *codebook = p;
    return true;
}

/* On the host, by the CPU backend: its bits are every backend's. */
static bool quantize(fb_context *ctx, const lm_options *o, float *w, fb_matrix *q, lm_linear *l)
{
    fb_status status = FB_OK;
    int64_t n = q->rows * q->cols;
    l->normalized = o->normalize;
    if (o->normalize) status = fb_normalize(ctx, w, FB_F32, n, w, FB_F32, l->moments);
    if (status != FB_OK) return false;
    if (o->base == LM_BASE_INT3) quantize_int3(w, q);
    else status = fb_quantize(ctx, w, FB_F32, q);
    if (status == FB_OK && o->normalize) scale_absmax(q, l->moments[1]);
    return status == FB_OK;
}

bool lm_quantize(lm_model *m, lm_linear *l, float *w, ck_error *e)
{
    const lm_options *o = &m->options;
    bool int3 = o->base == LM_BASE_INT3;
    fb_context ctx;
    fb_matrix q;
    fb_context_init(&ctx, o->backend == FB_BACKEND_REFERENCE ? FB_BACKEND_REFERENCE : FB_BACKEND_CPU);
    ctx.threads = o->threads;
    if (fb_matrix_init(&q, int3 ? FB_INT4 : o->format, l->out_features, l->in_features, o->block_size, o->double_quant && !int3) != FB_OK)
        return ck_fail(e, "model", l->module, "this format or block size is not one the library has");
    size_t bytes = fb_matrix_bytes(&q), workspace = 0;
    if (fb_workspace_size(&ctx, FB_OP_QUANTIZE, &q, 0, FB_F32, &workspace) != FB_OK) return ck_fail(e, "model", l->module, "%s", ctx.message);
    void *buffer = NULL, *space = NULL;
    bool ok = posix_memalign(&buffer, 256, bytes + 1) == 0 && posix_memalign(&space, 64, workspace + 1) == 0;
    if (!ok) ck_fail(e, "model", l->module, "no memory to quantize it");
    if (ok) memset(buffer, 0, bytes);
    ctx.workspace = space, ctx.workspace_bytes = workspace;
    ok = ok && fb_matrix_bind(&q, buffer, bytes) == FB_OK;
    if (ok && !quantize(&ctx, o, w, &q, l)) ok = ck_fail(e, "model", l->module, "%s", ctx.message);
    ok = ok && place(m, l, &q, buffer, bytes, e);
    free(buffer), free(space);
    return ok;
}

bool lm_adopt(lm_model *m, lm_linear *l, const fb_matrix *given, bool normalized, const float moments[2], ck_error *e)
{
    fb_matrix q = *given;
    fb_matrix_sizes s;
    if (given->rows != l->out_features || given->cols != l->in_features || fb_matrix_get_sizes(given, &s) != FB_OK)
        return ck_fail(e, "checkpoint", l->module, "is [%lld, %lld], the configuration says [%lld, %lld]", (long long)given->rows,
                       (long long)given->cols, (long long)l->out_features, (long long)l->in_features);
    size_t bytes = fb_matrix_bytes(&q);
    void *buffer = NULL;
    if (posix_memalign(&buffer, 256, bytes + 1)) return ck_fail(e, "model", l->module, "no memory for its codes");
    memset(buffer, 0, bytes);
    bool ok = fb_matrix_bind(&q, buffer, bytes) == FB_OK;
    const struct { void *to; const void *from; size_t bytes; } parts[] = {
        {q.codes, given->codes, s.codes}, {q.absmax, given->absmax, s.absmax}, {q.absmax_codes, given->absmax_codes, s.absmax_codes},
        {q.nested_absmax, given->nested_absmax, s.nested_absmax}, {q.nested_offset, given->nested_offset, s.nested_offset},
        {q.zero_points, given->zero_points, s.zero_points}};
    for (size_t i = 0; ok && i < sizeof parts / sizeof *parts; i++)
        if (parts[i].bytes) memcpy(parts[i].to, parts[i].from, parts[i].bytes);
    l->normalized = normalized;
    if (normalized) l->moments[0] = moments[0], l->moments[1] = moments[1], scale_absmax(&q, moments[1]);
    ok = ok && place(m, l, &q, buffer, bytes, e) && own_codebook(m, &l->quant.codebook, FB_CODES, e) &&
         own_codebook(m, &l->quant.nested_codebook, FB_CODES8, e);
    free(buffer);
    return ok;
}
#endif
