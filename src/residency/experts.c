/* experts.c - parts of EXPERT extents, read when a sweep asks for them.
 *
 * What the budget leaves when everything that every sweep reads is wired holds the parts that a
 * policy keeps (policy.h, LFU with aging). A part that is kept has a place of its own in a range of
 * reserved addresses, backed by memory only while it is held. A part that the policy lets pass by
 * goes through slots, block by block.
 *
 * All parts that are wanted are read at once, in the order in which they were asked for; parts that
 * are held can be computed meanwhile.
 *
 * Invariants, checked by experts_check():
 *   a unit that is READY or READING is held by the policy
 *   a unit with views > 0 is READY and pinned
 *   n_reading == number of unit reads in flight
 *
 * Threads: the engine thread only. */
#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/mover.h"
#include "residency/policy.h"
#include "sys/facts.h"
#include "sys/memory.h"

struct unit {
    uint64_t place;        /* of its first sector, in the reserved range */
    uint64_t seen_bytes;   /* of the part, from its start: read at least once */
    uint64_t issued_bytes; /* of its sectors, while READING */
    uint32_t extent, n_reading, views;
    uint8_t state; /* enum state */
    bool wanted, pinned, passes;
};

/* A part that is to be read: into its place, or through slots. */
struct wish {
    uint32_t unit;
    uint32_t next_row; /* of a part that passes by */
};

struct experts {
    struct mover *m; /* borrowed */
    struct policy *policy;
    struct unit *units;        /* owned [n_units] */
    uint32_t *first_unit;      /* owned [n_extents] */
    struct wish *wishes;       /* owned [n_units], in the order of asking */
    uint32_t n_wishes, n_done; /* wishes before n_done need no more reads */
    uint32_t n_units, n_reading;
    uint8_t *memory; /* reserved */
    uint64_t reserved_bytes;
};

static const struct residency_extent *extent_of(const struct experts *x, const struct unit *u) {
    return &x->m->r->extents[u->extent];
}

static uint32_t part_of(const struct experts *x, const struct unit *u) {
    return (uint32_t)(u - x->units) - x->first_unit[u->extent];
}

/* Where the part begins in its file. */
static uint64_t offset_of(const struct experts *x, const struct unit *u) {
    const struct residency_extent *e = extent_of(x, u);
    return e->offset + part_of(x, u) * part_bytes(e);
}

static uint32_t align_of(const struct experts *x, const struct unit *u) {
    return x->m->r->files[extent_of(x, u)->file].direct_align;
}

static uint64_t room_of(const struct experts *x, const struct unit *u) {
    uint64_t bytes = sectors_bytes(offset_of(x, u), part_bytes(extent_of(x, u)), align_of(x, u));
    return round_up(bytes + OVERREAD_BYTES, sys_page_bytes());
}

static void give_back(void *user, uint32_t item) {
    struct experts *x = user;
    struct unit *u = &x->units[item];
    sys_memory_drop(x->memory + u->place, room_of(x, u));
    u->state = EMPTY;
}

static void unpin(struct experts *x, struct unit *u) {
    if (u->pinned) {
        policy_unpin(x->policy, (uint32_t)(u - x->units));
        u->pinned = false;
    }
}

/* Forgets a unit whose bytes did not come. */
static void forget(struct experts *x, struct unit *u) {
    if (u->state != EMPTY) {
        policy_remove(x->policy, (uint32_t)(u - x->units));
        u->pinned = false;
        give_back(x, (uint32_t)(u - x->units));
    }
}

static int open_policy(struct experts *x, struct ot_error *err) {
    uint64_t *bytes = mem_calloc(x->n_units, sizeof *bytes);
    if (bytes == NULL) {
        return error_memory(err, x->n_units * sizeof *bytes);
    }
    for (uint32_t i = 0; i < x->n_units; i++) {
        bytes[i] = room_of(x, &x->units[i]);
        x->units[i].place = x->reserved_bytes;
        x->reserved_bytes += bytes[i];
    }
    struct policy_params params = {
        .kind = POLICY_LFU,
        .n_items = x->n_units,
        .item_bytes = bytes,
        .capacity_bytes = x->m->layout.expert_bytes,
        .evict = give_back,
        .user = x,
    };
    int code = policy_open(&params, &x->policy, err);
    mem_free(bytes);
    return code;
}

