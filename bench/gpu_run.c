/* gpu_run.c: from the list of cases to rows, on a device: check, time in rounds beside the peers, check again, write
 * (gpu_run.h). */
#include "bench/gpu_run.h"

#include "bench/gpu_peers.h"
#include "bench/peer_protocol.h"
#include "bench/peers.h"

#include <regex.h>
#include <stdlib.h>
#include <sys/stat.h>

static const stop_rule quick_rule = {.floor = 7, .ceiling = 31, .seconds = 0.5, .hard_seconds = 5, .spread = 0.01, .sample_seconds = 1e-3};
static const stop_rule full_rule = {.floor = 11, .ceiling = 101, .seconds = 2.0, .hard_seconds = 20, .spread = 0.005, .sample_seconds = 5e-3};

/* Below this a launch's own 2 us would show, so calls are recorded and replayed; ours and every peer alike. */
static const double short_seconds = 20e-6;

enum { CONTENDERS = 5, CEILING_ROUNDS = 3 }; /* ours, cuBLAS twice, bitsandbytes; of LoRA: ours, the base, cuBLAS three times */

typedef struct runner {
    const gpu_options *o;
    const volatile sig_atomic_t *stop;
    const stop_rule *rule;
    regex_t filter;
    bool filtered;
    device *d;
    cublas *blas;
    nvml *clocks;
    char blas_missing[TIMING_WHY], clocks_missing[TIMING_WHY];
    peer_process *peer;
    results r;
    gpu_job job;
    double *walls[CONTENDERS], began;
} runner;

typedef struct entrant {
    contender c;
    const char *peer; /* NULL: ours */
    char name[ROW_NAME], how[TIMING_WHY];
    work_cost cost;
    double bits;
    const gpu_runner *runner; /* for its clocks; NULL: another process has it */
    bool unsupported;
    bool base; /* a LoRA layer without its adapter: a ratio on ours; a row only if it cannot run */
} entrant;

typedef struct field {
    entrant e[CONTENDERS];
    int count;
    gpu_ours own, base;
    gpu_job plain; /* of base: the same buffers, borrowed */
    gpu_dense dense, decoding, separate;
} field;

/* ---- which cases --------------------------------------------------------------------------------------------------------- */

static bool wanted(const runner *n, const gpu_case *c, bool hot)
{
    char name[ROW_NAME];
    double weights = (double)c->rows * (double)c->cols;
    if (!(c->sets & (n->o->full ? CASE_FULL : CASE_QUICK)) || (n->o->largest > 0 && weights > n->o->largest)) return false;
    if (hot && (weights > 1 << 20 || c->op == GPU_ADAMW32 || c->op == GPU_ADAMW8)) return false; /* what stays in an L2 */
    gpu_row_name(c, fb_backend_name(n->o->backend), hot, name, sizeof name);
    return !n->filtered || regexec(&n->filter, name, 0, NULL, 0) == 0;
}

static int each_wanted(const runner *n, bool print)
{
    int count = 0;
    char name[ROW_NAME];
    for (const gpu_case *c = n->o->cases; c->rows >= 0; c++)
        for (int hot = 0; hot < 2; hot++) {
            if (!wanted(n, c, hot)) continue;
            gpu_row_name(c, fb_backend_name(n->o->backend), hot, name, sizeof name);
            if (print) fprintf(n->o->out, "%s\n", name);
            count++;
        }
    return count;
}

/* ---- rows -------------------------------------------------------------------------------------------------------------------- */

static bool above(const runner *n, const entrant *e, double seconds, bool hot)
{
    bool cached = hot && e->cost.read + e->cost.written < (double)n->d->l2_bytes;
    return !n->d->caveat && gpu_excess(&n->r.ceilings, &e->cost, seconds, cached) > GPU_SLACK;
}

static void flag_if_above(runner *n, const entrant *e, bench_row *row)
{
    char why[TIMING_WHY];
    while (above(n, e, row->stats.median, row->hot) && n->r.ceilings.rounds < CEILING_ROUNDS)
        if (!gpu_ceilings(&n->r.ceilings, n->d, n->blas, why)) break;
    if (!above(n, e, row->stats.median, row->hot)) return;
    row->verdict = ROW_ABOVE_ROOF;
    snprintf(row->why, sizeof row->why, "%.2f times what the device can do: a bug of the benchmark (bytes miscounted, or served by a cache)",
             gpu_excess(&n->r.ceilings, &e->cost, row->stats.median, false));
}

