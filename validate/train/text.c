/* text.c: see text.h. */
#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- reading -------------------------------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t *p;
    size_t size, room;
} bytes;

static bool append(bytes *b, const char *path, int fd, ck_error *e)
{
    for (;;) {
        if (b->room - b->size < 1 << 16) {
            size_t room = b->room ? 2 * b->room : 1 << 20;
            uint8_t *p = realloc(b->p, room);
            if (!p) return ck_fail(e, path, NULL, "no memory for its text");
            b->p = p, b->room = room;
        }
        ssize_t n = read(fd, b->p + b->size, b->room - b->size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return ck_fail_at(e, path, (int64_t)b->size, "cannot be read: %s", strerror(errno));
        if (n == 0) return true;
        b->size += (size_t)n;
    }
}

/* 1: appended, 0: not a regular file (left out), -1: failed. */
static int append_file(bytes *b, const char *path, bool follow, ck_error *e)
{
    struct stat st;
    /* O_NONBLOCK: a FIFO must not hang */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW));
    if (fd < 0 && errno == ELOOP && !follow) return 0;
    if (fd < 0) {
        ck_fail(e, path, NULL, "cannot be opened: %s", strerror(errno));
        return -1;
    }
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode), good = !regular || append(b, path, fd, e);
    close(fd);
    return !good ? -1 : regular;
}

static int by_bytes(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }
static int visible(const struct dirent *d) { return d->d_name[0] != '.'; }
static bool is_text(const char *name) { return strlen(name) > 4 && strcmp(name + strlen(name) - 4, ".txt") == 0; }

static bool append_folder(text_corpus *t, bytes *b, const char *path, ck_error *e)
{
    struct dirent **names;
    int count = scandir(path, &names, visible, by_bytes);
    if (count < 0) return ck_fail(e, path, NULL, "cannot be listed: %s", strerror(errno));
    bool good = true, only_text = false;
    for (int i = 0; i < count; i++) only_text |= is_text(names[i]->d_name);
    for (int i = 0; i < count; i++) {
        char file[PATH_MAX];
        int added = 0;
        if (good && (!only_text || is_text(names[i]->d_name)) && snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) < (int)sizeof file)
            added = append_file(b, file, false, e);
        good = good && added >= 0;
        t->files += added > 0;
        free(names[i]);
    }
    free(names);
    return good;
}

static bool read_all(text_corpus *t, bytes *b, const char *path, ck_error *e)
{
    struct stat st;
    if (stat(path, &st) != 0) return ck_fail(e, path, NULL, "cannot be opened: %s", strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        if (!append_folder(t, b, path, e)) return false;
        return t->files ? true : ck_fail(e, path, NULL, "has no text: there is no regular file in this folder");
    }
    int added = append_file(b, path, true, e);
    t->files = 1;
    return added == 0 ? ck_fail(e, path, NULL, "is a device, FIFO or socket, not a file or folder") : added > 0;
}

/* ---- two parts -------------------------------------------------------------------------------------------------------- */

static bool split(text_corpus *t, const int32_t *tokens, int64_t n, int64_t seq, ck_error *e)
{
    const char *unit = t->tokenizer ? "tokens" : "bytes";
    int64_t piece = TEXT_PIECE;
    if (n < (int64_t)TEXT_PIECE * TEXT_SHARE) piece = n / TEXT_SHARE;
    if (piece < 1) piece = 1;
    t->train = malloc((size_t)(n + 1) * sizeof *t->train);
    t->held_out = malloc((size_t)(n + 1) * sizeof *t->held_out);
    if (!t->train || !t->held_out) return ck_fail(e, t->source, NULL, "no memory for its %lld tokens", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        bool held = i / piece % TEXT_SHARE == TEXT_SHARE - 1;
        if (held) t->held_out[t->held_out_count++] = tokens[i];
        else t->train[t->train_count++] = tokens[i];
    }
    if (n == 0) return ck_fail(e, t->source, NULL, "the text is empty");
    if (t->train_count < seq + 1 || t->held_out_count < seq + 1)
        return ck_fail(e, t->source, NULL, "the text has %lld %s, of which %lld are held out: too few for windows of %lld + 1 tokens",
                       (long long)n, unit, (long long)t->held_out_count, (long long)seq);
    return true;
}

