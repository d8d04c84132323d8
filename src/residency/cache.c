/* cache.c - mode cache: the page cache holds the weights, views point into mappings.
 *
 * A thread goes through the swept extents in schedule order, ahead of the first sweep: it asks the
 * kernel for the next AHEAD_BYTES and then waits for the oldest step, which enters its pages into
 * the page table, so that computing never faults. What is missing from the page cache is counted
 * just before it is asked for: that is what moves from disk. Experts' parts and single rows are
 * asked for when they are needed.
 *
 * The mappings take no readahead of their own (sys_map_random), so nothing moves that is not
 * counted here. When the kernel has evicted pages since, the process has had major faults: the
 * thread then goes through everything again, and what it finds missing is a reload.
 *
 * Invariants:
 *   ready_bytes of an extent only grows while the thread's pass lasts; those bytes were in memory
 *   the ledger is written by the engine thread alone: the thread leaves its counts in `found`
 *
 * Threads: the engine thread calls; one thread reads ahead. `lock` guards what is not atomic. */
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "residency/internal.h"
#include "sys/facts.h"

enum {
    STEP_BYTES = 2 << 20,
    AHEAD_STEPS = 12,
    VIEW_BYTES_LEAST = 256 << 10, /* smaller ones are not worth a job of their own */
};

struct extent_state {
    _Atomic uint64_t ready_bytes;                 /* from the start on, in memory; parts: 0 */
    _Atomic uint64_t moved_bytes, rounding_bytes; /* counted, not posted yet */
};

struct step {
    uint32_t extent;
    uint64_t start, bytes; /* within the extent */
};

struct cache {
    struct residency *r;          /* borrowed */
    struct sys_map *maps;         /* owned [r->n_files] */
    struct extent_state *extents; /* owned [r->n_extents] */
    bool *part_ready;             /* owned, of all EXPERT extents; first_part says where */
    uint32_t *first_part;         /* owned [r->n_extents] */
    uint64_t total_bytes;         /* of the swept extents */
    uint64_t major_faults;        /* of the process when the last sweep ended */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool stop, done;
    _Atomic int failed_errno; /* why the pass ended early */
    _Atomic uint64_t pass_bytes;
};

static const struct sys_file *file_of(const struct cache *c, uint32_t extent) {
    return &c->r->files[c->r->extents[extent].file];
}

/* Counts what of a range is not in the page cache, and asks for it. */
static void ask_for(struct cache *c, uint32_t extent, uint64_t start, uint64_t bytes) {
    const struct sys_file *file = file_of(c, extent);
    uint64_t page = sys_page_bytes();
    uint64_t from = c->r->extents[extent].offset + start;
    uint64_t pages_bytes = round_up(from + bytes, page) - from / page * page;
    uint64_t cached = sys_file_cached_range(file, from, bytes);
    if (cached >= pages_bytes) {
        return;
    }
    uint64_t moved = pages_bytes - cached;
    atomic_fetch_add(&c->extents[extent].moved_bytes, moved);
    atomic_fetch_add(&c->extents[extent].rounding_bytes, moved > bytes ? moved - bytes : 0);
    sys_file_will_need(file, from / page * page, pages_bytes);
}

/* Waits until a range is in memory. False with errno set where it cannot be read. */
static bool bring_in(struct cache *c, uint32_t extent, uint64_t start, uint64_t bytes) {
    const struct residency_extent *e = &c->r->extents[extent];
    return sys_map_populate(&c->maps[e->file], e->offset + start, bytes);
}

/* The step after the one given; false at the end of the schedule. */
static bool next_step(const struct cache *c, struct step *s) {
    const struct residency *r = c->r;
    uint64_t start = s->start + s->bytes;
    while (s->extent < r->n_extents && (r->extents[s->extent].contract != RESIDENCY_SWEEP ||
                                        start >= extent_bytes(&r->extents[s->extent]))) {
        s->extent++;
        start = 0;
    }
    if (s->extent == r->n_extents) {
        return false;
    }
    s->start = start;
    s->bytes = min_u64(STEP_BYTES, extent_bytes(&r->extents[s->extent]) - start);
    return true;
}

static void announce(struct cache *c) {
    pthread_mutex_lock(&c->lock);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void *read_ahead(void *arg) {
    struct cache *c = arg;
    struct step asked = {0}, waited = {0};
    bool more = next_step(c, &asked);
    uint32_t n_ahead = 0;
    while (!atomic_load(&c->stop) && next_step(c, &waited)) {
        while (more && n_ahead < AHEAD_STEPS) {
            ask_for(c, asked.extent, asked.start, asked.bytes);
            more = next_step(c, &asked);
            n_ahead++;
        }
        if (!bring_in(c, waited.extent, waited.start, waited.bytes)) {
            atomic_store(&c->failed_errno, errno != 0 ? errno : EIO);
            break;
        }
        n_ahead--;
        atomic_store(&c->extents[waited.extent].ready_bytes, waited.start + waited.bytes);
        atomic_fetch_add(&c->pass_bytes, waited.bytes);
        announce(c);
    }
    atomic_store(&c->done, true);
    announce(c);
    return NULL;
}

static void end_pass(struct cache *c) {
    if (c->has_thread) {
        atomic_store(&c->stop, true);
        pthread_join(c->thread, NULL);
        c->has_thread = false;
    }
}

static int begin_pass(struct cache *c, struct ot_error *err) {
    end_pass(c);
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        atomic_store(&c->extents[i].ready_bytes, 0);
    }
    atomic_store(&c->stop, false);
    atomic_store(&c->done, false);
    atomic_store(&c->failed_errno, 0);
    atomic_store(&c->pass_bytes, 0);
    int error = pthread_create(&c->thread, NULL, read_ahead, c);
    if (error != 0) {
        atomic_store(&c->done, true);
        atomic_store(&c->failed_errno, error);
        return error_sys(err, OT_ERR_MEMORY, error, "", "no thread to read ahead");
    }
    c->has_thread = true;
    return 0;
}

