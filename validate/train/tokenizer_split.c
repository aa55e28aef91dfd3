/* tokenizer_split.c: a pre-tokenizer's patterns, run by PCRE2.
 *
 * Its library is on every Debian (grep needs it), its headers are not: so it is loaded at run time, and the few numbers and
 * functions of its ABI that are used stand here. */
#include "tokenizer_parts.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 16 };

typedef struct pattern {
    void *code;
    bool drops_rest; /* what it does not match is left out; else it is a piece of its own */
} pattern;

struct splitter {
    pattern levels[LEVELS];
    int count;
    bool byte_level;
};

/* ---- PCRE2 (pcre2api(3)) --------------------------------------------------------------------------------------------------- */

enum { UTF = 0x00080000, UCP = 0x00020000, NO_UTF_CHECK = 0x40000000, NO_MATCH = -1 };

static struct {
    void *(*compile)(const char *, size_t, uint32_t, int *, size_t *, void *);
    void (*code_free)(void *);
    void *(*data_new)(const void *, void *);
    void (*data_free)(void *);
    int (*match)(const void *, const char *, size_t, size_t, uint32_t, void *, void *);
    size_t *(*offsets)(void *);
} pcre2;

static bool pcre2_load(const char *path, ck_error *e)
{
    static const char *const names[] = {"pcre2_compile_8", "pcre2_code_free_8", "pcre2_match_data_create_from_pattern_8", "pcre2_match_data_free_8",
                                        "pcre2_match_8", "pcre2_get_ovector_pointer_8"};
    void *const to[] = {&pcre2.compile, &pcre2.code_free, &pcre2.data_new, &pcre2.data_free, &pcre2.match, &pcre2.offsets};
    void *library = dlopen("libpcre2-8.so.0", RTLD_NOW);
    if (!library) return ck_fail(e, path, "pre_tokenizer", "its patterns need PCRE2: %s (Debian's package libpcre2-8-0)", dlerror());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *found = dlsym(library, names[i]);
        if (!found) return ck_fail(e, path, "pre_tokenizer", "its patterns need PCRE2, whose library here has no %s", names[i]);
        memcpy(to[i], &found, sizeof found);
    }
    return true; /* it stays loaded */
}

/* ---- the patterns of a file ------------------------------------------------------------------------------------------------ */

/* What ByteLevel splits by, unless told not to: GPT-2's. */
static const char *const gpt2 = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s+(?!\\S)|\\s+";

static bool add(splitter *s, const char *text, bool drops_rest, const char *path, ck_error *e)
{
    int error = 0;
    size_t at = 0;
    if (s->count == LEVELS) return ck_fail(e, path, "pre_tokenizer", "has more than %d patterns", LEVELS);
    void *code = pcre2.compile(text, strlen(text), UTF | UCP, &error, &at, NULL);
    if (!code) return ck_fail(e, path, "pre_tokenizer", "its pattern \"%.200s\" is not understood (error %d at %zu)", text, error, at);
    s->levels[s->count++] = (pattern){code, drops_rest};
    return true;
}

/* A literal as a pattern. */
static bool add_literal(splitter *s, const char *text, bool drops_rest, const char *path, ck_error *e)
{
    char quoted[600];
    if (strlen(text) > 500 || strstr(text, "\\E")) return ck_fail(e, path, "pre_tokenizer", "splits by \"%.60s\", which is not supported", text);
    snprintf(quoted, sizeof quoted, "\\Q%s\\E", text);
    return add(s, quoted, drops_rest, path, e);
}

static const char *string_of(const json_t *from, const char *key)
{
    const char *text = json_string_value(json_object_get(from, key));
    return text ? text : "";
}

static bool add_split(splitter *s, const json_t *from, const char *path, ck_error *e)
{
    const char *behavior = string_of(from, "behavior");
    bool invert = json_is_true(json_object_get(from, "invert")), isolated = strcmp(behavior, "Isolated") == 0;
    const json_t *pattern = json_object_get(from, "pattern");
    const char *regex = string_of(pattern, "Regex"), *literal = string_of(pattern, "String");
    /* Isolated: both are pieces, whichever is called the match. Removed and inverted: the matches alone */
    if (!isolated && !(invert && strcmp(behavior, "Removed") == 0))
        return ck_fail(e, path, "pre_tokenizer", "its Split has the behavior \"%.40s\"%s; read are Isolated, and Removed inverted", behavior,
                       invert ? ", inverted" : "");
    if (*regex) return add(s, regex, !isolated, path, e);
    if (*literal) return add_literal(s, literal, !isolated, path, e);
    return ck_fail(e, path, "pre_tokenizer", "its Split has no pattern");
}

