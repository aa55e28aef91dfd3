/* gpu_job.c: data, call and check of a case for a device (gpu_job.h). */
#include "bench/gpu_job.h"

#include "validate/inputs.h"

#include <stdio.h>
#include <stdlib.h>

const fb_adamw gpu_adamw_hyper = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 1e-2f, .grad_scale = 1, .step = 10};

static bool fail(char *why, const char *text)
{
    snprintf(why, TIMING_WHY, "%s", text);
    return false;
}

void *job_own(gpu_job *j, size_t bytes)
{
    void *p = NULL;
    if (j->owned_count == 2 * JOB_ROLES || posix_memalign(&p, 256, bytes ? bytes : 1) != 0) return NULL;
    return j->owned[j->owned_count++] = p;
}

static void disown(gpu_job *j)
{
    while (j->owned_count > 0) free(j->owned[--j->owned_count]);
    memset(j->b, 0, sizeof j->b);
}

void job_free(gpu_job *j)
{
    disown(j);
    work_free(&j->w);
    memset(j, 0, sizeof *j);
}

/* ---- layout ------------------------------------------------------------------------------------------------------ */

static void floats(gpu_job *j, gpu_role role, fb_dtype t, int64_t n, bool read, bool written)
{
    j->b[role] = (job_buffer){.bytes = (size_t)n * fb_dtype_size(t), .dtype = t, .floats = true, .read = read, .written = written};
}
static void octets(gpu_job *j, gpu_role role, size_t n, bool read, bool written)
{
    j->b[role] = (job_buffer){.bytes = n, .read = read, .written = written};
}

/* The activations of a product, and of a LoRA layer its adapter and gradients. */
static void layout_products(gpu_job *j)
{
    const gpu_case *c = &j->c;
    const bool dx = c->op == GPU_GEMM_DX || c->op == GPU_LORA_BACKWARD, back = c->op == GPU_LORA_BACKWARD;
    const int64_t r = c->rank;
    floats(j, JOB_DENSE, c->dtype, c->rows * c->cols, true, false);
    floats(j, JOB_A, c->dtype, c->m * (dx ? c->rows : c->cols), true, false);
    floats(j, JOB_OUT, c->dtype, c->m * (dx ? c->cols : c->rows), false, true);
    if (!gpu_is_lora(c->op)) return;
    floats(j, JOB_LORA_A, c->dtype, r * c->cols, true, false), floats(j, JOB_LORA_B, c->dtype, c->rows * r, true, false);
    floats(j, JOB_U, c->dtype, c->m * r, back, !back);
    if (!back) return;
    floats(j, JOB_X, c->dtype, c->m * c->cols, true, false), floats(j, JOB_DU, c->dtype, c->m * r, false, false);
    floats(j, JOB_DA, FB_F32, r * c->cols, false, true), floats(j, JOB_DB, FB_F32, c->rows * r, false, true);
}

static bool layout_matrix(gpu_job *j, bool written, char *why)
{
    const gpu_case *c = &j->c;
    fb_matrix m;
    fb_matrix_sizes s;
    if (fb_matrix_init(&m, c->format, c->rows, c->cols, c->block_size, c->double_quant) != FB_OK || fb_matrix_get_sizes(&m, &s) != FB_OK)
        return fail(why, "the case has a shape or block size that fourbit does not take");
    octets(j, JOB_CODES, s.codes, !written, written);
    floats(j, JOB_ABSMAX, FB_F32, (int64_t)(s.absmax / sizeof(float)), !written, written);
    octets(j, JOB_ABSMAX_CODES, s.absmax_codes, !written, written);
    floats(j, JOB_NESTED, FB_F32, (int64_t)(s.nested_absmax / sizeof(float)), !written, written);
    floats(j, JOB_OFFSET, FB_F32, (int64_t)(s.nested_offset / sizeof(float)), !written, written);
    octets(j, JOB_ZEROS, s.zero_points, !written, written);
    j->bits_per_weight = s.bits_per_weight;
    return true;
}

