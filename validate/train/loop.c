/* loop.c: training steps (loop.h). */
#include "loop.h"

#include "bench/timing.h"
#include "run.h"

#include <stdlib.h>

const char *const loop_schedule_names[LOOP_SCHEDULE_COUNT] = {"constant", "cosine", "linear"};

device *loop_open_device(fb_backend backend, char why[DEVICE_TEXT])
{
    const char *choice = getenv("FOURBIT_CUDA"); /* "simt": the executor, whose memory is the host's */
    return device_open(backend == FB_BACKEND_CUDA && !(choice && strcmp(choice, "simt") == 0) ? "cuda" : "host", why);
}

bool loop_init(train_loop *l, const loop_settings *s, lm_model *model, optimizer *o, const text_corpus *text, ck_error *e)
{
    size_t n = (size_t)(model->options.batch * model->options.seq);
    *l = (train_loop){.settings = *s, .model = model, .optimizer = o, .text = text};
    if (s->steps < 1 || s->accumulate < 1 || s->warmup < 0) return ck_fail(e, "training", NULL, "steps and accumulate must be at least 1");
    if (text->vocab_size > model->config.vocab_size)
        return ck_fail(e, text->source, NULL, "has %d kinds of token, the model %lld", text->vocab_size, (long long)model->config.vocab_size);
    l->tokens = malloc(n * sizeof *l->tokens);
    l->targets = malloc(n * sizeof *l->targets);
    if (l->tokens && l->targets) return true;
    loop_free(l);
    return ck_fail(e, "training", NULL, "no memory for a batch");
}

void loop_free(train_loop *l)
{
    free(l->tokens), free(l->targets);
    l->tokens = l->targets = NULL;
}

double loop_rate(const loop_settings *s, int64_t step)
{
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    double left = (double)(s->steps - s->warmup), done = left > 1 ? (double)(step - s->warmup) / (left - 1) : 0;
    if (done > 1) done = 1;
    if (s->schedule == LOOP_COSINE) return s->lr * (s->floor + (1 - s->floor) * 0.5 * (1 + cos(3.141592653589793 * done)));
    if (s->schedule == LOOP_LINEAR) return s->lr * (s->floor + (1 - s->floor) * (1 - done));
    return s->lr;
}

bool loop_step(train_loop *l, loop_report *report, ck_error *e)
{
    lm_model *m = l->model;
    const loop_settings *s = &l->settings;
    double began = timing_now();
    *report = (loop_report){.lr = loop_rate(s, l->step), .tokens = s->accumulate * m->options.batch * m->options.seq};
    if (!lm_zero_gradients(m, e)) return false;
    for (int64_t i = 0; i < s->accumulate; i++) {
        double loss;
        text_batch(l->text, s->seed, l->step * s->accumulate + i, m->options.batch, m->options.seq, l->tokens, l->targets);
        if (!lm_forward(m, l->tokens, l->targets, m->options.batch, m->options.seq, true, &loss, e)) return false;
        if (!isfinite(loss))
            return ck_fail(e, "training", NULL, "the loss of step %lld is %g: training stopped before that update", (long long)l->step + 1, loss);
        if (!lm_backward(m, 1.0 / (double)s->accumulate, e)) return false;
        report->loss += loss / (double)s->accumulate;
    }
    if (!lm_gradient_norm(m, &report->norm, e)) return false;
    if (!isfinite(report->norm))
        return ck_fail(e, "training", NULL, "the gradient of step %lld is %g: training stopped before that update", (long long)l->step + 1, report->norm);
    if (!opt_step(l->optimizer, report->lr, 1, report->norm, e)) return false;
    if (!m->device->wait(m->device)) return lm_device_failed(m, "training", e);
    l->step++;
    report->seconds = timing_now() - began;
    return true;
}

/* ---- held-out loss ---------------------------------------------------------------------------------------------------- */

int64_t loop_window_count(const lm_model *m, const text_corpus *text, int64_t most)
{
    int64_t n = text_windows(text, m->options.seq);
    return most > 0 && most < n ? most : n;
}

/* One window's loss is the mean over its tokens, from the losses that lm_forward leaves on the host. */
bool loop_held_out(lm_model *m, const text_corpus *text, int64_t most, double *loss, double *losses, ck_error *e)
{
    int64_t all = text_windows(text, m->options.seq), count = loop_window_count(m, text, most), batch = m->options.batch, seq = m->options.seq;
    int32_t *tokens = malloc((size_t)(2 * batch * seq) * sizeof *tokens);
    double sum = 0, mean;
    if (!tokens) return ck_fail(e, "training", NULL, "no memory for held-out text");
    int32_t *targets = tokens + batch * seq;
    bool ok = count > 0 || ck_fail(e, text->source, NULL, "has no held-out text of %lld tokens", (long long)seq);
    for (int64_t first = 0; ok && first < count; first += batch) {
        int64_t rows = count - first < batch ? count - first : batch;
        for (int64_t i = 0; i < rows; i++) text_window(text, (first + i) * all / count, seq, tokens + i * seq, targets + i * seq);
        ok = lm_forward(m, tokens, targets, rows, seq, false, &mean, e);
        for (int64_t i = 0; ok && i < rows; i++) {
            double own = 0;
            for (int64_t t = 0; t < seq; t++) own += (double)m->run->host_losses[i * seq + t];
            sum += own / (double)seq;
            if (losses) losses[first + i] = own / (double)seq;
        }
    }
    free(tokens);
    *loss = ok ? sum / (double)count : NAN;
    return ok;
}

/* ---- operations and peak ------------------------------------------------------------------------------------------------ */

double loop_flops_per_token(const lm_model *m)
{
    const lm_config *c = &m->config;
    bool all = m->options.trains == LM_TRAINS_ALL;
    double linear = 0, adapters = 0, head = 2.0 * (double)(c->vocab_size * c->hidden_size);
    for (int64_t i = 0; i < m->linear_count; i++) {
        const lm_linear *l = &m->linears[i];
        linear += 2.0 * (double)(l->out_features * l->in_features);
        adapters += 2.0 * (double)(m->options.rank * (l->out_features + l->in_features));
    }
    /* scores and their sum over half the positions; on the way back five such products for two */
    double attention = 2.0 * (double)(c->num_hidden_layers * m->options.seq * c->num_attention_heads * c->head_dim);
    double forward = linear + adapters + head + attention;
    double backward = linear * (all ? 2 : 1) + 2 * adapters + head * (all ? 2 : 1) + 2.5 * attention;
    return forward * (m->options.recompute ? 2 : 1) + backward;
}

double loop_measure_peak(lm_model *m)
{
    enum { SIDE = 768 };
    lm_run *r = m->run;
    device *d = m->device;
    size_t bytes = (size_t)SIDE * SIDE * sizeof(float);
    float *a = d->alloc(d, bytes), *b = d->alloc(d, bytes), *c = d->alloc(d, bytes);
    double best = 0, began = timing_now();
    bool ok = a && b && c && m->options.backend != FB_BACKEND_REFERENCE && d->fill(d, a, 0, bytes) && d->fill(d, b, 0, bytes);
    for (int i = 0; ok && (i < 3 || timing_now() - began < 0.1); i++) {
        double start = timing_now();
        ok = r->ops->product(&r->ctx, false, true, SIDE, SIDE, SIDE, 1, a, b, c, false) == FB_OK && d->wait(d);
        double rate = 2.0 * SIDE * SIDE * SIDE / (timing_now() - start);
        if (ok && rate > best) best = rate;
    }
    if (a) d->release(d, a);
    if (b) d->release(d, b);
    if (c) d->release(d, c);
    return best;
}