static bool add_rows(runner *n, const entrant *e, int count, bool hot)
{
    timing_stats ours = timing_summary(e[0].c.walls, e[0].c.samples);
    for (int i = 0; i < count; i++) {
        if (e[i].base && !e[i].c.failed) continue;
        bench_row row = {.cost = e[i].cost, .bits_per_weight = e[i].bits, .hot = hot};
        snprintf(row.name, sizeof row.name, "%s%s", e[i].name, hot ? "/hot" : "");
        snprintf(row.label, sizeof row.label, "%s, %s: %.300s%s%s", hot ? "hot" : "cold", fb_dtype_name(n->job.c.dtype), e[i].how,
                 n->d->caveat ? "; " : "", n->d->caveat ? n->d->caveat : "");
        if (e[i].c.failed) {
            row.verdict = e[i].peer || e[i].unsupported ? ROW_SKIPPED : ROW_FAILED;
            snprintf(row.why, sizeof row.why, "%s", e[i].c.why);
        } else if (e[i].c.samples == 0) {
            continue; /* interrupted before its first sample */
        } else {
            row.stats = timing_summary(e[i].c.walls, e[i].c.samples);
            row.cpu_seconds = e[i].c.cpu / e[i].c.samples;
            int kept = row.stats.samples < ROW_TIMES ? row.stats.samples : ROW_TIMES;
            memcpy(row.times, e[i].c.walls, (size_t)kept * sizeof *row.times);
            if (e[i].runner) row.sm_clock_min = e[i].runner->sm_min, row.sm_clock_max = e[i].runner->sm_max;
            flag_if_above(n, &e[i], &row);
        }
        for (int j = 1; i == 0 && j < count && ours.samples; j++) {
            if (e[j].c.failed || e[j].c.samples == 0) continue;
            snprintf(row.ratio[row.ratios].peer, sizeof row.ratio[0].peer, "%s", e[j].peer);
            row.ratio[row.ratios++].x = timing_summary(e[j].c.walls, e[j].c.samples).median / ours.median;
        }
        if (!results_add(&n->r, &row)) return false;
    }
    return true;
}

/* ---- contenders --------------------------------------------------------------------------------------------------------------- */

static entrant *enter(runner *n, field *f, const char *peer, work_cost cost, const gpu_runner *r)
{
    entrant *e = &f->e[f->count];
    char backend[64];
    snprintf(backend, sizeof backend, "%s%s", peer ? "peer:" : "", peer ? peer : fb_backend_name(n->o->backend));
    *e = (entrant){.peer = peer, .cost = cost, .bits = n->job.bits_per_weight, .runner = r};
    e->c.walls = n->walls[f->count++];
    gpu_row_name(&n->job.c, backend, false, e->name, sizeof e->name);
    return e;
}

static void disqualify(entrant *e, const char *why)
{
    e->c.failed = true;
    snprintf(e->c.why, sizeof e->c.why, "%.390s", why);
}

/* Whether launches one by one would be what is timed. */
static bool is_short(const runner *n)
{
    work_cost cost = job_cost(&n->job, job_roles(&n->job));
    return n->d->records && n->r.ceilings.copy_bw > 0 && (cost.read + cost.written) / n->r.ceilings.copy_bw < short_seconds;
}

/* The product inside a LoRA layer, in the same rounds: x_base is its time over the layer's. */
static void enter_base(runner *n, field *f)
{
    char why[TIMING_WHY] = "";
    f->plain = n->job;
    f->plain.c = gpu_base_case(&n->job.c), f->plain.w.c = gpu_fb_case(&f->plain.c);
    for (int r = JOB_X; r < JOB_ROLES; r++) f->plain.b[r].bytes = 0;
    bool made = gpu_ours_make(&f->base, n->d, &f->plain, n->o->backend, n->o->call, why);
    entrant *e = enter(n, f, "base", job_cost(&f->plain, job_roles(&f->plain)), &f->base.r);
    f->base.r.recorded = is_short(n), f->base.r.clocks = n->clocks;
    e->base = true, e->c.self = &f->base.r, e->c.run = gpu_run;
    check_result checked = {.ok = false};
    if (!made) disqualify(e, why);
    else if (!(checked = gpu_ours_check(&f->base, &f->plain)).ok) disqualify(e, checked.text);
}

