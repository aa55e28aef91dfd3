/* linear.c: one linear layer, forward and backward: a frozen 4-bit weight through the library's products, or a dense one
 * through the backend's; and around either a LoRA pair.
 *
 *   y = x W^T + s D(x) A^T B^T,  dX = dY W + s D(dY B A),  dB += s dY^T (D(x) A^T),  dA += s (dY B)^T D(x)
 *
 * Bracketed so that only [rows, rank] comes between (fourbit.h, LoRA). The pair's part is the library's (fb_lora_forward,
 * fb_lora_backward) around a 4-bit weight, or the backend's dense products around a dense one and with options.unfused: the
 * same formulas with the same dropped elements, factor and rounding of U. */
#include "run.h"

#include "dropout.h"
#include "random.h"

#define TRY(call) \
    if ((call) != FB_OK) return lm_failed(m, l->module, e)

/* Elements dropped: a new choice for each layer and pass. */
static uint64_t drop_seed(const lm_model *m, int64_t index)
{
    return lm_random(m->options.seed ^ 0xd509d509d509d509u, m->run->dropout_step, (uint64_t)index);
}

static double scaling(const lm_options *o) { return o->alpha / (o->rslora ? sqrt((double)o->rank) : (double)o->rank); }

#ifndef LM_DOUBLE
static fb_lora lora_of(const lm_model *m, const lm_linear *l, int64_t index, bool training)
{
    return (fb_lora){.rank = (int32_t)m->options.rank, .scale = (float)scaling(&m->options), .dropout = training ? (float)m->options.dropout : 0,
                     .seed = drop_seed(m, index), .a = l->lora_A->data, .b = l->lora_B->data};
}

static bool fused_forward(lm_model *m, const lm_linear *l, int64_t index, int64_t rows, const float *x, float *y, float *u, bool training, ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    fb_lora lora = lora_of(m, l, index, training);
    TRY(fb_lora_forward(ctx, &l->quant, &lora, rows, x, FB_F32, NULL, y, FB_F32, u));
    if (l->normalized) TRY(m->run->ops->add_row_sums(ctx, x, (double)l->moments[0], rows, l->out_features, l->in_features, y));
    return true;
}

static bool fused_backward(lm_model *m, const lm_linear *l, int64_t index, int64_t rows, const float *x, const float *u, const float *dy, float *dx,
                           bool accumulate_dx, ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    fb_lora lora = lora_of(m, l, index, true);
    TRY(fb_lora_backward(ctx, &l->quant, &lora, rows, x, u, dy, FB_F32, dx, FB_F32, accumulate_dx, l->lora_A->grad, l->lora_B->grad, true));
    if (dx && l->normalized) TRY(m->run->ops->add_row_sums(ctx, dy, (double)l->moments[0], rows, l->in_features, l->out_features, dx));
    return true;
}
#endif

/* f of fourbit.h, rounded as there */
static double factor(const lm_model *m, bool training)
{
    return (double)(lm_real)(scaling(&m->options) / (1 - (training ? m->options.dropout : 0)));
}

/* ---- the weight alone ------------------------------------------------------------------------------------------------- */

static bool weight_forward(lm_model *m, const lm_linear *l, int64_t rows, const lm_real *x, lm_real *y, ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    const lm_ops *ops = m->run->ops;
    int64_t out = l->out_features, in = l->in_features;
    if (l->weight->data) {
        TRY(ops->product(ctx, false, true, rows, out, in, 1, x, l->weight->data, y, false));
        return true;
    }
    TRY(fb_gemm(ctx, &l->quant, rows, x, FB_F32, NULL, y, FB_F32));
    if (l->normalized) TRY(ops->add_row_sums(ctx, x, (double)l->moments[0], rows, out, in, y));
    return true;
}

static bool weight_backward(lm_model *m, const lm_linear *l, int64_t rows, const lm_real *x, const lm_real *dy, lm_real *dx, bool accumulate_dx,
                            ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    const lm_ops *ops = m->run->ops;
    int64_t out = l->out_features, in = l->in_features;
    if (l->weight->data) {
        if (dx) TRY(ops->product(ctx, false, false, rows, in, out, 1, dy, l->weight->data, dx, accumulate_dx));
        if (l->weight->grad) TRY(ops->product(ctx, true, false, out, in, rows, 1, dy, x, l->weight->grad, true));
        return true;
    }
    if (dx) TRY(fb_gemm_dx(ctx, &l->quant, rows, dy, FB_F32, dx, FB_F32, accumulate_dx));
    if (dx && l->normalized) TRY(ops->add_row_sums(ctx, dy, (double)l->moments[0], rows, in, out, dx));
    return true;
}

