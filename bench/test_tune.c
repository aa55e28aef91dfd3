/* test_tune.c: the dispatch table from recorded times, without a GPU: the choice, the text, whole runs on the host with a
 * clock that goes on as each path's planted time says, and every path in the executor. */
#include "bench/tune.h"

#include <CUnit/Basic.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* Absent under sanitizers, where the executor does not run. */
#pragma weak fb_simt_gemm_by_rule

static char folder[] = "/tmp/fourbit-tune-XXXXXX", table_path[64];
static const volatile sig_atomic_t going = 0, stopping = 1;
static FILE *sink;

static int candidate_of(fb_gemm_path path, int blocks)
{
    for (int k = 0; k < TUNE_CANDIDATES; k++)
        if (tune_candidates[k].m_most && tune_candidates[k].path == path && tune_candidates[k].blocks == blocks) return k;
    return -1;
}

/* ---- the choice ------------------------------------------------------------------------------------------------------- */

static void everywhere(tune_times *t, int candidate, int first_m, int last_m, double us)
{
    for (int c = 0; c < TUNE_CLASSES; c++)
        for (int s = 0; s < TUNE_SHAPES; s++)
            for (int m = first_m; m <= last_m; m++) t->us[c][s][m][candidate] = us * (1 + s); /* another shape takes longer */
}

static void test_choice(void)
{
    static tune_times t;
    fb_gemm_rule rows[TUNE_ROWS], again[TUNE_ROWS];
    const int small = candidate_of(FB_GEMM_SMALL, 2), tile = candidate_of(FB_GEMM_TILE_64, 1), large = candidate_of(FB_GEMM_TILE_256, 0);
    memset(&t, 0, sizeof t);
    CU_ASSERT_EQUAL(tune_select(&t, &tune_usual, 90, rows), 0); /* nothing served anything */
    everywhere(&t, small, 0, 4, 10);
    everywhere(&t, tile, 4, 9, 10.1); /* M = 16: within the noise of small, which was there before */
    everywhere(&t, large, 8, TUNE_MS - 1, 5);
    CU_ASSERT_EQUAL(tune_best(&t, 0, 4, small), small);
    CU_ASSERT_EQUAL(tune_best(&t, 0, 4, -1), small);
    t.us[0][0][4][small] = 10.5, t.us[0][1][4][small] = 21; /* 4 % slower: no longer */
    CU_ASSERT_EQUAL(tune_best(&t, 0, 4, small), tile);
    t.us[0][1][4][tile] = 0; /* it does not serve one of the shapes */
    CU_ASSERT_EQUAL(tune_best(&t, 0, 4, -1), small);
    everywhere(&t, small, 0, 4, 10), everywhere(&t, tile, 4, 9, 10.1);
    int count = tune_select(&t, &tune_usual, 90, rows);
    CU_ASSERT_EQUAL_FATAL(count, 3 * TUNE_CLASSES);
    const struct { int64_t m; fb_gemm_path path; } expected[] = {{16, FB_GEMM_SMALL}, {128, FB_GEMM_TILE_64}, {FB_ANY_M, FB_GEMM_TILE_256}};
    for (int i = 0; i < count; i++) {
        CU_ASSERT_EQUAL(rows[i].m_most, expected[i % 3].m);
        CU_ASSERT_EQUAL(rows[i].path, expected[i % 3].path);
        CU_ASSERT_EQUAL(rows[i].weights_most, tune_usual.classes[i / 3].weights_most); /* the small sizes' rows come first */
        CU_ASSERT_EQUAL(rows[i].arch, 90);
    }
    memset(again, 0, sizeof again);
    CU_ASSERT_EQUAL(tune_select(&t, &tune_usual, 90, again), count);
    for (int i = 0; i < count; i++) CU_ASSERT(again[i].path == rows[i].path && again[i].m_most == rows[i].m_most && again[i].blocks == rows[i].blocks);
    /* of two shapes that disagree, the one that loses more by it decides */
    t.us[2][0][0][tile] = 9, t.us[2][1][0][tile] = 40; /* 10 % better, 100 % worse */
    CU_ASSERT_EQUAL(tune_best(&t, 2, 0, -1), small);
    t.us[2][0][0][tile] = 3, t.us[2][1][0][tile] = 21; /* 70 % better, 5 % worse */
    CU_ASSERT_EQUAL(tune_best(&t, 2, 0, -1), tile);
}

