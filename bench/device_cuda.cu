// device_cuda.cu — a GPU behind device.h: the CUDA runtime, events, graphs.
//
// Memory is cudaMalloc's, never managed. The flush reads three L2s' worth instead of writing them: dirty lines would be
// written back while the next kernel is timed, and 50 MB of them cost 12 us at 4.3 TB/s.
#include "bench/device.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct cuda {
    device d; // first: a device * is a cuda *
    cudaStream_t stream;
    cudaEvent_t began, ended;
    uint4 *cover; // read by flush
    size_t cover_words;
    unsigned *sink;
    bool own_stream;
};

cuda *of(device *d) { return reinterpret_cast<cuda *>(d); }

bool ok(device *d, cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return true;
    snprintf(d->why, sizeof d->why, "%s: %s", what, cudaGetErrorString(error));
    (void)cudaGetLastError(); // what can be forgotten must not be found by the next call
    return false;
}

__global__ void read_all(const uint4 *p, size_t words, unsigned *sink)
{
    unsigned sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += (size_t)gridDim.x * blockDim.x) {
        uint4 v = p[i];
        sum ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (sum == 0x9e3779b9u) *sink = sum; // the compiler cannot know that it never is
}

/* Four loads in flight a lane: with one an H200 needs more warps than fit. */
__global__ void copy_all(uint4 *to, const uint4 *from, size_t words)
{
    const size_t threads = (size_t)gridDim.x * blockDim.x, first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t i = first;
    for (; i + 3 * threads < words; i += 4 * threads) {
        uint4 a = from[i], b = from[i + threads], c = from[i + 2 * threads], d = from[i + 3 * threads];
        to[i] = a, to[i + threads] = b, to[i + 2 * threads] = c, to[i + 3 * threads] = d;
    }
    for (; i < words; i += threads) to[i] = from[i];
}

__global__ void add_offset(float *x, const float *offset, long long n)
{
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) x[i] += *offset;
}

void *cuda_alloc(device *d, size_t bytes)
{
    void *p = nullptr;
    char what[64];
    snprintf(what, sizeof what, "cudaMalloc of %zu bytes", bytes);
    return ok(d, cudaMalloc(&p, bytes ? bytes : 1), what) ? p : nullptr;
}
void cuda_release(device *d, void *p)
{
    if (p) ok(d, cudaFree(p), "cudaFree");
}
bool cuda_upload(device *d, void *to, const void *from, size_t bytes)
{
    return ok(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, of(d)->stream), "upload") &&
           ok(d, cudaStreamSynchronize(of(d)->stream), "upload");
}
bool cuda_download(device *d, void *to, const void *from, size_t bytes)
{
    return ok(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, of(d)->stream), "download") &&
           ok(d, cudaStreamSynchronize(of(d)->stream), "download");
}
bool cuda_fill(device *d, void *to, int byte, size_t bytes)
{
    return ok(d, cudaMemsetAsync(to, byte, bytes, of(d)->stream), "cudaMemsetAsync");
}
bool cuda_copy(device *d, void *to, const void *from, size_t bytes)
{
    return ok(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, of(d)->stream), "copy on the device");
}
bool cuda_flush(device *d)
{
    cuda *c = of(d);
    read_all<<<1024, 256, 0, c->stream>>>(c->cover, c->cover_words, c->sink);
    return ok(d, cudaGetLastError(), "flush of the L2");
}
/* Both of whole words: what does not fill one is nobody's bandwidth. */
bool cuda_copy_by_kernel(device *d, void *to, const void *from, size_t bytes)
{
    copy_all<<<2048, 256, 0, of(d)->stream>>>((uint4 *)to, (const uint4 *)from, bytes / sizeof(uint4));
    return ok(d, cudaGetLastError(), "a kernel's copy");
}
bool cuda_read_by_kernel(device *d, const void *from, size_t bytes)
{
    read_all<<<2048, 256, 0, of(d)->stream>>>((const uint4 *)from, bytes / sizeof(uint4), of(d)->sink);
    return ok(d, cudaGetLastError(), "a kernel's reading");
}

bool cuda_begin(device *d) { return ok(d, cudaEventRecord(of(d)->began, of(d)->stream), "cudaEventRecord"); }
bool cuda_end(device *d) { return ok(d, cudaEventRecord(of(d)->ended, of(d)->stream), "cudaEventRecord"); }
bool cuda_elapsed(device *d, double *seconds)
{
    float ms = 0;
    if (!ok(d, cudaEventSynchronize(of(d)->ended), "the timed work") ||
        !ok(d, cudaEventElapsedTime(&ms, of(d)->began, of(d)->ended), "cudaEventElapsedTime"))
        return false;
    *seconds = (double)ms * 1e-3;
    return true;
}
bool cuda_wait(device *d)
{
    return ok(d, cudaStreamSynchronize(of(d)->stream), "enqueued work") && ok(d, cudaGetLastError(), "enqueued work");
}

