/* hparams.c - reading and checking hyperparameters. */
#include "model/hparams.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

enum {
    MAX_LAYERS = 1024,
    MAX_EMBD = 65536,
    MAX_FF = 1 << 20,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 512,
    MAX_EXPERTS = 1024,
    MAX_CTX = 1 << 26,
};

struct reader {
    const struct gguf *g;
    const char *path;
    const char *arch;
    struct ot_error *err;
    char key[128];
};

static const char *key_of(struct reader *r, const char *name) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, name);
    return r->key;
}

/* A number, or an array of layers' numbers that are all the same. */
static int get_u32(struct reader *r, const char *name, uint32_t fallback, uint32_t min,
                   uint32_t max, uint32_t *out) {
    const char *key = key_of(r, name);
    const struct gguf_kv *kv = gguf_find(r->g, key);
    if (kv == NULL || kv->type != GGUF_ARRAY) {
        return gguf_get_u32(r->g, r->path, key, fallback, min, max, out, r->err);
    }
    if (kv->item_type == GGUF_STRING || kv->item_type == GGUF_F32 || kv->item_type == GGUF_F64 ||
        kv->count == 0) {
        return error_set(
            r->err, OT_ERR_FORMAT, r->path,
            "key %s: %llu items that are no whole numbers, expected one for each layer", key,
            (unsigned long long)kv->count);
    }
    uint64_t first = gguf_item_u64(kv, 0);
    for (uint64_t i = 1; i < kv->count; i++) {
        if (gguf_item_u64(kv, i) != first) {
            return error_set(r->err, OT_ERR_UNSUPPORTED, r->path,
                             "key %s differs between layers, which this version does not run", key);
        }
    }
    if (first < min || first > max) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key %s: %llu is not in %u..%u", key,
                         (unsigned long long)first, min, max);
    }
    *out = (uint32_t)first;
    return OT_OK;
}

static int need_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out) {
    if (gguf_find(r->g, key_of(r, name)) == NULL) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key %s is missing", r->key);
    }
    return get_u32(r, name, 0, min, max, out);
}

static int get_f32(struct reader *r, const char *name, float fallback, float min, float max,
                   float *out) {
    return gguf_get_f32(r->g, r->path, key_of(r, name), fallback, min, max, out, r->err);
}

static int misfit(struct reader *r, const char *what, uint32_t a, uint32_t b) {
    return error_set(r->err, OT_ERR_FORMAT, r->path, "%s: %u and %u do not fit together", what, a,
                     b);
}

static int read_widths(struct reader *r, struct hparams *hp) {
    int rc;
    if ((rc = need_u32(r, "block_count", 1, MAX_LAYERS, &hp->n_layers)) != 0 ||
        (rc = need_u32(r, "embedding_length", 32, MAX_EMBD, &hp->n_embd)) != 0 ||
        (rc = get_u32(r, "context_length", 4096, 1, MAX_CTX, &hp->n_ctx_train)) != 0 ||
        (rc = need_u32(r, "attention.head_count", 1, MAX_HEADS, &hp->n_heads)) != 0 ||
        (rc = get_u32(r, "attention.head_count_kv", hp->n_heads, 1, MAX_HEADS, &hp->n_kv_heads)) !=
            0) {
        return rc;
    }
    if (hp->n_heads % hp->n_kv_heads != 0) {
        return misfit(r, "attention.head_count and attention.head_count_kv", hp->n_heads,
                      hp->n_kv_heads);
    }
    if (gguf_find(r->g, key_of(r, "attention.key_length")) == NULL &&
        hp->n_embd % hp->n_heads != 0) {
        return misfit(r, "embedding_length and attention.head_count", hp->n_embd, hp->n_heads);
    }
    uint32_t value_dim;
    if ((rc = get_u32(r, "attention.key_length", hp->n_embd / hp->n_heads, 2, MAX_HEAD_DIM,
                      &hp->head_dim)) != 0 ||
        (rc = get_u32(r, "attention.value_length", hp->head_dim, 2, MAX_HEAD_DIM, &value_dim)) !=
            0) {
        return rc;
    }
    if (hp->head_dim < 2 || hp->head_dim > MAX_HEAD_DIM) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "head size %u is not in 2..%u",
                         hp->head_dim, MAX_HEAD_DIM);
    }
    if (value_dim != hp->head_dim) {
        return misfit(r, "attention.key_length and attention.value_length", hp->head_dim,
                      value_dim);
    }
    if ((rc = get_u32(r, "rope.dimension_count", hp->head_dim, 2, MAX_HEAD_DIM, &hp->n_rot)) != 0) {
        return rc;
    }
    if (hp->n_rot > hp->head_dim || hp->n_rot % 2 != 0) {
        return misfit(r, "rope.dimension_count (even, at most the head size) and head size",
                      hp->n_rot, hp->head_dim);
    }
    return OT_OK;
}

