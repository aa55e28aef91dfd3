/* test_train.c: the training loop on tiny models. Every operation of a step within its derived bound of the reference
 * (test_lockstep.c); the same bits on any number of threads, run again, resumed, or with activations computed again; memory
 * as predicted; what fails leaves the last checkpoint. */
#include "base_make.h"
#include "hf_load.h"
#include "random.h"
#include "run.h"
#include "test_lockstep.h"

#include <CUnit/Basic.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[256], text_path[300];
static ck_error why;

#define REQUIRE(call)                                                          \
    do {                                                                       \
        if (!(call)) {                                                         \
            fprintf(stderr, "\n    %s:%d: %s\n", __FILE__, __LINE__, why.message); \
            CU_FAIL(#call);                                                    \
            return;                                                            \
        }                                                                      \
    } while (0)

/* Words drawn from few, so that there is something to learn in a second. */
static bool make_text(void)
{
    static const char *const words[] = {"the ", "blocks ", "of a ", "matrix ", "are ", "quantized", ". ", "\n", "scale ", "and "};
    snprintf(folder, sizeof folder, "%s/fourbit-train-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) return false;
    snprintf(text_path, sizeof text_path, "%s/text", folder);
    FILE *f = fopen(text_path, "w");
    for (uint64_t i = 0; f && i < 8000; i++) fputs(words[lm_below(4, 0, i, 10)], f);
    return f && fclose(f) == 0;
}

static const lm_config tiny = {.vocab_size = 256, .hidden_size = 48, .intermediate_size = 80, .num_hidden_layers = 2, .num_attention_heads = 3,
                               .num_key_value_heads = 1, .head_dim = 16, .max_position_embeddings = 64, .rope_theta = 10000, .rms_norm_eps = 1e-5,
                               .tie_word_embeddings = true};

static lm_options options_of(lm_trains trains, lm_base base)
{
    bool adapters = trains == LM_TRAINS_ADAPTERS;
    return (lm_options){.backend = FB_BACKEND_CPU, .trains = trains, .base = base, .format = FB_NF4, .block_size = 64, .rank = adapters ? 4 : 0,
                        .alpha = 8, .dropout = adapters ? 0.2 : 0, .unfused = true, .batch = 3, .seq = 37, .seed = 5};
}

/* Weights large enough that attention is sharp and gates are open; B not 0. */
static bool read_large(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    (void)self, (void)e;
    uint64_t stream = 0;
    for (const char *c = t->name; *c; c++) stream = lm_mix(stream ^ (uint64_t)*c);
    for (int64_t i = 0; i < t->count; i++) dst[i] = t->rank == 1 ? (float)lm_uniform(9, stream, (uint64_t)i) + 0.5f : 0.15f * (float)lm_normal(9, stream, (uint64_t)i);
    return true;
}
static const lm_source large = {.file = "a test", .read = read_large};

static void fill_B(lm_model *m)
{
    for (int64_t k = 1; k < m->adapter_count; k += 2)
        for (int64_t i = 0; i < m->adapters[k].count; i++) m->adapters[k].data[i] = 0.1f * (float)lm_normal(11, (uint64_t)k, (uint64_t)i);
}

static void batch_of(const lm_options *o, int32_t *tokens, int32_t *targets)
{
    for (int64_t i = 0; i < o->batch * o->seq; i++) {
        tokens[i] = (int32_t)lm_below(1, 1, (uint64_t)i, 256);
        targets[i] = i % 11 == 5 ? -1 : (int32_t)lm_below(1, 2, (uint64_t)i, 256);
    }
}

/* One forward and backward pass; false: *loss is what came of it. */
static bool pass(lm_model *m, double *loss)
{
    int32_t tokens[3 * 37], targets[3 * 37];
    batch_of(&m->options, tokens, targets);
    m->dropout_step = 3;
    return lm_zero_gradients(m, &why) && lm_forward(m, tokens, targets, m->options.batch, m->options.seq, true, loss, &why) && lm_backward(m, 1, &why);
}

static float *all_gradients(const lm_model *m)
{
    float *g = malloc((size_t)m->trainable_elements * sizeof *g), *at = g;
    for (int64_t i = 0; i < m->trainable_count; at += m->trainable[i++]->count)
        memcpy(at, m->trainable[i]->grad, (size_t)m->trainable[i]->count * sizeof *g);
    return g;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]), s += (double)b[i] * (double)b[i];
    return sqrt(d / s);
}

