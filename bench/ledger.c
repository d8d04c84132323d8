/* ledger.c - what the ledger costs: `onetrip-ledger MODEL [TOKENS]`.
 *
 * Decodes TOKENS tokens (default 64) and counts the posts that they made; times one post on a
 * ledger of the same number of extents, visited in the same order; and prints their product beside
 * the time of decoding. Runs with and without the ledger cannot be compared: nothing runs without
 * it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "onetrip.h"

enum { DEFAULT_TOKENS = 64, ROUNDS = 21, PASSES = 200 };

static uint64_t count_posts(const struct ledger *l) {
    uint64_t n = 0;
    for (uint32_t b = 0; b < OT_BOUNDARY_COUNT; b++) {
        n += ledger_sum(l, (enum ot_boundary)b, OT_CLASS_COUNT, OT_CAUSE_COUNT).times;
    }
    return n;
}

/* Seconds of one post: the best of several rounds over all extents of a ledger like this one. */
static double time_post(const struct ledger *like, struct ot_error *err) {
    struct ledger *l;
    uint32_t n = ledger_n_extents(like), id;
    if (ledger_open(n, &l, err) != 0) {
        return -1.0;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct ledger_extent *e = ledger_get_extent(like, i);
        ledger_add_extent(l, e->name, 1, e->bytes, e->cls, e->layer, &id, err);
    }
    double best = 1.0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = clock_ns();
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            for (uint32_t i = 0; i < n; i++) {
                ledger_post(l, i, OT_RAM_CACHE, OT_CAUSE_COMPUTE, 4096 + pass, 4096);
            }
        }
        double seconds = clock_seconds(start_ns, clock_ns()) / PASSES / n;
        best = seconds < best ? seconds : best;
    }
    ledger_close(l);
    return best;
}

static int decode(struct ot_context *ctx, uint32_t n_tokens, float *logits, struct ot_error *err) {
    for (uint32_t i = 0; i < n_tokens; i++) {
        struct ot_input input = {.token = i, .want_logits = true};
        int rc = ot_decode(ctx, &input, 1, logits, err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int measure(const char *path, uint32_t n_tokens, struct ot_error *err) {
    struct ot_model *model = NULL;
    struct ot_context *ctx = NULL;
    struct ot_model_info info;
    struct ot_context_params params = {.n_ctx = 2 * n_tokens};
    int rc = ot_model_open(path, NULL, &model, err);
    if (rc == 0 && (rc = ot_context_open(model, &params, &ctx, err)) == 0) {
        ot_model_get_info(model, &info);
        float *logits = malloc(info.n_vocab * sizeof *logits);
        rc = decode(ctx, n_tokens, logits, err); /* warms up */
        uint64_t posts = count_posts(engine_ledger(ctx)), start_ns = clock_ns();
        if (rc == 0 && (rc = decode(ctx, n_tokens, logits, err)) == 0) {
            double seconds = clock_seconds(start_ns, clock_ns());
            posts = count_posts(engine_ledger(ctx)) - posts;
            double post_s = time_post(engine_ledger(ctx), err);
            printf("%s: %.1f posts a token, %.1f ns a post, %.3f ms a token: the ledger takes %.3f "
                   "%%\n",
                   path, (double)posts / n_tokens, post_s * 1e9, seconds / n_tokens * 1e3,
                   100.0 * post_s * (double)posts / seconds);
        }
        free(logits);
    }
    ot_context_close(ctx);
    ot_model_close(model);
    return rc;
}

int main(int argc, char **argv) {
    uint32_t n_tokens = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : DEFAULT_TOKENS;
    if (argc < 2 || n_tokens == 0 || n_tokens > 4096) {
        fprintf(stderr, "usage: onetrip-ledger MODEL [TOKENS, 1 to 4096]\n");
        return 2;
    }
    struct ot_error err;
    if (measure(argv[1], n_tokens, &err) != 0) {
        char text[800];
        fprintf(stderr, "onetrip-ledger: %s\n", ot_error_text(&err, text, sizeof text));
        return 1;
    }
    return 0;
}
