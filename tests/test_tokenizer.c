/* Text to tokens and back: published vectors, special tokens, broken text, long text. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "support/vocab_file.h"
#include "token/vocab.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"

/* ---- vectors ------------------------------------------------------------------------------ */

/* Every text of `texts` gives the ids of its line in `expected`; returns how many there were. */
static unsigned check_vectors(const struct vocab *vocab, const char *name, const char *texts,
                              size_t texts_bytes, const char *expected) {
    const char *at = texts, *line = expected;
    unsigned n = 0;
    while (*line != '\0') {
        const char *end =
            memmem(at, texts_bytes - (size_t)(at - texts), SEPARATOR, strlen(SEPARATOR));
        assert_non_null(end);
        size_t line_bytes = strcspn(line, "\n");
        while (line_bytes != 0 && *line == ' ') {
            line++;
            line_bytes--;
        }
        size_t shown = line_bytes;
        while (shown != 0 && line[shown - 1] == ' ') {
            shown--;
        }
        const char *ids = ids_of(vocab, at, (size_t)(end - at), 0);
        if (strlen(ids) != shown || memcmp(ids, line, shown) != 0) {
            fail_msg("%s, text %u: got %.300s, expected %.*s", name, n, ids,
                     (int)(shown < 300 ? shown : 300), line);
        }
        n++;
        at = end + strlen(SEPARATOR);
        line += line_bytes + (line[line_bytes] == '\n');
    }
    return n;
}

static void check_bundled(const char *name, const char *pre, const char *out) {
    char path[4096];
    size_t texts_bytes, expected_bytes;
    char *texts = file_read(TOKENIZER_DATA "/texts.inp", &texts_bytes);
    snprintf(path, sizeof path, TOKENIZER_DATA "/%s.out", out);
    char *expected = file_read(path, &expected_bytes);
    assert_non_null(texts);
    assert_non_null(expected);
    struct vocab_file file = vocab_file_open(TOKENIZER_DATA, name, pre);
    assert_int_equal(check_vectors(file.vocab, out, texts, texts_bytes, expected), 199);
    vocab_file_close(&file);
    free(texts);
    free(expected);
}

static void test_published_vocabularies_give_the_published_tokens(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2",        "llama-spm", "command-r", "deepseek-coder",
                                        "deepseek-llm", "falcon",    "llama-bpe", "mpt",
                                        "phi-3",        "qwen2",     "qwen35",    "refact",
                                        "smollm2",      "starcoder"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        check_bundled(names[i], NULL, names[i]);
    }
}

static void test_each_pre_tokenizer_cuts_as_the_reference_does(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2",        "smollm",         "qwen2",       "qwen35",
                                        "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
                                        "starcoder",    "refact",         "command-r",   "mpt",
                                        "olmo",         "gpt-4o",         "tekken",      "default"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char out[64];
        snprintf(out, sizeof out, "pre.%s", names[i]);
        check_bundled("llama-bpe", names[i], out);
    }
    check_bundled("llama-bpe", "llama4", "pre.gpt-4o"); /* another name for the same */
    check_bundled("llama-bpe", "llama-v3", "llama-bpe");
}

/* Digits tell the two apart: "default" cuts them in groups of three. */
static void test_a_file_that_names_no_pre_tokenizer_has_the_default_one(void **state) {
    static const struct {
        const char *pre, *ids;
    } table[] = {{NULL, "257 52"}, {"default", "257 52"}, {"gpt-2", "258"}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct small_vocab v;
        small_bpe(&v);
        small_merge(&v, "1", "2");
        small_merge(&v, "12", "3");
        small_merge(&v, "123", "4");
        v.source.pre = table[i].pre;
        struct vocab *vocab = small_open(&v);
        assert_string_equal(ids_of(vocab, "1234", 4, 0), table[i].ids);
        vocab_close(vocab);
    }
}

