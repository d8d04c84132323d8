/* output.h - standard output: text that streams, and faults of writing that are not lost. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <jansson.h>

#include "cli/cli.h"

/* Writes what printf left. Returns 0, or EXIT_PIPE where the reader has gone, EXIT_INTERRUPTED
 * where a signal came first or closed the terminal, or EXIT_FAILED after a message. Once it failed
 * it fails again, silently. */
int output_flush(void);
/* Writes nothing; returns EXIT_PIPE where nobody would read it, or the code of an earlier fault. */
int output_wanted(void);
/* As output_flush, and text after it. Returns EXIT_INTERRUPTED, too, where a signal came while the
 * reader did not read: what it has not taken is lost, and the next text may be written. */
int output_write(const char *text, size_t bytes);
/* What the library prints to a stream, to be written in one piece: the cause of a fault is not lost
 * then. */
struct collected {
    FILE *file;
    char *text; /* owned [bytes] */
    size_t bytes;
};
/* NULL after a message. */
FILE *collected_open(struct collected *c);
/* Writes it where it is to be kept. Returns as output_write, or EXIT_FAILED after a message where
 * there was no memory for it. */
int collected_close(struct collected *c, bool keep);
/* Writes a JSON value, whose reference it takes, and a newline. Returns as output_write, or
 * EXIT_FAILED after a message where the value is NULL or the memory does not suffice. */
int output_json(json_t *root);
/* Writes what printf left; the exit code for the whole, given the command's own. */
int output_finish(int exit_code);

/* The text of an answer on its way out: holds back what may be the beginning of a stop string or of
 * a character. Zero-initialise, set stops and n_stops. */
struct stream {
    const char *const *stops; /* [n_stops] borrowed */
    uint32_t n_stops;
    bool stopped; /* a stop string was seen; it and what follows is not shown */
    char last;    /* last byte shown, 0: none */
    char *held;   /* owned [held_bytes]: not shown yet */
    size_t held_bytes, held_capacity;
    char *text; /* owned: all that was shown, for the history of a conversation */
    size_t text_bytes, text_capacity;
};

/* Adds bytes of a token and writes what may be shown. Returns as output_write, or EXIT_FAILED. */
int stream_add(struct stream *s, const char *bytes, size_t n_bytes);
/* Writes what is still held, but for an unfinished character. */
int stream_flush(struct stream *s);
void stream_deinit(struct stream *s);

#endif
