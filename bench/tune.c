/* tune.c: times every path of the CUDA product that serves, and replaces the table with what follows (tune.h). */
#include "bench/tune.h"

#include "bench/device.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A row of the table, or what fb_gemm takes as it is now, as a contender; all work on the same sets of buffers. */
typedef struct trial {
    gpu_runner r;
    fb_context *ctx;
    fb_gemm_by_rule *by_rule;
    fb_gemm_rule rule;
    bool now;
} trial;

typedef struct tuner {
    const tune_options *o;
    const volatile sig_atomic_t *stop;
    device *d;
    int arch;
    gpu_job job;
    double *walls[TUNE_CANDIDATES + 1];
    tune_times times;
} tuner;

static bool fail(char *why, const char *text)
{
    snprintf(why, TIMING_WHY, "%.380s", text);
    return false;
}

static fb_status matrix_of(const gpu_case *c, void *const p[JOB_ROLES], fb_matrix *w)
{
    fb_status status = fb_matrix_init(w, c->format, c->rows, c->cols, c->block_size, c->double_quant);
    w->codes = p[JOB_CODES], w->absmax = p[JOB_ABSMAX];
    return status;
}

static bool call_trial(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    trial *t = self;
    const gpu_case *c = &t->r.sets.job->c;
    fb_matrix w;
    size_t bytes;
    fb_status status = matrix_of(c, p, &w);
    if (t->now) status = job_call(t->ctx, c, p);
    else if (status == FB_OK) status = t->by_rule(t->ctx, t->rule.arch, &t->rule, &w, c->m, p[JOB_A], c->dtype, p[JOB_OUT], &bytes);
    return status == FB_OK || fail(why, t->ctx->message[0] ? t->ctx->message : fb_status_name(status));
}

/* Bytes that the largest of the rows needs, and which of them may serve. */
static size_t ask(const tuner *n, const gpu_case *c, fb_context *ctx, bool serves[TUNE_CANDIDATES])
{
    void *none[JOB_ROLES] = {0};
    size_t most = 0, bytes = 0;
    fb_matrix w;
    (void)matrix_of(c, none, &w);
    if (job_workspace(ctx, c, &bytes) == FB_OK) most = bytes;
    for (int k = 0; k < TUNE_CANDIDATES; k++) {
        const tune_candidate *t = &tune_candidates[k];
        const fb_gemm_rule rule = {n->arch, FB_ANY_M, 0, t->path, t->blocks};
        serves[k] = c->m >= t->m_least && c->m <= t->m_most && n->o->by_rule(ctx, n->arch, &rule, &w, c->m, NULL, c->dtype, NULL, &bytes) == FB_OK;
        if (serves[k] && bytes > most) most = bytes;
    }
    return most;
}

/* Right on sampled elements: the tests have looked at all of them (validate/), this is against a path that fails here. */
static bool right(tuner *n, trial *t, char *why)
{
    void *got[JOB_ROLES];
    if (!gpu_run_once(&t->r, got, why)) return false;
    const bool ok = work_near_product(&n->job.w, got[JOB_OUT], why);
    gpu_release(got);
    return ok;
}

static void told(const tuner *n, const gpu_case *c, const trial *t, const char *why)
{
    fprintf(n->o->progress, "  left out at M %lld, %lld x %lld: %s: %s\n", (long long)c->m, (long long)c->rows, (long long)c->cols,
            t->now ? "as it is now" : tune_path_name(t->rule.path), why);
}

