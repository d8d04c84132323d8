/* test_ledger.c - posts add up, by extent, boundary, class and cause, and can be taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "ledger/ledger.h"

static struct ledger *filled(void) {
    struct ledger *l;
    struct ot_error err;
    uint32_t id;
    assert_int_equal(ledger_open(3, &l, &err), 0);
    assert_int_equal(ledger_add_extent(l, "a.weight", 8, 100, OT_CLASS_WEIGHT, 0, &id, &err), 0);
    assert_int_equal(
        ledger_add_extent(l, "b.weight and more", 8, 50, OT_CLASS_WEIGHT, 1, &id, &err), 0);
    assert_int_equal(ledger_add_extent(l, "kv.k", 4, 0, OT_CLASS_KV, -1, &id, &err), 0);
    assert_int_equal(id, 2);
    return l;
}

static void test_extents_keep_their_names_up_to_the_length_given(void **state) {
    (void)state;
    struct ledger *l = filled();
    assert_int_equal(ledger_n_extents(l), 3);
    assert_string_equal(ledger_get_extent(l, 1)->name, "b.weight");
    assert_int_equal(ledger_get_extent(l, 1)->bytes, 50);
    assert_int_equal(ledger_get_extent(l, 2)->layer, -1);
    ledger_close(l);
}

static void test_one_extent_too_many_is_refused(void **state) {
    (void)state;
    struct ledger *l = filled();
    struct ot_error err;
    uint32_t id = 77;
    assert_int_equal(ledger_add_extent(l, "x", 1, 1, OT_CLASS_OTHER, -1, &id, &err), OT_ERR_FULL);
    assert_int_equal(id, 77);
    ledger_close(l);
}

static void test_posts_add_up_by_extent_boundary_class_and_cause(void **state) {
    (void)state;
    struct ledger *l = filled();
    ledger_post(l, 0, OT_DISK_RAM, OT_CAUSE_LOAD, 100, 100);
    ledger_post_rounded(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM, 64, 20, 14);
    ledger_post(l, 1, OT_DISK_RAM, OT_CAUSE_LOAD, 50, 50);
    ledger_post(l, 2, OT_DISK_RAM, OT_CAUSE_RESTORE, 7, 7);
    ledger_post(l, 1, OT_RAM_CACHE, OT_CAUSE_COMPUTE, 50, 50);
    const struct ledger_counter *c = ledger_get(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM);
    assert_int_equal(c->moved_bytes, 64);
    assert_int_equal(c->needed_bytes, 20);
    assert_int_equal(c->rounding_bytes, 14);
    assert_int_equal(c->times, 1);
    struct ledger_counter weights = ledger_sum(l, OT_DISK_RAM, OT_CLASS_WEIGHT, OT_CAUSE_COUNT);
    assert_int_equal(weights.moved_bytes, 214);
    assert_int_equal(weights.times, 3);
    assert_int_equal(ledger_sum(l, OT_DISK_RAM, OT_CLASS_COUNT, OT_CAUSE_LOAD).moved_bytes, 150);
    assert_int_equal(ledger_sum(l, OT_DISK_RAM, OT_CLASS_COUNT, OT_CAUSE_COUNT).moved_bytes, 221);
    assert_int_equal(ledger_sum(l, OT_RAM_RAM, OT_CLASS_COUNT, OT_CAUSE_COUNT).moved_bytes, 0);
    ledger_close(l);
}

static void test_what_was_never_used_moves_to_another_cause(void **state) {
    (void)state;
    struct ledger *l = filled();
    ledger_post_rounded(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM, 64, 20, 14);
    ledger_post_rounded(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM, 32, 10, 2);
    ledger_repost(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM, OT_CAUSE_PREFETCH_WASTED, 32, 10, 2);
    assert_int_equal(ledger_get(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM)->moved_bytes, 64);
    assert_int_equal(ledger_get(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM)->needed_bytes, 20);
    assert_int_equal(ledger_get(l, 0, OT_DISK_RAM, OT_CAUSE_PREFETCH_WASTED)->moved_bytes, 32);
    assert_int_equal(ledger_get(l, 0, OT_DISK_RAM, OT_CAUSE_PREFETCH_WASTED)->needed_bytes, 0);
    /* What was counted before a reset cannot be taken back after it. */
    ledger_reset(l);
    ledger_repost(l, 0, OT_DISK_RAM, OT_CAUSE_STREAM, OT_CAUSE_PREFETCH_WASTED, 64, 20, 14);
    assert_int_equal(ledger_sum(l, OT_DISK_RAM, OT_CLASS_COUNT, OT_CAUSE_COUNT).moved_bytes, 0);
    assert_int_equal(ledger_n_extents(l), 3);
    ledger_close(l);
}

static void test_every_name_is_known_and_every_other_number_is_not(void **state) {
    (void)state;
    for (uint32_t i = 0; i < OT_BOUNDARY_COUNT; i++) {
        assert_string_not_equal(ot_boundary_name((enum ot_boundary)i), "unknown");
    }
    for (uint32_t i = 0; i < OT_CLASS_COUNT; i++) {
        assert_string_not_equal(ot_class_name((enum ot_class)i), "unknown");
    }
    for (uint32_t i = 0; i < OT_CAUSE_COUNT; i++) {
        assert_string_not_equal(ot_cause_name((enum ot_cause)i), "unknown");
    }
    assert_string_equal(ot_boundary_name(OT_BOUNDARY_COUNT), "unknown");
    assert_string_equal(ot_class_name(OT_CLASS_COUNT), "unknown");
    assert_string_equal(ot_cause_name(OT_CAUSE_COUNT), "unknown");
    assert_int_equal(ledger_known(OT_DISK_RAM), OT_COUNTED);
    assert_int_equal(ledger_known(OT_RAM_CACHE), OT_MODELLED);
}

static void test_each_allocation_failing_once_leaves_nothing(void **state) {
    (void)state;
    uint64_t live = mem_live_bytes();
    for (uint64_t n = 1; n <= 4; n++) {
        struct ledger *l = NULL;
        struct ot_error err;
        uint32_t id;
        mem_fail_at(n);
        int code = ledger_open(2, &l, &err);
        if (code == 0) {
            code = ledger_add_extent(l, "a", 1, 1, OT_CLASS_WEIGHT, 0, &id, &err);
            ledger_close(l);
        }
        mem_fail_at(0);
        assert_int_equal(code, OT_ERR_MEMORY);
        assert_int_equal(mem_live_bytes(), live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extents_keep_their_names_up_to_the_length_given),
        cmocka_unit_test(test_one_extent_too_many_is_refused),
        cmocka_unit_test(test_posts_add_up_by_extent_boundary_class_and_cause),
        cmocka_unit_test(test_what_was_never_used_moves_to_another_cause),
        cmocka_unit_test(test_every_name_is_known_and_every_other_number_is_not),
        cmocka_unit_test(test_each_allocation_failing_once_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
