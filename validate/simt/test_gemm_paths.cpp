/* test_gemm_paths.cpp — each path of the forward product by itself, in the executor with all checks on: with the low-rank product in its
 * accumulators, with K cut, in many thread orders; and what it costs by the executor's counters. */
#include "gemm.cuh"
#include "host.h"
#include "run_tests.h"
extern "C" {
#include "check.h"
#include "inputs.h"
}
#include <CUnit/Basic.h>
#include <cstdio>
#include <cstring>

namespace {

struct Problem {
    fb_gemm_path path;
    int64_t m, n, k;
    int rank, splits;
    fb_dtype x = FB_BF16, y = FB_BF16;
    fb_format format = FB_NF4;
    int block = 64;
    bool dq = false, bias = false;
};

/* Memory of exactly so many bytes, on 64 bytes, Gaussian. */
struct Dense {
    std::vector<uint8_t> all;
    uint8_t *p = nullptr;
    Dense(int64_t n, fb_dtype t, uint64_t seed) : all((size_t)n * fb_dtype_size(t) + 64)
    {
        p = all.data() + (64 - (uintptr_t)all.data() % 64);
        if (n) input_fill(INPUT_GAUSSIAN, seed, 64, p, t, n);
    }
};

struct Case {
    Problem q;
    fb_matrix w;
    Dense x, bias, u, b, y, storage, workspace;

    explicit Case(const Problem &p)
        : q(p), x(p.m * p.k, p.x, 1), bias(p.n, p.x, 2), u(p.m * p.rank, p.x, 3), b(p.n * p.rank, p.x, 4), y(p.m * p.n, p.y, 5),
          storage(p.n * p.k + 2048, FB_F32, 6), workspace(p.splits * p.m * p.n + p.n * p.k, FB_F32, 7)
    {
        Dense dense(p.n * p.k, FB_F32, 8);
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_REFERENCE);
        ctx.workspace = workspace.p;
        ctx.workspace_bytes = (size_t)(p.n * p.k) * 4;
        CU_ASSERT_FATAL(fb_matrix_init(&w, p.format, p.n, p.k, p.block, p.dq) == FB_OK);
        uint8_t *at = storage.p + (256 - (uintptr_t)storage.p % 256);
        CU_ASSERT_FATAL(fb_matrix_bind(&w, at, fb_matrix_bytes(&w)) == FB_OK);
        CU_ASSERT_FATAL(fb_quantize(&ctx, dense.p, FB_F32, &w) == FB_OK);
    }
    void run()
    {
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        ctx.workspace = workspace.p;
        memset(y.p, 0xff, (size_t)(q.m * q.n) * fb_dtype_size(q.y));
        fb_gemm_call c = {&ctx, fb_device_of(80), &w, q.m, x.p, q.x, q.bias ? bias.p : nullptr, y.p, q.y, false, {}};
        if (q.rank) c.low_rank.u = u.p, c.low_rank.b = b.p, c.low_rank.rank = q.rank;
        const fb_status s = q.path == FB_GEMM_ANY     ? FB_CUDA(gemm_any)(&c)
                            : q.path == FB_GEMM_SMALL ? FB_CUDA(gemm_small)(&c, q.splits)
                                                      : FB_CUDA(gemm_tile)(&c, q.path, q.splits);
        if (s != FB_OK) printf("\n    %s", ctx.message);
        CU_ASSERT_FATAL(s == FB_OK);
    }
    /* As one product over K + rank. */
    void check()
    {
        const int64_t l = q.k + q.rank, size = (int64_t)fb_dtype_size(q.x);
        std::vector<double> weights((size_t)(q.n * l)), dense((size_t)(q.n * q.k));
        std::vector<uint8_t> a((size_t)(q.m * l * size));
        check_weights(&w, FB_WEIGHTS_ROUNDED, q.x, dense.data());
        for (int64_t i = 0; i < q.n * l; i++) {
            const int64_t row = i / l, col = i % l;
            weights[(size_t)i] = col < q.k ? dense[(size_t)(row * q.k + col)] : fb_load(b.p, q.x, row * q.rank + col - q.k);
        }
        for (int64_t i = 0; i < q.m; i++) {
            memcpy(&a[(size_t)(i * l * size)], x.p + i * q.k * size, (size_t)(q.k * size));
            memcpy(&a[(size_t)((i * l + q.k) * size)], u.p + i * q.rank * size, (size_t)(q.rank * size));
        }
        char name[128];
        snprintf(name, sizeof name, "path %d m%d n%d k%d rank %d splits %d %s %s", (int)q.path, (int)q.m, (int)q.n, (int)q.k, q.rank,
                 q.splits, fb_format_name(q.format), fb_dtype_name(q.x));
        check_product p = {};
        p.what = name, p.m = q.m, p.p = q.n, p.l = l, p.a = a.data(), p.a_dtype = q.x, p.weights = weights.data();
        p.bias = q.bias ? bias.p : nullptr, p.out = y.p, p.out_dtype = q.y, p.gaussian = true;
        const check_result r = check_level2(&p);
        if (!r.ok) printf("\n    %s", r.text);
        CU_ASSERT(r.ok);
    }
};
void try_one(const Problem &q)
{
    Case c(q);
    c.run();
    c.check();
}

