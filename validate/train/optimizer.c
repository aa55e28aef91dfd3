/* optimizer.c: AdamW in pieces whose state comes from a pager. See optimizer.h. */
#include "optimizer.h"

#include <stdio.h>
#include <stdlib.h>

enum { PARTS_MAX = 4 };

/* Consecutive elements of one tensor whose state is one item. */
typedef struct piece {
    int64_t tensor, begin, count, item;
} piece;

struct optimizer {
    opt_config config;
    fb_context context;
    lm_tensor *const *tensors;
    int64_t count;
    piece *pieces;
    int64_t piece_count;
    int64_t steps;
    bool failed;
    pager *pager;
    uint8_t *buffer; /* one piece's state, or gradients, on the host */
    size_t buffer_bytes;
    size_t (*slots)[PARTS_MAX]; /* [count], opt_plan */
};

#define FAIL(...) ck_fail(e, "optimizer", NULL, __VA_ARGS__)

/* ---- the parts of a piece's state ----------------------------------------------------------------------------------- */

static const struct part {
    const char *suffix;
    st_dtype dtype;
    bool per_block; /* one for each FB_ADAMW_BLOCK elements */
} parts32[] = {{"m", ST_F32, false}, {"v", ST_F32, false}},
  parts8[] = {{"m_absmax", ST_F32, true}, {"v_absmax", ST_F32, true}, {"m_codes", ST_U8, false}, {"v_codes", ST_U8, false}};

static const struct part *parts_of(const optimizer *o, int *count)
{
    *count = o->config.state8 ? 4 : 2;
    return o->config.state8 ? parts8 : parts32;
}

static size_t width(const struct part *p) { return p->dtype == ST_F32 ? sizeof(float) : 1; }

/* Elements of a part for n elements of a tensor. */
static int64_t part_elements(const struct part *p, int64_t n) { return p->per_block ? fb_ceil_div(n, FB_ADAMW_BLOCK) : n; }

static size_t state_bytes(const optimizer *o, int64_t n)
{
    int count;
    const struct part *p = parts_of(o, &count);
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += (size_t)part_elements(&p[i], n) * width(&p[i]);
    return bytes;
}

/* ---- making ------------------------------------------------------------------------------------------------------------- */

opt_config opt_default(const fb_context *context, device *d)
{
    return (opt_config){.context = *context, .device = d, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .max_norm = 0.3,
                        .pager = {.kind = PAGER_RESIDENT, .device = d, .stream = context->stream}};
}

static bool add_pieces(optimizer *o, ck_error *e)
{
    int64_t most = (int64_t)(pager_page_bytes(o->pager) / state_bytes(o, FB_ADAMW_BLOCK)) * FB_ADAMW_BLOCK, pieces = 0, n = 0;
    if (most == 0)
        return FAIL("a page of %zu bytes does not hold the state of %d elements (%zu)", pager_page_bytes(o->pager), FB_ADAMW_BLOCK,
                    state_bytes(o, FB_ADAMW_BLOCK));
    for (int64_t t = 0; t < o->count; t++) pieces += fb_ceil_div(o->tensors[t]->count, most);
    o->pieces = calloc((size_t)pieces + 1, sizeof *o->pieces);
    if (!o->pieces) return FAIL("out of memory");
    for (int64_t t = 0; t < o->count; t++)
        for (int64_t begin = 0; begin < o->tensors[t]->count; begin += most, n++) {
            int64_t left = o->tensors[t]->count - begin;
            o->pieces[n] = (piece){.tensor = t, .begin = begin, .count = left < most ? left : most};
            if (!pager_add(o->pager, state_bytes(o, o->pieces[n].count), &o->pieces[n].item, e)) return false;
        }
    o->piece_count = n;
    o->buffer_bytes = state_bytes(o, most);
    o->buffer = malloc(o->buffer_bytes);
    return o->buffer ? true : FAIL("out of memory");
}

static bool check(const optimizer *o, ck_error *e)
{
    const opt_config *c = &o->config;
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1)) return FAIL("a beta is not in [0, 1)");
    if (!(c->eps > 0) || !(c->weight_decay >= 0)) return FAIL("eps must be above 0, weight_decay 0 or more");
    if (!(c->max_norm >= 0)) return FAIL("max_norm is %g; it must be 0 (none) or more", c->max_norm);
    for (int64_t t = 0; t < o->count; t++)
        if (!o->tensors[t]->data || !o->tensors[t]->grad) return ck_fail(e, "optimizer", o->tensors[t]->name, "has no data or no gradient");
    return true;
}