bool job_layout(gpu_job *j, const gpu_case *c, char why[TIMING_WHY])
{
    int64_t n = c->rows * c->cols, blocks = c->block_size > 0 ? fb_ceil_div(n, c->block_size) : 0;
    disown(j);
    j->c = *c;
    switch (c->op) {
    case GPU_QUANTIZE: floats(j, JOB_DENSE, c->dtype, n, true, false); return layout_matrix(j, true, why);
    case GPU_DEQUANTIZE: floats(j, JOB_OUT, c->dtype, n, false, true); return layout_matrix(j, false, why);
    case GPU_QUANTIZE8:
    case GPU_DEQUANTIZE8: {
        bool makes = c->op == GPU_QUANTIZE8;
        floats(j, makes ? JOB_DENSE : JOB_OUT, c->dtype, n, makes, !makes);
        octets(j, JOB_CODES, (size_t)n, !makes, makes);
        floats(j, JOB_ABSMAX, FB_F32, blocks, !makes, makes);
        j->bits_per_weight = 8 + 32.0 / c->block_size;
        return true;
    }
    case GPU_ADAMW32:
        floats(j, JOB_M, FB_F32, n, true, true), floats(j, JOB_V, FB_F32, n, true, true);
        break;
    case GPU_ADAMW8:
        octets(j, JOB_M, (size_t)n, true, true), octets(j, JOB_V, (size_t)n, true, true);
        floats(j, JOB_M_ABSMAX, FB_F32, blocks, true, true), floats(j, JOB_V_ABSMAX, FB_F32, blocks, true, true);
        break;
    case GPU_GEMM:
    case GPU_GEMM_DX:
    case GPU_LORA:
    case GPU_LORA_BACKWARD: layout_products(j); return layout_matrix(j, false, why);
    case GPU_OP_COUNT: return fail(why, "no such operation");
    }
    floats(j, JOB_DENSE, c->dtype, n, true, true), floats(j, JOB_GRADS, c->dtype, n, true, false);
    j->bits_per_weight = c->op == GPU_ADAMW32 ? 64 : 16 + 64.0 / FB_ADAMW_BLOCK; /* of state */
    return true;
}

unsigned job_roles(const gpu_job *j)
{
    unsigned roles = 0;
    for (int r = 0; r < JOB_ROLES; r++)
        if (j->b[r].bytes) roles |= JOB_BIT(r);
    return gpu_is_product(j->c.op) ? roles & ~(JOB_BIT(JOB_DENSE) | JOB_BIT(JOB_DU)) : roles;
}

work_cost job_cost(const gpu_job *j, unsigned roles)
{
    work_cost cost = {0, 0, 0};
    for (int r = 0; r < JOB_ROLES; r++)
        if (roles & JOB_BIT(r)) {
            if (j->b[r].read) cost.read += (double)j->b[r].bytes;
            if (j->b[r].written) cost.written += (double)j->b[r].bytes;
        }
    const double n = (double)j->c.rows, k = (double)j->c.cols, small = (double)j->c.rank * (n + k) * (j->c.op == GPU_LORA_BACKWARD ? 2 : 1);
    if (gpu_is_product(j->c.op)) cost.flops = 2.0 * (double)j->c.m * (n * k + small);
    return cost;
}

/* ---- data ---------------------------------------------------------------------------------------------------------- */

/* A million numbers over and over (work.c says why). scale: times them; square: their squares. */
static void *gaussian(gpu_job *j, fb_dtype t, int64_t n, uint64_t seed, float scale, bool square)
{
    int64_t period = (1 << 20) + 7, first = n < period ? n : period;
    size_t size = fb_dtype_size(t);
    char *p = job_own(j, (size_t)n * size);
    if (!p) return NULL;
    for (int64_t i = 0; i < first; i++) {
        float x = scale * (float)input_gaussian(seed, (uint64_t)i);
        fb_store(p, t, i, square ? x * x : x);
    }
    for (int64_t done = first; done < n; done += period) memcpy(p + (size_t)done * size, p, (size_t)(n - done < period ? n - done : period) * size);
    return p;
}

static bool copy_wants(gpu_job *j)
{
    for (int r = 0; r < JOB_ROLES; r++) {
        job_buffer *b = &j->b[r];
        if (!b->bytes || !b->written) continue;
        if (!(b->want = job_own(j, b->bytes))) return false;
        if (b->initial) memcpy(b->want, b->initial, b->bytes);
    }
    return true;
}

/* What the reference makes of the initial contents. */
static bool make_wants(gpu_job *j, char *why)
{
    fb_context ref;
    void *p[JOB_ROLES];
    size_t need = 0;
    fb_context_init(&ref, FB_BACKEND_REFERENCE);
    if (!copy_wants(j) || job_workspace(&ref, &j->c, &need) != FB_OK || !(ref.workspace = job_own(j, need)))
        return fail(why, "no memory for the expected result");
    ref.workspace_bytes = need;
    for (int r = 0; r < JOB_ROLES; r++) p[r] = j->b[r].want ? j->b[r].want : j->b[r].initial;
    return job_call(&ref, &j->c, p) == FB_OK || fail(why, ref.message);
}

