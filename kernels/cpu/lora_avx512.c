/* lora_avx512.c: a layer with a low-rank adapter, in AVX-512. What, how fast and why: lora_kernel.h */
#include "vec_avx512.h"

#include "lora_kernel.h"
