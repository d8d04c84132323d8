/* context.c - opening a context: budget, ledger, threads, residency, KV, forward pass; and what it
 * tells of itself. */
#include "engine/context.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "engine/engine.h"

enum { DEFAULT_CTX = 4096, MAX_SEQ = 4096 };

void ot_context_default_params(struct ot_context_params *params) {
    *params = (struct ot_context_params){0};
}

static int check_params(const struct ot_model *m, const struct ot_context_params *p,
                        struct ot_error *err) {
    if (m->vocab_only) {
        return error_set(err, OT_ERR_ARGUMENT, m->path,
                         "the model was opened for its vocabulary only");
    }
    if (p->n_seq > MAX_SEQ) {
        return error_set(err, OT_ERR_ARGUMENT, "context", "%u sequences, expected at most %d",
                         p->n_seq, MAX_SEQ);
    }
    if (p->n_threads > POOL_MAX_THREADS) {
        return error_set(err, OT_ERR_ARGUMENT, "context", "%u threads, expected at most %d",
                         p->n_threads, POOL_MAX_THREADS);
    }
    if (p->n_ctx > 1u << 26) {
        return error_set(err, OT_ERR_ARGUMENT, "context", "%u positions, expected at most %u",
                         p->n_ctx, 1u << 26);
    }
    if (p->n_draft >= FORWARD_FEW && p->n_draft != OT_DRAFT_AUTO) {
        return error_set(err, OT_ERR_ARGUMENT, "context",
                         "%u rows for guesses, expected at most %d", p->n_draft, FORWARD_FEW - 1);
    }
    if ((uint32_t)p->residency > OT_RESIDENCY_STREAM || (uint32_t)p->io > OT_IO_THREADS) {
        return error_set(err, OT_ERR_ARGUMENT, "context",
                         "residency %d, io %d: expected 0 to %d and 0 to %d", (int)p->residency,
                         (int)p->io, OT_RESIDENCY_STREAM, OT_IO_THREADS);
    }
    return OT_OK;
}

static int open_ledger(struct ot_context *ctx, struct ot_error *err) {
    const struct ot_model *m = ctx->model;
    int rc = ledger_open(m->bind.n_extents + 16, &ctx->ledger, err);
    if (rc != OT_OK) {
        return rc;
    }
    for (uint32_t i = 0; i < m->bind.n_extents && rc == OT_OK; i++) {
        const char *name = m->tensor_names[m->bind.extent_tensor[i]];
        uint32_t id;
        rc = ledger_add_extent(ctx->ledger, name, strlen(name),
                               m->tensors[m->bind.extent_tensor[i]].bytes, OT_CLASS_WEIGHT,
                               m->bind.extent_layer[i], &id, err);
    }
    if (rc == OT_OK) {
        rc = ledger_add_extent(ctx->ledger, "headers", 7, m->header_bytes, OT_CLASS_OTHER, -1,
                               &ctx->header_extent, err);
    }
    return rc;
}

/* The headers were read once, for all contexts: the first that opens has them in its account. */
static void account_headers(struct ot_context *ctx) {
    const struct ot_model *m = ctx->model;
    if (atomic_exchange(m->header_accounted, true)) {
        return;
    }
    ctx->at_start.read_bytes -= min_u64(ctx->at_start.read_bytes, m->opening_read_bytes);
    if (m->header_disk_bytes > 0) {
        uint64_t needed = min_u64(m->header_disk_bytes, m->header_bytes);
        ledger_post_rounded(ctx->ledger, ctx->header_extent, OT_DISK_RAM, OT_CAUSE_LOAD,
                            m->header_disk_bytes, needed, m->header_disk_bytes - needed);
    }
}

