/* gpu_time.c: sets of buffers, recordings, samples (gpu_time.h). */
#include "bench/gpu_time.h"

#include <stdio.h>
#include <stdlib.h>

static bool fail(char *why, const char *text)
{
    snprintf(why, TIMING_WHY, "%.380s", text);
    return false;
}
static size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* ---- sets ------------------------------------------------------------------------------------------------------------ */

static int set_count(const gpu_sets *s)
{
    size_t want = s->bytes ? (3 * s->d->l2_bytes + s->bytes - 1) / s->bytes : 1, room = s->d->free_bytes / 4 / s->stride;
    if (want < 2) want = 2;
    if (want > GPU_SETS_MAX) want = GPU_SETS_MAX;
    if (want > room) want = room;
    return want < 1 ? 1 : (int)want;
}

bool gpu_sets_make(gpu_sets *s, device *d, const gpu_job *j, unsigned roles, char why[TIMING_WHY])
{
    *s = (gpu_sets){.d = d, .job = j, .roles = roles};
    for (int r = 0; r < JOB_ROLES; r++) {
        if (!(roles & JOB_BIT(r))) continue;
        s->offset[r] = s->stride;
        s->stride += padded(j->b[r].bytes);
        s->bytes += j->b[r].bytes;
    }
    if (!s->stride) s->stride = 256;
    s->count = set_count(s);
    if (!(s->arena = d->alloc(d, s->stride * (size_t)s->count))) return fail(why, d->why);
    if (!gpu_sets_reset(s, why)) return false;
    for (int i = 1; i < s->count; i++)
        if (!d->copy(d, s->arena + (size_t)i * s->stride, s->arena, s->stride)) return fail(why, d->why);
    return d->wait(d) || fail(why, d->why);
}

void gpu_sets_free(gpu_sets *s)
{
    if (s->d && s->arena) s->d->release(s->d, s->arena);
    memset(s, 0, sizeof *s);
}

void gpu_sets_pointers(const gpu_sets *s, int set, void *p[JOB_ROLES])
{
    for (int r = 0; r < JOB_ROLES; r++)
        p[r] = s->roles & JOB_BIT(r) ? s->arena + (size_t)set * s->stride + s->offset[r] : NULL;
}

bool gpu_sets_reset(gpu_sets *s, char why[TIMING_WHY])
{
    device *d = s->d;
    for (int r = 0; r < JOB_ROLES; r++) {
        if (!(s->roles & JOB_BIT(r))) continue;
        const job_buffer *b = &s->job->b[r];
        bool ok = b->initial ? d->upload(d, s->arena + s->offset[r], b->initial, b->bytes) : d->fill(d, s->arena + s->offset[r], 0xff, b->bytes);
        if (!ok) return fail(why, d->why);
    }
    return true;
}

void gpu_release(void *got[JOB_ROLES])
{
    for (int r = 0; r < JOB_ROLES; r++) free(got[r]), got[r] = NULL;
}

bool gpu_fetch(gpu_sets *s, void *got[JOB_ROLES], char why[TIMING_WHY])
{
    device *d = s->d;
    memset(got, 0, JOB_ROLES * sizeof *got);
    for (int r = 0; r < JOB_ROLES; r++) {
        const job_buffer *b = &s->job->b[r];
        if (!(s->roles & JOB_BIT(r)) || !b->written) continue;
        got[r] = malloc(b->bytes);
        if (got[r] && d->download(d, got[r], s->arena + s->offset[r], b->bytes)) continue;
        fail(why, got[r] ? d->why : "no memory for a copy of the result");
        gpu_release(got);
        return false;
    }
    return true;
}

/* ---- samples ----------------------------------------------------------------------------------------------------------- */

static bool enqueue(gpu_runner *r, bool cold, char *why)
{
    void *p[JOB_ROLES];
    int calls = cold ? r->sets.count : GPU_HOT_CALLS;
    for (int i = 0; i < calls; i++) {
        gpu_sets_pointers(&r->sets, cold ? i : 0, p);
        if (!r->call(r->self, p, why)) return false;
    }
    return true;
}

/* The calls of enqueue as a recording. A call that fails while it is recorded ends the recording. */
static void *record(gpu_runner *r, bool cold, char *why)
{
    device *d = r->sets.d;
    if (!d->record_begin(d)) return fail(why, d->why), NULL;
    bool ok = enqueue(r, cold, why);
    void *made = d->record_end(d);
    if (ok && made) return made;
    if (ok) fail(why, d->why);
    if (made) d->drop(d, made);
    return NULL;
}

static void read_clocks(gpu_runner *r)
{
    unsigned sm, memory;
    if (!r->clocks || !nvml_clocks(r->clocks, &sm, &memory) || !sm) return;
    if (!r->sm_min || sm < r->sm_min) r->sm_min = sm;
    if (sm > r->sm_max) r->sm_max = sm;
}

