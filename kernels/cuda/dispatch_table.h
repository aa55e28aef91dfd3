    /* arch  M at most  N K at most  path             blocks */
    /* predicted */
    { 90,    FB_ANY_M,           0, FB_GEMM_HOPPER,        0 },
    { 80,          16,           0, FB_GEMM_SMALL,         2 },
    { 80,          16,           0, FB_GEMM_TILE_16,       2 },
    { 80,          32,           0, FB_GEMM_TILE_32,       2 },
    { 80,          64,           0, FB_GEMM_TILE_64,       2 },
    { 80,         128,           0, FB_GEMM_TILE_128,      1 },
    { 80,    FB_ANY_M,           0, FB_GEMM_TILE_256,      1 },
    { 80,    FB_ANY_M,           0, FB_GEMM_TILE_128,      1 },
