/* train_checkpoint.c: see train_checkpoint.h. */
#include "train_checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char metadata_key[] = "fourbit_training", version_key[] = "version", steps_key[] = "optimizer_steps";
enum { VERSION = 1 };

/* ---- fields as text ------------------------------------------------------------------------------------------------- */

/* NULL: out of memory, or a text that is not UTF-8. */
static json_t *encoded(const tc_field *f)
{
    char text[64];
    switch (f->kind) {
    case TC_I64: return json_integer(*(const int64_t *)f->value);
    case TC_U64: snprintf(text, sizeof text, "%016" PRIx64, *(const uint64_t *)f->value); break;
    case TC_F64: snprintf(text, sizeof text, "%a", *(const double *)f->value); break;
    case TC_TEXT: return json_string(f->value);
    }
    return json_string(text);
}

static bool as_number(const char *text, tc_kind kind, void *to)
{
    char *end;
    errno = 0;
    if (kind == TC_U64) {
        uint64_t x = strtoull(text, &end, 16);
        memcpy(to, &x, sizeof x);
        return strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
    }
    double x = strtod(text, &end);
    memcpy(to, &x, sizeof x);
    return *text && *end == '\0';
}

/* Into `to` (value, or for a text its pointer). False: not of this kind. */
static bool decoded(const tc_field *f, const json_t *json, void *to)
{
    const char *text = json_string_value(json);
    if (f->kind == TC_I64) {
        int64_t x = json_integer_value(json);
        memcpy(to, &x, sizeof x);
        return json_is_integer(json);
    }
    if (!text) return false;
    if (f->kind != TC_TEXT) return as_number(text, f->kind, to);
    memcpy(to, &text, sizeof text);
    return strlen(text) < f->size;
}

static json_t *all_fields(const tc_state *s, const char *path, ck_error *e)
{
    json_t *object = json_pack("{si}", version_key, VERSION);
    bool good = object && (!s->optimizer || json_object_set_new(object, steps_key, json_integer(opt_steps(s->optimizer))) == 0);
    if (!good) ck_fail(e, path, NULL, "out of memory");
    for (size_t i = 0; good && i < s->field_count; i++) {
        const char *name = s->fields[i].name;
        if (json_object_get(object, name)) good = ck_fail(e, path, name, "is the name of two fields");
        else if (json_object_set_new(object, name, encoded(&s->fields[i])) != 0) good = ck_fail(e, path, name, "cannot be written: not UTF-8?");
    }
    if (good) return object;
    json_decref(object);
    return NULL;
}

/* ---- saving ------------------------------------------------------------------------------------------------------------- */

static bool put_tensor(st_writer *w, size_t slot, const lm_tensor *t, device *d, ck_error *e)
{
    size_t bytes = (size_t)t->count * sizeof *t->data;
    if (!d) return st_writer_put(w, slot, 0, t->data, bytes, e);
    void *host = malloc(bytes + 1);
    if (!host) return ck_fail(e, "checkpoint", t->name, "no memory for a copy of it");
    bool good = d->download(d, host, t->data, bytes) ? st_writer_put(w, slot, 0, host, bytes, e)
                                                      : ck_fail(e, "checkpoint", t->name, "%s", d->why);
    free(host);
    return good;
}

static bool plan(st_writer *w, const tc_state *s, const char *json, size_t *slots, ck_error *e)
{
    if (!st_writer_metadata(w, "format", "pt", e) || !st_writer_metadata(w, metadata_key, json, e)) return false;
    for (int64_t i = 0; i < s->tensor_count; i++) {
        const lm_tensor *t = s->tensors[i];
        if (!st_writer_add(w, t->name, ST_F32, t->rank, t->shape, &slots[i], e)) return false;
    }
    return !s->optimizer || opt_plan(s->optimizer, w, e);
}

static bool put(st_writer *w, const tc_state *s, const size_t *slots, ck_error *e)
{
    for (int64_t i = 0; i < s->tensor_count; i++)
        if (!put_tensor(w, slots[i], s->tensors[i], s->device, e)) return false;
    return !s->optimizer || opt_put(s->optimizer, w, e);
}

bool tc_save(const char *path, const tc_state *s, ck_error *e)
{
    if (s->optimizer && opt_failed(s->optimizer))
        return ck_fail(e, path, NULL, "not saved: an update failed half way, and what is in memory belongs to no step");
    json_t *object = all_fields(s, path, e);
    if (!object) return false;
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    size_t *slots = calloc((size_t)s->tensor_count + 1, sizeof *slots);
    st_writer *w = st_writer_new(path);
    bool good = json && slots && w ? plan(w, s, json, slots, e) && st_writer_start(w, e) && put(w, s, slots, e) && st_writer_commit(w, e)
                                   : ck_fail(e, path, NULL, "out of memory");
    st_writer_free(w);
    free(slots);
    free(json);
    return good;
}

/* ---- loading: everything is looked at before anything is changed -------------------------------------------------------- */

static json_t *parsed(const st_file *f, ck_error *e)
{
    const char *text = NULL;
    for (size_t i = 0; i < f->metadata_count; i++)
        if (strcmp(f->metadata[2 * i], metadata_key) == 0) text = f->metadata[2 * i + 1];
    if (!text) return ck_fail(e, f->path, metadata_key, "is not in its metadata: not a checkpoint of a training run"), NULL;
    json_error_t why;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(object)) {
        ck_fail(e, f->path, metadata_key, "is not a JSON object: %s", object ? "another value" : why.text);
        json_decref(object);
        return NULL;
    }
    return object;
}

