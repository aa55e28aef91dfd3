/* test_simt_checks.cpp — every check of the core has a kernel with the bug it is there for, and its corrected twin.
 * A kernel takes `bug`: 0 is the twin, which must be clean in several orders.  The PTX layer's checks are in
 * test_simt_ptx*.cpp. */
#include "test_simt.h"
#include <vector>

using simt::Check;
using simt::Config;
using simt::launch;

/* Launches the twin in several orders (must be clean), then the bug (must be found, alone, naming kernel and file). */
template <class... P, class... A>
static void plant(Check check, const char *words, const char *name, Config c, void (*kernel)(int, P...), A... args) {
    for (uint64_t seed = 1; seed <= 5; seed++) {
        simt::options().seed = seed;
        CU_ASSERT_EQUAL(launch(name, c, kernel, 0, args...), 0);
        CU_ASSERT(found_nothing());
    }
    for (uint64_t seed = 1; seed <= 5; seed++) {
        simt::options().seed = seed;
        CU_ASSERT_NOT_EQUAL(launch(name, c, kernel, 1, args...), 0);
        CU_ASSERT(found_only(check, words));
        CU_ASSERT(found(check, "test_simt_checks.cpp:"));
        CU_ASSERT(found(check, name));
    }
    simt::options().seed = 1;
}

/* --- races in shared memory --- */

static void k_raw(int bug, int *out) {
    FB_SHARED(int, s, [64]);
    s[threadIdx.x] = (int)threadIdx.x;
    if (!bug) __syncthreads();
    if (bug) { /* written above by another thread; initialised by then or not, nobody may look */
        s[(threadIdx.x + 1) % 64] = 1;
    }
    if (!bug) out[threadIdx.x] = s[63 - threadIdx.x];
}
static void shared_waw() {
    Device<int> out(64, "out");
    plant(Check::SharedRace, "WAW", "k_raw", Config{1, 64}, k_raw, out.p);
    CU_ASSERT(found(Check::SharedRace, "shared array s +"));
}

static void k_raw_read(int bug, int *out) {
    FB_SHARED(int, s, [64]);
    s[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    int first = s[threadIdx.x ^ 32];
    __syncthreads();
    if (threadIdx.x < 32) s[threadIdx.x] = first + 1;
    if (!bug) __syncthreads();
    out[threadIdx.x] = s[threadIdx.x & 31];
}
static void shared_raw_and_war() {
    Device<int> out(64, "out");
    plant(Check::SharedRace, "", "k_raw_read", Config{1, 64}, k_raw_read, out.p);
    /* which of the two it is depends on who came first: readers first in one order, the writer in the other */
    simt::options().order = simt::Order::Forward;
    launch("k_raw_read", Config{1, 64}, k_raw_read, 1, out.p);
    CU_ASSERT(found(Check::SharedRace, "RAW"));
    simt::options().order = simt::Order::Reverse;
    launch("k_raw_read", Config{1, 64}, k_raw_read, 1, out.p);
    CU_ASSERT(found(Check::SharedRace, "WAR"));
    simt::options().order = simt::Order::Seeded;
}

static void k_shuffle_is_no_barrier(int bug, int *out) {
    FB_SHARED(int, s, [32]);
    s[threadIdx.x] = 5;
    if (bug)
        __shfl_sync(~0u, 1, 0);
    else
        __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 1];
}
static void shuffle_orders_nothing() {
    Device<int> out(32, "out");
    plant(Check::SharedRace, "RAW", "k_shuffle_is_no_barrier", Config{1, 32}, k_shuffle_is_no_barrier, out.p);
}