bool cuda_record_begin(device *d)
{
    if (!of(d)->own_stream) {
        snprintf(d->why, sizeof d->why, "the default stream cannot be recorded");
        return false;
    }
    return ok(d, cudaStreamBeginCapture(of(d)->stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}
void *cuda_record_end(device *d)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    if (!ok(d, cudaStreamEndCapture(of(d)->stream, &graph), "cudaStreamEndCapture")) return nullptr;
    bool good = ok(d, cudaGraphInstantiate(&made, graph, 0), "cudaGraphInstantiate") &&
                ok(d, cudaGraphUpload(made, of(d)->stream), "cudaGraphUpload");
    cudaGraphDestroy(graph);
    if (good) return made;
    if (made) cudaGraphExecDestroy(made);
    return nullptr;
}
bool cuda_replay(device *d, void *recording)
{
    return ok(d, cudaGraphLaunch((cudaGraphExec_t)recording, of(d)->stream), "cudaGraphLaunch");
}
void cuda_drop(device *d, void *recording)
{
    if (recording) ok(d, cudaGraphExecDestroy((cudaGraphExec_t)recording), "cudaGraphExecDestroy");
}

void cuda_close(device *d)
{
    cuda *c = of(d);
    cudaFree(c->cover);
    cudaFree(c->sink);
    if (c->began) cudaEventDestroy(c->began);
    if (c->ended) cudaEventDestroy(c->ended);
    if (c->own_stream && c->stream) cudaStreamDestroy(c->stream);
    free(c);
}

bool describe(device *d)
{
    int number = 0, l2 = 0;
    cudaDeviceProp properties;
    size_t total = 0;
    if (!ok(d, cudaGetDevice(&number), "cudaGetDevice") ||
        !ok(d, cudaGetDeviceProperties(&properties, number), "cudaGetDeviceProperties") ||
        !ok(d, cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, number), "L2 size") ||
        !ok(d, cudaDeviceGetPCIBusId(d->bus_id, sizeof d->bus_id, number), "PCI bus id") ||
        !ok(d, cudaMemGetInfo(&d->free_bytes, &total), "cudaMemGetInfo"))
        return false;
    snprintf(d->name, sizeof d->name, "%.100s", properties.name);
    d->l2_bytes = (size_t)l2;
    return true;
}

bool prepare(cuda *c)
{
    device *d = &c->d;
    size_t bytes = 3 * d->l2_bytes;
    if (c->own_stream && !ok(d, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "cudaStreamCreate")) return false;
    d->stream = c->stream;
    d->records = c->own_stream;
    c->cover_words = bytes / sizeof(uint4);
    return ok(d, cudaEventCreate(&c->began), "cudaEventCreate") && ok(d, cudaEventCreate(&c->ended), "cudaEventCreate") &&
           ok(d, cudaMalloc((void **)&c->cover, bytes ? bytes : 1), "memory to flush the L2 with") &&
           ok(d, cudaMalloc((void **)&c->sink, sizeof(unsigned)), "memory to flush the L2 with") &&
           ok(d, cudaMemsetAsync(c->cover, 0x5a, bytes, c->stream), "memory to flush the L2 with") && cuda_wait(d);
}

} // namespace

extern "C" device *device_cuda(bool own_stream, char why[DEVICE_TEXT])
{
    cuda *c = static_cast<cuda *>(calloc(1, sizeof *c));
    if (!c) return snprintf(why, DEVICE_TEXT, "no memory"), nullptr;
    device *d = &c->d;
    c->own_stream = own_stream;
    d->kind = "cuda";
    d->alloc = cuda_alloc, d->release = cuda_release, d->upload = cuda_upload, d->download = cuda_download;
    d->fill = cuda_fill, d->copy = cuda_copy, d->flush = cuda_flush;
    d->copy_by_kernel = cuda_copy_by_kernel, d->read_by_kernel = cuda_read_by_kernel;
    d->begin = cuda_begin, d->end = cuda_end, d->elapsed = cuda_elapsed, d->wait = cuda_wait;
    d->record_begin = cuda_record_begin, d->record_end = cuda_record_end, d->replay = cuda_replay, d->drop = cuda_drop;
    d->close = cuda_close;
    if (describe(d) && prepare(c)) return d;
    snprintf(why, DEVICE_TEXT, "%s", d->why);
    cuda_close(d);
    return nullptr;
}

extern "C" bool device_cuda_add(device *d, float *x, const float *offset, long long n)
{
    if (n <= 0) return true;
    long long blocks = (n + 255) / 256;
    add_offset<<<(unsigned)(blocks < 65536 ? blocks : 65536), 256, 0, of(d)->stream>>>(x, offset, n);
    return ok(d, cudaGetLastError(), "adding the offset");
}

extern "C" void device_cuda_versions(int *runtime, int *driver)
{
    *runtime = *driver = 0;
    (void)cudaRuntimeGetVersion(runtime);
    (void)cudaDriverGetVersion(driver);
    (void)cudaGetLastError();
}
