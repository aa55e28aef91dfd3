/* pager_gpu.c: state in managed and in pinned memory, brought to the device and back on streams of their own.
 *
 *   caller's stream    | use 0 |     use 1     |     use 2     |
 *   in_stream      in 0 | in 1     | in 2          | in 3 ...            the caller's stream waits for `in` of its page's frame
 *   out_stream                | out 0           | out 1 ...              waits for `used` of the frame, and in_stream for `stored`
 *
 * Nothing here waits on the host, except where memory is given back. What is written back has been waited for by every later
 * load (`stored` is of the last one): a page that comes again finds what it left, and a frame is not overwritten before it
 * was emptied; a frame whose page was not changed is waited for through its own `used`. */
#include "pager_backing.h"

#include <string.h>

#define FAIL(...) ck_fail(e, "pager", NULL, __VA_ARGS__)

/* One call of the runtime; its words become the message. */
#define GPU(call, ...) (gpu->call(gpu->self, __VA_ARGS__, why) ? true : FAIL("%s", why))

static char *behind(const pager *p, int64_t page) { return p->behind + (size_t)page * p->page_bytes; }
static pager_frame *frame_of(const pager *p, int64_t page) { return &p->frames[p->pages[page].frame]; }

/* ---- both ------------------------------------------------------------------------------------------------------------- */

static bool events_new(pager *p, pager_frame *f, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    f->in = gpu->event_new(gpu->self, why);
    f->used = f->in ? gpu->event_new(gpu->self, why) : NULL;
    return f->used ? true : FAIL("%s", why);
}

static void events_free(const pager *p, const pager_frame *f)
{
    const gpu_runtime *gpu = p->config.gpu;
    if (f->in) gpu->event_free(gpu->self, f->in);
    if (f->used) gpu->event_free(gpu->self, f->used);
}

static bool streams_new(pager *p, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    p->in_stream = gpu->stream_new(gpu->self, why);
    p->out_stream = p->in_stream ? gpu->stream_new(gpu->self, why) : NULL;
    p->stored = p->out_stream ? gpu->event_new(gpu->self, why) : NULL;
    return p->stored ? true : FAIL("%s", why);
}

static void wait_for_all(const pager *p)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY];
    gpu->sync_stream(gpu->self, p->config.stream, why);
    if (p->in_stream) gpu->sync_stream(gpu->self, p->in_stream, why);
    if (p->out_stream) gpu->sync_stream(gpu->self, p->out_stream, why);
}

static void streams_free(pager *p)
{
    const gpu_runtime *gpu = p->config.gpu;
    wait_for_all(p);
    if (p->stored) gpu->event_free(gpu->self, p->stored);
    if (p->in_stream) gpu->stream_free(gpu->self, p->in_stream);
    if (p->out_stream) gpu->stream_free(gpu->self, p->out_stream);
}

static bool use(pager *p, int64_t page, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    return GPU(wait_event, p->config.stream, frame_of(p, page)->in);
}

static bool used(pager *p, int64_t page, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    return GPU(record, frame_of(p, page)->used, p->config.stream);
}

/* The copy or prefetch itself, between the waits that order it. */
static bool moved(pager *p, int64_t page, bool in, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    void *at = frame_of(p, page)->at, *stream = in ? p->in_stream : p->out_stream;
    size_t bytes = p->pages[page].bytes;
    if (p->config.kind == PAGER_MANAGED) return GPU(prefetch, at, bytes, in, stream);
    return in ? GPU(copy, at, behind(p, page), bytes, true, stream) : GPU(copy, behind(p, page), at, bytes, false, stream);
}

static bool load(pager *p, int64_t page, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    pager_frame *f = frame_of(p, page);
    if (p->config.kind == PAGER_MANAGED) f->at = behind(p, page);
    return GPU(wait_event, p->in_stream, p->stored) && GPU(wait_event, p->in_stream, f->used) && moved(p, page, true, e) &&
           GPU(record, f->in, p->in_stream);
}

static bool store(pager *p, int64_t page, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    const pager_frame *f = frame_of(p, page);
    return GPU(wait_event, p->out_stream, f->in) && GPU(wait_event, p->out_stream, f->used) && moved(p, page, false, e) &&
           GPU(record, p->stored, p->out_stream);
}

/* ---- pinned -------------------------------------------------------------------------------------------------------------- */

