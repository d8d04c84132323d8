/* kv.c - keys and values of the tokens seen. */
#include "kv/kv.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "kernel/kernel.h"
#include "sys/memory.h"

/* Attention reads huge pages a quarter faster, but a head's first token takes a whole one, and
 * clears it (15 ms for 134 MB of KV). So a short text in a very long context has small pages. */
static const uint64_t huge_most_bytes = 512u << 20;

uint64_t kv_need_bytes(uint32_t n_layers, uint32_t n_seq, uint32_t n_kv_heads, uint32_t head_dim,
                       uint32_t n_ctx) {
    uint64_t bytes = round_up(n_ctx, KERNEL_KEY_BLOCK) * head_dim * 2 * sizeof(uint16_t);
    if (!checked_mul(bytes, n_kv_heads, &bytes) || !checked_mul(bytes, n_layers, &bytes) ||
        !checked_mul(bytes, n_seq, &bytes)) {
        return UINT64_MAX;
    }
    return bytes;
}

int kv_open(struct kv *kv, uint32_t n_layers, uint32_t n_seq, uint32_t n_kv_heads,
            uint32_t head_dim, uint32_t n_ctx, struct ledger *ledger, struct ot_error *err) {
    uint64_t bytes = kv_need_bytes(n_layers, n_seq, n_kv_heads, head_dim, n_ctx);
    if (bytes == UINT64_MAX) {
        return error_set(err, OT_ERR_ARGUMENT, "context",
                         "KV of %u positions times %u sequences "
                         "is more than can be addressed",
                         n_ctx, n_seq);
    }
    *kv = (struct kv){
        .n_layers = n_layers,
        .n_seq = n_seq,
        .n_kv_heads = n_kv_heads,
        .head_dim = head_dim,
        .n_ctx = n_ctx,
        .n_ctx_stride = (uint32_t)round_up(n_ctx, KERNEL_KEY_BLOCK),
        .bytes = bytes / 2,
        .ledger = ledger,
    };
    int rc = ledger_add_extent(ledger, "kv", 2, bytes, OT_CLASS_KV, -1, &kv->ledger_id, err);
    if (rc != OT_OK) {
        return rc;
    }
    bool huge = bytes <= huge_most_bytes;
    kv->k = sys_memory_take(kv->bytes, huge, err);
    kv->v = kv->k != NULL ? sys_memory_take(kv->bytes, huge, err) : NULL;
    if (kv->v == NULL) {
        kv_close(kv);
        return OT_ERR_MEMORY;
    }
    return OT_OK;
}

void kv_close(struct kv *kv) {
    if (kv->k != NULL) {
        sys_memory_free(kv->k, kv->bytes);
    }
    if (kv->v != NULL) {
        sys_memory_free(kv->v, kv->bytes);
    }
    memset(kv, 0, sizeof *kv);
}

static uint64_t head_offset(const struct kv *kv, uint32_t layer, uint32_t seq, uint32_t head) {
    uint64_t index = ((uint64_t)layer * kv->n_seq + seq) * kv->n_kv_heads + head;
    return index * kv->n_ctx_stride * kv->head_dim;
}

uint16_t *kv_keys(const struct kv *kv, uint32_t layer, uint32_t seq, uint32_t head) {
    return kv->k + head_offset(kv, layer, seq, head);
}

uint16_t *kv_values(const struct kv *kv, uint32_t layer, uint32_t seq, uint32_t head) {
    return kv->v + head_offset(kv, layer, seq, head);
}

void kv_copy(struct kv *kv, uint32_t dst, uint32_t src, uint32_t n) {
    uint64_t bytes = (uint64_t)n * kv->head_dim * sizeof(uint16_t);
    for (uint32_t layer = 0; layer < kv->n_layers; layer++) {
        for (uint32_t head = 0; head < kv->n_kv_heads; head++) {
            memcpy(kv_keys(kv, layer, dst, head), kv_keys(kv, layer, src, head), bytes);
            memcpy(kv_values(kv, layer, dst, head), kv_values(kv, layer, src, head), bytes);
        }
    }
    ledger_post(kv->ledger, kv->ledger_id, OT_RAM_RAM, OT_CAUSE_COPY,
                2 * bytes * kv->n_layers * kv->n_kv_heads, 0);
}
