/* test_runs.c: whole runs of the benchmark: with wrong kernels, impossible times, interruptions, crashing peers. */
#include "bench/peers.h"
#include "bench/results.h"
#include "bench/run.h"
#include "bench/test_bench.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t never, stop;
static const char *folder;
static FILE *nowhere;

/* ---- runs with planted kernels ------------------------------------------------------------------------------ */

static const fb_case cases[] = {
    {FB_OP_QUANTIZE, FB_NF4, 64, true, 64, 256, 0, FB_BF16, CASE_QUICK, 0},
    {FB_OP_DEQUANTIZE, FB_NF4, 64, false, 64, 256, 0, FB_BF16, CASE_QUICK, 0},
    {FB_OP_GEMM, FB_INT4_AFFINE, 32, false, 96, 256, 9, FB_BF16, CASE_QUICK, 0},
    {FB_OP_GEMM_DX, FB_FP4, 64, true, 96, 256, 3, FB_F32, CASE_QUICK, 0},
    {FB_OP_LORA_FORWARD, FB_NF4, 64, true, 96, 256, 9, FB_BF16, CASE_QUICK, 8},
    {FB_OP_LORA_BACKWARD, FB_NF4, 64, false, 96, 256, 5, FB_BF16, CASE_QUICK, 8},
    {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0},
};

/* Nothing real reaches these; rounds says that measuring again is not worth it. */
static const ceilings high = {1e12, 1e12, 1e14, 1e14, 0, 1e14, "test", "test", "none", 99};
static json_t *result(void)
{
    char path[128];
    json_error_t error;
    snprintf(path, sizeof path, "%s/bench.json", folder);
    json_t *all = json_load_file(path, 0, &error);
    if (!all) fprintf(stderr, "%s: %s\n", path, error.text);
    return all;
}

static run_options options_for(const bench_ops *ops, const char *filter)
{
    return (run_options){.backends = 1u << FB_BACKEND_REFERENCE, .filter = filter, .folder = folder, .threads = 2, .ops = ops,
                         .cases = cases, .ceilings = &high, .out = nowhere, .progress = nowhere, .peer_server = PEER_SERVER};
}

static int run_with(const bench_ops *ops, const char *filter)
{
    run_options o = options_for(ops, filter);
    return bench_run(&o, &never);
}

static json_t *row_named(json_t *all, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(all, "benchmarks"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0) return row;
    return NULL;
}

/* Bytes and operations of a layer and its gradients, term by term; the product inside it was timed beside it. */
static void expect_lora(json_t *all)
{
    json_t *forward = row_named(all, "lora/reference/nf4/b64+dq/M9_N96_K256_R8"), *backward = row_named(all, "lora_backward/reference/nf4/b64/M5_N96_K256_R8");
    const double codes = 96 * 256 / 2, blocks = 96 * 256 / 64, ab = 8 * (96 + 256);
    const double nested = blocks + 4 * 2 + 4; /* 384 blocks: two of the second level, and their offset */
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(forward, "bytes")), codes + nested + 2 * 9 * (256 + 96 + 8) + 2 * ab, 0);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(forward, "flops")), 2.0 * 9 * (96 * 256 + ab), 0);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(backward, "bytes")),
                           codes + 4 * blocks + 2 * 5 * (96 + 256 + 8 + 256) + 2 * ab + 4 * ab, 0);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(backward, "flops")), 2.0 * 5 * (96 * 256 + 2 * ab), 0);
    CU_ASSERT(json_number_value(json_object_get(forward, "x_base")) > 0 && json_number_value(json_object_get(backward, "x_base")) > 0);
}