bool gpu_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    gpu_runner *r = self;
    device *d = r->sets.d;
    int batch = cold ? r->sets.count : GPU_HOT_CALLS, batches = (calls + batch - 1) / batch;
    void **recording = cold ? &r->cold : &r->hot;
    double moved = (double)r->sets.bytes * batch, seconds = 0;
    if (cold && moved > 0) {
        double enough = GPU_SAMPLE_L2S * (double)d->l2_bytes / moved;
        batches = enough > 1 ? (int)enough + 1 : 1;
    }
    if (r->recorded && !*recording && !(*recording = record(r, cold, why))) return false;
    if (cold && !d->flush(d)) return fail(why, d->why);
    double cpu = timing_cpu_now();
    bool ok = d->begin(d) || fail(why, d->why);
    for (int i = 0; i < batches && ok; i++)
        ok = r->recorded ? d->replay(d, *recording) || fail(why, d->why) : enqueue(r, cold, why);
    if (!ok || !(d->end(d) || fail(why, d->why))) {
        (void)d->wait(d); /* what was enqueued uses buffers that the caller will free */
        return false;
    }
    cpu = timing_cpu_now() - cpu;
    read_clocks(r); /* the device is at work now */
    if (!d->elapsed(d, &seconds)) return fail(why, d->why);
    double per_call = 1.0 / ((double)batch * batches);
    *span = (timing_span){seconds * per_call * calls, cpu * per_call * calls};
    return true;
}

bool gpu_run_once(gpu_runner *r, void *got[JOB_ROLES], char why[TIMING_WHY])
{
    void *p[JOB_ROLES];
    device *d = r->sets.d;
    memset(got, 0, JOB_ROLES * sizeof *got);
    gpu_sets_pointers(&r->sets, 0, p);
    if (!gpu_sets_reset(&r->sets, why) || !r->call(r->self, p, why)) {
        (void)d->wait(d);
        return false;
    }
    return (d->wait(d) || fail(why, d->why)) && gpu_fetch(&r->sets, got, why);
}

void gpu_runner_free(gpu_runner *r)
{
    device *d = r->sets.d;
    if (d && r->cold) d->drop(d, r->cold);
    if (d && r->hot) d->drop(d, r->hot);
    gpu_sets_free(&r->sets);
    r->cold = r->hot = NULL;
}

/* ---- ours ---------------------------------------------------------------------------------------------------------------- */

static bool call_ours(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    gpu_ours *o = self;
    o->refused = o->call(&o->ctx, &o->r.sets.job->c, p);
    return o->refused == FB_OK || fail(why, o->ctx.message[0] ? o->ctx.message : fb_status_name(o->refused));
}

bool gpu_ours_make(gpu_ours *o, device *d, const gpu_job *j, fb_backend backend, gpu_call_fn *call, char why[TIMING_WHY])
{
    *o = (gpu_ours){.call = call, .r = {.call = call_ours, .self = o}};
    fb_context_init(&o->ctx, backend);
    o->ctx.stream = d->stream;
    if (job_workspace(&o->ctx, &j->c, &o->ctx.workspace_bytes) != FB_OK) return fail(why, o->ctx.message);
    if (!gpu_sets_make(&o->r.sets, d, j, job_roles(j), why)) return false;
    o->workspace = d->alloc(d, o->ctx.workspace_bytes);
    o->word = d->alloc(d, sizeof(uint64_t));
    if (!o->workspace || !o->word || !d->fill(d, o->word, 0xff, sizeof(uint64_t))) return fail(why, d->why);
    o->ctx.workspace = o->ctx.workspace_bytes ? o->workspace : NULL;
    if (backend == FB_BACKEND_CUDA) o->ctx.first_nonfinite = o->word;
    return true;
}

void gpu_ours_free(gpu_ours *o)
{
    device *d = o->r.sets.d;
    if (d && o->workspace) d->release(d, o->workspace);
    if (d && o->word) d->release(d, o->word);
    gpu_runner_free(&o->r);
}

check_result gpu_ours_check(gpu_ours *o, gpu_job *j)
{
    check_result r = {.ok = false, .worst = -1};
    void *got[JOB_ROLES];
    uint64_t word = 0;
    char why[TIMING_WHY] = "";
    device *d = o->r.sets.d;
    if (!gpu_run_once(&o->r, got, why)) return snprintf(r.text, sizeof r.text, "%.300s", why), r;
    r = job_check(j, &o->ctx, got);
    gpu_release(got);
    if (!r.ok) return r;
    r.ok = d->download(d, &word, o->word, sizeof word) && word == UINT64_MAX;
    if (!r.ok) snprintf(r.text, sizeof r.text, "finite data was reported as not finite at element %llu", (unsigned long long)word);
    return r;
}
