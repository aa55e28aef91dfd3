/* weights.c: the values a model begins with: a checkpoint's or random ones, quantized as the options say; adapters. */
#include "run.h"

#include "random.h"

#include <stdlib.h>

static bool upload(lm_model *m, lm_real *to, const float *from, int64_t n, ck_error *e)
{
#ifdef LM_DOUBLE
    for (int64_t i = 0; i < n; i++) to[i] = (lm_real)from[i]; /* the host's memory: this build knows no other */
    return (void)m, (void)e, true;
#else
    return m->device->upload(m->device, to, from, (size_t)n * sizeof *to) || lm_device_failed(m, "weights", e);
#endif
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0;
}

/* GPT-2's initial values (Radford et al., 2019, section 2.3): what is added to the stream 2 layers times is smaller. */
static void initialize(const lm_model *m, const lm_tensor *t, uint64_t stream, float *dst)
{
    double deviation = 0.02;
    if (ends_with(t->name, "o_proj.weight") || ends_with(t->name, "down_proj.weight")) deviation /= sqrt(2.0 * (double)m->config.num_hidden_layers);
    for (int64_t i = 0; i < t->count; i++) dst[i] = t->rank == 1 ? 1 : (float)(deviation * lm_normal(m->options.seed, stream, (uint64_t)i));
}

static lm_linear *linear_of(lm_model *m, const lm_tensor *t)
{
    for (int64_t i = 0; i < m->linear_count; i++)
        if (m->linears[i].weight == t) return &m->linears[i];
    return NULL;
}

static bool all_finite(const lm_tensor *t, const float *values, const char *file, ck_error *e)
{
    for (int64_t i = 0; i < t->count; i++)
        if (!isfinite(values[i])) return ck_fail(e, file, t->name, "element %lld is not finite", (long long)i);
    return true;
}

/* The tensor from `host`, in the form the options ask for. */
static bool place(lm_model *m, lm_tensor *t, lm_linear *l, float *host, ck_error *e)
{
    lm_base base = m->options.base;
    if (l && (base == LM_BASE_4BIT || base == LM_BASE_INT3)) return lm_quantize(m, l, host, e);
    for (int64_t i = 0; l && base == LM_BASE_BF16 && i < t->count; i++) host[i] = fb_bf16_to_float(fb_float_to_bf16(host[i]));
    t->data = lm_take(m, (size_t)t->count * sizeof(lm_real), l ? &m->memory.base_linear : &m->memory.base_other, e);
    return t->data && upload(m, t->data, host, t->count, e);
}

static bool load(lm_model *m, lm_tensor *t, uint64_t stream, const lm_source *source, ck_error *e)
{
    lm_linear *l = linear_of(m, t);
    if (l && source && source->quantized) {
        fb_matrix given = {0};
        bool normalized = false;
        float moments[2] = {0, 1};
        if (!source->quantized(source->self, l, &given, &normalized, moments, e)) return false;
        if (given.codes && m->options.trains == LM_TRAINS_ALL)
            return ck_fail(e, source->file, t->name, "is stored in 4 bits: such a base cannot be trained itself, only adapters on it");
        if (given.codes) return lm_adopt(m, l, &given, normalized, moments, e);
    }
    float *host = malloc((size_t)t->count * sizeof *host);
    if (!host) return ck_fail(e, "model", t->name, "no memory for %lld elements", (long long)t->count);
    bool ok = true;
    if (source) ok = source->read(source->self, t, host, e) && all_finite(t, host, source->file, e);
    else initialize(m, t, stream, host);
    ok = ok && place(m, t, l, host, e);
    free(host);
    return ok;
}

/* A uniform in +-1/sqrt(in) (Kaiming's with sqrt(5), what PEFT uses), B zero: training begins at the base. */
static bool make_adapters(lm_model *m, ck_error *e)
{
    for (int64_t k = 0; k < m->adapter_count; k++) {
        lm_tensor *t = &m->adapters[k];
        float *host = calloc((size_t)t->count, sizeof *host);
        if (!host) return ck_fail(e, "model", t->name, "no memory for %lld elements", (long long)t->count);
        double reach = 1 / sqrt((double)t->shape[1]);
        for (int64_t i = 0; k % 2 == 0 && i < t->count; i++)
            host[i] = (float)(reach * (2 * lm_uniform(m->options.seed, 0xada00000u + (uint64_t)k, (uint64_t)i) - 1));
        t->data = lm_take(m, (size_t)t->count * sizeof(lm_real), &m->memory.adapters, e);
        bool ok = t->data && upload(m, t->data, host, t->count, e);
        free(host);
        if (!ok) return false;
    }
    return true;
}

bool lm_make_weights(lm_model *m, const lm_source *source, ck_error *e)
{
    for (int64_t i = 0; i < m->tensor_count; i++)
        if (!load(m, &m->tensors[i], (uint64_t)i, source, e)) return false;
    if (!make_adapters(m, e)) return false;
    for (int64_t i = 0; i < m->trainable_count; i++)
        if (!(m->trainable[i]->grad = lm_take(m, (size_t)m->trainable[i]->count * sizeof(lm_real), &m->memory.gradients, e))) return false;
    return lm_zero_gradients(m, e);
}
