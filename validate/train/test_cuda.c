/* test_cuda.c: the decoder's operations on CUDA, held to the bounds of test_lockstep.c: in the SIMT executor with all its checks
 * (test_train_cuda), and where there is a GPU on that (test_train_gpu; none has run it yet). Exit status 77: there is none.
 *
 * A launch in which the executor finds anything (a race, a read of bytes nobody wrote, an access outside a buffer) is an error
 * of its operation, and so of the test. */
#include "product_cublas.h"
#include "random.h"
#include "test_cuda_device.h"
#include "test_cuda_steps.h"
#include "test_lockstep.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

#pragma weak lm_cuda_ops /* absent in a build without nvcc */
#pragma weak planted_ops /* absent on a GPU */
#pragma weak planted_barriers
#pragma weak planted_leave_out
const lm_ops *lm_cuda_ops(void);

static const lm_ops *cuda_ops(void)
{
    char text[FB_MESSAGE_SIZE];
    const lm_ops *ops = lm_backend_ops(FB_BACKEND_CUDA, text);
    if (!ops) fprintf(stderr, "%s\n", text), abort();
    return ops;
}

/* ---- each operation, alone ------------------------------------------------------------------------------------------------ */

static uint64_t stream;

/* Freed by the caller. */
static float *random_floats(int64_t n, double deviation)
{
    float *x = malloc((size_t)(n ? n : 1) * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = (float)(deviation * lm_normal(7, stream, (uint64_t)i));
    stream++;
    return x;
}
static int32_t *random_ids(int64_t n, int64_t below, bool some_negative)
{
    int32_t *x = malloc((size_t)n * sizeof *x);
    if (!x) abort();
    for (int64_t i = 0; i < n; i++) x[i] = some_negative && i % 7 == 3 ? -1 : (int32_t)lm_below(7, stream, (uint64_t)i, (uint64_t)below);
    stream++;
    return x;
}

typedef fb_status (*trial)(const lm_ops *, fb_context *, const int64_t *sizes);
enum { SIZES = 5 };

static fb_status try_product(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    float *a = random_floats(s[0] * s[2], 1), *b = random_floats(s[1] * s[2], 1), *c = random_floats(s[0] * s[1], 1);
    fb_status status = ops->product(ctx, s[3] & 1, s[3] & 2, s[0], s[1], s[2], s[4] ? 0.7 : 1, a, b, c, s[4] != 0);
    return free(a), free(b), free(c), status;
}
static fb_status try_embed(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    int64_t n = s[0], vocab = s[1], d = s[2];
    float *table = random_floats(vocab * d, 1), *rows = random_floats(n * d, 1);
    int32_t *ids = random_ids(n, vocab, false);
    fb_status status = ops->embed_backward(ctx, rows, ids, n, vocab, d, table);
    if (status == FB_OK) status = ops->embed(ctx, table, ids, n, vocab, d, rows);
    return free(table), free(rows), free(ids), status;
}
static fb_status try_rmsnorm(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    int64_t n = s[0], d = s[1];
    float *x = random_floats(n * d, 2), *w = random_floats(d, 1), *y = random_floats(n * d, 1), *scale = random_floats(n, 1), *dx = random_floats(n * d, 1),
          *dw = random_floats(d, 1);
    fb_status status = ops->rmsnorm(ctx, x, w, n, d, 1e-5, y, scale);
    if (status == FB_OK) status = ops->rmsnorm_backward(ctx, y, x, w, scale, n, d, dx, s[2] ? dw : NULL);
    return free(x), free(w), free(y), free(scale), free(dx), free(dw), status;
}
static fb_status try_rope(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    int64_t batch = s[0], seq = s[1], heads = s[2], width = s[3], most = seq + 3;
    float *turns = random_floats(most * width, 1), *x = random_floats(batch * seq * heads * width, 1);
    for (int64_t i = 0; i < most * width; i++) turns[i] = (float)sin((double)turns[i]);
    fb_status status = ops->rope(ctx, turns, most, batch, seq, heads, width, s[4] != 0, x);
    return free(turns), free(x), status;
}
static fb_status try_attention(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    const lm_attention a = {s[0], s[1], s[2], s[3], s[4]};
    int64_t n = a.batch * a.seq * a.heads * a.head_dim, kv = a.batch * a.seq * a.kv_heads * a.head_dim, rows = a.batch * a.seq * a.heads;
    float *q = random_floats(n, 1.5), *k = random_floats(kv, 1.5), *v = random_floats(kv, 1), *out = random_floats(n, 1), *log_sum = random_floats(rows, 1),
          *dout = random_floats(n, 1), *dq = random_floats(n, 1), *dk = random_floats(kv, 1), *dv = random_floats(kv, 1);
    fb_status status = ops->attention(ctx, &a, q, k, v, out, log_sum);
    if (status == FB_OK) status = ops->attention_backward(ctx, &a, q, k, v, out, log_sum, dout, dq, dk, dv);
    return free(q), free(k), free(v), free(out), free(log_sum), free(dout), free(dq), free(dk), free(dv), status;
}
static fb_status try_elements(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    int64_t n = s[0], part = s[1];
    float *a = random_floats(n, 8), *b = random_floats(n, 1), *c = random_floats(n, 1), *d = random_floats(n, 1);
    fb_status status = ops->swiglu(ctx, a, b, n, c);
    if (status == FB_OK) status = ops->swiglu_backward(ctx, c, a, b, n, a, b); /* in place */
    if (status == FB_OK) status = ops->add(ctx, a, n, b);
    if (status == FB_OK) status = ops->drop(ctx, a, n, 0x60000000u, 99, b);
    if (status == FB_OK) status = ops->add_kept(ctx, a, n, 0x60000000u, 99, c);
    if (status == FB_OK) status = ops->add_row_sums(ctx, a, 0.3, n / part, part, part, d);
    return free(a), free(b), free(c), free(d), status;
}
static fb_status try_loss(const lm_ops *ops, fb_context *ctx, const int64_t *s)
{
    int64_t n = s[0], vocab = s[1];
    float *logits = random_floats(n * vocab, 4), *losses = random_floats(n, 1);
    int32_t *targets = random_ids(n, vocab, true);
    double *sums = calloc((size_t)fb_ceil_div(n * vocab, LM_SQUARE_CHUNK), sizeof *sums);
    if (!sums) abort();
    fb_status status = ops->cross_entropy(ctx, logits, targets, n, vocab, 0, losses);
    if (status == FB_OK) status = ops->cross_entropy(ctx, logits, targets, n, vocab, s[2] ? 1e-3 : 1, losses);
    if (status == FB_OK) status = ops->square_sums(ctx, logits, n * vocab, sums);
    return free(logits), free(losses), free(targets), free(sums), status;
}

/* Around the tiles' edges; more rows than the executor's grids have blocks; heads of 256. */
static const struct {
    const char *name;
    trial run;
    int64_t sizes[8][SIZES];
} trials[] = {
    {"product (m, n, k, transposed, accumulating)", try_product,
     {{1, 1, 1, 0, 0}, {64, 64, 16, 3, 1}, {65, 63, 17, 1, 0}, {7, 130, 33, 2, 1}, {300, 330, 5, 0, 1}, {128, 1, 100, 2, 0}}},
    {"embed (rows, vocabulary, width)", try_embed, {{1, 1, 1}, {300, 5, 3}, {513, 40, 70}, {64, 30, 257}}},
    {"rmsnorm (rows, width, dw)", try_rmsnorm, {{1, 1, 1}, {30, 48, 1}, {9, 257, 0}, {33, 1000, 1}, {3, 2049, 1}}},
    {"rope (batch, seq, heads, width, back)", try_rope, {{1, 1, 1, 2, 0}, {3, 9, 3, 16, 1}, {2, 33, 5, 40, 0}}},
    {"attention (batch, seq, heads, kv heads, width)", try_attention,
     {{1, 1, 1, 1, 2}, {3, 9, 4, 2, 16}, {1, 33, 2, 1, 64}, {2, 65, 1, 1, 30}, {1, 70, 2, 2, 128}, {1, 40, 1, 1, 256}, {5, 8, 6, 2, 4}}},
    {"elements (count, a row's)", try_elements, {{1, 1}, {255, 5}, {7000, 70}, {1023, 341}}},
    {"loss (rows, vocabulary, scaled)", try_loss, {{1, 1, 0}, {30, 256, 1}, {3, 1000, 0}, {5, 33, 1}}}};
enum { TRIALS = sizeof trials / sizeof *trials };

static int64_t bad_elements(void)
{
    int64_t bad = 0;
    for (int i = 0; i < LOCKSTEP_OPS; i++) bad += lockstep_counts()[i].bad;
    return bad;
}

/* All trials by these operations, in device memory. */
static void hold_shapes(const char *what, const lm_ops *ops)
{
    device *d = test_cuda_device();
    CU_ASSERT_FATAL(d != NULL);
    for (int t = 0; t < TRIALS; t++)
        for (int i = 0; i < 8 && trials[t].sizes[i][0]; i++) {
            fb_context ctx;
            fb_context_init(&ctx, FB_BACKEND_CUDA);
            test_cuda_order((unsigned)i);
            long before = test_cuda_launches();
            fb_status status = trials[t].run(lockstep_begin(test_cuda_mirror(d, ops)), &ctx, trials[t].sizes[i]);
            if (status != FB_OK || bad_elements())
                printf("\n    %s, %s, case %d: %lld elements beyond their bound; %s", what, trials[t].name, i, (long long)bad_elements(), ctx.message);
            CU_ASSERT(status == FB_OK && bad_elements() == 0);
            CU_ASSERT(!test_cuda_executes() || test_cuda_launches() > before);
        }
    d->close(d);
    test_cuda_order(9);
}

/* On a GPU the table may have cuBLAS's products; then ours are held once more. */
static void test_shapes(void)
{
    const lm_ops *ops = cuda_ops();
    hold_shapes(ops->name, ops);
    if (lm_cuda_ops && ops->product != lm_cuda_ops()->product) hold_shapes("own products", lm_cuda_ops());
}

/* Does leaving that barrier out of one of the trial's cases make the executor report a race, or a read of what is not there yet? */
static bool is_missed(int t, int number)
{
    bool seen = false;
    planted_leave_out(number);
    test_cuda_quiet(true);
    for (int i = 0; i < 8 && trials[t].sizes[i][0] && !seen; i++) {
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        seen = trials[t].run(planted_ops(), &ctx, trials[t].sizes[i]) != FB_OK && (strstr(ctx.message, "race") || strstr(ctx.message, "uninitialised"));
    }
    test_cuda_quiet(false);
    planted_leave_out(-1);
    return seen;
}

static void test_barriers(void)
{
    bool missed[PLANTED_MOST] = {false};
    int met = 0, needed = 0;
    for (int t = 0; t < TRIALS; t++) {
        CU_ASSERT(!is_missed(t, -1)); /* and now it is known which barriers these kernels meet */
        for (int number = 0; number < PLANTED_MOST; number++)
            if (planted_barriers()[number].line && !missed[number]) missed[number] = is_missed(t, number);
    }
    for (int number = 0; number < PLANTED_MOST; number++) {
        const planted_barrier *b = &planted_barriers()[number];
        met += b->line != 0, needed += missed[number];
        if (b->line && !missed[number]) printf("\n    %s:%d: left out, and nothing is reported", b->file, b->line);
    }
    CU_ASSERT(needed > 12 && needed == met);
}

/* By a cuBLAS that computes on the host: which way round matrices are handed to it. What it refuses is an error in its words. */
static void test_cublas(void)
{
    setenv("CUDA_HOME", PLANTED_CUDA_HOME, 1);
    const lm_ops *ops = lm_with_cublas(cuda_ops());
    CU_ASSERT(strcmp(ops->name, "cuda+cublas") == 0 && ops == lm_with_cublas(cuda_ops()));
    long before = test_cuda_launches();
    for (int i = 0; i < 8 && trials[0].sizes[i][0]; i++) {
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        for (int64_t way = 0; way < 8; way++) {
            const int64_t s[SIZES] = {trials[0].sizes[i][0], trials[0].sizes[i][1], trials[0].sizes[i][2], way % 4, way / 4};
            fb_status status = try_product(lockstep_begin(ops), &ctx, s);
            if (status != FB_OK || bad_elements()) printf("\n    case %d, way %d: %lld bad; %s", i, (int)way, (long long)bad_elements(), ctx.message);
            CU_ASSERT(status == FB_OK && bad_elements() == 0);
        }
    }
    CU_ASSERT(test_cuda_launches() == before); /* none of them went the other way */
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    setenv("PLANTED_FAULT", "refuse", 1);
    CU_ASSERT(try_product(ops, &ctx, trials[0].sizes[0]) == FB_BACKEND_ERROR && strstr(ctx.message, "status 13"));
    unsetenv("PLANTED_FAULT");
}

/* An id beyond the table is reported, with its source and buffer. */
static void test_bounds(void)
{
    const int32_t id = 5;
    float *table = random_floats(20, 1), *row = random_floats(400, 1); /* not neighbours */
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    test_cuda_quiet(true);
    CU_ASSERT(cuda_ops()->embed(&ctx, table, &id, 1, 5, 4, row) == FB_BACKEND_ERROR);
    CU_ASSERT(strstr(ctx.message, "out of bounds") && strstr(ctx.message, "ops_cuda_embed.cu") && strstr(ctx.message, "table"));
    test_cuda_quiet(false);
    free(table), free(row);
}

int main(void)
{
    char text[FB_MESSAGE_SIZE];
    if (test_cuda_executes()) setenv("FOURBIT_CUDA", "simt", 1);
    if (!lm_backend_ops(FB_BACKEND_CUDA, text)) return printf("%s\n", text), 77;
    if (!test_steps_begin() || CU_initialize_registry() != CUE_SUCCESS) return 2;
    static const struct { const char *name; void (*run)(void); bool executor; } tests[] = {
        {"each operation at its edges", test_shapes, false}, {"each barrier is needed", test_barriers, true}, {"products by cuBLAS", test_cublas, true},
        {"an id beyond the table", test_bounds, true}, {"the guard on device memory", test_steps_guard, true},
        {"losses as on the CPU", test_steps_losses, false}, {"the same bits again, in any order", test_steps_orders, false},
        {"a run goes on from its checkpoint", test_steps_resume, false}, {"state in pinned and managed memory", test_steps_paged, false},
        {"what leaves the device", test_steps_results, false}};
    CU_pSuite s = CU_add_suite("train on cuda", NULL, NULL);
    for (size_t i = 0; s && i < sizeof tests / sizeof *tests; i++)
        if ((test_cuda_executes() || !tests[i].executor) && !CU_add_test(s, tests[i].name, tests[i].run)) return 2;
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures() + (CU_get_number_of_tests_run() == 0);
    CU_cleanup_registry();
    return failed || !test_steps_end() ? 1 : 0;
}
