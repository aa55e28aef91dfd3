/* test_simt.h — what the executor's test files share. Each fills suites from a table of tests. */
#ifndef TEST_SIMT_H
#define TEST_SIMT_H

#include "simt.h"
#include <CUnit/CUnit.h>

typedef void (*SimtTest)();
struct SimtCase {
    const char *name;
    SimtTest run;
};
void add_suite(const char *name, const SimtCase *cases, size_t n);
struct SimtSuite {
    template <size_t N> SimtSuite(const char *name, const SimtCase (&cases)[N]) { add_suite(name, cases, N); }
};

/* The last launch found exactly this, and nothing else; the message names kernel and source line. */
bool found_only(simt::Check, const char *words_in_the_message);
bool found(simt::Check, const char *words_in_the_message);
bool found_nothing(); /* prints what was found otherwise */

/* A device array that goes away with its scope. */
template <class T> struct Device {
    T *p;
    size_t n;
    explicit Device(size_t count, const char *name = "buffer") : p((T *)simt::alloc(count * sizeof(T), name)), n(count) {}
    Device(const T *values, size_t count, const char *name = "buffer") : Device(count, name) {
        simt::copy_in(p, values, count * sizeof(T));
    }
    Device(const Device &) = delete;
    ~Device() { simt::free(p); }
    operator T *() const { return p; }
    Device &zero() {
        simt::fill(p, 0, n * sizeof(T));
        return *this;
    }
};

#endif
