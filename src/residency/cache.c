/* cache.c - mode cache: the page cache holds the weights, views point into mappings.
 *
 * Threads go through the swept extents in schedule order, ahead of the first sweep, one window of
 * the file (SYS_MAP_WINDOW) after the other: each is brought into the page cache and into the page
 * table, so that computing never faults. What is missing from the page cache is counted just
 * before: that is what moves from disk. Experts' parts and single rows are brought in when they are
 * needed.
 *
 * Windows that lie in swept extents alone are read as large pages. The rest of a mapping takes no
 * readahead of its own (sys_map_random). So nothing moves that is not counted here. To a user who
 * neither owns a file nor may write to it, it is not told what is in the page cache: then what the
 * kernel says that a thread has read while it brought a window in is what moved.
 *
 * Pages that the kernel evicted come back when they are computed from: by faults that wait for the
 * disk, which the kernel counts for the process, with the bytes. What it has counted over a sweep
 * beyond all that was asked for is a reload. The threads then go through everything again, before
 * it is computed from, and so they do where the process had such faults between two sweeps; what
 * they find missing is a reload, too.
 *
 * Invariants:
 *   steps before n_ready are in memory; ready_bytes of their extents says so
 *   the ledger is written by the engine thread alone: the others leave their counts in `found`
 *
 * Threads: the engine thread calls; N_READERS read ahead. `lock` and `count_lock` guard
 * what is not atomic. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "residency/internal.h"
#include "sys/facts.h"

enum { N_READERS = 6 };

/* Of a page: it comes for the first time, or comes back. */
enum trip { TRIP_FIRST, TRIP_AGAIN, N_TRIPS };

struct extent_state {
    _Atomic uint64_t ready_bytes; /* from the start on, in memory; parts: 0 */
    /* Counted, not posted yet; under count_lock. */
    uint64_t moved_bytes[N_TRIPS], rounding_bytes[N_TRIPS];
};

/* The part of an extent that lies in one window. */
struct step {
    uint32_t extent;
    bool done;
    bool large;            /* its window is read whole */
    uint64_t start, bytes; /* within the extent */
};

struct cache {
    struct residency *r;          /* borrowed */
    struct sys_map *maps;         /* owned [r->n_files] */
    struct extent_state *extents; /* owned [r->n_extents] */
    uint32_t *by_place;           /* owned [r->n_extents] in the order of file and offset */
    struct step *steps;           /* owned [n_steps] of swept extents, schedule order */
    uint32_t n_steps, n_ready;    /* n_ready under lock */
    bool *counted;                /* owned: windows of all files that were counted in this pass */
    uint64_t *first_window;       /* owned [r->n_files + 1] */
    uint8_t *had;                 /* owned bits: pages of all files that were asked for before */
    bool *part_ready;             /* owned, of all EXPERT extents; first_part says where */
    bool *part_counted;           /* owned, likewise: in this pass */
    uint32_t *first_part;         /* owned [r->n_extents] */
    uint64_t total_bytes;         /* of the swept extents */
    uint64_t faults_before;   /* major faults of the process when the last sweep ended; UINT64_MAX:
                                 the readers' own have come since, or may have */
    bool came_back;           /* the last sweep had pages back that were not asked for */
    bool watching;            /* since a moment when nobody read ahead: */
    struct sys_reads watched; /* what the kernel had counted then */
    uint64_t accounted_bytes; /* and we */

    pthread_t threads[N_READERS];
    uint32_t n_threads;
    pthread_mutex_t lock, count_lock;
    pthread_cond_t changed;
    _Atomic uint32_t next_step;
    _Atomic uint32_t n_running;
    atomic_bool stop;
    _Atomic int failed_errno; /* why the pass ended early */
    _Atomic uint64_t pass_bytes;
};

/* Reading ahead, of all caches of the process: what is counted may not have been read yet. */
static _Atomic uint32_t n_all_running;

static const struct sys_file *file_of(const struct cache *c, uint32_t extent) {
    return &c->r->files[c->r->extents[extent].file];
}

/* ---- counting what is missing ---- */

/* Bytes that [start, end) of a file and an extent share. */
static uint64_t overlap(const struct residency_extent *e, uint64_t start, uint64_t end) {
    uint64_t from = max_u64(start, e->offset), to = min_u64(end, e->offset + extent_bytes(e));
    return to > from ? to - from : 0;
}