static void enter_dense(runner *n, field *f, gpu_dense *p, const char *name, const char *how, gpu_product by)
{
    char why[TIMING_WHY] = "";
    void *got[JOB_ROLES];
    bool made = gpu_dense_make(p, n->blas, n->d, &n->job, n->o->backend, by, why);
    entrant *e = enter(n, f, name, made ? gpu_dense_cost(p) : (work_cost){0, 0, 0}, &p->r);
    p->r.recorded = is_short(n), p->r.clocks = n->clocks;
    e->c.self = &p->r, e->c.run = gpu_run;
    if (by == GPU_BY_DENSE) e->bits = 8.0 * (double)fb_dtype_size(n->job.c.dtype);
    snprintf(e->how, sizeof e->how, "%s", how);
    if (!made || !gpu_run_once(&p->r, got, why)) {
        disqualify(e, why);
        return;
    }
    if (!job_check_peer(&n->job, got, why)) disqualify(e, why);
    gpu_release(got);
}

/* The roles that both processes know it has, in their order. */
static bool fetch_from_peer(runner *n, void *got[JOB_ROLES], char *why)
{
    size_t total = 0, at = 0;
    memset(got, 0, JOB_ROLES * sizeof *got);
    unsigned roles = gpu_peer_roles(&n->job);
    for (int r = 0; r < JOB_ROLES; r++)
        if (roles & JOB_BIT(r) && n->job.b[r].written) total += n->job.b[r].bytes;
    char *all = malloc(total ? total : 1);
    bool ok = all && peer_result(n->peer, all, total, why);
    if (!all) snprintf(why, TIMING_WHY, "no memory to check it with");
    for (int r = 0; r < JOB_ROLES && ok; r++) {
        const job_buffer *b = &n->job.b[r];
        if (!(roles & JOB_BIT(r)) || !b->written) continue;
        if ((got[r] = malloc(b->bytes))) memcpy(got[r], all + at, b->bytes);
        else ok = false, snprintf(why, TIMING_WHY, "no memory to check it with");
        at += b->bytes;
    }
    free(all);
    if (!ok) gpu_release(got);
    return ok;
}

static void enter_process(runner *n, field *f)
{
    char why[TIMING_WHY] = "";
    void *got[JOB_ROLES];
    peer_part parts[JOB_ROLES];
    int count = 0;
    bool fused = false, replayed = is_short(n);
    unsigned roles = gpu_peer_roles(&n->job);
    for (int r = 0; r < JOB_ROLES; r++)
        if (roles & JOB_BIT(r) && n->job.b[r].read) parts[count++] = (peer_part){n->job.b[r].initial, n->job.b[r].bytes};
    entrant *e = enter(n, f, "bitsandbytes", job_cost(&n->job, roles), NULL);
    peer_request request = {.g = n->job.c, .cold = replayed};
    e->c.self = n->peer, e->c.run = peer_run;
    if (replayed && !gpu_peer_has_stream(n->job.c.op)) {
        disqualify(e, "it launches on the default stream, which cannot be recorded: its launches would be timed");
        return;
    }
    if (!peer_setup_parts(n->peer, &request, parts, count, e->how, &fused, why) || !fetch_from_peer(n, got, why)) {
        disqualify(e, why);
        return;
    }
    if (!job_check_peer(&n->job, got, why)) disqualify(e, why);
    gpu_release(got);
}

static void enter_peers(runner *n, field *f)
{
    char why[TIMING_WHY] = "";
    if (gpu_is_product(n->job.c.op) && n->blas) {
        enter_dense(n, f, &f->dense, "cublas", "cuBLAS on decoded weights", GPU_BY_DENSE);
        enter_dense(n, f, &f->decoding, "dequantize+cublas", "fourbit's dequantize, then cuBLAS", GPU_BY_DEQUANTIZED);
        if (gpu_is_lora(n->job.c.op))
            enter_dense(n, f, &f->separate, "gemm+cublas", "fourbit's product with W, then cuBLAS for the adapter", GPU_BY_OURS);
    }
    if (n->peer && gpu_peer_does(&n->job.c, why)) enter_process(n, f);
}

/* ---- a case ----------------------------------------------------------------------------------------------------------------------- */

