/* test_cli.c - the program's command line: flags, prompts, exit codes, files, on a tiny model. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"

/* ---- flags ---- */

static void test_every_wrong_command_line_is_one_clear_line_and_exit_2(void **state) {
    static const struct {
        const char *args[8];
        const char *says;
    } table[] = {
        {{NULL}, "a command is missing"},
        {{"rnu"}, "the nearest is run"},
        {{"-m", "x", "-p", "y"}, "a command comes before options"},
        {{"frobnicate"}, "unknown command"},
        {{"run"}, "MODEL is missing"},
        {{"run", "a", "b"}, "one MODEL expected"},
        {{"run", "a", "-m", "b"}, "two models given"},
        {{"run", "m", "-ngl", "99"},
         "option of llama.cpp; here: everything is computed by the CPU"},
        {{"run", "m", "--no-mmap"}, "here: --residency wired"},
        {{"run", "m", "-no-cnv"}, "here: --raw"},
        {{"run", "m", "-fa", "on"}, "leave it out"},
        {{"run", "m", "--dry-multiplier=1"}, "the samplers are"},
        {{"run", "m", "--dry"}, "unknown option --dry"},
        {{"bench", "m", "-o", "json"}, "here: --json"},
        {{"run", "m", "--no-warmup"}, "run has none, bench always has one: leave it out"},
        {{"bench", "m", "--no-warmup"}, "run has none, bench always has one: leave it out"},
        {{"inspect", "m", "-ngl", "4"},
         "-ngl is an option of llama.cpp; here: nothing is computed"},
        {{"tokenize", "m", "--jinja"}, "here: nothing is computed: leave it out"},
        {{"eval", "m", "-cnv"}, "here: no text is answered: leave it out"},
        {{"bench", "m", "-s", "3"}, "here: no token is chosen: leave it out"},
        {{"bench", "m", "--temp", "0"}, "here: no token is chosen: leave it out"},
        {{"run", "m", "-lcs", "f"}, "without a second model: --draft-max"},
        {{"bench", "m", "-lcs", "f"}, "-lcs is an option of llama.cpp"},
        {{"run", "m", "-cb"}, "-cb is an option of llama.cpp; here: a command has one sequence"},
        {{"run", "m", "-ptc", "3"}, "-ptc is an option of llama.cpp"},
        {{"run", "m", "-ntg", "3"}, "-ntg is an option of onetrip bench"},
        {{"run", "m", "--host", "0.0.0.0"}, "there is no server"},
        {{"bench", "m", "--port", "80"}, "there is no server"},
        {{"inspect", "m", "-t", "4"}, "-t is an option of onetrip run, eval, bench"},
        {{"run", "m", "--tensors"}, "--tensors is an option of onetrip inspect"},
        {{"tokenize", "m", "--predict", "4"}, "--predict is an option of onetrip run"},
        {{"run", "m", "--n", "5"}, "the nearest is --n-predict"},
        {{"bench", "m", "--n", "5"}, "the nearest is --n-gen"},
        {{"run", "m", "--res", "wired"}, "the nearest is --residency"},
        {{"run", "m", "--rma", "4G"}, "the nearest is --ram"},
        {{"run", "m", "--filename", "f"}, "the nearest is --file"},
        {{"eval", "m", "--stride", "4"}, "--stride; onetrip eval --help lists them"},
        {{"run", "m", "--hots"}, "--hots; onetrip run --help lists them"},
        {{"run", "m", "-nmany"}, "unknown option -nmany"},
        {{"run", "m", "--tmp", "1"}, "the nearest is --temp"},
        {{"run", "m", "--tempera", "1"}, "unknown option --tempera"},
        {{"run", "m", "-Z"}, "unknown option -Z"},
        {{"run", "m", "-n"}, "needs a value"},
        {{"run", "m", "-n", "many"}, "whole number from -2"},
        {{"run", "m", "-n", "-3"}, "whole number from -2"},
        {{"run", "m", "-n", "2147483648"}, "whole number from -2"},
        {{"run", "m", "-n", "99999999999999999999"}, "whole number from -2"},
        {{"run", "m", "-n", "1e3"}, "whole number"},
        {{"run", "m", "-n", " 1"}, "whole number"},
        {{"run", "m", "-n", ""}, "whole number"},
        {{"run", "m", "-c", "-1"}, "whole number from 0"},
        {{"run", "m", "--temp", "0x10"}, "not a number from -1000"},
        {{"run", "m", "-s", "be brief"}, "whole number from -1"},
        {{"run", "m", "--draft-max", "8"}, "whole number from -1 to 7"},
        {{"run", "m", "-t", "1025"}, "whole number from -1 to 1024"},
        {{"run", "m", "--temp", "nan"}, "not a number from -1000"},
        {{"run", "m", "--temp", "inf"}, "not a number from -1000"},
        {{"run", "m", "--temp", "1x"}, "not a number from -1000"},
        {{"run", "m", "--top-p", "1.5"}, "from 0 to 1"},
        {{"run", "m", "--min-p", "2"}, "from 0 to 1"},
        {{"run", "m", "--repeat-penalty", "0"}, "--repeat-penalty"},
        {{"run", "m", "--seed", "-2"}, "--seed"},
        {{"run", "m", "--ram", "lots"}, "not a size"},
        {{"run", "m", "--ram", "-4G"}, "not a size"},
        {{"run", "m", "--ram", "0"}, "not a size"},
        {{"run", "m", "--ram", "0x10"}, "not a size"},
        {{"run", "m", "--ram", "101%"}, "not a size"},
        {{"run", "m", "--ram", "99999999999T"}, "not a size"},
        {{"run", "m", "--ram", "4Gibibytes"}, "not a size"},
        {{"run", "m", "--ram", ""}, "not a size"},
        {{"run", "m", "--residency", "ram"}, "auto|cache|wired|stream"},
        {{"run", "m", "--chat-template", "klingon"}, "none of chatml|llama2|"},
        {{"run", "m", "--io", "mmap"}, "auto|uring|threads"},
        {{"run", "m", "--raw=yes"}, "takes no value"},
        {{"run", "m", "-q=1"}, "-q takes no value"},
        {{"tokenize", "m", "-p=x"}, "-p= is not known: -p TEXT, or --prompt=TEXT"},
        {{"bench", "m", "-p=1,2"}, "-p= is not known: -p LIST, or --n-prompt=LIST"},
        {{"run", "m", "-d=1"}, "-d is an option of onetrip bench"},
        {{"run", "m", "--stop", ""}, "--stop: the text is empty"},
        {{"run", "m", "--stop", "a\\x00"}, "byte 0"},
        {{"bench", "m", "-p", "1,"}, "list"},
        {{"bench", "m", "-p", "1,x"}, "list"},
        {{"bench", "m", "-r", "0"}, "from 1"},
        {{"bench", "m", "-npl", "0"}, "from 1"},
        {{"bench", "m", "-npl", "2", "-pps"}, "-d"},
        {{"bench", "m", "-d", "64", "-pps"}, "-npl"},
        {{"eval", "m", "--temp", "1"}, "here: no token is chosen"},
        {{"eval", "m", "--chunks=3"}, "here: all of the text"},
        {{"run", "m", "--prompt-cache", "f"}, "computed anew"},
        {{"run", "m", "--threads-draft", "1"}, "without a second model"},
        {{"tokenize", "m", "--show-count"}, "the ids are one line"},
        {{"eval", "m", "--ids", "i", "-f", "t"}, "one of them"},
        {{"ledger", "f", "--by", "colour"}, "--by: \"colour\" is none of boundary|class"},
        {{"simulate", "t", "--budget", "1", "--policy", "best"}, "--policy: \"best\" is none of"},
        {{"simulate", "t", "--budget", "auto"}, "--budget: \"auto\" is not a size"},
        {{"simulate", "t"}, "--budget SIZE is missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *args[MAX_ARGS] = {ONETRIP_PROGRAM};
        memcpy(args + 1, table[i].args, sizeof table[i].args);
        struct outcome o = program_run(args, NULL, 0);
        assert_one_line(o.err);
        assert_says(o.err, table[i].says);
        assert_exit(&o, 2);
        assert_int_equal(o.out_bytes, 0);
        outcome_free(&o);
    }
}

static void test_a_stop_string_too_many_is_told_from_an_empty_one(void **state) {
    const char *args[MAX_ARGS + 16] = {ONETRIP_PROGRAM, "run", model};
    (void)state;
    for (size_t i = 0; i < 34; i++) {
        args[3 + i] = i % 2 == 0 ? "--stop" : "x";
    }
    struct outcome o = program_run(args, NULL, 0);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "--stop: more than 16 given\n");
    outcome_free(&o);
}

