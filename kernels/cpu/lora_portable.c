/* lora_portable.c: a layer with a low-rank adapter, in plain C. What, how fast and why: lora_kernel.h */
#include "vec_portable.h"

#include "lora_kernel.h"
