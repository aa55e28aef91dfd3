/* blockwise8_avx512.c: 8-bit codes and double quantization, in AVX-512 F, BW, VL and DQ. See blockwise8_kernel.h */
#include "vec_avx512.h"

#include "blockwise8_kernel.h"
