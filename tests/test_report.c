/* test_report.c - judgements of a report, and the reader of written ledgers on hostile files. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "report/record.h"
#include "report/report.h"
#include "support/gguf_image.h"

static char directory[64];
static const uint64_t mib = 1u << 20;

/* A run of a 100 MiB model that moved its weights once from disk. */
static struct report clean_report(struct report_movement *movement) {
    static const uint32_t prompt[] = {1, 2, 3};
    static const struct ot_run run = {.prompt = prompt, .n_prompt = 3};
    *movement = (struct report_movement){
        .boundary = OT_DISK_RAM,
        .cls = OT_CLASS_WEIGHT,
        .cause = OT_CAUSE_LOAD,
        .known = OT_COUNTED,
        .moved_bytes = 100 * mib,
        .needed_bytes = 100 * mib,
        .extent_bytes = 100 * mib,
    };
    struct report r = {
        .run = &run,
        .model = {.path = "m",
                  .name = "",
                  .architecture = "llama",
                  .quantisation = "Q4_0",
                  .sweep_bytes = 100 * mib,
                  .weight_bytes = 100 * mib},
        .context = {.budget_bytes = 300 * mib,
                    .budget_source = "asked",
                    .residency = "wired",
                    .residency_why = "",
                    .io = "threads direct",
                    .n_sweeps_prompt = 1},
        .residency = {.mode = "wired",
                      .why = "",
                      .io = "threads direct",
                      .wired_bytes = 100 * mib,
                      .resident_bytes = 100 * mib,
                      .brought_bytes = 100 * mib,
                      .n_reads = 200,
                      .n_reads_direct = 200},
        .start = {.io_known = true, .read_bytes = 7 * mib, .rchar = 9 * mib},
        .now = {.io_known = true,
                .read_bytes = 107 * mib,
                .rchar = 109 * mib,
                .peak_rss_bytes = 150 * mib},
        .movements = movement,
        .n_movements = 1,
    };
    return r;
}

static void assert_warns(const struct report *r, const char *words) {
    for (uint32_t i = 0; i < r->n_warnings; i++) {
        if (strstr(r->warnings[i], words) != NULL) {
            return;
        }
    }
    print_error("no warning says \"%s\" (%u warnings)\n", words, r->n_warnings);
    fail();
}

static void test_a_run_that_adds_up_has_no_warnings(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    report_judge(&r);
    assert_int_equal(r.n_warnings, 0);
    assert_int_equal(r.n_closures, 2);
    assert_true(r.closures[0].residual == 0.0);
}

static void test_every_extent_read_twice_shows_in_the_closure(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.now.read_bytes += 100 * mib;
    report_judge(&r);
    assert_warns(&r, "disk>ram is not closed");
    assert_true(r.closures[0].residual > 0.49 && r.closures[0].residual < 0.51);
}

static void test_a_budget_that_did_not_hold_is_named(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.now.peak_rss_bytes = 301 * mib;
    report_judge(&r);
    assert_warns(&r, "the budget did not hold");
}

static void test_direct_reads_that_were_not_direct_are_counted(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.residency.n_reads_direct = 0;
    report_judge(&r);
    assert_warns(&r, "200 of 200 reads went through the page cache");
}

static void test_wired_memory_that_is_gone_is_named(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.residency.resident_bytes = 40 * mib;
    report_judge(&r);
    assert_warns(&r, "wired memory is not all there");
}

static void test_a_limit_that_was_lowered_is_named(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.context.withheld_most_bytes = 60 * mib;
    report_judge(&r);
    assert_warns(&r, "limit was lowered: 62.9 MB");
}

static void test_wired_memory_that_was_lent_is_not_missed(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.residency.resident_bytes = 40 * mib;
    r.residency.unread_bytes = 60 * mib;
    report_judge(&r);
    assert_int_equal(r.n_warnings, 0);
}

