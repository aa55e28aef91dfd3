/* test_bench.c: tests of the benchmark itself: that it stops when it should, and that it goes red. */
#include "bench/gbench.h"
#include "bench/results.h"
#include "bench/run.h"

#include <CUnit/Basic.h>
#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

void throw_error(gb_state *state, void *user);
void throw_number(gb_state *state, void *user);

static volatile sig_atomic_t never, stop;
static char folder[] = "/tmp/fourbit-bench-test.XXXXXX";

/* ---- statistics and the stopping rule ------------------------------------------------------------ */

static void test_summary(void)
{
    const double eleven[] = {11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6};
    timing_stats s = timing_summary(eleven, 11);
    CU_ASSERT_EQUAL(s.samples, 11);
    CU_ASSERT_DOUBLE_EQUAL(s.median, 6, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(s.p10, 2, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(s.p90, 10, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(s.min, 1, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(s.mean, 6, 1e-12);
    /* 5.5 -+ 0.98 sqrt(11): ranks 2 and 9 of 1 ... 11, from 0 the values 2 and 10 after rounding outward */
    CU_ASSERT_DOUBLE_EQUAL(s.spread, (10 - 2) / 2.0 / 6, 1e-12);
    CU_ASSERT(isinf(timing_summary(eleven, 5).spread));
    CU_ASSERT_EQUAL(timing_summary(eleven, 0).samples, 0);
    const double even[] = {4, 1, 3, 2};
    CU_ASSERT_DOUBLE_EQUAL(timing_summary(even, 4).median, 2.5, 1e-12);
}

/* The interval must hold the true median in 95 % of draws: 2000 draws of 25 uniforms. */
static void test_interval_covers(void)
{
    unsigned seed = 7;
    int covered = 0;
    for (int draw = 0; draw < 2000; draw++) {
        double v[25], low, high;
        for (int i = 0; i < 25; i++) seed = seed * 1664525u + 1013904223u, v[i] = 1 + seed / 4294967296.0;
        timing_stats s = timing_summary(v, 25);
        low = s.median * (1 - 2 * s.spread), high = s.median * (1 + 2 * s.spread); /* at least the whole interval */
        covered += low <= 1.5 && 1.5 <= high;
    }
    CU_ASSERT(covered > 1900);
}

typedef struct fake {
    char name;
    double noise; /* times are 1e-3 * (1 +- noise) */
    unsigned seed;
    int runs, fail_at, stop_at, last_calls;
} fake;
static char order[256];

static bool fake_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    fake *f = self;
    (void)cold;
    f->last_calls = calls;
    f->seed = f->seed * 1664525u + 1013904223u;
    span->wall = span->cpu = calls * 1e-3 * (1 + f->noise * (f->seed / 2147483648.0 - 1));
    if (strlen(order) + 1 < sizeof order) order[strlen(order)] = f->name;
    if (++f->runs == f->stop_at) stop = 1;
    if (f->runs != f->fail_at) return true;
    snprintf(why, TIMING_WHY, "planted");
    return false;
}

static int rounds_of(fake *fakes, contender *c, int count, stop_rule rule, bool cold)
{
    static double walls[4][200];
    memset(order, 0, sizeof order);
    stop = 0;
    for (int i = 0; i < count; i++) c[i] = (contender){.run = fake_run, .self = &fakes[i], .walls = walls[i]};
    return timing_rounds(c, count, &rule, cold, &stop);
}

static const stop_rule rule = {.floor = 7, .ceiling = 100, .seconds = 60, .hard_seconds = 60, .spread = 0.02, .sample_seconds = 1e-3};

static void test_stops_when_known(void)
{
    contender c[2];
    fake steady[] = {{.name = 'A'}};
    CU_ASSERT_EQUAL(rounds_of(steady, c, 1, rule, true), 7); /* the floor */
    fake wild[] = {{.name = 'A', .noise = 0.9}};
    CU_ASSERT_EQUAL(rounds_of(wild, c, 1, rule, true), 100); /* the ceiling */
    fake some[] = {{.name = 'A', .noise = 0.08}};
    int n = rounds_of(some, c, 1, rule, true);
    CU_ASSERT(n > 7 && n < 100);
    CU_ASSERT(timing_summary(c[0].walls, n).spread <= 0.02);
    CU_ASSERT(!(timing_summary(c[0].walls, n - 1).spread <= 0.02)); /* and not a round too late */
    fake pair[] = {{.name = 'A'}, {.name = 'B', .noise = 0.9}}; /* the worse one decides */
    CU_ASSERT_EQUAL(rounds_of(pair, c, 2, rule, true), 100);
}

static void test_stops_in_time(void)
{
    double walls[3] = {1, 2, 3};
    contender c = {.walls = walls, .samples = 3};
    stop_rule limits = {.floor = 7, .ceiling = 100, .seconds = 1, .hard_seconds = 5, .spread = 0.01};
    CU_ASSERT_FALSE(timing_enough(&c, 1, &limits, 3, 2.0)); /* seconds does not cut below the floor */
    CU_ASSERT(timing_enough(&c, 1, &limits, 3, 5.0));       /* hard_seconds does */
    CU_ASSERT_FALSE(timing_enough(&c, 1, &limits, 0, 50));  /* but one round there is */
    CU_ASSERT(timing_enough(&c, 1, &limits, 7, 1.0));
}

static void test_interleaved(void)
{
    contender c[2];
    fake pair[] = {{.name = 'A'}, {.name = 'B'}};
    rounds_of(pair, c, 2, rule, true);
    CU_ASSERT_STRING_EQUAL(order, "AABBABABABABABABAB"); /* two warm calls each, then 7 rounds */
    CU_ASSERT_EQUAL(c[0].calls, 1);                      /* cold: the second call would be warm */
    stop_rule longer = rule;
    longer.sample_seconds = 10e-3;
    rounds_of(pair, c, 2, longer, false);
    CU_ASSERT_EQUAL(pair[0].last_calls, 10);
    CU_ASSERT_DOUBLE_EQUAL(c[0].walls[0], 1e-3, 1e-9); /* a call, not a sample */
}

static void test_failing_contender(void)
{
    contender c[2];
    fake pair[] = {{.name = 'A'}, {.name = 'B', .fail_at = 4}};
    CU_ASSERT_EQUAL(rounds_of(pair, c, 2, rule, true), 7);
    CU_ASSERT(c[1].failed);
    CU_ASSERT_EQUAL(c[1].samples, 0);
    CU_ASSERT_STRING_EQUAL(c[1].why, "planted");
    CU_ASSERT_EQUAL(c[0].samples, 7);
}

static void test_stop_between_samples(void)
{
    contender c[2];
    fake pair[] = {{.name = 'A', .stop_at = 5}, {.name = 'B'}};
    CU_ASSERT_EQUAL(rounds_of(pair, c, 2, rule, true), 2);
    CU_ASSERT_EQUAL(c[0].samples, 2); /* the third has no partner and does not count */
    CU_ASSERT_EQUAL(c[1].samples, 2);
}

/* ---- the shim ------------------------------------------------------------------------------------------- */

static void good(gb_state *s, void *user)
{
    while (gb_keep_running(s)) gb_set_iteration_time(s, *(double *)user);
    gb_keep_running(s); /* once too often: false again, and nothing else */
    gb_counter(s, "answer", 42, GB_PLAIN);
    gb_label(s, "a \"label\"");
}
static void early(gb_state *s, void *user)
{
    (void)user;
    gb_keep_running(s);
}
static void early_counting(gb_state *s, void *user)
{
    (void)user;
    gb_counter(s, "x", 1, GB_PLAIN);
}
static void skipping(gb_state *s, void *user) { gb_skip_with_error(s, user); }

static json_t *shim_row(const char *name, gb_function f, void *user, int64_t iterations)
{
    gb_clear();
    CU_ASSERT(gb_register(&(gb_benchmark){.name = name, .function = f, .user = user, .iterations = iterations, .manual_time = true}));
    char *text = gb_run_json(NULL);
    json_t *all = text ? json_loads(text, 0, NULL) : NULL, *row = json_array_get(json_object_get(all, "benchmarks"), 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(row);
    json_incref(row);
    json_decref(all);
    free(text);
    return row;
}

static void expect_error(gb_function f, void *user, const char *message)
{
    int before = gb_errors();
    json_t *row = shim_row("bad", f, user, 3);
    CU_ASSERT(json_is_true(json_object_get(row, "error_occurred")));
    const char *said = json_string_value(json_object_get(row, "error_message"));
    CU_ASSERT(said && strstr(said, message));
    CU_ASSERT_EQUAL(gb_errors(), before + 1);
    json_decref(row);
}

static void test_shim(void)
{
    double seconds = 0.25;
    CU_ASSERT(gb_context("test \"key\"", "value"));
    json_t *row = shim_row("good", good, &seconds, 5);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(row, "iterations")), 5);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "real_time")), 250000, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "answer")), 42, 0);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(row, "label")), "a \"label\"");
    json_decref(row);
}

