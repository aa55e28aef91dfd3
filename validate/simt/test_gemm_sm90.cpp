/* test_gemm_sm90.cpp — the Hopper products in the executor, each plan by itself: every element within the bounds of check.h, in many
 * thread orders, with all checks on; the same bits whatever the order; each code byte once. */
#include "sm90_case.h"

namespace {

void shapes()
{
    try_one("one tile", {false, 256, 128, 256, {256, 1, 1, 0}});
    try_one("tails", {false, 133, 200, 192, {128, 1, 1, 2}});
    try_one("tails", {false, 300, 72, 128, {256, 1, 1, 1}});
    try_one("odd rows", {false, 70, 131, 320, {64, 1, 1, 1}});
    try_one("few tokens", {false, 17, 136, 448, {32, 1, 1, 1}});
    try_one("several tiles a block", {false, 140, 400, 128, {64, 1, 1, 3}});
    try_one("ring wraps", {false, 20, 64, 2048, {32, 1, 1, 1}});
}

void splits_and_pairs()
{
    try_one("split", {false, 64, 128, 512, {64, 2, 1, 0}});
    try_one("split", {false, 100, 130, 576, {128, 4, 1, 0}});
    try_one("split", {false, 130, 128, 512, {256, 8, 1, 0}});
    try_one("pair", {false, 256, 256, 256, {256, 1, 2, 2}});
    try_one("pair, odd tile", {false, 150, 300, 320, {128, 1, 2, 2}});
}

void formats()
{
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int dq = 0; dq < 2; dq++) {
            Problem q = {false, 40, 72, 256, {64, 1, 1, 1}, (fb_format)f, dq ? 32 : 64, dq == 1};
            q.bias = dq;
            q.y = dq ? FB_F32 : FB_BF16;
            try_one("format", q);
            q.x = FB_F16, q.y = FB_F16;
            try_one("format", q);
        }
    for (int block = 32; block <= 4096; block *= 2) {
        Problem q = {false, 24, 80, 192, {32, 1, 1, 1}, block % 3 ? FB_NF4 : FB_INT4_AFFINE, block, block >= 256};
        try_one("block size", q);
    }
    Problem q = {false, 40, 72, 256, {64, 1, 1, 1}};
    q.custom = true;
    try_one("custom codebook", q);
}

void outputs()
{
    Problem q = {false, 77, 200, 128, {128, 1, 1, 0}};
    q.bias = true;
    try_one("bias", q);
    q.shift = 8;
    try_one("y on 16 bytes", q);
    q.shift = 1;
    try_one("y on 2 bytes", q);
    q.shift = 0, q.y = FB_F16;
    try_one("bf16 to fp16", q);
    q.rank = 8;
    try_one("rank 8", q);
    q.rank = 72, q.plan = {128, 2, 1, 0};
    try_one("rank 72, split", q);
    q.rank = 136, q.plan = {64, 1, 1, 2};
    try_one("rank 136", q);
}

void dx_shapes()
{
    try_one("one tile", {true, 256, 128, 128, {256, 1, 1, 0}});
    try_one("tails", {true, 133, 200, 192, {128, 1, 1, 2}});
    try_one("tails", {true, 300, 72, 64, {256, 1, 1, 1}});
    try_one("several tiles a block", {true, 140, 136, 448, {128, 1, 1, 3}});
    try_one("ring wraps", {true, 70, 1000, 64, {128, 1, 1, 1}});
    try_one("split", {true, 100, 576, 128, {128, 4, 1, 0}});
    try_one("split", {true, 130, 512, 64, {256, 8, 1, 0}});
    try_one("pair", {true, 256, 256, 256, {256, 1, 2, 2}});
    try_one("pair, odd tile", {true, 150, 320, 320, {128, 1, 2, 2}});
}

void dx_formats()
{
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int dq = 0; dq < 2; dq++) {
            Problem q = {true, 40, 72, 256, {128, 1, 1, 1}, (fb_format)f, dq ? 32 : 64, dq == 1};
            q.y = dq ? FB_F32 : FB_BF16;
            q.accumulate = dq;
            try_one("format", q);
            q.x = FB_F16, q.y = FB_F16;
            try_one("format", q);
        }
    for (int block = 32; block <= 4096; block *= 2) {
        Problem q = {true, 24, 80, 192, {128, 1, 1, 1}, block % 3 ? FB_NF4 : FB_INT4_AFFINE, block, block >= 256};
        try_one("block size", q);
    }
    Problem q = {true, 140, 200, 192, {128, 1, 1, 2}};
    q.accumulate = true;
    try_one("accumulate", q);
    q.rank = 72, q.plan = {128, 2, 1, 0};
    try_one("rank 72, split", q);
    q.shift = 3, q.y = FB_F16;
    try_one("y on 6 bytes", q);
}

/* ---- thread orders: nothing reported, and the same bits ------------------------------------------------------------- */

void any_order()
{
    Problem all[] = {{false, 40, 136, 320, {64, 1, 1, 2}, FB_NF4, 32, true},   {false, 130, 72, 256, {128, 2, 1, 0}},
                     {false, 40, 200, 256, {32, 1, 2, 2}, FB_INT4_AFFINE},      {true, 130, 136, 192, {128, 1, 2, 2}, FB_NF4, 32, true},
                     {true, 40, 256, 64, {128, 4, 1, 0}, FB_INT4}};
    all[0].bias = true, all[0].rank = 24;
    all[3].accumulate = true, all[4].rank = 8;
    for (Problem &q : all) {
        Case c(q);
        expect_same_in_any_order(c);
    }
    simt::options().accumulate = simt::Accumulate::Hopper; /* sums as the tensor cores are known to cut them */
    try_one("Hopper's sums", {false, 64, 128, 1024, {64, 1, 1, 0}});
    try_one("Hopper's sums", {true, 128, 512, 128, {128, 1, 1, 0}});
    simt::options().accumulate = simt::Accumulate::ExactOrder;
}

