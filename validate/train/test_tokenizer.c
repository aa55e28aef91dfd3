/* test_tokenizer.c: ids against Hugging Face's own, captured for the pre-tokenizers of well-known models (golden/); and back;
 * what is refused, by name. TOKENIZER_GOLDEN is the file of captured ids. */
#include "test_state.h"
#include "tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *golden(void)
{
    json_error_t error;
    json_t *root = json_load_file(TOKENIZER_GOLDEN, 0, &error);
    if (!root) fprintf(stderr, "%s: %s\n", TOKENIZER_GOLDEN, error.text), exit(1);
    return root;
}

/* The golden tokenizer with these keys of the root and of the model changed, written and opened. */
static tokenizer *open_with(const json_t *all, json_t *change, json_t *model_change, ck_error *e)
{
    json_t *one = json_deep_copy(json_object_get(all, "tokenizer"));
    if (change) json_object_update(one, change);
    if (model_change) json_object_update(json_object_get(one, "model"), model_change);
    if (json_dump_file(one, test_path("tokenizer.json"), 0)) exit(1);
    json_decref(one);
    return tokenizer_open(test_path("tokenizer.json"), e);
}

/* The text that ids stand for is the text they came from. */
static bool comes_back(const tokenizer *t, const int32_t *ids, int64_t count, const char *text)
{
    size_t at = 0, bytes;
    for (int64_t i = 0; i < count; i++) {
        const char *part = tokenizer_bytes(t, ids[i], &bytes);
        if (strlen(text + at) < bytes || memcmp(text + at, part, bytes) != 0) return false;
        at += bytes;
    }
    return text[at] == '\0';
}

static void hold_case(const tokenizer *t, const char *variant, const json_t *one, bool whole)
{
    const char *text = json_string_value(json_object_get(one, "text"));
    const json_t *want = json_object_get(one, "ids");
    ck_error e = {0};
    int32_t *ids;
    int64_t count;
    if (!REQUIRE(tokenizer_encode(t, "text", text, strlen(text), &ids, &count, &e), "%s: %s", variant, e.message)) return;
    bool same = (size_t)count == json_array_size(want);
    for (int64_t i = 0; same && i < count; i++) same = ids[i] == json_integer_value(json_array_get(want, (size_t)i));
    REQUIRE(same, "%s: \"%.60s\" became %lld tokens, of Hugging Face's %zu", variant, text, (long long)count, json_array_size(want));
    REQUIRE(!whole || comes_back(t, ids, count, text), "%s: \"%.60s\" does not come back", variant, text);
    free(ids);
}

static void as_hugging_face(void)
{
    test_folder_empty();
    json_t *all = golden();
    const json_t *variants = json_object_get(all, "variants");
    size_t cases = 0;
    for (size_t i = 0; i < json_array_size(variants); i++) {
        ck_error e = {0};
        json_t *variant = json_array_get(variants, i);
        json_t *model = json_pack("{s:O}", "ignore_merges", json_object_get(variant, "ignore_merges"));
        const char *name = json_string_value(json_object_get(variant, "name"));
        tokenizer *t = open_with(all, json_object_get(variant, "change"), model, &e);
        json_decref(model);
        if (!REQUIRE(t != NULL, "%s: %s", name, e.message)) continue;
        CU_ASSERT(tokenizer_size(t) == 600);
        const json_t *of_it = json_object_get(variant, "cases");
        for (size_t k = 0; k < json_array_size(of_it); k++, cases++) hold_case(t, name, json_array_get(of_it, k), strcmp(name, "matches alone") != 0);
        tokenizer_close(t);
    }
    CU_ASSERT(cases > 100);
    json_decref(all);
}

