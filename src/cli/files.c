/* files.c - whether the files that a command is to write may be written. */
#include "cli/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MOST = 40 }; /* that are followed: as by the kernel */

int files_own_stream(const char *path) {
    struct stat facts, own;
    if (stat(path, &facts) == 0) {
        for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
            if (fstat(fd, &own) == 0 && own.st_dev == facts.st_dev && own.st_ino == facts.st_ino) {
                return fd;
            }
        }
    }
    return -1;
}

/* Goes from a link to what it leads to. False: at is no link. */
static bool follow(char at[PATH_MAX]) {
    char to[PATH_MAX];
    ssize_t n = readlink(at, to, sizeof to);
    const char *slash = strrchr(at, '/');
    size_t folder = n <= 0 || to[0] == '/' || slash == NULL ? 0 : (size_t)(slash - at) + 1;
    if (n <= 0 || folder + (size_t)n >= PATH_MAX) {
        return false;
    }
    memcpy(at + folder, to, (size_t)n);
    at[folder + (size_t)n] = '\0';
    return true;
}

const char *files_target(const char *path, char real[PATH_MAX]) {
    size_t bytes = strlen(path) + 1;
    if (realpath(path, real) != NULL) {
        return real;
    }
    if (bytes > PATH_MAX) {
        return path;
    }
    memcpy(real, path, bytes);
    for (int i = 0; i < LINKS_MOST && follow(real); i++) {
    }
    return real;
}

/* Why a file of this name cannot give way to another; 0: it could. `folder` is where it is. */
static int fixed_error(const char *path, const char *folder) {
    struct statx facts;
    struct stat file, in;
    if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &facts) == 0 &&
        (facts.stx_attributes_mask & facts.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
        return EBUSY;
    }
    uid_t me = geteuid();
    return me != 0 && stat(path, &file) == 0 && stat(folder, &in) == 0 &&
                   (in.st_mode & S_ISVTX) != 0 && file.st_uid != me && in.st_uid != me
               ? EPERM
               : 0;
}

/* Why no file could be made there; 0: it could. One that is replaced when it is whole has a longer
 * name until then. */
static int folder_error(const char *path, bool replaced) {
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    size_t room = strlen(path) + 32;
    char *name = malloc(room);
    struct stat facts;
    if (name == NULL) {
        return ENOMEM;
    }
    snprintf(name, room, "%.*s", (int)length, slash == NULL ? "." : path);
    int error = access(name, W_OK | X_OK) != 0 ? errno : 0;
    if (error == 0 && replaced) {
        error = fixed_error(path, name);
    }
    snprintf(name, room, replaced ? "%s.%ld.part" : "%s", path, (long)getpid());
    if (error == 0 && stat(name, &facts) != 0 && errno != ENOENT) {
        error = errno;
    }
    free(name);
    return error;
}

/* Whether a file could be written there: said before the work, not after it. A trace is written in
 * place, all others are replaced by a file that is whole. */
static int check_output(const char *option, const char *path) {
    if (path[0] == '\0') {
        complain("%s: the name of the file is empty", option);
        return EXIT_FAILED;
    }
    if (strcmp(path, "-") == 0) {
        complain("%s -: the name of a file is expected (/dev/stdout is standard output)", option);
        return EXIT_USAGE;
    }
    if (files_own_stream(path) >= 0) {
        return 0;
    }
    struct stat facts;
    char real[PATH_MAX];
    bool there = stat(path, &facts) == 0, replaced = strcmp(option, "--trace") != 0;
    int error = there || errno == ENOENT ? 0 : errno;
    if (there) {
        error = S_ISDIR(facts.st_mode) ? EISDIR : access(path, W_OK) != 0 ? errno : 0;
    }
    if (error == 0 && (!there || (replaced && S_ISREG(facts.st_mode)))) {
        error = folder_error(files_target(path, real), replaced);
    }
    if (error != 0) {
        complain("%s %s: cannot be written: %s", option, path,
                 error == EBUSY ? "a mount point cannot be replaced by a file that is whole"
                                : strerror(error));
        return EXIT_FAILED;
    }
    return 0;
}

/* Whether both names mean one file whose content would be lost: one that is there, or one that
 * both would make. Devices, pipes and our own output may be named twice. */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0) {
        return S_ISREG(x.st_mode) && files_own_stream(a) < 0 && x.st_dev == y.st_dev &&
               x.st_ino == y.st_ino;
    }
    char a_real[PATH_MAX], b_real[PATH_MAX];
    return strcmp(files_target(a, a_real), files_target(b, b_real)) == 0;
}

static bool begins_as_gguf(const char *path) {
    struct stat facts;
    char magic[4] = "";
    if (stat(path, &facts) == 0 && S_ISREG(facts.st_mode)) {
        FILE *file = fopen(path, "rbe");
        size_t n = file != NULL ? fread(magic, 1, sizeof magic, file) : 0;
        if (file != NULL) {
            fclose(file);
        }
        return n == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
    }
    return false;
}

int files_check(const struct settings *set) {
    const char *const outputs[][2] = {{"--report", set->report},
                                      {"--ledger", set->ledger},
                                      {"--trace", set->trace},
                                      {"--logits", set->logits}};
    const char *const inputs[] = {set->file, set->ids};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        const char *option = outputs[i][0], *path = outputs[i][1];
        if (path == NULL) {
            continue;
        }
        int rc = check_output(option, path);
        if (rc != 0) {
            return rc;
        }
        if (begins_as_gguf(path)) {
            complain("%s %s: is a model, and is not written over", option, path);
            return EXIT_FAILED;
        }
        for (size_t k = 0; k < sizeof inputs / sizeof inputs[0]; k++) {
            if (inputs[k] != NULL && same_file(path, inputs[k])) {
                complain("%s %s: is read by this command, and is not written over", option, path);
                return EXIT_FAILED;
            }
        }
        for (size_t k = 0; k < i; k++) {
            if (outputs[k][1] != NULL && same_file(path, outputs[k][1])) {
                complain("%s %s: is the file of %s, too", option, path, outputs[k][0]);
                return EXIT_USAGE;
            }
        }
    }
    return 0;
}