static void test_bench_takes_the_lists_of_llama_batched_bench(void **state) {
    (void)state;
    struct outcome o =
        onetrip(NULL, "bench", model, "-npp", "4", "-ntg", "2", "-npl", "2", "-r", "1", "-q", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "pp4 ");
    assert_says(o.out, "tg2x2 ");
    outcome_free(&o);
}

static void test_help_is_there_for_the_program_and_each_command(void **state) {
    static const char *const commands[] = {"run",   "eval",   "tokenize", "inspect",
                                           "bench", "ledger", "simulate"};
    (void)state;
    struct outcome all = onetrip(NULL, "--help", NULL);
    assert_exit(&all, 0);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        assert_says(all.out, commands[i]);
        struct outcome by_flag = onetrip(NULL, commands[i], "--help", NULL);
        struct outcome by_word = onetrip(NULL, "help", commands[i], NULL);
        assert_exit(&by_flag, 0);
        assert_says(by_flag.out, "options:");
        assert_fits_a_terminal(by_flag.out);
        assert_says(by_flag.out, "--help");
        assert_string_equal(by_flag.out, by_word.out);
        assert_int_equal(strstr(by_flag.out, "--stop") != NULL, strcmp(commands[i], "run") == 0);
        outcome_free(&by_flag);
        outcome_free(&by_word);
    }
    outcome_free(&all);
    struct outcome version = onetrip(NULL, "--version", NULL);
    assert_exit(&version, 0);
    assert_says(version.out, "commit ");
    assert_says(version.out, "kernels ");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct outcome same = onetrip(NULL, commands[i], "--version", NULL);
        assert_exit(&same, 0);
        assert_string_equal(same.out, version.out);
        outcome_free(&same);
    }
    outcome_free(&version);
}

/* The kernels in use, as --version has them, with ONETRIP_ISA set; "" where they are refused. */
static void kernels_with(const char *isa, char kernels[32]) {
    setenv("ONETRIP_ISA", isa, 1);
    struct outcome o = onetrip(NULL, "--version", NULL);
    unsetenv("ONETRIP_ISA");
    kernels[0] = '\0';
    if (o.exit_code == 0) {
        const char *at = strstr(o.out, "kernels ");
        assert_non_null(at);
        assert_int_equal(sscanf(at, "kernels %31[^)]", kernels), 1);
    } else {
        assert_exit(&o, 2);
        assert_one_line(o.err);
        assert_says(o.err, "scalar");
        assert_int_equal(o.out_bytes, 0);
    }
    outcome_free(&o);
}

