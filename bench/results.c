/* results.c: rows to JSON and to a table (results.h).
 *
 * The rows are played back through Google Benchmark, which writes the report:
 * one benchmark a row, its samples as iterations, its median as manual time. So
 * the file has that library's format whatever its version, and each write is a
 * whole report of what is known by then. */
#include "bench/results.h"

#include "bench/gbench.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- rows ----------------------------------------------------------------------------- */

static bool make_folder(const char *path)
{
    char part[4096];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return false;
    }
    return mkdir(part, 0777) == 0 || errno == EEXIST;
}

bool results_open(results *r, const char *folder, char why[TIMING_WHY])
{
    memset(r, 0, sizeof *r);
    snprintf(r->folder, sizeof r->folder, "%s", folder);
    if (strlen(folder) + 32 < sizeof r->folder && make_folder(folder) && access(folder, W_OK | X_OK) == 0) return true;
    snprintf(why, TIMING_WHY, "%.200s cannot be made or written to: %s", folder, strerror(errno));
    return false;
}

void results_close(results *r)
{
    free(r->rows);
    json_decref(r->context);
}

bool results_add(results *r, const bench_row *row)
{
    if (r->count == r->room) {
        int room = r->room ? 2 * r->room : 64;
        bench_row *more = realloc(r->rows, (size_t)room * sizeof *more);
        if (!more) return false;
        r->rows = more, r->room = room;
    }
    r->rows[r->count++] = *row;
    return true;
}

int results_failures(const results *r)
{
    int n = 0;
    for (int i = 0; i < r->count; i++) n += r->rows[i].verdict == ROW_FAILED || r->rows[i].verdict == ROW_ABOVE_ROOF;
    return n;
}

static bool was_timed(const bench_row *row) { return row->verdict == ROW_TIMED || row->verdict == ROW_ABOVE_ROOF; }
static double bytes_of(const bench_row *row) { return row->cost.read + row->cost.written; }

double results_copy_bw(const results *r, const bench_row *row) { return row->copy_bw > 0 ? row->copy_bw : r->ceilings.copy_bw; }
double results_read_bw(const results *r, const bench_row *row) { return row->read_bw > 0 ? row->read_bw : r->ceilings.read_bw; }

static void widen(double range[2], double value)
{
    if (!(range[0] > 0) || value < range[0]) range[0] = value;
    if (value > range[1]) range[1] = value;
}

int results_bandwidths(const results *r, bandwidth_range *seen)
{
    int count = 0;
    *seen = (bandwidth_range){{0, 0}, {0, 0}};
    for (int i = 0; i < r->count; i++) {
        if (!(r->rows[i].copy_bw > 0) || !(r->rows[i].read_bw > 0)) continue;
        widen(seen->copy, r->rows[i].copy_bw), widen(seen->read, r->rows[i].read_bw);
        count++;
    }
    return count;
}

static double pct_of(const bench_row *row, double bandwidth) { return 100 * bytes_of(row) / row->stats.median / bandwidth; }
static double pct_peak(const results *r, const bench_row *row)
{
    return 100 * row->cost.flops / row->stats.median / r->ceilings.gemm_peak;
}

/* ---- JSON ------------------------------------------------------------------------------- */

typedef struct played {
    const results *r;
    const bench_row *row;
} played;