static bool add_all(splitter *s, const json_t *from, int depth, const char *path, ck_error *e)
{
    const char *type = string_of(from, "type");
    if (s->byte_level) return ck_fail(e, path, "pre_tokenizer", "has a %.40s behind its ByteLevel", type);
    if (strcmp(type, "Split") == 0) return add_split(s, from, path, e);
    if (strcmp(type, "Digits") == 0) return add(s, json_is_true(json_object_get(from, "individual_digits")) ? "\\p{N}" : "\\p{N}+", false, path, e);
    if (strcmp(type, "ByteLevel") == 0) {
        if (json_is_true(json_object_get(from, "add_prefix_space")))
            return ck_fail(e, path, "pre_tokenizer", "puts a space before each text (add_prefix_space), which is not supported");
        s->byte_level = true;
        return json_is_false(json_object_get(from, "use_regex")) || add(s, gpt2, false, path, e);
    }
    const json_t *list = json_object_get(from, "pretokenizers");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(list) || depth > 4)
        return ck_fail(e, path, "pre_tokenizer", "is \"%.40s\"; read are ByteLevel, Split, Digits and a Sequence of them", type);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!add_all(s, json_array_get(list, i), depth + 1, path, e)) return false;
    return true;
}

splitter *splitter_new(const json_t *from, const char *path, ck_error *e)
{
    splitter *s = calloc(1, sizeof *s);
    if (!s) return ck_fail(e, path, NULL, "no memory for its patterns"), NULL;
    bool ok = json_is_object(from) || ck_fail(e, path, "pre_tokenizer", "there is none: only byte-level BPE is read, not BPE over characters");
    ok = ok && pcre2_load(path, e) && add_all(s, from, 0, path, e);
    if (ok && !s->byte_level) ok = ck_fail(e, path, "pre_tokenizer", "has no ByteLevel: only byte-level BPE is read");
    if (ok) return s;
    splitter_free(s);
    return NULL;
}

void splitter_free(splitter *s)
{
    for (int i = 0; s && i < s->count; i++) pcre2.code_free(s->levels[i].code);
    free(s);
}

/* ---- splitting ---------------------------------------------------------------------------------------------------------------- */

typedef struct pass {
    const splitter *s;
    const char *name;
    void *data[LEVELS];
    splitter_take take;
    void *self;
} pass;

static bool split(pass *p, int level, const char *text, size_t bytes, ck_error *e)
{
    if (bytes == 0) return true;
    if (level == p->s->count) return p->take(p->self, text, bytes, e);
    const pattern *pattern = &p->s->levels[level];
    size_t at = 0, from = 0; /* from: where to look; a match of nothing is passed over */
    while (from < bytes) {
        int found = pcre2.match(pattern->code, text, bytes, from, NO_UTF_CHECK, p->data[level], NULL);
        if (found == NO_MATCH) break;
        if (found < 0) return ck_fail(e, p->name, NULL, "a pattern of the tokenizer gave up on it (PCRE2's error %d)", found);
        const size_t *offsets = pcre2.offsets(p->data[level]), begin = offsets[0], end = offsets[1];
        if (end <= begin || end <= at) {
            for (from++; from < bytes && ((unsigned char)text[from] & 0xc0) == 0x80;) from++;
            continue;
        }
        if (!pattern->drops_rest && !split(p, level + 1, text + at, begin - at, e)) return false;
        if (!split(p, level + 1, text + begin, end - begin, e)) return false;
        at = from = end;
    }
    return pattern->drops_rest || split(p, level + 1, text + at, bytes - at, e);
}

bool splitter_split(const splitter *s, const char *name, const char *text, size_t bytes, splitter_take take, void *self, ck_error *e)
{
    pass p = {.s = s, .name = name, .take = take, .self = self};
    bool ok = true;
    for (int i = 0; i < s->count; i++) ok = (p.data[i] = pcre2.data_new(s->levels[i].code, NULL)) != NULL && ok;
    ok = ok ? split(&p, 0, text, bytes, e) : ck_fail(e, name, NULL, "no memory to split it");
    for (int i = 0; i < s->count; i++)
        if (p.data[i]) pcre2.data_free(p.data[i]);
    return ok;
}
