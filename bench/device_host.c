/* device_host.c: the host as a device (device.h); and which device a name means. */
#include "bench/device.h"
#include "bench/timing.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct host {
    device d; /* first: a device * is a host * */
    double began, ended;
    uint8_t *cover; /* read by flush */
    size_t cover_bytes;
    uint64_t sum;
} host;

static void *host_alloc(device *d, size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 256, bytes ? bytes : 1) == 0) return p;
    snprintf(d->why, sizeof d->why, "no memory for %zu bytes", bytes);
    return NULL;
}
static void host_release(device *d, void *p) { (void)d, free(p); }
static bool host_copy(device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(to, from, bytes);
    return true;
}
static bool host_fill(device *d, void *to, int byte, size_t bytes)
{
    (void)d;
    if (bytes) memset(to, byte, bytes);
    return true;
}
static bool host_flush(device *d)
{
    host *h = (host *)d;
    for (size_t i = 0; i < h->cover_bytes; i += 64) h->sum += h->cover[i];
    return true;
}
static bool host_begin(device *d) { return ((host *)d)->began = timing_now(), true; }
static bool host_end(device *d) { return ((host *)d)->ended = timing_now(), true; }
static bool host_elapsed(device *d, double *seconds)
{
    const host *h = (const host *)d;
    *seconds = h->ended - h->began;
    return true;
}
static bool host_wait(device *d) { return (void)d, true; }

/* Calls run where they are made: there is nothing to record. */
static bool host_record_begin(device *d)
{
    snprintf(d->why, sizeof d->why, "the host has no recordings");
    return false;
}
static void *host_record_end(device *d) { return host_record_begin(d), NULL; }
static bool host_replay(device *d, void *recording) { return (void)recording, host_record_begin(d); }
static void host_drop(device *d, void *recording) { (void)d, (void)recording; }

static void host_close(device *d)
{
    host *h = (host *)d;
    free(h->cover);
    free(h);
}

device *device_host(size_t l2_bytes, char why[DEVICE_TEXT])
{
    host *h = calloc(1, sizeof *h);
    if (!h) return snprintf(why, DEVICE_TEXT, "no memory"), NULL;
    h->d = (device){.kind = "host", .caveat = "on the host: not a GPU's time", .name = "host", .l2_bytes = l2_bytes,
                    .free_bytes = (size_t)1 << 30, .alloc = host_alloc, .release = host_release, .upload = host_copy,
                    .download = host_copy, .fill = host_fill, .copy = host_copy, .flush = host_flush, .begin = host_begin,
                    .end = host_end, .elapsed = host_elapsed, .wait = host_wait, .record_begin = host_record_begin,
                    .record_end = host_record_end, .replay = host_replay, .drop = host_drop, .close = host_close};
    h->cover_bytes = 3 * l2_bytes;
    h->cover = malloc(h->cover_bytes ? h->cover_bytes : 1);
    if (!h->cover) {
        free(h);
        return snprintf(why, DEVICE_TEXT, "no memory to empty the caches with"), NULL;
    }
    memset(h->cover, 1, h->cover_bytes);
    return &h->d;
}

/* In a build without nvcc the CUDA device is not there. */
#pragma weak device_cuda

device *device_open(const char *kind, char why[DEVICE_TEXT])
{
    if (strcmp(kind, "host") == 0) return device_host((size_t)64 << 10, why); /* small: there is nothing to time, so few sets will do */
    if (strcmp(kind, "cuda") == 0 && device_cuda) return device_cuda(true, why);
    if (strcmp(kind, "cuda") == 0) snprintf(why, DEVICE_TEXT, "this program was built without CUDA (no nvcc)");
    else snprintf(why, DEVICE_TEXT, "device %.64s is neither cuda nor host", kind);
    return NULL;
}
