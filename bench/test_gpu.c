/* test_gpu.c: tests of the GPU harness without a GPU. The device is the host's, or a fake one with a clock of its own
 * that goes on by a fixed time a call, remembers recordings as counts, and fails when it is told to. */
#include "bench/gpu_peers.h"
#include "bench/gpu_run.h"
#include "bench/peers.h"

#include <CUnit/Basic.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/fourbit-gpu-XXXXXX";
static const volatile sig_atomic_t going = 0, stopping = 1;

/* ---- a fake device --------------------------------------------------------------------------------------------------- */

static struct {
    device *host;
    device d;
    double clock, began, ended;
    int recording, recorded; /* calls in the recording that is made; a recording is 1 + its calls */
    int calls, flushes, records, replays, live, fail_alloc_at, allocs;
    int flushes_at_begin;
} fake;

static const double call_seconds = 1e-5;

static void *fake_alloc(device *d, size_t bytes)
{
    if (++fake.allocs == fake.fail_alloc_at) return snprintf(d->why, sizeof d->why, "planted: out of memory"), NULL;
    fake.live++;
    return fake.host->alloc(fake.host, bytes);
}
static void fake_release(device *d, void *p)
{
    (void)d;
    if (p) fake.live--;
    fake.host->release(fake.host, p);
}
static bool fake_flush(device *d) { return (void)d, fake.flushes++, true; }
static bool fake_begin(device *d) { return (void)d, fake.began = fake.clock, fake.flushes_at_begin = fake.flushes, true; }
static bool fake_end(device *d) { return (void)d, fake.ended = fake.clock, true; }
static bool fake_elapsed(device *d, double *s) { return (void)d, *s = fake.ended - fake.began, true; }
static bool fake_record_begin(device *d) { return (void)d, fake.recording = 1, fake.recorded = 0, fake.records++, true; }
static void *fake_record_end(device *d)
{
    (void)d;
    fake.recording = 0;
    return (void *)(uintptr_t)(1 + fake.recorded);
}
static bool fake_replay(device *d, void *recording)
{
    (void)d;
    int calls = (int)(uintptr_t)recording - 1;
    fake.replays++, fake.calls += calls, fake.clock += calls * call_seconds;
    return true;
}
static void fake_drop(device *d, void *recording) { (void)d, (void)recording, fake.records--; }
static void fake_close(device *d) { (void)d, fake.host->close(fake.host), fake.host = NULL; }

static device *open_fake(size_t l2, size_t memory)
{
    char why[DEVICE_TEXT];
    memset(&fake, 0, sizeof fake);
    fake.host = device_host(0, why);
    fake.d = *fake.host;
    fake.d.kind = "fake", fake.d.caveat = NULL, fake.d.l2_bytes = l2, fake.d.free_bytes = memory, fake.d.records = true;
    snprintf(fake.d.bus_id, sizeof fake.d.bus_id, "0000:1B:00.0");
    fake.d.alloc = fake_alloc, fake.d.release = fake_release, fake.d.flush = fake_flush, fake.d.begin = fake_begin, fake.d.end = fake_end;
    fake.d.elapsed = fake_elapsed, fake.d.record_begin = fake_record_begin, fake.d.record_end = fake_record_end;
    fake.d.replay = fake_replay, fake.d.drop = fake_drop, fake.d.close = fake_close;
    return &fake.d;
}

static uintptr_t places[GPU_SETS_MAX + 1];
static int distinct;

static bool count_call(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    (void)self, (void)why;
    uintptr_t at = (uintptr_t)p[JOB_OUT];
    int i = 0;
    while (i < distinct && places[i] != at) i++;
    if (i == distinct && distinct <= GPU_SETS_MAX) places[distinct++] = at;
    if (fake.recording) fake.recorded++;
    else fake.calls++, fake.clock += call_seconds;
    return true;
}

static const gpu_case small = {GPU_DEQUANTIZE, FB_NF4, 64, false, 64, 64, 0, FB_BF16, CASE_QUICK, 0};
static gpu_job job;

