/* fourbit.c: argument checks, then dispatch to a backend's table.
 *
 * Every check is made here, once, so that a backend's slot can be all kernel (what
 * a slot may rely on is in backend.h). A check names the argument it rejects. */
#include "backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef FB_WITH_CUDA /* then there may still be one in the program: weak */
const fb_ops *fb_cuda_ops(char *why) __attribute__((weak));
#endif
/* The executor's table is there only in programs that link the executor. */
const fb_ops *fb_simt_ops(char *why) __attribute__((weak));

/* ---- messages --------------------------------------------------------------------- */

const char *fb_status_name(fb_status status)
{
    switch (status) {
    case FB_OK: return "FB_OK";
    case FB_INVALID_ARGUMENT: return "FB_INVALID_ARGUMENT";
    case FB_NONFINITE: return "FB_NONFINITE";
    case FB_WORKSPACE_TOO_SMALL: return "FB_WORKSPACE_TOO_SMALL";
    case FB_UNSUPPORTED: return "FB_UNSUPPORTED";
    case FB_BACKEND_UNAVAILABLE: return "FB_BACKEND_UNAVAILABLE";
    case FB_BACKEND_ERROR: return "FB_BACKEND_ERROR";
    }
    return "unknown fb_status";
}

fb_status fb_fail(fb_context *ctx, fb_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(ctx->message, sizeof ctx->message, format, args);
    va_end(args);
    return status;
}

fb_status fb_fail_nonfinite(fb_context *ctx, const char *what, int64_t index, float value)
{
    return fb_fail(ctx, FB_NONFINITE, "%s[%lld] is %s; only finite values can be quantized", what, (long long)index,
                   value != value ? "NaN" : value > 0 ? "+Inf" : "-Inf");
}

/* ---- backends ----------------------------------------------------------------------- */

static const fb_ops *cuda_ops(char *why)
{
    const char *choice = getenv("FOURBIT_CUDA");
    if (choice && strcmp(choice, "simt") == 0) {
        if (fb_simt_ops) return fb_simt_ops(why);
        snprintf(why, FB_MESSAGE_SIZE, "FOURBIT_CUDA=simt, but the SIMT executor is not linked into this program");
        return NULL;
    }
    if (choice && *choice && strcmp(choice, "gpu") != 0) {
        snprintf(why, FB_MESSAGE_SIZE, "FOURBIT_CUDA=%.64s is neither \"gpu\" nor \"simt\"", choice);
        return NULL;
    }
#ifndef FB_WITH_CUDA
    if (!fb_cuda_ops) {
        snprintf(why, FB_MESSAGE_SIZE, "this library was built without CUDA (no nvcc)");
        return NULL;
    }
#endif
    return fb_cuda_ops(why);
}

static const fb_ops *backend_ops(fb_backend backend, char *why)
{
    switch (backend) {
    case FB_BACKEND_REFERENCE: return fb_reference_ops();
    case FB_BACKEND_CPU: return fb_cpu_ops(why);
    case FB_BACKEND_CUDA: return cuda_ops(why);
    case FB_BACKEND_PLUGIN: return fb_plugin_ops(why);
    case FB_BACKEND_COUNT: break;
    }
    snprintf(why, FB_MESSAGE_SIZE, "ctx->backend is %d; backends are 0 ... %d", (int)backend, FB_BACKEND_COUNT - 1);
    return NULL;
}

void fb_context_init(fb_context *ctx, fb_backend backend)
{
    if (!ctx) return;
    memset(ctx, 0, sizeof *ctx);
    ctx->backend = backend;
}

const char *fb_backend_name(fb_backend backend)
{
    static const char *const names[] = {"reference", "cpu", "cuda", "plugin"};
    FB_STATIC_ASSERT(sizeof names / sizeof *names == FB_BACKEND_COUNT, "a name for each backend");
    return (unsigned)backend < FB_BACKEND_COUNT ? names[backend] : "?";
}