/* The first extent, by place, that ends behind a place in a file. */
static uint32_t first_place(const struct cache *c, uint32_t file, uint64_t start) {
    uint32_t low = 0, high = c->r->n_extents;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct residency_extent *e = &c->r->extents[c->by_place[middle]];
        bool before = e->file != file ? e->file < file : e->offset + extent_bytes(e) <= start;
        low = before ? middle + 1 : low;
        high = before ? high : middle;
    }
    return low;
}

/* The end of a run of pages that are all of one extent, or of none; or one page, where an extent
 * begins or ends in it. */
static uint64_t run_end(const struct cache *c, uint32_t file, uint64_t start, uint64_t end) {
    const uint64_t page = sys_page_bytes();
    const uint32_t place = first_place(c, file, start);
    uint64_t border = end;
    if (place < c->r->n_extents && c->r->extents[c->by_place[place]].file == file) {
        const struct residency_extent *e = &c->r->extents[c->by_place[place]];
        border = e->offset > start ? e->offset : e->offset + extent_bytes(e);
    }
    return min_u64(end, max_u64(border / page * page, start + page));
}

/* Shares `moved` of the bytes of a run out to the extents that lie there; what belongs to none that
 * is swept, nor to the one that is asked for, is rounding of that. */
static void share_out(struct cache *c, uint32_t extent, uint64_t start, uint64_t end,
                      uint64_t moved, enum trip trip) {
    const uint32_t file = c->r->extents[extent].file;
    uint64_t left = moved;
    for (uint32_t place = first_place(c, file, start); left > 0 && place < c->r->n_extents;
         place++) {
        uint32_t i = c->by_place[place];
        const struct residency_extent *e = &c->r->extents[i];
        if (e->file != file || e->offset >= end) {
            break;
        }
        if (i == extent || e->contract == RESIDENCY_SWEEP) {
            uint64_t part = overlap(e, start, end);
            uint64_t share = (uint64_t)((unsigned __int128)part * moved / (end - start));
            share = min_u64(share, min_u64(part, left));
            c->extents[i].moved_bytes[trip] += share;
            left -= share;
        }
    }
    c->extents[extent].moved_bytes[trip] += left;
    c->extents[extent].rounding_bytes[trip] += left;
}

/* The bytes of the pages [start, end) of a file that were asked for before; afterwards all were. */
static uint64_t had_before(struct cache *c, uint32_t file, uint64_t start, uint64_t end) {
    const uint64_t page = sys_page_bytes();
    uint64_t bit = c->first_window[file] * (SYS_MAP_WINDOW / page) + start / page, n = 0;
    for (uint64_t at = start; at < end; at += page, bit++) {
        n += c->had[bit / 8] >> (bit % 8) & 1;
        c->had[bit / 8] = (uint8_t)(c->had[bit / 8] | 1u << (bit % 8));
    }
    return n * page;
}

/* The part of told bytes of [start, end) that lies before a place. */
static uint64_t told_before(uint64_t told, uint64_t start, uint64_t at, uint64_t end) {
    return (uint64_t)((unsigned __int128)told * (at - start) / (end - start));
}

/* Counts what was told to have come of the pages [start, end) of an extent's file, where it is not
 * told what was there before. Pages that came only in part, if so, may come for the first time yet.
 */
static void count_told(struct cache *c, uint32_t extent, uint64_t start, uint64_t end,
                       uint64_t told) {
    const uint32_t file = c->r->extents[extent].file;
    for (uint64_t at = start, next; told > 0 && at < end; at = next) {
        next = run_end(c, file, at, end);
        const uint64_t moved =
            told_before(told, start, next, end) - told_before(told, start, at, end);
        uint64_t again = moved >= next - at ? had_before(c, file, at, next) : 0;
        share_out(c, extent, at, next, moved - again, TRIP_FIRST);
        share_out(c, extent, at, next, again, TRIP_AGAIN);
    }
    residency_account(c->r, told);
}

