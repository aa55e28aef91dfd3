/* results.h: rows, the JSON they become, and the table. README.md defines every counter. */
#ifndef FOURBIT_BENCH_RESULTS_H
#define FOURBIT_BENCH_RESULTS_H

#include "bench/ceilings.h"
#include "bench/work.h"

#include <jansson.h>
#include <stdio.h>

enum { ROW_NAME = 160, ROW_RATIOS = 6, ROW_TIMES = 128 };

typedef enum row_verdict {
    ROW_TIMED = 0,
    ROW_SKIPPED,    /* a peer that could not, or was wrong: why says */
    ROW_FAILED,     /* ours was wrong or refused: the run fails */
    ROW_ABOVE_ROOF  /* timed, and faster than the machine: a bug of the benchmark; the run fails */
} row_verdict;

typedef struct bench_row {
    char name[ROW_NAME];     /* gemm/cpu/nf4/b64+dq/M1_N4096_K4096 */
    char label[TIMING_WHY];  /* cold or hot, then how */
    row_verdict verdict;
    char why[TIMING_WHY];
    timing_stats stats;
    double times[ROW_TIMES]; /* the first of stats.samples, seconds, in the order they were taken */
    bool hashed;
    uint64_t output_hash;    /* FNV-1a of what the operation wrote */
    double cpu_seconds;      /* processor time of a call, mean */
    double sm_clock_min, sm_clock_max; /* GPU: MHz while it was timed; 0: not read */
    work_cost cost;
    double bits_per_weight;
    bool hot;
    /* Bandwidth in the rounds it was timed in, bytes/s, medians; 0: it was not measured there, and the run's counts.
     * roof_bw: the fastest pass of either, as another process may have disturbed the others: above that nothing can be. */
    double copy_bw, read_bw, roof_bw;
    int ratios;
    struct { char peer[32]; double x; } ratio[ROW_RATIOS]; /* the peer's median over ours */
} bench_row;

typedef struct results {
    bench_row *rows;
    int count, room;
    ceilings ceilings;       /* of the run: before the cases and after them, the best */
    double start_copy_bw, start_read_bw; /* before them; 0: not measured */
    json_t *context; /* provenance, strings */
    char folder[4096];
} results;

/* Makes the folder. False with why: it cannot be written to. */
bool results_open(results *r, const char *folder, char why[TIMING_WHY]);
void results_close(results *r);
bool results_add(results *r, const bench_row *row);
int results_failures(const results *r); /* rows that fail the run */

/* What a row is held against: what was measured in its rounds, else in the run. 0: neither was. */
double results_copy_bw(const results *r, const bench_row *row);
double results_read_bw(const results *r, const bench_row *row);

/* The bandwidths in the rounds of rows, from the lowest to the highest. Returns how many rows have them. */
typedef struct bandwidth_range {
    double copy[2], read[2];
} bandwidth_range;
int results_bandwidths(const results *r, bandwidth_range *seen);

/* bench.json (Google Benchmark's format; context.complete, context.interrupted)
 * and bench-tracking.json ([{name, unit, value, range, extra}]), each replaced
 * whole or left alone: what a killed run leaves is what the last call wrote. */
bool results_write(const results *r, bool complete, bool interrupted, char why[TIMING_WHY]);

/* Aligned columns, ours first in each group; then skips with their reasons, ceilings, verdict. */
void results_table(const results *r, FILE *to);

/* ---- provenance.c --------------------------------------------------------------------- */

/* CPU, caches, memory, kernel, compiler, flags, commit. */
json_t *provenance(int threads);
void provenance_set(json_t *context, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