static void k_wrong_named(int bug, int *out) { /* a named barrier orders its members and nobody else */
    FB_SHARED(int, s, [96]);
    unsigned t = threadIdx.x;
    s[t] = (int)t;
    if (t < 64) simt::named_barrier(1, 64, true, simt::Site::here());
    if (t < 64) out[t] = s[63 - t];
    if (!bug) __syncthreads();
    simt::named_barrier(2, 96, true, simt::Site::here());
    if (t < 32) s[64 + t] = 1;
    if (!bug) __syncthreads();
    if (t >= 64) out[t] = s[t];
    if (t < 64 && bug) out[t + 32 - 32] = s[64 + t % 32];
}
static void named_barrier_orders_members_only() {
    Device<int> out(96, "out");
    plant(Check::SharedRace, "", "k_wrong_named", Config{1, 96}, k_wrong_named, out.p);
}

static void k_partial_syncwarp(int bug, int *out) {
    FB_SHARED(int, s, [32]);
    unsigned t = threadIdx.x;
    s[t] = 1; /* so that the read finds something written, whoever comes first */
    __syncthreads();
    s[t] = (int)t;
    if (t < 16)
        __syncwarp(0xffffu);
    else
        __syncwarp(0xffff0000u);
    out[t] = s[bug ? 31 - t : t ^ 1];
}
static void syncwarp_orders_its_mask_only() {
    Device<int> out(32, "out");
    plant(Check::SharedRace, "", "k_partial_syncwarp", Config{1, 32}, k_partial_syncwarp, out.p);
}

/* --- races in global memory --- */

static void k_global_block(int bug, int *a, int *out) {
    a[threadIdx.x] = (int)threadIdx.x;
    if (!bug) __syncthreads();
    out[threadIdx.x] = a[63 - threadIdx.x];
}
static void global_race_in_block() {
    Device<int> a(64, "a"), out(64, "out");
    a.zero(); /* or the uninitialised check would speak up as well */
    plant(Check::GlobalRace, "this block", "k_global_block", Config{1, 64}, k_global_block, a.p, out.p);
    CU_ASSERT(found(Check::GlobalRace, "buffer a +"));
}

static void k_global_grid(int bug, int *a) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    a[bug ? i % (blockDim.x + 16) : i] = 1;
}
static void global_race_between_blocks() {
    Device<int> a(128, "a");
    plant(Check::GlobalRace, "WAW", "k_global_grid", Config{4, 32}, k_global_grid, a.p);
}

static void k_global_war(int bug, int *a, int *out) {
    unsigned n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = a[i];
    if (bug) a[(i + blockDim.x) % n] = 7;
}
static void global_write_after_read_between_blocks() {
    Device<int> a(64, "a"), out(64, "out");
    a.zero();
    plant(Check::GlobalRace, "", "k_global_war", Config{2, 32}, k_global_war, a.p, out.p);
}

static void k_no_fence(int bug, int *data, unsigned *flag, int *out) {
    if (blockIdx.x == 0) {
        *data = 42;
        if (!bug) __threadfence();
        atomicExch(flag, 1u);
    } else {
        while (atomicCAS(flag, 9u, 9u) != 1u) {}
        *out = *data;
    }
}
static void missing_threadfence() {
    Device<int> data(1, "data"), out(1, "out");
    Device<unsigned> flag(1, "flag");
    for (int bug = 0; bug < 2; bug++) {
        data.zero(), flag.zero();
        CU_ASSERT_EQUAL(launch("k_no_fence", Config{2, 1}, k_no_fence, bug, data.p, flag.p, out.p) != 0, bug);
        if (bug) CU_ASSERT(found_only(Check::GlobalRace, "RAW"));
    }
}

/* --- bounds, alignment, contents --- */

static void k_bounds(int bug, const int *in, int *out, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (bug || i < n) out[i] = in[i % 8] + 1;
}
static void out_of_bounds_global() {
    int v[8] = {};
    Device<int> in(v, 8, "in"), out(50, "out");
    plant(Check::OutOfBounds, "bytes after the end of buffer out (200 bytes)", "k_bounds", Config{2, 32}, k_bounds,
          (const int *)in.p, out.p, 50);
}

