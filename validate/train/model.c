/* model.c: what a model consists of: its tensors by name, its linear layers, its buffers. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- checks ------------------------------------------------------------------------------------------------------- */

typedef struct range {
    const char *name;
    int64_t value, most;
} range;

bool lm_config_check(const lm_config *c, const char *file, ck_error *e)
{
    const range ranges[] = {{"vocab_size", c->vocab_size, 1 << 24}, {"hidden_size", c->hidden_size, 1 << 20},
                            {"intermediate_size", c->intermediate_size, 1 << 22}, {"num_hidden_layers", c->num_hidden_layers, 4096},
                            {"num_attention_heads", c->num_attention_heads, 4096}, {"num_key_value_heads", c->num_key_value_heads, 4096},
                            {"head_dim", c->head_dim, LM_HEAD_DIM_MAX}, {"max_position_embeddings", c->max_position_embeddings, 1 << 24}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < 1 || ranges[i].value > ranges[i].most)
            return ck_fail(e, file, ranges[i].name, "is %lld; it must be 1 ... %lld", (long long)ranges[i].value, (long long)ranges[i].most);
    if (c->head_dim % 2) return ck_fail(e, file, "head_dim", "is %lld; RoPE turns pairs, so it must be even", (long long)c->head_dim);
    if (c->num_attention_heads % c->num_key_value_heads)
        return ck_fail(e, file, "num_key_value_heads", "is %lld, which does not divide num_attention_heads, %lld",
                       (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
    if (!(c->rope_theta > 0) || !isfinite(c->rope_theta)) return ck_fail(e, file, "rope_theta", "is %g; it must be above 0", c->rope_theta);
    if (!(c->rms_norm_eps > 0) || !(c->rms_norm_eps < 1)) return ck_fail(e, file, "rms_norm_eps", "is %g; it must be in (0, 1)", c->rms_norm_eps);
    return true;
}

static bool check_options(const lm_config *c, const lm_options *o, ck_error *e)
{
    const char *options = "options";
    if (o->batch < 1 || o->batch > 1 << 20) return ck_fail(e, options, "batch", "is %lld; it must be 1 ... 2^20", (long long)o->batch);
    if (o->seq < 1 || o->seq > c->max_position_embeddings)
        return ck_fail(e, options, "seq", "is %lld; the model has 1 ... %lld positions", (long long)o->seq, (long long)c->max_position_embeddings);
    if (o->rank < 0 || o->rank > FB_LORA_RANK_MAX)
        return ck_fail(e, options, "rank", "is %lld; it must be 0 ... %d", (long long)o->rank, FB_LORA_RANK_MAX);
    if (o->trains == LM_TRAINS_ADAPTERS && o->rank == 0) return ck_fail(e, options, "rank", "is 0, but adapters are to be trained");
    if (o->trains == LM_TRAINS_ALL && (o->rank || o->base != LM_BASE_F32))
        return ck_fail(e, options, "trains", "everything can only be trained in fp32 and without adapters");
    if (!(o->dropout >= 0) || !(o->dropout < 1)) return ck_fail(e, options, "dropout", "is %g; it must be in [0, 1)", o->dropout);
    if (!isfinite(o->alpha)) return ck_fail(e, options, "alpha", "is not finite");
    if ((o->base == LM_BASE_4BIT || o->base == LM_BASE_INT3) && !fb_block_size_valid(o->block_size))
        return ck_fail(e, options, "block_size", "is %d; it must be a power of two, %d ... %d", o->block_size, FB_BLOCK_MIN, FB_BLOCK_MAX);
    return true;
}

/* ---- memory and messages -------------------------------------------------------------------------------------------- */

bool lm_failed(const lm_model *m, const char *what, ck_error *e) { return ck_fail(e, what, NULL, "%s", m->run->ctx.message); }
bool lm_device_failed(const lm_model *m, const char *what, ck_error *e) { return ck_fail(e, what, NULL, "%s", m->device->why); }

void *lm_take(lm_model *m, size_t bytes, size_t *component, ck_error *e)
{
    lm_run *r = m->run;
    void **blocks = realloc(r->blocks, (r->block_count + 1) * sizeof *blocks);
    if (blocks) r->blocks = blocks;
    void *p = blocks ? m->device->alloc(m->device, bytes ? bytes : 1) : NULL;
    if (!p) {
        ck_fail(e, "model", NULL, "no memory for %zu bytes: %s", bytes, blocks ? m->device->why : "the host is full");
        return NULL;
    }
    r->blocks[r->block_count++] = p;
    *component += bytes;
    return p;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------------- */

static const char *const linear_names[LM_LINEARS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                     "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

static void linear_shape(const lm_config *c, int which, int64_t *out, int64_t *in)
{
    int64_t d = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, f = c->intermediate_size;
    const int64_t shapes[LM_LINEARS][2] = {{q, d}, {kv, d}, {kv, d}, {d, q}, {f, d}, {f, d}, {d, f}};
    *out = shapes[which][0], *in = shapes[which][1];
}

static void name_tensor(lm_tensor *t, const char *name, int64_t rows, int64_t cols)
{
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rank = cols ? 2 : 1;
    t->shape[0] = rows, t->shape[1] = cols;
    t->count = cols ? rows * cols : rows;
    t->decays = cols != 0;
}

static void name_layer(lm_model *m, int64_t layer, lm_tensor **next)
{
    const lm_config *c = &m->config;
    char name[LM_NAME];
    for (int i = 0; i < LM_LINEARS; i++) {
        lm_linear *l = &m->linears[layer * LM_LINEARS + i];
        if (i == 0 || i == 4) {
            snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, i ? "post_attention_layernorm" : "input_layernorm");
            name_tensor((*next)++, name, c->hidden_size, 0);
        }
        linear_shape(c, i, &l->out_features, &l->in_features);
        snprintf(l->module, sizeof l->module, "model.layers.%lld.%s", (long long)layer, linear_names[i]);
        snprintf(name, sizeof name, "%.*s.weight", LM_NAME - 8, l->module);
        name_tensor(l->weight = (*next)++, name, l->out_features, l->in_features);
    }
}

static void name_adapters(lm_model *m)
{
    char name[LM_NAME];
    for (int64_t i = 0; m->options.rank && i < m->linear_count; i++) {
        lm_linear *l = &m->linears[i];
        l->lora_A = &m->adapters[2 * i], l->lora_B = &m->adapters[2 * i + 1];
        snprintf(name, sizeof name, "base_model.model.%.*s.lora_A.weight", LM_NAME - 32, l->module);
        name_tensor(l->lora_A, name, m->options.rank, l->in_features);
        snprintf(name, sizeof name, "base_model.model.%.*s.lora_B.weight", LM_NAME - 32, l->module);
        name_tensor(l->lora_B, name, l->out_features, m->options.rank);
    }
}

static bool name_tensors(lm_model *m, ck_error *e)
{
    const lm_config *c = &m->config;
    int64_t layers = c->num_hidden_layers;
    m->linear_count = layers * LM_LINEARS;
    m->tensor_count = layers * (LM_LINEARS + 2) + 2 + !c->tie_word_embeddings;
    m->adapter_count = m->options.rank ? 2 * m->linear_count : 0;
    m->linears = calloc((size_t)m->linear_count, sizeof *m->linears);
    m->tensors = calloc((size_t)m->tensor_count, sizeof *m->tensors);
    m->adapters = calloc((size_t)m->adapter_count + 1, sizeof *m->adapters);
    m->trainable = calloc((size_t)(m->tensor_count + m->adapter_count), sizeof(lm_tensor *));
    if (!m->linears || !m->tensors || !m->adapters || !m->trainable) return ck_fail(e, "model", NULL, "no memory for its description");
    lm_tensor *next = m->tensors;
    name_tensor(next++, "model.embed_tokens.weight", c->vocab_size, c->hidden_size);
    for (int64_t i = 0; i < layers; i++) name_layer(m, i, &next);
    name_tensor(next++, "model.norm.weight", c->hidden_size, 0);
    if (!c->tie_word_embeddings) name_tensor(next++, "lm_head.weight", c->vocab_size, c->hidden_size);
    name_adapters(m);
    lm_tensor *list = m->options.trains == LM_TRAINS_ALL ? m->tensors : m->adapters;
    int64_t count = m->options.trains == LM_TRAINS_ALL ? m->tensor_count : m->options.trains == LM_TRAINS_ADAPTERS ? m->adapter_count : 0;
    for (int64_t i = 0; i < count; i++) {
        m->trainable[m->trainable_count++] = &list[i];
        m->trainable_elements += list[i].count;
    }
    return true;
}

lm_tensor *lm_find(lm_model *m, const char *name)
{
    for (int64_t i = 0; i < m->tensor_count; i++)
        if (strcmp(m->tensors[i].name, name) == 0) return &m->tensors[i];
    for (int64_t i = 0; i < m->adapter_count; i++)
        if (strcmp(m->adapters[i].name, name) == 0) return &m->adapters[i];
    return NULL;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------ */

lm_model *lm_model_new(const lm_config *c, const lm_options *o, const lm_source *source, device *d, ck_error *e)
{
    if (!lm_config_check(c, source ? source->file : "configuration", e) || !check_options(c, o, e)) return NULL;
    lm_model *m = calloc(1, sizeof *m);
    lm_run *r = calloc(1, sizeof *r);
    if (m) m->run = r;
    if (!m || !r) {
        ck_fail(e, "model", NULL, "no memory");
        free(m), free(r);
        return NULL;
    }
    m->config = *c, m->options = *o, m->device = d;
    fb_context_init(&r->ctx, o->backend);
    r->ctx.threads = o->threads;
    r->ctx.stream = d->stream;
#ifdef LM_DOUBLE
    r->ops = lm_reference_ops();
#else
    r->ops = lm_backend_ops(o->backend, r->ctx.message);
#endif
    bool ok = r->ops ? name_tensors(m, e) : lm_failed(m, "backend", e);
    if (ok && lm_make_weights(m, source, e) && lm_make_run(m, e)) return m;
    lm_model_free(m);
    return NULL;
}

void lm_model_free(lm_model *m)
{
    if (!m) return;
    lm_run *r = m->run;
    if (m->device) (void)m->device->wait(m->device);
    for (size_t i = 0; i < r->block_count; i++) m->device->release(m->device, r->blocks[i]);
    free(r->blocks), free(r->layers), free(r->host_sums), free(r->host_losses), free(r);
    free(m->linears), free(m->tensors), free(m->adapters), free(m->trainable);
    free(m);
}
