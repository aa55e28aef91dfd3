/* test_lora_paths.cpp — LoRA's products by themselves, in the executor with all checks on: each thin product on both paths, lying each way,
 * cut and not; the low-rank term in gemm_dx's accumulators; whole layers as each generation runs them; in many thread orders, with
 * planted bugs, and what it costs by the executor's counters. */
#include "gemm_dx.cuh"
#include "gemm_sm90.h"
#include "host.h"
#include "run_tests.h"
#include "lora.cuh"
extern "C" {
#include "check_lora.h"
#include "inputs.h"
}
#include "planted_lora.h"
#include <CUnit/Basic.h>
#include <cstdio>
#include <cstring>

extern "C" fb_status planted_lora_mma(const fb_thin_call *);
int planted_bug;

namespace {

const uint64_t kSeed = 0x9e3779b97f4a7c15u;

/* Memory of exactly so many bytes, on 64 bytes and `shift` more, Gaussian. */
struct Dense {
    std::vector<uint8_t> all;
    uint8_t *p = nullptr;
    size_t bytes = 0;
    Dense(int64_t n, fb_dtype t, uint64_t seed, size_t shift = 0)
        : all((size_t)n * fb_dtype_size(t) + 128), bytes((size_t)n * fb_dtype_size(t))
    {
        p = all.data() + (64 - (uintptr_t)all.data() % 64) + shift;
        if (n) input_fill(INPUT_GAUSSIAN, seed, 64, p, t, n);
    }
    std::vector<uint8_t> bits() const { return std::vector<uint8_t>(p, p + bytes); }
};

void expect(const check_result &r)
{
    if (!r.ok) printf("\n    %s", r.text);
    CU_ASSERT(r.ok);
}

/* ---- thin products ------------------------------------------------------------------------------------------------------ */

enum Kind { U, DU, DA, DB }; /* lora.cuh's table */
const char *const kind_names[] = {"U", "dU", "dA", "dB"};

struct Thin {
    Kind kind;
    int64_t rows, depth;
    int rank, splits = 1;
    fb_dtype t = FB_BF16;
    float dropout = 0;
    bool accumulate = false;
};

struct ThinCase {
    Thin q;
    fb_dtype out_dtype;
    Dense wide, thin, before, out, parts;
    bool across, out_across, thin_across;
    float factor;