const char *fb_backend_variant(fb_backend backend)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = backend_ops(backend, why);
    return ops ? ops->variant : "";
}

/* The table to call, or NULL with *status set. Every public function begins here. */
static const fb_ops *begin(fb_context *ctx, fb_status *status)
{
    *status = FB_INVALID_ARGUMENT;
    if (!ctx) return NULL;
    ctx->message[0] = '\0';
    if ((unsigned)ctx->backend >= FB_BACKEND_COUNT) {
        backend_ops(ctx->backend, ctx->message);
        return NULL;
    }
    if (ctx->threads < 0) {
        fb_fail(ctx, FB_INVALID_ARGUMENT, "ctx->threads is %d; it must be 0 (all cores) or more", ctx->threads);
        return NULL;
    }
    *status = FB_BACKEND_UNAVAILABLE;
    return backend_ops(ctx->backend, ctx->message);
}

fb_status fb_backend_available(fb_context *ctx)
{
    fb_status status;
    return begin(ctx, &status) ? FB_OK : status;
}

/* ---- checks: each returns FB_OK or writes the message ----------------------------------- */

#define TRY(call)                              \
    do {                                       \
        fb_status try_status = (call);         \
        if (try_status != FB_OK) return try_status; \
    } while (0)

static fb_status check_dtype(fb_context *ctx, const char *name, fb_dtype t)
{
    if ((unsigned)t < FB_DTYPE_COUNT) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s is %d; it must be FB_F32, FB_BF16 or FB_F16", name, (int)t);
}

static fb_status check_pointer(fb_context *ctx, const char *name, const void *p, size_t alignment, int64_t n)
{
    if (n == 0) return FB_OK;
    if (!p) return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s is NULL", name);
    if ((uintptr_t)p % alignment)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s is not aligned to its element (%zu bytes)", name, alignment);
    return FB_OK;
}

static fb_status check_data(fb_context *ctx, const char *name, const void *p, const char *dtype_name, fb_dtype t,
                            int64_t n)
{
    TRY(check_dtype(ctx, dtype_name, t));
    return check_pointer(ctx, name, p, fb_dtype_size(t), n);
}

static fb_status check_count(fb_context *ctx, const char *name, int64_t n)
{
    if (n >= 0 && n < (int64_t)1 << 60) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s is %lld; it must be 0 ... 2^60", name, (long long)n);
}

static fb_status check_block_size(fb_context *ctx, int64_t block_size)
{
    if (fb_block_size_valid(block_size)) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "block_size is %lld; it must be a power of two, %d ... %d",
                   (long long)block_size, FB_BLOCK_MIN, FB_BLOCK_MAX);
}

/* m * d elements of activations */
static fb_status check_activations(fb_context *ctx, const char *name, int64_t m, int64_t d)
{
    TRY(check_count(ctx, "m", m));
    if (d == 0 || m < ((int64_t)1 << 60) / d) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "m * %s is %lld * %lld; the product must stay below 2^60", name,
                   (long long)m, (long long)d);
}

static fb_status check_shape(fb_context *ctx, const fb_matrix *w)
{
    if (!w) return fb_fail(ctx, FB_INVALID_ARGUMENT, "w is NULL");
    if ((unsigned)w->format >= FB_FORMAT_COUNT)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "format is %d; formats are 0 ... %d", (int)w->format,
                       FB_FORMAT_COUNT - 1);
    TRY(check_block_size(ctx, w->block_size));
    TRY(check_count(ctx, "rows", w->rows));
    TRY(check_count(ctx, "cols", w->cols));
    if (w->cols && w->rows >= ((int64_t)1 << 60) / w->cols)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "rows * cols is %lld * %lld; the product must stay below 2^60",
                       (long long)w->rows, (long long)w->cols);
    return FB_OK;
}

