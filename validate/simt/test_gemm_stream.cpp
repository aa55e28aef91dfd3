/* test_gemm_stream.cpp — gemm_stream_sm90.cu in the executor: every element within the bounds of check.h, in many thread orders, with all
 * checks on; the same bits whatever the order; each code byte once; planted bugs. */
#include "sm90_case.h"

namespace {

/* Stream of m x k by n x k, K cut among `split` blocks, `blocks` in all (0: as many as the executor has multiprocessors for). */
Problem stream(int64_t m, int64_t n, int64_t k, int split = 1, int blocks = 0)
{
    Problem q = {false, m, n, k, {0, split, 1, blocks}};
    q.stream = true;
    return q;
}

void shapes()
{
    try_one("one unit", stream(1, 32, 2048));
    for (int64_t m = 2; m <= 8; m++) try_one("tokens", stream(m, 32, 256));
    try_one("one row", stream(3, 1, 512));
    try_one("rows beyond N", stream(8, 70, 1280, 1, 1));
    try_one("K ends in a half of a group", stream(5, 40, 1056));
    try_one("32 columns", stream(7, 40, 32));
    try_one("K no multiple of 64: a block of weights goes on in the next row", stream(2, 48, 1120));
    try_one("warps with one step more than others", stream(1, 32, 4608));
    try_one("the ring wraps, inside a unit", stream(1, 32, 32768));
    try_one("the ring wraps, across units", stream(2, 550, 2048, 1, 2));
    try_one("warps without a step, units in turn", stream(8, 160, 1280, 1, 1));
}

void splits()
{
    for (int split = 2; split <= 8; split *= 2) {
        try_one("units in turn", stream(3, 130, 2048, split, split));
        try_one("two clusters", stream(8, 100, 4608, split, 2 * split));
        try_one("fewer steps than blocks", stream(6, 32, 256 * (split - 1) + 96, split));
    }
}

void formats()
{
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int dq = 0; dq < 2; dq++) {
            Problem q = stream(4, 64, 512);
            q.format = (fb_format)f, q.dq = dq, q.block = dq ? 32 : 64, q.bias = dq;
            q.y = dq ? FB_F32 : FB_BF16;
            try_one("format", q);
            q.x = FB_F16, q.y = FB_F16, q.m = 7, q.block = 64;
            try_one("format", q);
        }
    for (int block = 32; block <= 4096; block *= 2) /* every way to load scales */
        for (int dq = 0; dq < 2; dq++)
            for (int64_t k : {512, 576, 1056}) {
                Problem q = stream(6, 64, k, dq ? 2 : 1);
                q.format = k == 576 ? FB_FP4 : dq ? FB_INT4_AFFINE : FB_NF4, q.block = block, q.dq = dq;
                try_one("block size", q);
            }
}

void outputs()
{
    Problem q = stream(5, 77, 512);
    q.bias = true;
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        q.y = (fb_dtype)t, q.shift = 1;
        try_one("y on an element", q);
    }
    q.shift = 0;
    for (int rank : {1, 8, 70, 256}) {
        q.rank = rank;
        q.plan.split = 1 + rank % 2;
        try_one("low rank", q);
    }
    q.rank = 130, q.m = 8, q.x = FB_F16;
    try_one("low rank", q);
}

