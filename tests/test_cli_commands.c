/* test_cli_commands.c - eval, tokenize, inspect and bench, on a tiny model. */
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"

static int in_shell(const char *commands) {
    char line[1024];
    snprintf(line, sizeof line, "cd %s && o=%s && %s", directory, ONETRIP_PROGRAM, commands);
    int status = system(line);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_eval_counts_its_sweeps_as_those_of_the_prompt(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "eval", model, "-p", "two words", NULL);
    assert_exit(&o, 0);
    assert_says(o.err, "prompt tokens in 1 sweep\n");
    assert_null(strstr(o.err, "first token"));             /* eval picks none */
    assert_says(o.err, "  draft     -          0 tokens"); /* and nobody asked for guesses */
    outcome_free(&o);
}

/* As it is in run: the model is open by then, but the command line is what is wrong. */
static void test_what_is_empty_is_a_fault_of_the_command_line(void **state) {
    (void)state;
    static const char *const table[][6] = {
        {"eval", "-p", ""},
        {"run", "-p", ""},
        {"run", "-p", "x", "-n", "1", "--report="},
        {"run", "-p", "x", "-n", "1", "--trace="},
        {"tokenize", "-f", ""},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *const *a = table[i];
        struct outcome o = onetrip(NULL, a[0], model, a[1], a[2], a[3], a[4], a[5], NULL);
        assert_exit(&o, 2);
        assert_one_line(o.err);
        assert_says(o.err, "is empty");
        outcome_free(&o);
    }
}

static void test_a_ledger_is_read_from_standard_input_whatever_it_is(void **state) {
    static const char *const ways[] = {"$o ledger written", "$o ledger - <written",
                                       "$o ledger /dev/stdin <written", "cat written | $o ledger -",
                                       "cat written | $o ledger /dev/stdin"};
    (void)state;
    assert_int_equal(in_shell("$o run tiny.gguf -p x -n 1 -q --ledger written >out"), 0);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        char command[128];
        snprintf(command, sizeof command, "%s >tables.%s", ways[i], i == 0 ? "first" : "next");
        assert_int_equal(in_shell(command), 0);
        assert_int_equal(
            in_shell(i == 0 ? "grep -q weight tables.first" : "cmp tables.first tables.next"), 0);
    }
    assert_int_equal(in_shell("mkfifo other && $o ledger other 2>err"), 1);
}

/* Logits so far apart that no power of e is left of most. */
static void test_a_perplexity_that_is_not_finite_is_null_in_json(void **state) {
    struct tiny_model options;
    struct image image;
    (void)state;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    struct image_bytes *norm = &image_find_tensor(&image, "output_norm.weight")->data;
    for (size_t at = 0; at + sizeof(float) <= norm->bytes; at += sizeof(float)) {
        float weight;
        memcpy(&weight, norm->data + at, sizeof weight);
        weight *= 1e6f;
        memcpy(norm->data + at, &weight, sizeof weight);
    }
    image_write(&image, in_directory("far.gguf"));
    image_deinit(&image);
    struct outcome o =
        onetrip(NULL, "eval", in_directory("far.gguf"), "-p", "two words", "-q", "--json", NULL);
    assert_exit(&o, 0);
    json_t *root = parse_json(o.out);
    assert_true(json_is_null(json_object_get(root, "perplexity")));
    assert_true(json_is_null(json_object_get(root, "standard_error")));
    assert_true(json_integer_value(json_object_get(root, "scored")) > 0);
    json_decref(root);
    outcome_free(&o);
}

