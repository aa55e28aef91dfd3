/* gpu_peers.c: dense products as contenders, and what bitsandbytes can be asked for (gpu_peers.h). */
#include "bench/gpu_peers.h"

#include <stdio.h>

static bool call_dense(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    gpu_dense *g = self;
    const gpu_case *c = &g->r.sets.job->c, base = gpu_base_case(c);
    gpu_case own = base;
    void *q[JOB_ROLES];
    memcpy(q, p, sizeof q);
    if (g->by == GPU_BY_DEQUANTIZED) own.op = GPU_DEQUANTIZE, q[JOB_OUT] = p[JOB_DENSE];
    if (g->by != GPU_BY_DENSE && job_call(&g->ctx, &own, q) != FB_OK) return snprintf(why, TIMING_WHY, "%s", g->ctx.message), false;
    if (g->by != GPU_BY_OURS && !cublas_product(g->b, &base, p[JOB_A], p[JOB_DENSE], p[JOB_OUT], why)) return false;
    return !gpu_is_lora(c->op) || cublas_adapter(g->b, c, p, why);
}

bool gpu_dense_make(gpu_dense *p, cublas *b, device *d, const gpu_job *j, fb_backend backend, gpu_product by, char why[TIMING_WHY])
{
    static const unsigned all = JOB_BIT(JOB_DENSE) | JOB_BIT(JOB_A) | JOB_BIT(JOB_OUT) | JOB_BIT(JOB_X) | JOB_BIT(JOB_U) | JOB_BIT(JOB_LORA_A) |
                                JOB_BIT(JOB_LORA_B) | JOB_BIT(JOB_DA) | JOB_BIT(JOB_DB) | JOB_BIT(JOB_DU);
    unsigned roles = by == GPU_BY_DENSE ? all : by == GPU_BY_DEQUANTIZED ? all | job_roles(j) : JOB_BIT(JOB_DU) | job_roles(j);
    const gpu_case base = gpu_base_case(&j->c);
    for (int r = 0; r < JOB_ROLES; r++)
        if (!j->b[r].bytes) roles &= ~JOB_BIT(r);
    *p = (gpu_dense){.r = {.call = call_dense, .self = p}, .b = b, .by = by};
    fb_context_init(&p->ctx, backend);
    p->ctx.stream = d->stream;
    if (!gpu_sets_make(&p->r.sets, d, j, roles, why)) return false;
    if (by != GPU_BY_OURS) return true;
    if (job_workspace(&p->ctx, &base, &p->ctx.workspace_bytes) != FB_OK) return snprintf(why, TIMING_WHY, "%s", p->ctx.message), false;
    if (p->ctx.workspace_bytes && !(p->ctx.workspace = d->alloc(d, p->ctx.workspace_bytes))) return snprintf(why, TIMING_WHY, "%.380s", d->why), false;
    return true;
}

void gpu_dense_free(gpu_dense *p)
{
    device *d = p->r.sets.d;
    if (d && p->ctx.workspace) d->release(d, p->ctx.workspace);
    gpu_runner_free(&p->r);
}

/* Decoded weights that are made at every call are written and read again; so are the output and what is between the adapter's
 * launches, whose inputs are read once more. */
work_cost gpu_dense_cost(const gpu_dense *p)
{
    const gpu_job *j = p->r.sets.job;
    work_cost cost = job_cost(j, p->r.sets.roles);
    if (p->by == GPU_BY_DEQUANTIZED) cost.written += (double)j->b[JOB_DENSE].bytes;
    if (!gpu_is_lora(j->c.op)) return cost;
    const double out = (double)j->b[JOB_OUT].bytes, a = (double)j->b[JOB_A].bytes, u = (double)(j->b[JOB_DU].bytes + j->b[JOB_U].bytes);
    cost.read += out + u + a * (j->c.op == GPU_LORA ? 1 : 2);
    cost.written += out + (double)j->b[JOB_DU].bytes;
    return cost;
}

/* ---- bitsandbytes ------------------------------------------------------------------------------------------------------ */

bool gpu_peer_does(const gpu_case *c, char why[TIMING_WHY])
{
    const char *no = NULL;
    if (gpu_is_4bit(c->op) && c->format != FB_NF4 && c->format != FB_FP4) no = "it has only NF4 and FP4";
    else if (c->op == GPU_QUANTIZE && c->double_quant) no = "its second level of quantization is a chain of PyTorch operations";
    else if (gpu_is_lora(c->op)) no = "its layer with an adapter is a chain of PyTorch operations; dequantize+cublas is what it does";
    else if (c->op == GPU_GEMM_DX) no = "it has no fused backward; dequantize+cublas is what it does";
    else if (c->op == GPU_GEMM && (c->cols % 64 || c->cols % c->block_size)) no = "its product needs K to be a multiple of 64 and of the block size";
    else if (c->rows * c->cols >= (int64_t)1 << 31) no = "its element counts are 32-bit";
    if (no) snprintf(why, TIMING_WHY, "%s", no);
    return !no;
}

unsigned gpu_peer_roles(const gpu_job *j) { return job_roles(j) & ~JOB_BIT(JOB_ZEROS); }

bool gpu_peer_has_stream(gpu_op op) { return op == GPU_DEQUANTIZE || op == GPU_DEQUANTIZE8 || op == GPU_GEMM; }
