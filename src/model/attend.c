/* attend.c - the attention half of a layer: projections, rope, KV, attention, output. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/dtype.h"
#include "model/forward.h"

/* Where a token's vectors lie in its row of f->work: q, k, v, then attention's output. */
struct slots {
    uint32_t q, k, v, out;
};

static struct slots slots_of(const struct hparams *hp) {
    uint32_t q = hp->n_heads * hp->head_dim, kv = hp->n_kv_heads * hp->head_dim;
    return (struct slots){0, q, q + kv, q + 2 * kv};
}

/* What is made of a token's input: keys and values, queries, or both. */
enum side { KEYS = 1, QUERIES = 2 };

struct rotate_job {
    uint32_t layer, sides;
    bool local;
    struct vector bias_q, bias_k, bias_v, bias_qkv, norm_q, norm_k;
};

static void add_bias(struct forward *f, float *x, const struct vector *bias, uint32_t n) {
    if (bias->data != NULL) {
        f->k->add_scaled(x, bias->data, 1.0f, n);
    }
}

/* Norms and rope of the heads of token t at x. */
static void rotate_heads(struct forward *f, bool local, uint32_t t, const struct vector *norm,
                         float *x, uint32_t n_heads) {
    const struct hparams *hp = f->hp;
    const uint32_t hd = hp->head_dim, half = hp->n_rot / 2;
    for (uint32_t h = 0; h < n_heads && norm->data != NULL; h++) {
        f->k->rms_norm(x + h * hd, norm->data, hd, hp->norm_eps, x + h * hd);
    }
    f->k->rope(x, n_heads, hd, hp->n_rot, hp->family->rope_neox,
               f->cosines[local] + (uint64_t)t * half, f->sines[local] + (uint64_t)t * half);
}

static void keep_keys(struct forward *f, const struct rotate_job *job, uint32_t t, const float *k,
                      const float *v) {
    const uint32_t hd = f->hp->head_dim;
    const struct forward_token *token = &f->tokens[t];
    const uint64_t at = kv_offset(f->kv, token->seq, token->position);
    for (uint32_t h = 0; h < f->hp->n_kv_heads; h++) {
        f->k->f32_to_f16(k + h * hd, hd, kv_keys(f->kv, job->layer, h) + at);
        f->k->f32_to_f16(v + h * hd, hd, kv_values(f->kv, job->layer, h) + at);
    }
}

/* Biases, q/k norms, rope; then k and v go to the KV. */
static void rotate_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    const struct rotate_job *job = arg;
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    for (uint32_t t = first; t < first + count; t++) {
        float *row = f->work + (uint64_t)t * f->n_work;
        if (job->sides & KEYS) {
            add_bias(f, row, &job->bias_qkv, s.out);
            add_bias(f, row + s.k, &job->bias_k, s.v - s.k);
            add_bias(f, row + s.v, &job->bias_v, s.out - s.v);
            rotate_heads(f, job->local, t, &job->norm_k, row + s.k, hp->n_kv_heads);
            keep_keys(f, job, t, row + s.k, row + s.v);
        }
        if (job->sides & QUERIES) {
            add_bias(f, row + s.q, &job->bias_q, s.k - s.q);
            rotate_heads(f, job->local, t, &job->norm_q, row + s.q, hp->n_heads);
        }
    }
}

/* ---- which tokens read which keys together ---- */

/* How the keys that a token sees are divided: part i has those of [begin + i * length, ...) that
 * are in [first, end). It depends on the position only, so that results depend neither on the
 * threads nor on what else is in the batch; and parts of tokens at about the same depth begin at
 * the same positions, so that what their sequences share is read for all of them at once. */
struct division {
    uint64_t first, begin, end, length;
    uint32_t n_parts;
};

enum { PART_BYTES = 64 << 10, PARTS_OF_TOKEN = 32, PARTS_MIN = 8 };

uint32_t attend_most_parts(const struct hparams *hp) {
    return max_u32(PARTS_OF_TOKEN / hp->n_kv_heads, PARTS_MIN);
}

