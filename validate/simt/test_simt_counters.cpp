/* test_simt_counters.cpp — counts that can be worked out by hand, each with an access pattern that spoils them. */
#include "test_simt.h"
#include <vector>

using simt::Config;
using simt::Instr;
using simt::launch;

static const simt::Counters &counters() { return simt::last_report().counters; }

/* --- bank conflicts: lane i touches word i * stride --- */

static void k_banks(int stride, int *out) {
    FB_SHARED(int, s, [1024]);
    for (unsigned i = threadIdx.x; i < 1024; i += 32) s[i] = 0;
    __syncthreads();
    out[threadIdx.x] = s[(threadIdx.x * (unsigned)stride) % 1024];
}
static void bank_conflicts() {
    Device<int> out(32, "out");
    const struct { int stride; unsigned extra; } cases[] = {{1, 0}, {2, 1}, {4, 3}, {8, 7}, {32, 31}, {33, 0}, {0, 0}, {31, 0}};
    for (auto c : cases) {
        CU_ASSERT_EQUAL(launch("k_banks", Config{1, 32}, k_banks, c.stride, out.p), 0);
        CU_ASSERT_EQUAL(counters().bank_conflicts(), c.extra);
        CU_ASSERT_EQUAL(counters().shared_requests, 33);
    }
}

/* A column of a [32][N] tile: 32-fold conflict without padding, none with one element of it. */
template <int N> static void k_column(int *out) {
    FB_SHARED(int, s, [32][N]);
    for (int r = 0; r < 32; r++) s[r][threadIdx.x] = r;
    __syncthreads();
    int v = 0;
    for (int c = 0; c < 32; c++) v += s[threadIdx.x][c];
    out[threadIdx.x] = v;
}
static void padding_cures_conflicts() {
    Device<int> out(32, "out");
    CU_ASSERT_EQUAL(launch("k_column<32>", Config{1, 32}, k_column<32>, out.p), 0);
    CU_ASSERT_EQUAL(counters().bank_conflicts(), 32 * 31);
    CU_ASSERT_EQUAL(launch("k_column<33>", Config{1, 32}, k_column<33>, out.p), 0);
    CU_ASSERT_EQUAL(counters().bank_conflicts(), 0);
}

/* 16-byte accesses go a quarter of a warp at a time: consecutive ones are free, a stride of 128 bytes is 8-fold in each. */
static void k_wide(unsigned stride, uint4 *out) {
    FB_DYNAMIC_SHARED(uint4, s, 128);
    for (unsigned i = threadIdx.x; i < 256; i += 32) s[i] = make_uint4(i, 0, 0, 0);
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x * stride];
}
static void wide_shared_accesses() {
    Device<uint4> out(32, "out");
    Config c{1, 32};
    c.shared_bytes = 4096;
    CU_ASSERT_EQUAL(launch("k_wide", c, k_wide, 1u, out.p), 0);
    CU_ASSERT_EQUAL(counters().bank_conflicts(), 0);
    CU_ASSERT_EQUAL(counters().shared_loads[4], 32);
    CU_ASSERT_EQUAL(launch("k_wide", c, k_wide, 8u, out.p), 0);
    CU_ASSERT_EQUAL(counters().bank_conflicts(), 4 * 7);
}

/* --- coalescing --- */

static void k_copy(const float *in, float *out, int stride, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) out[i] = in[i * stride];
}
static void coalescing() {
    std::vector<float> v(32 * 256, 1.0f);
    Device<float> in(v.data(), v.size(), "in"), out(256, "out");
    const struct { int stride; unsigned sectors; } cases[] = {{1, 32}, {2, 64}, {8, 256}, {32, 256}};
    for (auto c : cases) {
        CU_ASSERT_EQUAL(launch("k_copy", Config{4, 64}, k_copy, (const float *)in.p, out.p, c.stride, 256), 0);
        const simt::BufferTraffic *i = counters().buffer("in"), *o = counters().buffer("out");
        CU_ASSERT_FATAL(i && o);
        CU_ASSERT_EQUAL(i->sectors_read, c.sectors);
        CU_ASSERT_EQUAL(i->bytes_read, 1024);
        CU_ASSERT_EQUAL(o->sectors_written, 32);
        CU_ASSERT_EQUAL(o->bytes_read, 0);
    }
    CU_ASSERT_EQUAL(counters().global_requests, 16);
}

