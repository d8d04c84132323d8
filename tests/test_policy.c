/* test_policy.c - six policies: what each keeps, and how many bytes that costs.
 *
 * Golden counts stand in tables; the traces are made here from fixed seeds, in integers only. MIN
 * is held against an exhaustive search, and every policy against MIN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "residency/policy.h"

enum { MOST_ITEMS = 256, MOST_USES = 20000 };

struct trace {
    uint32_t n_items, n_uses;
    uint64_t bytes[MOST_ITEMS];
    uint32_t uses[MOST_USES];
    uint64_t next[MOST_USES];
};

static uint64_t rng_state;

static uint32_t rng(uint32_t below) { /* xorshift64* */
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (uint32_t)((rng_state * 2685821657736338717u) >> 33) % below;
}

static void fill_next(struct trace *t) {
    uint64_t at[MOST_ITEMS];
    for (uint32_t i = 0; i < t->n_items; i++) {
        at[i] = POLICY_NEVER;
    }
    for (uint32_t i = t->n_uses; i-- > 0;) {
        t->next[i] = at[t->uses[i]];
        at[t->uses[i]] = i;
    }
}

/* Sweep after sweep over all items in order. */
static void make_cyclic(struct trace *t, uint32_t n_items, uint64_t bytes, uint32_t n_sweeps) {
    t->n_items = n_items;
    t->n_uses = n_items * n_sweeps;
    for (uint32_t i = 0; i < n_items; i++) {
        t->bytes[i] = bytes;
    }
    for (uint32_t i = 0; i < t->n_uses; i++) {
        t->uses[i] = i % n_items;
    }
    fill_next(t);
}

/* Item k is used in proportion to 1 / (k + 1); its number is scrambled so that order tells nothing.
 */
static void make_zipf(struct trace *t, uint32_t n_items, uint32_t n_uses, uint64_t seed) {
    rng_state = seed;
    uint32_t sums[MOST_ITEMS + 1] = {0};
    for (uint32_t k = 0; k < n_items; k++) {
        t->bytes[k] = 1;
        sums[k + 1] = sums[k] + 1000000 / (k + 1);
    }
    t->n_items = n_items;
    t->n_uses = n_uses;
    for (uint32_t i = 0; i < n_uses; i++) {
        uint32_t at = rng(sums[n_items]);
        uint32_t k = 0;
        while (sums[k + 1] <= at) {
            k++;
        }
        t->uses[i] = k * 37 % n_items;
    }
    fill_next(t);
}

static void make_random(struct trace *t, uint32_t n_items, uint32_t n_uses, uint32_t most_bytes) {
    t->n_items = n_items;
    t->n_uses = n_uses;
    for (uint32_t i = 0; i < n_items; i++) {
        t->bytes[i] = 1 + rng(most_bytes);
    }
    for (uint32_t i = 0; i < n_uses; i++) {
        t->uses[i] = rng(n_items);
    }
    fill_next(t);
}

static struct policy *open_policy(const struct trace *t, enum policy_kind kind, uint64_t capacity,
                                  bool parts) {
    struct policy_params params = {.kind = kind,
                                   .n_items = t->n_items,
                                   .item_bytes = t->bytes,
                                   .capacity_bytes = capacity,
                                   .parts = parts};
    struct policy *p = NULL;
    assert_int_equal(policy_open(&params, &p, NULL), 0);
    return p;
}

struct outcome {
    uint64_t misses, bytes;
};

static struct outcome replay(const struct trace *t, enum policy_kind kind, uint64_t capacity,
                             bool parts) {
    struct policy *p = open_policy(t, kind, capacity, parts);
    struct outcome o = {0};
    for (uint32_t i = 0; i < t->n_uses; i++) {
        uint64_t missing = policy_access(p, t->uses[i], t->next[i]);
        o.misses += missing != 0;
        o.bytes += missing;
    }
    assert_true(policy_check(p));
    policy_close(p);
    return o;
}

/* ---- golden counts ------------------------------------------------------------------------ */

