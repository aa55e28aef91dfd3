/* tune_select.c: from times to rows, and rows into the table's text (tune.h). Nothing here measures anything. */
#include "bench/tune.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

/* clang-format off */
const tune_candidate tune_candidates[TUNE_CANDIDATES] = {
    /* path         blocks  M from    to   a tile that pads M eightfold is not worth its time */
    {FB_GEMM_SMALL,      1,     1,    16},
    {FB_GEMM_SMALL,      2,     1,    16},
    {FB_GEMM_SMALL,      4,     1,    16},
    {FB_GEMM_TILE_16,    1,     1,    64},
    {FB_GEMM_TILE_16,    2,     1,    64},
    {FB_GEMM_TILE_32,    1,     8,   128},
    {FB_GEMM_TILE_32,    2,     8,   128},
    {FB_GEMM_TILE_64,    1,    16,   512},
    {FB_GEMM_TILE_64,    2,    16,   512},
    {FB_GEMM_TILE_128,   0,    32,  4096},
    {FB_GEMM_TILE_128,   1,    32,  4096},
    {FB_GEMM_TILE_256,   0,    32,  4096},
    {FB_GEMM_TILE_256,   1,    32,  4096},
    {FB_GEMM_HOPPER,     0,     1,  4096},
};

const tune_plan tune_usual = {
    .classes = {{(int64_t)1 << 22, {{1536, 1536}, {1024, 4096}}},  /* layers of a 1.5B model, keys and values of an 8B one */
                {(int64_t)1 << 25, {{4096, 4096}, {5120, 5120}}},  /* 7B, 13B */
                {0,                {{14336, 4096}, {8192, 8192}}}},
    .m = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}};
/* clang-format on */

const char *tune_path_name(fb_gemm_path path)
{
    static const char *const names[FB_GEMM_PATHS] = {[FB_GEMM_ANY] = "FB_GEMM_ANY", [FB_GEMM_TILE_16] = "FB_GEMM_TILE_16",
        [FB_GEMM_TILE_32] = "FB_GEMM_TILE_32", [FB_GEMM_TILE_64] = "FB_GEMM_TILE_64", [FB_GEMM_TILE_128] = "FB_GEMM_TILE_128",
        [FB_GEMM_TILE_256] = "FB_GEMM_TILE_256", [FB_GEMM_SMALL] = "FB_GEMM_SMALL", [FB_GEMM_HOPPER] = "FB_GEMM_HOPPER"};
    return (unsigned)path < FB_GEMM_PATHS && names[path] ? names[path] : "?";
}

/* ---- choice --------------------------------------------------------------------------------------------------------- */

/* Mean of the logarithms of time over the best time, over the shapes; INFINITY: it does not serve all of them. */
static double score(const tune_times *t, int class, int m, int candidate)
{
    double sum = 0;
    for (int s = 0; s < TUNE_SHAPES; s++) {
        const double *us = t->us[class][s][m];
        double best = INFINITY;
        for (int k = 0; k < TUNE_CANDIDATES; k++)
            if (us[k] > 0 && us[k] < best) best = us[k];
        if (!(us[candidate] > 0)) return INFINITY;
        sum += log(us[candidate] / best);
    }
    return sum / TUNE_SHAPES;
}

int tune_best(const tune_times *t, int class, int m, int before)
{
    int best = -1;
    double least = INFINITY;
    for (int k = 0; k < TUNE_CANDIDATES; k++) {
        const double s = score(t, class, m, k);
        if (s < least) least = s, best = k;
    }
    return best >= 0 && before >= 0 && score(t, class, m, before) <= least + log1p(TUNE_NOISE) ? before : best;
}

int tune_select(const tune_times *t, const tune_plan *plan, int arch, fb_gemm_rule rows[TUNE_ROWS])
{
    int count = 0;
    for (int c = 0; c < TUNE_CLASSES; c++) {
        int before = -1;
        for (int m = 0; m < TUNE_MS && plan->m[m]; m++) {
            const int best = tune_best(t, c, m, before);
            const int64_t most = m == TUNE_MS - 1 || !plan->m[m + 1] ? FB_ANY_M : plan->m[m];
            if (best >= 0 && best == before) rows[count - 1].m_most = most;
            else if (best >= 0) rows[count++] = (fb_gemm_rule){arch, most, plan->classes[c].weights_most, tune_candidates[best].path, tune_candidates[best].blocks};
            before = best;
        }
    }
    return count;
}

/* ---- text ------------------------------------------------------------------------------------------------------------- */

static const char measured_mark[] = "    /* measured: sm", predicted_mark[] = "    /* predicted */";

typedef struct text {
    char *p;
    size_t used, room;
    bool failed;
} text;

static void put(text *t, const char *from, size_t n)
{
    if (t->used + n + 1 > t->room) {
        const size_t room = 2 * (t->used + n + 1);
        char *more = realloc(t->p, room);
        if (!more) {
            t->failed = true;
            return;
        }
        t->p = more, t->room = room;
    }
    memcpy(t->p + t->used, from, n);
    t->p[t->used += n] = '\0';
}

static void put_rows(text *t, int arch, const char *where, const fb_gemm_rule *rows, int count)
{
    char line[256], most[32], path[32];
    put(t, line, (size_t)snprintf(line, sizeof line, "%s%d, %.180s */\n", measured_mark, arch, where));
    for (int i = 0; i < count; i++) {
        const fb_gemm_rule *r = &rows[i];
        snprintf(most, sizeof most, "%lld", (long long)r->m_most);
        snprintf(path, sizeof path, "%s,", tune_path_name(r->path));
        put(t, line, (size_t)snprintf(line, sizeof line, "    {%3d, %11s, %11lld, %-17s %6d },\n", r->arch, r->m_most == FB_ANY_M ? "FB_ANY_M" : most,
                                      (long long)r->weights_most, path, r->blocks));
    }
}

char *tune_table(const char *old, int arch, const char *where, const fb_gemm_rule *rows, int count, char why[TIMING_WHY])
{
    text t = {NULL, 0, 0, false};
    bool kept = true, placed = false, predicted = false;
    for (const char *line = old, *next; *line; line = next) {
        const size_t n = strcspn(line, "\n") + 1;
        next = line[n - 1] ? line + n : line + n - 1;
        const bool measured = strncmp(line, measured_mark, sizeof measured_mark - 1) == 0;
        const int of = measured ? atoi(line + sizeof measured_mark - 1) : 0;
        if (strncmp(line, predicted_mark, sizeof predicted_mark - 1) == 0) predicted = kept = true;
        if (measured) kept = of != arch;
        if (!placed && ((measured && of < arch) || predicted)) put_rows(&t, arch, where, rows, count), placed = true;
        if (kept) put(&t, line, (size_t)(next - line));
    }
    if (predicted && !t.failed) return t.p;
    free(t.p);
    snprintf(why, TIMING_WHY, "%s", predicted ? "no memory" : "it has no line \"/* predicted */\": not a table that make tune knows");
    return NULL;
}
