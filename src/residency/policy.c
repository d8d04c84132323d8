/* policy.c - what all policies have in common: sizes, what is held, pins, and making room.
 *
 * Invariants: see policy.h. A kind's order holds the held items; lfu and min leave pinned ones out
 * of theirs. */
#include "residency/policy.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/policy_impl.h"

static const struct {
    const char *name;
    const struct policy_ops *ops;
} kinds[POLICY_KIND_COUNT] = {
    [POLICY_FIXED] = {"fixed", &policy_ops_fixed}, [POLICY_LRU] = {"lru", &policy_ops_lru},
    [POLICY_CLOCK] = {"clock", &policy_ops_clock}, [POLICY_SIEVE] = {"sieve", &policy_ops_sieve},
    [POLICY_LFU] = {"lfu", &policy_ops_lfu},       [POLICY_MIN] = {"min", &policy_ops_min},
};

const char *policy_kind_name(enum policy_kind kind) {
    assert(kind < POLICY_KIND_COUNT);
    return kinds[kind].name;
}

bool policy_kind_from_name(const char *name, enum policy_kind *kind) {
    for (uint32_t i = 0; i < POLICY_KIND_COUNT; i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            *kind = (enum policy_kind)i;
            return true;
        }
    }
    return false;
}

static int check_params(const struct policy_params *params, struct ot_error *err) {
    if (params->kind >= POLICY_KIND_COUNT) {
        return error_set(err, OT_ERR_ARGUMENT, "policy", "kind %d is none", (int)params->kind);
    }
    if (params->n_items == 0 || params->n_items > POLICY_MAX_ITEMS) {
        return error_set(err, OT_ERR_ARGUMENT, "policy", "%u items; 1 to %u are possible",
                         params->n_items, (unsigned)POLICY_MAX_ITEMS);
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < params->n_items; i++) {
        if (params->item_bytes[i] == 0 || !checked_add(sum, params->item_bytes[i], &sum)) {
            return error_set(err, OT_ERR_ARGUMENT, "policy", "item %u has impossible size %llu", i,
                             (unsigned long long)params->item_bytes[i]);
        }
    }
    return 0;
}

static bool take_arrays(struct policy *p) {
    uint32_t n = p->n_items;
    p->item_bytes = mem_calloc(n, sizeof *p->item_bytes);
    p->held = mem_calloc(n, sizeof *p->held);
    p->pins = mem_calloc(n, sizeof *p->pins);
    bool taken = p->item_bytes != NULL && p->held != NULL && p->pins != NULL;
    if (taken && p->ops->list) {
        taken = policy_list_open(&p->list, n);
    }
    if (taken && p->ops->visited) {
        p->visited = mem_calloc(n, sizeof *p->visited);
        taken = p->visited != NULL;
    }
    if (taken && p->ops->heap) {
        taken = policy_heap_open(&p->heap, n);
    }
    return taken;
}

int policy_open(const struct policy_params *params, struct policy **out, struct ot_error *err) {
    int rc = check_params(params, err);
    if (rc != 0) {
        return rc;
    }
    struct policy *p = mem_calloc(1, sizeof *p);
    if (p == NULL) {
        return error_memory(err, sizeof *p);
    }
    p->ops = kinds[params->kind].ops;
    p->kind = params->kind;
    p->n_items = params->n_items;
    p->capacity_bytes = params->capacity_bytes;
    p->parts = params->parts && (p->kind == POLICY_FIXED || p->kind == POLICY_MIN);
    p->evict = params->evict;
    p->user = params->user;
    p->hand = POLICY_NONE;
    bool taken = take_arrays(p);
    if (taken) {
        memcpy(p->item_bytes, params->item_bytes, p->n_items * sizeof *p->item_bytes);
        taken = p->ops->open == NULL || p->ops->open(p);
    }
    if (!taken) {
        policy_close(p);
        return error_memory(err, (uint64_t)params->n_items * 48u);
    }
    *out = p;
    return 0;
}

void policy_close(struct policy *p) {
    if (p == NULL) {
        return;
    }
    if (p->ops->close != NULL) {
        p->ops->close(p);
    }
    policy_list_close(&p->list);
    policy_heap_close(&p->heap);
    mem_free(p->visited);
    mem_free(p->pins);
    mem_free(p->held);
    mem_free(p->item_bytes);
    mem_free(p);
}

/* Takes bytes from a victim; the whole of it unless parts may be kept. */
static void take_from(struct policy *p, uint32_t victim, uint64_t bytes) {
    assert(p->pins[victim] == 0 && p->held[victim] > 0);
    uint64_t taken = p->parts ? min_u64(bytes, p->held[victim]) : p->held[victim];
    p->held[victim] -= taken;
    p->held_bytes -= taken;
    if (p->held[victim] == 0) {
        p->ops->remove(p, victim);
        if (p->evict != NULL) {
            p->evict(p->user, victim);
        }
    }
}