static void test_a_cyclic_scan_bigger_than_the_space_gives_the_golden_misses(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 100, 10, 5);
    static const uint64_t golden[POLICY_KIND_COUNT] = {
        [POLICY_FIXED] = 100 + 4 * 40, /* the fixed set hits exactly its share */
        [POLICY_LRU] = 500,            /* each item is evicted just before it is used */
        [POLICY_CLOCK] = 500,
        [POLICY_SIEVE] = 500,
        [POLICY_LFU] = 100 + 4 * 40,
        [POLICY_MIN] = 100 + 4 * 40, /* W - B a sweep */
    };
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        struct outcome o = replay(&t, k, 600, false);
        assert_int_equal(o.misses, golden[k]);
        assert_int_equal(o.bytes, golden[k] * 10);
    }
}

static void test_a_cyclic_scan_that_fits_is_read_once_by_all(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 100, 10, 5);
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        assert_int_equal(replay(&t, k, 1000, false).misses, 100);
    }
}

static void test_kept_parts_make_fixed_and_min_read_exactly_the_rest_of_each_sweep(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 90, 0, 6);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t.n_items; i++) {
        t.bytes[i] = 1 + i * 7919 % 1000;
        sum += t.bytes[i];
    }
    for (uint64_t capacity = 0; capacity <= sum; capacity += sum / 13 + 1) {
        assert_int_equal(replay(&t, POLICY_FIXED, capacity, true).bytes,
                         sum + 5 * (sum - capacity));
        assert_int_equal(replay(&t, POLICY_MIN, capacity, true).bytes, sum + 5 * (sum - capacity));
    }
}

static void test_skewed_uses_give_the_golden_misses(void **state) {
    (void)state;
    static struct trace t;
    make_zipf(&t, 200, 20000, 7);
    static const struct {
        uint64_t capacity;
        uint64_t misses[POLICY_KIND_COUNT];
    } golden[] = {
        {10, {14178, 13595, 13210, 11152, 10143, 8761}},
        {50, {7388, 6688, 6481, 5331, 4891, 3453}},
        {150, {1344, 1473, 1466, 1311, 1242, 594}},
    };
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
            assert_int_equal(replay(&t, k, golden[g].capacity, false).misses, golden[g].misses[k]);
        }
    }
}

static void test_frequency_beats_recency_on_skewed_uses(void **state) {
    (void)state;
    static struct trace t;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        make_zipf(&t, 200, 20000, seed);
        for (uint64_t capacity = 5; capacity < 150; capacity += 29) {
            assert_true(replay(&t, POLICY_LFU, capacity, false).misses <
                        replay(&t, POLICY_LRU, capacity, false).misses);
        }
    }
}

/* Half-way the popular items become unpopular and others popular. */
static void test_lfu_forgets_what_was_popular_long_ago(void **state) {
    (void)state;
    static struct trace t;
    make_zipf(&t, 100, 20000, 3);
    for (uint32_t i = t.n_uses / 2; i < t.n_uses; i++) {
        t.uses[i] = (t.uses[i] + 50) % 100;
    }
    fill_next(&t);
    uint64_t lfu = replay(&t, POLICY_LFU, 20, false).misses;
    make_zipf(&t, 100, 20000, 3);
    uint64_t lfu_unchanged = replay(&t, POLICY_LFU, 20, false).misses;
    assert_true(lfu < lfu_unchanged + 1500); /* time to notice, and to turn over */
}

/* Uses that wander: most are of the 20 items around a place that moves on. */
static uint32_t wander(uint32_t i, uint32_t n_items) {
    return rng(8) == 0 ? rng(n_items) : (i / 40 + rng(20)) % n_items;
}

