/* quantize_avx512.c: 4-bit codes, in AVX-512 F, BW, VL and DQ. What, how fast and why: quantize_kernel.h */
#include "vec_avx512.h"

#include "words_avx512.h"

#include "quantize_words.h"

#include "quantize_kernel.h"
