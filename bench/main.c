/* main.c: the command line of fourbit-bench. */
#include "bench/layers.h"
#include "bench/run.h"

#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "fourbit-bench [options]\n"
    "Checks each case against the reference, then times it beside its peers.\n"
    "  --profile quick|full  length of the list and precision (quick: 3 minutes on two cores)\n"
    "  --backends a,b        reference, cpu, cuda, plugin (default: all that can run here)\n"
    "  --models a,b          the layers of these models (bench/layers.c) in place of the general list; all; none. Default: full\n"
    "                        adds a few M of all of them to it, quick none\n"
    "  --filter REGEX        only cases whose name matches, e.g. '^gemm/cpu/nf4/.*M1_'\n"
    "  --out DIR             where bench.json and bench-tracking.json go (build/results/bench)\n"
    "  --threads N           for ours and the peers (default: every core)\n"
    "  --peers DIR           what `make peers` fetched (build/peers); --peers none: do not look\n"
    "  --alone               time ours only: no peers, no ceilings (the rounds of scripts/ab.sh)\n"
    "  --turns IN,OUT,N      take N rounds of each case in turn with another process: read a byte from file descriptor IN\n"
    "                        before a round, write one to OUT after it\n"
    "  --list                print the names of the cases and stop\n"
    "  --help\n"
    "Ctrl-C ends it after the sample in progress; what is done is written. bench/README.md says what the figures mean.\n"
    "Exit status: 0 all checked and timed, 1 a check failed, 2 usage, 130 interrupted.\n";

static volatile sig_atomic_t stopped;
static void on_signal(int number) { stopped = number; }

static int bad(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "fourbit-bench: --%s %s: expected %s (see --help)\n", option, value, expected);
    return RUN_USAGE;
}

static bool parse_backends(char *text, unsigned *backends)
{
    for (char *save, *name = strtok_r(text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        int b = 0;
        while (b < FB_BACKEND_COUNT && strcmp(name, fb_backend_name((fb_backend)b)) != 0) b++;
        if (b == FB_BACKEND_COUNT) return false;
        *backends |= 1u << b;
    }
    return *backends != 0;
}

/* fourbit-peer lies beside this program. */
static void server_path(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    size_t at = slash ? (size_t)(slash + 1 - path) : 0;
    snprintf(path + at, size - at, "fourbit-peer");
}

/* The handler is gone after one signal: a second Ctrl-C ends the program at once. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"profile", required_argument, NULL, 'p'}, {"backends", required_argument, NULL, 'b'}, {"filter", required_argument, NULL, 'f'},
        {"out", required_argument, NULL, 'o'},     {"threads", required_argument, NULL, 't'},  {"peers", required_argument, NULL, 'P'},
        {"turns", required_argument, NULL, 'T'},   {"alone", no_argument, NULL, 'a'},          {"list", no_argument, NULL, 'l'},
        {"models", required_argument, NULL, 'm'},  {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    static const fb_case no_cases = {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0};
    char server[4096], *rest, why[TIMING_WHY] = "";
    const char *models = NULL;
    long n;
    server_path(server, sizeof server);
    run_options o = {.folder = "build/results/bench", .peers = "build/peers", .peer_server = server, .ops = &bench_library,
                     .out = stdout, .progress = stderr};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'p':
            o.full = strcmp(optarg, "full") == 0;
            if (!o.full && strcmp(optarg, "quick") != 0) return bad("profile", optarg, "quick or full");
            break;
        case 'b':
            if (!parse_backends(optarg, &o.backends)) return bad("backends", optarg, "some of reference,cpu,cuda,plugin");
            break;
        case 't':
            n = strtol(optarg, &rest, 10);
            if (*rest || n < 1 || n > 4096) return bad("threads", optarg, "1 ... 4096");
            o.threads = (int)n;
            break;
        case 'm': models = optarg; break;
        case 'f': o.filter = *optarg ? optarg : NULL; break;
        case 'o': o.folder = optarg; break;
        case 'P': o.peers = strcmp(optarg, "none") == 0 ? NULL : optarg; break;
        case 'T': {
            int in, out, rounds, end = 0;
            if (sscanf(optarg, "%d,%d,%d%n", &in, &out, &rounds, &end) != 3 || optarg[end] || in < 0 || out < 0 || rounds < 1)
                return bad("turns", optarg, "IN,OUT,ROUNDS");
            timing_take_turns(in, out, rounds);
            break;
        }
        case 'a': o.alone = true; break;
        case 'l': o.list = true; break;
        case 'h': fputs(usage, stdout); return RUN_OK;
        default: fputs("see --help\n", stderr); return RUN_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "fourbit-bench: unexpected argument %s (see --help)\n", argv[optind]);
        return RUN_USAGE;
    }
    fb_case *cases = bench_layer_cases(models ? models : o.full ? "all" : "none", models ? CASE_QUICK | CASE_FULL : CASE_QUICK,
                                       models && strcmp(models, "none") != 0 ? &no_cases : fb_cases, why);
    if (!cases) return bad("models", models ? models : "", why);
    o.cases = cases;
    catch_signals();
    int status = bench_run(&o, &stopped);
    free(cases);
    if (!timing_lost_turn()) return status;
    fprintf(stderr, "fourbit-bench: --turns: the other process is gone: these times were not taken in turn\n");
    return RUN_INTERRUPTED;
}
