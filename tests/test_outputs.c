/* test_outputs.c - the files that the program writes: what is there stays, or is replaced by a file
 * that is whole, and what cost work is not lost where that fails. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "support/refuse.h"
#include "sys/file.h"

static int rename_error; /* errno that renaming fails with; 0: it does not */

/* In the place of the C library's, which this program does not call. */
int rename(const char *from, const char *to) {
    if (rename_error != 0) {
        errno = rename_error;
        return -1;
    }
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static void assert_holds(const char *path, const char *words) {
    char text[16384];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_says(text, words);
}

static bool is_link(const char *path) {
    struct stat facts;
    return lstat(path, &facts) == 0 && S_ISLNK(facts.st_mode);
}

static void test_a_file_that_cannot_take_its_name_stays_and_is_named(void **state) {
    (void)state;
    const char *path = in_directory("kept.json");
    struct ot_error err;
    assert_int_equal(sys_file_write(path, "old", 3, &err), 0);
    rename_error = EBUSY;
    assert_int_equal(sys_file_write(path, "new and whole", 13, &err), OT_ERR_IO);
    rename_error = 0;
    assert_int_equal(err.sys_errno, EBUSY);
    assert_says(err.message, "all is in ");
    char *temporary = strstr(err.message, "all is in ") + strlen("all is in ");
    temporary[strcspn(temporary, ":")] = '\0';
    assert_true(strncmp(temporary, path, strlen(path)) == 0);
    assert_holds(path, "old");
    assert_holds(temporary, "new and whole");
    assert_int_equal(unlink(temporary), 0);
}

enum { WRITERS = 4, WRITES = 40, LONGEST = 5000 };

/* Writes texts of one letter, of several lengths. */
static void *write_again_and_again(void *arg) {
    static const char letters[] = "abcd";
    static _Atomic uint32_t n_writers;
    const char *path = arg;
    char text[LONGEST];
    struct ot_error err;
    memset(text, letters[atomic_fetch_add(&n_writers, 1) % WRITERS], sizeof text);
    intptr_t n_failed = 0;
    for (uint32_t i = 0; i < WRITES; i++) {
        n_failed += sys_file_write(path, text, 1 + i * 997 % LONGEST, &err) != 0;
    }
    return (void *)n_failed;
}

/* Also of processes with the same number, as in containers. */
static void test_writers_of_one_file_leave_it_whole_and_nothing_else(void **state) {
    (void)state;
    assert_int_equal(mkdir(in_directory("same"), 0700), 0);
    char path[160], text[LONGEST + 1];
    snprintf(path, sizeof path, "%s", in_directory("same/file"));
    pthread_t threads[WRITERS];
    for (uint32_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_again_and_again, path), 0);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        void *n_failed;
        assert_int_equal(pthread_join(threads[i], &n_failed), 0);
        assert_null(n_failed);
    }
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text, file);
    fclose(file);
    assert_true(n > 0);
    for (size_t i = 1; i < n; i++) {
        assert_int_equal(text[i], text[0]);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(in_directory("same")), 0); /* it is empty */
}

/* Runs the program in the folder, by the shell; the exit code. */
static int in_shell(const char *arguments) {
    char command[1024];
    snprintf(command, sizeof command, "cd %s && %s %s", directory, ONETRIP_PROGRAM, arguments);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Each kind of output, to a link; and how it begins. */
static const char *const to_link[] = {
    "run tiny.gguf -p x -n 1 -q --report link >/dev/null",
    "run tiny.gguf -p x -n 1 -q --ledger link >/dev/null",
    "run tiny.gguf -p x -n 1 -q --trace link >/dev/null",
    "eval tiny.gguf --ids ids -q --logits link >/dev/null",
};
static const char *const begins[] = {"{", "{\"tensor\"", "onetrip-trace", "NUMPY"};

static void test_a_link_stays_and_what_it_leads_to_is_written(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof to_link / sizeof to_link[0]; i++) {
        struct ot_error err;
        assert_int_equal(sys_file_write(in_directory("file"), "old", 3, &err), 0);
        assert_int_equal(symlink("file", in_directory("link")), 0);
        FILE *ids = fopen(in_directory("ids"), "w");
        assert_non_null(ids);
        fputs("[1, 2]", ids);
        fclose(ids);
        assert_int_equal(in_shell(to_link[i]), 0);
        assert_true(is_link(in_directory("link")));
        assert_holds(in_directory("file"), begins[i]);
        assert_int_equal(unlink(in_directory("link")), 0);
    }
}

