/* load.c: what lies in a results folder (report.h). Every value is looked at before the page is begun. */
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, WHY, format, args);
    va_end(args);
    return false;
}

/* ---- files -------------------------------------------------------------------------------------------- */

enum { FILE_MAX_BYTES = 256 << 20 };

/* The whole file, a NUL behind it. NULL and why[0] = 0: there is none. */
static char *slurp(const char *path, size_t *bytes, char *why)
{
    why[0] = '\0';
    struct stat info;
    bool there = stat(path, &info) == 0; /* asked before it is opened: a FIFO that nobody writes to would hang */
    if (there && !S_ISREG(info.st_mode)) return refuse(why, "%.300s: not a file", path), NULL;
    FILE *f = there ? fopen(path, "rb") : NULL;
    if (!f) {
        if (errno != ENOENT) refuse(why, "%.300s: %s", path, strerror(errno));
        return NULL;
    }
    char *text = NULL;
    if (info.st_size > FILE_MAX_BYTES) refuse(why, "%.300s: %lld bytes are more than any result has", path, (long long)info.st_size);
    else if (!(text = malloc((size_t)info.st_size + 1))) refuse(why, "%.300s: no memory", path);
    else {
        *bytes = fread(text, 1, (size_t)info.st_size, f);
        text[*bytes] = '\0';
        if (*bytes != (size_t)info.st_size) refuse(why, "%.300s: it could not be read whole", path), free(text), text = NULL;
    }
    fclose(f);
    return text;
}

/* False: damaged. *root stays NULL when there is no such file. */
static bool load_json(json_t **root, const char *path, const char *what, const char *array, char *why)
{
    json_error_t error;
    size_t bytes;
    char *text = slurp(path, &bytes, why);
    if (!text) return !why[0];
    *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!*root) return refuse(why, "%.300s: line %d, column %d: %s", path, error.line, error.column, error.text);
    if (!json_is_array(json_object_get(*root, array))) return refuse(why, "%.300s: no \"%s\" array: not %s", path, array, what);
    return true;
}

/* ---- bench.json ------------------------------------------------------------------------------------------ */

const char *report_context(const report *r, const char *key)
{
    const char *text = json_string_value(json_object_get(r->context, key));
    return text ? text : "";
}

/* A ceiling stands in the context as text. */
static double ceiling(const report *r, const char *key, double unit)
{
    const json_t *value = json_object_get(r->context, key);
    double v = json_is_number(value) ? json_number_value(value) : json_is_string(value) ? strtod(json_string_value(value), NULL) : NAN;
    return v > 0 && isfinite(v) ? v * unit : NAN;
}

/* op/backend/format/block/shape...; less what Google Benchmark appends ("iterations:20", "manual_time"). */
static bool cut_name(bench_row *row)
{
    char *at = row->parts = strdup(row->name);
    if (!at) return false;
    row->op = row->backend = row->format = row->block = row->shape = "";
    const char **part[] = {&row->op, &row->backend, &row->format, &row->block};
    for (int i = 0; i < 4; i++) {
        char *slash = strchr(at, '/');
        if (!slash) break; /* another program's name */
        *slash = '\0', *part[i] = at, at = slash + 1;
    }
    row->shape = at;
    for (char *tail; (tail = strrchr(at, '/')) && (strchr(tail, ':') || strstr(tail, "_time"));) *tail = '\0';
    if (!*row->block) row->op = "other", row->backend = "", row->format = "", row->shape = row->name;
    row->peer = strncmp(row->backend, "peer:", 5) == 0;
    size_t n = strlen(row->shape);
    row->hot = n > 4 && strcmp(row->shape + n - 4, "/hot") == 0;
    return true;
}

static bool number(const json_t *json, const char *key, double *to, const char *where, char *why)
{
    const json_t *value = json_object_get(json, key);
    *to = NAN;
    if (!value) return true;
    if (!json_is_number(value)) return refuse(why, "%.400s: \"%s\" is not a number", where, key);
    *to = json_number_value(value);
    return *to >= 0 || refuse(why, "%.400s: \"%s\" is %g", where, key, *to);
}

static double unit_us(const char *unit)
{
    return !unit || strcmp(unit, "ns") == 0 ? 1e-3 : strcmp(unit, "us") == 0 ? 1 : strcmp(unit, "ms") == 0 ? 1e3 : strcmp(unit, "s") == 0 ? 1e6 : NAN;
}

