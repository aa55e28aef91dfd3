/* test_plugin.c: FB_BACKEND_PLUGIN: what is refused, what falls to the reference, and that suites and benchmark take a
 * plugin and catch a wrong one.
 *
 * A process loads one plugin, once: every case is a child of this program (test_plugin --say, --calls) or another
 * program with its own environment. */
#include "fourbit_plugin.h"

#include <CUnit/Basic.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLUGINS BUILD_FOLDER "/validate/plugin_example/"
static char scratch[] = "/tmp/fourbit-plugin-XXXXXX";

/* Runs a shell command; its exit status, and the end of what it printed. */
static int run(char *text, size_t size, const char *command)
{
    FILE *pipe = popen(command, "r");
    if (!pipe) return -1;
    size_t n = fread(text, 1, size - 1, pipe);
    text[n] = '\0';
    for (char rest[4096]; (n = fread(rest, 1, sizeof rest, pipe)) > 0;) continue;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void expect(const char *environment, const char *arguments, int status, const char *words)
{
    char text[1 << 16], command[2048];
    snprintf(command, sizeof command, "cd '%s' && env %s %s 2>&1", scratch, environment, arguments);
    int got = run(text, sizeof text, command);
    if (got != status || !strstr(text, words))
        fprintf(stderr, "\n%s\nexit %d, expected %d; \"%s\" expected in:\n%.3000s\n", command, got, status, words, text);
    CU_ASSERT_EQUAL(got, status);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, words));
}

#define SELF "/proc/%d/exe" /* of this process, from a shell */
static const char *self(const char *arguments)
{
    static char text[256];
    snprintf(text, sizeof text, SELF " %s", (int)getpid(), arguments);
    return text;
}

/* ---- what a child does ----------------------------------------------------------------------------------- */

/* Prints what the library says about the plugin: 0 available, 3 not. */
static int say(void)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_PLUGIN);
    fb_status status = fb_backend_available(&ctx);
    printf("%s %s %s\n", fb_status_name(status), fb_backend_variant(FB_BACKEND_PLUGIN), ctx.message);
    return status == FB_OK ? 0 : status == FB_BACKEND_UNAVAILABLE ? 3 : 4;
}

enum { THREADS = 8 };
static pthread_barrier_t gate;
static void *first_call(void *result)
{
    pthread_barrier_wait(&gate);
    *(const char **)result = fb_backend_variant(FB_BACKEND_PLUGIN);
    return NULL;
}