/* Writes what the thread counted to the ledger. */
static void post_counts(struct cache *c) {
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        uint64_t moved = atomic_exchange(&c->extents[i].moved_bytes, 0);
        uint64_t rounding = atomic_exchange(&c->extents[i].rounding_bytes, 0);
        if (moved == 0) {
            continue;
        }
        /* Every page once is the compulsory load; what comes after that came back. */
        uint64_t room = extent_bytes(&c->r->extents[i]) + 2 * sys_page_bytes();
        bool first = c->r->posted_bytes[i] + moved <= room;
        residency_post(c->r, i, first ? OT_CAUSE_LOAD : OT_CAUSE_RELOAD, moved,
                       first ? moved - rounding : 0, rounding);
    }
}

static uint64_t major_faults(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_majflt : 0;
}

static bool damaged(const struct cache *c, uint32_t *file) {
    for (uint32_t i = 0; i < c->r->n_files; i++) {
        if (sys_map_damaged(&c->maps[i])) {
            *file = i;
            return true;
        }
    }
    return false;
}

int cache_open(struct residency *r, struct cache **out, struct ot_error *err) {
    struct cache *c = mem_calloc(1, sizeof *c);
    if (c == NULL) {
        return error_memory(err, sizeof *c);
    }
    c->r = r;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    atomic_store(&c->done, true);
    uint32_t n_parts = 0;
    int code = OT_ERR_MEMORY;
    c->maps = mem_calloc(r->n_files, sizeof *c->maps);
    c->extents = mem_calloc(r->n_extents, sizeof *c->extents);
    c->first_part = mem_calloc(r->n_extents, sizeof *c->first_part);
    if (c->maps == NULL || c->extents == NULL || c->first_part == NULL) {
        goto no_memory;
    }
    for (uint32_t i = 0; i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        c->first_part[i] = n_parts;
        n_parts += e->contract == RESIDENCY_EXPERT ? e->n_parts : 0;
        c->total_bytes += e->contract == RESIDENCY_SWEEP ? extent_bytes(e) : 0;
    }
    c->part_ready = mem_calloc(n_parts, sizeof *c->part_ready);
    if (c->part_ready == NULL) {
        goto no_memory;
    }
    for (uint32_t i = 0; i < r->n_files; i++) {
        code = sys_map_open(&c->maps[i], &r->files[i], err);
        if (code != 0) {
            goto fail;
        }
        sys_map_random(&c->maps[i]);
    }
    code = begin_pass(c, err);
    if (code != 0) {
        goto fail;
    }
    c->major_faults = major_faults();
    *out = c;
    return 0;
no_memory:
    error_memory(err, r->n_extents * sizeof *c->extents);
fail:
    cache_close(c);
    return code;
}

void cache_close(struct cache *c) {
    if (c == NULL) {
        return;
    }
    end_pass(c);
    if (c->extents != NULL && c->part_ready != NULL) {
        post_counts(c);
    }
    for (uint32_t i = 0; c->maps != NULL && i < c->r->n_files; i++) {
        sys_map_close(&c->maps[i]);
    }
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->part_ready);
    mem_free(c->first_part);
    mem_free(c->extents);
    mem_free(c->maps);
    mem_free(c);
}

int cache_sweep_begin(struct cache *c, struct ot_error *err) {
    uint32_t file;
    bool again = atomic_load(&c->done) &&
                 (atomic_load(&c->failed_errno) != 0 || major_faults() > c->major_faults);
    if (damaged(c, &file)) {
        end_pass(c); /* the file is whole again (it was checked): lay it over the zeros */
        int code = sys_map_repair(&c->maps[file], &c->r->files[file], err);
        if (code != 0) {
            return code;
        }
        sys_map_random(&c->maps[file]);
        again = true;
    }
    if (again) {
        for (uint32_t i = 0; i < c->r->n_extents; i++) {
            const struct residency_extent *e = &c->r->extents[i];
            for (uint32_t p = 0; e->contract == RESIDENCY_EXPERT && p < e->n_parts; p++) {
                c->part_ready[c->first_part[i] + p] = false;
            }
        }
        return begin_pass(c, err);
    }
    return 0;
}

