/* test_sys.c - files, mappings, memory, readers, and limits in control groups of any layout. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "support/refuse.h"
#include "sys/facts.h"
#include "sys/file.h"
#include "sys/limits.h"
#include "sys/memory.h"
#include "sys/output.h"
#include "sys/reader.h"

enum { FILE_BYTES = 3 * 1024 * 1024 + 777 };

static char path[128];
static uint8_t content[FILE_BYTES];

static void write_content(void) {
    snprintf(path, sizeof path, "./sys-%ld.bin", (long)getpid());
    for (uint32_t i = 0; i < FILE_BYTES; i++) {
        content[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    struct ot_error err;
    assert_int_equal(sys_file_write(path, content, FILE_BYTES, &err), 0);
}

static int setup(void **state) {
    (void)state;
    write_content();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

/* ---- files ---- */

static void test_only_regular_files_are_opened_and_nothing_blocks(void **state) {
    (void)state;
    struct sys_file f;
    struct ot_error err;
    char fifo[160];
    snprintf(fifo, sizeof fifo, "%s.fifo", path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(sys_file_open(&f, fifo, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a FIFO"));
    unlink(fifo);
    assert_int_equal(sys_file_open(&f, ".", &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "a directory"));
    assert_int_equal(sys_file_open(&f, "/dev/zero", &err), OT_ERR_FORMAT);
    assert_int_equal(sys_file_open(&f, "./no such file", &err), OT_ERR_IO);
    assert_int_equal(err.sys_errno, ENOENT);
}

static void test_reads_carry_on_and_say_where_a_file_ends(void **state) {
    (void)state;
    struct sys_file f;
    struct ot_error err;
    uint8_t buf[5000];
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(f.bytes, FILE_BYTES);
    sys_fail_reads(1, 3, -1); /* three partial reads in a row */
    assert_int_equal(sys_file_read(&f, 1234, buf, sizeof buf, &err), 0);
    assert_memory_equal(buf, content + 1234, sizeof buf);
    sys_fail_reads(1, 2, EINTR);
    assert_int_equal(sys_file_read(&f, 99, buf, sizeof buf, &err), 0);
    sys_fail_reads(1, 1, EIO);
    assert_int_equal(sys_file_read(&f, 99, buf, sizeof buf, &err), OT_ERR_IO);
    assert_int_equal(err.sys_errno, EIO);
    sys_fail_reads(0, 0, 0);
    assert_int_equal(sys_file_read(&f, FILE_BYTES - 10, buf, 11, &err), OT_ERR_CHANGED);
    assert_int_equal(sys_file_read(&f, FILE_BYTES - 10, buf, 10, &err), 0);
    sys_file_close(&f);
}

static void test_a_changed_file_is_noticed(void **state) {
    (void)state;
    struct sys_file f;
    struct ot_error err;
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(sys_file_check(&f, &err), 0);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(sys_file_check(&f, &err), OT_ERR_CHANGED);
    sys_file_close(&f);
    write_content();
}

static void test_a_write_that_fails_leaves_the_old_file(void **state) {
    (void)state;
    struct ot_error err;
    assert_int_equal(sys_file_write("./no such directory/x", "a", 1, &err), OT_ERR_IO);
    char *data;
    uint64_t bytes;
    assert_int_equal(sys_file_write(path, "short", 5, &err), 0);
    assert_int_equal(sys_file_slurp(path, 100, &data, &bytes, &err), 0);
    assert_int_equal(bytes, 5);
    assert_string_equal(data, "short");
    mem_free(data);
    assert_int_equal(sys_file_slurp(path, 4, &data, &bytes, &err), OT_ERR_FORMAT);
    assert_int_equal(sys_file_slurp(".", 100, &data, &bytes, &err), OT_ERR_FORMAT);
    sys_fail_reads(1, 1, EIO);
    assert_int_equal(sys_file_slurp(path, 100, &data, &bytes, &err), OT_ERR_IO);
    sys_fail_reads(0, 0, 0);
    write_content();
}

static void test_the_page_cache_is_asked_about_ranges(void **state) {
    (void)state;
    struct sys_file f;
    struct ot_error err;
    static uint8_t all[FILE_BYTES];
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(sys_file_read(&f, 0, all, FILE_BYTES, &err), 0);
    assert_int_equal(sys_file_cached_bytes(&f), FILE_BYTES);
    assert_int_equal(sys_file_cached_range(&f, 4096 + 1, 4096), 2 * 4096);
    assert_int_equal(sys_file_cached_range(&f, FILE_BYTES + 1, 4096), 0);
    sys_file_close(&f);
}

/* ---- mappings ---- */

static void test_a_mapping_ends_in_readable_bytes(void **state) {
    (void)state;
    const uint64_t sizes[] = {0, 1, 4095, 4096, 8192, FILE_BYTES};
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sys_file f;
        struct sys_map m;
        struct ot_error err;
        assert_int_equal(sys_file_write(path, content, sizes[i], &err), 0);
        assert_int_equal(sys_file_open(&f, path, &err), 0);
        assert_int_equal(sys_map_open(&m, &f, &err), 0);
        assert_memory_equal(m.data, content, sizes[i]);
        uint8_t beyond = 0;
        for (uint32_t k = 0; k < SYS_MAP_TAIL; k++) {
            beyond |= ((const volatile uint8_t *)m.data)[sizes[i] + k];
        }
        assert_int_equal(beyond, 0);
        sys_map_close(&m);
        sys_file_close(&f);
    }
    write_content();
}

static void test_a_page_that_the_file_lost_reads_as_zeros_and_is_told(void **state) {
    (void)state;
    struct sys_file f;
    struct sys_map m, other;
    struct ot_error err;
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(sys_map_open(&m, &f, &err), 0);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(((const volatile uint8_t *)m.data)[2000000], 0);
    assert_int_equal(((const volatile uint8_t *)m.data)[1000], content[1000]);
    assert_true(sys_map_damaged(&m));
    assert_int_equal(sys_map_fault(&f, &err), OT_ERR_CHANGED);
    assert_false(sys_map_populate(&m, 1000000, 4096));
    assert_int_equal(errno, EIO);
    /* Where the file is as it was, it is the disk. */
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                      {.tv_sec = (time_t)(f.mtime_ns / 1000000000u),
                                       .tv_nsec = (long)(f.mtime_ns % 1000000000u)}};
    assert_int_equal(truncate(path, FILE_BYTES), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(sys_map_fault(&f, &err), OT_ERR_IO);
    assert_int_equal(truncate(path, 5000), 0);
    /* The next mapping in the same place of the table starts without damage. */
    sys_map_close(&m);
    assert_int_equal(sys_map_open(&other, &f, &err), 0);
    assert_false(sys_map_damaged(&other));
    sys_map_close(&other);
    write_content();
    sys_file_close(&f);
}

static void test_a_damaged_mapping_can_be_repaired(void **state) {
    (void)state;
    struct sys_file f;
    struct sys_map m;
    struct ot_error err;
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(sys_map_open(&m, &f, &err), 0);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(((const volatile uint8_t *)m.data)[70000], 0);
    int fd = open(path, O_WRONLY);
    assert_int_equal(write(fd, content, FILE_BYTES), FILE_BYTES);
    close(fd);
    assert_int_equal(sys_map_repair(&m, &f, &err), 0);
    assert_false(sys_map_damaged(&m));
    assert_memory_equal(m.data, content, FILE_BYTES);
    sys_map_close(&m);
    sys_file_close(&f);
}

static volatile sig_atomic_t n_foreign;
static sigjmp_buf after_foreign;

static void on_foreign(int sig) {
    (void)sig;
    n_foreign++;
    siglongjmp(after_foreign, 1);
}

static void test_a_bus_error_elsewhere_goes_to_who_had_the_handler_before(void **state) {
    (void)state;
    struct sigaction mine = {.sa_handler = on_foreign}, before;
    sigaction(SIGBUS, &mine, &before);
    struct sys_file f;
    struct sys_map m;
    struct ot_error err;
    assert_int_equal(sys_file_open(&f, path, &err), 0);
    assert_int_equal(sys_map_open(&m, &f, &err), 0);
    if (sigsetjmp(after_foreign, 1) == 0) {
        raise(SIGBUS);
    }
    assert_int_equal(n_foreign, 1);
    sys_map_close(&m);
    sys_file_close(&f);
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now); /* the last mapping gone, the handler is the old one again */
    assert_ptr_equal(now.sa_handler, on_foreign);
    sigaction(SIGBUS, &before, NULL);
}

static struct sigaction host_before;
static volatile sig_atomic_t n_host;

/* As of a program that tells of its crashes: notes the fault, and hands it on to who was there. */
static void on_host(int sig, siginfo_t *info, void *context) {
    if (++n_host > 3) {
        _exit(99);
    }
    if ((host_before.sa_flags & SA_SIGINFO) != 0) {
        host_before.sa_sigaction(sig, info, context);
    } else {
        signal(sig, SIG_DFL);
    }
}

static int wait_for(pid_t child) {
    int status = 0;
    assert_true(child > 0);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

static void map_file(struct sys_file *f, struct sys_map *m) {
    struct ot_error err;
    if (sys_file_open(f, path, &err) != 0 || sys_map_open(m, f, &err) != 0) {
        _exit(98);
    }
}

/* Each in a process of its own, which the signal may end. */
static void test_a_bus_error_of_a_host_that_hands_on_to_ours_ends_the_process(void **state) {
    (void)state;
    for (int n_over = 1; n_over < 3; n_over++) {
        pid_t child = fork();
        if (child == 0) {
            struct sys_file f;
            struct sys_map m;
            struct sigaction host = {.sa_sigaction = on_host, .sa_flags = SA_SIGINFO | SA_NODEFER};
            signal(SIGBUS, SIG_DFL);
            for (int i = 0; i < n_over; i++) { /* the host comes over ours, which comes over it */
                map_file(&f, &m);
                sigaction(SIGBUS, &host, i == 0 ? &host_before : NULL);
                sys_map_close(&m);
                sys_file_close(&f);
            }
            map_file(&f, &m);
            int program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
            struct stat st;
            fstat(program, &st);
            size_t whole = ((size_t)st.st_size + 4095) / 4096 * 4096;
            const volatile uint8_t *beyond =
                mmap(NULL, whole + 4096, PROT_READ, MAP_SHARED, program, 0);
            (void)beyond[whole];
            _exit(97);
        }
        int status = wait_for(child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGBUS);
    }
}

static void test_a_mapping_is_guarded_over_a_host_that_keeps_a_fault_to_itself(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct sys_file f;
        struct sys_map m;
        map_file(&f, &m);
        signal(SIGBUS, on_foreign);
        sys_map_close(&m);
        sys_file_close(&f);
        map_file(&f, &m);
        bool same = truncate(path, 4096) == 0 && m.data[FILE_BYTES - 1] == 0;
        _exit(same && sys_map_damaged(&m) ? 0 : 1);
    }
    int status = wait_for(child);
    write_content();
    assert_int_equal(status, 0);
}

static void test_a_bus_signal_that_is_ignored_does_not_end_the_process(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct sys_file f;
        struct sys_map m;
        signal(SIGBUS, SIG_IGN);
        map_file(&f, &m);
        _exit(kill(getpid(), SIGBUS) == 0 && raise(SIGBUS) == 0 ? 0 : 1);
    }
    assert_int_equal(wait_for(child), 0);
}