static void test_whole_words_of_any_length_are_found(void **state) {
    static const size_t lengths[] = {2, 200, 256, 257, 300, 5000};
    static char names[6][5001], accents[601];
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    v.source.pre = "llama-bpe";
    for (size_t i = 0; i < 6; i++) {
        memset(names[i], 'a', lengths[i]);
        small_add(&v, names[i], VOCAB_NORMAL, 0.0f); /* 256 and on */
    }
    /* "\xC3\xA9" as byte-level BPE writes it: two characters of two bytes each */
    for (size_t i = 0; i + 4 < sizeof accents; i += 4) {
        memcpy(accents + i, "\xC3\x83\xC2\xA9", 4);
    }
    uint32_t last = small_add(&v, accents, VOCAB_NORMAL, 0.0f);
    struct vocab *vocab = small_open(&v);
    char ids[16], word[301] = "";
    for (size_t i = 0; i < 6; i++) {
        snprintf(ids, sizeof ids, "%zu", 256 + i);
        assert_string_equal(ids_of(vocab, names[i], lengths[i], 0), ids);
    }
    for (size_t i = 0; i + 1 < sizeof word; i += 2) {
        memcpy(word + i, "\xC3\xA9", 3);
    }
    snprintf(ids, sizeof ids, "%u", last);
    assert_string_equal(ids_of(vocab, word, 300, 0), ids);
    vocab_close(vocab);
}

static void check_set(const char *directory, const char *name) {
    char path[4096];
    size_t texts_bytes, expected_bytes;
    snprintf(path, sizeof path, "%s/%s.inp", directory, name);
    char *texts = file_read(path, &texts_bytes);
    snprintf(path, sizeof path, "%s/%s.out", directory, name);
    char *expected = file_read(path, &expected_bytes);
    if (texts != NULL && expected != NULL) {
        struct vocab_file file = vocab_file_open(directory, name, NULL);
        unsigned n = check_vectors(file.vocab, name, texts, texts_bytes, expected);
        print_message("%s: %u texts\n", name, n);
        assert_true(n > 0);
        vocab_file_close(&file);
    }
    free(texts);
    free(expected);
}

static void test_vectors_of_a_directory_are_exact(void **state) {
    (void)state;
    const char *directory = getenv("ONETRIP_TOKENIZER_VECTORS");
    DIR *dir = directory == NULL ? NULL : opendir(directory);
    if (dir == NULL) {
        print_message("skipped: ONETRIP_TOKENIZER_VECTORS names no directory of more vectors\n");
        skip();
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        size_t bytes = strlen(entry->d_name);
        if (bytes > 5 && bytes < 200 && strcmp(entry->d_name + bytes - 5, ".gguf") == 0) {
            char name[256];
            snprintf(name, sizeof name, "%.*s", (int)bytes - 5, entry->d_name);
            check_set(directory, name);
        }
    }
    closedir(dir);
}

/* ---- special tokens ----------------------------------------------------------------------- */

static void expect(const struct vocab *vocab, const char *text, uint32_t flags, const char *ids) {
    assert_string_equal(ids_of(vocab, text, strlen(text), flags), ids);
}

static void test_control_tokens_are_parsed_on_request_only(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    uint32_t end = small_add(&v, "<end>", VOCAB_CONTROL, 0.0f);
    struct vocab *vocab = small_open(&v);
    assert_int_equal(end, 256);
    expect(vocab, "a<end>b", OT_TOK_PARSE_SPECIAL, "97 256 98");
    expect(vocab, "a<end>b", 0, "97 60 101 110 100 62 98");
    expect(vocab, "<end><end", OT_TOK_PARSE_SPECIAL, "256 60 101 110 100");
    vocab_close(vocab);
}

static void test_user_defined_tokens_are_found_in_any_text_longest_first(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_add(&v, "ab", VOCAB_USER, 0.0f);       /* 256 */
    small_add(&v, "bcd", VOCAB_USER, 0.0f);      /* 257 */
    small_add(&v, "xx", VOCAB_USER, 0.0f);       /* 258 */
    small_add(&v, "xxx", VOCAB_USER, 0.0f);      /* 259 */
    small_add(&v, "\xC3\xA9", VOCAB_USER, 0.0f); /* 260, one character */
    struct vocab *vocab = small_open(&v);
    expect(vocab, "abc", 0, "256 99");
    expect(vocab, "abcd", 0, "97 257"); /* the longer one wins, though it begins later */
    expect(vocab, "xxxxx", 0, "259 258");
    expect(vocab, "xxxxxxx", 0, "259 259 120");
    expect(vocab, "\xC3\xA9", 0, "260");
    expect(vocab, "a", 0, "97");
    vocab_close(vocab);
}

