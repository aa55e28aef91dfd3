/* adamw_portable.c: AdamW steps, in plain C. What, how fast and why: adamw_kernel.h */
#include "vec_portable.h"

#include "adamw_kernel.h"
