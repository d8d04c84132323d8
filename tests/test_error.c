/* test_error.c - what faults are called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static void test_what_is_shown_holds_whole_characters_and_no_controls(void **state) {
    static const struct {
        const char *text, *shown;
    } table[] = {
        {"", ""},
        {"plain ~", "plain ~"},
        {"a\x1b[2J\n\x7f", "a?[2J??"},
        {"\xc2\x9b"
         "2J \xc2\x80\xc2\x9f\xc2\xa0",
         "?2J ??\xc2\xa0"}, /* C1, and no-break space */
        {"\x9b"
         "2J \x80\xff",
         "?2J ??"}, /* the same in Latin-1 */
        {"\xe2\x82\xac \xe2\x82", "\xe2\x82\xac ??"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xed\xa0\x80\xc0\xaf", "?????"}, /* a surrogate, an overlong slash */
    };
    char buf[64];
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        size_t bytes = strlen(table[i].text);
        assert_int_equal(ot_text_printable(table[i].text, buf, sizeof buf), bytes);
        assert_string_equal(buf, table[i].shown);
        char whole[64] = "", part[5];
        for (size_t at = 0; at < bytes; strcat(whole, part)) {
            at += ot_text_printable(table[i].text + at, part, sizeof part);
        }
        assert_string_equal(whole, table[i].shown);
    }
    assert_int_equal(ot_text_printable("\xe2\x82\xac", buf, 3), 0);
    assert_string_equal(buf, "");
    assert_int_equal(ot_text_printable("x", buf, 0), 0);
}

static void test_messages_are_cut_between_characters_and_cannot_command_a_terminal(void **state) {
    struct ot_error err;
    char long_text[2 * sizeof err.message + 1];
    (void)state;
    error_set(&err, OT_ERR_FORMAT, "a\xc2\x9b.gguf", "key \"%s\"",
              "\x9b"
              "2J\x1b");
    assert_string_equal(err.at, "a?.gguf");
    assert_string_equal(err.message, "key \"?2J?\"");
    for (size_t i = 0; i + 1 < sizeof long_text; i += 2) {
        memcpy(long_text + i, "\xc3\xa9", 3);
    }
    error_set(&err, OT_ERR_FORMAT, long_text, "%s", long_text);
    assert_null(strchr(err.message, '?'));
    assert_null(strchr(err.at, '?'));
    assert_true(strlen(err.message) >= sizeof err.message - 2);
    assert_true(strlen(err.at) >= sizeof err.at - 2);
    error_sys(&err, OT_ERR_IO, 2, "x", "%s", long_text);
    assert_null(strchr(err.message, '?'));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_shown_holds_whole_characters_and_no_controls),
        cmocka_unit_test(test_messages_are_cut_between_characters_and_cannot_command_a_terminal),
        cmocka_unit_test(test_memory_that_was_refused_is_told_in_bytes_where_they_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
