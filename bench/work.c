/* work.c: the data of a case, and ours as a contender (work.h). */
#include "bench/work.h"

#include "validate/inputs.h"

#include <stdio.h>
#include <stdlib.h>

const bench_ops bench_library = {fb_quantize, fb_dequantize, fb_gemm, fb_gemm_dx, fb_lora_forward, fb_lora_backward};

static int64_t elements(const fb_case *c) { return c->rows * c->cols; }
bool work_is_lora(const fb_case *c) { return c->op == FB_OP_LORA_FORWARD || c->op == FB_OP_LORA_BACKWARD; }
bool work_is_dx(const fb_case *c) { return c->op == FB_OP_GEMM_DX || c->op == FB_OP_LORA_BACKWARD; }
static bool is_product(const fb_case *c) { return c->op == FB_OP_GEMM || c->op == FB_OP_GEMM_DX || work_is_lora(c); }
static int64_t activations(const fb_case *c) { return c->m * (work_is_dx(c) ? c->rows : c->cols); }
static int64_t outputs(const fb_case *c)
{
    return c->op == FB_OP_DEQUANTIZE ? elements(c) : is_product(c) ? c->m * (work_is_dx(c) ? c->cols : c->rows) : 0;
}

void *work_block(size_t bytes)
{
    void *p = NULL;
    /* 2 MiB: on a huge page's boundary, as a large malloc of a real program nearly is */
    size_t align = bytes >= (size_t)2 << 20 ? (size_t)2 << 20 : 64;
    return posix_memalign(&p, align, bytes ? bytes : 1) == 0 ? p : NULL;
}

/* A million Gaussian numbers, over and over: what a kernel costs does not depend
 * on the period, and 67 million logarithms and cosines would take seconds. */
void work_fill(void *dst, fb_dtype t, int64_t n, uint64_t seed)
{
    int64_t period = (1 << 20) + 7, first = n < period ? n : period; /* odd: blocks differ from one period to the next */
    size_t size = fb_dtype_size(t);
    input_fill(INPUT_GAUSSIAN, seed, 64, dst, t, first);
    for (int64_t done = first; done < n; done += period) {
        int64_t part = n - done < period ? n - done : period;
        memcpy((char *)dst + (size_t)done * size, dst, (size_t)part * size);
    }
}

static bool fail(char *why, const char *text)
{
    snprintf(why, TIMING_WHY, "%s", text);
    return false;
}

/* w = dense, quantized by the reference. */
static bool make_matrix(work *w, char *why)
{
    fb_context ref;
    size_t need = 0;
    fb_context_init(&ref, FB_BACKEND_REFERENCE);
    if (fb_workspace_size(&ref, FB_OP_QUANTIZE, &w->w, 0, w->c.dtype, &need) != FB_OK) return fail(why, ref.message);
    ref.workspace = work_block(need), ref.workspace_bytes = need;
    if (!ref.workspace) return fail(why, "no memory for the reference's workspace");
    fb_status status = fb_quantize(&ref, w->dense, w->c.dtype, &w->w);
    free(ref.workspace);
    return status == FB_OK || fail(why, ref.message);
}

static bool same_matrix(const fb_case *a, const fb_case *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->format == b->format && a->block_size == b->block_size &&
           a->double_quant == b->double_quant && a->dtype == b->dtype;
}

static bool bind(fb_matrix *m, void **buffer, const fb_case *c, char *why)
{
    if (fb_matrix_init(m, c->format, c->rows, c->cols, c->block_size, c->double_quant) != FB_OK)
        return fail(why, "the case has a shape or block size that fourbit does not take");
    *buffer = work_block(fb_matrix_bytes(m));
    if (!*buffer || fb_matrix_bind(m, *buffer, fb_matrix_bytes(m)) != FB_OK) return fail(why, "no memory");
    return true;
}

