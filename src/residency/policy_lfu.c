/* policy_lfu.c - frequency with aging, and with a half-life that is learned: LRFU (Lee, Choi, Kim,
 * Noh, Min, Cho, Kim: IEEE ToC 2001).
 *
 * An item's score is the sum over its past uses of 2^(-age / half_life), age in accesses. The
 * victim is the lowest score. Scores are kept for items that are not held, too, so an expert that
 * comes back is known. A new item enters only where its score beats the victim's by a fifth
 * (2^MARGIN): near-equal items do not take turns, so a scan of equally used items leaves a fixed
 * set in place.
 *
 * The half-life decides between the two things that a past use says. A short one is LRU: a text
 * that stays with the experts it has just used. A long one counts: a scan of all of them, many
 * users at once. Each is read many times as often where the other is right. So four half-lives,
 * from the space's own number of accesses to one that outlasts a scan, are tried beside each other
 * on a sample of the items, in a space of the same share, without any bytes (as SHARDS samples:
 * Waldspurger, Park, Garthwaite, Ahmad: FAST 2015). The one that would have read least of late is
 * used; it must be better by a 32nd to take the place of another.
 *
 * State: a heap over the held, unpinned items. The key is log2 of the score scaled to time START,
 * which does not change while an item is not used: key' = t + log2(1 + 2^(key - t)), t = START +
 * accesses / half_life. Keys are fixed point, 32 bits of fraction. When another half-life is taken
 * keys are moved to where they are as old as before, which keeps their order.
 *
 * Cost: O(log n) for each of the five heaps. */
#include <math.h>

#include "base/alloc.h"
#include "residency/policy_impl.h"

enum {
    N_TRIALS = 4,
    FIRST_TRIAL = 3,     /* in use until something is known */
    SAMPLE_LEAST = 1024, /* items in the sample, about; all where there are less */
    START = 65536,       /* of time: keys of long ago stay positive; key 0 is an item never used */
};

static const double one = 4294967296.0;     /* 1.0 in a key */
static const uint64_t margin = 1u << 30;    /* MARGIN = 1/4 */
static const double longest = 4294967040.0; /* a key fits 64 bits */

/* A space that holds nothing: what would be in it with another half-life. */
struct trial {
    double half_life;
    struct policy_heap heap; /* over the items of the sample that would be held */
    uint64_t held_bytes;
    double missed_bytes; /* of late: halved at the end of each period */
};

struct policy_lfu {
    uint32_t *sample; /* owned [n_items] number within the sample, POLICY_NONE: not in it */
    uint32_t *item;   /* owned [n_sample] */
    uint32_t n_sample;
    struct trial trials[N_TRIALS];
    uint32_t in_use;
    uint64_t sampled_bytes, all_bytes;
    uint64_t since;       /* accesses when the half-life in use was taken: time START */
    uint64_t period, end; /* in accesses: a period's length, and when this one ends */
};

static uint64_t use_key(uint64_t key, double t) {
    double past = key != 0 ? exp2((double)key / one - t) : 0.0;
    return (uint64_t)(fmin(t + log2(1.0 + past), longest) * one);
}

static void use_in_trial(struct trial *t, const struct policy *p, uint32_t s) {
    const struct policy_lfu *l = p->lfu;
    struct policy_heap *h = &t->heap;
    policy_heap_set_key(h, s, use_key(h->key[s], START + (double)p->n_accesses / t->half_life));
    if (policy_heap_has(h, s)) {
        return;
    }
    const uint64_t bytes = p->item_bytes[l->item[s]];
    const uint64_t capacity =
        (uint64_t)((unsigned __int128)p->capacity_bytes * l->sampled_bytes / l->all_bytes);
    t->missed_bytes += (double)bytes;
    if (bytes > capacity) {
        return;
    }
    bool enters = t->held_bytes + bytes <= capacity || h->key[s] > h->key[h->items[0]] + margin;
    while (enters && t->held_bytes + bytes > capacity) {
        uint32_t lowest = h->items[0];
        policy_heap_remove(h, lowest);
        t->held_bytes -= p->item_bytes[l->item[lowest]];
    }
    if (enters) {
        policy_heap_push(h, s);
        t->held_bytes += bytes;
    }
}

static double now(const struct policy *p) {
    const struct policy_lfu *l = p->lfu;
    return START + (double)(p->n_accesses - l->since) / l->trials[l->in_use].half_life;
}

