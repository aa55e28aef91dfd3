/* fourbit-rows: flattens a Google Benchmark JSON file into tab-separated rows.
 *
 *   {"context": {...}, "benchmarks": [{"name": "gemm/cpu/nf4/b64+dq/M1_N4096_K4096", counters ...}, ...]}
 *
 * becomes one line a benchmark, with a header line: the parts of the name, the
 * counters of bench/README.md (NaN where a row has none), one x_<peer> column for
 * each peer that any row was compared with, in alphabetical order.
 *
 * A product's shape gives m, n and k, a LoRA layer's the rank too (0 for all others); a matrix's, ROWSxCOLS, gives n = rows and
 * k = cols, as weights are W [n, k]; then m is 0.
 *
 * The whole file is read and checked before the first byte is written, so a
 * broken input never leaves half a table. Exit status: 0, or 2 with one line that
 * names the file and the place.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BAD_INPUT = 2, PARTS = 5, NAME_MAX_BYTES = 512 };

static const char *const counters[] = {"bytes",  "flops",  "GB_s",   "pct_copy_bw", "TFLOP_s",        "pct_gemm_peak",
                                       "p10_us", "p50_us", "p90_us", "samples",     "bits_per_weight",
                                       "copy_bw_GB_s", "read_bw_GB_s"};
enum { COUNTERS = sizeof counters / sizeof counters[0] };

static const char usage[] =
    "fourbit-rows [--context] FILE\n"
    "  FILE       JSON of a benchmark run (Google Benchmark's format, fourbit's names and counters)\n"
    "  --context  print the run's context as key<TAB>value lines instead of its rows\n"
    "Rows that failed, aggregates of repetitions and names of another form are left out; stderr says how many.\n"
    "Exit status: 0; 2 when FILE cannot be read, is not JSON, or is not a benchmark run.\n";

static int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("fourbit-rows: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return BAD_INPUT;
}

/* ---- a benchmark's name ------------------------------------------------------ */

typedef struct case_name {
    char text[NAME_MAX_BYTES]; /* cut up in place */
    const char *op, *backend, *format, *shape;
    char variant[NAME_MAX_BYTES];
    long block_size;
    bool double_quant;
    double m, n, k, rank;
} case_name;

/* "M1_N4096_K11008", "M1_N4096_K11008_R16" or "4096x11008"; the widths keep a silly number of digits from overflowing. */
static bool parse_shape(const char *s, case_name *c)
{
    long m, n, k, rank = 0;
    int end = 0, more = 0;
    if (sscanf(s, "M%15ld_N%15ld_K%15ld%n", &m, &n, &k, &end) == 3) {
        if (sscanf(s + end, "_R%9ld%n", &rank, &more) == 1 && rank < 1) return false;
        c->m = (double)m, c->n = (double)n, c->k = (double)k, c->rank = (double)rank;
        return s[end + more] == '\0' && m > 0 && n > 0 && k > 0;
    }
    if (sscanf(s, "%15ldx%15ld%n", &n, &k, &end) == 2 && s[end] == '\0') {
        c->m = 0, c->n = (double)n, c->k = (double)k;
        return n > 0 && k > 0;
    }
    return false;
}

/* What follows the shape, less what Google Benchmark appends ("iterations:20",
 * "manual_time"): "fp32", "hot", "fp32/hot"; "-" for none, which is bf16 and cold. */
static void parse_variant(char *rest, char *variant)
{
    char *save, *end = variant;
    for (char *word = rest ? strtok_r(rest, "/", &save) : NULL; word; word = strtok_r(NULL, "/", &save)) {
        if (strchr(word, ':') || strstr(word, "_time")) continue;
        end += sprintf(end, "%s%s", end == variant ? "" : "/", word); /* never longer than rest */
    }
    if (end == variant) strcpy(variant, "-");
}

