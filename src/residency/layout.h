/* layout.h - modes wired and stream: which rows are wired, which pass through slots.
 *
 * Swept extents are divided into sections: rows that follow each other, at most SECTION_BYTES_MOST
 * bytes of them where something is streamed. Each section has its first wired_rows rows in the
 * arena, contiguous, so that they make one long view; the rest is streamed in blocks of block_rows.
 * How much of each section is streamed follows the schedule evenly: after every section, what is
 * streamed so far is within one block of its share. Extents smaller than SMALL_BYTES are wired
 * whole.
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
    PIECE_BYTES = 2 << 20,        /* of a wired run: one read */
    SECTION_BYTES_MOST = 8 << 20, /* and twice those of all slots at most */
    BLOCK_BYTES_LEAST = 128 << 10,
    BLOCK_BYTES_MOST = 1 << 20,
    SLOTS_LEAST = 4,
    SLOTS_MOST = 24,
    SLOTS_WANTED = 8,
    SLOT_BYTES_MOST = 12 << 20, /* all slots together */
    SLOT_BYTES_GOOD = 4 << 20,  /* fewer are slower: taken where they are a small part all the same */
    SLOT_SHARE = 24,            /* slots take at most this part of the budget: one in 24 */
    SLOT_SHARE_GOOD = 7,        /* while they have fewer than SLOT_BYTES_GOOD */
    SLOT_SHARE_HUGE = 4,        /* for one huge page */
    EXPERT_SPARE_SHARE = 8,     /* of all parts' bytes: more memory than they need, which frames waste */
    ROW_READS = 32,             /* single rows in flight */
    ALIGN_MOST = 4096, /* for the least budget, which is asked for before files are looked at */
};

struct section {
    uint32_t extent;
    uint32_t row, n_rows; /* of the extent, all parts together */
    uint32_t wired_rows, block_rows;
    uint32_t first_block, n_blocks;
    uint32_t first_piece, n_pieces;
    uint64_t offset;       /* of the first row in the file */
    uint64_t arena_at;     /* of the sector that holds the first wired row */
    uint64_t sector_start; /* that sector's place in the file */
};

struct layout {
    struct section *sections; /* owned [n_sections] in schedule order; one or more of each extent,
                               * of which all but the last have the same number of rows */
    uint32_t *first_section;  /* owned [n_extents + 1] */
    uint64_t arena_bytes;
    uint64_t slot_bytes, slots_bytes; /* one; all of them, as taken */
    uint64_t expert_bytes;            /* for parts of EXPERT extents */
    uint64_t row_bytes;        /* for single rows: ROW_READS buffers, and rows that are kept */
    uint64_t row_buffer_bytes; /* one of those buffers */
    uint64_t wired_bytes, streamed_bytes, sweep_bytes;
    uint32_t n_sections, n_slots, n_blocks, n_pieces;
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
/* The section that holds a row; of an extent of parts, the only one. */
static inline uint32_t layout_section(const struct layout *l, uint32_t extent, uint32_t row) {
    uint32_t first = l->first_section[extent];
    return l->first_section[extent + 1] == first + 1 ? first
                                                     : first + row / l->sections[first].n_rows;
}
/* Where a wired row lies in the arena. */
static inline uint64_t layout_arena_at(const struct section *x, uint64_t row_bytes, uint32_t row) {
    return x->arena_at + (x->offset - x->sector_start) + (row - x->row) * row_bytes;
}
/* Sectors of the wired run of a section. */
static inline uint64_t layout_run_bytes(const struct section *x, uint64_t row_bytes,
                                        uint32_t align) {
    return sectors_bytes(x->offset, x->wired_rows * row_bytes, align);
}
/* Rows of a block of an expert's part. */
static inline uint32_t layout_part_block_rows(const struct layout *l, uint32_t extent) {
    return l->sections[l->first_section[extent]].block_rows;
}
/* Rows of a streamed block, counted from the extent's first row. */
void layout_block_rows(const struct section *x, uint32_t block, uint32_t *row, uint32_t *n_rows);
bool layout_check(const struct residency *r, const struct layout *l);

#endif