static void test_shim_errors(void)
{
    expect_error(throw_error, NULL, "planted");
    expect_error(throw_number, NULL, "exception");
    expect_error(early, NULL, "returned before");
    expect_error(early_counting, NULL, "returned before");
    expect_error(skipping, "for a reason", "for a reason");
    double seconds = 1;
    CU_ASSERT_FALSE(gb_register(&(gb_benchmark){.name = "x", .function = good, .user = &seconds, .manual_time = true}));
    CU_ASSERT(strstr(gb_last_error(), "iteration count") != NULL);
    CU_ASSERT_FALSE(gb_register(NULL));
    CU_ASSERT_FALSE(gb_register(&(gb_benchmark){.name = "", .function = good}));
    CU_ASSERT_FALSE(gb_register(&(gb_benchmark){.name = "x"}));
    CU_ASSERT_FALSE(gb_context(NULL, "x"));
    gb_clear();
    CU_ASSERT_PTR_NULL(gb_run_json(NULL));
}

/* ---- runs with planted kernels ------------------------------------------------------------------------------ */

static const fb_case cases[] = {
    {FB_OP_QUANTIZE, FB_NF4, 64, true, 64, 256, 0, FB_BF16, CASE_QUICK},
    {FB_OP_DEQUANTIZE, FB_NF4, 64, false, 64, 256, 0, FB_BF16, CASE_QUICK},
    {FB_OP_GEMM, FB_INT4_AFFINE, 32, false, 96, 256, 9, FB_BF16, CASE_QUICK},
    {FB_OP_GEMM_DX, FB_FP4, 64, true, 96, 256, 3, FB_F32, CASE_QUICK},
    {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0},
};