/* op/backend/format/b<block>[+dq]/shape[/variant] */
static bool parse_name(const char *name, case_name *c)
{
    char *part[PARTS], *at = c->text;
    int end = 0;
    if (strlen(name) >= sizeof c->text || strpbrk(name, "\t\r\n")) return false;
    strcpy(c->text, name);
    for (int i = 0; i < PARTS; i++) {
        if (!at || *at == '\0') return false;
        part[i] = at;
        at = strchr(at, '/');
        if (at) *at++ = '\0';
        if (*part[i] == '\0') return false;
    }
    c->op = part[0], c->backend = part[1], c->format = part[2], c->shape = part[4];
    parse_variant(at, c->variant);
    if (sscanf(part[3], "b%9ld%n", &c->block_size, &end) != 1 || end == 0 || c->block_size < 0) return false;
    c->double_quant = strcmp(part[3] + end, "+dq") == 0;
    return (c->double_quant || part[3][end] == '\0') && parse_shape(c->shape, c);
}

/* ---- the peers some row was compared with --------------------------------------- */

typedef struct peer_list {
    const char **name; /* borrowed from the JSON tree */
    size_t count, room;
} peer_list;

static bool add_peer(peer_list *peers, const char *key)
{
    for (size_t i = 0; i < peers->count; i++)
        if (strcmp(peers->name[i], key) == 0) return true;
    if (peers->count == peers->room) {
        size_t room = peers->room ? 2 * peers->room : 8;
        const char **more = realloc(peers->name, room * sizeof *more);
        if (!more) return false;
        peers->name = more, peers->room = room;
    }
    peers->name[peers->count++] = key;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* ---- checking ------------------------------------------------------------------------ */

typedef enum row_kind { ROW_BAD, ROW_GOOD, ROW_FAILED, ROW_AGGREGATE, ROW_FOREIGN } row_kind;
typedef struct tally {
    size_t good, failed, aggregate, foreign;
} tally;

static row_kind classify(const char *path, const json_t *row, size_t index, case_name *c)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *type = json_string_value(json_object_get(row, "run_type"));
    if (!name) return fail("%s: benchmarks[%zu] has no \"name\"", path, index), ROW_BAD;
    if (json_is_true(json_object_get(row, "error_occurred"))) return ROW_FAILED;
    if (type && strcmp(type, "aggregate") == 0) return ROW_AGGREGATE;
    if (!parse_name(name, c)) return ROW_FOREIGN;
    for (size_t i = 0; i < COUNTERS; i++) {
        const json_t *value = json_object_get(row, counters[i]);
        if (value && !json_is_number(value))
            return fail("%s: benchmarks[%zu] (%s): \"%s\" is not a number", path, index, name, counters[i]), ROW_BAD;
        if (value && json_number_value(value) < 0)
            return fail("%s: benchmarks[%zu] (%s): \"%s\" is negative", path, index, name, counters[i]), ROW_BAD;
    }
    return ROW_GOOD;
}

/* Every row looked at once before any is printed. */
static int check_rows(const char *path, const json_t *rows, peer_list *peers, tally *t)
{
    size_t index;
    const json_t *row;
    json_array_foreach(rows, index, row) {
        case_name c = {0};
        const char *key;
        json_t *value;
        if (!json_is_object(row)) return fail("%s: benchmarks[%zu] is not an object", path, index);
        switch (classify(path, row, index, &c)) {
        case ROW_BAD: return BAD_INPUT;
        case ROW_FAILED: t->failed++; continue;
        case ROW_AGGREGATE: t->aggregate++; continue;
        case ROW_FOREIGN: t->foreign++; continue;
        case ROW_GOOD: t->good++; break;
        }
        json_object_foreach((json_t *)row, key, value) {
            if (strncmp(key, "x_", 2) != 0) continue;
            if (!json_is_number(value) || strpbrk(key, " \t\r\n"))
                return fail("%s: benchmarks[%zu]: \"%s\" is not a number, or its key has a blank", path, index, key);
            if (json_number_value(value) < 0) return fail("%s: benchmarks[%zu]: \"%s\" is negative", path, index, key);
            if (!add_peer(peers, key)) return fail("%s: out of memory", path);
        }
    }
    if (peers->count) qsort(peers->name, peers->count, sizeof *peers->name, by_name);
    return 0;
}

/* ---- printing --------------------------------------------------------------------------- */