static bool make_weights(work *w, const fb_case *c, char *why)
{
    size_t n = (size_t)elements(c);
    work_free(w);
    w->c = *c;
    w->dense = work_block(n * fb_dtype_size(c->dtype));
    if (!w->dense) return fail(why, "no memory for the dense matrix");
    work_fill(w->dense, c->dtype, elements(c), 1);
    if (!bind(&w->w, &w->w_buffer, c, why) || !bind(&w->q, &w->q_buffer, c, why)) return false;
    fb_matrix_get_sizes(&w->w, &w->sizes);
    return make_matrix(w, why);
}

bool work_make(work *w, const fb_case *c, char why[TIMING_WHY])
{
    bool kept = w->w_buffer && same_matrix(&w->c, c);
    if (!kept && !make_weights(w, c, why)) {
        work_free(w);
        return false;
    }
    w->c = *c;
    if (is_product(c) && !w->decoded) {
        fb_context ref;
        fb_context_init(&ref, FB_BACKEND_REFERENCE);
        w->decoded = work_block((size_t)elements(c) * sizeof(float));
        if (!w->decoded) return fail(why, "no memory for the decoded matrix");
        if (fb_dequantize(&ref, &w->w, w->decoded, FB_F32) != FB_OK) return fail(why, ref.message);
    }
    free(w->a), free(w->a_f32), free(w->out);
    int64_t na = is_product(c) ? activations(c) : 0;
    w->out_bytes = (size_t)outputs(c) * fb_dtype_size(c->dtype);
    w->a = work_block((size_t)na * fb_dtype_size(c->dtype));
    w->a_f32 = work_block((size_t)na * sizeof(float));
    w->out = work_block(w->out_bytes);
    if (!w->a || !w->a_f32 || !w->out) return fail(why, "no memory for the activations");
    if (na) work_fill(w->a, c->dtype, na, 2);
    for (int64_t i = 0; i < na; i++) w->a_f32[i] = fb_load(w->a, c->dtype, i);
    return work_lora_make(w, why);
}

void work_free(work *w)
{
    work_lora_free(w);
    free(w->dense), free(w->w_buffer), free(w->decoded), free(w->a), free(w->a_f32), free(w->out), free(w->q_buffer);
    memset(w, 0, sizeof *w);
}

bool work_share(const work *w, work *view, char why[TIMING_WHY])
{
    *view = *w;
    view->q_buffer = NULL;
    work_output outputs_of[WORK_OUTPUTS];
    work_outputs(w, outputs_of);
    view->out = work_block(w->out_bytes);
    if (w->c.op == FB_OP_LORA_FORWARD) view->l.u = work_block(outputs_of[1].bytes);
    if (w->c.op == FB_OP_LORA_BACKWARD) view->l.da = work_block(outputs_of[1].bytes), view->l.db = work_block(outputs_of[2].bytes);
    bool room = view->out && (!work_is_lora(&w->c) || view->l.u) && (w->c.op != FB_OP_LORA_BACKWARD || (view->l.da && view->l.db));
    return bind(&view->q, &view->q_buffer, &w->c, why) && (room || fail(why, "no memory for a second output"));
}

bool work_share_base(const work *w, work *view, char why[TIMING_WHY])
{
    work plain = *w;
    plain.c.op = w->c.op == FB_OP_LORA_FORWARD ? FB_OP_GEMM : FB_OP_GEMM_DX;
    plain.c.rank = 0;
    plain.l = (work_lora){.u = NULL};
    return work_share(&plain, view, why);
}

void work_unshare(work *view)
{
    free(view->out), free(view->q_buffer), free(view->l.da), free(view->l.db);
    if (view->c.op == FB_OP_LORA_FORWARD) free(view->l.u); /* backward's is an input: borrowed */
    memset(view, 0, sizeof *view);
}

void work_outputs(const work *w, work_output outputs_of[WORK_OUTPUTS])
{
    const fb_case *c = &w->c;
    memset(outputs_of, 0, WORK_OUTPUTS * sizeof *outputs_of);
    outputs_of[0] = (work_output){w->out, w->out_bytes};
    if (c->op == FB_OP_LORA_FORWARD) outputs_of[1] = (work_output){w->l.u, (size_t)(c->m * c->rank) * fb_dtype_size(c->dtype)};
    if (c->op != FB_OP_LORA_BACKWARD) return;
    outputs_of[1] = (work_output){w->l.da, (size_t)(c->rank * c->cols) * sizeof(float)};
    outputs_of[2] = (work_output){w->l.db, (size_t)(c->rows * c->rank) * sizeof(float)};
}