/* Merges as pairs, NFC, and a piece of a hundred thousand letters, in less than a test's patience. */
static void other_spellings(void)
{
    json_t *all = golden(), *merges = json_object_get(json_object_get(json_object_get(all, "tokenizer"), "model"), "merges"), *pairs = json_array();
    for (size_t i = 0; i < json_array_size(merges); i++) {
        json_t *one = json_array_get(merges, i);
        const char *text = json_string_value(one), *space = text ? strchr(text, ' ') : NULL;
        if (!space) json_array_append(pairs, one); /* already a pair */
        else json_array_append_new(pairs, json_pack("[s%, s]", text, (size_t)(space - text), space + 1));
    }
    json_t *model = json_pack("{s:o}", "merges", pairs), *change = json_pack("{s:{s:s}}", "normalizer", "type", "NFC");
    ck_error e = {0};
    tokenizer *t = open_with(all, change, model, &e), *plain = open_with(all, NULL, NULL, &e);
    enum { LONG = 100000 };
    char *text = malloc(LONG + 1);
    int32_t *a = NULL, *b = NULL;
    int64_t na = 0, nb = 1;
    if (REQUIRE(t && plain && text, "%s", e.message)) {
        for (size_t k = 0; k < LONG; k++) text[k] = "etaoinsrhldcum"[(k * k + k / 7) % 14];
        text[LONG] = '\0';
        CU_ASSERT(tokenizer_encode(t, "text", text, LONG, &a, &na, &e) && tokenizer_encode(plain, "text", text, LONG, &b, &nb, &e));
        CU_ASSERT(na == nb && na < LONG && memcmp(a, b, (size_t)na * sizeof *a) == 0 && comes_back(t, a, na, text));
        free(a);
        CU_ASSERT(!tokenizer_encode(t, "text", "na\xc3\xafve", 6, &a, &na, &e) && a == NULL);
        REQUIRE_MESSAGE(&e, "text", "byte 2: is not ASCII", "NFC");
    }
    free(text), free(a), free(b);
    tokenizer_close(t), tokenizer_close(plain);
    json_decref(model), json_decref(change), json_decref(all);
}

static void text_that_is_none(void)
{
    static const struct { const char *text; int at; } wrong[] = {{"ab\xff", 2}, {"\xc0\x80", 0}, {"a\xe0\x80\x80", 1}, {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0}, {"abc\xe2\x82", 3}};
    json_t *all = golden();
    ck_error e = {0};
    tokenizer *t = open_with(all, NULL, NULL, &e);
    int32_t *ids = NULL;
    int64_t count;
    size_t bytes;
    for (size_t i = 0; t && i < sizeof wrong / sizeof *wrong; i++) {
        CU_ASSERT(!tokenizer_encode(t, "text", wrong[i].text, strlen(wrong[i].text), &ids, &count, &e));
        REQUIRE(e.byte == wrong[i].at && strstr(e.message, "is not UTF-8"), "case %zu: %s", i, e.message);
    }
    CU_ASSERT(t && tokenizer_encode(t, "text", "", 0, &ids, &count, &e) && count == 0);
    free(ids);
    CU_ASSERT(tokenizer_bytes(t, -1, &bytes) && bytes == 0 && tokenizer_bytes(t, 1 << 20, &bytes) && bytes == 0);
    tokenizer_close(t);
    json_decref(all);
}

