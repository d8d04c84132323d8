/* bind.c - binding tensors to roles by name, with the shape that the hyperparameters demand. */
#include "model/bind.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/error.h"

enum presence { OPTIONAL, NEEDED };

struct binder {
    struct bind *b;
    const struct hparams *hp;
    const struct bind_source *source;
    struct ot_error *err;
    int32_t layer; /* -1 outside layers */
};

static int wrong_shape(struct binder *k, const char *name, const struct gguf_tensor *t,
                       const uint64_t want[3]) {
    return error_set(k->err, OT_ERR_FORMAT, k->source->path,
                     "tensor %s has shape [%llu, %llu, %llu], expected [%llu, %llu, %llu]", name,
                     (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                     (unsigned long long)t->dims[2], (unsigned long long)want[0],
                     (unsigned long long)want[1], (unsigned long long)want[2]);
}

static void add_extent(struct binder *k, struct weight *w, int64_t index, const char *role,
                       enum residency_contract contract) {
    struct bind *b = k->b;
    const struct gguf_tensor *t = &k->source->tensors[index];
    w->extent = b->n_extents;
    b->extent_tensor[b->n_extents] = (uint32_t)index;
    b->extent_role[b->n_extents] = role;
    b->extent_layer[b->n_extents] = k->layer;
    b->extents[b->n_extents++] = (struct residency_extent){
        .file = t->file,
        .offset = t->offset,
        .row_bytes = w->row_bytes,
        .n_rows = w->n_rows,
        .n_parts = w->n_parts,
        .contract = contract,
    };
}

/* Binds a tensor of shape [n_cols, n_rows, n_parts] (file order: fastest first). */
static int bind_tensor(struct binder *k, struct weight *w, const char *name, const char *role,
                       uint32_t n_parts, uint32_t n_rows, uint32_t n_cols, enum presence presence,
                       enum residency_contract contract) {
    int64_t index = k->source->find(k->source->user, name);
    if (index < 0) {
        if (presence == OPTIONAL) {
            return OT_OK;
        }
        return error_set(k->err, OT_ERR_FORMAT, k->source->path,
                         "tensor %s is missing (family %s needs it)", name, k->hp->family->name);
    }
    const struct gguf_tensor *t = &k->source->tensors[index];
    const uint64_t want[3] = {n_cols, n_rows, n_parts};
    if (t->dims[0] != want[0] || t->dims[1] != want[1] || t->dims[2] != want[2] ||
        t->dims[3] != 1) {
        return wrong_shape(k, name, t, want);
    }
    if (n_cols % dtype_get(t->dtype)->block_values != 0) {
        return error_set(k->err, OT_ERR_FORMAT, k->source->path,
                         "tensor %s: rows of %u values are not whole blocks of %s", name, n_cols,
                         ot_dtype_name(t->dtype));
    }
    *w = (struct weight){
        .present = true,
        .dtype = t->dtype,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_parts = n_parts,
        .row_bytes = dtype_bytes(t->dtype, n_cols),
    };
    add_extent(k, w, index, role, contract);
    return OT_OK;
}

static int bind_vector(struct binder *k, struct weight *w, const char *name, const char *role,
                       uint32_t n, enum presence presence, enum residency_contract contract) {
    int rc = bind_tensor(k, w, name, role, 1, 1, n, presence, contract);
    if (rc == OT_OK && w->present && w->dtype != OT_F32 && w->dtype != OT_F16 &&
        w->dtype != OT_BF16) {
        return error_set(k->err, OT_ERR_UNSUPPORTED, k->source->path,
                         "tensor %s has type %s, expected F32, F16 or BF16", name,
                         ot_dtype_name(w->dtype));
    }
    return rc;
}

static const char *layer_name(char buf[96], int32_t layer, const char *suffix) {
    snprintf(buf, 96, "blk.%d.%s", layer, suffix);
    return buf;
}

static int layer_matrix(struct binder *k, enum layer_role role, const char *suffix,
                        uint32_t n_parts, uint32_t n_rows, uint32_t n_cols,
                        enum presence presence) {
    char name[96];
    return bind_tensor(k, &k->b->layers[k->layer][role], layer_name(name, k->layer, suffix), suffix,
                       n_parts, n_rows, n_cols, presence,
                       n_parts > 1 ? RESIDENCY_EXPERT : RESIDENCY_SWEEP);
}

static int layer_vector(struct binder *k, enum layer_role role, const char *suffix, uint32_t n,
                        enum presence presence) {
    char name[96];
    return bind_vector(k, &k->b->layers[k->layer][role], layer_name(name, k->layer, suffix), suffix,
                       n, presence, RESIDENCY_SWEEP);
}

static int bind_attention(struct binder *k) {
    const struct hparams *hp = k->hp;
    const struct family *f = hp->family;
    uint32_t q = hp->n_heads * hp->head_dim, kv = hp->n_kv_heads * hp->head_dim, d = hp->n_embd;
    enum presence qk_norm = f->qk_norm ? NEEDED : OPTIONAL;
    enum presence post = f->post_norm ? NEEDED : OPTIONAL;
    struct weight *layer = k->b->layers[k->layer];
    char name[96];
    bool apart = k->source->find(k->source->user, layer_name(name, k->layer, "attn_q.weight")) >= 0;
    enum presence fused = f->fused_gate_up && !apart ? NEEDED : OPTIONAL;
    int rc;
    if ((rc = layer_vector(k, ROLE_ATTN_NORM, "attn_norm.weight", d, NEEDED)) != 0 ||
        (rc = layer_matrix(k, ROLE_ATTN_QKV, "attn_qkv.weight", 1, q + 2 * kv, d, fused)) != 0) {
        return rc;
    }
    if (layer[ROLE_ATTN_QKV].present) {
        rc = layer_vector(k, ROLE_ATTN_QKV_BIAS, "attn_qkv.bias", q + 2 * kv, OPTIONAL);
    } else if ((rc = layer_matrix(k, ROLE_ATTN_K, "attn_k.weight", 1, kv, d, NEEDED)) == 0 &&
               (rc = layer_matrix(k, ROLE_ATTN_V, "attn_v.weight", 1, kv, d, NEEDED)) == 0 &&
               (rc = layer_vector(k, ROLE_ATTN_K_BIAS, "attn_k.bias", kv, OPTIONAL)) == 0) {
        rc = layer_vector(k, ROLE_ATTN_V_BIAS, "attn_v.bias", kv, OPTIONAL);
    }
    if (rc != 0 || (rc = layer_vector(k, ROLE_ATTN_K_NORM, "attn_k_norm.weight", hp->head_dim,
                                      qk_norm)) != 0) {
        return rc;
    }
    k->b->keys_extent = k->b->n_extents - 1;
    if (!layer[ROLE_ATTN_QKV].present &&
        ((rc = layer_matrix(k, ROLE_ATTN_Q, "attn_q.weight", 1, q, d, NEEDED)) != 0 ||
         (rc = layer_vector(k, ROLE_ATTN_Q_BIAS, "attn_q.bias", q, OPTIONAL)) != 0)) {
        return rc;
    }
    if ((rc = layer_vector(k, ROLE_ATTN_Q_NORM, "attn_q_norm.weight", hp->head_dim, qk_norm)) !=
            0 ||
        (rc = layer_matrix(k, ROLE_ATTN_OUT, "attn_output.weight", 1, d, q, NEEDED)) != 0 ||
        (rc = layer_vector(k, ROLE_ATTN_OUT_BIAS, "attn_output.bias", d, OPTIONAL)) != 0) {
        return rc;
    }
    return layer_vector(k, ROLE_ATTN_POST_NORM, "post_attention_norm.weight", d, post);
}

static int bind_ffn(struct binder *k) {
    const struct hparams *hp = k->hp;
    uint32_t d = hp->n_embd, ff = hp->n_ff, E = hp->n_experts, ffe = hp->n_ff_expert;
    int rc = layer_vector(k, ROLE_FFN_NORM, "ffn_norm.weight", d, NEEDED);
    if (rc != 0) {
        return rc;
    }
    if (E > 0) {
        /* one expert is legal and is not a RESIDENCY_EXPERT: it is read every sweep */
        if ((rc = layer_matrix(k, ROLE_FFN_ROUTER, "ffn_gate_inp.weight", 1, E, d, NEEDED)) != 0 ||
            (rc = layer_matrix(k, ROLE_FFN_GATE, "ffn_gate_exps.weight", E, ffe, d, NEEDED)) != 0 ||
            (rc = layer_matrix(k, ROLE_FFN_UP, "ffn_up_exps.weight", E, ffe, d, NEEDED)) != 0) {
            return rc;
        }
        rc = layer_matrix(k, ROLE_FFN_DOWN, "ffn_down_exps.weight", E, d, ffe, NEEDED);
    } else if (hp->family->fused_gate_up) {
        if ((rc = layer_matrix(k, ROLE_FFN_UP, "ffn_up.weight", 1, 2 * ff, d, NEEDED)) == 0) {
            rc = layer_matrix(k, ROLE_FFN_DOWN, "ffn_down.weight", 1, d, ff, NEEDED);
        }
    } else if ((rc = layer_matrix(k, ROLE_FFN_GATE, "ffn_gate.weight", 1, ff, d, NEEDED)) == 0 &&
               (rc = layer_matrix(k, ROLE_FFN_UP, "ffn_up.weight", 1, ff, d, NEEDED)) == 0 &&
               (rc = layer_vector(k, ROLE_FFN_GATE_BIAS, "ffn_gate.bias", ff, OPTIONAL)) == 0 &&
               (rc = layer_vector(k, ROLE_FFN_UP_BIAS, "ffn_up.bias", ff, OPTIONAL)) == 0 &&
               (rc = layer_matrix(k, ROLE_FFN_DOWN, "ffn_down.weight", 1, d, ff, NEEDED)) == 0) {
        rc = layer_vector(k, ROLE_FFN_DOWN_BIAS, "ffn_down.bias", d, OPTIONAL);
    }
    if (rc != 0) {
        return rc;
    }
    return layer_vector(k, ROLE_FFN_POST_NORM, "post_ffw_norm.weight", d,
                        hp->family->post_norm ? NEEDED : OPTIONAL);
}

/* Read once, when a context opens: rows of their own, not part of a sweep. */
static int bind_rope_factors(struct binder *k) {
    struct bind *b = k->b;
    struct weight *const weights[] = {&b->rope_freqs, &b->rope_long, &b->rope_short};
    static const char *const names[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                        "rope_factors_short.weight"};
    for (uint32_t i = 0; i < 3 && k->hp->family->rope_factors; i++) {
        int rc = bind_vector(k, weights[i], names[i], "rope factors", k->hp->n_rot / 2, OPTIONAL,
                             RESIDENCY_ROWS);
        if (rc != OT_OK) {
            return rc;
        }
    }
    return OT_OK;
}

static int bind_output(struct binder *k) {
    struct bind *b = k->b;
    const struct hparams *hp = k->hp;
    int rc = bind_vector(k, &b->output_norm, "output_norm.weight", "output_norm", hp->n_embd,
                         NEEDED, RESIDENCY_SWEEP);
    if (rc != 0) {
        return rc;
    }
    rc = bind_tensor(k, &b->output, "output.weight", "output", 1, hp->n_vocab, hp->n_embd, OPTIONAL,
                     RESIDENCY_SWEEP);
    if (rc == 0 && !b->output.present) {
        /* tied: the embedding is the last extent of the schedule, its rows are read singly too */
        rc = bind_tensor(k, &b->output, "token_embd.weight", "token_embd, output", 1, hp->n_vocab,
                         hp->n_embd, NEEDED, RESIDENCY_SWEEP);
        if (rc == 0) {
            b->extents[b->output.extent].also_rows = true;
            b->token_embd = b->output;
        }
    }
    return rc;
}

/* The schedule: embedding rows, layers in order, output. */
static int bind_all(struct binder *k) {
    struct bind *b = k->b;
    const struct hparams *hp = k->hp;
    k->layer = -1;
    int rc = OT_OK;
    if (k->source->find(k->source->user, "output.weight") >= 0) {
        rc = bind_tensor(k, &b->token_embd, "token_embd.weight", "token_embd", 1, hp->n_vocab,
                         hp->n_embd, NEEDED, RESIDENCY_ROWS);
    }
    if (rc != 0 || (rc = bind_rope_factors(k)) != 0) {
        return rc;
    }
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        k->layer = (int32_t)i;
        if ((rc = bind_attention(k)) != 0 || (rc = bind_ffn(k)) != 0) {
            return rc;
        }
    }
    k->layer = -1;
    return bind_output(k);
}

