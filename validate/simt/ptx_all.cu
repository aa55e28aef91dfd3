/* ptx_all.cu — every wrapper of kernels/cuda/ptx.cuh once, so that ptxas sees every asm statement and both headers are held
 * to the same names.  make check-ptx; nothing here is run. */
#ifndef __CUDACC__
#include "simt.h"
#endif
#include "kernels/cuda/tensor_map.cuh"

__global__ void ptx_sm80(const void *in, uint32_t *out, uint32_t s, uint32_t n) {
    uint64_t policy = ptx::createpolicy_evict_first() ^ ptx::createpolicy_evict_last();
    out[0] = ptx::lop3<0xe8>(s, n, s + n) + ptx::prmt(s, n, 0x7531) + ptx::cvt_rn_bf16x2(1.0f, (float)s) +
             ptx::cvt_rn_f16x2(1.0f, (float)s) + ptx::shared_address(in) + (unsigned)(ptx::rcp_approx((float)s) + ptx::rsqrt_approx((float)n));
    ptx::cp_async_4(s, in);
    ptx::cp_async_8(s, in);
    ptx::cp_async_16(s, in);
    ptx::cp_async_16_ca(s, in);
    ptx::cp_async_4_zfill(s, in, n);
    ptx::cp_async_8_zfill(s, in, n);
    ptx::cp_async_16_zfill(s, in, n);
    ptx::cp_async_16_hint(s, in, policy);
    ptx::cp_async_16_zfill_hint(s, in, 8, policy);
    ptx::cp_async_commit_group();
    ptx::cp_async_wait_group<2>();
    ptx::cp_async_wait_all();
    ptx::cp_async_mbarrier_arrive_noinc(s);
    uint32_t w1[1], w2[2], w4[4];
    ptx::ldmatrix_x1(w1, s);
    ptx::ldmatrix_x2(w2, s);
    ptx::ldmatrix_x4(w4, s);
    ptx::ldmatrix_x1_trans(w1, s + w1[0]);
    ptx::ldmatrix_x2_trans(w2, s + w2[0]);
    ptx::ldmatrix_x4_trans(w4, s + w4[0]);
    float d[4] = {};
    ptx::mma_m16n8k16_bf16(d, w4, w2);
    ptx::mma_m16n8k16_f16(d, w4, w2);
    ptx::mma_m16n8k8_bf16(d, w2, w1);
    ptx::mma_m16n8k8_f16(d, w2, w1);
    for (int i = 0; i < 4; i++) ((float *)out)[i + 1] = d[i];
    ptx::bar_arrive(1, 64);
    ptx::bar_sync(2, 64);
    ptx::store_16_streaming(out + 8, ptx::load_16_hint(in, policy));
    ptx::store_16_streaming(out + 12, ptx::load_16_streaming(in));
    out[16] = ptx::load_shared_4(s | 4);
    ptx::prefetch_l2(in);
}

#ifdef FB_PTX_SM90
__global__ void ptx_sm90(const __grid_constant__ CUtensorMap map, void *global, uint32_t *out, uint32_t s, uint32_t bar) {
    ptx::mbarrier_init(bar, 3);
    ptx::fence_mbarrier_init();
    ptx::fence_proxy_async();
    ptx::mbarrier_arrive(bar);
    ptx::mbarrier_arrive_expect_tx(bar, 64);
    ptx::mbarrier_expect_tx(bar, 64);
    ptx::mbarrier_arrive_cluster(ptx::mapa(bar, 1));
    ptx::mbarrier_arrive_remote(ptx::mapa(bar, 1));
    out[0] = ptx::mbarrier_test_wait_parity(bar, 0) + ptx::mbarrier_try_wait_parity(bar, 0);
    ptx::mbarrier_wait_parity(bar, 1);
    ptx::mbarrier_wait_parity_cluster(bar, 0);
    ptx::cp_async_bulk_load(s, global, 64, bar);
    ptx::cp_async_bulk_load_hint(s, global, 64, bar, ptx::createpolicy_evict_first());
    ptx::cp_async_bulk_load_multicast(s, global, 64, bar, 3);
    ptx::cp_async_bulk_store(global, s, 64);
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group<0>();
    ptx::cp_async_bulk_wait_group_read<1>();
    ptx::cp_async_bulk_prefetch_l2(global, 64);
    ptx::prefetch_tensormap(&map);
    ptx::cp_async_bulk_tensor_2d_load(s, &map, 1, 2, bar);
    ptx::cp_async_bulk_tensor_2d_load_hint(s, &map, 1, 2, bar, ptx::createpolicy_evict_first());
    ptx::cp_async_bulk_tensor_2d_load_multicast(s, &map, 1, 2, bar, 3);
    ptx::cp_async_bulk_tensor_2d_store(&map, 1, 2, s);
    uint32_t w1[1] = {s}, w2[2] = {s, s}, w4[4] = {s, s, s, s};
    ptx::stmatrix_x1(s, w1);
    ptx::stmatrix_x2(s, w2);
    ptx::stmatrix_x4(s, w4);
    ptx::stmatrix_x1_trans(s, w1);
    ptx::stmatrix_x2_trans(s, w2);
    ptx::stmatrix_x4_trans(s, w4);
    ptx::cluster_arrive();
    ptx::cluster_wait();
    ptx::st_shared_cluster(ptx::mapa(s, 1), ptx::ld_shared_cluster(s) + ptx::cluster_rank() + ptx::cluster_size());
    FB_SHARED(uint32_t, word, [1]);
    *ptx::map_shared_rank(&word[0], 1) = ptx::elect_sync(~0u);
    ptx::griddepcontrol_wait();
    ptx::griddepcontrol_launch_dependents();
    ptx::mbarrier_inval(bar);
}
#endif

#if defined(FB_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <int N> __device__ void widths(float *out, uint64_t a, uint64_t b, const uint32_t (&r)[4]) {
    if constexpr (N > 8) widths<N - 8>(out, a, b, r);
    float d[N / 2];
    for (int i = 0; i < N / 2; i++) d[i] = out[i];
    ptx::wgmma_fence();
    ptx::wgmma_bf16<N>(d, a, b, 0);
    ptx::wgmma_f16<N, ptx::Major::MN, ptx::Major::MN>(d, a, b, 1);
    ptx::wgmma_fence(); /* or ptxas says that it puts one here: A's registers */
    ptx::wgmma_bf16_rs<N>(d, r, b, 1);
    ptx::wgmma_fence();
    ptx::wgmma_f16_rs<N, ptx::Major::MN>(d, r, b, 1);
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
    for (int i = 0; i < N / 2; i++) ptx::wgmma_fence_operand(d[i]);
    for (int i = 0; i < N / 2; i++) out[i] = d[i];
}
#endif
#if defined(FB_SIMT) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
__global__ void __launch_bounds__(128) ptx_sm90a(float *out, uint32_t s) {
#if defined(FB_SIMT) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    ptx::setmaxnreg_inc<240>();
    uint32_t r[4] = {s, s, s, s};
    ptx::wgmma_fence_operand(r[0]);
    uint64_t d = ptx::matrix_descriptor(s, 16, 1024, ptx::Swizzle::B128);
    widths<256>(out, d, d, r);
    ptx::setmaxnreg_dec<40>();
#endif
}
#endif

const char *ptx_all_encode(CUtensorMap *map, const void *p) { return ptx::encode_tensor_map(map, p, 2, 64, 64, 128, 64, 64, 128); }
