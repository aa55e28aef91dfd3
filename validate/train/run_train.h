/* run_train.h: a run of training steps with all that a person wants of one: progress, a log, held-out losses, checkpoints,
 * and an end that can be gone on from. */
#ifndef FOURBIT_TRAIN_RUN_TRAIN_H
#define FOURBIT_TRAIN_RUN_TRAIN_H

#include "loop.h"

#include <stdio.h>

enum { RUN_IDENTITY = 1024 };

typedef struct run_settings {
    const char *name;        /* what a progress line begins with */
    FILE *progress;          /* where to; NULL: nowhere */
    const char *log;         /* a line a step: CSV, or JSON lines where the name ends in .json; NULL: none */
    const char *checkpoint;  /* the file; NULL: none */
    const char *identity;    /* what must be the same for a checkpoint to be of this run; under RUN_IDENTITY bytes */
    int64_t checkpoint_every, eval_every, eval_windows; /* steps; 0: at the end only. windows as loop_held_out's `most` */
    int64_t stop_after;      /* steps in this call, then as if interrupted; 0: none */
    bool resume;             /* begin from the checkpoint, which must be there */
    double peak;             /* operations a second that shares are of; 0: unknown */
} run_settings;

typedef enum run_end { RUN_DONE = 0, RUN_INTERRUPTED, RUN_FAILED } run_end;

typedef struct run_result {
    double first_loss, last_loss;     /* training loss of the first step and mean of the last tenth */
    double held_out;                  /* at the end */
    double median_seconds, tokens_per_second, share_of_peak;
    int64_t steps;                    /* done in this process */
} run_result;

/* From l->step (or the checkpoint's) to settings.steps. RUN_INTERRUPTED: run_interrupt was called; a checkpoint is there if
 * one was asked for. RUN_FAILED: *e says why; the last checkpoint is as it was. */
run_end run_train(train_loop *l, const run_settings *s, run_result *result, ck_error *e);

/* After the step that is being done, stop. May be called from a signal handler. */
void run_interrupt(void);
bool run_interrupted(void);

#endif