work_cost work_cost_of(const work *w)
{
    const fb_case *c = &w->c;
    double n = (double)elements(c), size = (double)fb_dtype_size(c->dtype), packed = (double)w->sizes.total;
    if (c->op == FB_OP_QUANTIZE) return (work_cost){n * size, packed, 0};
    if (c->op == FB_OP_DEQUANTIZE) return (work_cost){packed, n * size, 0};
    work_cost cost = {packed + (double)activations(c) * size, (double)outputs(c) * size, 2.0 * n * (double)c->m};
    double adapter = (double)c->rank * (double)(c->rows + c->cols), u = (double)(c->m * c->rank);
    cost.read += adapter * size;
    cost.flops += 2.0 * (double)c->m * adapter;
    if (c->op == FB_OP_LORA_FORWARD) cost.written += u * size;
    if (c->op != FB_OP_LORA_BACKWARD) return cost;
    cost.read += (u + (double)(c->m * c->cols)) * size; /* U and X */
    cost.written += adapter * sizeof(float);            /* dA and dB */
    cost.flops += 2.0 * (double)c->m * adapter;         /* dU and its product with A; dA and dB */
    return cost;
}

/* ---- ours ------------------------------------------------------------------------------------------ */

bool ours_init(ours *o, work *w, fb_backend backend, const bench_ops *ops, int threads, char why[TIMING_WHY])
{
    *o = (ours){.w = w, .ops = ops, .threads = threads};
    fb_context_init(&o->ctx, backend);
    o->ctx.threads = threads;
    fb_status status = work_is_lora(&w->c) ? fb_lora_workspace_size(&o->ctx, w->c.op, &w->w, w->c.rank, w->c.m, w->c.dtype, &o->ctx.workspace_bytes)
                                           : fb_workspace_size(&o->ctx, w->c.op, &w->w, w->c.m, w->c.dtype, &o->ctx.workspace_bytes);
    if (status != FB_OK) return fail(why, o->ctx.message);
    o->workspace = o->ctx.workspace = work_block(o->ctx.workspace_bytes);
    return o->workspace || fail(why, "no memory for the workspace");
}

void ours_free(ours *o) { free(o->workspace); }

static fb_status one_call(ours *o)
{
    work *w = o->w;
    const fb_case *c = &w->c;
    switch (c->op) {
    case FB_OP_QUANTIZE: return o->ops->quantize(&o->ctx, w->dense, c->dtype, &w->q);
    case FB_OP_DEQUANTIZE: return o->ops->dequantize(&o->ctx, &w->w, w->out, c->dtype);
    case FB_OP_GEMM: return o->ops->gemm(&o->ctx, &w->w, c->m, w->a, c->dtype, NULL, w->out, c->dtype);
    case FB_OP_GEMM_DX: return o->ops->gemm_dx(&o->ctx, &w->w, c->m, w->a, c->dtype, w->out, c->dtype, false);
    case FB_OP_LORA_FORWARD: return o->ops->lora(&o->ctx, &w->w, &w->l.lora, c->m, w->a, c->dtype, NULL, w->out, c->dtype, w->l.u);
    case FB_OP_LORA_BACKWARD:
        return o->ops->lora_backward(&o->ctx, &w->w, &w->l.lora, c->m, w->l.x, w->l.u, w->a, c->dtype, w->out, c->dtype, false, w->l.da, w->l.db,
                                     false);
    case FB_OP_COUNT: break;
    }
    return FB_INVALID_ARGUMENT;
}

bool ours_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    ours *o = self;
    fb_status status = FB_OK;
    if (cold && !timing_evict(o->threads)) return fail(why, "no memory to empty the caches with");
    double wall = timing_now(), cpu = timing_cpu_now();
    for (int i = 0; i < calls && status == FB_OK; i++) status = one_call(o);
    span->wall = timing_now() - wall;
    span->cpu = timing_cpu_now() - cpu;
    return status == FB_OK || fail(why, o->ctx.message[0] ? o->ctx.message : fb_status_name(status));
}