static void test_candidates(void)
{
    for (int k = 0; k < TUNE_CANDIDATES; k++) {
        const tune_candidate *c = &tune_candidates[k];
        if (!c->m_most) continue;
        CU_ASSERT(strncmp(tune_path_name(c->path), "FB_GEMM_", 8) == 0);
        CU_ASSERT_EQUAL(candidate_of(c->path, c->blocks), k); /* none twice */
    }
    for (int path = FB_GEMM_TILE_16; path < FB_GEMM_PATHS; path++) { /* none forgotten */
        int tried = 0;
        for (int k = 0; k < TUNE_CANDIDATES; k++) tried += tune_candidates[k].m_most && tune_candidates[k].path == (fb_gemm_path)path;
        CU_ASSERT(tried > 0);
    }
    for (int c = 0; c < TUNE_CLASSES; c++)
        for (int s = 0; s < TUNE_SHAPES; s++) { /* a shape is in its class, and in none before */
            const int64_t *shape = tune_usual.classes[c].shapes[s], n = shape[0] * shape[1];
            CU_ASSERT(tune_usual.classes[c].weights_most == 0 || n <= tune_usual.classes[c].weights_most);
            CU_ASSERT(c == 0 || n > tune_usual.classes[c - 1].weights_most);
        }
}

/* ---- the text ----------------------------------------------------------------------------------------------------------- */

static const char planted_table[] = "    /* arch  M at most  N K at most  path             blocks */\n"
                                    "    /* measured: sm100, another */\n    {100,    FB_ANY_M,           0, FB_GEMM_TILE_128,       1 },\n"
                                    "    /* measured: sm90, bad */\n    { 90,    FB_ANY_M,           0, FB_GEMM_TILE_16,        1 },\n"
                                    "    /* measured: sm80, older */\n    { 80,           7,           0, FB_GEMM_SMALL,          4 },\n"
                                    "    /* predicted */\n    { 80,    FB_ANY_M,           0, FB_GEMM_TILE_256,       1 },\n";

static void test_text(void)
{
    char why[TIMING_WHY] = "";
    const fb_gemm_rule rows[] = {{90, 16, 1 << 22, FB_GEMM_SMALL, 2}, {90, FB_ANY_M, 0, FB_GEMM_HOPPER, 0}};
    char *text = tune_table(planted_table, 90, "a GPU, today", rows, 2, why);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_STRING_EQUAL(text, "    /* arch  M at most  N K at most  path             blocks */\n"
                                 "    /* measured: sm100, another */\n    {100,    FB_ANY_M,           0, FB_GEMM_TILE_128,       1 },\n"
                                 "    /* measured: sm90, a GPU, today */\n"
                                 "    { 90,          16,     4194304, FB_GEMM_SMALL,         2 },\n"
                                 "    { 90,    FB_ANY_M,           0, FB_GEMM_HOPPER,        0 },\n"
                                 "    /* measured: sm80, older */\n    { 80,           7,           0, FB_GEMM_SMALL,          4 },\n"
                                 "    /* predicted */\n    { 80,    FB_ANY_M,           0, FB_GEMM_TILE_256,       1 },\n");
    char *again = tune_table(text, 90, "a GPU, today", rows, 2, why);
    CU_ASSERT_STRING_EQUAL(again, text); /* once more changes nothing */
    free(again), free(text);
    text = tune_table("    /* predicted */\n", 80, "x", rows, 1, why); /* where there was nothing measured */
    CU_ASSERT(text && strncmp(text, "    /* measured: sm80, x */\n", 27) == 0 && strstr(text, "},\n    /* predicted */\n"));
    free(text);
    CU_ASSERT_PTR_NULL(tune_table("int main(void) {}\n", 90, "x", rows, 2, why));
    CU_ASSERT(strstr(why, "not a table") != NULL);
    CU_ASSERT_PTR_NULL(tune_table("", 90, "x", rows, 2, why));
}

/* ---- whole runs ------------------------------------------------------------------------------------------------------------ */

/* A device whose clock goes on only when a path runs, by what that path is said to take. */
static struct {
    device *host, d;
    double clock, began, ended;
} fake;

