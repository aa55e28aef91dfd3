#include "vec_avx512.h"

#include "gemm_kernel.h"
