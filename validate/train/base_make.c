/* base_make.c: pretraining a small base (base_make.h). */
#include "base_make.h"

#include "hf_load.h"
#include "run.h"

static bool write_base(lm_model *m, const char *folder, ck_error *e)
{
    hf_memory memory = {.tensors = m->tensors, .tensor_count = m->tensor_count, .device = m->device};
    lm_source source = hf_memory_source(&memory);
    bool ok = hf_save(folder, &m->config, &source, &(hf_save_options){.dtype = FB_F32}, e);
    hf_memory_close(&memory);
    return ok;
}

static run_end train_base(const base_settings *s, lm_model *m, const text_corpus *text, const char *folder, run_result *result, ck_error *e)
{
    opt_config config = opt_default(&m->run->ctx, m->device);
    config.beta2 = 0.99f, config.weight_decay = 0.1f, config.max_norm = 1;
    optimizer *o = opt_new(&config, m->trainable, m->trainable_count, e);
    if (!o) return RUN_FAILED;
    train_loop loop;
    loop_settings settings = {.steps = s->steps, .accumulate = 1, .lr = s->lr, .schedule = LOOP_COSINE, .warmup = s->steps / 4 < 50 ? s->steps / 4 : 50,
                              .floor = 0.1, .seed = s->seed};
    run_settings run = {.name = "base", .progress = s->progress, .log = s->log, .eval_windows = 64, .peak = loop_measure_peak(m)};
    run_end end = RUN_FAILED;
    if (loop_init(&loop, &settings, m, o, text, e)) {
        end = run_train(&loop, &run, result, e);
        loop_free(&loop);
    }
    opt_free(o);
    return end == RUN_DONE && !write_base(m, folder, e) ? RUN_FAILED : end;
}

run_end base_make(const base_settings *s, const char *folder, run_result *result, ck_error *e)
{
    char why[DEVICE_TEXT];
    const char *path = s->text ? s->text : text_prose_path() ? text_prose_path() : text_default_path();
    lm_options o = {.backend = s->backend, .threads = s->threads, .trains = LM_TRAINS_ALL, .batch = s->batch, .seq = s->seq, .seed = s->seed};
    text_corpus text;
    if (!text_open(&text, path, s->seq, e)) return RUN_FAILED;
    run_end end = RUN_FAILED;
    device *d = loop_open_device(s->backend, why);
    lm_model *m = d ? lm_model_new(&s->config, &o, NULL, d, e) : (ck_fail(e, "device", NULL, "%s", why), NULL);
    if (m && s->progress)
        fprintf(s->progress, "making a base of %.2f M parameters from %s (%.1f MB, SHA-256 %.16s...)\n", (double)m->trainable_elements / 1e6, text.source,
                (double)text.bytes / 1e6, text.sha256);
    if (m) end = train_base(s, m, &text, folder, result, e);
    lm_model_free(m);
    if (d) d->close(d);
    text_close(&text);
    return end;
}