static void test_kernels_are_chosen_by_any_of_their_names_and_no_other(void **state) {
    char best[32], kernels[32];
    (void)state;
    kernels_with("", best);
    assert_string_not_equal(best, "");
    kernels_with(best, kernels); /* as it is printed */
    assert_string_equal(kernels, best);
    kernels_with("scalar", kernels);
    assert_string_equal(kernels, "scalar");
    static const char *const none[] = {"sse9", "AVX2", "scalar ", "avx2,avx512"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        kernels_with(none[i], kernels);
        assert_string_equal(kernels, "");
    }
#if defined(__x86_64__)
    kernels_with("neon", kernels);
    assert_string_equal(kernels, "");
#endif
    setenv("ONETRIP_ISA", "sse9", 1);
    struct outcome o = onetrip(NULL, "inspect", model, NULL);
    assert_exit(&o, 2);
    assert_says(o.err, "ONETRIP_ISA: \"sse9\"");
    outcome_free(&o);
    unsetenv("ONETRIP_ISA");
}

static void test_a_model_that_is_not_there_is_named_in_one_line(void **state) {
    static const char *const commands[] = {"run", "eval", "tokenize", "inspect", "bench"};
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct outcome o = onetrip("x", commands[i], "no-such-model", NULL);
        assert_exit(&o, 1);
        assert_one_line(o.err);
        assert_says(o.err, "no-such-model");
        outcome_free(&o);
        o = onetrip("x", commands[i], directory, NULL);
        assert_exit(&o, 1);
        assert_one_line(o.err);
        assert_says(o.err, directory);
        outcome_free(&o);
    }
}

static void test_a_model_is_found_by_its_name_in_the_cache(void **state) {
    char folder[128], link_path[160];
    (void)state;
    snprintf(folder, sizeof folder, "%s/onetrip", directory);
    mkdir(folder, 0755);
    snprintf(folder, sizeof folder, "%s/onetrip/models", directory);
    mkdir(folder, 0755);
    snprintf(link_path, sizeof link_path, "%s/small.gguf", folder);
    assert_int_equal(symlink(model, link_path), 0);
    setenv("XDG_CACHE_HOME", directory, 1);
    struct outcome o = onetrip(NULL, "inspect", "small", NULL);
    assert_exit(&o, 0);
    assert_says(o.out, "small.gguf");
    outcome_free(&o);
    unsetenv("XDG_CACHE_HOME");
    char *home = getenv("HOME") != NULL ? strdup(getenv("HOME")) : NULL;
    unsetenv("HOME");
    o = onetrip(NULL, "inspect", "small", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "neither HOME nor XDG_CACHE_HOME");
    outcome_free(&o);
    if (home != NULL) {
        setenv("HOME", home, 1);
    }
    free(home);
}

/* ---- run ---- */

static void test_run_prints_the_answer_alone_on_standard_output(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "hello", "-n", "8", "--temp", "0",
                               "--ignore-eos", "-q", NULL);
    assert_exit(&o, 0);
    assert_string_equal(o.err, "");
    assert_true(o.out_bytes > 1);
    assert_int_equal(o.out[o.out_bytes - 1], '\n');
    struct outcome again =
        onetrip("hello", "run", model, "--raw", "-n", "8", "--temp", "0", "--ignore-eos", NULL);
    assert_exit(&again, 0);
    assert_string_equal(again.out, o.out);
    assert_says(again.err, "ram>cache");
    assert_says(again.err, "requested");
    assert_says(again.err, "/proc/self/io");
    assert_fits_a_terminal(again.err);
    outcome_free(&o);
    outcome_free(&again);
}

static void test_names_and_values_of_llama_cpp_mean_the_same_here(void **state) {
    (void)state;
    struct outcome ours = onetrip(NULL, "run", model, "-p", "hi", "-n", "6", "--temp", "0", "-t",
                                  "1", "--top-k", "0", "--ignore-eos", "--repeat-last-n", "65536",
                                  "--repeat-penalty", "1.5", "--system", "be brief", "-q", NULL);
    struct outcome theirs =
        onetrip(NULL, "run", "-m", model, "-p", "hi", "--predict", "6", "--temperature=-1", "-t",
                "1", "--top-k", "-1", "--ignore-eos", "--repeat-last-n", "-1", "--repeat-penalty",
                "1.5", "-sys", "be brief", "-q", NULL);
    assert_exit(&ours, 0);
    assert_exit(&theirs, 0);
    assert_string_equal(theirs.out, ours.out);
    outcome_free(&ours);
    outcome_free(&theirs);
}

static void test_the_context_of_size_0_is_the_models_own(void **state) {
    const char *path = in_directory("ctx.json");
    (void)state;
    struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "-2", "-t", "-1", "-c",
                               "0", "--temp", "0", "-q", "--report", path, NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    o = onetrip(NULL, "inspect", model, "--json", NULL);
    json_t *report = json_load_file(path, 0, NULL), *facts = parse_json(o.out);
    assert_non_null(report);
    json_int_t own = json_integer_value(json_object_get(facts, "n_ctx_train"));
    assert_true(own > 0);
    const json_t *effective = json_object_get(report, "effective");
    assert_int_equal(json_integer_value(json_object_get(effective, "ctx")), own);
    assert_true(json_integer_value(json_object_get(effective, "threads")) > 0);
    json_decref(report);
    json_decref(facts);
    outcome_free(&o);
}

