/* simt.h — what a kernel's translation unit includes in place of the CUDA headers to run on a CPU.
 *
 * Compile that unit with -fsanitize=thread and the flags in build.mk, and link the executor instead of libtsan: the
 * compiler then announces every load and store of the kernel to hooks.cpp.  README.md says what this shows and what not.
 * Calls that synchronise carry their source position as a default argument, because the compiler may duplicate a call
 * (g++ does for "if (t < 16) ...; __syncthreads();") and two copies of one barrier must still be one barrier.
 */
#ifndef SIMT_H
#define SIMT_H

#include "half.h"
#include "host.h"
#include "types.h"
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>

namespace simt {

struct Site { /* a place in the source; two sites are the same if file and line are */
    const char *file;
    int line;
    static constexpr Site here(const char *f = __builtin_FILE(), int l = __builtin_LINE()) { return Site{f, l}; }
};

/* Constant for the life of a fiber: the attribute lets the compiler ask once per kernel call. */
extern "C" {
uint3 simt_thread_idx(void) __attribute__((const));
uint3 simt_block_idx(void) __attribute__((const));
uint3 simt_block_dim(void) __attribute__((const));
uint3 simt_grid_dim(void) __attribute__((const));
uint3 simt_cluster_dim(void) __attribute__((const));  /* blocks per cluster, 1 1 1 without clusters */
uint3 simt_cluster_rank(void) __attribute__((const)); /* this block's position inside its cluster */
}

/* Shared memory.  A static array is named by the address of its site; all threads of a block get the same bytes. */
struct StaticShared {
    unsigned bytes, align;
    const char *name;
};
void *static_shared(const StaticShared *);
void *dynamic_shared(size_t align); /* exactly that alignment and no more, so that relying on luck shows */
uint32_t shared_address(const void *); /* what cvta.to.shared gives: 32 bits, own block's window */
void *shared_pointer(uint32_t);

/* Synchronisation and warp collectives: scheduler.cpp and collective.cpp. */
void sync_threads(Site);
int sync_threads_reduce(int predicate, int kind, Site); /* kind 0 and, 1 or, 2 count */
void named_barrier(unsigned id, unsigned threads, bool wait, Site);
void cluster_arrive(Site);
void cluster_wait(Site);
void sync_warp(unsigned mask, Site);
enum class Shfl { Idx, Up, Down, Xor };
uint64_t shuffle(unsigned mask, uint64_t value, int arg, int width, Shfl kind, unsigned bytes, Site);
enum class Vote { All, Any, Ballot, Uni, MatchAny, Active };
unsigned vote(unsigned mask, uint64_t value, Vote kind, Site);
enum class Red { Add, Min, Max, And, Or, Xor };
unsigned reduce(unsigned mask, unsigned value, bool is_signed, Red kind, Site);
void fence(int scope); /* 0 block, 1 device, 2 system */
void spin_pause();     /* lets others run; a loop of nothing else ends as a deadlock report */
[[noreturn]] void trap(const char *why, Site);

/* Atomics on shared or global memory.  float and double add in the type, everything else in integers. */
enum class Atom { Add, Sub, Min, Max, And, Or, Xor, Exch, Cas, Inc, Dec, Load, Store };
enum class Num { U32, S32, U64, F32, F64, U16 };
uint64_t atomic(void *p, Atom op, Num type, uint64_t value, uint64_t compare, const void *pc);

/* Accesses a compiler cannot announce (memcpy in a kernel, an asm statement's operands). */
void announce(const void *p, size_t bytes, bool write, const void *pc);

/* --- launch ------------------------------------------------------------------------------------------------ */

struct Config {
    dim3 grid, block, cluster{1, 1, 1};
    size_t shared_bytes = 0;
};
struct PointerArg { /* a pointer parameter; const ones make their buffer read-only for the launch */
    const void *p;
    bool is_const;
};
/* What the host knows about a launch's memory that a pointer does not say: exact size, name, whether it is written. Such an
 * operand is a buffer for this launch only, unless it lies in one that is registered. */
struct Operand {
    const void *p;
    size_t bytes;
    const char *name;
    bool written;
};
struct Invocation {
    const char *name;
    Config config;
    void (*entry)(void *);
    void *args;
    size_t args_bytes;
    const PointerArg *pointers;
    size_t n_pointers;
    const Operand *operands;
    size_t n_operands;
};
int execute(const Invocation &); /* 0, or the number of errors; last_report() has them */

template <class... P> struct Call {
    void (*kernel)(P...);
    std::tuple<P...> args;
    __attribute__((no_sanitize("thread"))) static void enter(void *self) {
        Call *c = (Call *)self;
        std::apply(c->kernel, c->args);
    }
};

template <class T> inline PointerArg pointer_arg(const T &v) {
    if constexpr (std::is_pointer_v<T>)
        return PointerArg{(const void *)v, std::is_const_v<std::remove_pointer_t<T>>};
    else
        return PointerArg{nullptr, true};
}

template <class... P, class... A>
int launch_with(const char *name, const Config &config, const Operand *operands, size_t n_operands, void (*kernel)(P...),
                A &&...args) {
    Call<P...> call{kernel, std::tuple<P...>(static_cast<P>(args)...)};
    PointerArg pointers[sizeof...(P) + 1] = {};
    size_t n = 0;
    std::apply([&](const auto &...v) { ((pointers[n++] = pointer_arg(v)), ...); }, call.args);
    return execute(
        Invocation{name, config, &Call<P...>::enter, &call, sizeof call, pointers, n, operands, n_operands});
}

template <class... P, class... A>
int launch(const char *name, const Config &config, void (*kernel)(P...), A &&...args) {
    return launch_with(name, config, nullptr, 0, kernel, static_cast<A &&>(args)...);
}

} // namespace simt

