/* gemm_portable.c: Y = X W^T, in plain C. What, how fast and why: gemm_kernel.h */
#include "vec_portable.h"

#include "gemm_kernel.h"
