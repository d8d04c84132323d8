/* layout.h - modes wired and stream: which rows are wired, which pass through slots.
 *
 * Each swept extent has its first wired_rows rows in the arena, contiguous, so that they make one
 * long view; the rest is streamed in blocks of block_rows. How much of each extent is streamed
 * follows the schedule evenly: after every extent, what is streamed so far is within one block of
 * its share. Extents smaller than SMALL_BYTES are wired whole.
 *
 * Reads are whole sectors. A wired run or a block occupies the sectors that its rows touch; its
 * first row begins (offset mod align) bytes into them.
 *
 * Invariants:
 *   arena_bytes + slots_bytes + expert_bytes + row_bytes <= budget
 *   wired_bytes + streamed_bytes == sweep_bytes */
#ifndef RESIDENCY_LAYOUT_H
#define RESIDENCY_LAYOUT_H

#include "residency/internal.h"

enum {
    PIECE_BYTES = 2 << 20, /* of a wired run: one read */
    BLOCK_BYTES_LEAST = 128 << 10,
    BLOCK_BYTES_MOST = 1 << 20,
    SLOTS_LEAST = 4,
    SLOTS_MOST = 24,
    SLOTS_WANTED = 8,
    SLOT_BYTES_MOST = 24 << 20, /* all slots together */
    SLOT_SHARE = 24,            /* slots take at most this part of the budget: one in 24 */
    ROW_READS = 32,             /* single rows in flight */
    ALIGN_MOST = 4096, /* for the least budget, which is asked for before files are looked at */
};

struct layout_extent {
    uint32_t wired_rows, block_rows;
    uint32_t first_block, n_blocks;
    uint32_t first_piece, n_pieces;
    uint64_t arena_at;     /* of the sector that holds the first wired row */
    uint64_t sector_start; /* that sector's place in the file */
};

struct layout {
    struct layout_extent *extents; /* owned [n_extents] */
    uint64_t arena_bytes;
    uint64_t slot_bytes, slots_bytes; /* one; all of them, as taken */
    uint64_t expert_bytes;            /* for parts of EXPERT extents */
    uint64_t row_bytes;        /* for single rows: ROW_READS buffers, and rows that are kept */
    uint64_t row_buffer_bytes; /* one of those buffers */
    uint64_t wired_bytes, streamed_bytes, sweep_bytes;
    uint32_t n_slots, n_blocks, n_pieces;
};

/* The sectors that bytes at offset touch. */
static inline uint64_t sectors_start(uint64_t offset, uint32_t align) {
    return offset / align * align;
}
static inline uint64_t sectors_bytes(uint64_t offset, uint64_t bytes, uint32_t align) {
    return (offset + bytes + align - 1) / align * align - offset / align * align;
}

/* Errors: BUDGET (below residency_least_bytes), MEMORY. */
int layout_make(const struct residency *r, struct layout *out, struct ot_error *err);
void layout_deinit(struct layout *l);
/* Rows of a streamed block, counted from the extent's first row. */
void layout_block_rows(const struct layout *l, const struct residency_extent *e, uint32_t extent,
                       uint32_t block, uint32_t *row, uint32_t *n_rows);
bool layout_check(const struct residency *r, const struct layout *l);

#endif
