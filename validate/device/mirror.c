/* mirror.c: runs a device backend under suites that know only host memory.
 *
 * The suites hand every backend host pointers, guarded and poisoned. Linked with this file and
 * -Wl,--wrap=fb_cuda_ops, a program's CUDA backend becomes the one below: each operand is copied into a device
 * buffer of exactly its size, at the same offset from a 256-byte boundary (so that an unaligned pointer stays unaligned),
 * between bands that must not change; the call is made on the device's stream; what is written comes back. An operand's
 * contents before the call go up too, written or not, so that "nothing was written" still shows.
 *
 * FOURBIT_MIRROR=tight leaves the band behind a buffer out: its end is then the allocation's, which is what
 * compute-sanitizer looks at. With -Wl,--wrap=fb_simt_ops the same is done to the executor's table, on host memory:
 * that is how this file is tested without a GPU.
 *
 * One call at a time: the suites' threads wait for each other here.
 */
#include "backend.h"
#include "bench/device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { BAND = 256, PATTERN = 0xa5, OPERANDS = 24 };

typedef struct operand {
    const char *name;
    void *host;
    char *base;  /* allocation: [residue] band, bytes, [after] band */
    size_t residue, bytes, after;
    bool written;
} operand;

typedef struct mirror {
    fb_context *outer, inner;
    operand list[OPERANDS];
    int count;
    bool failed;
} mirror;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static device *d;          /* lives as long as the program */
static const fb_ops *real; /* what is mirrored */

/* ---- operands ------------------------------------------------------------------------------------------------------- */

static bool is_tight(void)
{
    const char *text = getenv("FOURBIT_MIRROR");
    return text && strcmp(text, "tight") == 0;
}

/* The device's copy of host [bytes]; NULL stays NULL. */
static void *place(mirror *m, const char *name, const void *host, size_t bytes, bool written)
{
    if (!host || m->failed) return NULL;
    operand *o = &m->list[m->count];
    *o = (operand){.name = name, .host = (void *)(uintptr_t)host, .residue = (uintptr_t)host % BAND, .bytes = bytes,
                   .after = is_tight() ? 0 : BAND, .written = written};
    if (o->residue == 0 && !is_tight()) o->residue = BAND; /* a band before it too */
    o->base = m->count < OPERANDS ? d->alloc(d, o->residue + bytes + o->after) : NULL;
    if (o->base) m->count++;
    bool ok = o->base && d->fill(d, o->base, PATTERN, o->residue + bytes + o->after) &&
              (!bytes || d->upload(d, o->base + o->residue, host, bytes));
    if (ok) return o->base + o->residue;
    m->failed = true;
    fb_fail(m->outer, FB_BACKEND_ERROR, "mirror: %s: %.200s", name, d->why);
    return NULL;
}

static void start(mirror *m, fb_context *ctx)
{
    pthread_mutex_lock(&lock);
    *m = (mirror){.outer = ctx, .inner = *ctx};
    m->inner.stream = d->stream;
    m->inner.workspace = place(m, "workspace", ctx->workspace, ctx->workspace_bytes, true);
    m->inner.first_nonfinite = place(m, "first_nonfinite", ctx->first_nonfinite, sizeof(uint64_t), true);
}

static bool band_intact(const operand *o, size_t at, size_t bytes)
{
    unsigned char seen[BAND];
    if (!bytes) return true;
    if (!d->download(d, seen, o->base + at, bytes)) return false;
    for (size_t i = 0; i < bytes; i++)
        if (seen[i] != PATTERN) return false;
    return true;
}

