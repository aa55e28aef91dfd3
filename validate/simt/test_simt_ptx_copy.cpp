/* test_simt_ptx_copy.cpp — cp.async, bit instructions, named barriers, clusters, elect, setmaxnreg and cache hints. */
#include "test_simt_ptx.h"

/* --- cp.async --- */

/* 32 threads copy 32 pieces in two groups; each thread reads its neighbour's piece. */
template <int BYTES> static void k_cp_async(int bug, const char *in, char *out) {
    FB_SHARED_ALIGNED(char, s, [2][32 * 16], 16);
    unsigned t = threadIdx.x;
    for (int g = 0; g < 2; g++) {
        uint32_t dst = ptx::shared_address(&s[g][t * BYTES]);
        const char *src = in + (32 * (unsigned)g + t) * BYTES;
        if (BYTES == 4) ptx::cp_async_4(dst, src);
        if (BYTES == 8) ptx::cp_async_8(dst, src);
        if (BYTES == 16 && g == 0) ptx::cp_async_16(dst, src);
        if (BYTES == 16 && g == 1 && t % 2) ptx::cp_async_16_hint(dst, src, ptx::createpolicy_evict_first());
        if (BYTES == 16 && g == 1 && t % 2 == 0) ptx::cp_async_16_zfill_hint(dst, src, 16, ptx::createpolicy_evict_first());
        ptx::cp_async_commit_group();
    }
    if (bug == 1)
        ptx::cp_async_wait_group<2>();
    else
        ptx::cp_async_wait_group<1>(); /* the older group only */
    if (bug != 2) __syncthreads();
    unsigned n = (t + 1) % 32;
    for (unsigned i = 0; i < BYTES; i++) out[t * BYTES + i] = s[0][n * BYTES + i];
    if (bug == 3) out[32 * BYTES + t * BYTES] = s[1][t * BYTES];
    if (bug == 4) return;
    ptx::cp_async_wait_all();
    __syncthreads();
    for (unsigned i = 0; i < BYTES; i++) out[(32 + t) * BYTES + i] = s[1][n * BYTES + i];
}

template <int BYTES> static void cp_async_size() {
    std::vector<char> v(64 * BYTES), got(64 * BYTES);
    for (size_t i = 0; i < v.size(); i++) v[i] = (char)hash((unsigned)i);
    Device<char> in(v.data(), v.size(), "in"), out(v.size(), "out");
    Config c{1, 32};
    const char *p = in.p;
    CU_ASSERT(clean("k_cp_async", c, k_cp_async<BYTES>, 0, p, out.p));
    CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::CpAsync), 2);
    CU_ASSERT_EQUAL(simt::last_report().counters.buffer("in")->bytes_read, v.size());
    simt::copy_out(got.data(), out.p, got.size());
    int wrong = 0;
    for (size_t i = 0; i < v.size(); i++) {
        size_t piece = i / BYTES, from = piece / 32 * 32 + (piece + 1) % 32;
        wrong += got[i] != v[from * BYTES + i % BYTES];
    }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught_as(false, 1, Check::AsyncHazard, "wait for it first", "k_cp_async", c, k_cp_async<BYTES>, p, out.p));
    CU_ASSERT(found(Check::AsyncHazard, "shared array s +"));
    CU_ASSERT(caught(3, Check::AsyncHazard, "an asynchronous copy still writes", "k_cp_async", c, k_cp_async<BYTES>, p, out.p));
    CU_ASSERT(caught(4, Check::UnwaitedCopy, "cp.async of 1 piece", "k_cp_async", c, k_cp_async<BYTES>, p, out.p));
    /* Without the barrier it depends on the order whether the neighbour has waited yet: either report is right. */
    for (uint64_t seed = 1; seed < 5; seed++) {
        simt::options().seed = seed;
        launch("k_cp_async", c, k_cp_async<BYTES>, 2, p, out.p);
        CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::AsyncHazard) +
                      simt::last_report().count(Check::Uninitialised) > 0);
    }
    simt::options().seed = 1;
}

