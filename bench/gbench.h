/* gbench.h: Google Benchmark for C programs.
 *
 *     static void copy(gb_state *state, void *user)
 *     {
 *         while (gb_keep_running(state)) { ... gb_set_iteration_time(state, seconds); }
 *         gb_counter(state, "bytes", 4096, GB_PLAIN);
 *     }
 *     gb_register(&(gb_benchmark){.name = "copy", .function = copy, .iterations = 10, .manual_time = true});
 *     return gb_main(argc, argv);
 *
 * Set-up belongs outside the function: without a fixed iteration count it is
 * called again while the library looks for one. With manual time always fix the
 * count: Debian's 1.7.1 ran 4.3 s for a min_time of 0.01.
 *
 * No C++ exception crosses into C: what a function throws becomes that
 * benchmark's error, and what the library throws becomes a return value. A
 * function that returns before gb_keep_running said false is an error too (the
 * library would abort). Google Benchmark exits 0 after an error, so errors are
 * counted here, and gb_main's result is the verdict.
 */
#ifndef FOURBIT_GBENCH_H
#define FOURBIT_GBENCH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gb_state gb_state; /* lives for one call of a gb_function */
typedef void (*gb_function)(gb_state *state, void *user);

typedef struct gb_benchmark {
    const char *name;     /* copied */
    gb_function function;
    void *user;           /* handed to function */
    int64_t iterations;   /* 0: the library chooses (not with manual_time) */
    bool manual_time;     /* time is what gb_set_iteration_time says */
    int repetitions;      /* 0: once */
} gb_benchmark;

/* False: bad arguments or out of memory; gb_last_error says. */
bool gb_register(const gb_benchmark *benchmark);
void gb_clear(void); /* forget every registered benchmark */

bool gb_keep_running(gb_state *state);
void gb_set_iteration_time(gb_state *state, double seconds);

enum { /* how a counter is shown; they add up */
    GB_PLAIN = 0,
    GB_RATE = 1,           /* divided by the time */
    GB_INVERT = 2,         /* then 1 / that */
    GB_AVG_ITERATIONS = 4, /* divided by the iterations */
    GB_ITERATIONS = 8      /* multiplied by them */
};
void gb_counter(gb_state *state, const char *name, double value, unsigned flags);
void gb_label(gb_state *state, const char *text);
void gb_skip_with_error(gb_state *state, const char *reason);

/* A key of the report's "context"; call before running, each key once. */
bool gb_context(const char *key, const char *value);

/* Run what is registered and matches filter (NULL or "": all), and return the
 * JSON report, to be given to free(). NULL: gb_last_error says why. */
char *gb_run_json(const char *filter);
/* The same with Google Benchmark's own command line and console report: 0 if
 * every benchmark ran without an error, 1 if not, 2 for bad arguments. */
int gb_main(int argc, char **argv);

int gb_errors(void); /* benchmarks that ended in an error since the program began */
const char *gb_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
