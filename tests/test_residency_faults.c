/* test_residency_faults.c - what fails, fails clean: an error, never wrong bytes, and the next call
 * works where the fault has passed. And faults planted in the engine itself must show in its
 * figures. */
#include "residency_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "residency/plant.h"
#include "sys/memory.h"

static const struct fixture_options small = {.seed = 11, .n_layers = 3, .n_files = 1};
static const struct fixture_options mixture = {
    .seed = 12, .n_layers = 2, .n_files = 2, .experts = true};

static struct residency_params params_of(struct fixture *f, enum ot_residency mode) {
    uint64_t half = (fixture_sum(f, RESIDENCY_SWEEP) + fixture_sum(f, RESIDENCY_EXPERT)) / 2;
    half += 1 << 20;
    struct residency_params params =
        fixture_params(f, mode == OT_RESIDENCY_STREAM ? half : UINT64_MAX);
    params.residency = mode;
    return params;
}

/* ---- reads that fail ---- */

/* Every read of a run fails once; the error is the one that was injected, and the call after it
 * gives true bytes. */
static void fail_each_read(const struct fixture_options *options, enum ot_residency mode,
                           enum ot_io io, int error) {
    struct fixture f;
    fixture_open(&f, options);
    struct residency_params params = params_of(&f, mode);
    params.io = io;
    for (uint64_t n = 1;; n += 1 + n / 40) {
        struct ot_error err = {0};
        struct residency *r;
        fixture_make_cold(&f);
        sys_fail_reads(n, 1, error);
        assert_int_equal(residency_open(&params, &r, &err), 0);
        int code = 0;
        for (uint32_t i = 0; code == 0 && i < 2; i++) {
            code = walk(&f, r, &err);
            assert_true(residency_check(r));
        }
        bool came = sys_read_count() >= n;
        if (error == -1) {
            assert_int_equal(code, 0); /* a partial read is carried on */
        } else if (error > 0) {
            assert_true(code == 0 || (code == OT_ERR_IO && err.sys_errno == error));
        } else {
            assert_true(code == 0 || code == OT_ERR_CHANGED || code == OT_ERR_IO);
        }
        sys_fail_reads(0, 0, 0);
        bool told = code != 0;
        code = walk(&f, r, &err);
        if (!told && code != 0 && error == 0) {
            code = walk(&f, r,
                        &err); /* what was read ahead and ended early fails the sweep it is for */
        }
        if (code != 0) {
            fail_msg("after read %u failed: code %d, %s", (unsigned)n, code, err.message);
        }
        assert_true(residency_check(r));
        residency_close(r);
        if (!came) {
            break;
        }
    }
    fixture_close(&f);
}

static void test_each_read_failing_once_is_an_error_and_passes(void **state) {
    (void)state;
    fail_each_read(&small, OT_RESIDENCY_STREAM, OT_IO_AUTO, EIO);
    fail_each_read(&small, OT_RESIDENCY_STREAM, OT_IO_THREADS, EIO);
    fail_each_read(&small, OT_RESIDENCY_CACHE, OT_IO_AUTO, EIO);
    fail_each_read(&mixture, OT_RESIDENCY_STREAM, OT_IO_AUTO, ENOMEM);
    fail_each_read(&mixture, OT_RESIDENCY_WIRED, OT_IO_AUTO, EIO);
}

static void test_each_read_ending_early_is_an_error_and_passes(void **state) {
    (void)state;
    fail_each_read(&small, OT_RESIDENCY_STREAM, OT_IO_AUTO, 0);
    fail_each_read(&mixture, OT_RESIDENCY_STREAM, OT_IO_THREADS, 0);
}

