/* cuda_ops.h — the operations that kernels/cuda implements, one declaration a .cu file.  cuda_ops.cu puts them into the table.
 * The names are fb_cuda_… under nvcc and fb_simt_… in the executor (launch.cuh). */
#ifndef FB_CUDA_OPS_H
#define FB_CUDA_OPS_H

#include "launch.cuh"

extern "C" {
fb_status FB_CUDA(dequantize)(fb_context *, const fb_matrix *, void *, fb_dtype);
}

#endif
