/* test_budget.c - the memory budget of a context: what it is divided into, and the least that is
 * told. */
#include "base/alloc.h"
#include "engine/budget.h"
#include "engine/context.h"
#include "engine_fixture.h"
#include "kernel/kernel.h"
#include "model/forward.h"

static void test_what_is_free_of_a_control_group_is_the_budget_of_auto(void **state) {
    (void)state;
    const uint64_t mib = 1 << 20, none = UINT64_MAX;
    const struct {
        uint64_t asked, limit, free, expected;
        const char *source;
    } table[] = {
        {0, none, none, 1010 * mib / 10 * 9, "available memory, less 10 %"},
        {0, 4000 * mib, 4000 * mib, 1010 * mib / 10 * 9, "available memory, less 10 %"},
        {0, 200 * mib, 200 * mib, 190 * mib, "cgroup limit, less 5 %"},
        {0, 200 * mib, 188 * mib, 190 * mib, "cgroup limit, less 5 %"}, /* its own, and a little */
        {0, 200 * mib, 92 * mib, 95 * mib, "cgroup limit, less what others use, less 5 %"},
        {0, 200 * mib, 0, 7 * mib, "cgroup limit, less what others use, less 5 %"},
        {150 * mib, 200 * mib, 92 * mib, 150 * mib, "asked"},
        {250 * mib, 200 * mib, 92 * mib, 200 * mib, "cgroup limit, below what was asked"},
    };
    const struct sys_process process = {.rss_bytes = 10 * mib, .anon_bytes = 8 * mib};
    for (uint32_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct sys_limits limits = {.available_bytes = 1000 * mib,
                                          .cgroup_bytes = table[i].limit,
                                          .cgroup_free_bytes = table[i].free};
        struct budget b = {0};
        budget_choose(&b, table[i].asked, &limits, &process);
        assert_int_equal(b.total_bytes / mib, table[i].expected / mib);
        assert_string_equal(b.source, table[i].source);
    }
}

static void test_a_budget_below_the_least_is_refused_with_the_least(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.ram_bytes = 1 << 20};
    struct ot_model *model;
    struct ot_context *ctx = NULL;
    struct ot_error err;
    assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
    assert_int_equal(ot_context_open(model, &params, &ctx, &err), OT_ERR_BUDGET);
    assert_null(ctx);
    assert_non_null(strstr(err.message, "least"));
    ot_model_close(model);
}

/* Slots of whole pages, as where O_DIRECT is refused, take more than this model's weights. */
static void test_a_budget_is_refused_with_the_least_or_is_enough(void **state) {
    (void)state;
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_QWEN3, OT_IQ4_NL, 7);
    options.n_layers = 4;
    options.n_embd = 256;
    options.n_ff = 512;
    options.head_dim = 32;
    options.n_heads = 8;
    options.n_kv_heads = 4;
    tiny_model_write(&options, path);
    setenv("ONETRIP_NO_DIRECT", "1", 1);
    static const enum ot_residency modes[] = {OT_RESIDENCY_AUTO, OT_RESIDENCY_WIRED};
    for (uint32_t i = 0; i < 2; i++) {
        struct ot_context_params params = {.n_ctx = 256, .ram_bytes = 1, .residency = modes[i]};
        struct ot_model *model;
        struct ot_context *ctx;
        struct ot_error err;
        assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
        assert_int_equal(ot_context_open(model, &params, &ctx, &err), OT_ERR_BUDGET);
        const char *told = strchr(err.message, '(');
        assert_non_null(told);
        const uint64_t around = (4u << 20) + OPENINGS_DIFFER_BYTES;
        uint64_t from = strtoull(told + 1, NULL, 10) - around;
        uint32_t n_open = 0, n_refused = 0;
        for (uint64_t more = 0; more < 2 * around; more += 64 << 10) {
            params.ram_bytes = from + more;
            give_back_what_was_freed();
            if (ot_context_open(model, &params, &ctx, &err) == 0) {
                ot_context_close(ctx);
                n_open++;
            } else if (strcmp(err.at, "memory budget") == 0) {
                n_refused++;
            } else {
                fail_with(&err);
            }
        }
        assert_true(n_open > 0 && n_refused > 0);
        ot_model_close(model);
    }
    unsetenv("ONETRIP_NO_DIRECT");
}

