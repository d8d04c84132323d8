/* residency.c - the mode is chosen, and calls are passed on to what does them.
 *
 * Knows extents, a budget, and which of two ways brings bytes in: the page cache (cache.c), or own
 * memory that direct reads fill (mover.c). Writes the ledger for both.
 *
 * Threads: the engine thread only. */
#include "residency/residency.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/internal.h"
#include "sys/facts.h"

static _Atomic uint64_t accounted_bytes;

void residency_account(struct residency *r, uint64_t bytes) {
    atomic_fetch_add(&accounted_bytes, bytes);
    if (r != NULL) { /* after: what is one's is in all */
        atomic_fetch_add(&r->accounted_bytes, bytes);
    }
}

uint64_t residency_accounted(void) {
    return atomic_load(&accounted_bytes);
}

uint64_t residency_accounted_by(const struct residency *r) {
    return atomic_load(&r->accounted_bytes);
}

void residency_post(struct residency *r, uint32_t extent, enum ot_cause cause, uint64_t moved_bytes,
                    uint64_t needed_bytes, uint64_t rounding_bytes) {
    ledger_post_rounded(r->ledger, r->extents[extent].ledger_id, OT_DISK_RAM, cause, moved_bytes,
                        needed_bytes, rounding_bytes);
    r->brought_bytes += moved_bytes;
}

uint64_t residency_table_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    /* a part: its unit, its places in the policy, and what settling the needs takes for a while;
     * swept bytes: sections of half a MB or more, their blocks and pieces; flights and row buffers */
    enum { EXTENT_BYTES = 256, PART_BYTES = 160, SWEPT_SHARE = 4096, FIXED_BYTES = 64 << 10 };
    uint64_t bytes = FIXED_BYTES + (uint64_t)n_extents * EXTENT_BYTES;
    for (uint32_t i = 0; i < n_extents; i++) {
        const struct residency_extent *e = &extents[i];
        bytes += e->contract == RESIDENCY_EXPERT ? (uint64_t)e->n_parts * PART_BYTES : 0;
        bytes += e->contract == RESIDENCY_SWEEP ? extent_bytes(e) / SWEPT_SHARE : 0;
        bytes += e->contract == RESIDENCY_ROWS || e->also_rows ? e->n_rows / 8 : 0;
    }
    return bytes;
}

void residency_claim_anew(struct residency *r) {
    struct sys_reads reads;
    sys_process_reads(&reads);
    r->claimed_bytes = reads.read_bytes;
}

static uint64_t claim(struct residency *r, uint64_t most_bytes) {
    struct sys_reads reads;
    sys_process_reads(&reads);
    uint64_t given = reads.read_bytes - min_u64(r->claimed_bytes, reads.read_bytes);
    uint64_t bytes = min_u64(given, most_bytes);
    r->claimed_bytes += bytes;
    return bytes;
}

void residency_post_copy(struct residency *r, uint32_t extent, uint64_t bytes,
                         uint64_t moved_bytes) {
    r->brought_bytes += bytes - moved_bytes;
    ledger_post(r->ledger, r->extents[extent].ledger_id, OT_RAM_RAM, OT_CAUSE_COPY, bytes, 0);
}

void residency_post_read(struct residency *r, struct residency_read *read) {
    const uint64_t asked = max_u64(read->asked_bytes, read->got_bytes), got = read->got_bytes;
    uint64_t missing = got;
    if (read->direct) {
        r->claimed_bytes += got;
    } else if (r->files[r->extents[read->extent].file].cache_unknown) {
        missing = claim(r, got);
    } else {
        missing = asked - min_u64(read->cached_bytes, asked);
    }
    read->moved_bytes = min_u64(missing, got);
    read->needed_bytes = min_u64(read->needed_bytes, read->moved_bytes);
    read->rounding_bytes =
        min_u64(got - min_u64(read->payload_bytes, got), read->moved_bytes - read->needed_bytes);
    residency_post(r, read->extent, read->cause, read->moved_bytes, read->needed_bytes,
                   read->rounding_bytes);
    if (!read->direct) {
        residency_post_copy(r, read->extent, got, read->moved_bytes);
    }
}

uint64_t residency_cache_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n_extents; i++) {
        sum += extent_bytes(&extents[i]) + 2 * sys_page_bytes();
    }
    return sum;
}

static bool choose_cache(struct residency *r, enum ot_residency asked) {
    bool fits = residency_cache_bytes(r->extents, r->n_extents) <= r->budget_bytes;
    switch (asked) {
    case OT_RESIDENCY_CACHE:
        r->why = fits ? "asked for" : "cache was asked for, but the weights exceed the budget";
        return fits;
    case OT_RESIDENCY_WIRED:
        r->why = fits ? "asked for" : "wired was asked for, but the weights exceed the budget";
        return false;
    case OT_RESIDENCY_STREAM: r->why = "asked for"; return false;
    default: break;
    }
    r->why = fits ? "the weights fit the budget: shared, and warm for the next start"
                  : "the weights exceed the budget";
    return fits;
}