static fb_status check_matrix(fb_context *ctx, const fb_matrix *w)
{
    TRY(check_shape(ctx, w));
    int64_t n = w->rows * w->cols;
    TRY(check_pointer(ctx, "w->codes", w->codes, 1, n));
    if (w->double_quant) {
        TRY(check_pointer(ctx, "w->absmax_codes", w->absmax_codes, 1, n));
        TRY(check_pointer(ctx, "w->nested_absmax", w->nested_absmax, sizeof(float), n));
        TRY(check_pointer(ctx, "w->nested_offset", w->nested_offset, sizeof(float), n));
    } else {
        TRY(check_pointer(ctx, "w->absmax", w->absmax, sizeof(float), n));
    }
    if (w->format == FB_INT4_AFFINE) TRY(check_pointer(ctx, "w->zero_points", w->zero_points, 1, n));
    if ((uintptr_t)w->codebook % sizeof(float))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "w->codebook is not aligned to 4 bytes");
    if ((uintptr_t)w->nested_codebook % sizeof(float))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "w->nested_codebook is not aligned to 4 bytes");
    return FB_OK;
}

static fb_status check_workspace(fb_context *ctx, size_t needed)
{
    if (needed == 0) return FB_OK;
    if (!ctx->workspace || ctx->workspace_bytes < needed)
        return fb_fail(ctx, FB_WORKSPACE_TOO_SMALL,
                       "ctx->workspace has %zu bytes, %zu are needed (fb_workspace_size, fb_lora_workspace_size tell)",
                       ctx->workspace ? ctx->workspace_bytes : 0, needed);
    if ((uintptr_t)ctx->workspace % 64)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "ctx->workspace is not aligned to 64 bytes");
    return FB_OK;
}

#define BEGIN(ctx)                          \
    fb_status begin_status;                 \
    const fb_ops *ops = begin(ctx, &begin_status); \
    if (!ops) return begin_status

/* ---- quantized matrices ------------------------------------------------------------------ */

enum { PART_ALIGNMENT = 256 };

static size_t aligned(size_t bytes) { return (bytes + PART_ALIGNMENT - 1) / PART_ALIGNMENT * PART_ALIGNMENT; }

fb_status fb_matrix_init(fb_matrix *w, fb_format format, int64_t rows, int64_t cols, int32_t block_size,
                         bool double_quant)
{
    if (!w) return FB_INVALID_ARGUMENT;
    memset(w, 0, sizeof *w);
    fb_matrix made = {.format = format, .block_size = block_size, .rows = rows, .cols = cols,
                      .double_quant = double_quant};
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    TRY(check_shape(&ctx, &made));
    *w = made;
    return FB_OK;
}

fb_status fb_matrix_get_sizes(const fb_matrix *w, fb_matrix_sizes *sizes)
{
    if (!sizes) return FB_INVALID_ARGUMENT;
    memset(sizes, 0, sizeof *sizes);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    TRY(check_shape(&ctx, w));
    int64_t n = w->rows * w->cols;
    sizes->elements = n;
    sizes->blocks = fb_block_count(n, w->block_size);
    sizes->codes = (size_t)fb_code_bytes(n);
    if (w->double_quant) {
        sizes->nested_blocks = fb_ceil_div(sizes->blocks, FB_NESTED_BLOCK);
        sizes->absmax_codes = (size_t)sizes->blocks;
        sizes->nested_absmax = (size_t)sizes->nested_blocks * sizeof(float);
        sizes->nested_offset = n ? sizeof(float) : 0;
    } else {
        sizes->absmax = (size_t)sizes->blocks * sizeof(float);
    }
    if (w->format == FB_INT4_AFFINE) sizes->zero_points = (size_t)sizes->blocks;
    sizes->total = sizes->codes + sizes->absmax + sizes->absmax_codes + sizes->nested_absmax +
                   sizes->nested_offset + sizes->zero_points;
    sizes->bits_per_weight = n ? 8.0 * (double)sizes->total / (double)n : 0.0;
    return FB_OK;
}

