/* experiment.c: bases, quantized and fine-tuned (experiment.h). */
#include "experiment.h"

#include "hf_load.h"
#include "run.h"
#include "validate/theory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

const char *const x_names[X_FORMATS] = {"bf16", "nf4", "nf4+dq", "fp4", "int4", "int3"};

static void set_format(lm_options *o, x_format f, int32_t block_size)
{
    o->base = f == X_BF16 ? LM_BASE_BF16 : f == X_INT3 ? LM_BASE_INT3 : LM_BASE_4BIT;
    o->format = f == X_FP4 ? FB_FP4 : f == X_INT4 || f == X_INT3 ? FB_INT4 : FB_NF4;
    o->double_quant = f == X_NF4_DQ;
    o->block_size = block_size;
}

double x_theory(x_format f, int32_t block_size)
{
    double values[7], thresholds[6];
    for (int i = 0; i < 7; i++) values[i] = (i - 3) / 3.0;
    for (int i = 0; i < 6; i++) thresholds[i] = (i - 2.5) / 3.0;
    if (f == X_BF16) return NAN;
    if (f == X_INT3) return fb_expected_codebook_error(values, thresholds, 7, block_size, 2);
    return fb_expected_mse(f == X_FP4 ? FB_FP4 : f == X_INT4 ? FB_INT4 : FB_NF4, block_size);
}

/* ---- one base ---------------------------------------------------------------------------------------------------------- */

typedef struct lab {
    const x_settings *s;
    x_results *r;
    device *device;
    text_corpus prose, tuning;
    FILE *weights, *quantized, *tuned, *curves;
    int seed;
    hf_checkpoint checkpoint;
    lm_source source;
    lm_model *base;   /* fp32, nothing trained */
    double *plain, *losses, *nf4; /* [windows] */
} lab;

static lm_options options_of(const lab *l, bool tunes)
{
    const x_settings *s = l->s;
    return (lm_options){.backend = s->backend, .threads = s->threads, .trains = tunes ? LM_TRAINS_ADAPTERS : LM_TRAINS_NOTHING, .unfused = true,
                        .rank = tunes ? s->rank : 0, .alpha = s->alpha, .batch = s->batch, .seq = s->seq, .seed = (uint64_t)l->seed + 1};
}

static bool flushed(FILE *f, const char *name, ck_error *e) { return fflush(f) == 0 || ck_fail(e, name, NULL, "%s", strerror(errno)); }

/* Of all linear layers together: each deviates by its own norm, so sums of squares are divided layer by layer. */
static bool weight_error(const lab *l, lm_model *quantized, double *error, ck_error *e)
{
    double sum = 0;
    for (int64_t i = 0; i < l->base->linear_count; i++) {
        int64_t n = l->base->linears[i].weight->count;
        float *w = malloc((size_t)(2 * n) * sizeof *w);
        double miss = 0, norm = 0;
        bool ok = w ? lm_decode_weight(l->base, &l->base->linears[i], w, e) && lm_decode_weight(quantized, &quantized->linears[i], w + n, e)
                    : ck_fail(e, "experiment", NULL, "no memory for a layer's weights");
        for (int64_t k = 0; ok && k < n; k++) {
            miss += ((double)w[k] - (double)w[n + k]) * ((double)w[k] - (double)w[n + k]);
            norm += (double)w[k] * (double)w[k];
        }
        free(w);
        if (!ok) return false;
        sum += miss / norm * (double)n;
    }
    int64_t all = 0;
    for (int64_t i = 0; i < l->base->linear_count; i++) all += l->base->linears[i].weight->count;
    *error = sum / (double)all;
    return true;
}

static bool measure_format(lab *l, x_format f, int block, ck_error *e)
{
    x_results *r = l->r;
    lm_options o = options_of(l, false);
    int32_t size = l->s->block_sizes[block];
    double loss = NAN;
    set_format(&o, f, size);
    lm_model *m = lm_model_new(&l->checkpoint.config, &o, &l->source, l->device, e);
    bool ok = m && loop_held_out(m, &l->prose, l->s->windows, &loss, l->losses, e) && weight_error(l, m, &r->weight_error[l->seed][f][block], e);
    lm_model_free(m);
    if (!ok) return false;
    r->increase[l->seed][f][block] = loss - r->base_loss[l->seed];
    r->weight_theory[f][block] = x_theory(f, size);
    if (f == X_NF4) memcpy(l->nf4, l->losses, (size_t)r->windows * sizeof *l->nf4);
    for (int64_t i = 0; f == X_INT4 && i < r->windows; i++) r->window_gap[block][i] += (l->losses[i] - l->nf4[i]) / l->s->seeds;
    fprintf(l->weights, "%d,%s,%d,%.9g,%.9g\n", l->seed, x_names[f], size, r->weight_error[l->seed][f][block], r->weight_theory[f][block]);
    fprintf(l->quantized, "%d,%s,%d,%.9g,%.9g\n", l->seed, x_names[f], size, loss, loss - r->base_loss[l->seed]);
    return flushed(l->weights, "weights.csv", e) && flushed(l->quantized, "quantized.csv", e);
}

