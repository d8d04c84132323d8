/* npy.h - a float32 array in NumPy's format, version 1.0, written row by row.
 *
 *   OFFSET  SIZE  VALUE
 *   0       6     "\x93NUMPY"
 *   6       2     version, 1 0
 *   8       2     bytes of the header that follows, little-endian
 *   10      n     Python literal of a dict: descr, fortran_order, shape; padded by spaces and ended
 *                 by a newline so that 10 + n is a multiple of 64
 *   10 + n        the rows */
#ifndef CLI_NPY_H
#define CLI_NPY_H

#include "cli/cli.h"

struct npy {
    const char *path; /* borrowed */
    char *temporary;  /* owned; NULL where path is written in place, as target is */
    char *target;     /* owned; what the temporary file is renamed to */
    FILE *file;
};

/* Each returns 0 or an exit code after a message. */
int npy_open(struct npy *npy, const char *path, uint64_t n_rows, uint64_t n_columns);
int npy_write(struct npy *npy, const float *values, size_t n);
/* Gives the file its name; with keep false, or where writing failed, it is removed instead. Where it
 * cannot be given its name it stays, and the message says where. */
int npy_close(struct npy *npy, bool keep);

#endif
