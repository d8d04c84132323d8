/* family.h - model families as rows of one table. The forward pass reads a row, it never asks for a
 * name. docs/adding-a-family.md tells how to add one. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

enum family_activation { FAMILY_SILU, FAMILY_GELU };

struct family {
    const char *name;      /* general.architecture */
    bool rope_neox;        /* rotates pairs (i, i + n/2); else (2i, 2i + 1) */
    bool scale_embedding;  /* token embeddings times sqrt(n_embd) */
    bool qk_norm;          /* needs attn_q_norm and attn_k_norm */
    bool post_norm;        /* needs norms after attention and after the FFN */
    bool fused_gate_up;    /* ffn_up holds gate and up, one after the other */
    bool experts_allowed;  /* expert_count may be above 0 */
    bool experts_needed;   /* expert_count must be above 0 */
    bool own_expert_width; /* expert_feed_forward_length gives the experts' width */
    bool rope_factors;     /* rope_freqs or rope_factors_long/short may be there */
    enum family_activation activation;
    uint32_t window_default; /* sliding window where the file names none; 0: none */
    uint32_t window_every; /* every n-th layer is global, the others see a window; 0: no windows */
    float local_rope_base; /* rope base of windowed layers; 0: the same as global ones */
    bool local_rope_unscaled;                          /* windowed layers take no rope scaling */
    float attn_softcap_default, final_softcap_default; /* 0: off */
    uint32_t big_layers; /* a model of this many layers scales scores by sqrt(n_embd/n_heads) */
};

/* NULL where the name is unknown. */
const struct family *family_find(const char *name, uint64_t name_bytes);
/* "llama, qwen2, ..." for messages. */
const char *family_known(void);

#endif
