/* file.c - opening, reading and writing files; what of them the page cache holds.
 *
 * A file is opened twice: buffered, and with O_DIRECT where the file system takes it. What it was
 * when opened (length, inode, time of change) is kept, so that a file replaced in the middle of a
 * run is noticed. The guarded mappings are in map.c.
 *
 * Threads: reads from any thread; open and close by one. */
#include "sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "sys/facts.h"
#include "sys/hook.h"

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

#define FS_RAMFS 0x858458f6u

enum {
    DIRECT_ALIGN_UNKNOWN = 4096, /* where the kernel cannot say: a page suits every known disk */
    DIRECT_ALIGN_MAX = 65536,
    FS_TMPFS = 0x01021994, /* linux/magic.h */
    FS_OVERLAY = 0x794c7630,
    SYSCALL_CACHESTAT = 451,
    SLURP_STEP = 65536,
    WILL_NEED_STEP = 128 << 10, /* the least that kernels take at once, where nobody chose less */
    LINKS_MOST = 40,            /* that are followed: as by the kernel */
};

static _Atomic uint64_t n_reads, fail_from, fail_count;
static _Atomic int fail_error;

void sys_fail_reads(uint64_t n, uint64_t count, int error) {
    atomic_store(&fail_from, 0);
    atomic_store(&n_reads, 0);
    atomic_store(&fail_count, count);
    atomic_store(&fail_error, error);
    atomic_store(&fail_from, n);
}

uint64_t sys_read_count(void) {
    return atomic_load(&n_reads);
}

enum sys_hook_fault sys_hook_read(int *error) {
    uint64_t n = atomic_fetch_add(&n_reads, 1) + 1;
    uint64_t from = atomic_load(&fail_from);
    if (from == 0 || n < from || n - from >= atomic_load(&fail_count)) {
        return SYS_HOOK_NONE;
    }
    *error = atomic_load(&fail_error);
    return *error > 0 ? SYS_HOOK_ERROR : *error == 0 ? SYS_HOOK_ENDS : SYS_HOOK_PARTIAL;
}

static uint64_t mtime_ns(const struct stat *st) {
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

static const char *kind_of(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR: return "a directory";
    case S_IFIFO: return "a FIFO";
    case S_IFCHR:
    case S_IFBLK: return "a device";
    case S_IFSOCK: return "a socket";
    default: return "not a regular file";
    }
}

/* The alignment the kernel asks of direct reads: 0 where it says that there are none. */
static uint32_t direct_alignment(int fd) {
    struct { /* struct statx as of Linux 6.1; older headers do not have the last fields */
        struct statx base;
        uint8_t room[64];
    } s = {0};
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &s.base) != 0 ||
        (s.base.stx_mask & STATX_DIOALIGN) == 0) {
        return DIRECT_ALIGN_UNKNOWN;
    }
    enum { OFFSET_MEM_ALIGN = 0x98, OFFSET_OFFSET_ALIGN = 0x9c };
    uint32_t mem_align, offset_align;
    memcpy(&mem_align, (const uint8_t *)&s + OFFSET_MEM_ALIGN, sizeof mem_align);
    memcpy(&offset_align, (const uint8_t *)&s + OFFSET_OFFSET_ALIGN, sizeof offset_align);
    return max_u32(mem_align, offset_align);
}

/* File systems in memory: newer kernels take O_DIRECT there and copy all the same. */
static bool in_memory(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 &&
           ((uint32_t)fs.f_type == (uint32_t)FS_TMPFS || (uint32_t)fs.f_type == FS_RAMFS);
}

static void open_direct(struct sys_file *file, const struct stat *st) {
    file->direct_fd = -1;
    file->direct_align = in_memory(file->fd) ? 0 : direct_alignment(file->fd);
    uint32_t align = file->direct_align;
    if (align == 0 || align > DIRECT_ALIGN_MAX || (align & (align - 1)) != 0) {
        file->direct_align = DIRECT_ALIGN_UNKNOWN;
        return;
    }
    const char *refused = getenv("ONETRIP_NO_DIRECT");
    int fd = -1;
    if (refused == NULL || refused[0] != '1') {
        fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_DIRECT);
    }
    if (fd < 0) {
        file->direct_align = DIRECT_ALIGN_UNKNOWN; /* whole pages, so that they can be dropped */
        return;
    }
    struct stat now;
    if (fstat(fd, &now) != 0 || now.st_ino != st->st_ino || now.st_dev != st->st_dev) {
        close(fd);
        return;
    }
    file->direct_fd = fd;
}

static bool on_overlay(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == (uint32_t)FS_OVERLAY;
}

/* Linux 6.5 and later answer without a mapping; those that came soon after answer only whom mincore
 * answers. */
