/* ptx.h — kernels/cuda/ptx.cuh for the executor: the same names, each instruction carried out by ptx_*.cpp.
 *
 * Fragments travel by value, not by reference: an array whose address reaches another file would be announced at every
 * access by the compiler, and a GEMM's accumulators would cost more than its products.  wgmma is the exception, because
 * its accumulators are written after the call returns; there the announcements are what catches a use before the wait.
 */
#ifndef SIMT_PTX_H
#define SIMT_PTX_H

#include "simt.h"

/* Opaque, as NVIDIA's: filled by ptx::encode_tensor_map (kernels/cuda/tensor_map.cuh). */
struct alignas(64) CUtensorMap {
    uint64_t opaque[16];
};

namespace simt {

template <int N> struct Words { uint32_t w[N]; };
struct Quad { float d[4]; };
enum class MmaType { Bf16, F16 };

Quad mma_k16(Quad d, Words<4> a, Words<2> b, MmaType, Site); /* ptx_mma.cpp */
Quad mma_k8(Quad d, Words<2> a, Words<1> b, MmaType, Site);
Words<4> ldmatrix(uint32_t row, int matrices, bool trans, Site);
void stmatrix(uint32_t row, Words<4> values, int matrices, bool trans, Site);

void cp_async(uint32_t dst, const void *src, uint32_t bytes, uint32_t src_bytes, Site); /* ptx_copy.cpp */
void cp_async_commit();
void cp_async_wait(unsigned leave, bool all);
void cp_async_arrive(uint32_t bar, Site);

void mbarrier_init(uint32_t bar, uint32_t arrivals, Site); /* ptx_mbarrier.cpp */
void mbarrier_inval(uint32_t bar, Site);
void mbarrier_arrive(uint32_t bar, uint32_t expect_bytes, bool remote, Site);
void mbarrier_expect(uint32_t bar, uint32_t bytes, Site);
bool mbarrier_test(uint32_t bar, uint32_t parity, bool may_wait, Site);
void fence_mbarrier(Site);
void fence_proxy(Site);

void bulk_load(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, int mask, Site); /* ptx_bulk.cpp; mask < 0: own block */
void bulk_store(void *dst, uint32_t src, uint32_t bytes, Site);
void tensor_load(uint32_t dst, const CUtensorMap *, int x, int y, uint32_t bar, int mask, Site);
void tensor_store(const CUtensorMap *, int x, int y, uint32_t src, Site);
void bulk_commit();
void bulk_wait(unsigned leave, bool only_reads);
const char *encode_tensor_map(CUtensorMap *, const void *base, unsigned element_bytes, uint64_t columns, uint64_t rows,
                              uint64_t row_bytes, uint32_t box_columns, uint32_t box_rows, unsigned swizzle_bytes);

struct WgmmaCall {
    float *d;
    const uint32_t *a_registers; /* null: a is a descriptor */
    uint64_t a, b;
    unsigned n;
    MmaType type;
    bool a_mn, b_mn, accumulate;
};
void wgmma(const WgmmaCall &, Site); /* ptx_wgmma.cpp */
void wgmma_fence(Site);
void wgmma_commit(Site);
void wgmma_wait(unsigned leave, Site);

uint32_t cluster_rank(); /* ptx_misc.cpp */
uint32_t cluster_size();
uint32_t map_address(uint32_t address, uint32_t rank, Site);
void *map_pointer(const void *, uint32_t rank, Site);
bool elect(uint32_t mask, Site);
void set_max_registers(unsigned registers, bool increase, Site);

} // namespace simt

#define FB_PTX static inline __attribute__((always_inline, unused))
#define FB_PTX_SM90 1
#define SIMT_SITE simt::Site s_ = simt::Site::here()

