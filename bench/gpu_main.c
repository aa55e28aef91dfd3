/* gpu_main.c: the command line of fourbit-gpu. */
#include "bench/gpu_run.h"

#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

static const char usage[] =
    "fourbit-gpu [options]\n"
    "Checks each case of the CUDA backend against the reference on the GPU, then times it beside cuBLAS and bitsandbytes.\n"
    "  --profile quick|full  length of the list and precision\n"
    "  --models a,b          the layers of these models (bench/layers.c) in place of the general list; all; none. Default: full\n"
    "                        adds all to it, quick none\n"
    "  --filter REGEX        only cases whose name matches, e.g. '^dequantize/'\n"
    "  --largest N           no case of more than N weights\n"
    "  --out DIR             where bench.json and bench-tracking.json go (build/results/gpu)\n"
    "  --peers DIR           what `make peers` fetched (build/peers); --peers none: no bitsandbytes\n"
    "  --device cuda|host    host: try the harness out with --backend reference or cpu; its times are not a GPU's\n"
    "  --backend NAME        cuda (default), cpu, reference\n"
    "  --facts               what the GPU is: driver, clocks, ECC, memory; and stop\n"
    "  --list                print the names of the cases and stop\n"
    "  --help\n"
    "Ctrl-C ends it after the sample in progress; what is done is written. bench/README.md says what the figures mean.\n"
    "Exit status: 0 all checked and timed, 1 a check failed, 2 usage, 77 no GPU (nothing was run), 130 interrupted.\n";

static volatile sig_atomic_t stopped;
static void on_signal(int number) { stopped = number; }

static int bad(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "fourbit-gpu: --%s %s: expected %s (see --help)\n", option, value, expected);
    return RUN_USAGE;
}

/* fourbit-gpu-peer lies beside this program. */
static void server_path(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    size_t at = slash ? (size_t)(slash + 1 - path) : 0;
    snprintf(path + at, size - at, "fourbit-gpu-peer");
}

static bool parse_backend(const char *text, fb_backend *backend)
{
    for (int b = 0; b < FB_BACKEND_COUNT; b++)
        if (strcmp(text, fb_backend_name((fb_backend)b)) == 0) return *backend = (fb_backend)b, true;
    return false;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"profile", required_argument, NULL, 'p'}, {"filter", required_argument, NULL, 'f'}, {"largest", required_argument, NULL, 'L'},
        {"out", required_argument, NULL, 'o'},     {"peers", required_argument, NULL, 'P'},  {"device", required_argument, NULL, 'd'},
        {"backend", required_argument, NULL, 'b'}, {"facts", no_argument, NULL, 'F'},        {"list", no_argument, NULL, 'l'},
        {"models", required_argument, NULL, 'm'},  {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    static const gpu_case no_cases = {.op = GPU_OP_COUNT, .rows = -1};
    char server[4096], *rest, why[TIMING_WHY] = "";
    const char *models = NULL;
    bool facts = false;
    server_path(server, sizeof server);
    gpu_options o = {.device = "cuda", .backend = FB_BACKEND_CUDA, .folder = "build/results/gpu", .peers = "build/peers", .peer_server = server,
                     .call = job_call, .open = device_open, .out = stdout, .progress = stderr};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'p':
            o.full = strcmp(optarg, "full") == 0;
            if (!o.full && strcmp(optarg, "quick") != 0) return bad("profile", optarg, "quick or full");
            break;
        case 'L':
            o.largest = strtod(optarg, &rest);
            if (*rest || !(o.largest >= 1)) return bad("largest", optarg, "a number of weights");
            break;
        case 'd':
            o.device = optarg;
            if (strcmp(optarg, "cuda") != 0 && strcmp(optarg, "host") != 0) return bad("device", optarg, "cuda or host");
            break;
        case 'b':
            if (!parse_backend(optarg, &o.backend)) return bad("backend", optarg, "cuda, cpu or reference");
            break;
        case 'm': models = optarg; break;
        case 'f': o.filter = *optarg ? optarg : NULL; break;
        case 'o': o.folder = optarg; break;
        case 'P': o.peers = strcmp(optarg, "none") == 0 ? NULL : optarg; break;
        case 'F': facts = true; break;
        case 'l': o.list = true; break;
        case 'h': fputs(usage, stdout); return RUN_OK;
        default: fputs("see --help\n", stderr); return RUN_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "fourbit-gpu: unexpected argument %s (see --help)\n", argv[optind]);
        return RUN_USAGE;
    }
    /* The reference on a GPU's pointers would crash, and so would kernels on the host's. */
    const char *simt = getenv("FOURBIT_CUDA");
    bool host_pointers = o.backend != FB_BACKEND_CUDA || (simt && strcmp(simt, "simt") == 0);
    if (!facts && !o.list && host_pointers != (strcmp(o.device, "host") == 0))
        return bad("device", o.device, host_pointers ? "host, with a backend that computes there" : "cuda, with the backend cuda");
    gpu_case *cases = gpu_layer_cases(models ? models : o.full ? "all" : "none", models && strcmp(models, "none") != 0 ? &no_cases : gpu_cases, why);
    if (!cases) return bad("models", models ? models : "", why);
    o.cases = cases;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int status = facts ? gpu_facts(&o) : gpu_bench_run(&o, &stopped);
    free(cases);
    return status;
}