/* Counts what of the pages [start, end) of an extent's file is missing. Returns how many bytes. */
static uint64_t count(struct cache *c, uint32_t extent, uint64_t start, uint64_t end) {
    const uint32_t file = c->r->extents[extent].file;
    uint64_t missing = 0;
    for (uint64_t at = start, next; at < end; at = next) {
        next = run_end(c, file, at, end);
        const uint64_t bytes = next - at;
        const uint64_t moved =
            bytes - min_u64(sys_file_cached_range(&c->r->files[file], at, bytes), bytes);
        const uint64_t first = min_u64(moved, bytes - had_before(c, file, at, next));
        share_out(c, extent, at, next, first, TRIP_FIRST);
        share_out(c, extent, at, next, moved - first, TRIP_AGAIN);
        missing += moved;
    }
    residency_account(c->r, missing);
    return missing;
}

/* The bytes of the file that come in for a range: its pages, or its window. What kernels may read
 * behind it comes with it, up to the end of the window: a fault there would bring in what nobody
 * counts. */
static void affected(const struct cache *c, uint32_t extent, uint64_t start, uint64_t bytes,
                     bool large, uint64_t *from, uint64_t *to) {
    const uint64_t unit = large ? SYS_MAP_WINDOW : sys_page_bytes();
    const uint64_t offset = c->r->extents[extent].offset + start, end = offset + bytes;
    *from = offset / unit * unit;
    *to = round_up(min_u64(end + OVERREAD_BYTES, round_up(end, SYS_MAP_WINDOW)), unit);
    *to = min_u64(*to, round_up(file_of(c, extent)->bytes, sys_page_bytes()));
}

static uint64_t thread_read_bytes(void) {
    struct sys_reads reads;
    sys_thread_reads(&reads);
    return reads.read_bytes;
}

/* Counts what of a range is not in the page cache, and asks for it. True where all of it is there:
 * then touching it takes no more than entries of the page table. Under count_lock, since two
 * extents may share a window, and what one thread brings in must not change what another counts: a
 * window is counted by the first that comes to it in a pass, before any brings it in.
 *
 * Where it is not told what is there, what the kernel says that this thread has read is counted. */
static bool ask_for(struct cache *c, uint32_t extent, uint64_t start, uint64_t bytes, bool large) {
    const struct sys_file *file = file_of(c, extent);
    uint64_t from, to;
    affected(c, extent, start, bytes, large, &from, &to);
    pthread_mutex_lock(&c->count_lock);
    bool counted = file->cache_unknown, all = false;
    if (large) {
        uint64_t window = c->first_window[c->r->extents[extent].file] + from / SYS_MAP_WINDOW;
        counted = counted || c->counted[window];
        c->counted[window] = true;
    } else if (file->cache_unknown) {
        uint64_t before = thread_read_bytes();
        sys_file_will_need(file, from, to - from);
        count_told(c, extent, from, to, thread_read_bytes() - before);
    }
    if (!counted) {
        all = count(c, extent, from, to) == 0;
        if (!all && !large) {
            sys_file_will_need(file, from, to - from);
        }
    }
    pthread_mutex_unlock(&c->count_lock);
    return all;
}

/* Waits until a range is in memory. False with errno set where it cannot be read. */
static bool bring_in(struct cache *c, uint32_t extent, uint64_t start, uint64_t bytes, bool large) {
    const struct residency_extent *e = &c->r->extents[extent];
    const bool unknown = file_of(c, extent)->cache_unknown;
    uint64_t from, to, before = unknown ? thread_read_bytes() : 0;
    affected(c, extent, start, bytes, large, &from, &to);
    uint64_t at = large ? e->offset + start : from, end = large ? at + bytes : to;
    bool there = sys_map_populate(&c->maps[e->file], at, end - at);
    if (unknown) {
        int error = errno;
        pthread_mutex_lock(&c->count_lock);
        count_told(c, extent, from, to, thread_read_bytes() - before);
        pthread_mutex_unlock(&c->count_lock);
        errno = error;
    }
    return there;
}

/* ---- reading ahead ---- */

