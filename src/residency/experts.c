/* experts.c - parts of EXPERT extents, read when a sweep asks for them.
 *
 * What the budget leaves when everything that every sweep reads is wired holds the parts that a
 * policy keeps (policy.h, LFU with aging). It is divided into frames, each as large as a part: a
 * part that is kept has one, and the part that is kept in its stead gets the same memory, which
 * was touched long ago and lies in huge pages. Parts of one size are a class; each class has its
 * own frames and its own policy, with the same share of its parts. A part that the policy lets pass
 * by goes through slots, block by block.
 *
 * All parts that are wanted are read at once, in the order in which they were asked for; parts that
 * are held can be computed meanwhile.
 *
 * Invariants, checked by experts_check():
 *   a unit that is READY or READING is held by the policy, and has a frame
 *   of each class: frames free + frames of units + frames lent == n_frames
 *   a unit with views > 0 is READY and pinned
 *   n_reading == number of unit reads in flight
 *
 * Threads: the engine thread only. */
#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "residency/bound.h"
#include "residency/mover.h"
#include "residency/policy.h"
#include "sys/memory.h"

/* The trace takes one 256th of the room for parts. */
enum { BOUND_SHARE = 256 };

/* A part. */
struct unit {
    uint8_t *frame;        /* holds its sectors; NULL: none */
    uint64_t seen_bytes;   /* of the part, from its start: read at least once */
    uint64_t issued_bytes; /* of its sectors, while READING */
    uint32_t extent, n_reading, views;
    uint32_t item; /* its number in the policy of its class */
    uint8_t state; /* enum state */
    bool wanted, pinned, passes;
    bool traced;  /* its use in this sweep is in the trace */
    bool passing; /* FAILED, by a fault of the disk that may have passed */
};

/* Parts of one size. */
struct class {
    struct experts *x;
    struct policy *policy; /* owned */
    uint32_t *units;       /* owned [n_items] */
    uint8_t **free_frames; /* owned [n_frames] a stack */
    uint64_t frame_bytes;
    uint32_t n_items, n_frames, n_free;
    uint32_t n_lent; /* of the frames, the last ones */
};

/* A part that is to be read: into its frame, or through slots. */
struct wish {
    uint32_t unit;
    uint32_t next_row; /* of a part that passes by */
};

struct experts {
    struct mover *m;       /* borrowed */
    struct class *classes; /* owned [n_classes] */
    uint32_t n_classes;
    uint32_t *class_of;        /* owned [n_extents] */
    struct unit *units;        /* owned [n_units] */
    uint32_t *first_unit;      /* owned [n_extents] */
    struct wish *wishes;       /* owned [n_units], in the order of asking */
    uint32_t n_wishes, n_done; /* wishes before n_done need no more reads */
    uint32_t n_units, n_reading;
    uint8_t *memory; /* the frames */
    uint64_t memory_bytes;
    struct bound bound;
};

static const struct residency_extent *extent_of(const struct experts *x, const struct unit *u) {
    return &x->m->r->extents[u->extent];
}

