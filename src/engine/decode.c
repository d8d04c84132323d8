/* decode.c - a batch of tokens through the model, and the sequences it belongs to. */
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"

static int check_inputs(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n,
                        struct ot_error *err) {
    memset(ctx->added, 0, ctx->n_seq * sizeof *ctx->added);
    for (uint32_t i = 0; i < n; i++) {
        if (inputs[i].token >= ctx->model->hp.n_vocab) {
            return error_set(err, OT_ERR_ARGUMENT, "token",
                             "id %u is outside the vocabulary (0..%u)", inputs[i].token,
                             ctx->model->hp.n_vocab - 1);
        }
        if (inputs[i].seq >= ctx->n_seq) {
            return error_set(err, OT_ERR_ARGUMENT, "sequence", "%u is outside the context (0..%u)",
                             inputs[i].seq, ctx->n_seq - 1);
        }
        uint32_t held = ctx->lengths[inputs[i].seq] + ctx->added[inputs[i].seq]++;
        if (held >= ctx->n_ctx) {
            return error_set(err, OT_ERR_FULL, "context",
                             "sequence %u would hold more than its %u positions (n_ctx, -c)",
                             inputs[i].seq, ctx->n_ctx);
        }
    }
    return OT_OK;
}

/* A control group whose limit fell below the budget gets the difference back, before the kernel
 * holds the process up for it: residency lends it to nobody, until the limit rises. */
static int follow_limit(struct ot_context *ctx, struct ot_error *err) {
    const uint64_t total = ctx->budget.total_bytes, limit = sys_limit_watch_read(&ctx->watch);
    const uint64_t want = total - min_u64(total, limit);
    if (want == ctx->withheld_bytes) {
        return OT_OK;
    }
    const uint64_t most = residency_lend_most(ctx->residency);
    if (want > most) {
        char now[24], least[24];
        return error_set(err, OT_ERR_BUDGET, "memory budget",
                         "the control group's limit was lowered to %s, and this context can get by "
                         "with %s at least: raise the limit, or open the context again",
                         text_bytes(now, (double)limit), text_bytes(least, (double)(total - most)));
    }
    residency_lend(ctx->residency, want);
    ctx->withheld_bytes = want;
    ctx->withheld_most_bytes = max_u64(ctx->withheld_most_bytes, want);
    return OT_OK;
}

/* Of a call that failed, room in the KV that others may need. */
static void give_up_room(struct ot_context *ctx) {
    for (uint32_t s = 0; s < ctx->n_seq; s++) {
        kv_truncate(&ctx->kv, s, ctx->lengths[s]);
    }
}

static int append(struct ot_context *ctx, struct ot_error *err) {
    if (!kv_has_room(&ctx->kv, ctx->lengths, ctx->added)) {
        return error_set(err, OT_ERR_FULL, "context",
                         "its sequences would hold more than the %u positions that there are for "
                         "all of them (n_kv; blocks of %d)",
                         ctx->kv.n_blocks * KERNEL_KEY_BLOCK, KERNEL_KEY_BLOCK);
    }
    for (uint32_t s = 0; s < ctx->n_seq; s++) {
        if (ctx->added[s] > 0) {
            kv_append(&ctx->kv, s, ctx->lengths[s], ctx->added[s]);
        }
    }
    return OT_OK;
}

/* Tokens of a sweep, at most `most`, so that n_inputs take sweeps of the same size and as few as
 * can be, not full ones and a rest. */
static uint32_t even_sweep(uint32_t n_inputs, uint32_t most) {
    uint32_t n_sweeps = (n_inputs + most - 1) / most;
    return (n_inputs + n_sweeps - 1) / n_sweeps;
}

/* Tokens a sweep of this call may take: what the budget has room for, or more for a loan of wired
 * memory, in as few sweeps as can be. */
static uint32_t borrow_for(struct ot_context *ctx, uint32_t n_inputs) {
    const struct budget *b = &ctx->budget;
    uint32_t wanted = min_u32(n_inputs, ctx->n_batch_most);
    if (wanted <= b->n_batch) {
        return b->n_batch;
    }
    wanted = even_sweep(n_inputs, wanted); /* no more is borrowed than is used */
    uint64_t bytes = forward_need_bytes(ctx->model, ctx->kernels, ctx->n_threads, wanted);
    uint64_t withheld = ctx->withheld_bytes;
    uint64_t lent = residency_lend(ctx->residency, withheld + bytes - b->activation_bytes);
    lent -= min_u64(lent, withheld);
    return max_u32(b->n_batch, budget_fit_batch(ctx->model, ctx->kernels, ctx->n_threads,
                                                b->activation_bytes + lent, wanted));
}

