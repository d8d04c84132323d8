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

/* Rows of a section of a large swept extent. */
static uint32_t rows_of_sections(const struct residency_extent *e, uint64_t section_bytes) {
    return rows_of_blocks(e->row_bytes, e->n_rows * e->n_parts, section_bytes);
}

static uint32_t count_sections(const struct residency_extent *e, uint64_t section_bytes) {
    if (e->contract != RESIDENCY_SWEEP || is_small(e)) {
        return 1;
    }
    uint32_t rows = rows_of_sections(e, section_bytes);
    return (e->n_rows * e->n_parts + rows - 1) / rows;
}

static struct sizes measure(const struct residency_extent *extents, uint32_t n_extents,
                            uint64_t target_bytes, uint64_t section_bytes, uint32_t align) {
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
            s.rounding_bytes += 2ull * align * count_sections(e, section_bytes);
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

/* What is needed beside slots and wired rows of large extents. */
static uint64_t fixed_of(const struct sizes *s) {
    return s->small_bytes + s->rounding_bytes + ROW_READS * s->row_buffer_bytes + ALIGN_MOST;
}

static uint64_t least_of(const struct sizes *s) {
    return fixed_of(s) + SLOTS_LEAST * s->slot_bytes;
}

uint64_t residency_least_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    struct sizes s = measure(extents, n_extents, BLOCK_BYTES_LEAST, UINT64_MAX, ALIGN_MOST);
    return least_of(&s);
}

/* With everything wired: extents are not divided into sections. */
static uint64_t wired_of(const struct residency_extent *extents, uint32_t n_extents,
                         uint32_t align) {
    struct sizes s = measure(extents, n_extents, BLOCK_BYTES_LEAST, UINT64_MAX, align);
    uint64_t bytes = fixed_of(&s) + s.large_bytes;
    if (s.expert_bytes > 0) { /* whose parts come through slots */
        bytes += max_u64(SLOT_BYTES_MOST, SLOTS_LEAST * s.slot_bytes) + s.expert_bytes +
                 s.expert_bytes / EXPERT_SPARE_SHARE;
    }
    return max_u64(bytes, least_of(&s));
}

uint64_t residency_wired_bytes(const struct residency_extent *extents, uint32_t n_extents) {
    return wired_of(extents, n_extents, ALIGN_MOST);
}

static uint32_t widest_align(const struct residency *r) {
    uint32_t align = OVERREAD_BYTES;
    for (uint32_t i = 0; i < r->n_files; i++) {
        align = max_u32(align, r->files[i].direct_align);
    }
    return align;
}

/* Bytes for all slots. They fill whole huge pages, since reads into scattered small pages take
 * twice as long; so where the budget is small their share is larger. Of a process's whole budget it
 * is still less than a tenth: besides weights that has to hold 13 MB at least. */
static uint64_t slots_room(uint64_t budget_bytes) {
    uint64_t room = min_u64(budget_bytes / SLOT_SHARE, SLOT_BYTES_MOST);
    room = max_u64(room, min_u64(budget_bytes / SLOT_SHARE_GOOD, SLOT_BYTES_GOOD));
    if (budget_bytes / SLOT_SHARE_HUGE >= SYS_MEMORY_HUGE) {
        room = max_u64(room, SYS_MEMORY_HUGE);
    }
    return room >= SYS_MEMORY_HUGE ? room / SYS_MEMORY_HUGE * SYS_MEMORY_HUGE : room;
}

/* Size and number of slots for a budget, and the size of a section. What else is needed comes before
 * slots beyond the least number. */
