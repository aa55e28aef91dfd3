/* pager_host.c: state that stays (resident), and state behind a file (file). */
#include "pager_backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAIL(...) ck_fail(e, "pager", NULL, __VA_ARGS__)

/* ---- frames: the device's memory, or malloc's ------------------------------------------------------------------------ */

static bool frame_new(pager *p, pager_frame *f, ck_error *e)
{
    device *d = p->config.device;
    if (d) f->at = d->alloc(d, p->page_bytes);
    else if (posix_memalign(&f->at, PAGER_ALIGN, p->page_bytes) != 0) f->at = NULL;
    if (f->at) return true;
    return FAIL("no memory for page %lld of %lld (%zu bytes each)%s%s", (long long)p->frame_count + 1, (long long)p->frame_limit, p->page_bytes,
                d ? ": " : "", d ? d->why : "");
}

static void frame_free(pager *p, pager_frame *f)
{
    device *d = p->config.device;
    if (d) d->release(d, f->at);
    else free(f->at);
}

static bool zero(pager *p, void *at, size_t bytes, ck_error *e)
{
    device *d = p->config.device;
    if (!d) memset(at, 0, bytes);
    else if (!d->fill(d, at, 0, bytes) || !d->wait(d)) return FAIL("%s", d->why);
    return true;
}

/* ---- resident ------------------------------------------------------------------------------------------------------------ */

static bool resident_start(pager *p, ck_error *e) { return (void)p, (void)e, true; }
static bool resident_load(pager *p, int64_t page, ck_error *e) { return zero(p, p->frames[p->pages[page].frame].at, p->page_bytes, e); }
static bool resident_store(pager *p, int64_t page, ck_error *e) { return (void)p, (void)page, FAIL("resident state has nothing behind it"); }

const pager_backing pager_resident = {.start = resident_start, .frame_new = frame_new, .frame_free = frame_free,
                                      .load = resident_load, .store = resident_store};

/* ---- file ------------------------------------------------------------------------------------------------------------------
 *
 * Read and written, never mapped: mapped pages would be counted to the process as the kernel pleases, and a full disk
 * would come as SIGBUS. */

static bool file_start(pager *p, ck_error *e)
{
    const char *temporary = getenv("TMPDIR"), *folder = p->config.folder;
    if (!folder) folder = temporary && *temporary ? temporary : "/var/tmp";
    p->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (p->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) { /* a file system that has no nameless files */
        char name[4096];
        if (snprintf(name, sizeof name, "%s/.fourbit-pager-XXXXXX", folder) < (int)sizeof name) p->fd = mkostemp(name, O_CLOEXEC);
        if (p->fd >= 0) unlink(name);
    }
    if (p->fd < 0) return ck_fail(e, folder, NULL, "cannot make a file for the optimizer's state: %s", strerror(errno));
    size_t bytes = (size_t)p->page_count * p->page_bytes;
    if (bytes == 0 || fallocate(p->fd, 0, 0, (off_t)bytes) == 0) return true;
    if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT) return true; /* a file system that cannot promise */
    return ck_fail(e, folder, NULL, "no room for %zu bytes of the optimizer's state: %s", bytes, strerror(errno));
}

static void file_close(pager *p)
{
    if (p->fd >= 0) close(p->fd);
}

static bool transfer(pager *p, int64_t page, bool out, ck_error *e)
{
    char *at = p->frames[p->pages[page].frame].at;
    size_t left = p->pages[page].bytes;
    off_t offset = (off_t)((size_t)page * p->page_bytes);
    while (left > 0) {
        ssize_t n = out ? pwrite(p->fd, at, left, offset) : pread(p->fd, at, left, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return FAIL("page %lld cannot be %s: %s", (long long)page, out ? "written to its file; it stays in memory" : "read",
                        n < 0 ? strerror(errno) : out ? strerror(ENOSPC) : "the file has become shorter");
        at += n, offset += n, left -= (size_t)n;
    }
    return true;
}

static bool file_load(pager *p, int64_t page, ck_error *e)
{
    if (!p->pages[page].written) return zero(p, p->frames[p->pages[page].frame].at, p->pages[page].bytes, e);
    return transfer(p, page, false, e);
}
static bool file_store(pager *p, int64_t page, ck_error *e) { return transfer(p, page, true, e); }
static void file_hint(pager *p, int64_t page)
{
    posix_fadvise(p->fd, (off_t)((size_t)page * p->page_bytes), (off_t)p->pages[page].bytes, POSIX_FADV_WILLNEED);
}

const pager_backing pager_file = {.start = file_start, .close = file_close, .frame_new = frame_new, .frame_free = frame_free,
                                  .load = file_load, .store = file_store, .hint = file_hint};