/* Nothing real reaches these; rounds says that measuring again is not worth it. */
static const ceilings high = {1e12, 1e12, 1e14, 1e14, 0, 1e14, "test", "none", 99};
static FILE *nowhere;

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

static void test_right_kernels(void)
{
    CU_ASSERT_EQUAL(run_with(&bench_library, NULL), RUN_OK);
    json_t *all = result(), *context = json_object_get(all, "context");
    CU_ASSERT_EQUAL(json_array_size(json_object_get(all, "benchmarks")), 4);
    CU_ASSERT(json_is_true(json_object_get(context, "complete")));
    CU_ASSERT(json_is_false(json_object_get(context, "interrupted")));
    CU_ASSERT_PTR_NOT_NULL(json_object_get(context, "commit"));
    json_t *row = row_named(all, "gemm/reference/int4-affine/b32/M9_N96_K256");
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "flops")), 2.0 * 9 * 96 * 256, 0);
    /* codes, fp32 scale and zero point a block; x and y in bf16 */
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "bytes")), 96 * 256 / 2 + 96 * 8 * 5 + 2 * 9 * (256 + 96), 0);
    CU_ASSERT_DOUBLE_EQUAL(json_number_value(json_object_get(row, "bits_per_weight")), 4 + 40 / 32.0, 1e-12);
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
static fb_status lazy(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    static bool done;
    fb_status status = done ? FB_OK : fb_dequantize(ctx, src, dst, t);
    done = true;
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
    ops.dequantize = lazy;
    run_options o = options_for(&ops, "^dequantize/[^/]*/nf4/b64/64x256$");
    o.ceilings = &slow;
    CU_ASSERT_EQUAL(bench_run(&o, &never), RUN_FAILED);
    json_t *all = result(), *row = json_array_get(json_object_get(all, "benchmarks"), 0);
    CU_ASSERT_PTR_NOT_NULL(json_object_get(row, "above_roofline"));
    json_decref(all);
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

int main(void)
{
    if (!mkdtemp(folder) || !(nowhere = fopen("/dev/null", "w")) || CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite s = CU_add_suite("bench", NULL, NULL);
    struct { const char *name; CU_TestFunc test; } tests[] = {
        {"statistics", test_summary}, {"interval of the median", test_interval_covers}, {"stops when known", test_stops_when_known},
        {"stops in time", test_stops_in_time}, {"interleaved", test_interleaved}, {"failing contender", test_failing_contender},
        {"stop between samples", test_stop_between_samples}, {"shim", test_shim}, {"shim errors", test_shim_errors},
        {"right kernels", test_right_kernels}, {"wrong kernels", test_wrong_kernels}, {"above the roof", test_above_roof},
        {"interrupted", test_interrupted}, {"killed", test_killed}, {"usage", test_usage}, {"peers", test_peers}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!s || !CU_add_test(s, tests[i].name, tests[i].test)) return 1;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    char clean[64];
    snprintf(clean, sizeof clean, "rm -rf %s", folder);
    return system(clean) != 0 || failures > 0;
}
