/* gpu_ceilings.c: what a device can do, measured in the run that is compared with it; and what it is (gpu_run.h). */
#include "bench/gpu_run.h"

#include "validate/inputs.h"

#include <stdlib.h>

enum { SAMPLES = 7, COPIES = 8, PRODUCTS = 4, PATTERN = (1 << 20) + 7 };

static bool failed(device *d, char *why)
{
    snprintf(why, TIMING_WHY, "%s", d->why);
    return false;
}

/* Random numbers all over p: on zeros memory and arithmetic draw less power and run at higher clocks (a bf16 product 13 % faster). */
static bool randomise(device *d, void *p, size_t bytes, char *why)
{
    size_t size = PATTERN * sizeof(uint16_t);
    uint16_t *pattern = malloc(size);
    if (!pattern) return snprintf(why, TIMING_WHY, "no memory"), false;
    input_fill(INPUT_GAUSSIAN, 21, 64, pattern, FB_BF16, PATTERN);
    bool ok = true;
    for (size_t done = 0; done < bytes && ok; done += size)
        ok = d->upload(d, (char *)p + done, pattern, bytes - done < size ? bytes - done : size);
    free(pattern);
    return ok || failed(d, why);
}

typedef enum { MEMCPY, KERNEL_COPY, KERNEL_READ, MOVES } move;

static bool moved(device *d, move how, char *to, const char *from, size_t bytes)
{
    switch (how) {
    case MEMCPY: return d->copy(d, to, from, bytes);
    case KERNEL_COPY: return d->copy_by_kernel(d, to, from, bytes);
    default: return d->read_by_kernel(d, from, bytes);
    }
}

/* The best of each: reading alone is a ceiling of its own, above the copies'. None is recorded: in a graph a memcpy is a copy engine's. */
static bool measure_copy(ceilings *c, device *d, char *why)
{
    size_t bytes = 8 * d->l2_bytes, least = (size_t)256 << 20;
    if (!d->caveat && bytes < least) bytes = least;
    char *from = d->alloc(d, bytes), *to = from ? d->alloc(d, bytes) : NULL;
    bool ok = to ? randomise(d, from, bytes, why) : failed(d, why);
    for (int i = 0; i < SAMPLES * MOVES && ok; i++) {
        const move how = (move)(i % MOVES);
        double seconds = 0, *best = how == KERNEL_READ ? &c->read_bw : &c->copy_bw;
        if ((how == KERNEL_COPY && !d->copy_by_kernel) || (how == KERNEL_READ && !d->read_by_kernel)) continue;
        ok = d->flush(d) && d->begin(d);
        for (int k = 0; k < COPIES && ok; k++) ok = moved(d, how, to, from, bytes);
        ok = (ok && d->end(d) && d->elapsed(d, &seconds)) || failed(d, why);
        const double rate = seconds > 0 ? (how == KERNEL_READ ? 1.0 : 2.0) * COPIES * (double)bytes / seconds : 0;
        if (!ok || rate <= *best) continue;
        *best = rate;
        if (how == MEMCPY) c->copy_by = d->caveat ? "memcpy on the host" : "cudaMemcpyAsync on the device, random data";
        if (how == KERNEL_COPY) c->copy_by = "a kernel of 16 bytes a lane, random data";
    }
    if (from) d->release(d, from);
    if (to) d->release(d, to);
    return ok;
}

static bool measure_product(ceilings *c, device *d, cublas *b, char *why)
{
    const gpu_case cube = {.op = GPU_GEMM, .rows = 8192, .cols = 8192, .m = 8192, .dtype = FB_BF16};
    size_t bytes = (size_t)8192 * 8192 * 2;
    char *p = d->alloc(d, 3 * bytes);
    bool ok = p ? randomise(d, p, 2 * bytes, why) : failed(d, why);
    for (int i = 0; i < SAMPLES && ok; i++) {
        double seconds = 0, flops = PRODUCTS * 2.0 * 8192 * 8192 * 8192;
        ok = d->begin(d) || failed(d, why);
        for (int k = 0; k < PRODUCTS && ok; k++) ok = cublas_product(b, &cube, p, p + bytes, p + 2 * bytes, why);
        if (ok) ok = (d->end(d) && d->elapsed(d, &seconds)) || failed(d, why);
        if (ok && seconds > 0 && flops / seconds > c->bf16_peak) c->bf16_peak = c->gemm_peak = flops / seconds;
    }
    if (p) d->release(d, p);
    c->bf16_by = "cuBLAS 8192^3, random data";
    return ok;
}

bool gpu_ceilings(ceilings *c, device *d, cublas *b, char why[TIMING_WHY])
{
    if (!c->bf16_by) c->bf16_by = "not measured";
    c->rounds++;
    return measure_copy(c, d, why) && (!b || measure_product(c, d, b, why));
}

double gpu_excess(const ceilings *c, const work_cost *cost, double seconds, bool cached)
{
    const double bandwidth = c->read_bw > c->copy_bw ? c->read_bw : c->copy_bw; /* most rows read more than they write */
    double least = 0;
    if (c->gemm_peak > 0) least = cost->flops / c->gemm_peak;
    if (!cached && bandwidth > 0 && (cost->read + cost->written) / bandwidth > least) least = (cost->read + cost->written) / bandwidth;
    return least / seconds;
}

/* ---- what it is ------------------------------------------------------------------------------------------------------------- */

#pragma weak device_cuda_versions /* absent in a build without nvcc */

static void say(void *context, const char *key, const char *value) { provenance_set(context, key, "%s", value); }

void gpu_provenance(json_t *context, device *d, const cublas *b, nvml *n, const char *nvml_missing)
{
    int runtime = 0, driver = 0;
    if (device_cuda_versions) device_cuda_versions(&runtime, &driver);
    provenance_set(context, "device", "%s%s%s", d->kind, d->caveat ? ": " : "", d->caveat ? d->caveat : "");
    provenance_set(context, "gpu", "%s", d->name);
    provenance_set(context, "gpu_pci", "%s", d->bus_id);
    provenance_set(context, "gpu_l2_bytes", "%zu", d->l2_bytes);
    provenance_set(context, "gpu_free_at_start", "%.1f GiB", (double)d->free_bytes / (1 << 30));
    provenance_set(context, "cuda_runtime", "%d.%d", runtime / 1000, runtime % 1000 / 10);
    provenance_set(context, "cuda_driver", "%d.%d", driver / 1000, driver % 1000 / 10);
    if (b) provenance_set(context, "cublas", "%d", cublas_version(b));
    provenance_set(context, "nvml", "%s", n ? "loaded" : nvml_missing);
    if (n) nvml_describe(n, say, context);
}

int gpu_facts(const gpu_options *options)
{
    char why[TIMING_WHY] = "", missing[TIMING_WHY] = "";
    device *d = options->open(options->device, why);
    if (!d) {
        fprintf(options->out, "no GPU: %s\n", why);
        return GPU_RUN_NO_DEVICE;
    }
    nvml *n = nvml_open(options->nvml, d->bus_id, missing);
    json_t *context = json_object();
    gpu_provenance(context, d, NULL, n, missing);
    for (void *i = json_object_iter(context); i; i = json_object_iter_next(context, i))
        fprintf(options->out, "%-30s %s\n", json_object_iter_key(i), json_string_value(json_object_iter_value(i)));
    json_decref(context);
    nvml_close(n);
    d->close(d);
    return RUN_OK;
}
