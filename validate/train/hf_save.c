/* hf_save.c: a Hugging Face folder written from any source of weights, and memory as such a source. See hf_load.h. */
#include "hf_config.h"

#include "validate/checkpoint/atomic_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- what peft.c uses too ------------------------------------------------------------------------------------------------ */

st_dtype hf_stored(fb_dtype t) { return t == FB_F32 ? ST_F32 : t == FB_BF16 ? ST_BF16 : ST_F16; }

void hf_round(const float *src, int64_t n, fb_dtype t, void *dst)
{
    if (t == FB_F32) {
        if (dst != src) memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t x = t == FB_BF16 ? fb_float_to_bf16(src[i]) : fb_float_to_f16(src[i]);
        memcpy((char *)dst + 2 * i, &x, sizeof x);
    }
}

bool hf_write_json(const char *folder, const char *name, json_t *object, ck_error *e)
{
    char *path = NULL, *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    if (!text || asprintf(&path, "%s/%s", folder, name) < 0) {
        free(text);
        return ck_fail(e, folder, NULL, "out of memory");
    }
    af_file f;
    size_t bytes = strlen(text);
    text[bytes++] = '\n'; /* in place of the NUL */
    bool good = true;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) good = ck_fail(e, folder, NULL, "cannot be made: %s", strerror(errno));
    if (good && (good = af_create(&f, path, e))) {
        good = af_write(&f, text, bytes, 0, e) && af_commit(&f, bytes, e);
        af_abort(&f);
    }
    free(path);
    free(text);
    return good;
}

/* ---- memory as a source ---------------------------------------------------------------------------------------------------- */

/* A host copy that lives until hf_memory_close; the host's own memory as it is. */
static const void *on_host(hf_memory *m, const void *p, size_t bytes, const char *name, ck_error *e)
{
    if (!m->device || !p) return p;
    void **copies = realloc(m->copies, (m->copy_count + 1) * sizeof *copies), *copy = copies ? malloc(bytes + 1) : NULL;
    if (copies) m->copies = copies;
    if (!copy) return ck_fail(e, "weights", name, "no memory for a copy of it"), NULL;
    m->copies[m->copy_count++] = copy;
    if (m->device->download(m->device, copy, p, bytes)) return copy;
    return ck_fail(e, "weights", name, "%s", m->device->why), NULL;
}

static bool matrix_on_host(hf_memory *m, const lm_linear *l, fb_matrix *w, ck_error *e)
{
    fb_matrix_sizes s;
    *w = l->quant;
    if (fb_matrix_get_sizes(w, &s) != FB_OK) return ck_fail(e, "weights", l->module, "is not a valid 4-bit matrix");
#define BRING(part) (!s.part || (w->part = (void *)(uintptr_t)on_host(m, l->quant.part, s.part, l->module, e)) != NULL)
    return BRING(codes) && BRING(absmax) && BRING(absmax_codes) && BRING(nested_absmax) && BRING(nested_offset) && BRING(zero_points);
#undef BRING
}

static const lm_linear *linear_named(const hf_memory *m, const char *module, size_t length)
{
    for (int64_t i = 0; i < m->linear_count; i++)
        if (strlen(m->linears[i].module) == length && memcmp(m->linears[i].module, module, length) == 0) return &m->linears[i];
    return NULL;
}

static bool memory_quantized(void *self, const lm_linear *l, fb_matrix *w, bool *normalized, float moments[2], ck_error *e)
{
    hf_memory *m = self;
    const lm_linear *held = linear_named(m, l->module, strlen(l->module));
    *w = (fb_matrix){0};
    *normalized = false;
    if (!held || !held->quant.codes) return true;
    *normalized = held->normalized;
    memcpy(moments, held->moments, sizeof held->moments);
    return matrix_on_host(m, held, w, e);
}

static bool memory_read(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    hf_memory *m = self;
    for (int64_t i = 0; i < m->tensor_count; i++) {
        const lm_tensor *x = &m->tensors[i];
        if (strcmp(x->name, t->name) != 0) continue;
        if (x->count != t->count) return ck_fail(e, "weights", t->name, "has %lld elements; %lld are needed", (long long)x->count, (long long)t->count);
        if (x->data && m->device) return m->device->download(m->device, dst, x->data, (size_t)x->count * sizeof *dst) || ck_fail(e, "weights", t->name, "%s", m->device->why);
        if (x->data) {
            memcpy(dst, x->data, (size_t)x->count * sizeof *dst);
            return true;
        }
        const lm_linear *l = linear_named(m, t->name, strlen(t->name) - strlen(".weight"));
        fb_matrix w;
        if (!l || !l->quant.codes) break;
        return matrix_on_host(m, l, &w, e) && hf_decode(t->name, &w, l->normalized, l->moments, dst, e);
    }
    return ck_fail(e, "weights", t->name, "is missing");
}

lm_source hf_memory_source(hf_memory *m) { return (lm_source){m, "weights", memory_read, memory_quantized}; }

void hf_memory_close(hf_memory *m)
{
    for (size_t i = 0; i < m->copy_count; i++) free(m->copies[i]);
    free(m->copies);
    m->copies = NULL;
    m->copy_count = 0;
}

/* ---- saving ---------------------------------------------------------------------------------------------------------------------- */

/* How one tensor goes into the file. */
typedef struct plan {
    enum { DENSE, AS_IT_IS, QUANTIZE } way;
    size_t slot;
    bnb_slots slots;
    bnb_state state;
    fb_matrix w;       /* AS_IT_IS */
    bool normalized;
    float moments[2];
} plan;