static bool fake_begin(device *d) { return (void)d, fake.began = fake.clock, true; }
static bool fake_end(device *d) { return (void)d, fake.ended = fake.clock, true; }
static bool fake_elapsed(device *d, double *s) { return (void)d, *s = fake.ended - fake.began, true; }
static bool fake_flush(device *d) { return (void)d, true; }
static void fake_close(device *d) { (void)d, fake.host->close(fake.host); }

static device *open_fake(const char *kind, char why[DEVICE_TEXT])
{
    (void)kind;
    fake.host = device_host(0, why);
    fake.d = *fake.host;
    fake.d.free_bytes = 1; /* one set of buffers: a sample is one call */
    snprintf(fake.d.name, sizeof fake.d.name, "Planted GPU");
    fake.d.begin = fake_begin, fake.d.end = fake_end, fake.d.elapsed = fake_elapsed, fake.d.flush = fake_flush, fake.d.close = fake_close;
    return &fake.d;
}

/* Recorded times, in microseconds: small paths cost by weights alone, tiles by M in steps; the best changes with M and size. */
static double planted_us(const fb_gemm_rule *r, int64_t m, int64_t n, int64_t k)
{
    const double weights = (double)n * (double)k / 1e4;
    static const int tokens[FB_GEMM_PATHS] = {[FB_GEMM_TILE_16] = 16, [FB_GEMM_TILE_32] = 32, [FB_GEMM_TILE_64] = 64, [FB_GEMM_TILE_128] = 128, [FB_GEMM_TILE_256] = 256};
    if (r->path == FB_GEMM_SMALL) return weights * (1 + (double)m / 32) + (r->blocks == 2 ? 0 : 1);
    if (r->path == FB_GEMM_HOPPER) return 3 + weights * ceil((double)m / 256) * 0.9;
    return 2 + weights * ceil((double)m / tokens[r->path]) * (1 + tokens[r->path] / 100.0) + 0.1 * r->blocks;
}

static fb_gemm_path wrong_path; /* computes something else; FB_GEMM_ANY: none does */
static fb_status planted_by_rule(fb_context *ctx, int arch, const fb_gemm_rule *rule, const fb_matrix *w, int64_t m, const void *x, fb_dtype t, void *y,
                                 size_t *workspace)
{
    *workspace = 64;
    if (rule->path == FB_GEMM_HOPPER && arch != 90) return FB_UNSUPPORTED;
    if (rule->path == FB_GEMM_TILE_128 && w->rows % 2) return FB_UNSUPPORTED;
    if (!y) return FB_OK;
    fake.clock += 1e-6 * planted_us(rule, m, w->rows, w->cols);
    if (*(uint16_t *)y != 0xffff) return FB_OK; /* no longer poison: it was computed */
    fb_status status = fb_gemm(ctx, w, m, x, t, NULL, y, t); /* the reference's */
    if (rule->path == wrong_path) memset(y, 0, (size_t)(m * w->rows) * fb_dtype_size(t));
    return status;
}

static const tune_plan tiny = {.classes = {{2048, {{16, 64}, {32, 64}}}, {6144, {{48, 64}, {96, 64}}}, {0, {{128, 64}, {128, 128}}}},
                               .m = {1, 8, 16, 32, 64}};
static const stop_rule brief = {.floor = 1, .ceiling = 1, .seconds = 0, .hard_seconds = 1, .spread = 1, .sample_seconds = 1e-6};

static tune_options options_of(void)
{
    return (tune_options){.device = "fake", .open = open_fake, .by_rule = planted_by_rule, .backend = FB_BACKEND_REFERENCE, .arch = 90, .plan = &tiny,
                          .rule = &brief, .table = table_path, .out = sink, .progress = sink};
}

static void write_file(const char *text)
{
    FILE *f = fopen(table_path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) exit(2);
}
static char *read_file(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = fopen(table_path, "r");
    if (!f || getdelim(&text, &size, '\0', f) < 0) exit(2);
    fclose(f);
    return text;
}

/* The row that a call takes, as gemm.cu reads the table: the first that fits and serves. */
static fb_gemm_rule first_row(const char *text, int arch, int64_t m, int64_t weights)
{
    fb_gemm_rule r = {0, 0, 0, FB_GEMM_ANY, 0};
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char most[24], path[32];
        long long any;
        if (sscanf(line, " { %d, %23[^,], %lld, %31[^,], %d }", &r.arch, most, &any, path, &r.blocks) != 5) continue;
        r.m_most = strcmp(most, "FB_ANY_M") == 0 ? FB_ANY_M : atoll(most), r.weights_most = any, r.path = FB_GEMM_ANY;
        for (int p = 0; p < FB_GEMM_PATHS; p++)
            if (strcmp(path, tune_path_name((fb_gemm_path)p)) == 0) r.path = (fb_gemm_path)p;
        if (arch < r.arch || m > r.m_most || (any && weights > any)) continue;
        if ((r.path == FB_GEMM_SMALL && m > 16) || (r.path == FB_GEMM_HOPPER && arch != 90)) continue;
        return r;
    }
    return r;
}

