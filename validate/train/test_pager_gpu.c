/* test_pager_gpu.c: managed and pinned pages on the stand-in runtime: the right contents in every order that streams and
 * events allow, pages that come while another is in use, the card's memory never exceeded, every failing call reported and
 * nothing leaked. */
#include "pager.h"
#include "test_gpu_runtime.h"
#include "test_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 2048, ITEMS = 23, ROUNDS = 4 };

static size_t size_of(int i) { return i % 4 == 0 ? PAGE : (size_t)(100 + i * 37 % 700); }

/* Work on one item: done on the stream, whenever that comes to it. */
typedef struct work {
    const stand_in *s;
    uint8_t *at;
    int item, round;
} work;
static long wrong, absent; /* bytes; items that were used where they were not */

static void check_and_change(void *user)
{
    const work *w = user;
    if (!stand_in_on_card(w->s, w->at, size_of(w->item))) absent++;
    for (size_t b = 0; b < size_of(w->item); b++) {
        wrong += w->at[b] != (uint8_t)(w->round * (1 + w->item));
        w->at[b] = (uint8_t)(w->at[b] + 1 + w->item);
    }
}

typedef struct scene {
    stand_in s;
    void *stream;
    pager *p;
    work works[ROUNDS][ITEMS];
} scene;

static bool begin(scene *z, pager_kind kind, size_t pages, uint64_t seed, ck_error *e)
{
    char why[GPU_WHY];
    stand_in_init(&z->s, 64 * PAGE, seed);
    z->stream = z->s.runtime.stream_new(&z->s, why);
    z->p = pager_open(&(pager_config){.kind = kind, .budget = pages * PAGE, .page_bytes = PAGE, .gpu = &z->s.runtime, .stream = z->stream,
                                      .reserve = 2 * PAGE}, e);
    int64_t item;
    for (int i = 0; z->p && i < ITEMS; i++)
        if (!pager_add(z->p, size_of(i), &item, e)) return false;
    return z->p && pager_start(z->p, e);
}

static bool round_of(scene *z, int round, ck_error *e)
{
    if (!pager_begin_step(z->p, e)) return false;
    for (int i = 0; i < ITEMS; i++) {
        uint8_t *at = pager_acquire(z->p, i, e);
        if (!at) return false;
        bool good = pager_prefetch(z->p, i, e);
        z->works[round][i] = (work){&z->s, at, i, round};
        stand_in_call(&z->s, z->stream, check_and_change, &z->works[round][i]);
        if (!pager_release(z->p, i, true, e) || !good) return false;
    }
    return true;
}

static void finish(scene *z)
{
    stand_in_run_all(&z->s);
    pager_close(z->p);
    z->s.runtime.stream_free(&z->s, z->stream);
}

static void every_order(void)
{
    static scene z;
    for (int kind = PAGER_MANAGED; kind <= PAGER_PINNED; kind++)
        for (size_t pages = 2; pages <= 20; pages += pages < 6 ? 1 : 7)
            for (uint64_t seed = 1; seed <= 12; seed++) {
                ck_error e = {0};
                wrong = absent = 0;
                bool good = begin(&z, (pager_kind)kind, pages, seed, &e);
                for (int round = 0; good && round < ROUNDS; round++) good = round_of(&z, round, &e);
                uint8_t host[PAGE];
                for (int i = ITEMS - 1; good && i >= 0; i--) {
                    good = pager_read(z.p, i, host, &e);
                    for (size_t b = 0; b < size_of(i); b++) wrong += host[b] != (uint8_t)(ROUNDS * (1 + i));
                }
                if (z.p) {
                    pager_counters c = pager_count(z.p);
                    REQUIRE(c.peak_bytes <= pages * PAGE && (c.bytes_out > 0) == (pages < 10), "%zu pages: at most %zu bytes resident, %llu moved out",
                            pages, c.peak_bytes, (unsigned long long)c.bytes_out);
                }
                finish(&z);
                REQUIRE(good && wrong == 0 && absent == 0 && !z.s.stuck, "%s, %zu pages, seed %llu: %ld bytes wrong, %ld items absent %s",
                        pager_kind_name((pager_kind)kind), pages, (unsigned long long)seed, wrong, absent, e.message);
                REQUIRE(z.s.allocations == 0 && z.s.handles == 0, "%d allocations and %d handles not given back", z.s.allocations, z.s.handles);
            }
}

/* While work on page 0 stands still, pages 1 and 2 arrive; and the pager never waits on the host for them. */
static void copies_overlap_work(void)
{
    static scene z;
    for (int kind = PAGER_MANAGED; kind <= PAGER_PINNED; kind++) {
        ck_error e = {0};
        wrong = absent = 0;
        if (!REQUIRE(begin(&z, (pager_kind)kind, 3, 1, &e), "%s", e.message)) return;
        z.works[0][0] = (work){&z.s, pager_acquire(z.p, 0, &e), 0, 0};
        CU_ASSERT(pager_prefetch(z.p, 0, &e));
        stand_in_call(&z.s, z.stream, check_and_change, &z.works[0][0]);
        CU_ASSERT(pager_release(z.p, 0, true, &e) && z.s.to_device == 0);
        stand_in_run_others(&z.s, z.stream);
        REQUIRE(z.s.to_device == 3, "%s: %ld pages came while the first was in use", pager_kind_name((pager_kind)kind), z.s.to_device);
        finish(&z);
        CU_ASSERT(wrong == 0 && absent == 0);
    }
}

