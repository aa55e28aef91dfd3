/* safetensors_read.c: map a file and believe nothing in it. See safetensors.h. */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct { const char *name; unsigned bits; } dtypes[] = {
    [ST_F32] = {"F32", 32}, [ST_BF16] = {"BF16", 16}, [ST_F16] = {"F16", 16}, [ST_U8] = {"U8", 8},
    [ST_BOOL] = {"BOOL", 8}, [ST_I8] = {"I8", 8}, [ST_I16] = {"I16", 16}, [ST_U16] = {"U16", 16},
    [ST_I32] = {"I32", 32}, [ST_U32] = {"U32", 32}, [ST_I64] = {"I64", 64}, [ST_U64] = {"U64", 64},
    [ST_F64] = {"F64", 64}, [ST_C64] = {"C64", 64}, [ST_F8_E5M2] = {"F8_E5M2", 8}, [ST_F8_E4M3] = {"F8_E4M3", 8},
    [ST_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8}, [ST_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8}, [ST_F8_E8M0] = {"F8_E8M0", 8},
    [ST_F6_E2M3] = {"F6_E2M3", 6}, [ST_F6_E3M2] = {"F6_E3M2", 6}, [ST_F4] = {"F4", 4}};
_Static_assert(sizeof dtypes / sizeof *dtypes == ST_DTYPE_COUNT, "a row for each type");

const char *st_dtype_name(st_dtype t) { return (unsigned)t < ST_DTYPE_COUNT ? dtypes[t].name : "?"; }
unsigned st_dtype_bits(st_dtype t) { return (unsigned)t < ST_DTYPE_COUNT ? dtypes[t].bits : 0; }

/* ---- one tensor's entry ------------------------------------------------------------- */

static bool parse_dtype(const st_file *f, st_tensor *t, const json_t *entry, ck_error *e)
{
    const json_t *value = json_object_get(entry, "dtype");
    if (!value) return ck_fail(e, f->path, t->name, "has no \"dtype\"");
    if (!json_is_string(value)) return ck_fail(e, f->path, t->name, "dtype is not a string");
    for (unsigned i = 0; i < ST_DTYPE_COUNT; i++)
        if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
            t->dtype = (st_dtype)i;
            return true;
        }
    return ck_fail(e, f->path, t->name, "dtype \"%.32s\" is not one of the container's (F32, BF16, F16, U8 ...)",
                   json_string_value(value));
}

static bool parse_shape(const st_file *f, st_tensor *t, const json_t *entry, ck_error *e)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!shape) return ck_fail(e, f->path, t->name, "has no \"shape\"");
    if (!json_is_array(shape)) return ck_fail(e, f->path, t->name, "shape is not an array");
    if (json_array_size(shape) > ST_MAX_RANK)
        return ck_fail(e, f->path, t->name, "shape has %zu dimensions; at most %d are read", json_array_size(shape),
                       ST_MAX_RANK);
    t->rank = (int)json_array_size(shape);
    t->elements = 1;
    bool overflow = false;
    for (int i = 0; i < t->rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d)) return ck_fail(e, f->path, t->name, "shape[%d] is not an integer", i);
        t->shape[i] = json_integer_value(d);
        if (t->shape[i] < 0)
            return ck_fail(e, f->path, t->name, "shape[%d] is negative (%lld)", i, (long long)t->shape[i]);
        if (__builtin_mul_overflow(t->elements, t->shape[i], &t->elements)) overflow = true;
    }
    /* overflow even where a later dimension is 0: no such tensor was ever written */
    if (overflow) return ck_fail(e, f->path, t->name, "shape: the product of the dimensions overflows 63 bits");
    return true;
}