/* What the library chooses, and what it leaves to the portable path. */
void serves()
{
    Problem custom = stream(7, 72, 512);
    custom.custom = true;
    const struct {
        Problem q;
        const char *what;
        bool yes;
    } all[] = {
        {stream(8, 32, 1024), "M = 8", true},
        {stream(9, 32, 1024), "M = 9", false},
        {stream(1, 32, 1040), "K no multiple of 32", false},
        {stream(1, 1, 32), "one scale", true},
        {custom, "a codebook that may not fit in 16 bits", false},
        {stream(4, 320, 2560), "units that 132 do not divide", true},
        {stream(8, 32, 32768), "an eighth of X fits", true},
        {stream(8, 32, 65536), "an eighth of X does not fit", false},
    };
    for (auto &t : all) {
        Case c(t.q);
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_CUDA);
        fb_gemm_call call = {&ctx, fb_device_of(90), &c.w, c.q.m, c.x.p, FB_BF16, nullptr, c.y.p, FB_BF16, false, {}};
        expect(FB_CUDA(gemm_stream_sm90_serves)(&call) == t.yes, t.what, "served, or not, against expectation");
        expect((FB_CUDA(gemm_weights)(&ctx, call.device, &c.w, c.q.m, FB_BF16) == FB_WEIGHTS_CODES) == t.yes, t.what, "weights declared otherwise");
        call.x = c.x.p + 2;
        expect(!FB_CUDA(gemm_stream_sm90_serves)(&call), t.what, "served with X on 2 bytes");
        call.x = c.x.p;
        if (!t.yes) continue;
        for (int multiprocessors : {2, 132}) { /* the executor's, an H200's: other splits, other grids */
            call.device.multiprocessors = multiprocessors;
            memset(c.y.p, 0xff, c.y.n);
            CU_ASSERT(FB_CUDA(gemm_stream_sm90)(&call) == FB_OK && c.check(t.what).ok);
        }
        fb_status status = FB_OK;
        memset(c.y.p, 0xff, c.y.n);
        CU_ASSERT(FB_CUDA(gemm_hopper)(&call, false, &status) && status == FB_OK && c.check(t.what).ok);
        CU_ASSERT(simt::last_report().kernel.find("gemm_stream") != std::string::npos);
        memset(c.y.p, 0xff, c.y.n); /* a pointer keeps it from the stream: slower, and the same weights */
        CU_ASSERT(FB_CUDA(gemm_any)(&call) == FB_OK && c.check(t.what).ok);
    }
}

void any_order()
{
    Problem all[] = {stream(3, 100, 1280, 1, 2), stream(8, 64, 4608, 4, 4), stream(7, 96, 1056, 2, 2)};
    all[0].dq = true, all[0].block = 32, all[0].bias = true, all[0].n = 160;
    all[1].format = FB_INT4_AFFINE, all[1].rank = 40, all[1].y = FB_F32;
    for (Problem &q : all) {
        Case c(q);
        expect_same_in_any_order(c);
    }
    simt::options().accumulate = simt::Accumulate::Hopper; /* sums as the tensor cores are known to cut them */
    try_one("Hopper's sums", stream(8, 64, 2048));
    simt::options().accumulate = simt::Accumulate::ExactOrder;
}

/* Codes and scales once, X once a cluster, Y once; nothing through the workspace. Returns the wavefronts in shared memory that grow
 * with the weights, for 32 of them. */
