/* intrinsics.h — CUDA's built-in functions under their CUDA names.  Included by simt.h. */
#ifndef SIMT_INTRINSICS_H
#define SIMT_INTRINSICS_H

#include "simt.h"

#define SIMT_HERE simt::Site s_ = simt::Site::here()

/* --- barriers and fences --- */
static inline void __syncthreads(SIMT_HERE) { simt::sync_threads(s_); }
static inline int __syncthreads_and(int p, SIMT_HERE) { return simt::sync_threads_reduce(p, 0, s_); }
static inline int __syncthreads_or(int p, SIMT_HERE) { return simt::sync_threads_reduce(p, 1, s_); }
static inline int __syncthreads_count(int p, SIMT_HERE) { return simt::sync_threads_reduce(p, 2, s_); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) { simt::sync_warp(mask, s_); }
static inline void __threadfence_block() { simt::fence(0); }
static inline void __threadfence() { simt::fence(1); }
static inline void __threadfence_system() { simt::fence(2); }
static inline void __nanosleep(unsigned) { simt::spin_pause(); }
static inline void __trap(SIMT_HERE) { simt::trap("__trap()", s_); }
static inline size_t __cvta_generic_to_shared(const void *p) { return simt::shared_address(p); }
static inline void *__cvta_shared_to_generic(size_t a) { return simt::shared_pointer((uint32_t)a); }

/* --- shuffles: any 4- or 8-byte type --- */
namespace simt {
template <class T> inline T shuffle_any(unsigned mask, T v, int arg, int width, Shfl kind, Site s) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    uint64_t raw = 0;
    __builtin_memcpy(&raw, &v, sizeof v);
    raw = shuffle(mask, raw, arg, width, kind, sizeof v, s);
    T out;
    __builtin_memcpy(&out, &raw, sizeof out);
    return out;
}
} // namespace simt
template <class T> static inline T __shfl_sync(unsigned m, T v, int lane, int width = 32, SIMT_HERE) {
    return simt::shuffle_any(m, v, lane, width, simt::Shfl::Idx, s_);
}
template <class T> static inline T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32, SIMT_HERE) {
    return simt::shuffle_any(m, v, (int)d, width, simt::Shfl::Up, s_);
}
template <class T> static inline T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32, SIMT_HERE) {
    return simt::shuffle_any(m, v, (int)d, width, simt::Shfl::Down, s_);
}
template <class T> static inline T __shfl_xor_sync(unsigned m, T v, int x, int width = 32, SIMT_HERE) {
    return simt::shuffle_any(m, v, x, width, simt::Shfl::Xor, s_);
}

/* --- votes and reductions --- */
static inline int __all_sync(unsigned m, int p, SIMT_HERE) { return (int)simt::vote(m, p != 0, simt::Vote::All, s_); }
static inline int __any_sync(unsigned m, int p, SIMT_HERE) { return (int)simt::vote(m, p != 0, simt::Vote::Any, s_); }
static inline unsigned __ballot_sync(unsigned m, int p, SIMT_HERE) {
    return simt::vote(m, p != 0, simt::Vote::Ballot, s_);
}
template <class T> static inline unsigned __match_any_sync(unsigned m, T v, SIMT_HERE) {
    uint64_t raw = 0;
    __builtin_memcpy(&raw, &v, sizeof v);
    return simt::vote(m, raw, simt::Vote::MatchAny, s_);
}
static inline unsigned __reduce_add_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::Add, s_);
}
static inline unsigned __reduce_min_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::Min, s_);
}
static inline unsigned __reduce_max_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::Max, s_);
}
static inline int __reduce_add_sync(unsigned m, int v, SIMT_HERE) {
    return (int)simt::reduce(m, (unsigned)v, true, simt::Red::Add, s_);
}
static inline int __reduce_min_sync(unsigned m, int v, SIMT_HERE) {
    return (int)simt::reduce(m, (unsigned)v, true, simt::Red::Min, s_);
}
static inline int __reduce_max_sync(unsigned m, int v, SIMT_HERE) {
    return (int)simt::reduce(m, (unsigned)v, true, simt::Red::Max, s_);
}
static inline unsigned __reduce_and_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::And, s_);
}
static inline unsigned __reduce_or_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::Or, s_);
}
static inline unsigned __reduce_xor_sync(unsigned m, unsigned v, SIMT_HERE) {
    return simt::reduce(m, v, false, simt::Red::Xor, s_);
}

