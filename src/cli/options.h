/* options.h - the command line by one table: parsing, help and the man page's test read it. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdio.h>

#include "cli/cli.h"

void settings_default(struct settings *settings);

/* Parses argv[first ..]. Returns 0, or EXIT_USAGE after one line on standard error. */
int options_parse(const struct command *command, int argc, char **argv, int first,
                  struct settings *settings);
/* The options of a command, one or more lines each. */
void options_print(uint32_t mask, FILE *out);

/* "4G", "512MiB", "1000", "75%" (of the memory this process may use), "auto" (0 bytes). False where
 * the text is none of these, or too large. */
bool size_parse(const char *text, uint64_t *bytes);

/* Of an option of llama.cpp's programs, word [length], that a command has under another name: that
 * name. Of one that it lacks: what to do instead, one phrase. NULL: neither. */
const char *llama_same_as(uint32_t mask, const char *word, size_t length);
const char *llama_advice(uint32_t mask, const char *word, size_t length);
/* Of one that belongs to what other commands do: why it can be left out. NULL: there is none such. */
const char *llama_elsewhere(uint32_t mask, const char *word, size_t length);

/* The word among n (NULL ends) that word begins, or that it goes on from, or that a slip or two would
 * make of it; NULL where none is near. Case and dashes before it do not count. */
const char *nearest_word(const char *word, const char *const *words);

#endif
