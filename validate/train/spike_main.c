/* spike_main.c: fourbit-spike: the spike test (spike.h) with its times, on a GPU or on the host. */
#include "spike_host.h"

#include "validate/checkpoint/atomic_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 1, USAGE = 2, NOT_RUN = 77 };

#pragma weak gpu_runtime_cuda
#pragma weak device_cuda

static const char help[] =
    "usage: fourbit-spike [--kind file|managed|pinned] [--mib N] [--state8] [--rounds N] [--folder DIR] [--help]\n"
    "\n"
    "Five runs of the same optimizer updates: resident, paged, paged while memory is taken away, a control that must fail to\n"
    "allocate, and saved and loaded while memory is taken away. Parameters, state and losses must have the same bits. Then\n"
    "what a pager costs that has nothing to move.\n"
    "\n"
    "  --kind K       file (default): on the host, memory is a budget; managed, pinned: on a GPU\n"
    "  --mib N        state in MiB; default 16 on the host, 256 on a GPU\n"
    "  --state8       8-bit state\n"
    "  --rounds N     pairs of steps for the cost of paging; default 60; 0: not measured\n"
    "  --folder DIR   for checkpoints and pages; default $TMPDIR or /var/tmp. What is left there is removed\n"
    "\n"
    "Exit status: 0 all holds, 1 it does not, 2 usage, 77 not run: no GPU.\n";

/* ---- a GPU's memory ------------------------------------------------------------------------------------------------------- */

enum { HOGS = 4096 };
typedef struct card {
    const gpu_runtime *gpu;
    void *hogs[HOGS];
    int count;
} card;

static size_t card_free(void *self)
{
    const card *c = self;
    size_t free_bytes = 0, total;
    char why[GPU_WHY];
    return c->gpu->memory(c->gpu->self, &free_bytes, &total, why) ? free_bytes : 0;
}
static void card_give(void *self)
{
    card *c = self;
    while (c->count > 0) c->gpu->free_device(c->gpu->self, c->hogs[--c->count]);
}
/* Large pieces first; the last ones small, as the runtime rounds what it gives. */
static bool card_take(void *self, size_t left, ck_error *e)
{
    card *c = self;
    char why[GPU_WHY] = "";
    for (size_t piece = (size_t)8 << 30; piece >= (size_t)2 << 20; piece /= 2)
        while (card_free(c) > left && card_free(c) - left >= piece) {
            void *p = c->count < HOGS ? c->gpu->alloc_device(c->gpu->self, piece, why) : NULL;
            if (!p) break;
            c->hogs[c->count++] = p;
        }
    if (c->count > 0) return true;
    return ck_fail(e, "hog", NULL, "took nothing of %zu bytes: %s", card_free(c), why);
}

