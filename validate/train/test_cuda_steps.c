/* test_cuda_steps.c: training on the CUDA backend, in device memory; in the executor the host cannot touch it (test_cuda_device.h).
 * The same losses as the CPU's, the same bits in every order of threads, a checkpoint that goes on, results that leave.
 *
 * Losses. The first step's differs from the CPU's by the rounding of fp32 sums alone: test_train.c's 1e-5. After that an
 * element whose gradient is all rounding, some 1e-8 of gradients of order 0.1, may go either way by the whole learning rate,
 * as Adam divides by its size: that moves a loss by at most 2e-2 * 1e-8 for each of at most 24,000 elements, 5e-6. The limit
 * is 1e-4; a learning rate 5 % off must be beyond it. */
#include "test_cuda_steps.h"

#include "peft.h"
#include "random.h"
#include "run.h"
#include "run_train.h"
#include "test_cuda_device.h"

#include <CUnit/CUnit.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma weak gpu_runtime_cuda /* absent in the executor */

enum { STEPS = 3 };

static char folder[256];
static text_corpus text;
static ck_error why;

#define REQUIRE(call)                                                          \
    do {                                                                       \
        if (!(call)) {                                                         \
            fprintf(stderr, "\n    %s:%d: %s\n", __FILE__, __LINE__, why.message); \
            CU_FAIL(#call);                                                    \
            return;                                                            \
        }                                                                      \
    } while (0)

static const lm_config tiny = {.vocab_size = 256, .hidden_size = 32, .intermediate_size = 48, .num_hidden_layers = 2, .num_attention_heads = 2,
                               .num_key_value_heads = 1, .head_dim = 16, .max_position_embeddings = 32, .rope_theta = 10000, .rms_norm_eps = 1e-5,
                               .tie_word_embeddings = true};

static lm_options options_of(lm_trains trains, lm_base base)
{
    bool adapters = trains == LM_TRAINS_ADAPTERS;
    return (lm_options){.backend = FB_BACKEND_CUDA, .trains = trains, .base = base, .format = FB_NF4, .block_size = 64, .rank = adapters ? 4 : 0,
                        .alpha = 8, .dropout = adapters ? 0.2 : 0, .unfused = true, .batch = 2, .seq = 17, .seed = 5};
}

static void path_in(char out[400], const char *name) { snprintf(out, 400, "%s/%s", folder, name); }

bool test_steps_begin(void)
{
    char path[400];
    snprintf(folder, sizeof folder, "%s/fourbit-cuda-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) return false;
    path_in(path, "text");
    FILE *f = fopen(path, "w");
    for (uint64_t i = 0; f && i < 4000; i++) fputc("abcdefgh \n"[lm_below(4, 0, i, 10)], f);
    return f && fclose(f) == 0 && text_open(&text, path, 17, &why);
}

bool test_steps_end(void)
{
    char line[400];
    text_close(&text);
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    return system(line) == 0;
}

typedef struct side {
    device *device;
    lm_model *model;
    optimizer *optimizer;
    train_loop loop;
    bool ready;
    pager_kind paging;
    gpu_runtime runtime; /* of managed and pinned state */
} side;

/* ---- a runtime whose every call is done when it returns, on such a device (test_pager_gpu.c has one that is late) ---------- */

static void *managed;

static bool card_memory(void *d, size_t *free_bytes, size_t *total, char *no) { return (void)d, (void)no, *free_bytes = *total = (size_t)1 << 30, true; }
static bool card_concurrent(void *d, bool *can, char *no) { return (void)d, (void)no, *can = true; }
static void *card_alloc(void *d, size_t bytes, char *no) { return (void)no, ((device *)d)->alloc(d, bytes); }
static void *host_alloc(void *d, size_t bytes, char *no) { return (void)d, (void)no, aligned_alloc(PAGER_ALIGN, (bytes + PAGER_ALIGN - 1) / PAGER_ALIGN * PAGER_ALIGN); }
static void *managed_alloc(void *d, size_t bytes, char *no) { return managed = host_alloc(d, bytes, no); }
static void host_free(void *d, void *p) { (void)d, free(p); }
static void card_free(void *d, void *p)
{
    if (p == managed) managed = NULL, free(p);
    else ((device *)d)->release(d, p);
}
static void *handle_new(void *d, char *no) { return (void)no, d; }
static void handle_free(void *d, void *handle) { (void)d, (void)handle; }
static bool card_copy(void *self, void *to, const void *from, size_t bytes, bool to_device, void *stream, char *no)
{
    device *d = self;
    (void)stream, (void)no;
    return to_device ? d->upload(d, to, from, bytes) : d->download(d, to, from, bytes);
}
static bool card_prefetch(void *d, void *p, size_t bytes, bool to_device, void *stream, char *no)
{
    return (void)d, (void)p, (void)bytes, (void)to_device, (void)stream, (void)no, true;
}
static bool card_fill(void *d, void *p, int byte, size_t bytes, void *stream, char *no) { return (void)stream, (void)no, ((device *)d)->fill(d, p, byte, bytes); }
static bool nothing(void *d, void *a, void *b, char *no) { return (void)d, (void)a, (void)b, (void)no, true; }
static bool done(void *d, void *a, char *no) { return (void)d, (void)a, (void)no, true; }

static gpu_runtime runtime_of(device *d)
{
    return (gpu_runtime){.self = d, .memory = card_memory, .concurrent_managed = card_concurrent, .alloc_device = card_alloc, .alloc_pinned = host_alloc,
                         .alloc_managed = managed_alloc, .free_device = card_free, .free_pinned = host_free, .stream_new = handle_new,
                         .stream_free = handle_free, .event_new = handle_new, .event_free = handle_free, .copy = card_copy, .prefetch = card_prefetch,
                         .fill = card_fill, .record = nothing, .wait_event = nothing, .sync_stream = done, .sync_event = done};
}

/* ---- a training run --------------------------------------------------------------------------------------------------------- */

static bool side_open(side *s, const lm_options *o, bool state8, double lr)
{
    char no[DEVICE_TEXT];
    *s = (side){.paging = s->paging, .device = o->backend == FB_BACKEND_CUDA ? test_cuda_device() : device_open("host", no)};
    if (!s->device || !(s->model = lm_model_new(&tiny, o, NULL, s->device, &why))) return false;
    opt_config c = opt_default(&s->model->run->ctx, s->device);
    loop_settings settings = {.steps = STEPS, .accumulate = state8 ? 2 : 1, .lr = lr, .seed = 3};
    c.state8 = state8, c.weight_decay = 0.01f;
    s->runtime = runtime_of(s->device);
    c.pager.gpu = test_cuda_executes() || !gpu_runtime_cuda ? &s->runtime : gpu_runtime_cuda(no);
    c.pager.kind = s->paging, c.pager.stream = s->device->stream, c.pager.page_bytes = 4096, c.pager.budget = s->paging ? 3 * 4096 : 0;
    s->optimizer = opt_new(&c, s->model->trainable, s->model->trainable_count, &why);
    return s->optimizer && (s->ready = loop_init(&s->loop, &settings, s->model, s->optimizer, &text, &why));
}

static void side_close(side *s)
{
    if (s->ready) loop_free(&s->loop);
    opt_free(s->optimizer);
    lm_model_free(s->model);
    s->device->close(s->device);
}

/* Parameters as they are now, on the host; freed by the caller. */
static float *parameters(const side *s)
{
    const lm_model *m = s->model;
    float *all = malloc((size_t)m->trainable_elements * sizeof *all), *at = all;
    if (!all) abort();
    for (int64_t i = 0; i < m->trainable_count; at += m->trainable[i++]->count)
        if (!s->device->download(s->device, at, m->trainable[i]->data, (size_t)m->trainable[i]->count * sizeof *at)) abort();
    return all;
}

/* STEPS losses and norms, and the parameters at the end. */
static bool run_steps(const lm_options *o, bool state8, double lr, loop_report reports[STEPS], float **after, int64_t *count)
{
    side s = {.paging = PAGER_RESIDENT};
    bool ok = side_open(&s, o, state8, lr);
    for (int i = 0; ok && i < STEPS; i++) ok = loop_step(&s.loop, &reports[i], &why);
    if (ok && after) *after = parameters(&s), *count = s.model->trainable_elements;
    side_close(&s);
    return ok;
}

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

static double furthest(const loop_report a[STEPS], const loop_report b[STEPS], int from)
{
    double most = 0;
    for (int i = from; i < STEPS; i++) most = fmax(most, fabs(a[i].loss - b[i].loss));
    return most;
}

void test_steps_losses(void)
{
    static const struct { const char *name; lm_trains trains; lm_base base; fb_format format; bool dq, normalize, fused, recompute, state8; } kinds[] = {
        {"everything in fp32", LM_TRAINS_ALL, LM_BASE_F32, FB_NF4, false, false, false, false, false},
        {"nf4, doubly quantized, normalized", LM_TRAINS_ADAPTERS, LM_BASE_4BIT, FB_NF4, true, true, false, false, false},
        {"nf4, normalized, the library's LoRA", LM_TRAINS_ADAPTERS, LM_BASE_4BIT, FB_NF4, false, true, true, false, false},
        {"int4-affine, recomputed, 8-bit state", LM_TRAINS_ADAPTERS, LM_BASE_4BIT, FB_INT4_AFFINE, false, false, false, true, true}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        lm_options o = options_of(kinds[k].trains, kinds[k].base), cpu;
        loop_report gpu[STEPS], host[STEPS], other[STEPS];
        o.format = kinds[k].format, o.double_quant = kinds[k].dq, o.normalize = kinds[k].normalize, o.recompute = kinds[k].recompute, o.unfused = !kinds[k].fused;
        cpu = o, cpu.backend = FB_BACKEND_CPU;
        long before = test_cuda_launches();
        REQUIRE(run_steps(&o, kinds[k].state8, 1e-2, gpu, NULL, NULL));
        CU_ASSERT(!test_cuda_executes() || test_cuda_launches() > before + 100);
        REQUIRE(run_steps(&cpu, kinds[k].state8, 1e-2, host, NULL, NULL) && run_steps(&cpu, kinds[k].state8, 1.05e-2, other, NULL, NULL));
        double first = fabs(gpu[0].loss - host[0].loss), later = furthest(gpu, host, 1), control = furthest(other, host, 1);
        printf("\n    %s: loss %.6f to %.6f; from the CPU's by %.1e, later %.1e; a rate of 5 %% more: %.1e", kinds[k].name, gpu[0].loss,
               gpu[STEPS - 1].loss, first, later, control);
        CU_ASSERT(first <= 1e-5 && later <= 1e-4 && control > 1e-4);
        CU_ASSERT_DOUBLE_EQUAL(gpu[0].norm / host[0].norm, 1, 1e-4);
    }
}

/* The order of threads changes no bit. */
void test_steps_orders(void)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    loop_report first[STEPS], again[STEPS];
    float *want, *got;
    int64_t n;
    REQUIRE(run_steps(&o, false, 1e-2, first, &want, &n));
    for (unsigned order = 1; order <= 3; order++) { /* reverse, round robin, shuffled */
        test_cuda_order(order);
        REQUIRE(run_steps(&o, false, 1e-2, again, &got, &n));
        CU_ASSERT(furthest(first, again, 0) == 0 && memcmp(want, got, (size_t)n * sizeof *got) == 0);
        free(got);
    }
    free(want);
    test_cuda_order(9);
}

/* Interrupted after a step, gone on from the checkpoint: the same bits. */
void test_steps_resume(void)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    side whole = {0}, first = {0}, rest = {0};
    char state[400];
    run_result result, second;
    path_in(state, "state.safetensors");
    run_settings s = {.checkpoint = state, .identity = "on cuda", .checkpoint_every = 1, .eval_windows = 2, .stop_after = 1};
    REQUIRE(side_open(&whole, &o, true, 1e-2) && side_open(&first, &o, true, 1e-2) && side_open(&rest, &o, true, 1e-2));
    REQUIRE(run_train(&whole.loop, &(run_settings){.eval_windows = 2}, &result, &why) == RUN_DONE);
    REQUIRE(run_train(&first.loop, &s, &second, &why) == RUN_INTERRUPTED);
    s.stop_after = 0, s.resume = true;
    REQUIRE(run_train(&rest.loop, &s, &second, &why) == RUN_DONE);
    float *a = parameters(&whole), *b = parameters(&first), *c = parameters(&rest);
    size_t bytes = (size_t)whole.model->trainable_elements * sizeof *a;
    CU_ASSERT(second.steps == STEPS - 1 && second.held_out == result.held_out && memcmp(a, c, bytes) == 0 && memcmp(a, b, bytes) != 0);
    free(a), free(b), free(c);
    side_close(&whole), side_close(&first), side_close(&rest);
}

