/* test_simt_ptx_tensor.cpp — tensor maps, tensor copies both ways, and what they hand to wgmma. */
#include "test_simt_ptx.h"

/* --- tensor copies. The swizzles are stated as the ISA's tables of 16-byte pieces: piece number (bits 4-6 of the address)
 * in row n of the pattern. --- */

static unsigned piece_in_table(unsigned swizzle_bytes, unsigned line, unsigned piece) { /* lines of 128 bytes */
    static const unsigned b32[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}};
    static const unsigned b64[4][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4}};
    static const unsigned b128[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4},
                                        {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2}, {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};
    return swizzle_bytes == 32 ? b32[line % 2][piece] : swizzle_bytes == 64 ? b64[line % 4][piece] : swizzle_bytes == 128 ? b128[line % 8][piece] : piece;
}

static void k_tensor(int bug, const CUtensorMap map, int x, int y, unsigned bytes, char *out) {
    FB_SHARED_ALIGNED(char, s, [16384], 1024);
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    uint32_t b = ptx::shared_address(bar);
    unsigned t = threadIdx.x;
    if (t == 0) {
        ptx::prefetch_tensormap(&map);
        ptx::mbarrier_init(b, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(b, bytes);
        ptx::cp_async_bulk_tensor_2d_load(ptx::shared_address(s) + (bug == 1 ? 16 : 0), &map, x, y, b);
    }
    __syncthreads();
    if (bug != 2) ptx::mbarrier_wait_parity(b, 0);
    for (unsigned i = t; i < bytes; i += 32) out[i] = s[i];
    if (bug == 2) ptx::mbarrier_wait_parity(b, 0);
}

static int tensor_case(unsigned element, unsigned columns, unsigned rows, unsigned box_columns, unsigned box_rows, unsigned swizzle, int x, int y) {
    unsigned pitch = (columns * element + 15) / 16 * 16 + 32, box_bytes = box_columns * box_rows * element, row = box_columns * element;
    std::vector<char> v((size_t)pitch * rows), got(box_bytes);
    for (size_t i = 0; i < v.size(); i++) v[i] = (char)hash((unsigned)i);
    Device<char> in(v.data(), v.size(), "in"), out(box_bytes, "out");
    CUtensorMap map;
    if (simt::encode_tensor_map(&map, in.p, element, columns, rows, pitch, box_columns, box_rows, swizzle)) return -1;
    if (!clean("k_tensor", Config{1, 32}, k_tensor, 0, map, x, y, box_bytes, out.p)) return -2;
    simt::copy_out(got.data(), out.p, box_bytes);
    int wrong = 0;
    for (unsigned r = 0; r < box_rows; r++)
        for (unsigned c = 0; c < row; c++) {
            unsigned linear = r * row + c, at = linear / 128 * 128 + piece_in_table(swizzle, linear / 128, linear / 16 % 8) * 16 + linear % 16;
            long column = x + (long)(c / element), line = y + (long)r;
            bool inside = column >= 0 && column < (long)columns && line >= 0 && line < (long)rows;
            char want = inside ? v[(size_t)line * pitch + (size_t)column * element + c % element] : 0;
            wrong += got[at] != want;
        }
    return wrong;
}
static void tensor_loads() {
    for (unsigned swizzle : {0u, 32u, 64u, 128u}) {
        unsigned row = swizzle ? swizzle : 64;
        CU_ASSERT_EQUAL(tensor_case(2, 200, 100, row / 2, 64, swizzle, 32, 16), 0);  /* inside */
        CU_ASSERT_EQUAL(tensor_case(2, 200, 100, row / 2, 32, swizzle, 190, 90), 0); /* over both edges */
        CU_ASSERT_EQUAL(tensor_case(1, 100, 50, row, 16, swizzle, -5, -3), 0);       /* before the beginning */
        CU_ASSERT_EQUAL(tensor_case(4, 64, 64, row / 4, 24, swizzle, 3, 7), 0);
    }
    CU_ASSERT_EQUAL(tensor_case(1, 300, 20, 256, 8, 0, 20, 4), 0);
    CU_ASSERT_EQUAL(tensor_case(2, 64, 64, 32, 16, 128, 0, 0), 0); /* rows narrower than the swizzle */
    CU_ASSERT_EQUAL(tensor_case(2, 64, 64, 64, 8, 128, 64, 0), 0); /* wholly outside: zeros */
}

static void tensor_bugs() {
    CUtensorMap map, none = {};
    std::vector<char> v(128 * 64);
    Device<char> in(v.data(), v.size(), "in"), out(8192, "out");
    CU_ASSERT_PTR_NULL(simt::encode_tensor_map(&map, in.p, 2, 64, 64, 128, 64, 64, 128));
    Config c{1, 32};
    CU_ASSERT(caught(1, Check::Misaligned, "cp.async.bulk.tensor", "k_tensor", c, k_tensor, map, 0, 0, 8192u, out.p));
    CU_ASSERT(caught_as(false, 2, Check::AsyncHazard, "still writes", "k_tensor", c, k_tensor, map, 0, 0, 8192u, out.p));
    CU_ASSERT(caught(0, Check::BadInstruction, "no tensor map here", "k_tensor", c, k_tensor, none, 0, 0, 8192u, out.p));
    CU_ASSERT(caught(0, Check::BarrierPhase, "bytes are missing", "k_tensor", c, k_tensor, map, 0, 0, 8208u, out.p));
    CUtensorMap beyond; /* claims one row more than there is memory */
    CU_ASSERT_PTR_NULL(simt::encode_tensor_map(&beyond, in.p, 2, 64, 65, 128, 64, 64, 128));
    CU_ASSERT(caught(0, Check::OutOfBounds, "buffer in", "k_tensor", c, k_tensor, beyond, 0, 1, 8192u, out.p));
    CU_ASSERT_PTR_NOT_NULL(simt::encode_tensor_map(&map, in.p + 8, 2, 64, 64, 128, 64, 64, 128));
    CU_ASSERT_PTR_NOT_NULL(simt::encode_tensor_map(&map, in.p, 2, 64, 64, 120, 64, 64, 128));
    CU_ASSERT_PTR_NOT_NULL(simt::encode_tensor_map(&map, in.p, 2, 64, 64, 128, 64, 64, 64));
    CU_ASSERT_PTR_NOT_NULL(simt::encode_tensor_map(&map, in.p, 2, 64, 64, 128, 64, 257, 128));
    CU_ASSERT_PTR_NOT_NULL(simt::encode_tensor_map(&map, in.p, 2, 64, 64, 128, 4, 64, 128));
}

static void k_tensor_store(int bug, const CUtensorMap map, int x, int y, const char *in) { /* 16 x 64 bytes */
    FB_SHARED_ALIGNED(char, s, [1024], 1024);
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 1024; i += 32) s[i ^ (i >> 7 & 3) << 4] = in[i];
    if (bug != 1) ptx::fence_proxy_async();
    __syncwarp();
    if (t == 0) {
        ptx::cp_async_bulk_tensor_2d_store(&map, x, y, ptx::shared_address(s));
        ptx::cp_async_bulk_commit_group();
        if (bug == 2) s[0] = 1;
        if (bug != 3) ptx::cp_async_bulk_wait_group_read<0>();
    }
}
static void tensor_stores() {
    std::vector<char> v(1024), got(128 * 40);
    for (size_t i = 0; i < v.size(); i++) v[i] = (char)hash((unsigned)i);
    Device<char> in(v.data(), v.size(), "in"), out(got.size(), "out");
    simt::fill(out.p, 0, got.size());
    CUtensorMap map;
    CU_ASSERT_PTR_NULL(simt::encode_tensor_map(&map, out.p, 2, 60, 40, 128, 32, 16, 64));
    Config c{1, 32};
    CU_ASSERT(clean("k_tensor_store", c, k_tensor_store, 0, map, 40, 30, (const char *)in.p)); /* beyond both edges: clipped */
    simt::copy_out(got.data(), out.p, got.size());
    int wrong = 0;
    for (int r = 0; r < 40; r++)
        for (int b = 0; b < 128; b++) {
            bool inside = r >= 30 && b >= 80 && b < 120;
            wrong += got[(size_t)(r * 128 + b)] != (inside ? v[(size_t)((r - 30) * 64 + b - 80)] : 0);
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught(1, Check::MissingFence, "fence.proxy.async", "k_tensor_store", c, k_tensor_store, map, 0, 0, (const char *)in.p));
    CU_ASSERT(caught(2, Check::AsyncHazard, "still reads", "k_tensor_store", c, k_tensor_store, map, 0, 0, (const char *)in.p));
    CU_ASSERT(caught(3, Check::UnwaitedCopy, "tensor store", "k_tensor_store", c, k_tensor_store, map, 0, 0, (const char *)in.p));
}

