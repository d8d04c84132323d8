/* error.c - filling struct ot_error where a fault is detected. */
#include "base/error.h"

#include <stdarg.h>
#include <string.h>

static void fill(struct ot_error *err, int code, int sys_errno, const char *at, const char *fmt,
                 va_list args) {
    if (err == NULL) {
        return;
    }
    char text[sizeof err->message];
    vsnprintf(text, sizeof text, fmt, args);
    size_t used =
        ot_utf8_complete(text, strlen(text)); /* it may have been cut inside a character */
    text[used] = '\0';
    if (sys_errno != 0 && used + 3 < sizeof text) {
        snprintf(text + used, sizeof text - used, ": %s", strerror(sys_errno));
    }
    err->code = code;
    err->sys_errno = sys_errno;
    ot_text_printable(at != NULL ? at : "", err->at, sizeof err->at);
    ot_text_printable(text, err->message, sizeof err->message);
}

int error_set(struct ot_error *err, int code, const char *at, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, code, 0, at, fmt, args);
    va_end(args);
    return code;
}

int error_sys(struct ot_error *err, int code, int sys_errno, const char *at, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, code, sys_errno, at, fmt, args);
    va_end(args);
    return code;
}

int error_memory(struct ot_error *err, uint64_t bytes) {
    if (bytes == 0) { /* the library that took them did not say how many */
        return error_set(err, OT_ERR_MEMORY, NULL, "there is no memory");
    }
    return error_set(err, OT_ERR_MEMORY, "memory", "an allocation of %llu bytes failed",
                     (unsigned long long)bytes);
}

const char *ot_error_text(const struct ot_error *err, char *buf, size_t buf_bytes) {
    if (err->at[0] != '\0') {
        snprintf(buf, buf_bytes, "%s: %s", err->at, err->message);
    } else {
        snprintf(buf, buf_bytes, "%s", err->message);
    }
    return buf;
}

const char *ot_status_name(int code) {
    switch (code) {
    case OT_OK: return "ok";
    case OT_ERR_ARGUMENT: return "argument";
    case OT_ERR_FORMAT: return "format";
    case OT_ERR_UNSUPPORTED: return "unsupported";
    case OT_ERR_IO: return "io";
    case OT_ERR_MEMORY: return "memory";
    case OT_ERR_BUDGET: return "budget";
    case OT_ERR_FULL: return "full";
    case OT_ERR_NOT_FINITE: return "not finite";
    case OT_ERR_INTERRUPTED: return "interrupted";
    case OT_ERR_CHANGED: return "changed";
    default: return "unknown";
    }
}
