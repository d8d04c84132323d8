/* files.h - the files that a command is to write. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "cli/cli.h"

/* Each of them can be written, is none that the command reads, and no other model: a slip of the
 * hand must not cost one. Returns 0 or an exit code after a message. */
int files_check(const struct settings *set);

#endif
