/* tokenizer_parts.h: what tokenizer.c and tokenizer_split.c share. Internal to them. */
#ifndef FOURBIT_TRAIN_TOKENIZER_PARTS_H
#define FOURBIT_TRAIN_TOKENIZER_PARTS_H

#include "tokenizer.h"

#include <jansson.h>

/* The patterns of a pre-tokenizer, each applied to what the one before left. */
typedef struct splitter splitter;

/* from: the file's "pre_tokenizer". NULL: *e says why; also where it does not end with the byte level. */
splitter *splitter_new(const json_t *from, const char *path, ck_error *e);
void splitter_free(splitter *s);

/* Gives each piece of text, in order, to take; ends with false as soon as that does. */
typedef bool (*splitter_take)(void *self, const char *piece, size_t bytes, ck_error *e);
bool splitter_split(const splitter *s, const char *name, const char *text, size_t bytes, splitter_take take, void *self, ck_error *e);

#endif