namespace ptx {

FB_PTX uint32_t shared_address(const void *p) { return simt::shared_address(p); }
FB_PTX uint32_t load_shared_4(uint32_t address) { return *(const uint32_t *)simt::shared_pointer(address); }

/* --- bits and conversions --- */

template <int LUT> FB_PTX uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (int i = 0; i < 8; i++) /* bit i of the table: the value for (a, b, c) = the bits of i */
        if (LUT >> i & 1) d |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return d;
}
FB_PTX uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t bytes = __byte_perm(a, b, selector);
    for (int i = 0; i < 4; i++) /* a nibble's top bit: the byte's sign bit, eight times */
        if (selector >> (4 * i + 3) & 1) bytes = (bytes & ~(255u << (8 * i))) | (bytes >> (8 * i + 7) & 1 ? 255u << (8 * i) : 0);
    return bytes;
}
FB_PTX float rcp_approx(float x) { return 1.0f / x; }
FB_PTX float rsqrt_approx(float x) { return (float)(1.0 / __builtin_sqrt((double)x)); }
FB_PTX uint32_t cvt_rn_bf16x2(float hi, float lo) {
    return (uint32_t)simt::float_to_bf16(hi) << 16 | simt::float_to_bf16(lo);
}
FB_PTX uint32_t cvt_rn_f16x2(float hi, float lo) {
    return (uint32_t)simt::float_to_fp16(hi) << 16 | simt::float_to_fp16(lo);
}

/* --- cp.async --- */

FB_PTX void cp_async_4(uint32_t dst, const void *src, SIMT_SITE) { simt::cp_async(dst, src, 4, 4, s_); }
FB_PTX void cp_async_8(uint32_t dst, const void *src, SIMT_SITE) { simt::cp_async(dst, src, 8, 8, s_); }
FB_PTX void cp_async_16_ca(uint32_t dst, const void *src, SIMT_SITE) { simt::cp_async(dst, src, 16, 16, s_); }
FB_PTX void cp_async_16(uint32_t dst, const void *src, SIMT_SITE) { simt::cp_async(dst, src, 16, 16, s_); }
FB_PTX void cp_async_4_zfill(uint32_t dst, const void *src, uint32_t n, SIMT_SITE) { simt::cp_async(dst, src, 4, n, s_); }
FB_PTX void cp_async_8_zfill(uint32_t dst, const void *src, uint32_t n, SIMT_SITE) { simt::cp_async(dst, src, 8, n, s_); }
FB_PTX void cp_async_16_zfill(uint32_t dst, const void *src, uint32_t n, SIMT_SITE) { simt::cp_async(dst, src, 16, n, s_); }
FB_PTX void cp_async_16_hint(uint32_t dst, const void *src, uint64_t, SIMT_SITE) { simt::cp_async(dst, src, 16, 16, s_); }
FB_PTX void cp_async_16_zfill_hint(uint32_t dst, const void *src, uint32_t n, uint64_t, SIMT_SITE) {
    simt::cp_async(dst, src, 16, n, s_);
}
FB_PTX void cp_async_commit_group() { simt::cp_async_commit(); }
template <int N> FB_PTX void cp_async_wait_group() { simt::cp_async_wait(N, false); }
FB_PTX void cp_async_wait_all() { simt::cp_async_wait(0, true); }
FB_PTX void cp_async_mbarrier_arrive_noinc(uint32_t bar, SIMT_SITE) { simt::cp_async_arrive(bar, s_); }

/* --- ldmatrix, stmatrix, mma.sync --- */

#define SIMT_LDMATRIX(NAME, N, TRANS)                                       \
    FB_PTX void NAME(uint32_t (&d)[N], uint32_t row, SIMT_SITE) {           \
        simt::Words<4> v = simt::ldmatrix(row, N, TRANS, s_);               \
        for (int i = 0; i < N; i++) d[i] = v.w[i];                          \
    }
