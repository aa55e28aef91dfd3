/* test_spike.c: the five arms (spike.h) on the host: a device whose memory is a budget, state behind a file. And that the
 * verdict can be another: a hog that takes too little, a pager that forgets. */
#include "spike.h"
#include "test_state.h"

#include <stdlib.h>
#include <string.h>

/* A host device that refuses to give out more than `limit` bytes. */
typedef struct limited {
    device d; /* first */
    size_t limit, used, taken;
} limited;

static void *limited_alloc(device *d, size_t bytes)
{
    limited *l = (limited *)d;
    size_t *p = NULL;
    if (bytes > l->limit - l->used - l->taken) return snprintf(d->why, sizeof d->why, "the budget of %zu bytes has %zu left", l->limit, l->limit - l->used - l->taken), NULL;
    if (posix_memalign((void **)&p, 256, bytes + 256) != 0) return NULL;
    *p = bytes;
    l->used += bytes;
    return (char *)p + 256;
}
static void limited_release(device *d, void *p)
{
    size_t *at = (size_t *)(void *)((char *)p - 256);
    ((limited *)d)->used -= *at;
    free(at);
}
static bool copy(device *d, void *to, const void *from, size_t bytes) { return (void)d, memcpy(to, from, bytes), true; }
static bool fill(device *d, void *to, int byte, size_t bytes) { return (void)d, memset(to, byte, bytes), true; }
static bool wait(device *d) { return (void)d, true; }

static size_t free_bytes(void *self)
{
    const limited *l = self;
    return l->limit - l->used - l->taken;
}
static bool take(void *self, size_t left, ck_error *e)
{
    limited *l = self;
    if (free_bytes(l) < left) return ck_fail(e, "hog", NULL, "only %zu bytes are free", free_bytes(l));
    l->taken = free_bytes(l) - left;
    return true;
}
static void give(void *self) { ((limited *)self)->taken = 0; }
static bool take_little(void *self, size_t left, ck_error *e) { return (void)self, (void)left, (void)e, true; }

enum { ELEMENTS = 60000, PAGE = 8192 };

static spike_setup setup_of(limited *l, bool state8)
{
    *l = (limited){.d = {.kind = "host", .alloc = limited_alloc, .release = limited_release, .upload = copy, .download = copy, .fill = fill, .wait = wait}};
    /* parameters, gradients and state, and not much more */
    l->limit = (size_t)ELEMENTS * (state8 ? 8 + 3 : 8 + 10);
    spike_setup s = {.device = &l->d, .memory = {l, free_bytes, take, give}, .state8 = state8, .elements = ELEMENTS, .folder = test_folder(),
                     .paged = {.kind = PAGER_FILE, .page_bytes = PAGE, .folder = test_folder(), .device = &l->d}};
    fb_context_init(&s.context, FB_BACKEND_CPU);
    s.context.threads = 1;
    return s;
}

static void five_arms(void)
{
    for (int state8 = 0; state8 < 2; state8++) {
        test_folder_empty();
        limited l;
        static spike_result r;
        ck_error e = {0};
        spike_setup s = setup_of(&l, state8);
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
    limited l;
    static spike_result r;
    ck_error e = {0};
    spike_setup s = setup_of(&l, false);
    s.memory.take = take_little;
    CU_ASSERT(!spike_run(&s, &r, &e));
    REQUIRE_MESSAGE(&e, "spike: key 'hog'", "the hog left", "nothing was taken");
    s = setup_of(&l, false);
    s.paged.kind = PAGER_RESIDENT; /* cannot give way */
    CU_ASSERT(!spike_run(&s, &r, &e));
    REQUIRE_MESSAGE(&e, "spike: key 'hog'", "resident state is all there or not at all", "resident in place of paged");
    CU_ASSERT(l.used == 0 && l.taken == 0);
}

void test_spike(CU_pSuite suite)
{
    CU_add_test(suite, "five_arms", five_arms);
    CU_add_test(suite, "a_hog_that_is_none", a_hog_that_is_none);
}