static void test_lfu_learns_how_fast_to_forget(void **state) {
    (void)state;
    static struct trace t;
    enum { ITEMS = 200, SPACE = 60 };
    make_cyclic(&t, ITEMS, 1, MOST_USES / ITEMS);
    uint64_t scan = replay(&t, POLICY_LFU, SPACE, false).misses;
    assert_true(scan * 100 < 102 * replay(&t, POLICY_FIXED, SPACE, false).misses);

    rng_state = 23;
    for (uint32_t i = 0; i < t.n_uses; i++) {
        t.uses[i] = wander(i, ITEMS);
    }
    fill_next(&t);
    uint64_t recent = replay(&t, POLICY_LFU, SPACE, false).misses;
    assert_true(recent * 100 < 105 * replay(&t, POLICY_LRU, SPACE, false).misses);
    assert_true(recent * 2 < replay(&t, POLICY_FIXED, SPACE, false).misses);

    /* First one, then the other, and back. */
    for (uint32_t i = 0; i < t.n_uses; i++) {
        t.uses[i] = i / (MOST_USES / 3) == 1 ? i % ITEMS : wander(i, ITEMS);
    }
    fill_next(&t);
    uint64_t both = replay(&t, POLICY_LFU, SPACE, false).misses;
    assert_true(both * 100 < 85 * replay(&t, POLICY_LRU, SPACE, false).misses);
    assert_true(both * 100 < 50 * replay(&t, POLICY_FIXED, SPACE, false).misses);
}

enum { MANY = 5000, MANY_SPACE = 1500, MANY_USES = 40 * MANY };

/* Misses on so many items that the half-lives are tried on a sample of them. lend: half of the
 * space is lent for a third of the time. */
static uint64_t misses_of_many(enum policy_kind kind, bool scan, bool lend) {
    static uint64_t bytes[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        bytes[i] = 1000;
    }
    struct policy_params params = {
        .kind = kind, .n_items = MANY, .item_bytes = bytes, .capacity_bytes = MANY_SPACE * 1000};
    struct policy *p = NULL;
    assert_int_equal(policy_open(&params, &p, NULL), 0);
    uint64_t misses = 0;
    rng_state = 29;
    for (uint32_t i = 0; i < MANY_USES; i++) {
        if (lend && i == MANY_USES / 3) {
            for (uint32_t k = 0; k < MANY && policy_held_bytes(p) > MANY_SPACE * 500; k++) {
                policy_remove(p, k);
            }
            policy_resize(p, MANY_SPACE * 500);
        } else if (lend && i == MANY_USES / 3 * 2) {
            assert_true(policy_check(p));
            policy_resize(p, MANY_SPACE * 1000);
        }
        uint32_t item = scan ? i % MANY : rng(8) == 0 ? rng(MANY) : (i / 40 + rng(500)) % MANY;
        misses += policy_access(p, item, POLICY_NEVER) != 0;
    }
    assert_true(policy_check(p));
    policy_close(p);
    return misses;
}

static void test_lfu_learns_from_a_sample_of_many_items(void **state) {
    (void)state;
    for (uint32_t lend = 0; lend < 2; lend++) {
        uint64_t scan = misses_of_many(POLICY_LFU, true, lend != 0);
        assert_true(scan * 100 < 102 * misses_of_many(POLICY_FIXED, true, lend != 0));
        uint64_t recent = misses_of_many(POLICY_LFU, false, lend != 0);
        assert_true(recent * 100 < 105 * misses_of_many(POLICY_LRU, false, lend != 0));
    }
}

/* ---- against plain models ----------------------------------------------------------------- */

static uint64_t naive_lru_misses(const struct trace *t, uint32_t n_slots) {
    uint32_t slots[MOST_ITEMS];
    uint32_t n = 0;
    uint64_t misses = 0;
    for (uint32_t i = 0; i < t->n_uses; i++) {
        uint32_t at = 0;
        while (at < n && slots[at] != t->uses[i]) {
            at++;
        }
        if (at == n) {
            misses++;
            n += n < n_slots;
            at = n - 1;
        }
        memmove(slots + 1, slots, at * sizeof slots[0]);
        slots[0] = t->uses[i];
    }
    return misses;
}

static void test_lru_equals_a_plain_list(void **state) {
    (void)state;
    static struct trace t;
    rng_state = 11;
    for (uint32_t round = 0; round < 50; round++) {
        make_random(&t, 2 + rng(60), 800, 1);
        for (uint32_t n = 1; n <= t.n_items; n += 1 + t.n_items / 7) {
            assert_int_equal(replay(&t, POLICY_LRU, n, false).misses, naive_lru_misses(&t, n));
        }
    }
}

