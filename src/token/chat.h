/* chat.h - chat formats: recognised from a file's Jinja template by what it writes, not run.
 *
 * A conversation becomes text in which two things are told apart: what the format writes (markup)
 * and what people and models said. Tokenised by chat_tokenize, special tokens are recognised in the
 * markup only: "<|im_end|>" in a question stays six ordinary characters and more, and ends nothing.
 */
#ifndef TOKEN_CHAT_H
#define TOKEN_CHAT_H

#include "onetrip.h"
#include "token/vocab.h"

/* Longer templates are no templates; the largest known ones have some 20 KB. */
#define CHAT_TEMPLATE_BYTES_MAX (1u << 20)

/* "chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "deepseek", "zephyr"; NULL where the
 * template is none of them. */
const char *chat_recognise(const char *template_text);
/* All names, comma-separated, for messages. */
const char *chat_known(void);

/* As ot_chat_render; format must be one of the names. template_text (may be NULL) decides between
 * variants of its own format (default system prompt, spaces). vocab (may be NULL) knows how the
 * model writes BOS and EOS. Errors: ARGUMENT, MEMORY. */
int chat_render(const char *format, const char *template_text, const struct vocab *vocab,
                const struct ot_message *messages, size_t n_messages, char **text,
                size_t *text_bytes, struct ot_error *err);

/* As ot_chat_tokenize: the tokens of what chat_render writes, a BOS token before them where the
 * vocabulary or the template asks for it. *ids: free with mem_free. Errors: ARGUMENT, MEMORY. */
int chat_tokenize(const struct vocab *vocab, const char *format, const char *template_text,
                  const struct ot_message *messages, size_t n_messages, uint32_t **ids,
                  size_t *n_ids, struct ot_error *err);

#endif