/* With the plugin "odd": a case that it takes, one that it declines, operations that it lacks. */
static int calls(void)
{
    pthread_t thread[THREADS];
    const char *variant[THREADS] = {NULL};
    pthread_barrier_init(&gate, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, first_call, &variant[i])) return 2;
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < THREADS; i++)
        if (!variant[i] || strcmp(variant[i], "odd") != 0) return printf("thread %d saw %s\n", i, variant[i]), 1;

    _Alignas(64) static uint8_t codes[32 * 16], space[4096];
    static float absmax[32], x[9 * 32], y[9 * 32], want[9 * 32];
    for (int i = 0; i < 32; i++) absmax[i] = 1;
    for (int i = 0; i < 9 * 32; i++) x[i] = (float)(i % 5);
    fb_matrix w;
    fb_matrix_init(&w, FB_NF4, 32, 32, 32, false);
    w.codes = codes, w.absmax = absmax;
    fb_context ctx, reference;
    fb_context_init(&ctx, FB_BACKEND_PLUGIN);
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    size_t takes = 1, declines = 1;
    fb_workspace_size(&ctx, FB_OP_GEMM, &w, 2, FB_F32, &takes);
    fb_workspace_size(&ctx, FB_OP_GEMM, &w, 9, FB_F32, &declines);
    if (takes != sizeof space || declines != 0) return printf("workspaces %zu, %zu\n", takes, declines), 1;
    if (fb_gemm(&ctx, &w, 2, x, FB_F32, NULL, y, FB_F32) != FB_WORKSPACE_TOO_SMALL) return printf("no workspace, no complaint\n"), 1;
    ctx.workspace = space, ctx.workspace_bytes = sizeof space;
    if (fb_gemm(&ctx, &w, 2, x, FB_F32, NULL, y, FB_F32) != FB_OK || y[0] != 1234.0f) return printf("the plugin was not called\n"), 1;
    if (fb_gemm(&ctx, &w, 9, x, FB_F32, NULL, y, FB_F32) != FB_OK || fb_gemm(&reference, &w, 9, x, FB_F32, NULL, want, FB_F32) != FB_OK ||
        memcmp(y, want, sizeof y) != 0) return printf("what it declined is not the reference's\n"), 1;
    if (fb_gemm_weights(&ctx, &w, 2, FB_F32) != FB_WEIGHTS_EXACT || fb_gemm_weights(&ctx, &w, 9, FB_F32) != FB_WEIGHTS_ROUNDED)
        return printf("weights declared wrongly\n"), 1;
    if (fb_plugin_supports(FB_OP_GEMM, &w, 9, FB_F32) || fb_plugin_supports(FB_OP_GEMM_DX, &w, 1, FB_F32) ||
        !fb_plugin_supports(FB_OP_GEMM, &w, 2, FB_F32) || fb_plugin_supports(FB_OP_COUNT, &w, 1, FB_F32)) return printf("supports\n"), 1;
    if (fb_gemm(&ctx, &w, -1, x, FB_F32, NULL, y, FB_F32) != FB_INVALID_ARGUMENT) return printf("arguments are not checked\n"), 1;
    uint8_t nested_codes[32];
    float nested[1], offset[1], back[32];
    if (fb_double_quantize(&ctx, absmax, 32, nested_codes, nested, offset) != FB_OK ||
        fb_decode_absmax(&ctx, nested_codes, nested, offset, NULL, 32, back) != FB_OK || back[7] != 1.0f)
        return printf("double quantization is not the reference's\n"), 1;
    setenv("FOURBIT_PLUGIN", "another.so", 1); /* loaded is loaded */
    if (fb_backend_available(&ctx) != FB_OK) return printf("%s\n", ctx.message), 1;
    return printf("as it should be\n"), 0;
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void refusals(void)
{
    expect("-u FOURBIT_PLUGIN", self("--say"), 3, "FB_BACKEND_UNAVAILABLE  FOURBIT_PLUGIN is not set");
    expect("FOURBIT_PLUGIN=", self("--say"), 3, "FOURBIT_PLUGIN is not set");
    expect("FOURBIT_PLUGIN=/nowhere/my.so", self("--say"), 3, "/nowhere/my.so: cannot open shared object file");
    expect("FOURBIT_PLUGIN=libm.so.6", self("--say"), 3, "./libm.so.6: cannot open"); /* not the system's */
    expect("FOURBIT_PLUGIN=/etc/passwd", self("--say"), 3, "FOURBIT_PLUGIN cannot be loaded");
    expect("FOURBIT_PLUGIN=$(ldconfig -p | sed -n 's/.*libm.so.6.*x86-64.*=> //p' | head -n 1)", self("--say"), 3, "it has no function fourbit_plugin");
    static const struct { const char *odd, *words; } odd[] = {
        {"version", "interface version 99, this library has 1"}, {"large", "its table has"}, {"small", "its table has 8 bytes"},
        {"uneven", "its table has"},  {"context", "built with another fourbit.h"}, {"matrix", "built with another fourbit.h"},
        {"name", "it has no name"},   {"empty", "plugin odd implements no operation"}, {"NULL", "fourbit_plugin() returned NULL"}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char environment[256];
        snprintf(environment, sizeof environment, "FOURBIT_PLUGIN=" PLUGINS "odd.so TEST_ODD=%s", odd[i].odd);
        expect(environment, self("--say"), 3, odd[i].words);
    }
}

static void paths(void)
{
    char text[64], command[2048];
    snprintf(command, sizeof command, "cp " PLUGINS "odd.so '%s/here.so'", scratch);
    CU_ASSERT_EQUAL(run(text, sizeof text, command), 0);
    expect("FOURBIT_PLUGIN=here.so", self("--say"), 0, "FB_OK odd");
    expect("FOURBIT_PLUGIN=./here.so", self("--say"), 0, "FB_OK odd");
    expect("FOURBIT_PLUGIN=$(printf %05000d 1)", self("--say"), 3, "longer than a path");
}

static void slots_and_fallback(void)
{
    expect("FOURBIT_PLUGIN=" PLUGINS "odd.so", self("--calls"), 0, "as it should be");
    /* an older plugin: shorter, and what lies behind its end is not taken for a slot */
    expect("TEST_ODD=older FOURBIT_PLUGIN=" PLUGINS "odd.so", self("--calls"), 0, "as it should be");
}

#define SUITES BUILD_FOLDER "/validate/test_fourbit --backend plugin --filter dequantize."
static void suites(void)
{
    expect("FOURBIT_TEST_SCALE=0.1 FOURBIT_PLUGIN=" PLUGINS "example.so", SUITES, 0, "== backend plugin (example)");
    expect("FOURBIT_TEST_SCALE=0.1 FOURBIT_PLUGIN=" PLUGINS "swapped.so", SUITES, 1, "== backend plugin (swapped)");
    expect("FOURBIT_PLUGIN=" PLUGINS "nowhere.so", SUITES, 77, "cannot open shared object file");
}