/* copy_bw: in the row's own rounds, NaN where it was not measured there. */
static void set_roof(const report *r, bench_row *row, double copy_bw)
{
    if (!(copy_bw > 0)) copy_bw = r->copy_bw;
    double seconds = row->median * 1e-6, memory = row->hot ? NAN : row->bytes / copy_bw, arithmetic = row->flops / r->gemm_peak;
    row->roof = NAN;
    if (!(seconds > 0) || (!(memory > 0) && !(arithmetic > 0))) return;
    row->arithmetic = !(memory >= arithmetic);
    if (!(arithmetic > 0)) row->arithmetic = false;
    row->roof = (row->arithmetic ? arithmetic : memory) / seconds;
}

static bool read_row(const report *r, const json_t *json, size_t index, bench_row *row, char *why)
{
    char where[400];
    double share, real = NAN;
    if (!json_is_object(json)) return refuse(why, "benchmarks[%zu] is not an object", index);
    row->name = json_string_value(json_object_get(json, "name"));
    if (!row->name || !*row->name) return refuse(why, "benchmarks[%zu] has no \"name\"", index);
    if (!cut_name(row)) return refuse(why, "no memory");
    snprintf(where, sizeof where, "benchmarks[%zu] (%.200s)", index, row->name);
    const char *label = json_string_value(json_object_get(json, "label")), *above = json_string_value(json_object_get(json, "above_roofline"));
    row->label = label ? label : "", row->why = "", row->sqnr = NAN;
    if (json_is_true(json_object_get(json, "error_occurred"))) {
        const char *message = json_string_value(json_object_get(json, "error_message"));
        row->why = message ? message : "it does not say why";
        const char *after = strstr(row->why, ": "); /* fourbit-bench begins with the state, which the page shows itself */
        if (after && (strncmp(row->why, "FAILED: ", 8) == 0 || strncmp(row->why, "skipped: ", 9) == 0)) row->why = after + 2;
        row->state = row->peer ? ROW_SKIPPED : ROW_FAILED;
    } else if (above) row->why = above, row->state = ROW_ABOVE_ROOF;
    struct { const char *key; double *to; } counters[] = {
        {"real_time", &real}, {"p50_us", &row->median}, {"p10_us", &row->p10}, {"p90_us", &row->p90}, {"spread_pct", &row->spread}, {"GB_s", &row->gb_s},
        {"TFLOP_s", &row->tflop_s}, {"bits_per_weight", &row->bits}, {"bytes", &row->bytes}, {"flops", &row->flops}};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (!number(json, counters[i].key, counters[i].to, where, why)) return false;
    if (!number(json, "pct_copy_bw", &share, where, why)) return false;
    row->copy_share = share / 100;
    if (!number(json, "pct_gemm_peak", &share, where, why)) return false;
    row->gemm_share = share / 100;
    if (isnan(row->median)) row->median = real * unit_us(json_string_value(json_object_get(json, "time_unit")));
    if (row->state == ROW_FAILED || row->state == ROW_SKIPPED) row->median = NAN;
    else if (!(row->median > 0 && isfinite(row->median))) return refuse(why, "%s: it has no time above 0 and no error", where);
    if (!number(json, "copy_bw_GB_s", &share, where, why)) return false;
    set_roof(r, row, share * 1e9);
    for (int i = 0; i < PEERS; i++) row->x[i] = NAN;
    return true;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The columns x_<peer>, in alphabetical order. */
static bool find_peers(report *r, const json_t *list, char *why)
{
    size_t index;
    const json_t *json;
    json_array_foreach(list, index, json) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)json, key, value) {
            if (strncmp(key, "x_", 2) != 0) continue;
            if (!json_is_number(value) || !(json_number_value(value) > 0)) return refuse(why, "benchmarks[%zu]: \"%.100s\" is no ratio", index, key);
            int i = 0;
            while (i < r->peer_count && strcmp(r->peers[i], key + 2) != 0) i++;
            if (i == PEERS) r->peers_left_out++;
            else if (i == r->peer_count) r->peers[r->peer_count++] = key + 2;
        }
    }
    if (r->peer_count) qsort(r->peers, (size_t)r->peer_count, sizeof *r->peers, by_text);
    return true;
}

