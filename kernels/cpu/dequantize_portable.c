/* dequantize_portable.c: values, in plain C. What, how fast and why: dequantize_kernel.h */
#include "vec_portable.h"

#include "dequantize_kernel.h"
