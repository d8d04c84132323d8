/* policy.h - which items stay in a bounded space, by one of six rules behind one interface.
 *
 * Knows items by number and size, a capacity in bytes, and the order of accesses. Does not know
 * what an item is, where its bytes lie or how they are read. The same object decides in the engine
 * (residency's expert cache) and in the simulator (plan).
 *
 * An access finds the item held (a hit), or the bytes that are missing must be fetched. Then the
 * item is kept, others being evicted to make room, or it passes by: it is used once from a transfer
 * buffer that is not part of the capacity, and nothing is evicted for it. Passing by is what
 * policies do that see no gain in keeping (fixed, lfu, min), and all do with an item for which the
 * unpinned space is too small.
 *
 * Invariants, checked by policy_check():
 *   held_bytes == sum of bytes held of each item <= capacity_bytes
 *   pinned_bytes == sum of bytes held of items with pins > 0
 *   an item with pins > 0 is held and is never a victim
 *   the policy's own order holds each held item exactly once
 *
 * Cost: O(1) an access for fixed, lru, clock and sieve (clock and sieve amortised; pinned items in
 * the way are stepped over), O(log n) for lfu and min (lfu: O(n) where it changes its half-life).
 * Nothing is allocated after policy_open.
 *
 * Threads: one at a time. */
#ifndef RESIDENCY_POLICY_H
#define RESIDENCY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

enum policy_kind {
    POLICY_FIXED, /* the first that fit stay for ever */
    POLICY_LRU,
    POLICY_CLOCK,
    POLICY_SIEVE,
    POLICY_LFU, /* frequency with aging at a learned rate (LRFU) and an admission test */
    POLICY_MIN, /* Belady's offline optimum: needs the next use of each access */
    POLICY_KIND_COUNT
};

/* "fixed", "lru", "clock", "sieve", "lfu", "min". */
const char *policy_kind_name(enum policy_kind kind);
/* False where the name is none of them. */
bool policy_kind_from_name(const char *name, enum policy_kind *kind);

enum { POLICY_MAX_ITEMS = 1 << 24 };
#define POLICY_NEVER UINT64_MAX /* next_use: not used again, or not known */

struct policy_params {
    enum policy_kind kind;
    uint32_t n_items;
    const uint64_t *item_bytes; /* [n_items] copied; each > 0 */
    uint64_t capacity_bytes;
    /* fixed and min may keep a part of an item, so that they use the capacity to the last byte: the
     * bound for any policy on the same accesses. Without it they keep whole items. */
    bool parts;
    /* Told of each item that is evicted, before policy_access returns; may be NULL. Must not call
     * back into the policy. */
    void (*evict)(void *user, uint32_t item);
    void *user;
};

struct policy;

/* Errors: ARGUMENT (no item, too many, an item of 0 bytes, sums that overflow), MEMORY. */
int policy_open(const struct policy_params *params, struct policy **out, struct ot_error *err);
void policy_close(struct policy *p);

/* Uses an item, which is < n_items. next_use: number of the access that uses it next, in any unit
 * that grows; POLICY_NEVER if none or not known (all kinds but min ignore it). Returns the bytes
 * that were missing: 0 is a hit. Afterwards policy_holds says whether it was kept. */
uint64_t policy_access(struct policy *p, uint32_t item, uint64_t next_use);
/* Of a whole trace, uses [n_uses] of items below n_items: the use after each of the same item, UINT32_MAX:
 * none. next_use [n_uses]. Errors: MEMORY. */
int policy_next_uses(const uint32_t *uses, uint32_t n_uses, uint32_t n_items, uint32_t *next_use,
                     struct ot_error *err);

/* True where the item is held whole. */
bool policy_holds(const struct policy *p, uint32_t item);
/* Keeps a held item from being evicted until as many unpins; returns false where it is not held. */
bool policy_pin(struct policy *p, uint32_t item);
void policy_unpin(struct policy *p, uint32_t item);
/* Changes the space; what is held must fit the new one. */
void policy_resize(struct policy *p, uint64_t capacity_bytes);
/* Forgets an item whose bytes could not be fetched, or are given up; its pins end. The callback is
 * not called. */
void policy_remove(struct policy *p, uint32_t item);

uint64_t policy_held_bytes(const struct policy *p);

/* True where the invariants hold; for tests. Takes O(n). */
bool policy_check(const struct policy *p);

#endif