static void test_right_kernels(void)
{
    CU_ASSERT_EQUAL(run_with(&bench_library, NULL), RUN_OK);
    json_t *all = result(), *context = json_object_get(all, "context");
    CU_ASSERT_EQUAL(json_array_size(json_object_get(all, "benchmarks")), 6);
    CU_ASSERT(json_is_true(json_object_get(context, "complete")));
    CU_ASSERT(json_is_false(json_object_get(context, "interrupted")));
    CU_ASSERT_PTR_NOT_NULL(json_object_get(context, "commit"));
    json_t *row = row_named(all, "gemm/reference/int4-affine/b32/M9_N96_K256");
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "flops")), 2.0 * 9 * 96 * 256, 0);
    /* codes, fp32 scale and zero point a block; x and y in bf16 */
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "bytes")), 96 * 256 / 2 + 96 * 8 * 5 + 2 * 9 * (256 + 96), 0);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "bits_per_weight")), 4 + 40 / 32.0, 1e-12);
    CU_ASSERT_PTR_NULL(json_object_get(row, "x_base"));
    expect_lora(all);
    double p50 = json_number_value(json_object_get(row, "p50_us"));
    CU_ASSERT(p50 > 0 && json_number_value(json_object_get(row, "samples")) >= 7);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "real_time")), p50, 1e-6 * p50);
    json_decref(all);
}

static fb_status flipped_code(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    fb_status status = fb_quantize(ctx, src, t, dst);
    dst->codes[777] ^= 0x10;
    return status;
}
static fb_status one_ulp_off(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    fb_status status = fb_dequantize(ctx, src, dst, t);
    ((uint16_t *)dst)[5000] ^= 1;
    return status;
}
static fb_status one_unwritten(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype xt, const void *bias,
                               void *y, fb_dtype yt)
{
    uint16_t kept = ((uint16_t *)y)[4 * 96 + 50];
    fb_status status = fb_gemm(ctx, w, m, x, xt, bias, y, yt);
    ((uint16_t *)y)[4 * 96 + 50] = kept;
    return status;
}
static fb_status one_wrong(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype t, void *dx, fb_dtype xt, bool add)
{
    fb_status status = fb_gemm_dx(ctx, w, m, dy, t, dx, xt, add);
    ((float *)dx)[300] *= -1;
    return status;
}
/* A layer that is wrong in one of its outputs each time: in the high half of a bf16, or of an fp32. */
static int which_output;
static fb_status wrong_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, fb_dtype xt, const void *bias,
                               void *y, fb_dtype yt, void *u)
{
    fb_status status = fb_lora_forward(ctx, w, lora, m, x, xt, bias, y, yt, u);
    ((uint16_t *)(which_output ? u : y))[41] ^= 0x8040;
    return status;
}
static fb_status wrong_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, const void *u, const void *dy,
                                fb_dtype t, void *dx, fb_dtype xt, bool more, float *da, float *db, bool grads)
{
    fb_status status = fb_lora_backward(ctx, w, lora, m, x, u, dy, t, dx, xt, more, da, db, grads);
    if (which_output == 0) ((uint16_t *)dx)[767] ^= 0x8040;
    else (which_output == 1 ? da : db)[333] *= 1.01f;
    return status;
}
static fb_status no_lora(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, fb_dtype xt, const void *bias, void *y,
                         fb_dtype yt, void *u)
{
    (void)w, (void)lora, (void)m, (void)x, (void)xt, (void)bias, (void)y, (void)yt, (void)u;
    snprintf(ctx->message, sizeof ctx->message, "planted refusal");
    return FB_UNSUPPORTED;
}
static fb_status refusing(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    (void)src, (void)dst, (void)t;
    snprintf(ctx->message, sizeof ctx->message, "planted refusal");
    return FB_UNSUPPORTED;
}
/* Right when it is checked, another result later. */
static fb_status fickle(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    static int calls;
    fb_status status = fb_dequantize(ctx, src, dst, t);
    if (++calls > 3) ((uint16_t *)dst)[calls % 100] ^= 1;
    return status;
}
/* Does its work once; then it is faster than any memory. */
static bool lazy_done;
static int since_call; /* passes over memory since */
static fb_status lazy(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    fb_status status = lazy_done ? FB_OK : fb_dequantize(ctx, src, dst, t);
    lazy_done = true, since_call = 0;
    return status;
}

static void expect_red(const bench_ops *ops, const char *filter, const char *key, const char *message)
{
    CU_ASSERT_EQUAL(run_with(ops, filter), RUN_FAILED);
    json_t *all = result(), *row = json_array_get(json_object_get(all, "benchmarks"), 0);
    const char *said = json_string_value(json_object_get(row, key));
    CU_ASSERT(said && strstr(said, message));
    if (!said || !strstr(said, message)) fprintf(stderr, "%s: expected %s: %s\n", filter, message, said ? said : "green");
    json_decref(all);
}

