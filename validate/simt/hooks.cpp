/* hooks.cpp — the functions the compiler calls under -fsanitize=thread, in place of its own runtime's.
 *
 * Only kernels' translation units are compiled that way; nothing of the executor is.  Host code in such a unit lands here
 * too and leaves at the first test.  mode is 0 when checks and counters are off, which makes a hook three instructions.
 */
#include "core.h"

namespace simt {

static inline __attribute__((always_inline)) void touch(const void *p, size_t n, Touch t, Where where) {
    Worker *w = tl_worker;
    if (!w || !w->current) return;
    uint8_t mode = w->mode.load(std::memory_order_relaxed);
    if (!mode) return;
    if (mode & kModeStop) abandon();
    Fiber &f = *w->current;
    if ((size_t)((const char *)p - w->shared_arena) < w->shared_extent) return touch_shared(f, p, n, t, where, true);
    if ((size_t)((const char *)p - f.stack) < kStackBytes) {
        if (f.registers_in_flight) touch_registers(f, p, n, t, where);
        return;
    }
    touch_global(f, p, n, t, where, true);
}

void access(const void *p, size_t n, Touch t, Where where) { touch(p, n, t, where); }
void announce(const void *p, size_t n, bool write, const void *pc) { touch(p, n, write ? Touch::Write : Touch::Read, pc); }

void access_for(Fiber &f, const void *p, size_t n, Touch t, Where where, bool counted) {
    Worker &w = *tl_worker;
    if (!(w.mode.load(std::memory_order_relaxed) & (kModeChecks | kModeCount))) return;
    if (is_shared(p)) return touch_shared(f, p, n, t, where, counted);
    if ((size_t)((const char *)p - f.stack) < kStackBytes) return;
    touch_global(f, p, n, t, where, counted);
}

} // namespace simt

using simt::Touch;

extern "C" {

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *);
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *);
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **);
void __tsan_vptr_read(void **) {}

#define SIMT_HOOK(NAME, N, TOUCH)          \
    void NAME(void *p);                    \
    void NAME(void *p) { simt::touch(p, N, TOUCH, __builtin_return_address(0)); }
#define SIMT_HOOKS(N)                                         \
    SIMT_HOOK(__tsan_read##N, N, Touch::Read)                 \
    SIMT_HOOK(__tsan_write##N, N, Touch::Write)               \
    SIMT_HOOK(__tsan_unaligned_read##N, N, Touch::Read)       \
    SIMT_HOOK(__tsan_unaligned_write##N, N, Touch::Write)     \
    SIMT_HOOK(__tsan_volatile_read##N, N, Touch::Read)        \
    SIMT_HOOK(__tsan_volatile_write##N, N, Touch::Write)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

/* "*p += x" where the compiler folds both into one call (clang). */
#define SIMT_BOTH(N)                                                        \
    void __tsan_read_write##N(void *p);                                     \
    void __tsan_read_write##N(void *p) {                                    \
        simt::touch(p, N, Touch::Read, __builtin_return_address(0));        \
        simt::touch(p, N, Touch::Write, __builtin_return_address(0));       \
    }                                                                       \
    void __tsan_unaligned_read_write##N(void *p);                           \
    void __tsan_unaligned_read_write##N(void *p) {                          \
        simt::touch(p, N, Touch::Read, __builtin_return_address(0));        \
        simt::touch(p, N, Touch::Write, __builtin_return_address(0));       \
    }
SIMT_BOTH(1)
SIMT_BOTH(2)
SIMT_BOTH(4)
SIMT_BOTH(8)
SIMT_BOTH(16)

void __tsan_read_range(void *p, size_t n);
void __tsan_read_range(void *p, size_t n) { simt::touch(p, n, Touch::Read, __builtin_return_address(0)); }
void __tsan_write_range(void *p, size_t n);
void __tsan_write_range(void *p, size_t n) { simt::touch(p, n, Touch::Write, __builtin_return_address(0)); }

void *__tsan_memcpy(void *d, const void *s, size_t n);
void *__tsan_memcpy(void *d, const void *s, size_t n) {
    simt::touch(s, n, Touch::Read, __builtin_return_address(0));
    simt::touch(d, n, Touch::Write, __builtin_return_address(0));
    return memcpy(d, s, n);
}
void *__tsan_memmove(void *d, const void *s, size_t n);
void *__tsan_memmove(void *d, const void *s, size_t n) {
    simt::touch(s, n, Touch::Read, __builtin_return_address(0));
    simt::touch(d, n, Touch::Write, __builtin_return_address(0));
    return memmove(d, s, n);
}
void *__tsan_memset(void *d, int v, size_t n);
void *__tsan_memset(void *d, int v, size_t n) {
    simt::touch(d, n, Touch::Write, __builtin_return_address(0));
    return memset(d, v, n);
}

/* The guard of a function-local static is read this way. */
int8_t __tsan_atomic8_load(const volatile int8_t *p, int);
int8_t __tsan_atomic8_load(const volatile int8_t *p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
int32_t __tsan_atomic32_load(const volatile int32_t *p, int);
int32_t __tsan_atomic32_load(const volatile int32_t *p, int) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
/* clang calls this in no_sanitize functions too */
void __tsan_atomic32_store(volatile int32_t *p, int32_t v, int);
void __tsan_atomic32_store(volatile int32_t *p, int32_t v, int) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
}
