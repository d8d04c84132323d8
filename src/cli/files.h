/* files.h - the files that a command is to write. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include <limits.h>

#include "cli/cli.h"

/* Each of them can be written, is none that the command reads, and no other model: a slip of the
 * hand must not cost one. Returns 0 or an exit code after a message. */
int files_check(const struct settings *set);
/* Standard output (1) or error (2), where path leads to it, to be written to as it is; else -1. */
int files_own_stream(const char *path);
/* What a whole file replaces where path is asked for: what a link leads to, not the link, also where
 * no file is there yet. Returns real or path. */
const char *files_target(const char *path, char real[PATH_MAX]);

#endif
