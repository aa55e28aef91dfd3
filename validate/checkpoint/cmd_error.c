/* cmd_error.c: `fourbit error`: what 4 bits cost, on a checkpoint's matrices or on synthetic
 * data, in every format and block size.
 *
 * A tensor is quantized once for each format and block size; double quantization
 * changes the scales and not the codes, so its row takes the same codes with the
 * scales quantized on top. The error is taken in fp32, before any rounding to an
 * output type, against the elements as they are stored. */
#include "error_table.h"
#include "tool.h"

#include "validate/inputs.h"
#include "validate/theory.h"

#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A matrix to measure. */
typedef struct subject {
    const char *name;
    const void *data;
    fb_dtype dtype;
    int64_t rows, cols;
    double sigma; /* of the Gaussian data to compare with; 0: as the data's; NaN: none */
} subject;

enum { CONFIGURATIONS = FB_FORMAT_COUNT * BLOCK_SIZES * 2 };

typedef struct run {
    const options *o;
    const char *file; /* for messages */
    fb_context ctx;
    error_table table;
    error_sums totals[CONFIGURATIONS];
    double theory[CONFIGURATIONS][2]; /* expected mse and mae at sigma 1; 0: not computed yet */
    buffer source, normal, storage, nested, quantized, decoded, scratch, workspace;
    progress bar;
} run;

static int configuration(const fb_matrix *w)
{
    int b = 0;
    while (FB_BLOCK_MIN << b < w->block_size) b++;
    return ((int)w->format * BLOCK_SIZES + b) * 2 + w->double_quant;
}

/* The closed forms are about zero and with the scales in full. */
static void expect(run *r, const subject *s, const fb_matrix *w, bool normalized, error_sums *sums)
{
    double *theory = r->theory[configuration(w)], n = (double)sums->elements;
    double sigma = s->sigma == 0 ? sqrt(sums->power / n) : s->sigma;
    if (w->double_quant || normalized) sigma = NAN;
    if (!isnan(sigma) && theory[0] == 0) { /* tens of milliseconds each */
        theory[0] = fb_expected_mse(w->format, w->block_size);
        theory[1] = fb_expected_mae(w->format, w->block_size);
    }
    sums->expected_square = n * sigma * sigma * theory[0];
    sums->expected_absolute = n * sigma * theory[1];
}

/* Decode, compare, one row. */
static bool measure(run *r, const subject *s, const fb_matrix *w, const float *moments, ck_error *e)
{
    int64_t n = s->rows * s->cols;
    float *decoded = r->decoded.p, *first = decoded;
    if (moments) { /* the library does not work in place */
        if (!buffer_need(&r->quantized, (size_t)n * sizeof(float), e)) return false;
        first = r->quantized.p;
    }
    if (!library_ok(&r->ctx, fb_dequantize(&r->ctx, w, first, FB_F32), r->file, s->name, e)) return false;
    if (moments && !library_ok(&r->ctx, fb_denormalize(&r->ctx, first, FB_F32, n, moments, decoded, FB_F32), r->file,
                               s->name, e))
        return false;
    fb_matrix_sizes size;
    error_sums sums = {0};
    fb_matrix_get_sizes(w, &size);
    error_measure(&sums, s->data, s->dtype, decoded, n, r->o->threads, r->scratch.p);
    sums.bytes = size.total + (moments ? 2 * sizeof *moments : 0);
    expect(r, s, w, moments != NULL, &sums);
    error_accumulate(&r->totals[configuration(w)], &sums);
    progress_clear(&r->bar);
    bool good = error_table_row(&r->table, s->name, s->rows, s->cols, w, &sums, e);
    progress_add(&r->bar, (double)n, s->name);
    return good;
}

/* w, with its scales quantized into r->nested. */
static bool nest(run *r, const fb_matrix *w, const char *name, fb_matrix *nested, ck_error *e)
{
    buffer unused = {0};
    fb_matrix_sizes size;
    fb_matrix_get_sizes(w, &size);
    bool good = matrix_bind(&r->ctx, nested, w->format, w->rows, w->cols, w->block_size, true, FB_F32, &r->nested,
                            &unused, e) &&
                library_ok(&r->ctx, fb_double_quantize(&r->ctx, w->absmax, size.blocks, nested->absmax_codes,
                                                       nested->nested_absmax, nested->nested_offset), r->file, name, e);
    buffer_free(&unused);
    nested->codes = w->codes;
    nested->zero_points = w->zero_points;
    return good;
}

