/* experiment.h: what 4 bits cost a model, before and after fine-tuning: measured over seeds, with verdicts.
 *
 *   1  weights    relative squared error of each base's linear weights against the closed form on N(0, 1) (theory.h)
 *   2  quantized  held-out loss of a base whose linear layers are quantized, less that of the same base in fp32, on the same
 *                 windows: increases, and their order
 *   3  tuned      held-out loss after LoRA fine-tuning on quantized bases, less that on the same base in bf16 with the same
 *                 seed: equivalence within a margin that is the 95 % range of the difference between two bf16 runs that
 *                 differ in their seed alone. INT3, a control, must not be equivalent. The rate falls to 0 (cosine): at a
 *                 constant one, where a run happens to stop is noise of .011 nats, in which INT3 gets lost.
 *
 * Bases are made here: one for each seed. */
#ifndef FOURBIT_TRAIN_EXPERIMENT_H
#define FOURBIT_TRAIN_EXPERIMENT_H

#include "base_make.h"
#include "text.h"

enum { X_MAX_SEEDS = 8, X_MAX_TUNES = 8, X_MAX_BLOCKS = 8, X_FORMATS = 6, X_MAX_WINDOWS = 2048 };

/* The first is what the others are compared with. */
typedef enum x_format { X_BF16 = 0, X_NF4, X_NF4_DQ, X_FP4, X_INT4, X_INT3 } x_format;
extern const char *const x_names[X_FORMATS]; /* "bf16", "nf4", "nf4+dq" ... */

typedef struct x_settings {
    const char *out;                    /* tables, bases */
    lm_config config;
    int seeds, tunes, blocks;           /* bases; fine-tuning seeds for each */
    int noise;                          /* of bf16, tunes or more: what the margin is estimated from */
    int32_t block_sizes[X_MAX_BLOCKS];  /* the first is the one fine-tuned with */
    int64_t base_steps, tune_steps, batch, seq, windows;
    double base_lr, tune_lr, alpha;
    int64_t rank;
    fb_backend backend;
    int threads;
    const char *base_text, *tune_text;  /* NULL: as base_make and text_default_path */
    FILE *progress;
} x_settings;

/* A text that was used: that it is the same text can be seen from its SHA-256. */
typedef struct x_text {
    char source[TEXT_SOURCE], sha256[TEXT_SHA256];
    size_t bytes;
} x_text;

typedef struct x_results {
    x_text base_text, tune_text;        /* what the bases were made from, and tuned on */
    int done;                           /* bases with which all was done: what is judged */
    double base_loss[X_MAX_SEEDS];      /* held out, fp32 */
    double weight_error[X_MAX_SEEDS][X_FORMATS][X_MAX_BLOCKS];   /* sum (w - decoded)^2 / sum w^2 */
    double weight_theory[X_FORMATS][X_MAX_BLOCKS];               /* NaN: none */
    double increase[X_MAX_SEEDS][X_FORMATS][X_MAX_BLOCKS];       /* nats; bf16's stands in block 0 */
    double *window_gap[X_MAX_BLOCKS];   /* [windows]: INT4 less NF4, mean over seeds */
    int64_t windows;
    double start[X_MAX_SEEDS][X_FORMATS];                        /* on the tuning text, before */
    double tuned[X_MAX_SEEDS][X_MAX_TUNES][X_FORMATS];
    double step_seconds[X_MAX_SEEDS][X_MAX_TUNES][X_FORMATS];    /* median */
} x_results;

/* Runs everything and writes weights.csv, quantized.csv, tuned.csv and curves.csv as it goes. */
run_end x_run(const x_settings *s, x_results *r, ck_error *e);
void x_free(x_results *r);

/* The closed form of a format's relative squared error; bf16: NaN. */
double x_theory(x_format f, int32_t block_size);

/* The text with tables and verdicts, on the bases that are done; true if all that is claimed came out. */
bool x_verdict(const x_settings *s, const x_results *r, FILE *to);

#endif
