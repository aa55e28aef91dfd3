/* test_write.c: a file is written whole or not at all, and nothing else is left behind. */
#include "atomic_file.h"
#include "test_files.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const int64_t two_by_three[] = {2, 3}, many[] = {1 << 18};

static void writes_and_reads_back(void)
{
    test_folder_empty();
    const char *path = test_path("out.safetensors");
    ck_error e = {0};
    st_writer *w = st_writer_new(path);
    size_t late, slot[ST_DTYPE_COUNT];
    bool good = st_writer_metadata(w, "format", "pt", &e) && st_writer_add_late(w, "late", &late, &e);
    static const int64_t four[] = {4};
    for (int t = 0; good && t < ST_DTYPE_COUNT; t++)
        good = st_writer_add(w, st_dtype_name((st_dtype)t), (st_dtype)t, 1, four, &slot[t], &e);
    good = good && st_writer_start(w, &e);
    uint8_t data[64];
    for (int t = 0; good && t < ST_DTYPE_COUNT; t++) {
        size_t n = 4 * st_dtype_bits((st_dtype)t) / 8;
        for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(16 * t + (int)i);
        /* in two pieces, the second first */
        good = st_writer_put(w, slot[t], n / 2, data + n / 2, n - n / 2, &e) &&
               st_writer_put(w, slot[t], 0, data, n / 2, &e);
    }
    good = good && st_writer_put(w, late, 0, "hello", 5, &e) && st_writer_commit(w, &e);
    st_writer_free(w);
    if (!REQUIRE(good, "%s", e.message)) return;
    REQUIRE(test_count_files(test_folder()) == 1, "%d files in the folder", test_count_files(test_folder()));
    st_file f;
    if (!REQUIRE(st_open(&f, path, &e), "%s", e.message)) return;
    CU_ASSERT(f.count == ST_DTYPE_COUNT + 1 && f.metadata_count == 1);
    for (int t = 0; t < ST_DTYPE_COUNT; t++) {
        const st_tensor *x = st_find(&f, st_dtype_name((st_dtype)t));
        CU_ASSERT_FATAL(x && x->dtype == (st_dtype)t);
        bool same = true;
        for (size_t i = 0; i < x->bytes; i++) same &= x->data[i] == (uint8_t)(16 * t + (int)i);
        REQUIRE(same, "%s: other bytes than were put", x->name);
        if (st_dtype_bits((st_dtype)t) % 8 == 0)
            REQUIRE((uintptr_t)x->data % (st_dtype_bits((st_dtype)t) / 8) == 0, "%s is not aligned", x->name);
    }
    const st_tensor *text = st_find(&f, "late");
    CU_ASSERT(text && text->bytes == 5 && memcmp(text->data, "hello", 5) == 0);
    st_close(&f);
}

static void checks_the_plan(void)
{
    test_folder_empty();
    ck_error e = {0};
    size_t slot, other;
    st_writer *w = st_writer_new(test_path("out"));
    int64_t negative[] = {-1}, huge[] = {INT64_MAX, 2};
    CU_ASSERT(!st_writer_add(w, "__metadata__", ST_F32, 2, two_by_three, &slot, &e));
    CU_ASSERT(!st_writer_add(w, "\xff", ST_F32, 2, two_by_three, &slot, &e));
    CU_ASSERT(!st_writer_add(w, "n", ST_F32, 1, negative, &slot, &e));
    CU_ASSERT(!st_writer_add(w, "h", ST_F32, 2, huge, &slot, &e));
    CU_ASSERT(!st_writer_add(w, "half", ST_F4, 1, (int64_t[]){3}, &slot, &e));
    CU_ASSERT(!st_writer_metadata(w, "k", "\xff", &e));
    CU_ASSERT(st_writer_add(w, "a", ST_F32, 2, two_by_three, &slot, &e) && st_writer_add_late(w, "b", &other, &e));
    CU_ASSERT(!st_writer_add(w, "a", ST_F32, 2, two_by_three, &other, &e));
    REQUIRE_MESSAGE(&e, test_path("out"), "key 'a': would be written twice", "a name twice");
    CU_ASSERT(st_writer_start(w, &e));
    char zeros[ST_LATE_MAX + 1] = {0};
    CU_ASSERT(!st_writer_put(w, slot, 20, zeros, 8, &e));
    REQUIRE_MESSAGE(&e, test_path("out"), "key 'a': 8 bytes at its byte 20 do not fit into its 24", "too many bytes");
    CU_ASSERT(!st_writer_put(w, slot, SIZE_MAX, zeros, 8, &e));
    CU_ASSERT(!st_writer_put(w, 1, 0, zeros, sizeof zeros, &e));
    CU_ASSERT(st_writer_put(w, slot, 0, zeros, 20, &e) && st_writer_put(w, 1, 0, "", 0, &e));
    CU_ASSERT(!st_writer_commit(w, &e));
    REQUIRE_MESSAGE(&e, test_path("out"), "key 'a': 20 of its 24 bytes were put", "an unfinished tensor");
    st_writer_free(w);
    REQUIRE(test_count_files(test_folder()) == 0, "a file was left behind");
}

/* A megabyte to `path`; true if it was committed. */
static bool write_megabyte(const char *path, ck_error *e)
{
    static char data[1 << 20];
    size_t slot;
    st_writer *w = st_writer_new(path);
    bool good = st_writer_add(w, "x", ST_F32, 1, many, &slot, e) && st_writer_start(w, e) &&
                st_writer_put(w, slot, 0, data, sizeof data, e) && st_writer_commit(w, e);
    st_writer_free(w);
    return good;
}

