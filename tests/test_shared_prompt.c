/* test_shared_prompt.c - sequences that go on from the same prompt: the text is what each would
 * have alone, to the bit, and the prompt's keys are read once for all of them. */
#include "engine_fixture.h"

#include "kernel/kernel.h"
#include "model/forward.h"

enum { PROMPT = 1100, N_SEQ = 4, STEPS = 5, BLOCK = KERNEL_KEY_BLOCK };

static void feed_prompt(struct session *s, uint32_t seq, uint32_t n) {
    struct ot_input inputs[PROMPT];
    struct ot_error err;
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){token_at(i), seq, false};
    }
    if (ot_decode(s->ctx, inputs, n, NULL, &err) != 0) {
        fail_with(&err);
    }
}

/* A token of each sequence in one call; every sequence has another text. */
static void step(struct session *s, uint32_t first, uint32_t n, uint32_t at, float *logits) {
    struct ot_input inputs[N_SEQ];
    struct ot_error err;
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){token_at(50 * (first + i) + at), first + i, true};
    }
    if (ot_decode(s->ctx, inputs, n, logits, &err) != 0) {
        fail_with(&err);
    }
}

static void kv_bytes(const struct session *s, enum ot_boundary boundary, uint64_t *moved,
                     uint64_t *needed) {
    ot_ledger_total(s->ctx, boundary, OT_CLASS_KV, moved, needed);
}

static void open_sequences(struct session *s) {
    const struct ot_context_params params = {.n_seq = N_SEQ, .n_ctx = 1200};
    session_open(s, &params);
}

static void assert_shared_equals_alone(enum tiny_family family, uint32_t prompt) {
    write_model(family, OT_Q4_0);
    struct session s;
    struct ot_error err;
    open_sequences(&s);
    const size_t row = s.n_vocab;
    float *alone = calloc(STEPS * N_SEQ * row, sizeof *alone);
    float *shared = calloc(STEPS * N_SEQ * row, sizeof *shared);
    const uint32_t few = forward_few(s.model, kernels_get());
    for (uint32_t seq = 0; seq < N_SEQ; seq++) {
        feed_prompt(&s, seq, prompt);
        for (uint32_t at = 0; at < STEPS; at++) {
            step(&s, seq, 1, at, alone + (at * N_SEQ + seq) * row);
        }
    }
    ot_seq_truncate(s.ctx, 2, prompt);
    for (uint32_t seq = 0; seq < N_SEQ; seq++) {
        assert_true(seq == 2 || ot_seq_copy(s.ctx, seq, 2, prompt, &err) == 0);
    }
    for (uint32_t at = 0; at < STEPS; at++) {
        const uint32_t n = few < N_SEQ ? few : N_SEQ;
        step(&s, 0, n, at, shared + at * N_SEQ * row);
        for (uint32_t seq = n; seq < N_SEQ; seq++) {
            step(&s, seq, 1, at, shared + (at * N_SEQ + seq) * row);
        }
    }
    assert_memory_equal(alone, shared, STEPS * N_SEQ * row * sizeof *alone);
    free(alone);
    free(shared);
    session_close(&s);
}

static void test_sequences_from_one_prompt_get_the_bits_of_sequences_of_their_own(void **state) {
    (void)state;
    static const uint32_t prompts[] = {1, BLOCK, BLOCK + 1, PROMPT};
    for (uint32_t i = 0; i < 4; i++) {
        assert_shared_equals_alone(TINY_LLAMA, prompts[i]);
        assert_shared_equals_alone(TINY_GEMMA3, prompts[i]); /* with layers of a window */
        assert_shared_equals_alone(TINY_QWEN3MOE, prompts[i]);
    }
}