static bool load_bench(report *r, char *why)
{
    char path[4200], reason[WHY] = "";
    snprintf(path, sizeof path, "%s/bench.json", r->folder);
    if (!load_json(&r->bench, path, "a benchmark run", "benchmarks", why)) return false;
    if (!r->bench) return true;
    const json_t *list = json_object_get(r->bench, "benchmarks");
    r->context = json_object_get(r->bench, "context");
    if (!json_is_object(r->context)) return refuse(why, "%.300s: no \"context\" object: not a benchmark run", path);
    r->copy_bw = ceiling(r, "copy_bw_GB_s", 1e9), r->gemm_peak = ceiling(r, "gemm_peak_TFLOP_s", 1e12);
    r->rows = calloc(json_array_size(list) + 1, sizeof *r->rows);
    if (!r->rows) return refuse(why, "no memory");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *json = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(json, "run_type"));
        if (type && strcmp(type, "aggregate") == 0) continue; /* of repetitions, whose rows are here too */
        if (!read_row(r, json, i, &r->rows[r->count++], reason)) return refuse(why, "%.200s: %.390s", path, reason);
    }
    if (!find_peers(r, list, reason)) return refuse(why, "%.200s: %.390s", path, reason);
    for (size_t i = 0, row = 0; i < json_array_size(list); i++) {
        const json_t *json = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(json, "run_type"));
        if (type && strcmp(type, "aggregate") == 0) continue;
        for (int p = 0; p < r->peer_count; p++) {
            char key[300];
            snprintf(key, sizeof key, "x_%.280s", r->peers[p]);
            const json_t *x = json_object_get(json, key);
            if (x) r->rows[row].x[p] = json_number_value(x);
        }
        row++;
    }
    return true;
}

/* ---- verdict.json ------------------------------------------------------------------------------------------- */

static bool load_verdict(report *r, const char *given, char *why)
{
    char path[4200];
    snprintf(path, sizeof path, "%s%s", given ? given : r->folder, given ? "" : "/verdict.json");
    if (!load_json(&r->verdict, path, "a verdict of fourbit-compare", "rows", why)) return false;
    if (!r->verdict) return !given || refuse(why, "%.300s: no such file", path);
    if (!json_is_string(json_object_get(r->verdict, "verdict"))) return refuse(why, "%.300s: no \"verdict\"", path);
    json_t *by_name = json_object(), *json;
    size_t index;
    bool ok = by_name != NULL;
    json_array_foreach(json_object_get(r->verdict, "rows"), index, json) {
        const char *name = json_string_value(json_object_get(json, "name"));
        if (ok && (!name || !json_is_string(json_object_get(json, "verdict"))))
            ok = refuse(why, "%.300s: rows[%zu] has no name or no verdict", path, index);
        if (ok) json_object_set(by_name, name, json);
    }
    for (int i = 0; ok && i < r->count; i++) r->rows[i].verdict = json_object_get(by_name, r->rows[i].name);
    json_decref(by_name); /* the rows themselves belong to r->verdict */
    return ok;
}

/* ---- error.csv -------------------------------------------------------------------------------------------------- */

enum { COLUMNS = 32 };

/* Cuts a line into cells, in place; quoted cells may hold commas and doubled quotes. Returns how many, -1: damaged. */
static int cut_line(char *line, char *cell[COLUMNS])
{
    int n = 0;
    for (char *s = line;; s++) {
        if (n == COLUMNS) return -1;
        cell[n++] = s;
        if (*s == '"') {
            char *to = ++cell[n - 1];
            for (s++; *s && !(*s == '"' && s[1] != '"'); s++) {
                if (*s == '"') s++;
                *to++ = *s;
            }
            if (*s != '"') return -1;
            s++, *to = '\0';
        } else s += strcspn(s, ",");
        if (*s == '\0') return n;
        if (*s != ',') return -1;
        *s = '\0';
    }
}

static bool cell_number(const char *text, bool may_be_empty, double *to)
{
    char *end;
    *to = NAN;
    if (!*text) return may_be_empty;
    *to = strtod(text, &end);
    return *end == '\0' && isfinite(*to);
}

enum { E_TENSOR, E_FORMAT, E_BLOCK, E_DQ, E_BITS, E_MSE, E_MAE, E_MAX, E_SQNR, E_EXPECTED, E_COUNT };
static const char *const error_columns[E_COUNT] = {"tensor", "format", "block_size", "double_quant", "bits_per_weight", "mse", "mae", "max_abs", "sqnr_db", "mse_expected"};

static bool read_error(report *r, char *line, const int at[E_COUNT], int columns)
{
    char *cell[COLUMNS];
    error_row *e = &r->errors[r->error_count];
    if (cut_line(line, cell) != columns) return false;
    double *to[E_COUNT] = {NULL, NULL, &e->block, &e->double_quant, &e->bits, &e->mse, &e->mae, &e->max_abs, &e->sqnr, &e->mse_expected};
    for (int i = E_BLOCK; i < E_COUNT; i++)
        if (!cell_number(cell[at[i]], i >= E_SQNR, to[i])) return false; /* no noise, no ratio; no closed form, no expectation */
    e->tensor = strdup(cell[at[E_TENSOR]]), e->format = strdup(cell[at[E_FORMAT]]);
    r->error_count++;
    return e->tensor && e->format;
}