static bool parse_offsets(const st_file *f, st_tensor *t, const json_t *entry, ck_error *e)
{
    const json_t *pair = json_object_get(entry, "data_offsets");
    if (!pair) return ck_fail(e, f->path, t->name, "has no \"data_offsets\"");
    if (!json_is_array(pair) || json_array_size(pair) != 2)
        return ck_fail(e, f->path, t->name, "data_offsets is not an array of two integers");
    const json_t *a = json_array_get(pair, 0), *b = json_array_get(pair, 1);
    if (!json_is_integer(a) || !json_is_integer(b))
        return ck_fail(e, f->path, t->name, "data_offsets is not an array of two integers");
    int64_t begin = json_integer_value(a), end = json_integer_value(b), room = (int64_t)(f->size - f->data_start);
    if (begin < 0 || end < 0)
        return ck_fail(e, f->path, t->name, "data_offsets [%lld, %lld] are negative", (long long)begin,
                       (long long)end);
    if (begin > end)
        return ck_fail(e, f->path, t->name, "data_offsets [%lld, %lld] are reversed", (long long)begin,
                       (long long)end);
    if (end > room)
        return ck_fail(e, f->path, t->name, "data_offsets [%lld, %lld] run past the end of the file, which has %lld "
                       "bytes of data (truncated?)", (long long)begin, (long long)end, (long long)room);
    t->data = f->bytes + f->data_start + begin;
    t->bytes = (size_t)(end - begin);
    int64_t bits;
    if (__builtin_mul_overflow(t->elements, (int64_t)dtypes[t->dtype].bits, &bits) || bits % 8 != 0 ||
        bits / 8 != end - begin)
        return ck_fail(e, f->path, t->name, "data_offsets [%lld, %lld] hold %lld bytes, not %lld elements of %s",
                       (long long)begin, (long long)end, (long long)(end - begin), (long long)t->elements,
                       dtypes[t->dtype].name);
    return true;
}

static bool parse_tensor(const st_file *f, st_tensor *t, const char *name, const json_t *entry, ck_error *e)
{
    t->name = name;
    if (!json_is_object(entry)) return ck_fail(e, f->path, name, "is not an object {dtype, shape, data_offsets}");
    return parse_dtype(f, t, entry, e) && parse_shape(f, t, entry, e) && parse_offsets(f, t, entry, e);
}

/* ---- the header --------------------------------------------------------------------------- */

static bool parse_metadata(st_file *f, json_t *object, ck_error *e)
{
    if (!json_is_object(object)) return ck_fail(e, f->path, "__metadata__", "is not an object");
    f->metadata = calloc(json_object_size(object) + 1, 2 * sizeof *f->metadata);
    if (!f->metadata) return ck_fail(e, f->path, NULL, "out of memory");
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (!json_is_string(value))
            return ck_fail(e, f->path, "__metadata__", "the value of '%.64s' is not a string", key);
        f->metadata[2 * f->metadata_count] = key;
        f->metadata[2 * f->metadata_count++ + 1] = json_string_value(value);
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const st_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *tensors)
{
    const st_tensor *t = tensors;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

/* The tensors must tile the data: neither shared bytes (one tensor would be another's
 * alias) nor bytes that belong to nobody (a place to hide things). */
static bool check_tiling(const st_file *f, ck_error *e)
{
    const uint8_t *next = f->bytes + f->data_start;
    for (size_t i = 0; i < f->count; i++) {
        const st_tensor *t = &f->tensors[i];
        if (t->data < next)
            return ck_fail(e, f->path, t->name, "its bytes overlap those of '%.200s'", f->tensors[i - 1].name);
        if (t->data > next)
            return ck_fail(e, f->path, t->name, "there is a hole of %zu bytes before its data (byte %zu of the file)",
                           (size_t)(t->data - next), (size_t)(next - f->bytes));
        next = t->data + t->bytes;
    }
    if (next != f->bytes + f->size)
        return ck_fail_at(e, f->path, next - f->bytes, "%zu bytes after the last tensor belong to none",
                          (size_t)(f->bytes + f->size - next));
    return true;
}

static bool parse_header(st_file *f, ck_error *e)
{
    const char *text = (const char *)f->bytes + 8;
    if (f->data_start == 8 || text[0] != '{') return ck_fail_at(e, f->path, 8, "the header does not begin with '{'");
    json_error_t why;
    f->json = json_loadb(text, f->data_start - 8, JSON_REJECT_DUPLICATES, &why);
    if (!f->json) return ck_fail_at(e, f->path, 8 + (why.position > 0 ? why.position : 0), "header: %s", why.text);

    size_t entries = json_object_size(f->json);
    f->tensors = calloc(entries + 1, sizeof *f->tensors);
    f->by_name = calloc(entries + 1, sizeof *f->by_name);
    if (!f->tensors || !f->by_name) return ck_fail(e, f->path, NULL, "out of memory");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)f->json, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            if (!parse_metadata(f, value, e)) return false;
        } else if (!parse_tensor(f, &f->tensors[f->count++], key, value, e)) {
            return false;
        }
    }
    qsort(f->tensors, f->count, sizeof *f->tensors, by_place);
    for (size_t i = 0; i < f->count; i++) f->by_name[i] = i;
    qsort_r(f->by_name, f->count, sizeof *f->by_name, by_name, f->tensors);
    return check_tiling(f, e);
}

