/* tokenizer.c: a byte-level BPE: its file into tables, text into ids. See tokenizer.h. */
#include "tokenizer.h"

#include "tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum { ID_MOST = 1 << 24 };

typedef struct token {
    char *text; /* malloc'd */
    size_t bytes;
    bool added;
} token;

/* A pair of neighbours that becomes one token. */
typedef struct merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank, id;
} merge;

struct tokenizer {
    token *tokens; /* [size]; text NULL: no such id */
    int32_t size;
    int32_t *by_text; /* hash table of ids, -1: free; of the model's vocabulary, not of added tokens */
    size_t text_room;
    merge *merges; /* hash table; rank -1: free */
    size_t merge_room;
    int32_t *added; /* ids */
    int32_t added_count;
    bool ignore_merges; /* a piece that is a token as a whole is not merged up from bytes */
    bool ascii_only;    /* normalizes to NFC, which leaves ASCII as it is */
    splitter *splitter;
};

#define FAIL(key, ...) ck_fail(e, path, key, __VA_ARGS__)

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

static uint64_t hash_of(const char *p, size_t n) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

static int32_t find_text(const tokenizer *t, const char *p, size_t n)
{
    for (size_t at = hash_of(p, n) & (t->text_room - 1);; at = (at + 1) & (t->text_room - 1)) {
        int32_t id = t->by_text[at];
        if (id < 0 || (t->tokens[id].bytes == n && memcmp(t->tokens[id].text, p, n) == 0)) return id;
    }
}

static void add_text(tokenizer *t, int32_t id)
{
    size_t at = hash_of(t->tokens[id].text, t->tokens[id].bytes) & (t->text_room - 1);
    while (t->by_text[at] >= 0) at = (at + 1) & (t->text_room - 1);
    t->by_text[at] = id;
}

/* Its place, or the free one where it belongs. */
static merge *find_merge(const tokenizer *t, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    size_t at = (pair * 0x9e3779b97f4a7c15u >> 20) & (t->merge_room - 1);
    while (t->merges[at].rank >= 0 && t->merges[at].pair != pair) at = (at + 1) & (t->merge_room - 1);
    return &t->merges[at];
}

static size_t room_for(size_t count) /* a power of two, at most half of it taken */
{
    size_t room = 64;
    while (room < 2 * count) room *= 2;
    return room;
}

/* ---- the byte-level alphabet ------------------------------------------------------------------------------------------------- */

/* GPT-2 writes each byte as a character that can be seen: itself where it can, else U+0100 and on, in their order. */
static bool is_seen(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

static int byte_of(int character)
{
    if (character < 256) return is_seen(character) ? character : -1;
    for (int byte = 0, next = 256; byte < 256; byte++)
        if (!is_seen(byte) && next++ == character) return byte;
    return -1;
}

/* The bytes that a written token stands for, at most as many. False: a character that is none of the alphabet. */
static bool spelled(const char *written, size_t n, char *out, size_t *bytes)
{
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)written[i];
        if (c >= 0xc0 && c < 0xe0 && i + 1 < n) c = (c & 31) << 6 | ((unsigned char)written[++i] & 63);
        else if (c >= 0x80) return false;
        int byte = byte_of(c);
        if (byte < 0) return false;
        out[(*bytes)++] = (char)byte;
    }
    return true;
}

/* ---- reading the file --------------------------------------------------------------------------------------------------------- */

static bool set_token(tokenizer *t, const char *path, int64_t id, const char *text, size_t bytes, ck_error *e)
{
    token *to = &t->tokens[id];
    if (to->text && (to->bytes != bytes || memcmp(to->text, text, bytes) != 0)) return FAIL("vocab", "two tokens have the id %lld", (long long)id);
    if (to->text) return true;
    to->text = malloc(bytes + 1);
    if (!to->text) return FAIL(NULL, "no memory for its tokens");
    memcpy(to->text, text, bytes);
    to->text[bytes] = '\0', to->bytes = bytes;
    return true;
}

static int64_t id_of(const json_t *value)
{
    int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 && id < ID_MOST ? id : -1;
}