static bool cached_by_cachestat(const struct sys_file *file, uint64_t offset, uint64_t bytes,
                                uint64_t *cached) {
    struct {
        uint64_t offset, bytes;
    } range = {offset, bytes};
    struct {
        uint64_t n_cache, n_dirty, n_writeback, n_evicted, n_recently_evicted;
    } stat = {0};
    if (syscall(SYSCALL_CACHESTAT, file->fd, &range, &stat, 0) != 0) {
        return false;
    }
    *cached = stat.n_cache * sys_page_bytes();
    return true;
}

/* How the page cache is asked about this file. What of a file is there tells what others do with
 * it: to a user who neither owns the file nor may write to it, mincore says that every page is. An
 * overlay's own files have no pages; mapping one maps the file below. */
static void choose_question(struct sys_file *file, const struct stat *st) {
    uint64_t cached;
    file->by_mincore = on_overlay(file->fd) || !cached_by_cachestat(file, 0, 1, &cached);
    file->cache_unknown = file->by_mincore && st->st_uid != geteuid() &&
                          faccessat(AT_FDCWD, file->path, W_OK, AT_EACCESS) != 0;
}

int sys_file_open(struct sys_file *file, const char *path, struct ot_error *err) {
    /* Asked before the file is opened, since opening a device may do something. */
    struct stat st;
    if (stat(path, &st) != 0) {
        return error_sys(err, OT_ERR_IO, errno, path, "cannot be opened");
    }
    if (!S_ISREG(st.st_mode)) {
        return error_set(err, OT_ERR_FORMAT, path, "is %s, expected a regular file",
                         kind_of(st.st_mode));
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return error_sys(err, OT_ERR_IO, errno, path, "cannot be opened");
    }
    if (fstat(fd, &st) != 0) {
        int error = errno;
        close(fd);
        return error_sys(err, OT_ERR_IO, error, path, "cannot be opened");
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, OT_ERR_FORMAT, path, "is no longer a regular file");
    }
    char *copy = mem_strdup(path);
    if (copy == NULL) {
        close(fd);
        return error_memory(err, strlen(path) + 1);
    }
    *file = (struct sys_file){
        .path = copy,
        .fd = fd,
        .bytes = (uint64_t)st.st_size,
        .mtime_ns = mtime_ns(&st),
    };
    open_direct(file, &st);
    choose_question(file, &st);
    return 0;
}

void sys_file_close(struct sys_file *file) {
    if (file->path == NULL) {
        return;
    }
    if (file->direct_fd >= 0) {
        close(file->direct_fd);
    }
    close(file->fd);
    mem_free(file->path);
    *file = (struct sys_file){.fd = -1, .direct_fd = -1};
}

int sys_file_check(const struct sys_file *file, struct ot_error *err) {
    struct stat st;
    if (fstat(file->fd, &st) != 0) {
        return error_sys(err, OT_ERR_IO, errno, file->path, "cannot be examined");
    }
    if ((uint64_t)st.st_size != file->bytes) {
        return error_set(err, OT_ERR_CHANGED, file->path,
                         "has %llu bytes now, had %llu when it was opened",
                         (unsigned long long)st.st_size, (unsigned long long)file->bytes);
    }
    if (mtime_ns(&st) != file->mtime_ns) {
        return error_set(err, OT_ERR_CHANGED, file->path,
                         "was written to after it was opened; open it again");
    }
    return 0;
}

/* Returns bytes or -errno. */
static int64_t pread_raw(int fd, uint64_t offset, void *buf, uint64_t bytes) {
    /* One call transfers at most 2 GiB less a page. */
    ssize_t n = pread(fd, buf, (size_t)min_u64(bytes, 1u << 30), (off_t)offset);
    return n < 0 ? -(int64_t)errno : n;
}

int64_t sys_file_pread_raw(const struct sys_file *file, bool direct, uint64_t offset, void *buf,
                           uint64_t bytes) {
    return pread_raw(direct ? file->direct_fd : file->fd, offset, buf, bytes);
}

/* One pread that tests can spoil. Returns bytes or -errno. */
static int64_t read_once(int fd, uint64_t offset, void *buf, uint64_t bytes) {
    int error = 0;
    switch (sys_hook_read(&error)) {
    case SYS_HOOK_ERROR: return -error;
    case SYS_HOOK_ENDS: return 0;
    case SYS_HOOK_PARTIAL: bytes = max_u64(bytes / 2, 1); break;
    case SYS_HOOK_NONE: break;
    }
    return pread_raw(fd, offset, buf, bytes);
}

