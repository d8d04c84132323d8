/* merge.h - joins neighbouring pieces of a text, the best pair first: the loop that byte-pair
 * encoding and SentencePiece's bigram encoding share.
 *
 * Pieces are a doubly linked list in an array; the best pair comes from a heap. n pieces cost
 * O(n log n), whatever the text. A heap entry is 8 bytes: priority and left piece. An entry is
 * stale when its left piece's present candidate has another priority; an equal priority of the same
 * piece is the same place in the order, so acting on it is right. */
#ifndef TOKEN_MERGE_H
#define TOKEN_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#define PIECE_NONE UINT32_MAX

struct piece {
    uint32_t start; /* first byte in the text; the piece ends where the next one starts */
    uint32_t id;    /* token, or PIECE_NONE */
    uint32_t prev, next;
    uint32_t candidate; /* what joining it with the next one would give; PIECE_NONE: nothing */
    uint32_t priority;  /* of the candidate; low ones first */
};

/* Scratch memory for one call of vocab_tokenize; zero-initialise. */
struct merge {
    struct piece *pieces; /* owned [capacity]; the first one is never joined to another's right */
    uint32_t n_pieces, capacity;
    uint64_t *heap; /* owned [heap_capacity] */
    uint64_t heap_size, heap_capacity;
};

/* What joining pieces left and right would give. Returns false where nothing. */
typedef bool merge_look(const void *arg, const struct merge *m, uint32_t left, uint32_t right,
                        uint32_t *candidate, uint32_t *priority);
/* The token that a candidate makes. */
typedef uint32_t merge_join(const void *arg, uint32_t candidate);

void merge_begin(struct merge *m);
/* false: no memory. */
bool merge_add(struct merge *m, uint32_t start, uint32_t id);
/* false: no memory. Afterwards pieces from index 0 along next are the result. */
bool merge_run(struct merge *m, merge_look *look, merge_join *join, const void *arg);
void merge_deinit(struct merge *m);

#endif
