/* test_report.c: the page is whole HTML, fetches nothing, escapes what it is given, is the same every time, and is not
 * written at all from a damaged input. */
#include "report.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char scratch[] = "/tmp/fourbit-report-XXXXXX";

/* ---- helpers --------------------------------------------------------------------------------------- */

static char *path_of(const char *file)
{
    static char path[4][256];
    static int next;
    snprintf(path[next = (next + 1) % 4], sizeof path[0], "%s/%s", scratch, file);
    return path[next];
}

static void write_bytes(const char *file, const char *text, size_t bytes)
{
    FILE *f = fopen(path_of(file), "wb");
    if (!f || fwrite(text, 1, bytes, f) != bytes || fclose(f) != 0) perror(file), exit(2);
}
static void write_text(const char *file, const char *text) { write_bytes(file, text, strlen(text)); }

static char *read_text(const char *file, size_t *bytes)
{
    FILE *f = fopen(path_of(file), "rb");
    if (!f) return NULL;
    char *text = malloc(16 << 20);
    *bytes = fread(text, 1, (16 << 20) - 1, f);
    text[*bytes] = '\0';
    fclose(f);
    return text;
}

static int shell(char *said, size_t size, const char *command)
{
    FILE *pipe = popen(command, "r");
    size_t n = pipe ? fread(said, 1, size - 1, pipe) : 0;
    said[n] = '\0';
    int status = pipe ? pclose(pipe) : -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int report_on(const char *arguments, char said[4096])
{
    char command[1024];
    snprintf(command, sizeof command, "cd '%s' && '%s' %s 2>&1", scratch, REPORT_PROGRAM, arguments);
    return shell(said, 4096, command);
}

/* An empty folder r/ in scratch. */
static void fresh(void)
{
    char said[256], command[512];
    snprintf(command, sizeof command, "rm -rf '%s/r' && mkdir -p '%s/r/plots'", scratch, scratch);
    CU_ASSERT_EQUAL_FATAL(shell(said, sizeof said, command), 0);
}

static void expect_refusal(const char *words)
{
    char said[4096];
    int status = report_on("r", said);
    if (status != 2 || !strstr(said, words)) fprintf(stderr, "\nexit %d, \"%s\" expected in: %s\n", status, words, said);
    CU_ASSERT_EQUAL(status, 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, words));
    CU_ASSERT_NOT_EQUAL(access(path_of("r/report.html"), F_OK), 0);
}

static char *expect_page(const char *arguments)
{
    char said[4096];
    size_t bytes = 0;
    int status = report_on(arguments, said);
    if (status != 0) fprintf(stderr, "\n%s: exit %d: %s\n", arguments, status, said);
    CU_ASSERT_EQUAL_FATAL(status, 0);
    char *page = read_text("r/report.html", &bytes);
    CU_ASSERT_PTR_NOT_NULL_FATAL(page);
    return page;
}

/* Every element closed in its order, quotes balanced, no id twice, none missing: stricter than a browser is.
 * NULL, or where it is wrong. */
