/* test_bench.h: the two files of tests of the benchmark. */
#ifndef FOURBIT_TEST_BENCH_H
#define FOURBIT_TEST_BENCH_H

#include <CUnit/Basic.h>
#include <stdbool.h>

/* test_runs.c. scratch: a folder to write results to. */
bool add_run_tests(CU_pSuite suite, const char *scratch);

#endif
