/* layout.c - which rows are wired, which pass through slots.
 *
 * Threads: none; a plain computation. */
#include "residency/layout.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/plant.h"
#include "sys/memory.h"

static bool is_small(const struct residency_extent *e) {
    return extent_bytes(e) < SMALL_BYTES;
}

/* Rows of a block of about target bytes, such that the blocks of n_rows rows are of equal size. */
static uint32_t rows_of_blocks(uint64_t row_bytes, uint32_t n_rows, uint64_t target_bytes) {
    uint64_t most = max_u64(target_bytes / row_bytes, 1);
    uint64_t n_blocks = (n_rows + most - 1) / most;
    return (uint32_t)((n_rows + n_blocks - 1) / max_u64(n_blocks, 1));
}

/* Sizes that follow from the extents and the size of a block. */
struct sizes {
    uint64_t small_bytes;    /* in the arena: small extents with their sectors */
    uint64_t large_bytes;    /* swept extents that may be streamed */
    uint64_t rounding_bytes; /* sectors at both ends of every large run, at most */
    uint64_t expert_bytes;   /* all parts */
    uint64_t rows_bytes;     /* extents that single rows are read of */
    uint64_t slot_bytes;
    uint64_t row_buffer_bytes;
    uint64_t widest_block_bytes;
};

static struct sizes measure(const struct residency_extent *extents, uint32_t n_extents,
                            uint64_t target_bytes, uint32_t align) {
    struct sizes s = {0};
    for (uint32_t i = 0; i < n_extents; i++) {
        const struct residency_extent *e = &extents[i];
        bool streams = e->contract != RESIDENCY_ROWS && !is_small(e);
        if (e->contract == RESIDENCY_ROWS || e->also_rows) {
            uint64_t buffer = round_up(e->row_bytes + 2 * align + OVERREAD_BYTES, align);
            s.row_buffer_bytes = max_u64(s.row_buffer_bytes, buffer);
            s.rows_bytes += e->contract == RESIDENCY_ROWS ? extent_bytes(e) : 0;
        }
        if (e->contract == RESIDENCY_SWEEP && is_small(e)) {
            s.small_bytes += extent_bytes(e) + 2 * align;
        } else if (e->contract == RESIDENCY_SWEEP) {
            s.large_bytes += extent_bytes(e);
            s.rounding_bytes += 2 * align;
        } else if (e->contract == RESIDENCY_EXPERT) {
            s.expert_bytes += extent_bytes(e);
            streams = true;
        }
        if (streams) {
            uint64_t rows = rows_of_blocks(e->row_bytes, e->n_rows, target_bytes);
            s.widest_block_bytes = max_u64(s.widest_block_bytes, rows * e->row_bytes);
        }
    }
    if (s.widest_block_bytes > 0) {
        s.slot_bytes = round_up(s.widest_block_bytes + 2 * align + OVERREAD_BYTES, ALIGN_MOST);
    }
    return s;
}

static uint64_t least_of(const struct sizes *s) {
    return s->small_bytes + s->rounding_bytes + SLOTS_LEAST * s->slot_bytes +
           ROW_READS * s->row_buffer_bytes + ALIGN_MOST;
}

uint64_t residency_least_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    struct sizes s = measure(extents, n_extents, BLOCK_BYTES_LEAST, ALIGN_MOST);
    return least_of(&s);
}

static uint32_t widest_align(const struct residency *r) {
    uint32_t align = OVERREAD_BYTES;
    for (uint32_t i = 0; i < r->n_files; i++) {
        align = max_u32(align, r->files[i].direct_align);
    }
    return align;
}

/* Size and number of slots for a budget. From SYS_MEMORY_HUGE on they fill whole huge pages: reads
 * into scattered small pages are slower. */
static struct sizes choose_slots(const struct residency *r, struct layout *l) {
    uint32_t align = widest_align(r);
    uint64_t room = min_u64(r->budget_bytes / SLOT_SHARE, SLOT_BYTES_MOST);
    if (room >= SYS_MEMORY_HUGE) {
        room = room / SYS_MEMORY_HUGE * SYS_MEMORY_HUGE;
    }
    uint64_t goal = room / SLOTS_WANTED / ALIGN_MOST * ALIGN_MOST;
    goal = min_u64(max_u64(goal, BLOCK_BYTES_LEAST), BLOCK_BYTES_MOST);
    uint64_t around = 2 * (uint64_t)align + OVERREAD_BYTES;
    struct sizes s = measure(r->extents, r->n_extents, goal - min_u64(around, goal / 2), align);
    if (least_of(&s) > r->budget_bytes) {
        s = measure(r->extents, r->n_extents, BLOCK_BYTES_LEAST, align);
        room = 0;
    }
    l->slot_bytes = s.slot_bytes;
    l->n_slots = 0;
    if (s.slot_bytes > 0) {
        l->n_slots = (uint32_t)min_u64(max_u64(room / s.slot_bytes, SLOTS_LEAST), SLOTS_MOST);
        l->slots_bytes = l->n_slots * s.slot_bytes;
        if (room >= SYS_MEMORY_HUGE) {
            l->slots_bytes = max_u64(l->slots_bytes, room);
        }
    }
    l->row_buffer_bytes = s.row_buffer_bytes;
    return s;
}

