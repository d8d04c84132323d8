/* simulate.h - a trace replayed against one policy.
 *
 * Threads: one at a time. */
#ifndef PLAN_SIMULATE_H
#define PLAN_SIMULATE_H

#include "plan/trace.h"
#include "residency/policy.h"

struct plan_result {
    uint64_t hits, misses; /* accesses with no byte missing, and the others */
    uint64_t read_bytes;   /* that were missing, over all accesses */
    uint64_t steady_bytes; /* of those: after the first sweep, or of the only one */
};

/* next_use [n_uses]: index of the use after it of the same extent, UINT32_MAX: none; filled by
 * plan_next_uses. Errors: MEMORY, ARGUMENT. */
int plan_simulate(const struct plan_trace *trace, const uint32_t *next_use, enum policy_kind kind,
                  uint64_t budget_bytes, struct plan_result *out, struct ot_error *err);
int plan_next_uses(const struct plan_trace *trace, uint32_t **out, struct ot_error *err);

#endif