static void k_straddle(int bug, const uint4 *in, unsigned *out) {
    uint4 v = in[bug];
    out[threadIdx.x] = v.x + v.w;
}
static void out_of_bounds_at_the_end() { /* a 16-byte load of which the last 4 bytes are not there */
    unsigned v[7] = {};
    Device<unsigned> in(v, 7, "in"), out(1, "out");
    plant(Check::OutOfBounds, "runs past the end", "k_straddle", Config{1, 1}, k_straddle, (const uint4 *)in.p, out.p);
}

static void k_shared_bounds(int bug, int *out) {
    FB_SHARED(int, a, [32]);
    FB_SHARED(int, b, [32]);
    a[threadIdx.x] = 1;
    b[threadIdx.x] = 2;
    __syncthreads();
    out[threadIdx.x] = b[0] + a[threadIdx.x + (bug ? 1 : 0)];
}
static void out_of_bounds_shared() {
    Device<int> out(32, "out");
    plant(Check::OutOfBounds, "outside the block's shared arrays", "k_shared_bounds", Config{1, 32}, k_shared_bounds, out.p);
}

static void k_dynamic_bounds(int bug, int *out) {
    FB_DYNAMIC_SHARED(int, s, 16);
    s[threadIdx.x + (unsigned)bug] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
static void out_of_bounds_dynamic_shared() {
    Device<int> out(32, "out");
    Config c{1, 32};
    c.shared_bytes = 128;
    plant(Check::OutOfBounds, "outside the block's shared arrays", "k_dynamic_bounds", c, k_dynamic_bounds, out.p);
}

static void k_misaligned(int bug, const char *in, unsigned *out) {
    uint2 v = *(const uint2 *)(in + (bug ? 4 : 8));
    out[threadIdx.x] = v.x ^ v.y;
}
static void misaligned() {
    char v[64] = {};
    Device<char> in(v, 64, "in");
    Device<unsigned> out(1, "out");
    plant(Check::Misaligned, "8-byte access", "k_misaligned", Config{1, 1}, k_misaligned, (const char *)in.p, out.p);
}
static void k_misaligned_shared(int bug, unsigned *out) {
    FB_SHARED(unsigned, s, [64]);
    s[2 * threadIdx.x] = s[2 * threadIdx.x + 1] = 3;
    uint2 v = *(const uint2 *)&s[2 * threadIdx.x + (unsigned)bug];
    out[threadIdx.x] = v.y;
}
static void misaligned_shared() {
    Device<unsigned> out(32, "out");
    plant(Check::Misaligned, "shared memory", "k_misaligned_shared", Config{1, 32}, k_misaligned_shared, out.p);
}

static void k_uninitialised(int bug, int *out) {
    FB_SHARED(int, s, [64]);
    if (!bug || threadIdx.x != 13) s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x ^ 3];
}
static void uninitialised_shared() {
    Device<int> out(64, "out");
    plant(Check::Uninitialised, "thread (14,0,0)", "k_uninitialised", Config{1, 64}, k_uninitialised, out.p);
}
static void k_uninitialised_global(int bug, const int *in, int *out) { out[threadIdx.x] = in[threadIdx.x + (bug ? 1 : 0)]; }
static void uninitialised_global() {
    int v[32] = {};
    Device<int> in(33, "in"), out(32, "out");
    simt::copy_in(in.p, v, 32 * sizeof(int));
    plant(Check::Uninitialised, "buffer in +128", "k_uninitialised_global", Config{1, 32}, k_uninitialised_global,
          (const int *)in.p, out.p);
}

static void k_read_only(int bug, const int *in, int *out) {
    out[threadIdx.x] = in[threadIdx.x];
    if (bug) const_cast<int *>(in)[threadIdx.x] = 0;
}
static void write_to_const() {
    int v[32] = {};
    Device<int> in(v, 32, "in"), out(32, "out");
    plant(Check::ReadOnlyWrite, "received as const", "k_read_only", Config{1, 32}, k_read_only, (const int *)in.p, out.p);
}
static void k_read_only_flag(int bug, int *a, int *out) { out[threadIdx.x] = bug ? (a[threadIdx.x] = 3) : a[threadIdx.x]; }
static void write_to_registered_read_only() {
    static int host[32];
    simt::adopt(host, sizeof host, "host", simt::kReadOnly);
    Device<int> out(32, "out");
    plant(Check::ReadOnlyWrite, "registered read-only", "k_read_only_flag", Config{1, 32}, k_read_only_flag, (int *)host, out.p);
    simt::forget(host);
}

