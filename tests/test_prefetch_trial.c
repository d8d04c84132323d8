/* The way to prefetch follows the memory's speed: a pretended memory whose rate depends on the way
 * in use and on its state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/prefetch_trial.h"

enum { JOB_BYTES = 4 << 20, SETTLED = PREFETCH_WARM_JOBS + PREFETCH_TRIAL_JOBS };

/* Bytes a microsecond of each way. */
struct memory {
    uint64_t rate[KERNEL_PREFETCH_WAYS];
};
static const struct memory fast = {{47000, 38000, 54000, 50000}};
static const struct memory slow = {{35000, 33000, 33000, 32500}};
static const struct memory alike = {{35000, 35500, 34800, 35200}};

/* n jobs; every `hit`-th is held up by another program for 20 ms (0: none), and each is up to 8 %
 * faster or slower than the mean. Returns how many of them did not use the way `best`. */
static uint32_t run(struct prefetch_trial *t, const struct memory *m, uint32_t n, uint32_t hit,
                    uint32_t best) {
    static uint32_t seed = 1;
    uint32_t n_other = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t way = t->way;
        n_other += way != best;
        seed = seed * 1664525 + 1013904223;
        uint64_t ns = JOB_BYTES * 1000ull / m->rate[way] * (92 + (seed >> 16) % 17) / 100;
        prefetch_trial_job(t, 1, JOB_BYTES, ns + (hit != 0 && i % hit == 0 ? 20000000 : 0));
    }
    return n_other;
}

static void test_finds_the_fastest_whatever_it_begins_with(void **state) {
    (void)state;
    for (uint32_t way = 0; way < KERNEL_PREFETCH_WAYS; way++) {
        struct prefetch_trial t = {.way = way};
        run(&t, &fast, SETTLED, 0, 2);
        assert_int_equal(t.way, 2);
        t = (struct prefetch_trial){.way = way};
        run(&t, &slow, SETTLED, 0, 0);
        assert_int_equal(t.way, 0);
    }
}

static void test_follows_the_memory_when_it_changes(void **state) {
    (void)state;
    const uint32_t notices = 2 * PREFETCH_WATCH_JOBS + PREFETCH_TRIAL_JOBS;
    struct prefetch_trial t = {.way = 0};
    run(&t, &fast, SETTLED + PREFETCH_WATCH_JOBS, 0, 2);
    for (uint32_t i = 0; i < 5; i++) {
        run(&t, &slow, notices, 0, 0);
        assert_int_equal(t.way, 0);
        run(&t, &slow, PREFETCH_WATCH_JOBS, 0, 0);
        run(&t, &fast, notices, 0, 2);
        assert_int_equal(t.way, 2);
        run(&t, &fast, PREFETCH_WATCH_JOBS, 0, 2);
    }
}

static void test_a_change_within_the_trial_does_not_last(void **state) {
    (void)state;
    struct prefetch_trial t = {.way = 2};
    run(&t, &fast, SETTLED - PREFETCH_RUN_JOBS, 0, 2);
    run(&t, &slow, PREFETCH_RUN_JOBS, 0, 2);
    run(&t, &slow, PREFETCH_WATCHES_MOST * PREFETCH_WATCH_JOBS + SETTLED, 0, 0);
    assert_int_equal(t.way, 0);
}

static void test_jobs_that_were_held_up_do_not_decide(void **state) {
    (void)state;
    struct prefetch_trial t = {.way = 0};
    run(&t, &fast, SETTLED, 7, 2);
    assert_int_equal(t.way, 2);
}

static void test_trials_cost_little(void **state) {
    (void)state;
    struct prefetch_trial t = {.way = 0};
    run(&t, &fast, SETTLED, 0, 2);
    uint32_t n = 100 * PREFETCH_WATCH_JOBS;
    assert_in_range(run(&t, &fast, n, 50, 2), 1, n / 64); /* there are some, though */
}

static void test_ways_that_are_alike_are_not_changed(void **state) {
    (void)state;
    for (uint32_t way = 0; way < KERNEL_PREFETCH_WAYS; way++) {
        struct prefetch_trial t = {.way = way};
        run(&t, &alike, SETTLED, 0, way);
        assert_int_equal(t.way, way);
    }
}

/* Sweeps that check two or three guesses, and some of one. */
static void test_jobs_of_other_numbers_of_tokens_do_not_count(void **state) {
    (void)state;
    struct prefetch_trial t = {.way = 0};
    for (uint32_t i = 0; i < 4; i++) {
        run(&t, &fast, SETTLED / 4, 0, 2);
        for (uint32_t k = 0; k < PREFETCH_OTHERS_MOST - 1; k++) {
            prefetch_trial_job(&t, 2 + k % 2, JOB_BYTES, t.way == 2 ? 500000 : 50000);
        }
    }
    assert_int_equal(t.way, 2);
    assert_int_equal(t.n_tokens, 1);
}

static void test_a_number_of_tokens_that_stays_has_the_trial(void **state) {
    (void)state;
    struct prefetch_trial t = {.way = 0};
    run(&t, &fast, SETTLED, 0, 2);
    assert_int_equal(t.way, 2);
    for (uint32_t k = 0; k < PREFETCH_OTHERS_MOST + SETTLED; k++) {
        prefetch_trial_job(&t, 4, JOB_BYTES, t.way == 1 ? 50000 : 100000);
    }
    assert_int_equal(t.way, 1);
}

static void test_no_time_at_all(void **state) {
    (void)state;
    struct prefetch_trial t = {0};
    for (uint32_t i = 0; i < SETTLED + 2 * PREFETCH_WATCH_JOBS; i++) {
        prefetch_trial_job(&t, 1, 0, 0);
        assert_in_range(t.way, 0, KERNEL_PREFETCH_WAYS - 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_the_fastest_whatever_it_begins_with),
        cmocka_unit_test(test_follows_the_memory_when_it_changes),
        cmocka_unit_test(test_a_change_within_the_trial_does_not_last),
        cmocka_unit_test(test_jobs_that_were_held_up_do_not_decide),
        cmocka_unit_test(test_trials_cost_little),
        cmocka_unit_test(test_ways_that_are_alike_are_not_changed),
        cmocka_unit_test(test_jobs_of_other_numbers_of_tokens_do_not_count),
        cmocka_unit_test(test_a_number_of_tokens_that_stays_has_the_trial),
        cmocka_unit_test(test_no_time_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
