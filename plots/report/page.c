/* page.c: the page (report.h). What comes from a file goes through html_text; fprintf is for literals and numbers. */
#include "report.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page.css.inc" /* page_css, page_js: made from the files by build.mk */
#include "page.js.inc"

#define DASH "\xe2\x80\x93"
#define TIMES "\xc3\x97"

/* ---- pieces ---------------------------------------------------------------------------------------- */

static void cell(FILE *to, const char *class, const char *text)
{
    fprintf(to, "<td%s%s%s>", *class ? " class=\"" : "", class, *class ? "\"" : "");
    html_text(to, *text ? text : DASH);
    fputs("</td>", to);
}

/* columns: "Name" or "#Name" for numbers, ending with NULL. */
static void table_begin(FILE *to, const char *about, const char *const *columns)
{
    fprintf(to, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table class=\"data\"><thead><tr>", about);
    for (; *columns; columns++) {
        bool number = **columns == '#';
        fprintf(to, "<th scope=\"col\"%s>", number ? " class=\"n\"" : "");
        html_text(to, *columns + number);
        fputs("</th>", to);
    }
    fputs("</tr></thead><tbody>\n", to);
}
static void table_end(FILE *to) { fputs("</tbody></table></div>\n", to); }

static void tag(FILE *to, const char *class, const char *text)
{
    fprintf(to, "<span class=\"tag %s\">", class);
    html_text(to, text);
    fputs("</span>", to);
}

static const char *verdict_class(const char *verdict)
{
    static const char *const bad[] = {"SLOWER", "CHANGED", "BROKEN", "INCOMPARABLE", "MISSING", "regression", "cannot compare"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (strcasecmp(verdict, bad[i]) == 0) return "bad";
    return strcasecmp(verdict, "faster") == 0 || strcmp(verdict, "pass") == 0 ? "good" : strcasecmp(verdict, "ambiguous") == 0 ? "warn" : "";
}

/* Whether this peer was timed beside the operation. */
static bool has_ratio(const report *r, const char *op, int peer)
{
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].op, op) == 0 && r->rows[i].x[peer] > 0) return true;
    return false;
}

static void ratio_cell(FILE *to, double x)
{
    if (!(x > 0)) fputs("<td class=\"n\">" DASH "</td>", to);
    else fprintf(to, "<td class=\"n%s\">%.2f" TIMES "</td>", x > 1.05 ? " up" : x < 0.95 ? " down" : "", x);
}

/* ---- counts -------------------------------------------------------------------------------------------- */

typedef struct tally {
    int rows, timed, failed, skipped, above;
} tally;

static tally count_rows(const report *r, const char *op, const char *backend)
{
    tally t = {0};
    for (int i = 0; i < r->count; i++) {
        const bench_row *row = &r->rows[i];
        if ((op && strcmp(row->op, op) != 0) || (backend && strcmp(row->backend, backend) != 0)) continue;
        t.rows++;
        t.timed += row->state == ROW_TIMED || row->state == ROW_ABOVE_ROOF;
        t.failed += row->state == ROW_FAILED, t.skipped += row->state == ROW_SKIPPED, t.above += row->state == ROW_ABOVE_ROOF;
    }
    return t;
}

/* Whether row i is the first with its operation (and backend). */
static bool is_first(const report *r, int i, bool with_backend)
{
    for (int j = 0; j < i; j++)
        if (strcmp(r->rows[j].op, r->rows[i].op) == 0 && (!with_backend || strcmp(r->rows[j].backend, r->rows[i].backend) == 0)) return false;
    return true;
}

/* ---- head -------------------------------------------------------------------------------------------------- */

static void navigation(const report *r, FILE *to)
{
    fputs("<nav aria-label=\"sections\"><ul>", to);
    if (r->bench) fputs("<li><a href=\"#summary\">Summary</a></li>", to);
    if (r->verdict) fputs("<li><a href=\"#verdict\">Verdict</a></li>", to);
    if (r->plot_count) fputs("<li><a href=\"#pictures\">Pictures</a></li>", to);
    for (int i = 0; i < r->count; i++)
        if (is_first(r, i, false)) {
            fprintf(to, "<li><a href=\"#k%d\">", i);
            html_text(to, r->rows[i].op);
            fputs("</a></li>", to);
        }
    if (r->error_count) fputs("<li><a href=\"#error\">Error</a></li>", to);
    if (r->resources.count) fputs("<li><a href=\"#resources\">Resources</a></li>", to);
    if (r->counters.count) fputs("<li><a href=\"#counters\">Counters</a></li>", to);
    if (r->bench) fputs("<li><a href=\"#provenance\">Provenance</a></li>", to);
    fputs("</ul></nav>\n", to);
}

