/* train_main.c: fourbit-train (cli.c has its --help): base, text, model, run, results. */
#include "base_make.h"
#include "cli.h"
#include "peft.h"
#include "report.h"
#include "run.h"
#include "train_checkpoint.h"

#include "validate/checkpoint/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#pragma weak gpu_runtime_cuda /* absent in a build without nvcc */

enum { PATH_SIZE = 4096, PROMPT = 64 };

/* All that a run opens, in the order in which it is opened. */
typedef struct session {
    train_cli cli;
    char base[PATH_SIZE], base_sha256[TEXT_SHA256], identity[RUN_IDENTITY];
    tokenizer *tokenizer; /* NULL: bytes */
    text_corpus text;
    hf_checkpoint checkpoint;
    lm_source source;
    device *device;
    lm_model *model;
    optimizer *optimizer;
    train_loop loop;
    bool has_text, has_checkpoint, has_loop;
    int32_t prompt[PROMPT];
    int64_t prompt_count;
    train_report report;
} session;

static bool join(char out[PATH_SIZE], const char *folder, const char *name, ck_error *e)
{
    int n = snprintf(out, PATH_SIZE, "%s/%s", folder, name);
    return (n > 0 && n < PATH_SIZE) || ck_fail(e, name, NULL, "the folder's name is too long");
}