/* Bytes a second of plain copies between pinned memory and the card, both ways one after the other. */
static double copy_speed(const gpu_runtime *gpu, void *stream)
{
    enum { BYTES = 64 << 20, TIMES = 8 };
    char why[GPU_WHY];
    void *host = gpu->alloc_pinned(gpu->self, BYTES, why), *there = gpu->alloc_device(gpu->self, BYTES, why);
    double speed = 0;
    if (host && there) {
        struct timespec a, b;
        memset(host, 1, BYTES);
        for (int i = -1; i < TIMES; i++) {
            if (i == 0) clock_gettime(CLOCK_MONOTONIC, &a);
            gpu->copy(gpu->self, there, host, BYTES, true, stream, why);
            gpu->copy(gpu->self, host, there, BYTES, false, stream, why);
            gpu->sync_stream(gpu->self, stream, why);
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        speed = 2.0 * BYTES * TIMES / ((double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec));
    }
    if (there) gpu->free_device(gpu->self, there);
    if (host) gpu->free_pinned(gpu->self, host);
    return speed;
}

/* ---- the table ------------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* p50, p95 and the longest of the steps from ... to - 1, in ms. */
static void print_times(const spike_arm *a, int from, int to)
{
    double s[SPIKE_STEPS];
    int n = to - from;
    memcpy(s, a->seconds + from, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, by_value);
    printf("  %8.3f %8.3f %8.3f", 1e3 * s[n / 2], 1e3 * s[(n * 95 + 99) / 100 - 1], 1e3 * s[n - 1]);
}

static void print_table(const spike_result *r, double copies)
{
    printf("%-9s %-28s%-28s%-28s%12s%12s%10s\n", "arm", "ms before (p50 p95 max)", "ms with the hog", "ms after", "MiB in", "MiB out", "GB/s");
    for (int i = 0; i < SPIKE_ARMS; i++) {
        const spike_arm *a = &r->arms[i];
        if (i == SPIKE_CONTROL) {
            printf("%-9s no memory, as it must be: %s\n", a->name, r->control);
            continue;
        }
        uint64_t moved = 0;
        double seconds = 0;
        for (int k = SPIKE_FROM + 1; k < SPIKE_TO; k++) moved += a->moved[k], seconds += a->seconds[k];
        printf("%-9s", a->name);
        print_times(a, 1, SPIKE_FROM);
        print_times(a, SPIKE_FROM, SPIKE_TO);
        print_times(a, SPIKE_TO, SPIKE_STEPS);
        printf("  %10.1f  %10.1f  %8.2f\n", (double)a->bytes_in / 1048576, (double)a->bytes_out / 1048576, moved ? (double)moved / seconds * 1e-9 : 0);
    }
    printf("state %.1f MiB; GB/s: what moved in the steps with the hog over their time", (double)r->state_bytes / 1048576);
    if (copies > 0) printf("; plain pinned copies: %.2f", copies * 1e-9);
    printf("\n");
}

/* ---- running --------------------------------------------------------------------------------------------------------------- */

typedef struct options {
    pager_kind kind;
    long mib, rounds;
    bool state8;
    const char *folder;
} options;

/* limit: of a budget in place of a card, which then makes room for resident and paged beside each other. */
static int measured(const options *o, const spike_setup *s, double copies, size_t *limit)
{
    static spike_result r;
    ck_error e = {0};
    spike_overhead cost;
    bool good = spike_run(s, &r, &e);
    if (good) {
        print_table(&r, copies);
        printf("resident, paged, hog and reload: the same bits in every parameter, state and loss\n");
        if (limit) *limit *= 3;
    }
    if (good && o->rounds > 0 && (good = spike_measure_overhead(s, (int)o->rounds, &cost, &e)))
        printf("nothing to page: resident %.3f ms, paged %.3f ms a step; ratio %.4f (median of %ld pairs in turn)\n", 1e3 * cost.resident,
               1e3 * cost.paged, cost.ratio, o->rounds);
    if (good) return 0;
    fprintf(stderr, "fourbit-spike: %s\n", e.message);
    return FAILED;
}

static int on_host(const options *o, const char *folder)
{
    spike_host h;
    spike_setup s = spike_host_setup(&h, folder, (int64_t)o->mib * 1048576 / (o->state8 ? 2 : 8), o->state8);
    return measured(o, &s, 0, &h.limit);
}

static int on_gpu(const options *o, const char *folder)
{
    static card c;
    char why[DEVICE_TEXT] = "this program was built without CUDA (no nvcc)";
    c.gpu = gpu_runtime_cuda ? gpu_runtime_cuda(why) : NULL;
    device *d = c.gpu && device_cuda ? device_cuda(true, why) : NULL;
    if (!d) {
        printf("not run: no GPU (%s)\n", why);
        return NOT_RUN;
    }
    spike_setup s = {.device = d, .memory = {&c, card_free, card_take, card_give}, .state8 = o->state8, .folder = folder,
                     .elements = (int64_t)o->mib * 1048576 / (o->state8 ? 2 : 8),
                     .paged = {.kind = o->kind, .gpu = c.gpu, .stream = d->stream, .device = d, .reserve = (size_t)64 << 20}};
    fb_context_init(&s.context, FB_BACKEND_CUDA);
    s.context.stream = d->stream;
    printf("%s, %s memory\n", d->name, pager_kind_name(o->kind));
    int status = measured(o, &s, copy_speed(c.gpu, d->stream), NULL);
    d->close(d);
    return status;
}

static bool number(const char *text, long least, long most, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    return *text && !*end && *out >= least && *out <= most;
}

static int wrong(const char *what)
{
    fprintf(stderr, "fourbit-spike: %s: not understood (--help)\n", what);
    return USAGE;
}

static void clean(const char *folder)
{
    static const char *const names[] = {"resident", "paged", "hog", "reload", "middle"};
    char path[4096];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s.safetensors", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(int argc, char **argv)
{
    options o = {.kind = PAGER_FILE, .rounds = 60};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--help") == 0) return fputs(help, stdout), 0;
        if (strcmp(argv[i], "--state8") == 0) {
            o.state8 = true;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--kind") == 0) {
            for (o.kind = PAGER_FILE; o.kind < PAGER_KIND_COUNT && strcmp(value, pager_kind_name(o.kind)) != 0;) o.kind++;
            if (o.kind == PAGER_KIND_COUNT) return wrong("--kind");
        } else if (strcmp(argv[i - 1], "--mib") == 0) {
            if (!number(value, 1, 1 << 20, &o.mib)) return wrong("--mib");
        } else if (strcmp(argv[i - 1], "--rounds") == 0) {
            if (!number(value, 0, 100000, &o.rounds)) return wrong("--rounds");
        } else if (strcmp(argv[i - 1], "--folder") == 0 && *value) {
            o.folder = value;
        } else {
            return wrong(argv[i - 1]);
        }
    }
    if (o.mib == 0) o.mib = o.kind == PAGER_FILE ? 16 : 256;
    if (!o.folder) o.folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp";
    char folder[2048];
    snprintf(folder, sizeof folder, "%s/fourbit-spike-XXXXXX", o.folder);
    if (!mkdtemp(folder)) {
        perror(folder);
        return FAILED;
    }
    af_cleanup_on_signals();
    int status = o.kind == PAGER_FILE ? on_host(&o, folder) : on_gpu(&o, folder);
    clean(folder);
    return status;
}