static void test_eval_refuses_ids_that_are_none(void **state) {
    static const struct {
        const char *text, *says;
    } table[] = {
        {"", "line"},
        {"{}", "not a JSON array"},
        {"[1, 2", "line"},
        {"[1, \"2\"]", "entry 1"},
        {"[1, -1]", "entry 1 is -1"},
        {"[1.5]", "entry 0"},
        {"[99999999]", "entry 0 is 99999999"},
        {"[99999999999999999999999]", "line"},
        {"[[1]]", "entry 0"},
        {"[null]", "entry 0"},
        {"[]", "empty"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        image_write_bytes(in_directory("ids.json"), table[i].text, strlen(table[i].text));
        struct outcome o = onetrip(NULL, "eval", model, "--ids", in_directory("ids.json"), NULL);
        assert_exit(&o, 1);
        assert_one_line(o.err);
        assert_says(o.err, table[i].says);
        outcome_free(&o);
    }
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    struct outcome o = onetrip(deep, "eval", model, "--ids", "-", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    outcome_free(&o);
    free(deep);
}

static void test_eval_writes_every_logit_in_numpy_format(void **state) {
    (void)state;
    struct outcome o = onetrip("[1, 5, 9, 20, 7, 3, 2]", "eval", model, "--ids", "-", "--logits",
                               in_directory("logits.npy"), "--json", "-c", "4", "-q", NULL);
    assert_exit(&o, 0);
    json_t *root = parse_json(o.out);
    assert_int_equal(json_integer_value(json_object_get(root, "tokens")), 7);
    assert_int_equal(json_integer_value(json_object_get(root, "windows")), 2);
    assert_int_equal(json_integer_value(json_object_get(root, "scored")), 5);
    assert_true(json_real_value(json_object_get(root, "perplexity")) > 1.0);
    json_decref(root);
    outcome_free(&o);
    FILE *file = fopen(in_directory("logits.npy"), "rb");
    assert_non_null(file);
    unsigned char head[10];
    assert_int_equal(fread(head, 1, 10, file), 10);
    assert_memory_equal(head, "\x93NUMPY\x01\x00", 8);
    size_t header = head[8] + 256u * head[9];
    assert_int_equal((header + 10) % 64, 0);
    char *text = calloc(header + 1, 1);
    assert_int_equal(fread(text, 1, header, file), header);
    unsigned rows = 0, columns = 0;
    assert_int_equal(sscanf(text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%u, %u), }",
                            &rows, &columns),
                     2);
    assert_int_equal(rows, 7);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    assert_int_equal((size_t)ftell(file), 10 + header + (size_t)rows * columns * 4);
    free(text);
    fclose(file);
}

static void test_tokens_go_back_to_the_text_they_came_from(void **state) {
    static const char text[] = "hello \xc3\xa4 world\n\n 12";
    (void)state;
    struct outcome ids = onetrip(text, "tokenize", model, "--no-bos", NULL);
    struct outcome json = onetrip(text, "tokenize", model, "--no-bos", "--json", NULL);
    assert_exit(&ids, 0);
    assert_exit(&json, 0);
    json_t *array = parse_json(json.out);
    assert_true(json_is_array(array));
    json_decref(array);
    struct outcome from_words = onetrip(ids.out, "tokenize", model, "--decode", NULL);
    struct outcome from_json = onetrip(json.out, "tokenize", model, "--decode", NULL);
    assert_exit(&from_words, 0);
    assert_string_equal(from_words.out, text);
    assert_string_equal(from_json.out, text);
    struct outcome bad = onetrip("1 x", "tokenize", model, "--decode", NULL);
    assert_exit(&bad, 1);
    assert_says(bad.err, "entry 1");
    outcome_free(&ids);
    outcome_free(&json);
    outcome_free(&from_words);
    outcome_free(&from_json);
    outcome_free(&bad);
}

static void assert_same_ids(const char *prompt, const char *no_escape, const char *text) {
    struct outcome is = onetrip(NULL, "tokenize", model, "-p", prompt, no_escape, NULL);
    struct outcome expected = onetrip(text, "tokenize", model, NULL);
    assert_exit(&is, 0);
    assert_exit(&expected, 0);
    if (strcmp(is.out, expected.out) != 0) {
        print_error("%s: ids %s, expected %s\n", prompt, is.out, expected.out);
        fail();
    }
    outcome_free(&is);
    outcome_free(&expected);
}

static void test_escapes_in_a_prompt_are_processed_unless_asked_not_to(void **state) {
    static const struct {
        const char *prompt, *text;
    } cases[] = {
        {"a\\nb\\tc\\rd", "a\nb\tc\rd"},
        {"\\'x\\' \\\"y\\\"", "'x' \"y\""},
        {"a\\\\nb", "a\\nb"},             /* a backslash that is escaped escapes nothing */
        {"\\x41\\xc3\\xa4", "A\xc3\xa4"}, /* bytes, also halves of a character */
        {"\\xg1 \\x4", "\\xg1 \\x4"},     /* no two digits: as it stands */
        {"\\q\\", "\\q\\"},               /* unknown, and one at the end */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_same_ids(cases[i].prompt, NULL, cases[i].text);
        assert_same_ids(cases[i].prompt, "--no-escape", cases[i].prompt);
    }
}