/* The positions of a context of 4096, as few as `enough` of which will do, under a budget. */
static uint32_t positions_under(const struct ot_model *model, uint64_t ram_bytes, uint32_t enough,
                                uint64_t *least, bool *streams) {
    struct ot_context_params params = {
        .n_ctx = 4096, .n_ctx_least = enough, .n_threads = 2, .ram_bytes = ram_bytes};
    struct ot_context *ctx;
    struct ot_context_info info;
    struct ot_error err;
    give_back_what_was_freed();
    if (ot_context_open(model, &params, &ctx, &err) != 0) {
        fail_with(&err);
    }
    ot_context_get_info(ctx, &info);
    *streams = strcmp(info.residency, "stream") == 0;
    ot_context_close(ctx);
    *least = info.least_budget_bytes;
    return info.n_ctx;
}

static void test_positions_give_way_to_weights_that_do_not_fit(void **state) {
    (void)state;
    write_wide_model(8, 0);
    struct ot_model *model;
    struct ot_error err;
    struct ot_model_info info;
    assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
    ot_model_get_info(model, &info);
    uint64_t position = info.kv_bytes_per_token, kv = 4096 * position, least, with_all;
    const uint32_t differ = (uint32_t)(OPENINGS_DIFFER_BYTES / position);
    bool streams;
    assert_int_equal(positions_under(model, 4 * (kv + info.file_bytes), 64, &with_all, &streams),
                     4096);
    /* room for the weights or for all positions, not for both: as many as leave room for weights */
    uint64_t budget = with_all + info.weight_bytes / 2;
    uint32_t n = positions_under(model, budget, 64, &least, &streams);
    assert_false(streams);
    assert_in_range(n * position, kv / 4, kv - 1);
    positions_under(model, budget, n + 256 + differ, &with_all, &streams);
    assert_true(streams); /* few more were to be had */
    /* room for half of the weights beside 64 positions: a share of the budget */
    positions_under(model, least - kv * n / 4096 + kv / 32 + OPENINGS_DIFFER_BYTES, 64, &least,
                    &streams);
    budget = least + info.weight_bytes / 2;
    n = positions_under(model, budget, 64, &with_all, &streams);
    assert_true(streams);
    assert_in_range(n * position, budget / 16 - 64 * position, budget / 16);
    /* no room for a 16th, or that is less than 64 positions */
    n = positions_under(model, least + OPENINGS_DIFFER_BYTES, 64, &least, &streams);
    assert_in_range(n, 64, 192 + 2 * differ);
    ot_model_close(model);
}

static void test_the_told_least_budget_is_the_same_whatever_is_in_force_and_enough(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.n_ctx = 64};
    struct ot_context_info info;
    struct session s;
    uint64_t least = least_budget(&params);
    const uint64_t budgets[] = {least + OPENINGS_DIFFER_BYTES, least + (64u << 20), 1ull << 30,
                                16ull << 30};
    for (uint32_t i = 0; i < 4; i++) {
        params.ram_bytes = budgets[i];
        session_open(&s, &params);
        ot_context_get_info(s.ctx, &info);
        session_close(&s);
        assert_in_range(info.least_budget_bytes, least - OPENINGS_DIFFER_BYTES,
                        least + OPENINGS_DIFFER_BYTES);
    }
    struct ot_model *model;
    struct ot_context *ctx;
    struct ot_error err;
    params.ram_bytes = info.least_budget_bytes + OPENINGS_DIFFER_BYTES;
    assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
    assert_int_equal(ot_context_open(model, &params, &ctx, &err), 0);
    ot_context_close(ctx);
    params.ram_bytes = info.least_budget_bytes - OPENINGS_DIFFER_BYTES;
    assert_int_equal(ot_context_open(model, &params, &ctx, &err), OT_ERR_BUDGET);
    ot_model_close(model);
}