size_t fb_matrix_bytes(const fb_matrix *w)
{
    fb_matrix_sizes s;
    if (fb_matrix_get_sizes(w, &s) != FB_OK) return 0;
    return aligned(s.codes) + aligned(s.absmax) + aligned(s.absmax_codes) + aligned(s.nested_absmax) +
           aligned(s.nested_offset) + aligned(s.zero_points);
}

fb_status fb_matrix_bind(fb_matrix *w, void *buffer, size_t bytes)
{
    fb_matrix_sizes s;
    TRY(fb_matrix_get_sizes(w, &s));
    if (bytes < fb_matrix_bytes(w) || (s.elements && (!buffer || (uintptr_t)buffer % sizeof(float))))
        return FB_INVALID_ARGUMENT;
    uint8_t *next = buffer;
    struct { size_t bytes; void **pointer; } parts[] = {
        {s.codes, (void **)&w->codes},                 {s.absmax, (void **)&w->absmax},
        {s.absmax_codes, (void **)&w->absmax_codes},   {s.nested_absmax, (void **)&w->nested_absmax},
        {s.nested_offset, (void **)&w->nested_offset}, {s.zero_points, (void **)&w->zero_points}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].pointer = parts[i].bytes ? next : NULL;
        if (parts[i].bytes) next += aligned(parts[i].bytes);
    }
    return FB_OK;
}

static bool is_lora(fb_op op) { return op == FB_OP_LORA_FORWARD || op == FB_OP_LORA_BACKWARD; }

static fb_status check_workspace_query(fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype dtype, const size_t *bytes)
{
    TRY(check_shape(ctx, w));
    TRY(check_activations(ctx, "max(rows, cols)", m, w->rows > w->cols ? w->rows : w->cols));
    TRY(check_dtype(ctx, "dtype", dtype));
    return bytes ? FB_OK : fb_fail(ctx, FB_INVALID_ARGUMENT, "bytes is NULL");
}

/* rank itself, and that A, B and U stay below 2^60 elements */
static fb_status check_rank(fb_context *ctx, const char *name, const fb_matrix *w, int32_t rank, int64_t m)
{
    if (rank < 1 || rank > FB_LORA_RANK_MAX)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s is %d; it must be 1 ... %d", name, (int)rank, FB_LORA_RANK_MAX);
    const struct { const char *name; int64_t d; } sides[] = {{"rows", w->rows}, {"cols", w->cols}, {"m", m}};
    for (int i = 0; i < 3; i++)
        if (sides[i].d >= ((int64_t)1 << 60) / rank)
            return fb_fail(ctx, FB_INVALID_ARGUMENT, "%s * %s is %lld * %d; the product must stay below 2^60", sides[i].name,
                           name, (long long)sides[i].d, (int)rank);
    return FB_OK;
}

fb_status fb_workspace_size(fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype, size_t *bytes)
{
    BEGIN(ctx);
    if ((unsigned)op >= FB_OP_COUNT)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "op is %d; operations are 0 ... %d", (int)op, FB_OP_COUNT - 1);
    if (is_lora(op))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "op is %d, whose workspace depends on the rank: fb_lora_workspace_size tells", (int)op);
    TRY(check_workspace_query(ctx, w, m, dtype, bytes));
    *bytes = ops->workspace(ctx, op, w, m, dtype);
    return FB_OK;
}

fb_status fb_lora_workspace_size(fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m,
                                 fb_dtype dtype, size_t *bytes)
{
    BEGIN(ctx);
    if (!is_lora(op))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "op is %d; it must be FB_OP_LORA_FORWARD or FB_OP_LORA_BACKWARD", (int)op);
    TRY(check_workspace_query(ctx, w, m, dtype, bytes));
    TRY(check_rank(ctx, "rank", w, rank, m));
    *bytes = ops->lora_workspace(ctx, op, w, rank, m, dtype);
    return FB_OK;
}

/* ---- 4-bit ------------------------------------------------------------------------------------ */

