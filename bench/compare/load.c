/* load.c: result files, every number checked before any is used (compare.h). */
#include "compare.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ROUNDS_MAX = 1000 };

static bool refuse(char *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, WHY, format, args);
    va_end(args);
    return false;
}

/* ---- a row -------------------------------------------------------------------------------------- */

static double unit_us(const char *unit)
{
    if (!unit || strcmp(unit, "ns") == 0) return 1e-3; /* Google Benchmark's default */
    if (strcmp(unit, "us") == 0) return 1;
    return strcmp(unit, "ms") == 0 ? 1e3 : strcmp(unit, "s") == 0 ? 1e6 : NAN;
}

/* A time that a clock can have measured. */
static bool time_of(const json_t *value, double scale, double *us)
{
    *us = json_is_number(value) ? json_number_value(value) * scale : NAN;
    return isfinite(*us) && *us > 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* "71.2 70.9 ..." */
static bool read_samples(timed_row *row, const char *text, char *why)
{
    int room = 0;
    for (char *rest; *text; text = rest) {
        double v = strtod(text, &rest);
        if (rest == text) return refuse(why, "row %.200s: samples_us has \"%.20s\" where a number is expected", row->name, text);
        if (!(isfinite(v) && v > 0)) return refuse(why, "row %.200s: sample %d is %g us", row->name, row->count + 1, v);
        if (row->count == room) {
            room = room ? 2 * room : 32;
            double *more = realloc(row->samples, (size_t)room * sizeof *more);
            if (!more) return refuse(why, "no memory");
            row->samples = more;
        }
        row->samples[row->count++] = v;
        while (*rest == ' ') rest++;
    }
    row->in_order = row->count ? malloc((size_t)row->count * sizeof *row->in_order) : NULL;
    if (row->count && !row->in_order) return refuse(why, "no memory");
    if (row->count) memcpy(row->in_order, row->samples, (size_t)row->count * sizeof *row->samples);
    if (row->count) qsort(row->samples, (size_t)row->count, sizeof *row->samples, by_value);
    return true;
}

static bool read_times(timed_row *row, const json_t *json, char *why)
{
    const json_t *p10 = json_object_get(json, "p10_us"), *p90 = json_object_get(json, "p90_us");
    const json_t *said = json_object_get(json, "samples"), *text = json_object_get(json, "samples_us");
    double scale = unit_us(json_string_value(json_object_get(json, "time_unit")));
    if (!time_of(json_object_get(json, "real_time"), scale, &row->median))
        return refuse(why, "row %.200s: real_time is missing, zero or no number", row->name);
    if (p10 || p90) {
        if (!time_of(p10, 1, &row->p10) || !time_of(p90, 1, &row->p90) ||
            !(row->p10 <= row->median * (1 + 1e-9) && row->median <= row->p90 * (1 + 1e-9)))
            return refuse(why, "row %.200s: p10_us and p90_us do not stand about its median of %g us", row->name, row->median);
    }
    if (!text) return true;
    if (!json_is_string(text)) return refuse(why, "row %.200s: samples_us is no text of numbers", row->name);
    if (!read_samples(row, json_string_value(text), why)) return false;
    if (json_is_number(said) && json_number_value(said) != row->count)
        return refuse(why, "row %.200s: %g samples are announced and %d are there", row->name, json_number_value(said), row->count);
    return true;
}

static bool read_row(timed_row *row, const json_t *json, size_t index, char *why)
{
    const char *label = json_string_value(json_object_get(json, "label"));
    const char *message = json_string_value(json_object_get(json, "error_message"));
    *row = (timed_row){.name = json_string_value(json_object_get(json, "name")), .label = label ? label : "", .json = json};
    if (!row->name || !row->name[0]) return refuse(why, "benchmarks[%zu] has no name", index);
    if (json_is_true(json_object_get(json, "error_occurred"))) {
        row->failed = message ? message : "FAILED: no reason given";
        return true;
    }
    return read_times(row, json, why);
}

/* ---- a file --------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) { return strcmp(((const timed_row *)a)->name, ((const timed_row *)b)->name); }

const timed_row *row_find(const result_file *f, const char *name)
{
    timed_row key = {.name = name};
    return f->count ? bsearch(&key, f->rows, (size_t)f->count, sizeof key, by_name) : NULL;
}

/* A run that stopped early left a valid file of the rows it did; those it did not would pass unseen. */
static bool finished(const result_file *f, char *why)
{
    const json_t *complete = json_object_get(f->context, "complete");
    if (json_is_true(json_object_get(f->context, "interrupted"))) return refuse(why, "%.300s: the run was interrupted", f->path);
    if (complete && !json_is_true(complete)) return refuse(why, "%.300s: the run did not finish (context.complete is not true)", f->path);
    return true;
}

static bool read_rows(result_file *f, const json_t *list, char *why)
{
    char inner[WHY];
    f->rows = calloc(json_array_size(list), sizeof *f->rows);
    if (!f->rows) return refuse(why, "no memory");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *json = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(json, "run_type"));
        if (!json_is_object(json)) return refuse(why, "%.300s: benchmarks[%zu] is not an object", f->path, i);
        if (type && strcmp(type, "aggregate") == 0) continue;
        if (!read_row(&f->rows[f->count++], json, i, inner)) return refuse(why, "%.250s: %.300s", f->path, inner);
    }
    if (f->count == 0) return refuse(why, "%.300s: it has no rows", f->path);
    qsort(f->rows, (size_t)f->count, sizeof *f->rows, by_name);
    for (int i = 1; i < f->count; i++)
        if (strcmp(f->rows[i - 1].name, f->rows[i].name) == 0)
            return refuse(why, "%.250s: row %.200s is there twice", f->path, f->rows[i].name);
    return true;
}