/* ---- the check ----------------------------------------------------------------------------------------- */

static check_result failed(const char *text)
{
    check_result r = {.ok = false, .worst = -1};
    snprintf(r.text, sizeof r.text, "%s", text);
    return r;
}

static check_result check_quantized(const work *w)
{
    const fb_matrix *q = &w->q, *want = &w->w;
    const fb_matrix_sizes *s = &w->sizes;
    check_place codes = {"codes", q->cols, q->block_size}, blocks = {"", 0, 0};
    check_result r = check_nibbles(codes, q->codes, want->codes, s->elements);
    if (r.ok && s->absmax)
        blocks.what = "absmax", r = check_same(blocks, q->absmax, want->absmax, FB_F32, s->blocks);
    if (r.ok && s->absmax_codes)
        blocks.what = "absmax_codes", r = check_bytes(blocks, q->absmax_codes, want->absmax_codes, s->blocks);
    if (r.ok && s->nested_absmax)
        blocks.what = "nested_absmax", r = check_same(blocks, q->nested_absmax, want->nested_absmax, FB_F32, s->nested_blocks);
    if (r.ok && s->nested_offset)
        blocks.what = "nested_offset", r = check_same(blocks, q->nested_offset, want->nested_offset, FB_F32, 1);
    if (r.ok && s->zero_points)
        blocks.what = "zero_points", r = check_bytes(blocks, q->zero_points, want->zero_points, s->blocks);
    return r;
}

static check_result check_dequantized(const work *w)
{
    fb_context ref;
    fb_context_init(&ref, FB_BACKEND_REFERENCE);
    void *want = work_block(w->out_bytes);
    if (!want) return failed("no memory to check with");
    check_place place = {"dequantized", w->c.cols, w->c.block_size};
    check_result r = fb_dequantize(&ref, &w->w, want, w->c.dtype) == FB_OK
                         ? check_same(place, w->out, want, w->c.dtype, w->sizes.elements)
                         : failed(ref.message);
    free(want);
    return r;
}

/* A weight as it enters the product that the backend declares. */
static double weight(const work *w, fb_weights declared, int64_t i)
{
    float v = w->decoded[i];
    if (declared == FB_WEIGHTS_EXACT || w->c.dtype == FB_F32) return v;
    return w->c.dtype == FB_BF16 ? fb_bf16_to_float(fb_float_to_bf16(v)) : fb_f16_to_float(fb_float_to_f16(v));
}

int work_pick(int64_t n, int want, uint64_t seed, int64_t *picked)
{
    if (n <= want) {
        for (int64_t i = 0; i < n; i++) picked[i] = i;
        return (int)n;
    }
    for (int i = 0; i < want; i++) {
        int64_t low = n * i / want, high = n * (i + 1) / want;
        picked[i] = low + (int64_t)(input_random(seed, (uint64_t)i) % (uint64_t)(high - low));
    }
    picked[0] = 0, picked[want - 1] = n - 1;
    return want;
}

/* The terms and slack of the sampled rows, and the columns of `with`, as one block each. */
static double *gather_second(const work_second *s, int64_t p, const int64_t *ms, int nm, const int64_t *ps, int np, check_product *c)
{
    int64_t terms = nm * s->rank;
    double *all = work_block((size_t)(2 * terms + s->rank * np) * sizeof *all);
    if (!all) return NULL;
    for (int i = 0; i < nm; i++)
        for (int64_t r = 0; r < s->rank; r++) {
            all[i * s->rank + r] = s->terms[ms[i] * s->rank + r];
            all[terms + i * s->rank + r] = s->slack ? s->slack[ms[i] * s->rank + r] : 0;
        }
    for (int64_t r = 0; r < s->rank; r++)
        for (int j = 0; j < np; j++) all[2 * terms + r * np + j] = s->with[r * p + ps[j]];
    c->rank = s->rank, c->terms = all, c->slack = all + terms, c->with = all + 2 * terms;
    return all;
}

