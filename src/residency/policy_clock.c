/* policy_clock.c - CLOCK, the second chance (Corbato, 1968).
 *
 * A queue in order of entry and one bit an item. A hit sets the bit and moves nothing. The victim
 * is sought from the oldest on: an item with its bit set loses the bit and goes back to the young
 * end; the first without it is evicted.
 *
 * It approximates LRU with cheaper hits, and shares its fate on a cyclic scan bigger than the
 * capacity: 0 % hits.
 *
 * State: one list over the held items (head: youngest) and the bits. Pinned items keep their bit
 * and go round. Cost: O(1) amortised, at most two rounds. */
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
    for (uint64_t steps = 2u * (uint64_t)p->list.n; steps > 0; steps--) {
        uint32_t v = p->list.tail;
        if (p->pins[v] == 0) {
            if (p->visited[v] == 0) {
                return v;
            }
            p->visited[v] = 0;
        }
        policy_list_remove(&p->list, v);
        policy_list_push_head(&p->list, v);
    }
    return POLICY_NONE;
}

static void remove_item(struct policy *p, uint32_t item) {
    policy_list_remove(&p->list, item);
}

const struct policy_ops policy_ops_clock = {.list = true,
                                            .visited = true,
                                            .hit = hit,
                                            .insert = insert,
                                            .victim = victim,
                                            .remove = remove_item};