static void report(const runner *n, int done, int total, const entrant *e, bool hot)
{
    int left = (int)((timing_now() - n->began) / (done + 1) * (total - done - 1));
    fprintf(n->o->progress, "[%*d/%d] %s%s ", total > 99 ? 3 : 2, done + 1, total, e->name, hot ? "/hot" : "");
    if (e->c.failed) fprintf(n->o->progress, "%s: %s", e->unsupported ? "skipped" : "FAILED", e->c.why);
    else if (!e->c.samples) fprintf(n->o->progress, "not timed");
    else fprintf(n->o->progress, "%.2f us", timing_summary(e->c.walls, e->c.samples).median * 1e6);
    fprintf(n->o->progress, "  (%d:%02d left)\n", left / 60, left % 60);
    fflush(n->o->progress);
}

/* Ours, checked. False: it will not be timed. */
static bool enter_ours(runner *n, field *f, const gpu_case *c)
{
    char why[TIMING_WHY] = "";
    bool made = job_make(&n->job, c, why);
    n->job.c = *c;
    entrant *own = enter(n, f, NULL, job_cost(&n->job, job_roles(&n->job)), &f->own.r);
    made = made && gpu_ours_make(&f->own, n->d, &n->job, n->o->backend, n->o->call, why);
    f->own.r.recorded = is_short(n), f->own.r.clocks = n->clocks;
    own->c.self = &f->own.r, own->c.run = gpu_run;
    snprintf(own->how, sizeof own->how, "%s, %d sets, %s", fb_backend_variant(n->o->backend), f->own.r.sets.count,
             f->own.r.recorded ? "replayed" : "launched one by one");
    if (!made) return disqualify(own, why), false;
    check_result checked = gpu_ours_check(&f->own, &n->job);
    if (checked.ok) return true;
    disqualify(own, checked.text);
    own->unsupported = f->own.refused == FB_UNSUPPORTED;
    return false;
}

static bool run_case(runner *n, const gpu_case *c, const bool hots[2], int *done, int total)
{
    field f = {.count = 0};
    bool ok = true, ready = enter_ours(n, &f, c);
    entrant *own = &f.e[0];
    /* a kernel that does not exist yet still has peers to be measured against */
    if (ready && gpu_is_lora(c->op) && !*n->stop) enter_base(n, &f);
    if ((ready || own->unsupported) && !*n->stop) enter_peers(n, &f);
    for (int hot = 0; hot < 2 && ok && !*n->stop; hot++) {
        if (!hots[hot]) continue;
        contender all[CONTENDERS];
        for (int i = 0; i < f.count; i++) all[i] = f.e[i].c;
        if (ready || own->unsupported) timing_rounds(all, f.count, n->rule, !hot, n->stop);
        for (int i = 0; i < f.count; i++) f.e[i].c = all[i];
        check_result again = {.ok = true};
        if (ready && !own->c.failed && !(again = gpu_ours_check(&f.own, &n->job)).ok) disqualify(own, again.text);
        ok = add_rows(n, f.e, f.count, hot);
        report(n, (*done)++, total, own, hot);
    }
    gpu_ours_free(&f.own);
    gpu_ours_free(&f.base);
    gpu_dense_free(&f.dense);
    gpu_dense_free(&f.decoding);
    gpu_dense_free(&f.separate);
    return ok;
}

static int run_all(runner *n)
{
    char why[TIMING_WHY] = "";
    int total = each_wanted(n, false), done = 0;
    for (const gpu_case *c = n->o->cases; c->rows >= 0 && !*n->stop; c++) {
        const bool hots[2] = {wanted(n, c, false), wanted(n, c, true)};
        if (!hots[0] && !hots[1]) continue;
        if (run_case(n, c, hots, &done, total) && results_write(&n->r, false, *n->stop != 0, why)) continue;
        fprintf(stderr, "fourbit-gpu: %s\n", why[0] ? why : "no memory");
        return RUN_FAILED;
    }
    bool interrupted = *n->stop != 0;
    if (!results_write(&n->r, !interrupted, interrupted, why)) {
        fprintf(stderr, "fourbit-gpu: %s\n", why);
        return RUN_FAILED;
    }
    results_table(&n->r, n->o->out);
    if (interrupted) fprintf(n->o->out, "interrupted: %d of %d cases\n", done, total);
    return interrupted ? RUN_INTERRUPTED : results_failures(&n->r) ? RUN_FAILED : RUN_OK;
}

