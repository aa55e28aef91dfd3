/* experiment_main.c: fourbit-train-experiment: formats compared by fine-tuning (experiment.h). */
#include "experiment.h"

#include "run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char help[] =
    "fourbit-train-experiment [quick|full] OUT\n"
    "\n"
    "  Makes small bases, quantizes them to NF4, NF4 with double quantization, FP4, INT4 and INT3 (the control), and fine-tunes\n"
    "  adapters on each. Writes OUT/{weights,quantized,tuned,curves}.csv as it goes and OUT/summary.txt at the end.\n"
    "    quick   3 bases of 0.18 M parameters, 900 steps; 2 fine-tunings of 80 steps a format, 4 of bf16; block sizes\n"
    "            64 and 1024\n"
    "    full    5 bases, 1500 steps; 4 fine-tunings of 200 steps a format, 8 of bf16; block sizes\n"
    "            64, 256, 1024 and 4096\n"
    "  OUT must exist. Ctrl-C: what was done stays and is judged.\n"
    "Exit status: 0 all that is claimed came out; 1 it did not, or something failed; 2 wrong arguments; 130 after Ctrl-C.\n";

static void on_signal(int number)
{
    run_interrupt();
    signal(number, SIG_DFL); /* the second ends the process */
}

static x_settings settings_of(bool full, const char *out)
{
    x_settings s = {.out = out,
                    .config = {.vocab_size = TEXT_VOCABULARY, .hidden_size = 64, .num_hidden_layers = 3, .num_attention_heads = 2, .num_key_value_heads = 2,
                               .head_dim = 32, .intermediate_size = 192, .max_position_embeddings = 1024, .rope_theta = 10000, .rms_norm_eps = 1e-5,
                               .tie_word_embeddings = true},
                    .seeds = full ? 5 : 3, .tunes = full ? 4 : 2, .noise = full ? 8 : 4, .blocks = full ? 4 : 2, .block_sizes = {64, 1024, 256, 4096},
                    .base_steps = full ? 1500 : 900, .tune_steps = full ? 200 : 80, .batch = 16, .seq = 128, .windows = full ? 512 : 256,
                    .base_lr = 4e-3, .tune_lr = 2e-3, .alpha = 16, .rank = 8, .backend = FB_BACKEND_CPU, .progress = stdout};
    return s;
}

static bool write_summary(const x_settings *s, const x_results *r, bool *claimed)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/summary.txt", s->out);
    FILE *f = fopen(path, "w");
    if (!f) return fprintf(stderr, "fourbit-train-experiment: %s: %s\n", path, strerror(errno)), false;
    *claimed = x_verdict(s, r, f);
    bool written = !ferror(f);
    if (fclose(f) || !written) return fprintf(stderr, "fourbit-train-experiment: %s: %s\n", path, strerror(errno)), false;
    x_verdict(s, r, stdout);
    printf("tables, curves, summary: %s\n", s->out);
    return true;
}

int main(int argc, char **argv)
{
    static x_results results;
    ck_error e = {.byte = -1};
    struct stat folder;
    bool claimed = false;
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return fputs(help, stdout) < 0;
    if (argc != 3 || (strcmp(argv[1], "quick") && strcmp(argv[1], "full"))) return fputs(help, stderr), 2;
    if (stat(argv[2], &folder) || !S_ISDIR(folder.st_mode)) return fprintf(stderr, "fourbit-train-experiment: %s: not a folder\n", argv[2]), 2;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    x_settings s = settings_of(strcmp(argv[1], "full") == 0, argv[2]);
    run_end end = x_run(&s, &results, &e);
    if (end == RUN_FAILED) fprintf(stderr, "fourbit-train-experiment: %s\n", e.message);
    bool written = write_summary(&s, &results, &claimed);
    x_free(&results);
    return end == RUN_INTERRUPTED ? 130 : end == RUN_DONE && written && claimed ? 0 : 1;
}