/* Waits, brings back what was written, looks at the bands, frees. */
static fb_status finish(mirror *m, fb_status status)
{
    if (m->failed) status = FB_BACKEND_ERROR;
    else memcpy(m->outer->message, m->inner.message, sizeof m->outer->message);
    if (!m->failed && !d->wait(d)) status = fb_fail(m->outer, FB_BACKEND_ERROR, "mirror: %.200s", d->why);
    for (int i = 0; i < m->count; i++) {
        operand *o = &m->list[i];
        if (!m->failed && o->written && o->bytes && !d->download(d, o->host, o->base + o->residue, o->bytes))
            status = fb_fail(m->outer, FB_BACKEND_ERROR, "mirror: %s: %.200s", o->name, d->why);
        if (!m->failed && (!band_intact(o, 0, o->residue) || !band_intact(o, o->residue + o->bytes, o->after)))
            status = fb_fail(m->outer, FB_BACKEND_ERROR, "mirror: something was written outside %s (%zu bytes)", o->name, o->bytes);
        d->release(d, o->base);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

#define CALL(m, slot, ...) finish(&(m), (m).failed ? FB_BACKEND_ERROR : real->slot(&(m).inner, __VA_ARGS__))

static fb_matrix place_matrix(mirror *m, const fb_matrix *w, bool written)
{
    fb_matrix copy = *w;
    fb_matrix_sizes s;
    fb_matrix_get_sizes(w, &s);
    copy.codes = place(m, "codes", w->codes, s.codes, written);
    copy.absmax = s.absmax ? place(m, "absmax", w->absmax, s.absmax, written) : NULL;
    copy.absmax_codes = s.absmax_codes ? place(m, "absmax_codes", w->absmax_codes, s.absmax_codes, written) : NULL;
    copy.nested_absmax = s.nested_absmax ? place(m, "nested_absmax", w->nested_absmax, s.nested_absmax, written) : NULL;
    copy.nested_offset = s.nested_offset ? place(m, "nested_offset", w->nested_offset, s.nested_offset, written) : NULL;
    copy.zero_points = s.zero_points ? place(m, "zero_points", w->zero_points, s.zero_points, written) : NULL;
    copy.codebook = place(m, "codebook", w->codebook, FB_CODES * sizeof(float), false);
    copy.nested_codebook = place(m, "nested_codebook", w->nested_codebook, FB_CODES8 * sizeof(float), false);
    return copy;
}

static size_t size_of(fb_dtype t, int64_t n) { return (size_t)n * fb_dtype_size(t); }
static size_t singles(int64_t n) { return (size_t)n * sizeof(float); }

/* ---- slots ------------------------------------------------------------------------------------------------------------- */

static size_t workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t rows, fb_dtype t)
{
    return real->workspace ? real->workspace(ctx, op, w, rows, t) : 0;
}

static fb_status quantize(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *w)
{
    mirror m;
    start(&m, ctx);
    void *from = place(&m, "src", src, size_of(t, w->rows * w->cols), false);
    fb_matrix to = place_matrix(&m, w, true);
    return CALL(m, quantize, from, t, &to);
}

static fb_status dequantize(fb_context *ctx, const fb_matrix *w, void *dst, fb_dtype t)
{
    mirror m;
    start(&m, ctx);
    fb_matrix from = place_matrix(&m, w, false);
    void *to = place(&m, "dst", dst, size_of(t, w->rows * w->cols), true);
    return CALL(m, dequantize, &from, to, t);
}

static fb_status double_quantize(fb_context *ctx, const float *absmax, int64_t n, uint8_t *codes, float *nested, float *offset)
{
    mirror m;
    start(&m, ctx);
    void *from = place(&m, "absmax", absmax, singles(n), false), *to = place(&m, "absmax_codes", codes, (size_t)n, true);
    void *second = place(&m, "nested_absmax", nested, singles(fb_ceil_div(n, FB_NESTED_BLOCK)), true);
    void *mean = place(&m, "nested_offset", offset, sizeof(float), true);
    return CALL(m, double_quantize, from, n, to, second, mean);
}

static fb_status decode_absmax(fb_context *ctx, const uint8_t *codes, const float *nested, const float *offset, const float *book, int64_t n,
                               float *absmax)
{
    mirror m;
    start(&m, ctx);
    void *from = place(&m, "absmax_codes", codes, (size_t)n, false);
    void *second = place(&m, "nested_absmax", nested, singles(fb_ceil_div(n, FB_NESTED_BLOCK)), false);
    void *mean = place(&m, "nested_offset", offset, sizeof(float), false);
    void *map = place(&m, "nested_codebook", book, FB_CODES8 * sizeof(float), false), *to = place(&m, "absmax", absmax, singles(n), true);
    return CALL(m, decode_absmax, from, second, mean, map, n, to);
}

static fb_status quantize8(fb_context *ctx, fb_map8 map, const void *src, fb_dtype t, int64_t n, int32_t block, uint8_t *codes, float *absmax)
{
    mirror m;
    start(&m, ctx);
    void *from = place(&m, "src", src, size_of(t, n), false), *to = place(&m, "codes", codes, (size_t)n, true);
    void *scales = place(&m, "absmax", absmax, singles(fb_ceil_div(n, block)), true);
    return CALL(m, quantize8, map, from, t, n, block, to, scales);
}

static fb_status dequantize8(fb_context *ctx, fb_map8 map, const uint8_t *codes, const float *absmax, int64_t n, int32_t block, void *dst, fb_dtype t)
{
    mirror m;
    start(&m, ctx);
    void *from = place(&m, "codes", codes, (size_t)n, false), *scales = place(&m, "absmax", absmax, singles(fb_ceil_div(n, block)), false);
    void *to = place(&m, "dst", dst, size_of(t, n), true);
    return CALL(m, dequantize8, map, from, scales, n, block, to, t);
}

static fb_status normalize(fb_context *ctx, const void *src, fb_dtype from, int64_t n, void *dst, fb_dtype to, float *moments)
{
    mirror m;
    start(&m, ctx);
    void *a = place(&m, "src", src, size_of(from, n), false), *b = place(&m, "dst", dst, size_of(to, n), true);
    void *c = place(&m, "moments", moments, 2 * sizeof(float), true);
    return CALL(m, normalize, a, from, n, b, to, c);
}

static fb_status denormalize(fb_context *ctx, const void *src, fb_dtype from, int64_t n, const float *moments, void *dst, fb_dtype to)
{
    mirror m;
    start(&m, ctx);
    void *a = place(&m, "src", src, size_of(from, n), false), *c = place(&m, "moments", moments, 2 * sizeof(float), false);
    void *b = place(&m, "dst", dst, size_of(to, n), true);
    return CALL(m, denormalize, a, from, n, c, b, to);
}

static fb_status adamw32(fb_context *ctx, const fb_adamw *h, int64_t n, void *params, fb_dtype pt, const void *grads, fb_dtype gt, float *m1, float *v1)
{
    mirror m;
    start(&m, ctx);
    void *p = place(&m, "params", params, size_of(pt, n), true), *g = place(&m, "grads", grads, size_of(gt, n), false);
    void *a = place(&m, "m", m1, singles(n), true), *b = place(&m, "v", v1, singles(n), true);
    return CALL(m, adamw32, h, n, p, pt, g, gt, a, b);
}

static fb_status adamw8(fb_context *ctx, const fb_adamw *h, int64_t n, void *params, fb_dtype pt, const void *grads, fb_dtype gt, uint8_t *mc,
                        float *ma, uint8_t *vc, float *va)
{
    mirror m;
    start(&m, ctx);
    size_t scales = singles(fb_ceil_div(n, FB_ADAMW_BLOCK));
    void *p = place(&m, "params", params, size_of(pt, n), true), *g = place(&m, "grads", grads, size_of(gt, n), false);
    void *a = place(&m, "m_codes", mc, (size_t)n, true), *b = place(&m, "m_absmax", ma, scales, true);
    void *c = place(&m, "v_codes", vc, (size_t)n, true), *e = place(&m, "v_absmax", va, scales, true);
    return CALL(m, adamw8, h, n, p, pt, g, gt, a, b, c, e);
}

static fb_weights gemm_weights(const fb_context *ctx, const fb_matrix *w, int64_t rows, fb_dtype t) { return real->gemm_weights(ctx, w, rows, t); }
static fb_weights gemm_dx_weights(const fb_context *ctx, const fb_matrix *w, int64_t rows, fb_dtype t)
{
    return real->gemm_dx_weights(ctx, w, rows, t);
}

static fb_status gemm(fb_context *ctx, const fb_matrix *w, int64_t rows, const void *x, fb_dtype xt, const void *bias, void *y, fb_dtype yt)
{
    mirror m;
    start(&m, ctx);
    fb_matrix from = place_matrix(&m, w, false);
    void *a = place(&m, "x", x, size_of(xt, rows * w->cols), false), *b = place(&m, "bias", bias, size_of(xt, w->rows), false);
    void *c = place(&m, "y", y, size_of(yt, rows * w->rows), true);
    return CALL(m, gemm, &from, rows, a, xt, b, c, yt);
}

static fb_status gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t rows, const void *dy, fb_dtype at, void *dx, fb_dtype ot, bool accumulate)
{
    mirror m;
    start(&m, ctx);
    fb_matrix from = place_matrix(&m, w, false);
    void *a = place(&m, "dy", dy, size_of(at, rows * w->rows), false), *c = place(&m, "dx", dx, size_of(ot, rows * w->cols), true);
    return CALL(m, gemm_dx, &from, rows, a, at, c, ot, accumulate);
}

