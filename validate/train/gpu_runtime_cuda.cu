// gpu_runtime_cuda.cu — the CUDA runtime behind gpu_runtime.h: a table of single calls, and no decisions.
#include "validate/train/gpu_runtime.h"

#include <cuda_runtime.h>

#include <cstdio>

namespace {

bool ok(cudaError_t error, const char *what, char *why)
{
    if (error == cudaSuccess) return true;
    snprintf(why, GPU_WHY, "%s: %s", what, cudaGetErrorString(error));
    (void)cudaGetLastError(); // what can be forgotten must not be found by the next call
    return false;
}

bool memory(void *, size_t *free_bytes, size_t *total, char *why) { return ok(cudaMemGetInfo(free_bytes, total), "cudaMemGetInfo", why); }

bool concurrent_managed(void *, bool *can, char *why)
{
    int number = 0, value = 0;
    if (!ok(cudaGetDevice(&number), "cudaGetDevice", why) ||
        !ok(cudaDeviceGetAttribute(&value, cudaDevAttrConcurrentManagedAccess, number), "concurrent managed access", why))
        return false;
    *can = value != 0;
    return true;
}

void *alloc_device(void *, size_t bytes, char *why)
{
    void *p = nullptr;
    return ok(cudaMalloc(&p, bytes), "cudaMalloc", why) ? p : nullptr;
}
void *alloc_pinned(void *, size_t bytes, char *why)
{
    void *p = nullptr;
    return ok(cudaHostAlloc(&p, bytes, cudaHostAllocDefault), "cudaHostAlloc", why) ? p : nullptr;
}
void *alloc_managed(void *, size_t bytes, char *why)
{
    void *p = nullptr;
    return ok(cudaMallocManaged(&p, bytes), "cudaMallocManaged", why) ? p : nullptr;
}
void free_device(void *, void *p) { (void)cudaFree(p); }
void free_pinned(void *, void *p) { (void)cudaFreeHost(p); }

void *stream_new(void *, char *why)
{
    cudaStream_t s = nullptr;
    return ok(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreate", why) ? s : nullptr;
}
void stream_free(void *, void *s) { (void)cudaStreamDestroy(static_cast<cudaStream_t>(s)); }
void *event_new(void *, char *why)
{
    cudaEvent_t e = nullptr;
    return ok(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreate", why) ? e : nullptr;
}
void event_free(void *, void *e) { (void)cudaEventDestroy(static_cast<cudaEvent_t>(e)); }

// Default: the addresses say what they are, so that a copy out of managed memory is right too.
bool copy(void *, void *to, const void *from, size_t bytes, bool, void *stream, char *why)
{
    return ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)), "cudaMemcpyAsync", why);
}

bool prefetch(void *, void *p, size_t bytes, bool to_device, void *stream, char *why)
{
    int number = 0;
    if (!ok(cudaGetDevice(&number), "cudaGetDevice", why)) return false;
#if CUDART_VERSION >= 13000
    cudaMemLocation place = {};
    place.type = to_device ? cudaMemLocationTypeDevice : cudaMemLocationTypeHost;
    place.id = to_device ? number : 0;
    return ok(cudaMemPrefetchAsync(p, bytes, place, 0, static_cast<cudaStream_t>(stream)), "cudaMemPrefetchAsync", why);
#else
    return ok(cudaMemPrefetchAsync(p, bytes, to_device ? number : cudaCpuDeviceId, static_cast<cudaStream_t>(stream)), "cudaMemPrefetchAsync", why);
#endif
}

bool fill(void *, void *p, int byte, size_t bytes, void *stream, char *why)
{
    return ok(cudaMemsetAsync(p, byte, bytes, static_cast<cudaStream_t>(stream)), "cudaMemsetAsync", why);
}
bool record(void *, void *event, void *stream, char *why)
{
    return ok(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)), "cudaEventRecord", why);
}
bool wait_event(void *, void *stream, void *event, char *why)
{
    return ok(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0), "cudaStreamWaitEvent", why);
}
bool sync_stream(void *, void *stream, char *why) { return ok(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "enqueued work", why); }
bool sync_event(void *, void *event, char *why) { return ok(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "enqueued work", why); }

} // namespace

extern "C" const gpu_runtime *gpu_runtime_cuda(char *why)
{
    static const gpu_runtime table = {nullptr, memory, concurrent_managed, alloc_device, alloc_pinned, alloc_managed, free_device, free_pinned,
                                      stream_new, stream_free, event_new, event_free, copy, prefetch, fill, record, wait_event, sync_stream,
                                      sync_event};
    int count = 0;
    if (!ok(cudaGetDeviceCount(&count), "no GPU", why)) return nullptr;
    if (count > 0) return &table;
    snprintf(why, GPU_WHY, "no GPU");
    return nullptr;
}