static gpu_runner counting(device *d, bool recorded)
{
    char why[TIMING_WHY] = "";
    gpu_runner r = {.call = count_call, .recorded = recorded};
    CU_ASSERT_TRUE_FATAL(job_make(&job, &small, why));
    CU_ASSERT_TRUE_FATAL(gpu_sets_make(&r.sets, d, &job, job_roles(&job), why));
    distinct = 0;
    return r;
}

/* ---- sets and samples -------------------------------------------------------------------------------------------------- */

static void test_sets(void)
{
    const struct { size_t l2, memory; int count; } expected[] = {
        {1 << 20, 1u << 30, 256},   /* 10.5 KB a set: the most there may be */
        {30000, 1u << 30, 9},       /* ceil(90000 / 10496) */
        {100, 1u << 30, 2},         /* never the same buffer twice in a row */
        {30000, 100000, 2},         /* a quarter of the memory: 25000 bytes */
        {30000, 1000, 1}};          /* no memory to speak of: one, and the allocation decides */
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        device *d = open_fake(expected[i].l2, expected[i].memory);
        gpu_runner r = counting(d, false);
        CU_ASSERT_EQUAL(r.sets.count, expected[i].count);
        void *first[JOB_ROLES], *last[JOB_ROLES];
        gpu_sets_pointers(&r.sets, 0, first), gpu_sets_pointers(&r.sets, r.sets.count - 1, last);
        CU_ASSERT_EQUAL((uintptr_t)last[JOB_OUT] % 256, 0);
        CU_ASSERT_PTR_NULL(first[JOB_NESTED]);
        CU_ASSERT_EQUAL(memcmp(last[JOB_CODES], job.b[JOB_CODES].initial, job.b[JOB_CODES].bytes), 0);
        CU_ASSERT_EQUAL(*(uint8_t *)last[JOB_OUT], 0xff);
        gpu_runner_free(&r);
        CU_ASSERT_EQUAL(fake.live, 0);
        d->close(d);
    }
}

static void test_samples(void)
{
    char why[TIMING_WHY] = "";
    timing_span span;
    for (int recorded = 0; recorded < 2; recorded++) {
        device *d = open_fake(30000, 1 << 30);
        gpu_runner r = counting(d, recorded);
        CU_ASSERT_TRUE(gpu_run(&r, 1, true, &span, why));
        CU_ASSERT_DOUBLE_EQUAL(span.wall, call_seconds, 1e-12);
        CU_ASSERT_EQUAL(distinct, 9);
        CU_ASSERT_EQUAL(fake.calls % 9, 0); /* every set as often as every other */
        CU_ASSERT((double)fake.calls * (double)r.sets.bytes >= 16.0 * 30000);
        CU_ASSERT_EQUAL(fake.flushes, 1);
        CU_ASSERT_EQUAL(fake.flushes_at_begin, 1); /* before the first mark */
        int cold_calls = fake.calls;
        distinct = 0;
        CU_ASSERT_TRUE(gpu_run(&r, 40, false, &span, why));
        CU_ASSERT_DOUBLE_EQUAL(span.wall, 40 * call_seconds, 1e-12);
        CU_ASSERT_EQUAL(distinct, 1);
        CU_ASSERT_EQUAL(fake.calls - cold_calls, 48); /* whole batches of 16 */
        CU_ASSERT_EQUAL(fake.flushes, 1);
        CU_ASSERT_TRUE(gpu_run(&r, 1, true, &span, why));
        CU_ASSERT_EQUAL(fake.records, recorded ? 2 : 0); /* made once, not at every sample */
        CU_ASSERT_EQUAL(fake.replays > 0, recorded);
        gpu_runner_free(&r);
        CU_ASSERT_EQUAL(fake.records, 0);
        CU_ASSERT_EQUAL(fake.live, 0);
        d->close(d);
    }
}

static bool refuse(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    (void)p;
    if (++*(int *)self % 3) return true;
    snprintf(why, TIMING_WHY, "planted");
    return false;
}