static void test_partial_and_interrupted_reads_are_carried_on(void **state) {
    (void)state;
    fail_each_read(&small, OT_RESIDENCY_STREAM, OT_IO_AUTO, -1);
    fail_each_read(&mixture, OT_RESIDENCY_STREAM, OT_IO_THREADS, -1);
    setenv("ONETRIP_NO_DIRECT", "1", 1);
    fail_each_read(&small, OT_RESIDENCY_STREAM, OT_IO_AUTO, -1);
    fail_each_read(&mixture, OT_RESIDENCY_STREAM, OT_IO_THREADS, -1);
    unsetenv("ONETRIP_NO_DIRECT");
    struct fixture f;
    fixture_open(&f, &small);
    const int transient[] = {EINTR, EAGAIN};
    for (uint32_t i = 0; i < 4; i++) {
        struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
        params.io = i < 2 ? OT_IO_URING : OT_IO_THREADS;
        sys_fail_reads(2, 30, transient[i % 2]);
        residency_close(walked(&f, &params, 2));
        sys_fail_reads(0, 0, 0);
    }
    fixture_close(&f);
}

/* A sweep over what is swept. */
static int walk_swept(struct fixture *f, struct residency *r, struct ot_error *err) {
    struct held held = {.n = 0};
    int code = residency_sweep_begin(r, f->n_extents - 1, err);
    for (uint32_t i = 0; code == 0 && i < f->n_extents; i++) {
        if (f->extents[i].contract == RESIDENCY_SWEEP) {
            code = walk_part(f, r, i, 0, &held, err);
        }
    }
    bool all_true = let_go(f, r, &held);
    residency_sweep_end(r, code != 0);
    return code == 0 && !all_true ? 1 : code;
}

/* A read that ends behind what was wanted is not carried on: only what came is posted. */
static void
test_a_buffered_read_that_ends_behind_what_was_wanted_is_posted_as_it_came(void **state) {
    (void)state;
    struct fixture f;
    setenv("ONETRIP_NO_DIRECT", "1", 1);
    fixture_open(&f, &small);
    unsetenv("ONETRIP_NO_DIRECT");
    fixture_make_cold(&f);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    params.io = OT_IO_THREADS;
    struct ot_error err = {0};
    struct residency *r;
    assert_int_equal(residency_open(&params, &r, &err), 0);
    const uint64_t offset = f.extents[0].offset, row_bytes = f.extents[0].row_bytes;
    uint32_t row = 0; /* in the first half of its page */
    while ((offset + row * row_bytes) % 4096 + row_bytes > 2048) {
        row++;
    }
    struct row_check check = {.f = &f, .rows = &row};
    sys_fail_reads(1, 1u << 20, -1);
    if (residency_rows(r, 0, &row, 1, check_row, &check, &err) != 0) {
        fail_msg("%s", err.message);
    }
    sys_fail_reads(0, 0, 0);
    assert_false(check.wrong);
    const uint32_t id = f.extents[0].ledger_id;
    assert_int_equal(ledger_get(f.ledger, id, OT_RAM_RAM, OT_CAUSE_COPY)->moved_bytes, 2048);
    assert_true(ledger_get(f.ledger, id, OT_DISK_RAM, OT_CAUSE_LOAD)->moved_bytes <= 2048);
    residency_close(r);
    fixture_close(&f);
}

static void test_a_read_ahead_that_failed_is_read_again_when_it_is_needed(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct fixture f;
        fixture_open(&f, &small);
        struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
        params.io = i % 2 == 0 ? OT_IO_AUTO : OT_IO_THREADS;
        struct residency *r;
        struct ot_error err;
        uint64_t n_came = 0;
        for (uint64_t n = 1; n < 5; n++) {
            if (i < 2) { /* blocks that are streamed */
                r = walked(&f, &params, 1);
                sys_fail_reads(n, 1, EIO);
            } else { /* pieces of wired runs, on their first trip */
                sys_fail_reads(n, 1, EIO);
                assert_int_equal(residency_open(&params, &r, &err), 0);
            }
            for (uint32_t k = 0; k < 2; k++) {
                assert_int_equal(walk_swept(&f, r, &err), 0);
                assert_true(residency_check(r));
            }
            n_came += sys_read_count() >= n;
            sys_fail_reads(0, 0, 0);
            residency_close(r);
        }
        assert_true(n_came > 0);
        fixture_close(&f);
    }
}

