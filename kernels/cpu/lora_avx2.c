/* lora_avx2.c: a layer with a low-rank adapter, in AVX2, FMA and F16C. What, how fast and why: lora_kernel.h */
#include "vec_avx2.h"

#include "lora_kernel.h"
