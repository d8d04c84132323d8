/* forward.c - the sweep: embedding, layers in schedule order, output. */
#include "model/forward.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "sys/memory.h"

/* ---- memory ---- */

struct carve {
    uint8_t *memory; /* NULL: only the size is wanted */
    uint64_t used;
};

static void *take(struct carve *c, uint64_t bytes) {
    uint64_t at = c->used;
    c->used += round_up(bytes, KERNEL_ALIGN);
    return c->memory != NULL ? c->memory + at : NULL;
}

/* Matrices that share an input. */
static const struct input {
    uint32_t n_roles;
    enum layer_role roles[4];
} inputs[] = {{4, {ROLE_ATTN_QKV, ROLE_ATTN_K, ROLE_ATTN_V, ROLE_ATTN_Q}},
              {1, {ROLE_ATTN_OUT}},
              {3, {ROLE_FFN_ROUTER, ROLE_FFN_GATE, ROLE_FFN_UP}},
              {1, {ROLE_FFN_DOWN}}};

/* Bytes of a row prepared for w, if none of the matrices seen before wants the same layout. */
static uint64_t layout_need(const struct kernels *k, bool gemv, const struct weight *w,
                            bool seen[KERNEL_MAX_LAYOUTS]) {
    const struct kernel_type *t = &k->type[w->dtype];
    const uint8_t layout = gemv ? t->layout_gemv : t->layout_gemm;
    if (!w->present || layout == KERNEL_LAYOUT_F32 || seen[layout]) {
        return 0;
    }
    seen[layout] = true;
    return k->layout_bytes(layout, w->n_cols);
}

/* Bytes of a prepared row, the most of all inputs; routed: of those of experts' down matrices, else
 * of all others. */
static uint64_t row_need(const struct ot_model *m, const struct kernels *k, bool gemv,
                         bool routed) {
    bool seen[KERNEL_MAX_LAYOUTS] = {false};
    uint64_t most = routed ? 0 : layout_need(k, gemv, &m->bind.output, seen);
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        for (uint32_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
            const enum layer_role *roles = inputs[i].roles;
            uint64_t bytes = 0;
            memset(seen, 0, sizeof seen);
            for (uint32_t r = 0; r < inputs[i].n_roles; r++) {
                bytes += layout_need(k, gemv, &m->bind.layers[l][roles[r]], seen);
            }
            if (routed == (m->hp.n_experts > 0 && roles[0] == ROLE_FFN_DOWN)) {
                most = max_u64(most, bytes);
            }
        }
    }
    return most;
}

/* Bytes of the prepared forms of n_many rows for the kernels of many tokens, or of n_few rows for
 * the kernels of one, whichever is more. */
static uint64_t act_need(const struct ot_model *m, const struct kernels *k, uint32_t n_many,
                         uint32_t n_few, bool routed) {
    return max_u64(n_many * row_need(m, k, false, routed), n_few * row_need(m, k, true, routed));
}

/* Where a tenth of the weights have no kernel for a few tokens, each token of a few unpacks them
 * anew (bench/results/several-sequences.md). */
enum { FEW_ALONE = 3, FEW_SHARE = 10 };

uint32_t forward_few(const struct ot_model *model, const struct kernels *kernels) {
    uint64_t all = 0, without = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct gguf_tensor *t = &model->tensors[i];
        all += t->bytes;
        without += kernels->type[t->dtype].few == NULL ? t->bytes : 0;
    }
    if (without > all / FEW_SHARE) {
        return FEW_ALONE;
    }
    return model->hp.n_experts > 0 ? FORWARD_FEW_ROUTED : min_u32(FORWARD_FEW, kernels->few_most);
}