static device *host(void)
{
    char text[DEVICE_TEXT];
    device *d = device_open("host", text);
    if (!d) abort();
    return d;
}

/* ---- each operation in a step --------------------------------------------------------------------------------------------- */

static bool lockstep_of(const lm_options *o, const lm_ops *ops, const char *const *expected, int64_t *bad)
{
    device *d = host();
    lm_model *m = lm_model_new(&tiny, o, &large, d, &why);
    double loss, norm;
    bool ok = m != NULL;
    if (ok) {
        fill_B(m);
        m->run->ops = lockstep_begin(ops);
        ok = pass(m, &loss) && lm_gradient_norm(m, &norm, &why) && isfinite(loss) && isfinite(norm);
    }
    *bad = 0;
    for (int i = 0; ok && i < LOCKSTEP_OPS; i++) {
        const lockstep_count *c = &lockstep_counts()[i];
        *bad += c->bad;
        for (int k = 0; expected && expected[k]; k++)
            if (strcmp(expected[k], c->name) == 0 && c->calls == 0) fprintf(stderr, "\n    %s was never called", c->name), ok = false;
        if (expected && c->calls) printf("\n    %-20s %4lld calls, %8lld elements, worst %.2f of its bound", c->name, (long long)c->calls, (long long)c->elements, c->worst);
    }
    lm_model_free(m);
    d->close(d);
    return ok;
}

static void test_lockstep(void)
{
    static const char *const base[] = {"product", "embed", "embed_backward", "rmsnorm", "rmsnorm_backward", "rope", "attention", "attention_backward",
                                       "swiglu", "swiglu_backward", "add", "cross_entropy", "square_sums", NULL},
                             *const adapters[] = {"drop", "add_kept", "add_row_sums", "product", NULL};
    int64_t bad;
    lm_options o = options_of(LM_TRAINS_ALL, LM_BASE_F32);
    REQUIRE(lockstep_of(&o, lm_cpu_ops(), base, &bad));
    CU_ASSERT_EQUAL(bad, 0);
    o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), o.normalize = true;
    REQUIRE(lockstep_of(&o, lm_cpu_ops(), adapters, &bad));
    CU_ASSERT_EQUAL(bad, 0);
}

/* The CPU's operations with one output of one in a thousand wrong by one part in a thousand. */
static void spoil(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 1000) x[i] *= 1.001f;
}
static fb_status bad_product(fb_context *ctx, bool ta, bool tb, int64_t m, int64_t n, int64_t k, double alpha, const float *a, const float *b, float *c, bool acc)
{
    fb_status status = lm_cpu_ops()->product(ctx, ta, tb, m, n, k, alpha, a, b, c, acc);
    return spoil(c, m * n), status;
}
static fb_status bad_attention(fb_context *ctx, const lm_attention *a, const float *q, const float *k, const float *v, float *out, float *log_sum)
{
    fb_status status = lm_cpu_ops()->attention(ctx, a, q, k, v, out, log_sum);
    return spoil(out, a->batch * a->seq * a->heads * a->head_dim), status;
}
static fb_status bad_swiglu(fb_context *ctx, const float *dout, const float *gate, const float *up, int64_t n, float *dgate, float *dup)
{
    fb_status status = lm_cpu_ops()->swiglu_backward(ctx, dout, gate, up, n, dgate, dup);
    return spoil(dup, n), status;
}
static fb_status bad_entropy(fb_context *ctx, float *logits, const int32_t *t, int64_t n, int64_t vocab, double scale, float *losses)
{
    fb_status status = lm_cpu_ops()->cross_entropy(ctx, logits, t, n, vocab, scale, losses);
    return logits[1] = NAN, status;
}

static void test_lockstep_sees(void)
{
    const lm_ops right = *lm_cpu_ops();
    lm_options o = options_of(LM_TRAINS_ALL, LM_BASE_F32);
    for (int i = 0; i < 4; i++) {
        lm_ops ops = right;
        int64_t bad = 0;
        if (i == 0) ops.product = bad_product;
        if (i == 1) ops.attention = bad_attention;
        if (i == 2) ops.swiglu_backward = bad_swiglu;
        if (i == 3) ops.cross_entropy = bad_entropy;
        (void)lockstep_of(&o, &ops, NULL, &bad);
        int64_t seen = 0;
        for (int k = 0; k < LOCKSTEP_OPS; k++) seen += lockstep_counts()[k].bad;
        CU_ASSERT(seen > 0);
    }
}

/* ---- ways that must agree -------------------------------------------------------------------------------------------------- */

