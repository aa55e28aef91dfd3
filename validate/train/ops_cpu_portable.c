/* ops_cpu_kernel.h for the compiler's least processor. */
#define LM_ISA portable
#include "ops_cpu_kernel.h"
