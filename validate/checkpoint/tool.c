/* tool.c: see tool.h. */
#include "tool.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int failed(const ck_error *e)
{
    fprintf(stderr, "fourbit: %s\n", e->message);
    return EXIT_FAILED;
}

/* ---- progress ------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_begin(progress *p, const char *what, double total)
{
    *p = (progress){.what = what, .start = now(), .total = total, .terminal = isatty(STDERR_FILENO)};
    p->shown = p->start + 1.0; /* the first line at 2 s, or 11 s in a log */
}

void progress_add(progress *p, double done, const char *item)
{
    p->done += done;
    double t = now();
    if (t - p->shown < (p->terminal ? 1.0 : 10.0) || !(p->done > 0)) return;
    p->shown = t;
    p->visible = p->terminal;
    char name[64];
    snprintf(name, sizeof name, "%s", item);
    ck_printable(name);
    double left = (t - p->start) * (p->total - p->done) / p->done;
    fprintf(stderr, "%s%s %3.0f %%, %.0f s left, %s%s", p->terminal ? "\r\033[K" : "", p->what,
            100.0 * p->done / p->total, left, name, p->terminal ? "" : "\n");
}

void progress_clear(progress *p)
{
    if (p->visible) fprintf(stderr, "\r\033[K");
    p->visible = false;
}

void progress_end(progress *p) { progress_clear(p); }

/* ---- memory --------------------------------------------------------------------------------- */

bool buffer_need(buffer *b, size_t bytes, ck_error *e)
{
    if (bytes <= b->bytes) return true;
    buffer_free(b);
    size_t whole = (bytes + 255) / 256 * 256;
    b->p = whole >= bytes ? aligned_alloc(256, whole) : NULL;
    if (!b->p) return ck_fail(e, "memory", NULL, "cannot get %zu bytes for the largest tensor", bytes);
    b->bytes = whole;
    return true;
}

void buffer_free(buffer *b)
{
    free(b->p);
    *b = (buffer){0};
}

/* ---- tensors ----------------------------------------------------------------------------------- */

_Static_assert((int)ST_F32 == FB_F32 && (int)ST_BF16 == FB_BF16 && (int)ST_F16 == FB_F16, "tensor_dtype is a cast");
fb_dtype tensor_dtype(const st_tensor *t) { return (fb_dtype)t->dtype; }

const void *tensor_data(const st_tensor *t, buffer *copy, ck_error *e)
{
    if ((uintptr_t)t->data % fb_dtype_size(tensor_dtype(t)) == 0) return t->data;
    return buffer_need(copy, t->bytes, e) ? memcpy(copy->p, t->data, t->bytes) : NULL;
}

/* Embeddings and heads are left alone by QLoRA; norms are small and sensitive. */
const char default_exclude[] = "embed|(^|[._])wte([._]|$)|(^|[._])wpe([._]|$)|norm|lm_head|(^|[._])score([._]|$)";

static bool compile(regex_t *r, const char *option, const char *pattern, ck_error *e)
{
    int code = regcomp(r, pattern, REG_EXTENDED | REG_NOSUB);
    if (code == 0) return true;
    char why[128];
    regerror(code, r, why, sizeof why);
    return ck_fail(e, option, NULL, "\"%.64s\" is not a regular expression: %s", pattern, why);
}

bool selection_make(selection *s, const options *o, const st_file *file, const bnb_index *modules, ck_error *e)
{
    *s = (selection){0};
    regex_t include, exclude;
    if (!compile(&include, "--include", o->include ? o->include : "", e)) return false;
    if (!compile(&exclude, "--exclude", o->exclude ? o->exclude : default_exclude, e)) {
        regfree(&include);
        return false;
    }
    /* --exclude '': nothing */
    bool any_excluded = !o->exclude || *o->exclude;
    s->chosen = calloc(file->count + 1, sizeof *s->chosen);
    for (size_t i = 0; s->chosen && i < file->count; i++) {
        const st_tensor *t = &file->tensors[i];
        s->chosen[i] = t->dtype <= ST_F16 && t->rank == 2 && t->elements > 0 && !modules->is_part[i] &&
                       regexec(&include, t->name, 0, NULL, 0) == 0 &&
                       !(any_excluded && regexec(&exclude, t->name, 0, NULL, 0) == 0);
        if (!s->chosen[i]) continue;
        s->count++;
        s->elements += t->elements;
        if (t->elements > s->largest) s->largest = t->elements;
    }
    regfree(&include);
    regfree(&exclude);
    if (!s->chosen) return ck_fail(e, file->path, NULL, "out of memory");
    if (s->count) return true;
    selection_free(s);
    return ck_fail(e, file->path, NULL, "no tensor is selected: of its %zu, none is a 2-D F32, BF16 or F16 matrix that "
                   "%s%s%s; `fourbit info` lists them, --include and --exclude choose", file->count,
                   o->include ? "matches --include and " : "", o->exclude ? "does not match --exclude" :
                   "is not an embedding, norm or head", modules->count ? " (and is not 4-bit already)" : "");
}

void selection_free(selection *s)
{
    free(s->chosen);
    *s = (selection){0};
}

/* ---- the library ----------------------------------------------------------------------------------- */

bool library_ok(const fb_context *ctx, fb_status status, const char *file, const char *key, ck_error *e)
{
    return status == FB_OK || ck_fail(e, file, key, "%s", ctx->message[0] ? ctx->message : fb_status_name(status));
}

bool backend_open(fb_context *ctx, const options *o, ck_error *e)
{
    fb_context_init(ctx, o->backend_given ? o->backend : FB_BACKEND_CPU);
    ctx->threads = o->threads;
    fb_status status = fb_backend_available(ctx);
    if (status == FB_OK || o->backend_given)
        return library_ok(ctx, status, o->backend_given ? fb_backend_name(o->backend) : "cpu", NULL, e);
    fprintf(stderr, "fourbit: the CPU backend cannot run here (%s); the reference does the work, slowly\n",
            ctx->message);
    ctx->backend = FB_BACKEND_REFERENCE;
    return true;
}

bool matrix_bind(fb_context *ctx, fb_matrix *w, fb_format format, int64_t rows, int64_t cols, int block_size,
                 bool double_quant, fb_dtype dtype, buffer *storage, buffer *workspace, ck_error *e)
{
    if (fb_matrix_init(w, format, rows, cols, block_size, double_quant) != FB_OK)
        return ck_fail(e, "matrix", NULL, "[%lld x %lld] is beyond what is supported", (long long)rows,
                       (long long)cols);
    if (!buffer_need(storage, fb_matrix_bytes(w), e)) return false;
    size_t bytes;
    if (fb_matrix_bind(w, storage->p, storage->bytes) != FB_OK)
        return ck_fail(e, "matrix", NULL, "cannot be laid out");
    if (!library_ok(ctx, fb_workspace_size(ctx, FB_OP_QUANTIZE, w, 0, dtype, &bytes), "workspace", NULL, e) ||
        !buffer_need(workspace, bytes, e))
        return false;
    ctx->workspace = workspace->p;
    ctx->workspace_bytes = workspace->bytes;
    return true;
}
