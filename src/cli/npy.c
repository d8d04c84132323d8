/* npy.c - NumPy files. */
#include "cli/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/stop.h"

static int fail(struct npy *npy) {
    complain("%s: cannot be written: %s", npy->path, strerror(errno));
    return EXIT_FAILED;
}

int npy_open(struct npy *npy, const char *path, uint64_t n_rows, uint64_t n_columns) {
    *npy = (struct npy){.path = path};
    struct stat st;
    /* A pipe or a device cannot be replaced by a renamed file. */
    bool in_place = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    if (!in_place) {
        size_t bytes = strlen(path) + 32;
        npy->temporary = malloc(bytes);
        if (npy->temporary == NULL) {
            return complain_memory();
        }
        snprintf(npy->temporary, bytes, "%s.%ld.part", path, (long)getpid());
    }
    npy->file = fopen(in_place ? path : npy->temporary, "wb");
    if (npy->file == NULL) {
        int rc = fail(npy);
        free(npy->temporary);
        npy->temporary = NULL;
        return rc;
    }
    stop_unfinished = npy->temporary;
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
    return fwrite(header, 1, total, npy->file) == total ? 0 : fail(npy);
}

int npy_write(struct npy *npy, const float *values, size_t n) {
    return fwrite(values, sizeof *values, n, npy->file) == n ? 0 : fail(npy);
}

int npy_close(struct npy *npy, bool keep) {
    if (npy->file == NULL) {
        return 0;
    }
    int rc = fclose(npy->file) == 0 || !keep ? 0 : fail(npy);
    if (npy->temporary != NULL) {
        if (keep && rc == 0 && rename(npy->temporary, npy->path) != 0) {
            rc = fail(npy);
        }
        if (!keep || rc != 0) {
            unlink(npy->temporary);
        }
        stop_unfinished = NULL;
        free(npy->temporary);
    }
    *npy = (struct npy){.path = NULL};
    return rc;
}
