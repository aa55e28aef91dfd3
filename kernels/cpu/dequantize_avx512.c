#include "vec_avx512.h"

#include "dequantize_kernel.h"