/* Room for all ids, before any is set. */
static bool make_room(tokenizer *t, const char *path, json_t *vocab, const json_t *added, ck_error *e)
{
    const char *key;
    json_t *value;
    int64_t most = -1;
    json_object_foreach(vocab, key, value)
    {
        if (id_of(value) < 0) return FAIL("model.vocab", "the id of \"%.40s\" is not a whole number from 0 to %d", key, ID_MOST - 1);
        if (id_of(value) > most) most = id_of(value);
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        int64_t id = id_of(json_object_get(json_array_get(added, i), "id"));
        if (id < 0) return FAIL("added_tokens", "the id of number %zu is not a whole number from 0 to %d", i, ID_MOST - 1);
        if (id > most) most = id;
    }
    if (most < 0) return FAIL("model.vocab", "is empty");
    t->size = (int32_t)(most + 1);
    t->text_room = room_for((size_t)t->size);
    t->tokens = calloc((size_t)t->size, sizeof *t->tokens);
    t->by_text = malloc(t->text_room * sizeof *t->by_text);
    t->added = malloc((json_array_size(added) + 1) * sizeof *t->added);
    if (!t->tokens || !t->by_text || !t->added) return FAIL(NULL, "no memory for its %lld tokens", (long long)t->size);
    for (size_t i = 0; i < t->text_room; i++) t->by_text[i] = -1;
    return true;
}

static bool read_vocab(tokenizer *t, const char *path, json_t *vocab, ck_error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach(vocab, key, value)
    {
        size_t n = strlen(key), bytes = n;
        char *text = malloc(n + 1);
        if (!text) return FAIL(NULL, "no memory for its tokens");
        /* what is not in the alphabet no merge can lead to: a special token that stands among the others */
        bool reached = spelled(key, n, text, &bytes);
        bool ok = set_token(t, path, id_of(value), reached ? text : key, reached ? bytes : n, e);
        free(text);
        if (!ok) return false;
        if (reached) add_text(t, (int32_t)id_of(value));
    }
    return true;
}

static bool read_added(tokenizer *t, const char *path, const json_t *added, ck_error *e)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *one = json_array_get(added, i);
        const char *content = json_string_value(json_object_get(one, "content"));
        int64_t id = id_of(json_object_get(one, "id"));
        if (!content || !*content) return FAIL("added_tokens", "number %zu has no content", i);
        for (size_t k = 0; k < sizeof flags / sizeof *flags; k++)
            if (json_is_true(json_object_get(one, flags[k]))) return FAIL("added_tokens", "\"%.60s\" has %s, which is not supported", content, flags[k]);
        token *to = &t->tokens[id];
        if (to->text && !to->added) free(to->text), to->text = NULL; /* it stands in the vocabulary too, perhaps spelled as bytes */
        if (!set_token(t, path, id, content, strlen(content), e)) return false;
        to->added = true;
        t->added[t->added_count++] = (int32_t)id;
    }
    return true;
}

/* "left right" or ["left", "right"], in the alphabet, as ids. */
static bool ends_of(const tokenizer *t, const json_t *one, int32_t ends[2], int32_t *whole)
{
    const char *written[2] = {NULL, NULL};
    size_t lengths[2] = {0, 0}, bytes[2];
    const char *pair = json_string_value(one), *space = pair ? strchr(pair, ' ') : NULL;
    if (space) written[0] = pair, lengths[0] = (size_t)(space - pair), written[1] = space + 1, lengths[1] = strlen(space + 1);
    for (size_t i = 0; i < 2 && json_array_size(one) == 2; i++)
        if ((written[i] = json_string_value(json_array_get(one, i)))) lengths[i] = strlen(written[i]);
    if (!written[0] || !written[1]) return false;
    char *text = malloc(lengths[0] + lengths[1] + 1);
    bool ok = text && spelled(written[0], lengths[0], text, &bytes[0]) && spelled(written[1], lengths[1], text + bytes[0], &bytes[1]);
    if (ok) ends[0] = find_text(t, text, bytes[0]), ends[1] = find_text(t, text + bytes[0], bytes[1]), *whole = find_text(t, text, bytes[0] + bytes[1]);
    free(text);
    return ok && ends[0] >= 0 && ends[1] >= 0 && *whole >= 0;
}

static bool read_merges(tokenizer *t, const char *path, const json_t *merges, ck_error *e)
{
    size_t count = json_array_size(merges);
    t->merge_room = room_for(count);
    t->merges = malloc(t->merge_room * sizeof *t->merges);
    if (!t->merges) return FAIL(NULL, "no memory for its merges");
    for (size_t i = 0; i < t->merge_room; i++) t->merges[i].rank = -1;
    for (size_t i = 0; i < count; i++) {
        int32_t ends[2], whole;
        if (!ends_of(t, json_array_get(merges, i), ends, &whole)) return FAIL("model.merges", "number %zu is not a pair of tokens that together are one", i);
        merge *m = find_merge(t, ends[0], ends[1]);
        if (m->rank < 0) *m = (merge){(uint64_t)ends[0] << 32 | (uint32_t)ends[1], (int32_t)i, whole};
    }
    return true;
}

static bool is_set(const json_t *value) { return value && !json_is_null(value) && !json_is_false(value) && !(json_is_string(value) && !*json_string_value(value)); }

