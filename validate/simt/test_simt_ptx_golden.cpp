/* test_simt_ptx_golden.cpp — the executor against what a GPU computed (golden/capture.cu), where that has been captured.
 *
 * Integer inputs must agree bit for bit: they show layouts. For the others the test prints how many results each way of
 * adding up reproduces, and holds both to the bound that products in fp32 obey. */
#include "test_simt_ptx.h"
#include "golden/cases.cuh"
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

static std::vector<uint32_t> run_case(const GoldenCase &c, int round, simt::Accumulate how) {
    std::vector<uint32_t> in((size_t)(c.threads * c.words_in + 1)), image((size_t)c.operand_words + 1), out((size_t)(c.threads * c.words_out));
    golden_inputs(c, round, in.data(), image.data());
    Device<uint32_t> di(in.data(), in.size(), "in"), dm(image.data(), image.size(), "image"), d(out.size(), "out");
    simt::options().accumulate = how;
    int errors = launch(c.name, Config{1, (unsigned)c.threads}, c.threads == 32 ? k_golden_warp : k_golden_wgmma, c.kind,
                        (const uint32_t *)di.p, (const uint32_t *)dm.p, d.p);
    simt::options().accumulate = simt::Accumulate::ExactOrder;
    CU_ASSERT_EQUAL(errors, 0);
    CU_ASSERT(found_nothing());
    if (!errors) simt::copy_out(out.data(), d.p, out.size() * 4);
    return out;
}

/* Without any captured file: every case runs clean, and integers do not depend on how sums are taken. */
static void cases_run() {
    for (const GoldenCase &c : golden_cases) {
        std::vector<uint32_t> exact = run_case(c, 0, simt::Accumulate::ExactOrder), hopper = run_case(c, 0, simt::Accumulate::Hopper);
        if (!c.reals) CU_ASSERT(exact == hopper);
    }
}

static const GoldenCase *find_case(const std::string &name) {
    for (const GoldenCase &c : golden_cases)
        if (name == c.name) return &c;
    return nullptr;
}

static bool compare_file(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) return false;
    std::vector<char> line(1 << 17);
    unsigned lines = 0, wrong = 0, reals = 0, as_exact = 0, as_hopper = 0;
    double worst = 0;
    while (fgets(line.data(), (int)line.size(), f)) {
        if (line[0] == '#') continue;
        std::string text = line.data();
        size_t first = text.find(';'), second = text.find(';', first + 1);
        if (second == std::string::npos) {
            CU_FAIL("golden file: a line without two semicolons");
            continue;
        }
        const GoldenCase *c = find_case(text.substr(0, first));
        CU_ASSERT_PTR_NOT_NULL(c);
        if (!c) continue;
        int round = atoi(text.c_str() + first + 1);
        std::vector<uint32_t> exact = run_case(*c, round, simt::Accumulate::ExactOrder), hopper = run_case(*c, round, simt::Accumulate::Hopper);
        CU_ASSERT(text.size() >= second + 1 + exact.size() * 8);
        lines++;
        for (size_t i = 0; i < exact.size(); i++) {
            uint32_t gpu = (uint32_t)strtoul(text.substr(second + 1 + 8 * i, 8).c_str(), nullptr, 16);
            if (!c->reals) {
                wrong += gpu != exact[i];
                continue;
            }
            reals++;
            as_exact += gpu == exact[i];
            as_hopper += gpu == hopper[i];
            worst = std::fmax(worst, std::fabs((double)simt::float_of(gpu) - (double)simt::float_of(exact[i])));
        }
    }
    fclose(f);
    printf("\n    %s: %u results wrong in %u runs; of %u real-valued ones %u as exact order, %u as the Hopper model ", path, wrong, lines,
           reals, as_exact, as_hopper);
    CU_ASSERT(lines > 0);
    CU_ASSERT_EQUAL(wrong, 0);
    /* 17 terms below 2^16 each: |error| <= 17 * 17 * 2^16 * 2^-24, and twice that for two ways */
    CU_ASSERT(worst <= 2 * 17 * 17 * 0x1p-8);
    return true;
}

static void against_a_gpu() {
    bool any = false;
    for (const char *path : {"validate/simt/golden/sm_80.txt", "validate/simt/golden/sm_86.txt", "validate/simt/golden/sm_89.txt",
                             "validate/simt/golden/sm_90.txt", "validate/simt/golden/sm_100.txt", "validate/simt/golden/sm_120.txt"})
        any = compare_file(path) || any;
    if (!any) printf("\n    nothing compared: no vectors from a GPU have been captured yet (golden/capture.cu) ");
}

static const SimtCase cases[] = {
    {"golden cases run clean", cases_run},
    {"golden vectors of a GPU", against_a_gpu},
};
static SimtSuite suite("simt ptx golden", cases);