static struct sizes choose_slots(const struct residency *r, struct layout *l,
                                 uint64_t *section_bytes) {
    uint32_t align = widest_align(r);
    uint64_t room = slots_room(r->budget_bytes);
    uint64_t goal = room / SLOTS_WANTED / ALIGN_MOST * ALIGN_MOST;
    goal = min_u64(max_u64(goal, BLOCK_BYTES_LEAST), BLOCK_BYTES_MOST);
    uint64_t around = 2 * (uint64_t)align + OVERREAD_BYTES;
    *section_bytes = min_u64(2 * max_u64(room, SLOTS_LEAST * goal), SECTION_BYTES_MOST);
    struct sizes s =
        measure(r->extents, r->n_extents, goal - min_u64(around, goal / 2), *section_bytes, align);
    if (least_of(&s) > r->budget_bytes) {
        *section_bytes = UINT64_MAX;
        s = measure(r->extents, r->n_extents, BLOCK_BYTES_LEAST, *section_bytes, align);
        room = 0;
    }
    room = min_u64(room, r->budget_bytes - min_u64(fixed_of(&s), r->budget_bytes));
    l->slot_bytes = s.slot_bytes;
    l->n_slots = 0;
    if (s.slot_bytes > 0) {
        l->n_slots = (uint32_t)min_u64(max_u64(room / s.slot_bytes, SLOTS_LEAST), SLOTS_MOST);
        l->slots_bytes =
            max_u64(l->n_slots * s.slot_bytes, room / SYS_MEMORY_HUGE * SYS_MEMORY_HUGE);
    }
    l->row_buffer_bytes = s.row_buffer_bytes;
    return s;
}

/* Takes the arrays, and divides extents into sections. */
static int divide(const struct residency *r, struct layout *l, uint64_t section_bytes,
                  struct ot_error *err) {
    for (uint32_t i = 0; i < r->n_extents; i++) {
        l->n_sections += count_sections(&r->extents[i], section_bytes);
    }
    l->first_section = mem_calloc((size_t)r->n_extents + 1, sizeof *l->first_section);
    l->sections = mem_calloc(l->n_sections, sizeof *l->sections);
    if (l->first_section == NULL || l->sections == NULL) {
        return error_memory(err, l->n_sections * sizeof *l->sections);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        uint32_t n_rows = e->n_rows * e->n_parts, n_here = count_sections(e, section_bytes);
        uint32_t rows = n_here > 1 ? rows_of_sections(e, section_bytes) : n_rows;
        l->first_section[i] = n;
        for (uint32_t row = 0; row < n_rows; row += min_u32(rows, n_rows - row)) {
            l->sections[n++] = (struct section){.extent = i,
                                                .row = row,
                                                .n_rows = min_u32(rows, n_rows - row),
                                                .offset = e->offset + row * e->row_bytes};
        }
    }
    l->first_section[r->n_extents] = n;
    return 0;
}

/* Divides a section into its wired rows and blocks, and lays the wired ones into the arena. */
static void place(const struct residency *r, struct layout *l, struct section *x,
                  uint32_t streamed_rows, uint64_t target_bytes) {
    const struct residency_extent *e = &r->extents[x->extent];
    uint32_t align = r->files[e->file].direct_align;
    x->wired_rows = x->n_rows - streamed_rows;
    x->first_block = l->n_blocks;
    x->first_piece = l->n_pieces;
    if (streamed_rows > 0) {
        x->block_rows = rows_of_blocks(e->row_bytes, streamed_rows, target_bytes);
        x->n_blocks = (streamed_rows + x->block_rows - 1) / x->block_rows;
    }
    if (x->wired_rows > 0) {
        uint64_t bytes = layout_run_bytes(x, e->row_bytes, align);
        x->sector_start = sectors_start(x->offset, align);
        x->arena_at = round_up(l->arena_bytes, align);
        x->n_pieces = (uint32_t)((bytes + PIECE_BYTES - 1) / PIECE_BYTES);
        l->arena_bytes = x->arena_at + bytes;
    }
    l->n_blocks += x->n_blocks;
    l->n_pieces += x->n_pieces;
    l->wired_bytes += x->wired_rows * e->row_bytes;
    l->streamed_bytes += streamed_rows * e->row_bytes;
}

/* Places the sections in turn. Of each large one whole blocks are streamed, so that the sum over
 * the sections so far keeps up with its share; what the last block brings too much is wired again,
 * row by row. */