/* ---- memory ---- */

static void test_memory_is_aligned_zeroed_counted_and_given_back(void **state) {
    (void)state;
    uint64_t live = sys_memory_live_bytes();
    const uint64_t sizes[] = {1, 4096, 5000000};
    for (uint32_t i = 0; i < 6; i++) {
        struct ot_error err;
        uint64_t bytes = sizes[i / 2];
        uint8_t *memory = sys_memory_take(bytes, i % 2 == 1, &err);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 4096, 0);
        assert_int_equal(memory[0] | memory[bytes - 1] | memory[bytes + 63], 0);
        assert_true(sys_memory_live_bytes() >= live + bytes);
        memset(memory, 1, bytes);
        assert_int_equal(sys_memory_resident(memory, bytes), bytes);
        sys_memory_drop(memory, bytes);
        sys_memory_free(memory, bytes);
        assert_int_equal(sys_memory_live_bytes(), live);
    }
    struct ot_error err;
    assert_null(sys_memory_take(UINT64_MAX / 2, false, &err));
    assert_int_equal(err.code, OT_ERR_MEMORY);
}

static void test_touched_memory_is_resident_and_unchanged(void **state) {
    (void)state;
    enum { BYTES = 5000000 };
    struct ot_error err;
    uint8_t *memory = sys_memory_take(BYTES, true, &err);
    assert_non_null(memory);
    memory[0] = 1;
    memory[BYTES - 1] = 2;
    if (sys_memory_touch(memory, BYTES)) { /* else: a kernel before 5.14 */
        assert_int_equal(sys_memory_resident(memory, BYTES), BYTES);
    }
    assert_int_equal(memory[0], 1);
    assert_int_equal(memory[BYTES / 2], 0);
    assert_int_equal(memory[BYTES - 1], 2);
    sys_memory_free(memory, BYTES);
}