int experts_open(struct mover *m, struct ot_error *err) {
    uint64_t n_units = 0;
    for (uint32_t i = 0; i < m->r->n_extents; i++) {
        const struct residency_extent *e = &m->r->extents[i];
        n_units += e->contract == RESIDENCY_EXPERT ? e->n_parts : 0;
    }
    if (n_units == 0) {
        return 0;
    }
    if (n_units > POLICY_MAX_ITEMS) {
        return error_set(err, OT_ERR_UNSUPPORTED, "residency", "%llu expert parts are too many",
                         (unsigned long long)n_units);
    }
    struct experts *x = mem_calloc(1, sizeof *x);
    if (x == NULL) {
        return error_memory(err, sizeof *x);
    }
    x->m = m;
    m->experts = x;
    x->units = mem_calloc(n_units, sizeof *x->units);
    x->wishes = mem_calloc(n_units, sizeof *x->wishes);
    x->first_unit = mem_calloc(m->r->n_extents, sizeof *x->first_unit);
    if (x->units == NULL || x->wishes == NULL || x->first_unit == NULL) {
        return error_memory(err, n_units * sizeof *x->units);
    }
    for (uint32_t i = 0; i < m->r->n_extents; i++) {
        const struct residency_extent *e = &m->r->extents[i];
        x->first_unit[i] = x->n_units;
        for (uint32_t p = 0; e->contract == RESIDENCY_EXPERT && p < e->n_parts; p++) {
            x->units[x->n_units++].extent = i;
        }
    }
    int code = open_policy(x, err);
    if (code == 0) {
        x->memory = sys_memory_reserve(x->reserved_bytes, err);
        code = x->memory == NULL ? OT_ERR_MEMORY : 0;
    }
    return code;
}

void experts_close(struct experts *x) {
    if (x == NULL) {
        return;
    }
    sys_memory_unreserve(x->memory, x->reserved_bytes);
    policy_close(x->policy);
    mem_free(x->first_unit);
    mem_free(x->wishes);
    mem_free(x->units);
    mem_free(x);
}

/* ---- asking ---- */

static void want(struct experts *x, struct unit *u) {
    uint32_t id = (uint32_t)(u - x->units);
    if (u->wanted) {
        return;
    }
    u->wanted = true;
    policy_access(x->policy, id, POLICY_NEVER);
    u->passes = !policy_holds(x->policy, id);
    u->pinned = !u->passes && policy_pin(x->policy, id);
    x->wishes[x->n_wishes++] = (struct wish){.unit = id};
    if (!u->passes && u->state == EMPTY) {
        u->state = READING;
        u->issued_bytes = 0;
    }
}

void experts_want(struct mover *m, uint32_t extent, const uint32_t *parts, uint32_t n_parts) {
    struct experts *x = m->experts;
    for (uint32_t i = 0; i < n_parts; i++) {
        if (parts[i] < m->r->extents[extent].n_parts) {
            want(x, &x->units[x->first_unit[extent] + parts[i]]);
        }
    }
}

/* ---- reading ---- */

/* Issues the next reads of a part into its place. True when none is left to issue. */
static bool read_in_place(struct experts *x, struct unit *u) {
    uint32_t align = align_of(x, u);
    uint64_t offset = offset_of(x, u), payload = part_bytes(extent_of(x, u));
    uint64_t start = sectors_start(offset, align), room = sectors_bytes(offset, payload, align);
    while (u->issued_bytes < room) {
        uint64_t bytes = min_u64(PIECE_BYTES, room - u->issued_bytes);
        uint64_t first = max_u64(start + u->issued_bytes, offset);
        uint64_t end = min_u64(start + u->issued_bytes + bytes, offset + payload);
        if (x->n_reading >= FILL_DEPTH ||
            !reads_issue(x->m, FLIGHT_UNIT, (uint32_t)(u - x->units), u->extent, first, end - first,
                         x->memory + u->place + u->issued_bytes)) {
            return false;
        }
        u->issued_bytes += bytes;
        u->n_reading++;
        x->n_reading++;
    }
    return true;
}

