/* test_tool.c: build/bin/fourbit as a user runs it: exit statuses, messages, what it
 * writes and what it leaves behind. */
#include "bnb4bit.h"
#include "test_files.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- running it ------------------------------------------------------------------------ */

static char out_text[1 << 20], err_text[1 << 16];

static void slurp(const char *path, char *text, size_t size)
{
    bytes b = test_read(path);
    size_t n = b.size < size - 1 ? b.size : size - 1;
    memcpy(text, b.p, n);
    text[n] = '\0';
    free(b.p);
}

/* Output goes to files outside the folder that the tests count. */
static pid_t start(char *const argv[], const char *out, const char *err)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int o = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600), e = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (o >= 0 && e >= 0 && dup2(o, 1) >= 0 && dup2(e, 2) >= 0) execv(FOURBIT_PROGRAM, argv);
        _exit(126);
    }
    return child;
}

static int finish(pid_t child)
{
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) return -1000;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* The arguments end with NULL. stdout and stderr are in out_text and err_text. */
static int run(const char *const *arguments)
{
    char *argv[24] = {(char *)(uintptr_t) "fourbit"}, out[] = "/tmp/fourbit-out-XXXXXX", err[] = "/tmp/fourbit-err-XXXXXX";
    int n = 1;
    for (; *arguments && n < 23; arguments++) argv[n++] = (char *)(uintptr_t)*arguments;
    int a = mkstemp(out), b = mkstemp(err);
    int status = finish(start(argv, out, err));
    slurp(out, out_text, sizeof out_text);
    slurp(err, err_text, sizeof err_text);
    close(a);
    close(b);
    unlink(out);
    unlink(err);
    return status;
}

#define EXPECT_RUN(status, says, ...) expect_run(__LINE__, run((const char *const[]){__VA_ARGS__, NULL}), status, says)
static void expect_run(int line, int got, int want, const char *says)
{
    test_require(got == want, __FILE__, line, "exit status %d, not %d; stderr: %s", got, want, err_text);
    const char *where = want == 0 ? out_text : err_text;
    test_require(strstr(where, says) != NULL, __FILE__, line, "\"%s\" is not in: %.1000s", says, where);
    /* an error is one line, and no output is begun */
    if (want == 1)
        test_require(strchr(err_text, '\n') && strchr(err_text, '\n')[1] == '\0' && !strstr(err_text, "ERROR: "),
                     __FILE__, line, "more than one line: %.1000s", err_text);
}

/* ---- inputs ------------------------------------------------------------------------------- */

enum { ROWS = 48, COLS = 70 };

/* Three matrices (one of each type), an embedding, a norm and some integers. */
static void write_model(const char *path, bool with_nan)
{
    static const struct { const char *name; st_dtype dtype; int rank; int64_t shape[2]; } plan[] = {
        {"model.embed_tokens.weight", ST_F32, 2, {ROWS, COLS}}, {"a.q_proj.weight", ST_F32, 2, {ROWS, COLS}},
        {"a.k_proj.weight", ST_BF16, 2, {ROWS, COLS}},          {"a.v_proj.weight", ST_F16, 2, {ROWS, COLS}},
        {"a.norm.weight", ST_F32, 1, {COLS}},                   {"ids", ST_I64, 2, {2, 3}},
        {"b.norm.weight", ST_F32, 2, {1, COLS}},                {"lm_head.weight", ST_BF16, 2, {ROWS, COLS}}};
    enum { COUNT = sizeof plan / sizeof *plan };
    ck_error e = {0};
    size_t slots[COUNT];
    static float data[ROWS * COLS];
    st_writer *w = st_writer_new(path);
    bool good = st_writer_metadata(w, "who", "test", &e);
    for (int i = 0; i < COUNT; i++)
        good = good && st_writer_add(w, plan[i].name, plan[i].dtype, plan[i].rank, plan[i].shape, &slots[i], &e);
    good = good && st_writer_start(w, &e);
    uint32_t seed = 1;
    for (int i = 0; good && i < COUNT; i++) {
        int64_t n = plan[i].shape[0] * (plan[i].rank > 1 ? plan[i].shape[1] : 1);
        for (int64_t k = 0; k < n; k++) {
            seed = seed * 1664525u + 1013904223u;
            float x = (float)(seed >> 8) / 0x1p23f - 1.0f;
            if (with_nan && i == 2 && k == 1234) x = NAN;
            if (plan[i].dtype <= ST_F16) fb_store(data, (fb_dtype)plan[i].dtype, k, x * x * x);
            else memcpy((char *)data + 8 * k, &k, 8);
        }
        good = st_writer_put(w, slots[i], 0, data, (size_t)n * st_dtype_bits(plan[i].dtype) / 8, &e);
    }
    good = good && st_writer_commit(w, &e);
    st_writer_free(w);
    REQUIRE(good, "the test's own file: %s", e.message);
}

