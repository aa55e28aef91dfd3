/* output.c: a comparison as people, programs and CI services read it (compare.h). */
#include "compare.h"

#include <math.h>
#include <string.h>

const char *exit_name(int status)
{
    static const char *const names[] = {"pass", "regression", "cannot compare", "ambiguous"};
    return names[status];
}

static bool has_ratio(const row_result *r) { return r->ratio > 0; }
static bool has_interval(const row_result *r) { return r->interval.high > 0; }
static double percent(double ratio) { return 100 * (ratio - 1); }

static const char *context_of(const side *s, const char *key)
{
    const char *text = json_string_value(json_object_get(s->files[0].context, key));
    return text ? text : "?";
}

/* Worst news first. */
static const verdict order[VERDICT_COUNT] = {BROKEN, CHANGED, SLOWER, INCOMPARABLE, MISSING, AMBIGUOUS, FASTER, SAME, ADDED, SKIPPED, CONTROL};

/* "2 SLOWER, 45 same" */
static void counts(const comparison *c, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < VERDICT_COUNT; i++)
        if (c->of[order[i]] && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%d %s", used ? ", " : "", c->of[order[i]], verdict_name(order[i]));
}

static void figures(const row_result *r, char ratio[48], char interval[48], char p[24])
{
    snprintf(ratio, 48, has_ratio(r) ? "%+.1f %%" : "-", percent(r->ratio));
    snprintf(interval, 48, has_interval(r) ? "%+.1f ... %+.1f" : "-", percent(r->interval.low), percent(r->interval.high));
    snprintf(p, 24, r->samples ? "%.2g" : "-", r->p);
}

/* ---- table --------------------------------------------------------------------------------------- */

void write_table(const comparison *c, bool changes_only, FILE *to)
{
    char ratio[48], interval[48], p[24], text[300];
    int width = 4;
    for (int i = 0; i < c->count; i++)
        if ((int)strlen(c->rows[i].name) > width) width = (int)strlen(c->rows[i].name);
    fprintf(to, "base %s (%s)\nnew  %s (%s)\n%s, threshold %.3g %%, alpha %.3g for all rows together\n\n",
            context_of(c->base, "commit"), context_of(c->base, "date"), context_of(c->now, "commit"), context_of(c->now, "date"),
            c->turns ? "rounds with samples in turn, paired" : c->paired ? "interleaved rounds, paired" : "two separate runs", 100 * c->threshold, c->alpha);
    fprintf(to, "%-12s %-*s %12s %12s %9s %17s %8s %4s\n", "verdict", width, "row", "base us", "new us", "change", "95 % interval", "p", "n");
    for (int v = 0; v < VERDICT_COUNT; v++)
        for (int i = 0; i < c->count; i++) {
            const row_result *r = &c->rows[i];
            if (r->verdict != order[v] || (changes_only && (r->verdict == SAME || r->verdict >= ADDED))) continue;
            figures(r, ratio, interval, p);
            fprintf(to, "%-12s %-*s", verdict_name(r->verdict), width, r->name);
            if (has_ratio(r)) fprintf(to, " %12.2f %12.2f %9s %17s %8s %4d", r->base, r->now, ratio, interval, p, r->samples);
            fprintf(to, "%s%s\n", r->why[0] ? "  " : "", r->why);
        }
    counts(c, text, sizeof text);
    fprintf(to, "\n%s%s: %s (exit status %d)\n", c->notes, exit_name(c->exit_status), text, c->exit_status);
}

/* ---- JSON ------------------------------------------------------------------------------------------- */

static json_t *row_json(const row_result *r)
{
    json_t *o = json_pack("{s:s, s:s}", "name", r->name, "verdict", verdict_name(r->verdict));
    if (r->why[0]) json_object_set_new(o, "why", json_string(r->why));
    if (has_ratio(r)) {
        json_object_set_new(o, "base_us", json_real(r->base));
        json_object_set_new(o, "new_us", json_real(r->now));
        json_object_set_new(o, "ratio", json_real(r->ratio));
    }
    if (has_interval(r)) json_object_set_new(o, "interval_95", json_pack("[f, f]", r->interval.low, r->interval.high));
    if (r->samples) json_object_set_new(o, "p_adjusted", json_real(r->p)), json_object_set_new(o, "samples", json_integer(r->samples));
    return o;
}

void write_json(const comparison *c, FILE *to)
{
    json_t *rows = json_array(), *of = json_object();
    for (int i = 0; i < c->count; i++) json_array_append_new(rows, row_json(&c->rows[i]));
    for (int v = 0; v < VERDICT_COUNT; v++) json_object_set_new(of, verdict_name((verdict)v), json_integer(c->of[v]));
    json_t *root = json_pack("{s:s, s:i, s:b, s:f, s:f, s:s, s:s, s:s, s:o, s:o}", "verdict", exit_name(c->exit_status), "exit_status",
                             c->exit_status, "paired", c->paired, "threshold", c->threshold, "alpha", c->alpha, "base_commit",
                             context_of(c->base, "commit"), "new_commit", context_of(c->now, "commit"), "notes", c->notes, "counts", of,
                             "rows", rows);
    json_dumpf(root, to, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    fputc('\n', to);
    json_decref(root);
}

/* The numbers of the new run, for actions that keep a history. */
void write_tracking(const comparison *c, FILE *to)
{
    json_t *list = json_array();
    for (int i = 0; i < c->count; i++) {
        const row_result *r = &c->rows[i];
        char range[64], extra[128];
        if (!has_ratio(r) || r->verdict == CONTROL) continue;
        range[0] = 0;
        if (has_interval(r)) snprintf(range, sizeof range, "± %.2g %%", 50 * (r->interval.high - r->interval.low));
        snprintf(extra, sizeof extra, "%s; base %.4g us, ratio %.4f", verdict_name(r->verdict), r->base, r->ratio);
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:s, s:s}", "name", r->name, "unit", "us", "value", r->now, "range", range,
                                              "extra", extra));
    }
    json_dumpf(list, to, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    fputc('\n', to);
    json_decref(list);
}

