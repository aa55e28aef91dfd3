/* test_simt.cpp — the executor's tests. test_simt [WORD] runs the suites whose name contains WORD. */
#include "test_simt.h"
#include <CUnit/Basic.h>
#include <cstdio>
#include <cstring>
#include <vector>

struct Entry {
    const char *suite;
    const SimtCase *cases;
    size_t n;
};
static std::vector<Entry> &entries() {
    static std::vector<Entry> v;
    return v;
}
void add_suite(const char *name, const SimtCase *cases, size_t n) { entries().push_back(Entry{name, cases, n}); }

static bool mentions(const simt::Diagnostic &d, const char *words) {
    return d.text().find(words) != std::string::npos && !d.kernel.empty();
}

bool found(simt::Check c, const char *words) {
    for (const simt::Diagnostic &d : simt::last_report().errors)
        if (d.check == c && mentions(d, words)) return true;
    printf("\n    wanted %s: \"%s\"; found:\n%s", simt::name(c), words, simt::last_report().text().c_str());
    return false;
}

bool found_only(simt::Check c, const char *words) {
    bool only = found(c, words);
    for (const simt::Diagnostic &d : simt::last_report().errors)
        if (d.check != c) {
            printf("\n    not wanted: %s\n", d.text().c_str());
            only = false;
        }
    return only;
}

bool found_nothing() {
    if (simt::last_report().ok()) return true;
    printf("\n%s", simt::last_report().text().c_str());
    return false;
}

int main(int argc, char **argv) {
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    simt::options().quiet = true;
    unsigned chosen = 0;
    for (const Entry &e : entries()) {
        if (argc > 1 && !strstr(e.suite, argv[1])) continue;
        CU_pSuite s = CU_add_suite(e.suite, nullptr, nullptr);
        for (size_t i = 0; i < e.n; i++) {
            if (!s || !CU_add_test(s, e.cases[i].name, e.cases[i].run)) return 2;
            chosen++;
        }
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures() + CU_get_number_of_tests_failed();
    unsigned run = CU_get_number_of_tests_run();
    CU_cleanup_registry();
    return failed || !chosen || run != chosen;
}
