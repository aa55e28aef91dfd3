/* gpu_check.c: is what a device computed right: ours to the bit, a peer's within its own rounding (gpu_job.h). */
#include "bench/gpu_job.h"

#include <math.h>
#include <stdio.h>

static const char *const role_names[JOB_ROLES] = {"dense", "codes", "absmax", "absmax_codes", "nested_absmax", "nested_offset", "zero_points",
                                                  "activations", "out", "grads", "m", "v", "m_absmax", "v_absmax", "x", "u", "a", "b", "da",
                                                  "db", "du"};

check_result job_check(gpu_job *j, const fb_context *ctx, void *const got[JOB_ROLES])
{
    const gpu_case *c = &j->c;
    check_result result = {.ok = false, .worst = -1, .text = "nothing was compared"};
    if (gpu_is_product(c->op)) {
        void *const from[WORK_OUTPUTS] = {got[JOB_OUT], c->op == GPU_LORA ? got[JOB_U] : got[JOB_DA], got[JOB_DB]};
        work_output outputs[WORK_OUTPUTS];
        work_outputs(&j->w, outputs);
        for (int i = 0; i < WORK_OUTPUTS; i++)
            if (outputs[i].bytes) memcpy(outputs[i].data, from[i], outputs[i].bytes);
        if (gpu_is_lora(c->op)) return work_check_lora(&j->w, fb_lora_weights(ctx, gpu_fb_case(c).op, &j->w.w, c->rank, c->m, c->dtype));
        return work_check_product(&j->w, c->op == GPU_GEMM ? fb_gemm_weights(ctx, &j->w.w, c->m, c->dtype)
                                                           : fb_gemm_dx_weights(ctx, &j->w.w, c->m, c->dtype));
    }
    for (int r = 0; r < JOB_ROLES; r++) {
        const job_buffer *b = &j->b[r];
        if (!b->bytes || !b->written) continue;
        check_place place = {role_names[r], r == JOB_DENSE || r == JOB_OUT ? c->cols : 0, c->block_size};
        if (b->floats) result = check_same(place, got[r], b->want, b->dtype, (int64_t)(b->bytes / fb_dtype_size(b->dtype)));
        else result = check_bytes(place, got[r], b->want, (int64_t)b->bytes);
        if (!result.ok) return result;
    }
    return result;
}

/* ---- peers ---------------------------------------------------------------------------------------------------------- */

/* Its library is built with fast-math: a value at a threshold may take the neighbouring code (formats.md: at most one in a
 * thousand, FP4 from fp16), and an fp32 result differ in its last places. */
static const double codes_share = 1e-3, step_distance = 0.05, fp32_distance = 1e-5;

static bool codes_right(const gpu_job *j, const uint8_t *got, char *why)
{
    const job_buffer *b = &j->b[JOB_CODES];
    const uint8_t *want = b->want;
    size_t differ = 0;
    for (size_t i = 0; i < b->bytes; i++) {
        if (j->c.op == GPU_QUANTIZE8) differ += got[i] != want[i];
        else differ += (got[i] >> 4 != want[i] >> 4) + ((got[i] & 15) != (want[i] & 15));
    }
    double n = (double)j->c.rows * (double)j->c.cols;
    if ((double)differ <= codes_share * n) return true;
    snprintf(why, TIMING_WHY, "wrong result: %zu of %.0f codes differ", differ, n);
    return false;
}

/* ||got - want|| <= limit ||want - base||; base NULL: 0. */
static bool near_enough(const char *what, const void *got, const void *want, const void *base, fb_dtype t, int64_t n, double limit, char *why)
{
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = fb_load(got, t, i), w = fb_load(want, t, i), from = base ? (double)fb_load(base, t, i) : 0;
        error += (g - w) * (g - w), norm += (w - from) * (w - from);
    }
    if (sqrt(error) <= limit * sqrt(norm)) return true;
    snprintf(why, TIMING_WHY, "wrong result: %s at relative distance %.3g", what, sqrt(error / norm));
    return false;
}

bool job_check_peer(const gpu_job *j, void *const got[JOB_ROLES], char why[TIMING_WHY])
{
    const gpu_case *c = &j->c;
    int64_t n = c->rows * c->cols, blocks = c->block_size ? fb_ceil_div(n, c->block_size) : 0;
    const job_buffer *out = &j->b[JOB_OUT];
    switch (c->op) {
    case GPU_QUANTIZE:
    case GPU_QUANTIZE8:
        return codes_right(j, got[JOB_CODES], why) &&
               near_enough("absmax", got[JOB_ABSMAX], j->b[JOB_ABSMAX].want, NULL, FB_F32, blocks, fp32_distance, why);
    case GPU_DEQUANTIZE:
    case GPU_DEQUANTIZE8: /* a unit in the last place of the type, everywhere */
        return near_enough("out", got[JOB_OUT], out->want, NULL, c->dtype, n, c->dtype == FB_F32 ? fp32_distance : 0x1p-8, why);
    case GPU_ADAMW32:
    case GPU_ADAMW8: /* of the step, not of the parameter: a step that was not made is at distance 1 */
        return near_enough("the step", got[JOB_DENSE], j->b[JOB_DENSE].want, j->b[JOB_DENSE].initial, c->dtype, n, step_distance, why);
    case GPU_GEMM:
    case GPU_GEMM_DX: return work_near_product(&j->w, got[JOB_OUT], why);
    case GPU_LORA: return work_near_lora(&j->w, got[JOB_OUT], NULL, NULL, why);
    case GPU_LORA_BACKWARD: return work_near_lora(&j->w, got[JOB_OUT], got[JOB_DA], got[JOB_DB], why);
    case GPU_OP_COUNT: break;
    }
    snprintf(why, TIMING_WHY, "no such operation");
    return false;
}
