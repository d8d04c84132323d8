/* chat.c - chat formats: names, and conversations as text and as tokens. */
#include "token/chat.h"

#include <string.h>

#include "base/error.h"
#include "token/chat_parts.h"

static const char *const names[CHAT_FORMATS] = {
    [CHAT_CHATML] = "chatml",     [CHAT_LLAMA2] = "llama2", [CHAT_LLAMA3] = "llama3",
    [CHAT_MISTRAL] = "mistral",   [CHAT_GEMMA] = "gemma",   [CHAT_PHI3] = "phi3",
    [CHAT_DEEPSEEK] = "deepseek", [CHAT_ZEPHYR] = "zephyr"};

const char *chat_recognise(const char *template_text) {
    enum chat_format format = template_text == NULL ? CHAT_FORMATS : chat_detect(template_text);
    return format == CHAT_FORMATS ? NULL : names[format];
}

const char *chat_known(void) {
    return "chatml, llama2, llama3, mistral, gemma, phi3, deepseek, zephyr";
}

/* How the vocabulary writes a token, or the usual text. */
static void token_text(const struct vocab *vocab, int64_t id, const char *usual, char out[64]) {
    size_t n = vocab == NULL || id < 0 ? 0 : vocab_token_bytes(vocab, (uint32_t)id, true, out, 63);
    if (n == 0 || n > 63) {
        n = strlen(usual);
        memcpy(out, usual, n);
    }
    out[n] = '\0';
}

static int check_messages(const struct ot_message *messages, size_t n, struct ot_error *err) {
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (messages[i].role != OT_ROLE_SYSTEM && messages[i].role != OT_ROLE_USER &&
            messages[i].role != OT_ROLE_ASSISTANT) {
            return error_set(err, OT_ERR_ARGUMENT, "messages", "message %zu has no known role", i);
        }
        total = messages[i].text_bytes > 1u << 30 ? UINT64_MAX : total + messages[i].text_bytes;
        if (total > 1u << 30) {
            return error_set(err, OT_ERR_ARGUMENT, "messages", "more than 1 GiB of text");
        }
    }
    if (n == 0) {
        return error_set(err, OT_ERR_ARGUMENT, "messages", "there are none");
    }
    return 0;
}

/* Fills *w and *facts; on failure both are empty. */
static int write_all(struct chat_writer *w, struct chat_facts *facts, const char *format_name,
                     const char *template_text, const struct vocab *vocab,
                     const struct ot_message *messages, size_t n_messages, struct ot_error *err) {
    memset(w, 0, sizeof *w);
    memset(facts, 0, sizeof *facts);
    uint32_t format = 0;
    while (format < CHAT_FORMATS && strcmp(names[format], format_name) != 0) {
        format++;
    }
    if (format == CHAT_FORMATS) {
        return error_set(err, OT_ERR_ARGUMENT, "chat format", "unknown format \"%.40s\"; known: %s",
                         format_name, chat_known());
    }
    int rc = check_messages(messages, n_messages, err);
    if (rc != 0) {
        return rc;
    }
    if (template_text != NULL && chat_detect(template_text) != format) {
        template_text = NULL; /* another format's: it says nothing about this one */
    }
    if (!chat_facts_read(facts, format, template_text)) {
        return error_memory(err, 0);
    }
    token_text(vocab, vocab == NULL ? -1 : vocab_bos(vocab), "<s>", w->bos);
    token_text(vocab, vocab == NULL ? -1 : vocab_eos(vocab), "</s>", w->eos);
    chat_write(w, format, facts, messages, n_messages);
    if (w->failed) {
        chat_writer_deinit(w);
        chat_facts_deinit(facts);
        return error_memory(err, 0);
    }
    return 0;
}

int chat_render(const char *format, const char *template_text, const struct vocab *vocab,
                const struct ot_message *messages, size_t n_messages, char **text,
                size_t *text_bytes, struct ot_error *err) {
    struct chat_writer w;
    struct chat_facts facts;
    uint64_t bytes = 0;
    int rc = write_all(&w, &facts, format, template_text, vocab, messages, n_messages, err);
    if (rc != 0) {
        return rc;
    }
    chat_facts_deinit(&facts);
    char *data = text_take(&w.text, &bytes);
    chat_writer_deinit(&w);
    if (data == NULL) {
        return error_memory(err, 0);
    }
    *text = data;
    *text_bytes = bytes;
    return 0;
}

int chat_tokenize(const struct vocab *vocab, const char *format, const char *template_text,
                  const struct ot_message *messages, size_t n_messages, uint32_t **ids,
                  size_t *n_ids, struct ot_error *err) {
    struct chat_writer w;
    struct chat_facts facts;
    int rc = write_all(&w, &facts, format, template_text, vocab, messages, n_messages, err);
    if (rc != 0) {
        return rc;
    }
    rc = vocab_tokenize_quoting(vocab, w.text.data, w.text.bytes, facts.says_bos, w.content,
                                w.n_content, ids, n_ids, err);
    chat_facts_deinit(&facts);
    chat_writer_deinit(&w);
    return rc;
}