static void test_failing_calls(void)
{
    char why[TIMING_WHY] = "";
    timing_span span;
    for (int recorded = 0; recorded < 2; recorded++) {
        device *d = open_fake(30000, 1 << 30);
        gpu_runner r = counting(d, recorded);
        int count = 0;
        r.call = refuse, r.self = &count;
        CU_ASSERT_FALSE(gpu_run(&r, 1, true, &span, why));
        CU_ASSERT_STRING_EQUAL(why, "planted");
        CU_ASSERT_EQUAL(fake.recording, 0); /* the recording was ended */
        gpu_runner_free(&r);
        CU_ASSERT_EQUAL(fake.records, 0);
        CU_ASSERT_EQUAL(fake.live, 0);
        d->close(d);
    }
    for (int at = 1; at <= 3; at++) { /* sets, workspace, word */
        device *d = open_fake(30000, 1 << 30);
        gpu_ours o;
        fake.fail_alloc_at = at;
        CU_ASSERT_FALSE(gpu_ours_make(&o, d, &job, FB_BACKEND_REFERENCE, job_call, why));
        CU_ASSERT_STRING_EQUAL(why, "planted: out of memory");
        gpu_ours_free(&o);
        CU_ASSERT_EQUAL(fake.live, 0);
        d->close(d);
    }
}