static check_result check_sampled(const work *w, fb_weights declared, const work_second *second)
{
    const fb_case *c = &w->c;
    bool dx = work_is_dx(c);
    int64_t p = dx ? c->cols : c->rows, l = dx ? c->rows : c->cols, ms[WORK_SAMPLED_ROWS], ps[WORK_SAMPLED_COLS];
    int nm = work_pick(c->m, WORK_SAMPLED_ROWS, WORK_ROWS_SEED, ms), np = work_pick(p, WORK_SAMPLED_COLS, 4, ps);
    size_t size = fb_dtype_size(c->dtype);
    char *a = work_block((size_t)nm * (size_t)l * size), *out = work_block((size_t)nm * (size_t)np * size);
    double *weights = work_block((size_t)np * (size_t)l * sizeof *weights);
    check_result r = failed("no memory to check with");
    check_product product = {.what = "product, sampled", .m = nm, .p = np, .l = l, .a = a, .a_dtype = c->dtype, .weights = weights, .out = out,
                             .out_dtype = c->dtype, .gaussian = true};
    double *gathered = second->rank ? gather_second(second, p, ms, nm, ps, np, &product) : NULL;
    if (a && out && weights && (gathered || !second->rank)) {
        for (int i = 0; i < nm; i++) {
            memcpy(a + (size_t)i * (size_t)l * size, (char *)w->a + (size_t)(ms[i] * l) * size, (size_t)l * size);
            for (int j = 0; j < np; j++)
                memcpy(out + (size_t)(i * np + j) * size, (char *)w->out + (size_t)(ms[i] * p + ps[j]) * size, size);
        }
        for (int j = 0; j < np; j++)
            for (int64_t k = 0; k < l; k++)
                weights[j * l + k] = weight(w, declared, dx ? k * c->cols + ps[j] : ps[j] * c->cols + k);
        /* gathered as [np, l] either way, so both are gemms to the checker */
        r = check_level2(&product);
    }
    free(a), free(out), free(weights), free(gathered);
    return r;
}

/* Whole output: out . t against a . (W t) for a vector t of random signs. An
 * element's errors, one with random sign each, add up like a random walk; 8
 * deviations of it are the bound (its own rounding and the fp32 sum's bound). */
static check_result check_projected(const work *w, fb_weights declared, const work_second *second)
{
    const fb_case *c = &w->c;
    bool dx = work_is_dx(c);
    int64_t p = dx ? c->cols : c->rows, l = dx ? c->rows : c->cols;
    const int64_t rank = second->rank;
    double *wt = calloc((size_t)(l + rank), sizeof *wt), *wabs = calloc((size_t)(l + rank), sizeof *wabs);
    double unit = ldexp(1.0, c->dtype == FB_F32 ? -24 : c->dtype == FB_F16 ? -11 : -8);
    check_result r = {.ok = wt && wabs, .worst = -1};
    if (!r.ok) snprintf(r.text, sizeof r.text, "no memory to check with");
    for (int64_t i = 0; r.ok && i < c->rows * c->cols; i++) {
        int64_t out = dx ? i % c->cols : i / c->cols, in = dx ? i / c->cols : i % c->cols;
        double v = weight(w, declared, i);
        wt[in] += input_random(5, (uint64_t)out) & 1 ? v : -v;
        wabs[in] += fabs(v);
    }
    for (int64_t i = 0; r.ok && i < rank * p; i++) {
        wt[l + i / p] += input_random(5, (uint64_t)(i % p)) & 1 ? second->with[i] : -second->with[i];
        wabs[l + i / p] += fabs(second->with[i]);
    }
    for (int64_t m = 0; r.ok && m < c->m; m++) {
        double got = 0, squares = 0, want = 0, total = 0, slack = 0;
        for (int64_t j = 0; j < p; j++) {
            double y = fb_load(w->out, c->dtype, m * p + j);
            got += input_random(5, (uint64_t)j) & 1 ? y : -y;
            squares += y * y;
        }
        for (int64_t k = 0; k < l; k++) {
            double a = w->a_f32[m * l + k];
            want += a * wt[k];
            total += fabs(a) * wabs[k];
        }
        for (int64_t k = 0; k < rank; k++) {
            double a = second->terms[m * rank + k], off = second->slack ? second->slack[m * rank + k] * wt[l + k] : 0;
            want += a * wt[l + k];
            total += fabs(a) * wabs[l + k];
            slack += off * off;
        }
        double sums = (double)(l + rank + CHECK_EXTRA_ROUNDINGS) * ldexp(total, -24) / sqrt((double)p);
        double bound = 8 * (unit * sqrt(squares) + sums + sqrt(slack));
        if (!(fabs(got - want) <= bound)) {
            r.ok = false;
            snprintf(r.text, sizeof r.text, "product, row %lld of %lld projected on random signs: %g, expected %g +- %g",
                     (long long)m, (long long)c->m, got, want, bound);
        }
    }
    free(wt), free(wabs);
    return r;
}