/* A tensor that only some layers have was lost in the others. */
static int check_layers_alike(struct binder *k) {
    const struct bind *b = k->b;
    for (uint32_t role = 0; role < LAYER_ROLES; role++) {
        uint32_t with = 0, without = 0;
        for (uint32_t i = 0; i < k->hp->n_layers; i++) {
            *(b->layers[i][role].present ? &with : &without) = i + 1;
        }
        if (with != 0 && without != 0) {
            const char *suffix = b->extent_role[b->layers[with - 1][role].extent];
            return error_set(k->err, OT_ERR_FORMAT, k->source->path,
                             "tensor blk.%u.%s is missing, expected in every layer as in layer %u",
                             without - 1, suffix, with - 1);
        }
    }
    return OT_OK;
}

static bool has_prefix(struct gguf_string name, const char *prefix) {
    uint64_t bytes = strlen(prefix);
    return name.bytes >= bytes && memcmp(name.data, prefix, bytes) == 0;
}

/* Names of the text model; others (a vision tower's) may be in the file and do no harm. Old files
 * hold the rope's frequencies for each layer: they are what the keys say. */
static bool must_be_used(struct gguf_string name) {
    static const char *const prefixes[] = {"blk.", "output", "token_", "rope_"};
    if (memmem(name.data, name.bytes, "rot_embd", 8) != NULL ||
        memmem(name.data, name.bytes, "rotary_emb", 10) != NULL) {
        return false;
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (has_prefix(name, prefixes[i])) {
            return true;
        }
    }
    return false;
}

