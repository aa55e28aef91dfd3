/* gpu_job.h: one case for a device: its buffers, the call, what must come out.
 *
 * A job is made once on the host; every contender (ours, cuBLAS, bitsandbytes in its own process) gets copies of its
 * buffers on the device. Buffers are known by role, so that a contender takes those it reads and writes and no others.
 *
 *   quantize     DENSE -> the matrix (CODES, ABSMAX or ABSMAX_CODES + NESTED + OFFSET, ZEROS)
 *   dequantize   the matrix -> OUT
 *   quantize8    DENSE -> CODES (a byte each), ABSMAX              dequantize8   CODES, ABSMAX -> OUT
 *   adamw32      DENSE (parameters), GRADS, M, V -> DENSE, M, V    adamw8        and M_ABSMAX, V_ABSMAX; M and V bytes
 *   gemm         the matrix, A -> OUT                              gemm_dx       the same
 *                DENSE: the decoded weights, for contenders that multiply by those
 *   lora         and LORA_A, LORA_B -> and U
 *   lora_backward and LORA_A, LORA_B, X, U (A is dY) -> and DA, DB
 *                DU: for contenders that keep it between two launches
 */
#ifndef FOURBIT_BENCH_GPU_JOB_H
#define FOURBIT_BENCH_GPU_JOB_H

#include "bench/work.h"

typedef enum gpu_op {
    GPU_QUANTIZE = 0,
    GPU_DEQUANTIZE,
    GPU_QUANTIZE8,
    GPU_DEQUANTIZE8,
    GPU_ADAMW32,
    GPU_ADAMW8,
    GPU_GEMM,
    GPU_GEMM_DX,
    GPU_LORA,
    GPU_LORA_BACKWARD,
    GPU_OP_COUNT
} gpu_op;

typedef struct gpu_case {
    gpu_op op;
    fb_format format;   /* 4-bit operations; the others: FB_NF4 */
    int32_t block_size; /* adamw8: FB_ADAMW_BLOCK; adamw32: 0 */
    bool double_quant;
    int64_t rows, cols, m; /* 8-bit and AdamW: rows * cols elements */
    fb_dtype dtype;     /* of the dense side; AdamW: of parameters and gradients */
    unsigned sets;      /* CASE_QUICK, CASE_FULL */
    int32_t rank;       /* LoRA's two; else 0 */
} gpu_case;

extern const gpu_case gpu_cases[]; /* ends with rows = -1 */
/* base and what the layers of the models add to it, as bench_layer_cases of layers.h. */
gpu_case *gpu_layer_cases(const char *models, const gpu_case *base, char why[TIMING_WHY]);

const char *gpu_op_name(gpu_op op);
bool gpu_is_product(gpu_op op); /* LoRA's two among them */
bool gpu_is_lora(gpu_op op);
gpu_case gpu_base_case(const gpu_case *c); /* a LoRA layer without its adapter: its product with W; others as they are */
bool gpu_is_4bit(gpu_op op);
fb_case gpu_fb_case(const gpu_case *c); /* 4-bit operations */
/* "dequantize/cuda/nf4/b64+dq/4096x4096", "adamw8/cuda/8bit/b256/16777216/fp32", "…/hot". */
void gpu_row_name(const gpu_case *c, const char *backend, bool hot, char *name, size_t size);

typedef enum gpu_role {
    JOB_DENSE, JOB_CODES, JOB_ABSMAX, JOB_ABSMAX_CODES, JOB_NESTED, JOB_OFFSET, JOB_ZEROS,
    JOB_A, JOB_OUT, JOB_GRADS, JOB_M, JOB_V, JOB_M_ABSMAX, JOB_V_ABSMAX,
    JOB_X, JOB_U, JOB_LORA_A, JOB_LORA_B, JOB_DA, JOB_DB, JOB_DU,
    JOB_ROLES
} gpu_role;
#define JOB_BIT(role) (1u << (role))

typedef struct job_buffer {
    size_t bytes;
    void *initial; /* before a call; NULL: poison (all bits set) */
    void *want;    /* after it, to the bit; NULL: not written, or a product (checked otherwise) */
    fb_dtype dtype; /* of the elements, where they are floats */
    bool floats, read, written;
} job_buffer;

typedef struct gpu_job {
    gpu_case c;
    work w;                    /* 4-bit operations */
    job_buffer b[JOB_ROLES];   /* bytes 0: not of this case */
    void *owned[2 * JOB_ROLES]; /* what job_free frees */
    int owned_count;
    double bits_per_weight;
} gpu_job;

/* Sizes alone, no data: what a peer's process knows before its data arrives. False: not a case fourbit takes. */
bool job_layout(gpu_job *j, const gpu_case *c, char why[TIMING_WHY]);
/* Layout, data and the reference's result. An all-zero job is a valid beginning; keeps what it can of the case before. */
bool job_make(gpu_job *j, const gpu_case *c, char why[TIMING_WHY]);
void job_free(gpu_job *j);
void *job_own(gpu_job *j, size_t bytes); /* memory that job_free frees; NULL: none left */

/* Roles that fourbit's own call uses, and what it must move: each operand once. */
unsigned job_roles(const gpu_job *j);
work_cost job_cost(const gpu_job *j, unsigned roles);

extern const fb_adamw gpu_adamw_hyper;

/* The library's call on buffers p (device pointers for the CUDA backend). */
fb_status job_call(fb_context *ctx, const gpu_case *c, void *const p[JOB_ROLES]);
/* Bytes of workspace it needs. */
fb_status job_workspace(fb_context *ctx, const gpu_case *c, size_t *bytes);

/* got: host copies of the roles that were written (others NULL). Bit for bit; products by work_check_product, a LoRA
 * layer's by work_check_lora. */
check_result job_check(gpu_job *j, const fb_context *ctx, void *const got[JOB_ROLES]);
/* A peer's result: within its own rounding (README.md: "Peers"). */
bool job_check_peer(const gpu_job *j, void *const got[JOB_ROLES], char why[TIMING_WHY]);

#endif