/* Marks a step done, and lets the engine have what is ready without a gap. */
static void finish(struct cache *c, uint32_t index) {
    pthread_mutex_lock(&c->lock);
    c->steps[index].done = true;
    uint32_t before = c->n_ready;
    while (c->n_ready < c->n_steps && c->steps[c->n_ready].done) {
        const struct step *s = &c->steps[c->n_ready++];
        atomic_store(&c->extents[s->extent].ready_bytes, s->start + s->bytes);
        atomic_fetch_add(&c->pass_bytes, s->bytes);
    }
    if (c->n_ready > before) {
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

static void *read_ahead(void *arg) {
    struct cache *c = arg;
    while (!atomic_load(&c->stop)) {
        uint32_t i = atomic_fetch_add(&c->next_step, 1);
        if (i >= c->n_steps) {
            break;
        }
        const struct step *s = &c->steps[i];
        ask_for(c, s->extent, s->start, s->bytes, s->large);
        if (!bring_in(c, s->extent, s->start, s->bytes, s->large)) {
            atomic_store(&c->failed_errno, errno != 0 ? errno : EIO);
            atomic_store(&c->stop, true);
            break;
        }
        finish(c, i);
    }
    pthread_mutex_lock(&c->lock);
    atomic_fetch_sub(&n_all_running, 1);
    atomic_fetch_sub(&c->n_running, 1);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static bool pass_over(struct cache *c) {
    return atomic_load(&c->n_running) == 0;
}

/* Nothing is left to do, though threads may not have ended yet. */
static bool all_ready(struct cache *c) {
    pthread_mutex_lock(&c->lock);
    bool all = c->n_ready == c->n_steps;
    pthread_mutex_unlock(&c->lock);
    return all;
}

static void end_pass(struct cache *c) {
    if (c->n_threads > 0) {
        atomic_store(&c->stop, true);
        for (uint32_t i = 0; i < c->n_threads; i++) {
            pthread_join(c->threads[i], NULL);
        }
        c->n_threads = 0;
    }
}

static void begin_pass(struct cache *c) {
    end_pass(c);
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        atomic_store(&c->extents[i].ready_bytes, 0);
    }
    for (uint32_t i = 0; i < c->n_steps; i++) {
        c->steps[i].done = false;
    }
    for (uint64_t i = 0; i < c->first_window[c->r->n_files]; i++) {
        c->counted[i] = false;
    }
    c->n_ready = 0;
    atomic_store(&c->next_step, 0);
    atomic_store(&c->stop, false);
    atomic_store(&c->failed_errno, 0);
    atomic_store(&c->pass_bytes, 0);
    atomic_store(&c->n_running, N_READERS);
    atomic_fetch_add(&n_all_running, N_READERS);
    for (uint32_t i = 0; i < N_READERS; i++) {
        if (thread_start(&c->threads[c->n_threads], read_ahead, c) == 0) {
            c->n_threads++;
        } else if (i + 1 == N_READERS && c->n_threads == 0) {
            read_ahead(c); /* no thread may be made: this one reads everything first */
        } else {
            atomic_fetch_sub(&n_all_running, 1);
            atomic_fetch_sub(&c->n_running, 1);
        }
    }
}

/* Writes what the threads counted to the ledger: the first trip of each page is the compulsory
 * load, what comes after that came back. */
static void post_counts(struct cache *c) {
    pthread_mutex_lock(&c->count_lock);
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        struct extent_state *e = &c->extents[i];
        for (uint32_t t = 0; t < N_TRIPS; t++) {
            uint64_t moved = e->moved_bytes[t], rounding = e->rounding_bytes[t];
            if (moved > 0) {
                residency_post(c->r, i, t == TRIP_FIRST ? OT_CAUSE_LOAD : OT_CAUSE_RELOAD, moved,
                               t == TRIP_FIRST ? moved - rounding : 0, rounding);
            }
            e->moved_bytes[t] = e->rounding_bytes[t] = 0;
        }
    }
    pthread_mutex_unlock(&c->count_lock);
}

/* ---- what comes back unasked ---- */

/* Of an extent, what may be in the page table without the readers: all of a swept one, the parts
 * that are there. */
static uint64_t held_bytes(const struct cache *c, uint32_t extent) {
    const struct residency_extent *e = &c->r->extents[extent];
    uint64_t n = e->contract == RESIDENCY_SWEEP;
    for (uint32_t p = 0; e->contract == RESIDENCY_EXPERT && p < e->n_parts; p++) {
        n += c->part_ready[c->first_part[extent] + p];
    }
    return n * part_bytes(e);
}

/* It is not told of which extents they were: they are shared out by size. */
static void post_unasked(struct cache *c, uint64_t bytes) {
    uint64_t total = 0, before = 0;
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        total += held_bytes(c, i);
    }
    for (uint32_t i = 0; i < c->r->n_extents && total > 0; i++) {
        uint64_t end = before + held_bytes(c, i);
        uint64_t share = told_before(bytes, 0, end, total) - told_before(bytes, 0, before, total);
        if (share > 0) {
            residency_post(c->r, i, OT_CAUSE_RELOAD, share, 0, 0);
        }
        before = end;
    }
}