/* Those of a secret, and those that the umask would take. */
static void test_what_is_replaced_keeps_its_rights(void **state) {
    (void)state;
    static const char *const commands[] = {
        "run tiny.gguf -p x -n 1 -q --report rights >/dev/null",
        "run tiny.gguf -p x -n 1 -q --ledger rights >/dev/null",
        "eval tiny.gguf --ids ids -q --logits rights >/dev/null",
    };
    static const mode_t rights[] = {0600, 0666, 0640};
    image_write_bytes(in_directory("ids"), "[1, 2]", 6);
    for (size_t i = 0; i < 9; i++) {
        struct stat facts;
        image_write_bytes(in_directory("rights"), "old", 3);
        assert_int_equal(chmod(in_directory("rights"), rights[i % 3]), 0);
        assert_int_equal(in_shell(commands[i / 3]), 0);
        assert_int_equal(stat(in_directory("rights"), &facts), 0);
        assert_true(facts.st_size > 3);
        assert_int_equal(facts.st_mode & 0777, rights[i % 3]);
    }
}

static void test_new_files_have_the_rights_that_the_umask_leaves(void **state) {
    (void)state;
    static const char *const commands[] = {
        "run tiny.gguf -p x -n 1 -q --report fresh >/dev/null",
        "run tiny.gguf -p x -n 1 -q --ledger fresh >/dev/null",
        "run tiny.gguf -p x -n 1 -q --trace fresh >/dev/null",
        "eval tiny.gguf --ids ids -q --logits fresh >/dev/null",
    };
    static const mode_t masks[] = {0, 002, 022, 077};
    image_write_bytes(in_directory("ids"), "[1, 2]", 6);
    for (size_t i = 0; i < 16; i++) {
        struct stat facts;
        mode_t before = umask(masks[i % 4]);
        assert_int_equal(in_shell(commands[i / 4]), 0);
        umask(before);
        assert_int_equal(stat(in_directory("fresh"), &facts), 0);
        assert_int_equal(facts.st_mode & 0777, 0666 & ~masks[i % 4]);
        assert_int_equal(unlink(in_directory("fresh")), 0);
    }
}

static void test_standard_input_is_not_written_over(void **state) {
    (void)state;
    static const char *const commands[] = {
        "run tiny.gguf --raw -n 1 -q --report asked <asked >out 2>err",
        "run tiny.gguf --raw -n 1 -q --ledger link <asked >out 2>err",
        "run tiny.gguf --raw -n 1 -q --trace asked <asked >out 2>err",
        "eval tiny.gguf -q --logits /dev/stdin <asked >out 2>err",
        "eval tiny.gguf --ids - -q --logits asked <asked >out 2>err",
    };
    image_write_bytes(in_directory("asked"), "[1, 2]", 6);
    assert_int_equal(symlink("asked", in_directory("link")), 0);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        assert_int_equal(in_shell(commands[i]), 1);
        assert_holds(in_directory("err"), "is standard input, and is not written over\n");
        assert_holds(in_directory("asked"), "[1, 2]");
    }
    /* what the shell opened for both is the caller's business, and is not replaced */
    assert_int_equal(in_shell("eval tiny.gguf --ids - -q --report /dev/stdout <asked 1<>asked"), 0);
    assert_int_equal(unlink(in_directory("link")), 0);
}

