/* hf_load.c: a Hugging Face folder, opened and offered as a source of weights. See hf_load.h. */
#include "hf_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the tensors of a configuration ----------------------------------------------------------------------------------- */

typedef struct list {
    lm_tensor *tensors;
    bool *linear;
    int64_t count;
} list;

static void add(list *l, bool linear, int64_t rows, int64_t cols, const char *prefix, const char *name)
{
    lm_tensor *t = &l->tensors[l->count];
    *t = (lm_tensor){.rank = rows ? 2 : 1, .shape = {rows ? rows : cols, cols}, .count = (rows ? rows : 1) * cols, .decays = rows > 0};
    if (!rows) t->shape[1] = 0;
    snprintf(t->name, sizeof t->name, "%s%s.weight", prefix, name);
    l->linear[l->count++] = linear;
}

static void add_layer(list *l, const lm_config *c, int64_t layer)
{
    char p[64];
    int64_t d = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, f = c->intermediate_size;
    snprintf(p, sizeof p, "model.layers.%lld.", (long long)layer);
    add(l, false, 0, d, p, "input_layernorm");
    add(l, true, q, d, p, "self_attn.q_proj");
    add(l, true, kv, d, p, "self_attn.k_proj");
    add(l, true, kv, d, p, "self_attn.v_proj");
    add(l, true, d, q, p, "self_attn.o_proj");
    add(l, false, 0, d, p, "post_attention_layernorm");
    add(l, true, f, d, p, "mlp.gate_proj");
    add(l, true, f, d, p, "mlp.up_proj");
    add(l, true, d, f, p, "mlp.down_proj");
}

lm_tensor *hf_tensors(const lm_config *c, int64_t *count, bool **linear)
{
    size_t n = (size_t)c->num_hidden_layers * 9 + 3;
    list l = {calloc(n, sizeof *l.tensors), calloc(n, sizeof *l.linear), 0};
    if (l.tensors && l.linear) {
        add(&l, false, c->vocab_size, c->hidden_size, "", "model.embed_tokens");
        for (int64_t i = 0; i < c->num_hidden_layers; i++) add_layer(&l, c, i);
        add(&l, false, 0, c->hidden_size, "", "model.norm");
        if (!c->tie_word_embeddings) add(&l, false, c->vocab_size, c->hidden_size, "", "lm_head");
    } else {
        free(l.tensors);
        l.tensors = NULL;
    }
    *count = l.count;
    if (linear && l.tensors) *linear = l.linear;
    else free(l.linear);
    return l.tensors;
}

lm_linear hf_linear(const lm_tensor *weight)
{
    lm_linear l = {.out_features = weight->shape[0], .in_features = weight->shape[1]};
    snprintf(l.module, sizeof l.module, "%.*s", (int)(strlen(weight->name) - strlen(".weight")), weight->name);
    return l;
}

/* ---- values ---------------------------------------------------------------------------------------------------------------- */

void hf_as_float(const st_tensor *t, float *dst)
{
    if (t->dtype == ST_F32) {
        memcpy(dst, t->data, t->bytes);
        return;
    }
    for (int64_t i = 0; i < t->elements; i++) {
        uint16_t x;
        memcpy(&x, t->data + 2 * i, sizeof x);
        dst[i] = t->dtype == ST_BF16 ? fb_bf16_to_float(x) : fb_f16_to_float(x);
    }
}

bool hf_decode(const char *name, const fb_matrix *w, bool normalized, const float moments[2], float *dst, ck_error *e)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CPU);
    if (fb_backend_available(&ctx) != FB_OK) fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    if (fb_workspace_size(&ctx, FB_OP_DEQUANTIZE, w, 0, FB_F32, &ctx.workspace_bytes) != FB_OK) return ck_fail(e, "weights", name, "%s", ctx.message);
    ctx.workspace = ctx.workspace_bytes ? aligned_alloc(64, (ctx.workspace_bytes + 63) / 64 * 64) : NULL;
    if (ctx.workspace_bytes && !ctx.workspace) return ck_fail(e, "weights", name, "no memory to decode it");
    bool good = fb_dequantize(&ctx, w, dst, FB_F32) == FB_OK || ck_fail(e, "weights", name, "%s", ctx.message);
    free(ctx.workspace);
    for (int64_t i = 0; good && normalized && i < w->rows * w->cols; i++) {
        float scaled = dst[i] * moments[1];
        dst[i] = scaled + moments[0];
    }
    return good;
}