static void test_inspect_sums_what_one_token_needs(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "inspect", model, "--json", "--tensors", NULL);
    assert_exit(&o, 0);
    json_t *root = parse_json(o.out), *tensor;
    json_int_t sum = 0;
    size_t i;
    json_array_foreach(json_object_get(root, "tensors"), i, tensor) {
        sum += json_integer_value(json_object_get(tensor, "bytes_per_token"));
    }
    assert_true(sum > 0);
    assert_int_equal(sum, json_integer_value(json_object_get(root, "bytes_per_token")));
    static const char *const tables[] = {"types", "roles"};
    for (size_t k = 0; k < 2; k++) {
        json_int_t of_table = 0, n = 0;
        const json_t *row;
        json_array_foreach(json_object_get(root, tables[k]), i, row) {
            of_table += json_integer_value(json_object_get(row, "bytes_per_token"));
            n += json_integer_value(json_object_get(row, "tensors"));
        }
        assert_int_equal(of_table, sum);
        assert_int_equal(n, json_integer_value(json_object_get(root, "n_tensors")));
    }
    json_decref(root);
    outcome_free(&o);
    o = onetrip(NULL, "inspect", model, "--tensors", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "blk.0.attn_q.weight");
    assert_says(o.out, "llama");
    outcome_free(&o);
}

static void test_bench_measures_each_test_of_its_lists(void **state) {
    static const char *const tests[] = {"pp8", "pp16", "tg4", "pp8@d8", "pp16@d8", "tg4@d8"};
    (void)state;
    struct outcome o =
        onetrip(NULL, "bench", model, "-p", "8,16", "-n", "4", "-d", "0,8", "-r", "2", "-t", "1",
                "--ram", "200M", "--json", "--report", in_directory("bench.json"), NULL);
    assert_exit(&o, 0);
    json_t *printed = parse_json(o.out);
    json_t *report = json_load_file(in_directory("bench.json"), 0, NULL);
    assert_non_null(report);
    const json_t *results[2] = {json_object_get(printed, "results"),
                                json_object_get(report, "results")};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(json_array_size(results[k]), 6);
        for (size_t i = 0; i < 6; i++) {
            const json_t *row = json_array_get(results[k], i);
            assert_string_equal(json_string_value(json_object_get(row, "test")), tests[i]);
            assert_true(json_real_value(json_object_get(row, "tokens_per_s")) > 0.0);
            assert_true(json_real_value(json_object_get(row, "needed_bytes_per_token")) > 0.0);
        }
    }
    /* Where the time went: one thread waits for no other, and a prompt picks no token. */
    for (size_t i = 0; i < 6; i++) {
        const json_t *parts = json_object_get(json_array_get(results[0], i), "seconds");
        assert_true(json_real_value(json_object_get(parts, "weights")) > 0.0);
        assert_true(json_real_value(json_object_get(parts, "attention")) > 0.0);
        assert_true(json_real_value(json_object_get(parts, "barriers")) == 0.0);
        assert_int_equal(json_real_value(json_object_get(parts, "sampling")) > 0.0,
                         tests[i][0] == 't');
    }
    json_decref(printed);
    json_decref(report);
    outcome_free(&o);
    o = onetrip(NULL, "bench", model, "-p", "8", "-n", "4", "-r", "1", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "time, %: weights");
    assert_fits_a_terminal(o.out);
    outcome_free(&o);
    o = onetrip(NULL, "bench", model, "-p", "0", "-n", "0", NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "-p 0 and -n 0 leave nothing to measure (--disk");
    outcome_free(&o);
    o = onetrip(NULL, "bench", model, "-p", "2147483647", "-d", "1", NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "a context of 2147483648 tokens");
    outcome_free(&o);
}