/* What would change the ids. */
static bool check(tokenizer *t, const char *path, const json_t *root, const json_t *model, ck_error *e)
{
    static const char *const unread[] = {"byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout"};
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model)) return FAIL("model", "is missing: this is no tokenizer.json");
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges"))
        return FAIL("model.type", "is \"%.40s\"; only byte-level BPE is read", type ? type : "missing");
    for (size_t i = 0; i < sizeof unread / sizeof *unread; i++)
        if (is_set(json_object_get(model, unread[i]))) return FAIL("model", "has %s: only byte-level BPE without it is read", unread[i]);
    if (!json_is_object(json_object_get(model, "vocab"))) return FAIL("model.vocab", "is not an object of tokens");
    if (!json_is_array(json_object_get(model, "merges"))) return FAIL("model.merges", "is not a list");
    t->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    const json_t *normalizer = json_object_get(root, "normalizer");
    const char *kind = json_string_value(json_object_get(normalizer, "type"));
    t->ascii_only = kind && strcmp(kind, "NFC") == 0;
    if (is_set(normalizer) && !t->ascii_only) return FAIL("normalizer", "is \"%.40s\"; read are none, and NFC for ASCII text", kind ? kind : "?");
    return true;
}

static bool read_file(tokenizer *t, const char *path, const json_t *root, ck_error *e)
{
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    return check(t, path, root, model, e) && make_room(t, path, vocab, added, e) && read_vocab(t, path, vocab, e) && read_added(t, path, added, e) &&
           read_merges(t, path, json_object_get(model, "merges"), e) && (t->splitter = splitter_new(json_object_get(root, "pre_tokenizer"), path, e)) != NULL;
}

tokenizer *tokenizer_open(const char *path, ck_error *e)
{
    json_error_t error;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return FAIL(NULL, "no memory for it"), NULL;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    bool ok = root || FAIL(NULL, "line %d: %s", error.line, error.text);
    ok = ok && read_file(t, path, root, e);
    json_decref(root);
    if (ok) return t;
    tokenizer_close(t);
    return NULL;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    for (int32_t i = 0; t->tokens && i < t->size; i++) free(t->tokens[i].text);
    free(t->tokens), free(t->by_text), free(t->merges), free(t->added);
    splitter_free(t->splitter);
    free(t);
}

int32_t tokenizer_size(const tokenizer *t) { return t->size; }

const char *tokenizer_bytes(const tokenizer *t, int32_t id, size_t *bytes)
{
    bool there = id >= 0 && id < t->size && t->tokens[id].text;
    *bytes = there ? t->tokens[id].bytes : 0;
    return there ? t->tokens[id].text : "";
}

/* ---- merging ------------------------------------------------------------------------------------------------------------------ */

/* A token of a piece, in a list. */
typedef struct link {
    int32_t id, before, after; /* after -1: the last; id -1: merged into the one before */
} link;

/* A pair that could be merged when it was seen: the lowest rank first, then the leftmost. */
typedef struct candidate {
    int32_t rank, at, id;
} candidate;

typedef struct encoder {
    const tokenizer *t;
    const char *name;
    int32_t *ids;
    int64_t count, room;
    link *links;      /* [room_links] */
    candidate *heap;  /* three for each link */
    int32_t heap_count;
    size_t room_links;
} encoder;

static bool put(encoder *w, int32_t id, ck_error *e)
{
    if (w->count == w->room) {
        int64_t room = w->room ? 2 * w->room : 4096;
        int32_t *ids = realloc(w->ids, (size_t)room * sizeof *ids);
        if (!ids) return ck_fail(e, w->name, NULL, "no memory for its tokens");
        w->ids = ids, w->room = room;
    }
    w->ids[w->count++] = id;
    return true;
}

