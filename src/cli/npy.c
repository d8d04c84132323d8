/* npy.c - NumPy files. */
#include "cli/npy.h"

#include <inttypes.h>
#include <string.h>

int npy_open(struct output_file *out, const char *path, uint64_t n_rows, uint64_t n_columns) {
    char header[256];
    int n =
        snprintf(header + 10, sizeof header - 10,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64 "), }",
                 n_rows, n_columns);
    size_t total = ((size_t)n + 11 + 63) / 64 * 64;
    memset(header + 10 + n, ' ', total - 11 - (size_t)n);
    header[total - 1] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)((total - 10) & 0xff);
    header[9] = (char)((total - 10) >> 8);
    int rc = files_open(out, path);
    return rc != 0 ? rc : files_write(out, header, total);
}