static const char *malformed(const char *page)
{
    static const char *const empty[] = {"meta", "!doctype", "br"};
    static char open[256][32];
    int depth = 0;
    for (const char *s = page; (s = strchr(s, '<'));) {
        const char *tag = s++;
        bool closing = *s == '/';
        char name[32];
        int n = 0;
        s += closing;
        while (n < 31 && *s && !strchr(" \n\t/>", *s)) name[n] = (char)(*s | (*s < 'a' && *s >= 'A' ? 32 : 0)), n++, s++;
        name[n] = '\0';
        if (n == 0) return tag;
        for (char quote = 0; *s && (quote || *s != '>'); s++) {
            if (*s == '<') return tag;
            if (quote ? *s == quote : *s == '"' || *s == '\'') quote = quote ? 0 : *s;
        }
        if (*s != '>') return tag;
        if (closing) {
            if (depth == 0 || strcmp(open[--depth], name) != 0) return tag;
            continue;
        }
        bool is_empty = s[-1] == '/';
        for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) is_empty = is_empty || strcmp(name, empty[i]) == 0;
        if (is_empty) continue;
        if (depth == 256) return tag;
        strcpy(open[depth++], name);
        if (strcmp(name, "script") == 0 || strcmp(name, "style") == 0) { /* text up to its end */
            char end[40];
            snprintf(end, sizeof end, "</%s>", name);
            s = strstr(s, end);
            if (!s) return tag;
        }
    }
    return depth == 0 ? NULL : "an element that is not closed";
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* An id that stands twice, or a reference within the page to none; NULL if all is well. */
static const char *bad_id(const char *page)
{
    static char *ids[20000];
    static const char *const references[] = {"href=\"#", "href='#", "url(#"};
    size_t n = 0;
    const char *bad = NULL;
    for (const char *s = page; (s = strstr(s, " id=")) && n < 20000; s += 5) ids[n++] = strndup(s + 5, strcspn(s + 5, "\"'"));
    qsort(ids, n, sizeof *ids, by_text);
    for (size_t i = 1; i < n; i++)
        if (strcmp(ids[i - 1], ids[i]) == 0) bad = "an id stands twice";
    for (size_t k = 0; k < 3; k++)
        for (const char *s = page; (s = strstr(s, references[k]));) {
            s += strlen(references[k]);
            char *wanted = strndup(s, strcspn(s, "\"')"));
            if (!bsearch(&wanted, ids, n, sizeof *ids, by_text)) bad = s;
            free(wanted);
        }
    for (size_t i = 0; i < n; i++) free(ids[i]);
    return n ? bad : "no ids";
}

static void expect_sound(const char *page)
{
    const char *wrong = malformed(page), *id = bad_id(page);
    if (wrong) fprintf(stderr, "\nnot well formed: %.200s\n", wrong);
    if (id) fprintf(stderr, "\nids: %.100s\n", id);
    CU_ASSERT_PTR_NULL(wrong);
    CU_ASSERT_PTR_NULL(id);
    CU_ASSERT_PTR_NULL(strstr(page, "http:"));
    CU_ASSERT_PTR_NULL(strstr(page, "https:"));
    CU_ASSERT_PTR_NULL(strstr(page, "src="));
    CU_ASSERT_PTR_NULL(strstr(page, "@import"));
}

/* ---- input -------------------------------------------------------------------------------------------------- */

static const char svg[] = "<?xml version=\"1.0\"?>\n<!DOCTYPE svg>\n<svg width=\"10\" height=\"9\" viewBox=\"0 0 10 9\" xmlns=\"http://www.w3.org/2000/svg\" "
                          "xmlns:xlink=\"http://www.w3.org/1999/xlink\"><title>Gnuplot</title><!-- x --><defs><circle id='dot' r='1'/></defs>\n"
                          "<g clip-path=\"url(#clip)\"><clipPath id=\"clip\"><rect x=\"0\"/></clipPath><use xlink:href='#dot'/><text>a &lt; b</text></g></svg>\n";

#define CONTEXT "{\"context\": {\"complete\": true, \"copy_bw_GB_s\": \"20\", \"gemm_peak_TFLOP_s\": \"0.1\", \"cpu_name\": \"a machine\"}, \"benchmarks\": ["
#define ROW(name, more) "{\"name\": \"" name "\", \"real_time\": 100.0, \"time_unit\": \"us\"" more "}"

static void copy_testdata(void)
{
    char said[256], command[1024];
    fresh();
    snprintf(command, sizeof command, "cp '%s'/bench.json '%s'/error.csv '%s/r'", TESTDATA, TESTDATA, scratch);
    CU_ASSERT_EQUAL_FATAL(shell(said, sizeof said, command), 0);
    write_text("r/plots/one.svg", svg);
    write_text("r/plots/two.svg", svg);
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void whole_page(void)
{
    copy_testdata();
    write_text("r/verdict.json", "{\"verdict\": \"regression\", \"threshold\": 0.03, \"rows\": [{\"name\": \"dequantize/cpu/nf4/b32/4096x4096\", \"verdict\": \"SLOWER\", "
                                 "\"ratio\": 1.25, \"interval_95\": [1.2, 1.3], \"base_us\": 10, \"new_us\": 12.5, \"why\": \"a <reason>\"}]}\n");
    write_text("r/resources.txt", "# ptxas\ngemm_sm80:nf4 registers=128 spill=0\nquantize:nf4 registers=40\n\n");
    char *page = expect_page("r");
    expect_sound(page);
    static const char *const words[] = {"SLOWER", "+25.0 %", "a &lt;reason&gt;", "id='p1-dot'", "id='p2-dot'", "#p1-dot", "url(#p2-clip)", "registers", "bitsandbytes-cpu",
                                        "no machine: synthetic test data", "gaussian", "prefers-color-scheme: dark", "@media print", "% of roof"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!strstr(page, words[i])) fprintf(stderr, "\nnot in the page: %s\n", words[i]);
        CU_ASSERT_PTR_NOT_NULL(strstr(page, words[i]));
    }
    CU_ASSERT_PTR_NULL(strstr(page, "Gnuplot"));
    CU_ASSERT(strlen(page) < 5 << 20);
    char *again = expect_page("r");
    CU_ASSERT_STRING_EQUAL(page, again);
    free(page), free(again);
}