static bool file_load(result_file *f, const char *path, char *why)
{
    json_error_t error;
    snprintf(f->path, sizeof f->path, "%s", path);
    FILE *file = fopen(path, "rb");
    if (!file) return refuse(why, "%.300s: %s", path, strerror(errno));
    f->root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    fclose(file);
    if (!f->root) return refuse(why, "%.300s: line %d, column %d: %s", path, error.line, error.column, error.text);
    f->context = json_object_get(f->root, "context");
    const json_t *list = json_object_get(f->root, "benchmarks");
    if (!json_is_object(f->context) || !json_is_array(list))
        return refuse(why, "%.300s: no \"context\" and \"benchmarks\": not a result of fourbit-bench", path);
    return finished(f, why) && read_rows(f, list, why);
}

/* ---- a side ------------------------------------------------------------------------------------------ */

static int is_json(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 5 && strcmp(entry->d_name + n - 5, ".json") == 0;
}

static bool folder_load(side *s, const char *path, char *why)
{
    struct dirent **names;
    int count = scandir(path, &names, is_json, alphasort);
    bool ok = count > 0 && count <= ROUNDS_MAX;
    if (count < 0) return refuse(why, "%.300s: %s", path, strerror(errno));
    if (!ok) refuse(why, "%.300s: %d files *.json; the rounds of a run are expected, 1 ... %d", path, count, ROUNDS_MAX);
    s->folder = true;
    s->files = ok ? calloc((size_t)count, sizeof *s->files) : NULL;
    for (int i = 0; i < count; i++) {
        char file[4096];
        bool fits = snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) < (int)sizeof file;
        if (ok) ok = s->files && fits && file_load(&s->files[s->rounds++], file, why);
        free(names[i]);
    }
    free(names);
    return ok;
}

bool side_load(side *s, const char *path, char why[WHY])
{
    struct stat info;
    *s = (side){0};
    if (stat(path, &info) != 0) return refuse(why, "%.300s: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return folder_load(s, path, why);
    s->files = calloc(1, sizeof *s->files);
    s->rounds = s->files ? 1 : 0;
    return s->files ? file_load(s->files, path, why) : refuse(why, "no memory");
}

void side_free(side *s)
{
    for (int i = 0; i < s->rounds; i++) {
        for (int j = 0; j < s->files[i].count; j++) {
            free(s->files[i].rows[j].samples);
            free(s->files[i].rows[j].in_order);
        }
        free(s->files[i].rows);
        json_decref(s->files[i].root);
    }
    free(s->files);
    *s = (side){0};
}