/* Divided is only what decodes: a prompt has pieces enough. */
static struct division divide(const struct forward *f, uint32_t token, uint32_t window) {
    struct division d = {.end = (uint64_t)f->tokens[token].position + 1, .n_parts = 1};
    d.first = window != 0 && d.end > window ? d.end - window : 0;
    d.length = d.end;
    if (f->decode) {
        uint64_t keys_min = max_u64(PART_BYTES / (2 * sizeof(uint16_t) * f->hp->head_dim), 1);
        uint64_t keys = d.end - d.first; /* one part more where the first one is not whole */
        uint64_t wanted = min_u64(keys / keys_min, attend_most_parts(f->hp) - 1);
        for (d.length = KERNEL_KEY_BLOCK;
             wanted <= 1 ? d.length < d.end : d.length * wanted < keys;) {
            d.length *= 2;
        }
        d.begin = d.first / d.length * d.length;
        d.n_parts = (uint32_t)((d.end - d.begin + d.length - 1) / d.length);
    }
    return d;
}

/* The unit of the tokens that see keys [first, end) of seq, if it has room; else a new one. */
static uint32_t unit_of_keys(const struct forward *f, const struct attend_plan *plan, uint32_t most,
                             uint64_t first, uint64_t end, uint32_t seq) {
    const uint64_t from = first / KERNEL_KEY_BLOCK;
    const uint64_t to = (end + KERNEL_KEY_BLOCK - 1) / KERNEL_KEY_BLOCK;
    const uint32_t *blocks = kv_blocks(f->kv, seq) + from;
    for (uint32_t i = 0; i < plan->n_units; i++) {
        const struct attend_unit *u = &plan->units[i];
        if (u->first == first && u->end == end && u->n_members < most &&
            memcmp(kv_blocks(f->kv, u->seq) + from, blocks, (to - from) * sizeof *blocks) == 0) {
            return i;
        }
    }
    return plan->n_units;
}

/* The unit of the prompt's tokens before this one, if they are of seq and it has room; else a new
 * one. */
static uint32_t unit_of_prompt(const struct attend_plan *plan, uint32_t most, uint32_t seq) {
    const uint32_t last = plan->n_units - 1;
    bool joins =
        plan->n_units > 0 && plan->units[last].seq == seq && plan->units[last].n_members < most;
    return joins ? last : plan->n_units;
}

/* Adds a token that sees keys [first, end) of seq. */
static void add_member(struct attend_plan *plan, uint32_t unit, uint64_t first, uint64_t end,
                       uint32_t seq, struct attend_member member) {
    struct attend_unit *u = &plan->units[unit];
    if (unit == plan->n_units) {
        plan->n_units++;
        *u = (struct attend_unit){.first = first, .seq = seq, .member = plan->n_members};
    } else {
        plan->members[u->last_member].next = plan->n_members;
    }
    u->end = end;
    u->last_member = plan->n_members;
    u->n_members++;
    plan->members[plan->n_members++] = member;
}

static void make_plan(struct forward *f, struct attend_plan *plan, uint32_t window) {
    uint32_t group = f->hp->n_heads / f->hp->n_kv_heads;
    uint32_t most = KERNEL_MAX_Q / min_u32(group, KERNEL_MAX_Q);
    plan->n_units = plan->n_members = 0;
    for (uint32_t t = 0; t < f->n_tokens; t++) {
        const struct division d = divide(f, t, window);
        const uint32_t seq = f->tokens[t].seq;
        for (uint32_t i = 0; i < d.n_parts; i++) {
            uint64_t first = max_u64(d.begin + i * d.length, d.first);
            uint64_t end = min_u64(d.begin + (i + 1) * d.length, d.end);
            uint32_t unit = f->decode ? unit_of_keys(f, plan, most, first, end, seq)
                                      : unit_of_prompt(plan, most, seq);
            add_member(plan, unit, first, end, seq,
                       (struct attend_member){.token = t, .part = i, .in_parts = d.n_parts > 1});
        }
    }
    plan->read_keys = plan->needed_keys = 0;
    kv_count_begin(f->kv);
    for (uint32_t i = 0; i < plan->n_units; i++) {
        const struct attend_unit *u = &plan->units[i];
        plan->read_keys += u->end - u->first;
        plan->needed_keys += kv_count(f->kv, u->seq, u->first, u->end);
    }
}

void attend_plan(struct forward *f, bool local) {
    make_plan(f, &f->plans[local], local ? f->hp->window : 0);
}

/* ---- attention ---- */

struct attend_job {
    struct forward *f;
    const struct attend_plan *plan;
    uint32_t layer, window;
    uint32_t heads_per_call, calls_per_head; /* of the query heads that share a kv head */
    bool rounds;                             /* with the kernel that may round to bf16 */
};

/* A prompt's attention may round where q and k carry the error of activations of 8 bits anyhow: not
 * where they come from weights of floats, nor where biases make them large beside what varies. */