enum { SEARCH_ITEMS = 3, SEARCH_SIDE = 4, SEARCH_STATES = 64 }; /* 0..3 bytes held of each of 3 */

static bool reachable(const uint64_t to[SEARCH_ITEMS], const uint64_t from[SEARCH_ITEMS],
                      uint64_t capacity) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SEARCH_ITEMS; i++) {
        if (to[i] > from[i]) {
            return false;
        }
        sum += to[i];
    }
    return sum <= capacity;
}

static void unpack(uint32_t s, uint64_t held[SEARCH_ITEMS]) {
    for (uint32_t i = 0; i < SEARCH_ITEMS; i++, s /= SEARCH_SIDE) {
        held[i] = s % SEARCH_SIDE;
    }
}

/* Least bytes that any way of keeping bytes can read: all states after all accesses. */
static uint64_t least_bytes(const struct trace *t, uint64_t capacity) {
    uint64_t least[SEARCH_STATES], after[SEARCH_STATES];
    memset(least, 0xff, sizeof least);
    least[0] = 0;
    for (uint32_t i = 0; i < t->n_uses; i++) {
        memset(after, 0xff, sizeof after);
        for (uint32_t s = 0; s < SEARCH_STATES; s++) {
            uint64_t held[SEARCH_ITEMS], next[SEARCH_ITEMS];
            unpack(s, held);
            if (least[s] == UINT64_MAX) {
                continue;
            }
            uint64_t cost = least[s] + t->bytes[t->uses[i]] - held[t->uses[i]];
            held[t->uses[i]] = t->bytes[t->uses[i]];
            for (uint32_t to = 0; to < SEARCH_STATES; to++) {
                unpack(to, next);
                if (reachable(next, held, capacity)) {
                    after[to] = min_u64(after[to], cost);
                }
            }
        }
        memcpy(least, after, sizeof least);
    }
    uint64_t best = UINT64_MAX;
    for (uint32_t s = 0; s < SEARCH_STATES; s++) {
        best = min_u64(best, least[s]);
    }
    return best;
}

static void test_min_reads_as_little_as_an_exhaustive_search_finds(void **state) {
    (void)state;
    static struct trace t;
    rng_state = 5;
    for (uint32_t round = 0; round < 150; round++) {
        uint32_t most_bytes = 1 + round % 3;
        make_random(&t, SEARCH_ITEMS, 14, most_bytes);
        uint64_t capacity = 1 + rng(SEARCH_ITEMS * most_bytes);
        uint64_t least = least_bytes(&t, capacity);
        assert_int_equal(replay(&t, POLICY_MIN, capacity, true).bytes, least);
        if (most_bytes == 1) {
            assert_int_equal(replay(&t, POLICY_MIN, capacity, false).bytes, least);
        }
    }
}

static void test_no_policy_reads_less_than_min(void **state) {
    (void)state;
    static struct trace t;
    rng_state = 17;
    for (uint32_t round = 0; round < 60; round++) {
        make_random(&t, 2 + rng(80), 1500, 1 + rng(50));
        uint64_t capacity = rng(t.n_items * 20) + 1;
        uint64_t least = replay(&t, POLICY_MIN, capacity, true).bytes;
        for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
            assert_true(replay(&t, k, capacity, false).bytes >= least);
            assert_true(replay(&t, k, capacity, true).bytes >= least);
        }
    }
}

/* ---- invariants --------------------------------------------------------------------------- */

struct shadow {
    bool held[MOST_ITEMS];
    bool pinned[MOST_ITEMS];
    uint32_t n_evicted, n_wrong;
};

static void on_evict(void *user, uint32_t item) {
    struct shadow *s = user;
    s->n_wrong += !s->held[item] || s->pinned[item];
    s->held[item] = false;
    s->n_evicted++;
}

/* Accesses, pins, unpins and removals at random; a shadow that knows only what the interface says.
 */
