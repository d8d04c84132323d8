/* residency_fixture.h - files of random bytes with random extents, and a walk over them that checks
 * every byte it is given. Included by the tests of residency only.
 *
 * Works with malloc, so that tests that make the library's allocations fail see the library's own.
 */
#ifndef TESTS_RESIDENCY_FIXTURE_H
#define TESTS_RESIDENCY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "residency/residency.h"
#include "sys/facts.h"
#include "sys/file.h"

enum { MAX_EXTENTS = 64, MAX_FILES = 2, MAX_PARTS = 8 };

struct fixture {
    uint64_t random;
    uint32_t n_files, n_extents;
    char paths[MAX_FILES][256];
    uint8_t *bytes[MAX_FILES]; /* what the files hold */
    uint64_t n_bytes[MAX_FILES];
    struct sys_file files[MAX_FILES];
    struct residency_extent extents[MAX_EXTENTS];
    struct ledger *ledger;
};

struct fixture_options {
    uint64_t seed;
    uint32_t n_layers; /* each: one small and two large extents */
    uint32_t n_files;
    bool experts; /* each layer has one extent of MAX_PARTS parts too */
    bool large_parts; /* of the experts: several reads each */
    bool wide;    /* the last extent is several sections */
    bool tied;    /* the last extent is also read by single rows; else a ROWS extent comes first */
    const char *directory;
};

static uint64_t fixture_random(struct fixture *f) {
    f->random ^= f->random << 13;
    f->random ^= f->random >> 7;
    f->random ^= f->random << 17;
    return f->random;
}

static uint32_t fixture_below(struct fixture *f, uint32_t n) {
    return (uint32_t)(fixture_random(f) >> 20) % n;
}

static inline uint64_t fixture_extent_bytes(const struct residency_extent *e) {
    return e->row_bytes * e->n_rows * e->n_parts;
}

static void fixture_add(struct fixture *f, uint32_t file, uint64_t row_bytes, uint32_t n_rows,
                        uint32_t n_parts, enum residency_contract contract) {
    struct residency_extent *e = &f->extents[f->n_extents];
    *e = (struct residency_extent){
        .file = file,
        .offset = f->n_bytes[file] + 32 * fixture_below(f, 4),
        .row_bytes = row_bytes,
        .n_rows = n_rows,
        .n_parts = n_parts,
        .contract = contract,
    };
    f->n_bytes[file] = e->offset + fixture_extent_bytes(e);
    f->n_extents++;
}

