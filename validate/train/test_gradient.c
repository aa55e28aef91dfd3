/* test_gradient.c: every element of every gradient against a difference quotient, in double: this program compiles the model
 * and the reference operations with LM_DOUBLE. The five-point quotient of step h errs by h^4 f'''''/30 + 1.5 * 2^-53 f/h:
 * some 1e-12 at h = 3e-4, for f and derivatives of order 1. LIMIT is 1e-7 of the tensor's largest gradient, and a gradient
 * that is wrong by one thousandth is seen to be red. */
#include "run.h"

#include "random.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

static const double step = 3e-4, LIMIT = 1e-7;

static const lm_config small = {.vocab_size = 11, .hidden_size = 8, .intermediate_size = 12, .num_hidden_layers = 2, .num_attention_heads = 4,
                                .num_key_value_heads = 2, .head_dim = 4, .max_position_embeddings = 8, .rope_theta = 100, .rms_norm_eps = 1e-5};
enum { BATCH = 2, SEQ = 5 };
static const int32_t tokens[BATCH * SEQ] = {1, 4, 1, 10, 3, 7, 7, 0, 2, 9}, targets[BATCH * SEQ] = {4, 1, 10, 3, -1, 7, 0, 2, 9, 5};

/* Large enough that no part of the network is nearly linear, and B is not 0. */
static void randomize(lm_tensor *list, int64_t count, uint64_t seed)
{
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < list[k].count; i++) list[k].data[i] = (list[k].rank == 1) + 0.6 * (2 * lm_uniform(seed, (uint64_t)k, (uint64_t)i) - 1);
}

static lm_model *make(const lm_config *c, lm_trains trains, double dropout, bool recompute, bool rslora, device *d)
{
    ck_error e;
    lm_options o = {.backend = FB_BACKEND_REFERENCE, .trains = trains, .rank = trains == LM_TRAINS_ALL ? 0 : 3, .alpha = 5, .dropout = dropout,
                    .recompute = recompute, .rslora = rslora, .batch = BATCH, .seq = SEQ, .seed = 1};
    lm_model *m = lm_model_new(c, &o, NULL, d, &e);
    if (!m) {
        fprintf(stderr, "%s\n", e.message);
        exit(2);
    }
    randomize(m->tensors, m->tensor_count, 2);
    randomize(m->adapters, m->adapter_count, 3);
    return m;
}

static double loss_of(lm_model *m)
{
    ck_error e;
    double loss = NAN;
    m->dropout_step = 7; /* the same elements are dropped each time */
    if (!lm_forward(m, tokens, targets, BATCH, SEQ, true, &loss, &e)) fprintf(stderr, "%s\n", e.message);
    return loss;
}

/* (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h */
static double quotient(lm_model *m, lm_real *x)
{
    double at = *x, sum = 0;
    const double weights[4] = {8, -8, -1, 1}, places[4] = {1, -1, 2, -2};
    for (int i = 0; i < 4; i++) *x = at + places[i] * step, sum += weights[i] * loss_of(m);
    *x = at;
    return sum / (12 * step);
}

static bool gradients(lm_model *m, double scale)
{
    ck_error e;
    bool ok = lm_zero_gradients(m, &e) && isfinite(loss_of(m)) && lm_backward(m, scale, &e);
    if (!ok) fprintf(stderr, "%s\n", e.message);
    return ok;
}

/* The largest deviation of a gradient from its difference, over the tensor's largest gradient: for the worst tensor. */
static double worst_deviation(lm_model *m, char where[LM_NAME])
{
    double worst = 0;
    if (!gradients(m, 1)) return INFINITY;
    for (int64_t k = 0; k < m->trainable_count; k++) {
        lm_tensor *t = m->trainable[k];
        double largest = 0, most = 0;
        for (int64_t i = 0; i < t->count; i++) {
            double difference = quotient(m, &t->data[i]), miss = fabs(t->grad[i] - difference);
            if (!(miss <= most)) most = miss;
            if (fabs(difference) > largest) largest = fabs(difference);
        }
        double relative = most / largest;
        if (!(relative <= worst)) worst = relative, memcpy(where, t->name, LM_NAME);
    }
    return worst;
}

static void expect_right(const char *what, const lm_config *c, lm_trains trains, double dropout, bool recompute, bool rslora)
{
    char why[DEVICE_TEXT], where[LM_NAME] = "";
    device *d = device_open("host", why);
    lm_model *m = make(c, trains, dropout, recompute, rslora, d);
    double worst = worst_deviation(m, where);
    printf("\n    %-40s %4lld elements, worst %.1e of the largest (%s)", what, (long long)m->trainable_elements, worst, where);
    CU_ASSERT(worst <= LIMIT);
    lm_model_free(m);
    d->close(d);
}

