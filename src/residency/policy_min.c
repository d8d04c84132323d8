/* policy_min.c - MIN, the offline optimum (Belady, IBM Systems Journal 1966), with bypass.
 *
 * Needs the next use of every access, so it bounds others and decides nothing online. The victim is
 * the held item whose next use is farthest; if that is sooner than the new item's own, the new item
 * passes by.
 *
 * With parts it works byte by byte: the farthest item loses only as many bytes as are needed. Then
 * the bytes fetched are the least that any policy can fetch, also where sizes differ (with whole
 * items of different sizes that problem is NP-hard). On a cyclic scan: W - B a sweep.
 *
 * State: a heap over the held, unpinned items, farthest next use on top. Cost: O(log n). */
#include "residency/policy_impl.h"

static void seen(struct policy *p, uint32_t item, uint64_t next_use) {
    policy_heap_set_key(&p->heap, item, UINT64_MAX - next_use);
}

static void insert(struct policy *p, uint32_t item) {
    policy_heap_push(&p->heap, item);
}

static uint32_t victim(struct policy *p, uint32_t item, bool must) {
    if (p->heap.n == 0) {
        return POLICY_NONE;
    }
    uint32_t farthest = p->heap.items[0];
    return must || p->heap.key[farthest] < p->heap.key[item] ? farthest : POLICY_NONE;
}

static void remove_item(struct policy *p, uint32_t item) {
    policy_heap_remove(&p->heap, item);
}

const struct policy_ops policy_ops_min = {.heap = true,
                                          .seen = seen,
                                          .insert = insert,
                                          .victim = victim,
                                          .remove = remove_item,
                                          .pin = remove_item,
                                          .unpin = insert};
