/* test_lent_memory.c - contexts over budget: the same bits wherever the weights live, and while
 * wired memory is lent, to a long prompt or to a control group whose limit was lowered. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "engine/context.h"
#include "engine/engine.h"
#include "engine_fixture.h"
#include "sys/file.h"
#include "sys/memory.h"

static void test_every_residency_and_budget_gives_the_same_bits(void **state) {
    (void)state;
    static const enum tiny_family families[] = {TINY_LLAMA, TINY_GEMMA2, TINY_QWEN3MOE, TINY_PHI3};
    for (uint32_t i = 0; i < 4; i++) {
        struct tiny_model options;
        tiny_model_defaults(&options, families[i], OT_Q4_K, 3);
        tiny_model_write(&options, path);
        struct session s;
        struct ot_context_params params = {.n_ctx = 64};
        session_open(&s, &params);
        float *reference = logits_for(s.n_vocab), *logits = logits_for(s.n_vocab);
        must_feed(&s, 0, 0, 20, reference);
        must_feed(&s, 0, 20, 1, reference + 20 * s.n_vocab);
        session_close(&s);
        uint64_t least = least_budget(&params);
        static const enum ot_residency modes[] = {OT_RESIDENCY_WIRED, OT_RESIDENCY_STREAM,
                                                  OT_RESIDENCY_STREAM, OT_RESIDENCY_STREAM,
                                                  OT_RESIDENCY_STREAM};
        static const uint64_t extra[] = {1u << 30, 1u << 30, 0, 100 << 10, 700 << 10};
        for (uint32_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            params.residency = modes[m];
            /* the program itself may have grown a little since the least was told */
            params.ram_bytes = least + OPENINGS_DIFFER_BYTES + extra[m];
            params.n_batch = m == 3 ? 7 : 0;
            session_open(&s, &params);
            for (uint32_t pass = 0; pass < 2; pass++) {
                assert_int_equal(ot_seq_truncate(s.ctx, 0, 0), 0);
                must_feed(&s, 0, 0, 20, logits);
                must_feed(&s, 0, 20, 1, logits + 20 * s.n_vocab);
                assert_memory_equal(reference, logits, 21 * s.n_vocab * sizeof(float));
            }
            session_close(&s);
        }
        free(reference);
        free(logits);
    }
}

enum { LONG_PROMPT = 200 };

/* Over budget no part of it is left out of the account, and next to nothing is unused. */
static void assert_budget_is_used(const struct session *s) {
    struct ot_context_info info;
    ot_context_get_info(s->ctx, &info);
    const uint64_t used = info.wired_bytes + info.slot_bytes + info.kv_bytes +
                          info.activation_bytes + info.program_bytes + info.reserve_bytes;
    assert_in_range(used, info.budget_bytes - SYS_MEMORY_HUGE, info.budget_bytes);
}

/* Gives the last token's logits, of which the last n_wanted have some. */
static int feed_prompt(struct session *s, uint32_t n, uint32_t n_wanted, float *logits,
                       struct ot_error *err) {
    struct ot_input inputs[LONG_PROMPT];
    assert_true(n <= LONG_PROMPT && n_wanted >= 1 && n_wanted <= n);
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){token_at(i), 0, i + n_wanted >= n};
    }
    const size_t row = s->n_vocab;
    float *rows = calloc(n_wanted * row, sizeof *rows);
    int rc = ot_decode(s->ctx, inputs, n, rows, err);
    memcpy(logits, rows + (n_wanted - 1) * row, row * sizeof *rows);
    free(rows);
    return rc;
}

/* 38 MB of weights, so that there is something to lend. */
static void write_large_model(void) {
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_F32, 5);
    options.n_layers = 4;
    options.n_embd = 512;
    options.n_ff = 1024;
    options.n_heads = 16;
    options.n_kv_heads = 8;
    options.head_dim = 32;
    tiny_model_write(&options, path);
}

/* The model at path; what it must compute was computed in memory before. */
struct long_run {
    struct session s;
    uint32_t n_wanted; /* tokens of the prompt that want logits, and so use all layers */
    float *want, *logits; /* [2, n_vocab]: after the prompt, and after one token more */
};

