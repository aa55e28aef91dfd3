/* safetensors_write.c: see safetensors.h.
 *
 * The header stands before the data but is known after them (the length of a late
 * tensor), so its place is reserved at the size it can have at most, and the rest
 * filled with spaces, which the container allows. */
#include "safetensors.h"

#include "atomic_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct planned {
    char *name;
    st_dtype dtype;
    int rank;
    int64_t shape[ST_MAX_RANK];
    bool late;
    char *text;      /* late: its bytes, until commit */
    uint64_t bytes, begin, written;
} planned;

struct st_writer {
    char *path;
    json_t *metadata, *names; /* names: a set */
    planned *tensors;
    size_t count, capacity;
    uint64_t header_bytes, data_bytes; /* data: without late tensors */
    af_file file;
};

st_writer *st_writer_new(const char *path)
{
    st_writer *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->file = (af_file){.fd = -1, .slot = -1};
    w->path = strdup(path);
    w->metadata = json_object();
    w->names = json_object();
    if (w->path && w->metadata && w->names) return w;
    st_writer_free(w);
    return NULL;
}

void st_writer_free(st_writer *w)
{
    if (!w) return;
    af_abort(&w->file);
    for (size_t i = 0; i < w->count; i++) {
        free(w->tensors[i].name);
        free(w->tensors[i].text);
    }
    free(w->tensors);
    json_decref(w->metadata);
    json_decref(w->names);
    free(w->path);
    free(w);
}

bool st_writer_metadata(st_writer *w, const char *key, const char *value, ck_error *e)
{
    if (json_object_set_new(w->metadata, key, json_string(value)) == 0) return true;
    return ck_fail(e, w->path, "__metadata__", "'%.64s' or its value is not UTF-8", key);
}

/* ---- declaring --------------------------------------------------------------------- */

static bool add(st_writer *w, const planned *p, const char *name, size_t *slot, ck_error *e)
{
    if (strcmp(name, "__metadata__") == 0) return ck_fail(e, w->path, name, "is no name for a tensor");
    if (json_object_get(w->names, name)) return ck_fail(e, w->path, name, "would be written twice");
    if (json_object_set_new(w->names, name, json_true()) != 0)
        return ck_fail(e, w->path, name, "the name is not UTF-8");
    if (w->count == w->capacity) {
        size_t capacity = w->capacity ? 2 * w->capacity : 64;
        planned *more = realloc(w->tensors, capacity * sizeof *more);
        if (!more) return ck_fail(e, w->path, NULL, "out of memory");
        w->tensors = more;
        w->capacity = capacity;
    }
    w->tensors[w->count] = *p;
    w->tensors[w->count].name = strdup(name);
    if (!w->tensors[w->count].name) return ck_fail(e, w->path, NULL, "out of memory");
    *slot = w->count++;
    return true;
}

bool st_writer_add(st_writer *w, const char *name, st_dtype dtype, int rank, const int64_t *shape, size_t *slot,
                   ck_error *e)
{
    planned p = {.dtype = dtype, .rank = rank};
    int64_t n = 1, bits = 0;
    bool bad = (unsigned)dtype >= ST_DTYPE_COUNT || rank < 0 || rank > ST_MAX_RANK;
    for (int i = 0; !bad && i < rank; i++) {
        p.shape[i] = shape[i];
        bad = shape[i] < 0 || __builtin_mul_overflow(n, shape[i], &n);
    }
    if (bad || __builtin_mul_overflow(n, (int64_t)st_dtype_bits(dtype), &bits) || bits % 8)
        return ck_fail(e, w->path, name, "cannot be written: its type or shape is not valid");
    p.bytes = (uint64_t)bits / 8;
    return add(w, &p, name, slot, e);
}

bool st_writer_add_late(st_writer *w, const char *name, size_t *slot, ck_error *e)
{
    planned p = {.dtype = ST_U8, .rank = 1, .late = true};
    return add(w, &p, name, slot, e);
}

/* ---- layout -------------------------------------------------------------------------- */

/* 0 ... 3: types of 8, 4, 2, 1 bytes; 4: late */
static int layer(const planned *p)
{
    unsigned bits = st_dtype_bits(p->dtype);
    return p->late ? 4 : bits >= 64 ? 0 : bits >= 32 ? 1 : bits >= 16 ? 2 : 3;
}

