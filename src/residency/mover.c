/* mover.c - modes wired and stream: own memory that direct reads fill, ahead of the engine.
 *
 * A byte's life here: the cursor comes to its piece or block; a read of whole sectors is issued,
 * straight to the arena or to a free slot; when it has landed, views point into it. A slot whose
 * last view is released is free, and the cursor's next block is read into it at once. mover.h has
 * the invariants.
 *
 * Threads: the engine thread only. */
#include "residency/mover.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/plant.h"
#include "sys/facts.h"
#include "sys/memory.h"

/* While blocks are being read, all views that are given out at once have little more than half of the
 * slots' bytes, or this, so that the engine comes back soon enough to ask for the next ones. */
enum { AT_ONCE_BYTES_LEAST = 4 << 20 };

_Static_assert((int)SYS_MEMORY_TAIL >= (int)OVERREAD_BYTES,
               "a view may be read beyond its last row");

/* ---- opening and closing ---- */

static int take_arrays(struct mover *m, struct ot_error *err) {
    const struct layout *l = &m->layout;
    /* Experts' parts are read into their own places, with the depth of the wired runs' pieces. */
    m->n_flights = l->n_slots + 2 * FILL_DEPTH + ROW_READS;
    m->flights = mem_calloc(m->n_flights, sizeof *m->flights);
    m->free_flights = mem_calloc(m->n_flights, sizeof *m->free_flights);
    m->pieces = mem_calloc(l->n_pieces, sizeof *m->pieces);
    m->pieces_ready = mem_calloc(l->n_sections, sizeof *m->pieces_ready);
    m->block_slot = mem_calloc(l->n_blocks, sizeof *m->block_slot);
    m->block_seen = mem_calloc(l->n_blocks, sizeof *m->block_seen);
    m->slots = mem_calloc(l->n_slots, sizeof *m->slots);
    if (m->flights == NULL || m->free_flights == NULL || m->pieces == NULL ||
        m->pieces_ready == NULL || m->block_slot == NULL || m->block_seen == NULL ||
        m->slots == NULL) {
        return error_memory(err, l->n_pieces * sizeof *m->pieces);
    }
    for (uint32_t i = 0; i < m->n_flights; i++) {
        m->free_flights[m->n_free_flights++] = i;
    }
    for (uint32_t i = 0; i < l->n_blocks; i++) {
        m->block_slot[i] = NO_SLOT;
    }
    for (uint32_t i = 0; i < l->n_sections; i++) {
        for (uint32_t p = 0; p < l->sections[i].n_pieces; p++) {
            m->pieces[l->sections[i].first_piece + p].section = i;
        }
    }
    return 0;
}

/* Of the arena's first locked_bytes, which pieces have them. */
static void share_locked(struct mover *m) {
    const uint64_t page = sys_page_bytes(), locked = m->locked_bytes;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        uint64_t at, bytes = mover_piece_place(m, i, &at);
        uint64_t first = round_up(at, page), end = max_u64(first, (at + bytes) / page * page);
        m->pieces[i].locked_bytes = (uint32_t)(min_u64(end, locked) - min_u64(first, locked));
        m->pieces[i].lockable_bytes = m->pieces[i].locked_bytes;
    }
}

static int take_memory(struct mover *m, struct ot_error *err) {
    const struct layout *l = &m->layout;
    if (l->arena_bytes > 0) {
        m->arena = sys_memory_take(l->arena_bytes, true, err);
        if (m->arena == NULL) {
            return OT_ERR_MEMORY;
        }
        m->locked_bytes = sys_memory_lock(m->arena, l->arena_bytes);
        share_locked(m);
    }
    if (l->n_slots > 0) {
        m->slots_memory = sys_memory_take(l->slots_bytes, true, err);
        if (m->slots_memory == NULL) {
            return OT_ERR_MEMORY;
        }
        for (uint32_t i = 0; i < l->n_slots; i++) {
            m->slots[i] =
                (struct slot){.memory = m->slots_memory + i * l->slot_bytes, .block = NO_BLOCK};
        }
    }
    return 0;
}

/* What the kernel read ahead of the headers would be memory beyond the budget. It goes before the
 * first read asks what the page cache has. */
