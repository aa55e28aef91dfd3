/* gpu_peers.h: what else does the same on a GPU, timed in the same rounds.
 *
 *   cublas              dense product on decoded weights (bf16, fp16, fp32 as the case is)
 *   dequantize+cublas   our dequantize into a dense buffer at every call, then that: what a program without a fused kernel does
 *   gemm+cublas         LoRA's two alone: our gemm or gemm_dx, then cuBLAS for the adapter: a layer of separate launches
 *   bitsandbytes        its CUDA library, in a process of its own (fourbit-gpu-peer)
 */
#ifndef FOURBIT_BENCH_GPU_PEERS_H
#define FOURBIT_BENCH_GPU_PEERS_H

#include "bench/cublas.h"
#include "bench/gpu_time.h"

typedef enum gpu_product { /* where the product with W comes from */
    GPU_BY_DENSE = 0,   /* cuBLAS, on weights decoded beforehand */
    GPU_BY_DEQUANTIZED, /* cuBLAS, on weights that ours decodes at every call */
    GPU_BY_OURS         /* our fused kernel */
} gpu_product;

typedef struct gpu_dense {
    gpu_runner r;
    cublas *b;
    fb_context ctx;
    gpu_product by;
} gpu_dense;

/* For products; a LoRA layer's adapter is cuBLAS's in each of them. backend: ours. */
bool gpu_dense_make(gpu_dense *p, cublas *b, device *d, const gpu_job *j, fb_backend backend, gpu_product by, char why[TIMING_WHY]);
void gpu_dense_free(gpu_dense *p);
work_cost gpu_dense_cost(const gpu_dense *p);

/* Whether bitsandbytes has this operation as a C function; why says why not. */
bool gpu_peer_does(const gpu_case *c, char why[TIMING_WHY]);
/* Roles that it reads or writes: the same as ours, less what it leaves out. Both processes ask this. */
unsigned gpu_peer_roles(const gpu_job *j);
/* Its quantizers and optimizers work on the default stream, which cannot be recorded. */
bool gpu_peer_has_stream(gpu_op op);

#endif
