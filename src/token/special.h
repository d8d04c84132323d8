/* special.h - finds tokens that are written out in a text ("<|im_end|>") and cuts the text there.
 *
 * Longer tokens go first, each from left to right, in what the longer ones left: the order of the
 * reference implementations, reached without searching for each token by itself. Two bytes decide
 * at most places that nothing begins there; at the others the longest token is searched for, and
 * each knows the next one to try. So no vocabulary makes the time grow faster than the text.
 * Read-only after special_open. */
#ifndef TOKEN_SPECIAL_H
#define TOKEN_SPECIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "token/words.h"

/* Longer tokens are not looked for. */
#define SPECIAL_BYTES_MAX 1024

struct special_token {
    uint32_t id;
    uint32_t shorter; /* index of the longest other one that this begins with, or WORD_NONE */
};

/* Where a token may begin: a set of first two bytes. */
struct special_starts {
    uint8_t pairs[65536 / 8];
    bool any;
};

struct special {
    const struct words *words;    /* borrowed */
    const uint8_t *kinds;         /* borrowed [n_tokens]; see kinds.h */
    struct special_token *tokens; /* owned [n], in the order of their texts */
    uint32_t *lengths;            /* owned [n_lengths], of the tokens, longest first */
    uint32_t n, n_lengths;
    struct special_starts *always; /* owned; of tokens that are found in any text */
    struct special_starts *parsed; /* owned; of those and the ones found on request */
};

int special_open(struct special *special, const struct words *words, const uint8_t *kinds,
                 struct ot_error *err);
void special_close(struct special *special);

/* A token found in a text. */
struct special_hit {
    uint32_t at, id;
};

/* Which tokens are wanted where. */
struct special_wish {
    bool parse;                      /* also those that are found on request only... */
    const struct vocab_span *quoted; /* ...but not where they touch one of these [n_quoted] */
    uint32_t n_quoted;
};

/* Finds tokens in text; *hits (free with mem_free) are in order and do not overlap. text_bytes <
 * 2^32. Errors: MEMORY. */
int special_find(const struct special *special, const char *text, uint64_t text_bytes,
                 const struct special_wish *wish, struct special_hit **hits, uint32_t *n_hits,
                 struct ot_error *err);

#endif