void cache_sweep_end(struct cache *c) {
    post_counts(c);
    if (atomic_load(&c->done)) {
        end_pass(c);
    }
    c->major_faults = major_faults();
}

int cache_sweep_check(struct cache *c, struct ot_error *err) {
    uint32_t file;
    if (damaged(c, &file)) {
        return error_set(err, OT_ERR_CHANGED, c->r->files[file].path,
                         "could no longer be read in places: it shrank, or its disk fails");
    }
    return 0;
}

static void report_progress(struct cache *c) {
    if (c->r->progress != NULL) {
        c->r->progress(c->r->progress_user, atomic_load(&c->pass_bytes), c->total_bytes);
    }
}

/* Waits until at least want_bytes of an extent are ready, or the pass has failed before them. */
static int wait_ready(struct cache *c, uint32_t extent, uint64_t want_bytes, struct ot_error *err) {
    uint64_t start_ns = clock_ns();
    pthread_mutex_lock(&c->lock);
    while (atomic_load(&c->extents[extent].ready_bytes) < want_bytes && !atomic_load(&c->done)) {
        pthread_cond_wait(&c->changed, &c->lock);
        report_progress(c);
    }
    pthread_mutex_unlock(&c->lock);
    c->r->wait_ns += clock_ns() - start_ns;
    if (atomic_load(&c->extents[extent].ready_bytes) >= want_bytes) {
        return 0;
    }
    int error = atomic_load(&c->failed_errno);
    const struct sys_file *file = file_of(c, extent);
    int code = sys_file_check(file, err);
    return code != 0 ? code : error_sys(err, OT_ERR_IO, error, file->path, "reading failed");
}

/* The same for one part of an EXPERT extent, read by the caller's own thread. */
static int bring_part(struct cache *c, uint32_t extent, uint32_t part, struct ot_error *err) {
    const struct residency_extent *e = &c->r->extents[extent];
    bool *ready = &c->part_ready[c->first_part[extent] + part];
    if (*ready) {
        return 0;
    }
    uint64_t bytes = part_bytes(e), start = part * bytes;
    uint64_t start_ns = clock_ns();
    ask_for(c, extent, start, bytes);
    bool there = bring_in(c, extent, start, bytes);
    int error = errno;
    c->r->wait_ns += clock_ns() - start_ns;
    if (!there) {
        const struct sys_file *file = file_of(c, extent);
        int code = sys_file_check(file, err);
        return code != 0 ? code : error_sys(err, OT_ERR_IO, error, file->path, "reading failed");
    }
    *ready = true;
    return 0;
}

int cache_acquire(struct cache *c, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                  struct residency_view *view, struct ot_error *err) {
    const struct residency_extent *e = &c->r->extents[extent];
    uint64_t start = row * e->row_bytes, rest = part_bytes(e) - start;
    uint32_t n_rows = e->n_rows - row;
    if (e->contract == RESIDENCY_EXPERT) {
        if (!wait && !c->part_ready[c->first_part[extent] + part]) {
            return 1;
        }
        int code = bring_part(c, extent, part, err);
        if (code != 0) {
            return code;
        }
        start += part * part_bytes(e);
    } else {
        uint64_t least = start + min_u64(max_u64(VIEW_BYTES_LEAST, e->row_bytes), rest);
        if (atomic_load(&c->extents[extent].ready_bytes) < least) {
            int code = wait ? wait_ready(c, extent, least, err) : 1;
            if (code != 0) {
                return code;
            }
        }
        uint64_t ready = atomic_load(&c->extents[extent].ready_bytes);
        n_rows = (uint32_t)min_u64(n_rows, (ready - start) / e->row_bytes);
    }
    *view = (struct residency_view){
        .data = c->maps[e->file].data + e->offset + start,
        .row = row,
        .n_rows = n_rows,
        .extent = extent,
        .part = part,
        .slot = NO_SLOT,
    };
    return 0;
}

void cache_want_parts(struct cache *c, uint32_t extent, const uint32_t *parts, uint32_t n_parts) {
    uint64_t bytes = part_bytes(&c->r->extents[extent]);
    for (uint32_t i = 0; i < n_parts; i++) {
        if (!c->part_ready[c->first_part[extent] + parts[i]]) {
            ask_for(c, extent, parts[i] * bytes, bytes);
        }
    }
}

int cache_rows(struct cache *c, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err) {
    const struct residency_extent *e = &c->r->extents[extent];
    uint64_t ready = atomic_load(&c->extents[extent].ready_bytes);
    for (uint32_t i = 0; i < n; i++) {
        if (ready < (rows[i] + 1) * e->row_bytes) {
            ask_for(c, extent, rows[i] * e->row_bytes, e->row_bytes);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = rows[i] * e->row_bytes;
        if (ready < start + e->row_bytes && !bring_in(c, extent, start, e->row_bytes)) {
            int error = errno;
            const struct sys_file *file = file_of(c, extent);
            int code = sys_file_check(file, err);
            return code != 0 ? code
                             : error_sys(err, OT_ERR_IO, error, file->path, "reading a row failed");
        }
        each(user, i, c->maps[e->file].data + e->offset + start);
    }
    return 0;
}
