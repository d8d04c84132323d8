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

struct rotate_job {
    uint32_t layer;
    bool local;
    struct vector bias_q, bias_k, bias_v, bias_qkv, norm_q, norm_k;
};

/* Biases, q/k norms, rope; then k and v go to the KV. */
static void rotate_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    const struct rotate_job *job = arg;
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    const uint32_t hd = hp->head_dim, half = hp->n_rot / 2;
    for (uint32_t t = first; t < first + count; t++) {
        float *row = f->work + (uint64_t)t * f->n_work;
        float *q = row + s.q, *k = row + s.k, *v = row + s.v;
        if (job->bias_qkv.data != NULL) {
            f->k->add_scaled(row, job->bias_qkv.data, 1.0f, s.out);
        }
        if (job->bias_q.data != NULL) {
            f->k->add_scaled(q, job->bias_q.data, 1.0f, s.k - s.q);
        }
        if (job->bias_k.data != NULL) {
            f->k->add_scaled(k, job->bias_k.data, 1.0f, s.v - s.k);
        }
        if (job->bias_v.data != NULL) {
            f->k->add_scaled(v, job->bias_v.data, 1.0f, s.out - s.v);
        }
        for (uint32_t h = 0; h < hp->n_heads && job->norm_q.data != NULL; h++) {
            f->k->rms_norm(q + h * hd, job->norm_q.data, hd, hp->norm_eps, q + h * hd);
        }
        for (uint32_t h = 0; h < hp->n_kv_heads && job->norm_k.data != NULL; h++) {
            f->k->rms_norm(k + h * hd, job->norm_k.data, hd, hp->norm_eps, k + h * hd);
        }
        const float *cosines = f->cosines[job->local] + (uint64_t)t * half;
        const float *sines = f->sines[job->local] + (uint64_t)t * half;
        bool neox = hp->family->rope_neox;
        f->k->rope(q, hp->n_heads, hd, hp->n_rot, neox, cosines, sines);
        f->k->rope(k, hp->n_kv_heads, hd, hp->n_rot, neox, cosines, sines);
        const struct forward_token *token = &f->tokens[t];
        uint64_t at = kv_offset(f->kv, token->seq, token->position);
        for (uint32_t h = 0; h < hp->n_kv_heads; h++) {
            f->k->f32_to_f16(k + h * hd, hd, kv_keys(f->kv, job->layer, h) + at);
            f->k->f32_to_f16(v + h * hd, hd, kv_values(f->kv, job->layer, h) + at);
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

void attend_plan(struct forward *f) {
    make_plan(f, &f->plans[0], 0);
    if (f->hp->window != 0) {
        make_plan(f, &f->plans[1], f->hp->window);
    }
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

/* Bytes of k and v: what was written, what was read, and the least that had to be read. */
static void post_kv(struct forward *f, bool local) {
    uint64_t row_bytes = (uint64_t)f->hp->n_kv_heads * f->hp->head_dim * 2 * sizeof(uint16_t);
    const struct attend_plan *plan = &f->plans[local];
    ledger_post(f->ledger, f->kv->ledger_id, OT_RAM_CACHE, OT_CAUSE_COMPUTE,
                plan->read_keys * row_bytes, plan->needed_keys * row_bytes);
    uint64_t written = (uint64_t)f->n_tokens * row_bytes;
    ledger_post(f->ledger, f->kv->ledger_id, OT_CACHE_RAM, OT_CAUSE_COMPUTE, written, written);
}

static const enum layer_role projections[] = {ROLE_ATTN_QKV, ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V};

void attend_ahead(struct forward *f, uint32_t layer) {
    for (uint32_t i = 0; i < 4; i++) {
        matmul_ahead(f, &f->model->bind.layers[layer][projections[i]]);
    }
}

static int project_qkv(struct forward *f, const struct weight *layer, struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    struct prepared *p = &f->prepared;
    matmul_input(p, f->act, f->norm, hp->n_embd, f->n_tokens, hp->n_embd);
    const uint32_t at[] = {s.q, s.q, s.k, s.v};
    for (uint32_t i = 0; i < 4; i++) {
        const struct weight *w = &layer[projections[i]];
        if (w->present) {
            int rc = matmul_add(f, w, 0, p, NULL, f->n_tokens, f->decode, f->work + at[i],
                                f->n_work, err);
            if (rc != OT_OK) {
                return rc;
            }
        }
    }
    matmul_ahead(f, &layer[ROLE_ATTN_OUT]);
    return matmul_flush(f, err);
}

static int rotate_and_attend(struct forward *f, uint32_t layer, struct ot_error *err) {
    const struct weight *w = f->model->bind.layers[layer];
    const struct hparams *hp = f->hp;
    struct rotate_job rotate = {.layer = layer, .local = hparams_layer_local(hp, layer)};
    /* q's and k's vectors are wanted at the same time: biases and norms of a model are few */
    struct vector *const vectors[] = {&rotate.bias_qkv, &rotate.bias_q, &rotate.bias_k,
                                      &rotate.bias_v,   &rotate.norm_q, &rotate.norm_k};
    static const enum layer_role roles[] = {ROLE_ATTN_QKV_BIAS, ROLE_ATTN_Q_BIAS, ROLE_ATTN_K_BIAS,
                                            ROLE_ATTN_V_BIAS,   ROLE_ATTN_Q_NORM, ROLE_ATTN_K_NORM};
    int rc = OT_OK;
    uint32_t n = 0;
    for (; n < 6 && rc == OT_OK; n++) {
        rc = vector_get(f, &w[roles[n]], n, vectors[n], err);
    }
    struct phase phase = phase_begin(f);
    if (rc == OT_OK) {
        forward_for_rows(f, f->n_tokens, rotate_rows, &rotate);
    }
    for (uint32_t i = 0; i < n; i++) {
        vector_put(f, vectors[i]);
    }
    if (rc != OT_OK) {
        return rc;
    }
    phase_end(f, phase, OT_PHASE_OTHER);
    phase = phase_begin(f);
    attend(f, layer, rotate.local);
    phase_end(f, phase, OT_PHASE_ATTENTION);
    post_kv(f, rotate.local);
    return OT_OK;
}

int attend_layer(struct forward *f, uint32_t layer, struct ot_error *err) {
    const struct weight *w = f->model->bind.layers[layer];
    const struct slots s = slots_of(f->hp);
    int rc;
    if ((rc = project_qkv(f, w, err)) != OT_OK ||
        (rc = rotate_and_attend(f, layer, err)) != OT_OK) {
        return rc;
    }
    matmul_input(&f->prepared, f->act, f->work + s.out, f->n_work, f->n_tokens,
                 f->hp->n_heads * f->hp->head_dim);
    rc = matmul_add(f, &w[ROLE_ATTN_OUT], 0, &f->prepared, NULL, f->n_tokens, f->decode, f->y,
                    f->hp->n_embd, err);
    matmul_ahead(f, &w[ROLE_FFN_ROUTER]);
    matmul_ahead(f, &w[ROLE_FFN_GATE]);
    matmul_ahead(f, &w[ROLE_FFN_UP]);
    return rc != OT_OK ? rc : matmul_flush(f, err);
}
