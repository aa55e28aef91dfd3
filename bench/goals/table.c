/* table.c: the goals (goals.h).
 *
 * cuda: on an H200 with cold caches, in one run; the share of the roof is the firm one. "roof" is the larger of the bytes
 * over the copy bandwidth and the operations over the bf16 product, both measured in that run.
 * cpu: on a server CPU with AVX-512; AMX where the row's label says so.
 * bitsandbytes has no fused backward: what it does there is the row dequantize+cublas. */
#include "bench/goals/goals.h"

#include <stddef.h>

#define C "cuda"
#define GEMM(m, shape) "gemm/cuda/nf4/b64/M" m "_" shape
#define GEMM_DQ(m, shape) "gemm/cuda/nf4/b64\\+dq/M" m "_" shape
#define DX(m) "gemm_dx/cuda/nf4/b64/M" m "_N8192_K8192"
#define LORA(ranks) "lora/cuda/nf4/b64/M(512|2048|4096)_N8192_K8192_R" ranks
#define WIDE "N28672_K8192"
#define SQUARE "N8192_K8192"
#define SMALL "N4096_K4096"
#define P "cpu"
#define CPU(m) "gemm/cpu/nf4/b64/M" m "_N8192_K8192"

/* clang-format off */
const goal goals[] = {
    /* backend, regime           rows                                      of  measure                 limit   then  when */
    {C, "M = 1, 28672 x 8192",   GEMM("1", WIDE),                           1, "x_cublas",          '>',  2.9,  3.2, NULL},
    {C, "M = 1, 28672 x 8192",   GEMM("1", WIDE),                           1, "x_bitsandbytes",    '>',  1.8,  0, NULL},
    {C, "M = 1, 28672 x 8192",   GEMM("1", WIDE),                           1, "pct_roof",          '>', 80,   88, NULL},
    {C, "M = 1, 8192 x 8192",    GEMM("1", SQUARE),                         1, "x_cublas",          '>',  2.5,  0, NULL},
    {C, "M = 1, 8192 x 8192",    GEMM("1", SQUARE),                         1, "x_bitsandbytes",    '>',  1.8,  0, NULL},
    {C, "M = 1, 8192 x 8192",    GEMM("1", SQUARE),                         1, "pct_roof",          '>', 72,    0, NULL},
    {C, "M = 1, 4096 x 4096",    GEMM("1", SMALL),                          1, "x_cublas",          '>',  1.6,  0, NULL},
    {C, "M = 1, 4096 x 4096",    GEMM("1", SMALL),                          1, "x_bitsandbytes",    '>',  1.3,  0, NULL},
    {C, "M = 1, 4096 x 4096",    GEMM("1", SMALL),                          1, "p50_us",            '<',  4.5,  0, NULL},
    {C, "double-quantized",      GEMM_DQ("1", WIDE),                        1, "x_cublas",          '>',  2.9,  0, NULL},
    {C, "double-quantized",      GEMM_DQ("1", SQUARE),                      1, "x_cublas",          '>',  2.5,  0, NULL},
    {C, "double-quantized",      GEMM_DQ("1", SQUARE "|" GEMM_DQ("1", WIDE)), 2, "x_bitsandbytes",  '>',  2,    0, NULL},
    {C, "double-quantized",      GEMM_DQ("[0-9]+", "N[0-9]+_K[0-9]+"),      2, "time/plain",        '<',  1.01, 0, NULL},
    {C, "M = 2 ... 16",          GEMM("(2|4|8|16)", WIDE),                  4, "x_cublas",          '>',  2.6,  0, NULL},
    {C, "M = 2 ... 16",          GEMM("(2|4|8|16)", SQUARE),                4, "x_bitsandbytes",    '>',  2,    0, NULL},
    {C, "M = 2 ... 16",          GEMM("(2|4|8|16)", SQUARE),                4, "time/M1",           '<',  1.15, 0, NULL},
    {C, "M = 32",                GEMM("32", SQUARE),                        1, "x_cublas",          '>',  2.2,  0, NULL},
    {C, "M = 64",                GEMM("64", SQUARE),                        1, "x_cublas",          '>',  1.8,  0, NULL},
    {C, "M = 128",               GEMM("128", SQUARE),                       1, "x_cublas",          '>',  1.35, 0, NULL},
    {C, "M = 32, 64, 128",       GEMM("(32|64|128)", SQUARE),               3, "x_bitsandbytes",    '>',  2,    0, NULL},
    {C, "M = 32, 64, 128",       GEMM("(32|64|128)", SQUARE),               3, "pct_roof",          '>', 70,    0, NULL},
    {C, "M = 256",               GEMM("256", SQUARE),                       1, "x_cublas",          '>',  1,    0, NULL},
    {C, "M = 256",               GEMM("256", SQUARE),                       1, "x_bitsandbytes",    '>',  1.7,  0, NULL},
    {C, "M = 256",               GEMM("256", SQUARE),                       1, "pct_gemm_peak",     '>', 80,    0, NULL},
    {C, "M = 512 ... 4096",      GEMM("(512|1024|2048|4096)", SQUARE),      4, "x_cublas",          '>',  0.92, 0.97, NULL},
    {C, "M = 512 ... 4096",      GEMM("(512|1024|2048|4096)", SQUARE),      4, "pct_gemm_peak",     '>', 90,    0, NULL},
    {C, "M = 512",               GEMM("512", SQUARE),                       1, "x_bitsandbytes",    '>',  1.35, 0, NULL},
    {C, "M = 2048",              GEMM("2048", SQUARE),                      1, "x_bitsandbytes",    '>',  1.08, 0, NULL},
    {C, "M = 4096",              GEMM("4096", SQUARE),                      1, "x_bitsandbytes",    '>',  1,    0, NULL},
    {C, "backward, M >= 1024",   DX("(1024|2048|4096)"),                    3, "x_cublas",          '>',  0.88, 0, NULL},
    {C, "backward, M = 512",     DX("512"),                                 1, "x_dequantize+cublas", '>', 1.3, 0, NULL},
    {C, "backward, M <= 8",      DX("[1248]"),                              4, "x_dequantize+cublas", '>', 5,   0, NULL},
    {C, "backward, M <= 16",     DX("(1|2|4|8|16)"),                        5, "pct_roof",          '>', 70,    0, NULL},
    {C, "dequantize",            "dequantize/cuda/nf4/b64/8192x8192",       1, "x_bitsandbytes",    '>',  1.3,  0, NULL},
    {C, "dequantize",            "dequantize/cuda/nf4/b64\\+dq/8192x8192",  1, "x_bitsandbytes",    '>',  1.8,  0, NULL},
    {C, "dequantize",            "dequantize/cuda/nf4/b64/(8192|28672)x8192", 2, "pct_copy_bw",     '>', 92,    0, NULL},
    {C, "quantize",              "quantize/cuda/nf4/b64/8192x8192",         1, "x_bitsandbytes",    '>',  1.5,  0, NULL},
    {C, "quantize",              "quantize/cuda/nf4/b64/8192x8192",         1, "pct_copy_bw",       '>', 88,    0, NULL},
    {C, "LoRA, r <= 64, M >= 512", LORA("(8|16|64)"),                       3, "adapter_pct",       '<',  4,    0, NULL},
    {C, "LoRA, r <= 64, M >= 512", LORA("(8|16|64)"),                       3, "x_gemm+cublas",     '>',  1.2,  0, NULL},

    {P, "dequantize",            "dequantize/cpu/nf4/b64/8192x8192",        1, "pct_copy_bw",       '>', 80,    0, NULL},
    {P, "dequantize",            "dequantize/cpu/nf4/b64/8192x8192",        1, "x_bitsandbytes-cpu", '>', 2.5,  0, NULL},
    {P, "dequantize",            "dequantize/cpu/nf4/b64\\+dq/8192x8192",   1, "time/plain",        '<',  1.05, 0, NULL},
    {P, "quantize",              "quantize/cpu/nf4/b64/8192x8192",          1, "pct_read_bw",       '>', 60,    0, NULL},
    {P, "M = 1",                 CPU("1"),                                  1, "pct_read_bw",       '>', 85,    0, NULL},
    {P, "M = 1",                 CPU("1"),                                  1, "x_bitsandbytes-cpu", '>', 5,    0, NULL},
    {P, "M = 1",                 "gemm/cpu/nf4/b64\\+dq/M1_N8192_K8192",    1, "time/plain",        '<',  1.01, 0, NULL},
    {P, "M = 4",                 CPU("4"),                                  1, "time/M1",           '<',  1.2,  0, NULL},
    {P, "M = 16",                CPU("16"),                                 1, "time/M1",           '<',  2,    0, NULL},
    {P, "M = 256",               CPU("256"),                                1, "pct_gemm_peak",     '>', 40,    0, "amx"},
    {P, "M = 1024",              CPU("1024"),                               1, "pct_gemm_peak",     '>', 55,    0, "amx"},
    {P, "M = 256, 1024",         CPU("(256|1024)"),                         2, "x_onednn",          '>',  2,    0, "amx"},
    {P, "M = 256, 1024",         CPU("(256|1024)"),                         2, "x_bitsandbytes-cpu", '>', 25,   0, "amx"},
    {P, "M = 256, 1024",         CPU("(256|1024)"),                         2, "x_dequantize+openblas", '>', 1.2, 0, "avx512"},
    {P, "backward, M = 1, 256",  "gemm_dx/cpu/nf4/b64/M(1|256)_N8192_K8192", 2, "time/gemm",        '<',  1.3,  0, NULL},
    {P, "AVX2 alone",            "[^/]+/cpu/(nf4|fp4)/[^/]+/[^/]+",         2, "x_bitsandbytes-cpu", '>', 1,    0, "avx2"},
    {P, "other formats and blocks", "(dequantize|gemm)/cpu/(nf4|fp4|int4|int4-affine)/b[0-9]+/(4096x4096|M1_N4096_K4096)", 10, "rate/nf4_b64", '>', 0.85, 0, NULL},
    {NULL, NULL, NULL, 0, NULL, 0, 0, 0, NULL}};
/* clang-format on */
