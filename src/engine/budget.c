/* budget.c - dividing one budget. */
#include "engine/budget.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "model/forward.h"
#include "sys/memory.h"

enum {
    LEAST_BATCH = 16,         /* tokens of a sweep under the least budget */
    MEMORY_BATCH = 512,       /* in memory: more tokens a sweep gain nothing */
    STREAM_SHARE = 5,         /* streaming: one in so many of the tokens that memory would take */
    LOAN_SHARE = 7,           /* fewer still where weights could lend so many times their bytes */
    TABLE_SHARE = 512,        /* of memory, for its page tables */
    KV_SHARE = 16,            /* of the budget, where it is too small for the weights anyhow */
    THREAD_BYTES = 128 << 10, /* stack pages a thread touches */
    HEAP_BYTES = 512 << 10,   /* of the C library and others, beside our own */
    AROUND_BYTES = 64 << 10,  /* pages that the kernel maps around one that is touched */
    BASE_DIFFERS_BYTES = 4 << 20,
    MAX_DRAFT = FORWARD_FEW - 1,
    MEMORY_DRAFT = 3,
};
static const uint64_t memory_activations = 40u << 20; /* in memory: most bytes of activations */

/* Logits and sampler are a few rows of the vocabulary; reports and SQLite, and what the program and
 * its libraries bring into the page cache beside their pages in use, take some MB. */
static uint64_t fixed_reserve(const struct ot_model *m, uint32_t n_threads) {
    return (4u << 20) + 16ull * m->hp.n_vocab + (uint64_t)n_threads * THREAD_BYTES;
}

/* Of the ledger and of residency, which open after the budget is divided. */
static uint64_t table_bytes(const struct ot_model *m) {
    return ledger_table_bytes(m->bind.n_extents) +
           residency_table_bytes(m->bind.extents, m->bind.n_extents);
}

/* Page tables: 8 bytes a page of 4 KiB. For huge pages, too: the kernel keeps a table ready for the
 * day that one is divided. */
static uint64_t growing_reserve(uint64_t total) {
    return total / TABLE_SHARE;
}

/* Headroom: what else runs may grow, and a limit that is reached exactly costs reclaim. */
void budget_choose(struct budget *b, uint64_t asked, const struct sys_limits *limits,
                   const struct sys_process *process) {
    const uint64_t free_bytes = (limits->available_bytes + process->rss_bytes) / 10 * 9;
    const uint64_t cgroup = limits->cgroup_bytes;
    if (asked != 0) {
        b->total_bytes = min_u64(asked, cgroup);
        b->source = asked <= cgroup || asked - cgroup < sys_page_bytes()
                        ? "asked"
                        : "cgroup limit, below what was asked";
        return;
    }
    b->total_bytes = free_bytes;
    b->source = "available memory, less 10 %";
    if (cgroup == UINT64_MAX) {
        return;
    }
    uint64_t left = min_u64(cgroup, limits->cgroup_free_bytes + process->anon_bytes);
    bool shared = left < cgroup - cgroup / 20; /* else that is the kernel's, within the headroom */
    left = (shared ? left : cgroup) / 20 * 19;
    if (left < free_bytes) {
        b->total_bytes = left;
        b->source =
            shared ? "cgroup limit, less what others use, less 5 %" : "cgroup limit, less 5 %";
    }
}

