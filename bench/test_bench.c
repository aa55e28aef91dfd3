/* test_bench.c: tests of the benchmark's parts: statistics, stopping rule, shim (test_runs.c: whole runs). */
#include "bench/test_bench.h"

#include "bench/gbench.h"
#include "bench/layers.h"
#include "bench/timing.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void throw_error(gb_state *state, void *user);
void throw_number(gb_state *state, void *user);

static volatile sig_atomic_t stop;
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

/* What empties the caches reads as much as it says, on any number of threads. */
static void test_evict(void)
{
    for (int threads = 1; threads <= 3; threads++) {
        const size_t wanted = 3 * timing_cache_bytes(), read = timing_evict(threads);
        CU_ASSERT(read <= wanted && wanted - read < 64);
    }
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

/* What is timed beside the others has as many samples, and does not prolong the rounds, nor keep them alone. */
static void test_beside(void)
{
    contender c[2];
    static double walls[2][200];
    fake pair[] = {{.name = 'A'}, {.name = 'B', .noise = 0.9}};
    for (int i = 0; i < 2; i++) c[i] = (contender){.run = fake_run, .self = &pair[i], .walls = walls[i], .beside = i == 1};
    stop = 0;
    CU_ASSERT_EQUAL(timing_rounds(c, 2, &rule, true, &stop), 7);
    CU_ASSERT(c[0].samples == 7 && c[1].samples == 7);
    pair[0].fail_at = pair[0].runs + 4, pair[1].runs = 0, pair[1].noise = 0;
    CU_ASSERT_EQUAL(timing_rounds(c, 2, &rule, true, &stop), 1); /* two warm calls, one round, and the second is of B alone */
    CU_ASSERT(c[0].failed && pair[1].runs == 4);
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

/* ---- layers of models ---------------------------------------------------------------------------------------- */

static int matching(const fb_case *list, fb_op op, int64_t n, int64_t k, int64_t m)
{
    int count = 0;
    for (; list->rows >= 0; list++) count += list->op == op && list->rows == n && list->cols == k && (m == 0 || list->m == m) && !list->double_quant;
    return count;
}

static void test_layers(void)
{
    static const fb_case base[] = {{FB_OP_GEMM, FB_NF4, 64, false, 8192, 8192, 1, FB_BF16, CASE_FULL, 0}, {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, 0, 0}};
    char why[TIMING_WHY] = "";
    fb_case *big = bench_layer_cases("llama-3-70b", CASE_QUICK | CASE_FULL, base, why), *all = bench_layer_cases("all", CASE_QUICK | CASE_FULL, base, why);
    fb_case *two = bench_layer_cases("qwen2.5-0.5b,llama-2-7b", CASE_QUICK, base + 1, why), *none = bench_layer_cases("none", CASE_FULL, base, why);
    CU_ASSERT_FATAL(big && all && two && none);
    for (int64_t m = 1; m <= 4096; m *= 2) {
        CU_ASSERT_EQUAL(matching(big, FB_OP_GEMM, 28672, 8192, m), 1);
        CU_ASSERT_EQUAL(matching(big, FB_OP_GEMM_DX, 8192, 28672, m), 1);
    }
    CU_ASSERT_EQUAL(matching(big, FB_OP_GEMM, 8192, 8192, 1), 1); /* it was in base, and in full alone; now in both lists */
    CU_ASSERT_EQUAL(big[0].sets, CASE_QUICK | CASE_FULL);
    CU_ASSERT_EQUAL(matching(big, FB_OP_GEMM, 4096, 4096, 0), 0);
    CU_ASSERT(matching(big, FB_OP_LORA_FORWARD, 28672, 8192, 0) >= 4 && matching(big, FB_OP_LORA_BACKWARD, 28672, 8192, 0) >= 2);
    CU_ASSERT_EQUAL(matching(all, FB_OP_GEMM, 4096, 4096, 16), 1); /* a layer of two models */
    CU_ASSERT(matching(two, FB_OP_GEMM, 896, 896, 0) > 0 && matching(two, FB_OP_GEMM, 11008, 4096, 0) > 0);
    CU_ASSERT_EQUAL(matching(two, FB_OP_GEMM, 896, 896, 2), 0); /* not of the quick sweep */
    CU_ASSERT_EQUAL(none[1].rows, -1);
    free(big), free(all), free(two), free(none);
    static const char *const wrong[] = {"", "llama", "llama-2-7b,", ",", "llama-2-7b,gpt", "llama-2-7bb"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        why[0] = '\0';
        CU_ASSERT_PTR_NULL(bench_layer_cases(wrong[i], CASE_QUICK, base, why));
        CU_ASSERT(strstr(why, "qwen2.5-0.5b") != NULL);
    }
}

int main(void)
{
    if (!mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite s = CU_add_suite("bench", NULL, NULL);
    struct { const char *name; CU_TestFunc test; } tests[] = {
        {"statistics", test_summary}, {"interval of the median", test_interval_covers}, {"caches emptied", test_evict}, {"stops when known", test_stops_when_known},
        {"stops in time", test_stops_in_time}, {"interleaved", test_interleaved}, {"beside", test_beside}, {"failing contender", test_failing_contender},
        {"stop between samples", test_stop_between_samples}, {"shim", test_shim}, {"shim errors", test_shim_errors},
        {"layers", test_layers}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!s || !CU_add_test(s, tests[i].name, tests[i].test)) return 1;
    if (!add_run_tests(s, folder)) return 1;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    char clean[64];
    snprintf(clean, sizeof clean, "rm -rf %s", folder);
    return system(clean) != 0 || failures > 0;
}
