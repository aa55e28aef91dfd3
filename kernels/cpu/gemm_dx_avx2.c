/* gemm_dx_avx2.c: dX = dY W, in AVX2, FMA and F16C. What, how fast and why: gemm_dx_kernel.h */
#include "vec_avx2.h"

#include "gemm_dx_kernel.h"