static bool may_round(const struct weight *layer) {
    const bool fused = layer[ROLE_ATTN_QKV].present;
    const struct weight *q = &layer[fused ? ROLE_ATTN_QKV : ROLE_ATTN_Q];
    const struct weight *k = &layer[fused ? ROLE_ATTN_QKV : ROLE_ATTN_K];
    return dtype_get(q->dtype)->block_values > 1 && dtype_get(k->dtype)->block_values > 1 &&
           !layer[ROLE_ATTN_QKV_BIAS].present &&
           !layer[ROLE_ATTN_Q_BIAS].present && !layer[ROLE_ATTN_K_BIAS].present;
}

/* Where a part's output for a query head goes: [token, part, head]. */
static uint64_t part_index(const struct forward *f, const struct attend_member *m, uint32_t head) {
    return ((uint64_t)m->token * attend_most_parts(f->hp) + m->part) * f->hp->n_heads + head;
}

static void attend_piece(void *arg, uint32_t piece, uint32_t worker) {
    const struct attend_job *job = arg;
    struct forward *f = job->f;
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    uint32_t group = hp->n_heads / hp->n_kv_heads, hd = hp->head_dim;
    uint32_t unit = piece % job->plan->n_units, call = piece / job->plan->n_units;
    uint32_t kv_head = call / job->calls_per_head;
    const struct attend_unit *u = &job->plan->units[unit];
    uint32_t first_head = call % job->calls_per_head * job->heads_per_call;
    uint32_t n_heads = min_u32(job->heads_per_call, group - first_head);
    first_head += kv_head * group;

    const float *q[KERNEL_MAX_Q];
    float *out[KERNEL_MAX_Q];
    double totals[KERNEL_MAX_Q];
    uint32_t pos[KERNEL_MAX_Q];
    uint32_t n = 0;
    const struct attend_member *m = &job->plan->members[u->member];
    for (uint32_t i = 0; i < u->n_members; i++, m = &job->plan->members[m->next]) {
        float *row = f->work + (uint64_t)m->token * f->n_work;
        for (uint32_t h = first_head; h < first_head + n_heads; h++, n++) {
            q[n] = row + s.q + h * hd;
            out[n] =
                m->in_parts ? f->attend_parts + part_index(f, m, h) * hd : row + s.out + h * hd;
            pos[n] = f->decode ? (uint32_t)u->end - 1 : f->tokens[m->token].position;
        }
    }
    struct kernel_attention args = {
        .q = q,
        .out = out,
        .totals = f->decode ? totals : NULL,
        .pos = pos,
        .n_q = n,
        .head_dim = hd,
        .k = kv_keys(f->kv, job->layer, kv_head),
        .v = kv_values(f->kv, job->layer, kv_head),
        .blocks = kv_blocks(f->kv, u->seq),
        .window = f->decode ? (uint32_t)(u->end - u->first) : job->window,
        .scale = hp->attn_scale,
        .softcap = hp->attn_softcap,
    };
    void *scratch = f->scratch + worker * f->scratch_bytes;
    if (job->rounds) {
        f->k->attention_prompt(&args, scratch);
    } else {
        f->k->attention(&args, scratch);
    }
    m = &job->plan->members[u->member];
    for (uint32_t i = 0; f->decode && i < u->n_members; i++, m = &job->plan->members[m->next]) {
        for (uint32_t h = 0; m->in_parts && h < n_heads; h++) {
            f->attend_totals[part_index(f, m, first_head + h)] = totals[i * n_heads + h];
        }
    }
}

/* The mean of a token's parts, weighted with the sums of their weights, in ascending order. */
static void join_parts(struct forward *f, uint32_t token, uint32_t n_parts) {
    const struct hparams *hp = f->hp;
    uint32_t hd = hp->head_dim;
    float *out = f->work + (uint64_t)token * f->n_work + slots_of(hp).out;
    memset(out, 0, (uint64_t)hp->n_heads * hd * sizeof *out);
    for (uint32_t h = 0; h < hp->n_heads; h++, out += hd) {
        double weight[PARTS_OF_TOKEN], best = -INFINITY, sum = 0.0;
        for (uint32_t i = 0; i < n_parts; i++) {
            const struct attend_member m = {.token = token, .part = i};
            weight[i] = f->attend_totals[part_index(f, &m, h)];
            best = weight[i] > best ? weight[i] : best;
        }
        for (uint32_t i = 0; i < n_parts; i++) {
            weight[i] = exp(weight[i] - best);
            sum += weight[i];
        }
        for (uint32_t i = 0; i < n_parts; i++) {
            const struct attend_member m = {.token = token, .part = i};
            f->k->add_scaled(out, f->attend_parts + part_index(f, &m, h) * hd,
                             (float)(weight[i] / sum), hd);
        }
    }
}

