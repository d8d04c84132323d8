/* test_simulate.c - traces: written, read, damaged; and what the policies would have read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/alloc.h"
#include "onetrip.h"
#include "plan/simulate.h"
#include "plan/trace.h"
#include "residency/trace.h"
#include "sys/file.h"

static char folder[] = "/tmp/onetrip-simulate-XXXXXX";
static char path[128];

static int make_folder(void **state) {
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/trace", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_file(const char *text, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

/* What the function prints; the caller frees it. */
static char *simulate(const char *policy, uint64_t budget, bool json, int *rc,
                      struct ot_error *err) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    *rc = ot_simulate(path, policy, budget, json, out, err);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* Four extents of 100 bytes used in turn, three sweeps. */
static const char cyclic[] = "onetrip-trace 1\n"
                             "# four blocks\n"
                             "extent 0 100 a\nextent 1 100 b with a space\n"
                             "extent 2 100 c\nextent 3 100 d\n"
                             "use 0 0\nuse 0 1\nuse 0 2\nuse 0 3\n"
                             "use 1 0\nuse 1 1\nuse 1 2\nuse 1 3\n"
                             "use 2 0\nuse 2 1\nuse 2 2\nuse 2 3\n";

static void test_the_table_of_a_cyclic_trace_is_the_golden_one(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    int rc;
    char *text = simulate(NULL, 250, false, &rc, NULL);
    assert_int_equal(rc, 0);
    const char *table = strstr(text, "policy");
    assert_non_null(table);
    assert_string_equal(
        table, "policy      hits    misses    read hit bytes per sweep    / MIN over compulsory\n"
               "fixed          4         8   700 B   41.67 %     150 B    1.000           300 B\n"
               "lru            0        12 1.20 KB    0.00 %     400 B    1.714           800 B\n"
               "clock          0        12 1.20 KB    0.00 %     400 B    1.714           800 B\n"
               "sieve          0        12 1.20 KB    0.00 %     400 B    1.714           800 B\n"
               "lfu            4         8   800 B   33.33 %     200 B    1.143           400 B\n"
               "min            4         8   700 B   41.67 %     150 B    1.000           300 B\n"
               "the most used tenth of the extents takes 25.0 % of the uses\n");
    assert_non_null(strstr(text, "4 extents, 12 uses in 3 sweeps"));
    free(text);
}

static void test_a_recorded_trace_gives_the_golden_misses_and_bytes(void **state) {
    (void)state;
    static const struct {
        uint64_t budget;
        struct {
            uint64_t misses, bytes;
        } golden[POLICY_KIND_COUNT];
    } cases[] = {
        /* The output tensor alone, 10.6 MB, is over the first budget and takes nearly all of the
         * second one: whole-item policies reload it, or it drives out the rest, every sweep. */
        {4000000,
         {[POLICY_FIXED] = {413, 406571728},
          [POLICY_LRU] = {267, 429883600},
          [POLICY_CLOCK] = {262, 429699280},
          [POLICY_SIEVE] = {240, 428888272},
          [POLICY_LFU] = {241, 428925136},
          [POLICY_MIN] = {1225, 336345808}}},
        {11000000,
         {[POLICY_FIXED] = {413, 133571728},
          [POLICY_LRU] = {2642, 492345808},
          [POLICY_CLOCK] = {2642, 492345808},
          [POLICY_SIEVE] = {2642, 492345808},
          [POLICY_LFU] = {1620, 117910700},
          [POLICY_MIN] = {1225, 63345808}}},
        {13000000,
         {[POLICY_FIXED] = {413, 55571728},
          [POLICY_LRU] = {692, 34978674},
          [POLICY_CLOCK] = {670, 34167666},
          [POLICY_SIEVE] = {664, 33946482},
          [POLICY_LFU] = {507, 39080932},
          [POLICY_MIN] = {346, 22421200}}},
    };
    struct plan_trace trace;
    uint32_t *next_use;
    assert_int_equal(plan_trace_open(TEST_DATA "/traces/moe.trace", &trace, NULL), 0);
    assert_int_equal(plan_next_uses(&trace, &next_use, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
            struct plan_result r;
            assert_int_equal(plan_simulate(&trace, next_use, k, cases[i].budget, &r, NULL), 0);
            assert_int_equal(r.misses, cases[i].golden[k].misses);
            assert_int_equal(r.read_bytes, cases[i].golden[k].bytes);
            assert_int_equal(r.hits + r.misses, trace.n_uses);
        }
    }
    mem_free(next_use);
    plan_trace_close(&trace);
}

