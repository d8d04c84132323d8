/* budget.h - one budget for everything the process makes the machine hold, and its parts.
 *
 *   total = base + kv + activations + reserve + weights
 *
 * base is what the process holds when the context opens (program, vocabulary, header pages), of
 * which the least budget takes the most that another start may hold, so that it is the same each
 * time; reserve covers what is taken later outside the engine (logits, sampler, report) and the
 * kernel's own bookkeeping (page tables, rings). What is left is for weights: wired bytes and
 * slots. */
#ifndef ENGINE_BUDGET_H
#define ENGINE_BUDGET_H

#include "kernel/kernel.h"
#include "kv/kv.h"
#include "model/model.h"
#include "onetrip.h"
#include "sys/facts.h"

struct budget {
    uint64_t total_bytes; /* in force */
    const char *source;   /* where it comes from, for reports */
    struct kv_params kv;
    uint64_t base_bytes, kv_bytes, activation_bytes, reserve_bytes;
    uint64_t base_most_bytes; /* of base, at any start */
    uint64_t weights_bytes;   /* what residency may hold */
    uint64_t least_bytes;  /* the least total for these settings, whatever total is: it does, and less is
                              refused, at every start of a program but one whose own files are large */
    uint32_t n_batch;      /* tokens of a sweep whose activations the budget has room for */
    uint32_t n_batch_most; /* with wired memory lent, where weights are streamed; else n_batch */
    uint32_t n_draft;      /* further rows of logits that the reserve has room for */
    uint32_t n_logits;     /* rows of logits of one call that the reserve has room for */
    bool fits;             /* weights_bytes are enough, nothing is streamed */
};

/* Fills *b for a context of n_ctx positions and n_seq sequences. n_ctx is lowered, not below
 * params->n_ctx_least, as onetrip.h says. Errors: BUDGET (names the least one and its parts). */
int budget_plan(struct budget *b, const struct ot_model *model, const struct kernels *kernels,
                const struct ot_context_params *params, uint32_t *n_ctx, uint32_t n_seq,
                uint32_t n_threads, struct ot_error *err);

/* Chooses total_bytes and source: what was asked for (0: nothing), at most the control group's
 * limit; else what is free of it, or of the machine, less a headroom. */
void budget_choose(struct budget *b, uint64_t asked, const struct sys_limits *limits,
                   const struct sys_process *process);

/* Most tokens of a sweep, at most `most` and at least 1, whose activations fit `bytes`. */
uint32_t budget_fit_batch(const struct ot_model *model, const struct kernels *kernels,
                          uint32_t n_threads, uint64_t bytes, uint32_t most);

#endif
