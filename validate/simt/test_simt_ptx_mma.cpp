/* test_simt_ptx_mma.cpp — mma.sync, ldmatrix, stmatrix.
 *
 * Layouts are stated here element by element, as the tables of the PTX ISA print them ("row = groupID for ai where
 * 0 <= i < 2 || 4 <= i < 6"), never through the word-wise formulas of ptx_mma.cpp; corners are also spelled out by hand. */
#include "test_simt_ptx.h"

/* --- PTX ISA 9.7.14, "Matrix fragments for mma.m16n8k16" and the same for m16n8k8 --- */

static int a_row(int k, int lane, int i) {
    int group = lane >> 2;
    if (k == 16) return (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
    return i < 2 ? group : group + 8; /* a0, a1 / a2, a3 */
}
static int a_col(int k, int lane, int i) {
    int in_group = lane % 4;
    if (k == 16) return i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
    return in_group * 2 + (i & 1);
}
static int b_row(int lane, int i) { return i < 2 ? (lane % 4) * 2 + (i & 1) : (lane % 4) * 2 + (i & 1) + 8; }
static int b_col(int lane, int) { return lane >> 2; }
static int c_row(int lane, int i) { return i < 2 ? lane >> 2 : (lane >> 2) + 8; }
static int c_col(int lane, int i) { return (lane % 4) * 2 + (i & 1); }

/* One warp, one mma per 32 entries of a, b, c; fragments come and go as they are. */
static void k_mma(int kind, const uint32_t *a, const uint32_t *b, const float *c, float *d) {
    unsigned l = threadIdx.x;
    float x[4];
    for (int i = 0; i < 4; i++) x[i] = c[l * 4 + i];
    uint32_t a4[4], b2[2];
    for (int i = 0; i < 4; i++) a4[i] = a[l * 4 + i];
    for (int i = 0; i < 2; i++) b2[i] = b[l * 2 + i];
    uint32_t a2[2] = {a4[0], a4[1]}, b1[1] = {b2[0]};
    switch (kind) {
    case 0: ptx::mma_m16n8k16_bf16(x, a4, b2); break;
    case 1: ptx::mma_m16n8k16_f16(x, a4, b2); break;
    case 2: ptx::mma_m16n8k8_bf16(x, a2, b1); break;
    case 3: ptx::mma_m16n8k8_f16(x, a2, b1); break;
    }
    for (int i = 0; i < 4; i++) d[l * 4 + i] = x[i];
}

struct Tile {
    float a[16][16], b[16][8], c[16][8], d[16][8];
};

static void run_mma(Tile &t, int kind) {
    bool f16 = kind & 1;
    int k = kind < 2 ? 16 : 8;
    std::vector<uint32_t> a(128), b(64);
    std::vector<float> c(128), d(128);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < k / 2; i++) a[l * 4 + i / 2] |= (uint32_t)encode16(t.a[a_row(k, l, i)][a_col(k, l, i)], f16) << (i % 2 * 16);
        for (int i = 0; i < k / 4; i++) b[l * 2 + i / 2] |= (uint32_t)encode16(t.b[b_row(l, i)][b_col(l, i)], f16) << (i % 2 * 16);
        for (int i = 0; i < 4; i++) c[l * 4 + i] = t.c[c_row(l, i)][c_col(l, i)];
    }
    Device<uint32_t> da(a.data(), 128, "a"), db(b.data(), 64, "b");
    Device<float> dc(c.data(), 128, "c"), dd(128, "d");
    CU_ASSERT(clean("k_mma", Config{1, 32}, k_mma, kind, (const uint32_t *)da.p, (const uint32_t *)db.p, (const float *)dc.p, dd.p));
    simt::copy_out(d.data(), dd.p, 512);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) t.d[c_row(l, i)][c_col(l, i)] = d[l * 4 + i];
}

static void mma_products() {
    for (int kind = 0; kind < 4; kind++) {
        int k = kind < 2 ? 16 : 8, wrong = 0;
        Tile t;
        unsigned n = 0;
        for (auto &r : t.a) for (float &v : r) v = small_integer(n++);
        for (auto &r : t.b) for (float &v : r) v = small_integer(n++);
        for (auto &r : t.c) for (float &v : r) v = small_integer(n++);
        run_mma(t, kind);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float s = t.c[i][j];
                for (int l = 0; l < k; l++) s += t.a[i][l] * t.b[l][j];
                wrong += s != t.d[i][j];
            }
        CU_ASSERT_EQUAL(wrong, 0);
        CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Mma), 1);
    }
}

