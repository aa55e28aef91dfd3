/* peft.c: see peft.h. */
#include "peft.h"

#include "hf_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char prefix[] = "base_model.model.", suffix_a[] = ".lora_A.weight", suffix_b[] = ".lora_B.weight";

double peft_scaling(const peft_config *c) { return c->lora_alpha / (c->use_rslora ? sqrt((double)c->r) : (double)c->r); }

/* ---- names and shapes --------------------------------------------------------------------------------------------------- */

/* "base_model.model.M.lora_A.weight": where M is, and how long. */
static bool module_of(const char *name, const char *suffix, const char **module, size_t *length)
{
    size_t n = strlen(name), head = sizeof prefix - 1, tail = strlen(suffix);
    if (n <= head + tail || strncmp(name, prefix, head) != 0 || strcmp(name + n - tail, suffix) != 0) return false;
    *module = name + head;
    *length = n - head - tail;
    return true;
}

/* Pairs of one module each, of rank r. */
static bool check_pairs(const char *file, const lm_tensor *adapters, int64_t count, int64_t r, ck_error *e)
{
    if (count == 0 || count % 2) return ck_fail(e, file, NULL, "%lld adapter tensors are no pairs of lora_A and lora_B", (long long)count);
    for (int64_t i = 0; i < count; i += 2) {
        const lm_tensor *a = &adapters[i], *b = &adapters[i + 1];
        const char *ma, *mb;
        size_t na, nb;
        if (!module_of(a->name, suffix_a, &ma, &na)) return ck_fail(e, file, a->name, "is not base_model.model.<module>.lora_A.weight");
        if (!module_of(b->name, suffix_b, &mb, &nb) || na != nb || memcmp(ma, mb, na) != 0)
            return ck_fail(e, file, b->name, "is not the lora_B.weight that follows '%s'", a->name);
        if (a->rank != 2 || b->rank != 2 || a->shape[0] != r || b->shape[1] != r)
            return ck_fail(e, file, a->name, "it and its lora_B are not [%lld, in] and [out, %lld]", (long long)r, (long long)r);
    }
    return true;
}

