/* common.c - messages and numbers for people. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/output.h"
#include "cli/stop.h"

void complain(const char *fmt, ...) {
    char text[1200], line[1200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    text[ot_utf8_complete(text, strlen(text))] = '\0'; /* it may have been cut inside a character */
    ot_text_printable(text, line, sizeof line); /* names come from anywhere: it stays one line */
    output_flush();
    fprintf(stderr, "onetrip: %s\n", line);
}

int complain_error(const struct ot_error *err) {
    char text[sizeof err->at + sizeof err->message + 4];
    bool waited = err->sys_errno == EINTR && stop_flag != 0; /* for the other end of a pipe */
    if (err->code == OT_ERR_INTERRUPTED || waited) {
        return EXIT_INTERRUPTED;
    }
    complain("%s", ot_error_text(err, text, sizeof text));
    return EXIT_FAILED;
}

int complain_memory(void) {
    complain("no memory");
    return EXIT_FAILED;
}

bool bytes_append(char **data, size_t *bytes, size_t *capacity, const char *more, size_t n) {
    if (*capacity - *bytes < n) {
        size_t grown = *capacity + *capacity / 2 + n + 256;
        char *moved = realloc(*data, grown);
        if (moved == NULL) {
            return false;
        }
        *data = moved;
        *capacity = grown;
    }
    if (n != 0) {
        memcpy(*data + *bytes, more, n);
    }
    *bytes += n;
    return true;
}

const char *human_bytes(char buf[24], double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    size_t u = 0;
    while (bytes >= 999.5 && u + 1 < sizeof units / sizeof *units) {
        bytes /= 1000.0;
        u++;
    }
    int decimals = u == 0 || bytes >= 99.95 ? 0 : bytes < 9.995 ? 2 : 1;
    snprintf(buf, 24, "%.*f %s", decimals, bytes, units[u]);
    return buf;
}

double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void print_safe(const char *text, int width, FILE *out) {
    int n = 0;
    while (*text != '\0') {
        char part[256];
        text += ot_text_printable(text, part, sizeof part);
        fputs(part, out);
        for (const char *c = part; *c != '\0'; c++) {
            n += (*c & 0xc0) != 0x80; /* characters, by their first bytes */
        }
    }
    fprintf(out, "%*s", n < width ? width - n : 0, "");
}

void print_wrapped(const char *text, int indent, FILE *out) {
    enum { WIDTH = 80 };
    int column = indent;
    for (const char *at = text; *at != '\0';) {
        int word = (int)strcspn(at, " ");
        if (column > indent && column + 1 + word > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", word, at);
        column += word;
        at += word + (at[word] == ' ');
    }
    fputc('\n', out);
}
