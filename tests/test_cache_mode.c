/* test_cache_mode.c - mode cache: what the kernel took away and gives back, and what is asked for
 * piece by piece, is counted once, and under the right cause. */
#include "residency_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const struct fixture_options plain = {.seed = 21, .n_layers = 8, .n_files = 1};
static const struct fixture_options split = {.seed = 22, .n_layers = 8, .n_files = 2, .tied = true};
static const struct fixture_options mixture = {
    .seed = 23, .n_layers = 4, .n_files = 2, .experts = true};
static const struct fixture_options wide = {
    .seed = 24, .n_layers = 4, .n_files = 2, .tied = true, .wide = true};

static struct residency_params cache_params(struct fixture *f) {
    struct residency_params params = fixture_params(f, UINT64_MAX);
    params.residency = OT_RESIDENCY_CACHE;
    return params;
}

static uint64_t process_read_bytes(void) {
    struct sys_process p;
    sys_process_read(&p);
    return p.read_bytes;
}

static uint64_t cached_bytes(const struct fixture *f) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->n_files; i++) {
        sum += sys_file_cached_bytes(&f->files[i]);
    }
    return sum;
}

/* Cold, on a file system whose page cache can be emptied. */
static void open_cold(struct fixture *f, const struct fixture_options *options) {
    fixture_open(f, options);
    fixture_make_cold(f);
    if (cached_bytes(f) > 0) {
        fixture_close(f);
        print_message("skipped: this file system is a cache\n");
        skip();
    }
}

/* Takes the pages of a file's mappings, as the kernel does where memory is short. */
static void page_out(const char *path) {
    enum { ADVICE_PAGEOUT = 21 };
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long start, end;
        if (strstr(line, path + 1) != NULL && sscanf(line, "%lx-%lx", &start, &end) == 2) {
            madvise((void *)start, end - start, ADVICE_PAGEOUT);
        }
    }
    fclose(maps);
}

static void evict(struct fixture *f, struct residency *r) {
    for (uint32_t i = 0; i < f->n_files; i++) {
        page_out(f->paths[i]);
    }
    fixture_make_cold(f);
    if (cached_bytes(f) > 1 << 20) {
        residency_close(r);
        fixture_close(f);
        print_message("skipped: the kernel keeps the pages\n");
        skip();
    }
}

/* A fault of the process that waits for the disk: of a file of its own. */
static void fault_elsewhere(void) {
    char path[64];
    struct ot_error err;
    struct sys_file file;
    uint8_t page[4096] = {1};
    snprintf(path, sizeof path, "./elsewhere-%ld.bin", (long)getpid());
    assert_int_equal(sys_file_write(path, page, sizeof page, &err), 0);
    assert_int_equal(sys_file_open(&file, path, &err), 0);
    assert_int_equal(fsync(file.fd), 0);
    sys_file_drop(&file, 0, file.bytes);
    const volatile uint8_t *data = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file.fd, 0);
    assert_true(data != MAP_FAILED);
    assert_int_equal(data[0], 1);
    munmap((void *)(uintptr_t)data, 4096);
    sys_file_close(&file);
    unlink(path);
}

static struct ledger_counter of_extent(const struct fixture *f, uint32_t extent,
                                       enum ot_cause cause) {
    return *ledger_get(f->ledger, f->extents[extent].ledger_id, OT_DISK_RAM, cause);
}

static void test_each_byte_is_loaded_once_and_reloaded_when_it_comes_back(void **state) {
    (void)state;
    const struct fixture_options *all[] = {&plain, &split, &wide};
    for (uint32_t k = 0; k < 3; k++) {
        struct fixture f;
        open_cold(&f, all[k]);
        struct residency_params params = cache_params(&f);
        struct residency *r = walked(&f, &params, 2);
        for (uint32_t i = 0; i < f.n_extents; i++) {
            struct ledger_counter load = of_extent(&f, i, OT_CAUSE_LOAD);
            assert_int_equal(of_extent(&f, i, OT_CAUSE_RELOAD).moved_bytes, 0);
            if (f.extents[i].contract == RESIDENCY_SWEEP) {
                assert_int_equal(load.needed_bytes, fixture_extent_bytes(&f.extents[i]));
                assert_int_equal(load.moved_bytes - load.rounding_bytes, load.needed_bytes);
            }
        }
        evict(&f, r);
        const uint64_t left = cached_bytes(&f);
        fault_elsewhere();
        ledger_reset(f.ledger);
        struct ot_error err;
        assert_int_equal(walk(&f, r, &err), 0);
        uint64_t again = 0;
        for (uint32_t i = 0; i < f.n_extents; i++) {
            if (f.extents[i].contract == RESIDENCY_SWEEP) {
                assert_int_equal(of_extent(&f, i, OT_CAUSE_LOAD).moved_bytes, 0);
                again += of_extent(&f, i, OT_CAUSE_RELOAD).moved_bytes;
            }
        }
        assert_true(again + left >= fixture_sum(&f, RESIDENCY_SWEEP));
        assert_true(again <= fixture_sum(&f, RESIDENCY_SWEEP) + 8192 * f.n_extents);
        residency_close(r);
        fixture_close(&f);
    }
}

