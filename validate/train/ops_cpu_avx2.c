/* ops_cpu_kernel.h for AVX2. */
#define LM_ISA avx2
#include "ops_cpu_kernel.h"