static void test_excess(void)
{
    ceilings c = {.copy_bw = 1e12, .gemm_peak = 1e14};
    work_cost bytes = {6e8, 4e8, 0}, flops = {1, 1, 1e11};
    CU_ASSERT_DOUBLE_EQUAL(gpu_excess(&c, &bytes, 1e-3, false), 1, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(gpu_excess(&c, &bytes, 1e-3, true), 0, 0);
    CU_ASSERT_DOUBLE_EQUAL(gpu_excess(&c, &flops, 5e-4, true), 2, 1e-9);
    c.read_bw = 2e12; /* reading is faster than copying: the roof is what can be, whatever the row does */
    CU_ASSERT_DOUBLE_EQUAL(gpu_excess(&c, &bytes, 1e-3, false), 0.5, 1e-9);
}

/* Rates in bytes a second of a memcpy, of a kernel's copy and reading; 0: there is no such kernel. */
static double memcpy_rate, kernel_rate, read_rate;
static int moves[3], moves_recorded;
static bool move_for(int which, double seconds) { return moves[which]++, moves_recorded += fake.recording, fake.clock += seconds, true; }
static bool rated_copy(device *d, void *to, const void *from, size_t n) { return (void)d, (void)to, (void)from, move_for(0, 2 * (double)n / memcpy_rate); }
static bool rated_kernel(device *d, void *to, const void *from, size_t n) { return (void)d, (void)to, (void)from, move_for(1, 2 * (double)n / kernel_rate); }
static bool rated_read(device *d, const void *from, size_t n) { return (void)d, (void)from, move_for(2, (double)n / read_rate); }

static void test_ceilings(void)
{
    const struct { double memcpy_rate, kernel_rate, read_rate, copy, read; const char *by; } expected[] = {
        {2.7e12, 4.3e12, 4.6e12, 4.3e12, 4.6e12, "a kernel of 16 bytes a lane"}, /* the memcpy was a copy engine's */
        {4.4e12, 4.3e12, 4.2e12, 4.4e12, 4.2e12, "cudaMemcpyAsync"},
        {4.4e12, 0, 0, 4.4e12, 0, "cudaMemcpyAsync"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        device *d = open_fake(30000, 1 << 30);
        ceilings c = {0};
        char why[TIMING_WHY] = "";
        memcpy_rate = expected[i].memcpy_rate, kernel_rate = expected[i].kernel_rate, read_rate = expected[i].read_rate;
        memset(moves, 0, sizeof moves), moves_recorded = 0;
        d->copy = rated_copy, d->copy_by_kernel = kernel_rate > 0 ? rated_kernel : NULL, d->read_by_kernel = read_rate > 0 ? rated_read : NULL;
        CU_ASSERT_TRUE(gpu_ceilings(&c, d, NULL, why));
        CU_ASSERT_DOUBLE_EQUAL(c.copy_bw, expected[i].copy, 1e6);
        CU_ASSERT_DOUBLE_EQUAL(c.read_bw, expected[i].read, 1e6);
        CU_ASSERT(c.copy_by && strstr(c.copy_by, expected[i].by) != NULL);
        CU_ASSERT(moves[0] > 0 && (moves[1] > 0) == (kernel_rate > 0) && (moves[2] > 0) == (read_rate > 0));
        CU_ASSERT_EQUAL(moves_recorded, 0);
        const char *best = c.copy_by;
        memcpy_rate /= 2, kernel_rate /= 2; /* a busy round hides no ceiling */
        CU_ASSERT_TRUE(gpu_ceilings(&c, d, NULL, why));
        CU_ASSERT_DOUBLE_EQUAL(c.copy_bw, expected[i].copy, 1e6);
        CU_ASSERT_PTR_EQUAL(c.copy_by, best);
        CU_ASSERT_EQUAL(fake.live, 0);
        d->close(d);
    }
}

/* ---- NVML ------------------------------------------------------------------------------------------------------------------ */

static char described[4096];
static void describe(void *user, const char *key, const char *value)
{
    (void)user;
    size_t used = strlen(described);
    snprintf(described + used, sizeof described - used, "%s=%s\n", key, value);
}

static void test_nvml(void)
{
    char why[TIMING_WHY] = "";
    unsigned sm = 0, memory = 0;
    CU_ASSERT_PTR_NULL(nvml_open("/nowhere/libnvidia-ml.so", "x", why));
    CU_ASSERT(strstr(why, "/nowhere/libnvidia-ml.so") != NULL);
    CU_ASSERT_PTR_NULL(nvml_open(TEST_PEER, "x", why)); /* a library, but not that one */
    CU_ASSERT(strstr(why, "nvmlInit_v2") != NULL);
    CU_ASSERT_PTR_NULL(nvml_open(TEST_NVML, "0000:99:00.0", why));
    CU_ASSERT(strstr(why, "0000:99:00.0") != NULL);
    CU_ASSERT_FALSE(nvml_clocks(NULL, &sm, &memory));
    nvml *n = nvml_open(TEST_NVML, "0000:1B:00.0", why);
    CU_ASSERT_PTR_NOT_NULL_FATAL(n);
    CU_ASSERT_TRUE(nvml_clocks(n, &sm, &memory));
    CU_ASSERT(sm >= 1500 && memory == 2619);
    nvml_describe(n, describe, NULL);
    nvml_close(n);
    CU_ASSERT(strstr(described, "gpu_driver=580.1\n") && strstr(described, "gpu_uuid=GPU-1234\n") && strstr(described, "gpu_ecc=on\n"));
    CU_ASSERT(strstr(described, "gpu_power_limit=not said\n") && strstr(described, "gpu_persistence=not said\n"));
}

/* ---- peers ------------------------------------------------------------------------------------------------------------------- */

static void test_peer_tolerance(void)
{
    char why[TIMING_WHY] = "";
    gpu_case c = small;
    void *got[JOB_ROLES] = {0};
    c.op = GPU_QUANTIZE;
    CU_ASSERT_TRUE_FATAL(job_make(&job, &c, why));
    got[JOB_CODES] = malloc(job.b[JOB_CODES].bytes), got[JOB_ABSMAX] = malloc(job.b[JOB_ABSMAX].bytes);
    memcpy(got[JOB_CODES], job.b[JOB_CODES].want, job.b[JOB_CODES].bytes), memcpy(got[JOB_ABSMAX], job.b[JOB_ABSMAX].want, job.b[JOB_ABSMAX].bytes);
    uint8_t *codes = got[JOB_CODES];
    for (int i = 0; i < 4; i++) codes[100 * i] ^= 1; /* 4 of 4096: 0.98 in a thousand */
    CU_ASSERT_TRUE(job_check_peer(&job, got, why));
    codes[50] ^= 0x10;
    CU_ASSERT_FALSE(job_check_peer(&job, got, why));
    CU_ASSERT(strstr(why, "5 of 4096 codes") != NULL);
    codes[50] ^= 0x10;
    ((float *)got[JOB_ABSMAX])[3] = NAN;
    CU_ASSERT_FALSE(job_check_peer(&job, got, why));
    gpu_release(got);

    c.op = GPU_ADAMW32, c.block_size = 0;
    CU_ASSERT_TRUE_FATAL(job_make(&job, &c, why));
    got[JOB_DENSE] = malloc(job.b[JOB_DENSE].bytes);
    memcpy(got[JOB_DENSE], job.b[JOB_DENSE].want, job.b[JOB_DENSE].bytes);
    CU_ASSERT_TRUE(job_check_peer(&job, got, why));
    memcpy(got[JOB_DENSE], job.b[JOB_DENSE].initial, job.b[JOB_DENSE].bytes); /* it did nothing */
    CU_ASSERT_FALSE(job_check_peer(&job, got, why));
    gpu_release(got);
}

/* A layer's outputs as they are right, then with one of them off by more than a peer's rounding. */
static void test_peer_tolerance_lora(void)
{
    static const struct { gpu_op op; gpu_role wrong; const char *said; } faults[] = {
        {GPU_LORA, JOB_OUT, "from the product"}, {GPU_LORA_BACKWARD, JOB_OUT, "from the product"}, {GPU_LORA_BACKWARD, JOB_DA, "dA"}, {GPU_LORA_BACKWARD, JOB_DB, "dB"}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char why[TIMING_WHY] = "";
        gpu_case c = {faults[i].op, FB_NF4, 64, false, 64, 128, 3, FB_BF16, CASE_QUICK, 4};
        void *got[JOB_ROLES] = {0}, *p[JOB_ROLES];
        fb_context ref;
        fb_context_init(&ref, FB_BACKEND_REFERENCE);
        CU_ASSERT_TRUE_FATAL(job_make(&job, &c, why));
        for (int r = 0; r < JOB_ROLES; r++) {
            if (job.b[r].written) got[r] = malloc(job.b[r].bytes);
            p[r] = got[r] ? got[r] : job.b[r].initial;
        }
        CU_ASSERT_EQUAL(job_workspace(&ref, &c, &ref.workspace_bytes), FB_OK);
        ref.workspace = job_own(&job, ref.workspace_bytes);
        CU_ASSERT_EQUAL(job_call(&ref, &c, p), FB_OK);
        CU_ASSERT_TRUE(job_check_peer(&job, got, why));
        const job_buffer *b = &job.b[faults[i].wrong];
        const int64_t n = (int64_t)(b->bytes / fb_dtype_size(b->dtype));
        for (int64_t k = 0; k < n; k++) fb_store(got[faults[i].wrong], b->dtype, k, 1.05f * fb_load(got[faults[i].wrong], b->dtype, k));
        CU_ASSERT_FALSE(job_check_peer(&job, got, why));
        CU_ASSERT(strstr(why, faults[i].said) != NULL);
        gpu_release(got);
    }
}

static void test_peer_does(void)
{
    char why[TIMING_WHY] = "";
    const struct { gpu_case c; bool does; } cases[] = {
        {{GPU_QUANTIZE, FB_NF4, 64, false, 64, 64, 0, FB_BF16, 0, 0}, true},  {{GPU_QUANTIZE, FB_NF4, 64, true, 64, 64, 0, FB_BF16, 0, 0}, false},
        {{GPU_DEQUANTIZE, FB_FP4, 64, true, 64, 64, 0, FB_BF16, 0, 0}, true}, {{GPU_DEQUANTIZE, FB_INT4, 64, false, 64, 64, 0, FB_BF16, 0, 0}, false},
        {{GPU_GEMM, FB_NF4, 64, false, 64, 96, 1, FB_BF16, 0, 0}, false},     {{GPU_GEMM_DX, FB_NF4, 64, false, 64, 64, 1, FB_BF16, 0, 0}, false},
        {{GPU_LORA, FB_NF4, 64, false, 64, 64, 1, FB_BF16, 0, 8}, false},
        {{GPU_ADAMW8, FB_NF4, 256, false, 65536, 65536, 0, FB_BF16, 0, 0}, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) CU_ASSERT_EQUAL(gpu_peer_does(&cases[i].c, why), cases[i].does);
}

/* ---- whole runs ----------------------------------------------------------------------------------------------------------------- */

#define TINY(op, format, block, dq, m, t) {op, format, block, dq, 96, 192, m, t, CASE_QUICK, 0},
#define LAYER(op, dq, m, rank) {op, FB_NF4, 64, dq, 96, 192, m, FB_BF16, CASE_QUICK, rank},
static const gpu_case tiny[] = {
    TINY(GPU_QUANTIZE, FB_NF4, 64, false, 0, FB_BF16) TINY(GPU_QUANTIZE, FB_INT4_AFFINE, 64, true, 0, FB_F16)
    TINY(GPU_DEQUANTIZE, FB_NF4, 64, true, 0, FB_BF16) TINY(GPU_QUANTIZE8, FB_NF4, 256, false, 0, FB_BF16)
    TINY(GPU_DEQUANTIZE8, FB_NF4, 256, false, 0, FB_F32) TINY(GPU_ADAMW32, FB_NF4, 0, false, 0, FB_BF16)
    TINY(GPU_ADAMW8, FB_NF4, FB_ADAMW_BLOCK, false, 0, FB_BF16) TINY(GPU_GEMM, FB_NF4, 64, false, 3, FB_BF16)
    TINY(GPU_GEMM_DX, FB_NF4, 64, true, 2, FB_BF16)
    LAYER(GPU_LORA, true, 5, 8) LAYER(GPU_LORA_BACKWARD, false, 4, 16)
    {GPU_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0}};

static const stop_rule brief = {.floor = 2, .ceiling = 3, .seconds = 0.1, .hard_seconds = 2, .spread = 1, .sample_seconds = 1e-5};
static FILE *sink;

static gpu_options run_of(fb_backend backend)
{
    return (gpu_options){.device = "host", .backend = backend, .folder = folder, .nvml = "/nowhere/libnvidia-ml.so", .cases = tiny, .call = job_call,
                         .open = device_open, .rule = &brief, .out = sink, .progress = sink};
}

static json_t *results_of_run(void)
{
    char path[64];
    json_error_t error;
    snprintf(path, sizeof path, "%s/bench.json", folder);
    return json_load_file(path, 0, &error);
}

static void expect_rows(const char *operation_of_failures, size_t rows)
{
    json_t *all = results_of_run(), *row;
    size_t i;
    CU_ASSERT_PTR_NOT_NULL_FATAL(all);
    json_t *list = json_object_get(all, "benchmarks"), *context = json_object_get(all, "context");
    CU_ASSERT_EQUAL(json_array_size(list), rows);
    CU_ASSERT(strstr(json_string_value(json_object_get(context, "nvml")), "/nowhere") != NULL);
    CU_ASSERT(strstr(json_string_value(json_object_get(context, "device")), "not a GPU") != NULL);
    json_array_foreach(list, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        bool failed = json_is_true(json_object_get(row, "error_occurred"));
        CU_ASSERT_EQUAL(failed, operation_of_failures && strncmp(name, operation_of_failures, strlen(operation_of_failures)) == 0);
        CU_ASSERT(strstr(json_string_value(json_object_get(row, "label")), "not a GPU's time") != NULL);
    }
    json_decref(all);
}

enum { TINY_ROWS = 11 + 9 }; /* AdamW is never hot */

static void test_run(void)
{
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK);
    expect_rows(NULL, TINY_ROWS);
    json_t *all = results_of_run(), *row;
    size_t i, with_base = 0;
    json_array_foreach(json_object_get(all, "benchmarks"), i, row) {
        with_base += json_number_value(json_object_get(row, "x_base")) > 0;
    }
    CU_ASSERT_EQUAL(with_base, 4); /* both layers, cold and hot */
    json_decref(all);
    o.filter = "^adamw";
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK);
    expect_rows(NULL, 2);
    o.largest = 10;
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_USAGE);
}

