/* test_budgets.cpp — what the memory-bound CUDA kernels cost, counted by the executor: every stream once, in whole 32-byte
 * sectors, 16 bytes a lane where the element allows, no bank conflicts; and the same bits as the reference in 20 seeds and
 * 4 thread orders. Counters are facts about the source, not times; a GPU tells those. */
#include "fourbit.h"
#include "host.h"
#include "run_tests.h"
#include <CUnit/Basic.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

namespace {

constexpr int64_t N = 65536;
uint64_t first_nonfinite;

fb_context context(fb_backend backend) {
    fb_context ctx;
    fb_context_init(&ctx, backend);
    first_nonfinite = UINT64_MAX;
    ctx.first_nonfinite = &first_nonfinite;
    return ctx;
}

/* Device memory with a name, by which the counters are found. */
struct Device {
    void *p;
    size_t bytes;
    Device(const char *name, size_t n, bool filled = true) : p(simt::alloc(n, name)), bytes(n) {
        if (filled) simt::fill(p, 0, n);
    }
    ~Device() { simt::free(p); }
    Device(const Device &) = delete;
    template <class T> T *as() { return (T *)p; }
    void gaussian(fb_dtype t, unsigned seed) { /* near enough: a sum of four uniforms */
        std::vector<uint8_t> host(bytes);
        uint64_t s = seed;
        for (size_t i = 0; i < bytes / fb_dtype_size(t); i++) {
            float x = 0;
            for (int k = 0; k < 4; k++) {
                s = s * 6364136223846793005u + 1442695040888963407u;
                x += (float)(s >> 40) * 0x1p-24f - 0.5f;
            }
            fb_store(host.data(), t, (int64_t)i, x);
        }
        simt::copy_in(p, host.data(), bytes);
    }
};

std::string number(uint64_t v) { /* std::to_string would bring its tables a second time: the executor has its own copy */
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return text;
}
std::string last_kernel() { return simt::last_report().kernel; }
const simt::Counters &counters() { return simt::last_report().counters; }

void fail_if(bool bad, const std::string &what) {
    if (bad) printf("\n    %s: %s", last_kernel().c_str(), what.c_str());
    CU_ASSERT(!bad);
}

/* A stream is read (written) once and no sector of it twice, give or take 2 %. */
void expect_stream(const char *name, uint64_t read, uint64_t written) {
    const simt::BufferTraffic *t = counters().buffer(name);
    fail_if(!t, std::string(name) + " was not touched");
    if (!t) return;
    auto over = [](uint64_t sectors, uint64_t bytes) { return (double)sectors * 32 > 1.02 * (double)bytes; };
    fail_if(t->bytes_read != read || over(t->sectors_read, read),
            std::string(name) + ": " + number(t->bytes_read) + " bytes, " + number(t->sectors_read) +
                " sectors read, declared " + number(read));
    fail_if(t->bytes_written != written || over(t->sectors_written, written),
            std::string(name) + ": " + number(t->bytes_written) + " bytes, " + number(t->sectors_written) +
                " sectors written, declared " + number(written));
}
/* A value a block, stored by one lane for many: bytes count, sectors are shared with the neighbours. */
void expect_bytes(const char *name, uint64_t read, uint64_t written) {
    const simt::BufferTraffic *t = counters().buffer(name);
    fail_if(!t || t->bytes_read > read || t->bytes_written != written, std::string(name) + ": more than declared");
}
void expect_loads_16(uint64_t bytes) {
    const uint64_t loads = counters().global_loads[4];
    fail_if(loads * 16 != bytes, number(loads) + " loads of 16 bytes");
}
/* Stores of 2^log2 bytes a lane, one after the other: whole lines a warp, or halves of them. */
void expect_stores(int log2, uint64_t bytes) {
    const uint64_t stores = counters().global_stores[log2];
    fail_if(stores << log2 != bytes, number(stores) + " stores of " + number(1u << log2) + " bytes");
}
/* Look-ups at 32 unrelated addresses: 3.4 wavefronts on average, of which one is no conflict. */
void expect_conflicts_of_lookups(uint64_t lookups) {
    const uint64_t conflicts = counters().bank_conflicts();
    fail_if(conflicts > lookups / 32 * 3 || conflicts == 0, number(conflicts) + " bank conflicts of " + number(lookups) + " look-ups");
}
void expect_no_conflicts() {
    fail_if(counters().bank_conflicts() != 0, number(counters().bank_conflicts()) + " bank conflicts");
}

/* ---- budgets --------------------------------------------------------------------------------------------------- */

void quantize() {
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++)
            for (int32_t block : {32, 64, 1024, 4096}) {
                const size_t in = N * fb_dtype_size((fb_dtype)t), blocks = N / (size_t)block;
                Device src("src", in), codes("codes", N / 2, false), absmax("absmax", blocks * 4, false),
                    zeros("zero_points", blocks, false);
                src.gaussian((fb_dtype)t, 1);
                fb_matrix w;
                fb_matrix_init(&w, (fb_format)f, 64, N / 64, block, false);
                w.codes = codes.as<uint8_t>();
                w.absmax = absmax.as<float>();
                w.zero_points = zeros.as<uint8_t>();
                fb_context ctx = context(FB_BACKEND_CUDA);
                CU_ASSERT_FATAL(fb_quantize(&ctx, src.p, (fb_dtype)t, &w) == FB_OK);
                expect_stream("src", in, 0);
                expect_stream("codes", 0, N / 2);
                expect_bytes("absmax", 0, blocks * 4);
                expect_loads_16(in);
                if (t == FB_F32) expect_stores(1, N / 2); /* 64 bytes a warp; 16-bit types: 128 */
                else expect_stores(2, N / 2 + blocks * 4);
                expect_no_conflicts();
            }
}

