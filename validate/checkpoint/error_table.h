/* error_table.h: measured quantization error, one row a configuration, as a table on
 * stdout and as CSV. */
#ifndef FOURBIT_ERROR_TABLE_H
#define FOURBIT_ERROR_TABLE_H

#include "atomic_file.h"
#include "fourbit.h"

/* Sums over elements: what rows and totals are made of. */
typedef struct error_sums {
    double square, absolute, largest; /* of the error */
    double power;                     /* of the data */
    int64_t elements;
    size_t bytes;
    double expected_square, expected_absolute; /* closed form, times elements; NaN: there is none */
} error_sums;

/* Error of decoded [n] against data [n] of type t. In parallel, and the same to the
 * bit whatever the number of threads: partial sums are over fixed pieces. threads 0:
 * all. scratch: error_scratch_bytes(n). The last four fields are left alone. */
void error_measure(error_sums *s, const void *data, fb_dtype t, const float *decoded, int64_t n, int threads,
                   void *scratch);
size_t error_scratch_bytes(int64_t n);
/* s += more */
void error_accumulate(error_sums *s, const error_sums *more);

typedef struct error_table {
    af_file csv;
    uint64_t csv_bytes;
    bool has_csv;
} error_table;

/* csv: path or NULL. */
bool error_table_begin(error_table *t, const char *csv, ck_error *e);
void error_table_heading(const char *tensor, int64_t rows, int64_t cols);
/* rows, cols -1: not one matrix */
bool error_table_row(error_table *t, const char *tensor, int64_t rows, int64_t cols, const fb_matrix *w,
                     const error_sums *s, ck_error *e);
bool error_table_commit(error_table *t, ck_error *e);
void error_table_abort(error_table *t);

#endif
