/* run.c: from the list of cases to rows: check, time in rounds beside the peers, write, next (run.h). */
#include "bench/run.h"

#include "bench/peers.h"
#include "bench/results.h"
#include "fourbit_plugin.h"

#include <omp.h>
#include <regex.h>
#include <stdlib.h>
#include <unistd.h>

/* The reference takes about 100 ns a weight and row of activations, on one thread. */
static const double reference_limit = 4e6; /* weights * max(m, 1) */
/* Ten calls of this much, ours and two dense peers', are a minute or two on two cores; the layers of large models at large M go beyond. */
static const double cpu_limit = 1.5e11; /* operations */
/* Hot is asked of what stays in a cache when it is called again and again. */
static const double hot_limit_quick = 1 << 20; /* weights; full: bytes, half the last-level cache */

static const stop_rule quick_rule = {.floor = 7, .ceiling = 31, .seconds = 1.0, .hard_seconds = 6, .spread = 0.02, .sample_seconds = 1e-3};
static const stop_rule full_rule = {.floor = 11, .ceiling = 101, .seconds = 5.0, .hard_seconds = 60, .spread = 0.01, .sample_seconds = 5e-3};

enum { MAX_ENTRANTS = 6, SWEEPS = 2, CEILING_ROUNDS = 5, PASSES_AGAIN = 40 }; /* cpu, plugin, four peers; of LoRA: cpu, plugin, the base */

typedef struct runner {
    const run_options *o;
    const volatile sig_atomic_t *stop;
    const stop_rule *rule;
    regex_t filter;
    bool filtered;
    unsigned backends;
    int threads;
    results r;
    work w;
    peer_process *peer;
    char peer_missing[TIMING_WHY]; /* why there is no process */
    double *walls[MAX_ENTRANTS + SWEEPS];
    ceilings_memory memory;
    ceilings_sweep sweeps[SWEEPS]; /* copy, read */
    /* NULL: no bandwidth is measured in the rounds */
    bool (*sweep)(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]);
    double began;
} runner;

/* A contender, and what its row will say. */
typedef struct entrant {
    contender c;
    const char *peer;    /* NULL: ours, or a plugin: its failure fails the run */
    const char *backend; /* "cpu", "peer:openblas" ... */
    bool base;           /* a LoRA layer without its adapter, by its own backend: a ratio on that row; a row only if it cannot run */
    char name[ROW_NAME], how[TIMING_WHY];
    work_cost cost;
    double bits_per_weight;
    bool hashed;
    uint64_t output_hash;
} entrant;

/* ---- which cases ------------------------------------------------------------------------------- */

/* "gemm/nf4/b64/M1_N1_K1" with the backend put in after the operation. */
static void row_name(const fb_case *c, const char *backend, bool hot, char name[ROW_NAME])
{
    char plain[128];
    fb_case_name(c, plain, sizeof plain);
    const char *rest = plain + strcspn(plain, "/");
    snprintf(name, ROW_NAME, "%s/%s%s%s", fb_op_name(c->op), backend, rest, hot ? "/hot" : "");
}

static bool wanted(const runner *n, const fb_case *c, fb_backend b, bool hot)
{
    double weights = (double)c->rows * (double)c->cols;
    if (!(c->sets & (n->o->full ? CASE_FULL : CASE_QUICK)) || !(n->backends >> b & 1)) return false;
    if (b == FB_BACKEND_CPU && 2 * weights * (double)c->m > cpu_limit) return false;
    if (b == FB_BACKEND_REFERENCE && weights * (double)(c->m > 1 ? c->m : 1) > reference_limit) return false;
    fb_matrix shape; /* what a plugin leaves to the reference would be the reference's time under its name */
    if (b == FB_BACKEND_PLUGIN && (fb_matrix_init(&shape, c->format, c->rows, c->cols, c->block_size, c->double_quant) != FB_OK ||
                                   !fb_plugin_supports(c->op, &shape, c->m, c->dtype))) return false;
    if (hot) {
        double bytes = weights * (c->m ? 0.5 : 0.5 + (double)fb_dtype_size(c->dtype));
        if (b == FB_BACKEND_REFERENCE) return false;
        if (n->o->full ? bytes > (double)timing_cache_bytes() / 2 : weights > hot_limit_quick) return false;
    }
    char name[ROW_NAME];
    row_name(c, fb_backend_name(b), hot, name);
    return !n->filtered || regexec(&n->filter, name, 0, NULL, 0) == 0;
}

