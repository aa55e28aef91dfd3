/* test_simt_exec.cpp — execution: grids, fibers, barriers, collectives, shared and constant memory, atomics, types. */
#include "test_simt.h"
#include <algorithm>
#include <cmath>
#include <ctime>
#include <thread>
#include <vector>

using simt::Config;
using simt::launch;

/* --- grid and block --- */

static void k_coordinates(uint64_t *out) {
    uint64_t block = blockIdx.x + (uint64_t)gridDim.x * (blockIdx.y + (uint64_t)gridDim.y * blockIdx.z);
    uint64_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    uint64_t all = (uint64_t)blockDim.x * blockDim.y * blockDim.z;
    out[block * all + thread] = (uint64_t)blockIdx.z << 48 | (uint64_t)blockIdx.y << 40 | (uint64_t)blockIdx.x << 32 |
                                threadIdx.z << 20 | threadIdx.y << 10 | threadIdx.x;
}

static void coordinates() {
    dim3 g(3, 4, 2), b(5, 3, 7);
    size_t n = 24 * 105;
    Device<uint64_t> out(n, "out");
    CU_ASSERT_EQUAL(launch("k_coordinates", Config{g, b}, k_coordinates, out.p), 0);
    CU_ASSERT(found_nothing());
    size_t wrong = 0, i = 0;
    for (unsigned bz = 0; bz < 2; bz++)
        for (unsigned by = 0; by < 4; by++)
            for (unsigned bx = 0; bx < 3; bx++)
                for (unsigned z = 0; z < 7; z++)
                    for (unsigned y = 0; y < 3; y++)
                        for (unsigned x = 0; x < 5; x++, i++)
                            wrong += out[i] != ((uint64_t)bz << 48 | (uint64_t)by << 40 | (uint64_t)bx << 32 | z << 20 | y << 10 | x);
    CU_ASSERT_EQUAL(wrong, 0);
}