/* ---- readers ---- */

/* More reads than the ring has places for, in flight at once, over either way of reading. */
static void test_many_reads_come_back_whole_in_any_order(void **state) {
    (void)state;
    enum { DEPTH = 100, READ_BYTES = 16384 };
    for (uint32_t way = 0; way < 4; way++) {
        struct sys_file f;
        struct sys_reader *r;
        struct ot_error err;
        assert_int_equal(sys_file_open(&f, path, &err), 0);
        assert_int_equal(
            sys_reader_open(way % 2 == 0 ? OT_IO_URING : OT_IO_THREADS, DEPTH, 0, &r, &err), 0);
        uint8_t *memory = sys_memory_take((uint64_t)DEPTH * READ_BYTES, false, &err);
        sys_fail_reads(20, 40, way < 2 ? -1 : EINTR);
        for (uint32_t i = 0; i < DEPTH; i++) {
            struct sys_read read = {.file = &f,
                                    .offset = (uint64_t)i * READ_BYTES,
                                    .buf = memory + i * READ_BYTES,
                                    .bytes = READ_BYTES,
                                    .need_bytes = READ_BYTES,
                                    .direct = f.direct_fd >= 0 && i % 2 == 0,
                                    .tag = i};
            assert_true(sys_reader_add(r, &read));
        }
        struct sys_read none = {.file = &f};
        assert_false(sys_reader_add(r, &none)); /* full */
        bool seen[DEPTH] = {false};
        struct sys_read_done done;
        while (sys_reader_next(r, true, &done)) {
            assert_int_equal(done.error, 0);
            assert_true(done.got_bytes >= READ_BYTES);
            assert_false(seen[done.tag]);
            seen[done.tag] = true;
        }
        sys_fail_reads(0, 0, 0);
        assert_memory_equal(memory, content, DEPTH * READ_BYTES);
        sys_reader_close(r);
        sys_memory_free(memory, (uint64_t)DEPTH * READ_BYTES);
        sys_file_close(&f);
    }
}

