/* test_sample.c - picking a token: which tokens can be picked, and which is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "onetrip.h"

enum { MOST_TOKENS = 5000 };

/* Few different values, so that ties lie across every boundary. */
static void fill(float *logits, uint32_t n, uint32_t n_values, uint32_t seed) {
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)((seed >> 8) % n_values) * 0.001f - 1.0f;
    }
}

static bool ranks_before(const float *logits, uint32_t a, uint32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* By definition: the tokens with fewer than k others before them. */
static void find_best(const float *logits, uint32_t n, uint32_t k, bool *best) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_before = 0;
        for (uint32_t j = 0; j < n && n_before < k; j++) {
            n_before += ranks_before(logits, j, i);
        }
        best[i] = n_before < k;
    }
}

static struct ot_sampler *open_sampler(uint32_t n, float temperature, uint32_t top_k) {
    struct ot_sampler_params p;
    ot_sampler_default_params(&p);
    p.temperature = temperature;
    p.top_k = top_k;
    p.top_p = 1.0f;
    p.min_p = 0.0f;
    struct ot_sampler *s = NULL;
    struct ot_error err;
    assert_int_equal(ot_sampler_open(n, &p, &s, &err), 0);
    return s;
}

/* So hot that all k are as likely: each comes within 40 k picks, all but surely. */
static void check_top_k(uint32_t n, uint32_t n_values, uint32_t k) {
    static float logits[MOST_TOKENS];
    static bool best[MOST_TOKENS], seen[MOST_TOKENS];
    fill(logits, n, n_values, n + k);
    find_best(logits, n, k, best);
    memset(seen, 0, sizeof seen);
    struct ot_sampler *s = open_sampler(n, 1e6f, k);
    for (uint32_t i = 0; i < 40 * k; i++) {
        seen[ot_sampler_pick(s, logits)] = true;
    }
    ot_sampler_close(s);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(seen[i] == best[i]);
    }
}

static void test_top_k_picks_from_the_k_best(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 200, 1000, MOST_TOKENS};
    static const uint32_t ks[] = {1, 2, 5, 40};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof ks / sizeof ks[0]; j++) {
            if (ks[j] <= sizes[i]) {
                check_top_k(sizes[i], 3, ks[j]);
                check_top_k(sizes[i], 100000, ks[j]);
            }
        }
    }
}

/* The best logits last, or first: the bound moves with every block, or never. */
static void test_order_of_logits_does_not_matter(void **state) {
    (void)state;
    static float logits[MOST_TOKENS];
    for (uint32_t rising = 0; rising < 2; rising++) {
        bool seen[MOST_TOKENS] = {false};
        for (uint32_t i = 0; i < MOST_TOKENS; i++) {
            logits[i] = rising != 0 ? (float)i : -(float)i;
        }
        struct ot_sampler *s = open_sampler(MOST_TOKENS, 1e9f, 8);
        for (uint32_t i = 0; i < 400; i++) {
            seen[ot_sampler_pick(s, logits)] = true;
        }
        ot_sampler_close(s);
        for (uint32_t i = 0; i < MOST_TOKENS; i++) {
            assert_int_equal(seen[i], rising != 0 ? i >= MOST_TOKENS - 8 : i < 8);
        }
    }
}

static void test_greedy_picks_the_first_of_the_best(void **state) {
    (void)state;
    static float logits[MOST_TOKENS];
    for (uint32_t n = 1; n <= MOST_TOKENS; n = n * 3 + 1) {
        for (uint32_t n_values = 1; n_values < 100000; n_values *= 7) {
            fill(logits, n, n_values, n * n_values);
            uint32_t expected = 0;
            for (uint32_t i = 1; i < n; i++) {
                expected = logits[i] > logits[expected] ? i : expected;
            }
            static const float temperatures[] = {0.0f, -0.0f, -0.8f, -1000.0f};
            for (uint32_t i = 0; i < 4; i++) {
                struct ot_sampler *s = open_sampler(n, temperatures[i], 40);
                assert_int_equal(ot_sampler_pick(s, logits), expected);
                ot_sampler_close(s);
            }
        }
    }
}

static void test_a_seed_gives_the_same_tokens(void **state) {
    (void)state;
    static float logits[MOST_TOKENS];
    fill(logits, MOST_TOKENS, 100000, 1);
    struct ot_sampler *a = open_sampler(MOST_TOKENS, 1.0f, 0);
    struct ot_sampler *b = open_sampler(MOST_TOKENS, 1.0f, 0);
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(ot_sampler_pick(a, logits), ot_sampler_pick(b, logits));
    }
    ot_sampler_close(a);
    ot_sampler_close(b);
}

static void test_repeat_penalty_moves_picked_tokens_down(void **state) {
    (void)state;
    struct ot_sampler_params p;
    ot_sampler_default_params(&p);
    p.temperature = 0.0f;
    p.repeat_penalty = 2.0f;
    struct ot_sampler *s = NULL;
    struct ot_error err;
    assert_int_equal(ot_sampler_open(3, &p, &s, &err), 0);
    float first[3] = {1.0f, 4.0f, 3.0f}, second[3] = {1.0f, 4.0f, 3.0f};
    assert_int_equal(ot_sampler_pick(s, first), 1);
    assert_int_equal(ot_sampler_pick(s, second), 2); /* 4 / 2 is less than 3 */
    ot_sampler_close(s);
}

static void test_a_logit_that_a_penalty_makes_infinite_is_still_the_best(void **state) {
    (void)state;
    struct ot_sampler_params p;
    ot_sampler_default_params(&p);
    p.top_k = 0;
    p.top_p = 1.0f;
    p.min_p = 0.0f;
    p.repeat_penalty = 1e-30f;
    struct ot_sampler *s = NULL;
    struct ot_error err;
    assert_int_equal(ot_sampler_open(3, &p, &s, &err), 0);
    ot_sampler_accept(s, 1);
    float logits[3] = {1.0f, 1e20f, 3.0f};
    assert_int_equal(ot_sampler_pick(s, logits), 1);
    ot_sampler_close(s);
}

static void test_a_long_memory_penalises_each_token_once(void **state) {
    (void)state;
    enum { VOCAB = 200000, RECENT = 1 << 20 };
    struct ot_sampler_params p;
    ot_sampler_default_params(&p);
    p.temperature = 0.0f;
    p.repeat_penalty = 2.0f;
    p.repeat_last_n = RECENT;
    struct ot_sampler *s = NULL;
    struct ot_error err;
    float *logits = calloc(VOCAB, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(ot_sampler_open(VOCAB, &p, &s, &err), 0);
    for (uint32_t i = 0; i < RECENT; i++) {
        ot_sampler_accept(s, i % (VOCAB - 1));
    }
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < VOCAB; i++) {
            logits[i] = 8.0f;
        }
        ot_sampler_pick(s, logits);
        for (uint32_t i = 0; i + 1 < VOCAB; i++) {
            assert_true(logits[i] == 4.0f);
        }
        assert_true(logits[VOCAB - 1] == (round == 0 ? 8.0f : 4.0f));
    }
    free(logits);
    ot_sampler_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top_k_picks_from_the_k_best),
        cmocka_unit_test(test_order_of_logits_does_not_matter),
        cmocka_unit_test(test_greedy_picks_the_first_of_the_best),
        cmocka_unit_test(test_a_seed_gives_the_same_tokens),
        cmocka_unit_test(test_repeat_penalty_moves_picked_tokens_down),
        cmocka_unit_test(test_a_logit_that_a_penalty_makes_infinite_is_still_the_best),
        cmocka_unit_test(test_a_long_memory_penalises_each_token_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
