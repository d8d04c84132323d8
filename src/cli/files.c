/* files.c - the files that a command is to write: whether they may be written, and the one way in
 * which the program itself does it. Reports, ledgers and traces are the library's to write. */
#include "cli/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/stop.h"

enum { LINKS_MOST = 40 };          /* that are followed: as by the kernel */
enum { TEMPORARY_ROOM = 48 };      /* for what the name has more until the file is whole */
enum { WINDOW_BYTES = 512 << 10 }; /* of a file that are on the way to the disk at a time, twice */

static int make_new(const char *name, mode_t mode) {
    return open(name, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, mode);
}

/* A new file beside target, of a name that nobody else has; it is written to name. -1: errno. */
static int make_temporary(char *name, size_t bytes, const char *target, mode_t mode) {
    enum { TRIES = 100 };
    int fd = -1;
    errno = EEXIST;
    for (int i = 0; i < TRIES && fd < 0 && errno == EEXIST; i++) {
        uint32_t random = 0; /* other machines, and containers, have processes of our number */
        getrandom(&random, sizeof random, GRND_NONBLOCK);
        snprintf(name, bytes, "%s.%ld-%x.part", target, (long)getpid(), random ^ (uint32_t)i);
        fd = make_new(name, mode);
    }
    return fd;
}

/* Standard output (1) or error (2), where path leads to it; else -1. */
static int own_stream(const char *path) {
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

/* What a whole file replaces where path is asked for: what a link leads to, not the link, also
 * where no file is there yet. Returns real or path. */
static const char *target_of(const char *path, char real[PATH_MAX]) {
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

/* Why no file could be made there; 0: it could, because one was, and is gone again. (Rights alone
 * do not tell: a folder may have been deleted.) One that is replaced when it is whole has a longer
 * name until then. */
static int folder_error(const char *path, bool replaced) {
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    size_t room = strlen(path) + TEMPORARY_ROOM;
    char *name = malloc(room);
    if (name == NULL) {
        return ENOMEM;
    }
    snprintf(name, room, "%.*s", (int)length, slash == NULL ? "." : path);
    int error = replaced ? fixed_error(path, name) : 0;
    if (error == 0) {
        snprintf(name, room, "%s", path);
        int fd = replaced ? make_temporary(name, room, path, 0600) : make_new(name, 0600);
        error = fd < 0 && errno != EEXIST ? errno : 0;
        if (fd >= 0) {
            close(fd);
            unlink(name);
        }
    }
    free(name);
    return error;
}

/* Whether a file could be written there: said before the work, not after it. A trace is written in
 * place, all others are replaced by a file that is whole. */
static int check_output(const char *option, const char *path) {
    if (path[0] == '\0') {
        complain("%s: the name of the file is empty", option);
        return EXIT_USAGE;
    }
    if (strcmp(path, "-") == 0) {
        complain("%s -: the name of a file is expected (/dev/stdout is standard output)", option);
        return EXIT_USAGE;
    }
    if (own_stream(path) >= 0) {
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
        error = folder_error(target_of(path, real), replaced);
    }
    if (error != 0) {
        complain("%s %s: cannot be written: %s", option, path,
                 error == EBUSY ? "a mount point cannot be replaced by a file that is whole"
                                : strerror(error));
        return EXIT_FAILED;
    }
    return 0;
}

/* The folder that a path's last part is in; *name is that part. False: there is no such folder. */
static bool folder_of(const char *path, struct stat *folder, const char **name) {
    char at[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t bytes = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    *name = slash == NULL ? path : slash + 1;
    if (bytes >= sizeof at) {
        return false;
    }
    memcpy(at, slash == NULL ? "." : path, bytes);
    at[bytes] = '\0';
    return stat(at, folder) == 0;
}

/* Whether both names mean one file whose content would be lost: one that is there, or one that
 * both would make: of one name, in one folder. Devices, pipes and our own output may be named
 * twice. */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0) {
        return S_ISREG(x.st_mode) && own_stream(a) < 0 && x.st_dev == y.st_dev &&
               x.st_ino == y.st_ino;
    }
    char a_real[PATH_MAX], b_real[PATH_MAX];
    const char *a_name, *b_name;
    return folder_of(target_of(a, a_real), &x, &a_name) &&
           folder_of(target_of(b, b_real), &y, &b_name) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino && strcmp(a_name, b_name) == 0;
}

/* Whether the file, which is there, is what the shell gave us to read. */
static bool is_standard_input(const char *path) {
    struct stat facts, in;
    return stat(path, &facts) == 0 && S_ISREG(facts.st_mode) && fstat(STDIN_FILENO, &in) == 0 &&
           facts.st_dev == in.st_dev && facts.st_ino == in.st_ino && own_stream(path) < 0;
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

enum { N_OUTPUTS = 4 };

struct output {
    const char *option, *path; /* NULL: not given */
};

static void list_outputs(const struct settings *set, struct output outputs[N_OUTPUTS]) {
    outputs[0] = (struct output){"--report", set->report};
    outputs[1] = (struct output){"--ledger", set->ledger};
    outputs[2] = (struct output){"--trace", set->trace};
    outputs[3] = (struct output){"--logits", set->logits};
}

const char *files_option_of(const struct settings *set, const char *path) {
    struct output outputs[N_OUTPUTS];
    list_outputs(set, outputs);
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        if (outputs[i].path != NULL && same_file(path, outputs[i].path)) {
            return outputs[i].option;
        }
    }
    return NULL;
}

int files_check(const struct settings *set) {
    struct output outputs[N_OUTPUTS];
    const char *const inputs[] = {set->file, set->ids};
    list_outputs(set, outputs);
    for (size_t i = 0; i < N_OUTPUTS; i++) {
        const char *option = outputs[i].option, *path = outputs[i].path;
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
        if (is_standard_input(path)) {
            complain("%s %s: is standard input, and is not written over", option, path);
            return EXIT_FAILED;
        }
        for (size_t k = 0; k < sizeof inputs / sizeof inputs[0]; k++) {
            if (inputs[k] != NULL && same_file(path, inputs[k])) {
                complain("%s %s: is read by this command, and is not written over", option, path);
                return EXIT_FAILED;
            }
        }
        for (size_t k = 0; k < i; k++) {
            if (outputs[k].path != NULL && same_file(path, outputs[k].path)) {
                complain("%s %s: is the file of %s, too", option, path, outputs[k].option);
                return EXIT_USAGE;
            }
        }
    }
    return 0;
}

/* ---- writing ---- */

static int fail(const struct output_file *out) {
    if (errno == EINTR && stop_flag != 0) { /* waiting for the other end of a pipe */
        return EXIT_INTERRUPTED;
    }
    complain("%s: cannot be written: %s", out->path, strerror(errno));
    return EXIT_FAILED;
}

static void forget(struct output_file *out) {
    free(out->target);
    free(out->temporary);
    *out = (struct output_file){.path = NULL};
}

static int open_in_place(const char *path) {
    int own = own_stream(path);
    return own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 0) : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
}

