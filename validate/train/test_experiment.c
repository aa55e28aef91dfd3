/* test_experiment.c: the experiment's statistics against published values, and its verdict on made-up results: one that is as
 * claimed, and the same with one claim spoiled at a time, each of which must be seen. */
#include "experiment.h"
#include "statistics.h"

#include <CUnit/Basic.h>
#include <math.h>
#include <stdlib.h>

static void test_statistics(void)
{
    const double x[] = {1, 2, 3, 4}, groups[] = {1, 3, 5, 9}, none[] = {-1, 1, -1, 1};
    stat_sample s = stat_of(x, 4);
    CU_ASSERT(s.mean == 2.5 && fabs(s.deviation - 1.2909944) < 1e-7);
    CU_ASSERT(isnan(stat_of(x, 1).deviation) && stat_t95(0) == INFINITY);
    CU_ASSERT(stat_t95(2) == 2.92 && fabs(stat_t95(30) - 1.6973) < 1e-4 && fabs(stat_t95(120) - 1.6577) < 1e-4);
    CU_ASSERT(fabs(stat_pooled(groups, 2, 2) - sqrt((2 + 8) / 2.0)) < 1e-12);
    CU_ASSERT(stat_above_zero(x, 4) && !stat_above_zero(none, 4) && !stat_above_zero(x, 1));
    stat_equivalence e = stat_tost(x, 4, 4.1); /* 2.5 +- 2.3534 * 1.2910 / 2 */
    CU_ASSERT(fabs(e.low - 0.98089) < 1e-4 && fabs(e.high - 4.01911) < 1e-4 && e.equivalent && !stat_tost(x, 4, 4).equivalent);
    CU_ASSERT(!stat_tost(x, 1, 100).equivalent);
    const double nans[] = {NAN, 1, 2};
    CU_ASSERT(!stat_above_zero(nans, 3) && !stat_tost(nans, 3, 100).equivalent);
}

static const x_settings settings = {.seeds = 3, .tunes = 2, .noise = 3, .blocks = 1, .block_sizes = {64}};

/* As claimed: errors at the closed form, nf4 < int4 < int3, all but int3 within seed noise of bf16. */
static void plant(x_results *r, double *gaps)
{
    static const double costs[X_FORMATS] = {0, 0.03, 0.03, 0.06, 0.05, 0.35}, ends[X_FORMATS] = {0, 0.001, 0.001, 0.002, 0.002, 0.05};
    *r = (x_results){.done = 3, .windows = 4};
    for (int i = 0; i < 4; i++) gaps[i] = 0.02 + 0.001 * i;
    r->window_gap[0] = gaps;
    for (int f = 0; f < X_FORMATS; f++) r->weight_theory[f][0] = x_theory((x_format)f, 64);
    for (int s = 0; s < 3; s++)
        for (int f = 0; f < X_FORMATS; f++) {
            r->weight_error[s][f][0] = f == X_BF16 ? 0 : 1.01 * r->weight_theory[f][0];
            r->increase[s][f][0] = costs[f] * (1 + 0.1 * s);
            for (int t = 0; t < 3; t++) r->tuned[s][t][f] = 1.5 + 0.005 * t + 0.01 * s + ends[f] * (1 + 0.1 * t);
        }
}

static bool judged(const x_results *r)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    CU_ASSERT_FATAL(to != NULL);
    bool ok = x_verdict(&settings, r, to);
    fclose(to);
    free(text);
    return ok;
}

static void test_verdict(void)
{
    x_results r;
    double gaps[4];
    plant(&r, gaps);
    CU_ASSERT(judged(&r));
    r.weight_error[1][X_FP4][0] *= 1.2; /* a mean 6.7 % + 1 % off */
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), r.weight_error[0][X_NF4][0] = NAN;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), r.increase[2][X_INT4][0] = 0.01;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), gaps[0] = -1;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), r.tuned[1][1][X_NF4] += 0.2;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), r.tuned[0][0][X_NF4_DQ] = NAN;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps); /* noise in which the control gets lost */
    r.tuned[0][2][X_BF16] += 0.3;
    CU_ASSERT(!judged(&r));
    plant(&r, gaps); /* a control that passes */
    for (int s = 0; s < 3; s++)
        for (int t = 0; t < 2; t++) r.tuned[s][t][X_INT3] = r.tuned[s][t][X_NF4];
    CU_ASSERT(!judged(&r));
    plant(&r, gaps), r.done = 1;
    CU_ASSERT(!judged(&r));
}

int main(void)
{
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    CU_pSuite s = CU_add_suite("train experiment", NULL, NULL);
    if (!s || !CU_add_test(s, "statistics", test_statistics) || !CU_add_test(s, "verdict", test_verdict)) return 2;
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return failed ? 1 : 0;
}