const fb_gemm_path tiles[] = {FB_GEMM_TILE_16, FB_GEMM_TILE_32, FB_GEMM_TILE_64, FB_GEMM_TILE_128, FB_GEMM_TILE_256};

void low_rank()
{
    for (fb_gemm_path path : tiles) {
        try_one({path, 19, 150, 96, 8, 1});
        try_one({path, 33, 136, 256, 70, 1, FB_F16, FB_F32}); /* rank no multiple of 4 */
        try_one({path, 9, 64, 640, 256, 2, FB_BF16, FB_F16, FB_INT4_AFFINE, 32, true, true});
    }
    for (int t = 0; t < FB_DTYPE_COUNT; t++) try_one({FB_GEMM_ANY, 18, 70, 131, 37, 1, (fb_dtype)t, FB_F32, FB_FP4, 64, true, true});
}

void shapes()
{
    for (fb_gemm_path path : tiles) {
        try_one({path, 150, 264, 64, 0, 1, FB_BF16, FB_BF16, FB_NF4, 64, true, true});
        try_one({path, 17, 131, 32, 0, 1, FB_F16, FB_F16, FB_INT4, 4096}); /* one step, half of it beyond K */
        try_one({path, 1, 257, 928, 0, 3, FB_BF16, FB_F32, FB_FP4, 32, true});
    }
}

/* Nine times as many token tiles as go side by side, and a last group that is narrower. */
void raster() { try_one({FB_GEMM_TILE_16, 16 * 17 + 3, 300, 64, 0, 1}); }

void any_order()
{
    for (fb_gemm_path path : tiles) {
        Case c({path, 21, 140, 352, 12, 2, FB_BF16, FB_F32, FB_INT4_AFFINE, 64, true, true});
        c.run();
        c.check();
        const std::vector<uint8_t> first(c.y.p, c.y.p + 21 * 140 * 4);
        for (uint64_t seed = 2; seed <= 6; seed++) {
            simt::options().seed = seed;
            c.run();
            CU_ASSERT(memcmp(first.data(), c.y.p, first.size()) == 0);
        }
        simt::options().seed = 1;
        simt::options().accumulate = simt::Accumulate::Hopper; /* tensor cores that truncate */
        c.run();
        c.check();
        simt::options().accumulate = simt::Accumulate::ExactOrder;
    }
}

/* Codes and X once for each tile of the other, in pieces of 16 bytes; Y once; no bank conflict anywhere. */
void budgets()
{
    for (fb_gemm_path path : tiles) {
        int rows, tokens, shared;
        CU_ASSERT_FATAL(FB_CUDA(gemm_tile_shape)(path, &rows, &tokens, &shared));
        Case c({path, 2 * tokens, 2 * rows, 256, 0, 1});
        c.run();
        const simt::Counters &n = simt::last_report().counters;
        const simt::BufferTraffic *codes = n.buffer("codes"), *x = n.buffer("x"), *y = n.buffer("y"), *absmax = n.buffer("absmax");
        const uint64_t code_bytes = 2 * (uint64_t)rows * 128, x_bytes = 2 * (uint64_t)tokens * 512, y_bytes = 4 * (uint64_t)(rows * tokens) * 2;
        CU_ASSERT(codes && codes->bytes_read == 2 * code_bytes && codes->sectors_read * 32 == 2 * code_bytes);
        CU_ASSERT(x && x->bytes_read == 2 * x_bytes && x->sectors_read * 32 == 2 * x_bytes);
        CU_ASSERT(y && y->bytes_written == y_bytes && y->sectors_written * 32 == y_bytes);
        CU_ASSERT(absmax && absmax->bytes_read == 2 * 2 * (uint64_t)rows * 4 * 4); /* for both token tiles, a value a row and step */
        CU_ASSERT(n.global_stores[4] * 16 == y_bytes);
        CU_ASSERT(n.count(simt::Instr::Mma) == 2 * 2 * (uint64_t)(rows / 16) * (uint64_t)(tokens / 8) * 16);
        if (n.bank_conflicts()) printf("\n    path %d: %llu bank conflicts", (int)path, (unsigned long long)n.bank_conflicts());
        CU_ASSERT(n.bank_conflicts() == 0);
    }
}

