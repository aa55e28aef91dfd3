/* test_gpu_runtime.c: see test_gpu_runtime.h. */
#include "test_gpu_runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct event {
    long recorded, done; /* the record that was enqueued last, and that was reached last */
} event;

typedef struct op {
    enum { COPY, PREFETCH, FILL, RECORD, WAIT, CALL } what;
    void *to;
    const void *from;
    size_t bytes;
    bool to_device;
    int byte;
    event *event;
    long version;
    void (*f)(void *);
    void *user;
    struct op *next;
} op;

typedef struct stand_in_stream {
    op *first, **last;
    struct stand_in_stream *next;
} stream;

enum { GRAIN = 256 }; /* of what is on the card */
typedef struct stand_in_block {
    char *p;
    size_t bytes;
    enum { DEVICE, PINNED, MANAGED } kind;
    uint8_t *on_card; /* managed: of each GRAIN bytes */
    struct stand_in_block *next;
} block;

static bool fails(stand_in *s, char *why)
{
    s->calls++;
    if (s->fail_at == 0 || --s->fail_at > 0) return false;
    snprintf(why, GPU_WHY, "planted failure");
    return true;
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

static block *block_of(const stand_in *s, const void *p)
{
    for (block *b = s->blocks; b; b = b->next)
        if ((const char *)p >= b->p && (const char *)p < b->p + b->bytes) return b;
    return NULL;
}

static bool memory(void *self, size_t *free_bytes, size_t *total, char *why)
{
    stand_in *s = self;
    *total = s->card_bytes;
    *free_bytes = s->card_bytes - s->device_bytes - s->managed_on_card;
    return !fails(s, why);
}

static bool concurrent_managed(void *self, bool *can, char *why)
{
    stand_in *s = self;
    *can = s->concurrent;
    return !fails(s, why);
}

/* The driver makes room by sending managed memory to the host. */
static void evict_managed(stand_in *s, size_t needed)
{
    for (block *b = s->blocks; b; b = b->next)
        for (size_t i = 0; b->kind == MANAGED && i < b->bytes / GRAIN; i++) {
            if (s->device_bytes + s->managed_on_card + needed <= s->card_bytes) return;
            if (b->on_card[i]) b->on_card[i] = 0, s->managed_on_card -= GRAIN;
        }
}

static void *alloc(stand_in *s, size_t bytes, int kind, char *why)
{
    if (fails(s, why)) return NULL;
    bytes = (bytes + GRAIN - 1) / GRAIN * GRAIN;
    if (kind == DEVICE && s->device_bytes + bytes > s->card_bytes) return snprintf(why, GPU_WHY, "out of memory"), NULL;
    block *b = calloc(1, sizeof *b);
    *b = (block){.bytes = bytes, .kind = kind, .on_card = calloc(bytes / GRAIN + 1, 1), .next = s->blocks};
    b->p = aligned_alloc(GRAIN, bytes ? bytes : GRAIN);
    memset(b->p, 0xee, bytes);
    if (kind == DEVICE) evict_managed(s, bytes), s->device_bytes += bytes;
    if (kind == MANAGED) s->managed_bytes += bytes;
    s->blocks = b;
    s->allocations++;
    return b->p;
}
static void *alloc_device(void *self, size_t bytes, char *why) { return alloc(self, bytes, DEVICE, why); }
static void *alloc_pinned(void *self, size_t bytes, char *why) { return alloc(self, bytes, PINNED, why); }
static void *alloc_managed(void *self, size_t bytes, char *why) { return alloc(self, bytes, MANAGED, why); }

static void release(void *self, void *p)
{
    stand_in *s = self;
    for (block **at = &s->blocks; *at; at = &(*at)->next) {
        block *b = *at;
        if (b->p != p) continue;
        *at = b->next;
        if (b->kind == DEVICE) s->device_bytes -= b->bytes;
        if (b->kind == MANAGED) s->managed_bytes -= b->bytes;
        for (size_t i = 0; b->kind == MANAGED && i < b->bytes / GRAIN; i++) s->managed_on_card -= b->on_card[i] ? GRAIN : 0;
        s->allocations--;
        free(b->p), free(b->on_card), free(b);
        return;
    }
    if (p) s->stuck = true; /* not ours */
}

bool stand_in_on_card(const stand_in *s, const void *p, size_t bytes)
{
    const block *b = block_of(s, p);
    if (!b || b->kind == PINNED) return false;
    for (size_t at = (size_t)((const char *)p - b->p); b->kind == MANAGED && at < (size_t)((const char *)p - b->p) + bytes; at += GRAIN)
        if (!b->on_card[at / GRAIN]) return false;
    return true;
}

/* ---- streams and events ------------------------------------------------------------------------------------------------ */

static void *stream_new(void *self, char *why)
{
    stand_in *s = self;
    if (fails(s, why)) return NULL;
    stream *t = calloc(1, sizeof *t);
    *t = (stream){.last = NULL, .next = s->streams};
    t->last = &t->first;
    s->streams = t;
    s->handles++;
    return t;
}

static void stream_free(void *self, void *p)
{
    stand_in *s = self;
    stream *gone = p;
    for (stream **at = &s->streams; *at; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            s->handles--;
            s->stuck |= gone->first != NULL;
            free(gone);
            return;
        }
}

static void *event_new(void *self, char *why)
{
    stand_in *s = self;
    if (fails(s, why)) return NULL;
    s->handles++;
    return calloc(1, sizeof(event));
}
static void event_free(void *self, void *e) { ((stand_in *)self)->handles--, free(e); }

static bool enqueue(void *self, void *to_stream, op o, char *why)
{
    stand_in *s = self;
    stream *t = to_stream;
    if (fails(s, why)) return false;
    op *made = malloc(sizeof *made);
    *made = o;
    made->next = NULL;
    *t->last = made;
    t->last = &made->next;
    return true;
}

static bool copy(void *self, void *to, const void *from, size_t bytes, bool to_device, void *t, char *why)
{
    return enqueue(self, t, (op){.what = COPY, .to = to, .from = from, .bytes = bytes, .to_device = to_device}, why);
}
static bool prefetch(void *self, void *p, size_t bytes, bool to_device, void *t, char *why)
{
    return enqueue(self, t, (op){.what = PREFETCH, .to = p, .bytes = bytes, .to_device = to_device}, why);
}
static bool fill(void *self, void *p, int byte, size_t bytes, void *t, char *why)
{
    return enqueue(self, t, (op){.what = FILL, .to = p, .bytes = bytes, .byte = byte}, why);
}
static bool record(void *self, void *e, void *t, char *why)
{
    return enqueue(self, t, (op){.what = RECORD, .event = e, .version = ++((event *)e)->recorded}, why);
}
static bool wait_event(void *self, void *t, void *e, char *why)
{
    return enqueue(self, t, (op){.what = WAIT, .event = e, .version = ((event *)e)->recorded}, why);
}
void stand_in_call(stand_in *s, void *t, void (*f)(void *), void *user)
{
    char why[GPU_WHY];
    enqueue(s, t, (op){.what = CALL, .f = f, .user = user}, why);
}

/* ---- doing it ------------------------------------------------------------------------------------------------------------- */

static void move_managed(stand_in *s, const op *o)
{
    block *b = block_of(s, o->to);
    for (size_t at = (size_t)((char *)o->to - b->p), end = at + o->bytes; at < end; at += GRAIN)
        if (b->on_card[at / GRAIN] != o->to_device) {
            if (o->to_device) evict_managed(s, GRAIN);
            b->on_card[at / GRAIN] = o->to_device;
            s->managed_on_card += o->to_device ? GRAIN : (size_t)-GRAIN;
        }
}

/* The stream's first operation; false: it has none, or that waits. */
static bool one(stand_in *s, stream *t)
{
    op *o = t->first;
    if (!o || (o->what == WAIT && o->event->done < o->version)) return false;
    t->first = o->next;
    if (!t->first) t->last = &t->first;
    if (o->what == COPY) memcpy(o->to, o->from, o->bytes);
    if (o->what == PREFETCH) move_managed(s, o);
    if (o->what == FILL) memset(o->to, o->byte, o->bytes);
    if (o->what == RECORD) o->event->done = o->version;
    if (o->what == CALL) o->f(o->user);
    if (o->what == COPY || o->what == PREFETCH) *(o->to_device ? &s->to_device : &s->to_host) += 1;
    free(o);
    return true;
}

/* One operation of a stream taken by chance; false: none can go on. */
static bool any(stand_in *s)
{
    stream *list[16];
    int n = 0;
    for (stream *t = s->streams; t && n < 16; t = t->next) list[n++] = t;
    for (int tries = n; tries > 0; tries--) {
        s->seed = s->seed * 6364136223846793005u + 1442695040888963407u;
        int i = (int)((s->seed >> 33) % (uint64_t)tries);
        if (one(s, list[i])) return true;
        list[i] = list[tries - 1];
    }
    return false;
}

static bool sync_stream(void *self, void *t, char *why)
{
    stand_in *s = self;
    while (((stream *)t)->first)
        if (!any(s)) return s->stuck = true, snprintf(why, GPU_WHY, "the stream waits for ever"), false;
    return !fails(s, why);
}
static bool sync_event(void *self, void *p, char *why)
{
    stand_in *s = self;
    event *e = p;
    for (long version = e->recorded; e->done < version;)
        if (!any(s)) return s->stuck = true, snprintf(why, GPU_WHY, "the event never comes"), false;
    return !fails(s, why);
}

void stand_in_run_others(stand_in *s, const void *still)
{
    for (bool more = true; more;) {
        more = false;
        for (stream *t = s->streams; t; t = t->next) more |= t != still && one(s, t);
    }
}
void stand_in_run_all(stand_in *s)
{
    while (any(s)) {}
    for (const stream *t = s->streams; t; t = t->next) s->stuck |= t->first != NULL;
}

void stand_in_init(stand_in *s, size_t card_bytes, uint64_t seed)
{
    *s = (stand_in){.card_bytes = card_bytes, .concurrent = true, .seed = seed};
    s->runtime = (gpu_runtime){s, memory, concurrent_managed, alloc_device, alloc_pinned, alloc_managed, release, release, stream_new, stream_free,
                               event_new, event_free, copy, prefetch, fill, record, wait_event, sync_stream, sync_event};
}
