/* goals.h: what the kernels are meant to reach, as data, for fourbit-goals (main.c) to hold a run's rows against. */
#ifndef FOURBIT_BENCH_GOALS_H
#define FOURBIT_BENCH_GOALS_H

/* Met when each of the rows is on the right side of the limit. */
typedef struct goal {
    const char *backend;  /* "cuda", "cpu": which table it stands in */
    const char *regime;   /* in words; goals of one regime stand together */
    const char *rows;     /* regular expression: whole names of cold rows */
    int least;            /* as many rows must be there for the goal to be met */
    const char *measure;  /* a counter of bench/README.md, or one of main.c's own (measures[]) */
    char side;            /* '>': at least; '<': at most */
    double limit;
    double then;          /* what comes after it; 0: nothing */
    const char *when;     /* rows whose label has this word alone; NULL: all */
} goal;

extern const goal goals[]; /* ends with backend NULL */

#endif
