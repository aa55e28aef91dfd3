/* atomic_file.c: see atomic_file.h. */
#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- temporaries that a signal must remove --------------------------------------- */

enum { SLOTS = 8 };
static _Atomic(char *) temporaries[SLOTS];

static int remember(char *temp)
{
    for (int i = 0; i < SLOTS; i++) {
        char *empty = NULL;
        if (atomic_compare_exchange_strong(&temporaries[i], &empty, temp)) return i;
    }
    return -1;
}

/* Only async-signal-safe calls; unlink of a path that was renamed a moment ago fails,
 * and that is right. SA_RESETHAND has restored the default action for raise. */
static void on_signal(int sig)
{
    static const char shrank[] = "fourbit: the input file shrank, or cannot be read, while it was being read\n";
    if (sig == SIGBUS && write(STDERR_FILENO, shrank, sizeof shrank - 1) < 0) { /* then without words */ }
    for (int i = 0; i < SLOTS; i++) {
        char *temp = atomic_load(&temporaries[i]);
        if (temp) unlink(temp);
    }
    raise(sig);
}

void af_cleanup_on_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGBUS};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        /* nohup's SIG_IGN stays */
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
    /* past a file size limit: an error from write, not the end of the process */
    signal(SIGXFSZ, SIG_IGN);
}

/* ---- one file --------------------------------------------------------------------------- */

static char *temporary_beside(const char *path)
{
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash - path) + 1 : 0;
    uint64_t random;
    char *temp = NULL;
    if (getrandom(&random, sizeof random, 0) != sizeof random) return NULL;
    if (asprintf(&temp, "%.*s.fourbit-%016llx.tmp", directory, path, (unsigned long long)random) < 0) return NULL;
    return temp;
}

static bool check_destination(const char *path, ck_error *e)
{
    struct stat st;
    if (*path == '\0') return ck_fail(e, "output", NULL, "the path is empty");
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && stat(path, &st) != 0)
        return ck_fail(e, path, NULL, "is a symbolic link that leads nowhere; remove it, or give another path for the output");
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return ck_fail(e, path, NULL, "is %s, not a regular file; give another path for the output",
                       S_ISDIR(st.st_mode) ? "a directory" : "a device, FIFO or socket");
    return true;
}

bool af_create(af_file *f, const char *path, ck_error *e)
{
    *f = (af_file){.fd = -1, .slot = -1};
    if (!check_destination(path, e)) return false;
    f->path = realpath(path, NULL); /* exists: follow a link, so that it is the target that is replaced */
    if (!f->path) f->path = strdup(path);
    f->temp = f->path ? temporary_beside(f->path) : NULL;
    if (!f->temp) {
        af_abort(f);
        return ck_fail(e, path, NULL, "out of memory");
    }
    /* remembered before it exists: no moment in which a signal would miss it */
    f->slot = remember(f->temp);
    if (f->slot < 0) {
        af_abort(f);
        return ck_fail(e, path, NULL, "more than %d files are being written at once", SLOTS);
    }
    f->fd = open(f->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        int why = errno;
        af_abort(f);
        return ck_fail(e, path, NULL, "cannot create a file in its directory: %s", strerror(why));
    }
    return true;
}

bool af_reserve(af_file *f, uint64_t bytes, ck_error *e)
{
    if (bytes == 0 || fallocate(f->fd, 0, 0, (off_t)bytes) == 0) return true;
    if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT) return true;
    return ck_fail(e, f->path, NULL, "no room for %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
}

bool af_write(af_file *f, const void *data, size_t bytes, uint64_t offset, ck_error *e)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(f->fd, p, bytes < (1u << 30) ? bytes : (1u << 30), (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return ck_fail_at(e, f->path, (int64_t)offset, "cannot write %zu bytes: %s", bytes,
                              strerror(n < 0 ? errno : ENOSPC));
        p += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

/* The rename itself must reach the disk too. A file system that cannot sync a
 * directory has already done what it can. */
static void sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(directory);
}

bool af_commit(af_file *f, uint64_t final_bytes, ck_error *e)
{
    const char *step = NULL;
    struct stat old;
    if (ftruncate(f->fd, (off_t)final_bytes) != 0) step = "set its length";
    /* a file that is replaced hands on its permissions */
    else if (stat(f->path, &old) == 0 && fchmod(f->fd, old.st_mode & 07777) != 0) step = "keep its permissions";
    else if (fsync(f->fd) != 0) step = "bring it to disk";
    else if (rename(f->temp, f->path) != 0) step = "put it in place";
    if (step) {
        int why = errno;
        ck_fail(e, f->path, NULL, "cannot %s: %s", step, strerror(why));
        af_abort(f);
        return false;
    }
    atomic_store(&temporaries[f->slot], NULL);
    f->slot = -1;
    sync_directory(f->path);
    af_abort(f);
    return true;
}

void af_abort(af_file *f)
{
    if (f->fd >= 0) close(f->fd);
    if (f->slot >= 0) {
        if (f->fd >= 0) unlink(f->temp);
        atomic_store(&temporaries[f->slot], NULL);
    }
    free(f->temp);
    free(f->path);
    *f = (af_file){.fd = -1, .slot = -1};
}