static void test_a_shared_prompt_is_read_once_for_all(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct session s;
    struct ot_error err;
    open_sequences(&s);
    float *logits = calloc(N_SEQ * s.n_vocab, sizeof *logits);
    uint64_t before[2], one[2], all[2], copied, none;
    const uint32_t prompt = 16 * BLOCK;
    feed_prompt(&s, 0, prompt);
    kv_bytes(&s, OT_RAM_CACHE, &before[0], &before[1]);
    step(&s, 0, 1, 0, logits);
    kv_bytes(&s, OT_RAM_CACHE, &one[0], &one[1]);
    ot_seq_truncate(s.ctx, 0, prompt);
    for (uint32_t seq = 1; seq < N_SEQ; seq++) {
        assert_int_equal(ot_seq_copy(s.ctx, seq, 0, prompt, &err), 0);
    }
    step(&s, 0, 3, 0, logits); /* as many as every instruction set computes together */
    kv_bytes(&s, OT_RAM_CACHE, &all[0], &all[1]);
    const uint64_t position = (one[1] - before[1]) / (prompt + 1);
    assert_int_equal(one[0] - before[0], (prompt + 1) * position);
    /* what differs is one position of each; the part of the keys that has it is read for each */
    assert_int_equal(all[1] - one[1], (prompt + 3) * position);
    assert_in_range(all[0] - one[0], (prompt + 3) * position, (prompt + 3) * position * 3 / 2);
    kv_bytes(&s, OT_RAM_RAM, &copied, &none);
    assert_int_equal(copied, 0);
    free(logits);
    session_close(&s);
}

/* Room for one whole sequence and a block of each: enough where they share, too little where not.
 */
static void test_shared_positions_take_room_once(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.n_seq = N_SEQ, .n_ctx = 8 * BLOCK};
    struct session s;
    struct ot_error err;
    struct ot_context_info info;
    session_open(&s, &params);
    ot_context_get_info(s.ctx, &info);
    const uint64_t all_bytes = info.kv_bytes;
    assert_int_equal(info.n_kv, N_SEQ * 8 * BLOCK);
    session_close(&s);
    params.n_kv = (7 + N_SEQ) * BLOCK;
    session_open(&s, &params);
    ot_context_get_info(s.ctx, &info);
    assert_int_equal(info.n_kv, (7 + N_SEQ) * BLOCK);
    assert_int_equal(info.kv_bytes, all_bytes / (8 * N_SEQ) * (7 + N_SEQ));
    float *before = logits_for(s.n_vocab), *after = logits_for(s.n_vocab);
    feed_prompt(&s, 0, 7 * BLOCK);
    for (uint32_t seq = 1; seq < N_SEQ; seq++) {
        assert_int_equal(ot_seq_copy(s.ctx, seq, 0, 7 * BLOCK, &err), 0);
    }
    step(&s, 0, 2, 0, before);
    step(&s, 2, 2, 0, before);
    assert_int_equal(ot_seq_truncate(s.ctx, 1, 0), 0); /* gives up one block, not the shared ones */
    struct ot_input inputs[2 * BLOCK];
    for (uint32_t i = 0; i < 2 * BLOCK; i++) {
        inputs[i] = (struct ot_input){token_at(i), 1, false};
    }
    assert_int_equal(ot_decode(s.ctx, inputs, BLOCK + 1, NULL, &err), OT_ERR_FULL);
    assert_int_equal(ot_seq_length(s.ctx, 1), 0);
    assert_int_equal(ot_decode(s.ctx, inputs, BLOCK, NULL, &err), 0);
    step(&s, 2, 2, 1, before); /* the others go on in their blocks */
    ot_seq_truncate(s.ctx, 2, 7 * BLOCK + 1);
    step(&s, 2, 1, 1, after);
    assert_memory_equal(before, after, s.n_vocab * sizeof *after);
    free(before);
    free(after);
    session_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences_from_one_prompt_get_the_bits_of_sequences_of_their_own),
        cmocka_unit_test(test_a_shared_prompt_is_read_once_for_all),
        cmocka_unit_test(test_shared_positions_take_room_once),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
