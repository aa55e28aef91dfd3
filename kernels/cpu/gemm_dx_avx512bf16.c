/* gemm_dx_avx512bf16.c: dX = dY W on AVX512-BF16. What, how fast and why: gemm_dx_pairs.h */
#include "vec_avx512bf16.h"

#include "gemm_dx_pairs.h"
