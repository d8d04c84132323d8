/* trace.c - reads a residency trace, in chunks, line by line.
 *
 * The file is not trusted: every number is checked before it is used as a size or an index. */
#include "plan/trace.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "sys/file.h"

enum { CHUNK_BYTES = 256 * 1024 };

struct reader {
    const char *path;
    struct plan_trace *trace;
    uint64_t line; /* number of the line at hand, from 1 */
    uint64_t sweep;
    uint32_t extent_room, use_room; /* what the arrays have been taken for */
    uint64_t extent_sum;
    struct ot_error *err;
};

/* Reads a decimal number without sign or leading zeros and the character after it. */
static bool take_number(const char **at, const char *end, char after, uint64_t *out) {
    const char *c = *at;
    uint64_t value = 0;
    while (c < end && *c >= '0' && *c <= '9') {
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(*c - '0'), &value)) {
            return false;
        }
        c++;
    }
    if (c == *at || (**at == '0' && c > *at + 1)) {
        return false;
    }
    if (after != '\0') {
        if (c == end || *c != after) {
            return false;
        }
        c++;
    } else if (c != end) {
        return false;
    }
    *at = c;
    *out = value;
    return true;
}

static int grow(struct reader *r, void **array, uint32_t n, uint32_t *room, uint32_t item_bytes) {
    if (n < *room) {
        return 0;
    }
    uint32_t wanted = *room == 0 ? 1024 : *room * 2;
    void *grown = mem_realloc(*array, (uint64_t)wanted * item_bytes);
    if (grown == NULL) {
        return error_memory(r->err, (uint64_t)wanted * item_bytes);
    }
    *array = grown;
    *room = wanted;
    return 0;
}

static int take_extent(struct reader *r, const char *at, const char *end) {
    struct plan_trace *t = r->trace;
    uint64_t id, bytes;
    if (!take_number(&at, end, ' ', &id) || !take_number(&at, end, ' ', &bytes)) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": expected `extent ID BYTES NAME`", r->line);
    }
    if (id != t->n_extents) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": extent %" PRIu64 ", expected %u: ids count up from 0",
                         r->line, id, t->n_extents);
    }
    if (bytes == 0 || !checked_add(r->extent_sum, bytes, &r->extent_sum) ||
        r->extent_sum > (uint64_t)INT64_MAX) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": extent of %" PRIu64
                         " bytes; expected at least 1, and less than 2^63 for all together",
                         r->line, bytes);
    }
    if (t->n_extents == PLAN_TRACE_MAX_EXTENTS) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "line %" PRIu64 ": more than %u extents",
                         r->line, (unsigned)PLAN_TRACE_MAX_EXTENTS);
    }
    void *array = t->extent_bytes;
    int rc = grow(r, &array, t->n_extents, &r->extent_room, sizeof *t->extent_bytes);
    t->extent_bytes = array;
    if (rc == 0) {
        t->extent_bytes[t->n_extents++] = bytes;
    }
    return rc;
}

static int take_use(struct reader *r, const char *at, const char *end) {
    struct plan_trace *t = r->trace;
    uint64_t sweep, id;
    if (!take_number(&at, end, ' ', &sweep) || !take_number(&at, end, '\0', &id)) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": expected `use SWEEP ID`", r->line);
    }
    if (id >= t->n_extents) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": use of extent %" PRIu64 ", but %u are declared",
                         r->line, id, t->n_extents);
    }
    if (t->n_uses > 0 && sweep < r->sweep) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": sweep %" PRIu64 " after sweep %" PRIu64, r->line, sweep,
                         r->sweep);
    }
    if (t->n_uses == PLAN_TRACE_MAX_USES) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "line %" PRIu64 ": more than %u uses",
                         r->line, (unsigned)PLAN_TRACE_MAX_USES);
    }
    if (!checked_add(t->used_bytes, t->extent_bytes[id], &t->used_bytes) ||
        t->used_bytes > (uint64_t)INT64_MAX) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 ": the uses sum up to 2^63 bytes or more", r->line);
    }
    void *array = t->uses;
    int rc = grow(r, &array, t->n_uses, &r->use_room, sizeof *t->uses);
    t->uses = array;
    if (rc != 0) {
        return rc;
    }
    if (t->n_uses == 0 || sweep != r->sweep) {
        t->n_sweeps++;
    }
    r->sweep = sweep;
    t->uses[t->n_uses++] = (uint32_t)id;
    if (t->n_sweeps == 1) {
        t->first_sweep_uses = t->n_uses;
    }
    return 0;
}

