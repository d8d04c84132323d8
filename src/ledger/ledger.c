/* ledger.c - counters by (extent, boundary, cause), and their sums.
 *
 * Invariants:
 *   n_extents <= max_extents; a counter's rounding_bytes <= its moved_bytes
 *   posting takes no memory and cannot fail
 *
 * Threads: one posts at a time. */
#include "ledger/ledger.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

struct ledger {
    struct ledger_extent *extents;                                        /* owned [max_extents] */
    struct ledger_counter (*counters)[OT_BOUNDARY_COUNT][OT_CAUSE_COUNT]; /* owned [max_extents] */
    uint32_t n_extents, max_extents;
};

uint64_t ledger_table_bytes(uint32_t max_extents) {
    enum { NAME_BYTES = 96 }; /* with what the heap takes beside */
    const struct ledger *l = NULL;
    return (uint64_t)max_extents * (sizeof *l->extents + sizeof *l->counters + NAME_BYTES);
}

int ledger_open(uint32_t max_extents, struct ledger **out, struct ot_error *err) {
    struct ledger *l = mem_calloc(1, sizeof *l);
    if (l == NULL) {
        return error_memory(err, sizeof *l);
    }
    l->max_extents = max_extents;
    l->extents = mem_calloc(max_extents, sizeof *l->extents);
    l->counters = mem_calloc(max_extents, sizeof *l->counters);
    if (l->extents == NULL || l->counters == NULL) {
        ledger_close(l);
        return error_memory(err, (uint64_t)max_extents * sizeof *l->counters);
    }
    *out = l;
    return 0;
}

void ledger_close(struct ledger *l) {
    if (l == NULL) {
        return;
    }
    for (uint32_t i = 0; i < l->n_extents; i++) {
        mem_free((char *)(uintptr_t)l->extents[i].name);
    }
    mem_free(l->counters);
    mem_free(l->extents);
    mem_free(l);
}

int ledger_add_extent(struct ledger *l, const char *name, uint64_t name_bytes, uint64_t bytes,
                      enum ot_class cls, int32_t layer, uint32_t *id, struct ot_error *err) {
    if (l->n_extents == l->max_extents) {
        return error_set(err, OT_ERR_FULL, "ledger", "has room for %u extents only",
                         l->max_extents);
    }
    char *copy = mem_strndup(name, name_bytes);
    if (copy == NULL) {
        return error_memory(err, name_bytes);
    }
    l->extents[l->n_extents] =
        (struct ledger_extent){.name = copy, .bytes = bytes, .cls = cls, .layer = layer};
    *id = l->n_extents++;
    return 0;
}

uint32_t ledger_n_extents(const struct ledger *l) {
    return l->n_extents;
}

const struct ledger_extent *ledger_get_extent(const struct ledger *l, uint32_t id) {
    assert(id < l->n_extents);
    return &l->extents[id];
}

void ledger_post(struct ledger *l, uint32_t extent, enum ot_boundary boundary, enum ot_cause cause,
                 uint64_t moved_bytes, uint64_t needed_bytes) {
    ledger_post_rounded(l, extent, boundary, cause, moved_bytes, needed_bytes, 0);
}

void ledger_post_rounded(struct ledger *l, uint32_t extent, enum ot_boundary boundary,
                         enum ot_cause cause, uint64_t moved_bytes, uint64_t needed_bytes,
                         uint64_t rounding_bytes) {
    assert(extent < l->n_extents && boundary < OT_BOUNDARY_COUNT && cause < OT_CAUSE_COUNT);
    assert(rounding_bytes <= moved_bytes);
    struct ledger_counter *c = &l->counters[extent][boundary][cause];
    c->moved_bytes += moved_bytes;
    c->needed_bytes += needed_bytes;
    c->rounding_bytes += rounding_bytes;
    c->times++;
}

void ledger_repost(struct ledger *l, uint32_t extent, enum ot_boundary boundary, enum ot_cause from,
                   enum ot_cause to, uint64_t moved_bytes, uint64_t needed_bytes,
                   uint64_t rounding_bytes) {
    assert(extent < l->n_extents && boundary < OT_BOUNDARY_COUNT && from < OT_CAUSE_COUNT);
    struct ledger_counter *c = &l->counters[extent][boundary][from];
    /* After a reset there is nothing to take back. */
    if (c->times > 0 && c->moved_bytes >= moved_bytes && c->needed_bytes >= needed_bytes &&
        c->rounding_bytes >= rounding_bytes) {
        c->moved_bytes -= moved_bytes;
        c->needed_bytes -= needed_bytes;
        c->rounding_bytes -= rounding_bytes;
        c->times--;
        ledger_post_rounded(l, extent, boundary, to, moved_bytes, 0, rounding_bytes);
    }
}

