/* test_simt_ptx_bulk.cpp — mbarriers, bulk copies both ways, multicast. */
#include "test_simt_ptx.h"

/* --- a ring of two stages: one warp copies, one adds up --- */

constexpr unsigned kTiles = 6, kTileBytes = 1024;

static void k_ring(int bug, const char *in, unsigned *out) {
    FB_SHARED_ALIGNED(char, stage, [2][kTileBytes], 128);
    FB_SHARED_ALIGNED(uint64_t, full, [2], 8);
    FB_SHARED_ALIGNED(uint64_t, empty, [2], 8);
    unsigned t = threadIdx.x;
    if (t == 0) {
        for (int i = 0; i < 2; i++) {
            if (bug != 6) ptx::mbarrier_init(ptx::shared_address(&full[i]), 1);
            ptx::mbarrier_init(ptx::shared_address(&empty[i]), 32);
        }
        if (bug == 11) ptx::mbarrier_init(ptx::shared_address(&full[0]), 1);
        if (bug != 4) ptx::fence_mbarrier_init();
    }
    if (bug != 8) __syncthreads();
    if (t < 32) {
        for (unsigned i = 0; i < kTiles; i++) {
            uint32_t f = ptx::shared_address(&full[i % 2]), e = ptx::shared_address(&empty[i % 2]);
            if (bug != 2) ptx::mbarrier_wait_parity(e, (i / 2 & 1) ^ 1);
            if (ptx::elect_sync(~0u)) {
                ptx::mbarrier_arrive_expect_tx(f, bug == 3 ? kTileBytes + 16 : kTileBytes);
                if (bug == 5) ptx::mbarrier_arrive(f);
                uint32_t n = bug == 9 ? kTileBytes - 8 : kTileBytes;
                ptx::cp_async_bulk_load(ptx::shared_address(stage[i % 2]), in + i * kTileBytes, n, f);
            }
            if (bug == 7 && i == 1 && t == 0) full[1] = 0;
        }
    } else {
        unsigned sum = 0, l = t - 32;
        for (unsigned i = 0; i < kTiles; i++) {
            if (bug != 1 || i != 3) ptx::mbarrier_wait_parity(ptx::shared_address(&full[i % 2]), i / 2 & 1);
            for (unsigned k = 0; k < kTileBytes / 4; k += 32) sum += ((const unsigned *)stage[i % 2])[k + l];
            ptx::mbarrier_arrive(ptx::shared_address(&empty[i % 2]));
            if (bug == 10 && i == kTiles - 2) break;
        }
        out[l] = sum;
    }
}