/* ---- the adapter by dense products ------------------------------------------------------------------------------------ */

static bool adapter_forward(lm_model *m, const lm_linear *l, int64_t index, int64_t rows, const lm_real *x, lm_real *y, lm_real *u, bool training,
                            ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    const lm_ops *ops = m->run->ops;
    int64_t out = l->out_features, in = l->in_features, r = m->options.rank;
    uint32_t threshold = training ? fb_dropout_threshold((float)m->options.dropout) : 0;
    if (threshold) {
        TRY(ops->drop(ctx, x, rows * in, threshold, drop_seed(m, index), m->run->dropped));
        x = m->run->dropped;
    }
    TRY(ops->product(ctx, false, true, rows, r, in, factor(m, training), x, l->lora_A->data, u, false));
    TRY(ops->product(ctx, false, true, rows, out, r, 1, u, l->lora_B->data, y, true));
    return true;
}

static bool adapter_backward(lm_model *m, const lm_linear *l, int64_t index, int64_t rows, const lm_real *x, const lm_real *u, const lm_real *dy,
                             lm_real *dx, ck_error *e)
{
    fb_context *ctx = &m->run->ctx;
    const lm_ops *ops = m->run->ops;
    lm_run *run = m->run;
    int64_t out = l->out_features, in = l->in_features, r = m->options.rank;
    uint32_t threshold = fb_dropout_threshold((float)m->options.dropout);
    if (threshold) {
        TRY(ops->drop(ctx, x, rows * in, threshold, drop_seed(m, index), run->dropped));
        x = run->dropped;
    }
    TRY(ops->product(ctx, false, false, rows, r, out, factor(m, true), dy, l->lora_B->data, run->d_u, false));
    TRY(ops->product(ctx, true, false, out, r, rows, 1, dy, u, l->lora_B->grad, true));
    TRY(ops->product(ctx, true, false, r, in, rows, 1, run->d_u, x, l->lora_A->grad, true));
    if (!dx) return true;
    if (!threshold) {
        TRY(ops->product(ctx, false, false, rows, in, r, 1, run->d_u, l->lora_A->data, dx, true));
        return true;
    }
    TRY(ops->product(ctx, false, false, rows, in, r, 1, run->d_u, l->lora_A->data, run->lora_back, false));
    TRY(ops->add_kept(ctx, run->lora_back, rows * in, threshold, drop_seed(m, index), dx));
    return true;
}

/* ---- both --------------------------------------------------------------------------------------------------------------- */

#ifdef LM_DOUBLE
static bool fused(const lm_model *m, const lm_linear *l) { return (void)m, (void)l, false; }
#define fused_forward(...) false
#define fused_backward(...) false
#else
static bool fused(const lm_model *m, const lm_linear *l) { return m->options.rank && !l->weight->data && !m->options.unfused; }
#endif

bool lm_linear_forward(lm_model *m, int64_t index, int64_t rows, const lm_real *x, lm_real *y, lm_real *u, bool training, ck_error *e)
{
    const lm_linear *l = &m->linears[index];
    if (fused(m, l)) return fused_forward(m, l, index, rows, x, y, u, training, e);
    return weight_forward(m, l, rows, x, y, e) && (!m->options.rank || adapter_forward(m, l, index, rows, x, y, u, training, e));
}

bool lm_linear_backward(lm_model *m, int64_t index, int64_t rows, const lm_real *x, const lm_real *u, const lm_real *dy, lm_real *dx,
                        bool accumulate_dx, ck_error *e)
{
    const lm_linear *l = &m->linears[index];
    if (fused(m, l)) return fused_backward(m, l, index, rows, x, u, dy, dx, accumulate_dx, e);
    return weight_backward(m, l, rows, x, dy, dx, accumulate_dx, e) && (!m->options.rank || adapter_backward(m, l, index, rows, x, u, dy, dx, e));
}