static int count_wanted(const runner *n)
{
    int count = 0;
    for (const fb_case *c = n->o->cases; c->rows >= 0; c++)
        for (int b = 0; b < FB_BACKEND_COUNT; b++)
            for (int hot = 0; hot < 2; hot++) count += wanted(n, c, (fb_backend)b, hot);
    return count;
}

static void list(const runner *n)
{
    char name[ROW_NAME];
    for (const fb_case *c = n->o->cases; c->rows >= 0; c++)
        for (int b = 0; b < FB_BACKEND_COUNT; b++)
            for (int hot = 0; hot < 2; hot++)
                if (wanted(n, c, (fb_backend)b, hot)) {
                    row_name(c, fb_backend_name((fb_backend)b), hot, name);
                    fprintf(n->o->out, "%s\n", name);
                }
}

/* ---- the bandwidth in a case's rounds ----------------------------------------------------------------- */

/* What a row of these rounds is held against; zeros: the ceilings of the run. */
typedef struct moment {
    double copy_bw, read_bw, roof_bw;
} moment;

/* Or may: near the corner of the roofline both do, and a busy machine has shown a fifth of its peak. */
static bool memory_bounds(const ceilings *c, const work_cost *cost)
{
    return 4 * (cost->read + cost->written) * c->gemm_peak >= cost->flops * c->copy_bw;
}

static int enter_sweeps(runner *n, contender c[SWEEPS])
{
    for (int i = 0; i < SWEEPS; i++)
        c[i] = (contender){.run = n->sweep, .self = &n->sweeps[i], .beside = true, .walls = n->walls[MAX_ENTRANTS + i]};
    return SWEEPS;
}

static moment moment_of(const runner *n, const contender c[SWEEPS])
{
    moment m = {0, 0, 0};
    double *bandwidths[SWEEPS] = {&m.copy_bw, &m.read_bw};
    for (int i = 0; i < SWEEPS; i++) {
        if (c[i].failed || c[i].samples == 0) return (moment){0, 0, 0};
        timing_stats s = timing_summary(c[i].walls, c[i].samples);
        *bandwidths[i] = n->sweeps[i].moved / s.median;
        if (n->sweeps[i].moved / s.min > m.roof_bw) m.roof_bw = n->sweeps[i].moved / s.min;
    }
    return m;
}

/* ---- rows --------------------------------------------------------------------------------------- */

static bench_row blank_row(const runner *n, const entrant *e, bool hot, const moment *m)
{
    bench_row row = {.cost = e->cost, .bits_per_weight = e->bits_per_weight, .hot = hot, .hashed = e->hashed, .output_hash = e->output_hash,
                     .copy_bw = m->copy_bw, .read_bw = m->read_bw, .roof_bw = m->roof_bw};
    snprintf(row.name, sizeof row.name, "%s%s", e->name, hot ? "/hot" : "");
    snprintf(row.label, sizeof row.label, "%s, %s, %d thread%s: %.300s", hot ? "hot" : "cold", fb_dtype_name(n->w.c.dtype),
             n->threads, n->threads == 1 ? "" : "s", e->how);
    return row;
}

static double excess(const runner *n, const bench_row *row)
{
    ceilings c = n->r.ceilings;
    if (row->roof_bw > 0) c.copy_bw = c.read_bw = row->roof_bw;
    return ceilings_excess(&c, row->cost.read, row->cost.written, row->cost.flops, row->stats.median, row->hot);
}

/* More passes, a moment after the row's rounds: other processes may have held up all that were in them. */
static void look_again(runner *n, bench_row *row)
{
    char why[TIMING_WHY];
    timing_span span;
    for (int i = 0; i < PASSES_AGAIN && !*n->stop && excess(n, row) > CEILINGS_SLACK; i++) {
        ceilings_sweep *s = &n->sweeps[i % SWEEPS];
        if (n->sweep(s, 1, true, &span, why) && s->moved / span.wall > row->roof_bw) row->roof_bw = s->moved / span.wall;
    }
}