static bool measure_configuration(run *r, const subject *s, const void *input, fb_dtype dtype, const float *moments,
                                  fb_format format, int block_size, ck_error *e)
{
    fb_matrix w, nested;
    return matrix_bind(&r->ctx, &w, format, s->rows, s->cols, block_size, false, dtype, &r->storage, &r->workspace,
                       e) &&
           library_ok(&r->ctx, fb_quantize(&r->ctx, input, dtype, &w), r->file, s->name, e) &&
           measure(r, s, &w, moments, e) && nest(r, &w, s->name, &nested, e) && measure(r, s, &nested, moments, e);
}

static bool measure_subject(run *r, const subject *s, ck_error *e)
{
    int64_t n = s->rows * s->cols;
    const void *input = s->data;
    fb_dtype dtype = s->dtype;
    float moments[2], *used = NULL;
    if (!buffer_need(&r->decoded, (size_t)n * sizeof(float), e) ||
        !buffer_need(&r->scratch, error_scratch_bytes(n), e))
        return false;
    if (r->o->normalize) {
        if (!buffer_need(&r->normal, (size_t)n * sizeof(float), e) ||
            !library_ok(&r->ctx, fb_normalize(&r->ctx, input, dtype, n, r->normal.p, FB_F32, moments), r->file,
                        s->name, e))
            return false;
        input = r->normal.p;
        dtype = FB_F32;
        used = moments;
    }
    progress_clear(&r->bar);
    error_table_heading(s->name, s->rows, s->cols);
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int b = 0; b < BLOCK_SIZES; b++)
            if (r->o->formats[f] && r->o->block_sizes[b] &&
                !measure_configuration(r, s, input, dtype, used, (fb_format)f, FB_BLOCK_MIN << b, e))
                return false;
    return true;
}

static bool print_totals(run *r, ck_error *e)
{
    error_table_heading("TOTAL", -1, -1);
    for (int i = 0; i < CONFIGURATIONS; i++) {
        if (r->totals[i].elements == 0) continue;
        fb_matrix w = {.format = (fb_format)(i / (2 * BLOCK_SIZES)), .block_size = FB_BLOCK_MIN << i / 2 % BLOCK_SIZES,
                       .double_quant = i % 2};
        if (!error_table_row(&r->table, "TOTAL", -1, -1, &w, &r->totals[i], e)) return false;
    }
    return true;
}

static double configurations(const options *o)
{
    int formats = 0, sizes = 0;
    for (int f = 0; f < FB_FORMAT_COUNT; f++) formats += o->formats[f];
    for (int b = 0; b < BLOCK_SIZES; b++) sizes += o->block_sizes[b];
    return 2.0 * formats * sizes;
}

/* ---- what is measured ------------------------------------------------------------------ */

static bool run_file(run *r, ck_error *e)
{
    st_file file;
    bnb_index modules = {0};
    selection chosen = {0};
    if (!st_open(&file, r->o->in, e)) return false;
    bool good = bnb_scan(&modules, &file, e) && selection_make(&chosen, r->o, &file, &modules, e);
    progress_begin(&r->bar, "error", (double)chosen.elements * configurations(r->o));
    for (size_t i = 0; good && i < file.count; i++) {
        const st_tensor *t = &file.tensors[i];
        if (!chosen.chosen[i]) continue;
        subject s = {.name = t->name, .dtype = tensor_dtype(t), .rows = t->shape[0], .cols = t->shape[1],
                     .sigma = 0};
        s.data = tensor_data(t, &r->source, e);
        good = s.data && measure_subject(r, &s, e);
        st_release(&file, t);
    }
    progress_end(&r->bar);
    if (good) printf("\n%zu matrices measured, %zu tensors passed over\n", chosen.count, file.count - chosen.count);
    good = good && print_totals(r, e);
    selection_free(&chosen);
    bnb_index_free(&modules);
    st_close(&file);
    return good;
}

/* Variance 5/3: heavy tails as weights have them, with a finite fourth moment. */
static double student_t5(uint64_t seed, uint64_t i)
{
    double chi = 0;
    for (uint64_t k = 1; k <= 5; k++) {
        double g = input_gaussian(seed + k, i);
        chi += g * g;
    }
    return input_gaussian(seed, i) / sqrt(chi / 5);
}