/* ---- Markdown ----------------------------------------------------------------------------------------- */

static void markdown_text(const char *text, FILE *to)
{
    for (; *text; text++) {
        if (strchr("|\\`*_<>[]", *text)) fputc('\\', to);
        fputc(*text == '\n' ? ' ' : *text, to);
    }
}

static void markdown_rows(const comparison *c, bool dull, FILE *to)
{
    char ratio[48], interval[48], p[24];
    fputs("| verdict | row | base µs | new µs | change | 95 % interval | p | |\n|---|---|--:|--:|--:|--:|--:|---|\n", to);
    for (int v = 0; v < VERDICT_COUNT; v++)
        for (int i = 0; i < c->count; i++) {
            const row_result *r = &c->rows[i];
            if (r->verdict != order[v] || dull != (r->verdict == SAME || r->verdict >= ADDED)) continue;
            figures(r, ratio, interval, p);
            fprintf(to, "| %s | `%s` |", verdict_name(r->verdict), r->name);
            if (has_ratio(r)) fprintf(to, " %.2f | %.2f | %s | %s | %s | ", r->base, r->now, ratio, interval, p);
            else fputs(" | | | | | ", to);
            markdown_text(r->why, to);
            fputs(" |\n", to);
        }
}

void write_markdown(const comparison *c, FILE *to)
{
    char text[300];
    int dull = c->of[SAME] + c->of[ADDED] + c->of[SKIPPED] + c->of[CONTROL];
    counts(c, text, sizeof text);
    fprintf(to, "### Benchmark: %s\n\n%s. Base `%s`, new `%s`; %s, threshold %.3g %%.\n\n", exit_name(c->exit_status), text,
            context_of(c->base, "commit"), context_of(c->now, "commit"),
            c->paired ? "interleaved rounds" : "two separate runs", 100 * c->threshold);
    if (dull < c->count) markdown_rows(c, false, to);
    if (c->notes[0]) {
        fputs("\n> ", to);
        for (const char *s = c->notes; *s; s++) fputs(*s == '\n' && s[1] ? "\n> " : (char[]){*s, '\0'}, to);
    }
    if (dull) {
        fprintf(to, "\n<details><summary>%d others</summary>\n\n", dull);
        markdown_rows(c, true, to);
        fputs("\n</details>\n", to);
    }
}

/* ---- JUnit ------------------------------------------------------------------------------------------------ */

static void xml_text(const char *text, FILE *to)
{
    for (; *text; text++) {
        unsigned char ch = (unsigned char)*text;
        if (ch == '<') fputs("&lt;", to);
        else if (ch == '>') fputs("&gt;", to);
        else if (ch == '&') fputs("&amp;", to);
        else if (ch == '"') fputs("&quot;", to);
        else fputc(ch < 32 && ch != '\n' && ch != '\t' ? '?' : ch, to); /* XML 1.0 has no other control characters */
    }
}

static void junit_row(const row_result *r, FILE *to)
{
    char ratio[48], interval[48], p[24];
    static const char *const element[VERDICT_COUNT] = {
        [SLOWER] = "failure", [CHANGED] = "failure", [BROKEN] = "failure", [INCOMPARABLE] = "error",
        [MISSING] = "error",  [AMBIGUOUS] = "skipped", [ADDED] = "skipped", [SKIPPED] = "skipped", [CONTROL] = "skipped"};
    figures(r, ratio, interval, p);
    fputs("  <testcase classname=\"fourbit-compare\" name=\"", to);
    xml_text(r->name, to);
    fprintf(to, "\" time=\"%.9f\"", r->now * 1e-6);
    if (!element[r->verdict]) {
        fputs("/>\n", to);
        return;
    }
    fprintf(to, ">\n    <%s message=\"%s", element[r->verdict], verdict_name(r->verdict));
    if (has_ratio(r)) fprintf(to, ": %.2f us, was %.2f us: %s (95 %%: %s; p = %s)", r->now, r->base, ratio, interval, p);
    if (r->why[0]) fputs("; ", to), xml_text(r->why, to);
    fputs("\"/>\n  </testcase>\n", to);
}

void write_junit(const comparison *c, FILE *to)
{
    fprintf(to, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"fourbit-compare\" tests=\"%d\" failures=\"%d\" errors=\"%d\" skipped=\"%d\">\n",
            c->count, c->of[SLOWER] + c->of[CHANGED] + c->of[BROKEN], c->of[INCOMPARABLE] + c->of[MISSING],
            c->of[AMBIGUOUS] + c->of[ADDED] + c->of[SKIPPED] + c->of[CONTROL]);
    for (int i = 0; i < c->count; i++) junit_row(&c->rows[i], to);
    fputs("</testsuite>\n", to);
}
