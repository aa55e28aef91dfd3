/* safetensors.h: the safetensors container, read by mapping it and written whole.
 *
 *   byte 0       8         8 + N                                  end of file
 *        +-------+----------+--------------------------------------+
 *        | N u64 | JSON, N  |  the tensors' bytes, no gaps          |
 *        +-------+----------+--------------------------------------+
 *
 *   { "__metadata__": {"format": "pt"},
 *     "name": {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [begin, end]}, ... }
 *
 * All little-endian; offsets count from 8 + N; the JSON may end in spaces. The
 * description is that of the Hugging Face safetensors library (README, "Format").
 * A file is believed in nothing: every length, offset, shape and key is checked
 * when it is opened, so that what st_open returns can be read without a check.
 */
#ifndef FOURBIT_SAFETENSORS_H
#define FOURBIT_SAFETENSORS_H

#include "error.h"

#include <stddef.h>

/* The element types of the container. The 4-bit code reads F32, BF16, F16 and U8;
 * the others are listed, and copied as bytes. */
typedef enum st_dtype {
    ST_F32 = 0, ST_BF16, ST_F16, ST_U8,
    ST_BOOL, ST_I8, ST_I16, ST_U16, ST_I32, ST_U32, ST_I64, ST_U64, ST_F64, ST_C64,
    ST_F8_E5M2, ST_F8_E4M3, ST_F8_E5M2FNUZ, ST_F8_E4M3FNUZ, ST_F8_E8M0, ST_F6_E2M3, ST_F6_E3M2, ST_F4,
    ST_DTYPE_COUNT
} st_dtype;

enum {
    ST_MAX_RANK = 8,
    ST_MAX_HEADER = 100000000 /* bytes; the limit of the original library */
};

typedef struct st_tensor {
    const char *name;    /* UTF-8, no NUL; lives as long as the file */
    st_dtype dtype;
    int rank;            /* 0: a scalar */
    int64_t shape[ST_MAX_RANK];
    int64_t elements;
    const uint8_t *data; /* in the mapping, of any alignment; read-only */
    size_t bytes;
} st_tensor;

typedef struct st_file {
    char *path;
    const uint8_t *bytes; /* the whole file */
    size_t size;
    size_t data_start;    /* 8 + N */
    size_t count;
    st_tensor *tensors;   /* in the order of their bytes */
    size_t *by_name;      /* indices of tensors, names ascending (strcmp) */
    size_t metadata_count;
    const char **metadata; /* key, value, key, value ... */
    void *json;            /* owns the strings */
    bool mapped;
} st_file;

const char *st_dtype_name(st_dtype t);
unsigned st_dtype_bits(st_dtype t);

/* Maps the file. Anything that is not a well-formed safetensors file: false, *e says
 * which byte or key, and *f is empty. The file must not shrink while it is open (as
 * with every mapping, the process would get SIGBUS). */
bool st_open(st_file *f, const char *path, ck_error *e);
/* The same over bytes the caller owns; `path` only names them in messages. */
bool st_open_memory(st_file *f, const char *path, const void *bytes, size_t size, ck_error *e);
void st_close(st_file *f);

/* The tensor will not be read for a while: its pages need not stay in memory. */
void st_release(const st_file *f, const st_tensor *t);

/* NULL if there is none of that name. */
const st_tensor *st_find(const st_file *f, const char *name);

/* ---- writing -------------------------------------------------------------------------
 *
 * Declare every tensor, start, put bytes in any order, commit. The file appears at
 * commit (atomic_file.h). Tensors are laid out by alignment of their type (8, 4, 2, 1
 * bytes) and then as declared, so that every one is aligned in a mapped file. A
 * "late" tensor is a short U8 [n] whose n is known only when it is put, as that of
 * a JSON text that holds a result; they come last. */

typedef struct st_writer st_writer;
enum { ST_LATE_MAX = 4096 };

/* NULL: out of memory. path is not touched before st_writer_start. */
st_writer *st_writer_new(const char *path);
bool st_writer_metadata(st_writer *w, const char *key, const char *value, ck_error *e);
bool st_writer_add(st_writer *w, const char *name, st_dtype dtype, int rank, const int64_t *shape, size_t *slot,
                   ck_error *e);
bool st_writer_add_late(st_writer *w, const char *name, size_t *slot, ck_error *e);
bool st_writer_start(st_writer *w, ck_error *e);
/* `bytes` bytes of the tensor, from its byte `offset` on. A late tensor: all of it. */
bool st_writer_put(st_writer *w, size_t slot, size_t offset, const void *data, size_t bytes, ck_error *e);
/* Fails if a tensor was not put in full. */
bool st_writer_commit(st_writer *w, ck_error *e);
/* Without a commit before it: nothing is left on disk. NULL is fine. */
void st_writer_free(st_writer *w);

#endif
