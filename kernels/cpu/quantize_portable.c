/* quantize_portable.c: 4-bit codes, in plain C. What, how fast and why: quantize_kernel.h */
#include "vec_portable.h"

#include "quantize_kernel.h"