/* With memory for one set of buffers: a sample is one call. */
static device *open_small_host(const char *kind, char why[DEVICE_TEXT])
{
    (void)kind;
    device *d = device_host(0, why);
    if (d) d->free_bytes = 1;
    return d;
}

/* The CUDA kernels in the executor, where this program is linked with it. */
static void test_run_in_executor(void)
{
    fb_context ctx;
    setenv("FOURBIT_CUDA", "simt", 1);
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    bool linked = fb_backend_available(&ctx) == FB_OK;
    gpu_options o = run_of(FB_BACKEND_CUDA);
    o.filter = "^(quantize|dequantize|quantize8|dequantize8|adamw32|adamw8)/.*[0-9]$|/fp16$|/fp32$";
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), linked ? RUN_OK : GPU_RUN_NO_DEVICE);
    if (linked) expect_rows(NULL, 7);
    o.filter = "^lora.*[0-9]$", o.open = open_small_host; /* a layer and its gradients, and the product inside */
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), linked ? RUN_OK : GPU_RUN_NO_DEVICE);
    if (linked) expect_rows(NULL, 2);
    json_t *all = linked ? results_of_run() : NULL, *row;
    size_t i;
    json_array_foreach(json_object_get(all, "benchmarks"), i, row) {
        CU_ASSERT(json_number_value(json_object_get(row, "x_base")) > 0);
    }
    json_decref(all);
    unsetenv("FOURBIT_CUDA");
}