static bool measure_formats(lab *l, ck_error *e)
{
    if (!loop_held_out(l->base, &l->prose, l->s->windows, &l->r->base_loss[l->seed], l->plain, e)) return false;
    for (int b = 0; b < l->s->blocks; b++)
        for (int f = 0; f < X_FORMATS; f++) {
            if (f == X_BF16 && b) continue;
            if (run_interrupted()) return ck_fail(e, "experiment", NULL, "stopped");
            if (!measure_format(l, (x_format)f, b, e)) return false;
        }
    return true;
}

/* ---- fine-tuning ------------------------------------------------------------------------------------------------------------ */

static bool tune_steps(lab *l, train_loop *loop, int tune, x_format f, ck_error *e)
{
    double *seconds = &l->r->step_seconds[l->seed][tune][f], times[4096];
    int64_t n = 0;
    while (loop->step < l->s->tune_steps) {
        loop_report report;
        if (run_interrupted()) return ck_fail(e, "experiment", NULL, "stopped");
        if (!loop_step(loop, &report, e)) return false;
        if (n < 4096) times[n++] = report.seconds;
        fprintf(l->curves, "%d,%d,%s,%lld,%.9g\n", l->seed, tune, x_names[f], (long long)loop->step, report.loss);
    }
    for (int64_t i = 1; i < n; i++) /* insertion sort, for the median */
        for (int64_t k = i; k > 0 && times[k] < times[k - 1]; k--) {
            double t = times[k];
            times[k] = times[k - 1], times[k - 1] = t;
        }
    *seconds = n ? times[n / 2] : NAN;
    return flushed(l->curves, "curves.csv", e);
}

static bool tune_format(lab *l, int tune, x_format f, ck_error *e)
{
    const x_settings *s = l->s;
    lm_options o = options_of(l, true);
    loop_settings settings = {.steps = s->tune_steps, .accumulate = 1, .lr = s->tune_lr, .schedule = LOOP_COSINE, .warmup = 10, .seed = (uint64_t)(100 * l->seed + tune)};
    train_loop loop = {0};
    double *start = &l->r->start[l->seed][f], *end = &l->r->tuned[l->seed][tune][f];
    set_format(&o, f, s->block_sizes[0]);
    o.seed = (uint64_t)(1000 + 100 * l->seed + tune);
    lm_model *m = lm_model_new(&l->checkpoint.config, &o, &l->source, l->device, e);
    if (!m) return false;
    opt_config config = opt_default(&m->run->ctx, l->device);
    optimizer *opt = opt_new(&config, m->trainable, m->trainable_count, e);
    bool ok = opt && loop_init(&loop, &settings, m, opt, &l->tuning, e) && loop_held_out(m, &l->tuning, 0, start, NULL, e) &&
              tune_steps(l, &loop, tune, f, e) && loop_held_out(m, &l->tuning, 0, end, NULL, e);
    loop_free(&loop), opt_free(opt), lm_model_free(m);
    if (!ok) return false;
    fprintf(l->tuned, "%d,%d,%s,%d,%.9g,%.9g,%.6f\n", l->seed, tune, x_names[f], s->block_sizes[0], *start, *end, l->r->step_seconds[l->seed][tune][f]);
    return flushed(l->tuned, "tuned.csv", e);
}

static bool work_on_base(lab *l, const char *folder, ck_error *e)
{
    lm_options plain = options_of(l, false);
    if (!hf_open(&l->checkpoint, folder, e)) return false;
    l->source = hf_source(&l->checkpoint);
    l->base = lm_model_new(&l->checkpoint.config, &plain, &l->source, l->device, e);
    bool ok = l->base && measure_formats(l, e);
    for (int t = 0; ok && t < l->s->noise; t++) {
        for (int f = 0; ok && f < (t < l->s->tunes ? X_FORMATS : X_BF16 + 1); f++) ok = tune_format(l, t, (x_format)f, e);
        if (ok && l->s->progress && t < l->s->tunes)
            fprintf(l->s->progress, "  seed %d.%d: fine-tuned from %.4f (bf16) to bf16 %.4f, nf4 %.4f, int4 %.4f, int3 %.4f\n", l->seed, t, l->r->start[l->seed][X_BF16],
                    l->r->tuned[l->seed][t][X_BF16], l->r->tuned[l->seed][t][X_NF4], l->r->tuned[l->seed][t][X_INT4], l->r->tuned[l->seed][t][X_INT3]);
    }
    lm_model_free(l->base);
    l->base = NULL;
    hf_close(&l->checkpoint);
    return ok;
}