optimizer *opt_new(const opt_config *config, lm_tensor *const *tensors, int64_t count, ck_error *e)
{
    optimizer *o = calloc(1, sizeof *o);
    if (!o) return FAIL("out of memory"), NULL;
    *o = (optimizer){.config = *config, .context = config->context, .tensors = tensors, .count = count};
    /* opt_step has looked at the norm: no element can be NaN or Inf */
    o->context.flags |= FB_ASSUME_FINITE;
    if (check(o, e) && (o->pager = pager_open(&config->pager, e)) && add_pieces(o, e) && pager_start(o->pager, e)) return o;
    opt_free(o);
    return NULL;
}

void opt_free(optimizer *o)
{
    if (!o) return;
    pager_close(o->pager);
    free(o->pieces);
    free(o->buffer);
    free(o->slots);
    free(o);
}

bool opt_failed(const optimizer *o) { return o->failed; }
int64_t opt_steps(const optimizer *o) { return o->steps; }
pager *opt_pager(optimizer *o) { return o->pager; }

size_t opt_state_bytes(const optimizer *o)
{
    size_t bytes = 0;
    for (int64_t t = 0; t < o->count; t++) bytes += state_bytes(o, o->tensors[t]->count);
    return bytes;
}

/* ---- norm ------------------------------------------------------------------------------------------------------------------ */