static void tile(FILE *to, const char *class, const char *value, const char *unit, const char *name)
{
    if (!*value) return;
    fprintf(to, "<li%s%s%s><b>", *class ? " class=\"" : "", class, *class ? "\"" : "");
    html_text(to, value);
    if (*unit) fprintf(to, "<small>%s</small>", unit);
    fprintf(to, "</b><span>%s</span></li>", name);
}

static void tiles(const report *r, FILE *to)
{
    char text[160];
    tally t = count_rows(r, NULL, NULL);
    const char *word = json_string_value(json_object_get(r->verdict, "verdict"));
    fputs("<ul class=\"tiles\">", to);
    if (r->verdict) tile(to, verdict_class(word), word, "", "verdict against the base");
    if (r->bench) {
        snprintf(text, sizeof text, "%d", t.timed);
        tile(to, "", text, "", "rows checked and timed");
        snprintf(text, sizeof text, "%d", t.failed + t.above);
        tile(to, t.failed + t.above ? "bad" : "", text, "", "rows failed");
        snprintf(text, sizeof text, "%d", t.skipped);
        tile(to, "", text, "", "peer rows skipped");
        tile(to, "", report_context(r, "copy_bw_GB_s"), "GB/s", "copy bandwidth, read + written");
        tile(to, "", report_context(r, "gemm_peak_TFLOP_s"), "TFLOP/s", "GEMM peak");
        tile(to, "", report_context(r, "threads"), "", "threads");
    } else {
        snprintf(text, sizeof text, "%d", r->error_count);
        tile(to, "", text, "", "rows of quantization error");
    }
    fputs("</ul>\n", to);
}

static void note(FILE *to, int *notes, const char *text)
{
    fprintf(to, "%s<li>%s</li>\n", (*notes)++ ? "" : "<ul class=\"notes\">\n", text);
}

/* What is missing, and what a reader must know before he believes a figure. */
static void notes(const report *r, FILE *to)
{
    int n = 0;
    char text[300];
    size_t length = strlen(report_context(r, "commit"));
    const json_t *complete = json_object_get(r->context, "complete");
    if (r->bench && json_is_true(json_object_get(r->context, "interrupted"))) note(to, &n, "The run was interrupted: cases that it did not reach are missing.");
    else if (r->bench && !json_is_true(complete)) note(to, &n, complete ? "The run did not end: cases are missing." : "The file does not say whether the run ended.");
    if (length > 6 && strcmp(report_context(r, "commit") + length - 6, "-dirty") == 0) note(to, &n, "The tree had uncommitted changes.");
    double load = strtod(report_context(r, "load_at_start"), NULL), cores = strtod(report_context(r, "cpu_cores"), NULL);
    if (cores > 0 && load > 0.5 * cores) {
        snprintf(text, sizeof text, "The machine was busy with other work (load %.1f on %.0f cores): times are higher and intervals wider than they need be.", load, cores);
        note(to, &n, text);
    }
    if (r->bench && !(r->copy_bw > 0) && !(r->gemm_peak > 0)) note(to, &n, "The run measured no ceilings: there is no roofline position.");
    if (!r->bench) note(to, &n, "No bench.json: no timings (<code>make bench</code> takes them).");
    else if (!r->count) note(to, &n, "bench.json has no rows.");
    if (!r->error_count) note(to, &n, r->errors ? "error.csv has no rows." : "No error.csv: no quantization error (<code>make validate</code> measures it).");
    if (!r->plot_count) note(to, &n, "No plots/*.svg: no pictures (<code>make plots</code> draws them).");
    if (!r->verdict) note(to, &n, "No verdict.json: compared with no other run (<code>make compare</code>).");
    if (!r->resources.count) note(to, &n, "No resources.txt: no registers and spills of kernels.");
    if (r->errors_left_out) {
        snprintf(text, sizeof text, "error.csv is long: the sum over tensors (TOTAL) is here, %d rows of single tensors are not.", r->errors_left_out);
        note(to, &n, text);
    }
    if (r->peers_left_out) note(to, &n, "More peers than the page has columns for; bench.json has them all.");
    if (n) fputs("</ul>\n", to);
}

