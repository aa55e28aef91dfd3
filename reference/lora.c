/* lora.c: a quantized layer with a low-rank adapter, forward and backward.
 *
 * Hu et al., LoRA (2021), section 4.1; around a quantized W: QLoRA (2023), equation 5. Sums in double, indices
 * ascending, one rounding where something is stored. f = scale / (1 - dropout) in fp32; z = x where kept, else 0.
 *
 *   forward    u[m][r]  = f * sum_k z[m][k] a[r][k]                     in x's type
 *              y[m][n]  = sum_k x[m][k] w[n][k] + bias[n] + sum_r u[m][r] b[n][r]
 *   backward   du[m][r] = f * sum_n dy[m][n] b[n][r]                    in dy's type
 *              da[r][k] = sum_m du[m][r] z[m][k]                        fp32
 *              db[n][r] = sum_m dy[m][n] u[m][r]                        fp32
 *              dx[m][k] = sum_n dy[m][n] w[n][k] + (kept: sum_r du[m][r] a[r][k])
 */
#include "reference.h"

#include "dropout.h"

static double kept(const fb_lora *lora, const void *x, fb_dtype t, int64_t i)
{
    return fb_dropout_keeps(lora->seed, fb_dropout_threshold(lora->dropout), i) ? (double)fb_load(x, t, i) : 0.0;
}

size_t ref_lora_workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    (void)ctx, (void)w;
    return op == FB_OP_LORA_BACKWARD ? (size_t)(m * rank) * fb_dtype_size(t) : 0;
}

fb_status ref_lora_forward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                           fb_dtype x_dtype, const void *bias, void *y, fb_dtype y_dtype, void *u)
{
    (void)ctx;
    const int64_t rows = w->rows, cols = w->cols, rank = lora->rank;
    for (int64_t i = 0; i < m; i++)
        for (int64_t r = 0; r < rank; r++) {
            double sum = 0;
            for (int64_t k = 0; k < cols; k++)
                sum += kept(lora, x, x_dtype, i * cols + k) * (double)fb_load(lora->a, x_dtype, r * cols + k);
            ref_store_double(u, x_dtype, i * rank + r, (double)fb_lora_factor(lora) * sum);
        }
    for (int64_t i = 0; i < m; i++)
        for (int64_t n = 0; n < rows; n++) {
            double sum = ref_gemm_sum(w, i, n, x, x_dtype, bias);
            for (int64_t r = 0; r < rank; r++)
                sum += (double)fb_load(u, x_dtype, i * rank + r) * (double)fb_load(lora->b, x_dtype, n * rank + r);
            ref_store_double(y, y_dtype, i * rows + n, sum);
        }
    return FB_OK;
}

/* da and db */
static void gradients(const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x, const void *u, const void *dy,
                      const void *du, fb_dtype t, float *da, float *db, bool accumulate)
{
    const int64_t rows = w->rows, cols = w->cols, rank = lora->rank;
    for (int64_t r = 0; r < rank; r++)
        for (int64_t k = 0; k < cols; k++) {
            double sum = accumulate ? (double)da[r * cols + k] : 0.0;
            for (int64_t i = 0; i < m; i++)
                sum += (double)fb_load(du, t, i * rank + r) * kept(lora, x, t, i * cols + k);
            da[r * cols + k] = (float)sum;
        }
    for (int64_t n = 0; n < rows; n++)
        for (int64_t r = 0; r < rank; r++) {
            double sum = accumulate ? (double)db[n * rank + r] : 0.0;
            for (int64_t i = 0; i < m; i++)
                sum += (double)fb_load(dy, t, i * rows + n) * (double)fb_load(u, t, i * rank + r);
            db[n * rank + r] = (float)sum;
        }
}

fb_status ref_lora_backward(fb_context *ctx, const fb_matrix *w, const fb_lora *lora, int64_t m, const void *x,
                            const void *u, const void *dy, fb_dtype t, void *dx, fb_dtype dx_dtype, bool accumulate_dx,
                            float *da, float *db, bool accumulate_grads)
{
    const int64_t rows = w->rows, cols = w->cols, rank = lora->rank;
    void *du = ctx->workspace;
    for (int64_t i = 0; i < m; i++)
        for (int64_t r = 0; r < rank; r++) {
            double sum = 0;
            for (int64_t n = 0; n < rows; n++)
                sum += (double)fb_load(dy, t, i * rows + n) * (double)fb_load(lora->b, t, n * rank + r);
            ref_store_double(du, t, i * rank + r, (double)fb_lora_factor(lora) * sum);
        }
    gradients(w, lora, m, x, u, dy, du, t, da, db, accumulate_grads);
    const uint32_t threshold = fb_dropout_threshold(lora->dropout);
    for (int64_t at = 0; dx && at < m * cols; at++) {
        const int64_t i = at / cols, k = at % cols;
        double sum = ref_gemm_dx_sum(w, i, k, dy, t, accumulate_dx ? (double)fb_load(dx, dx_dtype, at) : 0.0);
        if (fb_dropout_keeps(lora->seed, threshold, at))
            for (int64_t r = 0; r < rank; r++)
                sum += (double)fb_load(du, t, i * rank + r) * (double)fb_load(lora->a, t, r * cols + k);
        ref_store_double(dx, dx_dtype, at, sum);
    }
    return FB_OK;
}
