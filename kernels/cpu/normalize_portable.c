/* normalize_portable.c: zero mean and unit variance, in plain C. What, how fast and why: normalize_kernel.h */
#include "vec_portable.h"

#include "normalize_kernel.h"