/* --- what the CUDA language provides ----------------------------------------------------------------------- */

#define FB_SIMT 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
/* no __noinline__: libstdc++ spells an attribute that way */
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __cluster_dims__(...)
#define threadIdx (simt_thread_idx_())
#define blockIdx (simt_block_idx_())
#define blockDim (simt_block_dim_())
#define gridDim (simt_grid_dim_())
static constexpr int warpSize = 32;
static inline uint3 simt_thread_idx_() { return simt::simt_thread_idx(); }
static inline uint3 simt_block_idx_() { return simt::simt_block_idx(); }
static inline uint3 simt_block_dim_() { return simt::simt_block_dim(); }
static inline uint3 simt_grid_dim_() { return simt::simt_grid_dim(); }

/* The same four macros exist in kernels/cuda/launch.cuh for nvcc.
 *   FB_SHARED(float, tile, [64][65])        a static shared array
 *   FB_DYNAMIC_SHARED(uint4, stage, 128)    the launch's dynamic shared memory, aligned to 128 bytes
 *   FB_CONSTANT(float, table, [16]) = {…};  constant memory with its values                                          */
#define FB_SHARED(TYPE, NAME, DIMS) FB_SHARED_ALIGNED(TYPE, NAME, DIMS, 16)
#define FB_SHARED_ALIGNED(TYPE, NAME, DIMS, ALIGN)                                             \
    using NAME##_shared_type = TYPE DIMS;                                                      \
    static simt::StaticShared NAME##_shared_site{sizeof(NAME##_shared_type), (ALIGN), #NAME}; \
    NAME##_shared_type &NAME = *(NAME##_shared_type *)simt::static_shared(&NAME##_shared_site)
#define FB_DYNAMIC_SHARED(TYPE, NAME, ALIGN) TYPE *NAME = (TYPE *)simt::dynamic_shared(ALIGN)
#define FB_CONSTANT(TYPE, NAME, DIMS) static const TYPE NAME DIMS

#include "intrinsics.h"

#endif
