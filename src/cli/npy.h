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

#include "cli/files.h"

/* The file, and its header; the rows follow by files_write. Returns 0 or an exit code after a message. */
int npy_open(struct output_file *out, const char *path, uint64_t n_rows, uint64_t n_columns);

#endif
