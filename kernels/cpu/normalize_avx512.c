/* normalize_avx512.c: zero mean and unit variance, in AVX-512 F, BW, VL and DQ. What, how fast and why: normalize_kernel.h */
#include "vec_avx512.h"

#include "normalize_kernel.h"
