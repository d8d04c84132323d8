/* policy_lfu.c - frequency with aging: LRFU (Lee, Choi, Kim, Noh, Min, Cho, Kim: IEEE ToC 2001).
 *
 * An item's score is the sum over its past uses of 2^(-age / half_life), age in accesses, half_life
 * eight accesses for each item there is. The victim is the lowest score. Scores are kept for items
 * that are not held, too, so an expert that comes back is known. A new item enters only where its
 * score beats the victim's by a fifth (2^MARGIN): near-equal items do not take turns, so a scan of
 * equally used items leaves a fixed set in place.
 *
 * On a cyclic scan it hits nearly its share (as fixed); on skewed accesses it approaches the set of
 * the most used.
 *
 * State: a heap over the held, unpinned items. The key is log2 of the score scaled to time 0, which
 * does not change while an item is not used: key' = t + log2(1 + 2^(key - t)), t = accesses /
 * half_life. Keys are fixed point, 32 bits of fraction. Cost: O(log n). */
#include <math.h>

#include "residency/policy_impl.h"

static const double one = 4294967296.0;  /* 1.0 in a key */
static const uint64_t margin = 1u << 30; /* MARGIN = 1/4 */

static const double longest = 4294967040.0; /* a key fits 64 bits */

/* Time starts at 1, so that key 0 is an item never used. */
static void seen(struct policy *p, uint32_t item, uint64_t next_use) {
    (void)next_use;
    double t = 1.0 + (double)p->n_accesses / (8.0 * (double)p->n_items);
    double past = p->heap.key[item] != 0 ? exp2((double)p->heap.key[item] / one - t) : 0.0;
    double key = fmin(t + log2(1.0 + past), longest);
    policy_heap_set_key(&p->heap, item, (uint64_t)(key * one));
}

static void insert(struct policy *p, uint32_t item) {
    policy_heap_push(&p->heap, item);
}

static uint32_t victim(struct policy *p, uint32_t item, bool must) {
    if (p->heap.n == 0) {
        return POLICY_NONE;
    }
    uint32_t lowest = p->heap.items[0];
    return must || p->heap.key[item] > p->heap.key[lowest] + margin ? lowest : POLICY_NONE;
}

static void remove_item(struct policy *p, uint32_t item) {
    policy_heap_remove(&p->heap, item);
}

const struct policy_ops policy_ops_lfu = {.heap = true,
                                          .seen = seen,
                                          .insert = insert,
                                          .victim = victim,
                                          .remove = remove_item,
                                          .pin = remove_item,
                                          .unpin = insert};
