/* mover.h - the state of modes wired and stream, shared by mover.c (pieces, blocks, views), reads.c
 * (issuing reads and taking them in), experts.c and rows.c.
 *
 * The cursor walks the schedule ahead of the engine: for each section the pieces of its wired run
 * that are not in memory yet, then its streamed blocks; at the end of the sweep it goes on with the
 * next. A block needs a free slot. Reads are issued when the engine calls, and run without it.
 *
 * Invariants, checked by mover_check():
 *   a slot with pins > 0 is READY and is never refilled
 *   block_slot[b] == s exactly when slot s holds, or is being filled with, block b
 *   n_filling == number of pieces that are being read
 *
 * Threads: the engine thread only. */
#ifndef RESIDENCY_MOVER_H
#define RESIDENCY_MOVER_H

#include <pthread.h>

#include "residency/internal.h"
#include "residency/layout.h"
#include "sys/reader.h"

enum state { EMPTY, READING, READY, FAILED };
/* Not yet: the caller does not wait. Read again: a read ahead failed, and the bytes are to be read
 * on demand before that counts as an error. */
enum { WAIT_NOT_YET = 1, WAIT_READ_AGAIN = 2 };
enum { TOUCH_THREADS = 2, FILL_DEPTH = 12, LEND_AHEAD = 4, NO_BLOCK = UINT32_MAX };

struct piece {
    uint32_t section;
    uint32_t lockable_bytes; /* of its whole pages, from the first on: what locking was granted for */
    uint32_t locked_bytes;   /* of them, now */
    uint8_t state; /* enum state */
    bool lent;     /* its memory is lent: read for its use, then dropped */
    bool seen;     /* it was read before; kept: and its memory was not lent then */
    bool kept;
    bool failed;   /* the last read of it failed; passing: as a disk's fault that may have passed */
    bool passing;
};

struct slot {
    uint8_t *memory;     /* in slots_memory */
    const uint8_t *data; /* of the first row */
    enum state state;
    uint32_t pins;
    uint32_t extent, part, row, n_rows;
    uint32_t block;      /* streamed block, or NO_BLOCK: of an expert's part */
    bool used;           /* a view was given of it */
    enum ot_cause cause; /* as posted when it was read, for the case that it is never used */
    uint64_t moved_bytes, needed_bytes, rounding_bytes;
    bool orphan;  /* nobody wants it any more: free it when it has been read */
    bool passing; /* FAILED, by a fault of the disk that may have passed */
};

/* Position in the schedule. */
struct cursor {
    uint32_t section;
    uint32_t sub; /* pieces, then blocks of the section */
    bool next_sweep;
};

/* One read under way; the reader's tag is its index. */
struct flight {
    enum flight_kind { FLIGHT_NONE, FLIGHT_PIECE, FLIGHT_SLOT, FLIGHT_UNIT, FLIGHT_ROW } kind;
    uint32_t index; /* piece, slot, unit or row buffer */
    uint32_t extent;
    uint64_t offset, bytes; /* in the file */
    uint64_t payload_bytes; /* of them wanted */
    uint64_t need_bytes;    /* from the start to the last one wanted */
    uint64_t got_bytes;     /* have come; with the payload, but not always all that was asked for */
    void *buf;
    bool direct, sampled;
    uint64_t cached_before; /* sampled, or not direct: bytes of the range in the page cache */
};

/* The threads that bring memory in (touch.c). */
struct touch {
    pthread_t threads[TOUCH_THREADS];
    uint32_t n_threads;
    bool begun;
    pthread_mutex_t lock; /* of what follows, but for what does not change */
    pthread_cond_t changed;
    bool stop;
    uint64_t next;           /* of the arena, then the frames: touched by nobody yet */
    uint64_t until;          /* is to be touched now */
    uint8_t *arena, *frames; /* borrowed */
    uint64_t arena_bytes, frames_bytes;
};

struct mover {
    struct residency *r; /* borrowed */
    struct layout layout;
    struct sys_reader *reader;
    struct flight *flights; /* owned [n_flights] */
    uint32_t *free_flights; /* owned, a stack */
    uint32_t n_flights, n_free_flights;
    uint64_t buffered_bytes; /* of flights that are not direct */

    uint8_t *arena, *slots_memory;
    struct touch touch;
    struct piece *pieces;   /* owned [layout.n_pieces] */
    uint32_t *pieces_ready; /* owned [layout.n_sections] from the first on, without a gap */
    uint32_t *block_slot;   /* owned [layout.n_blocks] */
    bool *block_seen;       /* owned [layout.n_blocks] it was read before */
    struct slot *slots;     /* owned [layout.n_slots] */
    uint32_t n_filling;
    bool lending;
    uint32_t n_lent_held; /* lent pieces that are in memory or on their way */
    bool fill_failed; /* a piece could not be read since the sweep began: the cursor starts over */
    struct cursor cursor;
    uint32_t at_extent, at_section; /* where the engine is */
    uint64_t at_once_bytes; /* of views, little more of which are given out while blocks are being
                               read */
    uint64_t given_bytes;   /* in views since the engine waited, or was told to */

    struct experts *experts; /* owned; NULL: no EXPERT extents */
    struct rows *rows;       /* owned; NULL: no single rows */

