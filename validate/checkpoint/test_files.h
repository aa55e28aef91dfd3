/* test_files.h: what the checkpoint tests share: assertions with a diagnosis, a folder
 * of their own, files made byte by byte, and processes. */
#ifndef FOURBIT_TEST_FILES_H
#define FOURBIT_TEST_FILES_H

#include "safetensors.h"

#include <CUnit/Basic.h>

void test_safetensors_read(CU_pSuite suite);
void test_safetensors_write(CU_pSuite suite);
void test_bnb4bit(CU_pSuite suite);
void test_tool(CU_pSuite suite);

/* One assertion on a condition, with a printf-style diagnosis. Returns it. */
#define REQUIRE(condition, ...) test_require((condition), __FILE__, __LINE__, __VA_ARGS__)
bool test_require(bool condition, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The message says `what`, names `file`, and is printable. */
#define REQUIRE_MESSAGE(e, name, what, about) test_message((e), (name), (what), (about), __FILE__, __LINE__)
void test_message(const ck_error *e, const char *name, const char *what, const char *about, const char *file,
                  int line);

/* A path in this run's own folder; the folder is emptied by test_folder_empty. Valid
 * until the eighth next call. */
const char *test_path(const char *name);
const char *test_folder(void);
void test_folder_empty(void);
/* How many files are in `folder`, hidden ones included; a temporary is not forgotten. */
int test_count_files(const char *folder);

typedef struct bytes {
    uint8_t *p; /* malloc'd at exactly size, so that a sanitizer sees one byte too far */
    size_t size;
} bytes;

/* 8 bytes of length, the header, `data` bytes 0, 1, 2 ... */
bytes test_container(const char *header, size_t header_bytes, size_t data);
void test_write(const char *path, const void *p, size_t size);
bytes test_read(const char *path);
/* Replaces the one occurrence of `from` by `to`, of the same length. */
void test_replace(bytes *b, const char *from, const char *to);

/* Runs f in a child process; its exit status, or minus the signal that ended it. */
int test_child(int (*f)(void *), void *user);
/* For test_child: no longer root, so that permissions count. false: cannot. */
bool test_drop_root(void);

#endif
