/* vocab_file.h - vocabularies for tests: from files, and small ones made by hand. */
#ifndef TESTS_SUPPORT_VOCAB_FILE_H
#define TESTS_SUPPORT_VOCAB_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "token/vocab.h"

/* A whole file in memory, NUL-terminated, for free(); NULL where there is none. */
char *file_read(const char *path, size_t *bytes);

struct vocab_file {
    char *bytes; /* owned; the vocabulary points into it */
    struct vocab *vocab;
};

/* Opens DIRECTORY/NAME.gguf; pre, where not NULL, takes the place of the file's pre-tokenizer. The
 * test fails where the file is no good. */
struct vocab_file vocab_file_open(const char *directory, const char *name, const char *pre);
void vocab_file_close(struct vocab_file *file);

/* A vocabulary made by hand; the strings are literals. */
struct small_vocab {
    struct vocab_string tokens[512], merges[512];
    int32_t types[512];
    float scores[512];
    struct vocab_source source; /* as passed to vocab_open; may be changed before */
};

/* Byte-level BPE: tokens 0-255 are the bytes in order, without merges. */
void small_bpe(struct small_vocab *v);
/* SentencePiece: <unk>, <s>, </s>, then 256 byte tokens. */
void small_spm(struct small_vocab *v);
/* Returns the new token's id. */
uint32_t small_add(struct small_vocab *v, const char *text, int32_t type, float score);
/* "left right"; the joined text is added as a token. */
void small_merge(struct small_vocab *v, const char *left, const char *right);
/* Opens it; the test fails where that fails. */
struct vocab *small_open(const struct small_vocab *v);

/* "3 17 5": the ids as text, in a buffer that the next call uses again. */
const char *ids_of(const struct vocab *vocab, const char *text, size_t bytes, uint32_t flags);

#endif
