/* gemm_amx.c: Y = X W^T on AMX-BF16. What, how fast and why: gemm_pairs.h; on tiles: vec_amx.h. Never run on AMX hardware. */
#include "vec_amx.h"

#include "gemm_pairs.h"

bool cpu_amx_usable(void) { return tiles_usable(); }