static void test_text_never_becomes_a_control_token_through_merges(void **state) {
    (void)state;
    struct small_vocab v;
    small_spm(&v);
    small_add(&v, "<", VOCAB_NORMAL, -1.0f);  /* 259 */
    small_add(&v, "s>", VOCAB_NORMAL, -2.0f); /* 260 */
    small_add(&v, "s", VOCAB_NORMAL, -3.0f);
    small_add(&v, ">", VOCAB_NORMAL, -4.0f);
    v.source.add_space_prefix = 0;
    struct vocab *vocab = small_open(&v);
    expect(vocab, "<s>", 0, "259 260");
    expect(vocab, "<s>", OT_TOK_PARSE_SPECIAL, "1");
    vocab_close(vocab);
}

static void test_bos_and_eos_are_added_as_the_file_says(void **state) {
    (void)state;
    struct small_vocab v;
    small_spm(&v);
    small_add(&v, "a", VOCAB_NORMAL, -1.0f);
    v.source.add_space_prefix = 0;
    struct vocab *vocab = small_open(&v);
    expect(vocab, "a", OT_TOK_ADD_SPECIAL, "1 259"); /* SentencePiece's habit */
    expect(vocab, "a", 0, "259");
    expect(vocab, "", OT_TOK_ADD_SPECIAL, "1");
    expect(vocab, "", 0, "");
    vocab_close(vocab);
    v.source.add_bos = 0;
    v.source.add_eos = 1;
    vocab = small_open(&v);
    expect(vocab, "a", OT_TOK_ADD_SPECIAL, "259 2");
    vocab_close(vocab);
    small_bpe(&v);
    v.source.bos = v.source.eos = small_add(&v, "<|endoftext|>", VOCAB_CONTROL, 0.0f);
    vocab = small_open(&v);
    expect(vocab, "a", OT_TOK_ADD_SPECIAL, "97"); /* byte-level BPE's habit */
    vocab_close(vocab);
    v.source.pre = "llama-bpe";
    vocab = small_open(&v);
    expect(vocab, "a", OT_TOK_ADD_SPECIAL, "256 97"); /* but for Llama 3 */
    vocab_close(vocab);
}

static void test_phi3_drops_white_space_after_special_tokens(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_add(&v, "<|user|>", VOCAB_CONTROL, 0.0f);
    small_add(&v, "<s>", VOCAB_CONTROL, 0.0f);
    v.source.strip_after_special = true;
    struct vocab *vocab = small_open(&v);
    expect(vocab, "<|user|> \n\ta ", OT_TOK_PARSE_SPECIAL, "256 97 32");
    expect(vocab, "<s> a", OT_TOK_PARSE_SPECIAL, "257 32 97"); /* an exception of its own */
    expect(vocab, "<|user|>  ", OT_TOK_PARSE_SPECIAL, "256");
    vocab_close(vocab);
}

/* ---- encodings ---------------------------------------------------------------------------- */

static void test_earlier_merges_go_first_and_equal_ones_from_the_left(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_merge(&v, "b", "c");   /* 256 */
    small_merge(&v, "a", "b");   /* 257 */
    small_merge(&v, "a", "a");   /* 258 */
    small_merge(&v, "aa", "aa"); /* 259 */
    struct vocab *vocab = small_open(&v);
    expect(vocab, "abc", 0, "97 256");
    expect(vocab, "aaa", 0, "258 97");
    expect(vocab, "aaaaaa", 0, "259 258");
    expect(vocab, "abab", 0, "257 257");
    vocab_close(vocab);
}