static void head(const report *r, const char *title, FILE *to)
{
    if (!title) title = r->bench ? "fourbit benchmark" : "fourbit quantization error";
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>", to);
    html_text(to, title);
    fprintf(to, "</title>\n<style>\n%s</style></head>\n<body><header><h1>", page_css);
    html_text(to, title);
    fputs("</h1>\n<p class=\"quiet\">", to);
    static const char *const keys[] = {"cpu_name", "gpu_name", "date", "commit"};
    for (size_t i = 0, n = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = report_context(r, keys[i]);
        if (!*text) continue;
        fputs(n++ ? " \xc2\xb7 " : "", to);
        fputs(strcmp(keys[i], "commit") == 0 ? "commit " : "", to);
        html_text(to, text);
    }
    fputs("</p></header>\n", to);
}

/* ---- summary ------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Geometric mean of the ratios to a peer, and in how many of them ours is faster. */
static void summary_ratio(const report *r, const bench_row *first, int peer, FILE *to)
{
    double sum = 0;
    int n = 0, won = 0;
    for (int i = 0; i < r->count; i++) {
        const bench_row *row = &r->rows[i];
        double x = row->x[peer];
        if (strcmp(row->op, first->op) != 0 || strcmp(row->backend, first->backend) != 0 || !(x > 0)) continue;
        sum += log(x), n++, won += x > 1;
    }
    if (!n) fputs("<td class=\"n\">" DASH "</td>", to);
    else fprintf(to, "<td class=\"n%s\">%.2f" TIMES " <small>%d of %d</small></td>", exp(sum / n) > 1.05 ? " up" : exp(sum / n) < 0.95 ? " down" : "", exp(sum / n), won, n);
}

static void summary_verdicts(const report *r, const bench_row *first, FILE *to)
{
    static const char *const order[] = {"BROKEN", "CHANGED", "SLOWER", "INCOMPARABLE", "MISSING", "ambiguous", "faster", "same", "added"};
    fputs("<td>", to);
    for (size_t k = 0; k < sizeof order / sizeof *order; k++) {
        int n = 0;
        char text[40];
        for (int i = 0; i < r->count; i++)
            n += r->rows[i].verdict && strcmp(r->rows[i].op, first->op) == 0 && strcmp(r->rows[i].backend, first->backend) == 0 &&
                 strcasecmp(json_string_value(json_object_get(r->rows[i].verdict, "verdict")), order[k]) == 0;
        snprintf(text, sizeof text, "%d %s", n, order[k]);
        if (n) tag(to, verdict_class(order[k]), text), fputc(' ', to);
    }
    fputs("</td>", to);
}

static void summary_row(const report *r, int at, FILE *to)
{
    const bench_row *first = &r->rows[at];
    tally t = count_rows(r, first->op, first->backend);
    double *roofs = malloc((size_t)r->count * sizeof *roofs), best = NAN, median = NAN;
    int n = 0;
    for (int i = 0; roofs && i < r->count; i++)
        if (isfinite(r->rows[i].roof) && strcmp(r->rows[i].op, first->op) == 0 && strcmp(r->rows[i].backend, first->backend) == 0) roofs[n++] = r->rows[i].roof;
    if (n) qsort(roofs, (size_t)n, sizeof *roofs, by_value), best = roofs[n - 1], median = n % 2 ? roofs[n / 2] : (roofs[n / 2 - 1] + roofs[n / 2]) / 2;
    free(roofs);
    fputs("<tr><td>", to);
    html_text(to, first->op);
    fputs("</td>", to);
    cell(to, "", first->backend);
    fprintf(to, "<td class=\"n\">%d</td><td>", t.rows);
    if (t.failed) tag(to, "bad", "FAILED"), fprintf(to, " %d ", t.failed);
    if (t.above) tag(to, "bad", "above the roof"), fprintf(to, " %d ", t.above);
    if (!t.failed && !t.above) tag(to, "good", "all right");
    fputs("</td>", to);
    html_bar(to, median, "%");
    html_bar(to, best, "%");
    for (int p = 0; p < r->peer_count; p++) summary_ratio(r, first, p, to);
    if (r->verdict) summary_verdicts(r, first, to);
    fputs("</tr>\n", to);
}