static void test_a_read_past_the_end_says_how_far_it_came(void **state) {
    (void)state;
    for (uint32_t way = 0; way < 2; way++) {
        struct sys_file f;
        struct sys_reader *r;
        struct ot_error err;
        assert_int_equal(sys_file_open(&f, path, &err), 0);
        assert_int_equal(sys_reader_open(way == 0 ? OT_IO_URING : OT_IO_THREADS, 4, 2, &r, &err),
                         0);
        uint8_t *memory = sys_memory_take(65536, false, &err);
        uint64_t offset = FILE_BYTES / 4096 * 4096;
        struct sys_read read = {.file = &f,
                                .offset = offset,
                                .buf = memory,
                                .bytes = 65536,
                                .need_bytes = 65536,
                                .direct = f.direct_fd >= 0};
        assert_true(sys_reader_add(r, &read));
        struct sys_read_done done;
        assert_true(sys_reader_next(r, true, &done));
        assert_int_equal(done.error, 0);
        assert_int_equal(done.got_bytes, FILE_BYTES - offset);
        assert_memory_equal(memory, content + offset, FILE_BYTES - offset);
        sys_reader_close(r);
        sys_memory_free(memory, 65536);
        sys_file_close(&f);
    }
}

/* Reads the file's beginning in many pieces; the ring is refused while the second round of them is
 * under way. What a child process says: 0, or the step that failed. */
