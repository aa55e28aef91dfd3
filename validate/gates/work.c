/* work.c: the fixed inputs of a gate and one call of each operation (gates.h). */
#include "gates.h"

#include "validate/inputs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

gate_ops gate_library = {fb_quantize, fb_dequantize, fb_gemm, fb_gemm_dx};

void gate_name(const gate_case *c, char *text, size_t size)
{
    static const char *const ops[] = {"quantize", "dequantize", "quantize8", "dequantize8", "normalize", "denormalize", "adamw32", "adamw8",
                                      "gemm", "gemm_dx"};
    FB_STATIC_ASSERT(sizeof ops / sizeof *ops == GATE_OP_COUNT, "a name for each operation");
    char format[40] = "", m[48] = "";
    bool eight = c->op == GATE_QUANTIZE8 || c->op == GATE_DEQUANTIZE8;
    if (eight) snprintf(format, sizeof format, "/%s/b%d", c->format == FB_MAP_SIGNED ? "signed" : "unsigned", c->block);
    else if (c->op < GATE_QUANTIZE8 || c->op >= GATE_GEMM)
        snprintf(format, sizeof format, "/%s/b%d%s", fb_format_name((fb_format)c->format), c->block, c->dq ? "+dq" : "");
    if (c->m) snprintf(m, sizeof m, "/M%" PRId64, c->m);
    snprintf(text, size, "%s%s/%s%s/%" PRId64 "x%" PRId64, ops[c->op], format, fb_dtype_name(c->dtype), m, c->rows, c->cols);
}

/* Half of it thresholds and their neighbours, half a bell: the same bits on every machine. */
static void fill(void *dst, fb_dtype t, int64_t n, int32_t block, uint64_t seed)
{
    int64_t half = n / 2 / block * block;
    input_fill(INPUT_THRESHOLD, seed, block, dst, t, half);
    input_fill(INPUT_BELL, seed + 1, block, (char *)dst + half * (int64_t)fb_dtype_size(t), t, n - half);
}

static void *take(size_t bytes)
{
    void *p = aligned_alloc(256, (bytes / 256 + 1) * 256);
    if (p) memset(p, 0xa5, bytes);
    return p;
}

static void add(gate_work *w, const char *name, void *data, size_t bytes, int width)
{
    if (bytes) w->parts[w->count++] = (gate_part){name, data, bytes, width};
}

static bool refuse(char *why, const char *text)
{
    snprintf(why, FB_MESSAGE_SIZE, "%s", text);
    return false;
}

/* Quantized by the reference, so that every backend reads the same. */
static bool make_matrix(gate_work *w, char *why)
{
    const gate_case *c = &w->c;
    fb_context reference;
    fb_matrix_sizes s;
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    if (fb_matrix_init(&w->w, (fb_format)c->format, c->rows, c->cols, c->block, c->dq) != FB_OK) return refuse(why, "no such matrix");
    fb_matrix_get_sizes(&w->w, &s);
    size_t bytes = fb_matrix_bytes(&w->w);
    w->buffer = take(bytes);
    if (!w->buffer || fb_matrix_bind(&w->w, w->buffer, bytes) != FB_OK) return refuse(why, "no memory");
    if (c->op == GATE_QUANTIZE) {
        add(w, "codes", w->w.codes, s.codes, 1);
        add(w, "absmax", w->w.absmax, s.absmax, 4);
        add(w, "absmax_codes", w->w.absmax_codes, s.absmax_codes, 1);
        add(w, "nested_absmax", w->w.nested_absmax, s.nested_absmax, 4);
        add(w, "nested_offset", w->w.nested_offset, s.nested_offset, 4);
        add(w, "zero_points", w->w.zero_points, s.zero_points, 1);
        return true;
    }
    float *dense = take((size_t)s.elements * sizeof *dense);
    if (!dense) return refuse(why, "no memory");
    reference.workspace_bytes = (size_t)s.blocks * sizeof(float);
    reference.workspace = take(reference.workspace_bytes);
    fill(dense, FB_F32, s.elements, c->block, 17);
    bool ok = fb_quantize(&reference, dense, FB_F32, &w->w) == FB_OK;
    if (!ok) refuse(why, reference.message);
    free(reference.workspace);
    free(dense);
    return ok;
}

static bool make_states(gate_work *w, char *why)
{
    const gate_case *c = &w->c;
    int64_t n = c->rows * c->cols, blocks = fb_ceil_div(n, c->block);
    for (int i = 0; i < 2; i++) {
        w->codes[i] = take((size_t)n), w->states[i] = take((size_t)n * 4), w->scales[i] = take((size_t)blocks * 4);
        if (!w->codes[i] || !w->states[i] || !w->scales[i]) return refuse(why, "no memory");
        input_bytes(5 + (uint64_t)i, w->codes[i], n);
        for (int64_t j = 0; j < n; j++) w->states[i][j] = 0.001f * (float)(1 + j % 97);
        for (int64_t j = 0; j < blocks; j++) w->scales[i][j] = 0.01f * (float)(1 + j % 7);
    }
    return true;
}