/* Begins to watch, where everything was read once and nobody reads ahead. */
static void watch(struct cache *c, const struct sys_reads *now) {
    if (!c->watching && pass_over(c) && atomic_load(&n_all_running) == 0) {
        c->watching = true;
        c->watched = *now;
        c->accounted_bytes = residency_accounted();
    }
}

/* Posts what has come back since then; later, where somebody reads ahead. A fault of ours brings no
 * more than a window: what else the process may have read meanwhile is not ours. */
static void settle_watch(struct cache *c, const struct sys_reads *now) {
    if (!c->watching || !pass_over(c) || atomic_load(&n_all_running) > 0) {
        return;
    }
    c->watching = false;
    uint64_t n_faults = now->n_major_faults - c->watched.n_major_faults;
    uint64_t system = now->read_bytes - c->watched.read_bytes;
    uint64_t ours = residency_accounted() - c->accounted_bytes;
    uint64_t unasked = min_u64(system - min_u64(ours, system), n_faults * SYS_MAP_WINDOW);
    c->came_back = unasked > 0;
    post_unasked(c, unasked);
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

/* ---- opening ---- */

/* True where a window has no byte of an extent that is not swept. */
static bool window_is_swept(const struct cache *c, uint32_t file, uint64_t window) {
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        const struct residency_extent *e = &c->r->extents[i];
        if (e->file == file && e->contract != RESIDENCY_SWEEP &&
            overlap(e, window, window + SYS_MAP_WINDOW) > 0) {
            return false;
        }
    }
    return true;
}

/* Sets the mappings' advice: large pages for the windows of swept extents that no other shares. */
static void advise(struct cache *c, uint32_t file) {
    sys_map_random(&c->maps[file]);
    for (uint32_t i = 0; i < c->n_steps; i++) {
        struct step *s = &c->steps[i];
        const struct residency_extent *e = &c->r->extents[s->extent];
        if (e->file != file) {
            continue;
        }
        uint64_t window = (e->offset + s->start) / SYS_MAP_WINDOW * SYS_MAP_WINDOW;
        bool whole = window + SYS_MAP_WINDOW <= c->maps[file].bytes;
        /* Only the first and the last window of an extent can be shared with another. */
        bool inner = s->bytes == SYS_MAP_WINDOW;
        s->large = whole && (inner || window_is_swept(c, file, window)) &&
                   sys_map_large(&c->maps[file], window, SYS_MAP_WINDOW);
    }
}

static uint32_t count_steps(const struct residency_extent *e) {
    uint64_t last = e->offset + extent_bytes(e) - 1;
    return (uint32_t)(last / SYS_MAP_WINDOW - e->offset / SYS_MAP_WINDOW + 1);
}

static void make_steps(struct cache *c) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        const struct residency_extent *e = &c->r->extents[i];
        for (uint64_t at = 0; e->contract == RESIDENCY_SWEEP && at < extent_bytes(e);) {
            uint64_t room = SYS_MAP_WINDOW - (e->offset + at) % SYS_MAP_WINDOW;
            uint64_t bytes = min_u64(room, extent_bytes(e) - at);
            c->steps[n++] = (struct step){.extent = i, .start = at, .bytes = bytes};
            at += bytes;
        }
    }
}

static const struct residency_extent *sorting; /* qsort hands nothing through; under sort_lock */
static pthread_mutex_t sort_lock = PTHREAD_MUTEX_INITIALIZER;

