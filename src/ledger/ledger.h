/* ledger.h - the record of every byte that crossed a boundary.
 *
 * Knows extents by number (an extent here is one tensor of the model, one of a few named buffers
 * such as "kv" or "activations"), boundaries, classes and causes. Does not know what a tensor
 * means. Counters are per (extent, boundary, cause): posting is a few additions, no allocation.
 *
 * known: counted (we moved it, byte by byte), reported (the operating system said so), modelled
 * (from the operand extents a kernel was given: each extent once per pass over it). A counter has
 * one `known`, given by its boundary: disk>ram, ram>disk and ram>ram are counted; ram>cache and
 * cache>ram are modelled.
 *
 * Threads: the engine thread. */
#ifndef LEDGER_LEDGER_H
#define LEDGER_LEDGER_H

#include <stdint.h>

#include "onetrip.h"

struct ledger;

struct ledger_counter {
    uint64_t moved_bytes;  /* that crossed */
    uint64_t needed_bytes; /* the least that had to, docs/ledger.md, Needed */
    uint64_t rounding_bytes; /* of moved: fetched for alignment, not used */
    uint64_t times;        /* posts */
};

struct ledger_extent {
    const char *name; /* owned by the ledger */
    uint64_t bytes;   /* its size; 0: not fixed */
    enum ot_class cls;
    int32_t layer;    /* -1: none */
};

/* What a ledger of so many extents takes at most. */
uint64_t ledger_table_bytes(uint32_t max_extents);
int ledger_open(uint32_t max_extents, struct ledger **out, struct ot_error *err);
void ledger_close(struct ledger *l);
/* Adds an extent; its id is the number of extents before it. Errors: MEMORY, FULL. */
int ledger_add_extent(struct ledger *l, const char *name, uint64_t name_bytes, uint64_t bytes,
                      enum ot_class cls, int32_t layer, uint32_t *id, struct ot_error *err);
uint32_t ledger_n_extents(const struct ledger *l);
const struct ledger_extent *ledger_get_extent(const struct ledger *l, uint32_t id);

void ledger_post(struct ledger *l, uint32_t extent, enum ot_boundary boundary, enum ot_cause cause,
                 uint64_t moved_bytes, uint64_t needed_bytes);
/* moved includes rounding_bytes that nobody asked for (sectors, pages). */
void ledger_post_rounded(struct ledger *l, uint32_t extent, enum ot_boundary boundary,
                         enum ot_cause cause, uint64_t moved_bytes, uint64_t needed_bytes,
                         uint64_t rounding_bytes);
/* Takes back one post under `from` (its bytes as posted) and posts the moved bytes under `to`, needed
 * by nobody: what was read ahead and never used. */
void ledger_repost(struct ledger *l, uint32_t extent, enum ot_boundary boundary, enum ot_cause from,
                   enum ot_cause to, uint64_t moved_bytes, uint64_t needed_bytes,
                   uint64_t rounding_bytes);
/* Says what was needed of all that was posted, where that is known only afterwards. */
void ledger_set_needed(struct ledger *l, uint32_t extent, enum ot_boundary boundary,
                       enum ot_cause cause, uint64_t needed_bytes);
const struct ledger_counter *ledger_get(const struct ledger *l, uint32_t extent,
                                        enum ot_boundary boundary, enum ot_cause cause);
enum ot_known ledger_known(enum ot_boundary boundary);
/* Sum over extents of a class (OT_CLASS_COUNT: all) and causes (OT_CAUSE_COUNT: all). */
struct ledger_counter ledger_sum(const struct ledger *l, enum ot_boundary boundary,
                                 enum ot_class cls, enum ot_cause cause);
/* Counters to 0, extents stay. For tests, which count from a point of their own on. */
void ledger_reset(struct ledger *l);

const char *ledger_known_name(enum ot_known known);

#endif
