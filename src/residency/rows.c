/* rows.c - single rows of an extent that is never read as a whole (token embeddings), or that is
 * also swept (tied ones).
 *
 * A row is read, with the sectors around it, into one of a number of buffers, and stays there until
 * the buffer is needed for another one (CLOCK). There are ROW_READS buffers at least; more where
 * the budget has room when everything else is wired.
 *
 * Invariants:
 *   a buffer that is not EMPTY is in the chain of its (extent, row)
 *   between calls no buffer is READING or FAILED
 *
 * Threads: the engine thread only. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/mover.h"
#include "sys/memory.h"

enum { BUFFERS_MOST = 1 << 20, NO_BUFFER = UINT32_MAX, ENTRIES_LEAST = 64 };

struct buffer {
    uint32_t extent, row;
    uint32_t next; /* in its chain */
    uint8_t state; /* enum state */
    bool recent;   /* used since the hand last passed */
};

/* A row of a call. */
struct entry {
    uint32_t row, index;
};

struct rows {
    struct entry *entries; /* owned [n_entries] of the call; so many as the longest had */
    uint32_t n_entries;
    struct buffer *buffers; /* owned [n_buffers] */
    uint32_t *chains;       /* owned [n_chains], a power of two */
    uint8_t **seen;         /* owned [n_extents] of owned bits, one per row; NULL: no single rows */
    uint8_t *memory;
    uint64_t memory_bytes, buffer_bytes;
    uint32_t n_buffers, n_chains, n_extents, hand;
};

static uint32_t chain_of(const struct rows *x, uint32_t extent, uint32_t row) {
    uint64_t h = ((uint64_t)extent << 32 | row) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) & (x->n_chains - 1);
}

int rows_open(struct mover *m, struct ot_error *err) {
    const struct layout *l = &m->layout;
    if (l->row_buffer_bytes == 0) {
        return 0;
    }
    struct rows *x = mem_calloc(1, sizeof *x);
    if (x == NULL) {
        return error_memory(err, sizeof *x);
    }
    m->rows = x;
    x->buffer_bytes = l->row_buffer_bytes;
    x->n_buffers = (uint32_t)min_u64(l->row_bytes / l->row_buffer_bytes, BUFFERS_MOST);
    x->n_extents = m->r->n_extents;
    for (x->n_chains = 1; x->n_chains < x->n_buffers; x->n_chains *= 2) {
    }
    x->buffers = mem_calloc(x->n_buffers, sizeof *x->buffers);
    x->chains = mem_calloc(x->n_chains, sizeof *x->chains);
    x->seen = mem_calloc(x->n_extents, sizeof *x->seen);
    if (x->buffers == NULL || x->chains == NULL || x->seen == NULL) {
        return error_memory(err, x->n_buffers * sizeof *x->buffers);
    }
    for (uint32_t i = 0; i < x->n_chains; i++) {
        x->chains[i] = NO_BUFFER;
    }
    for (uint32_t i = 0; i < x->n_extents; i++) {
        const struct residency_extent *e = &m->r->extents[i];
        if (e->contract == RESIDENCY_ROWS || e->also_rows) {
            x->seen[i] = mem_calloc(e->n_rows / 8 + 1, 1);
            if (x->seen[i] == NULL) {
                return error_memory(err, e->n_rows / 8 + 1);
            }
        }
    }
    x->memory_bytes = x->n_buffers * x->buffer_bytes;
    x->memory = sys_memory_take(x->memory_bytes, false, err);
    return x->memory == NULL ? OT_ERR_MEMORY : 0;
}

void rows_close(struct rows *x) {
    if (x == NULL) {
        return;
    }
    for (uint32_t i = 0; x->seen != NULL && i < x->n_extents; i++) {
        mem_free(x->seen[i]);
    }
    sys_memory_free(x->memory, x->memory_bytes);
    mem_free(x->seen);
    mem_free(x->chains);
    mem_free(x->buffers);
    mem_free(x->entries);
    mem_free(x);
}

static void unchain(struct rows *x, uint32_t buffer) {
    struct buffer *b = &x->buffers[buffer];
    uint32_t *link = &x->chains[chain_of(x, b->extent, b->row)];
    while (*link != buffer) {
        link = &x->buffers[*link].next;
    }
    *link = b->next;
    b->state = EMPTY;
}

static uint32_t find(const struct rows *x, uint32_t extent, uint32_t row) {
    uint32_t i = x->chains[chain_of(x, extent, row)];
    while (i != NO_BUFFER && (x->buffers[i].extent != extent || x->buffers[i].row != row)) {
        i = x->buffers[i].next;
    }
    return i;
}

/* A buffer to read into; NO_BUFFER while all are being read or hold rows not handed over yet. */
static uint32_t take_buffer(struct rows *x, uint32_t n_busy) {
    if (n_busy == x->n_buffers) {
        return NO_BUFFER;
    }
    for (;;) {
        struct buffer *b = &x->buffers[x->hand];
        uint32_t i = x->hand;
        x->hand = (x->hand + 1) % x->n_buffers;
        if (b->state == EMPTY) {
            return i;
        }
        if (b->state == READY && !b->recent) {
            unchain(x, i);
            return i;
        }
        b->recent = false;
    }
}

/* Where a row lies inside its buffer. */
static const uint8_t *row_data(const struct mover *m, uint32_t buffer) {
    const struct buffer *b = &m->rows->buffers[buffer];
    const struct residency_extent *e = &m->r->extents[b->extent];
    uint64_t offset = e->offset + b->row * e->row_bytes;
    uint32_t align = m->r->files[e->file].direct_align;
    return m->rows->memory + buffer * m->rows->buffer_bytes +
           (offset - sectors_start(offset, align));
}

