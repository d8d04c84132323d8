/* policy_fixed.c - a fixed set.
 *
 * What is used first is kept while there is room, and stays for ever; everything else passes by.
 * It needs no knowledge of the future and keeps no order.
 *
 * On a cyclic scan of W bytes it hits exactly its share: B of W bytes every sweep, which is the
 * optimum of a dense model over budget. On skewed accesses it is as good as the luck of what
 * came first.
 *
 * State: none beyond which items are held.
 * Cost: O(1). */
#include "residency/policy_impl.h"

static uint32_t nobody(struct policy *p, uint32_t item, bool must) {
    (void)p;
    (void)must;
    (void)item;
    return POLICY_NONE;
}

static void forget(struct policy *p, uint32_t item) {
    (void)p;
    (void)item;
}

const struct policy_ops policy_ops_fixed = {.victim = nobody, .remove = forget};
