#include "vec_avx2.h"

#include "blockwise8_kernel.h"