static void place_all(const struct residency *r, struct layout *l, uint64_t large_bytes,
                      uint64_t stream_bytes, uint64_t target_bytes) {
    uint64_t passed = 0, streamed = 0;
    for (uint32_t i = 0; i < l->n_sections; i++) {
        struct section *x = &l->sections[i];
        const struct residency_extent *e = &r->extents[x->extent];
        if (e->contract == RESIDENCY_EXPERT) {
            x->block_rows = rows_of_blocks(e->row_bytes, e->n_rows, target_bytes);
        }
        if (e->contract != RESIDENCY_SWEEP) {
            continue;
        }
        l->sweep_bytes += x->n_rows * e->row_bytes;
        uint32_t rows = 0;
        if (!is_small(e) && stream_bytes > 0) {
            passed += x->n_rows * e->row_bytes;
            uint64_t share = (uint64_t)((unsigned __int128)stream_bytes * passed / large_bytes);
            uint32_t block = rows_of_blocks(e->row_bytes, x->n_rows, target_bytes);
            while (streamed < share && rows < x->n_rows) {
                uint32_t more = min_u32(block, x->n_rows - rows);
                rows += more;
                streamed += more * e->row_bytes;
            }
            if (streamed > stream_bytes) { /* that was the last block of all */
                uint64_t many = min_u64((streamed - stream_bytes) / e->row_bytes, rows);
                rows -= (uint32_t)many;
                streamed -= many * e->row_bytes;
            }
        }
        place(r, l, x, rows, target_bytes);
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
    uint64_t section_bytes;
    struct sizes s = choose_slots(r, &l, &section_bytes);
    uint64_t least = least_of(&s);
    if (least > r->budget_bytes) {
        return error_set(err, OT_ERR_BUDGET, "residency",
                         "%llu bytes for weights are too few; the least is %llu",
                         (unsigned long long)r->budget_bytes, (unsigned long long)least);
    }
    uint64_t target = max_u64(s.widest_block_bytes, 1);
    uint64_t fixed = fixed_of(&s);
    /* Without anything to stream or to fetch on demand no slot is needed. */
    uint64_t wired = wired_of(r->extents, r->n_extents, widest_align(r));
    if (s.expert_bytes == 0 && wired <= r->budget_bytes) {
        fixed = wired - s.large_bytes;
        l.n_slots = 0;
        l.slots_bytes = 0;
    }
    uint64_t room = r->budget_bytes - fixed - l.slots_bytes;
    uint64_t stream_bytes = s.large_bytes > room ? s.large_bytes - room : 0;
    int code = divide(r, &l, stream_bytes > 0 ? section_bytes : UINT64_MAX, err);
    if (code != 0) {
        layout_deinit(&l);
        return code;
    }
    place_all(r, &l, s.large_bytes, stream_bytes, target);
    uint64_t left = room - min_u64(room, s.large_bytes);
    l.expert_bytes = min_u64(left, s.expert_bytes + s.expert_bytes / EXPERT_SPARE_SHARE);
    l.row_bytes = ROW_READS * s.row_buffer_bytes + min_u64(left - l.expert_bytes, s.rows_bytes);
    *out = l;
    return 0;
}

void layout_deinit(struct layout *l) {
    mem_free(l->sections);
    mem_free(l->first_section);
    l->sections = NULL;
    l->first_section = NULL;
}

void layout_block_rows(const struct section *x, uint32_t block, uint32_t *row, uint32_t *n_rows) {
    uint32_t skip = x->wired_rows + (block - x->first_block) * x->block_rows;
    *row = x->row + skip;
    *n_rows = min_u32(x->block_rows, x->n_rows - skip);
}

bool layout_check(const struct residency *r, const struct layout *l) {
    return l->arena_bytes + l->slots_bytes + l->expert_bytes + l->row_bytes <= r->budget_bytes &&
           l->wired_bytes + l->streamed_bytes == l->sweep_bytes;
}