static void lay_out(struct forward *f, struct carve *c, const struct ot_model *m,
                    const struct kernels *k, uint32_t n_threads, uint32_t n) {
    const struct hparams *hp = &m->hp;
    uint32_t q = hp->n_heads * hp->head_dim, kv = hp->n_kv_heads * hp->head_dim;
    uint32_t d = hp->n_embd, E = hp->n_experts, used = hp->n_experts_used, ffe = hp->n_ff_expert;
    uint32_t ff = E > 0 ? 0 : hp->n_ff;
    uint32_t up = hp->family->fused_gate_up ? 0 : ff; /* as a matrix of its own */
    uint32_t widest = max_u32(max_u32(d, q), ff);
    uint32_t n_few = min_u32(n, max_u32(FORWARD_FEW, forward_few(m, k)));
    f->n_work = max_u32(2 * q + 2 * kv, ff + ff - up);
    f->n_routed_rows = E > 0 ? max_u32(n, used) : 0;
    f->x = take(c, 4ull * n * d);
    f->norm = take(c, 4ull * n * d);
    /* experts' input is wanted until the last of them has been computed */
    f->y = E > 0 ? take(c, 4ull * n * d) : f->norm;
    f->work = take(c, 4ull * n * f->n_work);
    f->gated_rows = up > 0 ? matmul_prompt_rows(up, n_threads) : 0;
    f->up = take(c, 4 * max_u64((uint64_t)n_few * up, (uint64_t)n_threads * n * f->gated_rows));
    for (uint32_t i = 0; i < 2; i++) {
        f->cosines[i] = take(c, 2ull * n * hp->n_rot);
        f->sines[i] = take(c, 2ull * n * hp->n_rot);
    }
    f->act_bytes = act_need(m, k, n, n_few, false);
    f->act = take(c, f->act_bytes);
    if (E > 0) {
        f->routed = take(c, 8ull * f->n_routed_rows * ffe);
        f->routed_y = take(c, 4ull * f->n_routed_rows * d);
        f->routed_act_bytes =
            act_need(m, k, f->n_routed_rows, min_u32(f->n_routed_rows, n_few * used), true);
        f->routed_act = take(c, f->routed_act_bytes);
        f->router = take(c, 4ull * n * E);
        f->route_weight = take(c, 4ull * n * used);
        f->route_expert = take(c, 4ull * n * used);
        f->route_tokens = take(c, 4ull * n * used);
        f->route_slots = take(c, 4ull * n * used);
        f->expert_first = take(c, 4ull * (E + 1));
        f->expert_ids = take(c, 4ull * E);
        f->expert_parts = take(c, 3ull * E * sizeof *f->expert_parts);
        f->expert_stage = take(c, E);
        f->row_ids = take(c, 4ull * f->n_routed_rows);
    }
    for (uint32_t i = 0; i < FORWARD_VECTORS; i++) {
        f->vector_space[i] = take(c, 4ull * max_u32(widest, q + 2 * kv));
    }
    f->scratch_bytes = round_up(max_u64(k->gemm_scratch_bytes(max_u32(widest, ffe)),
                                        k->attention_scratch_bytes(hp->head_dim)),
                                KERNEL_ALIGN);
    f->scratch = take(c, n_threads * f->scratch_bytes);
    uint64_t n_parts = (uint64_t)n_few * attend_most_parts(hp), n_outs = n_parts * hp->n_heads;
    f->attend_parts = take(c, n_outs * hp->head_dim * sizeof *f->attend_parts);
    f->attend_totals = take(c, n_outs * sizeof *f->attend_totals);
    for (uint32_t i = 0; i < (hp->window != 0 ? 2 : 1); i++) {
        f->plans[i].units = take(c, max_u64(n, n_parts) * sizeof *f->plans[i].units);
        f->plans[i].members = take(c, max_u64(n, n_parts) * sizeof *f->plans[i].members);
    }
    f->n_batch = n;
}

uint64_t forward_need_bytes(const struct ot_model *model, const struct kernels *kernels,
                            uint32_t n_threads, uint32_t n_batch) {
    struct forward f;
    struct carve c = {0};
    lay_out(&f, &c, model, kernels, n_threads, n_batch);
    return c.used;
}

/* ---- vectors ---- */

int vector_get(struct forward *f, const struct weight *w, uint32_t space, struct vector *out,
               struct ot_error *err) {
    *out = (struct vector){0};
    if (!w->present) {
        return OT_OK;
    }
    int rc = residency_try(f->residency, w->extent, 0, 0, &out->view, err);
    if (rc > 0) {
        struct phase phase = phase_begin(f);
        rc = residency_acquire(f->residency, w->extent, 0, 0, &out->view, err);
        phase_end(f, phase, OT_PHASE_OTHER);
    }
    if (rc != OT_OK) {
        return rc;
    }
    const uint8_t *data = out->view.data;
    if (w->dtype == OT_F32 && (uintptr_t)data % sizeof(float) == 0) {
        out->data = (const float *)(const void *)data;
    } else {
        f->k->type[w->dtype].dequant(data, w->n_cols, f->vector_space[space]);
        out->data = f->vector_space[space];
    }
    ledger_post(f->ledger, w->extent, OT_RAM_CACHE, OT_CAUSE_COMPUTE, w->row_bytes, w->row_bytes);
    return OT_OK;
}