/* State in pinned or managed memory, of which the device holds three pages: the same bits as where all is resident. */
void test_steps_paged(void)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    loop_report want, report;
    side all = {.paging = PAGER_RESIDENT};
    REQUIRE(side_open(&all, &o, false, 1e-2) && loop_step(&all.loop, &want, &why) && loop_step(&all.loop, &want, &why));
    float *a = parameters(&all);
    for (pager_kind kind = PAGER_MANAGED; kind <= PAGER_PINNED; kind++) {
        side s = {.paging = kind};
        REQUIRE(side_open(&s, &o, false, 1e-2) && loop_step(&s.loop, &report, &why) && loop_step(&s.loop, &report, &why));
        pager_counters c = pager_count(opt_pager(s.optimizer));
        float *b = parameters(&s);
        CU_ASSERT(report.loss == want.loss && memcmp(a, b, (size_t)s.model->trainable_elements * sizeof *a) == 0);
        printf("\n    %s: %zu bytes of state, %zu on the device; %llu in, %llu out", pager_kind_name(kind), c.total_bytes, c.peak_bytes,
               (unsigned long long)c.bytes_in, (unsigned long long)c.bytes_out);
        CU_ASSERT(c.bytes_in > c.total_bytes && c.bytes_out > c.total_bytes && c.total_bytes >= 2 * c.peak_bytes);
        free(b);
        side_close(&s);
    }
    free(a);
    side_close(&all);
}

