/* test_kernels.cpp — the project's CUDA kernels through the public API in the executor: same bits as the reference, nothing
 * reported in any order, no more bytes than declared.  What is compared here is plain C against the .cu files. */
#include "fourbit.h"
#include "host.h"
#include "run_tests.h"
#include <CUnit/Basic.h>
#include <cstdio>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

namespace {

struct Matrix { /* buffers of exactly the right size, so that one byte too far is outside */
    fb_matrix w;
    fb_matrix_sizes s;
    std::vector<uint8_t> codes, absmax_codes, zero_points;
    std::vector<float> absmax, nested_absmax, nested_offset;

    Matrix(fb_format f, int64_t rows, int64_t cols, int32_t block, bool dq, unsigned seed, size_t shift = 0) {
        std::mt19937 random(seed);
        CU_ASSERT_FATAL(fb_matrix_init(&w, f, rows, cols, block, dq) == FB_OK);
        CU_ASSERT_FATAL(fb_matrix_get_sizes(&w, &s) == FB_OK);
        auto bytes = [&](std::vector<uint8_t> &v, size_t n, unsigned below) {
            v.resize(n);
            for (uint8_t &b : v) b = (uint8_t)(random() % below);
        };
        auto floats = [&](std::vector<float> &v, size_t n) {
            v.resize(n / sizeof(float));
            for (float &x : v) x = (float)(random() % 1000 + 1) * 0x1p-12f;
        };
        bytes(codes, s.codes + shift, 256);
        bytes(absmax_codes, s.absmax_codes, 256);
        bytes(zero_points, s.zero_points, 16);
        floats(absmax, s.absmax);
        floats(nested_absmax, s.nested_absmax);
        floats(nested_offset, s.nested_offset);
        w.codes = codes.data() + shift;
        w.absmax = absmax.data();
        w.absmax_codes = absmax_codes.data();
        w.nested_absmax = nested_absmax.data();
        w.nested_offset = nested_offset.data();
        w.zero_points = zero_points.data();
    }
};

/* Dequantizes by both and compares every byte; the destination starts `shift` elements into its buffer. */
bool same_bits(const fb_matrix &w, fb_dtype t, size_t shift = 0) {
    size_t n = (size_t)(w.rows * w.cols), size = fb_dtype_size(t);
    std::vector<uint8_t> want(n * size + 32, 0xa5), got(n * size + 32, 0xa5);
    auto at = [&](std::vector<uint8_t> &v) { /* 16-byte aligned, then shifted */
        return v.data() + (16 - (uintptr_t)v.data() % 16) % 16 + shift * size;
    };
    if ((size_t)(at(got) - got.data()) + n * size > got.size()) return false;
    fb_context reference, cuda;
    fb_context_init(&reference, FB_BACKEND_REFERENCE);
    fb_context_init(&cuda, FB_BACKEND_CUDA);
    if (fb_dequantize(&reference, &w, at(want), t) != FB_OK) return false;
    if (fb_dequantize(&cuda, &w, at(got), t) != FB_OK) {
        printf("\n    %s\n", cuda.message);
        return false;
    }
    return n == 0 || (memcmp(at(want), at(got), n * size) == 0 && simt::last_report().ok());
}

const int64_t kShapes[][2] = {{0, 7}, {1, 1}, {1, 2}, {3, 5}, {7, 33}, {5, 129}, {16, 256}, {37, 150}, {64, 257}, {2, 8193}};

void every_format_and_shape() {
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int dq = 0; dq < 2; dq++)
            for (int t = 0; t < FB_DTYPE_COUNT; t++)
                for (auto &shape : kShapes)
                    for (int32_t block : {32, 64, 4096}) {
                        Matrix m((fb_format)f, shape[0], shape[1], block, dq, (unsigned)(f + dq + t + block));
                        CU_ASSERT(same_bits(m.w, (fb_dtype)t));
                    }
}

void every_block_size_doubly_quantized() { /* more than 256 blocks: the second nested absmax is used */
    for (int32_t block = 32; block <= 4096; block *= 2) {
        Matrix m(FB_NF4, 300, block + 1, block, true, 5);
        CU_ASSERT(m.s.nested_blocks >= 2);
        CU_ASSERT(same_bits(m.w, FB_BF16));
    }
}

void unaligned_pointers() {
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        for (size_t shift = 0; shift < 4; shift++) {
            Matrix m(FB_NF4, 9, 131, 64, false, 3, shift);
            CU_ASSERT(same_bits(m.w, (fb_dtype)t));
            CU_ASSERT(same_bits(m.w, (fb_dtype)t, shift));
        }
}

void scales_without_bounds() { /* overflow, subnormals, and scales that are not finite: still the same bits */
    const float odd[] = {0.0f, 0x1p-149f, 0x1p-126f, 65504.0f, 0x1.8p127f, INFINITY, -INFINITY, NAN, -NAN, -2.0f};
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            Matrix m((fb_format)f, 10, 64, 64, false, 9);
            for (int b = 0; b < 10; b++) m.absmax[(size_t)b] = odd[b];
            CU_ASSERT(same_bits(m.w, (fb_dtype)t));
        }
}

