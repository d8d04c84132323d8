/* kinds.h - one byte about each token: its type, when it is found in a text, whether it ends an
 * answer. */
#ifndef TOKEN_KINDS_H
#define TOKEN_KINDS_H

#include <stdint.h>

#include "token/vocab.h"
#include "token/words.h"

enum {
    KIND_TYPE = 0x07,      /* enum vocab_token_type */
    SPECIAL_PARSED = 0x20, /* found in a text on request: control tokens, the unknown token */
    SPECIAL_ALWAYS = 0x40, /* found in any text: user-defined tokens */
    KIND_ENDS = 0x80,      /* ends an answer */
};

static inline uint32_t kind_type(uint8_t kind) {
    return kind & KIND_TYPE;
}

/* Sets kinds [words->n] from the file's types and from the tokens' texts: files are known to give
 * tokens such as <|im_end|> the wrong type, and to name only one of several that end an answer.
 * eos: the vocabulary's, or -1. Errors: FORMAT (a type that is none). */
int kinds_fill(uint8_t *kinds, const struct words *words, const struct vocab_source *source,
               int64_t eos, struct ot_error *err);

#endif
