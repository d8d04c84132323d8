/* kv.h - keys and values of the tokens seen, f16, for every sequence of a context.
 *
 * Layout [layer][seq][kv_head][n_ctx][head_dim], K and V apart: one kv head's keys are one stream.
 * Memory is reserved when opened and becomes resident as positions are written.
 *
 * Threads: writes of different tokens may run at the same time. */
#ifndef KV_KV_H
#define KV_KV_H

#include <stdint.h>

#include "ledger/ledger.h"
#include "onetrip.h"

struct kv {
    uint32_t n_layers, n_seq, n_kv_heads, head_dim;
    uint32_t n_ctx;        /* positions a sequence may hold */
    uint32_t n_ctx_stride; /* n_ctx rounded up to whole key blocks */
    uint64_t bytes;        /* of k and of v, each */
    uint16_t *k, *v;       /* owned */
    struct ledger *ledger; /* borrowed */
    uint32_t ledger_id;
};

/* Bytes kv_open would reserve (k and v together). */
uint64_t kv_need_bytes(uint32_t n_layers, uint32_t n_seq, uint32_t n_kv_heads, uint32_t head_dim,
                       uint32_t n_ctx);
/* Adds the ledger's extent "kv". Errors: MEMORY. */
int kv_open(struct kv *kv, uint32_t n_layers, uint32_t n_seq, uint32_t n_kv_heads,
            uint32_t head_dim, uint32_t n_ctx, struct ledger *ledger, struct ot_error *err);
void kv_close(struct kv *kv);

/* First position of a head's keys / values: [n_ctx, head_dim]. */
uint16_t *kv_keys(const struct kv *kv, uint32_t layer, uint32_t seq, uint32_t head);
uint16_t *kv_values(const struct kv *kv, uint32_t layer, uint32_t seq, uint32_t head);

/* Copies the first n positions of one sequence to another; posted as ram>ram copy of kv. */
void kv_copy(struct kv *kv, uint32_t dst, uint32_t src, uint32_t n);

#endif
