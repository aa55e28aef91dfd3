/* test_compare.c: the statistics against worked examples, and the program against planted regressions and damaged
 * files. Result files are synthetic: what a run on a machine decides is in bench/results/. */
#include "compare.h"

#include <CUnit/Basic.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[] = "/tmp/fourbit-compare-test.XXXXXX";
static char output[1 << 20]; /* of the program's last run */

/* ---- statistics ------------------------------------------------------------------------------- */

static void test_signed_rank(void)
{
    const double six[] = {1, 2, 3, 4, 5, 6}, mixed[] = {-1, 2, 3, 4, 5, 6}, tied[] = {1, 1, 1, -1, 1, 1}, zeros[] = {0, 0, 0};
    double many[200];
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(six, 6), 2.0 / 64, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(mixed, 6), 4.0 / 64, 1e-12); /* sums 0 and 1: one way each */
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(tied, 6), 14.0 / 64, 1e-12); /* a sign test: (1 + 6) ways, both sides */
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(zeros, 3), 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(NULL, 0), 1, 0);
    for (int i = 0; i < 200; i++) many[i] = (i % 2 ? -1 : 1) * (1 + i / 2);
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(many, 200), 1, 1e-9);
    for (int i = 0; i < 200; i++) many[i] = 1 + i;
    CU_ASSERT(stats_signed_rank(many, 200) < 1e-30);
    /* pairs of equal magnitude, one in three of all negative: ranks 1.5, 1.5, 3.5, 3.5 ..., the negative ones' 1080.5 of 3240 */
    for (int i = 0; i < 80; i++) many[i] = (i % 3 ? 1 : -1) * (1.0 + i / 2);
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(many, 80), erfc((1620 - 1080.5 - 0.5) / sqrt(80 * 81 * 161 / 24.0 - 40 * 6 / 48.0) / sqrt(2)), 1e-12);
    /* one in three negative: of 60 the ranks 1 + 4 + ... + 58 = 590, exactly; of 61 by the normal */
    for (int i = 0; i < 61; i++) many[i] = (i % 3 ? 1 : -1) * (1.0 + i);
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(many, 60), 0.0161371230875515, 1e-15); /* ways counted in Python's integers */
    CU_ASSERT_DOUBLE_EQUAL(stats_signed_rank(many, 61), erfc((945.5 - 651 - 0.5) / sqrt(61 * 62 * 123 / 24.0) / sqrt(2)), 1e-12);
}

