/* input.h - texts and token ids that a command reads: from the command line, files, standard input.
 */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include "cli/cli.h"

/* The longest text that the memory budget has room for, and the message where one is longer: an
 * exit code. */
size_t input_most_bytes(const struct settings *set);
int input_too_long(const char *name, size_t most);
/* The text of -p, of -f or of standard input, whole; *text is owned by the caller, NUL-terminated.
 * Returns 0 or an exit code after a message. */
int input_read(const struct settings *set, const char *prompt, const char *file, char **text,
               size_t *bytes);
/* The same as a text for the model: escapes in -p and -f are processed unless --no-escape is set.
 */
int input_read_prompt(const struct settings *set, char **text, size_t *bytes);
/* Replaces \n, \t, \r, \', \", \\ and \xNN in place, as llama.cpp's tools do; other backslashes
 * stay. Returns the new length. text[bytes] is NUL. */
size_t input_unescape(char *text, size_t bytes);
/* A JSON array of token ids below n_vocab, or (words) ids between spaces and commas. *ids is owned
 * by the caller. name: for messages. */
int input_ids(const char *name, const char *text, size_t bytes, uint32_t n_vocab, bool words,
              uint32_t **ids, size_t *n_ids);

#endif
