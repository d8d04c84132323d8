/* test_error.c - what faults are called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

static void test_memory_that_was_refused_is_told_in_bytes_where_they_are_known(void **state) {
    struct ot_error err;
    char text[512];
    (void)state;
    assert_int_equal(error_memory(&err, 4096), OT_ERR_MEMORY);
    assert_string_equal(ot_error_text(&err, text, sizeof text),
                        "memory: an allocation of 4096 bytes failed");
    assert_int_equal(error_memory(&err, 0), OT_ERR_MEMORY);
    assert_string_equal(ot_error_text(&err, text, sizeof text), "there is no memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_that_was_refused_is_told_in_bytes_where_they_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