/* The last parts of the modules' names, each once. */
static json_t *target_modules(const lm_tensor *adapters, int64_t count)
{
    json_t *names = json_array();
    for (int64_t i = 0; names && i < count; i += 2) {
        const char *module, *last;
        size_t n, k;
        module_of(adapters[i].name, suffix_a, &module, &n);
        for (last = module + n; last > module && last[-1] != '.';) last--;
        json_t *name = json_stringn(last, (size_t)(module + n - last)), *seen;
        bool known = false;
        json_array_foreach(names, k, seen) known |= json_equal(seen, name);
        if (known) json_decref(name);
        else json_array_append_new(names, name);
    }
    return names;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

static bool fetch(const lm_tensor *t, device *d, float *dst, ck_error *e)
{
    size_t bytes = (size_t)t->count * sizeof *dst;
    if (!d) memcpy(dst, t->data, bytes);
    else if (!d->download(d, dst, t->data, bytes)) return ck_fail(e, "adapter", t->name, "%s", d->why);
    return true;
}

static bool put(st_writer *w, size_t slot, const lm_tensor *t, device *d, fb_dtype dtype, ck_error *e)
{
    float *values = malloc((size_t)t->count * sizeof *values + 1);
    if (!values) return ck_fail(e, "adapter", t->name, "no memory for a copy of it");
    bool good = fetch(t, d, values, e);
    if (good) hf_round(values, t->count, dtype, values);
    good = good && st_writer_put(w, slot, 0, values, (size_t)t->count * fb_dtype_size(dtype), e);
    free(values);
    return good;
}

static bool write_tensors(const char *path, const lm_tensor *adapters, int64_t count, device *d, fb_dtype dtype, ck_error *e)
{
    st_writer *w = st_writer_new(path);
    size_t *slots = calloc((size_t)count + 1, sizeof *slots);
    bool good = w && slots ? st_writer_metadata(w, "format", "pt", e) : ck_fail(e, path, NULL, "out of memory");
    for (int64_t i = 0; good && i < count; i++) good = st_writer_add(w, adapters[i].name, hf_stored(dtype), 2, adapters[i].shape, &slots[i], e);
    good = good && st_writer_start(w, e);
    for (int64_t i = 0; good && i < count; i++) good = put(w, slots[i], &adapters[i], d, dtype, e);
    good = good && st_writer_commit(w, e);
    st_writer_free(w);
    free(slots);
    return good;
}

static json_t *config_json(const peft_config *c, const lm_tensor *adapters, int64_t count)
{
    json_t *alpha = c->lora_alpha == floor(c->lora_alpha) && fabs(c->lora_alpha) < 1e15 ? json_integer((json_int_t)c->lora_alpha)
                                                                                        : json_real(c->lora_alpha);
    return json_pack("{ss ss sI so sf so ss sb so sb sb sb sb s{} s{} so}", "peft_type", "LORA", "task_type", "CAUSAL_LM", "r", (json_int_t)c->r,
                     "lora_alpha", alpha, "lora_dropout", c->lora_dropout, "target_modules", target_modules(adapters, count), "bias", "none",
                     "fan_in_fan_out", 0, "base_model_name_or_path", *c->base_model ? json_string(c->base_model) : json_null(), "inference_mode", 1,
                     "use_rslora", c->use_rslora, "use_dora", 0, "init_lora_weights", 1, "rank_pattern", "alpha_pattern", "modules_to_save",
                     json_null());
}

bool peft_save(const char *folder, const peft_config *c, const lm_tensor *adapters, int64_t count, device *d, fb_dtype dtype, ck_error *e)
{
    char *path = NULL;
    if (!check_pairs(folder, adapters, count, c->r, e)) return false;
    if (asprintf(&path, "%s/adapter_model.safetensors", folder) < 0) return ck_fail(e, folder, NULL, "out of memory");
    bool good = mkdir(folder, 0777) == 0 || errno == EEXIST || ck_fail(e, folder, NULL, "cannot be made: %s", strerror(errno));
    good = good && write_tensors(path, adapters, count, d, dtype, e) &&
           hf_write_json(folder, "adapter_config.json", config_json(c, adapters, count), e);
    free(path);
    return good;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

/* Must be absent, null, false, empty or "none". */
static bool plain(const char *path, const json_t *object, const char *key, ck_error *e)
{
    const json_t *v = json_object_get(object, key);
    bool empty = (json_is_object(v) && json_object_size(v) == 0) || (json_is_array(v) && json_array_size(v) == 0);
    if (!v || json_is_null(v) || json_is_false(v) || empty) return true;
    if (json_is_string(v) && strcmp(json_string_value(v), "none") == 0) return true;
    return ck_fail(e, path, key, "is set: these adapters cannot do that");
}

static bool positive(const char *path, const json_t *object, const char *key, double most, double *out, ck_error *e)
{
    const json_t *v = json_object_get(object, key);
    *out = json_number_value(v);
    if (!json_is_number(v)) return ck_fail(e, path, key, v ? "is not a number" : "is missing");
    return (*out > 0 && *out <= most) || ck_fail(e, path, key, "is %g; it must be above 0, at most %g", *out, most);
}

static bool parse(const char *path, const json_t *object, peft_config *c, ck_error *e)
{
    static const char *const refused[] = {"use_dora", "bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias",
                                          "use_qalora", "trainable_token_indices", "layer_replication", "corda_config", "target_parameters"};
    const char *type = json_string_value(json_object_get(object, "peft_type")), *base = json_string_value(json_object_get(object, "base_model_name_or_path"));
    const json_t *dropout = json_object_get(object, "lora_dropout");
    double r;
    if (!type || strcmp(type, "LORA") != 0) return ck_fail(e, path, "peft_type", "is \"%.32s\", not LORA", type ? type : "(none)");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!plain(path, object, refused[i], e)) return false;
    if (!positive(path, object, "r", 65536, &r, e) || !positive(path, object, "lora_alpha", 1e9, &c->lora_alpha, e)) return false;
    if (r != floor(r)) return ck_fail(e, path, "r", "is %g, not an integer", r);
    c->r = (int64_t)r;
    c->lora_dropout = json_number_value(dropout);
    if (dropout && !(c->lora_dropout >= 0 && c->lora_dropout < 1)) return ck_fail(e, path, "lora_dropout", "is not in [0, 1)");
    c->use_rslora = json_is_true(json_object_get(object, "use_rslora"));
    snprintf(c->base_model, sizeof c->base_model, "%s", base ? base : "");
    return true;
}

bool peft_read_config(const char *folder, peft_config *c, ck_error *e)
{
    char *path = NULL;
    *c = (peft_config){0};
    if (asprintf(&path, "%s/adapter_config.json", folder) < 0) return ck_fail(e, folder, NULL, "out of memory");
    json_t *object = hf_read_json(path, e);
    bool good = object && parse(path, object, c, e);
    json_decref(object);
    free(path);
    return good;
}

static bool check_file(const st_file *f, const lm_tensor *adapters, int64_t count, ck_error *e)
{
    for (int64_t i = 0; i < count; i++) {
        const lm_tensor *t = &adapters[i];
        const st_tensor *x = st_find(f, t->name);
        if (!x) return ck_fail(e, f->path, t->name, "is missing");
        if (x->dtype != ST_F32 && x->dtype != ST_BF16 && x->dtype != ST_F16)
            return ck_fail(e, f->path, t->name, "has dtype %s; F32, BF16 or F16 is needed", st_dtype_name(x->dtype));
        if (x->rank != 2 || x->shape[0] != t->shape[0] || x->shape[1] != t->shape[1])
            return ck_fail(e, f->path, t->name, "is not [%lld, %lld]", (long long)t->shape[0], (long long)t->shape[1]);
    }
    for (size_t i = 0; i < f->count; i++) {
        bool ours = false;
        for (int64_t k = 0; !ours && k < count; k++) ours = strcmp(f->tensors[i].name, adapters[k].name) == 0;
        if (!ours) return ck_fail(e, f->path, f->tensors[i].name, "belongs to no linear layer of this model");
    }
    return true;
}

bool peft_load(const char *folder, const lm_tensor *adapters, int64_t count, device *d, ck_error *e)
{
    char *path = NULL;
    st_file f;
    if (asprintf(&path, "%s/adapter_model.safetensors", folder) < 0) return ck_fail(e, folder, NULL, "out of memory");
    bool good = st_open(&f, path, e);
    free(path);
    if (!good) return false;
    good = check_file(&f, adapters, count, e);
    for (int64_t i = 0; good && i < count; i++) {
        const lm_tensor *t = &adapters[i];
        float *values = malloc((size_t)t->count * sizeof *values + 1);
        good = values || ck_fail(e, "adapter", t->name, "no memory for a copy of it");
        if (good) hf_as_float(st_find(&f, t->name), values);
        if (good && !d) memcpy(t->data, values, (size_t)t->count * sizeof *values);
        else if (good && !d->upload(d, t->data, values, (size_t)t->count * sizeof *values)) good = ck_fail(e, "adapter", t->name, "%s", d->why);
        free(values);
    }
    st_close(&f);
    return good;
}

/* ---- merging -------------------------------------------------------------------------------------------------------------------- */

void peft_merge(float *w, const float *a, const float *b, int64_t out, int64_t in, int64_t r, double scaling)
{
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++) sum += (double)b[o * r + k] * (double)a[k * in + i];
            w[o * in + i] = (float)((double)w[o * in + i] + scaling * sum);
        }
}

