/* test_simt_ptx.h — what the PTX layer's test files share. Kernels take `bug`: 0 must be clean in several thread orders,
 * anything else plants one bug, which must be reported, alone, with kernel, file and line. */
#ifndef TEST_SIMT_PTX_H
#define TEST_SIMT_PTX_H

#include "test_simt.h" /* first: it says that this is the executor */

#include "kernels/cuda/ptx.cuh"
#include <vector>

using simt::Check;
using simt::Config;
using simt::launch;

template <class... P, class... A> static bool clean(const char *name, Config c, void (*kernel)(P...), A... args) {
    bool ok = true;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        simt::options().seed = seed;
        ok = launch(name, c, kernel, args...) == 0 && ok;
        ok = found_nothing() && ok;
    }
    simt::options().seed = 1;
    return ok;
}

/* alone: nothing else may be reported. A bug with consequences (a thread that goes on with poison) has more to show. */
template <class... P, class... A>
static bool caught_as(bool alone, int bug, Check check, const char *words, const char *name, Config c,
                      void (*kernel)(int, P...), A... args) {
    bool ok = true;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        simt::options().seed = seed;
        ok = launch(name, c, kernel, bug, args...) != 0 && ok;
        ok = (alone ? found_only(check, words) : found(check, words)) && found(check, "test_simt_ptx_") && found(check, name) && ok;
    }
    simt::options().seed = 1;
    return ok;
}
template <class... P, class... A>
static bool caught(int bug, Check check, const char *words, const char *name, Config c, void (*kernel)(int, P...), A... args) {
    return caught_as(true, bug, check, words, name, c, kernel, args...);
}

/* The twin must be clean, the bug must show. */
#define PLANT(BUG, CHECK, WORDS, NAME, CONFIG, ...)              \
    do {                                                         \
        CU_ASSERT(clean(#NAME, CONFIG, NAME, 0, __VA_ARGS__));   \
        CU_ASSERT(caught(BUG, CHECK, WORDS, #NAME, CONFIG, NAME, __VA_ARGS__)); \
    } while (0)

/* clang's instrumentation leaves out elements of local arrays even when the array's address is known elsewhere, so a read
 * of an accumulator in flight shows as a NaN in the results only. */
#ifdef __clang__
constexpr bool stack_is_announced = false;
#else
constexpr bool stack_is_announced = true;
#endif

static inline Config with_shared(unsigned grid, unsigned block, size_t shared_bytes, unsigned cluster = 1) {
    Config c{grid, block};
    c.shared_bytes = shared_bytes;
    c.cluster = dim3(cluster);
    return c;
}

/* Deterministic values: small integers are exact in every type and every order of summation. */
static inline unsigned hash(unsigned x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}
static inline float small_integer(unsigned i) { return (float)((int)(hash(i) % 15) - 7); }

/* Sixteen bits that hold a small value in either type. */
static inline uint16_t encode16(float v, bool f16) { return f16 ? simt::float_to_fp16(v) : simt::float_to_bf16(v); }

#endif
