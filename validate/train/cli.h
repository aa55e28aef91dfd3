/* cli.h: fourbit-train's command line. */
#ifndef FOURBIT_TRAIN_CLI_H
#define FOURBIT_TRAIN_CLI_H

#include "loop.h"

typedef struct train_cli {
    /* what on what */
    const char *base, *text, *out;
    lm_options model;
    loop_settings loop;
    bool state8;
    double clip, weight_decay, beta2;
    pager_kind paging;
    size_t paging_budget; /* bytes; 0 with paging resident */

    /* a base made here, where --base is not given */
    const char *base_text;
    lm_config made;
    int64_t base_steps;
    double base_lr;

    /* what comes out */
    int64_t checkpoint_every, eval_every, eval_windows;
    bool resume;
    const char *export_to, *merge_to, *log;
    bool merge_4bit;
    int64_t sample;
    const char *prompt;
    double temperature;
    int top;
} train_cli;

/* 0: go on; 1: --help was printed, all is well; 2: a wrong argument, named on stderr. */
int cli_parse(train_cli *c, int argc, char **argv);

#endif
