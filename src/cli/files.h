/* files.h - the files that a command is to write. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "cli/cli.h"

/* Each of them can be written, is none that the command reads, and no other model: a slip of the
 * hand must not cost one. Returns 0 or an exit code after a message. */
int files_check(const struct settings *set);
/* The option that makes the command write this file, "--report"; NULL: none does. */
const char *files_option_of(const struct settings *set, const char *path);
/* A file that is written whole. What is there keeps its name until then, and its rights for good; a link
 * stays, and what it leads to is replaced, or made. A pipe, a device and our own standard output or
 * error are written to as they are. */
struct output_file {
    const char *path; /* borrowed */
    char *temporary;  /* owned; NULL where path is written in place, as target is */
    char *target;     /* owned; what the temporary file is renamed to */
    FILE *file;       /* owned; NULL: not open */
    uint64_t written_bytes;
};

/* Each returns 0 or an exit code after a message. */
int files_open(struct output_file *out, const char *path);
int files_write(struct output_file *out, const void *data, size_t bytes);
/* Gives the file its name; with keep false, or where writing failed, it is removed instead. Where it
 * cannot be given its name it stays, and the message says where. Nothing where none is open. */
int files_close(struct output_file *out, bool keep);

#endif