void eight_bits() {
    for (int map = 0; map < FB_MAP8_COUNT; map++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            const size_t dense = N * fb_dtype_size((fb_dtype)t);
            Device src("dense", dense), codes("codes8", N, false), absmax("absmax", N / 256 * 4, false);
            src.gaussian((fb_dtype)t, 2);
            fb_context ctx = context(FB_BACKEND_CUDA);
            CU_ASSERT_FATAL(fb_quantize8(&ctx, (fb_map8)map, src.p, (fb_dtype)t, N, 256, codes.as<uint8_t>(), absmax.as<float>()) == FB_OK);
            expect_stream("dense", dense, 0);
            expect_stream("codes8", 0, N);
            expect_bytes("absmax", 0, N / 256 * 4);
            expect_loads_16(dense);
            expect_stores(t == FB_F32 ? 2 : 3, t == FB_F32 ? N + N / 256 * 4 : N);
            expect_conflicts_of_lookups(N);
            CU_ASSERT_FATAL(fb_dequantize8(&ctx, (fb_map8)map, codes.as<uint8_t>(), absmax.as<float>(), N, 256, src.p, (fb_dtype)t) == FB_OK);
            expect_stream("codes8", N, 0);
            expect_stream("dense", 0, dense);
            expect_loads_16(0);
            expect_stores(4, dense);
            expect_no_conflicts();
        }
}

void normalize() {
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        const size_t dense = N * fb_dtype_size((fb_dtype)t);
        Device src("src", dense), dst("dst", dense, false), moments("moments", 8, false);
        src.gaussian((fb_dtype)t, 3);
        fb_context ctx = context(FB_BACKEND_CUDA);
        CU_ASSERT_FATAL(fb_normalize(&ctx, src.p, (fb_dtype)t, N, dst.p, (fb_dtype)t, moments.as<float>()) == FB_OK);
        expect_stream("src", dense, 0); /* of the last of three launches */
        expect_stream("dst", 0, dense);
        expect_no_conflicts();
    }
}

const fb_adamw hyper = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 1.0f, 3};

void adamw() {
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        for (int eight = 0; eight < 2; eight++) {
            const size_t dense = N * fb_dtype_size((fb_dtype)t), state = eight ? N : N * 4;
            Device params("params", dense), grads("grads", dense), m("m", state), v("v", state), m_absmax("m_absmax", N / 256 * 4),
                v_absmax("v_absmax", N / 256 * 4);
            params.gaussian((fb_dtype)t, 4);
            grads.gaussian((fb_dtype)t, 5);
            fb_context ctx = context(FB_BACKEND_CUDA);
            fb_status s = eight ? fb_adamw8(&ctx, &hyper, N, params.p, (fb_dtype)t, grads.p, (fb_dtype)t, m.as<uint8_t>(),
                                            m_absmax.as<float>(), v.as<uint8_t>(), v_absmax.as<float>())
                                : fb_adamw32(&ctx, &hyper, N, params.p, (fb_dtype)t, grads.p, (fb_dtype)t, m.as<float>(), v.as<float>());
            CU_ASSERT_FATAL(s == FB_OK);
            expect_stream("params", dense, dense);
            expect_stream("grads", dense, 0);
            expect_stream("m", state, state);
            expect_stream("v", state, state);
            const uint64_t fp32 = t == FB_F32 ? dense : 0, wide_state = eight ? 0 : 2 * state;
            expect_loads_16(2 * fp32 + wide_state);
            expect_stores(4, fp32 + wide_state);
            if (eight) expect_conflicts_of_lookups(2 * N);
            else expect_no_conflicts();
        }
}

