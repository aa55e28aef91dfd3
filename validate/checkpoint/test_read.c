/* test_read.c: safetensors files that are read, and those that are refused. */
#include "test_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define A8 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

/* Headers over a few bytes of data, and what the refusal must say. */
static const struct { const char *about, *header; size_t data; const char *says; } refused[] = {
    {"not an object", "[]", 0, "byte 8: the header does not begin with '{'"},
    {"an empty header", "", 0, "byte 8: the header does not begin with '{'"},
    {"spaces first", "  {}", 0, "byte 8: the header does not begin with '{'"},
    {"an object cut off", "{\"a\":", 0, "byte 13: header: "},
    {"more after the object", "{}{}", 0, "header: end of file expected"},
    {"bad UTF-8 in a name", "{\"\xff\":{}}", 0, "byte 10: header: unable to decode byte 0xff"},
    {"half a character at the end", "{\"a\xc3\":{}}", 0, "header: "},
    {"an escaped NUL in a name", "{\"a\\u0000b\":{}}", 0, "header: NUL byte in object key not supported"},
    {"a name twice", "{" A8 "," A8 "}", 8, "header: duplicate object key"},
    {"a field twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "header: duplicate object key"},
    {"an entry that is no object", "{\"a\":5}", 0, "key 'a': is not an object"},
    {"no dtype", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "key 'a': has no \"dtype\""},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "key 'a': has no \"shape\""},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "key 'a': has no \"data_offsets\""},
    {"dtype a number", "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is not a string"},
    {"dtype unknown", "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "key 'a': dtype \"F33\" is not one of the container's"},
    {"shape a number", "{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "shape is not an array"},
    {"a real dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
     "shape[0] is not an integer"},
    {"a dimension in words", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,\"2\"],\"data_offsets\":[0,8]}}", 8,
     "shape[1] is not an integer"},
    {"a negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
     "shape[0] is negative (-2)"},
    {"two negative dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-2],\"data_offsets\":[0,8]}}", 8,
     "shape[0] is negative (-1)"},
    {"nine dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
     "shape has 9 dimensions; at most 8"},
    {"a product beyond 64 bits", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
     0, "the product of the dimensions overflows"},
    {"the same with a zero", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}",
     0, "the product of the dimensions overflows"},
    {"bytes beyond 64 bits", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
     "hold 0 bytes, not 4611686018427387904 elements"},
    {"an integer beyond 64 bits", "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}",
     8, "header: too big integer"},
    {"a real beyond double", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1e999],\"data_offsets\":[0,8]}}", 8,
     "header: real number overflow"},
    {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, "not an array of two integers"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8,
     "not an array of two integers"},
    {"an offset in words", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", 8,
     "not an array of two integers"},
    {"a negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8,
     "data_offsets [-8, 0] are negative"},
    {"an offset beyond 64 bits",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,18446744073709551624]}}", 8, "too big integer"},
    {"reversed offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
     "data_offsets [8, 0] are reversed"},
    {"offsets out of range", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 8,
     "data_offsets [4, 12] run past the end of the file, which has 8 bytes of data"},
    {"the largest offset", "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,9223372036854775807]}}", 8,
     "run past the end"},
    {"a size that is not shape times type", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
     "key 'a': data_offsets [0, 8] hold 8 bytes, not 3 elements of F32"},
    {"half a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "not 3 elements of F4"},
    {"overlap", "{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
     "key 'b': its bytes overlap those of 'a'"},
    {"the same bytes twice", "{" A8 ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8, "overlap"},
    {"nothing, inside another", "{" A8 ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", 8, "overlap"},
    {"a hole", "{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16,
     "key 'b': there is a hole of 4 bytes"},
    {"a hole at the front", "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole of 4 bytes"},
    {"bytes after the last", "{" A8 "}", 9, "1 bytes after the last tensor belong to none"},
    {"metadata no object", "{\"__metadata__\":[]," A8 "}", 8, "key '__metadata__': is not an object"},
    {"a metadata value no string", "{\"__metadata__\":{\"format\":1}," A8 "}", 8, "the value of 'format' is not a string"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}," A8 "}", 8, "duplicate object key"},
    {"an escape sequence in a name", "{\"\\u001b[31m\\u009b\":5}", 0, "key '?[31m?\?': is not an object"},
};

