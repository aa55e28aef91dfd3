/* theory.c: expected quantization error on N(0, 1) (theory.h has the formulas). */
#include "theory.h"

static double density(double x) { return 0.3989422804014327 * exp(-0.5 * x * x); }
static double below(double x) { return 0.5 * erfc(-0.7071067811865476 * x); }

/* 8-point Gauss-Legendre on [-1, 1]: exact for polynomials of degree 15. */
static const double node[8] = {-0.9602898564975363, -0.7966664774136267, -0.5255324099163290, -0.1834346424956498,
                               0.1834346424956498,  0.5255324099163290,  0.7966664774136267,  0.9602898564975363};
static const double weight[8] = {0.1012285362903763, 0.2223810344533745, 0.3137066458778873, 0.3626837833783620,
                                 0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};

/* Error^power times density over [a, b] with reconstruction c. */
static double bin_error(double a, double b, double c, int power)
{
    if (!(a < b)) return 0;
    double pa = density(a), pb = density(b), mass = below(b) - below(a);
    if (power == 2) return (1 + c * c) * mass - (b * pb - a * pa) + 2 * c * (pb - pa);
    if (c <= a) return pa - pb - c * mass;
    if (c >= b) return c * mass - (pa - pb);
    return 2 * density(c) - pa - pb - c * (below(a) + below(b) - 2 * below(c));
}

/* Integral over m of a block's largest magnitude: density * f(m), without the factor B or B - 1. */
typedef double (*of_extreme)(double m, const void *user);

static double over_extreme(of_extreme f, const void *user, int exponent)
{
    enum { PANELS = 240 };
    const double top = 9.0, width = top / PANELS; /* P(|x| > 9) = 2e-19 */
    double sum = 0;
    for (int p = 0; p < PANELS; p++)
        for (int g = 0; g < 8; g++) {
            double m = (p + 0.5 + 0.5 * node[g]) * width;
            sum += 0.5 * width * weight[g] * 2 * density(m) * pow(erf(m * 0.7071067811865476), exponent) * f(m, user);
        }
    return sum;
}

/* ---- formats scaled by the largest magnitude ------------------------------------------------ */

typedef struct codebook {
    const double *values, *thresholds;
    int n, power;
} codebook;

static double codebook_bins(double m, const void *user)
{
    const codebook *book = user;
    double sum = 0;
    for (int i = 0; i < book->n; i++) {
        double a = i == 0 ? -1 : book->thresholds[i - 1], b = i == book->n - 1 ? 1 : book->thresholds[i];
        sum += bin_error(a * m, b * m, book->values[i] * m, book->power);
    }
    return sum;
}

double fb_expected_codebook_error(const double *values, const double *thresholds, int n, int block_size, int power)
{
    codebook book = {values, thresholds, n, power};
    if (block_size < 2 || n < 2) return NAN;
    return (block_size - 1) * over_extreme(codebook_bins, &book, block_size - 2);
}

/* Ascending values and thresholds of a format; how many values. */
static int make_codebook(fb_format format, double values[FB_CODES], double thresholds[FB_CODES])
{
    if (format == FB_NF4) {
        for (int i = 0; i < 16; i++) values[i] = (double)fb_bits_to_float(fb_codebook_bits[FB_NF4][i]);
        for (int i = 0; i < 15; i++) thresholds[i] = (double)fb_bits_to_float(fb_nf4_threshold_bits[i]);
        return 16;
    }
    if (format == FB_FP4) { /* +0 and -0 are one value: 15 */
        for (int i = 0; i < 8; i++) {
            values[7 + i] = (double)fb_bits_to_float(fb_codebook_bits[FB_FP4][fb_fp4_rank_to_code[i]]);
            values[7 - i] = -values[7 + i];
        }
        for (int i = 0; i < 7; i++) {
            thresholds[7 + i] = (double)fb_bits_to_float(fb_fp4_threshold_bits[i]);
            thresholds[6 - i] = -thresholds[7 + i];
        }
        return 15;
    }
    for (int i = 0; i < 15; i++) values[i] = (i - 7) / 7.0; /* -8 is out of reach: the scale is absmax / 7 */
    for (int i = 0; i < 14; i++) thresholds[i] = (i - 6.5) / 7.0;
    return 15;
}