static bool make_folder(const char *path, ck_error *e)
{
    char part[PATH_SIZE];
    if (strlen(path) >= sizeof part) return ck_fail(e, path, NULL, "the name is too long");
    for (size_t i = 1; i <= strlen(path); i++) {
        if (path[i] != '/' && path[i]) continue;
        memcpy(part, path, i), part[i] = '\0';
        if (mkdir(part, 0777) && errno != EEXIST) return ck_fail(e, part, NULL, "%s", strerror(errno));
    }
    return true;
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------------------------------------- */

/* The first asks the run to stop after its step; the second ends the process as it always would. */
static void on_signal(int number)
{
    run_interrupt();
    signal(number, SIG_DFL);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- what is opened ------------------------------------------------------------------------------------------------------- */

/* The bytes of the folder's config.json and safetensors files, in the order of their names. */
static bool hash_folder(const char *folder, char hex[TEXT_SHA256], ck_error *e)
{
    struct dirent **names;
    int count = scandir(folder, &names, NULL, alphasort);
    if (count < 0) return ck_fail(e, folder, NULL, "%s", strerror(errno));
    sha256 hash;
    bool ok = true;
    unsigned char *bytes = malloc(1 << 20);
    if (!bytes) ok = ck_fail(e, folder, NULL, "no memory to read it");
    sha256_start(&hash);
    for (int i = 0; i < count; i++) {
        const char *end = strrchr(names[i]->d_name, '.');
        char path[PATH_SIZE];
        if (ok && end && (strcmp(end, ".json") == 0 || strcmp(end, ".safetensors") == 0) && (ok = join(path, folder, names[i]->d_name, e))) {
            FILE *f = fopen(path, "rb");
            size_t n;
            if (!f) ok = ck_fail(e, path, NULL, "%s", strerror(errno));
            while (f && (n = fread(bytes, 1, 1 << 20, f)) > 0) sha256_add(&hash, bytes, n);
            if (f) fclose(f);
        }
        free(names[i]);
    }
    free(names), free(bytes);
    sha256_finish(&hash, hex);
    return ok;
}

static run_end find_base(session *s, ck_error *e)
{
    const train_cli *c = &s->cli;
    char config[PATH_SIZE];
    if (c->base) return snprintf(s->base, sizeof s->base, "%.*s", PATH_SIZE - 1, c->base), RUN_DONE;
    if (!join(s->base, c->out, "base", e) || !join(config, s->base, "config.json", e)) return RUN_FAILED;
    if (access(config, R_OK) == 0) return printf("base: %s, made earlier\n", s->base), RUN_DONE;
    char log[PATH_SIZE];
    base_settings make = {.config = c->made, .text = c->base_text, .steps = c->base_steps, .batch = c->model.batch, .seq = c->model.seq,
                          .lr = c->base_lr, .seed = c->model.seed, .backend = c->model.backend, .threads = c->model.threads, .progress = stdout};
    if (!join(log, c->out, "base.csv", e)) return RUN_FAILED;
    make.log = log;
    run_result result;
    return base_make(&make, s->base, &result, e);
}

/* What makes two runs the same. A checkpoint of another is refused with both spelled out. */
static void identify(session *s)
{
    const train_cli *c = &s->cli;
    const lm_options *m = &c->model;
    const char *format = m->base == LM_BASE_4BIT ? fb_format_name(m->format) : m->base == LM_BASE_INT3 ? "int3" : m->base == LM_BASE_BF16 ? "bf16" : "fp32";
    snprintf(s->identity, sizeof s->identity,
             "base %.16s text %.16s backend %s format %s block %d dq %d normalize %d rank %lld alpha %.9g rslora %d dropout %.9g batch %lld seq %lld "
             "accumulate %lld steps %lld lr %.17g schedule %s warmup %lld clip %.9g decay %.9g beta2 %.9g optimizer %s recompute %d seed %llu",
             s->base_sha256, s->text.sha256, s->model->run->ops->name, format, m->block_size, m->double_quant, m->normalize, (long long)m->rank, m->alpha,
             m->rslora, m->dropout, (long long)m->batch, (long long)m->seq, (long long)c->loop.accumulate, (long long)c->loop.steps, c->loop.lr,
             loop_schedule_names[c->loop.schedule], (long long)c->loop.warmup, c->clip, c->weight_decay, c->beta2, c->state8 ? "adamw8" : "adamw32",
             m->recompute, (unsigned long long)m->seed);
}

static bool open_optimizer(session *s, ck_error *e)
{
    const train_cli *c = &s->cli;
    opt_config config = opt_default(&s->model->run->ctx, s->device);
    char why[GPU_WHY] = "this program was built without CUDA (no nvcc)";
    config.state8 = c->state8;
    config.beta2 = (float)c->beta2, config.weight_decay = (float)c->weight_decay, config.max_norm = c->clip;
    config.pager = (pager_config){.kind = c->paging, .budget = c->paging_budget, .device = s->device, .stream = s->device->stream};
    if (c->paging == PAGER_MANAGED || c->paging == PAGER_PINNED) {
        if (gpu_runtime_cuda) config.pager.gpu = gpu_runtime_cuda(why);
        if (!config.pager.gpu) return ck_fail(e, "--paged", NULL, "%s needs a GPU: %s", pager_kind_name(c->paging), why);
    }
    s->optimizer = opt_new(&config, s->model->trainable, s->model->trainable_count, e);
    return s->optimizer != NULL;
}

/* By the tokenizer of the base, where it has one. */
static bool open_text(session *s, ck_error *e)
{
    const train_cli *c = &s->cli;
    char path[PATH_SIZE];
    if (!join(path, s->base, "tokenizer.json", e)) return false;
    if (access(path, F_OK) == 0 && !(s->tokenizer = tokenizer_open(path, e))) return false;
    if (!text_open_tokens(&s->text, c->text ? c->text : text_default_path(), s->tokenizer, c->model.seq, e)) return false;
    s->has_text = true;
    printf("text: %s, %d files, %.0f KB, SHA-256 %s\n", s->text.source, s->text.files, (double)s->text.bytes / 1e3, s->text.sha256);
    if (s->tokenizer) printf("tokenizer: %s, %d tokens; %lld of the text\n", path, tokenizer_size(s->tokenizer),
                             (long long)(s->text.train_count + s->text.held_out_count));
    return true;
}

static bool open_all(session *s, ck_error *e)
{
    const train_cli *c = &s->cli;
    char why[DEVICE_TEXT];
    if (!open_text(s, e)) return false;
    if (!hf_open(&s->checkpoint, s->base, e)) return false;
    s->has_checkpoint = true;
    if (!text_fits(&s->text, s->base, s->checkpoint.config.vocab_size, e)) return false;
    if (!hash_folder(s->base, s->base_sha256, e)) return false;
    printf("base: %s, SHA-256 %.16s...\n", s->base, s->base_sha256);
    s->source = hf_source(&s->checkpoint);
    s->device = loop_open_device(c->model.backend, why);
    if (!s->device) return ck_fail(e, "device", NULL, "%s", why);
    s->model = lm_model_new(&s->checkpoint.config, &c->model, &s->source, s->device, e);
    if (!s->model || !open_optimizer(s, e) || !loop_init(&s->loop, &c->loop, s->model, s->optimizer, &s->text, e)) return false;
    s->has_loop = true;
    identify(s);
    return true;
}

static void close_all(session *s)
{
    if (s->has_loop) loop_free(&s->loop);
    opt_free(s->optimizer);
    lm_model_free(s->model);
    if (s->device) s->device->close(s->device);
    if (s->has_checkpoint) hf_close(&s->checkpoint);
    if (s->has_text) text_close(&s->text);
    tokenizer_close(s->tokenizer);
}

/* ---- what is shown and kept ---------------------------------------------------------------------------------------------- */

static bool choose_prompt(session *s, ck_error *e)
{
    const char *given = s->cli.prompt;
    int32_t *tokens = NULL;
    int64_t n = given ? (int64_t)strlen(given) : s->text.held_out_count;
    if (given && s->tokenizer && !tokenizer_encode(s->tokenizer, "--prompt", given, (size_t)n, &tokens, &n, e)) return false;
    s->prompt_count = n < PROMPT ? n : PROMPT;
    for (int64_t i = 0; i < s->prompt_count; i++) s->prompt[i] = tokens ? tokens[i] : given ? (unsigned char)given[i] : s->text.held_out[i];
    free(tokens);
    return true;
}

static bool show_sample(session *s, const char *title, ck_error *e)
{
    int64_t n = s->cli.sample;
    int32_t *out = malloc((size_t)(n + 1) * sizeof *out);
    if (!out) return ck_fail(e, "sample", NULL, "no memory");
    bool ok = n == 0 || loop_sample(s->model, s->prompt, s->prompt_count, n, s->cli.temperature, s->cli.top, s->cli.model.seed, out, e);
    if (ok && n) report_text(stdout, title, s->tokenizer, s->prompt, s->prompt_count, out, n);
    free(out);
    return ok;
}

/* What a model needs beside its weights to be used. */
static bool copy_tokenizer(const char *from_folder, const char *to_folder, ck_error *e)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"};
    static char piece[1 << 16];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char from[PATH_SIZE], to[PATH_SIZE];
        if (!join(from, from_folder, names[i], e) || !join(to, to_folder, names[i], e)) return false;
        FILE *f = fopen(from, "rb");
        if (!f && errno == ENOENT) continue;
        if (!f) return ck_fail(e, from, NULL, "%s", strerror(errno));
        af_file out;
        bool ok = af_create(&out, to, e);
        uint64_t at = 0;
        for (size_t n; ok && (n = fread(piece, 1, sizeof piece, f)) > 0; at += n) ok = af_write(&out, piece, n, at, e);
        if (ok && ferror(f)) ok = ck_fail(e, from, NULL, "cannot be read: %s", strerror(errno));
        fclose(f);
        if (ok) ok = af_commit(&out, at, e);
        else af_abort(&out);
        if (!ok) return false;
    }
    return true;
}