static void test_bench_disk_measures_the_disk_alone_and_reports_it(void **state) {
    (void)state;
    const char *report = in_directory("disk.json"), *ledger = in_directory("disk.jsonl");
    for (int i = 0; i < 2; i++) {
        struct outcome o = onetrip(NULL, "bench", model, "--disk", "--ram", "200M", "--report",
                                   report, "--ledger", ledger, i == 0 ? "--json" : NULL, NULL);
        assert_exit(&o, 0);
        if (i == 0) {
            json_t *printed = parse_json(o.out); /* one object */
            assert_true(json_integer_value(json_object_get(printed, "disk_bytes")) > 0);
            assert_true(json_number_value(json_object_get(printed, "disk_bytes_per_s")) > 0.0);
            json_decref(printed);
        } else {
            assert_says(o.out, "disk: ");
            assert_null(strstr(o.out, "pp512"));
        }
        outcome_free(&o);
        json_t *root = json_load_file(report, 0, NULL);
        assert_non_null(root);
        assert_non_null(json_object_get(root, "movements"));
        json_decref(root);
        o = onetrip(NULL, "ledger", ledger, NULL);
        assert_exit(&o, 0);
        assert_says(o.out, "weight");
        outcome_free(&o);
        assert_int_equal(unlink(report), 0);
        assert_int_equal(unlink(ledger), 0);
    }
    static const char *const tests[][2] = {{"-p", "8"}, {"-n", "8"},   {"-d", "8"},
                                           {"-r", "2"}, {"-npl", "2"}, {"-t", "1,2"}};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        struct outcome o = onetrip(NULL, "bench", model, "--disk", tests[i][0], tests[i][1], NULL);
        assert_exit(&o, 2);
        assert_one_line(o.err);
        assert_says(o.err, "--disk measures the disk alone");
        outcome_free(&o);
    }
    struct outcome o =
        onetrip(NULL, "bench", model, "--disk", "-p", "0", "-n", "0", "-t", "1", NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
}

static void test_too_many_bench_tests_are_refused_before_the_first(void **state) {
    static const char list[] = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16";
    (void)state;
    struct outcome o =
        onetrip(NULL, "bench", model, "-p", "0", "-n", list, "-d", list, "-t", "1,1", NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "512 tests, at most 256");
    assert_string_equal(o.out, "");
    outcome_free(&o);
    o = onetrip(NULL, "bench", model, "-p", list, "-n", "0", "-d", list, "-r", "1", "-q", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "\npp16@d16 ");
    outcome_free(&o);
}

static void test_names_of_bench_tests_are_whole(void **state) {
    static const char name[] = "tg1000x10@s10000";
    struct tiny_model options;
    const char *path = in_directory("one-layer.gguf"), *report = in_directory("named.json");
    (void)state;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    options.n_layers = 1;
    tiny_model_write(&options, path);
    struct outcome o =
        onetrip(NULL, "bench", path, "-p", "0", "-n", "1000", "-npl", "10", "-d", "10000",
                "--share-depth", "-r", "1", "--json", "--report", report, NULL);
    assert_exit(&o, 0);
    assert_says(o.out, name);
    outcome_free(&o);
    json_t *root = json_load_file(report, 0, NULL);
    const json_t *results = json_object_get(root, "results");
    const json_t *test = json_object_get(json_array_get(results, 0), "test");
    assert_string_equal(json_string_value(test), name);
    json_decref(root);
}

/* Over budget, a decode test is measured against the disk, not against the bus. */
static void test_bench_over_budget_measures_the_disk(void **state) {
    (void)state;
    const char *path = in_directory("wide.gguf");
    char ram[32];
    snprintf(ram, sizeof ram, "%llu", (unsigned long long)write_model_over_budget(path));
    struct outcome o =
        onetrip(NULL, "bench", path, "-p", "4", "-n", "4", "-r", "2", "--ram", ram, "--json", NULL);
    assert_exit(&o, 0);
    json_t *printed = parse_json(o.out);
    const json_t *results = json_object_get(printed, "results");
    const json_t *prompt = json_array_get(results, 0), *decode = json_array_get(results, 1);
    assert_true(json_is_null(json_object_get(prompt, "limit_bytes_per_s")));
    assert_string_equal(json_string_value(json_object_get(decode, "limit")), "disk");
    assert_true(json_real_value(json_object_get(decode, "limit_bytes_per_s")) > 0.0);
    assert_true(json_real_value(json_object_get(decode, "of_limit")) > 0.0);
    json_decref(printed);
    outcome_free(&o);
    o = onetrip(NULL, "bench", path, "-p", "0", "-n", "4", "-r", "1", "--ram", ram, NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "% disk");
    assert_says(o.out, "streamed:");
    outcome_free(&o);
}