/* One line: the best, and what it gains over the table as it is. */
static void report(const tuner *n, const gpu_case *c, const double us[TUNE_CANDIDATES], double now)
{
    int best = -1;
    for (int k = 0; k < TUNE_CANDIDATES; k++)
        if (us[k] > 0 && (best < 0 || us[k] < us[best])) best = k;
    fprintf(n->o->out, "%6lld %6lld %6lld  %-17s %6d %10.2f", (long long)c->rows, (long long)c->cols, (long long)c->m,
            best < 0 ? "-" : tune_path_name(tune_candidates[best].path), best < 0 ? 0 : tune_candidates[best].blocks, best < 0 ? NAN : us[best]);
    if (now > 0 && best >= 0) fprintf(n->o->out, " %10.2f %6.2f", now, now / us[best]);
    fputc('\n', n->o->out);
    fflush(n->o->out);
}

/* All candidates at one M on one shape. us: medians. */
static bool time_one(tuner *n, const gpu_case *c, double us[TUNE_CANDIDATES], char *why)
{
    gpu_ours own;
    trial trials[TUNE_CANDIDATES + 1];
    contender all[TUNE_CANDIDATES + 1];
    int index[TUNE_CANDIDATES + 1], count = 0;
    bool serves[TUNE_CANDIDATES];
    if (!job_make(&n->job, c, why)) return false;
    bool ok = gpu_ours_make(&own, n->d, &n->job, n->o->backend, job_call, why);
    const size_t bytes = ok ? ask(n, c, &own.ctx, serves) : 0;
    if (ok && bytes > own.ctx.workspace_bytes) {
        n->d->release(n->d, own.workspace);
        own.ctx.workspace = own.workspace = n->d->alloc(n->d, bytes), own.ctx.workspace_bytes = bytes;
        ok = own.workspace || fail(why, n->d->why);
    }
    for (int k = 0; k <= TUNE_CANDIDATES && ok && !*n->stop; k++) {
        const bool now = k == TUNE_CANDIDATES;
        char reason[TIMING_WHY] = "";
        if (!now && !serves[k]) continue;
        trial *t = &trials[count];
        *t = (trial){.r = {.sets = own.r.sets, .call = call_trial, .recorded = n->d->records}, .ctx = &own.ctx, .by_rule = n->o->by_rule, .now = now};
        if (!now) t->rule = (fb_gemm_rule){n->arch, FB_ANY_M, 0, tune_candidates[k].path, tune_candidates[k].blocks};
        t->r.self = t;
        if (!right(n, t, reason)) {
            told(n, c, t, reason);
            continue;
        }
        all[count] = (contender){.run = gpu_run, .self = &t->r, .walls = n->walls[count]};
        index[count++] = k;
    }
    if (ok) timing_rounds(all, count, n->o->rule, true, n->stop);
    double now = 0;
    for (int i = 0; i < count; i++) {
        if (all[i].failed) told(n, c, &trials[i], all[i].why);
        const double median = all[i].failed || !all[i].samples ? 0 : timing_summary(all[i].walls, all[i].samples).median * 1e6;
        *(index[i] < TUNE_CANDIDATES ? &us[index[i]] : &now) = median;
        if (trials[i].r.cold) n->d->drop(n->d, trials[i].r.cold);
    }
    if (ok && !*n->stop) report(n, c, us, now);
    gpu_ours_free(&own);
    return ok;
}

static bool time_all(tuner *n, char *why)
{
    const tune_plan *p = n->o->plan;
    fprintf(n->o->out, "%6s %6s %6s  %-17s %6s %10s %10s %6s\n", "N", "K", "M", "fastest", "blocks", "us", "us now", "x");
    for (int c = 0; c < TUNE_CLASSES; c++)
        for (int s = 0; s < TUNE_SHAPES; s++)
            for (int m = 0; m < TUNE_MS && p->m[m] && !*n->stop; m++) {
                const gpu_case one = {GPU_GEMM, FB_NF4, 64, false, p->classes[c].shapes[s][0], p->classes[c].shapes[s][1], p->m[m], FB_BF16, 0, 0};
                if (!time_one(n, &one, n->times.us[c][s][m], why)) return false;
            }
    return true;
}

/* ---- the table ---------------------------------------------------------------------------------------------------------- */