static bool issue_block(struct experts *x, struct unit *u, uint32_t row, uint32_t slot) {
    struct mover *m = x->m;
    const struct residency_extent *e = extent_of(x, u);
    uint32_t n_rows = min_u32(m->layout.extents[u->extent].block_rows, e->n_rows - row);
    uint64_t offset = offset_of(x, u) + row * e->row_bytes;
    struct slot *s = &m->slots[slot];
    if (!reads_issue(m, FLIGHT_SLOT, slot, u->extent, offset, n_rows * e->row_bytes, s->memory)) {
        return false;
    }
    *s = (struct slot){
        .memory = s->memory,
        .data = s->memory + (offset - sectors_start(offset, align_of(x, u))),
        .state = READING,
        .extent = u->extent,
        .part = part_of(x, u),
        .row = row,
        .n_rows = n_rows,
        .block = NO_BLOCK,
    };
    return true;
}

/* Reading ahead leaves half of the slots to what is demanded now. */
static bool slots_to_spare(const struct mover *m) {
    uint32_t n_busy = 0;
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        n_busy += m->slots[i].state != EMPTY;
    }
    return 2 * n_busy < m->layout.n_slots;
}

static bool read_through_slots(struct experts *x, struct wish *w) {
    struct unit *u = &x->units[w->unit];
    while (w->next_row < extent_of(x, u)->n_rows) {
        uint32_t slot = slots_to_spare(x->m) ? mover_take_slot(x->m, false) : NO_SLOT;
        if (slot == NO_SLOT || !issue_block(x, u, w->next_row, slot)) {
            return false;
        }
        w->next_row += x->m->layout.extents[u->extent].block_rows;
    }
    return true;
}

void experts_pump(struct mover *m) {
    struct experts *x = m->experts;
    while (x != NULL && x->n_done < x->n_wishes) {
        struct wish *w = &x->wishes[x->n_done];
        struct unit *u = &x->units[w->unit];
        if (u->passes ? !read_through_slots(x, w) : u->state == READING && !read_in_place(x, u)) {
            return;
        }
        x->n_done++;
    }
}

void experts_landed(struct mover *m, const struct flight *f, bool ok) {
    struct experts *x = m->experts;
    struct unit *u = &x->units[f->index];
    x->n_reading--;
    u->n_reading--;
    if (!ok) {
        u->state = FAILED;
    }
    uint32_t align = align_of(x, u);
    if (u->n_reading > 0) {
        return;
    }
    if (u->state == FAILED || !u->wanted) { /* the sweep that wanted it has ended */
        if (!u->wanted) {
            forget(x, u);
        }
    } else if (u->issued_bytes ==
               sectors_bytes(offset_of(x, u), part_bytes(extent_of(x, u)), align)) {
        u->state = READY;
    }
}

bool experts_first_trip(struct mover *m, const struct flight *f) {
    struct experts *x = m->experts;
    uint32_t id = f->index;
    if (f->kind == FLIGHT_SLOT) {
        id = x->first_unit[f->extent] + m->slots[f->index].part;
    }
    struct unit *u = &x->units[id];
    uint64_t start = max_u64(f->offset, offset_of(x, u)) - offset_of(x, u);
    if (start < u->seen_bytes) {
        return false;
    }
    u->seen_bytes = start + f->payload_bytes;
    return true;
}

/* ---- views ---- */

static int acquire_held(struct mover *m, struct unit *u, uint32_t row, bool wait,
                        struct residency_view *view, struct ot_error *err) {
    struct experts *x = m->experts;
    const struct residency_extent *e = extent_of(x, u);
    while (u->state == READING || (u->state == FAILED && u->n_reading > 0)) {
        if (reads_take(m, false)) {
            continue;
        }
        mover_pump(m);
        if (!wait) {
            return 1;
        }
        reads_take(m, true);
    }
    if (u->state != READY) {
        forget(x, u);
        u->wanted = false;
        return reads_failure(m, err);
    }
    u->views++;
    uint64_t skip = offset_of(x, u) - sectors_start(offset_of(x, u), align_of(x, u));
    *view = (struct residency_view){
        .data = x->memory + u->place + skip + row * e->row_bytes,
        .row = row,
        .n_rows = e->n_rows - row,
        .extent = u->extent,
        .part = part_of(x, u),
        .slot = m->layout.n_slots + (uint32_t)(u - x->units),
    };
    return 0;
}

