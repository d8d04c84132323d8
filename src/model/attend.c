/* attend.c - the attention half of a layer: projections, rope, KV, attention, output. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
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
        uint64_t at = (uint64_t)token->position * hd;
        for (uint32_t h = 0; h < hp->n_kv_heads; h++) {
            f->k->f32_to_f16(k + h * hd, hd, kv_keys(f->kv, job->layer, token->seq, h) + at);
            f->k->f32_to_f16(v + h * hd, hd, kv_values(f->kv, job->layer, token->seq, h) + at);
        }
    }
}

/* How the keys that a token sees are divided: part i is [begin + i * length, ...), but for the
 * first one, which may begin later, and the last one. It depends on the position only, so that
 * results do not depend on the threads. */
struct division {
    uint64_t first, begin, end, length; /* keys [first, end); begin <= first */
    uint32_t n_parts;
};

enum { PART_BYTES = 64 << 10, PARTS_OF_TOKEN = 32 };

uint32_t attend_most_parts(const struct hparams *hp) {
    return max_u32(PARTS_OF_TOKEN / hp->n_kv_heads, 1);
}

/* Divided is only what decodes: a prompt has pieces enough. */
static struct division divide(const struct forward *f, const struct attend_tile *tile,
                              uint32_t window) {
    struct division d = {.end = (uint64_t)f->tokens[tile->first].position + 1};
    d.first = window != 0 && d.end > window ? d.end - window : 0;
    d.begin = d.first / KERNEL_KEY_BLOCK * KERNEL_KEY_BLOCK;
    d.length = d.end - d.begin;
    d.n_parts = 1;
    if (f->decode && tile->count == 1) {
        uint64_t keys_min = PART_BYTES / (2 * sizeof(uint16_t) * f->hp->head_dim);
        uint64_t wanted = min_u64(d.length / max_u64(keys_min, 1), attend_most_parts(f->hp));
        wanted = max_u64(wanted, 1);
        d.length = round_up((d.length + wanted - 1) / wanted, KERNEL_KEY_BLOCK);
        d.n_parts = (uint32_t)((d.end - d.begin + d.length - 1) / d.length);
    }
    return d;
}

struct attend_job {
    struct forward *f;
    uint32_t layer, window;
    uint32_t heads_per_call, calls_per_head; /* of the query heads that share a kv head */
    uint32_t n_parts;                        /* of the token that has most */
};

/* Where a part's output for a query head goes: [tile, part, head]. */
static uint64_t part_index(const struct forward *f, uint32_t tile, uint32_t part, uint32_t head) {
    return ((uint64_t)tile * attend_most_parts(f->hp) + part) * f->hp->n_heads + head;
}

static void attend_piece(void *arg, uint32_t piece, uint32_t worker) {
    const struct attend_job *job = arg;
    struct forward *f = job->f;
    const struct hparams *hp = f->hp;
    const struct slots s = slots_of(hp);
    uint32_t group = hp->n_heads / hp->n_kv_heads;
    uint32_t part = piece % job->n_parts, call = piece / job->n_parts;
    uint32_t kv_head = call / job->calls_per_head % hp->n_kv_heads;
    uint32_t tile_id = call / job->calls_per_head / hp->n_kv_heads;
    const struct attend_tile *tile = &f->tiles[tile_id];
    uint32_t first_head = call % job->calls_per_head * job->heads_per_call;
    uint32_t n_heads = min_u32(job->heads_per_call, group - first_head);
    first_head += kv_head * group;
    const struct division d = divide(f, tile, job->window);
    if (part >= d.n_parts) {
        return;
    }

    const float *q[KERNEL_MAX_Q];
    float *out[KERNEL_MAX_Q];
    uint32_t pos[KERNEL_MAX_Q];
    uint32_t n = 0;
    for (uint32_t t = tile->first; t < tile->first + tile->count; t++) {
        float *row = f->work + (uint64_t)t * f->n_work;
        for (uint32_t h = first_head; h < first_head + n_heads; h++, n++) {
            q[n] = row + s.q + h * hp->head_dim;
            out[n] = row + s.out + h * hp->head_dim;
            pos[n] = f->tokens[t].position;
        }
    }
    uint32_t seq = f->tokens[tile->first].seq;
    struct kernel_attention args = {
        .q = q,
        .out = out,
        .pos = pos,
        .n_q = n,
        .head_dim = hp->head_dim,
        .k = kv_keys(f->kv, job->layer, seq, kv_head),
        .v = kv_values(f->kv, job->layer, seq, kv_head),
        .window = job->window,
        .scale = hp->attn_scale,
        .softcap = hp->attn_softcap,
    };
    if (d.n_parts > 1) {
        uint64_t first = max_u64(d.begin + part * d.length, d.first);
        uint64_t end = min_u64(d.begin + (part + 1) * d.length, d.end);
        args.window = (uint32_t)(end - first);
        args.totals = f->attend_totals + part_index(f, tile_id, part, first_head);
        for (uint32_t i = 0; i < n; i++) {
            pos[i] = (uint32_t)(end - 1);
            out[i] = f->attend_parts + part_index(f, tile_id, part, first_head + i) * hp->head_dim;
        }
    }
    (f->decode ? f->k->attention : f->k->attention_prompt)(&args,
                                                           f->scratch + worker * f->scratch_bytes);
}

