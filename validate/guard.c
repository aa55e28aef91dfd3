/* guard.c: buffers whose neighbours are forbidden pages (check.h). */
#include "check.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATTERN = 0xa5, LIVE_MAX = 256 };

/* Buffers alive now, for the fault handler. Tests make and free them on one thread. */
static guard live[LIVE_MAX];
static int live_count;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

guard guard_new(const char *name, size_t bytes, guard_side side, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guard g = {.name = name, .bytes = bytes, .inner_bytes = round_up(bytes ? bytes : 1, page)};
    uint8_t *map = mmap(NULL, g.inner_bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || live_count == LIVE_MAX ||
        mprotect(map + page, g.inner_bytes, PROT_READ | PROT_WRITE) != 0) {
        fprintf(stderr, "guard_new: cannot place %zu bytes for %s: %s\n", bytes, name,
                live_count == LIVE_MAX ? "too many guarded buffers alive" : "out of memory");
        exit(2);
    }
    g.inner = map + page;
    g.data = side == GUARD_START ? g.inner : g.inner + g.inner_bytes - round_up(bytes, align);
    memset(g.inner, PATTERN, g.inner_bytes);
    live[live_count++] = g;
    return g;
}

void guard_poison(const guard *g) { memset(g->data, 0xff, g->bytes); }

check_result guard_check(const guard *g)
{
    check_result r = {.ok = true, .n = (int64_t)g->inner_bytes, .worst = -1};
    const uint8_t *end = g->data + g->bytes;
    for (const uint8_t *p = g->inner; p < g->inner + g->inner_bytes; p++) {
        if ((p >= g->data && p < end) || *p == PATTERN) continue;
        if (r.bad++ == 0) r.worst = p - g->data;
    }
    r.ok = r.bad == 0;
    if (r.ok) snprintf(r.text, sizeof r.text, "%s: nothing written outside", g->name);
    else
        snprintf(r.text, sizeof r.text, "%s: %" PRId64 " guard bytes overwritten, the first at offset %" PRId64
                 " of %zu bytes", g->name, r.bad, r.worst, g->bytes);
    return r;
}

void guard_free(guard *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!g->inner) return;
    for (int i = 0; i < live_count; i++) {
        if (live[i].inner != g->inner) continue;
        live[i] = live[--live_count];
        break;
    }
    munmap(g->inner - page, g->inner_bytes + 2 * page);
    memset(g, 0, sizeof *g);
}

/* snprintf is not on the list of async-signal-safe functions, but the program ends here
 * and a garbled line is better than none. */
static void on_fault(int signal_number, siginfo_t *info, void *unused)
{
    (void)unused;
    const uint8_t *at = info->si_addr;
    char line[256];
    int length = snprintf(line, sizeof line, "fault (signal %d) at %p, next to no guarded buffer\n", signal_number,
                          info->si_addr);
    for (int i = 0; i < live_count; i++) {
        const guard *g = &live[i];
        if (at < g->inner - 4096 || at >= g->inner + g->inner_bytes + 4096) continue;
        length = snprintf(line, sizeof line, "fault: access at byte %td of %s, which has %zu bytes\n", at - g->data,
                          g->name, g->bytes);
        break;
    }
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0) _exit(98);
    _exit(99);
}

void guard_report_faults(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
