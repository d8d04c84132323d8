/* lend.c - wired memory lent to the caller for a while: for a prompt whose activations need more
 * than a decode step's, or to a control group that has less than before.
 *
 * First experts.c lends frames, where it has any. For the rest, lent pieces of the wired runs give
 * up their memory. While they are lent, each is read to its own place in the arena shortly before
 * the engine comes to it, and dropped again when the engine has done with it: it is streamed,
 * without a slot. At most LEND_AHEAD of them are in memory. When the loan ends they are read once
 * more, at their next use, and stay.
 *
 * Invariant, checked by lend_check(): n_lent_held == lent pieces that are READING or READY.
 *
 * Threads: the engine thread only. */
#include "base/checked.h"
#include "residency/mover.h"
#include "sys/facts.h"
#include "sys/memory.h"

static void drop(struct mover *m, uint32_t piece) {
    struct piece *p = &m->pieces[piece];
    uint64_t at, bytes = mover_piece_place(m, piece, &at);
    sys_memory_drop(m->arena + at, bytes);
    m->locked_bytes -= p->locked_bytes;
    p->locked_bytes = 0;
    p->state = EMPTY;
}

void lend_keep(struct mover *m, uint32_t piece) {
    struct piece *p = &m->pieces[piece];
    if (p->locked_bytes == 0 && p->lockable_bytes > 0) {
        uint64_t at;
        mover_piece_place(m, piece, &at);
        p->locked_bytes =
            (uint32_t)sys_memory_lock(m->arena + round_up(at, sys_page_bytes()), p->lockable_bytes);
        m->locked_bytes += p->locked_bytes;
    }
}

/* What is ready without a gap, and how many lent pieces are in memory, from the pieces' states. */
static void recount(struct mover *m) {
    m->n_lent_held = 0;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        m->n_lent_held += m->pieces[i].lent && m->pieces[i].state != EMPTY;
    }
    for (uint32_t i = 0; i < m->layout.n_sections; i++) {
        const struct section *x = &m->layout.sections[i];
        uint32_t n = 0;
        while (n < x->n_pieces && m->pieces[x->first_piece + n].state == READY) {
            n++;
        }
        m->pieces_ready[i] = n;
    }
}

void lend_between_sweeps(struct mover *m, bool failed) {
    /* A sweep that broke off leaves pieces of its middle, in the way of the next one's first. */
    for (uint32_t i = 0; i < m->layout.n_pieces && m->lending && failed; i++) {
        if (m->pieces[i].lent && m->pieces[i].state == READY) {
            drop(m, i);
        }
    }
    if (m->lending) {
        recount(m);
    }
}

bool lend_may_read(const struct mover *m, uint32_t piece) {
    return !m->pieces[piece].lent || m->n_lent_held < LEND_AHEAD;
}

void lend_released(struct mover *m, const struct residency_view *view) {
    if (!m->lending) {
        return;
    }
    const struct layout *l = &m->layout;
    const struct section *x = &l->sections[layout_section(l, view->extent, view->row)];
    uint64_t row_bytes = m->r->extents[view->extent].row_bytes;
    uint32_t end_row = view->row + view->n_rows;
    uint64_t end = layout_arena_at(x, row_bytes, end_row) - x->arena_at;
    for (uint32_t i = 0; i < x->n_pieces; i++) {
        uint32_t piece = x->first_piece + i;
        bool done = end_row - x->row >= x->wired_rows || (i + 1ull) * PIECE_BYTES <= end;
        if (done && m->pieces[piece].lent && m->pieces[piece].state == READY) {
            drop(m, piece);
            m->n_lent_held--;
        }
    }
    mover_pump(m);
}

/* Pieces of large extents only: small ones are held in views of their own while others are used. */
static bool lendable(const struct mover *m, uint32_t piece) {
    return extent_bytes(&m->r->extents[m->layout.sections[m->pieces[piece].section].extent]) >=
           SMALL_BYTES;
}

static void end_loan(struct mover *m) {
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        if (m->pieces[i].lent && m->pieces[i].state == READY) {
            lend_keep(m, i);
        }
        m->pieces[i].lent = false;
    }
    m->lending = false;
    recount(m);
    m->cursor = (struct cursor){0};
}

/* Of the wired runs; those that are lent take turns in so much memory. */
static const uint64_t ahead = (uint64_t)LEND_AHEAD * PIECE_BYTES;

static uint64_t lendable_bytes(const struct mover *m) {
    uint64_t at, bytes = 0;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        bytes += lendable(m, i) ? mover_piece_place(m, i, &at) : 0;
    }
    return bytes;
}

static uint64_t lend_pieces(struct mover *m, uint64_t bytes) {
    uint64_t at, total = lendable_bytes(m), passed = 0, lent = 0;
    if (bytes == 0 || total <= 2 * ahead) {
        return 0;
    }
    touch_end(m);
    mover_settle(m);
    uint64_t want = min_u64(bytes, total - ahead) + ahead;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        if (!lendable(m, i)) {
            continue;
        }
        uint64_t piece_bytes = mover_piece_place(m, i, &at);
        passed += piece_bytes;
        /* spread evenly over the schedule, as what is streamed anyway */
        if (lent < (uint64_t)((unsigned __int128)want * passed / total)) {
            m->pieces[i].lent = true;
            lent += piece_bytes;
            drop(m, i); /* what is not read yet may have been touched */
        }
    }
    m->lending = true;
    recount(m);
    m->cursor = (struct cursor){0};
    return lent > ahead ? lent - ahead : 0;
}

uint64_t lend(struct mover *m, uint64_t bytes) {
    if (m->lending) {
        mover_settle(m);
        end_loan(m);
    }
    uint64_t frames = experts_lend(m, bytes);
    return frames + lend_pieces(m, bytes - frames);
}

uint64_t lend_most(const struct mover *m) {
    uint64_t total = lendable_bytes(m);
    return experts_lend_most(m) + (total > 2 * ahead ? total - ahead : 0);
}

bool lend_check(const struct mover *m) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->layout.n_pieces; i++) {
        n += m->pieces[i].lent && (m->pieces[i].state == READING || m->pieces[i].state == READY);
    }
    return n == m->n_lent_held && (m->lending || n == 0);
}