static fb_status wrong_codes(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    fb_status status = job_call(ctx, c, p);
    if (c->op == GPU_QUANTIZE) ((uint8_t *)p[JOB_CODES])[77] ^= 1;
    return status;
}

static int calls_until_wrong;
static fb_status wrong_later(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    fb_status status = job_call(ctx, c, p);
    if (c->op == GPU_DEQUANTIZE && --calls_until_wrong < 0) ((uint16_t *)p[JOB_OUT])[5] ^= 1;
    return status;
}

static fb_status no_products(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    if (!gpu_is_product(c->op)) return job_call(ctx, c, p);
    snprintf(ctx->message, sizeof ctx->message, "no kernel yet");
    return FB_UNSUPPORTED;
}

static fb_status no_lora(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    return gpu_is_lora(c->op) ? no_products(ctx, c, p) : job_call(ctx, c, p);
}

static fb_status wrong_gradient(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    fb_status status = job_call(ctx, c, p);
    if (c->op == GPU_LORA_BACKWARD) ((float *)p[JOB_DB])[5] += 1;
    return status;
}

static fb_status writes_nothing(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    return c->op == GPU_ADAMW8 ? FB_OK : job_call(ctx, c, p);
}

static void test_wrong_results(void)
{
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    o.call = wrong_codes;
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_FAILED);
    expect_rows("quantize/", TINY_ROWS);
    o.call = wrong_later, calls_until_wrong = 3; /* right when it is checked, wrong once it is timed */
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_FAILED);
    expect_rows("dequantize/", TINY_ROWS);
    o.call = writes_nothing;
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_FAILED);
    expect_rows("adamw8/", TINY_ROWS);
    o.call = wrong_gradient;
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_FAILED);
    expect_rows("lora_backward/", TINY_ROWS);
    o.call = no_lora; /* not there is not wrong */
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK);
    expect_rows("lora", TINY_ROWS);
    o.call = no_products, o.filter = "^gemm";
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK);
    expect_rows("gemm", 4);
}