static char *read_all(const char *path, char *why)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;
    if (!f || getdelim(&text, &size, '\0', f) < 0) {
        snprintf(why, TIMING_WHY, "%.200s: %s", path, f ? "it is empty" : strerror(errno));
        free(text), text = NULL;
    }
    if (f) fclose(f);
    return text;
}

static bool replace(const char *path, const char *text, char *why)
{
    char temporary[4200];
    snprintf(temporary, sizeof temporary, "%.4000s.%d.tmp", path, (int)getpid());
    FILE *f = fopen(temporary, "w");
    bool ok = f && fputs(text, f) >= 0;
    if (f && fclose(f) != 0) ok = false;
    if (ok && rename(temporary, path) == 0) return true;
    snprintf(why, TIMING_WHY, "%.200s could not be written: %s", path, strerror(errno));
    unlink(temporary);
    return false;
}

static int write_table(tuner *n, const char *old)
{
    char why[TIMING_WHY] = "", where[200], date[16];
    fb_gemm_rule rows[TUNE_ROWS];
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&seconds, &utc));
    snprintf(where, sizeof where, "%.120s, %s", n->d->name, date);
    const int count = tune_select(&n->times, n->o->plan, n->arch, rows);
    char *text = count ? tune_table(old, n->arch, where, rows, count, why) : NULL;
    if (!count) snprintf(why, sizeof why, "no path served any of the products");
    bool ok = text && (n->o->dry || replace(n->o->table, text, why));
    if (ok && n->o->dry) fprintf(n->o->out, "\n%s", text);
    else if (ok) fprintf(n->o->out, "\n%s: %d rows for sm_%d; make builds the library with them\n", n->o->table, count, n->arch);
    else fprintf(stderr, "fourbit-tune: %s: not replaced: %s\n", n->o->table, why);
    free(text);
    return ok ? RUN_OK : RUN_FAILED;
}

/* ---- set-up ---------------------------------------------------------------------------------------------------------------- */

static bool open_device(tuner *n, char *why)
{
    fb_context ctx;
    fb_context_init(&ctx, n->o->backend);
    if (!n->o->by_rule) return fail(why, "this build has no CUDA (nvcc was not found, or CUDA=0)");
    if (!(n->d = n->o->open(n->o->device, why))) return false;
    if (n->o->arch) return n->arch = n->o->arch, true;
    if (fb_backend_available(&ctx) != FB_OK) return fail(why, ctx.message);
    return sscanf(fb_backend_variant(n->o->backend), "sm%d", &n->arch) == 1 || fail(why, "the backend does not say which generation it runs on");
}

int tune_run(const tune_options *o, const volatile sig_atomic_t *stop)
{
    tuner *n = calloc(1, sizeof *n);
    char why[TIMING_WHY] = "", *old = read_all(o->table, why);
    bool room = n && old;
    int result = RUN_USAGE;
    for (int i = 0; i <= TUNE_CANDIDATES && room; i++) room = (n->walls[i] = malloc((size_t)o->rule->ceiling * sizeof(double))) != NULL;
    if (!old) fprintf(stderr, "fourbit-tune: %s\n", why);
    else if (!room) result = RUN_FAILED;
    else if (n->o = o, n->stop = stop, !open_device(n, why)) {
        fprintf(o->out, "not run: no GPU: %s\n", why);
        result = GPU_RUN_NO_DEVICE;
    } else if (!time_all(n, why)) {
        fprintf(stderr, "fourbit-tune: %s\n", why);
        result = RUN_FAILED;
    } else result = *stop ? RUN_INTERRUPTED : write_table(n, old);
    if (result == RUN_INTERRUPTED) fprintf(o->out, "interrupted: the table is as it was\n");
    if (n) {
        job_free(&n->job);
        if (n->d) n->d->close(n->d);
        for (int i = 0; i <= TUNE_CANDIDATES; i++) free(n->walls[i]);
    }
    free(n), free(old);
    return result;
}
