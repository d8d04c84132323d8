/* Chat formats: recognised, rendered as the template itself would be, and safe from what people
 * say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "support/vocab_file.h"
#include "token/chat.h"
#include "token/vocab.h"

#define SAY(who, what)                                                                             \
    { OT_ROLE_##who, what, sizeof(what) - 1 }

struct conversation {
    struct ot_message messages[8];
    size_t n;
};

/* As in data/tokenizer/chat/render.py. */
static const struct conversation conversations[] = {
    {{SAY(USER, "Hi")}, 1},
    {{SAY(SYSTEM, "Be brief."), SAY(USER, "Hi")}, 2},
    {{SAY(USER, "Hi"), SAY(ASSISTANT, "Hello."), SAY(USER, "Why?")}, 3},
    {{SAY(SYSTEM, " Be brief.\n"), SAY(USER, "  Hi \n"), SAY(ASSISTANT, "\nHello. "),
      SAY(USER, "Why?\xE3\x80\x80"), SAY(ASSISTANT, "So"), SAY(USER, "ok")},
     6},
    {{SAY(USER, "Hi"), SAY(ASSISTANT, "<think>\nhm\n</think>\n\nHello."), SAY(USER, "Why?")}, 3},
};
enum { N_CONVERSATIONS = sizeof conversations / sizeof *conversations };

static const struct {
    const char *name, *format;
} templates[] = {
    {"chatml-smollm2", "chatml"}, {"chatml-plain", "chatml"},
    {"chatml-qwen2.5", "chatml"}, {"chatml-double-quotes", "chatml"},
    {"chatml-qwen3", "chatml"},   {"chatml-thinks", "chatml"},
    {"chatml-im-sep", "chatml"},  {"llama2", "llama2"},
    {"llama3", "llama3"},         {"llama3.1", "llama3"},
    {"mistral-old", "mistral"},   {"mistral-v1", "mistral"},
    {"mistral-v3", "mistral"},    {"mistral-tekken", "mistral"},
    {"mistral-v7", "mistral"},    {"gemma2", "gemma"},
    {"gemma3", "gemma"},          {"phi3", "phi3"},
    {"phi3-joined", "phi3"},      {"deepseek-coder", "deepseek"},
    {"deepseek-v2", "deepseek"},  {"deepseek-v3", "deepseek"},
    {"deepseek-r1", "deepseek"},  {"zephyr", "zephyr"},
};
enum { N_TEMPLATES = sizeof templates / sizeof *templates };

static char *read_data(const char *name, const char *ending) {
    char path[4096];
    size_t bytes;
    snprintf(path, sizeof path, TEST_DATA "/tokenizer/chat/%s%s", name, ending);
    char *text = file_read(path, &bytes);
    if (text == NULL) {
        fail_msg("%s cannot be read", path);
    }
    return text;
}

/* ---- rendering ---------------------------------------------------------------------------- */

static void test_templates_are_recognised_by_what_they_write(void **state) {
    (void)state;
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        char *text = read_data(templates[i].name, ".jinja");
        const char *format = chat_recognise(text);
        assert_non_null(format);
        assert_string_equal(format, templates[i].format);
        assert_non_null(strstr(chat_known(), format));
        free(text);
    }
    static const char *const others[] = {
        "", "{{ messages }}", "[gMASK]<sop><|user|>\n<|assistant|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_null(chat_recognise(others[i]));
    }
    assert_null(chat_recognise(NULL));
}

static void test_formats_write_what_the_template_would(void **state) {
    (void)state;
    unsigned n_compared = 0;
    for (size_t t = 0; t < N_TEMPLATES; t++) {
        char *source = read_data(templates[t].name, ".jinja"),
             *all = read_data(templates[t].name, ".out");
        const char *at = all;
        for (size_t c = 0; c < N_CONVERSATIONS; c++) {
            const char *end = strstr(at, "\n=====\n");
            assert_non_null(end);
            char *text = NULL;
            size_t bytes = 0, expected = (size_t)(end - at);
            struct ot_error err;
            assert_int_equal(chat_render(templates[t].format, source, NULL,
                                         conversations[c].messages, conversations[c].n, &text,
                                         &bytes, &err),
                             0);
            bool refused = expected == 7 && memcmp(at, "refused", 7) == 0;
            if (!refused && (bytes != expected || memcmp(at, text, bytes) != 0)) {
                fail_msg("%s, conversation %zu:\n%s\nexpected:\n%.*s", templates[t].name, c, text,
                         (int)expected, at);
            }
            n_compared += !refused;
            ot_free(text);
            at = end + 7;
        }
        free(source);
        free(all);
    }
    assert_true(n_compared > N_TEMPLATES * 4);
}

static void render(const char *format, const char *source, const struct ot_message *messages,
                   size_t n, const char *expected) {
    char *text = NULL;
    size_t bytes = 0;
    struct ot_error err;
    assert_int_equal(chat_render(format, source, NULL, messages, n, &text, &bytes, &err), 0);
    assert_string_equal(text, expected);
    assert_int_equal(bytes, strlen(expected));
    ot_free(text);
}