static void summary(const report *r, FILE *to)
{
    const char *columns[8 + PEERS] = {"Operation", "Backend", "#Rows", "Checks", "#Roof, median", "#Roof, best"};
    char heads[PEERS][80];
    int n = 6;
    for (int p = 0; p < r->peer_count; p++) snprintf(heads[p], sizeof heads[p], "#against %.60s", r->peers[p]), columns[n++] = heads[p];
    if (r->verdict) columns[n++] = "Verdict against the base";
    fputs("<section id=\"summary\"><h2>Summary</h2>\n<p>Each row was checked against the reference before it was timed. <em>Roof</em>: the least time that this "
          "machine\xe2\x80\x99s measured copy bandwidth and GEMM peak allow, over the median. <em>Against</em> a peer: its median over ours, timed in the same "
          "rounds: above 1 ours is faster (geometric mean, and in how many rows it is).</p>\n", to);
    table_begin(to, "summary", columns);
    for (int i = 0; i < r->count; i++)
        if (!r->rows[i].peer && is_first(r, i, true)) summary_row(r, i, to);
    table_end(to);
    fputs("</section>\n", to);
}

/* ---- an operation --------------------------------------------------------------------------------------------------- */

static const struct { const char *op, *about; } operations[] = {
    {"quantize", "Dense weights to 4-bit codes and scales. Reads the dense matrix, writes the quantized one: memory is its roof."},
    {"dequantize", "4-bit codes and scales to dense weights. Reads the quantized matrix, writes the dense one: memory is its roof."},
    {"gemm", "Y = X\xc2\xb7W\xe1\xb5\x80 on weights that stay quantized (M = 1: one token). Reads them once; memory is the roof at small M, arithmetic at large."},
    {"gemm_dx", "dX = dY\xc2\xb7W, the backward pass through frozen quantized weights."},
    {"lora", "A layer with a low-rank adapter: gemm's product and the adapter's in one call; x base is gemm's time over it."},
    {"lora_backward", "Its gradients dX, dA and dB in one call; x base is gemm_dx's time over it."},
    {"other", "Rows with names of another form."}};

static void state_cell(const report *r, const bench_row *row, FILE *to)
{
    if (row->state != ROW_TIMED) {
        fputs("<td class=\"why\">", to);
        tag(to, row->state == ROW_SKIPPED ? "warn" : "bad", row->state == ROW_SKIPPED ? "skipped" : row->state == ROW_FAILED ? "FAILED" : "above the roof");
        fputc(' ', to);
        html_text(to, row->why);
    } else {
        fputs("<td>", to);
        if (row->verdict) {
            const char *verdict = json_string_value(json_object_get(row->verdict, "verdict"));
            tag(to, verdict_class(verdict), verdict);
            double change = 100 * (json_number_value(json_object_get(row->verdict, "ratio")) - 1);
            if (change > -100) fprintf(to, " <small>%+.1f %%</small>", change);
        } else fputs(row->peer ? "" : r->verdict ? "not compared" : "checked", to);
    }
    fputs("</td>", to);
}

static void row_cells(const report *r, const bench_row *row, bool flops, bool sqnr, FILE *to)
{
    char block[40];
    fprintf(to, "<tr%s title=\"", row->peer ? " class=\"peer\"" : "");
    html_text(to, row->name);
    fputs(*row->label ? ": " : "", to);
    html_text(to, row->label);
    fputs("\">", to);
    cell(to, "", row->backend);
    cell(to, "", row->format);
    snprintf(block, sizeof block, "%.39s", *row->block == 'b' ? row->block + 1 : row->block);
    cell(to, "", block);
    cell(to, "mono", row->shape);
    html_number(to, row->median, row->median < 100 ? 2 : row->median < 1000 ? 1 : 0);
    for (int p = 0; p < r->peer_count; p++)
        if (has_ratio(r, row->op, p)) ratio_cell(to, row->x[p]);
    html_bar(to, row->roof, row->arithmetic ? "arith." : "mem.");
    state_cell(r, row, to);
    if (row->p10 > 0 && row->state != ROW_FAILED && row->state != ROW_SKIPPED) fprintf(to, "<td class=\"n\">%.*f" DASH "%.*f</td>", row->p90 < 100, row->p10, row->p90 < 100, row->p90);
    else fputs("<td class=\"n\">" DASH "</td>", to);
    html_number(to, row->spread, 1);
    html_number(to, row->gb_s, 2);
    html_bar(to, row->copy_share, "");
    if (flops) html_number(to, row->tflop_s, 4), html_bar(to, row->gemm_share, "");
    html_number(to, row->bits, 2);
    if (sqnr) html_number(to, row->peer && row->bits > 31 ? NAN : row->sqnr, 1);
    fputs("</tr>\n", to);
}