static int read_ffn(struct reader *r, struct hparams *hp) {
    const struct family *f = hp->family;
    int rc;
    if ((rc = get_u32(r, "expert_count", 0, 0, MAX_EXPERTS, &hp->n_experts)) != 0 ||
        (rc = get_u32(r, "expert_used_count", 0, 0, MAX_EXPERTS, &hp->n_experts_used)) != 0) {
        return rc;
    }
    if (hp->n_experts == 0 && f->experts_needed) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key %s.expert_count is missing or 0",
                         r->arch);
    }
    if (hp->n_experts > 0 && !f->experts_allowed) {
        return error_set(r->err, OT_ERR_UNSUPPORTED, r->path,
                         "key %s.expert_count: family %s is not run with experts", r->arch,
                         r->arch);
    }
    if (hp->n_experts > 0 && (hp->n_experts_used == 0 || hp->n_experts_used > hp->n_experts)) {
        return misfit(r, "expert_used_count and expert_count", hp->n_experts_used, hp->n_experts);
    }
    if (hp->n_experts == 0 && hp->n_experts_used != 0) {
        return misfit(r, "expert_used_count and expert_count", hp->n_experts_used, 0);
    }
    if (hp->n_experts > 0 && f->own_expert_width) {
        return need_u32(r, "expert_feed_forward_length", 1, MAX_FF, &hp->n_ff_expert);
    }
    if ((rc = need_u32(r, "feed_forward_length", 1, MAX_FF, &hp->n_ff)) != 0) {
        return rc;
    }
    hp->n_ff_expert = hp->n_experts > 0 ? hp->n_ff : 0;
    return OT_OK;
}

static int read_rope(struct reader *r, struct hparams *hp) {
    const struct family *f = hp->family;
    struct gguf_string type;
    float old_factor;
    int rc;
    if ((rc = get_f32(r, "rope.freq_base", 10000.0f, 1.0f, 1e12f, &hp->rope_base)) != 0 ||
        (rc = get_f32(r, "rope.freq_base_swa",
                      f->local_rope_base != 0 ? f->local_rope_base : hp->rope_base, 1.0f, 1e12f,
                      &hp->rope_base_local)) != 0 ||
        (rc = gguf_get_string(r->g, r->path, key_of(r, "rope.scaling.type"), "", &type, r->err)) !=
            0 ||
        (rc = get_f32(r, "rope.scale_linear", 0.0f, 0.0f, 1e6f, &old_factor)) != 0 ||
        (rc = get_f32(r, "rope.scaling.factor", old_factor, 0.0f, 1e6f, &hp->rope_factor)) != 0 ||
        (rc = get_u32(r, "rope.scaling.original_context_length", hp->n_ctx_train, 1, MAX_CTX,
                      &hp->rope_orig_ctx)) != 0 ||
        (rc = get_f32(r, "rope.scaling.attn_factor", 1.0f, 1e-6f, 1e6f, &hp->rope_attn_factor)) !=
            0) {
        return rc;
    }
    if (hp->rope_factor == 0.0f) {
        hp->rope_factor = 1.0f;
    }
    static const struct {
        const char *name;
        enum rope_scaling scaling;
    } types[] = {{"", ROPE_LINEAR},   {"linear", ROPE_LINEAR},     {"none", ROPE_UNSCALED},
                 {"yarn", ROPE_YARN}, {"longrope", ROPE_LONGROPE}, {"su", ROPE_LONGROPE}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) == type.bytes &&
            (type.bytes == 0 || memcmp(types[i].name, type.data, type.bytes) == 0)) {
            hp->rope_scaling = types[i].scaling;
            if (hp->rope_scaling == ROPE_UNSCALED || hp->rope_scaling == ROPE_LONGROPE) {
                hp->rope_factor = 1.0f;
            }
            hp->local_rope_unscaled = f->local_rope_unscaled;
            return OT_OK;
        }
    }
    return error_set(
        r->err, OT_ERR_UNSUPPORTED, r->path,
        "key %s.rope.scaling.type: \"%.*s\" is not one of linear, yarn, longrope, none", r->arch,
        (int)min_u64(type.bytes, 40), type.data);
}

