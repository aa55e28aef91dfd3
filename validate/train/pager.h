/* pager.h: optimizer state that need not fit: pages that are brought in before use and written back after.
 *
 *   kind       a page lives in            it is used in                  moved by
 *   resident   the device                 the device                     nothing: all of it is there, or start fails
 *   file       an unlinked file           `budget` bytes of memory       pread and pwrite, so that the budget is hard
 *   managed    cudaMallocManaged memory   the same addresses             prefetches on a second stream
 *   pinned     pinned host memory         `budget` bytes of the device   copies on a second and third stream
 *
 * An item is the state of one tensor, or of one piece of a large one. Items are packed into pages in the order in which
 * they were added; none is too small to be paged. A walk takes them in that order, step after step:
 *
 *     pager_begin_step(p, e)
 *     for each item i:  at = pager_acquire(p, i, e);  pager_prefetch(p, i, e);  ... enqueue work on at ...
 *                       pager_release(p, i, true, e)
 *
 * When a page must go, it is the one whose turn in that walk is farthest away (Belady, 1966): of a state twice the budget
 * half is moved in a step, where the least recently used page would always be the next to be needed. Another order of
 * use is as correct, and slower.
 *
 * State begins as zero bytes. Functions that fail return false (or NULL), say why in *e and leave every page's contents as
 * they were: after a full disk was cleared, the call can be made again. A pager belongs to one thread.
 */
#ifndef FOURBIT_TRAIN_PAGER_H
#define FOURBIT_TRAIN_PAGER_H

#include "bench/device.h"
#include "validate/checkpoint/error.h"
#include "validate/train/gpu_runtime.h"

typedef enum pager_kind {
    PAGER_RESIDENT = 0,
    PAGER_FILE,
    PAGER_MANAGED,
    PAGER_PINNED,
    PAGER_KIND_COUNT
} pager_kind;

enum {
    PAGER_PAGE = 2 << 20, /* bytes of a page: what one prefetch of managed memory moves */
    PAGER_ALIGN = 256     /* every item's address */
};

typedef struct pager_config {
    pager_kind kind;
    size_t budget;      /* bytes of pages that may be in memory (file) or on the device (managed, pinned) at once; 0: all.
                           At least two pages, so that one can come while another is in use */
    size_t page_bytes;  /* 0: PAGER_PAGE. An item may have as many, and no more */
    const char *folder; /* file: where the backing file is made; NULL: $TMPDIR, or /var/tmp */
    device *device;     /* resident and file: gives the memory, and copies for pager_read and pager_write. NULL: malloc */
    const gpu_runtime *gpu; /* managed and pinned: the CUDA runtime (gpu_runtime.h) */
    void *stream;       /* managed and pinned: where the caller enqueues its work */
    size_t reserve;     /* managed: bytes of the card that are left free; begin_step gives way to whoever takes more */
} pager_config;

typedef struct pager_counters {
    uint64_t bytes_in, bytes_out; /* moved by this pager; what a driver moved on its own is not seen */
    int64_t loads, stores;        /* pages moved */
    int64_t hits;                 /* acquired without being moved */
    size_t total_bytes;           /* of all pages */
    size_t resident_bytes, peak_bytes; /* of the pages in memory or on the device, now and at most */
} pager_counters;

typedef struct pager pager;

const char *pager_kind_name(pager_kind kind); /* "resident", "file", "managed", "pinned" */

/* Nothing is allocated yet. The strings and pointers of the configuration must outlive the pager. */
pager *pager_open(const pager_config *config, ck_error *e);
void pager_close(pager *p); /* NULL is fine */

/* What an item may have: page_bytes, or less where two pages of that would not fit the budget. */
size_t pager_page_bytes(const pager *p);

/* Before pager_start: an item of `bytes` bytes, 1 ... pager_page_bytes. Items are numbered 0, 1, 2 ... */
bool pager_add(pager *p, size_t bytes, int64_t *item, ck_error *e);
/* Takes the memory. managed: refused when the pages are more than the card has free. */
bool pager_start(pager *p, ck_error *e);

bool pager_begin_step(pager *p, ck_error *e);
/* The item will be used next: begin to bring its page and the two after it (after the last the first: the next step's), as
 * far as there is room for them. file: the kernel is asked to read the next one ahead. */
bool pager_prefetch(pager *p, int64_t item, ck_error *e);
/* Its address on the device (for work enqueued on the stream, or done at once by a backend of the host), until release.
 * As many items may be held at once as fit the budget. */
void *pager_acquire(pager *p, int64_t item, ck_error *e);
/* dirty: it was written. */
bool pager_release(pager *p, int64_t item, bool dirty, ck_error *e);

/* The room has changed: pages are written back until the rest fits `budget` (0: all may come), and their memory is given
 * back at once. Not while an item is held. */
bool pager_resize(pager *p, size_t budget, ck_error *e);

/* A whole item to host memory and back; done when they return. */
bool pager_read(pager *p, int64_t item, void *host, ck_error *e);
bool pager_write(pager *p, int64_t item, const void *host, ck_error *e);

pager_counters pager_count(const pager *p);

#endif