/* The least budget with which nothing is streamed but experts' parts, most of which pass by. */
static uint64_t budget_without_room_for_parts(struct fixture *f) {
    uint64_t budget = fixture_sum(f, RESIDENCY_SWEEP);
    for (struct residency_info info = {.streamed_bytes_per_sweep = 1};
         info.streamed_bytes_per_sweep > 0;) {
        budget += 32 << 10;
        struct residency_params params = fixture_params(f, budget);
        struct residency *r = walked(f, &params, 0);
        residency_get_info(r, &info);
        residency_close(r);
    }
    return budget;
}

/* For a budget that keeps all parts, and one that keeps none. */
static void test_an_experts_part_that_failed_is_read_again_when_it_is_needed(void **state) {
    (void)state;
    for (uint32_t keeps = 0; keeps < 2; keeps++) {
        struct fixture f;
        fixture_open(&f, &mixture);
        struct residency_params params = fixture_params(&f, UINT64_MAX);
        params.residency = OT_RESIDENCY_STREAM;
        if (keeps == 0) {
            params.weights_budget_bytes = budget_without_room_for_parts(&f);
        }
        for (uint64_t n = 1; n < 4; n++) {
            struct residency *r = walked(&f, &params, 0);
            struct ot_error err;
            uint32_t extent = 4;
            assert_int_equal(f.extents[extent].contract, RESIDENCY_EXPERT);
            assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
            struct residency_info info;
            residency_get_info(r, &info); /* nothing else is being read */
            const struct residency_part parts[] = {{extent, 1}, {extent, 3}, {extent, 6}};
            sys_fail_reads(n, 1, EIO);
            residency_want_parts(r, parts, 3);
            struct held held = {.n = 0};
            for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(walk_part(&f, r, extent, parts[i].part, &held, &err), 0);
                assert_true(residency_check(r));
            }
            assert_true(sys_read_count() >= n);
            sys_fail_reads(0, 0, 0);
            assert_true(let_go(&f, r, &held));
            residency_sweep_end(r, false);
            assert_int_equal(walk(&f, r, &err), 0);
            assert_true(residency_check(r));
            residency_close(r);
        }
        fixture_close(&f);
    }
}

/* Of the reads of a part, and those that repeat them, all fail: then it is an error. */
static void test_a_part_that_fails_twice_is_an_error_and_passes(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &mixture);
    struct residency_params params = params_of(&f, OT_RESIDENCY_WIRED);
    struct residency *r = walked(&f, &params, 0);
    struct ot_error err = {0};
    assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
    struct residency_info info;
    residency_get_info(r, &info);
    const struct residency_part part = {4, 2};
    sys_fail_reads(1, 2, EIO);
    residency_want_parts(r, &part, 1);
    struct residency_view view;
    assert_int_equal(residency_acquire(r, 4, 2, 0, &view, &err), OT_ERR_IO);
    assert_int_equal(err.sys_errno, EIO);
    residency_sweep_end(r, true);
    sys_fail_reads(0, 0, 0);
    assert_true(residency_check(r));
    assert_int_equal(walk(&f, r, &err), 0);
    residency_close(r);
    fixture_close(&f);
}

static void test_a_disk_that_fails_for_good_fails_every_call(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture f;
        fixture_open(&f, &mixture);
        struct residency_params params =
            params_of(&f, i == 0 ? OT_RESIDENCY_STREAM : OT_RESIDENCY_CACHE);
        fixture_make_cold(&f);
        sys_fail_reads(5, UINT64_MAX - 5, EIO);
        struct ot_error err;
        struct residency *r;
        assert_int_equal(residency_open(&params, &r, &err), 0);
        for (uint32_t k = 0; k < 5; k++) {
            assert_int_equal(walk(&f, r, &err), OT_ERR_IO);
            assert_true(residency_check(r));
        }
        sys_fail_reads(0, 0, 0);
        assert_int_equal(walk(&f, r, &err), 0);
        residency_close(r);
        fixture_close(&f);
    }
}

