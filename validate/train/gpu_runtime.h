/* gpu_runtime.h: the eighteen calls of the CUDA runtime that the pagers make, as a table.
 *
 *   gpu_runtime_cuda.cu   the real one, compiled by nvcc
 *   test_gpu_runtime.c    a stand-in on the host, for tests: streams are queues whose work is run late and in any order
 *                         that their events allow, so that a missing wait shows as wrong data
 *
 * Streams and events are the runtime's handles as void *. A call that fails returns false and says why in why[GPU_WHY].
 */
#ifndef FOURBIT_TRAIN_GPU_RUNTIME_H
#define FOURBIT_TRAIN_GPU_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_WHY = 256 };

typedef struct gpu_runtime {
    void *self;
    /* Bytes of the device's memory; whether managed memory can be used by host and device at the same time. */
    bool (*memory)(void *self, size_t *free_bytes, size_t *total_bytes, char *why);
    bool (*concurrent_managed)(void *self, bool *can, char *why);

    void *(*alloc_device)(void *self, size_t bytes, char *why);
    void *(*alloc_pinned)(void *self, size_t bytes, char *why);
    void *(*alloc_managed)(void *self, size_t bytes, char *why);
    void (*free_device)(void *self, void *p); /* device and managed */
    void (*free_pinned)(void *self, void *p);

    void *(*stream_new)(void *self, char *why);
    void (*stream_free)(void *self, void *stream);
    void *(*event_new)(void *self, char *why);
    void (*event_free)(void *self, void *event);

    /* Enqueued on the stream. */
    bool (*copy)(void *self, void *to, const void *from, size_t bytes, bool to_device, void *stream, char *why);
    bool (*prefetch)(void *self, void *p, size_t bytes, bool to_device, void *stream, char *why);
    bool (*fill)(void *self, void *p, int byte, size_t bytes, void *stream, char *why);
    bool (*record)(void *self, void *event, void *stream, char *why);
    bool (*wait_event)(void *self, void *stream, void *event, char *why); /* the stream waits, not the caller */

    bool (*sync_stream)(void *self, void *stream, char *why); /* the caller waits */
    bool (*sync_event)(void *self, void *event, char *why);
} gpu_runtime;

/* NULL: there is no GPU, or it cannot be used. In a build without nvcc the function is absent (a weak symbol). */
const gpu_runtime *gpu_runtime_cuda(char *why);

#ifdef __cplusplus
}
#endif
#endif
