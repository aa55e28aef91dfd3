/* model_run.c: the forward pass, the loss and the backward pass, layer by layer. */
#include "run.h"

#include "random.h"

#include <stdlib.h>

#define TRY(call) \
    if ((call) != FB_OK) return lm_failed(m, "model", e)
#define AND(call) \
    if (!(call)) return false

/* A layer's place in the lists. */
typedef struct layer {
    int64_t index, first; /* first: of its linear layers */
    lm_kept *kept;
    lm_tensor *norm1, *norm2;
} layer;

static layer layer_at(const lm_model *m, int64_t i)
{
    lm_tensor *tensors = m->tensors + 1 + i * (LM_LINEARS + 2);
    return (layer){.index = i, .first = i * LM_LINEARS, .kept = &m->run->layers[i], .norm1 = &tensors[0], .norm2 = &tensors[5]};
}

static lm_tensor *last_norm(const lm_model *m) { return m->tensors + 1 + m->config.num_hidden_layers * (LM_LINEARS + 2); }
static lm_tensor *head(const lm_model *m) { return m->config.tie_word_embeddings ? m->tensors : last_norm(m) + 1; }

static lm_attention attention_of(const lm_model *m, int64_t batch, int64_t seq)
{
    const lm_config *c = &m->config;
    return (lm_attention){batch, seq, c->num_attention_heads, c->num_key_value_heads, c->head_dim};
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

static bool attention_forward(lm_model *m, layer l, int64_t batch, int64_t seq, bool training, ck_error *e)
{
    lm_run *r = m->run;
    lm_kept *k = l.kept;
    lm_attention shape = attention_of(m, batch, seq);
    int64_t n = batch * seq, d = m->config.hidden_size;
    TRY(r->ops->rmsnorm(&r->ctx, k->input, l.norm1->data, n, d, m->config.rms_norm_eps, k->a, k->scale1));
    AND(lm_linear_forward(m, l.first + 0, n, k->a, k->q, k->u[0], training, e));
    AND(lm_linear_forward(m, l.first + 1, n, k->a, k->k, k->u[1], training, e));
    AND(lm_linear_forward(m, l.first + 2, n, k->a, k->v, k->u[2], training, e));
    TRY(r->ops->rope(&r->ctx, r->turns, m->options.seq, batch, seq, shape.heads, shape.head_dim, false, k->q));
    TRY(r->ops->rope(&r->ctx, r->turns, m->options.seq, batch, seq, shape.kv_heads, shape.head_dim, false, k->k));
    TRY(r->ops->attention(&r->ctx, &shape, k->q, k->k, k->v, k->mixed, k->log_sum));
    AND(lm_linear_forward(m, l.first + 3, n, k->mixed, k->middle, k->u[3], training, e));
    TRY(r->ops->add(&r->ctx, k->input, n * d, k->middle));
    return true;
}

/* Leaves the stream in `output`, which may be where the layer's input was. NULL: it is run again for the way back, which
 * has the output and still lacks the last adapter's U. */
static bool layer_forward(lm_model *m, layer l, int64_t batch, int64_t seq, bool training, lm_real *output, ck_error *e)
{
    lm_run *r = m->run;
    lm_kept *k = l.kept;
    int64_t n = batch * seq, d = m->config.hidden_size;
    AND(attention_forward(m, l, batch, seq, training, e));
    TRY(r->ops->rmsnorm(&r->ctx, k->middle, l.norm2->data, n, d, m->config.rms_norm_eps, k->b, k->scale2));
    AND(lm_linear_forward(m, l.first + 4, n, k->b, k->gate, k->u[4], training, e));
    AND(lm_linear_forward(m, l.first + 5, n, k->b, k->up, k->u[5], training, e));
    TRY(r->ops->swiglu(&r->ctx, k->gate, k->up, n * m->config.intermediate_size, k->gated));
    if (!output && !m->options.rank) return true;
    AND(lm_linear_forward(m, l.first + 6, n, k->gated, output ? output : r->d_narrow, k->u[6], training, e));
    if (output) TRY(r->ops->add(&r->ctx, k->middle, n * d, output));
    return true;
}

static bool stream_forward(lm_model *m, const int32_t *tokens, int64_t batch, int64_t seq, bool training, ck_error *e)
{
    lm_run *r = m->run;
    int64_t n = batch * seq, layers = m->config.num_hidden_layers;
    if (batch < 1 || seq < 1 || seq > m->options.seq || n > m->options.batch * m->options.seq)
        return ck_fail(e, "model", NULL, "[%lld, %lld] tokens, but buffers were made for [%lld, %lld]", (long long)batch, (long long)seq,
                       (long long)m->options.batch, (long long)m->options.seq);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= m->config.vocab_size)
            return ck_fail(e, "model", NULL, "token %lld is %d; the vocabulary has %lld", (long long)i, tokens[i], (long long)m->config.vocab_size);
    if (!m->device->upload(m->device, r->ids, tokens, (size_t)n * sizeof *tokens)) return lm_device_failed(m, "tokens", e);
    r->dropout_step = m->dropout_step;
    TRY(r->ops->embed(&r->ctx, m->tensors[0].data, r->ids, n, m->config.vocab_size, m->config.hidden_size, r->layers[0].input));
    for (int64_t i = 0; i < layers; i++)
        AND(layer_forward(m, layer_at(m, i), batch, seq, training, i + 1 < layers ? r->layers[i + 1].input : r->output, e));
    return true;
}