/* What the readers met before a sweep was broken off is not told to the next one. */
static void test_a_fault_that_has_passed_fails_no_later_sweep(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        struct fixture f;
        fixture_open(&f, &small);
        struct residency_params params = params_of(&f, OT_RESIDENCY_CACHE);
        fixture_make_cold(&f);
        struct ot_error err;
        struct residency *r;
        sys_fail_reads(i % 3, UINT64_MAX - 5, EIO);
        assert_int_equal(residency_open(&params, &r, &err), 0);
        assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
        residency_sweep_end(r, true);
        sys_fail_reads(0, 0, 0);
        assert_int_equal(walk(&f, r, &err), 0);
        residency_close(r);
        fixture_close(&f);
    }
}

/* ---- memory that fails ---- */

static void test_each_allocation_failing_once_is_an_error_without_a_leak(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 5; i++) { /* the last: every read takes memory to be verified */
        struct fixture f;
        fixture_open(&f, &mixture);
        struct residency_params params =
            params_of(&f, i % 2 == 0 ? OT_RESIDENCY_STREAM : OT_RESIDENCY_CACHE);
        if (i == 4) {
            setenv("ONETRIP_VERIFY", "1", 1);
        }
        params.trace_path = "residency-faults.trace";
        uint64_t live = mem_live_bytes(), large = sys_memory_live_bytes();
        for (uint64_t n = 1, came = 1; came; n++) {
            struct ot_error err = {0};
            struct residency *r = NULL;
            if (i < 2) {
                mem_fail_at(n);
            } else {
                sys_memory_fail_at(n);
            }
            int code = residency_open(&params, &r, &err);
            if (code == 0) {
                code = walk(&f, r, &err);
                came = i < 2 ? mem_fail_count() >= n : i < 4 ? code != 0 : n < 60;
                mem_fail_at(0);
                sys_memory_fail_at(0);
                assert_true(code == 0 || code == OT_ERR_MEMORY);
                assert_int_equal(walk(&f, r, &err), 0);
                residency_close(r);
            } else {
                assert_int_equal(code, OT_ERR_MEMORY);
                assert_null(r);
            }
            mem_fail_at(0);
            sys_memory_fail_at(0);
            assert_int_equal(mem_live_bytes(), live);
            assert_int_equal(sys_memory_live_bytes(), large);
        }
        unlink("residency-faults.trace");
        unsetenv("ONETRIP_VERIFY");
        fixture_close(&f);
    }
}

/* Runs fn in a process of its own; it returns true for success. */
static void in_child(bool (*fn)(void)) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(fn() ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static bool run_with_a_lock_limit(void) {
    struct rlimit limit = {64 << 10, 64 << 10};
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || syscall(SYS_capset, &head, none) != 0) {
        return false;
    }
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    struct residency *r = walked(&f, &params, 2);
    struct residency_info info;
    residency_get_info(r, &info);
    bool said = info.locked_bytes <= 64 << 10 && info.wired_bytes > 64 << 10;
    residency_close(r);
    fixture_close(&f);
    return said;
}

static void test_a_memory_lock_limit_is_kept_and_said(void **state) {
    (void)state;
    in_child(run_with_a_lock_limit);
}

/* ---- files that change ---- */

static void test_a_file_cut_between_sweeps_is_noticed(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture f;
        fixture_open(&f, &small);
        struct residency_params params =
            params_of(&f, i == 0 ? OT_RESIDENCY_STREAM : OT_RESIDENCY_CACHE);
        struct residency *r = walked(&f, &params, 2);
        assert_int_equal(truncate(f.paths[0], (off_t)(f.n_bytes[0] / 2)), 0);
        struct ot_error err;
        assert_int_equal(walk(&f, r, &err), OT_ERR_CHANGED);
        assert_non_null(strstr(err.at, "residency-"));
        assert_int_equal(walk(&f, r, &err), OT_ERR_CHANGED);
        residency_close(r);
        fixture_close(&f);
    }
}

