/* Vocabularies that are opened, and those that are refused: each with its reason. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "format/gguf.h"
#include "model/vocab_source.h"
#include "support/gguf_image.h"
#include "support/tiny_vocab.h"
#include "support/vocab_file.h"
#include "token/vocab.h"

/* ---- by hand ------------------------------------------------------------------------------ */

static void refused(const struct small_vocab *v, int code, const char *part) {
    struct vocab *vocab = NULL;
    struct ot_error err = {0};
    uint64_t live = mem_live_bytes();
    assert_int_equal(vocab_open(&v->source, &vocab, &err), code);
    assert_null(vocab);
    assert_int_equal(err.code, code);
    if (strstr(err.message, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    }
    assert_int_equal(mem_live_bytes(), live);
}

static void test_unknown_kinds_are_refused_by_name_with_the_known_ones(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    v.source.model = "bert";
    refused(&v, OT_ERR_UNSUPPORTED, "\"bert\"");
    refused(&v, OT_ERR_UNSUPPORTED, "gpt2");
    small_bpe(&v);
    v.source.pre = "made-up";
    refused(&v, OT_ERR_UNSUPPORTED, "\"made-up\"");
    refused(&v, OT_ERR_UNSUPPORTED,
            "gpt-2, smollm, llama-bpe, qwen2, deepseek-llm, deepseek-coder, "
            "deepseek-v3, falcon, starcoder, refact, command-r, mpt, olmo, "
            "gpt-4o, tekken");
}

static void test_merges_that_name_nothing_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *merge, *part;
    } cases[] = {{"zz a", "left half"}, {"a zz", "right half"}, {"a b", "no token"},
                 {"ab", "space"},       {"a ", "two tokens"},   {" a", "two tokens"},
                 {"", "two tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct small_vocab v;
        small_bpe(&v);
        small_merge(&v, "x", "y");
        v.merges[v.source.n_merges++] =
            (struct vocab_string){cases[i].merge, strlen(cases[i].merge)};
        refused(&v, OT_ERR_FORMAT, cases[i].part);
        refused(&v, OT_ERR_FORMAT, "merge 1");
    }
    struct small_vocab v;
    small_bpe(&v);
    v.source.merges = NULL;
    refused(&v, OT_ERR_FORMAT, "merges is missing");
}

static void test_damaged_tokens_are_refused(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_add(&v, "\xC3", VOCAB_NORMAL, 0.0f);
    refused(&v, OT_ERR_FORMAT, "token 256 is not UTF-8");
    small_bpe(&v);
    v.types[7] = 9;
    refused(&v, OT_ERR_FORMAT, "token 7 has type 9");
    small_bpe(&v);
    v.types[7] = -1;
    refused(&v, OT_ERR_FORMAT, "type -1");
    static char large[70000];
    memset(large, 'x', sizeof large - 1);
    small_bpe(&v);
    small_add(&v, large, VOCAB_NORMAL, 0.0f);
    refused(&v, OT_ERR_FORMAT, "69999 bytes");
    small_bpe(&v);
    v.source.n_tokens = 0;
    refused(&v, OT_ERR_FORMAT, "0 tokens");
    small_spm(&v);
    v.scores[5] = NAN;
    refused(&v, OT_ERR_FORMAT, "score of token 5");
    small_spm(&v);
    v.source.scores = NULL;
    refused(&v, OT_ERR_FORMAT, "scores is missing");
}

static void test_ids_out_of_range_are_refused(void **state) {
    (void)state;
    struct small_vocab v;
    int64_t *const ids[] = {&v.source.bos, &v.source.eos,     &v.source.unk,     &v.source.eot,
                            &v.source.eom, &v.source.fim_pad, &v.source.fim_rep, &v.source.fim_sep};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        small_bpe(&v);
        *ids[i] = 256;
        refused(&v, OT_ERR_FORMAT, "256");
        *ids[i] = -2;
        refused(&v, OT_ERR_FORMAT, "-2");
        *ids[i] = 255;
        vocab_close(small_open(&v));
    }
}