bool lm_forward(lm_model *m, const int32_t *tokens, const int32_t *targets, int64_t batch, int64_t seq, bool training, double *loss, ck_error *e)
{
    lm_run *r = m->run;
    int64_t n = batch * seq, d = m->config.hidden_size, vocab = m->config.vocab_size;
    r->ready = false;
    if (training && m->options.trains == LM_TRAINS_NOTHING) return ck_fail(e, "model", NULL, "it was made for evaluation only");
    AND(stream_forward(m, tokens, batch, seq, training, e));
    r->counted = 0;
    for (int64_t i = 0; i < n; i++) {
        if (targets[i] >= vocab)
            return ck_fail(e, "model", NULL, "target %lld is %d; the vocabulary has %lld", (long long)i, targets[i], (long long)vocab);
        r->counted += targets[i] >= 0;
    }
    if (!m->device->upload(m->device, r->targets, targets, (size_t)n * sizeof *targets)) return lm_device_failed(m, "targets", e);
    TRY(r->ops->rmsnorm(&r->ctx, r->output, last_norm(m)->data, n, d, m->config.rms_norm_eps, r->normed, r->norm_scale));
    TRY(r->ops->product(&r->ctx, false, true, n, vocab, d, 1, r->normed, head(m)->data, r->logits, false));
    TRY(r->ops->cross_entropy(&r->ctx, r->logits, r->targets, n, vocab, 0, r->losses));
    if (!m->device->wait(m->device) || !m->device->download(m->device, r->host_losses, r->losses, (size_t)n * sizeof(lm_real)))
        return lm_device_failed(m, "losses", e);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)r->host_losses[i];
    *loss = r->counted ? sum / (double)r->counted : 0;
    r->batch = batch, r->seq = seq, r->ready = training;
    if (training) m->dropout_step++;
    return true;
}

bool lm_next_logits(lm_model *m, const int32_t *tokens, int64_t seq, float *logits, ck_error *e)
{
    lm_run *r = m->run;
    int64_t d = m->config.hidden_size, vocab = m->config.vocab_size;
    r->ready = false;
    AND(stream_forward(m, tokens, 1, seq, false, e));
    TRY(r->ops->rmsnorm(&r->ctx, r->output + (seq - 1) * d, last_norm(m)->data, 1, d, m->config.rms_norm_eps, r->normed, r->norm_scale));
    TRY(r->ops->product(&r->ctx, false, true, 1, vocab, d, 1, r->normed, head(m)->data, r->logits, false));
    lm_real *host = malloc((size_t)vocab * sizeof *host);
    if (!host) return ck_fail(e, "model", NULL, "no memory for logits");
    bool ok = m->device->wait(m->device) && m->device->download(m->device, host, r->logits, (size_t)vocab * sizeof *host);
    for (int64_t i = 0; ok && i < vocab; i++) logits[i] = (float)host[i];
    free(host);
    return ok || lm_device_failed(m, "logits", e);
}

/* ---- backward ---------------------------------------------------------------------------------------------------------- */

static bool mlp_backward(lm_model *m, layer l, int64_t n, ck_error *e)
{
    lm_run *r = m->run;
    lm_kept *k = l.kept;
    int64_t d = m->config.hidden_size;
    AND(lm_linear_backward(m, l.first + 6, n, k->gated, k->u[6], r->gradient, r->d_gated, false, e));
    TRY(r->ops->swiglu_backward(&r->ctx, r->d_gated, k->gate, k->up, n * m->config.intermediate_size, r->d_gate, r->d_up));
    AND(lm_linear_backward(m, l.first + 4, n, k->b, k->u[4], r->d_gate, r->d_narrow, false, e));
    AND(lm_linear_backward(m, l.first + 5, n, k->b, k->u[5], r->d_up, r->d_narrow, true, e));
    TRY(r->ops->rmsnorm_backward(&r->ctx, r->d_narrow, k->middle, l.norm2->data, k->scale2, n, d, r->gradient, l.norm2->grad));
    return true;
}