void vector_put(struct forward *f, struct vector *v) {
    if (v->data != NULL) {
        residency_release(f->residency, &v->view);
        v->data = NULL;
    }
}

/* ---- open, close ---- */

struct factors {
    struct forward *f;
    const struct weight *w;
};

static void keep_factors(void *user, uint32_t i, const uint8_t *data) {
    (void)i;
    const struct factors *factors = user;
    struct forward *f = factors->f;
    f->k->type[factors->w->dtype].dequant(data, factors->w->n_cols, f->vector_space[0]);
}

/* Rope factors are read once, when opened: they live on in the frequencies. */
static int open_rope(struct forward *f, uint32_t n_ctx, struct ot_error *err) {
    const struct bind *b = &f->model->bind;
    const struct weight *w = &b->rope_freqs;
    if (!w->present) {
        w = n_ctx > f->hp->rope_orig_ctx ? &b->rope_long : &b->rope_short;
    }
    int rc = OT_OK;
    const float *values = NULL;
    if (w->present) {
        struct factors factors = {f, w};
        uint32_t row = 0;
        rc = residency_rows(f->residency, w->extent, &row, 1, keep_factors, &factors, err);
        values = f->vector_space[0];
    }
    for (uint32_t i = 0; rc == OT_OK && values != NULL && i < w->n_cols; i++) {
        if (!isfinite(values[i]) || values[i] <= 0.0f) {
            rc =
                error_set(err, OT_ERR_FORMAT, f->model->path,
                          "rope factor %u is %g, expected a positive number", i, (double)values[i]);
        }
    }
    for (uint32_t local = 0; rc == OT_OK && local < 2; local++) {
        rc = rope_open(&f->rope[local], f->hp, local != 0, values, err);
    }
    return rc;
}

int forward_open(struct forward *f, const struct forward_params *p, struct ot_error *err) {
    *f = (struct forward){
        .model = p->model,
        .hp = &p->model->hp,
        .k = p->kernels,
        .pool = p->pool,
        .residency = p->residency,
        .kv = p->kv,
        .ledger = p->ledger,
        .stop = p->stop,
        .prefetch = {{.way = kernels_prefetch_way()}, {.way = kernels_prefetch_way()}},
    };
    uint32_t n_threads = pool_threads(p->pool);
    f->memory_bytes = forward_need_bytes(p->model, p->kernels, n_threads, p->n_batch);
    int rc = ledger_add_extent(p->ledger, "activations", 11, f->memory_bytes, OT_CLASS_ACTIVATION,
                               -1, &f->activation_extent, err);
    if (rc != OT_OK) {
        return rc;
    }
    f->memory = sys_memory_take(f->memory_bytes, false, err);
    if (f->memory == NULL) {
        return OT_ERR_MEMORY;
    }
    struct carve c = {.memory = f->memory};
    lay_out(f, &c, p->model, p->kernels, n_threads, p->n_batch);
    if ((rc = open_rope(f, p->n_ctx, err)) != OT_OK) {
        forward_close(f);
    }
    return rc;
}

void forward_close(struct forward *f) {
    rope_close(&f->rope[0]);
    rope_close(&f->rope[1]);
    if (f->memory != NULL) {
        sys_memory_free(f->memory, f->memory_bytes);
        f->memory = NULL;
    }
}

void forward_drop(struct forward *f) {
    sys_memory_drop(f->memory, f->memory_bytes);
}

/* ---- where the time goes ---- */

struct phase phase_begin(const struct forward *f) {
    return (struct phase){clock_ns(), pool_waited_ns(f->pool), residency_waited_ns(f->residency)};
}

void phase_end(struct forward *f, struct phase begin, enum ot_phase phase) {
    uint64_t barriers_ns = pool_waited_ns(f->pool) - begin.barriers_ns;
    uint64_t disk_ns = residency_waited_ns(f->residency) - begin.disk_ns;
    f->phase_ns[OT_PHASE_BARRIERS] += barriers_ns;
    f->phase_ns[OT_PHASE_WAIT] += disk_ns;
    f->phase_ns[phase] += clock_ns() - begin.start_ns - barriers_ns - disk_ns;
}

/* ---- rows in parallel ---- */

struct rows_job {
    struct forward *f;
    forward_rows_fn *fn;
    void *arg;
    uint32_t n, per_piece;
};