static void test_json_holds_the_same_figures(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    int rc;
    char *text = simulate(NULL, 250, true, &rc, NULL);
    assert_int_equal(rc, 0);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    json_t *trace = json_object_get(root, "trace");
    assert_string_equal(json_string_value(json_object_get(trace, "path")), path);
    assert_int_equal(json_integer_value(json_object_get(trace, "extents")), 4);
    assert_int_equal(json_integer_value(json_object_get(trace, "uses")), 12);
    assert_int_equal(json_integer_value(json_object_get(trace, "sweeps")), 3);
    assert_int_equal(json_integer_value(json_object_get(trace, "used_bytes")), 1200);
    assert_int_equal(json_integer_value(json_object_get(trace, "compulsory_bytes")), 400);
    assert_int_equal(json_integer_value(json_object_get(root, "budget_bytes")), 250);
    json_t *policies = json_object_get(root, "policies");
    assert_int_equal(json_array_size(policies), POLICY_KIND_COUNT);
    json_t *lru = json_array_get(policies, POLICY_LRU);
    assert_string_equal(json_string_value(json_object_get(lru, "policy")), "lru");
    assert_int_equal(json_integer_value(json_object_get(lru, "misses")), 12);
    assert_int_equal(json_integer_value(json_object_get(lru, "read_bytes")), 1200);
    assert_int_equal(json_integer_value(json_object_get(lru, "steady_bytes_per_sweep")), 400);
    assert_int_equal(json_integer_value(json_object_get(lru, "over_compulsory_bytes")), 800);
    assert_float_equal(json_real_value(json_object_get(lru, "over_min")), 12.0 / 7, 1e-9);
    json_decref(root);
    free(text);
}

static void test_one_policy_alone_is_still_compared_with_min(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    int rc;
    char *text = simulate("clock", 250, false, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_non_null(
        strstr(text, "clock          0        12 1.20 KB    0.00 %     400 B    1.714"));
    assert_null(strstr(text, "lru "));
    assert_null(strstr(text, "min "));
    free(text);
}

static void test_a_budget_of_nothing_and_one_without_bounds_are_answered(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    int rc;
    char *text = simulate("min", 0, true, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_non_null(strstr(text, "\"read_bytes\": 1200"));
    free(text);
    text = simulate("lru", UINT64_MAX, true, &rc, NULL);
    assert_int_equal(rc, 0);
    assert_non_null(strstr(text, "\"read_bytes\": 400"));
    free(text);
}

static void test_an_unknown_policy_is_refused_with_the_list(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    int rc;
    struct ot_error err;
    char *text = simulate("belady", 100, false, &rc, &err);
    assert_int_equal(rc, OT_ERR_ARGUMENT);
    assert_string_equal(err.at, "belady");
    assert_non_null(strstr(err.message, "fixed, lru, clock, sieve, lfu, min"));
    assert_string_equal(text, "");
    free(text);
}

/* ---- damaged traces ----------------------------------------------------------------------- */

#define HEAD "onetrip-trace 1\n"

static void test_every_broken_rule_is_refused_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "empty"},
        {"\n", "line 1: not a trace"},
        {"onetrip-trace 2\nextent 0 1 a\nuse 0 0\n", "line 1: not a trace"},
        {"onetrip-trace 1 \nextent 0 1 a\nuse 0 0\n", "line 1: not a trace"},
        {"GGUF\n", "line 1: not a trace"},
        {HEAD, "no `use` line"},
        {HEAD "extent 0 1 a\n", "no `use` line"},
        {HEAD "extent 0 1 a\nuse 0 0", "line 3 has no end"},
        {HEAD "extent 1 1 a\n", "line 2: extent 1, expected 0"},
        {HEAD "extent 0 1 a\nextent 0 1 a\n", "line 3: extent 0, expected 1"},
        {HEAD "extent 0 0 a\n", "line 2: extent of 0 bytes"},
        {HEAD "extent 0 1\n", "line 2: expected `extent ID BYTES NAME`"},
        {HEAD "extent  0 1 a\n", "line 2: expected `extent"},
        {HEAD "extent -1 1 a\n", "line 2: expected `extent"},
        {HEAD "extent +0 1 a\n", "line 2: expected `extent"},
        {HEAD "extent 00 1 a\n", "line 2: expected `extent"},
        {HEAD "extent 0 0x10 a\n", "line 2: expected `extent"},
        {HEAD "extent 0 18446744073709551616 a\n", "line 2: expected `extent"},
        {HEAD "extent 0 99999999999999999999999 a\n", "line 2: expected `extent"},
        {HEAD "extent 0 9223372036854775808 a\n", "line 2: extent of 9223372036854775808 bytes"},
        {HEAD "extent 0 9223372036854775807 a\nextent 1 1 b\n", "line 3: extent of 1 bytes"},
        {HEAD "extent 0 9223372036854775807 a\nuse 0 0\nuse 0 0\n", "line 4: the uses sum up"},
        {HEAD "use 0 0\n", "line 2: use of extent 0, but 0 are declared"},
        {HEAD "extent 0 1 a\nuse 0 1\n", "line 3: use of extent 1, but 1 are declared"},
        {HEAD "extent 0 1 a\nuse 0 4294967296\n", "line 3: use of extent 4294967296"},
        {HEAD "extent 0 1 a\nuse 0\n", "line 3: expected `use SWEEP ID`"},
        {HEAD "extent 0 1 a\nuse 0 0 \n", "line 3: expected `use SWEEP ID`"},
        {HEAD "extent 0 1 a\nuse 0 0\r\n", "line 3: expected `use SWEEP ID`"},
        {HEAD "extent 0 1 a\nuse 0 -1\n", "line 3: expected `use SWEEP ID`"},
        {HEAD "extent 0 1 a\nuse 5 0\nuse 4 0\n", "line 4: sweep 4 after sweep 5"},
        {HEAD "extent 0 1 a\nUSE 0 0\n", "line 3: `USE 0 0`; expected"},
        {HEAD "\n", "line 2: ``; expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(cases[i].text, strlen(cases[i].text));
        struct plan_trace trace;
        struct ot_error err = {0};
        uint64_t live = mem_live_bytes();
        assert_int_equal(plan_trace_open(path, &trace, &err), OT_ERR_FORMAT);
        assert_string_equal(err.at, path);
        if (strstr(err.message, cases[i].message) == NULL) {
            fail_msg("case %zu: \"%s\" does not hold \"%s\"", i, err.message, cases[i].message);
        }
        assert_int_equal(mem_live_bytes(), live);
    }
}