/* --- atomics --- */
namespace simt {
template <class T> constexpr Num num_of() {
    if (std::is_same_v<T, float>) return Num::F32;
    if (std::is_same_v<T, double>) return Num::F64;
    if (sizeof(T) == 8) return Num::U64;
    if (sizeof(T) == 2) return Num::U16;
    return std::is_signed_v<T> ? Num::S32 : Num::U32;
}
template <class T>
__attribute__((always_inline)) inline T atomic_any(T *p, Atom op, T value, T compare = T()) {
    uint64_t v = 0, c = 0;
    __builtin_memcpy(&v, &value, sizeof v < sizeof value ? sizeof v : sizeof value);
    __builtin_memcpy(&c, &compare, sizeof c < sizeof compare ? sizeof c : sizeof compare);
    uint64_t old = atomic((void *)p, op, num_of<T>(), v, c, nullptr);
    T out;
    __builtin_memcpy(&out, &old, sizeof out);
    return out;
}
} // namespace simt
#define SIMT_ATOMIC(NAME, OP)                                            \
    template <class T> __attribute__((always_inline)) static inline T NAME(T *p, std::type_identity_t<T> v) { \
        return simt::atomic_any(p, simt::Atom::OP, (T)v);                \
    }
SIMT_ATOMIC(atomicAdd, Add)
SIMT_ATOMIC(atomicSub, Sub)
SIMT_ATOMIC(atomicMin, Min)
SIMT_ATOMIC(atomicMax, Max)
SIMT_ATOMIC(atomicAnd, And)
SIMT_ATOMIC(atomicOr, Or)
SIMT_ATOMIC(atomicXor, Xor)
SIMT_ATOMIC(atomicExch, Exch)
SIMT_ATOMIC(atomicInc, Inc)
SIMT_ATOMIC(atomicDec, Dec)
#undef SIMT_ATOMIC
template <class T>
static inline T atomicCAS(T *p, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
    return simt::atomic_any(p, simt::Atom::Cas, (T)value, (T)compare);
}

/* --- reading and writing with cache hints: plain accesses here --- */
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline void __stcs(T *p, std::type_identity_t<T> v) { *p = v; }
template <class T> static inline void __stcg(T *p, std::type_identity_t<T> v) { *p = v; }
template <class T> static inline void __stwt(T *p, std::type_identity_t<T> v) { *p = v; }

/* --- arithmetic with a stated rounding; the executor is built with -ffp-contract=off --- */
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float rsqrtf(float a) { return (float)(1.0 / __builtin_sqrt((double)a)); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
static inline int __float2int_rn(float a) { return a != a ? 0 : a >= 0x1p31f ? 0x7fffffff : a < -0x1p31f ? -0x7fffffff - 1 : (int)__builtin_rintf(a); }
static inline int __float2int_rz(float a) { return a != a ? 0 : a >= 0x1p31f ? 0x7fffffff : a < -0x1p31f ? -0x7fffffff - 1 : (int)a; }
static inline unsigned __float2uint_rn(float a) { return !(a > 0) ? 0 : a >= 0x1p32f ? 0xffffffffu : (unsigned)__builtin_rintf(a); }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __uint2float_rn(unsigned a) { return (float)a; }

static inline unsigned __float_as_uint(float f) { return simt::bits_of(f); }
static inline int __float_as_int(float f) { return (int)simt::bits_of(f); }
static inline float __uint_as_float(unsigned u) { return simt::float_of(u); }
static inline float __int_as_float(int i) { return simt::float_of((unsigned)i); }
static inline long long __double_as_longlong(double d) { return __builtin_bit_cast(long long, d); }
static inline double __longlong_as_double(long long v) { return __builtin_bit_cast(double, v); }

/* --- bits --- */
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++, v >>= 1) r = r << 1 | (v & 1);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)((((uint64_t)hi << 32 | lo) << (s & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (s & 31));
}
/* Each selector nibble picks a byte of {y,x} by its low three bits. (The instruction would take the fourth for "that byte's sign
 * bit, eight times": ptx::prmt. CUDA's function drops it, as a GPU showed.) */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned sel) {
    uint64_t all = (uint64_t)y << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned byte = (unsigned)(all >> (8 * (sel >> (4 * i) & 7))) & 255;
        out |= byte << (8 * i);
    }
    return out;
}
/* Of both halves of a word. */
static inline unsigned __vmaxu2(unsigned a, unsigned b) {
    return ((a >> 16) > (b >> 16) ? a & 0xffff0000u : b & 0xffff0000u) | ((a & 0xffffu) > (b & 0xffffu) ? a & 0xffffu : b & 0xffffu);
}
static inline unsigned __vmaxs2(unsigned a, unsigned b) { return __vmaxu2(a ^ 0x80008000u, b ^ 0x80008000u) ^ 0x80008000u; }
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> (8 * i)) * (signed char)(b >> (8 * i));
    return c;
}
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }

#undef SIMT_HERE
#endif
