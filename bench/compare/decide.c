/* decide.c: may two results be compared, and what is the verdict (compare.h). */
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a run of ab.sh, whose rounds alternate, can resolve; and what two runs at different times cannot, whatever
 * their own spread says: bench/results/ has the null experiments behind both figures. */
const double paired_threshold = 0.03, separate_threshold = 0.10;

const char *verdict_name(verdict v)
{
    static const char *const names[] = {"same", "faster", "SLOWER", "CHANGED", "BROKEN", "incomparable", "MISSING", "ambiguous", "added", "skipped", "control"};
    return names[v];
}

/* ---- may they be compared ------------------------------------------------------------------------ */

static const struct {
    const char *word;
    unsigned bit;
    const char *keys[6]; /* of context: all must be equal, or missing in both */
} categories[] = {
    {"machine", ALLOW_MACHINE, {"cpu_name", "cpu_cores", "num_cpus", "caches", "host_name"}},
    {"gpu", ALLOW_GPU, {"gpu", "gpu_name", "gpu_uuid"}},
    {"driver", ALLOW_DRIVER, {"driver", "gpu_driver", "cuda_driver"}},
    {"cuda", ALLOW_CUDA, {"cuda", "cuda_runtime", "cuda_version"}},
    {"clocks", ALLOW_CLOCKS, {"clock_policy", "gpu_clock_policy", "gpu_persistence", "gpu_ecc", "cpu_governor"}},
    {"compiler", ALLOW_COMPILER, {"compiler", "cflags"}},
    {"threads", ALLOW_THREADS, {"threads"}},
    {"dirty", ALLOW_DIRTY, {NULL}},     /* a commit that does not name what was run */
    {"label", ALLOW_LABEL, {NULL}},     /* rows measured another way (threads, instruction set) */
    {"outputs", ALLOW_OUTPUTS, {NULL}}, /* changed bits are wanted */
    {"missing", ALLOW_MISSING, {NULL}}, /* rows of the base were taken away on purpose */
};
enum { CATEGORIES = sizeof categories / sizeof *categories };

bool allow_parse(const char *text, unsigned *allow)
{
    while (*text) {
        size_t length = strcspn(text, ","), i = 0;
        while (i < CATEGORIES && !(strlen(categories[i].word) == length && strncmp(text, categories[i].word, length) == 0)) i++;
        if (i == CATEGORIES) return false;
        *allow |= categories[i].bit;
        text += length + (text[length] == ',');
    }
    return true;
}

const char *allow_words(void) { return "machine,gpu,driver,cuda,clocks,compiler,threads,dirty,label,outputs,missing"; }

static void scalar(const json_t *context, const char *key, char text[200])
{
    const json_t *v = json_object_get(context, key);
    if (json_is_string(v)) snprintf(text, 200, "%s", json_string_value(v));
    else if (json_is_number(v)) snprintf(text, 200, "%.9g", json_number_value(v));
    else snprintf(text, 200, "%s", v ? "?" : "not recorded");
}

static bool is_dirty(const result_file *f)
{
    const char *commit = json_string_value(json_object_get(f->context, "commit"));
    return commit && (strstr(commit, "-dirty") || strcmp(commit, "unknown") == 0);
}

