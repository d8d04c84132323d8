/* test_refused.c - system calls that are refused, as containers, hardened services and old kernels
 * do: the program goes another way to the same text, and says which.
 *
 * A filter of system calls (seccomp) refuses them. It is set up by this program itself, started
 * again by the tests: test_refused --refuse ERRNO CALL,CALL,... PROGRAM ARGUMENTS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/program.h"
#include "support/refuse.h"
#include "support/tiny_model.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZER = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { SANITIZER = 1 };
#else
enum { SANITIZER = 0 };
#endif
#else
enum { SANITIZER = 0 };
#endif

enum { MAX_CALLS = 8, MAX_ARGS = 24, NOT_FILTERED = 126, CALL_CACHESTAT = 451 };

static char directory[64];
static char model[128];
static char *expected; /* what the program answers when nothing is refused */

/* ---- the filter ---- */

/* What main does when it is started by one of the tests. */
static int run_refused(char **args) {
    long calls[MAX_CALLS];
    uint32_t n = 0;
    for (char *call = strtok(args[1], ","); call != NULL && n < MAX_CALLS;
         call = strtok(NULL, ",")) {
        calls[n++] = strtol(call, NULL, 10);
    }
    if (!refuse_calls(atoi(args[0]), calls, n)) {
        return NOT_FILTERED;
    }
    execv(args[2], args + 2);
    return 127;
}

/* ---- helpers ---- */

/* The answer and the report of a run without the calls (ended by -1), with more arguments up to
 * NULL. The text must be the expected one. The report is the caller's. */
static json_t *answer_without(int error, const long *calls, ...) {
    char numbers[MAX_CALLS * 16] = "", error_text[16], report[128];
    for (const long *call = calls; *call >= 0; call++) {
        size_t n = strlen(numbers);
        snprintf(numbers + n, sizeof numbers - n, "%ld,", *call);
    }
    snprintf(error_text, sizeof error_text, "%d", error);
    snprintf(report, sizeof report, "%s/report.json", directory);
    const char *args[MAX_ARGS] = {"/proc/self/exe",
                                  "--refuse",
                                  error_text,
                                  numbers,
                                  ONETRIP_PROGRAM,
                                  "run",
                                  model,
                                  "--raw",
                                  "-p",
                                  "one two",
                                  "-n",
                                  "6",
                                  "--temp",
                                  "0",
                                  "--report",
                                  report};
    size_t n = 16;
    va_list list;
    va_start(list, calls);
    while (n + 1 < MAX_ARGS && (args[n] = va_arg(list, const char *)) != NULL) {
        n++;
    }
    va_end(list);
    struct outcome o = program_run(args, NULL, 0);
    if (o.exit_code == NOT_FILTERED) {
        skip();
    }
    if (o.exit_code != 0 || (expected != NULL && strcmp(o.out, expected) != 0)) {
        fail_msg("calls %s refused with %d: exit code %d, signal %d, answer \"%s\":\n%s", numbers,
                 error, o.exit_code, o.signal, o.out, o.err);
    }
    if (expected == NULL) {
        expected = o.out;
        o.out = NULL;
    }
    outcome_free(&o);
    json_t *root = json_load_file(report, 0, NULL);
    assert_non_null(root);
    return root;
}

static void assert_io(json_t *report, const char *io) {
    json_t *effective = json_object_get(report, "effective");
    assert_string_equal(json_string_value(json_object_get(effective, "io")), io);
    json_decref(report);
}

static const char *const modes[] = {"cache", "wired", "stream"};
static const int errors[] = {EPERM, ENOSYS};

/* Every mode answers the same without the call, refused in either way. */
static void refuse_in_every_mode(long call) {
    for (size_t e = 0; e < 2; e++) {
        for (size_t m = 0; m < 3; m++) {
            long calls[] = {call, -1};
            json_decref(answer_without(errors[e], calls, "--residency", modes[m], NULL));
        }
    }
}