static void k_other_stack(int bug, int *out) { /* a pointer to another thread's local */
    FB_SHARED(int *, p, [32]);
    int mine = (int)threadIdx.x;
    p[threadIdx.x] = &mine;
    __syncthreads();
    out[threadIdx.x] = bug ? *p[threadIdx.x ^ 1] : *p[threadIdx.x];
    __syncthreads();
}
static void another_threads_stack() {
    Device<int> out(32, "out");
    plant(Check::OutOfBounds, "outside every buffer", "k_other_stack", Config{1, 32}, k_other_stack, out.p);
}

/* --- barriers and collectives --- */

static void k_two_barriers(int bug, int *out) {
    if (bug && threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}
static void different_barriers() {
    Device<int> out(64, "out");
    plant(Check::BarrierMismatch, "wait at the one in line", "k_two_barriers", Config{1, 64}, k_two_barriers, out.p);
}

static void k_named_counts(int bug) {
    simt::named_barrier(3, bug && threadIdx.x >= 32 ? 32 : 64, true, simt::Site::here());
}
static void named_barrier_counts_differ() {
    simt::options().order = simt::Order::Forward; /* in another order the 32 meet alone and the others wait for ever */
    plant(Check::BarrierMismatch, "barrier 3 expects", "k_named_counts", Config{1, 64}, k_named_counts);
    simt::options().order = simt::Order::Seeded;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        simt::options().seed = seed;
        CU_ASSERT_NOT_EQUAL(launch("k_named_counts", Config{1, 64}, k_named_counts, 1), 0);
        CU_ASSERT_EQUAL(simt::last_report().count(Check::BarrierMismatch) + simt::last_report().count(Check::Deadlock), 1);
    }
    simt::options().seed = 1;
}

static void k_deadlock(int bug) { /* a named barrier that one warp never reaches */
    if (!bug || threadIdx.x < 32) simt::named_barrier(1, 64, true, simt::Site::here());
    __syncthreads();
}
static void deadlock() {
    plant(Check::Deadlock, "nothing can run: threads 0-31 wait at a named barrier", "k_deadlock", Config{1, 64}, k_deadlock);
    CU_ASSERT(found(Check::Deadlock, "threads 32-63 wait at __syncthreads"));
}

static void k_polling(int bug, unsigned *flag) {
    if (!bug && threadIdx.x == 1) atomicExch(flag, 1u);
    if (threadIdx.x == 0)
        while (atomicCAS(flag, 1u, bug ? 1u : 0u) != 1u) {}
}
static void polling_for_nothing() {
    Device<unsigned> flag(1, "flag");
    flag.zero();
    CU_ASSERT_EQUAL(launch("k_polling", Config{1, 32}, k_polling, 0, flag.p), 0);
    flag.zero();
    CU_ASSERT_NOT_EQUAL(launch("k_polling", Config{1, 32}, k_polling, 1, flag.p), 0);
    CU_ASSERT(found_only(Check::Deadlock, "a loop that only polls"));
}

static void k_missing_lanes(int bug, int *out) {
    int v = (int)threadIdx.x;
    if (!bug || v < 16) v += __shfl_xor_sync(~0u, v, 1);
    __syncthreads();
    out[threadIdx.x] = v;
}
static void missing_lanes() {
    Device<int> out(32, "out");
    for (int bug = 0; bug < 2; bug++) CU_ASSERT_EQUAL(launch("k_missing_lanes", Config{1, 32}, k_missing_lanes, bug, out.p) != 0, bug);
    CU_ASSERT(found(Check::BadCollective, "lanes 0xffff0000 never came"));
}