/* ---- budgets: bytes, sectors, banks, instructions --------------------------------------------------------------------- */

/* q has one tile of tokens and no tails. Codes once; tokens once a tile of rows, or pair of tiles; scales once a block. */
void budget(const Problem &q, uint64_t token_reads)
{
    Case c(q);
    const char *message;
    CU_ASSERT_FATAL(c.run(&message) == FB_OK);
    const simt::Counters &n = simt::last_report().counters;
    const uint64_t weights = (uint64_t)(q.n * q.k), out = (uint64_t)(q.m * c.to) * 2;
    CU_ASSERT_EQUAL(read_of("codes"), weights / 2);
    CU_ASSERT_EQUAL(read_of(q.dx ? "dy" : "x"), (uint64_t)(q.m * c.from) * 2 * token_reads);
    if (q.dq) CU_ASSERT_EQUAL(read_of("absmax_codes"), weights / (uint64_t)q.block);
    if (!q.dq) CU_ASSERT_EQUAL(read_of("absmax"), weights / (uint64_t)q.block * 4);
    const simt::BufferTraffic *y = n.buffer(q.dx ? "dx" : "y");
    CU_ASSERT_FATAL(y != nullptr);
    CU_ASSERT_EQUAL(y->bytes_written, out);
    CU_ASSERT_EQUAL(y->sectors_written * 32, out);
    CU_ASSERT_EQUAL(n.count(simt::Instr::Wgmma), weights / (64 * 16)); /* a weight is decoded, and multiplied, once */
    /* The map of nested scales is read at random, once a block: the fullest of 32 banks that 32 random words hit has 3.5 of
     * them on average, 2.5 too many. A scale and a zero point are 8 bytes of 16. The rest: none. */
    const uint64_t requests = (weights / (uint64_t)q.block + 31) / 32;
    const uint64_t random = (q.dq ? 3 * requests : 0) + (q.format == FB_INT4 ? n.shared_wavefronts / 50 : 0);
    if (n.bank_conflicts() > random) printf("\n    %d bank conflicts in %d wavefronts, %d allowed ", (int)n.bank_conflicts(), (int)n.shared_wavefronts, (int)random);
    CU_ASSERT(n.bank_conflicts() <= random);
}

void budgets()
{
    for (int dq = 0; dq < 2; dq++) {
        budget({false, 32, 256, 512, {32, 1, 1, 0}, FB_NF4, 64, dq == 1}, 2);
        budget({false, 64, 128, 512, {64, 1, 1, 0}, FB_NF4, 64, dq == 1}, 1);
        budget({false, 256, 256, 128, {256, 1, 1, 0}, FB_NF4, 64, dq == 1}, 2);
        budget({false, 256, 256, 128, {256, 1, 2, 2}, FB_NF4, 64, dq == 1}, 1);
        budget({true, 128, 128, 256, {128, 1, 1, 0}, FB_NF4, 64, dq == 1}, 2);
        budget({true, 256, 128, 256, {256, 1, 2, 2}, FB_INT4, 64, dq == 1}, 1);
    }
}

/* ---- planted bugs: each turns the executor's report, or the result, red -------------------------------------------------- */

} // namespace
#include "planted_sm90.h"
extern "C" fb_status planted_gemm_sm90_planned(const fb_gemm_call *, const fb_sm90_plan *);
extern "C" fb_status planted_gemm_dx_sm90_planned(const fb_gemm_call *, const fb_sm90_plan *);
int planted_bug;
namespace {

void planted()
{
    const Problem both[] = {{false, 32, 128, 1536, {32, 2, 1, 0}}, {true, 128, 576, 128, {128, 1, 2, 2}}};
    for (const Problem &q : both) {
        Case c(q);
        const char *message;
        for (planted_bug = 0; planted_bug < kPlantedBugs; planted_bug++) {
            const char *name = planted_names[planted_bug];
            if (strstr(name, "stream:") || strstr(name, q.dx ? "gemm:" : "gemm_dx:")) continue;
            for (uint64_t seed = 1; seed <= 3; seed++) {
                simt::options().seed = seed;
                c.planned = q.dx ? planted_gemm_dx_sm90_planned : planted_gemm_sm90_planned;
                const bool right = c.run(&message) == FB_OK && c.check(name).ok;
                expect(right == (planted_bug == 0), name, planted_bug ? "was not found" : message);
            }
        }
    }
    simt::options().seed = 1;
    planted_bug = 0;
}

const NamedTest cases[] = {
    {"gemm: shapes, tails, rings", shapes},
    {"gemm: split sums and shared tokens", splits_and_pairs},
    {"gemm: formats, blocks, types", formats},
    {"gemm: bias, alignment, low rank", outputs},
    {"gemm_dx: shapes, tails, splits, pairs", dx_shapes},
    {"gemm_dx: formats, blocks, accumulate, low rank", dx_formats},
    {"both: the same bits in 20 seeds and 4 orders", any_order},
    {"both: bytes, sectors, banks, products", budgets},
    {"both: planted bugs", planted},
};

} // namespace

int main(int argc, char **argv)
{
    simt::options().quiet = true;
    return run_tests("Hopper products in the executor", cases, argc, argv);
}