static void grow(struct policy *p, uint32_t item, uint64_t bytes) {
    bool entered = p->held[item] == 0;
    p->held[item] += bytes;
    p->held_bytes += bytes;
    if (entered && p->ops->insert != NULL) {
        p->ops->insert(p, item);
    }
}

uint64_t policy_access(struct policy *p, uint32_t item, uint64_t next_use) {
    assert(item < p->n_items);
    p->n_accesses++;
    if (p->ops->seen != NULL) {
        p->ops->seen(p, item, next_use);
    }
    if (p->held[item] > 0 && p->ops->hit != NULL) {
        p->ops->hit(p, item);
    }
    const uint64_t missing = p->item_bytes[item] - p->held[item];
    if (missing == 0 || (!p->parts && missing > p->capacity_bytes - p->pinned_bytes)) {
        return missing;
    }
    uint64_t free_bytes = p->capacity_bytes - p->held_bytes;
    for (bool must = false; free_bytes < missing; must = !p->parts) {
        uint32_t victim = p->ops->victim(p, item, must);
        if (victim == POLICY_NONE) {
            break;
        }
        take_from(p, victim, missing - free_bytes);
        free_bytes = p->capacity_bytes - p->held_bytes;
    }
    if (free_bytes >= missing) {
        grow(p, item, missing);
    } else if (p->parts && free_bytes > 0) {
        grow(p, item, free_bytes);
    }
    return missing;
}

bool policy_holds(const struct policy *p, uint32_t item) {
    return p->held[item] == p->item_bytes[item];
}

bool policy_pin(struct policy *p, uint32_t item) {
    if (!policy_holds(p, item)) {
        return false;
    }
    if (p->pins[item]++ == 0) {
        p->pinned_bytes += p->held[item];
        if (p->ops->pin != NULL) {
            p->ops->pin(p, item);
        }
    }
    return true;
}

void policy_unpin(struct policy *p, uint32_t item) {
    assert(p->pins[item] > 0);
    if (--p->pins[item] == 0) {
        p->pinned_bytes -= p->held[item];
        if (p->ops->unpin != NULL) {
            p->ops->unpin(p, item);
        }
    }
}

void policy_remove(struct policy *p, uint32_t item) {
    if (p->held[item] == 0) {
        return;
    }
    if (p->pins[item] > 0) {
        p->pins[item] = 1;
        policy_unpin(p, item);
    }
    p->held_bytes -= p->held[item];
    p->held[item] = 0;
    p->ops->remove(p, item);
}

void policy_resize(struct policy *p, uint64_t capacity_bytes) {
    assert(p->held_bytes <= capacity_bytes);
    p->capacity_bytes = capacity_bytes;
}

uint64_t policy_held_bytes(const struct policy *p) {
    return p->held_bytes;
}

bool policy_check(const struct policy *p) {
    uint64_t held = 0, pinned = 0;
    uint32_t n_held = 0, n_pinned = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->held[i] > p->item_bytes[i] || (p->pins[i] > 0 && !policy_holds(p, i)) ||
            (!p->parts && p->held[i] != 0 && !policy_holds(p, i))) {
            return false;
        }
        if (p->ops->heap && policy_heap_has(&p->heap, i) != (p->held[i] > 0 && p->pins[i] == 0)) {
            return false;
        }
        held += p->held[i];
        pinned += p->pins[i] > 0 ? p->held[i] : 0;
        n_held += p->held[i] > 0;
        n_pinned += p->pins[i] > 0;
    }
    if (held != p->held_bytes || pinned != p->pinned_bytes || held > p->capacity_bytes) {
        return false;
    }
    if (p->ops->list && (p->list.n != n_held || !policy_list_check(&p->list, p->n_items))) {
        return false;
    }
    return !p->ops->heap ||
           (p->heap.n == n_held - n_pinned && policy_heap_check(&p->heap, p->n_items));
}

int policy_next_uses(const uint32_t *uses, uint32_t n_uses, uint32_t n_items, uint32_t *next_use,
                     struct ot_error *err) {
    uint32_t *seen_at = mem_calloc(n_items, sizeof *seen_at);
    if (seen_at == NULL) {
        return error_memory(err, n_items * sizeof *seen_at);
    }
    memset(seen_at, 0xff, n_items * sizeof *seen_at);
    for (uint32_t i = n_uses; i-- > 0;) {
        next_use[i] = seen_at[uses[i]];
        seen_at[uses[i]] = i;
    }
    mem_free(seen_at);
    return 0;
}
