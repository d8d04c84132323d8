/* bound.h - Belady's MIN on the trace of the experts' parts that a run used.
 *
 * Threads: the engine thread only. */
#ifndef RESIDENCY_BOUND_H
#define RESIDENCY_BOUND_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

enum { BOUND_USES_MOST = 1 << 20 };

struct bound {
    uint32_t *uses; /* owned [n_most] items, in the order of their use */
    uint32_t n_uses, n_most;
    bool outgrown;
};

/* Errors: MEMORY. */
int bound_open(struct bound *b, uint32_t n_most, struct ot_error *err);
void bound_close(struct bound *b);
/* An item was used: once a sweep each, in order. */
void bound_use(struct bound *b, uint32_t item);
/* The least bytes of each item that had to come again after its first time, with capacity_bytes for
 * all items together: reload_bytes [n_items], out. False where that is not known: the trace has
 * outgrown its memory, or there is none to compute it in. */
bool bound_reloads(const struct bound *b, const uint64_t *item_bytes, uint32_t n_items,
                   uint64_t capacity_bytes, uint64_t *reload_bytes);

#endif