static bool same_value(const tc_field *f, const void *seen)
{
    const char *text;
    if (f->kind != TC_TEXT) return memcmp(seen, f->value, sizeof(int64_t)) == 0;
    memcpy(&text, seen, sizeof text);
    return strcmp(text, f->value) == 0;
}

static void show(char text[128], const tc_field *f, const void *value)
{
    const char *string;
    if (f->kind == TC_I64) snprintf(text, 128, "%" PRId64, *(const int64_t *)value);
    else if (f->kind == TC_U64) snprintf(text, 128, "%" PRIu64, *(const uint64_t *)value);
    else if (f->kind == TC_F64) snprintf(text, 128, "%.17g", *(const double *)value);
    else {
        memcpy(&string, value, sizeof string);
        snprintf(text, 128, "\"%.100s\"", string);
    }
}

static bool check_fields(const tc_state *s, const st_file *f, const json_t *object, ck_error *e)
{
    const json_t *version = json_object_get(object, version_key);
    if (json_integer_value(version) != VERSION) return ck_fail(e, f->path, version_key, "is not %d: written by another version", VERSION);
    for (size_t i = 0; i < s->field_count; i++) {
        const tc_field *field = &s->fields[i];
        const json_t *value = json_object_get(object, field->name);
        uint64_t seen;
        if (!value) return ck_fail(e, f->path, field->name, "is missing");
        if (!decoded(field, value, &seen)) return ck_fail(e, f->path, field->name, "is not of the right kind, or too long");
        if (field->must_equal && !same_value(field, &seen)) {
            char there[128], here[128];
            const char *text = field->value;
            show(there, field, &seen);
            show(here, field, field->kind == TC_TEXT ? (const void *)&text : field->value);
            return ck_fail(e, f->path, field->name, "is %s in the checkpoint and %s in this run", there, here);
        }
    }
    size_t known = 1 + s->field_count + (s->optimizer != NULL);
    if (s->optimizer && !json_is_integer(json_object_get(object, steps_key)))
        return ck_fail(e, f->path, steps_key, "is missing: there is no optimizer's state");
    if (json_object_size(object) == known) return true;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        bool found = strcmp(key, version_key) == 0 || (s->optimizer && strcmp(key, steps_key) == 0);
        for (size_t i = 0; i < s->field_count; i++) found |= strcmp(key, s->fields[i].name) == 0;
        if (!found) return ck_fail(e, f->path, key, "is not a field of this run");
    }
    return true;
}

static bool check_tensors(const tc_state *s, const st_file *f, ck_error *e)
{
    size_t state = 0;
    for (int64_t i = 0; i < s->tensor_count; i++) {
        const lm_tensor *t = s->tensors[i];
        const st_tensor *x = st_find(f, t->name);
        if (!x) return ck_fail(e, f->path, t->name, "is missing");
        bool same = x->dtype == ST_F32 && x->rank == t->rank;
        for (int k = 0; same && k < t->rank; k++) same = x->shape[k] == t->shape[k];
        if (!same)
            return ck_fail(e, f->path, t->name, "is %s of rank %d with %lld elements; F32 of rank %d, first dimension %lld, is needed",
                           st_dtype_name(x->dtype), x->rank, (long long)x->elements, t->rank, (long long)t->shape[0]);
    }
    if (s->optimizer && !opt_check(s->optimizer, f, e)) return false;
    for (size_t i = 0; i < f->count; i++) {
        const char *name = f->tensors[i].name;
        bool ours = s->optimizer && strncmp(name, "optimizer.", 10) == 0;
        state += ours;
        for (int64_t k = 0; !ours && k < s->tensor_count; k++) ours = strcmp(name, s->tensors[k]->name) == 0;
        if (!ours) return ck_fail(e, f->path, name, "is not a tensor of this run");
    }
    if (!s->optimizer || state == opt_parts(s->optimizer)) return true;
    return ck_fail(e, f->path, NULL, "holds %zu parts of an optimizer's state; %zu are needed", state, opt_parts(s->optimizer));
}

static bool take(const tc_state *s, const st_file *f, const json_t *object, ck_error *e)
{
    device *d = s->device;
    for (int64_t i = 0; i < s->tensor_count; i++) {
        const lm_tensor *t = s->tensors[i];
        const st_tensor *x = st_find(f, t->name);
        if (!d) memcpy(t->data, x->data, x->bytes);
        else if (!d->upload(d, t->data, x->data, x->bytes)) return ck_fail(e, f->path, t->name, "%s", d->why);
    }
    if (s->optimizer && !opt_take(s->optimizer, f, json_integer_value(json_object_get(object, steps_key)), e)) return false;
    for (size_t i = 0; i < s->field_count; i++) {
        const tc_field *field = &s->fields[i];
        uint64_t seen = 0;
        decoded(field, json_object_get(object, field->name), &seen);
        const char *text;
        memcpy(&text, &seen, sizeof text);
        if (field->kind == TC_TEXT) snprintf(field->value, field->size, "%s", text);
        else memcpy(field->value, &seen, sizeof seen);
    }
    return true;
}

bool tc_load(const char *path, const tc_state *s, ck_error *e)
{
    st_file f;
    if (!st_open(&f, path, e)) return false;
    json_t *object = parsed(&f, e);
    bool good = object && check_fields(s, &f, object, e) && check_tensors(s, &f, e) && take(s, &f, object, e);
    json_decref(object);
    st_close(&f);
    return good;
}