/* Files that are not there yet, of one name in one folder, whatever leads to it. */
static void test_one_new_file_of_two_names_is_noticed_before_the_work(void **state) {
    (void)state;
    char whole[96];
    snprintf(whole, sizeof whole, "/%s//x.json", directory);
    const char *const other[] = {"./x.json", "here/x.json", "sub/../x.json", whole, "pointing"};
    assert_int_equal(mkdir(in_directory("sub"), 0700), 0);
    assert_int_equal(symlink(".", in_directory("here")), 0);
    assert_int_equal(symlink("here/./x.json", in_directory("pointing")), 0);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        char command[512];
        struct stat facts;
        snprintf(command, sizeof command,
                 "run tiny.gguf --raw -p x -n 1 -q --report x.json --ledger %s 2>err", other[i]);
        assert_int_equal(in_shell(command), 2);
        assert_holds(in_directory("err"), "is the file of --report, too\n");
        assert_int_equal(stat(in_directory("x.json"), &facts), -1);
    }
    assert_int_equal(
        in_shell("run tiny.gguf --raw -p x -n 1 -q --report x.json --ledger sub/x.json"), 0);
    assert_int_equal(unlink(in_directory("x.json")), 0);
    assert_int_equal(unlink(in_directory("sub/x.json")), 0);
    assert_int_equal(rmdir(in_directory("sub")), 0);
}

/* In containers on one volume, another process has our number; and where the kernel has no random
 * numbers to give, the same name comes to its mind. */
static void test_a_file_with_our_number_in_its_name_may_be_somebody_elses(void **state) {
    (void)state;
    assert_int_equal(mkdir(in_directory("box"), 0700), 0);
    image_write_bytes(in_directory("ids"), "[1, 2]", 6);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const long calls[] = {SYS_getrandom};
        char theirs[128];
        snprintf(theirs, sizeof theirs, "%s/box/x.npy.%ld-0.part", directory, (long)getpid());
        image_write_bytes(theirs, "theirs", 6);
        if (freopen("/dev/null", "w", stdout) != NULL && refuse_calls(ENOSYS, calls, 1)) {
            execl(ONETRIP_PROGRAM, "onetrip", "eval", model, "--ids", in_directory("ids"), "-q",
                  "--logits", in_directory("box/x.npy"), NULL);
        }
        _exit(77);
    }
    int status = 0;
    char name[48];
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    snprintf(name, sizeof name, "box/x.npy.%ld-0.part", (long)child);
    assert_holds(in_directory(name), "theirs");
    assert_int_equal(unlink(in_directory(name)), 0);
    if (WEXITSTATUS(status) != 77) { /* calls can be refused here */
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_holds(in_directory("box/x.npy"), "NUMPY");
        assert_int_equal(unlink(in_directory("box/x.npy")), 0);
    }
    assert_int_equal(rmdir(in_directory("box")), 0); /* it is empty */
}

static void test_a_folder_that_was_deleted_is_told_before_the_work(void **state) {
    (void)state;
    static const char *const options[] = {"--report", "--ledger", "--trace"};
    for (size_t i = 0; i < 3; i++) {
        char command[512];
        struct stat facts;
        snprintf(command, sizeof command,
                 "cd %s && mkdir gone && cd gone && rmdir ../gone && "
                 "exec %s run %s -p x -n 1 -q %s new >%s 2>%s",
                 directory, ONETRIP_PROGRAM, model, options[i], in_directory("out"),
                 in_directory("err"));
        assert_int_equal(WEXITSTATUS(system(command)), 1);
        assert_holds(in_directory("err"), "new: cannot be written: No such file");
        assert_int_equal(stat(in_directory("out"), &facts), 0);
        assert_int_equal(facts.st_size, 0);
    }
}

