/* bind.h - tensors bound to roles, and the order in which a sweep reads them.
 *
 * The schedule of a sweep is the order of `extents`: the forward pass asks residency for matrices in
 * that order and no other; for biases and norms of keys, which are small and so wired, after q. Of a
 * layer's extents those come first that make its keys and values. */
#ifndef MODEL_BIND_H
#define MODEL_BIND_H

#include "format/gguf.h"
#include "model/hparams.h"
#include "onetrip.h"
#include "residency/residency.h"

enum layer_role {
    ROLE_ATTN_NORM,
    ROLE_ATTN_QKV, /* fused; or the three of them */
    ROLE_ATTN_Q,
    ROLE_ATTN_K,
    ROLE_ATTN_V,
    ROLE_ATTN_QKV_BIAS,
    ROLE_ATTN_Q_BIAS,
    ROLE_ATTN_K_BIAS,
    ROLE_ATTN_V_BIAS,
    ROLE_ATTN_Q_NORM,
    ROLE_ATTN_K_NORM,
    ROLE_ATTN_OUT,
    ROLE_ATTN_OUT_BIAS,
    ROLE_ATTN_POST_NORM,
    ROLE_FFN_NORM,
    ROLE_FFN_ROUTER,
    ROLE_FFN_GATE,
    ROLE_FFN_UP,
    ROLE_FFN_GATE_BIAS,
    ROLE_FFN_UP_BIAS,
    ROLE_FFN_DOWN,
    ROLE_FFN_DOWN_BIAS,
    ROLE_FFN_POST_NORM,
    LAYER_ROLES
};

/* A matrix [n_parts, n_rows, n_cols] (n_parts experts, else 1), or a vector (n_rows 1). */
struct weight {
    bool present;
    uint32_t dtype;
    uint32_t n_rows, n_cols, n_parts;
    uint64_t row_bytes;
    uint32_t extent; /* in bind.extents */
};

struct bind {
    struct weight token_embd, rope_freqs, rope_long, rope_short, output_norm, output;
    struct weight (*layers)[LAYER_ROLES]; /* owned [n_layers] */
    struct residency_extent *extents;     /* owned [n_extents], schedule order; ledger_id: index */
    uint32_t *extent_tensor;              /* owned [n_extents]: index into the file's tensors */
    const char **extent_role;             /* owned [n_extents]; static strings */
    int32_t *extent_layer;                /* owned [n_extents]: -1 outside layers */
    uint32_t n_extents;
    uint32_t keys_extent; /* the last one that the keys and values of all layers need */
    uint64_t sweep_bytes; /* that one token's decode step reads */
};

/* tensors: of all parts of the file, [n_tensors]; find resolves a name to its index (or -1). */
struct bind_source {
    const struct gguf_tensor *tensors;
    uint32_t n_tensors;
    int64_t (*find)(const void *user, const char *name);
    const void *user;
    const char *path;
};

/* Errors: FORMAT (a tensor is missing or has the wrong shape; says which, found, expected; or would
 * be ignored although its name says that it belongs to the text model), UNSUPPORTED, MEMORY. On
 * failure *out needs no bind_deinit. */
int bind_model(struct bind *out, const struct hparams *hp, const struct bind_source *source,
               struct ot_error *err);
void bind_deinit(struct bind *b);
/* Bytes that a decode step of one token reads of an extent. */
uint64_t bind_extent_step_bytes(const struct hparams *hp, const struct residency_extent *e);

#endif
