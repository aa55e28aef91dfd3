/* ceilings.c: bandwidth and arithmetic that this machine reaches (ceilings.h). */
#include "bench/ceilings.h"

#include <cblas.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { TRIES = 5, GEMM_SIZE = 2048, LOOPS = 1 << 20, CACHES = 4, PART = 2 << 20 /* bytes, a large page */ };

/* ---- bandwidth: each works on one part ----------------------------------------------------------- */

typedef uint64_t part_fn(char *dst, const char *src, size_t bytes); /* returns something of all it read */

static uint64_t copy_memcpy(char *dst, const char *src, size_t bytes)
{
    memcpy(dst, src, bytes);
    return (uint64_t)dst[bytes - 1];
}

static uint64_t read_words(char *dst, const char *src, size_t bytes)
{
    const uint64_t *p = (const uint64_t *)(const void *)src;
    uint64_t sum[8] = {0};
    (void)dst;
    for (size_t i = 0; i + 8 <= bytes / 8; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += p[i + (size_t)j];
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static uint64_t copy_stream(char *dst, const char *src, size_t bytes)
{
    for (size_t i = 0; i + 128 <= bytes; i += 128)
        for (size_t j = 0; j < 128; j += 32)
            _mm256_stream_si256((__m256i *)(void *)(dst + i + j), _mm256_load_si256((const __m256i *)(const void *)(src + i + j)));
    _mm_sfence();
    return (uint64_t)dst[0];
}

__attribute__((target("avx2"))) static uint64_t read_avx2(char *dst, const char *src, size_t bytes)
{
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    (void)dst;
    for (size_t i = 0; i + 128 <= bytes; i += 128) {
        const __m256i *p = (const __m256i *)(const void *)(src + i);
        a = _mm256_add_epi64(a, _mm256_load_si256(p)), b = _mm256_add_epi64(b, _mm256_load_si256(p + 1));
        c = _mm256_add_epi64(c, _mm256_load_si256(p + 2)), d = _mm256_add_epi64(d, _mm256_load_si256(p + 3));
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    return (uint64_t)_mm256_extract_epi64(a, 0) + (uint64_t)_mm256_extract_epi64(a, 3);
}
#endif

typedef struct way { const char *name; part_fn *fn; bool copies, avx2, streams; } way;
static const way ways[] = {
    {"memcpy", copy_memcpy, true, false, false},
    {"64-bit words", read_words, false, false, false},
#ifdef __x86_64__
    {"non-temporal AVX2", copy_stream, true, true, true},
    {"AVX2", read_avx2, false, true, false},
#endif
};
enum { WAYS = sizeof ways / sizeof *ways };

static bool usable(const way *w)
{
#ifdef __x86_64__
    return !w->avx2 || __builtin_cpu_supports("avx2");
#else
    return !w->avx2;
#endif
}

/* One pass over the whole buffers, evenly split. Turns of 256 KB for whoever is free reached 15 to 20 % less, of 2 MB no more. */
static void pass(const way *w, const ceilings_memory *m, int threads)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(static)
    for (size_t i = 0; i < m->bytes; i += PART) sum += w->fn(m->dst + i, (w->copies ? m->src : m->dst) + i, PART);
    __asm__ volatile("" ::"r"(sum)); /* a sum that nobody used would not be made */
}

bool ceilings_memory_make(ceilings_memory *m)
{
    m->bytes = (timing_cache_bytes() + PART - 1) / PART * PART * CACHES;
    m->src = aligned_alloc(PART, m->bytes), m->dst = aligned_alloc(PART, m->bytes);
    if (m->src && m->dst) memset(m->src, 1, m->bytes), memset(m->dst, 2, m->bytes); /* touches the pages */
    return m->src && m->dst;
}

void ceilings_memory_free(ceilings_memory *m)
{
    free(m->src), free(m->dst);
    *m = (ceilings_memory){NULL, NULL, 0};
}

static bool measure_bandwidth(ceilings *c, int threads)
{
    ceilings_memory m;
    bool ok = ceilings_memory_make(&m);
    for (int i = 0; ok && i < WAYS; i++) {
        const way *w = &ways[i];
        if (!usable(w)) continue;
        double best = 1e30;
        for (int t = 0; t < TRIES; t++) {
            double start = timing_now();
            pass(w, &m, threads);
            double seconds = timing_now() - start;
            if (t > 0 && seconds < best) best = seconds; /* the first wakes the threads */
        }
        double rate = (w->copies ? 2 : 1) * (double)m.bytes / best;
        if (w->copies && rate > c->copy_bw) c->copy_bw = rate, c->copy_by = w->name;
        if (!w->copies && rate > c->read_bw) c->read_bw = rate, c->read_by = w->name;
    }
    ceilings_memory_free(&m);
    return ok;
}

/* The fastest, or the plainest where none is named. */
static const way *way_named(const char *name, bool copies)
{
    const way *found = NULL;
    for (int i = 0; i < WAYS; i++)
        if (usable(&ways[i]) && ways[i].copies == copies && (!found || (name && strcmp(name, ways[i].name) == 0))) found = &ways[i];
    return found;
}

ceilings_sweep ceilings_sweep_of(const ceilings *c, const ceilings_memory *m, bool copies, int threads)
{
    const bool streams = way_named(c->copy_by, true)->streams;
    return (ceilings_sweep){m, copies, copies || !streams, copies ? c->copy_by : c->read_by, threads,
                            (copies ? 2 : 1) * (double)(m->bytes / CACHES), 0};
}

bool ceilings_sweep_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY])
{
    ceilings_sweep *s = self;
    const way *w = way_named(s->way, s->copies);
    if (cold && s->evicts && !timing_evict(s->threads)) {
        snprintf(why, TIMING_WHY, "no memory to empty the caches with");
        return false;
    }
    double wall = timing_now(), cpu = timing_cpu_now();
    for (int i = 0; i < calls; i++, s->at++) {
        const size_t bytes = s->memory->bytes / CACHES, from = s->at % CACHES * bytes;
        pass(w, &(ceilings_memory){s->memory->src + from, s->memory->dst + from, bytes}, s->threads);
    }
    *span = (timing_span){timing_now() - wall, timing_cpu_now() - cpu};
    return true;
}

