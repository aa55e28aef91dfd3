/* text.h: what is trained on: text as tokens, cut into a part to train on and a part that is held out, and batches of it.
 *
 * A token is a byte, the vocabulary 256; or what a tokenizer says (tokenizer.h). Held out is the last of every TEXT_SHARE pieces
 * of TEXT_PIECE tokens (of a short text: of an even share of it), so that both parts have the same kinds of text.
 */
#ifndef FOURBIT_TRAIN_TEXT_H
#define FOURBIT_TRAIN_TEXT_H

#include "tokenizer.h"

enum { TEXT_VOCABULARY = 256, TEXT_PIECE = 8192, TEXT_SHARE = 10, TEXT_SHA256 = 65, TEXT_SOURCE = 1024 };

typedef struct text_corpus {
    char source[TEXT_SOURCE];  /* the path */
    char sha256[TEXT_SHA256];  /* of all its bytes, hexadecimal */
    size_t bytes;              /* of all files */
    int files;
    int32_t *train, *held_out; /* tokens */
    int64_t train_count, held_out_count;
    int32_t vocab_size;
    const tokenizer *tokenizer; /* NULL: bytes */
} text_corpus;

/* path: a file, or a folder, whose regular files (links are not followed: the licences' would double their text) are read
 * in the order of their names (strcmp), one after another, without its subfolders; where some are called *.txt, only
 * those (vim's documentation has an index of 380 KB beside its prose). Too short for a window of `seq` tokens
 * and its target in either part: an error. */
bool text_open(text_corpus *t, const char *path, int64_t seq, ck_error *e);
/* The same by a tokenizer (NULL: bytes), which must outlive the corpus. The text is then one string of UTF-8. */
bool text_open_tokens(text_corpus *t, const char *path, const tokenizer *by, int64_t seq, ck_error *e);
void text_close(text_corpus *t);

/* May a model of this folder (NULL: one of our own making) and vocabulary be trained on it? One that has a tokenizer may not be
 * on bytes, nor one that knows fewer tokens than the text may have. */
bool text_fits(const text_corpus *t, const char *folder, int64_t vocab_size, ck_error *e);

/* Texts that a Debian machine has: what is fine-tuned on, and what a base is made from. The second needs the package
 * vim-runtime (scripts/bootstrap.sh --with train); NULL where it is not there. */
const char *text_default_path(void); /* /usr/share/common-licenses */
const char *text_prose_path(void);   /* the doc folder of /usr/share/vim */

/* A training batch: tokens and targets [batch, seq], each row from a place in the train part that depends on (seed, step,
 * row) alone. So the data's position in a checkpoint is the step. */
void text_batch(const text_corpus *t, uint64_t seed, int64_t step, int64_t batch, int64_t seq, int32_t *tokens,
                int32_t *targets);

/* Held-out windows, one after another without overlap: how many there are, and number i. */
int64_t text_windows(const text_corpus *t, int64_t seq);
void text_window(const text_corpus *t, int64_t i, int64_t seq, int32_t *tokens, int32_t *targets);

/* ---- SHA-256 (FIPS 180-4) --------------------------------------------------------------------------------------------- */

typedef struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
} sha256;

void sha256_start(sha256 *s);
void sha256_add(sha256 *s, const void *data, size_t bytes);
void sha256_finish(sha256 *s, char hex[TEXT_SHA256]);

#endif
