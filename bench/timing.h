/* timing.h: how a time is taken, and when enough of it has been taken.
 *
 * Contenders of one case (ours and its peers) are timed in rounds, A B C A B C,
 * so that what disturbs the machine disturbs them alike and their ratio survives.
 * Each has one sample a round. Rounds end when the median of every contender
 * that counts is known well enough, or at a ceiling of rounds or seconds.
 */
#ifndef FOURBIT_TIMING_H
#define FOURBIT_TIMING_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

double timing_now(void);     /* seconds, monotonic */
double timing_cpu_now(void); /* seconds of processor time of all threads of this process */

/* ---- statistics ------------------------------------------------------------------ */

typedef struct timing_stats {
    int samples;
    double median, p10, p90, min, mean; /* seconds a call */
    double spread; /* half of the median's 95 % interval, over the median */
} timing_stats;

/* Percentiles interpolate between neighbours. The interval of the median is the
 * distribution-free one: order statistics n/2 -+ 0.98 sqrt(n), which needs six
 * samples to exist; with fewer, spread is infinite. */
timing_stats timing_summary(const double *samples, int n);

/* ---- contenders ----------------------------------------------------------------------- */

typedef struct timing_span {
    double wall, cpu; /* seconds, of all calls together */
} timing_span;

enum { TIMING_WHY = 400 };

typedef struct contender {
    /* Runs `calls` calls and says how long they took. cold: empties the caches
     * first (not in the time). False: it cannot go on; why says so. */
    bool (*run)(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]);
    void *self;
    bool beside;    /* takes a sample a round like the others, but how well its median is known does not matter */

    int calls;      /* a sample is this many calls; set by timing_rounds */
    double *walls;  /* [rounds] seconds a call */
    double cpu;     /* sum over samples of seconds a call */
    int samples;
    bool failed;
    char why[TIMING_WHY];
} contender;

typedef struct stop_rule {
    int floor, ceiling;     /* rounds */
    double seconds;         /* after floor rounds: none begins past this much time; */
    double hard_seconds;    /* and none at all past this, once there is one sample */
    double spread;          /* enough when every median's spread is within this */
    double sample_seconds;  /* hot: a sample is as many calls as fill this */
} stop_rule;

/* Times every contender that has not failed; a contender that fails keeps no
 * samples and the others go on. *stop ends it between two samples (a round cut
 * short counts for no one). walls have room for rule->ceiling. Returns rounds. */
int timing_rounds(contender *contenders, int count, const stop_rule *rule, bool cold, const volatile sig_atomic_t *stop);

/* Two processes that time the same cases take their rounds in turn: each round of timing_rounds begins by reading a
 * byte from in and ends by writing one to out, whichever process was given the first byte begins. Every case then has
 * exactly `rounds` rounds (or its rule's ceiling, if that is less), so that round i of one stands beside round i of
 * the other, milliseconds apart. On a machine whose speed changes from second to second nothing coarser sees 5 %. */
void timing_take_turns(int in, int out, int rounds);
bool timing_lost_turn(void); /* the other process was gone, or did not pass the turn for two minutes: timing went on alone */

/* What decides whether another round is taken; apart so that it can be tested. */
bool timing_enough(const contender *contenders, int count, const stop_rule *rule, int rounds, double elapsed);

/* ---- caches ---------------------------------------------------------------------------- */

/* Bytes of the last-level cache that one core can use: sysfs, else sysconf, else
 * 32 MiB. Virtual machines answer sysconf with the whole host's. */
size_t timing_cache_bytes(void);

/* Reads 3 times timing_cache_bytes with every thread, so that the next call finds
 * clean lines that are not its own. Returns the bytes of the lines that were read,
 * counted as they come. The buffer is allocated by the first call; 0: no memory. */
size_t timing_evict(int threads);

#endif