    explicit ThinCase(const Thin &p)
        : q(p), out_dtype(p.kind >= DA ? FB_F32 : p.t), wide(p.rows * p.depth, p.t, 1), thin(p.rank * p.depth, p.t, 2),
          before(p.rows * p.rank, out_dtype, 3), out(p.rows * p.rank, out_dtype, 4), parts(p.splits * p.rows * p.rank, FB_F32, 5),
          across(p.kind >= DA), out_across(p.kind == DA), thin_across(p.kind != U), factor(p.kind >= DA ? 1.0f : 0.375f)
    {
    }
    fb_status run(fb_status (*path)(const fb_thin_call *))
    {
        static fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        if (q.accumulate) memcpy(out.p, before.p, out.bytes);
        else memset(out.p, 0xff, out.bytes);
        fb_thin_call c = {&ctx, q.t, {}, "wide", "thin", "out"};
        c.p.wide = wide.p, c.p.thin = thin.p, c.p.out = out.p, c.p.parts = (float *)parts.p;
        c.p.rows = q.rows, c.p.depth = q.depth, c.p.rank = q.rank;
        c.p.wide_across = across, c.p.thin_across = thin_across, c.p.out_across = out_across;
        c.p.factor = factor, c.p.threshold = fb_dropout_threshold(q.dropout), c.p.seed = kSeed;
        c.p.out_dtype = out_dtype, c.p.accumulate = q.accumulate, c.p.splits = q.splits;
        CU_ASSERT(path == FB_CUDA(lora_any) || FB_CUDA(lora_mma_serves)(&c));
        const fb_status status = path(&c);
        if (status != FB_OK && path != planted_lora_mma) printf("\n    %s", ctx.message);
        return status;
    }
    /* [rows][rank] or its transpose, in the order of the former */
    std::vector<uint8_t> upright(const Dense &from) const
    {
        const size_t size = fb_dtype_size(out_dtype);
        std::vector<uint8_t> to(from.bytes);
        for (int64_t i = 0; i < q.rows * q.rank; i++) {
            const int64_t at = out_across ? i % q.rank * q.rows + i / q.rank : i;
            memcpy(&to[(size_t)i * size], from.p + (size_t)at * size, size);
        }
        return to;
    }
    check_result check() const
    {
        const size_t size = fb_dtype_size(q.t);
        std::vector<uint8_t> a((size_t)(q.rows * q.depth) * size), got = upright(out), old = upright(before);
        std::vector<double> weights((size_t)(q.rank * q.depth));
        for (int64_t i = 0; i < q.rows * q.depth; i++) { /* [rows][depth] in the wide operand's type, what is dropped 0 */
            const int64_t at = across ? i % q.depth * q.rows + i / q.depth : i;
            if (check_keeps(kSeed, q.dropout, at)) memcpy(&a[(size_t)i * size], wide.p + (size_t)at * size, size);
        }
        for (int64_t i = 0; i < q.rank * q.depth; i++)
            weights[(size_t)i] = fb_load(thin.p, q.t, thin_across ? i % q.depth * q.rank + i / q.depth : i);
        char name[160];
        snprintf(name, sizeof name, "%s %d x %d over %d, %s, %d splits, dropout %g", kind_names[q.kind], (int)q.rows, q.rank, (int)q.depth,
                 fb_dtype_name(q.t), q.splits, (double)q.dropout);
        check_product p = {};
        p.what = name, p.m = q.rows, p.p = q.rank, p.l = q.depth, p.a = a.data(), p.a_dtype = q.t, p.weights = weights.data();
        p.factor = &factor, p.before = q.accumulate ? old.data() : nullptr, p.out = got.data(), p.out_dtype = out_dtype, p.gaussian = true;
        return check_level2(&p);
    }
};
void try_thin(fb_status (*path)(const fb_thin_call *), const Thin &q)
{
    ThinCase c(q);
    CU_ASSERT_FATAL(c.run(path) == FB_OK);
    expect(c.check());
}

/* Any size of anything, each type. */
void any()
{
    for (int kind = 0; kind < 4; kind++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            try_thin(FB_CUDA(lora_any), {(Kind)kind, 1, 1, 1, 1, (fb_dtype)t});
            try_thin(FB_CUDA(lora_any), {(Kind)kind, 67, 131, 33, 1, (fb_dtype)t, kind == U || kind == DA ? 0.3f : 0, kind >= DA});
            try_thin(FB_CUDA(lora_any), {(Kind)kind, 130, 70, 200, 1, (fb_dtype)t});
        }
}

/* Tails of rows, sum and rank; tiles of 64 and of 128 ranks; one step, a ring that wraps, a sum that is cut. */
void tensor_cores()
{
    static const int ranks[] = {8, 16, 24, 64, 72, 128, 200, 256};
    static const int64_t rows[] = {1, 17, 128, 130, 300}, across_rows[] = {8, 24, 128, 136, 304}, depths[] = {8, 64, 72, 200, 520}, across_depths[] = {1, 64, 67, 200, 517};
    for (int kind = 0; kind < 4; kind++)
        for (int i = 0; i < 8; i++) {
            const bool across = kind >= DA, dropout = kind == U || kind == DA;
            const fb_dtype t = (i + kind) % 2 ? FB_BF16 : FB_F16;
            try_thin(FB_CUDA(lora_mma), {(Kind)kind, (across ? across_rows : rows)[i % 5], (across ? across_depths : depths)[(i + 2 * kind) % 5], ranks[i],
                                         1, t, dropout && i % 2 ? 0.25f : 0, across && i % 3 == 0});
            try_thin(FB_CUDA(lora_mma), {(Kind)kind, across ? 40 : 37, across ? 451 : 448, ranks[i], 2 + i % 3, t, dropout && i % 2 == 0 ? 0.1f : 0, across && i % 3 == 1});
        }
}

/* The same bits in any thread order; the bound holds for tensor cores that truncate, too. */
void any_order()
{
    for (int kind = 0; kind < 4; kind++)
        for (int path = 0; path < 2; path++) {
            ThinCase c({(Kind)kind, 144, 264, 72, path ? 2 : 1, FB_BF16, kind == U || kind == DA ? 0.5f : 0, kind >= DA});
            const auto run = path ? FB_CUDA(lora_mma) : FB_CUDA(lora_any);
            CU_ASSERT_FATAL(c.run(run) == FB_OK);
            expect(c.check());
            const std::vector<uint8_t> first = c.out.bits();
            for (uint64_t seed = 2; seed <= 6; seed++) {
                simt::options().seed = seed;
                CU_ASSERT_FATAL(c.run(run) == FB_OK);
                CU_ASSERT(first == c.out.bits());
            }
            simt::options().seed = 1;
            simt::options().accumulate = simt::Accumulate::Hopper;
            CU_ASSERT_FATAL(c.run(run) == FB_OK);
            expect(c.check());
            simt::options().accumulate = simt::Accumulate::ExactOrder;
        }
}

/* Each is reported by the executor, or the result is wrong. dA has all of them in its way: both operands across, dropout, a tail. */
void planted()
{
    ThinCase c({DA, 136, 195, 24, 1, FB_BF16, 0.5f, true});
    const bool quiet = simt::options().quiet;
    for (planted_bug = 0; planted_bug < kPlantedBugs; planted_bug++) {
        simt::options().quiet = planted_bug != kNone;
        const bool right = c.run(planted_lora_mma) == FB_OK && c.check().ok;
        if (right != (planted_bug == kNone)) printf("\n    %s: %s", planted_names[planted_bug], planted_bug ? "not found" : "went wrong");
        CU_ASSERT(right == (planted_bug == kNone));
    }
    planted_bug = kNone;
    simt::options().quiet = quiet;
}

/* ---- budgets -------------------------------------------------------------------------------------------------------------------- */

simt::Counters product, sum;
void keep(const simt::Report &r)
{
    (r.kernel.find("lora_sum") != std::string::npos ? sum : product) = r.counters;
}
void expect_traffic(const simt::Counters &n, const char *what, const char *buffer, uint64_t read, uint64_t written)
{
    const simt::BufferTraffic *t = n.buffer(buffer);
    const auto near = [](uint64_t sectors, uint64_t bytes) { return (double)sectors * 32 <= 1.02 * (double)bytes && sectors * 32 >= bytes; };
    const bool ok = t && t->bytes_read == read && t->bytes_written == written && near(t->sectors_read, read) && near(t->sectors_written, written);
    if (!ok)
        printf("\n    %s, %s: %llu bytes in %llu sectors read, %llu in %llu written; declared %llu and %llu", what, buffer, (unsigned long long)(t ? t->bytes_read : 0),
               (unsigned long long)(t ? t->sectors_read : 0), (unsigned long long)(t ? t->bytes_written : 0), (unsigned long long)(t ? t->sectors_written : 0),
               (unsigned long long)read, (unsigned long long)written);
    CU_ASSERT(ok);
}

/* The wide operand once for each tile of ranks, the thin one once for each 128 rows, both by 16 bytes in whole sectors; the parts written and
 * read once, and so is the result; no bank conflict, but for copies of less than a row of 64 ranks: under 3 % of the wavefronts. */
void budgets()
{
    simt::after_launch = keep;
    for (int kind = 0; kind < 4; kind++)
        for (int rank : {16, 64, 256}) {
            const int64_t rows = 256, depth = 512, tiles = rank > 64 ? rank / 128 : 1;
            ThinCase c({(Kind)kind, rows, depth, rank, 2, FB_BF16, kind == U || kind == DA ? 0.1f : 0, kind >= DA});
            CU_ASSERT_FATAL(c.run(FB_CUDA(lora_mma)) == FB_OK);
            const uint64_t wide = (uint64_t)(rows * depth * 2 * tiles), thin = (uint64_t)(rank * depth) * 2 * 2, out = (uint64_t)(rows * rank);
            expect_traffic(product, kind_names[kind], "wide", wide, 0);
            expect_traffic(product, kind_names[kind], "thin", thin, 0);
            expect_traffic(product, kind_names[kind], "workspace", 0, 2 * 4 * out);
            expect_traffic(sum, kind_names[kind], "workspace", 2 * 4 * out, 0);
            expect_traffic(sum, kind_names[kind], "out", kind >= DA ? 4 * out : 0, out * (kind >= DA ? 4 : 2));
            CU_ASSERT(product.global_loads[4] * 16 == wide + thin);
            CU_ASSERT(product.count(simt::Instr::Mma) == (uint64_t)(rows / 16 * depth / 16 * rank / 8));
            const uint64_t conflicts = product.bank_conflicts(), most = rank < 64 ? product.shared_wavefronts * 3 / 100 : 0;
            if (conflicts > most) printf("\n    %s, rank %d: %llu bank conflicts in %llu wavefronts", kind_names[kind], rank, (unsigned long long)conflicts, (unsigned long long)product.shared_wavefronts);
            CU_ASSERT(conflicts <= most && sum.bank_conflicts() == 0);
        }
    simt::after_launch = nullptr;
}

/* ---- the low-rank term of gemm_dx, path by path ------------------------------------------------------------------------------------ */

struct Dx {
    fb_gemm_dx_path path;
    int64_t m, n, k;
    int rank, splits;
    float dropout = 0;
    fb_dtype t = FB_BF16, out = FB_BF16;
    bool accumulate = false;
    fb_format format = FB_NF4;
    size_t shift = 0; /* bytes by which u and b miss 16 */
    fb_sm90_plan hopper = {0, 1, 1, 0}; /* tokens not 0: gemm_dx_sm90's path */
};

struct DxCase {
    Dx q;
    fb_matrix w;
    Dense dy, u, b, dx, before, storage, workspace;
    explicit DxCase(const Dx &p)
        : q(p), dy(p.m * p.n, p.t, 11), u(p.m * p.rank, p.t, 12, p.shift), b(p.k * p.rank, p.t, 13, p.shift), dx(p.m * p.k, p.out, 14),
          before(p.m * p.k, p.out, 15), storage(p.n * p.k + 2048, FB_F32, 16), workspace(p.splits * p.m * p.k, FB_F32, 17)
    {
        Dense dense(p.n * p.k, FB_F32, 18);
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_REFERENCE);
        CU_ASSERT_FATAL(fb_matrix_init(&w, p.format, p.n, p.k, 64, false) == FB_OK);
        CU_ASSERT_FATAL(fb_matrix_bind(&w, storage.p + (256 - (uintptr_t)storage.p % 256), fb_matrix_bytes(&w)) == FB_OK);
        CU_ASSERT_FATAL(fb_quantize(&ctx, dense.p, FB_F32, &w) == FB_OK);
    }
    void run()
    {
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        ctx.workspace = workspace.p;
        if (q.accumulate) memcpy(dx.p, before.p, dx.bytes);
        else memset(dx.p, 0xff, dx.bytes);
        const fb_gemm_call c = {&ctx, fb_device_of(80), &w, q.m, dy.p, q.t, nullptr, dx.p, q.out, q.accumulate,
                                {u.p, b.p, q.rank, fb_dropout_threshold(q.dropout), kSeed}};
        fb_status s = q.hopper.tokens              ? FB_CUDA(gemm_dx_sm90_planned)(&c, &q.hopper)
                      : q.path == FB_GEMM_DX_ANY   ? FB_CUDA(gemm_dx_any)(&c)
                      : q.path == FB_GEMM_DX_SMALL ? FB_CUDA(gemm_dx_small)(&c, q.splits)
                                                   : FB_CUDA(gemm_dx_tile)(&c, q.splits);
        if (s == FB_OK && !q.hopper.tokens && (q.path == FB_GEMM_DX_SMALL || q.splits > 1)) s = FB_CUDA(gemm_dx_sum)(&c, q.splits, q.path == FB_GEMM_DX_SMALL);
        if (s != FB_OK) printf("\n    %s", ctx.message);
        CU_ASSERT_FATAL(s == FB_OK);
    }
    /* The first `rank` terms, and the mask of `seed`. */
    check_result check(int rank, uint64_t seed) const
    {
        std::vector<double> weights((size_t)(q.n * q.k)), terms((size_t)(q.m * rank)), with((size_t)(q.k * rank));
        std::vector<uint8_t> kept((size_t)(q.m * q.k));
        check_weights(&w, FB_WEIGHTS_ROUNDED, q.t, weights.data());
        for (int64_t i = 0; i < q.m * rank; i++) terms[(size_t)i] = fb_load(u.p, q.t, i / rank * q.rank + i % rank);
        for (int64_t i = 0; i < q.k * rank; i++) with[(size_t)i] = fb_load(b.p, q.t, i);
        for (int64_t i = 0; i < q.m * q.k; i++) kept[(size_t)i] = check_keeps(seed, q.dropout, i);
        char name[160];
        snprintf(name, sizeof name, "gemm_dx path %d/%d m%d n%d k%d rank %d splits %d dropout %g %s", (int)q.path, q.hopper.tokens, (int)q.m, (int)q.n, (int)q.k, q.rank,
                 q.splits, (double)q.dropout, fb_dtype_name(q.t));
        check_product p = {};
        p.what = name, p.m = q.m, p.p = q.k, p.l = q.n, p.a = dy.p, p.a_dtype = q.t, p.weights = weights.data(), p.dx = true;
        p.before = q.accumulate ? before.p : nullptr, p.out = dx.p, p.out_dtype = q.out, p.gaussian = true;
        p.rank = rank, p.terms = terms.data(), p.with = with.data(), p.kept = kept.data();
        return check_level2(&p);
    }
};
void try_dx(const Dx &q)
{
    DxCase c(q);
    c.run();
    expect(c.check(q.rank, kSeed));
    CU_ASSERT(!c.check(q.rank - 1, kSeed).ok); /* the last term is missed */
    if (q.dropout > 0) CU_ASSERT(!c.check(q.rank, kSeed + 1).ok);
}

