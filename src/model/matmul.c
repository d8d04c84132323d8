/* matmul.c - weights times activations: views collected, then divided among the threads.
 *
 * Matrices that share an input (q, k, v; gate, up; several experts) are collected and computed in
 * one job. When a view is not there yet, what has been collected is computed first, so that reading
 * overlaps with computing and views are held for a short time only.
 *
 * Between two jobs of decode one thread computes norms and the like and the others wait, so memory
 * would be idle; the waiting ones bring the start of what they will read next into their caches
 * (matmul_ahead). */
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "kernel/prefetch.h"
#include "model/forward.h"

enum {
    PIECE_BYTES_MIN = 16 << 10,
    PIECE_BYTES_GOOD = 64 << 10, /* a smaller piece is only worth it where there are few */
    PIECE_BYTES_MAX = 1 << 20,
    PIECES_PER_THREAD_MIN = 4,
    PIECES_PER_THREAD = 16,
    PIECE_ROWS = 16,     /* a multiple of what the kernels finish together */
    PIECE_TILES_MAX = 4, /* of a prompt: what gemm unpacks at once, some ms of work */
    TRIAL_BYTES = 1 << 20,
    STEP_BYTES = 64 << 10, /* about what is read between two looks at the pages that follow */
    GATES_AHEAD = 8,       /* tokens: each one's gates lie in another page */
    AHEAD_SHARE = 4,       /* of a thread's L2 cache, for what it will read next */
};

void matmul_input(struct prepared *p, uint8_t *space, const float *rows, uint64_t stride,
                  uint32_t n_rows, uint32_t n_cols) {
    *p = (struct prepared){
        .rows = rows, .stride = stride, .n_rows = n_rows, .n_cols = n_cols, .data = {space}};
}

struct prepare_job {
    struct prepared *p;
    uint32_t index; /* of the layout; n_layouts: f32 as it is */
    uint32_t first;
    float *gate; /* the same rows, to be gated before; NULL: not */
    const float *up;
    uint64_t up_stride;
};

/* gate[i] = activation(gate[i]) * up[i] */
static void apply_gate(const struct forward *f, float *gate, const float *up, uint64_t n) {
    (f->hp->family->activation == FAMILY_GELU ? f->k->gelu_mul : f->k->silu_mul)(gate, up, n);
}

static void prepare_rows(struct forward *f, void *arg, uint32_t first, uint32_t count) {
    struct prepare_job *job = arg;
    struct prepared *p = job->p;
    first += job->first;
    for (uint32_t i = first; i < first + count; i++) {
        if (job->gate != NULL) {
            apply_gate(f, job->gate + i * p->stride, job->up + i * job->up_stride, p->n_cols);
        }
        if (job->index < p->n_layouts) {
            f->k->prepare(p->layout[job->index], p->rows + i * p->stride, p->n_cols,
                          p->data[job->index] + i * p->bytes[job->index]);
        }
    }
}

static void prepare_some(struct forward *f, struct prepare_job job, uint32_t n) {
    struct phase phase = phase_begin(f);
    forward_for_rows(f, n, prepare_rows, &job);
    phase_end(f, phase, OT_PHASE_OTHER);
}

/* Index of a layout other than F32; n_layouts: none yet. */
static uint32_t find_layout(const struct prepared *p, uint8_t layout) {
    uint32_t i = 0;
    while (i < p->n_layouts && p->layout[i] != layout) {
        i++;
    }
    return i;
}

static void add_layout(struct forward *f, struct prepared *p, uint8_t layout) {
    uint32_t i = p->n_layouts++;
    p->layout[i] = layout;
    p->bytes[i] = f->k->layout_bytes(layout, p->n_cols);
    if (i > 0) {
        p->data[i] = p->data[i - 1] + p->n_rows * p->bytes[i - 1];
    }
}

/* The input in a layout, prepared when first asked for. */
static const uint8_t *input_in_layout(struct forward *f, struct prepared *p, uint8_t layout,
                                      uint64_t *row_bytes) {
    if (layout == KERNEL_LAYOUT_F32) {
        *row_bytes = p->stride * sizeof(float);
        return (const uint8_t *)p->rows;
    }
    uint32_t i = find_layout(p, layout);
    if (i == p->n_layouts) {
        add_layout(f, p, layout);
        prepare_some(f, (struct prepare_job){.p = p, .index = i}, p->n_rows);
    }
    *row_bytes = p->bytes[i];
    return p->data[i];
}