static void prepare_files(const struct residency *r) {
    for (uint32_t i = 0; i < r->n_files; i++) {
        const struct sys_file *file = &r->files[i];
        if (file->direct_fd < 0) {
            sys_file_random(file);
        }
        if (file->ahead_bytes > 0) {
            sys_file_drop(file, file->ahead_offset, file->ahead_bytes);
        }
    }
}

int mover_open(struct residency *r, const struct residency_params *params, struct mover **out,
               struct ot_error *err) {
    struct mover *m = mem_calloc(1, sizeof *m);
    if (m == NULL) {
        return error_memory(err, sizeof *m);
    }
    m->r = r;
    prepare_files(r);
    const char *verify = getenv("ONETRIP_VERIFY");
    m->verify = verify != NULL && verify[0] == '1';
    int code = layout_make(r, &m->layout, err);
    m->at_once_bytes = max_u64(m->layout.slots_bytes / 2, AT_ONCE_BYTES_LEAST);
    if (code == 0) {
        code = take_arrays(m, err);
    }
    if (code == 0) {
        code = take_memory(m, err);
    }
    if (code == 0) {
        code = sys_reader_open(params->io, m->n_flights, 0, &m->reader, err);
    }
    if (code == 0) {
        code = experts_open(m, err);
    }
    if (code == 0) {
        code = rows_open(m, err);
    }
    if (code != 0) {
        mover_close(m);
        return code;
    }
    r->mode = m->layout.streamed_bytes > 0 || params->residency == OT_RESIDENCY_STREAM ? "stream"
                                                                                       : "wired";
    if (params->residency == OT_RESIDENCY_AUTO && m->layout.streamed_bytes == 0 &&
        m->experts == NULL) {
        r->why = "all that sweeps use fits the budget, the whole file does not";
    }
    m->cursor = (struct cursor){0};
    touch_begin(m);
    mover_pump(m);
    *out = m;
    return 0;
}

void mover_close(struct mover *m) {
    if (m == NULL) {
        return;
    }
    touch_end(m);
    if (m->reader != NULL) {
        while (reads_take(m, true)) { /* what is under way still counts */
        }
    }
    sys_reader_close(m->reader);
    rows_close(m->rows);
    experts_close(m->experts);
    sys_memory_free(m->slots_memory, m->layout.slots_bytes);
    sys_memory_free(m->arena, m->layout.arena_bytes);
    mem_free(m->slots);
    mem_free(m->block_seen);
    mem_free(m->block_slot);
    mem_free(m->pieces_ready);
    mem_free(m->pieces);
    mem_free(m->free_flights);
    mem_free(m->flights);
    layout_deinit(&m->layout);
    mem_free(m);
}

/* ---- slots ---- */

/* What was read and never used was no first trip: its bytes still have to come. */
static void waste(struct mover *m, const struct slot *s) {
    if (s->cause == OT_CAUSE_LOAD && s->block != NO_BLOCK) {
        m->block_seen[s->block] = false;
    } else if (s->cause == OT_CAUSE_LOAD) {
        experts_wasted(m, s);
    }
    ledger_repost(m->r->ledger, m->r->extents[s->extent].ledger_id, OT_DISK_RAM, s->cause,
                  OT_CAUSE_PREFETCH_WASTED, s->moved_bytes, s->needed_bytes, s->rounding_bytes);
}

static void free_slot(struct mover *m, uint32_t slot) {
    struct slot *s = &m->slots[slot];
    if (s->block != NO_BLOCK && m->block_slot[s->block] == slot) {
        m->block_slot[s->block] = NO_SLOT;
    }
    if (s->state == READY && !s->used) {
        waste(m, s);
    }
    s->state = EMPTY;
    s->block = NO_BLOCK;
    s->orphan = false;
}

/* Gives up what a slot holds; while it is being read, as soon as that has ended. */
static void discard(struct mover *m, uint32_t slot) {
    struct slot *s = &m->slots[slot];
    if (s->state == READING) {
        if (s->block != NO_BLOCK) {
            m->block_slot[s->block] = NO_SLOT;
        }
        s->orphan = true;
    } else if (s->state != EMPTY) {
        free_slot(m, slot);
    }
}