static int open_residency(struct ot_context *ctx, struct ot_error *err) {
    const struct ot_model *m = ctx->model;
    struct residency_extent *extents = mem_calloc(m->bind.n_extents, sizeof *extents);
    if (extents == NULL) {
        return error_memory(err, m->bind.n_extents * sizeof *extents);
    }
    for (uint32_t i = 0; i < m->bind.n_extents; i++) {
        extents[i] = m->bind.extents[i];
        extents[i].ledger_id = i; /* extents were added to the ledger first, in this order */
    }
    struct residency_params p = {
        .files = m->files,
        .n_files = m->n_files,
        .extents = extents,
        .n_extents = m->bind.n_extents,
        .weights_budget_bytes = ctx->budget.weights_bytes,
        .residency = ctx->requested.residency,
        .io = ctx->requested.io,
        .ledger = ctx->ledger,
        .trace_path = ctx->trace_path,
        .progress = ctx->requested.progress,
        .progress_user = ctx->requested.progress_user,
    };
    sys_limit_watch_open(&ctx->watch); /* before weights take all that may be locked */
    int rc = residency_open(&p, &ctx->residency, err);
    mem_free(extents);
    if (rc != OT_OK) {
        return rc;
    }
    if (residency_in_cache(ctx->residency)) {
        sys_limit_watch_close(&ctx->watch); /* the kernel takes page cache by itself */
    }
    return OT_OK;
}

static int open_parts(struct ot_context *ctx, struct ot_error *err) {
    int rc;
    ctx->lengths = mem_calloc(ctx->n_seq, sizeof *ctx->lengths);
    ctx->added = mem_calloc(ctx->n_seq, sizeof *ctx->added);
    ctx->tokens = mem_calloc(ctx->budget.n_batch_most, sizeof *ctx->tokens);
    ctx->pool = pool_open(ctx->n_threads);
    if (ctx->lengths == NULL || ctx->added == NULL || ctx->tokens == NULL || ctx->pool == NULL) {
        return error_set(err, OT_ERR_MEMORY, "context",
                         "no memory or no threads for %u threads, %u sequences", ctx->n_threads,
                         ctx->n_seq);
    }
    if ((rc = open_ledger(ctx, err)) != OT_OK || (rc = open_residency(ctx, err)) != OT_OK ||
        (rc = kv_open(&ctx->kv, &ctx->budget.kv, ctx->ledger, err)) != OT_OK) {
        return rc;
    }
    ctx->kv_open = true;
    struct forward_params p = {
        .model = ctx->model,
        .kernels = ctx->kernels,
        .pool = ctx->pool,
        .residency = ctx->residency,
        .kv = &ctx->kv,
        .ledger = ctx->ledger,
        .n_batch = ctx->budget.n_batch_most,
        .n_ctx = ctx->n_ctx,
        .stop = ctx->requested.stop,
    };
    rc = forward_open(&ctx->forward, &p, err);
    ctx->forward_open = rc == OT_OK;
    ctx->n_few = forward_few(ctx->model, ctx->kernels);
    ctx->n_batch_most =
        budget_fit_batch(ctx->model, ctx->kernels, ctx->n_threads,
                         ctx->budget.activation_bytes + residency_lend_most(ctx->residency),
                         ctx->budget.n_batch_most);
    return rc;
}

int ot_context_open(const struct ot_model *model, const struct ot_context_params *params,
                    struct ot_context **out, struct ot_error *err) {
    struct ot_context_params defaults = {0};
    if (params == NULL) {
        params = &defaults;
    }
    int rc = check_params(model, params, err);
    if (rc != OT_OK) {
        return rc;
    }
    struct ot_context *ctx = mem_calloc(1, sizeof *ctx);
    if (ctx == NULL) {
        return error_memory(err, sizeof *ctx);
    }
    sys_process_read(&ctx->at_start);
    ctx->accounted_at_start = residency_accounted();
    ctx->model = model;
    ctx->requested = *params;
    ctx->kernels = kernels_get();
    ctx->n_seq = params->n_seq != 0 ? params->n_seq : 1;
    ctx->n_ctx = params->n_ctx != 0 ? params->n_ctx : min_u32(model->hp.n_ctx_train, DEFAULT_CTX);
    ctx->n_threads = params->n_threads != 0 ? params->n_threads
                                            : min_u32(sys_cpu_facts()->n_default, POOL_MAX_THREADS);
    if (params->trace_path != NULL) {
        ctx->trace_path = mem_strdup(params->trace_path);
        ctx->requested.trace_path = ctx->trace_path;
        if (ctx->trace_path == NULL) {
            mem_free(ctx);
            return error_memory(err, strlen(params->trace_path));
        }
    }
    rc = budget_plan(&ctx->budget, model, ctx->kernels, params, &ctx->n_ctx, ctx->n_seq,
                     ctx->n_threads, err);
    if (rc == OT_OK) {
        rc = open_parts(ctx, err);
    }
    if (rc != OT_OK) {
        ot_context_close(ctx);
        return rc;
    }
    account_headers(ctx);
    *out = ctx;
    return OT_OK;
}