/* ---- INT4 affine: two extremes ------------------------------------------------------------------ */

/* The block's error given its extremes, times the probability mass between them, per
 * element and without the factor B - 1. r = -lo / scale in (0, 15); its rounding is the
 * zero point z. Both extremes miss their code by (r - z) scales. */
static double affine_bins(double r, double width, int block_size, int power)
{
    double scale = width / 15, zero = rint(r), lo = -r * scale, hi = lo + width, sum = 0;
    double mass = below(hi) - below(lo), miss = fabs(r - zero) * scale;
    if (density(lo) * density(hi) * pow(mass, block_size - 3) < 1e-20) return 0;
    for (int q = 0; q <= 15; q++) {
        double c = (q - zero) * scale;
        sum += bin_error(fmax(lo, c - 0.5 * scale), fmin(hi, c + 0.5 * scale), c, power);
    }
    double inner = (block_size - 2) * pow(mass, block_size - 3) * sum;
    double ends = 2 * pow(mass, block_size - 2) * (power == 2 ? miss * miss : miss);
    return density(lo) * density(hi) * (inner + ends);
}

/* Over r, cut where the zero point jumps (halves) and where |r - z| has its kink
 * (integers), and over the width hi - lo. The normal is symmetric: r and 15 - r weigh the
 * same, and only r < 7.5 is summed. */
static double expected_affine(int block_size, int power)
{
    enum { PANELS = 30 };
    const double top = 18, step = top / PANELS; /* both extremes beyond 9: never */
    double sum = 0;
    for (int cut = 0; cut < 15; cut++)
        for (int i = 0; i < 8; i++) {
            double r = 0.5 * (cut + 0.5 + 0.5 * node[i]), line = 0;
            for (int p = 0; p < PANELS; p++)
                for (int g = 0; g < 8; g++) {
                    double width = (p + 0.5 + 0.5 * node[g]) * step;
                    line += 0.5 * step * weight[g] * width / 15 * affine_bins(r, width, block_size, power);
                }
            sum += 2 * 0.25 * weight[i] * line;
        }
    return (block_size - 1) * sum;
}

/* ---- public -------------------------------------------------------------------------------------- */

static double expected(fb_format format, int block_size, int power)
{
    double values[FB_CODES], thresholds[FB_CODES];
    if (block_size < 3 || (unsigned)format >= FB_FORMAT_COUNT) return NAN;
    if (format == FB_INT4_AFFINE) return expected_affine(block_size, power);
    int n = make_codebook(format, values, thresholds);
    return fb_expected_codebook_error(values, thresholds, n, block_size, power);
}

double fb_expected_mse(fb_format format, int block_size) { return expected(format, block_size, 2); }
double fb_expected_mae(fb_format format, int block_size) { return expected(format, block_size, 1); }

static double itself(double m, const void *unused)
{
    (void)unused;
    return m;
}

double fb_expected_absmax(int block_size)
{
    return block_size < 1 ? NAN : block_size * over_extreme(itself, NULL, block_size - 1);
}

static double bin_mass(double m, const void *user)
{
    const double *ends = user;
    return below(ends[1] * m) - below(ends[0] * m);
}

void fb_expected_nf4_probabilities(int block_size, double probability[FB_CODES])
{
    double values[FB_CODES], thresholds[FB_CODES];
    make_codebook(FB_NF4, values, thresholds);
    for (int i = 0; i < FB_CODES; i++) {
        double ends[2] = {i == 0 ? -1 : thresholds[i - 1], i == 15 ? 1 : thresholds[i]};
        probability[i] = (block_size - 1) * over_extreme(bin_mass, ends, block_size - 2);
        if (i == 0 || i == 15) probability[i] += 0.5 / block_size; /* the largest element, either sign */
    }
}