/* Two matrices of zeros, 64 MiB each, that take no room on disk. */
static void write_large(const char *path)
{
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4096,4096],\"data_offsets\":[0,67108864]},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[4096,4096],\"data_offsets\":[67108864,134217728]}}";
    bytes b = test_container(header, sizeof header - 1, 0);
    test_write(path, b.p, b.size);
    CU_ASSERT_FATAL(truncate(path, (off_t)b.size + 134217728) == 0);
    free(b.p);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void says_how_it_is_used(void)
{
    EXPECT_RUN(0, "fourbit quantize IN OUT", "--help");
    EXPECT_RUN(0, "fourbit " FB_VERSION, "--version");
    EXPECT_RUN(0, "--block-size N", "quantize", "--help");
    EXPECT_RUN(0, "--dtype NAME", "dequantize", "-h");
    EXPECT_RUN(0, "--csv FILE", "error", "--help");
    EXPECT_RUN(0, "fourbit info FILE", "info", "--help");
    EXPECT_RUN(2, "\"frobnicate\" is not a command", "frobnicate");
    EXPECT_RUN(2, "IN and OUT are needed", "quantize", "only-one");
    EXPECT_RUN(2, "a FILE is needed", "info");
    EXPECT_RUN(2, "\"c\" is one file name too many", "quantize", "a", "b", "c");
    EXPECT_RUN(2, "\"--wrong\" is not an option", "quantize", "--wrong", "a", "b");
    EXPECT_RUN(2, "--csv is not for this command", "quantize", "--csv", "x", "a", "b");
    EXPECT_RUN(2, "--format: not a value", "quantize", "--format", "nf5", "a", "b");
    EXPECT_RUN(2, "--block-size: not a value", "quantize", "--block-size", "48", "a", "b");
    EXPECT_RUN(2, "--block-size: not a value", "quantize", "--block-size", "64x", "a", "b");
    EXPECT_RUN(2, "--backend: not a value", "quantize", "--backend", "gpu", "a", "b");
    EXPECT_RUN(2, "--threads: not a value", "quantize", "--threads", "0", "a", "b");
    EXPECT_RUN(2, "--dtype: not a value", "dequantize", "--dtype", "fp8", "a", "b");
    EXPECT_RUN(2, "--formats: not a value", "error", "--formats", "nf4,,fp4");
    EXPECT_RUN(2, "--block-sizes: not a value", "error", "--block-sizes", "32,31");
    EXPECT_RUN(2, "--samples: not a value", "error", "--samples", "-1");
    EXPECT_RUN(2, "--plots needs --csv", "error", "--plots");
}

