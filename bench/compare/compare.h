/* compare.h: two results of fourbit-bench, row by row, to one verdict. README of bench/ says what the words mean.
 *
 *   load.c    result files, every number checked
 *   stats.c   rank tests, bootstrap, correction for many rows
 *   decide.c  may these files be compared; the verdict on each row and on all
 *   output.c  table, JSON, Markdown, JUnit, tracking array
 *   main.c    command line
 */
#ifndef FOURBIT_COMPARE_H
#define FOURBIT_COMPARE_H

#include "stats.h"

#include <jansson.h>
#include <stdio.h>

/* Exit statuses. Of several the first in the order 1, 2, 3 counts; 2 alone when nothing could be compared. */
enum { COMPARE_PASS = 0, COMPARE_REGRESSION = 1, COMPARE_CANNOT = 2, COMPARE_AMBIGUOUS = 3 };

enum { WHY = 600 };

/* ---- load.c ------------------------------------------------------------------------------------- */

typedef struct timed_row {
    const char *name, *label;  /* borrowed from the JSON tree; label may be "" */
    const char *failed;        /* NULL, or why it was not timed: "FAILED: ..." or "skipped: ..." */
    double median, p10, p90;   /* us; p10 = p90 = 0 when the file has none */
    double *samples;           /* us, sorted; NULL when the file has none */
    double *in_order;          /* the same as they were taken */
    int count;
    const json_t *json;
} timed_row;

typedef struct result_file {
    char path[4096];
    json_t *root;
    const json_t *context;
    timed_row *rows; /* sorted by name, names distinct */
    int count;
} result_file;

/* One side: a file, or the rounds of an interleaved run (the *.json of a folder, in the order of their names). */
typedef struct side {
    result_file *files;
    int rounds;
    bool folder;
} side;

/* False with why: unreadable, not JSON, not a finished run, or a number that no run produces. */
bool side_load(side *s, const char *path, char why[WHY]);
void side_free(side *s);
const timed_row *row_find(const result_file *f, const char *name);

/* ---- decide.c ------------------------------------------------------------------------------------- */

typedef enum verdict {
    SAME = 0,      /* the interval of the ratio lies within the threshold */
    FASTER,
    SLOWER,        /* regression */
    CHANGED,       /* an output's bits or an error metric differ: regression */
    BROKEN,        /* the new run failed its check: regression */
    INCOMPARABLE,  /* other work under the same name, or the base failed: exit 2 */
    MISSING,       /* only in the base: exit 2 */
    AMBIGUOUS,     /* neither the same nor different: exit 3 */
    ADDED,         /* only in the new run: no verdict */
    SKIPPED,       /* not timed on either side: no verdict */
    CONTROL,       /* a peer: not what is judged, but what shows whether the machine changed */
    VERDICT_COUNT
} verdict;
const char *verdict_name(verdict v);

enum allow {
    ALLOW_MACHINE = 1, ALLOW_GPU = 2, ALLOW_DRIVER = 4, ALLOW_CUDA = 8, ALLOW_CLOCKS = 16, ALLOW_COMPILER = 32,
    ALLOW_THREADS = 64, ALLOW_DIRTY = 128, ALLOW_LABEL = 256, ALLOW_OUTPUTS = 512, ALLOW_MISSING = 1024
};
/* "machine,dirty" -> bits; false: unknown word. allow_words() lists them. */
bool allow_parse(const char *text, unsigned *allow);
const char *allow_words(void);

typedef struct rules {
    unsigned allow;
    double threshold; /* 0.03: a change of 3 % matters; 0: paired_threshold or separate_threshold */
    double alpha;     /* 0.05, for all rows together */
    bool turns;       /* sample i of a round's base was taken right beside sample i of its new run */
} rules;
extern const double paired_threshold, separate_threshold;

typedef struct row_result {
    const char *name;
    verdict verdict;
    double base, now;         /* us, medians */
    double ratio;             /* now / base; 0: not known */
    stats_interval interval;  /* 95 %, of the ratio; {0, 0}: not known */
    double p;                 /* corrected for all rows; 1 when there is no test */
    int samples;              /* pairs, or the smaller side's samples */
    char why[240];
} row_result;

typedef struct comparison {
    bool paired, turns;
    double threshold, alpha;
    row_result *rows;
    int count, of[VERDICT_COUNT];
    double drift; /* median ratio of the controls; 0: none */
    int exit_status;
    char notes[1200]; /* lines */
    const side *base, *now;
} comparison;

/* False with why (exit status 2): the two may not be compared, or no row can be. */
bool compare(const side *base, const side *now, const rules *r, comparison *c, char why[WHY]);
void comparison_free(comparison *c);

/* ---- output.c ---------------------------------------------------------------------------------------- */

const char *exit_name(int status); /* "pass" ... */
void write_table(const comparison *c, bool changes_only, FILE *to);
void write_json(const comparison *c, FILE *to);
void write_markdown(const comparison *c, FILE *to);
void write_junit(const comparison *c, FILE *to);
void write_tracking(const comparison *c, FILE *to); /* [{name, unit, value, range, extra}] */

#endif
