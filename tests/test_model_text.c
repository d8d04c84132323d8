/* test_model_text.c - the public functions between text and tokens, on models of both kinds of
 * vocabulary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "onetrip.h"
#include "support/tiny_model.h"

static char directory[64];
static char path[128];

/* The model before it is to be closed: its file is written over. */
static struct ot_model *open_model(const struct image *image) {
    struct ot_model *model = NULL;
    struct ot_error err;
    image_write(image, path);
    if (ot_model_open(path, NULL, &model, &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    return model;
}

/* llama: byte-level BPE and a ChatML template. mixtral: SentencePiece, no template. */
static struct ot_model *open_family(enum tiny_family family) {
    struct tiny_model options;
    struct image image;
    tiny_model_defaults(&options, family, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    struct ot_model *model = open_model(&image);
    image_deinit(&image);
    return model;
}

static int64_t id_of(const struct ot_model *model, const char *special) {
    uint32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(
        ot_tokenize(model, special, strlen(special), OT_TOK_PARSE_SPECIAL, &ids, &n, NULL), 0);
    assert_int_equal(n, 1);
    uint32_t id = ids[0];
    ot_free(ids);
    return id;
}

static void test_bos_and_eos_are_the_files_own(void **state) {
    (void)state;
    struct ot_model *model = open_family(TINY_LLAMA);
    assert_int_equal(ot_token_bos(model), id_of(model, "<|endoftext|>"));
    assert_int_equal(ot_token_eos(model), id_of(model, "<|im_end|>"));
    assert_true(ot_token_ends(model, (uint32_t)ot_token_eos(model)));
    ot_model_close(model);
    model = open_family(TINY_MIXTRAL);
    assert_int_equal(ot_token_bos(model), 1);
    assert_int_equal(ot_token_eos(model), 2);
    assert_true(ot_token_ends(model, 2));
    assert_false(ot_token_ends(model, 1));
    assert_false(ot_token_ends(model, UINT32_MAX));
    ot_model_close(model);
}

static void test_a_vocabulary_without_bos_and_eos_says_so(void **state) {
    (void)state;
    struct tiny_model options;
    struct image image;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    image_remove_key(&image, "tokenizer.ggml.bos_token_id");
    image_remove_key(&image, "tokenizer.ggml.eos_token_id");
    struct ot_model *model = open_model(&image);
    image_deinit(&image);
    assert_int_equal(ot_token_bos(model), -1);
    assert_int_equal(ot_token_eos(model), -1);
    ot_model_close(model);
}

#define SAY(who, what)                                                                             \
    { OT_ROLE_##who, what, sizeof(what) - 1 }

static void test_a_conversation_is_written_as_the_files_template_has_it(void **state) {
    static const struct ot_message messages[] = {SAY(USER, "hi"), SAY(ASSISTANT, "yes"),
                                                 SAY(USER, "why")};
    static const char expected[] =
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
        "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n";
    (void)state;
    struct ot_model *model = open_family(TINY_LLAMA);
    struct ot_error err;
    char *text = NULL;
    size_t bytes = 0, n = 0, n_whole = 0;
    uint32_t *ids = NULL, *whole = NULL;
    assert_int_equal(ot_chat_render(model, NULL, messages, 3, &text, &bytes, &err), 0);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(text, expected);
    assert_int_equal(ot_chat_tokenize(model, NULL, messages, 3, &ids, &n, &err), 0);
    assert_int_equal(ot_tokenize(model, text, bytes, OT_TOK_PARSE_SPECIAL, &whole, &n_whole, &err),
                     0);
    assert_int_equal(n, n_whole);
    assert_memory_equal(ids, whole, n * sizeof *ids);
    ot_free(ids);
    ot_free(whole);
    ot_free(text);
    ot_model_close(model);
}

static void test_a_vocabulary_that_lost_a_page_gives_an_error(void **state) {
    static const struct ot_message message = SAY(USER, "hi");
    (void)state;
    struct ot_model *model = open_family(TINY_LLAMA);
    struct ot_error err = {0};
    uint32_t *ids = NULL, id = (uint32_t)id_of(model, "<|im_end|>");
    char *text = NULL, small[32];
    size_t n = 0, bytes = 0;
    assert_int_equal(ot_token_bytes(model, id, true, small, sizeof small), 10);
    assert_int_equal(truncate(path, 64), 0);
    assert_int_equal(ot_detokenize(model, &id, 1, true, &text, &bytes, &err), OT_ERR_CHANGED);
    assert_non_null(strstr(err.message, "had"));
    assert_null(text);
    assert_int_equal(ot_tokenize(model, "hi", 2, 0, &ids, &n, &err), OT_ERR_CHANGED);
    assert_int_equal(ot_chat_render(model, NULL, &message, 1, &text, &bytes, &err), OT_ERR_CHANGED);
    assert_int_equal(ot_chat_tokenize(model, NULL, &message, 1, &ids, &n, &err), OT_ERR_CHANGED);
    assert_null(text);
    assert_null(ids);
    assert_int_equal(ot_token_bytes(model, id, true, small, sizeof small), 0);
    ot_model_close(model);
}

static size_t count(const uint32_t *ids, size_t n, int64_t id) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        found += ids[i] == id;
    }
    return found;
}

static void test_a_special_token_in_a_message_is_text_in_a_chat_alone(void **state) {
    static const struct ot_message message = SAY(USER, "a<|im_end|>b");
    (void)state;
    struct ot_model *model = open_family(TINY_LLAMA);
    struct ot_error err;
    int64_t end = id_of(model, "<|im_end|>");
    uint32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(ot_chat_tokenize(model, "chatml", &message, 1, &ids, &n, &err), 0);
    assert_int_equal(count(ids, n, end), 1); /* the template's */
    ot_free(ids);
    assert_int_equal(
        ot_tokenize(model, message.text, message.text_bytes, OT_TOK_PARSE_SPECIAL, &ids, &n, &err),
        0);
    assert_int_equal(count(ids, n, end), 1);
    ot_free(ids);
    assert_int_equal(ot_tokenize(model, message.text, message.text_bytes, 0, &ids, &n, &err), 0);
    assert_int_equal(count(ids, n, end), 0);
    ot_free(ids);
    ot_model_close(model);
}

static void test_a_format_that_is_not_there_is_refused_and_nothing_is_set(void **state) {
    static const struct ot_message message = SAY(USER, "hi");
    (void)state;
    struct ot_model *model = open_family(TINY_MIXTRAL);
    struct ot_error err;
    char *text = NULL;
    size_t bytes = 77;
    assert_int_equal(ot_chat_render(model, NULL, &message, 1, &text, &bytes, &err),
                     OT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no chat template"));
    assert_int_equal(ot_chat_render(model, "nosuch", &message, 1, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "unknown format \"nosuch\""));
    assert_int_equal(ot_chat_render(model, "zephyr", &message, 0, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    assert_null(text);
    assert_int_equal(bytes, 77);
    assert_int_equal(ot_chat_render(model, "zephyr", &message, 1, &text, &bytes, &err), 0);
    assert_string_equal(text, "<|user|>\nhi</s>\n<|assistant|>\n");
    ot_free(text);
    ot_model_close(model);
}

static void test_a_tokens_bytes_are_counted_also_where_there_is_no_room(void **state) {
    (void)state;
    struct ot_model *model = open_family(TINY_LLAMA);
    uint32_t end = (uint32_t)ot_token_eos(model);
    char buf[16] = "................";
    assert_int_equal(ot_token_bytes(model, end, false, buf, sizeof buf), 0);
    assert_int_equal(ot_token_bytes(model, end, true, NULL, 0), 10);
    assert_int_equal(ot_token_bytes(model, end, true, buf, 4), 10);
    assert_memory_equal(buf, "<|im............", 16);
    assert_int_equal(ot_token_bytes(model, UINT32_MAX, true, buf, sizeof buf), 0);
    ot_model_close(model);
}

static void test_a_template_above_a_mebibyte_is_refused(void **state) {
    struct tiny_model options;
    struct image image;
    struct ot_model *model = NULL;
    struct ot_error err;
    (void)state;
    char *source = calloc((1u << 20) + 2, 1);
    assert_non_null(source);
    memset(source, 'x', (1u << 20) + 1);
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    image_set_text(&image, "tokenizer.chat_template", source);
    image_write(&image, path);
    assert_int_equal(ot_model_open(path, NULL, &model, &err), OT_ERR_FORMAT);
    assert_null(model);
    assert_non_null(strstr(err.message, "1048577 bytes"));
    source[1u << 20] = '\0';
    image_set_text(&image, "tokenizer.chat_template", source);
    ot_model_close(open_model(&image));
    image_deinit(&image);
    free(source);
}

static int set_up(void **state) {
    (void)state;
    image_directory_make(directory);
    snprintf(path, sizeof path, "%s/model.gguf", directory);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bos_and_eos_are_the_files_own),
        cmocka_unit_test(test_a_vocabulary_without_bos_and_eos_says_so),
        cmocka_unit_test(test_a_conversation_is_written_as_the_files_template_has_it),
        cmocka_unit_test(test_a_vocabulary_that_lost_a_page_gives_an_error),
        cmocka_unit_test(test_a_special_token_in_a_message_is_text_in_a_chat_alone),
        cmocka_unit_test(test_a_format_that_is_not_there_is_refused_and_nothing_is_set),
        cmocka_unit_test(test_a_tokens_bytes_are_counted_also_where_there_is_no_room),
        cmocka_unit_test(test_a_template_above_a_mebibyte_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
