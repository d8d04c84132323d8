/* forward.h - the forward pass: one sweep of the weights for a batch of tokens.
 *
 * Walks the schedule of bind.h, layer by layer, all tokens of the batch through a matrix before the
 * next one is touched. Weights come from residency as views and are released at once; every pass
 * over an operand is posted to the ledger here.
 *
 *   forward.c    the sweep: embedding, layers, output
 *   matmul.c     views of weights times prepared activations, divided among the threads
 *   attend.c     rope, KV, attention
 *   experts.c    routing and the experts' FFN
 *
 * Activations of one token, f32 (sizes in values):
 *   x     [n_embd]   the residual stream
 *   norm  [n_embd]   input of the next matrices
 *   work  [work]     q, k, v and attention's output; then the FFN's gate, gated (fused: gate and up)
 *   y     [n_embd]   output of a block, before it is added to x (of dense models in norm's place)
 *   act   prepared (quantised) input of the next matrices
 *
 * Threads: the engine thread calls; the pool's threads compute. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "base/pool.h"
#include "kernel/kernel.h"
#include "kv/kv.h"
#include "ledger/ledger.h"
#include "model/model.h"
#include "model/prefetch_trial.h"
#include "model/rope.h"
#include "onetrip.h"
#include "residency/residency.h"

struct forward_token {
    uint32_t token, seq, position;
    bool want_logits;
};

enum { FORWARD_MAX_ITEMS = 64, FORWARD_MAX_LAYOUTS = 8, FORWARD_VECTORS = 6, FORWARD_MAX_NEXT = 4 };

/* Most tokens of a sweep that are computed with the kernels for one token or a few: of dense
 * models, and where experts, of whose weights each token uses a few, would be unpacked for a token
 * or two. */
enum { FORWARD_FEW = 8, FORWARD_FEW_ROUTED = 16 };

/* One view of a weight matrix, to be multiplied with n_tokens prepared rows. */
struct matmul_item {
    struct residency_view view;
    const uint8_t *w;
    uint64_t row_bytes;
    uint32_t dtype, n_rows, n_cols;
    bool decode; /* the kernels for one token and for a few */
    bool gated;  /* of a prompt: y is a gate, to be multiplied with the product */
    const float *bias; /* of the view's first row, added before y is gated; NULL: none */
    const uint8_t *acts;
    uint64_t act_bytes;
    const uint32_t *act_index;
    uint32_t n_tokens;
    float *y; /* of the view's first row */
    uint64_t y_stride;
    uint32_t first_piece, rows_per_piece;
};

/* Prepared forms of one input, one per layout that its matrices want. */
struct prepared {
    const float *rows; /* the f32 input */
    uint64_t stride;   /* floats between rows */
    uint32_t n_rows, n_cols;
    uint32_t n_layouts;
    uint8_t layout[FORWARD_MAX_LAYOUTS];
    uint8_t *data[FORWARD_MAX_LAYOUTS];
    uint64_t bytes[FORWARD_MAX_LAYOUTS]; /* of one row */
};

/* Tokens that attend together to keys [first, end) of sequence seq: of a prompt, tokens that follow
 * each other; else tokens of any sequences that hold the same keys. Members are a list. */
struct attend_unit {
    uint64_t first, end;
    uint32_t seq, member, last_member, n_members;
};
struct attend_member {
    uint32_t token, next; /* next: of the unit's members, but for the last */
    uint32_t part;        /* of the token's keys */
    bool in_parts;        /* the token's keys are divided into several */
};
struct attend_plan {
    struct attend_unit *units;
    struct attend_member *members;
    uint32_t n_units, n_members;
    uint64_t read_keys, needed_keys; /* of each kv head */
};

struct forward_params {
    const struct ot_model *model;
    const struct kernels *kernels;
    struct pool *pool;
    struct residency *residency;
    struct kv *kv;
    struct ledger *ledger;
    uint32_t n_batch; /* most tokens of a sweep */
    uint32_t n_ctx;
    volatile const int *stop; /* may be NULL */
};

struct forward {
    /* borrowed */
    const struct ot_model *model;
    const struct hparams *hp;
    const struct kernels *k;
    struct pool *pool;
    struct residency *residency;
    struct kv *kv;
    struct ledger *ledger;
    volatile const int *stop;

