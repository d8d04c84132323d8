/* Tokens whose texts change while they are in use: they lie in the mapping of a file that others
 * may write to. The linker sends mem_calloc through here, so that the texts change between two
 * looks at them. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "support/vocab_file.h"
#include "token/kinds.h"
#include "token/special.h"

enum { SPECIALS = 64, NAME_BYTES = 8 };

static char space[3], names[SPECIALS][NAME_BYTES];
static void (*between)(void); /* what happens at the next allocation */

void *__real_mem_calloc(uint64_t count, uint64_t item_bytes);
void *__wrap_mem_calloc(uint64_t count, uint64_t item_bytes);

void *__wrap_mem_calloc(uint64_t count, uint64_t item_bytes) {
    void (*change)(void) = between;
    between = NULL;
    if (change != NULL) {
        change();
    }
    return __real_mem_calloc(count, item_bytes);
}

/* Byte-level BPE whose token of the space is rewritten by the tests. */
static struct vocab *open_with_space(void) {
    struct small_vocab v;
    small_bpe(&v);
    memcpy(space, "\xC4\xA0", 3);
    v.tokens[' '].data = space;
    return small_open(&v);
}

static void widen_space(void) {
    memcpy(space, "\xC8\x80", 2); /* stands for no byte: two are written */
}

static void test_a_token_that_becomes_longer_does_not_overrun_the_text(void **state) {
    enum { N = 1000 };
    (void)state;
    struct vocab *vocab = open_with_space();
    uint32_t ids[N];
    for (uint32_t i = 0; i < N; i++) {
        ids[i] = ' ';
    }
    char *text = NULL;
    size_t bytes = 0;
    struct ot_error err;
    between = widen_space;
    assert_int_equal(vocab_detokenize(vocab, ids, N, false, &text, &bytes, &err), 0);
    assert_int_equal(bytes, N);
    assert_int_equal(text[N], '\0');
    ot_free(text);
    vocab_close(vocab);
}

static void test_a_token_that_is_utf8_no_more_is_bytes(void **state) {
    (void)state;
    struct vocab *vocab = open_with_space();
    char bytes[8];
    space[0] = (char)0xFF;
    alarm(20); /* it never returned */
    assert_int_equal(vocab_token_bytes(vocab, ' ', false, bytes, sizeof bytes), 2);
    alarm(0);
    assert_memory_equal(bytes, "\xFF\xA0", 2);
    vocab_close(vocab);
}

static void swap_names(void) {
    for (uint32_t i = 0; i < SPECIALS; i++) {
        names[i][0] = (char)(names[i][0] ^ 1);
    }
}

static void test_special_tokens_that_appear_while_they_are_counted_are_left_out(void **state) {
    (void)state;
    struct vocab_string strings[SPECIALS];
    uint8_t kinds[SPECIALS];
    for (uint32_t i = 0; i < SPECIALS; i++) {
        memcpy(names[i], "<aa>", 4);
        names[i][1] = (char)('a' + i % 26);
        names[i][2] = (char)('a' + i / 26);
        strings[i] = (struct vocab_string){names[i], 4};
        kinds[i] = VOCAB_CONTROL | SPECIAL_PARSED;
    }
    struct words words;
    struct special special;
    struct ot_error err;
    assert_int_equal(words_open(&words, strings, SPECIALS, "small", &err), 0);
    swap_names();
    between = swap_names;
    assert_int_equal(special_open(&special, &words, kinds, &err), 0);
    assert_int_equal(special.n, 0);
    assert_int_equal(special.n_lengths, 0);
    special_close(&special);
    words_close(&words);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_that_becomes_longer_does_not_overrun_the_text),
        cmocka_unit_test(test_a_token_that_is_utf8_no_more_is_bytes),
        cmocka_unit_test(test_special_tokens_that_appear_while_they_are_counted_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