/* A checkpoint has thousands of rows; its sum tells what they tell. */
static void keep_total(report *r)
{
    int kept = 0;
    for (int i = 0; i < r->error_count; i++) {
        if (strcmp(r->errors[i].tensor, "TOTAL") == 0) r->errors[kept++] = r->errors[i];
        else free(r->errors[i].tensor), free(r->errors[i].format);
    }
    r->errors_left_out = r->error_count - kept;
    r->error_count = kept;
}

/* The SQNR beside a time: of the checkpoint's sum or the Gaussian tensor. */
static void set_sqnr(report *r)
{
    for (int i = 0; i < r->count; i++)
        for (int j = 0; j < r->error_count; j++) {
            const error_row *e = &r->errors[j];
            char block[40];
            snprintf(block, sizeof block, "b%.0f%s", e->block, e->double_quant > 0 ? "+dq" : "");
            if (strcmp(e->format, r->rows[i].format) != 0 || strcmp(block, r->rows[i].block) != 0) continue;
            if (strcmp(e->tensor, "TOTAL") == 0 || (strcmp(e->tensor, "gaussian") == 0 && isnan(r->rows[i].sqnr))) r->rows[i].sqnr = e->sqnr;
        }
}

static bool load_errors(report *r, char *why)
{
    char path[4200], *cell[COLUMNS], *save;
    size_t bytes = 0, lines = 1;
    int at[E_COUNT], columns = 0, number = 1;
    snprintf(path, sizeof path, "%s/error.csv", r->folder);
    char *text = slurp(path, &bytes, why);
    if (!text) return !why[0];
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    r->errors = calloc(lines, sizeof *r->errors);
    bool whole = strlen(text) == bytes; /* no NUL in it */
    char *line = strtok_r(text, "\r\n", &save);
    bool ok = r->errors && whole && line && (columns = cut_line(line, cell)) > 0;
    if (!ok) refuse(why, "%.300s: line 1: no header", path);
    for (int i = 0; ok && i < E_COUNT; i++) {
        for (at[i] = 0; at[i] < columns && strcmp(cell[at[i]], error_columns[i]) != 0;) at[i]++;
        if (at[i] == columns) ok = refuse(why, "%.300s: line 1: no column \"%s\"", path, error_columns[i]);
    }
    while (ok && (line = strtok_r(NULL, "\r\n", &save))) {
        number++;
        if (!read_error(r, line, at, columns)) ok = refuse(why, "%.300s: line %d: %d columns of text and finite numbers are expected", path, number, columns);
    }
    free(text);
    if (ok && r->error_count > ERROR_ROWS) keep_total(r);
    if (ok) set_sqnr(r);
    return ok;
}

/* ---- resources.txt, counters.txt ----------------------------------------------------------------------------------- */

/* Columns under heads, as kernels/cuda/resources.txt has them; the first line is the heads. */
static bool read_columns(figures *f, char *line, int number, const char *path, char *why)
{
    char *save, *name = strtok_r(line, " \t", &save), *word;
    bool heads = f->keys == 0;
    int n = 0;
    while (n < KEYS && (word = strtok_r(NULL, " \t", &save))) {
        if (heads) f->key[f->keys++] = word;
        else f->line[f->count].value[n] = word;
        n++;
    }
    if (strtok_r(NULL, " \t", &save) || n != f->keys || n == 0) return refuse(why, "%.300s: line %d: %d columns, 1 ... %d or as many as heads are expected", path, number, n + 1, KEYS + 1);
    if (!heads) f->line[f->count++].name = name;
    return true;
}

/* "name key=value key=value", as fourbit-gates prints. */
static bool read_pairs(figures *f, char *line, int number, const char *path, char *why)
{
    char *save, *name = strtok_r(line, " \t", &save);
    f->line[f->count].name = name;
    for (char *word; (word = strtok_r(NULL, " \t", &save));) {
        char *equals = strchr(word, '=');
        if (!equals || equals == word) return refuse(why, "%.300s: line %d: \"%.60s\" is not key=value", path, number, word);
        *equals = '\0';
        int k = 0;
        while (k < f->keys && strcmp(f->key[k], word) != 0) k++;
        if (k == KEYS) return refuse(why, "%.300s: line %d: more than %d keys", path, number, KEYS);
        if (k == f->keys) f->key[f->keys++] = word;
        f->line[f->count].value[k] = equals + 1;
    }
    f->count++;
    return true;
}

