/* policy_lru.c - least recently used.
 *
 * A list from the most to the least recently used item. A hit moves the item to the head; a new one
 * enters at the head; the victim is the tail.
 *
 * On a cyclic scan bigger than the capacity every item is evicted just before it is used again:
 * 0 % hits. On accesses that favour the recent past it does well.
 *
 * State: one list over the held items. Pinned items stay in it and are stepped over.
 * Cost: O(1). */
#include "residency/policy_impl.h"

static void hit(struct policy *p, uint32_t item) {
    policy_list_remove(&p->list, item);
    policy_list_push_head(&p->list, item);
}

static void insert(struct policy *p, uint32_t item) {
    policy_list_push_head(&p->list, item);
}

static uint32_t victim(struct policy *p, uint32_t item, bool must) {
    (void)item;
    (void)must;
    uint32_t v = p->list.tail;
    while (v != POLICY_NONE && p->pins[v] > 0) {
        v = p->list.prev[v];
    }
    return v;
}

static void remove_item(struct policy *p, uint32_t item) {
    policy_list_remove(&p->list, item);
}

const struct policy_ops policy_ops_lru = {
    .list = true, .hit = hit, .insert = insert, .victim = victim, .remove = remove_item};
