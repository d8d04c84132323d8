/* test_cli_signals.c - signals to commands that nobody talks to: no file is left behind, and who
 * waits for a pipe can be stopped. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli_fixture.h"

static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Starts the program in the folder, by the shell, which it replaces. */
static pid_t start(const char *arguments) {
    char command[1024];
    snprintf(command, sizeof command, "cd %s && exec %s %s", directory, ONETRIP_PROGRAM, arguments);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

/* The exit code, or minus the signal. */
static int end(pid_t child) {
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Whether the folder has a file whose name contains these words, of least_bytes. */
static bool has_file(const char *words, off_t least_bytes) {
    bool found = false;
    DIR *folder = opendir(directory);
    assert_non_null(folder);
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        struct stat facts;
        found |= strstr(e->d_name, words) != NULL &&
                 fstatat(dirfd(folder), e->d_name, &facts, 0) == 0 && facts.st_size >= least_bytes;
    }
    closedir(folder);
    return found;
}

/* Until something is in it: whether files can be made is tried before the work. */
static void await_file(const char *words) {
    bool found = false;
    for (int i = 0; i < 30000 && !(found = has_file(words, 1)); i++) {
        sleep_ms(1);
    }
    assert_true(found);
}

static void write_ids(const char *path, uint32_t n) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (uint32_t i = 0; i < n; i++) {
        fprintf(file, "%s%u", i == 0 ? "[" : ",", i % 200);
    }
    fputs("]", file);
    fclose(file);
}

static void test_logits_that_are_not_whole_are_deleted(void **state) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    (void)state;
    write_ids(in_directory("ids"), 200000);
    for (size_t i = 0; i < 3; i++) {
        pid_t child = start("eval tiny.gguf --ids ids -q --logits x.npy >out 2>err");
        await_file(".part");
        kill(child, signals[i]);
        assert_int_equal(end(child), 130);
        assert_false(has_file("x.npy", 0));
    }
}

static void test_who_does_not_read_the_answer_does_not_hold_up_a_signal(void **state) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        int out[2], before = 0, now = 0;
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        assert_true(fcntl(out[1], F_SETPIPE_SZ, 4096) >= 4096);
        char arguments[160];
        snprintf(arguments, sizeof arguments,
                 "run tiny.gguf --raw -p x --ignore-eos -c 500000 -q >/proc/%ld/fd/%d 2>err",
                 (long)getpid(), out[1]);
        pid_t child = start(arguments);
        do { /* until nothing more goes in */
            before = now;
            sleep_ms(100);
            assert_int_equal(ioctl(out[0], FIONREAD, &now), 0);
        } while (now == 0 || now != before);
        kill(child, signals[i]);
        assert_int_equal(end(child), 130);
        assert_false(has_file("err", 1));
        close(out[0]);
        close(out[1]);
    }
}

/* What the system tells of the process; false: nothing. */
static bool read_of(pid_t child, const char *name, char *text, size_t n) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", (long)child, name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    text[fread(text, 1, n - 1, file)] = '\0';
    fclose(file);
    return true;
}

/* Until the program, no longer the shell, answers signals itself. */
static void await_watch(pid_t child) {
    static char text[8192];
    unsigned long long caught = 0;
    for (int i = 0; i < 30000 && (caught >> (SIGHUP - 1) & 1) == 0; i++) {
        sleep_ms(1);
        assert_true(read_of(child, "status", text, sizeof text));
        const char *line = strstr(text, "SigCgt:");
        assert_non_null(line);
        caught = strtoull(line + strlen("SigCgt:"), NULL, 16);
    }
    assert_true((caught >> (SIGHUP - 1) & 1) != 0);
}

/* Until it waits for the other end of a pipe; where that cannot be seen, long enough. */
static void await_waiting(pid_t child) {
    char where[64] = "";
    for (int i = 0; i < 500 && strstr(where, "wait_for_partner") == NULL; i++) {
        sleep_ms(1);
        assert_true(read_of(child, "wchan", where, sizeof where));
    }
}

static void test_who_waits_for_the_other_end_of_a_pipe_can_be_stopped(void **state) {
    static const char *const commands[] = {
        "run tiny.gguf --raw -f pipe -n 1 -q >out 2>err",
        "run tiny.gguf --raw -p x -n 1 -q --report pipe >out 2>err",
        "run tiny.gguf --raw -p x -n 1 -q --ledger pipe >out 2>err",
        "run tiny.gguf --raw -p x -n 1 -q --trace pipe >out 2>err",
        "eval tiny.gguf -p x -q --logits pipe >out 2>err",
        "eval tiny.gguf --ids pipe -q >out 2>err",
    };
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    (void)state;
    assert_int_equal(mkfifo(in_directory("pipe"), 0600), 0);
    for (size_t i = 0; i < 18; i++) {
        pid_t child = start(commands[i / 3]);
        await_watch(child);
        await_waiting(child);
        kill(child, signals[i % 3]);
        assert_int_equal(end(child), 130);
        assert_false(has_file("err", 1));
    }
    assert_int_equal(unlink(in_directory("pipe")), 0);
}

