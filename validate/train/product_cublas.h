/* product_cublas.h: ops.h's dense product by the cuBLAS that is on the machine. */
#ifndef FOURBIT_TRAIN_PRODUCT_CUBLAS_H
#define FOURBIT_TRAIN_PRODUCT_CUBLAS_H

#include "ops.h"

/* The table with its products by cuBLAS, or as it is where there is none (bench/cublas.h says where it is looked for). Always
 * the same table: the first call's. */
const lm_ops *lm_with_cublas(const lm_ops *own);

#endif