static void test_a_context_longer_than_the_models_own_is_noted(void **state) {
    (void)state;
    static const char *const sizes[] = {"0", "1000000"};
    for (int i = 0; i < 2; i++) {
        struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", "-c",
                                   sizes[i], "--temp", "0", NULL);
        assert_exit(&o, 0);
        assert_int_equal(strstr(o.err, "the model was made for") != NULL, i == 1);
        outcome_free(&o);
    }
}

static void test_a_seed_gives_the_same_text_again(void **state) {
    char *text[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct outcome o =
            onetrip(NULL, "run", model, "-p", "hello", "-n", "24", "--temp", "1.5", "--top-k", "0",
                    "--ignore-eos", "-q", "--seed", i < 2 ? "7" : "8", NULL);
        assert_exit(&o, 0);
        text[i] = strdup(o.out);
        outcome_free(&o);
    }
    assert_string_equal(text[0], text[1]);
    assert_string_not_equal(text[0], text[2]);
    for (int i = 0; i < 3; i++) {
        free(text[i]);
    }
}

/* A tiny model soon repeats itself, so there is much to guess. */
static void test_guesses_save_sweeps_and_change_no_text(void **state) {
    static const char *const temperatures[] = {"0", "0.3", "1.5"};
    static const char *const contexts[] = {"0", "40"};
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct outcome o[2];
        for (int k = 0; k < 2; k++) {
            o[k] = onetrip(NULL, "run", model, "--raw", "-p", "one two one two", "-n", "60", "-c",
                           contexts[i / 3], "--temp", temperatures[i % 3], "--seed", "3",
                           "--ignore-eos", "--repeat-penalty", i < 3 ? "1" : "1.01", "-q",
                           "--draft-max", k == 0 ? "0" : "7", "--report",
                           in_directory("draft.json"), NULL);
            assert_exit(&o[k], 0);
        }
        assert_string_equal(o[0].out, o[1].out);
        outcome_free(&o[0]);
        outcome_free(&o[1]);
        json_t *root = json_load_file(in_directory("draft.json"), 0, NULL);
        assert_non_null(root);
        const json_t *draft = json_object_get(root, "draft");
        json_int_t guessed = json_integer_value(json_object_get(draft, "guessed"));
        json_int_t accepted = json_integer_value(json_object_get(draft, "accepted"));
        json_int_t sweeps =
            json_integer_value(json_object_get(json_object_get(root, "sweeps"), "decode"));
        const json_t *tokens = json_object_get(root, "tokens");
        size_t generated = json_array_size(json_object_get(tokens, "generated"));
        assert_int_equal(sweeps + accepted + 1, generated);
        assert_in_range(accepted, 0, guessed);
        if (i == 0) { /* how many more depends on how long sweeps take */
            assert_true(guessed > 0);
        }
        json_decref(root);
    }
}

static void test_hostile_prompts_end_clearly(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "run", model, "-p", "", NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "empty");
    outcome_free(&o);
    o = onetrip("", "run", model, NULL);
    assert_exit(&o, 2);
    assert_says(o.err, "empty");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "-p", "\xff", "-n", "2", "-q", NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "--raw", "-c", "8", "-p", "a b c d e f g h i j k l m n o",
                NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "the context holds 8");
    outcome_free(&o);
    size_t bytes = 10u << 20;
    char *large = malloc(bytes + 1);
    memset(large, 'a', bytes);
    large[bytes] = '\0';
    o = onetrip(large, "run", model, NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "tokens, the context holds");
    outcome_free(&o);
    free(large);
    o = onetrip(NULL, "run", model, "-f", directory, NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "is a directory");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "-f", in_directory("absent.txt"), NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "absent.txt: No such file");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "-f", "", NULL);
    assert_exit(&o, 2);
    assert_says(o.err, "is empty");
    outcome_free(&o);
    o = onetrip(NULL, "run", "", "-p", "x", NULL);
    assert_exit(&o, 2);
    assert_says(o.err, "MODEL is missing");
    outcome_free(&o);
}

static void test_a_text_that_the_budget_has_no_room_for_is_refused(void **state) {
    enum { TEXT_BYTES = 4 << 20 };
    const char *path = in_directory("long.txt");
    char *text = malloc(TEXT_BYTES);
    (void)state;
    assert_non_null(text);
    memset(text, 'x', TEXT_BYTES);
    image_write_bytes(path, text, TEXT_BYTES);
    free(text);
    struct outcome o =
        onetrip(NULL, "run", model, "--raw", "-n", "1", "--ram", "150M", "-f", path, NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "long.txt: longer than 2.5 MB, a 64th of the memory budget");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "--raw", "-n", "1", "--ram", "20M", "-f", path, NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "long.txt: longer than 0.3 MB, a 64th of the memory budget");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "--raw", "-n", "1", "--ram", "300M", "-f", path, NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "the context holds");
    outcome_free(&o);
}

