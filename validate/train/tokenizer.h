/* tokenizer.h: text to tokens and back, as the tokenizer.json of a byte-level BPE says: GPT-2's kind, which Llama 3, Mistral NeMo
 * and SmolLM use (Sennrich et al. 2016; Radford et al. 2019).
 *
 *   text --> added tokens cut out --> pieces, by the pre-tokenizer's patterns --> bytes --> pairs merged, lowest rank first --> ids
 *
 * The ids are those of Hugging Face's encode(text, add_special_tokens=False). What would change them and is not done here is
 * refused by name: other models (Unigram, WordPiece, BPE over characters as Llama 2's), byte_fallback, prefixes and suffixes,
 * normalizers (NFC is let through: then text must be ASCII), other pre-tokenizers, added tokens that take spaces with them.
 */
#ifndef FOURBIT_TRAIN_TOKENIZER_H
#define FOURBIT_TRAIN_TOKENIZER_H

#include "validate/checkpoint/error.h"

#include <stddef.h>

typedef struct tokenizer tokenizer;

/* NULL: *e says why. The patterns are run by PCRE2's library, which is looked for at run time. */
tokenizer *tokenizer_open(const char *path, ck_error *e);
void tokenizer_close(tokenizer *t); /* NULL is fine */

int32_t tokenizer_size(const tokenizer *t); /* the greatest id + 1 */

/* *ids [*count], malloc'd. name: of the text, for messages. Not UTF-8: false. */
bool tokenizer_encode(const tokenizer *t, const char *name, const char *text, size_t bytes, int32_t **ids, int64_t *count, ck_error *e);

/* The bytes that a token stands for; they may be a part of a character. No such token: none. */
const char *tokenizer_bytes(const tokenizer *t, int32_t id, size_t *bytes);

#endif