static bool layer_backward(lm_model *m, layer l, ck_error *e)
{
    lm_run *r = m->run;
    lm_kept *k = l.kept;
    lm_attention shape = attention_of(m, r->batch, r->seq);
    int64_t n = r->batch * r->seq, d = m->config.hidden_size;
    if (m->options.recompute) AND(layer_forward(m, l, r->batch, r->seq, true, NULL, e));
    AND(mlp_backward(m, l, n, e));
    AND(lm_linear_backward(m, l.first + 3, n, k->mixed, k->u[3], r->gradient, r->d_mixed, false, e));
    TRY(r->ops->attention_backward(&r->ctx, &shape, k->q, k->k, k->v, k->mixed, k->log_sum, r->d_mixed, r->d_q, r->d_k, r->d_v));
    TRY(r->ops->rope(&r->ctx, r->turns, m->options.seq, r->batch, r->seq, shape.heads, shape.head_dim, true, r->d_q));
    TRY(r->ops->rope(&r->ctx, r->turns, m->options.seq, r->batch, r->seq, shape.kv_heads, shape.head_dim, true, r->d_k));
    /* beneath the first layer there is nothing to train but embeddings */
    bool stops = l.index == 0 && m->options.trains != LM_TRAINS_ALL;
    lm_real *below = stops ? NULL : r->d_narrow;
    AND(lm_linear_backward(m, l.first + 0, n, k->a, k->u[0], r->d_q, below, false, e));
    AND(lm_linear_backward(m, l.first + 1, n, k->a, k->u[1], r->d_k, below, true, e));
    AND(lm_linear_backward(m, l.first + 2, n, k->a, k->u[2], r->d_v, below, true, e));
    if (!stops) TRY(r->ops->rmsnorm_backward(&r->ctx, r->d_narrow, k->input, l.norm1->data, k->scale1, n, d, r->gradient, l.norm1->grad));
    return true;
}

bool lm_backward(lm_model *m, double scale, ck_error *e)
{
    lm_run *r = m->run;
    int64_t n = r->batch * r->seq, d = m->config.hidden_size, vocab = m->config.vocab_size;
    if (!r->ready) return ck_fail(e, "model", NULL, "a backward pass without a training forward pass before it");
    r->ready = false;
    if (!r->counted || scale == 0) return true;
    TRY(r->ops->cross_entropy(&r->ctx, r->logits, r->targets, n, vocab, scale / (double)r->counted, r->losses));
    TRY(r->ops->product(&r->ctx, false, false, n, d, vocab, 1, r->logits, head(m)->data, r->d_narrow, false));
    if (head(m)->grad) TRY(r->ops->product(&r->ctx, true, false, vocab, d, n, 1, r->logits, r->normed, head(m)->grad, true));
    if (!m->device->fill(m->device, r->gradient, 0, (size_t)(n * d) * sizeof(lm_real))) return lm_device_failed(m, "gradients", e);
    TRY(r->ops->rmsnorm_backward(&r->ctx, r->d_narrow, r->output, last_norm(m)->data, r->norm_scale, n, d, r->gradient, last_norm(m)->grad));
    for (int64_t i = m->config.num_hidden_layers - 1; i >= 0; i--) AND(layer_backward(m, layer_at(m, i), e));
    if (m->tensors[0].grad) TRY(r->ops->embed_backward(&r->ctx, r->gradient, r->ids, n, vocab, d, m->tensors[0].grad));
    return true;
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

bool lm_zero_gradients(lm_model *m, ck_error *e)
{
    for (int64_t i = 0; i < m->trainable_count; i++) {
        lm_tensor *t = m->trainable[i];
        if (!m->device->fill(m->device, t->grad, 0, (size_t)t->count * sizeof(lm_real))) return lm_device_failed(m, "gradients", e);
    }
    return true;
}

bool lm_gradient_norm(lm_model *m, double *norm, ck_error *e)
{
    lm_run *r = m->run;
    int64_t at = 0;
    for (int64_t i = 0; i < m->trainable_count; i++) {
        lm_tensor *t = m->trainable[i];
        TRY(r->ops->square_sums(&r->ctx, t->grad, t->count, r->sums + at));
        at += fb_ceil_div(t->count, LM_SQUARE_CHUNK);
    }
    if (!m->device->wait(m->device) || !m->device->download(m->device, r->host_sums, r->sums, (size_t)at * sizeof *r->sums))
        return lm_device_failed(m, "gradients", e);
    double sum = 0;
    for (int64_t i = 0; i < at; i++) sum += r->host_sums[i];
    *norm = sqrt(sum);
    return true;
}

#ifndef LM_DOUBLE
static void denormalize(const lm_linear *l, float *dst)
{
    for (int64_t i = 0; l->normalized && i < l->weight->count; i++) dst[i] += l->moments[0];
}

bool lm_decode_weight(lm_model *m, const lm_linear *l, float *dst, ck_error *e)
{
    device *d = m->device;
    size_t bytes = (size_t)l->weight->count * sizeof *dst;
    if (l->weight->data)
        return (d->wait(d) && d->download(d, dst, l->weight->data, bytes)) || lm_device_failed(m, l->module, e);
    float *temporary = d->alloc(d, bytes);
    if (!temporary) return lm_device_failed(m, l->module, e);
    bool ok = fb_dequantize(&m->run->ctx, &l->quant, temporary, FB_F32) == FB_OK || lm_failed(m, l->module, e);
    if (ok && !(d->wait(d) && d->download(d, dst, temporary, bytes))) ok = lm_device_failed(m, l->module, e);
    d->release(d, temporary);
    if (ok) denormalize(l, dst);
    return ok;
}
#endif