static void play(gb_state *state, void *user)
{
    const played *p = user;
    const bench_row *row = p->row;
    gb_label(state, row->label);
    if (!was_timed(row)) {
        char reason[TIMING_WHY + 16];
        snprintf(reason, sizeof reason, "%s: %s", row->verdict == ROW_FAILED ? "FAILED" : "skipped", row->why);
        gb_skip_with_error(state, reason);
        return;
    }
    while (gb_keep_running(state)) gb_set_iteration_time(state, row->stats.median);
    double seconds = row->stats.median;
    gb_counter(state, "bytes", bytes_of(row), GB_PLAIN);
    gb_counter(state, "GB_s", bytes_of(row) / seconds * 1e-9, GB_PLAIN);
    const double copy_bw = results_copy_bw(p->r, row), read_bw = results_read_bw(p->r, row);
    if (copy_bw > 0) gb_counter(state, "pct_copy_bw", pct_of(row, copy_bw), GB_PLAIN);
    if (read_bw > 0) gb_counter(state, "pct_read_bw", pct_of(row, read_bw), GB_PLAIN);
    if (row->copy_bw > 0) gb_counter(state, "copy_bw_GB_s", row->copy_bw * 1e-9, GB_PLAIN);
    if (row->read_bw > 0) gb_counter(state, "read_bw_GB_s", row->read_bw * 1e-9, GB_PLAIN);
    if (row->cost.flops > 0) {
        gb_counter(state, "flops", row->cost.flops, GB_PLAIN);
        gb_counter(state, "TFLOP_s", row->cost.flops / seconds * 1e-12, GB_PLAIN);
        if (p->r->ceilings.gemm_peak > 0) gb_counter(state, "pct_gemm_peak", pct_peak(p->r, row), GB_PLAIN);
    }
    gb_counter(state, "p10_us", row->stats.p10 * 1e6, GB_PLAIN);
    gb_counter(state, "p50_us", row->stats.median * 1e6, GB_PLAIN);
    gb_counter(state, "p90_us", row->stats.p90 * 1e6, GB_PLAIN);
    gb_counter(state, "min_us", row->stats.min * 1e6, GB_PLAIN);
    gb_counter(state, "samples", row->stats.samples, GB_PLAIN);
    if (row->stats.samples >= 6) gb_counter(state, "spread_pct", 100 * row->stats.spread, GB_PLAIN);
    gb_counter(state, "bits_per_weight", row->bits_per_weight, GB_PLAIN);
    gb_counter(state, "cold", !row->hot, GB_PLAIN);
    if (row->sm_clock_max > 0) gb_counter(state, "sm_clock_min_MHz", row->sm_clock_min, GB_PLAIN);
    if (row->sm_clock_max > 0) gb_counter(state, "sm_clock_max_MHz", row->sm_clock_max, GB_PLAIN);
    for (int i = 0; i < row->ratios; i++) {
        char name[48];
        snprintf(name, sizeof name, "x_%s", row->ratio[i].peer);
        gb_counter(state, name, row->ratio[i].x, GB_PLAIN);
    }
}

/* fourbit-compare's tests need them; one line of text, as an array would be a line a number. */
static void add_samples(json_t *b, const bench_row *row)
{
    char text[ROW_TIMES * 24];
    size_t used = 0;
    if (row->stats.samples > ROW_TIMES) return;
    for (int i = 0; i < row->stats.samples; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.7g", i ? " " : "", row->times[i] * 1e6);
    if (used) json_object_set_new(b, "samples_us", json_string(text));
}

/* What the library cannot know: the name without the iteration count it appends
 * (compare.py matches names), the processor time of the calls, and their place. */
static void patch(json_t *report, const results *r, bool complete, bool interrupted)
{
    json_t *context = json_object_get(report, "context"), *list = json_object_get(report, "benchmarks");
    const char *path = json_string_value(json_object_get(context, "executable"));
    if (path) {
        const char *slash = strrchr(path, '/');
        provenance_set(context, "executable", "%s", slash ? slash + 1 : path);
    }
    if (r->context) json_object_update(context, r->context);
    provenance_set(context, "copy_bw_GB_s", "%.4g", r->ceilings.copy_bw * 1e-9);
    provenance_set(context, "copy_bw_by", "%s", r->ceilings.copy_by ? r->ceilings.copy_by : "not measured");
    provenance_set(context, "read_bw_GB_s", "%.4g", r->ceilings.read_bw * 1e-9);
    provenance_set(context, "gemm_fp32_TFLOP_s", "%.4g", r->ceilings.fp32_gemm * 1e-12);
    provenance_set(context, "fma_peak_TFLOP_s", "%.4g", r->ceilings.fma_peak * 1e-12);
    provenance_set(context, "bf16_peak_TFLOP_s", "%.4g", r->ceilings.bf16_peak * 1e-12);
    provenance_set(context, "bf16_peak_by", "%s", r->ceilings.bf16_by ? r->ceilings.bf16_by : "not measured");
    provenance_set(context, "gemm_peak_TFLOP_s", "%.4g", r->ceilings.gemm_peak * 1e-12);
    bandwidth_range seen;
    if (r->start_copy_bw > 0) {
        provenance_set(context, "copy_bw_start_GB_s", "%.4g", r->start_copy_bw * 1e-9);
        provenance_set(context, "read_bw_start_GB_s", "%.4g", r->start_read_bw * 1e-9);
    }
    if (results_bandwidths(r, &seen)) {
        provenance_set(context, "copy_bw_seen_GB_s", "%.4g to %.4g", seen.copy[0] * 1e-9, seen.copy[1] * 1e-9);
        provenance_set(context, "read_bw_seen_GB_s", "%.4g to %.4g", seen.read[0] * 1e-9, seen.read[1] * 1e-9);
    }
    json_object_set_new(context, "complete", json_boolean(complete));
    json_object_set_new(context, "interrupted", json_boolean(interrupted));
    for (int i = 0; i < r->count; i++) {
        json_t *b = json_array_get(list, (size_t)i);
        json_object_set_new(b, "name", json_string(r->rows[i].name));
        json_object_set_new(b, "run_name", json_string(r->rows[i].name));
        if (was_timed(&r->rows[i])) {
            json_object_set_new(b, "cpu_time", json_real(r->rows[i].cpu_seconds * 1e6));
            add_samples(b, &r->rows[i]);
        }
        if (r->rows[i].hashed) {
            char hash[24];
            snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->rows[i].output_hash);
            json_object_set_new(b, "output_hash", json_string(hash));
        }
        if (r->rows[i].verdict == ROW_ABOVE_ROOF) json_object_set_new(b, "above_roofline", json_string(r->rows[i].why));
    }
}

