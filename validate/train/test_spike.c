/* test_spike.c: the five arms (spike.h) on the host: a device whose memory is a budget, state behind a file. And that the
 * verdict can be another: a hog that takes too little, a pager that forgets. */
#include "spike_host.h"
#include "test_state.h"

#include <string.h>

static bool take_little(void *self, size_t left, ck_error *e) { return (void)self, (void)left, (void)e, true; }

enum { ELEMENTS = 60000 };

static void five_arms(void)
{
    for (int state8 = 0; state8 < 2; state8++) {
        test_folder_empty();
        spike_host l;
        static spike_result r;
        ck_error e = {0};
        spike_setup s = spike_host_setup(&l, test_folder(), ELEMENTS, state8);
        REQUIRE(spike_run(&s, &r, &e), "state8 %d: %s", state8, e.message);
        REQUIRE(strstr(r.control, "no memory for page") && strstr(r.control, "the budget of"), "the control said \"%s\"", r.control);
        CU_ASSERT(r.arms[SPIKE_HOG].bytes_in > r.state_bytes && r.arms[SPIKE_HOG].bytes_out > r.state_bytes && r.arms[SPIKE_PAGED].bytes_in == 0);
        CU_ASSERT(r.arms[SPIKE_RESIDENT].loss[SPIKE_STEPS - 1] != r.arms[SPIKE_RESIDENT].loss[0]);
        REQUIRE(l.used == 0 && l.taken == 0, "%zu bytes were not given back", l.used);
    }
}

/* The verdict's own test. */
static void a_hog_that_is_none(void)
{
    test_folder_empty();
    spike_host l;
    static spike_result r;
    ck_error e = {0};
    spike_setup s = spike_host_setup(&l, test_folder(), ELEMENTS, false);
    s.memory.take = take_little;
    CU_ASSERT(!spike_run(&s, &r, &e));
    REQUIRE_MESSAGE(&e, "spike: key 'hog'", "the hog left", "nothing was taken");
    s = spike_host_setup(&l, test_folder(), ELEMENTS, false);
    s.paged.kind = PAGER_RESIDENT; /* cannot give way */
    CU_ASSERT(!spike_run(&s, &r, &e));
    REQUIRE_MESSAGE(&e, "spike: key 'hog'", "resident state is all there or not at all", "resident in place of paged");
    CU_ASSERT(l.used == 0 && l.taken == 0);
}

/* With room for all of it, a pager costs a look-up for each page: not measured here (fourbit-spike does), only that it
 * measures two runs that are equally long and moves nothing. */
static void overhead_is_measured(void)
{
    test_folder_empty();
    spike_host l;
    ck_error e = {0};
    spike_overhead o;
    spike_setup s = spike_host_setup(&l, test_folder(), ELEMENTS, false);
    s.memory = (spike_memory){0};
    l.limit *= 3; /* two of everything */
    REQUIRE(spike_measure_overhead(&s, 5, &o, &e), "%s", e.message);
    CU_ASSERT(o.resident > 0 && o.paged > 0 && o.ratio > 0 && o.moved == 0 && l.used == 0);
}

void test_spike(CU_pSuite suite)
{
    CU_add_test(suite, "five_arms", five_arms);
    CU_add_test(suite, "a_hog_that_is_none", a_hog_that_is_none);
    CU_add_test(suite, "overhead_is_measured", overhead_is_measured);
}