fb_status fb_quantize(fb_context *ctx, const void *src, fb_dtype src_dtype, fb_matrix *dst)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, dst));
    int64_t n = dst->rows * dst->cols;
    TRY(check_data(ctx, "src", src, "src_dtype", src_dtype, n));
    if (dst->codebook || dst->nested_codebook)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "dst->%s is set; quantize uses the format's own table (NULL)",
                       dst->codebook ? "codebook" : "nested_codebook");
    if (n == 0) return FB_OK;
    TRY(check_workspace(ctx, ops->workspace(ctx, FB_OP_QUANTIZE, dst, 0, src_dtype)));
    return ops->quantize(ctx, src, src_dtype, dst);
}

fb_status fb_dequantize(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype dst_dtype)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, src));
    int64_t n = src->rows * src->cols;
    TRY(check_data(ctx, "dst", dst, "dst_dtype", dst_dtype, n));
    if (n == 0) return FB_OK;
    TRY(check_workspace(ctx, ops->workspace(ctx, FB_OP_DEQUANTIZE, src, 0, dst_dtype)));
    return ops->dequantize(ctx, src, dst, dst_dtype);
}

fb_status fb_double_quantize(fb_context *ctx, const float *absmax, int64_t n, uint8_t *absmax_codes,
                             float *nested_absmax, float *nested_offset)
{
    BEGIN(ctx);
    TRY(check_count(ctx, "n", n));
    TRY(check_pointer(ctx, "absmax", absmax, sizeof(float), n));
    TRY(check_pointer(ctx, "absmax_codes", absmax_codes, 1, n));
    TRY(check_pointer(ctx, "nested_absmax", nested_absmax, sizeof(float), n));
    TRY(check_pointer(ctx, "nested_offset", nested_offset, sizeof(float), n));
    return n == 0 ? FB_OK : ops->double_quantize(ctx, absmax, n, absmax_codes, nested_absmax, nested_offset);
}

fb_status fb_decode_absmax(fb_context *ctx, const uint8_t *absmax_codes, const float *nested_absmax,
                           const float *nested_offset, const float *nested_codebook, int64_t n, float *absmax)
{
    BEGIN(ctx);
    TRY(check_count(ctx, "n", n));
    TRY(check_pointer(ctx, "absmax_codes", absmax_codes, 1, n));
    TRY(check_pointer(ctx, "nested_absmax", nested_absmax, sizeof(float), n));
    TRY(check_pointer(ctx, "nested_offset", nested_offset, sizeof(float), n));
    if (nested_codebook) TRY(check_pointer(ctx, "nested_codebook", nested_codebook, sizeof(float), n));
    TRY(check_pointer(ctx, "absmax", absmax, sizeof(float), n));
    if (n == 0) return FB_OK;
    return ops->decode_absmax(ctx, absmax_codes, nested_absmax, nested_offset, nested_codebook, n, absmax);
}

/* ---- 8-bit blockwise ---------------------------------------------------------------------------- */

static fb_status check_map(fb_context *ctx, fb_map8 map)
{
    if ((unsigned)map < FB_MAP8_COUNT) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "map is %d; it must be FB_MAP_SIGNED or FB_MAP_UNSIGNED", (int)map);
}

fb_status fb_quantize8(fb_context *ctx, fb_map8 map, const void *src, fb_dtype src_dtype, int64_t n,
                       int32_t block_size, uint8_t *codes, float *absmax)
{
    BEGIN(ctx);
    TRY(check_map(ctx, map));
    TRY(check_count(ctx, "n", n));
    TRY(check_block_size(ctx, block_size));
    TRY(check_data(ctx, "src", src, "src_dtype", src_dtype, n));
    TRY(check_pointer(ctx, "codes", codes, 1, n));
    TRY(check_pointer(ctx, "absmax", absmax, sizeof(float), n));
    return n == 0 ? FB_OK : ops->quantize8(ctx, map, src, src_dtype, n, block_size, codes, absmax);
}