/* The whole text; *tokens is malloc'd. */
static bool to_tokens(const text_corpus *t, const bytes *b, int32_t **tokens, int64_t *count, ck_error *e)
{
    if (t->tokenizer) return tokenizer_encode(t->tokenizer, t->source, (const char *)b->p, b->size, tokens, count, e);
    *count = (int64_t)b->size;
    *tokens = malloc((b->size + 1) * sizeof **tokens);
    if (!*tokens) return ck_fail(e, t->source, NULL, "no memory for its %zu tokens", b->size);
    for (size_t i = 0; i < b->size; i++) (*tokens)[i] = b->p[i];
    return true;
}

bool text_open(text_corpus *t, const char *path, int64_t seq, ck_error *e) { return text_open_tokens(t, path, NULL, seq, e); }

bool text_open_tokens(text_corpus *t, const char *path, const tokenizer *by, int64_t seq, ck_error *e)
{
    *t = (text_corpus){.vocab_size = by ? tokenizer_size(by) : TEXT_VOCABULARY, .tokenizer = by};
    bytes b = {0};
    int32_t *tokens = NULL;
    int64_t count = 0;
    if (seq < 1) return ck_fail(e, path, NULL, "windows of %lld tokens: at least 1", (long long)seq);
    snprintf(t->source, sizeof t->source, "%s", path);
    bool good = read_all(t, &b, path, e);
    if (good) {
        sha256 s;
        sha256_start(&s);
        sha256_add(&s, b.p, b.size);
        sha256_finish(&s, t->sha256);
        t->bytes = b.size;
        good = to_tokens(t, &b, &tokens, &count, e) && split(t, tokens, count, seq, e);
    }
    free(b.p), free(tokens);
    if (!good) text_close(t);
    return good;
}

void text_close(text_corpus *t)
{
    free(t->train);
    free(t->held_out);
    *t = (text_corpus){0};
}

bool text_fits(const text_corpus *t, const char *folder, int64_t vocab_size, ck_error *e)
{
    static const char *const tokenizers[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    char path[PATH_MAX];
    for (size_t i = 0; folder && !t->tokenizer && i < sizeof tokenizers / sizeof *tokenizers; i++)
        if (snprintf(path, sizeof path, "%s/%s", folder, tokenizers[i]) < (int)sizeof path && access(path, F_OK) == 0)
            return ck_fail(e, path, NULL, "the model was made for this tokenizer's tokens, and the text is bytes (only a tokenizer.json is read)");
    if (vocab_size >= t->vocab_size) return true;
    return ck_fail(e, folder ? folder : t->source, NULL, "the model knows %lld tokens; %s %d", (long long)vocab_size,
                   t->tokenizer ? "its tokenizer has" : "bytes need", (int)t->vocab_size);
}

const char *text_default_path(void) { return "/usr/share/common-licenses"; }

const char *text_prose_path(void)
{
    static const char *const places[] = {"/usr/share/vim/vim82/doc", "/usr/share/vim/vim90/doc", "/usr/share/vim/vim91/doc"};
    for (size_t i = sizeof places / sizeof *places; i-- > 0;)
        if (access(places[i], R_OK) == 0) return places[i];
    return NULL;
}

/* ---- batches ------------------------------------------------------------------------------------------------------------- */

/* SplitMix64's finalizer (Steele, Lea and Flood, 2014). */
static uint64_t mixed(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void window(const int32_t *from, int64_t seq, int32_t *tokens, int32_t *targets)
{
    memcpy(tokens, from, (size_t)seq * sizeof *tokens);
    memcpy(targets, from + 1, (size_t)seq * sizeof *targets);
}

void text_batch(const text_corpus *t, uint64_t seed, int64_t step, int64_t batch, int64_t seq, int32_t *tokens, int32_t *targets)
{
    uint64_t starts = (uint64_t)(t->train_count - seq);
    for (int64_t row = 0; row < batch; row++) {
        uint64_t r = mixed(mixed(mixed(seed) ^ (uint64_t)step) ^ (uint64_t)row);
        int64_t at = (int64_t)((unsigned __int128)r * starts >> 64);
        window(t->train + at, seq, tokens + row * seq, targets + row * seq);
    }
}

int64_t text_windows(const text_corpus *t, int64_t seq) { return seq < 1 ? 0 : (t->held_out_count - 1) / seq; }

void text_window(const text_corpus *t, int64_t i, int64_t seq, int32_t *tokens, int32_t *targets)
{
    window(t->held_out + i * seq, seq, tokens, targets);
}
