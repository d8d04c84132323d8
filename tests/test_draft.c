/* test_draft.c - guesses of the next tokens: what is guessed, and when guessing stops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "onetrip.h"

enum { MOST = 7 };

static struct ot_drafter *open_drafter(uint32_t n_most) {
    struct ot_drafter *d = NULL;
    struct ot_error err;
    assert_int_equal(ot_drafter_open(n_most, &d, &err), 0);
    return d;
}

/* A sweep of one token took so long, and guesses of one token took that much more, often. */
static void teach_times(struct ot_drafter *d, double sweep_s, double further_s) {
    static const uint32_t different[] = {1, 2, 3}, same[] = {9, 9};
    uint32_t tokens[MOST];
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(ot_drafter_guess(d, different, 3, MOST, tokens), 0);
        ot_drafter_learn(d, 0, sweep_s);
        uint32_t n = ot_drafter_guess(d, same, 2, 1, tokens);
        ot_drafter_learn(d, n, sweep_s + n * further_s);
    }
}

static void test_what_followed_the_longest_and_latest_match_is_guessed(void **state) {
    (void)state;
    struct ot_drafter *d = open_drafter(MOST);
    uint32_t tokens[MOST];
    teach_times(d, 1.0, 0.0);
    static const uint32_t longest[] = {5, 1, 2, 3, 40, 41, 42, 2, 3, 50, 51, 52, 1, 2, 3};
    uint32_t n = ot_drafter_guess(d, longest, 15, MOST, tokens);
    static const uint32_t after_longest[] = {40, 41, 42, 2, 3, 50, 51};
    assert_int_equal(n, MOST);
    assert_memory_equal(tokens, after_longest, sizeof after_longest);
    static const uint32_t latest[] = {7, 8, 20, 6, 7, 8, 30, 6, 7, 8};
    n = ot_drafter_guess(d, latest, 10, 2, tokens);
    assert_int_equal(n, 2);
    assert_int_equal(tokens[0], 30);
    assert_int_equal(tokens[1], 6);
    ot_drafter_close(d);
}

static void test_what_repeats_itself_goes_on_repeating(void **state) {
    (void)state;
    struct ot_drafter *d = open_drafter(MOST);
    uint32_t tokens[MOST];
    teach_times(d, 1.0, 0.0);
    static const uint32_t ids[] = {1, 2, 3, 1, 2, 3}, more[] = {1, 2, 3, 1, 2, 3, 1};
    assert_int_equal(ot_drafter_guess(d, ids, 6, 100, tokens), MOST);
    assert_memory_equal(tokens, more, sizeof more);
    ot_drafter_close(d);
}

static void test_without_a_match_or_room_there_is_no_guess(void **state) {
    (void)state;
    struct ot_drafter *d = open_drafter(MOST), *off = open_drafter(0);
    uint32_t tokens[MOST];
    static const uint32_t ids[] = {1, 2, 3, 4}, same[] = {1, 1, 1, 1};
    assert_int_equal(ot_drafter_guess(d, ids, 4, MOST, tokens), 0);
    assert_int_equal(ot_drafter_guess(d, ids, 1, MOST, tokens), 0);
    assert_int_equal(ot_drafter_guess(d, ids, 0, MOST, tokens), 0);
    assert_int_equal(ot_drafter_guess(d, same, 4, 0, tokens), 0);
    assert_int_equal(ot_drafter_guess(off, same, 4, MOST, tokens), 0);
    ot_drafter_close(d);
    ot_drafter_close(off);
    ot_drafter_close(NULL);
}

static void test_guesses_that_cost_more_than_they_give_are_not_made(void **state) {
    (void)state;
    static const uint32_t same[] = {1, 1, 1, 1, 1, 1, 1, 1};
    uint32_t tokens[MOST];
    struct ot_drafter *d = open_drafter(MOST);
    teach_times(d, 1.0, 1.5);
    assert_int_equal(ot_drafter_guess(d, same, 8, MOST, tokens), 0);
    ot_drafter_close(d);
    d = open_drafter(MOST);
    teach_times(d, 1.0, 0.01);
    assert_int_equal(ot_drafter_guess(d, same, 8, MOST, tokens), MOST);
    ot_drafter_close(d);
}

static void test_guesses_that_fail_become_rare_and_are_tried_again(void **state) {
    (void)state;
    static const uint32_t same[] = {1, 1, 1, 1, 1, 1, 1, 1};
    uint32_t tokens[MOST], n_tried = 0, n_last = 0;
    struct ot_drafter *d = open_drafter(MOST);
    teach_times(d, 1.0, 0.3);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t n = ot_drafter_guess(d, same, 8, MOST, tokens);
        ot_drafter_learn(d, 0, 1.0 + 0.3 * n);
        n_tried += n > 0;
        n_last = n > 0 ? i : n_last;
    }
    assert_in_range(n_tried, 1, 200);
    assert_in_range(n_last, 800, 999);
    ot_drafter_close(d);
}

/* The checks of a guess that were held up, as by another program, end no guesses for long; where
 * further tokens do cost a sweep each, few are tried. */
static void test_guesses_are_tried_again_after_one_that_was_held_up(void **state) {
    (void)state;
    static const uint32_t same[] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const double further_s[] = {0.2, 1.0};
    uint32_t tokens[MOST];
    for (uint32_t first = 0; first < 2; first++) {
        for (uint32_t i = 0; i < 2; i++) {
            struct ot_drafter *d = open_drafter(MOST);
            if (first == 0) {
                teach_times(d, 1.0, 0.2);
            } else { /* nothing but a sweep is known yet */
                ot_drafter_learn(d, 0, 1.0);
            }
            assert_true(ot_drafter_guess(d, same, 8, MOST, tokens) > 0);
            ot_drafter_learn(d, 0, 1000.0);
            uint32_t n_tried = 0;
            for (uint32_t k = 0; k < 1000; k++) {
                uint32_t n = ot_drafter_guess(d, same, 8, MOST, tokens);
                ot_drafter_learn(d, n, 1.0 + n * further_s[i]);
                n_tried += n > 0;
            }
            assert_in_range(n_tried, i == 0 ? 500 : 2, i == 0 ? 1000 : 50);
            ot_drafter_close(d);
        }
    }
}

static void test_times_that_are_no_times_teach_nothing(void **state) {
    (void)state;
    static const uint32_t same[] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const double none[] = {NAN, INFINITY, -INFINITY, -1.0, 0.0};
    uint32_t tokens[MOST];
    struct ot_drafter *d = open_drafter(MOST);
    for (uint32_t i = 0; i < sizeof none / sizeof *none; i++) {
        uint32_t n = ot_drafter_guess(d, same, 8, MOST, tokens);
        ot_drafter_learn(d, n, none[i]);
        ot_drafter_learn(d, UINT32_MAX, none[i]);
    }
    teach_times(d, 1.0, 0.05);
    assert_in_range(ot_drafter_guess(d, same, 8, MOST, tokens), 1, MOST);
    ot_drafter_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed_the_longest_and_latest_match_is_guessed),
        cmocka_unit_test(test_what_repeats_itself_goes_on_repeating),
        cmocka_unit_test(test_without_a_match_or_room_there_is_no_guess),
        cmocka_unit_test(test_guesses_that_cost_more_than_they_give_are_not_made),
        cmocka_unit_test(test_guesses_that_fail_become_rare_and_are_tried_again),
        cmocka_unit_test(test_guesses_are_tried_again_after_one_that_was_held_up),
        cmocka_unit_test(test_times_that_are_no_times_teach_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
