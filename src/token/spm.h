/* spm.h - SentencePiece's encoding by score (Kudo and Richardson 2018), as the llama tokenizer uses
 * it: characters are joined in pairs, the pair that makes the token of the highest score first;
 * what is no token in the end is written as byte tokens. Spaces are written as U+2581. */
#ifndef TOKEN_SPM_H
#define TOKEN_SPM_H

#include "token/merge.h"
#include "token/words.h"

struct spm {
    const struct words *words; /* borrowed */
    const uint8_t *kinds;      /* borrowed [n_tokens]; text never becomes a control token */
    uint32_t *priorities;      /* owned [n_tokens]: scores, as integers that sort the best first */
    uint32_t byte_ids[256];    /* token of a byte that is part of no other token, or WORD_NONE */
    bool words_end_at_spaces;  /* no token has U+2581 after another character */
};

/* Errors: FORMAT (a score is not a number), MEMORY; *spm is then empty. */
int spm_open(struct spm *spm, const struct words *words, const uint8_t *kinds, const float *scores,
             const char *path, struct ot_error *err);
void spm_close(struct spm *spm);

/* Encodes a stretch of text in which spaces are already U+2581; the result is in m's pieces, those
 * that are no token with the id PIECE_NONE. false: no memory. */
bool spm_encode(const struct spm *spm, struct merge *m, const char *text, uint32_t bytes);

#endif