static void replaces_and_follows(void)
{
    test_folder_empty();
    const char *path = test_path("target"), *link = test_path("link");
    ck_error e = {0};
    struct stat st;
    test_write(path, "old", 3);
    CU_ASSERT_FATAL(chmod(path, 0640) == 0 && symlink("target", link) == 0);
    REQUIRE(write_megabyte(link, &e), "%s", e.message);
    CU_ASSERT(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640 && st.st_size > 1 << 20);
    CU_ASSERT(!write_megabyte(test_folder(), &e));
    REQUIRE_MESSAGE(&e, test_folder(), "is a directory, not a regular file", "a folder as output");
    CU_ASSERT(!write_megabyte("/dev/null", &e));
    REQUIRE_MESSAGE(&e, "/dev/null", "is a device, FIFO or socket", "a device as output");
    CU_ASSERT(!write_megabyte(test_path("no/such/folder"), &e));
    REQUIRE_MESSAGE(&e, test_path("no/such/folder"), "cannot create a file in its directory", "no folder");
    CU_ASSERT(!write_megabyte("", &e));
    REQUIRE(test_count_files(test_folder()) == 2, "a file was left behind");
}

/* In a child: the write fails with `says`, the old file is as it was and alone. */
static int fails_cleanly(const char *folder, const char *says)
{
    char path[600];
    ck_error e = {0};
    snprintf(path, sizeof path, "%s/out", folder);
    if (write_megabyte(path, &e)) return 2;
    if (!strstr(e.message, says) || strncmp(e.message, path, strlen(path)) != 0) {
        fprintf(stderr, "the message was: %s\n", e.message);
        return 3;
    }
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size != 3) return 4;
    return test_count_files(folder) == 1 ? 0 : 5;
}

static int beyond_size_limit(void *unused)
{
    (void)unused;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
    return setrlimit(RLIMIT_FSIZE, &limit) == 0 ? fails_cleanly(test_folder(), "File too large") : 9;
}

static int readonly_folder(void *unused)
{
    (void)unused;
    return test_drop_root() ? fails_cleanly(test_folder(), "cannot create a file in its directory: Permission denied")
                            : 9;
}

enum { NOT_PERMITTED = 77 };

/* A file system of 64 KiB of this child's own. */
static int full_disk(void *unused)
{
    (void)unused;
    char path[600];
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", test_folder(), "tmpfs", 0, "size=65536") != 0)
        return NOT_PERMITTED;
    snprintf(path, sizeof path, "%s/out", test_folder());
    test_write(path, "old", 3);
    return fails_cleanly(test_folder(), "No space left on device");
}

static void fails_without_a_trace(void)
{
    test_folder_empty();
    test_write(test_path("out"), "old", 3);
    REQUIRE(test_child(beyond_size_limit, NULL) == 0, "beyond the file size limit: see above");
    CU_ASSERT_FATAL(chmod(test_folder(), 0555) == 0);
    REQUIRE(test_child(readonly_folder, NULL) == 0, "in a read-only folder: see above");
    CU_ASSERT_FATAL(chmod(test_folder(), 0777) == 0);
    int full = test_child(full_disk, NULL);
    if (full == NOT_PERMITTED) printf("(no full disk to try: mounting one needs root) ");
    REQUIRE(full == 0 || full == NOT_PERMITTED, "on a full disk: %d, see above", full);
}

/* Half of a file, then the end by *sig. */
static int killed_half_way(void *sig)
{
    static char data[1 << 19];
    ck_error e;
    size_t slot;
    signal(*(int *)sig, SIG_DFL); /* nohup and background jobs start their children with some ignored */
    af_cleanup_on_signals();
    st_writer *w = st_writer_new(test_path("out"));
    if (!st_writer_add(w, "x", ST_F32, 1, many, &slot, &e) || !st_writer_start(w, &e) ||
        !st_writer_put(w, slot, 0, data, sizeof data, &e) || test_count_files(test_folder()) != 2)
        return 9;
    raise(*(int *)sig);
    return 8;
}

static void killed_without_a_trace(void)
{
    int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGKILL};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        test_folder_empty();
        test_write(test_path("out"), "old", 3);
        int status = test_child(killed_half_way, &signals[i]);
        REQUIRE(status == -signals[i], "signal %d: the process ended with %d", signals[i], status);
        bytes b = test_read(test_path("out"));
        REQUIRE(b.size == 3 && memcmp(b.p, "old", 3) == 0, "signal %d: the old file was changed", signals[i]);
        free(b.p);
        /* SIGKILL lets nobody clean up: the hidden temporary stays, and is no harm */
        int left = signals[i] == SIGKILL ? 2 : 1;
        REQUIRE(test_count_files(test_folder()) == left, "signal %d: %d files in the folder", signals[i],
                test_count_files(test_folder()));
    }
    test_folder_empty();
}

void test_safetensors_write(CU_pSuite suite)
{
    CU_ADD_TEST(suite, writes_and_reads_back);
    CU_ADD_TEST(suite, checks_the_plan);
    CU_ADD_TEST(suite, replaces_and_follows);
    CU_ADD_TEST(suite, fails_without_a_trace);
    CU_ADD_TEST(suite, killed_without_a_trace);
}