/* loss and gradients of one pass under these options */
static float *gradients_of(const lm_options *o, const lm_source *source, double *loss, int64_t *n)
{
    device *d = host();
    lm_model *m = lm_model_new(&tiny, o, source, d, &why);
    float *g = NULL;
    if (m) {
        fill_B(m);
        if (pass(m, loss)) g = all_gradients(m), *n = m->trainable_elements;
    }
    lm_model_free(m);
    d->close(d);
    return g;
}

/* A model's decoded linear weights, as a dense source. */
typedef struct decoded {
    lm_model *from;
} decoded;
static bool read_decoded(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    lm_model *m = ((decoded *)self)->from;
    for (int64_t i = 0; i < m->linear_count; i++)
        if (strcmp(m->linears[i].weight->name, t->name) == 0) return lm_decode_weight(m, &m->linears[i], dst, e);
    return read_large(NULL, t, dst, e);
}

/* Library's LoRA calls, dense products around 4-bit ones, and a dense copy of the decoded base: one function, so losses and
 * gradients differ by rounding alone. 1e-5 relative is some 30 times what fp32 sums of these lengths are off by. */
static void test_paths(void)
{
    for (int normalize = 0; normalize < 2; normalize++) {
        lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), other = o, dense = o;
        double loss[4];
        int64_t n;
        o.normalize = other.normalize = normalize;
        other.unfused = false;
        dense.base = LM_BASE_F32;
        device *d = host();
        decoded from = {lm_model_new(&tiny, &o, &large, d, &why)};
        REQUIRE(from.from != NULL);
        lm_source source = {&from, "decoded", read_decoded, NULL};
        lm_options reference = o;
        reference.backend = FB_BACKEND_REFERENCE;
        float *g[4] = {gradients_of(&o, &large, &loss[0], &n), gradients_of(&other, &large, &loss[1], &n), gradients_of(&dense, &source, &loss[2], &n),
                       gradients_of(&reference, &large, &loss[3], &n)};
        for (int i = 1; i < 4; i++) {
            REQUIRE(g[0] && g[i]);
            double apart = distance(g[i], g[0], n);
            printf("\n    loss %.7f, %.7f; gradients apart by %.1e", loss[0], loss[i], apart);
            CU_ASSERT_DOUBLE_EQUAL(loss[i], loss[0], 1e-5);
            CU_ASSERT(apart <= 1e-5);
        }
        for (int i = 0; i < 4; i++) free(g[i]);
        lm_model_free(from.from);
        d->close(d);
    }
}

static void expect_same_gradients(const char *what, const lm_options *a, const lm_options *b)
{
    double la = 0, lb = 1;
    int64_t n = 0;
    float *ga = gradients_of(a, &large, &la, &n), *gb = gradients_of(b, &large, &lb, &n);
    bool same = ga && gb && la == lb && memcmp(ga, gb, (size_t)n * sizeof *ga) == 0;
    if (!same) printf("\n    %s: not the same bits (loss %.9f, %.9f)", what, la, lb);
    CU_ASSERT(same);
    free(ga), free(gb);
}

static void test_same_bits(void)
{
    const lm_options all = options_of(LM_TRAINS_ALL, LM_BASE_F32), bits = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    const lm_options kinds[] = {all, bits, options_of(LM_TRAINS_ADAPTERS, LM_BASE_BF16)};
    for (int k = 0; k < 3; k++) {
        lm_options one = kinds[k], again = one, many = one, recompute = one;
        one.threads = again.threads = 1;
        recompute.recompute = true;
        expect_same_gradients("run again", &one, &again);
        for (many.threads = 2; many.threads <= 5; many.threads++) expect_same_gradients("threads", &one, &many);
        expect_same_gradients("activations computed again", &one, &recompute);
    }
}

/* rsLoRA divides by sqrt(rank): at rank 4, LoRA with twice the alpha, to the bit. */
static void test_rslora(void)
{
    for (int fused = 0; fused < 2; fused++) {
        lm_options plain = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), rs = plain;
        plain.unfused = rs.unfused = !fused;
        rs.rslora = true, plain.alpha = 2 * rs.alpha;
        expect_same_gradients("rsLoRA", &rs, &plain);
    }
}