static void test_wrong_kernels(void)
{
    bench_ops ops = bench_library;
    ops.quantize = flipped_code;
    expect_red(&ops, "^quantize", "error_message", "FAILED: codes");
    ops.dequantize = one_ulp_off;
    expect_red(&ops, "^dequantize", "error_message", "FAILED: dequantized");
    ops.gemm = one_unwritten;
    expect_red(&ops, "^gemm/", "error_message", "FAILED: product");
    ops.gemm_dx = one_wrong;
    expect_red(&ops, "^gemm_dx", "error_message", "FAILED: product");
    static const char *const forward[] = {"FAILED: product", "FAILED: U"}, *const backward[] = {"FAILED: product", "FAILED: dA", "FAILED: dB"};
    ops.lora = wrong_forward, ops.lora_backward = wrong_backward;
    for (which_output = 0; which_output < 2; which_output++) expect_red(&ops, "^lora/", "error_message", forward[which_output]);
    for (which_output = 0; which_output < 3; which_output++) expect_red(&ops, "^lora_backward", "error_message", backward[which_output]);
    ops.lora = no_lora;
    expect_red(&ops, "^lora/", "error_message", "planted refusal");
    ops.dequantize = refusing;
    expect_red(&ops, "^dequantize", "error_message", "planted refusal");
    ops.dequantize = fickle;
    expect_red(&ops, "^dequantize", "error_message", "changed");
    CU_ASSERT_EQUAL(run_with(&ops, "^gemm"), RUN_FAILED); /* one of several is enough */
}