static void fixture_write(struct fixture *f, uint32_t file) {
    f->bytes[file] = malloc(f->n_bytes[file]);
    assert_non_null(f->bytes[file]);
    for (uint64_t i = 0; i < f->n_bytes[file]; i++) {
        f->bytes[file][i] = (uint8_t)(fixture_random(f) >> 32);
    }
    FILE *out = fopen(f->paths[file], "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(f->bytes[file], 1, f->n_bytes[file], out), f->n_bytes[file]);
    assert_int_equal(fflush(out), 0);
    assert_int_equal(fsync(fileno(out)), 0);
    assert_int_equal(fclose(out), 0);
}

/* Before extents are added. */
static void fixture_begin(struct fixture *f, const struct fixture_options *o) {
    *f = (struct fixture){.random = o->seed * 0x9e3779b97f4a7c15u + 1, .n_files = o->n_files};
    for (uint32_t i = 0; i < o->n_files; i++) {
        f->n_bytes[i] = 100 + fixture_below(f, 5000);
        snprintf(f->paths[i], sizeof f->paths[i], "%s/residency-%ld-%u.bin",
                 o->directory != NULL ? o->directory : ".", (long)getpid(), i);
    }
}

/* After the last: writes and opens the files. */
static void fixture_end(struct fixture *f) {
    struct ot_error err;
    assert_int_equal(ledger_open(MAX_EXTENTS, &f->ledger, &err), 0);
    for (uint32_t i = 0; i < f->n_extents; i++) {
        char name[32];
        snprintf(name, sizeof name, "extent.%u", i);
        assert_int_equal(ledger_add_extent(f->ledger, name, strlen(name),
                                           fixture_extent_bytes(&f->extents[i]), OT_CLASS_WEIGHT,
                                           (int32_t)i, &f->extents[i].ledger_id, &err),
                         0);
    }
    for (uint32_t i = 0; i < f->n_files; i++) {
        fixture_write(f, i);
        assert_int_equal(sys_file_open(&f->files[i], f->paths[i], &err), 0);
    }
}

static void fixture_open(struct fixture *f, const struct fixture_options *o) {
    fixture_begin(f, o);
    if (!o->tied) {
        fixture_add(f, 0, 34 * (20 + fixture_below(f, 60)), 1000, 1, RESIDENCY_ROWS);
    }
    for (uint32_t i = 0; i < o->n_layers; i++) {
        uint32_t file = i % o->n_files;
        fixture_add(f, file, 4 * (50 + fixture_below(f, 3000)), 1, 1, RESIDENCY_SWEEP);
        for (uint32_t k = 0; k < 2; k++) {
            fixture_add(f, file, 18 * (1 + fixture_below(f, 120)), 200 + fixture_below(f, 700), 1,
                        RESIDENCY_SWEEP);
        }
        if (o->experts) {
            fixture_add(f, file, 18 * (10 + fixture_below(f, 40)), o->large_parts ? 12000 : 500,
                        MAX_PARTS, RESIDENCY_EXPERT);
        }
    }
    fixture_add(f, 0, 34 * 30, o->wide ? 6000 : 1200, 1, RESIDENCY_SWEEP);
    f->extents[f->n_extents - 1].also_rows = o->tied;
    fixture_end(f);
}

static void fixture_close(struct fixture *f) {
    for (uint32_t i = 0; i < f->n_files; i++) {
        sys_file_close(&f->files[i]);
        unlink(f->paths[i]);
        free(f->bytes[i]);
    }
    ledger_close(f->ledger);
}

/* Nothing of the files in the page cache. */
static inline void fixture_make_cold(struct fixture *f) {
    for (uint32_t i = 0; i < f->n_files; i++) {
        sys_file_drop(&f->files[i], 0, f->files[i].bytes);
    }
}

static struct residency_params fixture_params(struct fixture *f, uint64_t budget) {
    return (struct residency_params){
        .files = f->files,
        .n_files = f->n_files,
        .extents = f->extents,
        .n_extents = f->n_extents,
        .weights_budget_bytes = budget,
        .ledger = f->ledger,
    };
}

static inline uint64_t fixture_sum(const struct fixture *f, enum residency_contract contract) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->n_extents; i++) {
        sum += f->extents[i].contract == contract ? fixture_extent_bytes(&f->extents[i]) : 0;
    }
    return sum;
}

static inline struct ledger_counter fixture_disk(const struct fixture *f, enum ot_cause cause) {
    return ledger_sum(f->ledger, OT_DISK_RAM, OT_CLASS_COUNT, cause);
}

/* ---- walking ---- */

static const uint8_t *fixture_row(const struct fixture *f, uint32_t extent, uint32_t part,
                                  uint32_t row) {
    const struct residency_extent *e = &f->extents[extent];
    return f->bytes[e->file] + e->offset + ((uint64_t)part * e->n_rows + row) * e->row_bytes;
}

static bool view_is_true(const struct fixture *f, const struct residency_view *v) {
    uint64_t bytes = v->n_rows * f->extents[v->extent].row_bytes;
    /* Every view may be read OVERREAD bytes beyond its end, whatever stands there. */
    volatile uint8_t beyond = 0;
    for (uint32_t i = 0; i < 64; i++) {
        beyond = v->data[bytes + i];
    }
    (void)beyond;
    return memcmp(v->data, fixture_row(f, v->extent, v->part, v->row), bytes) == 0;
}

enum { MAX_HELD = 6 };

struct held {
    struct residency_view views[MAX_HELD];
    uint32_t n;
};

static bool let_go(struct fixture *f, struct residency *r, struct held *held) {
    bool all_true = true;
    for (uint32_t i = 0; i < held->n;
         i++) { /* they must have stayed true as long as they are held */
        all_true = view_is_true(f, &held->views[i]) && all_true;
        residency_release(r, &held->views[i]);
    }
    held->n = 0;
    return all_true;
}

/* Asks for all rows of a part as the engine does: views are collected while that takes no waiting.
 * 1: a byte is not the file's. */