static void fails_in_one_line(void)
{
    test_folder_empty();
    char in[600], out[600];
    snprintf(in, sizeof in, "%s", test_path("in"));
    snprintf(out, sizeof out, "%s", test_path("out"));
    EXPECT_RUN(1, "cannot be opened", "quantize", in, out);
    EXPECT_RUN(1, "cannot be opened", "error", in, "--csv", out);
    test_write(in, "not a safetensors file", 22);
    EXPECT_RUN(1, "byte 0: header length", "quantize", in, out);
    EXPECT_RUN(1, "byte 0: header length", "dequantize", in, out);
    EXPECT_RUN(1, "byte 0: header length", "error", in, "--csv", out);
    EXPECT_RUN(1, "byte 0: header length", "info", in);
    write_model(in, true);
    EXPECT_RUN(1, "key 'a.k_proj.weight': src[1234] is NaN", "quantize", in, out);
    EXPECT_RUN(1, "key 'a.k_proj.weight': src[1234] is NaN", "error", in, "--csv", out, "--formats", "nf4");
    EXPECT_RUN(1, "key 'a.k_proj.weight': src[1234] is NaN", "quantize", in, out, "--normalize");
    EXPECT_RUN(1, "has no 4-bit weight", "dequantize", in, out);
    EXPECT_RUN(1, "no tensor is selected", "quantize", in, out, "--include", "nothing");
    EXPECT_RUN(1, "--include: \"(\" is not a regular expression", "quantize", in, out, "--include", "(");
    EXPECT_RUN(1, "cannot create a file in its directory", "error", in, "--csv", "/nowhere/x.csv");
    EXPECT_RUN(1, "is a directory", "quantize", in, test_folder());
    write_model(in, false);
    EXPECT_RUN(1, "is the file to be measured", "error", in, "--csv", in, "--formats", "nf4");
    EXPECT_RUN(0, "8 plain tensors", "info", in); /* and still is one */
    CU_ASSERT_FATAL(symlink("nowhere", out) == 0);
    EXPECT_RUN(1, "is a symbolic link that leads nowhere", "quantize", in, out);
    unlink(out);
    REQUIRE(test_count_files(test_folder()) == 1, "%d files in the folder", test_count_files(test_folder()));
}

/* `fourbit quantize` then `dequantize` is fb_quantize then fb_dequantize, to the bit, on
 * every backend; all that was not quantized is the same bytes. */
static void expect_same_as_library(const char *in, const char *out, fb_format format, bool nested, bool normalized)
{
    ck_error e = {0};
    st_file a, b;
    if (!REQUIRE(st_open(&a, in, &e) && st_open(&b, out, &e), "%s", e.message)) return;
    REQUIRE(a.count == b.count, "%zu tensors became %zu", a.count, b.count);
    for (size_t i = 0; i < a.count; i++) {
        const st_tensor *x = &a.tensors[i], *y = st_find(&b, x->name);
        if (!REQUIRE(y && y->dtype == x->dtype && y->bytes == x->bytes && y->rank == x->rank, "%s is lost", x->name))
            continue;
        static _Alignas(256) uint8_t storage[1 << 16], workspace[1 << 12];
        static float wide[ROWS * COLS], want[ROWS * COLS];
        memcpy(want, x->data, x->bytes);
        if (strstr(x->name, "_proj")) {
            fb_context ctx;
            fb_matrix w;
            float moments[2];
            fb_context_init(&ctx, FB_BACKEND_REFERENCE);
            ctx.workspace = workspace;
            ctx.workspace_bytes = sizeof workspace;
            fb_dtype t = (fb_dtype)x->dtype;
            bool good = fb_matrix_init(&w, format, ROWS, COLS, 128, nested) == FB_OK &&
                        fb_matrix_bind(&w, storage, sizeof storage) == FB_OK;
            if (normalized)
                good = good && fb_normalize(&ctx, x->data, t, ROWS * COLS, wide, FB_F32, moments) == FB_OK &&
                       fb_quantize(&ctx, wide, FB_F32, &w) == FB_OK && fb_dequantize(&ctx, &w, wide, FB_F32) == FB_OK &&
                       fb_denormalize(&ctx, wide, FB_F32, ROWS * COLS, moments, want, t) == FB_OK;
            else
                good = good && fb_quantize(&ctx, x->data, t, &w) == FB_OK && fb_dequantize(&ctx, &w, want, t) == FB_OK;
            REQUIRE(good, "the test's own quantization: %s", ctx.message);
            REQUIRE(memcmp(want, x->data, x->bytes) != 0, "%s: quantization changed nothing", x->name);
        }
        REQUIRE(memcmp(want, y->data, y->bytes) == 0, "%s (%s%s%s): other bits", x->name, fb_format_name(format),
                nested ? "+dq" : "", normalized ? ", normalised" : "");
    }
    REQUIRE(b.metadata_count == 2, "%zu metadata", b.metadata_count);
    st_close(&a);
    st_close(&b);
}