void matmul_gate(struct forward *f, struct prepared *p, float *gate, const float *up,
                 uint64_t up_stride, const struct weight *w, bool decode, uint32_t first,
                 uint32_t n) {
    const struct kernel_type *t = &f->k->type[w->dtype];
    uint8_t layout = decode ? t->layout_gemv : t->layout_gemm;
    struct prepare_job job = {p, find_layout(p, layout), first, gate, up, up_stride};
    if (job.index == p->n_layouts && layout != KERNEL_LAYOUT_F32) {
        add_layout(f, p, layout);
    }
    prepare_some(f, job, n);
}

/* Rows [row, row + n) for the item's tokens [first, first + count), count at most KERNEL_FEW. */
static void compute_tokens(const struct kernel_type *type, const struct matmul_item *item,
                           uint32_t row, uint32_t n, uint32_t first, uint32_t count) {
    const uint8_t *w = item->w + row * item->row_bytes;
    float *y = item->y + first * item->y_stride + row;
    const void *x[KERNEL_FEW];
    for (uint32_t t = 0; t < count; t++) {
        uint32_t act = item->act_index != NULL ? item->act_index[first + t] : first + t;
        x[t] = item->acts + act * item->act_bytes;
    }
    if (count == 1) {
        type->gemv(w, item->row_bytes, n, item->n_cols, x[0], y);
    } else {
        type->few(w, item->row_bytes, n, item->n_cols, x, count, y, item->y_stride);
    }
}

/* Rows [row, row + n) for a few tokens, each of which gets what a sweep of its own would give it:
 * rows are taken from memory once, in steps that stay in the cache for all groups of tokens. Each
 * step begins with a look at the pages of the next one. */
static void compute_few(const struct forward *f, const struct matmul_item *item, uint32_t row,
                        uint32_t n) {
    const struct kernel_type *type = &f->k->type[item->dtype];
    uint32_t most = type->few != NULL ? KERNEL_FEW : 1;
    uint32_t n_groups = (item->n_tokens + most - 1) / most;
    uint32_t step = (uint32_t)round_up(max_u64(STEP_BYTES / item->row_bytes, 1), PIECE_ROWS);
    for (uint32_t done = 0; done < n; done += step) {
        kernel_prefetch_pages(item->w + (row + done + step) * item->row_bytes,
                              step * item->row_bytes);
        for (uint32_t g = 0, first = 0, count; g < n_groups; g++, first += count) {
            count = (item->n_tokens - first) / (n_groups - g);
            compute_tokens(type, item, row + done, min_u32(step, n - done), first, count);
        }
    }
}

/* Rows [row, row + n) for all tokens of a prompt, to y. */
static void compute_many(const struct forward *f, const struct matmul_item *item, uint32_t row,
                         uint32_t n, uint32_t worker, float *y, uint64_t y_stride) {
    f->k->type[item->dtype].gemm(item->w + row * item->row_bytes, item->row_bytes, n,
                                 item->n_rows - row - n, item->n_cols, item->acts, item->act_bytes,
                                 item->act_index, item->n_tokens, y, y_stride,
                                 f->scratch + worker * f->scratch_bytes);
}

/* The same of up: it goes no further than the thread's own scratch, and y is gated with it. */
static void compute_gated(const struct forward *f, const struct matmul_item *item, uint32_t row,
                          uint32_t n, uint32_t worker) {
    float *up = f->up + (uint64_t)worker * f->n_batch * f->gated_rows;
    compute_many(f, item, row, n, worker, up, n);
    for (uint32_t t = 0; t < item->n_tokens; t++, up += n) {
        float *gate = item->y + t * item->y_stride + row;
        for (uint32_t i = 0; t + GATES_AHEAD < item->n_tokens && i < n; i += 16) {
            __builtin_prefetch(gate + GATES_AHEAD * item->y_stride + i, 1);
        }
        if (item->bias != NULL) {
            f->k->add_scaled(up, item->bias + row, 1.0f, n);
        }
        apply_gate(f, gate, up, n);
    }
}

