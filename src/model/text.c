/* text.c - text to ids and back, and conversations, by a model's vocabulary and template. */
#include "base/error.h"
#include "model/model.h"
#include "token/chat.h"

int ot_tokenize(const struct ot_model *m, const char *text, size_t text_bytes, uint32_t flags,
                uint32_t **ids, size_t *n_ids, struct ot_error *err) {
    return vocab_tokenize(m->vocab, text, text_bytes, flags, ids, n_ids, err);
}

size_t ot_token_bytes(const struct ot_model *m, uint32_t token, bool special, char *buf,
                      size_t buf_bytes) {
    return vocab_token_bytes(m->vocab, token, special, buf, buf_bytes);
}

int ot_detokenize(const struct ot_model *m, const uint32_t *ids, size_t n_ids, bool special,
                  char **text, size_t *text_bytes, struct ot_error *err) {
    return vocab_detokenize(m->vocab, ids, n_ids, special, text, text_bytes, err);
}

bool ot_token_ends(const struct ot_model *m, uint32_t token) {
    return vocab_token_ends(m->vocab, token);
}

int64_t ot_token_bos(const struct ot_model *m) {
    return vocab_bos(m->vocab);
}
int64_t ot_token_eos(const struct ot_model *m) {
    return vocab_eos(m->vocab);
}

/* The format to use; NULL with err filled where there is none. */
static const char *choose_format(const struct ot_model *m, const char *format,
                                 struct ot_error *err) {
    const char *chosen = format != NULL ? format : m->chat_format;
    if (chosen == NULL) {
        error_set(err, OT_ERR_UNSUPPORTED, m->path,
                  m->chat_template != NULL
                      ? "the file's chat template is not one that is recognised (%s)"
                      : "the file has no chat template (known formats: %s)",
                  chat_known());
    }
    return chosen;
}

int ot_chat_render(const struct ot_model *m, const char *format, const struct ot_message *messages,
                   size_t n_messages, char **text, size_t *text_bytes, struct ot_error *err) {
    const char *chosen = choose_format(m, format, err);
    return chosen == NULL ? OT_ERR_UNSUPPORTED
                          : chat_render(chosen, m->chat_template, m->vocab, messages, n_messages,
                                        text, text_bytes, err);
}

int ot_chat_tokenize(const struct ot_model *m, const char *format,
                     const struct ot_message *messages, size_t n_messages, uint32_t **ids,
                     size_t *n_ids, struct ot_error *err) {
    const char *chosen = choose_format(m, format, err);
    return chosen == NULL ? OT_ERR_UNSUPPORTED
                          : chat_tokenize(m->vocab, chosen, m->chat_template, messages, n_messages,
                                          ids, n_ids, err);
}
