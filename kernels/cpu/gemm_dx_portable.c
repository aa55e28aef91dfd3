/* gemm_dx_portable.c: dX = dY W, in plain C. What, how fast and why: gemm_dx_kernel.h */
#include "vec_portable.h"

#include "gemm_dx_kernel.h"