static void converts_and_back(void)
{
    test_folder_empty();
    char in[600], quantized[600], out[600];
    snprintf(in, sizeof in, "%s", test_path("in"));
    snprintf(quantized, sizeof quantized, "%s", test_path("quantized"));
    snprintf(out, sizeof out, "%s", test_path("out"));
    write_model(in, false);
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int k = 0; k < 4; k++) {
            const char *name = fb_format_name((fb_format)f), *backend = (f + k) % 2 ? "reference" : "cpu";
            const char *nested = k & 1 ? "--double-quant" : "--threads=2", *normal = k & 2 ? "--normalize" : "--threads=1";
            EXPECT_RUN(0, "3 matrices in", "quantize", in, quantized, "--format", name, "--block-size", "128", nested,
                       normal, "--backend", backend);
            EXPECT_RUN(0, "3 weights dequantized; 5 tensors copied", "dequantize", quantized, out);
            expect_same_as_library(in, out, (fb_format)f, k & 1, k & 2);
            EXPECT_RUN(0, "5 plain tensors (1 of types that are only copied), 3 4-bit weights", "info", quantized);
        }
    /* what is 4-bit already stays as it is; a file can replace itself */
    EXPECT_RUN(1, "and is not 4-bit already", "quantize", quantized, out, "--include", "_proj");
    EXPECT_RUN(0, "4 matrices in nf4", "quantize", in, in, "--exclude", "embed|b.norm");
    EXPECT_RUN(0, "to fp32; 4 tensors copied", "dequantize", in, in, "--dtype", "fp32");
    REQUIRE(test_count_files(test_folder()) == 3, "%d files in the folder", test_count_files(test_folder()));
}

/* A matrix of 64 ones named `name`, and a pair of numbers named `other`. */
static void write_pair(const char *path, const char *name, const char *other)
{
    static const int64_t matrix[] = {4, 16}, pair[] = {2};
    float data[64];
    for (int i = 0; i < 64; i++) data[i] = 1;
    ck_error e = {0};
    size_t slots[2];
    st_writer *w = st_writer_new(path);
    bool good = st_writer_add(w, name, ST_F32, 2, matrix, &slots[0], &e) && st_writer_add(w, other, ST_F32, 1, pair, &slots[1], &e) &&
                st_writer_start(w, &e) && st_writer_put(w, slots[0], 0, data, sizeof data, &e) &&
                st_writer_put(w, slots[1], 0, data, 8, &e) && st_writer_commit(w, &e);
    st_writer_free(w);
    CU_ASSERT_FATAL(good);
}

/* Names under which what is written would be read back as something else. */
static void refuses_names_of_parts(void)
{
    static const char *const others[] = {"a.absmax", "a.moments", "a.zero_points", "a.quant_map", "a.nested_absmax", "a.nested_quant_map"};
    char in[600], out[600];
    test_folder_empty();
    snprintf(in, sizeof in, "%s", test_path("in"));
    snprintf(out, sizeof out, "%s", test_path("out"));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_pair(in, "a", others[i]);
        EXPECT_RUN(1, "would be taken for a part of 'a'", "quantize", in, out, "--format", "int4");
    }
    write_pair(in, "", "b");
    EXPECT_RUN(1, "without a name", "quantize", in, out);
    REQUIRE(test_count_files(test_folder()) == 1, "%d files in the folder", test_count_files(test_folder()));
    write_pair(in, "a", "a.bias");
    EXPECT_RUN(0, "1 matrices in nf4", "quantize", in, out);
    test_folder_empty();
}