static bool parse(st_file *f, ck_error *e)
{
    if (f->size == 0) return ck_fail(e, f->path, NULL, "is empty");
    if (f->size < 8)
        return ck_fail_at(e, f->path, 0, "the file has %zu bytes; a safetensors file begins with 8 bytes of header "
                          "length", f->size);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | f->bytes[i];
    if (header > ST_MAX_HEADER)
        return ck_fail_at(e, f->path, 0, "header length %llu is above the limit of %d: not a safetensors file?",
                          (unsigned long long)header, ST_MAX_HEADER);
    if (header > f->size - 8)
        return ck_fail_at(e, f->path, 0, "header length %llu runs past the end of the file (%zu bytes; truncated?)",
                          (unsigned long long)header, f->size);
    f->data_start = 8 + (size_t)header;
    return parse_header(f, e);
}

/* ---- opening ----------------------------------------------------------------------------------- */

static bool map(st_file *f, ck_error *e)
{
    /* O_NONBLOCK: opening a FIFO that nobody writes must not hang */
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return ck_fail(e, f->path, NULL, "cannot be opened: %s", strerror(errno));
    struct stat st;
    const char *kind = NULL;
    if (fstat(fd, &st) != 0) kind = "a thing that cannot be inspected";
    else if (S_ISDIR(st.st_mode)) kind = "a directory";
    else if (S_ISFIFO(st.st_mode)) kind = "a FIFO";
    else if (!S_ISREG(st.st_mode)) kind = "a device or socket";
    if (kind) {
        close(fd);
        return ck_fail(e, f->path, NULL, "is %s, not a file", kind);
    }
    f->size = (size_t)st.st_size;
    if (f->size > 0) {
        void *p = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
        int why = errno;
        close(fd);
        if (p == MAP_FAILED) return ck_fail(e, f->path, NULL, "cannot be mapped: %s", strerror(why));
        f->bytes = p;
        f->mapped = true;
        return true;
    }
    close(fd);
    return true;
}

static bool open_checked(st_file *f, const char *path, const void *bytes, size_t size, ck_error *e)
{
    *f = (st_file){.path = strdup(path), .bytes = bytes, .size = size};
    if (!f->path) return ck_fail(e, path, NULL, "out of memory");
    if ((bytes || map(f, e)) && parse(f, e)) return true;
    st_close(f);
    return false;
}

bool st_open(st_file *f, const char *path, ck_error *e) { return open_checked(f, path, NULL, 0, e); }

bool st_open_memory(st_file *f, const char *path, const void *bytes, size_t size, ck_error *e)
{
    static const uint8_t nothing[1];
    return open_checked(f, path, bytes && size ? bytes : nothing, size, e);
}

void st_close(st_file *f)
{
    if (f->mapped) munmap((void *)(uintptr_t)f->bytes, f->size);
    json_decref(f->json);
    free(f->metadata);
    free(f->by_name);
    free(f->tensors);
    free(f->path);
    *f = (st_file){0};
}

void st_release(const st_file *f, const st_tensor *t)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)t->data / page * page;
    /* whole pages from the one it begins in; a neighbour's bytes are read again from the
     * file, so what madvise answers does not matter */
    if (f->mapped && t->bytes) madvise((void *)begin, (uintptr_t)t->data + t->bytes - begin, MADV_DONTNEED);
}

const st_tensor *st_find(const st_file *f, const char *name)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const st_tensor *t = &f->tensors[f->by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