/* What keeps account of bytes is bytes, too. */
static void test_tables_are_part_of_the_budget(void **state) {
    (void)state;
    static const uint32_t experts[] = {0, 8, 256};
    for (uint32_t i = 0; i < 6; i++) {
        struct tiny_model options;
        tiny_model_defaults(&options, experts[i / 2] > 0 ? TINY_QWEN3MOE : TINY_QWEN3, OT_Q4_0, 7);
        options.n_layers = 12;
        options.n_embd = options.n_ff = 64;
        options.n_experts = experts[i / 2];
        tiny_model_write(&options, path);
        struct ot_context_params params = {.n_ctx = 64};
        if (i % 2 == 1) {
            params.residency = OT_RESIDENCY_STREAM;
            params.ram_bytes = least_budget(&params) + OPENINGS_DIFFER_BYTES;
        }
        struct session s;
        struct ot_error err;
        assert_int_equal(ot_model_open(path, NULL, &s.model, &err), 0);
        const struct bind *b = &s.model->bind;
        const uint64_t before = mem_live_bytes();
        assert_int_equal(ot_context_open(s.model, &params, &s.ctx, &err), 0);
        assert_true(mem_live_bytes() - before <=
                    ledger_table_bytes(b->n_extents) +
                        residency_table_bytes(b->extents, b->n_extents));
        session_close(&s);
    }
}

/* -b is a bound, not room that weights must give. */
static void test_a_bound_on_a_sweeps_tokens_takes_nothing_from_weights(void **state) {
    (void)state;
    write_wide_model(8, 0);
    struct ot_context_info info[2];
    struct ot_context_params params = {.n_ctx = 1024};
    params.ram_bytes = least_budget(&params) + (20 << 20);
    for (uint32_t i = 0; i < 2; i++) {
        params.n_batch = i == 0 ? 0 : 1024;
        struct session s;
        session_open(&s, &params);
        ot_context_get_info(s.ctx, &info[i]);
        session_close(&s);
    }
    assert_int_equal(info[0].activation_bytes, info[1].activation_bytes);
    assert_in_range(info[1].wired_bytes, info[0].wired_bytes - OPENINGS_DIFFER_BYTES,
                    info[0].wired_bytes + OPENINGS_DIFFER_BYTES);
    assert_true(info[0].streamed_bytes_per_sweep > 0);
    params.n_batch = 1024;
    params.ram_bytes = 1u << 30; /* in memory it is what was asked for */
    struct session s;
    session_open(&s, &params);
    ot_context_get_info(s.ctx, &info[1]);
    session_close(&s);
    assert_int_equal(info[1].n_batch, 1024);
}

/* The file does not fit, but all that sweeps use does: prompts need not save. */
static void test_a_table_of_single_rows_takes_no_room_in_own_memory(void **state) {
    (void)state;
    write_wide_model(8, 40000);
    struct ot_model *model;
    struct ot_context *ctx;
    struct ot_context_info ample, info;
    struct ot_error err;
    assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
    struct ot_context_params params = {.n_ctx = 1024, .ram_bytes = 1u << 30};
    give_back_what_was_freed();
    assert_int_equal(ot_context_open(model, &params, &ctx, &err), 0);
    ot_context_get_info(ctx, &ample);
    ot_context_close(ctx);
    const struct bind *b = &model->bind;
    const uint64_t wired = residency_wired_bytes(b->extents, b->n_extents);
    assert_true(wired + (40 << 20) < residency_cache_bytes(b->extents, b->n_extents));
    params.ram_bytes = ample.least_budget_bytes + wired + (16 << 20);
    give_back_what_was_freed();
    if (ot_context_open(model, &params, &ctx, &err) != 0) {
        fail_with(&err);
    }
    ot_context_get_info(ctx, &info);
    assert_string_equal(info.residency, "wired");
    assert_non_null(strstr(info.residency_why, "sweeps use"));
    assert_int_equal(info.streamed_bytes_per_sweep, 0);
    assert_int_equal(info.activation_bytes, ample.activation_bytes);
    ot_context_close(ctx);
    ot_model_close(model);
}