/* How far the engine still has to go to a slot's rows. */
static uint64_t distance(const struct mover *m, const struct slot *s) {
    uint64_t n = m->r->n_extents;
    uint64_t extents =
        s->extent >= m->at_extent ? s->extent - m->at_extent : s->extent + n - m->at_extent;
    return extents << 32 | s->row;
}

uint32_t mover_take_slot(struct mover *m, bool force) {
    uint32_t farthest = NO_SLOT;
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        if (s->state == EMPTY) {
            return i;
        }
        if (s->pins == 0 && s->state != READING &&
            (farthest == NO_SLOT || distance(m, s) > distance(m, &m->slots[farthest]))) {
            farthest = i;
        }
    }
    if (!force || farthest == NO_SLOT) {
        return NO_SLOT;
    }
    free_slot(m, farthest);
    return farthest;
}

bool mover_slots_to_spare(const struct mover *m, bool for_block) {
    uint32_t n_taken = 0;
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        n_taken += s->state != EMPTY && (s->block != NO_BLOCK) == for_block;
    }
    return 2 * n_taken < m->layout.n_slots;
}

/* ---- reading ahead ---- */

/* Half of the slots are read while the engine uses the other half. All of them would be no faster,
 * and a disk that tells of its reads only when it has done all (as the virtual ones of some
 * machines do) would then have nothing to do until the engine has used the first. */
static uint32_t blocks_at_once(const struct mover *m) {
    return max_u32(m->layout.n_slots / 2, SLOTS_LEAST);
}

static uint32_t blocks_reading(const struct mover *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        n += m->slots[i].state == READING && m->slots[i].block != NO_BLOCK;
    }
    return n;
}

uint64_t mover_piece_place(const struct mover *m, uint32_t piece, uint64_t *arena_at) {
    const struct section *x = &m->layout.sections[m->pieces[piece].section];
    const struct residency_extent *e = &m->r->extents[x->extent];
    uint64_t run = layout_run_bytes(x, e->row_bytes, m->r->files[e->file].direct_align);
    uint64_t at = (uint64_t)(piece - x->first_piece) * PIECE_BYTES;
    *arena_at = x->arena_at + at;
    return min_u64(PIECE_BYTES, run - at);
}

static bool issue_piece(struct mover *m, const struct section *x, uint32_t index) {
    uint64_t row_bytes = m->r->extents[x->extent].row_bytes, at;
    uint64_t bytes = mover_piece_place(m, index, &at);
    uint64_t from = x->sector_start + (at - x->arena_at);
    /* Of the run's outer sectors only the section's own bytes are wanted. */
    uint64_t start = max_u64(from, x->offset);
    uint64_t end = min_u64(from + bytes, x->offset + x->wired_rows * row_bytes);
    if (m->n_filling >= FILL_DEPTH ||
        !reads_issue(m, FLIGHT_PIECE, index, x->extent, start, end - start, m->arena + at)) {
        return false;
    }
    m->pieces[index].state = READING;
    m->n_filling++;
    m->n_lent_held += m->pieces[index].lent;
    return true;
}

static bool issue_block(struct mover *m, const struct section *x, uint32_t block, uint32_t slot) {
    const struct residency_extent *e = &m->r->extents[x->extent];
    struct slot *s = &m->slots[slot];
    uint32_t row, n_rows;
    layout_block_rows(x, block, &row, &n_rows);
    uint64_t offset = e->offset + row * e->row_bytes;
    if (!reads_issue(m, FLIGHT_SLOT, slot, x->extent, offset, n_rows * e->row_bytes, s->memory)) {
        return false;
    }
    uint32_t align = m->r->files[e->file].direct_align;
    *s = (struct slot){
        .memory = s->memory,
        .data = s->memory + (offset - sectors_start(offset, align)),
        .state = READING,
        .extent = x->extent,
        .row = row,
        .n_rows = n_rows,
        .block = block,
    };
    m->block_slot[block] = slot;
    return true;
}