/* Each backend once, with the words that its first row's label has for how it works. */
static void who(const report *r, const char *op, FILE *to)
{
    fputs("<dl class=\"who\">", to);
    for (int i = 0; i < r->count; i++) {
        const bench_row *row = &r->rows[i];
        const char *how = strstr(row->label, ": ");
        if (strcmp(row->op, op) != 0 || !*row->backend || !how || !is_first(r, i, true)) continue;
        fputs("<dt>", to);
        html_text(to, row->backend);
        fputs("</dt><dd>", to);
        html_text(to, how + 2);
        fputs("</dd>", to);
    }
    fputs("</dl>\n", to);
}

/* Whether a figure's name is a kernel of this operation: "gemm_sm80" and "gemm:1" of gemm, "gemm_dx" and "gemm8" not. */
static bool is_of(const report *r, const char *name, const char *op)
{
    size_t n = strlen(op);
    if (strncmp(name, op, n) != 0 || isalnum((unsigned char)name[n])) return false;
    for (int i = 0; i < r->count; i++)
        if (strlen(r->rows[i].op) > n && strncmp(name, r->rows[i].op, strlen(r->rows[i].op)) == 0) return false;
    return true;
}

static bool all_numbers(const figures *f, int key)
{
    for (int i = 0; i < f->count; i++) {
        char *end = "";
        if (f->line[i].value[key]) strtod(f->line[i].value[key], &end);
        if (*end) return false;
    }
    return true;
}

/* op: only its kernels; NULL: all. */
static void figures_table(const report *r, const figures *f, const char *about, const char *op, FILE *to)
{
    const char *columns[KEYS + 2] = {"Name"};
    char heads[KEYS][64];
    for (int k = 0; k < f->keys; k++) snprintf(heads[k], sizeof heads[k], "%s%.60s", all_numbers(f, k) ? "#" : "", f->key[k]), columns[k + 1] = heads[k];
    table_begin(to, about, columns);
    for (int i = 0; i < f->count; i++) {
        if (op && !is_of(r, f->line[i].name, op)) continue;
        fputs("<tr>", to);
        cell(to, "mono", f->line[i].name);
        for (int k = 0; k < f->keys; k++) cell(to, *columns[k + 1] == '#' ? "n" : "mono", f->line[i].value[k] ? f->line[i].value[k] : "");
        fputs("</tr>\n", to);
    }
    table_end(to);
}

static void operation(const report *r, int first, FILE *to)
{
    const char *op = r->rows[first].op, *columns[16 + PEERS] = {"Backend", "Format", "Block", "Shape", "#Median \xc2\xb5s"};
    char heads[PEERS][80];
    bool flops = false, sqnr = false, has_resources = false;
    int n = 5;
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].op, op) == 0) flops = flops || isfinite(r->rows[i].tflop_s), sqnr = sqnr || isfinite(r->rows[i].sqnr);
    for (int p = 0; p < r->peer_count; p++)
        if (has_ratio(r, op, p)) snprintf(heads[p], sizeof heads[p], "#" TIMES "\xc2\xa0%.60s", r->peers[p]), columns[n++] = heads[p];
    columns[n++] = "#% of roof", columns[n++] = r->verdict ? "Verdict" : "Check";
    columns[n++] = "#p10" DASH "p90", columns[n++] = "#\xc2\xb1 %", columns[n++] = "#GB/s", columns[n++] = "#% of copy";
    if (flops) columns[n++] = "#TFLOP/s", columns[n++] = "#% of GEMM";
    columns[n++] = "#Bits/weight";
    if (sqnr) columns[n++] = "#SQNR dB";
    fprintf(to, "<section id=\"k%d\"><h2>", first);
    html_text(to, op);
    fputs("</h2>\n", to);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strcmp(operations[i].op, op) == 0) fprintf(to, "<p>%s</p>\n", operations[i].about);
    table_begin(to, "timings", columns);
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->rows[i].op, op) == 0) row_cells(r, &r->rows[i], flops, sqnr, to);
    table_end(to);
    who(r, op, to);
    for (int i = 0; i < r->resources.count; i++) has_resources = has_resources || is_of(r, r->resources.line[i].name, op);
    if (has_resources) {
        fputs("<h3>Resources of its kernels</h3>\n", to);
        figures_table(r, &r->resources, "resources", op, to);
    }
    fputs("</section>\n", to);
}

