/* hook.h - where every read of the process passes, so that tests can plant faults. Private to sys/.
 *
 * Threads: any. */
#ifndef SYS_HOOK_H
#define SYS_HOOK_H

#include <stdbool.h>
#include <stdint.h>

/* A read that was interrupted so often without a byte in between will not come: it is given up, so
 * that nothing hangs. */
enum { SYS_AGAIN_MOST = 1000 };

enum sys_hook_fault {
    SYS_HOOK_NONE,    /* do the read */
    SYS_HOOK_ERROR,   /* it fails with *error */
    SYS_HOOK_ENDS,    /* it meets the end of the file at once */
    SYS_HOOK_PARTIAL, /* it delivers half of what was asked for */
};

/* Counts one read and says what is to become of it. */
enum sys_hook_fault sys_hook_read(int *error);

/* One pread that has asked the hook already. Returns bytes or -errno. */
struct sys_file;
int64_t sys_file_pread_raw(const struct sys_file *file, bool direct, uint64_t offset, void *buf,
                           uint64_t bytes);

#endif