static void end_loan(struct ot_context *ctx) {
    forward_drop(&ctx->forward);
    residency_lend(ctx->residency, ctx->withheld_bytes);
}

/* n_room: tokens of a sweep that there is memory for. */
static int run_batch(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n_inputs,
                     uint32_t n_room, float *logits, struct ot_error *err) {
    uint32_t n_wanted = 0;
    bool begins = false, several = false; /* a sequence; tokens of one */
    for (uint32_t i = 0; i < n_inputs; i++) {
        n_wanted += inputs[i].want_logits;
        begins |= ctx->lengths[inputs[i].seq] == 0;
        several |= ctx->added[inputs[i].seq] > 1;
    }
    /* one token, one and what is guessed to follow it, or those of a few sequences: the kernels
     * for a few are faster than those for many, which unpack all weights first */
    bool guesses = n_inputs <= FORWARD_FEW && ctx->added[inputs[0].seq] == n_inputs;
    bool few = (guesses || n_inputs <= ctx->n_few) && (n_inputs == 1 || n_wanted == n_inputs);
    bool prompt = begins || (several && !few);
    const uint32_t n_batch = even_sweep(n_inputs, n_room);
    memset(ctx->added, 0, ctx->n_seq * sizeof *ctx->added);
    for (uint32_t first = 0; first < n_inputs; first += n_batch) {
        uint32_t n = min_u32(n_batch, n_inputs - first), wanted = 0;
        for (uint32_t i = 0; i < n; i++) {
            const struct ot_input *in = &inputs[first + i];
            ctx->tokens[i] = (struct forward_token){
                .token = in->token,
                .seq = in->seq,
                .position = ctx->lengths[in->seq] + ctx->added[in->seq]++,
                .want_logits = in->want_logits,
            };
            wanted += in->want_logits;
        }
        int rc =
            forward_sweep(&ctx->forward, ctx->tokens, n, n_room, few, n_wanted == 1, logits, err);
        if (rc != OT_OK) {
            return rc;
        }
        logits += (uint64_t)wanted * ctx->model->hp.n_vocab;
        ctx->n_tokens += n;
        ctx->n_sweeps_prompt += prompt;
        ctx->n_sweeps_decode += !prompt;
    }
    return OT_OK;
}

int ot_decode(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n_inputs,
              float *logits, struct ot_error *err) {
    if (n_inputs == 0) {
        return error_set(err, OT_ERR_ARGUMENT, "batch", "it has no tokens");
    }
    for (uint32_t i = 0; i < n_inputs && logits == NULL; i++) {
        if (inputs[i].want_logits) {
            return error_set(err, OT_ERR_ARGUMENT, "batch",
                             "logits are wanted, and there is no place for them");
        }
    }
    int rc = check_inputs(ctx, inputs, n_inputs, err);
    if (rc != OT_OK) {
        return rc;
    }
    rc = follow_limit(ctx, err);
    if (rc != OT_OK) {
        return rc;
    }
    rc = append(ctx, err);
    if (rc != OT_OK) {
        return rc;
    }
    uint32_t n_batch = borrow_for(ctx, n_inputs);
    rc = run_batch(ctx, inputs, n_inputs, n_batch, logits, err);
    if (n_batch > ctx->budget.n_batch) {
        end_loan(ctx);
    }
    if (rc != OT_OK) {
        give_up_room(ctx);
        return rc;
    }
    for (uint32_t s = 0; s < ctx->n_seq; s++) {
        ctx->lengths[s] += ctx->added[s];
    }
    return OT_OK;
}

uint32_t ot_seq_length(const struct ot_context *ctx, uint32_t seq) {
    return seq < ctx->n_seq ? ctx->lengths[seq] : 0;
}

int ot_seq_truncate(struct ot_context *ctx, uint32_t seq, uint32_t position) {
    if (seq >= ctx->n_seq || position > ctx->lengths[seq]) {
        return OT_ERR_ARGUMENT;
    }
    kv_truncate(&ctx->kv, seq, position);
    ctx->lengths[seq] = position;
    return OT_OK;
}

int ot_seq_copy(struct ot_context *ctx, uint32_t dst, uint32_t src, uint32_t n,
                struct ot_error *err) {
    if (dst >= ctx->n_seq || src >= ctx->n_seq || dst == src || n > ctx->lengths[src]) {
        return error_set(err, OT_ERR_ARGUMENT, "sequence",
                         "%u tokens cannot be copied from sequence %u to %u", n, src, dst);
    }
    kv_share(&ctx->kv, dst, src, n);
    ctx->lengths[dst] = n;
    return OT_OK;
}