/* ---- the other sections ----------------------------------------------------------------------------------------------- */

static void verdict_row(const json_t *row, FILE *to)
{
    const char *text = json_string_value(json_object_get(row, "verdict")), *why = json_string_value(json_object_get(row, "why"));
    const json_t *ratio = json_object_get(row, "ratio"), *interval = json_object_get(row, "interval_95"), *p = json_object_get(row, "p_adjusted"),
                 *samples = json_object_get(row, "samples"), *us[2] = {json_object_get(row, "base_us"), json_object_get(row, "new_us")};
    fputs("<tr><td>", to);
    tag(to, verdict_class(text), text);
    fputs("</td>", to);
    cell(to, "mono", json_string_value(json_object_get(row, "name")));
    cell(to, "why", why ? why : "");
    for (int k = 0; k < 2; k++) html_number(to, json_is_number(us[k]) ? json_number_value(us[k]) : NAN, 2);
    html_number(to, json_is_number(ratio) ? 100 * (json_number_value(ratio) - 1) : NAN, 1);
    if (json_array_size(interval) == 2)
        fprintf(to, "<td class=\"n\">%+.1f \xe2\x80\xa6 %+.1f</td>", 100 * (json_number_value(json_array_get(interval, 0)) - 1),
                100 * (json_number_value(json_array_get(interval, 1)) - 1));
    else fputs("<td class=\"n\">" DASH "</td>", to);
    html_number(to, json_is_number(p) ? json_number_value(p) : NAN, 4);
    html_number(to, json_is_number(samples) ? json_number_value(samples) : NAN, 0);
    fputs("</tr>\n", to);
}

static void verdict(const report *r, FILE *to)
{
    static const char *const columns[] = {"Verdict", "Row", "Why", "#Base \xc2\xb5s", "#New \xc2\xb5s", "#Change %", "#95 % interval", "#p", "#Samples", NULL};
    static const char *const worst_first[] = {"bad", "warn", "good", ""};
    const char *word = json_string_value(json_object_get(r->verdict, "verdict")), *said = json_string_value(json_object_get(r->verdict, "notes"));
    const json_t *base = json_object_get(r->verdict, "base_commit"), *now = json_object_get(r->verdict, "new_commit"), *row;
    size_t i;
    fputs("<section id=\"verdict\"><h2>Verdict against the base</h2>\n<p>", to);
    tag(to, verdict_class(word), word);
    fputs(" base ", to);
    html_text(to, json_is_string(base) ? json_string_value(base) : "?");
    fputs(", new ", to);
    html_text(to, json_is_string(now) ? json_string_value(now) : "?");
    fprintf(to, "; %s, threshold %.3g %%.</p>\n<p class=\"lines\">", json_is_true(json_object_get(r->verdict, "paired")) ? "interleaved rounds, paired" : "two separate runs",
            100 * json_number_value(json_object_get(r->verdict, "threshold")));
    html_text(to, said ? said : "");
    fputs("</p>\n", to);
    table_begin(to, "verdict on each row", columns);
    for (int class = 0; class < 4; class++)
        json_array_foreach(json_object_get(r->verdict, "rows"), i, row)
            if (strcmp(verdict_class(json_string_value(json_object_get(row, "verdict"))), worst_first[class]) == 0) verdict_row(row, to);
    table_end(to);
    fputs("</section>\n", to);
}