/* A tensor that nothing reads means that the file is of another model: one with more layers, with
 * biases that this family does not have, or with a name written wrong. Its text would be wrong. */
static int check_all_used(struct binder *k) {
    const struct bind_source *source = k->source;
    bool *used = mem_calloc(source->n_tensors, sizeof *used);
    if (used == NULL) {
        return error_memory(k->err, source->n_tensors);
    }
    for (uint32_t i = 0; i < k->b->n_extents; i++) {
        used[k->b->extent_tensor[i]] = true;
    }
    int rc = OT_OK;
    for (uint32_t i = 0; rc == OT_OK && i < source->n_tensors; i++) {
        if (!used[i] && must_be_used(source->tensors[i].name)) {
            char name[96];
            rc = error_set(k->err, OT_ERR_FORMAT, source->path,
                           "tensor %s: family %s with %u layers has no such tensor",
                           gguf_quote(name, source->tensors[i].name), k->hp->family->name,
                           k->hp->n_layers);
        }
    }
    mem_free(used);
    return rc;
}

uint64_t bind_extent_step_bytes(const struct hparams *hp, const struct residency_extent *e) {
    switch (e->contract) {
    case RESIDENCY_ROWS: return e->n_rows > 1 ? e->row_bytes : 0; /* one row: rope factors */
    case RESIDENCY_EXPERT: return e->row_bytes * e->n_rows * hp->n_experts_used;
    case RESIDENCY_SWEEP: break;
    }
    return e->row_bytes * e->n_rows;
}

