/* ptx_sm90.cuh — mbarriers, bulk and tensor copies, clusters and proxies.  Included by ptx.cuh; do not include alone. */
#ifdef FB_PTX_SM90
namespace ptx {

/* --- mbarrier: counts arrivals and bytes; a phase ends when both have come, and parity tells the phases apart.
 * 9.7.13 --- */

FB_PTX void mbarrier_init(uint32_t bar, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}
/* Before the bytes are used for anything else. */
FB_PTX void mbarrier_inval(uint32_t bar) { asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(bar) : "memory"); }
FB_PTX void mbarrier_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* The producer's arrival, which also announces the bytes that its copies will deliver. */
FB_PTX void mbarrier_arrive_expect_tx(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
FB_PTX void mbarrier_expect_tx(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
/* On another block of the cluster: `bar` comes from mapa.  Consumers free a buffer that was filled by multicast this way. */
FB_PTX void mbarrier_arrive_cluster(uint32_t bar) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* The same where nothing was stored that the other block should see: what wgmma has read may be overwritten.  The form above orders
 * the whole GPU's memory first (MEMBAR.ALL.GPU). */
FB_PTX void mbarrier_arrive_remote(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* True if the phase of this parity is over.  test returns at once; try may sleep for a while first, which spares issue slots. */
FB_PTX bool mbarrier_test_wait_parity(uint32_t bar, uint32_t parity) {
    uint32_t done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    return done;
}
FB_PTX bool mbarrier_try_wait_parity(uint32_t bar, uint32_t parity) {
    uint32_t done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    return done;
}
FB_PTX void mbarrier_wait_parity(uint32_t bar, uint32_t parity) {
    while (!mbarrier_try_wait_parity(bar, parity)) {}
}
/* Where blocks of the cluster have stored here before they arrived: plain waiting hears of its own block's stores alone. */
FB_PTX void mbarrier_wait_parity_cluster(uint32_t bar, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    } while (!done);
}

/* --- fences between proxies --------------------------------------------------------------------------------------- */

/* Makes initialised mbarriers visible to bulk copies and to the cluster.  9.7.13 */
FB_PTX void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/* Bulk copies and wgmma read shared memory through the async proxy, which does not see plain stores before this.  9.7.13 */
FB_PTX void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* --- bulk copies: one thread moves kilobytes; 16-byte aligned, multiples of 16 bytes.  9.7.9 --- */

FB_PTX void cp_async_bulk_load(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar) : "memory");
}
FB_PTX void cp_async_bulk_load_hint(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, uint64_t policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar), "l"(policy) : "memory");
}
/* To the same offset in every block of `mask`; each one's mbarrier at bar's offset counts the bytes: a tile that all blocks
 * of a cluster need crosses L2 once. */
FB_PTX void cp_async_bulk_load_multicast(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, uint16_t mask) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar), "h"(mask) : "memory");
}
/* Shared to global, completion by bulk groups of the issuing thread. */
FB_PTX void cp_async_bulk_store(void *dst, uint32_t src, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(dst), "r"(src), "r"(bytes) : "memory");
}
FB_PTX void cp_async_bulk_commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int N> FB_PTX void cp_async_bulk_wait_group() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"); }
/* Only the reads of shared memory are over: enough to reuse the buffer. */
template <int N> FB_PTX void cp_async_bulk_wait_group_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
FB_PTX void cp_async_bulk_prefetch_l2(const void *src, uint32_t bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(src), "r"(bytes));
}

/* --- 2-D tensor copies: a box of a matrix, swizzled on the way, zeros outside.  x counts elements along a row.  9.7.9 --- */

FB_PTX void cp_async_bulk_tensor_2d_load(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(dst),
                 "l"(map), "r"(x), "r"(y), "r"(bar) : "memory");
}
FB_PTX void cp_async_bulk_tensor_2d_load_hint(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar,
                                              uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(dst), "l"(map), "r"(x), "r"(y), "r"(bar), "l"(policy) : "memory");
}
FB_PTX void cp_async_bulk_tensor_2d_load_multicast(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar,
                                                   uint16_t mask) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(dst), "l"(map), "r"(x), "r"(y), "r"(bar), "h"(mask) : "memory");
}
FB_PTX void cp_async_bulk_tensor_2d_store(const CUtensorMap *map, int x, int y, uint32_t src) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(x),
                 "r"(y), "r"(src) : "memory");
}
/* The first copy would otherwise wait for the 128-byte map itself.  9.7.9 */
FB_PTX void prefetch_tensormap(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* --- stmatrix: the way back of ldmatrix, for epilogues that store whole rows.  9.7.14 --- */

FB_PTX void stmatrix_x1(uint32_t row, const uint32_t (&s)[1]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(row), "r"(s[0]) : "memory");
}
FB_PTX void stmatrix_x2(uint32_t row, const uint32_t (&s)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};" ::"r"(row), "r"(s[0]), "r"(s[1]) : "memory");
}
FB_PTX void stmatrix_x4(uint32_t row, const uint32_t (&s)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(s[0]), "r"(s[1]),
                 "r"(s[2]), "r"(s[3]) : "memory");
}
FB_PTX void stmatrix_x1_trans(uint32_t row, const uint32_t (&s)[1]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row), "r"(s[0]) : "memory");
}
FB_PTX void stmatrix_x2_trans(uint32_t row, const uint32_t (&s)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(row), "r"(s[0]), "r"(s[1])
                 : "memory");
}
FB_PTX void stmatrix_x4_trans(uint32_t row, const uint32_t (&s)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(s[0]), "r"(s[1]),
                 "r"(s[2]), "r"(s[3]) : "memory");
}

/* --- clusters: blocks on neighbouring SMs that read each other's shared memory --- */

/* Special registers, chapter 10. */
FB_PTX uint32_t cluster_rank() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
FB_PTX uint32_t cluster_size() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}
/* Split, so that work fits between; a block must not end while others may still reach into it.  9.7.13 */
FB_PTX void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
FB_PTX void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
/* The same offset in the block of that rank, as a shared::cluster address (9.7.9) or as a generic pointer. */
FB_PTX uint32_t mapa(uint32_t address, uint32_t rank) {
    uint32_t r;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
    return r;
}
template <class T> FB_PTX T *map_shared_rank(T *p, uint32_t rank) {
    uint64_t r;
    asm("mapa.u64 %0, %1, %2;" : "=l"(r) : "l"(p), "r"(rank));
    return (T *)r;
}
FB_PTX uint32_t ld_shared_cluster(uint32_t address) {
    uint32_t v;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
    return v;
}
FB_PTX void st_shared_cluster(uint32_t address, uint32_t v) {
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}

/* --- warps and grids --- */

/* One lane of the warp, chosen by the hardware: cheaper than lane == 0, and the compiler knows that it is one.  9.7.13 */
FB_PTX bool elect_sync(uint32_t mask) {
    uint32_t r;
    asm volatile("{\n.reg .pred p;\n"
                 "elect.sync _|p, %1;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(r) : "r"(mask));
    return r;
}
/* Programmatic dependent launch: the next kernel's prologue overlaps this one's tail.  9.7.13 */
FB_PTX void griddepcontrol_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
FB_PTX void griddepcontrol_launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

/* Registers move from the copying warps to the multiplying ones; a whole warpgroup each time.  9.7.19 */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(__CUDA_ARCH_SPECIFIC__) || \
    defined(__CUDA_ARCH_FAMILY_SPECIFIC__)
template <int REGISTERS> FB_PTX void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> FB_PTX void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
#endif

} // namespace ptx
#endif