/* ---- arithmetic: each returns the operations it did on one thread --------------------------------- */

typedef double flops_fn(void);

#ifdef __x86_64__
/* Ten independent accumulators cover the latency (4) times the ports (2) of every core so far. */
__attribute__((target("avx2,fma"))) static double fma_avx2(void)
{
    __m256 acc[10], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int j = 0; j < 10; j++) acc[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 10
        for (int j = 0; j < 10; j++) acc[j] = _mm256_fmadd_ps(acc[j], x, y);
        __asm__ volatile("" : "+x"(x)); /* or the loop is hoisted into one iteration */
    }
    for (int j = 0; j < 10; j++) __asm__ volatile("" ::"x"(acc[j]));
    return 2.0 * 8 * 10 * LOOPS;
}

__attribute__((target("avx512f"))) static double fma_avx512(void)
{
    __m512 acc[10], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (int j = 0; j < 10; j++) acc[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 10
        for (int j = 0; j < 10; j++) acc[j] = _mm512_fmadd_ps(acc[j], x, y);
        __asm__ volatile("" : "+v"(x));
    }
    for (int j = 0; j < 10; j++) __asm__ volatile("" ::"v"(acc[j]));
    return 2.0 * 16 * 10 * LOOPS;
}

__attribute__((target("avx512f,avx512bf16"))) static double dot_bf16(void)
{
    __m512 acc[10];
    __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00), y = (__m512bh)_mm512_set1_epi16(0x3a00);
    for (int j = 0; j < 10; j++) acc[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < LOOPS; i++) {
#pragma GCC unroll 10
        for (int j = 0; j < 10; j++) acc[j] = _mm512_dpbf16_ps(acc[j], x, y);
        __asm__ volatile("" : "+v"(x));
    }
    for (int j = 0; j < 10; j++) __asm__ volatile("" ::"v"(acc[j]));
    return 2.0 * 32 * 10 * LOOPS;
}