/* Columns under heads; a kernel stands under its own operation only. */
static void resources_by_operation(void)
{
    fresh();
    write_text("r/bench.json", CONTEXT ROW("gemm/cpu/nf4/b64/M1_N1_K1", "") "," ROW("gemm_dx/cpu/nf4/b64/M1_N1_K1", "") "," ROW("quantize/cpu/nf4/b64/1x1", "") "]}");
    write_text("r/resources.txt", "# made by a test\nfile kernel sm_80\ngemm_sm80 first<1> 128\ngemm_dx second 64\ndequantize third 32\n");
    char *page = expect_page("r");
    expect_sound(page);
    char *gemm = strstr(page, "<h2>gemm</h2>"), *dx = strstr(page, "<h2>gemm_dx</h2>"), *quantize = strstr(page, "<h2>quantize</h2>"), *all = strstr(page, "<h2>Resources</h2>");
    CU_ASSERT_FATAL(gemm && dx && quantize && all);
    char *first = strstr(gemm, "first&lt;1&gt;"), *second = strstr(gemm, ">second<"), *third = strstr(gemm, ">third<");
    CU_ASSERT(first && first < dx && second > dx && second < quantize && third > all);
    free(page);
}

/* 200000 bytes in 100 us, 2 GB/s: a tenth of what the run copied, a quarter of what was copied in the row's own rounds. */
static void own_bandwidth(void)
{
    static const char *const more[] = {"", ", \"copy_bw_GB_s\": 8"}, *const share[] = {">10<small>mem.", ">25<small>mem."};
    for (int i = 0; i < 2; i++) {
        char text[600];
        fresh();
        snprintf(text, sizeof text, "%s{\"name\": \"dequantize/cpu/nf4/b64/1x1\", \"p50_us\": 100.0, \"bytes\": 200000%s}]}", CONTEXT, more[i]);
        write_text("r/bench.json", text);
        char *page = expect_page("r");
        CU_ASSERT(strstr(page, share[i]) != NULL && strstr(page, share[1 - i]) == NULL);
        free(page);
    }
}

static void missing_parts(void)
{
    copy_testdata();
    unlink(path_of("r/error.csv")), unlink(path_of("r/plots/one.svg")), unlink(path_of("r/plots/two.svg"));
    char *page = expect_page("r");
    expect_sound(page);
    static const char *const words[] = {"No error.csv", "No plots/*.svg", "No verdict.json", "No resources.txt"};
    for (size_t i = 0; i < 4; i++) CU_ASSERT_PTR_NOT_NULL(strstr(page, words[i]));
    CU_ASSERT_PTR_NULL(strstr(page, "No bench.json"));
    free(page);

    copy_testdata();
    unlink(path_of("r/bench.json"));
    page = expect_page("--title 'my <title>' r");
    expect_sound(page);
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "No bench.json"));
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "<h1>my &lt;title&gt;</h1>"));
    free(page);

    fresh();
    write_text("r/bench.json", "{\"context\": {\"interrupted\": true, \"commit\": \"abc-dirty\"}, \"benchmarks\": [" ROW("not one of ours", "") "]}");
    page = expect_page("r");
    expect_sound(page);
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "was interrupted"));
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "uncommitted"));
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "no ceilings"));
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "not one of ours"));
    free(page);
}

