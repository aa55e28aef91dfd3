/* sm90_case.h — one product of a Hopper path in the executor: its inputs, its run by a given plan, its check. For test_gemm_sm90.cpp and
 * test_gemm_stream.cpp, one program each. */
#ifndef SM90_CASE_H
#define SM90_CASE_H

#include "gemm_sm90.h"
#include "host.h"
#include "run_tests.h"
extern "C" {
#include "check.h"
#include "inputs.h"
}
#include <CUnit/Basic.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Problem {
    bool dx;
    int64_t m, n, k;
    fb_sm90_plan plan;
    fb_format format = FB_NF4;
    int block = 64;
    bool dq = false;
    fb_dtype x = FB_BF16, y = FB_BF16;
    bool bias = false, accumulate = false;
    int rank = 0;
    int64_t shift = 0; /* elements by which y misses a sector */
    bool custom = false;
    bool stream = false; /* gemm_stream_sm90.cu */
};

/* Memory of exactly so many bytes, at a known distance from a sector's start: by default 16, all that the kernels ask for. */
struct Bytes {
    std::vector<uint8_t> all;
    uint8_t *p = nullptr;
    size_t n = 0;
    void make(size_t bytes, size_t shift = 16)
    {
        all.assign(bytes + 256, 0xff);
        p = all.data() + (128 - (uintptr_t)all.data() % 128) % 128 + shift;
        n = bytes;
    }
};

struct Case {
    Problem q;
    fb_matrix w;
    Bytes x, y, bias, u, b, before;
    Bytes codes; /* from a sector's start, or a budget of sectors would hang on malloc */
    std::vector<uint8_t> absmax_codes, zero_points;
    std::vector<float> absmax, nested_absmax, nested_offset, codebook;
    int64_t from, to;
    fb_status (*planned)(const fb_gemm_call *, const fb_sm90_plan *) = nullptr; /* else the library's */

    explicit Case(const Problem &p) : q(p), from(p.dx ? p.n : p.k), to(p.dx ? p.k : p.n)
    {
        fb_matrix_sizes s;
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_REFERENCE);
        CU_ASSERT_FATAL(fb_matrix_init(&w, p.format, p.n, p.k, p.block, p.dq) == FB_OK);
        fb_matrix_get_sizes(&w, &s);
        codes.make(s.codes, 0), absmax_codes.resize(s.absmax_codes), zero_points.resize(s.zero_points);
        absmax.resize(s.absmax / 4), nested_absmax.resize(s.nested_absmax / 4), nested_offset.resize(s.nested_offset / 4);
        w.codes = codes.p, w.absmax = absmax.data(), w.absmax_codes = absmax_codes.data(), w.zero_points = zero_points.data();
        w.nested_absmax = nested_absmax.data(), w.nested_offset = nested_offset.data();
        std::vector<float> dense((size_t)(p.n * p.k)), sums((size_t)s.blocks + 16);
        input_fill(INPUT_GAUSSIAN, 7, p.block, dense.data(), FB_F32, p.n * p.k);
        ctx.workspace = (void *)(((uintptr_t)sums.data() + 63) / 64 * 64);
        ctx.workspace_bytes = (size_t)s.blocks * 4;
        const fb_status status = fb_quantize(&ctx, dense.data(), FB_F32, &w);
        if (status != FB_OK) printf("\n    %s", ctx.message);
        CU_ASSERT_FATAL(status == FB_OK);
        if (p.custom) {
            for (int i = 0; i < FB_CODES; i++) codebook.push_back((float)(i - 7) / 9.0f);
            w.codebook = codebook.data();
        }
        fill(x, p.m * from, p.x, 11), fill(bias, p.bias ? to : 0, p.x, 12);
        fill(u, p.m * p.rank, p.x, 13), fill(b, to * p.rank, p.x, 14), fill(before, p.m * to, p.y, 15);
        y.make((size_t)(p.m * to) * fb_dtype_size(p.y), (size_t)p.shift * fb_dtype_size(p.y));
    }
    static void fill(Bytes &v, int64_t n, fb_dtype t, uint64_t seed)
    {
        v.make((size_t)n * fb_dtype_size(t));
        if (n) input_fill(INPUT_GAUSSIAN, seed, 64, v.p, t, n);
    }

    fb_status run(const char **message)
    {
        static fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        if (q.accumulate) memcpy(y.p, before.p, y.n);
        else memset(y.p, 0xff, y.n);
        fb_gemm_call c = {&ctx, fb_device_of(90), &w, q.m, x.p, q.x, q.bias ? bias.p : nullptr, y.p, q.y, q.accumulate,
                          {q.rank ? u.p : nullptr, q.rank ? b.p : nullptr, q.rank, 0, 0}};
        CU_ASSERT((q.stream ? FB_CUDA(gemm_stream_sm90_serves) : q.dx ? FB_CUDA(gemm_dx_sm90_serves) : FB_CUDA(gemm_sm90_serves))(&c));
        *message = ctx.message;
        if (planned) return planned(&c, &q.plan);
        return (q.stream ? FB_CUDA(gemm_stream_sm90_planned) : q.dx ? FB_CUDA(gemm_dx_sm90_planned) : FB_CUDA(gemm_sm90_planned))(&c, &q.plan);
    }

    check_result check(const char *what)
    {
        const int64_t l = from + q.rank;
        std::vector<double> dense((size_t)(q.n * q.k)), weights((size_t)(to * l));
        std::vector<uint8_t> a((size_t)(q.m * l) * 2);
        check_weights(&w, q.stream ? FB_WEIGHTS_CODES : FB_WEIGHTS_ROUNDED, q.x, dense.data());
        for (int64_t r = 0; r < to; r++)
            for (int64_t i = 0; i < l; i++)
                weights[(size_t)(r * l + i)] = i < from ? dense[(size_t)(q.dx ? i * q.k + r : r * q.k + i)]
                                                        : fb_load(b.p, q.x, q.dx ? (i - from) * to + r : r * q.rank + i - from);
        for (int64_t t = 0; t < q.m; t++) {
            memcpy(&a[(size_t)(t * l) * 2], x.p + t * from * 2, (size_t)from * 2);
            if (q.rank) memcpy(&a[(size_t)(t * l + from) * 2], u.p + t * q.rank * 2, (size_t)q.rank * 2);
        }
        check_product p = {};
        p.what = what;
        p.m = q.m, p.p = to, p.l = l;
        p.a = a.data(), p.a_dtype = q.x;
        p.weights = weights.data();
        p.bias = q.bias ? bias.p : nullptr;
        p.before = q.accumulate ? before.p : nullptr;
        p.out = y.p, p.out_dtype = q.y;
        p.gaussian = true;
        return check_level2(&p);
    }
};

