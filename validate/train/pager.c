/* pager.c: items in pages, pages in frames, and which page must go. See pager.h. */
#include "pager_backing.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[PAGER_KIND_COUNT] = {
    [PAGER_RESIDENT] = "resident", [PAGER_FILE] = "file", [PAGER_MANAGED] = "managed", [PAGER_PINNED] = "pinned"};
static const pager_backing *const backings[PAGER_KIND_COUNT] = {[PAGER_RESIDENT] = &pager_resident, [PAGER_FILE] = &pager_file,
                                                                [PAGER_MANAGED] = &pager_managed, [PAGER_PINNED] = &pager_pinned};

const char *pager_kind_name(pager_kind kind) { return (unsigned)kind < PAGER_KIND_COUNT ? names[kind] : "?"; }

#define FAIL(...) ck_fail(e, "pager", NULL, __VA_ARGS__)

static size_t rounded(size_t bytes) { return (bytes + PAGER_ALIGN - 1) / PAGER_ALIGN * PAGER_ALIGN; }

/* ---- opening and adding ------------------------------------------------------------------------------------------- */

pager *pager_open(const pager_config *config, ck_error *e)
{
    if ((unsigned)config->kind >= PAGER_KIND_COUNT) return FAIL("kind %d is none", (int)config->kind), NULL;
    if ((config->kind == PAGER_MANAGED || config->kind == PAGER_PINNED) && !config->gpu)
        return FAIL("%s memory needs a GPU, and there is none", pager_kind_name(config->kind)), NULL;
    if (config->kind == PAGER_FILE && config->device && strcmp(config->device->kind, "cuda") == 0)
        return FAIL("a file is read into the host's memory; state of a GPU is paged as managed or pinned"), NULL;
    pager *p = calloc(1, sizeof *p);
    if (!p) return FAIL("out of memory"), NULL;
    p->config = *config;
    p->backing = backings[config->kind];
    p->fd = -1;
    p->page_bytes = rounded(config->page_bytes ? config->page_bytes : PAGER_PAGE);
    if (config->kind != PAGER_RESIDENT && config->budget && config->budget / 2 < p->page_bytes)
        p->page_bytes = config->budget / 2 / PAGER_ALIGN * PAGER_ALIGN;
    if (p->page_bytes > 0) return p;
    FAIL("a budget of %zu bytes does not hold two pages of %d", config->budget, PAGER_ALIGN);
    free(p);
    return NULL;
}

size_t pager_page_bytes(const pager *p) { return p->page_bytes; }

/* Room for one more of `size` bytes each. */
static bool grow(void *array, int64_t count, int64_t *room, size_t size)
{
    if (count < *room) return true;
    int64_t more = *room ? 2 * *room : 64;
    void *grown = realloc(*(void **)array, (size_t)more * size);
    if (!grown) return false;
    *(void **)array = grown;
    *room = more;
    return true;
}

bool pager_add(pager *p, size_t bytes, int64_t *item, ck_error *e)
{
    if (p->started) return FAIL("an item was added after the start");
    if (bytes == 0 || bytes > p->page_bytes) return FAIL("an item has %zu bytes; a page has %zu", bytes, p->page_bytes);
    pager_page *last = p->page_count ? &p->pages[p->page_count - 1] : NULL;
    if (!grow(&p->items, p->item_count, &p->item_room, sizeof *p->items)) return FAIL("out of memory");
    if (!last || rounded(last->bytes) + bytes > p->page_bytes) {
        if (!grow(&p->pages, p->page_count, &p->page_room, sizeof *p->pages)) return FAIL("out of memory");
        last = &p->pages[p->page_count++];
        *last = (pager_page){.frame = -1};
    }
    p->items[p->item_count] = (pager_item){p->page_count - 1, rounded(last->bytes), bytes};
    last->bytes = rounded(last->bytes) + bytes;
    *item = p->item_count++;
    return true;
}

/* ---- frames ----------------------------------------------------------------------------------------------------------- */

/* Frames that a budget allows. */
static int64_t allowed(const pager *p, size_t budget)
{
    int64_t most = p->page_count;
    if (p->config.kind != PAGER_RESIDENT && budget && budget / p->page_bytes < (size_t)most) most = (int64_t)(budget / p->page_bytes);
    return most;
}

static bool make_frames(pager *p, ck_error *e)
{
    while (p->frame_count < p->frame_limit) {
        pager_frame *f = &p->frames[p->frame_count];
        *f = (pager_frame){.page = -1};
        if (!p->backing->frame_new(p, f, e)) return false;
        p->frame_count++;
    }
    return true;
}