static struct class *class_of(const struct experts *x, const struct unit *u) {
    return &x->classes[x->class_of[u->extent]];
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

/* Takes the unit's frame from it. */
static void give_back(struct class *c, struct unit *u) {
    if (u->frame != NULL) {
        c->free_frames[c->n_free++] = u->frame;
        u->frame = NULL;
    }
    u->state = EMPTY;
}

static void evicted(void *user, uint32_t item) {
    struct class *c = user;
    give_back(c, &c->x->units[c->units[item]]);
}

static void unpin(struct experts *x, struct unit *u) {
    if (u->pinned) {
        policy_unpin(class_of(x, u)->policy, u->item);
        u->pinned = false;
    }
}

/* Forgets a unit whose bytes did not come. */
static void forget(struct experts *x, struct unit *u) {
    if (u->state != EMPTY) {
        policy_remove(class_of(x, u)->policy, u->item);
        u->pinned = false;
        give_back(class_of(x, u), u);
    }
}

/* ---- opening and closing ---- */

static int open_class(struct class *c, struct ot_error *err) {
    uint64_t *bytes = mem_calloc(c->n_items, sizeof *bytes);
    c->free_frames = mem_calloc(max_u32(c->n_frames, 1), sizeof *c->free_frames);
    if (bytes == NULL || c->free_frames == NULL) {
        mem_free(bytes);
        return error_memory(err, c->n_items * sizeof *bytes);
    }
    for (uint32_t i = 0; i < c->n_items; i++) {
        bytes[i] = c->frame_bytes;
    }
    struct policy_params params = {
        .kind = POLICY_LFU,
        .n_items = c->n_items,
        .item_bytes = bytes,
        .capacity_bytes = c->n_frames * c->frame_bytes,
        .evict = evicted,
        .user = c,
    };
    int code = policy_open(&params, &c->policy, err);
    mem_free(bytes);
    return code;
}

/* Divides what the layout leaves for parts: each class has frames for the same share of its parts.
 * Where not all of them fit, the trace of their uses has its memory from that too. */
static int share_out(struct experts *x, struct ot_error *err) {
    uint64_t room = x->m->layout.expert_bytes, total = 0;
    for (uint32_t i = 0; i < x->n_classes; i++) {
        total += x->classes[i].n_items * x->classes[i].frame_bytes;
    }
    uint64_t n_traced = 0;
    if (room < total) {
        n_traced = min_u64(room / BOUND_SHARE / sizeof *x->bound.uses, BOUND_USES_MOST);
        room -= 2 * n_traced * sizeof *x->bound.uses; /* as much again to compute the bound */
    }
    for (uint32_t i = 0; i < x->n_classes; i++) {
        struct class *c = &x->classes[i];
        c->n_frames = (uint32_t)((unsigned __int128)min_u64(room, total) * c->n_items / total);
        x->memory_bytes += c->n_frames * c->frame_bytes;
    }
    for (uint32_t i = 0; i < x->n_classes; i++) { /* what the divisions have left over */
        struct class *c = &x->classes[i];
        if (c->n_frames < c->n_items && x->memory_bytes + c->frame_bytes <= room) {
            c->n_frames++;
            x->memory_bytes += c->frame_bytes;
        }
    }
    return bound_open(&x->bound, (uint32_t)n_traced, err);
}

static int open_frames(struct experts *x, struct ot_error *err) {
    if (x->memory_bytes > 0) {
        x->memory = sys_memory_take(x->memory_bytes, true, err);
        if (x->memory == NULL) {
            return OT_ERR_MEMORY;
        }
    }
    uint8_t *at = x->memory;
    for (uint32_t i = 0; i < x->n_classes; i++) {
        struct class *c = &x->classes[i];
        int code = open_class(c, err);
        if (code != 0) {
            return code;
        }
        /* The stack's top is the lowest address: memory is touched from its start on. */
        for (uint32_t k = c->n_frames; k-- > 0;) {
            c->free_frames[c->n_free++] = at + k * c->frame_bytes;
        }
        at += c->n_frames * c->frame_bytes;
    }
    return 0;
}

static uint32_t find_class(struct experts *x, const struct residency_extent *e) {
    uint32_t align = max_u32(x->m->r->files[e->file].direct_align, OVERREAD_BYTES);
    uint64_t frame = round_up(part_bytes(e), align) + align; /* wherever in a sector it begins */
    uint32_t i = 0;
    while (i < x->n_classes && x->classes[i].frame_bytes != frame) {
        i++;
    }
    if (i == x->n_classes) {
        x->classes[x->n_classes++] = (struct class){.x = x, .frame_bytes = frame};
    }
    return i;
}

/* The units, and the class of each. */
static int open_units(struct experts *x, struct ot_error *err) {
    const struct residency *r = x->m->r;
    for (uint32_t i = 0; i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        x->first_unit[i] = x->n_units;
        if (e->contract != RESIDENCY_EXPERT) {
            continue;
        }
        x->class_of[i] = find_class(x, e);
        struct class *c = &x->classes[x->class_of[i]];
        for (uint32_t p = 0; p < e->n_parts; p++) {
            x->units[x->n_units++] = (struct unit){.extent = i, .item = c->n_items++};
        }
    }
    for (uint32_t i = 0; i < x->n_classes; i++) {
        struct class *c = &x->classes[i];
        c->units = mem_calloc(c->n_items, sizeof *c->units);
        if (c->units == NULL) {
            return error_memory(err, c->n_items * sizeof *c->units);
        }
    }
    for (uint32_t i = 0; i < x->n_units; i++) {
        class_of(x, &x->units[i])->units[x->units[i].item] = i;
    }
    return 0;
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
    x->class_of = mem_calloc(m->r->n_extents, sizeof *x->class_of);
    x->classes = mem_calloc(m->r->n_extents, sizeof *x->classes);
    if (x->units == NULL || x->wishes == NULL || x->first_unit == NULL || x->class_of == NULL ||
        x->classes == NULL) {
        return error_memory(err, n_units * sizeof *x->units);
    }
    int code = open_units(x, err);
    if (code == 0) {
        code = share_out(x, err);
    }
    if (code == 0) {
        code = open_frames(x, err);
    }
    return code;
}

void experts_close(struct experts *x) {
    if (x == NULL) {
        return;
    }
    for (uint32_t i = 0; i < x->n_classes; i++) {
        policy_close(x->classes[i].policy);
        mem_free(x->classes[i].free_frames);
        mem_free(x->classes[i].units);
    }
    sys_memory_free(x->memory, x->memory_bytes);
    bound_close(&x->bound);
    mem_free(x->classes);
    mem_free(x->class_of);
    mem_free(x->first_unit);
    mem_free(x->wishes);
    mem_free(x->units);
    mem_free(x);
}

/* ---- asking ---- */

static void want(struct experts *x, struct unit *u) {
    struct class *c = class_of(x, u);
    if (u->wanted) {
        return;
    }
    u->wanted = true;
    if (!u->traced) {
        u->traced = true;
        bound_use(&x->bound, (uint32_t)(u - x->units));
    }
    policy_access(c->policy, u->item, POLICY_NEVER);
    u->passes = !policy_holds(c->policy, u->item);
    u->pinned = u->pinned || (!u->passes && policy_pin(c->policy, u->item));
    x->wishes[x->n_wishes++] = (struct wish){.unit = (uint32_t)(u - x->units)};
    if (!u->passes && u->state == EMPTY) {
        u->frame = c->free_frames[--c->n_free];
        touch_frames(x->m, u->frame + c->frame_bytes);
        u->state = READING;
        u->issued_bytes = 0;
    }
}

void experts_want(struct mover *m, const struct residency_part *parts, uint32_t n_parts) {
    struct experts *x = m->experts;
    /* What is held is pinned first, lest what is missing takes its frame. */
    for (uint32_t held = 2; held-- > 0;) {
        for (uint32_t i = 0; i < n_parts; i++) {
            const struct residency_extent *e = &m->r->extents[parts[i].extent];
            if (e->contract != RESIDENCY_EXPERT || parts[i].part >= e->n_parts) {
                continue;
            }
            struct unit *u = &x->units[x->first_unit[parts[i].extent] + parts[i].part];
            if ((held != 0) == (u->state != EMPTY)) {
                want(x, u);
            }
        }
    }
}

/* ---- reading ---- */

/* Issues the next reads of a part into its frame. True when none is left to issue. */
static bool read_to_frame(struct experts *x, struct unit *u) {
    uint32_t align = align_of(x, u);
    uint64_t offset = offset_of(x, u), payload = part_bytes(extent_of(x, u));
    uint64_t start = sectors_start(offset, align), room = sectors_bytes(offset, payload, align);
    while (u->issued_bytes < room) {
        uint64_t bytes = min_u64(PIECE_BYTES, room - u->issued_bytes);
        uint64_t first = max_u64(start + u->issued_bytes, offset);
        uint64_t end = min_u64(start + u->issued_bytes + bytes, offset + payload);
        if (x->n_reading >= FILL_DEPTH ||
            !reads_issue(x->m, FLIGHT_UNIT, (uint32_t)(u - x->units), u->extent, first, end - first,
                         u->frame + u->issued_bytes)) {
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
    uint32_t n_rows = min_u32(layout_part_block_rows(&m->layout, u->extent), e->n_rows - row);
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

static bool read_through_slots(struct experts *x, struct wish *w) {
    struct unit *u = &x->units[w->unit];
    while (w->next_row < extent_of(x, u)->n_rows) {
        uint32_t slot = mover_slots_to_spare(x->m, false) ? mover_take_slot(x->m, false) : NO_SLOT;
        if (slot == NO_SLOT || !issue_block(x, u, w->next_row, slot)) {
            return false;
        }
        w->next_row += layout_part_block_rows(&x->m->layout, u->extent);
    }
    return true;
}

void experts_pump(struct mover *m) {
    struct experts *x = m->experts;
    while (x != NULL && x->n_done < x->n_wishes) {
        struct wish *w = &x->wishes[x->n_done];
        struct unit *u = &x->units[w->unit];
        if (u->passes ? !read_through_slots(x, w) : u->state == READING && !read_to_frame(x, u)) {
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
        u->passing = reads_failure_may_pass(m) && (u->state != FAILED || u->passing);
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
    if (f->payload_bytes > part_bytes(extent_of(x, u)) - u->seen_bytes) {
        return false;
    }
    u->seen_bytes += f->payload_bytes;
    return true;
}

void experts_wasted(struct mover *m, const struct slot *s) {
    struct experts *x = m->experts;
    struct unit *u = &x->units[x->first_unit[s->extent] + s->part];
    u->seen_bytes -= min_u64(u->seen_bytes, s->n_rows * extent_of(x, u)->row_bytes);
}

/* ---- views ---- */

/* Waits until a held part has been read. A read that was begun ahead of the demand and failed is
 * repeated once. 0, WAIT_NOT_YET or an error. */
static int wait_unit(struct mover *m, struct unit *u, bool wait, struct ot_error *err) {
    struct experts *x = m->experts;
    for (bool demanded = false; u->state != READY;) {
        if (u->state == FAILED && u->n_reading == 0) {
            if (demanded || !u->passing) {
                forget(x, u);
                u->wanted = false;
                return reads_failure(m, err);
            }
            if (!wait) {
                return WAIT_NOT_YET;
            }
            demanded = true;
            u->state = READING;
            u->issued_bytes = 0;
        }
        if (reads_take(m, false)) {
            continue;
        }
        if (demanded && u->state == READING) {
            read_to_frame(x, u);
        }
        mover_pump(m);
        if (!wait) {
            return WAIT_NOT_YET;
        }
        reads_take(m, true);
    }
    return 0;
}

static int acquire_held(struct mover *m, struct unit *u, uint32_t row, bool wait,
                        struct residency_view *view, struct ot_error *err) {
    struct experts *x = m->experts;
    const struct residency_extent *e = extent_of(x, u);
    int code = wait_unit(m, u, wait, err);
    if (code != 0) {
        return code;
    }
    u->views++;
    uint64_t skip = offset_of(x, u) - sectors_start(offset_of(x, u), align_of(x, u));
    *view = (struct residency_view){
        .data = u->frame + skip + row * e->row_bytes,
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
    uint32_t block_rows = layout_part_block_rows(&m->layout, u->extent);
    uint32_t part = part_of(x, u), slot;
    bool demanded = false;
    int code;
    do {
        while ((slot = find_slot(m, u, part, row)) == NO_SLOT) {
            if (!wait) {
                return WAIT_NOT_YET;
            }
            uint32_t start = row / block_rows * block_rows;
            slot = mover_take_slot(m, true);
            if (slot != NO_SLOT && issue_block(x, u, start, slot)) {
                demanded = true;
                advance_wish(x, u, start + block_rows);
                mover_pump(m);
            } else if (!reads_take(m, true)) {
                return error_set(err, OT_ERR_ARGUMENT, "residency",
                                 "no slot is free: views are held while more are asked for");
            }
        }
        code = mover_wait_slot(m, slot, wait, demanded, err);
    } while (code == WAIT_READ_AGAIN);
    if (code == 0) {
        mover_view_slot(m, slot, row, view);
    }
    return code;
}

bool experts_has(const struct mover *m, uint32_t extent, uint32_t part) {
    const struct experts *x = m->experts;
    const struct unit *u = &x->units[x->first_unit[extent] + part];
    if (!u->passes) {
        return u->wanted && u->state == READY;
    }
    uint32_t slot = find_slot(m, u, part, 0);
    return slot != NO_SLOT && m->slots[slot].state == READY &&
           m->slots[slot].n_rows == extent_of(x, u)->n_rows;
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
        u->wanted = u->passes = u->traced = false;
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

/* ---- loans ---- */

/* Frames are lent by the class whose memory is the last: the end of all frames' memory. */
static struct class *lender(const struct mover *m) {
    struct experts *x = m->experts;
    return x != NULL ? &x->classes[x->n_classes - 1] : NULL;
}

static uint64_t lent_bytes(const struct class *c) {
    return c->n_lent * c->frame_bytes;
}

uint8_t *experts_frames(const struct mover *m, uint64_t *bytes) {
    const struct experts *x = m->experts;
    *bytes = x != NULL ? x->memory_bytes - lent_bytes(lender(m)) : 0;
    return x != NULL ? x->memory : NULL;
}

uint64_t experts_lend_most(const struct mover *m) {
    const struct class *c = lender(m);
    return c != NULL ? c->n_frames / 2 * c->frame_bytes : 0;
}

/* The parts in the frames from n_left on lose them. */
static void clear_frames(struct class *c, uint32_t n_left, const uint8_t *start) {
    for (uint32_t i = 0; i < c->n_items; i++) {
        struct unit *u = &c->x->units[c->units[i]];
        if (u->frame != NULL && u->frame >= start) {
            forget(c->x, u);
        }
    }
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < c->n_free; i++) {
        if (c->free_frames[i] < start) {
            c->free_frames[n_kept++] = c->free_frames[i];
        }
    }
    c->n_free = n_kept;
    c->n_lent = c->n_frames - n_left;
}

uint64_t experts_lend(struct mover *m, uint64_t bytes) {
    struct class *c = lender(m);
    if (c == NULL || (bytes == 0 && c->n_lent == 0)) {
        return 0;
    }
    mover_settle(m);
    touch_end(m);
    uint8_t *end = c->x->memory + c->x->memory_bytes;
    for (uint8_t *frame = end - lent_bytes(c); frame < end; frame += c->frame_bytes) {
        c->free_frames[c->n_free++] = frame;
    }
    c->n_lent = 0;
    uint64_t lent = min_u64(bytes, experts_lend_most(m));
    uint32_t n_left = c->n_frames - (uint32_t)((lent + c->frame_bytes - 1) / c->frame_bytes);
    uint8_t *start = end - (c->n_frames - n_left) * c->frame_bytes;
    clear_frames(c, n_left, start);
    policy_resize(c->policy, n_left * c->frame_bytes);
    sys_memory_drop(start, (uint64_t)(end - start));
    touch_begin(m);
    return lent;
}

uint64_t experts_held_bytes(const struct mover *m) {
    const struct experts *x = m->experts;
    uint64_t bytes = 0;
    for (uint32_t i = 0; x != NULL && i < x->n_classes; i++) {
        bytes += policy_held_bytes(x->classes[i].policy);
    }
    return bytes;
}

/* ---- the bound ---- */

/* True where everything is held that was ever used, so that nothing had to come again. */
static bool all_fits(const struct experts *x) {
    bool fits = true;
    for (uint32_t i = 0; i < x->n_classes; i++) {
        fits = fits && x->classes[i].n_frames == x->classes[i].n_items;
    }
    return fits;
}

uint64_t experts_needed_again(const struct mover *m, uint64_t payload_bytes) {
    return m->r->budget_bytes <= m->layout.sweep_bytes ? payload_bytes : 0;
}

bool experts_settle_needs(struct mover *m) {
    struct experts *x = m->experts;
    if (x == NULL || all_fits(x) || experts_needed_again(m, 1) > 0) {
        return true; /* what was posted is right */
    }
    uint64_t *bytes = mem_calloc(2ull * x->n_units, sizeof *bytes);
    if (bytes == NULL) {
        return false;
    }
    uint64_t *reloads = bytes + x->n_units;
    for (uint32_t i = 0; i < x->n_units; i++) {
        bytes[i] = part_bytes(extent_of(x, &x->units[i]));
    }
    bool known = bound_reloads(&x->bound, bytes, x->n_units,
                               m->r->budget_bytes - m->layout.sweep_bytes, reloads);
    for (uint32_t i = 0; i < m->r->n_extents; i++) {
        const struct residency_extent *e = &m->r->extents[i];
        uint64_t sum = 0;
        for (uint32_t p = 0; p < e->n_parts && e->contract == RESIDENCY_EXPERT; p++) {
            sum += known ? reloads[x->first_unit[i] + p] : 0;
        }
        if (e->contract == RESIDENCY_EXPERT) {
            ledger_set_needed(m->r->ledger, e->ledger_id, OT_DISK_RAM, OT_CAUSE_RELOAD, sum);
        }
    }
    mem_free(bytes);
    return known;
}

/* ---- checks ---- */

static bool class_check(const struct class *c) {
    uint32_t n_used = 0;
    for (uint32_t i = 0; i < c->n_items; i++) {
        const struct unit *u = &c->x->units[c->units[i]];
        n_used += u->frame != NULL;
        if ((u->frame != NULL) != (u->state != EMPTY) ||
            (u->frame != NULL) != policy_holds(c->policy, i)) {
            return false;
        }
        if (u->views > 0 && (u->state != READY || !u->pinned)) {
            return false;
        }
    }
    return n_used + c->n_free + c->n_lent == c->n_frames && policy_check(c->policy);
}

bool experts_check(const struct mover *m) {
    const struct experts *x = m->experts;
    uint32_t n_reading = 0;
    for (uint32_t i = 0; x != NULL && i < x->n_units; i++) {
        n_reading += x->units[i].n_reading;
    }
    for (uint32_t i = 0; x != NULL && i < x->n_classes; i++) {
        if (!class_check(&x->classes[i])) {
            return false;
        }
    }
    return x == NULL || (n_reading == x->n_reading && x->memory_bytes <= m->layout.expert_bytes);
}
