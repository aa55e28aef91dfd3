/* gemm_dx_avx512.c: dX = dY W, in AVX-512 F, BW, VL and DQ. What, how fast and why: gemm_dx_kernel.h */
#include "vec_avx512.h"

#include "gemm_dx_kernel.h"