/* A name, a label, a reason and a context that try to leave their place. */
static void hostile_text(void)
{
#define EVIL "<script>alert('1')</script>\\\" onload=\\\"x"
    fresh();
    write_text("r/bench.json", CONTEXT ROW("gemm/" EVIL "/nf4/b64/M1_N1_K1", ", \"label\": \"" EVIL ": " EVIL "\", \"x_" EVIL "\": 2.0") ","
                               ROW("</td></table>/cpu/" EVIL "/" EVIL "/" EVIL, ", \"error_occurred\": true, \"error_message\": \"FAILED: " EVIL "\"") "]}");
    write_text("r/error.csv", "tensor,format,block_size,double_quant,bits_per_weight,mse,mae,max_abs,sqnr_db,mse_expected\n"
                              "\"<b>\"\"a,b\"\"\",<i>,64,0,4.5,0.1,0.1,0.1,10,\n\x80\xff\x01,nf4,64,0,4.5,0.1,0.1,0.1,,\n");
    write_text("r/resources.txt", "gemm<script> <b>=<i>\n");
    char *page = expect_page("r");
    expect_sound(page);
    const char *first = strstr(page, "<script>");
    CU_ASSERT_PTR_NOT_NULL_FATAL(first);
    CU_ASSERT_PTR_NULL(strstr(first + 1, "<script>")); /* ours alone */
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onload=&quot;x"));
    CU_ASSERT_PTR_NOT_NULL(strstr(page, "&lt;b&gt;&quot;a,b&quot;"));
    CU_ASSERT_PTR_NULL(strstr(page, "\xff"));
    free(page);
}

