/* cmd_convert.c: `fourbit quantize` and `fourbit dequantize`: one safetensors file into
 * another, a tensor at a time; memory is bounded by the largest. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

/* What both directions carry. */
typedef struct job {
    const options *o;
    st_file in;
    bnb_index modules;
    st_writer *out;
    fb_context ctx;
    size_t *slots;            /* [in.count]: of tensors that are copied */
    buffer source, normal, storage, workspace;
    progress bar;
} job;

static bool job_open(job *j, const options *o, ck_error *e)
{
    *j = (job){.o = o};
    if (!backend_open(&j->ctx, o, e) || !st_open(&j->in, o->in, e) || !bnb_scan(&j->modules, &j->in, e)) return false;
    j->out = st_writer_new(o->out);
    j->slots = calloc(j->in.count + 1, sizeof *j->slots);
    if (!j->out || !j->slots) return ck_fail(e, o->in, NULL, "out of memory");
    /* transformers refuses a file whose metadata do not say who wrote the tensors */
    if (!st_writer_metadata(j->out, "format", "pt", e)) return false;
    for (size_t i = 0; i < j->in.metadata_count; i++)
        if (!st_writer_metadata(j->out, j->in.metadata[2 * i], j->in.metadata[2 * i + 1], e)) return false;
    return true;
}

static int job_close(job *j, bool good, const ck_error *e)
{
    progress_end(&j->bar);
    st_writer_free(j->out);
    bnb_index_free(&j->modules);
    st_close(&j->in);
    free(j->slots);
    buffer_free(&j->source);
    buffer_free(&j->normal);
    buffer_free(&j->storage);
    buffer_free(&j->workspace);
    return good ? EXIT_OK : failed(e);
}

static bool plan_copy(job *j, size_t i, ck_error *e)
{
    const st_tensor *t = &j->in.tensors[i];
    return st_writer_add(j->out, t->name, t->dtype, t->rank, t->shape, &j->slots[i], e);
}

static bool copy(job *j, size_t i, ck_error *e)
{
    const st_tensor *t = &j->in.tensors[i];
    enum { PIECE = 64 << 20 };
    for (size_t at = 0; at < t->bytes; at += PIECE) {
        size_t n = t->bytes - at < PIECE ? t->bytes - at : PIECE;
        if (!st_writer_put(j->out, j->slots[i], at, t->data + at, n, e)) return false;
        progress_add(&j->bar, (double)n, t->name);
    }
    return true;
}

/* ---- quantize ------------------------------------------------------------------------- */

static bnb_state state_of(const options *o, const st_tensor *t)
{
    bnb_state s = {.format = o->format, .block_size = o->block_size, .dtype = tensor_dtype(t), .rank = t->rank,
                   .elements = t->elements, .nested = o->double_quant};
    memcpy(s.shape, t->shape, sizeof s.shape);
    return s;
}

static bool quantize_one(job *j, const st_tensor *t, const bnb_slots *slots, ck_error *e)
{
    bnb_state s = state_of(j->o, t);
    fb_matrix w;
    float moments[2];
    fb_dtype dtype = tensor_dtype(t);
    const void *data = tensor_data(t, &j->source, e);
    if (!data) return false;
    if (j->o->normalize) {
        if (!buffer_need(&j->normal, (size_t)t->elements * sizeof(float), e) ||
            !library_ok(&j->ctx, fb_normalize(&j->ctx, data, dtype, t->elements, j->normal.p, FB_F32, moments),
                        j->in.path, t->name, e))
            return false;
        data = j->normal.p;
        dtype = FB_F32;
    }
    return matrix_bind(&j->ctx, &w, s.format, t->shape[0], t->shape[1], s.block_size, s.nested, dtype, &j->storage,
                       &j->workspace, e) &&
           library_ok(&j->ctx, fb_quantize(&j->ctx, data, dtype, &w), j->in.path, t->name, e) &&
           bnb_put(j->out, slots, &s, &w, j->o->normalize ? moments : NULL, e);
}

static bool quantize_all(job *j, const selection *chosen, bnb_slots *slots, ck_error *e)
{
    for (size_t i = 0; i < j->in.count; i++) {
        const st_tensor *t = &j->in.tensors[i];
        bnb_state s = state_of(j->o, t);
        if (!(chosen->chosen[i] ? bnb_can_name(&j->in, t, e) &&
                                      bnb_plan(j->out, t->name, &s, j->o->normalize, &slots[i], e)
                                : plan_copy(j, i, e)))
            return false;
    }
    if (!st_writer_start(j->out, e)) return false;
    progress_begin(&j->bar, "quantize", (double)(j->in.size - j->in.data_start));
    for (size_t i = 0; i < j->in.count; i++) {
        const st_tensor *t = &j->in.tensors[i];
        if (!(chosen->chosen[i] ? quantize_one(j, t, &slots[i], e) : copy(j, i, e))) return false;
        if (chosen->chosen[i]) progress_add(&j->bar, (double)t->bytes, t->name);
        st_release(&j->in, t);
    }
    return st_writer_commit(j->out, e);
}

