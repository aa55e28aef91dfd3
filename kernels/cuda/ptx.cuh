/* ptx.cuh — every asm statement of the project, one instruction each.
 *
 * Kernels call these and contain no PTX themselves, so that the executor (validate/simt/) can run the same source: there
 * this header is replaced by validate/simt/ptx.h, which has the same names.  The numbers are chapters
 * of the PTX ISA 9.0 (9.7.8 logic, 9.7.9 data movement, 9.7.13 synchronisation, 9.7.14 warp-level matrices, 9.7.15 wgmma,
 * 9.7.19 miscellaneous), whose sections are titled by instruction.
 *
 *   ptx.cuh         sm_80 and later: cp.async, ldmatrix, mma.sync, named barriers, cache policy, bit tricks
 *   ptx_sm90.cuh    sm_90 and later: mbarrier, bulk and tensor copies, clusters, stmatrix, proxies
 *   ptx_wgmma.cuh   sm_90a: warpgroup products
 *
 * Shared memory is named by its 32-bit address (shared_address), as the instructions take it: a generic pointer would cost
 * a conversion at every call that the compiler cannot always hoist.
 */
#ifndef FB_PTX_CUH
#define FB_PTX_CUH

#ifdef FB_SIMT
#include "../../validate/simt/ptx.h"
#else

#include <cstdint>
#include <cuda.h>
#include <cuda_runtime.h>

#define FB_PTX static __device__ __forceinline__
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define FB_PTX_SM90 1
#endif

namespace ptx {

FB_PTX uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* --- bits and conversions --------------------------------------------------------------------------------------- */

/* Any function of three bits in one issue slot; the compiler finds most, not all, of them.  LUT: apply the expression to
 * 0xf0, 0xcc, 0xaa.  9.7.8 */
template <int LUT> FB_PTX uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(LUT));
    return d;
}

/* Four bytes out of eight, by selector nibbles: a 16-entry table look-up without memory. A nibble's top bit asks for the byte's sign
 * bit, eight times (__byte_perm drops it).  9.7.9 */
FB_PTX uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
    return d;
}

/* Two roundings to nearest even in one instruction; `hi` goes to the upper half.  9.7.9 */
FB_PTX uint32_t cvt_rn_bf16x2(float hi, float lo) {
    uint32_t d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}
FB_PTX uint32_t cvt_rn_f16x2(float hi, float lo) {
    uint32_t d;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}

/* First guesses of 1/x and 1/sqrt(x), within 2^-22; of subnormal numbers nothing: for those who correct them and know their
 * range. What is rounded correctly spends half of its instructions on the other cases.  9.7.3 */
FB_PTX float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
FB_PTX float rsqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* --- cp.async: global to shared past the registers, so that loads of the next tile fly during this one.  9.7.9 --- */

/* .ca keeps the line in L1: for 4- and 8-byte pieces, which several threads take from one sector. */
FB_PTX void cp_async_4(uint32_t dst, const void *src) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(dst), "l"(src) : "memory");
}
FB_PTX void cp_async_8(uint32_t dst, const void *src) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(dst), "l"(src) : "memory");
}
FB_PTX void cp_async_16_ca(uint32_t dst, const void *src) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}
/* .cg goes past L1: tiles that nobody else on this SM reads again. */
FB_PTX void cp_async_16(uint32_t dst, const void *src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}
/* Copies src_bytes and fills the rest with zeros: tails without a branch; src must be valid only if src_bytes > 0. */
FB_PTX void cp_async_4_zfill(uint32_t dst, const void *src, uint32_t src_bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}
FB_PTX void cp_async_8_zfill(uint32_t dst, const void *src, uint32_t src_bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}
FB_PTX void cp_async_16_zfill(uint32_t dst, const void *src, uint32_t src_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}
/* With a cache policy: weights are read once, so they should not push activations out of L2. */
FB_PTX void cp_async_16_hint(uint32_t dst, const void *src, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "l"(policy) : "memory");
}
FB_PTX void cp_async_16_zfill_hint(uint32_t dst, const void *src, uint32_t src_bytes, uint64_t policy) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(dst), "l"(src), "r"(src_bytes), "l"(policy)
                 : "memory");
}
FB_PTX void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* All but the latest N of this thread's groups have landed.  Other threads' copies need a barrier on top. */
template <int N> FB_PTX void cp_async_wait_group() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
FB_PTX void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }
/* Arrives at an mbarrier when this thread's copies have landed, without waiting for them; counts against the barrier's
 * own expectation (.noinc), so initialise it with the number of copying threads.  9.7.13 */