/* ---- shards ------------------------------------------------------------------------------------------------------------------ */

/* A name from an index becomes part of a path: nothing but a plain file beside it. */
static bool plain_name(const char *name)
{
    size_t n = strlen(name);
    return n > 12 && n < 256 && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name + n - 12, ".safetensors") == 0;
}

static bool open_shard(hf_checkpoint *c, const char *name, ck_error *e)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", c->folder, name) < 0) return ck_fail(e, c->folder, NULL, "out of memory");
    bool good = st_open(&c->files[c->file_count], path, e);
    if (good) {
        c->file_count++; /* closed with the others from here on */
        good = bnb_scan(&c->indices[c->file_count - 1], &c->files[c->file_count - 1], e);
    }
    free(path);
    return good;
}

static const char *base_name(const char *path) { return strrchr(path, '/') ? strrchr(path, '/') + 1 : path; }

static st_file *shard(const hf_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->file_count; i++)
        if (strcmp(base_name(c->files[i].path), name) == 0) return &c->files[i];
    return NULL;
}

static bool open_shards(hf_checkpoint *c, const char *index, ck_error *e)
{
    json_t *object = hf_read_json(index, e), *map = json_incref(json_object_get(object, "weight_map"));
    bool good = object != NULL;
    json_decref(object);
    if (good && !json_is_object(map)) good = ck_fail(e, index, "weight_map", "is missing, or not an object");
    if (good) {
        c->files = calloc(json_object_size(map) + 1, sizeof *c->files);
        c->indices = calloc(json_object_size(map) + 1, sizeof *c->indices);
        if (!c->files || !c->indices) good = ck_fail(e, index, NULL, "out of memory");
    }
    const char *key;
    json_t *value;
    if (good) json_object_foreach(map, key, value) {
        const char *name = json_string_value(value);
        if (!name) good = ck_fail(e, index, key, "its file is not a text");
        else if (!plain_name(name)) good = ck_fail(e, index, key, "\"%.200s\" is not the name of a .safetensors file in this folder", name);
        else if (!shard(c, name)) good = open_shard(c, name, e);
        if (!good) break;
    }
    if (good) c->weight_map = map;
    else json_decref(map);
    return good;
}

/* The file that holds `key` of the model's tensor. */
static st_file *file_of(const hf_checkpoint *c, const char *name)
{
    if (!c->weight_map) return &c->files[0];
    const char *in = json_string_value(json_object_get(c->weight_map, name));
    return in ? shard(c, in) : NULL;
}

/* ---- is it all there --------------------------------------------------------------------------------------------------------- */

static const st_tensor *state_of(const hf_checkpoint *c, const st_file *f, const char *name)
{
    const bnb_index *index = &c->indices[f - c->files];
    size_t n = strlen(name);
    for (size_t i = 0; i < index->count; i++) {
        const char *state = index->states[i]->name;
        if (strncmp(state, name, n) == 0 && strncmp(state + n, ".quant_state.", 13) == 0) return index->states[i];
    }
    return NULL;
}