static void rows_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    struct rows_job *job = arg;
    uint32_t first = piece * job->per_piece;
    job->fn(job->f, job->arg, first, min_u32(job->per_piece, job->n - first));
}

void forward_for_rows(struct forward *f, uint32_t n, forward_rows_fn *fn, void *arg) {
    uint32_t pieces = min_u32(n, 4 * pool_threads(f->pool));
    if (n < 4 || pieces <= 1) {
        if (n > 0) {
            fn(f, arg, 0, n);
        }
        return;
    }
    struct rows_job job = {f, fn, arg, n, (n + pieces - 1) / pieces};
    pool_run(f->pool, (n + job.per_piece - 1) / job.per_piece, rows_piece, &job);
}

/* ---- norms and the residual stream ---- */

struct norm_job {
    const float *bias;      /* added to y first; may be NULL */
    const float *post_gain; /* y = norm(y) before it is added; may be NULL */
    const float *gain;      /* norm = norm(x) after; NULL: leave norm alone */
    bool add;               /* x += y */
};

static void norm_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    const struct norm_job *job = arg;
    uint32_t d = f->hp->n_embd;
    float eps = f->hp->norm_eps;
    for (uint32_t t = first; t < first + count; t++) {
        float *x = f->x + (uint64_t)t * d, *y = f->y + (uint64_t)t * d;
        if (job->bias != NULL) {
            f->k->add_scaled(y, job->bias, 1.0f, d);
        }
        if (job->post_gain != NULL) {
            f->k->rms_norm(y, job->post_gain, d, eps, y);
        }
        if (job->add) {
            f->k->add_scaled(x, y, 1.0f, d);
        }
        if (job->gain != NULL) {
            f->k->rms_norm(x, job->gain, d, eps, f->norm + (uint64_t)t * d);
        }
    }
}

/* y goes through bias and post norm into x; norm = gain(x). Absent weights are skipped. */
static int residual(struct forward *f, const struct weight *bias, const struct weight *post,
                    const struct weight *gain, bool add, struct ot_error *err) {
    static const struct weight absent;
    const struct weight *weights[] = {bias != NULL ? bias : &absent, post != NULL ? post : &absent,
                                      gain != NULL ? gain : &absent};
    struct vector v[3] = {{0}};
    int rc = OT_OK;
    for (uint32_t i = 0; i < 3 && rc == OT_OK; i++) {
        rc = vector_get(f, weights[i], i, &v[i], err);
    }
    if (rc == OT_OK) {
        struct phase phase = phase_begin(f);
        struct norm_job job = {v[0].data, v[1].data, v[2].data, add};
        forward_for_rows(f, f->n_tokens, norm_rows, &job);
        phase_end(f, phase, OT_PHASE_OTHER);
    }
    for (uint32_t i = 0; i < 3; i++) {
        vector_put(f, &v[i]);
    }
    return rc;
}

/* ---- the dense FFN ---- */

struct bias_job {
    const float *gate, *up; /* NULL: none */
};

static void bias_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    const struct bias_job *job = arg;
    const uint32_t ff = f->hp->n_ff;
    for (uint32_t t = first; t < first + count; t++) {
        if (job->gate != NULL) {
            f->k->add_scaled(f->work + (uint64_t)t * f->n_work, job->gate, 1.0f, ff);
        }
        if (job->up != NULL) {
            f->k->add_scaled(f->up + (uint64_t)t * ff, job->up, 1.0f, ff);
        }
    }
}

/* Up with its bias: of a few tokens beside gate, to be gated when it is prepared; of a prompt, gate
 * is gated with it piece by piece. */
static int add_up(struct forward *f, const struct weight *layer, struct ot_error *err) {
    const struct weight *w = &layer[ROLE_FFN_UP];
    struct vector gate = {0}, up = {0};
    int rc = OT_OK;
    if (f->decode) {
        rc = matmul_add(f, w, 0, &f->prepared, NULL, f->n_tokens, true, f->up, f->hp->n_ff, err);
    }
    if (rc == OT_OK && (rc = matmul_flush(f, err)) == OT_OK &&
        (rc = vector_get(f, &layer[ROLE_FFN_GATE_BIAS], 0, &gate, err)) == OT_OK &&
        (rc = vector_get(f, &layer[ROLE_FFN_UP_BIAS], 1, &up, err)) == OT_OK) {
        struct bias_job job = {gate.data, f->decode ? up.data : NULL};
        if (job.gate != NULL || job.up != NULL) {
            forward_for_rows(f, f->n_tokens, bias_rows, &job);
        }
        if (!f->decode) {
            rc = matmul_add_gated(f, w, &f->prepared, up.data, f->work, f->n_work, err);
            rc = rc != OT_OK ? rc : matmul_flush(f, err);
        }
    }
    vector_put(f, &gate);
    vector_put(f, &up);
    return rc;
}

