/* gemm_avx512.c: Y = X W^T, in AVX-512 F, BW, VL and DQ. What, how fast and why: gemm_kernel.h */
#include "vec_avx512.h"

#include "gemm_kernel.h"
