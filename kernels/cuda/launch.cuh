/* launch.cuh — what every CUDA source includes first: the CUDA headers or, without nvcc, the executor; and the one
 * launch wrapper.
 *
 * A .cu file is compiled twice: by nvcc, where its host functions are called fb_cuda_…, and by the host compiler with
 * -DFB_SIMT, where they are called fb_simt_… and launch into validate/simt.  FB_CUDA(name) gives the name; everything else
 * in a .cu or .cuh is static or in an unnamed namespace, because one program may hold both.
 */
#ifndef FB_LAUNCH_CUH
#define FB_LAUNCH_CUH

#include "backend.h"

#ifdef FB_SIMT
#include "validate/simt/simt.h"
#define FB_CUDA(NAME) fb_simt_##NAME
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FB_CUDA(NAME) fb_cuda_##NAME
/* The executor's versions of these are in validate/simt/simt.h, with examples. */
#define FB_SHARED(TYPE, NAME, DIMS) __shared__ __align__(16) TYPE NAME DIMS
#define FB_SHARED_ALIGNED(TYPE, NAME, DIMS, ALIGN) __shared__ __align__(ALIGN) TYPE NAME DIMS
/* One name for all kernels of a file: extern arrays of different types and one name would clash. */
#define FB_DYNAMIC_SHARED(TYPE, NAME, ALIGN)                       \
    extern __shared__ __align__(1024) unsigned char fb_dynamic_[]; \
    TYPE *NAME = (TYPE *)fb_dynamic_
#define FB_CONSTANT(TYPE, NAME, DIMS) static __constant__ TYPE NAME DIMS
#endif

/* A buffer that a kernel touches: what the executor checks bounds and writes against.  On a GPU it costs nothing. */
struct fb_operand {
    const void *p;
    size_t bytes;
    const char *name;
    bool written;
};

struct fb_grid {
    dim3 grid, block;
    size_t shared_bytes;
    dim3 cluster;
};

/* FB_LAUNCH(ctx, (kernel<1, float>), grid, operands, arguments...): enqueue on ctx->stream; FB_OK or FB_BACKEND_ERROR with
 * the runtime's (or the executor's) words.  `operands` is an array. */
#define FB_LAUNCH(CTX, KERNEL, ...) fb_launch(CTX, #KERNEL, FB_LAUNCH_PLAIN KERNEL, __VA_ARGS__)
#define FB_LAUNCH_PLAIN(...) __VA_ARGS__

#ifdef FB_SIMT

template <size_t N, class... P, class... A>
static fb_status fb_launch(fb_context *ctx, const char *name, void (*kernel)(P...), const fb_grid &g, const fb_operand (&operands)[N],
                    A... args)
{
    simt::Operand list[N];
    for (size_t i = 0; i < N; i++)
        list[i] = simt::Operand{operands[i].bytes ? operands[i].p : nullptr, operands[i].bytes, operands[i].name,
                                operands[i].written};
    simt::Config config{g.grid, g.block, g.cluster, g.shared_bytes};
    if (simt::launch_with(name, config, list, N, kernel, args...) == 0) return FB_OK;
    return fb_fail(ctx, FB_BACKEND_ERROR, "%s", simt::last_report().errors[0].text().c_str());
}

#else

/* Above 48 KiB a kernel must be told once that it may have so much; asking every time is cheaper than remembering safely. */
template <size_t N, class... P, class... A>
static fb_status fb_launch(fb_context *ctx, const char *name, void (*kernel)(P...), const fb_grid &g, const fb_operand (&)[N],
                    A... args)
{
    cudaError_t error = cudaSuccess;
    if (g.shared_bytes > 48 * 1024)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)g.shared_bytes);
    cudaLaunchConfig_t config = {};
    config.gridDim = g.grid;
    config.blockDim = g.block;
    config.dynamicSmemBytes = g.shared_bytes;
    config.stream = (cudaStream_t)ctx->stream;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = g.cluster.x;
    attribute.val.clusterDim.y = g.cluster.y;
    attribute.val.clusterDim.z = g.cluster.z;
    config.attrs = &attribute;
    config.numAttrs = g.cluster.x * g.cluster.y * g.cluster.z > 1;
    if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
    if (error == cudaSuccess) return FB_OK;
    return fb_fail(ctx, FB_BACKEND_ERROR, "%s: %s", name, cudaGetErrorString(error));
}

#endif
#endif
