/* cpu.h: what the files of the CPU backend share. Internal.
 *
 * An operation is one template, NAME_kernel.h, written on the small vector
 * vocabulary of vec_avx2.h, vec_avx512.h and vec_portable.h (same names, another width), and one
 * file an instruction set, NAME_avx2.c, that includes the two. So what a test proves
 * of one instruction set's loops, tails and order of operations holds for the other's;
 * only the vocabulary itself differs.
 *
 *     cpu_ops.c            which instruction set runs: one table each
 *     cpu.h                slots, threads, workspace arithmetic, absmax of a block
 *     vec_*.h              the vocabulary: decode 32 codes, find 32 codes, fp32 vectors
 *     decode.h             weights of any span of a matrix, in fp32
 *     words.c, words_*.h   codes of bf16 by its bits: tables and vocabulary; quantize_words.h is the operation on them
 *     microkernel.h        the register tile both products end in
 *     pairs.h              both products on units that multiply pairs of bf16: vec_avx512bf16.h, vec_amx.h;
 *                          pairs_tables.h, pairs_columns.h: weights for them, straight from codes
 *     *_kernel.h           the operations
 *
 * Threads: OpenMP. Each output is made by one thread in an order that does not
 * depend on how many there are. */
#ifndef FOURBIT_CPU_H
#define FOURBIT_CPU_H

#include "backend.h"

#include <omp.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ---- slots --------------------------------------------------------------------- */

#define CPU_DECLARE_SLOTS(isa)                                                                                   \
    fb_status cpu_quantize_##isa(fb_context *, const void *, fb_dtype, fb_matrix *);                             \
    fb_status cpu_dequantize_##isa(fb_context *, const fb_matrix *, void *, fb_dtype);                           \
    fb_status cpu_double_quantize_##isa(fb_context *, const float *, int64_t, uint8_t *, float *, float *);      \
    fb_status cpu_quantize8_##isa(fb_context *, fb_map8, const void *, fb_dtype, int64_t, int32_t, uint8_t *,    \
                                  float *);                                                                      \
    fb_status cpu_dequantize8_##isa(fb_context *, fb_map8, const uint8_t *, const float *, int64_t, int32_t,     \
                                    void *, fb_dtype);                                                           \
    fb_status cpu_gemm_##isa(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, const void *,     \
                             void *, fb_dtype);                                                                  \
    fb_status cpu_gemm_dx_##isa(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, void *,        \
                                fb_dtype, bool);                                                                 \
    fb_status cpu_decode_absmax_##isa(fb_context *, const uint8_t *, const float *, const float *, const float *, \
                                      int64_t, float *);                                                          \
    fb_status cpu_normalize_##isa(fb_context *, const void *, fb_dtype, int64_t, void *, fb_dtype, float *);      \
    fb_status cpu_denormalize_##isa(fb_context *, const void *, fb_dtype, int64_t, const float *, void *,         \
                                    fb_dtype);                                                                    \
    fb_status cpu_adamw32_##isa(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, \
                                float *, float *);                                                                \
    fb_status cpu_adamw8_##isa(fb_context *, const fb_adamw *, int64_t, void *, fb_dtype, const void *, fb_dtype, \
                               uint8_t *, float *, uint8_t *, float *);                                           \
    size_t cpu_lora_workspace_##isa(const fb_context *, fb_op, const fb_matrix *, int32_t, int64_t, fb_dtype);   \
    fb_weights cpu_lora_weights_##isa(const fb_context *, fb_op, const fb_matrix *, int32_t, int64_t, fb_dtype); \
    fb_status cpu_lora_forward_##isa(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *,    \
                                     fb_dtype, const void *, void *, fb_dtype, void *);                          \
    fb_status cpu_lora_backward_##isa(fb_context *, const fb_matrix *, const fb_lora *, int64_t, const void *,   \
                                      const void *, const void *, fb_dtype, void *, fb_dtype, bool, float *,     \
                                      float *, bool);                                                            \
    size_t cpu_gemm_workspace_##isa(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);                 \
    size_t cpu_gemm_dx_workspace_##isa(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);
CPU_DECLARE_SLOTS(portable)
CPU_DECLARE_SLOTS(avx2)
CPU_DECLARE_SLOTS(avx512)