static bool is_before(candidate a, candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void push(encoder *w, int32_t at)
{
    const link *l = &w->links[at];
    if (at < 0 || l->after < 0) return;
    const merge *m = find_merge(w->t, l->id, w->links[l->after].id);
    if (m->rank < 0) return;
    candidate c = {m->rank, at, m->id};
    int32_t i = w->heap_count++;
    for (; i && is_before(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate pop(encoder *w)
{
    candidate first = w->heap[0], last = w->heap[--w->heap_count];
    int32_t i = 0;
    for (int32_t child; (child = 2 * i + 1) < w->heap_count; i = child) {
        if (child + 1 < w->heap_count && is_before(w->heap[child + 1], w->heap[child])) child++;
        if (!is_before(w->heap[child], last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return first;
}

static void merge_all(encoder *w)
{
    while (w->heap_count) {
        candidate c = pop(w);
        link *l = &w->links[c.at];
        if (l->id < 0 || l->after < 0) continue; /* one of the two has gone since */
        const merge *m = find_merge(w->t, l->id, w->links[l->after].id);
        if (m->rank != c.rank || m->id != c.id) continue;
        link *gone = &w->links[l->after];
        l->id = c.id, l->after = gone->after;
        gone->id = -1;
        if (l->after >= 0) w->links[l->after].before = c.at;
        if (l->before >= 0) push(w, l->before);
        push(w, c.at);
    }
}

static bool encode_piece(void *self, const char *piece, size_t bytes, ck_error *e)
{
    encoder *w = self;
    int32_t whole = w->t->ignore_merges || bytes == 1 ? find_text(w->t, piece, bytes) : -1;
    if (whole >= 0) return put(w, whole, e);
    if (bytes > w->room_links) {
        size_t room = bytes < (size_t)1 << 28 ? 2 * bytes + 64 : 0; /* ids of links are 32 bits */
        free(w->links), free(w->heap);
        w->links = malloc(room * sizeof *w->links), w->heap = malloc(3 * room * sizeof *w->heap), w->room_links = room;
        if (!room || !w->links || !w->heap) return w->room_links = 0, ck_fail(e, w->name, NULL, "no memory for a piece of %zu bytes", bytes);
    }
    int32_t n = (int32_t)bytes;
    for (int32_t i = 0; i < n; i++) {
        w->links[i] = (link){find_text(w->t, piece + i, 1), i - 1, i + 1 < n ? i + 1 : -1};
        if (w->links[i].id < 0) return ck_fail(e, w->name, NULL, "the tokenizer has no token for the byte 0x%02x", (unsigned char)piece[i]);
    }
    w->heap_count = 0;
    for (int32_t i = 0; i + 1 < n; i++) push(w, i);
    merge_all(w);
    for (int32_t i = 0; i >= 0; i = w->links[i].after)
        if (!put(w, w->links[i].id, e)) return false;
    return true;
}

/* ---- text --------------------------------------------------------------------------------------------------------------------- */

/* Bytes of the character that begins here; 0: it is not UTF-8 (RFC 3629). */
static size_t character(const unsigned char *p, size_t left)
{
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90), outside = (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf4 && p[1] >= 0x90);
    return n > 1 && (overlong || outside) ? 0 : n;
}

static bool check_text(const tokenizer *t, const char *name, const char *text, size_t bytes, ck_error *e)
{
    for (size_t at = 0, n; at < bytes; at += n) {
        n = character((const unsigned char *)text + at, bytes - at);
        if (!n) return ck_fail_at(e, name, (int64_t)at, "is not UTF-8, which the tokenizer needs");
        if (n > 1 && t->ascii_only) return ck_fail_at(e, name, (int64_t)at, "is not ASCII, and the tokenizer normalizes to NFC, which is not done here");
    }
    return true;
}

/* The longest added token that begins here; -1: none. */
static int32_t added_at(const tokenizer *t, const char *text, size_t left)
{
    int32_t best = -1;
    for (int32_t i = 0; i < t->added_count; i++) {
        const token *a = &t->tokens[t->added[i]];
        if (a->bytes <= left && a->text[0] == text[0] && memcmp(a->text, text, a->bytes) == 0 && (best < 0 || a->bytes > t->tokens[best].bytes))
            best = t->added[i];
    }
    return best;
}

static bool encode_all(encoder *w, const char *text, size_t bytes, ck_error *e)
{
    const tokenizer *t = w->t;
    bool begins[256] = {false};
    size_t from = 0;
    for (int32_t i = 0; i < t->added_count; i++) begins[(unsigned char)t->tokens[t->added[i]].text[0]] = true;
    for (size_t at = 0; at < bytes; at++) {
        int32_t id = begins[(unsigned char)text[at]] ? added_at(t, text + at, bytes - at) : -1;
        if (id < 0) continue;
        if (!splitter_split(t->splitter, w->name, text + from, at - from, encode_piece, w, e) || !put(w, id, e)) return false;
        from = at + t->tokens[id].bytes;
        at = from - 1;
    }
    return splitter_split(t->splitter, w->name, text + from, bytes - from, encode_piece, w, e);
}

bool tokenizer_encode(const tokenizer *t, const char *name, const char *text, size_t bytes, int32_t **ids, int64_t *count, ck_error *e)
{
    encoder w = {.t = t, .name = name};
    bool ok = check_text(t, name, text, bytes, e) && encode_all(&w, text, bytes, e);
    free(w.links), free(w.heap);
    if (ok && !w.ids) ok = (w.ids = malloc(sizeof *w.ids)) || ck_fail(e, name, NULL, "no memory for its tokens");
    if (!ok) free(w.ids), w.ids = NULL, w.count = 0;
    *ids = w.ids, *count = w.count;
    return ok;
}