/* M from 1 to 16, tails of N and K, all formats, blocks and splits; X in more chunks than one. */
void small()
{
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int dq = 0; dq < 2; dq++)
            for (int64_t m : {1, 2, 7, 8, 9, 16}) {
                const int64_t i = f * 12 + dq * 6 + m, n[] = {1, 31, 130, 257, 264}, k[] = {32, 96, 160, 512, 736};
                const int block[] = {32, 64, 128, 4096};
                const fb_dtype y[] = {FB_BF16, FB_F16, FB_F32};
                try_one({FB_GEMM_SMALL, m, n[i % 5], k[i / 2 % 5], 0, k[i / 2 % 5] > 128 ? 1 + (int)i % 2 : 1, i % 3 ? FB_BF16 : FB_F16, y[i % 3],
                         (fb_format)f, block[i % 4], dq == 1, i % 2 == 1});
            }
    try_one({FB_GEMM_SMALL, 16, 40, 4000, 0, 1});                              /* three chunks of X, the last half a step short */
    try_one({FB_GEMM_SMALL, 3, 300, 416, 70, 1, FB_F16, FB_F32});              /* low rank, no multiple of 4 */
    try_one({FB_GEMM_SMALL, 16, 64, 640, 256, 3, FB_BF16, FB_F16, FB_INT4_AFFINE, 32, true, true});
}
void small_any_order()
{
    for (int64_t m : {5, 13}) {
        Case c({FB_GEMM_SMALL, m, 300, 2912, 12, 2, FB_BF16, FB_F32, FB_INT4_AFFINE, 64, true, true});
        c.run();
        c.check();
        const std::vector<uint8_t> first(c.y.p, c.y.p + m * 300 * 4);
        for (uint64_t seed = 2; seed <= 5; seed++) {
            simt::options().seed = seed;
            c.run();
            CU_ASSERT(memcmp(first.data(), c.y.p, first.size()) == 0);
        }
        simt::options().seed = 1;
        simt::options().accumulate = simt::Accumulate::Hopper;
        c.run();
        c.check();
        simt::options().accumulate = simt::Accumulate::ExactOrder;
    }
}
/* Codes once, X once a block of 256 rows, Y once, all in pieces of 16 bytes and whole sectors; no bank conflict. */
void small_budgets()
{
    for (int64_t m : {1, 8, 16}) {
        Case c({FB_GEMM_SMALL, m, 512, 1024, 0, 1});
        c.run();
        const simt::Counters &n = simt::last_report().counters;
        const simt::BufferTraffic *codes = n.buffer("codes"), *x = n.buffer("x"), *y = n.buffer("y"), *absmax = n.buffer("absmax");
        const uint64_t code_bytes = 512 * 1024 / 2, x_bytes = (uint64_t)m * 1024 * 2, y_bytes = (uint64_t)m * 512 * 2;
        CU_ASSERT(codes && codes->bytes_read == code_bytes && codes->sectors_read * 32 == code_bytes);
        CU_ASSERT(x && x->bytes_read == 2 * x_bytes && x->sectors_read * 32 == 2 * x_bytes);
        CU_ASSERT(y && y->bytes_written == y_bytes && y->sectors_written * 32 == y_bytes);
        CU_ASSERT(absmax && absmax->bytes_read == 2 * 512 * 16 * 4); /* two lanes of a quad have the same block of 64 */
        CU_ASSERT(n.global_loads[4] * 16 == code_bytes + 2 * x_bytes);
        CU_ASSERT(n.global_stores[4] * 16 == y_bytes);
        CU_ASSERT(n.count(simt::Instr::Mma) == 512 / 16 * 1024 / 16 * (m > 8 ? 2 : 1));
        if (n.bank_conflicts()) printf("\n    M %d: %llu bank conflicts", (int)m, (unsigned long long)n.bank_conflicts());
        CU_ASSERT(n.bank_conflicts() == 0);
    }
}

const NamedTest cases[] = {
    {"low rank in the accumulators", low_rank}, {"shapes, tails, splits", shapes}, {"order of tiles", raster},
    {"the same bits in any thread order; truncating tensor cores", any_order}, {"bytes, widths, banks", budgets},
    {"small M: shapes, formats, tails, chunks, splits", small}, {"small M: any order", small_any_order}, {"small M: bytes, widths, banks", small_budgets},
};

} // namespace

int main(int argc, char **argv)
{
    return run_tests("paths of the forward product", cases, argc, argv);
}