#define SIMT_STMATRIX(NAME, N, TRANS)                                       \
    FB_PTX void NAME(uint32_t row, const uint32_t (&s)[N], SIMT_SITE) {     \
        simt::Words<4> v = {};                                              \
        for (int i = 0; i < N; i++) v.w[i] = s[i];                          \
        simt::stmatrix(row, v, N, TRANS, s_);                               \
    }
SIMT_LDMATRIX(ldmatrix_x1, 1, false)
SIMT_LDMATRIX(ldmatrix_x2, 2, false)
SIMT_LDMATRIX(ldmatrix_x4, 4, false)
SIMT_LDMATRIX(ldmatrix_x1_trans, 1, true)
SIMT_LDMATRIX(ldmatrix_x2_trans, 2, true)
SIMT_LDMATRIX(ldmatrix_x4_trans, 4, true)
SIMT_STMATRIX(stmatrix_x1, 1, false)
SIMT_STMATRIX(stmatrix_x2, 2, false)
SIMT_STMATRIX(stmatrix_x4, 4, false)
SIMT_STMATRIX(stmatrix_x1_trans, 1, true)
SIMT_STMATRIX(stmatrix_x2_trans, 2, true)
SIMT_STMATRIX(stmatrix_x4_trans, 4, true)
#undef SIMT_LDMATRIX
#undef SIMT_STMATRIX

#define SIMT_MMA_K16(NAME, TYPE)                                                                              \
    FB_PTX void NAME(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_SITE) {              \
        simt::Quad q = simt::mma_k16(simt::Quad{{d[0], d[1], d[2], d[3]}}, simt::Words<4>{{a[0], a[1], a[2], a[3]}}, \
                                     simt::Words<2>{{b[0], b[1]}}, simt::MmaType::TYPE, s_);                  \
        for (int i = 0; i < 4; i++) d[i] = q.d[i];                                                            \
    }
#define SIMT_MMA_K8(NAME, TYPE)                                                                               \
    FB_PTX void NAME(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], SIMT_SITE) {              \
        simt::Quad q = simt::mma_k8(simt::Quad{{d[0], d[1], d[2], d[3]}}, simt::Words<2>{{a[0], a[1]}},       \
                                    simt::Words<1>{{b[0]}}, simt::MmaType::TYPE, s_);                         \
        for (int i = 0; i < 4; i++) d[i] = q.d[i];                                                            \
    }
SIMT_MMA_K16(mma_m16n8k16_bf16, Bf16)
SIMT_MMA_K16(mma_m16n8k16_f16, F16)
SIMT_MMA_K8(mma_m16n8k8_bf16, Bf16)
SIMT_MMA_K8(mma_m16n8k8_f16, F16)
#undef SIMT_MMA_K16
#undef SIMT_MMA_K8

/* --- named barriers; cache hints, which change nothing here --- */

FB_PTX void bar_sync(unsigned id, unsigned threads, SIMT_SITE) { simt::named_barrier(id, threads, true, s_); }
FB_PTX void bar_arrive(unsigned id, unsigned threads, SIMT_SITE) { simt::named_barrier(id, threads, false, s_); }
FB_PTX uint64_t createpolicy_evict_first() { return 1; }
FB_PTX uint64_t createpolicy_evict_last() { return 2; }
FB_PTX uint4 load_16_hint(const void *p, uint64_t) { return *(const uint4 *)p; }
FB_PTX uint4 load_16_streaming(const void *p) { return *(const uint4 *)p; }
FB_PTX void store_16_streaming(void *p, uint4 v) { *(uint4 *)p = v; }
FB_PTX void prefetch_l2(const void *) {}

/* --- mbarrier and fences --- */