static void k_zfill(int bug, const char *in, char *out) {
    FB_SHARED_ALIGNED(char, s, [32 + 64 + 128], 16);
    unsigned t = threadIdx.x; /* 8 threads, valid bytes 0 ... size */
    ptx::cp_async_4_zfill(ptx::shared_address(s + 4 * t), in + 16 * t, t % 5);
    ptx::cp_async_8_zfill(ptx::shared_address(s + 32 + 8 * t), in + 16 * t, t);
    ptx::cp_async_16_zfill(ptx::shared_address(s + 96 + 16 * t), t ? in + 16 * t : nullptr, bug ? 17 : 2 * t);
    ptx::cp_async_commit_group();
    ptx::cp_async_wait_group<0>();
    for (unsigned i = 0; i < 4; i++) out[4 * t + i] = s[4 * t + i];
    for (unsigned i = 0; i < 8; i++) out[32 + 8 * t + i] = s[32 + 8 * t + i];
    for (unsigned i = 0; i < 16; i++) out[96 + 16 * t + i] = s[96 + 16 * t + i];
}
static void zero_fill() {
    std::vector<char> v(128), got(224);
    for (size_t i = 0; i < v.size(); i++) v[i] = (char)(hash((unsigned)i) | 1);
    Device<char> in(v.data(), v.size(), "in"), out(got.size(), "out");
    PLANT(1, Check::BadInstruction, "source size of 17", k_zfill, (Config{1, 8}), (const char *)in.p, out.p);
    CU_ASSERT(clean("k_zfill", Config{1, 8}, k_zfill, 0, (const char *)in.p, out.p));
    simt::copy_out(got.data(), out.p, got.size());
    int wrong = 0;
    for (unsigned t = 0; t < 8; t++) {
        for (unsigned i = 0; i < 4; i++) wrong += got[4 * t + i] != (i < t % 5 ? v[16 * t + i] : 0);
        for (unsigned i = 0; i < 8; i++) wrong += got[32 + 8 * t + i] != (i < t ? v[16 * t + i] : 0);
        for (unsigned i = 0; i < 16; i++) wrong += got[96 + 16 * t + i] != (i < 2 * t ? v[16 * t + i] : 0);
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

static void k_cp_async_places(int bug, const char *in, char *out) {
    FB_SHARED_ALIGNED(char, s, [64], 16);
    if (bug == 4) s[3] = 1; /* a plain store into the destination of the copy that follows is fine ... */
    ptx::cp_async_16_ca(ptx::shared_address(s) + (bug == 1 ? 8 : 0), bug == 2 ? in + 4 : bug == 3 ? in + 64 : in);
    if (bug == 4) s[5] = 1; /* ... but not while it flies */
    if (bug == 5) ptx::cp_async_16_ca(ptx::shared_address(s), in + 16);
    ptx::cp_async_wait_all();
    out[0] = s[0];
}
static void cp_async_places() {
    char v[64] = {};
    Device<char> in(v, 64, "in"), out(1, "out");
    Config c{1, 1};
    PLANT(1, Check::Misaligned, "cp.async", k_cp_async_places, c, (const char *)in.p, out.p);
    PLANT(2, Check::Misaligned, "source is not aligned", k_cp_async_places, c, (const char *)in.p, out.p);
    PLANT(3, Check::OutOfBounds, "end of buffer in (64 bytes)", k_cp_async_places, c, (const char *)in.p, out.p);
    PLANT(4, Check::AsyncHazard, "write to bytes an asynchronous copy still writes", k_cp_async_places, c, (const char *)in.p, out.p);
    PLANT(5, Check::AsyncHazard, "write to bytes", k_cp_async_places, c, (const char *)in.p, out.p);
}

/* A double buffer whose refill does not wait for the readers: the output is right all the same. */
static void k_refill(int bug, const uint4 *in, unsigned *out) {
    FB_SHARED_ALIGNED(uint4, s, [32], 16);
    unsigned t = threadIdx.x, sum = 0;
    for (unsigned i = 0; i < 4; i++) {
        ptx::cp_async_16(ptx::shared_address(&s[t]), in + 32 * i + t);
        ptx::cp_async_commit_group();
        ptx::cp_async_wait_group<0>();
        __syncthreads();
        sum += s[31 - t].x;
        if (!bug) __syncthreads();
    }
    out[t] = sum;
}
static void refill_too_early() {
    std::vector<unsigned> v(512, 7);
    Device<uint4> in((const uint4 *)v.data(), 128, "in");
    Device<unsigned> out(32, "out");
    CU_ASSERT(clean("k_refill", Config{1, 32}, k_refill, 0, (const uint4 *)in.p, out.p));
    launch("k_refill", Config{1, 32}, k_refill, 1, (const uint4 *)in.p, out.p);
    CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::AsyncHazard) > 0);
}