/* No other fault of the process tells of it before. */
static void test_what_computing_faults_back_is_reloaded(void **state) {
    (void)state;
    const struct fixture_options *all[] = {&plain, &mixture};
    for (uint32_t k = 0; k < 2; k++) {
        struct fixture f;
        open_cold(&f, all[k]);
        struct residency_params params = cache_params(&f);
        struct residency *r = walked(&f, &params, 3);
        struct ot_error err;
        for (uint32_t i = 0; i < 4; i++) {
            if (i % 2 == 0) {
                evict(&f, r);
            }
            ledger_reset(f.ledger);
            const uint64_t before = process_read_bytes();
            assert_int_equal(walk(&f, r, &err), 0);
            const uint64_t system = process_read_bytes() - before;
            struct ledger_counter reload = fixture_disk(&f, OT_CAUSE_RELOAD);
            const uint64_t counted = fixture_disk(&f, OT_CAUSE_COUNT).moved_bytes;
            assert_int_equal(reload.needed_bytes, 0);
            if (i % 2 == 0 && system > 0) { /* else the kernel counts no reads here */
                assert_true(reload.moved_bytes > fixture_sum(&f, RESIDENCY_SWEEP) / 2);
            }
            assert_in_range(counted, system / 100 * 99, system / 100 * 101 + 4096);
        }
        residency_close(r);
        fixture_close(&f);
    }
}

/* The kernel counts for the process, not for a context. */
static void test_what_another_context_reads_has_not_come_back(void **state) {
    (void)state;
    struct fixture f, other;
    struct fixture_options elsewhere = split;
    char directory[] = "./other-XXXXXX";
    elsewhere.directory = mkdtemp(directory);
    assert_non_null(elsewhere.directory);
    fixture_open(&other, &elsewhere);
    fixture_open(&f, &plain);
    struct residency_params params = cache_params(&f);
    struct residency *r = walked(&f, &params, 2);
    struct ot_error err;
    for (uint32_t i = 0; i < 3; i++) {
        const enum ot_residency modes[] = {OT_RESIDENCY_CACHE, OT_RESIDENCY_WIRED,
                                           OT_RESIDENCY_STREAM};
        struct residency_params params_other = fixture_params(&other, UINT64_MAX);
        params_other.residency = modes[i];
        ledger_reset(f.ledger);
        fixture_make_cold(&other);
        assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
        residency_close(walked(&other, &params_other, 2));
        fault_elsewhere();
        residency_sweep_end(r, false);
        assert_true(fixture_disk(&f, OT_CAUSE_COUNT).moved_bytes <= 65536);
    }
    residency_close(r);
    fixture_close(&other);
    fixture_close(&f);
    rmdir(directory);
}

/* Others of the extent may never have come. */
static void test_an_experts_part_that_comes_back_is_reloaded(void **state) {
    (void)state;
    struct fixture f;
    open_cold(&f, &mixture);
    struct residency_params params = cache_params(&f);
    struct ot_error err;
    struct residency *r;
    assert_int_equal(residency_open(&params, &r, &err), 0);
    uint32_t extent = 0;
    while (f.extents[extent].contract != RESIDENCY_EXPERT) {
        extent++;
    }
    const uint64_t part = fixture_extent_bytes(&f.extents[extent]) / MAX_PARTS;
    for (uint32_t i = 0; i < 2; i++) {
        struct residency_view view;
        assert_int_equal(residency_sweep_begin(r, f.n_extents - 1, &err), 0);
        assert_int_equal(residency_acquire(r, extent, 3, 0, &view, &err), 0);
        residency_release(r, &view);
        struct residency_view last; /* the readers have come to the end */
        assert_int_equal(residency_acquire(r, f.n_extents - 1, 0,
                                           f.extents[f.n_extents - 1].n_rows - 1, &last, &err),
                         0);
        residency_release(r, &last);
        residency_sweep_end(r, false);
        struct ledger_counter load = of_extent(&f, extent, OT_CAUSE_LOAD);
        struct ledger_counter reload = of_extent(&f, extent, OT_CAUSE_RELOAD);
        assert_in_range(load.moved_bytes, part, part + 2 * 4096);
        assert_in_range(reload.moved_bytes, i == 0 ? 0 : part, i == 0 ? 0 : part + 2 * 4096);
        assert_int_equal(reload.needed_bytes, 0);
        if (i == 0) {
            evict(&f, r);
            fault_elsewhere();
        }
    }
    residency_close(r);
    fixture_close(&f);
}

