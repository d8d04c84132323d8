/* test_interrupted.c - a second Ctrl-C while the program writes its files: none is left behind
 * under a temporary name, and those that are there are whole. */
#include <dirent.h>
#include <signal.h>

#include "cli_fixture.h"

/* Files of the folder beside the model; *name is one of them. */
static unsigned count_files(char name[256]) {
    unsigned n = 0;
    DIR *folder = opendir(directory);
    assert_non_null(folder);
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        if (e->d_name[0] != '.' && strcmp(e->d_name, "tiny.gguf") != 0) {
            snprintf(name, 256, "%s", e->d_name);
            n++;
        }
    }
    closedir(folder);
    return n;
}

static struct outcome interrupted(const char *command, const char *option, const char *file) {
    setenv("LD_PRELOAD", INTERRUPT_OBJECT, 1);
    struct outcome o = onetrip(NULL, command, model, "-p", "one two three", "-c", "64", "-q",
                               option, in_directory(file), NULL);
    unsetenv("LD_PRELOAD");
    return o;
}

static void test_reports_are_written_to_their_end(void **state) {
    static const char *const options[] = {"--report", "--ledger", "--ledger"};
    static const char *const files[] = {"report.json", "ledger.jsonl", "ledger.db"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char name[256] = "";
        struct outcome o = interrupted("eval", options[i], files[i]);
        assert_int_equal(o.exit_code, 0); /* one Ctrl-C after all was done */
        assert_int_equal(count_files(name), 1);
        assert_string_equal(name, files[i]);
        assert_int_equal(remove(in_directory(files[i])), 0);
        outcome_free(&o);
    }
}

static void test_logits_that_are_not_whole_are_deleted(void **state) {
    (void)state;
    char name[256] = "";
    struct outcome o = interrupted("eval", "--logits", "logits.npy");
    assert_int_equal(o.signal, SIGINT);
    assert_int_equal(count_files(name), 0);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reports_are_written_to_their_end),
        cmocka_unit_test(test_logits_that_are_not_whole_are_deleted),
    };
    if (INTERRUPT_OBJECT[0] == '\0') {
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