/* With the rights of what it will replace. */
static int open_temporary(char *name, size_t bytes, const char *target,
                          const struct stat *replaced) {
    mode_t mode = replaced != NULL ? replaced->st_mode & 0777 : 0666;
    int fd = make_temporary(name, bytes, target, mode);
    if (fd >= 0 &&
        replaced != NULL) { /* what the umask took; where it may not be, the file is there */
        fchmod(fd, mode);
    }
    return fd;
}

int files_open(struct output_file *out, const char *path) {
    *out = (struct output_file){.path = path};
    struct stat st;
    bool there = stat(path, &st) == 0;
    int fd;
    if (own_stream(path) >= 0 || (there && !S_ISREG(st.st_mode))) {
        fd = open_in_place(path);
    } else {
        char real[PATH_MAX];
        const char *target = target_of(path, real);
        size_t bytes = strlen(target) + TEMPORARY_ROOM;
        out->target = strdup(target);
        out->temporary = malloc(bytes);
        if (out->target == NULL || out->temporary == NULL) {
            forget(out);
            return complain_memory();
        }
        fd = open_temporary(out->temporary, bytes, target, there ? &st : NULL);
    }
    out->file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (out->file == NULL) {
        int rc = fail(out);
        if (fd >= 0) {
            close(fd);
        }
        if (fd >= 0 && out->temporary != NULL) {
            unlink(out->temporary);
        }
        forget(out);
        return rc;
    }
    stop_unfinished = out->temporary;
    return 0;
}

/* What has been written leaves the page cache: it counts against the memory budget as long as it is
 * there, and a full control group would give up the program's own pages for it, again and again. A
 * window that has just filled is sent to the disk, and the one before it waited for and forgotten.
 * False: the disk has not taken it. */
static bool leave_page_cache(const struct output_file *out) {
    const uint64_t end = out->written_bytes;
    if (out->temporary == NULL || end % WINDOW_BYTES != 0) {
        return true;
    }
    if (fflush(out->file) != 0) {
        return false;
    }
    const int fd = fileno(out->file), send = SYNC_FILE_RANGE_WRITE;
    const int settle = SYNC_FILE_RANGE_WAIT_BEFORE | send | SYNC_FILE_RANGE_WAIT_AFTER;
    int rc = sync_file_range(fd, (off64_t)(end - WINDOW_BYTES), WINDOW_BYTES, send);
    if (rc == 0 && end > WINDOW_BYTES) {
        const off64_t before = (off64_t)(end - 2ull * WINDOW_BYTES);
        rc = sync_file_range(fd, before, WINDOW_BYTES, settle);
        posix_fadvise(fd, before, WINDOW_BYTES, POSIX_FADV_DONTNEED);
    }
    return rc == 0 || (errno != EIO && errno != ENOSPC); /* else it only stays there for longer */
}

int files_write(struct output_file *out, const void *data, size_t bytes) {
    const char *at = data;
    while (bytes > 0) {
        size_t left = WINDOW_BYTES - out->written_bytes % WINDOW_BYTES;
        size_t n = bytes < left ? bytes : left;
        if (fwrite(at, 1, n, out->file) != n) {
            return fail(out);
        }
        out->written_bytes += n;
        if (!leave_page_cache(out)) {
            return fail(out);
        }
        at += n;
        bytes -= n;
    }
    return 0;
}

int files_close(struct output_file *out, bool keep) {
    if (out->file == NULL) {
        return 0;
    }
    int rc = fclose(out->file) == 0 || !keep ? 0 : fail(out);
    if (out->temporary != NULL) {
        if (!keep || rc != 0) {
            unlink(out->temporary);
        } else if (rename(out->temporary, out->target) != 0) {
            complain("%s: cannot be replaced; all is in %s: %s", out->path, out->temporary,
                     strerror(errno));
            rc = EXIT_FAILED;
        }
        stop_unfinished = NULL;
    }
    forget(out);
    return rc;
}