static json_t *report(const results *r, char *why)
{
    played *all = calloc((size_t)r->count + 1, sizeof *all);
    json_error_t error;
    json_t *made = NULL;
    char *text = NULL;
    gb_clear();
    bool ok = all != NULL;
    for (int i = 0; ok && i < r->count; i++) {
        all[i] = (played){r, &r->rows[i]};
        int samples = r->rows[i].stats.samples;
        ok = gb_register(&(gb_benchmark){.name = r->rows[i].name, .function = play, .user = &all[i],
                                         .iterations = samples > 0 ? samples : 1, .manual_time = true});
    }
    if (ok && r->count == 0) made = json_pack("{s:{}, s:[]}", "context", "benchmarks");
    else if (ok && (text = gb_run_json(NULL))) made = json_loads(text, 0, &error);
    if (!made) snprintf(why, TIMING_WHY, "the report could not be made: %s", text ? error.text : gb_last_error());
    gb_clear();
    free(text);
    free(all);
    return made;
}

/* What dashboards of CI services read: smaller is better. */
static json_t *tracking(const results *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->count; i++) {
        const bench_row *row = &r->rows[i];
        if (!was_timed(row)) continue;
        char range[64], extra[512];
        snprintf(range, sizeof range, "%.4g - %.4g", row->stats.p10 * 1e6, row->stats.p90 * 1e6);
        snprintf(extra, sizeof extra, "%d samples, %.4g GB/s; %.300s", row->stats.samples,
                 bytes_of(row) / row->stats.median * 1e-9, row->label);
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:s, s:s}", "name", row->name, "unit", "us", "value",
                                              row->stats.median * 1e6, "range", range, "extra", extra));
    }
    return list;
}

static bool replace(const char *folder, const char *name, const json_t *value, char *why)
{
    char path[4200], temporary[4220];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid());
    if (json_dump_file(value, temporary, JSON_INDENT(1)) == 0 && rename(temporary, path) == 0) return true;
    snprintf(why, TIMING_WHY, "%.200s/%s could not be written: %s", folder, name, strerror(errno));
    unlink(temporary);
    return false;
}

bool results_write(const results *r, bool complete, bool interrupted, char why[TIMING_WHY])
{
    json_t *all = report(r, why);
    if (!all) return false;
    patch(all, r, complete, interrupted);
    json_t *list = tracking(r);
    bool ok = replace(r->folder, "bench.json", all, why) && replace(r->folder, "bench-tracking.json", list, why);
    json_decref(all);
    json_decref(list);
    return ok;
}
