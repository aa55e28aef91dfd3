/* test_simt_ptx_wgmma.cpp — wgmma: layouts of operands and accumulators, and everything that must happen around it.
 *
 * Operand layouts are stated here as CUTLASS documents its canonical layouts (shape : stride in elements, then
 * Swizzle<B,4,3>), evaluated by a small interpreter; the executor's own formulas in ptx_operand.cpp are not used. */
#include "test_simt_ptx.h"
#include <string>

/* Swizzle<B,4,3>: bits 4 ... 4+B-1 of the byte address are XORed with those three places above. */
static uint32_t cute_swizzle(int b, uint32_t byte) {
    uint32_t mask = ((1u << b) - 1) << 7;
    return byte ^ (byte & mask) >> 3;
}

struct Mode { /* one coordinate split into parts, fastest first */
    std::vector<uint32_t> shape, stride;
    uint32_t operator()(uint32_t c) const {
        uint32_t at = 0;
        for (size_t i = 0; i < shape.size(); i++) {
            at += (i + 1 < shape.size() ? c % shape[i] : c) * stride[i];
            c /= shape[i];
        }
        return at;
    }
};
struct Canonical {
    Mode mn, k;
    int swizzle_bits;
    uint32_t byte(uint32_t r, uint32_t c) const { return cute_swizzle(swizzle_bits, (mn(r) + k(c)) * 2); }
};

/* T = 8; SBO and LBO in elements. The eight rows of the table in CUTLASS' mma_traits_sm90_gmma.hpp. */
static Canonical canonical(bool mn_major, ptx::Swizzle s, uint32_t LBO, uint32_t SBO) {
    const uint32_t T = 8, any = 1u << 30;
    if (!mn_major) switch (s) {
        case ptx::Swizzle::None: return {{{8, any}, {1 * T, SBO}}, {{T, 2}, {1, LBO}}, 0};
        case ptx::Swizzle::B32: return {{{8, any}, {2 * T, SBO}}, {{T, 2}, {1, T}}, 1};
        case ptx::Swizzle::B64: return {{{8, any}, {4 * T, SBO}}, {{T, 2}, {1, T}}, 2};
        case ptx::Swizzle::B128: return {{{8, any}, {8 * T, SBO}}, {{T, 2}, {1, T}}, 3};
        }
    switch (s) {
    case ptx::Swizzle::None: return {{{T, 1, any}, {1, T, SBO}}, {{8, any}, {1 * T, LBO}}, 0};
    case ptx::Swizzle::B32: return {{{T, 2, any}, {1, T, LBO}}, {{8, any}, {2 * T, SBO}}, 1};
    case ptx::Swizzle::B64: return {{{T, 4, any}, {1, T, LBO}}, {{8, any}, {4 * T, SBO}}, 2};
    default: return {{{T, 8, any}, {1, T, LBO}}, {{8, any}, {8 * T, SBO}}, 3};
    }
}

/* Dense strides for a tile of `rows` x 16, in bytes. */
static void dense(bool mn_major, ptx::Swizzle s, uint32_t rows, uint32_t &lbo, uint32_t &sbo) {
    uint32_t w = s == ptx::Swizzle::None ? 1 : s == ptx::Swizzle::B32 ? 2 : s == ptx::Swizzle::B64 ? 4 : 8;
    if (!mn_major) {
        sbo = 128 * w;
        lbo = w == 1 ? (rows + 7) / 8 * 128 : 16;
    } else if (w == 1) {
        sbo = 128;
        lbo = rows / 8 * 128;
    } else {
        sbo = 128 * w;
        lbo = 2 * sbo;
    }
}

/* 9.7.15, D fragment: the figure's first columns, element by element. */
static int d_row(int thread, int i) {
    int warp = thread / 32 % 4, group = thread % 32 / 4;
    return 16 * warp + group + (i % 4 < 2 ? 0 : 8);
}
static int d_col(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + (i % 4 == 1 || i % 4 == 3); }

constexpr unsigned kOperandBytes = 64 * 1024;