static bool plan_tensor(st_writer *w, const lm_tensor *t, bool linear, const lm_source *source, const hf_save_options *o, plan *p, ck_error *e)
{
    *p = (plan){.way = DENSE};
    if (linear && source->quantized) {
        lm_linear l = hf_linear(t);
        if (!source->quantized(source->self, &l, &p->w, &p->normalized, p->moments, e)) return false;
        if (p->w.codes) p->way = AS_IT_IS;
    }
    if (linear && p->way == DENSE && o->quantize) p->way = QUANTIZE;
    if (p->way == DENSE) return st_writer_add(w, t->name, hf_stored(o->dtype), t->rank, t->shape, &p->slot, e);
    bool kept = p->way == AS_IT_IS;
    p->state = (bnb_state){.format = kept ? p->w.format : o->format, .block_size = kept ? p->w.block_size : o->block_size, .dtype = o->dtype,
                           .rank = 2, .shape = {t->shape[0], t->shape[1]}, .elements = t->count, .nested = kept ? p->w.double_quant : o->double_quant};
    if (kept && (p->w.rows != t->shape[0] || p->w.cols != t->shape[1]))
        return ck_fail(e, source->file, t->name, "is [%lld, %lld] in 4 bits, not [%lld, %lld]", (long long)p->w.rows, (long long)p->w.cols,
                       (long long)t->shape[0], (long long)t->shape[1]);
    return bnb_plan(w, t->name, &p->state, p->normalized, &p->slots, e);
}

static bool put_quantized(st_writer *w, const lm_tensor *t, const plan *p, const float *values, const hf_save_options *o, ck_error *e)
{
    fb_context ctx = o->context;
    fb_matrix q;
    if (fb_matrix_init(&q, p->state.format, t->shape[0], t->shape[1], p->state.block_size, p->state.nested) != FB_OK)
        return ck_fail(e, "weights", t->name, "cannot be quantized: block size %d", (int)p->state.block_size);
    size_t bytes = fb_matrix_bytes(&q);
    if (fb_workspace_size(&ctx, FB_OP_QUANTIZE, &q, 0, FB_F32, &ctx.workspace_bytes) != FB_OK) return ck_fail(e, "weights", t->name, "%s", ctx.message);
    void *buffer = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
    ctx.workspace = aligned_alloc(64, ctx.workspace_bytes / 64 * 64 + 64);
    bool good = buffer && ctx.workspace ? true : ck_fail(e, "weights", t->name, "no memory to quantize it");
    if (good && (fb_matrix_bind(&q, buffer, bytes) != FB_OK || fb_quantize(&ctx, values, FB_F32, &q) != FB_OK))
        good = ck_fail(e, "weights", t->name, "%s", ctx.message);
    good = good && bnb_put(w, &p->slots, &p->state, &q, NULL, e);
    free(buffer);
    free(ctx.workspace);
    return good;
}

static bool put_tensor(st_writer *w, const lm_tensor *t, const plan *p, const lm_source *source, const hf_save_options *o, ck_error *e)
{
    if (p->way == AS_IT_IS) return bnb_put(w, &p->slots, &p->state, &p->w, p->normalized ? p->moments : NULL, e);
    float *values = malloc((size_t)t->count * sizeof *values + 1);
    if (!values) return ck_fail(e, source->file, t->name, "no memory for its %lld elements", (long long)t->count);
    bool good = source->read(source->self, t, values, e);
    if (good && p->way == QUANTIZE) good = put_quantized(w, t, p, values, o, e);
    else if (good) {
        hf_round(values, t->count, o->dtype, values); /* in place: what is written is never ahead of what is read */
        good = st_writer_put(w, p->slot, 0, values, (size_t)t->count * fb_dtype_size(o->dtype), e);
    }
    free(values);
    return good;
}

static bool write_weights(const char *path, const lm_tensor *tensors, const bool *linear, int64_t count, const lm_source *source,
                          const hf_save_options *o, plan *plans, ck_error *e)
{
    st_writer *w = st_writer_new(path);
    bool good = w ? st_writer_metadata(w, "format", "pt", e) : ck_fail(e, path, NULL, "out of memory");
    for (int64_t i = 0; good && i < count; i++) good = plan_tensor(w, &tensors[i], linear[i], source, o, &plans[i], e);
    good = good && st_writer_start(w, e);
    for (int64_t i = 0; good && i < count; i++) good = put_tensor(w, &tensors[i], &plans[i], source, o, e);
    good = good && st_writer_commit(w, e);
    st_writer_free(w);
    return good;
}

bool hf_save(const char *folder, const lm_config *c, const lm_source *source, const hf_save_options *o, ck_error *e)
{
    int64_t count;
    bool *linear = NULL;
    char *path = NULL;
    lm_tensor *tensors = hf_tensors(c, &count, &linear);
    plan *plans = tensors ? calloc((size_t)count + 1, sizeof *plans) : NULL;
    bool good = plans && asprintf(&path, "%s/model.safetensors", folder) >= 0 ? true : ck_fail(e, folder, NULL, "out of memory");
    if (good && mkdir(folder, 0777) != 0 && errno != EEXIST) good = ck_fail(e, folder, NULL, "cannot be made: %s", strerror(errno));
    good = good && write_weights(path, tensors, linear, count, source, o, plans, e);
    if (good) {
        const plan *q = NULL;
        for (int64_t i = 0; i < count; i++)
            if (plans[i].way != DENSE) q = &plans[i];
        good = hf_write_json(folder, "config.json", hf_config_json(c, o->dtype, q != NULL, q ? q->state.format : FB_NF4, q && q->state.nested), e);
    }
    free(path);
    free(plans);
    free(linear);
    free(tensors);
    return good;
}