    uint32_t n_batch, n_work, n_routed_rows;
    uint32_t activation_extent;
    struct rope rope[2]; /* global, local layers */

    /* one block of memory, owned; the pointers below lie in it */
    uint8_t *memory;
    uint64_t memory_bytes;
    float *x, *norm, *work, *y;
    float *up;           /* of few tokens [n_few, n_ff]; of a prompt [threads, n_batch, gated_rows] */
    uint32_t gated_rows; /* most of a piece */
    float *cosines[2], *sines[2]; /* [n_batch, n_rot / 2] */
    uint8_t *act;
    uint64_t act_bytes;
    float *routed, *routed_y; /* [n_routed_rows, 2 n_ff_expert], [n_routed_rows, n_embd] */
    uint8_t *routed_act;
    uint64_t routed_act_bytes;
    float *router, *route_weight; /* [n_batch, n_experts], [n_batch, used] */
    uint32_t *route_expert;       /* [n_batch, used] */
    uint32_t *route_tokens,
        *route_slots;       /* [n_batch * used] token and its slot, grouped by expert */
    uint32_t *expert_first; /* [n_experts + 1] */
    uint32_t *expert_ids;   /* [n_experts] those with rows */
    struct residency_part *expert_parts; /* [3 n_experts] */
    uint8_t *expert_stage;               /* [n_experts] */
    uint32_t *row_ids;                   /* [n_routed_rows] */
    float
        *vector_space[FORWARD_VECTORS]; /* [widest] vectors that are not aligned f32 in the file */
    uint8_t *scratch;                   /* [threads, scratch_bytes] */
    uint64_t scratch_bytes;
    float *attend_parts;         /* [few, attend_most_parts, n_heads, head_dim] */
    double *attend_totals;       /* [few, attend_most_parts, n_heads] */
    struct attend_plan plans[2]; /* of the sweep that runs: layers that see all, and local ones */

    /* of the sweep that runs */
    struct forward_token *tokens;
    uint32_t n_tokens; /* that go on: from the last layer on those whose logits are wanted */
    uint32_t n_wanted;
    uint32_t n_room; /* tokens that memory may be touched for, of n_batch that are laid out */
    bool decode; /* few tokens, or one that goes on alone: the kernels for one and for a few */
    bool one_logit; /* of the call that the sweep belongs to */
    struct matmul_item items[FORWARD_MAX_ITEMS];
    uint32_t n_items;
    struct matmul_item next[FORWARD_MAX_NEXT]; /* of the job after this one, as far as known */
    uint32_t n_next;
    struct prepared prepared, routed_prepared;
    struct prefetch_trial prefetch[2]; /* of sweeps of one token, of several */

    uint64_t phase_ns[OT_PHASE_COUNT];
};

/* Up to so many tokens, whatever sequences they belong to, the kernels for one and for a few are
 * faster than those for many. */
uint32_t forward_few(const struct ot_model *model, const struct kernels *kernels);
/* Bytes forward_open takes for activations and scratch. */
uint64_t forward_need_bytes(const struct ot_model *model, const struct kernels *kernels,
                            uint32_t n_threads, uint32_t n_batch);
/* Errors: MEMORY; IO, CHANGED, FORMAT (of rope factors). */
int forward_open(struct forward *f, const struct forward_params *params, struct ot_error *err);
void forward_close(struct forward *f);

/* Between sweeps: gives the memory of activations back to the system; it comes again when touched.
 */
void forward_drop(struct forward *f);

/* Runs n <= n_batch tokens; their KV is written, whether or not logits are wanted. Tokens whose logits
 * are not wanted end with the last layer's keys and values; a sweep without others reads no further.
 *   tokens      [n], overwritten
 *   n_room      tokens whose activations there is memory for, n <= n_room <= n_batch
 *   decode      use the kernels for one token or a few (n <= FORWARD_FEW, or up to what
 *               forward_few gives): results are those of n sweeps of one token, to the bit
 *   one_logit   the whole call wants one row of logits: use the kernels for one token where that
 *               goes on alone, in the last layer and for the output
 *   logits      [number of wanted, n_vocab]
 * Errors: IO, CHANGED, NOT_FINITE, INTERRUPTED; KV beyond the sequences' lengths is then undefined.
 */