/* No candidate may be faster than the table's choice by more than the noise, on the shapes that were timed. */
static bool is_tuned(const char *text, int arch)
{
    for (int c = 0; c < TUNE_CLASSES; c++)
        for (int m = 0; m < TUNE_MS && tiny.m[m]; m++) {
            double best = INFINITY, chosen = 0;
            for (int k = 0; k < TUNE_CANDIDATES; k++) {
                const tune_candidate *t = &tune_candidates[k];
                const fb_gemm_rule r = {arch, 0, 0, t->path, t->blocks};
                if (tiny.m[m] < t->m_least || tiny.m[m] > t->m_most || (t->path == FB_GEMM_HOPPER && arch != 90) || t->path == wrong_path) continue;
                double mean = 0;
                for (int s = 0; s < TUNE_SHAPES; s++) mean += log(planted_us(&r, tiny.m[m], tiny.classes[c].shapes[s][0], tiny.classes[c].shapes[s][1]));
                if (mean < best) best = mean;
            }
            for (int s = 0; s < TUNE_SHAPES; s++) {
                const int64_t *shape = tiny.classes[c].shapes[s];
                const fb_gemm_rule r = first_row(text, arch, tiny.m[m], shape[0] * shape[1]);
                chosen += log(planted_us(&r, tiny.m[m], shape[0], shape[1]));
            }
            if (chosen > best + TUNE_SHAPES * log1p(1.01 * TUNE_NOISE)) return false;
        }
    return true;
}

static void test_bad_table_corrected(void)
{
    for (int arch = 80; arch <= 90; arch += 10) {
        tune_options o = options_of();
        o.arch = arch;
        write_file(planted_table);
        CU_ASSERT_FALSE(is_tuned(planted_table, arch)); /* it is bad */
        CU_ASSERT_EQUAL(tune_run(&o, &going), RUN_OK);
        char *text = read_file(), *again;
        CU_ASSERT_TRUE(is_tuned(text, arch));
        CU_ASSERT(strstr(text, "Planted GPU") != NULL);
        CU_ASSERT(strstr(text, "sm100, another") != NULL && strstr(text, "/* predicted */\n    { 80,    FB_ANY_M,") != NULL);
        CU_ASSERT_PTR_NULL(strstr(text, arch == 90 ? "sm90, bad" : "sm80, older"));
        CU_ASSERT_EQUAL(tune_run(&o, &going), RUN_OK);
        again = read_file();
        CU_ASSERT_STRING_EQUAL(again, text); /* the same times, the same table */
        free(text), free(again);
    }
}

/* A path that is fast because it computes nothing never gets into the table. */
static void test_wrong_path(void)
{
    tune_options o = options_of();
    write_file(planted_table);
    wrong_path = FB_GEMM_HOPPER;
    CU_ASSERT_EQUAL(tune_run(&o, &going), RUN_OK);
    char *text = read_file();
    CU_ASSERT_TRUE(is_tuned(text, 90));
    CU_ASSERT_PTR_NULL(strstr(text, "FB_GEMM_HOPPER"));
    wrong_path = FB_GEMM_ANY;
    free(text);
}

static device *open_nothing(const char *kind, char why[DEVICE_TEXT]) { return snprintf(why, DEVICE_TEXT, "planted: no %s", kind), NULL; }
static fb_status serves_nothing(fb_context *ctx, int arch, const fb_gemm_rule *rule, const fb_matrix *w, int64_t m, const void *x, fb_dtype t, void *y,
                                size_t *workspace)
{
    (void)ctx, (void)arch, (void)rule, (void)w, (void)m, (void)x, (void)t, (void)y;
    return *workspace = 0, FB_UNSUPPORTED;
}

