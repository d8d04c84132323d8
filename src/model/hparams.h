/* hparams.h - the numbers that shape a model, read from a file's keys and checked together. */
#ifndef MODEL_HPARAMS_H
#define MODEL_HPARAMS_H

#include "format/gguf.h"
#include "model/family.h"
#include "onetrip.h"

enum rope_scaling { ROPE_UNSCALED, ROPE_LINEAR, ROPE_YARN, ROPE_LONGROPE };

struct hparams {
    const struct family *family;
    uint32_t n_vocab, n_layers, n_ctx_train;
    uint32_t n_embd, n_ff;                           /* n_ff: width of the dense FFN */
    uint32_t n_heads, n_kv_heads, head_dim;          /* n_heads is a multiple of n_kv_heads */
    uint32_t n_rot;                                  /* even, <= head_dim */
    uint32_t n_experts, n_experts_used, n_ff_expert; /* 0 for a dense model */
    float norm_eps;
    float attn_scale;                  /* scores = attn_scale * q.k */
    float attn_softcap, final_softcap; /* 0: off */
    uint32_t window; /* sliding window of local layers; 0: every layer is global */
    uint32_t window_every;
    float rope_base, rope_base_local;
    enum rope_scaling rope_scaling;
    float rope_factor; /* context stretched by this; 1: not */
    uint32_t rope_orig_ctx;
    float rope_attn_factor; /* multiplies cos and sin */
    bool local_rope_unscaled;
};

/* Reads "ARCH.*" keys. n_vocab is what the tokenizer has. Errors: FORMAT, UNSUPPORTED. */
int hparams_read(struct hparams *hp, const struct gguf *g, const char *path, uint32_t n_vocab,
                 struct ot_error *err);
/* Layer i sees only the window. */
bool hparams_layer_local(const struct hparams *hp, uint32_t layer);

#endif
