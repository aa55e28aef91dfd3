#include "vec_avx2.h"

#include "dequantize_kernel.h"