static void test_above_roof(void)
{
    ceilings slow = high;
    slow.copy_bw = slow.read_bw = 1e9;
    CU_ASSERT_DOUBLE_EQUAL(ceilings_excess(&slow, 1e9, 0, 0, 1.0, false), 1.0, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(ceilings_excess(&slow, 1e9, 0, 0, 0.5, false), 2.0, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(ceilings_excess(&slow, 1e9, 0, 1e14, 0.5, true), 2.0, 1e-12); /* cached: arithmetic only */
    CU_ASSERT(ceilings_excess(&slow, 0, 1e6, 0, 1e-6, false) < 1e-9);                    /* a small output may stay cached */
    bench_ops ops = bench_library;
    ops.dequantize = lazy, lazy_done = false;
    slow.copy_bw = slow.read_bw = 1e6; /* 41 ms: no machine is so busy that doing nothing takes longer */
    run_options o = options_for(&ops, "^dequantize/[^/]*/nf4/b64/64x256$");
    o.ceilings = &slow;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_FAILED);
    json_t *all = result(), *row = json_array_get(json_object_get(all, "benchmarks"), 0);
    CU_ASSERT_PTR_NOT_NULL(json_object_get(row, "above_roofline"));
    json_decref(all);
}

/* ---- ceilings in the rounds: a machine whose bandwidth is another one in each case ------------------------------- */

static double planted_bw; /* bytes/s; reads are a tenth faster than copies, and a third of the passes is disturbed */
static int passes;
static bool disturb_rounds; /* the two passes after a call of lazy, those of its rounds, are a millionth as fast */
static bool planted_sweep(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    const ceilings_sweep *s = self;
    (void)why;
    CU_ASSERT(!cold || calls == 1);
    double slow = cold && ++passes % 6 < 2 ? 3 : 1;
    if (cold && since_call++ < 2 && disturb_rounds) slow = 1e6;
    span->wall = span->cpu = calls * slow * s->moved / planted_bw / (s->copies ? 1 : 1.1);
    return true;
}
static fb_status quantize_at_800(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    planted_bw = 800e9;
    return fb_quantize(ctx, src, t, dst);
}
static fb_status dequantize_at_400(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    planted_bw = 400e9;
    return fb_dequantize(ctx, src, dst, t);
}

static double value(json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

/* own: GB/s that its rounds were planted with; 0: it has none of its own and is held against the run's. */
static void expect_held(json_t *all, const char *name, double own, double run)
{
    json_t *row = row_named(all, name);
    CU_ASSERT_PTR_NOT_NULL_FATAL(row);
    const double copy = own > 0 ? own : run, read = own > 0 ? 1.1 * own : run;
    CU_ASSERT_DOUBLE_EQUAL(value(row, "copy_bw_GB_s"), own, 1e-6 * own);
    CU_ASSERT_DOUBLE_EQUAL(value(row, "read_bw_GB_s"), 1.1 * own, 1e-6 * own);
    CU_ASSERT_EQUAL(json_object_get(row, "copy_bw_GB_s") != NULL, own > 0);
    CU_ASSERT_DOUBLE_EQUAL(value(row, "pct_copy_bw"), 100 * value(row, "GB_s") / copy, 1e-6 * value(row, "pct_copy_bw"));
    CU_ASSERT_DOUBLE_EQUAL(value(row, "pct_read_bw"), 100 * value(row, "GB_s") / read, 1e-6 * value(row, "pct_read_bw"));
    CU_ASSERT_PTR_NULL(json_object_get(row, "above_roofline"));
}

static void test_held_to_own_rounds(void)
{
    bench_ops ops = bench_library;
    ops.quantize = quantize_at_800, ops.dequantize = dequantize_at_400;
    ceilings start = high; /* 1000 GB/s at the start */
    start.gemm_peak = 1e12; /* memory may bound what does less than four operations a byte */
    run_options o = options_for(&ops, "^(de)?quantize|^gemm/");
    fb_case some[] = {cases[0], cases[1], cases[2], cases[6]};
    o.ceilings = &start, o.sweep = planted_sweep, o.backends = 1u << FB_BACKEND_CPU, o.cases = some, o.out = tmpfile();
    CU_ASSERT_PTR_NOT_NULL_FATAL(o.out);
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    json_t *all = result(), *context = json_object_get(all, "context");
    expect_held(all, "quantize/cpu/nf4/b64+dq/64x256", 800, 1000);
    expect_held(all, "dequantize/cpu/nf4/b64/64x256", 400, 1000);
    expect_held(all, "dequantize/cpu/nf4/b64/64x256/hot", 0, 1000);
    expect_held(all, "gemm/cpu/int4-affine/b32/M9_N96_K256", 0, 1000); /* arithmetic bounds it */
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(context, "copy_bw_GB_s")), "1000");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(context, "copy_bw_start_GB_s")), "1000");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(context, "copy_bw_seen_GB_s")), "400 to 800");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(context, "read_bw_seen_GB_s")), "440 to 880");
    char text[8192];
    rewind(o.out);
    text[fread(text, 1, sizeof text - 1, o.out)] = '\0';
    CU_ASSERT(strstr(text, "2 rows that memory bounds is of copies in their own rounds: 400.0 to 800.0 GB/s, reads 440.0 to 880.0") != NULL);
    fclose(o.out), o.out = nowhere;
    json_decref(all);
    planted_bw = 700e9; /* peers' rows: the same as ours */
    start.gemm_peak = 1e15;
    o.filter = "^gemm/";
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    all = result();
    expect_held(all, "gemm/cpu/int4-affine/b32/M9_N96_K256", 700, 1000);
    expect_held(all, "gemm/peer:openblas/int4-affine/b32/M9_N96_K256", 700, 1000);
    json_decref(all);
}

/* The roof over a row is that of its own rounds, above or below the one at the start. */
static void test_own_roof(void)
{
    bench_ops ops = bench_library;
    ceilings slow = high;
    slow.copy_bw = slow.read_bw = 1e6;
    ops.dequantize = lazy, lazy_done = false;
    run_options o = options_for(&ops, "^dequantize/[^/]*/nf4/b64/64x256$");
    o.sweep = planted_sweep, planted_bw = 1e6;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_FAILED);
    o.ceilings = &slow, planted_bw = 1e12, lazy_done = false;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    lazy_done = false, disturb_rounds = true; /* passes after the rounds show that those in them were held up */
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    disturb_rounds = false;
    o.alone = true; /* no ceilings at all */
    lazy_done = false;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    json_t *all = result();
    CU_ASSERT_PTR_NULL(json_object_get(json_array_get(json_object_get(all, "benchmarks"), 0), "copy_bw_GB_s"));
    json_decref(all);
}

