/* gemm_avx2.c: Y = X W^T, in AVX2, FMA and F16C. What, how fast and why: gemm_kernel.h */
#include "vec_avx2.h"

#include "gemm_kernel.h"