int cmd_quantize(const options *o)
{
    job j;
    ck_error e;
    selection chosen = {0};
    bool good = job_open(&j, o, &e) && selection_make(&chosen, o, &j.in, &j.modules, &e);
    bnb_slots *slots = good ? calloc(j.in.count + 1, sizeof *slots) : NULL;
    if (good && !slots) good = ck_fail(&e, o->in, NULL, "out of memory");
    good = good && quantize_all(&j, &chosen, slots, &e);
    if (good)
        printf("%s: %zu matrices in %s, block %d%s%s; %zu tensors copied as they are\n", o->out, chosen.count,
               fb_format_name(o->format), o->block_size, o->double_quant ? ", double-quantized" : "",
               o->normalize ? ", normalised" : "", j.in.count - chosen.count);
    free(slots);
    selection_free(&chosen);
    return job_close(&j, good, &e);
}

/* ---- dequantize --------------------------------------------------------------------------- */

static bool plan_module(job *j, const st_tensor *state, size_t *slot, size_t *bytes, ck_error *e)
{
    bnb_module m;
    if (!bnb_open(&m, &j->in, state, e)) return false;
    fb_dtype dtype = j->o->dtype_given ? j->o->dtype : m.state.dtype;
    *bytes = (size_t)m.state.elements * fb_dtype_size(dtype);
    bool good = st_writer_add(j->out, m.name, (st_dtype)dtype, m.state.rank, m.state.shape, slot, e);
    bnb_close(&m);
    return good;
}

/* Dequantized to `dtype` in j->source; normalised weights go through fp32. */
static bool decode(job *j, const bnb_module *m, fb_dtype dtype, ck_error *e)
{
    int64_t n = m->state.elements;
    size_t bytes;
    fb_dtype first = m->normalized ? FB_F32 : dtype;
    buffer *into = m->normalized ? &j->normal : &j->source;
    if (!buffer_need(&j->source, (size_t)n * fb_dtype_size(dtype), e) ||
        !buffer_need(into, (size_t)n * fb_dtype_size(first), e) ||
        !library_ok(&j->ctx, fb_workspace_size(&j->ctx, FB_OP_DEQUANTIZE, &m->w, 0, first, &bytes), j->in.path,
                    m->name, e) ||
        !buffer_need(&j->workspace, bytes, e))
        return false;
    j->ctx.workspace = j->workspace.p;
    j->ctx.workspace_bytes = j->workspace.bytes;
    if (!library_ok(&j->ctx, fb_dequantize(&j->ctx, &m->w, into->p, first), j->in.path, m->name, e)) return false;
    return !m->normalized || library_ok(&j->ctx, fb_denormalize(&j->ctx, into->p, FB_F32, n, m->moments, j->source.p,
                                                                dtype), j->in.path, m->name, e);
}

static bool dequantize_one(job *j, const st_tensor *state, size_t slot, ck_error *e)
{
    bnb_module m;
    if (!bnb_open(&m, &j->in, state, e)) return false;
    fb_dtype dtype = j->o->dtype_given ? j->o->dtype : m.state.dtype;
    size_t bytes = (size_t)m.state.elements * fb_dtype_size(dtype);
    bool good = decode(j, &m, dtype, e) && st_writer_put(j->out, slot, 0, j->source.p, bytes, e);
    if (good) progress_add(&j->bar, (double)bytes, m.name);
    bnb_close(&m);
    return good;
}

static bool dequantize_all(job *j, size_t *slots, ck_error *e)
{
    double total = 0;
    for (size_t i = 0; i < j->modules.count; i++) {
        size_t bytes;
        if (!plan_module(j, j->modules.states[i], &slots[i], &bytes, e)) return false;
        total += (double)bytes;
    }
    for (size_t i = 0; i < j->in.count; i++) {
        if (j->modules.is_part[i]) continue;
        if (!plan_copy(j, i, e)) return false;
        total += (double)j->in.tensors[i].bytes;
    }
    if (!st_writer_start(j->out, e)) return false;
    progress_begin(&j->bar, "dequantize", total);
    for (size_t i = 0; i < j->modules.count; i++)
        if (!dequantize_one(j, j->modules.states[i], slots[i], e)) return false;
    for (size_t i = 0; i < j->in.count; i++)
        if (!j->modules.is_part[i] && !copy(j, i, e)) return false;
        else st_release(&j->in, &j->in.tensors[i]);
    return st_writer_commit(j->out, e);
}

int cmd_dequantize(const options *o)
{
    job j;
    ck_error e;
    bool good = job_open(&j, o, &e);
    if (good && j.modules.count == 0)
        good = ck_fail(&e, o->in, NULL, "has no 4-bit weight (no key \"....quant_state.bitsandbytes__nf4\")");
    size_t *slots = good ? calloc(j.modules.count + 1, sizeof *slots) : NULL;
    if (good && !slots) good = ck_fail(&e, o->in, NULL, "out of memory");
    size_t copied = 0;
    for (size_t i = 0; good && i < j.in.count; i++) copied += !j.modules.is_part[i];
    good = good && dequantize_all(&j, slots, &e);
    if (good)
        printf("%s: %zu weights dequantized%s%s; %zu tensors copied as they are\n", o->out, j.modules.count,
               o->dtype_given ? " to " : "", o->dtype_given ? fb_dtype_name(o->dtype) : "", copied);
    free(slots);
    return job_close(&j, good, &e);
}
