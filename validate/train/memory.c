/* memory.c: the buffers of a pass, and what they must come to.
 *
 * lm_predict_memory states sizes from the shapes in closed form and shares nothing with lm_make_run and lm_make_weights,
 * which allocate: a test holds the two together. */
#include "run.h"

#include <stdlib.h>

/* ---- prediction ----------------------------------------------------------------------------------------------------- */

static size_t linear_weights(const lm_config *c)
{
    size_t d = (size_t)c->hidden_size, q = (size_t)(c->num_attention_heads * c->head_dim), kv = (size_t)(c->num_key_value_heads * c->head_dim);
    return 2 * d * q + 2 * d * kv + 3 * d * (size_t)c->intermediate_size;
}

/* of all trained tensors */
static size_t square_chunks(const lm_config *c, const lm_options *o)
{
    int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, d = c->hidden_size, f = c->intermediate_size,
            layers = c->num_hidden_layers, chunk = LM_SQUARE_CHUNK, sum = 0;
    const int64_t shapes[LM_LINEARS][2] = {{q, d}, {kv, d}, {kv, d}, {d, q}, {f, d}, {f, d}, {d, f}};
    for (int i = 0; i < LM_LINEARS; i++)
        sum += o->trains == LM_TRAINS_ALL ? fb_ceil_div(shapes[i][0] * shapes[i][1], chunk)
                                          : fb_ceil_div(o->rank * shapes[i][0], chunk) + fb_ceil_div(o->rank * shapes[i][1], chunk);
    if (o->trains != LM_TRAINS_ALL) return (size_t)(layers * sum);
    int64_t ends = fb_ceil_div(c->vocab_size * d, chunk) * (c->tie_word_embeddings ? 1 : 2);
    return (size_t)(layers * sum + ends + (2 * layers + 1) * fb_ceil_div(d, chunk));
}

/* codes and absmax, each part of each matrix on 256 bytes */
static size_t quantized_bytes(const lm_config *c, const lm_options *o)
{
    size_t d = (size_t)c->hidden_size, q = (size_t)(c->num_attention_heads * c->head_dim), kv = (size_t)(c->num_key_value_heads * c->head_dim),
           f = (size_t)c->intermediate_size, total = 0;
    const size_t sizes[LM_LINEARS] = {q * d, kv * d, kv * d, d * q, f * d, f * d, d * f};
    for (int i = 0; i < LM_LINEARS; i++) {
        fb_matrix w;
        fb_format format = o->base == LM_BASE_INT3 ? FB_INT4 : o->format;
        if (fb_matrix_init(&w, format, 1, (int64_t)sizes[i], o->block_size, o->double_quant && o->base != LM_BASE_INT3) == FB_OK) total += fb_matrix_bytes(&w);
    }
    return total;
}

/* RoPE's table, tokens and targets; and on the way back one layer's gradients, dropped inputs, sums of squares. */
static size_t passing_bytes(const lm_config *c, const lm_options *o, size_t n)
{
    size_t r = sizeof(lm_real), d = (size_t)c->hidden_size, f = (size_t)c->intermediate_size, q = (size_t)(c->num_attention_heads * c->head_dim),
           kv = (size_t)(c->num_key_value_heads * c->head_dim), widest = d > q ? d : q, rank = (size_t)o->rank;
    bool unfused = rank && (o->unfused || o->base == LM_BASE_F32 || o->base == LM_BASE_BF16);
    size_t always = r * (size_t)(o->seq * c->head_dim) + 2 * n * sizeof(int32_t);
    if (f > widest) widest = f;
    if (o->trains == LM_TRAINS_NOTHING) return always + (unfused ? r * n * widest : 0);
    return always + r * n * (2 * d + 2 * q + 2 * kv + 3 * f + rank + (unfused ? 2 * widest : 0)) + sizeof(double) * square_chunks(c, o);
}

/* What the library asks for the widest product of a 4-bit layer. */
static size_t library_bytes(const lm_config *c, const lm_options *o)
{
    size_t most = 0;
    int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, d = c->hidden_size, f = c->intermediate_size,
            n = o->batch * o->seq;
    const int64_t shapes[5][2] = {{q, d}, {kv, d}, {d, q}, {f, d}, {d, f}};
    fb_context ctx;
    fb_context_init(&ctx, o->backend);
    ctx.threads = o->threads;
    for (int i = 0; i < 5 && (o->base == LM_BASE_4BIT || o->base == LM_BASE_INT3); i++) {
        size_t need[4] = {0};
        fb_matrix w;
        bool int3 = o->base == LM_BASE_INT3;
        if (fb_matrix_init(&w, int3 ? FB_INT4 : o->format, shapes[i][0], shapes[i][1], o->block_size, o->double_quant && !int3) != FB_OK) continue;
        (void)fb_workspace_size(&ctx, FB_OP_GEMM, &w, n, FB_F32, &need[0]);
        (void)fb_workspace_size(&ctx, FB_OP_GEMM_DX, &w, n, FB_F32, &need[1]);
        if (o->rank) (void)fb_lora_workspace_size(&ctx, FB_OP_LORA_FORWARD, &w, (int32_t)o->rank, n, FB_F32, &need[2]);
        if (o->rank) (void)fb_lora_workspace_size(&ctx, FB_OP_LORA_BACKWARD, &w, (int32_t)o->rank, n, FB_F32, &need[3]);
        for (int k = 0; k < 4; k++) most = need[k] > most ? need[k] : most;
    }
    return most;
}

