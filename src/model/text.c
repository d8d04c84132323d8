/* text.c - text to ids and back, and conversations, by a model's vocabulary and template.
 *
 * The vocabulary's words lie in the mapped header of the first file: where that was cut or written
 * to, or a page of it was lost, what was made of it does not count. */
#include "base/alloc.h"
#include "base/error.h"
#include "model/model.h"
#include "token/chat.h"

/* 0 while the words are those that were opened. A file that ends within a page reads as zeros from
 * there on, without a fault. */
static int check_words(const struct ot_model *m, struct ot_error *err) {
    return sys_map_damaged(&m->headers[0]) ? sys_map_fault(&m->files[0], err)
                                           : sys_file_check(&m->files[0], err);
}

/* What a call returns that has made something of the words: its own code, or the error for words
 * that are no longer there; then what was made is freed. */
static int whole(const struct ot_model *m, int rc, void *made, struct ot_error *err) {
    int lost = check_words(m, rc == OT_OK ? err : NULL);
    if (lost != 0 && rc == OT_OK) {
        mem_free(made);
    }
    return rc == OT_OK ? lost : rc;
}

int ot_tokenize(const struct ot_model *m, const char *text, size_t text_bytes, uint32_t flags,
                uint32_t **ids, size_t *n_ids, struct ot_error *err) {
    uint32_t *made = NULL;
    size_t n = 0;
    int rc = vocab_tokenize(m->vocab, text, text_bytes, flags, &made, &n, err);
    rc = whole(m, rc, made, err);
    if (rc == OT_OK) {
        *ids = made;
        *n_ids = n;
    }
    return rc;
}

size_t ot_token_bytes(const struct ot_model *m, uint32_t token, bool special, char *buf,
                      size_t buf_bytes) {
    size_t bytes = vocab_token_bytes(m->vocab, token, special, buf, buf_bytes);
    return check_words(m, NULL) == 0 ? bytes : 0;
}

int ot_detokenize(const struct ot_model *m, const uint32_t *ids, size_t n_ids, bool special,
                  char **text, size_t *text_bytes, struct ot_error *err) {
    char *made = NULL;
    size_t bytes = 0;
    int rc = vocab_detokenize(m->vocab, ids, n_ids, special, &made, &bytes, err);
    rc = whole(m, rc, made, err);
    if (rc == OT_OK) {
        *text = made;
        *text_bytes = bytes;
    }
    return rc;
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
    if (chosen == NULL) {
        return OT_ERR_UNSUPPORTED;
    }
    char *made = NULL;
    size_t bytes = 0;
    int rc =
        chat_render(chosen, m->chat_template, m->vocab, messages, n_messages, &made, &bytes, err);
    rc = whole(m, rc, made, err);
    if (rc == OT_OK) {
        *text = made;
        *text_bytes = bytes;
    }
    return rc;
}

int ot_chat_tokenize(const struct ot_model *m, const char *format,
                     const struct ot_message *messages, size_t n_messages, uint32_t **ids,
                     size_t *n_ids, struct ot_error *err) {
    const char *chosen = choose_format(m, format, err);
    if (chosen == NULL) {
        return OT_ERR_UNSUPPORTED;
    }
    uint32_t *made = NULL;
    size_t n = 0;
    int rc =
        chat_tokenize(m->vocab, chosen, m->chat_template, messages, n_messages, &made, &n, err);
    rc = whole(m, rc, made, err);
    if (rc == OT_OK) {
        *ids = made;
        *n_ids = n;
    }
    return rc;
}
