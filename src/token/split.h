/* split.h - cuts text into the words that byte-pair encoding works on, by the regular expressions
 * that each family of models was trained with (tokenizer.ggml.pre).
 *
 * A pre-tokenizer is one to six expressions. Each is applied to the pieces that the one before it
 * left: its matches and what lies between them are the new pieces. So nothing of the text is lost,
 * and an expression never sees across a piece's ends. Threads: read-only after split_open. */
#ifndef TOKEN_SPLIT_H
#define TOKEN_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

struct splitter;

struct split_rules {
    bool whole_words; /* a word that is a token is that token, whatever the merges make of it */
    bool add_bos;     /* where the file does not say */
};

/* pre: a name of tokenizer.ggml.pre. Errors: UNSUPPORTED (unknown name; known ones are listed),
 * MEMORY. */
int split_open(const char *pre, const char *path, struct splitter **out, struct split_rules *rules,
               struct ot_error *err);
void split_close(struct splitter *splitter);

/* Called for each word, front to back; all words together are the text. Non-zero stops. */
typedef int split_fn(void *arg, const char *word, uint64_t bytes);

/* Text may be any bytes: a byte that is part of no character is taken for U+FFFD by the expressions
 * and handed on as it is. Returns 0, what emit returned, or MEMORY or ARGUMENT (the expression gave
 * up: match limit). */
int split_run(const struct splitter *splitter, const char *text, uint64_t bytes, split_fn *emit,
              void *arg, struct ot_error *err);

#endif
