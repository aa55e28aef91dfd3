/* main.c: fourbit-goals: the rows of result files held against the goals of table.c. */
#include "bench/goals/goals.h"

#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALL_MET = 0, SOME_MISSED = 1, CANNOT = 2, SOME_UNMEASURED = 3, NAME = 200 };

static const char usage[] =
    "fourbit-goals [options] bench.json ...\n"
    "Holds the rows of a run of fourbit-bench or fourbit-gpu against the goals (bench/goals/table.c), of the backends that it has rows of.\n"
    "Of a row that two files have, the last file's counts. A goal is judged by the worst of its rows.\n"
    "  --tsv    regime, measure, side, goal, measured, verdict, row: tab-separated\n"
    "  --help\n"
    "Measures: the counters of bench/README.md, and\n"
    "  pct_roof      of max(bytes / copy bandwidth, operations / GEMM peak), over the time; the bandwidth of the row's own\n"
    "                rounds where it has one, else of the run\n"
    "  pct_read_bw   of the read bandwidth, likewise (CPU)\n"
    "  adapter_pct   what a LoRA layer takes longer than the product inside it\n"
    "  time/M1, time/plain, time/gemm   time over that of the row at M = 1; without double quantization; of gemm\n"
    "  rate/nf4_b64  bytes a second over those of NF4 at block 64\n"
    "Exit status: 0 all met, 1 some missed, 2 cannot read, 3 none missed but some not measured.\n";

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

typedef struct row {
    const char *name;
    const json_t *json, *context;
    const char *lost; /* why it has no time; NULL: it has one */
} row;

typedef struct run {
    row *rows;
    size_t count, room;
    json_t *files[64];
    int file_count;
} run;

static bool keep(run *r, const row *one)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].name, one->name) == 0) {
            if (!one->lost || r->rows[i].lost) r->rows[i] = *one;
            return true;
        }
    if (r->count == r->room) {
        const size_t room = r->room ? 2 * r->room : 256;
        row *more = realloc(r->rows, room * sizeof *more);
        if (!more) return false;
        r->rows = more, r->room = room;
    }
    r->rows[r->count++] = *one;
    return true;
}

/* A time that says nothing about the device is as good as none. */
static const char *lost(const json_t *json)
{
    const char *error = json_string_value(json_object_get(json, "error_message")), *label = json_string_value(json_object_get(json, "label"));
    if (json_is_true(json_object_get(json, "error_occurred"))) return error ? error : "it failed";
    if (json_object_get(json, "above_roofline")) return "it is above the roofline";
    if (label && strstr(label, "not a GPU")) return "it did not run on a GPU";
    return json_number_value(json_object_get(json, "p50_us")) > 0 ? NULL : "it has no p50_us";
}

static bool load(run *r, const char *path)
{
    json_error_t error;
    size_t i;
    json_t *json, *file = json_load_file(path, 0, &error);
    if (!file) return fprintf(stderr, "fourbit-goals: %s: %s\n", path, error.text), false;
    r->files[r->file_count++] = file;
    const json_t *list = json_object_get(file, "benchmarks"), *context = json_object_get(file, "context");
    if (!json_is_array(list) || !json_is_object(context)) return fprintf(stderr, "fourbit-goals: %s: no \"context\" and \"benchmarks\": not a benchmark run\n", path), false;
    if (json_is_false(json_object_get(context, "complete"))) fprintf(stderr, "fourbit-goals: %s: the run did not finish; what it has is judged\n", path);
    json_array_foreach(list, i, json) {
        const row one = {json_string_value(json_object_get(json, "name")), json, context, lost(json)};
        if (!one.name || strlen(one.name) >= NAME) return fprintf(stderr, "fourbit-goals: %s: benchmarks[%zu] has no name\n", path, i), false;
        if (!keep(r, &one)) return fputs("fourbit-goals: no memory\n", stderr), false;
    }
    return true;
}

static const row *named(const run *r, const char *name)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].name, name) == 0 && !r->rows[i].lost) return &r->rows[i];
    return NULL;
}

/* ---- measures: NAN where the row has not what it takes ---------------------------------------------------------------- */