static void test_a_copy_of_weights_is_named(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    m.boundary = OT_RAM_RAM;
    m.cause = OT_CAUSE_REPACK;
    report_judge(&r);
    assert_warns(&r, "copied or transformed");
}

/* They come through a mapping, which rchar does not count. */
static void test_headers_are_not_missed_in_rchar(void **state) {
    struct report_movement m[2];
    struct report r = clean_report(m);
    (void)state;
    m[1] = m[0];
    m[1].cls = OT_CLASS_OTHER;
    m[1].moved_bytes = m[1].needed_bytes = 12 * mib;
    r.n_movements = 2;
    r.now.read_bytes += 12 * mib;
    report_judge(&r);
    assert_int_equal(r.n_warnings, 0);
    assert_int_equal(r.n_closures, 2);
    assert_true(r.closures[1].residual < 1e-9);
}

static void test_noise_of_the_process_is_no_fault(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    m.moved_bytes = r.residency.brought_bytes = 0;
    r.now.read_bytes = r.start.read_bytes + 300000;
    r.now.rchar = r.start.rchar + 300000;
    report_judge(&r);
    assert_int_equal(r.n_warnings, 0);
    assert_true(r.closures[0].residual < 0.01);
}

static void test_the_text_says_what_was_asked_and_what_came_of_it(void **state) {
    static const char *const requested[] = {"ram", "300M", "io", "threads"};
    struct ot_run run = {.requested = requested, .n_requested = 2, .n_prompt = 3};
    struct report_movement m;
    struct report r = clean_report(&m);
    char *text = NULL;
    size_t bytes = 0;
    (void)state;
    r.run = &run;
    m.needed_bytes = 98 * mib;
    report_judge(&r);
    FILE *out = open_memstream(&text, &bytes);
    report_print(&r, out);
    fclose(out);
    assert_non_null(strstr(text, "1.02x"));
    assert_non_null(strstr(text, "300M"));
    assert_non_null(strstr(text, "315 MB (asked)"));
    assert_non_null(strstr(text, "200 of 200 reads direct"));
    assert_non_null(strstr(text, "residual 0.00 %"));
    assert_non_null(strstr(text, "excess 2.10 MB (2.04 %)"));
    free(text);
}

static void test_text_that_is_not_utf8_still_makes_json(void **state) {
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.model.name = "a\xff\xfe";
    report_judge(&r);
    json_t *root = report_json(&r);
    assert_non_null(root);
    const json_t *model = json_object_get(root, "model");
    assert_string_equal(json_string_value(json_object_get(model, "name")), "a??");
    json_decref(root);
}

static void test_numbers_that_are_not_finite_are_null_in_json(void **state) {
    static const struct ot_run run = {.load_s = NAN, .prompt_s = -INFINITY, .decode_s = 2.5};
    struct report_movement m;
    struct report r = clean_report(&m);
    (void)state;
    r.run = &run;
    report_judge(&r);
    json_t *root = report_json(&r);
    assert_non_null(root);
    char *text = json_dumps(root, JSON_COMPACT);
    assert_non_null(strstr(text, "null"));
    assert_non_null(strstr(text, "2.5"));
    free(text);
    json_decref(root);
}

/* ---- reading ledgers ---- */

static int print_ledger(const char *text, const char *by, struct ot_error *err) {
    char path[128];
    snprintf(path, sizeof path, "%s/ledger", directory);
    image_write_bytes(path, text, strlen(text));
    FILE *out = fopen("/dev/null", "w");
    assert_non_null(out);
    int rc = ot_ledger_print(path, by, 0, out, err);
    fclose(out);
    return rc;
}

#define RECORD(boundary, moved)                                                                    \
    "{\"tensor\":\"t\",\"layer\":0,\"boundary\":\"" boundary "\",\"class\":\"weight\","            \
    "\"cause\":\"load\",\"known\":\"counted\",\"tensor_bytes\":1,\"moved_bytes\":" moved           \
    ",\"needed_bytes\":1,\"rounding_bytes\":0,\"times\":1}\n"