/* What has slots of its own on bf16 units; the rest is AVX-512's. */
#define CPU_DECLARE_PRODUCTS(isa)                                                                                \
    fb_status cpu_gemm_##isa(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, const void *,     \
                             void *, fb_dtype);                                                                  \
    fb_status cpu_gemm_dx_##isa(fb_context *, const fb_matrix *, int64_t, const void *, fb_dtype, void *,        \
                                fb_dtype, bool);                                                                 \
    size_t cpu_gemm_workspace_##isa(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);                 \
    size_t cpu_gemm_dx_workspace_##isa(const fb_context *, const fb_matrix *, int64_t m, fb_dtype);
CPU_DECLARE_PRODUCTS(avx512bf16)
CPU_DECLARE_PRODUCTS(amx)
bool cpu_amx_usable(void); /* asks the operating system for tile registers, too */

/* What bf16 units take, of bf16 activations: gemm from one row on where rows of W are whole steps of 128 (gemm_pairs_few.h),
 * else from the rows on that pay for a panel. FB_BATCH_INVARIANT: panels at any M, as a row's bits must not depend on the others. */
enum {
    CPU_PAIRS_STEP = 128,
    CPU_PAIRS_FROM = 8,
    CPU_PAIRS_FEW = 64,          /* gemm: to so many rows */
    CPU_PAIRS_DX_FROM = 32,
    CPU_PAIRS_DX_FROM_STEPS = 5, /* where rows of W are whole steps */
    CPU_PAIRS_DX_FEW = 4         /* gemm_dx: to so many (gemm_dx_pairs_few.h) */
};
static inline bool cpu_takes_few_pairs(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return t == FB_BF16 && m <= CPU_PAIRS_FEW && w->cols > 0 && w->cols % CPU_PAIRS_STEP == 0 &&
           !(ctx->flags & FB_BATCH_INVARIANT);
}
static inline bool cpu_takes_pairs(const fb_context *ctx, int64_t m, fb_dtype t)
{
    return t == FB_BF16 && (m >= CPU_PAIRS_FROM || ctx->flags & FB_BATCH_INVARIANT);
}
static inline bool cpu_dx_takes_few_pairs(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return t == FB_BF16 && m > 0 && m <= CPU_PAIRS_DX_FEW && w->cols > 0 && w->cols % CPU_PAIRS_STEP == 0 && !(ctx->flags & FB_BATCH_INVARIANT);
}
static inline bool cpu_dx_takes_pairs(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    const int64_t from = w->cols % CPU_PAIRS_STEP ? CPU_PAIRS_DX_FROM : CPU_PAIRS_DX_FROM_STEPS;
    return t == FB_BF16 && (m >= from || ctx->flags & FB_BATCH_INVARIANT);
}

/* ---- 8-bit search tables, built once by fb_cpu_ops (blockwise8.c) ------------------- */

/* A code is how many of 255 ascending limits lie strictly below y. The limits are the
 * midpoints of the map; where the tie belongs to the upper (even) code, the float just
 * below the midpoint. A bucket is a sign, an exponent and 7 bits of mantissa: no bucket
 * holds two limits, so below[bucket] plus one comparison is the code. */
enum {
    CPU_BUCKET_SHIFT = 16,
    CPU_BUCKET_FIRST = 0x34000000 >> CPU_BUCKET_SHIFT, /* 2^-23: under every limit but zero's */
    CPU_BUCKET_LAST = 0x3f800000 >> CPU_BUCKET_SHIFT,  /* 1.0 */
    CPU_BUCKETS = CPU_BUCKET_LAST - CPU_BUCKET_FIRST + 1
};
typedef struct cpu_search8 {
    float limit[FB_CODES8]; /* the last one is +Inf */
    uint8_t below[2][CPU_BUCKETS];
} cpu_search8;
extern cpu_search8 cpu_search8_tables[FB_MAP8_COUNT];
void cpu_search8_init(void);

/* ---- 4-bit codes of bf16 by its bits, tables built at the first use (words.c) ----------- */

/* Within a block the code of x grows with x, and bf16 numbers are few: the code changes at 15 words at most, and which they
 * are depends on the mantissa of the block's largest magnitude alone: 128 cases (the exponent only moves them, as long as no
 * subnormal number takes part). So no x / absmax is computed:
 *
 *     d = max(|x|, base) - base, base = absmax - range, as integers: up to base all codes are those of 0
 *     e = d, or -d for negative x: max(x, base) - max(x, base | 0x8000), the first signed, the second not, is e + 0x8000
 *     bucket = e >> shift, its low 6 bits; no bucket has two of the changes
 *     code = (e + step[mantissa][bucket]) >> shift: the table says how far the bucket is from its change
 *
 * where an instruction looks 64 words up; else by halving, over the limits of e themselves. FP4: d alone gives the rank of the
 * code; x < 0 sets bit 3. */