/* What leaves the device after training: a sample, a decoded weight, the adapter's file. */
void test_steps_results(void)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), plain = o;
    loop_report report;
    side s = {0}, host = {0};
    char path[400];
    plain.backend = FB_BACKEND_CPU;
    REQUIRE(side_open(&s, &o, false, 1e-2) && side_open(&host, &plain, false, 1e-2) && loop_step(&s.loop, &report, &why));
    int32_t prompt[] = {'a', 'b'}, out[3];
    CU_ASSERT(loop_sample(s.model, prompt, 2, 3, 0.8, 40, 1, out, &why) && out[0] >= 0 && out[0] < 256);
    const lm_linear *l = &s.model->linears[3];
    size_t n = (size_t)l->weight->count;
    float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    REQUIRE(a && b && lm_decode_weight(s.model, l, a, &why) && lm_decode_weight(host.model, &host.model->linears[3], b, &why));
    CU_ASSERT(memcmp(a, b, n * sizeof *a) == 0);
    free(a), free(b);
    path_in(path, "adapter");
    const peft_config peft = {.r = 4, .lora_alpha = 8};
    REQUIRE(peft_save(path, &peft, s.model->adapters, s.model->adapter_count, s.device, FB_F32, &why));
    REQUIRE(peft_load(path, host.model->adapters, host.model->adapter_count, host.device, &why));
    float *x = parameters(&s), *y = parameters(&host);
    CU_ASSERT(memcmp(x, y, (size_t)s.model->trainable_elements * sizeof *x) == 0);
    free(x), free(y);
    side_close(&s), side_close(&host);
}

/* What the other tests rely on: the host that reads device memory is ended by SIGSEGV. */
void test_steps_guard(void)
{
    device *d = test_cuda_device();
    volatile float *x = d->alloc(d, 64);
    float there = 0;
    const float one = 1;
    CU_ASSERT_FATAL(x && d->upload(d, (float *)(uintptr_t)x, &one, sizeof one));
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        there = *x;
        _exit(there == 1 ? 0 : 1);
    }
    int status;
    CU_ASSERT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    CU_ASSERT(d->download(d, &there, (const float *)(uintptr_t)x, sizeof there) && there == 1);
    d->release(d, (float *)(uintptr_t)x);
    d->close(d);
}