static void test_ledgers_that_are_none_are_refused_with_file_and_line(void **state) {
    static const struct {
        const char *text, *says;
    } table[] = {
        {"", "holds no ledger records"},
        {"\n\n", "holds no ledger records"},
        {"hello\n", "not a ledger record"},
        {"[]\n", "not a ledger record"},
        {"{}\n", "not a ledger record"},
        {RECORD("disk>ram", "1") "{\n", "not a ledger record"},
        {RECORD("moon>ram", "1"), "unknown boundary"},
        {RECORD("disk>ram", "-1"), "not a ledger record"},
        {RECORD("disk>ram", "\"1\""), "not a ledger record"},
        {RECORD("disk>ram", "1e9"), "not a ledger record"},
        {RECORD("disk>ram", "9223372036854775807") RECORD("disk>ram", "9223372036854775807")
             RECORD("disk>ram", "9223372036854775807"),
         "overflow"},
        {"SQLite format 3", "not a ledger record"},
    };
    struct ot_error err;
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(print_ledger(table[i].text, "tensor", &err), OT_ERR_FORMAT);
        if (strstr(err.message, table[i].says) == NULL || strstr(err.at, directory) == NULL) {
            print_error("%s: %s, expected %s\n", err.at, err.message, table[i].says);
            fail();
        }
    }
    assert_int_equal(print_ledger(RECORD("disk>ram", "1"), "tensor", &err), 0);
    assert_int_equal(print_ledger(RECORD("disk>ram", "1"), "hue", &err), OT_ERR_ARGUMENT);
}

/* A ledger of n rows whose names SQLite makes up as it reads them: id counts from 1. */
static int print_made_up(const char *name, unsigned n, const char *by, struct ot_error *err) {
    char path[128], sql[1024];
    snprintf(path, sizeof path, "%s/made-up.db", directory);
    snprintf(sql, sizeof sql,
             "CREATE TABLE movements(id INTEGER, tensor TEXT GENERATED ALWAYS AS (%s) VIRTUAL,"
             " layer DEFAULT 0, boundary DEFAULT 'disk>ram', class DEFAULT 'weight',"
             " cause DEFAULT 'load', moved_bytes DEFAULT 1, needed_bytes DEFAULT 1,"
             " rounding_bytes DEFAULT 0, times DEFAULT 1);"
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u)"
             "INSERT INTO movements(id) SELECT i FROM n",
             name, n);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    FILE *out = fopen("/dev/null", "w");
    assert_non_null(out);
    int rc = ot_ledger_print(path, by, 0, out, err);
    fclose(out);
    assert_int_equal(unlink(path), 0);
    return rc;
}

static void test_names_of_a_ledger_are_bounded(void **state) {
    enum { MOST = 160 << 20 };
    struct ot_error err;
    (void)state;
    assert_int_equal(print_made_up("printf('%d%.*c', id, 9, 'x')", 100, "tensor", &err), 0);
    assert_int_equal(print_made_up("printf('%d%.*c', id, 9000, 'x')", 300, "tensor", &err),
                     OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "name of 9001 bytes"));
    assert_int_equal(print_made_up("printf('%d%.*c', id, 900000, 'x')", 300, "tensor", &err),
                     OT_ERR_FORMAT);
    assert_int_equal(print_made_up("printf('%d%.*c', id, 1000, 'x')", 100000, "tensor", &err),
                     OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "names"));
    assert_true(mem_peak_bytes() < MOST);
    assert_int_equal(print_made_up("cast(x'ff' as text)", 1, "tensor", &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "expected UTF-8"));
    assert_int_equal(print_made_up("'a' || char(0) || 'b'", 1, "tensor", &err), OT_ERR_FORMAT);
}

static void test_a_full_table_still_takes_records_of_its_groups(void **state) {
    struct ot_error err;
    (void)state;
    assert_int_equal(print_made_up("printf('%d', id % 1048576)", (1 << 20) + 1, "tensor", &err), 0);
    assert_int_equal(print_made_up("printf('%d', id)", (1 << 20) + 1, "tensor", &err),
                     OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "groups"));
}