#define BENCH BUILD_FOLDER "/bin/fourbit-bench --alone --out . --filter '^dequantize/[^/]*/nf4/b64/512x512$' --backends "
static json_t *row(json_t *all, const char *name)
{
    size_t i;
    json_t *r;
    json_array_foreach(json_object_get(all, "benchmarks"), i, r)
        if (strcmp(json_string_value(json_object_get(r, "name")), name) == 0) return r;
    return NULL;
}

/* What it leaves to the reference has no row under its name. */
static void only_its_own_cases(void)
{
    char text[1 << 16];
    int status = run(text, sizeof text, "FOURBIT_PLUGIN=" PLUGINS "example.so " BUILD_FOLDER "/bin/fourbit-bench --list --backends cpu,plugin");
    CU_ASSERT_EQUAL(status, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\ndequantize/plugin/fp4/b64/4096x4096\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\ndequantize/cpu/nf4/b64+dq/4096x4096\n"));
    CU_ASSERT_PTR_NULL(strstr(text, "dequantize/plugin/nf4/b64+dq"));
    CU_ASSERT_PTR_NULL(strstr(text, "dequantize/plugin/int4-affine"));
    CU_ASSERT_PTR_NULL(strstr(text, "gemm/plugin"));
}

static void benchmark(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/bench.json", scratch);
    expect("FOURBIT_PLUGIN=" PLUGINS "example.so", BENCH "cpu,plugin", 0, "dequantize/plugin/nf4/b64/512x512");
    json_t *all = json_load_file(path, 0, NULL), *ours = row(all, "dequantize/cpu/nf4/b64/512x512"),
           *plugin = row(all, "dequantize/plugin/nf4/b64/512x512");
    CU_ASSERT(json_number_value(json_object_get(plugin, "real_time")) > 0);
    double x = json_number_value(json_object_get(plugin, "x_cpu")), back = json_number_value(json_object_get(ours, "x_plugin"));
    CU_ASSERT_DOUBLE_EQUAL(x * back, 1, 1e-9);
    /* the same bits, or one of the two was not checked */
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(ours, "output_hash")), json_string_value(json_object_get(plugin, "output_hash")));
    json_decref(all);

    expect("FOURBIT_PLUGIN=" PLUGINS "swapped.so", BENCH "cpu,plugin", 1, "dequantize/plugin/nf4/b64/512x512");
    all = json_load_file(path, 0, NULL);
    CU_ASSERT(json_is_true(json_object_get(row(all, "dequantize/plugin/nf4/b64/512x512"), "error_occurred")));
    CU_ASSERT_PTR_NULL(json_object_get(row(all, "dequantize/cpu/nf4/b64/512x512"), "error_occurred"));
    json_decref(all);
    expect("FOURBIT_PLUGIN=" PLUGINS "swapped.so", BENCH "plugin", 1, "FAILED");
    expect("FOURBIT_PLUGIN=" PLUGINS "nowhere.so", BENCH "cpu,plugin", 2, "cannot open shared object file");
    expect("-u FOURBIT_PLUGIN", BENCH "plugin", 2, "FOURBIT_PLUGIN is not set");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--say") == 0) return say();
    if (argc == 2 && strcmp(argv[1], "--calls") == 0) return calls();
    setenv("OMP_WAIT_POLICY", "passive", 0);
    if (!mkdtemp(scratch) || CU_initialize_registry() != CUE_SUCCESS) return perror(scratch), 2;
    CU_pSuite suite = CU_add_suite("plugin", NULL, NULL);
    if (!suite || !CU_add_test(suite, "refusals", refusals) || !CU_add_test(suite, "paths", paths) ||
        !CU_add_test(suite, "slots_and_fallback", slots_and_fallback) || !CU_add_test(suite, "suites", suites) ||
        !CU_add_test(suite, "only_its_own_cases", only_its_own_cases) || !CU_add_test(suite, "benchmark", benchmark)) return fprintf(stderr, "CUnit: %s\n", CU_get_error_msg()), 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    bool ran = CU_basic_run_tests() == CUE_SUCCESS;
    unsigned failed = CU_get_number_of_failures(), asserts = CU_get_number_of_asserts();
    CU_cleanup_registry();
    char text[64], command[256];
    snprintf(command, sizeof command, "rm -r '%s'", scratch);
    run(text, sizeof text, command);
    return ran && failed == 0 && asserts > 0 ? 0 : 1;
}
