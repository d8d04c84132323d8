/* policy_sieve.c - SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: NSDI 2024).
 *
 * A queue in order of entry, one bit an item, and a hand. A hit sets the bit and moves nothing. The
 * hand walks from the oldest towards the youngest, clearing bits; the first item without its bit is
 * evicted, and the hand rests there. Unlike CLOCK, survivors keep their place: new items are sifted
 * quickly while old popular ones stay.
 *
 * On a cyclic scan bigger than the capacity: 0 % hits.
 *
 * State: one list over the held items (head: youngest), the bits, the hand. Pinned items are
 * stepped over with their bit kept. Cost: O(1) amortised, at most two rounds. */
#include "residency/policy_impl.h"

static void hit(struct policy *p, uint32_t item) {
    p->visited[item] = 1;
}

static void insert(struct policy *p, uint32_t item) {
    p->visited[item] = 0;
    policy_list_push_head(&p->list, item);
}

static uint32_t victim(struct policy *p, uint32_t item, bool must) {
    (void)item;
    (void)must;
    uint32_t v = p->hand;
    for (uint64_t steps = 2u * (uint64_t)p->list.n + 1; steps > 0; steps--) {
        if (v == POLICY_NONE) {
            v = p->list.tail;
        }
        if (p->pins[v] == 0) {
            if (p->visited[v] == 0) {
                p->hand = v;
                return v;
            }
            p->visited[v] = 0;
        }
        v = p->list.prev[v];
    }
    return POLICY_NONE;
}

static void remove_item(struct policy *p, uint32_t item) {
    if (p->hand == item) {
        p->hand = p->list.prev[item];
    }
    policy_list_remove(&p->list, item);
}

const struct policy_ops policy_ops_sieve = {.list = true,
                                            .visited = true,
                                            .hit = hit,
                                            .insert = insert,
                                            .victim = victim,
                                            .remove = remove_item};