/* FNV-1a, which a table used to take for its hash. */
static uint32_t fnv(uint32_t h, const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        h = (h ^ (unsigned char)text[i]) * 16777619u;
    }
    return h;
}

static void put_digits(char out[4], uint32_t number) {
    for (int i = 0; i < 4; i++, number >>= 6) {
        out[i] = (char)('0' + (number & 63)) == '\\' ? '~' : (char)('0' + (number & 63));
    }
}

/* Two continuations of 4 bytes after which a hash of BITS bits is the same, one after the other
 * [STEPS]: any choice of one of each makes names that all collide (Joux 2004). */
enum { STEPS = 18, BITS = 22 };
static void find_collisions(char steps[STEPS][2][4]) {
    uint32_t *seen = calloc(1u << BITS, sizeof *seen), h = 2166136261u;
    assert_non_null(seen);
    for (int s = 0; s < STEPS; s++) {
        memset(seen, 0, sizeof *seen << BITS);
        for (uint32_t number = 1;; number++) {
            put_digits(steps[s][1], number);
            uint32_t next = fnv(h, steps[s][1], 4), low = next & ((1u << BITS) - 1);
            if (seen[low] != 0) {
                put_digits(steps[s][0], seen[low]);
                h = next;
                break;
            }
            seen[low] = number;
        }
    }
    free(seen);
}

static void test_names_that_were_chosen_to_collide_take_no_longer(void **state) {
    char steps[STEPS][2][4], path[128];
    struct ot_error err;
    (void)state;
    find_collisions(steps);
    snprintf(path, sizeof path, "%s/colliding", directory);
    FILE *file = fopen(path, "w"), *out = fopen("/dev/null", "w");
    assert_non_null(file);
    assert_non_null(out);
    for (uint32_t i = 0; i < 1u << STEPS; i++) {
        char name[4 * STEPS];
        for (int s = 0; s < STEPS; s++) {
            memcpy(name + 4 * s, steps[s][i >> s & 1], 4);
        }
        fprintf(file,
                "{\"tensor\":\"%.*s\",\"layer\":0,\"boundary\":\"disk>ram\",\"class\":\"weight\","
                "\"cause\":\"load\",\"moved_bytes\":1,\"needed_bytes\":1,\"rounding_bytes\":0,"
                "\"times\":1}\n",
                (int)sizeof name, name);
    }
    assert_int_equal(fclose(file), 0);
    alarm(40); /* a second will do, where it used to be minutes */
    assert_int_equal(ot_ledger_print(path, "tensor", 0, out, &err), 0);
    alarm(0);
    fclose(out);
    assert_int_equal(unlink(path), 0);
}

/* record_parse on a copy of its own, so that a sanitizer sees a step too far. */
static bool parses(const char *text, struct record *r, char **line) {
    size_t bytes = strlen(text);
    *line = malloc(bytes);
    assert_non_null(*line);
    memcpy(*line, text, bytes);
    return record_parse(*line, bytes, r);
}

#define FIELDS                                                                                     \
    "\"boundary\":\"b\",\"class\":\"c\",\"cause\":\"k\",\"moved_bytes\":1,\"needed_bytes\":0,"     \
    "\"rounding_bytes\":3,\"times\":9223372036854775807"

