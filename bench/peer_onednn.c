/* peer_onednn.c: oneDNN's dense bf16 product, where the build found oneDNN 2 (libdnnl-dev). Weights are decoded to bf16 and
 * brought into the layout that oneDNN asks for beforehand, outside the time: the kindest case for a dense product. */
#include "bench/peers.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef BENCH_ONEDNN

#include <oneapi/dnnl/dnnl.h>

struct onednn_peer {
    work *w;
    int threads;
    int64_t m, l, p; /* out [m, p] = a [m, l] * weights [l, p] */
    float *out;
    uint16_t *weights; /* as they are decoded, [rows, cols] */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t product_desc, packing_desc;
    dnnl_primitive_t product, packing;
    dnnl_memory_t a_memory, plain, packed, out_memory;
};

const char *onednn_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

static bool onednn_build(onednn_peer *q)
{
    const bool dx = work_is_dx(&q->w->c);
    const dnnl_dims_t a_dims = {q->m, q->l}, w_dims = {q->l, q->p}, out_dims = {q->m, q->p};
    const dnnl_dims_t w_strides = {dx ? q->p : 1, dx ? 1 : q->l};
    dnnl_memory_desc_t a, plain, any, out;
    dnnl_matmul_desc_t product;
    const dnnl_memory_desc_t *wants;
    /* one after the other; the first that fails ends it */
    return dnnl_engine_create(&q->engine, dnnl_cpu, 0) == dnnl_success &&
           dnnl_stream_create(&q->stream, q->engine, dnnl_stream_default_flags) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&a, 2, a_dims, dnnl_bf16, dnnl_ab) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(&plain, 2, w_dims, dnnl_bf16, w_strides) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&any, 2, w_dims, dnnl_bf16, dnnl_format_tag_any) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&out, 2, out_dims, dnnl_f32, dnnl_ab) == dnnl_success &&
           dnnl_matmul_desc_init(&product, &a, &any, NULL, &out) == dnnl_success &&
           dnnl_primitive_desc_create(&q->product_desc, &product, NULL, q->engine, NULL) == dnnl_success &&
           dnnl_primitive_create(&q->product, q->product_desc) == dnnl_success &&
           (wants = dnnl_primitive_desc_query_md(q->product_desc, dnnl_query_weights_md, 0)) != NULL &&
           dnnl_memory_create(&q->a_memory, &a, q->engine, q->w->a) == dnnl_success &&
           dnnl_memory_create(&q->plain, &plain, q->engine, q->weights) == dnnl_success &&
           dnnl_memory_create(&q->packed, wants, q->engine, DNNL_MEMORY_ALLOCATE) == dnnl_success &&
           dnnl_memory_create(&q->out_memory, &out, q->engine, q->out) == dnnl_success &&
           dnnl_reorder_primitive_desc_create(&q->packing_desc, &plain, q->engine, wants, q->engine, NULL) == dnnl_success &&
           dnnl_primitive_create(&q->packing, q->packing_desc) == dnnl_success;
}

static bool execute(const onednn_peer *q, const_dnnl_primitive_t primitive, int count, const dnnl_exec_arg_t *arguments)
{
    return dnnl_primitive_execute(primitive, q->stream, count, arguments) == dnnl_success && dnnl_stream_wait(q->stream) == dnnl_success;
}

onednn_peer *onednn_peer_new(work *w, int threads, char how[TIMING_WHY], char why[TIMING_WHY])
{
    const fb_case *c = &w->c;
    const bool dx = work_is_dx(c);
    onednn_peer *q = calloc(1, sizeof *q);
    snprintf(why, TIMING_WHY, "no memory for oneDNN's operands");
    if (!q) return NULL;
    *q = (onednn_peer){.w = w, .threads = threads, .m = c->m, .l = dx ? c->rows : c->cols, .p = dx ? c->cols : c->rows};
    q->out = malloc((size_t)(q->m * q->p) * sizeof *q->out);
    q->weights = malloc((size_t)(c->rows * c->cols) * sizeof *q->weights);
    if (q->out && q->weights) {
        for (int64_t i = 0; i < c->rows * c->cols; i++) q->weights[i] = fb_float_to_bf16(w->decoded[i]);
        snprintf(why, TIMING_WHY, "oneDNN has no bf16 product on this processor");
        omp_set_num_threads(threads);
        if (onednn_build(q)) {
            const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, q->plain}, {DNNL_ARG_TO, q->packed}};
            const char *kernel = "";
            dnnl_primitive_desc_query(q->product_desc, dnnl_query_impl_info_str, 0, &kernel);
            snprintf(how, TIMING_WHY, "oneDNN %s bf16 matmul (%s), weights packed beforehand", onednn_version(), kernel);
            if (execute(q, q->packing, 2, arguments)) return q;
            snprintf(why, TIMING_WHY, "oneDNN cannot pack the weights");
        }
    }
    onednn_peer_free(q);
    return NULL;
}

void onednn_peer_free(onednn_peer *q)
{
    if (!q) return;
    dnnl_memory_t memories[] = {q->a_memory, q->plain, q->packed, q->out_memory};
    for (int i = 0; i < 4; i++)
        if (memories[i]) dnnl_memory_destroy(memories[i]);
    if (q->product) dnnl_primitive_destroy(q->product);
    if (q->packing) dnnl_primitive_destroy(q->packing);
    if (q->product_desc) dnnl_primitive_desc_destroy(q->product_desc);
    if (q->packing_desc) dnnl_primitive_desc_destroy(q->packing_desc);
    if (q->stream) dnnl_stream_destroy(q->stream);
    if (q->engine) dnnl_engine_destroy(q->engine);
    free(q->out), free(q->weights), free(q);
}

bool onednn_peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    const onednn_peer *q = self;
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, q->a_memory}, {DNNL_ARG_WEIGHTS, q->packed}, {DNNL_ARG_DST, q->out_memory}};
    if (cold && !timing_evict(q->threads)) return snprintf(why, TIMING_WHY, "no memory to empty the caches with"), false;
    double wall = timing_now(), cpu = timing_cpu_now();
    for (int i = 0; i < calls; i++)
        if (!execute(q, q->product, 3, arguments)) return snprintf(why, TIMING_WHY, "oneDNN's product failed"), false;
    span->wall = timing_now() - wall;
    span->cpu = timing_cpu_now() - cpu;
    return true;
}

const float *onednn_peer_out(const onednn_peer *q) { return q->out; }

#else

const char *onednn_version(void) { return NULL; }
onednn_peer *onednn_peer_new(work *w, int threads, char how[TIMING_WHY], char why[TIMING_WHY])
{
    (void)w, (void)threads, (void)how;
    snprintf(why, TIMING_WHY, "built without oneDNN 2 (libdnnl-dev)");
    return NULL;
}
void onednn_peer_free(onednn_peer *q) { (void)q; }
bool onednn_peer_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    (void)self, (void)calls, (void)cold, (void)span;
    return snprintf(why, TIMING_WHY, "built without oneDNN 2 (libdnnl-dev)"), false;
}
const float *onednn_peer_out(const onednn_peer *q) { return (void)q, NULL; }

#endif

work_cost onednn_peer_cost(const work *w)
{
    const fb_case *c = &w->c;
    const bool dx = work_is_dx(c);
    const double weights = 2.0 * (double)c->rows * (double)c->cols, a = 2.0 * (double)(c->m * (dx ? c->rows : c->cols));
    return (work_cost){weights + a, 4.0 * (double)(c->m * (dx ? c->cols : c->rows)), work_cost_of(w).flops};
}