FB_PTX void mbarrier_init(uint32_t bar, uint32_t arrivals, SIMT_SITE) { simt::mbarrier_init(bar, arrivals, s_); }
FB_PTX void mbarrier_inval(uint32_t bar, SIMT_SITE) { simt::mbarrier_inval(bar, s_); }
FB_PTX void mbarrier_arrive(uint32_t bar, SIMT_SITE) { simt::mbarrier_arrive(bar, 0, false, s_); }
FB_PTX void mbarrier_arrive_expect_tx(uint32_t bar, uint32_t bytes, SIMT_SITE) {
    simt::mbarrier_arrive(bar, bytes, false, s_);
}
FB_PTX void mbarrier_expect_tx(uint32_t bar, uint32_t bytes, SIMT_SITE) { simt::mbarrier_expect(bar, bytes, s_); }
FB_PTX void mbarrier_arrive_cluster(uint32_t bar, SIMT_SITE) { simt::mbarrier_arrive(bar, 0, true, s_); }
FB_PTX void mbarrier_arrive_remote(uint32_t bar, SIMT_SITE) { simt::mbarrier_arrive(bar, 0, true, s_); }
FB_PTX bool mbarrier_test_wait_parity(uint32_t bar, uint32_t parity, SIMT_SITE) {
    return simt::mbarrier_test(bar, parity, false, s_);
}
FB_PTX bool mbarrier_try_wait_parity(uint32_t bar, uint32_t parity, SIMT_SITE) {
    return simt::mbarrier_test(bar, parity, true, s_);
}
FB_PTX void mbarrier_wait_parity(uint32_t bar, uint32_t parity, SIMT_SITE) {
    while (!simt::mbarrier_test(bar, parity, true, s_)) {}
}
FB_PTX void mbarrier_wait_parity_cluster(uint32_t bar, uint32_t parity, SIMT_SITE) {
    while (!simt::mbarrier_test(bar, parity, true, s_)) {}
}
FB_PTX void fence_mbarrier_init(SIMT_SITE) { simt::fence_mbarrier(s_); }
FB_PTX void fence_proxy_async(SIMT_SITE) { simt::fence_proxy(s_); }

/* --- bulk and tensor copies --- */

FB_PTX void cp_async_bulk_load(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, SIMT_SITE) {
    simt::bulk_load(dst, src, bytes, bar, -1, s_);
}
FB_PTX void cp_async_bulk_load_hint(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, uint64_t, SIMT_SITE) {
    simt::bulk_load(dst, src, bytes, bar, -1, s_);
}
FB_PTX void cp_async_bulk_load_multicast(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, uint16_t mask,
                                         SIMT_SITE) {
    simt::bulk_load(dst, src, bytes, bar, mask, s_);
}
FB_PTX void cp_async_bulk_store(void *dst, uint32_t src, uint32_t bytes, SIMT_SITE) { simt::bulk_store(dst, src, bytes, s_); }
FB_PTX void cp_async_bulk_commit_group() { simt::bulk_commit(); }
template <int N> FB_PTX void cp_async_bulk_wait_group() { simt::bulk_wait(N, false); }
template <int N> FB_PTX void cp_async_bulk_wait_group_read() { simt::bulk_wait(N, true); }
FB_PTX void cp_async_bulk_prefetch_l2(const void *, uint32_t) {}
FB_PTX void cp_async_bulk_tensor_2d_load(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar, SIMT_SITE) {
    simt::tensor_load(dst, map, x, y, bar, -1, s_);
}
FB_PTX void cp_async_bulk_tensor_2d_load_hint(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar, uint64_t,
                                              SIMT_SITE) {
    simt::tensor_load(dst, map, x, y, bar, -1, s_);
}
FB_PTX void cp_async_bulk_tensor_2d_load_multicast(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar,
                                                   uint16_t mask, SIMT_SITE) {
    simt::tensor_load(dst, map, x, y, bar, mask, s_);
}
FB_PTX void cp_async_bulk_tensor_2d_store(const CUtensorMap *map, int x, int y, uint32_t src, SIMT_SITE) {
    simt::tensor_store(map, x, y, src, s_);
}
FB_PTX void prefetch_tensormap(const CUtensorMap *) {}