void expect(bool ok, const char *what, const char *text)
{
    if (!ok) printf("\n    %s: %s", what, text);
    CU_ASSERT(ok);
}

/* Runs it, checks it; false where it went wrong. */
bool try_one(const char *what, const Problem &q)
{
    Case c(q);
    const char *message;
    char name[200];
    snprintf(name, sizeof name, "%s %s m%d n%d k%d %s b%d%s %s->%s T%d/%d/%d/%d", what, q.stream ? "stream" : q.dx ? "dx" : "gemm",
             (int)q.m, (int)q.n, (int)q.k, fb_format_name(q.format), q.block, q.dq ? "+dq" : "", fb_dtype_name(q.x), fb_dtype_name(q.y), q.plan.tokens, q.plan.split,
             q.plan.share, q.plan.blocks);
    const fb_status status = c.run(&message);
    expect(status == FB_OK, name, message);
    if (status != FB_OK) return false;
    const check_result r = c.check(name);
    expect(r.ok, name, r.text);
    return r.ok;
}

uint64_t read_of(const char *name)
{
    const simt::BufferTraffic *t = simt::last_report().counters.buffer(name);
    return t ? t->bytes_read : 0;
}

/* In 20 seeds and 4 orders: nothing reported, the same bits, and right. */
[[maybe_unused]] void expect_same_in_any_order(Case &c)
{
    std::vector<uint8_t> first;
    const char *message;
    for (auto order : {simt::Order::Seeded, simt::Order::Forward, simt::Order::Reverse, simt::Order::RoundRobin})
        for (uint64_t seed = 1; seed <= (order == simt::Order::Seeded ? 20 : 1); seed++) {
            simt::options().order = order;
            simt::options().seed = seed;
            const fb_status status = c.run(&message);
            expect(status == FB_OK, "any order", message);
            std::vector<uint8_t> bits(c.y.p, c.y.p + c.y.n);
            if (first.empty()) first = bits;
            CU_ASSERT(bits == first);
        }
    simt::options().order = simt::Order::Seeded;
    simt::options().seed = 1;
    CU_ASSERT(c.check("any order").ok);
}

} // namespace
#endif