enum {
    CPU_WORD_STEPS = 64,
    CPU_WORD_ZERO = 128,       /* the table of a block of zeros */
    CPU_WORD_LEAST = 0x1000,   /* absmax from 2^-95 to 2^125: neither thresholds nor 1/absmax are subnormal */
    CPU_WORD_MOST = 0x7e00
};
static inline int cpu_word_shift(fb_format f) { return f == FB_INT4 ? 4 : 5; }
static inline int cpu_word_range(fb_format f) { return f == FB_NF4 ? 640 : f == FB_FP4 ? 1152 : 496; } /* < 64 buckets */
static inline int cpu_word_origin(fb_format f) { return f == FB_FP4 ? 0 : 0x8000; } /* of e in the instructions above */
typedef struct cpu_words {
    _Alignas(64) uint16_t step[CPU_WORD_ZERO + 1][CPU_WORD_STEPS];
    _Alignas(64) int16_t limit[CPU_WORD_ZERO + 1][FB_CODES]; /* code or rank j is up to limit j: the even j, then the odd */
} cpu_words;
const cpu_words *cpu_words_get(fb_format format); /* NF4, FP4 or INT4 */

/* ---- threads -------------------------------------------------------------------------- */

static inline int64_t cpu_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t cpu_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* In the child of a fork, OpenMP waits for ever for the threads that the forking thread had used: they are not there. So such
 * a thread remembers that it used some, and from the fork on works alone; threads that the child starts have their own. */
extern _Thread_local bool cpu_threads_used, cpu_threads_lost;

/* The most threads a call may use. A request beyond the cores is honoured up to 64:
 * tests ask for odd counts on small machines. */
static inline int cpu_max_threads(const fb_context *ctx)
{
    if (cpu_threads_lost) return 1;
    if (ctx->threads == 0) return omp_get_max_threads();
    int most = omp_get_num_procs() > 64 ? omp_get_num_procs() : 64;
    return ctx->threads < most ? ctx->threads : most;
}

/* Threads for a loop over `chunks` pieces: no thread without a piece. */
static inline int cpu_threads(const fb_context *ctx, int64_t chunks)
{
    const int threads = (int)cpu_min(cpu_max_threads(ctx), chunks < 1 ? 1 : chunks);
    if (threads > 1) cpu_threads_used = true;
    return threads;
}

/* Elements a thread takes at a time, a power of two: as many as leave each thread 8 turns. Each new place costs the processor's
 * prefetchers a start: of 128 MB to read, two threads read 61 GB/s in turns of 64 KB, 82 in turns of 1 MB (Zen 5). */
enum { CPU_CHUNK_LEAST = 1 << 15, CPU_CHUNK_MOST = 1 << 19 };
static inline int64_t cpu_chunk(const fb_context *ctx, int64_t n)
{
    int64_t chunk = CPU_CHUNK_LEAST;
    if (n < 16 * chunk) return chunk; /* however few threads: asking costs 0.3 us */
    const int64_t turns = 8 * (int64_t)cpu_max_threads(ctx);
    while (chunk < CPU_CHUNK_MOST && 2 * chunk * turns <= n) chunk *= 2;
    return chunk;
}

/* ---- a block's absmax ------------------------------------------------------------------ */

typedef struct cpu_scales {
    const float *absmax;  /* NULL: double-quantized, by the four below */
    const uint8_t *codes;
    const float *nested, *map;
    float offset;
    float storage[FB_CODES8];
} cpu_scales;

static inline void cpu_scales_init(cpu_scales *s, const fb_matrix *w)
{
    s->absmax = w->double_quant ? NULL : w->absmax;
    if (!w->double_quant || !w->rows || !w->cols) return;
    s->codes = w->absmax_codes;
    s->nested = w->nested_absmax;
    s->offset = w->nested_offset[0];
    s->map = fb_nested_codebook(w->nested_codebook, s->storage);
}

/* Decoded in flight: a few instructions a block, and 3 bytes of 4 less to read. */
static inline float cpu_absmax(const cpu_scales *s, int64_t block)
{
    if (s->absmax) return s->absmax[block];
    float scaled = s->map[s->codes[block]] * s->nested[block / FB_NESTED_BLOCK];
    return scaled + s->offset;
}

#endif