template <int N, ptx::Major A, ptx::Major B, bool F16, bool RS>
static void k_wgmma(int bug, const uint4 *image_a, const uint4 *image_b, const uint32_t *registers_a, uint64_t bits_a,
                    uint64_t bits_b, const float *c, float *out) {
    FB_SHARED_ALIGNED(uint4, sa, [kOperandBytes / 16 / 4], 1024);
    FB_SHARED_ALIGNED(uint4, sb, [kOperandBytes / 16], 1024);
    unsigned t = threadIdx.x;
    if (!RS)
        for (unsigned i = t; i < kOperandBytes / 16 / 4; i += 128) sa[i] = image_a[i];
    for (unsigned i = t; i < kOperandBytes / 16; i += 128) sb[i] = image_b[i];
    if (bug != 2) ptx::fence_proxy_async();
    if (bug != 11) __syncthreads();
    float d[N / 2];
    for (int i = 0; i < N / 2; i++) d[i] = c[t * (N / 2) + (unsigned)i];
    uint32_t a[4];
    for (int i = 0; i < 4; i++) a[i] = RS ? registers_a[t * 4 + (unsigned)i] : 0;
    uint64_t da = bits_a | ptx::shared_address(sa) >> 4, db = bits_b | (ptx::shared_address(sb) + (bug == 7 ? 128 : bug == 9 ? kOperandBytes : 0)) >> 4;
    if (bug == 8 && t / 32 == 2) return;
    if (bug != 1) ptx::wgmma_fence();
    for (int twice = 0; twice < 2; twice++) { /* D = A B + C, then D += A B on the same accumulators, no fence needed */
        if (bug == 10 && twice) {
            ptx::wgmma_commit_group();
            ptx::wgmma_wait_group<0>();
            d[0] += 1;
        }
        if (RS && F16) ptx::wgmma_f16_rs<N, B>(d, a, db, 1);
        if (RS && !F16) ptx::wgmma_bf16_rs<N, B>(d, a, db, 1);
        if (!RS && F16) ptx::wgmma_f16<N, A, B>(d, da, db, 1);
        if (!RS && !F16) ptx::wgmma_bf16<N, A, B>(d, da, db, 1);
    }
    if (bug != 5) ptx::wgmma_commit_group();
    if (bug == 3) out[t * (N / 2)] = d[1];
    if (bug == 12) d[1] = 0;
    if (bug == 4 && t == 77) sb[0] = make_uint4(0, 0, 0, 0);
    if (bug == 6) return;
    ptx::wgmma_wait_group<0>();
    for (int i = 0; i < N / 2; i++) ptx::wgmma_fence_operand(d[i]);
    for (int i = 0; i < N / 2; i++) out[t * (N / 2) + (unsigned)i] = d[i];
}

struct Problem {
    std::vector<char> image_a, image_b;
    std::vector<uint32_t> registers;
    std::vector<float> a, b, c; /* [64][16], [N][16], [64][N] */
    uint64_t bits_a, bits_b;
};

static Problem make_problem(int n, bool a_mn, bool b_mn, bool f16, ptx::Swizzle s) {
    Problem p;
    p.a.resize(64 * 16);
    p.b.resize((size_t)n * 16);
    p.c.resize((size_t)64 * (size_t)n);
    unsigned seed = (unsigned)n * 131;
    for (float &v : p.a) v = small_integer(seed++);
    for (float &v : p.b) v = small_integer(seed++);
    for (float &v : p.c) v = small_integer(seed++);
    p.image_a.assign(kOperandBytes / 4, 0);
    p.image_b.assign(kOperandBytes, 0);
    p.registers.assign(512, 0);
    uint32_t lbo, sbo;
    dense(a_mn, s, 64, lbo, sbo);
    p.bits_a = ptx::matrix_descriptor(0, lbo, sbo, s);
    Canonical la = canonical(a_mn, s, lbo / 2, sbo / 2);
    for (uint32_t r = 0; r < 64; r++)
        for (uint32_t k = 0; k < 16; k++) *(uint16_t *)&p.image_a[la.byte(r, k)] = encode16(p.a[r * 16 + k], f16);
    dense(b_mn, s, (uint32_t)n, lbo, sbo);
    p.bits_b = ptx::matrix_descriptor(0, lbo, sbo, s);
    Canonical lb = canonical(b_mn, s, lbo / 2, sbo / 2);
    for (uint32_t r = 0; r < (uint32_t)n; r++)
        for (uint32_t k = 0; k < 16; k++) *(uint16_t *)&p.image_b[lb.byte(r, k)] = encode16(p.b[r * 16 + k], f16);
    /* A in registers, 9.7.15: "row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, else groupID + 8" in each warp */
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 8; i++) {
            int row = t / 32 * 16 + t % 32 / 4 + (i < 2 || (4 <= i && i < 6) ? 0 : 8), col = t % 4 * 2 + i % 2 + (i < 4 ? 0 : 8);
            p.registers[(size_t)t * 4 + (size_t)i / 2] |= (uint32_t)encode16(p.a[(size_t)row * 16 + (size_t)col], f16) << (i % 2 * 16);
        }
    return p;
}