static int walk_part(struct fixture *f, struct residency *r, uint32_t extent, uint32_t part,
                     struct held *held, struct ot_error *err) {
    for (uint32_t row = 0; row < f->extents[extent].n_rows;) {
        struct residency_view view;
        int code = held->n < MAX_HELD ? residency_try(r, extent, part, row, &view, err) : 1;
        if (code == 1) {
            if (!let_go(f, r, held)) {
                return 1;
            }
            code = residency_acquire(r, extent, part, row, &view, err);
        }
        if (code != 0) {
            return code;
        }
        if (view.row != row || view.n_rows == 0 || view.n_rows > f->extents[extent].n_rows - row ||
            !view_is_true(f, &view)) {
            return 1;
        }
        row += view.n_rows;
        held->views[held->n++] = view;
    }
    return 0;
}

static int walk_experts(struct fixture *f, struct residency *r, uint32_t extent, struct held *held,
                        struct ot_error *err) {
    struct residency_part parts[MAX_PARTS];
    bool done[MAX_PARTS] = {false};
    uint32_t n = 0;
    for (uint32_t p = 0; p < MAX_PARTS; p++) {
        /* Low parts are wanted often. */
        if (fixture_below(f, 2 + p) == 0) {
            parts[n++] = (struct residency_part){extent, p};
        }
    }
    residency_want_parts(r, parts, n);
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < n; i++) { /* first those that are there, as the engine */
        done[i] = residency_has_part(r, extent, parts[i].part);
        code = done[i] ? walk_part(f, r, extent, parts[i].part, held, err) : 0;
    }
    for (uint32_t i = 0; code == 0 && i < n; i++) {
        code = done[i] ? 0 : walk_part(f, r, extent, parts[i].part, held, err);
    }
    return code;
}

struct row_check {
    const struct fixture *f;
    uint32_t extent;
    const uint32_t *rows;
    uint32_t n_calls[64];
    bool wrong;
};

static void check_row(void *user, uint32_t i, const uint8_t *data) {
    struct row_check *c = user;
    uint64_t bytes = c->f->extents[c->extent].row_bytes;
    c->n_calls[i]++;
    c->wrong = c->wrong || memcmp(data, fixture_row(c->f, c->extent, 0, c->rows[i]), bytes) != 0;
}

static int walk_rows(struct fixture *f, struct residency *r, uint32_t extent,
                     struct ot_error *err) {
    uint32_t rows[64];
    struct row_check check = {.f = f, .extent = extent, .rows = rows};
    for (uint32_t i = 0; i < 64; i++) {
        rows[i] = fixture_below(f, i % 3 == 0 ? 20 : f->extents[extent].n_rows);
    }
    int code = residency_rows(r, extent, rows, 64, check_row, &check, err);
    for (uint32_t i = 0; code == 0 && i < 64; i++) {
        check.wrong = check.wrong || check.n_calls[i] != 1;
    }
    return code == 0 && check.wrong ? 1 : code;
}

/* One sweep over everything up to an extent. 0, an error, or 1: a byte is not the file's. */
static int walk_to(struct fixture *f, struct residency *r, uint32_t last_extent,
                   struct ot_error *err) {
    struct held held = {.n = 0};
    int code = residency_sweep_begin(r, last_extent, err);
    for (uint32_t i = 0; code == 0 && i <= last_extent; i++) {
        const struct residency_extent *e = &f->extents[i];
        if (e->contract == RESIDENCY_ROWS || e->also_rows) {
            code = walk_rows(f, r, i, err);
        }
        if (code == 0 && e->contract == RESIDENCY_EXPERT) {
            code = walk_experts(f, r, i, &held, err);
        } else if (code == 0 && e->contract == RESIDENCY_SWEEP) {
            code = walk_part(f, r, i, 0, &held, err);
        }
    }
    if (!let_go(f, r, &held) && code == 0) {
        code = 1;
    }
    if (code == 0) {
        code = residency_sweep_check(r, err);
    }
    residency_sweep_end(r, code != 0);
    return code;
}

static inline int walk(struct fixture *f, struct residency *r, struct ot_error *err) {
    return walk_to(f, r, f->n_extents - 1, err);
}

/* Opens, walks n sweeps that must all be true, and leaves the residency open. */
static inline struct residency *walked(struct fixture *f, const struct residency_params *params,
                                       uint32_t n_sweeps) {
    struct ot_error err = {0};
    struct residency *r;
    int code = residency_open(params, &r, &err);
    if (code != 0) {
        fail_msg("open: %s: %s", err.at, err.message);
    }
    for (uint32_t i = 0; i < n_sweeps; i++) {
        code = walk(f, r, &err);
        if (code != 0) {
            fail_msg("sweep %u: code %d, %s: %s", i, code, err.at, err.message);
        }
        assert_true(residency_check(r));
    }
    return r;
}

#endif