static void expect_memory(const char *what, const lm_options *o, const lm_config *c)
{
    device *d = host();
    lm_model *m = lm_model_new(c, o, NULL, d, &why);
    REQUIRE(m != NULL);
    lm_memory p = lm_predict_memory(c, o);
    const size_t *a = (const size_t *)&p, *b = (const size_t *)&m->memory;
    for (size_t i = 0; i < sizeof p / sizeof *a; i++) {
        if (a[i] != b[i]) printf("\n    %s: component %zu predicted %zu, measured %zu", what, i, a[i], b[i]);
        CU_ASSERT_EQUAL(a[i], b[i]);
    }
    lm_model_free(m);
    d->close(d);
}

static void test_memory(void)
{
    lm_config untied = tiny;
    untied.tie_word_embeddings = false, untied.num_key_value_heads = 3;
    lm_options o = options_of(LM_TRAINS_ALL, LM_BASE_F32);
    expect_memory("everything", &o, &tiny);
    expect_memory("everything, untied", &o, &untied);
    o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    expect_memory("4 bits", &o, &tiny);
    o.double_quant = o.recompute = true, o.unfused = false;
    expect_memory("4 bits, double quantization, recomputing, fused", &o, &untied);
    o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_BF16);
    expect_memory("bf16", &o, &untied);
    o = options_of(LM_TRAINS_NOTHING, LM_BASE_INT3), o.rank = 0;
    expect_memory("evaluation", &o, &tiny);
    o = options_of(LM_TRAINS_NOTHING, LM_BASE_F32);
    o.rank = 4;
    expect_memory("evaluation with adapters", &o, &tiny);
}

/* ---- runs ------------------------------------------------------------------------------------------------------------------ */

typedef struct bench {
    device *device;
    lm_model *model;
    optimizer *optimizer;
    text_corpus text;
    train_loop loop;
    bool ready;
} bench;

static bool bench_open(bench *b, const lm_options *o, int64_t steps, bool state8)
{
    *b = (bench){.device = host()};
    loop_settings s = {.steps = steps, .accumulate = 2, .lr = 3e-3, .schedule = LOOP_COSINE, .warmup = 2, .seed = 3};
    b->model = lm_model_new(&tiny, o, NULL, b->device, &why);
    if (!b->model) return false;
    opt_config c = opt_default(&b->model->run->ctx, b->device);
    c.state8 = state8;
    b->optimizer = opt_new(&c, b->model->trainable, b->model->trainable_count, &why);
    return b->optimizer && text_open(&b->text, text_path, o->seq, &why) && (b->ready = loop_init(&b->loop, &s, b->model, b->optimizer, &b->text, &why));
}

static void bench_close(bench *b)
{
    if (b->ready) loop_free(&b->loop), text_close(&b->text);
    opt_free(b->optimizer);
    lm_model_free(b->model);
    b->device->close(b->device);
}

static void path_in(char out[400], const char *name) { snprintf(out, 400, "%s/%s", folder, name); }

static bool same_parameters(const bench *a, const bench *b)
{
    for (int64_t i = 0; i < a->model->trainable_count; i++) {
        const lm_tensor *x = a->model->trainable[i], *y = b->model->trainable[i];
        if (memcmp(x->data, y->data, (size_t)x->count * sizeof *x->data)) return false;
    }
    return true;
}

/* 7 steps at once; and 3, a checkpoint, another process's memory, the rest on another number of threads. */
static void resume_with(bool state8)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), other = o;
    bench whole, first, rest;
    char state[400];
    run_result result, second;
    path_in(state, "state.safetensors");
    run_settings s = {.checkpoint = state, .identity = "this run", .checkpoint_every = 2, .eval_windows = 3};
    o.threads = 1, other.threads = 3;
    REQUIRE(bench_open(&whole, &o, 7, state8) && bench_open(&first, &o, 7, state8) && bench_open(&rest, &other, 7, state8));
    REQUIRE(run_train(&whole.loop, &(run_settings){.eval_windows = 3}, &result, &why) == RUN_DONE);
    s.stop_after = 3;
    REQUIRE(run_train(&first.loop, &s, &second, &why) == RUN_INTERRUPTED);
    CU_ASSERT(first.loop.step == 3 && !same_parameters(&whole, &first));
    s.stop_after = 0, s.resume = true;
    run_settings wrong = s;
    wrong.identity = "another run";
    CU_ASSERT(run_train(&rest.loop, &wrong, &second, &why) == RUN_FAILED && strstr(why.message, "run") != NULL);
    REQUIRE(run_train(&rest.loop, &s, &second, &why) == RUN_DONE);
    CU_ASSERT(second.steps == 4 && second.held_out == result.held_out && same_parameters(&whole, &rest));
    CU_ASSERT(rest.model->dropout_step == whole.model->dropout_step);
    bench_close(&whole), bench_close(&first), bench_close(&rest);
}
static void test_resume(void) { resume_with(false), resume_with(true); }