static int read_while_the_ring_is_refused(int error) {
    enum { DEPTH = 100, PIECE_BYTES = 8192, ROUNDS = 3, NO_FILTER = 77 };
    struct sys_file f;
    struct sys_reader *r;
    struct ot_error err;
    long call = SYS_io_uring_enter;
    if (sys_file_open(&f, path, &err) != 0 ||
        sys_reader_open(OT_IO_URING, DEPTH, 2, &r, &err) != 0) {
        return 1;
    }
    uint8_t *memory = sys_memory_take((uint64_t)DEPTH * PIECE_BYTES, false, &err);
    if (memory == NULL || !sys_reader_uring(r)) {
        return NO_FILTER;
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memset(memory, 0, (size_t)DEPTH * PIECE_BYTES);
        for (uint32_t i = 0; i < DEPTH; i++) {
            struct sys_read read = {.file = &f,
                                    .offset = (uint64_t)i * PIECE_BYTES,
                                    .buf = memory + i * PIECE_BYTES,
                                    .bytes = PIECE_BYTES,
                                    .need_bytes = PIECE_BYTES,
                                    .tag = i};
            if (!sys_reader_add(r, &read)) {
                return 2;
            }
        }
        if (round == 1 && !refuse_calls(error, &call, 1)) {
            return NO_FILTER;
        }
        sys_reader_start(r);
        struct sys_read_done done;
        uint32_t n = 0;
        for (; sys_reader_next(r, true, &done); n++) {
            if (done.error != 0 || done.got_bytes != PIECE_BYTES) {
                return 3;
            }
        }
        if (n != DEPTH || sys_reader_uring(r) != (round == 0) ||
            memcmp(memory, content, (size_t)DEPTH * PIECE_BYTES) != 0) {
            return 4;
        }
    }
    sys_reader_close(r);
    sys_memory_free(memory, (uint64_t)DEPTH * PIECE_BYTES);
    sys_file_close(&f);
    return 0;
}

static void test_a_ring_that_is_refused_in_mid_run_hands_over_to_threads(void **state) {
    (void)state;
    const int errors[] = {EPERM, ENOSYS, EAGAIN};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(60);
            _exit(read_while_the_ring_is_refused(errors[i]));
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            skip();
        }
        assert_int_equal(status, 0);
    }
}

static void test_a_read_that_is_interrupted_for_ever_is_given_up(void **state) {
    (void)state;
    for (uint32_t way = 0; way < 2; way++) {
        const int errors[] = {EINTR, EAGAIN};
        struct sys_file f;
        struct sys_reader *r;
        struct ot_error err;
        uint8_t memory[64] = {0};
        assert_int_equal(sys_file_open(&f, path, &err), 0);
        assert_int_equal(sys_reader_open(way == 0 ? OT_IO_URING : OT_IO_THREADS, 4, 2, &r, &err),
                         0);
        sys_fail_reads(1, UINT32_MAX, errors[way]);
        struct sys_read read = {.file = &f, .buf = memory, .bytes = 64, .need_bytes = 64};
        assert_true(sys_reader_add(r, &read));
        struct sys_read_done done;
        assert_true(sys_reader_next(r, true, &done));
        assert_int_equal(done.error, errors[way]);
        assert_int_equal(sys_file_read(&f, 0, memory, sizeof memory, &err), OT_ERR_IO);
        assert_int_equal(err.sys_errno, errors[way]);
        sys_fail_reads(0, 0, 0);
        assert_int_equal(sys_file_read(&f, 0, memory, sizeof memory, &err), 0);
        assert_memory_equal(memory, content, sizeof memory);
        sys_reader_close(r);
        sys_file_close(&f);
    }
}

