/* tiny_model.c - families' keys and tensors, at sizes for tests. */
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "support/tiny_vocab.h"

static const struct {
    const char *name, *architecture;
    bool spm, tied;
} families[TINY_FAMILY_COUNT] = {
    [TINY_LLAMA] = {"llama", "llama", false, false},
    [TINY_LLAMA3] = {"llama3", "llama", false, true},
    [TINY_MIXTRAL] = {"mixtral", "llama", true, false},
    [TINY_QWEN2] = {"qwen2", "qwen2", false, true},
    [TINY_QWEN3] = {"qwen3", "qwen3", false, true},
    [TINY_QWEN3MOE] = {"qwen3moe", "qwen3moe", false, false},
    [TINY_GEMMA2] = {"gemma2", "gemma2", true, true},
    [TINY_GEMMA3] = {"gemma3", "gemma3", true, true},
    [TINY_PHI3] = {"phi3", "phi3", true, false},
};

const char *tiny_family_name(enum tiny_family family) {
    return families[family].name;
}
const char *tiny_architecture(enum tiny_family family) {
    return families[family].architecture;
}

void tiny_model_defaults(struct tiny_model *options, enum tiny_family family, uint32_t dtype,
                         uint64_t seed) {
    bool wide = dtype_get(dtype)->block_values > 64;
    bool gemma = family == TINY_GEMMA2 || family == TINY_GEMMA3;
    *options = (struct tiny_model){
        .family = family,
        .dtype = dtype,
        .embd_dtype = dtype,
        .output_dtype = dtype,
        .seed = seed,
        .spm = families[family].spm,
        .tied = families[family].tied,
        .n_layers = family == TINY_GEMMA2   ? 3
                    : family == TINY_GEMMA3 ? 7
                                            : 2,
        .n_embd = wide ? 256 : 64,
        .n_ff = wide ? 256 : 128,
        .n_heads = wide ? 8 : 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .n_ctx = 512,
        .window = gemma ? 16 : 0,
        .rope_base = family == TINY_LLAMA3 ? 500000.0f : 10000.0f,
        .n_files = 1,
    };
    if (family == TINY_PHI3) { /* its head size is width / heads, no key tells it */
        options->n_heads = options->n_embd / options->head_dim;
    }
    if (family == TINY_MIXTRAL || family == TINY_QWEN3MOE) {
        options->n_experts = family == TINY_MIXTRAL ? 4 : 8;
        options->n_experts_used = 2;
        options->n_ff = wide ? 256 : 64;
    }
}

/* ---- keys --------------------------------------------------------------------------------- */

struct builder {
    const struct tiny_model *o;
    struct image *image;
    const char *arch;
    uint32_t n_vocab;
};

static void set_u32(struct builder *b, const char *name, uint32_t value) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", b->arch, name);
    image_set_u32(b->image, key, value);
}

static void set_f32(struct builder *b, const char *name, float value) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", b->arch, name);
    image_set_f32(b->image, key, value);
}

static uint32_t file_type(uint32_t dtype) {
    static const uint8_t types[OT_DTYPE_MAX] = {
        [OT_F32] = 0,     [OT_F16] = 1,     [OT_Q4_0] = 2,  [OT_Q4_1] = 3,
        [OT_Q8_0] = 7,    [OT_Q5_0] = 8,    [OT_Q5_1] = 9,  [OT_Q2_K] = 10,
        [OT_Q3_K] = 12,   [OT_Q4_K] = 15,   [OT_Q5_K] = 17, [OT_Q6_K] = 18,
        [OT_IQ4_NL] = 25, [OT_IQ4_XS] = 30, [OT_BF16] = 32, [OT_MXFP4] = 38,
    };
    return types[dtype];
}