lm_memory lm_predict_memory(const lm_config *c, const lm_options *o)
{
    size_t r = sizeof(lm_real), d = (size_t)c->hidden_size, f = (size_t)c->intermediate_size, layers = (size_t)c->num_hidden_layers,
           q = (size_t)(c->num_attention_heads * c->head_dim), kv = (size_t)(c->num_key_value_heads * c->head_dim), n = (size_t)(o->batch * o->seq),
           v = (size_t)c->vocab_size, rank = (size_t)o->rank;
    bool bits = o->base == LM_BASE_4BIT || o->base == LM_BASE_INT3;
    lm_memory p = {0};
    p.base_linear = layers * (bits ? quantized_bytes(c, o) : r * linear_weights(c));
    p.base_other = r * (v * d * (c->tie_word_embeddings ? 1 : 2) + d * (2 * layers + 1));
    /* in + out of q, k, v; o; gate, up; down */
    p.adapters = r * layers * rank * ((3 * d + q + 2 * kv) + (q + d) + 2 * (d + f) + (f + d));
    p.gradients = o->trains == LM_TRAINS_ADAPTERS ? p.adapters : o->trains == LM_TRAINS_ALL ? p.base_linear + p.base_other : 0;
    /* a layer keeps its input, two norms' outputs and scales, q, k, v, attention's output and log sums, the stream between,
     * gate, up, their product, and each adapter's U */
    size_t rest = n * (3 * d + 2 + 2 * q + 2 * kv + (size_t)c->num_attention_heads + 3 * f + LM_LINEARS * rank);
    size_t deep = o->trains == LM_TRAINS_NOTHING || o->recompute ? 1 : layers;
    size_t inputs = o->trains == LM_TRAINS_NOTHING ? 1 : layers;
    size_t last = o->trains == LM_TRAINS_NOTHING ? d + 1 : 2 * d + 1; /* the last layer's output, the last norm's */
    p.activations = r * (inputs * n * d + deep * rest + n * last);
    p.logits = r * n * (v + 1);
    p.workspace = passing_bytes(c, o, n) + library_bytes(c, o);
    return p;
}

/* ---- allocation -------------------------------------------------------------------------------------------------------- */

static lm_real *reals(lm_model *m, int64_t count, size_t *component, ck_error *e) { return lm_take(m, (size_t)count * sizeof(lm_real), component, e); }

static bool keep_layer(lm_model *m, lm_kept *k, int64_t n, ck_error *e)
{
    const lm_config *c = &m->config;
    int64_t d = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, f = c->intermediate_size;
    struct { lm_real **to; int64_t count; } parts[] = {
        {&k->scale1, n}, {&k->a, n * d}, {&k->q, n * q}, {&k->k, n * kv}, {&k->v, n * kv}, {&k->mixed, n * q},
        {&k->log_sum, n * c->num_attention_heads}, {&k->middle, n * d}, {&k->scale2, n}, {&k->b, n * d}, {&k->gate, n * f}, {&k->up, n * f},
        {&k->gated, n * f}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!(*parts[i].to = reals(m, parts[i].count, &m->memory.activations, e))) return false;
    for (int i = 0; m->options.rank && i < LM_LINEARS; i++)
        if (!(k->u[i] = reals(m, n * m->options.rank, &m->memory.activations, e))) return false;
    return true;
}

static bool keep_layers(lm_model *m, int64_t n, ck_error *e)
{
    lm_run *r = m->run;
    int64_t layers = m->config.num_hidden_layers;
    bool passing = m->options.trains == LM_TRAINS_NOTHING, shared = passing || m->options.recompute;
    r->layers = calloc((size_t)layers, sizeof *r->layers);
    if (!r->layers) return ck_fail(e, "model", NULL, "no memory for its description");
    for (int64_t i = 0; i < layers; i++) {
        if (i && shared) r->layers[i] = r->layers[0];
        else if (!keep_layer(m, &r->layers[i], n, e)) return false;
        if (i && passing) continue;
        if (!(r->layers[i].input = reals(m, n * m->config.hidden_size, &m->memory.activations, e))) return false;
    }
    return (r->output = passing ? r->layers[0].input : reals(m, n * m->config.hidden_size, &m->memory.activations, e)) != NULL;
}