static void note(comparison *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(comparison *c, const char *format, ...)
{
    size_t used = strlen(c->notes);
    va_list args;
    va_start(args, format);
    vsnprintf(c->notes + used, sizeof c->notes - used, format, args);
    va_end(args);
}

static bool contexts_agree(comparison *c, const result_file *a, const result_file *b, const rules *r, bool tell, char *why)
{
    char x[200], y[200];
    for (size_t i = 0; i < CATEGORIES; i++)
        for (int k = 0; k < 6 && categories[i].keys[k]; k++) {
            const char *key = categories[i].keys[k];
            scalar(a->context, key, x);
            scalar(b->context, key, y);
            if (strcmp(x, y) == 0) continue;
            if (!(r->allow & categories[i].bit)) {
                snprintf(why, WHY, "another %s: %s is \"%.120s\" in %.100s and \"%.120s\" in %.100s (--allow %s compares them all the same)",
                         categories[i].word, key, x, a->path, y, b->path, categories[i].word);
                return false;
            }
            if (tell) note(c, "allowed: %s is \"%s\" and \"%s\"\n", key, x, y);
        }
    const result_file *dirty = is_dirty(a) ? a : is_dirty(b) ? b : NULL;
    if (dirty && !(r->allow & ALLOW_DIRTY)) {
        snprintf(why, WHY, "%.300s: its commit is \"%.60s\": nobody can build that again (--allow dirty compares it all the same)",
                 dirty->path, json_string_value(json_object_get(dirty->context, "commit")));
        return false;
    }
    if (tell && dirty) note(c, "allowed: a working tree that is not committed\n");
    return true;
}

static bool comparable(comparison *c, const rules *r, char *why)
{
    const side *a = c->base, *b = c->now;
    if (a->folder != b->folder || a->rounds != b->rounds) {
        snprintf(why, WHY, "%s has %d and %s has %d files: two files, or two folders with the same number of rounds",
                 "the base", a->rounds, "the new run", b->rounds);
        return false;
    }
    for (int i = 0; i < a->rounds; i++) {
        const char *x = strrchr(a->files[i].path, '/'), *y = strrchr(b->files[i].path, '/');
        if (a->folder && strcmp(x, y) != 0) {
            snprintf(why, WHY, "rounds do not pair up: %.200s and %.200s", a->files[i].path, b->files[i].path);
            return false;
        }
        if (!contexts_agree(c, &a->files[i], &b->files[i], r, i == 0, why)) return false;
        if (i > 0 && !contexts_agree(c, &a->files[0], &a->files[i], r, false, why)) return false;
    }
    return true;
}

/* ---- one row: what must be equal ---------------------------------------------------------------------- */

/* Value of a counter or text as JSON writes it; "" when it is not there. */
static void exact(const timed_row *row, const char *key, char text[80])
{
    const json_t *v = json_object_get(row->json, key);
    if (json_is_string(v)) snprintf(text, 80, "%s", json_string_value(v));
    else if (json_is_number(v)) snprintf(text, 80, "%.12g", json_number_value(v));
    else text[0] = '\0';
}

/* The first of keys whose values differ, told in why. */
static bool differs(const timed_row *a, const timed_row *b, const char *const *keys, char why[240])
{
    char x[80], y[80];
    for (; *keys; keys++) {
        exact(a, *keys, x);
        exact(b, *keys, y);
        if (strcmp(x, y) == 0 || !x[0] || !y[0]) continue; /* an older benchmark did not write it */
        snprintf(why, 240, "%s was %s, is %s", *keys, x, y);
        return true;
    }
    return false;
}

static bool is_skip(const timed_row *row) { return row->failed && strncmp(row->failed, "skipped", 7) == 0; }

/* A verdict that needs no times; SAME when the times are to be asked. */
static verdict without_times(const timed_row *a, const timed_row *b, const rules *r, char why[240])
{
    static const char *const work[] = {"bytes", "flops", "bits_per_weight", "cold", NULL};
    static const char *const outputs[] = {"output_hash", "mse", "mae", "max_abs", "sqnr_db", NULL};
    const timed_row *failed = b->failed ? b : a;
    snprintf(why, 240, "%s", failed->failed ? failed->failed : "");
    if (is_skip(a) && is_skip(b)) return SKIPPED;
    if (b->failed && !is_skip(b)) return BROKEN;
    if (a->failed || b->failed) return INCOMPARABLE;
    if (differs(a, b, outputs, why) && !(r->allow & ALLOW_OUTPUTS)) return CHANGED;
    if (differs(a, b, work, why)) return INCOMPARABLE;
    if (strcmp(a->label, b->label) != 0 && !(r->allow & ALLOW_LABEL)) {
        snprintf(why, 240, "measured another way: \"%.80s\", \"%.80s\"", a->label, b->label);
        return INCOMPARABLE;
    }
    return SAME;
}

/* ---- one row: times -------------------------------------------------------------------------------------- */

/* log(new / base) of a round. Samples taken in turn are compared one by one: a machine that is half as fast every other
 * second leaves their ratios alone, and the ratio of the medians not. Sets *ok to false when there is no memory. */
static double round_difference(const comparison *c, const timed_row *a, const timed_row *b, bool *ok)
{
    if (!c->turns || !a->count || a->count != b->count) return log(b->median / a->median);
    double *d = malloc((size_t)a->count * sizeof *d), middle = 0;
    for (int i = 0; d && i < a->count; i++) d[i] = log(b->in_order[i] / a->in_order[i]);
    if (d) middle = stats_median(d, a->count);
    *ok = *ok && d;
    free(d);
    return middle;
}

/* One ratio a round: what slowed the machine in that round slowed both. */
static bool measure_paired(const comparison *c, row_result *row)
{
    int n = c->base->rounds;
    double *d = malloc(3 * (size_t)n * sizeof *d);
    if (!d) return false;
    double *a = d + n, *b = a + n;
    bool ok = true;
    for (int i = 0; i < n; i++) {
        const timed_row *base = row_find(&c->base->files[i], row->name), *now = row_find(&c->now->files[i], row->name);
        a[i] = base->median, b[i] = now->median;
        d[i] = round_difference(c, base, now, &ok);
    }
    row->p = stats_signed_rank(d, n);
    row->ratio = exp(stats_median(d, n)); /* sorts d */
    row->interval = stats_bootstrap_median(d, n);
    row->interval = (stats_interval){exp(row->interval.low), exp(row->interval.high)};
    row->base = stats_median(a, n);
    row->now = stats_median(b, n);
    row->samples = n;
    free(d);
    return ok;
}

static void measure_separate(const timed_row *a, const timed_row *b, row_result *row)
{
    row->base = a->median, row->now = b->median, row->ratio = b->median / a->median;
    if (a->count && b->count) {
        row->p = stats_rank_sum(a->samples, a->count, b->samples, b->count);
        row->interval = stats_bootstrap_ratio(b->samples, b->count, a->samples, a->count);
        row->samples = a->count < b->count ? a->count : b->count;
    } else if (a->p10 > 0 && b->p10 > 0) { /* no samples: percentiles that do not touch stand for the test */
        row->interval = (stats_interval){b->p10 / a->p90, b->p90 / a->p10};
        row->p = row->interval.low > 1 || row->interval.high < 1 ? 0 : 1;
    }
}

static verdict by_times(const comparison *c, row_result *row)
{
    double t = 1 + c->threshold;
    bool different = row->p <= c->alpha;
    if (row->interval.high <= 0) {
        snprintf(row->why, sizeof row->why, "a single time decides nothing");
        return AMBIGUOUS;
    }
    /* Samples of one run share its circumstances, so their test says nothing about another run: then the whole interval
     * must lie beyond the threshold. Rounds are each other's repetition. */
    double low = c->paired ? 1 : 1 / t, high = c->paired ? 1 : t;
    if (row->ratio > t && different && row->interval.low > high) return SLOWER;
    if (row->ratio < 1 / t && different && row->interval.high < low) return FASTER;
    if (row->interval.low >= 1 / t && row->interval.high <= t) return SAME;
    if ((row->ratio <= t && row->ratio >= 1 / t) || different) snprintf(row->why, sizeof row->why, "interval wider than the threshold");
    else snprintf(row->why, sizeof row->why, "beyond the threshold, but p = %.2g for all rows together", row->p);
    return AMBIGUOUS;
}

/* ---- all rows ------------------------------------------------------------------------------------------------ */

static bool is_peer(const char *name) { return strstr(name, "/peer:") != NULL; }

static bool judge_exact(const comparison *c, row_result *row, const rules *r)
{
    bool timed = true;
    for (int i = 0; i < c->base->rounds && row->verdict == SAME; i++) {
        const timed_row *a = row_find(&c->base->files[i], row->name), *b = row_find(&c->now->files[i], row->name);
        if (a && b) row->verdict = without_times(a, b, r, row->why);
        else if (a) row->verdict = MISSING;
        else if (b && b->failed && !is_skip(b)) row->verdict = without_times(b, b, r, row->why);
        else if (b) row->verdict = i == 0 ? ADDED : MISSING;
        else row->verdict = MISSING;
    }
    if (row->verdict == MISSING) snprintf(row->why, sizeof row->why, c->base->rounds > 1 ? "not in every round" : "only in the base");
    timed = row->verdict == SAME || row->verdict == CHANGED;
    if (!timed || c->base->rounds == 1) return timed;
    for (int i = 0; i < c->base->rounds; i++) { /* CHANGED in round 1: the others were not looked at */
        const timed_row *a = row_find(&c->base->files[i], row->name), *b = row_find(&c->now->files[i], row->name);
        if (!a || !b || a->failed || b->failed) return false;
    }
    return true;
}

static bool judge_all(comparison *c, const rules *r)
{
    double *p = malloc(((size_t)c->count + 1) * sizeof *p);
    int *index = malloc(((size_t)c->count + 1) * sizeof *index), tests = 0;
    bool ok = p && index;
    for (int i = 0; ok && i < c->count; i++) {
        row_result *row = &c->rows[i];
        row->p = 1;
        if (!judge_exact(c, row, r)) continue;
        if (c->paired) ok = measure_paired(c, row);
        else measure_separate(row_find(c->base->files, row->name), row_find(c->now->files, row->name), row);
        if (is_peer(row->name)) row->verdict = CONTROL;
        else index[tests] = i, p[tests++] = row->p;
    }
    ok = ok && stats_holm(p, tests);
    for (int i = 0; ok && i < tests; i++) {
        row_result *row = &c->rows[index[i]];
        row->p = p[i];
        if (row->verdict == SAME) row->verdict = by_times(c, row);
    }
    /* The smallest p that n pairs can show is 2^(1-n). */
    int needed = 1 + (int)ceil(log2((tests ? tests : 1) / c->alpha));
    if (ok && c->paired && c->base->rounds < needed)
        note(c, "%d rounds cannot prove a difference among %d rows: at least %d are needed\n", c->base->rounds, tests, needed);
    free(p);
    free(index);
    return ok;
}

static int by_name(const void *a, const void *b) { return strcmp(((const row_result *)a)->name, ((const row_result *)b)->name); }

/* Every name of the first round, of both sides. */
static bool gather(comparison *c)
{
    const result_file *a = c->base->files, *b = c->now->files;
    c->rows = calloc((size_t)a->count + (size_t)b->count, sizeof *c->rows);
    if (!c->rows) return false;
    for (int i = 0; i < a->count; i++) c->rows[c->count++].name = a->rows[i].name;
    for (int i = 0; i < b->count; i++)
        if (!row_find(a, b->rows[i].name)) c->rows[c->count++].name = b->rows[i].name;
    qsort(c->rows, (size_t)c->count, sizeof *c->rows, by_name);
    return true;
}

static void find_drift(comparison *c)
{
    double *v = malloc(((size_t)c->count + 1) * sizeof *v);
    int n = 0;
    for (int i = 0; v && i < c->count; i++)
        if (c->rows[i].verdict == CONTROL) v[n++] = c->rows[i].ratio;
    if (n) c->drift = stats_median(v, n);
    free(v);
    if (n && fabs(log(c->drift)) > log1p(c->threshold))
        note(c, "the peers, which did not change, moved by %+.1f %%: the machine changed between the runs\n", 100 * (c->drift - 1));
}

static int conclude(comparison *c, const rules *r)
{
    for (int i = 0; i < c->count; i++) {
        verdict *v = &c->rows[i].verdict;
        /* A peer that could not run on one side is no regression of ours. */
        if (is_peer(c->rows[i].name) && *v != CONTROL && *v != ADDED) *v = SKIPPED;
        if (*v == MISSING && (r->allow & ALLOW_MISSING)) *v = SKIPPED;
        c->of[*v]++;
    }
    if (c->of[SLOWER] + c->of[CHANGED] + c->of[BROKEN]) return COMPARE_REGRESSION;
    if (c->of[INCOMPARABLE] + c->of[MISSING]) return COMPARE_CANNOT;
    return c->of[AMBIGUOUS] ? COMPARE_AMBIGUOUS : COMPARE_PASS;
}

bool compare(const side *base, const side *now, const rules *r, comparison *c, char why[WHY])
{
    *c = (comparison){.paired = base->folder, .turns = base->folder && r->turns, .base = base, .now = now, .alpha = r->alpha,
                      .threshold = r->threshold > 0 ? r->threshold : base->folder ? paired_threshold : separate_threshold};
    if (!comparable(c, r, why)) return false;
    if (!gather(c) || !judge_all(c, r)) {
        snprintf(why, WHY, "no memory");
        return false;
    }
    if (!c->paired) note(c, "two separate runs: what changed in the machine between them is in the ratios (make ab interleaves them)\n");
    find_drift(c);
    c->exit_status = conclude(c, r);
    if (c->count == c->of[ADDED] + c->of[SKIPPED] + c->of[CONTROL] + c->of[MISSING]) {
        snprintf(why, WHY, "no row could be compared: %d only in the base, %d only in the new run, %d not timed or peers",
                 c->of[MISSING], c->of[ADDED], c->of[SKIPPED] + c->of[CONTROL]);
        return false;
    }
    return true;
}

void comparison_free(comparison *c) { free(c->rows); }
