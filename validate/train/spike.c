/* spike.c: see spike.h. */
#include "spike.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAIL(...) ck_fail(e, "spike", NULL, __VA_ARGS__)

static const char *const names[SPIKE_ARMS] = {"resident", "paged", "hog", "control", "reload"};

/* ---- one arm's tensors and optimizer ------------------------------------------------------------------------------------ */

/* A few large tensors and many small ones, as a model's adapters and norms are. */
enum { LARGE = 3, SMALL = 24, TENSORS = LARGE + SMALL, SMALL_COUNT = 96 };

typedef struct world {
    const spike_setup *s;
    lm_tensor tensors[TENSORS], *list[TENSORS];
    float *host; /* [largest] */
    optimizer *o;
    int64_t step;
    tc_field field;
} world;

static tc_state state_of(world *w)
{
    w->field = (tc_field){"step", TC_I64, &w->step, 0, false};
    return (tc_state){&w->field, 1, w->list, TENSORS, w->o, w->s->device};
}

/* Where a parameter should be at this step: smooth in the step, different for each. */
static float target(int64_t step, int t, int64_t i)
{
    uint64_t x = ((uint64_t)t << 40 ^ (uint64_t)i) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    return (float)((int64_t)(x >> 40) - (1 << 23)) / (1 << 23) + (float)step * 0.01f;
}

static bool make_tensors(world *w, ck_error *e)
{
    device *d = w->s->device;
    int64_t left = w->s->elements - (int64_t)SMALL * SMALL_COUNT, most = 0;
    if (left < LARGE * 1000) return FAIL("%lld parameters are too few", (long long)w->s->elements);
    for (int t = 0; t < TENSORS; t++) {
        lm_tensor *x = &w->tensors[t];
        /* 1/2, 1/3 and the rest, so that no large tensor ends with a page */
        x->count = t >= LARGE ? SMALL_COUNT + t : t == 0 ? left / 2 : t == 1 ? left / 3 : left - left / 2 - left / 3;
        x->rank = 1, x->shape[0] = x->count, x->decays = t % 2;
        snprintf(x->name, sizeof x->name, "tensor.%d", t);
        if (x->count > most) most = x->count;
        w->list[t] = x;
    }
    w->host = malloc((size_t)most * 2 * sizeof *w->host);
    if (!w->host) return FAIL("out of memory");
    for (int t = 0; t < TENSORS; t++) {
        lm_tensor *x = &w->tensors[t];
        x->data = d->alloc(d, (size_t)x->count * sizeof *x->data);
        x->grad = x->data ? d->alloc(d, (size_t)x->count * sizeof *x->grad) : NULL;
        if (!x->grad) return FAIL("parameters and gradients: %s", d->why);
        for (int64_t i = 0; i < x->count; i++) w->host[i] = target(-100, t, i);
        if (!d->upload(d, x->data, w->host, (size_t)x->count * sizeof *w->host)) return FAIL("%s", d->why);
    }
    return true;
}

static optimizer *make_optimizer(world *w, const pager_config *pager, ck_error *e)
{
    opt_config c = opt_default(&w->s->context, w->s->device);
    c.state8 = w->s->state8;
    c.weight_decay = 0.01f;
    c.pager = *pager;
    return opt_new(&c, w->list, TENSORS, e);
}

static void end(world *w)
{
    device *d = w->s->device;
    opt_free(w->o);
    for (int t = 0; t < TENSORS; t++) {
        if (w->tensors[t].data) d->release(d, w->tensors[t].data);
        if (w->tensors[t].grad) d->release(d, w->tensors[t].grad);
    }
    free(w->host);
}

/* ---- a step -------------------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* loss = mean of (p - target)^2 / 2, gradient p - target; the norm for the clipping. */
static bool gradients(world *w, double *loss, double *norm, ck_error *e)
{
    device *d = w->s->device;
    double sum = 0;
    for (int t = 0; t < TENSORS; t++) {
        lm_tensor *x = &w->tensors[t];
        size_t bytes = (size_t)x->count * sizeof *x->data;
        if (!d->download(d, w->host, x->data, bytes)) return FAIL("%s", d->why);
        for (int64_t i = 0; i < x->count; i++) {
            w->host[i] -= target(w->step, t, i);
            sum += (double)w->host[i] * (double)w->host[i];
        }
        if (!d->upload(d, x->grad, w->host, bytes)) return FAIL("%s", d->why);
    }
    *loss = sum / (2 * (double)w->s->elements);
    *norm = sqrt(sum);
    return true;
}

static bool step(world *w, spike_arm *a, ck_error *e)
{
    device *d = w->s->device;
    double loss = 0, norm = 0;
    pager_counters before = pager_count(opt_pager(w->o)), after;
    if (!gradients(w, &loss, &norm, e)) return false;
    double began = now();
    if (!opt_step(w->o, 1e-2, 1, norm, e)) return false;
    if (!d->wait(d)) return FAIL("%s", d->why);
    after = pager_count(opt_pager(w->o));
    a->seconds[w->step] = now() - began;
    a->loss[w->step] = loss;
    a->moved[w->step] = after.bytes_in - before.bytes_in + after.bytes_out - before.bytes_out;
    if (w->step >= SPIKE_FROM && w->step < SPIKE_TO && after.resident_bytes > a->resident_in_spike) a->resident_in_spike = after.resident_bytes;
    w->step++;
    return true;
}

