/* statistics.c: tests on means (statistics.h). */
#include "statistics.h"

#include <math.h>

stat_sample stat_of(const double *x, int n)
{
    stat_sample s = {.n = n, .mean = 0, .deviation = NAN};
    double squares = 0;
    for (int i = 0; i < n; i++) s.mean += x[i] / n;
    for (int i = 0; i < n; i++) squares += (x[i] - s.mean) * (x[i] - s.mean);
    if (n > 1) s.deviation = sqrt(squares / (n - 1));
    return s;
}

double stat_t95(int freedom)
{
    static const double table[] = {6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331, 1.8125,
                                   1.7959, 1.7823, 1.7709, 1.7613, 1.7531, 1.7459, 1.7396, 1.7341, 1.7291, 1.7247};
    if (freedom < 1) return INFINITY;
    if (freedom <= 20) return table[freedom - 1];
    double z = 1.6448536; /* Cornish and Fisher's expansion: right to four digits from 20 on */
    return z + (z * z * z + z) / (4.0 * freedom) + (5 * pow(z, 5) + 16 * z * z * z + 3 * z) / (96.0 * freedom * freedom);
}

bool stat_above_zero(const double *differences, int n)
{
    stat_sample s = stat_of(differences, n);
    return n > 1 && s.mean > stat_t95(n - 1) * s.deviation / sqrt(n);
}

stat_equivalence stat_tost(const double *differences, int n, double margin)
{
    stat_sample s = stat_of(differences, n);
    double reach = n > 1 ? stat_t95(n - 1) * s.deviation / sqrt(n) : INFINITY;
    stat_equivalence e = {s.mean - reach, s.mean + reach, false};
    e.equivalent = e.low > -margin && e.high < margin;
    return e;
}

double stat_pooled(const double *x, int groups, int each)
{
    double sum = 0;
    for (int g = 0; g < groups; g++) {
        stat_sample s = stat_of(x + g * each, each);
        sum += s.deviation * s.deviation;
    }
    return sqrt(sum / groups);
}
