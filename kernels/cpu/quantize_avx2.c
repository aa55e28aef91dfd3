/* quantize_avx2.c: 4-bit codes, in AVX2, FMA and F16C. What, how fast and why: quantize_kernel.h */
#include "vec_avx2.h"

#include "words_avx2.h"

#include "quantize_words.h"

#include "quantize_kernel.h"
