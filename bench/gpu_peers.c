/* gpu_peers.c: dense products as contenders, and what bitsandbytes can be asked for (gpu_peers.h). */
#include "bench/gpu_peers.h"

#include <stdio.h>

static bool call_dense(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    gpu_dense *g = self;
    const gpu_case *c = &g->r.sets.job->c;
    if (g->dequantizes) {
        gpu_case decode = *c;
        void *q[JOB_ROLES];
        memcpy(q, p, sizeof q);
        decode.op = GPU_DEQUANTIZE, q[JOB_OUT] = p[JOB_DENSE];
        if (job_call(&g->ctx, &decode, q) != FB_OK) return snprintf(why, TIMING_WHY, "%s", g->ctx.message), false;
    }
    return cublas_product(g->b, c, p[JOB_A], p[JOB_DENSE], p[JOB_OUT], why);
}

bool gpu_dense_make(gpu_dense *p, cublas *b, device *d, const gpu_job *j, fb_backend backend, bool dequantizes, char why[TIMING_WHY])
{
    unsigned roles = JOB_BIT(JOB_DENSE) | JOB_BIT(JOB_A) | JOB_BIT(JOB_OUT);
    *p = (gpu_dense){.r = {.call = call_dense, .self = p}, .b = b, .dequantizes = dequantizes};
    fb_context_init(&p->ctx, backend);
    p->ctx.stream = d->stream;
    return gpu_sets_make(&p->r.sets, d, j, dequantizes ? roles | job_roles(j) : roles, why);
}

void gpu_dense_free(gpu_dense *p) { gpu_runner_free(&p->r); }

/* The decoded weights are written and read again when they are made at every call. */
work_cost gpu_dense_cost(const gpu_dense *p)
{
    work_cost cost = job_cost(p->r.sets.job, p->r.sets.roles);
    if (p->dequantizes) cost.written += (double)p->r.sets.job->b[JOB_DENSE].bytes;
    return cost;
}

/* ---- bitsandbytes ------------------------------------------------------------------------------------------------------ */

bool gpu_peer_does(const gpu_case *c, char why[TIMING_WHY])
{
    const char *no = NULL;
    if (gpu_is_4bit(c->op) && c->format != FB_NF4 && c->format != FB_FP4) no = "it has only NF4 and FP4";
    else if (c->op == GPU_QUANTIZE && c->double_quant) no = "its second level of quantization is a chain of PyTorch operations";
    else if (c->op == GPU_GEMM_DX) no = "it has no fused backward; dequantize+cublas is what it does";
    else if (c->op == GPU_GEMM && (c->cols % 64 || c->cols % c->block_size)) no = "its product needs K to be a multiple of 64 and of the block size";
    else if (c->rows * c->cols >= (int64_t)1 << 31) no = "its element counts are 32-bit";
    if (no) snprintf(why, TIMING_WHY, "%s", no);
    return !no;
}

unsigned gpu_peer_roles(const gpu_job *j) { return job_roles(j) & ~JOB_BIT(JOB_ZEROS); }

bool gpu_peer_has_stream(gpu_op op) { return op == GPU_DEQUANTIZE || op == GPU_DEQUANTIZE8 || op == GPU_GEMM; }