/* Four passes copy all of the memory, and those that read leave it alone. */
static void test_sweeps(void)
{
    ceilings_memory m;
    const ceilings unknown = {.copy_by = NULL};
    char why[TIMING_WHY];
    timing_span span = {0, 0};
    CU_ASSERT_FATAL(ceilings_memory_make(&m));
    for (size_t i = 0; i < m.bytes; i++) m.src[i] = (char)(i * 2654435761u >> 24);
    static const char *const ways[] = {NULL, "memcpy", "no such way"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        ceilings_sweep reads = ceilings_sweep_of(&unknown, &m, false, 2), copies = ceilings_sweep_of(&unknown, &m, true, 2);
        copies.way = ways[i];
        memset(m.dst, 0, m.bytes);
        CU_ASSERT(ceilings_sweep_run(&reads, 1, true, &span, why) && span.wall > 0);
        CU_ASSERT(m.dst[0] == 0 && memcmp(m.dst, m.dst + 1, m.bytes - 1) == 0);
        CU_ASSERT(ceilings_sweep_run(&copies, 4, false, &span, why) && span.wall > 0);
        CU_ASSERT_EQUAL(memcmp(m.dst, m.src, m.bytes), 0);
        CU_ASSERT(copies.evicts && reads.evicts); /* that copy leaves its output in the caches */
        CU_ASSERT(4 * copies.moved == 2 * (double)m.bytes && 4 * reads.moved == (double)m.bytes && m.bytes >= 4 * timing_cache_bytes());
    }
    ceilings_memory_free(&m);
}

static fb_status interrupting(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    static int calls;
    if (++calls == 6) stop = 1;
    return fb_dequantize(ctx, src, dst, t);
}

static void test_interrupted(void)
{
    bench_ops ops = bench_library;
    ops.dequantize = interrupting;
    stop = 0;
    run_options o = options_for(&ops, NULL);
    CU_ASSERT_EQUAL(bench_run(&o, &stop), RUN_INTERRUPTED);
    json_t *all = result(), *context = json_object_get(all, "context");
    CU_ASSERT(json_is_true(json_object_get(context, "interrupted")));
    CU_ASSERT(json_is_false(json_object_get(context, "complete")));
    CU_ASSERT_PTR_NOT_NULL(row_named(all, "quantize/reference/nf4/b64+dq/64x256"));
    CU_ASSERT_PTR_NULL(row_named(all, "gemm/reference/int4-affine/b32/M9_N96_K256"));
    json_decref(all);
    stop = 1; /* before the first case */
    CU_ASSERT_EQUAL(bench_run(&o, &stop), RUN_INTERRUPTED);
    all = result();
    CU_ASSERT_EQUAL(json_array_size(json_object_get(all, "benchmarks")), 0);
    json_decref(all);
}

/* The program itself, killed while it works: exit status and file. */
static void kill_program(int number, int expected)
{
    char path[128];
    snprintf(path, sizeof path, "%s/bench.json", folder);
    unlink(path);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) _exit(99);
        execl(BENCH_PROGRAM, BENCH_PROGRAM, "--backends", "reference", "--profile", "full", "--peers", "none", "--threads", "2",
              "--out", folder, (char *)NULL);
        _exit(98);
    }
    for (int i = 0; i < 6000 && access(path, R_OK) != 0; i++) usleep(10000);
    kill(child, number);
    int status = 0;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    if (expected) CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == expected);
    json_t *all = result();
    CU_ASSERT(json_array_size(json_object_get(all, "benchmarks")) >= 1);
    CU_ASSERT(json_is_false(json_object_get(json_object_get(all, "context"), "complete")));
    json_decref(all);
}
static void test_killed(void)
{
    kill_program(SIGINT, RUN_INTERRUPTED);
    kill_program(SIGKILL, 0);
}

static void test_usage(void)
{
    CU_ASSERT_EQUAL(run_with(&bench_library, "(unclosed"), RUN_USAGE);
    CU_ASSERT_EQUAL(run_with(&bench_library, "no such case"), RUN_USAGE);
    run_options o = options_for(&bench_library, NULL);
    o.folder = "/proc/no/such/folder";
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_USAGE);
}

