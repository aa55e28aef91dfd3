/* adamw_avx2.c: AdamW steps, in AVX2, FMA and F16C. What, how fast and why: adamw_kernel.h */
#include "vec_avx2.h"

#include "adamw_kernel.h"