template <int N, ptx::Major A, ptx::Major B, bool F16, bool RS> static int run_problem(ptx::Swizzle s, int bug = 0) {
    Problem p = make_problem(N, A == ptx::Major::MN, B == ptx::Major::MN, F16, s);
    std::vector<float> c(64 * N), got(64 * N);
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < N / 2; i++) c[(size_t)t * N / 2 + (size_t)i] = p.c[(size_t)d_row(t, i) * N + (size_t)d_col(t, i)];
    Device<char> ia(p.image_a.data(), p.image_a.size(), "image a"), ib(p.image_b.data(), p.image_b.size(), "image b");
    Device<uint32_t> ra(p.registers.data(), 512, "registers");
    Device<float> dc(c.data(), c.size(), "c"), out(c.size(), "out");
    launch("k_wgmma", Config{1, 128}, k_wgmma<N, A, B, F16, RS>, bug, (const uint4 *)ia.p, (const uint4 *)ib.p,
           (const uint32_t *)ra.p, p.bits_a, p.bits_b, (const float *)dc.p, out.p);
    if (bug) return 0;
    if (!found_nothing()) return -1;
    simt::copy_out(got.data(), out.p, got.size() * 4);
    int wrong = 0;
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < N / 2; i++) {
            size_t r = (size_t)d_row(t, i), col = (size_t)d_col(t, i);
            float want = p.c[r * N + col];
            for (size_t k = 0; k < 16; k++) want += 2 * p.a[r * 16 + k] * p.b[col * 16 + k];
            wrong += got[(size_t)t * N / 2 + (size_t)i] != want;
        }
    return wrong;
}

using ptx::Major;
const ptx::Swizzle all_swizzles[] = {ptx::Swizzle::None, ptx::Swizzle::B32, ptx::Swizzle::B64, ptx::Swizzle::B128};

static void k_major() {
    for (ptx::Swizzle s : all_swizzles) {
        CU_ASSERT_EQUAL((run_problem<8, Major::K, Major::K, false, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<24, Major::K, Major::K, true, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<64, Major::K, Major::K, false, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<256, Major::K, Major::K, true, false>(s)), 0);
        CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Wgmma), 2);
    }
}
static void mn_major() {
    for (ptx::Swizzle s : all_swizzles) {
        CU_ASSERT_EQUAL((run_problem<64, Major::MN, Major::K, false, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<64, Major::K, Major::MN, true, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<128, Major::MN, Major::MN, false, false>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<256, Major::K, Major::MN, false, false>(s)), 0);
    }
    CU_ASSERT_EQUAL((run_problem<8, Major::K, Major::MN, false, false>(ptx::Swizzle::None)), 0);
}
static void a_in_registers() {
    for (ptx::Swizzle s : all_swizzles) {
        CU_ASSERT_EQUAL((run_problem<16, Major::K, Major::K, false, true>(s)), 0);
        CU_ASSERT_EQUAL((run_problem<128, Major::K, Major::MN, true, true>(s)), 0);
    }
}

static void d_corners() { /* off the ISA's figure of the m64nNk16 D fragment */
    struct { int thread, i, row, col; } const table[] = {{0, 0, 0, 0},  {0, 1, 0, 1},   {3, 1, 0, 7},    {4, 0, 1, 0},  {0, 2, 8, 0},
                                                         {0, 4, 0, 8},  {31, 3, 15, 7}, {32, 0, 16, 0},  {96, 0, 48, 0}, {127, 3, 63, 7},
                                                         {127, 7, 63, 15}};
    for (auto &e : table) CU_ASSERT(d_row(e.thread, e.i) == e.row && d_col(e.thread, e.i) == e.col);
}

