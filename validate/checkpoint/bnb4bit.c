/* bnb4bit.c: modules in and out of a safetensors file. See bnb4bit.h. */
#include "bnb4bit.h"

#include <stdio.h>
#include <stdlib.h>

static const char theirs[] = ".quant_state.bitsandbytes__", ours[] = ".quant_state.fourbit__";
static const char *const parts[] = {"", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                                    ".zero_points", ".moments"};

void bnb_matrix_shape(int rank, const int64_t *shape, int64_t *rows, int64_t *cols)
{
    *rows = *cols = 1;
    for (int i = 0; i < rank - 1; i++) *rows *= shape[i];
    if (rank > 0) *cols = shape[rank - 1];
}

/* malloc'd K + suffix */
static char *joined(const char *name, size_t length, const char *suffix, const char *tail)
{
    char *key = NULL;
    return asprintf(&key, "%.*s%s%s", (int)length, name, suffix, tail) < 0 ? NULL : key;
}

/* Where K ends and the type begins in the name of a quant_state. */
static bool split(const char *name, size_t *length, const char **type, bool *is_ours)
{
    const char *at = strstr(name, theirs);
    *is_ours = !at;
    if (!at) at = strstr(name, ours);
    if (!at || at == name) return false;
    *length = (size_t)(at - name);
    *type = at + (*is_ours ? sizeof ours : sizeof theirs) - 1;
    return true;
}

/* ---- index ------------------------------------------------------------------------------ */

static bool mark_parts(bnb_index *index, const st_file *file, const st_tensor *state, size_t length, ck_error *e)
{
    index->is_part[state - file->tensors] = true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *key = joined(state->name, length, parts[i], "");
        if (!key) return ck_fail(e, file->path, NULL, "out of memory");
        const st_tensor *t = st_find(file, key);
        free(key);
        if (!t) continue;
        if (i == 0 && index->is_part[t - file->tensors])
            return ck_fail(e, file->path, state->name, "is a second quant_state of the same weight");
        index->is_part[t - file->tensors] = true;
    }
    return true;
}

bool bnb_scan(bnb_index *index, const st_file *file, ck_error *e)
{
    *index = (bnb_index){.states = calloc(file->count + 1, sizeof *index->states),
                         .is_part = calloc(file->count + 1, sizeof *index->is_part)};
    bool good = index->states && index->is_part;
    if (!good) ck_fail(e, file->path, NULL, "out of memory");
    for (size_t i = 0; good && i < file->count; i++) {
        size_t length;
        const char *type;
        bool is_ours;
        if (!split(file->tensors[i].name, &length, &type, &is_ours)) continue;
        index->states[index->count++] = &file->tensors[i];
        good = mark_parts(index, file, &file->tensors[i], length, e);
    }
    if (!good) bnb_index_free(index);
    return good;
}

void bnb_index_free(bnb_index *index)
{
    free(index->states);
    free(index->is_part);
    *index = (bnb_index){0};
}

/* ---- one module ----------------------------------------------------------------------------- */

/* The bytes of K + suffix, checked. bytes: what they must be; dtype: ST_DTYPE_COUNT
 * for any. fp32 that is not aligned in the mapping is copied. */
static const void *part(bnb_module *m, const st_file *file, const char *suffix, st_dtype dtype, size_t bytes,
                        ck_error *e)
{
    char *key = joined(m->name, strlen(m->name), suffix, "");
    if (!key) {
        ck_fail(e, file->path, NULL, "out of memory");
        return NULL;
    }
    const st_tensor *t = st_find(file, key);
    const void *data = NULL;
    if (!t)
        ck_fail(e, file->path, key, "is missing, but there is a quant_state for '%.200s'", m->name);
    else if (dtype != ST_DTYPE_COUNT && t->dtype != dtype)
        ck_fail(e, file->path, key, "has dtype %s where %s is needed", st_dtype_name(t->dtype), st_dtype_name(dtype));
    else if (t->bytes != bytes)
        ck_fail(e, file->path, key, "has %zu bytes; the quant_state's shape needs %zu", t->bytes, bytes);
    else
        data = t->data;
    if (data) m->bytes += bytes;
    if (data && dtype == ST_F32 && (uintptr_t)data % sizeof(float)) {
        void *copy = malloc(bytes + 1);
        if (copy) m->copies[m->copied++] = memcpy(copy, data, bytes);
        else ck_fail(e, file->path, NULL, "out of memory");
        data = copy;
    }
    free(key);
    return data;
}

static bool all_finite(const bnb_module *m, const st_file *file, const char *what, const float *values, int n,
                       ck_error *e)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return ck_fail(e, file->path, m->name, "its %s[%d] is not a finite number", what, i);
    return true;
}