/* Links to files that are not there yet, the last by way of another link and folder. */
static void test_what_a_link_leads_to_is_made_where_it_is_not_there(void **state) {
    (void)state;
    assert_int_equal(mkdir(in_directory("folder"), 0700), 0);
    assert_int_equal(symlink("new", in_directory("folder/link")), 0);
    assert_int_equal(symlink("folder/link", in_directory("link")), 0);
    struct ot_error err;
    for (size_t i = 0; i < sizeof to_link / sizeof to_link[0]; i++) {
        assert_int_equal(sys_file_write(in_directory("ids"), "[1, 2]", 6, &err), 0);
        assert_int_equal(in_shell(to_link[i]), 0);
        assert_true(is_link(in_directory("link")) && is_link(in_directory("folder/link")));
        assert_holds(in_directory("folder/new"), begins[i]);
        assert_int_equal(unlink(in_directory("folder/new")), 0);
    }
    assert_int_equal(
        in_shell("run tiny.gguf -p x -n 1 -q --report link --ledger folder/new >/dev/null 2>&1"),
        2);
    assert_int_equal(unlink(in_directory("folder/link")), 0);
    assert_int_equal(symlink("/nowhere/file", in_directory("folder/link")), 0);
    assert_int_equal(in_shell("run tiny.gguf -p x -n 1 -q --report link >out 2>&1"), 1);
    assert_holds(in_directory("out"), "No such file");
    /* a link to itself leads nowhere */
    assert_int_equal(unlink(in_directory("folder/link")), 0);
    assert_int_equal(symlink("link", in_directory("folder/link")), 0);
    assert_int_equal(in_shell("run tiny.gguf -p x -n 1 -q --report link >out 2>&1"), 1);
    assert_int_equal(sys_file_write(in_directory("link"), "x", 1, &err), OT_ERR_IO);
    assert_int_equal(err.sys_errno, ELOOP);
    assert_true(is_link(in_directory("link")) && is_link(in_directory("folder/link")));
    assert_int_equal(unlink(in_directory("link")), 0);
}

/* As /dev/stdout is: a link to what the shell opened, here a file. The answer stays in it, the link
 * is not replaced. */
static void test_standard_output_can_be_named_also_where_it_is_a_file(void **state) {
    (void)state;
    assert_int_equal(symlink("/proc/self/fd/1", in_directory("stdout")), 0);
    static const char *const options[] = {"--report", "--ledger", "--trace"};
    static const char *const words[] = {"\"program\"", "\"tensor\"", "onetrip-trace 1\n"};
    for (size_t i = 0; i < 3; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "run tiny.gguf --raw -p x -n 8 --temp 0 --ignore-eos -q >answer");
        assert_int_equal(in_shell(arguments), 0);
        snprintf(arguments, sizeof arguments,
                 "run tiny.gguf --raw -p x -n 8 --temp 0 --ignore-eos -q %s stdout >both",
                 options[i]);
        assert_int_equal(in_shell(arguments), 0);
        assert_true(is_link(in_directory("stdout")));
        char answer[256];
        FILE *file = fopen(in_directory("answer"), "r");
        assert_non_null(file);
        size_t n = fread(answer, 1, sizeof answer - 1, file);
        answer[n] = '\0';
        fclose(file);
        assert_true(n > 1 && strlen(answer) == n);
        if (i < 2) { /* a trace comes while the answer does, between its words */
            assert_holds(in_directory("both"), answer);
        }
        assert_holds(in_directory("both"), words[i]);
    }
    assert_int_equal(in_shell("run tiny.gguf -p x -n 1 -q --report stdout --ledger stdout >both"),
                     0);
    assert_holds(in_directory("both"), words[0]);
    assert_holds(in_directory("both"), words[1]);
}

enum { SKIPPED = 77 };