/* Some vocabularies have no token for some bytes, and leave them out. */
static void test_a_prompt_of_no_tokens_is_one_clear_line(void **state) {
    static const char byte_255[] = "\2\0\0\0\0\0\0\0\xc3\xbf"; /* as a token of its own */
    const char *path = in_directory("no-255.gguf");
    struct tiny_model options;
    struct image image;
    (void)state;
    tiny_model_defaults(&options, TINY_QWEN2, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    const struct image_key *tokens = image_find_key(&image, "tokenizer.ggml.tokens");
    uint8_t *found =
        memmem(tokens->values.data, tokens->values.bytes, byte_255, sizeof byte_255 - 1);
    assert_non_null(found);
    found[8] = 0xc9; /* a letter that stands for no byte */
    image_write(&image, path);
    image_deinit(&image);
    struct outcome o = onetrip(NULL, "run", path, "--raw", "-p", "\xff\xff", "-n", "2", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "no tokens");
    outcome_free(&o);
}

static void test_a_stop_string_is_found_across_tokens_and_not_shown(void **state) {
    (void)state;
    struct outcome whole = onetrip(NULL, "run", model, "--raw", "-p", "hello", "-n", "40", "--temp",
                                   "0", "--ignore-eos", "-q", NULL);
    assert_exit(&whole, 0);
    assert_true(whole.out_bytes > 16);
    /* A piece from the middle that is whole characters. */
    char stop[8] = "";
    size_t at = 0;
    for (size_t i = 6; i + 4 < whole.out_bytes && stop[0] == '\0'; i++) {
        bool plain = true;
        for (size_t k = 0; k < 4; k++) {
            plain &= whole.out[i + k] > 0x20 && whole.out[i + k] < 0x7f;
        }
        if (plain) {
            memcpy(stop, whole.out + i, 4);
            stop[4] = '\0';
            at = (size_t)(strstr(whole.out, stop) - whole.out);
        }
    }
    assert_string_not_equal(stop, "");
    struct outcome cut =
        onetrip(NULL, "run", model, "--raw", "-p", "hello", "-n", "40", "--temp", "0",
                "--ignore-eos", "-q", "--stop", "never seen", "--stop", stop, NULL);
    assert_exit(&cut, 0);
    assert_true(cut.out_bytes == at || cut.out_bytes == at + 1);
    assert_memory_equal(cut.out, whole.out, at);
    /* The same string with its first byte as an escape. */
    char escaped[16];
    snprintf(escaped, sizeof escaped, "\\x%02x%s", (unsigned)stop[0], stop + 1);
    for (int i = 0; i < 2; i++) {
        struct outcome o =
            onetrip(NULL, "run", model, "--raw", "-p", "hello", "-n", "40", "--temp", "0",
                    "--ignore-eos", "-q", "--stop", escaped, i == 0 ? NULL : "--no-escape", NULL);
        assert_exit(&o, 0);
        assert_string_equal(o.out, i == 0 ? cut.out : whole.out);
        outcome_free(&o);
    }
    outcome_free(&whole);
    outcome_free(&cut);
}

static void test_generation_ends_where_the_context_is_full(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "hello", "-c", "24", "--temp",
                               "0", "--ignore-eos", "--report", in_directory("full.json"), NULL);
    assert_exit(&o, 0);
    assert_says(o.err, "the context is full (24 tokens)");
    outcome_free(&o);
    json_t *root = json_load_file(in_directory("full.json"), 0, NULL);
    assert_non_null(root);
    const json_t *tokens = json_object_get(root, "tokens");
    /* The last token of all was chosen and needs no place. */
    assert_int_equal(json_array_size(json_object_get(tokens, "prompt")) +
                         json_array_size(json_object_get(tokens, "generated")),
                     25);
    json_decref(root);
}

static void test_output_that_cannot_be_written_is_an_error(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command, "%s run %s --raw -p hello -n 4 -q >/dev/full 2>%s",
             ONETRIP_PROGRAM, model, in_directory("full.err"));
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    snprintf(command, sizeof command, "%s inspect %s >/dev/full 2>/dev/null", ONETRIP_PROGRAM,
             model);
    status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    snprintf(command, sizeof command, "%s inspect %s >&- 2>/dev/null", ONETRIP_PROGRAM, model);
    status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    /* A reader that leaves ends the run quietly. */
    snprintf(
        command, sizeof command,
        "{ %s run %s --raw -p hello --ignore-eos -n 2000 -c 4096 -q 2>%s; echo $? >%s; } | true",
        ONETRIP_PROGRAM, model, in_directory("pipe.err"), in_directory("pipe.code"));
    assert_int_equal(system(command), 0);
    FILE *file = fopen(in_directory("pipe.code"), "r");
    int code = -1;
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &code), 1);
    fclose(file);
    assert_int_equal(code, 141);
    struct outcome o = onetrip(NULL, "run", model, "-p", "x", "-n", "1", "-q", "--report",
                               "/nonexistent/report.json", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "/nonexistent/report.json");
    assert_one_line(o.err);
    assert_int_equal(o.out_bytes, 0); /* before the answer, not after it */
    outcome_free(&o);
    static const char *const options[] = {"--report", "--ledger", "--trace"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        o = onetrip(NULL, "bench", model, options[i], "", NULL);
        assert_exit(&o, 2);
        assert_says(o.err, options[i]);
        assert_says(o.err, "empty");
        outcome_free(&o);
        o = onetrip(NULL, "bench", model, options[i], directory, NULL);
        assert_exit(&o, 1);
        assert_one_line(o.err);
        assert_says(o.err, directory);
        outcome_free(&o);
    }
    char name[252] = ""; /* is a file's name, but the one until it is whole would be too long */
    memset(name, 'n', sizeof name - 1);
    snprintf(command, sizeof command, "%s/%s", directory, name);
    o = onetrip(NULL, "run", model, "-p", "x", "-n", "1", "-q", "--report", command, NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "too long");
    assert_int_equal(o.out_bytes, 0);
    outcome_free(&o);
    o = onetrip(NULL, "eval", model, "--ids", "1,2", "--logits", "/nonexistent/x.npy", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "/nonexistent/x.npy");
    outcome_free(&o);
    o = onetrip(NULL, "run", model, "-p", "x", "-n", "1", "-q", "--trace", "/dev/full", NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "/dev/full");
    outcome_free(&o);
}