static bool open_scales(bnb_module *m, const st_file *file, const fb_matrix_sizes *size, ck_error *e)
{
    fb_matrix *w = &m->w;
    if (!m->state.nested)
        return (w->absmax = (float *)(uintptr_t)part(m, file, ".absmax", ST_F32, size->absmax, e)) != NULL;
    w->nested_offset = &m->state.nested_offset;
    w->absmax_codes = (uint8_t *)(uintptr_t)part(m, file, ".absmax", ST_U8, size->absmax_codes, e);
    if (!w->absmax_codes) return false;
    w->nested_absmax = (float *)(uintptr_t)part(m, file, ".nested_absmax", ST_F32, size->nested_absmax, e);
    if (!w->nested_absmax) return false;
    w->nested_codebook = part(m, file, ".nested_quant_map", ST_F32, FB_CODES8 * sizeof(float), e);
    return w->nested_codebook && all_finite(m, file, "nested_quant_map", w->nested_codebook, FB_CODES8, e);
}

static bool open_zero_points(bnb_module *m, const st_file *file, const fb_matrix_sizes *size, ck_error *e)
{
    if (m->state.format != FB_INT4_AFFINE) return true;
    m->w.zero_points = (uint8_t *)(uintptr_t)part(m, file, ".zero_points", ST_U8, size->zero_points, e);
    if (!m->w.zero_points) return false;
    for (int64_t i = 0; i < size->blocks; i++)
        if (m->w.zero_points[i] >= FB_CODES)
            return ck_fail(e, file->path, m->name, "its zero_points[%lld] is %d; zero points are 0 ... 15",
                           (long long)i, m->w.zero_points[i]);
    return true;
}

static bool open_moments(bnb_module *m, const st_file *file, bool is_ours, ck_error *e)
{
    char *key = joined(m->name, strlen(m->name), ".moments", "");
    if (!key) return ck_fail(e, file->path, NULL, "out of memory");
    m->normalized = is_ours && st_find(file, key) != NULL;
    free(key);
    if (!m->normalized) return true;
    const void *moments = part(m, file, ".moments", ST_F32, sizeof m->moments, e);
    if (!moments) return false;
    memcpy(m->moments, moments, sizeof m->moments);
    return all_finite(m, file, "moments", m->moments, 2, e);
}

static bool open_parts(bnb_module *m, const st_file *file, bool is_ours, ck_error *e)
{
    int64_t rows, cols;
    bnb_matrix_shape(m->state.rank, m->state.shape, &rows, &cols);
    fb_matrix_sizes size;
    if (fb_matrix_init(&m->w, m->state.format, rows, cols, m->state.block_size, m->state.nested) != FB_OK ||
        fb_matrix_get_sizes(&m->w, &size) != FB_OK)
        return ck_fail(e, file->path, m->name, "its shape [%lld x %lld] is beyond what is supported", (long long)rows,
                       (long long)cols);
    m->w.codes = (uint8_t *)(uintptr_t)part(m, file, "", ST_DTYPE_COUNT, size.codes, e);
    if (!m->w.codes || !open_scales(m, file, &size, e)) return false;
    m->w.codebook = part(m, file, ".quant_map", ST_F32, FB_CODES * sizeof(float), e);
    return m->w.codebook && all_finite(m, file, "quant_map", m->w.codebook, FB_CODES, e) &&
           open_zero_points(m, file, &size, e) && open_moments(m, file, is_ours, e);
}

bool bnb_open(bnb_module *m, const st_file *file, const st_tensor *state, ck_error *e)
{
    *m = (bnb_module){.bytes = state->bytes};
    size_t length;
    const char *type;
    bool is_ours;
    if (!split(state->name, &length, &type, &is_ours))
        return ck_fail(e, file->path, state->name, "is not the key of a quant_state");
    m->name = strndup(state->name, length);
    bool good = m->name ? true : ck_fail(e, file->path, NULL, "out of memory");
    if (good && state->dtype != ST_U8)
        good = ck_fail(e, file->path, state->name, "has dtype %s where U8 is needed", st_dtype_name(state->dtype));
    good = good && bnb_parse_state(&m->state, state->data, state->bytes, file->path, state->name, e);
    if (good && strcmp(type, fb_format_name(m->state.format)) != 0)
        good = ck_fail(e, file->path, state->name, "holds quant_type \"%s\"; key and text must agree",
                       fb_format_name(m->state.format));
    good = good && open_parts(m, file, is_ours, e);
    if (!good) bnb_close(m);
    return good;
}