/* ---- all -------------------------------------------------------------------------------------------------------------------- */

static FILE *table(const char *folder, const char *name, const char *header, ck_error *e)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f) return ck_fail(e, path, NULL, "%s", strerror(errno)), NULL;
    fprintf(f, "%s\n", header);
    return f;
}

static void note_text(x_text *note, const text_corpus *t)
{
    memcpy(note->source, t->source, sizeof note->source);
    memcpy(note->sha256, t->sha256, sizeof note->sha256);
    note->bytes = t->bytes;
}

static bool open_lab(lab *l, ck_error *e)
{
    const x_settings *s = l->s;
    char why[DEVICE_TEXT];
    const char *prose = s->base_text ? s->base_text : text_prose_path() ? text_prose_path() : text_default_path();
    l->device = loop_open_device(s->backend, why);
    if (!l->device) return ck_fail(e, "device", NULL, "%s", why);
    if (!text_open(&l->prose, prose, s->seq, e) || !text_open(&l->tuning, s->tune_text ? s->tune_text : text_default_path(), s->seq, e)) return false;
    note_text(&l->r->base_text, &l->prose), note_text(&l->r->tune_text, &l->tuning);
    int64_t all = text_windows(&l->prose, s->seq);
    l->r->windows = s->windows < all ? s->windows : all;
    l->losses = calloc((size_t)(3 * l->r->windows), sizeof(double));
    if (!l->losses) return ck_fail(e, "experiment", NULL, "no memory");
    l->nf4 = l->losses + l->r->windows, l->plain = l->nf4 + l->r->windows;
    for (int b = 0; b < s->blocks; b++)
        if (!(l->r->window_gap[b] = calloc((size_t)l->r->windows, sizeof(double)))) return ck_fail(e, "experiment", NULL, "no memory");
    return (l->weights = table(s->out, "weights.csv", "seed,format,block_size,relative_mse,expected", e)) &&
           (l->quantized = table(s->out, "quantized.csv", "seed,format,block_size,loss,increase", e)) &&
           (l->tuned = table(s->out, "tuned.csv", "seed,tune,format,block_size,loss_before,loss_after,step_seconds", e)) &&
           (l->curves = table(s->out, "curves.csv", "seed,tune,format,step,loss", e));
}

static void close_lab(lab *l)
{
    FILE *const files[] = {l->weights, l->quantized, l->tuned, l->curves};
    for (int i = 0; i < 4; i++)
        if (files[i]) fclose(files[i]);
    text_close(&l->prose), text_close(&l->tuning);
    if (l->device) l->device->close(l->device);
    free(l->losses);
}

run_end x_run(const x_settings *s, x_results *r, ck_error *e)
{
    lab l = {.s = s, .r = r};
    run_end end = open_lab(&l, e) ? RUN_DONE : RUN_FAILED;
    for (l.seed = 0; end == RUN_DONE && l.seed < s->seeds; l.seed++) {
        char folder[4200];
        run_result made;
        base_settings base = {.config = s->config, .text = s->base_text, .steps = s->base_steps, .batch = s->batch, .seq = s->seq, .lr = s->base_lr,
                              .seed = (uint64_t)l.seed + 1, .backend = s->backend, .threads = s->threads};
        snprintf(folder, sizeof folder, "%.4000s/base-%d", s->out, l.seed);
        end = base_make(&base, folder, &made, e);
        if (end == RUN_DONE && s->progress)
            fprintf(s->progress, "  seed %d: base of %lld steps, held-out loss %.4f, %.0f tokens/s\n", l.seed, (long long)s->base_steps, made.held_out,
                    made.tokens_per_second);
        if (end == RUN_DONE && !work_on_base(&l, folder, e)) end = run_interrupted() ? RUN_INTERRUPTED : RUN_FAILED;
        if (end == RUN_DONE) r->done = l.seed + 1;
    }
    close_lab(&l);
    return end;
}

void x_free(x_results *r)
{
    for (int b = 0; b < X_MAX_BLOCKS; b++) free(r->window_gap[b]), r->window_gap[b] = NULL;
}