/* A busy machine measures low ceilings: look again before blaming the harness. */
static void flag_if_above_roof(runner *n, bench_row *row)
{
    if (n->o->alone) return; /* no roof was measured */
    if (row->roof_bw > 0) look_again(n, row);
    while (excess(n, row) > CEILINGS_SLACK && n->r.ceilings.rounds < CEILING_ROUNDS)
        if (!ceilings_measure(&n->r.ceilings, n->threads)) break;
    const double over = excess(n, row);
    if (!(over > CEILINGS_SLACK)) return;
    row->verdict = ROW_ABOVE_ROOF;
    snprintf(row->why, sizeof row->why,
             "%.2f times what the machine can do: a bug of the benchmark (bytes or operations miscounted, or work that was not done)", over);
}

/* The other contenders' medians over this one's: on our rows and a plugin's. */
static void add_ratios(bench_row *row, const entrant *e, int count, int self)
{
    for (int j = 0; j < count && row->ratios < ROW_RATIOS; j++) {
        if (j == self || e[j].c.failed || e[j].c.samples == 0 || (e[j].base && strcmp(e[j].backend, e[self].backend) != 0)) continue;
        snprintf(row->ratio[row->ratios].peer, sizeof row->ratio[0].peer, "%s", e[j].peer ? e[j].peer : e[j].backend);
        row->ratio[row->ratios++].x = timing_summary(e[j].c.walls, e[j].c.samples).median / row->stats.median;
    }
}

static bool add_rows(runner *n, const entrant *e, int count, bool hot, const moment *m)
{
    for (int i = 0; i < count; i++) {
        if (e[i].base && !e[i].c.failed) continue;
        bench_row row = blank_row(n, &e[i], hot, m);
        if (e[i].c.failed) {
            row.verdict = e[i].peer ? ROW_SKIPPED : ROW_FAILED;
            snprintf(row.why, sizeof row.why, "%s", e[i].c.why);
        } else if (e[i].c.samples == 0) {
            continue; /* interrupted before its first sample */
        } else {
            row.stats = timing_summary(e[i].c.walls, e[i].c.samples);
            row.cpu_seconds = e[i].c.cpu / e[i].c.samples;
            int kept = row.stats.samples < ROW_TIMES ? row.stats.samples : ROW_TIMES;
            memcpy(row.times, e[i].c.walls, (size_t)kept * sizeof *row.times);
            if (e[i].peer && strcmp(e[i].peer, "openblas") == 0)
                ceilings_saw_gemm(&n->r.ceilings, row.cost.flops / row.stats.min);
            flag_if_above_roof(n, &row);
            if (!e[i].peer) add_ratios(&row, e, count, i);
        }
        if (!results_add(&n->r, &row)) return false;
    }
    return true;
}

/* ---- contenders ------------------------------------------------------------------------------------ */

static entrant *enter(runner *n, entrant *e, int *count, const char *peer, const char *backend, work_cost cost, double bits)
{
    entrant *made = &e[*count];
    *made = (entrant){.peer = peer, .backend = backend, .cost = cost, .bits_per_weight = bits};
    made->c.walls = n->walls[(*count)++];
    row_name(&n->w.c, backend, false, made->name);
    return made;
}

static void disqualify(entrant *e, const char *why)
{
    e->c.failed = true;
    snprintf(e->c.why, sizeof e->c.why, "%s", why);
}

/* Runs it once and compares what came out. */
static void check_dense(runner *n, entrant *e, dense_peer *p, bool made, const char *why)
{
    char reason[TIMING_WHY];
    timing_span span;
    e->c.self = p, e->c.run = dense_peer_run;
    snprintf(reason, sizeof reason, "%s", why);
    if (!made || !dense_peer_run(p, 1, false, &span, reason)) disqualify(e, reason);
    else {
        /* its output is fp32, as a peer process' product is */
        if (!peer_output_right(&n->w, p->out, reason)) disqualify(e, reason);
    }
}

static void check_onednn(runner *n, entrant *e, onednn_peer *p, const char *missing)
{
    char why[TIMING_WHY];
    timing_span span;
    e->c.self = p, e->c.run = onednn_peer_run;
    if (!p) disqualify(e, missing);
    else if (!onednn_peer_run(p, 1, false, &span, why) || !peer_output_right(&n->w, onednn_peer_out(p), why)) disqualify(e, why);
}