static void test_all_tensors(void)
{
    lm_config tied = small, plain = small;
    tied.tie_word_embeddings = true;
    plain.num_key_value_heads = 4;
    expect_right("untied head, grouped queries", &small, LM_TRAINS_ALL, 0, false, false);
    expect_right("tied head", &tied, LM_TRAINS_ALL, 0, false, false);
    expect_right("a key head for each query head", &plain, LM_TRAINS_ALL, 0, false, false);
    expect_right("activations computed again", &small, LM_TRAINS_ALL, 0, true, false);
}

static void test_adapters(void)
{
    expect_right("adapters", &small, LM_TRAINS_ADAPTERS, 0, false, false);
    expect_right("adapters, dropout 0.3", &small, LM_TRAINS_ADAPTERS, 0.3, false, false);
    expect_right("adapters, dropout, computed again, rsLoRA", &small, LM_TRAINS_ADAPTERS, 0.3, true, true);
}

/* ---- gradients that are wrong by one thousandth -------------------------------------------------------------------------- */

static const double wrong = 1.001;
static void scale_by(lm_real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= wrong;
}
static fb_status wrong_norm(fb_context *ctx, const lm_real *dy, const lm_real *x, const lm_real *w, const lm_real *scale, int64_t n, int64_t d,
                            lm_real *dx, lm_real *dw)
{
    double *wrong_w = malloc((size_t)d * sizeof *wrong_w);
    for (int64_t i = 0; i < d; i++) wrong_w[i] = w[i] * wrong; /* dx off, dw right */
    fb_status status = lm_reference_ops()->rmsnorm_backward(ctx, dy, x, wrong_w, scale, n, d, dx, dw);
    free(wrong_w);
    return status;
}
static fb_status wrong_norm_weight(fb_context *ctx, const lm_real *dy, const lm_real *x, const lm_real *w, const lm_real *scale, int64_t n,
                                   int64_t d, lm_real *dx, lm_real *dw)
{
    fb_status status = lm_reference_ops()->rmsnorm_backward(ctx, dy, x, w, scale, n, d, dx, dw);
    if (dw) scale_by(dw, d);
    return status;
}
static fb_status wrong_rope(fb_context *ctx, const lm_real *turns, int64_t max_seq, int64_t batch, int64_t seq, int64_t heads, int64_t head_dim,
                            bool back, lm_real *x)
{
    (void)back; /* turned on instead of back */
    return lm_reference_ops()->rope(ctx, turns, max_seq, batch, seq, heads, head_dim, false, x);
}
static int wrong_output; /* 0: dq, 1: dk, 2: dv */
static fb_status wrong_attention(fb_context *ctx, const lm_attention *a, const lm_real *q, const lm_real *k, const lm_real *v, const lm_real *out,
                                 const lm_real *log_sum, const lm_real *dout, lm_real *dq, lm_real *dk, lm_real *dv)
{
    fb_status status = lm_reference_ops()->attention_backward(ctx, a, q, k, v, out, log_sum, dout, dq, dk, dv);
    int64_t rows = a->batch * a->seq * a->head_dim;
    scale_by(wrong_output == 0 ? dq : wrong_output == 1 ? dk : dv, rows * (wrong_output ? a->kv_heads : a->heads));
    return status;
}
static fb_status wrong_swiglu(fb_context *ctx, const lm_real *dout, const lm_real *gate, const lm_real *up, int64_t n, lm_real *dgate, lm_real *dup)
{
    fb_status status = lm_reference_ops()->swiglu_backward(ctx, dout, gate, up, n, dgate, dup);
    scale_by(dgate, n);
    return status;
}
static fb_status wrong_embedding(fb_context *ctx, const lm_real *dout, const int32_t *ids, int64_t n, int64_t vocab, int64_t d, lm_real *dtable)
{
    return lm_reference_ops()->embed_backward(ctx, dout, ids, n - 1, vocab, d, dtable); /* forgets the last token */
}
static fb_status wrong_loss(fb_context *ctx, lm_real *logits, const int32_t *t, int64_t n, int64_t vocab, double scale, lm_real *losses)
{
    fb_status status = lm_reference_ops()->cross_entropy(ctx, logits, t, n, vocab, scale, losses);
    for (int64_t i = 0; scale != 0 && i < n; i++) logits[i * vocab] *= wrong;
    return status;
}
static fb_status wrong_drop(fb_context *ctx, const lm_real *x, int64_t n, uint32_t threshold, uint64_t seed, lm_real *y)
{
    return lm_reference_ops()->add_kept(ctx, x, n, threshold, seed + 1, y); /* other elements than were dropped */
}