/* One layer's passing values on the way back. */
static bool make_gradients(lm_model *m, int64_t n, ck_error *e)
{
    const lm_config *c = &m->config;
    lm_run *r = m->run;
    int64_t d = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim, f = c->intermediate_size;
    bool unfused = m->options.unfused || m->options.base == LM_BASE_F32 || m->options.base == LM_BASE_BF16;
    int64_t widest = d > q ? d : q, lora = unfused && m->options.rank ? n * (f > widest ? f : widest) : 0;
    struct { lm_real **to; int64_t count; } parts[] = {{&r->gradient, n * d}, {&r->d_narrow, n * d}, {&r->d_q, n * q}, {&r->d_k, n * kv},
                                                       {&r->d_v, n * kv}, {&r->d_mixed, n * q}, {&r->d_gate, n * f}, {&r->d_up, n * f},
                                                       {&r->d_gated, n * f}, {&r->dropped, lora}, {&r->lora_back, lora},
                                                       {&r->d_u, n * m->options.rank}};
    if (m->options.trains == LM_TRAINS_NOTHING) return !lora || (r->dropped = reals(m, lora, &m->memory.workspace, e)) != NULL;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!(*parts[i].to = reals(m, parts[i].count, &m->memory.workspace, e))) return false;
    for (int64_t i = 0; i < m->trainable_count; i++) r->sum_count += fb_ceil_div(m->trainable[i]->count, LM_SQUARE_CHUNK);
    r->host_sums = calloc((size_t)r->sum_count + 1, sizeof *r->host_sums);
    if (!r->host_sums) return ck_fail(e, "model", NULL, "no memory for sums of squares");
    return (r->sums = lm_take(m, (size_t)r->sum_count * sizeof *r->sums, &m->memory.workspace, e)) != NULL;
}

/* What the library needs for the widest of the 4-bit products. */
static bool make_workspace(lm_model *m, int64_t n, ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    size_t most = 0;
    for (int64_t i = 0; i < LM_LINEARS && !m->linears[i].weight->data; i++) {
        const fb_matrix *w = &m->linears[i].quant;
        size_t need[4] = {0};
        int32_t rank = (int32_t)m->options.rank;
        fb_status status = fb_workspace_size(ctx, FB_OP_GEMM, w, n, FB_F32, &need[0]);
        if (status == FB_OK) status = fb_workspace_size(ctx, FB_OP_GEMM_DX, w, n, FB_F32, &need[1]);
        if (status == FB_OK && rank) status = fb_lora_workspace_size(ctx, FB_OP_LORA_FORWARD, w, rank, n, FB_F32, &need[2]);
        if (status == FB_OK && rank) status = fb_lora_workspace_size(ctx, FB_OP_LORA_BACKWARD, w, rank, n, FB_F32, &need[3]);
        if (status != FB_OK) return lm_failed(m, "workspace", e);
        for (int k = 0; k < 4; k++) most = need[k] > most ? need[k] : most;
    }
    if (!most) return true;
    ctx->workspace_bytes = most;
    return (ctx->workspace = lm_take(m, most, &m->memory.workspace, e)) != NULL;
}

/* cosines and sines of position * theta^(-2i / head_dim) */
static bool make_turns(lm_model *m, ck_error *e)
{
    const lm_config *c = &m->config;
    int64_t half = c->head_dim / 2, seq = m->options.seq;
    size_t bytes = (size_t)(2 * seq * half) * sizeof(lm_real);
    lm_real *host = malloc(bytes);
    if (!host) return ck_fail(e, "model", NULL, "no memory for RoPE's table");
    for (int64_t t = 0; t < seq; t++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)t * pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
            host[t * half + i] = (lm_real)cos(angle);
            host[(seq + t) * half + i] = (lm_real)sin(angle);
        }
    m->run->turns = lm_take(m, bytes, &m->memory.workspace, e);
    bool ok = m->run->turns && (m->device->upload(m->device, m->run->turns, host, bytes) || lm_device_failed(m, "RoPE's table", e));
    free(host);
    return ok;
}

bool lm_make_run(lm_model *m, ck_error *e)
{
    lm_run *r = m->run;
    int64_t n = m->options.batch * m->options.seq;
    r->host_losses = calloc((size_t)n, sizeof *r->host_losses);
    if (!r->host_losses) return ck_fail(e, "model", NULL, "no memory for losses");
    if (!keep_layers(m, n, e) || !make_gradients(m, n, e) || !make_workspace(m, n, e) || !make_turns(m, e)) return false;
    return (r->norm_scale = reals(m, n, &m->memory.activations, e)) && (r->normed = reals(m, n * m->config.hidden_size, &m->memory.activations, e)) &&
           (r->logits = reals(m, n * m->config.vocab_size, &m->memory.logits, e)) && (r->losses = reals(m, n, &m->memory.logits, e)) &&
           (r->ids = lm_take(m, (size_t)n * sizeof *r->ids, &m->memory.workspace, e)) &&
           (r->targets = lm_take(m, (size_t)n * sizeof *r->targets, &m->memory.workspace, e));
}
