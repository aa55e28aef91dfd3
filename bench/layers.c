/* layers.c: the models' layers, what is timed on each, and the list of cases that makes (layers.h). */
#include "bench/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
const bench_layer bench_layers[] = {
    /* model           part        N      K      from the models' published configurations */
    {"qwen2.5-0.5b",  "q o",        896,    896},
    {"qwen2.5-0.5b",  "k v",        128,    896},
    {"qwen2.5-0.5b",  "gate up",   4864,    896},
    {"qwen2.5-0.5b",  "down",       896,   4864},
    {"qwen2.5-1.5b",  "q o",       1536,   1536},
    {"qwen2.5-1.5b",  "k v",        256,   1536},
    {"qwen2.5-1.5b",  "gate up",   8960,   1536},
    {"qwen2.5-1.5b",  "down",      1536,   8960},
    {"llama-2-7b",    "q k v o",   4096,   4096},
    {"llama-2-7b",    "gate up",  11008,   4096},
    {"llama-2-7b",    "down",      4096,  11008},
    {"llama-2-13b",   "q k v o",   5120,   5120},
    {"llama-2-13b",   "gate up",  13824,   5120},
    {"llama-2-13b",   "down",      5120,  13824},
    {"llama-3-8b",    "q o",       4096,   4096},
    {"llama-3-8b",    "k v",       1024,   4096},
    {"llama-3-8b",    "gate up",  14336,   4096},
    {"llama-3-8b",    "down",      4096,  14336},
    {"llama-3-70b",   "q o",       8192,   8192},
    {"llama-3-70b",   "k v",       1024,   8192},
    {"llama-3-70b",   "gate up",  28672,   8192},
    {"llama-3-70b",   "down",      8192,  28672},
    {NULL, NULL, 0, 0}};

#define QF (CASE_QUICK | CASE_FULL)
enum { MOST_MS = 13 };
static const struct sweep {
    fb_op op;
    bool double_quant;
    int32_t rank;
    unsigned sets;
    int64_t m[MOST_MS]; /* 0 ends it */
} sweeps[] = {
    /* operation            dq    rank  profile     rows of activations; NF4, block 64, bf16 */
    {FB_OP_GEMM,          false,    0,  QF,         {1, 16, 64, 256, 2048}},
    {FB_OP_GEMM,          false,    0,  CASE_FULL,  {2, 4, 8, 32, 128, 512, 1024, 4096}},
    {FB_OP_GEMM_DX,       false,    0,  QF,         {16, 2048}},
    {FB_OP_GEMM_DX,       false,    0,  CASE_FULL,  {1, 2, 4, 8, 32, 64, 128, 256, 512, 1024, 4096}},
    {FB_OP_LORA_FORWARD,  false,   16,  QF,         {2048}},
    {FB_OP_LORA_FORWARD,  false,   16,  CASE_FULL,  {1, 16, 256, 512, 4096}},
    {FB_OP_LORA_FORWARD,  false,   64,  CASE_FULL,  {512, 2048}},
    {FB_OP_LORA_BACKWARD, false,   16,  QF,         {2048}},
    {FB_OP_LORA_BACKWARD, false,   16,  CASE_FULL,  {256, 512, 4096}},
    {FB_OP_GEMM,          true,     0,  QF,         {1}},
    {FB_OP_GEMM,          true,     0,  CASE_FULL,  {16, 512, 4096}},
    {FB_OP_GEMM_DX,       true,     0,  CASE_FULL,  {16, 4096}},
};
/* clang-format on */

/* Whether name is among the words of models. */
static bool listed(const char *models, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = models; (at = strstr(at, name)); at += n)
        if ((at == models || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

static bool known(const char *models, char *why)
{
    char text[TIMING_WHY] = "", one[64];
    for (const bench_layer *l = bench_layers; l->model; l++)
        if (!listed(text, l->model)) snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? "," : "", l->model);
    for (const char *at = models;; at++) {
        const size_t n = strcspn(at, ",");
        snprintf(one, sizeof one, "%.*s", (int)n, at);
        if (n == 0 || n >= sizeof one || !listed(text, one)) {
            snprintf(why, TIMING_WHY, "all, none, or some of %.300s", text);
            return false;
        }
        if (!*(at += n)) return true;
    }
}

/* Other than by the lists they are in. */
static bool same_case(const fb_case *a, const fb_case *b)
{
    return a->op == b->op && a->format == b->format && a->block_size == b->block_size && a->double_quant == b->double_quant && a->rows == b->rows &&
           a->cols == b->cols && a->m == b->m && a->dtype == b->dtype && a->rank == b->rank;
}

typedef struct case_list {
    fb_case *c;
    size_t count, room;
} case_list;

/* A case that is there already is in the lists of both. */
static bool add(case_list *list, const fb_case *c)
{
    for (size_t i = 0; i < list->count && !(c->sets & CASE_TEST); i++)
        if (same_case(&list->c[i], c)) return list->c[i].sets |= c->sets, true;
    if (list->count == list->room) {
        const size_t room = list->room ? 2 * list->room : 512;
        fb_case *more = realloc(list->c, room * sizeof *more);
        if (!more) return false;
        list->c = more, list->room = room;
    }
    list->c[list->count++] = *c;
    return true;
}

static bool add_layer(case_list *list, const bench_layer *l, unsigned sets)
{
    for (size_t s = 0; s < sizeof sweeps / sizeof *sweeps; s++)
        for (int i = 0; i < MOST_MS && sweeps[s].m[i] && (sweeps[s].sets & sets); i++) {
            const struct sweep *w = &sweeps[s];
            const fb_case c = {w->op, FB_NF4, 64, w->double_quant, l->n, l->k, w->m[i], FB_BF16, w->sets, w->rank};
            if (!add(list, &c)) return false;
        }
    return true;
}

fb_case *bench_layer_cases(const char *models, unsigned sets, const fb_case *base, char why[TIMING_WHY])
{
    const bool all = strcmp(models, "all") == 0, none = strcmp(models, "none") == 0;
    case_list list = {NULL, 0, 0};
    bool ok = all || none || known(models, why);
    if (!ok) return NULL;
    const fb_case *c = base;
    for (; ok && c->rows >= 0; c++) ok = add(&list, c);
    for (const bench_layer *l = bench_layers; ok && !none && l->model; l++)
        if (all || listed(models, l->model)) ok = add_layer(&list, l, sets);
    const fb_case end = {FB_OP_COUNT, FB_NF4, 64, false, -1, -1, 0, FB_F32, CASE_TEST, 0};
    if (ok && add(&list, &end)) return list.c;
    free(list.c);
    snprintf(why, TIMING_WHY, "no memory for the list of cases");
    return NULL;
}