static double lora_scaling(const train_cli *c) { return c->model.alpha / (c->model.rslora ? sqrt((double)c->model.rank) : (double)c->model.rank); }

static bool export_results(session *s, ck_error *e)
{
    const train_cli *c = &s->cli;
    char folder[PATH_SIZE];
    if (!join(folder, c->out, "adapter", e)) return false;
    const char *to = c->export_to ? c->export_to : folder;
    peft_config peft = {.r = c->model.rank, .lora_alpha = c->model.alpha, .lora_dropout = c->model.dropout, .use_rslora = c->model.rslora};
    snprintf(peft.base_model, sizeof peft.base_model, "%.*s", PEFT_PATH - 1, s->base);
    if (!peft_save(to, &peft, s->model->adapters, s->model->adapter_count, s->device, FB_F32, e)) return false;
    printf("adapter: %s\n", to);
    if (!c->merge_to) return true;
    peft_merged merged = {.base = &s->source, .adapters = s->model->adapters, .count = s->model->adapter_count, .scaling = lora_scaling(c), .device = s->device};
    lm_source source = peft_merged_source(&merged);
    hf_save_options save = {.dtype = FB_BF16, .quantize = c->merge_4bit, .format = c->model.format, .block_size = c->model.block_size,
                            .double_quant = c->model.double_quant};
    fb_context_init(&save.context, FB_BACKEND_CPU);
    if (!hf_save(c->merge_to, &s->checkpoint.config, &source, &save, e) || !copy_tokenizer(s->base, c->merge_to, e)) return false;
    printf("merged: %s, %s\n", c->merge_to, c->merge_4bit ? fb_format_name(c->model.format) : "bf16");
    return true;
}