/* ---- the spike ---------------------------------------------------------------------------------------------------------- */

static size_t small_budget(const world *w) { return 3 * pager_page_bytes(opt_pager(w->o)); }

/* The pager gives way, and then all is taken but half of what the state needs. */
static bool begin_spike(world *w, ck_error *e)
{
    const spike_memory *m = &w->s->memory;
    size_t needs = opt_state_bytes(w->o);
    if (!pager_resize(opt_pager(w->o), small_budget(w), e) || !m->take(m->self, needs / 2, e)) return false;
    if (m->free_bytes(m->self) < needs) return true;
    m->give(m->self);
    return FAIL("the hog left %zu bytes free; the state needs %zu", m->free_bytes(m->self), needs);
}

/* Saved, spoilt or thrown away, loaded. Managed memory is not asked for again where there is less free than it needs: there
 * the optimizer stays, and its state is spoilt by a step that is not counted. */
static bool reload(world *w, ck_error *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/middle.safetensors", w->s->folder);
    tc_state s = state_of(w);
    if (!tc_save(path, &s, e)) return false;
    if (w->s->paged.kind == PAGER_MANAGED) {
        if (!opt_step(w->o, 1, 1, 1, e)) return false;
    } else {
        pager_config small = w->s->paged;
        small.budget = small_budget(w);
        opt_free(w->o);
        w->o = make_optimizer(w, &small, e);
        if (!w->o) return false;
    }
    w->step = -1;
    s = state_of(w);
    return tc_load(path, &s, e);
}

static bool run(world *w, spike_arm *a, int arm, ck_error *e)
{
    const spike_memory *m = &w->s->memory;
    bool spike = arm == SPIKE_HOG || arm == SPIKE_RELOAD, there = false, good = true;
    while (good && w->step < SPIKE_STEPS) {
        if (spike && w->step == SPIKE_FROM) good = there = begin_spike(w, e);
        if (good && arm == SPIKE_RELOAD && w->step == SPIKE_FROM + 2) {
            pager_counters c = pager_count(opt_pager(w->o));
            a->bytes_in += c.bytes_in, a->bytes_out += c.bytes_out;
            good = reload(w, e);
            c = pager_count(opt_pager(w->o));
            if (w->s->paged.kind == PAGER_MANAGED) a->bytes_in -= c.bytes_in, a->bytes_out -= c.bytes_out; /* the same pager goes on counting */
        }
        if (good && there && w->step == SPIKE_TO) {
            m->give(m->self);
            there = false;
            good = pager_resize(opt_pager(w->o), 0, e);
        }
        good = good && step(w, a, e);
    }
    if (there) m->give(m->self);
    pager_counters c = w->o ? pager_count(opt_pager(w->o)) : (pager_counters){0};
    a->bytes_in += c.bytes_in, a->bytes_out += c.bytes_out;
    return good;
}

/* Takes the memory first: then there must be none for resident state. */
static bool control(world *w, spike_result *r, const pager_config *resident, ck_error *e)
{
    const spike_memory *m = &w->s->memory;
    ck_error why = {0};
    if (!m->take(m->self, r->state_bytes / 2, e)) return false;
    w->o = make_optimizer(w, resident, &why);
    m->give(m->self);
    snprintf(r->control, sizeof r->control, "%.250s", why.message);
    return w->o ? FAIL("control: resident state found memory beside the hog: it was none") : true;
}

static bool run_arm(const spike_setup *s, int arm, spike_result *r, ck_error *e)
{
    static const pager_kind resident = PAGER_RESIDENT;
    world w = {.s = s};
    pager_config plain = {.kind = resident, .device = s->device, .page_bytes = s->paged.page_bytes};
    spike_arm *a = &r->arms[arm];
    a->name = names[arm];
    bool good = make_tensors(&w, e);
    if (good && arm == SPIKE_CONTROL) good = control(&w, r, &plain, e);
    else if (good) {
        w.o = make_optimizer(&w, arm == SPIKE_RESIDENT ? &plain : &s->paged, e);
        good = w.o && run(&w, a, arm, e);
        if (good) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s.safetensors", s->folder, names[arm]);
            tc_state state = state_of(&w);
            r->state_bytes = opt_state_bytes(w.o);
            good = tc_save(path, &state, e);
        }
    }
    end(&w);
    if (!good) {
        ck_error inner = *e;
        ck_fail(e, "spike", names[arm], "%.800s", inner.message);
    }
    return good;
}

/* ---- verdict -------------------------------------------------------------------------------------------------------------- */