static int compare_places(const void *a, const void *b) {
    const struct residency_extent *x = &sorting[*(const uint32_t *)a];
    const struct residency_extent *y = &sorting[*(const uint32_t *)b];
    if (x->file != y->file) {
        return x->file < y->file ? -1 : 1;
    }
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void sort_by_place(struct cache *c) {
    for (uint32_t i = 0; i < c->r->n_extents; i++) {
        c->by_place[i] = i;
    }
    pthread_mutex_lock(&sort_lock);
    sorting = c->r->extents;
    qsort(c->by_place, c->r->n_extents, sizeof *c->by_place, compare_places);
    pthread_mutex_unlock(&sort_lock);
}

static int take_arrays(struct cache *c, struct ot_error *err) {
    const struct residency *r = c->r;
    uint64_t n_parts = 0, n_steps = 0;
    c->maps = mem_calloc(r->n_files, sizeof *c->maps);
    c->extents = mem_calloc(r->n_extents, sizeof *c->extents);
    c->first_part = mem_calloc(r->n_extents, sizeof *c->first_part);
    c->by_place = mem_calloc(r->n_extents, sizeof *c->by_place);
    if (c->maps == NULL || c->extents == NULL || c->first_part == NULL || c->by_place == NULL) {
        return error_memory(err, r->n_extents * sizeof *c->extents);
    }
    for (uint32_t i = 0; i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        c->first_part[i] = (uint32_t)n_parts;
        n_parts += e->contract == RESIDENCY_EXPERT ? e->n_parts : 0;
        if (e->contract == RESIDENCY_SWEEP) {
            n_steps += count_steps(e);
            c->total_bytes += extent_bytes(e);
        }
    }
    c->first_window = mem_calloc(r->n_files + 1, sizeof *c->first_window);
    if (c->first_window == NULL) {
        return error_memory(err, (r->n_files + 1) * sizeof *c->first_window);
    }
    for (uint32_t i = 0; i < r->n_files; i++) {
        c->first_window[i + 1] = c->first_window[i] + r->files[i].bytes / SYS_MAP_WINDOW + 1;
    }
    c->counted = mem_calloc(c->first_window[r->n_files], sizeof *c->counted);
    c->had = mem_calloc(c->first_window[r->n_files], SYS_MAP_WINDOW / sys_page_bytes() / 8);
    c->part_ready = mem_calloc(n_parts, sizeof *c->part_ready);
    c->part_counted = mem_calloc(n_parts, sizeof *c->part_counted);
    c->steps = mem_calloc(n_steps, sizeof *c->steps);
    c->n_steps = (uint32_t)n_steps;
    if (c->counted == NULL || c->had == NULL || c->part_ready == NULL || c->part_counted == NULL ||
        c->steps == NULL) {
        return error_memory(err, n_steps * sizeof *c->steps);
    }
    sort_by_place(c);
    make_steps(c);
    return 0;
}

int cache_open(struct residency *r, struct cache **out, struct ot_error *err) {
    struct cache *c = mem_calloc(1, sizeof *c);
    if (c == NULL) {
        return error_memory(err, sizeof *c);
    }
    c->r = r;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->count_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    int code = take_arrays(c, err);
    for (uint32_t i = 0; code == 0 && i < r->n_files; i++) {
        code = sys_map_open(&c->maps[i], &r->files[i], err);
        if (code == 0) {
            advise(c, i);
        }
    }
    if (code != 0) {
        cache_close(c);
        return code;
    }
    c->faults_before = UINT64_MAX;
    begin_pass(c);
    *out = c;
    return 0;
}

void cache_close(struct cache *c) {
    if (c == NULL) {
        return;
    }
    end_pass(c);
    if (c->extents != NULL && c->steps != NULL) {
        post_counts(c);
    }
    for (uint32_t i = 0; c->maps != NULL && i < c->r->n_files; i++) {
        sys_map_close(&c->maps[i]);
    }
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->count_lock);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->counted);
    mem_free(c->had);
    mem_free(c->first_window);
    mem_free(c->steps);
    mem_free(c->by_place);
    mem_free(c->part_ready);
    mem_free(c->part_counted);
    mem_free(c->first_part);
    mem_free(c->extents);
    mem_free(c->maps);
    mem_free(c);
}

int cache_sweep_begin(struct cache *c, struct ot_error *err) {
    uint32_t file;
    struct sys_reads now;
    sys_process_reads(&now);
    bool again = pass_over(c) && (!all_ready(c) || c->came_back ||
                                  now.n_major_faults > c->faults_before);
    watch(c, &now);
    while (damaged(c, &file)) {
        end_pass(c); /* the file is whole again (it was checked): lay it over the zeros */
        int code = sys_map_repair(&c->maps[file], &c->r->files[file], err);
        if (code != 0) {
            return code;
        }
        advise(c, file);
        again = true;
    }
    if (again) {
        c->came_back = false;
        for (uint32_t i = 0; i < c->r->n_extents; i++) {
            const struct residency_extent *e = &c->r->extents[i];
            for (uint32_t p = 0; e->contract == RESIDENCY_EXPERT && p < e->n_parts; p++) {
                c->part_ready[c->first_part[i] + p] = false;
                c->part_counted[c->first_part[i] + p] = false;
            }
        }
        begin_pass(c);
    }
    return 0;
}

