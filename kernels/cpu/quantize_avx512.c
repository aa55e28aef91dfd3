#include "vec_avx512.h"

#include "quantize_kernel.h"
