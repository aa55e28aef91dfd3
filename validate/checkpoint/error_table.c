/* error_table.c: see error_table.h. */
#include "error_table.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- sums -------------------------------------------------------------------------- */

enum { PIECE = 1 << 15 };
typedef struct piece { double square, absolute, largest, power; } piece;

size_t error_scratch_bytes(int64_t n) { return (size_t)fb_ceil_div(n, PIECE) * sizeof(piece); }

static piece measure_piece(const void *data, fb_dtype t, const float *decoded, int64_t begin, int64_t end)
{
    piece p = {0};
    for (int64_t i = begin; i < end; i++) {
        double x = (double)fb_load(data, t, i), d = fabs((double)decoded[i] - x);
        p.square += d * d;
        p.absolute += d;
        p.power += x * x;
        /* a NaN sticks: it must not vanish from the maximum */
        if (!(d <= p.largest)) p.largest = d;
    }
    return p;
}

void error_measure(error_sums *s, const void *data, fb_dtype t, const float *decoded, int64_t n, int threads,
                   void *scratch)
{
    piece *pieces = scratch;
    int64_t count = fb_ceil_div(n, PIECE);
#pragma omp parallel for num_threads(threads > 0 ? threads : omp_get_max_threads())
    for (int64_t i = 0; i < count; i++)
        pieces[i] = measure_piece(data, t, decoded, i * PIECE, (i + 1) * PIECE < n ? (i + 1) * PIECE : n);
    s->square = s->absolute = s->largest = s->power = 0;
    for (int64_t i = 0; i < count; i++) {
        s->square += pieces[i].square;
        s->absolute += pieces[i].absolute;
        s->power += pieces[i].power;
        if (!(pieces[i].largest <= s->largest)) s->largest = pieces[i].largest;
    }
    s->elements = n;
}

void error_accumulate(error_sums *s, const error_sums *more)
{
    s->square += more->square;
    s->absolute += more->absolute;
    s->power += more->power;
    if (!(more->largest <= s->largest)) s->largest = more->largest;
    s->elements += more->elements;
    s->bytes += more->bytes;
    s->expected_square += more->expected_square;
    s->expected_absolute += more->expected_absolute;
}

/* ---- rows --------------------------------------------------------------------------------- */

static bool csv_text(error_table *t, const char *text, ck_error *e)
{
    size_t n = strlen(text);
    if (!af_write(&t->csv, text, n, t->csv_bytes, e)) return false;
    t->csv_bytes += n;
    return true;
}

bool error_table_begin(error_table *t, const char *csv, ck_error *e)
{
    *t = (error_table){.has_csv = csv != NULL};
    return !csv || (af_create(&t->csv, csv, e) &&
                    csv_text(t, "tensor,rows,cols,format,block_size,double_quant,bits_per_weight,bytes,mse,mae,max_abs,"
                                "sqnr_db,mse_expected,mae_expected\n", e));
}

void error_table_heading(const char *tensor, int64_t rows, int64_t cols)
{
    char name[256];
    snprintf(name, sizeof name, "%s", tensor);
    ck_printable(name);
    printf("\n%s", name);
    if (rows >= 0) printf(" [%lld x %lld]", (long long)rows, (long long)cols);
    printf("\n  %-11s %5s %2s %8s %12s %11s %11s %11s %8s %11s %11s\n", "format", "block", "dq", "bits/w", "bytes",
           "mse", "mae", "max", "sqnr dB", "mse theory", "mae theory");
}

/* A number of the table, or nothing where it is NaN. */
static const char *maybe(char field[32], const char *format, double x)
{
    if (isnan(x)) *field = '\0';
    else snprintf(field, 32, format, x);
    return field;
}

/* Names are quoted where a reader would stumble (RFC 4180). malloc'd. */
static char *csv_name(const char *name)
{
    char *quoted = malloc(2 * strlen(name) + 3), *p = quoted;
    if (!quoted) return NULL;
    bool quote = strpbrk(name, ",\"\n\r") != NULL;
    if (quote) *p++ = '"';
    for (; *name; name++) {
        if (*name == '"') *p++ = '"';
        *p++ = *name;
    }
    if (quote) *p++ = '"';
    *p = '\0';
    return quoted;
}

static bool csv_row(error_table *t, const char *tensor, const char *numbers, ck_error *e)
{
    char *name = csv_name(tensor);
    bool good = name ? csv_text(t, name, e) && csv_text(t, numbers, e) : ck_fail(e, t->csv.path, NULL, "out of memory");
    free(name);
    return good;
}

bool error_table_row(error_table *t, const char *tensor, int64_t rows, int64_t cols, const fb_matrix *w,
                     const error_sums *s, ck_error *e)
{
    double n = (double)s->elements, bits = 8.0 * (double)s->bytes / n;
    double mse = s->square / n, mae = s->absolute / n, sqnr = 10.0 * log10(s->power / s->square);
    char a[32], b[32], line[512];
    printf("  %-11s %5d %2s %8.4f %12zu %11.5g %11.5g %11.5g %8.3f %11s %11s\n", fb_format_name(w->format),
           (int)w->block_size, w->double_quant ? "dq" : "", bits, s->bytes, mse, mae, s->largest, sqnr,
           maybe(a, "%.5g", s->expected_square / n), maybe(b, "%.5g", s->expected_absolute / n));
    if (!t->has_csv) return true;
    char shape[64] = ",,", ratio[32];
    if (rows >= 0) snprintf(shape, sizeof shape, ",%lld,%lld", (long long)rows, (long long)cols);
    snprintf(line, sizeof line, "%s,%s,%d,%d,%.9g,%zu,%.9g,%.9g,%.9g,%s,%s,%s\n", shape, fb_format_name(w->format),
             (int)w->block_size, w->double_quant, bits, s->bytes, mse, mae, s->largest, maybe(ratio, "%.9g", sqnr),
             maybe(a, "%.9g", s->expected_square / n), maybe(b, "%.9g", s->expected_absolute / n));
    return csv_row(t, tensor, line, e);
}

bool error_table_commit(error_table *t, ck_error *e)
{
    return !t->has_csv || af_commit(&t->csv, t->csv_bytes, e);
}

void error_table_abort(error_table *t)
{
    if (t->has_csv) af_abort(&t->csv);
}