static void broken_files(void)
{
    static const struct { const char *file, *text, *words; } cases[] = {
        {"bench.json", "", "bench.json: line"},
        {"bench.json", "{\"context\": {}, \"benchmarks\": [", "bench.json: line 1"},
        {"bench.json", "[]", "no \"benchmarks\" array"},
        {"bench.json", "{\"benchmarks\": []}", "no \"context\""},
        {"bench.json", CONTEXT "7]}", "benchmarks[0] is not an object"},
        {"bench.json", CONTEXT "{}]}", "benchmarks[0] has no \"name\""},
        {"bench.json", CONTEXT "{\"name\": \"a\"}]}", "no time above 0"},
        {"bench.json", CONTEXT "{\"name\": \"a\", \"p50_us\": 0}]}", "no time above 0"},
        {"bench.json", CONTEXT "{\"name\": \"a\", \"p50_us\": NaN}]}", "bench.json: line 1"},
        {"bench.json", CONTEXT ROW("a", ", \"GB_s\": \"fast\"") "]}", "\"GB_s\" is not a number"},
        {"bench.json", CONTEXT ROW("a", ", \"GB_s\": -1") "]}", "\"GB_s\" is -1"},
        {"bench.json", CONTEXT ROW("a", ", \"copy_bw_GB_s\": \"8\"") "]}", "\"copy_bw_GB_s\" is not a number"},
        {"bench.json", CONTEXT ROW("a", ", \"x_peer\": 0") "]}", "\"x_peer\" is no ratio"},
        {"bench.json", CONTEXT ROW("a", ", \"name\": \"b\"") "]}", "duplicate"},
        {"verdict.json", "{\"verdict\": \"pass\"}", "no \"rows\" array"},
        {"verdict.json", "{\"rows\": []}", "no \"verdict\""},
        {"verdict.json", "{\"verdict\": \"pass\", \"rows\": [{\"name\": \"a\"}]}", "rows[0] has no name or no verdict"},
        {"error.csv", "tensor,format\n", "no column \"block_size\""},
        {"error.csv", "", "line 1: no header"},
        {"error.csv", "tensor,format,block_size,double_quant,bits_per_weight,mse,mae,max_abs,sqnr_db,mse_expected\na,nf4,64,0,4.5,nan,1,1,1,1\n", "line 2"},
        {"error.csv", "tensor,format,block_size,double_quant,bits_per_weight,mse,mae,max_abs,sqnr_db,mse_expected\na,nf4,64\n", "line 2"},
        {"error.csv", "tensor,format,block_size,double_quant,bits_per_weight,mse,mae,max_abs,sqnr_db,mse_expected\n\"a,nf4,64,0,4.5,1,1,1,1,1\n", "line 2"},
        {"resources.txt", "gemm registers=3 spills\n", "\"spills\" is not key=value"},
        {"resources.txt", "file registers\n# x\ngemm 3 4\n", "line 3: 3 columns"},
        {"counters.txt", "gemm\n", "line 1: 1 columns"},
        {"plots/one.svg", "<html></html>", "element <html>"},
        {"plots/one.svg", "<svg>", "<svg> is not closed"},
        {"plots/one.svg", "", "no <svg>"},
        {"plots/one.svg", "<svg><script>x</script></svg>", "element <script>"},
        {"plots/one.svg", "<svg><g onload=\"x\"></g></svg>", "attribute onload"},
        {"plots/one.svg", "<svg><g></svg>", "closes nothing"},
        {"plots/one.svg", "<svg><use href=\"other.svg#a\"/></svg>", "outside the picture"},
        {"plots/one.svg", "<svg><g fill=\"url(http://a)\"></g></svg>", "url() outside"},
        {"plots/one.svg", "<svg><g fill=\"javascript:x\"></g></svg>", "has a ':'"},
        {"plots/one.svg", "<svg><g style=\"fill:u\\72l(x)\"></g></svg>", "not plain"},
        {"plots/one.svg", "<svg><text>a & b</text></svg>", "no entity"},
        {"plots/one.svg", "<svg><g a=\"b></g></svg>", "does not end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_testdata();
        char file[64];
        snprintf(file, sizeof file, "r/%s", cases[i].file);
        write_text(file, cases[i].text);
        expect_refusal(cases[i].words);
    }
    copy_testdata();
    write_bytes("r/error.csv", "tensor\0", 7);
    expect_refusal("no header");
    /* every prefix of a good file is refused, or is a file (its last newline) */
    copy_testdata();
    size_t bytes;
    char *text = read_text("r/bench.json", &bytes);
    for (size_t cut = 0; cut + 2 < bytes; cut += bytes / 23) {
        write_bytes("r/bench.json", text, cut);
        expect_refusal("bench.json: line");
    }
    free(text);
}

/* A page that is there stays as it was when its successor cannot be made. */
static void whole_or_not_at_all(void)
{
    char said[4096];
    size_t bytes;
    copy_testdata();
    char *page = expect_page("r");
    write_text("r/bench.json", "{");
    CU_ASSERT_EQUAL(report_on("r", said), 2);
    char *after = read_text("r/report.html", &bytes);
    CU_ASSERT_STRING_EQUAL(page, after);
    free(page), free(after);
    copy_testdata();
    CU_ASSERT_EQUAL(report_on("--out /proc/no/such/page.html r", said), 1);
    CU_ASSERT_EQUAL(report_on("--out r/plots r", said), 1); /* a folder */
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "r/plots: is a folder"));
    CU_ASSERT_EQUAL(report_on("--out r/bench.json r", said), 1); /* an input */
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "r/bench.json: is there and is no page"));
    CU_ASSERT_EQUAL(mkfifo(path_of("fifo"), 0600), 0);
    CU_ASSERT_EQUAL(report_on("--out fifo r", said), 1); /* or a device, that the rename would replace */
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "fifo: is no regular file"));
    CU_ASSERT_EQUAL(rename(path_of("fifo"), path_of("r/resources.txt")), 0); /* that nobody writes to: not waited for */
    CU_ASSERT_EQUAL(report_on("r", said), 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "r/resources.txt: not a file"));
    unlink(path_of("r/resources.txt"));
    free(expect_page("r"));
    char command[256];
    snprintf(command, sizeof command, "ls '%s'/r | grep tmp", scratch);
    CU_ASSERT_EQUAL(shell(said, sizeof said, command), 1); /* grep found nothing */
}