    struct ot_error failure; /* of the last read that failed */
    uint64_t filled_bytes;   /* of wired runs, for progress */
    uint64_t locked_bytes;
    uint64_t n_reads, n_reads_direct, n_reads_failed;
    uint64_t n_samples, n_samples_grown; /* direct reads looked at, and those that left pages */
    uint64_t n_reads_doubted; /* of those that are counted as direct: that left pages */
    bool buffered_found;                 /* O_DIRECT was asked for and had no effect */
    bool verify;                         /* compare what was read with a second read */
};

/* ---- reads.c ---- */

/* Issues a read of the sectors that hold [offset, offset + payload) of an extent's file to buf.
 * False where as many reads are in flight as there may be. */
bool reads_issue(struct mover *m, enum flight_kind kind, uint32_t index, uint32_t extent,
                 uint64_t offset, uint64_t payload_bytes, void *buf);
/* Takes in one completion; wait: sleeps until there is one, and counts the time. False where there
 * is none. */
bool reads_take(struct mover *m, bool wait);
const char *reads_name(const struct mover *m);
/* Of streamed bytes that came again: what Belady's bound would have moved too. */
uint64_t reads_needed_bytes(const struct mover *m, uint64_t payload_bytes);
/* For a caller that must give an error: what the last failed read said. */
int reads_failure(const struct mover *m, struct ot_error *err);
/* Whether that is a fault of the disk, which may have passed when it is asked again. Bytes that
 * came wrong, or a file that ends early, are none. */
bool reads_failure_may_pass(const struct mover *m);

/* ---- mover.c, for the others ---- */

/* Reads ahead as far as slots and the reader allow. */
void mover_pump(struct mover *m);
/* A free slot; makes one free by giving up the block that is needed last, where force is set.
 * NO_SLOT where there is none. */
uint32_t mover_take_slot(struct mover *m, bool force);
/* Where a piece lies in the arena. Returns how many bytes it occupies there. */
uint64_t mover_piece_place(const struct mover *m, uint32_t piece, uint64_t *arena_at);
/* Whether reading ahead may take another slot: where experts' parts need some too, streamed blocks
 * have one half of the slots and parts the other, so that neither drives out what the other read.
 */
bool mover_slots_to_spare(const struct mover *m, bool for_block);
/* Waits until a slot has been read; WAIT_NOT_YET, WAIT_READ_AGAIN (not where it was demanded, that
 * is, not read ahead), or an error. Frees it on failure. */
int mover_wait_slot(struct mover *m, uint32_t slot, bool wait, bool demanded, struct ot_error *err);
void mover_view_slot(struct mover *m, uint32_t slot, uint32_t row, struct residency_view *view);
/* A read of a slot or piece has ended. */
void mover_landed(struct mover *m, const struct flight *f, bool ok);

/* Whether the whole of a wired row is in memory now. */
bool mover_row_there(const struct mover *m, uint32_t extent, uint32_t row);

/* ---- touch.c ---- */
/* Starts, or goes on, to bring in the memory of the arena and of experts' frames, beside the reads
 * that fill it. */
void touch_begin(struct mover *m);
/* Frames up to end have been handed out. */
void touch_frames(struct mover *m, const uint8_t *end);
/* Stops that; must come before memory of the arena is given up. */
void touch_end(struct mover *m);

/* ---- lend.c ---- */
/* Whether a piece may be read now: few lent ones are in memory at a time. */
bool lend_may_read(const struct mover *m, uint32_t piece);
/* A piece that is in memory stays there: it is locked again where a loan has unlocked it. */
void lend_keep(struct mover *m, uint32_t piece);
/* A view of a wired run was given back: its lent pieces are dropped. */
void lend_released(struct mover *m, const struct residency_view *view);
/* After a sweep (failed: it broke off) or before one. */
void lend_between_sweeps(struct mover *m, bool failed);
bool lend_check(const struct mover *m);

/* ---- experts.c ---- */
int experts_open(struct mover *m, struct ot_error *err);
void experts_close(struct experts *x);
int experts_acquire(struct mover *m, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                    struct residency_view *view, struct ot_error *err);
void experts_want(struct mover *m, const struct residency_part *parts, uint32_t n_parts);
bool experts_has(const struct mover *m, uint32_t extent, uint32_t part);
void experts_release(struct mover *m, uint32_t unit);
void experts_pump(struct mover *m);
void experts_landed(struct mover *m, const struct flight *f, bool ok);
bool experts_first_trip(struct mover *m, const struct flight *f);
/* What the slot holds of a part was a first trip, and is not used. */
void experts_wasted(struct mover *m, const struct slot *s);
void experts_sweep_end(struct mover *m);
/* Frames' memory for a loan; as lend and lend_most. */
uint64_t experts_lend(struct mover *m, uint64_t bytes);
uint64_t experts_lend_most(const struct mover *m);
/* The memory of all frames that are not lent; NULL and 0 where there is none. */
uint8_t *experts_frames(const struct mover *m, uint64_t *bytes);
uint64_t experts_held_bytes(const struct mover *m);
/* Of a part that comes again: what is needed of it for certain, before the bound is known. */
uint64_t experts_needed_again(const struct mover *m, uint64_t payload_bytes);
/* See residency_settle_needs. */
bool experts_settle_needs(struct mover *m);
bool experts_check(const struct mover *m);

/* ---- rows.c ---- */
int rows_open(struct mover *m, struct ot_error *err);
void rows_close(struct rows *x);
bool rows_first_trip(struct mover *m, const struct flight *f);
void rows_landed(struct mover *m, const struct flight *f, bool ok);

#endif
