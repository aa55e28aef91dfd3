/* test_pager.c: pages come back as they went, whatever the budget; memory never exceeds it; how much is moved; what a full
 * disk, a wrong call and a room that is too small say. On the host; test_pager_gpu.c has the GPU's kinds. */
#include "pager.h"
#include "test_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { PAGE = 4096, ITEMS = 37 };

static size_t size_of(int i) { return i % 5 == 0 ? PAGE : (size_t)(1 + i * 131 % 1500); }

static pager *filled(pager_kind kind, size_t budget, ck_error *e)
{
    pager *p = pager_open(&(pager_config){.kind = kind, .budget = budget, .page_bytes = PAGE, .folder = test_folder()}, e);
    for (int i = 0; p && i < ITEMS; i++) {
        int64_t item;
        if (!REQUIRE(pager_add(p, size_of(i), &item, e) && item == i, "%s", e->message)) return p;
    }
    if (p) REQUIRE(pager_start(p, e), "%s", e->message);
    return p;
}

/* Adds 1 + i to each byte of item i, all of which must be what `steps` earlier rounds have left. */
static bool one_round(pager *p, int steps, ck_error *e)
{
    bool right = true;
    if (!pager_begin_step(p, e)) return false;
    for (int i = 0; i < ITEMS; i++) {
        uint8_t *at = pager_acquire(p, i, e);
        if (!at || (uintptr_t)at % PAGER_ALIGN != 0 || !pager_prefetch(p, i, e)) return false;
        for (size_t b = 0; b < size_of(i); b++) {
            right &= at[b] == (uint8_t)(steps * (1 + i));
            at[b] = (uint8_t)(at[b] + 1 + i);
        }
        if (!pager_release(p, i, true, e)) return false;
    }
    return right;
}

static void every_budget(void)
{
    ck_error e = {0};
    for (size_t pages = 2; pages <= 20; pages++) {
        pager *p = filled(PAGER_FILE, pages * PAGE, &e);
        if (!p) return;
        for (int step = 0; step < 4; step++) REQUIRE(one_round(p, step, &e), "%zu pages, step %d: %s", pages, step, e.message);
        pager_counters c = pager_count(p);
        REQUIRE(c.peak_bytes <= pages * PAGE, "%zu bytes resident of a budget of %zu", c.peak_bytes, pages * PAGE);
        REQUIRE(c.peak_bytes >= c.resident_bytes && c.resident_bytes > PAGE, "a peak of %zu bytes, %zu are resident", c.peak_bytes, c.resident_bytes);
        size_t all = (c.total_bytes + PAGE - 1) / PAGE;
        if (pages >= all + 4) REQUIRE(c.bytes_in == 0 && c.bytes_out == 0, "all fits, and %llu bytes moved", (unsigned long long)c.bytes_in);
        if (pages + 1 < all) REQUIRE(c.bytes_in > 0 && c.bytes_out > 0, "not all fits, and nothing moved");
        pager_close(p);
    }
}

/* What must go is what is needed last: N pages, room for k, N - k + 1 pages move in a step. */
static void fewest_pages_move(void)
{
    ck_error e = {0};
    enum { N = 10, K = 6 };
    pager *p = pager_open(&(pager_config){.kind = PAGER_FILE, .budget = K * PAGE, .page_bytes = PAGE, .folder = test_folder()}, &e);
    int64_t item;
    for (int i = 0; i < N; i++) CU_ASSERT(pager_add(p, PAGE, &item, &e));
    CU_ASSERT(pager_start(p, &e));
    int64_t before = 0;
    for (int step = 0; step < 6; step++) {
        before = pager_count(p).loads;
        CU_ASSERT(pager_begin_step(p, &e));
        for (int i = 0; i < N; i++) CU_ASSERT(pager_acquire(p, i, &e) && pager_release(p, i, true, &e));
    }
    REQUIRE(pager_count(p).loads - before == N - K + 1 || pager_count(p).loads - before == N - K, "%lld of %d pages were loaded in a step",
            (long long)(pager_count(p).loads - before), N);
    pager_close(p);
}