/* Four accumulator tiles of 16 x 16 fp32, two tiles of each operand: 8192 multiply-adds an instruction. */
__attribute__((target("amx-tile,amx-bf16"))) static double tiles_amx(void)
{
    static const struct { uint8_t palette, start, reserved[14]; uint16_t bytes_a_row[16]; uint8_t rows[16]; } shape
        __attribute__((aligned(64))) = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shape);
    /* gcc's are statements, not expressions */
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
    for (int i = 0; i < LOOPS / 16; i++) {
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 2.0 * 8192 * 4 * (LOOPS / 16);
}

static bool cpu_has(unsigned leaf, unsigned subleaf, int reg, int bit)
{
    unsigned r[4] = {0};
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
    return r[reg] >> bit & 1;
}

/* CPUID 7.0: EDX 22 amx-bf16, 24 amx-tile; the kernel gives tile registers on request (XFEATURE 18). */
static bool amx_usable(void)
{
    enum { REQUEST_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return cpu_has(7, 0, 3, 22) && cpu_has(7, 0, 3, 24) && syscall(SYS_arch_prctl, REQUEST_XCOMP_PERM, TILE_DATA) == 0;
}
#endif

static double best_flops(flops_fn *fn, int threads)
{
    double best = 0;
    for (int t = 0; t < TRIES; t++) {
        double flops = 0, start = timing_now();
#pragma omp parallel for num_threads(threads) reduction(+ : flops) schedule(static, 1)
        for (int i = 0; i < threads; i++) flops += fn();
        double rate = flops / (timing_now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static void raise_to(double *ceiling, double found)
{
    if (found > *ceiling) *ceiling = found;
}

static bool measure_gemm(ceilings *c)
{
    size_t n = (size_t)GEMM_SIZE * GEMM_SIZE;
    float *a = malloc(3 * n * sizeof *a);
    if (!a) return false;
    for (size_t i = 0; i < 2 * n; i++) a[i] = (float)(i % 1021) / 1021;
    for (int t = 0; t < TRIES; t++) {
        double start = timing_now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, 1, a, GEMM_SIZE, a + n,
                    GEMM_SIZE, 0, a + 2 * n, GEMM_SIZE);
        raise_to(&c->fp32_gemm, 2.0 * GEMM_SIZE * (double)n / (timing_now() - start));
    }
    free(a);
    return true;
}

void ceilings_saw_gemm(ceilings *c, double flops_per_second)
{
    raise_to(&c->fp32_gemm, flops_per_second);
    raise_to(&c->fma_peak, c->fp32_gemm); /* also where there is no vector loop for this CPU */
    c->gemm_peak = c->bf16_peak > c->fp32_gemm ? c->bf16_peak : c->fp32_gemm;
}

bool ceilings_measure(ceilings *c, int threads)
{
    if (!c->bf16_by) c->bf16_by = "none";
    if (!measure_bandwidth(c, threads) || !measure_gemm(c)) return false;
#ifdef __x86_64__
    bool wide = __builtin_cpu_supports("avx512f");
    if (wide) raise_to(&c->fma_peak, best_flops(fma_avx512, threads));
    else if (__builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2")) raise_to(&c->fma_peak, best_flops(fma_avx2, threads));
    if (amx_usable()) c->bf16_by = "amx", raise_to(&c->bf16_peak, best_flops(tiles_amx, threads));
    else if (wide && cpu_has(7, 1, 0, 5)) c->bf16_by = "avx512-bf16", raise_to(&c->bf16_peak, best_flops(dot_bf16, threads));
#endif
    ceilings_saw_gemm(c, 0);
    c->rounds++;
    return true;
}

double ceilings_excess(const ceilings *c, double read, double written, double flops, double seconds, bool cached)
{
    double bandwidth = c->read_bw > c->copy_bw ? c->read_bw : c->copy_bw, cache = (double)timing_cache_bytes();
    double arithmetic = c->bf16_peak > c->fma_peak ? c->bf16_peak : c->fma_peak;
    double moved = cached ? 0 : read + (written > cache ? written - cache : 0);
    double least = moved / bandwidth > flops / arithmetic ? moved / bandwidth : flops / arithmetic;
    return least / seconds;
}
