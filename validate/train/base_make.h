/* base_make.h: a small base of our own: every weight trained from random values on text, then a Hugging Face folder. */
#ifndef FOURBIT_TRAIN_BASE_MAKE_H
#define FOURBIT_TRAIN_BASE_MAKE_H

#include "run_train.h"

typedef struct base_settings {
    lm_config config;
    const char *text;     /* path; NULL: text_prose_path, or where that is not installed text_default_path */
    int64_t steps, batch, seq;
    double lr;            /* peak; cosine to a tenth, 50 steps of warm-up */
    uint64_t seed;
    fb_backend backend;
    int threads;
    FILE *progress;
    const char *log;      /* or NULL */
} base_settings;

/* Trains and writes FOLDER (config.json, model.safetensors in fp32). Interrupted: nothing is written. */
run_end base_make(const base_settings *s, const char *folder, run_result *result, ck_error *e);

#endif