static void count_resident(pager *p, int64_t page, bool came)
{
    size_t bytes = p->pages[page].bytes;
    if (came) p->counters.resident_bytes += bytes;
    else p->counters.resident_bytes -= bytes;
    if (p->counters.resident_bytes > p->counters.peak_bytes) p->counters.peak_bytes = p->counters.resident_bytes;
}

/* The frame's page is written back if it must be, and the frame is free. */
static bool evict(pager *p, int64_t frame, ck_error *e)
{
    int64_t page = p->frames[frame].page;
    pager_page *g = &p->pages[page];
    if (g->dirty || p->backing->always_stores) {
        if (!p->backing->store(p, page, e)) return false;
        g->written = true;
        g->dirty = false;
        p->counters.stores++;
        p->counters.bytes_out += g->bytes;
    }
    g->frame = -1;
    p->frames[frame].page = -1;
    count_resident(p, page, false);
    return true;
}

/* Pages until this one's turn, in a walk that has come to `position`. */
static int64_t until(const pager *p, int64_t page)
{
    int64_t ahead = page - p->position;
    return ahead < 0 ? ahead + p->page_count : ahead;
}

/* A frame for a page: a free one, or that of the page whose turn is farthest away, and farther than `page`'s unless it is
 * needed now. -1: none. */
static int64_t frame_for(const pager *p, int64_t page, bool now)
{
    int64_t best = -1, farthest = now ? -1 : until(p, page);
    for (int64_t f = 0; f < p->frame_count; f++) {
        int64_t held = p->frames[f].page;
        if (held < 0) return f;
        if (p->pages[held].holds == 0 && until(p, held) > farthest) best = f, farthest = until(p, held);
    }
    return best;
}

static bool bring(pager *p, int64_t page, int64_t frame, ck_error *e)
{
    pager_page *g = &p->pages[page];
    if (p->frames[frame].page >= 0 && !evict(p, frame, e)) return false;
    p->frames[frame].page = page;
    g->frame = frame;
    if (!p->backing->load(p, page, e)) {
        p->frames[frame].page = g->frame = -1;
        return false;
    }
    count_resident(p, page, true);
    if (g->written || p->backing->asynchronous) p->counters.loads++, p->counters.bytes_in += g->bytes;
    return true;
}

bool pager_start(pager *p, ck_error *e)
{
    if (p->started) return FAIL("was started before");
    /* one small page need not have a large one's memory */
    if (p->page_count == 1) p->page_bytes = rounded(p->pages[0].bytes);
    for (int64_t i = 0; i < p->page_count; i++) p->counters.total_bytes += p->pages[i].bytes;
    p->frames = calloc((size_t)p->page_count + 1, sizeof *p->frames);
    if (!p->frames) return FAIL("out of memory");
    p->frame_limit = allowed(p, p->config.budget);
    p->started = true;
    if (!p->backing->start(p, e) || !make_frames(p, e)) return false;
    if (p->config.kind != PAGER_RESIDENT) return true;
    for (int64_t i = 0; i < p->page_count; i++)
        if (!bring(p, i, i, e)) return false;
    return true;
}

void pager_close(pager *p)
{
    if (!p) return;
    if (p->started) {
        if (p->backing->close) p->backing->close(p); /* first waits for what is under way */
        while (p->frames && p->frame_count > 0) p->backing->frame_free(p, &p->frames[--p->frame_count]);
    }
    free(p->frames);
    free(p->pages);
    free(p->items);
    free(p);
}

/* ---- a step --------------------------------------------------------------------------------------------------------------- */

/* Frames above the limit go: those whose turn is farthest. */
static bool shrink(pager *p, ck_error *e)
{
    while (p->frame_count > p->frame_limit) {
        int64_t f = frame_for(p, p->position, true), last = p->frame_count - 1;
        if (f < 0) return FAIL("every page is held: the room cannot shrink");
        if (p->frames[f].page >= 0 && !evict(p, f, e)) return false;
        pager_frame gone = p->frames[f];
        p->frames[f] = p->frames[last];
        if (f != last && p->frames[f].page >= 0) p->pages[p->frames[f].page].frame = f;
        p->frame_count--;
        p->backing->frame_free(p, &gone);
    }
    return true;
}

static bool set_limit(pager *p, int64_t limit, ck_error *e)
{
    int64_t least = p->page_count < 2 ? p->page_count : 2;
    p->frame_limit = limit < least ? least : limit;
    return shrink(p, e) && make_frames(p, e);
}