static void pictures(const report *r, FILE *to)
{
    fputs("<section id=\"pictures\"><h2>Pictures</h2>\n<div class=\"pictures\">\n", to);
    for (int i = 0; i < r->plot_count; i++) {
        fputs("<figure>", to);
        if (r->plots[i].svg) fputs(r->plots[i].svg, to);
        fputs("<figcaption>", to);
        html_text(to, r->plots[i].name);
        fputs(r->plots[i].svg ? "</figcaption></figure>\n" : ": left out, the pictures of this folder are too large for one page</figcaption></figure>\n", to);
    }
    fputs("</div></section>\n", to);
}

static void errors(const report *r, FILE *to)
{
    static const char *const columns[] = {"Tensor", "Format", "#Block", "Double quant.", "#Bits/weight", "#SQNR dB", "#MSE", "#MSE expected", "#Off by %", "#MAE", "#Max", NULL};
    fputs("<section id=\"error\"><h2>Quantization error</h2>\n<p>Of quantizing and dequantizing again. <em>Expected</em>: the closed form for a normal "
          "distribution; a difference of more than a per cent or two there is a mistake.</p>\n", to);
    table_begin(to, "quantization error", columns);
    for (int i = 0; i < r->error_count; i++) {
        const error_row *e = &r->errors[i];
        fputs("<tr>", to);
        cell(to, "", e->tensor);
        cell(to, "", e->format);
        fprintf(to, "<td class=\"n\">%.0f</td><td>%s</td>", e->block, e->double_quant > 0 ? "yes" : "no");
        html_number(to, e->bits, 3);
        html_number(to, e->sqnr, 2);
        fprintf(to, "<td class=\"n\">%.5g</td>", e->mse);
        if (isfinite(e->mse_expected)) fprintf(to, "<td class=\"n\">%.5g</td>", e->mse_expected);
        else html_number(to, NAN, 0);
        html_number(to, 100 * (e->mse / e->mse_expected - 1), 2);
        fprintf(to, "<td class=\"n\">%.5g</td><td class=\"n\">%.4g</td></tr>\n", e->mae, e->max_abs);
    }
    table_end(to);
    fputs("</section>\n", to);
}

static void whole_figures(const report *r, const figures *f, const char *id, const char *title, const char *about, FILE *to)
{
    if (!f->count) return;
    fprintf(to, "<section id=\"%s\"><h2>%s</h2>\n<p>%s</p>\n", id, title, about);
    figures_table(r, f, id, NULL, to);
    fputs("</section>\n", to);
}

static int by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void provenance(const report *r, FILE *to)
{
    size_t n = 0, room = json_object_size(r->context);
    const char *key, **keys = malloc((room + 1) * sizeof *keys);
    json_t *value;
    if (!keys) return;
    json_object_foreach((json_t *)r->context, key, value) keys[n++] = key;
    qsort(keys, n, sizeof *keys, by_key);
    fputs("<section id=\"provenance\"><h2>Provenance</h2>\n<div class=\"scroll\"><table class=\"provenance\"><tbody>\n", to);
    for (size_t i = 0; i < n; i++) {
        value = json_object_get(r->context, keys[i]);
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        fputs("<tr><th scope=\"row\">", to);
        html_text(to, keys[i]);
        fputs("</th>", to);
        cell(to, "", text ? text : json_is_string(value) ? json_string_value(value) : "");
        fputs("</tr>\n", to);
        free(text);
    }
    fputs("</tbody></table></div></section>\n", to);
    free(keys);
}

void page_write(const report *r, const char *title, FILE *to)
{
    head(r, title, to);
    navigation(r, to);
    fputs("<main>\n", to);
    tiles(r, to);
    notes(r, to);
    if (r->bench) summary(r, to);
    if (r->verdict) verdict(r, to);
    if (r->plot_count) pictures(r, to);
    for (int i = 0; i < r->count; i++)
        if (is_first(r, i, false)) operation(r, i, to);
    if (r->error_count) errors(r, to);
    whole_figures(r, &r->resources, "resources", "Resources", "What the compiler gave each kernel.", to);
    whole_figures(r, &r->counters, "counters", "Executor counters", "What the SIMT executor counted in each launch; the same in every run.", to);
    if (r->bench) provenance(r, to);
    fputs("<footer>Made by fourbit-report. What the figures mean: bench/README.md.</footer>\n</main>\n<script>\n", to);
    fprintf(to, "%s</script>\n</body></html>\n", page_js);
}