static void test_sentencepiece_joins_the_highest_score_first(void **state) {
    (void)state;
    struct small_vocab v;
    small_spm(&v);
    small_add(&v, "a", VOCAB_NORMAL, -10.0f); /* 259 */
    small_add(&v, "b", VOCAB_NORMAL, -11.0f); /* 260 */
    small_add(&v, "c", VOCAB_NORMAL, -12.0f); /* 261 */
    small_add(&v, "ab", VOCAB_NORMAL, -2.0f); /* 262 */
    small_add(&v, "bc", VOCAB_NORMAL, -1.0f); /* 263 */
    small_add(&v,
              "\xE2\x96\x81"
              "a",
              VOCAB_NORMAL, -3.0f);                      /* 264 */
    small_add(&v, "\xE2\x96\x81", VOCAB_NORMAL, -20.0f); /* 265 */
    struct vocab *vocab = small_open(&v);
    expect(vocab, "abc", 0, "264 263"); /* a space goes before it */
    expect(vocab, "ab ab", 0, "265 262 265 262");
    expect(vocab, "d", 0, "265 103");            /* a byte token: 3 + 'd' */
    expect(vocab, "\xC3\xA9", 0, "265 198 172"); /* both bytes of a character */
    vocab_close(vocab);
    v.source.add_space_prefix = 0;
    vocab = small_open(&v);
    expect(vocab, "abc", 0, "259 263");
    vocab_close(vocab);
}

static void test_bytes_without_any_token(void **state) {
    (void)state;
    struct small_vocab v;
    small_spm(&v);
    v.tokens[3 + 'd'] = (struct vocab_string){"gone", 4};
    v.source.add_space_prefix = 0;
    struct vocab *vocab = small_open(&v);
    expect(vocab, "ded", 0, "0 104 0"); /* the unknown token */
    vocab_close(vocab);
    small_bpe(&v);
    v.tokens['d'] = (struct vocab_string){"gone", 4};
    vocab = small_open(&v);
    expect(vocab, "ded", 0, "101"); /* these vocabularies have none */
    vocab_close(vocab);
}

/* ---- back to text ------------------------------------------------------------------------- */

static void expect_round_trip(const struct vocab *vocab, const char *text, size_t bytes,
                              uint32_t flags) {
    uint32_t *ids = NULL;
    size_t n = 0, back_bytes = 0;
    char *back = NULL;
    struct ot_error err;
    assert_int_equal(vocab_tokenize(vocab, text, bytes, flags, &ids, &n, &err), 0);
    bool special = (flags & OT_TOK_PARSE_SPECIAL) != 0;
    assert_int_equal(vocab_detokenize(vocab, ids, n, special, &back, &back_bytes, &err), 0);
    assert_int_equal(back_bytes, bytes);
    assert_memory_equal(back, text, bytes);
    assert_int_equal(back[bytes], '\0');
    ot_free(ids);
    ot_free(back);
}

static void test_any_bytes_come_back_as_they_were(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2", "llama-spm"};
    static const char parts[] = "\xE2\x82\xAC\xF0\x9F\x98\x80 a\n";
    uint64_t random = 88172645463325252u;
    for (size_t v = 0; v < 2; v++) {
        struct vocab_file file = vocab_file_open(TOKENIZER_DATA, names[v], NULL);
        for (unsigned round = 0; round < 2000; round++) {
            char text[64];
            size_t bytes = round % sizeof text;
            for (size_t i = 0; i < bytes; i++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                /* Mostly broken, often nearly whole characters. */
                text[i] = round % 3 == 0 ? (char)random : parts[random % 10];
            }
            expect_round_trip(file.vocab, text, bytes, 0);
            expect_round_trip(file.vocab, text, bytes, OT_TOK_ADD_SPECIAL);
        }
        vocab_file_close(&file);
    }
}

