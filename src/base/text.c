/* text.c - a growing byte string. */
#include "base/text.h"

#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"

void text_append(struct text *t, const char *data, uint64_t bytes) {
    if (t->failed) {
        return;
    }
    if (t->data == NULL || t->capacity - t->bytes < bytes + 1) {
        uint64_t capacity = t->capacity + t->capacity / 2 + bytes + 64;
        char *grown = mem_realloc(t->data, capacity);
        if (grown == NULL) {
            t->failed = true;
            return;
        }
        t->data = grown;
        t->capacity = capacity;
    }
    if (bytes != 0) {
        memcpy(t->data + t->bytes, data, (size_t)bytes);
    }
    t->bytes += bytes;
    t->data[t->bytes] = '\0';
}

void text_puts(struct text *t, const char *string) {
    text_append(t, string, strlen(string));
}

void text_printf(struct text *t, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char small[256];
    int n = vsnprintf(small, sizeof small, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof small) {
        text_append(t, small, (uint64_t)n);
    } else if (n >= 0) {
        char *large = mem_calloc((uint64_t)n + 1, 1);
        if (large == NULL) {
            t->failed = true;
        } else {
            vsnprintf(large, (size_t)n + 1, fmt, again);
            text_append(t, large, (uint64_t)n);
            mem_free(large);
        }
    }
    va_end(again);
}

char *text_take(struct text *t, uint64_t *bytes) {
    text_append(t, "", 0);
    char *data = t->failed ? NULL : t->data;
    if (bytes != NULL) {
        *bytes = t->bytes;
    }
    if (t->failed) {
        mem_free(t->data);
    }
    memset(t, 0, sizeof *t);
    return data;
}

void text_deinit(struct text *t) {
    mem_free(t->data);
    memset(t, 0, sizeof *t);
}

const char *text_bytes(char buf[24], double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    size_t u = 0;
    while (bytes >= 999.5 && u + 1 < sizeof units / sizeof *units) {
        bytes /= 1000.0;
        u++;
    }
    snprintf(buf, 24,
             u == 0          ? "%.0f %s"
             : bytes < 9.995 ? "%.2f %s"
             : bytes < 99.95 ? "%.1f %s"
                             : "%.0f %s",
             bytes, units[u]);
    return buf;
}