int bind_model(struct bind *out, const struct hparams *hp, const struct bind_source *source,
               struct ot_error *err) {
    struct bind b = {0};
    uint32_t capacity = hp->n_layers * LAYER_ROLES + 8;
    b.layers = mem_calloc(hp->n_layers, sizeof *b.layers);
    b.extents = mem_calloc(capacity, sizeof *b.extents);
    b.extent_tensor = mem_calloc(capacity, sizeof *b.extent_tensor);
    b.extent_role = mem_calloc(capacity, sizeof *b.extent_role);
    b.extent_layer = mem_calloc(capacity, sizeof *b.extent_layer);
    if (b.layers == NULL || b.extents == NULL || b.extent_tensor == NULL || b.extent_role == NULL ||
        b.extent_layer == NULL) {
        bind_deinit(&b);
        return error_memory(err, capacity * sizeof *b.extents);
    }
    struct binder k = {.b = &b, .hp = hp, .source = source, .err = err};
    int rc = bind_all(&k);
    if (rc != OT_OK || (rc = check_layers_alike(&k)) != OT_OK ||
        (rc = check_all_used(&k)) != OT_OK) {
        bind_deinit(&b);
        return rc;
    }
    for (uint32_t i = 0; i < b.n_extents; i++) {
        b.sweep_bytes += bind_extent_step_bytes(hp, &b.extents[i]);
    }
    *out = b;
    return OT_OK;
}

void bind_deinit(struct bind *b) {
    mem_free(b->layers);
    mem_free(b->extents);
    mem_free(b->extent_tensor);
    mem_free(b->extent_role);
    mem_free(b->extent_layer);
    memset(b, 0, sizeof *b);
}