/* Each call of the runtime fails in turn: it is reported, the pager can be closed, nothing is left. */
static void every_failure(void)
{
    static scene z;
    for (int kind = PAGER_MANAGED; kind <= PAGER_PINNED; kind++) {
        ck_error e = {0};
        bool good = begin(&z, (pager_kind)kind, 3, 1, &e) && round_of(&z, 0, &e);
        long calls = z.s.calls, reported = 0, tried = 0;
        CU_ASSERT(good);
        finish(&z);
        for (long n = 1; n < calls; n += n < 60 ? 1 : 17) {
            e.message[0] = '\0';
            char why[GPU_WHY];
            stand_in_init(&z.s, 64 * PAGE, 1);
            z.stream = z.s.runtime.stream_new(&z.s, why);
            z.s.fail_at = n;
            z.p = pager_open(&(pager_config){.kind = (pager_kind)kind, .budget = 3 * PAGE, .page_bytes = PAGE, .gpu = &z.s.runtime,
                                             .stream = z.stream, .reserve = 0}, &e);
            int64_t item;
            for (int i = 0; i < ITEMS; i++) CU_ASSERT(pager_add(z.p, size_of(i), &item, &e));
            good = pager_start(z.p, &e) && round_of(&z, 0, &e);
            z.s.fail_at = 0;
            tried++;
            reported += !good && strstr(e.message, "planted failure") != NULL;
            finish(&z);
            REQUIRE(z.s.allocations == 0 && z.s.handles == 0, "call %ld: %d allocations and %d handles not given back", n, z.s.allocations, z.s.handles);
        }
        /* the caller's own calls are among those that fail unseen: at most one for each item */
        REQUIRE(tried - reported <= 25, "%s: of %ld failures %ld were reported", pager_kind_name((pager_kind)kind), tried, reported);
    }
}

static void never_more_than_free(void)
{
    static scene z;
    ck_error e = {0};
    char why[GPU_WHY];
    int64_t item;
    stand_in_init(&z.s, 16 * PAGE, 1);
    z.stream = z.s.runtime.stream_new(&z.s, why);
    void *taken = z.s.runtime.alloc_device(&z.s, 4 * PAGE, why);
    z.p = pager_open(&(pager_config){.kind = PAGER_MANAGED, .page_bytes = PAGE, .gpu = &z.s.runtime, .stream = z.stream, .reserve = 2 * PAGE}, &e);
    for (int i = 0; i < 11; i++) CU_ASSERT(pager_add(z.p, PAGE, &item, &e));
    CU_ASSERT(!pager_start(z.p, &e));
    REQUIRE_MESSAGE(&e, "pager", "the state has 22528 bytes, the card 24576 free (4096 to be left)", "too much managed memory");
    CU_ASSERT(z.s.managed_bytes == 0);
    pager_close(z.p);
    z.s.concurrent = false;
    z.p = pager_open(&(pager_config){.kind = PAGER_MANAGED, .page_bytes = PAGE, .gpu = &z.s.runtime, .stream = z.stream}, &e);
    CU_ASSERT(pager_add(z.p, PAGE, &item, &e) && !pager_start(z.p, &e));
    REQUIRE_MESSAGE(&e, "pager", "no concurrent managed access", "an old card");
    z.s.runtime.free_device(&z.s, taken);
    finish(&z);
    CU_ASSERT(z.s.allocations == 0 && z.s.handles == 0);
}

/* Someone takes the card's memory, and gives it back. */
static void gives_way_and_recovers(void)
{
    static scene z;
    ck_error e = {0};
    char why[GPU_WHY];
    wrong = absent = 0;
    if (!REQUIRE(begin(&z, PAGER_MANAGED, 0, 5, &e), "%s", e.message)) return;
    CU_ASSERT(round_of(&z, 0, &e));
    stand_in_run_all(&z.s);
    size_t all = pager_count(z.p).resident_bytes;
    CU_ASSERT(all == pager_count(z.p).total_bytes && pager_count(z.p).bytes_out == 0);
    void *hog = z.s.runtime.alloc_device(&z.s, 62 * PAGE, why); /* two pages are left */
    CU_ASSERT(hog && round_of(&z, 1, &e));
    stand_in_run_all(&z.s);
    REQUIRE(pager_count(z.p).resident_bytes < all && pager_count(z.p).bytes_out > 0, "it did not give way");
    z.s.runtime.free_device(&z.s, hog);
    CU_ASSERT(round_of(&z, 2, &e) && round_of(&z, 3, &e));
    stand_in_run_all(&z.s);
    uint64_t out = pager_count(z.p).bytes_out;
    CU_ASSERT(pager_count(z.p).resident_bytes == all && out > 0);
    finish(&z);
    CU_ASSERT(!z.s.stuck);
    /* while the driver has sent pages out behind its back, work finds them where it must fetch them: slow, not wrong */
    REQUIRE(wrong == 0, "%ld bytes wrong", wrong);
}

void test_pager_gpu(CU_pSuite suite)
{
    CU_add_test(suite, "every_order", every_order);
    CU_add_test(suite, "copies_overlap_work", copies_overlap_work);
    CU_add_test(suite, "every_failure", every_failure);
    CU_add_test(suite, "never_more_than_free", never_more_than_free);
    CU_add_test(suite, "gives_way_and_recovers", gives_way_and_recovers);
}