static void test_lines_of_a_ledger_are_json(void **state) {
    static const struct {
        const char *name, *means; /* NULL: refused */
    } names[] = {
        {"blk.0.ffn_down.weight", "blk.0.ffn_down.weight"},
        {"", ""},
        {"a\\\"b\\\\c\\/d\\b\\f\\n\\r\\t", "a\"b\\c/d\b\f\n\r\t"},
        {"\\u00e9\\u20AC\\ud83d\\ude00x", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80x"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\\u0000", NULL},
        {"\\ud83d", NULL},
        {"\\ud83d\\u0041", NULL},
        {"\\ude00", NULL},
        {"\\u12g4", NULL},
        {"\\u12", NULL},
        {"\\x", NULL},
        {"\\", NULL},
        {"\t", NULL},
        {"\xff", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[512], *line;
        struct record r;
        snprintf(text, sizeof text,
                 " { \"tensor\" : \"%s\" , \"new\":\"x\",\"layer\":-1," FIELDS "}\r",
                 names[i].name);
        assert_int_equal(parses(text, &r, &line), names[i].means != NULL);
        if (names[i].means != NULL) {
            assert_string_equal(r.tensor, names[i].means);
            assert_string_equal(r.cause, "k");
            assert_int_equal(r.layer, -1);
            assert_int_equal(r.rounding_bytes, 3);
            assert_true(r.times == INT64_MAX);
        }
        free(line);
    }
    static const char *const refused[] = {"",
                                          "{",
                                          "{}",
                                          "{\"tensor\":\"t\",\"layer\":0," FIELDS,
                                          "{\"tensor\":\"t\"," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":0," FIELDS "}x",
                                          "{\"tensor\":\"t\",\"layer\":0," FIELDS ",}",
                                          "{\"tensor\":\"t\",\"layer\":00," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":-2," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":2147483648," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":1.0," FIELDS "}",
                                          "{\"tensor\":1,\"layer\":0," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":9223372036854775808," FIELDS
                                          "}",
                                          "{\"tensor\":\"t\",\"layer\":-," FIELDS "}",
                                          "{\"tensor\":\"t\",\"layer\":[]," FIELDS "}"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct record r;
        char *line;
        assert_false(parses(refused[i], &r, &line));
        free(line);
    }
}

static void test_every_failing_allocation_of_the_reader_is_reported(void **state) {
    struct ot_error err;
    (void)state;
    uint64_t before = mem_live_bytes();
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        int rc = print_ledger(RECORD("disk>ram", "1") RECORD("ram>disk", "2"), "tensor", &err);
        uint64_t asked = mem_fail_count();
        mem_fail_at(0);
        assert_int_equal(mem_live_bytes(), before);
        if (asked < n) {
            assert_int_equal(rc, 0);
            assert_true(n > 3);
            return;
        }
        assert_int_equal(rc, OT_ERR_MEMORY);
    }
}

static int set_up(void **state) {
    (void)state;
    image_directory_make(directory);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_that_adds_up_has_no_warnings),
        cmocka_unit_test(test_every_extent_read_twice_shows_in_the_closure),
        cmocka_unit_test(test_a_budget_that_did_not_hold_is_named),
        cmocka_unit_test(test_direct_reads_that_were_not_direct_are_counted),
        cmocka_unit_test(test_wired_memory_that_is_gone_is_named),
        cmocka_unit_test(test_a_limit_that_was_lowered_is_named),
        cmocka_unit_test(test_wired_memory_that_was_lent_is_not_missed),
        cmocka_unit_test(test_a_copy_of_weights_is_named),
        cmocka_unit_test(test_headers_are_not_missed_in_rchar),
        cmocka_unit_test(test_noise_of_the_process_is_no_fault),
        cmocka_unit_test(test_the_text_says_what_was_asked_and_what_came_of_it),
        cmocka_unit_test(test_text_that_is_not_utf8_still_makes_json),
        cmocka_unit_test(test_numbers_that_are_not_finite_are_null_in_json),
        cmocka_unit_test(test_ledgers_that_are_none_are_refused_with_file_and_line),
        cmocka_unit_test(test_names_of_a_ledger_are_bounded),
        cmocka_unit_test(test_a_full_table_still_takes_records_of_its_groups),
        cmocka_unit_test(test_names_that_were_chosen_to_collide_take_no_longer),
        cmocka_unit_test(test_lines_of_a_ledger_are_json),
        cmocka_unit_test(test_every_failing_allocation_of_the_reader_is_reported),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
