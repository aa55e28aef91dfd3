/* report.h: what fourbit-train says about a run: memory by component, text, a summary in JSON. */
#ifndef FOURBIT_TRAIN_REPORT_H
#define FOURBIT_TRAIN_REPORT_H

#include "cli.h"
#include "run_train.h"

/* Everything a summary is made of. */
typedef struct train_report {
    const train_cli *cli;
    const lm_model *model;
    optimizer *optimizer;
    const text_corpus *text;
    const char *base, *base_sha256, *identity;
    double peak;
    double before, after; /* held-out loss */
    run_result result;
} train_report;

/* A table: component, predicted bytes, measured bytes. */
void report_memory(FILE *to, const lm_model *m, optimizer *o);
/* Tokens as text, bytes where `by` is NULL: what cannot be shown becomes a dot. */
void report_text(FILE *to, const char *title, const tokenizer *by, const int32_t *prompt, int64_t prompt_count, const int32_t *tokens, int64_t count);
/* run.json, written atomically. */
bool report_save(const char *path, const train_report *r, ck_error *e);

#endif