fb_status fb_dequantize8(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n,
                         int32_t block_size, void *dst, fb_dtype dst_dtype)
{
    BEGIN(ctx);
    TRY(check_map(ctx, map));
    TRY(check_count(ctx, "n", n));
    TRY(check_block_size(ctx, block_size));
    TRY(check_pointer(ctx, "codes", codes, 1, n));
    TRY(check_pointer(ctx, "absmax", absmax, sizeof(float), n));
    TRY(check_data(ctx, "dst", dst, "dst_dtype", dst_dtype, n));
    return n == 0 ? FB_OK : ops->dequantize8(ctx, map, codes, absmax, n, block_size, dst, dst_dtype);
}

/* ---- normalise --------------------------------------------------------------------------------------- */

static fb_status check_normalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                                 fb_dtype dst_dtype, const float *moments)
{
    TRY(check_count(ctx, "n", n));
    TRY(check_data(ctx, "src", src, "src_dtype", src_dtype, n));
    TRY(check_data(ctx, "dst", dst, "dst_dtype", dst_dtype, n));
    return check_pointer(ctx, "moments", moments, sizeof(float), n);
}

fb_status fb_normalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, void *dst,
                       fb_dtype dst_dtype, float *moments)
{
    BEGIN(ctx);
    TRY(check_normalize(ctx, src, src_dtype, n, dst, dst_dtype, moments));
    return n == 0 ? FB_OK : ops->normalize(ctx, src, src_dtype, n, dst, dst_dtype, moments);
}

fb_status fb_denormalize(fb_context *ctx, const void *src, fb_dtype src_dtype, int64_t n, const float *moments,
                         void *dst, fb_dtype dst_dtype)
{
    BEGIN(ctx);
    TRY(check_normalize(ctx, src, src_dtype, n, dst, dst_dtype, moments));
    return n == 0 ? FB_OK : ops->denormalize(ctx, src, src_dtype, n, moments, dst, dst_dtype);
}

/* ---- AdamW ------------------------------------------------------------------------------------------- */

fb_adamw_factors fb_adamw_get_factors(const fb_adamw *h)
{
    double correction1 = 1.0 - pow(h->beta1, (double)h->step), correction2 = 1.0 - pow(h->beta2, (double)h->step);
    return (fb_adamw_factors){
        .grad_scale = h->grad_scale,
        .decay = (float)(1.0 - (double)h->lr * (double)h->weight_decay),
        .beta1 = h->beta1,
        .rest1 = (float)(1.0 - (double)h->beta1),
        .beta2 = h->beta2,
        .rest2 = (float)(1.0 - (double)h->beta2),
        .step_size = (float)((double)h->lr / correction1),
        .sqrt_correction2 = (float)sqrt(correction2),
        .eps = h->eps,
    };
}

static fb_status check_range(fb_context *ctx, const char *name, float x, bool in_range, const char *range)
{
    if (in_range && isfinite(x)) return FB_OK;
    return fb_fail(ctx, FB_INVALID_ARGUMENT, "hyper->%s is %g; it must be finite%s", name, (double)x, range);
}

static fb_status check_adamw(fb_context *ctx, const fb_adamw *h, int64_t n, const void *params, fb_dtype params_dtype,
                             const void *grads, fb_dtype grads_dtype)
{
    if (!h) return fb_fail(ctx, FB_INVALID_ARGUMENT, "hyper is NULL");
    TRY(check_range(ctx, "lr", h->lr, h->lr >= 0, " and at least 0"));
    TRY(check_range(ctx, "beta1", h->beta1, h->beta1 >= 0 && h->beta1 < 1, " and in [0, 1)"));
    TRY(check_range(ctx, "beta2", h->beta2, h->beta2 >= 0 && h->beta2 < 1, " and in [0, 1)"));
    TRY(check_range(ctx, "eps", h->eps, h->eps > 0, " and above 0"));
    TRY(check_range(ctx, "weight_decay", h->weight_decay, h->weight_decay >= 0, " and at least 0"));
    TRY(check_range(ctx, "grad_scale", h->grad_scale, true, ""));
    if (h->step < 1)
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "hyper->step is %lld; the first step is 1", (long long)h->step);
    TRY(check_count(ctx, "n", n));
    TRY(check_data(ctx, "params", params, "params_dtype", params_dtype, n));
    return check_data(ctx, "grads", grads, "grads_dtype", grads_dtype, n);
}

