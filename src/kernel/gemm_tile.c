/* gemm_tile.c - the order in which a gemm goes through rows, columns and tokens (tile.h).
 *
 * A strip of up to MAX_TILES tiles is unpacked, then all tokens pass over it, a few at a time:
 * their activations are read once for the strip. Columns are taken BLOCK_COLS at a time, results of
 * the blocks before waiting in y, so that a value's sums are formed in the same order whatever rows
 * and tokens are computed with it.
 *
 * Unpacking would wait for memory, and multiplying leaves memory idle: so while tokens pass over a
 * strip, the packed rows of the next one are asked for, also where they are the next call's. What
 * nobody asked for in time is prefetched a tile before it is unpacked: 32 rows at once are more
 * streams than the hardware follows. */
#include <stddef.h>

#include "base/checked.h"
#include "kernel/layout.h"
#include "kernel/tile.h"

enum {
    BLOCK_COLS = LAYOUT_GEMM_COLS,
    MAX_TILES = 4,
    TILE_BYTES_PER_COL = TILE_ROWS + TILE_ROWS * 4 * 2 / 16, /* codes, scale, min */
    STRIP_BYTES = 480 << 10,
    AHEAD_PASSES = 8, /* the last ones, in which the next rows are asked for: soon enough to be kept */
};

static uint64_t block_cols(uint32_t n_cols) {
    return n_cols < BLOCK_COLS ? round_up(n_cols, 256) : BLOCK_COLS;
}

static uint32_t strip_tiles(uint32_t n_cols) {
    return (uint32_t)min_u64(STRIP_BYTES / (block_cols(n_cols) * TILE_BYTES_PER_COL), MAX_TILES);
}

uint64_t gemm_scratch_bytes(uint32_t n_cols) {
    /* A strip of fewer columns may have more tiles, and be larger; but never than this. */
    const uint64_t strip =
        min_u64(MAX_TILES * block_cols(n_cols) * TILE_BYTES_PER_COL, STRIP_BYTES);
    const uint64_t sums = block_cols(n_cols) / 16 * TILE_MAX_TOKENS * sizeof(float);
    const uint64_t quantised = sizeof(const uint8_t *) + strip + sums;
    const uint64_t floating =
        (uint64_t)min_u32(n_cols, TILE_FLOAT_COLS) * TILE_ROWS * sizeof(float);
    return round_up(max_u64(quantised, floating), KERNEL_ALIGN);
}

struct strip {
    struct tile tiles[MAX_TILES];
    float *sums;
    const uint8_t **asked; /* the packed rows that were asked for last: a hint, from call to call */
};

static struct strip lay_out(const struct tile_isa *isa, uint32_t n_cols, void *scratch) {
    const uint64_t cols = block_cols(n_cols);
    char *p = scratch;
    struct strip s;
    for (uint32_t i = 0; i < strip_tiles(n_cols); i++) {
        struct tile *t = &s.tiles[i];
        t->codes_stride = (uint64_t)isa->part_rows * (isa->interleaved ? 4 : cols);
        t->group_stride = (uint64_t)isa->part_rows * (isa->interleaved ? 1 : cols / 16);
        t->codes = (void *)p;
        p += cols * TILE_ROWS;
        t->scale = (void *)p;
        p += cols / 16 * TILE_ROWS * 4;
        t->min = (void *)p;
        p += cols / 16 * TILE_ROWS * 4;
    }
    s.sums = (void *)p;
    p += cols / 16 * TILE_MAX_TOKENS * sizeof(float);
    s.asked = (void *)p;
    return s;
}

/* What one call of unpack_part does: rows [row, row + n_rows), columns from col on. */
struct extent {
    uint64_t row;
    uint32_t n_rows, col, n_cols;
};

static const uint8_t *packed(const struct gemm *g, const struct tile_type *type, uint64_t row,
                             uint32_t col) {
    return g->w + row * g->row_bytes + (uint64_t)col / type->block_cols * type->block_bytes;
}

