#include "vec_avx512.h"

#include "gemm_dx_kernel.h"
