/* policy_impl.h - what the files policy_*.c share: the object, the table of a kind's functions, and
 * the two orders that kinds are built from (a list, a heap). Private to them.
 *
 * Threads: one at a time. */
#ifndef RESIDENCY_POLICY_IMPL_H
#define RESIDENCY_POLICY_IMPL_H

#include "residency/policy.h"

#define POLICY_NONE UINT32_MAX

/* A doubly linked list over item numbers. Invariant: next[prev[i]] == i for each but the head. */
struct policy_list {
    uint32_t *prev, *next; /* owned [n_items]; towards head, towards tail */
    uint32_t head, tail;   /* POLICY_NONE: empty */
    uint32_t n;
};

/* A binary heap over item numbers, smallest key on top. Invariants: place[items[i]] == i;
 * key[items[i]] >= key of its parent; place is POLICY_NONE for items that are not in it. */
struct policy_heap {
    uint32_t *items; /* owned [n_items] */
    uint32_t *place; /* owned [n_items] */
    uint64_t *key;   /* owned [n_items]; kept for items outside the heap too */
    uint32_t n;
};

struct policy {
    const struct policy_ops *ops;
    enum policy_kind kind;
    uint32_t n_items;
    uint64_t *item_bytes; /* owned [n_items] */
    uint64_t *held;       /* owned [n_items] bytes held of each */
    uint32_t *pins;       /* owned [n_items] */
    uint64_t capacity_bytes, held_bytes, pinned_bytes;
    uint64_t n_accesses;
    bool parts;
    void (*evict)(void *user, uint32_t item);
    void *user;

    struct policy_list list; /* lru, clock, sieve */
    uint32_t hand;           /* sieve: next to be looked at; POLICY_NONE: start over */
    uint8_t *visited;        /* clock, sieve: owned [n_items] */
    struct policy_heap heap; /* lfu, min */
    struct policy_lfu *lfu;  /* lfu: owned */
};

/* A kind. Functions that are NULL have nothing to do. */
struct policy_ops {
    bool list, visited, heap; /* which of the parts above it uses */
    /* Takes and frees what else it needs; false: no memory. close follows a failed open, too. */
    bool (*open)(struct policy *p);
    void (*close)(struct policy *p);
    /* Called on every access, before the item is looked up. */
    void (*seen)(struct policy *p, uint32_t item, uint64_t next_use);
    /* The item is held (whole or in part) and was used. */
    void (*hit)(struct policy *p, uint32_t item);
    /* The item has become held. */
    void (*insert)(struct policy *p, uint32_t item);
    /* Who goes for item; POLICY_NONE: nobody, let item pass by. Never a pinned one. must: something
     * went for this item already, so that it may not pass by any more. */
    uint32_t (*victim)(struct policy *p, uint32_t item, bool must);
    /* The item is no longer held. */
    void (*remove)(struct policy *p, uint32_t item);
    void (*pin)(struct policy *p, uint32_t item);
    void (*unpin)(struct policy *p, uint32_t item);
};

extern const struct policy_ops policy_ops_fixed, policy_ops_lru, policy_ops_clock, policy_ops_sieve,
    policy_ops_lfu, policy_ops_min;

bool policy_list_open(struct policy_list *l, uint32_t n_items);
void policy_list_close(struct policy_list *l);
void policy_list_push_head(struct policy_list *l, uint32_t item);
void policy_list_remove(struct policy_list *l, uint32_t item);
bool policy_list_check(const struct policy_list *l, uint32_t n_items);

bool policy_heap_open(struct policy_heap *h, uint32_t n_items);
void policy_heap_close(struct policy_heap *h);
static inline bool policy_heap_has(const struct policy_heap *h, uint32_t item) {
    return h->place[item] != POLICY_NONE;
}
/* Inserts with the key that key[item] holds. */
void policy_heap_push(struct policy_heap *h, uint32_t item);
void policy_heap_remove(struct policy_heap *h, uint32_t item);
/* Changes the key, in the heap or out of it. */
void policy_heap_set_key(struct policy_heap *h, uint32_t item, uint64_t key);
bool policy_heap_check(const struct policy_heap *h, uint32_t n_items);

#endif
