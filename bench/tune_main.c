/* tune_main.c: the command line of fourbit-tune. */
#include "bench/tune.h"

#include <getopt.h>
#include <stdlib.h>

static const char usage[] =
    "fourbit-tune [options]\n"
    "Times each path of the CUDA product (NF4, block 64, bf16) at M = 1 ... 4096 on layers of three sizes, in turn and with cold\n"
    "caches, and writes the fastest as the rows of this GPU's generation into the dispatch table. Rows of other generations stay.\n"
    "  --table FILE   kernels/cuda/dispatch_table.h\n"
    "  --dry-run      print the table, replace nothing\n"
    "  --help\n"
    "Build the library again (make) for the rows to count, and test it. A few minutes on one GPU that nobody else uses.\n"
    "Exit status: 0 the table was replaced, 1 it was not (a failure is told), 2 usage, 77 no GPU, 130 interrupted. In all but the\n"
    "first the table is as it was.\n";

/* Absent in a build without nvcc. */
#pragma weak fb_cuda_gemm_by_rule

static volatile sig_atomic_t stopped;
static void on_signal(int number) { stopped = number; }

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"table", required_argument, NULL, 't'}, {"dry-run", no_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    static const stop_rule rule = {.floor = 5, .ceiling = 15, .seconds = 0.3, .hard_seconds = 10, .spread = 0.01, .sample_seconds = 1e-3};
    tune_options o = {.device = "cuda", .open = device_open, .by_rule = fb_cuda_gemm_by_rule, .backend = FB_BACKEND_CUDA, .plan = &tune_usual,
                      .rule = &rule, .table = "kernels/cuda/dispatch_table.h", .out = stdout, .progress = stderr};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 't': o.table = optarg; break;
        case 'n': o.dry = true; break;
        case 'h': fputs(usage, stdout); return RUN_OK;
        default: fputs("see --help\n", stderr); return RUN_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "fourbit-tune: unexpected argument %s (see --help)\n", argv[optind]);
        return RUN_USAGE;
    }
    setenv("FOURBIT_CUDA", "gpu", 1); /* the executor's times are no GPU's */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return tune_run(&o, &stopped);
}