static bool starts_with(const char *at, const char *end, const char *word) {
    size_t n = strlen(word);
    return (size_t)(end - at) >= n && memcmp(at, word, n) == 0;
}

static int not_a_trace(const struct reader *r) {
    return error_set(r->err, OT_ERR_FORMAT, r->path,
                     "line 1: not a trace; expected `onetrip-trace 1`");
}

/* at..end: one line without its line feed. */
static int take_line(struct reader *r, const char *at, const char *end) {
    r->line++;
    if (r->line == 1) {
        if ((size_t)(end - at) != strlen("onetrip-trace 1") ||
            !starts_with(at, end, "onetrip-trace 1")) {
            return not_a_trace(r);
        }
        return 0;
    }
    if (starts_with(at, end, "use ")) {
        return take_use(r, at + 4, end);
    }
    if (starts_with(at, end, "extent ")) {
        return take_extent(r, at + 7, end);
    }
    if (starts_with(at, end, "#")) {
        return 0;
    }
    int shown = end - at < 40 ? (int)(end - at) : 40;
    return error_set(r->err, OT_ERR_FORMAT, r->path,
                     "line %" PRIu64 ": `%.*s`; expected `extent`, `use` or `#`", r->line, shown,
                     at);
}

/* Takes the whole lines of buffer; *rest is how many bytes of an unfinished one are left. */
static int take_lines(struct reader *r, const char *buffer, uint64_t n, uint64_t *rest) {
    const char *at = buffer;
    const char *end = buffer + n;
    const char *line_end;
    while (at < end && (line_end = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (line_end - at > PLAN_TRACE_MAX_LINE) {
            break;
        }
        int rc = take_line(r, at, line_end);
        if (rc != 0) {
            return rc;
        }
        at = line_end + 1;
    }
    *rest = (uint64_t)(end - at);
    if (*rest > PLAN_TRACE_MAX_LINE && r->line == 0) {
        return not_a_trace(r);
    }
    if (*rest > PLAN_TRACE_MAX_LINE) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "line %" PRIu64 " is longer than %u bytes",
                         r->line + 1, (unsigned)PLAN_TRACE_MAX_LINE);
    }
    return 0;
}

static int read_lines(struct reader *r, const struct sys_file *file, char *buffer) {
    uint64_t rest = 0;
    for (uint64_t offset = 0; offset < file->bytes;) {
        uint64_t n = min_u64(CHUNK_BYTES, file->bytes - offset);
        int rc = sys_file_read(file, offset, buffer + rest, n, r->err);
        if (rc != 0) {
            return rc;
        }
        offset += n;
        n += rest;
        rc = take_lines(r, buffer, n, &rest);
        if (rc != 0) {
            return rc;
        }
        memmove(buffer, buffer + n - rest, (size_t)rest);
    }
    if (rest > 0) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "line %" PRIu64 " has no end: the file is cut off", r->line + 1);
    }
    if (r->trace->n_uses == 0) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "%s",
                         r->line == 0 ? "empty; expected `onetrip-trace 1`" : "no `use` line");
    }
    return 0;
}

static int sum_compulsory(struct plan_trace *t, struct ot_error *err) {
    uint8_t *used = mem_calloc(t->n_extents, sizeof *used);
    if (used == NULL) {
        return error_memory(err, t->n_extents);
    }
    for (uint32_t i = 0; i < t->n_uses; i++) {
        if (used[t->uses[i]] == 0) {
            used[t->uses[i]] = 1;
            t->compulsory_bytes += t->extent_bytes[t->uses[i]];
        }
    }
    mem_free(used);
    return 0;
}

int plan_trace_open(const char *path, struct plan_trace *out, struct ot_error *err) {
    struct sys_file file;
    int rc = sys_file_open(&file, path, err);
    if (rc != 0) {
        return rc;
    }
    struct plan_trace trace = {0};
    char *buffer = mem_calloc(CHUNK_BYTES + PLAN_TRACE_MAX_LINE, 1);
    if (buffer == NULL) {
        rc = error_memory(err, CHUNK_BYTES);
        goto fail_file;
    }
    struct reader reader = {.path = path, .trace = &trace, .err = err};
    rc = read_lines(&reader, &file, buffer);
    if (rc == 0) {
        rc = sum_compulsory(&trace, err);
    }
    mem_free(buffer);
    if (rc != 0) {
        plan_trace_close(&trace);
        goto fail_file;
    }
    *out = trace;
fail_file:
    sys_file_close(&file);
    return rc;
}

void plan_trace_close(struct plan_trace *t) {
    mem_free(t->extent_bytes);
    mem_free(t->uses);
    *t = (struct plan_trace){0};
}