static void test_a_file_cut_within_a_sweep_makes_the_sweep_count_for_nothing(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct fixture f;
        fixture_open(&f, &small);
        struct residency_params params =
            params_of(&f, i == 0 ? OT_RESIDENCY_STREAM : OT_RESIDENCY_CACHE);
        struct residency *r = walked(&f, &params, i == 1 ? 0 : 1);
        struct ot_error err;
        assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
        assert_int_equal(truncate(f.paths[0], 6000), 0);
        struct held held = {.n = 0};
        int code = 0;
        for (uint32_t k = 1; code == 0 && k < f.n_extents; k++) {
            code = walk_part(&f, r, k, 0, &held, &err); /* also reads where the file no longer is */
        }
        let_go(&f, r, &held);
        assert_true(code != OT_ERR_MEMORY && code != OT_ERR_ARGUMENT);
        assert_int_equal(residency_sweep_check(r, &err), OT_ERR_CHANGED);
        residency_sweep_end(r, true);
        assert_int_equal(walk(&f, r, &err), OT_ERR_CHANGED);
        residency_close(r);
        fixture_close(&f);
    }
}

static void test_a_file_written_to_is_noticed_within_the_sweep(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    struct residency *r = walked(&f, &params, 1);
    struct ot_error err;
    assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
    int fd = open(f.paths[0], O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    close(fd);
    struct timespec long_ago[2] = {{0, UTIME_OMIT}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, f.paths[0], long_ago, 0), 0);
    assert_int_equal(residency_sweep_check(r, &err), OT_ERR_CHANGED);
    residency_sweep_end(r, true);
    residency_close(r);
    fixture_close(&f);
}

static void test_a_file_replaced_by_another_name_stays_the_one_that_was_opened(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    struct residency *r = walked(&f, &params, 1);
    char other[300];
    snprintf(other, sizeof other, "%s.other", f.paths[0]);
    FILE *out = fopen(other, "wb");
    fputs("something else", out);
    fclose(out);
    assert_int_equal(rename(other, f.paths[0]), 0);
    struct ot_error err;
    assert_int_equal(walk(&f, r, &err), 0);
    residency_close(r);
    fixture_close(&f);
}

/* ---- planted faults ---- */

static void test_a_budget_that_is_not_applied_shows(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    params.weights_budget_bytes = fixture_sum(&f, RESIDENCY_SWEEP) / 2;
    residency_plant(RESIDENCY_PLANT_BUDGET);
    struct ot_error err;
    struct residency *r;
    assert_int_equal(residency_open(&params, &r, &err), 0);
    assert_int_equal(walk(&f, r, &err), 0);
    struct residency_info info;
    residency_get_info(r, &info);
    assert_true(info.wired_bytes + info.slot_bytes > params.weights_budget_bytes);
    assert_false(residency_check(r));
    residency_plant(RESIDENCY_PLANT_NONE);
    residency_close(r);
    fixture_close(&f);
}

static void test_direct_reads_that_became_buffered_show(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    fixture_make_cold(&f);
    if (f.files[0].direct_fd < 0 || sys_file_cached_bytes(&f.files[0]) > 0) {
        fixture_close(&f);
        print_message("skipped: no direct reads here\n");
        skip();
    }
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    residency_plant(RESIDENCY_PLANT_BUFFERED);
    struct residency *r = walked(&f, &params, 2);
    residency_plant(RESIDENCY_PLANT_NONE);
    struct residency_info info;
    residency_get_info(r, &info);
    assert_true(info.n_reads_direct < info.n_reads / 4);
    assert_non_null(strstr(info.io, "buffered, though O_DIRECT was granted"));
    residency_close(r);
    fixture_close(&f);
}

static void test_everything_read_twice_shows_in_the_closure(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct sys_process before, after;
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    residency_plant(RESIDENCY_PLANT_TWICE);
    sys_process_read(&before);
    struct residency *r = walked(&f, &params, 2);
    struct residency_info info;
    residency_get_info(r, &info);
    residency_plant(RESIDENCY_PLANT_NONE);
    sys_process_read(&after);
    uint64_t system = after.read_bytes - before.read_bytes;
    uint64_t counted = fixture_disk(&f, OT_CAUSE_COUNT).moved_bytes;
    if (system > 0) { /* a disk that the kernel counts */
        assert_true(system > counted * 3 / 2);
    }
    residency_close(r);
    fixture_close(&f);
}