static void join_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    const struct attend_job *job = arg;
    for (uint32_t t = first; t < first + count; t++) {
        uint32_t n_parts = divide(f, t, job->window).n_parts;
        if (n_parts > 1) {
            join_parts(f, t, n_parts);
        }
    }
}

static void attend(struct forward *f, uint32_t layer, bool local) {
    const struct hparams *hp = f->hp;
    uint32_t group = hp->n_heads / hp->n_kv_heads;
    struct attend_job job = {
        .f = f, .plan = &f->plans[local], .layer = layer, .window = local ? hp->window : 0};
    job.rounds = !f->decode && may_round(f->model->bind.layers[layer]);
    job.heads_per_call = min_u32(group, KERNEL_MAX_Q);
    job.calls_per_head = (group + job.heads_per_call - 1) / job.heads_per_call;
    pool_run(f->pool, job.plan->n_units * hp->n_kv_heads * job.calls_per_head, attend_piece, &job);
    if (f->decode) {
        forward_for_rows(f, f->n_tokens, join_rows, &job);
    }
}

/* Bytes of a token's keys and values in a layer. */
static uint64_t kv_row_bytes(const struct hparams *hp) {
    return (uint64_t)hp->n_kv_heads * hp->head_dim * 2 * sizeof(uint16_t);
}

/* ---- q, k and v ---- */

static const struct projection {
    enum layer_role role;
    uint32_t sides;
} projections[] = {
    {ROLE_ATTN_QKV, KEYS | QUERIES},
    {ROLE_ATTN_K, KEYS},
    {ROLE_ATTN_V, KEYS},
    {ROLE_ATTN_Q, QUERIES},
};
enum { N_PROJECTIONS = sizeof projections / sizeof *projections };

void attend_ahead(struct forward *f, uint32_t layer) {
    for (uint32_t i = 0; i < N_PROJECTIONS; i++) {
        matmul_ahead(f, &f->model->bind.layers[layer][projections[i].role]);
    }
}

/* norm -> work. Keys come first: where both are in one matrix, it gives the queries, too. */
static int project(struct forward *f, const struct weight *layer, uint32_t sides,
                   struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    struct prepared *p = &f->prepared;
    matmul_input(p, f->act, f->norm, hp->n_embd, f->n_tokens, hp->n_embd);
    const uint32_t at[N_PROJECTIONS] = {s.q, s.k, s.v, s.q};
    for (uint32_t i = 0; i < N_PROJECTIONS; i++) {
        const struct weight *w = &layer[projections[i].role];
        const uint32_t first = projections[i].sides & KEYS ? KEYS : QUERIES; /* that needs it */
        if (w->present && (sides & first) != 0) {
            int rc = matmul_add(f, w, 0, p, NULL, f->n_tokens, f->decode, f->work + at[i],
                                f->n_work, err);
            if (rc != OT_OK) {
                return rc;
            }
        }
    }
    if (sides & QUERIES) {
        matmul_ahead(f, &layer[ROLE_ATTN_OUT]);
    }
    return matmul_flush(f, err);
}

static int rotate(struct forward *f, uint32_t layer, uint32_t sides, struct ot_error *err) {
    const struct weight *w = f->model->bind.layers[layer];
    struct rotate_job job = {
        .layer = layer, .sides = sides, .local = hparams_layer_local(f->hp, layer)};
    /* a side's vectors are wanted at the same time: biases and norms of a model are few */
    const struct {
        struct vector *vector;
        enum layer_role role;
        enum side side;
    } parts[] = {
        {&job.bias_qkv, ROLE_ATTN_QKV_BIAS, KEYS}, {&job.bias_k, ROLE_ATTN_K_BIAS, KEYS},
        {&job.bias_v, ROLE_ATTN_V_BIAS, KEYS},     {&job.norm_k, ROLE_ATTN_K_NORM, KEYS},
        {&job.bias_q, ROLE_ATTN_Q_BIAS, QUERIES},  {&job.norm_q, ROLE_ATTN_Q_NORM, QUERIES},
    };
    _Static_assert(sizeof parts / sizeof *parts <= FORWARD_VECTORS, "each has a space of its own");
    int rc = OT_OK;
    for (uint32_t i = 0; i < sizeof parts / sizeof *parts && rc == OT_OK; i++) {
        if (parts[i].side & sides) {
            rc = vector_get(f, &w[parts[i].role], i, parts[i].vector, err);
        }
    }
    if (rc == OT_OK) {
        struct phase phase = phase_begin(f);
        forward_for_rows(f, f->n_tokens, rotate_rows, &job);
        phase_end(f, phase, OT_PHASE_OTHER);
    }
    for (uint32_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        vector_put(f, parts[i].vector);
    }
    if (rc == OT_OK && (sides & KEYS)) {
        uint64_t written = f->n_tokens * kv_row_bytes(f->hp);
        ledger_post(f->ledger, f->kv->ledger_id, OT_CACHE_RAM, OT_CAUSE_COMPUTE, written, written);
    }
    return rc;
}

