/* error.c: see error.h. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void ck_printable(char *text)
{
    unsigned char *p = (unsigned char *)text;
    for (; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) *p = '?';
        /* U+0080 ... U+009F: some terminals obey these as they do ESC */
        if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) p[0] = p[1] = '?';
    }
}

/* A key can be as long as the header: show its beginning, cut between characters. */
enum { KEY_SHOWN = 200 };

static int shown(const char *key)
{
    size_t n = strlen(key);
    if (n <= KEY_SHOWN) return (int)n;
    for (n = KEY_SHOWN; n > 0 && ((unsigned char)key[n] & 0xc0) == 0x80;) n--;
    return (int)n;
}

static bool fail(ck_error *e, int64_t byte, const char *format, va_list args)
{
    size_t used = strlen(e->message);
    e->byte = byte;
    vsnprintf(e->message + used, sizeof e->message - used, format, args);
    ck_printable(e->message);
    return false;
}

bool ck_fail_at(ck_error *e, const char *file, int64_t byte, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    snprintf(e->message, sizeof e->message, "%.*s: byte %lld: ", shown(file), file, (long long)byte);
    fail(e, byte, format, args);
    va_end(args);
    return false;
}

bool ck_fail(ck_error *e, const char *file, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (key)
        snprintf(e->message, sizeof e->message, "%.*s: key '%.*s%s': ", shown(file), file, shown(key), key,
                 key[shown(key)] ? "..." : "");
    else
        snprintf(e->message, sizeof e->message, "%.*s: ", shown(file), file);
    fail(e, -1, format, args);
    va_end(args);
    return false;
}
