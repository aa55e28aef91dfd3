/* run.h: what model.c, weights.c, linear.c and model_run.c share: the buffers of a pass. Internal to them. */
#ifndef FOURBIT_TRAIN_RUN_H
#define FOURBIT_TRAIN_RUN_H

#include "ops.h"

/* What one layer leaves for the way back. n = batch * seq rows. */
typedef struct lm_kept {
    lm_real *input;              /* [n, hidden]: the residual stream as it came */
    lm_real *scale1, *a;         /* [n], [n, hidden]: first norm */
    lm_real *q, *k, *v;          /* turned by RoPE where it applies */
    lm_real *mixed, *log_sum;    /* attention's output [n, heads * head_dim]; [batch, heads, seq] */
    lm_real *middle;             /* [n, hidden]: the stream after attention */
    lm_real *scale2, *b;         /* second norm */
    lm_real *gate, *up, *gated;  /* [n, intermediate] */
    lm_real *u[LM_LINEARS];      /* [n, rank] of each linear layer */
} lm_kept;

struct lm_run {
    fb_context ctx;
    const lm_ops *ops;
    void **blocks; /* everything allocated */
    size_t block_count;
    lm_kept *layers;  /* [layers]; with recompute, or where nothing is trained, all but `input` are shared */
    lm_real *turns;   /* [2, max_seq, head_dim / 2]: RoPE */
    lm_real *output, *norm_scale, *normed; /* the stream after the last layer, [n], [n, hidden] */
    lm_real *logits, *losses;              /* [n, vocab], [n] */
    lm_real *gradient, *d_narrow;          /* of the stream; of a norm's output: [n, hidden] */
    lm_real *d_q, *d_k, *d_v, *d_mixed;
    lm_real *d_gate, *d_up, *d_gated;
    lm_real *dropped, *lora_back, *d_u;    /* dense base with adapters: [n, widest input], the same, [n, rank] */
    int32_t *ids, *targets;
    double *sums;         /* of squares, device */
    double *host_sums;
    lm_real *host_losses; /* [n] */
    int64_t sum_count;

    /* of the last training pass */
    int64_t batch, seq, counted;
    bool ready;
    uint64_t dropout_step;
};

/* Device memory that lives as long as the model, added to *component of m->memory. NULL: *e says. */
void *lm_take(lm_model *m, size_t bytes, size_t *component, ck_error *e);
/* ctx.message into *e. */
bool lm_failed(const lm_model *m, const char *what, ck_error *e);
bool lm_device_failed(const lm_model *m, const char *what, ck_error *e);

/* model.c: the buffers; weights.c: what is in them */
bool lm_make_run(lm_model *m, ck_error *e);
bool lm_make_weights(lm_model *m, const lm_source *source, ck_error *e);

/* linear.c. index: of the layer, for dropout. training false: no dropout. */
bool lm_linear_forward(lm_model *m, int64_t index, int64_t rows, const lm_real *x, lm_real *y, lm_real *u, bool training, ck_error *e);
/* dx NULL: not wanted. Gradients of the weight or the adapter are added to. */
bool lm_linear_backward(lm_model *m, int64_t index, int64_t rows, const lm_real *x, const lm_real *u, const lm_real *dy, lm_real *dx,
                        bool accumulate_dx, ck_error *e);

/* quantize_base.c: the 4-bit form of w [out, in] (host) in l->quant, on the model's device. */
bool lm_quantize(lm_model *m, lm_linear *l, float *w, ck_error *e);
bool lm_adopt(lm_model *m, lm_linear *l, const fb_matrix *given, bool normalized, const float moments[2], ck_error *e);

#endif
