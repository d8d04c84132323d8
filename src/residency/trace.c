/* trace.c - writes the residency trace of a run, buffered.
 *
 * Invariant: n_buffer <= BUFFER_BYTES - LINE_BYTES whenever a line is begun. */
#include "residency/trace.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "sys/output.h"

enum { BUFFER_BYTES = 64 * 1024, NAME_BYTES = 255, LINE_BYTES = NAME_BYTES + 64 };

struct residency_trace {
    struct sys_output file;
    struct ot_error error; /* the first; code 0: none */
    uint32_t n_extents;
    size_t n_buffer;
    char buffer[BUFFER_BYTES];
};

static int status(const struct residency_trace *t, struct ot_error *err) {
    if (t->error.code != 0 && err != NULL) {
        *err = t->error;
    }
    return t->error.code;
}

static void flush(struct residency_trace *t) {
    if (t->error.code == 0) {
        (void)sys_output_write(&t->file, t->buffer, t->n_buffer, &t->error);
    }
    t->n_buffer = 0;
}

static char *line_begin(struct residency_trace *t) {
    if (t->n_buffer > BUFFER_BYTES - LINE_BYTES) {
        flush(t);
    }
    return t->buffer + t->n_buffer;
}

int residency_trace_open(const char *path, struct residency_trace **out, struct ot_error *err) {
    struct residency_trace *t = mem_calloc(1, sizeof *t);
    if (t == NULL) {
        return error_memory(err, sizeof *t);
    }
    int rc = sys_output_open(&t->file, path, err);
    if (rc != 0) {
        mem_free(t);
        return rc;
    }
    t->n_buffer = (size_t)snprintf(t->buffer, LINE_BYTES, "onetrip-trace 1\n");
    *out = t;
    return 0;
}

int residency_trace_extent(struct residency_trace *t, const char *name, uint64_t bytes,
                           uint32_t *id, struct ot_error *err) {
    assert(bytes > 0);
    char *line = line_begin(t);
    int n = snprintf(line, LINE_BYTES, "extent %" PRIu32 " %" PRIu64 " %.*s\n", t->n_extents, bytes,
                     (int)NAME_BYTES, name);
    for (char *c = line; c < line + n - 1; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
    t->n_buffer += (size_t)n;
    *id = t->n_extents++;
    return status(t, err);
}

int residency_trace_use(struct residency_trace *t, uint64_t sweep, uint32_t id,
                        struct ot_error *err) {
    assert(id < t->n_extents);
    char *line = line_begin(t);
    t->n_buffer += (size_t)snprintf(line, LINE_BYTES, "use %" PRIu64 " %" PRIu32 "\n", sweep, id);
    return status(t, err);
}

int residency_trace_flush(struct residency_trace *t, struct ot_error *err) {
    flush(t);
    return status(t, err);
}

int residency_trace_close(struct residency_trace *t, struct ot_error *err) {
    if (t == NULL) {
        return 0;
    }
    flush(t);
    struct ot_error late = {0};
    if (sys_output_close(&t->file, &late) != 0 && t->error.code == 0) {
        t->error = late;
    }
    int rc = status(t, err);
    mem_free(t);
    return rc;
}