static void test_bench_generates_several_sequences_together(void **state) {
    (void)state;
    struct outcome o = onetrip(NULL, "bench", model, "-p", "0", "-n", "4", "-d", "0,3", "-npl",
                               "1,3", "-r", "2", "--ram", "64M", "--json", NULL);
    assert_exit(&o, 0);
    static const char *const names[] = {"tg4", "tg4x3", "tg4@d3", "tg4x3@d3"};
    json_t *root = json_loads(o.out, 0, NULL);
    assert_non_null(root);
    const json_t *results = json_object_get(root, "results");
    assert_int_equal(json_array_size(results), 4);
    double needed[4];
    for (size_t i = 0; i < 4; i++) {
        const json_t *result = json_array_get(results, i);
        assert_string_equal(json_string_value(json_object_get(result, "test")), names[i]);
        needed[i] = json_real_value(json_object_get(result, "needed_bytes_per_token"));
    }
    assert_true(needed[1] < 0.5 * needed[0] && needed[3] < 0.5 * needed[2]); /* shared sweeps */
    json_decref(root);
    outcome_free(&o);
}

/* What the text prints as "-" is null, not 0: prompts are measured against no limit, and where the
 * budget has no room for it, memory is not measured either. */
static void test_bench_says_null_of_what_it_did_not_measure(void **state) {
    (void)state;
    static const char *const budgets[] = {"64M", "2G"};
    for (size_t i = 0; i < 2; i++) {
        struct outcome o = onetrip(NULL, "bench", model, "-p", "4", "-n", "4", "-r", "1", "-t", "1",
                                   "--ram", budgets[i], "--json", NULL);
        assert_exit(&o, 0);
        json_t *root = json_loads(o.out, 0, NULL);
        assert_non_null(root);
        const json_t *results = json_object_get(root, "results");
        assert_int_equal(json_array_size(results), 2);
        for (size_t k = 0; k < 2; k++) {
            const json_t *result = json_array_get(results, k);
            const json_t *limit = json_object_get(result, "limit_bytes_per_s");
            const json_t *share = json_object_get(result, "of_limit");
            if (i == 1 && k == 1) {
                assert_true(json_real_value(limit) > 0.0 && json_real_value(share) > 0.0);
            } else {
                assert_true(json_is_null(limit) && json_is_null(share));
            }
        }
        json_decref(root);
        outcome_free(&o);
    }
}

