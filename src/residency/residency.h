/* residency.h - where every weight byte lives, and the only way it gets there.
 *
 * The model declares its extents (one per tensor, in schedule order) with a contract each; residency
 * decides, from the budget, which row ranges are wired and which are streamed, reads them, posts
 * every byte to the ledger, and hands out views: pointers to rows in the file's own layout.
 *
 * Modes (struct residency_info.mode):
 *   cache   the files are mapped; a view is a pointer into the mapping
 *   wired   own memory, filled once by direct reads (ahead of the first sweep)
 *   stream  a fixed, evenly spread part is wired; the rest passes through slots every sweep, in
 *           schedule order, read ahead by direct reads straight into the slot
 *
 * Contracts:
 *   SWEEP   every row, once per sweep, in schedule order
 *   ROWS    single rows on demand (token embedding); never read as a whole
 *   EXPERT  a tensor of n_parts equal parts (experts); a sweep uses those that are asked for
 *
 * Invariants, checked by residency_check():
 *   wired_bytes + slot_bytes <= budget for weights
 *   a slot that a view points into is never refilled before residency_release
 *
 * Threads: the engine thread calls; reads complete on others. */
#ifndef RESIDENCY_RESIDENCY_H
#define RESIDENCY_RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "ledger/ledger.h"
#include "onetrip.h"
#include "sys/file.h"

enum residency_contract { RESIDENCY_SWEEP, RESIDENCY_ROWS, RESIDENCY_EXPERT };

struct residency_extent {
    uint32_t file;      /* index into files */
    uint64_t offset;    /* of row 0 in that file */
    uint64_t row_bytes;
    uint32_t n_rows;    /* of one part; rows of all parts follow each other */
    uint32_t n_parts;   /* 1, or the number of experts */
    enum residency_contract contract;
    bool also_rows;     /* a SWEEP extent that residency_row is called on too (tied embeddings) */
    uint32_t ledger_id;
};

struct residency_params {
    const struct sys_file *files; /* [n_files] borrowed, open */
    uint32_t n_files;
    const struct residency_extent *extents; /* [n_extents] in schedule order; copied */
    uint32_t n_extents;
    uint64_t weights_budget_bytes; /* for wired bytes and slots together; UINT64_MAX: none */
    enum ot_residency residency;   /* AUTO: chosen here, from budget and sizes */
    enum ot_io io;
    struct ledger *ledger;         /* borrowed */
    const char *trace_path;
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
};

struct residency;

/* The least weights_budget_bytes that residency_open accepts for these extents. */
uint64_t residency_least_bytes(const struct residency_extent *extents, uint32_t n_extents);
/* The least with which nothing that sweeps use has to be streamed from own memory. */
uint64_t residency_wired_bytes(const struct residency_extent *extents, uint32_t n_extents);
/* What residency holds beside that budget to keep account of these extents, at most. */
uint64_t residency_table_bytes(const struct residency_extent *extents, uint32_t n_extents);
/* The least with which all of them fit the page cache, in whole pages: also what no sweep reads as a
 * whole. */
uint64_t residency_cache_bytes(const struct residency_extent *extents, uint32_t n_extents);

int residency_open(const struct residency_params *params, struct residency **out,
                   struct ot_error *err);
void residency_close(struct residency *r);
/* True in mode cache. */
bool residency_in_cache(const struct residency *r);

/* Brackets one pass over the schedule. Prefetch starts at begin (and, for the next sweep, already
 * at the end of the one before, where slots are free).
 * last_extent: the sweep ends after this extent (a prompt chunk that wants no logits leaves the
 * output head out): n_extents - 1 for all. Blocks read ahead beyond it stay for the next sweep where
 * that is possible, else they are posted as prefetch_wasted. */
int residency_sweep_begin(struct residency *r, uint32_t last_extent, struct ot_error *err);
/* Whether what was computed in this sweep may be used: CHANGED where a file was written to or cut
 * while it was read; IO where a mapped page could not be read, or the trace cannot be written. To be
 * called once before the results of a sweep count; then residency_sweep_end(r, failed). */
int residency_sweep_check(struct residency *r, struct ot_error *err);
/* failed: the sweep was broken off; slots are freed, the next sweep starts clean. */
void residency_sweep_end(struct residency *r, bool failed);

struct residency_view {
    const uint8_t *data; /* first row; KERNEL_OVERREAD readable bytes follow the last */
    uint32_t row, n_rows; /* rows of the extent's part */
    uint32_t extent, part;
    uint32_t slot; /* private */
};

/* Gives rows from `row` on of an extent (of its part): as many as lie contiguous and are wired, or
 * the block of them that was read. Blocks until the bytes are there; the time waited is counted.
 * The rows of an extent are asked for in order, extents in schedule order (a part may be skipped).
 * Errors: IO, CHANGED; the view is not filled, the sweep must end. */
