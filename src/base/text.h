/* text.h - a growing byte string. A failed allocation is remembered: appends after it do nothing,
 * and text_failed says so once, at the end. Zero-initialise; text_deinit frees. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

struct text {
    char *data; /* owned; NUL-terminated once anything was appended, else NULL */
    uint64_t bytes, capacity;
    bool failed;
};

void text_append(struct text *t, const char *data, uint64_t bytes);
void text_puts(struct text *t, const char *string);
void text_printf(struct text *t, const char *fmt, ...) OT_PRINTF(2, 3);
static inline bool text_failed(const struct text *t) {
    return t->failed;
}
/* Hands the bytes to the caller (free with mem_free), never NULL unless failed; resets *t. */
char *text_take(struct text *t, uint64_t *bytes);
void text_deinit(struct text *t);

/* "1.02 GB", "51.2 MB", "731 B": decimal units, as disks and buses are rated. Returns buf. */
const char *text_bytes(char buf[24], double bytes);

#endif