/* --- bits --- */

static void k_bits(uint32_t *o) {
    o[0] = ptx::lop3<0xf0>(1, 2, 4);
    o[1] = ptx::lop3<0xcc>(1, 2, 4);
    o[2] = ptx::lop3<0xaa>(1, 2, 4);
    o[3] = ptx::lop3<(0xf0 & 0xcc) | 0xaa>(0x0f0f0f0f, 0x00ff00ff, 0x80000001); /* (a & b) | c */
    o[4] = ptx::lop3<0xf0 ^ 0xcc ^ 0xaa>(0x12345678, 0x9abcdef0, 0x0fedcba9);
    o[5] = ptx::prmt(0x33221100, 0x77665544, 0x7520);
    o[6] = ptx::prmt(0x80007f00, 0, 0xba98); /* sign bits, eight times each */
    o[7] = ptx::cvt_rn_bf16x2(1.0f, -2.0f);
    o[8] = ptx::cvt_rn_bf16x2(1.00390625f, 1.01171875f); /* ties: 0x3f808000 and 0x3f818000 */
    o[9] = ptx::cvt_rn_f16x2(65520.0f, 0x1p-25f);
    o[10] = ptx::cvt_rn_f16x2(1.0f, 0x1.8p-24f);
    ptx::prefetch_l2(o);
    ptx::griddepcontrol_wait();
    ptx::griddepcontrol_launch_dependents();
    ptx::store_16_streaming(o + 12, ptx::load_16_hint(o, ptx::createpolicy_evict_last()));
    ptx::store_16_streaming(o + 16, ptx::load_16_streaming(o + 4));
    FB_SHARED(uint32_t, words, [4]);
    words[3] = 0x600d600d;
    o[20] = ptx::load_shared_4(ptx::shared_address(words) + 12);
}
static void bits() {
    Device<uint32_t> out(21, "out");
    CU_ASSERT(clean("k_bits", Config{1, 1}, k_bits, out.p));
    uint32_t o[21];
    simt::copy_out(o, out.p, sizeof o);
    CU_ASSERT_EQUAL(o[20], 0x600d600d);
    const uint32_t want[] = {1, 2, 4, 0x800f000f | 1, 0x12345678 ^ 0x9abcdef0 ^ 0x0fedcba9, 0x77552200, 0xff000000, 0x3f80c000,
                             0x3f803f82, 0x7c000000, 0x3c000002};
    for (size_t i = 0; i < sizeof want / 4; i++) CU_ASSERT_EQUAL(o[i], want[i]);
    CU_ASSERT(!memcmp(o, o + 12, 16) && !memcmp(o + 4, o + 16, 16));
}

/* --- named barriers as producers and consumers use them --- */

static void k_named(int bug, unsigned *out) {
    FB_SHARED(unsigned, s, [32]);
    unsigned t = threadIdx.x;
    for (unsigned round = 0; round < 3; round++) {
        if (t < 32) { /* producer: full is 1, empty is 2 */
            if (round) ptx::bar_sync(2, 64);
            s[t] = round * 100 + t;
            ptx::bar_arrive(1, 64);
        } else {
            if (bug != 1) ptx::bar_sync(1, 64);
            out[round * 32 + t - 32] = s[63 - t];
            if (round < 2 && bug != 2) ptx::bar_arrive(2, 64);
        }
    }
}
static void named_barriers() {
    Device<unsigned> out(96, "out");
    CU_ASSERT(clean("k_named", Config{1, 64}, k_named, 0, out.p));
    unsigned o[96], wrong = 0;
    simt::copy_out(o, out.p, sizeof o);
    for (unsigned i = 0; i < 96; i++) wrong += o[i] != i / 32 * 100 + 31 - i % 32;
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught(2, Check::Deadlock, "bar.sync", "k_named", Config{1, 64}, k_named, out.p));
    launch("k_named", Config{1, 64}, k_named, 1, out.p);
    CU_ASSERT(!simt::last_report().ok());
}

/* --- elect, setmaxnreg --- */