static bool merged_read(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    const peft_merged *m = self;
    if (!m->base->read(m->base->self, t, dst, e)) return false;
    for (int64_t i = 0; i + 1 < m->count; i += 2) {
        const lm_tensor *a = &m->adapters[i], *b = &m->adapters[i + 1];
        const char *module;
        size_t n;
        if (!module_of(a->name, suffix_a, &module, &n) || strncmp(t->name, module, n) != 0 || strcmp(t->name + n, ".weight") != 0) continue;
        if (a->shape[1] != t->shape[1] || b->shape[0] != t->shape[0])
            return ck_fail(e, "adapter", a->name, "does not fit '%s' [%lld, %lld]", t->name, (long long)t->shape[0], (long long)t->shape[1]);
        float *va = malloc((size_t)(a->count + b->count) * sizeof *va + 1), *vb = va ? va + a->count : NULL;
        bool good = va ? fetch(a, m->device, va, e) && fetch(b, m->device, vb, e) : ck_fail(e, "adapter", a->name, "no memory for a copy of it");
        if (good) peft_merge(dst, va, vb, t->shape[0], t->shape[1], a->shape[0], m->scaling);
        free(va);
        return good;
    }
    return true;
}

lm_source peft_merged_source(peft_merged *m) { return (lm_source){m, "merged weights", merged_read, NULL}; }
