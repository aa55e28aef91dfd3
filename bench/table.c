/* table.c: the summary that ends a run (results.h). */
#include "bench/results.h"

/* What stands between the slashes of a row's name. */
typedef struct parts {
    char op[24], backend[40], format[24], block[24], shape[64];
} parts;

static parts split(const char *name)
{
    parts p = {"", "", "", "", ""};
    sscanf(name, "%23[^/]/%39[^/]/%23[^/]/%23[^/]/%63s", p.op, p.backend, p.format, p.block, p.shape);
    return p;
}

static bool timed(const bench_row *row) { return row->verdict == ROW_TIMED || row->verdict == ROW_ABOVE_ROOF; }
static bool is_peer(const bench_row *row) { return strstr(row->name, "/peer:") != NULL; }

/* The columns of ratios: every peer that any row was compared with. */
static int peers_of(const results *r, const char *peers[ROW_RATIOS])
{
    int n = 0;
    for (int i = 0; i < r->count; i++)
        for (int j = 0; j < r->rows[i].ratios; j++) {
            int k = 0;
            while (k < n && strcmp(peers[k], r->rows[i].ratio[j].peer) != 0) k++;
            if (k == n && n < ROW_RATIOS) peers[n++] = r->rows[i].ratio[j].peer;
        }
    return n;
}

/* A share of a roof that an --alone run did not measure is "-". */
static const char *share(double value, double roof, int digits, char text[24])
{
    if (!(roof > 0)) return "-";
    snprintf(text, 24, "%.*f", digits, 100 * value / roof);
    return text;
}

static void line(const results *r, const bench_row *row, const char *const *peers, int count, FILE *to)
{
    parts p = split(row->name);
    double bytes = row->cost.read + row->cost.written, seconds = row->stats.median;
    fprintf(to, "%-13s %-10s %-11s %-8s %-24s", p.op, p.backend, p.format, p.block, p.shape);
    if (!timed(row)) {
        fprintf(to, "  FAILED\n");
        return;
    }
    char range[32], percent[24];
    snprintf(range, sizeof range, "[%.0f-%.0f]", row->stats.p10 * 1e6, row->stats.p90 * 1e6);
    fprintf(to, " %10.1f %-17s %7.2f %6s", seconds * 1e6, range, bytes / seconds * 1e-9,
            share(bytes / seconds, results_copy_bw(r, row), 0, percent));
    if (row->cost.flops > 0)
        fprintf(to, " %8.4f %6s", row->cost.flops / seconds * 1e-12,
                share(row->cost.flops / seconds, r->ceilings.gemm_peak, 1, percent));
    else
        fprintf(to, " %8s %6s", "-", "-");
    for (int i = 0; i < count; i++) {
        double x = 0;
        for (int j = 0; j < row->ratios; j++)
            if (strcmp(row->ratio[j].peer, peers[i]) == 0) x = row->ratio[j].x;
        int width = (int)strlen(peers[i]) + 2;
        if (x > 0) fprintf(to, " %*.2f", width, x);
        else fprintf(to, " %*s", width, "-");
    }
    fprintf(to, "%s\n", row->verdict == ROW_ABOVE_ROOF ? "  ABOVE THE ROOF" : "");
}

/* Peers' skips by reason: forty rows may have the same one. */
static void skips(const results *r, FILE *to)
{
    for (int i = 0; i < r->count; i++) {
        const bench_row *row = &r->rows[i];
        if (row->verdict != ROW_SKIPPED) continue;
        int same = 0;
        bool seen = false;
        for (int j = 0; j < r->count; j++)
            if (r->rows[j].verdict == ROW_SKIPPED && strcmp(r->rows[j].why, row->why) == 0) {
                if (j < i) seen = true;
                same++;
            }
        if (seen) continue;
        fprintf(to, "skipped: %s", row->name);
        if (same > 1) fprintf(to, " and %d more", same - 1);
        fprintf(to, ": %s\n", row->why);
    }
}

void results_table(const results *r, FILE *to)
{
    const char *peers[ROW_RATIOS];
    int count = peers_of(r, peers), timed_rows = 0;
    fprintf(to, "\n%-13s %-10s %-11s %-8s %-24s %10s %-17s %7s %6s %8s %6s", "op", "backend", "format", "block", "shape",
            "us p50", "[p10-p90]", "GB/s", "% copy", "TFLOP/s", "% peak");
    for (int i = 0; i < count; i++) fprintf(to, " x %s", peers[i]);
    fprintf(to, "\n");
    for (int i = 0; i < r->count; i++) {
        if (!is_peer(&r->rows[i])) line(r, &r->rows[i], peers, count, to);
        timed_rows += timed(&r->rows[i]);
    }
    fprintf(to, "\n");
    skips(r, to);
    fprintf(to, "x: the peer's median over ours, timed in the same rounds; above 1 ours is faster. Caches cold, except /hot.\n");
    const ceilings *c = &r->ceilings;
    fprintf(to, "ceilings: copy %.1f GB/s (%s)", c->copy_bw * 1e-9, c->copy_by ? c->copy_by : "not measured");
    if (c->read_bw > 0) fprintf(to, ", read %.1f GB/s", c->read_bw * 1e-9);
    if (c->fma_peak > 0) fprintf(to, ", sgemm %.3f TFLOP/s, fp32 registers %.3f", c->fp32_gemm * 1e-12, c->fma_peak * 1e-12);
    fprintf(to, ", bf16 %.3f TFLOP/s (%s)\n", c->bf16_peak * 1e-12, c->bf16_by ? c->bf16_by : "not measured");
    bandwidth_range seen;
    int held = results_bandwidths(r, &seen);
    if (held) {
        fprintf(to, "%% copy of the %d rows that memory bounds is of copies in their own rounds: %.1f to %.1f GB/s, reads %.1f to %.1f",
                held, seen.copy[0] * 1e-9, seen.copy[1] * 1e-9, seen.read[0] * 1e-9, seen.read[1] * 1e-9);
        fprintf(to, "; at the start copy %.1f, read %.1f\n", r->start_copy_bw * 1e-9, r->start_read_bw * 1e-9);
    }
    for (int i = 0; i < r->count; i++)
        if (r->rows[i].verdict == ROW_FAILED || r->rows[i].verdict == ROW_ABOVE_ROOF)
            fprintf(to, "%s: %s: %s\n", r->rows[i].verdict == ROW_FAILED ? "FAILED" : "ABOVE THE ROOF", r->rows[i].name, r->rows[i].why);
    fprintf(to, "%d rows timed, %d failed\n", timed_rows, results_failures(r));
}