static void print_number(const json_t *value)
{
    double v = value ? json_number_value(value) : NAN;
    if (isfinite(v)) printf("\t%.9g", v);
    else fputs("\tNaN", stdout);
}

static void print_rows(const char *path, const json_t *rows, const peer_list *peers)
{
    size_t index;
    const json_t *row;
    fputs("op\tbackend\tformat\tblock_size\tdq\tshape\tm\tn\tk\tvariant\trank", stdout);
    for (size_t i = 0; i < COUNTERS; i++) printf("\t%s", counters[i]);
    for (size_t i = 0; i < peers->count; i++) printf("\t%s", peers->name[i]);
    putchar('\n');
    json_array_foreach(rows, index, row) {
        case_name c = {0};
        if (classify(path, row, index, &c) != ROW_GOOD) continue;
        printf("%s\t%s\t%s\t%ld\t%d\t%s\t%.0f\t%.0f\t%.0f\t%s\t%.0f", c.op, c.backend, c.format, c.block_size,
               c.double_quant, c.shape, c.m, c.n, c.k, c.variant, c.rank);
        for (size_t i = 0; i < COUNTERS; i++) print_number(json_object_get(row, counters[i]));
        for (size_t i = 0; i < peers->count; i++) print_number(json_object_get(row, peers->name[i]));
        putchar('\n');
    }
}

static int rows_main(const char *path, const json_t *root)
{
    const json_t *rows = json_object_get(root, "benchmarks");
    peer_list peers = {0};
    tally t = {0};
    if (!json_is_array(rows)) return fail("%s: no \"benchmarks\" array: not a benchmark run", path);
    int status = check_rows(path, rows, &peers, &t);
    if (status == 0) {
        print_rows(path, rows, &peers);
        if (t.failed || t.aggregate || t.foreign)
            fprintf(stderr, "fourbit-rows: %s: %zu rows; left out: %zu failed, %zu aggregates, %zu of other names\n",
                    path, t.good, t.failed, t.aggregate, t.foreign);
    }
    free(peers.name);
    return status;
}

static void print_flat(const char *key, const char *text)
{
    printf("%s\t", key);
    for (; *text; text++) putchar(*text == '\t' || *text == '\n' || *text == '\r' ? ' ' : *text);
    putchar('\n');
}

/* Scalars only: what is nested (caches, load averages) is for other readers. */
static int context_main(const char *path, const json_t *root)
{
    const json_t *context = json_object_get(root, "context");
    const char *key;
    json_t *value;
    char number[64];
    if (!json_is_object(context)) return fail("%s: no \"context\" object: not a benchmark run", path);
    json_object_foreach((json_t *)context, key, value) {
        if (strpbrk(key, "\t\r\n")) continue;
        if (json_is_string(value)) print_flat(key, json_string_value(value));
        if (json_is_boolean(value)) print_flat(key, json_is_true(value) ? "true" : "false");
        if (json_is_number(value)) {
            snprintf(number, sizeof number, "%.9g", json_number_value(value));
            print_flat(key, number);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    bool context = false;
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return fputs(usage, stdout) == EOF;
        if (strcmp(argv[i], "--context") == 0) context = true;
        else if (argv[i][0] == '-' && argv[i][1]) return fail("unknown option %s (try --help)", argv[i]);
        else if (path) return fail("one file at a time: %s and %s", path, argv[i]);
        else path = argv[i];
    }
    if (!path) return fail("no file named (try --help)");
    json_error_t error;
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file) return fail("%s: %s", path, strerror(errno));
    if (fstat(fileno(file), &info) == 0 && S_ISDIR(info.st_mode)) {
        fclose(file);
        return fail("%s: a folder; name the JSON file in it", path);
    }
    json_t *root = json_loadf(file, 0, &error);
    fclose(file);
    if (!root) return fail("%s: line %d, column %d: %s", path, error.line, error.column, error.text);
    int status = context ? context_main(path, root) : rows_main(path, root);
    json_decref(root);
    if (fflush(stdout) != 0 || ferror(stdout)) return fail("writing the table: %s", strerror(errno));
    return status;
}
