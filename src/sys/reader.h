/* reader.h - many reads at once: io_uring, or a few threads with pread where that is refused.
 *
 * A read carries on by itself after partial results, interruptions and cancellations; its
 * completion says how far it came. Buffers and files are borrowed until then. Nothing spins: a
 * waiting caller sleeps in the kernel.
 *
 * The environment variable ONETRIP_NO_URING=1 makes io_uring be refused, as containers do.
 *
 * Threads: one at a time calls. */
#ifndef SYS_READER_H
#define SYS_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"
#include "sys/file.h"

struct sys_read {
    const struct sys_file *file;
    uint64_t offset;
    void *buf;
    uint64_t bytes;      /* asked for; direct: whole sectors, the last of which may pass the end */
    uint64_t need_bytes; /* <= bytes: fewer than these is a failure */
    bool direct;         /* needs file->direct_fd */
    uint32_t tag;        /* the caller's */
};

struct sys_read_done {
    uint32_t tag;
    int error; /* errno; 0 where need_bytes came, or the file ended before them */
    uint64_t got_bytes;
};

struct sys_reader;

/* At most depth reads are in flight; n_threads (0: chosen) read where threads do. io AUTO and URING
 * both fall back to threads; sys_reader_uring tells. Errors: MEMORY. */
int sys_reader_open(enum ot_io io, uint32_t depth, uint32_t n_threads, struct sys_reader **out,
                    struct ot_error *err);
/* Waits for what is in flight. */
void sys_reader_close(struct sys_reader *r);
bool sys_reader_uring(const struct sys_reader *r);
/* Takes a read; false where depth reads are in flight. Reads start at the next sys_reader_start. */
bool sys_reader_add(struct sys_reader *r, const struct sys_read *read);
void sys_reader_start(struct sys_reader *r);
/* One completion. wait: sleeps until there is one. False where there is none (wait: none in
 * flight). Starts what was added. */
bool sys_reader_next(struct sys_reader *r, bool wait, struct sys_read_done *done);

#endif