static void usage(void)
{
    char said[4096];
    fresh();
    CU_ASSERT_EQUAL(report_on("--help", said), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "Exit status"));
    CU_ASSERT_EQUAL(report_on("", said), 2);
    CU_ASSERT_EQUAL(report_on("--nonsense r", said), 2);
    CU_ASSERT_EQUAL(report_on("r r", said), 2);
    CU_ASSERT_EQUAL(report_on("nowhere", said), 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "nowhere: No such file"));
    expect_refusal("neither bench.json");
    copy_testdata();
    CU_ASSERT_EQUAL(report_on("r/bench.json", said), 2);
    CU_ASSERT_EQUAL(report_on("--verdict nowhere.json r", said), 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(said, "nowhere.json: no such file"));
}

/* More rows than a full run has: in time, and within the size. */
static void large_run(void)
{
    fresh();
    FILE *f = fopen(path_of("r/bench.json"), "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    fputs(CONTEXT, f);
    for (int i = 0; i < 5000; i++)
        fprintf(f, "%s{\"name\": \"gemm/%s/nf4/b64/M%d_N4096_K4096\", \"p50_us\": %d.5, \"p10_us\": 1.5, \"p90_us\": 900.5, \"spread_pct\": 1.5, \"GB_s\": 3.25, \"pct_copy_bw\": 22.5, "
                "\"TFLOP_s\": 0.05, \"pct_gemm_peak\": 50.5, \"bytes\": 9453568, \"flops\": 33554432, \"bits_per_weight\": 4.5, \"label\": \"cold, bf16, 2 threads: avx2\"}",
                i ? ", " : "", i % 4 ? "peer:openblas" : "cpu", i, i + 1);
    fputs("]}", f);
    fclose(f);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    char *page = expect_page("r");
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    printf("(5,000 rows: %.2f s, %.1f MB) ", seconds, (double)strlen(page) / (1 << 20));
    CU_ASSERT(strlen(page) <= 5 << 20);
    CU_ASSERT(seconds < 10); /* under sanitizers, on a busy machine */
    expect_sound(page);
    free(page);
}

/* The checker itself goes red. */
static void checker(void)
{
    CU_ASSERT_PTR_NULL(malformed("<!DOCTYPE html><p a=\"<\" ></p>") ? NULL : "an < within quotes passed");
    CU_ASSERT_PTR_NOT_NULL(malformed("<p><b></p></b>"));
    CU_ASSERT_PTR_NOT_NULL(malformed("<p>"));
    CU_ASSERT_PTR_NOT_NULL(malformed("</p>"));
    CU_ASSERT_PTR_NOT_NULL(malformed("<p a=\"></p>"));
    CU_ASSERT_PTR_NOT_NULL(malformed("a < b"));
    CU_ASSERT_PTR_NULL(malformed("<p><meta a='\"'>x<script>a < b</script></p>"));
    CU_ASSERT_PTR_NOT_NULL(bad_id("<p id=\"a\"><p id=\"a\">"));
    CU_ASSERT_PTR_NOT_NULL(bad_id("<p id=\"a\"><a href=\"#b\">"));
    CU_ASSERT_PTR_NULL(bad_id("<p id=\"a\"><a href=\"#a\">"));
}

int main(void)
{
    static const struct { const char *name; void (*run)(void); } tests[] = {
        {"checker", checker},           {"whole_page", whole_page},     {"resources_by_operation", resources_by_operation},     {"own_bandwidth", own_bandwidth}, {"missing_parts", missing_parts},             {"hostile_text", hostile_text},
        {"broken_files", broken_files}, {"large_run", large_run}, {"whole_or_not_at_all", whole_or_not_at_all}, {"usage", usage}};
    if (!mkdtemp(scratch) || CU_initialize_registry() != CUE_SUCCESS) return perror(scratch), 2;
    CU_pSuite suite = CU_add_suite("report", NULL, NULL);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!suite || !CU_add_test(suite, tests[i].name, tests[i].run)) return fprintf(stderr, "CUnit: %s\n", CU_get_error_msg()), 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    bool ran = CU_basic_run_tests() == CUE_SUCCESS;
    unsigned failed = CU_get_number_of_failures(), asserts = CU_get_number_of_asserts();
    CU_cleanup_registry();
    char said[64], command[256];
    snprintf(command, sizeof command, "rm -r '%s'", scratch);
    shell(said, sizeof said, command);
    return ran && failed == 0 && asserts > 0 ? 0 : 1;
}