/* Kernels bring in no more at once than a disk reads ahead, here or there 8 MiB. */
static void test_large_parts_that_are_announced_are_counted_once(void **state) {
    (void)state;
    struct fixture f;
    fixture_begin(&f, &(struct fixture_options){.seed = 25, .n_files = 1});
    fixture_add(&f, 0, 3072, 4000, 2, RESIDENCY_EXPERT);
    fixture_add(&f, 0, 3072, 300, 1, RESIDENCY_SWEEP);
    fixture_end(&f);
    fixture_make_cold(&f);
    const bool cold = cached_bytes(&f) == 0;
    struct residency_params params = cache_params(&f);
    struct ot_error err;
    struct residency *r;
    struct residency_view view;
    const struct residency_part parts[] = {{0, 0}, {0, 1}, {1, 0}};
    const uint64_t before = process_read_bytes();
    assert_int_equal(residency_open(&params, &r, &err), 0);
    assert_int_equal(residency_sweep_begin(r, 1, &err), 0);
    residency_want_parts(r, parts, 3); /* the last is swept: of a model of one expert */
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(residency_acquire(r, parts[i].extent, parts[i].part, 0, &view, &err), 0);
        assert_true(view_is_true(&f, &view));
        residency_release(r, &view);
    }
    residency_sweep_end(r, false);
    residency_close(r);
    const uint64_t counted = fixture_disk(&f, OT_CAUSE_COUNT).moved_bytes;
    const uint64_t system = process_read_bytes() - before;
    assert_true(counted <= f.n_bytes[0] + 8192);
    assert_int_equal(fixture_disk(&f, OT_CAUSE_RELOAD).moved_bytes, 0);
    if (cold && system > 0) {
        assert_int_equal(counted, system);
    }
    fixture_close(&f);
}

/* Kernels read a little beyond the last row. */
static void test_what_lies_behind_a_view_is_counted_too(void **state) {
    (void)state;
    struct fixture f;
    fixture_begin(&f, &(struct fixture_options){.seed = 26, .n_files = 1});
    f.n_bytes[0] = 4096; /* so that the extent ends with a page */
    fixture_add(&f, 0, 1024, 8, 1, RESIDENCY_SWEEP);
    f.extents[0].offset = 4096;
    f.n_bytes[0] = 4096 + 8192;
    fixture_add(&f, 0, 1024, 64, 1, RESIDENCY_ROWS);
    fixture_end(&f);
    fixture_make_cold(&f);
    const bool cold = cached_bytes(&f) == 0;
    struct residency_params params = cache_params(&f);
    struct ot_error err;
    struct residency *r;
    struct residency_view view;
    const uint64_t before = process_read_bytes();
    assert_int_equal(residency_open(&params, &r, &err), 0);
    assert_int_equal(residency_sweep_begin(r, 0, &err), 0);
    assert_int_equal(residency_acquire(r, 0, 0, 0, &view, &err), 0);
    assert_true(view_is_true(&f, &view));
    residency_release(r, &view);
    residency_sweep_end(r, false);
    const uint64_t system = process_read_bytes() - before;
    if (cold && system > 0) {
        assert_int_equal(fixture_disk(&f, OT_CAUSE_LOAD).moved_bytes, system);
        assert_int_equal(fixture_disk(&f, OT_CAUSE_LOAD).needed_bytes, 8192);
    }
    residency_close(r);
    fixture_close(&f);
}

/* ---- a user who is not told ---- */