static void test_the_space_that_was_put_before_a_text_is_taken_away(void **state) {
    (void)state;
    struct vocab_file file = vocab_file_open(TOKENIZER_DATA, "llama-spm", NULL);
    static const char *const texts[] = {"Hello",  " Hello",  "  two", "",        " ",
                                        "a</s>b", "a</s> b", "</s>",  "<s><s> x"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect_round_trip(file.vocab, texts[i], strlen(texts[i]), OT_TOK_PARSE_SPECIAL);
    }
    vocab_file_close(&file);
}

static void test_token_bytes_say_how_many_there_are(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_merge(&v, "\xC4\xA0", "a"); /* " a" */
    small_add(&v, "<end>", VOCAB_CONTROL, 0.0f);
    struct vocab *vocab = small_open(&v);
    char buf[8] = "........";
    assert_int_equal(vocab_token_bytes(vocab, 256, false, buf, sizeof buf), 2);
    assert_memory_equal(buf, " a......", 8);
    assert_int_equal(vocab_token_bytes(vocab, 256, false, buf, 1), 2); /* one would be lost */
    assert_int_equal(vocab_token_bytes(vocab, 257, false, buf, sizeof buf), 0);
    assert_int_equal(vocab_token_bytes(vocab, 257, true, buf, sizeof buf), 5);
    assert_memory_equal(buf, "<end>...", 8);
    assert_int_equal(vocab_token_bytes(vocab, 258, true, buf, sizeof buf), 0); /* no such token */
    assert_int_equal(vocab_token_bytes(vocab, 0xFF, false, buf, sizeof buf), 1);
    assert_int_equal((unsigned char)buf[0], 0xFF);
    vocab_close(vocab);
}

static void test_half_a_character_is_never_shown(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t complete;
    } cases[] = {{"", 0},
                 {"a", 1},
                 {"a\xC3", 1},
                 {"a\xC3\xA9", 3},
                 {"\xE2", 0},
                 {"\xE2\x82", 0},
                 {"\xE2\x82\xAC", 3},
                 {"x\xF0\x9F\x98", 1},
                 {"x\xF0\x9F", 1},
                 {"x\xF0", 1},
                 {"x\xF0\x9F\x98\x80", 5},
                 {"\xFF", 1}, /* will never be a character */
                 {"\x80", 1},
                 {"\x80\x80\x80\x80", 4},
                 {"\xE2\x41", 2},
                 {"\xC0", 1}, /* would be overlong */
                 {"\xE0\x80", 2},
                 {"\xED\xA0", 2}, /* would be a surrogate */
                 {"\xF4\x90", 2}, /* would be above U+10FFFF */
                 {"\xF4\x8F", 0},
                 {"\xE2\x82\xAC\xE2", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ot_utf8_complete(cases[i].text, strlen(cases[i].text)), cases[i].complete);
    }
}

/* ---- long text ---------------------------------------------------------------------------- */

/* A quadratic encoder would need hours for these. */
static void test_long_words_cost_no_more_than_long_texts(void **state) {
    (void)state;
    static const char *const units[] = {"a",  " ",   "\n",   "7",    "!", "\xE4\xB8\x80",
                                        "ab", " \n", "\xFF", "</s>", "<", "a "};
    static const char *const names[] = {"gpt-2", "llama-spm"};
    size_t bytes = 1 << 20;
    char *text = malloc(bytes + 8);
    assert_non_null(text);
    for (size_t v = 0; v < 2; v++) {
        struct vocab_file file = vocab_file_open(TOKENIZER_DATA, names[v], NULL);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t unit = strlen(units[u]), used = 0;
            while (used + unit <= bytes) {
                memcpy(text + used, units[u], unit);
                used += unit;
            }
            expect_round_trip(file.vocab, text, used, OT_TOK_PARSE_SPECIAL);
        }
        vocab_file_close(&file);
    }
    free(text);
}

static void test_every_pre_tokenizer_copes_with_long_runs(void **state) {
    (void)state;
    static const char *const names[] = {"llama-bpe",      "qwen2",       "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "falcon",
                                        "gpt-4o",         "tekken",      "default"};
    size_t bytes = 1 << 18;
    char *text = malloc(bytes + 1);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct small_vocab v;
        small_bpe(&v);
        v.source.pre = names[i];
        struct vocab *vocab = small_open(&v);
        for (const char *c = " \nAz7!\t\x01"; *c != '\0'; c++) {
            memset(text, *c, bytes);
            text[bytes] = 'x';
            expect_round_trip(vocab, text, bytes + 1, 0);
        }
        vocab_close(vocab);
    }
    free(text);
}

