/* error.h - filling struct ot_error where a fault is detected. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "onetrip.h"

/* Fills *err (which may be NULL) and returns code, so that callers can write
 * `return error_set(err, OT_ERR_FORMAT, path, "...")`. Text that is too long is cut; control
 * characters and broken ones (of hostile files) are replaced by '?'. */
int error_set(struct ot_error *err, int code, const char *at, const char *fmt, ...) OT_PRINTF(4, 5);

/* The same for a failed system call: saves sys_errno and appends its text to the message. */
int error_sys(struct ot_error *err, int code, int sys_errno, const char *at, const char *fmt, ...)
    OT_PRINTF(5, 6);

/* "out of memory" for an allocation of bytes. */
int error_memory(struct ot_error *err, uint64_t bytes);

#endif