void dx_low_rank()
{
    for (int t = 0; t < FB_DTYPE_COUNT; t++) try_dx({FB_GEMM_DX_ANY, 35, 41, 67, 37, 1, 0.3f, (fb_dtype)t, FB_F32, true, FB_FP4});
    for (int64_t m : {1, 7, 16}) {
        try_dx({FB_GEMM_DX_SMALL, m, 128, 288, 8, 1});
        try_dx({FB_GEMM_DX_SMALL, m, 144, 96, 33, 2, 0.25f, FB_F16, FB_F32, true, FB_INT4_AFFINE});
        try_dx({FB_GEMM_DX_SMALL, m, 64, 544, 256, 3, 0.5f, FB_BF16, FB_F16, m == 7, FB_NF4, 2});
    }
    for (int64_t m : {17, 64, 150}) { /* tiles of 64 and of 128 rows */
        try_dx({FB_GEMM_DX_TILE, m, 40, 288, 8, 1});
        try_dx({FB_GEMM_DX_TILE, m, 136, 96, 33, 2, 0.25f, FB_F16, FB_F32, true, FB_INT4_AFFINE});
        try_dx({FB_GEMM_DX_TILE, m, 72, 544, 256, 1, 0.5f, FB_BF16, FB_F16, m == 64, FB_NF4, 2});
        try_dx({FB_GEMM_DX_TILE, m, 200, 32, 16, 3, 0.1f, FB_BF16, FB_BF16, true});
    }
    try_dx({FB_GEMM_DX_TILE, 150, 136, 192, 8, 1, 0.5f, FB_BF16, FB_F32, true, FB_NF4, 0, {128, 1, 1, 2}});
    try_dx({FB_GEMM_DX_TILE, 300, 72, 64, 72, 1, 0.25f, FB_F16, FB_F16, false, FB_INT4_AFFINE, 0, {256, 1, 1, 1}});
    try_dx({FB_GEMM_DX_TILE, 70, 256, 128, 136, 1, 0.1f, FB_BF16, FB_BF16, true, FB_NF4, 0, {128, 2, 1, 0}}); /* one of two adds the term */
    try_dx({FB_GEMM_DX_TILE, 140, 64, 256, 256, 1, 0.3f, FB_BF16, FB_BF16, false, FB_FP4, 0, {128, 1, 2, 2}});
}
void dx_any_order()
{
    for (int path = 0; path < 3; path++) {
        DxCase c({path ? FB_GEMM_DX_TILE : FB_GEMM_DX_SMALL, path ? 70 : 13, 144, 320, 40, path < 2 ? 2 : 1, 0.1f, FB_BF16, FB_F32, true, FB_NF4, 0,
                  {path < 2 ? 0 : 128, 2, 1, 0}});
        c.run();
        expect(c.check(40, kSeed));
        const std::vector<uint8_t> first = c.dx.bits();
        for (uint64_t seed = 2; seed <= 6; seed++) {
            simt::options().seed = seed;
            c.run();
            CU_ASSERT(first == c.dx.bits());
        }
        simt::options().seed = 1;
    }
}