static void test_output_never_replaces_a_model_or_what_the_command_reads(void **state) {
    (void)state;
    static const char *const options[] = {"--report", "--ledger", "--trace"};
    struct stat before, after;
    assert_int_equal(stat(model, &before), 0);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct outcome o =
            onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", options[i], model, NULL);
        assert_exit(&o, 1);
        assert_one_line(o.err);
        assert_says(o.err, "is a model");
        outcome_free(&o);
        o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", options[i], "-", NULL);
        assert_exit(&o, 2);
        assert_one_line(o.err);
        assert_says(o.err, "/dev/stdout");
        outcome_free(&o);
    }
    assert_int_equal(stat(model, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(before.st_size, after.st_size);
    const char *text = in_directory("text.txt");
    FILE *file = fopen(text, "w");
    assert_non_null(file);
    fputs("words", file);
    fclose(file);
    struct outcome o = onetrip(NULL, "eval", model, "-f", text, "--logits", text, NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "is read by this command");
    outcome_free(&o);
    const char *both = in_directory("both.json");
    o = onetrip(NULL, "eval", model, "-f", text, "--report", both, "--ledger", both, NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, "is the file of --report, too");
    outcome_free(&o);
    o = onetrip(NULL, "eval", model, "-f", text, "-q", "--report", "/dev/null", "--ledger",
                "/dev/null", NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
}

/* Else its sweep would count as decoded, and the speed of decoding would be too high. */
static void test_a_prompt_of_one_token_has_a_sweep_of_its_own(void **state) {
    (void)state;
    struct tiny_model options;
    const char *path = in_directory("no-bos.gguf"), *report = in_directory("short.json");
    tiny_model_defaults(&options, TINY_QWEN2, OT_Q4_0, 1);
    tiny_model_write(&options, path);
    struct outcome o = onetrip(NULL, "run", path, "--raw", "-p", "a", "-n", "4", "--ignore-eos",
                               "--report", report, NULL);
    assert_exit(&o, 0);
    assert_says(o.err, "; 1 prompt token in 1 sweep, 4 generated in 3\n");
    outcome_free(&o);
    json_t *root = json_load_file(report, 0, NULL);
    assert_non_null(root);
    const json_t *timing = json_object_get(root, "timing");
    double decode_s = json_real_value(json_object_get(timing, "decode_s"));
    double rate = json_real_value(json_object_get(timing, "decode_tokens_per_s"));
    assert_true(rate * decode_s > 2.999 && rate * decode_s < 3.001);
    json_decref(root);
}

/* ---- the report and the ledger ---- */

static void assert_object(const json_t *root, const char *key, const char *const *fields) {
    const json_t *object = json_object_get(root, key);
    if (json_is_array(object)) {
        assert_true(json_array_size(object) > 0);
        object = json_array_get(object, 0);
    }
    for (; *fields != NULL; fields++) {
        if (json_object_get(object, *fields) == NULL) {
            print_error("the report has no %s.%s\n", key, *fields);
            fail();
        }
    }
}

static void test_the_report_has_the_fields_that_others_rely_on(void **state) {
    static const struct {
        const char *key;
        const char *fields[16];
    } table[] = {
        {"program", {"version", "commit"}},
        {"model", {"path", "architecture", "file_bytes", "weight_bytes"}},
        {"machine", {"cpu", "isa", "threads", "memory_bytes", "limit_bytes"}},
        {"requested", {"ram", "threads", "ctx", "residency", "io", "draft"}},
        {"effective", {"ram", "threads", "ctx", "residency", "io", "draft"}},
        {"tokens", {"prompt", "generated"}},
        {"sweeps", {"prompt", "decode"}},
        {"draft", {"guessed", "accepted"}},
        {"timing",
         {"load_s", "first_token_s", "prompt_s", "decode_s", "prompt_tokens_per_s",
          "decode_tokens_per_s"}},
        {"residency",
         {"budget_bytes", "least_budget_bytes", "wired_bytes", "slot_bytes", "streamed_bytes_per_sweep",
          "kv_bytes", "activation_bytes", "program_bytes", "reserve_bytes", "table_bytes",
          "peak_rss_bytes"}},
        {"movements", {"boundary", "class", "cause", "known", "moved_bytes", "needed_bytes"}},
        {"closure", {"boundary", "ledger_bytes", "system_bytes", "source", "residual"}},
    };
    (void)state;
    struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "hello you", "-n", "5", "--temp",
                               "0", "--ignore-eos", "-q", "-t", "1", "--draft-max", "0", "--report",
                               in_directory("report.json"), NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    json_t *root = json_load_file(in_directory("report.json"), 0, NULL);
    assert_non_null(root);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_object(root, table[i].key, table[i].fields);
    }
    const json_t *tokens = json_object_get(root, "tokens");
    assert_int_equal(json_array_size(json_object_get(tokens, "generated")), 5);
    const json_t *sweeps = json_object_get(root, "sweeps");
    assert_int_equal(json_integer_value(json_object_get(sweeps, "prompt")), 1);
    assert_int_equal(json_integer_value(json_object_get(sweeps, "decode")), 4);
    const json_t *requested = json_object_get(root, "requested");
    const json_t *effective = json_object_get(root, "effective");
    assert_int_equal(json_integer_value(json_object_get(requested, "threads")), 1);
    assert_int_equal(json_integer_value(json_object_get(effective, "threads")), 1);
    json_decref(root);
}

static void test_a_ledger_reads_back_the_same_from_lines_and_from_sqlite(void **state) {
    static const char *const by[] = {"boundary", "class", "tensor", "cause", "layer"};
    const char *lines = in_directory("run.jsonl"), *database = in_directory("run.sqlite");
    (void)state;
    /* Warm and cold differ in disk>ram: the file is in the page cache after the first run. */
    for (int i = 0; i < 2; i++) {
        struct outcome o =
            onetrip(NULL, "run", model, "--raw", "-p", "hello", "-n", "4", "--temp", "0",
                    "--ignore-eos", "-q", "--ledger", i == 0 ? lines : database, NULL);
        assert_exit(&o, 0);
        outcome_free(&o);
    }
    for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
        struct outcome a = onetrip(NULL, "ledger", lines, "--by", by[i], NULL);
        struct outcome b = onetrip(NULL, "ledger", database, "--by", by[i], NULL);
        assert_exit(&a, 0);
        assert_exit(&b, 0);
        assert_says(a.out, "ram>cache");
        const char *from = strstr(a.out, "ram>cache"), *other = strstr(b.out, "ram>cache");
        assert_non_null(other);
        assert_string_equal(from, other);
        outcome_free(&a);
        outcome_free(&b);
    }
    struct outcome top = onetrip(NULL, "ledger", lines, "--by", "tensor", "--top", "1", NULL);
    assert_exit(&top, 0);
    const char *first = strstr(top.out, "ram>cache");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\nram>cache"));
    outcome_free(&top);
}

/* How much one run of the program may hold more than the next, beyond what the told least allows
 * for: the sanitizer's own memory differs from run to run. */
#if defined(__SANITIZE_ADDRESS__)
enum { RUNS_DIFFER_BYTES = 4 << 20 };
#else
enum { RUNS_DIFFER_BYTES = 0 };
#endif

static void test_the_least_budget_that_is_told_is_enough(void **state) {
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        struct outcome o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", "-q", "--ram",
                                   i % 2 == 0 ? "1" : "5M", NULL);
        assert_exit(&o, 1);
        const char *least = strchr(o.err, '(');
        assert_non_null(least);
        char ram[32];
        snprintf(ram, sizeof ram, "%llu", strtoull(least + 1, NULL, 10) + RUNS_DIFFER_BYTES);
        outcome_free(&o);
        o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", "-q", "--ram", ram, NULL);
        assert_exit(&o, 0);
        outcome_free(&o);
    }
}

