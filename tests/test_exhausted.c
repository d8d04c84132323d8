/* test_exhausted.c - each allocation of the program finds no memory once, those of jansson, SQLite
 * and PCRE2 included: it says so in one line, or the answer is the right one all the same.
 *
 * The allocations of the library alone are failed by the tests of its modules; here it is the
 * commands that are tested, as processes with preload/exhaust.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/program.h"
#include "support/tiny_model.h"

enum { MAX_ARGS = 20, MAX_FILES = 3 };

static char directory[64];

/* Paths in the directory of the test, for as long as it runs. */
static const char *in_directory(const char *name) {
    static char paths[16][96];
    static unsigned turn;
    char *path = paths[turn++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

struct command {
    const char *args[MAX_ARGS];     /* after the program; "@x" is the file x in the directory */
    const char *written[MAX_FILES]; /* files that it writes, "json" and "jsonl" to be compared */
};

static struct outcome run(const struct command *c, unsigned long fail_at) {
    const char *args[MAX_ARGS + 1] = {ONETRIP_PROGRAM};
    char at[24];
    for (size_t i = 0; i < MAX_ARGS - 1 && c->args[i] != NULL; i++) {
        args[i + 1] = c->args[i][0] == '@' ? in_directory(c->args[i] + 1) : c->args[i];
    }
    for (size_t i = 0; i < MAX_FILES && c->written[i] != NULL; i++) {
        unlink(in_directory(c->written[i]));
    }
    snprintf(at, sizeof at, "%lu", fail_at);
    setenv("EXHAUST_AT", at, 1);
    setenv("LD_PRELOAD", EXHAUST_OBJECT, 1);
    struct outcome o = program_run(args, NULL, 0);
    unsetenv("LD_PRELOAD");
    return o;
}

static unsigned long count_of_last_run(void) {
    unsigned long n = 0;
    FILE *in = fopen(in_directory("count"), "r");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%lu", &n), 1);
    fclose(in);
    return n;
}

/* Lines that begin as the program's messages do. */
static unsigned count_messages(const char *text) {
    unsigned n = 0;
    for (const char *line = text; line != NULL && *line != '\0';) {
        n += strncmp(line, "onetrip: ", 9) == 0;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return n;
}

static bool is_there(const char *name) {
    struct stat st;
    return stat(in_directory(name), &st) == 0;
}

static void fail_each_allocation(const struct command *c) {
    struct outcome right = run(c, 0);
    unsigned long n = count_of_last_run();
    assert_int_equal(right.exit_code, 0);
    for (unsigned long i = 1; i <= n; i++) {
        struct outcome o = run(c, i);
        bool same = strcmp(o.out, right.out) == 0;
        for (size_t f = 0; f < MAX_FILES && c->written[f] != NULL; f++) {
            same = same && is_there(c->written[f]);
        }
        bool ok = o.exit_code == 0 ? same && count_messages(o.err) == 0
                                   : o.exit_code == 1 && count_messages(o.err) == 1;
        if (!ok) {
            print_error("allocation %lu of %lu of onetrip %s: exit code %d, signal %d, output\n"
                        "%.400s\nerrors\n%s\n",
                        i, n, c->args[0], o.exit_code, o.signal, o.out, o.err);
            fail();
        }
        outcome_free(&o);
    }
    outcome_free(&right);
}

static const struct command answer = {
    {"run", "@m.gguf", "--raw", "-p", "one two", "-n", "3", "--temp", "0", "-q", "--residency",
     "stream", "--report", "@report.json", "--ledger", "@ledger.jsonl", "--trace", "@trace"},
    {"report.json", "ledger.jsonl", "trace"}};
static const struct command database = {{"run", "@m.gguf", "--raw", "-p", "one", "-n", "1",
                                         "--temp", "0", "-q", "--ledger", "@ledger.db"},
                                        {"ledger.db"}};

static void test_an_answer_with_report_ledger_and_trace(void **state) {
    (void)state;
    fail_each_allocation(&answer);
}

static void test_a_ledger_as_a_database(void **state) {
    (void)state;
    fail_each_allocation(&database);
}

static void test_text_to_tokens_and_back(void **state) {
    static const struct command commands[] = {
        {{"tokenize", "@m.gguf", "-p", "one two three"}, {NULL}},
        {{"tokenize", "@m.gguf", "--decode", "--json", "-p", "[1, 2, 3]"}, {NULL}},
    };
    (void)state;
    fail_each_allocation(&commands[0]);
    fail_each_allocation(&commands[1]);
}

static void test_what_is_in_a_file(void **state) {
    static const struct command command = {{"inspect", "@m.gguf", "--json", "--tensors"}, {NULL}};
    (void)state;
    fail_each_allocation(&command);
}

static void test_files_of_earlier_runs(void **state) {
    static const struct command commands[] = {
        {{"ledger", "@ledger.jsonl", "--by", "tensor"}, {NULL}},
        {{"ledger", "@ledger.db", "--by", "layer"}, {NULL}},
        {{"simulate", "@trace", "--budget", "30K", "--json"}, {NULL}},
        {{"simulate", "@trace", "--budget", "30K"}, {NULL}},
    };
    (void)state;
    struct outcome o = run(&answer, 0);
    outcome_free(&o);
    o = run(&database, 0);
    outcome_free(&o);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        fail_each_allocation(&commands[i]);
    }
}

static int make_model(void **state) {
    (void)state;
    image_directory_make(directory);
    setenv("EXHAUST_COUNT", in_directory("count"), 1);
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, in_directory("m.gguf"));
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_with_report_ledger_and_trace),
        cmocka_unit_test(test_a_ledger_as_a_database),
        cmocka_unit_test(test_text_to_tokens_and_back),
        cmocka_unit_test(test_what_is_in_a_file),
        cmocka_unit_test(test_files_of_earlier_runs),
    };
    if (EXHAUST_OBJECT[0] == '\0') {
        return 77; /* a sanitizer's allocator cannot be replaced */
    }
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
