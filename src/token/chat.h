/* chat.h - chat formats: recognised from a file's Jinja template by what it writes, not run. */
#ifndef TOKEN_CHAT_H
#define TOKEN_CHAT_H

#include "onetrip.h"

/* "chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "deepseek", "zephyr"; NULL where the
 * template is none of them. */
const char *chat_recognise(const char *template_text);
/* All names, comma-separated, for messages. */
const char *chat_known(void);
/* As ot_chat_render; format must be one of the names. template_text (may be NULL) decides between
 * variants of a format (default system prompt, spaces). */
int chat_render(const char *format, const char *template_text, const struct ot_message *messages,
                size_t n_messages, char **text, size_t *text_bytes, struct ot_error *err);

#endif