static int make_sides(struct forward *f, uint32_t layer, uint32_t sides, struct ot_error *err) {
    int rc = project(f, f->model->bind.layers[layer], sides, err);
    return rc != OT_OK ? rc : rotate(f, layer, sides, err);
}

/* Moves together what goes on of the tokens whose logits are wanted; the others end here. */
static void keep_wanted(struct forward *f, bool local) {
    const uint64_t d = f->hp->n_embd, half = f->hp->n_rot / 2, q = slots_of(f->hp).k;
    uint64_t n = 0;
    for (uint64_t t = 0; t < f->n_tokens; t++) {
        if (!f->tokens[t].want_logits) {
            continue;
        }
        f->tokens[n] = f->tokens[t];
        memmove(f->x + n * d, f->x + t * d, d * sizeof *f->x);
        memmove(f->norm + n * d, f->norm + t * d, d * sizeof *f->norm);
        memmove(f->work + n * f->n_work, f->work + t * f->n_work, q * sizeof *f->work);
        memmove(f->cosines[local] + n * half, f->cosines[local] + t * half, half * sizeof(float));
        memmove(f->sines[local] + n * half, f->sines[local] + t * half, half * sizeof(float));
        n++;
    }
    f->n_tokens = (uint32_t)n;
}

/* q, k and v. Of a token whose logits nobody wants, the last layer's keys and values are all that
 * is of use. Where one token of the call goes on, it does so with the kernels for one, whether other
 * tokens came with it or not: results must not depend on how a prompt is divided. */
static int make_qkv(struct forward *f, uint32_t layer, struct ot_error *err) {
    const bool last_alone = f->one_logit && f->n_wanted == 1 && !f->decode;
    if (layer + 1 < f->hp->n_layers || (f->n_wanted == f->n_tokens && !last_alone)) {
        return make_sides(f, layer, KEYS | QUERIES, err);
    }
    int rc = make_sides(f, layer, KEYS, err);
    if (rc != OT_OK) {
        return rc;
    }
    const bool local = hparams_layer_local(f->hp, layer);
    keep_wanted(f, local);
    if (f->n_tokens == 0) {
        return OT_OK;
    }
    f->decode |= last_alone;
    attend_plan(f, local);
    return make_sides(f, layer, QUERIES, err);
}

int attend_layer(struct forward *f, uint32_t layer, struct ot_error *err) {
    const struct weight *w = f->model->bind.layers[layer];
    const bool local = hparams_layer_local(f->hp, layer);
    int rc = make_qkv(f, layer, err);
    if (rc != OT_OK || f->n_tokens == 0) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    attend(f, layer, local);
    phase_end(f, phase, OT_PHASE_ATTENTION);
    const struct attend_plan *plan = &f->plans[local];
    ledger_post(f->ledger, f->kv->ledger_id, OT_RAM_CACHE, OT_CAUSE_COMPUTE,
                plan->read_keys * kv_row_bytes(f->hp), plan->needed_keys * kv_row_bytes(f->hp));
    matmul_input(&f->prepared, f->act, f->work + slots_of(f->hp).out, f->n_work, f->n_tokens,
                 f->hp->n_heads * f->hp->head_dim);
    rc = matmul_add(f, &w[ROLE_ATTN_OUT], 0, &f->prepared, NULL, f->n_tokens, f->decode, f->y,
                    f->hp->n_embd, err);
    matmul_ahead(f, &w[ROLE_FFN_ROUTER]);
    matmul_ahead(f, &w[ROLE_FFN_GATE]);
    matmul_ahead(f, &w[ROLE_FFN_UP]);
    return rc != OT_OK ? rc : matmul_flush(f, err);
}