static void torture(enum policy_kind kind, uint64_t seed) {
    static struct trace t;
    rng_state = seed;
    make_random(&t, 40, 1, 30);
    static struct shadow shadow;
    shadow = (struct shadow){0};
    struct policy_params params = {.kind = kind,
                                   .n_items = t.n_items,
                                   .item_bytes = t.bytes,
                                   .capacity_bytes = 200,
                                   .evict = on_evict,
                                   .user = &shadow};
    struct policy *p = NULL;
    assert_int_equal(policy_open(&params, &p, NULL), 0);
    uint32_t n_hits = 0;
    for (uint32_t i = 0; i < 4000; i++) {
        uint32_t item = rng(t.n_items);
        uint32_t what = rng(10);
        if (what == 0 && shadow.held[item]) {
            assert_true(policy_pin(p, item));
            shadow.pinned[item] = true;
        } else if (what == 0) {
            assert_false(policy_pin(p, item));
        } else if (what <= 2) {
            for (uint32_t k = 0; k < t.n_items; k++) {
                for (; shadow.pinned[k]; shadow.pinned[k] = policy_pin(p, k)) {
                    policy_unpin(p, k);
                    if (rng(4) > 0) {
                        shadow.pinned[k] = false;
                        break;
                    }
                }
            }
        } else if (what == 3 && rng(5) == 0) {
            policy_remove(p, item);
            shadow.held[item] = shadow.pinned[item] = false;
        } else {
            uint64_t missing = policy_access(p, item, i + rng(200));
            assert_int_equal(missing, shadow.held[item] ? 0 : t.bytes[item]);
            n_hits += missing == 0;
            shadow.held[item] = policy_holds(p, item);
        }
        assert_int_equal(shadow.n_wrong, 0);
        assert_true(policy_check(p));
        uint64_t held_bytes = 0;
        for (uint32_t k = 0; k < t.n_items; k++) {
            assert_int_equal(policy_holds(p, k), shadow.held[k]);
            held_bytes += shadow.held[k] ? t.bytes[k] : 0;
        }
        assert_int_equal(policy_held_bytes(p), held_bytes);
    }
    assert_true(n_hits > 0);
    assert_true(kind == POLICY_FIXED ? shadow.n_evicted == 0 : shadow.n_evicted > 0);
    policy_close(p);
}

static void test_invariants_hold_under_any_order_of_calls(void **state) {
    (void)state;
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            torture(k, seed);
        }
    }
}

static void test_a_pinned_item_is_never_evicted_and_all_pinned_lets_others_pass_by(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 10, 1, 1);
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        struct policy *p = open_policy(&t, k, 3, false);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(policy_access(p, i, 100 + i), 1);
            assert_true(policy_pin(p, i));
        }
        for (uint32_t i = 3; i < 10; i++) {
            assert_int_equal(policy_access(p, i, 20), 1);
            assert_false(policy_holds(p, i));
        }
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(policy_access(p, i, 100), 0);
        }
        policy_unpin(p, 1);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(policy_access(p, 5, 30),
                             i == 0 || k == POLICY_FIXED || !policy_holds(p, 5));
        }
        assert_true(policy_holds(p, 0) && policy_holds(p, 2));
        assert_true(policy_check(p));
        policy_close(p);
    }
}

static void test_an_item_bigger_than_the_space_passes_by_and_evicts_nothing(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 4, 10, 1);
    t.bytes[3] = 31;
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        struct policy *p = open_policy(&t, k, 30, false);
        for (uint32_t i = 0; i < 3; i++) {
            policy_access(p, i, 50);
        }
        assert_int_equal(policy_access(p, 3, 1), 31);
        assert_int_equal(policy_held_bytes(p), 30);
        policy_close(p);
    }
}

static void test_no_space_at_all_means_every_access_misses(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 5, 8, 3);
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        assert_int_equal(replay(&t, k, 0, false).misses, 15);
        assert_int_equal(replay(&t, k, 0, true).misses, 15);
    }
}

/* ---- opening ------------------------------------------------------------------------------ */

static void test_names_and_kinds_match(void **state) {
    (void)state;
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        enum policy_kind kind = POLICY_KIND_COUNT;
        assert_true(policy_kind_from_name(policy_kind_name(k), &kind));
        assert_int_equal(kind, k);
    }
    enum policy_kind kind = POLICY_SIEVE;
    assert_false(policy_kind_from_name("belady", &kind));
    assert_false(policy_kind_from_name("", &kind));
    assert_int_equal(kind, POLICY_SIEVE);
}