check_result work_check_sum(const work *w, fb_weights declared, const work_second *second)
{
    check_result r = check_sampled(w, declared, second);
    return r.ok ? check_projected(w, declared, second) : r;
}

static const work_second no_second = {.rank = 0};
check_result work_check_product(const work *w, fb_weights declared) { return work_check_sum(w, declared, &no_second); }

bool work_near_product(const work *w, const void *out, char why[TIMING_WHY]) { return work_near_sum(w, out, &no_second, why); }

bool work_near_sum(const work *w, const void *out, const work_second *second, char why[TIMING_WHY])
{
    const fb_case *c = &w->c;
    bool dx = work_is_dx(c);
    int64_t p = dx ? c->cols : c->rows, l = dx ? c->rows : c->cols, ms[WORK_SAMPLED_ROWS], ps[WORK_SAMPLED_COLS];
    int nm = work_pick(c->m, WORK_SAMPLED_ROWS, WORK_ROWS_SEED, ms), np = work_pick(p, WORK_SAMPLED_COLS, 4, ps);
    double error = 0, norm = 0;
    for (int i = 0; i < nm; i++)
        for (int j = 0; j < np; j++) {
            double want = 0, got = fb_load(out, c->dtype, ms[i] * p + ps[j]);
            for (int64_t k = 0; k < l; k++)
                want += (double)w->a_f32[ms[i] * l + k] * (double)w->decoded[dx ? k * c->cols + ps[j] : ps[j] * c->cols + k];
            for (int64_t r = 0; r < second->rank; r++) want += second->terms[ms[i] * second->rank + r] * second->with[r * p + ps[j]];
            error += (got - want) * (got - want), norm += want * want;
        }
    if (sqrt(error) <= WORK_PRODUCT_PERCENT / 100.0 * sqrt(norm)) return true;
    snprintf(why, TIMING_WHY, "wrong result: relative distance %.3g from the product, sampled", sqrt(error / norm));
    return false;
}

check_result ours_check(ours *o)
{
    work *w = o->w;
    timing_span span;
    char why[TIMING_WHY] = "";
    work_output outputs_of[WORK_OUTPUTS];
    work_outputs(w, outputs_of);
    for (int i = 0; i < WORK_OUTPUTS; i++)
        if (outputs_of[i].bytes) memset(outputs_of[i].data, 0xff, outputs_of[i].bytes); /* NaN in every type: what is not written fails */
    memset(w->q_buffer, 0xa5, fb_matrix_bytes(&w->q));
    if (!ours_run(o, 1, false, &span, why)) return failed(why);
    if (w->c.op == FB_OP_QUANTIZE) return check_quantized(w);
    if (w->c.op == FB_OP_DEQUANTIZE) return check_dequantized(w);
    if (work_is_lora(&w->c)) return work_check_lora(w, fb_lora_weights(&o->ctx, w->c.op, &w->w, w->c.rank, w->c.m, w->c.dtype));
    fb_weights declared = w->c.op == FB_OP_GEMM ? fb_gemm_weights(&o->ctx, &w->w, w->c.m, w->c.dtype)
                                                : fb_gemm_dx_weights(&o->ctx, &w->w, w->c.m, w->c.dtype);
    return work_check_product(w, declared);
}
