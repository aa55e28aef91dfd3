/* normalize_avx2.c: zero mean and unit variance, in AVX2, FMA and F16C. What, how fast and why: normalize_kernel.h */
#include "vec_avx2.h"

#include "normalize_kernel.h"
