/* internal.h - what the files of residency/ share.
 *
 *   residency.c  the public functions: choosing the mode, passing calls on, what is said about it
 *   cache.c      mode cache: mappings, and the thread that reads ahead into the page cache
 *   layout.c     modes wired and stream: which rows are wired, which are streamed, in which memory
 *   mover.c      modes wired and stream: reading ahead, slots, views
 *   reads.c      the reads themselves: issued, posted, checked
 *   lend.c       wired memory lent for a prompt's activations
 *   experts.c    parts of EXPERT extents on demand, kept by a policy
 *   policy.c     what is kept: one interface, a file policy_NAME.c for each; policy_order.c their
 *                lists and heaps
 *   bound.c      the least that any policy would have read of them
 *   rows.c       single rows
 *   touch.c      threads that bring memory in ahead of the reads
 *   trace.c      which bytes were used, to be simulated
 *   measure.c    the disk alone */
#ifndef RESIDENCY_INTERNAL_H
#define RESIDENCY_INTERNAL_H


#include "kernel/kernel.h"
#include "residency/residency.h"
#include "residency/trace.h"

/* Tensors below this are always wired: their reads are too small to stream. */
enum { SMALL_BYTES = 64 << 10 };
/* Views of less than this are not worth a job of their own, where more is on its way. */
enum { VIEW_BYTES_LEAST = 256 << 10 };
/* A view's data may be read this far beyond its last row. */
enum { OVERREAD_BYTES = KERNEL_OVERREAD };
enum { NO_SLOT = UINT32_MAX };

struct cache;
struct mover;
struct rows;

struct residency {
    const struct sys_file *files;     /* borrowed [n_files] */
    struct residency_extent *extents; /* owned [n_extents] */
    uint32_t last_extent;             /* of this sweep */
    uint32_t n_files, n_extents;
    uint64_t budget_bytes;
    enum ot_io io; /* asked for */
    struct ledger *ledger; /* borrowed */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;

    struct cache *cache; /* owned; exactly one of cache and mover is not NULL */
    struct mover *mover;
    struct residency_trace *trace; /* owned; NULL: none */
    bool *traced;          /* owned [n_items] used in this sweep already; NULL without a trace */
    uint32_t *trace_first; /* owned [n_extents] item of part 0 */

    const char *mode, *why;
    uint64_t trace_sweep, wait_ns;
    uint64_t brought_bytes; /* by reads, all extents together: from disk, or from the page cache */
    _Atomic uint64_t accounted_bytes; /* residency_account */
    uint64_t claimed_bytes; /* of what storage gave the process: belongs to reads that were posted */
    bool in_sweep;
    bool measuring; /* sweeps are no use of what they read */
};

static inline uint64_t part_bytes(const struct residency_extent *e) {
    return e->row_bytes * e->n_rows;
}
static inline uint64_t extent_bytes(const struct residency_extent *e) {
    return part_bytes(e) * e->n_parts;
}

/* Posts bytes that came from disk: moved, of which `rounding` were not asked for. */
void residency_post(struct residency *r, uint32_t extent, enum ot_cause cause, uint64_t moved_bytes,
                    uint64_t needed_bytes, uint64_t rounding_bytes);

/* Posts what a buffered read copied from the page cache; moved_bytes of it, which came from disk for
 * that, are posted already. */
void residency_post_copy(struct residency *r, uint32_t extent, uint64_t bytes,
                         uint64_t moved_bytes);

/* A read that has come, to be posted. */
struct residency_read {
    uint32_t extent;
    enum ot_cause cause;
    bool direct;
    uint64_t asked_bytes, got_bytes; /* got: fewer at the end of a file, or where a read ended early */
    uint64_t payload_bytes;          /* of them wanted */
    uint64_t cached_bytes;           /* not direct: of those asked for, in the page cache before */
    uint64_t needed_bytes;           /* in: at most; out, as posted */
    uint64_t moved_bytes, rounding_bytes; /* out, as posted */
};
/* A buffered read brings from disk what was not in the page cache, and copies all from there. Where
 * that is not told it is what storage gave the process and no other read has claimed. */
void residency_post_read(struct residency *r, struct residency_read *read);
/* No read is under way: what storage gave so far is nobody's. */
void residency_claim_anew(struct residency *r);

/* ---- cache.c ---- */
int cache_open(struct residency *r, struct cache **out, struct ot_error *err);
void cache_close(struct cache *c);
int cache_sweep_begin(struct cache *c, struct ot_error *err);
void cache_sweep_end(struct cache *c, bool failed);
int cache_sweep_check(struct cache *c, struct ot_error *err);
/* wait false: returns 1 where it would have to wait. */
int cache_acquire(struct cache *c, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                  struct residency_view *view, struct ot_error *err);
const uint8_t *cache_peek(const struct cache *c, uint32_t extent);
void cache_want_parts(struct cache *c, const struct residency_part *parts, uint32_t n_parts);
bool cache_has_part(const struct cache *c, uint32_t extent, uint32_t part);
int cache_rows(struct cache *c, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err);

/* ---- mover.c ---- */
int mover_open(struct residency *r, const struct residency_params *params, struct mover **out,
               struct ot_error *err);
void mover_close(struct mover *m);
void mover_sweep_begin(struct mover *m);
void mover_sweep_end(struct mover *m, bool failed);
int mover_acquire(struct mover *m, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                  struct residency_view *view, struct ot_error *err);
const uint8_t *mover_peek(const struct mover *m, uint32_t extent);
void mover_release(struct mover *m, const struct residency_view *view);
void mover_want_parts(struct mover *m, const struct residency_part *parts, uint32_t n_parts);
bool mover_settle_needs(struct mover *m);
bool mover_has_part(struct mover *m, uint32_t extent, uint32_t part);
int mover_rows(struct mover *m, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err);
/* Gives up the blocks that were read ahead; the next sweep reads them again. */
void mover_forget_ahead(struct mover *m);
/* See residency_lend. */
uint64_t lend(struct mover *m, uint64_t bytes);
uint64_t lend_most(const struct mover *m);
/* Takes in every read that is under way. */
void mover_settle(struct mover *m);
void mover_info(const struct mover *m, struct residency_info *info);
bool mover_check(const struct mover *m);

#endif