static int feed_long(struct long_run *l, float *logits, struct ot_error *err) {
    return feed_prompt(&l->s, LONG_PROMPT, l->n_wanted, logits, err);
}

static void long_run_open(struct long_run *l, enum ot_residency residency,
                          uint64_t bytes_above_least, uint32_t n_wanted) {
    l->n_wanted = n_wanted;
    struct ot_context_params params = {.n_ctx = 256};
    struct ot_error err;
    session_open(&l->s, &params);
    l->want = logits_for(l->s.n_vocab);
    l->logits = logits_for(l->s.n_vocab);
    assert_int_equal(feed_long(l, l->want, &err), 0);
    must_feed(&l->s, 0, 0, 1, l->want + l->s.n_vocab);
    session_close(&l->s);
    params.residency = residency;
    params.ram_bytes = least_budget(&params) + bytes_above_least;
    session_open(&l->s, &params);
}

/* All that is wired is in memory, but for what was lent. Returns how many bytes that is. */
static uint64_t assert_wired_is_there(const struct long_run *l) {
    struct residency_info r;
    residency_get_info(engine_residency(l->s.ctx), &r);
    assert_true(r.resident_bytes + r.unread_bytes >= r.wired_bytes);
    return r.unread_bytes;
}

/* The prompt and one token: the same bits. */
static void long_run_pass(struct long_run *l) {
    struct ot_error err;
    if (feed_long(l, l->logits, &err) != 0) {
        fail_with(&err);
    }
    assert_true(residency_check(engine_residency(l->s.ctx)));
    assert_wired_is_there(l);
    must_feed(&l->s, 0, 0, 1, l->logits + l->s.n_vocab);
    assert_memory_equal(l->want, l->logits, 2 * l->s.n_vocab * sizeof(float));
    assert_true(residency_check(engine_residency(l->s.ctx)));
    assert_wired_is_there(l);
    assert_int_equal(ot_seq_truncate(l->s.ctx, 0, 0), 0);
}

/* Pass number `pass`, from 0: one sweep for the prompt, and what was lent for it has come back. */
static void long_run_pass_in_one_sweep(struct long_run *l, uint32_t pass) {
    struct ot_context_info info;
    long_run_pass(l);
    ot_context_get_info(l->s.ctx, &info);
    assert_int_equal(info.n_sweeps_prompt, pass + 1);
    assert_true(info.n_batch >= LONG_PROMPT);
    assert_int_equal(assert_wired_is_there(l), 0);
}

/* What was lent, or did not fit, came again, and is counted as that. */
static void long_run_close(struct long_run *l) {
    struct ledger_counter reloads =
        ledger_sum(engine_ledger(l->s.ctx), OT_DISK_RAM, OT_CLASS_WEIGHT, OT_CAUSE_RELOAD);
    assert_true(reloads.moved_bytes > 0);
    free(l->want);
    free(l->logits);
    session_close(&l->s);
}

static void test_a_long_prompt_takes_one_sweep_on_borrowed_memory(void **state) {
    (void)state;
    write_large_model();
    struct long_run l;
    long_run_open(&l, OT_RESIDENCY_STREAM, 26 << 20, 1);
    assert_budget_is_used(&l.s);
    for (uint32_t pass = 0; pass < 3; pass++) {
        /* the second time the loan's reads fail first: the call is repeated */
        if (pass == 1) {
            struct ot_error err;
            sys_fail_reads(5, UINT64_MAX - 5, EIO);
            assert_int_equal(feed_long(&l, l.logits, &err), OT_ERR_IO);
            sys_fail_reads(0, 0, 0);
            assert_int_equal(ot_seq_length(l.s.ctx, 0), 0);
        }
        long_run_pass_in_one_sweep(&l, pass);
    }
    struct residency_info r;
    residency_get_info(engine_residency(l.s.ctx), &r);
    assert_true(r.resident_bytes >= r.wired_bytes / 10 * 9);
    long_run_close(&l);
}