static bool file_bytes(const char *path, char *out, size_t size, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    *n = fread(out, 1, size, f);
    return fclose(f) == 0;
}

/* A loss that is NaN ends the run with its step, changes no parameter, and leaves the last checkpoint. */
static void test_nan(void)
{
    static char before[1 << 20], after[1 << 20];
    size_t n = 0, k = 1;
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    bench b, untouched;
    char state[400];
    run_result result;
    path_in(state, "nan.safetensors");
    run_settings s = {.checkpoint = state, .identity = "nan", .checkpoint_every = 1, .eval_windows = 1, .stop_after = 2};
    REQUIRE(bench_open(&b, &o, 9, false) && bench_open(&untouched, &o, 9, false));
    REQUIRE(run_train(&b.loop, &s, &result, &why) == RUN_INTERRUPTED && file_bytes(state, before, sizeof before, &n));
    REQUIRE(run_train(&untouched.loop, &(run_settings){.stop_after = 2, .eval_windows = 1}, &result, &why) == RUN_INTERRUPTED);
    b.model->tensors[0].data[(int)' ' * tiny.hidden_size] = NAN;
    s.stop_after = 0;
    CU_ASSERT(run_train(&b.loop, &s, &result, &why) == RUN_FAILED && strstr(why.message, "loss of step 3") != NULL);
    CU_ASSERT(file_bytes(state, after, sizeof after, &k) && n == k && memcmp(before, after, n) == 0);
    CU_ASSERT(same_parameters(&b, &untouched));
    bench_close(&b), bench_close(&untouched);
}

/* A base learns a text of ten words, is written and loaded again with the same loss; an adapter on it in 4 bits learns more. */
static void test_learning(void)
{
    char base[400];
    path_in(base, "base");
    base_settings make = {.config = tiny, .text = text_path, .steps = 60, .batch = 6, .seq = 37, .lr = 1e-2, .seed = 1, .backend = FB_BACKEND_CPU};
    run_result made, tuned;
    REQUIRE(base_make(&make, base, &made, &why) == RUN_DONE);
    hf_checkpoint c;
    REQUIRE(hf_open(&c, base, &why));
    lm_source source = hf_source(&c);
    lm_options o = options_of(LM_TRAINS_NOTHING, LM_BASE_F32);
    o.batch = 6;
    bench b = {.device = host()};
    text_corpus text;
    double loss = 0, bits = 0;
    REQUIRE(text_open(&text, text_path, o.seq, &why));
    REQUIRE((b.model = lm_model_new(&c.config, &o, &source, b.device, &why)) != NULL && loop_held_out(b.model, &text, 64, &loss, NULL, &why));
    CU_ASSERT(loss == made.held_out);
    CU_ASSERT(made.first_loss > 5 && loss < 2.2);
    lm_model_free(b.model);
    o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT), o.batch = 6, o.dropout = 0;
    REQUIRE((b.model = lm_model_new(&c.config, &o, &source, b.device, &why)) != NULL && loop_held_out(b.model, &text, 64, &bits, NULL, &why));
    opt_config oc = opt_default(&b.model->run->ctx, b.device);
    loop_settings s = {.steps = 40, .accumulate = 1, .lr = 5e-3, .seed = 2};
    b.optimizer = opt_new(&oc, b.model->trainable, b.model->trainable_count, &why);
    REQUIRE(b.optimizer && loop_init(&b.loop, &s, b.model, b.optimizer, &text, &why));
    REQUIRE(run_train(&b.loop, &(run_settings){.eval_windows = 64}, &tuned, &why) == RUN_DONE);
    printf("\n    base %.4f, in 4 bits %.4f, with its adapter %.4f", loss, bits, tuned.held_out);
    CU_ASSERT(tuned.held_out < bits - 0.05);
    int32_t prompt[] = {'t', 'h', 'e'}, one[20], two[20];
    CU_ASSERT(loop_sample(b.model, prompt, 3, 20, 0.8, 40, 1, one, &why) && loop_sample(b.model, prompt, 3, 20, 0.8, 40, 1, two, &why));
    CU_ASSERT(memcmp(one, two, sizeof one) == 0);
    CU_ASSERT(!loop_sample(b.model, prompt, 0, 20, 0.8, 40, 1, one, &why));
    loop_free(&b.loop), opt_free(b.optimizer), lm_model_free(b.model), b.device->close(b.device);
    text_close(&text), hf_close(&c);
}

