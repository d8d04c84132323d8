/* import.c - reads a written ledger back (JSON lines or SQLite, told apart by the first bytes) and
 * prints it as tables.
 *
 * The file is untrusted: its size, the number of groups, every name, all names together and every
 * number are limited and checked. The file's bytes in memory are lent to SQLite, which has limits
 * of its own and is asked one SELECT. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "report/record.h"
#include "report/report.h"
#include "sys/file.h"
#include "token/words.h"

enum {
    MAX_FILE_MIB = 512,
    MAX_GROUPS = 1 << 20,
    MAX_NAME_BYTES = 1024,      /* of a record, as of a tensor */
    MAX_NAMES_BYTES = 64 << 20, /* of all groups together */
    MAX_LINE_BYTES = 1 << 20,
    MAX_ROW_BYTES = 1 << 14, /* of SQLite, values that it computes included */
    MAX_STEPS = 200000,      /* thousands of SQLite's instructions */
};

enum key { BY_BOUNDARY, BY_CLASS, BY_TENSOR, BY_CAUSE, BY_LAYER, BY_COUNT };
static const char *const key_names[BY_COUNT] = {"boundary", "class", "tensor", "cause", "layer"};

struct group {
    char *name; /* owned: boundary, and what it is grouped by */
    uint64_t boundary;
    uint64_t moved, needed, rounding, times;
};

struct table {
    enum key by;
    struct group *groups; /* owned [n_groups of capacity] */
    uint32_t n_groups, capacity;
    uint32_t *index; /* owned [index_size], group + 1 by hash; a power of two */
    uint32_t index_size;
    uint64_t seed; /* of the hash, so that a file cannot be made to collide */
    uint64_t names_bytes;
};

static void table_deinit(struct table *t) {
    for (uint32_t i = 0; i < t->n_groups; i++) {
        mem_free(t->groups[i].name);
    }
    mem_free(t->groups);
    mem_free(t->index);
}

/* The place in the index of a group, or of the gap where it belongs; there is always a gap. */
static uint32_t table_place(const struct table *t, uint64_t boundary, const char *name) {
    uint64_t hash = words_hash_seeded(t->seed ^ boundary, name, strlen(name));
    uint32_t at = (uint32_t)hash & (t->index_size - 1);
    for (; t->index[at] != 0; at = (at + 1) & (t->index_size - 1)) {
        const struct group *g = &t->groups[t->index[at] - 1];
        if (g->boundary == boundary && strcmp(g->name, name) == 0) {
            break;
        }
    }
    return at;
}

static bool table_grow(struct table *t) {
    uint32_t capacity = t->capacity == 0 ? 64 : 2 * t->capacity;
    struct group *groups = mem_realloc(t->groups, (uint64_t)capacity * sizeof *groups);
    if (groups == NULL) {
        return false;
    }
    t->groups = groups;
    uint32_t *index = mem_calloc(2 * (uint64_t)capacity, sizeof *index);
    if (index == NULL) {
        return false;
    }
    mem_free(t->index);
    t->capacity = capacity;
    t->index = index;
    t->index_size = 2 * capacity;
    for (uint32_t i = 0; i < t->n_groups; i++) {
        index[table_place(t, groups[i].boundary, groups[i].name)] = i + 1;
    }
    return true;
}