static void k_wrong_mask(int bug, int *out) {
    int v = (int)threadIdx.x;
    if (v < 16) v = __shfl_sync(bug ? 0xff00u : 0xffffu, v, 8);
    out[threadIdx.x] = v;
}
static void wrong_mask() {
    Device<int> out(32, "out");
    plant(Check::BadCollective, "does not name it", "k_wrong_mask", Config{1, 32}, k_wrong_mask, out.p);
}

static void k_two_collectives(int bug, int *out) {
    int v = (int)threadIdx.x;
    if (bug && v < 8)
        v = (int)__ballot_sync(~0u, v);
    else
        v = __shfl_sync(~0u, v, 0);
    out[threadIdx.x] = v;
}
static void different_collectives() {
    Device<int> out(32, "out");
    plant(Check::BadCollective, "of the same mask are at", "k_two_collectives", Config{1, 32}, k_two_collectives, out.p);
}

static void k_dead_lane(int bug, int *out) {
    int v = (int)threadIdx.x;
    if (v >= 16) return;
    out[v] = __shfl_xor_sync(bug ? ~0u : 0xffffu, v, bug ? 16 : 8);
}
static void shuffle_from_a_lane_that_ended() {
    Device<int> out(32, "out");
    plant(Check::BadCollective, "does not take part", "k_dead_lane", Config{1, 32}, k_dead_lane, out.p);
}

static void k_cluster_exit(int bug, int *out) { /* distributed shared memory of a block that may have ended */
    FB_SHARED(int, s, [32]);
    s[threadIdx.x] = 1;
    simt::cluster_arrive(simt::Site::here());
    simt::cluster_wait(simt::Site::here());
    if (blockIdx.x == 0) {
        for (int i = 0; i < 50; i++) __syncthreads();
        out[threadIdx.x] = *(const int *)simt::shared_pointer(2u << 24 | simt::shared_address(&s[threadIdx.x]));
    }
    if (!bug) {
        simt::cluster_arrive(simt::Site::here());
        simt::cluster_wait(simt::Site::here());
    }
}
static void cluster_block_that_ended() {
    Device<int> out(32, "out");
    plant(Check::OutOfBounds, "a block that has ended", "k_cluster_exit", Config{2, 32, 2}, k_cluster_exit, out.p);
}

/* --- crash, hang, launch --- */

static void k_crash(int bug, int *out, int divisor) {
    out[threadIdx.x] = bug ? 5 / divisor : 1;
}
static void crash() {
    Device<int> out(32, "out");
    plant(Check::Crash, "integer division", "k_crash", Config{1, 32}, k_crash, out.p, 0);
}

static int deep(volatile int *p, int n);
static int (*volatile deeper)(volatile int *, int) = deep; /* clang makes a loop of a recursion that it can see */
static int deep(volatile int *p, int n) {
    volatile char room[4096];
    room[n * 37] = (char)n; /* an index known only at run time: clang shrinks the array otherwise */
    return n ? deeper(p, n - 1) + room[n * 37] : *p;
}
static void k_overflow(int bug, int *out) {
    int zero = 0;
    out[threadIdx.x] = deep(&zero, bug ? 100 : 2);
}
static void stack_overflow() {
    Device<int> out(1, "out");
    CU_ASSERT_EQUAL(launch("k_overflow", Config{1, 1}, k_overflow, 0, out.p), 0);
    CU_ASSERT_NOT_EQUAL(launch("k_overflow", Config{1, 1}, k_overflow, 1, out.p), 0);
    CU_ASSERT(found_only(Check::Crash, "stack overflow"));
}