static bool make_matrix_case(gpu_job *j, char *why)
{
    fb_case f = gpu_fb_case(&j->c);
    if (!work_make(&j->w, &f, why)) return false;
    work *w = &j->w;
    const fb_matrix *m = &w->w;
    void *const parts[] = {m->codes, m->absmax, m->absmax_codes, m->nested_absmax, m->nested_offset, m->zero_points};
    for (int i = 0; i < 6; i++) {
        job_buffer *b = &j->b[JOB_CODES + i];
        if (!b->bytes) continue;
        if (b->written) b->want = parts[i]; /* work_make quantized it with the reference */
        else b->initial = parts[i];
    }
    if (j->c.op == GPU_QUANTIZE) j->b[JOB_DENSE].initial = w->dense;
    if (j->c.op == GPU_DEQUANTIZE) return make_wants(j, why);
    if (!gpu_is_product(j->c.op)) return true;
    j->b[JOB_A].initial = w->a;
    if (gpu_is_lora(j->c.op)) j->b[JOB_LORA_A].initial = (void *)w->l.lora.a, j->b[JOB_LORA_B].initial = (void *)w->l.lora.b;
    if (j->c.op == GPU_LORA_BACKWARD) j->b[JOB_X].initial = w->l.x, j->b[JOB_U].initial = w->l.u;
    void *dense = j->b[JOB_DENSE].initial = job_own(j, j->b[JOB_DENSE].bytes);
    if (!dense) return fail(why, "no memory for the dense weights");
    for (int64_t i = 0; i < f.rows * f.cols; i++) fb_store(dense, f.dtype, i, w->decoded[i]);
    return true;
}

static bool make_states8(gpu_job *j, int64_t n, char *why)
{
    fb_context ref;
    fb_context_init(&ref, FB_BACKEND_REFERENCE);
    float *m = gaussian(j, FB_F32, n, 13, 0.1f, false), *v = gaussian(j, FB_F32, n, 14, 0.1f, true);
    for (gpu_role r = JOB_M; r <= JOB_V_ABSMAX; r++) j->b[r].initial = job_own(j, j->b[r].bytes);
    if (!m || !v || !j->b[JOB_M].initial || !j->b[JOB_V].initial || !j->b[JOB_M_ABSMAX].initial || !j->b[JOB_V_ABSMAX].initial)
        return fail(why, "no memory for the optimizer's state");
    bool ok = fb_quantize8(&ref, FB_MAP_SIGNED, m, FB_F32, n, FB_ADAMW_BLOCK, j->b[JOB_M].initial, j->b[JOB_M_ABSMAX].initial) == FB_OK &&
              fb_quantize8(&ref, FB_MAP_UNSIGNED, v, FB_F32, n, FB_ADAMW_BLOCK, j->b[JOB_V].initial, j->b[JOB_V_ABSMAX].initial) == FB_OK;
    return ok || fail(why, ref.message);
}

static bool make_plain_case(gpu_job *j, char *why)
{
    const gpu_case *c = &j->c;
    int64_t n = c->rows * c->cols;
    bool adam = c->op == GPU_ADAMW32 || c->op == GPU_ADAMW8;
    void *dense = gaussian(j, c->dtype, n, 11, 1, false);
    if (!dense) return fail(why, "no memory for the data");
    if (c->op == GPU_DEQUANTIZE8) { /* its input is what the reference makes of the dense numbers */
        fb_context ref;
        fb_context_init(&ref, FB_BACKEND_REFERENCE);
        j->b[JOB_CODES].initial = job_own(j, j->b[JOB_CODES].bytes);
        j->b[JOB_ABSMAX].initial = job_own(j, j->b[JOB_ABSMAX].bytes);
        if (!j->b[JOB_CODES].initial || !j->b[JOB_ABSMAX].initial) return fail(why, "no memory for the data");
        if (fb_quantize8(&ref, FB_MAP_SIGNED, dense, c->dtype, n, c->block_size, j->b[JOB_CODES].initial, j->b[JOB_ABSMAX].initial) != FB_OK)
            return fail(why, ref.message);
    } else j->b[JOB_DENSE].initial = dense;
    if (adam && !(j->b[JOB_GRADS].initial = gaussian(j, c->dtype, n, 12, 0.1f, false))) return fail(why, "no memory for the gradients");
    if (c->op == GPU_ADAMW32) {
        j->b[JOB_M].initial = gaussian(j, FB_F32, n, 13, 0.1f, false);
        j->b[JOB_V].initial = gaussian(j, FB_F32, n, 14, 0.1f, true);
        if (!j->b[JOB_M].initial || !j->b[JOB_V].initial) return fail(why, "no memory for the optimizer's state");
    }
    if (c->op == GPU_ADAMW8 && !make_states8(j, n, why)) return false;
    return make_wants(j, why);
}