static void test_measuring_the_disk_can_be_stopped(void **state) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    (void)state;
    uint64_t ram = write_model_over_budget(in_directory("wide.gguf"));
    char arguments[160];
    /* the disk between repetitions of one token each, for hours */
    snprintf(arguments, sizeof arguments,
             "bench wide.gguf -p 0 -n 1 -r 10000 --json --ram %llu >out 2>err",
             (unsigned long long)ram);
    for (size_t i = 0; i < 3; i++) {
        pid_t child = start(arguments);
        await_watch(child); /* before it measures, or while it does */
        kill(child, signals[i]);
        assert_int_equal(end(child), 130);
        assert_false(has_file("out", 1) || has_file("err", 1));
    }
}

static void await_text(const char *name, const char *words) {
    static char text[1 << 20];
    bool found = false;
    for (int i = 0; i < 10000 && !found; i++, sleep_ms(3)) {
        FILE *file = fopen(in_directory(name), "r");
        size_t n = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
        if (file != NULL) {
            fclose(file);
        }
        text[n] = '\0';
        found = strstr(text, words) != NULL;
    }
    assert_true(found);
}

/* What was measured before a signal is in the report; of eval, what moved. */
static void test_who_stops_a_measurement_keeps_what_there_is(void **state) {
    (void)state;
    assert_true(remove(in_directory("out")) == 0 || errno == ENOENT);
    pid_t child = start("bench tiny.gguf -p 4 -n 60000 -r 2 --report r.json >out");
    await_text("out", "pp4");
    kill(child, SIGINT);
    assert_int_equal(end(child), 130);
    await_text("r.json", "\"pp4\"");
    assert_int_equal(unlink(in_directory("r.json")), 0);
    FILE *text = fopen(in_directory("long.txt"), "w");
    assert_non_null(text);
    for (int i = 0; i < 50000; i++) {
        fputs("some text ", text);
    }
    assert_int_equal(fclose(text), 0);
    child = start("eval tiny.gguf -f long.txt -q --report r.json --trace eval.trace >out");
    await_file("eval.trace");
    kill(child, SIGTERM);
    assert_int_equal(end(child), 130);
    assert_true(has_file("r.json", 1));
    assert_int_equal(unlink(in_directory("r.json")), 0);
    assert_int_equal(unlink(in_directory("long.txt")), 0);
}

/* As of a terminal that is closed: the shell and the kernel send one each, and a service manager
 * sends SIGTERM before it. */
static void test_sighup_that_comes_again_does_not_kill(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_true(remove(in_directory("out")) == 0 || errno == ENOENT);
        pid_t child =
            start("run tiny.gguf --raw -p x --ignore-eos -c 500000 --report r.json -q >out");
        await_file("out");
        kill(child, i == 0 ? SIGHUP : SIGTERM);
        sleep_ms(1);
        kill(child, SIGHUP);
        assert_int_equal(end(child), 130);
        assert_true(has_file("r.json", 1));
        assert_int_equal(unlink(in_directory("r.json")), 0);
    }
}

/* By nohup SIGHUP is, and by a shell without job control SIGINT in the background. */
static void test_what_is_ignored_stays_ignored(void **state) {
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < 3; i++) {
        signal(signals[i], SIG_IGN); /* is inherited */
        assert_true(remove(in_directory("out")) == 0 || errno == ENOENT);
        pid_t child = start("run tiny.gguf --raw -p x --ignore-eos -n 2000 -c 2100 -q >out");
        await_file("out");
        kill(child, signals[i]);
        assert_int_equal(end(child), 0);
        signal(signals[i], SIG_DFL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_that_are_not_whole_are_deleted),
        cmocka_unit_test(test_who_does_not_read_the_answer_does_not_hold_up_a_signal),
        cmocka_unit_test(test_who_waits_for_the_other_end_of_a_pipe_can_be_stopped),
        cmocka_unit_test(test_measuring_the_disk_can_be_stopped),
        cmocka_unit_test(test_who_stops_a_measurement_keeps_what_there_is),
        cmocka_unit_test(test_sighup_that_comes_again_does_not_kill),
        cmocka_unit_test(test_what_is_ignored_stays_ignored),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
