/* ceilings.h: what this machine can do, measured in the same run as what is compared with it.
 *
 *   copy_bw      bytes read + bytes written a second of the fastest copy found: memcpy, or vector loads
 *                and non-temporal stores; every thread, buffers of 4 caches
 *   read_bw      the fastest sum over such a buffer
 *
 * On a machine that others use the bandwidth is another one minutes later (60 and 105 GB/s were seen in one run), so
 * what is bound by memory is held against passes in its own rounds (ceilings_sweep), not against these two.
 *
 *   fp32_gemm    OpenBLAS sgemm, 2048^3
 *   fma_peak     fp32 multiply-adds on registers alone, the widest vectors: above it nothing can be
 *   bf16_peak    bf16 products on registers alone: AMX tiles, else AVX512-BF16; 0 without either
 *   gemm_peak    the larger of fp32_gemm and bf16_peak: what pct_gemm_peak is a share of
 */
#ifndef FOURBIT_BENCH_CEILINGS_H
#define FOURBIT_BENCH_CEILINGS_H

#include "bench/timing.h"

typedef struct ceilings {
    double copy_bw, read_bw;                       /* bytes a second */
    double fp32_gemm, fma_peak, bf16_peak, gemm_peak; /* floating-point operations a second */
    const char *copy_by, *read_by, *bf16_by;       /* "memcpy", "non-temporal AVX2" ...; "amx", "avx512-bf16", "none" */
    int rounds;                                    /* times they were measured */
} ceilings;

/* Measures and keeps the larger of what was known and what is found: a busy
 * machine only ever hides a ceiling. About a second. False: no memory. */
bool ceilings_measure(ceilings *c, int threads);

/* A timed product that beat the sgemm measured before it raises that ceiling. */
void ceilings_saw_gemm(ceilings *c, double flops_per_second);

/* ---- the bandwidth of the moment ------------------------------------------------------------------ */

typedef struct ceilings_memory {
    char *src, *dst;
    size_t bytes; /* of each: four caches */
} ceilings_memory;

/* A contender of a case's rounds: a sample is one pass over a quarter of the memory, the next one each time, so that a cache
 * which keeps what is used again has none of it; the way that was fastest when c was measured. The copy's turn is before the read's, which reads what was copied: past the caches, or they are emptied once more. */
typedef struct ceilings_sweep {
    const ceilings_memory *memory;
    bool copies;  /* or reads */
    bool evicts;  /* cold: empties the caches before */
    const char *way;
    int threads;
    double moved; /* bytes a pass, read + written */
    unsigned at;  /* passes made */
} ceilings_sweep;

/* False: no memory; ceilings_memory_free is right in either case. */
bool ceilings_memory_make(ceilings_memory *m);
void ceilings_memory_free(ceilings_memory *m);
ceilings_sweep ceilings_sweep_of(const ceilings *c, const ceilings_memory *m, bool copies, int threads);
bool ceilings_sweep_run(void *self, int calls, bool cold, timing_span *span, char why[TIMING_WHY]); /* contender.run */

/* ---- the roof ----------------------------------------------------------------------------------------- */

/* How far above the roof a point is: > 1 is a harness bug (miscounted bytes, work
 * that was optimised away). read, written: bytes of one call; cached: they may all come
 * from the cache (hot). Writes up to the cache's size may still be in it when the
 * clock stops, so they do not count against the memory's roof. */
double ceilings_excess(const ceilings *c, double read, double written, double flops, double seconds, bool cached);
/* How much above the roof a point may be before it is flagged: timer and ceilings have noise. */
#define CEILINGS_SLACK 1.10

#endif
