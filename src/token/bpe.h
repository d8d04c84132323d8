/* bpe.h - byte-level byte-pair encoding, as GPT-2 introduced it (Radford et al. 2019; Sennrich et
 * al. 2016): every byte is written as one printable character, tokens are strings of those, merges
 * say which two neighbours join, earlier ones first. */
#ifndef TOKEN_BPE_H
#define TOKEN_BPE_H

#include "token/merge.h"
#include "token/words.h"

struct bpe_merge {
    uint32_t left, right, joined; /* token ids */
};

struct bpe {
    const struct words *words; /* borrowed */
    struct bpe_merge *merges;  /* owned [n_merges]; the index is the rank */
    uint32_t *slots;           /* owned [slot_mask + 1]: 0, or tag << rank_bits | (rank + 1) */
    uint32_t n_merges, slot_mask, rank_bits;
    uint32_t byte_ids[256]; /* token of one byte, or WORD_NONE */
};

int32_t bpe_byte_of_char(uint32_t c);

/* Every merge's halves and their union must be tokens. Errors: FORMAT, MEMORY; *bpe is then
 * empty. */
int bpe_open(struct bpe *bpe, const struct words *words, const struct vocab_string *merges,
             uint32_t n_merges, const char *path, struct ot_error *err);
void bpe_close(struct bpe *bpe);

/* The whole word as one token, or WORD_NONE. false: no memory. */
bool bpe_whole(const struct bpe *bpe, const char *word, uint64_t bytes, uint32_t *id);
/* Encodes one word; the result is in m's pieces. Bytes that no token stands for have the id
 * PIECE_NONE. false: no memory. */
bool bpe_encode(const struct bpe *bpe, struct merge *m, const char *word, uint64_t bytes);

#endif
