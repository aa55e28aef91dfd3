/* run_tests.h: the main of a program of CUnit tests that runs kernels in the executor. */
#ifndef FOURBIT_SIMT_RUN_TESTS_H
#define FOURBIT_SIMT_RUN_TESTS_H

#include <CUnit/Basic.h>
#include <cstddef>
#include <cstring>

struct NamedTest {
    const char *name;
    void (*run)();
};

/* The tests whose name contains argv[1]; the exit code: 0 only if there are some, and all ran and passed. */
template <size_t N> static int run_tests(const char *suite, const NamedTest (&cases)[N], int argc, char **argv)
{
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    CU_pSuite s = CU_add_suite(suite, nullptr, nullptr);
    unsigned added = 0, wanted = 0;
    for (auto &c : cases) {
        if (argc > 1 && !strstr(c.name, argv[1])) continue;
        wanted++;
        if (s && CU_add_test(s, c.name, c.run)) added++;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned bad = CU_get_number_of_failures() + CU_get_number_of_tests_failed(), run = CU_get_number_of_tests_run();
    CU_cleanup_registry();
    return bad || run != added || added != wanted || !wanted;
}

#endif