static uint32_t find_slot(const struct mover *m, const struct unit *u, uint32_t part,
                          uint32_t row) {
    for (uint32_t i = 0; i < m->layout.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        if (s->state != EMPTY && !s->orphan && s->block == NO_BLOCK && s->extent == u->extent &&
            s->part == part && row >= s->row && row < s->row + s->n_rows) {
            return i;
        }
    }
    return NO_SLOT;
}

/* The wish of a part that passes by goes on behind the block that was read on demand. */
static void advance_wish(struct experts *x, const struct unit *u, uint32_t row) {
    for (uint32_t i = x->n_done; i < x->n_wishes; i++) {
        if (x->wishes[i].unit == (uint32_t)(u - x->units)) {
            x->wishes[i].next_row = max_u32(x->wishes[i].next_row, row);
            return;
        }
    }
}

static int acquire_passing(struct mover *m, struct unit *u, uint32_t row, bool wait,
                           struct residency_view *view, struct ot_error *err) {
    struct experts *x = m->experts;
    uint32_t block_rows = m->layout.extents[u->extent].block_rows;
    uint32_t part = part_of(x, u), slot;
    while ((slot = find_slot(m, u, part, row)) == NO_SLOT) {
        if (!wait) {
            return 1;
        }
        uint32_t start = row / block_rows * block_rows;
        slot = mover_take_slot(m, true);
        if (slot != NO_SLOT && issue_block(x, u, start, slot)) {
            advance_wish(x, u, start + block_rows);
            mover_pump(m);
        } else if (!reads_take(m, true)) {
            return error_set(err, OT_ERR_ARGUMENT, "residency",
                             "no slot is free: views are held while more are asked for");
        }
    }
    int code = mover_wait_slot(m, slot, wait, err);
    if (code == 0) {
        mover_view_slot(m, slot, row, view);
    }
    return code;
}

int experts_acquire(struct mover *m, uint32_t extent, uint32_t part, uint32_t row, bool wait,
                    struct residency_view *view, struct ot_error *err) {
    struct experts *x = m->experts;
    struct unit *u = &x->units[x->first_unit[extent] + part];
    if (u->wanted && !u->passes && u->state == EMPTY) {
        u->wanted = false; /* used already in this sweep, and evicted since */
    }
    if (!u->wanted) {
        if (x->n_wishes == x->n_units) {
            x->n_wishes = x->n_done =
                0; /* all were served: u would not be wanted again otherwise */
        }
        want(x, u);
        mover_pump(m);
    }
    return u->passes ? acquire_passing(m, u, row, wait, view, err)
                     : acquire_held(m, u, row, wait, view, err);
}

void experts_release(struct mover *m, uint32_t unit) {
    struct experts *x = m->experts;
    if (x != NULL && unit < x->n_units && x->units[unit].views > 0 && --x->units[unit].views == 0) {
        unpin(x, &x->units[unit]);
    }
}

void experts_sweep_end(struct mover *m) {
    struct experts *x = m->experts;
    if (x == NULL) {
        return;
    }
    for (uint32_t i = 0; i < x->n_units; i++) {
        struct unit *u = &x->units[i];
        u->wanted = u->passes = false;
        u->views = 0;
        if (u->state == FAILED && u->n_reading == 0) {
            forget(x, u);
        } else if (u->state == READING && u->n_reading == 0) {
            forget(x, u); /* nothing of it was issued, or not all */
        } else if (u->state == READY) {
            unpin(x, u);
        }
    }
    x->n_wishes = x->n_done = 0;
}

uint64_t experts_held_bytes(const struct mover *m) {
    return m->experts != NULL ? policy_held_bytes(m->experts->policy) : 0;
}

bool experts_check(const struct mover *m) {
    const struct experts *x = m->experts;
    if (x == NULL) {
        return true;
    }
    uint32_t n_reading = 0;
    for (uint32_t i = 0; i < x->n_units; i++) {
        const struct unit *u = &x->units[i];
        n_reading += u->n_reading;
        if ((u->state == READY || u->state == READING) && !policy_holds(x->policy, i)) {
            return false;
        }
        if (u->views > 0 && (u->state != READY || !u->pinned)) {
            return false;
        }
    }
    return n_reading == x->n_reading && policy_check(x->policy) &&
           policy_held_bytes(x->policy) <= m->layout.expert_bytes;
}
