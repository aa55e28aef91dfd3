/* dequantize_avx2.c: values, in AVX2, FMA and F16C. What, how fast and why: dequantize_kernel.h */
#include "vec_avx2.h"

#include "dequantize_kernel.h"