/* Divides an extent into its wired rows and blocks, and lays the wired ones into the arena. */
static void place(const struct residency *r, struct layout *l, uint32_t i, uint32_t streamed_rows,
                  uint64_t target_bytes) {
    const struct residency_extent *e = &r->extents[i];
    struct layout_extent *x = &l->extents[i];
    uint32_t align = r->files[e->file].direct_align;
    x->wired_rows = e->n_rows * e->n_parts - streamed_rows;
    x->first_block = l->n_blocks;
    x->first_piece = l->n_pieces;
    if (streamed_rows > 0) {
        x->block_rows = rows_of_blocks(e->row_bytes, streamed_rows, target_bytes);
        x->n_blocks = (streamed_rows + x->block_rows - 1) / x->block_rows;
    }
    if (x->wired_rows > 0) {
        uint64_t bytes = sectors_bytes(e->offset, x->wired_rows * e->row_bytes, align);
        x->sector_start = sectors_start(e->offset, align);
        x->arena_at = round_up(l->arena_bytes, align);
        x->n_pieces = (uint32_t)((bytes + PIECE_BYTES - 1) / PIECE_BYTES);
        l->arena_bytes = x->arena_at + bytes;
    }
    l->n_blocks += x->n_blocks;
    l->n_pieces += x->n_pieces;
    l->wired_bytes += x->wired_rows * e->row_bytes;
    l->streamed_bytes += streamed_rows * e->row_bytes;
}

/* The rows to stream of each large extent: whole blocks, so that the sum over the extents so far
 * keeps up with its share; what the last block brings too much is wired again, row by row. */
static void spread(const struct residency *r, uint32_t *streamed_rows, uint64_t large_bytes,
                   uint64_t stream_bytes, uint64_t target_bytes) {
    uint64_t passed = 0, streamed = 0;
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < r->n_extents && stream_bytes > 0; i++) {
        const struct residency_extent *e = &r->extents[i];
        if (e->contract != RESIDENCY_SWEEP || is_small(e)) {
            continue;
        }
        passed += extent_bytes(e);
        uint64_t share = (uint64_t)((unsigned __int128)stream_bytes * passed / large_bytes);
        uint32_t block = rows_of_blocks(e->row_bytes, e->n_rows, target_bytes);
        while (streamed < share && streamed_rows[i] < e->n_rows) {
            uint32_t rows = min_u32(block, e->n_rows - streamed_rows[i]);
            streamed_rows[i] += rows;
            streamed += rows * e->row_bytes;
            last = i;
        }
    }
    if (last != UINT32_MAX && streamed > stream_bytes) {
        uint64_t rows = (streamed - stream_bytes) / r->extents[last].row_bytes;
        streamed_rows[last] -= (uint32_t)min_u64(rows, streamed_rows[last]);
    }
}

int layout_make(const struct residency *r, struct layout *out, struct ot_error *err) {
    struct layout l = {0};
    struct residency planted;
    if (residency_planted() == RESIDENCY_PLANT_BUDGET) {
        planted = *r;
        planted.budget_bytes *= 2;
        r = &planted;
    }
    struct sizes s = choose_slots(r, &l);
    uint64_t least = least_of(&s);
    if (least > r->budget_bytes) {
        return error_set(err, OT_ERR_BUDGET, "residency",
                         "%llu bytes for weights are too few; the least is %llu",
                         (unsigned long long)r->budget_bytes, (unsigned long long)least);
    }
    uint32_t *streamed_rows = mem_calloc(r->n_extents, sizeof *streamed_rows);
    l.extents = mem_calloc(r->n_extents, sizeof *l.extents);
    if (streamed_rows == NULL || l.extents == NULL) {
        mem_free(streamed_rows);
        mem_free(l.extents);
        return error_memory(err, r->n_extents * sizeof *l.extents);
    }
    uint64_t target = max_u64(s.widest_block_bytes, 1);
    uint64_t fixed = s.small_bytes + s.rounding_bytes + ROW_READS * s.row_buffer_bytes + ALIGN_MOST;
    /* Without anything to stream or to fetch on demand no slot is needed. */
    if (s.expert_bytes == 0 && fixed + s.large_bytes <= r->budget_bytes) {
        l.n_slots = 0;
        l.slots_bytes = 0;
    }
    uint64_t room = r->budget_bytes - fixed - l.slots_bytes;
    uint64_t stream_bytes = s.large_bytes > room ? s.large_bytes - room : 0;
    spread(r, streamed_rows, s.large_bytes, stream_bytes, target);
    for (uint32_t i = 0; i < r->n_extents; i++) {
        if (r->extents[i].contract == RESIDENCY_SWEEP) {
            l.sweep_bytes += extent_bytes(&r->extents[i]);
            place(r, &l, i, streamed_rows[i], target);
        } else if (r->extents[i].contract == RESIDENCY_EXPERT) {
            l.extents[i].block_rows =
                rows_of_blocks(r->extents[i].row_bytes, r->extents[i].n_rows, target);
        }
    }
    mem_free(streamed_rows);
    uint64_t left = room - min_u64(room, s.large_bytes);
    l.expert_bytes = min_u64(left, s.expert_bytes + s.expert_bytes / 8);
    l.row_bytes = ROW_READS * s.row_buffer_bytes + min_u64(left - l.expert_bytes, s.rows_bytes);
    *out = l;
    return 0;
}

void layout_deinit(struct layout *l) {
    mem_free(l->extents);
    l->extents = NULL;
}

void layout_block_rows(const struct layout *l, const struct residency_extent *e, uint32_t extent,
                       uint32_t block, uint32_t *row, uint32_t *n_rows) {
    const struct layout_extent *x = &l->extents[extent];
    *row = x->wired_rows + (block - x->first_block) * x->block_rows;
    *n_rows = min_u32(x->block_rows, e->n_rows - *row);
}

bool layout_check(const struct residency *r, const struct layout *l) {
    return l->arena_bytes + l->slots_bytes + l->expert_bytes + l->row_bytes <= r->budget_bytes &&
           l->wired_bytes + l->streamed_bytes == l->sweep_bytes;
}