static void test_rank_sum(void)
{
    const double a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {9, 10, 11, 12, 13, 14, 15, 16}, same[] = {3, 3, 3, 3, 3, 3, 3, 3};
    /* U = 0, mean 32, deviation sqrt(64 * 17 / 12): z = 31.5 / 9.5219 */
    CU_ASSERT_DOUBLE_EQUAL(stats_rank_sum(a, 8, b, 8), erfc(31.5 / sqrt(64 * 17 / 12.0) / sqrt(2)), 1e-12);
    /* ranks of ties averaged: 1.5 3.5 6.5 10.5, twice each, add up to 44, U = 8; two ties of 4, four of 2 */
    const double low[] = {1, 1, 2, 2, 3, 3, 4, 4}, high[] = {3, 3, 4, 4, 5, 5, 6, 6};
    CU_ASSERT_DOUBLE_EQUAL(stats_rank_sum(low, 8, high, 8), erfc(23.5 / sqrt(64 / 12.0 * (17 - (2 * 60 + 4 * 6) / 240.0)) / sqrt(2)), 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(stats_rank_sum(a, 8, a, 8), 1, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(stats_rank_sum(same, 8, same, 8), 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(stats_rank_sum(a, 0, b, 8), 1, 0);
}

static void test_median(void)
{
    double even[] = {8, 1, 4, 2}, odd[] = {5, 1, 3};
    CU_ASSERT_DOUBLE_EQUAL(stats_median(even, 4), 3, 0);
    CU_ASSERT_DOUBLE_EQUAL(stats_median(odd, 3), 3, 0);
}

static void test_holm(void)
{
    double p[] = {0.04, 0.01, 0.03, 0.005};
    CU_ASSERT(stats_holm(p, 4));
    CU_ASSERT_DOUBLE_EQUAL(p[3], 0.02, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(p[1], 0.03, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(p[2], 0.06, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(p[0], 0.06, 1e-12); /* never below one that was smaller */
    CU_ASSERT(stats_holm(p, 0));
}

static double uniform(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) / 16777216.0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 95 % intervals of the median of 20 and of 21 values hold the true one in 90 ... 99 % of 2000 draws: the percentile
 * bootstrap of a median is known to fall a little short at such sizes. And they do not change from call to call. */
static void test_bootstrap(void)
{
    unsigned seed = 3;
    for (int n = 20; n <= 21; n++) {
        int covered = 0;
        for (int draw = 0; draw < 2000; draw++) {
            double v[21];
            for (int i = 0; i < n; i++) v[i] = uniform(&seed);
            qsort(v, (size_t)n, sizeof *v, by_value);
            stats_interval once = stats_bootstrap_median(v, n), again = stats_bootstrap_median(v, n);
            CU_ASSERT_FATAL(once.low == again.low && once.high == again.high);
            covered += once.low <= 0.5 && 0.5 <= once.high;
        }
        CU_ASSERT(covered > 1800 && covered < 1980);
    }
    const double a[] = {2, 2, 2, 2}, b[] = {1, 1, 1};
    stats_interval two = stats_bootstrap_ratio(a, 4, b, 3);
    CU_ASSERT(two.low == 2 && two.high == 2);
}

/* ---- result files -------------------------------------------------------------------------------- */

typedef struct plan {
    int rows, samples;
    double factor;       /* times of row 0 */
    double noise, drift; /* every sample's; every row's of this file: what a busy machine does to a whole run */
    const char *hash, *host, *commit, *extra; /* extra: raw JSON after row 0 */
    bool incomplete, dequantize_failed, peer;
} plan;

static const char *path_of(const char *name)
{
    static char paths[100][200]; /* each name once: callers keep what they got */
    static int count;
    char path[200];
    snprintf(path, sizeof path, "%s/%.100s", folder, name);
    for (int i = 0; i < count; i++)
        if (strcmp(paths[i], path) == 0) return paths[i];
    CU_ASSERT_FATAL(count < 100);
    return strcpy(paths[count++], path);
}

static void put_row(FILE *f, const char *name, double us, const plan *p, unsigned *seed, const char *more)
{
    double v[200], middle = 0;
    for (int i = 0; i < p->samples; i++) v[i] = us * (1 + p->noise * (2 * uniform(seed) - 1));
    fprintf(f, ",\n {\"name\": \"%s\", \"run_type\": \"iteration\", \"time_unit\": \"us\", \"label\": \"cold, bf16, 2 threads: avx2\", \"bytes\": 1e6%s", name, more);
    if (p->samples) {
        fprintf(f, ", \"samples\": %d, \"samples_us\": \"", p->samples);
        for (int i = 0; i < p->samples; i++) fprintf(f, "%s%.9g", i ? " " : "", v[i]);
        qsort(v, (size_t)p->samples, sizeof *v, by_value);
        middle = v[p->samples / 2];
        fprintf(f, "\", \"p10_us\": %.9g, \"p90_us\": %.9g", v[p->samples / 10], v[p->samples * 9 / 10]);
    }
    fprintf(f, ", \"real_time\": %.9g}", p->samples ? middle : us);
}

static const char *make_file(const char *name, plan p, unsigned seed)
{
    const char *path = path_of(name);
    char more[64], row[64];
    FILE *f = fopen(path, "w");
    CU_ASSERT_FATAL(f != NULL);
    fprintf(f, "{\"context\": {\"cpu_name\": \"Z80\", \"host_name\": \"%s\", \"threads\": \"2\", \"commit\": \"%s\", \"complete\": %s}, \"benchmarks\": [\n"
               " {\"name\": \"mean\", \"run_type\": \"aggregate\", \"real_time\": 0}",
            p.host ? p.host : "h1", p.commit ? p.commit : "0123456789ab", p.incomplete ? "false" : "true");
    for (int i = 0; i < p.rows; i++) {
        snprintf(more, sizeof more, ", \"output_hash\": \"%s\", \"mse\": %.17g", i == 0 && p.hash ? p.hash : "00ff", 0.25);
        snprintf(row, sizeof row, "%s/cpu/nf4/b64/%dx512", i == 0 ? "dequantize" : "quantize", i + 1);
        put_row(f, row, (100 + i) * (i == 0 ? p.factor : 1) * (1 + p.drift), &p, &seed, more);
        if (i == 0 && p.extra) fputs(p.extra, f);
    }
    if (p.peer) put_row(f, "dequantize/peer:x/nf4/b64/1x512", 300 * (1 + p.drift), &p, &seed, "");
    if (p.dequantize_failed) fputs(",\n {\"name\": \"gemm/cpu/nf4/b64/M1_N1_K1\", \"error_occurred\": true, \"error_message\": \"FAILED: [3] is 1, not 2\"}", f);
    fputs("]}\n", f);
    CU_ASSERT_FATAL(fclose(f) == 0);
    return path;
}

/* Rounds of an interleaved run: both sides of a round share its drift of up to 20 %. */
static void make_rounds(int rounds, plan base, plan now)
{
    char name[64];
    unsigned seed = 11;
    if (system("rm -rf /tmp/fourbit-compare-test.*/A /tmp/fourbit-compare-test.*/B") != 0) CU_FAIL("rm");
    CU_ASSERT_FATAL(mkdir(path_of("A"), 0777) == 0 && mkdir(path_of("B"), 0777) == 0);
    for (int i = 0; i < rounds; i++) {
        base.drift = now.drift = 0.2 * uniform(&seed);
        snprintf(name, sizeof name, "A/%02d.json", i);
        make_file(name, base, 100 + (unsigned)i);
        snprintf(name, sizeof name, "B/%02d.json", i);
        make_file(name, now, 900 + (unsigned)i);
    }
}

/* The program's exit status; what it printed, both streams, in output. */
static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *format, ...)
{
    char command[2000];
    va_list args;
    size_t used = (size_t)snprintf(command, sizeof command, "%s ", COMPARE_PROGRAM);
    va_start(args, format);
    used += (size_t)vsnprintf(command + used, sizeof command - used, format, args);
    va_end(args);
    snprintf(command + used, sizeof command - used, " 2>&1");
    FILE *p = popen(command, "r");
    CU_ASSERT_FATAL(p != NULL);
    size_t n = fread(output, 1, sizeof output - 1, p);
    output[n] = '\0';
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool says(int status, int expected, const char *text)
{
    bool ok = status == expected && strstr(output, text) != NULL;
    if (!ok) printf("\n  expected status %d and \"%s\"; got %d and:\n%s\n", expected, text, status, output);
    return ok;
}
#define SAYS(call, expected, text) CU_ASSERT(says(call, expected, text))

static const plan quiet = {.rows = 5, .samples = 15, .factor = 1, .noise = 0.02};

/* ---- verdicts ------------------------------------------------------------------------------------- */

static plan with_factor(plan p, double factor) { return p.factor = factor, p; }

static void test_two_files(void)
{
    const char *a = make_file("a.json", quiet, 1);
    SAYS(run("%s %s", a, make_file("b.json", quiet, 2)), 0, "5 same");
    SAYS(run("%s %s", a, make_file("b.json", with_factor(quiet, 1.3), 2)), 1, "SLOWER");
    SAYS(run("%s %s", a, make_file("b.json", with_factor(quiet, 0.7), 2)), 0, "1 faster, 4 same");
    SAYS(run("%s %s", a, make_file("b.json", with_factor(quiet, 1.1), 2)), 3, "ambiguous"); /* astride the threshold */
    SAYS(run("--threshold 5 %s %s", a, path_of("b.json")), 1, "SLOWER");
    plan wild = quiet;
    wild.noise = 0.9;
    SAYS(run("%s %s", make_file("c.json", wild, 5), make_file("b.json", wild, 6)), 3, "interval wider");
}

/* The planted 5 %: drowned in a drift of 20 % between rounds, seen by their pairs. */
static void test_five_per_cent(void)
{
    plan noisy = quiet;
    noisy.noise = 0.04;
    make_rounds(14, noisy, noisy);
    SAYS(run("%s %s", path_of("A"), path_of("B")), 0, "5 same");
    make_rounds(14, noisy, with_factor(noisy, 1.05));
    SAYS(run("%s %s", path_of("A"), path_of("B")), 1, "1 SLOWER, 4 same");
    CU_ASSERT(strstr(output, "SLOWER       dequantize/cpu/nf4/b64/1x512") != NULL);
    make_rounds(14, noisy, with_factor(noisy, 1 / 1.06));
    SAYS(run("%s %s", path_of("A"), path_of("B")), 0, "1 faster, 4 same");
    make_rounds(5, noisy, with_factor(noisy, 1.05));
    SAYS(run("%s %s", path_of("A"), path_of("B")), 3, "at least 8 are needed");
    make_rounds(5, noisy, with_factor(noisy, 1 / 1.06));
    SAYS(run("%s %s", path_of("A"), path_of("B")), 3, "beyond the threshold, but p = 0.31");
}

/* No difference, 400 comparisons of 5 rows each: no more than 5 % may claim one. */
static void test_null_rate(void)
{
    unsigned seed = 5;
    int wrong = 0;
    for (int trial = 0; trial < 400; trial++) {
        double p[5];
        bool beyond[5], any = false;
        for (int row = 0; row < 5; row++) {
            double d[12], median;
            for (int i = 0; i < 12; i++) d[i] = 0.1 * (uniform(&seed) + uniform(&seed) + uniform(&seed) - 1.5);
            p[row] = stats_signed_rank(d, 12);
            median = stats_median(d, 12);
            stats_interval in = stats_bootstrap_median(d, 12);
            beyond[row] = fabs(median) > log(1.03) && (in.low > 0 || in.high < 0);
        }
        CU_ASSERT_FATAL(stats_holm(p, 5));
        for (int row = 0; row < 5; row++) any |= beyond[row] && p[row] <= 0.05;
        wrong += any;
    }
    CU_ASSERT(wrong <= 20);
}

static void test_exact(void)
{
    plan other = quiet;
    const char *a = make_file("a.json", quiet, 1);
    other.hash = "00fe";
    SAYS(run("%s %s", a, make_file("b.json", other, 2)), 1, "output_hash was 00ff, is 00fe");
    SAYS(run("--allow outputs %s %s", a, path_of("b.json")), 0, "5 same");
    other = quiet, other.dequantize_failed = true;
    SAYS(run("%s %s", a, make_file("b.json", other, 2)), 1, "1 BROKEN, 5 same");
    SAYS(run("%s %s", path_of("b.json"), path_of("b.json")), 1, "[3] is 1, not 2");
    SAYS(run("%s %s", path_of("b.json"), a), 2, "MISSING");
    plan few = quiet;
    few.rows = 4;
    SAYS(run("%s %s", a, make_file("c.json", few, 2)), 2, "1 MISSING, 4 same");
    SAYS(run("--allow missing %s %s", a, path_of("c.json")), 0, "4 same");
}

static void test_controls(void)
{
    plan p = quiet, moved;
    p.peer = true;
    moved = p, moved.drift = 0.3;
    make_file("a.json", p, 1);
    SAYS(run("%s %s", path_of("a.json"), make_file("b.json", moved, 2)), 1, "the machine changed between the runs");
    CU_ASSERT(strstr(output, "1 control") != NULL);
    SAYS(run("%s %s", path_of("a.json"), make_file("c.json", quiet, 2)), 0, "5 same"); /* a peer gone is not our regression */
}

static void test_contexts(void)
{
    plan p = quiet;
    const char *a = make_file("a.json", quiet, 1);
    p.host = "h2";
    SAYS(run("%s %s", a, make_file("b.json", p, 2)), 2, "another machine: host_name is \"h1\"");
    SAYS(run("--allow machine %s %s", a, path_of("b.json")), 0, "5 same");
    p = quiet, p.commit = "0123456789ab-dirty";
    SAYS(run("%s %s", a, make_file("b.json", p, 2)), 2, "--allow dirty");
    SAYS(run("--allow machine,dirty %s %s", a, path_of("b.json")), 0, "5 same");
    SAYS(run("--allow dirty,moon %s %s", a, a), 2, "the words are machine,");
}

/* ---- damage ------------------------------------------------------------------------------------------ */

static void test_damaged_rows(void)
{
    static const struct { const char *json, *says; } rows[] = {
        {",{\"name\": \"n\", \"real_time\": 0}", "row n: real_time is missing, zero or no number"},
        {",{\"name\": \"n\", \"real_time\": -1}", "real_time"},
        {",{\"name\": \"n\"}", "real_time"},
        {",{\"name\": \"n\", \"real_time\": null}", "real_time"},
        {",{\"name\": \"n\", \"real_time\": NaN}", "line"},
        {",{\"name\": \"n\", \"real_time\": 1e999}", "line"},
        {",{\"name\": \"n\", \"real_time\": 1, \"time_unit\": \"weeks\"}", "real_time"},
        {",{\"real_time\": 1}", "has no name"},
        {",7", "is not an object"},
        {",{\"name\": \"quantize/cpu/nf4/b64/2x512\", \"real_time\": 1}", "is there twice"},
        {",{\"name\": \"n\", \"name\": \"m\", \"real_time\": 1}", "duplicate"},
        {",{\"name\": \"n\", \"real_time\": 1, \"p10_us\": 2, \"p90_us\": 3}", "do not stand about"},
        {",{\"name\": \"n\", \"real_time\": 1, \"time_unit\": \"us\", \"samples_us\": \"1 0\"}", "sample 2 is 0 us"},
        {",{\"name\": \"n\", \"real_time\": 1, \"time_unit\": \"us\", \"samples_us\": \"1 nan\"}", "sample 2 is nan us"},
        {",{\"name\": \"n\", \"real_time\": 1, \"time_unit\": \"us\", \"samples_us\": \"1 x\"}", "where a number is expected"},
        {",{\"name\": \"n\", \"real_time\": 1, \"time_unit\": \"us\", \"samples\": 3, \"samples_us\": \"1 1\"}", "3 samples are announced and 2 are there"},
        {",{\"name\": \"n\", \"real_time\": 1, \"samples_us\": [1]}", "no text of numbers"}};
    make_file("a.json", quiet, 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plan p = quiet;
        p.extra = rows[i].json;
        make_file("b.json", p, 2);
        SAYS(run("%s %s", path_of("a.json"), path_of("b.json")), 2, rows[i].says);
        SAYS(run("%s %s", path_of("b.json"), path_of("b.json")), 2, "cannot compare"); /* not even with itself */
    }
}

/* Every prefix of a file: never a pass, never a crash. */
static void test_truncated(void)
{
    static char whole[1 << 16];
    FILE *f = fopen(make_file("a.json", quiet, 1), "r");
    size_t n = fread(whole, 1, sizeof whole, f), step = n / 40;
    fclose(f);
    for (size_t cut = 0; cut + 2 < n; cut += step) {
        f = fopen(path_of("b.json"), "w");
        fwrite(whole, 1, cut, f);
        fclose(f);
        SAYS(run("%s %s", path_of("a.json"), path_of("b.json")), 2, "b.json: line");
    }
}

static void test_damaged_runs(void)
{
    plan p = quiet;
    const char *a = make_file("a.json", quiet, 1);
    p.incomplete = true;
    SAYS(run("%s %s", a, make_file("b.json", p, 2)), 2, "did not finish");
    p = quiet, p.rows = 0;
    SAYS(run("%s %s", a, make_file("b.json", p, 2)), 2, "it has no rows");
    p = quiet, p.samples = 0;
    SAYS(run("%s %s", make_file("b.json", p, 1), path_of("b.json")), 3, "a single time decides nothing");
    SAYS(run("%s %s", a, path_of("none.json")), 2, "No such file");
    SAYS(run("%s %s", a, folder), 2, "files");
    SAYS(run("%s", a), 2, "two results are expected");
    SAYS(run("--sideways %s %s", a, a), 2, "usage");
    SAYS(run("--threshold x %s %s", a, a), 2, "--threshold");
    SAYS(run("--json=/nonexistent/x %s %s", a, a), 2, "could not be written");
    SAYS(run("--help"), 0, "Exit status: 0 pass");
    make_rounds(8, quiet, quiet);
    unlink(path_of("B/03.json"));
    SAYS(run("%s %s", path_of("A"), path_of("B")), 2, "8 and the new run has 7 files");
    make_file("B/zz.json", quiet, 2);
    SAYS(run("%s %s", path_of("A"), path_of("B")), 2, "rounds do not pair up");
    make_rounds(8, quiet, quiet);
    p = quiet, p.rows = 4;
    make_file("B/05.json", p, 3);
    SAYS(run("%s %s", path_of("A"), path_of("B")), 2, "not in every round");
}

/* ---- formats ------------------------------------------------------------------------------------------- */

static void test_formats(void)
{
    json_error_t error;
    plan p = with_factor(quiet, 1.3);
    p.extra = ",{\"name\": \"a|b<&\\\"c\", \"real_time\": 5}";
    const char *b = make_file("b.json", p, 2);
    make_file("a.json", quiet, 1);
    SAYS(run("--json %s %s", path_of("a.json"), b), 1, "\"regression\"");
    json_t *root = json_loads(output, 0, &error);
    CU_ASSERT(root && json_integer_value(json_object_get(root, "exit_status")) == 1);
    CU_ASSERT_EQUAL(json_array_size(json_object_get(root, "rows")), 6);
    json_decref(root);
    SAYS(run("--tracking %s %s", path_of("a.json"), b), 1, "\"unit\": \"us\"");
    root = json_loads(output, 0, &error);
    CU_ASSERT(root && json_array_size(root) == 5 && json_string_value(json_object_get(json_array_get(root, 0), "extra")));
    json_decref(root);
    SAYS(run("--markdown %s %s", path_of("a.json"), b), 1, "| SLOWER | `dequantize/cpu/nf4/b64/1x512` |");
    SAYS(run("--junit %s %s", path_of("a.json"), b), 1, "<failure message=\"SLOWER");
    CU_ASSERT(strstr(output, "tests=\"6\" failures=\"1\" errors=\"0\" skipped=\"1\"") && strstr(output, "a|b&lt;&amp;&quot;c"));
    SAYS(run("--changes --json=%s --junit=%s %s %s", path_of("o.json"), path_of("o.xml"), path_of("a.json"), b), 1, "1 SLOWER");
    CU_ASSERT(access(path_of("o.json"), R_OK) == 0 && access(path_of("o.xml"), R_OK) == 0);
}

/* Not over a result that is compared; and what is no regular file is written to, not replaced. */
static void test_output_places(void)
{
    char whole[64] = "";
    struct stat info;
    const char *b = make_file("b.json", with_factor(quiet, 1.3), 2);
    make_file("a.json", quiet, 1);
    SAYS(run("--json=%s %s %s", b, path_of("a.json"), b), 2, "it is not overwritten");
    SAYS(run("%s %s", path_of("a.json"), b), 1, "SLOWER");
    CU_ASSERT_FATAL(mkfifo(path_of("pipe"), 0600) == 0);
    int reader = open(path_of("pipe"), O_RDONLY | O_NONBLOCK);
    SAYS(run("--tracking=%s %s %s", path_of("pipe"), path_of("a.json"), b), 1, "SLOWER");
    CU_ASSERT(read(reader, whole, sizeof whole - 1) > 0 && whole[0] == '[');
    CU_ASSERT(stat(path_of("pipe"), &info) == 0 && S_ISFIFO(info.st_mode));
    close(reader);
}

/* 5,000 rows of 31 samples in under a second of processor time, loading included. */
static void test_speed(void)
{
    plan p = quiet;
    side a, b;
    comparison c;
    char why[WHY] = "";
    p.rows = 5000, p.samples = 31;
    make_file("a.json", p, 1);
    make_file("b.json", p, 2);
    clock_t start = clock();
    CU_ASSERT_FATAL(side_load(&a, path_of("a.json"), why) && side_load(&b, path_of("b.json"), why));
    CU_ASSERT_FATAL(compare(&a, &b, &(rules){.alpha = 0.05}, &c, why));
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    CU_ASSERT(c.count == 5000 && c.exit_status == COMPARE_PASS);
    printf("5,000 rows in %.2f s ", seconds);
#ifndef __SANITIZE_ADDRESS__
    CU_ASSERT(seconds < 1);
#endif
    comparison_free(&c);
    side_free(&a);
    side_free(&b);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        {"signed rank", test_signed_rank}, {"rank sum", test_rank_sum}, {"median", test_median}, {"Holm", test_holm}, {"bootstrap", test_bootstrap},
        {"two files", test_two_files}, {"planted 5 % in noisy rounds", test_five_per_cent}, {"null rate", test_null_rate},
        {"hashes and metrics exactly", test_exact}, {"controls", test_controls}, {"other machine, dirty", test_contexts},
        {"damaged rows", test_damaged_rows}, {"truncated files", test_truncated}, {"unfinished runs, usage", test_damaged_runs},
        {"JSON, JUnit, Markdown, tracking", test_formats}, {"where output goes", test_output_places}, {"5,000 rows", test_speed}, CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"compare", NULL, NULL, NULL, NULL, (CU_TestInfo *)tests}, CU_SUITE_INFO_NULL};
    if (!mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS) return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    bool ok = CU_get_number_of_failures() == 0 && CU_get_number_of_asserts() > 0;
    CU_cleanup_registry();
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 && ok ? 0 : 1;
}
