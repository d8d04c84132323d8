/* experts.c - the expert FFN of a layer: route every token, then compute expert by expert.
 *
 * Tokens are grouped by expert, experts ascending, and experts are taken in runs whose rows fit
 * f->routed, so that one token's eight experts, or many tokens' one expert, are one job. A token's
 * outputs are added in ascending order of experts, so the sum does not depend on the grouping. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "model/forward.h"

static void softmax(float *x, uint32_t n) {
    float high = x[0], sum = 0.0f;
    for (uint32_t i = 1; i < n; i++) {
        high = x[i] > high ? x[i] : high;
    }
    for (uint32_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - high);
        sum += x[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        x[i] /= sum;
    }
}

/* The likeliest experts of each token (the first of equals), in ascending order, and their weights,
 * which sum to 1. */
static void route_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    (void)arg;
    uint32_t n_experts = f->hp->n_experts, used = f->hp->n_experts_used;
    for (uint32_t t = first; t < first + count; t++) {
        float *p = f->router + (uint64_t)t * n_experts;
        uint32_t *expert = f->route_expert + (uint64_t)t * used;
        float *weight = f->route_weight + (uint64_t)t * used;
        softmax(p, n_experts);
        for (uint32_t u = 0; u < used; u++) {
            uint32_t best = 0;
            for (uint32_t e = 1; e < n_experts; e++) {
                best = p[e] > p[best] || !(p[best] >= 0.0f) ? e : best;
            }
            float value = p[best];
            p[best] = -1.0f;
            uint32_t at = u;
            for (; at > 0 && expert[at - 1] > best; at--) {
                expert[at] = expert[at - 1];
                weight[at] = weight[at - 1];
            }
            expert[at] = best;
            weight[at] = value;
        }
        float sum = 0.0f;
        for (uint32_t u = 0; u < used; u++) {
            sum += weight[u];
        }
        for (uint32_t u = 0; u < used; u++) {
            weight[u] /= sum;
        }
    }
}

/* Counting sort of (token, slot) pairs by expert. */
static void group_by_expert(struct forward *f) {
    uint32_t n_experts = f->hp->n_experts, used = f->hp->n_experts_used;
    uint32_t n = f->n_tokens * used;
    uint32_t *first = f->expert_first;
    memset(first, 0, (n_experts + 1) * sizeof *first);
    for (uint32_t i = 0; i < n; i++) {
        first[f->route_expert[i] + 1]++;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        first[e + 1] += first[e];
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = first[f->route_expert[i]]++;
        f->route_tokens[at] = i / used;
        f->route_slots[at] = i;
    }
    memmove(first + 1, first, n_experts * sizeof *first);
    first[0] = 0;
}

static void want_experts(struct forward *f, const struct weight *layer) {
    static const enum layer_role roles[] = {ROLE_FFN_GATE, ROLE_FFN_UP, ROLE_FFN_DOWN};
    uint32_t n = 0;
    for (uint32_t e = 0; e < f->hp->n_experts; e++) {
        if (f->expert_first[e + 1] > f->expert_first[e]) {
            f->expert_ids[n++] = e;
        }
    }
    for (uint32_t i = 0; i < 3 && f->hp->n_experts > 1; i++) {
        residency_want_parts(f->residency, layer[roles[i]].extent, f->expert_ids, n);
    }
}

/* Experts [from, to) whose rows begin at first_row of the grouped list. */
static int run_experts(struct forward *f, const struct weight *layer, uint32_t from, uint32_t to,
                       struct ot_error *err) {
    const struct hparams *hp = f->hp;
    uint32_t ffe = hp->n_ff_expert, first_row = f->expert_first[from];
    uint32_t n_rows = f->expert_first[to] - first_row;
    static const enum layer_role roles[] = {ROLE_FFN_GATE, ROLE_FFN_UP};
    int rc;
    for (uint32_t e = from; e < to; e++) {
        uint32_t row = f->expert_first[e], n = f->expert_first[e + 1] - row;
        for (uint32_t i = 0; i < 2 && n > 0; i++) {
            float *y = f->routed + (uint64_t)(row - first_row) * 2 * ffe + i * ffe;
            rc = matmul_add(f, &layer[roles[i]], e, &f->prepared, f->route_tokens + row, n,
                            f->decode, y, 2ull * ffe, err);
            if (rc != OT_OK) {
                return rc;
            }
        }
    }
    if ((rc = matmul_flush(f, err)) != OT_OK) {
        return rc;
    }
    forward_gate(f, f->routed, 2ull * ffe, n_rows, ffe);
    matmul_input(f, &f->routed_prepared, f->routed_act, f->routed, 2ull * ffe, n_rows, ffe);
    for (uint32_t e = from; e < to; e++) {
        uint32_t row = f->expert_first[e], n = f->expert_first[e + 1] - row;
        for (uint32_t i = 0; i < n; i++) {
            f->row_ids[row - first_row + i] = row - first_row + i;
        }
        if (n > 0 && (rc = matmul_add(f, &layer[ROLE_FFN_DOWN], e, &f->routed_prepared,
                                      f->row_ids + (row - first_row), n, f->decode,
                                      f->routed_y + (uint64_t)(row - first_row) * hp->n_embd,
                                      hp->n_embd, err)) != OT_OK) {
            return rc;
        }
    }
    return matmul_flush(f, err);
}

/* y of every token += weight * output, rows of this run only, experts ascending. */
static void add_outputs(struct forward *f, uint32_t first_row, uint32_t n_rows) {
    uint32_t d = f->hp->n_embd;
    for (uint32_t i = 0; i < n_rows; i++) {
        float *y = f->y + (uint64_t)f->route_tokens[first_row + i] * d;
        f->k->add_scaled(y, f->routed_y + (uint64_t)i * d,
                         f->route_weight[f->route_slots[first_row + i]], d);
    }
}

int experts_layer(struct forward *f, uint32_t layer_id, struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct weight *layer = f->model->bind.layers[layer_id];
    uint32_t d = hp->n_embd;
    matmul_input(f, &f->prepared, f->act, f->norm, d, f->n_tokens, d);
    int rc = matmul_add(f, &layer[ROLE_FFN_ROUTER], 0, &f->prepared, NULL, f->n_tokens, f->decode,
                        f->router, hp->n_experts, err);
    if (rc != OT_OK || (rc = matmul_flush(f, err)) != OT_OK) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    forward_for_rows(f, f->n_tokens, route_rows, NULL);
    group_by_expert(f);
    want_experts(f, layer);
    memset(f->y, 0, (uint64_t)f->n_tokens * d * sizeof *f->y);
    phase_end(f, phase, OT_PHASE_OTHER);
    for (uint32_t from = 0, to; from < hp->n_experts; from = to) {
        to = from + 1;
        while (to < hp->n_experts &&
               f->expert_first[to + 1] - f->expert_first[from] <= f->n_routed_rows) {
            to++;
        }
        if (f->expert_first[to] == f->expert_first[from]) {
            continue;
        }
        if ((rc = run_experts(f, layer, from, to, err)) != OT_OK) {
            return rc;
        }
        phase = phase_begin(f);
        add_outputs(f, f->expert_first[from], f->expert_first[to] - f->expert_first[from]);
        phase_end(f, phase, OT_PHASE_OTHER);
    }
    return OT_OK;
}