/* Declares what the trace will speak of: each part of each swept extent. */
static int open_trace(struct residency *r, const char *path, struct ot_error *err) {
    uint64_t n_items = 0;
    r->trace_first = mem_calloc(r->n_extents, sizeof *r->trace_first);
    if (r->trace_first == NULL) {
        return error_memory(err, r->n_extents * sizeof *r->trace_first);
    }
    int code = residency_trace_open(path, &r->trace, err);
    for (uint32_t i = 0; code == 0 && i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        const char *name = ledger_get_extent(r->ledger, e->ledger_id)->name;
        r->trace_first[i] = (uint32_t)n_items;
        for (uint32_t p = 0; code == 0 && e->contract != RESIDENCY_ROWS && p < e->n_parts; p++) {
            char label[256];
            uint32_t id;
            if (e->n_parts == 1) {
                snprintf(label, sizeof label, "%s", name);
            } else {
                snprintf(label, sizeof label, "%.240s/%u", name, p);
            }
            code = residency_trace_extent(r->trace, label, part_bytes(e), &id, err);
            n_items++;
        }
    }
    if (code == 0) {
        r->traced = mem_calloc(n_items, sizeof *r->traced);
        if (r->traced == NULL) {
            code = error_memory(err, n_items);
        }
    }
    return code;
}

static void trace_use(struct residency *r, uint32_t extent, uint32_t part) {
    if (r->trace == NULL || r->measuring) {
        return;
    }
    uint32_t item = r->trace_first[extent] + part;
    if (!r->traced[item]) {
        r->traced[item] = true;
        residency_trace_use(r->trace, r->trace_sweep, item, NULL); /* sweep_check gives the error */
    }
}

/* Also one that broke off is a sweep of its own. */
static void trace_sweep_end(struct residency *r) {
    r->trace_sweep += !r->measuring;
    for (uint32_t i = 0; r->trace != NULL && i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        for (uint32_t p = 0; e->contract != RESIDENCY_ROWS && p < e->n_parts; p++) {
            r->traced[r->trace_first[i] + p] = false;
        }
    }
}

static int copy_params(struct residency *r, const struct residency_params *params,
                       struct ot_error *err) {
    r->files = params->files;
    r->n_files = params->n_files;
    r->n_extents = params->n_extents;
    r->last_extent = params->n_extents - 1;
    r->budget_bytes = params->weights_budget_bytes;
    r->io = params->io;
    r->ledger = params->ledger;
    r->progress = params->progress;
    r->progress_user = params->progress_user;
    r->extents = mem_calloc(r->n_extents, sizeof *r->extents);
    if (r->extents == NULL) {
        return error_memory(err, r->n_extents * sizeof *r->extents);
    }
    for (uint32_t i = 0; i < r->n_extents; i++) {
        const struct residency_extent *e = &params->extents[i];
        uint64_t bytes, end;
        if (e->file >= r->n_files || !checked_mul(e->row_bytes, e->n_rows, &bytes) ||
            !checked_mul(bytes, e->n_parts, &bytes) || bytes == 0 ||
            !checked_add(e->offset, bytes, &end) || end > r->files[e->file].bytes) {
            return error_set(err, OT_ERR_ARGUMENT, "residency",
                             "extent %u does not lie inside its file", i);
        }
        r->extents[i] = *e;
    }
    return 0;
}

int residency_open(const struct residency_params *params, struct residency **out,
                   struct ot_error *err) {
    struct residency *r = mem_calloc(1, sizeof *r);
    if (r == NULL) {
        return error_memory(err, sizeof *r);
    }
    int code = copy_params(r, params, err);
    if (code == 0 && params->trace_path != NULL) {
        code = open_trace(r, params->trace_path, err);
    }
    if (code == 0 && choose_cache(r, params->residency)) {
        r->mode = "cache";
        code = cache_open(r, &r->cache, err);
    } else if (code == 0) {
        code = mover_open(r, params, &r->mover, err);
    }
    if (code != 0) {
        residency_close(r);
        return code;
    }
    *out = r;
    return 0;
}

void residency_close(struct residency *r) {
    if (r == NULL) {
        return;
    }
    cache_close(r->cache);
    mover_close(r->mover);
    residency_trace_close(r->trace, NULL);
    mem_free(r->traced);
    mem_free(r->trace_first);
    mem_free(r->extents);
    mem_free(r);
}

bool residency_in_cache(const struct residency *r) {
    return r->cache != NULL;
}

static int check_files(const struct residency *r, struct ot_error *err) {
    for (uint32_t i = 0; i < r->n_files; i++) {
        int code = sys_file_check(&r->files[i], err);
        if (code != 0) {
            return code;
        }
    }
    return 0;
}

