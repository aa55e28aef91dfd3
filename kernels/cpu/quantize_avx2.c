#include "vec_avx2.h"

#include "quantize_kernel.h"
