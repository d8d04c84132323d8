/* decode.c - a batch of tokens through the model, and the sequences it belongs to. */
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "engine/context.h"

static int check_inputs(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n,
                        struct ot_error *err) {
    memset(ctx->added, 0, ctx->n_seq * sizeof *ctx->added);
    for (uint32_t i = 0; i < n; i++) {
        if (inputs[i].token >= ctx->model->hp.n_vocab) {
            return error_set(err, OT_ERR_ARGUMENT, "token", "id %u is outside the vocabulary (0..%u)",
                             inputs[i].token, ctx->model->hp.n_vocab - 1);
        }
        if (inputs[i].seq >= ctx->n_seq) {
            return error_set(err, OT_ERR_ARGUMENT, "sequence", "%u is outside the context (0..%u)",
                             inputs[i].seq, ctx->n_seq - 1);
        }
        uint32_t held = ctx->lengths[inputs[i].seq] + ctx->added[inputs[i].seq]++;
        if (held >= ctx->n_ctx) {
            return error_set(err, OT_ERR_FULL, "context",
                             "sequence %u would hold more than its %u positions (-c sets them)",
                             inputs[i].seq, ctx->n_ctx);
        }
    }
    return OT_OK;
}

int ot_decode(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n_inputs,
              float *logits, struct ot_error *err) {
    if (n_inputs == 0) {
        return error_set(err, OT_ERR_ARGUMENT, "batch", "it has no tokens");
    }
    int rc = check_inputs(ctx, inputs, n_inputs, err);
    if (rc != OT_OK) {
        return rc;
    }
    uint32_t n_wanted = 0;
    bool prompt = false;
    for (uint32_t i = 0; i < n_inputs; i++) {
        n_wanted += inputs[i].want_logits;
        prompt |= ctx->added[inputs[i].seq] > 1;
    }
    memset(ctx->added, 0, ctx->n_seq * sizeof *ctx->added);
    for (uint32_t first = 0; first < n_inputs; first += ctx->budget.n_batch) {
        uint32_t n = min_u32(ctx->budget.n_batch, n_inputs - first), wanted = 0;
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
        rc = forward_sweep(&ctx->forward, ctx->tokens, n, n_inputs == 1, n_wanted == 1, logits, err);
        if (rc != OT_OK) {
            return rc;
        }
        logits += (uint64_t)wanted * ctx->model->hp.n_vocab;
        ctx->n_sweeps_prompt += prompt;
        ctx->n_sweeps_decode += !prompt;
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
    ctx->lengths[seq] = position;
    return OT_OK;
}

int ot_seq_copy(struct ot_context *ctx, uint32_t dst, uint32_t src, uint32_t n,
                struct ot_error *err) {
    if (dst >= ctx->n_seq || src >= ctx->n_seq || dst == src || n > ctx->lengths[src]) {
        return error_set(err, OT_ERR_ARGUMENT, "sequence",
                         "%u tokens cannot be copied from sequence %u to %u", n, src, dst);
    }
    kv_copy(&ctx->kv, dst, src, n);
    ctx->lengths[dst] = n;
    return OT_OK;
}