static void test_odd_vocabularies_are_taken(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_merge(&v, "a", "b");
    v.merges[v.source.n_merges++] = v.merges[0]; /* twice the same */
    small_add(&v, "", VOCAB_NORMAL, 0.0f);       /* empty */
    small_add(&v, "ab", VOCAB_USER, 0.0f);       /* a text that another token has */
    v.types[0] = 0;                              /* undefined, as some files have it */
    struct vocab *vocab = small_open(&v);
    assert_int_equal(vocab_size(vocab), 259);
    assert_string_equal(ids_of(vocab, "ab", 2, 0), "258");
    assert_int_equal(vocab_token_bytes(vocab, 257, true, NULL, 0), 0);
    vocab_close(vocab);
    small_spm(&v);
    v.scores[10] = -INFINITY;
    v.scores[11] = FLT_MAX;
    v.source.types = NULL;
    vocab_close(small_open(&v));
}

/* ---- what ends an answer ------------------------------------------------------------------ */

static void test_tokens_that_end_an_answer(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool ends;
    } cases[] = {{"<|im_end|>", true},
                 {"<|eot_id|>", true},
                 {"<|eom_id|>", true},
                 {"<end_of_turn>", true},
                 {"<|end|>", true},
                 {"<|endoftext|>", true},
                 {"</s>", true},
                 {"<|end_of_text|>", true},
                 {"<|im_start|>", false},
                 {"<\xEF\xBD\x9C"
                  "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                  true},
                 {"<|user|>", false},
                 {"<EOT>", true},
                 {"<fim_pad>", true},
                 {"<fim_prefix>", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct small_vocab v;
        small_bpe(&v);
        uint32_t id = small_add(&v, cases[i].text, VOCAB_NORMAL, 0.0f); /* a wrong type */
        struct vocab *vocab = small_open(&v);
        assert_int_equal(vocab_token_ends(vocab, id), cases[i].ends);
        if (cases[i].ends) { /* and it is a control token now */
            assert_int_equal(vocab_token_bytes(vocab, id, false, NULL, 0), 0);
        }
        assert_false(vocab_token_ends(vocab, 'a'));
        assert_false(vocab_token_ends(vocab, id + 1));
        vocab_close(vocab);
    }
}

static void test_ids_of_the_file_end_an_answer(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    v.source.eos = 'a';
    v.source.eot = 'b';
    v.source.eom = 'c';
    v.source.bos = 'd';
    struct vocab *vocab = small_open(&v);
    for (uint32_t id = 0; id < 256; id++) {
        assert_int_equal(vocab_token_ends(vocab, id), id == 'a' || id == 'b' || id == 'c');
    }
    assert_int_equal(vocab_eos(vocab), 'a');
    assert_int_equal(vocab_bos(vocab), 'd');
    vocab_close(vocab);
}

static void test_a_part_of_an_answer_does_not_end_it(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    uint32_t end = small_add(&v, "<|end|>", VOCAB_CONTROL, 0.0f);
    uint32_t call = small_add(&v, "<|call|>", VOCAB_CONTROL, 0.0f);
    small_add(&v, "<|return|>", VOCAB_CONTROL, 0.0f);
    struct vocab *vocab = small_open(&v);
    assert_false(vocab_token_ends(vocab, end));
    assert_true(vocab_token_ends(vocab, call));
    vocab_close(vocab);
    small_bpe(&v);
    uint32_t html = small_add(&v, "</s>", VOCAB_NORMAL, 0.0f);
    small_add(&v, "<|tool_response>", VOCAB_CONTROL, 0.0f);
    vocab = small_open(&v);
    assert_false(vocab_token_ends(vocab, html));
    assert_int_equal(vocab_token_bytes(vocab, html, false, NULL, 0), 4);
    vocab_close(vocab);
}

static void test_files_without_ids_have_the_usual_ones(void **state) {
    (void)state;
    struct small_vocab v;
    small_spm(&v);
    v.source.bos = v.source.eos = v.source.unk = -1;
    struct vocab *vocab = small_open(&v);
    assert_int_equal(vocab_bos(vocab), 1);
    assert_int_equal(vocab_eos(vocab), 2);
    vocab_close(vocab);
    small_bpe(&v);
    vocab = small_open(&v);
    assert_int_equal(vocab_bos(vocab), -1);
    assert_int_equal(vocab_eos(vocab), -1);
    vocab_close(vocab);
}

/* ---- from files --------------------------------------------------------------------------- */

#define KEY(name) "tokenizer.ggml." name

/* Opens the image's vocabulary; "" where it is taken, else the message. */
static const char *open_image(const struct image *image) {
    static char message[800];
    struct image_bytes file = image_serialise(image, NULL);
    struct ot_error err = {0};
    struct gguf g;
    struct vocab *vocab = NULL;
    uint64_t live = mem_live_bytes();
    message[0] = '\0';
    if (gguf_parse(&g, file.data, file.bytes, file.bytes, "file", &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    if (model_vocab_open(&g, "file", &vocab, &err) != 0) {
        assert_null(vocab);
        snprintf(message, sizeof message, "%s: %s", err.at, err.message);
    }
    vocab_close(vocab);
    gguf_deinit(&g);
    image_bytes_free(&file);
    assert_int_equal(mem_live_bytes(), live);
    return message;
}

static void expect_message(struct image *image, const char *key, const char *part) {
    const char *message = open_image(image);
    if (strstr(message, key) == NULL || strstr(message, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", message, key, part);
    }
    image_deinit(image);
}

static struct image vocab_image(bool spm) {
    struct image image;
    image_init(&image);
    tiny_vocab_add(&image, spm, 400);
    return image;
}

static void test_a_good_file_is_taken(void **state) {
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct image image = vocab_image(spm != 0);
        assert_string_equal(open_image(&image), "");
        image_remove_key(&image, KEY("token_type"));
        assert_string_equal(open_image(&image), "");
        image_deinit(&image);
    }
    struct image image = vocab_image(false);
    image_remove_key(&image, KEY("pre"));
    assert_string_equal(open_image(&image), "");
    image_deinit(&image);
}

static void test_missing_keys_are_named(void **state) {
    (void)state;
    static const struct {
        bool spm;
        const char *key;
    } cases[] = {{false, KEY("model")},
                 {false, KEY("tokens")},
                 {false, KEY("merges")},
                 {true, KEY("scores")}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image = vocab_image(cases[i].spm);
        image_remove_key(&image, cases[i].key);
        expect_message(&image, cases[i].key, "file");
    }
}

static void test_keys_of_the_wrong_type_are_named(void **state) {
    (void)state;
    static const char *const keys[] = {KEY("model"),        KEY("pre"),          KEY("tokens"),
                                       KEY("token_type"),   KEY("merges"),       KEY("scores"),
                                       KEY("bos_token_id"), KEY("add_bos_token")};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct image image = vocab_image(false);
        image_set_f32(&image, keys[i], 1.5f);
        expect_message(&image, keys[i], "file");
        image = vocab_image(false);
        image_set_array(&image, keys[i], GGUF_BOOL);
        expect_message(&image, keys[i], "file");
    }
}

static void test_arrays_of_the_wrong_length_are_named(void **state) {
    (void)state;
    struct image image = vocab_image(false);
    image_add_u32(image_find_key(&image, KEY("token_type")), 1);
    expect_message(&image, KEY("token_type"), "401");
    image = vocab_image(true);
    image_add_f32(image_find_key(&image, KEY("scores")), 1.0f);
    expect_message(&image, KEY("scores"), "one a token");
    image = vocab_image(false);
    image_set_array(&image, KEY("tokens"), GGUF_STRING);
    expect_message(&image, KEY("tokens"), "empty");
    image = vocab_image(false);
    image_set_u32(&image, KEY("eos_token_id"), 400);
    expect_message(&image, KEY("eos_token_id"), "400");
    image = vocab_image(false);
    image_set_i32(&image, KEY("bos_token_id"), -1);
    expect_message(&image, KEY("bos_token_id"), "-1");
}

/* ---- faults ------------------------------------------------------------------------------- */

static void use_all(const struct vocab *vocab, struct ot_error *err, int *rc) {
    static const char text[] = "a b\xFF</s> ab  abab<s>";
    uint32_t *ids = NULL;
    size_t n = 0, bytes = 0;
    char *back = NULL;
    *rc = vocab_tokenize(vocab, text, sizeof text - 1, OT_TOK_ADD_SPECIAL | OT_TOK_PARSE_SPECIAL,
                         &ids, &n, err);
    if (*rc == 0) {
        *rc = vocab_detokenize(vocab, ids, n, true, &back, &bytes, err);
    }
    ot_free(ids);
    ot_free(back);
}

/* Where compiled expressions find no memory, interpreted ones do: such a failure goes unnoticed. */
static void fail_each_allocation(const struct vocab_source *source) {
    uint64_t live = mem_live_bytes(), n_failed = 0;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        struct vocab *vocab = NULL;
        struct ot_error err = {0};
        mem_fail_at(n);
        int rc = vocab_open(source, &vocab, &err);
        if (rc == 0) {
            use_all(vocab, &err, &rc);
        }
        reached = mem_fail_count() >= n;
        mem_fail_at(0);
        vocab_close(vocab);
        assert_int_equal(mem_live_bytes(), live);
        assert_int_equal(rc, err.code);
        assert_true(rc == 0 || (rc == OT_ERR_MEMORY && reached));
        n_failed += rc != 0;
    }
    assert_true(n_failed > 10);
}

static void test_every_allocation_may_fail_once(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_merge(&v, "a", "b");
    small_merge(&v, "ab", "ab");
    small_add(&v, "</s>", VOCAB_CONTROL, 0.0f);
    v.source.pre = "deepseek-llm"; /* the most expressions */
    fail_each_allocation(&v.source);
    small_spm(&v);
    small_add(&v, "a", VOCAB_NORMAL, -1.0f);
    fail_each_allocation(&v.source);
}

static void test_every_allocation_may_fail_once_while_a_file_is_read(void **state) {
    (void)state;
    for (int spm = 0; spm < 2; spm++) {
        struct image image = vocab_image(spm != 0);
        struct image_bytes file = image_serialise(&image, NULL);
        struct gguf g;
        struct ot_error err;
        assert_int_equal(gguf_parse(&g, file.data, file.bytes, file.bytes, "file", &err), 0);
        uint64_t live = mem_live_bytes();
        bool reached = true;
        for (uint64_t n = 1; reached; n++) {
            struct vocab *vocab = NULL;
            mem_fail_at(n);
            int rc = model_vocab_open(&g, "file", &vocab, &err);
            reached = mem_fail_count() >= n;
            mem_fail_at(0);
            assert_true(rc == 0 || (rc == OT_ERR_MEMORY && reached));
            vocab_close(vocab);
            assert_int_equal(mem_live_bytes(), live);
        }
        gguf_deinit(&g);
        image_bytes_free(&file);
        image_deinit(&image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_kinds_are_refused_by_name_with_the_known_ones),
        cmocka_unit_test(test_merges_that_name_nothing_are_refused),
        cmocka_unit_test(test_damaged_tokens_are_refused),
        cmocka_unit_test(test_ids_out_of_range_are_refused),
        cmocka_unit_test(test_odd_vocabularies_are_taken),
        cmocka_unit_test(test_tokens_that_end_an_answer),
        cmocka_unit_test(test_ids_of_the_file_end_an_answer),
        cmocka_unit_test(test_a_part_of_an_answer_does_not_end_it),
        cmocka_unit_test(test_files_without_ids_have_the_usual_ones),
        cmocka_unit_test(test_a_good_file_is_taken),
        cmocka_unit_test(test_missing_keys_are_named),
        cmocka_unit_test(test_keys_of_the_wrong_type_are_named),
        cmocka_unit_test(test_arrays_of_the_wrong_length_are_named),
        cmocka_unit_test(test_every_allocation_may_fail_once),
        cmocka_unit_test(test_every_allocation_may_fail_once_while_a_file_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
