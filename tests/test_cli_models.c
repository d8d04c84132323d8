/* test_cli_models.c - what the program says of a MODEL that it cannot take. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_fixture.h"

/* The cache of this test, with files that are links to the tiny model. */
static void fill_cache(const char *const *files) {
    setenv("XDG_CACHE_HOME", directory, 1);
    mkdir(in_directory("onetrip"), 0755);
    mkdir(in_directory("onetrip/models"), 0755);
    for (; *files != NULL; files++) {
        char path[256];
        snprintf(path, sizeof path, "%s/onetrip/models/%s", directory, *files);
        assert_true(symlink(model, path) == 0 || errno == EEXIST);
    }
}

static void assert_absent(const char *name, const char *says, const char *says_not) {
    struct outcome o = onetrip("x", "run", name, NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, name);
    assert_says(o.err, says);
    assert_null(strstr(o.err, says_not));
    outcome_free(&o);
}

static void test_of_a_name_that_means_no_model_the_cache_is_listed(void **state) {
    static const char *const files[] = {"SmolLM2-135M-Instruct.Q4_1.gguf",
                                        "other-00001-of-00002.gguf", "other-00002-of-00002.gguf",
                                        "note.txt", NULL};
    (void)state;
    setenv("XDG_CACHE_HOME", in_directory("nothing"), 1);
    assert_absent("smolm2", "where none is: put a GGUF file there", "make model");
    fill_cache(files);
    assert_absent("smolm2", "which has other-00001-of-00002, smollm2; the nearest is smollm2",
                  "note");
    assert_absent("SmolLM2", "the nearest is smollm2", "note");
    assert_absent("quite-another", "which has other-00001-of-00002, smollm2", "nearest");
}

static void test_a_list_of_models_is_cut_where_it_is_long(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        char name[96];
        memset(name, 'n', sizeof name);
        snprintf(name + 60, sizeof name - 60, "%02d.gguf", i);
        fill_cache((const char *const[]){name, NULL});
    }
    assert_absent("abc", ", ...", ", ..., ...");
}

static void test_a_name_to_be_downloaded_is_told_from_a_path(void **state) {
    static const char *const remote[] = {"https://example.org/m.gguf", "org/name", "org/name:Q4_0",
                                         "hf.co/org/name:Q4_0"};
    (void)state;
    for (size_t i = 0; i < sizeof remote / sizeof remote[0]; i++) {
        assert_absent(remote[i], "nothing is downloaded: fetch the GGUF file", "cannot be opened");
    }
    assert_absent("org/name.gguf", "No such file", "downloaded");
    assert_absent("/org/name", "No such file", "downloaded");
    assert_absent("./name", "No such file", "downloaded");
}

static void test_a_model_in_the_place_of_a_command_is_recognised(void **state) {
    char says[256];
    (void)state;
    snprintf(says, sizeof says, "onetrip run %s", model);
    struct outcome o = onetrip("x", model, NULL);
    assert_exit(&o, 2);
    assert_one_line(o.err);
    assert_says(o.err, says);
    outcome_free(&o);
    fill_cache((const char *const[]){"SmolLM2-135M-Instruct.Q4_1.gguf", NULL});
    o = onetrip("x", "smollm2", "-p", "x", NULL);
    assert_exit(&o, 2);
    assert_says(o.err, "\"smollm2\" is no command; to run that model: onetrip run smollm2");
    outcome_free(&o);
}

static void test_an_empty_file_is_called_empty(void **state) {
    (void)state;
    image_write_bytes(in_directory("empty.gguf"), "", 0);
    struct outcome o = onetrip("x", "run", in_directory("empty.gguf"), NULL);
    assert_exit(&o, 1);
    assert_one_line(o.err);
    assert_says(o.err, "empty.gguf: the file is empty");
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_a_name_that_means_no_model_the_cache_is_listed),
        cmocka_unit_test(test_a_list_of_models_is_cut_where_it_is_long),
        cmocka_unit_test(test_a_name_to_be_downloaded_is_told_from_a_path),
        cmocka_unit_test(test_a_model_in_the_place_of_a_command_is_recognised),
        cmocka_unit_test(test_an_empty_file_is_called_empty),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