/* What gemm_dx_tile reads for the term: B once for each 128 rows (by half sectors, the other half from L1), U once for each 256 columns; no
 * bank conflict. */
void dx_budgets()
{
    simt::after_launch = keep;
    for (int rank : {16, 64}) {
        const int64_t m = 256, k = 512;
        DxCase c({FB_GEMM_DX_TILE, m, 64, k, rank, 1});
        c.run();
        const simt::BufferTraffic *b = product.buffer("b");
        CU_ASSERT(b && b->bytes_read == (uint64_t)(rank * k) * 2 * (m / 128) && b->sectors_read * 32 == 2 * b->bytes_read);
        expect_traffic(product, "gemm_dx_tile", "u", (uint64_t)(m * rank) * 2 * (k / 256), 0);
        CU_ASSERT(product.bank_conflicts() == 0);
    }
    simt::after_launch = nullptr;
}

/* ---- whole layers --------------------------------------------------------------------------------------------------------------------- */

/* Both passes as generation `arch` runs them; elements by which every dense buffer misses its alignment, or the adapter alone. */
void try_layer(int arch, int64_t m, int64_t n, int64_t k, int rank, float dropout, fb_dtype t, size_t shift = 0, size_t adapter_shift = 0)
{
    const size_t off = shift * fb_dtype_size(t), off4 = shift * 4, own = (shift + adapter_shift) * fb_dtype_size(t);
    Dense x(m * k, t, 21, off), a(rank * k, t, 22, own), b(n * rank, t, 23, own), bias(n, t, 24, off), y(m * n, t, 25, off), u(m * rank, t, 26, off),
        dy(m * n, t, 27, off), dx(m * k, t, 28, off), da(rank * k, FB_F32, 29, off4), db(n * rank, FB_F32, 30, off4), dense(n * k, FB_F32, 31),
        storage(n * k + 2048, FB_F32, 32);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    fb_matrix w;
    CU_ASSERT_FATAL(fb_matrix_init(&w, FB_NF4, n, k, 64, false) == FB_OK);
    CU_ASSERT_FATAL(fb_matrix_bind(&w, storage.p + (256 - (uintptr_t)storage.p % 256), fb_matrix_bytes(&w)) == FB_OK);
    CU_ASSERT_FATAL(fb_quantize(&ctx, dense.p, FB_F32, &w) == FB_OK);
    const fb_device device = fb_device_of(arch);
    const fb_lora lora = {rank, 0.25f, dropout, kSeed, a.p, b.p};
    fb_context_init(&ctx, FB_BACKEND_CUDA);
    const size_t forward = FB_CUDA(lora_workspace)(&ctx, device, FB_OP_LORA_FORWARD, &w, rank, m, t),
                 backward = FB_CUDA(lora_workspace)(&ctx, device, FB_OP_LORA_BACKWARD, &w, rank, m, t);
    Dense workspace((int64_t)(forward > backward ? forward : backward) / 4 + 16, FB_F32, 33);
    ctx.workspace = workspace.p;
    fb_status s = FB_CUDA(lora_forward)(&ctx, device, &w, &lora, m, x.p, t, bias.p, y.p, t, u.p);
    if (s == FB_OK) s = FB_CUDA(lora_backward)(&ctx, device, &w, &lora, m, x.p, u.p, dy.p, t, dx.p, t, false, (float *)da.p, (float *)db.p, false);
    if (s != FB_OK) printf("\n    %s", ctx.message);
    CU_ASSERT_FATAL(s == FB_OK);

    char name[96];
    snprintf(name, sizeof name, "sm%d m%d n%d k%d rank %d dropout %g shift %d/%d", arch, (int)m, (int)n, (int)k, rank, (double)dropout, (int)shift,
             (int)adapter_shift);
    check_lora c = {};
    c.what = name, c.w = &w, c.lora = &lora, c.weights = FB_CUDA(gemm_weights)(&ctx, device, &w, m, t), c.m = m, c.dtype = t, c.x = x.p, c.u = u.p, c.gaussian = true;
    c.bias = bias.p, c.y = y.p, c.y_dtype = t;
    c.dy = dy.p, c.dx = dx.p, c.dx_dtype = t, c.da = (const float *)da.p, c.db = (const float *)db.p;
    check_result results[CHECK_LORA_FORWARD + CHECK_LORA_BACKWARD];
    check_lora_forward(&c, results);
    c.weights = FB_WEIGHTS_ROUNDED;
    check_lora_backward(&c, results + CHECK_LORA_FORWARD);
    for (const check_result &r : results) expect(r);
}
void layers()
{
    for (int arch : {80, 90, 100})
        for (int64_t m : {3, 70}) {
            try_layer(arch, m, 136, 320, 16, 0, FB_BF16);
            try_layer(arch, m, 136, 192, 72, 0.1f, FB_F16);
        }
    try_layer(90, 70, 136, 128, 12, 0, FB_BF16); /* a rank that neither wgmma's nor the thin products' tensor-core path takes */
    for (int64_t m : {3, 70}) try_layer(80, m, 72, 128, 16, 0.1f, FB_BF16, 1);
    try_layer(80, 520, 40, 64, 8, 0.1f, FB_BF16);  /* sums over M that are cut: their parts, gemm_dx's and dU share the workspace */
    try_layer(80, 9, 520, 544, 16, 0.1f, FB_BF16); /* over N and over K */
    for (int arch : {80, 90}) try_layer(arch, 70, 136, 128, 24, 0.1f, FB_BF16, 0, 1);
    try_layer(80, 5, 40, 96, 8, 0.1f, FB_F32, 1);
}

const NamedTest cases[] = {
    {"thin products, plain path: every type, every way of lying", any},
    {"thin products, tensor cores: tails, ranks, splits, dropout", tensor_cores},
    {"thin products: the same bits in any thread order; truncating tensor cores", any_order},
    {"thin products: planted bugs", planted},
    {"thin products: bytes, widths, banks", budgets},
    {"gemm_dx: the low-rank term of each path", dx_low_rank},
    {"gemm_dx: the low-rank term in any thread order", dx_any_order},
    {"gemm_dx: bytes and banks of the low-rank term", dx_budgets},
    {"whole layers on each generation, aligned and not", layers},
};

} // namespace

int main(int argc, char **argv)
{
    return run_tests("LoRA's products, path by path", cases, argc, argv);
}
