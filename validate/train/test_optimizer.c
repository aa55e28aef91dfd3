/* test_optimizer.c: the pager's kind, its budget, the pieces and the threads change no bit; what is clipped; what is refused
 * before anything is written. */
#include "test_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TENSORS = 5 };
static const int64_t shapes[TENSORS][2] = {{3, 5}, {40, 130}, {0, 77}, {64, 256}, {1, 1}};

typedef struct world {
    lm_tensor tensors[TENSORS], *list[TENSORS];
    optimizer *o;
} world;

static world make(void)
{
    world w = {0};
    for (int t = 0; t < TENSORS; t++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", t);
        w.tensors[t] = test_tensor(name, shapes[t][0], shapes[t][1], (uint64_t)t, true);
    }
    return w;
}

/* The list points into the world, which must not move after this. */
static bool start(world *w, const opt_config *config)
{
    ck_error e = {0};
    for (int t = 0; t < TENSORS; t++) w->list[t] = &w->tensors[t];
    w->o = opt_new(config, w->list, TENSORS, &e);
    return REQUIRE(w->o != NULL, "%s", e.message);
}

static void end(world *w)
{
    opt_free(w->o);
    for (int t = 0; t < TENSORS; t++) test_tensor_free(&w->tensors[t]);
}

static void step(world *w, int number)
{
    ck_error e = {0};
    double norm = 0;
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; i < w->tensors[t].count; i++) w->tensors[t].grad[i] = test_value((uint64_t)(100 + number * TENSORS + t), i);
    REQUIRE(opt_gradient_norm(w->o, &norm, &e) && opt_step(w->o, 1e-2, 0.5, norm, &e), "step %d: %s", number, e.message);
}

static bool same(const world *a, const world *b)
{
    for (int t = 0; t < TENSORS; t++)
        if (memcmp(a->tensors[t].data, b->tensors[t].data, (size_t)a->tensors[t].count * sizeof(float)) != 0) return false;
    return true;
}

static opt_config plain(bool state8)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CPU);
    ctx.threads = 1;
    opt_config c = opt_default(&ctx, NULL);
    c.state8 = state8;
    c.weight_decay = 0.1f;
    c.pager.folder = test_folder();
    return c;
}

static void same_bits_however_paged(void)
{
    for (int state8 = 0; state8 < 2; state8++) {
        opt_config c = plain(state8);
        world want = make();
        if (!start(&want, &c)) return;
        for (int n = 0; n < 5; n++) step(&want, n);
        static const struct { size_t budget, page; int threads; } ways[] = {{0, 0, 1}, {4400, 0, 3}, {10000, 4096, 2}, {20000, 2304, 1}};
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
            c.pager.kind = PAGER_FILE;
            c.pager.budget = ways[k].budget;
            c.pager.page_bytes = ways[k].page;
            c.context.threads = ways[k].threads;
            world w = make();
            if (!start(&w, &c)) return;
            for (int n = 0; n < 5; n++) step(&w, n);
            pager_counters p = pager_count(opt_pager(w.o));
            REQUIRE(same(&want, &w), "state8 %d, budget %zu: other bits", state8, ways[k].budget);
            REQUIRE((p.bytes_in > 0) == (ways[k].budget > 0), "budget %zu: %llu bytes moved", ways[k].budget, (unsigned long long)p.bytes_in);
            REQUIRE(!ways[k].budget || p.peak_bytes <= ways[k].budget, "budget %zu: %zu bytes resident", ways[k].budget, p.peak_bytes);
            end(&w);
        }
        CU_ASSERT(opt_steps(want.o) == 5 && !opt_failed(want.o));
        size_t elements = 15 + 40 * 130 + 77 + 64 * 256 + 1, blocks = 1 + 21 + 1 + 64 + 1;
        CU_ASSERT(opt_state_bytes(want.o) == (state8 ? 2 * elements + 8 * blocks : 8 * elements));
        end(&want);
    }
}

/* One whole tensor at a time through the library, without pieces or pager. */
static void as_the_library_does(void)
{
    opt_config c = plain(false);
    world w = make(), by_hand = make();
    if (!start(&w, &c)) return;
    float *m[TENSORS], *v[TENSORS];
    for (int t = 0; t < TENSORS; t++) m[t] = calloc((size_t)shapes[t][1] * 64, sizeof(float)), v[t] = calloc((size_t)shapes[t][1] * 64, sizeof(float));
    for (int n = 0; n < 3; n++) {
        double square = 0;
        step(&w, n);
        for (int t = 0; t < TENSORS; t++)
            for (int64_t i = 0; i < w.tensors[t].count; i++) square += (double)w.tensors[t].grad[i] * (double)w.tensors[t].grad[i];
        ck_error e = {0};
        double norm;
        CU_ASSERT(opt_gradient_norm(w.o, &norm, &e));
        REQUIRE(fabs(norm - sqrt(square)) <= 1e-12 * norm, "norm %.17g, one by one %.17g", norm, sqrt(square));
        for (int t = 0; t < TENSORS; t++) {
            fb_context ctx;
            fb_context_init(&ctx, FB_BACKEND_REFERENCE);
            fb_adamw h = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = shapes[t][0] ? 0.1f : 0,
                          .grad_scale = (float)(0.5 * (0.3 / (norm * 0.5))), .step = n + 1};
            CU_ASSERT(fb_adamw32(&ctx, &h, by_hand.tensors[t].count, by_hand.tensors[t].data, FB_F32, w.tensors[t].grad, FB_F32, m[t], v[t]) == FB_OK);
        }
    }
    REQUIRE(same(&w, &by_hand), "the library's AdamW gives other bits");
    for (int t = 0; t < TENSORS; t++) free(m[t]), free(v[t]);
    end(&w);
    end(&by_hand);
}