static void add_keys(struct builder *b) {
    const struct tiny_model *o = b->o;
    char name[64];
    snprintf(name, sizeof name, "tiny %s", tiny_family_name(o->family));
    image_set_text(b->image, "general.architecture", b->arch);
    image_set_text(b->image, "general.name", name);
    set_u32(b, "context_length", o->n_ctx);
    set_u32(b, "embedding_length", o->n_embd);
    set_u32(b, "block_count", o->n_layers);
    set_u32(b, "feed_forward_length", o->n_ff);
    set_u32(b, "attention.head_count", o->n_heads);
    set_u32(b, "attention.head_count_kv", o->n_kv_heads);
    if (o->family != TINY_PHI3) {
        set_u32(b, "attention.key_length", o->head_dim);
        set_u32(b, "attention.value_length", o->head_dim);
    }
    set_u32(b, "rope.dimension_count", o->head_dim);
    set_f32(b, "rope.freq_base", o->rope_base);
    set_f32(b, "attention.layer_norm_rms_epsilon", 1e-5f);
    image_set_u32(b->image, "general.file_type", file_type(o->dtype));
    if (o->window != 0) {
        set_u32(b, "attention.sliding_window", o->window);
    }
    if (o->family == TINY_GEMMA2) {
        set_f32(b, "attn_logit_softcapping", 50.0f);
        set_f32(b, "final_logit_softcapping", 30.0f);
    }
    if (o->n_experts != 0) {
        set_u32(b, "expert_count", o->n_experts);
        set_u32(b, "expert_used_count", o->n_experts_used);
        if (o->family == TINY_QWEN3MOE) {
            set_u32(b, "expert_feed_forward_length", o->n_ff);
        }
    }
    if (o->family == TINY_PHI3) {
        set_u32(b, "rope.scaling.original_context_length", o->long_rope ? o->n_ctx / 4 : o->n_ctx);
        if (o->long_rope) {
            set_f32(b, "rope.scaling.attn_factor",
                    sqrtf(1.0f + logf(4.0f) / logf((float)o->n_ctx / 4.0f)));
        }
    }
    b->n_vocab = tiny_vocab_add(b->image, o->spm, o->n_vocab);
    set_u32(b, "vocab_size", b->n_vocab);
}

/* ---- tensors ------------------------------------------------------------------------------ */

/* Each tensor has its own stream of numbers, so that it does not depend on the others. */
static uint64_t seed_of(const struct builder *b, const char *name) {
    uint64_t hash = 0xcbf29ce484222325u ^ b->o->seed;
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    }
    return hash;
}

/* 1 for a norm, 0 for a bias; with a little noise, so that a mistaken order shows. */
static void add_vector(struct builder *b, const char *name, uint32_t n, float mean, float noise) {
    struct image_bytes data = tiny_weights(OT_F32, n, noise, seed_of(b, name));
    for (uint32_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, data.data + 4 * i, sizeof value);
        value += mean;
        memcpy(data.data + 4 * i, &value, sizeof value);
    }
    image_add_tensor(b->image, name, OT_F32, 1, (const uint64_t[]){n}, data);
}

static void add_matrix(struct builder *b, const char *name, uint32_t dtype, uint32_t cols,
                       uint32_t rows, uint32_t experts, float gain) {
    uint64_t n_values = (uint64_t)cols * rows * (experts != 0 ? experts : 1);
    struct image_bytes data =
        tiny_weights(dtype, n_values, gain / sqrtf((float)cols), seed_of(b, name));
    image_add_tensor(b->image, name, dtype, experts != 0 ? 3 : 2,
                     (const uint64_t[]){cols, rows, experts}, data);
}

/* "blk.3.attn_q.weight"; returns name. */
static const char *layer_name(char name[64], uint32_t layer, const char *rest) {
    snprintf(name, 64, "blk.%u.%s", layer, rest);
    return name;
}