/* What the shell hands over lies in memory, too: the least grows by that, and by no more. */
static void test_the_told_least_grows_by_the_environment_only(void **state) {
    (void)state;
    enum { VALUE_BYTES = 100000, N_VALUES = 10 };
    struct outcome o =
        onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", "-q", "--ram", "1", NULL);
    assert_exit(&o, 1);
    const char *least = strchr(o.err, '(');
    assert_non_null(least);
    char ram[32], *value = malloc(VALUE_BYTES), name[32];
    assert_non_null(value);
    const uint64_t more = ((VALUE_BYTES * N_VALUES >> 20) + 1) << 20;
    snprintf(ram, sizeof ram, "%llu", strtoull(least + 1, NULL, 10) + RUNS_DIFFER_BYTES + more);
    outcome_free(&o);
    memset(value, 'x', VALUE_BYTES - 1);
    value[VALUE_BYTES - 1] = '\0';
    for (int i = 0; i < N_VALUES; i++) {
        snprintf(name, sizeof name, "ONETRIP_TEST_%d", i);
        setenv(name, value, 1);
    }
    o = onetrip(NULL, "run", model, "--raw", "-p", "x", "-n", "1", "-q", "--ram", ram, NULL);
    for (int i = 0; i < N_VALUES; i++) {
        snprintf(name, sizeof name, "ONETRIP_TEST_%d", i);
        unsetenv(name);
    }
    free(value);
    assert_exit(&o, 0);
    outcome_free(&o);
}

/* KV of 4096 positions takes 16 MB here, of those that a short answer needs 2. */
static void test_a_context_that_nobody_asked_for_is_as_short_as_the_budget_needs(void **state) {
    struct tiny_model wide;
    const char *path = in_directory("wide.gguf"), *report = in_directory("ctx.json");
    char ram[32];
    (void)state;
    tiny_model_defaults(&wide, TINY_LLAMA, OT_Q4_0, 1);
    wide.n_layers = 1;
    wide.n_embd = wide.n_ff = 1024;
    wide.n_heads = wide.n_kv_heads = 16;
    wide.head_dim = 64;
    wide.n_ctx = 8192;
    tiny_model_write(&wide, path);
    struct outcome o =
        onetrip(NULL, "run", path, "--raw", "-p", "x", "-c", "4096", "-q", "--ram", "1", NULL);
    assert_exit(&o, 1);
    assert_says(o.err, "less with fewer positions: n_ctx, -c");
    const char *least = strchr(o.err, '(');
    assert_non_null(least);
    snprintf(ram, sizeof ram, "%llu", strtoull(least + 1, NULL, 10) - (8u << 20));
    outcome_free(&o);
    o = onetrip(NULL, "run", path, "--raw", "-p", "x", "-c", "4096", "-q", "--ram", ram, NULL);
    assert_exit(&o, 1);
    outcome_free(&o);
    o = onetrip(NULL, "run", path, "--raw", "-p", "x", "-q", "--temp", "0", "--ram", ram,
                "--report", report, NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    json_t *root = json_load_file(report, 0, NULL);
    assert_non_null(root);
    json_int_t n_ctx =
        json_integer_value(json_object_get(json_object_get(root, "effective"), "ctx"));
    /* half of the positions, and as many more as this start holds less than any start may */
    assert_in_range(n_ctx, 513, 3072);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_wrong_command_line_is_one_clear_line_and_exit_2),
        cmocka_unit_test(test_a_stop_string_too_many_is_told_from_an_empty_one),
        cmocka_unit_test(test_bench_takes_the_lists_of_llama_batched_bench),
        cmocka_unit_test(test_help_is_there_for_the_program_and_each_command),
        cmocka_unit_test(test_kernels_are_chosen_by_any_of_their_names_and_no_other),
        cmocka_unit_test(test_a_model_that_is_not_there_is_named_in_one_line),
        cmocka_unit_test(test_a_model_is_found_by_its_name_in_the_cache),
        cmocka_unit_test(test_run_prints_the_answer_alone_on_standard_output),
        cmocka_unit_test(test_names_and_values_of_llama_cpp_mean_the_same_here),
        cmocka_unit_test(test_the_context_of_size_0_is_the_models_own),
        cmocka_unit_test(test_a_context_longer_than_the_models_own_is_noted),
        cmocka_unit_test(test_a_seed_gives_the_same_text_again),
        cmocka_unit_test(test_guesses_save_sweeps_and_change_no_text),
        cmocka_unit_test(test_hostile_prompts_end_clearly),
        cmocka_unit_test(test_a_text_that_the_budget_has_no_room_for_is_refused),
        cmocka_unit_test(test_a_prompt_of_no_tokens_is_one_clear_line),
        cmocka_unit_test(test_a_stop_string_is_found_across_tokens_and_not_shown),
        cmocka_unit_test(test_generation_ends_where_the_context_is_full),
        cmocka_unit_test(test_output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(test_bench_generates_several_sequences_together),
        cmocka_unit_test(test_bench_says_null_of_what_it_did_not_measure),
        cmocka_unit_test(test_output_never_replaces_a_model_or_what_the_command_reads),
        cmocka_unit_test(test_a_prompt_of_one_token_has_a_sweep_of_its_own),
        cmocka_unit_test(test_the_report_has_the_fields_that_others_rely_on),
        cmocka_unit_test(test_a_ledger_reads_back_the_same_from_lines_and_from_sqlite),
        cmocka_unit_test(test_the_least_budget_that_is_told_is_enough),
        cmocka_unit_test(test_the_told_least_grows_by_the_environment_only),
        cmocka_unit_test(test_a_context_that_nobody_asked_for_is_as_short_as_the_budget_needs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
