/* spike_host.c: see spike_host.h. */
#include "spike_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

static size_t free_bytes(void *self)
{
    const spike_host *h = self;
    return h->limit - h->used - h->taken;
}

static void *alloc(device *d, size_t bytes)
{
    spike_host *h = (spike_host *)d;
    void *p = NULL;
    if (bytes > free_bytes(h)) {
        snprintf(d->why, sizeof d->why, "the budget of %zu bytes has %zu left", h->limit, free_bytes(h));
        return NULL;
    }
    if (posix_memalign(&p, ALIGN, bytes + ALIGN) != 0) {
        snprintf(d->why, sizeof d->why, "no memory for %zu bytes", bytes);
        return NULL;
    }
    memcpy(p, &bytes, sizeof bytes); /* for release */
    h->used += bytes;
    return (char *)p + ALIGN;
}

static void release(device *d, void *p)
{
    char *at = (char *)p - ALIGN;
    size_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    ((spike_host *)d)->used -= bytes;
    free(at);
}

static bool copy(device *d, void *to, const void *from, size_t bytes) { return (void)d, memcpy(to, from, bytes), true; }
static bool fill(device *d, void *to, int byte, size_t bytes) { return (void)d, memset(to, byte, bytes), true; }
static bool wait(device *d) { return (void)d, true; }

static bool take(void *self, size_t left, ck_error *e)
{
    spike_host *h = self;
    if (free_bytes(h) < left) return ck_fail(e, "hog", NULL, "only %zu bytes are free", free_bytes(h));
    h->taken = free_bytes(h) - left;
    return true;
}
static void give(void *self) { ((spike_host *)self)->taken = 0; }

spike_setup spike_host_setup(spike_host *h, const char *folder, int64_t elements, bool state8)
{
    enum { PAGES = 60, LEAST = 8192 }; /* so many make up the state */
    size_t state = (size_t)elements * (state8 ? 2 : 8), page = state / PAGES / LEAST * LEAST + LEAST;
    *h = (spike_host){.d = {.kind = "host", .alloc = alloc, .release = release, .upload = copy, .download = copy, .fill = fill, .wait = wait},
                      .limit = (size_t)elements * 8 + state + state / 4 + 2 * page};
    if (page > PAGER_PAGE) page = PAGER_PAGE;
    spike_setup s = {.device = &h->d, .memory = {h, free_bytes, take, give}, .state8 = state8, .elements = elements, .folder = folder,
                     .paged = {.kind = PAGER_FILE, .page_bytes = page, .folder = folder, .device = &h->d}};
    fb_context_init(&s.context, FB_BACKEND_CPU);
    s.context.threads = 1;
    return s;
}
