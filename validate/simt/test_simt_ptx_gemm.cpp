/* test_simt_ptx_gemm.cpp — demo_gemm_sm90.cu: tensor copies, mbarriers, wgmma and setmaxnreg in one kernel. Twenty thread
 * orders without a false report, each planted bug found, and a decode-size layer in seconds. */
#include "test_simt_ptx.h"
#include "demo_gemm_sm90.cu"
#include <cmath>
#include <cstdio>
#include <ctime>

namespace {

struct Layer {
    int m, n, k;
    std::vector<uint16_t> x;
    std::vector<unsigned char> codes;
    std::vector<float> absmax;
    Layer(int m_, int n_, int k_) : m(m_), n(n_), k(k_), x((size_t)m * (size_t)k), codes((size_t)n * (size_t)k / 2), absmax((size_t)n * (size_t)k / 64) {
        unsigned seed = 1;
        for (auto &v : x) v = simt::float_to_bf16((float)(int)(hash(seed++) % 2001 - 1000) / 512.0f);
        for (auto &v : codes) v = (unsigned char)hash(seed++);
        for (auto &v : absmax) v = 0.02f + (float)(hash(seed++) % 1000) * 1e-5f;
    }
    double weight(int row, int col) const {
        size_t e = (size_t)row * (size_t)k + (size_t)col;
        unsigned code = col % 2 ? codes[e / 2] & 15 : codes[e / 2] >> 4;
        return (double)simt::bf16_to_float(simt::float_to_bf16(__uint_as_float(demo_nf4[code]) * absmax[e / 64]));
    }
};

struct OnDevice {
    Device<uint16_t> x;
    Device<unsigned char> codes;
    Device<float> absmax, y;
    CUtensorMap map_x, map_codes;
    Config config;
    explicit OnDevice(const Layer &l)
        : x(l.x.data(), l.x.size(), "x"), codes(l.codes.data(), l.codes.size(), "codes"), absmax(l.absmax.data(), l.absmax.size(), "absmax"),
          y((size_t)l.m * (size_t)l.n, "y") {
        CU_ASSERT_PTR_NULL(ptx::encode_tensor_map(&map_x, x.p, 2, (uint64_t)l.k, (uint64_t)l.m, (uint64_t)l.k * 2, 64, 64, 128));
        CU_ASSERT_PTR_NULL(ptx::encode_tensor_map(&map_codes, codes.p, 1, (uint64_t)l.k / 2, (uint64_t)l.n, (uint64_t)l.k / 2, 32, 128, 0));
        config.grid = dim3((unsigned)l.n / kDemoRows, (unsigned)l.m / kDemoTokens);
        config.block = dim3(384);
    }
};

template <int BUG> int run(const Layer &l, OnDevice &d) {
    return launch("demo_gemm_sm90", d.config, demo_gemm_sm90<BUG>, d.map_x, d.map_codes, (const float *)d.absmax.p, d.y.p, l.n, l.k);
}

double worst_error(const Layer &l, OnDevice &d, int every) { /* of the bound K 2^-24 sum |x w| */
    std::vector<float> y(d.y.n);
    simt::copy_out(y.data(), d.y.p, y.size() * 4);
    double worst = 0;
    for (size_t e = 0; e < y.size(); e += (size_t)every) {
        int token = (int)(e / (size_t)l.n), row = (int)(e % (size_t)l.n);
        double sum = 0, mass = 0;
        for (int k = 0; k < l.k; k++) {
            double p = (double)simt::bf16_to_float(l.x[(size_t)token * (size_t)l.k + (size_t)k]) * l.weight(row, k);
            sum += p;
            mass += std::fabs(p);
        }
        double r = std::fabs((double)y[e] - sum) / (l.k * 0x1p-24 * mass);
        if (!(r <= worst) && worst == worst) worst = r; /* a NaN stays */
    }
    return worst;
}

void twenty_orders() {
    Layer l(64, 256, 512);
    OnDevice d(l);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        simt::options().seed = seed;
        simt::options().accumulate = seed % 2 ? simt::Accumulate::ExactOrder : simt::Accumulate::Hopper;
        CU_ASSERT_EQUAL(run<0>(l, d), 0);
        CU_ASSERT(found_nothing());
        if (seed <= 2) CU_ASSERT(worst_error(l, d, 7) <= 1);
    }
    simt::options().seed = 1;
    simt::options().accumulate = simt::Accumulate::ExactOrder;
    CU_ASSERT_EQUAL(simt::last_report().counters.buffer("codes")->bytes_read, l.codes.size()); /* each byte once */
    CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Wgmma), 2 * 2 * 8 * 4);
}

void planted() {
    Layer l(64, 128, 512);
    OnDevice d(l);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        simt::options().seed = seed;
        const auto &r = simt::last_report();
        run<1>(l, d);
        CU_ASSERT(r.count(Check::AsyncHazard) + r.count(Check::Uninitialised) + r.count(Check::SharedRace) > 0);
        run<2>(l, d);
        CU_ASSERT(r.count(Check::AsyncHazard) + r.count(Check::SharedRace) > 0);
        run<3>(l, d);
        CU_ASSERT(found(Check::MissingFence, "wgmma.fence"));
        run<4>(l, d);
        if (stack_is_announced) {
            CU_ASSERT(found(Check::AsyncHazard, "accumulator"));
        } else
            CU_ASSERT(!(worst_error(l, d, 1) <= 1));
        run<5>(l, d);
        CU_ASSERT(!r.ok());
    }
    simt::options().seed = 1;
}

double now() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* the clock on the wall depends on who else is on the machine */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void a_layer() {
    Layer l(64, 4096, 4096);
    OnDevice d(l);
    double start = now();
    CU_ASSERT_EQUAL(run<0>(l, d), 0);
    double s = now() - start;
    CU_ASSERT(found_nothing());
    CU_ASSERT(worst_error(l, d, 4099) <= 1);
    printf("(M=64, N=K=4096: %.2f s of CPU time) ", s);
    CU_ASSERT(s < 10); /* 5 s on two cores */
}

const SimtCase cases[] = {
    {"twenty thread orders, nothing reported, right", twenty_orders},
    {"planted bugs", planted},
    {"a decode-size layer with all checks", a_layer},
};
SimtSuite suite("simt ptx gemm sm90", cases);

} // namespace
