/* test_text.c: SHA-256 against the standard's vectors; which bytes a corpus has, which of them are held out, and that a
 * batch depends on (seed, step, row) alone. */
#include "test_state.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void hash(const void *data, size_t bytes, size_t piece, char hex[TEXT_SHA256])
{
    sha256 s;
    sha256_start(&s);
    for (size_t i = 0; i < bytes; i += piece) sha256_add(&s, (const char *)data + i, bytes - i < piece ? bytes - i : piece);
    sha256_finish(&s, hex);
}

/* NIST's examples for FIPS 180-4, and the empty message. */
static void sha256_vectors(void)
{
    static const struct {
        const char *text, *hex;
    } vectors[] = {{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                   {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                   {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
                   {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                    "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"}};
    char hex[TEXT_SHA256];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        for (size_t piece = 1; piece < 130; piece += 7) {
            hash(vectors[i].text, strlen(vectors[i].text), piece, hex);
            REQUIRE(strcmp(hex, vectors[i].hex) == 0, "\"%s\" in pieces of %zu: %s", vectors[i].text, piece, hex);
        }
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    hash(million, 1000000, 4097, hex);
    REQUIRE(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0, "a million times a: %s", hex);
    free(million);
}

static void folder_in_order(void)
{
    test_folder_empty();
    ck_error e = {0};
    text_corpus t;
    char hex[TEXT_SHA256];
    test_write(test_path("b"), "second, of twenty-five..", 24);
    test_write(test_path("Z"), "first, of this many bytes", 25);
    test_write(test_path(".hidden"), "no", 2);
    CU_ASSERT_FATAL(symlink("b", test_path("a-link")) == 0 && mkdir(test_path("folder"), 0777) == 0);
    if (!REQUIRE(text_open(&t, test_folder(), 2, &e), "%s", e.message)) return;
    hash("first, of this many bytessecond, of twenty-five..", 49, 49, hex);
    REQUIRE(t.files == 2 && t.bytes == 49 && strcmp(t.sha256, hex) == 0, "%d files, %zu bytes, %s", t.files, t.bytes, t.sha256);
    /* pieces of 4 bytes, of which the tenth is held out */
    REQUIRE(t.train_count == 45 && t.held_out_count == 4, "%lld and %lld tokens", (long long)t.train_count, (long long)t.held_out_count);
    CU_ASSERT(t.train[0] == 'f' && t.train[44] == '.' && t.held_out[0] == 't' && t.held_out[3] == 'n');
    text_close(&t);
    test_write(test_path("z.txt"), "where there is text that says it is, only that counts", 53);
    CU_ASSERT(text_open(&t, test_folder(), 2, &e) && t.files == 1 && t.bytes == 53);
    text_close(&t);
}

static void two_parts(void)
{
    test_folder_empty();
    enum { N = 25 * TEXT_PIECE + 100, SEQ = 64 };
    uint8_t *bytes = malloc(N);
    for (int i = 0; i < N; i++) bytes[i] = (uint8_t)(i / TEXT_PIECE);
    test_write(test_path("text"), bytes, N);
    free(bytes);
    ck_error e = {0};
    text_corpus t;
    if (!REQUIRE(text_open(&t, test_path("text"), SEQ, &e), "%s", e.message)) return;
    CU_ASSERT(t.held_out_count == 2 * TEXT_PIECE && t.train_count == N - 2 * TEXT_PIECE && t.vocab_size == 256);
    bool right = true;
    for (int64_t i = 0; i < t.train_count; i++) right &= t.train[i] % 10 != 9;
    for (int64_t i = 0; i < t.held_out_count; i++) right &= t.held_out[i] % 10 == 9;
    REQUIRE(right, "a piece is in the wrong part");
    CU_ASSERT(text_windows(&t, SEQ) == (2 * TEXT_PIECE - 1) / SEQ);
    text_close(&t);
}

static void batches(void)
{
    test_folder_empty();
    enum { N = 9000, SEQ = 32, BATCH = 4 };
    uint16_t words[N / 2];
    for (int i = 0; i < N / 2; i++) words[i] = (uint16_t)i;
    test_write(test_path("text"), words, N);
    ck_error e = {0};
    text_corpus t;
    if (!REQUIRE(text_open(&t, test_path("text"), SEQ, &e), "%s", e.message)) return;
    int32_t a[BATCH * SEQ], x[BATCH * SEQ], b[BATCH * SEQ], y[BATCH * SEQ];
    text_batch(&t, 7, 3, BATCH, SEQ, a, x);
    text_batch(&t, 7, 3, BATCH, SEQ, b, y);
    CU_ASSERT(memcmp(a, b, sizeof a) == 0 && memcmp(x, y, sizeof x) == 0);
    for (int row = 0; row < BATCH; row++) CU_ASSERT(memcmp(a + row * SEQ + 1, x + row * SEQ, (SEQ - 1) * sizeof *a) == 0);
    text_batch(&t, 7, 3, 1, SEQ, b, y); /* a row does not depend on how many there are */
    CU_ASSERT(memcmp(a, b, SEQ * sizeof *a) == 0);
    CU_ASSERT(memcmp(a, a + SEQ, SEQ * sizeof *a) != 0);
    text_batch(&t, 7, 4, BATCH, SEQ, b, y);
    CU_ASSERT(memcmp(a, b, sizeof a) != 0);
    text_batch(&t, 8, 3, BATCH, SEQ, b, y);
    CU_ASSERT(memcmp(a, b, sizeof a) != 0);
    /* the shortest text has one window, and the start of a batch can only be that */
    t.train_count = SEQ + 1;
    text_batch(&t, 1, 1, BATCH, SEQ, a, x);
    CU_ASSERT(memcmp(a, t.train, SEQ * sizeof *a) == 0 && x[SEQ - 1] == t.train[SEQ]);
    text_window(&t, 1, SEQ, a, x);
    CU_ASSERT(memcmp(a, t.held_out + SEQ, SEQ * sizeof *a) == 0 && x[0] == t.held_out[SEQ + 1]);
    text_close(&t);
}

static void bad_texts(void)
{
    test_folder_empty();
    ck_error e = {0};
    text_corpus t;
    const char *path = test_path("text");
    CU_ASSERT(!text_open(&t, path, 8, &e));
    REQUIRE_MESSAGE(&e, path, "cannot be opened: No such file", "no file");
    CU_ASSERT(!text_open(&t, test_folder(), 8, &e));
    REQUIRE_MESSAGE(&e, test_folder(), "has no text", "an empty folder");
    test_write(path, "", 0);
    CU_ASSERT(!text_open(&t, path, 8, &e));
    REQUIRE_MESSAGE(&e, path, "the text is empty", "an empty file");
    test_write(path, "twenty bytes of text", 20);
    CU_ASSERT(!text_open(&t, path, 8, &e));
    REQUIRE_MESSAGE(&e, path, "the text has 20 bytes, of which 2 are held out: too few", "a short file");
    CU_ASSERT(!text_open(&t, path, 0, &e));
    CU_ASSERT(!text_open(&t, "/dev/zero", 8, &e));
    REQUIRE_MESSAGE(&e, "/dev/zero", "is a device", "a device");
    CU_ASSERT(t.train == NULL && t.held_out == NULL);
    if (text_open(&t, text_default_path(), 512, &e)) {
        REQUIRE(t.files > 5 && t.bytes > 100000, "the licences: %d files, %zu bytes", t.files, t.bytes);
        text_close(&t);
    }
}

static void refuses_tokenizers(void)
{
    test_folder_empty();
    ck_error e = {0};
    text_corpus t = {.source = "text", .vocab_size = TEXT_VOCABULARY};
    CU_ASSERT(text_fits(&t, NULL, 256, &e) && text_fits(&t, test_folder(), 300, &e));
    CU_ASSERT(!text_fits(&t, test_folder(), 255, &e));
    REQUIRE_MESSAGE(&e, test_folder(), "the model knows 255 tokens; bytes need 256", "a small vocabulary");
    test_write(test_path("tokenizer.json"), "{}", 2);
    CU_ASSERT(!text_fits(&t, test_folder(), 32000, &e));
    REQUIRE_MESSAGE(&e, test_path("tokenizer.json"), "the text is bytes", "a tokenizer");
}

void test_text(CU_pSuite suite)
{
    CU_add_test(suite, "sha256_vectors", sha256_vectors);
    CU_add_test(suite, "folder_in_order", folder_in_order);
    CU_add_test(suite, "two_parts", two_parts);
    CU_add_test(suite, "batches", batches);
    CU_add_test(suite, "bad_texts", bad_texts);
    CU_add_test(suite, "refuses_tokenizers", refuses_tokenizers);
}