/* Refused, failed, interrupted, tried out: the table is as it was. */
static void test_table_stays(void)
{
    char *said = NULL;
    size_t size = 0;
    tune_options none = options_of(), without = options_of(), dry = options_of(), useless = options_of(), missing = options_of(), o = options_of();
    write_file(planted_table);
    none.open = open_nothing, none.out = open_memstream(&said, &size);
    CU_ASSERT_EQUAL(tune_run(&none, &going), GPU_RUN_NO_DEVICE);
    without.by_rule = NULL, without.out = none.out;
    CU_ASSERT_EQUAL(tune_run(&without, &going), GPU_RUN_NO_DEVICE);
    dry.dry = true, dry.out = none.out;
    CU_ASSERT_EQUAL(tune_run(&dry, &going), RUN_OK);
    fclose(none.out);
    CU_ASSERT(strstr(said, "not run: no GPU: planted: no fake") && strstr(said, "this build has no CUDA") && strstr(said, "Planted GPU"));
    free(said);
    useless.by_rule = serves_nothing;
    CU_ASSERT_EQUAL(tune_run(&useless, &going), RUN_FAILED);
    CU_ASSERT_EQUAL(tune_run(&o, &stopping), RUN_INTERRUPTED);
    char *text = read_file();
    CU_ASSERT_STRING_EQUAL(text, planted_table);
    free(text);
    missing.table = "/nowhere/table.h";
    CU_ASSERT_EQUAL(tune_run(&missing, &going), RUN_USAGE);
    write_file("not a table\n");
    CU_ASSERT_EQUAL(tune_run(&o, &going), RUN_FAILED);
    text = read_file();
    CU_ASSERT_STRING_EQUAL(text, "not a table\n");
    free(text);
}

/* With memory for one set: a sample is one call. */
static device *open_host(const char *kind, char why[DEVICE_TEXT])
{
    (void)kind;
    device *d = device_host(0, why);
    if (d) d->free_bytes = 1;
    return d;
}

/* Each path as the kernels' own table knows it, on both generations: it serves, it is right, and one of them is chosen. */
static void test_in_executor(void)
{
    tune_plan few = {.classes = {{2048, {{32, 64}, {32, 64}}}, {4096, {{64, 64}, {64, 64}}}, {0, {{96, 64}, {96, 64}}}}};
    if (!fb_simt_gemm_by_rule) return;
    setenv("FOURBIT_CUDA", "simt", 1);
    for (int arch = 80; arch <= 90; arch += 10) {
        char *said = NULL, *text;
        size_t size = 0;
        tune_options o = options_of();
        few.m[0] = arch == 80 ? 33 : 16; /* the large tiles; the small path and Hopper's */
        setenv("FOURBIT_CUDA_ARCH", arch == 80 ? "sm80" : "sm90", 1);
        o.open = open_host, o.backend = FB_BACKEND_CUDA, o.by_rule = fb_simt_gemm_by_rule, o.arch = arch, o.plan = &few;
        o.progress = open_memstream(&said, &size);
        write_file(planted_table);
        CU_ASSERT_EQUAL(tune_run(&o, &going), RUN_OK);
        fclose(o.progress);
        text = read_file();
        CU_ASSERT_PTR_NULL(strstr(said, "wrong result"));
        if (strstr(said, "wrong result")) fprintf(stderr, "%s", said);
        CU_ASSERT(strstr(text, arch == 80 ? "/* measured: sm80, host" : "/* measured: sm90, host") != NULL);
        free(said), free(text);
    }
    unsetenv("FOURBIT_CUDA"), unsetenv("FOURBIT_CUDA_ARCH");
}

int main(void)
{
    sink = fopen("/dev/null", "w");
    if (!sink || !mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS) return 1;
    snprintf(table_path, sizeof table_path, "%s/dispatch_table.h", folder);
    CU_pSuite s = CU_add_suite("tune", NULL, NULL);
    struct { const char *name; CU_TestFunc test; } tests[] = {
        {"choice", test_choice}, {"candidates", test_candidates}, {"text", test_text}, {"a bad table is corrected", test_bad_table_corrected},
        {"wrong path", test_wrong_path}, {"table stays", test_table_stays}, {"in executor", test_in_executor}};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!s || !CU_add_test(s, tests[i].name, tests[i].test)) return 1;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    fclose(sink);
    char clean[64];
    snprintf(clean, sizeof clean, "rm -rf %s", folder);
    return system(clean) != 0 || failures > 0;
}