int residency_acquire(struct residency *r, uint32_t extent, uint32_t part, uint32_t row,
                      struct residency_view *view, struct ot_error *err);
/* The same if that takes no waiting: returns 0 and fills the view, or 1: not there yet, no slot is
 * free while the caller holds views, or it has been given enough to compute before it asks on; release
 * what you hold and call residency_acquire. */
int residency_try(struct residency *r, uint32_t extent, uint32_t part, uint32_t row,
                  struct residency_view *view, struct ot_error *err);
void residency_release(struct residency *r, const struct residency_view *view);
/* Where row 0 of an extent's only part lies, or will; NULL where that is not settled, because it is
 * streamed or has parts. For prefetching: the bytes need not be there yet. */
const uint8_t *residency_peek(const struct residency *r, uint32_t extent);
/* Between sweeps: lends the caller `bytes` of the memory that wired rows have, until the next call (0
 * ends the loan). Experts' parts are evicted for it first. Of wired rows, those without memory are
 * streamed meanwhile, and come back at their next use after it. Returns the bytes lent: fewer where
 * less is held, 0 in mode cache. The caller gives its memory back to the system before it ends the
 * loan. */
uint64_t residency_lend(struct residency *r, uint64_t bytes);
/* The most that residency_lend would lend. */
uint64_t residency_lend_most(const struct residency *r);
/* A part of an EXPERT extent. */
struct residency_part {
    uint32_t extent, part;
};
/* Tells which parts this sweep will ask for, so that reads can start: those that are missing are read
 * in this order, and those that are held stay until they were used. */
void residency_want_parts(struct residency *r, const struct residency_part *parts,
                          uint32_t n_parts);
/* Whether a view of the whole part can be had without waiting. */
bool residency_has_part(struct residency *r, uint32_t extent, uint32_t part);

/* Single rows of a ROWS (or also_rows) extent: calls each(user, i, bytes of rows[i]) once for every i
 * < n, in any order, on the calling thread; data is valid during the call. A row that is asked for
 * more than once in one call is read once; rows that are not resident are read with many reads in
 * flight (a prompt asks for thousands). May be called before sweep_begin or within a sweep. */
typedef void residency_row_fn(void *user, uint32_t i, const uint8_t *data);
int residency_rows(struct residency *r, uint32_t extent, const uint32_t *rows, uint32_t n,
                   residency_row_fn *each, void *user, struct ot_error *err);

/* Time that the calls above have waited for bytes, since residency was opened. */
uint64_t residency_waited_ns(const struct residency *r);
/* Bytes of models that this process reads, told before they are read: by a context's residency, or
 * (NULL) by a model that is being opened. What the kernel counts beyond them in mode cache are pages
 * that it took away and that came back unasked. */
void residency_account(struct residency *r, uint64_t bytes);
/* All that was told so far, by whom ever, and by one. */
uint64_t residency_accounted(void);
uint64_t residency_accounted_by(const struct residency *r);

struct residency_info {
    const char *mode; /* "cache", "wired", "stream" */
    const char *why;  /* one phrase */
    const char *io;   /* "mmap", "io_uring direct", "threads direct", "threads buffered", ... */
    uint64_t wired_bytes, locked_bytes, slot_bytes, streamed_bytes_per_sweep;
    uint64_t resident_bytes; /* of the wired ones, as mincore says now */
    uint64_t unread_bytes;   /* of the wired ones: not come to yet, or lent and not come back */
    uint64_t brought_bytes;  /* by reads: from disk, or copied from the page cache */
    bool cache_unknown; /* it is not told what was in the page cache: what came from disk is the kernel's
                           count of what was read */
    uint64_t n_reads, n_reads_direct; /* that brought what was asked for; of them really direct */
};
/* Before the ledger's needed bytes are read: of experts' parts that were evicted and came again, what
 * had to come is known only from all uses (Belady's MIN on their trace, at this budget), and is
 * computed here. Takes a fraction of a second. False where it is not known, because the trace has
 * outgrown its memory, or there is none: needed is then what came for the first time. */
bool residency_settle_needs(struct residency *r);
/* Waits for the reads under way, so that the ledger holds them too. */
void residency_get_info(struct residency *r, struct residency_info *info);

/* Reads what sweeps stream, for a quarter of a second or 64 sweeps (or, where nothing is streamed,
 * once what a cold start reads), without computing. bytes: of one sweep. stop may be NULL. Errors: IO,
 * CHANGED, MEMORY, INTERRUPTED. */
int residency_measure_disk(struct residency *r, volatile const int *stop, double *bytes_per_s,
                           uint64_t *bytes, struct ot_error *err);

/* True where the invariants hold; for tests. */
bool residency_check(const struct residency *r);

#endif