static void test_wired_memory_that_is_not_there_shows(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_WIRED);
    residency_plant(RESIDENCY_PLANT_UNWIRED);
    struct ot_error err;
    struct residency *r;
    assert_int_equal(residency_open(&params, &r, &err), 0);
    struct residency_info info;
    residency_get_info(r, &info);
    residency_plant(RESIDENCY_PLANT_NONE);
    assert_true(info.resident_bytes < info.wired_bytes / 2);
    residency_close(r);
    fixture_close(&f);
}

static void test_a_slot_filled_from_the_wrong_place_is_caught_by_verifying(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, &small);
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    struct ot_error err;
    struct residency *r;
    setenv("ONETRIP_VERIFY", "1", 1);
    r = walked(&f, &params, 2); /* nothing is found where nothing is wrong */
    residency_plant(RESIDENCY_PLANT_SHIFT);
    int code = walk(&f, r, &err);
    code = code == 0 ? walk(&f, r, &err) : code; /* the first one may have been read ahead */
    assert_int_equal(code, OT_ERR_IO);
    assert_non_null(strstr(err.message, "other values than in the file"));
    residency_plant(RESIDENCY_PLANT_NONE);
    code = walk(&f, r, &err);
    code = code != 0 ? walk(&f, r, &err) : code;
    assert_int_equal(code, 0);
    residency_close(r);
    unsetenv("ONETRIP_VERIFY");
    fixture_close(&f);
}

/* Buffered, of a file that somebody keeps in the page cache: nothing moves from disk, nor when it is
 * read again. */
static void test_what_is_verified_from_the_page_cache_is_not_counted_from_disk(void **state) {
    (void)state;
    struct fixture f;
    setenv("ONETRIP_VERIFY", "1", 1);
    setenv("ONETRIP_NO_DIRECT", "1", 1);
    fixture_open(&f, &small);
    int fd = open(f.paths[0], O_RDONLY | O_CLOEXEC);
    struct stat facts;
    assert_true(fd >= 0 && fstat(fd, &facts) == 0);
    const size_t bytes = (size_t)facts.st_size;
    volatile const uint8_t *kept = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    assert_true(kept != MAP_FAILED);
    for (size_t i = 0; i < bytes; i += 4096) {
        (void)kept[i]; /* a page that is mapped is not dropped */
    }
    struct residency_params params = params_of(&f, OT_RESIDENCY_STREAM);
    struct residency *r = walked(&f, &params, 2);
    assert_int_equal(fixture_disk(&f, OT_CAUSE_RELOAD).moved_bytes, 0);
    struct residency_info info;
    residency_get_info(r, &info); /* all copies, also those that verified */
    assert_int_equal(info.brought_bytes,
                     ledger_sum(f.ledger, OT_RAM_RAM, OT_CLASS_COUNT, OT_CAUSE_COPY).moved_bytes);
    assert_true(info.brought_bytes > 3 * fixture_sum(&f, RESIDENCY_SWEEP));
    residency_close(r);
    unsetenv("ONETRIP_NO_DIRECT");
    unsetenv("ONETRIP_VERIFY");
    munmap((void *)(uintptr_t)kept, bytes);
    close(fd);
    fixture_close(&f);
}

/* ---- under a control group ---- */

static const char *group_of(char path[300], bool *v1) {
    struct stat st;
    *v1 = stat("/sys/fs/cgroup/memory/memory.limit_in_bytes", &st) == 0;
    snprintf(path, 300, "%s/onetrip-test-%ld", *v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup",
             (long)getpid());
    return mkdir(path, 0755) == 0 ? path : NULL;
}

static bool group_write(const char *group, const char *name, uint64_t value) {
    char path[400], text[32];
    snprintf(path, sizeof path, "%s/%s", group, name);
    int n = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    int fd = open(path, O_WRONLY);
    bool written = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (fd >= 0) {
        close(fd);
    }
    return written;
}

static uint64_t group_read(const char *group, const char *name) {
    char path[400], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", group, name);
    FILE *in = fopen(path, "r");
    uint64_t value = UINT64_MAX;
    if (in != NULL) {
        value = fgets(text, sizeof text, in) != NULL ? strtoull(text, NULL, 10) : UINT64_MAX;
        fclose(in);
    }
    return value;
}