/* dX = dY W: codes once (gemm_dx_tile: once a tile of M, here one), in 16-byte pieces, and no bank conflicts. */
struct Seen {
    std::string kernel;
    simt::Counters counters;
} product;
void keep_product(const simt::Report &r) {
    if (r.kernel.find("gemm_dx_small") != std::string::npos || r.kernel.find("gemm_dx_tile") != std::string::npos)
        product = Seen{r.kernel, r.counters};
}

/* A matrix of zeros on the device. */
struct DeviceMatrix {
    fb_matrix w;
    Device codes, absmax, absmax_codes, nested_absmax, nested_offset;
    DeviceMatrix(int64_t rows, int64_t cols, int block, bool dq)
        : codes("codes", (size_t)(rows * cols) / 2), absmax("absmax", (size_t)(rows * cols / block) * 4),
          absmax_codes("absmax_codes", (size_t)(rows * cols / block)), nested_absmax("nested_absmax", (size_t)(rows * cols / block / 256 + 1) * 4),
          nested_offset("nested_offset", 4) {
        fb_matrix_init(&w, FB_NF4, rows, cols, block, dq);
        w.codes = codes.as<uint8_t>();
        w.absmax = absmax.as<float>();
        w.absmax_codes = absmax_codes.as<uint8_t>();
        w.nested_absmax = nested_absmax.as<float>();
        w.nested_offset = nested_offset.as<float>();
    }
};

/* Scales: as many loads as the path's lanes make, a value each, from L1 but for the first; doubly quantized a byte and its block's fp32.
 * small: four rows a lane and step, 32 columns. tile: whatever it loads in fp32, it loads a quarter of in bytes. */
void gemm_dx_scales(const std::string &name, bool dq, int64_t m, uint64_t weights, uint64_t (&loads)[2]) {
    const simt::BufferTraffic *t = product.counters.buffer(dq ? "absmax_codes" : "absmax"), *other = product.counters.buffer(dq ? "absmax" : "absmax_codes");
    fail_if(other && other->bytes_read, name + ": the other kind of scales is read");
    loads[dq] = t ? t->bytes_read / (dq ? 1 : 4) : 0;
    fail_if(m <= 16 && loads[dq] != weights / 32, name + ": " + number(loads[dq]) + " scales are read");
    if (!dq) return;
    const simt::BufferTraffic *nested = product.counters.buffer("nested_absmax"), *offset = product.counters.buffer("nested_offset");
    fail_if(loads[1] != loads[0], name + ": " + number(loads[1]) + " bytes of scales, " + number(loads[0]) + " in fp32");
    fail_if(!nested || nested->bytes_read != 4 * loads[1], name + ": not one nested absmax for each scale");
    fail_if(!offset, name + ": the offset is not read");
}

void gemm_dx() {
    constexpr int64_t rows = 64, cols = 512;
    simt::after_launch = keep_product;
    for (int64_t m : {1, 8, 16, 64, 128}) {
        uint64_t loads[2] = {};
        for (int dq = 0; dq < 2; dq++) {
            DeviceMatrix matrix(rows, cols, 64, dq == 1);
            Device dy("dy", (size_t)(m * rows) * 2), dx("dx", (size_t)(m * cols) * 2, false);
            fb_context ctx = context(FB_BACKEND_CUDA);
            size_t bytes = 0;
            CU_ASSERT_FATAL(fb_workspace_size(&ctx, FB_OP_GEMM_DX, &matrix.w, m, FB_BF16, &bytes) == FB_OK);
            Device space("workspace", bytes + 64, false);
            ctx.workspace = space.p;
            ctx.workspace_bytes = bytes;
            product = Seen{};
            CU_ASSERT_FATAL(fb_gemm_dx(&ctx, &matrix.w, m, dy.p, FB_BF16, dx.p, FB_BF16, false) == FB_OK);
            const simt::BufferTraffic *t = product.counters.buffer("codes");
            const std::string name = product.kernel + (dq ? ", doubly quantized" : "");
            const uint64_t code_bytes = matrix.codes.bytes, conflicts = product.counters.bank_conflicts();
            fail_if(!t || t->bytes_read != code_bytes || t->sectors_read * 32 != code_bytes, name + ": codes are not read once, whole");
            fail_if(conflicts != 0, name + ": " + number(conflicts) + " bank conflicts"); /* all scales are one: one word of the map */
            fail_if(m <= 16 && product.counters.global_loads[4] * 16 != code_bytes, name + ": codes are not read in 16-byte pieces");
            fail_if(m > 16 && product.counters.global_stores[4] * 16 != dx.bytes, name + ": dX is not written in 16-byte pieces");
            gemm_dx_scales(name, dq == 1, m, (uint64_t)(rows * cols), loads);
        }
    }
    simt::after_launch = nullptr;
}

