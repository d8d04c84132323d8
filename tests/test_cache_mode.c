/* test_cache_mode.c - mode cache: what the kernel took away and gives back, and what is asked for
 * piece by piece, is counted once, and under the right cause. */
#include "residency_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_byte_is_loaded_once_and_reloaded_when_it_comes_back),
        cmocka_unit_test(test_an_experts_part_that_comes_back_is_reloaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