static void check_process(runner *n, entrant *e)
{
    char why[TIMING_WHY] = "";
    timing_span span;
    bool fused = false;
    e->c.self = n->peer, e->c.run = peer_run;
    const fb_case *c = &n->w.c;
    size_t bytes = c->op == FB_OP_DEQUANTIZE ? n->w.out_bytes : n->w.out_bytes / fb_dtype_size(c->dtype) * sizeof(float);
    void *out = malloc(bytes ? bytes : 1);
    if (!out) snprintf(why, sizeof why, "no memory to check it with");
    if (!out || !peer_setup(n->peer, &n->w, e->how, &fused, why) || !peer_run(n->peer, 1, false, &span, why) ||
        !peer_result(n->peer, out, bytes, why) || !peer_output_right(&n->w, out, why))
        disqualify(e, why);
    e->cost = peer_cost(&n->w, fused);
    free(out);
}

typedef struct field {
    entrant e[MAX_ENTRANTS];
    int count;
    ours own;
    entrant *plugin; /* NULL: none in this case */
    work plugins;    /* the same data, outputs of its own */
    ours plugin_own;
    uint64_t plugin_hash;
    dense_peer dense, decoding;
    onednn_peer *onednn;
    work plain; /* LoRA: the same data, one product */
    ours base;
} field;

static void enter_peers(runner *n, field *f)
{
    char why[TIMING_WHY] = "";
    double bits = n->w.sizes.bits_per_weight;
    if (n->w.c.op == FB_OP_GEMM || n->w.c.op == FB_OP_GEMM_DX) {
        bool made = dense_peer_init(&f->dense, &n->w, NULL, n->threads, why);
        entrant *e = enter(n, f->e, &f->count, "openblas", "peer:openblas", dense_peer_cost(&f->dense), 32);
        snprintf(e->how, sizeof e->how, "OpenBLAS fp32 %s on dense weights", n->w.c.m == 1 && n->w.c.op == FB_OP_GEMM ? "sgemv" : "sgemm");
        check_dense(n, e, &f->dense, made, why);
        made = dense_peer_init(&f->decoding, &n->w, &f->own, n->threads, why);
        e = enter(n, f->e, &f->count, "dequantize+openblas", "peer:dequantize+openblas", dense_peer_cost(&f->decoding), bits);
        snprintf(e->how, sizeof e->how, "fourbit's dequantize to fp32, then OpenBLAS");
        check_dense(n, e, &f->decoding, made, why);
        if (onednn_version() && n->w.c.dtype == FB_BF16) {
            e = enter(n, f->e, &f->count, "onednn", "peer:onednn", onednn_peer_cost(&n->w), 16);
            f->onednn = onednn_peer_new(&n->w, n->threads, e->how, why);
            check_onednn(n, e, f->onednn, why);
        }
    }
    if (n->peer && peer_does(&n->w.c, why)) {
        entrant *e = enter(n, f->e, &f->count, "bitsandbytes-cpu", "peer:bitsandbytes-cpu", work_cost_of(&n->w), bits);
        check_process(n, e);
    }
}

/* The product inside a LoRA layer, by the same backend in the same rounds: x_base is its time over the layer's. */
static void enter_base(runner *n, field *f, fb_backend backend)
{
    char why[TIMING_WHY] = "";
    check_result checked = {.ok = false};
    bool made = work_share_base(&n->w, &f->plain, why);
    entrant *e = enter(n, f->e, &f->count, "base", "base", made ? work_cost_of(&f->plain) : (work_cost){0}, n->w.sizes.bits_per_weight);
    e->base = true, e->backend = fb_backend_name(backend);
    e->c.self = &f->base, e->c.run = ours_run;
    if (!made || !ours_init(&f->base, &f->plain, backend, n->o->ops, n->threads, why)) disqualify(e, why);
    else if (!(checked = ours_check(&f->base)).ok) disqualify(e, checked.text);
}

static uint64_t digest(const work *w)
{
    work_output outputs[WORK_OUTPUTS];
    work_outputs(w, outputs);
    if (w->c.op == FB_OP_QUANTIZE) outputs[0] = (work_output){w->q.codes, w->sizes.codes};
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < WORK_OUTPUTS; i++)
        for (size_t j = 0; j < outputs[i].bytes; j++) h = (h ^ ((const uint8_t *)outputs[i].data)[j]) * 1099511628211u;
    return h;
}

/* Whether the plugin is timed in the cpu backend's rounds: then neither has a luckier moment of the machine. */
static bool plugin_joins(const runner *n, const fb_case *c)
{
    bool same = true, any = false;
    for (int hot = 0; hot < 2; hot++) {
        bool cpu = wanted(n, c, FB_BACKEND_CPU, hot), plugin = wanted(n, c, FB_BACKEND_PLUGIN, hot);
        same = same && cpu == plugin, any = any || plugin;
    }
    return same && any;
}