/* In a name space of its own, with a file mounted over `mount`: 0, a fault's number, or SKIPPED. */
static int with_a_mount_point(const char *arguments) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (chdir(directory) != 0 ||
            (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
            mount("", "/", "", MS_REC | MS_PRIVATE, "") != 0 ||
            mount("mount", "mount", "", MS_BIND, "") != 0) {
            _exit(SKIPPED);
        }
        _exit(in_shell(arguments));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_a_mount_point_is_refused_before_the_work(void **state) {
    (void)state;
    struct ot_error err;
    assert_int_equal(sys_file_write(in_directory("mount"), "old", 3, &err), 0);
    static const char *const options[] = {"--report", "--ledger"};
    for (size_t i = 0; i < 2; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "run tiny.gguf -p x -n 1 -q %s mount >out 2>err",
                 options[i]);
        int code = with_a_mount_point(arguments);
        if (code == SKIPPED) {
            skip();
        }
        assert_int_equal(code, 1);
        assert_holds(in_directory("err"), "mount point");
        struct stat facts;
        assert_int_equal(stat(in_directory("out"), &facts), 0);
        assert_int_equal(facts.st_size, 0);
        assert_holds(in_directory("mount"), "old");
    }
    /* a trace is written in place */
    assert_int_equal(
        with_a_mount_point("run tiny.gguf -p x -n 1 -q --trace mount >/dev/null 2>err"), 0);
    assert_holds(in_directory("mount"), "onetrip-trace");
}

/* Else the page cache of a text's logits, which are many times the model, would fill what a memory
 * budget, and a control group of its size, leaves. */
static void test_logits_are_not_kept_in_the_page_cache(void **state) {
    (void)state;
    enum { N_VOCAB = 8192, N_IDS = 256, KEPT_MOST = 2 << 20 };
    struct tiny_model wide;
    struct statfs where;
    tiny_model_defaults(&wide, TINY_LLAMA, OT_Q8_0, 1);
    wide.n_vocab = N_VOCAB;
    const char *path = in_directory("wide.gguf"), *ids = in_directory("ids");
    const char *npy = in_directory("x.npy");
    tiny_model_write(&wide, path);
    FILE *file = fopen(ids, "w");
    assert_non_null(file);
    for (uint32_t i = 0; i < N_IDS; i++) {
        fprintf(file, "%c%u", i == 0 ? '[' : ',', 3 + i * 7 % 200);
    }
    fputc(']', file);
    fclose(file);
    struct outcome o = onetrip(NULL, "eval", path, "--ids", ids, "--logits", npy, "-q", NULL);
    assert_exit(&o, 0);
    outcome_free(&o);
    struct sys_file written;
    struct ot_error err;
    assert_int_equal(sys_file_open(&written, npy, &err), 0);
    assert_true(written.bytes > (uint64_t)N_VOCAB * N_IDS * sizeof(float));
    assert_int_equal(statfs(npy, &where), 0);
    if (where.f_type != TMPFS_MAGIC) { /* which is in memory, and nowhere else */
        assert_true(sys_file_cached_bytes(&written) <= KEPT_MOST);
    }
    sys_file_close(&written);
    assert_int_equal(unlink(npy), 0);
    assert_int_equal(unlink(ids), 0);
    assert_int_equal(unlink(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_are_not_kept_in_the_page_cache),
        cmocka_unit_test(test_a_file_that_cannot_take_its_name_stays_and_is_named),
        cmocka_unit_test(test_writers_of_one_file_leave_it_whole_and_nothing_else),
        cmocka_unit_test(test_a_link_stays_and_what_it_leads_to_is_written),
        cmocka_unit_test(test_what_is_replaced_keeps_its_rights),
        cmocka_unit_test(test_new_files_have_the_rights_that_the_umask_leaves),
        cmocka_unit_test(test_standard_input_is_not_written_over),
        cmocka_unit_test(test_one_new_file_of_two_names_is_noticed_before_the_work),
        cmocka_unit_test(test_a_file_with_our_number_in_its_name_may_be_somebody_elses),
        cmocka_unit_test(test_a_folder_that_was_deleted_is_told_before_the_work),
        cmocka_unit_test(test_what_a_link_leads_to_is_made_where_it_is_not_there),
        cmocka_unit_test(test_standard_output_can_be_named_also_where_it_is_a_file),
        cmocka_unit_test(test_a_mount_point_is_refused_before_the_work),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