/* Does what the cursor points at. False where that must wait. */
static bool step(struct mover *m) {
    struct cursor *c = &m->cursor;
    if (c->next_sweep && c->section >= m->at_section) {
        return false; /* round to where the engine still is */
    }
    const struct section *x = &m->layout.sections[c->section];
    if (c->sub < x->n_pieces) {
        /* while there is a loan, some that were ready may have been dropped */
        if (c->sub == 0 && !m->lending && m->pieces_ready[c->section] == x->n_pieces) {
            c->sub = x->n_pieces;
            return true;
        }
        uint32_t piece = x->first_piece + c->sub;
        if (m->pieces[piece].state == EMPTY &&
            (!lend_may_read(m, piece) || !issue_piece(m, x, piece))) {
            return false;
        }
        c->sub++;
        return true;
    }
    uint32_t index = c->sub - x->n_pieces;
    if (index < x->n_blocks) {
        uint32_t block = x->first_block + index;
        if (m->block_slot[block] == NO_SLOT) {
            bool may = blocks_reading(m) < blocks_at_once(m) &&
                       (m->experts == NULL || mover_slots_to_spare(m, true));
            uint32_t slot = may ? mover_take_slot(m, false) : NO_SLOT;
            if (slot == NO_SLOT || !issue_block(m, x, block, slot)) {
                return false;
            }
        }
        c->sub++;
        return true;
    }
    uint32_t last = m->r->last_extent; /* the next sweep, too, is expected to end there */
    if (c->section + 1 >= m->layout.first_section[last + 1]) {
        if (c->next_sweep) {
            return false;
        }
        *c = (struct cursor){.next_sweep = true};
    } else {
        c->section++;
        c->sub = 0;
    }
    return true;
}

void mover_pump(struct mover *m) {
    experts_pump(m);
    while (step(m)) {
    }
    sys_reader_start(m->reader);
}

/* Takes in what has been read, and has the disk go on before anything is computed. */
static void take_in(struct mover *m) {
    bool any = false;
    while (reads_take(m, false)) {
        any = true;
    }
    if (any) {
        mover_pump(m);
    }
}

static void report_progress(const struct mover *m) {
    const struct residency *r = m->r;
    if (r->progress != NULL && m->filled_bytes < m->layout.wired_bytes) {
        r->progress(r->progress_user, m->filled_bytes, m->layout.wired_bytes);
    }
}

static void piece_landed(struct mover *m, const struct flight *f, bool ok) {
    struct piece *p = &m->pieces[f->index];
    const struct section *x = &m->layout.sections[p->section];
    p->state = ok ? READY : EMPTY;
    m->n_filling--;
    p->failed = !ok;
    if (!ok) {
        p->passing = reads_failure_may_pass(m);
        m->n_lent_held -= p->lent;
        m->fill_failed = true;
        return;
    }
    if (!p->lent && !p->kept) {
        p->kept = true;
        m->filled_bytes += f->payload_bytes;
    }
    uint32_t *ready = &m->pieces_ready[p->section];
    while (*ready < x->n_pieces && m->pieces[x->first_piece + *ready].state == READY) {
        (*ready)++;
    }
    report_progress(m);
    if (!p->lent) {
        lend_keep(m, f->index);
    }
    p->seen = true;
    if (residency_planted() == RESIDENCY_PLANT_UNWIRED) {
        touch_end(m);
        sys_memory_drop(f->buf, f->bytes);
    }
}

void mover_landed(struct mover *m, const struct flight *f, bool ok) {
    if (f->kind == FLIGHT_PIECE) {
        piece_landed(m, f, ok);
        return;
    }
    struct slot *s = &m->slots[f->index];
    s->state = ok ? READY : FAILED;
    s->passing = !ok && reads_failure_may_pass(m);
    if (s->orphan) {
        free_slot(m, f->index);
    }
}

/* ---- sweeps ---- */

void mover_settle(struct mover *m) {
    while (reads_take(m, true)) {
    }
}

/* Gives up what is read ahead too far to be of use soon. */
static void keep_what_comes_next(struct mover *m) {
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        if (s->block == NO_BLOCK || s->block >= m->layout.n_slots) {
            discard(m, i);
        }
    }
}

void mover_forget_ahead(struct mover *m) {
    mover_settle(m);
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        if (m->slots[i].block != NO_BLOCK) {
            discard(m, i);
        }
    }
    m->cursor = (struct cursor){.next_sweep = true};
}