static int read_window(struct reader *r, struct hparams *hp) {
    const struct family *f = hp->family;
    if (f->window_every == 0) {
        return OT_OK;
    }
    int rc;
    if ((rc = get_u32(r, "attention.sliding_window", f->window_default, 0, MAX_CTX, &hp->window)) !=
        0) {
        return rc;
    }
    const char *key = key_of(r, "attention.sliding_window_pattern");
    const struct gguf_kv *kv = gguf_find(r->g, key);
    hp->window_every = f->window_every;
    if (kv != NULL && kv->type == GGUF_ARRAY) {
        return error_set(r->err, OT_ERR_UNSUPPORTED, r->path,
                         "key %s: a list of layers is not run, expected a number", key);
    }
    return get_u32(r, "attention.sliding_window_pattern", f->window_every, 1, MAX_LAYERS,
                   &hp->window_every);
}

int hparams_read(struct hparams *hp, const struct gguf *g, const char *path, uint32_t n_vocab,
                 struct ot_error *err) {
    memset(hp, 0, sizeof *hp);
    struct gguf_string name;
    int rc = gguf_get_string(g, path, "general.architecture", "", &name, err);
    if (rc != 0) {
        return rc;
    }
    if (name.bytes == 0) {
        return error_set(err, OT_ERR_FORMAT, path, "key general.architecture is missing");
    }
    hp->family = family_find(name.data, name.bytes);
    if (hp->family == NULL) {
        return error_set(err, OT_ERR_UNSUPPORTED, path,
                         "architecture \"%.*s\" is not one that onetrip runs: %s",
                         (int)min_u64(name.bytes, 60), name.data, family_known());
    }
    const struct family *f = hp->family;
    struct reader r = {.g = g, .path = path, .arch = f->name, .err = err};
    hp->n_vocab = n_vocab;
    if ((rc = read_widths(&r, hp)) != 0 || (rc = read_ffn(&r, hp)) != 0 ||
        (rc = read_rope(&r, hp)) != 0 || (rc = read_window(&r, hp)) != 0) {
        return rc;
    }
    if (gguf_find(g, key_of(&r, "attention.layer_norm_rms_epsilon")) == NULL) {
        return error_set(err, OT_ERR_FORMAT, path, "key %s is missing", r.key);
    }
    if ((rc = get_f32(&r, "attention.layer_norm_rms_epsilon", 0.0f, 1e-12f, 0.1f, &hp->norm_eps)) !=
            0 ||
        (rc = get_f32(&r, "attn_logit_softcapping", f->attn_softcap_default, 0.0f, 1e6f,
                      &hp->attn_softcap)) != 0 ||
        (rc = get_f32(&r, "final_logit_softcapping", f->final_softcap_default, 0.0f, 1e6f,
                      &hp->final_softcap)) != 0 ||
        (rc = get_f32(&r, "attention.scale", 0.0f, 0.0f, 1e6f, &hp->attn_scale)) != 0) {
        return rc;
    }
    if (hp->attn_scale == 0.0f) {
        float width = f->big_layers != 0 && hp->n_layers == f->big_layers
                          ? (float)(hp->n_embd / hp->n_heads)
                          : (float)hp->head_dim;
        hp->attn_scale = 1.0f / sqrtf(width);
    }
    return OT_OK;
}

bool hparams_layer_local(const struct hparams *hp, uint32_t layer) {
    return hp->window != 0 && (layer + 1) % hp->window_every != 0;
}