static bool bug_shows(int bug, Check check, const char *words, bool alone = true) {
    bool ok = true;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        simt::options().seed = seed;
        run_problem<64, Major::K, Major::K, false, false>(ptx::Swizzle::B128, bug);
        ok = (alone ? found_only(check, words) : found(check, words)) && found(check, "k_wgmma") &&
             found(check, "test_simt_ptx_wgmma.cpp:") && ok;
    }
    simt::options().seed = 1;
    return ok;
}
static void fences() {
    CU_ASSERT(bug_shows(1, Check::MissingFence, "no wgmma.fence"));
    CU_ASSERT(bug_shows(10, Check::MissingFence, "no wgmma.fence"));
    CU_ASSERT(bug_shows(2, Check::MissingFence, "fence.proxy.async"));
    CU_ASSERT(found(Check::MissingFence, "shared array sb +0"));
}
static void in_flight() {
    if (stack_is_announced) {
        CU_ASSERT(bug_shows(3, Check::AsyncHazard, "accumulator 1 of a wgmma that was not waited for is read"));
        CU_ASSERT(bug_shows(12, Check::AsyncHazard, "accumulator 1 of a wgmma that was not waited for is written", false));
    } else
        CU_ASSERT(bug_shows(12, Check::AsyncHazard, "an accumulator was overwritten", false));
    CU_ASSERT(bug_shows(4, Check::AsyncHazard, "an asynchronous operation still reads", false));
    CU_ASSERT(found(Check::AsyncHazard, "thread (77,0,0)"));
    if (stack_is_announced) CU_ASSERT(bug_shows(5, Check::AsyncHazard, "accumulator 0", false));
    CU_ASSERT(bug_shows(5, Check::UnwaitedCopy, "wgmma m64n64k16", false)); /* the wait had nothing to wait for */
    CU_ASSERT(bug_shows(6, Check::UnwaitedCopy, "wgmma m64n64k16"));
}
static void operands() {
    CU_ASSERT(bug_shows(7, Check::BadInstruction, "begins inside the swizzle pattern"));
    CU_ASSERT(bug_shows(9, Check::OutOfBounds, "outside the block's shared arrays"));
    CU_ASSERT(bug_shows(8, Check::BadCollective, "of 128 threads", false));
    /* without the barrier the operand is either not written yet or written by a thread nobody waited for */
    run_problem<64, Major::K, Major::K, false, false>(ptx::Swizzle::B128, 11);
    CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::Uninitialised) > 0);
}

/* Two accumulators, two groups in flight, operands of the second overwritten after the first is waited for. */
static void k_two_groups(int bug, const uint4 *image, uint64_t bits, float *out) {
    FB_SHARED_ALIGNED(uint4, s, [2][1024], 1024);
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 2048; i += 128) s[i / 1024][i % 1024] = image[i % 1024];
    ptx::fence_proxy_async();
    __syncthreads();
    float d[2][4] = {};
    uint64_t d0 = bits | ptx::shared_address(s[0]) >> 4, d1 = bits | ptx::shared_address(s[1]) >> 4;
    ptx::wgmma_fence();
    ptx::wgmma_bf16<8>(d[0], d0, d0, 0);
    ptx::wgmma_commit_group();
    ptx::wgmma_bf16<8>(d[1], d1, d1, 0);
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<1>();
    float first = d[0][0];
    __syncthreads();
    s[bug ? 1 : 0][t] = make_uint4(0, 0, 0, 0);
    ptx::wgmma_wait_group<0>();
    out[t] = first + d[1][0];
}
static void groups() {
    Problem p = make_problem(64, false, false, false, ptx::Swizzle::B128);
    Device<char> image(p.image_a.data(), p.image_a.size(), "image");
    Device<float> out(128, "out");
    CU_ASSERT(clean("k_two_groups", Config{1, 128}, k_two_groups, 0, (const uint4 *)image.p, p.bits_a, out.p));
    CU_ASSERT(caught_as(false, 1, Check::AsyncHazard, "an asynchronous operation still reads", "k_two_groups", Config{1, 128}, k_two_groups,
                        (const uint4 *)image.p, p.bits_a, out.p));
}

static const SimtCase cases[] = {
    {"both operands K-major, all swizzles", k_major},
    {"MN-major operands, all swizzles", mn_major},
    {"A from registers", a_in_registers},
    {"accumulators: the ISA's corners", d_corners},
    {"missing wgmma.fence and fence.proxy.async", fences},
    {"accumulators and operands in flight", in_flight},
    {"descriptors, missing warps, missing barrier", operands},
    {"two groups in flight", groups},
};
static SimtSuite suite("simt ptx wgmma", cases);
