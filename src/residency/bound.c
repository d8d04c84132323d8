/* bound.c - the least that any policy would have read of experts' parts: Belady's MIN on the trace
 * of their uses, at the same budget.
 *
 * The uses are kept in memory, 4 bytes each, as far as BOUND_USES_MOST and a 256th of the room for
 * parts allow. The bound is computed when somebody asks (it needs the future of every use), with
 * the policy object that the simulator runs; as much memory again is taken for that.
 *
 * Invariant: n_uses <= n_most; outgrown: a use found no place, and there is no bound any more.
 *
 * Threads: the engine thread only. */
#include "residency/bound.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "residency/policy.h"

int bound_open(struct bound *b, uint32_t n_most, struct ot_error *err) {
    *b = (struct bound){.n_most = n_most};
    b->uses = mem_calloc(n_most, sizeof *b->uses);
    return b->uses != NULL ? 0 : error_memory(err, n_most * sizeof *b->uses);
}

void bound_close(struct bound *b) {
    mem_free(b->uses);
    b->uses = NULL;
}

void bound_use(struct bound *b, uint32_t item) {
    if (b->n_uses == b->n_most) {
        b->outgrown = true;
        return;
    }
    b->uses[b->n_uses++] = item;
}

bool bound_reloads(const struct bound *b, const uint64_t *item_bytes, uint32_t n_items,
                   uint64_t capacity_bytes, uint64_t *reload_bytes) {
    uint32_t *next = mem_calloc(b->n_uses + 1u, sizeof *next);
    uint32_t *n_before = mem_calloc(n_items, sizeof *n_before);
    struct policy_params params = {.kind = POLICY_MIN,
                                   .n_items = n_items,
                                   .item_bytes = item_bytes,
                                   .capacity_bytes = capacity_bytes,
                                   .parts = true};
    struct policy *policy = NULL;
    bool known = !b->outgrown && next != NULL && n_before != NULL &&
                 policy_next_uses(b->uses, b->n_uses, n_items, next, NULL) == 0 &&
                 policy_open(&params, &policy, NULL) == 0;
    if (known) {
        memset(reload_bytes, 0, n_items * sizeof *reload_bytes);
    }
    for (uint32_t i = 0; known && i < b->n_uses; i++) {
        uint32_t item = b->uses[i];
        uint64_t next_use = next[i] == UINT32_MAX ? POLICY_NEVER : next[i];
        uint64_t missing = policy_access(policy, item, next_use);
        reload_bytes[item] += n_before[item]++ > 0 ? missing : 0;
    }
    policy_close(policy);
    mem_free(n_before);
    mem_free(next);
    return known;
}