static bool run_synthetic(run *r, ck_error *e)
{
    static const char *const names[] = {"gaussian", "student-t", "uniform"};
    int64_t n = r->o->samples;
    if (!buffer_need(&r->source, (size_t)n * sizeof(float), e)) return false;
    progress_begin(&r->bar, "error", 3.0 * (double)n * configurations(r->o));
    for (int kind = 0; kind < 3; kind++) {
        float *x = r->source.p;
        uint64_t seed = 1000 * (uint64_t)(kind + 1);
#pragma omp parallel for num_threads(r->o->threads > 0 ? r->o->threads : omp_get_max_threads())
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)(kind == 0   ? input_gaussian(seed, (uint64_t)i)
                           : kind == 1 ? student_t5(seed, (uint64_t)i)
                                       : 2 * input_uniform(seed, (uint64_t)i) - 1);
        subject s = {.name = names[kind], .data = x, .dtype = FB_F32, .rows = 1, .cols = n, .sigma = kind == 0 ? 1 : NAN};
        if (!measure_subject(r, &s, e)) return false;
    }
    /* no TOTAL: a sum over three distributions would mean nothing */
    progress_end(&r->bar);
    return true;
}

/* ---- plots ---------------------------------------------------------------------------------- */

/* plots/plot.sh of the repository this program was built in: here, or two folders
 * above it (build/bin). malloc'd, or NULL. */
static char *plot_script(const char *program)
{
    static const char script[] = "plots/plot.sh";
    if (access(script, X_OK) == 0) return strdup(script);
    char *real = realpath(program, NULL), *path = NULL;
    for (int up = 0; real && up < 3; up++) {
        char *slash = strrchr(real, '/');
        if (slash) *slash = '\0';
    }
    if (real && asprintf(&path, "%s/%s", real, script) < 0) path = NULL;
    free(real);
    if (path && access(path, X_OK) == 0) return path;
    free(path);
    return NULL;
}

static bool have_gnuplot(void) { return system("command -v gnuplot >/dev/null 2>&1") == 0; }

static bool draw(const options *o, ck_error *e)
{
    if (!have_gnuplot()) {
        printf("\nno plots: gnuplot is not installed (Debian: apt-get install gnuplot-nox); %s is complete\n", o->csv);
        return true;
    }
    char *script = plot_script(o->program);
    if (!script) return ck_fail(e, "--plots", NULL, "plots/plot.sh is not here; run from the repository");
    const char *slash = strrchr(o->csv, '/');
    char *folder = slash ? strndup(o->csv, slash == o->csv ? 1 : (size_t)(slash - o->csv)) : strdup(".");
    fflush(stdout);
    int status = -1;
    pid_t child = folder ? fork() : -1;
    if (child == 0) {
        execl(script, script, "error", o->csv, folder, (char *)NULL);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    bool good = child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good) ck_fail(e, script, NULL, "did not draw %s", o->csv);
    free(folder);
    free(script);
    return good;
}

/* quantize may replace its input, which OUT then has instead; a table has no weights. */
static bool csv_is_input(const options *o, ck_error *e)
{
    struct stat in, csv;
    if (!o->in || !o->csv || stat(o->in, &in) != 0 || stat(o->csv, &csv) != 0) return false;
    if (in.st_dev != csv.st_dev || in.st_ino != csv.st_ino) return false;
    ck_fail(e, o->csv, NULL, "is the file to be measured; give another path for the table");
    return true;
}

int cmd_error(const options *o)
{
    run r = {.o = o, .file = o->in ? o->in : "synthetic data"};
    ck_error e;
    bool good = !csv_is_input(o, &e) && backend_open(&r.ctx, o, &e) && error_table_begin(&r.table, o->csv, &e) &&
                (o->in ? run_file(&r, &e) : run_synthetic(&r, &e)) && error_table_commit(&r.table, &e);
    if (!good) progress_clear(&r.bar);
    error_table_abort(&r.table);
    buffer *all[] = {&r.source, &r.normal, &r.storage, &r.nested, &r.quantized, &r.decoded, &r.scratch, &r.workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    good = good && (!o->plots || draw(o, &e));
    return good ? EXIT_OK : failed(&e);
}