void rows_landed(struct mover *m, const struct flight *f, bool ok) {
    m->rows->buffers[f->index].state = ok ? READY : FAILED;
}

bool rows_first_trip(struct mover *m, const struct flight *f) {
    const struct buffer *b = &m->rows->buffers[f->index];
    uint8_t *byte = &m->rows->seen[b->extent][b->row / 8];
    bool first = (*byte >> (b->row % 8) & 1) == 0;
    *byte = (uint8_t)(*byte | 1u << (b->row % 8));
    return first;
}

struct call {
    struct mover *m;
    uint32_t extent;
    const struct entry *entries; /* [n] sorted, so that equal rows are neighbours */
    uint32_t n;
    residency_row_fn *each;
    void *user;
    uint32_t n_busy; /* buffers being read */
    bool failed;
};

static int compare_entries(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->row > y->row) - (x->row < y->row);
}

/* Hands over every entry of a row. Returns the entry after them. */
static uint32_t hand_over(struct call *c, uint32_t first, const uint8_t *data) {
    uint32_t i = first;
    for (; i < c->n && c->entries[i].row == c->entries[first].row; i++) {
        c->each(c->user, c->entries[i].index, data);
    }
    return i;
}

static uint32_t first_entry(const struct call *c, uint32_t row) {
    uint32_t low = 0, high = c->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->entries[middle].row < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Takes in completions until one of ours has come, and hands over what is there. */
static void take_some(struct call *c, uint32_t *reading) {
    uint32_t before = c->n_busy;
    while (c->n_busy == before && reads_take(c->m, true)) {
        for (uint32_t i = 0; i < c->n_busy;) {
            struct buffer *b = &c->m->rows->buffers[reading[i]];
            if (b->state == READING) {
                i++;
                continue;
            }
            if (b->state == READY) {
                hand_over(c, first_entry(c, b->row), row_data(c->m, reading[i]));
                b->recent = true;
            } else {
                unchain(c->m->rows, reading[i]);
                c->failed = true;
            }
            reading[i] = reading[--c->n_busy];
        }
    }
}

/* A row that is in memory anyway: wired, or read before. */
static const uint8_t *resident_row(struct mover *m, uint32_t extent, uint32_t row) {
    if (mover_row_there(m, extent, row)) {
        const struct section *x = &m->layout.sections[layout_section(&m->layout, extent, row)];
        return m->arena + layout_arena_at(x, m->r->extents[extent].row_bytes, row);
    }
    uint32_t buffer = find(m->rows, extent, row);
    if (buffer != NO_BUFFER && m->rows->buffers[buffer].state == READY) {
        m->rows->buffers[buffer].recent = true;
        return row_data(m, buffer);
    }
    return NULL;
}

static bool issue_row(struct call *c, uint32_t row, uint32_t buffer) {
    struct mover *m = c->m;
    struct rows *x = m->rows;
    const struct residency_extent *e = &m->r->extents[c->extent];
    if (!reads_issue(m, FLIGHT_ROW, buffer, c->extent, e->offset + row * e->row_bytes, e->row_bytes,
                     x->memory + buffer * x->buffer_bytes)) {
        return false;
    }
    uint32_t chain = chain_of(x, c->extent, row);
    x->buffers[buffer] = (struct buffer){
        .extent = c->extent, .row = row, .next = x->chains[chain], .state = READING};
    x->chains[chain] = buffer;
    return true;
}

static int read_rows(struct call *c, struct ot_error *err) {
    uint32_t reading[ROW_READS];
    for (uint32_t i = 0; i < c->n && !c->failed;) {
        uint32_t row = c->entries[i].row;
        const uint8_t *data = resident_row(c->m, c->extent, row);
        if (data != NULL) {
            i = hand_over(c, i, data);
            continue;
        }
        uint32_t buffer = NO_BUFFER;
        if (c->n_busy < ROW_READS) {
            buffer = take_buffer(c->m->rows, c->n_busy);
        }
        if (buffer == NO_BUFFER || !issue_row(c, row, buffer)) {
            take_some(c, reading);
            continue;
        }
        reading[c->n_busy++] = buffer;
        while (i < c->n && c->entries[i].row == row) {
            i++;
        }
    }
    while (c->n_busy > 0) {
        take_some(c, reading);
    }
    return c->failed ? reads_failure(c->m, err) : 0;
}

int mover_rows(struct mover *m, uint32_t extent, const uint32_t *rows, uint32_t n,
               residency_row_fn *each, void *user, struct ot_error *err) {
    if (m->rows == NULL || m->rows->seen[extent] == NULL) {
        return error_set(err, OT_ERR_ARGUMENT, "residency", "extent %u is not read by single rows",
                         extent);
    }
    struct rows *x = m->rows;
    if (n > x->n_entries) {
        mem_free(x->entries);
        x->n_entries = max_u32(n, ENTRIES_LEAST);
        x->entries = mem_calloc(x->n_entries, sizeof *x->entries);
        if (x->entries == NULL) {
            x->n_entries = 0;
            return error_memory(err, n * sizeof *x->entries);
        }
    }
    struct entry *entries = x->entries;
    for (uint32_t i = 0; i < n; i++) {
        entries[i] = (struct entry){rows[i], i};
    }
    qsort(entries, n, sizeof *entries, compare_entries);
    struct call c = {
        .m = m, .extent = extent, .entries = entries, .n = n, .each = each, .user = user};
    return read_rows(&c, err);
}