static uint64_t lay_out(st_writer *w, int first, int last, uint64_t begin)
{
    for (int wanted = first; wanted <= last; wanted++)
        for (size_t i = 0; i < w->count; i++)
            if (layer(&w->tensors[i]) == wanted) {
                w->tensors[i].begin = begin;
                begin += w->tensors[i].bytes;
            }
    return begin;
}

static char *header_text(const st_writer *w)
{
    json_t *header = json_object();
    if (json_object_size(w->metadata)) json_object_set(header, "__metadata__", w->metadata);
    for (size_t i = 0; i < w->count; i++) {
        const planned *p = &w->tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < p->rank; d++) json_array_append_new(shape, json_integer(p->shape[d]));
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", st_dtype_name(p->dtype), "shape", shape,
                                  "data_offsets", (json_int_t)p->begin, (json_int_t)(p->begin + p->bytes));
        json_object_set_new(header, p->name, entry);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

bool st_writer_start(st_writer *w, ck_error *e)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->tensors[i].late) w->tensors[i].bytes = (uint64_t)(w->tensors[i].shape[0] = ST_LATE_MAX);
    w->data_bytes = lay_out(w, 0, 3, 0);
    uint64_t most = lay_out(w, 4, 4, w->data_bytes);
    char *text = header_text(w);
    if (!text) return ck_fail(e, w->path, NULL, "out of memory");
    /* a multiple of 8, as the original library has it: the data are aligned */
    w->header_bytes = (strlen(text) + 7) / 8 * 8;
    free(text);
    if (w->header_bytes > ST_MAX_HEADER)
        return ck_fail(e, w->path, NULL, "the header would have %llu bytes, above the limit of %d",
                       (unsigned long long)w->header_bytes, ST_MAX_HEADER);
    return af_create(&w->file, w->path, e) && af_reserve(&w->file, 8 + w->header_bytes + most, e);
}

/* ---- bytes ----------------------------------------------------------------------------- */

bool st_writer_put(st_writer *w, size_t slot, size_t offset, const void *data, size_t bytes, ck_error *e)
{
    planned *p = &w->tensors[slot];
    if (p->late) {
        if (offset || bytes > ST_LATE_MAX || p->text)
            return ck_fail(e, w->path, p->name, "a late tensor is put once, with at most %d bytes", ST_LATE_MAX);
        p->text = malloc(bytes + 1);
        if (!p->text) return ck_fail(e, w->path, NULL, "out of memory");
        memcpy(p->text, data, bytes);
        p->bytes = (uint64_t)(p->shape[0] = (int64_t)bytes);
        p->written = bytes;
        return true;
    }
    if (offset > p->bytes || bytes > p->bytes - offset)
        return ck_fail(e, w->path, p->name, "%zu bytes at its byte %zu do not fit into its %llu", bytes, offset,
                       (unsigned long long)p->bytes);
    p->written += bytes;
    return af_write(&w->file, data, bytes, 8 + w->header_bytes + p->begin + offset, e);
}

bool st_writer_commit(st_writer *w, ck_error *e)
{
    for (size_t i = 0; i < w->count; i++) {
        const planned *p = &w->tensors[i];
        if (p->written != p->bytes || (p->late && !p->text))
            return ck_fail(e, w->path, p->name, "%llu of its %llu bytes were put", (unsigned long long)p->written,
                           (unsigned long long)p->bytes);
    }
    uint64_t end = 8 + w->header_bytes + lay_out(w, 4, 4, w->data_bytes);
    for (size_t i = 0; i < w->count; i++) {
        const planned *p = &w->tensors[i];
        if (p->late && !af_write(&w->file, p->text, p->bytes, 8 + w->header_bytes + p->begin, e)) return false;
    }
    char *text = header_text(w), *padded = malloc(8 + w->header_bytes);
    bool made = text && padded && strlen(text) <= w->header_bytes;
    if (made) {
        for (int i = 0; i < 8; i++) padded[i] = (char)(w->header_bytes >> 8 * i & 0xff);
        memset(padded + 8, ' ', w->header_bytes);
        memcpy(padded + 8, text, strlen(text));
    }
    bool done = made ? af_write(&w->file, padded, 8 + w->header_bytes, 0, e) && af_commit(&w->file, end, e)
                     : ck_fail(e, w->path, NULL, "out of memory");
    free(text);
    free(padded);
    return done;
}