static void test_impossible_items_are_refused(void **state) {
    (void)state;
    uint64_t bytes[2] = {1, 0};
    struct policy_params params = {.kind = POLICY_LRU, .n_items = 2, .item_bytes = bytes};
    struct policy *p = NULL;
    struct ot_error err;
    assert_int_equal(policy_open(&params, &p, &err), OT_ERR_ARGUMENT);
    bytes[1] = UINT64_MAX;
    assert_int_equal(policy_open(&params, &p, &err), OT_ERR_ARGUMENT);
    params.n_items = 0;
    assert_int_equal(policy_open(&params, &p, &err), OT_ERR_ARGUMENT);
    params.n_items = POLICY_MAX_ITEMS + 1;
    assert_int_equal(policy_open(&params, &p, &err), OT_ERR_ARGUMENT);
    params.n_items = 1;
    params.kind = POLICY_KIND_COUNT;
    assert_int_equal(policy_open(&params, &p, &err), OT_ERR_ARGUMENT);
    assert_null(p);
}

static void test_each_refused_allocation_is_an_error_without_a_leak(void **state) {
    (void)state;
    static struct trace t;
    make_cyclic(&t, 5, 8, 1);
    uint64_t live = mem_live_bytes();
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        struct policy_params params = {
            .kind = k, .n_items = 5, .item_bytes = t.bytes, .capacity_bytes = 10};
        struct policy *p = NULL;
        uint64_t n = 0;
        int rc;
        do {
            mem_fail_at(++n);
            rc = policy_open(&params, &p, NULL);
            mem_fail_at(0);
            assert_true(rc == 0 || rc == OT_ERR_MEMORY);
        } while (rc != 0);
        assert_true(n >= 4);
        policy_close(p);
        assert_int_equal(mem_live_bytes(), live);
    }
}

static void test_accesses_do_not_allocate(void **state) {
    (void)state;
    static struct trace t;
    make_zipf(&t, 100, 5000, 9);
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        struct policy *p = open_policy(&t, k, 30, false);
        mem_fail_at(0);
        for (uint32_t i = 0; i < t.n_uses; i++) {
            policy_access(p, t.uses[i], t.next[i]);
        }
        assert_int_equal(mem_fail_count(), 0);
        policy_close(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cyclic_scan_bigger_than_the_space_gives_the_golden_misses),
        cmocka_unit_test(test_a_cyclic_scan_that_fits_is_read_once_by_all),
        cmocka_unit_test(test_kept_parts_make_fixed_and_min_read_exactly_the_rest_of_each_sweep),
        cmocka_unit_test(test_skewed_uses_give_the_golden_misses),
        cmocka_unit_test(test_frequency_beats_recency_on_skewed_uses),
        cmocka_unit_test(test_lfu_forgets_what_was_popular_long_ago),
        cmocka_unit_test(test_lfu_learns_how_fast_to_forget),
        cmocka_unit_test(test_lfu_learns_from_a_sample_of_many_items),
        cmocka_unit_test(test_lru_equals_a_plain_list),
        cmocka_unit_test(test_min_reads_as_little_as_an_exhaustive_search_finds),
        cmocka_unit_test(test_no_policy_reads_less_than_min),
        cmocka_unit_test(test_invariants_hold_under_any_order_of_calls),
        cmocka_unit_test(test_a_pinned_item_is_never_evicted_and_all_pinned_lets_others_pass_by),
        cmocka_unit_test(test_an_item_bigger_than_the_space_passes_by_and_evicts_nothing),
        cmocka_unit_test(test_no_space_at_all_means_every_access_misses),
        cmocka_unit_test(test_names_and_kinds_match),
        cmocka_unit_test(test_impossible_items_are_refused),
        cmocka_unit_test(test_each_refused_allocation_is_an_error_without_a_leak),
        cmocka_unit_test(test_accesses_do_not_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
