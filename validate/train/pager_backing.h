/* pager_backing.h: what the kinds of pager differ in. pager.c decides which page goes where; a backing moves it. */
#ifndef FOURBIT_TRAIN_PAGER_BACKING_H
#define FOURBIT_TRAIN_PAGER_BACKING_H

#include "validate/train/pager.h"

#include <stdint.h>

typedef struct pager_page {
    size_t bytes;     /* used by its items */
    int64_t frame;    /* where it is; -1: only behind */
    int64_t holds;    /* items acquired and not released */
    bool dirty;       /* differs from what is behind */
    bool written;     /* something is behind; else it is zeros */
} pager_page;

/* Memory for one page in use. */
typedef struct pager_frame {
    void *at;
    int64_t page;     /* -1: free */
    void *in, *used;  /* events (pager_gpu.c): the page was brought, its last use is over */
} pager_frame;

typedef struct pager_item {
    int64_t page;
    size_t offset, bytes;
} pager_item;

typedef struct pager_backing {
    bool asynchronous;  /* load and store return before they are done */
    bool always_stores; /* an unchanged page must be moved back, too */
    bool (*start)(pager *, ck_error *);
    void (*close)(pager *);
    /* Memory and events of frame f for page `page` (of which only managed memory takes note). */
    bool (*frame_new)(pager *, pager_frame *f, ck_error *);
    void (*frame_free)(pager *, pager_frame *f);
    /* From behind into pages[page].frame, and back. What follows on the same frame comes after. */
    bool (*load)(pager *, int64_t page, ck_error *);
    bool (*store)(pager *, int64_t page, ck_error *);
    /* Before and after what the caller does with the page. NULL: nothing to do. */
    bool (*use)(pager *, int64_t page, ck_error *);
    bool (*used)(pager *, int64_t page, ck_error *);
    void (*hint)(pager *, int64_t page); /* will be loaded soon */
    /* How many frames there may be now, at most `most`. NULL: as many. */
    bool (*room)(pager *, int64_t *most, ck_error *);
} pager_backing;

extern const pager_backing pager_resident, pager_file, pager_managed, pager_pinned;

struct pager {
    pager_config config;
    const pager_backing *backing;
    size_t page_bytes;
    pager_item *items;
    int64_t item_count, item_room;
    pager_page *pages;
    int64_t page_count, page_room;
    pager_frame *frames; /* [page_count] */
    int64_t frame_count; /* made */
    int64_t frame_limit; /* allowed by the budget */
    int64_t position;    /* page that was acquired last */
    bool started;
    pager_counters counters;

    int fd;                   /* file */
    char *behind;             /* pinned, managed: the pages' memory */
    void *in_stream, *out_stream, *stored; /* stored: event, the last page that was written back */
};

/* Bytes from where the caller's work can reach them to host memory, and back; over on return. */
bool pager_copy_out(pager *p, void *host, const void *at, size_t bytes, ck_error *e);
bool pager_copy_in(pager *p, void *at, const void *host, size_t bytes, ck_error *e);

#endif
