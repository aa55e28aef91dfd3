/* atomic_file.h: a file that appears whole or not at all.
 *
 * The bytes go to a temporary file in the same directory; af_commit brings them to
 * disk (fsync) and renames. Whatever happens before that, a full disk or Ctrl-C
 * included, a file that was there keeps its contents and no temporary stays behind.
 * (Only a process that is killed without warning, SIGKILL or a power cut, can leave
 * one: a hidden .fourbit-*.tmp beside the destination.) */
#ifndef FOURBIT_ATOMIC_FILE_H
#define FOURBIT_ATOMIC_FILE_H

#include "error.h"

#include <stddef.h>

typedef struct af_file {
    int fd;     /* -1: not open */
    int slot;   /* in the table that the signal handler reads */
    char *path; /* destination; a symbolic link is followed */
    char *temp;
} af_file;

/* Fails where the destination is something other than a regular file, or the
 * directory cannot be written. */
bool af_create(af_file *f, const char *path, ck_error *e);
/* Asks for the blocks of `bytes` now, so that a full disk is known before hours of
 * work; a file system that cannot promise says nothing. */
bool af_reserve(af_file *f, uint64_t bytes, ck_error *e);
bool af_write(af_file *f, const void *data, size_t bytes, uint64_t offset, ck_error *e);
/* final_bytes: the file's length. After a failure the file is aborted. */
bool af_commit(af_file *f, uint64_t final_bytes, ck_error *e);
/* Removes the temporary. Harmless after af_commit or a failed af_create. */
void af_abort(af_file *f);

/* From now on SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE remove the temporaries
 * of this process before they end it. For programs: a library leaves signals alone. */
void af_cleanup_on_signals(void);

#endif
