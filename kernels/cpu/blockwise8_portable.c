/* blockwise8_portable.c: 8-bit codes and double quantization, in plain C. See blockwise8_kernel.h */
#include "vec_portable.h"

#include "blockwise8_kernel.h"
