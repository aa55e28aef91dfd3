/* error.h: what went wrong with a file, in one line a person can act on. */
#ifndef FOURBIT_CHECKPOINT_ERROR_H
#define FOURBIT_CHECKPOINT_ERROR_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ck_error {
    int64_t byte;       /* offset in the file; -1 where the fault is not at one place */
    char message[1024]; /* "FILE: byte 8: ..." or "FILE: key 'w.absmax': ..."; one line, no control characters */
} ck_error;

/* Both return false, so that a check can end with `return ck_fail(...)`. Names and
 * texts from a file may go into the message as they are: control characters are
 * replaced, so that a hostile name cannot drive the reader's terminal. */
bool ck_fail_at(ck_error *e, const char *file, int64_t byte, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* key NULL: the file as a whole. */
bool ck_fail(ck_error *e, const char *file, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Replaces control characters in text (UTF-8), in place. */
void ck_printable(char *text);

#endif
