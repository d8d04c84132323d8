/* file.h - files of model bytes: opened once, read directly or mapped; and small files written.
 *
 * The only callers of open, read, pread, mmap on files of model bytes. Every read goes through one hook
 * that tests can make fail or come back short.
 *
 * The environment variable ONETRIP_NO_DIRECT=1 makes O_DIRECT be refused, as some file systems do.
 *
 * Threads: reads from any thread; open and close by one. */
#ifndef SYS_FILE_H
#define SYS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

struct sys_file {
    char *path;          /* owned */
    int fd;              /* buffered */
    int direct_fd;       /* O_DIRECT; -1 where it is refused */
    uint32_t direct_align; /* offsets, lengths and addresses of direct reads: a multiple of this;
                            * where there are none, a page */
    uint64_t bytes;      /* when opened */
    uint64_t mtime_ns;   /* then, too */
    bool by_mincore;     /* the page cache is asked through a mapping */
    bool cache_unknown;  /* it is not told: the user neither owns the file nor may write to it */
    uint64_t ahead_offset, ahead_bytes; /* the kernel read ahead here, of use in the page cache only */
};

/* Opens a regular file for reading; a directory, FIFO or device is refused at once, without
 * blocking. Errors: IO (cannot be opened), FORMAT (not a regular file), MEMORY. */
int sys_file_open(struct sys_file *file, const char *path, struct ot_error *err);
void sys_file_close(struct sys_file *file);
/* 0 while the file is still as long as, and the same as, when it was opened; else CHANGED. */
int sys_file_check(const struct sys_file *file, struct ot_error *err);

/* Reads exactly bytes at offset with buffered pread; a short read is CHANGED, a failure IO. */
int sys_file_read(const struct sys_file *file, uint64_t offset, void *buf, uint64_t bytes,
                  struct ot_error *err);
/* One read as the operating system does it: may be partial or meet the end. Direct ones need a
 * direct_fd, and everything aligned to direct_align. Returns bytes or -errno. */
int64_t sys_file_pread(const struct sys_file *file, bool direct, uint64_t offset, void *buf,
                       uint64_t bytes);
/* Bytes now in the page cache, in whole pages (cachestat or mincore): of the file (at most its
 * length), and of the pages that [offset, offset + bytes) touches. 0 where cache_unknown. */
uint64_t sys_file_cached_bytes(const struct sys_file *file);
uint64_t sys_file_cached_range(const struct sys_file *file, uint64_t offset, uint64_t bytes);
/* Asks the kernel to drop the range from / bring the range into the page cache. Reading all of it has
 * begun when the latter returns. */
void sys_file_drop(const struct sys_file *file, uint64_t offset, uint64_t bytes);
void sys_file_will_need(const struct sys_file *file, uint64_t offset, uint64_t bytes);
/* Buffered reads bring in what they ask for and nothing ahead. */
void sys_file_random(const struct sys_file *file);

/* A read-only mapping of a whole file, followed by at least SYS_MAP_TAIL readable bytes.
 *
 * A page of a mapping that can no longer be read (the file shrank, the disk failed) would kill the
 * process with SIGBUS. Instead the page is replaced by zeros and *damaged becomes true: callers ask
 * sys_map_damaged after every step and before they use what they computed. */
struct sys_map {
    const uint8_t *data;
    uint64_t bytes;
    int slot; /* in the table of guarded mappings */
};
enum { SYS_MAP_TAIL = 4096, SYS_MAP_WINDOW = 2 << 20 };

int sys_map_open(struct sys_map *map, const struct sys_file *file, struct ot_error *err);
void sys_map_close(struct sys_map *map);
bool sys_map_damaged(const struct sys_map *map);
/* The error for a damaged mapping: CHANGED where the file is another than was opened, else IO. */
int sys_map_fault(const struct sys_file *file, struct ot_error *err);
/* Lays the file over a damaged mapping again, at the same address. Errors: IO. */
int sys_map_repair(struct sys_map *map, const struct sys_file *file, struct ot_error *err);
/* Faults of this mapping bring in the page asked for and none beside it. */
void sys_map_random(const struct sys_map *map);
/* Faults in whole windows of the file (SYS_MAP_WINDOW, aligned) bring in the window, as one large page
 * where the file system has them: reading is faster, and so is computing. Call after sys_map_random,
 * with whole windows. False where the kernel has none. */
bool sys_map_large(const struct sys_map *map, uint64_t offset, uint64_t bytes);
/* Reads the range into the page cache where it is not there yet, and enters its pages into the page
 * table; blocks. False, with errno set, where a page cannot be read. A read for sys_fail_reads. */
bool sys_map_populate(const struct sys_map *map, uint64_t offset, uint64_t bytes);

/* The standard output (1) or error (2) of this process, where path leads to it; else -1. Opened
 * anew, a file there would be written from its start, over what was said before. */
int sys_own_stream(const char *path);
/* Writes a whole file: to a temporary name beside it, then renamed, so that a failure leaves the
 * old one. Links are followed. Devices, pipes and the process's own streams are written in place.
 * Errors: IO; where only the last step failed, the message names the temporary file, which stays. */
int sys_file_write(const char *path, const void *data, uint64_t bytes, struct ot_error *err);
/* Reads a whole (small) regular file or "-" for standard input, at most max_bytes, NUL-terminated;
 * *data is freed with mem_free. Errors: IO, FORMAT (larger than max_bytes, a directory), MEMORY. */
int sys_file_slurp(const char *path, uint64_t max_bytes, char **data, uint64_t *bytes,
                   struct ot_error *err);

/* Writes all bytes to a descriptor; 0 or an errno. */
int sys_write_all(int fd, const void *data, uint64_t bytes);

/* For tests: from the n-th read on (1: the next), `count` reads fail with error (an errno), meet the
 * end of the file (error 0), or deliver half of their bytes (error -1: an ordinary partial read, which
 * must be carried on). n 0: none. Applies to buffered, direct and asynchronous reads; of whole files
 * read at once, and of mappings, only the first. */
void sys_fail_reads(uint64_t n, uint64_t count, int error);
uint64_t sys_read_count(void);

#endif
