/* peers.h: what else does the same job, timed in the same rounds.
 *
 *   openblas              dense fp32: sgemm, at M = 1 sgemv, on the weights decoded beforehand
 *   dequantize+openblas   our dequantize to fp32, then that: what a program without a fused kernel does
 *   onednn                dense bf16: matmul on weights packed beforehand; bf16 cases, where the build found oneDNN
 *   bitsandbytes-cpu      its CPU library, in a process of its own (peer_client.c, peer_server.c)
 *
 * A peer that cannot do a case has no row for it; one that fails or computes
 * something else has a row that says so and no time. Neither fails the run.
 */
#ifndef FOURBIT_BENCH_PEERS_H
#define FOURBIT_BENCH_PEERS_H

#include "bench/work.h"

/* ---- OpenBLAS -------------------------------------------------------------------------- */

typedef struct dense_peer {
    work *w;
    ours *dequantize; /* NULL: the weights are dense from the start */
    float *scratch;   /* what it dequantizes into, at every call */
    float *out;
    int threads;
} dense_peer;

/* For FB_OP_GEMM and FB_OP_GEMM_DX. with: ours, on a work of the same case, to dequantize with; or NULL. */
bool dense_peer_init(dense_peer *p, work *w, ours *with, int threads, char why[TIMING_WHY]);
void dense_peer_free(dense_peer *p);
bool dense_peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]);
work_cost dense_peer_cost(const dense_peer *p);
const char *openblas_version(void);
void openblas_set_threads(int threads);

/* out [m, p] = a * op(weights [n, k]): gemm or gemm_dx, dense fp32. Shared by the peers. */
void dense_product(const fb_case *c, const float *a, const float *weights, float *out);

/* ---- oneDNN ------------------------------------------------------------------------------- */

typedef struct onednn_peer onednn_peer;

/* For FB_OP_GEMM and FB_OP_GEMM_DX in bf16. NULL with why. */
onednn_peer *onednn_peer_new(work *w, int threads, char how[TIMING_WHY], char why[TIMING_WHY]);
void onednn_peer_free(onednn_peer *q);
bool onednn_peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]);
const float *onednn_peer_out(const onednn_peer *q);
work_cost onednn_peer_cost(const work *w);
const char *onednn_version(void); /* NULL: built without */

/* ---- a library in a process of its own -------------------------------------------------------- */

typedef struct peer_process peer_process;

/* server: the program (fourbit-peer); library: what it loads. NULL with why. */
peer_process *peer_start(const char *server, const char *library, int threads, char why[TIMING_WHY]);
void peer_stop(peer_process *p);

/* Whether this peer has the operation, in this format; why says why not. */
bool peer_does(const fb_case *c, char why[TIMING_WHY]);

/* Sends it the case's data. how: what it does for this case, in words; fused: it
 * never writes the decoded weights. After a crash the process is started anew. */
bool peer_setup(peer_process *p, const work *w, char how[TIMING_WHY], bool *fused, char why[TIMING_WHY]);
bool peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]); /* contender.run */
/* Its output of the last run: c.dtype for dequantize, fp32 for products. */
bool peer_result(peer_process *p, void *out, size_t bytes, char why[TIMING_WHY]);
work_cost peer_cost(const work *w, bool fused);

/* A peer's output against ours, which has been checked: its own rounding is
 * allowed (fast-math, bf16 scales), another result is not. */
bool peer_output_right(const work *w, const void *out, char why[TIMING_WHY]);
enum { PEER_PRODUCT_PERCENT = 2 }; /* relative Frobenius distance of a product */

#endif
