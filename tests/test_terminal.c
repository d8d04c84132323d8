/* test_terminal.c - the program as who sits at a terminal meets it: Ctrl-C, and the conversation,
 * on a tiny model. */
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"

static void end_an_answer_by(int signal_number) {
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        alarm(60);
        execl(ONETRIP_PROGRAM, ONETRIP_PROGRAM, "run", model, "--raw", "-p", "hello",
              "--ignore-eos", "-c", "500000", "-q", "--temp", "0", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    char byte;
    assert_int_equal(read(out[0], &byte, 1), 1);
    kill(child, signal_number);
    while (read(out[0], &byte, 1) > 0) {
    }
    close(out[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    assert_int_equal(byte, '\n');
}

static void test_ctrl_c_sigterm_and_sighup_end_an_answer_with_exit_130(void **state) {
    (void)state;
    end_an_answer_by(SIGINT);
    end_an_answer_by(SIGTERM);
    end_an_answer_by(SIGHUP);
}

/* Reads from the terminal until words were seen. */
static void await(int terminal, const char *words, char *seen, size_t n) {
    size_t used = strlen(seen);
    while (strstr(seen, words) == NULL) {
        ssize_t got = read(terminal, seen + used, n - used - 1);
        if (got <= 0) {
            print_error("the terminal closed; expected \"%s\" in:\n%s\n", words, seen);
            fail();
        }
        used += (size_t)got;
        seen[used] = '\0';
    }
}

/* Writes to the terminal and reads until words were answered and then a prompt was seen: what is
 * written before that would be part of the same text. */
static void say(int terminal, const char *text, const char *words, const char *prompt, char *seen,
                size_t n) {
    seen[0] = '\0';
    assert_int_equal(write(terminal, text, strlen(text)), strlen(text));
    await(terminal, words, seen, n);
    char *rest = strstr(seen, words);
    await(terminal, prompt, rest, n - (size_t)(rest - seen));
}

static void test_a_terminal_without_a_prompt_is_a_conversation(void **state) {
    static char seen[1 << 20];
    int terminal;
    (void)state;
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    if (child < 0) {
        print_message("skipped: no pseudo-terminal can be had here\n");
        skip();
    }
    if (child == 0) {
        alarm(60);
        execl(ONETRIP_PROGRAM, ONETRIP_PROGRAM, "run", model, "-n", "12", "--temp", "0",
              "--ignore-eos", "-c", "2000", (char *)NULL);
        _exit(127);
    }
    await(terminal, "> ", seen, sizeof seen);
    say(terminal, "/help\n", "Ctrl-D", "\n> ", seen, sizeof seen);
    say(terminal, "hello\n", "\n", "\n> ", seen, sizeof seen);
    say(terminal, "/ledger\n", "waiting for the disk", "\n> ", seen, sizeof seen);
    assert_non_null(strstr(seen, "12 generated"));
    say(terminal, "again\n", "\n", "\n> ", seen, sizeof seen);
    say(terminal, "/nonsense\n", "is no command", "\n> ", seen, sizeof seen);
    say(terminal, "/exit now\n", "/exit now is no command", "\n> ", seen, sizeof seen);
    char question[128], read_file[160];
    snprintf(question, sizeof question, "%s/question.txt", directory);
    snprintf(read_file, sizeof read_file, "/read %s \t\n", question);
    FILE *file = fopen(question, "w");
    assert_non_null(file);
    assert_int_equal(fputs("hello from a file", file) >= 0 ? fclose(file) : EOF, 0);
    say(terminal, read_file, "17 bytes go before", "\n> ", seen, sizeof seen);
    say(terminal, "/clear\n", "a new conversation", "\n> ", seen, sizeof seen);
    /* One question: a line that goes on, and a paste. */
    say(terminal, "one \\\n", "\n", "\n  ", seen, sizeof seen);
    say(terminal, "two\nthree\n\nfour\n", "\n", "\n> ", seen, sizeof seen);
    /* A paste of which the terminal loses a part: nothing of it is asked. */
    static char too_long[5000];
    memset(too_long, 'x', 4500);
    memcpy(too_long + 4500, "\nmore\n", 7);
    say(terminal, too_long, "/read FILE takes longer ones", "\n> ", seen, sizeof seen);
    seen[0] = '\0';
    assert_int_equal(write(terminal, "\x03", 1), 1); /* Ctrl-C at the prompt */
    await(terminal, "Ctrl-D leaves", seen, sizeof seen);
    assert_int_equal(write(terminal, "\x04", 1), 1); /* Ctrl-D */
    await(terminal, "36 generated", seen, sizeof seen);
    while (read(terminal, seen, sizeof seen) > 0) {
    }
    close(terminal);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The program on a terminal of its own, with arguments up to NULL. Where no terminal can be had the
 * test is skipped. */
static pid_t start(int *terminal, const char *const *args) {
    pid_t child = forkpty(terminal, NULL, NULL, NULL);
    if (child < 0) {
        print_message("skipped: no pseudo-terminal can be had here\n");
        skip();
    }
    if (child == 0) {
        alarm(60);
        execv(args[0], (char *const *)args);
        _exit(127);
    }
    return child;
}

/* Reads what is left; the exit code, or minus the signal. */
static int end(pid_t child, int terminal, char *seen, size_t n) {
    size_t used = strlen(seen);
    ssize_t got;
    while ((got = read(terminal, seen + used, n - used - 1)) > 0) {
        used += (size_t)got;
        seen[used] = '\0';
    }
    close(terminal);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void assert_is_json(const char *path) {
    json_error_t fault;
    json_t *root = json_load_file(path, 0, &fault);
    assert_non_null(root);
    json_decref(root);
}

static void test_a_file_that_is_written_in_the_end_is_not_read(void **state) {
    static char seen[1 << 16], read_file[160];
    int terminal;
    (void)state;
    const char *notes = in_directory("notes.txt");
    image_write_bytes(notes, "notes", 5);
    snprintf(read_file, sizeof read_file, "/read %s\n", notes);
    pid_t child = start(&terminal, (const char *[]){ONETRIP_PROGRAM, "run", model, "-c", "64",
                                                    "--report", notes, NULL});
    await(terminal, "> ", seen, sizeof seen);
    say(terminal, read_file, "is the file of --report", "\n> ", seen, sizeof seen);
    seen[0] = '\0';
    assert_int_equal(write(terminal, "/exit \n", 7), 7);
    assert_int_equal(end(child, terminal, seen, sizeof seen), 0);
    assert_is_json(notes);
}

/* In the middle of an answer, or before a question. signal_number 0: the terminal is closed. */
static int end_a_conversation_by(int signal_number, bool answering, const char *report) {
    static char seen[1 << 20];
    int terminal;
    remove(report);
    pid_t child = start(&terminal, (const char *[]){ONETRIP_PROGRAM, "run", model, "--ignore-eos",
                                                    "-c", "500000", "--report", report, NULL});
    seen[0] = '\0';
    await(terminal, "> ", seen, sizeof seen);
    if (answering) {
        say(terminal, "hello\n", "\n", "", seen, sizeof seen);
        usleep(100000);
    }
    if (signal_number != 0) {
        kill(child, signal_number);
        return end(child, terminal, seen, sizeof seen);
    }
    close(terminal);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_sigterm_and_sighup_end_a_conversation_with_its_report(void **state) {
    static const int signals[] = {SIGTERM, SIGHUP};
    (void)state;
    const char *report = in_directory("talk.json");
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(end_a_conversation_by(signals[i / 2], i % 2 == 1, report), 130);
        assert_is_json(report);
    }
    for (size_t i = 0; i < 2; i++) { /* reading and writing may fail before the signal is there */
        assert_true(end_a_conversation_by(0, i == 1, report) >= 0);
        assert_is_json(report);
    }
}

static void test_files_that_are_read_keep_to_the_budget_together(void **state) {
    enum { FILE_BYTES = 400000 }; /* one is less than a 64th of the budget, two are more */
    static char text[FILE_BYTES], seen[1 << 16], read_file[160];
    int terminal;
    (void)state;
    const char *file = in_directory("long.txt");
    memset(text, 'x', sizeof text);
    image_write_bytes(file, text, sizeof text);
    snprintf(read_file, sizeof read_file, "/read %s\n", file);
    pid_t child = start(&terminal, (const char *[]){ONETRIP_PROGRAM, "run", model, "--ram", "48M",
                                                    "-c", "64", "-t", "1", NULL});
    await(terminal, "> ", seen, sizeof seen);
    say(terminal, read_file, "400000 bytes go before", "\n> ", seen, sizeof seen);
    say(terminal, read_file, "longer than 0.8 MB", "\n> ", seen, sizeof seen);
    assert_int_equal(write(terminal, "\x04", 1), 1);
    assert_int_equal(end(child, terminal, seen, sizeof seen), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ctrl_c_sigterm_and_sighup_end_an_answer_with_exit_130),
        cmocka_unit_test(test_a_terminal_without_a_prompt_is_a_conversation),
        cmocka_unit_test(test_a_file_that_is_written_in_the_end_is_not_read),
        cmocka_unit_test(test_sigterm_and_sighup_end_a_conversation_with_its_report),
        cmocka_unit_test(test_files_that_are_read_keep_to_the_budget_together),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