static void test_a_line_without_end_costs_no_memory(void **state) {
    (void)state;
    size_t bytes = 3u << 20;
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, 'x', bytes);
    memcpy(text, HEAD, strlen(HEAD));
    write_file(text, bytes);
    struct plan_trace trace;
    struct ot_error err;
    assert_int_equal(plan_trace_open(path, &trace, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "line 2 is longer than 1024 bytes"));
    memset(text, '\0', bytes);
    write_file(text, bytes);
    assert_int_equal(plan_trace_open(path, &trace, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "line 1: not a trace"));
    free(text);
}

static void test_a_trace_cut_at_any_byte_is_whole_lines_or_an_error(void **state) {
    (void)state;
    for (size_t n = 0; n < strlen(cyclic); n++) {
        write_file(cyclic, n);
        struct plan_trace trace;
        int rc = plan_trace_open(path, &trace, NULL);
        bool whole = n > 0 && cyclic[n - 1] == '\n' && memmem(cyclic, n, "use 0 0\n", 8) != NULL;
        assert_int_equal(rc, whole ? 0 : OT_ERR_FORMAT);
        if (rc == 0) {
            plan_trace_close(&trace);
        }
    }
}

static void test_what_is_no_file_is_refused(void **state) {
    (void)state;
    struct plan_trace trace;
    struct ot_error err;
    assert_true(plan_trace_open(folder, &trace, &err) < 0);
    assert_true(plan_trace_open("/dev/zero", &trace, &err) < 0);
    unlink(path);
    assert_int_equal(plan_trace_open(path, &trace, &err), OT_ERR_IO);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_true(plan_trace_open(path, &trace, &err) < 0);
    unlink(path);
}

/* ---- writer and reader -------------------------------------------------------------------- */

static void test_what_is_written_is_read_back(void **state) {
    (void)state;
    enum { N_EXTENTS = 3000, N_SWEEPS = 9 };
    struct residency_trace *w;
    assert_int_equal(residency_trace_open(path, &w, NULL), 0);
    char name[600];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (uint32_t i = 0; i < N_EXTENTS; i++) {
        uint32_t id;
        const char *shown = i % 3 == 0 ? name : i % 3 == 1 ? "line\nfeed" : "";
        assert_int_equal(residency_trace_extent(w, shown, 1 + i, &id, NULL), 0);
        assert_int_equal(id, i);
    }
    for (uint32_t s = 0; s < N_SWEEPS; s++) {
        for (uint32_t i = 0; i < N_EXTENTS; i++) {
            assert_int_equal(residency_trace_use(w, 10 + s, (i * 7 + s) % N_EXTENTS, NULL), 0);
        }
    }
    assert_int_equal(residency_trace_close(w, NULL), 0);

    struct plan_trace t;
    struct ot_error err = {0};
    assert_int_equal(plan_trace_open(path, &t, &err), 0);
    assert_int_equal(t.n_extents, N_EXTENTS);
    assert_int_equal(t.n_uses, N_EXTENTS * N_SWEEPS);
    assert_int_equal(t.n_sweeps, N_SWEEPS);
    assert_int_equal(t.first_sweep_uses, N_EXTENTS);
    for (uint32_t i = 0; i < t.n_uses; i++) {
        assert_int_equal(t.uses[i], (i % N_EXTENTS * 7 + i / N_EXTENTS) % N_EXTENTS);
    }
    for (uint32_t i = 0; i < N_EXTENTS; i++) {
        assert_int_equal(t.extent_bytes[i], 1 + i);
    }
    assert_int_equal(t.compulsory_bytes, N_EXTENTS * (N_EXTENTS + 1) / 2);
    assert_int_equal(t.used_bytes, N_SWEEPS * t.compulsory_bytes);
    plan_trace_close(&t);
}