static void expect_wrong(const char *what, lm_trains trains, const lm_ops *ops)
{
    char why[DEVICE_TEXT], where[LM_NAME] = "";
    device *d = device_open("host", why);
    lm_model *m = make(&small, trains, trains == LM_TRAINS_ALL ? 0 : 0.3, false, false, d);
    m->run->ops = ops;
    double worst = worst_deviation(m, where);
    if (!(worst > LIMIT)) printf("\n    %s was not noticed", what);
    CU_ASSERT(worst > LIMIT);
    lm_model_free(m);
    d->close(d);
}

static void test_wrong_gradients(void)
{
    const lm_ops right = *lm_reference_ops();
    lm_ops ops;
    ops = right, ops.rmsnorm_backward = wrong_norm, expect_wrong("a norm's gradient", LM_TRAINS_ALL, &ops);
    ops = right, ops.rmsnorm_backward = wrong_norm_weight, expect_wrong("a norm's weight's", LM_TRAINS_ALL, &ops);
    ops = right, ops.rope = wrong_rope, expect_wrong("positions'", LM_TRAINS_ALL, &ops);
    ops = right, ops.attention_backward = wrong_attention;
    for (wrong_output = 0; wrong_output < 3; wrong_output++) expect_wrong("attention's", LM_TRAINS_ALL, &ops);
    ops = right, ops.swiglu_backward = wrong_swiglu, expect_wrong("the gate's", LM_TRAINS_ALL, &ops);
    ops = right, ops.embed_backward = wrong_embedding, expect_wrong("embeddings'", LM_TRAINS_ALL, &ops);
    ops = right, ops.cross_entropy = wrong_loss, expect_wrong("the loss's", LM_TRAINS_ALL, &ops);
    ops = right, ops.add_kept = wrong_drop, expect_wrong("dropout's", LM_TRAINS_ADAPTERS, &ops);
}

/* As training begins B is 0: then A's gradient is 0 exactly and B's is not. */
static void test_first_step(void)
{
    char why[DEVICE_TEXT];
    device *d = device_open("host", why);
    lm_model *m = make(&small, LM_TRAINS_ADAPTERS, 0.1, false, false, d);
    for (int64_t i = 0; i < m->linear_count; i++) memset(m->linears[i].lora_B->data, 0, (size_t)m->linears[i].lora_B->count * sizeof(lm_real));
    CU_ASSERT(gradients(m, 1));
    bool none = true, some = true;
    for (int64_t i = 0; i < m->linear_count; i++) {
        const lm_tensor *a = m->linears[i].lora_A, *b = m->linears[i].lora_B;
        double sum = 0;
        for (int64_t k = 0; k < a->count; k++) none = none && a->grad[k] == 0;
        for (int64_t k = 0; k < b->count; k++) sum += fabs(b->grad[k]);
        some = some && sum > 0;
    }
    CU_ASSERT(none);
    CU_ASSERT(some);
    lm_model_free(m);
    d->close(d);
}

/* Gradients of two passes add up; the scale is a factor; targets below 0 do not count. */
static void test_accumulation(void)
{
    char why[DEVICE_TEXT];
    ck_error e;
    device *d = device_open("host", why);
    lm_model *m = make(&small, LM_TRAINS_ALL, 0, false, false, d);
    double once = 0, twice = 0;
    CU_ASSERT(gradients(m, 1) && lm_gradient_norm(m, &once, &e));
    CU_ASSERT(gradients(m, 0.25));
    loss_of(m);
    CU_ASSERT(lm_backward(m, 1.75, &e) && lm_gradient_norm(m, &twice, &e));
    CU_ASSERT_DOUBLE_EQUAL(twice, 2 * once, 1e-12);
    CU_ASSERT(!lm_backward(m, 1, &e)); /* no forward pass before it */
    int32_t none[BATCH * SEQ];
    for (int i = 0; i < BATCH * SEQ; i++) none[i] = -1;
    double loss = NAN, norm = NAN;
    CU_ASSERT(lm_zero_gradients(m, &e) && lm_forward(m, tokens, none, BATCH, SEQ, true, &loss, &e) && lm_backward(m, 1, &e));
    CU_ASSERT(loss == 0 && lm_gradient_norm(m, &norm, &e) && norm == 0);
    lm_model_free(m);
    d->close(d);
}

int main(void)
{
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    CU_pSuite s = CU_add_suite("gradient", NULL, NULL);
    if (!s || !CU_add_test(s, "every tensor of a base", test_all_tensors) || !CU_add_test(s, "adapters", test_adapters) ||
        !CU_add_test(s, "wrong gradients are noticed", test_wrong_gradients) || !CU_add_test(s, "first step: dA is 0, dB is not", test_first_step) ||
        !CU_add_test(s, "accumulation", test_accumulation))
        return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed ? 1 : 0;
}
