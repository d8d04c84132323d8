/* experts.c - the expert FFN of a layer: route every token, then compute expert by expert.
 *
 * Tokens are grouped by expert, experts ascending, and experts are taken in runs whose rows fit
 * f->routed, so that one token's eight experts, or many tokens' one expert, are one job. Within a
 * run, experts whose weights are in memory are computed first, and the others as they come. A
 * token's outputs are added in ascending order of experts at the end of the run, so the sum depends
 * neither on the grouping nor on what was in memory. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "model/forward.h"

enum { PIECES_PER_THREAD = 2, ADD_ROWS_ALONE = 64, ADD_COLUMNS_MIN = 128 };

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
 * which sum to 1. Where the router's numbers are not finite the experts are still different ones,
 * and the weights NaN, which shows in the logits. */
static void route_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    (void)arg;
    uint32_t n_experts = f->hp->n_experts, used = f->hp->n_experts_used;
    for (uint32_t t = first; t < first + count; t++) {
        float *p = f->router + (uint64_t)t * n_experts;
        uint32_t *expert = f->route_expert + (uint64_t)t * used;
        float *weight = f->route_weight + (uint64_t)t * used;
        softmax(p, n_experts);
        for (uint32_t e = 0; e < n_experts; e++) {
            p[e] = p[e] >= 0.0f ? p[e] : 0.0f; /* NaN */
        }
        for (uint32_t u = 0; u < used; u++) {
            uint32_t best = 0;
            for (uint32_t e = 1; e < n_experts; e++) {
                best = p[e] > p[best] ? e : best;
            }
            float value = p[best];
            p[best] = -1.0f; /* taken */
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

/* Lists the experts that have rows, and asks for their parts in the order in which they will be
 * used. Returns their number. */
static uint32_t want_experts(struct forward *f, const struct weight *layer) {
    static const enum layer_role roles[] = {ROLE_FFN_GATE, ROLE_FFN_UP, ROLE_FFN_DOWN};
    uint32_t n = 0;
    for (uint32_t e = 0; e < f->hp->n_experts; e++) {
        if (f->expert_first[e + 1] > f->expert_first[e]) {
            for (uint32_t i = 0; i < 3; i++) {
                f->expert_parts[3 * n + i] = (struct residency_part){layer[roles[i]].extent, e};
            }
            f->expert_ids[n++] = e;
        }
    }
    residency_want_parts(f->residency, f->expert_parts, 3 * n);
    return n;
}

/* Experts ids[from, to) of the layer, whose rows begin at first_row of the grouped list. */
struct run {
    const struct weight *layer;
    uint32_t from, to, first_row, n_rows;
};

/* How far an expert has come. */
enum stage { WANTS_INPUT, INPUT_ADDED, WANTS_DOWN, DOWN_ADDED };

/* Whether what the expert needs next can be had without waiting. */
static bool is_there(struct forward *f, const struct run *run, uint32_t i) {
    const struct weight *layer = run->layer;
    uint32_t e = f->expert_ids[i];
    if (f->expert_stage[i] == WANTS_INPUT) {
        return residency_has_part(f->residency, layer[ROLE_FFN_GATE].extent, e) &&
               residency_has_part(f->residency, layer[ROLE_FFN_UP].extent, e);
    }
    return residency_has_part(f->residency, layer[ROLE_FFN_DOWN].extent, e);
}

/* Adds the expert's next matrices, waiting for them where they are not there. */
static int add_next(struct forward *f, const struct run *run, uint32_t i, struct ot_error *err) {
    static const enum layer_role inputs[] = {ROLE_FFN_GATE, ROLE_FFN_UP};
    uint32_t e = f->expert_ids[i], row = f->expert_first[e], n = f->expert_first[e + 1] - row;
    uint32_t ffe = f->hp->n_ff_expert, d = f->hp->n_embd, at = row - run->first_row;
    int rc = OT_OK;
    if (f->expert_stage[i] == WANTS_INPUT) {
        for (uint32_t k = 0; k < 2 && rc == OT_OK; k++) {
            rc = matmul_add(f, &run->layer[inputs[k]], e, &f->prepared, f->route_tokens + row, n,
                            f->decode, f->routed + at * 2ull * ffe + k * ffe, 2ull * ffe, err);
        }
        f->expert_stage[i] = INPUT_ADDED;
        return rc;
    }
    for (uint32_t k = at; k < at + n; k++) {
        f->row_ids[k] = k;
    }
    f->expert_stage[i] = DOWN_ADDED;
    return matmul_add(f, &run->layer[ROLE_FFN_DOWN], e, &f->routed_prepared, f->row_ids + at, n,
                      f->decode, f->routed_y + (uint64_t)at * d, d, err);
}

/* Gates the rows whose gate and up have been computed, and prepares them for down. */
static void gate_rows(struct forward *f, const struct run *run) {
    const uint32_t ffe = f->hp->n_ff_expert;
    for (uint32_t i = run->from, end; i < run->to; i = end) {
        end = i + 1;
        if (f->expert_stage[i] != INPUT_ADDED) {
            continue;
        }
        while (end < run->to && f->expert_stage[end] == INPUT_ADDED) {
            end++;
        }
        uint32_t at = f->expert_first[f->expert_ids[i]] - run->first_row;
        uint32_t n = f->expert_first[f->expert_ids[end - 1] + 1] - run->first_row - at;
        matmul_gate(f, &f->routed_prepared, f->routed, f->routed + ffe, 2ull * ffe,
                    &run->layer[ROLE_FFN_DOWN], f->decode, at, n);
        memset(f->expert_stage + i, WANTS_DOWN, end - i);
    }
}

/* Computes what is there, round after round; where nothing is, waits for what was asked for first.
 * So experts that are held are computed while the others are read. */
static int run_experts(struct forward *f, const struct run *run, struct ot_error *err) {
    uint32_t ffe = f->hp->n_ff_expert;
    matmul_input(&f->routed_prepared, f->routed_act, f->routed, 2ull * ffe, run->n_rows, ffe);
    memset(f->expert_stage + run->from, WANTS_INPUT, run->to - run->from);
    for (uint32_t first = run->from; first < run->to;) {
        uint32_t n_added = 0;
        int rc = OT_OK;
        for (uint32_t i = first; i < run->to && rc == OT_OK; i++) {
            if (f->expert_stage[i] != DOWN_ADDED && is_there(f, run, i)) {
                rc = add_next(f, run, i, err);
                n_added++;
            }
        }
        if (rc == OT_OK && n_added == 0) {
            rc = add_next(f, run, first, err);
        }
        if (rc != OT_OK || (rc = matmul_flush(f, err)) != OT_OK) {
            return rc;
        }
        gate_rows(f, run);
        while (first < run->to && f->expert_stage[first] == DOWN_ADDED) {
            first++;
        }
    }
    return OT_OK;
}

struct add_job {
    struct forward *f;
    uint32_t first_row, n_rows, n_columns;
};

/* Columns [piece * n_columns, ...) of every row, in the order of the rows. */
static void add_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    const struct add_job *job = arg;
    struct forward *f = job->f;
    uint32_t d = f->hp->n_embd, from = piece * job->n_columns;
    uint32_t n = min_u32(job->n_columns, d - from);
    for (uint32_t i = 0; i < job->n_rows; i++) {
        uint32_t at = job->first_row + i;
        f->k->add_scaled(f->y + (uint64_t)f->route_tokens[at] * d + from,
                         f->routed_y + (uint64_t)i * d + from, f->route_weight[f->route_slots[at]],
                         n);
    }
}

/* y of every token += weight * output, rows of this run only, experts ascending. Columns are what
 * is divided among the threads, so that each sum keeps its order; few rows are not worth it. */
static void add_outputs(struct forward *f, uint32_t first_row, uint32_t n_rows) {
    uint32_t d = f->hp->n_embd;
    struct add_job job = {f, first_row, n_rows, d};
    if (n_rows > ADD_ROWS_ALONE) {
        uint32_t pieces = PIECES_PER_THREAD * pool_threads(f->pool);
        job.n_columns = max_u32((uint32_t)round_up((d + pieces - 1) / pieces, 16), ADD_COLUMNS_MIN);
    }
    pool_run(f->pool, (d + job.n_columns - 1) / job.n_columns, add_piece, &job);
}

int experts_layer(struct forward *f, uint32_t layer_id, struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct weight *layer = f->model->bind.layers[layer_id];
    uint32_t d = hp->n_embd;
    matmul_input(&f->prepared, f->act, f->norm, d, f->n_tokens, d);
    int rc = matmul_add(f, &layer[ROLE_FFN_ROUTER], 0, &f->prepared, NULL, f->n_tokens, f->decode,
                        f->router, hp->n_experts, err);
    if (rc != OT_OK || (rc = matmul_flush(f, err)) != OT_OK) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    forward_for_rows(f, f->n_tokens, route_rows, NULL);
    group_by_expert(f);
    uint32_t n_wanted = want_experts(f, layer);
    forward_ahead(f, layer_id);
    memset(f->y, 0, (uint64_t)f->n_tokens * d * sizeof *f->y);
    phase_end(f, phase, OT_PHASE_OTHER);
    const uint32_t rows_most = max_u32(f->n_room, hp->n_experts_used);
    for (struct run run = {.layer = layer}; run.from < n_wanted; run.from = run.to) {
        run.first_row = f->expert_first[f->expert_ids[run.from]];
        run.n_rows = 0;
        for (run.to = run.from; run.to < n_wanted; run.to++) {
            uint32_t n_rows = f->expert_first[f->expert_ids[run.to] + 1] - run.first_row;
            if (run.to > run.from && n_rows > rows_most) {
                break;
            }
            run.n_rows = n_rows;
        }
        if ((rc = run_experts(f, &run, err)) != OT_OK) {
            return rc;
        }
        phase = phase_begin(f);
        add_outputs(f, run.first_row, run.n_rows);
        phase_end(f, phase, OT_PHASE_OTHER);
    }
    return OT_OK;
}