/* The part's blocks 256 columns at a time; prefetch: the same place of the next tile before. */
static void unpack_part(const struct gemm *g, const struct tile_type *type, uint32_t part_rows,
                        bool interleaved, bool prefetch, const struct extent *e, struct tile part) {
    const uint8_t *rows[TILE_ROWS];
    for (uint32_t i = 0; i < part_rows; i++)
        rows[i] = g->w + (e->row + min_u32(i, e->n_rows - 1)) * g->row_bytes;
    const uint64_t width = interleaved ? TILE_ROWS : part_rows;
    const uint64_t next_tile = TILE_ROWS * g->row_bytes;
    const uint32_t step = 256 / type->block_cols;
    uint64_t offset = (uint64_t)e->col / type->block_cols * type->block_bytes;
    for (uint32_t n = e->n_cols / type->block_cols; n > 0;) {
        const uint32_t n_blocks = min_u32(n, step);
        const uint64_t bytes = (uint64_t)n_blocks * type->block_bytes;
        for (uint32_t i = 0; prefetch && i < part_rows; i++)
            for (uint64_t p = 0; p < bytes; p += 64)
                __builtin_prefetch(rows[i] + offset + next_tile + p, 0, 2);
        type->unpack(rows, offset, n_blocks, part);
        offset += bytes;
        part.codes += 256 * width;
        part.scale += 256 / type->scale_cols * width;
        part.min += 256 / type->scale_cols * width;
        n -= n_blocks;
    }
}

/* Parts of rows that the matrix does not have are left as they were; nobody reads their results. */
static void unpack_tile(const struct tile_isa *isa, const struct gemm *g,
                        const struct tile_type *type, bool prefetch, const struct extent *e,
                        const struct tile *tile) {
    struct tile part = *tile;
    for (uint32_t r = 0; r < e->n_rows; r += isa->part_rows) {
        const struct extent rows = {e->row + r, min_u32(e->n_rows - r, isa->part_rows), e->col,
                                    e->n_cols};
        unpack_part(g, type, isa->part_rows, isa->interleaved, prefetch, &rows, part);
        part.codes += tile->codes_stride;
        part.scale += tile->group_stride;
        part.min += tile->group_stride;
    }
}

static void gather_sums(const struct gemm *g, const struct tile_type *type, struct tile_tokens *a,
                        uint32_t n, uint32_t col) {
    for (uint32_t m = 0; m < n; m++) {
        const float *s = layout_q8_s(a->row[m], g->n_cols) + col / 16;
        if (type->scale_cols == 16)
            for (uint32_t i = 0; i < a->n_cols / 16; i++)
                a->sums[i * n + m] = s[i];
        else
            for (uint32_t i = 0; i < a->n_cols / 32; i++)
                a->sums[i * n + m] = s[2 * i] + s[2 * i + 1];
    }
}

/* As many as the kind has multipliers for. */
static uint32_t tokens_at_once(const struct tile_isa *isa, uint32_t kind) {
    uint32_t n = isa->max_tokens;
    while (isa->multiply[kind][n - 1] == NULL)
        n--;
    return n;
}

/* What is unpacked after a block of columns of a strip: the rows' next block, or the next rows. */
static struct extent next_of(const struct gemm *g, const struct extent *e, uint32_t strip_rows) {
    const uint32_t col = e->col + e->n_cols;
    if (col < g->n_cols) {
        return (struct extent){e->row, e->n_rows, col, min_u32(g->n_cols - col, BLOCK_COLS)};
    }
    const uint64_t row = e->row + e->n_rows, left = (uint64_t)g->n_rows + g->n_next - row;
    return (struct extent){row, (uint32_t)min_u64(left, strip_rows), 0,
                           min_u32(g->n_cols, BLOCK_COLS)};
}

/* The next rows that pass number `pass` of n_passes asks for while it is in the strip's tile number
 * `tile` of n_tiles. */
static void ask_ahead(const struct gemm *g, const struct tile_type *type, const struct extent *next,
                      uint32_t pass, uint32_t n_passes, uint32_t tile, uint32_t n_tiles,
                      struct tile_tokens *a) {
    const uint32_t n_asking = min_u32(n_passes, AHEAD_PASSES);
    const uint32_t n_calls = n_asking * n_tiles, rows = (next->n_rows + n_calls - 1) / n_calls;
    const uint32_t call = (pass - (n_passes - n_asking)) * n_tiles + tile, first = call * rows;
    a->n_ahead = 0;
    if (pass >= n_passes - n_asking && first < next->n_rows) {
        a->n_ahead = min_u32(rows, next->n_rows - first);
        a->ahead = packed(g, type, next->row + first, next->col);
        a->ahead_stride = g->row_bytes;
        a->ahead_bytes = 32u * type->block_bytes / type->block_cols;
        a->ahead_mask = a->ahead_bytes <= 16 ? 3 : a->ahead_bytes <= 32 ? 1 : 0;
    }
}