static void ring() {
    std::vector<unsigned> v(kTiles * kTileBytes / 4);
    unsigned want[32] = {}, got[32];
    for (unsigned i = 0; i < v.size(); i++) want[i % 32] += v[i] = hash(i);
    Device<char> in((const char *)v.data(), v.size() * 4, "in");
    Device<unsigned> out(32, "out");
    Config c{1, 64};
    const char *p = in.p;
    CU_ASSERT(clean("k_ring", c, k_ring, 0, p, out.p));
    simt::copy_out(got, out.p, sizeof got);
    CU_ASSERT(!memcmp(got, want, sizeof got));
    CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::CpAsyncBulk), kTiles);
    CU_ASSERT_EQUAL(simt::last_report().counters.buffer("in")->bytes_read, v.size() * 4);
    CU_ASSERT_EQUAL(simt::last_report().counters.buffer("in")->sectors_read, v.size() / 8);

    for (uint64_t seed = 1; seed <= 4; seed++) { /* which of the three depends on who comes first */
        simt::options().seed = seed;
        launch("k_ring", c, k_ring, 1, p, out.p);
        CU_ASSERT(simt::last_report().count(Check::AsyncHazard) + simt::last_report().count(Check::SharedRace) +
                      simt::last_report().count(Check::BarrierPhase) > 0);
        launch("k_ring", c, k_ring, 2, p, out.p);
        CU_ASSERT(simt::last_report().count(Check::AsyncHazard) + simt::last_report().count(Check::SharedRace) > 0);
        launch("k_ring", c, k_ring, 8, p, out.p);
        CU_ASSERT(simt::last_report().count(Check::BarrierPhase) + simt::last_report().count(Check::SharedRace) > 0);
    }
    simt::options().seed = 1;
    CU_ASSERT(caught(3, Check::BarrierPhase, "0 of 1 arrivals and 16 bytes are missing", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(4, Check::MissingFence, "fence.mbarrier_init", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(5, Check::BarrierPhase, "more arrivals than the 1 ", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(6, Check::BarrierPhase, "no mbarrier was initialised here", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(found(Check::BarrierPhase, "shared array full +"));
    CU_ASSERT(caught_as(false, 7, Check::BarrierPhase, "bytes were overwritten", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(9, Check::BadInstruction, "multiples of 16", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(10, Check::UnwaitedCopy, "nobody waited for", "k_ring", c, k_ring, p, out.p));
    CU_ASSERT(caught(11, Check::BarrierPhase, "initialised already", "k_ring", c, k_ring, p, out.p));
}

/* --- mbarriers between threads alone; polling with test_wait; expect_tx apart from the arrival; inval --- */

static void k_phases(int bug, unsigned *out) {
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    FB_SHARED(unsigned, s, [64]);
    unsigned t = threadIdx.x;
    uint32_t b = ptx::shared_address(bar);
    if (t == 0) ptx::mbarrier_init(b, 64);
    __syncthreads();
    for (unsigned phase = 0; phase < 3; phase++) {
        s[t] = phase * 1000 + t;
        ptx::mbarrier_arrive(b);
        if (bug == 1 && phase == 1) ptx::mbarrier_wait_parity(b, 0); /* of the phase before: returns at once */
        else if (t % 2)
            while (!ptx::mbarrier_test_wait_parity(b, phase & 1)) {}
        else
            ptx::mbarrier_wait_parity(b, phase & 1);
        out[phase * 64 + t] = s[63 - t];
        __syncthreads();
    }
    if (t == 0) {
        ptx::mbarrier_inval(b);
        if (bug == 2) ptx::mbarrier_arrive(b);
        bar[0] = 1; /* plain memory again */
    }
}
static void phases() {
    Device<unsigned> out(192, "out");
    CU_ASSERT(clean("k_phases", Config{1, 64}, k_phases, 0, out.p));
    unsigned o[192], wrong = 0;
    simt::copy_out(o, out.p, sizeof o);
    for (unsigned i = 0; i < 192; i++) wrong += o[i] != i / 64 * 1000 + 63 - i % 64;
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught_as(false, 1, Check::SharedRace, "shared array s +", "k_phases", Config{1, 64}, k_phases, out.p));
    CU_ASSERT(caught(2, Check::BarrierPhase, "no mbarrier", "k_phases", Config{1, 64}, k_phases, out.p));
}

static void k_expect(int bug, const char *in, unsigned *out) {
    FB_SHARED_ALIGNED(char, s, [256], 128);
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    uint32_t b = ptx::shared_address(bar);
    ptx::mbarrier_init(b, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_expect_tx(b, 128);
    ptx::cp_async_bulk_load_hint(ptx::shared_address(s), in, 128, b, ptx::createpolicy_evict_first());
    ptx::mbarrier_expect_tx(b, 128);
    ptx::cp_async_bulk_prefetch_l2(in, 128);
    ptx::cp_async_bulk_load(ptx::shared_address(s + 128), in + 128, 128, b);
    if (bug != 1) ptx::mbarrier_arrive(b);
    ptx::mbarrier_wait_parity(b, 0);
    out[0] = ((const unsigned *)s)[63];
}
static void expect_apart() {
    std::vector<unsigned> v(64, 9);
    Device<char> in((const char *)v.data(), 256, "in");
    Device<unsigned> out(1, "out");
    PLANT(1, Check::BarrierPhase, "1 of 1 arrivals and 0 bytes are missing", k_expect, (Config{1, 1}), (const char *)in.p, out.p);
}

/* --- cp.async that arrives at an mbarrier --- */

static void k_cp_async_arrive(int bug, const char *in, char *out) {
    FB_SHARED_ALIGNED(char, s, [512], 16);
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    unsigned t = threadIdx.x;
    uint32_t b = ptx::shared_address(bar);
    if (t == 0) ptx::mbarrier_init(b, 32);
    __syncthreads();
    if (t < 32) {
        ptx::cp_async_16(ptx::shared_address(s + 16 * t), in + 16 * t);
        if (bug != 1 || t != 9) ptx::cp_async_mbarrier_arrive_noinc(b);
        if (bug == 1 && t == 9) ptx::cp_async_wait_all();
    } else {
        if (bug != 2 || t != 40) ptx::mbarrier_wait_parity(b, 0);
        for (unsigned i = 0; i < 16; i++) out[16 * (t - 32) + i] = s[16 * (63 - t) + i];
    }
}
static void cp_async_arrives() {
    std::vector<char> v(512), got(512);
    for (size_t i = 0; i < 512; i++) v[i] = (char)hash((unsigned)i);
    Device<char> in(v.data(), 512, "in"), out(512, "out");
    Config c{1, 64};
    CU_ASSERT(clean("k_cp_async_arrive", c, k_cp_async_arrive, 0, (const char *)in.p, out.p));
    simt::copy_out(got.data(), out.p, 512);
    int wrong = 0;
    for (size_t i = 0; i < 512; i++) wrong += got[i] != v[(31 - i / 16) * 16 + i % 16];
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught(1, Check::BarrierPhase, "1 of 32 arrivals", "k_cp_async_arrive", c, k_cp_async_arrive, (const char *)in.p, out.p));
    for (uint64_t seed = 1; seed <= 4; seed++) {
        simt::options().seed = seed;
        launch("k_cp_async_arrive", c, k_cp_async_arrive, 2, (const char *)in.p, out.p);
        CU_ASSERT(!simt::last_report().ok());
    }
    simt::options().seed = 1;
}

/* --- bulk stores --- */

static void k_store(int bug, unsigned *out) {
    FB_SHARED_ALIGNED(unsigned, s, [2][64], 128);
    unsigned t = threadIdx.x;
    for (unsigned i = 0; i < 4; i++) {
        if (t == 0) {
            if (bug == 3)
                ptx::cp_async_bulk_wait_group_read<2>(); /* one too many may still be reading */
            else
                ptx::cp_async_bulk_wait_group_read<1>();
        }
        __syncthreads();
        s[i % 2][t] = i * 100 + t;
        if (bug != 1) ptx::fence_proxy_async();
        if (bug != 2) __syncthreads();
        if (t == 0) {
            ptx::cp_async_bulk_store(out + 64 * i, ptx::shared_address(s[i % 2]), 256);
            ptx::cp_async_bulk_commit_group();
        }
    }
    if (t == 0 && bug != 4) ptx::cp_async_bulk_wait_group<0>();
}
static void bulk_stores() {
    Device<unsigned> out(256, "out");
    Config c{1, 64};
    CU_ASSERT(clean("k_store", c, k_store, 0, out.p));
    CU_ASSERT_EQUAL(simt::last_report().counters.buffer("out")->bytes_written, 1024);
    unsigned o[256], wrong = 0;
    simt::copy_out(o, out.p, sizeof o);
    for (unsigned i = 0; i < 256; i++) wrong += o[i] != i / 64 * 100 + i % 64;
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught(1, Check::MissingFence, "fence.proxy.async", "k_store", c, k_store, out.p));
    CU_ASSERT(caught_as(false, 3, Check::AsyncHazard, "still reads", "k_store", c, k_store, out.p));
    CU_ASSERT(caught(4, Check::UnwaitedCopy, "bulk store of 256 bytes", "k_store", c, k_store, out.p));
    launch("k_store", c, k_store, 2, out.p);
    CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::Uninitialised) > 0);
}

/* --- multicast: each block of a pair brings half of the tile to both --- */

static void k_multicast(int bug, const char *in, unsigned *out) {
    FB_SHARED_ALIGNED(char, s, [1024], 128);
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    FB_SHARED_ALIGNED(uint64_t, done, [1], 8);
    unsigned t = threadIdx.x, rank = ptx::cluster_rank();
    uint32_t b = ptx::shared_address(bar), d = ptx::shared_address(done);
    if (t == 0) {
        ptx::mbarrier_init(b, 1);
        ptx::mbarrier_init(d, 2);
        ptx::fence_mbarrier_init();
    }
    if (bug != 1) {
        ptx::cluster_arrive();
        ptx::cluster_wait();
    } else
        __syncthreads();
    for (unsigned round = 0; round < 2; round++) {
        if (t == 0) {
            if (round && bug != 2) ptx::mbarrier_wait_parity_cluster(d, 0); /* both blocks have read the first tile */
            ptx::mbarrier_arrive_expect_tx(b, 1024);
            ptx::cp_async_bulk_load_multicast(ptx::shared_address(s + 512 * rank), in + 1024 * round + 512 * rank, 512, b, bug == 3 ? 7 : 3);
        }
        ptx::mbarrier_wait_parity(b, round);
        unsigned sum = 0;
        for (unsigned k = t; k < 256; k += 32) sum += ((const unsigned *)s)[k];
        out[blockIdx.x * 64 + round * 32 + t] = sum;
        __syncwarp();
        if (t == 0)
            for (unsigned r = 0; r < 2; r++) ptx::mbarrier_arrive_cluster(ptx::mapa(d, r));
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
}
static void multicast() {
    std::vector<unsigned> v(512);
    unsigned want[64] = {}, got[256];
    for (unsigned i = 0; i < 512; i++) want[i / 256 * 32 + i % 32] += v[i] = hash(i);
    Device<char> in((const char *)v.data(), 2048, "in");
    Device<unsigned> out(256, "out");
    Config c = with_shared(4, 32, 0, 2);
    const char *p = in.p;
    CU_ASSERT(clean("k_multicast", c, k_multicast, 0, p, out.p));
    simt::copy_out(got, out.p, sizeof got);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 256; i++) wrong += got[i] != want[i % 64];
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught(3, Check::BadInstruction, "multicast mask 0x7 in a cluster of 2", "k_multicast", c, k_multicast, p, out.p));
    bool seen1 = false, seen2 = false;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        simt::options().seed = seed;
        launch("k_multicast", c, k_multicast, 1, p, out.p);
        seen1 |= !simt::last_report().ok();
        launch("k_multicast", c, k_multicast, 2, p, out.p);
        seen2 |= simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::AsyncHazard) > 0;
    }
    simt::options().seed = 1;
    CU_ASSERT(seen1 && seen2);
}

static const SimtCase cases[] = {
    {"mbarrier ring with bulk loads", ring},
    {"mbarrier phases, test_wait, inval", phases},
    {"mbarrier expect_tx apart from the arrival", expect_apart},
    {"cp.async arrives at an mbarrier", cp_async_arrives},
    {"bulk stores", bulk_stores},
    {"multicast within a cluster", multicast},
};
static SimtSuite suite("simt ptx bulk", cases);