/* The child's part: joins the group, then walks. */
static int run_in_group(const char *group, struct fixture *f, enum ot_residency mode,
                        uint64_t budget) {
    if (!group_write(group, "cgroup.procs", (uint64_t)getpid())) {
        return 77;
    }
    struct residency_params params = fixture_params(f, budget);
    params.residency = mode;
    struct ot_error err;
    struct residency *r;
    if (residency_open(&params, &r, &err) != 0) {
        return 2;
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (walk(f, r, &err) != 0) {
            return 3;
        }
    }
    residency_close(r);
    return 0;
}

static void test_a_control_group_of_the_budget_is_never_exceeded(void **state) {
    (void)state;
    const struct fixture_options large = {.seed = 13, .n_layers = 20, .n_files = 1, .tied = true};
    const enum ot_residency modes[] = {OT_RESIDENCY_STREAM, OT_RESIDENCY_WIRED, OT_RESIDENCY_CACHE};
    struct fixture f;
    fixture_open(&f, &large);
    uint64_t total = f.n_bytes[0] + (1 << 20);
    for (uint32_t i = 0; i < 4; i++) {
        char path[300];
        bool v1;
        const char *group = group_of(path, &v1);
        uint64_t budget = i == 3 ? total / 4 : i == 0 ? total / 2 : total;
        uint64_t process = 5 << 20; /* stacks, page tables, heap, and pages of the program itself */
        fixture_make_cold(&f);
        if (group == NULL ||
            !group_write(group, v1 ? "memory.limit_in_bytes" : "memory.max", budget + process)) {
            if (group != NULL) {
                rmdir(group);
            }
            fixture_close(&f);
            print_message("skipped: no memory control group can be made here\n");
            skip();
        }
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            _exit(run_in_group(group, &f, modes[i % 3], budget));
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        uint64_t peak = group_read(group, v1 ? "memory.max_usage_in_bytes" : "memory.peak");
        uint64_t refused = v1 ? group_read(group, "memory.failcnt") : 0;
        rmdir(group);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_true(peak <= budget + process || peak == UINT64_MAX);
        assert_int_equal(refused, 0); /* the limit was not even reached */
    }
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_read_failing_once_is_an_error_and_passes),
        cmocka_unit_test(test_each_read_ending_early_is_an_error_and_passes),
        cmocka_unit_test(test_partial_and_interrupted_reads_are_carried_on),
        cmocka_unit_test(
            test_a_buffered_read_that_ends_behind_what_was_wanted_is_posted_as_it_came),
        cmocka_unit_test(test_a_read_ahead_that_failed_is_read_again_when_it_is_needed),
        cmocka_unit_test(test_an_experts_part_that_failed_is_read_again_when_it_is_needed),
        cmocka_unit_test(test_a_part_that_fails_twice_is_an_error_and_passes),
        cmocka_unit_test(test_a_disk_that_fails_for_good_fails_every_call),
        cmocka_unit_test(test_a_fault_that_has_passed_fails_no_later_sweep),
        cmocka_unit_test(test_each_allocation_failing_once_is_an_error_without_a_leak),
        cmocka_unit_test(test_a_memory_lock_limit_is_kept_and_said),
        cmocka_unit_test(test_a_file_cut_between_sweeps_is_noticed),
        cmocka_unit_test(test_a_file_cut_within_a_sweep_makes_the_sweep_count_for_nothing),
        cmocka_unit_test(test_a_file_written_to_is_noticed_within_the_sweep),
        cmocka_unit_test(test_a_file_replaced_by_another_name_stays_the_one_that_was_opened),
        cmocka_unit_test(test_a_budget_that_is_not_applied_shows),
        cmocka_unit_test(test_direct_reads_that_became_buffered_show),
        cmocka_unit_test(test_everything_read_twice_shows_in_the_closure),
        cmocka_unit_test(test_wired_memory_that_is_not_there_shows),
        cmocka_unit_test(test_a_slot_filled_from_the_wrong_place_is_caught_by_verifying),
        cmocka_unit_test(test_what_is_verified_from_the_page_cache_is_not_counted_from_disk),
        cmocka_unit_test(test_a_control_group_of_the_budget_is_never_exceeded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