static int table_find(struct table *t, uint64_t boundary, const char *name, const char *at,
                      struct group **found, struct ot_error *err) {
    uint32_t place = t->index_size != 0 ? table_place(t, boundary, name) : 0;
    if (t->index_size != 0 && t->index[place] != 0) {
        *found = &t->groups[t->index[place] - 1];
        return 0;
    }
    uint64_t bytes = strlen(name) + 1;
    if (t->n_groups == MAX_GROUPS || t->names_bytes + bytes > MAX_NAMES_BYTES) {
        return error_set(err, OT_ERR_FORMAT, at,
                         "more than %d groups, or their names have more than %d MiB", MAX_GROUPS,
                         MAX_NAMES_BYTES >> 20);
    }
    if (t->n_groups == t->capacity) {
        if (!table_grow(t)) {
            return error_set(err, OT_ERR_MEMORY, at, "no memory for more than %u groups",
                             t->n_groups);
        }
        place = table_place(t, boundary, name);
    }
    struct group *g = &t->groups[t->n_groups];
    *g = (struct group){.name = mem_strdup(name), .boundary = boundary};
    if (g->name == NULL) {
        return error_memory(err, bytes);
    }
    t->names_bytes += bytes;
    t->index[place] = ++t->n_groups;
    *found = g;
    return 0;
}

enum list { BOUNDARIES, CLASSES, CAUSES };

