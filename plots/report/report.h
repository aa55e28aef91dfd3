/* report.h: a results folder as one HTML page.
 *
 *   load.c     the files, every value checked before a byte is written
 *   svg.c      a picture made fit to stand inside a page
 *   html.c     escaping, cells
 *   page.c     the page; page.css and page.js go into it
 *   main.c     command line; the page appears whole or not at all
 */
#ifndef FOURBIT_REPORT_H
#define FOURBIT_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { WHY = 600, PEERS = 8, KEYS = 40, PLOT_BYTES = 2500000, ERROR_ROWS = 4000 };

/* ---- what is read ---------------------------------------------------------------------------------- */

typedef enum row_state { ROW_TIMED, ROW_SKIPPED, ROW_FAILED, ROW_ABOVE_ROOF } row_state;

typedef struct bench_row {
    const char *name, *label, *why; /* borrowed from the JSON; why: of a row that is not ROW_TIMED */
    char *parts;                    /* the name, cut up: */
    const char *op, *backend, *format, *block, *shape; /* "" where the name has another form; block: "b64+dq" */
    bool peer, hot;
    row_state state;
    double median, p10, p90, spread, gb_s, copy_share, tflop_s, gemm_share, bits, bytes, flops; /* NaN: not there */
    double roof;     /* the least time that the run's ceilings allow, over the median: 1 is the roof. NaN: unknown */
    bool arithmetic; /* what the roof is there: arithmetic, or memory */
    double sqnr;     /* of this format and block size, from error.csv; NaN */
    double x[PEERS]; /* the other's median over this one's; NaN */
    const json_t *verdict; /* this row in the verdict; NULL */
} bench_row;

typedef struct error_row {
    char *tensor, *format;
    double block, double_quant, bits, mse, mae, max_abs, sqnr, mse_expected;
} error_row;

typedef struct figures { /* "name key=value key=value" lines, or columns under heads */
    char *text;
    struct { const char *name, *value[KEYS]; } *line;
    const char *key[KEYS];
    int count, keys;
} figures;

typedef struct plot {
    char *name, *svg; /* svg: as page.c prints it; NULL: left out for its size */
} plot;

typedef struct report {
    char folder[4096];
    json_t *bench, *verdict; /* NULL: not there */
    const json_t *context;
    bench_row *rows;
    int count;
    const char *peers[PEERS];
    int peer_count, peers_left_out;
    double copy_bw, gemm_peak; /* bytes, operations a second; NaN */
    error_row *errors;
    int error_count, errors_left_out;
    figures resources, counters;
    plot *plots;
    int plot_count;
} report;

/* folder: bench.json, error.csv, verdict.json (verdict: another place for it; NULL: there), resources.txt,
 * counters.txt, plots/ *.svg; each may be missing, but not both of the first two. False with why: nothing to report
 * on, or a file is damaged. */
bool report_load(report *r, const char *folder, const char *verdict, char why[WHY]);
void report_free(report *r);
const char *report_context(const report *r, const char *key); /* "" if it is not there or no string */

/* A copy of an SVG that can stand in a page: declarations, comments and size dropped, ids and what refers to them begun
 * with prefix, links only within. NULL with why for what could fetch, run or break out: it is refused, not repaired. */
char *svg_inline(const char *svg, size_t bytes, const char *prefix, char why[WHY]);

/* ---- what is written ------------------------------------------------------------------------------------ */

void html_text(FILE *to, const char *text);  /* escaped for content and quoted attributes; broken UTF-8 replaced */
void html_number(FILE *to, double value, int digits);  /* <td>, a dash for NaN */
void html_bar(FILE *to, double share, const char *unit); /* <td> with a bar of share (1: whole) and per cent */

void page_write(const report *r, const char *title, FILE *to);

#endif
