/* blockwise8_avx2.c: 8-bit codes and double quantization, in AVX2, FMA and F16C. See blockwise8_kernel.h */
#include "vec_avx2.h"

#include "blockwise8_kernel.h"