static double counter(const row *one, const char *name)
{
    const json_t *value = json_object_get(one->json, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Of the row's own rounds, a number, where they were measured there; else of its run, which are text: "%.4g". */
static double ceiling(const row *one, const char *name)
{
    const double own = counter(one, name);
    if (own > 0) return own;
    const char *text = json_string_value(json_object_get(one->context, name));
    const double value = text ? strtod(text, NULL) : NAN;
    return value > 0 ? value : NAN;
}

static double pct_roof(const row *one)
{
    const double memory = counter(one, "bytes") / (ceiling(one, "copy_bw_GB_s") * 1e9), flops = counter(one, "flops");
    const double arithmetic = isnan(flops) ? 0 : flops / (ceiling(one, "gemm_peak_TFLOP_s") * 1e12);
    return isnan(arithmetic) ? NAN : 100 * fmax(memory, arithmetic) / (counter(one, "p50_us") * 1e-6);
}
static double pct_read(const row *one) { return 100 * counter(one, "GB_s") / ceiling(one, "read_bw_GB_s"); }
static double adapter_pct(const row *one) { return 100 * (1 / counter(one, "x_base") - 1); }

static const struct { const char *name; double (*of)(const row *); } own[] = {{"pct_roof", pct_roof}, {"pct_read_bw", pct_read}, {"adapter_pct", adapter_pct}};

/* A row beside the one whose name it has after this substitution: their times, or their rates. */
static const struct { const char *name, *from, *to; bool rate; } beside[] = {
    {"time/M1", "M[0-9]+_", "M1_", false},
    {"time/plain", "\\+dq", "", false},
    {"time/gemm", "^gemm_dx/", "gemm/", false},
    {"rate/nf4_b64", "/(nf4|fp4|int4|int4-affine)/b[0-9]+(\\+dq)?/", "/nf4/b64/", true}};

static double over_other(const run *r, const row *one, size_t i)
{
    regex_t from;
    regmatch_t at;
    char name[2 * NAME];
    if (regcomp(&from, beside[i].from, REG_EXTENDED) != 0) return NAN;
    const bool found = regexec(&from, one->name, 1, &at, 0) == 0;
    regfree(&from);
    if (!found) return NAN;
    snprintf(name, sizeof name, "%.*s%s%s", (int)at.rm_so, one->name, beside[i].to, one->name + at.rm_eo);
    const row *other = named(r, name);
    if (!other) return NAN;
    return beside[i].rate ? counter(one, "GB_s") / counter(other, "GB_s") : counter(one, "p50_us") / counter(other, "p50_us");
}

static double measure(const run *r, const row *one, const char *name)
{
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcmp(own[i].name, name) == 0) return own[i].of(one);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if (strcmp(beside[i].name, name) == 0) return over_other(r, one, i);
    return counter(one, name);
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------------- */

typedef enum state { MET, MISSED, UNMEASURED, STATES } state;
static const char *const state_names[STATES] = {"met", "missed", "not measured"};

typedef struct verdict {
    state state;
    int rows;             /* that were measured */
    double worst;
    const row *row;       /* where it was */
    char why[400];        /* UNMEASURED */
} verdict;

static verdict judge(const run *r, const goal *g)
{
    verdict v = {.state = UNMEASURED, .worst = NAN};
    char whole[400];
    regex_t rows;
    snprintf(whole, sizeof whole, "^(%s)$", g->rows);
    if (regcomp(&rows, whole, REG_EXTENDED | REG_NOSUB) != 0) return snprintf(v.why, sizeof v.why, "its rows are no regular expression"), v;
    snprintf(v.why, sizeof v.why, "no row %.300s", g->rows);
    for (size_t i = 0; i < r->count; i++) {
        const row *one = &r->rows[i];
        const char *label = json_string_value(json_object_get(one->json, "label"));
        if (regexec(&rows, one->name, 0, NULL, 0) != 0) continue;
        if (g->when && !(label && strstr(label, g->when))) {
            if (!v.rows) snprintf(v.why, sizeof v.why, "not run with %s", g->when);
            continue;
        }
        const double value = one->lost ? NAN : measure(r, one, g->measure);
        if (!isfinite(value)) {
            if (one->lost) snprintf(v.why, sizeof v.why, "%s: %.250s", one->name, one->lost);
            else snprintf(v.why, sizeof v.why, "%s: no %s", one->name, g->measure);
            continue;
        }
        v.rows++;
        if (!v.row || (g->side == '>' ? value < v.worst : value > v.worst)) v.worst = value, v.row = one;
    }
    regfree(&rows);
    if (!v.rows) return v;
    const bool met = g->side == '>' ? v.worst >= g->limit : v.worst <= g->limit;
    v.state = !met ? MISSED : v.rows < g->least ? UNMEASURED : MET;
    if (v.state == UNMEASURED) snprintf(v.why, sizeof v.why, "%d of %d rows, the worst %.3g", v.rows, g->least, v.worst);
    return v;
}

static void print_goal(const goal *g, const verdict *v, bool first)
{
    char limit[48], measured[16] = "-";
    snprintf(limit, sizeof limit, "%s %g", g->side == '>' ? ">=" : "<=", g->limit);
    if (g->then > 0) snprintf(limit + strlen(limit), sizeof limit - strlen(limit), " (then %g)", g->then);
    if (v->row) snprintf(measured, sizeof measured, "%.3g", v->worst);
    printf("%-25s %-22s %-19s %8s  %-12s  %s%s\n", first ? g->regime : "", g->measure, limit, measured, state_names[v->state],
           v->state == UNMEASURED ? v->why : v->row->name, v->state != UNMEASURED && v->rows > 1 ? " (the worst)" : "");
}

static bool has_backend(const run *r, const char *backend)
{
    char part[32];
    snprintf(part, sizeof part, "/%s/", backend);
    for (size_t i = 0; i < r->count; i++)
        if (strstr(r->rows[i].name, part)) return true;
    return false;
}

static int print_all(const run *r, bool tsv)
{
    int counts[STATES] = {0};
    const char *backend = "", *regime = "";
    if (tsv) puts("regime\tmeasure\tside\tgoal\tmeasured\tverdict\trow");
    for (const goal *g = goals; g->backend; g++) {
        if (!has_backend(r, g->backend)) continue;
        const verdict v = judge(r, g);
        counts[v.state]++;
        if (tsv) {
            printf("%s: %s\t%s\t%s\t%g\t%.6g\t%s\t%s\n", g->backend, g->regime, g->measure, g->side == '>' ? ">=" : "<=", g->limit, v.worst,
                   state_names[v.state], v.row ? v.row->name : "");
            continue;
        }
        if (strcmp(backend, g->backend) != 0)
            printf("%s%-25s %-22s %-19s %8s  %-12s  %s\n", *backend ? "\n" : "", g->backend, "measure", "goal", "measured", "verdict", "where, or why not");
        print_goal(g, &v, strcmp(backend, g->backend) != 0 || strcmp(regime, g->regime) != 0);
        backend = g->backend, regime = g->regime;
    }
    const int all = counts[MET] + counts[MISSED] + counts[UNMEASURED];
    if (!all) return fputs("fourbit-goals: no rows of a backend that has goals (cuda, cpu)\n", stderr), CANNOT;
    if (!tsv) printf("\n%d goals: %d met, %d missed, %d not measured\n", all, counts[MET], counts[MISSED], counts[UNMEASURED]);
    return counts[MISSED] ? SOME_MISSED : counts[UNMEASURED] ? SOME_UNMEASURED : ALL_MET;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"tsv", no_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    bool tsv = false, ok = true;
    run r = {NULL, 0, 0, {NULL}, 0};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') return fputs(usage, stdout) == EOF ? CANNOT : 0;
        if (c != 't') return fputs("see --help\n", stderr), CANNOT;
        tsv = true;
    }
    const int files = argc - optind;
    if (files < 1 || files > (int)(sizeof r.files / sizeof *r.files))
        return fprintf(stderr, "fourbit-goals: %d result files; expected 1 ... %zu (see --help)\n", files, sizeof r.files / sizeof *r.files), CANNOT;
    for (int i = optind; i < argc && ok; i++) ok = load(&r, argv[i]);
    const int status = ok ? print_all(&r, tsv) : CANNOT;
    free(r.rows);
    for (int i = 0; i < r.file_count; i++) json_decref(r.files[i]);
    return fflush(stdout) == 0 && !ferror(stdout) ? status : CANNOT;
}
