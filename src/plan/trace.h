/* trace.h - reads a residency trace: which extents a run's sweeps used, in order. The format is
 * described in docs/simulate.md; residency/trace.h writes it.
 *
 * Threads: one at a time. */
#ifndef PLAN_TRACE_H
#define PLAN_TRACE_H

#include <stdint.h>

#include "onetrip.h"

enum {
    PLAN_TRACE_MAX_EXTENTS = 1 << 24,
    PLAN_TRACE_MAX_USES = 1 << 26,
    PLAN_TRACE_MAX_LINE = 1024,
};

struct plan_trace {
    uint64_t *extent_bytes; /* owned [n_extents], each > 0 */
    uint32_t *uses;         /* owned [n_uses] extent ids, in order; at least one */
    uint32_t n_extents;
    uint32_t n_uses;
    uint64_t n_sweeps;         /* that used anything, >= 1 */
    uint32_t first_sweep_uses; /* uses[0 .. this) are of the first sweep */
    uint64_t used_bytes;       /* sizes summed over all uses */
    uint64_t compulsory_bytes; /* sizes of the extents that are used, each once */
};

/* Reads the whole file; memory is at most 8 bytes an extent and 4 bytes a use, twice while it
 * grows. Errors: IO, MEMORY, FORMAT (with the line's number and what was expected there). */
int plan_trace_open(const char *path, struct plan_trace *out, struct ot_error *err);
void plan_trace_close(struct plan_trace *t);

#endif