/* At every place hundreds of tokens nearly begin: a search for each would take minutes. */
static void test_tokens_that_are_nearly_there_everywhere_take_no_longer(void **state) {
    enum { N_TOKENS = 250, LONGEST = 1000, TEXT_BYTES = 4 << 20 };
    (void)state;
    char *names = malloc(N_TOKENS * (LONGEST + 2)), *text = malloc(TEXT_BYTES);
    assert_non_null(names);
    assert_non_null(text);
    struct small_vocab v;
    small_bpe(&v);
    uint32_t last = 0;
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        char *name = names + i * (LONGEST + 2);
        uint32_t n_x = LONGEST - 1 - 3 * (N_TOKENS - 1 - i);
        memset(name, 'x', n_x);
        memcpy(name + n_x, "y", 2);
        last = small_add(&v, name, 3, 0);
    }
    struct vocab *vocab = small_open(&v);
    memset(text, 'x', TEXT_BYTES - 1);
    text[TEXT_BYTES - 1] = 'y';
    uint32_t *ids = NULL;
    size_t n = 0;
    struct ot_error err;
    assert_int_equal(vocab_tokenize(vocab, text, TEXT_BYTES, OT_TOK_PARSE_SPECIAL, &ids, &n, &err),
                     0);
    assert_int_equal(n, TEXT_BYTES - LONGEST + 1);
    assert_int_equal(ids[0], 'x');
    assert_int_equal(ids[n - 1], last);
    ot_free(ids);
    vocab_close(vocab);
    free(names);
    free(text);
}

static void test_text_above_a_gibibyte_is_refused(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    struct vocab *vocab = small_open(&v);
    uint32_t *ids = NULL;
    size_t n = 0;
    struct ot_error err;
    assert_int_equal(vocab_tokenize(vocab, "", (1ull << 30) + 1, 0, &ids, &n, &err),
                     OT_ERR_ARGUMENT);
    assert_null(ids);
    vocab_close(vocab);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vocabularies_give_the_published_tokens),
        cmocka_unit_test(test_each_pre_tokenizer_cuts_as_the_reference_does),
        cmocka_unit_test(test_a_file_that_names_no_pre_tokenizer_has_the_default_one),
        cmocka_unit_test(test_whole_words_of_any_length_are_found),
        cmocka_unit_test(test_vectors_of_a_directory_are_exact),
        cmocka_unit_test(test_control_tokens_are_parsed_on_request_only),
        cmocka_unit_test(test_user_defined_tokens_are_found_in_any_text_longest_first),
        cmocka_unit_test(test_text_never_becomes_a_control_token_through_merges),
        cmocka_unit_test(test_bos_and_eos_are_added_as_the_file_says),
        cmocka_unit_test(test_phi3_drops_white_space_after_special_tokens),
        cmocka_unit_test(test_earlier_merges_go_first_and_equal_ones_from_the_left),
        cmocka_unit_test(test_sentencepiece_joins_the_highest_score_first),
        cmocka_unit_test(test_bytes_without_any_token),
        cmocka_unit_test(test_any_bytes_come_back_as_they_were),
        cmocka_unit_test(test_the_space_that_was_put_before_a_text_is_taken_away),
        cmocka_unit_test(test_token_bytes_say_how_many_there_are),
        cmocka_unit_test(test_half_a_character_is_never_shown),
        cmocka_unit_test(test_long_words_cost_no_more_than_long_texts),
        cmocka_unit_test(test_every_pre_tokenizer_copes_with_long_runs),
        cmocka_unit_test(test_tokens_that_are_nearly_there_everywhere_take_no_longer),
        cmocka_unit_test(test_text_above_a_gibibyte_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