/* Corners read off the ISA's figures: which lane and register hold an element, written out. */
static void mma_corners() {
    struct { char which; int lane, reg, row, col; } const table[] = {
        {'A', 0, 0, 0, 0},  {'A', 0, 1, 0, 1},  {'A', 3, 1, 0, 7},   {'A', 4, 0, 1, 0},   {'A', 28, 0, 7, 0},  {'A', 0, 2, 8, 0},
        {'A', 31, 3, 15, 7}, {'A', 0, 4, 0, 8}, {'A', 3, 5, 0, 15},  {'A', 0, 6, 8, 8},   {'A', 31, 7, 15, 15}, {'A', 17, 4, 4, 10},
        {'B', 0, 0, 0, 0},  {'B', 0, 1, 1, 0},  {'B', 3, 1, 7, 0},   {'B', 0, 2, 8, 0},   {'B', 3, 3, 15, 0},  {'B', 31, 3, 15, 7},
        {'B', 4, 0, 0, 1},  {'C', 0, 0, 0, 0},  {'C', 0, 1, 0, 1},   {'C', 3, 1, 0, 7},   {'C', 0, 2, 8, 0},   {'C', 31, 3, 15, 7},
        {'C', 30, 1, 7, 5},
    };
    for (auto &e : table) {
        int row = e.which == 'A' ? a_row(16, e.lane, e.reg) : e.which == 'B' ? b_row(e.lane, e.reg) : c_row(e.lane, e.reg);
        int col = e.which == 'A' ? a_col(16, e.lane, e.reg) : e.which == 'B' ? b_col(e.lane, e.reg) : c_col(e.lane, e.reg);
        CU_ASSERT(row == e.row && col == e.col);
    }
    /* One-hot A picks one row of B: every (row, k) pair of the instruction on its own. */
    int wrong = 0;
    for (int r = 0; r < 16; r += 5)
        for (int k = 0; k < 16; k++) {
            Tile t = {};
            t.a[r][k] = 1;
            for (int i = 0; i < 16; i++) for (int j = 0; j < 8; j++) t.b[i][j] = (float)(i * 8 + j + 1);
            run_mma(t, 0);
            for (int i = 0; i < 16; i++) for (int j = 0; j < 8; j++) wrong += t.d[i][j] != (i == r ? (float)(k * 8 + j + 1) : 0.0f);
        }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* --- the two ways to add up --- */

static float dot(const std::vector<std::pair<float, float>> &products, float c, simt::Accumulate how, bool f16 = false) {
    Tile t = {};
    for (size_t k = 0; k < products.size(); k++) {
        t.a[0][k] = products[k].first;
        t.b[k][0] = products[k].second;
    }
    t.c[0][0] = c;
    simt::options().accumulate = how;
    run_mma(t, f16);
    simt::options().accumulate = simt::Accumulate::ExactOrder;
    return t.d[0][0];
}

static void accumulation() {
    using simt::Accumulate;
    const auto exact = Accumulate::ExactOrder, hopper = Accumulate::Hopper;
    /* 1 + 2^-24 twice: each alone is a tie that rounds back to 1; aligned at 25 bits both survive and make one ulp. */
    std::vector<std::pair<float, float>> ties = {{1, 1}, {0x1p-12f, 0x1p-12f}, {0x1p-12f, 0x1p-12f}};
    CU_ASSERT_EQUAL(dot(ties, 0, exact), 1.0f);
    CU_ASSERT_EQUAL(dot(ties, 0, hopper), 1.0f + 0x1p-23f);
    /* 2^-26 beside 1 is below the 25th bit: 15 of them are lost by cutting, although their sum is 15/8 of an ulp. */
    std::vector<std::pair<float, float>> dust(16, {0x1p-13f, 0x1p-13f});
    dust[0] = {1, 1};
    CU_ASSERT_EQUAL(dot(dust, 0, hopper), 1.0f);
    CU_ASSERT_EQUAL(dot(dust, 0, exact), 1.0f);
    std::vector<std::pair<float, float>> dust_first(16, {0x1p-13f, 0x1p-13f});
    dust_first[15] = {1, 1};
    CU_ASSERT_EQUAL(dot(dust_first, 0, exact), 1.0f + 0x1p-22f); /* 15 x 2^-26 = 1.875 ulp, rounded to 2 */
    /* Cut, not rounded: 1 + 3/4 ulp stays 1, on both sides of zero. */
    CU_ASSERT_EQUAL(dot({{1, 1}, {0x1p-12f, 0x1.8p-12f}}, 0, hopper), 1.0f);
    CU_ASSERT_EQUAL(dot({{-1, 1}, {-0x1p-12f, 0x1.8p-12f}}, 0, hopper), -1.0f);
    /* The sum of aligned terms is exact: cancellation leaves what the alignment kept. */
    CU_ASSERT_EQUAL(dot({{1, 1}, {0x1p-12f, 0x1p-13f}, {-1, 1}}, 0, hopper), 0x1p-25f);
    CU_ASSERT_EQUAL(dot({{1, 1}, {0x1p-12f, 0x1p-13f}, {-1, 1}}, 0, exact), 0.0f);
    /* A product of 1.9 x 1.9 counts with the exponent sum of its factors, not with its own. */
    CU_ASSERT_EQUAL(dot({{1.9375f, 1.9375f}, {0x1p-12f, 0x1p-13f}}, 0, hopper), 1.9375f * 1.9375f);
    CU_ASSERT_EQUAL(dot({{2, 3}, {4, -5}}, 7, hopper), -7.0f);
    CU_ASSERT_EQUAL(dot({{0x1p-14f, 0x1p-10f}, {0x1p-24f, 1}}, 0x1p-30f, hopper, true), 0x1p-23f + 0x1p-30f);
    CU_ASSERT(std::isinf(dot({{__builtin_inff(), 1}}, 0, hopper)));
    CU_ASSERT(std::isnan(dot({{__builtin_inff(), 0}}, 0, hopper)));
}

static void k_mma_bug(int bug, float *d) {
    uint32_t a[4] = {}, b[2] = {};
    float c[4] = {};
    if (bug == 1 && threadIdx.x == 7) return;
    if (bug == 2 && threadIdx.x == 7)
        ptx::mma_m16n8k16_f16(c, a, b);
    else
        ptx::mma_m16n8k16_bf16(c, a, b);
    d[threadIdx.x] = c[0];
}
static void mma_bugs() {
    Device<float> d(32, "d");
    PLANT(1, Check::BadCollective, "only lanes 0xffffff7f take part", k_mma_bug, (Config{1, 32}), d.p);
    PLANT(2, Check::BadCollective, "mma.m16n8k16", k_mma_bug, (Config{1, 32}), d.p);
}

/* --- ldmatrix: 9.7.14. Each address names a row; thread t gets of matrix j: row t / 4, elements 2 (t % 4) and the
 * next one; with .trans the same of the transposed matrix. --- */

static void k_ldmatrix(int bug, int form, uint32_t *out) {
    FB_SHARED_ALIGNED(uint16_t, s, [32][40], 128); /* 80-byte rows: 16-byte aligned, conflict-free */
    unsigned l = threadIdx.x;
    for (unsigned i = l; i < 32 * 8; i += 32)
        if (bug != 2 || i / 8 != 13) s[i / 8][i % 8] = (uint16_t)(i / 8 * 100 + i % 8);
    if (bug != 3) __syncthreads();
    unsigned rows = form % 3 == 0 ? 8 : form % 3 == 1 ? 16 : 32;
    uint32_t at = ptx::shared_address(&s[l % rows][0]) + (bug == 1 && l == 5 ? 8 : 0);
    uint32_t d1[1], d2[2], d4[4] = {};
    switch (form) {
    case 0: ptx::ldmatrix_x1(d1, at); d4[0] = d1[0]; break;
    case 1: ptx::ldmatrix_x2(d2, at); d4[0] = d2[0]; d4[1] = d2[1]; break;
    case 2: ptx::ldmatrix_x4(d4, at); break;
    case 3: ptx::ldmatrix_x1_trans(d1, at); d4[0] = d1[0]; break;
    case 4: ptx::ldmatrix_x2_trans(d2, at); d4[0] = d2[0]; d4[1] = d2[1]; break;
    case 5: ptx::ldmatrix_x4_trans(d4, at); break;
    }
    for (int i = 0; i < 4; i++) out[l * 4 + (unsigned)i] = d4[i];
}

static void ldmatrix_layouts() {
    Device<uint32_t> out(128, "out");
    for (int form = 0; form < 6; form++) {
        CU_ASSERT(clean("k_ldmatrix", Config{1, 32}, k_ldmatrix, 0, form, out.p));
        CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Ldmatrix), 1);
        CU_ASSERT_EQUAL(simt::last_report().counters.bank_conflicts(), 0);
        std::vector<uint32_t> v(128);
        simt::copy_out(v.data(), out.p, 512);
        int wrong = 0;
        for (int matrix = 0; matrix < (form % 3 == 0 ? 1 : form % 3 == 1 ? 2 : 4); matrix++)
            for (int lane = 0; lane < 32; lane++)
                for (int half = 0; half < 2; half++) {
                    int row = lane / 4, col = 2 * (lane % 4) + half; /* of the matrix, or of its transpose */
                    int want = form < 3 ? (8 * matrix + row) * 100 + col : (8 * matrix + col) * 100 + row;
                    wrong += (int)(v[(size_t)lane * 4 + (size_t)matrix] >> (16 * half) & 0xffff) != want;
                }
        CU_ASSERT_EQUAL(wrong, 0);
    }
    PLANT(1, Check::Misaligned, "thread (5,0,0)", k_ldmatrix, (Config{1, 32}), 2, out.p);
    PLANT(2, Check::Uninitialised, "shared array s +", k_ldmatrix, (Config{1, 32}), 2, out.p);
}