/* Parameters and state of two arms, by name, to the bit. */
static bool same_end(const spike_setup *s, int arm, ck_error *e)
{
    char one[4096], other[4096];
    st_file a, b;
    snprintf(one, sizeof one, "%s/%s.safetensors", s->folder, names[SPIKE_RESIDENT]);
    snprintf(other, sizeof other, "%s/%s.safetensors", s->folder, names[arm]);
    if (!st_open(&a, one, e)) return false;
    if (!st_open(&b, other, e)) {
        st_close(&a);
        return false;
    }
    bool same = a.count == b.count && a.count > TENSORS;
    if (!same) FAIL("%s: the checkpoint holds %zu tensors, resident's %zu", names[arm], b.count, a.count);
    for (size_t i = 0; same && i < a.count; i++) {
        const st_tensor *x = &a.tensors[i], *y = st_find(&b, x->name);
        same = y && x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0;
        if (!same) FAIL("%s: '%s' has other bits than in the resident run", names[arm], x->name);
    }
    st_close(&a);
    st_close(&b);
    return same;
}

static bool judge(const spike_setup *s, const spike_result *r, int arm, ck_error *e)
{
    const spike_arm *a = &r->arms[arm], *first = &r->arms[SPIKE_RESIDENT];
    for (int i = 0; i < SPIKE_STEPS; i++)
        if (memcmp(&a->loss[i], &first->loss[i], sizeof a->loss[i]) != 0)
            return FAIL("%s: the loss of step %d is %.17g, in the resident run %.17g", a->name, i, a->loss[i], first->loss[i]);
    if (!same_end(s, arm, e)) return false;
    if (arm == SPIKE_PAGED) return true;
    for (int i = SPIKE_FROM + 1; i < SPIKE_TO; i++)
        if (a->moved[i] == 0) return FAIL("%s: nothing moved in step %d, while the hog was there", a->name, i);
    if (a->resident_in_spike == 0 || a->resident_in_spike >= r->state_bytes / 2)
        return FAIL("%s: %zu bytes of state were in memory beside the hog", a->name, a->resident_in_spike);
    for (int i = SPIKE_TO + 2; i < SPIKE_STEPS; i++)
        if (a->moved[i] != 0) return FAIL("%s: pages still move in step %d; the hog went before step %d", a->name, i, SPIKE_TO);
    return true;
}

bool spike_run(const spike_setup *s, spike_result *r, ck_error *e)
{
    static const int order[SPIKE_ARMS] = {SPIKE_RESIDENT, SPIKE_PAGED, SPIKE_HOG, SPIKE_CONTROL, SPIKE_RELOAD};
    *r = (spike_result){0};
    for (int i = 0; i < SPIKE_ARMS; i++)
        if (!run_arm(s, order[i], r, e)) return false;
    return judge(s, r, SPIKE_PAGED, e) && judge(s, r, SPIKE_HOG, e) && judge(s, r, SPIKE_RELOAD, e);
}

/* ---- what a pager costs that has nothing to do ------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static bool timed_step(world *w, double *seconds, ck_error *e)
{
    double began = now();
    if (!opt_step(w->o, 1e-3, 1, 1, e)) return false;
    if (!w->s->device->wait(w->s->device)) return FAIL("%s", w->s->device->why);
    *seconds = now() - began;
    return true;
}

static bool measure(world w[2], double *seconds[3], int rounds, spike_overhead *o, ck_error *e)
{
    double loss, norm, unused;
    for (int k = 0; k < 2; k++)
        if (!gradients(&w[k], &loss, &norm, e) || !timed_step(&w[k], &unused, e) || !timed_step(&w[k], &unused, e)) return false;
    pager_counters before = pager_count(opt_pager(w[1].o));
    for (int i = 0; i < rounds; i++) {
        /* the first of a pair alternates: a cache that is warm favours neither */
        if (!timed_step(&w[i % 2], &seconds[i % 2][i], e) || !timed_step(&w[1 - i % 2], &seconds[1 - i % 2][i], e)) return false;
        seconds[2][i] = seconds[1][i] / seconds[0][i];
    }
    pager_counters after = pager_count(opt_pager(w[1].o));
    *o = (spike_overhead){median(seconds[0], rounds), median(seconds[1], rounds), median(seconds[2], rounds),
                          after.bytes_in - before.bytes_in + after.bytes_out - before.bytes_out};
    return true;
}

bool spike_measure_overhead(const spike_setup *s, int rounds, spike_overhead *o, ck_error *e)
{
    world w[2] = {{.s = s}, {.s = s}};
    pager_config plain = {.kind = PAGER_RESIDENT, .device = s->device, .page_bytes = s->paged.page_bytes};
    double *all = rounds > 0 ? calloc((size_t)rounds * 3, sizeof *all) : NULL;
    bool good = all ? true : FAIL("out of memory, or no rounds");
    for (int k = 0; good && k < 2; k++) {
        good = make_tensors(&w[k], e);
        if (good) good = (w[k].o = make_optimizer(&w[k], k ? &s->paged : &plain, e)) != NULL;
    }
    double *seconds[3] = {all, all + rounds, all + 2 * rounds};
    good = good && measure(w, seconds, rounds, o, e);
    end(&w[0]);
    end(&w[1]);
    free(all);
    return good;
}