/* 16 bytes a lane: one request, 16 sectors, all used: the budget "moves what it declares" holds; and not from odd starts. */
static void k_wide_copy(const uint4 *in, uint4 *out, unsigned shift) {
    out[threadIdx.x] = in[threadIdx.x + shift];
}
static void a_vector_load_is_one_request() {
    std::vector<uint4> v(65, make_uint4(1, 2, 3, 4));
    Device<uint4> in(v.data(), 65, "in"), out(64, "out");
    CU_ASSERT_EQUAL(launch("k_wide_copy", Config{1, 64}, k_wide_copy, (const uint4 *)in.p, out.p, 0u), 0);
    CU_ASSERT_EQUAL(counters().global_requests, 4);
    CU_ASSERT_EQUAL(counters().global_sectors, 64);
    CU_ASSERT_EQUAL(counters().global_sectors, counters().global_sectors_ideal);
    CU_ASSERT_EQUAL(counters().global_loads[4], 64);
    CU_ASSERT_EQUAL(launch("k_wide_copy", Config{1, 64}, k_wide_copy, (const uint4 *)in.p, out.p, 1u), 0);
    CU_ASSERT_EQUAL(counters().buffer("in")->sectors_read, 34);
    CU_ASSERT(counters().global_sectors > counters().global_sectors_ideal);
}

/* Divergent lanes: the n-th execution by one lane matches the n-th by the others, in whatever order they ran. */
static void k_divergent(const float *in, float *out) {
    unsigned t = threadIdx.x;
    float s = 0;
    for (unsigned i = 0; i <= t % 4; i++) s += in[i * 32 + t];
    if (t & 1) s *= 2;
    out[t] = s;
}
static void divergent_lanes_match() {
    std::vector<float> v(128, 1.0f);
    Device<float> in(v.data(), 128, "in"), out(32, "out");
    for (uint64_t seed = 1; seed <= 4; seed++) {
        simt::options().seed = seed;
        CU_ASSERT_EQUAL(launch("k_divergent", Config{1, 32}, k_divergent, (const float *)in.p, out.p), 0);
        CU_ASSERT_EQUAL(counters().buffer("in")->sectors_read, 16);
        CU_ASSERT_EQUAL(counters().global_requests, 5);
    }
    simt::options().seed = 1;
}

static void k_kinds(float *out) {
    FB_SHARED(float, s, [32]);
    float v = (float)threadIdx.x;
    v += __shfl_xor_sync(~0u, v, 1);
    v += __shfl_xor_sync(~0u, v, 2);
    if (__any_sync(~0u, v > 3)) v += 1;
    s[threadIdx.x] = v;
    __syncwarp();
    v = s[0];
    atomicAdd(&out[0], v);
    __threadfence();
    __syncthreads();
}
static void instructions_by_kind() {
    Device<float> out(1, "out");
    out.zero();
    CU_ASSERT_EQUAL(launch("k_kinds", Config{3, 32}, k_kinds, out.p), 0);
    const simt::Counters &c = counters();
    CU_ASSERT_EQUAL(c.count(Instr::Shuffle), 6);
    CU_ASSERT_EQUAL(c.count(Instr::Vote), 3);
    CU_ASSERT_EQUAL(c.count(Instr::SyncWarp), 3);
    CU_ASSERT_EQUAL(c.count(Instr::Atomic), 96);
    CU_ASSERT_EQUAL(c.count(Instr::BlockBarrier), 3);
    CU_ASSERT_EQUAL(c.count(Instr::Mma), 0);
    CU_ASSERT_EQUAL(c.shared_stores[2], 96);
}

static const SimtCase cases[] = {
    {"bank conflicts by stride", bank_conflicts},
    {"padding cures bank conflicts", padding_cures_conflicts},
    {"16-byte shared accesses", wide_shared_accesses},
    {"sectors by stride", coalescing},
    {"a vector load is one request", a_vector_load_is_one_request},
    {"divergent lanes match", divergent_lanes_match},
    {"instructions by kind", instructions_by_kind},
};
static const SimtSuite suite("simt counters", cases);
