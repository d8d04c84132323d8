/* output.h - a file that is written piece by piece while a run goes on.
 *
 * Threads: one. */
#ifndef SYS_OUTPUT_H
#define SYS_OUTPUT_H

#include <stdint.h>

#include "onetrip.h"

struct sys_output {
    char *path; /* owned */
    int fd;
};

/* Creates or empties the file; standard output and error are gone on with. Errors: IO, MEMORY. */
int sys_output_open(struct sys_output *output, const char *path, struct ot_error *err);
/* Writes all bytes at the end. Errors: IO; how much was written is then not known. */
int sys_output_write(struct sys_output *output, const void *data, uint64_t bytes,
                     struct ot_error *err);
/* Errors: IO (also those that the operating system reports late); closed in any case. */
int sys_output_close(struct sys_output *output, struct ot_error *err);

#endif