void bnb_close(bnb_module *m)
{
    for (int i = 0; i < m->copied; i++) free(m->copies[i]);
    free(m->name);
    *m = (bnb_module){0};
}

/* ---- names -----------------------------------------------------------------------------------------*/

bool bnb_can_name(const st_file *file, const st_tensor *t, ck_error *e)
{
    if (*t->name == '\0') return ck_fail(e, file->path, NULL, "a tensor without a name cannot be quantized (--exclude '^$')");
    for (size_t i = 1; i < sizeof parts / sizeof *parts; i++) {
        char *key = joined(t->name, strlen(t->name), parts[i], "");
        if (!key) return ck_fail(e, file->path, NULL, "out of memory");
        const bool taken = st_find(file, key) != NULL;
        if (taken) ck_fail(e, file->path, key, "would be taken for a part of '%.200s' once that is quantized", t->name);
        free(key);
        if (taken) return false;
    }
    return true;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static bool plan(st_writer *writer, const char *name, const char *suffix, st_dtype dtype, int64_t n, size_t *slot,
                 ck_error *e)
{
    int64_t shape[] = {n, 1};
    char *key = joined(name, strlen(name), suffix, "");
    bool good = key ? st_writer_add(writer, key, dtype, *suffix ? 1 : 2, shape, slot, e)
                    : ck_fail(e, name, NULL, "out of memory");
    free(key);
    return good;
}

bool bnb_plan(st_writer *writer, const char *name, const bnb_state *s, bool normalized, bnb_slots *slots, ck_error *e)
{
    int64_t n = s->elements, blocks = fb_block_count(n, s->block_size);
    bool is_ours = normalized || s->format == FB_INT4 || s->format == FB_INT4_AFFINE;
    char *key = joined(name, strlen(name), is_ours ? ours : theirs, fb_format_name(s->format));
    bool good = key ? st_writer_add_late(writer, key, &slots->state, e) : ck_fail(e, name, NULL, "out of memory");
    free(key);
    good = good && plan(writer, name, "", ST_U8, fb_code_bytes(n), &slots->codes, e) &&
           plan(writer, name, ".absmax", s->nested ? ST_U8 : ST_F32, blocks, &slots->absmax, e) &&
           plan(writer, name, ".quant_map", ST_F32, FB_CODES, &slots->quant_map, e);
    if (good && s->nested)
        good = plan(writer, name, ".nested_absmax", ST_F32, fb_ceil_div(blocks, FB_NESTED_BLOCK),
                    &slots->nested_absmax, e) &&
               plan(writer, name, ".nested_quant_map", ST_F32, FB_CODES8, &slots->nested_quant_map, e);
    if (good && s->format == FB_INT4_AFFINE)
        good = plan(writer, name, ".zero_points", ST_U8, blocks, &slots->zero_points, e);
    if (good && normalized) good = plan(writer, name, ".moments", ST_F32, 2, &slots->moments, e);
    return good;
}

bool bnb_put(st_writer *writer, const bnb_slots *slots, const bnb_state *s, const fb_matrix *w, const float *moments,
             ck_error *e)
{
    fb_matrix_sizes size;
    bnb_state with_offset = *s;
    if (fb_matrix_get_sizes(w, &size) != FB_OK) return ck_fail(e, "matrix", NULL, "is not valid");
    if (s->nested && w->nested_offset) with_offset.nested_offset = w->nested_offset[0];
    char *text = bnb_format_state(&with_offset);
    bool good = text ? st_writer_put(writer, slots->state, 0, text, strlen(text), e)
                     : ck_fail(e, "quant_state", NULL, "out of memory");
    free(text);
    good = good && st_writer_put(writer, slots->codes, 0, w->codes, size.codes, e) &&
           st_writer_put(writer, slots->quant_map, 0, fb_codebook_bits[s->format], sizeof fb_codebook_bits[0], e);
    if (s->nested)
        good = good && st_writer_put(writer, slots->absmax, 0, w->absmax_codes, size.absmax_codes, e) &&
               st_writer_put(writer, slots->nested_absmax, 0, w->nested_absmax, size.nested_absmax, e) &&
               st_writer_put(writer, slots->nested_quant_map, 0, fb_dynamic_bits[FB_MAP_SIGNED],
                             sizeof fb_dynamic_bits[FB_MAP_SIGNED], e);
    else
        good = good && st_writer_put(writer, slots->absmax, 0, w->absmax, size.absmax, e);
    if (s->format == FB_INT4_AFFINE)
        good = good && st_writer_put(writer, slots->zero_points, 0, w->zero_points, size.zero_points, e);
    if (moments) good = good && st_writer_put(writer, slots->moments, 0, moments, 2 * sizeof *moments, e);
    return good;
}