/* 38 MB of experts, of which the budget holds a part, and lends of that. */
static void write_large_mixture(void) {
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_QWEN3MOE, OT_F32, 6);
    options.n_layers = 3;
    options.n_embd = options.n_ff = 256;
    options.n_experts = 16;
    tiny_model_write(&options, path);
}

static void test_a_long_prompt_through_experts_takes_one_sweep_too(void **state) {
    (void)state;
    write_large_mixture();
    struct long_run l;
    long_run_open(&l, OT_RESIDENCY_STREAM, 20 << 20, 1);
    for (uint32_t pass = 0; pass < 4; pass++) {
        long_run_pass_in_one_sweep(&l, pass);
    }
    long_run_close(&l);
}

/* Sweeps of few tokens touch what few tokens need, though memory is laid out for many: also where all
 * their experts' rows together are more than that. */
static void test_experts_of_few_tokens_keep_to_the_memory_of_few(void **state) {
    (void)state;
    enum { ARRAYS = 32, PAGE = 4096 };
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_QWEN3MOE, OT_Q8_0, 6);
    options.n_embd = options.n_ff = 256;
    options.n_experts = options.n_experts_used = 16;
    tiny_model_write(&options, path);
    struct ot_context_params params = {.n_ctx = 256, .residency = OT_RESIDENCY_STREAM};
    struct session s;
    struct ot_error err;
    struct ot_context_info info;
    params.ram_bytes = least_budget(&params) + OPENINGS_DIFFER_BYTES;
    session_open(&s, &params);
    const uint32_t n = s.ctx->budget.n_batch; /* for which nothing is lent */
    if (n >= LONG_PROMPT) { /* a sanitizer's process differs too much: the budget is no small one */
        session_close(&s);
        skip();
    }
    float *logits = logits_for(s.n_vocab);
    if (feed_prompt(&s, n, 1, logits, &err) != 0) {
        fail_with(&err);
    }
    ot_context_get_info(s.ctx, &info);
    const struct forward *f = &s.ctx->forward;
    const uint64_t touched = sys_memory_resident(f->memory, f->memory_bytes);
    assert_in_range(touched, info.activation_bytes / 4, info.activation_bytes + ARRAYS * PAGE);
    free(logits);
    session_close(&s);
}

/* A prompt that comes late finds memory brought in for weights that are not read yet. */
static void test_memory_that_was_brought_in_for_unread_weights_is_lent_too(void **state) {
    (void)state;
    write_large_model();
    struct long_run l;
    long_run_open(&l, OT_RESIDENCY_STREAM, 26 << 20, 1);
    struct residency *r = engine_residency(l.s.ctx);
    struct residency_info info;
    residency_get_info(r, &info);
    for (uint32_t i = 0; i < 1000 && info.resident_bytes < info.wired_bytes; i++) {
        usleep(10000); /* where the system cannot bring it in, nothing is to be seen */
        residency_get_info(r, &info);
    }
    uint64_t wired = info.wired_bytes, lent = residency_lend(r, residency_lend_most(r));
    residency_get_info(r, &info);
    assert_true(info.resident_bytes + lent <= wired);
    residency_lend(r, 0);
    long_run_pass_in_one_sweep(&l, 0);
    long_run_close(&l);
}

/* ---- a control group's limit that is lowered while running ---- */

/* From now on the context's only limit is what the file `limit` says. */
static void watch_file(struct ot_context *ctx, const char *limit) {
    sys_limit_watch_close(&ctx->watch);
    ctx->watch.fd[0] = open(limit, O_RDONLY | O_CLOEXEC);
    assert_true(ctx->watch.fd[0] >= 0);
    ctx->watch.n = 1;
}

