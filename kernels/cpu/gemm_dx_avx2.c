#include "vec_avx2.h"

#include "gemm_dx_kernel.h"