static void enter_plugin(runner *n, field *f)
{
    char why[TIMING_WHY] = "";
    f->plugin = enter(n, f->e, &f->count, NULL, fb_backend_name(FB_BACKEND_PLUGIN), work_cost_of(&n->w), n->w.sizes.bits_per_weight);
    f->plugin->c.self = &f->plugin_own, f->plugin->c.run = ours_run;
    snprintf(f->plugin->how, sizeof f->plugin->how, "%s", fb_backend_variant(FB_BACKEND_PLUGIN));
    check_result checked = {.ok = false};
    if (!work_share(&n->w, &f->plugins, why) || !ours_init(&f->plugin_own, &f->plugins, FB_BACKEND_PLUGIN, n->o->ops, n->threads, why))
        disqualify(f->plugin, why);
    else if (!(checked = ours_check(&f->plugin_own)).ok) disqualify(f->plugin, checked.text);
    f->plugin->hashed = checked.ok;
    f->plugin->output_hash = f->plugin_hash = checked.ok ? digest(&f->plugins) : 0;
}

/* ---- a case ---------------------------------------------------------------------------------------------- */

static void report(const runner *n, int done, int total, const entrant *e, bool hot)
{
    double per_case = (timing_now() - n->began) / (done + 1);
    int left = (int)(per_case * (total - done - 1));
    fprintf(n->o->progress, "[%*d/%d] %s%s ", total > 99 ? 3 : 2, done + 1, total, e->name, hot ? "/hot" : "");
    if (e->c.failed) fprintf(n->o->progress, "FAILED: %s", e->c.why);
    else if (!e->c.samples) fprintf(n->o->progress, "not timed");
    else fprintf(n->o->progress, "%.1f us", timing_summary(e->c.walls, e->c.samples).median * 1e6);
    fprintf(n->o->progress, "  (%d:%02d left)\n", left / 60, left % 60);
    fflush(n->o->progress);
}

static const char changed_output[] = "its output changed between the check and the end of the timing";

/* Cold, hot or both, of one backend. Adds to *done what it finished. */
static bool run_case(runner *n, const fb_case *c, fb_backend backend, const bool hots[2], int *done, int total)
{
    field f = {.count = 0};
    char why[TIMING_WHY] = "";
    bool ok = true, ready = work_make(&n->w, c, why);
    if (!ready) n->w.c = *c;
    entrant *own = enter(n, f.e, &f.count, NULL, fb_backend_name(backend), ready ? work_cost_of(&n->w) : (work_cost){0},
                         n->w.sizes.bits_per_weight);
    own->c.self = &f.own, own->c.run = ours_run;
    snprintf(own->how, sizeof own->how, "%s", fb_backend_variant(backend));
    ready = ready && ours_init(&f.own, &n->w, backend, n->o->ops, n->threads, why);
    if (!ready) disqualify(own, why);
    check_result checked = {.ok = false};
    if (ready && !(checked = ours_check(&f.own)).ok) disqualify(own, checked.text);
    uint64_t before = checked.ok ? digest(&n->w) : 0;
    own->hashed = checked.ok, own->output_hash = before;
    const bool joined = backend == FB_BACKEND_CPU && plugin_joins(n, c);
    if (checked.ok && joined) enter_plugin(n, &f);
    if (checked.ok && work_is_lora(c) && !n->o->alone && !*n->stop) enter_base(n, &f, backend);
    if (checked.ok && backend == FB_BACKEND_CPU && !n->o->alone && !*n->stop) enter_peers(n, &f);
    for (int hot = 0; hot < 2 && ok && !*n->stop; hot++) {
        if (!hots[hot]) continue;
        contender all[MAX_ENTRANTS + SWEEPS];
        for (int i = 0; i < f.count; i++) all[i] = f.e[i].c;
        const bool held = n->sweep && !hot && memory_bounds(&n->r.ceilings, &own->cost);
        const int sweeps = held ? enter_sweeps(n, all + f.count) : 0;
        if (checked.ok) timing_rounds(all, f.count + sweeps, n->rule, !hot, n->stop);
        const moment now = held ? moment_of(n, all + f.count) : (moment){0, 0, 0};
        for (int i = 0; i < f.count; i++) f.e[i].c = all[i];
        if (checked.ok && !own->c.failed && digest(&n->w) != before) disqualify(own, changed_output);
        if (f.plugin && !f.plugin->c.failed && digest(&f.plugins) != f.plugin_hash) disqualify(f.plugin, changed_output);
        ok = add_rows(n, f.e, f.count, hot, &now);
        report(n, (*done)++, total, own, hot);
        if (joined) report(n, (*done)++, total, f.plugin ? f.plugin : own, hot);
    }
    ours_free(&f.own);
    ours_free(&f.plugin_own);
    ours_free(&f.base);
    work_unshare(&f.plugins);
    work_unshare(&f.plain);
    dense_peer_free(&f.dense);
    dense_peer_free(&f.decoding);
    onednn_peer_free(f.onednn);
    return ok;
}