static bool load_figures(const report *r, figures *f, const char *file, char *why)
{
    char path[4200], *save, *line;
    size_t bytes = 0, lines = 1;
    snprintf(path, sizeof path, "%s/%s", r->folder, file);
    f->text = slurp(path, &bytes, why);
    if (!f->text) return !why[0];
    for (size_t i = 0; i < bytes; i++) lines += f->text[i] == '\n';
    if (strlen(f->text) < bytes) return refuse(why, "%.300s: it is not text", path);
    f->line = calloc(lines, sizeof *f->line);
    if (!f->line) return refuse(why, "no memory");
    int number = 0;
    bool first = true, pairs = false;
    for (char *from = f->text; (line = strtok_r(from, "\r\n", &save)); from = NULL) {
        number++;
        line += strspn(line, " \t");
        if (!*line || *line == '#') continue;
        if (first) pairs = strchr(line, '=') != NULL, first = false;
        if (!(pairs ? read_pairs : read_columns)(f, line, number, path, why)) return false;
    }
    return true;
}

/* ---- plots/ ------------------------------------------------------------------------------------------------------------ */

static int is_svg(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 4 && d->d_name[0] != '.' && strcmp(d->d_name + n - 4, ".svg") == 0;
}

/* Timings before errors, then by name. */
static int plot_order(const struct dirent **a, const struct dirent **b)
{
    int late = strncmp((*a)->d_name, "error", 5) == 0, late_too = strncmp((*b)->d_name, "error", 5) == 0;
    return late != late_too ? late - late_too : strcmp((*a)->d_name, (*b)->d_name);
}

static bool load_plots(report *r, char *why)
{
    char path[4600], reason[WHY], prefix[24];
    struct dirent **entries = NULL;
    size_t total = 0;
    snprintf(path, sizeof path, "%s/plots", r->folder);
    int n = scandir(path, &entries, is_svg, plot_order);
    if (n < 0) return errno == ENOENT || refuse(why, "%.300s: %s", path, strerror(errno));
    r->plots = calloc((size_t)n + 1, sizeof *r->plots);
    bool ok = r->plots || refuse(why, "no memory");
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;
        plot *p = ok ? &r->plots[r->plot_count] : NULL;
        if (p) {
            snprintf(path, sizeof path, "%s/plots/%s", r->folder, entries[i]->d_name);
            snprintf(prefix, sizeof prefix, "p%d-", i + 1);
            char *text = slurp(path, &bytes, why);
            p->name = strndup(entries[i]->d_name, strlen(entries[i]->d_name) - 4);
            p->svg = text ? svg_inline(text, bytes, prefix, reason) : NULL;
            if (!text) ok = false;
            else if (!p->svg) ok = refuse(why, "%.300s: %.250s", path, reason);
            free(text), r->plot_count++;
            if (p->svg && (total += strlen(p->svg)) > PLOT_BYTES) total -= strlen(p->svg), free(p->svg), p->svg = NULL;
        }
        free(entries[i]);
    }
    free(entries);
    return ok;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------ */

bool report_load(report *r, const char *folder, const char *verdict, char why[WHY])
{
    struct stat info;
    memset(r, 0, sizeof *r);
    r->copy_bw = r->gemm_peak = NAN;
    if (strlen(folder) >= sizeof r->folder - 100) return refuse(why, "%.100s...: a path too long", folder);
    strcpy(r->folder, folder);
    if (stat(folder, &info) != 0) return refuse(why, "%.300s: %s (`make bench` writes results)", folder, strerror(errno));
    if (!S_ISDIR(info.st_mode)) return refuse(why, "%.300s: name the folder of the results, not a file in it", folder);
    if (!load_bench(r, why) || !load_verdict(r, verdict, why) || !load_errors(r, why) || !load_figures(r, &r->resources, "resources.txt", why) ||
        !load_figures(r, &r->counters, "counters.txt", why) || !load_plots(r, why)) return false;
    if (r->bench || r->error_count) return true;
    return refuse(why, "%.300s: neither bench.json (`make bench`) nor error.csv (`make validate`) is there", folder);
}

void report_free(report *r)
{
    for (int i = 0; i < r->count; i++) free(r->rows[i].parts);
    for (int i = 0; i < r->error_count; i++) free(r->errors[i].tensor), free(r->errors[i].format);
    for (int i = 0; i < r->plot_count; i++) free(r->plots[i].name), free(r->plots[i].svg);
    free(r->rows), free(r->errors), free(r->plots);
    free(r->resources.text), free(r->resources.line), free(r->counters.text), free(r->counters.line);
    json_decref(r->bench), json_decref(r->verdict);
}