static void test_a_chosen_format_needs_no_template(void **state) {
    (void)state;
    const struct ot_message question[] = {SAY(SYSTEM, "S"), SAY(USER, "Q")};
    render(
        "chatml", NULL, question, 2,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n");
    render("llama2", NULL, question, 2, "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]");
    render("mistral", NULL, question, 2, "[INST] S\n\nQ[/INST]");
    render("gemma", NULL, question, 2,
           "<start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n");
    render("phi3", NULL, question, 2, "<|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\n");
    render("zephyr", NULL, question, 2, "<|system|>\nS</s>\n<|user|>\nQ</s>\n<|assistant|>\n");
    render("deepseek", NULL, question, 2,
           "S<\xEF\xBD\x9CUser\xEF\xBD\x9C>Q<\xEF\xBD\x9C"
           "Assistant\xEF\xBD\x9C>");
    render("llama3", NULL, question, 2,
           "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
           "<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    char *other = read_data("chatml-smollm2", ".jinja"); /* says nothing about Gemma */
    render("gemma", other, question + 1, 1,
           "<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n");
    free(other);
}

static void test_a_system_message_without_a_question_is_not_lost(void **state) {
    (void)state;
    const struct ot_message system[] = {SAY(SYSTEM, "S")};
    render("gemma", NULL, system, 1,
           "<start_of_turn>user\nS\n\n<end_of_turn>\n<start_of_turn>model\n");
    render("mistral", NULL, system, 1, "[INST] S[/INST]");
    render("llama2", NULL, system, 1, "[INST] <<SYS>>\nS\n<</SYS>>\n\n [/INST]");
}

/* Looking at every head would take minutes: each look goes through all of the text. */
static void test_a_template_of_many_heads_takes_no_longer(void **state) {
    static const char head[] = "<|im_start|>system\\n";
    const size_t bytes = CHAT_TEMPLATE_BYTES_MAX / (sizeof head - 1) * (sizeof head - 1);
    (void)state;
    char *source = calloc(bytes + 1, 1);
    assert_non_null(source);
    for (size_t at = 0; at < bytes; at += sizeof head - 1) {
        memcpy(source + at, head, sizeof head - 1);
    }
    alarm(20);
    for (size_t i = 0; i < 2; i++) {
        render("chatml", source, conversations[0].messages, 1,
               "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
        source[0] = i == 0 ? '\'' : '<';
    }
    alarm(0);
    free(source);
}

static void test_bad_calls_are_refused(void **state) {
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    struct ot_error err;
    struct ot_message message = SAY(USER, "Q");
    assert_int_equal(chat_render("morse", NULL, NULL, &message, 1, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "chatml, llama2"));
    assert_int_equal(chat_render("chatml", NULL, NULL, &message, 0, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    message.role = (enum ot_role)7;
    assert_int_equal(chat_render("chatml", NULL, NULL, &message, 1, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    message = (struct ot_message){OT_ROLE_USER, "", (2ull << 30)};
    assert_int_equal(chat_render("chatml", NULL, NULL, &message, 1, &text, &bytes, &err),
                     OT_ERR_ARGUMENT);
    assert_null(text);
}

/* ---- tokens ------------------------------------------------------------------------------- */

/* "1 2 3" of a conversation. */
static const char *chat_ids(const struct vocab *vocab, const char *format, const char *source,
                            const struct ot_message *messages, size_t n) {
    static char line[8192];
    uint32_t *ids = NULL;
    size_t n_ids = 0, used = 0;
    struct ot_error err;
    assert_int_equal(chat_tokenize(vocab, format, source, messages, n, &ids, &n_ids, &err), 0);
    for (size_t i = 0; i < n_ids && used < sizeof line - 16; i++) {
        used += (size_t)snprintf(line + used, 16, i == 0 ? "%u" : " %u", ids[i]);
    }
    ot_free(ids);
    return line;
}

static void test_ordinary_messages_give_the_tokens_of_the_whole_text(void **state) {
    (void)state;
    static const char *const vocabularies[] = {"smollm2", "qwen2", "llama-bpe", "llama-spm",
                                               "phi-3"};
    static const char *const formats[] = {"chatml", "llama2", "llama3",   "mistral",
                                          "gemma",  "phi3",   "deepseek", "zephyr"};
    for (size_t v = 0; v < 5; v++) {
        struct vocab_file file = vocab_file_open(TOKENIZER_DATA, vocabularies[v], NULL);
        for (size_t f = 0; f < 8; f++) {
            for (size_t c = 0; c < N_CONVERSATIONS; c++) {
                char *text = NULL;
                size_t bytes = 0;
                struct ot_error err;
                assert_int_equal(chat_render(formats[f], NULL, file.vocab,
                                             conversations[c].messages, conversations[c].n, &text,
                                             &bytes, &err),
                                 0);
                const char *whole =
                    ids_of(file.vocab, text, bytes, OT_TOK_ADD_SPECIAL | OT_TOK_PARSE_SPECIAL);
                assert_string_equal(chat_ids(file.vocab, formats[f], NULL,
                                             conversations[c].messages, conversations[c].n),
                                    whole);
                ot_free(text);
            }
        }
        vocab_file_close(&file);
    }
}

static void test_special_tokens_in_messages_stay_text(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    small_add(&v, "<|im_start|>", VOCAB_CONTROL, 0.0f); /* 256 */
    small_add(&v, "<|im_end|>", VOCAB_CONTROL, 0.0f);   /* 257 */
    small_add(&v, "++", VOCAB_USER, 0.0f);              /* 258 */
    struct vocab *vocab = small_open(&v);
    const struct ot_message message[] = {SAY(USER, "<|im_end|>++")};
    assert_string_equal(chat_ids(vocab, "chatml", NULL, message, 1),
                        "256 117 115 101 114 10 "               /* user */
                        "60 124 105 109 95 101 110 100 124 62 " /* what was typed */
                        "258 257 10 " /* user-defined tokens are ordinary */
                        "256 97 115 115 105 115 116 97 110 116 10");
    /* Half a token in the message and half in the markup is none. */
    const struct ot_message half[] = {SAY(USER, "<|im_end|")};
    const char *ids = chat_ids(vocab, "chatml", "<|im_start|>{{ '>' }}", half, 1);
    assert_null(strstr(ids, "124 62"));
    const char *first_end = strstr(ids, "257");
    assert_non_null(first_end);
    assert_null(strstr(first_end + 3, "257"));
    vocab_close(vocab);
}

static void test_bos_comes_first_where_vocabulary_or_template_ask_for_it(void **state) {
    (void)state;
    struct small_vocab v;
    small_bpe(&v);
    v.source.bos = small_add(&v, "<s>", VOCAB_CONTROL, 0.0f); /* 256 */
    v.source.eos = small_add(&v, "</s>", VOCAB_CONTROL, 0.0f);
    v.source.add_eos = 1; /* but no EOS before an answer */
    const struct ot_message message[] = {SAY(USER, "Q")};
    struct vocab *vocab = small_open(&v);
    assert_memory_equal(chat_ids(vocab, "mistral", NULL, message, 1), "91 ", 3);
    assert_memory_equal(chat_ids(vocab, "mistral", "{{ bos_token }}[INST]", message, 1), "256 91 ",
                        7);
    vocab_close(vocab);
    v.source.add_bos = 1;
    vocab = small_open(&v);
    assert_memory_equal(chat_ids(vocab, "mistral", NULL, message, 1), "256 91 ", 7);
    assert_memory_equal(chat_ids(vocab, "mistral", "{{ bos_token }}[INST]", message, 1), "256 91 ",
                        7);
    assert_null(strstr(chat_ids(vocab, "mistral", NULL, message, 1), "257"));
    vocab_close(vocab);
}

static void test_every_allocation_may_fail_once(void **state) {
    (void)state;
    char *source = read_data("chatml-smollm2", ".jinja");
    struct small_vocab v;
    small_bpe(&v);
    small_add(&v, "<|im_end|>", VOCAB_CONTROL, 0.0f);
    struct vocab *vocab = small_open(&v);
    uint64_t live = mem_live_bytes(), n_failed = 0;
    bool reached = true;
    for (uint64_t n = 1; reached; n++) {
        uint32_t *ids = NULL;
        char *text = NULL;
        size_t count = 0;
        struct ot_error err = {0};
        mem_fail_at(n);
        int rc =
            chat_render("chatml", source, vocab, conversations[3].messages, 6, &text, &count, &err);
        if (rc == 0) {
            rc = chat_tokenize(vocab, "chatml", source, conversations[3].messages, 6, &ids, &count,
                               &err);
        }
        reached = mem_fail_count() >= n;
        mem_fail_at(0);
        assert_true(rc == 0 || (rc == OT_ERR_MEMORY && err.code == rc && reached));
        n_failed += rc != 0;
        ot_free(ids);
        ot_free(text);
        assert_int_equal(mem_live_bytes(), live);
    }
    assert_true(n_failed > 5);
    vocab_close(vocab);
    free(source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_templates_are_recognised_by_what_they_write),
        cmocka_unit_test(test_formats_write_what_the_template_would),
        cmocka_unit_test(test_a_chosen_format_needs_no_template),
        cmocka_unit_test(test_a_system_message_without_a_question_is_not_lost),
        cmocka_unit_test(test_a_template_of_many_heads_takes_no_longer),
        cmocka_unit_test(test_bad_calls_are_refused),
        cmocka_unit_test(test_ordinary_messages_give_the_tokens_of_the_whole_text),
        cmocka_unit_test(test_special_tokens_in_messages_stay_text),
        cmocka_unit_test(test_bos_comes_first_where_vocabulary_or_template_ask_for_it),
        cmocka_unit_test(test_every_allocation_may_fail_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
