#include "vec_avx512.h"

#include "blockwise8_kernel.h"