static void name_outputs(gate_work *w, size_t dense)
{
    const gate_case *c = &w->c;
    int width = (int)fb_dtype_size(c->dtype);
    size_t n = (size_t)(c->rows * c->cols), blocks = (size_t)fb_ceil_div((int64_t)n, c->block);
    switch (c->op) {
    case GATE_QUANTIZE8:
        add(w, "codes", w->codes[0], n, 1);
        add(w, "absmax", w->scales[0], blocks * 4, 4);
        break;
    case GATE_ADAMW32:
        add(w, "params", w->dst, dense, width);
        add(w, "m", w->states[0], n * 4, 4);
        add(w, "v", w->states[1], n * 4, 4);
        break;
    case GATE_ADAMW8:
        add(w, "params", w->dst, dense, width);
        add(w, "m_codes", w->codes[0], n, 1);
        add(w, "m_absmax", w->scales[0], blocks * 4, 4);
        add(w, "v_codes", w->codes[1], n, 1);
        add(w, "v_absmax", w->scales[1], blocks * 4, 4);
        break;
    case GATE_NORMALIZE:
        add(w, "moments", w->moments, sizeof w->moments, 4);
        add(w, "out", w->dst, dense, width);
        break;
    case GATE_QUANTIZE: break; /* make_matrix did */
    default: add(w, "out", w->dst, dense, width);
    }
}

bool gate_open(gate_work *w, const gate_case *c, fb_backend backend, char why[FB_MESSAGE_SIZE])
{
    *w = (gate_work){.c = *c};
    bool product = c->op >= GATE_GEMM, matrix = c->op <= GATE_DEQUANTIZE || product;
    size_t size = fb_dtype_size(c->dtype);
    int64_t n = c->rows * c->cols;
    int64_t in = c->op == GATE_GEMM ? c->m * c->cols : c->op == GATE_GEMM_DX ? c->m * c->rows : n;
    int64_t out = c->op == GATE_GEMM ? c->m * c->rows : c->op == GATE_GEMM_DX ? c->m * c->cols : n;
    fb_context_init(&w->ctx, backend);
    w->ctx.threads = 1;
    w->first_nonfinite = UINT64_MAX, w->ctx.first_nonfinite = &w->first_nonfinite;
    if (fb_backend_available(&w->ctx) != FB_OK) return refuse(why, w->ctx.message);
    w->src = take((size_t)in * size), w->dst = take((size_t)out * size), w->bias = take((size_t)c->rows * size);
    if (!w->src || !w->dst || !w->bias) return refuse(why, "no memory");
    fill(w->src, c->dtype, in, c->block, 23);
    fill(w->bias, c->dtype, c->rows, 32, 29);
    if (c->op == GATE_ADAMW32 || c->op == GATE_ADAMW8) fill(w->dst, c->dtype, out, c->block, 31); /* the parameters */
    w->moments[0] = 0.25f, w->moments[1] = 1.5f;
    if (matrix && !make_matrix(w, why)) return false;
    if (!matrix && !make_states(w, why)) return false;
    name_outputs(w, (size_t)out * size);
    if (matrix) {
        static const fb_op ops[] = {[GATE_QUANTIZE] = FB_OP_QUANTIZE, [GATE_DEQUANTIZE] = FB_OP_DEQUANTIZE, [GATE_GEMM] = FB_OP_GEMM, [GATE_GEMM_DX] = FB_OP_GEMM_DX};
        if (fb_workspace_size(&w->ctx, ops[c->op], &w->w, c->m, c->dtype, &w->ctx.workspace_bytes) != FB_OK) return refuse(why, w->ctx.message);
        w->ctx.workspace = w->workspace = take(w->ctx.workspace_bytes);
    }
    return true;
}

fb_status gate_call(gate_work *w)
{
    const gate_case *c = &w->c;
    const int64_t n = c->rows * c->cols;
    const fb_adamw step = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f, .grad_scale = 0.5f, .step = 3};
    fb_context *ctx = &w->ctx;
    switch (c->op) {
    case GATE_QUANTIZE: return gate_library.quantize(ctx, w->src, c->dtype, &w->w);
    case GATE_DEQUANTIZE: return gate_library.dequantize(ctx, &w->w, w->dst, c->dtype);
    case GATE_QUANTIZE8: return fb_quantize8(ctx, (fb_map8)c->format, w->src, c->dtype, n, c->block, w->codes[0], w->scales[0]);
    case GATE_DEQUANTIZE8: return fb_dequantize8(ctx, (fb_map8)c->format, w->codes[0], w->scales[0], n, c->block, w->dst, c->dtype);
    case GATE_NORMALIZE: return fb_normalize(ctx, w->src, c->dtype, n, w->dst, c->dtype, w->moments);
    case GATE_DENORMALIZE: return fb_denormalize(ctx, w->src, c->dtype, n, w->moments, w->dst, c->dtype);
    case GATE_ADAMW32: return fb_adamw32(ctx, &step, n, w->dst, c->dtype, w->src, c->dtype, w->states[0], w->states[1]);
    case GATE_ADAMW8:
        return fb_adamw8(ctx, &step, n, w->dst, c->dtype, w->src, c->dtype, w->codes[0], w->scales[0], w->codes[1], w->scales[1]);
    case GATE_GEMM: return gate_library.gemm(ctx, &w->w, c->m, w->src, c->dtype, w->bias, w->dst, c->dtype);
    case GATE_GEMM_DX: return gate_library.gemm_dx(ctx, &w->w, c->m, w->src, c->dtype, w->dst, c->dtype, false);
    case GATE_OP_COUNT: break;
    }
    return FB_UNSUPPORTED;
}

void gate_close(gate_work *w)
{
    void *const all[] = {w->src, w->dst, w->bias, w->buffer, w->workspace, w->codes[0], w->codes[1], w->states[0], w->states[1], w->scales[0], w->scales[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    *w = (gate_work){0};
}