void ledger_set_needed(struct ledger *l, uint32_t extent, enum ot_boundary boundary,
                       enum ot_cause cause, uint64_t needed_bytes) {
    assert(extent < l->n_extents && boundary < OT_BOUNDARY_COUNT && cause < OT_CAUSE_COUNT);
    l->counters[extent][boundary][cause].needed_bytes = needed_bytes;
}

const struct ledger_counter *ledger_get(const struct ledger *l, uint32_t extent,
                                        enum ot_boundary boundary, enum ot_cause cause) {
    assert(extent < l->n_extents && boundary < OT_BOUNDARY_COUNT && cause < OT_CAUSE_COUNT);
    return &l->counters[extent][boundary][cause];
}

enum ot_known ledger_known(enum ot_boundary boundary) {
    switch (boundary) {
    case OT_RAM_CACHE:
    case OT_CACHE_RAM: return OT_MODELLED;
    default: return OT_COUNTED;
    }
}

struct ledger_counter ledger_sum(const struct ledger *l, enum ot_boundary boundary,
                                 enum ot_class cls, enum ot_cause cause) {
    struct ledger_counter sum = {0};
    uint32_t first = cause == OT_CAUSE_COUNT ? 0 : (uint32_t)cause;
    uint32_t last = cause == OT_CAUSE_COUNT ? OT_CAUSE_COUNT - 1 : (uint32_t)cause;
    for (uint32_t i = 0; i < l->n_extents; i++) {
        if (cls != OT_CLASS_COUNT && l->extents[i].cls != cls) {
            continue;
        }
        for (uint32_t k = first; k <= last; k++) {
            const struct ledger_counter *c = &l->counters[i][boundary][k];
            sum.moved_bytes += c->moved_bytes;
            sum.needed_bytes += c->needed_bytes;
            sum.rounding_bytes += c->rounding_bytes;
            sum.times += c->times;
        }
    }
    return sum;
}

void ledger_reset(struct ledger *l) {
    memset(l->counters, 0, (size_t)l->n_extents * sizeof *l->counters);
}

const char *ledger_known_name(enum ot_known known) {
    switch (known) {
    case OT_COUNTED: return "counted";
    case OT_REPORTED: return "reported";
    case OT_MODELLED: return "modelled";
    default: return "unknown";
    }
}

const char *ot_boundary_name(enum ot_boundary boundary) {
    static const char *const names[OT_BOUNDARY_COUNT] = {
        [OT_DISK_RAM] = "disk>ram",   [OT_RAM_RAM] = "ram>ram",   [OT_RAM_CACHE] = "ram>cache",
        [OT_CACHE_RAM] = "cache>ram", [OT_RAM_DISK] = "ram>disk",
    };
    return (unsigned)boundary < OT_BOUNDARY_COUNT ? names[boundary] : "unknown";
}

const char *ot_class_name(enum ot_class cls) {
    static const char *const names[OT_CLASS_COUNT] = {
        [OT_CLASS_WEIGHT] = "weight",
        [OT_CLASS_KV] = "kv",
        [OT_CLASS_ACTIVATION] = "activation",
        [OT_CLASS_TRANSFORM] = "transform",
        [OT_CLASS_IO] = "io",
        [OT_CLASS_OTHER] = "other",
    };
    return (unsigned)cls < OT_CLASS_COUNT ? names[cls] : "unknown";
}

const char *ot_cause_name(enum ot_cause cause) {
    static const char *const names[OT_CAUSE_COUNT] = {
        [OT_CAUSE_LOAD] = "load",
        [OT_CAUSE_RELOAD] = "reload",
        [OT_CAUSE_STREAM] = "stream",
        [OT_CAUSE_COPY] = "copy",
        [OT_CAUSE_REPACK] = "repack",
        [OT_CAUSE_DEQUANT] = "dequant",
        [OT_CAUSE_GATHER] = "gather",
        [OT_CAUSE_COMPUTE] = "compute",
        [OT_CAUSE_SPILL] = "spill",
        [OT_CAUSE_RESTORE] = "restore",
        [OT_CAUSE_PREFETCH_WASTED] = "prefetch_wasted",
    };
    return (unsigned)cause < OT_CAUSE_COUNT ? names[cause] : "unknown";
}