static size_t lora_workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t rows, fb_dtype t)
{
    return real->lora_workspace(ctx, op, w, rank, rows, t);
}
static fb_weights lora_weights(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t rows, fb_dtype t)
{
    return real->lora_weights(ctx, op, w, rank, rows, t);
}

static fb_lora place_lora(mirror *m, const fb_lora *lora, const fb_matrix *w, fb_dtype t)
{
    fb_lora copy = *lora;
    copy.a = place(m, "lora->a", lora->a, size_of(t, lora->rank * w->cols), false);
    copy.b = place(m, "lora->b", lora->b, size_of(t, w->rows * lora->rank), false);
    return copy;
}

static fb_status lora_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t rows, const void *x, fb_dtype xt, const void *bias,
                              void *y, fb_dtype yt, void *u)
{
    mirror m;
    start(&m, ctx);
    fb_matrix from = place_matrix(&m, w, false);
    fb_lora adapter = place_lora(&m, lora, w, xt);
    void *a = place(&m, "x", x, size_of(xt, rows * w->cols), false), *b = place(&m, "bias", bias, size_of(xt, w->rows), false);
    void *c = place(&m, "y", y, size_of(yt, rows * w->rows), true), *e = place(&m, "u", u, size_of(xt, rows * lora->rank), true);
    return CALL(m, lora_forward, &from, &adapter, rows, a, xt, b, c, yt, e);
}

