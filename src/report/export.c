/* export.c - the ledger record by record, one for each extent, boundary and cause that moved:
 * JSON lines, or a SQLite database with one table.
 *
 * SQLite builds the database in memory; the file is written whole, as every other one. */
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/json_text.h"
#include "base/text.h"
#include "engine/engine.h"
#include "report/record.h"
#include "report/report.h"
#include "sys/file.h"

static bool ends_in(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Calls fn for every record; stops at its first non-zero answer and returns it. */
static int each_record(const struct ledger *l, int (*fn)(void *to, const struct record *r),
                       void *to) {
    for (uint32_t id = 0; id < ledger_n_extents(l); id++) {
        const struct ledger_extent *extent = ledger_get_extent(l, id);
        for (int b = 0; b < OT_BOUNDARY_COUNT; b++) {
            for (int k = 0; k < OT_CAUSE_COUNT; k++) {
                const struct ledger_counter *c =
                    ledger_get(l, id, (enum ot_boundary)b, (enum ot_cause)k);
                if (c->times == 0) {
                    continue;
                }
                struct record r = {
                    .tensor = extent->name,
                    .layer = extent->layer,
                    .boundary = ot_boundary_name((enum ot_boundary)b),
                    .cls = ot_class_name(extent->cls),
                    .cause = ot_cause_name((enum ot_cause)k),
                    .known = ledger_known_name(ledger_known((enum ot_boundary)b)),
                    .tensor_bytes = extent->bytes,
                    .moved_bytes = c->moved_bytes,
                    .needed_bytes = c->needed_bytes,
                    .rounding_bytes = c->rounding_bytes,
                    .times = c->times,
                };
                int rc = fn(to, &r);
                if (rc != 0) {
                    return rc;
                }
            }
        }
    }
    return 0;
}

static int append_line(void *to, const struct record *r) {
    struct text *lines = to;
    json_t *name = json_text(r->tensor);
    size_t quoted_bytes;
    char *quoted = name != NULL ? json_whole(name, JSON_ENCODE_ANY, &quoted_bytes) : NULL;
    json_decref(name);
    if (quoted == NULL) {
        return OT_ERR_MEMORY;
    }
    text_printf(lines,
                "{\"tensor\":%s,\"layer\":%" PRId32 ",\"boundary\":\"%s\",\"class\":\"%s\","
                "\"cause\":\"%s\",\"known\":\"%s\",\"tensor_bytes\":%" PRIu64
                ",\"moved_bytes\":%" PRIu64 ",\"needed_bytes\":%" PRIu64
                ",\"rounding_bytes\":%" PRIu64 ",\"times\":%" PRIu64 "}\n",
                quoted, r->layer, r->boundary, r->cls, r->cause, r->known, r->tensor_bytes,
                r->moved_bytes, r->needed_bytes, r->rounding_bytes, r->times);
    mem_free(quoted);
    return text_failed(lines) ? OT_ERR_MEMORY : 0;
}

static int write_lines(const struct ledger *l, const char *path, struct ot_error *err) {
    struct text lines = {0};
    int rc = each_record(l, append_line, &lines);
    if (rc != 0) {
        rc = error_set(err, OT_ERR_MEMORY, path, "no memory for the ledger's records");
    } else {
        rc = sys_file_write(path, lines.data != NULL ? lines.data : "", lines.bytes, err);
    }
    text_deinit(&lines);
    return rc;
}

static int insert_row(void *to, const struct record *r) {
    sqlite3_stmt *insert = to;
    sqlite3_bind_text(insert, 1, r->tensor, -1, SQLITE_STATIC);
    sqlite3_bind_int(insert, 2, r->layer);
    sqlite3_bind_text(insert, 3, r->boundary, -1, SQLITE_STATIC);
    sqlite3_bind_text(insert, 4, r->cls, -1, SQLITE_STATIC);
    sqlite3_bind_text(insert, 5, r->cause, -1, SQLITE_STATIC);
    sqlite3_bind_text(insert, 6, r->known, -1, SQLITE_STATIC);
    sqlite3_bind_int64(insert, 7, (sqlite3_int64)r->tensor_bytes);
    sqlite3_bind_int64(insert, 8, (sqlite3_int64)r->moved_bytes);
    sqlite3_bind_int64(insert, 9, (sqlite3_int64)r->needed_bytes);
    sqlite3_bind_int64(insert, 10, (sqlite3_int64)r->rounding_bytes);
    sqlite3_bind_int64(insert, 11, (sqlite3_int64)r->times);
    int rc = sqlite3_step(insert);
    sqlite3_reset(insert);
    return rc == SQLITE_DONE ? 0 : OT_ERR_IO;
}

static int fill_database(sqlite3 *db, const struct ledger *l) {
    static const char schema[] =
        "CREATE TABLE movements(tensor TEXT NOT NULL, layer INTEGER NOT NULL,"
        " boundary TEXT NOT NULL, class TEXT NOT NULL, cause TEXT NOT NULL, known TEXT NOT NULL,"
        " tensor_bytes INTEGER NOT NULL, moved_bytes INTEGER NOT NULL,"
        " needed_bytes INTEGER NOT NULL, rounding_bytes INTEGER NOT NULL,"
        " times INTEGER NOT NULL); BEGIN";
    if (sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK) {
        return OT_ERR_IO;
    }
    sqlite3_stmt *insert = NULL;
    if (sqlite3_prepare_v2(db, "INSERT INTO movements VALUES(?,?,?,?,?,?,?,?,?,?,?)", -1, &insert,
                           NULL) != SQLITE_OK) {
        return OT_ERR_IO;
    }
    int rc = each_record(l, insert_row, insert);
    sqlite3_finalize(insert);
    if (rc == 0 && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        rc = OT_ERR_IO;
    }
    return rc;
}

static int write_database(const struct ledger *l, const char *path, struct ot_error *err) {
    sqlite3 *db = NULL;
    unsigned char *image = NULL;
    sqlite3_int64 bytes = 0;
    int rc = OT_ERR_MEMORY;
    if (sqlite3_open(":memory:", &db) == SQLITE_OK && fill_database(db, l) == 0) {
        image = sqlite3_serialize(db, "main", &bytes, 0);
    }
    if (image != NULL) {
        rc = sys_file_write(path, image, (uint64_t)bytes, err);
    } else {
        error_set(err, rc, path, "the ledger's database could not be built: %s",
                  db != NULL ? sqlite3_errmsg(db) : "no memory");
    }
    sqlite3_free(image);
    sqlite3_close(db);
    return rc;
}

int ot_ledger_write(struct ot_context *ctx, const char *path, struct ot_error *err) {
    const struct ledger *l = engine_ledger(ctx);
    (void)residency_settle_needs(engine_residency(ctx));
    bool database = ends_in(path, ".sqlite") || ends_in(path, ".db");
    return database ? write_database(l, path, err) : write_lines(l, path, err);
}