/* ---- peers in a process -------------------------------------------------------------------------------------- */

/* A folder that looks like what scripts/peers.sh makes, around the library of test_peer.c. */
static void run_beside(const char *mood, const char *expected_error)
{
    char link[1024], peers[64];
    snprintf(peers, sizeof peers, "%s/peers", folder);
    snprintf(link, sizeof link, "mkdir -p %s/bitsandbytes && ln -sf %s %s/bitsandbytes/libbitsandbytes_cpu.so", peers, TEST_PEER, peers);
    CU_ASSERT_EQUAL(system(link), 0);
    setenv("FOURBIT_TEST_PEER", mood, 1);
    run_options o = options_for(&bench_library, "^dequantize/[^/]*/nf4/b64/64x256$");
    o.backends = 1u << FB_BACKEND_CPU;
    o.peers = peers;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK); /* a peer's fault is not ours */
    json_t *all = result(), *own = row_named(all, "dequantize/cpu/nf4/b64/64x256");
    json_t *peer = row_named(all, "dequantize/peer:bitsandbytes-cpu/nf4/b64/64x256");
    const char *error = json_string_value(json_object_get(peer, "error_message"));
    CU_ASSERT_PTR_NOT_NULL(json_object_get(own, "p50_us"));
    CU_ASSERT_PTR_NOT_NULL(peer);
    if (expected_error) {
        CU_ASSERT(error && strstr(error, expected_error));
        CU_ASSERT_PTR_NULL(json_object_get(own, "x_bitsandbytes-cpu"));
    } else {
        CU_ASSERT_PTR_NULL(error);
        double x = json_number_value(json_object_get(peer, "p50_us")) / json_number_value(json_object_get(own, "p50_us"));
        CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(own, "x_bitsandbytes-cpu")), x, 1e-6 * x);
    }
    json_decref(all);
}
static void test_peers(void)
{
    run_beside("right", NULL);
    run_beside("wrong", "wrong result");
    run_beside("abort", "died of");
    run_options o = options_for(&bench_library, "^dequantize");
    o.backends = 1u << FB_BACKEND_CPU, o.peers = "/nonexistent";
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
}

/* A row of its own beside a bf16 product, both ways, cold and hot, where the build has oneDNN and the processor bf16; none beside fp32. */
static void test_onednn(void)
{
    run_options o = options_for(&bench_library, "^gemm");
    fb_case some[] = {cases[2], cases[2], cases[3], cases[6]};
    some[1].op = FB_OP_GEMM_DX;
    o.backends = 1u << FB_BACKEND_CPU, o.cases = some;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_OK);
    json_t *all = result(), *row;
    size_t i, rows = 0, timed = 0, skipped = 0, ratios = 0;
    json_array_foreach(json_object_get(all, "benchmarks"), i, row) {
        if (json_object_get(row, "x_onednn")) ratios++;
        if (!strstr(json_string_value(json_object_get(row, "name")), "/peer:onednn/")) continue;
        const char *error = json_string_value(json_object_get(row, "error_message"));
        rows++, timed += !error, skipped += error && strstr(error, "no bf16 product");
    }
    CU_ASSERT_EQUAL(rows, onednn_version() ? 4 : 0);
    CU_ASSERT_EQUAL(timed + skipped, rows);
    CU_ASSERT_EQUAL(ratios, timed);
    json_decref(all);
}

bool add_run_tests(CU_pSuite suite, const char *scratch)
{
    folder = scratch;
    nowhere = fopen("/dev/null", "w");
    return nowhere && CU_add_test(suite, "right kernels", test_right_kernels) && CU_add_test(suite, "wrong kernels", test_wrong_kernels) &&
           CU_add_test(suite, "above the roof", test_above_roof) && CU_add_test(suite, "held to its own rounds", test_held_to_own_rounds) &&
           CU_add_test(suite, "roof of its own rounds", test_own_roof) && CU_add_test(suite, "passes over memory", test_sweeps) && CU_add_test(suite, "interrupted", test_interrupted) &&
           CU_add_test(suite, "killed", test_killed) && CU_add_test(suite, "usage", test_usage) && CU_add_test(suite, "peers", test_peers) &&
           CU_add_test(suite, "onednn", test_onednn);
}