static void resize_writes_back(void)
{
    ck_error e = {0};
    pager *p = filled(PAGER_FILE, 0, &e);
    if (!p) return;
    for (int step = 0; step < 6; step++) {
        static const size_t budgets[] = {0, 2, 7, 3, 0, 2};
        REQUIRE(pager_resize(p, budgets[step] * PAGE, &e), "%s", e.message);
        if (budgets[step]) REQUIRE(pager_count(p).resident_bytes <= budgets[step] * PAGE, "%zu bytes", pager_count(p).resident_bytes);
        REQUIRE(one_round(p, step, &e), "step %d: %s", step, e.message);
    }
    uint8_t host[PAGE];
    CU_ASSERT(pager_read(p, 3, host, &e) && host[0] == 24 && host[size_of(3) - 1] == 24);
    memset(host, 9, sizeof host);
    CU_ASSERT(pager_write(p, 3, host, &e));
    for (int i = 4; i < ITEMS; i++) CU_ASSERT(pager_acquire(p, i, &e) && pager_release(p, i, false, &e));
    memset(host, 0, sizeof host);
    CU_ASSERT(pager_read(p, 3, host, &e) && host[0] == 9 && host[size_of(3) - 1] == 9);
    pager_close(p);
}

/* A frame in the middle goes: the last one, which page 0 lies in, takes its place. */
static void shrink_moves_the_last_frame(void)
{
    enum { N = 4 };
    ck_error e = {0};
    uint8_t host[PAGE];
    pager *p = pager_open(&(pager_config){.kind = PAGER_FILE, .budget = N * PAGE, .page_bytes = PAGE, .folder = test_folder()}, &e);
    int64_t item;
    for (int i = 0; i < N; i++) CU_ASSERT(pager_add(p, PAGE, &item, &e));
    CU_ASSERT(pager_start(p, &e));
    for (int i = N - 1; i >= 0; i--) {
        memset(host, 10 + i, PAGE);
        CU_ASSERT(pager_write(p, i, host, &e));
    }
    CU_ASSERT(pager_resize(p, (N - 1) * PAGE, &e) && pager_resize(p, N * PAGE, &e)); /* and where it lay, there is another */
    for (int i = 0; i < N; i++) CU_ASSERT(pager_read(p, i, host, &e) && host[0] == 10 + i && host[PAGE - 1] == 10 + i);
    pager_close(p);
}

static void wrong_calls(void)
{
    ck_error e = {0};
    int64_t item;
    CU_ASSERT(!pager_open(&(pager_config){.kind = PAGER_FILE, .budget = 300}, &e));
    REQUIRE_MESSAGE(&e, "pager", "a budget of 300 bytes does not hold two pages", "a tiny budget");
    CU_ASSERT(!pager_open(&(pager_config){.kind = PAGER_PINNED}, &e));
    REQUIRE_MESSAGE(&e, "pager", "pinned memory needs a GPU", "no runtime");
    CU_ASSERT(!pager_open(&(pager_config){.kind = (pager_kind)9}, &e));
    pager *p = pager_open(&(pager_config){.kind = PAGER_FILE, .budget = 2 * PAGE, .folder = test_path("nowhere")}, &e);
    CU_ASSERT_FATAL(p != NULL);
    CU_ASSERT(pager_page_bytes(p) == PAGE && !pager_add(p, PAGE + 1, &item, &e) && !pager_add(p, 0, &item, &e));
    for (int i = 0; i < 4; i++) CU_ASSERT(pager_add(p, PAGE, &item, &e));
    CU_ASSERT(!pager_acquire(p, 0, &e));
    CU_ASSERT(!pager_start(p, &e));
    REQUIRE_MESSAGE(&e, test_path("nowhere"), "cannot make a file for the optimizer's state: No such file", "no folder");
    pager_close(p);
    p = filled(PAGER_FILE, 2 * PAGE, &e);
    CU_ASSERT(!pager_add(p, 1, &item, &e) && !pager_start(p, &e));
    CU_ASSERT(!pager_acquire(p, ITEMS, &e) && !pager_acquire(p, -1, &e) && !pager_release(p, 1, false, &e));
    CU_ASSERT(pager_acquire(p, 0, &e) && pager_acquire(p, 5, &e));
    CU_ASSERT(!pager_acquire(p, 10, &e));
    REQUIRE_MESSAGE(&e, "pager", "all of its 2 pages are held", "too many held");
    CU_ASSERT(!pager_resize(p, 4 * PAGE, &e) && pager_release(p, 0, false, &e) && pager_release(p, 5, false, &e));
    CU_ASSERT(!pager_resize(p, PAGE, &e) && pager_acquire(p, 10, &e) && pager_release(p, 10, false, &e));
    pager_close(p);
    p = filled(PAGER_RESIDENT, 0, &e);
    CU_ASSERT(!pager_resize(p, 4 * PAGE, &e) && one_round(p, 0, &e) && one_round(p, 1, &e));
    pager_close(p);
}

