/* tool.h: what the commands of `fourbit` share. */
#ifndef FOURBIT_TOOL_H
#define FOURBIT_TOOL_H

#include "bnb4bit.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { BLOCK_SIZES = 8 }; /* 32, 64 ... 4096 */

typedef struct options {
    const char *in, *out;
    fb_format format;
    int block_size;
    bool double_quant, normalize, plots;
    fb_dtype dtype;
    bool dtype_given;
    const char *include, *exclude, *csv;
    bool formats[FB_FORMAT_COUNT], block_sizes[BLOCK_SIZES];
    int64_t samples;
    fb_backend backend;
    bool backend_given;
    int threads;
    const char *program; /* argv[0] */
} options;

int cmd_quantize(const options *o);
int cmd_dequantize(const options *o);
int cmd_error(const options *o);
int cmd_info(const options *o);

/* One line on stderr; returns EXIT_FAILED. */
int failed(const ck_error *e);

/* ---- progress: on stderr, from the second second on --------------------------------- */

typedef struct progress {
    const char *what;
    double start, shown; /* seconds */
    double total, done;  /* in any unit */
    bool terminal, visible;
} progress;

void progress_begin(progress *p, const char *what, double total);
void progress_add(progress *p, double done, const char *item);
/* Takes the line away, before something is printed to the same terminal. */
void progress_clear(progress *p);
void progress_end(progress *p);

/* ---- memory ----------------------------------------------------------------------------- */

/* Grows, never shrinks; aligned to 256 bytes. */
typedef struct buffer {
    void *p;
    size_t bytes;
} buffer;

bool buffer_need(buffer *b, size_t bytes, ck_error *e);
void buffer_free(buffer *b);

/* ---- tensors ------------------------------------------------------------------------------ */

/* Which tensors are quantized: 2-D F32, BF16 or F16 with elements, that match
 * include and not exclude (POSIX extended regular expressions, anywhere in the name). */
typedef struct selection {
    bool *chosen; /* [file->count] */
    size_t count;
    int64_t elements, largest; /* in all; of the largest */
} selection;

extern const char default_exclude[];
bool selection_make(selection *s, const options *o, const st_file *file, const bnb_index *modules, ck_error *e);
void selection_free(selection *s);

/* The tensor's elements, aligned: in the mapping or, if they are not aligned there,
 * in *copy. NULL: out of memory. */
const void *tensor_data(const st_tensor *t, buffer *copy, ck_error *e);
fb_dtype tensor_dtype(const st_tensor *t);

/* ---- the library ----------------------------------------------------------------------------- */

/* The backend asked for, or the CPU one, or the reference where that cannot run. */
bool backend_open(fb_context *ctx, const options *o, ck_error *e);
/* A matrix of this shape in *storage, with the workspace to quantize it. */
bool matrix_bind(fb_context *ctx, fb_matrix *w, fb_format format, int64_t rows, int64_t cols, int block_size,
                 bool double_quant, fb_dtype dtype, buffer *storage, buffer *workspace, ck_error *e);
/* false with the library's message, unless status is FB_OK. */
bool library_ok(const fb_context *ctx, fb_status status, const char *file, const char *key, ck_error *e);

#endif