/* ---- order ------------------------------------------------------------------------------------------------------ */

/* Every operation once, into one buffer of results. */
std::vector<uint8_t> everything(fb_backend backend) {
    const int64_t rows = 33, cols = 131, n = rows * cols, blocks = (n + 31) / 32, many = 140001; /* beyond 2^17: deep sums */
    static std::vector<float> x, big;
    if (x.empty()) {
        for (int64_t i = 0; i < many; i++) big.push_back(sinf((float)i * 0.37f) * (float)(1 + i % 7));
        x.assign(big.begin(), big.begin() + n);
    }
    std::vector<uint8_t> codes(n), nested(blocks), state(2 * n);
    std::vector<float> absmax((size_t)blocks * 2), tail(2), params(x), states(4 * (size_t)blocks), out(many), moments(2);
    alignas(64) static unsigned char workspace[1 << 16];
    fb_context ctx = context(backend);
    ctx.workspace = workspace;
    ctx.workspace_bytes = sizeof workspace;
    fb_matrix w;
    fb_matrix_init(&w, FB_NF4, rows, cols, 32, true);
    w.codes = codes.data();
    w.absmax_codes = nested.data();
    w.nested_absmax = absmax.data();
    w.nested_offset = tail.data();
    bool ok = fb_quantize(&ctx, x.data(), FB_F32, &w) == FB_OK;
    ok = ok && fb_quantize8(&ctx, FB_MAP_UNSIGNED, x.data(), FB_F32, n, 2048, state.data(), absmax.data() + blocks) == FB_OK;
    ok = ok && fb_normalize(&ctx, big.data(), FB_F32, many, out.data(), FB_F32, moments.data()) == FB_OK;
    std::fill(state.begin(), state.end(), 0);
    ok = ok && fb_adamw8(&ctx, &hyper, n, params.data(), FB_F32, x.data(), FB_F32, state.data(), states.data(), state.data() + n,
                         states.data() + blocks) == FB_OK;
    if (!ok) printf("\n    %s", ctx.message);
    CU_ASSERT(ok && first_nonfinite == UINT64_MAX);
    std::vector<uint8_t> all;
    auto take = [&](const void *p, size_t bytes) { all.insert(all.end(), (const uint8_t *)p, (const uint8_t *)p + bytes); };
    take(codes.data(), codes.size());
    take(nested.data(), nested.size());
    take(state.data(), state.size());
    for (auto *v : {&absmax, &tail, &params, &states, &out, &moments}) take(v->data(), v->size() * 4);
    return all;
}

void same_bits_in_any_order() {
    const std::vector<uint8_t> want = everything(FB_BACKEND_REFERENCE);
    for (auto order : {simt::Order::Seeded, simt::Order::Forward, simt::Order::Reverse, simt::Order::RoundRobin})
        for (uint64_t seed = 1; seed <= (order == simt::Order::Seeded ? 20 : 1); seed++) {
            simt::options().order = order;
            simt::options().seed = seed;
            CU_ASSERT(everything(FB_BACKEND_CUDA) == want);
        }
    simt::options().order = simt::Order::Seeded;
    simt::options().seed = 1;
}

/* Without a place to report a NaN, a call that looks for one says so and does nothing. */
void nan_needs_a_place() {
    float x[64] = {0}, moments[2] = {5, 5};
    uint8_t codes[64] = {7};
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    CU_ASSERT(fb_quantize8(&ctx, FB_MAP_SIGNED, x, FB_F32, 64, 64, codes, moments) == FB_INVALID_ARGUMENT);
    CU_ASSERT(strstr(ctx.message, "first_nonfinite") != nullptr);
    CU_ASSERT(codes[0] == 7 && moments[0] == 5);
    ctx.flags = FB_ASSUME_FINITE;
    CU_ASSERT(fb_quantize8(&ctx, FB_MAP_SIGNED, x, FB_F32, 64, 64, codes, moments) == FB_OK);
}

const NamedTest cases[] = {
    {"quantize: bytes, widths, banks", quantize},
    {"8-bit: bytes, widths, banks", eight_bits},
    {"normalize: bytes, banks", normalize},
    {"adamw: bytes, widths, banks", adamw},
    {"gemm_dx: bytes, widths, banks", gemm_dx},
    {"the reference's bits in 20 seeds and 4 orders", same_bits_in_any_order},
    {"a NaN needs a place to be reported", nan_needs_a_place},
};

} // namespace

int main(int argc, char **argv) {
    setenv("FOURBIT_CUDA", "simt", 1);
    return run_tests("budgets of the CUDA kernels", cases, argc, argv);
}