void ot_context_close(struct ot_context *ctx) {
    if (ctx == NULL) {
        return;
    }
    if (ctx->forward_open) {
        forward_close(&ctx->forward);
    }
    if (ctx->kv_open) {
        kv_close(&ctx->kv);
    }
    residency_close(ctx->residency);
    sys_limit_watch_close(&ctx->watch);
    pool_close(ctx->pool);
    ledger_close(ctx->ledger);
    mem_free(ctx->tokens);
    mem_free(ctx->added);
    mem_free(ctx->lengths);
    mem_free(ctx->trace_path);
    mem_free(ctx);
}

void ot_context_get_info(const struct ot_context *ctx, struct ot_context_info *info) {
    struct residency_info r;
    residency_get_info(ctx->residency, &r);
    *info = (struct ot_context_info){
        .n_ctx = ctx->n_ctx,
        .n_seq = ctx->n_seq,
        .n_kv = ctx->kv.n_blocks * KERNEL_KEY_BLOCK,
        .n_threads = ctx->n_threads,
        .n_batch = ctx->n_batch_most,
        .n_draft = ctx->budget.n_draft,
        .n_logits = ctx->budget.n_logits,
        .budget_bytes = ctx->budget.total_bytes,
        .least_budget_bytes = ctx->budget.least_bytes,
        .budget_source = ctx->budget.source,
        .residency = r.mode,
        .residency_why = r.why,
        .io = r.io,
        .wired_bytes = r.wired_bytes,
        .locked_bytes = r.locked_bytes,
        .slot_bytes = r.slot_bytes,
        .streamed_bytes_per_sweep = r.streamed_bytes_per_sweep,
        .kv_bytes = ctx->kv.bytes * 2,
        .activation_bytes = ctx->budget.activation_bytes,
        .table_bytes = mem_live_bytes(),
        .program_bytes = ctx->budget.base_bytes,
        .reserve_bytes = ctx->budget.reserve_bytes,
        .prefetch_bytes = kernels_prefetch_bytes(),
        .n_sweeps_prompt = ctx->n_sweeps_prompt,
        .n_sweeps_decode = ctx->n_sweeps_decode,
        .n_tokens = ctx->n_tokens,
        .wait_disk_s = (double)ctx->forward.phase_ns[OT_PHASE_WAIT] * 1e-9,
        .withheld_bytes = ctx->withheld_bytes,
        .withheld_most_bytes = ctx->withheld_most_bytes,
    };
    for (uint32_t i = 0; i < OT_PHASE_COUNT; i++) {
        info->compute_s[i] = (double)ctx->forward.phase_ns[i] * 1e-9;
    }
}

const struct ot_model *engine_model(const struct ot_context *ctx) {
    return ctx->model;
}
const struct ledger *engine_ledger(const struct ot_context *ctx) {
    return ctx->ledger;
}
struct residency *engine_residency(const struct ot_context *ctx) {
    return ctx->residency;
}
uint64_t engine_others_read_bytes(const struct ot_context *ctx) {
    const uint64_t own = residency_accounted_by(ctx->residency); /* first: it goes on meanwhile */
    const uint64_t all = residency_accounted() - ctx->accounted_at_start;
    return all - min_u64(own, all);
}
const struct sys_process *engine_process_at_start(const struct ot_context *ctx) {
    return &ctx->at_start;
}