/* Of one chunk: eight sums, which vectors can keep, added up in one order. */
static double square_sum(const float *x, int64_t n)
{
    double s[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += (double)x[i + j] * (double)x[i + j];
    for (; i < n; i++) s[i % 8] += (double)x[i] * (double)x[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* sums [ceil(n / chunk)]. */
static void square_sums(const float *x, int64_t n, double *sums, int threads)
{
    int64_t chunks = fb_ceil_div(n, OPT_NORM_CHUNK);
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 16 && threads > 1)
#endif
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * OPT_NORM_CHUNK, left = n - begin;
        sums[c] = square_sum(x + begin, left < OPT_NORM_CHUNK ? left : OPT_NORM_CHUNK);
    }
    (void)threads;
}

/* The sums of as many elements as `sums` holds, so that any number is walked through with a small one. */
enum { SUMS = 256 };

bool opt_gradient_norm(optimizer *o, double *norm, ck_error *e)
{
    double total = 0, sums[SUMS];
    int threads = o->config.context.threads > 0 ? o->config.context.threads : 2;
    device *d = o->config.device;
    bool far = d && strcmp(d->kind, "cuda") == 0;
    int64_t most = (int64_t)SUMS * OPT_NORM_CHUNK, fits = (int64_t)(o->buffer_bytes / sizeof(float)) / OPT_NORM_CHUNK * OPT_NORM_CHUNK;
    if (far && fits < most) most = fits;
    if (most == 0) return FAIL("a piece is too small to bring gradients to the host");
    for (int64_t t = 0; t < o->count; t++)
        for (int64_t begin = 0; begin < o->tensors[t]->count; begin += most) {
            int64_t left = o->tensors[t]->count - begin, n = left < most ? left : most;
            const float *x = o->tensors[t]->grad + begin;
            if (far && !d->download(d, o->buffer, x, (size_t)n * sizeof *x)) return FAIL("%s", d->why);
            square_sums(far ? (const float *)(const void *)o->buffer : x, n, sums, threads);
            for (int64_t c = 0; c < fb_ceil_div(n, OPT_NORM_CHUNK); c++) total += sums[c];
        }
    *norm = sqrt(total);
    return true;
}

/* ---- step -------------------------------------------------------------------------------------------------------------------- */

static bool step_piece(optimizer *o, const piece *q, fb_adamw *hyper, ck_error *e)
{
    const lm_tensor *t = o->tensors[q->tensor];
    char *at = pager_acquire(o->pager, q->item, e);
    if (!at) return false;
    if (!pager_prefetch(o->pager, q->item, e)) {
        ck_error second;
        pager_release(o->pager, q->item, false, &second);
        return false;
    }
    hyper->weight_decay = t->decays ? o->config.weight_decay : 0;
    float *m = (float *)(void *)at, *params = t->data + q->begin, *grads = t->grad + q->begin;
    int64_t n = q->count, blocks = fb_ceil_div(n, FB_ADAMW_BLOCK);
    fb_status status;
    if (o->config.state8) {
        uint8_t *codes = (uint8_t *)(m + 2 * blocks);
        status = fb_adamw8(&o->context, hyper, n, params, FB_F32, grads, FB_F32, codes, m, codes + n, m + blocks);
    } else {
        status = fb_adamw32(&o->context, hyper, n, params, FB_F32, grads, FB_F32, m, m + n);
    }
    if (status != FB_OK) ck_fail(e, "optimizer", t->name, "%s", o->context.message);
    return pager_release(o->pager, q->item, true, e) && status == FB_OK;
}

/* Below this no square of a gradient overflows fp32 (sqrt of 3.4e38). */
static const double norm_limit = 1.8e19;

bool opt_step(optimizer *o, double lr, double grad_scale, double norm, ck_error *e)
{
    if (o->failed) return FAIL("an update failed half way: go back to a checkpoint");
    double scaled = norm * fabs(grad_scale), clip = 1;
    if (!(scaled <= norm_limit)) return FAIL("the norm of the gradients is %g: nothing was updated", scaled);
    if (o->config.max_norm > 0 && scaled > o->config.max_norm) clip = o->config.max_norm / scaled;
    fb_adamw hyper = {.lr = (float)lr, .beta1 = o->config.beta1, .beta2 = o->config.beta2, .eps = o->config.eps,
                      .grad_scale = (float)(grad_scale * clip), .step = o->steps + 1};
    if (!pager_begin_step(o->pager, e)) return false;
    for (int64_t i = 0; i < o->piece_count; i++)
        if (!step_piece(o, &o->pieces[i], &hyper, e)) {
            o->failed = i > 0;
            return false;
        }
    o->steps++;
    return true;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------- */

static void part_name(char name[LM_NAME + 32], const lm_tensor *t, const struct part *p) { snprintf(name, LM_NAME + 32, "optimizer.%s.%s", t->name, p->suffix); }

size_t opt_parts(const optimizer *o)
{
    int count;
    parts_of(o, &count);
    return (size_t)count * (size_t)o->count;
}

bool opt_plan(optimizer *o, st_writer *w, ck_error *e)
{
    int count;
    const struct part *p = parts_of(o, &count);
    free(o->slots);
    o->slots = calloc((size_t)o->count + 1, sizeof *o->slots);
    if (!o->slots) return FAIL("out of memory");
    for (int64_t t = 0; t < o->count; t++)
        for (int i = 0; i < count; i++) {
            char name[LM_NAME + 32];
            part_name(name, o->tensors[t], &p[i]);
            int64_t shape[] = {part_elements(&p[i], o->tensors[t]->count)};
            if (!st_writer_add(w, name, p[i].dtype, 1, shape, &o->slots[t][i], e)) return false;
        }
    return true;
}

/* Where part i of a piece begins: in the item, and in the tensor's whole part. */
static void place(const struct part *p, int i, const piece *q, size_t *in_item, size_t *in_part, size_t *bytes)
{
    *in_item = 0;
    for (int j = 0; j < i; j++) *in_item += (size_t)part_elements(&p[j], q->count) * width(&p[j]);
    *in_part = (size_t)part_elements(&p[i], q->begin) * width(&p[i]);
    *bytes = (size_t)part_elements(&p[i], q->count) * width(&p[i]);
}

bool opt_put(optimizer *o, st_writer *w, ck_error *e)
{
    int count;
    const struct part *p = parts_of(o, &count);
    for (int64_t n = 0; n < o->piece_count; n++) {
        const piece *q = &o->pieces[n];
        if (!pager_read(o->pager, q->item, o->buffer, e)) return false;
        for (int i = 0; i < count; i++) {
            size_t from, to, bytes;
            place(p, i, q, &from, &to, &bytes);
            if (!st_writer_put(w, o->slots[q->tensor][i], to, o->buffer + from, bytes, e)) return false;
        }
    }
    return true;
}

bool opt_check(const optimizer *o, const st_file *f, ck_error *e)
{
    int count;
    const struct part *p = parts_of(o, &count);
    for (int64_t t = 0; t < o->count; t++)
        for (int i = 0; i < count; i++) {
            char name[LM_NAME + 32];
            part_name(name, o->tensors[t], &p[i]);
            int64_t n = part_elements(&p[i], o->tensors[t]->count);
            const st_tensor *s = st_find(f, name);
            if (!s) return ck_fail(e, f->path, name, "is missing: the optimizer's state is %s here", o->config.state8 ? "8-bit" : "fp32");
            if (s->dtype != p[i].dtype || s->elements != n)
                return ck_fail(e, f->path, name, "has %lld elements of %s; %lld of %s are needed", (long long)s->elements, st_dtype_name(s->dtype),
                               (long long)n, st_dtype_name(p[i].dtype));
        }
    return true;
}

bool opt_take(optimizer *o, const st_file *f, int64_t steps, ck_error *e)
{
    int count;
    const struct part *p = parts_of(o, &count);
    if (steps < 0) return ck_fail(e, f->path, NULL, "the number of updates is %lld", (long long)steps);
    if (!opt_check(o, f, e)) return false;
    o->failed = true; /* until all of it is there */
    for (int64_t n = 0; n < o->piece_count; n++) {
        const piece *q = &o->pieces[n];
        for (int i = 0; i < count; i++) {
            char name[LM_NAME + 32];
            part_name(name, o->tensors[q->tensor], &p[i]);
            size_t to, from, bytes;
            place(p, i, q, &to, &from, &bytes);
            memcpy(o->buffer + to, st_find(f, name)->data + from, bytes);
        }
        if (!pager_write(o->pager, q->item, o->buffer, e)) return false;
    }
    o->steps = steps;
    o->failed = false;
    return true;
}
