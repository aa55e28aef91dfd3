/* cpu_ops.c: which instruction set the CPU backend runs on.
 *
 * Each table starts as the reference's and has slots overridden by the files of its
 * instruction set. The best that the processor and the operating system support is
 * taken; FOURBIT_CPU=portable, avx2, avx512, avx512bf16 or amx forces one. Chosen at the first call. */
#include "cpu.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Products take every weight as code * absmax in fp32, never rounded to bf16 first:
 * that is one conversion less, at any M and for any type of activations. */
static fb_weights exact(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    (void)ctx, (void)w, (void)m, (void)t;
    return FB_WEIGHTS_EXACT;
}

/* On bf16 units they are rounded, and subnormal ones are zero. */
static fb_weights paired(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return cpu_takes_pairs(ctx, m, t) || cpu_takes_few_pairs(ctx, w, m, t) ? FB_WEIGHTS_FLUSHED : FB_WEIGHTS_EXACT;
}
static fb_weights paired_dx(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return cpu_dx_takes_pairs(ctx, w, m, t) || cpu_dx_takes_few_pairs(ctx, w, m, t) ? FB_WEIGHTS_FLUSHED : FB_WEIGHTS_EXACT;
}

#define WORKSPACE(isa)                                                                                         \
    static size_t workspace_##isa(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)  \
    {                                                                                                          \
        switch (op) {                                                                                          \
        case FB_OP_GEMM: return cpu_gemm_workspace_##isa(ctx, w, m, t);                                        \
        case FB_OP_GEMM_DX: return cpu_gemm_dx_workspace_##isa(ctx, w, m, t);                                  \
        default: return fb_reference_ops()->workspace(ctx, op, w, m, t);                                       \
        }                                                                                                      \
    }
WORKSPACE(portable)
WORKSPACE(avx2)
WORKSPACE(avx512)
WORKSPACE(avx512bf16)
WORKSPACE(amx)

#define PRODUCTS(isa, weights, dx_weights)                                                                           \
    .variant = #isa, .workspace = workspace_##isa, .gemm = cpu_gemm_##isa, .gemm_dx = cpu_gemm_dx_##isa, \
    .gemm_weights = weights, .gemm_dx_weights = dx_weights

#define OTHERS(isa)                                                                                     \
    .quantize = cpu_quantize_##isa, .dequantize = cpu_dequantize_##isa,                                 \
    .double_quantize = cpu_double_quantize_##isa, .quantize8 = cpu_quantize8_##isa,                     \
    .dequantize8 = cpu_dequantize8_##isa, .decode_absmax = cpu_decode_absmax_##isa,                     \
    .normalize = cpu_normalize_##isa, .denormalize = cpu_denormalize_##isa,                             \
    .adamw32 = cpu_adamw32_##isa, .adamw8 = cpu_adamw8_##isa, .lora_workspace = cpu_lora_workspace_##isa, \
    .lora_weights = cpu_lora_weights_##isa, .lora_forward = cpu_lora_forward_##isa,                     \
    .lora_backward = cpu_lora_backward_##isa

/* NULL slots are the reference's. Best first. */
enum { AMX, AVX512BF16, AVX512, AVX2, PORTABLE, VARIANTS };
static fb_ops variants[VARIANTS] = {
    [AMX] = {PRODUCTS(amx, paired, paired_dx), OTHERS(avx512)},
    [AVX512BF16] = {PRODUCTS(avx512bf16, paired, paired_dx), OTHERS(avx512)},
    [AVX512] = {PRODUCTS(avx512, exact, exact), OTHERS(avx512)},
    [AVX2] = {PRODUCTS(avx2, exact, exact), OTHERS(avx2)},
    [PORTABLE] = {PRODUCTS(portable, exact, exact), OTHERS(portable)},
};

/* clang's __builtin_cpu_supports does not know the name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* CPUID 7.1, EAX bit 5: clang 14's __builtin_cpu_supports does not know this name either. */
static bool has_avx512bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

/* __builtin_cpu_supports also asks whether the operating system saves the registers. */
static bool supported(int v)
{
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    switch (v) {
    case AMX: return avx512 && has_avx512bf16() && cpu_amx_usable();
    case AVX512BF16: return avx512 && has_avx512bf16();
    case AVX512: return avx512;
    case AVX2: return avx2;
    default: return true;
    }
}

static void inherit(fb_ops *ops)
{
    const fb_ops *base = fb_reference_ops();
#define INHERIT(slot) \
    if (!ops->slot) ops->slot = base->slot
    INHERIT(workspace);
    INHERIT(quantize);
    INHERIT(dequantize);
    INHERIT(double_quantize);
    INHERIT(decode_absmax);
    INHERIT(quantize8);
    INHERIT(dequantize8);
    INHERIT(normalize);
    INHERIT(denormalize);
    INHERIT(adamw32);
    INHERIT(adamw8);
    INHERIT(gemm_weights);
    INHERIT(gemm_dx_weights);
    INHERIT(gemm);
    INHERIT(gemm_dx);
    INHERIT(lora_workspace);
    INHERIT(lora_weights);
    INHERIT(lora_forward);
    INHERIT(lora_backward);
#undef INHERIT
}

_Thread_local bool cpu_threads_used, cpu_threads_lost;
static void after_fork(void) { cpu_threads_lost = cpu_threads_used; }

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const fb_ops *chosen;
static char chosen_why[FB_MESSAGE_SIZE];

static void choose(void)
{
    cpu_search8_init();
    pthread_atfork(NULL, NULL, after_fork);
    const char *forced = getenv("FOURBIT_CPU");
    if (forced && !*forced) forced = NULL;
    for (int v = 0; v < VARIANTS; v++) {
        inherit(&variants[v]);
        if (forced ? strcmp(forced, variants[v].variant) != 0 : !supported(v)) continue;
        if (supported(v)) {
            if (!chosen) chosen = &variants[v];
        } else {
            snprintf(chosen_why, sizeof chosen_why, "FOURBIT_CPU=%s, but this processor or system lacks it", forced);
            return;
        }
    }
    if (!chosen)
        snprintf(chosen_why, sizeof chosen_why, "FOURBIT_CPU=%.64s is none of portable, avx2, avx512, avx512bf16 and amx",
                 forced ? forced : "");
}

const fb_ops *fb_cpu_ops(char *why)
{
    pthread_once(&once, choose);
    if (!chosen) memcpy(why, chosen_why, sizeof chosen_why);
    return chosen;
}