/* ---- limits ---- */

static char root[160];

static void put(const char *name, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, name);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *out = fopen(full, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void clear_root(void) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    assert_int_equal(system(command), 0);
    mkdir(root, 0700);
    put("/proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n");
}

static void test_the_smallest_limit_on_the_way_up_holds_in_version_2(void **state) {
    (void)state;
    clear_root();
    struct sys_limits l;
    sys_limits_read_under(root, &l);
    assert_int_equal(l.memory_bytes, 1000 * 1024);
    assert_int_equal(l.available_bytes, 600 * 1024);
    assert_true(l.cgroup_bytes == UINT64_MAX);
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.max", "5000000\n");
    put("/sys/fs/cgroup/a/memory.current", "1000000\n");
    put("/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 300\nactive_file 200\n");
    sys_limits_read_under(root, &l);
    assert_int_equal(l.cgroup_bytes, 5000000);
    assert_int_equal(l.cgroup_free_bytes, 5000000 - 1000000 + 500);
    put("/sys/fs/cgroup/a/b/memory.high", "4000000\n");
    put("/sys/fs/cgroup/a/memory.current",
        "4900000\n"); /* by others: the larger limit leaves less */
    sys_limits_read_under(root, &l);
    assert_int_equal(l.cgroup_bytes, 4000000);
    assert_int_equal(l.cgroup_free_bytes, 100500);
    struct sys_limit_watch watch;
    sys_limit_watch_open_under(root, &watch);
    assert_int_equal(watch.n, 3);
    assert_int_equal(sys_limit_watch_read(&watch), 4000000);
    put("/sys/fs/cgroup/a/b/memory.max", "3000000\n");
    assert_int_equal(sys_limit_watch_read(&watch), 3000000);
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.high", "max\n");
    assert_int_equal(sys_limit_watch_read(&watch), 5000000);
    put("/sys/fs/cgroup/a/memory.max", "nonsense\n");
    assert_true(sys_limit_watch_read(&watch) == UINT64_MAX);
    sys_limit_watch_close(&watch);
    assert_int_equal(watch.n, 0);
}

