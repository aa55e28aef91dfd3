/* timing.c: clocks, statistics, the stopping rule, cold caches (timing.h). */
#include "bench/timing.h"

#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double clock_seconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
double timing_now(void) { return clock_seconds(CLOCK_MONOTONIC); }
double timing_cpu_now(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

/* ---- statistics --------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int below = (int)at;
    if (below + 1 >= n) return sorted[n - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

timing_stats timing_summary(const double *samples, int n)
{
    timing_stats s = {.samples = n, .spread = INFINITY};
    if (n <= 0) return s;
    double *sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted) return (timing_stats){.spread = INFINITY};
    memcpy(sorted, samples, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    s.median = quantile(sorted, n, 0.5);
    s.p10 = quantile(sorted, n, 0.1);
    s.p90 = quantile(sorted, n, 0.9);
    s.min = sorted[0];
    for (int i = 0; i < n; i++) s.mean += sorted[i] / n;
    double reach = 0.98 * sqrt(n); /* 1.96 * sqrt(n) / 2: the binomial's deviation about n/2 */
    int low = (int)floor(n / 2.0 - reach) - 1, high = (int)ceil(n / 2.0 + reach);
    if (n >= 6 && s.median > 0) {
        if (low < 0) low = 0;
        if (high > n - 1) high = n - 1;
        s.spread = (sorted[high] - sorted[low]) / 2 / s.median;
    }
    free(sorted);
    return s;
}

/* ---- rounds --------------------------------------------------------------------------------- */

bool timing_enough(const contender *contenders, int count, const stop_rule *rule, int rounds, double elapsed)
{
    if (rounds >= rule->ceiling) return true;
    if (rounds >= 1 && elapsed >= rule->hard_seconds) return true;
    if (rounds < rule->floor) return false;
    if (elapsed >= rule->seconds) return true;
    for (int i = 0; i < count; i++)
        if (!contenders[i].failed && !contenders[i].beside &&
            !(timing_summary(contenders[i].walls, contenders[i].samples).spread <= rule->spread))
            return false;
    return true;
}

static void fail(contender *c)
{
    c->failed = true;
    c->samples = 0;
    if (!c->why[0]) snprintf(c->why, sizeof c->why, "it failed and did not say why");
}

/* One untimed call: pages are touched, code is paged in, threads are there; and
 * how many calls make a hot sample. A cold sample is one call: the second would
 * find its data in the cache. */
static void prepare(contender *c, const stop_rule *rule, bool cold)
{
    timing_span span;
    c->calls = 1, c->samples = 0, c->cpu = 0;
    for (int i = 0; i < 2 && !c->failed; i++) {
        if (!c->run(c->self, 1, false, &span, c->why)) fail(c);
        else if (span.wall > rule->sample_seconds) break; /* long enough for its first call not to matter */
    }
    if (c->failed || cold || !(span.wall > 0)) return;
    double calls = rule->sample_seconds / span.wall;
    c->calls = calls < 1 ? 1 : calls > 1e5 ? 100000 : (int)calls;
}

/* ---- turns ---------------------------------------------------------------------------------- */

static struct {
    bool on, lost;
    int in, out, rounds;
} turns;

void timing_take_turns(int in, int out, int rounds)
{
    turns.on = true, turns.lost = false;
    turns.in = in, turns.out = out, turns.rounds = rounds;
}

bool timing_lost_turn(void) { return turns.lost; }

static void wait_for_turn(const volatile sig_atomic_t *stop)
{
    char token;
    struct pollfd in = {.fd = turns.in, .events = POLLIN};
    if (!turns.on || turns.lost) return;
    for (int seconds = 0; seconds < 120 && !*stop; seconds++) {
        int ready = poll(&in, 1, 1000);
        if (ready > 0) {
            turns.lost = read(turns.in, &token, 1) != 1;
            return;
        }
    }
    turns.lost = !*stop;
}

static void pass_turn(void)
{
    if (turns.on && !turns.lost) turns.lost = write(turns.out, "t", 1) != 1;
}

int timing_rounds(contender *contenders, int count, const stop_rule *rule, bool cold, const volatile sig_atomic_t *stop)
{
    double start = timing_now();
    stop_rule fixed = *rule;
    if (turns.on) {
        fixed.floor = fixed.ceiling = turns.rounds < rule->ceiling ? turns.rounds : rule->ceiling;
        fixed.hard_seconds = INFINITY;
        rule = &fixed;
    }
    for (int i = 0; i < count && !*stop; i++)
        if (!contenders[i].failed) prepare(&contenders[i], rule, cold);
    int rounds = 0, alive = 1;
    while (alive && !*stop && !timing_enough(contenders, count, rule, rounds, timing_now() - start)) {
        timing_span spans[count];
        alive = 0;
        wait_for_turn(stop);
        for (int i = 0; i < count && !*stop; i++) {
            contender *c = &contenders[i];
            if (c->failed) continue;
            if (!c->run(c->self, c->calls, cold, &spans[i], c->why)) fail(c);
            else alive += !c->beside;
        }
        pass_turn();
        if (*stop) break;
        for (int i = 0; i < count; i++) {
            contender *c = &contenders[i];
            if (c->failed) continue;
            c->walls[rounds] = spans[i].wall / c->calls;
            c->cpu += spans[i].cpu / c->calls;
            c->samples = rounds + 1;
        }
        if (alive) rounds++;
    }
    return rounds;
}

/* ---- caches ------------------------------------------------------------------------------------ */

size_t timing_cache_bytes(void)
{
    size_t largest = 0;
    for (int index = 0; index < 8; index++) {
        char path[96], unit = 'K';
        unsigned long size = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        FILE *f = fopen(path, "r");
        if (!f) break;
        if (fscanf(f, "%lu%c", &size, &unit) >= 1) {
            size_t bytes = (size_t)size << (unit == 'M' ? 20 : unit == 'G' ? 30 : 10);
            if (bytes > largest) largest = bytes;
        }
        fclose(f);
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    if (!largest && sysconf(_SC_LEVEL3_CACHE_SIZE) > 0) largest = (size_t)sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return largest ? largest : (size_t)32 << 20;
}

size_t timing_evict(int threads)
{
    static uint64_t *buffer; /* lives as long as the program */
    static size_t lines;
    enum { WORDS = 8 }; /* in a line */
    if (!buffer) {
        lines = 3 * timing_cache_bytes() / (WORDS * sizeof *buffer);
        buffer = malloc(lines * WORDS * sizeof *buffer);
        if (!buffer) return 0;
        memset(buffer, 1, lines * WORDS * sizeof *buffer); /* untouched pages would all be one page of zeros */
    }
    uint64_t read = 0; /* lines: each has a 1 in it */
#pragma omp parallel for reduction(+ : read) num_threads(threads)
    for (size_t i = 0; i < lines; i++) read += buffer[WORDS * i] & 1;
    return (size_t)read * WORDS * sizeof *buffer;
}