void forward_ahead(struct forward *f, uint32_t layer) {
    if (layer + 1 < f->hp->n_layers) {
        attend_ahead(f, layer + 1);
    } else {
        matmul_ahead(f, &f->model->bind.output);
    }
}

static int ffn_layer(struct forward *f, uint32_t layer_id, struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct weight *layer = f->model->bind.layers[layer_id];
    const bool fused = !layer[ROLE_FFN_GATE].present;
    struct prepared *p = &f->prepared;
    matmul_input(p, f->act, f->norm, hp->n_embd, f->n_tokens, hp->n_embd);
    int rc = matmul_add(f, &layer[fused ? ROLE_FFN_UP : ROLE_FFN_GATE], 0, p, NULL, f->n_tokens,
                        f->decode, f->work, f->n_work, err);
    matmul_ahead(f, &layer[ROLE_FFN_DOWN]);
    if (rc != OT_OK || (rc = fused ? matmul_flush(f, err) : add_up(f, layer, err)) != OT_OK) {
        return rc;
    }
    matmul_input(p, f->act, f->work, f->n_work, f->n_tokens, hp->n_ff);
    if (fused || f->decode) {
        matmul_gate(f, p, f->work, fused ? f->work + hp->n_ff : f->up, fused ? f->n_work : hp->n_ff,
                    &layer[ROLE_FFN_DOWN], f->decode, 0, f->n_tokens);
    }
    rc = matmul_add(f, &layer[ROLE_FFN_DOWN], 0, p, NULL, f->n_tokens, f->decode, f->y, hp->n_embd,
                    err);
    forward_ahead(f, layer_id);
    return rc != OT_OK ? rc : matmul_flush(f, err);
}

/* ---- embedding and output ---- */

static void embed_row(void *user, uint32_t i, const uint8_t *data) {
    struct forward *f = user;
    const struct hparams *hp = f->hp;
    float *x = f->x + (uint64_t)i * hp->n_embd;
    f->k->type[f->model->bind.token_embd.dtype].dequant(data, hp->n_embd, x);
    if (hp->family->scale_embedding) {
        float scale = sqrtf((float)hp->n_embd);
        for (uint32_t j = 0; j < hp->n_embd; j++) {
            x[j] *= scale;
        }
    }
}

static int embed(struct forward *f, struct ot_error *err) {
    const struct weight *w = &f->model->bind.token_embd;
    uint32_t *ids = (uint32_t *)(void *)f->y; /* free until the first layer */
    for (uint32_t i = 0; i < f->n_tokens; i++) {
        ids[i] = f->tokens[i].token;
    }
    ledger_post(f->ledger, w->extent, OT_RAM_CACHE, OT_CAUSE_GATHER, f->n_tokens * w->row_bytes,
                f->n_tokens * w->row_bytes);
    struct phase phase = phase_begin(f);
    int rc = residency_rows(f->residency, w->extent, ids, f->n_tokens, embed_row, f, err);
    phase_end(f, phase, OT_PHASE_OTHER);
    return rc;
}

struct angles_job {
    uint32_t kind;
};

static void angle_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    uint32_t kind = ((const struct angles_job *)arg)->kind, half = f->hp->n_rot / 2;
    for (uint32_t t = first; t < first + count; t++) {
        rope_angles(&f->rope[kind], f->tokens[t].position, f->cosines[kind] + (uint64_t)t * half,
                    f->sines[kind] + (uint64_t)t * half);
    }
}