static device *open_nothing(const char *kind, char why[DEVICE_TEXT])
{
    snprintf(why, DEVICE_TEXT, "planted: no %s", kind);
    return NULL;
}

static void test_no_device(void)
{
    char *text = NULL;
    size_t size = 0;
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    o.out = open_memstream(&text, &size), o.open = open_nothing, o.device = "cuda";
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), GPU_RUN_NO_DEVICE);
    CU_ASSERT_EQUAL(gpu_facts(&o), GPU_RUN_NO_DEVICE);
    fclose(o.out);
    CU_ASSERT(strstr(text, "not run: no GPU: planted: no cuda") != NULL);
    free(text);
}

static void test_interrupted(void)
{
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &stopping), RUN_INTERRUPTED);
    json_t *all = results_of_run();
    CU_ASSERT_PTR_NOT_NULL_FATAL(all);
    CU_ASSERT_TRUE(json_is_false(json_object_get(json_object_get(all, "context"), "complete")));
    json_decref(all);
}

/* On a fake GPU: clocks in the rows, and the marks' clock in the times. */
static device *open_for_run(const char *kind, char why[DEVICE_TEXT]) { return (void)kind, (void)why, open_fake(30000, 1 << 28); }
static fb_status clocked(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES])
{
    fake.clock += call_seconds;
    return job_call(ctx, c, p);
}