uint32_t budget_fit_batch(const struct ot_model *m, const struct kernels *k, uint32_t n_threads,
                          uint64_t bytes, uint32_t most) {
    uint32_t low = 1, high = most; /* low is taken even where it does not fit */
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (forward_need_bytes(m, k, n_threads, middle) <= bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* The most that the process may hold at another start, when a context opens: of the program's files
 * and the headers' pages it has now what was in the page cache, and around it. In a large program,
 * of which most is not in use, no more than some MB above what it has now. */
static uint64_t base_most(const struct ot_model *m, const struct sys_process *process) {
    uint64_t heap = max_u64(process->anon_bytes, mem_live_bytes() + HEAP_BYTES);
    uint64_t most = heap + sys_program_bytes() + m->header_bytes + m->n_files * AROUND_BYTES;
    return max_u64(process->rss_bytes, min_u64(most, process->rss_bytes + BASE_DIFFERS_BYTES));
}

/* The least total that leaves `need` beside the growing reserve, whatever the total is now. */
static uint64_t least_for(uint64_t need) {
    if (need > UINT64_MAX / 2) {
        return UINT64_MAX;
    }
    return round_up(need + need / (TABLE_SHARE - 1) + 1, 1u << 20);
}

static int below_least(const struct budget *b, uint64_t slots, struct ot_error *err) {
    char total[24], least[24], base[24], kv[24], act[24], reserve[24], slot[24];
    bool asked = strcmp(b->source, "asked") == 0, known = b->least_bytes != UINT64_MAX;
    uint64_t parts = b->base_most_bytes + b->kv_bytes + b->activation_bytes + slots;
    uint64_t rest = known ? b->least_bytes - parts : b->reserve_bytes;
    return error_set(
        err, OT_ERR_BUDGET, "memory budget",
        "%s%s%s%s is too little: the least for this model and context is %s (%llu bytes): "
        "program and tables %s, KV %s (less with fewer positions: n_ctx, -c), activations %s, "
        "reserve %s, "
        "weights' slots %s",
        text_bytes(total, (double)b->total_bytes), asked ? "" : " (", asked ? "" : b->source,
        asked ? "" : ")", text_bytes(least, (double)b->least_bytes),
        (unsigned long long)b->least_bytes, text_bytes(base, (double)b->base_most_bytes),
        text_bytes(kv, (double)b->kv_bytes), text_bytes(act, (double)b->activation_bytes),
        text_bytes(reserve, (double)rest), text_bytes(slot, (double)slots));
}

/* What a budget is divided into that will do, and room for what makes it better. */
struct division {
    const struct ot_model *m;
    const struct kernels *k;
    const struct ot_context_params *params;
    uint32_t n_seq, n_threads;
    uint32_t most;       /* tokens of a sweep: all that a context holds, or what was asked for */
    uint64_t row_bytes;  /* of logits */
    uint64_t slot_bytes; /* the least for weights */
    uint64_t room;       /* for weights, activations and rows for guesses */
    uint64_t draft_bytes;
};

/* More rows of logits than will do. */
static void plan_rows(struct budget *b, struct division *d, uint64_t fixed) {
    /* for guessed tokens: as many as a 16th of what is left holds */
    uint64_t left = b->total_bytes - min_u64(b->least_bytes, b->total_bytes);
    uint64_t rows = left / 16 / d->row_bytes;
    b->n_draft =
        (uint32_t)min_u64(rows, min_u32(min_u32(d->params->n_draft, b->n_batch - 1), MAX_DRAFT));
    d->draft_bytes = b->n_draft * d->row_bytes;
    /* half of what is left for the rows of many tokens: they save sweeps */
    uint64_t more = min_u64(left / 2 / d->row_bytes, d->params->n_logits - b->n_logits);
    b->n_logits += (uint32_t)more;
    b->reserve_bytes += more * d->row_bytes;
    d->room = b->total_bytes - fixed - more * d->row_bytes - d->draft_bytes;
}

/* What weights take where nothing is streamed: in the page cache if that is not ruled out and leaves
 * the activations that will do; else in own memory, which needs no room for a table that single rows
 * are read of. */
static uint64_t whole_weights(const struct budget *b, const struct division *d) {
    const struct residency_extent *extents = d->m->bind.extents;
    const uint32_t n = d->m->bind.n_extents;
    const enum ot_residency asked = d->params->residency;
    bool own = asked == OT_RESIDENCY_WIRED || asked == OT_RESIDENCY_STREAM;
    uint64_t cache = residency_cache_bytes(extents, n);
    return !own && cache + b->activation_bytes <= d->room ? cache
                                                          : residency_wired_bytes(extents, n);
}

/* Tokens of a sweep, at most as many as were asked for; weights: what all of them take. */
static void plan_batch(struct budget *b, const struct division *d, uint64_t weights) {
    const uint32_t most = min_u32(d->most, MEMORY_BATCH);
    uint32_t wanted = budget_fit_batch(d->m, d->k, d->n_threads, memory_activations, most);
    wanted = max_u32(wanted, b->n_batch);
    uint64_t activations = forward_need_bytes(d->m, d->k, d->n_threads, wanted);
    bool streams = weights + activations > d->room;
    if (streams) {
        /* longer prompts borrow from the wired weights for the one sweep that they take */
        wanted = budget_fit_batch(d->m, d->k, d->n_threads, activations / STREAM_SHARE, wanted);
        wanted = budget_fit_batch(d->m, d->k, d->n_threads, d->room - d->slot_bytes, wanted);
        if (weights > d->room && d->room / LOAN_SHARE >= activations) {
            wanted = min_u32(wanted, d->n_seq); /* that many come again and again */
        }
    }
    /* what no weights need; who asked for more than gains anything gets it */
    bool asked = d->params->n_batch != 0;
    uint64_t spare = d->room - min_u64(d->room, weights);
    wanted = max_u32(wanted, budget_fit_batch(d->m, d->k, d->n_threads,
                                              asked ? spare : min_u64(spare, activations),
                                              asked ? d->most : most));
    b->n_batch = max_u32(b->n_batch, wanted);
    b->n_batch_most = streams ? d->most : b->n_batch;
    b->activation_bytes = forward_need_bytes(d->m, d->k, d->n_threads, b->n_batch);
}

/* chosen: total, source and base, which stay the same whatever is tried. */
static int plan(struct budget *b, const struct budget *chosen, const struct ot_model *m,
                const struct kernels *k, const struct ot_context_params *params, uint32_t n_ctx,
                uint32_t n_seq, uint32_t n_threads, struct ot_error *err) {
    const struct hparams *hp = &m->hp;
    *b = *chosen;
    struct division d = {.m = m, .k = k, .params = params, .n_seq = n_seq, .n_threads = n_threads};
    d.row_bytes = sizeof(float) * (uint64_t)hp->n_vocab;
    d.slot_bytes = residency_least_bytes(m->bind.extents, m->bind.n_extents);
    d.most = (uint32_t)min_u64((uint64_t)n_ctx * n_seq, 1u << 20);
    if (params->n_kv != 0) {
        d.most = (uint32_t)min_u64(d.most, round_up(params->n_kv, KERNEL_KEY_BLOCK));
    }
    if (params->n_batch != 0) {
        d.most = min_u32(d.most, params->n_batch);
    }
    b->kv = (struct kv_params){.n_layers = hp->n_layers,
                               .n_kv_heads = hp->n_kv_heads,
                               .head_dim = hp->head_dim,
                               .n_seq = n_seq,
                               .n_ctx = n_ctx,
                               .n_kv = params->n_kv};
    b->kv_bytes = kv_need_bytes(&b->kv);
    b->n_logits = min_u32(params->n_logits, max_u32(LEAST_BATCH, params->n_logits_least));
    b->reserve_bytes = fixed_reserve(m, n_threads) + table_bytes(m) + b->n_logits * d.row_bytes;
    b->n_batch = min_u32(d.most, LEAST_BATCH);
    b->activation_bytes = forward_need_bytes(m, k, n_threads, b->n_batch);

    uint64_t growing = growing_reserve(b->total_bytes), fixed = 0, need = UINT64_MAX;
    if (!checked_add(b->base_bytes + b->reserve_bytes, b->kv_bytes, &fixed) ||
        !checked_add(fixed, b->activation_bytes + d.slot_bytes, &need)) {
        need = UINT64_MAX;
    }
    b->least_bytes =
        need == UINT64_MAX ? need : least_for(need + b->base_most_bytes - b->base_bytes);
    if (b->total_bytes < b->least_bytes) {
        return below_least(b, d.slot_bytes, err);
    }
    b->reserve_bytes += growing;
    plan_rows(b, &d, fixed + growing);
    uint64_t weights = whole_weights(b, &d);
    plan_batch(b, &d, weights);
    b->weights_bytes = d.room - b->activation_bytes;
    b->fits = weights <= b->weights_bytes;
    if (params->n_draft == OT_DRAFT_AUTO && b->fits) {
        /* in memory a guess costs time; little where its token is computed with the others */
        b->n_draft = forward_few(m, k) > MEMORY_DRAFT ? min_u32(b->n_draft, MEMORY_DRAFT) : 0;
        b->weights_bytes += d.draft_bytes - b->n_draft * d.row_bytes;
        d.draft_bytes = b->n_draft * d.row_bytes;
    }
    b->reserve_bytes += d.draft_bytes;
    return OT_OK;
}

/* Every position takes its place from weights, and those that are missing are read for every token:
 * as many as leave room for all weights, if the least do; else a share. */
int budget_plan(struct budget *b, const struct ot_model *m, const struct kernels *k,
                const struct ot_context_params *params, uint32_t *n_ctx, uint32_t n_seq,
                uint32_t n_threads, struct ot_error *err) {
    const uint32_t least = params->n_ctx_least;
    struct sys_limits limits;
    struct sys_process process;
    sys_limits_read(&limits);
    sys_process_read(&process);
    struct budget chosen = {.base_bytes = process.rss_bytes,
                            .base_most_bytes = base_most(m, &process)};
    budget_choose(&chosen, params->ram_bytes, &limits, &process);
    int rc = plan(b, &chosen, m, k, params, *n_ctx, n_seq, n_threads, err);
    if (least == 0 || least >= *n_ctx || (rc == OT_OK && b->fits)) {
        return rc;
    }
    uint32_t low = least, high = *n_ctx; /* low does, high does not */
    *n_ctx = least;
    rc = plan(b, &chosen, m, k, params, least, n_seq, n_threads, err);
    if (rc != OT_OK) {
        return rc;
    }
    const bool fits = b->fits;
    if (!fits && params->n_kv == 0) { /* else more positions take nothing from weights */
        const uint64_t position = b->kv_bytes / round_up(least, KERNEL_KEY_BLOCK);
        high = (uint32_t)min_u64(high, b->total_bytes / KV_SHARE / position + 1);
    }
    while (high > low + 1) {
        uint32_t middle = low + (high - low) / 2;
        rc = plan(b, &chosen, m, k, params, middle, n_seq, n_threads, err);
        if (rc == OT_OK && b->fits >= fits) {
            low = middle;
        } else {
            high = middle;
        }
    }
    *n_ctx = low;
    return plan(b, &chosen, m, k, params, low, n_seq, n_threads, err);
}