/* Each change makes it another tokenizer than ours, or none. */
static void refusals(void)
{
    static const struct { const char *change, *words; bool of_model; } cases[] = {
        {"{\"type\": \"Unigram\"}", "is \"Unigram\"; only byte-level BPE", true},
        {"{\"byte_fallback\": true}", "has byte_fallback", true},
        {"{\"continuing_subword_prefix\": \"##\"}", "has continuing_subword_prefix", true},
        {"{\"end_of_word_suffix\": \"</w>\"}", "has end_of_word_suffix", true},
        {"{\"dropout\": 0.1}", "has dropout", true},
        {"{\"vocab\": []}", "is not an object of tokens", true},
        {"{\"vocab\": {}}", "number 0 is not a pair of tokens", true},
        {"{\"vocab\": {\"a\": -1}}", "the id of \"a\" is not a whole number", true},
        {"{\"vocab\": {\"a\": 99999999}}", "the id of \"a\" is not a whole number", true},
        {"{\"vocab\": {\"a\": 7, \"b\": 7}}", "two tokens have the id 7", true},
        {"{\"merges\": {}}", "is not a list", true},
        {"{\"merges\": [\"a\"]}", "number 0 is not a pair of tokens", true},
        {"{\"merges\": [\"a b c\"]}", "number 0 is not a pair of tokens", true},
        {"{\"merges\": [[\"a\", 1]]}", "number 0 is not a pair of tokens", true},
        {"{\"merges\": [\"@ ~\"]}", "number 0 is not a pair of tokens", true},
        {"{\"model\": null}", "this is no tokenizer.json", false},
        {"{\"normalizer\": {\"type\": \"Lowercase\"}}", "is \"Lowercase\"", false},
        {"{\"pre_tokenizer\": null}", "there is none: only byte-level BPE", false},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\"}}", "is \"Metaspace\"", false},
        {"{\"pre_tokenizer\": {\"type\": \"Digits\"}}", "has no ByteLevel", false},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}}", "add_prefix_space", false},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}}", "pattern \"(\" is not understood", false},
        {"{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"MergedWithNext\"}}", "MergedWithNext", false},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}}", "Digits behind its ByteLevel", false},
        {"{\"added_tokens\": [{\"id\": 0, \"content\": \"x\", \"lstrip\": true}]}", "has lstrip", false},
        {"{\"added_tokens\": [{\"id\": -3, \"content\": \"x\"}]}", "the id of number 0", false},
        {"{\"added_tokens\": [{\"id\": 3}]}", "number 0 has no content", false}};
    test_folder_empty();
    json_t *all = golden();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_error e = {0};
        json_t *change = json_loads(cases[i].change, 0, NULL);
        tokenizer *t = open_with(all, cases[i].of_model ? NULL : change, cases[i].of_model ? change : NULL, &e);
        CU_ASSERT(t == NULL);
        if (!t) REQUIRE_MESSAGE(&e, test_path("tokenizer.json"), cases[i].words, cases[i].change);
        tokenizer_close(t);
        json_decref(change);
    }
    ck_error e = {0};
    CU_ASSERT(!tokenizer_open(test_path("none.json"), &e) && strstr(e.message, "none.json"));
    test_write(test_path("none.json"), "{\"model\": ", 10);
    CU_ASSERT(!tokenizer_open(test_path("none.json"), &e));
    REQUIRE_MESSAGE(&e, test_path("none.json"), "line 1", "half a file");
    json_decref(all);
}

/* Bytes of the file changed, left out or copied over others: an error that names it, or a tokenizer that can be used. */
static void mangled(void)
{
    test_folder_empty();
    json_t *all = golden();
    char *text = json_dumps(json_object_get(all, "tokenizer"), JSON_COMPACT), noise[200];
    size_t size = strlen(text), refused = 0, used = 0;
    uint64_t state = 1;
    for (int i = 0; i < 400; i++) {
        char *file = malloc(size);
        memcpy(file, text, size);
        for (int k = i % 3; k >= 0; k--) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's generator */
            size_t at = (size_t)(state >> 33) % size, from = (size_t)(state >> 20) % size;
            if (i % 4 == 0) file[at] = "0123456789\"[]{}:,-ntf"[state >> 60];
            else if (i % 4 == 1) file[at] = file[from];
            else if (i % 4 == 2) memmove(file + at, file + at + 1, size - at - 1);
            else file[at] = (char)(file[at] ^ 1 << (state >> 61));
        }
        test_write(test_path("tokenizer.json"), file, size);
        free(file);
        ck_error e = {0};
        tokenizer *t = tokenizer_open(test_path("tokenizer.json"), &e);
        refused += !t, used += t != NULL;
        if (!t) REQUIRE(strstr(e.message, "tokenizer.json: ") != NULL, "number %d: %s", i, e.message);
        for (size_t k = 0; t && k < sizeof noise; k++) noise[k] = (char)(test_value(3, i * 200 + (int64_t)k) * 60 + 64);
        int32_t *ids = NULL;
        int64_t count = 0;
        size_t bytes;
        bool encoded = t && tokenizer_encode(t, "noise", noise, sizeof noise, &ids, &count, &e);
        CU_ASSERT(!t || encoded || strstr(e.message, "noise") != NULL);
        for (int64_t k = 0; k < count; k++) CU_ASSERT(tokenizer_bytes(t, ids[k], &bytes) && bytes > 0);
        free(ids);
        tokenizer_close(t);
    }
    CU_ASSERT(refused > 50 && used > 5);
    free(text);
    json_decref(all);
}

void test_tokenizer(CU_pSuite suite)
{
    CU_add_test(suite, "as_hugging_face", as_hugging_face);
    CU_add_test(suite, "other_spellings", other_spellings);
    CU_add_test(suite, "text_that_is_none", text_that_is_none);
    CU_add_test(suite, "refusals", refusals);
    CU_add_test(suite, "mangled", mangled);
}