static void test_clocks_in_rows(void)
{
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    o.open = open_for_run, o.nvml = TEST_NVML, o.call = clocked, o.filter = "^dequantize/.*192$";
    CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK);
    CU_ASSERT_EQUAL(fake.live, 0);
    json_t *all = results_of_run();
    CU_ASSERT_PTR_NOT_NULL_FATAL(all);
    json_t *row = json_array_get(json_object_get(all, "benchmarks"), 0);
    CU_ASSERT(json_number_value(json_object_get(row, "sm_clock_min_MHz")) >= 1500);
    CU_ASSERT(json_number_value(json_object_get(row, "sm_clock_max_MHz")) >= json_number_value(json_object_get(row, "sm_clock_min_MHz")));
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "p50_us")), 1e6 * call_seconds, 1e-6);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_object_get(all, "context"), "gpu_uuid")), "GPU-1234");
    json_decref(all);
}

/* A host that says it is a GPU, with libraries that compute by the reference: every peer's way there and back. */
static device *open_pretender(const char *kind, char why[DEVICE_TEXT])
{
    (void)kind;
    device *d = device_host((size_t)64 << 10, why);
    if (d) d->caveat = NULL;
    return d;
}

static int rows_of_peer(json_t *list, const char *peer, int *failed)
{
    int count = 0;
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row) {
        if (!strstr(json_string_value(json_object_get(row, "name")), peer)) continue;
        count++, *failed += json_is_true(json_object_get(row, "error_occurred"));
    }
    return count;
}

static void test_peers_in_run(void)
{
    gpu_options o = run_of(FB_BACKEND_REFERENCE);
    const struct { const char *fault, *peer; int rows, failed; } runs[] = {
        {"", "/peer:bitsandbytes/", 7, 0},                   {"", "/peer:cublas/", 4, 0}, {"", "/peer:dequantize+cublas/", 4, 0},
        {"", "/peer:gemm+cublas/", 2, 0},
        {"wrong", "/peer:bitsandbytes/", 7, 7}, {"exit", "/peer:bitsandbytes/", 7, 7}};
    o.open = open_pretender, o.peers = PLANTED_PEERS, o.peer_server = PLANTED_SERVER, o.filter = "[0-9]$|/fp16$|/fp32$";
    setenv("CUDA_HOME", PLANTED_PEERS, 1);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        int failed = 0;
        setenv("PLANTED_FAULT", runs[i].fault, 1);
        if (i == 0 || runs[i].fault[0]) CU_ASSERT_EQUAL(gpu_bench_run(&o, &going), RUN_OK); /* a peer's fault is not ours */
        json_t *all = results_of_run();
        CU_ASSERT_PTR_NOT_NULL_FATAL(all);
        json_t *list = json_object_get(all, "benchmarks");
        CU_ASSERT_EQUAL(rows_of_peer(list, runs[i].peer, &failed), runs[i].rows);
        CU_ASSERT_EQUAL(failed, runs[i].failed);
        bool compared = json_object_get(json_array_get(list, 0), "x_bitsandbytes") != NULL;
        CU_ASSERT_EQUAL(compared, runs[i].fault[0] == 0);
        json_decref(all);
    }
    unsetenv("CUDA_HOME"), unsetenv("PLANTED_FAULT");
}

int main(void)
{
    sink = fopen("/dev/null", "w");
    if (!sink || !mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite s = CU_add_suite("gpu harness", NULL, NULL);
    struct { const char *name; CU_TestFunc test; } tests[] = {
        {"sets", test_sets}, {"samples", test_samples}, {"failing calls", test_failing_calls}, {"excess", test_excess}, {"NVML", test_nvml},
        {"peer tolerance", test_peer_tolerance}, {"peer tolerance, LoRA", test_peer_tolerance_lora}, {"peer does", test_peer_does}, {"ceilings", test_ceilings}, {"run", test_run}, {"run in executor", test_run_in_executor},
        {"wrong results", test_wrong_results}, {"no device", test_no_device}, {"interrupted", test_interrupted},
        {"clocks in rows", test_clocks_in_rows}, {"peers in run", test_peers_in_run}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!s || !CU_add_test(s, tests[i].name, tests[i].test)) return 1;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    job_free(&job);
    fclose(sink);
    char clean[64];
    snprintf(clean, sizeof clean, "rm -rf %s", folder);
    return system(clean) != 0 || failures > 0;
}