/* One row of the CSV against a plain computation. */
static void measures_the_error(void)
{
    test_folder_empty();
    char in[600], csv[600];
    snprintf(in, sizeof in, "%s", test_path("in"));
    snprintf(csv, sizeof csv, "%s", test_path("error.csv"));
    write_model(in, false);
    EXPECT_RUN(0, "TOTAL", "error", in, "--csv", csv, "--formats", "fp4,nf4", "--block-sizes", "64,128");
    slurp(csv, out_text, sizeof out_text);
    static const char header[] = "tensor,rows,cols,format,block_size,double_quant,bits_per_weight,bytes,mse,mae,max_abs,"
                                 "sqnr_db,mse_expected,mae_expected\n";
    REQUIRE(strncmp(out_text, header, strlen(header)) == 0, "the header is %.200s", out_text);
    int lines = 0;
    for (const char *p = out_text; *p; p++) lines += *p == '\n';
    REQUIRE(lines == 1 + (3 + 1) * 2 * 2 * 2, "%d lines", lines);

    ck_error e = {0};
    st_file f;
    if (!REQUIRE(st_open(&f, in, &e), "%s", e.message)) return;
    static _Alignas(256) uint8_t storage[1 << 16];
    static float decoded[ROWS * COLS];
    const st_tensor *x = st_find(&f, "a.k_proj.weight");
    fb_context ctx;
    fb_matrix w;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    CU_ASSERT_FATAL(x && fb_matrix_init(&w, FB_NF4, ROWS, COLS, 64, false) == FB_OK &&
                    fb_matrix_bind(&w, storage, sizeof storage) == FB_OK &&
                    fb_quantize(&ctx, x->data, FB_BF16, &w) == FB_OK && fb_dequantize(&ctx, &w, decoded, FB_F32) == FB_OK);
    double square = 0, absolute = 0, largest = 0, power = 0, n = ROWS * COLS;
    for (int i = 0; i < ROWS * COLS; i++) {
        double v = fb_load(x->data, FB_BF16, i), d = fabs(v - decoded[i]);
        square += d * d;
        absolute += d;
        power += v * v;
        if (d > largest) largest = d;
    }
    st_close(&f);
    const char *row = strstr(out_text, "a.k_proj.weight,48,70,nf4,64,0,");
    double bits, size, mse, mae, max, sqnr, mse_theory, mae_theory;
    if (!REQUIRE(row && sscanf(row, "a.k_proj.weight,48,70,nf4,64,0,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf", &bits, &size, &mse,
                               &mae, &max, &sqnr, &mse_theory, &mae_theory) == 8, "no row of a.k_proj.weight"))
        return;
    REQUIRE(size == ROWS * COLS / 2 + 4 * 53 && !(fabs(bits - 8 * size / n) > 1e-8 * bits), "%g bytes, %g bits", size, bits);
    /* printed with 9 digits */
    REQUIRE(!(fabs(mse * n / square - 1) > 1e-8), "mse %.9g, not %.9g", mse, square / n);
    REQUIRE(!(fabs(mae * n / absolute - 1) > 1e-8), "mae %.9g, not %.9g", mae, absolute / n);
    REQUIRE(!(fabs(max - largest) > 1e-8 * largest), "max %.9g, not %.9g", max, largest);
    REQUIRE(!(fabs(sqnr - 10 * log10(power / square)) > 1e-7), "sqnr %.9g", sqnr);
    /* theory.md: NF4, block 64, sigma 1 */
    REQUIRE(!(fabs(mse_theory / (power / n) - .008460) > 5e-7), "mse_expected %.9g", mse_theory);
    REQUIRE(!(fabs(mae_theory / sqrt(power / n) - .072796) > 5e-7), "mae_expected %.9g", mae_theory);
}

