/* ledger.c - `onetrip ledger`: the records of an earlier run as a table. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/output.h"

/* Whether the path leads to standard input, and that is no file: the library reads it as "-" only.
 */
static bool is_piped_input(const char *path) {
    struct stat named, in;
    return stat(path, &named) == 0 && !S_ISREG(named.st_mode) && fstat(STDIN_FILENO, &in) == 0 &&
           named.st_dev == in.st_dev && named.st_ino == in.st_ino;
}

int command_ledger(const struct settings *set) {
    struct ot_error err;
    struct collected text;
    const char *path = is_piped_input(set->operand) ? "-" : set->operand;
    if (collected_open(&text) == NULL) {
        return EXIT_FAILED;
    }
    int rc = ot_ledger_print(path, set->by, (uint32_t)set->top, text.file, &err);
    int written = collected_close(&text, rc == 0);
    return rc != 0 ? complain_error(&err) : written;
}