static bool shapes_agree(const lm_tensor *t, int rank, const int64_t *shape, const char *file, ck_error *e)
{
    bool same = rank == t->rank;
    for (int i = 0; same && i < rank; i++) same = shape[i] == t->shape[i];
    if (same) return true;
    char text[ST_MAX_RANK * 24] = "";
    for (int i = 0, used = 0; i < rank; i++) used += snprintf(text + used, sizeof text - (size_t)used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (t->rank == 1) return ck_fail(e, file, t->name, "has shape [%s]; config.json needs [%lld]", text, (long long)t->shape[0]);
    return ck_fail(e, file, t->name, "has shape [%s]; config.json needs [%lld, %lld]", text, (long long)t->shape[0], (long long)t->shape[1]);
}

static bool check_tensor(hf_checkpoint *c, const lm_tensor *t, bool linear, ck_error *e)
{
    const st_file *f = file_of(c, t->name);
    const st_tensor *x = f ? st_find(f, t->name) : NULL;
    if (!x) return ck_fail(e, f ? f->path : c->folder, t->name, f ? "is missing" : "is missing: the index does not list it");
    const st_tensor *state = state_of(c, f, t->name);
    if (state) {
        if (!linear) return ck_fail(e, f->path, t->name, "is stored in 4 bits; only the layers' linear weights may be");
        bnb_module *m = &c->modules[c->module_count];
        if (!bnb_open(m, f, state, e)) return false;
        c->module_count++;
        return shapes_agree(t, m->state.rank, m->state.shape, f->path, e);
    }
    if (x->dtype != ST_F32 && x->dtype != ST_BF16 && x->dtype != ST_F16)
        return ck_fail(e, f->path, t->name, "has dtype %s; F32, BF16, F16 or bnb-4bit is needed", st_dtype_name(x->dtype));
    return shapes_agree(t, x->rank, x->shape, f->path, e);
}

static bool check_all(hf_checkpoint *c, ck_error *e)
{
    int64_t count;
    bool *linear = NULL, good = true;
    lm_tensor *tensors = hf_tensors(&c->config, &count, &linear);
    c->modules = tensors ? calloc((size_t)count + 1, sizeof *c->modules) : NULL;
    if (!c->modules) good = ck_fail(e, c->folder, NULL, "out of memory");
    for (int64_t i = 0; good && i < count; i++) good = check_tensor(c, &tensors[i], linear[i], e);
    free(tensors);
    free(linear);
    return good;
}

bool hf_open(hf_checkpoint *c, const char *folder, ck_error *e)
{
    *c = (hf_checkpoint){.folder = strdup(folder)};
    char *index = NULL;
    if (!c->folder || asprintf(&index, "%s/model.safetensors.index.json", folder) < 0) {
        hf_close(c);
        return ck_fail(e, folder, NULL, "out of memory");
    }
    bool good = hf_read_config(folder, &c->config, e);
    if (good && access(index, F_OK) == 0) good = open_shards(c, index, e);
    else if (good) {
        c->files = calloc(1, sizeof *c->files);
        c->indices = calloc(1, sizeof *c->indices);
        good = c->files && c->indices ? open_shard(c, "model.safetensors", e) : ck_fail(e, folder, NULL, "out of memory");
    }
    good = good && check_all(c, e);
    free(index);
    if (!good) hf_close(c);
    return good;
}

void hf_close(hf_checkpoint *c)
{
    for (size_t i = 0; i < c->module_count; i++) bnb_close(&c->modules[i]);
    for (size_t i = 0; i < c->file_count; i++) {
        bnb_index_free(&c->indices[i]);
        st_close(&c->files[i]);
    }
    json_decref(c->weight_map);
    free(c->modules);
    free(c->indices);
    free(c->files);
    free(c->folder);
    *c = (hf_checkpoint){0};
}

/* ---- as a source -------------------------------------------------------------------------------------------------------------- */

static const bnb_module *module_of(const hf_checkpoint *c, const char *weight)
{
    for (size_t i = 0; i < c->module_count; i++)
        if (strcmp(c->modules[i].name, weight) == 0) return &c->modules[i];
    return NULL;
}

static bool source_read(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    hf_checkpoint *c = self;
    const bnb_module *m = module_of(c, t->name);
    const st_file *f = file_of(c, t->name);
    const st_tensor *x = f ? st_find(f, t->name) : NULL;
    if (!x) return ck_fail(e, f ? f->path : c->folder, t->name, "is missing");
    if (m) return shapes_agree(t, m->state.rank, m->state.shape, f->path, e) && hf_decode(t->name, &m->w, m->normalized, m->moments, dst, e);
    if (!shapes_agree(t, x->rank, x->shape, f->path, e)) return false;
    if (x->dtype != ST_F32 && x->dtype != ST_BF16 && x->dtype != ST_F16)
        return ck_fail(e, f->path, t->name, "has dtype %s; F32, BF16 or F16 is needed", st_dtype_name(x->dtype));
    hf_as_float(x, dst);
    st_release(f, x);
    return true;
}

static bool source_quantized(void *self, const lm_linear *l, fb_matrix *w, bool *normalized, float moments[2], ck_error *e)
{
    char weight[LM_NAME + 8];
    snprintf(weight, sizeof weight, "%s.weight", l->module);
    const bnb_module *m = module_of(self, weight);
    (void)e;
    *w = m ? m->w : (fb_matrix){0};
    *normalized = m && m->normalized;
    if (m) memcpy(moments, m->moments, sizeof m->moments);
    return true;
}

lm_source hf_source(hf_checkpoint *c) { return (lm_source){c, c->folder, source_read, source_quantized}; }