static void bad_gradients_change_nothing(void)
{
    opt_config c = plain(true);
    world w = make(), before = make();
    if (!start(&w, &c)) return;
    ck_error e = {0};
    double norm;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w.tensors[3].grad[16383] = bad[i];
        CU_ASSERT(opt_gradient_norm(w.o, &norm, &e));
        CU_ASSERT(!opt_step(w.o, 1e-2, 1, norm, &e));
        REQUIRE_MESSAGE(&e, "optimizer", "the norm of the gradients is", "a bad gradient");
        w.tensors[3].grad[16383] = 0;
    }
    CU_ASSERT(same(&w, &before) && opt_steps(w.o) == 0 && !opt_failed(w.o));
    for (int t = 0; t < TENSORS; t++) w.tensors[t].grad[0] = 1e19f;
    w.tensors[0].grad[0] = 1.7e19f; /* its square is just finite: clipped, it is a step like another */
    CU_ASSERT(opt_gradient_norm(w.o, &norm, &e) && !opt_step(w.o, 1e-2, 1, norm, &e) && opt_step(w.o, 1e-2, 0.5, norm, &e));
    bool finite = true;
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; i < w.tensors[t].count; i++) finite &= isfinite(w.tensors[t].data[i]);
    CU_ASSERT(finite);
    end(&w);
    end(&before);
}

/* In a child, whose files end while a page of state must make room for another: parameters and state are then of two
 * steps, and no other step is made. */
static int file_ends(void *unused)
{
    (void)unused;
    opt_config c = plain(false);
    c.pager.kind = PAGER_FILE;
    c.pager.budget = 10000;
    c.pager.page_bytes = 4096;
    ck_error e = {0};
    struct rlimit none, nothing;
    double norm;
    world w = make();
    if (!start(&w, &c) || getrlimit(RLIMIT_FSIZE, &none) != 0) return 9;
    nothing = none;
    nothing.rlim_cur = 0;
    for (int t = 0; t < TENSORS; t++) w.tensors[t].grad[0] = 1;
    if (!opt_gradient_norm(w.o, &norm, &e) || setrlimit(RLIMIT_FSIZE, &nothing) != 0) return 8;
    if (opt_step(w.o, 1e-2, 1, norm, &e) || !strstr(e.message, "cannot be written to its file") || !opt_failed(w.o)) return 7;
    if (setrlimit(RLIMIT_FSIZE, &none) != 0) return 6;
    if (opt_step(w.o, 1e-2, 1, norm, &e) || !strstr(e.message, "go back to a checkpoint") || opt_steps(w.o) != 0) return 5;
    end(&w);
    return 0;
}

static void half_a_step(void)
{
    int status = test_child(file_ends, NULL);
    REQUIRE(status == 0, "%d", status);
}

static void bad_configurations(void)
{
    ck_error e = {0};
    opt_config c = plain(false);
    world w = make();
    for (int t = 0; t < TENSORS; t++) w.list[t] = &w.tensors[t];
    c.beta2 = 1;
    CU_ASSERT(!opt_new(&c, w.list, TENSORS, &e) && strstr(e.message, "beta"));
    c = plain(false);
    c.max_norm = NAN;
    CU_ASSERT(!opt_new(&c, w.list, TENSORS, &e) && strstr(e.message, "max_norm"));
    c = plain(false);
    c.pager.kind = PAGER_FILE;
    c.pager.budget = 1024;
    CU_ASSERT(!opt_new(&c, w.list, TENSORS, &e) && strstr(e.message, "does not hold the state of 256 elements"));
    c = plain(false);
    float *grad = w.tensors[2].grad;
    w.tensors[2].grad = NULL;
    CU_ASSERT(!opt_new(&c, w.list, TENSORS, &e));
    REQUIRE_MESSAGE(&e, "optimizer: key 't2'", "no gradient", "a tensor without gradient");
    w.tensors[2].grad = grad;
    w.o = opt_new(&c, w.list, 0, &e); /* nothing to train is no error */
    double norm = 1;
    CU_ASSERT(w.o && opt_gradient_norm(w.o, &norm, &e) && norm == 0 && opt_step(w.o, 1, 1, norm, &e));
    end(&w);
}

void test_optimizer(CU_pSuite suite)
{
    CU_add_test(suite, "same_bits_however_paged", same_bits_however_paged);
    CU_add_test(suite, "as_the_library_does", as_the_library_does);
    CU_add_test(suite, "bad_gradients_change_nothing", bad_gradients_change_nothing);
    CU_add_test(suite, "half_a_step", half_a_step);
    CU_add_test(suite, "bad_configurations", bad_configurations);
}
