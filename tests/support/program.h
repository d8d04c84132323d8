/* program.h - runs a program as a user would, and says what came of it. */
#ifndef TESTS_SUPPORT_PROGRAM_H
#define TESTS_SUPPORT_PROGRAM_H

#include <stddef.h>

struct outcome {
    int exit_code; /* -1 where a signal ended it */
    int signal;    /* that signal, else 0 */
    char *out;     /* owned [out_bytes], NUL-terminated: standard output */
    size_t out_bytes;
    char *err; /* owned, NUL-terminated: standard error */
};

/* Runs args[0] with args (NULL ends them); input is its whole standard input (NULL: none). It is
 * killed after two minutes. Aborts the test where the program cannot be started. */
struct outcome program_run(const char *const *args, const char *input, size_t input_bytes);
void outcome_free(struct outcome *o);

#endif