static void k_elect(int bug, unsigned *out) {
    if (bug && threadIdx.x == 3) return;
    bool mine = ptx::elect_sync(bug == 2 && threadIdx.x == 4 ? 0x0fu : 0xffffffffu);
    if (mine) atomicAdd(out, 1u);
}
static void elect() {
    Device<unsigned> out(1, "out");
    out.zero();
    CU_ASSERT_EQUAL(launch("k_elect", Config{1, 64}, k_elect, 0, out.p), 0);
    unsigned n;
    simt::copy_out(&n, out.p, 4);
    CU_ASSERT_EQUAL(n, 2); /* one a warp */
    CU_ASSERT(caught(2, Check::BadCollective, "elect.sync", "k_elect", Config{1, 32}, k_elect, out.p));
}

static void k_registers(int bug) {
    if (threadIdx.x < 128) {
        if (bug == 2 && threadIdx.x < 32) return; /* a warp of the warpgroup is missing */
        ptx::setmaxnreg_dec<24>();
    } else if (bug == 1)
        ptx::setmaxnreg_inc<256>();
    else if (bug == 3)
        ptx::setmaxnreg_inc<100>();
    else
        ptx::setmaxnreg_inc<240>();
}
static void registers() {
    Config c{1, 384};
    CU_ASSERT(clean("k_registers", c, k_registers, 0));
    CU_ASSERT(caught(1, Check::BadInstruction, "registers of 65536", "k_registers", c, k_registers));
    CU_ASSERT(caught_as(false, 2, Check::BadCollective, "setmaxnreg.dec", "k_registers", c, k_registers));
    CU_ASSERT(caught(3, Check::BadInstruction, "setmaxnreg to 100", "k_registers", c, k_registers));
}

/* --- clusters --- */

static void k_cluster(int bug, unsigned *out) {
    FB_SHARED(unsigned, s, [32]);
    unsigned t = threadIdx.x, rank = ptx::cluster_rank(), size = ptx::cluster_size();
    s[t] = rank * 100 + t;
    ptx::cluster_arrive();
    if (bug != 1) ptx::cluster_wait();
    unsigned next = (rank + 1) % size;
    uint32_t there = ptx::mapa(ptx::shared_address(&s[t]), bug == 3 ? size : next);
    unsigned by_address = ptx::ld_shared_cluster(there), by_pointer = *ptx::map_shared_rank(&s[t], next);
    if (bug == 1) ptx::cluster_wait();
    out[blockIdx.x * 32 + t] = by_address == by_pointer ? by_address : ~0u;
    ptx::cluster_arrive();
    ptx::cluster_wait();
    ptx::st_shared_cluster(there, t);
    if (bug != 2) {
        ptx::cluster_arrive();
        ptx::cluster_wait();
        out[256 + blockIdx.x * 32 + t] = s[t];
    } else
        out[256 + blockIdx.x * 32 + t] = s[31 - t];
}
static void clusters() {
    Device<unsigned> out(512, "out");
    Config c = with_shared(8, 32, 0, 4);
    CU_ASSERT(clean("k_cluster", c, k_cluster, 0, out.p));
    unsigned o[512], wrong = 0;
    simt::copy_out(o, out.p, sizeof o);
    for (unsigned b = 0; b < 8; b++)
        for (unsigned t = 0; t < 32; t++) wrong += o[b * 32 + t] != (b % 4 + 1) % 4 * 100 + t || o[256 + b * 32 + t] != t;
    CU_ASSERT_EQUAL(wrong, 0);
    for (int bug = 1; bug < 3; bug++) {
        launch("k_cluster", c, k_cluster, bug, out.p);
        CU_ASSERT(!simt::last_report().ok());
        CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::Uninitialised) +
                      simt::last_report().count(Check::OutOfBounds) > 0);
    }
    CU_ASSERT(caught(3, Check::BadInstruction, "mapa: rank 4", "k_cluster", c, k_cluster, out.p));
}

static const SimtCase cases[] = {
    {"cp.async of 4 bytes, groups", cp_async_size<4>},
    {"cp.async of 8 bytes, groups", cp_async_size<8>},
    {"cp.async of 16 bytes, groups", cp_async_size<16>},
    {"cp.async with zero fill", zero_fill},
    {"cp.async: alignment, bounds, writes in flight", cp_async_places},
    {"cp.async: refill before the readers are done", refill_too_early},
    {"lop3, prmt, cvt, cache hints, no-ops", bits},
    {"bar.sync and bar.arrive", named_barriers},
    {"elect.sync", elect},
    {"setmaxnreg", registers},
    {"clusters: barrier, mapa, distributed shared memory", clusters},
};
static SimtSuite suite("simt ptx copies", cases);
