/* cli_fixture.h - what the tests of the program share: a folder with a tiny model, the program
 * run in it, and what its output is to be. */
#ifndef TESTS_CLI_FIXTURE_H
#define TESTS_CLI_FIXTURE_H

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/program.h"
#include "support/tiny_model.h"

static char directory[64];
static char model[128];

enum { MAX_ARGS = 28 };

/* Runs the program with arguments up to NULL. */
static inline struct outcome onetrip(const char *input, ...) {
    const char *args[MAX_ARGS] = {ONETRIP_PROGRAM};
    size_t n = 1;
    va_list list;
    va_start(list, input);
    while (n + 1 < MAX_ARGS && (args[n] = va_arg(list, const char *)) != NULL) {
        n++;
    }
    va_end(list);
    return program_run(args, input, input != NULL ? strlen(input) : 0);
}

static inline const char *in_directory(const char *name) {
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static inline void assert_says(const char *text, const char *words) {
    if (strstr(text, words) == NULL) {
        print_error("expected \"%s\" in:\n%s\n", words, text);
        fail();
    }
}

static inline void assert_one_line(const char *text) {
    const char *end = strchr(text, '\n');
    if (end == NULL || end[1] != '\0' || strncmp(text, "onetrip: ", 9) != 0) {
        print_error("expected one line that begins with \"onetrip: \", found:\n%s\n", text);
        fail();
    }
}

/* No line is longer than 80 columns. */
static inline void assert_fits_a_terminal(const char *text) {
    for (size_t n; *text != '\0'; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        if (n > 80) {
            print_error("%zu columns:\n%.*s\n", n, (int)n, text);
            fail();
        }
    }
}

static inline void assert_exit(const struct outcome *o, int exit_code) {
    if (o->exit_code != exit_code) {
        print_error("exit code %d (signal %d), expected %d; standard error:\n%s\n", o->exit_code,
                    o->signal, exit_code, o->err);
        fail();
    }
}

static inline json_t *parse_json(const char *text) {
    json_error_t fault;
    json_t *root = json_loads(text, 0, &fault);
    if (root == NULL) {
        print_error("not JSON, line %d: %s\n%s\n", fault.line, fault.text, text);
        fail();
    }
    return root;
}

static inline int set_up(void **state) {
    struct tiny_model options;
    (void)state;
    signal(SIGINT, SIG_DFL); /* what the suite was started with is inherited, also that it is ignored */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    image_directory_make(directory);
    snprintf(model, sizeof model, "%s/tiny.gguf", directory);
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, model);
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

/* Writes a model of some 30 MB; returns a budget that it does not fit, above the least by more than a
 * sanitizer's own memory differs from start to start. */
static inline uint64_t write_model_over_budget(const char *path) {
    struct tiny_model wide;
    tiny_model_defaults(&wide, TINY_LLAMA, OT_Q4_0, 1);
    wide.n_layers = 8;
    wide.n_embd = wide.n_ff = 1024;
    wide.n_heads = wide.n_kv_heads = 16;
    wide.head_dim = 64;
    tiny_model_write(&wide, path);
    struct outcome o = onetrip(NULL, "bench", path, "--ram", "1M", NULL);
    const char *least = strchr(o.err, '(');
    assert_non_null(least);
    uint64_t ram = strtoull(least + 1, NULL, 10) + (7u << 20);
    outcome_free(&o);
    return ram;
}

#endif