static fb_status lora_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t rows, const void *x, const void *u, const void *dy,
                               fb_dtype t, void *dx, fb_dtype ot, bool add_dx, float *da, float *db, bool add_grads)
{
    mirror m;
    start(&m, ctx);
    fb_matrix from = place_matrix(&m, w, false);
    fb_lora adapter = place_lora(&m, lora, w, t);
    void *a = place(&m, "x", x, size_of(t, rows * w->cols), false), *b = place(&m, "u", u, size_of(t, rows * lora->rank), false);
    void *c = place(&m, "dy", dy, size_of(t, rows * w->rows), false), *e = place(&m, "dx", dx, dx ? size_of(ot, rows * w->cols) : 0, true);
    void *g = place(&m, "da", da, singles(lora->rank * w->cols), true), *h = place(&m, "db", db, singles(w->rows * lora->rank), true);
    return CALL(m, lora_backward, &from, &adapter, rows, a, b, c, t, e, ot, add_dx, g, h, add_grads);
}

/* ---- in place of the backend's own table --------------------------------------------------------------------------------- */

static const fb_ops *mirrored(const fb_ops *ops, const char *kind, char *why)
{
    static fb_ops table = {.workspace = workspace, .quantize = quantize, .dequantize = dequantize, .double_quantize = double_quantize,
                           .decode_absmax = decode_absmax, .quantize8 = quantize8, .dequantize8 = dequantize8, .normalize = normalize,
                           .denormalize = denormalize, .adamw32 = adamw32, .adamw8 = adamw8, .gemm_weights = gemm_weights,
                           .gemm_dx_weights = gemm_dx_weights, .gemm = gemm, .gemm_dx = gemm_dx, .lora_workspace = lora_workspace,
                           .lora_weights = lora_weights, .lora_forward = lora_forward, .lora_backward = lora_backward};
    if (!ops) return NULL;
    char reason[DEVICE_TEXT] = "";
    pthread_mutex_lock(&lock);
    if (!d) d = device_open(kind, reason);
    if (d) real = ops, table.variant = ops->variant;
    pthread_mutex_unlock(&lock);
    if (d) return &table;
    snprintf(why, FB_MESSAGE_SIZE, "%.250s", reason);
    return NULL;
}

const fb_ops *__real_fb_cuda_ops(char *why) __attribute__((weak));
const fb_ops *__real_fb_simt_ops(char *why) __attribute__((weak));
const fb_ops *__wrap_fb_cuda_ops(char *why);
const fb_ops *__wrap_fb_simt_ops(char *why);

static const fb_ops *absent(char *why)
{
    snprintf(why, FB_MESSAGE_SIZE, "this program was linked without that backend");
    return NULL;
}
const fb_ops *__wrap_fb_cuda_ops(char *why) { return __real_fb_cuda_ops ? mirrored(__real_fb_cuda_ops(why), "cuda", why) : absent(why); }
const fb_ops *__wrap_fb_simt_ops(char *why) { return __real_fb_simt_ops ? mirrored(__real_fb_simt_ops(why), "host", why) : absent(why); }