static void set_limit(const char *limit, const char *text) {
    FILE *f = fopen(limit, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void lower_and_raise_the_limit(enum ot_residency residency, uint64_t bytes_above_least) {
    char limit[160], text[32];
    snprintf(limit, sizeof limit, "%s/limit", directory);
    set_limit(limit, "max\n");
    struct long_run l;
    struct ot_context_info info;
    struct residency_info before, now;
    struct ot_error err;
    /* all tokens, so that experts of the last layer are in use as others are */
    long_run_open(&l, residency, bytes_above_least, LONG_PROMPT);
    struct ot_context *ctx = l.s.ctx;
    struct ot_model_info model;
    ot_model_get_info(l.s.model, &model);
    watch_file(ctx, limit);
    for (uint32_t i = 0; i < 6; i++) { /* experts' frames fill up by and by */
        long_run_pass(&l);
    }
    residency_get_info(engine_residency(ctx), &before);
    ot_context_get_info(ctx, &info);
    assert_int_equal(info.withheld_most_bytes, 0);
    const uint64_t total = info.budget_bytes, most = residency_lend_most(engine_residency(ctx));
    assert_true(most > 9 << 20);
    const uint64_t cuts[] = {4 << 20, most, 9 << 20, 1};
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "%llu\n", (unsigned long long)(total - cuts[i]));
        set_limit(limit, text);
        must_feed(&l.s, 0, 0, 1, l.logits);
        ot_context_get_info(ctx, &info);
        residency_get_info(engine_residency(ctx), &now);
        assert_int_equal(info.withheld_bytes, cuts[i]);
        assert_int_equal(info.withheld_most_bytes, i == 0 ? cuts[0] : most);
        /* experts' frames need not have been full */
        uint64_t less = model.n_experts == 0 ? cuts[i] : 1;
        assert_true(now.resident_bytes + less <= before.resident_bytes);
        assert_int_equal(ot_seq_truncate(ctx, 0, 0), 0);
        long_run_pass(&l);
        long_run_pass(&l);
    }
    /* a disk that fails once while memory is lent */
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)(total - most / 2));
    set_limit(limit, text);
    for (uint32_t i = 1; i < 12; i++) {
        sys_fail_reads(i, 1, EIO);
        int rc = feed_long(&l, l.logits, &err);
        assert_true(rc == OT_OK || rc == OT_ERR_IO);
        sys_fail_reads(0, 0, 0);
        assert_true(residency_check(engine_residency(ctx)));
        assert_int_equal(ot_seq_truncate(ctx, 0, 0), 0);
        long_run_pass(&l);
    }
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)(total - most - 1));
    set_limit(limit, text);
    assert_int_equal(feed_long(&l, l.logits, &err), OT_ERR_BUDGET);
    assert_non_null(strstr(err.message, "lowered"));
    assert_int_equal(ot_seq_length(ctx, 0), 0);
    set_limit(limit, "max\n");
    for (uint32_t i = 0; i < 6; i++) {
        long_run_pass(&l);
    }
    ot_context_get_info(ctx, &info);
    residency_get_info(engine_residency(ctx), &now);
    assert_int_equal(info.withheld_bytes, 0);
    assert_int_equal(now.unread_bytes, 0);
    assert_int_equal(now.resident_bytes, before.resident_bytes);
    assert_int_equal(now.locked_bytes, before.locked_bytes);
    long_run_close(&l);
}

static void test_a_lowered_limit_takes_wired_memory_and_a_raised_one_gives_it_back(void **state) {
    (void)state;
    write_large_model();
    lower_and_raise_the_limit(OT_RESIDENCY_STREAM, 26 << 20);
    lower_and_raise_the_limit(OT_RESIDENCY_WIRED, 128 << 20);
}

static void test_a_lowered_limit_takes_experts_first(void **state) {
    (void)state;
    write_large_mixture();
    lower_and_raise_the_limit(OT_RESIDENCY_STREAM, 32 << 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_residency_and_budget_gives_the_same_bits),
        cmocka_unit_test(test_a_long_prompt_takes_one_sweep_on_borrowed_memory),
        cmocka_unit_test(test_a_long_prompt_through_experts_takes_one_sweep_too),
        cmocka_unit_test(test_experts_of_few_tokens_keep_to_the_memory_of_few),
        cmocka_unit_test(test_memory_that_was_brought_in_for_unread_weights_is_lent_too),
        cmocka_unit_test(test_a_lowered_limit_takes_wired_memory_and_a_raised_one_gives_it_back),
        cmocka_unit_test(test_a_lowered_limit_takes_experts_first),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