static bool same_place(const char *a, const char *b)
{
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool prepare(session *s, char checkpoint[PATH_SIZE], char log[PATH_SIZE], run_settings *run, ck_error *e)
{
    const train_cli *c = &s->cli;
    if (!join(checkpoint, c->out, "state.safetensors", e) || !join(log, c->out, "log.csv", e)) return false;
    if (same_place(c->merge_to, s->base)) return ck_fail(e, c->merge_to, NULL, "is the base, which --merge would replace; give another folder");
    if (same_place(c->log, s->text.source)) return ck_fail(e, c->log, NULL, "is the text, which --log would replace; give another file");
    *run = (run_settings){.name = "step", .progress = stdout, .log = c->log ? c->log : log, .checkpoint = checkpoint, .identity = s->identity,
                          .checkpoint_every = c->checkpoint_every, .eval_every = c->eval_every, .eval_windows = c->eval_windows, .resume = c->resume,
                          .peak = loop_measure_peak(s->model)};
    if (c->resume && access(checkpoint, R_OK)) return ck_fail(e, checkpoint, NULL, "there is no checkpoint to resume from");
    const fb_matrix *w = &s->model->linears[0].quant;
    fb_matrix_sizes sizes = {.bits_per_weight = 32};
    if (w->codes) fb_matrix_get_sizes(w, &sizes);
    printf("model: %lld layers of %lld, %.2f bits a linear weight, %.3f M adapter parameters, on %s %s", (long long)s->model->config.num_hidden_layers,
           (long long)s->model->config.hidden_size, sizes.bits_per_weight, (double)s->model->trainable_elements / 1e6, s->model->run->ops->name,
           fb_backend_variant(c->model.backend));
    if (run->peak > 0) printf(", whose dense products reach %.0f GFLOP/s now", run->peak / 1e9);
    printf("\n");
    report_memory(stdout, s->model, s->optimizer);
    return choose_prompt(s, e);
}

static run_end fine_tune(session *s, ck_error *e)
{
    char checkpoint[PATH_SIZE], log[PATH_SIZE], summary[PATH_SIZE];
    run_settings run;
    double before;
    if (!prepare(s, checkpoint, log, &run, e) || !join(summary, s->cli.out, "run.json", e)) return RUN_FAILED;
    if (!loop_held_out(s->model, &s->text, s->cli.eval_windows, &before, NULL, e)) return RUN_FAILED;
    printf("held-out loss before: %.4f\n", before);
    if (!show_sample(s, "text before:", e)) return RUN_FAILED;
    train_report report = {.cli = &s->cli, .model = s->model, .optimizer = s->optimizer, .text = &s->text, .base = s->base,
                           .base_sha256 = s->base_sha256, .identity = s->identity, .peak = run.peak, .before = before};
    run_end end = run_train(&s->loop, &run, &report.result, e);
    if (end == RUN_INTERRUPTED) printf("\nstopped after step %lld; --resume goes on from %s\n", (long long)s->loop.step, checkpoint);
    if (end != RUN_DONE) return end;
    report.after = report.result.held_out;
    printf("held-out loss after: %.4f (before %.4f)", report.after, before);
    if (report.result.steps)
        printf("; %.0f tokens/s, a step %.1f ms, %.0f %% of peak", report.result.tokens_per_second, report.result.median_seconds * 1e3,
               100 * report.result.share_of_peak);
    printf("\n");
    if (!show_sample(s, "text after:", e) || !export_results(s, e) || !report_save(summary, &report, e)) return RUN_FAILED;
    printf("log: %s, summary: %s\n", run.log, summary);
    return RUN_DONE;
}

int main(int argc, char **argv)
{
    static session s;
    ck_error e = {.byte = -1};
    int parsed = cli_parse(&s.cli, argc, argv);
    if (parsed) return parsed == 1 ? 0 : 2;
    catch_signals();
    run_end end = make_folder(s.cli.out, &e) ? find_base(&s, &e) : RUN_FAILED;
    if (end == RUN_DONE) end = open_all(&s, &e) ? fine_tune(&s, &e) : RUN_FAILED;
    if (end == RUN_FAILED) fprintf(stderr, "fourbit-train: %s\n", e.message);
    close_all(&s);
    return end == RUN_DONE ? 0 : end == RUN_INTERRUPTED ? 130 : 1;
}
