/* test_simt_gemm.cpp — a whole kernel: Y [64, N] = X [64, K] · Wᵀ with NF4 weights decoded on the way, double-buffered
 * cp.async, ldmatrix, mma.sync.  It is the executor's own, small on purpose; the library's kernels are in kernels/cuda.
 *
 * What it is for: the time limit of a decode-size layer with all checks on, and the bugs a GPU forgives.  Bug 3 leaves the
 * output right, so that no comparison of results would find it.
 *
 *   block: 4 warps, tile 64 x 64; a step of 64 along K
 *     fetch X of the next step (cp.async) | decode W of this step | wait, barrier | 4 x 8 mma a warp | barrier
 */
#include "test_simt_ptx.h"
#include "formats.h"
#include <cmath>
#include <ctime>
#include <random>

namespace {

constexpr int kTile = 64, kRow = kTile + 8; /* 144-byte rows: eight of them touch all banks once */
FB_CONSTANT(uint32_t, kNf4, [16]) = {FB_NF4_BITS};

struct Problem {
    const uint16_t *x;
    const uint8_t *codes;
    const float *absmax; /* block 64 */
    float *y;
    int n, k;
};

template <int BUG> void fused_gemm(Problem p) {
    FB_SHARED(uint16_t, xs, [2][kTile][kRow]);
    FB_SHARED(uint16_t, ws, [kTile][kRow]);
    const int t = (int)threadIdx.x, warp = t / 32, lane = t % 32, n0 = (int)blockIdx.x * kTile;
    float acc[8][4] = {};

    auto fetch = [&](int stage, int k0) {
        for (int i = t; i < kTile * 8; i += 128) {
            const uint16_t *from = p.x + (size_t)(i / 8) * (size_t)p.k + k0 + i % 8 * 8;
            if (BUG == 4 && i == 511 && k0 + kTile == p.k) from += 8;
            ptx::cp_async_16(ptx::shared_address(&xs[stage][i / 8][i % 8 * 8]), from);
        }
        ptx::cp_async_commit_group();
    };
    auto decode = [&](int k0) { /* thread: 32 weights of one row */
        int row = t / 2, half = t % 2 * 32;
        size_t first = (size_t)(n0 + row) * (size_t)p.k + (size_t)(k0 + half);
        uint4 codes = *(const uint4 *)(p.codes + first / 2);
        float scale = p.absmax[first / 64];
        uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
        for (int j = 0; j < 4; j++) {
            uint32_t out[4];
            for (int b = 0; b < 4; b++) {
                uint32_t byte = words[j] >> (8 * b) & 255;
                out[b] = ptx::cvt_rn_bf16x2(__fmul_rn(__uint_as_float(kNf4[byte & 15]), scale),
                                            __fmul_rn(__uint_as_float(kNf4[byte >> 4]), scale));
            }
            *(uint4 *)&ws[row][half + 8 * j] = make_uint4(out[0], out[1], out[2], out[3]);
        }
    };
    auto multiply = [&](int stage) {
        for (int kk = 0; kk < kTile; kk += 16) {
            uint32_t a[4];
            ptx::ldmatrix_x4(a, ptx::shared_address(&xs[stage][warp * 16 + lane % 16][kk + lane / 16 * 8]));
            for (int j = 0; j < 8; j += 2) {
                uint32_t b[4];
                ptx::ldmatrix_x4(b, ptx::shared_address(&ws[j * 8 + lane / 16 * 8 + lane % 8][kk + lane / 8 % 2 * 8]));
                uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
                ptx::mma_m16n8k16_bf16(acc[j], a, b0);
                ptx::mma_m16n8k16_bf16(acc[j + 1], a, b1);
            }
        }
    };

    fetch(0, 0);
    for (int k0 = 0, stage = 0; k0 < p.k; k0 += kTile, stage ^= 1) {
        bool more = k0 + kTile < p.k;
        if (more) fetch(stage ^ 1, k0 + kTile);
        decode(k0);
        if (more && BUG != 1)
            ptx::cp_async_wait_group<1>();
        else if (more)
            ptx::cp_async_wait_group<2>();
        else
            ptx::cp_async_wait_group<0>();
        if (BUG != 2) __syncthreads();
        multiply(stage);
        if (BUG != 3) __syncthreads();
    }
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 4; i += 2) {
            int m = warp * 16 + lane / 4 + i / 2 * 8, n = n0 + j * 8 + lane % 4 * 2;
            *(float2 *)&p.y[(size_t)m * (size_t)p.n + (size_t)n] = make_float2(acc[j][i], acc[j][i + 1]);
        }
}