/* --- clusters, warps, grids --- */

FB_PTX uint32_t cluster_rank() { return simt::cluster_rank(); }
FB_PTX uint32_t cluster_size() { return simt::cluster_size(); }
FB_PTX void cluster_arrive(SIMT_SITE) { simt::cluster_arrive(s_); }
FB_PTX void cluster_wait(SIMT_SITE) { simt::cluster_wait(s_); }
FB_PTX uint32_t mapa(uint32_t address, uint32_t rank, SIMT_SITE) { return simt::map_address(address, rank, s_); }
template <class T> FB_PTX T *map_shared_rank(T *p, uint32_t rank, SIMT_SITE) { return (T *)simt::map_pointer(p, rank, s_); }
FB_PTX uint32_t ld_shared_cluster(uint32_t address) { return *(const uint32_t *)simt::shared_pointer(address); }
FB_PTX void st_shared_cluster(uint32_t address, uint32_t v) { *(uint32_t *)simt::shared_pointer(address) = v; }
FB_PTX bool elect_sync(uint32_t mask, SIMT_SITE) { return simt::elect(mask, s_); }
FB_PTX void griddepcontrol_wait() {}
FB_PTX void griddepcontrol_launch_dependents() {}
template <int REGISTERS> FB_PTX void setmaxnreg_inc(SIMT_SITE) { simt::set_max_registers(REGISTERS, true, s_); }
template <int REGISTERS> FB_PTX void setmaxnreg_dec(SIMT_SITE) { simt::set_max_registers(REGISTERS, false, s_); }

/* --- wgmma; the descriptor's picture is in ptx_wgmma.cuh --- */

enum class Swizzle : unsigned { None = 0, B128 = 1, B64 = 2, B32 = 3 };
enum class Major { K = 0, MN = 1 };
FB_PTX uint64_t matrix_descriptor(uint32_t address, uint32_t leading_bytes, uint32_t stride_bytes, Swizzle swizzle) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((leading_bytes & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride_bytes & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
}
FB_PTX void wgmma_fence(SIMT_SITE) { simt::wgmma_fence(s_); }
FB_PTX void wgmma_commit_group(SIMT_SITE) { simt::wgmma_commit(s_); }
template <int N> FB_PTX void wgmma_wait_group(SIMT_SITE) { simt::wgmma_wait(N, s_); }
FB_PTX void wgmma_fence_operand(float &) {}
FB_PTX void wgmma_fence_operand(uint32_t &) {}

#define SIMT_WGMMA(NAME, TYPE)                                                                                   \
    template <int N, Major A = Major::K, Major B = Major::K>                                                     \
    FB_PTX void NAME(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate, SIMT_SITE) {                     \
        static_assert(N >= 8 && N <= 256 && N % 8 == 0, "wgmma: N is a multiple of 8 up to 256");                \
        simt::wgmma(simt::WgmmaCall{d, nullptr, a, b, N, simt::MmaType::TYPE, A == Major::MN, B == Major::MN,    \
                                    accumulate != 0}, s_);                                                       \
    }                                                                                                            \
    template <int N, Major B = Major::K>                                                                         \
    FB_PTX void NAME##_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate, SIMT_SITE) {    \
        static_assert(N >= 8 && N <= 256 && N % 8 == 0, "wgmma: N is a multiple of 8 up to 256");                \
        uint32_t copy[4] = {a[0], a[1], a[2], a[3]};                                                             \
        simt::wgmma(simt::WgmmaCall{d, copy, 0, b, N, simt::MmaType::TYPE, false, B == Major::MN,                \
                                    accumulate != 0}, s_);                                                       \
    }
SIMT_WGMMA(wgmma_bf16, Bf16)
SIMT_WGMMA(wgmma_f16, F16)
#undef SIMT_WGMMA

} // namespace ptx

#undef SIMT_SITE
#endif
