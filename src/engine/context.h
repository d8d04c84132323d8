/* context.h - struct ot_context: one mutable timeline over a model. */
#ifndef ENGINE_CONTEXT_H
#define ENGINE_CONTEXT_H

#include "base/pool.h"
#include "engine/budget.h"
#include "model/forward.h"
#include "onetrip.h"
#include "sys/facts.h"

struct ot_context {
    const struct ot_model *model; /* borrowed */
    struct ot_context_params requested;
    char *trace_path; /* owned; requested.trace_path points here */
    const struct kernels *kernels;
    struct budget budget;
    uint32_t n_ctx, n_seq, n_threads;
    uint32_t n_batch_most; /* tokens of a sweep, with all that may be lent */
    uint32_t n_few;        /* most tokens of any sequences that take the kernels for a few */

    struct ledger *ledger;       /* owned */
    uint32_t header_extent;      /* in the ledger: the files' headers */
    struct pool *pool;           /* owned */
    struct residency *residency; /* owned */
    struct kv kv;
    struct forward forward;
    bool kv_open, forward_open;

    uint32_t *lengths;            /* owned [n_seq]: tokens each sequence holds */
    uint32_t *added;              /* owned [n_seq]: tokens of the call that runs */
    struct forward_token *tokens; /* owned [n_batch_most of the budget] */
    uint64_t n_sweeps_prompt, n_sweeps_decode, n_tokens; /* that were computed */

    struct sys_process at_start; /* the process's counters from which on the ledger counts */
    uint64_t accounted_at_start; /* residency_accounted() then */

    struct sys_limit_watch watch;                 /* no files where weights are not in own memory */
    uint64_t withheld_bytes, withheld_most_bytes; /* lent by residency to nobody */
};

#endif