bool job_make(gpu_job *j, const gpu_case *c, char why[TIMING_WHY])
{
    if (!job_layout(j, c, why)) return false;
    return gpu_is_4bit(c->op) ? make_matrix_case(j, why) : make_plain_case(j, why);
}

/* ---- the call -------------------------------------------------------------------------------------------------------- */

static fb_status matrix_of(const gpu_case *c, void *const p[JOB_ROLES], fb_matrix *m)
{
    fb_status status = fb_matrix_init(m, c->format, c->rows, c->cols, c->block_size, c->double_quant);
    m->codes = p[JOB_CODES], m->absmax = p[JOB_ABSMAX], m->absmax_codes = p[JOB_ABSMAX_CODES];
    m->nested_absmax = p[JOB_NESTED], m->nested_offset = p[JOB_OFFSET], m->zero_points = p[JOB_ZEROS];
    return status;
}

fb_status job_workspace(fb_context *ctx, const gpu_case *c, size_t *bytes)
{
    fb_matrix m;
    void *none[JOB_ROLES] = {0};
    *bytes = 0;
    if (!gpu_is_4bit(c->op)) return FB_OK;
    fb_status status = matrix_of(c, none, &m);
    if (status == FB_OK && gpu_is_lora(c->op)) return fb_lora_workspace_size(ctx, gpu_fb_case(c).op, &m, c->rank, c->m, c->dtype, bytes);
    return status == FB_OK ? fb_workspace_size(ctx, gpu_fb_case(c).op, &m, c->m, c->dtype, bytes) : status;
}

fb_status job_call(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    int64_t n = c->rows * c->cols;
    fb_matrix m;
    const fb_lora lora = {.rank = c->rank, .scale = 1, .a = p[JOB_LORA_A], .b = p[JOB_LORA_B]};
    if (gpu_is_4bit(c->op) && matrix_of(c, p, &m) != FB_OK) return FB_INVALID_ARGUMENT;
    switch (c->op) {
    case GPU_QUANTIZE: return fb_quantize(ctx, p[JOB_DENSE], c->dtype, &m);
    case GPU_DEQUANTIZE: return fb_dequantize(ctx, &m, p[JOB_OUT], c->dtype);
    case GPU_QUANTIZE8: return fb_quantize8(ctx, FB_MAP_SIGNED, p[JOB_DENSE], c->dtype, n, c->block_size, p[JOB_CODES], p[JOB_ABSMAX]);
    case GPU_DEQUANTIZE8: return fb_dequantize8(ctx, FB_MAP_SIGNED, p[JOB_CODES], p[JOB_ABSMAX], n, c->block_size, p[JOB_OUT], c->dtype);
    case GPU_ADAMW32: return fb_adamw32(ctx, &gpu_adamw_hyper, n, p[JOB_DENSE], c->dtype, p[JOB_GRADS], c->dtype, p[JOB_M], p[JOB_V]);
    case GPU_ADAMW8:
        return fb_adamw8(ctx, &gpu_adamw_hyper, n, p[JOB_DENSE], c->dtype, p[JOB_GRADS], c->dtype, p[JOB_M], p[JOB_M_ABSMAX], p[JOB_V],
                         p[JOB_V_ABSMAX]);
    case GPU_GEMM: return fb_gemm(ctx, &m, c->m, p[JOB_A], c->dtype, NULL, p[JOB_OUT], c->dtype);
    case GPU_GEMM_DX: return fb_gemm_dx(ctx, &m, c->m, p[JOB_A], c->dtype, p[JOB_OUT], c->dtype, false);
    case GPU_LORA: return fb_lora_forward(ctx, &m, &lora, c->m, p[JOB_A], c->dtype, NULL, p[JOB_OUT], c->dtype, p[JOB_U]);
    case GPU_LORA_BACKWARD:
        return fb_lora_backward(ctx, &m, &lora, c->m, p[JOB_X], p[JOB_U], p[JOB_A], c->dtype, p[JOB_OUT], c->dtype, false, p[JOB_DA], p[JOB_DB],
                                false);
    case GPU_OP_COUNT: break;
    }
    return FB_INVALID_ARGUMENT;
}