static void k_ldmatrix_race(int bug, uint32_t *out) { /* two warps: one fills, the other reads */
    FB_SHARED_ALIGNED(uint4, s, [32], 128);
    if (threadIdx.x < 32) s[threadIdx.x] = make_uint4(threadIdx.x, 1, 2, 3);
    __syncthreads();
    uint32_t d[4];
    ptx::ldmatrix_x4(d, ptx::shared_address(&s[threadIdx.x % 32]));
    if (!bug) __syncthreads();
    if (threadIdx.x < 32) s[threadIdx.x] = make_uint4(d[0], d[1], d[2], d[3]);
    out[threadIdx.x] = d[0];
}
static void ldmatrix_race() {
    Device<uint32_t> out(64, "out");
    PLANT(1, Check::SharedRace, "shared array s +", k_ldmatrix_race, (Config{1, 64}), out.p);
}

/* A tile that ldmatrix takes from rows and mma consumes: the two layouts must fit each other. */
static void k_ldmatrix_mma(const uint16_t *a, const uint16_t *b, float *c) { /* C[16][8] = A[16][16] B[8][16]^T */
    FB_SHARED_ALIGNED(uint16_t, sa, [16][24], 16);
    FB_SHARED_ALIGNED(uint16_t, sb, [8][24], 16);
    unsigned l = threadIdx.x;
    for (unsigned i = l; i < 256; i += 32) sa[i / 16][i % 16] = a[i];
    for (unsigned i = l; i < 128; i += 32) sb[i / 16][i % 16] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[2];
    ptx::ldmatrix_x4(fa, ptx::shared_address(&sa[l % 16][l / 16 * 8]));
    ptx::ldmatrix_x2(fb, ptx::shared_address(&sb[l % 8][l / 8 % 2 * 8]));
    float d[4] = {};
    ptx::mma_m16n8k16_bf16(d, fa, fb);
    for (int i = 0; i < 4; i++) c[(l / 4 + (i > 1 ? 8 : 0)) * 8 + l % 4 * 2 + (unsigned)(i & 1)] = d[i];
}
static void ldmatrix_feeds_mma() {
    std::vector<uint16_t> a(256), b(128);
    for (unsigned i = 0; i < 256; i++) a[i] = encode16(small_integer(i), false);
    for (unsigned i = 0; i < 128; i++) b[i] = encode16(small_integer(i + 999), false);
    Device<uint16_t> da(a.data(), 256, "a"), db(b.data(), 128, "b");
    Device<float> dc(128, "c");
    CU_ASSERT(clean("k_ldmatrix_mma", Config{1, 32}, k_ldmatrix_mma, (const uint16_t *)da.p, (const uint16_t *)db.p, dc.p));
    std::vector<float> c(128);
    simt::copy_out(c.data(), dc.p, 512);
    int wrong = 0;
    for (unsigned i = 0; i < 128; i++) {
        float s = 0;
        for (unsigned k = 0; k < 16; k++) s += small_integer(i / 8 * 16 + k) * small_integer(999 + i % 8 * 16 + k);
        wrong += s != c[i];
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

/* --- stmatrix: ldmatrix's way back --- */

static void k_stmatrix(int bug, int form, uint32_t *out) {
    FB_SHARED_ALIGNED(uint16_t, s, [32][8], 128);
    unsigned l = threadIdx.x, rows = form % 3 == 0 ? 8 : form % 3 == 1 ? 16 : 32;
    for (unsigned i = l; i < 128; i += 32) ((uint32_t *)s)[i] = 0;
    __syncwarp();
    uint32_t at = ptx::shared_address(&s[l % rows][0]), v[4];
    for (unsigned m = 0; m < 4; m++) v[m] = (l * 2 + 1 + m * 1000) << 16 | (l * 2 + m * 1000);
    uint32_t v1[1] = {v[0]}, v2[2] = {v[0], v[1]};
    if (bug == 2 && l == 9) at += 2;
    switch (form) {
    case 0: ptx::stmatrix_x1(at, v1); break;
    case 1: ptx::stmatrix_x2(at, v2); break;
    case 2: ptx::stmatrix_x4(at, v); break;
    case 3: ptx::stmatrix_x1_trans(at, v1); break;
    case 4: ptx::stmatrix_x2_trans(at, v2); break;
    case 5: ptx::stmatrix_x4_trans(at, v); break;
    }
    if (bug != 1) __syncwarp();
    for (unsigned i = 0; i < 128; i += 32) out[l + i] = ((const uint32_t *)s)[l + i];
}
static void stmatrix_layouts() {
    Device<uint32_t> out(128, "out");
    for (int form = 0; form < 6; form++) {
        CU_ASSERT(clean("k_stmatrix", Config{1, 32}, k_stmatrix, 0, form, out.p));
        CU_ASSERT_EQUAL(simt::last_report().counters.count(simt::Instr::Stmatrix), 1);
        uint16_t v[32][8];
        simt::copy_out(v, out.p, 512);
        int wrong = 0;
        for (int matrix = 0; matrix < 4; matrix++)
            for (int r = 0; r < 8; r++)
                for (int c = 0; c < 8; c++) { /* element (r, c) lies with lane 4 r + c / 2, or the transpose's */
                    int i = form < 3 ? r : c, j = form < 3 ? c : r, lane = 4 * i + j / 2;
                    bool stored = matrix < (form % 3 == 0 ? 1 : form % 3 == 1 ? 2 : 4);
                    wrong += v[8 * matrix + r][c] != (stored ? lane * 2 + j % 2 + matrix * 1000 : 0);
                }
        CU_ASSERT_EQUAL(wrong, 0);
    }
    PLANT(1, Check::SharedRace, "RAW", k_stmatrix, (Config{1, 32}), 2, out.p);
    PLANT(2, Check::Misaligned, "thread (9,0,0)", k_stmatrix, (Config{1, 32}), 2, out.p);
}

static const SimtCase cases[] = {
    {"mma.sync m16n8k16 and m16n8k8, bf16 and fp16", mma_products},
    {"mma fragments: the ISA's corners, one-hot operands", mma_corners},
    {"accumulation: exact order and the Hopper model", accumulation},
    {"mma: missing lane, different instructions", mma_bugs},
    {"ldmatrix, with and without .trans", ldmatrix_layouts},
    {"ldmatrix: a write before the others have read", ldmatrix_race},
    {"ldmatrix feeds mma", ldmatrix_feeds_mma},
    {"stmatrix, with and without .trans", stmatrix_layouts},
};
static SimtSuite suite("simt ptx mma", cases);
