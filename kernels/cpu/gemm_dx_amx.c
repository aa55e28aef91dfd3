/* gemm_dx_amx.c: dX = dY W on AMX-BF16. What, how fast and why: gemm_dx_pairs.h; on tiles: vec_amx.h. Never run on AMX hardware. */
#include "vec_amx.h"

#include "gemm_dx_pairs.h"