fb_status fb_adamw32(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                     const void *grads, fb_dtype grads_dtype, float *m, float *v)
{
    BEGIN(ctx);
    TRY(check_adamw(ctx, hyper, n, params, params_dtype, grads, grads_dtype));
    TRY(check_pointer(ctx, "m", m, sizeof *m, n));
    TRY(check_pointer(ctx, "v", v, sizeof *v, n));
    return n == 0 ? FB_OK : ops->adamw32(ctx, hyper, n, params, params_dtype, grads, grads_dtype, m, v);
}

fb_status fb_adamw8(fb_context *ctx, const fb_adamw *hyper, int64_t n, void *params, fb_dtype params_dtype,
                    const void *grads, fb_dtype grads_dtype, uint8_t *m_codes, float *m_absmax, uint8_t *v_codes,
                    float *v_absmax)
{
    BEGIN(ctx);
    TRY(check_adamw(ctx, hyper, n, params, params_dtype, grads, grads_dtype));
    TRY(check_pointer(ctx, "m_codes", m_codes, 1, n));
    TRY(check_pointer(ctx, "m_absmax", m_absmax, sizeof *m_absmax, n));
    TRY(check_pointer(ctx, "v_codes", v_codes, 1, n));
    TRY(check_pointer(ctx, "v_absmax", v_absmax, sizeof *v_absmax, n));
    if (n == 0) return FB_OK;
    return ops->adamw8(ctx, hyper, n, params, params_dtype, grads, grads_dtype, m_codes, m_absmax, v_codes, v_absmax);
}

/* ---- products ---------------------------------------------------------------------------------------- */

static fb_weights declared_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t, bool dx)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = ctx && w ? backend_ops(ctx->backend, why) : NULL;
    if (!ops) return FB_WEIGHTS_ROUNDED;
    return (dx ? ops->gemm_dx_weights : ops->gemm_weights)(ctx, w, m, t);
}

fb_weights fb_gemm_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype x_dtype)
{
    return declared_weights(ctx, w, m, x_dtype, false);
}

fb_weights fb_gemm_dx_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype dy_dtype)
{
    return declared_weights(ctx, w, m, dy_dtype, true);
}

fb_status fb_gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                  void *y, fb_dtype y_dtype)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, w));
    TRY(check_activations(ctx, "rows", m, w->rows));
    TRY(check_activations(ctx, "cols", m, w->cols));
    TRY(check_data(ctx, "x", x, "x_dtype", x_dtype, m * w->cols));
    if (bias) TRY(check_pointer(ctx, "bias", bias, fb_dtype_size(x_dtype), w->rows));
    TRY(check_data(ctx, "y", y, "y_dtype", y_dtype, m * w->rows));
    if (m == 0 || w->rows == 0) return FB_OK;
    TRY(check_workspace(ctx, ops->workspace(ctx, FB_OP_GEMM, w, m, x_dtype)));
    return ops->gemm(ctx, w, m, x, x_dtype, bias, y, y_dtype);
}

fb_status fb_gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                     fb_dtype dx_dtype, bool accumulate)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, w));
    TRY(check_activations(ctx, "rows", m, w->rows));
    TRY(check_activations(ctx, "cols", m, w->cols));
    TRY(check_data(ctx, "dy", dy, "dy_dtype", dy_dtype, m * w->rows));
    TRY(check_data(ctx, "dx", dx, "dx_dtype", dx_dtype, m * w->cols));
    if (m == 0 || w->cols == 0) return FB_OK;
    TRY(check_workspace(ctx, ops->workspace(ctx, FB_OP_GEMM_DX, w, m, dy_dtype)));
    return ops->gemm_dx(ctx, w, m, dy, dy_dtype, dx, dx_dtype, accumulate);
}