static void k_hang(int bug, volatile int *a) {
    if (bug == 1)
        while (a[0] == 0) {}
    if (bug == 2)
        for (;;) __asm__ volatile("");
}
static void hang() {
    Device<int> a(1, "a");
    a.zero();
    simt::options().timeout_s = 0.2;
    for (int bug = 0; bug < 3; bug++) {
        CU_ASSERT_EQUAL(launch("k_hang", Config{4, 32}, k_hang, bug, (volatile int *)a.p) != 0, bug != 0);
        if (bug) CU_ASSERT(found_only(Check::Hang, "k_hang"));
        if (bug == 2) CU_ASSERT(found(Check::Hang, "test_simt_checks.cpp:"));
    }
    simt::options().timeout_s = 30;
    CU_ASSERT_EQUAL(launch("k_hang", Config{4, 32}, k_hang, 0, (volatile int *)a.p), 0); /* and the suite goes on */
    CU_ASSERT(found_nothing());
}

static void k_trap(int bug) {
    if (bug) __trap();
}
static void trap() { plant(Check::Crash, "__trap()", "k_trap", Config{2, 32}, k_trap); }

static void bad_launches() {
    Config too_many{1, dim3(1025)}, empty{0, 32}, cluster{3, 32, 2}, shared{1, 32};
    shared.shared_bytes = 228 * 1024;
    for (const Config &c : {too_many, empty, cluster, shared}) {
        CU_ASSERT_EQUAL(launch("k_trap", c, k_trap, 0), 1);
        CU_ASSERT(found_only(Check::BadLaunch, "k_trap"));
    }
}

/* --- checks off: the same bugs pass in silence, which is what off means --- */

static void checks_off() {
    Device<int> out(64, "out");
    simt::options().checks = simt::options().counters = false;
    CU_ASSERT_EQUAL(launch("k_raw_read", Config{1, 64}, k_raw_read, 1, out.p), 0);
    CU_ASSERT_EQUAL(simt::last_report().counters.global_requests, 0);
    simt::options().checks = simt::options().counters = true;
    CU_ASSERT_NOT_EQUAL(launch("k_raw_read", Config{1, 64}, k_raw_read, 1, out.p), 0);
    CU_ASSERT(found(Check::SharedRace, "k_raw_read"));
}

static const SimtCase cases[] = {
    {"shared: write after write", shared_waw},
    {"shared: read after write, write after read", shared_raw_and_war},
    {"shared: a shuffle is no barrier", shuffle_orders_nothing},
    {"shared: a named barrier orders its members only", named_barrier_orders_members_only},
    {"shared: __syncwarp orders its mask only", syncwarp_orders_its_mask_only},
    {"global: race within a block", global_race_in_block},
    {"global: race between blocks", global_race_between_blocks},
    {"global: write after another block's read", global_write_after_read_between_blocks},
    {"global: missing __threadfence", missing_threadfence},
    {"out of bounds: global", out_of_bounds_global},
    {"out of bounds: last bytes of a vector", out_of_bounds_at_the_end},
    {"out of bounds: static shared", out_of_bounds_shared},
    {"out of bounds: dynamic shared", out_of_bounds_dynamic_shared},
    {"out of bounds: another thread's stack", another_threads_stack},
    {"out of bounds: cluster block that ended", cluster_block_that_ended},
    {"misaligned: global", misaligned},
    {"misaligned: shared", misaligned_shared},
    {"uninitialised: shared", uninitialised_shared},
    {"uninitialised: global", uninitialised_global},
    {"write to a const parameter", write_to_const},
    {"write to a read-only buffer", write_to_registered_read_only},
    {"threads at different barriers", different_barriers},
    {"named barrier with two counts", named_barrier_counts_differ},
    {"deadlock", deadlock},
    {"polling for what never comes", polling_for_nothing},
    {"collective: missing lanes", missing_lanes},
    {"collective: lane not in its mask", wrong_mask},
    {"collective: two operations, one mask", different_collectives},
    {"collective: reads a lane that ended", shuffle_from_a_lane_that_ended},
    {"crash: division by zero", crash},
    {"crash: stack overflow", stack_overflow},
    {"crash: __trap", trap},
    {"hang: at memory accesses, in a loop without any", hang},
    {"bad launches", bad_launches},
    {"checks off", checks_off},
};
static const SimtSuite suite("simt checks", cases);