static void refuse(const bytes *b, const char *says, const char *about)
{
    st_file f;
    ck_error e = {.byte = 77};
    if (!REQUIRE(!st_open_memory(&f, "some.file", b->p, b->size, &e), "%s: was accepted", about)) {
        st_close(&f);
        return;
    }
    REQUIRE_MESSAGE(&e, "some.file: ", says, about);
    REQUIRE(f.tensors == NULL && f.count == 0, "%s: something is left in the st_file", about);
}

static void refuses_headers(void)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bytes b = test_container(refused[i].header, strlen(refused[i].header), refused[i].data);
        refuse(&b, refused[i].says, refused[i].about);
        free(b.p);
    }
    bytes raw = test_container("{\"a\0b\":{}}", 10, 0);
    refuse(&raw, "byte 1", "a raw NUL in a name");
    free(raw.p);
}

static void refuses_nesting(void)
{
    enum { DEEP = 100000 };
    char *header = malloc(DEEP + 5);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEEP);
    bytes b = test_container(header, DEEP + 5, 0);
    refuse(&b, "header: maximum parsing depth reached", "100000 arrays in one another");
    free(b.p);
    free(header);
}

static void refuses_lengths(void)
{
    static const struct { uint64_t length; const char *says; } cases[] = {
        {UINT64_MAX, "byte 0: header length 18446744073709551615 is above the limit"},
        {1ull << 63, "byte 0: header length 9223372036854775808 is above the limit"},
        {ST_MAX_HEADER + 1, "byte 0: header length 100000001 is above the limit"},
        {ST_MAX_HEADER, "byte 0: header length 100000000 runs past the end of the file (70 bytes"},
        {63, "byte 0: header length 63 runs past the end of the file"},
        {62, "byte 63: header: end of file expected"},
        {0, "byte 8: the header does not begin"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = test_container("{" A8 "}", strlen("{" A8 "}"), 8);
        REQUIRE(b.size == 70, "the file of this test has %zu bytes", b.size);
        for (int k = 0; k < 8; k++) b.p[k] = (uint8_t)(cases[i].length >> 8 * k);
        refuse(&b, cases[i].says, "header length");
        free(b.p);
    }
}

static bytes good_file(void)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
        "\"scalar\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"none\":{\"shape\":[0,5],\"dtype\":\"F32\",\"data_offsets\":[20,20],\"later\":{}},"
        "\"\xc3\xa9\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[20,23]}}  ";
    return test_container(header, sizeof header - 1, 23);
}

static void reads_good(void)
{
    bytes b = good_file();
    st_file f;
    ck_error e = {0};
    if (!REQUIRE(st_open_memory(&f, "good", b.p, b.size, &e), "%s", e.message)) return;
    CU_ASSERT_EQUAL_FATAL(f.count, 4);
    CU_ASSERT_STRING_EQUAL(f.tensors[0].name, "scalar");
    CU_ASSERT(f.tensors[0].rank == 0 && f.tensors[0].elements == 1 && f.tensors[0].dtype == ST_F64);
    const st_tensor *w = st_find(&f, "w"), *none = st_find(&f, "none"), *accent = st_find(&f, "\xc3\xa9");
    CU_ASSERT_FATAL(w && none && accent && !st_find(&f, "x") && !st_find(&f, "__metadata__") && !st_find(&f, ""));
    CU_ASSERT(w->dtype == ST_BF16 && w->rank == 2 && w->shape[0] == 2 && w->shape[1] == 3 && w->elements == 6);
    CU_ASSERT(w->bytes == 12 && w->data[0] == 8 && w->data[11] == 19);
    CU_ASSERT(none->elements == 0 && none->bytes == 0 && accent->bytes == 3 && accent->data[2] == 22);
    CU_ASSERT_FATAL(f.metadata_count == 1);
    CU_ASSERT_STRING_EQUAL(f.metadata[0], "format");
    CU_ASSERT_STRING_EQUAL(f.metadata[1], "pt");
    st_close(&f);
    free(b.p);
    bytes empty = test_container("{}", 2, 0);
    CU_ASSERT(st_open_memory(&f, "empty object", empty.p, empty.size, &e) && f.count == 0);
    st_close(&f);
    free(empty.p);
}

