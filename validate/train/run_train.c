/* run_train.c: a run (run_train.h). */
#include "run_train.h"

#include "bench/timing.h"
#include "train_checkpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

void run_interrupt(void) { interrupted = 1; }
bool run_interrupted(void) { return interrupted != 0; }

/* ---- checkpoints ------------------------------------------------------------------------------------------------------ */

typedef struct snapshot {
    char identity[RUN_IDENTITY]; /* a copy: loading sets what it has compared */
    tc_field fields[3];
    tc_state state;
} snapshot;

static void snapshot_of(snapshot *c, train_loop *l, const run_settings *s)
{
    snprintf(c->identity, sizeof c->identity, "%s", s->identity);
    c->fields[0] = (tc_field){.name = "step", .kind = TC_I64, .value = &l->step};
    c->fields[1] = (tc_field){.name = "dropout_step", .kind = TC_U64, .value = &l->model->dropout_step};
    c->fields[2] = (tc_field){.name = "run", .kind = TC_TEXT, .value = c->identity, .size = sizeof c->identity, .must_equal = true};
    c->state = (tc_state){.fields = c->fields, .field_count = 3, .tensors = l->model->trainable, .tensor_count = l->model->trainable_count,
                          .optimizer = l->optimizer, .device = l->model->device};
}

static bool save(train_loop *l, const run_settings *s, ck_error *e)
{
    if (!s->checkpoint) return true;
    snapshot c;
    snapshot_of(&c, l, s);
    return tc_save(s->checkpoint, &c.state, e);
}

static bool load(train_loop *l, const run_settings *s, ck_error *e)
{
    snapshot c;
    snapshot_of(&c, l, s);
    return tc_load(s->checkpoint, &c.state, e);
}

/* ---- the log ----------------------------------------------------------------------------------------------------------- */

typedef struct run_log {
    FILE *file;
    const char *path;
    bool json;
} run_log;

/* A resumed run's log goes on: what was logged after the checkpoint stays, and is written again. */
static bool log_open(run_log *g, const run_settings *s, ck_error *e)
{
    size_t n = s->log ? strlen(s->log) : 0;
    *g = (run_log){.path = s->log, .json = n > 5 && strcmp(s->log + n - 5, ".json") == 0};
    if (!s->log) return true;
    g->file = fopen(s->log, s->resume ? "a" : "w");
    if (!g->file) return ck_fail(e, s->log, NULL, "%s", strerror(errno));
    if (!g->json && ftell(g->file) == 0) fprintf(g->file, "step,loss,held_out,grad_norm,lr,seconds,tokens_per_second,share_of_peak\n");
    return true;
}

static bool log_step(run_log *g, int64_t step, const loop_report *r, double held_out, double share, ck_error *e)
{
    if (!g->file) return true;
    double rate = (double)r->tokens / r->seconds;
    if (g->json) {
        fprintf(g->file, "{\"step\": %lld, \"loss\": %.9g, ", (long long)step, r->loss);
        if (!isnan(held_out)) fprintf(g->file, "\"held_out\": %.9g, ", held_out);
        fprintf(g->file, "\"grad_norm\": %.9g, \"lr\": %.9g, \"seconds\": %.6f, \"tokens_per_second\": %.1f, \"share_of_peak\": %.4f}\n", r->norm, r->lr,
                r->seconds, rate, share);
    } else {
        fprintf(g->file, "%lld,%.9g,", (long long)step, r->loss);
        if (!isnan(held_out)) fprintf(g->file, "%.9g", held_out);
        fprintf(g->file, ",%.9g,%.9g,%.6f,%.1f,%.4f\n", r->norm, r->lr, r->seconds, rate, share);
    }
    return fflush(g->file) == 0 || ck_fail(e, g->path, NULL, "%s", strerror(errno));
}

static bool log_close(run_log *g, ck_error *e)
{
    if (!g->file) return true;
    FILE *file = g->file;
    g->file = NULL;
    return fclose(file) == 0 || ck_fail(e, g->path, NULL, "%s", strerror(errno));
}

/* ---- progress ------------------------------------------------------------------------------------------------------------ */