/* Positions of all sequences together were given: more of each take nothing from weights. */
static void test_few_positions_for_many_long_sequences_are_no_fault(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.n_ctx = 1 << 26,
                                       .n_ctx_least = 1 << 25,
                                       .n_kv = 64,
                                       .ram_bytes = 60 << 20,
                                       .residency = OT_RESIDENCY_STREAM};
    struct session s;
    struct ot_context_info info;
    session_open(&s, &params);
    ot_context_get_info(s.ctx, &info);
    assert_in_range(info.n_ctx, 1 << 25, 1 << 26);
    assert_int_equal(info.n_kv, 64);
    session_close(&s);
}

static void test_room_for_many_rows_of_logits_is_part_of_the_budget(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.n_ctx = 64};
    struct ot_context_info info;
    struct session s;
    params.n_logits = 40;
    params.ram_bytes = least_budget(&params) + OPENINGS_DIFFER_BYTES;
    for (uint32_t i = 0; i < 2; i++) {
        session_open(&s, &params);
        ot_context_get_info(s.ctx, &info);
        assert_in_range(info.n_logits, i == 0 ? 16 : 40, 40);
        session_close(&s);
        params.ram_bytes += 64 << 20;
    }
}

static void test_room_for_guesses_is_part_of_the_budget(void **state) {
    (void)state;
    write_model(TINY_LLAMA, OT_Q4_0);
    struct ot_context_params params = {.n_ctx = 64};
    struct ot_context_info info;
    struct session s;
    params.ram_bytes = least_budget(&params) + OPENINGS_DIFFER_BYTES;
    static const uint64_t more[] = {0, 0, 64 << 20, 0, 0};
    for (uint32_t i = 0; i < 5; i++) {
        params.n_draft = i < 3 ? 7 : OT_DRAFT_AUTO;
        params.n_batch = i == 1 ? 1 : 0;
        params.ram_bytes += more[i];
        if (i == 4) {
            write_wide_model(8, 0);
            params.ram_bytes = least_budget(&params) + (20 << 20);
        }
        session_open(&s, &params);
        ot_context_get_info(s.ctx, &info);
        uint64_t rows_bytes = (uint64_t)info.n_draft * s.n_vocab * sizeof(float);
        const uint32_t in_memory = forward_few(s.model, kernels_get()) > 3 ? 3 : 0;
        const uint32_t least[] = {0, 0, 7, in_memory, 7}, most[] = {7, 0, 7, in_memory, 7};
        assert_in_range(info.n_draft, least[i], most[i]);
        assert_true(rows_bytes <= (params.ram_bytes - info.least_budget_bytes) / 16);
        session_close(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_free_of_a_control_group_is_the_budget_of_auto),
        cmocka_unit_test(test_a_budget_below_the_least_is_refused_with_the_least),
        cmocka_unit_test(test_a_budget_is_refused_with_the_least_or_is_enough),
        cmocka_unit_test(test_positions_give_way_to_weights_that_do_not_fit),
        cmocka_unit_test(test_the_told_least_budget_is_the_same_whatever_is_in_force_and_enough),
        cmocka_unit_test(test_tables_are_part_of_the_budget),
        cmocka_unit_test(test_a_bound_on_a_sweeps_tokens_takes_nothing_from_weights),
        cmocka_unit_test(test_a_table_of_single_rows_takes_no_room_in_own_memory),
        cmocka_unit_test(test_few_positions_for_many_long_sequences_are_no_fault),
        cmocka_unit_test(test_room_for_many_rows_of_logits_is_part_of_the_budget),
        cmocka_unit_test(test_room_for_guesses_is_part_of_the_budget),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
