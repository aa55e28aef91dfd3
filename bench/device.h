/* device.h: what the benchmark asks of a device: memory, a stream of work, two marks on it, recordings, clocks.
 *
 *   device_cuda   device_cuda.cu, the CUDA runtime; in a build without nvcc it is absent
 *   device_host   device_host.c, plain memory and the processor's clock: for backends whose pointers are the host's (the
 *                 reference, the CPU's, the CUDA kernels in the SIMT executor). Its times are no GPU's, and rows say so
 *   a fake one    test_gpu.c, which counts what is asked of it
 *
 * Enqueueing functions return before the work is done. False (or NULL): why says what failed, in the runtime's words.
 */
#ifndef FOURBIT_BENCH_DEVICE_H
#define FOURBIT_BENCH_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DEVICE_TEXT = 400 };

typedef struct device device;
struct device {
    const char *kind;    /* "cuda", "host" */
    const char *caveat;  /* NULL: its times are a GPU's; else what a row's label says about them */
    char name[128];      /* of the GPU */
    char bus_id[32];     /* for NVML: "00000000:1B:00.0" */
    size_t l2_bytes;     /* read from the device */
    size_t free_bytes;   /* when it was opened */
    void *stream;        /* fb_context.stream */
    bool records;        /* whether record_begin can do anything */
    char why[DEVICE_TEXT];

    /* Plain device memory (never managed), aligned to at least 256 bytes. */
    void *(*alloc)(device *d, size_t bytes);
    void (*release)(device *d, void *p);
    /* Host to device and back; both are over when the call returns. */
    bool (*upload)(device *d, void *to, const void *from, size_t bytes);
    bool (*download)(device *d, void *to, const void *from, size_t bytes);

    /* Enqueued: every byte set; device to device; the L2 left full of clean lines that are nobody's. */
    bool (*fill)(device *d, void *to, int byte, size_t bytes);
    bool (*copy)(device *d, void *to, const void *from, size_t bytes);
    bool (*flush)(device *d);
    /* The same copy, and a read, by a kernel of 16 bytes a lane: what the processors can move. cudaMemcpyAsync may go to a copy engine
     * that moves less (an H200's 2.7 of 4.3 TB/s in a graph). NULL where there are no kernels. */
    bool (*copy_by_kernel)(device *d, void *to, const void *from, size_t bytes);
    bool (*read_by_kernel)(device *d, const void *from, size_t bytes);

    /* Two marks on the stream, and the seconds between them once the work is done. */
    bool (*begin)(device *d);
    bool (*end)(device *d);
    bool (*elapsed)(device *d, double *seconds);
    bool (*wait)(device *d); /* until all that was enqueued is done; reports its errors */

    /* Between record_begin and record_end what is enqueued is recorded, not run. replay enqueues it, drop frees it.
     * record_end also ends a recording in which something failed: NULL. */
    bool (*record_begin)(device *d);
    void *(*record_end)(device *d);
    bool (*replay)(device *d, void *recording);
    void (*drop)(device *d, void *recording);

    void (*close)(device *d);
};

/* The CUDA device that the runtime chooses (CUDA_VISIBLE_DEVICES). NULL: why says why not. own_stream: false works on
 * the default stream, as a library does that takes no stream; then it cannot record. */
device *device_cuda(bool own_stream, char why[DEVICE_TEXT]);
/* x [n] += *offset on the device, enqueued: what bitsandbytes' Python does after decoding absmax. */
bool device_cuda_add(device *d, float *x, const float *offset, long long n);
/* "13000" for CUDA 13.0: of the runtime in this program and of the driver. */
void device_cuda_versions(int *runtime, int *driver);

/* l2_bytes: what it pretends to have. */
device *device_host(size_t l2_bytes, char why[DEVICE_TEXT]);

/* The device that a name asks for: "cuda", "host". */
device *device_open(const char *kind, char why[DEVICE_TEXT]);

#ifdef __cplusplus
}
#endif
#endif
