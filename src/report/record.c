/* record.c - a line of a ledger: JSON of the plainest kind.
 *
 * Strings are undone in place, which never makes them longer, so that reading takes no memory that
 * could be missing in the middle of a line. */
#include "report/record.h"

#include <stddef.h>
#include <string.h>

#include "base/checked.h"
#include "base/utf8.h"

struct cursor {
    char *at, *end; /* borrowed */
};

static void skip_space(struct cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r')) {
        c->at++;
    }
}

static bool take(struct cursor *c, char wanted) {
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) {
        return false;
    }
    c->at++;
    return true;
}

/* Four hexadecimal digits, or UINT32_MAX. */
static uint32_t take_hex(struct cursor *c) {
    uint32_t value = 0;
    if (c->end - c->at < 4) {
        return UINT32_MAX;
    }
    for (uint32_t i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = *c->at != '\0' ? strchr(digits, *c->at) : NULL;
        if (digit == NULL) {
            return UINT32_MAX;
        }
        value = 16 * value + (uint32_t)(digit - digits) % 16;
        c->at++;
    }
    return value;
}

static char *put_character(char *out, uint32_t code) {
    static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    uint32_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (uint32_t i = n; i-- > 1; code >>= 6) {
        out[i] = (char)(0x80 | (code & 0x3f));
    }
    out[0] = (char)(n == 1 ? code : marks[n] | code);
    return out + n;
}

/* What follows a backslash, written to *out. */
static bool take_escape(struct cursor *c, char **out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char name = c->at < c->end ? *c->at++ : '\0';
    const char *known = name != '\0' ? strchr(names, name) : NULL;
    if (known != NULL) {
        *(*out)++ = values[known - names];
        return true;
    }
    uint32_t code = name == 'u' ? take_hex(c) : UINT32_MAX;
    if (code >= 0xd800 && code < 0xdc00 && c->end - c->at >= 6 && memcmp(c->at, "\\u", 2) == 0) {
        c->at += 2;
        uint32_t low = take_hex(c);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
                                             : UINT32_MAX;
    }
    if (code == 0 || code == UINT32_MAX || (code >= 0xd800 && code < 0xe000)) {
        return false;
    }
    *out = put_character(*out, code);
    return true;
}

static bool take_text(struct cursor *c, const char **text) {
    if (!take(c, '"')) {
        return false;
    }
    char *start = c->at, *out = c->at;
    while (c->at < c->end && *c->at != '"') {
        char byte = *c->at++;
        if ((unsigned char)byte < 0x20) {
            return false;
        }
        if (byte != '\\') {
            *out++ = byte;
        } else if (!take_escape(c, &out)) {
            return false;
        }
    }
    if (c->at == c->end || !utf8_valid(start, (uint64_t)(out - start))) {
        return false;
    }
    c->at++;
    *out = '\0'; /* at the latest in the place of the quote */
    *text = start;
    return true;
}

/* A whole number as JSON writes it. */
static bool take_number(struct cursor *c, int64_t *value) {
    bool minus = take(c, '-');
    uint64_t digits = 0, n = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++, n++) {
        if (n == 1 && digits == 0) {
            return false; /* a leading zero */
        }
        if (!checked_mul(digits, 10, &digits) ||
            !checked_add(digits, (uint64_t)(*c->at - '0'), &digits) || digits > INT64_MAX) {
            return false;
        }
    }
    *value = minus ? -(int64_t)digits : (int64_t)digits;
    return n > 0;
}

enum { TEXTS = 4, NUMBERS = 4, ALL_KEYS = (1 << (TEXTS + NUMBERS + 1)) - 1 };

/* One key and its value; seen: a bit for each key that a table needs. */
static bool take_member(struct cursor *c, struct record *r, uint32_t *seen) {
    static const char *const names[] = {"tensor",         "boundary",    "class",
                                        "cause",          "moved_bytes", "needed_bytes",
                                        "rounding_bytes", "times",       "layer"};
    const char **texts[TEXTS] = {&r->tensor, &r->boundary, &r->cls, &r->cause};
    uint64_t *numbers[NUMBERS] = {&r->moved_bytes, &r->needed_bytes, &r->rounding_bytes, &r->times};
    const char *key, *text = NULL;
    int64_t number = 0;
    if (!take_text(c, &key) || !take(c, ':')) {
        return false;
    }
    skip_space(c);
    bool is_text = c->at < c->end && *c->at == '"';
    if (is_text ? !take_text(c, &text) : !take_number(c, &number)) {
        return false;
    }
    uint32_t k = 0;
    while (k < TEXTS + NUMBERS + 1 && strcmp(key, names[k]) != 0) {
        k++;
    }
    if (k > TEXTS + NUMBERS) {
        return true;
    }
    if (is_text != (k < TEXTS) || number < (k == TEXTS + NUMBERS ? -1 : 0)) {
        return false;
    }
    if (k < TEXTS) {
        *texts[k] = text;
    } else if (k < TEXTS + NUMBERS) {
        *numbers[k - TEXTS] = (uint64_t)number;
    } else if (number <= INT32_MAX) {
        r->layer = (int32_t)number;
    } else {
        return false;
    }
    *seen |= 1u << k;
    return true;
}

bool record_parse(char *line, uint64_t bytes, struct record *r) {
    struct cursor c = {line, line + bytes};
    uint32_t seen = 0;
    *r = (struct record){.layer = -1};
    if (!take(&c, '{')) {
        return false;
    }
    bool more = !take(&c, '}');
    while (more) {
        if (!take_member(&c, r, &seen)) {
            return false;
        }
        more = take(&c, ',');
        if (!more && !take(&c, '}')) {
            return false;
        }
    }
    skip_space(&c);
    return c.at == c.end && seen == ALL_KEYS;
}