/* --- both together: tiles by tensor copy, swizzled, into wgmma with both kinds of descriptor --- */

static void k_tma_wgmma(int bug, const CUtensorMap map_a, const CUtensorMap map_b, float *out) {
    /* D[64][64] = A[64][64] B[64][64]: A row-major is K-major; B row-major [k][n] is MN-major */
    FB_SHARED_ALIGNED(char, a, [8192], 1024);
    FB_SHARED_ALIGNED(char, b, [8192], 1024);
    FB_SHARED_ALIGNED(uint64_t, bar, [1], 8);
    uint32_t full = ptx::shared_address(bar), sa = ptx::shared_address(a), sb = ptx::shared_address(b);
    unsigned t = threadIdx.x;
    if (t == 0) {
        ptx::mbarrier_init(full, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(full, 16384);
        ptx::cp_async_bulk_tensor_2d_load(sa, &map_a, 0, 0, full);
        ptx::cp_async_bulk_tensor_2d_load_hint(sb, &map_b, 0, 0, full, 0);
    }
    __syncthreads();
    if (bug != 1) ptx::mbarrier_wait_parity(full, 0);
    float d[32];
    ptx::wgmma_fence();
    for (unsigned k = 0; k < 4; k++) /* 16 of K: 32 bytes on in A, 16 rows on in B */
        ptx::wgmma_bf16<64, ptx::Major::K, ptx::Major::MN>(d, ptx::matrix_descriptor(sa + 32 * k, 16, 1024, ptx::Swizzle::B128),
                                                          ptx::matrix_descriptor(sb + 2048 * k, 8192, 1024, ptx::Swizzle::B128), k != 0);
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
    for (unsigned i = 0; i < 32; i++)
        out[(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + t % 4 * 2 + i % 2] = d[i];
    if (bug == 1) ptx::mbarrier_wait_parity(full, 0);
}
static void tensor_copy_feeds_wgmma() {
    std::vector<uint16_t> a(4096), b(4096);
    for (unsigned i = 0; i < 4096; i++) {
        a[i] = encode16(small_integer(i), false);
        b[i] = encode16(small_integer(i + 5000), false);
    }
    Device<uint16_t> da(a.data(), 4096, "a"), db(b.data(), 4096, "b");
    Device<float> out(4096, "out");
    CUtensorMap ma, mb;
    CU_ASSERT_PTR_NULL(simt::encode_tensor_map(&ma, da.p, 2, 64, 64, 128, 64, 64, 128));
    CU_ASSERT_PTR_NULL(simt::encode_tensor_map(&mb, db.p, 2, 64, 64, 128, 64, 64, 128));
    Config c{1, 128};
    CU_ASSERT(clean("k_tma_wgmma", c, k_tma_wgmma, 0, ma, mb, out.p));
    std::vector<float> got(4096);
    simt::copy_out(got.data(), out.p, 16384);
    int wrong = 0;
    for (unsigned i = 0; i < 64; i++)
        for (unsigned j = 0; j < 64; j++) {
            float s = 0;
            for (unsigned k = 0; k < 64; k++) s += small_integer(i * 64 + k) * small_integer(5000 + k * 64 + j);
            wrong += s != got[i * 64 + j];
        }
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(caught_as(false, 1, Check::AsyncHazard, "still writes", "k_tma_wgmma", c, k_tma_wgmma, ma, mb, out.p));
}

static const SimtCase cases[] = {
    {"tensor loads: swizzles, edges, element sizes", tensor_loads},
    {"tensor copies: planted bugs, bad maps", tensor_bugs},
    {"tensor stores", tensor_stores},
    {"tensor copies feed wgmma", tensor_copy_feeds_wgmma},
};
static SimtSuite suite("simt ptx tensor", cases);