/* Logits of the tokens, all of which want them. */
static int output(struct forward *f, float *logits, struct ot_error *err) {
    const struct hparams *hp = f->hp;
    const struct bind *b = &f->model->bind;
    uint32_t d = hp->n_embd, n = f->n_tokens;
    int rc = residual(f, NULL, NULL, &b->output_norm, false, err);
    if (rc != OT_OK) {
        return rc;
    }
    matmul_input(&f->prepared, f->act, f->norm, d, n, d);
    attend_ahead(f, 0);
    if ((rc = matmul_add(f, &b->output, 0, &f->prepared, NULL, n, f->decode, logits, hp->n_vocab,
                         err)) != OT_OK ||
        (rc = matmul_flush(f, err)) != OT_OK) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    for (uint32_t i = 0; i < n && rc == OT_OK; i++) {
        float *row = logits + (uint64_t)i * hp->n_vocab;
        if (!f->k->all_finite(row, hp->n_vocab)) {
            rc = error_set(err, OT_ERR_NOT_FINITE, f->model->path,
                           "a logit is not a finite number: the weights are damaged");
        } else if (hp->final_softcap != 0.0f) {
            f->k->softcap(row, hp->n_vocab, hp->final_softcap);
        }
    }
    phase_end(f, phase, OT_PHASE_OTHER);
    return rc;
}

static int run_layers(struct forward *f, struct ot_error *err) {
    const struct bind *b = &f->model->bind;
    int rc = OT_OK;
    for (uint32_t i = 0; i < f->hp->n_layers && rc == OT_OK; i++) {
        const struct weight *layer = b->layers[i];
        if ((rc = residual(f, NULL, NULL, &layer[ROLE_ATTN_NORM], false, err)) != OT_OK ||
            (rc = attend_layer(f, i, err)) != OT_OK || f->n_tokens == 0 ||
            (rc = residual(f, &layer[ROLE_ATTN_OUT_BIAS], &layer[ROLE_ATTN_POST_NORM],
                           &layer[ROLE_FFN_NORM], true, err)) != OT_OK) {
            break;
        }
        rc = f->hp->n_experts > 0 ? experts_layer(f, i, err) : ffn_layer(f, i, err);
        if (rc == OT_OK) {
            rc = residual(f, &layer[ROLE_FFN_DOWN_BIAS], &layer[ROLE_FFN_POST_NORM], NULL, true,
                          err);
        }
    }
    return rc;
}

/* Modelled: activations stay in the caches while a layer's working set fits them; else what a layer
 * writes goes out and comes back once. */
static void post_activations(struct forward *f) {
    const struct sys_cpu *cpu = sys_cpu_facts();
    uint64_t caches = (uint64_t)cpu->l2_bytes * pool_threads(f->pool) + cpu->l3_bytes;
    uint64_t per_token = 4ull * (3ull * f->hp->n_embd + f->n_work) + f->act_bytes / f->n_batch;
    uint64_t bytes = f->n_tokens * per_token;
    if (bytes > caches) {
        bytes = bytes * (f->hp->n_layers - 1) + f->n_wanted * per_token;
        ledger_post(f->ledger, f->activation_extent, OT_CACHE_RAM, OT_CAUSE_COMPUTE, bytes, bytes);
        ledger_post(f->ledger, f->activation_extent, OT_RAM_CACHE, OT_CAUSE_COMPUTE, bytes, bytes);
    }
}

int forward_sweep(struct forward *f, struct forward_token *tokens, uint32_t n, uint32_t n_room,
                  bool decode, bool one_logit, float *logits, struct ot_error *err) {
    f->tokens = tokens;
    f->n_tokens = n;
    f->n_room = n_room;
    f->decode = decode;
    f->one_logit = one_logit;
    f->n_wanted = 0;
    for (uint32_t i = 0; i < n; i++) {
        f->n_wanted += tokens[i].want_logits;
    }
    const struct bind *b = &f->model->bind;
    uint32_t last = f->n_wanted > 0 ? b->n_extents - 1 : b->keys_extent;
    int rc = residency_sweep_begin(f->residency, last, err);
    if (rc != OT_OK) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    struct angles_job global = {0}, local = {1};
    forward_for_rows(f, n, angle_rows, &global);
    if (f->hp->window != 0) {
        forward_for_rows(f, n, angle_rows, &local);
    }
    attend_plan(f, false);
    if (f->hp->window != 0) {
        attend_plan(f, true);
    }
    post_activations(f);
    phase_end(f, phase, OT_PHASE_OTHER);
    if ((rc = embed(f, err)) == OT_OK && (rc = run_layers(f, err)) == OT_OK && f->n_wanted > 0) {
        rc = output(f, logits, err);
    }
    if (rc != OT_OK) {
        matmul_drop(f);
    } else { /* a file cut or written to meanwhile: what was computed does not count */
        rc = residency_sweep_check(f->residency, err);
    }
    residency_sweep_end(f->residency, rc != OT_OK);
    return rc;
}