/* Figures of the closed form, met by the synthetic rows; empty where there is none. */
static void measures_synthetic_data(void)
{
    test_folder_empty();
    char csv[600];
    snprintf(csv, sizeof csv, "%s", test_path("error.csv"));
    EXPECT_RUN(0, "student-t [1 x 300001]", "error", "--csv", csv, "--samples", "300001", "--block-sizes", "64");
    slurp(csv, out_text, sizeof out_text);
    REQUIRE(!strstr(out_text, "TOTAL") && strstr(out_text, "uniform,1,300001,int4-affine,64,1,"), "rows are missing");
    const char *row = strstr(out_text, "gaussian,1,300001,nf4,64,0,"), *t = strstr(out_text, "student-t,1,300001,nf4,64,0,");
    double mse, mae, mse_theory, mae_theory;
    if (!REQUIRE(row && t && sscanf(row, "gaussian,1,300001,nf4,64,0,%*f,%*f,%lf,%lf,%*f,%*f,%lf,%lf", &mse, &mae,
                                    &mse_theory, &mae_theory) == 4, "no Gaussian row"))
        return;
    /* 4688 blocks whose mean errors scatter by less than half of themselves */
    REQUIRE(!(fabs(mse / mse_theory - 1) > 6 * 0.5 / sqrt(4688.)), "mse %g, theory %g", mse, mse_theory);
    REQUIRE(!(fabs(mae / mae_theory - 1) > 6 * 0.5 / sqrt(4688.)), "mae %g, theory %g", mae, mae_theory);
    const char *end = strchr(t, '\n');
    REQUIRE(end && end[-1] == ',' && end[-2] == ',', "Student-t data have no closed form: %.120s", t);
    EXPECT_RUN(0, "normalised", "quantize", "--help");
    EXPECT_RUN(0, "uniform [1 x 5]", "error", "--samples", "5", "--normalize", "--formats", "int4");
}

/* Ctrl-C in the middle (or `shrink`, the input, is cut): killed by it, and only the input is there. */
static void interrupt(char *const argv[], const char *about, const char *shrink)
{
    pid_t child = start(argv, "/dev/null", "/dev/null");
    struct timespec tick = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000 && test_count_files(test_folder()) < 2; i++) nanosleep(&tick, NULL);
    REQUIRE(test_count_files(test_folder()) == 2, "%s: no temporary file within 10 s", about);
    if (shrink) REQUIRE(truncate(shrink, 4096) == 0, "%s: truncate", about);
    else REQUIRE(kill(child, SIGINT) == 0, "%s: it was gone already", about);
    int status = finish(child), want = shrink ? SIGBUS : SIGINT;
    REQUIRE(status == -want, "%s: ended with %d, not by signal %d", about, status, want);
    REQUIRE(test_count_files(test_folder()) == 1, "%s: %d files in the folder", about, test_count_files(test_folder()));
}

static void interrupted_without_a_trace(void)
{
    test_folder_empty();
    char in[600], out[600], name[] = "fourbit", quantize[] = "quantize", error[] = "error", csv[] = "--csv",
                            backend[] = "--backend", reference[] = "reference";
    snprintf(in, sizeof in, "%s", test_path("in"));
    snprintf(out, sizeof out, "%s", test_path("out"));
    write_large(in);
    interrupt((char *[]){name, quantize, in, out, backend, reference, NULL}, "quantize", NULL);
    interrupt((char *[]){name, error, csv, out, in, backend, reference, NULL}, "error", NULL);
    interrupt((char *[]){name, quantize, in, out, backend, reference, NULL}, "a file that shrinks", in);
    test_folder_empty();
}

/* An output that cannot be written is a failure, also when it is standard output. */
static void notices_a_full_stdout(void)
{
    char name[] = "fourbit", error[] = "error", samples[] = "--samples=100";
    char help[] = "--help", version[] = "--version";
    char *const calls[][4] = {{name, error, samples, NULL}, {name, help, NULL}, {name, version, NULL}, {name, error, help, NULL}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        int status = finish(start(calls[i], "/dev/full", "/dev/null"));
        REQUIRE(status == 1, "%s: exit status %d with a full standard output", calls[i][1], status);
    }
}

void test_tool(CU_pSuite suite)
{
    CU_ADD_TEST(suite, says_how_it_is_used);
    CU_ADD_TEST(suite, fails_in_one_line);
    CU_ADD_TEST(suite, converts_and_back);
    CU_ADD_TEST(suite, refuses_names_of_parts);
    CU_ADD_TEST(suite, measures_the_error);
    CU_ADD_TEST(suite, measures_synthetic_data);
    CU_ADD_TEST(suite, interrupted_without_a_trace);
    CU_ADD_TEST(suite, notices_a_full_stdout);
}