static void compute_item(struct forward *f, const struct matmul_item *item, uint32_t piece,
                         uint32_t worker) {
    uint32_t row = piece * item->rows_per_piece;
    uint32_t n = min_u32(item->rows_per_piece, item->n_rows - row);
    if (item->decode) {
        compute_few(f, item, row, n);
    } else if (item->gated) {
        compute_gated(f, item, row, n, worker);
    } else {
        compute_many(f, item, row, n, worker, item->y + row, item->y_stride);
    }
}

/* The item that a piece belongs to. */
static const struct matmul_item *item_of(const struct matmul_item *items, uint32_t n_items,
                                         uint32_t piece) {
    uint32_t i = n_items - 1;
    while (items[i].first_piece > piece) {
        i--;
    }
    return &items[i];
}

static void compute_piece(void *arg, uint32_t piece, uint32_t worker) {
    struct forward *f = arg;
    const struct matmul_item *item = item_of(f->items, f->n_items, piece);
    compute_item(f, item, piece - item->first_piece, worker);
}

/* Rows of a decode piece: bytes enough to be a stream, few enough to share out evenly. */
static uint64_t decode_rows(uint64_t total_bytes, uint64_t row_bytes, uint32_t n_threads) {
    uint64_t bytes = max_u64(total_bytes / n_threads / PIECES_PER_THREAD, PIECE_BYTES_GOOD);
    bytes = min_u64(bytes, total_bytes / n_threads / PIECES_PER_THREAD_MIN);
    bytes = min_u64(max_u64(bytes, PIECE_BYTES_MIN), PIECE_BYTES_MAX);
    uint64_t rows = max_u64(bytes / row_bytes, 1);
    return rows < PIECE_ROWS ? rows : round_up(rows, PIECE_ROWS);
}

uint32_t matmul_prompt_rows(uint64_t total_rows, uint32_t n_threads) {
    uint64_t tiles = total_rows / KERNEL_TILE_ROWS / n_threads / PIECES_PER_THREAD_MIN;
    return (uint32_t)min_u64(max_u64(tiles, 1), PIECE_TILES_MAX) * KERNEL_TILE_ROWS;
}

/* Divides items into pieces: for decode by their bytes, else into whole tiles. */
static uint32_t divide(struct matmul_item *items, uint32_t n_items, uint32_t n_threads,
                       uint64_t *bytes) {
    uint64_t total_bytes = 0, total_rows = 0;
    for (uint32_t i = 0; i < n_items; i++) {
        total_bytes += items[i].n_rows * items[i].row_bytes;
        total_rows += items[i].n_rows;
    }
    uint32_t n_pieces = 0;
    for (uint32_t i = 0; i < n_items; i++) {
        struct matmul_item *item = &items[i];
        uint64_t rows = item->decode ? decode_rows(total_bytes, item->row_bytes, n_threads)
                                     : matmul_prompt_rows(total_rows, n_threads);
        item->rows_per_piece = (uint32_t)min_u64(rows, UINT32_MAX / 2);
        item->first_piece = n_pieces;
        n_pieces += (item->n_rows + item->rows_per_piece - 1) / item->rows_per_piece;
    }
    *bytes = total_bytes;
    return n_pieces;
}

void matmul_ahead(struct forward *f, const struct weight *w) {
    const uint8_t *data = w->present && f->decode ? residency_peek(f->residency, w->extent) : NULL;
    if (data != NULL && f->n_next < FORWARD_MAX_NEXT) {
        f->next[f->n_next++] = (struct matmul_item){
            .w = data, .row_bytes = w->row_bytes, .n_rows = w->n_rows, .decode = true};
    }
}

/* Tells each thread where its share of the next job begins. */
static void read_next_ahead(struct forward *f) {
    if (f->n_next == 0) {
        return;
    }
    uint32_t n_threads = pool_threads(f->pool);
    uint64_t most = sys_cpu_facts()->l2_bytes / AHEAD_SHARE, bytes;
    uint32_t n_pieces = divide(f->next, f->n_next, n_threads, &bytes);
    for (uint32_t i = 0; i < n_threads; i++) {
        uint32_t piece = pool_first_piece(f->pool, n_pieces, i);
        const struct matmul_item *item = item_of(f->next, f->n_next, piece);
        uint64_t row = (uint64_t)(piece - item->first_piece) * item->rows_per_piece;
        uint64_t left = (item->n_rows - row) * item->row_bytes;
        pool_read_ahead(f->pool, i, item->w + row * item->row_bytes,
                        (uint32_t)min_u64(min_u64(most, bytes / n_threads), left));
    }
    f->n_next = 0;
}

