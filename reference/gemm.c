/* gemm.c: products with a quantized matrix, forward and backward.
 *
 * QLoRA (2023), equation 5: W enters as doubleDequant(W), that is, rounded to the
 * activations' type; sums in double, k ascending, one rounding at the end.
 *
 *   gemm      Y  [M, N] = X  [M, K] W^T + bias      y[m][n] = sum_k x[m][k] w[n][k]
 *   gemm_dx   dX [M, K] = dY [M, N] W              dx[m][k] = sum_n dy[m][n] w[n][k]
 */
#include "reference.h"

/* w rounded to t, as dequantize stores it */
static double rounded_weight(const fb_matrix *w, fb_dtype t, int64_t row, int64_t col)
{
    float value = ref_weight(w, row * w->cols + col);
    if (t == FB_BF16) return fb_bf16_to_float(fb_float_to_bf16(value));
    if (t == FB_F16) return fb_f16_to_float(fb_float_to_f16(value));
    return value;
}

/* One rounding from double to the stored type. By way of fp32 there would be two,
 * and a double just above a bf16 tie would come out a whole bf16 ulp away; sticky:
 * round to fp32 towards odd first, which never makes or breaks a tie. */
void ref_store_double(void *p, fb_dtype t, int64_t i, double v)
{
    float f = (float)v;
    if (t != FB_F32 && isfinite(f) && (double)f != v) {
        uint32_t bits = fb_float_to_bits(f);
        if (fabs((double)f) > fabs(v)) bits--; /* now truncated towards zero */
        f = fb_bits_to_float(bits | 1u);
    }
    fb_store(p, t, i, f);
}

double ref_gemm_sum(const fb_matrix *w, int64_t i, int64_t n, const void *x, fb_dtype x_dtype, const void *bias)
{
    double sum = 0;
    for (int64_t k = 0; k < w->cols; k++)
        sum += (double)fb_load(x, x_dtype, i * w->cols + k) * rounded_weight(w, x_dtype, n, k);
    return bias ? sum + (double)fb_load(bias, x_dtype, n) : sum;
}

double ref_gemm_dx_sum(const fb_matrix *w, int64_t i, int64_t k, const void *dy, fb_dtype dy_dtype, double before)
{
    double sum = before;
    for (int64_t n = 0; n < w->rows; n++)
        sum += (double)fb_load(dy, dy_dtype, i * w->rows + n) * rounded_weight(w, dy_dtype, n, k);
    return sum;
}

fb_status ref_gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                   void *y, fb_dtype y_dtype)
{
    (void)ctx;
    for (int64_t n = 0; n < w->rows; n++)
        for (int64_t i = 0; i < m; i++)
            ref_store_double(y, y_dtype, i * w->rows + n, ref_gemm_sum(w, i, n, x, x_dtype, bias));
    return FB_OK;
}

fb_status ref_gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                      fb_dtype dx_dtype, bool accumulate)
{
    (void)ctx;
    for (int64_t at = 0; at < m * w->cols; at++) {
        double before = accumulate ? fb_load(dx, dx_dtype, at) : 0.0;
        ref_store_double(dx, dx_dtype, at, ref_gemm_dx_sum(w, at / w->cols, at % w->cols, dy, dy_dtype, before));
    }
    return FB_OK;
}