void mover_sweep_begin(struct mover *m) {
    m->at_extent = m->at_section = 0;
    lend_between_sweeps(m, false);
    keep_what_comes_next(m);
    if (m->fill_failed || !m->cursor.next_sweep) {
        m->cursor = (struct cursor){0};
    }
    m->fill_failed = false;
    m->cursor.next_sweep = false;
    mover_pump(m);
}

void mover_sweep_end(struct mover *m, bool failed) {
    if (failed) {
        mover_settle(m); /* what fails now belongs to this sweep, not to the next */
    }
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        struct slot *s = &m->slots[i];
        if (s->pins > 0) {
            s->pins = 0;
            free_slot(m, i);
        } else if (s->state == FAILED) {
            free_slot(m, i);
        }
    }
    experts_sweep_end(m);
    lend_between_sweeps(m, failed);
    m->at_extent = m->r->n_extents;
    m->at_section = m->layout.n_sections;
    if (failed) {
        m->cursor = (struct cursor){.next_sweep = true};
    } else {
        if (!m->cursor.next_sweep) {
            m->cursor = (struct cursor){.next_sweep = true};
        }
        mover_pump(m);
    }
}

/* ---- views ---- */

bool mover_row_there(const struct mover *m, uint32_t extent, uint32_t row) {
    const struct residency_extent *e = &m->r->extents[extent];
    const struct section *x = &m->layout.sections[layout_section(&m->layout, extent, row)];
    if (row - x->row >= x->wired_rows) {
        return false;
    }
    uint64_t start = layout_arena_at(x, e->row_bytes, row) - x->arena_at;
    for (uint64_t i = start / PIECE_BYTES; i <= (start + e->row_bytes - 1) / PIECE_BYTES; i++) {
        if (m->pieces[x->first_piece + i].state != READY) {
            return false;
        }
    }
    return true;
}

/* The first piece of a wired run that is not there has failed, or the cursor has passed it by when
 * it could not be read: it is read now. WAIT_NOT_YET, an error where it failed on demand (*demanded
 * is that piece) or for good, or 0. */
static int demand_piece(struct mover *m, uint32_t section, bool wait, uint32_t *demanded,
                        struct ot_error *err) {
    uint32_t sub = m->pieces_ready[section];
    uint32_t piece = m->layout.sections[section].first_piece + sub;
    struct piece *p = &m->pieces[piece];
    if (p->failed && (*demanded == piece || !p->passing)) {
        p->failed = false; /* the next sweep may find it healed */
        return reads_failure(m, err);
    }
    if (!wait) {
        return WAIT_NOT_YET;
    }
    *demanded = piece;
    p->failed = false;
    if (!lend_may_read(m, piece)) { /* the lent ones that are in memory are for later */
        issue_piece(m, &m->layout.sections[section], piece);
    }
    m->cursor = (struct cursor){.section = section, .sub = sub};
    mover_pump(m);
    return 0;
}

/* Waits until enough of a wired run is there, from `row` of the extent on. 0, WAIT_NOT_YET or an
 * error. */
static int wired_rows_ready(struct mover *m, uint32_t section, uint32_t row, bool wait,
                            uint32_t *n_rows, struct ot_error *err) {
    const struct section *x = &m->layout.sections[section];
    uint64_t row_bytes = m->r->extents[x->extent].row_bytes;
    uint64_t skip = x->offset - x->sector_start;
    uint32_t first = row - x->row;
    uint64_t least_rows = max_u64(VIEW_BYTES_LEAST / row_bytes, 1);
    least_rows = min_u64(least_rows, x->wired_rows - first);
    for (uint32_t demanded = UINT32_MAX;;) {
        uint32_t ready = m->pieces_ready[section];
        if (ready == x->n_pieces) {
            *n_rows = x->wired_rows - first;
            return 0;
        }
        uint64_t bytes = (uint64_t)ready * PIECE_BYTES;
        uint64_t rows = (bytes - min_u64(bytes, skip)) / row_bytes;
        if (rows >= first + least_rows) {
            *n_rows = (uint32_t)rows - first;
            return 0;
        }
        if (reads_take(m, false)) {
            continue;
        }
        mover_pump(m);
        if (m->pieces[x->first_piece + m->pieces_ready[section]].state == EMPTY) {
            int code = demand_piece(m, section, wait, &demanded, err);
            if (code != 0) {
                return code;
            }
        } else if (!wait) {
            return WAIT_NOT_YET;
        }
        if (!reads_take(m, true)) { /* nothing to wait for: never, as far as we know */
            return error_set(err, OT_ERR_IO, "residency", "wired rows could not be asked for");
        }
    }
}