FB_PTX void cp_async_mbarrier_arrive_noinc(uint32_t bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
}

/* --- ldmatrix: 8x8 matrices of 16-bit elements from shared memory into mma fragments, one row address a lane: replaces
 * four or eight narrow loads a lane, and its rows are free of bank conflicts if eight of them hit all banks.  9.7.14 --- */

FB_PTX void ldmatrix_x1(uint32_t (&d)[1], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(d[0]) : "r"(row) : "memory");
}
FB_PTX void ldmatrix_x2(uint32_t (&d)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "r"(row) : "memory");
}
FB_PTX void ldmatrix_x4(uint32_t (&d)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(row) : "memory");
}
/* Transposed: the operand lies the other way round in memory (backward passes). */
FB_PTX void ldmatrix_x1_trans(uint32_t (&d)[1], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(d[0]) : "r"(row) : "memory");
}
FB_PTX void ldmatrix_x2_trans(uint32_t (&d)[2], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(d[0]), "=r"(d[1]) : "r"(row) : "memory");
}
FB_PTX void ldmatrix_x4_trans(uint32_t (&d)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(row) : "memory");
}

/* --- mma.sync: D += A B on one warp, fp32 accumulators.  A is row-major 16 x k, B is k x 8 with each column's elements
 * adjacent, which is how a weight matrix [N, K] lies.  9.7.14 --- */

#define FB_MMA_K16(NAME, TYPE)                                                                                          \
    FB_PTX void NAME(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {                                   \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "                                     \
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                            \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                               \
    }
#define FB_MMA_K8(NAME, TYPE)                                                                                           \
    FB_PTX void NAME(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {                                   \
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE ".f32 "                                      \
                     "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"                                                     \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(b[0]));                                                                \
    }
FB_MMA_K16(mma_m16n8k16_bf16, "bf16")
FB_MMA_K16(mma_m16n8k16_f16, "f16")
FB_MMA_K8(mma_m16n8k8_bf16, "bf16")
FB_MMA_K8(mma_m16n8k8_f16, "f16")
#undef FB_MMA_K16
#undef FB_MMA_K8

/* --- named barriers: part of a block waits for another part (producer and consumer warps); 0 is __syncthreads' own,
 * `threads` counts whole warps.  9.7.13 --- */

FB_PTX void bar_sync(unsigned id, unsigned threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FB_PTX void bar_arrive(unsigned id, unsigned threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* 4 bytes by their shared address: for one that is put together by or.  9.7.9, ld */
FB_PTX uint32_t load_shared_4(uint32_t address) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}

/* --- cache policy: the roof at small M is DRAM, so weights must stream through L2 and activations must stay.  9.7.9 --- */

FB_PTX uint64_t createpolicy_evict_first() {
    uint64_t p;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(p));
    return p;
}
FB_PTX uint64_t createpolicy_evict_last() {
    uint64_t p;
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(p));
    return p;
}
/* 16 bytes of weights into registers, kept out of L1 and first to leave L2.  9.7.9 */
FB_PTX uint4 load_16_hint(const void *p, uint64_t policy) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p), "l"(policy));
    return v;
}
FB_PTX uint4 load_16_streaming(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
/* Results leave the SM for good: they need not displace weights.  9.7.9 */
FB_PTX void store_16_streaming(void *p, uint4 v) {
    asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}
/* 9.7.9, prefetch */
FB_PTX void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

} // namespace ptx

#include "ptx_sm90.cuh"
#include "ptx_wgmma.cuh"

#endif /* FB_SIMT */
#endif
