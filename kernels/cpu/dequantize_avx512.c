/* dequantize_avx512.c: values, in AVX-512 F, BW, VL and DQ. What, how fast and why: dequantize_kernel.h */
#include "vec_avx512.h"

#include "dequantize_kernel.h"
