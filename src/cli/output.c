/* output.c - standard output. */
#include "cli/output.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/stop.h"

static int failed_code;

/* Of a signal nothing is to be said, and of a terminal that was closed, which sends SIGHUP. */
static int fail(int number) {
    bool interrupted = (number == EINTR && stop_flag != 0) || (number == EIO && stop_program != 0);
    if (failed_code == 0) {
        failed_code = number == EPIPE ? EXIT_PIPE : interrupted ? EXIT_INTERRUPTED : EXIT_FAILED;
        if (failed_code == EXIT_FAILED) {
            complain("standard output: %s", number != 0 ? strerror(number) : "cannot be written");
        }
    }
    return failed_code;
}

/* Why the stream was marked as failed by a printf: the errno of then is lost (0), but a pipe
 * without a reader still shows. */
static int lost_errno(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0 ? EPIPE : 0;
}

int output_wanted(void) {
    return failed_code != 0 || lost_errno() == 0 ? failed_code : fail(EPIPE);
}

int output_flush(void) {
    if (failed_code != 0) {
        return failed_code;
    }
    errno = 0;
    bool lost = ferror(stdout) != 0;
    if (fflush(stdout) != 0 || lost) {
        return fail(errno != 0 ? errno : lost_errno());
    }
    return 0;
}

int output_write(const char *text, size_t bytes) {
    int rc = output_flush();
    while (rc == 0 && bytes > 0) {
        ssize_t n = write(STDOUT_FILENO, text, bytes);
        if (n >= 0) {
            text += n;
            bytes -= (size_t)n;
        } else if (errno != EINTR) {
            rc = fail(errno);
        } else if (stop_flag != 0) { /* the reader was slow */
            return EXIT_INTERRUPTED;
        }
    }
    return rc;
}

FILE *collected_open(struct collected *c) {
    *c = (struct collected){.text = NULL};
    c->file = open_memstream(&c->text, &c->bytes);
    if (c->file == NULL) {
        complain_memory();
    }
    return c->file;
}

int collected_close(struct collected *c, bool keep) {
    bool whole = ferror(c->file) == 0;
    whole = fclose(c->file) == 0 && c->text != NULL && whole;
    int rc = !keep ? 0 : whole ? output_write(c->text, c->bytes) : complain_memory();
    free(c->text);
    return rc;
}

/* json_dumps would lose keys without a word where its buffer cannot grow. */
int output_json(json_t *root) {
    const size_t flags = JSON_INDENT(1) | JSON_REAL_PRECISION(12);
    size_t bytes = root != NULL ? json_dumpb(root, NULL, 0, flags) : 0;
    char *whole = bytes != 0 ? malloc(bytes + 1) : NULL;
    int rc;
    if (whole != NULL && json_dumpb(root, whole, bytes, flags) == bytes) {
        whole[bytes] = '\n';
        rc = output_write(whole, bytes + 1);
    } else {
        rc = complain_memory();
    }
    free(whole);
    json_decref(root);
    return rc;
}

int output_finish(int exit_code) {
    int rc = output_flush();
    return rc != 0 ? rc : exit_code;
}

/* Position of the earliest stop string in the held text; held_bytes where there is none. */
static size_t find_stop(const struct stream *s) {
    size_t first = s->held_bytes;
    for (uint32_t i = 0; i < s->n_stops; i++) {
        const char *at = memmem(s->held, s->held_bytes, s->stops[i], strlen(s->stops[i]));
        if (at != NULL && (size_t)(at - s->held) < first) {
            first = (size_t)(at - s->held);
        }
    }
    return first;
}

/* Bytes at the end of the held text that begin some stop string. */
static size_t begun_stop(const struct stream *s) {
    size_t most = 0;
    for (uint32_t i = 0; i < s->n_stops; i++) {
        size_t length = strlen(s->stops[i]) - 1;
        if (length > s->held_bytes) {
            length = s->held_bytes;
        }
        for (; length > most; length--) {
            if (memcmp(s->held + s->held_bytes - length, s->stops[i], length) == 0) {
                most = length;
            }
        }
    }
    return most;
}

static int show(struct stream *s, size_t bytes) {
    if (bytes == 0) {
        return 0;
    }
    if (!bytes_append(&s->text, &s->text_bytes, &s->text_capacity, s->held, bytes)) {
        return complain_memory();
    }
    int rc = output_write(s->held, bytes);
    s->last = s->held[bytes - 1];
    s->held_bytes -= bytes;
    memmove(s->held, s->held + bytes, s->held_bytes);
    return rc;
}

int stream_add(struct stream *s, const char *bytes, size_t n_bytes) {
    if (s->stopped) {
        return 0;
    }
    if (!bytes_append(&s->held, &s->held_bytes, &s->held_capacity, bytes, n_bytes)) {
        return complain_memory();
    }
    if (s->held_bytes == 0) {
        return 0;
    }
    size_t stop = find_stop(s);
    if (stop < s->held_bytes) {
        s->held_bytes = stop;
        s->stopped = true;
        return show(s, stop);
    }
    return show(s, ot_utf8_complete(s->held, s->held_bytes - begun_stop(s)));
}

int stream_flush(struct stream *s) {
    if (s->held_bytes == 0) {
        return 0;
    }
    int rc = show(s, ot_utf8_complete(s->held, s->held_bytes));
    s->held_bytes = 0;
    return rc;
}

void stream_deinit(struct stream *s) {
    free(s->held);
    free(s->text);
    memset(s, 0, sizeof *s);
}