/* All tokens over a strip, in passes of nearly equal size. */
static void pass_tokens(const struct tile_isa *isa, const struct gemm *g,
                        const struct tile_type *type, const struct extent *e,
                        const struct extent *next, const struct strip *strip) {
    const uint32_t at_once = tokens_at_once(isa, type->kind);
    const uint32_t n_passes = (g->n_tokens + at_once - 1) / at_once;
    const uint32_t n_tiles = (e->n_rows + TILE_ROWS - 1) / TILE_ROWS;
    for (uint32_t token = 0, pass = 0; pass < n_passes; pass++) {
        const uint32_t left = n_passes - pass, n = (g->n_tokens - token + left - 1) / left;
        tile_multiply_fn *multiply = isa->multiply[type->kind][n - 1];
        struct tile_tokens a = {.col = e->col,
                                .q_offset = e->col,
                                .d_offset = layout_pad(g->n_cols) + (uint64_t)e->col / 16 * 4,
                                .sums = strip->sums,
                                .n_cols = e->n_cols,
                                .add = e->col != 0};
        for (uint32_t m = 0; m < n; m++) {
            a.row[m] = gemm_act(g, token + m);
            a.y[m] = g->y + (token + m) * g->y_stride + e->row;
        }
        if (type->wants_sums)
            gather_sums(g, type, &a, n, e->col);
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            ask_ahead(g, type, next, pass, n_passes, tile, n_tiles, &a);
            multiply(&a, &strip->tiles[tile], min_u32(e->n_rows - tile * TILE_ROWS, TILE_ROWS));
            for (uint32_t m = 0; m < n; m++)
                a.y[m] += TILE_ROWS;
        }
        token += n;
    }
}

/* One block of columns of a strip. */
static void multiply_strip(const struct tile_isa *isa, const struct gemm *g,
                           const struct tile_type *type, const struct extent *e,
                           const struct extent *next, const struct strip *strip) {
    const bool asked = *strip->asked == packed(g, type, e->row, e->col);
    for (uint32_t r = 0; r < e->n_rows; r += TILE_ROWS) {
        const struct extent tile = {e->row + r, min_u32(e->n_rows - r, TILE_ROWS), e->col,
                                    e->n_cols};
        const bool prefetch = !asked && r + TILE_ROWS < e->n_rows;
        unpack_tile(isa, g, type, prefetch, &tile, &strip->tiles[r / TILE_ROWS]);
    }
    pass_tokens(isa, g, type, e, next, strip);
    *strip->asked = next->n_rows > 0 ? packed(g, type, next->row, next->col) : NULL;
}

void tile_gemm(const struct tile_isa *isa, uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_type *type = &isa->types[dtype];
    const struct strip strip = lay_out(isa, g->n_cols, scratch);
    const uint32_t strip_rows = strip_tiles(g->n_cols) * TILE_ROWS;
    struct extent next = {0, min_u32(g->n_rows, strip_rows), 0, min_u32(g->n_cols, BLOCK_COLS)};
    for (struct extent e = next; e.row < g->n_rows; e = next) {
        e.n_rows = (uint32_t)min_u64(e.n_rows, g->n_rows - e.row);
        next = next_of(g, &e, strip_rows);
        multiply_strip(isa, g, type, &e, &next, &strip);
    }
}

void tile_fill(struct kernels *k, const struct tile_type types[], kernel_gemm_fn *const entries[]) {
    for (uint32_t i = 0; i < OT_DTYPE_MAX; i++) {
        if (types[i].unpack != NULL) {
            k->type[i].gemm = entries[i];
            k->type[i].layout_gemm = types[i].layout;
        }
    }
    k->gemm_scratch_bytes = gemm_scratch_bytes;
}