struct Data {
    int n, k;
    std::vector<uint16_t> x;
    std::vector<uint8_t> codes;
    std::vector<float> absmax;
    Device<uint16_t> dx;
    Device<uint8_t> dcodes;
    Device<float> dabsmax, y;
    Data(int n_, int k_)
        : n(n_), k(k_), x((size_t)(64 * k_)), codes((size_t)n_ * (size_t)k_ / 2), absmax((size_t)n_ * (size_t)k_ / 64),
          dx(x.size(), "X"), dcodes(codes.size(), "codes"), dabsmax(absmax.size(), "absmax"), y((size_t)(64 * n_), "Y") {
        std::mt19937 random(3);
        for (uint16_t &v : x) v = simt::float_to_bf16((float)((int)(random() % 2001) - 1000) * 0x1p-10f);
        for (uint8_t &v : codes) v = (uint8_t)random();
        for (float &v : absmax) v = (float)(random() % 1000 + 1) * 0x1p-14f;
        simt::copy_in(dx, x.data(), x.size() * 2);
        simt::copy_in(dcodes, codes.data(), codes.size());
        simt::copy_in(dabsmax, absmax.data(), absmax.size() * 4);
    }
    template <int BUG> int run() {
        return launch("fused_gemm", Config{(unsigned)(n / kTile), 128}, fused_gemm<BUG>, Problem{dx, dcodes, dabsmax, y, n, k});
    }
    /* Elements beyond the bound of fp32 accumulation, K 2^-24 sum |x w|, against the product in double. */
    size_t wrong(int every) {
        size_t bad = 0;
        for (int j = 0; j < n; j += every) {
            std::vector<double> w((size_t)k);
            for (int i = 0; i < k; i++) {
                size_t e = (size_t)j * (size_t)k + (size_t)i;
                float value = simt::float_of(fb_codebook_bits[FB_NF4][fb_nibble(codes.data(), (int64_t)e)]) * absmax[e / 64];
                w[(size_t)i] = simt::bf16_to_float(simt::float_to_bf16(value));
            }
            for (int m = 0; m < 64; m++) {
                double sum = 0, size = 0;
                for (int i = 0; i < k; i++) {
                    double term = simt::bf16_to_float(x[(size_t)m * (size_t)k + (size_t)i]) * w[(size_t)i];
                    sum += term;
                    size += std::fabs(term);
                }
                bad += !(std::fabs(sum - (double)y[(size_t)m * (size_t)n + (size_t)j]) <= k * 0x1p-24 * size);
            }
        }
        return bad;
    }
};

void a_decode_size_layer_in_five_seconds() {
    Data d(4096, 4096);
    std::clock_t before = std::clock();
    CU_ASSERT_EQUAL(d.run<0>(), 0);
    double cpu = (double)(std::clock() - before) / CLOCKS_PER_SEC; /* other programs' load must not fail a test */
    CU_ASSERT(found_nothing());
    const simt::Report &r = simt::last_report();
    printf("(%.2f s of CPU time, %.2f s on the clock) ", cpu, r.seconds);
    CU_ASSERT(cpu <= 2 * 5);
    CU_ASSERT_EQUAL(d.wrong(97), 0);
    const simt::Counters &c = r.counters;
    CU_ASSERT_EQUAL(c.count(simt::Instr::Mma), 64ull * 64 * 4 * 32);
    CU_ASSERT_EQUAL(c.buffer("codes")->sectors_read * 32, d.codes.size()); /* every byte of the weights once */
    CU_ASSERT_EQUAL(c.buffer("Y")->sectors_written * 32, d.y.n * 4);
}

void clean_in_20_seeds() {
    Data d(128, 256);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        simt::options().seed = seed;
        CU_ASSERT_EQUAL(d.run<0>(), 0);
        CU_ASSERT(found_nothing());
        CU_ASSERT_EQUAL(d.wrong(1), 0);
    }
    simt::options().seed = 1;
}

void weak_wait() {
    Data d(64, 256);
    CU_ASSERT_NOT_EQUAL(d.run<1>(), 0);
    CU_ASSERT(found(Check::AsyncHazard, "wait for it first"));
}

void missing_barrier_before_the_read() {
    Data d(64, 256);
    CU_ASSERT_NOT_EQUAL(d.run<2>(), 0);
    CU_ASSERT(simt::last_report().count(Check::SharedRace) + simt::last_report().count(Check::AsyncHazard) +
                  simt::last_report().count(Check::Uninitialised) > 0);
}

/* All warps have run their mma by the time any fetches again, in most orders: the output is right, the kernel is not. */
void missing_barrier_after_the_read() {
    Data d(64, 256);
    unsigned right = 0;
    for (simt::Order order : {simt::Order::Forward, simt::Order::Reverse}) {
        simt::options().order = order;
        CU_ASSERT_NOT_EQUAL(d.run<3>(), 0);
        CU_ASSERT(simt::last_report().count(Check::SharedRace) > 0);
        right += d.wrong(1) == 0;
    }
    simt::options().order = simt::Order::Seeded;
    printf("(output right in %u of 2 orders) ", right);
}

void reads_past_the_end() {
    Data d(64, 256);
    CU_ASSERT_NOT_EQUAL(d.run<4>(), 0);
    CU_ASSERT(found_only(Check::OutOfBounds, "the end of "));
    CU_ASSERT(found(Check::OutOfBounds, "buffer X"));
}

const SimtCase cases[] = {
    {"64 x 4096 x 4096, all checks, in 5 s on two cores", a_decode_size_layer_in_five_seconds},
    {"clean and right in 20 seeds", clean_in_20_seeds},
    {"bug: cp.async wait too weak", weak_wait},
    {"bug: missing barrier before the read", missing_barrier_before_the_read},
    {"bug: missing barrier after the read", missing_barrier_after_the_read},
    {"bug: reads past the end of X", reads_past_the_end},
};
const SimtSuite suite("simt fused gemm", cases);

} // namespace