/* Reads a block that the cursor did not read ahead, and lets the cursor go on behind it. */
static int demand_block(struct mover *m, uint32_t section, uint32_t block, struct ot_error *err) {
    const struct section *x = &m->layout.sections[section];
    while (m->block_slot[block] == NO_SLOT) {
        uint32_t slot = mover_take_slot(m, true);
        if (slot != NO_SLOT && issue_block(m, x, block, slot)) {
            m->cursor = (struct cursor){.section = section,
                                        .sub = x->n_pieces + block - x->first_block + 1};
            sys_reader_start(m->reader);
        } else if (!reads_take(m, true)) {
            return error_set(err, OT_ERR_ARGUMENT, "residency",
                             "no slot is free: views are held while more are asked for");
        }
    }
    return 0;
}

int mover_wait_slot(struct mover *m, uint32_t slot, bool wait, bool demanded,
                    struct ot_error *err) {
    while (m->slots[slot].state == READING) {
        if (!reads_take(m, false)) {
            if (!wait) {
                return WAIT_NOT_YET;
            }
            reads_take(m, true);
            take_in(m);
        }
    }
    if (m->slots[slot].state == FAILED) {
        bool again = m->slots[slot].passing && !demanded;
        free_slot(m, slot);
        return !again ? reads_failure(m, err) : wait ? WAIT_READ_AGAIN : WAIT_NOT_YET;
    }
    return 0;
}

void mover_view_slot(struct mover *m, uint32_t slot, uint32_t row, struct residency_view *view) {
    struct slot *s = &m->slots[slot];
    s->pins++;
    s->used = true;
    *view = (struct residency_view){
        .data = s->data + (row - s->row) * m->r->extents[s->extent].row_bytes,
        .row = row,
        .n_rows = s->row + s->n_rows - row,
        .extent = s->extent,
        .part = s->part,
        .slot = slot,
    };
}

static int acquire_block(struct mover *m, uint32_t section, uint32_t row, bool wait,
                         struct residency_view *view, struct ot_error *err) {
    const struct section *x = &m->layout.sections[section];
    uint32_t block = x->first_block + (row - x->row - x->wired_rows) / x->block_rows;
    if (m->block_slot[block] == NO_SLOT) {
        mover_pump(m);
    }
    bool demanded = false;
    int code;
    do {
        if (m->block_slot[block] == NO_SLOT) {
            if (!wait) {
                return WAIT_NOT_YET;
            }
            if ((code = demand_block(m, section, block, err)) != 0) {
                return code;
            }
            demanded = true;
        }
        code = mover_wait_slot(m, m->block_slot[block], wait, demanded, err);
    } while (code == WAIT_READ_AGAIN);
    if (code == 0) {
        mover_view_slot(m, m->block_slot[block], row, view);
    }
    return code;
}

static int acquire_wired(struct mover *m, uint32_t section, uint32_t row, bool wait,
                         struct residency_view *view, struct ot_error *err) {
    const struct section *x = &m->layout.sections[section];
    uint64_t row_bytes = m->r->extents[x->extent].row_bytes;
    uint32_t n_rows = 0;
    int code = wired_rows_ready(m, section, row, wait, &n_rows, err);
    if (code != 0) {
        return code;
    }
    if (m->layout.n_blocks > 0) {
        n_rows = min_u32(n_rows, (uint32_t)max_u64(m->at_once_bytes / row_bytes, 1));
    }
    *view = (struct residency_view){
        .data = m->arena + layout_arena_at(x, row_bytes, row),
        .row = row,
        .n_rows = n_rows,
        .extent = x->extent,
        .slot = NO_SLOT,
    };
    return 0;
}