static bool is_about(uint64_t counted, uint64_t system, uint32_t percent) {
    uint64_t room = system / 100 * percent;
    if (counted + room >= system && counted <= system + room) {
        return true;
    }
    print_error("counted %llu, the system %llu\n", (unsigned long long)counted,
                (unsigned long long)system);
    return false;
}

/* Walks, and compares the ledger with the kernel. NULL, or what is wrong. */
static const char *run_untold(struct fixture *f, const struct residency_params *params, bool warm) {
    struct ot_error err;
    struct residency *r;
    struct residency_info info;
    uint8_t *all = malloc(f->n_bytes[0] + f->n_bytes[1]);
    fixture_make_cold(f);
    for (uint32_t i = 0; warm && i < f->n_files; i++) {
        if (sys_file_read(&f->files[i], 0, all, f->n_bytes[i], &err) != 0) {
            return "the file cannot be read";
        }
    }
    free(all);
    ledger_reset(f->ledger);
    const uint64_t before = process_read_bytes();
    if (residency_open(params, &r, &err) != 0) {
        return "cannot be opened";
    }
    for (uint32_t i = 0; i < 3; i++) {
        if (walk(f, r, &err) != 0) {
            return "a sweep failed";
        }
    }
    residency_get_info(r, &info);
    const uint64_t system = process_read_bytes() - before;
    const uint64_t counted = fixture_disk(f, OT_CAUSE_COUNT).moved_bytes;
    const uint64_t least = warm ? 0 : fixture_sum(f, RESIDENCY_SWEEP);
    residency_close(r);
    if (!info.cache_unknown) {
        return "it does not say so";
    }
    if (strcmp(info.mode, "cache") == 0 && fixture_disk(f, OT_CAUSE_RELOAD).moved_bytes > 65536) {
        return "what came once is posted as reload";
    }
    if (warm && strcmp(info.mode, "cache") == 0 && counted > 0) {
        return "what was in the page cache is counted";
    }
    return is_about(counted, system, 1) && counted >= least ? NULL : "the ledger is not closed";
}

/* As another user, who may read the files. */
static const char *all_untold(struct fixture *f) {
    struct ot_error err;
    for (uint32_t i = 0; i < f->n_files; i++) {
        sys_file_close(&f->files[i]);
    }
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) {
        return "cannot become another user";
    }
    prctl(PR_SET_DUMPABLE, 1); /* else it may not look at its own /proc */
    for (uint32_t i = 0; i < 4; i++) {
        setenv("ONETRIP_NO_DIRECT", "1", 1);
        for (uint32_t k = 0; k < f->n_files; k++) {
            if (sys_file_open(&f->files[k], f->paths[k], &err) != 0) {
                _exit(77);
            }
            if (!f->files[k].cache_unknown || sys_file_cached_bytes(&f->files[k]) != 0) {
                return "the file does not say that its pages are not told";
            }
        }
        struct residency_params params = cache_params(f);
        if (i >= 2) {
            params = fixture_params(f, fixture_sum(f, RESIDENCY_SWEEP) / 2 + (1 << 20));
        }
        const char *wrong = run_untold(f, &params, i % 2 == 1);
        if (wrong != NULL) {
            print_error("way %u: ", i);
            return wrong;
        }
        for (uint32_t k = 0; k < f->n_files; k++) {
            sys_file_close(&f->files[k]);
        }
    }
    return NULL;
}

static void test_who_is_not_told_what_is_cached_counts_what_the_kernel_counts(void **state) {
    (void)state;
    struct fixture f;
    if (geteuid() != 0) {
        print_message("skipped: no file of another user can be made\n");
        skip();
    }
    open_cold(&f, &mixture);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const char *wrong = all_untold(&f);
        if (wrong != NULL) {
            print_error("%s\n", wrong);
        }
        _exit(wrong == NULL ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    fixture_close(&f);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("skipped: another user cannot come here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_byte_is_loaded_once_and_reloaded_when_it_comes_back),
        cmocka_unit_test(test_what_computing_faults_back_is_reloaded),
        cmocka_unit_test(test_what_another_context_reads_has_not_come_back),
        cmocka_unit_test(test_an_experts_part_that_comes_back_is_reloaded),
        cmocka_unit_test(test_large_parts_that_are_announced_are_counted_once),
        cmocka_unit_test(test_what_lies_behind_a_view_is_counted_too),
        cmocka_unit_test(test_who_is_not_told_what_is_cached_counts_what_the_kernel_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