int sys_file_read(const struct sys_file *file, uint64_t offset, void *buf, uint64_t bytes,
                  struct ot_error *err) {
    uint64_t done = 0;
    uint32_t n_again = 0;
    while (done < bytes) {
        int64_t n = read_once(file->fd, offset + done, (uint8_t *)buf + done, bytes - done);
        if ((n == -EINTR || n == -EAGAIN) && n_again < SYS_AGAIN_MOST) {
            n_again++;
            continue;
        }
        if (n < 0) {
            return error_sys(err, OT_ERR_IO, (int)-n, file->path,
                             "reading %llu bytes at %llu failed", (unsigned long long)bytes,
                             (unsigned long long)offset);
        }
        if (n == 0) {
            return error_set(err, OT_ERR_CHANGED, file->path,
                             "ends at byte %llu, expected %llu bytes at %llu",
                             (unsigned long long)(offset + done), (unsigned long long)bytes,
                             (unsigned long long)offset);
        }
        done += (uint64_t)n;
        n_again = 0;
    }
    return 0;
}

int64_t sys_file_pread(const struct sys_file *file, bool direct, uint64_t offset, void *buf,
                       uint64_t bytes) {
    return read_once(direct ? file->direct_fd : file->fd, offset, buf, bytes);
}

static uint64_t cached_by_mincore(const struct sys_file *file, uint64_t offset, uint64_t bytes) {
    uint64_t page = sys_page_bytes(), cached = 0;
    void *map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file->fd, (off_t)offset);
    if (map == MAP_FAILED) {
        return 0;
    }
    unsigned char present[4096];
    for (uint64_t at = 0; at < bytes; at += sizeof present * page) {
        uint64_t step = min_u64(bytes - at, sizeof present * page);
        if (mincore((uint8_t *)map + at, (size_t)step, present) != 0) {
            break;
        }
        for (uint64_t i = 0; i < (step + page - 1) / page; i++) {
            cached += (present[i] & 1) * page;
        }
    }
    munmap(map, (size_t)bytes);
    return cached;
}

uint64_t sys_file_cached_range(const struct sys_file *file, uint64_t offset, uint64_t bytes) {
    uint64_t page = sys_page_bytes();
    if (offset >= file->bytes || bytes == 0 || file->cache_unknown) {
        return 0;
    }
    uint64_t start = offset / page * page;
    uint64_t end = min_u64(file->bytes, offset + min_u64(bytes, file->bytes - offset));
    uint64_t cached;
    if (file->by_mincore || !cached_by_cachestat(file, start, end - start, &cached)) {
        cached = cached_by_mincore(file, start, end - start);
    }
    return cached;
}

uint64_t sys_file_cached_bytes(const struct sys_file *file) {
    return min_u64(sys_file_cached_range(file, 0, file->bytes), file->bytes);
}

void sys_file_drop(const struct sys_file *file, uint64_t offset, uint64_t bytes) {
    posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

void sys_file_random(const struct sys_file *file) {
    posix_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
}

/* The kernel takes as much at once as the disk reads ahead or takes in one request, and forgets the
 * rest: what is there already costs nothing when it is asked for again. */
void sys_file_will_need(const struct sys_file *file, uint64_t offset, uint64_t bytes) {
    posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
    for (uint64_t at = WILL_NEED_STEP; at < bytes; at += WILL_NEED_STEP) {
        posix_fadvise(file->fd, (off_t)(offset + at), (off_t)min_u64(WILL_NEED_STEP, bytes - at),
                      POSIX_FADV_WILLNEED);
    }
}

int sys_write_all(int fd, const void *data, uint64_t bytes) {
    const uint8_t *from = data;
    while (bytes > 0) {
        ssize_t n = write(fd, from, (size_t)min_u64(bytes, 1u << 30));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? errno : EIO;
        }
        from += n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

int sys_own_stream(const char *path) {
    struct stat st, own;
    if (stat(path, &st) == 0) {
        for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO; fd++) {
            if (fstat(fd, &own) == 0 && own.st_dev == st.st_dev && own.st_ino == st.st_ino) {
                return fd;
            }
        }
    }
    return -1;
}

/* Writes to path as it is: a device or a pipe, which a rename would replace by a file, or a stream
 * of this process (own >= 0), whose other text must stay. 0 or errno. */
static int write_in_place(const char *path, int own, const void *data, uint64_t bytes) {
    int fd =
        own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 0) : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return errno;
    }
    int failure = sys_write_all(fd, data, bytes);
    return close(fd) != 0 && failure == 0 ? errno : failure;
}

/* A new file beside path, of a name that nobody else has, nor what a link leads to; with the rights
 * of what it will replace. Writes the name to temporary. -1: errno. */
