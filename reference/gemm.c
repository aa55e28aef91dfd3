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
static void store_double(void *p, fb_dtype t, int64_t i, double v)
{
    float f = (float)v;
    if (t != FB_F32 && isfinite(f) && (double)f != v) {
        uint32_t bits = fb_float_to_bits(f);
        if (fabs((double)f) > fabs(v)) bits--; /* now truncated towards zero */
        f = fb_bits_to_float(bits | 1u);
    }
    fb_store(p, t, i, f);
}

fb_status ref_gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype x_dtype, const void *bias,
                   void *y, fb_dtype y_dtype)
{
    (void)ctx;
    int64_t rows = w->rows, cols = w->cols;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0;
            for (int64_t k = 0; k < cols; k++)
                sum += (double)fb_load(x, x_dtype, i * cols + k) * rounded_weight(w, x_dtype, n, k);
            if (bias) sum += fb_load(bias, x_dtype, n);
            store_double(y, y_dtype, i * rows + n, sum);
        }
    return FB_OK;
}

fb_status ref_gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype dy_dtype, void *dx,
                      fb_dtype dx_dtype, bool accumulate)
{
    (void)ctx;
    int64_t rows = w->rows, cols = w->cols;
    for (int64_t i = 0; i < m; i++)
        for (int64_t k = 0; k < cols; k++) {
            double sum = accumulate ? fb_load(dx, dx_dtype, i * cols + k) : 0.0;
            for (int64_t n = 0; n < rows; n++)
                sum += (double)fb_load(dy, dy_dtype, i * rows + n) * rounded_weight(w, dy_dtype, n, k);
            store_double(dx, dx_dtype, i * cols + k, sum);
        }
    return FB_OK;
}