/* The mean of a token's parts, weighted with the sums of their weights, in ascending order. */
static void join_parts(struct forward *f, uint32_t tile_id, uint32_t n_parts) {
    const struct hparams *hp = f->hp;
    uint32_t hd = hp->head_dim;
    float *out = f->work + (uint64_t)f->tiles[tile_id].first * f->n_work + slots_of(hp).out;
    memset(out, 0, (uint64_t)hp->n_heads * hd * sizeof *out);
    for (uint32_t h = 0; h < hp->n_heads; h++, out += hd) {
        double weight[PARTS_OF_TOKEN], best = -INFINITY, sum = 0.0;
        for (uint32_t i = 0; i < n_parts; i++) {
            weight[i] = f->attend_totals[part_index(f, tile_id, i, h)];
            best = weight[i] > best ? weight[i] : best;
        }
        for (uint32_t i = 0; i < n_parts; i++) {
            weight[i] = exp(weight[i] - best);
            sum += weight[i];
        }
        for (uint32_t i = 0; i < n_parts; i++) {
            f->k->add_scaled(out, f->attend_parts + part_index(f, tile_id, i, h) * hd,
                             (float)(weight[i] / sum), hd);
        }
    }
}

static void attend(struct forward *f, uint32_t layer, uint32_t window) {
    const struct hparams *hp = f->hp;
    uint32_t group = hp->n_heads / hp->n_kv_heads;
    struct attend_job job = {.f = f, .layer = layer, .window = window, .n_parts = 1};
    job.heads_per_call = min_u32(group, KERNEL_MAX_Q);
    job.calls_per_head = (group + job.heads_per_call - 1) / job.heads_per_call;
    for (uint32_t i = 0; i < f->n_tiles; i++) {
        job.n_parts = max_u32(job.n_parts, divide(f, &f->tiles[i], window).n_parts);
    }
    uint32_t n_calls = f->n_tiles * hp->n_kv_heads * job.calls_per_head;
    pool_run(f->pool, n_calls * job.n_parts, attend_piece, &job);
    for (uint32_t i = 0; i < f->n_tiles; i++) {
        uint32_t n_parts = divide(f, &f->tiles[i], window).n_parts;
        if (n_parts > 1) {
            join_parts(f, i, n_parts);
        }
    }
}

/* Bytes of k and v: what was written, what the tiles read, and the least that had to be read. */
static void post_kv(struct forward *f, uint32_t window) {
    uint64_t row_bytes = (uint64_t)f->hp->n_kv_heads * f->hp->head_dim * 2 * sizeof(uint16_t);
    uint64_t moved = 0, needed = 0;
    for (uint32_t i = 0; i < f->n_tiles; i++) {
        const struct attend_tile *tile = &f->tiles[i];
        uint32_t low = f->tokens[tile->first].position;
        uint32_t high = f->tokens[tile->first + tile->count - 1].position;
        uint32_t from = window != 0 && low + 1 > window ? low + 1 - window : 0;
        moved += (uint64_t)(high + 1 - from) * row_bytes;
        const struct attend_span *span = &f->spans[f->tokens[tile->first].seq];
        if (span->last_tile == i) { /* all its keys, from the first that any tile saw */
            uint32_t lowest = span->first_position;
            uint32_t first = window != 0 && lowest + 1 > window ? lowest + 1 - window : 0;
            needed += (uint64_t)(high + 1 - first) * row_bytes;
        }
    }
    ledger_post(f->ledger, f->kv->ledger_id, OT_RAM_CACHE, OT_CAUSE_COMPUTE, moved, needed);
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
    uint32_t window = rotate.local ? hp->window : 0;
    attend(f, layer, window);
    phase_end(f, phase, OT_PHASE_ATTENTION);
    post_kv(f, window);
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