static void say_step(const run_settings *s, const train_loop *l, const loop_report *r, double held_out, double pace, double share)
{
    int64_t step = l->step, steps = l->settings.steps, every = steps / 20 > 0 ? steps / 20 : 1;
    bool terminal = s->progress && isatty(fileno(s->progress)), last = step == steps || !isnan(held_out);
    if (!s->progress || (!terminal && !last && step % every)) return;
    double left = pace * (double)(steps - step);
    fprintf(s->progress, "%s  %s %5lld/%lld  loss %.4f  norm %.3f  lr %.2e  %.0f tokens/s", terminal ? "\r" : "", s->name, (long long)step, (long long)steps,
            r->loss, r->norm, r->lr, (double)r->tokens / pace);
    if (share > 0) fprintf(s->progress, "  %.0f %% of peak", 100 * share);
    if (!isnan(held_out)) fprintf(s->progress, "  held out %.4f", held_out);
    fprintf(s->progress, "  %lld:%02lld left ", (long long)(left / 60), (long long)left % 60);
    if (!terminal || last) fputc('\n', s->progress);
    fflush(s->progress);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int64_t n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n ? 0.5 * (values[(n - 1) / 2] + values[n / 2]) : NAN;
}

/* ---- the run ---------------------------------------------------------------------------------------------------------------- */

typedef struct tally {
    double *seconds;   /* of each step */
    double last_sum;   /* losses of the last tenth */
    int64_t last_count;
} tally;

static bool one_step(train_loop *l, const run_settings *s, run_log *g, run_result *result, tally *t, ck_error *e)
{
    loop_report r;
    double held_out = NAN;
    int64_t steps = l->settings.steps;
    if (!loop_step(l, &r, e)) return false;
    if (result->steps == 0) result->first_loss = r.loss;
    t->seconds[result->steps++] = r.seconds;
    if (l->step > steps - (steps + 9) / 10) t->last_sum += r.loss, t->last_count++;
    bool last = l->step == steps, due = s->eval_every && l->step % s->eval_every == 0;
    if ((due || last) && !loop_held_out(l->model, l->text, s->eval_windows, &held_out, NULL, e)) return false;
    if (last) result->held_out = held_out;
    double share = s->peak > 0 ? loop_flops_per_token(l->model) * (double)r.tokens / r.seconds / s->peak : 0;
    int64_t recent = result->steps < 16 ? result->steps : 16;
    double pace = 0;
    for (int64_t i = result->steps - recent; i < result->steps; i++) pace += t->seconds[i] / (double)recent;
    say_step(s, l, &r, held_out, pace, share);
    if (!log_step(g, l->step, &r, held_out, share, e)) return false;
    return last || !s->checkpoint_every || l->step % s->checkpoint_every || save(l, s, e);
}

static run_end run_steps(train_loop *l, const run_settings *s, run_log *g, run_result *result, tally *t, ck_error *e)
{
    while (l->step < l->settings.steps && !interrupted && !(s->stop_after && result->steps >= s->stop_after))
        if (!one_step(l, s, g, result, t, e)) return RUN_FAILED;
    if (!save(l, s, e)) return RUN_FAILED;
    return l->step < l->settings.steps ? RUN_INTERRUPTED : RUN_DONE;
}

run_end run_train(train_loop *l, const run_settings *s, run_result *result, ck_error *e)
{
    run_log g = {0};
    tally t = {.seconds = calloc((size_t)l->settings.steps + 1, sizeof(double))};
    *result = (run_result){.held_out = NAN, .first_loss = NAN, .last_loss = NAN};
    bool ok = t.seconds || ck_fail(e, "training", NULL, "no memory for %lld steps", (long long)l->settings.steps);
    ok = ok && (!s->resume || load(l, s, e)) && log_open(&g, s, e);
    if (ok && l->step >= l->settings.steps) ok = loop_held_out(l->model, l->text, s->eval_windows, &result->held_out, NULL, e);
    run_end end = ok ? run_steps(l, s, &g, result, &t, e) : RUN_FAILED;
    ck_error second;
    if (!log_close(&g, end == RUN_FAILED ? &second : e)) end = RUN_FAILED;
    if (t.last_count) result->last_loss = t.last_sum / (double)t.last_count;
    if (t.seconds && result->steps) {
        double tokens = (double)(l->settings.accumulate * l->model->options.batch * l->model->options.seq);
        result->median_seconds = median(t.seconds, result->steps);
        result->tokens_per_second = tokens / result->median_seconds;
        if (s->peak > 0) result->share_of_peak = loop_flops_per_token(l->model) * result->tokens_per_second / s->peak;
    }
    free(t.seconds);
    return end;
}
