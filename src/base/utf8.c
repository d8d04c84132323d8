/* utf8.c - where characters begin and end, and which of them may be shown. */
#include "base/utf8.h"

#include <string.h>

#include "onetrip.h"

/* What may follow a lead byte: how many bytes in all, and the range of the second one. */
struct lead {
    uint32_t bytes;
    uint8_t second_min, second_max;
};

static struct lead lead_of(uint8_t b) {
    if (b < 0x80) {
        return (struct lead){1, 0, 0};
    }
    if (b >= 0xC2 && b <= 0xDF) {
        return (struct lead){2, 0x80, 0xBF};
    }
    if (b >= 0xE0 && b <= 0xEF) {
        return (struct lead){3, b == 0xE0 ? 0xA0 : 0x80, b == 0xED ? 0x9F : 0xBF};
    }
    if (b >= 0xF0 && b <= 0xF4) {
        return (struct lead){4, b == 0xF0 ? 0x90 : 0x80, b == 0xF4 ? 0x8F : 0xBF};
    }
    return (struct lead){0, 0, 0};
}

/* How many of the first `have` bytes fit the character that they begin; have >= 1. */
static uint32_t fitting(const uint8_t *p, uint64_t have, struct lead lead) {
    uint32_t n = 1;
    while (n < lead.bytes && n < have) {
        uint8_t min = n == 1 ? lead.second_min : 0x80, max = n == 1 ? lead.second_max : 0xBF;
        if (p[n] < min || p[n] > max) {
            break;
        }
        n++;
    }
    return n;
}

uint32_t utf8_char_bytes(const char *text, uint64_t bytes) {
    if (bytes == 0) {
        return 0;
    }
    const uint8_t *p = (const uint8_t *)text;
    struct lead lead = lead_of(p[0]);
    return lead.bytes != 0 && fitting(p, bytes, lead) == lead.bytes ? lead.bytes : 0;
}

bool utf8_valid(const char *text, uint64_t bytes) {
    uint64_t i = 0;
    while (i < bytes) {
        uint64_t word;
        if (bytes - i >= sizeof word) {
            memcpy(&word, text + i, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof word;
                continue;
            }
        }
        uint32_t n = utf8_char_bytes(text + i, bytes - i);
        if (n == 0) {
            return false;
        }
        i += n;
    }
    return true;
}

uint32_t utf8_decode(const char *text, uint32_t n) {
    const uint8_t *p = (const uint8_t *)text;
    static const uint8_t lead_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t c = p[0] & lead_mask[n];
    for (uint32_t i = 1; i < n; i++) {
        c = c << 6 | (p[i] & 0x3Fu);
    }
    return c;
}

size_t ot_utf8_complete(const char *text, size_t text_bytes) {
    const uint8_t *p = (const uint8_t *)text;
    for (size_t back = 1; back <= 3 && back <= text_bytes; back++) {
        uint8_t b = p[text_bytes - back];
        if (b >= 0x80 && b <= 0xBF) {
            continue; /* the lead byte is further left */
        }
        struct lead lead = lead_of(b);
        bool begun = lead.bytes > back && fitting(p + text_bytes - back, back, lead) == back;
        return begun ? text_bytes - back : text_bytes;
    }
    return text_bytes;
}

/* C0, DEL and C1: what a terminal may take for a command. */
static bool is_control(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c <= 0x9F);
}

size_t ot_text_printable(const char *text, char *buf, size_t buf_bytes) {
    size_t i = 0, used = 0;
    while (text[i] != '\0') {
        uint32_t n = utf8_char_bytes(text + i, strnlen(text + i, 4));
        bool shown = n != 0 && !is_control(utf8_decode(text + i, n));
        size_t more = shown ? n : 1;
        if (used + more >= buf_bytes) {
            break;
        }
        memcpy(buf + used, shown ? text + i : "?", more);
        used += more;
        i += n == 0 ? 1 : n;
    }
    if (buf_bytes != 0) {
        buf[used] = '\0';
    }
    return i;
}