static void take_half_life(struct policy *p, uint32_t trial) {
    struct policy_lfu *l = p->lfu;
    double t = now(p);
    for (uint32_t i = 0; i < p->n_items; i++) {
        uint64_t *key = &p->heap.key[i];
        if (*key != 0) {
            *key = (uint64_t)fmax((double)*key - (t - START) * one, 1.0);
        }
    }
    l->in_use = trial;
    l->since = p->n_accesses;
}

static void end_period(struct policy *p) {
    struct policy_lfu *l = p->lfu;
    uint32_t best = l->in_use;
    for (uint32_t i = 0; i < N_TRIALS; i++) {
        if (l->trials[i].missed_bytes < l->trials[best].missed_bytes) {
            best = i;
        }
    }
    if (l->trials[best].missed_bytes < l->trials[l->in_use].missed_bytes * (31.0 / 32.0)) {
        take_half_life(p, best);
    }
    for (uint32_t i = 0; i < N_TRIALS; i++) {
        l->trials[i].missed_bytes *= 0.5;
    }
    l->end = p->n_accesses + l->period;
}

static void seen(struct policy *p, uint32_t item, uint64_t next_use) {
    (void)next_use;
    struct policy_lfu *l = p->lfu;
    policy_heap_set_key(&p->heap, item, use_key(p->heap.key[item], now(p)));
    if (l->sample[item] == POLICY_NONE) {
        return;
    }
    for (uint32_t i = 0; i < N_TRIALS; i++) {
        use_in_trial(&l->trials[i], p, l->sample[item]);
    }
    if (p->n_accesses >= l->end) {
        end_period(p);
    }
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

/* Whether the item is in a sample of one in 2^shift: by the upper bits of a product (Knuth). */
static bool in_sample(uint32_t item, uint32_t shift) {
    return shift == 0 || item * 2654435761u >> (32 - shift) == 0;
}

static bool take_sample(struct policy *p) {
    struct policy_lfu *l = p->lfu;
    uint32_t shift = 0;
    while (p->n_items >> (shift + 1) >= SAMPLE_LEAST) {
        shift++;
    }
    l->sample = mem_calloc(p->n_items, sizeof *l->sample);
    if (l->sample == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        bool in = in_sample(i, shift);
        l->sample[i] = in ? l->n_sample++ : POLICY_NONE;
        l->sampled_bytes += in ? p->item_bytes[i] : 0;
        l->all_bytes += p->item_bytes[i];
    }
    l->item = mem_calloc(l->n_sample, sizeof *l->item);
    if (l->item == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (l->sample[i] != POLICY_NONE) {
            l->item[l->sample[i]] = i;
        }
    }
    return true;
}

static bool open_lfu(struct policy *p) {
    struct policy_lfu *l = p->lfu = mem_calloc(1, sizeof *l);
    if (l == NULL || !take_sample(p)) {
        return false;
    }
    /* Items that the space holds, about. */
    double n_held = (double)p->capacity_bytes / (double)l->all_bytes * (double)p->n_items;
    n_held = fmin(fmax(n_held, 1.0), (double)p->n_items);
    const double half_lives[N_TRIALS] = {n_held, 5.0 * n_held, 25.0 * n_held,
                                         fmax(100.0 * n_held, 8.0 * (double)p->n_items)};
    for (uint32_t i = 0; i < N_TRIALS; i++) {
        l->trials[i].half_life = half_lives[i];
        if (!policy_heap_open(&l->trials[i].heap, l->n_sample)) {
            return false;
        }
    }
    l->in_use = FIRST_TRIAL;
    l->period = l->end = (uint64_t)(2.0 * n_held) + 1;
    return true;
}

static void close_lfu(struct policy *p) {
    if (p->lfu == NULL) {
        return;
    }
    for (uint32_t i = 0; i < N_TRIALS; i++) {
        policy_heap_close(&p->lfu->trials[i].heap);
    }
    mem_free(p->lfu->item);
    mem_free(p->lfu->sample);
    mem_free(p->lfu);
}

const struct policy_ops policy_ops_lfu = {.heap = true,
                                          .open = open_lfu,
                                          .close = close_lfu,
                                          .seen = seen,
                                          .insert = insert,
                                          .victim = victim,
                                          .remove = remove_item,
                                          .pin = remove_item,
                                          .unpin = insert};