int mover_acquire(struct mover *m, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                  struct residency_view *view, struct ot_error *err) {
    const struct residency_extent *e = &m->r->extents[extent];
    if (e->contract == RESIDENCY_EXPERT) {
        m->at_extent = extent;
        m->at_section = m->layout.first_section[extent];
        return experts_acquire(m, extent, part, row, wait, view, err);
    }
    if (e->contract != RESIDENCY_SWEEP) {
        return error_set(err, OT_ERR_ARGUMENT, "residency", "extent %u is read by single rows only",
                         extent);
    }
    uint32_t section = layout_section(&m->layout, extent, row);
    const struct section *x = &m->layout.sections[section];
    m->at_extent = extent;
    m->at_section = section;
    take_in(m);
    if (wait) {
        m->given_bytes = 0; /* what was given before has been used */
    } else if (m->given_bytes >= m->at_once_bytes && blocks_reading(m) > 0) {
        return WAIT_NOT_YET;
    }
    int code = row - x->row < x->wired_rows ? acquire_wired(m, section, row, wait, view, err)
                                            : acquire_block(m, section, row, wait, view, err);
    if (code == 0) {
        m->given_bytes += view->n_rows * e->row_bytes;
    }
    return code;
}

const uint8_t *mover_peek(const struct mover *m, uint32_t extent) {
    const struct section *x = &m->layout.sections[m->layout.first_section[extent]];
    bool whole = m->layout.n_blocks == 0; /* then it is one section */
    return whole ? m->arena + layout_arena_at(x, m->r->extents[extent].row_bytes, 0) : NULL;
}

void mover_release(struct mover *m, const struct residency_view *view) {
    if (view->slot == NO_SLOT) {
        lend_released(m, view);
        return;
    }
    if (view->slot >= m->layout.n_slots) {
        experts_release(m, view->slot - m->layout.n_slots);
        return;
    }
    if (m->slots[view->slot].pins == 0) {
        return;
    }
    if (--m->slots[view->slot].pins == 0) {
        free_slot(m, view->slot);
        while (reads_take(m, false)) {
        }
        mover_pump(m);
    }
}

void mover_want_parts(struct mover *m, const struct residency_part *parts, uint32_t n_parts) {
    experts_want(m, parts, n_parts);
    mover_pump(m);
}

bool mover_has_part(struct mover *m, uint32_t extent, uint32_t part) {
    while (reads_take(m, false)) {
    }
    mover_pump(m);
    return m->r->extents[extent].contract != RESIDENCY_EXPERT || experts_has(m, extent, part);
}

/* ---- what is said about it ---- */

bool mover_settle_needs(struct mover *m) {
    return experts_settle_needs(m);
}

static uint64_t unread_bytes(const struct mover *m) {
    uint64_t bytes = 0, at;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        bytes += m->pieces[i].state != READY ? mover_piece_place(m, i, &at) : 0;
    }
    return min_u64(bytes, m->layout.wired_bytes);
}

void mover_info(const struct mover *m, struct residency_info *info) {
    const struct layout *l = &m->layout;
    info->io = reads_name(m);
    info->wired_bytes = l->wired_bytes + experts_held_bytes(m);
    info->locked_bytes = m->locked_bytes;
    info->slot_bytes = l->slots_bytes;
    info->streamed_bytes_per_sweep = l->streamed_bytes;
    info->resident_bytes = m->arena != NULL ? sys_memory_resident(m->arena, l->arena_bytes) : 0;
    info->resident_bytes = min_u64(info->resident_bytes, l->wired_bytes) + experts_held_bytes(m);
    info->unread_bytes = unread_bytes(m);
    info->n_reads = m->n_reads - m->n_reads_failed;
    info->n_reads_direct = m->n_reads_direct;
    info->brought_bytes = m->r->brought_bytes;
}

bool mover_check(const struct mover *m) {
    uint32_t n_filling = 0;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        n_filling += m->pieces[i].state == READING;
    }
    if (n_filling != m->n_filling || !layout_check(m->r, &m->layout)) {
        return false;
    }
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        if (s->pins > 0 && s->state != READY) {
            return false;
        }
        if (s->state != EMPTY && !s->orphan && s->block != NO_BLOCK &&
            m->block_slot[s->block] != i) {
            return false;
        }
    }
    for (uint32_t b = 0; b < m->layout.n_blocks; b++) {
        uint32_t slot = m->block_slot[b];
        if (slot != NO_SLOT && m->slots[slot].block != b) {
            return false;
        }
    }
    return lend_check(m) && experts_check(m);
}
