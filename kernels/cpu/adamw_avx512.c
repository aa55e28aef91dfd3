/* adamw_avx512.c: AdamW steps, in AVX-512 F, BW, VL and DQ. What, how fast and why: adamw_kernel.h */
#include "vec_avx512.h"

#include "adamw_kernel.h"