/* Every shorter file is refused; exact allocations let a sanitizer see an overread. */
static void refuses_every_truncation(void)
{
    bytes whole = good_file();
    for (size_t n = 0; n < whole.size; n++) {
        bytes cut = {.p = malloc(n ? n : 1), .size = n};
        memcpy(cut.p, whole.p, n);
        char about[64];
        snprintf(about, sizeof about, "cut to %zu bytes", n);
        refuse(&cut, n == 0 ? "is empty" : n < whole.size - 23 ? "byte 0: " : "run past the end of the file", about);
        free(cut.p);
    }
    free(whole.p);
}

/* No change of one byte may lead outside the file. */
static void survives_every_byte(void)
{
    bytes b = good_file();
    size_t accepted = 0, tried = 0;
    for (size_t i = 0; i < b.size - 23; i++)
        for (int value = 0; value < 256; value += value < 128 ? 1 : 16) {
            uint8_t before = b.p[i];
            b.p[i] = (uint8_t)value;
            st_file f;
            ck_error e = {0};
            tried++;
            if (st_open_memory(&f, "mutant", b.p, b.size, &e)) {
                size_t sum = 0;
                for (size_t t = 0; t < f.count; t++)
                    for (size_t k = 0; k < f.tensors[t].bytes; k++) sum += (size_t)(f.tensors[t].data + k - b.p < (long)b.size);
                REQUIRE(sum == 23, "byte %zu = %d: tensors hold %zu bytes of 23", i, value, sum);
                accepted++;
                st_close(&f);
            } else {
                REQUIRE(strncmp(e.message, "mutant: ", 8) == 0, "byte %zu = %d: \"%s\"", i, value, e.message);
            }
            b.p[i] = before;
        }
    REQUIRE(accepted > 0 && accepted < tried / 2, "%zu of %zu mutants were accepted", accepted, tried);
    free(b.p);
}

static void refuse_path(const char *path, const char *says)
{
    st_file f;
    ck_error e = {0};
    if (REQUIRE(!st_open(&f, path, &e), "%s was opened", path)) REQUIRE_MESSAGE(&e, path, says, path);
    else st_close(&f);
}

static int open_unreadable(void *path)
{
    st_file f;
    ck_error e = {0};
    if (!test_drop_root()) return 9;
    return !st_open(&f, path, &e) && strstr(e.message, "cannot be opened: Permission denied") ? 0 : 1;
}

static void refuses_paths(void)
{
    test_folder_empty();
    refuse_path(test_path("missing"), "cannot be opened: No such file");
    refuse_path(test_folder(), "is a directory, not a file");
    CU_ASSERT_FATAL(mkfifo(test_path("fifo"), 0600) == 0);
    refuse_path(test_path("fifo"), "is a FIFO, not a file");
    refuse_path("/dev/zero", "is a device or socket, not a file");
    test_write(test_path("empty"), "", 0);
    refuse_path(test_path("empty"), "is empty");
    bytes b = good_file();
    const char *path = test_path("file");
    test_write(path, b.p, b.size);
    CU_ASSERT_FATAL(chmod(path, 0) == 0);
    REQUIRE(test_child(open_unreadable, (void *)(uintptr_t)path) == 0, "an unreadable file: not refused as it should");
    CU_ASSERT_FATAL(chmod(path, 0600) == 0);
    /* and on a real mapping: the end of the file is not the end of a page */
    for (size_t n = b.size - 1; n > 0; n -= n > 40 ? 13 : 1) {
        CU_ASSERT_FATAL(truncate(path, (off_t)n) == 0);
        refuse_path(path, n < b.size - 23 ? "byte 0: " : "run past the end of the file");
    }
    free(b.p);
    test_folder_empty();
}

void test_safetensors_read(CU_pSuite suite)
{
    CU_ADD_TEST(suite, reads_good);
    CU_ADD_TEST(suite, refuses_headers);
    CU_ADD_TEST(suite, refuses_nesting);
    CU_ADD_TEST(suite, refuses_lengths);
    CU_ADD_TEST(suite, refuses_every_truncation);
    CU_ADD_TEST(suite, survives_every_byte);
    CU_ADD_TEST(suite, refuses_paths);
}