static void test_limits_of_version_1_are_found_inside_a_container(void **state) {
    (void)state;
    clear_root();
    put("/proc/self/cgroup", "4:memory:/docker/xyz/sub\n3:cpuacct,cpu:/docker/xyz\n0::/\n");
    put("/proc/self/mountinfo",
        "40 32 0:33 /docker/xyz /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "41 32 0:34 /docker/xyz /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpuacct,cpu\n");
    put("/sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "7000000\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "42\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    struct sys_limits l;
    sys_limits_read_under(root, &l);
    assert_int_equal(l.cgroup_bytes, 7000000);
    assert_int_equal(l.cgroup_free_bytes, 7000000 - 42);
    assert_int_equal(sys_cpu_quota(root), 3); /* two and a half, rounded up */
}

static void test_cpu_quotas_of_version_2_and_nonsense_are_read_right(void **state) {
    (void)state;
    clear_root();
    assert_true(sys_cpu_quota(root) == UINT32_MAX);
    put("/proc/self/cgroup", "0::/../outside\n");
    put("/proc/self/mountinfo", "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\nnonsense\n - \n");
    put("/cg/cpu.max", "max 100000\n");
    assert_true(sys_cpu_quota(root) == UINT32_MAX);
    put("/cg/cpu.max", "400000 100000\n");
    assert_int_equal(sys_cpu_quota(root), 4);
    put("/cg/cpu.max", "1 100000\n");
    assert_int_equal(sys_cpu_quota(root), 1);
    put("/cg/cpu.max", "-5 0\n");
    assert_true(sys_cpu_quota(root) == UINT32_MAX);
    put("/cg/memory.max", "not a number\n");
    struct sys_limits l;
    sys_limits_read_under(root, &l);
    assert_true(l.cgroup_bytes == UINT64_MAX);
}

static void test_threads_are_one_a_core_but_two_where_two_are_allowed(void **state) {
    (void)state;
    const uint32_t none = UINT32_MAX;
    assert_int_equal(sys_cpu_default_threads(2, 2, none), 2);
    assert_int_equal(sys_cpu_default_threads(16, 8, none), 8);
    /* two hyperthreads of one core, as virtual machines have them */
    assert_int_equal(sys_cpu_default_threads(2, 1, none), 2);
    assert_int_equal(sys_cpu_default_threads(4, 1, none), 2);
    /* one processor, by affinity or by quota */
    assert_int_equal(sys_cpu_default_threads(1, 1, none), 1);
    assert_int_equal(sys_cpu_default_threads(2, 1, 1), 1);
    assert_int_equal(sys_cpu_default_threads(16, 8, 3), 3);
}

static void test_a_file_without_a_name_is_not_written(void **state) {
    (void)state;
    struct ot_error err;
    struct sys_output output;
    assert_int_equal(sys_file_write("", "x", 1, &err), OT_ERR_ARGUMENT);
    assert_int_equal(sys_output_open(&output, "", &err), OT_ERR_ARGUMENT);
}

static void test_this_machine_makes_sense(void **state) {
    (void)state;
    const struct sys_cpu *cpu = sys_cpu_facts();
    assert_in_range(cpu->n_default, 1, cpu->n_logical);
    struct sys_limits l;
    sys_limits_read(&l);
    assert_true(l.available_bytes > 0 && l.available_bytes <= l.memory_bytes);
    struct sys_process p;
    sys_process_read(&p);
    assert_true(p.rss_bytes > 0 && p.rss_bytes <= p.peak_rss_bytes);
    assert_true(p.anon_bytes > 0 && p.anon_bytes <= p.rss_bytes);
}

int main(void) {
    snprintf(root, sizeof root, "./sys-root-%ld", (long)getpid());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_regular_files_are_opened_and_nothing_blocks),
        cmocka_unit_test(test_reads_carry_on_and_say_where_a_file_ends),
        cmocka_unit_test(test_a_changed_file_is_noticed),
        cmocka_unit_test(test_a_write_that_fails_leaves_the_old_file),
        cmocka_unit_test(test_the_page_cache_is_asked_about_ranges),
        cmocka_unit_test(test_a_mapping_ends_in_readable_bytes),
        cmocka_unit_test(test_a_page_that_the_file_lost_reads_as_zeros_and_is_told),
        cmocka_unit_test(test_a_damaged_mapping_can_be_repaired),
        cmocka_unit_test(test_a_bus_error_elsewhere_goes_to_who_had_the_handler_before),
        cmocka_unit_test(test_a_bus_error_of_a_host_that_hands_on_to_ours_ends_the_process),
        cmocka_unit_test(test_a_mapping_is_guarded_over_a_host_that_keeps_a_fault_to_itself),
        cmocka_unit_test(test_a_bus_signal_that_is_ignored_does_not_end_the_process),
        cmocka_unit_test(test_memory_is_aligned_zeroed_counted_and_given_back),
        cmocka_unit_test(test_touched_memory_is_resident_and_unchanged),
        cmocka_unit_test(test_many_reads_come_back_whole_in_any_order),
        cmocka_unit_test(test_a_read_past_the_end_says_how_far_it_came),
        cmocka_unit_test(test_a_ring_that_is_refused_in_mid_run_hands_over_to_threads),
        cmocka_unit_test(test_a_read_that_is_interrupted_for_ever_is_given_up),
        cmocka_unit_test(test_the_smallest_limit_on_the_way_up_holds_in_version_2),
        cmocka_unit_test(test_limits_of_version_1_are_found_inside_a_container),
        cmocka_unit_test(test_cpu_quotas_of_version_2_and_nonsense_are_read_right),
        cmocka_unit_test(test_threads_are_one_a_core_but_two_where_two_are_allowed),
        cmocka_unit_test(test_a_file_without_a_name_is_not_written),
        cmocka_unit_test(test_this_machine_makes_sense),
    };
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command) != 0 || failed;
}