int matmul_flush(struct forward *f, struct ot_error *err) {
    if (f->n_items == 0) {
        return OT_OK;
    }
    if (f->stop != NULL && *f->stop != 0) {
        matmul_drop(f);
        return error_set(err, OT_ERR_INTERRUPTED, "", "stopped by the caller");
    }
    struct phase phase = phase_begin(f);
    uint64_t bytes;
    uint32_t n_pieces = divide(f->items, f->n_items, pool_threads(f->pool), &bytes);
    read_next_ahead(f);
    struct prefetch_trial *trial = &f->prefetch[f->n_tokens > 1];
    if (f->decode && trial->way != kernels_prefetch_way()) {
        kernels_use_prefetch_way(trial->way);
    }
    pool_run(f->pool, n_pieces, compute_piece, f);
    phase_end(f, phase, OT_PHASE_WEIGHTS);
    if (f->decode && bytes >= TRIAL_BYTES) {
        prefetch_trial_job(trial, f->n_tokens, bytes, clock_ns() - phase.start_ns);
    }
    matmul_drop(f);
    return OT_OK;
}

void matmul_drop(struct forward *f) {
    for (uint32_t i = 0; i < f->n_items; i++) {
        residency_release(f->residency, &f->items[i].view);
    }
    f->n_items = 0;
    f->n_next = 0;
}

/* The next rows of a matrix: at once if they are there, else after computing what is collected. */
static int next_view(struct forward *f, const struct weight *w, uint32_t part, uint32_t row,
                     struct residency_view *view, struct ot_error *err) {
    if (f->n_items < FORWARD_MAX_ITEMS) {
        int rc = residency_try(f->residency, w->extent, part, row, view, err);
        if (rc <= 0) {
            return rc;
        }
    }
    int rc = matmul_flush(f, err);
    if (rc != OT_OK) {
        return rc;
    }
    struct phase phase = phase_begin(f);
    rc = residency_acquire(f->residency, w->extent, part, row, view, err);
    phase_end(f, phase, OT_PHASE_OTHER);
    return rc;
}

/* item: what is the same for all views of the matrix; y, bias: of its first row. */
static int add_views(struct forward *f, const struct weight *w, uint32_t part, struct prepared *p,
                     struct matmul_item item, struct ot_error *err) {
    const struct kernel_type *t = &f->k->type[w->dtype];
    uint32_t id = w->extent;
    uint64_t bytes = w->row_bytes * w->n_rows;
    float *y = item.y;
    const float *bias = item.bias;
    item.row_bytes = w->row_bytes;
    item.dtype = w->dtype;
    item.n_cols = w->n_cols;
    item.acts =
        input_in_layout(f, p, item.decode ? t->layout_gemv : t->layout_gemm, &item.act_bytes);
    for (uint32_t row = 0; row < w->n_rows; row += item.n_rows) {
        int rc = next_view(f, w, part, row, &item.view, err);
        if (rc != OT_OK) {
            return rc;
        }
        item.w = item.view.data;
        item.n_rows = min_u32(item.view.n_rows, w->n_rows - row);
        item.y = y + row;
        item.bias = bias != NULL ? bias + row : NULL;
        f->items[f->n_items++] = item;
    }
    ledger_post(f->ledger, id, OT_RAM_CACHE, OT_CAUSE_COMPUTE, bytes, bytes);
    return OT_OK;
}

int matmul_add(struct forward *f, const struct weight *w, uint32_t part, struct prepared *p,
               const uint32_t *act_index, uint32_t n_tokens, bool decode, float *y,
               uint64_t y_stride, struct ot_error *err) {
    const struct matmul_item item = {.decode = decode,
                                     .act_index = act_index,
                                     .n_tokens = n_tokens,
                                     .y = y,
                                     .y_stride = y_stride};
    return add_views(f, w, part, p, item, err);
}

int matmul_add_gated(struct forward *f, const struct weight *w, struct prepared *p,
                     const float *bias, float *gate, uint64_t gate_stride, struct ot_error *err) {
    const struct matmul_item item = {
        .gated = true, .bias = bias, .n_tokens = p->n_rows, .y = gate, .y_stride = gate_stride};
    return add_views(f, w, 0, p, item, err);
}