int forward_sweep(struct forward *f, struct forward_token *tokens, uint32_t n, uint32_t n_room,
                  bool decode, bool one_logit, float *logits, struct ot_error *err);

/* ---- between the files of the forward pass ---- */

/* Starts a new input [n_rows, n_cols], rows stride floats apart. */
void matmul_input(struct prepared *p, uint8_t *space, const float *rows,
                  uint64_t stride, uint32_t n_rows, uint32_t n_cols);
/* Rows [first, first + n) of p, which are those of gate: gate = activation(gate) * up, then prepared for
 * w while they are in the cache. The other rows need not be known yet; all are to be prepared so before
 * a matmul_add uses them. */
void matmul_gate(struct forward *f, struct prepared *p, float *gate, const float *up,
                 uint64_t up_stride, const struct weight *w, bool decode, uint32_t first,
                 uint32_t n);
/* y[t, :] = W x_t for rows of p (act_index: which row is token t; NULL: row t). Computed at the
 * next matmul_flush or earlier. */
int matmul_add(struct forward *f, const struct weight *w, uint32_t part, struct prepared *p,
               const uint32_t *act_index, uint32_t n_tokens, bool decode, float *y,
               uint64_t y_stride, struct ot_error *err);
/* For a prompt's tokens, all rows of p: gate[t, :] = activation(gate[t, :]) * (W x_t + bias), of a gate
 * that has been computed. What W gives goes no further than a thread's own rows of up. bias: NULL or
 * valid until the flush. */
int matmul_add_gated(struct forward *f, const struct weight *w, struct prepared *p,
                     const float *bias, float *gate, uint64_t gate_stride, struct ot_error *err);
/* Rows that a thread computes at a time where a prompt's matrices have total_rows: whole tiles. */
uint32_t matmul_prompt_rows(uint64_t total_rows, uint32_t n_threads);
int matmul_flush(struct forward *f, struct ot_error *err);
/* Tells that the job after the next matmul_flush will read w; no promise. Of use when decoding. */
void matmul_ahead(struct forward *f, const struct weight *w);
/* Gives up what matmul_add collected, after an error. */
void matmul_drop(struct forward *f);

/* A vector of the file as f32, valid until vector_put. */
struct vector {
    const float *data; /* NULL: absent */
    struct residency_view view;
};
int vector_get(struct forward *f, const struct weight *w, uint32_t space, struct vector *out,
               struct ot_error *err);
void vector_put(struct forward *f, struct vector *v);

/* What is done between these two counts as a phase, but for the time at the ends of jobs, which is
 * OT_PHASE_BARRIERS, and that in which residency waited for bytes, OT_PHASE_WAIT. Phases do not nest. */
struct phase {
    uint64_t start_ns, barriers_ns, disk_ns;
};
struct phase phase_begin(const struct forward *f);
void phase_end(struct forward *f, struct phase begin, enum ot_phase phase);

/* Runs fn for tokens [0, n) in pieces. */
typedef void forward_rows_fn(struct forward *f, void *arg, uint32_t first, uint32_t count);
void forward_for_rows(struct forward *f, uint32_t n, forward_rows_fn *fn, void *arg);
/* Most parts that a token's keys are divided into. */
uint32_t attend_most_parts(const struct hparams *hp);
/* Which of f->tokens attend to what: fills f->plans[local], of layers that see all or of local ones. */
void attend_plan(struct forward *f, bool local);
/* Tells matmul_ahead what a layer reads first. */
void attend_ahead(struct forward *f, uint32_t layer);
/* The same of what follows a layer: the next one, or the output. */
void forward_ahead(struct forward *f, uint32_t layer);
/* norm -> y: attention and the experts' FFN of a layer, without the residual. Attention in the last
 * layer keeps the tokens that go on; where none does, y is not written. */
int attend_layer(struct forward *f, uint32_t layer, struct ot_error *err);
int experts_layer(struct forward *f, uint32_t layer, struct ot_error *err);

#endif
