/* family.c - the table of families. Facts are those of the models' publications, in the form in
 * which GGUF files carry them. */
#include "model/family.h"

#include <string.h>

static const struct family table[] = {
    {
        .name = "llama", /* Llama 2/3, Mistral, Mixtral, SmolLM, TinyLlama */
        .experts_allowed = true,
        .rope_factors = true,
    },
    {
        .name = "qwen2", /* Qwen 2, Qwen 2.5 */
        .rope_neox = true,
    },
    {
        .name = "qwen3", /* Qwen 3 */
        .rope_neox = true,
        .qk_norm = true,
    },
    {
        .name = "qwen3moe", /* Qwen 3 with experts */
        .rope_neox = true,
        .qk_norm = true,
        .experts_allowed = true,
        .experts_needed = true,
        .own_expert_width = true,
    },
    {
        .name = "gemma2", /* Gemma 2 */
        .rope_neox = true,
        .scale_embedding = true,
        .post_norm = true,
        .activation = FAMILY_GELU,
        .window_default = 4096,
        .window_every = 2,
        .attn_softcap_default = 50.0f,
        .final_softcap_default = 30.0f,
        .big_layers = 46,
    },
    {
        .name = "gemma3", /* Gemma 3 (text) */
        .rope_neox = true,
        .scale_embedding = true,
        .qk_norm = true,
        .post_norm = true,
        .activation = FAMILY_GELU,
        .window_every = 6,
        .local_rope_base = 10000.0f,
        .local_rope_unscaled = true,
        .big_layers = 62,
    },
    {
        .name = "phi3", /* Phi-3, Phi-3.5, Phi-4 */
        .rope_neox = true,
        .fused_gate_up = true,
        .rope_factors = true,
    },
};

enum { N_FAMILIES = sizeof table / sizeof *table };

const struct family *family_find(const char *name, uint64_t name_bytes) {
    for (uint32_t i = 0; i < N_FAMILIES; i++) {
        if (strlen(table[i].name) == name_bytes && memcmp(table[i].name, name, name_bytes) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

const char *family_known(void) {
    return "llama, qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3";
}