/* ---- set-up -------------------------------------------------------------------------------------------------------------------------- */

static void start_peers(runner *n)
{
    char folder[4096], why[TIMING_WHY] = "not asked for (--peers none)";
    if (n->o->peers && !n->d->caveat) {
        snprintf(folder, sizeof folder, "%s/bitsandbytes", n->o->peers);
        n->peer = peer_start(n->o->peer_server, folder, 1, why);
    } else if (n->d->caveat) snprintf(why, sizeof why, "its memory is a GPU's, and this is the host");
    if (!n->peer) fprintf(n->o->progress, "skipped: peer bitsandbytes: %s\n", why);
    if (!n->blas) fprintf(n->o->progress, "skipped: peers cublas, dequantize+cublas: %s\n", n->blas_missing);
    provenance_set(n->r.context, "bitsandbytes", "%s", why); /* the library's name, when it was started */
    provenance_set(n->r.context, "peers", "%s%s", n->blas ? "cublas, dequantize+cublas" : "", n->peer ? ", bitsandbytes" : "");
}

static bool open_device(runner *n, char *why)
{
    fb_context ctx;
    fb_context_init(&ctx, n->o->backend);
    if (!(n->d = n->o->open(n->o->device, why))) return false;
    if (fb_backend_available(&ctx) == FB_OK) return true;
    snprintf(why, TIMING_WHY, "%s", ctx.message);
    return false;
}

static int with_device(runner *n)
{
    char why[TIMING_WHY] = "";
    if (!results_open(&n->r, n->o->folder, why)) return fprintf(stderr, "fourbit-gpu: --out: %s\n", why), RUN_USAGE;
    n->r.context = provenance(1);
    n->clocks = nvml_open(n->o->nvml, n->d->bus_id, n->clocks_missing);
    if (!n->clocks) fprintf(n->o->progress, "clocks are not recorded: NVML: %s\n", n->clocks_missing);
    if (!n->d->caveat) n->blas = cublas_open(n->d, n->blas_missing);
    else snprintf(n->blas_missing, sizeof n->blas_missing, "its memory is a GPU's, and this is the host");
    gpu_provenance(n->r.context, n->d, n->blas, n->clocks, n->clocks_missing);
    start_peers(n);
    fprintf(n->o->progress, "measuring the ceilings of %s\n", n->d->name);
    n->began = timing_now();
    if (gpu_ceilings(&n->r.ceilings, n->d, n->blas, why)) return run_all(n);
    fprintf(stderr, "fourbit-gpu: the ceilings could not be measured: %s\n", why);
    return RUN_FAILED;
}

int gpu_bench_run(const gpu_options *options, const volatile sig_atomic_t *stop)
{
    runner n = {.o = options, .stop = stop, .rule = options->rule ? options->rule : options->full ? &full_rule : &quick_rule};
    char why[TIMING_WHY] = "";
    int result = RUN_USAGE, error = options->filter ? regcomp(&n.filter, options->filter, REG_EXTENDED | REG_NOSUB) : 0;
    n.filtered = options->filter && error == 0;
    if (error) {
        regerror(error, &n.filter, why, sizeof why);
        return fprintf(stderr, "fourbit-gpu: --filter %s: %s\n", options->filter, why), RUN_USAGE;
    }
    bool room = true;
    for (int i = 0; i < CONTENDERS; i++) room = (n.walls[i] = malloc((size_t)n.rule->ceiling * sizeof(double))) && room;
    if (each_wanted(&n, options->list) == 0) fprintf(stderr, "fourbit-gpu: no case matches (--list shows the names)\n");
    else if (options->list) result = RUN_OK;
    else if (!open_device(&n, why)) {
        fprintf(options->out, "not run: no GPU: %s\n", why);
        result = GPU_RUN_NO_DEVICE;
    } else result = room ? with_device(&n) : RUN_FAILED;
    peer_stop(n.peer);
    job_free(&n.job);
    results_close(&n.r);
    cublas_close(n.blas);
    nvml_close(n.clocks);
    if (n.d) n.d->close(n.d);
    for (int i = 0; i < CONTENDERS; i++) free(n.walls[i]);
    if (n.filtered) regfree(&n.filter);
    return result;
}