static bool pinned_start(pager *p, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    size_t bytes = (size_t)p->page_count * p->page_bytes;
    if (!streams_new(p, e)) return false;
    p->behind = gpu->alloc_pinned(gpu->self, bytes ? bytes : 1, why);
    if (!p->behind) return FAIL("%zu bytes of pinned host memory: %s", bytes, why);
    memset(p->behind, 0, bytes);
    return true;
}

static void pinned_close(pager *p)
{
    streams_free(p);
    if (p->behind) p->config.gpu->free_pinned(p->config.gpu->self, p->behind);
    p->behind = NULL; /* frames are given back after this, and have nothing to wait for */
}

static void pinned_frame_free(pager *p, pager_frame *f)
{
    if (p->behind) wait_for_all(p);
    events_free(p, f);
    p->config.gpu->free_device(p->config.gpu->self, f->at);
}

static bool pinned_frame_new(pager *p, pager_frame *f, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    f->at = gpu->alloc_device(gpu->self, p->page_bytes, why);
    if (!f->at)
        return FAIL("no device memory for page %lld of %lld (%zu bytes each): %s", (long long)p->frame_count + 1, (long long)p->frame_limit,
                    p->page_bytes, why);
    if (events_new(p, f, e)) return true;
    events_free(p, f);
    gpu->free_device(gpu->self, f->at);
    return false;
}

const pager_backing pager_pinned = {.asynchronous = true, .start = pinned_start, .close = pinned_close, .frame_new = pinned_frame_new,
                                    .frame_free = pinned_frame_free, .load = load, .store = store, .use = use, .used = used};

/* ---- managed --------------------------------------------------------------------------------------------------------------
 *
 * Never asked for beyond what the card has free: oversubscribed managed memory can hang a GPU, and a spike is someone
 * else's plain allocation. When one comes, the driver evicts what it must; begin_step then keeps fewer pages on the device,
 * so that what comes in is what was sent out before, and not what the driver has to throw out again. */

static bool managed_start(pager *p, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    size_t bytes = (size_t)p->page_count * p->page_bytes, free_bytes, total;
    bool can;
    if (!GPU(concurrent_managed, &can) || !GPU(memory, &free_bytes, &total)) return false;
    if (!can) return FAIL("this GPU or system has no concurrent managed access: page with pinned memory instead");
    if (free_bytes < p->config.reserve || bytes > free_bytes - p->config.reserve)
        return FAIL("the state has %zu bytes, the card %zu free (%zu to be left): managed memory is never asked for beyond that", bytes,
                    free_bytes, p->config.reserve);
    if (!streams_new(p, e)) return false;
    p->behind = gpu->alloc_managed(gpu->self, bytes ? bytes : 1, why);
    if (!p->behind) return FAIL("%zu bytes of managed memory: %s", bytes, why);
    memset(p->behind, 0, bytes); /* by the host: it begins there */
    return true;
}

static void managed_close(pager *p)
{
    streams_free(p);
    if (p->behind) p->config.gpu->free_device(p->config.gpu->self, p->behind);
    p->behind = NULL;
}

static void managed_frame_free(pager *p, pager_frame *f)
{
    if (p->behind) wait_for_all(p);
    events_free(p, f);
}

static bool managed_frame_new(pager *p, pager_frame *f, ck_error *e)
{
    if (events_new(p, f, e)) return true;
    events_free(p, f);
    return false;
}

static bool managed_room(pager *p, int64_t *most, ck_error *e)
{
    const gpu_runtime *gpu = p->config.gpu;
    char why[GPU_WHY] = "";
    size_t free_bytes, total;
    if (!GPU(memory, &free_bytes, &total)) return false;
    int64_t now = p->frame_count, page = (int64_t)p->page_bytes, fit;
    if (free_bytes < p->config.reserve) {
        /* someone took it: give back what is missing, and at least half */
        fit = now - (int64_t)(p->config.reserve - free_bytes + p->page_bytes - 1) / page;
        if (fit > now / 2) fit = now / 2;
    } else {
        fit = ((int64_t)(free_bytes - p->config.reserve) + (int64_t)p->counters.resident_bytes) / page;
    }
    if (fit < *most) *most = fit;
    return true;
}

const pager_backing pager_managed = {.asynchronous = true, .always_stores = true, .start = managed_start, .close = managed_close,
                                     .frame_new = managed_frame_new, .frame_free = managed_frame_free, .load = load, .store = store,
                                     .use = use, .used = used, .room = managed_room};