static void add_attention(struct builder *b, uint32_t layer) {
    const struct tiny_model *o = b->o;
    uint32_t q_rows = o->n_heads * o->head_dim, kv_rows = o->n_kv_heads * o->head_dim;
    char name[64];
    if (o->family == TINY_PHI3) {
        add_matrix(b, layer_name(name, layer, "attn_qkv.weight"), o->dtype, o->n_embd,
                   q_rows + 2 * kv_rows, 0, 1.0f);
    } else {
        static const char *const weights[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
        static const char *const biases[] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
        for (int i = 0; i < 3; i++) {
            uint32_t rows = i == 0 ? q_rows : kv_rows;
            add_matrix(b, layer_name(name, layer, weights[i]), o->dtype, o->n_embd, rows, 0, 1.0f);
            if (o->family == TINY_QWEN2) {
                add_vector(b, layer_name(name, layer, biases[i]), rows, 0.0f, 0.1f);
            }
        }
    }
    add_matrix(b, layer_name(name, layer, "attn_output.weight"), o->dtype, q_rows, o->n_embd, 0,
               1.0f);
    if (o->family == TINY_QWEN3 || o->family == TINY_QWEN3MOE || o->family == TINY_GEMMA3) {
        add_vector(b, layer_name(name, layer, "attn_q_norm.weight"), o->head_dim, 1.0f, 0.1f);
        add_vector(b, layer_name(name, layer, "attn_k_norm.weight"), o->head_dim, 1.0f, 0.1f);
    }
}

static void add_feed_forward(struct builder *b, uint32_t layer) {
    const struct tiny_model *o = b->o;
    char name[64];
    if (o->n_experts != 0) {
        add_matrix(b, layer_name(name, layer, "ffn_gate_inp.weight"), OT_F32, o->n_embd,
                   o->n_experts, 0, 4.0f);
        add_matrix(b, layer_name(name, layer, "ffn_gate_exps.weight"), o->dtype, o->n_embd, o->n_ff,
                   o->n_experts, 1.0f);
        add_matrix(b, layer_name(name, layer, "ffn_up_exps.weight"), o->dtype, o->n_embd, o->n_ff,
                   o->n_experts, 1.0f);
        add_matrix(b, layer_name(name, layer, "ffn_down_exps.weight"), o->dtype, o->n_ff, o->n_embd,
                   o->n_experts, 1.0f);
        return;
    }
    if (o->family == TINY_PHI3) {
        add_matrix(b, layer_name(name, layer, "ffn_up.weight"), o->dtype, o->n_embd, 2 * o->n_ff, 0,
                   1.0f);
    } else {
        add_matrix(b, layer_name(name, layer, "ffn_gate.weight"), o->dtype, o->n_embd, o->n_ff, 0,
                   1.0f);
        add_matrix(b, layer_name(name, layer, "ffn_up.weight"), o->dtype, o->n_embd, o->n_ff, 0,
                   1.0f);
    }
    add_matrix(b, layer_name(name, layer, "ffn_down.weight"), o->dtype, o->n_ff, o->n_embd, 0,
               1.0f);
    static const char *const biases[] = {"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"};
    for (uint32_t i = 0; i < 3; i++) {
        if (o->ffn_biases & 1u << i) {
            add_vector(b, layer_name(name, layer, biases[i]), i < 2 ? o->n_ff : o->n_embd, 0.0f,
                       1.0f);
        }
    }
}

/* Factors that divide the rope's frequencies: 1 for the fast ones, more for the slow ones. */
static void add_rope_factors(struct builder *b, const char *name, float most) {
    uint32_t n = b->o->head_dim / 2;
    struct image_bytes data = {0};
    for (uint32_t i = 0; i < n; i++) {
        image_put_f32(&data, i < n / 2 ? 1.0f : most);
    }
    image_add_tensor(b->image, name, OT_F32, 1, (const uint64_t[]){n}, data);
}

static void add_tensors(struct builder *b) {
    const struct tiny_model *o = b->o;
    char name[64];
    add_matrix(b, "token_embd.weight", o->embd_dtype, o->n_embd, b->n_vocab, 0, 1.0f);
    add_vector(b, "output_norm.weight", o->n_embd, 1.0f, 0.1f);
    if (!o->tied) {
        add_matrix(b, "output.weight", o->output_dtype, o->n_embd, b->n_vocab, 0, 1.0f);
    }
    if (o->family == TINY_LLAMA3) {
        add_rope_factors(b, "rope_freqs.weight", 8.0f);
    }
    if (o->long_rope) {
        add_rope_factors(b, "rope_factors_long.weight", 4.0f);
        add_rope_factors(b, "rope_factors_short.weight", 1.1f);
    }
    for (uint32_t i = 0; i < o->n_layers; i++) {
        add_vector(b, layer_name(name, i, "attn_norm.weight"), o->n_embd, 1.0f, 0.1f);
        add_vector(b, layer_name(name, i, "ffn_norm.weight"), o->n_embd, 1.0f, 0.1f);
        add_attention(b, i);
        if (o->family == TINY_GEMMA2 || o->family == TINY_GEMMA3) {
            add_vector(b, layer_name(name, i, "post_attention_norm.weight"), o->n_embd, 1.0f, 0.1f);
            add_vector(b, layer_name(name, i, "post_ffw_norm.weight"), o->n_embd, 1.0f, 0.1f);
        }
        add_feed_forward(b, i);
    }
}

void tiny_model_image(const struct tiny_model *options, struct image *image) {
    image_init(image);
    struct builder b = {.o = options, .image = image, .arch = tiny_architecture(options->family)};
    add_keys(&b);
    add_tensors(&b);
}

void tiny_model_write(const struct tiny_model *options, const char *path) {
    struct image image;
    tiny_model_image(options, &image);
    if (options->n_files > 1) {
        image_write_split(&image, path, options->n_files);
    } else {
        image_write(&image, path);
    }
    image_deinit(&image);
}