static int make_model(void **state) {
    (void)state;
    image_directory_make(directory);
    snprintf(model, sizeof model, "%s/model.gguf", directory);
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, model);
    long none[] = {-1};
    json_decref(answer_without(0, none, NULL));
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    free(expected);
    image_directory_remove(directory);
    return 0;
}

/* ---- tests ---- */

static void test_where_io_uring_is_refused_threads_read_the_same(void **state) {
    (void)state;
    const long calls[] = {SYS_io_uring_setup, SYS_io_uring_register, SYS_io_uring_enter};
    for (size_t e = 0; e < 2; e++) {
        for (size_t c = 0; c < 3; c++) {
            for (size_t m = 1; m < 3; m++) { /* wired, stream */
                long one[] = {calls[c], -1};
                json_t *report = answer_without(errors[e], one, "--residency", modes[m], NULL);
                assert_io(report, "threads direct");
            }
        }
    }
}

static void test_where_direct_reads_are_not_to_be_had_all_ways_read_the_same(void **state) {
    (void)state;
    char in_memory[] = "/dev/shm/test-refused-XXXXXX";
    struct statfs fs;
    int fd = mkstemp(in_memory);
    if (fd < 0 || fstatfs(fd, &fs) != 0 || fs.f_type != 0x01021994) {
        skip();
    }
    close(fd);
    char on_disk[128];
    snprintf(on_disk, sizeof on_disk, "%s", model);
    snprintf(model, sizeof model, "%s", in_memory);
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, model);
    long none[] = {-1}, setup[] = {SYS_io_uring_setup, -1};
    for (size_t m = 1; m < 3; m++) {
        assert_io(answer_without(0, none, "--residency", modes[m], NULL),
                  "io_uring buffered, page cache dropped behind");
        assert_io(answer_without(EPERM, setup, "--residency", modes[m], NULL),
                  "threads buffered, page cache dropped behind");
        assert_io(answer_without(0, none, "--residency", modes[m], "--io", "threads", NULL),
                  "threads buffered, page cache dropped behind");
    }
    assert_io(answer_without(0, none, "--residency", "cache", NULL), "mmap");
    unlink(model);
    snprintf(model, sizeof model, "%s", on_disk);
}

static void test_advice_about_memory_and_files_may_be_refused(void **state) {
    (void)state;
    refuse_in_every_mode(SYS_madvise);
    refuse_in_every_mode(SYS_fadvise64);
    refuse_in_every_mode(SYS_mlock2);
}

static void test_questions_about_the_machine_may_be_refused(void **state) {
    (void)state;
    refuse_in_every_mode(SYS_mincore);
    refuse_in_every_mode(CALL_CACHESTAT);
    refuse_in_every_mode(SYS_statx);
    refuse_in_every_mode(SYS_getrusage);
    if (!SANITIZER) { /* its runtime asks for these itself, and insists */
        refuse_in_every_mode(SYS_sched_getaffinity);
        refuse_in_every_mode(SYS_prlimit64);
    }
}

static void test_one_thread_needs_no_other(void **state) {
    (void)state;
    if (SANITIZER) { /* looking for leaks takes a process of its own */
        skip();
    }
#ifdef SYS_clone
    long calls[] = {SYS_clone3, SYS_clone, -1};
    for (size_t m = 0; m < 3; m++) {
        json_decref(answer_without(EAGAIN, calls, "-t", "1", "--residency", modes[m], NULL));
        json_t *report = answer_without(EAGAIN, calls, "-t", "1", "--residency", modes[m], "--io",
                                        "threads", NULL);
        assert_io(report, m == 0 ? "mmap" : "threads direct");
    }
#endif
}

int main(int argc, char **argv) {
    if (argc > 4 && strcmp(argv[1], "--refuse") == 0) {
        return run_refused(argv + 2);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_io_uring_is_refused_threads_read_the_same),
        cmocka_unit_test(test_where_direct_reads_are_not_to_be_had_all_ways_read_the_same),
        cmocka_unit_test(test_advice_about_memory_and_files_may_be_refused),
        cmocka_unit_test(test_questions_about_the_machine_may_be_refused),
        cmocka_unit_test(test_one_thread_needs_no_other),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