static void test_a_full_disk_is_reported_once_writing_fails_and_at_close(void **state) {
    (void)state;
    struct residency_trace *w;
    assert_int_equal(residency_trace_open("/dev/full", &w, NULL), 0);
    uint32_t id;
    struct ot_error err = {0};
    (void)residency_trace_extent(w, "a", 1, &id, &err);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < 100000; i++) {
        rc = residency_trace_use(w, i, 0, &err);
    }
    assert_int_equal(rc, OT_ERR_IO);
    assert_string_equal(err.at, "/dev/full");
    err = (struct ot_error){0};
    assert_int_equal(residency_trace_close(w, &err), OT_ERR_IO);
    assert_string_equal(err.at, "/dev/full");
    assert_int_equal(residency_trace_close(NULL, NULL), 0);
}

static void test_a_trace_that_cannot_be_created_is_an_error_at_open(void **state) {
    (void)state;
    struct residency_trace *w = NULL;
    struct ot_error err;
    assert_int_equal(residency_trace_open("/nowhere/at/all", &w, &err), OT_ERR_IO);
    assert_int_equal(residency_trace_open(folder, &w, &err), OT_ERR_IO);
    assert_null(w);
}

/* ---- faults ------------------------------------------------------------------------------- */

static void test_each_failing_allocation_and_read_is_an_error_without_a_leak(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    FILE *out = fopen("/dev/null", "w");
    assert_non_null(out);
    uint64_t live = mem_live_bytes();
    uint64_t n = 0;
    int rc;
    do {
        mem_fail_at(++n);
        rc = ot_simulate(path, NULL, 250, false, out, NULL);
        mem_fail_at(0);
        assert_true(rc == 0 || rc == OT_ERR_MEMORY);
        assert_int_equal(mem_live_bytes(), live);
    } while (rc != 0);
    assert_true(n > 10);
    sys_fail_reads(1, 1, 5);
    assert_int_equal(ot_simulate(path, NULL, 250, false, out, NULL), OT_ERR_IO);
    sys_fail_reads(0, 0, 0);
    assert_int_equal(mem_live_bytes(), live);
    fclose(out);

    struct residency_trace *w = NULL;
    for (n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(residency_trace_open(path, &w, NULL), OT_ERR_MEMORY);
        mem_fail_at(0);
        assert_int_equal(mem_live_bytes(), live);
    }
}

static void test_an_output_that_is_full_is_an_error(void **state) {
    (void)state;
    write_file(cyclic, strlen(cyclic));
    for (int json = 0; json <= 1; json++) {
        FILE *out = fopen("/dev/full", "w");
        assert_non_null(out);
        assert_int_equal(ot_simulate(path, NULL, 250, json != 0, out, NULL), OT_ERR_IO);
        fclose(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_of_a_cyclic_trace_is_the_golden_one),
        cmocka_unit_test(test_a_recorded_trace_gives_the_golden_misses_and_bytes),
        cmocka_unit_test(test_json_holds_the_same_figures),
        cmocka_unit_test(test_one_policy_alone_is_still_compared_with_min),
        cmocka_unit_test(test_a_budget_of_nothing_and_one_without_bounds_are_answered),
        cmocka_unit_test(test_an_unknown_policy_is_refused_with_the_list),
        cmocka_unit_test(test_every_broken_rule_is_refused_with_its_line),
        cmocka_unit_test(test_a_line_without_end_costs_no_memory),
        cmocka_unit_test(test_a_trace_cut_at_any_byte_is_whole_lines_or_an_error),
        cmocka_unit_test(test_what_is_no_file_is_refused),
        cmocka_unit_test(test_what_is_written_is_read_back),
        cmocka_unit_test(test_a_full_disk_is_reported_once_writing_fails_and_at_close),
        cmocka_unit_test(test_a_trace_that_cannot_be_created_is_an_error_at_open),
        cmocka_unit_test(test_each_failing_allocation_and_read_is_an_error_without_a_leak),
        cmocka_unit_test(test_an_output_that_is_full_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