static void k_reverse(const int *in, int *out) {
    FB_SHARED(int, tile, [1024]);
    tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

static void largest_block() {
    std::vector<int> v(1024);
    for (int i = 0; i < 1024; i++) v[(size_t)i] = i * 7;
    Device<int> in(v.data(), 1024, "in"), out(1024, "out");
    for (auto order : {simt::Order::Seeded, simt::Order::Forward, simt::Order::Reverse, simt::Order::RoundRobin}) {
        simt::options().order = order;
        CU_ASSERT_EQUAL(launch("k_reverse", Config{1, 1024}, k_reverse, (const int *)in.p, out.p), 0);
        CU_ASSERT(found_nothing());
        int wrong = 0;
        for (int i = 0; i < 1024; i++) wrong += out[i] != (1023 - i) * 7;
        CU_ASSERT_EQUAL(wrong, 0);
    }
    simt::options().order = simt::Order::Seeded;
}

template <int N, class T> static void k_template(T *out) {
    FB_DYNAMIC_SHARED(T, stage, 128);
    FB_SHARED(T, extra, [N][2]);
    unsigned t = threadIdx.x;
    stage[t] = (T)t;
    if (t < N) extra[t][1] = (T)(10 * t);
    __syncthreads();
    out[t] = stage[(t + 1) % blockDim.x] + extra[t % N][1];
    out[blockDim.x + t] = (T)((uintptr_t)stage % 128);
}

static void dynamic_and_static_shared() {
    Device<float> out(128, "out");
    Config c{1, 64};
    c.shared_bytes = 64 * sizeof(float);
    CU_ASSERT_EQUAL(launch("k_template<8,float>", c, k_template<8, float>, out.p), 0);
    CU_ASSERT(found_nothing());
    for (int i = 0; i < 64; i++) CU_ASSERT_EQUAL(out[i], (float)((i + 1) % 64 + 10 * (i % 8)));
    CU_ASSERT_EQUAL(out[64], 0.0f);
}

FB_CONSTANT(float, kTable, [4]) = {1.5f, -2.0f, 0.25f, 8.0f};
static void k_constant(float *out) { out[threadIdx.x] = kTable[threadIdx.x & 3] * 2; }

static void constant_memory() {
    Device<float> out(32, "out");
    CU_ASSERT_EQUAL(launch("k_constant", Config{1, 32}, k_constant, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[1], -4.0f);
    CU_ASSERT_EQUAL(out[31], 16.0f);
}

struct ByValue {
    const float *in;
    float *out;
    int n;
    float scale[3];
};
static void k_struct(ByValue v, uint4 w) {
    for (int i = (int)threadIdx.x; i < v.n; i += (int)blockDim.x) v.out[i] = v.in[i] * v.scale[i % 3] + (float)w.z;
}
static void arguments_by_value() {
    float src[10];
    for (int i = 0; i < 10; i++) src[i] = (float)i;
    Device<float> in(src, 10, "in"), out(10, "out");
    CU_ASSERT_EQUAL(launch("k_struct", Config{1, 4}, k_struct, ByValue{in, out, 10, {1, 2, 3}}, make_uint4(0, 0, 5, 0)), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[5], 20.0f);
}

/* --- barriers --- */

static void k_sync_reduce(int *out) {
    int t = (int)threadIdx.x;
    int all = __syncthreads_and(t < 100), any = __syncthreads_or(t == 77), n = __syncthreads_count(t % 3 == 0);
    if (t >= 90) return; /* threads that ended do not hold up the others */
    __syncthreads();
    if (t == 0) out[0] = all, out[1] = any, out[2] = n;
}
static void reducing_barriers() {
    Device<int> out(4, "out");
    CU_ASSERT_EQUAL(launch("k_sync_reduce", Config{1, 100}, k_sync_reduce, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[0], 1);
    CU_ASSERT_EQUAL(out[1], 1);
    CU_ASSERT_EQUAL(out[2], 34);
}

/* Two halves of a block, each with its own barrier, at their own pace. */
static void k_named(int *out) {
    FB_SHARED(int, s, [128]);
    unsigned t = threadIdx.x, half = t / 64, rounds = half ? 5 : 2;
    int sum = 0;
    for (unsigned r = 0; r < rounds; r++) {
        s[t] = (int)(t + r);
        simt::named_barrier(1 + half, 64, true, simt::Site::here());
        sum += s[half * 64 + (t + 1) % 64];
        simt::named_barrier(1 + half, 64, true, simt::Site::here());
    }
    out[t] = sum;
}
static void named_barriers() {
    Device<int> out(128, "out");
    CU_ASSERT_EQUAL(launch("k_named", Config{1, 128}, k_named, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[0], 1 + 2);
    CU_ASSERT_EQUAL(out[127], 64 * 5 + 10);
}

static void k_producer(int *out) { /* bar.arrive by 32 producers, bar.sync by 32 consumers */
    FB_SHARED(int, s, [32]);
    unsigned t = threadIdx.x;
    if (t < 32) {
        s[t] = (int)t * 3;
        simt::named_barrier(2, 64, false, simt::Site::here());
    } else {
        simt::named_barrier(2, 64, true, simt::Site::here());
        out[t - 32] = s[63 - t];
    }
}
static void arrive_and_sync() {
    Device<int> out(32, "out");
    CU_ASSERT_EQUAL(launch("k_producer", Config{1, 64}, k_producer, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[0], 93);
}

static void k_cluster(int *out) { /* each block reads its neighbour's shared memory */
    FB_SHARED(int, s, [32]);
    unsigned t = threadIdx.x, rank = simt::simt_cluster_rank().x, n = simt::simt_cluster_dim().x;
    s[t] = (int)(blockIdx.x * 100 + t);
    simt::cluster_arrive(simt::Site::here());
    simt::cluster_wait(simt::Site::here());
    const int *other = (const int *)simt::shared_pointer((((rank + 1) % n) + 1) << 24 | simt::shared_address(&s[t]));
    out[blockIdx.x * 32 + t] = *other;
    simt::cluster_arrive(simt::Site::here());
    simt::cluster_wait(simt::Site::here());
}
static void clusters() {
    Device<int> out(8 * 32, "out");
    Config c{8, 32, 4};
    CU_ASSERT_EQUAL(launch("k_cluster", c, k_cluster, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[0], 100);
    CU_ASSERT_EQUAL(out[3 * 32 + 5], 5);
    CU_ASSERT_EQUAL(out[7 * 32 + 31], 431);
}

/* --- warp collectives --- */

static void k_shuffles(int *out, double *d) {
    int t = (int)threadIdx.x;
    out[t] = __shfl_sync(~0u, t * 10, 5);
    out[32 + t] = __shfl_up_sync(~0u, t, 3);
    out[64 + t] = __shfl_down_sync(~0u, t, 3, 16);
    out[96 + t] = __shfl_xor_sync(~0u, t, 16);
    d[t] = __shfl_xor_sync(~0u, t * 0.5, 1);
    if (t & 1) /* odd lanes among themselves */
        out[128 + t] = __shfl_xor_sync(0xaaaaaaaau, t, 2);
    else
        out[128 + t] = __shfl_xor_sync(0x55555555u, t * 100, 2);
}
static void shuffles() {
    Device<int> out(160, "out");
    Device<double> d(32, "d");
    CU_ASSERT_EQUAL(launch("k_shuffles", Config{1, 32}, k_shuffles, out.p, d.p), 0);
    CU_ASSERT(found_nothing());
    int wrong = 0;
    for (int t = 0; t < 32; t++) {
        wrong += out[t] != 50;
        wrong += out[32 + t] != (t < 3 ? t : t - 3);
        wrong += out[64 + t] != (t % 16 + 3 < 16 ? t + 3 : t);
        wrong += out[96 + t] != (t ^ 16);
        wrong += d[t] != (t ^ 1) * 0.5;
        wrong += out[128 + t] != (t & 1 ? t ^ 2 : (t ^ 2) * 100);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Shuffle), 7);
}

static void k_votes(unsigned *out) {
    int t = (int)threadIdx.x;
    unsigned v[8];
    v[0] = (unsigned)__all_sync(~0u, t < 32);
    v[1] = (unsigned)__any_sync(~0u, t > 31);
    v[2] = __ballot_sync(~0u, t % 3 == 0);
    v[3] = __match_any_sync(~0u, t / 8);
    v[4] = (unsigned)__reduce_add_sync(~0u, t - 16);
    v[5] = (unsigned)__reduce_min_sync(~0u, t - 16);
    v[6] = __reduce_max_sync(~0u, (unsigned)(t - 16));
    v[7] = __reduce_xor_sync(~0u, 1u << t);
    for (int i = 0; i < 8; i++) out[i * 32 + t] = v[i];
}
static void votes_and_reductions() {
    Device<unsigned> out(256, "out");
    CU_ASSERT_EQUAL(launch("k_votes", Config{1, 32}, k_votes, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[7], 1);
    CU_ASSERT_EQUAL(out[32 + 7], 0);
    CU_ASSERT_EQUAL(out[64 + 7], 0x49249249u);
    CU_ASSERT_EQUAL(out[96 + 9], 0xff00u);
    CU_ASSERT_EQUAL((int)out[128], -16);
    CU_ASSERT_EQUAL((int)out[160], -16);
    CU_ASSERT_EQUAL(out[192], 0xffffffffu);
    CU_ASSERT_EQUAL(out[224], 0xffffffffu);
}

static void k_syncwarp(int *out) {
    FB_SHARED(int, s, [64]);
    unsigned t = threadIdx.x, w = t & ~31u;
    s[t] = (int)t;
    __syncwarp();
    int v = s[w + (t + 1) % 32];
    __syncwarp();
    s[t] = v * 2;
    __syncwarp();
    out[t] = s[w + (t + 31) % 32];
}
static void syncwarp_orders() {
    Device<int> out(64, "out");
    CU_ASSERT_EQUAL(launch("k_syncwarp", Config{1, 64}, k_syncwarp, out.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(out[40], 80);
}

/* --- atomics and cross-block hand-over --- */

static void k_atomics(int *sum, float *fsum, unsigned *most, unsigned *wrap) {
    atomicAdd(sum, 1);
    atomicAdd(fsum, 0.5f);
    atomicMax(most, blockIdx.x * blockDim.x + threadIdx.x);
    atomicInc(wrap, 6);
}
static void atomics() {
    Device<int> sum(1, "sum");
    Device<float> fsum(1, "fsum");
    Device<unsigned> most(1, "most"), wrap(1, "wrap");
    sum.zero(), fsum.zero(), most.zero(), wrap.zero();
    CU_ASSERT_EQUAL(launch("k_atomics", Config{20, 50}, k_atomics, sum.p, fsum.p, most.p, wrap.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(*sum, 1000);
    CU_ASSERT_EQUAL(*fsum, 500.0f);
    CU_ASSERT_EQUAL(*most, 999);
    CU_ASSERT_EQUAL(*wrap, 1000 % 7);
}

/* Each block leaves a partial sum; the last one to finish adds them up. */
static void k_last_block(const int *in, int *partial, unsigned *ticket, int *total) {
    FB_SHARED(bool, last, [1]);
    if (threadIdx.x == 0) {
        int s = 0;
        for (int i = 0; i < 8; i++) s += in[blockIdx.x * 8 + i];
        partial[blockIdx.x] = s;
        __threadfence();
        last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last[0] && threadIdx.x == 3) {
        int s = 0;
        for (unsigned i = 0; i < gridDim.x; i++) s += partial[i];
        *total = s;
    }
}
static void last_block_reduces() {
    int v[80], want = 0;
    for (int i = 0; i < 80; i++) want += v[i] = i * i;
    Device<int> in(v, 80, "in"), partial(10, "partial"), total(1, "total");
    Device<unsigned> ticket(1, "ticket");
    ticket.zero();
    CU_ASSERT_EQUAL(launch("k_last_block", Config{10, 32}, k_last_block, (const int *)in.p, partial.p, ticket.p, total.p), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(*total, want);
}

/* A fixed order of blocks through a flag: block i waits for block i-1. */
static void k_in_turn(unsigned *turn, int *value) {
    while (atomicCAS(turn, blockIdx.x, blockIdx.x) != blockIdx.x) {}
    *value = *value * 3 + (int)blockIdx.x;
    __threadfence();
    atomicExch(turn, blockIdx.x + 1);
}
static void blocks_in_turn() {
    Device<unsigned> turn(1, "turn");
    Device<int> value(1, "value");
    turn.zero(), value.zero();
    CU_ASSERT_EQUAL(launch("k_in_turn", Config{6, 1}, k_in_turn, turn.p, value.p), 0);
    CU_ASSERT(found_nothing());
    int want = 0;
    for (int i = 0; i < 6; i++) want = want * 3 + i;
    CU_ASSERT_EQUAL(*value, want);
}

/* --- counters and speed --- */

static void k_many_barriers(int n) {
    for (int i = 0; i < n; i++) __syncthreads();
}
static void a_million_thread_barriers_a_second() {
    std::clock_t before = std::clock(); /* CPU time: other programs' load must not fail a test */
    CU_ASSERT_EQUAL(launch("k_many_barriers", Config{1, 256}, k_many_barriers, 4000), 0);
    const simt::Report &r = simt::last_report();
    double rate = (double)r.counters.thread_barriers / ((double)(std::clock() - before) / CLOCKS_PER_SEC);
    printf("(%.1f M thread-barriers/s) ", rate * 1e-6);
    CU_ASSERT_EQUAL(r.counters.thread_barriers, 256 * 4000);
    CU_ASSERT(rate >= 1e6);
}

/* More barriers than a clock counts: it is set back on the way, and nothing is reported for it. */
static void k_long(int *a, int n) {
    FB_SHARED(int, s, [4]);
    unsigned t = threadIdx.x;
    s[t] = 0;
    a[t] = 0;
    for (int i = 0; i < n; i++) {
        __syncthreads();
        int v = s[t ^ 1] + a[t ^ 1];
        __syncthreads();
        s[t] = v + 1;
        a[t] = i;
    }
    for (int i = 0; i < n; i++) {
        __syncwarp();
        if ((int)t == (i & 1)) s[2] = i;
        __syncwarp();
        a[t] = s[2];
    }
}
static void clocks_start_again() {
    Device<int> a(2, "a");
    CU_ASSERT_EQUAL(launch("k_long", Config{1, 2}, k_long, a.p, 140000), 0);
    CU_ASSERT(found_nothing());
    CU_ASSERT_EQUAL(simt::last_report().counters.barriers, 280000);
    CU_ASSERT_EQUAL(a[0], 139999);
}

static void same_report_whatever_the_workers() {
    std::vector<int> v(1024, 3);
    Device<int> in(v.data(), 1024, "in"), out(1024, "out");
    simt::Counters first;
    for (unsigned jobs = 1; jobs <= 3; jobs++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            simt::options().jobs = jobs;
            simt::options().seed = seed;
            CU_ASSERT_EQUAL(launch("k_reverse", Config{1, 1024}, k_reverse, (const int *)in.p, out.p), 0);
            const simt::Counters &c = simt::last_report().counters;
            if (jobs == 1 && seed == 1) first = c;
            CU_ASSERT_EQUAL(c.global_sectors, first.global_sectors);
            CU_ASSERT_EQUAL(c.shared_wavefronts, first.shared_wavefronts);
            CU_ASSERT_EQUAL(c.barriers, 1);
        }
    CU_ASSERT_EQUAL(first.global_sectors, 2 * 1024 * 4 / 32);
    CU_ASSERT_EQUAL(first.bank_conflicts(), 0);
    simt::options().jobs = 0;
    simt::options().seed = 1;
}

static const SimtCase cases[] = {
    {"grid, block and thread coordinates", coordinates},
    {"a block of 1024 threads in four orders", largest_block},
    {"templates, dynamic and static shared memory", dynamic_and_static_shared},
    {"constant memory", constant_memory},
    {"arguments by value", arguments_by_value},
    {"__syncthreads_and, _or, _count; early exit", reducing_barriers},
    {"named barriers", named_barriers},
    {"bar.arrive and bar.sync", arrive_and_sync},
    {"clusters and distributed shared memory", clusters},
    {"shuffles", shuffles},
    {"votes and __reduce", votes_and_reductions},
    {"__syncwarp orders memory", syncwarp_orders},
    {"atomics", atomics},
    {"the last block adds up", last_block_reduces},
    {"blocks in turn", blocks_in_turn},
    {"at least 1 M thread-barriers a second", a_million_thread_barriers_a_second},
    {"more barriers than a clock counts", clocks_start_again},
    {"counters do not depend on seed or workers", same_report_whatever_the_workers},
};
static const SimtSuite suite("simt execution", cases);