/* At a rate of 0 nothing moves: an update over two micro-batches has the mean of their losses, its gradient is no longer than
 * theirs allow, and no batch comes twice. Held-out windows are taken from all of the text. */
static void test_micro_batches(void)
{
    lm_options o = options_of(LM_TRAINS_ADAPTERS, LM_BASE_4BIT);
    bench two, one;
    loop_report both[2], each[4];
    o.dropout = 0;
    REQUIRE(bench_open(&two, &o, 9, false) && bench_open(&one, &o, 9, false));
    two.loop.settings.lr = one.loop.settings.lr = 0;
    one.loop.settings.accumulate = 1;
    for (int i = 0; i < 2; i++) REQUIRE(loop_step(&two.loop, &both[i], &why));
    for (int i = 0; i < 4; i++) REQUIRE(loop_step(&one.loop, &each[i], &why));
    CU_ASSERT(each[1].loss != each[2].loss);
    for (int i = 0; i < 2; i++) {
        const loop_report *a = &each[2 * i], *b = &each[2 * i + 1];
        CU_ASSERT_DOUBLE_EQUAL(both[i].loss, (a->loss + b->loss) / 2, 1e-12);
        CU_ASSERT(both[i].norm > 0 && both[i].norm <= (a->norm + b->norm) / 2 * (1 + 1e-5));
    }
    int64_t all = loop_window_count(one.model, &one.text, 0);
    double *losses = calloc((size_t)all, sizeof *losses), few[2], mean;
    REQUIRE(losses && all > 4 && loop_held_out(one.model, &one.text, 0, &mean, losses, &why) && loop_held_out(one.model, &one.text, 2, &mean, few, &why));
    CU_ASSERT_DOUBLE_EQUAL(few[0], losses[0], 1e-5);
    CU_ASSERT_DOUBLE_EQUAL(few[1], losses[all / 2], 1e-5);
    CU_ASSERT(fabs(losses[1] - losses[all / 2]) > 1e-4); /* not by chance */
    free(losses);
    bench_close(&two), bench_close(&one);
}

