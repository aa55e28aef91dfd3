/* gemm_avx512bf16.c: Y = X W^T on AVX512-BF16. What, how fast and why: gemm_pairs.h */
#include "vec_avx512bf16.h"

#include "gemm_pairs.h"
