/* test_files.c: see test_files.h. */
#include "test_files.h"

#include <dirent.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

bool test_require(bool condition, const char *file, int line, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CU_assertImplementation(condition, (unsigned)line, text, file, "", CU_FALSE);
    return condition;
}

void test_message(const ck_error *e, const char *name, const char *what, const char *about, const char *file, int line)
{
    test_require(strstr(e->message, what) != NULL, file, line, "%s: the message \"%s\" does not say \"%s\"", about,
                 e->message, what);
    test_require(strncmp(e->message, name, strlen(name)) == 0, file, line, "%s: the message \"%s\" does not begin "
                 "with \"%s\"", about, e->message, name);
    bool printable = true;
    for (const char *p = e->message; *p; p++) printable &= (unsigned char)*p >= 0x20 && *p != 0x7f;
    test_require(printable, file, line, "%s: a control character in \"%s\"", about, e->message);
}

/* ---- the folder ----------------------------------------------------------------------- */

static char folder[256];

static void remove_folder(void)
{
    test_folder_empty();
    rmdir(folder);
}

const char *test_folder(void)
{
    if (*folder) return folder;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/fourbit-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(folder) || chmod(folder, 0777) != 0) {
        perror(folder);
        exit(1);
    }
    atexit(remove_folder);
    return folder;
}

const char *test_path(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder(), name);
    return path;
}

static int each_file(const char *where, bool and_remove)
{
    DIR *d = opendir(where);
    int count = 0;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        count++;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", where, entry->d_name);
        if (and_remove && unlink(path) != 0) {
            each_file(path, true);
            rmdir(path);
        }
    }
    if (d) closedir(d);
    return count;
}

void test_folder_empty(void) { each_file(test_folder(), true); }
int test_count_files(const char *where) { return each_file(where, false); }

/* ---- bytes --------------------------------------------------------------------------------- */

static void must(bool done, const char *what)
{
    if (done) return;
    perror(what);
    exit(1);
}

bytes test_container(const char *header, size_t header_bytes, size_t data)
{
    bytes b = {.size = 8 + header_bytes + data};
    must((b.p = malloc(b.size)) != NULL, "malloc");
    for (int i = 0; i < 8; i++) b.p[i] = (uint8_t)(header_bytes >> 8 * i);
    memcpy(b.p + 8, header, header_bytes);
    for (size_t i = 0; i < data; i++) b.p[8 + header_bytes + i] = (uint8_t)i;
    return b;
}

void test_write(const char *path, const void *p, size_t size)
{
    FILE *f = fopen(path, "wb");
    must(f && fwrite(p, 1, size, f) == size && fclose(f) == 0, path);
}

bytes test_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    must(f && fseek(f, 0, SEEK_END) == 0, path);
    bytes b = {.size = (size_t)ftell(f)};
    must((b.p = malloc(b.size ? b.size : 1)) != NULL, "malloc");
    rewind(f);
    bool whole = fread(b.p, 1, b.size, f) == b.size;
    fclose(f);
    must(whole, path);
    return b;
}

void test_replace(bytes *b, const char *from, const char *to)
{
    uint8_t *at = memmem(b->p, b->size, from, strlen(from));
    bool once = at && strlen(from) == strlen(to) &&
                !memmem(at + 1, b->size - (size_t)(at + 1 - b->p), from, strlen(from));
    if (REQUIRE(once, "\"%s\" does not stand once in the file, or \"%s\" has another length", from, to))
        memcpy(at, to, strlen(to));
}

/* ---- processes --------------------------------------------------------------------------------- */

int test_child(int (*f)(void *), void *user)
{
    fflush(NULL);
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) _exit(f(user));
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool test_drop_root(void)
{
    return geteuid() != 0 || (setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
}