double budget(const Problem &q)
{
    Case c(q);
    const char *message;
    CU_ASSERT(c.run(&message) == FB_OK);
    const simt::Counters &n = simt::last_report().counters;
    const uint64_t weights = (uint64_t)(q.n * q.k), blocks = weights / (uint64_t)q.block, clusters = (uint64_t)(q.plan.blocks / q.plan.split);
    const uint64_t x = (uint64_t)(q.m * q.k) * 2 * clusters, parts = (uint64_t)(q.m * q.n) * 8 * (uint64_t)q.plan.split;
    CU_ASSERT_EQUAL(read_of("codes"), weights / 2);
    CU_ASSERT_EQUAL(read_of("x"), x);
    CU_ASSERT_EQUAL(read_of(q.dq ? "absmax_codes" : "absmax"), blocks * (q.dq ? 1 : 4));
    if (q.format == FB_INT4_AFFINE) CU_ASSERT_EQUAL(read_of("zero_points"), blocks);
    CU_ASSERT_EQUAL(read_of("workspace"), 0);
    const simt::BufferTraffic *codes = n.buffer("codes"), *y = n.buffer("y");
    CU_ASSERT_FATAL(codes && y);
    CU_ASSERT_EQUAL(codes->sectors_read * 32, weights / 2);
    CU_ASSERT_EQUAL(y->bytes_written, (uint64_t)(q.m * q.n) * 2);
    if (q.plan.split == 1) CU_ASSERT_EQUAL(y->sectors_written * 32, y->bytes_written);
    CU_ASSERT_EQUAL(n.count(simt::Instr::Mma), weights / 256);
    /* The map of nested scales is read at random: the fullest of 32 banks that 32 words hit has 3.5 of them. Parts are stored with up to four
     * to a bank where a block owns fewer than 32 rows. The rest: none. */
    const uint64_t allowed = (q.dq ? 3 * (blocks / 32) : 0) + (q.plan.split > 1 ? 3 * parts / 32 : 0);
    if (n.bank_conflicts() > allowed)
        printf("\n    M %d: %llu bank conflicts, %llu allowed", (int)q.m, (unsigned long long)n.bank_conflicts(), (unsigned long long)allowed);
    CU_ASSERT(n.bank_conflicts() <= allowed);
    const uint64_t table = (uint64_t)q.plan.blocks * FB_CODES * FB_CODES;
    return ((double)n.shared_wavefronts - (double)(table + x / 128 + 2 * parts * 4 / 128)) * 32 / (double)weights;
}

void budgets()
{
    for (int64_t m : {1, 8}) {
        for (int dq = 0; dq < 2; dq++) {
            Problem q = stream(m, 128, 2048, 1, 2);
            q.dq = dq;
            const double wavefronts = budget(q);
            if (wavefronts > 0.95) printf("\n    M %d: %.2f wavefronts for 32 weights", (int)m, wavefronts);
            CU_ASSERT(wavefronts <= (m > 1 ? 0.85 : 0.75) + (dq ? 0.1 : 0)); /* look-ups .5, codes .125, scales .06, X .03 or .12 */
        }
        Problem q = stream(m, 64, 4096, 4, 4);
        q.format = FB_INT4_AFFINE;
        budget(q);
    }
}

} // namespace
#include "planted_sm90.h"
extern "C" fb_status planted_gemm_stream_sm90_planned(const fb_gemm_call *, const fb_sm90_plan *);
int planted_bug;
namespace {

void planted()
{
    const char *message;
    for (int split = 1; split <= 2; split++) { /* a cluster's barrier would hide that the block's is missing */
        Case c(stream(4, 320, 4096 * split, split, 2)); /* two steps a warp and unit, five units or more a block: the ring wraps */
        c.planned = planted_gemm_stream_sm90_planned;
        for (int bug : {kNone, kNoWait, kWrongPhase, kFewBytes, kInvisibleBarriers, kNoClusterWait, kNoWarpBarrier, kNoTableBarrier, kNoCopyWait}) {
            if (split == 2 && bug == kNoTableBarrier) continue;
            for (uint64_t seed = 1; seed <= 3; seed++) {
                planted_bug = bug;
                simt::options().seed = seed;
                const bool right = c.run(&message) == FB_OK && c.check(planted_names[bug]).ok;
                expect(right == (bug == kNone), planted_names[bug], bug ? "was not found" : message);
            }
        }
    }
    simt::options().seed = 1;
    planted_bug = kNone;
}

const NamedTest cases[] = {
    {"shapes, tails, rings", shapes},
    {"splits", splits},
    {"formats, blocks, types", formats},
    {"bias, alignment, low rank", outputs},
    {"what is served", serves},
    {"the same bits in 20 seeds and 4 orders", any_order},
    {"bytes, sectors, banks, products", budgets},
    {"planted bugs", planted},
};

} // namespace

int main(int argc, char **argv)
{
    simt::options().quiet = true;
    return run_tests("gemm_stream in the executor", cases, argc, argv);
}