bool pager_begin_step(pager *p, ck_error *e)
{
    p->position = 0;
    int64_t most = allowed(p, p->config.budget);
    if (!p->backing->room) return true;
    return p->backing->room(p, &most, e) && set_limit(p, most, e);
}

bool pager_resize(pager *p, size_t budget, ck_error *e)
{
    if (p->config.kind == PAGER_RESIDENT) return FAIL("resident state is all there or not at all: its room cannot change");
    if (budget && budget / 2 < p->page_bytes && p->page_count > 1)
        return FAIL("a budget of %zu bytes does not hold two pages of %zu", budget, p->page_bytes);
    for (int64_t i = 0; i < p->page_count; i++)
        if (p->pages[i].holds) return FAIL("the room cannot change while an item is held");
    p->config.budget = budget;
    return set_limit(p, allowed(p, budget), e);
}

static bool find(const pager *p, int64_t item, ck_error *e)
{
    if (!p->started) return FAIL("was not started");
    return item >= 0 && item < p->item_count ? true : FAIL("there is no item %lld", (long long)item);
}

/* Two pages ahead: with three frames one page comes, one is used and one is written back, all at once. */
enum { AHEAD = 2 };

bool pager_prefetch(pager *p, int64_t item, ck_error *e)
{
    if (!find(p, item, e)) return false;
    for (int64_t i = 0; i <= AHEAD && i < p->page_count; i++) {
        int64_t page = (p->items[item].page + i) % p->page_count;
        if (p->pages[page].frame >= 0) continue;
        if (!p->backing->asynchronous) {
            if (p->backing->hint && p->pages[page].written) p->backing->hint(p, page);
            return true;
        }
        int64_t frame = frame_for(p, page, false);
        if (frame < 0) return true;
        if (!bring(p, page, frame, e)) return false;
    }
    return true;
}

void *pager_acquire(pager *p, int64_t item, ck_error *e)
{
    if (!find(p, item, e)) return NULL;
    const pager_item *i = &p->items[item];
    pager_page *g = &p->pages[i->page];
    p->position = i->page;
    if (g->frame >= 0) {
        p->counters.hits++;
    } else {
        int64_t frame = frame_for(p, i->page, true);
        if (frame < 0) return FAIL("all of its %lld pages are held", (long long)p->frame_count), NULL;
        if (!bring(p, i->page, frame, e)) return NULL;
    }
    if (p->backing->use && !p->backing->use(p, i->page, e)) return NULL;
    g->holds++;
    return (char *)p->frames[g->frame].at + i->offset;
}

bool pager_release(pager *p, int64_t item, bool dirty, ck_error *e)
{
    if (!find(p, item, e)) return false;
    pager_page *g = &p->pages[p->items[item].page];
    if (g->holds == 0) return FAIL("item %lld is released but was not acquired", (long long)item);
    g->holds--;
    g->dirty |= dirty;
    return !p->backing->used || p->backing->used(p, p->items[item].page, e);
}

/* ---- host copies ------------------------------------------------------------------------------------------------------------ */

static bool copy(pager *p, void *to, const void *from, size_t bytes, bool in, ck_error *e)
{
    char why[GPU_WHY] = "";
    const gpu_runtime *gpu = p->config.gpu;
    device *d = p->config.device;
    if (p->backing->asynchronous) {
        if (gpu->copy(gpu->self, to, from, bytes, in, p->config.stream, why) && gpu->sync_stream(gpu->self, p->config.stream, why)) return true;
        return FAIL("%s", why);
    }
    if (d) return (in ? d->upload : d->download)(d, to, from, bytes) ? true : FAIL("%s", d->why);
    memcpy(to, from, bytes);
    return true;
}
bool pager_copy_out(pager *p, void *host, const void *at, size_t bytes, ck_error *e) { return copy(p, host, at, bytes, false, e); }
bool pager_copy_in(pager *p, void *at, const void *host, size_t bytes, ck_error *e) { return copy(p, at, host, bytes, true, e); }

bool pager_read(pager *p, int64_t item, void *host, ck_error *e)
{
    const void *at = pager_acquire(p, item, e);
    if (!at) return false;
    bool good = pager_copy_out(p, host, at, p->items[item].bytes, e);
    return pager_release(p, item, false, e) && good;
}

bool pager_write(pager *p, int64_t item, const void *host, ck_error *e)
{
    void *at = pager_acquire(p, item, e);
    if (!at) return false;
    bool good = pager_copy_in(p, at, host, p->items[item].bytes, e);
    return pager_release(p, item, true, e) && good;
}

pager_counters pager_count(const pager *p) { return p->counters; }
