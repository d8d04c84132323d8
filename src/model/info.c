/* info.c - what a model tells of itself. */
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "kv/kv.h"
#include "model/model.h"

/* The type that holds most bytes. */
static const char *main_type(const struct ot_model *m) {
    uint64_t bytes[OT_DTYPE_MAX] = {0};
    uint32_t best = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        bytes[m->tensors[i].dtype] += m->tensors[i].bytes;
    }
    for (uint32_t i = 1; i < OT_DTYPE_MAX; i++) {
        best = bytes[i] > bytes[best] ? i : best;
    }
    const char *name = ot_dtype_name(best);
    return m->n_tensors > 0 && name != NULL ? name : "";
}

static uint64_t count_params(const struct ot_model *m) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct dtype_info *d = dtype_get(m->tensors[i].dtype);
        n += m->tensors[i].bytes / d->block_bytes * d->block_values;
    }
    return n;
}

void ot_model_get_info(const struct ot_model *m, struct ot_model_info *info) {
    const struct hparams *hp = &m->hp;
    *info = (struct ot_model_info){
        .path = m->path,
        .name = m->name,
        .architecture = hp->family != NULL ? hp->family->name : "",
        .quantisation = main_type(m),
        .chat_format = m->chat_format != NULL ? m->chat_format : "",
        .n_files = m->n_files,
        .file_bytes = m->file_bytes,
        .weight_bytes = m->weight_bytes,
        .sweep_bytes = m->bind.sweep_bytes,
        .n_params = count_params(m),
        .n_tensors = m->n_tensors,
        .n_vocab = vocab_size(m->vocab),
        .n_layers = hp->n_layers,
        .n_ctx_train = hp->n_ctx_train,
        .n_embd = hp->n_embd,
        .n_ff = hp->n_experts > 0 ? hp->n_ff_expert : hp->n_ff,
        .n_heads = hp->n_heads,
        .n_kv_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_experts = hp->n_experts,
        .n_experts_used = hp->n_experts_used,
        .kv_bytes_per_token = (uint64_t)hp->n_layers * hp->n_kv_heads * hp->head_dim * 4,
    };
}

void ot_model_get_tensor(const struct ot_model *m, uint32_t index, struct ot_tensor_info *info) {
    if (index >= m->n_tensors) {
        *info = (struct ot_tensor_info){.name = "", .role = ""};
        return;
    }
    const struct gguf_tensor *t = &m->tensors[index];
    *info = (struct ot_tensor_info){
        .name = m->tensor_names[index],
        .dtype = t->dtype,
        .n_dims = t->n_dims,
        .dims = {t->dims[0], t->dims[1], t->dims[2], t->dims[3]},
        .bytes = t->bytes,
        .file = t->file,
        .offset = t->offset,
        .role = "",
    };
    for (uint32_t i = 0; i < m->bind.n_extents; i++) {
        if (m->bind.extent_tensor[i] == index) {
            info->role = m->bind.extent_role[i];
            info->bytes_per_token = bind_extent_step_bytes(&m->hp, &m->bind.extents[i]);
            return;
        }
    }
}
