/* npy.c - NumPy files. */
#include "cli/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/stop.h"

static int fail(struct npy *npy) {
    complain("%s: cannot be written: %s", npy->path, strerror(errno));
    return EXIT_FAILED;
}

static void forget(struct npy *npy) {
    free(npy->target);
    free(npy->temporary);
    *npy = (struct npy){.path = NULL};
}

/* Pipes, devices and our own output cannot be replaced by a renamed file. */
static FILE *open_in_place(const char *path) {
    int own = files_own_stream(path);
    int fd =
        own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 0) : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (file == NULL && fd >= 0) {
        close(fd);
    }
    return file;
}

/* A new file, never one that somebody else has put there. */
static FILE *open_temporary(const char *path) {
    FILE *file = fopen(path, "wbxe");
    if (file == NULL && errno == EEXIST && unlink(path) == 0) { /* a dead process of our number */
        file = fopen(path, "wbxe");
    }
    return file;
}

int npy_open(struct npy *npy, const char *path, uint64_t n_rows, uint64_t n_columns) {
    *npy = (struct npy){.path = path};
    struct stat st;
    if (files_own_stream(path) >= 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode))) {
        npy->file = open_in_place(path);
    } else {
        char real[PATH_MAX];
        const char *target = files_target(path, real);
        size_t bytes = strlen(target) + 32;
        npy->target = strdup(target);
        npy->temporary = malloc(bytes);
        if (npy->target == NULL || npy->temporary == NULL) {
            forget(npy);
            return complain_memory();
        }
        snprintf(npy->temporary, bytes, "%s.%ld.part", target, (long)getpid());
        npy->file = open_temporary(npy->temporary);
    }
    if (npy->file == NULL) {
        int rc = fail(npy);
        forget(npy);
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
        if (!keep || rc != 0) {
            unlink(npy->temporary);
        } else if (rename(npy->temporary, npy->target) != 0) {
            complain("%s: cannot be replaced; all is in %s: %s", npy->path, npy->temporary,
                     strerror(errno));
            rc = EXIT_FAILED;
        }
        stop_unfinished = NULL;
    }
    forget(npy);
    return rc;
}
