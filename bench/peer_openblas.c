/* peer_openblas.c: dense fp32 products, on weights decoded beforehand or at every call (peers.h). */
#include "bench/peers.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

const char *openblas_version(void) { return openblas_get_config(); }
void openblas_set_threads(int threads) { openblas_set_num_threads(threads); }

void dense_product(const fb_case *c, const float *a, const float *weights, float *out)
{
    int m = (int)c->m, n = (int)c->rows, k = (int)c->cols;
    if (c->op == FB_OP_GEMM && m == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, weights, k, a, 1, 0, out, 1);
    else if (c->op == FB_OP_GEMM)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a, k, weights, k, 0, out, n);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, k, n, 1, a, n, weights, k, 0, out, k);
}

static size_t outputs(const fb_case *c) { return (size_t)(c->m * (c->op == FB_OP_GEMM ? c->rows : c->cols)); }
static size_t activations(const fb_case *c) { return (size_t)(c->m * (c->op == FB_OP_GEMM ? c->cols : c->rows)); }

bool dense_peer_init(dense_peer *p, work *w, ours *with, int threads, char why[TIMING_WHY])
{
    size_t n = (size_t)(w->c.rows * w->c.cols), huge = (size_t)2 << 20;
    *p = (dense_peer){.w = w, .dequantize = with, .threads = threads};
    p->out = malloc(outputs(&w->c) * sizeof(float));
    if (with) p->scratch = aligned_alloc(huge, (n * sizeof(float) + huge - 1) / huge * huge);
    if (p->out && (!with || p->scratch)) return true;
    snprintf(why, TIMING_WHY, "no memory for a dense peer");
    return false;
}

void dense_peer_free(dense_peer *p) { free(p->scratch), free(p->out); }

bool dense_peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    dense_peer *p = self;
    work *w = p->w;
    if (cold && !timing_evict(p->threads)) return snprintf(why, TIMING_WHY, "no memory to empty the caches with"), false;
    double wall = timing_now(), cpu = timing_cpu_now();
    for (int i = 0; i < calls; i++) {
        if (p->dequantize) {
            fb_context *ctx = &p->dequantize->ctx;
            if (fb_dequantize(ctx, &w->w, p->scratch, FB_F32) != FB_OK)
                return snprintf(why, TIMING_WHY, "%s", ctx->message), false;
        }
        dense_product(&w->c, w->a_f32, p->dequantize ? p->scratch : w->decoded, p->out);
    }
    span->wall = timing_now() - wall;
    span->cpu = timing_cpu_now() - cpu;
    return true;
}

/* Decoded weights are written and read again when they are made at every call. */
static work_cost cost(const work *w, bool dequantizes)
{
    double n = (double)w->c.rows * (double)w->c.cols * sizeof(float);
    work_cost c = {n + (double)activations(&w->c) * sizeof(float), (double)outputs(&w->c) * sizeof(float),
                   work_cost_of(w).flops};
    if (dequantizes) c.read += (double)w->sizes.total, c.written += n;
    return c;
}

work_cost dense_peer_cost(const dense_peer *p) { return cost(p->w, p->dequantize != NULL); }

work_cost peer_cost(const work *w, bool fused)
{
    return fused || w->c.op == FB_OP_DEQUANTIZE ? work_cost_of(w) : cost(w, true);
}