int residency_sweep_begin(struct residency *r, uint32_t last_extent, struct ot_error *err) {
    r->last_extent = min_u32(last_extent, r->n_extents - 1);
    int code = check_files(r, err);
    if (code == 0 && r->cache != NULL) {
        code = cache_sweep_begin(r->cache, err);
    } else if (code == 0) {
        mover_sweep_begin(r->mover);
    }
    r->in_sweep = code == 0;
    return code;
}

int residency_sweep_check(struct residency *r, struct ot_error *err) {
    int code = check_files(r, err);
    if (code == 0 && r->cache != NULL) {
        code = cache_sweep_check(r->cache, err);
    }
    return code == 0 && r->trace != NULL ? residency_trace_flush(r->trace, err) : code;
}

void residency_sweep_end(struct residency *r, bool failed) {
    if (!r->in_sweep) {
        return;
    }
    r->in_sweep = false;
    if (r->cache != NULL) {
        cache_sweep_end(r->cache, failed);
    } else {
        mover_sweep_end(r->mover, failed);
    }
    trace_sweep_end(r);
}

static int acquire(struct residency *r, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                   struct residency_view *view, struct ot_error *err) {
    const struct residency_extent *e = extent < r->n_extents ? &r->extents[extent] : NULL;
    if (e == NULL || part >= e->n_parts || row >= e->n_rows) {
        return error_set(err, OT_ERR_ARGUMENT, "residency", "no row %u in part %u of extent %u",
                         row, part, extent);
    }
    int code = r->cache != NULL ? cache_acquire(r->cache, extent, part, row, wait, view, err)
                                : mover_acquire(r->mover, extent, part, row, wait, view, err);
    if (code == 0) {
        trace_use(r, extent, part);
    }
    return code;
}

int residency_acquire(struct residency *r, uint32_t extent, uint32_t part, uint32_t row,
                      struct residency_view *view, struct ot_error *err) {
    return acquire(r, extent, part, row, true, view, err);
}

int residency_try(struct residency *r, uint32_t extent, uint32_t part, uint32_t row,
                  struct residency_view *view, struct ot_error *err) {
    return acquire(r, extent, part, row, false, view, err);
}

void residency_release(struct residency *r, const struct residency_view *view) {
    if (r->mover != NULL) {
        mover_release(r->mover, view);
    }
}

const uint8_t *residency_peek(const struct residency *r, uint32_t extent) {
    if (r->extents[extent].contract != RESIDENCY_SWEEP) {
        return NULL;
    }
    return r->cache != NULL ? cache_peek(r->cache, extent) : mover_peek(r->mover, extent);
}

void residency_want_parts(struct residency *r, const struct residency_part *parts,
                          uint32_t n_parts) {
    if (r->cache != NULL) {
        cache_want_parts(r->cache, parts, n_parts);
    } else {
        mover_want_parts(r->mover, parts, n_parts);
    }
}

bool residency_has_part(struct residency *r, uint32_t extent, uint32_t part) {
    return r->cache != NULL ? cache_has_part(r->cache, extent, part)
                            : mover_has_part(r->mover, extent, part);
}

int residency_rows(struct residency *r, uint32_t extent, const uint32_t *rows, uint32_t n,
                   residency_row_fn *each, void *user, struct ot_error *err) {
    uint32_t n_rows = extent < r->n_extents ? r->extents[extent].n_rows : 0;
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i] >= n_rows) {
            return error_set(err, OT_ERR_ARGUMENT, "residency", "no row %u in extent %u", rows[i],
                             extent);
        }
    }
    return r->cache != NULL ? cache_rows(r->cache, extent, rows, n, each, user, err)
                            : mover_rows(r->mover, extent, rows, n, each, user, err);
}

uint64_t residency_lend(struct residency *r, uint64_t bytes) {
    return r->mover != NULL ? lend(r->mover, bytes) : 0;
}

uint64_t residency_lend_most(const struct residency *r) {
    return r->mover != NULL ? lend_most(r->mover) : 0;
}

bool residency_settle_needs(struct residency *r) {
    if (r->mover == NULL) {
        return true;
    }
    mover_settle(r->mover);
    return mover_settle_needs(r->mover);
}

uint64_t residency_waited_ns(const struct residency *r) {
    return r->wait_ns;
}

void residency_get_info(struct residency *r, struct residency_info *info) {
    if (r->mover != NULL) {
        mover_settle(r->mover);
    }
    *info = (struct residency_info){.mode = r->mode, .why = r->why, .io = "mmap"};
    for (uint32_t i = 0; i < r->n_files; i++) {
        bool buffered = r->cache != NULL || r->files[i].direct_fd < 0;
        info->cache_unknown = info->cache_unknown || (buffered && r->files[i].cache_unknown);
    }
    if (r->mover != NULL) {
        mover_info(r->mover, info);
    }
}

bool residency_check(const struct residency *r) {
    return (r->cache != NULL) != (r->mover != NULL) && (r->mover == NULL || mover_check(r->mover));
}