static int open_temporary(const char *path, char *temporary, size_t temporary_bytes) {
    enum { TRIES = 100 };
    static _Atomic uint32_t n_made;
    struct stat st;
    const bool replaces = stat(path, &st) == 0;
    const mode_t mode = replaces ? st.st_mode & 0777 : 0666;
    int fd = -1;
    errno = EEXIST;
    for (int i = 0; i < TRIES && fd < 0 && errno == EEXIST; i++) {
        uint32_t random = 0; /* other machines, and containers, have processes of our number */
        getrandom(&random, sizeof random, GRND_NONBLOCK);
        snprintf(temporary, temporary_bytes, "%s.%ld-%x.tmp", path, (long)getpid(),
                 random ^ atomic_fetch_add(&n_made, 1));
        fd = open(temporary, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, mode);
    }
    if (fd >= 0 && replaces) { /* what the umask took; where it may not be, the file is there */
        fchmod(fd, mode);
    }
    return fd;
}

/* Writes a new file beside path and renames it. Returns 0 or errno; *kept says that all is in the
 * temporary file, which has stayed. */
static int write_and_rename(const char *path, char *temporary, size_t temporary_bytes,
                            const void *data, uint64_t bytes, bool *kept) {
    int fd = open_temporary(path, temporary, temporary_bytes);
    if (fd < 0) {
        return errno;
    }
    int failure = sys_write_all(fd, data, bytes);
    if (close(fd) != 0 && failure == 0) {
        failure = errno;
    }
    if (failure != 0) {
        unlink(temporary);
    } else if (rename(temporary, path) != 0) {
        failure = errno;
        *kept = true;
    }
    return failure;
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

/* What a link leads to, also where no file is there yet; any other path as it is. Returns real or
 * path. */
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

int sys_file_write(const char *path, const void *data, uint64_t bytes, struct ot_error *err) {
    if (path[0] == '\0') {
        return error_set(err, OT_ERR_ARGUMENT, "the file's name", "it is empty");
    }
    char real[PATH_MAX]; /* a link stays, and what it leads to is replaced */
    const char *target = target_of(path, real);
    struct stat st;
    int own = sys_own_stream(path), failure = stat(path, &st) == 0 ? 0 : errno;
    if (own >= 0 || (failure == 0 && !S_ISREG(st.st_mode))) {
        failure = write_in_place(path, own, data, bytes);
        return failure == 0 ? 0 : error_sys(err, OT_ERR_IO, failure, path, "cannot be written");
    }
    if (failure == ELOOP) {
        return error_sys(err, OT_ERR_IO, failure, path, "cannot be written");
    }
    uint64_t temporary_bytes = strlen(target) + 48;
    char *temporary = mem_calloc(temporary_bytes, 1);
    if (temporary == NULL) {
        return error_memory(err, temporary_bytes);
    }
    bool kept = false;
    int rc = 0;
    failure = write_and_rename(target, temporary, (size_t)temporary_bytes, data, bytes, &kept);
    if (kept) {
        rc =
            error_sys(err, OT_ERR_IO, failure, path, "cannot be replaced; all is in %s", temporary);
    } else if (failure != 0) {
        rc = error_sys(err, OT_ERR_IO, failure, path, "cannot be written");
    }
    mem_free(temporary);
    return rc;
}

/* Reads fd to its end into a growing buffer. */
static int slurp_fd(int fd, const char *path, uint64_t max_bytes, char **data, uint64_t *bytes,
                    struct ot_error *err) {
    char *buf = NULL;
    uint64_t used = 0, room = 0;
    for (;;) {
        if (room - used < SLURP_STEP) {
            room = max_u64(room * 2, SLURP_STEP * 2);
            char *grown = mem_realloc(buf, room + 1);
            if (grown == NULL) {
                mem_free(buf);
                return error_memory(err, room + 1);
            }
            buf = grown;
        }
        int error = 0;
        enum sys_hook_fault fault = sys_hook_read(&error);
        ssize_t n = fault == SYS_HOOK_ERROR ? -1 : read(fd, buf + used, (size_t)(room - used));
        if (n < 0) {
            error = fault == SYS_HOOK_ERROR ? error : errno;
            if (error == EINTR) {
                continue;
            }
            mem_free(buf);
            return error_sys(err, OT_ERR_IO, error, path, "cannot be read");
        }
        used += (uint64_t)n;
        if (used > max_bytes) {
            mem_free(buf);
            return error_set(err, OT_ERR_FORMAT, path, "is larger than %llu bytes",
                             (unsigned long long)max_bytes);
        }
        if (n == 0) {
            buf[used] = '\0';
            *data = buf;
            *bytes = used;
            return 0;
        }
    }
}

int sys_file_slurp(const char *path, uint64_t max_bytes, char **data, uint64_t *bytes,
                   struct ot_error *err) {
    if (strcmp(path, "-") == 0) {
        return slurp_fd(STDIN_FILENO, "standard input", max_bytes, data, bytes, err);
    }
    struct sys_file file;
    int code = sys_file_open(&file, path, err);
    if (code == 0) {
        code = slurp_fd(file.fd, path, max_bytes, data, bytes, err);
        sys_file_close(&file);
    }
    return code;
}
