/* loop.h: training steps on a model: batches, accumulation, clipping, schedule, AdamW; held-out loss; samples. */
#ifndef FOURBIT_TRAIN_LOOP_H
#define FOURBIT_TRAIN_LOOP_H

#include "model.h"
#include "optimizer.h"
#include "text.h"

typedef enum loop_schedule { LOOP_CONSTANT = 0, LOOP_COSINE, LOOP_LINEAR, LOOP_SCHEDULE_COUNT } loop_schedule;
extern const char *const loop_schedule_names[LOOP_SCHEDULE_COUNT];

typedef struct loop_settings {
    int64_t steps;       /* of the whole run: the schedules end there */
    int64_t accumulate;  /* batches a step */
    double lr;           /* the peak */
    loop_schedule schedule;
    int64_t warmup;      /* steps in which lr grows linearly to its peak */
    double floor;        /* cosine and linear end at floor * lr */
    uint64_t seed;       /* of the batches */
} loop_settings;

typedef struct loop_report {
    double loss;      /* mean over the step's batches, before the update */
    double norm;      /* of the gradient, before clipping */
    double lr;
    int64_t tokens;
    double seconds;   /* the whole step, work on the device done */
} loop_report;

typedef struct train_loop {
    loop_settings settings;
    lm_model *model;
    optimizer *optimizer;
    const text_corpus *text;
    int64_t step; /* updates done; with the model's dropout_step all that a checkpoint needs besides tensors and state */
    int32_t *tokens, *targets; /* [batch, seq] */
} train_loop;

/* Where a backend's memory is: the host's, or a GPU's. NULL: why says why not. */
device *loop_open_device(fb_backend backend, char why[DEVICE_TEXT]);

/* model, optimizer and text must outlive it. */
bool loop_init(train_loop *l, const loop_settings *s, lm_model *model, optimizer *o, const text_corpus *text, ck_error *e);
void loop_free(train_loop *l);

/* The learning rate of update `step` (0, 1 ...). */
double loop_rate(const loop_settings *s, int64_t step);

/* One update. A loss or gradient that is NaN or Inf: false, and nothing was updated. */
bool loop_step(train_loop *l, loop_report *report, ck_error *e);

/* Mean loss of at most `most` held-out windows, evenly spread (0: all); each window's own in losses [windows], unless NULL. The
 * model's batch size changes the work's grouping and no bit of a window's own loss by more than its products' rounding. */
bool loop_held_out(lm_model *m, const text_corpus *text, int64_t most, double *loss, double *losses, ck_error *e);
int64_t loop_window_count(const lm_model *m, const text_corpus *text, int64_t most);

/* `count` tokens that go on from the prompt (at least one token), drawn at `temperature` from the `top` likeliest; 0: the
 * likeliest alone. Depends on seed and weights alone. */
bool loop_sample(lm_model *m, const int32_t *prompt, int64_t prompt_count, int64_t count, double temperature, int top, uint64_t seed,
                 int32_t *out, ck_error *e);

/* Floating-point operations of a training token: products forward and backward, attention; adapters included. */
double loop_flops_per_token(const lm_model *m);
/* Operations a second of a large dense product on the model's backend, measured now for about 0.1 s: the peak that shares
 * are of. 0: not measured. */
double loop_measure_peak(lm_model *m);

#endif