static void test_schedules(void)
{
    loop_settings s = {.steps = 110, .lr = 2, .warmup = 10, .floor = 0.1};
    CU_ASSERT_DOUBLE_EQUAL(loop_rate(&s, 0), 0.2, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(loop_rate(&s, 9), 2, 1e-12);
    for (int k = 0; k < LOOP_SCHEDULE_COUNT; k++) {
        s.schedule = (loop_schedule)k;
        double end = k == LOOP_CONSTANT ? 2 : 0.2, middle = k == LOOP_CONSTANT ? 2 : 1.1;
        CU_ASSERT_DOUBLE_EQUAL(loop_rate(&s, 10), 2, 1e-12);
        CU_ASSERT_DOUBLE_EQUAL(loop_rate(&s, 109), end, 1e-12);
        CU_ASSERT_DOUBLE_EQUAL((loop_rate(&s, 59) + loop_rate(&s, 60)) / 2, middle, 1e-3);
    }
}

static void test_refusals(void)
{
    device *d = host();
    const struct { const char *word; lm_options o; lm_config c; } cases[] = {
        {"seq", {.batch = 1, .seq = 65, .trains = LM_TRAINS_ALL}, tiny}, {"rank", {.batch = 1, .seq = 8, .trains = LM_TRAINS_ADAPTERS}, tiny},
        {"dropout", {.batch = 1, .seq = 8, .trains = LM_TRAINS_ADAPTERS, .rank = 2, .dropout = 1}, tiny},
        {"block_size", {.batch = 1, .seq = 8, .base = LM_BASE_4BIT, .block_size = 48}, tiny},
        {"trains", {.batch = 1, .seq = 8, .trains = LM_TRAINS_ALL, .rank = 2}, tiny},
        {"head_dim", {.batch = 1, .seq = 8}, {.vocab_size = 9, .hidden_size = 9, .intermediate_size = 9, .num_hidden_layers = 1, .num_attention_heads = 1,
                                              .num_key_value_heads = 1, .head_dim = 9, .max_position_embeddings = 9, .rope_theta = 1, .rms_norm_eps = .1}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lm_model *m = lm_model_new(&cases[i].c, &cases[i].o, NULL, d, &why);
        if (m || !strstr(why.message, cases[i].word)) printf("\n    %s: %s", cases[i].word, m ? "accepted" : why.message);
        CU_ASSERT(!m && strstr(why.message, cases[i].word) != NULL);
        lm_model_free(m);
    }
    lm_options o = options_of(LM_TRAINS_ALL, LM_BASE_F32);
    lm_model *m = lm_model_new(&tiny, &o, NULL, d, &why);
    REQUIRE(m != NULL);
    int32_t bad[2] = {3, 256}, good[2] = {3, 4};
    double loss;
    CU_ASSERT(!lm_forward(m, bad, good, 1, 2, true, &loss, &why) && strstr(why.message, "token 1 is 256") != NULL);
    CU_ASSERT(!lm_forward(m, good, bad, 1, 2, true, &loss, &why) && strstr(why.message, "target 1 is 256") != NULL);
    CU_ASSERT(!lm_forward(m, good, good, 4, 37, true, &loss, &why));
    lm_model_free(m);
    d->close(d);
}

/* ---- the program ------------------------------------------------------------------------------------------------------------ */

static int run_program(const char *arguments)
{
    char line[2400];
    snprintf(line, sizeof line, "'%s' %s >'%s/out' 2>&1", TRAIN_PROGRAM, arguments, folder);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *words)
{
    static char text[1 << 16];
    char path[400];
    size_t n = 0;
    path_in(path, "out");
    if (!file_bytes(path, text, sizeof text - 1, &n)) return false;
    text[n] = '\0';
    bool found = strstr(text, words) != NULL;
    if (!found) printf("\n    \"%s\" is not in: %.400s", words, text);
    return found;
}

static void test_program(void)
{
    char line[1600];
    CU_ASSERT(run_program("--help") == 0 && said("--double-quant"));
    CU_ASSERT(run_program("--format nf5") == 2 && said("nf4"));
    CU_ASSERT(run_program("--block-size 48") == 2 && run_program("--steps -1") == 2 && run_program("extra") == 2 && run_program("--paged tape") == 2);
    CU_ASSERT(run_program("--threads 99999999999") == 2 && run_program("--threads 0") == 2);
    CU_ASSERT(run_program("--merge-4bit") == 2 && said("needs --merge"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/nothing' --text '%s'", folder, folder, text_path);
    CU_ASSERT(run_program(line) == 1 && said("config.json"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s/none'", folder, folder, folder);
    CU_ASSERT(run_program(line) == 1 && said("none"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s' --resume --steps 4 --batch 2 --seq 32", folder, folder, text_path);
    CU_ASSERT(run_program(line) == 1 && said("no checkpoint"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s' --steps 1 --batch 1 --seq 16 --merge '%s/base/'", folder, folder, text_path, folder);
    CU_ASSERT(run_program(line) == 1 && said("is the base, which --merge would replace"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s' --steps 1 --batch 1 --seq 16 --log '%s'", folder, folder, text_path, text_path);
    CU_ASSERT(run_program(line) == 1 && said("is the text, which --log would replace"));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s' --steps 4 --batch 2 --seq 32 --sample 8 --paged file:4m --merge '%s/merged'",
             folder, folder, text_path, folder);
    CU_ASSERT(run_program(line) == 0 && said("held-out loss after"));
    snprintf(line, sizeof line, "--backend cuda --out '%s/cuda' --base '%s/base' --text '%s' --steps 1 --batch 1 --seq 16 --sample 0", folder, folder, text_path);
    int status = run_program(line); /* where there is a GPU, it runs */
    CU_ASSERT(status == 0 || (status == 1 && said("CUDA")));
    snprintf(line, sizeof line, "--out '%s/run' --base '%s/base' --text '%s' --steps 4 --batch 2 --seq 32", folder, folder, text_path);
    char path[400];
    path_in(path, "base/tokenizer.model");
    FILE *f = fopen(path, "w");
    CU_ASSERT_FATAL(f != NULL && fclose(f) == 0);
    CU_ASSERT(run_program(line) == 1 && said("the text is bytes"));
    unlink(path);
    struct stat st;
    const char *const files[] = {"run/log.csv", "run/run.json", "run/state.safetensors", "run/adapter/adapter_model.safetensors",
                                 "run/adapter/adapter_config.json", "merged/model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_in(path, files[i]);
        CU_ASSERT(stat(path, &st) == 0 && st.st_size > 0);
    }
}

/* A base with a tokenizer.json is trained on its tokens, and takes it along when merged; one that knows fewer is refused. */
static void test_tokens(void)
{
    char base[400], path[400], line[1600];
    json_t *golden = json_load_file(TOKENIZER_GOLDEN, 0, NULL);
    CU_ASSERT_FATAL(golden != NULL);
    for (int64_t vocab = 599; vocab <= 600; vocab++) {
        base_settings make = {.config = tiny, .text = text_path, .steps = 2, .batch = 2, .seq = 37, .lr = 1e-2, .seed = 1, .backend = FB_BACKEND_CPU};
        run_result made;
        make.config.vocab_size = vocab;
        snprintf(base, sizeof base, "%s/tokens%lld", folder, (long long)vocab);
        REQUIRE(base_make(&make, base, &made, &why) == RUN_DONE);
        snprintf(path, sizeof path, "%.380s/tokenizer.json", base);
        CU_ASSERT_FATAL(json_dump_file(json_object_get(golden, "tokenizer"), path, 0) == 0);
        snprintf(line, sizeof line, "--out '%s/tokens' --base '%s' --text '%s' --steps 4 --batch 2 --seq 32 --sample 8 --prompt 'the blocks' --merge '%s/words'",
                 folder, base, text_path, folder);
        if (vocab < 600) CU_ASSERT(run_program(line) == 1 && said("its tokenizer has 600"));
    }
    CU_ASSERT(run_program(line) == 0 && said("tokenizer.json, 600 tokens") && said("the blocks >>> "));
    path_in(path, "words/tokenizer.json");
    json_t *copied = json_load_file(path, 0, NULL);
    CU_ASSERT(copied && json_equal(copied, json_object_get(golden, "tokenizer")));
    json_decref(copied), json_decref(golden);
}

static long lines_of(const char *path)
{
    char line[1600];
    long lines = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) lines++;
    if (f) fclose(f);
    return lines;
}

/* Ctrl-C ends a run with 130 and a checkpoint, from which the same command with --resume goes on. It comes once a few steps
 * are in the log, however long a busy machine takes for them. */
static void test_interrupt(void)
{
    char line[1600], path[400];
    path_in(path, "long/log.csv");
    for (int resumed = 0; resumed < 2; resumed++) {
        snprintf(line, sizeof line, "exec '%s' --out '%s/long' --base '%s/base' --text '%s' --steps 100000 --batch 1 --seq 16 --sample 0 --eval-every 0 "
                 "--eval-windows 1 %s > '%s/out' 2>&1", TRAIN_PROGRAM, folder, folder, text_path, resumed ? "--resume" : "", folder);
        long before = lines_of(path);
        int status = 0;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) execl("/bin/sh", "sh", "-c", line, (char *)NULL), _exit(127);
        CU_ASSERT_FATAL(child > 0);
        for (int i = 0; i < 6000 && lines_of(path) < before + 3 && waitpid(child, &status, WNOHANG) == 0; i++) usleep(10000);
        CU_ASSERT(kill(child, SIGINT) == 0 && waitpid(child, &status, 0) == child);
        CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 130 && said("stopped after step"));
    }
    FILE *f = fopen(path, "r");
    long long step = 0, before = 0, lines = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lld,", &step) != 1) continue;
        CU_ASSERT(step == before + 1);
        before = step, lines++;
    }
    if (f) fclose(f);
    CU_ASSERT(lines > 2); /* one log, no step twice, none left out */
}

int main(void)
{
    if (!make_text() || CU_initialize_registry() != CUE_SUCCESS) return 2;
    static const struct { const char *name; void (*run)(void); } tests[] = {
        {"each operation of a step within its bound", test_lockstep}, {"operations that are wrong are seen", test_lockstep_sees},
        {"fused, unfused, dense, reference", test_paths}, {"same bits: again, threads, recomputed", test_same_bits},
        {"rsLoRA", test_rslora}, {"memory as predicted", test_memory}, {"micro-batches, held-out windows", test_micro_batches}, {"resume", test_resume}, {"NaN", test_nan}, {"learning", test_learning},
        {"schedules", test_schedules}, {"refusals", test_refusals}, {"fourbit-train", test_program}, {"a base with a tokenizer", test_tokens}, {"Ctrl-C", test_interrupt}};
    CU_pSuite s = CU_add_suite("train", NULL, NULL);
    for (size_t i = 0; s && i < sizeof tests / sizeof *tests; i++)
        if (!CU_add_test(s, tests[i].name, tests[i].run)) return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures() + (CU_get_number_of_tests_run() == 0);
    CU_cleanup_registry();
    char line[400];
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    if (system(line)) return 2;
    return failed ? 1 : 0;
}