static int run_all(runner *n)
{
    char why[TIMING_WHY] = "";
    int total = count_wanted(n), done = 0;
    for (const fb_case *c = n->o->cases; c->rows >= 0 && !*n->stop; c++)
        for (int b = 0; b < FB_BACKEND_COUNT && !*n->stop; b++) {
            const bool hots[2] = {wanted(n, c, (fb_backend)b, false), wanted(n, c, (fb_backend)b, true)};
            if ((!hots[0] && !hots[1]) || (b == FB_BACKEND_PLUGIN && plugin_joins(n, c))) continue;
            if (!run_case(n, c, (fb_backend)b, hots, &done, total) || !results_write(&n->r, false, *n->stop != 0, why)) {
                fprintf(stderr, "fourbit-bench: %s\n", why[0] ? why : "no memory");
                return RUN_FAILED;
            }
        }
    bool interrupted = *n->stop != 0;
    /* Again, at another moment of a machine that others use too: what pct_ is a share of is the best of both. */
    if (!*n->stop && !n->o->ceilings && !n->o->alone && n->r.ceilings.rounds < CEILING_ROUNDS) ceilings_measure(&n->r.ceilings, n->threads);
    if (!results_write(&n->r, !interrupted, interrupted, why)) {
        fprintf(stderr, "fourbit-bench: %s\n", why);
        return RUN_FAILED;
    }
    results_table(&n->r, n->o->out);
    if (interrupted) fprintf(n->o->out, "interrupted: %d of %d cases\n", done, total);
    return interrupted ? RUN_INTERRUPTED : results_failures(&n->r) ? RUN_FAILED : RUN_OK;
}

/* ---- set-up ---------------------------------------------------------------------------------------------- */

static bool choose_backends(runner *n)
{
    const char *plugin = getenv("FOURBIT_PLUGIN");
    for (int b = 0; b < FB_BACKEND_COUNT; b++) {
        fb_context ctx;
        fb_context_init(&ctx, (fb_backend)b);
        if (n->o->backends ? !(n->o->backends >> b & 1) : b == FB_BACKEND_PLUGIN && !(plugin && *plugin)) continue;
        if (b == FB_BACKEND_CUDA) /* its pointers are the device's and its calls return before the work is done */
            snprintf(ctx.message, sizeof ctx.message, "fourbit-gpu times it (make gpu-report)");
        else if (fb_backend_available(&ctx) == FB_OK) n->backends |= 1u << b;
        if (!(n->backends >> b & 1)) fprintf(n->o->progress, "skipped: backend %s: %s\n", fb_backend_name((fb_backend)b), ctx.message);
        /* Who names a plugin wants it timed: a run without it would look like success. */
        if (b == FB_BACKEND_PLUGIN && !(n->backends >> b & 1)) return false;
    }
    return n->backends != 0;
}

/* Timings of a machine that others use are noise first; nothing can be done here but to say it. */
static void warn_if_busy(const runner *n)
{
    double load = 0;
    if (getloadavg(&load, 1) == 1 && load > 0.5 * omp_get_num_procs())
        fprintf(n->o->progress, "this machine is busy (load %.1f on %d cores): expect wide intervals\n", load, omp_get_num_procs());
}