/* ---- LoRA --------------------------------------------------------------------------------------------- */

static fb_status check_lora(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, fb_dtype t)
{
    if (!lora) return fb_fail(ctx, FB_INVALID_ARGUMENT, "lora is NULL");
    TRY(check_activations(ctx, "rows", m, w->rows));
    TRY(check_activations(ctx, "cols", m, w->cols));
    TRY(check_rank(ctx, "lora->rank", w, lora->rank, m));
    if (!(lora->dropout >= 0 && lora->dropout < 1))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "lora->dropout is %g; it must be in [0, 1)", (double)lora->dropout);
    if (!isfinite(fb_lora_factor(lora)))
        return fb_fail(ctx, FB_INVALID_ARGUMENT, "lora->scale is %g; scale / (1 - dropout) must be finite", (double)lora->scale);
    TRY(check_pointer(ctx, "lora->a", lora->a, fb_dtype_size(t), lora->rank * w->cols));
    return check_pointer(ctx, "lora->b", lora->b, fb_dtype_size(t), w->rows * lora->rank);
}

fb_weights fb_lora_weights(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype dtype)
{
    char why[FB_MESSAGE_SIZE];
    const fb_ops *ops = ctx && w ? backend_ops(ctx->backend, why) : NULL;
    return ops ? ops->lora_weights(ctx, op, w, rank, m, dtype) : FB_WEIGHTS_ROUNDED;
}

fb_status fb_lora_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                          fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype, void *u)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, w));
    TRY(check_dtype(ctx, "x_dtype", x_dtype));
    TRY(check_lora(ctx, w, lora, m, x_dtype));
    TRY(check_pointer(ctx, "x", x, fb_dtype_size(x_dtype), m * w->cols));
    if (bias) TRY(check_pointer(ctx, "bias", bias, fb_dtype_size(x_dtype), w->rows));
    TRY(check_data(ctx, "y", y, "y_dtype", y_dtype, m * w->rows));
    TRY(check_pointer(ctx, "u", u, fb_dtype_size(x_dtype), m * lora->rank));
    if (m == 0) return FB_OK;
    TRY(check_workspace(ctx, ops->lora_workspace(ctx, FB_OP_LORA_FORWARD, w, lora->rank, m, x_dtype)));
    return ops->lora_forward(ctx, w, lora, m, x, x_dtype, bias, y, y_dtype, u);
}

fb_status fb_lora_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                           const void *u, const void *dy, fb_dtype dtype, void *dx, fb_dtype dx_dtype,
                           bool accumulate_dx, float *da, float *db, bool accumulate_grads)
{
    BEGIN(ctx);
    TRY(check_matrix(ctx, w));
    TRY(check_dtype(ctx, "dtype", dtype));
    TRY(check_lora(ctx, w, lora, m, dtype));
    TRY(check_pointer(ctx, "x", x, fb_dtype_size(dtype), m * w->cols));
    TRY(check_pointer(ctx, "u", u, fb_dtype_size(dtype), m * lora->rank));
    TRY(check_pointer(ctx, "dy", dy, fb_dtype_size(dtype), m * w->rows));
    if (dx) TRY(check_data(ctx, "dx", dx, "dx_dtype", dx_dtype, m * w->cols));
    TRY(check_pointer(ctx, "da", da, sizeof *da, lora->rank * w->cols));
    TRY(check_pointer(ctx, "db", db, sizeof *db, w->rows * lora->rank));
    if ((m == 0 && accumulate_grads) || (w->rows == 0 && w->cols == 0)) return FB_OK;
    TRY(check_workspace(ctx, ops->lora_workspace(ctx, FB_OP_LORA_BACKWARD, w, lora->rank, m, dtype)));
    return ops->lora_backward(ctx, w, lora, m, x, u, dy, dtype, dx, dx_dtype, accumulate_dx, da, db, accumulate_grads);
}