/* In a child, whose files may have three pages: the start is refused where the file system can promise; where it could
 * not, a page that cannot be written stays in memory, and once there is room all goes on. */
static int disk_full(void *late)
{
    ck_error e = {0};
    struct rlimit limit = {.rlim_cur = 3 * PAGE, .rlim_max = RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    if (!late && setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    pager *p = pager_open(&(pager_config){.kind = PAGER_FILE, .budget = 4 * PAGE, .page_bytes = PAGE, .folder = test_folder()}, &e);
    int64_t item;
    for (int i = 0; i < ITEMS; i++) pager_add(p, size_of(i), &item, &e);
    bool started = pager_start(p, &e);
    if (!late) {
        bool says = !started && strstr(e.message, "no room for") && strstr(e.message, "File too large");
        pager_close(p);
        return says ? 0 : 2;
    }
    if (!started || !one_round(p, 0, &e)) return 3;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    bool failed = false;
    int done = 0;
    for (; done < ITEMS && !failed; done++) {
        uint8_t *at = pager_acquire(p, done, &e);
        failed = !at;
        if (failed) break;
        for (size_t b = 0; b < size_of(done); b++) at[b] = (uint8_t)(at[b] + 1 + done);
        pager_release(p, done, true, &e);
    }
    if (!failed || !strstr(e.message, "cannot be written to its file; it stays in memory: File too large")) return 4;
    if (setrlimit(RLIMIT_FSIZE, &none) != 0) return 5;
    for (; done < ITEMS; done++) {
        uint8_t *at = pager_acquire(p, done, &e);
        if (!at) return 6;
        for (size_t b = 0; b < size_of(done); b++) at[b] = (uint8_t)(at[b] + 1 + done);
        pager_release(p, done, true, &e);
    }
    bool right = one_round(p, 2, &e);
    pager_close(p);
    return right ? 0 : 7;
}

static void full_disk(void)
{
    static char yes;
    REQUIRE(test_child(disk_full, NULL) == 0, "at the start: %d", test_child(disk_full, NULL));
    REQUIRE(test_child(disk_full, &yes) == 0, "later: %d", test_child(disk_full, &yes));
}

void test_pager(CU_pSuite suite)
{
    CU_add_test(suite, "every_budget", every_budget);
    CU_add_test(suite, "fewest_pages_move", fewest_pages_move);
    CU_add_test(suite, "resize_writes_back", resize_writes_back);
    CU_add_test(suite, "shrink_moves_the_last_frame", shrink_moves_the_last_frame);
    CU_add_test(suite, "wrong_calls", wrong_calls);
    CU_add_test(suite, "full_disk", full_disk);
}