void custom_codebooks() {
    std::vector<float> book(FB_CODES), nested(FB_CODES8);
    for (size_t i = 0; i < book.size(); i++) book[i] = 0.37f * (float)((int)i - 5);
    for (size_t i = 0; i < nested.size(); i++) nested[i] = ((float)i - 100) / 177;
    book[3] = -NAN;
    Matrix m(FB_NF4, 37, 150, 64, true, 13);
    m.w.codebook = book.data();
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        m.w.nested_codebook = nullptr;
        CU_ASSERT(same_bits(m.w, (fb_dtype)t));
        m.w.nested_codebook = nested.data();
        CU_ASSERT(same_bits(m.w, (fb_dtype)t));
    }
}

void clean_in_20_seeds() {
    Matrix plain(FB_NF4, 33, 129, 64, false, 1), nested(FB_INT4_AFFINE, 33, 129, 64, true, 2);
    for (auto order : {simt::Order::Seeded, simt::Order::Forward, simt::Order::Reverse, simt::Order::RoundRobin})
        for (uint64_t seed = 1; seed <= (order == simt::Order::Seeded ? 20 : 1); seed++) {
            simt::options().order = order;
            simt::options().seed = seed;
            CU_ASSERT(same_bits(plain.w, FB_F32));
            CU_ASSERT(same_bits(nested.w, FB_F16));
        }
    simt::options().order = simt::Order::Seeded;
    simt::options().seed = 1;
}

/* Declared bytes: codes, scales, output, each once; in whole 32-byte sectors at most 2 % more, but for the scales, which each
 * warp reads for itself. */
void moves_what_it_declares() {
    for (int dq = 0; dq < 2; dq++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            Matrix m(FB_NF4, 64, 1024, 64, dq, 4);
            void *codes = simt::alloc(m.s.codes, "aligned codes"), *dst = simt::alloc(65536 * fb_dtype_size((fb_dtype)t), "output");
            simt::copy_in(codes, m.w.codes, m.s.codes);
            m.w.codes = (uint8_t *)codes;
            fb_context ctx;
            fb_context_init(&ctx, FB_BACKEND_CUDA);
            CU_ASSERT_FATAL(fb_dequantize(&ctx, &m.w, dst, (fb_dtype)t) == FB_OK);
            const simt::Counters &c = simt::last_report().counters;
            const simt::BufferTraffic *in = c.buffer("aligned codes"), *out = c.buffer("output"),
                                      *scale = c.buffer(dq ? "absmax_codes" : "absmax");
            CU_ASSERT_FATAL(in && out && scale);
            CU_ASSERT((double)in->sectors_read * 32 <= 1.02 * (double)m.s.codes);
            CU_ASSERT((double)out->sectors_written * 32 <= 1.02 * 65536 * (double)fb_dtype_size((fb_dtype)t));
            CU_ASSERT_EQUAL(in->bytes_written + out->bytes_read, 0);
            CU_ASSERT_EQUAL(c.bank_conflicts(), 0);
            CU_ASSERT_EQUAL(c.global_stores[4] * 16, 65536 * fb_dtype_size((fb_dtype)t));
            simt::free(codes);
            simt::free(dst);
        }
}

void an_error_is_a_status() { /* absmax one block short: the library reports it, and goes on working */
    Matrix m(FB_NF4, 4, 64, 64, false, 6);
    float *three = (float *)simt::alloc(3 * sizeof(float), "short absmax");
    simt::copy_in(three, m.absmax.data(), 3 * sizeof(float));
    m.w.absmax = three;
    std::vector<float> dst(256);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    CU_ASSERT_EQUAL(fb_dequantize(&ctx, &m.w, dst.data(), FB_F32), FB_BACKEND_ERROR);
    CU_ASSERT(strstr(ctx.message, "out of bounds") && strstr(ctx.message, "dequantize.cu:"));
    CU_ASSERT_EQUAL(simt::last_report().count(simt::Check::OutOfBounds) >= 1, true);
    simt::free(three);
    m.w.absmax = m.absmax.data();
    CU_ASSERT(same_bits(m.w, FB_F32));
}

const NamedTest cases[] = {
    {"dequantize: every format, shape and type", every_format_and_shape},
    {"dequantize: every block size, doubly quantized", every_block_size_doubly_quantized},
    {"dequantize: unaligned pointers", unaligned_pointers},
    {"dequantize: scales without bounds", scales_without_bounds},
    {"dequantize: custom codebooks", custom_codebooks},
    {"dequantize: clean in 20 seeds and 4 orders", clean_in_20_seeds},
    {"dequantize: moves what it declares", moves_what_it_declares},
    {"an error is a status with the executor's words", an_error_is_a_status},
};

} // namespace

int main(int argc, char **argv) {
    setenv("FOURBIT_CUDA", "simt", 1);
    simt::options().quiet = true;
    return run_tests("CUDA kernels in the executor", cases, argc, argv);
}