void cache_sweep_end(struct cache *c, bool failed) {
    /* After a failure the threads stop at their next step: what they meet on the way belongs to this
     * sweep, not to the next, which begins anew. */
    if (pass_over(c) || all_ready(c) || failed) {
        end_pass(c);
    }
    post_counts(c);
    struct sys_reads now;
    sys_process_reads(&now);
    settle_watch(c, &now);
    c->faults_before = pass_over(c) ? now.n_major_faults : UINT64_MAX;
}

int cache_sweep_check(struct cache *c, struct ot_error *err) {
    uint32_t file;
    if (damaged(c, &file)) {
        return sys_map_fault(&c->r->files[file], err);
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
    while (atomic_load(&c->extents[extent].ready_bytes) < want_bytes && !pass_over(c)) {
        pthread_cond_wait(&c->changed, &c->lock);
        pthread_mutex_unlock(&c->lock); /* the caller's function may take its time */
        report_progress(c);
        pthread_mutex_lock(&c->lock);
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

/* Counts a part of an EXPERT extent and asks for it, once in a pass. */
static void want_part(struct cache *c, uint32_t extent, uint32_t part) {
    const uint64_t bytes = part_bytes(&c->r->extents[extent]);
    const uint32_t i = c->first_part[extent] + part;
    if (!c->part_counted[i]) {
        c->part_counted[i] = true;
        c->part_ready[i] = ask_for(c, extent, part * bytes, bytes, false);
    }
}

/* The same as wait_ready for one part, read by the caller's own thread. */
static int bring_part(struct cache *c, uint32_t extent, uint32_t part, struct ot_error *err) {
    const struct residency_extent *e = &c->r->extents[extent];
    bool *ready = &c->part_ready[c->first_part[extent] + part];
    if (*ready) {
        return 0;
    }
    uint64_t bytes = part_bytes(e), start = part * bytes;
    uint64_t start_ns = clock_ns();
    want_part(c, extent, part);
    bool there = bring_in(c, extent, start, bytes, false);
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
        uint64_t least = max_u64(VIEW_BYTES_LEAST, e->row_bytes + OVERREAD_BYTES);
        least = start + min_u64(least, rest);
        if (atomic_load(&c->extents[extent].ready_bytes) < least) {
            int code = wait ? wait_ready(c, extent, least, err) : 1;
            if (code != 0) {
                return code;
            }
        }
        uint64_t ready = atomic_load(&c->extents[extent].ready_bytes);
        if (ready < start + rest) { /* what may be read behind the view is in memory, too */
            n_rows = (uint32_t)min_u64(n_rows, (ready - start - OVERREAD_BYTES) / e->row_bytes);
        }
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

const uint8_t *cache_peek(const struct cache *c, uint32_t extent) {
    const struct residency_extent *e = &c->r->extents[extent];
    return c->maps[e->file].data + e->offset;
}

/* What is in the page cache needs no waiting: the threads that compute enter it into the page table
 * as they come to it, each its share. */
void cache_want_parts(struct cache *c, const struct residency_part *parts, uint32_t n_parts) {
    for (uint32_t i = 0; i < n_parts; i++) {
        if (c->r->extents[parts[i].extent].contract == RESIDENCY_EXPERT) {
            want_part(c, parts[i].extent, parts[i].part);
        }
    }
}

bool cache_has_part(const struct cache *c, uint32_t extent, uint32_t part) {
    return c->r->extents[extent].contract != RESIDENCY_EXPERT ||
           c->part_ready[c->first_part[extent] + part];
}

int cache_rows(struct cache *c, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err) {
    const struct residency_extent *e = &c->r->extents[extent];
    uint64_t ready = atomic_load(&c->extents[extent].ready_bytes);
    for (uint32_t i = 0; i < n; i++) {
        if (ready < (rows[i] + 1) * e->row_bytes) {
            ask_for(c, extent, rows[i] * e->row_bytes, e->row_bytes, false);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = rows[i] * e->row_bytes;
        if (ready < start + e->row_bytes && !bring_in(c, extent, start, e->row_bytes, false)) {
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
