/* kv.h - keys and values of the tokens seen, f16, for every sequence of a context.
 *
 * A block has KERNEL_KEY_BLOCK positions of all layers and heads; a sequence is a table of blocks.
 * What sequences have in common (kv_share) exists once, and is not written to: who appends to a
 * block that others hold gets one of its own, with a copy of the positions that it had there.
 *
 * Layout [layer][kv_head][block][position in block][head_dim], K and V apart. A sequence takes the
 * blocks of its own place as long as they are free, so that one kv head's keys are mostly one
 * stream. Memory is reserved when opened and becomes resident as positions are written.
 *
 * Threads: writes of different positions may run at the same time; tables are the engine's. */
#ifndef KV_KV_H
#define KV_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "ledger/ledger.h"
#include "onetrip.h"

struct kv_params {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t n_seq, n_ctx; /* sequences, and positions that each may have */
    uint32_t n_kv;         /* positions there are for all of them; 0: n_seq times n_ctx */
};

/* Positions of a block that kv_count has counted since the last kv_count_begin: [low, high). (In
 * kv_has_room, high is how many sequences would append to it.) */
struct kv_counted {
    uint64_t round;
    uint32_t low, high;
};

struct kv {
    struct kv_params params;
    uint32_t n_blocks;          /* that there are */
    uint32_t n_row;             /* blocks that a sequence may hold */
    uint64_t bytes;             /* of k and of v, each */
    uint16_t *k, *v;            /* owned */
    uint32_t *table;            /* owned [n_seq, n_row]: ids of blocks */
    uint32_t *held;             /* owned [n_seq]: blocks in a sequence's table */
    uint32_t *holders;          /* owned [n_blocks]: sequences that hold a block; 0: free */
    struct kv_counted *counted; /* owned [n_blocks] */
    uint32_t n_free;
    uint64_t round;        /* of counting */
    struct ledger *ledger; /* borrowed */
    uint32_t ledger_id;
};

/* Bytes kv_open would reserve (k, v and tables together); UINT64_MAX: more than can be addressed.
 */
uint64_t kv_need_bytes(const struct kv_params *params);
/* Sequences that are all empty. Adds the ledger's extent "kv". Errors: ARGUMENT, MEMORY. */
int kv_open(struct kv *kv, const struct kv_params *params, struct ledger *ledger,
            struct ot_error *err);
void kv_close(struct kv *kv);

/* Whether there are blocks for added[s] positions more of each sequence s, which has lengths[s]:
 * [n_seq] both. */
bool kv_has_room(struct kv *kv, const uint32_t *lengths, const uint32_t *added);
/* Makes positions [length, length + n) of a sequence of `length` positions ones that may be
 * written, where kv_has_room. What is copied for it is posted as ram>ram copy of kv. */
void kv_append(struct kv *kv, uint32_t seq, uint32_t length, uint32_t n);
/* Gives up the blocks behind the first n positions. */
void kv_truncate(struct kv *kv, uint32_t seq, uint32_t n);
/* dst becomes the first n positions that src holds; nothing is copied. */
void kv_share(struct kv *kv, uint32_t dst, uint32_t src, uint32_t n);

/* A head's blocks of keys / values, in which kernel_key_offset finds a position by kv_blocks. */
uint16_t *kv_keys(const struct kv *kv, uint32_t layer, uint32_t head);
uint16_t *kv_values(const struct kv *kv, uint32_t layer, uint32_t head);
/* [n_row] ids of a sequence's blocks. */
const uint32_t *kv_blocks(const struct kv *kv, uint32_t seq);
/* Where a position's dimensions begin in kv_keys and kv_values. */
uint64_t kv_offset(const struct kv *kv, uint32_t seq, uint32_t position);

/* Counting positions that are read, each once, whichever sequences have it: between two
 * kv_count_begin, kv_count tells how many of a sequence's [first, end), which is not empty, have
 * not been counted yet. Ranges of a block that are not whole must touch. */
void kv_count_begin(struct kv *kv);
uint64_t kv_count(struct kv *kv, uint32_t seq, uint64_t first, uint64_t end);

#endif