/* The position of a word in a list, or -1. */
static int find_word(enum list list, const char *word) {
    static const int counts[] = {OT_BOUNDARY_COUNT, OT_CLASS_COUNT, OT_CAUSE_COUNT};
    for (int i = 0; i < counts[list]; i++) {
        const char *name = list == BOUNDARIES ? ot_boundary_name((enum ot_boundary)i)
                           : list == CLASSES  ? ot_class_name((enum ot_class)i)
                                              : ot_cause_name((enum ot_cause)i);
        if (strcmp(word, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* Adds a record whose fields were read but not checked. at: "file:line". */
static int table_add(struct table *t, const struct record *r, const char *at,
                     struct ot_error *err) {
    int boundary = find_word(BOUNDARIES, r->boundary);
    if (boundary < 0 || find_word(CLASSES, r->cls) < 0 || find_word(CAUSES, r->cause) < 0) {
        return error_set(err, OT_ERR_FORMAT, at,
                         "unknown boundary, class or cause: \"%.40s\", \"%.40s\", \"%.40s\"",
                         r->boundary, r->cls, r->cause);
    }
    uint64_t name_bytes = strlen(r->tensor);
    if (name_bytes > MAX_NAME_BYTES || !utf8_valid(r->tensor, name_bytes)) {
        return error_set(err, OT_ERR_FORMAT, at,
                         "a tensor's name of %" PRIu64 " bytes: expected UTF-8, %d bytes at most",
                         name_bytes, MAX_NAME_BYTES);
    }
    char layer[24];
    const char *name = r->boundary;
    switch (t->by) {
    case BY_CLASS: name = r->cls; break;
    case BY_TENSOR: name = r->tensor; break;
    case BY_CAUSE: name = r->cause; break;
    case BY_LAYER:
        snprintf(layer, sizeof layer, r->layer < 0 ? "none" : "%" PRId32, r->layer);
        name = layer;
        break;
    case BY_BOUNDARY:
    case BY_COUNT: break;
    }
    struct group *g = NULL;
    int rc = table_find(t, (uint64_t)boundary, name, at, &g, err);
    if (rc != 0) {
        return rc;
    }
    if (!checked_add(g->moved, r->moved_bytes, &g->moved) ||
        !checked_add(g->needed, r->needed_bytes, &g->needed) ||
        !checked_add(g->rounding, r->rounding_bytes, &g->rounding) ||
        !checked_add(g->times, r->times, &g->times)) {
        return error_set(err, OT_ERR_FORMAT, at, "the sums of bytes overflow 64 bits");
    }
    return 0;
}

/* ---- JSON lines ---- */

static int add_line(struct table *t, char *line, uint64_t bytes, const char *at,
                    struct ot_error *err) {
    struct record r;
    if (bytes > MAX_LINE_BYTES || !record_parse(line, bytes, &r)) {
        return error_set(
            err, OT_ERR_FORMAT, at,
            "not a ledger record: expected a JSON object with tensor, layer, boundary, "
            "class, cause, moved_bytes, needed_bytes, rounding_bytes, times");
    }
    return table_add(t, &r, at, err);
}

static int read_lines(struct table *t, const char *path, char *data, uint64_t bytes,
                      struct ot_error *err) {
    uint64_t number = 0;
    for (uint64_t i = 0; i < bytes;) {
        char *end = memchr(data + i, '\n', (size_t)(bytes - i));
        uint64_t length = end != NULL ? (uint64_t)(end - (data + i)) : bytes - i;
        number++;
        if (length != 0) {
            char at[320];
            snprintf(at, sizeof at, "%.280s:%" PRIu64, path, number);
            int rc = add_line(t, data + i, length, at, err);
            if (rc != 0) {
                return rc;
            }
        }
        i += length + 1;
    }
    return 0;
}

/* ---- SQLite ---- */

static int too_long(void *steps) {
    return ++*(uint64_t *)steps > MAX_STEPS;
}

static uint64_t column_bytes(sqlite3_stmt *row, int column, bool *bad) {
    sqlite3_int64 value = sqlite3_column_int64(row, column);
    *bad |= sqlite3_column_type(row, column) != SQLITE_INTEGER || value < 0;
    return (uint64_t)value;
}

static int add_row(struct table *t, sqlite3_stmt *row, const char *at, struct ot_error *err) {
    const char *texts[4];
    bool bad = false;
    for (int i = 0; i < 4; i++) {
        texts[i] = (const char *)sqlite3_column_text(row, i);
        bad |= texts[i] == NULL || strlen(texts[i]) != (size_t)sqlite3_column_bytes(row, i);
    }
    sqlite3_int64 layer = sqlite3_column_int64(row, 4);
    bad |= layer < -1 || layer > INT32_MAX;
    struct record r = {.tensor = texts[0],
                       .boundary = texts[1],
                       .cls = texts[2],
                       .cause = texts[3],
                       .layer = (int32_t)layer};
    r.moved_bytes = column_bytes(row, 5, &bad);
    r.needed_bytes = column_bytes(row, 6, &bad);
    r.rounding_bytes = column_bytes(row, 7, &bad);
    r.times = column_bytes(row, 8, &bad);
    if (bad) {
        return error_set(err, OT_ERR_FORMAT, at, "a row of movements holds a value out of range");
    }
    return table_add(t, &r, at, err);
}

static int read_rows(struct table *t, sqlite3 *db, const char *path, struct ot_error *err) {
    uint64_t steps = 0;
    sqlite3_progress_handler(db, 1000, too_long, &steps);
    sqlite3_stmt *row = NULL;
    int rc = sqlite3_prepare_v2(db,
                                "SELECT tensor, boundary, class, cause, layer, moved_bytes,"
                                " needed_bytes, rounding_bytes, times FROM main.movements",
                                -1, &row, NULL);
    int result = 0;
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(row);
        if (rc != SQLITE_ROW) {
            break;
        }
        result = add_row(t, row, path, err);
        if (result != 0) {
            break;
        }
    }
    if (result == 0 && rc != SQLITE_DONE) {
        result =
            error_set(err, OT_ERR_FORMAT, path, "not a ledger database: %s", sqlite3_errmsg(db));
    }
    sqlite3_finalize(row);
    return result;
}

/* data is lent to SQLite, read-only, until the database is closed. */
static int read_database(struct table *t, const char *path, char *data, uint64_t bytes,
                         struct ot_error *err) {
    sqlite3 *db = NULL;
    int rc;
    if (sqlite3_open(":memory:", &db) != SQLITE_OK ||
        sqlite3_deserialize(db, "main", (unsigned char *)data, (sqlite3_int64)bytes,
                            (sqlite3_int64)bytes, SQLITE_DESERIALIZE_READONLY) != SQLITE_OK) {
        rc = error_set(err, OT_ERR_FORMAT, path, "not a ledger database");
    } else {
        sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
        sqlite3_limit(db, SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES);
        rc = read_rows(t, db, path, err);
    }
    sqlite3_close(db);
    return rc;
}

/* ---- printing ---- */

static int by_moved(const void *a, const void *b) {
    const struct group *x = a, *y = b;
    if (x->boundary != y->boundary) {
        return x->boundary < y->boundary ? -1 : 1;
    }
    if (x->moved != y->moved) {
        return x->moved > y->moved ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* At most WIDTH characters of a name, which is UTF-8. */
static void print_name(FILE *out, const char *name) {
    enum { WIDTH = 48, COLUMN = 28 };
    char begin[4 * WIDTH + 1], shown[4 * WIDTH + 1];
    int width = 0, bytes = 0;
    for (; name[bytes] != '\0' && width < WIDTH; width++) {
        bytes += (int)utf8_char_bytes(name + bytes, 4);
    }
    snprintf(begin, sizeof begin, "%.*s", bytes, name);
    ot_text_printable(begin, shown, sizeof shown);
    fprintf(out, "%s%*s", shown, width < COLUMN ? COLUMN - width : 0, "");
}

static void print_table(const struct table *t, uint32_t top, FILE *out) {
    fprintf(out, "%-9s %-28s %7s %7s %8s %7s %8s\n", "boundary",
            t->by == BY_BOUNDARY ? "" : key_names[t->by], "moved", "needed", "rounding", "amplif.",
            "times");
    uint32_t shown = 0;
    for (uint32_t i = 0; i < t->n_groups; i++) {
        const struct group *g = &t->groups[i];
        shown = i > 0 && t->groups[i - 1].boundary == g->boundary ? shown + 1 : 1;
        if (top != 0 && shown > top) {
            continue;
        }
        char moved[24], needed[24], rounding[24], amp[24] = "extra";
        if (g->needed != 0) {
            snprintf(amp, sizeof amp, "%.2fx", (double)g->moved / (double)g->needed);
        } else if (g->moved == 0) {
            snprintf(amp, sizeof amp, "none");
        }
        fprintf(out, "%-9s ", ot_boundary_name((enum ot_boundary)g->boundary));
        print_name(out, t->by == BY_BOUNDARY ? "all" : g->name);
        fprintf(out, " %7s %7s %8s %7s %8" PRIu64 "\n", text_bytes(moved, (double)g->moved),
                text_bytes(needed, (double)g->needed), text_bytes(rounding, (double)g->rounding),
                amp, g->times);
    }
}

int ot_ledger_print(const char *path, const char *by, uint32_t top, FILE *out,
                    struct ot_error *err) {
    struct table t = {.by = BY_COUNT};
    t.seed = words_mix(clock_ns() ^ (uintptr_t)&t);
    by = by != NULL ? by : "class";
    for (int i = 0; i < BY_COUNT; i++) {
        t.by = strcmp(by, key_names[i]) == 0 ? (enum key)i : t.by;
    }
    if (t.by == BY_COUNT) {
        return error_set(err, OT_ERR_ARGUMENT, "by",
                         "unknown grouping \"%.40s\": expected boundary, class, tensor, cause or "
                         "layer",
                         by);
    }
    char *data = NULL;
    uint64_t bytes = 0;
    int rc = sys_file_slurp(path, (uint64_t)MAX_FILE_MIB << 20, &data, &bytes, err);
    if (rc != 0) {
        return rc;
    }
    if (bytes >= 16 && memcmp(data, "SQLite format 3", 16) == 0) {
        rc = read_database(&t, path, data, bytes, err);
    } else {
        rc = read_lines(&t, path, data, bytes, err);
    }
    if (rc == 0 && t.n_groups == 0) {
        rc = error_set(err, OT_ERR_FORMAT, path, "holds no ledger records");
    }
    if (rc == 0) {
        qsort(t.groups, t.n_groups, sizeof *t.groups, by_moved);
        print_table(&t, top, out);
    }
    table_deinit(&t);
    mem_free(data);
    return rc;
}