static void assert_file_is(const char *name, const char *text) {
    char read_back[256];
    FILE *file = fopen(in_directory(name), "r");
    assert_non_null(file);
    read_back[fread(read_back, 1, sizeof read_back - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(read_back, text);
}

static void test_bench_ends_where_nobody_takes_its_output(void **state) {
    (void)state;
    static const char full[] = "onetrip: standard output: No space left on device\n";
    assert_int_equal(
        in_shell("$o bench tiny.gguf -p 4,4 -n 0 -r 1 --report b.json >/dev/full 2>err"), 1);
    assert_file_is("err", full);
    assert_int_not_equal(access(in_directory("b.json"), F_OK), 0); /* nothing was measured */
    assert_int_equal(in_shell("{ sleep 0.2; $o bench tiny.gguf -p 4,4 -n 0 -r 1 --report b.json "
                              "2>err; echo $? >code; } | true"),
                     0);
    assert_file_is("code", "141\n");
    assert_file_is("err", "");
    assert_int_not_equal(access(in_directory("b.json"), F_OK), 0);
    /* JSON is printed in the end: a test of minutes would come before */
    alarm(60);
    assert_int_equal(in_shell("{ sleep 0.2; $o bench tiny.gguf -p 4,300000 -n 0 -r 1 -q --json "
                              "2>err; echo $? >code; } | true"),
                     0);
    alarm(0);
    assert_file_is("code", "141\n");
    assert_file_is("err", "");
}

static void test_a_full_disk_is_called_that(void **state) {
    static const char *const commands[] = {
        "$o simulate t.trace --budget 1M >/dev/full 2>err",
        "$o simulate t.trace --budget 1M --json >/dev/full 2>err",
        "$o ledger l.jsonl --by tensor >/dev/full 2>err",
        "$o ledger big.jsonl --by tensor >/dev/full 2>err",
        "$o inspect tiny.gguf --tensors --json >/dev/full 2>err",
        "$o bench tiny.gguf -p 4 -n 0 -r 1 --json >/dev/full 2>err",
        "$o inspect many.gguf --tensors >/dev/full 2>err",
        "$o tokenize tiny.gguf -f big.jsonl >/dev/full 2>err",
        "$o tokenize tiny.gguf -f ids --decode --json >/dev/full 2>err",
    };
    struct tiny_model many;
    (void)state;
    tiny_model_defaults(&many, TINY_LLAMA, OT_Q4_0, 1);
    many.n_layers = 64;
    tiny_model_write(&many, in_directory("many.gguf"));
    assert_int_equal(in_shell("$o run tiny.gguf --raw -p x -n 4 -q --trace t.trace "
                              "--ledger l.jsonl >out"),
                     0);
    /* more than is buffered */
    assert_int_equal(in_shell("i=0; while [ $i -lt 100 ]; do sed \"s/\\\"tensor\\\": *\\\"/&$i./\" "
                              "l.jsonl; i=$((i+1)); done >big.jsonl"),
                     0);
    assert_int_equal(in_shell("test $($o ledger big.jsonl --by tensor | wc -c) -gt 20000"), 0);
    assert_int_equal(in_shell("test $($o inspect many.gguf --tensors | wc -c) -gt 20000"), 0);
    assert_int_equal(in_shell("$o tokenize tiny.gguf -f big.jsonl >ids"), 0);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        assert_int_equal(in_shell(commands[i]), 1);
        assert_file_is("err", "onetrip: standard output: No space left on device\n");
    }
}

static void test_a_models_name_does_not_command_the_terminal(void **state) {
    struct tiny_model options;
    struct image image;
    (void)state;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    image_set_text(&image, "general.name",
                   "a\x1b[2J\nname \x7f \xc2\x9b"
                   "2J \x9b \xc3\xa9");
    const char *path = in_directory("n\xc2\x9b"
                                    "2J\x9b\x1b.gguf");
    image_write(&image, path);
    image_deinit(&image);
    struct outcome o = onetrip(NULL, "inspect", path, NULL);
    assert_exit(&o, 0);
    assert_says(o.out, " a?[2J?name ? ?2J ? \xc3\xa9\n");
    assert_says(o.out, "/n?2J??.gguf\n");
    outcome_free(&o);
    o = onetrip(NULL, "run", path, "-p", "x", "-f", "y\xc2\x9bz\x9b", "--raw", NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    outcome_free(&o);
    o = onetrip(NULL, "eval", path, "-f", "y\xc2\x9bz\x9b", NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "onetrip: y?z?: ");
    outcome_free(&o);
    const char *trace = in_directory("t\xc2\x9b"
                                     "2J.trace");
    o = onetrip(NULL, "run", path, "-p", "x", "--raw", "-n", "1", "-q", "--trace", trace, NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    o = onetrip(NULL, "simulate", trace, "--budget", "1M", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "/t?2J.trace: ");
    outcome_free(&o);
    const char *ledger = in_directory("names.jsonl");
    FILE *file = fopen(ledger, "w");
    assert_non_null(file);
    for (int i = 0; i < 2; i++) {
        fprintf(file,
                "{\"tensor\":\"%s%s\",\"layer\":0,\"boundary\":\"disk>ram\",\"class\":\"weight\","
                "\"cause\":\"load\",\"moved_bytes\":1,\"needed_bytes\":1,\"rounding_bytes\":0,"
                "\"times\":1}\n",
                i == 0 ? "t\xc2\x9b"
                         "2J"
                       : "01234567890123456789012345678901234567890123456",
                i == 0 ? "" : "\xe2\x82\xac\xe2\x82\xac");
    }
    fclose(file);
    o = onetrip(NULL, "ledger", ledger, "--by", "tensor", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, " t?2J ");
    assert_says(o.out, "0123456\xe2\x82\xac     1 B");
    outcome_free(&o);
}

/* ---- budgets, and what sequences share ---- */

/* The least budget that a refusal names. */
static uint64_t told_least(struct outcome *o) {
    assert_exit(o, 1);
    assert_one_line(o->err);
    const char *at = strstr(o->err, " bytes): program and tables");
    assert_non_null(at);
    while (at[-1] != '(') {
        at--;
    }
    uint64_t least = strtoull(at, NULL, 10);
    outcome_free(o);
    return least;
}

static struct outcome run_in(uint64_t ram_bytes) {
    char ram[32];
    snprintf(ram, sizeof ram, "%llu", (unsigned long long)ram_bytes);
    return onetrip(NULL, "run", model, "-p", "x", "-n", "2", "--ram", ram, NULL);
}

/* Three starts: told, enough, and a byte less, which is refused with the same figure. (A
 * sanitizer's own memory differs from start to start.) */
static void test_the_least_budget_is_a_line_that_does_not_move(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip();
#endif
    struct outcome o = run_in(1 << 20);
    const uint64_t least = told_least(&o);
    o = run_in(least);
    assert_exit(&o, 0);
    outcome_free(&o);
    o = run_in(least - 1);
    assert_int_equal(told_least(&o), least);
}

static double needed_a_token(const char *shared) {
    struct outcome o = onetrip(NULL, "bench", model, "-p", "0", "-n", "4", "-d", "256", "-npl", "3",
                               "-r", "1", "--ram", "64M", "--json", shared, NULL);
    assert_exit(&o, 0);
    assert_says(o.out, shared != NULL ? "\"tg4x3@s256\"" : "\"tg4x3@d256\"");
    json_t *root = json_loads(o.out, 0, NULL);
    const json_t *result = json_array_get(json_object_get(root, "results"), 0);
    double needed = json_real_value(json_object_get(result, "needed_bytes_per_token"));
    json_decref(root);
    outcome_free(&o);
    return needed;
}

static struct outcome eval_in(const char *ids, uint64_t ram_bytes, const char *npy) {
    char ram[32];
    snprintf(ram, sizeof ram, "%llu", (unsigned long long)ram_bytes);
    return onetrip(NULL, "eval", model, "--ids", ids, "--logits", npy, "--ram", ram, NULL);
}

/* Each budget has room for another number of rows of logits, so calls are of another size. */
static void test_eval_gives_the_same_logits_for_every_budget(void **state) {
    (void)state;
    enum { N_IDS = 40, ROOM = 1 << 20 };
    const char *ids = in_directory("ids"), *npy = in_directory("logits.npy");
    FILE *f = fopen(ids, "w");
    assert_non_null(f);
    for (uint32_t i = 0; i < N_IDS; i++) {
        fprintf(f, "%c%u", i == 0 ? '[' : ',', 3 + i * 7 % 200);
    }
    fputc(']', f);
    fclose(f);
    struct outcome o = eval_in(ids, 1 << 20, npy);
    const uint64_t least = told_least(&o);
#if defined(__SANITIZE_ADDRESS__)
    const uint64_t budgets[] = {least + (8 << 20), least + (1 << 30)};
#else
    const uint64_t budgets[] = {least, least + (1 << 30)};
#endif
    char *logits[2];
    size_t n[2];
    for (uint32_t i = 0; i < 2; i++) {
        o = eval_in(ids, budgets[i], npy);
        assert_exit(&o, 0);
        outcome_free(&o);
        logits[i] = malloc(ROOM);
        f = fopen(npy, "r");
        assert_true(logits[i] != NULL && f != NULL);
        n[i] = fread(logits[i], 1, ROOM, f);
        fclose(f);
        assert_int_equal(unlink(npy), 0);
    }
    assert_int_equal(unlink(ids), 0);
    assert_true(n[0] == n[1] && n[0] > 1000 && n[0] < ROOM);
    assert_memory_equal(logits[0], logits[1], n[0]);
    free(logits[0]);
    free(logits[1]);
}

/* Two of three times 256 positions less in each sweep. */
static void test_bench_reads_a_shared_depth_once(void **state) {
    (void)state;
    double each = needed_a_token(NULL), shared = needed_a_token("-pps");
    struct outcome o = onetrip(NULL, "inspect", model, "--json", NULL);
    json_t *root = json_loads(o.out, 0, NULL);
    double kv = json_number_value(json_object_get(root, "kv_bytes_per_token"));
    json_decref(root);
    outcome_free(&o);
    assert_true(kv > 0.0);
    assert_true(fabs(3 * (each - shared) - 2 * 256 * kv) < 0.001 * 3 * each);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_ends_where_nobody_takes_its_output),
        cmocka_unit_test(test_a_full_disk_is_called_that),
        cmocka_unit_test(test_a_models_name_does_not_command_the_terminal),
        cmocka_unit_test(test_eval_counts_its_sweeps_as_those_of_the_prompt),
        cmocka_unit_test(test_what_is_empty_is_a_fault_of_the_command_line),
        cmocka_unit_test(test_a_ledger_is_read_from_standard_input_whatever_it_is),
        cmocka_unit_test(test_a_perplexity_that_is_not_finite_is_null_in_json),
        cmocka_unit_test(test_eval_refuses_ids_that_are_none),
        cmocka_unit_test(test_eval_writes_every_logit_in_numpy_format),
        cmocka_unit_test(test_tokens_go_back_to_the_text_they_came_from),
        cmocka_unit_test(test_escapes_in_a_prompt_are_processed_unless_asked_not_to),
        cmocka_unit_test(test_inspect_sums_what_one_token_needs),
        cmocka_unit_test(test_bench_measures_each_test_of_its_lists),
        cmocka_unit_test(test_bench_disk_measures_the_disk_alone_and_reports_it),
        cmocka_unit_test(test_too_many_bench_tests_are_refused_before_the_first),
        cmocka_unit_test(test_names_of_bench_tests_are_whole),
        cmocka_unit_test(test_bench_over_budget_measures_the_disk),
        cmocka_unit_test(test_the_least_budget_is_a_line_that_does_not_move),
        cmocka_unit_test(test_eval_gives_the_same_logits_for_every_budget),
        cmocka_unit_test(test_bench_reads_a_shared_depth_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