static void start_peers(runner *n)
{
    char library[4096], version[128] = "", path[4096];
    const char *linked = onednn_version() ? "openblas, dequantize+openblas, onednn" : "openblas, dequantize+openblas";
    provenance_set(n->r.context, "peers", "%s", linked);
    provenance_set(n->r.context, "onednn", "%s", onednn_version() ? onednn_version() : "built without it (libdnnl-dev)");
    if (!onednn_version()) fprintf(n->o->progress, "skipped: peer onednn: built without oneDNN 2 (libdnnl-dev)\n");
    if (!n->o->peers) return;
    snprintf(library, sizeof library, "%s/bitsandbytes/libbitsandbytes_cpu.so", n->o->peers);
    snprintf(path, sizeof path, "%s/bitsandbytes.version", n->o->peers);
    FILE *f = fopen(path, "r");
    if (f && fgets(version, sizeof version, f)) version[strcspn(version, "\n")] = '\0';
    if (f) fclose(f);
    if (access(library, R_OK) != 0) snprintf(n->peer_missing, sizeof n->peer_missing, "it is not there (make peers fetches it)");
    else n->peer = peer_start(n->o->peer_server, library, n->threads, n->peer_missing);
    if (!n->peer) fprintf(n->o->progress, "skipped: peer bitsandbytes-cpu: %s\n", n->peer_missing);
    if (n->peer) provenance_set(n->r.context, "peers", "%s, bitsandbytes-cpu", linked);
    provenance_set(n->r.context, "bitsandbytes", "%s", n->peer ? version[0] ? version : "version unknown" : n->peer_missing);
}

/* Of the run, and what measures them in a case's rounds. rounds stays 0 where they could not be measured. */
static void start_ceilings(runner *n)
{
    ceilings *c = &n->r.ceilings;
    if (n->o->alone) *c = (ceilings){.rounds = 1, .copy_by = "not measured", .bf16_by = "not measured"};
    else if (n->o->ceilings) *c = *n->o->ceilings;
    else if (fprintf(n->o->progress, "measuring this machine's ceilings\n"), !ceilings_measure(c, n->threads))
        fprintf(stderr, "fourbit-bench: no memory to measure the ceilings with\n");
    n->r.start_copy_bw = c->copy_bw, n->r.start_read_bw = c->read_bw;
    if (!c->rounds || n->o->alone || (n->o->ceilings && !n->o->sweep)) return;
    if (!ceilings_memory_make(&n->memory)) {
        fprintf(n->o->progress, "no memory for passes in the rounds: shares are of the run's ceilings\n");
        return;
    }
    n->sweep = n->o->sweep ? n->o->sweep : ceilings_sweep_run;
    for (int i = 0; i < SWEEPS; i++) n->sweeps[i] = ceilings_sweep_of(c, &n->memory, i == 0, n->threads);
}

int bench_run(const run_options *options, const volatile sig_atomic_t *stop)
{
    runner n = {.o = options, .stop = stop, .rule = options->full ? &full_rule : &quick_rule};
    char why[TIMING_WHY] = "";
    int result = RUN_USAGE, error = options->filter ? regcomp(&n.filter, options->filter, REG_EXTENDED | REG_NOSUB) : 0;
    n.filtered = options->filter && error == 0;
    n.threads = options->threads > 0 ? options->threads : omp_get_num_procs();
    if (error) {
        regerror(error, &n.filter, why, sizeof why);
        fprintf(stderr, "fourbit-bench: --filter %s: %s\n", options->filter, why);
        return RUN_USAGE;
    }
    bool any = choose_backends(&n) && count_wanted(&n) > 0;
    for (int i = 0; i < MAX_ENTRANTS + SWEEPS; i++) n.walls[i] = malloc((size_t)n.rule->ceiling * sizeof(double));
    if (!any) {
        fprintf(stderr, "fourbit-bench: no case matches (--list shows the names; backends that cannot run are named above)\n");
    } else if (options->list) {
        list(&n);
        result = RUN_OK;
    } else if (!results_open(&n.r, options->folder, why)) {
        fprintf(stderr, "fourbit-bench: --out: %s\n", why);
    } else {
        n.r.context = provenance(n.threads);
        provenance_set(n.r.context, "openblas", "%s", openblas_version());
        openblas_set_threads(n.threads);
        warn_if_busy(&n);
        if (!options->alone) start_peers(&n);
        start_ceilings(&n);
        n.began = timing_now();
        result = n.r.ceilings.rounds ? run_all(&n) : RUN_FAILED;
        peer_stop(n.peer);
        work_free(&n.w);
        ceilings_memory_free(&n.memory);
    }
    results_close(&n.r);
    for (int i = 0; i < MAX_ENTRANTS + SWEEPS; i++) free(n.walls[i]);
    if (n.filtered) regfree(&n.filter);
    return result;
}
